// linear_f32.cu - linear maps of F32 weights: multiply-adds in F32.
//
// A warp computes WEIGHTS rows of weights times ROWS rows of x. Lane l sums k = 4 l .. 4 l + 3
// of every 128 in one chain of fused multiply-adds for each output; then the 32 lanes are added
// as a tree. No shared memory for the operands: the rows of x and of weights come through the
// first cache, in 16-byte pieces where they are aligned.
//
// Small matrices (gates of F32) at few rows have little to do and much latency to hide, so two
// weight rows a warp are the small tile; large F32 models are for comparison, not for speed.
//
// Bytes: weights and x once from memory. Not measured: this has run on no GPU yet.
//
// Determinism: the chains and the tree do not depend on the tile.
#include "kernels/cuda/linear_tile.cuh"

enum { F32_WARPS = 4, F32_SPAN = 128 }; // values of k that a warp takes at a time

// Values k .. k + 3 of a row of n, zeros beyond its end. `words`: all four at once may be read.
template <bool BF16> GPU_DEV float4 f32_load(const char *row, int64_t k, int64_t n, bool words)
{
    if (words && k + 4 <= n) {
        if (!BF16) return *(const float4 *)(row + k * 4);
        uint2 two = *(const uint2 *)(row + k * 2);
        return make_float4(__uint_as_float(two.x << 16), __uint_as_float(two.x & 0xffff0000u),
                           __uint_as_float(two.y << 16), __uint_as_float(two.y & 0xffff0000u));
    }
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = 0;
        if (k + i >= n) continue;
        v[i] = BF16 ? bf16_value(((const uint16_t *)row)[k + i]) : ((const float *)row)[k + i];
    }
    return make_float4(v[0], v[1], v[2], v[3]);
}

// The sum over the warp, the same tree in every lane.
GPU_DEV float f32_add_lanes(float v)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, d);
    return v;
}

// One tile; all lanes of a warp.
template <int WEIGHTS, int ROWS, bool BF16>
GPU_DEV void f32_tile(const struct linear_params &p, const struct linear_task &task,
                      bool words_w, bool words_x)
{
    constexpr int N = WEIGHTS * ROWS;
    bool gated = p.glu.kind != GLU_NONE;
    int lane = (int)threadIdx.x % 32, n_col = gated ? WEIGHTS / 2 : WEIGHTS;
    const char *w[WEIGHTS], *x[ROWS];
    float sum[N];
#pragma unroll
    for (int i = 0; i < WEIGHTS; i++) {
        // Columns that do not exist repeat the last one; they are not stored.
        int64_t col = task.col0 + (gated ? i % (WEIGHTS / 2) : i);
        col = col < p.n ? col : p.n - 1;
        bool up = gated && i >= WEIGHTS / 2;
        w[i] = up ? p.w_up.data + task.expert * p.w_up.expert_stride + col * p.w_up.stride
                  : p.w.data + task.expert * p.w.expert_stride + col * p.w.stride;
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int64_t from = task.row + (r < task.n_row ? r : 0);
        x[r] = p.x + (p.source ? p.source[from] : from) * p.x_stride;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        sum[i] = 0;
    for (int64_t k = lane * 4; k < p.k; k += F32_SPAN) {
        float4 a[WEIGHTS];
#pragma unroll
        for (int i = 0; i < WEIGHTS; i++)
            a[i] = f32_load<false>(w[i], k, p.k, words_w);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float4 b = f32_load<BF16>(x[r], k, p.k, words_x);
#pragma unroll
            for (int i = 0; i < WEIGHTS; i++) {
                float s = sum[i * ROWS + r];
                s = fmaf(a[i].x, b.x, s);
                s = fmaf(a[i].y, b.y, s);
                s = fmaf(a[i].z, b.z, s);
                sum[i * ROWS + r] = fmaf(a[i].w, b.w, s);
            }
        }
    }
    // Lane i stores output i: weight row i / ROWS, row of x i % ROWS.
    float mine = 0, up = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        float s = f32_add_lanes(sum[i]);
        if (lane == i) mine = s;
        if (lane == i - N / 2) up = s;
    }
    int col = lane / ROWS, row = lane % ROWS;
    if (col < n_col && row < task.n_row && task.col0 + col < p.n) {
        linear_store(p, task.expert, task.row + row, task.col0 + col, mine, up);
    }
}

template <int WEIGHTS, int ROWS, bool BF16>
__global__ void __launch_bounds__(F32_WARPS * 32)
    f32_kernel(const __grid_constant__ struct linear_params p, bool words_w, bool words_x)
{
    GPU_DYN_SMEM(smem);
    unsigned char *at = smem;
    int *first_tile = smem_take<int>(at, (size_t)p.n_expert + 1);
    int n_col = p.glu.kind != GLU_NONE ? WEIGHTS / 2 : WEIGHTS;
    int64_t n_col_tile = (p.n + n_col - 1) / n_col;
    linear_count_tiles(first_tile, p, ROWS);
    int64_t n_task = first_tile[p.n_expert] * n_col_tile;
    int64_t i = (int64_t)blockIdx.x * F32_WARPS + threadIdx.x / 32;
    for (; i < n_task; i += (int64_t)gridDim.x * F32_WARPS) {
        struct linear_task task = linear_task_at(first_tile, p, i, n_col_tile, n_col, ROWS);
        f32_tile<WEIGHTS, ROWS, BF16>(p, task, words_w, words_x);
    }
}

template <int WEIGHTS, int ROWS>
static pm_status f32_launch(struct device *d, const struct linear_params *p)
{
    size_t smem = GPU_SMEM_BYTES(int, (size_t)p->n_expert + 1);
    bool bf16 = p->x_type == PM_BF16;
    bool words_w = linear_stack_aligned(&p->w, 4) && linear_stack_aligned(&p->w_up, 4);
    bool words_x = ((uintptr_t)p->x | (uint64_t)p->x_stride) % (bf16 ? 8 : 16) == 0;
    auto kernel = bf16 ? f32_kernel<WEIGHTS, ROWS, true> : f32_kernel<WEIGHTS, ROWS, false>;
    int blocks = linear_grid(d, p, WEIGHTS * F32_WARPS, ROWS, smem, F32_WARPS * 32);
    return cuda_check(GPU_LAUNCH(kernel, dim3((unsigned)blocks), dim3(F32_WARPS * 32), smem,
                                 d->stream, *p, words_w, words_x),
                      "linear");
}

extern "C" pm_status cuda_linear_f32(struct device *d, const struct linear_params *p,
                                     const struct linear_plan *plan)
{
    switch (plan->weight_tile * 1000 + plan->row_tile) {
    case 2001: return f32_launch<2, 1>(d, p);
    case 4004: return f32_launch<4, 4>(d, p);
    default:
        return fail(PM_ERR_BUG, "linear: no tile of %d x %d", plan->weight_tile,
                    plan->row_tile);
    }
}
