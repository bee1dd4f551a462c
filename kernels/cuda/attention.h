/* attention.h - attention over the paged cache as plain and latent attention share it. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows row0 .. row1 - 1 of the batch. q and out begin with row0. Values stand in `v`, v_stride
 * values from a token to the next; latent attention has v = k and v_stride = k_dim. */
struct attend {
    const float *q;   /* [row1 - row0, H * k_dim] */
    int64_t q_stride; /* values from a row to the next; so is out_stride */
    void *out;        /* F32 or BF16 [row1 - row0, H * v_dim] */
    int64_t out_stride;
    bool out_narrow; /* out is BF16 */
    const void *k, *v;
    int n_kv_head, k_dim, v_dim, v_stride;
    int n_head;
    int row0, row1;
    struct attention_rows rows;
    float scale; /* of the scores, to base 2 */
    int window, chunk;
    const float *sink; /* [H] or NULL */
    float *part;       /* scratch for partial results, or NULL: see attention.cuh */
    size_t part_bytes; /* how much of it there is */
    int n_split;       /* splits of the longest sequence: set by cuda_attend */
};

/* Enqueues it for a cache of `type`. PM_ERR_UNSUPPORTED where v_dim is above 512. */
pm_status cuda_attend(struct device *d, struct attend *a, pm_dtype type);

#ifdef __cplusplus
}
#endif

#endif
