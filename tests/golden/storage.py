"""How a case looks on disk: config dialects, file layout, stored number formats."""

import contextlib
import json
import os
import shutil
import tempfile

import torch
from safetensors.torch import load_file, save_file

CAST = {"f16": torch.float16, "bf16": torch.bfloat16}
DTYPE_NAME = {"f32": "float32", "f16": "float16"}


def old_rope(config, type_key):
    """Replace `rope_parameters` by the `rope_theta` + `rope_scaling` of earlier releases."""
    rope = dict(config.pop("rope_parameters"))
    kind = rope.pop("rope_type", "default")
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    config["rope_scaling"] = None if kind == "default" else {**rope, type_key: kind}


def write_config(folder, config, case):
    """config.json and generation_config.json, in the dialect of the case.

    The version 5 dialect is what save_pretrained writes today; the old one is
    what nearly all published checkpoints have.
    """
    config.save_pretrained(folder)
    data = json.loads((folder / "config.json").read_text())
    data["dtype"] = DTYPE_NAME.get(case.storage, "bfloat16")
    data["architectures"] = [case.architecture] if case.architecture else data["architectures"]
    data["model_type"] = case.model_type
    if case.old_dialect:
        if "rope_parameters" not in case.drop_keys:
            old_rope(data, case.rope_type_key)
        data["torch_dtype"] = data.pop("dtype")
        data["transformers_version"] = "4.51.0"
    for old, new in case.rename_keys.items():
        data[new] = data.pop(old)
    keep_null = ("rope_scaling", "sliding_window", "clip_qkv", "q_lora_rank")
    data = {k: v for k, v in data.items() if k not in case.drop_keys and (v is not None or k in keep_null)}
    data.update(case.extra_keys)
    if case.wrap:
        data = wrap_config(data, case.wrap)
    (folder / "config.json").write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
    text = data.get("text_config", data)
    generation = {"_from_model_config": True, "transformers_version": data["transformers_version"]}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if text.get(key) is not None:
            generation[key] = text[key]
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2, sort_keys=True) + "\n")


WRAP_PREFIX = "language_model."


def wrap_config(text, outer):
    """Nest a text configuration as the multimodal releases do; only the text part has weights here."""
    keep = {key: text[key] for key in ("torch_dtype", "dtype", "transformers_version") if key in text}
    text = {k: v for k, v in text.items() if k not in ("architectures", "transformers_version")}
    return {**outer, **keep, "text_config": text}


def write_weights(folder, tensors, case):
    """model.safetensors, or several shards with an index."""
    meta = {"format": "pt"}
    gen = torch.Generator().manual_seed(3)
    tensors = {**tensors, **{name: torch.rand(shape, generator=gen) for name, shape in case.extra_tensors}}
    if case.wrap:
        tensors = {WRAP_PREFIX + name: t for name, t in tensors.items()}
    if not case.shards:
        save_file(tensors, folder / "model.safetensors", meta)
        return
    # Deal the tensors out in turn, so that parts of one layer lie in different files.
    parts = [{} for _ in range(case.shards)]
    for i, name in enumerate(sorted(tensors)):
        parts[i % case.shards][name] = tensors[name]
    index = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05d}-of-{case.shards:05d}.safetensors"
        save_file(part, folder / file, meta)
        index.update({name: file for name in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    data = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(data, indent=2) + "\n")


def read_weights(folder):
    """All tensors of a case folder, whatever the number of files."""
    tensors = {}
    for file in sorted(os.listdir(folder)):
        if file.startswith("model") and file.endswith(".safetensors"):
            tensors.update(load_file(os.path.join(folder, file)))
    return tensors


@contextlib.contextmanager
def readable_copy(folder, case):
    """A folder that from_pretrained can read on a CPU.

    FP8 and MXFP4 need kernels that a CPU does not have, so those weights are
    decoded by the code below and the quantisation entry is dropped.
    """
    with tempfile.TemporaryDirectory() as tmp:
        for name in os.listdir(folder):
            shutil.copy(os.path.join(folder, name), tmp)
        path = os.path.join(tmp, "config.json")
        with open(path) as f:
            config = json.load(f)
        config.pop("quantization_config", None)
        config = config.get("text_config", config)
        config.update(case.restore_keys)
        if case.reference:
            config["model_type"] = case.reference
        with open(path, "w") as f:
            json.dump(config, f)
        if case.storage in ("fp8", "mxfp4") or case.wrap or case.extra_tensors:
            plain = {n.removeprefix(WRAP_PREFIX): t for n, t in read_weights(folder).items()}
            for name, _ in case.extra_tensors:
                del plain[name]
            save_file(decode(plain, case), os.path.join(tmp, "model.safetensors"), {"format": "pt"})
        yield tmp


# --- stored number formats -------------------------------------------------

FP8_BLOCK = 128
FP8_MAX = 448.0
FP4_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
FP4_BLOCK = 32


def keeps_f32(name):
    """Published checkpoints keep the routing bias in float32 whatever the rest is."""
    return name.endswith("e_score_correction_bias")


def is_fp8_weight(name):
    """The projections of attention and MLP; not embeddings, head, norms or router."""
    return name.endswith("proj.weight") or name.endswith("kv_a_proj_with_mqa.weight")


def encode(tensors, case):
    """Rewrite float32 disk tensors into the stored format of the case."""
    if case.storage in CAST:
        return {n: t if keeps_f32(n) else t.to(CAST[case.storage]) for n, t in tensors.items()}
    out = {}
    for name, tensor in tensors.items():
        if case.storage == "fp8" and is_fp8_weight(name):
            out[name], out[name + "_scale_inv"] = fp8_encode(tensor)
        elif case.storage == "mxfp4" and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            # [E, in, out] in memory, [E, out, in / 32, 16] on disk
            out[name + "_blocks"], out[name + "_scales"] = mxfp4_encode(tensor.transpose(1, 2))
        else:
            out[name] = tensor if keeps_f32(name) else tensor.to(torch.bfloat16)
    return out


def decode(tensors, case):
    """Back to float32 tensors in the unquantised disk layout."""
    out = {}
    for name, tensor in tensors.items():
        if name.endswith("_scale_inv") or name.endswith("_scales"):
            continue
        if tensor.dtype == torch.float8_e4m3fn:
            out[name] = fp8_decode(tensor, tensors[name + "_scale_inv"])
        elif name.endswith("_blocks"):
            base = name.removesuffix("_blocks")
            out[base] = mxfp4_decode(tensor, tensors[base + "_scales"]).transpose(1, 2).contiguous()
        else:
            out[name] = tensor.float()
    return out


def blockwise(scale, shape):
    """Spread one scale per 128 x 128 block over a matrix whose edges may be partial blocks."""
    full = scale.repeat_interleave(FP8_BLOCK, 0).repeat_interleave(FP8_BLOCK, 1)
    return full[: shape[0], : shape[1]]


def fp8_encode(weight):
    """DeepSeek-V3 style: e4m3 values and the factor that multiplies them back."""
    rows, cols = (-(-n // FP8_BLOCK) for n in weight.shape)
    scale = torch.empty(rows, cols)
    for r in range(rows):
        for c in range(cols):
            block = weight[r * FP8_BLOCK : (r + 1) * FP8_BLOCK, c * FP8_BLOCK : (c + 1) * FP8_BLOCK]
            scale[r, c] = block.abs().max() / FP8_MAX
    return (weight / blockwise(scale, weight.shape)).to(torch.float8_e4m3fn), scale


def fp8_decode(value, scale):
    """As the official weight_dequant: blocks of 128 from the start, the last one may be partial.

    (transformers 5.23 divides the matrix evenly by the grid instead, which is
    the same only when the dimensions are multiples of 128.)
    """
    return value.float() * blockwise(scale, value.shape)


def mxfp4_encode(weight):
    """32 e2m1 values share one power of two; two values per byte, the first in the low nibble."""
    groups = weight.reshape(*weight.shape[:-1], -1, FP4_BLOCK)
    # The largest magnitude should land in [4, 8): 4 is the top binade of e2m1.
    exponent = torch.floor(torch.log2(groups.abs().amax(-1, keepdim=True))) - 2
    scaled = (groups / torch.exp2(exponent)).clamp(-6.0, 6.0)
    code = (scaled.abs().unsqueeze(-1) - FP4_VALUES).abs().argmin(-1).to(torch.uint8)
    code = code | ((scaled < 0).to(torch.uint8) << 3)
    blocks = code[..., 0::2] | (code[..., 1::2] << 4)
    return blocks.contiguous(), (exponent.squeeze(-1) + 127).to(torch.uint8).contiguous()


def mxfp4_decode(blocks, scales):
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)
    value = FP4_VALUES[(codes & 7).long()] * torch.where(codes >= 8, -1.0, 1.0)
    value = value * torch.exp2(scales.float() - 127).unsqueeze(-1)
    return value.flatten(-2)
