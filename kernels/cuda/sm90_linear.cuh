// sm90_linear.cuh - the grouped linear map on Hopper: the device side of
// grouped_linear_sm90.cu.
//
// Weights are the M operand of wgmma (atoms of 64 rows), rows of x its N operand in multiples
// of 8: one path from one row to tens of thousands, and padding never exceeds the tile.
//
// A block is one producer warpgroup and 1 or 2 consumer warpgroups around a ring of stages of
// 64 or 128 values of k (sm90_ring.cuh). A consumer warpgroup owns two atoms: 128 rows of w, or
// 64 rows of w and the same rows of w_up, so that gate and up of a value of y meet in one
// thread's registers and weights need no interleaving. BF16 weights go from shared memory into
// the multiplication, those of smaller types through registers (sm90_widen.cuh).
//
// A task is (expert, tile of weights, tile of rows). Blocks stay and take every gridDim-th
// task; all warps find theirs in a table of first tiles per expert in shared memory. Rows of a
// task are computed with the smallest instruction that holds them. A value of y is the same
// chain of k16 steps in every instruction shape and tile, so its bits do not depend on the
// batch.
//
// Two consumer warpgroups work on the same task, with BF16 the second some steps behind the
// first: while one sends its sums away the other has the tensor cores to itself.
//
// Sums leave through shared memory: eight rows of y at a time, double buffered, one barrier of
// the warpgroup each, in 16-byte stores. Has not run on hardware yet.
#ifndef KERNELS_CUDA_SM90_LINEAR_CUH
#define KERNELS_CUDA_SM90_LINEAR_CUH

#include "kernels/cuda/sm90_ring.cuh"
#include "kernels/cuda/sm90_widen.cuh"

enum {
    SM90_LEAD = 2, // steps that the first of two consumer warpgroups is ahead
    SM90_LEAD_BARRIER = 5,
};

#if GPU_SM90A
// ------------------------------------------------------------------ consumers

// sum[atom] = an atom of the warpgroup times N rows of x, over all of K. The wgmmas of a stage
// run while those of the next are issued; then the stage goes back.
template <class S, int N>
GPU_DEV void sm90_multiply(float (&sum)[S::atoms][N / 2], const struct sm90_view &v,
                           struct sm90_ring &ring, int group, int n_step)
{
    int before = 0;
    bool leader = threadIdx.x % 32 == 0;
#pragma unroll
    for (int i = 0; i < S::atoms * N / 2; i++)
        sum[i / (N / 2)][i % (N / 2)] = 0.0f;
    // One arrival and one wait a task: with more steps than stages the first cannot be two
    // tasks ahead.
    bool lead = S::consumers == 2 && n_step > S::stages;
    if (lead && group == 1) named_barrier(SM90_LEAD_BARRIER, 2 * SM90_WARPGROUP);
#pragma unroll 1
    for (int step = 0; step < n_step; step++) {
        if (lead && group == 0 && step == SM90_LEAD)
            named_barrier_arrive(SM90_LEAD_BARRIER, 2 * SM90_WARPGROUP);
        const unsigned char *w = v.w + ring.stage * S::w_stage;
        uint64_t w_desc = wgmma_desc_k128(smem_u32(w + group * S::atoms * S::w_atom));
        uint64_t x_desc = wgmma_desc_k128(smem_u32(v.x + ring.stage * S::x_stage));
        mbar_wait(&v.full[ring.stage], ring.parity);
        fence_proxy_async(); // rows of x came through the generic proxy
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < SM90_PANEL / 16; i++) { // 32 bytes along k
#pragma unroll
            for (int j = 0; j < S::atoms; j++)
                wgmma_bf16(sum[j], w_desc + j * (S::w_atom / 16) + i * 2, x_desc + i * 2);
        }
        wgmma_commit();
        if (step > 0) {
            wgmma_wait<1>();
            if (leader) mbar_arrive(&v.empty[before]);
        }
        before = ring.stage;
        sm90_advance<S>(ring);
    }
    wgmma_wait<0>();
#pragma unroll
    for (int j = 0; j < S::atoms; j++)
        wgmma_hold(sum[j]);
    if (leader) mbar_arrive(&v.empty[before]);
}

// The biases of a thread's rows of weights: of each atom rows `col` and col + 8.
template <class S>
GPU_DEV void sm90_biases(float (&out)[S::atoms][2], const struct sm90_args &a, int expert,
                         int64_t col)
{
    bool gated = a.p.glu.kind != GLU_NONE;
#pragma unroll
    for (int i = 0; i < S::atoms * 2; i++) {
        int64_t at = col + i % 2 * 8 + (gated ? 0 : i / 2 * SM90_ATOM);
        const struct linear_stack &b = gated && i / 2 ? a.p.b_up : a.p.b;
        out[i / 2][i % 2] = at < a.p.n ? linear_bias(b, expert, at) : 0.0f;
    }
}

// Puts a thread's values of eight rows of y into shared memory. value[atom][half][parity]:
// value 8 half + lane / 4 of the warp's 16 in an atom, row 2 (lane % 4) + parity.
template <int ATOMS> GPU_DEV void sm90_stage(float *out, const float (&value)[ATOMS][2][2])
{
    int tid = (int)threadIdx.x % SM90_WARPGROUP, lane = tid % 32;
    float *to = out + lane % 4 * 2 * SM90_OUT_F32 + tid / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < ATOMS * 4; i++) {
        int atom = i / 4, half = i / 2 % 2, parity = i % 2;
        to[parity * SM90_OUT_F32 + atom * SM90_ATOM + half * 8] = value[atom][half][parity];
    }
}

// Matrix lane / 8 is half lane / 8 % 2 of atom lane / 16; a lane names its row lane % 8.
template <int ATOMS> GPU_DEV void sm90_stage(uint16_t *out, const float (&value)[ATOMS][2][2])
{
    int tid = (int)threadIdx.x % SM90_WARPGROUP, lane = tid % 32;
    uint16_t *to = out + lane % 8 * SM90_OUT_BF16 + tid / 32 * 16 + lane / 8 % 2 * 8;
    uint32_t word[ATOMS * 2];
#pragma unroll
    for (int i = 0; i < ATOMS * 2; i++)
        word[i] = bf16_pair(value[i / 2][i % 2][0], value[i / 2][i % 2][1]);
    if constexpr (ATOMS == 2) {
        stmatrix_x4_trans(to + lane / 16 * SM90_ATOM, word);
    } else {
        stmatrix_x2_trans(to, word);
    }
}

// Copies `count` staged rows of `cols` values to y, beginning at (row, col).
template <class T>
GPU_DEV void sm90_store(const struct sm90_args &a, const T *out, int64_t row, int count,
                        int64_t col, int cols)
{
    enum { LANES = 16 / sizeof(T), PITCH = sizeof(T) == 2 ? SM90_OUT_BF16 : SM90_OUT_F32 };
    int per_row = cols / LANES; // a power of two
    for (int i = (int)threadIdx.x % SM90_WARPGROUP; i < count * per_row; i += SM90_WARPGROUP) {
        int r = i / per_row, c = i % per_row * LANES;
        const T *from = out + r * PITCH + c;
        T *to = (T *)(a.p.y + (row + r) * a.p.y_stride) + col + c;
        if (a.wide_y && col + c + LANES <= a.p.n) {
            *(uint4 *)to = *(const uint4 *)from;
        } else {
#pragma unroll 1
            for (int j = 0; j < LANES && col + c + j < a.p.n; j++)
                to[j] = from[j];
        }
    }
}

// Bias and activation, in place; gated values are left in sum[0].
template <class S, int N>
GPU_DEV void sm90_finish(float (&sum)[S::atoms][N / 2], const struct sm90_args &a,
                         const float (&bias)[S::atoms][2])
{
#pragma unroll
    for (int i = 0; i < S::atoms * N / 2; i++) {
        int atom = i / (N / 2), at = i % (N / 2);
        sum[atom][at] += bias[atom][at / 2 % 2];
    }
    if constexpr (S::atoms == 2) {
        if (a.p.glu.kind == GLU_NONE) return;
#pragma unroll
        for (int i = 0; i < N / 2; i++)
            sum[0][i] = linear_glu(a.p.glu, sum[0][i], sum[1][i]);
    }
}

// Brings the first ATOMS atoms to y, of type T, 8 or 16 rows at a time. `buffer` alternates
// over the whole life of the warpgroup: a thread that writes a buffer again has passed the
// barrier of the other one, which all others reach after they read the first.
template <class S, int N, int ATOMS, class T>
GPU_DEV void sm90_send(const struct sm90_args &a, const struct linear_task &task,
                       const float (&sum)[S::atoms][N / 2], unsigned char *out, int &buffer,
                       int64_t col)
{
    enum {
        ROWS = sizeof(T) == 2 && N > 8 ? 16 : 8,
        PITCH = sizeof(T) == 2 ? SM90_OUT_BF16 : SM90_OUT_F32
    };
#pragma unroll
    for (int first = 0; first < N; first += ROWS) {
        int left = task.n_row - first;
        T *to = (T *)(out + buffer * SM90_OUT_BYTES);
        if (left <= 0) break;
#pragma unroll
        for (int g = 0; g < ROWS; g += 8) {
            float value[ATOMS][2][2];
#pragma unroll
            for (int i = 0; i < ATOMS * 4; i++)
                value[i / 4][i / 2 % 2][i % 2] = sum[i / 4][(first + g) / 2 + i % 4];
            sm90_stage<ATOMS>(to + g * PITCH, value);
        }
        named_barrier(1 + (int)threadIdx.x / SM90_WARPGROUP, SM90_WARPGROUP);
        sm90_store(a, to, task.row + first, left < ROWS ? left : ROWS, col, ATOMS * SM90_ATOM);
        buffer ^= 1;
    }
}

// A task with N rows of x in an instruction.
template <class S, int N>
GPU_DEV void sm90_compute(const struct sm90_args &a, const struct sm90_view &v,
                          const struct linear_task &task, struct sm90_ring &ring, int &buffer)
{
    int tid = (int)threadIdx.x % SM90_WARPGROUP;
    int group = (int)threadIdx.x / SM90_WARPGROUP - 1;
    int64_t col = task.col0 + group * sm90_cols<S>(a);
    int64_t own = col + tid / 32 * 16 + tid % 32 / 4; // the thread's first row of weights
    float bias[S::atoms][2], sum[S::atoms][N / 2];
    sm90_biases<S>(bias, a, task.expert, own);
    if constexpr (S::type == PM_BF16) {
        sm90_multiply<S, N>(sum, v, ring, group, sm90_steps<S>(a));
    } else {
        sm90_multiply_widened<S, N>(sum, a, v, ring, group, {own, task.expert});
    }
    unsigned char *out = v.out + group * 2 * SM90_OUT_BYTES;
    bool wide = a.p.y_type == PM_F32;
    sm90_finish<S, N>(sum, a, bias);
    if (S::atoms == 1 || a.p.glu.kind != GLU_NONE) {
        if (wide)
            sm90_send<S, N, 1, float>(a, task, sum, out, buffer, col);
        else
            sm90_send<S, N, 1, uint16_t>(a, task, sum, out, buffer, col);
    } else {
        if (wide)
            sm90_send<S, N, S::atoms, float>(a, task, sum, out, buffer, col);
        else
            sm90_send<S, N, S::atoms, uint16_t>(a, task, sum, out, buffer, col);
    }
}

// The same with the smallest N >= FROM that holds its rows, see sm90_rows.
template <class S, int FROM>
GPU_DEV void sm90_compute_rows(const struct sm90_args &a, const struct sm90_view &v,
                               const struct linear_task &task, struct sm90_ring &ring,
                               int &buffer)
{
    if constexpr (FROM >= S::rows) {
        sm90_compute<S, S::rows>(a, v, task, ring, buffer);
    } else if (task.n_row <= FROM) {
        sm90_compute<S, FROM>(a, v, task, ring, buffer);
    } else {
        sm90_compute_rows<S, FROM * 2>(a, v, task, ring, buffer);
    }
}

template <class S>
GPU_DEV void sm90_consume(const struct sm90_args &a, const struct sm90_view &v)
{
    struct sm90_ring ring = {0, 0};
    struct sm90_walk walk = sm90_begin<S>(a, v);
    struct linear_task task;
    int buffer = 0;
    while (sm90_next<S>(task, walk, a, v))
        sm90_compute_rows<S, SM90_ROWS>(a, v, task, ring, buffer);
}
#endif

template <class S>
__global__ void __launch_bounds__(S::threads, S::blocks)
    grouped_linear_sm90(const __grid_constant__ struct sm90_args a)
{
#if GPU_SM90A
    GPU_DYN_SMEM(smem);
    struct sm90_view v = sm90_carve<S>(smem);
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::stages; i++) {
            mbar_init(&v.full[i], SM90_WARPGROUP + 1); // each producer's rows, and the bytes
            mbar_init(&v.empty[i], S::consumers * SM90_WARPGROUP / 32);
        }
        fence_barrier_init();
        tma_prefetch_map(&a.w);
    }
    if (a.p.offset) griddep_wait(); // offsets come from the kernel before
    griddep_launch();
    linear_count_tiles(v.first_tile, a.p, S::rows);
    // Sums fill the consumers' registers; the producers give theirs away.
    if (threadIdx.x < SM90_WARPGROUP) {
        if constexpr (S::produce_regs > 0) reg_dealloc<S::produce_regs>();
        sm90_produce<S>(a, v);
    } else {
        if constexpr (S::consume_regs > 0) reg_alloc<S::consume_regs>();
        sm90_consume<S>(a, v);
    }
#else
    gpu_trap();
#endif
}

// Upper bound of the tasks: an expert has at most one tile that is not full, and only if it has
// a row.
template <class S> static int64_t sm90_most_tasks(const struct linear_params *p)
{
    int64_t part = p->n_expert < p->max_row ? p->n_expert : p->max_row;
    int64_t cols = S::consumers * SM90_ATOM * (p->glu.kind == GLU_NONE ? S::atoms : 1);
    return (p->max_row / S::rows + part) * ((p->n + cols - 1) / cols);
}

// Enqueues a kernel of shape S.
template <class S> static pm_status sm90_launch(struct device *d, const struct sm90_args *a)
{
    int64_t most = sm90_most_tasks<S>(&a->p), fit = (int64_t)d->n_sm * S::blocks;
    dim3 grid((unsigned)(most < fit ? most : fit));
    TRY(cuda_check(cudaFuncSetAttribute((const void *)grouped_linear_sm90<S>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        (int)sm90_smem<S>()),
                   "grouped linear: shared memory"));
    return cuda_check(GPU_LAUNCH_PDL((grouped_linear_sm90<S>), grid, dim3(S::threads),
                                     sm90_smem<S>(), d->stream, *a),
                      "grouped linear");
}

// The kernels of a type: each in a file of its own, those for many rows in another, for the
// sake of compile times.
pm_status sm90_launch_bf16(struct device *d, const struct sm90_args *a,
                           const struct linear_plan *plan);
pm_status sm90_launch_f8(struct device *d, const struct sm90_args *a,
                         const struct linear_plan *plan);
pm_status sm90_launch_mxfp4(struct device *d, const struct sm90_args *a,
                            const struct linear_plan *plan);
pm_status sm90_prefill_bf16(struct device *d, const struct sm90_args *a);
pm_status sm90_prefill_f8(struct device *d, const struct sm90_args *a);
pm_status sm90_prefill_mxfp4(struct device *d, const struct sm90_args *a);

// Chooses among the kernels of a type; false: the one for many rows. Few tasks fill few
// multiprocessors: smaller ones then, each with all of the shared memory.
template <class THIN, class DECODE, class MIDDLE>
static bool sm90_launch_few(pm_status *status, struct device *d, const struct sm90_args *a,
                            const struct linear_plan *plan)
{
    bool few = plan->weight_tile <= SM90_ATOM || 2 * sm90_most_tasks<DECODE>(&a->p) <= d->n_sm;
    if (plan->row_tile > MIDDLE::rows) return false;
    if (plan->row_tile > DECODE::rows) {
        *status = sm90_launch<MIDDLE>(d, a);
    } else if (few && a->p.glu.kind == GLU_NONE) {
        *status = sm90_launch<THIN>(d, a);
    } else {
        *status = sm90_launch<DECODE>(d, a);
    }
    return true;
}

#endif
