#!/usr/bin/env python3
"""Build small tokenizer.json files and the ids that the tokenizers library gives for them.

Each folder holds one style of tokenizer as found in published checkpoints,
trained on a few kilobytes so that the file stays small, and cases.jsonl:

    {"text": ..., "add_special": bool, "ids": [...], "decoded": text or null}

`decoded` is decode(ids, skip_special_tokens=False); it is null for the long
word, to save space.  Every third line is written in pure ASCII with \\u
escapes, the others in UTF-8.

    python make_tokenizers.py              all
    python make_tokenizers.py NAME ...     only these
"""

import argparse
import collections
import json
from pathlib import Path

import corpus

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KIMI = (
    r"[\p{Han}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
)
# Letters with case, by code point: typed literally, some of them would not
# survive Unicode normalisation by an editor (U+2126, U+212A, U+1FDB ...).
CASED = """41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F 386 388-38A 38C
38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77
1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE
1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124
2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183-2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2-2CF3
A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F
104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943"""


def char_class(ranges):
    """The inside of a character class, from hexadecimal code point ranges."""
    return "".join("-".join(chr(int(end, 16)) for end in part.split("-")) for part in ranges.split())


DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{char_class(CASED)}]+",
    rf"\s?[!-/:-~{char_class('FF01-FF0F FF1A-FF5E 2018-201F 3000-3002')}]+",
    r"\s+$",
    f"[{char_class('4E00-9FA5 800-4E00 AC00-D7FF')}]+",
)


def special(text, **kwargs):
    return AddedToken(text, special=True, normalized=False, **kwargs)


def plain(text, **kwargs):
    return AddedToken(text, special=False, **kwargs)


def isolate(*patterns):
    return [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]


def bytes_only(trim=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim, use_regex=False)


def byte_level(pre, vocab, *, normalizer=None, post=None, **model):
    """Byte-level BPE, trained with its own pre-tokenizer."""
    tok = Tokenizer(models.BPE(**model))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tok.train_from_iterator(corpus.training_corpus(), trainer)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = post or processors.ByteLevel(trim_offsets=False)
    return tok


def common_characters(count, normalizer=None):
    """The most frequent characters; chosen here because the trainer breaks ties at random."""
    counts = collections.Counter()
    for text in corpus.training_corpus():
        text = normalizer.normalize_str(text) if normalizer else text
        counts.update(c for c in text.replace(" ", "▁") if not c.isspace())
    return sorted(sorted(counts, key=lambda c: (-counts[c], c))[:count])


def template(tok, bos, eos=None):
    """Add begin (and end) tokens around a text, as a TemplateProcessing step."""
    pieces = [p for p in (bos, "$A", eos) if p]
    pair = [p for p in (bos, "$A", eos) if p] + [f"{p}:1" for p in (bos, "$B", eos) if p]
    ids = [(t, tok.token_to_id(t)) for t in (bos, eos) if t]
    return processors.TemplateProcessing(single=" ".join(pieces), pair=" ".join(pair), special_tokens=ids)


def sentencepiece(vocab):
    """A BPE model like a converted SentencePiece one: specials, 256 byte tokens, then pieces.

    The merges are rebuilt from the pieces the way converters do it: every split
    of a piece into two known pieces is a merge, ordered by the rank of the result.
    """
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    keep = common_characters(150)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, initial_alphabet=keep, limit_alphabet=len(keep)
    )
    tok.train_from_iterator(corpus.training_corpus(), trainer)
    ranked = [t for t, _ in sorted(tok.get_vocab().items(), key=lambda item: item[1]) if t != "<unk>"]
    # Runs of blanks, which SentencePiece models for code have as well.
    ranked += [t for t in ("▁" * n for n in (2, 4, 8)) if t not in ranked]
    merged, chars = [t for t in ranked if len(t) > 1], [t for t in ranked if len(t) == 1]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *merged, *chars]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece in merged:
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        splits = [(a, b) for a, b in splits if a in ids and b in ids]
        merges += sorted(splits, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    out = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    out.add_special_tokens([special(t) for t in ("<unk>", "<s>", "</s>")])
    out.post_processor = template(out, "<s>")
    return out


# --- the tokenizers ----------------------------------------------------------


def gpt2():
    tok = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 700)
    tok.add_special_tokens([special("<|endoftext|>")])
    return tok


def gpt2_prefix():
    tok = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), 600)
    tok.add_special_tokens([special("<|endoftext|>")])
    # A trailing "</s>" too, as some GPT-2 descendants do.
    tok.add_special_tokens([special("</s>")])
    tok.post_processor = template(tok, "<|endoftext|>", "</s>")
    return tok


def llama3():
    tok = byte_level(pre_tokenizers.Sequence([*isolate(LLAMA3), bytes_only()]), 1200, ignore_merges=True)
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    tok.add_special_tokens([special(t) for t in names])
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template(tok, names[0])])
    return tok


def qwen2():
    tok = byte_level(
        pre_tokenizers.Sequence([*isolate(QWEN2), bytes_only(trim=False)]), 800, normalizer=normalizers.NFC()
    )
    tok.add_special_tokens([special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tok.add_tokens([plain(t, normalized=False) for t in ("<tool_call>", "</tool_call>", "<think>", "</think>")])
    return tok


def deepseek_v3():
    tok = byte_level(pre_tokenizers.Sequence([*isolate(*DEEPSEEK_V3), bytes_only()]), 800)
    tok.normalizer = normalizers.Sequence([])
    tok.add_special_tokens([special(t) for t in ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")])
    tok.add_tokens([plain(t, normalized=True) for t in ("<｜User｜>", "<｜Assistant｜>", "<｜fim▁hole｜>")])
    tok.post_processor = template(tok, "<｜begin▁of▁sentence｜>")
    return tok


def deepseek_llm():
    digits = pre_tokenizers.Digits(individual_digits=True)
    tok = byte_level(pre_tokenizers.Sequence([*isolate(*DEEPSEEK_LLM), digits, bytes_only()]), 700)
    tok.add_special_tokens([special(t) for t in ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")])
    tok.post_processor = template(tok, "<｜begin▁of▁sentence｜>")
    return tok


def o200k():
    tok = byte_level(pre_tokenizers.Sequence([*isolate(O200K), bytes_only()]), 1200, ignore_merges=True)
    names = ("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>")
    tok.add_special_tokens([special(t) for t in names])
    return tok


def kimi():
    tok = byte_level(pre_tokenizers.Sequence([*isolate(KIMI), bytes_only()]), 700, ignore_merges=True)
    tok.add_special_tokens([special(t) for t in ("[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "[PAD]")])
    return tok


def mixtral():
    tok = sentencepiece(800)
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tok.decoder = decoders.Sequence(strip)
    tok.add_special_tokens([special(t) for t in ("[INST]", "[/INST]")])
    tok.add_tokens([plain("▁<extra>", normalized=True), plain("<mask>", normalized=False, lstrip=True)])
    return tok


def metaspace(scheme, split):
    tok = sentencepiece(700)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=split)
    tail = [decoders.Strip(" ", 1, 0)] if scheme != "never" else []
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *tail])
    tok.add_special_tokens([special(t) for t in ("[INST]", "[/INST]")])
    return tok


def metaspace_first():
    return metaspace("first", False)


def metaspace_always():
    """Split at every blank, and decoded by the Metaspace decoder itself."""
    tok = metaspace("always", True)
    tok.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    return tok


def metaspace_never():
    return metaspace("never", True)


def mixed():
    """No byte fallback: unknown characters, word pieces by rule, normalised text."""
    tok = Tokenizer(models.BPE(unk_token="[UNK]"))
    tok.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    keep = common_characters(200, tok.normalizer)
    trainer = trainers.BpeTrainer(
        vocab_size=650,
        show_progress=False,
        special_tokens=["[UNK]"],
        initial_alphabet=keep,
        limit_alphabet=len(keep),
    )
    tok.train_from_iterator(corpus.training_corpus(), trainer)
    tok.add_special_tokens([special("[CLS]"), special("[SEP]")])
    tok.post_processor = template(tok, "[CLS]", "[SEP]")
    tok.add_tokens(
        [
            plain("Größe", normalized=True),  # matched in the lower-cased text
            plain("FOO", normalized=False),  # matched in the raw text only
            plain("bar", normalized=True, single_word=True),
            plain("ﬁx", normalized=True),  # itself changed by NFKC
        ]
    )
    return tok


def added():
    """Added tokens of every kind, several of them overlapping."""
    tok = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 500)
    tok.add_special_tokens(
        [
            special("<s>"),
            special("<mask>", lstrip=True),
            special("<sep>", rstrip=True),
            special("<both>", lstrip=True, rstrip=True),
            special("<word>", single_word=True),
        ]
    )
    tok.add_tokens(
        [
            plain("foo", normalized=False),
            plain("foobar", normalized=False),
            plain("barbaz", normalized=False),
            plain("new york", normalized=True),
            plain("york city", normalized=True),
            plain("cat", normalized=True, single_word=True),
            plain("dog", normalized=False, lstrip=True, single_word=True),
            plain("  ", normalized=False),
            plain("\n\n\n", normalized=False),
            plain("中文", normalized=True, rstrip=True),
            plain("<|x|>", normalized=False),
            plain("<|x|><|y|>", normalized=False),
            plain("|>", normalized=True),
        ]
    )
    return tok


# name, builder, merges written as "a b" strings instead of pairs
TOKENIZERS = [
    ("gpt2", gpt2, True),
    ("gpt2_prefix", gpt2_prefix, False),
    ("llama3", llama3, True),
    ("qwen2", qwen2, True),
    ("deepseek_v3", deepseek_v3, True),
    ("deepseek_llm", deepseek_llm, False),
    ("o200k", o200k, False),
    ("kimi", kimi, False),
    ("mixtral", mixtral, True),
    ("metaspace_first", metaspace_first, False),
    ("metaspace_always", metaspace_always, False),
    ("metaspace_never", metaspace_never, True),
    ("mixed", mixed, False),
    ("added", added, False),
]


def texts_around(token):
    """Put an added token at the start, the end, inside words and between blanks."""
    return [
        *(token, f"a{token}b", f"a {token} b", f" {token} ", f"{token}{token}", f"{token} {token}", f"x  {token}\n\ny"),
        *(f"{token[:-1]}", f"{token.upper()} {token.lower()}", f"é{token}中", f"1{token}2", f"{token}'s", f"_{token}_"),
    ]


EXTRA = {
    "added": ["foobarbaz", "foo bar baz", "foobarbarbaz", "in new york city", "cats cat's cat-cat _cat cat1 écat cat"],
    "mixed": [
        "GRÖSSE größe GRÖẞE Größe.",
        "foo FOO Foo",
        "bar BAR bars b-bar",
        "fix ﬁx FIX",
        "①②③ ㎏ ﷺ",
        "  Strip me\u3000",
    ],
}

LONG_WORD = ("gpt2", "llama3", "mixtral")


def build(name, builder, merges_as_strings):
    data = json.loads(builder().to_str())
    merges = data["model"]["merges"]
    if merges_as_strings:
        data["model"]["merges"] = merges = [" ".join(m) for m in merges]
    kind = str if merges_as_strings else list
    assert merges and all(isinstance(m, kind) for m in merges)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")

    tok = Tokenizer.from_file(str(path))  # the results come from the file as written
    texts = corpus.common_texts() + EXTRA.get(name, [])
    for token in data["added_tokens"]:
        texts += texts_around(token["content"])
    texts.append("".join(t["content"] for t in data["added_tokens"]))
    # The long word fills most of a file, so only one tokenizer of each kind gets it.
    long_word = corpus.long_word() if name in LONG_WORD else None
    texts = [t for t in [*dict.fromkeys(texts), long_word] if t is not None]
    lines = []
    for i, text in enumerate(texts):
        add_special = i % 2 == 0
        ids = tok.encode(text, add_special_tokens=add_special).ids
        decoded = None if text is long_word else tok.decode(ids, skip_special_tokens=False)
        case = {"text": text, "add_special": add_special, "ids": ids, "decoded": decoded}
        lines.append(json.dumps(case, ensure_ascii=i % 3 == 0, separators=(",", ":")))
    (folder / "cases.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sizes = [(folder / f).stat().st_size for f in ("tokenizer.json", "cases.jsonl")]
    assert sizes[0] < 120_000 and sizes[1] < 200_000, f"{name}: {sizes}"
    kilobytes = " + ".join(f"{size / 1000:.0f}" for size in sizes)
    print(f"{name:18s} vocab {tok.get_vocab_size():5d}  {len(lines)} texts  {kilobytes} kB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="tokenizers to make (default: all)")
    args = parser.parse_args()
    unknown = set(args.names) - {t[0] for t in TOKENIZERS}
    if unknown:
        parser.error(f"unknown tokenizer: {', '.join(sorted(unknown))}")
    for entry in TOKENIZERS:
        if not args.names or entry[0] in args.names:
            build(*entry)


if __name__ == "__main__":
    main()
