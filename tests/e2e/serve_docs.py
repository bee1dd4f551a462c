"""serve_docs.py PROGRAM SOURCE - runs the curl examples of docs/serving.md, each as it stands."""
import json
import os
import re
import subprocess
import sys

sys.dont_write_bytecode = True
from server import MODEL, Server, Tests, events, has

program, source = sys.argv[1:3]
tests = Tests()


def blocks():
    with open(os.path.join(source, "docs/serving.md"), encoding="utf-8") as f:
        return re.findall(r"^```sh\n(.*?)^```", f.read(), re.M | re.S)


def commands(block):
    """Commands of a block: lines that end in a backslash, or open a quote, go on."""
    command = ""
    for line in block.splitlines():
        command += line + "\n"
        if not line.endswith("\\") and command.count("'") % 2 == 0:
            yield command
            command = ""


def run(s, command):
    p = subprocess.run(["bash", "-c", command.replace("curl -s", "curl --fail-with-body -s")],
                       env={**os.environ, "URL": s.url}, stdout=subprocess.PIPE, timeout=120,
                       text=True)
    if p.returncode != 0:
        raise AssertionError(f"{command}: status {p.returncode}: {p.stdout}")
    return p.stdout


def check(command, text):
    if "/metrics" in command:
        has(text, "polymath:num_requests_running{")
    elif '"stream": true' in command:
        if events(text)[-1] != "[DONE]":
            raise AssertionError(text)
        has(events(text)[-2], '"usage"')
    else:
        answer = json.loads(text)
        if "json_schema" in command:
            user = json.loads(answer["choices"][0]["text"])
            if set(user) != {"name", "age"} or not 0 <= user["age"] <= 99:
                raise AssertionError(user)


def examples_run(s):
    n = 0
    for block in blocks():
        for command in commands(block):
            if "curl" in command:
                check(command, run(s, command))
                n += 1
    if n < 8:
        raise AssertionError(f"found {n} examples")


with Server(program, os.path.join(source, MODEL)) as server:
    tests.run([examples_run], server)
tests.end()
