"""Write a checkpoint as a Hugging Face qwen3_moe folder (bfloat16 safetensors).

Experts are written one tensor per expert and projection, as published
Qwen3-MoE models are. The folder is made aside and its files are renamed into
place, so a reader never sees half a model.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

LIMIT = 32 * 1024 * 1024
END = "<|endoftext|>"


def hf_tensors(state, config):
    """Map the training names to the names on disk; stacked experts are split."""
    inner = config["moe_intermediate_size"]
    out = {"model.embed_tokens.weight": state["embed"], "model.norm.weight": state["norm"]}
    for i in range(config["num_hidden_layers"]):
        to, start = f"model.layers.{i}.", f"layers.{i}."
        part = {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
        out[to + "input_layernorm.weight"] = part["input_norm"]
        out[to + "post_attention_layernorm.weight"] = part["post_norm"]
        for name in "qkvo":
            out[f"{to}self_attn.{name}_proj.weight"] = part[name]
        for name in ("q_norm", "k_norm"):
            out[f"{to}self_attn.{name}.weight"] = part[name]
        out[to + "mlp.gate.weight"] = part["router"]
        for e in range(config["num_experts"]):
            expert = f"{to}mlp.experts.{e}."
            out[expert + "gate_proj.weight"] = part["gate_up"][e, :inner]
            out[expert + "up_proj.weight"] = part["gate_up"][e, inner:]
            out[expert + "down_proj.weight"] = part["down"][e]
    return {name: t.to(torch.bfloat16).contiguous().clone() for name, t in out.items()}


def hf_config(c, end):
    """The config.json of the model, in the form Qwen3-MoE models are published in."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": end, "decoder_sparse_step": 1, "eos_token_id": end, "head_dim": c["head_dim"],
        "hidden_act": "silu", "hidden_size": c["hidden_size"], "initializer_range": 0.02,
        "intermediate_size": c["moe_intermediate_size"] * c["num_experts_per_tok"],
        "max_position_embeddings": c["max_position_embeddings"], "max_window_layers": c["num_hidden_layers"],
        "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": c["moe_intermediate_size"],
        "norm_topk_prob": True, "num_attention_heads": c["num_attention_heads"], "num_experts": c["num_experts"],
        "num_experts_per_tok": c["num_experts_per_tok"], "num_hidden_layers": c["num_hidden_layers"],
        "num_key_value_heads": c["num_key_value_heads"], "output_router_logits": False,
        "rms_norm_eps": c["rms_norm_eps"], "rope_scaling": None, "rope_theta": c["rope_theta"],
        "router_aux_loss_coef": 0.01, "sliding_window": None, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False, "vocab_size": c["vocab_size"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build"))
    parser.add_argument("--out", type=Path, default=Path("models/polymath-16m"))
    args = parser.parse_args()
    checkpoint = torch.load(args.work / "checkpoint.pt.rank0", weights_only=False)
    config = checkpoint["config"]
    aside = args.out.with_name(f".{args.out.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tokenizer = json.loads((args.work / "tokenizer.json").read_text())
    end = next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == END)
    save_file(hf_tensors(checkpoint["model"], config), aside / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(args.work / "tokenizer.json", aside / "tokenizer.json")
    files = {
        "config.json": hf_config(config, end),
        "generation_config.json": {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end,
                                   "do_sample": True, "temperature": 0.7, "top_p": 0.95},
        "tokenizer_config.json": {"add_prefix_space": False, "bos_token": END, "eos_token": END, "pad_token": END,
                                  "unk_token": None, "clean_up_tokenization_spaces": False,
                                  "model_max_length": config["max_position_embeddings"],
                                  "tokenizer_class": "PreTrainedTokenizerFast"},
    }
    for name, content in files.items():
        (aside / name).write_text(json.dumps(content, indent=2) + "\n")
    size = sum(f.stat().st_size for f in aside.iterdir())
    if size > LIMIT:
        raise SystemExit(f"{size} bytes is more than {LIMIT}")
    args.out.mkdir(parents=True, exist_ok=True)
    for file in aside.iterdir():
        os.chmod(file, 0o644)
        os.replace(file, args.out / file.name)
    aside.rmdir()
    print(f"{args.out}: step {checkpoint['step']}, {size} bytes of {LIMIT}")


if __name__ == "__main__":
    main()
