/* common.c - the list of families and what their read functions share. */
#include <stdio.h>
#include <string.h>

#include "moe/families.h"

extern const struct family family_dense, family_mixtral, family_phimoe, family_minimax,
    family_qwen2_moe, family_qwen3_moe, family_olmoe, family_gpt_oss, family_granite,
    family_deepseek_v2, family_deepseek_v3, family_glm4, family_dots1, family_ernie,
    family_hunyuan, family_dbrx, family_llama4;

const struct family *const families[] = {
    &family_mixtral,     &family_qwen2_moe,   &family_qwen3_moe,
    &family_olmoe,       &family_gpt_oss,     &family_granite,
    &family_deepseek_v2, &family_deepseek_v3, &family_glm4,
    &family_dots1,       &family_minimax,     &family_ernie,
    &family_hunyuan,     &family_phimoe,      &family_dbrx,
    &family_llama4,      &family_dense,       NULL,
};

pm_status family_experts(struct config *c, struct json_doc *doc, const json *root,
                         const char *count_key, const char *top_k_key, const char *dim_key)
{
    enum { MAX_EXPERTS = 4096, MAX_INNER = 1 << 24 };
    /* Newer versions of the reference write one key for all families. */
    if (!json_get(root, count_key) && json_get(root, "num_local_experts")) {
        count_key = "num_local_experts";
    }
    if (!json_get(root, top_k_key) && json_get(root, "num_experts_per_tok")) {
        top_k_key = "num_experts_per_tok";
    }
    TRY(json_need_int(doc, root, count_key, 1, MAX_EXPERTS, &c->gate.n_expert));
    TRY(json_need_int(doc, root, top_k_key, 1, c->gate.n_expert, &c->gate.top_k));
    TRY(json_need_int(doc, root, dim_key, 1, MAX_INNER, &c->expert_dim));
    c->gate.scale = 1;
    family_moe_from(c, 0);
    return PM_OK;
}

void family_moe_from(struct config *c, int first)
{
    for (int l = 0; l < c->n_layer; l++) {
        c->layer[l].moe = l >= first;
        c->layer[l].top_k = c->gate.top_k;
    }
}

pm_status family_shared(struct config *c, struct json_doc *doc, int count)
{
    enum { MAX_INNER = 1 << 24 };
    int64_t dim = (int64_t)count * c->expert_dim;
    if (dim > MAX_INNER) {
        return fail(PM_ERR_FORMAT,
                    "%s: %d shared experts of inner size %d, wanted at most %d in all",
                    json_name(doc), count, c->expert_dim, MAX_INNER);
    }
    c->shared_dim = (int)dim;
    return PM_OK;
}

pm_status family_qwen_windows(struct config *c, struct json_doc *doc, const json *root)
{
    bool qwen2_moe = strcmp(c->model_type, "qwen2_moe") == 0, use = false;
    bool qwen3_moe = strcmp(c->model_type, "qwen3_moe") == 0;
    int limit = 28;
    TRY(json_want_bool(doc, root, "use_sliding_window", &use));
    TRY(json_want_int(doc, root, "max_window_layers", 0, 1 << 20, &limit));
    if (json_is_array(json_get(root, "layer_types")) && use) return PM_OK;
    if (qwen2_moe && use && c->layer[0].window == 0) {
        return fail(PM_ERR_FORMAT,
                    "%s: sliding_window: found none, use_sliding_window wants one",
                    json_name(doc));
    }
    for (int l = 0; l < c->n_layer; l++) {
        bool slides = qwen3_moe || (qwen2_moe ? l % 2 == 0 && l < limit : l >= limit);
        if (!use || !slides) c->layer[l].window = 0;
    }
    return PM_OK;
}

pm_status family_sparse_step(struct config *c, struct json_doc *doc, const json *root)
{
    const json *dense = json_get(root, "mlp_only_layers");
    int step = 1;
    TRY(json_want_int(doc, root, "decoder_sparse_step", 1, 1 << 20, &step));
    for (int l = 0; l < c->n_layer; l++) {
        c->layer[l].moe = (l + 1) % step == 0;
    }
    if (!json_is_array(dense)) return PM_OK;
    for (const json *v = json_child(dense); v; v = json_next(v)) {
        int64_t l;
        if (!json_integer(v, &l) || l < 0) return json_fail(doc, v, "a layer's number");
        if (l < c->n_layer) c->layer[l].moe = false;
    }
    return PM_OK;
}

pm_status family_gate_v3(struct config *c, struct json_doc *doc, const json *root)
{
    struct gate *g = &c->gate;
    bool renorm = true;
    int shared = 0;
    g->score = SCORE_SIGMOID;
    g->group = GROUP_TOP2;
    g->n_group = g->top_group = 1;
    g->floor = 1e-20f;
    c->select_bias = true;
    TRY(json_want_int(doc, root, "n_group", 1, g->n_expert, &g->n_group));
    TRY(json_want_int(doc, root, "topk_group", 1, g->n_group, &g->top_group));
    TRY(json_want_float(doc, root, "routed_scaling_factor", 0, 1e6, &g->scale));
    TRY(json_want_bool(doc, root, "norm_topk_prob", &renorm));
    TRY(json_want_int(doc, root, "n_shared_experts", 0, 4096, &shared));
    g->renorm = renorm ? RENORM_SUM : RENORM_NONE;
    if (g->n_group == 1) g->group = GROUP_NONE;
    return family_shared(c, doc, shared);
}
