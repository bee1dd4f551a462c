/* dbrx.c - DBRX: settings under ffn_config and attn_config, one clipped Wqkv, LayerNorm without
 * bias, expert matrices stacked [E * F, D] with the down projection input-major.
 * Source: transformers models/dbrx/modeling_dbrx.py. */
#include <string.h>

#include "moe/families.h"

static pm_status read(struct config *c, struct json_doc *doc, const json *root)
{
    const json *ffn = json_get(root, "ffn_config"), *attn = json_get(root, "attn_config");
    const json *act;
    const char *name = "silu";
    float p = 1; /* the released default; null turns it off */
    if (!json_is_object(ffn) || !json_is_object(attn)) {
        return fail(PM_ERR_FORMAT, "%s: ffn_config, attn_config: wanted two objects",
                    json_name(doc));
    }
    TRY(family_experts(c, doc, ffn, "moe_num_experts", "moe_top_k", "ffn_hidden_size"));
    act = json_get(ffn, "ffn_act_fn");
    if (json_is_object(act)) TRY(json_want_text(doc, act, "name", &name));
    if (strcmp(name, "silu") != 0) {
        return fail(PM_ERR_UNSUPPORTED, "%s: ffn_act_fn.name: found \"%s\", wanted silu",
                    json_name(doc), name);
    }
    c->glu.kind = GLU_SILU;
    c->gate.score = SCORE_SOFTMAX;
    if (json_is_null(json_get(ffn, "moe_normalize_expert_weights"))) p = 0;
    TRY(json_want_float(doc, ffn, "moe_normalize_expert_weights", 0, 1e6, &p));
    c->gate.renorm = p > 0 ? RENORM_NORM : RENORM_NONE;
    c->gate.floor = p;
    TRY(json_want_int(doc, attn, "kv_n_heads", 1, c->n_head, &c->n_kv_head));
    TRY(json_want_float(doc, attn, "clip_qkv", 0, 1e9, &c->clip_qkv));
    c->rope.theta = 10000;
    TRY(json_want_float(doc, attn, "rope_theta", 1e-6, 1e12, &c->rope.theta));
    c->norm = NORM_LAYER;
    c->norm_eps = 1e-5f;
    return PM_OK;
}

#define BLOCK "transformer.blocks.#."

const struct family family_dbrx = {
    .model_type = {"dbrx"},
    .title = "DBRX",
    .names = {.embed = "transformer.wte",
              .final_norm = "transformer.norm_f",
              .head = "lm_head",
              .attn_norm = BLOCK "norm_attn_norm.norm_1",
              .mlp_norm = BLOCK "norm_attn_norm.norm_2",
              .qkv = BLOCK "norm_attn_norm.attn.Wqkv",
              .o = BLOCK "norm_attn_norm.attn.out_proj",
              .gate = BLOCK "ffn.router.layer",
              .fused_gate_up = BLOCK "ffn.experts.mlp.w1",
              .fused_up = BLOCK "ffn.experts.mlp.v1",
              .fused_down = BLOCK "ffn.experts.mlp.w2"},
    .read = read,
};
