"""An OLMoE checkpoint folder as one GGUF file with the same bf16 weights, for llama.cpp.

    python bench/baselines/olmoe_gguf.py FOLDER OUT.gguf      (needs numpy and gguf)

The vocabulary is a stand-in (token 123 is the text "t123 "): prompts go as token ids. As in
llama.cpp's own converter, vectors and the gate are float32 and the experts of a layer are one
tensor.
"""

import json
import os
import struct
import sys

import gguf
import numpy as np

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp",
}
BF16 = gguf.GGMLQuantizationType.BF16


def open_weights(folder):
    """A function from a tensor's name to its bf16 bits, mapped."""
    where = {}
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        path = os.path.join(folder, file)
        with open(path, "rb") as f:
            n = struct.unpack("<Q", f.read(8))[0]
            header = json.loads(f.read(n))
        data = np.memmap(path, np.uint8, "r", 8 + n)
        where.update({k: (data, v) for k, v in header.items() if k != "__metadata__"})

    def get(name):
        data, v = where[name]
        assert v["dtype"] == "BF16", f"{name} is {v['dtype']}, wanted BF16"
        begin, end = v["data_offsets"]
        return data[begin:end].view(np.uint16).reshape(v["shape"])

    return get


def wide(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def tensors(get, c):
    """(name, make, shape, bf16) of every tensor; make() has the data, so that one is in memory at a time."""
    for name, theirs in (("token_embd", "model.embed_tokens"), ("output", "lm_head")):
        yield f"{name}.weight", lambda n=theirs: get(f"{n}.weight"), get(f"{theirs}.weight").shape, True
    yield "output_norm.weight", lambda: wide(get("model.norm.weight")), get("model.norm.weight").shape, False
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for theirs, name in NAMES.items():
            bits = get(f"{at}{theirs}.weight")
            narrow = bits.ndim == 2 and name != "ffn_gate_inp"
            yield f"blk.{i}.{name}.weight", lambda b=bits, n=narrow: b if n else wide(b), bits.shape, narrow
        for part in ("gate", "up", "down"):
            each = [f"{at}mlp.experts.{e}.{part}_proj.weight" for e in range(c["num_experts"])]
            shape = (len(each), *get(each[0]).shape)
            yield f"blk.{i}.ffn_{part}_exps.weight", lambda e=each: np.stack([get(n) for n in e]), shape, True


def main():
    folder, out = sys.argv[1:]
    c = json.load(open(os.path.join(folder, "config.json")))
    assert c["model_type"] == "olmoe", f"model_type: found {c['model_type']}, wanted olmoe"
    get = open_weights(folder)
    w = gguf.GGUFWriter(out, "olmoe")
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_expert_count(c["num_experts"])
    w.add_expert_used_count(c["num_experts_per_tok"])
    w.add_vocab_size(c["vocab_size"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([f"t{i}\u0120" for i in range(c["vocab_size"])])
    w.add_token_types([gguf.TokenType.NORMAL] * c["vocab_size"])
    w.add_token_merges(["t 1"])
    w.add_eos_token_id(c["eos_token_id"])
    w.add_add_bos_token(False)
    all_tensors = list(tensors(get, c))
    for name, _, shape, narrow in all_tensors:
        n = int(np.prod(shape))
        if narrow:
            w.add_tensor_info(name, (*shape[:-1], shape[-1] * 2), np.dtype(np.uint8), n * 2, BF16)
        else:
            w.add_tensor_info(name, shape, np.dtype(np.float32), n * 4)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for name, make, _, narrow in all_tensors:
        data = np.ascontiguousarray(make())
        w.write_tensor_data(data.view(np.uint8) if narrow else data)
    w.close()
    print(f"{out}: {os.path.getsize(out) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
