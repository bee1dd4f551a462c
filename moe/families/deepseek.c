/* deepseek.c - DeepSeek-V2 and V2-Lite, DeepSeek-V3 / R1, Kimi-K2: multi-head latent attention,
 * interleaved RoPE, a shared expert, dense first layers.
 * Source: arXiv 2405.04434, arXiv 2412.19437, DeepSeek-V3 inference/model.py, transformers
 * models/{deepseek_v2,deepseek_v3}/modeling_*.py. Experts of masked groups never win here, as
 * in the authors' code. */
#include <string.h>

#include "moe/families.h"

static pm_status read_mla(struct config *c, struct json_doc *doc, const json *root)
{
    struct mla *m = &c->mla;
    bool bias = false;
    TRY(json_want_int(doc, root, "q_lora_rank", 1, 1 << 20, &m->q_latent));
    TRY(json_need_int(doc, root, "kv_lora_rank", 1, 1 << 20, &m->latent));
    TRY(json_need_int(doc, root, "qk_nope_head_dim", 1, 65536, &m->nope));
    TRY(json_need_int(doc, root, "qk_rope_head_dim", 2, 65536, &m->rope));
    TRY(json_need_int(doc, root, "v_head_dim", 1, 65536, &m->v_dim));
    TRY(json_want_bool(doc, root, "attention_bias", &bias));
    if (bias) {
        return fail(PM_ERR_UNSUPPORTED, "%s: attention_bias: found true, wanted false",
                    json_name(doc));
    }
    c->head_dim = m->nope + m->rope;
    c->n_kv_head = c->n_head;
    c->rope.interleaved = true;
    return json_want_bool(doc, root, "rope_interleave", &c->rope.interleaved);
}

/* Dense layers first, then experts in every moe_layer_freq-th layer. */
static pm_status read_layers(struct config *c, struct json_doc *doc, const json *root)
{
    int first = 0, every = 1;
    TRY(json_want_int(doc, root, "first_k_dense_replace", 0, 1 << 20, &first));
    TRY(json_want_int(doc, root, "moe_layer_freq", 1, 1 << 20, &every));
    family_moe_from(c, first);
    for (int l = first; l < c->n_layer; l++) {
        c->layer[l].moe = l % every == 0;
    }
    return PM_OK;
}

static pm_status read_v2(struct config *c, struct json_doc *doc, const json *root)
{
    struct gate *g = &c->gate;
    const char *method = "greedy";
    int shared = 0;
    TRY(family_experts(c, doc, root, "n_routed_experts", "num_experts_per_tok",
                       "moe_intermediate_size"));
    TRY(read_mla(c, doc, root));
    TRY(read_layers(c, doc, root));
    g->score = SCORE_SOFTMAX;
    TRY(json_want_text(doc, root, "topk_method", &method));
    TRY(json_want_float(doc, root, "routed_scaling_factor", 0, 1e6, &g->scale));
    TRY(json_want_int(doc, root, "n_shared_experts", 0, 4096, &shared));
    TRY(family_shared(c, doc, shared));
    if (strcmp(method, "group_limited_greedy") == 0) {
        g->group = GROUP_MAX;
        TRY(json_need_int(doc, root, "n_group", 1, g->n_expert, &g->n_group));
        TRY(json_need_int(doc, root, "topk_group", 1, g->n_group, &g->top_group));
    } else if (strcmp(method, "greedy") != 0) {
        return fail(PM_ERR_UNSUPPORTED,
                    "%s: topk_method: found \"%s\", wanted greedy or group_limited_greedy",
                    json_name(doc), method);
    }
    return PM_OK;
}

static pm_status read_v3(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(family_experts(c, doc, root, "n_routed_experts", "num_experts_per_tok",
                       "moe_intermediate_size"));
    TRY(read_mla(c, doc, root));
    TRY(read_layers(c, doc, root));
    return family_gate_v3(c, doc, root);
}

#define NAMES_MLA                                                                              \
    .q = LAYER "self_attn.q_proj", .o = LAYER "self_attn.o_proj",                              \
    .q_a = LAYER "self_attn.q_a_proj", .q_a_norm = LAYER "self_attn.q_a_layernorm",            \
    .q_b = LAYER "self_attn.q_b_proj", .kv_a = LAYER "self_attn.kv_a_proj_with_mqa",           \
    .kv_a_norm = LAYER "self_attn.kv_a_layernorm", .kv_b = LAYER "self_attn.kv_b_proj"

const struct family family_deepseek_v2 = {
    .model_type = {"deepseek_v2"},
    .title = "DeepSeek-V2, V2-Lite",
    .names = {NAMES_COMMON, NAMES_MLA, NAMES_DENSE, NAMES_EXPERTS, NAMES_SHARED,
              .gate = LAYER "mlp.gate"},
    .read = read_v2,
};

const struct family family_deepseek_v3 = {
    .model_type = {"deepseek_v3", "kimi_k2"},
    .title = "DeepSeek-V3, R1, Kimi-K2",
    .nested = "text_config",
    .names = {NAMES_COMMON, NAMES_MLA, NAMES_DENSE, NAMES_EXPERTS, NAMES_SHARED,
              .gate = LAYER "mlp.gate",
              .select_bias = LAYER "mlp.gate.e_score_correction_bias"},
    .read = read_v3,
};
