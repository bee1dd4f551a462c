"""What describes a golden case, and the parts that configurations share."""

from dataclasses import dataclass, field


def default_router(module, args, output):
    """Most routers return (logits, weights, indices)."""
    return output[0], output[2]


def by_logits(module, args, logits):
    """Softmax and "softmax of the chosen" pick the largest logits."""
    return logits


def by_softmax(module, args, logits):
    return logits.softmax(dim=-1)


def by_biased_sigmoid(module, args, logits):
    return logits.sigmoid() + module.e_score_correction_bias


@dataclass
class Case:
    """One folder of golden data.  `config` goes to the reference configuration class."""

    name: str
    model_type: str
    config: dict
    storage: str = "f32"  # f32, f16, bf16, fp8, mxfp4
    layout: str = "released"  # released: per expert where published so; fused: 3-D experts
    old_dialect: bool = True  # rope_theta + rope_scaling instead of rope_parameters
    rope_type_key: str = "rope_type"
    rename_keys: dict = field(default_factory=dict)
    drop_keys: tuple = ()
    extra_keys: dict = field(default_factory=dict)
    extra_tensors: tuple = ()  # (name, shape): on disk, to be ignored by a loader
    restore_keys: dict = field(default_factory=dict)  # what the reference needs beyond the file
    wrap: dict | None = None  # outer configuration of a multimodal release
    architecture: str | None = None
    reference: str | None = None  # model_type in transformers where it differs
    shards: int = 0
    prompt: int = 40
    seed: int = 1
    experts: int = 0  # routed experts, 0 for dense
    groups: tuple | None = None  # (groups, kept groups, "top2" or "max")
    want_negative_scores: bool = False
    correction_bias: tuple = (0.05, 0.45)
    input_major_experts: bool = False  # 3-D experts stored [E, in, out]
    embed_std: float | None = None
    logit_std: float = 3.0
    router_gain: float = 2.0
    min_margin: float = 0.05
    min_gap: float = 0.005
    read_router: object = default_router
    selection_scores: object = by_logits
    extra_gap: object = None  # further distances that decide routing
    patch: object = None  # change of the reference before it runs
    whole_prompt: bool = False  # no token by token prefill

    @property
    def tolerance(self):
        return self.storage

    def patched(self, model):
        if self.patch:
            self.patch(model)
        return model


CASES = []


def add(name, model_type, config, **kwargs):
    CASES.append(Case(name, model_type, config, **kwargs))


def rope(theta, kind="default", **kwargs):
    return {"rope_type": kind, "rope_theta": theta, **kwargs}


def moe_ffn(experts, k, inner, **kwargs):
    return {"num_experts": experts, "num_experts_per_tok": k, "moe_intermediate_size": inner, **kwargs}


def attention(hidden, layers, heads, kv, head_dim, **kwargs):
    """The part of a configuration that nearly all families share."""
    out = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": 512,
        "vocab_size": 96,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **kwargs,
    }
    if head_dim:
        out["head_dim"] = head_dim
    return out


def mla(nope, rope_dim, v, kv_lora, q_lora):
    return {
        **{"qk_nope_head_dim": nope, "qk_rope_head_dim": rope_dim, "v_head_dim": v},
        **{"kv_lora_rank": kv_lora, "q_lora_rank": q_lora},
    }


def deepseek_moe(experts, k, inner, shared, dense, **kwargs):
    return {
        **{"n_routed_experts": experts, "num_experts_per_tok": k, "moe_intermediate_size": inner},
        **{"n_shared_experts": shared, "first_k_dense_replace": dense, **kwargs},
    }


def yarn(factor, original, mscale, all_dim, fast=32, slow=1):
    return {
        **{"factor": factor, "original_max_position_embeddings": original, "beta_fast": fast, "beta_slow": slow},
        **{"mscale": mscale, "mscale_all_dim": all_dim},
    }


def mtp_layer(index, hidden):
    """A multi-token prediction layer after the last one, as released checkpoints carry it."""
    names = ("enorm.weight", "hnorm.weight", "shared_head.norm.weight", "input_layernorm.weight")
    vectors = tuple((f"model.layers.{index}.{name}", (hidden,)) for name in names)
    return (*vectors, (f"model.layers.{index}.eh_proj.weight", (hidden, 2 * hidden)))
