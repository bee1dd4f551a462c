"""Cases of the families supported first, and the dense models."""

from case import add, attention, by_biased_sigmoid, by_softmax, deepseek_moe, mla, moe_ffn, mtp_layer, rope, yarn

# --- Qwen3-MoE -------------------------------------------------------------

QWEN3 = {"rename_keys": {"num_local_experts": "num_experts"}}
QWEN3_BASE = {
    **attention(32, 2, 4, 2, 24, intermediate_size=64, rope_parameters=rope(1e6)),
    **moe_ffn(7, 3, 28, norm_topk_prob=True),
}
add("qwen3_moe", "qwen3_moe", QWEN3_BASE, experts=7, **QWEN3)
# Version 5 dialect, where the number of experts is called num_local_experts.
add(
    "qwen3_moe_tied",
    "qwen3_moe",
    {
        **attention(32, 2, 8, 1, 16, intermediate_size=48, tie_word_embeddings=True, rope_parameters=rope(1e7)),
        **moe_ffn(5, 1, 44, norm_topk_prob=True),
    },
    experts=5,
    old_dialect=False,
)
add(
    "qwen3_moe_mixed",
    "qwen3_moe",
    {
        **attention(32, 4, 4, 1, 16, intermediate_size=52, attention_bias=True, rope_parameters=rope(1e4)),
        **moe_ffn(5, 2, 24, norm_topk_prob=False, mlp_only_layers=[1], decoder_sparse_step=2),
    },
    experts=5,
    **QWEN3,
)
add("qwen3_moe_fused", "qwen3_moe", QWEN3_BASE, experts=7, layout="fused", old_dialect=False, seed=500)
add("qwen3_moe_f16", "qwen3_moe", QWEN3_BASE, experts=7, storage="f16", seed=1000, **QWEN3)
add("qwen3_moe_bf16", "qwen3_moe", QWEN3_BASE, experts=7, storage="bf16", seed=1500, **QWEN3)

# --- Mixtral ---------------------------------------------------------------

MIXTRAL_BASE = {
    **attention(48, 2, 4, 2, None, rope_parameters=rope(1e6), intermediate_size=28),
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-5,
}
add("mixtral", "mixtral", MIXTRAL_BASE, experts=5, prompt=43)
add(
    "mixtral_swa",
    "mixtral",
    {
        **MIXTRAL_BASE,
        **attention(32, 2, 3, 1, 32),
        "intermediate_size": 20,
        "sliding_window": 11,
        "num_local_experts": 9,
    },
    experts=9,
    old_dialect=False,
)
add("mixtral_fused", "mixtral", {**MIXTRAL_BASE, "num_local_experts": 4}, experts=4, layout="fused", seed=500)

# --- OLMoE -----------------------------------------------------------------

OLMOE_BASE = {
    **attention(48, 2, 4, 4, None, intermediate_size=12, rope_parameters=rope(1e4)),
    **{"num_experts": 7, "num_experts_per_tok": 3, "rms_norm_eps": 1e-5},
    **{"clip_qkv": 0.9, "norm_topk_prob": False, "pad_token_id": 2},
}
add("olmoe", "olmoe", OLMOE_BASE, experts=7)
add(
    "olmoe_norm",
    "olmoe",
    {**OLMOE_BASE, "num_key_value_heads": 2, "norm_topk_prob": True, "clip_qkv": None, "tie_word_embeddings": True},
    experts=7,
    old_dialect=False,
)

# --- dense -----------------------------------------------------------------

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
add(
    "llama_llama3",
    "llama",
    {
        **attention(64, 2, 4, 1, None, intermediate_size=88, tie_word_embeddings=True, rms_norm_eps=1e-5),
        **{"rope_parameters": rope(500000.0, "llama3", **LLAMA3), "eos_token_id": [1, 2, 3]},
    },
)
add(
    "llama_linear",
    "llama",
    {
        **attention(32, 2, 2, 1, 96, intermediate_size=72, rms_norm_eps=1e-6),
        "rope_parameters": rope(10000.0, "linear", factor=4.0),
    },
    old_dialect=False,
    prompt=33,
)
add(
    "llama_plain",
    "llama",
    {**attention(48, 2, 4, 4, None, intermediate_size=60, rms_norm_eps=1e-5), "rope_parameters": rope(10000.0)},
    # Old checkpoints store the rotary frequencies of every layer; they must not be used.
    extra_tensors=tuple((f"model.layers.{i}.self_attn.rotary_emb.inv_freq", (6,)) for i in range(2)),
)
add(
    "qwen2",
    "qwen2",
    {
        **attention(64, 2, 4, 2, None, intermediate_size=68, tie_word_embeddings=True),
        **{"rope_parameters": rope(1e6), "use_sliding_window": False},
    },
    drop_keys=("layer_types",),
)
add(
    "qwen3",
    "qwen3",
    {**attention(32, 2, 2, 1, 128, intermediate_size=40), "rope_parameters": rope(1e6), "use_sliding_window": False},
    drop_keys=("layer_types",),
)

# --- Qwen1.5/2-MoE ---------------------------------------------------------

QWEN2_MOE_BASE = {
    **attention(40, 3, 4, 4, None, intermediate_size=60, rope_parameters=rope(1e6)),
    **moe_ffn(5, 2, 20, norm_topk_prob=False, shared_expert_intermediate_size=36),
    **{"mlp_only_layers": [1], "decoder_sparse_step": 1, "qkv_bias": True},
}
add("qwen2_moe", "qwen2_moe", QWEN2_MOE_BASE, experts=5, drop_keys=("layer_types",))
add(
    "qwen2_moe_norm",
    "qwen2_moe",
    {
        **QWEN2_MOE_BASE,
        **{"norm_topk_prob": True, "mlp_only_layers": [], "decoder_sparse_step": 2, "num_key_value_heads": 1},
    },
    experts=5,
    old_dialect=False,
    shards=3,
)

# --- gpt-oss ---------------------------------------------------------------

GPT_OSS_YARN = {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
GPT_OSS_BASE = {
    **attention(32, 2, 8, 2, 16, intermediate_size=28, rms_norm_eps=1e-5),
    **{"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 9},
    "rope_parameters": rope(150000.0, "yarn", original_max_position_embeddings=4096, **GPT_OSS_YARN),
    "max_position_embeddings": 131072,
}
GPT_OSS = {
    **{"experts": 5, "input_major_experts": True, "drop_keys": ("output_router_logits", "swiglu_alpha")},
    "extra_keys": {"experts_per_token": 2, "initial_context_length": 4096, "swiglu_limit": 7.0},
}
add("gpt_oss", "gpt_oss", GPT_OSS_BASE, **GPT_OSS)
# A short original context, so that all three zones of YaRN matter inside the prompt.
add(
    "gpt_oss_k1",
    "gpt_oss",
    {
        **GPT_OSS_BASE,
        **attention(40, 3, 2, 2, 32),
        **{
            "intermediate_size": 20,
            "num_local_experts": 3,
            "num_experts_per_tok": 1,
            "sliding_window": 16,
            "swiglu_limit": 1.5,
        },
        "rope_parameters": rope(10000.0, "yarn", original_max_position_embeddings=32, **GPT_OSS_YARN),
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
    experts=3,
    input_major_experts=True,
    old_dialect=False,
)

# --- Granite-MoE -----------------------------------------------------------

GRANITE_BASE = {
    **attention(48, 2, 4, 1, None, intermediate_size=20, tie_word_embeddings=True, rope_parameters=rope(1e4)),
    **{"num_local_experts": 7, "num_experts_per_tok": 3, "embedding_multiplier": 8.0, "logits_scaling": 0.03},
    **{"residual_multiplier": 0.22, "attention_multiplier": 0.11, "pad_token_id": 2},
}
add("granitemoe", "granitemoe", GRANITE_BASE, experts=7, embed_std=0.0125)
add(
    "granitemoeshared",
    "granitemoeshared",
    {
        **GRANITE_BASE,
        **{"shared_intermediate_size": 36, "num_local_experts": 5, "num_experts_per_tok": 2, "attention_bias": True},
        **{"logits_scaling": 1.8, "embedding_multiplier": 0.7, "residual_multiplier": 1.3, "hidden_size": 40},
    },
    experts=5,
    embed_std=0.8,
    old_dialect=False,
)

# --- DeepSeek-V2 -----------------------------------------------------------

V2_KEYS = {"scoring_func": "softmax", "moe_layer_freq": 1, "seq_aux": True, "ep_size": 1}
V2 = {"rope_type_key": "type", "extra_keys": V2_KEYS, "drop_keys": ("head_dim", "qk_head_dim", "mlp_bias")}
add(
    "deepseek_v2_lite",
    "deepseek_v2",
    {
        **attention(
            40, 2, 4, 4, None, intermediate_size=56, rope_parameters=rope(1e4, "yarn", **yarn(40, 64, 0.707, 0.707))
        ),
        **mla(16, 16, 12, 20, None),
        **deepseek_moe(7, 3, 12, 2, 1, topk_method="greedy", n_group=1, topk_group=1, routed_scaling_factor=1.0),
    },
    experts=7,
    **V2,
)
# mscale differs from mscale_all_dim, so that cos and sin are scaled as well.
add(
    "deepseek_v2",
    "deepseek_v2",
    {
        **attention(
            40, 2, 4, 4, None, intermediate_size=56, rope_parameters=rope(1e4, "yarn", **yarn(16, 32, 1.0, 0.6))
        ),
        **mla(48, 32, 32, 16, 20),
        **deepseek_moe(9, 3, 12, 1, 1, topk_method="group_limited_greedy", n_group=3, topk_group=2),
        "routed_scaling_factor": 4.0,
    },
    experts=9,
    groups=(3, 2, "max"),
    selection_scores=by_softmax,
    min_gap=0.001,
    **V2,
)

# --- DeepSeek-V3 -----------------------------------------------------------

V3_KEYS = {**V2_KEYS, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
V3 = {
    **{"rope_type_key": "type", "extra_keys": V3_KEYS, "drop_keys": ("head_dim", "qk_head_dim", "rope_interleave")},
    **{"selection_scores": by_biased_sigmoid, "min_gap": 0.001},
}


# Negative biased scores: filling masked groups with 0.0 gives other experts here.
add(
    "deepseek_v3",
    "deepseek_v3",
    {
        **attention(
            32, 2, 2, 2, None, intermediate_size=52, rope_parameters=rope(1e4, "yarn", **yarn(40, 64, 1.0, 1.0))
        ),
        **mla(128, 64, 128, 20, 12),
        **deepseek_moe(8, 3, 20, 1, 1, n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True),
    },
    experts=8,
    groups=(4, 2, "top2"),
    want_negative_scores=True,
    correction_bias=(-1.2, -0.2),
    extra_tensors=mtp_layer(2, 32),
    **V3,
)
# One group, no YaRN, no q_lora, weights not normalised; the version 5 dialect.
add(
    "deepseek_v3_plain",
    "deepseek_v3",
    {
        **attention(40, 2, 2, 2, None, intermediate_size=60, rope_parameters=rope(50000.0), rms_norm_eps=1e-5),
        **mla(32, 16, 32, 32, None),
        **deepseek_moe(5, 2, 20, 2, 1, n_group=1, topk_group=1, routed_scaling_factor=1.7, norm_topk_prob=False),
    },
    experts=5,
    groups=(1, 1, "top2"),
    selection_scores=by_biased_sigmoid,
    min_gap=0.001,
    old_dialect=False,
)
