// sm90_ring.cuh - the grouped linear map on Hopper, first half: the shape of a kernel, its
// shared memory, its walk over the tasks, and the producers. sm90_linear.cuh has the whole
// picture.
//
// A stage of the ring holds `step` values of k: for each atom of 64 rows of weights a tile as
// the file has them, and rows of x in panels of 64 values, 128 bytes, in the 128-byte swizzle.
//
//   weights    values a stage   bytes of a row   as
//   BF16             64              128         128-byte swizzle: an operand of wgmma
//   F8_E4M3         128              128         128-byte swizzle: its chunks of 16 values fall
//                                                in different banks for neighbouring rows
//   MXFP4           128               64         plain rows
//
// One lane of the producers asks TMA for the weights ([k, row, expert] maps, zeros beyond the
// edges); all of them gather rows of x with 16-byte cp.async. Both report to the stage's `full`
// barrier. Has not run on hardware yet.
#ifndef KERNELS_CUDA_SM90_RING_CUH
#define KERNELS_CUDA_SM90_RING_CUH

#include "kernels/cuda/linear_tile.cuh"
#include "kernels/cuda/ptx.cuh"

enum {
    SM90_ATOM = 64,  // rows of weights of a wgmma
    SM90_PANEL = 64, // values of k in a panel of x: 128 bytes, a row of the swizzle
    SM90_ROWS = 8,   // rows of x of the smallest wgmma
    SM90_WARPGROUP = 128,
};

// What a launch hands over. Maps are [K, N, E] with boxes of a tile: step x 64 x 1; of MXFP4 in
// bytes.
struct sm90_args {
    CUtensorMap w, w_up;
    struct linear_params p;
    bool flip, flip_up; // the map counts experts downwards
    bool wide_y;        // rows of y admit 16-byte stores
};

// Values of k in a stage, and bytes of a row of weights there.
constexpr int sm90_step(pm_dtype type)
{
    return type == PM_BF16 ? SM90_PANEL : 2 * SM90_PANEL;
}
constexpr int sm90_row_bytes(pm_dtype type)
{
    return type == PM_MXFP4 ? SM90_PANEL : 2 * SM90_PANEL;
}

// The shape of a kernel: type of the weights, rows of x in a tile, consumer warpgroups, atoms
// of each, stages, blocks an SM. Gated maps take two atoms.
template <pm_dtype TYPE, int ROWS, int CONSUMERS, int ATOMS, int STAGES, int BLOCKS>
struct sm90_shape {
    static constexpr pm_dtype type = TYPE;
    enum {
        rows = ROWS,
        consumers = CONSUMERS,
        atoms = ATOMS,
        stages = STAGES,
        blocks = BLOCKS,
        threads = (CONSUMERS + 1) * SM90_WARPGROUP,
        step = sm90_step(TYPE),
        w_atom = SM90_ATOM * sm90_row_bytes(TYPE), // bytes of a tile
        w_stage = CONSUMERS * ATOMS * w_atom,
        x_panel = ROWS * SM90_PANEL, // values
        x_stage = ROWS * step,
        // Registers of a thread: together what the blocks share out evenly; 0: stay at that.
        even = ROWS <= 16 && (TYPE == PM_BF16 || BLOCKS == 1),
        produce_regs = even             ? 0
                       : CONSUMERS == 2 ? 40
                                        : 72,
        consume_regs = even             ? 0
                       : CONSUMERS == 2 ? 232
                                        : 184,
    };
};

enum {
    SM90_OUT_F32 = 2 * SM90_ATOM + 4,        // floats from a staged row to the next, and
    SM90_OUT_BF16 = 2 * SM90_ATOM + 8,       // bf16 values: eight rows never meet in a bank
    SM90_OUT_BYTES = 16 * SM90_OUT_BF16 * 2, // 16 rows of bf16, or 8 of F32
};

// Dynamic shared memory of a block.
template <class S> constexpr size_t sm90_smem()
{
    return 1024 + GPU_SMEM_BYTES(uint8_t, S::stages * S::w_stage) +
           GPU_SMEM_BYTES(uint16_t, S::stages * S::x_stage) +
           GPU_SMEM_BYTES(uint8_t, S::consumers * 2 * SM90_OUT_BYTES) +
           GPU_SMEM_BYTES(uint64_t, 2 * S::stages) + GPU_SMEM_BYTES(int, LINEAR_MAX_EXPERT + 1);
}

#if GPU_SM90A
struct sm90_view {
    unsigned char *w;   // [stages, atoms, 64, bytes of a row]
    uint16_t *x;        // [stages, panels, rows, 64], swizzled
    unsigned char *out; // [consumers, 2, SM90_OUT_BYTES]
    uint64_t *full, *empty;
    int *first_tile; // [E + 1] row tiles before an expert
};

template <class S> GPU_DEV struct sm90_view sm90_carve(unsigned char *p)
{
    struct sm90_view v;
    p += (1024 - smem_u32(p) % 1024) % 1024; // the swizzle counts from multiples of 1024
    v.w = smem_take<uint8_t>(p, S::stages * S::w_stage);
    v.x = smem_take<uint16_t>(p, S::stages * S::x_stage);
    v.out = smem_take<uint8_t>(p, S::consumers * 2 * SM90_OUT_BYTES);
    v.full = smem_take<uint64_t>(p, 2 * S::stages);
    v.empty = v.full + S::stages;
    v.first_tile = smem_take<int>(p, LINEAR_MAX_EXPERT + 1);
    return v;
}

// Where a thread stands in the ring. `parity` is that of the stage's next completion.
struct sm90_ring {
    int stage;
    uint32_t parity;
};

template <class S> GPU_DEV void sm90_advance(struct sm90_ring &r)
{
    if (++r.stage < S::stages) return;
    r.stage = 0;
    r.parity ^= 1;
}

// Columns of y of a consumer warpgroup: half of its atoms are of w_up when gated.
template <class S> GPU_DEV int sm90_cols(const struct sm90_args &a)
{
    return a.p.glu.kind == GLU_NONE ? S::atoms * SM90_ATOM : SM90_ATOM;
}

// The walk over the tasks of a block. Producers and consumers make the same one.
struct sm90_walk {
    int64_t task, n_task, n_col_tile;
    int cols;
};

template <class S>
GPU_DEV struct sm90_walk sm90_begin(const struct sm90_args &a, const struct sm90_view &v)
{
    struct sm90_walk walk;
    walk.cols = S::consumers * sm90_cols<S>(a);
    walk.n_col_tile = (a.p.n + walk.cols - 1) / walk.cols;
    walk.n_task = v.first_tile[a.p.n_expert] * walk.n_col_tile;
    walk.task = blockIdx.x;
    return walk;
}

template <class S>
GPU_DEV bool sm90_next(struct linear_task &task, struct sm90_walk &walk,
                       const struct sm90_args &a, const struct sm90_view &v)
{
    if (walk.task >= walk.n_task) return false;
    task = linear_task_at(v.first_tile, a.p, walk.task, walk.n_col_tile, walk.cols, S::rows);
    walk.task += gridDim.x;
    return true;
}

// Rows of x that are multiplied for a task: the smallest instruction that holds n_row.
template <class S> GPU_DEV int sm90_rows(int n_row)
{
    int rows = SM90_ROWS;
    while (rows < n_row)
        rows *= 2;
    return rows < S::rows ? rows : S::rows;
}

// Steps over K.
template <class S> GPU_DEV int sm90_steps(const struct sm90_args &a)
{
    return (int)((a.p.k + S::step - 1) / S::step);
}

// ------------------------------------------------------------------ producers

template <class S>
GPU_DEV void sm90_load_weights(const struct sm90_args &a, const struct sm90_view &v,
                               const struct linear_task &task, int stage, int k)
{
    bool gated = a.p.glu.kind != GLU_NONE;
    unsigned char *to = v.w + stage * S::w_stage;
    uint64_t *full = &v.full[stage];
    int row = (int)task.col0, last = a.p.n_expert - 1;
    int e = a.flip ? last - task.expert : task.expert;
    int e_up = a.flip_up ? last - task.expert : task.expert;
    if (S::type == PM_MXFP4) k /= 2;
    mbar_arrive_tx(full, S::w_stage);
#pragma unroll
    for (int i = 0; i < S::consumers * S::atoms; i++, to += S::w_atom) {
        if (gated && i % 2 == 1) {
            tma_load_3d(to, &a.w_up, full, k, row, e_up);
        } else {
            tma_load_3d(to, &a.w, full, k, row, e);
        }
        if (!gated || i % 2 == 1) row += SM90_ATOM;
    }
}

// One lane fills the ring with the first task's weights, which no kernel before wrote. Returns
// how many steps that were.
template <class S>
GPU_DEV int sm90_weights_ahead(const struct sm90_args &a, const struct sm90_view &v)
{
    int n_step = sm90_steps<S>(a), n = n_step < S::stages ? n_step : S::stages;
    struct sm90_walk walk = sm90_begin<S>(a, v);
    struct linear_task task;
    if (!sm90_next<S>(task, walk, a, v)) return 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < n; i++)
            sm90_load_weights<S>(a, v, task, i, i * S::step);
    }
    return n;
}

// A thread copies one 16-byte chunk of each 16th row of a panel. Rows beyond the task and
// values beyond K become zeros.
template <class S>
GPU_DEV void sm90_produce(const struct sm90_args &a, const struct sm90_view &v)
{
    enum { EACH = (S::rows + 15) / 16, PANELS = S::step / SM90_PANEL };
    int tid = (int)threadIdx.x % SM90_WARPGROUP, lane_row = tid / 8, chunk = tid % 8;
    int n_step = sm90_steps<S>(a), ahead = sm90_weights_ahead<S>(a, v);
    struct sm90_ring ring = {0, 1}; // the first pass finds every stage empty
    struct sm90_walk walk = sm90_begin<S>(a, v);
    struct linear_task task;
    griddep_wait(); // x comes from the kernel before, which may still read y
    while (sm90_next<S>(task, walk, a, v)) {
        int rows = sm90_rows<S>(task.n_row);
        int64_t from[EACH]; // row of x, or -1
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int r = lane_row + i * 16;
            from[i] = -1;
            if (r < task.n_row) from[i] = a.p.source ? a.p.source[task.row + r] : task.row + r;
        }
        for (int step = 0; step < n_step; step++, sm90_advance<S>(ring)) {
            int k = step * S::step;
            uint16_t *stage = v.x + ring.stage * S::x_stage;
            mbar_wait(&v.empty[ring.stage], ring.parity);
            if (ahead > 0)
                ahead--;
            else if (tid == 0)
                sm90_load_weights<S>(a, v, task, ring.stage, k);
#pragma unroll
            for (int i = 0; i < EACH * PANELS; i++) {
                int r = lane_row + i / PANELS * 16,
                    col = k + i % PANELS * SM90_PANEL + chunk * 8;
                unsigned char *to = (unsigned char *)(stage + i % PANELS * S::x_panel);
                bool some = from[i / PANELS] >= 0 && col < a.p.k;
                const char *x = a.p.x;
                if (some) x += from[i / PANELS] * a.p.x_stride + (int64_t)col * 2;
                if (r < rows) cp_async16(to + swizzle_128(r, chunk * 16), x, some);
            }
            cp_async_mbar_arrive_noinc(&v.full[ring.stage]);
        }
    }
}
#endif

#endif
