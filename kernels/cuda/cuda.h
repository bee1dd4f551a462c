/* cuda.h - the inside of the CUDA backend: what a device holds, and the operations that the
 * table in device.c lists. Contracts stand in kernels.h. Included by C and by CUDA files. */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

struct device {
    int index;           /* as CUDA counts */
    int sm;              /* compute capability: 80, 90, ... */
    int n_sm;            /* multiprocessors */
    size_t smem_block;   /* most dynamic shared memory of a block, after opt-in */
    cudaStream_t stream; /* where operations are enqueued: `own`, or the caller's */
    cudaStream_t own;
    void *scratch; /* of the running operation: operations follow each other on the stream */
    size_t scratch_bytes;
    char *staging;     /* page-locked memory through which uploads go */
    size_t staged;     /* bytes of it that copies may still read */
    uint32_t *barrier; /* [2] of kernels whose blocks wait for each other, see sort.cuh */
    void *nvml; /* what clock.c keeps open; NULL before it is wanted, and where it is not */
    char text[128];
};

/* PM_OK, or PM_ERR_DEVICE with "cuda: <what>: <CUDA's words>". */
pm_status cuda_check(cudaError_t error, const char *what);

/* The scratch memory of an operation; PM_ERR_BUG where `bytes` were not reserved. 256-byte
 * aligned. What an operation needs at most is the sum of its cuda_*_scratch function. */
pm_status cuda_scratch(struct device *d, void *out, size_t bytes, const char *what);

/* Most bytes of scratch a step of n_row rows (after top-k expansion) of n_col values over n_kv
 * tokens takes. */
size_t cuda_linear_scratch(const struct device *d, int64_t n_row, int64_t n_col);
size_t cuda_attention_scratch(const struct device *d, int64_t n_row, int64_t n_col,
                              int64_t n_kv);
size_t cuda_gate_scratch(const struct device *d, int64_t n_row);

/* peaks.cu */
pm_status cuda_measure(struct device *d, int which, struct peaks *out);

/* clock.c */
pm_status cuda_mark_new(struct device *d, void **mark);
pm_status cuda_mark_set(struct device *d, void *mark);
pm_status cuda_mark_us(struct device *d, double *us, void *from, void *to);
void cuda_mark_free(struct device *d, void *mark);
void cuda_facts(struct device *d, struct device_facts *out);
void cuda_facts_close(struct device *d);

/* rows.cu */
pm_status cuda_embed(struct device *d, struct tensor y, const struct tensor *table,
                     const int32_t *id, float scale);
pm_status cuda_norm(struct device *d, struct tensor y, struct tensor x, enum norm_kind kind,
                    const struct tensor *w, const struct tensor *b, float eps);
pm_status cuda_clamp(struct device *d, struct tensor x, float limit);
pm_status cuda_scale(struct device *d, struct tensor x, float factor);
pm_status cuda_scale_rows(struct device *d, struct tensor x, const float *factor);
pm_status cuda_add(struct device *d, struct tensor x, struct tensor y, float factor);
pm_status cuda_gate_rows(struct device *d, struct tensor y, struct tensor g);

/* rope.cu */
pm_status cuda_rope_table(struct device *d, float *cosine, float *sine, const int32_t *position,
                          int n_row, const float *inv_freq, int n, float factor);
pm_status cuda_rope(struct device *d, struct tensor x, int n_head, int offset,
                    const float *cosine, const float *sine, int n, bool interleaved);

/* attention.cu, attention_mla.cu */
pm_status cuda_kv_write(struct device *d, const struct kv_layer *kv, struct tensor k,
                        struct tensor v, const struct attention_rows *rows);
pm_status cuda_attention(struct device *d, const struct attention *op);
pm_status cuda_attention_mla(struct device *d, const struct attention_mla *op);

/* gate.cu, permute.cu */
pm_status cuda_gate_topk(struct device *d, const struct gate *gate, struct tensor logits,
                         const float *bias, const struct routing *out);
pm_status cuda_permute(struct device *d, const struct gate *gate, int n_row,
                       const struct routing *routing);
pm_status cuda_permute_scaled(struct device *d, const struct gate *gate, struct tensor y,
                              struct tensor x, const struct routing *routing);
pm_status cuda_unpermute(struct device *d, const struct gate *gate, struct tensor y,
                         struct tensor x, const struct routing *routing, float factor);

/* linear.c */
pm_status cuda_check_linear(const struct linear *op);
pm_status cuda_linear(struct device *d, const struct linear *op, int n_op);

#ifdef __cplusplus
}
#endif

#endif
