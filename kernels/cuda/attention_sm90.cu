/* attention_sm90.cu - attention with wgmma (sm_90a) over F16 and BF16 caches, for keys of up to
 * 192 values and values of up to 128. What attention is, how splits merge and what holds for
 * its bits stands in attention.cuh; queries, their two halves, the online softmax, what is
 * "ragged" and the output are those of attention_mma.cuh.
 *
 * A warpgroup computes 64 queries, a warp 16 of them, in the registers that attention_mma.cuh
 * knows: wgmma's sums lie as mma's. A block has one warpgroup (few queries a sequence: decode)
 * or two, which share the tiles of 64 keys and values. Tiles come by cp.async through the block
 * table, one tile ahead, in panels of 64 columns in the 128-byte swizzle.
 *
 *   scores    queries [64, k_dim] from shared memory times keys [k_dim, 64], both K-major
 *   values    weights [64, 64] from registers times values [64, v_dim], MN-major as they lie
 *   sums      weights times a column of ones, 16 x 8 ones in shared memory
 *
 * each for the high and the low halves. A decoded token fills the heads of a group, so most of
 * the 64 rows are empty and warps without a query leave out the softmax; the tensor cores have
 * the time: a tile of 64 keys and values of 128 has 32 KB, some 2400 cycles of an SM's share of
 * memory, and costs 1024 cycles of them.
 *
 * Both numbers of queries a block give the same bits: a value is one chain of k16 steps over
 * the same tiles. The kernel serves prefill and decode, since mma and wgmma need not sum alike.
 *
 * Limiter: tensor cores in prefill (4 (k_dim + v_dim) flops a query and key), memory in decode.
 * With two warpgroups one has its softmax while the other multiplies. Shared memory at 128: 96
 * KiB, two blocks an SM; 128 KiB with two warpgroups. This has not run on hardware yet. */
#include "kernels/cuda/attention_mma.cuh"

enum { WGMMA_TILE = 64, WGMMA_PANEL = 64, WGMMA_ROWS = 64 };

static int panels(int dim)
{
    return (dim + WGMMA_PANEL - 1) / WGMMA_PANEL;
}

size_t attend_sm90_bytes(const struct attend_variant *v, const struct attend *a)
{
    size_t tile = WGMMA_TILE * WGMMA_PANEL, queries = (size_t)(v->wm * 16) * WGMMA_PANEL;
    size_t kp = (size_t)panels(a->k_dim), vp = (size_t)panels(v->v_dim);
    return 1024 + 2 * GPU_SMEM_BYTES(uint16_t, queries * kp) +
           GPU_SMEM_BYTES(uint16_t, 2 * tile * kp) + GPU_SMEM_BYTES(uint16_t, 2 * tile * vp) +
           GPU_SMEM_BYTES(uint16_t, 16 * 8) +
           GPU_SMEM_BYTES(struct query_row, (size_t)v->wm * 16) + GPU_SMEM_BYTES(int, 1);
}

#if GPU_SM90A
/* Shared memory of a block, in the order of smem_take. */
struct wgmma_memory {
    uint16_t *q[2];        /* [panels, BM, 64] high and low */
    uint16_t *k;           /* [2, panels, 64, 64] */
    uint16_t *v;           /* [2, VP, 64, 64] */
    uint16_t *ones;        /* [16, 8] */
    struct query_row *row; /* [BM] */
    int *broken;           /* the tile whose values were repaired last */
    int k_panels;
};

template <bool F16, int BM, int VP>
GPU_DEV void take_memory(struct wgmma_memory &m, unsigned char *at, const struct attend &a)
{
    at += (1024 - smem_u32(at) % 1024) % 1024; /* the swizzle counts from multiples of 1024 */
    m.k_panels = (a.k_dim + WGMMA_PANEL - 1) / WGMMA_PANEL;
    int tile = WGMMA_TILE * WGMMA_PANEL;
    m.q[0] = smem_take<uint16_t>(at, (size_t)(m.k_panels * BM * WGMMA_PANEL));
    m.q[1] = smem_take<uint16_t>(at, (size_t)(m.k_panels * BM * WGMMA_PANEL));
    m.k = smem_take<uint16_t>(at, (size_t)(2 * m.k_panels * tile));
    m.v = smem_take<uint16_t>(at, (size_t)(2 * VP * tile));
    m.ones = smem_take<uint16_t>(at, 16 * 8);
    m.row = smem_take<struct query_row>(at, (size_t)BM);
    m.broken = smem_take<int>(at, 1);
    if (threadIdx.x < 16 * 8) m.ones[threadIdx.x] = F16 ? 0x3c00 : 0x3f80;
    if (threadIdx.x == 0) *m.broken = -1;
}

/* Starts the copy of a tile. */
template <int N_THREAD, int VP>
GPU_DEV void load_tile(const struct attend &a, const struct query_span &span,
                       const struct wgmma_memory &m, int tile)
{
    constexpr int T = WGMMA_TILE;
    int k_cols = m.k_panels * WGMMA_PANEL, v_cols = VP * WGMMA_PANEL, stage = tile % 2 * T;
    load_rows<T, N_THREAD, true>(a, span, tile,
                                 {m.k + stage * k_cols, T, k_cols, a.k, a.k_dim});
    load_rows<T, N_THREAD, true>(a, span, tile,
                                 {m.v + stage * v_cols, T, v_cols, a.v, a.v_dim});
    cp_async_commit();
}

template <bool F16, int R>
GPU_DEV void narrow_wgmma(float (&d)[R], uint64_t a, uint64_t b, int add)
{
    if constexpr (F16) {
        wgmma_f16(d, a, b, add);
    } else {
        wgmma_bf16(d, a, b, add);
    }
}

/* A from registers; TB: B is MN-major. */
template <bool F16, int TB, int R>
GPU_DEV void narrow_wgmma(float (&d)[R], const uint32_t (&a)[4], uint64_t b)
{
    if constexpr (F16) {
        wgmma_f16<TB>(d, a, b);
    } else {
        wgmma_bf16<TB>(d, a, b);
    }
}

/* Scores of the warpgroup's queries and a tile of keys. */
template <bool F16, int BM, int NS>
GPU_DEV void wgmma_scores(float (&s)[NS][4], const struct wgmma_memory &m, const uint16_t *k,
                          int k_dim)
{
    float(&d)[NS * 4] = *(float(*)[NS * 4]) & s[0][0];
    int group = (int)threadIdx.x / 128 * WGMMA_ROWS * WGMMA_PANEL;
    uint64_t high = wgmma_desc_k128(smem_u32(m.q[0] + group));
    uint64_t low = wgmma_desc_k128(smem_u32(m.q[1] + group));
    uint64_t key = wgmma_desc_k128(smem_u32(k));
    wgmma_fence();
#pragma unroll 1
    for (int c = 0; c < k_dim; c += 16) {
        narrow_wgmma<F16>(d, high, key, c > 0);
        narrow_wgmma<F16>(d, low, key, 1);
        /* 32 bytes along k, or from the last of a panel to the next panel. */
        bool next = (c + 16) % WGMMA_PANEL == 0;
        high += next ? BM * 128 / 16 - 6 : 2;
        low += next ? BM * 128 / 16 - 6 : 2;
        key += next ? WGMMA_TILE * 128 / 16 - 6 : 2;
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(d);
}

/* Adds the values of a tile, weighted by s, and the weights. */
template <bool F16, int NS, int CN>
GPU_DEV void wgmma_values(struct warp_state<CN> &w, const float (&s)[NS][4],
                          const struct wgmma_memory &m, const uint16_t *v)
{
    constexpr int N = WGMMA_TILE / 32;
    float(&o)[CN * 4] = *(float(*)[CN * 4]) & w.o[0][0];
    uint64_t value =
        wgmma_desc(smem_u32(v), WGMMA_TILE * WGMMA_PANEL * 2, 1024, 1); /* panels, 8 k */
    uint64_t ones = wgmma_desc(smem_u32(m.ones), 128, 256, 0);
    uint32_t high[N][2][4], low[N][2][4];
#pragma unroll
    for (int i = 0; i < N; i++)
        own_weights<F16, NS>(high[i], low[i], s, i);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < N * 2; i++) { /* 16 k of 128 bytes */
        narrow_wgmma<F16, 0>(w.l, high[i / 2][i % 2], ones);
        narrow_wgmma<F16, 0>(w.l, low[i / 2][i % 2], ones);
        narrow_wgmma<F16, 1>(o, high[i / 2][i % 2], value + i * (16 * 128 / 16));
        narrow_wgmma<F16, 1>(o, low[i / 2][i % 2], value + i * (16 * 128 / 16));
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(w.l);
    wgmma_hold(o);
}

/* One tile of keys and values, which is in shared memory. idle: the warp has no query. */
template <bool F16, int WGS, int VP>
GPU_DEV void attend_tile(const struct attend &a, const struct query_span &span,
                         const struct wgmma_memory &m, struct warp_state<VP * 8> &w,
                         const struct query_row (&q)[2], int tile, bool idle)
{
    constexpr int NS = WGMMA_TILE / 8, CN = VP * 8, TILE = WGMMA_TILE;
    int from = tile * TILE, to = from + TILE;
    bool masked = from < span.all_first || to > span.all_end;
    bool ragged = max(from, span.first) < span.all_first || min(to, span.end) > span.all_end;
    const uint16_t *k = m.k + tile % 2 * TILE * m.k_panels * WGMMA_PANEL;
    uint16_t *v = m.v + tile % 2 * TILE * VP * WGMMA_PANEL;
    float s[NS][4], most[2];
    wgmma_scores<F16, 64 * WGS, NS>(s, m, k, a.k_dim);
    if (idle) {
#pragma unroll
        for (int i = 0; i < NS * 4; i++)
            s[i / 4][i % 4] = 0;
    } else {
        score_maxima<NS>(s, most, q, from, masked);
        weigh<NS, CN>(s, w, most);
    }
    if (ragged) {
        clean_values<F16, TILE, 128 * WGS, true>(v, TILE, a.v_dim, m.broken, tile);
        fence_proxy_async(); /* wgmma reads what was cleaned */
        __syncthreads();
    }
    wgmma_values<F16, NS, CN>(w, s, m, v);
    if (ragged && *m.broken == tile) repair<F16, TILE, CN>(a, span, w, q, tile, 0);
}
#endif

/* Grid: [blocks of queries, KV heads, splits or 1], as attend_mma. */
template <bool F16, int WGS, int VP>
__global__ void __launch_bounds__(128 * WGS, WGS == 1 ? 2 : 1)
    attend_wgmma(const __grid_constant__ struct attend a)
{
#if GPU_SM90A
    GPU_DYN_SMEM(memory);
    constexpr int BM = 64 * WGS, TILES = SPLIT / WGMMA_TILE, CN = VP * 8;
    struct wgmma_memory m;
    struct warp_state<CN> w, all;
    struct query_span span;
    int seq, block, start, end;
    /* The last queries of a sequence see most and begin first. */
    if (!find_queries<BM>(a, (int)(gridDim.x - 1 - blockIdx.x), seq, block, start, end)) return;
    take_memory<F16, BM, VP>(m, memory, a);
    span.kv_head = (int)blockIdx.y;
    span.block = a.rows.block_table + (int64_t)seq * a.rows.max_block;
    describe_queries<BM>(a, m.row, block, start, end, span);
    if (span.end == 0) return;
    int tile = span.first / WGMMA_TILE, last = (span.end - 1) / WGMMA_TILE;
    if (a.part) {
        tile = max(tile, (int)blockIdx.z * TILES);
        last = min(last, ((int)blockIdx.z + 1) * TILES - 1);
        if (tile > last) return;
    }
    load_tile<128 * WGS, VP>(a, span, m, tile);
    load_queries<F16, BM, 4 * WGS, true>(a, m.q, BM, m.k_panels * WGMMA_PANEL, m.row);
    __syncthreads();
    int at = (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4;
    const struct query_row q[2] = {m.row[at], m.row[at + 8]};
    bool idle = !__any_sync(~0u, q[0].row >= 0 || q[1].row >= 0);
    reset(w);
    reset(all);
    for (; tile <= last; tile++) {
        cp_async_wait<0>();
        fence_proxy_async(); /* copies, queries and ones came through the generic proxy */
        __syncthreads();
        if (tile < last) load_tile<128 * WGS, VP>(a, span, m, tile + 1);
        attend_tile<F16, WGS, VP>(a, span, m, w, q, tile, idle);
        if (a.part || (tile < last && (tile + 1) % TILES)) continue;
        merge_split(all, w);
        reset(w);
    }
    /* Read again: what the tiles do not need took no registers meanwhile. */
    const struct query_row whose[2] = {m.row[at], m.row[at + 8]};
    if (a.part) {
        store_partial(a, w, whose, 0, (int)blockIdx.z);
    } else {
        store_output(a, all, whose, 0);
    }
#else
    (void)a;
    gpu_trap();
#endif
}

#define VARIANT(wgs, vp)                                                                       \
    {                                                                                          \
        {attend_wgmma<false, wgs, vp>, attend_wgmma<true, wgs, vp>}, 4 * wgs, 1, WGMMA_TILE,   \
            192, vp *WGMMA_PANEL, true                                                         \
    }

const struct attend_variant attend_sm90_variants[2 * attend_sm90_sizes] = {
    VARIANT(2, 1), VARIANT(1, 1), VARIANT(2, 2), VARIANT(1, 2)};
