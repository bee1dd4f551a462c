/* plan.h - which kernel computes a linear map and with which tile: a pure function of the
 * device and the shape. Which kernel follows from what stays the same in a model; the tile,
 * which follows the rows, decides about speed only: every tile of a kernel gives the same bits.
 */
#ifndef KERNELS_CUDA_PLAN_H
#define KERNELS_CUDA_PLAN_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Host and device compute these alike. */
#ifdef __cplusplus
#define PLAN_CONST constexpr
#else
#define PLAN_CONST static inline
#endif

/* LINEAR_MMA: bytes of 64 weights as stored, 0 for types that it has not. */
PLAN_CONST int linear_mma_raw(pm_dtype type)
{
    return type == PM_BF16 || type == PM_F16 ? 128
           : type == PM_F8_E4M3              ? 64
           : type == PM_MXFP4                ? 32
                                             : 0;
}

/* LINEAR_MMA: stages of 64 k on the way. At least 48 KiB of them on a multiprocessor hide the
 * memory's latency, and two blocks of any tile but the largest fit one of sm_80. */
PLAN_CONST int linear_mma_stages(int weight_tile, int row_tile)
{
    return weight_tile == 16 ? 8 : weight_tile == 64 ? 6 : row_tile == 32 ? 4 : 3;
}

/* LINEAR_MMA: dynamic shared memory of a block, bytes. */
PLAN_CONST size_t linear_mma_smem(pm_dtype type, int weight_tile, int row_tile, int n_expert)
{
    int raw = linear_mma_raw(type), stages = linear_mma_stages(weight_tile, row_tile);
    int wide = raw < 128 ? weight_tile * 128 : 0;
    return (size_t)(stages * (weight_tile * raw + row_tile * 128) + wide) +
           ((size_t)n_expert + 1) * sizeof(int) + 256;
}

/* LINEAR_SM90: most rows of x in a tile. Sums of a block of F8_E4M3 take their registers. */
PLAN_CONST int linear_sm90_rows(pm_dtype type)
{
    return type == PM_F8_E4M3 ? 96 : 128;
}

/* What the device can do. */
struct linear_machine {
    int sm;            /* compute capability: 80, 90, ... */
    int n_sm;          /* multiprocessors */
    size_t smem_block; /* most dynamic shared memory of a block, after opt-in */
};

/* A linear map as far as the choice depends on it. */
struct linear_shape {
    pm_dtype type;   /* of the weights */
    bool glu;        /* two weights */
    bool aligned;    /* w, w_up, x, their distances and rows: multiples of 16 bytes */
    int n_expert;    /* 1: dense */
    int64_t n, k;    /* N, K */
    int64_t max_row; /* upper bound of the rows, over all experts */
};

enum linear_kernel {
    LINEAR_F32,  /* multiply-adds of F32 */
    LINEAR_MMA,  /* mma.sync, sm_80 and up */
    LINEAR_SM90, /* wgmma, sm_90 */
};

struct linear_plan {
    enum linear_kernel kernel;
    int weight_tile;    /* rows of weights in a block's tile, those of w_up included */
    int row_tile;       /* rows of x in a block's tile; LINEAR_SM90: a wish */
    const char *reason; /* one sentence, constant */
};

/* The plan for a shape on a machine; max_row may be 0. */
struct linear_plan linear_plan_of(const struct linear_machine *m, const struct linear_shape *s);

/* Whether there is such a kernel and the machine and the shape admit it. */
bool linear_plan_ok(const struct linear_machine *m, const struct linear_shape *s,
                    const struct linear_plan *plan);

/* All tiles of LINEAR_MMA and of LINEAR_F32, by row_tile and then weight_tile; *n of them. */
struct linear_tile {
    int weight_tile, row_tile;
};
const struct linear_tile *linear_mma_tiles(int *n);
const struct linear_tile *linear_f32_tiles(int *n);

/* "mma", "wgmma", ... */
const char *linear_kernel_name(enum linear_kernel kernel);

#ifdef __cplusplus
}
#endif

#endif
