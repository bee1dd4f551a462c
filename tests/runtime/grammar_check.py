#!/usr/bin/env python3
"""Ask the jsonschema package about texts that random walks through grammars made.

    PM_GRAMMAR_WALKS=walks.jsonl build-test/tests/grammar_test
    python grammar_check.py walks.jsonl

needs jsonschema and rfc3339-validator. Each line of the file is {"schema": text, "text": text}.
Prints how many texts there were; the exit status is 1 if one does not fulfil its schema.
"""

import json
import re
import sys

import jsonschema


def ecma(pattern):
    """The pattern with the sets of ECMA-262 where Python's differ."""
    return pattern.replace(r"\d", "[0-9]").replace(r"\w", "[0-9A-Za-z_]") if "[" not in pattern else pattern


def check_pattern(validator, pattern, instance, schema):
    flags = re.ASCII if "\\" in pattern else 0
    source = re.sub(r"\$(?=$|\|)", r"\\Z", ecma(pattern))
    if isinstance(instance, str) and not re.search(source, instance, flags):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": check_pattern})


def allow_null(schema):
    """OpenAPI's nullable, which JSON schema does not know."""
    if isinstance(schema, list):
        return [allow_null(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: value if key in ("enum", "const") else allow_null(value) for key, value in schema.items()}
    if copy.get("nullable") is True and isinstance(copy.get("type"), str):
        copy["type"] = [copy["type"], "null"]
    return copy


def main():
    n = n_wrong = 0
    for line in open(sys.argv[1], encoding="utf-8"):
        case = json.loads(line)
        schema = allow_null(json.loads(case["schema"]))
        n += 1
        try:
            value = json.loads(case["text"])
            formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
            Validator(schema, format_checker=formats).validate(value)
        except RecursionError:
            pass  # a schema whose references lead back to it: the package does not end
        except Exception as error:
            n_wrong += 1
            print(case["schema"], case["text"], str(error).splitlines()[0], sep="\n  ")
    print(f"{n} texts, {n_wrong} do not fulfil their schema")
    return n_wrong > 0 or n == 0


if __name__ == "__main__":
    sys.exit(main())
