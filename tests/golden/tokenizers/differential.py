#!/usr/bin/env python3
"""Hold the library's tokenizer against the reference on random texts.

For each style in this folder random texts go through libpolymath.so and through
the tokenizers library: ids with and without the special tokens around them, and
the text that the ids decode to.  Texts mix scripts, runs of blanks, numbers,
emoji, code, marks, the style's own added tokens and arbitrary code points.  One
seed gives the same texts; the first differences are printed with the shortest
text that still shows them, and the exit status is 1.

    python differential.py LIBRARY [--texts 20000] [--seed 1] [NAME ...]
    python differential.py build/libpolymath.so qwen2
"""

import argparse
import ctypes
import random
import shutil
import sys
import tempfile
from pathlib import Path

import corpus

from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "qwen3_moe"  # any model: only its folder is needed
MAX_SHOWN = 5

BLANKS = [" ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\xa0", "\u1680", "\u180e"]
BLANKS += ["\u2003", "\u200b", "\u2028", "\u2029", "\u202f", "\u3000", "\ufeff", "\u2581", " \n", "\n ", " \u3000 "]
MARKS = ["\u0301", "\u0308", "\u0323", "\u05b8", "\u0651", "\u093c", "\u0e31", "\u20dd", "\ufe0f", "\u200d", "\U0001f3fd"]
ENDINGS = ["'s", "'S", "'t", "'re", "'VE", "'m", "'ll", "'D", "'\u017f", "\u2019s", "'", "''", "'x"]
ODD = ["<0x41>", "<unk>", "<s>", "</s>", "\u0120", "\u010a", "\x00", "\x1f", "\x7f", "\ufffd", "\U0010ffff", "\ufdd0"]
RANGES = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0x10FF)]
RANGES += [(0x1E00, 0x1FFF), (0x2000, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xF900, 0xFFEF)]
RANGES += [(0x10000, 0x10FFF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF)]


def fragment(r, pool, added):
    """One piece of a text; the kinds have about the same share."""
    kind = r.randrange(12)
    if kind == 0:
        text = r.choice(pool)
        start = r.randrange(len(text) + 1)
        return text[start : start + r.randrange(1, 12)]
    if kind == 1:
        return r.choice(BLANKS) * r.choice((1, 1, 1, 2, 3, 9))
    if kind == 2:
        return "".join(r.choice("0123456789") for _ in range(r.randrange(1, 9)))
    if kind == 3:
        low, high = r.choice(RANGES)
        return "".join(chr(r.randint(low, high)) for _ in range(r.randrange(1, 5)))
    if kind == 4:
        return r.choice(MARKS)
    if kind == 5:
        return r.choice(ENDINGS)
    if kind == 6:
        return "".join(r.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(r.randrange(1, 4)))
    if kind == 7:
        return r.choice(added or ODD)
    if kind == 8:
        return r.choice(ODD)
    if kind == 9:
        code = r.choice((r.randrange(0x3000), r.randrange(0x10000), r.randrange(0x110000)))
        return "" if 0xD800 <= code < 0xE000 else chr(code)
    word = "".join(r.choice("etaoinshrdlucmfwypvbgkqjxz") for _ in range(r.randrange(1, 7)))
    return r.choice((word, word.title(), word.upper(), " " + word, word + " "))


def texts(seed, count, added):
    r = random.Random(seed)
    pool = [text for text in corpus.training_corpus() if text]
    for _ in range(count):
        yield "".join(fragment(r, pool, added) for _ in range(r.choice((1, 2, 3, 5, 8, 13, 30))))


class Library:
    """The tokenizer of a folder through the public functions."""

    def __init__(self, path, folder):
        self.c = ctypes.CDLL(str(Path(path).resolve()))
        self.c.pm_last_error.restype = ctypes.c_char_p
        self.engine = ctypes.c_void_p()
        self.check(self.c.pm_engine_open(ctypes.byref(self.engine), str(folder).encode(), None))

    def check(self, status):
        if status:
            raise RuntimeError(self.c.pm_last_error().decode())

    def encode(self, text, special):
        data, ids, n = text.encode(), ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        flags = (ctypes.c_bool(special), ctypes.c_bool(True))
        size = ctypes.c_size_t(len(data))
        self.check(self.c.pm_tokenize(self.engine, data, size, *flags, ctypes.byref(ids), ctypes.byref(n)))
        got = ids[: n.value]
        self.c.pm_free(ids)
        return got

    def decode(self, ids):
        array, text, n = (ctypes.c_int32 * len(ids))(*ids), ctypes.c_void_p(), ctypes.c_size_t()
        size = ctypes.c_size_t(len(ids))
        self.check(self.c.pm_detokenize(self.engine, array, size, ctypes.byref(text), ctypes.byref(n)))
        got = ctypes.string_at(text, n.value).decode()
        self.c.pm_free(text)
        return got

    def close(self):
        self.c.pm_engine_close(self.engine)


def difference(library, reference, text, special):
    """What differs on a text: None, or a name with both sides."""
    wanted = reference.encode(text, add_special_tokens=special).ids
    found = library.encode(text, special)
    if found != wanted:
        return "ids", found, wanted
    decoded = reference.decode(wanted, skip_special_tokens=False)
    if wanted and library.decode(wanted) != decoded:
        return "text", library.decode(wanted), decoded
    return None


def shorten(library, reference, text, special):
    """Leave out what the difference does not need."""
    size = len(text) // 2
    while size:
        start = 0
        while start < len(text):
            shorter = text[:start] + text[start + size :]
            if difference(library, reference, shorter, special):
                text = shorter
            else:
                start += size
        size //= 2
    return text


def run(path, name, seed, count):
    with tempfile.TemporaryDirectory() as folder:
        for file in ("config.json", "model.safetensors"):
            shutil.copy(MODEL / file, folder)
        shutil.copy(HERE / name / "tokenizer.json", folder)
        library = Library(path, folder)
        reference = Tokenizer.from_file(str(HERE / name / "tokenizer.json"))
        added = [token.content for token in reference.get_added_tokens_decoder().values()]
        shown = 0
        for i, text in enumerate(texts(seed, count, added)):
            if not difference(library, reference, text, i % 2 == 0):
                continue
            shown += 1
            if shown <= MAX_SHOWN:
                text = shorten(library, reference, text, i % 2 == 0)
                what, found, wanted = difference(library, reference, text, i % 2 == 0)
                print(f"{name}: {text!a}: {what} {found!a}, wanted {wanted!a}")
        library.close()
    print(f"{name}: {count} texts, {shown} differ", flush=True)
    return shown


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", help="libpolymath.so")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--texts", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    names = arguments.names or sorted(path.parent.name for path in HERE.glob("*/tokenizer.json"))
    return 1 if sum([run(arguments.library, name, arguments.seed, arguments.texts) for name in names]) else 0


if __name__ == "__main__":
    sys.exit(main())
