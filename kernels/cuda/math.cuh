/* math.cuh - sums, maxima and rows of values, the way every kernel takes them.
 *
 * A reduction has one order that follows from the number of threads alone: each thread its own
 * values, then a butterfly over the lanes of a warp, then the warps one after the other. A
 * butterfly adds the same two numbers in both partners, so all lanes hold the same bits.
 *
 * Rows are read and written in groups of 4 or 8 values. A group has the same owner whether its
 * row stands at a round address or not; only the width of the accesses differs, and so a row's
 * bits do not depend on where it stands. Has not run on hardware yet. */
#ifndef KERNELS_CUDA_MATH_CUH
#define KERNELS_CUDA_MATH_CUH

#include "kernels/cuda/dtype.cuh"

enum { WARP = 32 };

#define ALL_LANES 0xffffffffu

GPU_DEV float warp_sum(float v)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        v += __shfl_xor_sync(ALL_LANES, v, step);
    }
    return v;
}

GPU_DEV float warp_max(float v)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, step));
    }
    return v;
}

/* The sum over the threads of a block of n_warp whole warps, the same bits in all of them.
 * part [n_warp] is shared memory; it may be used again after another barrier. */
GPU_DEV float block_sum(float v, float *part, int n_warp)
{
    float sum = 0;
    v = warp_sum(v);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = v;
    __syncthreads();
    for (int w = 0; w < n_warp; w++) {
        sum += part[w];
    }
    return sum;
}

GPU_DEV float sigmoid(float v)
{
    return 1 / (1 + expf(-v));
}

GPU_DEV char *tensor_row(const struct tensor &t, int64_t row)
{
    return (char *)t.data + row * t.stride;
}

/* Values at .. at + V - 1 of a row of n, F32 or BF16; 0 past the end. round: the row stands at
 * a multiple of 16 bytes. */
template <int V>
GPU_DEV void load_values(float (&out)[V], const char *row, pm_dtype type, int64_t at, int64_t n,
                         bool round)
{
    const uint16_t *half = (const uint16_t *)row + at;
    const float *full = (const float *)row + at;
    if (!round || at + V > n) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            out[i] = at + i >= n ? 0 : type == PM_F32 ? full[i] : bf16_value(half[i]);
        }
    } else if (type == PM_F32) {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            float4 four = *(const float4 *)(full + i);
            out[i] = four.x, out[i + 1] = four.y, out[i + 2] = four.z, out[i + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            uint2 four = *(const uint2 *)(half + i);
            out[i] = bf16_value((uint16_t)four.x), out[i + 1] = bf16_value(four.x >> 16);
            out[i + 2] = bf16_value((uint16_t)four.y), out[i + 3] = bf16_value(four.y >> 16);
        }
    }
}

/* Writes what load_values reads; values past the end are left out. */
template <int V>
GPU_DEV void store_values(char *row, const float (&v)[V], pm_dtype type, int64_t at, int64_t n,
                          bool round)
{
    uint16_t *half = (uint16_t *)row + at;
    float *full = (float *)row + at;
    if (!round || at + V > n) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            if (at + i >= n) break;
            if (type == PM_F32) {
                full[i] = v[i];
            } else {
                half[i] = bf16_code(v[i]);
            }
        }
    } else if (type == PM_F32) {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            *(float4 *)(full + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            *(uint2 *)(half + i) =
                make_uint2(bf16_pair(v[i], v[i + 1]), bf16_pair(v[i + 2], v[i + 3]));
        }
    }
}

/* ------------------------------------------------------------------ host */

/* All rows of t stand at multiples of 16 bytes. */
static inline bool rows_are_round(const struct tensor &t)
{
    return ((uintptr_t)t.data | (uintptr_t)t.stride) % 16 == 0;
}

static inline bool is_activation(pm_dtype type)
{
    return type == PM_F32 || type == PM_BF16;
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* A block for rows of n groups of values: whole warps, at most 256 threads. */
static inline unsigned row_threads(int64_t n_group)
{
    return (unsigned)(min_i64(ceil_div(max_i64(n_group, 1), WARP), 8) * WARP);
}

/* One block per row in x; y covers the groups of a row. */
static inline dim3 row_grid(int64_t rows, int64_t n_group)
{
    return dim3((unsigned)rows, (unsigned)ceil_div(n_group, row_threads(n_group)));
}

#endif
