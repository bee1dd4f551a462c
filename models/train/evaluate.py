"""Measure an exported model folder on held-out text.

Bits per byte: a document is the token <|endoftext|> followed by its tokens.
The input is cut into windows of 1024 tokens that do not overlap; every token
but the first is scored given the tokens before it in its window (the last
token of a window predicts the first of the next). The sum of -log2 p over all
scored tokens is divided by the UTF-8 bytes of the document.
"""

import argparse
import gzip
import json
import lzma
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from model import Config, Model

WINDOW = 1024
END = "<|endoftext|>"
PROMPTS = ("def ", "import ", "class ", "def fibonacci(n):", "The default value of this option is",
           "This function returns")


def load(folder):
    """Read an exported folder back into the training model (float32 arithmetic on the stored weights)."""
    raw = json.loads((folder / "config.json").read_text())
    config = Config(**{k: raw[k] for k in Config().dict()})
    disk = {k: t.float() for k, t in load_file(folder / "model.safetensors").items()}
    state = {"embed": disk["model.embed_tokens.weight"], "norm": disk["model.norm.weight"]}
    for i in range(config.num_hidden_layers):
        at, to = f"model.layers.{i}.", f"layers.{i}."
        state[to + "input_norm"] = disk[at + "input_layernorm.weight"]
        state[to + "post_norm"] = disk[at + "post_attention_layernorm.weight"]
        state.update({to + n: disk[f"{at}self_attn.{n}_proj.weight"] for n in "qkvo"})
        state.update({to + n: disk[f"{at}self_attn.{n}.weight"] for n in ("q_norm", "k_norm")})
        state[to + "router"] = disk[at + "mlp.gate.weight"]
        experts = [{n: disk[f"{at}mlp.experts.{e}.{n}_proj.weight"] for n in ("gate", "up", "down")}
                   for e in range(config.num_experts)]
        state[to + "gate_up"] = torch.stack([torch.cat((x["gate"], x["up"])) for x in experts])
        state[to + "down"] = torch.stack([x["down"] for x in experts])
    model = Model(config).eval()
    model.load_state_dict(state)
    return model


def windows(ids):
    """Cut one document (already starting with END) into (input, target) windows."""
    return [(ids[a:a + WINDOW], ids[a + 1:a + WINDOW + 1]) for a in range(0, len(ids) - 1, WINDOW)]


def score(model, tokenizer, texts, batch=4):
    """Return (bits, tokens, loads [layers, experts] summed over tokens) of a list of documents."""
    end, whole, parts = tokenizer.token_to_id(END), [], []
    for text in texts:
        for x, y in windows([end] + tokenizer.encode(text, add_special_tokens=False).ids):
            x = x[:len(y)]
            (whole if len(x) == WINDOW else parts).append((x, y))
    groups = [whole[a:a + batch] for a in range(0, len(whole), batch)] + [[p] for p in parts]
    bits, tokens, loads = 0.0, 0, 0
    for group in groups:
        x, y = (torch.tensor(rows) for rows in zip(*group))
        losses, load = model.token_losses(x, y)
        bits += losses.double().sum().item() / math.log(2)
        tokens += y.numel()
        loads = loads + load.double() * y.numel()
    return bits, tokens, loads


def report(model, tokenizer, documents):
    """Print bits per byte by kind, the compressors on the same bytes, and the expert load per layer."""
    rows, total = {}, [0.0, 0, 0, b""]
    for kind in ("code", "prose"):
        texts = [d["text"] for d in documents if d["kind"] == kind]
        bits, tokens, loads = score(model, tokenizer, texts)
        raw = "".join(texts).encode()
        rows[kind] = (len(texts), bits, tokens, loads, raw)
        total = [total[0] + bits, total[1] + tokens, total[2] + loads, total[3] + raw]
    rows["all"] = (len(documents), *total)
    print("kind   files    bytes   tokens  bytes/token  nats/token  bits/byte  gzip -9  xz -9e")
    for kind, (files, bits, tokens, _, raw) in rows.items():
        n = len(raw)
        gz = len(gzip.compress(raw, 9)) * 8 / n
        xz = len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)) * 8 / n
        print(f"{kind:6s}{files:6d}{n:9d}{tokens:9d}{n / tokens:13.3f}{bits * math.log(2) / tokens:12.4f}"
              f"{bits / n:11.4f}{gz:9.4f}{xz:8.4f}")
    print("layer  min share  max share  (all held-out text, percent of routed slots)")
    for i, load in enumerate(rows["all"][3] / rows["all"][2]):
        print(f"{i:5d}{100 * load.min():11.2f}{100 * load.max():11.2f}   "
              + " ".join(f"{100 * v:.1f}" for v in load))


def check(folder, model, tokenizer, documents):
    """Compare with transformers in float32 on a few windows, then print completions."""
    from transformers import AutoTokenizer, Qwen3MoeForCausalLM

    other = Qwen3MoeForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    fast = AutoTokenizer.from_pretrained(folder)
    text = documents[0]["text"]
    assert fast(text)["input_ids"] == tokenizer.encode(text).ids, "tokenizers differ"
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    assert fast.decode(plain) == text, "the tokenizer loses text"
    worst, mean = 0.0, [0.0, 0.0]
    for d in documents[:8]:
        ids = tokenizer.encode(d["text"]).ids[:WINDOW + 1]
        x, y = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
        mine, _ = model.token_losses(x[None], y[None])
        with torch.no_grad():
            theirs = torch.nn.functional.cross_entropy(other(x[None]).logits[0], y, reduction="none")
        worst = max(worst, (mine[0] - theirs).abs().max().item())
        mean = [mean[0] + mine.mean().item() / 8, mean[1] + theirs.mean().item() / 8]
    print(f"this model {mean[0]:.5f}, transformers {mean[1]:.5f} nats a token; largest difference {worst:.2e}")
    for temperature in (0.0, 0.7):
        for prompt in PROMPTS:
            torch.manual_seed(0)
            ids = torch.tensor([tokenizer.encode(prompt).ids])
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.95} if temperature else \
                {"do_sample": False, "temperature": None, "top_p": None}
            out = other.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, **sampling)
            print(f"--- temperature {temperature}\n{tokenizer.decode(out[0].tolist())}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build"))
    parser.add_argument("--model", type=Path, default=Path("models/polymath-16m"))
    parser.add_argument("--file", type=Path, help="score this one file as one document instead of the held-out split")
    parser.add_argument("--check", action="store_true", help="compare with transformers and print completions")
    parser.add_argument("--limit", type=int, help="use only so many held-out documents")
    args = parser.parse_args()
    torch.set_num_threads(2)
    model, tokenizer = load(args.model), Tokenizer.from_file(str(args.model / "tokenizer.json"))
    if args.file:
        raw = args.file.read_bytes()
        bits, tokens, _ = score(model, tokenizer, [raw.decode()])
        print(f"{args.file}: {len(raw)} bytes, {tokens} tokens, {bits / len(raw):.4f} bits per byte, gzip -9 "
              f"{len(gzip.compress(raw, 9)) * 8 / len(raw):.4f}, xz -9e "
              f"{len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)) * 8 / len(raw):.4f}")
        return
    documents = [json.loads(line) for line in open(args.work / "heldout.jsonl")][:args.limit]
    if args.check:
        check(args.model, model, tokenizer, documents)
    else:
        report(model, tokenizer, documents)


if __name__ == "__main__":
    main()
