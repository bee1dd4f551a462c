"""Train the byte-level BPE on the training split and encode both splits.

The pre-tokeniser is the Qwen2 split regex followed by ByteLevel, so any engine
that reads a Qwen tokenizer.json reads this one. There is no normaliser: the
text survives a round trip byte for byte, which bits per byte needs.

A prompt may end in the middle of what the pre-tokeniser keeps together ("def "
and then a name). So that the model knows such ends, training documents are cut
behind a few spaces at random and the parts encoded one by one.

Output (in --work):  tokenizer.json, train.bin (uint16 tokens), train.idx
(int64 document offsets) and the same two for validation and heldout.
"""

import argparse
import json
import random
import re
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
              r"|\s*[\r\n]+|\s+(?!\S)|\s+")
END = "<|endoftext|>"
CUT = re.compile(r"(?<=\S )(?=\S)")


def read(path):
    """Yield the documents of one .jsonl file."""
    with open(path) as lines:
        for line in lines:
            yield json.loads(line)


def train_bpe(texts, vocab_size):
    """Train a byte-level BPE; token 0 is the end-of-text mark."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    # A prompt begins like a document.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B:1", special_tokens=[(END, tokenizer.token_to_id(END))])
    return tokenizer


def parts(text, share, rng):
    """Cut a text behind the given share of its single spaces."""
    cuts = [0] + [m.start() for m in CUT.finditer(text) if rng.random() < share] + [len(text)]
    return [text[a:b] for a, b in zip(cuts, cuts[1:])]


def encode(tokenizer, documents, name, work, share=0.0):
    """Write the token ids of a split: every document starts with END."""
    end, offsets, total, rng = tokenizer.token_to_id(END), [0], 0, random.Random(0)
    with open(work / f"{name}.bin", "wb") as out:
        for first in range(0, len(documents), 512):
            pieces = [parts(d["text"], share, rng) for d in documents[first:first + 512]]
            encoded = iter(tokenizer.encode_batch([p for group in pieces for p in group], add_special_tokens=False))
            for group in pieces:
                ids = np.array([end] + [i for _ in group for i in next(encoded).ids], dtype=np.uint16)
                ids.tofile(out)
                total += len(ids)
                offsets.append(total)
    np.array(offsets, dtype=np.int64).tofile(work / f"{name}.idx")
    size = sum(len(d["text"].encode()) for d in documents)
    print(f"{name}: {len(documents)} documents, {total} tokens, {size} bytes, {size / total:.3f} bytes a token")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build"))
    parser.add_argument("--vocab", type=int, default=6144)
    parser.add_argument("--sample-mb", type=float, default=40, help="megabytes of text the BPE is trained on")
    parser.add_argument("--validation", type=int, default=96, help="documents left out of training to watch it by")
    parser.add_argument("--cut", type=float, default=0.01, help="share of the single spaces to cut behind")
    args = parser.parse_args()
    documents = list(read(args.work / "train.jsonl"))
    order = list(range(len(documents)))
    random.Random(0).shuffle(order)
    sample, size = [], 0
    for i in order:
        if size < args.sample_mb * 1e6:
            sample.append(documents[i]["text"])
            size += len(sample[-1])
    tokenizer = train_bpe(sample, args.vocab)
    tokenizer.save(str(args.work / "tokenizer.json"))
    shuffled = [documents[i] for i in order]
    encode(tokenizer, shuffled[:args.validation], "validation", args.work)
    encode(tokenizer, shuffled[args.validation:], "train", args.work, args.cut)
    encode(tokenizer, list(read(args.work / "heldout.jsonl")), "heldout", args.work)


if __name__ == "__main__":
    main()
