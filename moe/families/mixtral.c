/* mixtral.c - Mixtral, Phi-3.5-MoE and MiniMax-M2: experts under block_sparse_moe as w1 (gate),
 * w3 (up) and w2 (down). Source: transformers models/{mixtral,phimoe,minimax_m2}/modeling_*.py.
 */
#include "moe/families.h"

#define NAMES_BLOCK_SPARSE                                                                     \
    .gate = LAYER "block_sparse_moe.gate|" LAYER "mlp.gate",                                   \
    .expert_gate = LAYER "block_sparse_moe.experts.@.w1",                                      \
    .expert_up = LAYER "block_sparse_moe.experts.@.w3",                                        \
    .expert_down = LAYER "block_sparse_moe.experts.@.w2",                                      \
    .fused_gate_up = LAYER "mlp.experts.gate_up_proj",                                         \
    .fused_down = LAYER "mlp.experts.down_proj"

static pm_status read_mixtral(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(family_experts(c, doc, root, "num_local_experts", "num_experts_per_tok",
                       "intermediate_size"));
    c->gate.score = SCORE_SOFTMAX;
    c->gate.renorm = RENORM_SUM;
    return PM_OK;
}

const struct family family_mixtral = {
    .model_type = {"mixtral"},
    .title = "Mixtral",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_BLOCK_SPARSE},
    .read = read_mixtral,
};

/* Sparsemixer (arXiv 2409.12136) in evaluation mode, LayerNorm with bias, biases on attention
 * and on the output matrix. */
static pm_status read_phimoe(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(family_experts(c, doc, root, "num_local_experts", "num_experts_per_tok",
                       "intermediate_size"));
    if (c->gate.top_k != 2) {
        return fail(PM_ERR_UNSUPPORTED,
                    "%s: num_experts_per_tok: found %d, sparsemixer is defined for 2",
                    json_name(doc), c->gate.top_k);
    }
    c->gate.score = SCORE_LOGIT;
    c->gate.weight = WEIGHT_SPARSEMIXER;
    c->gate.jitter = 0.01f;
    TRY(json_want_float(doc, root, "router_jitter_noise", 0, 1, &c->gate.jitter));
    TRY(json_want_bool(doc, root, "attention_bias", &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    TRY(json_want_bool(doc, root, "lm_head_bias", &c->head_bias));
    c->norm = NORM_LAYER;
    c->norm_bias = true;
    return PM_OK;
}

const struct family family_phimoe = {
    .model_type = {"phimoe"},
    .title = "Phi-3.5-MoE",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_BLOCK_SPARSE},
    .read = read_phimoe,
};

static pm_status read_minimax(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(family_experts(c, doc, root, "num_local_experts", "num_experts_per_tok",
                       "intermediate_size"));
    c->gate.score = SCORE_SIGMOID;
    c->gate.renorm = RENORM_SUM;
    c->select_bias = true;
    c->qk_norm = QK_FULL;
    return PM_OK;
}

const struct family family_minimax = {
    .model_type = {"minimax_m2"},
    .title = "MiniMax-M2",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_QK_NORM, NAMES_BLOCK_SPARSE,
              .select_bias = LAYER "block_sparse_moe.e_score_correction_bias|" LAYER
                                   "mlp.e_score_correction_bias"},
    .read = read_minimax,
};
