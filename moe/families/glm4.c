/* glm4.c - GLM-4.5/4.6 and dots.llm1: grouped-query attention with DeepSeek-V3's gate.
 * Source: transformers models/{glm4_moe,dots1}/modeling_*.py. */
#include "moe/families.h"

static pm_status read_common(struct config *c, struct json_doc *doc, const json *root)
{
    int first = 0;
    TRY(family_experts(c, doc, root, "n_routed_experts", "num_experts_per_tok",
                       "moe_intermediate_size"));
    TRY(json_want_int(doc, root, "first_k_dense_replace", 0, 1 << 20, &first));
    family_moe_from(c, first);
    return family_gate_v3(c, doc, root);
}

static pm_status read_glm4(struct config *c, struct json_doc *doc, const json *root)
{
    bool norm = false;
    TRY(read_common(c, doc, root));
    TRY(json_want_bool(doc, root, "use_qk_norm", &norm));
    c->qk_norm = norm ? QK_HEAD : QK_NONE;
    return json_want_bool(doc, root, "attention_bias", &c->qkv_bias);
}

static pm_status read_dots1(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(read_common(c, doc, root));
    c->qk_norm = QK_HEAD;
    TRY(json_want_bool(doc, root, "attention_bias", &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    return PM_OK;
}

#define NAMES_GLM                                                                              \
    NAMES_COMMON, NAMES_ATTENTION, NAMES_QK_NORM, NAMES_DENSE, NAMES_EXPERTS, NAMES_SHARED,    \
        .gate = LAYER "mlp.gate", .select_bias = LAYER "mlp.gate.e_score_correction_bias"

const struct family family_glm4 = {
    .model_type = {"glm4_moe"},
    .title = "GLM-4.5, GLM-4.6",
    .names = {NAMES_GLM},
    .read = read_glm4,
};

const struct family family_dots1 = {
    .model_type = {"dots1"},
    .title = "dots.llm1",
    .names = {NAMES_GLM},
    .read = read_dots1,
};
