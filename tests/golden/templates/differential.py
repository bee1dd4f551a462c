#!/usr/bin/env python3
"""Hold the library's templates against Jinja.

Two kinds: random templates over random values, made from a seed, and real ones:
every file of a folder (*.jinja) over all conversations of this folder.

    python differential.py PROGRAM [--templates 20000] [--seed 1]
    python differential.py PROGRAM --folder FOLDER
    python differential.py build-test/tests/template_golden_test

The first differences are printed; the exit status is 1 when there is one.  Where
Jinja raises, the library must fail; its sentence is its own.
"""

import argparse
import json
import random
import subprocess
import sys
import warnings
from pathlib import Path

import oracle

HERE = Path(__file__).resolve().parent
MAX_SHOWN = 8
warnings.simplefilter("ignore")  # of Python about the code that Jinja makes


class Library:
    def __init__(self, program):
        self.process = subprocess.Popen([program, "--render"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, template, variables):
        line = json.dumps({"template": template, "variables": variables}) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"the library died at\n{template}\n{json.dumps(variables)}")
        return json.loads(answer)


# Values: every kind, with what is odd about each.
TEXTS = ["", "a", "abc", "Hello World", " padded\t", "x\ny\n", "line\r\nend", "it's", 'say "hi"', "é中😀", "ß Ǆ", "a,b,,c", "  two  words  "]
TEXTS += ["<|im_end|>", "\\n", "%s", "{}", "12", "-3", "1.5", "True", "none", "\u200b", "\x7f\x01", "tab\there", "UPPER lower", "a-b c(d)", "\u2028x"]
VARIABLES = {
    "s": TEXTS,
    "t": TEXTS,
    "i": [0, 1, -1, 2, 7, -13, 100],
    "j": [0, 1, 3, -2, 10],
    "f": [0.5, -1.5, 2.25, 1e20, 1e-7, 3.0001, 123456.789],
    "b": [True, False],
    "n": [None],
    "l": [[], [1, 2, 3], ["a", "b"], [1, "x", None, True, 2.5], [[1], [2, 3]], ["b", "A", "c", "B"], [3, 1, 2, 1]],
    "d": [{}, {"a": 1}, {"b": 2, "a": 1, "C": "x"}, {"name": "n", "items": [1, 2]}, {"k": {"a": [None]}, "x y": "'"}],
    "m": [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}], [{"role": "system", "content": "s\n"}, {"role": "user"}]],
}
FILTERS_TEXT = ["trim", "upper", "lower", "title", "capitalize", "length", "string", "list", "first", "last", "reverse"]
FILTERS_TEXT += ["replace('a', 'zz')", "replace('', '-')", "replace('l', '', 1)", "indent", "indent(2, true)", "indent(2, blank=true)"]
FILTERS_TEXT += ["int", "int(5)", "float", "default('d')", "default('d', true)", "tojson", "trim('a')", "trim(' x')"]
FILTERS_LIST = ["length", "first", "last", "join", "join(', ')", "list", "reverse | list", "sort", "sort(reverse=true)", "unique | list", "max", "min"]
FILTERS_LIST += ["sum", "map('string') | list", "map('upper') | join('-')", "select | list", "reject('none') | list", "tojson", "tojson(indent=2)"]
FILTERS_LIST += ["select('string') | list", "select('gt', 1) | list", "string", "count", "map('length') | list"]
FILTERS_DICT = ["length", "items | list", "dictsort", "dictsort(true)", "dictsort(reverse=true)", "list", "tojson", "tojson(sort_keys=true)", "first"]
FILTERS_DICT += ["dictsort(by='value')", "tojson(separators=(',', ':'))", "tojson(indent=1)", "string", "tojson(ensure_ascii=true)"]
FILTERS_MESSAGES = ["map(attribute='role') | join('/')", "selectattr('role', 'equalto', 'user') | list | length", "map(attribute='content') | list"]
FILTERS_MESSAGES += ["selectattr('content') | list", "rejectattr('role', 'eq', 'user') | map(attribute='role') | list", "selectattr('content', 'defined') | list"]
FILTERS_NUMBER = ["abs", "int", "float", "string", "round", "round(1)", "round(method='floor')", "round(2, 'ceil')", "default(3)", "tojson"]
METHODS_TEXT = ["strip()", "lstrip()", "rstrip()", "upper()", "lower()", "title()", "capitalize()", "split()", "split(',')", "split('l', 1)", "rsplit(' ', 1)"]
METHODS_TEXT += ["splitlines()", "startswith('a')", "endswith(('c', 'd'))", "find('b')", "rfind('l')", "count('a')", "replace('a', 'b')", "strip('a ')"]
METHODS_TEXT += ["isdigit()", "isalpha()", "isspace()", "islower()", "isupper()", "isalnum()", "partition(',')", "rpartition(' ')", "removeprefix('a')"]
METHODS_TEXT += ["removesuffix('c')", "zfill(5)", "ljust(5)", "rjust(6, '*')", "center(7)", "join(['x', 'y'])", "swapcase()", "split(None, 1)", "rsplit(None, 1)"]
METHODS_TEXT += ["splitlines(true)", "index('a')", "format(1, 2)", "nothing"]
METHODS_DICT = ["items()", "keys() | list", "values() | list", "get('a')", "get('zz')", "get('zz', 5)", "a", "zz", "items() | list", "name", "copy()", "pop('a')"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable", "true", "false", "callable"]
TESTS += ["upper", "lower", "odd", "even", "divisibleby 3", "divisibleby(2)", "in [1, 'a', none]", "eq 1", "sameas true", "ne 'a'", "gt 1", "equalto 'abc'"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">", "<=", ">=", "and", "or", "in", "not in"]
LITERALS = ["1", "-2", "0", "3.5", "1e3", "'x'", '"q\\n"', "'\\u00e9'", "true", "False", "none", "[1, 'a']", "(1, 2)", "()", "{'a': 1}", "[]", "{}", "'it\\'s'", "(1,)"]


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.names = []

    def variables(self):
        return {name: self.r.choice(values) for name, values in VARIABLES.items()}

    def name(self):
        return self.r.choice(list(VARIABLES) * 2 + ["u", "ns.x" if "ns" in self.names else "u"] + [n for n in self.names if n != "ns"])

    def value(self, depth):
        r = self.r
        kind = r.randrange(26)
        if depth <= 0 or kind < 4:
            return r.choice(LITERALS) if r.random() < 0.4 else self.name()
        inner = lambda: self.value(depth - 1)
        if kind == 4:
            return f"{r.choice(['s', 't'])} | {r.choice(FILTERS_TEXT)}"
        if kind == 5:
            return f"l | {r.choice(FILTERS_LIST)}"
        if kind == 6:
            return f"d | {r.choice(FILTERS_DICT)}"
        if kind == 7:
            return f"m | {r.choice(FILTERS_MESSAGES)}"
        if kind == 8:
            return f"{r.choice(['i', 'j', 'f', 'b'])} | {r.choice(FILTERS_NUMBER)}"
        if kind == 9:
            return f"{r.choice(['s', 't'])}.{r.choice(METHODS_TEXT)}"
        if kind == 10:
            return f"d.{r.choice(METHODS_DICT)}"
        if kind == 11:
            return f"({inner()}) is {r.choice(['', 'not '])}{r.choice(TESTS)}"
        if kind < 16:
            if r.random() < 0.1:
                return f"({inner()}) {r.choice(BINARY)} ({inner()})"
            if r.random() < 0.4:
                number = lambda: r.choice(["i", "j", "f", "b", "2", "3", "0.5", "(i * j)", "s | length", "l | length", "loop.index"])
                return f"({number()}) {r.choice(BINARY[:7] + BINARY[8:16])} ({number()})"
            if r.random() < 0.3:
                return f"({r.choice(['s', 't', chr(39) + 'a' + chr(39)])}) {r.choice(['in', 'not in'])} ({r.choice(['s', 't', 'l', 'd', 'u'])})"
            return f"({inner()}) {r.choice(['~', '~', '==', '!=', 'and', 'or'])} ({inner()})"
        if kind == 16:
            return f"{inner()} if {inner()} else {inner()}"
        if kind == 17:
            # Jinja folds constants with other rules than it runs: no literals here.
            return f"({r.choice(['s', 't', 'l', 'd', 'm', 'n', 'u', 'l | list', 's ~ t', 'm[0]'])})[{r.choice(['0', '-1', '1:', ':-1', '::-1', '1:3', 'i', chr(39) + 'a' + chr(39), '-2:', '::2', 'i:j', ':j', '5:1:-2'])}]"
        if kind == 18:
            return f"not {inner()}"
        if kind == 19:
            return f"[{inner()}, {inner()}] | {r.choice(FILTERS_LIST)}"
        if kind == 20:
            return f"({inner()}) | string | {r.choice(FILTERS_TEXT)}" if r.random() < 0.7 else f"({inner()}) | {r.choice(FILTERS_TEXT + FILTERS_LIST + FILTERS_NUMBER)}"
        if kind == 21:
            return f"{r.choice(['%s-%d %5.2f', '%r %3d %g', '%5s|%-5d|%s', '%x %i %.1f', '%s %s', '%%%s %05d %+e'])!r} % ({inner()}, i, f)"
        if kind == 22:
            return f"{{'k': {inner()}, {r.choice(['s', 'i'])}: 2}}"
        if kind == 23:
            return f"range({r.choice(['i', '3', '1, 4', '5, j, -1'])}) | list"
        if kind == 24:
            return f"-{self.name()} | abs" if r.random() < 0.5 else f"{self.name()} < {self.name()} < {self.name()}"
        return f"dict(a={inner()}, **d)" if r.random() < 0.5 else f"namespace(a={inner()}).a"

    def blank(self):
        return self.r.choice(["", "", " ", "\n", "  \n", "\n  ", "\t", "text", " x\n", "\n\n"])

    def tag(self, inside):
        r = self.r
        return "{%" + r.choice(["", "", "", "-", "+"]) + f" {inside} " + r.choice(["", "", "", "-", "+"]) + "%}"

    def output(self):
        r = self.r
        return "{{" + r.choice(["", "", "-"]) + f" {self.value(r.randrange(4))} " + r.choice(["", "", "-"]) + "}}"

    def statements(self, depth, loop=False):
        return "".join(self.statement(depth, loop) + self.blank() for _ in range(self.r.randrange(1, 4)))

    def statement(self, depth, loop):
        r = self.r
        kind = r.randrange(18)
        if depth <= 0 or kind < 5:
            return self.blank() + self.output()
        body = lambda: self.blank() + self.statements(depth - 1, loop)
        if kind < 8:
            text = self.tag(f"if {self.value(2)}") + body()
            if r.random() < 0.4:
                text += self.tag(f"elif {self.value(2)}") + body()
            if r.random() < 0.5:
                text += self.tag("else") + body()
            return text + self.tag("endif")
        if kind < 11:
            target = r.choice(["x", "x", "x", "k, v", "(k, v)"])
            over = {"x": ["l", "s", "d", "m", "range(3)", "[1, 2]", "u", "l | reverse"]}.get(target, ["d.items()", "d | items", "d | dictsort", "[(1, 2), [3, 4]]"])
            condition = r.choice(["", "", "", " if " + self.value(1)])
            self.names += ["x", "k", "v", "loop.first", "loop.last", "loop.index0", "loop.length", "loop.revindex", "loop.previtem", "loop.nextitem"]
            text = self.tag(f"for {target} in {r.choice(over)}{condition}") + self.blank() + self.statements(depth - 1, True)
            if r.random() < 0.2:
                text += self.tag("else") + body()
            return text + self.tag("endfor")
        if kind == 11:
            self.names.append("y")
            return self.tag(f"set y = {self.value(2)}")
        if kind == 12:
            self.names.append("ns")
            return self.tag("set ns = namespace(x=1)") + body() + self.tag(f"set ns.x = {self.value(1)}")
        if kind == 13:
            self.names.append("z")
            return self.tag(r.choice(["set z", "set z | upper", "set z | trim"])) + body() + self.tag("endset")
        if kind == 14:
            self.names += ["mac(1)", "mac('a', b=2)", "mac(i)"]
            inside = self.blank() + self.statements(depth - 1, False)
            return self.tag("macro mac(a, b=" + r.choice(["3", "a", "none", "s"]) + ")") + "{{ a }}{{ b }}" + inside + self.tag("endmacro")
        if kind == 15:
            return r.choice(["{# note #}", "{#- note -#}", "{#+ a\nb +#}", "  {# x #}\n", "{% raw %} {{ x }} {% endraw %}", "{%- raw -%}\n{% if %}\n{%- endraw -%}"])
        if kind == 16 and loop:
            return self.tag(f"if {self.value(1)}") + self.tag(r.choice(["break", "continue"])) + self.tag("endif")
        if kind == 17:
            return r.choice([
                self.tag(f"with w = {self.value(1)}") + "{{ w }}" + body() + self.tag("endwith"),
                self.tag("filter upper") + body() + self.tag("endfilter"),
                self.tag("generation") + self.blank() + self.statements(depth - 1, False) + self.tag("endgeneration"),
                self.tag("macro wrap(a)") + "<{{ a }}{{ caller(1) }}>" + self.tag("endmacro") + self.tag("call(q) wrap(2)") + "{{ q }}" + self.blank() + self.tag("endcall"),
            ])
        return self.blank() + self.output()

    def template(self):
        self.names = []
        return self.blank() + self.statements(self.r.randrange(1, 5))


def is_address(text):
    """Python prints what has no other form with its address, or as its class."""
    return any(mark in text for mark in (" at 0x", "<generator", "<built-in", "<bound method", "<function", "<Macro", "<LoopContext", "<class", "<Namespace", "reversed object", "dict_", "Macro "))


def same(wanted, found):
    if isinstance(wanted, dict):
        return "error" in found and (wanted["error"] != "raised" or wanted["raised"] in found["error"])
    return found.get("text") == wanted or is_address(wanted)


def skip(wanted):
    """What the library does not promise: integers over 64 bits, huge or complex numbers."""
    return isinstance(wanted, dict) and any(w in wanted["error"] for w in ("OverflowError", "RecursionError", "MemoryError"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--templates", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    library, env = Library(options.program), oracle.environment()
    compared = differences = errors = 0

    def compare(name, source, variables):
        nonlocal compared, differences, errors
        wanted = oracle.render(env, source, variables)
        if skip(wanted):
            return
        found = library.render(source, variables)
        if any(words in found.get("error", "") for words in ("does not fit 64 bits", "no real number")):
            return
        compared += 1
        errors += isinstance(wanted, dict)
        if not same(wanted, found):
            differences += 1
            if differences <= MAX_SHOWN:
                print(f"--- {name}\n{source if options.folder is None else ''}\n  variables {json.dumps(variables)[:600]}")
                print(f"  wanted {json.dumps(wanted)[:600]}\n  found  {json.dumps(found)[:600]}")

    if options.folder:
        conversations = json.loads((HERE / "conversations.json").read_text())
        for path in sorted(options.folder.rglob("*.jinja")):
            before = differences
            for name, variables in conversations.items():
                compare(f"{path.name}, {name}", path.read_text(), variables)
            print(f"{path.relative_to(options.folder)}: {differences - before} differences")
    else:
        for i in range(options.templates):
            maker = Maker(options.seed * 1000003 + i)
            compare(f"template {i}", maker.template(), maker.variables())
    print(f"{compared} compared, {errors} of them raise, {differences} differences")
    sys.exit(differences > 0)


if __name__ == "__main__":
    main()
