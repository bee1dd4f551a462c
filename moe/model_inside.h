/* model_inside.h - what model.c (opening), forward.c (a step) and explain.c share. */
#ifndef MOE_MODEL_INSIDE_H
#define MOE_MODEL_INSIDE_H

#include "moe/experts.h"
#include "moe/kvpool.h"
#include "moe/model.h"
#include "moe/recorded.h"
#include "moe/weights.h"

/* Device arrays of a step. */
struct step {
    float *x;             /* [T, D] residual stream */
    void *h;              /* [T, D] normalised rows, narrow */
    float *change;        /* [T, D] what a block adds to x; h where that is F32 */
    float *q, *k, *v;     /* [T, H k_dim], [T, G k_dim], [T, G v_dim] */
    float *latent;        /* [T, q_latent] */
    void *mixed;          /* [T, H v_dim] attention's output, narrow */
    void *inner, *expert; /* [T K, F], [T K, D], narrow */
    void *scaled;         /* [T K, D] experts' input where weights scale it, narrow */
    void *shared;         /* [T, max(shared, dense)], narrow */
    float *flag;          /* [T, 1] */
    float *gate;          /* [T, E] */
    float *logits;        /* [n_out, V] */
    float *cosine, *sine; /* [T, rope.dim / 2] */
    float *temperature;   /* [T] */
    struct routing routing;
    int32_t *id, *position, *q_start, *kv_len, *block_table, *out_row, *out_offset;
    int64_t *slot;
};

struct model {
    const struct kernels *k;
    struct device *d;
    struct config *c;
    struct weights w;
    struct kvpool kv;
    struct model_options o;
    struct model_plan plan;
    struct step s;
    struct attention_rows rows;
    struct recorded recorded;
    struct ragged out;            /* the rows whose logits are wanted */
    float *inv_freq, rope_factor; /* [rope.dim / 2] on the device */
    float *temperature_host;      /* [max_row] */
    model_route *route;
    void *route_arg;
    int32_t *route_id; /* [max_row, K] where device memory is not host memory */
    float *route_weight;
    int max_block;
    int64_t n_block; /* of the pool */
    pm_dtype narrow; /* type of activations that only feed linear maps */
};

/* The experts of a layer, which model_open has checked; gate with the layer's own top_k. */
static inline struct experts model_experts(const struct model *m, int layer, struct gate gate)
{
    const struct layer_weights *l = &m->w.layer[layer];
    return (struct experts){.gate = gate,
                            .glu = m->c->glu,
                            .w_gate = l->expert_gate,
                            .w_up = l->expert_up,
                            .w_down = l->expert_down,
                            .b_gate = l->expert_gate_bias,
                            .b_up = l->expert_up_bias,
                            .b_down = l->expert_down_bias,
                            .checked = true};
}

static inline struct tensor view(float *data, int64_t rows, int64_t cols)
{
    return tensor_view(data, PM_F32, rows, cols);
}

/* Rows that only feed a linear map. */
static inline struct tensor narrow(const struct model *m, void *data, int64_t rows,
                                   int64_t cols)
{
    return tensor_view(data, m->narrow, rows, cols);
}

#endif
