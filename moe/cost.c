/* cost.c - what a step must read and multiply, from the shapes alone: the roofline's two axes.
 *
 * Bytes count every weight that a step of T rows needs once, in its stored type. A layer of E
 * experts of which each row picks K evenly touches E (1 - (1 - K / E)^T) of them. The KV cache
 * is left out of the bytes, since it depends on the length of each sequence. */
#include <math.h>

#include "model.h"
#include "weights.h"

static double tensor_bytes(const struct tensor *t)
{
    double n = (double)t->rows * (double)t->cols;
    if (!t->data) return 0;
    if (t->type == PM_MXFP4) return n / 2 + n / 32;
    return n * dtype_bits(t->type) / 8;
}

static double layer_bytes(const struct layer_weights *l, const struct config *c, int layer,
                          int n_row)
{
    const struct tensor *shared[] = {
        &l->q,         &l->k,           &l->v,          &l->o,        &l->q_a,
        &l->q_b,       &l->kv_a,        &l->kv_b,       &l->gate,     &l->shared_gate,
        &l->shared_up, &l->shared_down, &l->dense_gate, &l->dense_up, &l->dense_down,
    };
    double bytes = 0;
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        bytes += tensor_bytes(shared[i]);
    }
    if (c->layer[layer].moe) {
        double e = c->gate.n_expert, k = c->layer[layer].top_k;
        double touched = e * (1 - pow(1 - k / e, n_row));
        bytes += touched * (tensor_bytes(&l->expert_gate[0]) + tensor_bytes(&l->expert_up[0]) +
                            tensor_bytes(&l->expert_down[0]));
    }
    return bytes;
}

double model_step_bytes(const struct model *m, int n_row)
{
    const struct weights *w = model_weights(m);
    const struct config *c = model_config(m);
    double bytes = tensor_bytes(&w->head);
    for (int l = 0; l < c->n_layer; l++) {
        bytes += layer_bytes(&w->layer[l], c, l, n_row);
    }
    return bytes;
}

double model_row_flops(const struct model *m, int n_kv, bool logits)
{
    const struct config *c = model_config(m);
    double total, active, attention;
    config_parameters(c, &total, &active);
    if (!logits) active -= (double)c->vocab * c->hidden;
    attention = c->mla.latent ? (double)c->n_head * (2.0 * c->mla.latent + c->mla.rope)
                              : 2.0 * c->n_head * c->head_dim;
    return 2 * (active + attention * n_kv * c->n_layer);
}
