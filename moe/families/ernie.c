/* ernie.c - ERNIE-4.5: softmax scores picked with a bias, renormalised with a floor,
 * interleaved RoPE. Source: transformers models/ernie4_5_moe/modeling_ernie4_5_moe.py. */
#include "moe/families.h"

static pm_status read(struct config *c, struct json_doc *doc, const json *root)
{
    int every = 1, start = 0, end = c->n_layer - 1, shared = 0;
    bool bias = false;
    TRY(family_experts(c, doc, root, "moe_num_experts", "moe_k", "moe_intermediate_size"));
    c->gate.score = SCORE_SOFTMAX;
    c->gate.renorm = RENORM_MAX;
    c->gate.floor = 1e-12f;
    TRY(json_want_float(doc, root, "moe_norm_min", 0, 1, &c->gate.floor));
    c->select_bias = true;
    TRY(json_want_int(doc, root, "moe_num_shared_experts", 0, 4096, &shared));
    TRY(family_shared(c, doc, shared));
    TRY(json_want_int(doc, root, "moe_layer_interval", 1, 1 << 20, &every));
    TRY(json_want_int(doc, root, "moe_layer_start_index", 0, 1 << 20, &start));
    TRY(json_want_int(doc, root, "moe_layer_end_index", -1, 1 << 20, &end));
    if (end < 0) end = c->n_layer - 1;
    for (int l = 0; l < c->n_layer; l++) {
        c->layer[l].moe = (l + 1) % every == 0 && l >= start && l <= end;
    }
    TRY(json_want_bool(doc, root, "use_bias", &bias));
    c->qkv_bias = c->o_bias = c->mlp_bias = bias;
    c->rope.interleaved = true;
    return PM_OK;
}

const struct family family_ernie = {
    .model_type = {"ernie4_5_moe"},
    .title = "ERNIE-4.5",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_DENSE, NAMES_EXPERTS, NAMES_SHARED,
              .gate = LAYER "mlp.gate",
              .select_bias = LAYER "mlp.moe_statics.e_score_correction_bias"},
    .read = read,
};
