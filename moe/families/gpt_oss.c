/* gpt_oss.c - gpt-oss: biases everywhere, attention sinks, windows on every other layer,
 * clamped SwiGLU, softmax over the picked logits. Gate and up rows alternate in the fused
 * tensors, which are MXFP4 blocks [E, 2F, D/32, 16] as released, or [E, D, 2F] (input-major)
 * when saved plain. Source: gpt-oss gpt_oss/torch/model.py, transformers
 * models/gpt_oss/modeling_gpt_oss.py. */
#include "moe/families.h"

static pm_status read(struct config *c, struct json_doc *doc, const json *root)
{
    const char *top_k =
        json_get(root, "num_experts_per_tok") ? "num_experts_per_tok" : "experts_per_token";
    TRY(family_experts(c, doc, root, "num_local_experts", top_k, "intermediate_size"));
    c->gate.score = SCORE_LOGIT;
    c->gate.weight = WEIGHT_SOFTMAX_PICKED;
    c->gate_bias = c->expert_bias = c->sinks = true;
    c->qkv_bias = true;
    TRY(json_want_bool(doc, root, "attention_bias", &c->qkv_bias));
    c->o_bias = c->qkv_bias;
    c->glu = (struct glu){GLU_CLAMPED, 1.702f, 7.0f};
    TRY(json_want_float(doc, root, "swiglu_limit", 0, 1e9, &c->glu.limit));
    TRY(json_want_float(doc, root, "swiglu_alpha", 0, 1e9, &c->glu.alpha));
    c->interleaved_gate_up = c->fused_input_major = true;
    /* A file without any rope_scaling means the scaling of the released models. */
    c->rope = (struct rope){.kind = ROPE_YARN,
                            .theta = 150000,
                            .factor = 32,
                            .beta_fast = 32,
                            .beta_slow = 1,
                            .original = 4096};
    if (!json_is_array(json_get(root, "layer_types"))) {
        if (c->layer[0].window == 0) {
            return fail(PM_ERR_FORMAT, "%s: sliding_window: found none, wanted at least 1",
                        json_name(doc));
        }
        for (int l = 1; l < c->n_layer; l += 2) {
            c->layer[l].window = 0;
        }
    }
    return PM_OK;
}

const struct family family_gpt_oss = {
    .model_type = {"gpt_oss"},
    .title = "gpt-oss",
    .names = {NAMES_COMMON, NAMES_ATTENTION, .sinks = LAYER "self_attn.sinks",
              .gate = LAYER "mlp.router", .fused_gate_up = LAYER "mlp.experts.gate_up_proj",
              .fused_down = LAYER "mlp.experts.down_proj"},
    .read = read,
};
