/* granite.c - Granite-MoE and Granite-MoE-Shared: four multipliers, softmax over the picked
 * logits, fused expert tensors [E, 2F, D] and [E, D, F].
 * Source: transformers models/{granitemoe,granitemoeshared}/modeling_*.py. */
#include "moe/families.h"

static pm_status read(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(family_experts(c, doc, root, "num_local_experts", "num_experts_per_tok",
                       "intermediate_size"));
    c->gate.score = SCORE_LOGIT;
    c->gate.weight = WEIGHT_SOFTMAX_PICKED;
    TRY(json_want_int(doc, root, "shared_intermediate_size", 0, 1 << 24, &c->shared_dim));
    TRY(json_want_float(doc, root, "embedding_multiplier", -1e6, 1e6, &c->embedding_scale));
    TRY(json_want_float(doc, root, "residual_multiplier", -1e6, 1e6, &c->residual_scale));
    TRY(json_want_float(doc, root, "attention_multiplier", -1e6, 1e6, &c->attention_scale));
    float divide = 1;
    TRY(json_want_float(doc, root, "logits_scaling", 1e-6, 1e6, &divide));
    c->logits_scale = 1 / divide;
    TRY(json_want_bool(doc, root, "attention_bias", &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    return PM_OK;
}

const struct family family_granite = {
    .model_type = {"granitemoe", "granitemoeshared"},
    .title = "Granite-MoE, Granite-MoE-Shared",
    .names = {NAMES_COMMON, NAMES_ATTENTION, .gate = LAYER "block_sparse_moe.router.layer",
              .fused_gate_up = LAYER "block_sparse_moe.input_linear",
              .fused_down = LAYER "block_sparse_moe.output_linear",
              .shared_gate_up = LAYER "shared_mlp.input_linear",
              .shared_down = LAYER "shared_mlp.output_linear"},
    .read = read,
};
