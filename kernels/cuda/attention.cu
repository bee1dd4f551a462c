/* attention.cu - causal attention over the paged cache, and its writes.
 *
 *     out[h] = sum_j softmax_j(scale * q[h] . k[j]) v[j]        j over the visible positions
 *
 * Four kernels compute it, and the device and the cache's type and sizes alone decide which, so
 * that a row's bits do not depend on its company:
 *
 *   attend_wgmma   attention_sm90.cu: sm_90, and the sizes that its head names
 *   attend_mma     attention_mma.cuh: F16 and BF16 caches, head sizes that are multiples of 8
 *   attend_plain   everything else: multiply-adds of F32, one block a row and head
 *   attend_merge   adds the partial results of the first two where splits had their own blocks
 *
 * How many queries a block of the first two has, and whether splits get blocks of their own,
 * depends on the number of rows; both change no bit (attention.cuh).
 * Has not run on hardware yet. */
#include "kernels/cuda/attention_mma.cuh"

/* ------------------------------------------------------------------ cache writes */

/* Row t of x [T, G dim] to its slot of `to` [n_block, G, KV_BLOCK, dim]. Grid: [rows, parts of
 * a row]. Bytes: 4 read and 2 or 4 written a value. */
template <pm_dtype TYPE>
__global__ void cache_write(void *to, const float *x, int64_t x_stride, const int64_t *slot,
                            int n_kv_head, int dim)
{
    int64_t at = slot[blockIdx.x], n = (int64_t)n_kv_head * dim;
    if (at < 0) return;
    x += blockIdx.x * x_stride;
    for (int64_t i = blockIdx.y * blockDim.x + threadIdx.x; i < n;
         i += gridDim.y * blockDim.x) {
        int64_t row = (at / KV_BLOCK * n_kv_head + i / dim) * KV_BLOCK + at % KV_BLOCK;
        int64_t out = row * dim + i % dim;
        if constexpr (TYPE == PM_F32) {
            ((float *)to)[out] = x[i];
        } else if constexpr (TYPE == PM_F16) {
            ((uint16_t *)to)[out] = __half_as_ushort(__float2half_rn(x[i]));
        } else {
            ((uint16_t *)to)[out] = bf16_code(x[i]);
        }
    }
}

static pm_status write_part(struct device *d, const struct kv_layer *kv, void *to, int dim,
                            const struct tensor &x, const struct attention_rows *rows)
{
    enum { THREADS = 256 };
    int64_t n = (int64_t)kv->n_kv_head * dim;
    dim3 grid((unsigned)rows->n_row, (unsigned)min_i64(64, (n + THREADS - 1) / THREADS));
    auto kernel = kv->type == PM_F32   ? cache_write<PM_F32>
                  : kv->type == PM_F16 ? cache_write<PM_F16>
                                       : cache_write<PM_BF16>;
    return cuda_check(GPU_LAUNCH(kernel, grid, THREADS, 0, d->stream, to, (const float *)x.data,
                                 x.stride / (int64_t)sizeof(float), rows->slot, kv->n_kv_head,
                                 dim),
                      "kv_write");
}

extern "C" pm_status cuda_kv_write(struct device *d, const struct kv_layer *kv, struct tensor k,
                                   struct tensor v, const struct attention_rows *rows)
{
    if (rows->n_row == 0) return PM_OK;
    TRY(write_part(d, kv, kv->k, kv->k_dim, k, rows));
    return v.data ? write_part(d, kv, kv->v, kv->v_dim, v, rows) : PM_OK;
}

/* ------------------------------------------------------------------ any type, any size */

enum { PLAIN_WARPS = 4, PLAIN_VALUES = 16, MAX_V_DIM = 32 * PLAIN_VALUES };

template <pm_dtype TYPE> GPU_DEV float cached(const void *base, int64_t at)
{
    if constexpr (TYPE == PM_F32) return ((const float *)base)[at];
    if constexpr (TYPE == PM_F16) return f16_value(((const uint16_t *)base)[at]);
    if constexpr (TYPE == PM_BF16) return bf16_value(((const uint16_t *)base)[at]);
}

/* One warp's share of a row: tiles of 32 positions, a lane a position for the scores, a lane a
 * column for the values. Positions that the row does not see are not read. */
struct plain_state {
    float o[PLAIN_VALUES];
    float m, l; /* l: of the lane's own positions */
};

template <pm_dtype TYPE>
GPU_DEV void plain_tile(const struct attend &a, struct plain_state &w, const int32_t *block,
                        int kv_head, const float *q, int tile, int first, int end)
{
    int lane = threadIdx.x % 32, position = tile * 32 + lane;
    float s = -INFINITY, most;
    if (position >= first && position < end) {
        int64_t at = cache_row(a, block, kv_head, position) * a.k_dim;
        s = 0;
        for (int c = 0; c < a.k_dim; c++) {
            s = fmaf(q[c], cached<TYPE>(a.k, at + c), s);
        }
        s = __fmul_rn(s, a.scale);
    }
    most = s;
    for (int i = 16; i > 0; i /= 2) {
        most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
    }
    most = fmaxf(w.m, most);
    float base = most == -INFINITY ? 0 : most, keep = exp2f(w.m - base), p = exp2f(s - base);
    w.m = most;
    w.l = fmaf(w.l, keep, p);
#pragma unroll
    for (int i = 0; i < PLAIN_VALUES; i++) {
        w.o[i] = __fmul_rn(w.o[i], keep);
    }
    for (int j = max(first, tile * 32); j < min(end, tile * 32 + 32); j++) {
        int64_t at = cache_row(a, block, kv_head, j) * a.v_stride;
        float weight = __shfl_sync(~0u, p, j % 32);
#pragma unroll
        for (int i = 0; i < PLAIN_VALUES; i++) {
            if (32 * i + lane < a.v_dim) {
                w.o[i] = fmaf(weight, cached<TYPE>(a.v, at + 32 * i + lane), w.o[i]);
            }
        }
    }
}

/* Grid: [rows, query heads]. The warps take every fourth tile; their results are added in the
 * order of the warps. */
template <pm_dtype TYPE>
__global__ void __launch_bounds__(32 * PLAIN_WARPS)
    attend_plain(const __grid_constant__ struct attend a)
{
    GPU_DYN_SMEM(memory);
    unsigned char *at = memory;
    int row = a.row0 + (int)blockIdx.x, head = (int)blockIdx.y;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int seq = sequence_of(a.rows, row);
    if (seq < 0 || a.rows.slot[row] < 0) return;
    float *q = smem_take<float>(at, (size_t)a.k_dim);
    float *o = smem_take<float>(at, (size_t)(PLAIN_WARPS * a.v_dim));
    float *ml = smem_take<float>(at, 2 * PLAIN_WARPS);
    int end = a.rows.position[row] + 1, first = first_visible(a, end - 1);
    struct plain_state w = {};
    w.m = -INFINITY;
    for (int c = threadIdx.x; c < a.k_dim; c += blockDim.x) {
        q[c] = a.q[(row - a.row0) * a.q_stride + (int64_t)head * a.k_dim + c];
    }
    __syncthreads();
    for (int tile = first / 32; tile * 32 < end; tile++) {
        if (tile % PLAIN_WARPS != warp) continue;
        plain_tile<TYPE>(a, w, a.rows.block_table + (int64_t)seq * a.rows.max_block,
                         head / (a.n_head / a.n_kv_head), q, tile, first, end);
    }
    for (int i = 16; i > 0; i /= 2) {
        w.l += __shfl_xor_sync(~0u, w.l, i);
    }
#pragma unroll
    for (int i = 0; i < PLAIN_VALUES; i++) {
        if (32 * i + lane < a.v_dim) o[warp * a.v_dim + 32 * i + lane] = w.o[i];
    }
    if (lane == 0) {
        ml[2 * warp] = w.m;
        ml[2 * warp + 1] = w.l;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < a.v_dim; c += blockDim.x) {
        float m = -INFINITY, l = 0, sum = 0;
        for (int i = 0; i < PLAIN_WARPS; i++) {
            struct merge_factors f = merge(m, ml[2 * i]);
            l = merged(l, ml[2 * i + 1], f);
            sum = merged(sum, o[i * a.v_dim + c], f);
        }
        float factor = softmax_end(m, l, a.sink ? &a.sink[head] : (const float *)NULL);
        attention_store(a, row, (int64_t)head * a.v_dim + c, attention_value(sum, factor));
    }
}

/* ------------------------------------------------------------------ splits */

/* Grid: [rows, query heads]; a thread has a column. Reads (v_dim + 2) * 4 bytes a split. */
__global__ void attend_merge(const __grid_constant__ struct attend a)
{
    enum { AHEAD = 4 }; /* splits whose loads are in flight together */
    int row = a.row0 + (int)blockIdx.x, head = (int)blockIdx.y;
    if (row >= a.rows.q_start[a.rows.n_seq] || a.rows.slot[row] < 0) return;
    int position = a.rows.position[row];
    int first = first_visible(a, position) / SPLIT, last = position / SPLIT;
    for (int c = threadIdx.x; c < a.v_dim; c += blockDim.x) {
        float m = -INFINITY, l = 0, sum = 0;
        for (int s = first; s <= last; s += AHEAD) {
            float part[AHEAD][3];
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                const float *p = partial_at(a, row, head, min(s + i, last));
                part[i][0] = p[a.v_dim];
                part[i][1] = p[a.v_dim + 1];
                part[i][2] = p[c];
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
                if (s + i > last) break;
                struct merge_factors f = merge(m, part[i][0]);
                l = merged(l, part[i][1], f);
                sum = merged(sum, part[i][2], f);
            }
        }
        float factor = softmax_end(m, l, a.sink ? &a.sink[head] : (const float *)NULL);
        attention_store(a, row, (int64_t)head * a.v_dim + c, attention_value(sum, factor));
    }
}

/* ------------------------------------------------------------------ choice */

#define VARIANT(wm, wn, tile, cn, k, v)                                                        \
    {                                                                                          \
        {attend_mma<false, wm, wn, tile, cn>, attend_mma<true, wm, wn, tile, cn>}, wm, wn,     \
            tile, k, v, false                                                                  \
    }

/* Sizes, and for each the kernel of many queries a sequence before the one of few: both give
 * the same bits. */
static const struct attend_variant variants[] = {
    VARIANT(4, 1, 64, 8, 192, 64),   VARIANT(1, 4, 64, 2, 192, 64),
    VARIANT(4, 1, 64, 16, 192, 128), VARIANT(1, 4, 64, 4, 192, 128),
    VARIANT(4, 2, 32, 16, 256, 256), VARIANT(1, 4, 32, 8, 256, 256),
    VARIANT(2, 4, 32, 16, 576, 512), VARIANT(1, 4, 32, 16, 576, 512),
};
enum { N_SIZE = sizeof variants / sizeof *variants / 2 };

static size_t variant_bytes(const struct attend_variant *v, const struct attend *a)
{
    if (v->wgmma) return attend_sm90_bytes(v, a);
    return block_memory_bytes(v->wm, v->wn, v->tile, a->k_dim, a->v_dim, a->v == a->k);
}

/* The first of n sizes that holds these, NULL if none. */
static const struct attend_variant *find_size(const struct attend_variant *v, int n,
                                              const struct attend *a)
{
    for (; n > 0; n--, v += 2) {
        if (a->k_dim <= v->k_dim && a->v_dim <= v->v_dim) return v;
    }
    return NULL;
}

/* The kernel for these sizes, NULL where only attend_plain does. */
static const struct attend_variant *choose(const struct device *d, const struct attend *a,
                                           pm_dtype type)
{
    const struct attend_variant *v = NULL;
    if (type == PM_F32 || a->k_dim % 8 || a->v_dim % 8 || a->v_stride % 8) return NULL;
    if (d->sm == 90 && a->v != a->k) v = find_size(attend_sm90_variants, attend_sm90_sizes, a);
    if (!v) v = find_size(variants, N_SIZE, a);
    if (!v || variant_bytes(v + 1, a) > d->smem_block) return NULL;
    int64_t queries = (int64_t)(a->row1 - a->row0) * (a->n_head / a->n_kv_head);
    bool many = queries > 16 * max_i64(2, v[1].wm) * a->rows.n_seq;
    return many && variant_bytes(v, a) <= d->smem_block ? v : v + 1;
}

/* Most blocks of bm queries that cover n rows of up to n_seq sequences. */
static int64_t query_blocks(int64_t n, int64_t n_seq, int group, int bm)
{
    int64_t each = n * ((group + bm - 1) / bm); /* every row alone */
    int64_t most = (n * group + n_seq * (bm - 1)) / bm;
    return min_i64(each, most);
}

static pm_status launch_tiles(struct device *d, struct attend *a,
                              const struct attend_variant *v, pm_dtype type)
{
    auto kernel = v->kernel[type == PM_F16];
    size_t bytes = variant_bytes(v, a);
    int n_row = a->row1 - a->row0;
    int64_t n = query_blocks(n_row, a->rows.n_seq, a->n_head / a->n_kv_head, 16 * v->wm);
    size_t need = (size_t)n_row * (size_t)a->n_head * (size_t)a->n_split *
                  (size_t)(a->v_dim + 2) * sizeof(float);
    /* Splits get blocks of their own where there are too few blocks for the machine. */
    if (a->n_split == 1 || n * a->n_kv_head >= 2 * d->n_sm || need > a->part_bytes) {
        a->part = NULL;
    }
    dim3 grid((unsigned)n, (unsigned)a->n_kv_head, (unsigned)(a->part ? a->n_split : 1));
    TRY(cuda_check(cudaFuncSetAttribute((const void *)kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        (int)bytes),
                   "attention: shared memory"));
    TRY(cuda_check(
        GPU_LAUNCH(kernel, grid, dim3((unsigned)(32 * v->wm * v->wn)), bytes, d->stream, *a),
        "attention"));
    if (!a->part) return PM_OK;
    dim3 rows((unsigned)n_row, (unsigned)a->n_head);
    unsigned threads = (unsigned)(a->v_dim + 31) / 32 * 32;
    return cuda_check(GPU_LAUNCH(attend_merge, rows, dim3(threads), 0, d->stream, *a),
                      "attention: merging splits");
}

extern "C" pm_status cuda_attend(struct device *d, struct attend *a, pm_dtype type)
{
    const struct attend_variant *v = choose(d, a, type);
    if (a->row1 <= a->row0 || a->rows.n_seq == 0) return PM_OK;
    if (a->v_dim > MAX_V_DIM) {
        return fail(PM_ERR_UNSUPPORTED, "attention: found values of %d, wanted up to %d",
                    a->v_dim, MAX_V_DIM);
    }
    a->n_split = (int)(((int64_t)a->rows.max_block * KV_BLOCK + SPLIT - 1) / SPLIT);
    if (v) return launch_tiles(d, a, v, type);
    dim3 grid((unsigned)(a->row1 - a->row0), (unsigned)a->n_head);
    size_t bytes = GPU_SMEM_BYTES(float, (size_t)a->k_dim) +
                   GPU_SMEM_BYTES(float, (size_t)(PLAIN_WARPS * a->v_dim)) +
                   GPU_SMEM_BYTES(float, 2 * PLAIN_WARPS);
    auto kernel = type == PM_F32   ? attend_plain<PM_F32>
                  : type == PM_F16 ? attend_plain<PM_F16>
                                   : attend_plain<PM_BF16>;
    return cuda_check(GPU_LAUNCH(kernel, grid, dim3(32 * PLAIN_WARPS), bytes, d->stream, *a),
                      "attention");
}

/* Room for the absorbed queries and latent sums of some rows of latent attention, and for the
 * partial results of a step of few rows; past the bound fewer rows go at once, or splits share
 * blocks. A step of any size runs with the least of it. */
extern "C" size_t cuda_attention_scratch(const struct device *d, int64_t n_row, int64_t n_col,
                                         int64_t n_kv)
{
    const int64_t least = 256 << 10, most = 64 << 20;
    double split = (double)min_i64(n_row, 64) * ((double)n_kv / SPLIT + 1) * (double)n_col * 8;
    double latent = (double)n_row * (double)n_col * 48;
    double want = (double)least + split + latent;
    (void)d;
    return want < (double)most ? (size_t)want : (size_t)most;
}

extern "C" pm_status cuda_attention(struct device *d, const struct attention *op)
{
    const struct kv_layer *kv = op->kv;
    struct attend a = {};
    a.q = (const float *)op->q.data;
    a.q_stride = op->q.stride / (int64_t)sizeof(float);
    a.out = op->out.data;
    a.out_narrow = op->out.type == PM_BF16;
    a.out_stride = op->out.stride / (a.out_narrow ? 2 : 4);
    a.k = kv->k;
    a.v = kv->v;
    a.n_kv_head = kv->n_kv_head;
    a.k_dim = kv->k_dim;
    a.v_dim = a.v_stride = kv->v_dim;
    a.n_head = op->n_head;
    a.row1 = op->rows->n_row;
    a.rows = *op->rows;
    a.scale = op->scale * LOG2_E;
    a.window = op->window;
    a.chunk = op->chunk;
    a.sink = op->sink;
    a.part_bytes = d->scratch_bytes;
    TRY(cuda_scratch(d, &a.part, 0, "attention"));
    return cuda_attend(d, &a, kv->type);
}
