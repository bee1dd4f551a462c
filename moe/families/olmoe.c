/* olmoe.c - OLMoE: q and k normalised over their whole width, then clipped together with v.
 * Source: transformers models/olmoe/modeling_olmoe.py. */
#include "moe/families.h"

static pm_status read(struct config *c, struct json_doc *doc, const json *root)
{
    bool renorm = false;
    TRY(family_experts(c, doc, root, "num_experts", "num_experts_per_tok",
                       "intermediate_size"));
    TRY(json_want_bool(doc, root, "norm_topk_prob", &renorm));
    c->gate.score = SCORE_SOFTMAX;
    c->gate.renorm = renorm ? RENORM_SUM : RENORM_NONE;
    c->qk_norm = QK_FULL;
    TRY(json_want_float(doc, root, "clip_qkv", 0, 1e9, &c->clip_qkv));
    TRY(json_want_bool(doc, root, "attention_bias", &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    return PM_OK;
}

const struct family family_olmoe = {
    .model_type = {"olmoe"},
    .title = "OLMoE",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_QK_NORM, NAMES_EXPERTS,
              .gate = LAYER "mlp.gate"},
    .read = read,
};
