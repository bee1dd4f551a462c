/* synth_tensors.h - which tensors a checkpoint has, in the layout of released ones. */
#ifndef MOE_SYNTH_TENSORS_H
#define MOE_SYNTH_TENSORS_H

#include "config.h"

struct synth_tensor {
    const char *name; /* borrowed until the call returns */
    pm_dtype type;    /* of the values; PM_MXFP4: stored as bytes of two values */
    int n_dim;
    int64_t dim[4]; /* as stored */
    double mean, std;
};

/* How many values it has and how many bytes they take. PM_ERR_ARG where that does not fit. */
pm_status synth_tensor_size(const struct synth_tensor *t, int64_t *n, uint64_t *bytes);

typedef pm_status synth_each(void *arg, const struct synth_tensor *tensor);

/* Calls each(arg, tensor) for every tensor of the model in a fixed order; a failure of each
 * ends the walk. `plain` is the type of what c->quant leaves alone. Names begin with `prefix`.
 * PM_ERR_UNSUPPORTED where the family has no released layout of this quantisation. */
pm_status synth_walk(const struct config *c, pm_dtype plain, const char *prefix,
                     synth_each *each, void *arg);

#endif
