#!/usr/bin/env python3
"""Build the tiny checkpoints and golden results that the runtime is compared with.

For every case (cases_main.py, cases_other.py) a small, randomly initialised model is built with
the reference implementation in transformers, run in float32 with eager
attention on the CPU, and written the way a released checkpoint looks on disk.
Next to it goes golden.safetensors:

    ids            int32   [n]     the prompt
    logits         float32 [n, V]  logits of the whole prompt, no cache
    greedy         int32   [16]    greedy continuation, computed with the cache
    greedy_margin  float32 []      smallest gap between the best and the second
                                   best logit along the greedy path

A random model easily produces near ties, in the routers as well as in the
logits, and a comparison of two correct programs then fails by chance.  A seed
is therefore only accepted when all routing decisions and all greedy choices
are clear (see `accept`).

Everything is float32, so the casts inside the reference (router weights back
to the activation type, softmax in float32) change nothing; rotary frequencies
are float32 powers.  Where the reference departs from the published model code
the case says so: always_long and add_dbrx in cases_other.py, fp8_decode in
storage.py, Recorder._limit_groups in routing.py.

    python make_golden.py              every case
    python make_golden.py NAME ...     only these cases
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import routing
import storage
from cases import CASES

HERE = Path(__file__).resolve().parent
GREEDY_STEPS = 16
MAX_SEEDS = 400


def special_ids(case):
    """Ids that neither the prompt nor the greedy path may contain (end of text)."""
    eos = case.config.get("eos_token_id")
    if eos is None:
        return set()
    return set(eos) if isinstance(eos, (list, tuple)) else {eos}


def build_model(case):
    """An untouched reference model for the case."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(case.reference or case.model_type, **case.config)
    # "eager" experts is the plain loop over experts of the modelling file; the
    # default grouped matrix multiply computes the same thing less legibly.
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return case.patched(model.eval())


def fan_in(name, tensor, case):
    """Inputs summed per output, needed to keep activations near unit size."""
    if tensor.ndim == 3 and case.input_major_experts:
        return tensor.shape[1]
    if case.model_type == "dbrx" and name.endswith("experts.mlp.w2"):
        return case.config["ffn_config"]["ffn_hidden_size"]
    return tensor.shape[-1]


def perturb(model, case, seed):
    """Give every parameter a value that matters.

    Fresh models have norm weights of one, biases of zero and routers that
    hardly distinguish experts: a runtime that forgot them would still pass.
    Gains are chosen so that attention is not uniform, experts differ and the
    logits spread over several units.
    """
    gen = torch.Generator().manual_seed(seed)

    def normal(shape, std, mean=0.0):
        return torch.randn(shape, generator=gen) * std + mean

    def uniform(shape, low, high):
        return torch.rand(shape, generator=gen) * (high - low) + low

    tied = model.config.get_text_config().tie_word_embeddings
    named = dict(model.named_parameters())
    named.update((n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias"))
    with torch.no_grad():
        for name, p in sorted(named.items()):
            leaf = name.rsplit(".", 2)[-2:]
            if name.endswith("e_score_correction_bias"):
                value = uniform(p.shape, *case.correction_bias)
            elif name.endswith("sinks"):
                value = normal(p.shape, 1.5)
            elif "norm" in name and p.ndim == 1 and name.endswith("weight"):
                centre = 1.4 if routing.is_qk_norm(name) else 1.0
                value = uniform(p.shape, 0.5 * centre, 1.5 * centre)
            elif name.endswith("bias"):
                value = normal(p.shape, 0.6 if "router" in name else 0.3)
            elif "embed_tokens" in name or ".wte." in name:
                value = normal(p.shape, case.embed_std or (3.0 / p.shape[-1] ** 0.5 if tied else 1.0))
            elif "lm_head" in name:
                value = normal(p.shape, case.logit_std / p.shape[-1] ** 0.5)
            elif routing.is_router_weight(name):
                value = normal(p.shape, case.router_gain / p.shape[-1] ** 0.5)
            else:
                gain = 1.4 if leaf[0] in ("q_proj", "k_proj", "q_b_proj", "kv_b_proj", "Wqkv") else 1.0
                if "down_proj" in name or name.endswith("w2"):
                    gain = 1.6
                value = normal(p.shape, gain / fan_in(name, p, case) ** 0.5)
            assert value.abs().min() >= 0 and value.std() > 0, name
            p.copy_(value)


@torch.no_grad()
def prefill(model, ids):
    """Logits of the whole prompt in one pass, without a cache."""
    return model(input_ids=ids[None].long(), use_cache=False).logits[0].float()


@torch.no_grad()
def step_by_step(model, ids, steps, whole_prompt):
    """Feed the prompt one token at a time, then continue greedily.

    `whole_prompt` feeds it in one piece instead, for models whose positions
    are encoded differently once the text is long.

    Returns the prompt logits seen on the way, the continuation and the smallest
    gap between the two best logits of any greedy choice.
    """
    cache, rows, out, margin = None, [], [], float("inf")
    todo = ids.tolist()
    done = 0
    while done < len(ids) + steps - 1:
        piece = todo[: len(ids)] if whole_prompt and not done else todo[done : done + 1]
        res = model(input_ids=torch.tensor([piece]), past_key_values=cache, use_cache=True)
        cache, row = res.past_key_values, res.logits[0, -1].float()
        if done < len(ids):
            rows.append(res.logits[0].float())
        done += len(piece)
        if done >= len(ids):
            best = row.topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            out.append(int(best.indices[0]))
            todo.append(out[-1])
    return torch.cat(rows), torch.tensor(out, dtype=torch.int32), margin


def relative_difference(a, b):
    return float((a - b).abs().max() / b.abs().max())


def accept(case, seed):
    """Try one seed: (golden tensors, disk tensors, facts), or the reason why it will not do."""
    model = build_model(case)
    perturb(model, case, seed)
    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(tmp, save_original_format=case.layout != "fused")
        tensors = load_file(os.path.join(tmp, "model.safetensors"))
        if case.storage != "f32":
            # Golden results belong to the weights as stored, so read the
            # rounded values back into the reference before running it.
            tensors = storage.encode(tensors, case)
            save_file(storage.decode(tensors, case), os.path.join(tmp, "model.safetensors"), {"format": "pt"})
            model = reload(tmp, case)
            assert model.dtype == torch.float32

    gen = torch.Generator().manual_seed(seed + 1)
    vocab = model.config.get_text_config().vocab_size
    usable = torch.tensor([i for i in range(vocab) if i not in special_ids(case)])
    ids = usable[torch.randint(0, len(usable), (case.prompt,), generator=gen)].to(torch.int32)

    with routing.Recorder(model, case) as recorder:
        logits = prefill(model, ids)
        stepped, greedy, margin = step_by_step(model, ids, GREEDY_STEPS, case.whole_prompt)
    if not torch.isfinite(logits).all():
        return "logits not finite"
    diff = relative_difference(stepped, logits)
    assert diff < 1e-5, f"{case.name}: cached and uncached logits differ by {diff:g}"
    if special_ids(case) & set(greedy.tolist()):
        return "greedy path reaches the end token"
    if len(set(greedy.tolist())) < 4:
        return "greedy path is a loop"
    if margin < case.min_margin:
        return f"greedy margin {margin:.4f}"
    if recorder.calls and recorder.gap < case.min_gap:
        return f"router gap {recorder.gap:.5f}"
    problem = recorder.coverage()
    if problem:
        return problem
    golden = {
        "ids": ids,
        "logits": logits.contiguous(),
        "greedy": greedy,
        "greedy_margin": torch.tensor(margin, dtype=torch.float32),
    }
    facts = {"seed": seed, "gap": recorder.gap, "margin": margin, "std": float(logits.std()), "step": diff}
    return golden, tensors, facts, model.config


def reload(folder, case):
    """Read a checkpoint back through the public entry point."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], f"{folder}: {key} {info[key]}"
    return case.patched(model.eval())


def make(case):
    """Write one case folder and prove that it reads back to the same results."""
    for attempt in range(MAX_SEEDS):
        result = accept(case, case.seed + attempt)
        if not isinstance(result, str):
            break
    else:
        raise SystemExit(f"{case.name}: no usable seed, last reason: {result}")
    golden, tensors, facts, config = result

    folder = HERE / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    storage.write_config(folder, config, case)
    storage.write_weights(folder, tensors, case)
    # One entry only: the library writes several in random order.
    meta = {"made": f"seed {facts['seed']}, router gap {facts['gap']:.6g}, transformers {transformers.__version__}"}
    save_file(golden, folder / "golden.safetensors", meta)

    with storage.readable_copy(folder, case) as readable:
        again = prefill(reload(readable, case), golden["ids"])
    diff = relative_difference(again, golden["logits"])
    assert diff < 1e-5, f"{case.name}: reloaded logits differ by {diff:g}"
    for file in folder.iterdir():
        file.chmod(0o644)  # temporary files start private
    size = sum(f.stat().st_size for f in folder.iterdir())
    limit = 600_000 if case.storage == "f32" else 1_000_000
    assert size <= limit, f"{case.name}: {size} bytes"
    print(
        f"{case.name:26s} {size / 1000:6.0f} kB  seed {facts['seed']:4d}  gap {facts['gap']:8.4f}  "
        f"margin {facts['margin']:.3f}  logit std {facts['std']:.2f}  "
        f"stepwise {facts['step']:.1e}  reload {diff:.1e}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="cases to make (default: all)")
    args = parser.parse_args()
    unknown = set(args.names) - {c.name for c in CASES}
    if unknown:
        parser.error(f"unknown case: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for case in CASES:
        if not args.names or case.name in args.names:
            make(case)
    present = [c for c in CASES if (HERE / c.name / "golden.safetensors").exists()]
    (HERE / "cases.txt").write_text("".join(f"{c.name} {c.tolerance}\n" for c in present))
    total = sum(f.stat().st_size for c in present for f in (HERE / c.name).iterdir())
    print(f"{len(present)} cases, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
