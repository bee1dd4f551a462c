/* config.h - config.json read into one struct that covers every family.
 *
 * A family is a table (families.h): which model_type it answers to, how its tensors are called,
 * and a short function for the keys that only it has. Everything a layer needs to know stands
 * here in the same words for all families; the layer loop never asks which family it runs. */
#ifndef MOE_CONFIG_H
#define MOE_CONFIG_H

#include "kernels/kernels.h"
#include "moe/json.h"

struct family;

enum qk_norm {
    QK_NONE,
    QK_HEAD, /* one weight of head_dim, per head */
    QK_FULL, /* one weight over the whole projected width */
    QK_L2,   /* per head without a weight */
};

enum rope_kind {
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_DYNAMIC,
    ROPE_NTK_ALPHA,
    ROPE_YARN,
    ROPE_LLAMA3,
    ROPE_LONG,
};

struct rope {
    enum rope_kind kind;
    float theta;
    int dim; /* rotated values of a head */
    bool interleaved;
    float factor, alpha;
    int original; /* original_max_position_embeddings */
    float beta_fast, beta_slow, mscale, mscale_all_dim, attention_factor;
    bool truncate;
    float low_freq_factor, high_freq_factor;
    float *short_factor, *long_factor; /* [dim / 2] or NULL */
    float short_mscale, long_mscale;
};

struct mla {      /* latent = 0: the model has no multi-head latent attention */
    int q_latent; /* 0: one q_proj */
    int latent, nope, rope, v_dim;
};

enum quantisation {
    QUANT_NONE,
    QUANT_FP8_BLOCK, /* F8_E4M3 with weight_scale_inv per 128 x 128 */
    QUANT_MXFP4,     /* *_blocks and *_scales */
};

struct layer_config {
    bool moe;   /* experts, or a dense MLP */
    bool rope;  /* false: no position encoding (Llama-4's global layers) */
    int window; /* > 0: sliding window */
    int chunk;  /* > 0: chunked attention */
    int top_k;  /* experts per token of this layer */
};

struct config {
    const struct family *family;
    int n_layer, hidden, n_head, n_kv_head, head_dim, vocab, max_position;
    bool tied, tied_known; /* tied_known: config.json says so */
    enum norm_kind norm;
    float norm_eps;
    enum qk_norm qk_norm;
    bool qk_norm_after_rope, qk_norm_rope_only;
    bool qkv_bias, o_bias, mlp_bias, gate_bias, expert_bias, norm_bias, head_bias;
    float clip_qkv; /* 0: none */
    bool sinks;
    float attention_scale;
    float temperature_scale; /* Llama-4: 0 is off */
    int temperature_floor;
    struct rope rope;
    struct mla mla;

    int dense_dim;    /* inner size of dense layers */
    struct gate gate; /* n_expert 0: no experts at all */
    bool select_bias; /* e_score_correction_bias */
    int expert_dim;
    int shared_dim; /* inner size of the shared expert, 0: none */
    bool shared_gate;
    struct glu glu, dense_glu;
    bool interleaved_gate_up; /* gate and up rows alternate in fused tensors (gpt-oss) */
    bool fused_input_major;   /* fused tensors are [E, in, out] */

    float embedding_scale, residual_scale, logits_scale;
    enum quantisation quant;
    int quant_block[2];

    struct layer_config *layer; /* [n_layer] */
    int32_t eos[16];
    int n_eos;
    int32_t bos; /* -1: none */
    char model_type[48];
    char dtype[16]; /* as config.json says, for `info` */
};

/* Reads FOLDER/config.json (and generation_config.json where there is one). PM_ERR_UNSUPPORTED
 * for an unknown family lists those that are known. */
pm_status config_load(struct config **out, const char *folder);
/* The same from memory. */
pm_status config_parse(struct config **out, const char *name, const char *text, size_t n);
void config_free(struct config *c);

/* Inverse frequencies [dim / 2] for contexts up to `context`, and the factor on cos and sin. */
void rope_frequencies(const struct config *c, int context, float *inv_freq, float *factor);

/* Parameters of the model and those that one token uses, from the dimensions alone. */
void config_parameters(const struct config *c, double *total, double *active);

#endif
