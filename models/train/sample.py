"""Write the small held-out text that the tests of the runtime score (about 64 KiB).

Whole held-out documents of 1 to 8 KiB are taken in the order of a hash of
their path, two of code for each of prose, and joined by an empty line.
"""

import argparse
import hashlib
import json
from pathlib import Path

SIZE = 64 * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build"))
    parser.add_argument("--out", type=Path, default=Path("build/heldout.txt"))
    args = parser.parse_args()
    documents = [json.loads(line) for line in open(args.work / "heldout.jsonl")]
    documents = [d for d in documents if 1024 <= len(d["text"].encode()) <= 8192]
    documents.sort(key=lambda d: hashlib.sha256(("sample:" + d["path"]).encode()).digest())
    queue = {kind: [d for d in documents if d["kind"] == kind] for kind in ("code", "prose")}
    out = b""
    turn = 0
    while any(queue.values()):
        kind = ("code", "prose", "code")[turn % 3]
        turn += 1
        if not queue[kind]:
            continue
        document = queue[kind].pop(0)
        text = document["text"].strip("\n").encode() + b"\n"
        if len(out) + len(text) + 1 <= SIZE:
            out += (b"\n" if out else b"") + text
            print(f"{document['kind']:6s}{len(text):6d} {document['path']}")
    args.out.write_bytes(out)
    print(f"{args.out}: {len(out)} bytes")


if __name__ == "__main__":
    main()
