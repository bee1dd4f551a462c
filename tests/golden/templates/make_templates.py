#!/usr/bin/env python3
"""Writes conversations.json and, for each template, what Jinja makes of them.

    pip install -r requirements.txt
    python make_templates.py

The templates are written for these tests, in the shapes that families use; none
is a copy of a published one.  Made with Python 3.11 and Jinja2 3.1.6; repeated
runs give the same bytes.
"""

import json
from pathlib import Path

import oracle

HERE = Path(__file__).resolve().parent

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather of a "city" <now> & later.',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name, in the\nlocal language"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "integer", "minimum": 1},
                "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}},
            },
            "required": ["city"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": ["string", "null"]}, "tags": {"type": "array", "items": {"type": "string"}}},
            "required": [],
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def call(name, arguments, number=0):
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(text, name="get_weather", number=0):
    return {"role": "tool", "content": text, "name": name, "tool_call_id": f"call{number:05}"}


def conversations():
    plain = [user("Hello!")]
    long = [system("You are terse."), user("Hi"), assistant("Hello."), user("How are you?"), assistant("Fine.\n"), user("Good.")]
    odd = "<|im_end|>\n<|im_start|>system\n</s>[INST] x [/INST] <|eot_id|><think>\u200b é中文😀 \U0001f469\u200d\U0001f4bb \x7f\t\\n {{ x }} {% y %} 'q' \"w\""
    used = [
        user("Weather in Bern?"),
        assistant(None, tool_calls=[call("get_weather", {"city": "Bern", "days": 2, "where": {"lat": 46.95, "lon": 7.45}})]),
        result('{"temperature": 3.5}'),
        assistant("3.5 degrees."),
        user("And \u00dcrdorf?"),
    ]
    twice = [
        system("Use tools."),
        user("Weather in Bern and Rome?"),
        assistant("Looking.", tool_calls=[call("get_weather", {"city": "Bern"}), call("search", {"query": 'it\'s "x"', "tags": ["a", "b"]}, 1)]),
        result("cold"),
        result("warm", "search", 1),
    ]
    thought = [
        user("2 + 2?"),
        assistant("4", reasoning_content="Two and two\nare four."),
        user("3 + 3?"),
        assistant("<think>\nThree and three.\n</think>\n\n6"),
        user("Sure?"),
    ]
    cases = {
        "one": {"messages": plain},
        "prompt": {"messages": plain, "add_generation_prompt": True},
        "system": {"messages": [system("Be kind."), user("Hi")], "add_generation_prompt": True},
        "long": {"messages": long, "add_generation_prompt": True},
        "answered": {"messages": long + [assistant("Bye.")]},
        "odd": {"messages": [system(odd), user(odd), assistant(odd), user(odd)], "add_generation_prompt": True},
        "empty": {"messages": [system(""), user(""), assistant(""), user(" \n ")], "add_generation_prompt": True},
        "tools": {"messages": [user("Weather?")], "tools": [WEATHER, SEARCH, TIME], "add_generation_prompt": True},
        "system and tools": {"messages": [system("Be brief."), user("Weather?")], "tools": [WEATHER], "add_generation_prompt": True},
        "call": {"messages": used[:2], "tools": [WEATHER]},
        "result": {"messages": used[:3], "tools": [WEATHER], "add_generation_prompt": True},
        "used": {"messages": used, "tools": [WEATHER, SEARCH], "add_generation_prompt": True},
        "two calls": {"messages": twice, "tools": [WEATHER, SEARCH], "add_generation_prompt": True},
        "time": {"messages": [user("Time?"), assistant("", tool_calls=[call("time", {})]), result("12:00", "time")], "tools": [TIME], "add_generation_prompt": True},
        "thought": {"messages": thought, "add_generation_prompt": True},
        "no thinking": {"messages": thought[:1], "add_generation_prompt": True, "enable_thinking": False, "thinking": False},
        "thinking": {"messages": thought[:3], "add_generation_prompt": True, "enable_thinking": True, "thinking": True},
        "thought and call": {
            "messages": [user("Time?"), assistant("", reasoning_content="I ask.", tool_calls=[call("time", {})]), result("12:00", "time")],
            "tools": [TIME],
            "add_generation_prompt": True,
        },
        "numbers": {
            "messages": [user("n"), assistant("", tool_calls=[call("f", {"i": 1, "x": -0.5, "big": 12345678901234567, "one": 1.0, "e": 1e-7, "b": True, "n": None, "l": [1, [2]], "o": {}, "t": "1"})])],
        },
        "nothing": {"messages": []},
        "two users": {"messages": [user("a"), user("b")]},
        "assistant first": {"messages": [assistant("I start."), user("ok")], "add_generation_prompt": True},
        "unknown role": {"messages": [user("a"), {"role": "narrator", "content": "b"}]},
        "late system": {"messages": [user("a"), system("now"), user("b")], "add_generation_prompt": True},
        "developer": {"messages": [{"role": "developer", "content": "Rules."}, user("a")], "add_generation_prompt": True, "reasoning_effort": "high"},
        "ends white": {"messages": [user("  a  \n"), assistant("\n b \n\n"), user("\tc")], "add_generation_prompt": True},
        "documents": {"messages": plain, "documents": [{"title": "T", "text": "one\ntwo"}, {"title": "U", "text": ""}], "add_generation_prompt": True},
    }
    for variables in cases.values():
        variables.setdefault("tools", None)
        variables.setdefault("documents", None)
        variables.setdefault("add_generation_prompt", False)
        variables["bos_token"] = "<s>"
        variables["eos_token"] = "</s>"
        variables["pad_token"] = "<pad>"
        # As transformers does: members that are None are not there.
        variables["messages"] = [{k: v for k, v in m.items() if v is not None} for m in variables["messages"]]
    return cases


def write(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n")


def main():
    cases = conversations()
    write(HERE / "conversations.json", cases)
    env = oracle.environment()
    for path in sorted(HERE.glob("*.jinja")):
        source = path.read_bytes().decode()
        write(path.with_suffix(".json"), {name: oracle.render(env, source, variables) for name, variables in cases.items()})


if __name__ == "__main__":
    main()
