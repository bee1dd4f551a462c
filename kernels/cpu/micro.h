/* micro.h - what the CPU backend needs from an instruction set: one table per set.
 *
 * A table has two halves: for every weight type, the function that computes a tile of a linear
 * map; and vector helpers for the other operations.
 *
 * Every function gives an element of its result by a fixed sequence of operations that depends
 * on that element's inputs and on the length of the reduction only: not on alignment, not on
 * the number of rows in the call and not on the place of the element. Tables differ from each
 * other in the last bits. No pointer needs alignment unless stated. */
#ifndef KERNELS_CPU_MICRO_H
#define KERNELS_CPU_MICRO_H

#include "kernels/kernels.h"

enum {
    MICRO_ROWS = 8,          /* weight rows of a tile, */
    MICRO_PACKED_ROWS = 128, /* of one that takes packed rows of x, */
    MICRO_PACKED_GROUP = 32, /* best a multiple of this, */
    MICRO_PACKED_X = 256,    /* and so many of them at most */
    MICRO_PACKED_STEP = 32,  /* values to whose multiple they are filled up with zeros */
    MICRO_MIX_DIM = 16,      /* see struct mix */
    MICRO_K = 768,           /* most values of K that a vector tile widens at a time */
    MICRO_ROOM = 17 << 10,   /* floats: widened weights, sums */
    MICRO_ALIGNMENT = 64,    /* of rooms and of rows of converted activations */
    F8_BLOCK = 128,          /* a scale of F8_E4M3 covers 128 x 128 values */
    MXFP4_BLOCK = 32,        /* a scale of MXFP4 covers 32 values of a row */
};

/* y[i, j] = sum over k of w[j][k] x[i][k], for j < n_w and i < n_x. */
struct tile {
    int n_w;   /* 1 .. micro_rows(map) */
    int n_x;   /* >= 0 */
    int64_t k; /* > 0; MXFP4: a multiple of MXFP4_BLOCK */
    /* [k] as stored; the last repeats after n_w. Where x is packed, at equal distances in each
     * sixteen. */
    const void *w[MICRO_PACKED_ROWS];
    const void *w_scale[MICRO_PACKED_ROWS]; /* F8_E4M3, MXFP4: each row's scales, as stored */
    const void *const *x;                   /* [n_x] rows [k] of the map's x_type, or */
    const void *packed;                     /* what the map's `pack` made of them */
    float *y;                               /* [n_x, n_w] */
    int64_t y_stride;                       /* floats from a row of y to the next */
    float *room;                            /* [MICRO_ROOM] aligned */
    /* What to bring closer meanwhile: weight rows, or next[0] NULL. */
    const char *next[MICRO_ROWS];
    int64_t next_bytes; /* bytes in each of them */
    /* Where x is packed: so many rows, or 0, from `ahead` on, or NULL, and on behalf of the
     * next MICRO_PACKED_GROUP also of the tile's own. */
    const char *ahead;
    int ahead_rows;
    int64_t ahead_bytes, ahead_stride;
};

/* How weights of one type are multiplied. */
struct micro_map {
    pm_dtype x_type; /* F32 or BF16: what activations are converted to, nearest even */
    void (*tile)(const struct tile *tile); /* NULL: not a weight type */
    /* NULL: the tile takes rows. Else n_x <= MICRO_PACKED_X rows [k] as the tile wants them, in
     * micro_packed_bytes(n_x, k) bytes, aligned. */
    void (*pack)(void *to, const float *const *x, int n_x, int64_t k);
};

static inline int micro_rows(const struct micro_map *map)
{
    return map->pack ? MICRO_PACKED_ROWS : MICRO_ROWS;
}

static inline int64_t micro_packed_bytes(int64_t n_x, int64_t k)
{
    k = (k + MICRO_PACKED_STEP - 1) / MICRO_PACKED_STEP * MICRO_PACKED_STEP;
    return n_x * k * (int64_t)sizeof(uint16_t);
}

/* y[q][i] += p[q][j] v[j][i], j in order, for q < n_query, j < n_row, i < dim. */
struct values {
    int n_query, n_row;
    int64_t dim, v_stride; /* v_stride in bytes */
    float *const *y;       /* [n_query] rows [dim] */
    const float *const *p; /* [n_query] rows [n_row] */
    const void *v;         /* n_row rows [dim] of the function's type */
};

/* sum[q][i] += weight[q][j] v[j][i] for q < n_query, 32 rows v in each panel, panel after
 * panel, i < dim, which is v's filled up to a multiple of MICRO_MIX_DIM. */
struct mix {
    int n_query, n_panel;
    int64_t dim;
    const uint16_t *weight; /* [n_query, 32 n_panel] bf16 */
    int64_t weight_stride;  /* values */
    const void *panels;     /* [n_panel] as mix_pack makes them, of 32 * dim bf16 each */
    float *sum;             /* [n_query, dim] */
    int64_t sum_stride;     /* floats */
};

struct micro {
    const char *name;
    bool (*available)(void); /* on this processor */

    struct micro_map map[PM_DTYPE_COUNT];

    /* sum of a[i] * b[i]; axpy: y += a * x. bf16 and f16 vectors are widened exactly. */
    float (*dot_f32)(const float *a, const float *b, int64_t n);
    float (*dot_bf16)(const float *a, const uint16_t *b, int64_t n);
    float (*dot_f16)(const float *a, const uint16_t *b, int64_t n);
    void (*axpy_f32)(float *y, float a, const float *x, int64_t n);
    void (*axpy_bf16)(float *y, float a, const uint16_t *x, int64_t n);
    void (*axpy_f16)(float *y, float a, const uint16_t *x, int64_t n);
    void (*values[PM_DTYPE_COUNT])(const struct values *); /* F32, F16, BF16; else NULL */
    /* The same with products of bf16, or NULL. mix_pack: 32 bf16 rows [dim], NULL for zeros, to
     * an aligned panel. */
    void (*mix_pack)(void *panel, const void *const *v, int64_t dim);
    void (*mix)(const struct mix *);
    float (*sum_squares)(const float *x, int64_t n);
    float (*max)(const float *x, int64_t n); /* -INFINITY for n = 0 */
    /* x[i] = exp(x[i] - max), at most 2 ulp from exact; returns the sum. -INFINITY gives 0. */
    float (*exp_sum)(float *x, int64_t n, float max);
    /* y[i] = glu(gate[i], up[i]); y may be gate or up. glu->kind is not GLU_NONE. */
    void (*glu)(float *y, const float *gate, const float *up, int64_t n, const struct glu *glu);
    /* Nearest even; NaN stays NaN. */
    void (*to_bf16)(uint16_t *y, const float *x, int64_t n);
    void (*to_f16)(uint16_t *y, const float *x, int64_t n);
    void (*from_bf16)(float *y, const uint16_t *x, int64_t n);
    void (*from_f16)(float *y, const uint16_t *x, int64_t n);

    /* Copies a multiple of 64 bytes to an aligned address past the caches. */
    void (*stream_copy)(void *to, const void *from, size_t bytes);

    /* For peaks.c: read `bytes` (a multiple of 4096) and return something of all of them; do n
     * rounds of independent multiply-adds and return their flops. */
    uint64_t (*stream_read)(const void *from, size_t bytes);
    double (*peak_f32)(int64_t n);
    double (*peak_bf16)(int64_t n); /* NULL: no such instruction */
};

/* The fastest table that this processor can run, or the one called `name` (generic, avx2,
 * avx512, avx512bf16, amx). PM_ERR_ARG for an unknown name, PM_ERR_UNSUPPORTED when the
 * processor cannot run it. */
pm_status micro_select(const struct micro **out, const char *name);

extern const struct micro micro_generic;
#if defined(__x86_64__)
extern const struct micro micro_avx2;
extern const struct micro micro_avx512;     /* F, BW, VL, DQ */
extern const struct micro micro_avx512bf16; /* and BF16 */
extern const struct micro micro_amx;        /* and AMX-BF16 */
#endif

#endif
