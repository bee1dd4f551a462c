/* families.h - the list of model families and what a family's table holds. */
#ifndef MOE_FAMILIES_H
#define MOE_FAMILIES_H

#include "moe/config.h"

/* Tensor names without their ending (.weight, .bias, _bias, ...). '#' stands for the layer, '@'
 * for the expert, '|' separates spellings; NULL where the family has no such tensor. Sources:
 * the families' modeling code and their index files. */
struct names {
    const char *embed, *final_norm, *head;
    const char *attn_norm, *mlp_norm;
    const char *q, *k, *v, *o, *qkv, *q_norm, *k_norm, *sinks;
    const char *q_a, *q_a_norm, *q_b, *kv_a, *kv_a_norm, *kv_b;
    const char *gate, *select_bias;
    const char *expert_gate, *expert_up, *expert_down;
    const char *fused_gate_up, *fused_up, *fused_down; /* 3-D, all experts */
    const char *shared_gate_up, *shared_gate, *shared_up, *shared_down, *shared_switch;
    const char *dense_gate, *dense_up, *dense_down;
};

struct family {
    const char *model_type[6]; /* of config.json, NULL-terminated */
    const char *title;
    const char *nested; /* key of the object that holds the text model's settings, or NULL */
    struct names names;
    /* Reads what only this family has; the common keys are already in c. */
    pm_status (*read)(struct config *c, struct json_doc *doc, const json *root);
};

extern const struct family *const families[]; /* NULL-terminated */

/* The names that most families share. */
#define LAYER "model.layers.#."
#define NAMES_COMMON                                                                           \
    .embed = "model.embed_tokens", .final_norm = "model.norm", .head = "lm_head",              \
    .attn_norm = LAYER "input_layernorm", .mlp_norm = LAYER "post_attention_layernorm"
#define NAMES_ATTENTION                                                                        \
    .q = LAYER "self_attn.q_proj", .k = LAYER "self_attn.k_proj",                              \
    .v = LAYER "self_attn.v_proj", .o = LAYER "self_attn.o_proj"
#define NAMES_QK_NORM .q_norm = LAYER "self_attn.q_norm", .k_norm = LAYER "self_attn.k_norm"
#define NAMES_DENSE                                                                            \
    .dense_gate = LAYER "mlp.gate_proj", .dense_up = LAYER "mlp.up_proj",                      \
    .dense_down = LAYER "mlp.down_proj"
/* One tensor per expert as released, or all experts fused as transformers 5 holds them. */
#define NAMES_EXPERTS                                                                          \
    .expert_gate = LAYER "mlp.experts.@.gate_proj",                                            \
    .expert_up = LAYER "mlp.experts.@.up_proj",                                                \
    .expert_down = LAYER "mlp.experts.@.down_proj",                                            \
    .fused_gate_up = LAYER "mlp.experts.gate_up_proj",                                         \
    .fused_down = LAYER "mlp.experts.down_proj"
#define NAMES_SHARED                                                                           \
    .shared_gate = LAYER "mlp.shared_experts.gate_proj",                                       \
    .shared_up = LAYER "mlp.shared_experts.up_proj",                                           \
    .shared_down = LAYER "mlp.shared_experts.down_proj"

/* Helpers for the read functions. */
pm_status family_experts(struct config *c, struct json_doc *doc, const json *root,
                         const char *count_key, const char *top_k_key, const char *dim_key);
/* Sets shared_dim to `count` experts' inner sizes side by side. */
pm_status family_shared(struct config *c, struct json_doc *doc, int count);
/* use_sliding_window and max_window_layers (M) of the Qwen configurations. Without layer_types
 * windows are on layers from M on (qwen2, qwen3), on even layers below M (qwen2_moe), on all
 * (qwen3_moe). Source: transformers models/NAME/configuration_NAME.py and modeling_NAME.py. */
pm_status family_qwen_windows(struct config *c, struct json_doc *doc, const json *root);
/* decoder_sparse_step and mlp_only_layers. */
pm_status family_sparse_step(struct config *c, struct json_doc *doc, const json *root);
/* The gate of DeepSeek-V3 and those that follow it: sigmoid, select bias, groups, scale. */
pm_status family_gate_v3(struct config *c, struct json_doc *doc, const json *root);
/* Sets the top_k and moe flag of all layers: layers below `first` are dense. */
void family_moe_from(struct config *c, int first);

#endif
