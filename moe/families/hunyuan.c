/* hunyuan.c - Hunyuan-A13B: q and k normalised after RoPE, an ungated shared MLP, an experts
 * count and a top-k that may be lists with one value per layer. Source: transformers
 * models/hunyuan_v1_moe/modeling_hunyuan_v1_moe.py. */
#include "moe/families.h"

/* A number, or a list of n_layer numbers. */
static pm_status number_or_list(struct config *c, struct json_doc *doc, const json *root,
                                const char *key, int64_t max, int64_t *each)
{
    const json *v = json_get(root, key);
    const json *e = json_is_array(v) ? json_child(v) : v;
    if (!v) return fail(PM_ERR_FORMAT, "%s: %s: missing", json_name(doc), key);
    if (json_is_array(v) && json_size(v) < c->n_layer) {
        return json_fail(doc, v, "a number, or one number per layer");
    }
    for (int l = 0; l < c->n_layer; l++) {
        if (!json_integer(e, &each[l]) || each[l] < 1 || each[l] > max) {
            return json_fail(doc, e, "a count in range, or one per layer");
        }
        if (json_is_array(v)) e = json_next(e);
    }
    return PM_OK;
}

static pm_status read(struct config *c, struct json_doc *doc, const json *root)
{
    enum { MAX_LAYERS = 4096 };
    int64_t expert[MAX_LAYERS], top_k[MAX_LAYERS];
    TRY(number_or_list(c, doc, root, "num_experts", 4096, expert));
    TRY(number_or_list(c, doc, root, "moe_topk", expert[0], top_k));
    for (int l = 0; l < c->n_layer; l++) {
        if (expert[l] != expert[0]) {
            return fail(PM_ERR_UNSUPPORTED,
                        "%s: num_experts: found %d and %d, wanted one count for all layers",
                        json_name(doc), (int)expert[0], (int)expert[l]);
        }
        c->layer[l].moe = expert[0] > 1;
        c->layer[l].top_k = (int)top_k[l];
        if (c->layer[l].top_k > c->gate.top_k) c->gate.top_k = c->layer[l].top_k;
    }
    c->gate.n_expert = (int)expert[0];
    c->gate.scale = 1;
    c->expert_dim = c->shared_dim = c->dense_dim; /* the reference has one inner size */
    c->gate.score = SCORE_SOFTMAX;
    c->gate.renorm = RENORM_SUM;
    c->qk_norm = QK_HEAD;
    c->qk_norm_after_rope = true;
    TRY(json_want_bool(doc, root, "attention_bias", &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    return PM_OK;
}

const struct family family_hunyuan = {
    .model_type = {"hunyuan_v1_moe"},
    .title = "Hunyuan-A13B",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_EXPERTS, NAMES_DENSE,
              .q_norm = LAYER "self_attn.query_layernorm",
              .k_norm = LAYER "self_attn.key_layernorm", .gate = LAYER "mlp.gate.wg",
              .shared_gate = LAYER "mlp.shared_mlp.gate_proj",
              .shared_up = LAYER "mlp.shared_mlp.up_proj",
              .shared_down = LAYER "mlp.shared_mlp.down_proj"},
    .read = read,
};
