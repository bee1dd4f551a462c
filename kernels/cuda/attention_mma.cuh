/* attention_mma.cuh - attention with mma.sync (sm_80 and up) over F16 and BF16 caches.
 *
 * A block computes BM = 16 WM queries of one KV head: the tokens of one sequence times the
 * heads of the group, tokens first, so that a decoded token fills the 16 rows of a tile with
 * its heads. Tiles of TILE keys and values come by cp.async through the block table, one tile
 * ahead. WM x WN warps: a warp has 16 queries; with WN > 1 the warps of the same queries share
 * the scores' columns and then the values' columns, and exchange maxima and weights through
 * shared memory.
 *
 * Precision. Queries and weights are float32, keys and values are as cached. Tensor cores
 * multiply two narrow numbers, so each float is given as the sum of two of the cache's type,
 * high and low: 16 bits of significand for BF16, 22 for F16, instead of 8 and 11. It doubles
 * the products; decode waits for memory anyway. F16 queries are scaled by a power of two so
 * that their largest value is near 2^13, since F16 has few exponents. The sum of the weights is
 * one more product, with a column of ones, so that numerator and denominator are rounded alike.
 *
 * A tile that some rows of the block see in part is "ragged". There a value that is not finite
 * must not meet the weight 0 of a row that does not see it: such values are taken out of the
 * tile, and added to the rows that see them afterwards (repair). What no row of the block sees
 * is never read: it is zero in shared memory.
 *
 * Bytes: a decoded token reads its sequence's keys and values once a KV head. Flops: 4 (k_dim +
 * v_dim) a query and key, the two halves counted. Has not run on hardware yet. */
#ifndef KERNELS_CUDA_ATTENTION_MMA_CUH
#define KERNELS_CUDA_ATTENTION_MMA_CUH

#include "kernels/cuda/attention.cuh"

/* A query of the block. */
struct query_row {
    int row;        /* of the batch; -1: none */
    int head;       /* query head */
    int first, end; /* visible positions */
    float scale;    /* of its scores */
};

/* What holds for all queries of a block. */
struct query_span {
    const int32_t *block; /* its sequence's block table */
    int kv_head;
    int first, end;         /* positions that some query sees */
    int all_first, all_end; /* positions that every query sees */
};

/* Values from a row of a shared tile to the next: 16 bytes times an odd number, so that the
 * eight rows of ldmatrix fall in different banks. */
GPU_DEV constexpr int tile_stride(int n, int unit)
{
    return (n + unit - 1) / unit * unit + 8;
}
constexpr int K_UNIT = 32, V_UNIT = 16;

/* Where value `col` of row `row` stands in a tile: in rows of `stride` values, or, swizzled, in
 * panels of 64 columns whose `stride` rows have 128 bytes (attention_sm90.cu). */
template <bool SWIZZLED> GPU_DEV int tile_at(int row, int col, int stride)
{
    if (!SWIZZLED) return row * stride + col;
    return col / 64 * stride * 64 + (int)swizzle_128((uint32_t)row, (uint32_t)col % 64 * 2) / 2;
}

/* Shared memory of a block, in the order of smem_take. */
template <int WM, int WN, int TILE> struct block_memory {
    uint16_t *q[2];        /* [BM, k stride] high and low */
    uint16_t *k;           /* [2, TILE, k stride] */
    uint16_t *v;           /* [2, TILE, v stride]; with v = k the same as k */
    uint16_t *p[2];        /* [BM, TILE + 8] weights, high and low (WN > 1) */
    float *max;            /* [WN, BM] (WN > 1) */
    struct query_row *row; /* [BM] */
    int *broken;           /* the tile whose values were repaired last */
    int k_stride, v_stride;
};

static inline size_t block_memory_bytes(int wm, int wn, int tile, int k_dim, int v_dim,
                                        bool shared)
{
    int bm = 16 * wm, ks = (k_dim + K_UNIT - 1) / K_UNIT * K_UNIT + 8;
    int vs = (v_dim + V_UNIT - 1) / V_UNIT * V_UNIT + 8;
    size_t bytes = 2 * GPU_SMEM_BYTES(uint16_t, (size_t)(bm * ks)) +
                   GPU_SMEM_BYTES(uint16_t, (size_t)(2 * tile * ks)) +
                   GPU_SMEM_BYTES(struct query_row, (size_t)bm) + GPU_SMEM_BYTES(int, 1);
    if (!shared) bytes += GPU_SMEM_BYTES(uint16_t, (size_t)(2 * tile * vs));
    if (wn > 1) {
        bytes += 2 * GPU_SMEM_BYTES(uint16_t, (size_t)(bm * (tile + 8))) +
                 GPU_SMEM_BYTES(float, (size_t)(wn * bm));
    }
    return bytes;
}

template <int WM, int WN, int TILE>
GPU_DEV void take_memory(struct block_memory<WM, WN, TILE> &m, unsigned char *at,
                         const struct attend &a)
{
    constexpr int BM = 16 * WM;
    m.k_stride = tile_stride(a.k_dim, K_UNIT);
    m.v_stride = a.v == a.k ? m.k_stride : tile_stride(a.v_dim, V_UNIT);
    m.q[0] = smem_take<uint16_t>(at, (size_t)(BM * m.k_stride));
    m.q[1] = smem_take<uint16_t>(at, (size_t)(BM * m.k_stride));
    m.k = smem_take<uint16_t>(at, (size_t)(2 * TILE * m.k_stride));
    m.v = a.v == a.k ? m.k : smem_take<uint16_t>(at, (size_t)(2 * TILE * m.v_stride));
    m.row = smem_take<struct query_row>(at, (size_t)BM);
    m.broken = smem_take<int>(at, 1);
    if constexpr (WN > 1) {
        m.p[0] = smem_take<uint16_t>(at, (size_t)(BM * (TILE + 8)));
        m.p[1] = smem_take<uint16_t>(at, (size_t)(BM * (TILE + 8)));
        m.max = smem_take<float>(at, (size_t)(WN * BM));
    }
}

/* ------------------------------------------------------------------ narrow numbers */

template <bool F16> GPU_DEV uint32_t narrow_pair(float low, float high)
{
    if constexpr (F16) {
        __half2 v = __floats2half2_rn(low, high);
        return __half_as_ushort(v.x) | (uint32_t)__half_as_ushort(v.y) << 16;
    } else {
        __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
        return __bfloat16_as_ushort(v.x) | (uint32_t)__bfloat16_as_ushort(v.y) << 16;
    }
}

template <bool F16> GPU_DEV float narrow_value(uint32_t code)
{
    if constexpr (F16) {
        return f16_value((uint16_t)code);
    } else {
        return bf16_value((uint16_t)code);
    }
}

/* Two floats as two pairs, high and low. */
template <bool F16> GPU_DEV void narrow_halves(uint32_t &high, uint32_t &low, float x, float y)
{
    high = narrow_pair<F16>(x, y);
    low = narrow_pair<F16>(x - narrow_value<F16>(high & 0xffff),
                           y - narrow_value<F16>(high >> 16));
}

template <bool F16>
GPU_DEV void narrow_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if constexpr (F16) {
        mma_f16_16816(d, a, b0, b1);
    } else {
        mma_bf16_16816(d, a, b0, b1);
    }
}

template <bool F16> GPU_DEV bool narrow_finite(uint32_t code)
{
    uint32_t exponent = F16 ? 0x7c00 : 0x7f80;
    return (code & exponent) != exponent;
}

/* ------------------------------------------------------------------ the block's queries */

/* Which sequence and which BM of its queries block `index` has; false: none. Every warp works
 * it out. Sequences are clipped to the rows of the task. */
template <int BM>
GPU_DEV bool find_queries(const struct attend &a, int index, int &seq, int &tile, int &start,
                          int &end)
{
    int group = a.n_head / a.n_kv_head, lane = threadIdx.x % 32;
    for (int base = 0; base < a.rows.n_seq; base += 32) {
        int s = base + lane, from = 0, to = 0;
        if (s < a.rows.n_seq) {
            from = max(a.rows.q_start[s], a.row0);
            to = min(a.rows.q_start[s + 1], a.row1);
        }
        int n = to > from ? (int)(((int64_t)(to - from) * group + BM - 1) / BM) : 0, sum = n;
        for (int i = 1; i < 32; i *= 2) {
            int below = __shfl_up_sync(~0u, sum, i);
            if (lane >= i) sum += below;
        }
        unsigned past = __ballot_sync(~0u, sum > index);
        if (past) {
            int at = __ffs((int)past) - 1;
            seq = base + at;
            tile = index - __shfl_sync(~0u, sum - n, at);
            start = __shfl_sync(~0u, from, at);
            end = __shfl_sync(~0u, to, at);
            return true;
        }
        index -= __shfl_sync(~0u, sum, 31);
    }
    return false;
}

/* Fills row [BM] and the span. */
template <int BM>
GPU_DEV void describe_queries(const struct attend &a, struct query_row *row, int tile,
                              int start, int end, struct query_span &span)
{
    int group = a.n_head / a.n_kv_head, lane = threadIdx.x % 32;
    for (int i = threadIdx.x; i < BM; i += blockDim.x) {
        int64_t at = (int64_t)tile * BM + i;
        int64_t r = start + at / group;
        struct query_row q = {-1, span.kv_head * group + (int)(at % group), 0, 0, 0};
        if (r < end && a.rows.slot[r] >= 0) {
            q.row = (int)r;
            q.end = a.rows.position[r] + 1;
            q.first = first_visible(a, q.end - 1);
        }
        row[i] = q;
    }
    __syncthreads();
    span.first = span.all_end = 0x7fffffff;
    span.end = span.all_first = 0;
    for (int i = lane; i < BM; i += 32) {
        if (row[i].row < 0) continue;
        span.first = min(span.first, row[i].first);
        span.end = max(span.end, row[i].end);
        span.all_first = max(span.all_first, row[i].first);
        span.all_end = min(span.all_end, row[i].end);
    }
    for (int i = 16; i > 0; i /= 2) {
        span.first = min(span.first, __shfl_xor_sync(~0u, span.first, i));
        span.end = max(span.end, __shfl_xor_sync(~0u, span.end, i));
        span.all_first = max(span.all_first, __shfl_xor_sync(~0u, span.all_first, i));
        span.all_end = min(span.all_end, __shfl_xor_sync(~0u, span.all_end, i));
    }
}

/* The power of two that brings `most` near 2^13, as the bits of its exponent. */
GPU_DEV int query_exponent(float most)
{
    int exponent = 13 + 127 - (int)(__float_as_uint(most) >> 23 & 255);
    return most == 0 ? 0 : min(126, max(-126, exponent));
}

/* The queries into shared memory as high and low parts, a warp a row, with zeros up to `cols`;
 * sets their scales. */
template <bool F16, int BM, int N_WARP, bool SWIZZLED>
GPU_DEV void load_queries(const struct attend &a, uint16_t *const (&to)[2], int stride,
                          int cols, struct query_row *row)
{
    int lane = threadIdx.x % 32;
    for (int i = threadIdx.x / 32; i < BM; i += N_WARP) {
        bool some = row[i].row >= 0;
        const float *q = a.q + (some ? (row[i].row - a.row0) * a.q_stride : 0) +
                         (int64_t)row[i].head * a.k_dim;
        int exponent = 0;
        if (F16) {
            float most = 0;
            for (int c = lane; some && c < a.k_dim; c += 32) {
                most = fmaxf(most, fabsf(q[c]));
            }
            for (int j = 16; j > 0; j /= 2) {
                most = fmaxf(most, __shfl_xor_sync(~0u, most, j));
            }
            exponent = query_exponent(most);
        }
        float factor = __uint_as_float((uint32_t)(127 + exponent) << 23);
        for (int c = 2 * lane; c < cols; c += 64) {
            int at = tile_at<SWIZZLED>(i, c, stride);
            float x = some && c < a.k_dim ? __fmul_rn(q[c], factor) : 0;
            float y = some && c + 1 < a.k_dim ? __fmul_rn(q[c + 1], factor) : 0;
            narrow_halves<F16>(*(uint32_t *)(to[0] + at), *(uint32_t *)(to[1] + at), x, y);
        }
        if (lane == 0) {
            float undo = __uint_as_float((uint32_t)(127 - exponent) << 23);
            row[i].scale = __fmul_rn(a.scale, undo);
        }
    }
}

/* ------------------------------------------------------------------ tiles */

/* A tile of keys or of values in shared memory, and where its rows of `dim` values are cached.
 */
struct tile_rows {
    uint16_t *to;
    int stride, cols; /* see tile_at; columns to fill */
    const void *from;
    int dim;
};

/* Starts the copy of a tile's rows, zero where no query sees the position and up to `cols`. */
template <int TILE, int N_THREAD, bool SWIZZLED>
GPU_DEV void load_rows(const struct attend &a, const struct query_span &span, int tile,
                       const struct tile_rows &t)
{
    int n = t.cols / 8, log = 0;
    while (log < 5 && 1 << log < n) {
        log++;
    }
    for (int j = threadIdx.x >> log; j < TILE; j += N_THREAD >> log) {
        int position = tile * TILE + j;
        bool seen = position >= span.first && position < span.end;
        int64_t at = seen ? cache_row(a, span.block, span.kv_head, position) : 0;
        const uint16_t *src = (const uint16_t *)t.from + at * t.dim;
        for (int c = threadIdx.x & ((1 << log) - 1); c < n; c += 1 << log) {
            bool some = seen && 8 * c < t.dim;
            cp_async16(t.to + tile_at<SWIZZLED>(j, 8 * c, t.stride),
                       some ? src + 8 * c : t.from, some);
        }
    }
}

template <int WM, int WN, int TILE>
GPU_DEV void load_tile(const struct attend &a, const struct query_span &span,
                       const struct block_memory<WM, WN, TILE> &m, int tile)
{
    constexpr int N = 32 * WM * WN;
    int stage = tile % 2 * TILE;
    load_rows<TILE, N, false>(
        a, span, tile, {m.k + stage * m.k_stride, m.k_stride, m.k_stride - 8, a.k, a.k_dim});
    if (a.v != a.k) {
        load_rows<TILE, N, false>(
            a, span, tile,
            {m.v + stage * m.v_stride, m.v_stride, m.v_stride - 8, a.v, a.v_dim});
    }
    cp_async_commit();
}

/* Takes values that are not finite out of a tile; *broken becomes `tile` if there are any. */
template <bool F16, int TILE, int N_THREAD, bool SWIZZLED>
GPU_DEV void clean_values(uint16_t *v, int stride, int v_dim, int *broken, int tile)
{
    int n = v_dim / 8;
    for (int i = threadIdx.x; i < TILE * n; i += N_THREAD) {
        uint32_t *word = (uint32_t *)(v + tile_at<SWIZZLED>(i / n, i % n * 8, stride));
        for (int w = 0; w < 4; w++) {
            uint32_t two = word[w], kept = two;
            if (!narrow_finite<F16>(two & 0xffff)) kept &= 0xffff0000u;
            if (!narrow_finite<F16>(two >> 16)) kept &= 0xffff;
            if (kept != two) {
                word[w] = kept;
                atomicExch(broken, tile);
            }
        }
    }
}

/* Whether a query that sees positions first .. end - 1 of the tile sees a value of column col
 * that is not finite. */
template <bool F16, int TILE>
GPU_DEV bool sees_broken(const struct attend &a, const struct query_span &span, int tile,
                         int first, int end, int col)
{
    first = max(first, tile * TILE);
    end = min(end, (tile + 1) * TILE);
    for (int j = first; j < end; j++) {
        int64_t at = cache_row(a, span.block, span.kv_head, j) * a.v_stride + col;
        if (!narrow_finite<F16>(((const uint16_t *)a.v)[at])) return true;
    }
    return false;
}

/* ------------------------------------------------------------------ a warp's arithmetic */

/* What a warp holds for its 16 queries. Lane l has queries l / 4 and l / 4 + 8 (index 0 and 1);
 * fragments are laid out as mma's d: [0], [1] belong to the first, [2], [3] to the second. */
template <int CN> struct warp_state {
    float o[CN][4]; /* weighted values of the split, CN tiles of 8 columns */
    float l[4];     /* sums of weights: [0] and [2] */
    float m[2];     /* maxima */
};

/* Scores of the warp's 16 queries and NS x 8 keys from column `col`. */
template <bool F16, int NS>
GPU_DEV void scores(float (&s)[NS][4], const uint16_t *q_high, const uint16_t *q_low,
                    const uint16_t *k, int stride)
{
    int lane = threadIdx.x % 32;
    int q_at = lane % 16 * stride + lane / 16 * 8, k_at = lane % 8 * stride + lane / 8 * 8;
#pragma unroll
    for (int n = 0; n < NS; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
    }
#pragma unroll 1 // more at a time would not fit the registers
    for (int c = 0; c < stride - 8; c += 32) {
        uint32_t high[2][4], low[2][4], b[4];
        ldmatrix_x4(high[0], q_high + q_at + c);
        ldmatrix_x4(low[0], q_low + q_at + c);
        ldmatrix_x4(high[1], q_high + q_at + c + 16);
        ldmatrix_x4(low[1], q_low + q_at + c + 16);
#pragma unroll
        for (int n = 0; n < NS; n++) {
            ldmatrix_x4(b, k + n * 8 * stride + k_at + c);
            narrow_mma<F16>(s[n], high[0], b[0], b[1]);
            narrow_mma<F16>(s[n], low[0], b[0], b[1]);
            narrow_mma<F16>(s[n], high[1], b[2], b[3]);
            narrow_mma<F16>(s[n], low[1], b[2], b[3]);
        }
    }
}

/* Scales the scores, hides what a query does not see, and returns the maxima over the warp's
 * columns, the first of which is position `at`. */
template <int NS>
GPU_DEV void score_maxima(float (&s)[NS][4], float (&most)[2], const struct query_row (&q)[2],
                          int at, bool masked)
{
    most[0] = most[1] = -INFINITY;
    at += threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < NS; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int position = at + n * 8 + i % 2;
            s[n][i] = __fmul_rn(s[n][i], q[i / 2].scale);
            if (masked && (position < q[i / 2].first || position >= q[i / 2].end)) {
                s[n][i] = -INFINITY;
            }
            most[i / 2] = fmaxf(most[i / 2], s[n][i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 1));
        most[i] = fmaxf(most[i], __shfl_xor_sync(~0u, most[i], 2));
    }
}

/* Scores become weights under the new maxima; what was summed so far is scaled to them. */
template <int NS, int CN>
GPU_DEV void weigh(float (&s)[NS][4], struct warp_state<CN> &w, const float (&most)[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float all = fmaxf(w.m[i], most[i]), base = all == -INFINITY ? 0 : all;
        float keep = exp2f(w.m[i] - base);
        w.m[i] = all;
        w.l[2 * i] = __fmul_rn(w.l[2 * i], keep);
        w.l[2 * i + 1] = __fmul_rn(w.l[2 * i + 1], keep);
#pragma unroll
        for (int n = 0; n < CN; n++) {
            w.o[n][2 * i] = __fmul_rn(w.o[n][2 * i], keep);
            w.o[n][2 * i + 1] = __fmul_rn(w.o[n][2 * i + 1], keep);
        }
#pragma unroll
        for (int n = 0; n < NS; n++) {
            s[n][2 * i] = exp2f(s[n][2 * i] - base);
            s[n][2 * i + 1] = exp2f(s[n][2 * i + 1] - base);
        }
    }
}

/* Adds the weighted values of 32 positions: a has the weights of 2 x 16, v is the first of them
 * at the warp's first column, of which n_col are left. */
template <bool F16, int CN>
GPU_DEV void add_values(struct warp_state<CN> &w, const uint32_t (&high)[2][4],
                        const uint32_t (&low)[2][4], const uint16_t *v, int stride, int n_col)
{
    constexpr uint32_t ONES = F16 ? 0x3c003c00u : 0x3f803f80u;
    int at = threadIdx.x % 32 * stride;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        narrow_mma<F16>(w.l, high[i], ONES, ONES);
        narrow_mma<F16>(w.l, low[i], ONES, ONES);
    }
#pragma unroll
    for (int n = 0; n < CN; n++) {
        uint32_t b[4];
        if (n * 8 >= n_col) break;
        ldmatrix_x4_trans(b, v + at + n * 8);
        narrow_mma<F16>(w.o[n], high[0], b[0], b[1]);
        narrow_mma<F16>(w.o[n], low[0], b[0], b[1]);
        narrow_mma<F16>(w.o[n], high[1], b[2], b[3]);
        narrow_mma<F16>(w.o[n], low[1], b[2], b[3]);
    }
}

/* The warp's own weights of positions 32 i .. 32 i + 31 as mma's a: its d has the same layout.
 */
template <bool F16, int NS>
GPU_DEV void own_weights(uint32_t (&high)[2][4], uint32_t (&low)[2][4], const float (&s)[NS][4],
                         int i)
{
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float *p = &s[4 * i + 2 * j + k / 2][k % 2 * 2];
            narrow_halves<F16>(high[j][k], low[j][k], p[0], p[1]);
        }
    }
}

template <int CN> GPU_DEV void reset(struct warp_state<CN> &w)
{
    w.m[0] = w.m[1] = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        w.l[i] = 0;
#pragma unroll
        for (int n = 0; n < CN; n++) {
            w.o[n][i] = 0;
        }
    }
}

/* all += w, the next split. */
template <int CN>
GPU_DEV void merge_split(struct warp_state<CN> &all, const struct warp_state<CN> &w)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        struct merge_factors f = merge(all.m[i], w.m[i]);
        all.l[2 * i] = merged(all.l[2 * i], w.l[2 * i], f);
#pragma unroll
        for (int n = 0; n < CN; n++) {
            all.o[n][2 * i] = merged(all.o[n][2 * i], w.o[n][2 * i], f);
            all.o[n][2 * i + 1] = merged(all.o[n][2 * i + 1], w.o[n][2 * i + 1], f);
        }
    }
}

/* Column n 8 + ... of fragment value i, from the warp's first column. */
GPU_DEV int fragment_col(int n, int i)
{
    return n * 8 + threadIdx.x % 4 * 2 + i % 2;
}

/* What a warp has of columns col .. to a split's partial result, or to the output. */
template <int CN>
GPU_DEV void store_partial(const struct attend &a, const struct warp_state<CN> &w,
                           const struct query_row (&q)[2], int col, int split)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (q[i].row < 0) continue;
        float *to = partial_at(a, q[i].row, q[i].head, split);
#pragma unroll
        for (int n = 0; n < CN; n++) {
            int c = col + fragment_col(n, 0);
            if (c >= a.v_dim) break;
            *(float2 *)(to + c) = make_float2(w.o[n][2 * i], w.o[n][2 * i + 1]);
        }
        if (col == 0 && threadIdx.x % 4 == 0) {
            to[a.v_dim] = w.m[i];
            to[a.v_dim + 1] = w.l[2 * i];
        }
    }
}

template <int CN>
GPU_DEV void store_output(const struct attend &a, const struct warp_state<CN> &w,
                          const struct query_row (&q)[2], int col)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (q[i].row < 0) continue;
        float factor =
            softmax_end(w.m[i], w.l[2 * i], a.sink ? &a.sink[q[i].head] : (const float *)NULL);
        int64_t at = (int64_t)q[i].head * a.v_dim;
#pragma unroll
        for (int n = 0; n < CN; n++) {
            int c = col + fragment_col(n, 0);
            if (c >= a.v_dim) break;
            attention_store(a, q[i].row, at + c, attention_value(w.o[n][2 * i], factor));
            attention_store(a, q[i].row, at + c + 1,
                            attention_value(w.o[n][2 * i + 1], factor));
        }
    }
}

/* ------------------------------------------------------------------ a tile */

/* Exchange between the WN warps of the same queries: maxima of all columns. */
template <int WM, int WN, int TILE>
GPU_DEV void share_maxima(const struct block_memory<WM, WN, TILE> &m, float (&most)[2])
{
    constexpr int BM = 16 * WM;
    int warp = threadIdx.x / 32, row = warp / WN * 16 + threadIdx.x % 32 / 4;
    if (threadIdx.x % 4 == 0) {
        m.max[warp % WN * BM + row] = most[0];
        m.max[warp % WN * BM + row + 8] = most[1];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < WN; i++) {
        most[0] = fmaxf(most[0], m.max[i * BM + row]);
        most[1] = fmaxf(most[1], m.max[i * BM + row + 8]);
    }
}

/* The warp's weights into shared memory. */
template <bool F16, int WM, int WN, int TILE, int NS>
GPU_DEV void share_weights(const struct block_memory<WM, WN, TILE> &m, const float (&s)[NS][4])
{
    int warp = threadIdx.x / 32, row = warp / WN * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int n = 0; n < NS; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int at =
                (row + 8 * i) * (TILE + 8) + (warp % WN * NS + n) * 8 + threadIdx.x % 4 * 2;
            narrow_halves<F16>(*(uint32_t *)(m.p[0] + at), *(uint32_t *)(m.p[1] + at),
                               s[n][2 * i], s[n][2 * i + 1]);
        }
    }
}

/* Queries that see a value which is not finite, of the warp's columns from `col`, get none. */
template <bool F16, int TILE, int CN>
GPU_DEV void repair(const struct attend &a, const struct query_span &span,
                    struct warp_state<CN> &w, const struct query_row (&q)[2], int tile, int col)
{
    uint64_t bad = 0; /* of the fragment's values; rare, so one copy of the loop */
#pragma unroll 1
    for (int i = 0; i < CN * 4; i++) {
        int c = col + fragment_col(i / 4, i);
        int first = i & 2 ? q[1].first : q[0].first, end = i & 2 ? q[1].end : q[0].end;
        if (c < a.v_dim && sees_broken<F16, TILE>(a, span, tile, first, end, c)) {
            bad |= (uint64_t)1 << i;
        }
    }
#pragma unroll
    for (int i = 0; i < CN * 4; i++) {
        if (bad >> i & 1) w.o[i / 4][i % 4] = __uint_as_float(0x7fffffff);
    }
}

/* One tile of keys and values, which is in shared memory. */
template <bool F16, int WM, int WN, int TILE, int CN>
GPU_DEV void attend_tile(const struct attend &a, const struct query_span &span,
                         const struct block_memory<WM, WN, TILE> &m, struct warp_state<CN> &w,
                         const struct query_row (&q)[2], int tile)
{
    constexpr int NS = TILE / 8 / WN, N_THREAD = 32 * WM * WN;
    int lane = threadIdx.x % 32, wm = threadIdx.x / 32 / WN, wn = threadIdx.x / 32 % WN;
    int from = tile * TILE, to = from + TILE, col = wn * CN * 8;
    bool masked = from < span.all_first || to > span.all_end;
    bool ragged = max(from, span.first) < span.all_first || min(to, span.end) > span.all_end;
    const uint16_t *k = m.k + tile % 2 * TILE * m.k_stride;
    uint16_t *v = m.v + tile % 2 * TILE * m.v_stride;
    float s[NS][4], most[2];
    scores<F16, NS>(s, m.q[0] + wm * 16 * m.k_stride, m.q[1] + wm * 16 * m.k_stride,
                    k + wn * NS * 8 * m.k_stride, m.k_stride);
    score_maxima<NS>(s, most, q, from + wn * NS * 8, masked);
    if constexpr (WN > 1) share_maxima(m, most);
    weigh<NS, CN>(s, w, most);
    /* With v = k the keys are needed until all warps have their scores. */
    if (WN == 1 && ragged && a.v == a.k) __syncthreads();
    if (ragged) {
        clean_values<F16, TILE, N_THREAD, false>(v, m.v_stride, a.v_dim, m.broken, tile);
    }
    if constexpr (WN > 1) share_weights<F16, WM, WN, TILE, NS>(m, s);
    if (WN > 1 || ragged) __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE / 32; i++) {
        uint32_t high[2][4], low[2][4];
        if constexpr (WN > 1) {
            int at = (wm * 16 + lane % 16) * (TILE + 8) + lane / 16 * 8 + 32 * i;
            ldmatrix_x4(high[0], m.p[0] + at);
            ldmatrix_x4(low[0], m.p[1] + at);
            ldmatrix_x4(high[1], m.p[0] + at + 16);
            ldmatrix_x4(low[1], m.p[1] + at + 16);
        } else {
            own_weights<F16, NS>(high, low, s, i);
        }
        add_values<F16, CN>(w, high, low, v + 32 * i * m.v_stride + col, m.v_stride,
                            a.v_dim - col);
    }
    if (!ragged || *m.broken != tile) return;
    repair<F16, TILE, CN>(a, span, w, q, tile, col);
}

/* Grid: [blocks of queries, KV heads, splits or 1]. With more than one split in the grid each
 * block writes the partial result of its own. */
template <bool F16, int WM, int WN, int TILE, int CN>
__global__ void __launch_bounds__(32 * WM * WN, 1)
    attend_mma(const __grid_constant__ struct attend a)
{
    GPU_DYN_SMEM(memory);
    constexpr int BM = 16 * WM, TILES = SPLIT / TILE;
    struct block_memory<WM, WN, TILE> m;
    struct warp_state<CN> w, all;
    struct query_span span;
    int seq, block, start, end;
    /* The last queries of a sequence see most and begin first. */
    if (!find_queries<BM>(a, (int)(gridDim.x - 1 - blockIdx.x), seq, block, start, end)) return;
    take_memory(m, memory, a);
    span.kv_head = (int)blockIdx.y;
    span.block = a.rows.block_table + (int64_t)seq * a.rows.max_block;
    describe_queries<BM>(a, m.row, block, start, end, span);
    if (span.end == 0) return;
    int tile = span.first / TILE, last = (span.end - 1) / TILE;
    if (a.part) {
        tile = max(tile, (int)blockIdx.z * TILES);
        last = min(last, ((int)blockIdx.z + 1) * TILES - 1);
        if (tile > last) return;
    }
    load_tile(a, span, m, tile);
    load_queries<F16, BM, WM * WN, false>(a, m.q, m.k_stride, m.k_stride - 8, m.row);
    if (threadIdx.x == 0) *m.broken = -1;
    __syncthreads();
    int at = threadIdx.x / 32 / WN * 16 + threadIdx.x % 32 / 4;
    int col = threadIdx.x / 32 % WN * CN * 8;
    const struct query_row q[2] = {m.row[at], m.row[at + 8]};
    reset(w);
    reset(all);
    for (; tile <= last; tile++) {
        cp_async_wait<0>();
        __syncthreads();
        if (tile < last) load_tile(a, span, m, tile + 1);
        attend_tile<F16, WM, WN, TILE, CN>(a, span, m, w, q, tile);
        if (a.part || (tile < last && (tile + 1) % TILES)) continue;
        merge_split(all, w);
        reset(w);
    }
    /* Read again: what the tiles do not need took no registers meanwhile. */
    const struct query_row whose[2] = {m.row[at], m.row[at + 8]};
    if (a.part) {
        store_partial(a, w, whose, col, (int)blockIdx.z);
    } else {
        store_output(a, all, whose, col);
    }
}

#endif
