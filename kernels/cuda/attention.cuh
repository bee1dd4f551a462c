/* attention.cuh - what the attention kernels share: the task, the visible span of a row, and
 * the arithmetic of partial softmaxes.
 *
 * A row's attention is one fixed sequence of operations, whatever is computed beside it:
 *
 *   The positions are cut at multiples of SPLIT, counted from the start of the sequence. Within
 *   a split an online softmax walks over tiles of keys, which begin at multiples of their size.
 *   It yields (max, sum, weighted values). Splits are merged in order by merge().
 *
 * A tile or a split of which a row sees nothing changes no bit of it, except that a zero may
 * lose its sign; attention_value() removes the sign. So it does not matter which other tiles
 * the company of a row makes necessary, nor whether one block walks over all splits (prefill)
 * or each has its own (decode) and a second kernel merges them from memory.
 *
 * Logarithms are to base 2: scores are multiplied by scale * log2(e) and exp2f takes the place
 * of expf. Has not run on hardware yet. */
#ifndef KERNELS_CUDA_ATTENTION_CUH
#define KERNELS_CUDA_ATTENTION_CUH

#include <float.h>
#include <math.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/dtype.cuh"

/* A kernel for head sizes up to (k_dim, v_dim). */
struct attend_variant {
    void (*kernel[2])(const struct attend); /* of BF16 and of F16 */
    int wm, wn, tile, k_dim, v_dim;
    bool wgmma; /* sm_90, and keys and values apart */
};

/* attention_sm90.cu: for each size the kernel of many queries a sequence before the one of few;
 * 2 * attend_sm90_sizes of them. Shared memory of a block, bytes. */
extern const struct attend_variant attend_sm90_variants[];
constexpr int attend_sm90_sizes = 2;
size_t attend_sm90_bytes(const struct attend_variant *v, const struct attend *a);

/* Positions in a split. A constant of the arithmetic: another value, other bits. */
constexpr int SPLIT = 256;

constexpr float LOG2_E = 1.4426950408889634f;

/* First position that a row at `position` sees; it sees up to its own. */
GPU_DEV int first_visible(const struct attend &a, int position)
{
    int first = 0;
    if (a.window > 0) first = max(0, position + 1 - a.window);
    if (a.chunk > 0) first = max(first, position / a.chunk * a.chunk);
    return first;
}

/* The sequence of a row of the batch, or -1 for rows after the last sequence. */
GPU_DEV int sequence_of(const struct attention_rows &rows, int row)
{
    int low = 0, high = rows.n_seq - 1;
    if (rows.n_seq == 0 || row >= rows.q_start[rows.n_seq]) return -1;
    while (low < high) {
        int mid = (low + high + 1) / 2;
        if (rows.q_start[mid] <= row) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    return low;
}

/* Where the token at `position` stands in the cache, in rows of k_dim or v_dim values. */
GPU_DEV int64_t cache_row(const struct attend &a, const int32_t *block, int head, int position)
{
    return ((int64_t)block[position / KV_BLOCK] * a.n_kv_head + head) * KV_BLOCK +
           position % KV_BLOCK;
}

/* Factors by which two partial results are added; `max` becomes the larger maximum. Both may be
 * -infinity: nothing seen yet. */
struct merge_factors {
    float keep, add;
};
GPU_DEV struct merge_factors merge(float &max, float other)
{
    float both = fmaxf(max, other), base = both == -INFINITY ? 0 : both;
    struct merge_factors f = {exp2f(max - base), exp2f(other - base)};
    max = both;
    return f;
}

/* x keep + y add, rounded the same wherever it stands. */
GPU_DEV float merged(float x, float y, struct merge_factors f)
{
    return fmaf(x, f.keep, __fmul_rn(y, f.add));
}

/* The factor that ends a softmax of `max` and `sum`: 1 / sum, the sink (one more logit, base e)
 * included. */
GPU_DEV float softmax_end(float max, float sum, const float *sink)
{
    if (!sink) return 1 / sum;
    struct merge_factors f = merge(max, fminf(__fmul_rn(*sink, LOG2_E), FLT_MAX));
    return f.keep / fmaf(sum, f.keep, f.add);
}

/* An output value. What is not finite is NaN: how an infinite sum was put together decides
 * between infinity and NaN, and that must not show. */
GPU_DEV float attention_value(float sum, float factor)
{
    float x = __fmul_rn(sum, factor);
    return fabsf(x) <= FLT_MAX ? __fadd_rn(x, 0.0f) : __uint_as_float(0x7fffffff);
}

/* out[row, col] = value */
GPU_DEV void attention_store(const struct attend &a, int row, int64_t col, float value)
{
    int64_t at = (row - a.row0) * a.out_stride + col;
    if (a.out_narrow) {
        ((uint16_t *)a.out)[at] = bf16_code(value);
    } else {
        ((float *)a.out)[at] = value;
    }
}

/* The partial result of (row, head, split): [v_dim] values, then maximum and sum. */
GPU_DEV float *partial_at(const struct attend &a, int row, int head, int split)
{
    int64_t at = ((int64_t)(row - a.row0) * a.n_head + head) * a.n_split + split;
    return a.part + at * (a.v_dim + 2);
}

#endif
