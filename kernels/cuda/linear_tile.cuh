// linear_tile.cuh - what all kernels of linear maps share: which tile a block computes next,
// and what happens to a sum before it is stored.
//
// The host knows only an upper bound of the rows. A block reads the experts' offsets itself,
// counts the row tiles before each expert in shared memory and walks over the tiles of the
// whole operation in steps of the grid: expert by expert, in an expert weight tile by weight
// tile, in a weight tile row tile by row tile. Blocks that run at the same time therefore share
// weights, which come from memory once and then from the second cache.
// Has not run on hardware yet.
#ifndef KERNELS_CUDA_LINEAR_TILE_CUH
#define KERNELS_CUDA_LINEAR_TILE_CUH

#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/linear.h"

// A tile of the operation.
struct linear_task {
    int expert;
    int64_t row;  // first row of y
    int n_row;    // rows of y in it, 1 .. row tile
    int64_t col0; // first column of y
};

// Inclusive sums over the lanes of a warp.
GPU_DEV int linear_warp_sums(int sum)
{
    int lane = (int)threadIdx.x % 32;
    for (int d = 1; d < 32; d *= 2) {
        int left = __shfl_up_sync(0xffffffffu, sum, (unsigned)d);
        if (lane >= d) sum += left;
    }
    return sum;
}

// Fills first_tile[e] with the number of row tiles before expert e, e = 0 .. E, E at most
// LINEAR_MAX_EXPERT. Called by all threads of the block; first_tile [E + 1] in shared memory.
// Each warp sums 32 experts at a time; then all warps sum the totals of these groups, a lane a
// group.
GPU_DEV void linear_count_tiles(int *first_tile, const struct linear_params &p, int row_tile)
{
    int n_expert = p.n_expert, lane = (int)threadIdx.x % 32;
    int warp = (int)threadIdx.x / 32, n_warp = (int)blockDim.x / 32;
    for (int e0 = warp * 32; e0 < n_expert; e0 += n_warp * 32) {
        int e = e0 + lane;
        int64_t n = 0;
        if (e < n_expert) n = p.offset ? p.offset[e + 1] - p.offset[e] : p.max_row;
        int sum = linear_warp_sums((int)((n + row_tile - 1) / row_tile));
        if (e < n_expert) first_tile[e + 1] = sum;
    }
    if (threadIdx.x == 0) first_tile[0] = 0;
    __syncthreads();
    if (n_expert <= 32) return;
    int end = min(lane * 32 + 32, n_expert), total = lane * 32 < end ? first_tile[end] : 0;
    int before = linear_warp_sums(total) - total;
    __syncthreads();
    for (int e0 = warp * 32; e0 < n_expert; e0 += n_warp * 32) {
        int add = __shfl_sync(0xffffffffu, before, e0 / 32);
        if (e0 + lane < n_expert) first_tile[e0 + lane + 1] += add;
    }
    __syncthreads();
}

// Tile number `index` of the operation, where every expert has n_col_tile tiles of n_col
// columns of y. index < first_tile[E] * n_col_tile.
GPU_DEV struct linear_task linear_task_at(const int *first_tile, const struct linear_params &p,
                                          int64_t index, int64_t n_col_tile, int n_col,
                                          int row_tile)
{
    int low = 0, high = p.n_expert; // first_tile[low] n <= index < first_tile[high] n
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (first_tile[middle] * n_col_tile <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    struct linear_task task;
    int64_t n_row_tile = first_tile[low + 1] - first_tile[low];
    int64_t in_expert = index - first_tile[low] * n_col_tile;
    int64_t begin = p.offset ? p.offset[low] : 0;
    int64_t end = p.offset ? p.offset[low + 1] : p.max_row;
    task.expert = low;
    task.col0 = in_expert / n_row_tile * n_col;
    task.row = begin + in_expert % n_row_tile * row_tile;
    task.n_row = (int)(end - task.row < row_tile ? end - task.row : row_tile);
    return task;
}

// Element i of expert e's bias, 0 where there is none.
GPU_DEV float linear_bias(const struct linear_stack &b, int e, int64_t i)
{
    if (!b.data) return 0;
    const char *at = b.data + e * b.expert_stride;
    if (b.type == PM_F32) return ((const float *)at)[i];
    uint16_t code = ((const uint16_t *)at)[i];
    return b.type == PM_F16 ? f16_value(code) : bf16_value(code);
}

// Every kind is g / (1 + exp(-t)) * u: silu has t = g; gelu_tanh has t = 2 sqrt(2 / pi) (g +
// 0.044715 g^3), because (1 + tanh z) / 2 = 1 / (1 + exp(-2 z)). What is not a number stays so:
// the comparisons of the clamp are false for it.
GPU_DEV float linear_glu(const struct glu &glu, float g, float u)
{
    float t = g;
    if (glu.kind == GLU_GELU) {
        t = g * 1.5957691216057308f * fmaf(g * g, 0.044715f, 1.0f);
    } else if (glu.kind == GLU_CLAMPED) {
        if (g > glu.limit) g = glu.limit;
        if (u > glu.limit) u = glu.limit;
        if (u < -glu.limit) u = -glu.limit;
        u += 1.0f;
        t = g * glu.alpha;
    }
    return g / (1.0f + expf(-t)) * u;
}

// y[row, col] of an expert from its finished sums.
GPU_DEV void linear_store(const struct linear_params &p, int e, int64_t row, int64_t col,
                          float sum, float up)
{
    float v = sum + linear_bias(p.b, e, col);
    char *y = p.y + row * p.y_stride;
    if (p.glu.kind != GLU_NONE) v = linear_glu(p.glu, v, up + linear_bias(p.b_up, e, col));
    if (p.y_type == PM_F32) {
        ((float *)y)[col] = v;
    } else {
        ((uint16_t *)y)[col] = bf16_code(v);
    }
}

#endif
