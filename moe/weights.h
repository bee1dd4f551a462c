/* weights.h - names in a checkpoint -> the tensors of each layer. */
#ifndef MOE_WEIGHTS_H
#define MOE_WEIGHTS_H

#include "moe/config.h"
#include "moe/safetensors.h"

/* Absent tensors have data NULL. Vectors (norms, biases, sinks) and the gate are F32; matrices
 * keep the type of the file. */
struct layer_weights {
    struct tensor attn_norm, attn_norm_bias, mlp_norm, mlp_norm_bias;
    struct tensor q, k, v, o, q_bias, k_bias, v_bias, o_bias; /* [H Dh, D], ..., [D, H Dh] */
    struct tensor q_norm, k_norm, sinks;
    struct tensor q_a, q_a_norm, q_b, kv_a, kv_a_norm, kv_b;
    struct tensor gate, gate_bias, select_bias;           /* [E, D], [E], [E] */
    struct tensor *expert_gate, *expert_up, *expert_down; /* [E] of [F, D], [F, D], [D, F] */
    struct tensor *expert_gate_bias, *expert_up_bias, *expert_down_bias; /* NULL or [E] */
    struct tensor shared_gate, shared_up, shared_down, shared_switch;
    struct tensor dense_gate, dense_up, dense_down;
    struct tensor dense_gate_bias, dense_up_bias, dense_down_bias;
};

struct weights {
    struct tensor embed, final_norm, final_norm_bias, head, head_bias;
    struct layer_weights *layer; /* [n_layer] */
    uint64_t copied_bytes; /* weights that had to be copied: input-major ones, vectors, gates */
    uint64_t transposed_bytes; /* of these, input-major expert weights */
    bool plan_only;            /* copies are counted, not made: nothing may be computed */
    struct safetensors *files;
    const struct kernels *kernels;
    struct device *device;
    struct tensor *table; /* storage of all expert arrays */
    void **owned;         /* device allocations */
    size_t n_owned, max_owned;
};

/* Tensors that stand in no file: made where they are wanted. */
struct weight_source {
    const char *name;          /* for messages */
    struct safetensors *files; /* from safetensors_list; weights_generate takes it over */
    /* Writes bytes first .. first + n - 1 of a tensor to host memory; an even number of values
     * stands before `first`. */
    void (*fill)(void *arg, const struct stored *s, size_t first, size_t n, void *to);
    void *arg;
};

/* Maps the checkpoint in `folder` and finds every tensor that the configuration calls for.
 * Errors: a missing, extra or misshapen tensor, or one of a type that cannot be computed with;
 * the sentence has file, tensor, found, wanted. */
pm_status weights_open(struct weights *w, const struct config *c, const char *folder,
                       const struct kernels *k, struct device *d, bool plan_only);
/* The same from a source, straight into the device's memory, a few MiB at a time where that is
 * not the host's. `source` must outlive the call, no more. */
pm_status weights_generate(struct weights *w, const struct config *c,
                           const struct weight_source *source, const struct kernels *k,
                           struct device *d);
void weights_close(struct weights *w);

#endif
