/* synth_recipes.c - the configurations that random checkpoints start from.
 *
 * One per model_type, with the keys that the family's released files have and small sizes, and
 * some released models with their own sizes on top. Keys that synth_config adds itself
 * (torch_dtype, quantization_config, token ids) are not here, nor are lists with one value per
 * layer or per rotated dimension: with them `--set num_hidden_layers=...` would need a second
 * setting. Phi's longrope factors are left out for that reason.
 *
 * Sources: config.json of the released checkpoints of each family. */
#include "synth_config.h"

/* The text of its arguments, so that JSON is written here as JSON. */
#define JSON(...) #__VA_ARGS__

/* clang-format off */
#define LLAMA4_TEXT JSON(                                                                      \
    "attention_bias": false, "attention_chunk_size": 8192, "attention_dropout": 0.0,           \
    "attn_scale": 0.1, "attn_temperature_tuning": true, "floor_scale": 8192, "head_dim": 64,   \
    "hidden_act": "silu", "hidden_size": 256, "initializer_range": 0.02,                       \
    "interleave_moe_layer_step": 2, "intermediate_size": 128, "intermediate_size_mlp": 256,    \
    "max_position_embeddings": 131072, "model_type": "llama4_text", "no_rope_layers": [],      \
    "num_attention_heads": 4, "num_experts_per_tok": 1, "num_hidden_layers": 4,                \
    "num_key_value_heads": 2, "num_local_experts": 8, "output_router_logits": false,           \
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0,                                              \
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,           \
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},         \
    "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "tie_word_embeddings": false,   \
    "use_cache": true, "use_qk_norm": true, "vocab_size": 512)

const struct synth_recipe synth_recipes[] = {
    {"*common", NULL, JSON({
        "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 256,
        "initializer_range": 0.02, "intermediate_size": 512, "max_position_embeddings": 4096,
        "num_attention_heads": 4, "num_hidden_layers": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "transformers_version": "4.51.0", "use_cache": true,
        "vocab_size": 512})},

    {"mixtral", "*common", JSON({
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
        "intermediate_size": 128, "num_experts_per_tok": 2, "num_local_experts": 8,
        "output_router_logits": false, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        "router_aux_loss_coef": 0.02, "sliding_window": null})},
    {"phimoe", "*common", JSON({
        "architectures": ["PhiMoEForCausalLM"], "model_type": "phimoe",
        "attention_bias": true, "input_jitter_noise": 0.01, "intermediate_size": 128,
        "lm_head_bias": true, "num_experts_per_tok": 2, "num_local_experts": 8,
        "output_router_logits": false, "rms_norm_eps": 1e-5, "router_aux_loss_coef": 0.0,
        "router_jitter_noise": 0.01, "sliding_window": 131072})},
    {"minimax_m2", "*common", JSON({
        "architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax_m2",
        "head_dim": 64, "intermediate_size": 128, "num_experts_per_tok": 2,
        "num_local_experts": 8, "qk_norm_type": "per_layer", "rope_theta": 5e6,
        "rotary_dim": 32, "scoring_func": "sigmoid", "use_qk_norm": true,
        "use_routing_bias": true})},

    {"qwen2_moe", "*common", JSON({
        "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe",
        "decoder_sparse_step": 1, "max_window_layers": 4, "mlp_only_layers": [],
        "moe_intermediate_size": 128, "norm_topk_prob": false, "num_experts": 8,
        "num_experts_per_tok": 2, "output_router_logits": false, "rope_theta": 1e6,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 256,
        "sliding_window": null, "use_sliding_window": false})},
    {"qwen3_moe", "*common", JSON({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 64,
        "max_window_layers": 4, "mlp_only_layers": [], "moe_intermediate_size": 128,
        "norm_topk_prob": true, "num_experts": 8, "num_experts_per_tok": 2,
        "output_router_logits": false, "rope_theta": 1e6, "router_aux_loss_coef": 0.001,
        "sliding_window": null, "use_sliding_window": false})},
    {"olmoe", "*common", JSON({
        "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe",
        "attention_bias": false, "clip_qkv": null, "intermediate_size": 128,
        "norm_topk_prob": false, "num_experts": 8, "num_experts_per_tok": 2,
        "num_key_value_heads": 4, "output_router_logits": false, "rms_norm_eps": 1e-5,
        "router_aux_loss_coef": 0.01})},
    {"gpt_oss", "*common", JSON({
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss",
        "attention_bias": true, "head_dim": 64, "initial_context_length": 4096,
        "intermediate_size": 256, "max_position_embeddings": 131072, "num_experts_per_tok": 2,
        "num_local_experts": 8, "output_router_logits": false, "rms_norm_eps": 1e-5,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
                         "original_max_position_embeddings": 4096, "rope_type": "yarn",
                         "truncate": false},
        "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
        "swiglu_limit": 7.0})},
    {"granitemoe", "*common", JSON({
        "architectures": ["GraniteMoeForCausalLM"], "model_type": "granitemoe",
        "attention_bias": false, "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0, "intermediate_size": 128, "logits_scaling": 6.0,
        "num_experts_per_tok": 2, "num_local_experts": 8, "output_router_logits": false,
        "residual_multiplier": 0.22, "router_aux_loss_coef": 0.001,
        "tie_word_embeddings": true})},
    {"granitemoeshared", "granitemoe", JSON({
        "architectures": ["GraniteMoeSharedForCausalLM"], "model_type": "granitemoeshared",
        "shared_intermediate_size": 256})},

    {"deepseek_v2", "*common", JSON({
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
        "attention_bias": false, "first_k_dense_replace": 1, "kv_lora_rank": 64,
        "max_position_embeddings": 163840, "moe_intermediate_size": 128, "moe_layer_freq": 1,
        "n_group": 1, "n_routed_experts": 8, "n_shared_experts": 2, "norm_topk_prob": false,
        "num_experts_per_tok": 2, "num_key_value_heads": 4, "q_lora_rank": 96,
        "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707,
                         "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096,
                         "type": "yarn"},
        "routed_scaling_factor": 1.0, "scoring_func": "softmax", "seq_aux": true,
        "topk_group": 1, "topk_method": "greedy", "v_head_dim": 32})},
    {"deepseek_v3", "*common", JSON({
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
        "attention_bias": false, "ep_size": 1, "first_k_dense_replace": 1, "kv_lora_rank": 64,
        "max_position_embeddings": 163840, "moe_intermediate_size": 128, "moe_layer_freq": 1,
        "n_group": 4, "n_routed_experts": 8, "n_shared_experts": 1, "norm_topk_prob": true,
        "num_experts_per_tok": 2, "num_key_value_heads": 4, "num_nextn_predict_layers": 0,
        "q_lora_rank": 96, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                         "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                         "type": "yarn"},
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_group": 2,
        "topk_method": "noaux_tc", "v_head_dim": 32})},
    {"kimi_k2", "deepseek_v3", JSON({
        "model_type": "kimi_k2", "max_position_embeddings": 131072, "n_group": 1,
        "rope_scaling": {"beta_fast": 1.0, "beta_slow": 1.0, "factor": 32.0, "mscale": 1.0,
                         "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                         "type": "yarn"},
        "rope_theta": 50000.0, "routed_scaling_factor": 2.827, "topk_group": 1})},
    {"glm4_moe", "*common", JSON({
        "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe",
        "attention_bias": true, "first_k_dense_replace": 1, "head_dim": 64,
        "max_position_embeddings": 131072, "moe_intermediate_size": 128, "n_group": 1,
        "n_routed_experts": 8, "n_shared_experts": 1, "norm_topk_prob": true,
        "num_experts_per_tok": 2, "num_nextn_predict_layers": 0, "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "routed_scaling_factor": 2.5, "topk_group": 1,
        "use_qk_norm": true})},
    {"dots1", "*common", JSON({
        "architectures": ["Dots1ForCausalLM"], "model_type": "dots1",
        "attention_bias": false, "first_k_dense_replace": 1, "head_dim": 64,
        "moe_intermediate_size": 128, "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 8,
        "n_shared_experts": 2, "norm_topk_prob": true, "num_experts_per_tok": 2,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_theta": 1e7,
        "routed_scaling_factor": 2.5, "scoring_func": "noaux_tc", "sliding_window": null,
        "topk_group": 1, "topk_method": "noaux_tc"})},

    {"ernie4_5_moe", "*common", JSON({
        "architectures": ["Ernie4_5_MoeForCausalLM"], "model_type": "ernie4_5_moe",
        "moe_intermediate_size": 128, "moe_k": 2, "moe_layer_end_index": -1,
        "moe_layer_interval": 1, "moe_layer_start_index": 1, "moe_norm_min": 1e-12,
        "moe_num_experts": 8, "moe_num_shared_experts": 2, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tie_word_embeddings": true, "use_bias": false})},
    {"hunyuan_v1_moe", "*common", JSON({
        "architectures": ["HunYuanMoEV1ForCausalLM"], "model_type": "hunyuan_v1_moe",
        "attention_bias": false, "head_dim": 64, "intermediate_size": 128,
        "moe_intermediate_size": 128, "moe_layer_num_skipped": 0, "moe_topk": 2,
        "norm_topk_prob": true, "num_experts": 8, "num_shared_expert": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0,
                         "mscale": 1.0, "mscale_all_dim": 1.0, "type": "dynamic"},
        "tie_word_embeddings": true, "use_cla": false, "use_mixed_mlp_moe": true,
        "use_qk_norm": true})},
    {"dbrx", NULL, JSON({
        "architectures": ["DbrxForCausalLM"], "model_type": "dbrx",
        "attn_config": {"clip_qkv": 8, "kv_n_heads": 2, "rope_theta": 500000},
        "d_model": 256, "emb_pdrop": 0.0,
        "ffn_config": {"ffn_act_fn": {"name": "silu"}, "ffn_hidden_size": 128,
                       "moe_jitter_eps": 0.01, "moe_loss_weight": 0.05,
                       "moe_normalize_expert_weights": 1.0, "moe_num_experts": 8,
                       "moe_top_k": 2},
        "initializer_range": 0.02, "max_seq_len": 32768, "n_heads": 4, "n_layers": 4,
        "output_router_logits": false, "resid_pdrop": 0.0, "tie_word_embeddings": false,
        "transformers_version": "4.51.0", "use_cache": true, "vocab_size": 512})},
    {"llama4_text", NULL, "{" LLAMA4_TEXT JSON(, "architectures": ["Llama4ForCausalLM"],
        "transformers_version": "4.51.0"})},
    {"llama4", NULL, JSON({
        "architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4",
        "text_config":) "{" LLAMA4_TEXT JSON(}, "transformers_version": "4.51.0"})},

    {"llama", "*common", JSON({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false,
        "max_position_embeddings": 8192, "mlp_bias": false, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0})},
    {"mistral", "*common", JSON({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral",
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        "sliding_window": null})},
    {"qwen2", "*common", JSON({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "max_window_layers": 4,
        "rope_theta": 1e6, "sliding_window": null, "use_sliding_window": false})},
    {"qwen3", "*common", JSON({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false,
        "head_dim": 64, "max_window_layers": 4, "rope_theta": 1e6, "sliding_window": null,
        "use_sliding_window": false})},

    {"qwen3-30b-a3b", "qwen3_moe", JSON({
        "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
        "max_position_embeddings": 40960, "max_window_layers": 48,
        "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
        "vocab_size": 151936})},
    {"olmoe-1b-7b", "olmoe", JSON({
        "hidden_size": 2048, "intermediate_size": 1024, "num_attention_heads": 16,
        "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16,
        "num_key_value_heads": 16, "vocab_size": 50304})},
    {"mixtral-8x7b", "mixtral", JSON({
        "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "vocab_size": 32000})},
    {"gpt-oss-20b", "gpt_oss", JSON({
        "hidden_size": 2880, "intermediate_size": 2880, "num_attention_heads": 64,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
        "num_local_experts": 32, "vocab_size": 201088})},
    {"deepseek-v2-lite", "deepseek_v2", JSON({
        "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512,
        "moe_intermediate_size": 1408, "n_routed_experts": 64, "num_attention_heads": 16,
        "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16,
        "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "vocab_size": 102400})},
    {"qwen1.5-moe-a2.7b", "qwen2_moe", JSON({
        "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 8192,
        "max_window_layers": 21, "moe_intermediate_size": 1408, "num_attention_heads": 16,
        "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24,
        "num_key_value_heads": 16, "shared_expert_intermediate_size": 5632,
        "vocab_size": 151936})},
    {NULL, NULL, NULL},
};
/* clang-format on */
