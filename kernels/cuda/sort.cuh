/* sort.cuh - sorting choices by expert inside one launch; for gate.cu and permute.cu.
 *
 * A counting sort that keeps the order of the rows. Choices stand row by row, [T, K] flat; each
 * warp of the grid owns a run of them, warps and blocks in ascending order. First every warp
 * counts its choices per expert and notes, for each choice, how many of its own came before
 * (its rank). Then
 *
 *   sorted row of a choice = choices of lower experts
 *                          + choices of this expert in blocks before, in warps before, rank
 *
 * Each part is an exact integer, so nothing depends on the order in which blocks run. Blocks
 * exchange their counts through scratch memory and meet once at a barrier; a grid of one block
 * needs neither. Traffic beside the choices: B E counts of 4 bytes written, and read by each of
 * the B blocks out of L2. Has not run on hardware yet. */
#ifndef KERNELS_CUDA_SORT_CUH
#define KERNELS_CUDA_SORT_CUH

#include "kernels/cuda/math.cuh"

enum {
    SORT_MAX_WARPS = 16, /* of a block */
    SORT_MAX_THREADS = SORT_MAX_WARPS * WARP,
    SORT_MAX_EXPERTS = 512
};

struct sort_args {
    int n_expert, top_k;
    struct routing routing;
    int32_t *count;    /* scratch [blocks, E] */
    uint32_t *barrier; /* [2] of the device */
};

/* The shared memory of a sort. */
struct sort_memory {
    int32_t *before; /* [warps, E] counts of each warp, then of the warps before it */
    int32_t *total;  /* [E] choices of an expert */
    int32_t *base;   /* [E] of them in blocks before this one, then its first sorted row */
};

GPU_DEV struct sort_memory sort_take(unsigned char *&memory, int n_expert)
{
    int32_t *before = smem_take<int32_t>(memory, (size_t)(blockDim.x / WARP) * n_expert);
    int32_t *total = smem_take<int32_t>(memory, n_expert);
    return {before, total, smem_take<int32_t>(memory, n_expert)};
}

/* Warps of a block that shares n pieces of work: few rows need few. */
static inline int64_t sort_warps(int64_t n)
{
    return n <= 4 ? 4 : SORT_MAX_WARPS;
}

static inline size_t sort_bytes(int n_expert, int64_t n_warp)
{
    return GPU_SMEM_BYTES(int32_t, (size_t)n_warp * n_expert) +
           2 * GPU_SMEM_BYTES(int32_t, n_expert);
}

/* Sets all counts to zero; ends with a barrier. */
GPU_DEV void sort_begin(const struct sort_memory &m, int n_expert)
{
    for (int i = threadIdx.x; i < (int)blockDim.x / WARP * n_expert; i += blockDim.x) {
        m.before[i] = 0;
    }
    __syncthreads();
}

/* Waits for all blocks of the grid, which must run at the same time. What they wrote before can
 * be read after. state[0] counts arrivals and is left at zero; state[1] counts rounds. */
GPU_DEV void grid_barrier(uint32_t *state)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t round = ld_acquire(&state[1]);
        __threadfence();
        if (atomic_add_acq_rel(&state[0], 1) == gridDim.x - 1) {
            state[0] = 0;
            st_release(&state[1], round + 1);
        } else {
            while (ld_acquire(&state[1]) == round) {
                gpu_pause();
            }
        }
        __threadfence();
    }
    __syncthreads();
}

/* Turns the counts of each warp into the counts of the warps before it, and leaves the block's
 * own counts in total (one block) or in scratch. */
GPU_DEV void sort_sum_warps(const struct sort_args &a, const struct sort_memory &m)
{
    for (int e = threadIdx.x; e < a.n_expert; e += blockDim.x) {
        int32_t sum = 0;
        for (int w = 0; w < (int)blockDim.x / WARP; w++) {
            int32_t own = m.before[w * a.n_expert + e];
            m.before[w * a.n_expert + e] = sum;
            sum += own;
        }
        m.base[e] = 0;
        m.total[e] = gridDim.x == 1 ? sum : 0;
        if (gridDim.x > 1) a.count[(int64_t)blockIdx.x * a.n_expert + e] = sum;
    }
}

/* Sums the counts of all blocks, and of those before this one, over spare threads. */
GPU_DEV void sort_sum_blocks(const struct sort_args &a, const struct sort_memory &m)
{
    int n_part = max(1, (int)blockDim.x / a.n_expert), n_block = gridDim.x;
    for (int i = threadIdx.x; i < n_part * a.n_expert; i += blockDim.x) {
        int e = i % a.n_expert;
        int32_t before = 0, all = 0;
#pragma unroll 8
        for (int b = i / a.n_expert; b < n_block; b += n_part) {
            int32_t n = a.count[(int64_t)b * a.n_expert + e];
            all += n;
            if (b < (int)blockIdx.x) before += n;
        }
        atomicAdd(&m.total[e], all);
        atomicAdd(&m.base[e], before);
    }
}

/* One warp: base[e] becomes the first sorted row of this block's choices of e; the first block
 * writes the offsets. */
GPU_DEV void sort_offsets(const struct sort_args &a, const struct sort_memory &m)
{
    int lane = threadIdx.x % WARP, each = (a.n_expert + WARP - 1) / WARP;
    int first = min(lane * each, a.n_expert), end = min(first + each, a.n_expert);
    int32_t sum = 0, start;
    for (int e = first; e < end; e++) {
        sum += m.total[e];
    }
    start = sum;
    for (int step = 1; step < WARP; step *= 2) {
        int32_t lower = __shfl_up_sync(ALL_LANES, start, step);
        if (lane >= step) start += lower;
    }
    start -= sum;
    if (blockIdx.x == 0 && lane == WARP - 1) a.routing.offset[a.n_expert] = start + sum;
    for (int e = first; e < end; e++) {
        if (blockIdx.x == 0) a.routing.offset[e] = start;
        m.base[e] += start;
        start += m.total[e];
    }
}

/* After each warp's counts stand in m.before and the ranks of its choices first .. end - 1 in
 * place: fills offset, source and place. All threads of all blocks call it. */
GPU_DEV void sort_finish(const struct sort_args &a, const struct sort_memory &m, int64_t first,
                         int64_t end)
{
    const int32_t *before = m.before + threadIdx.x / WARP * a.n_expert;
    __syncthreads();
    sort_sum_warps(a, m);
    if (gridDim.x > 1) {
        grid_barrier(a.barrier);
        sort_sum_blocks(a, m);
    }
    __syncthreads();
    if (threadIdx.x < WARP) sort_offsets(a, m);
    __syncthreads();
    for (int64_t i = first + threadIdx.x % WARP; i < end; i += WARP) {
        int32_t e = a.routing.id[i];
        int32_t at = m.base[e] + before[e] + a.routing.place[i];
        a.routing.place[i] = at;
        a.routing.source[at] = (int32_t)(i / a.top_k);
    }
}

#endif
