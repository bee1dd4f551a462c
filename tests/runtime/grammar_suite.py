#!/usr/bin/env python3
"""Hold grammars against the official JSON-Schema-Test-Suite.

    pip download --no-deps --no-binary :all: jsonschema==4.17.3 && tar xzf jsonschema-4.17.3.tar.gz
    python grammar_suite.py build-test/tests/grammar_test jsonschema-4.17.3/json/tests/draft2020-12

Schemas with keywords that cannot be enforced are refused. Through the others no text may pass that
the suite calls invalid: then the exit status is 1. Valid texts may be refused where a grammar takes
less freedom than its schema leaves (docs/schema.md); they are counted.
"""

import collections
import json
import pathlib
import subprocess
import sys


def main():
    program, folder = sys.argv[1:]
    pipe = subprocess.PIPE
    process = subprocess.Popen([program, "--answer"], stdin=pipe, stdout=pipe, text=True, encoding="utf-8")

    def ask(kind, value):
        process.stdin.write(kind + json.dumps(value, ensure_ascii=False) + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    count = collections.Counter()
    for path in sorted(pathlib.Path(folder).rglob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8")):
            answer = ask("S", group["schema"])
            count["schemas " + answer] += 1
            for test in group["tests"] if answer == "compiled" else []:
                answer = ask("T", test["data"])
                count[("valid " if test["valid"] else "invalid ") + answer] += 1
                if answer == "passes" and not test["valid"]:
                    print(path.name, group["description"], test["description"], sep=": ")
    for name in sorted(count):
        print(f"{count[name]:5} {name}")
    return count["invalid passes"] > 0 or count["valid passes"] == 0


if __name__ == "__main__":
    sys.exit(main())
