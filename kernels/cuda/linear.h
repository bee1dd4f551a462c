/* linear.h - the inside of the CUDA linear maps: what the host hands to the kernels.
 *
 *   linear.c             checks an operation, narrows x into scratch, plans, launches
 *   plan.c               which kernel and which tile
 *   linear_f32.cu        F32 weights: multiply-adds
 *   linear_mma.cuh       sm_80 and up: mma.sync for all other types; linear_TYPE.cu
 *   sm90_linear.cuh      sm_90a: wgmma for BF16, F8 and MXFP4; grouped_linear_sm90*.cu
 *
 * All kernels compute y[r] = w[e] x[source(r)] + b[e] or its gated form, see struct linear.
 * Included by C and by CUDA files; structs travel to the kernels by value. */
#ifndef KERNELS_CUDA_LINEAR_H
#define KERNELS_CUDA_LINEAR_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LINEAR_MAX_EXPERT = 1024 };

/* The same matrix [N, K] or vector [N] of every expert: expert e stands `expert_stride` bytes
 * behind expert e - 1, and so do its scales. Distances may be negative; with one expert they
 * are 0. */
struct linear_stack {
    const char *data;      /* of expert 0; NULL: absent */
    const char *scale;     /* of expert 0, as in struct tensor; NULL where the type has none */
    pm_dtype type;         /* weights: any; biases: F32, BF16, F16 */
    int64_t stride;        /* bytes from a row to the next */
    int64_t expert_stride; /* bytes */
    int64_t scale_stride;  /* bytes from a row of scales to the next */
    int64_t scale_expert_stride; /* bytes */
    int64_t scale_row;           /* F8_E4M3: where row 0 of expert 0 stands in the scales */
    int64_t scale_expert_row;    /* F8_E4M3: added for each expert */
};

/* One operation. */
struct linear_params {
    struct linear_stack w, w_up, b, b_up;
    struct glu glu; /* kind GLU_NONE: w_up and b_up are absent */
    const char *x;  /* [x_rows, K], never F32 unless w is F32: see linear_x_type */
    pm_dtype x_type;
    int64_t x_stride; /* bytes; any multiple of the type's size */
    int64_t x_rows;
    char *y;          /* [rows, N] */
    pm_dtype y_type;  /* F32 or BF16 */
    int64_t y_stride; /* bytes; any multiple of the type's size */
    int64_t n, k;     /* N columns of y = rows of w (and of w_up), K */
    int n_expert;
    int64_t max_row;       /* host upper bound of the rows of y */
    const int32_t *offset; /* [E + 1] on the device; NULL: one expert, rows 0 .. max_row - 1 */
    const int32_t *source; /* [max_row] on the device: row of x of a row of y; NULL: itself */
};

/* The type of x that the kernels of a weight type multiply with: F32 for F32 (which also takes
 * BF16), F16 for F16, BF16 for all others. */
pm_dtype linear_x_type(pm_dtype w);

/* Checks the operation and fills *out; x stays as it is in the operation. PM_ERR_ARG or
 * PM_ERR_UNSUPPORTED with a sentence. */
pm_status linear_params_of(struct linear_params *out, const struct linear *op);

/* What linear_plan_of wants to know of p, whose x is what the kernels will read. */
struct linear_shape linear_shape_of(const struct linear_params *p);

/* Enqueues p as planned. x has the type that linear_x_type names. The tests call this with
 * plans of their own; every plan of a kernel gives the same bits where linear_plan_ok admits
 * it. */
pm_status linear_launch(struct device *d, const struct linear_params *p,
                        const struct linear_plan *plan);

/* Whether rows of k weights, and rows of x, may be copied in pieces of 16 bytes. */
bool linear_stack_aligned(const struct linear_stack *w, int64_t k);
bool linear_x_aligned(const struct linear_params *p);

/* Blocks of `threads` threads with `smem` bytes for tiles of this size: as many as there can be
 * tiles, at most as many as the device runs at a time. */
int linear_grid(const struct device *d, const struct linear_params *p, int weight_tile,
                int row_tile, size_t smem, int threads);

/* The kernels. max_row > 0, n > 0. Nothing waits. */
pm_status cuda_linear_f32(struct device *d, const struct linear_params *p,
                          const struct linear_plan *plan);
pm_status cuda_linear_bf16(struct device *d, const struct linear_params *p,
                           const struct linear_plan *plan);
pm_status cuda_linear_f16(struct device *d, const struct linear_params *p,
                          const struct linear_plan *plan);
pm_status cuda_linear_f8(struct device *d, const struct linear_params *p,
                         const struct linear_plan *plan);
pm_status cuda_linear_mxfp4(struct device *d, const struct linear_params *p,
                            const struct linear_plan *plan);
/* w is BF16, F8_E4M3 or MXFP4, x is BF16; w, w_up, x, all their distances and the bytes of a
 * row are multiples of 16. Scales may stand anywhere. */
pm_status cuda_grouped_linear_sm90(struct device *d, const struct linear_params *p,
                                   const struct linear_plan *plan);

/* to[r] = from[r] in type `to_type` for r < rows, with zeros from k to the multiple of 8 above;
 * F32 -> BF16, F32 -> F16, BF16 -> F16. Rounds to nearest even; F16 saturates at 65504, NaN
 * stays NaN. to_stride is a multiple of 16 bytes. */
pm_status cuda_convert_rows(struct device *d, void *to, pm_dtype to_type, int64_t to_stride,
                            const void *from, pm_dtype from_type, int64_t from_stride,
                            int64_t rows, int64_t k);

#ifdef __cplusplus
}
#endif

#endif
