/* llama4.c - Llama-4 text: the weight of an expert multiplies its input, chunked attention on
 * the layers with RoPE, temperature tuning on those without.
 * Source: transformers models/llama4/modeling_llama4.py. */
#include "moe/families.h"

static pm_status read_rope_layers(struct config *c, struct json_doc *doc, const json *root)
{
    const json *list = json_get(root, "no_rope_layers"); /* 1: the layer has RoPE */
    int every = 4, chunk = 0, l = 0;
    TRY(json_want_int(doc, root, "no_rope_layer_interval", 1, 1 << 20, &every));
    TRY(json_want_int(doc, root, "attention_chunk_size", 0, 1 << 30, &chunk));
    for (l = 0; l < c->n_layer; l++) {
        c->layer[l].rope = (l + 1) % every != 0;
        c->layer[l].window = 0;
    }
    if (json_is_array(list) && json_size(list) > 0) {
        if (json_size(list) < c->n_layer) return json_fail(doc, list, "one value per layer");
        l = 0;
        for (const json *v = json_child(list); v && l < c->n_layer; v = json_next(v), l++) {
            c->layer[l].rope = json_number(v) != 0;
        }
    }
    for (l = 0; l < c->n_layer; l++) {
        c->layer[l].chunk = c->layer[l].rope ? chunk : 0;
    }
    return PM_OK;
}

static pm_status read_moe_layers(struct config *c, struct json_doc *doc, const json *root)
{
    const json *list = json_get(root, "moe_layers");
    int every = 1;
    TRY(json_want_int(doc, root, "interleave_moe_layer_step", 1, 1 << 20, &every));
    for (int l = 0; l < c->n_layer; l++) {
        c->layer[l].moe = (l + 1) % every == 0;
    }
    if (!json_is_array(list)) return PM_OK;
    for (int l = 0; l < c->n_layer; l++) {
        c->layer[l].moe = false;
    }
    for (const json *v = json_child(list); v; v = json_next(v)) {
        int64_t l;
        if (!json_integer(v, &l) || l < 0 || l >= c->n_layer) {
            return json_fail(doc, v, "a layer's number");
        }
        c->layer[l].moe = true;
    }
    return PM_OK;
}

static pm_status read(struct config *c, struct json_doc *doc, const json *root)
{
    bool norm = true, tuning = false, bias = false;
    float floor_scale = 8192;
    TRY(family_experts(c, doc, root, "num_local_experts", "num_experts_per_tok",
                       "intermediate_size"));
    c->shared_dim = c->expert_dim;
    TRY(json_want_int(doc, root, "intermediate_size_mlp", 1, 1 << 24, &c->dense_dim));
    c->gate.score = SCORE_LOGIT;
    c->gate.weight = WEIGHT_SIGMOID_PICKED;
    c->gate.scale_input = true;
    c->fused_input_major = true;
    TRY(read_rope_layers(c, doc, root));
    TRY(read_moe_layers(c, doc, root));
    TRY(json_want_bool(doc, root, "use_qk_norm", &norm));
    c->qk_norm = norm ? QK_L2 : QK_NONE;
    c->qk_norm_after_rope = c->qk_norm_rope_only = true;
    TRY(json_want_bool(doc, root, "attn_temperature_tuning", &tuning));
    if (tuning) {
        c->temperature_scale = 0.1f;
        TRY(json_want_float(doc, root, "attn_scale", 0, 1e6, &c->temperature_scale));
        TRY(json_want_float(doc, root, "floor_scale", 1, 1e9, &floor_scale));
        c->temperature_floor = (int)floor_scale;
    }
    TRY(json_want_bool(doc, root, "attention_bias", &bias));
    c->qkv_bias = c->o_bias = bias;
    c->rope.interleaved = true;
    return PM_OK;
}

const struct family family_llama4 = {
    .model_type = {"llama4_text", "llama4"},
    .title = "Llama-4 text",
    .nested = "text_config",
    .names = {NAMES_COMMON, NAMES_ATTENTION, .gate = LAYER "feed_forward.router",
              .fused_gate_up = LAYER "feed_forward.experts.gate_up_proj",
              .fused_down = LAYER "feed_forward.experts.down_proj",
              .shared_gate = LAYER "feed_forward.shared_expert.gate_proj",
              .shared_up = LAYER "feed_forward.shared_expert.up_proj",
              .shared_down = LAYER "feed_forward.shared_expert.down_proj",
              .dense_gate = LAYER "feed_forward.gate_proj",
              .dense_up = LAYER "feed_forward.up_proj",
              .dense_down = LAYER "feed_forward.down_proj"},
    .read = read,
};
