"""Cases of the other families, and the quantised checkpoints."""

from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from case import add, attention, by_biased_sigmoid, deepseek_moe, mla, moe_ffn, mtp_layer, rope, yarn
from cases_main import GPT_OSS, GPT_OSS_BASE, LLAMA3, QWEN3, V3, V3_KEYS

# --- Kimi-K2: the DeepSeek-V3 architecture under another name -----------------

add(
    "kimi_k2",
    "kimi_k2",
    {
        **attention(32, 2, 4, 4, None, intermediate_size=52),
        "rope_parameters": rope(50000.0, "yarn", **yarn(32, 64, 1.0, 1.0, fast=1, slow=1)),
        **mla(32, 16, 24, 20, 24),
        **deepseek_moe(9, 4, 12, 1, 1, n_group=1, topk_group=1, routed_scaling_factor=2.827, norm_topk_prob=True),
    },
    reference="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    experts=9,
    groups=(1, 1, "top2"),
    **V3,
)

# --- GLM-4.5 and dots.llm1 -----------------------------------------------------

add(
    "glm4_moe",
    "glm4_moe",
    {
        **attention(32, 2, 16, 1, 16, intermediate_size=44, attention_bias=True, use_qk_norm=True, eos_token_id=[1, 2]),
        "rope_parameters": rope(1e6, partial_rotary_factor=0.5),
        **deepseek_moe(7, 3, 12, 1, 1, n_group=1, topk_group=1, routed_scaling_factor=2.5, norm_topk_prob=True),
    },
    experts=7,
    groups=(1, 1, "top2"),
    selection_scores=by_biased_sigmoid,
    min_gap=0.001,
    extra_tensors=mtp_layer(2, 32),
)
add(
    "glm4_moe_air",
    "glm4_moe",
    {
        **attention(32, 2, 4, 2, 24, intermediate_size=44, attention_bias=True, use_qk_norm=False, rms_norm_eps=1e-5),
        "rope_parameters": rope(1e6, partial_rotary_factor=0.5),
        **deepseek_moe(8, 2, 20, 1, 1, n_group=2, topk_group=1, routed_scaling_factor=1.0, norm_topk_prob=True),
    },
    experts=8,
    groups=(2, 1, "top2"),
    selection_scores=by_biased_sigmoid,
    min_gap=0.001,
    old_dialect=False,
)
add(
    "dots1",
    "dots1",
    {
        **attention(32, 2, 2, 1, 80, intermediate_size=44, rope_parameters=rope(1e7), sliding_window=None),
        **deepseek_moe(7, 3, 12, 2, 1, n_group=1, topk_group=1, routed_scaling_factor=2.5, norm_topk_prob=True),
    },
    experts=7,
    groups=(1, 1, "top2"),
    selection_scores=by_biased_sigmoid,
    min_gap=0.001,
    drop_keys=("layer_types", "max_window_layers"),
    extra_keys={"scoring_func": "noaux_tc", "topk_method": "noaux_tc", "moe_layer_freq": 1},
)

# --- MiniMax-M2 ----------------------------------------------------------------


def by_sigmoid_and_argument(module, args, logits):
    """The bias belongs to the block and reaches the router as an argument."""
    return logits.sigmoid() + args[1]


add(
    "minimax_m2",
    "minimax_m2",
    {
        **attention(32, 2, 4, 1, 64, intermediate_size=12, rope_parameters=rope(5e6, partial_rotary_factor=0.5)),
        **{"num_local_experts": 7, "num_experts_per_tok": 3},
    },
    experts=7,
    selection_scores=by_sigmoid_and_argument,
    min_gap=0.001,
    drop_keys=("partial_rotary_factor",),
    extra_keys={"rotary_dim": 32, "use_routing_bias": True, "use_qk_norm": True, "qk_norm_type": "per_layer"},
)

# --- ERNIE-4.5 -----------------------------------------------------------------


def by_softmax_and_statics(module, args, logits):
    return logits.softmax(dim=-1) + module.moe_statics.e_score_correction_bias.squeeze()


# A large moe_norm_min, so that the floor under the sum is reached by some tokens.
add(
    "ernie4_5_moe",
    "ernie4_5_moe",
    {
        **attention(40, 4, 4, 1, None, intermediate_size=52, rope_parameters=rope(500000.0), tie_word_embeddings=True),
        **{"moe_num_experts": 7, "moe_k": 2, "moe_intermediate_size": 12, "moe_num_shared_experts": 2},
        **{"moe_layer_start_index": 1, "moe_layer_end_index": 2, "moe_layer_interval": 1, "moe_norm_min": 0.5},
        **{"use_bias": False, "rms_norm_eps": 1e-5},
    },
    experts=7,
    selection_scores=by_softmax_and_statics,
    correction_bias=(-0.2, 0.2),
    min_gap=0.001,
)

# --- Hunyuan-A13B --------------------------------------------------------------

HUNYUAN_ALPHA = {"alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
add(
    "hunyuan_v1_moe",
    "hunyuan_v1_moe",
    {
        **attention(32, 2, 4, 2, 24, intermediate_size=20, tie_word_embeddings=True, rms_norm_eps=1e-5),
        **{"num_experts": 7, "moe_topk": [3, 2], "rope_parameters": rope(10000.0, "dynamic", **HUNYUAN_ALPHA)},
    },
    experts=7,
    rope_type_key="type",
    extra_keys={
        **{"moe_intermediate_size": [20, 20], "num_shared_expert": [1, 1], "use_mixed_mlp_moe": True},
        **{"use_qk_norm": True, "use_cla": False, "moe_layer_num_skipped": 0, "norm_topk_prob": True},
    },
)

# --- Phi-3.5-MoE ---------------------------------------------------------------

JITTER = 0.15  # released: 0.01, which nearly always leaves one expert under the threshold


def sparsemixer_gap(module, logits):
    """Distance of every expert from the relative threshold, in both rounds."""
    gap, rest = float("inf"), logits.clone()
    for _ in range(2):
        best, index = rest.max(dim=-1, keepdim=True)
        ratio = (best - logits) / logits.abs().clamp(min=best)
        gap = min(gap, float((ratio - 2 * module.router_jitter_noise).abs().min()))
        rest.scatter_(-1, index, float("-inf"))
    return gap


def always_long(model):
    """transformers 5.23 never uses long_factor here: its rotary forward calls the
    initialiser without a length.  The published code takes long_factor (and
    long_mscale) once the text is longer than the original context."""
    longrope = ROPE_INIT_FUNCTIONS["longrope"]
    model.model.rotary_emb.rope_init_fn = lambda config: longrope(config, seq_len=config.max_position_embeddings)


LONGROPE = {
    "short_factor": [1.0 + 0.02 * i for i in range(8)],
    "long_factor": [1.0 + 0.7 * i * i for i in range(8)],
    **{"short_mscale": 1.1, "long_mscale": 1.25},
}
PHIMOE_BASE = {
    **attention(48, 2, 3, 1, None, intermediate_size=20, attention_bias=True, lm_head_bias=True, rms_norm_eps=1e-5),
    **{"num_local_experts": 6, "num_experts_per_tok": 2, "router_jitter_noise": JITTER},
    "rope_parameters": rope(10000.0, "longrope", original_max_position_embeddings=64, **LONGROPE),
}
PHIMOE = {"experts": 6, "extra_gap": sparsemixer_gap, "min_gap": 0.0005, "rope_type_key": "type"}
add("phimoe", "phimoe", PHIMOE_BASE, **PHIMOE)
add(
    "phimoe_long",
    "phimoe",
    {
        **PHIMOE_BASE,
        "rope_parameters": rope(10000.0, "longrope", original_max_position_embeddings=24, **LONGROPE),
    },
    patch=always_long,
    whole_prompt=True,
    **PHIMOE,
)

# --- DBRX ----------------------------------------------------------------------


def dbrx_router(module, args, output):
    return output, output.topk(module.golden_top_k, dim=-1).indices


def tell_top_k(model):
    """The DBRX router module returns logits only and does not know how many are picked."""
    for block in model.transformer.blocks:
        block.ffn.router.golden_top_k = block.ffn.top_k


def add_dbrx(name, hidden, heads, kv, clip, inner, experts, k, **ffn):
    attn_config = {"kv_n_heads": kv, "clip_qkv": clip, "rope_theta": 500000.0}
    ffn_config = {"ffn_hidden_size": inner, "moe_num_experts": experts, "moe_top_k": k, "moe_jitter_eps": 0.01, **ffn}
    config = {
        **{"d_model": hidden, "n_heads": heads, "n_layers": 2, "max_seq_len": 512, "vocab_size": 96},
        **{"bos_token_id": 0, "eos_token_id": 1, "rope_parameters": rope(500000.0)},
        **{"attn_config": attn_config, "ffn_config": ffn_config},
    }
    add(
        name,
        "dbrx",
        config,
        experts=experts,
        read_router=dbrx_router,
        patch=tell_top_k,
        drop_keys=("rope_parameters", "num_key_value_heads"),
        # The released file is terse, and has rope_theta in attn_config, where the reference does not look.
        extra_keys={"attn_config": {**attn_config, "model_type": ""}, "ffn_config": {**ffn_config, "model_type": ""}},
        restore_keys={"rope_theta": 500000.0},
    )


add_dbrx("dbrx", 48, 4, 2, 1.0, 20, 5, 2)
add_dbrx("dbrx_p2", 32, 2, 1, 8, 12, 4, 3, moe_normalize_expert_weights=2.0)

# --- Llama-4 -------------------------------------------------------------------


def llama4_router(module, args, output):
    return output[1], output[1].topk(module.top_k, dim=-1).indices


LLAMA4 = {"read_router": llama4_router, "input_major_experts": True}
add(
    "llama4_text",
    "llama4_text",
    {
        **attention(32, 4, 4, 2, 16, intermediate_size=20, intermediate_size_mlp=44, rope_parameters=rope(500000.0)),
        **{"num_local_experts": 5, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "use_qk_norm": True},
        **{"no_rope_layer_interval": 4, "attention_chunk_size": 12, "floor_scale": 8, "attn_scale": 0.3},
        "rms_norm_eps": 1e-5,
    },
    experts=5,
    old_dialect=False,
    **LLAMA4,
)
add(
    "llama4",
    "llama4_text",
    {
        **attention(32, 2, 2, 1, 32, intermediate_size=28, intermediate_size_mlp=40, rms_norm_eps=1e-5),
        **{"num_local_experts": 5, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1, "use_qk_norm": False},
        **{"no_rope_layers": [0, 1], "attention_chunk_size": 16, "floor_scale": 8192, "attn_temperature_tuning": False},
        "rope_parameters": rope(500000.0, "llama3", **LLAMA3),
    },
    experts=5,
    wrap={"architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4"},
    **LLAMA4,
)

# --- quantised -----------------------------------------------------------------

FP8 = {
    "quantization_config": {
        **{"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"},
        "weight_block_size": [128, 128],
    }
}
MXFP4_SKIP = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
add(
    "qwen3_moe_fp8",
    "qwen3_moe",
    {
        **attention(136, 2, 4, 1, 40, intermediate_size=64, rope_parameters=rope(1e6)),
        **moe_ffn(4, 2, 36, norm_topk_prob=True),
    },
    experts=4,
    storage="fp8",
    extra_keys=FP8,
    **QWEN3,
)
add(
    "deepseek_v3_fp8",
    "deepseek_v3",
    {
        **attention(
            136, 2, 2, 2, None, intermediate_size=136, rope_parameters=rope(1e4, "yarn", **yarn(40, 64, 1.0, 1.0))
        ),
        **mla(48, 32, 64, 40, 48),
        **deepseek_moe(4, 2, 132, 1, 1, n_group=1, topk_group=1, routed_scaling_factor=2.5, norm_topk_prob=True),
    },
    experts=4,
    groups=(1, 1, "top2"),
    storage="fp8",
    **{**V3, "extra_keys": {**V3_KEYS, **FP8}},
)
add(
    "gpt_oss_mxfp4",
    "gpt_oss",
    {**GPT_OSS_BASE, **attention(64, 2, 4, 1, 32), "intermediate_size": 96, "max_position_embeddings": 131072},
    storage="mxfp4",
    **{
        **GPT_OSS,
        "extra_keys": {
            **GPT_OSS["extra_keys"],
            "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": MXFP4_SKIP},
        },
    },
)
