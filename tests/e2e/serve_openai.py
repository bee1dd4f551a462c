"""serve_openai.py PROGRAM SOURCE [TEST...] - the server through the official openai client."""
import json
import math
import os
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
import openai
from openai import OpenAI
from server import MODEL, Server, Tests, equal, has

program, source = sys.argv[1:3]
model_folder = os.path.join(source, MODEL)
tests = Tests()
PROMPT = "def add(a, b):"
M = "polymath-16m"

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{{ '\\n' }}"
    "{% endfor %}{% if tools %}# tools: {{ tools | length }} <tool_call>{{ '\\n' }}{% endif %}"
    "{% if add_generation_prompt %}[assistant]{{ ending or '' }} {% endif %}")
TOOLS = [{"type": "function", "function": {
    "name": name, "description": "of the weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 8}},
        "required": ["city"], "additionalProperties": False}}} for name in ("now", "tomorrow")]


def folder_with_template(into):
    """The model of the repository with a chat template beside it."""
    for name in os.listdir(model_folder):
        if name != "tokenizer_config.json":
            os.symlink(os.path.abspath(os.path.join(model_folder, name)), os.path.join(into, name))
    with open(os.path.join(model_folder, "tokenizer_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    with open(os.path.join(into, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({**config, "chat_template": TEMPLATE}, f)
    return into


def complete(c, **more):
    return c.completions.create(**{"model": M, "prompt": PROMPT, "max_tokens": 8, "temperature": 0,
                                   **more})


def chat(c, **more):
    return c.chat.completions.create(**{
        "model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8,
        "temperature": 0, **more})


def refused(kind, call, *parts):
    try:
        call()
    except kind as error:
        for part in parts:
            has(str(error), part)
        return error
    raise AssertionError(f"not refused with {kind.__name__}")


# ---------------------------------------------------------------- completions

def models_are_listed(c):
    equal([m.id for m in c.models.list().data], [M])
    equal(c.models.retrieve(M).id, M)
    refused(openai.NotFoundError, lambda: c.models.retrieve("other"))


def a_completion_is_whole(c):
    r = complete(c)
    equal((r.object, r.model, len(r.choices)), ("text_completion", M, 1))
    equal(r.choices[0].finish_reason, "length")
    equal((r.usage.completion_tokens, r.usage.total_tokens), (8, r.usage.prompt_tokens + 8))
    equal(r.choices[0].text, complete(c).choices[0].text)


def a_stream_says_the_same(c):
    whole = complete(c, max_tokens=40)
    parts = list(complete(c, max_tokens=40, stream=True, stream_options={"include_usage": True}))
    equal("".join(p.choices[0].text for p in parts[:-1]), whole.choices[0].text)
    equal([p.choices[0].finish_reason for p in parts[:-1] if p.choices[0].finish_reason],
          ["length"])
    equal(parts[-1].choices, [])
    equal(parts[-1].usage.completion_tokens, 40)
    equal({p.id for p in parts}, {parts[0].id})
    equal([p.usage for p in complete(c, stream=True)], [None] * len(list(complete(c, stream=True))))


def prompts_have_many_forms(c):
    one = complete(c).choices[0].text
    ids = c.post("../tokenize", cast_to=object, body={"prompt": PROMPT})["tokens"]
    equal(complete(c, prompt=ids).choices[0].text, one)
    r = complete(c, prompt=[PROMPT, "import os", PROMPT])
    equal([k.index for k in r.choices], [0, 1, 2])
    equal(r.choices[2].text, one)
    r = complete(c, prompt=[ids, ids], n=2)
    equal([k.text for k in r.choices], [one] * 4)
    equal(r.usage.completion_tokens, 32)
    equal(r.usage.prompt_tokens, 2 * len(ids))
    complete(c, prompt="")


def choices_draw_apart(c):
    r = complete(c, n=4, temperature=1, seed=5, max_tokens=16)
    texts = [k.text for k in r.choices]
    if len(set(texts)) < 2:
        raise AssertionError(texts)
    equal([k.text for k in complete(c, n=4, temperature=1, seed=5, max_tokens=16).choices], texts)
    equal(complete(c, temperature=1, seed=6, max_tokens=16).choices[0].text, texts[1])
    a, b = (complete(c, temperature=1, max_tokens=24).choices[0].text for _ in range(2))
    if a == b:
        raise AssertionError("two requests without a seed drew alike")
    streamed = {}
    for p in complete(c, n=4, temperature=1, seed=5, max_tokens=16, stream=True):
        k = p.choices[0]
        streamed[k.index] = streamed.get(k.index, "") + k.text
    equal([streamed[i] for i in range(4)], texts)


def stops_are_not_given_out(c):
    whole = complete(c, max_tokens=30).choices[0].text
    stop = whole[10:13]
    for extra in ({}, {"stream": True}):
        r = complete(c, max_tokens=30, stop=stop, **extra)
        if extra:
            parts = list(r)
            text = "".join(p.choices[0].text for p in parts)
            reason = parts[-1].choices[0].finish_reason
        else:
            text, reason = r.choices[0].text, r.choices[0].finish_reason
        equal((text, reason), (whole[:whole.index(stop)], "stop"))
    r = complete(c, max_tokens=30, stop=[stop], extra_body={"min_tokens": 20})
    if r.usage.completion_tokens < 20:
        raise AssertionError(r.usage)


def logprobs_are_reported(c):
    r = complete(c, logprobs=3)
    lp = r.choices[0].logprobs
    equal("".join(lp.tokens), r.choices[0].text)
    equal(len(lp.token_logprobs), 8)
    for token, p, top, offset in zip(lp.tokens, lp.token_logprobs, lp.top_logprobs, lp.text_offset):
        equal(len(top), 3)
        equal(max(top.values()), p)
        equal(r.choices[0].text[offset:offset + len(token)], token)
    parts = list(complete(c, logprobs=3, stream=True))
    streamed = [t for p in parts if p.choices[0].logprobs for t in p.choices[0].logprobs.tokens]
    equal(streamed, lp.tokens)
    equal(complete(c, logprobs=0).choices[0].logprobs.tokens, lp.tokens)


def the_prompt_is_echoed(c):
    r = complete(c, echo=True, logprobs=1, max_tokens=2)
    equal(r.choices[0].text[:len(PROMPT)], PROMPT)
    lp = r.choices[0].logprobs
    equal(lp.token_logprobs[0], None)
    equal(len(lp.tokens), r.usage.prompt_tokens + 2)
    if not all(p < 0 for p in lp.token_logprobs[1:]):
        raise AssertionError(lp.token_logprobs)
    # What the prompt's end was likely to be is what greedy decoding finds likely.
    score = complete(c, prompt=PROMPT + complete(c, max_tokens=1).choices[0].text, echo=True,
                     logprobs=1, max_tokens=0)
    equal(score.usage.completion_tokens, 0)
    near(score.choices[0].logprobs.token_logprobs[-1],
         complete(c, max_tokens=1, logprobs=1).choices[0].logprobs.token_logprobs[0])
    parts = list(complete(c, echo=True, stream=True, max_tokens=2))
    equal("".join(p.choices[0].text for p in parts), r.choices[0].text)
    ids = c.post("../tokenize", cast_to=object,
                 body={"prompt": PROMPT, "add_special": False})["tokens"]
    equal(complete(c, prompt=ids, echo=True).choices[0].text[:len(PROMPT)], PROMPT)


def near(a, b):
    if not math.isclose(a, b, rel_tol=0, abs_tol=1e-4):
        raise AssertionError(f"{a} and {b}")


def biases_and_penalties_act(c):
    first = complete(c, max_tokens=1, extra_body={"return_token_ids": True})
    token = first.choices[0].token_ids[0]
    second = complete(c, max_tokens=1, logit_bias={str(token): -100})
    if second.choices[0].text == first.choices[0].text:
        raise AssertionError("a bias of -100 did nothing")
    forced = complete(c, max_tokens=3, logit_bias={"300": 100},
                      extra_body={"return_token_ids": True})
    equal(forced.choices[0].token_ids, [300] * 3)
    spread = complete(c, max_tokens=40, prompt="a a a a a a", frequency_penalty=2,
                      presence_penalty=2, extra_body={"return_token_ids": True, "ignore_eos": True})
    plain = complete(c, max_tokens=40, prompt="a a a a a a",
                     extra_body={"return_token_ids": True, "ignore_eos": True})
    if len(set(spread.choices[0].token_ids)) <= len(set(plain.choices[0].token_ids)):
        raise AssertionError("penalties did not spread the tokens")
    equal(len(first.choices[0].prompt_token_ids), first.usage.prompt_tokens)


def prefixes_are_found_again(c):
    prompt = "import os\nimport sys\nimport json\nimport re\n" * 5
    complete(c, prompt=prompt, max_tokens=1)
    r = complete(c, prompt=prompt, max_tokens=1)
    if r.usage.prompt_tokens_details.cached_tokens == 0:
        raise AssertionError(r.usage)
    salted = complete(c, prompt=prompt, max_tokens=1, extra_body={"cache_salt": "mine"})
    equal(salted.usage.prompt_tokens_details.cached_tokens, 0)
    equal(salted.choices[0].text, r.choices[0].text)


def json_is_enforced(c):
    schema = {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 10}, "size": {"enum": ["s", "m"]},
        "n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "size", "n"], "additionalProperties": False}
    for temperature in (0, 1):
        r = complete(c, max_tokens=200, temperature=temperature, extra_body={
            "response_format": {"type": "json_schema", "json_schema": {"name": "x",
                                                                       "schema": schema}}})
        value = json.loads(r.choices[0].text)
        equal(set(value), {"name", "size", "n"})
        equal(r.choices[0].finish_reason, "stop")
    r = complete(c, max_tokens=300, extra_body={"response_format": {"type": "json_object"}})
    if r.choices[0].finish_reason == "stop":
        equal(type(json.loads(r.choices[0].text)), dict)
    refused(openai.BadRequestError, lambda: complete(c, extra_body={
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": "object", "not": {}}}}}), "not")


def a_deadline_ends_it(c):
    r = complete(c, max_tokens=900, extra_body={"deadline_ms": 60, "ignore_eos": True})
    equal(r.choices[0].finish_reason, "deadline")


def errors_are_the_clients(c):
    refused(openai.BadRequestError, lambda: complete(c, temperature=-1), "temperature")
    refused(openai.BadRequestError, lambda: complete(c, extra_body={"frobnicate": 1}),
            "frobnicate")
    refused(openai.NotFoundError, lambda: complete(c, model="gpt-4"), "gpt-4")
    error = refused(openai.BadRequestError, lambda: complete(c, prompt=[1] * 2000), "2000", "1024")
    equal(error.code, "context_length_exceeded")
    refused(openai.BadRequestError, lambda: c.chat.completions.create(
        model=M, messages=[{"role": "user", "content": "x"}]), "chat template")
    refused(openai.InternalServerError, lambda: c.embeddings.create(model=M, input="x"), "501")


# ---------------------------------------------------------------- chats

def a_chat_answers(c):
    r = chat(c)
    equal((r.object, r.choices[0].message.role), ("chat.completion", "assistant"))
    equal(r.usage.completion_tokens, 8)
    parts = list(chat(c, stream=True, stream_options={"include_usage": True}))
    equal(parts[0].choices[0].delta.role, "assistant")
    equal([p.choices[0].delta.role for p in parts[1:-1]], [None] * (len(parts) - 2))
    equal("".join(p.choices[0].delta.content or "" for p in parts[:-1]),
          r.choices[0].message.content)
    equal(parts[-2].choices[0].finish_reason, "length")
    equal(parts[-1].usage.total_tokens, r.usage.total_tokens)
    equal({p.object for p in parts}, {"chat.completion.chunk"})


def the_template_is_shown(c):
    def show(**more):
        return c.post("../apply-template", cast_to=object, body={
            "messages": [{"role": "user", "content": "hello"}], **more})["prompt"]
    equal(show(), "[user] hello\n[assistant] ")
    equal(show(add_generation_prompt=False), "[user] hello\n")
    equal(show(chat_template_kwargs={"ending": "!"}), "[user] hello\n[assistant]! ")
    tokens = c.post("../tokenize", cast_to=object, body={
        "messages": [{"role": "user", "content": "hello"}]})["tokens"]
    r = chat(c, extra_body={"return_token_ids": True})
    equal(r.choices[0].prompt_token_ids, tokens)
    refused(openai.BadRequestError, lambda: show(chat_template_kwargs={"messages": []}), "messages")
    # Text of a message is text: its tokens are not the control token's.
    inject = c.post("../tokenize", cast_to=object, body={
        "messages": [{"role": "user", "content": "<|endoftext|>"}]})["tokens"]
    if 0 in inject:
        raise AssertionError(inject)


def chat_logprobs_are_reported(c):
    r = chat(c, logprobs=True, top_logprobs=4)
    content = r.choices[0].logprobs.content
    equal(b"".join(bytes(t.bytes) for t in content).decode(errors="replace"),
          r.choices[0].message.content)
    equal([len(t.top_logprobs) for t in content], [4] * 8)
    equal([t.top_logprobs[0].logprob for t in content], [t.logprob for t in content])
    parts = list(chat(c, logprobs=True, top_logprobs=4, stream=True))
    streamed = [t.token for p in parts if p.choices[0].logprobs
                for t in p.choices[0].logprobs.content]
    equal(streamed, [t.token for t in content])
    equal(chat(c, logprobs=True).choices[0].logprobs.content[0].top_logprobs, [])
    refused(openai.BadRequestError, lambda: chat(c, top_logprobs=2), "top_logprobs")


def chats_have_json_and_limits(c):
    r = chat(c, max_tokens=200, response_format={"type": "json_schema", "json_schema": {
        "name": "x", "strict": True, "schema": {
            "type": "object", "properties": {"a": {"type": "integer", "maximum": 9, "minimum": 0}},
            "required": ["a"], "additionalProperties": False}}})
    equal(set(json.loads(r.choices[0].message.content)), {"a"})
    r = chat(c, max_tokens=openai.omit, max_completion_tokens=3)
    equal(r.usage.completion_tokens, 3)
    r = chat(c, messages=[{"role": "user", "content": [{"type": "text", "text": "hel"},
                                                       {"type": "text", "text": "lo"}]}])
    refused(openai.BadRequestError, lambda: chat(c, messages=[]), "messages")
    refused(openai.BadRequestError, lambda: chat(c, messages=[{
        "role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]))


def tools_that_must_be_called_are(c):
    for choice, names in (("required", ("now", "tomorrow")),
                          ({"type": "function", "function": {"name": "now"}}, ("now",))):
        r = chat(c, tools=TOOLS, tool_choice=choice, max_tokens=300)
        call = r.choices[0].message.tool_calls[0]
        has(names, call.function.name)
        equal(set(json.loads(call.function.arguments)), {"city"})
        equal(r.choices[0].message.content, None)
        equal(r.choices[0].finish_reason, "tool_calls" if choice == "required" else "stop")
        name, arguments, ids = "", "", set()
        for p in chat(c, tools=TOOLS, tool_choice=choice, max_tokens=300, stream=True):
            for t in p.choices[0].delta.tool_calls or []:
                name += t.function.name or ""
                arguments += t.function.arguments or ""
                ids.add(t.id)
        equal((name, json.loads(arguments)),
              (call.function.name, json.loads(call.function.arguments)))
        equal(len(ids - {None}), 1)
    refused(openai.BadRequestError, lambda: chat(c, tools=TOOLS, tool_choice={
        "type": "function", "function": {"name": "never"}}), "tool_choice")
    refused(openai.BadRequestError, lambda: chat(c, tool_choice="required"), "tool_choice")
    chat(c, tools=TOOLS)
    chat(c, tools=TOOLS, tool_choice="none")
    r = chat(c, tools=TOOLS, messages=[
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{
            "id": "1", "type": "function", "function": {"name": "now",
                                                        "arguments": "{\"city\":\"Bern\"}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "sun"}])
    equal(r.choices[0].message.role, "assistant")


def chats_run_side_by_side(c):
    alone = chat(c, max_tokens=20).choices[0].message.content
    found = []

    def one():
        found.append("".join(p.choices[0].delta.content or ""
                             for p in chat(c, max_tokens=20, stream=True)))
    threads = [threading.Thread(target=one) for _ in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal(found, [alone] * 24)


with Server(program, model_folder) as server:
    client = OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)
    tests.run([models_are_listed, a_completion_is_whole, a_stream_says_the_same,
               prompts_have_many_forms, choices_draw_apart, stops_are_not_given_out,
               logprobs_are_reported, the_prompt_is_echoed, biases_and_penalties_act,
               prefixes_are_found_again, json_is_enforced, a_deadline_ends_it,
               errors_are_the_clients], client)
with tempfile.TemporaryDirectory() as work:
    with Server(program, folder_with_template(work), "--served-model-name", "chat",
                "--api-key", "secret") as server:
        client = OpenAI(base_url=server.url + "/v1", api_key="secret", max_retries=0, timeout=120)
        stranger = OpenAI(base_url=server.url + "/v1", api_key="wrong", max_retries=0)
        tests.run([lambda c: refused(openai.AuthenticationError, stranger.models.list)], client)
        tests.run([a_chat_answers, the_template_is_shown, chat_logprobs_are_reported,
                   chats_have_json_and_limits, tools_that_must_be_called_are,
                   chats_run_side_by_side], client)
tests.end()
