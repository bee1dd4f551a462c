/* qwen_moe.c - Qwen1.5/2-MoE, with one shared expert behind a sigmoid, and Qwen3-MoE.
 * Source: transformers models/{qwen2_moe,qwen3_moe}/modeling_*.py. norm_topk_prob is read from
 * the file: class defaults and released values differ. */
#include "moe/families.h"

static pm_status read_gate(struct config *c, struct json_doc *doc, const json *root)
{
    bool renorm = false;
    TRY(family_experts(c, doc, root, "num_experts", "num_experts_per_tok",
                       "moe_intermediate_size"));
    TRY(json_want_bool(doc, root, "norm_topk_prob", &renorm));
    c->gate.score = SCORE_SOFTMAX;
    c->gate.renorm = renorm ? RENORM_SUM : RENORM_NONE;
    TRY(family_sparse_step(c, doc, root));
    return family_qwen_windows(c, doc, root);
}

static pm_status read_qwen2(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(read_gate(c, doc, root));
    TRY(json_need_int(doc, root, "shared_expert_intermediate_size", 0, 1 << 24,
                      &c->shared_dim));
    c->shared_gate = c->shared_dim > 0;
    c->qkv_bias = true;
    return json_want_bool(doc, root, "qkv_bias", &c->qkv_bias);
}

const struct family family_qwen2_moe = {
    .model_type = {"qwen2_moe"},
    .title = "Qwen1.5-MoE, Qwen2-MoE",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_DENSE, NAMES_EXPERTS,
              .gate = LAYER "mlp.gate", .shared_gate = LAYER "mlp.shared_expert.gate_proj",
              .shared_up = LAYER "mlp.shared_expert.up_proj",
              .shared_down = LAYER "mlp.shared_expert.down_proj",
              .shared_switch = LAYER "mlp.shared_expert_gate"},
    .read = read_qwen2,
};

static pm_status read_qwen3(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(read_gate(c, doc, root));
    c->qk_norm = QK_HEAD;
    TRY(json_want_bool(doc, root, "attention_bias", &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    return PM_OK;
}

const struct family family_qwen3_moe = {
    .model_type = {"qwen3_moe"},
    .title = "Qwen3-MoE",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_QK_NORM, NAMES_DENSE, NAMES_EXPERTS,
              .gate = LAYER "mlp.gate"},
    .read = read_qwen3,
};
