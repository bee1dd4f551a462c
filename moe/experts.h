/* experts.h - the routed experts of one layer: rows and their routing in, weighted sum out. */
#ifndef MOE_EXPERTS_H
#define MOE_EXPERTS_H

#include "kernels/kernels.h"

/* A layer's experts. Each list is [E]; a list of biases is NULL where there are none. */
struct experts {
    struct gate gate; /* with this layer's own top_k */
    struct glu glu;
    const struct tensor *w_gate, *w_up, *w_down; /* [F, D], [F, D], [D, F] of any weight type */
    const struct tensor *b_gate, *b_up, *b_down; /* [F], [F], [D] */
    bool checked; /* experts_check has accepted them, and they have not changed since */
};

/* Device arrays for one forward of up to T rows. */
struct experts_room {
    void *inner;   /* [T K, F] */
    void *out;     /* [T K, D] */
    void *scaled;  /* [T K, D] only where gate.scale_input */
    pm_dtype type; /* of the three: F32 or the backend's narrow type */
    struct routing routing;
};

/* Whether the backend takes these weights; so that a step need not ask. PM_ERR_ARG or
 * PM_ERR_UNSUPPORTED with the sentence that experts_forward would give. */
pm_status experts_check(const struct kernels *k, const struct experts *e);

/* y += factor * sum over k of weight[k] * expert[id[k]](x), k ascending; with gate.scale_input
 * the weights multiply x instead. y is F32 [T, D], x is F32 or narrow [T, D] and may not
 * overlap y. room->routing is complete, as gate_topk or permute of kernels.h leave it. Enqueues
 * only. PM_ERR_ARG where a weight does not fit. */
pm_status experts_forward(const struct kernels *k, struct device *d, const struct experts *e,
                          const struct experts_room *room, struct tensor y, struct tensor x,
                          float factor);

#endif
