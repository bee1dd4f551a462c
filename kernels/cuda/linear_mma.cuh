// linear_mma.cuh - linear maps on mma.sync, sm_80 and up, for all types but F32.
//
// Weights are the M operand and rows of x the N operand: a block computes WEIGHT_TILE rows of
// weights times ROW_TILE rows of x, so an expert with one row wastes 7 of 8 columns of a cheap
// instruction and no memory traffic. A gated map fills the lower half of the tile with rows of
// w and the upper half with the same rows of w_up; they meet when the sums are stored, so both
// matrices stay as they are in the file.
//
//   ring of STAGES x 64 values of k      cp.async: weights as stored, rows of x gathered
//   -> (F8, MXFP4) 64 k of BF16 weights  exact, through registers
//   -> ldmatrix -> mma m16n8k16          one f32 sum per output, k ascending
//   -> sums in shared memory -> bias, glu, type of y -> rows of y
//
// Tiles in shared memory have rows of 128 bytes whose 16-byte chunks are permuted by the row
// (chunk ^ row % 8), which makes cp.async, ldmatrix and the conversion free of bank conflicts.
//
// What is not aligned to 16 bytes, or ends inside a chunk, is copied byte by byte: right and
// slow. Beyond N, beyond K and beyond an expert's rows the tile holds zeros.
//
// F8_E4M3: products of 128 k are summed apart, times the scale of their 128 x 128 block, then
// added. MXFP4: weights times their scale are exact in BF16; what is too large for a float32 is
// infinite.
//
// Bytes: the weights of every expert that has rows, once (more often only from the second
// cache), x once per weight tile from the second cache, y once. Floor of the time: these bytes
// over the memory's rate below about 150 rows an expert (BF16), 2 N K flops a row above. Not
// measured: this has run on no GPU yet.
//
// Determinism: an output is one chain of mma over k, and in all tiles the same chain.
#ifndef KERNELS_CUDA_LINEAR_MMA_CUH
#define KERNELS_CUDA_LINEAR_MMA_CUH

#include "kernels/cuda/linear_tile.cuh"
#include "kernels/cuda/linear_widen.cuh"

enum {
    MMA_STEP = 64,       // values of k in a stage
    MMA_ROW_BYTES = 128, // of a tile in shared memory
    MMA_CHUNK = 16,      // bytes of a copy
    MMA_SUM_PAD = 4      // floats after the sums of a row of x: no bank conflicts
};

// Compile-time shape of a kernel.
template <pm_dtype TYPE_, int WEIGHT_TILE_, int ROW_TILE_, int WARPS_M_, int WARPS_N_>
struct mma_config {
    static constexpr pm_dtype TYPE = TYPE_;
    static constexpr int WEIGHT_TILE = WEIGHT_TILE_, ROW_TILE = ROW_TILE_;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
    // Blocks on a multiprocessor, at least.
    static constexpr int BLOCKS = WEIGHT_TILE == 128 ? 512 / THREADS / 2 : 4;
    static constexpr int ATOMS_M = WEIGHT_TILE / WARPS_M / 16; // of a warp
    static constexpr int ATOMS_N = ROW_TILE / WARPS_N / 8;
    static constexpr int STAGES = linear_mma_stages(WEIGHT_TILE, ROW_TILE);
    static constexpr int RAW = linear_mma_raw(TYPE); // bytes of a stored row in a stage
    static_assert(RAW > 0, "a type of linear_mma_raw");
    static constexpr int CHUNKS = RAW / MMA_CHUNK, PASS = THREADS / CHUNKS; // rows at a time
    static constexpr bool CONVERT = RAW != MMA_ROW_BYTES;
    static constexpr bool BLOCK_SCALED = TYPE == PM_F8_E4M3;
    static constexpr int W_STAGE = WEIGHT_TILE * RAW, X_STAGE = ROW_TILE * MMA_ROW_BYTES;
    static constexpr int RING = STAGES * (W_STAGE + X_STAGE);
    static constexpr int WIDE = CONVERT ? WEIGHT_TILE * MMA_ROW_BYTES : 0;
    static constexpr int SUM_STRIDE = WEIGHT_TILE + MMA_SUM_PAD; // floats
    static constexpr int SCALES = TYPE == PM_MXFP4 ? WEIGHT_TILE * 2 / THREADS : 1;
    static_assert(WEIGHT_TILE * 2 % THREADS == 0 || TYPE != PM_MXFP4, "a unit a thread");
    static_assert(ROW_TILE * SUM_STRIDE * 4 <= RING + WIDE, "sums take the place of the ring");
};

// What a thread knows of the tile it copies. Its unit in pass i is row `first row` + i * PASS
// of the weights, and the same chunk of all rows. Pointers move on with k: sums of a pointer
// and a distance are made when they are needed and take no registers in between.
template <class C> struct mma_tile {
    // The thread's chunk of its first row in the lower and of row 0 + that in the upper half of
    // the weight tile, and the rows of these halves that exist.
    const char *w, *w_upper;
    int n_row, n_row_upper;
    const char *x[(C::ROW_TILE * 8 + C::THREADS - 1) / C::THREADS]; // rows copied; NULL: none
    const char *scale, *scale_upper; // MXFP4: scales of row 0 of the halves
    int k;                           // of the next copy
};

// F8_E4M3: where the scales of a tile's rows begin. Rows before `bound` have the scales at `w`,
// the others, of which there are some where `more`, those one row further in the grid of
// scales; in a gated map rows of w_up have scales of their own.
struct mma_blocks {
    const char *w, *up;
    int bound, bound_up;
    bool more, more_up;
};

// Chunk `chunk` of row `row` of a tile.
GPU_DEV unsigned char *mma_chunk(unsigned char *tile, int row, int chunk)
{
    return tile + row * MMA_ROW_BYTES + ((chunk ^ (row & 7)) * MMA_CHUNK);
}

// Where weights lie as stored in a stage. 16-bit types are the tile itself.
template <class C>
GPU_DEV unsigned char *mma_raw_chunk(unsigned char *stage, int row, int chunk)
{
    return C::CONVERT ? stage + row * C::RAW + chunk * MMA_CHUNK : mma_chunk(stage, row, chunk);
}

// A chunk of which `left` bytes are there, zeros beyond.
GPU_DEV void mma_copy_bytes(unsigned char *to, const char *from, int left)
{
#pragma unroll 1
    for (int i = 0; i < MMA_CHUNK; i++) {
        to[i] = i < left ? (unsigned char)from[i] : 0;
    }
}

GPU_DEV const char *mma_weight_row(const struct linear_stack &w, int e, int64_t row)
{
    return w.data + e * w.expert_stride + row * w.stride;
}

GPU_DEV const char *mma_scale_row(const struct linear_stack &w, int e, int64_t row)
{
    return w.scale + e * w.scale_expert_stride + row * w.scale_stride;
}

GPU_DEV int mma_clamp(int64_t n, int most)
{
    return n < 0 ? 0 : n < most ? (int)n : most;
}

template <class C>
GPU_DEV void mma_begin(struct mma_tile<C> &t, const struct linear_params &p,
                       const struct linear_task &task)
{
    constexpr int HALF = C::WEIGHT_TILE / 2;
    bool gated = p.glu.kind != GLU_NONE;
    int first = (int)threadIdx.x / C::CHUNKS, chunk = (int)threadIdx.x % C::CHUNKS;
    int64_t upper = task.col0 + (gated ? 0 : HALF);
    const struct linear_stack &w_upper = gated ? p.w_up : p.w;
    t.n_row = mma_clamp(p.n - task.col0, HALF);
    t.n_row_upper = mma_clamp(p.n - upper, HALF);
    t.w = mma_weight_row(p.w, task.expert, task.col0 + first) + chunk * MMA_CHUNK;
    t.w_upper = mma_weight_row(w_upper, task.expert, upper + first - HALF) + chunk * MMA_CHUNK;
    if (C::TYPE == PM_MXFP4) {
        t.scale = mma_scale_row(p.w, task.expert, task.col0);
        t.scale_upper = mma_scale_row(w_upper, task.expert, upper);
    }
#pragma unroll
    for (int i = 0; i < (int)(sizeof t.x / sizeof *t.x); i++) {
        int unit = (int)threadIdx.x + i * C::THREADS, row = unit / 8;
        t.x[i] = NULL;
        if (row < task.n_row) {
            int64_t from = task.row + row;
            if (p.source) from = p.source[from];
            t.x[i] = p.x + from * p.x_stride + unit % 8 * MMA_CHUNK;
        }
    }
    t.k = 0;
}

// Where this thread's weights of pass i begin; NULL where there is no such row.
template <class C>
GPU_DEV const char *mma_weight_at(const struct mma_tile<C> &t, const struct linear_params &p,
                                  int i)
{
    constexpr int HALF = C::WEIGHT_TILE / 2;
    int row = (int)threadIdx.x / C::CHUNKS + i * C::PASS;
    if (C::PASS <= HALF ? i * C::PASS < HALF : row < HALF) {
        return row < t.n_row ? t.w + i * C::PASS * p.w.stride : NULL;
    }
    int64_t stride = p.glu.kind != GLU_NONE ? p.w_up.stride : p.w.stride;
    return row - HALF < t.n_row_upper ? t.w_upper + i * C::PASS * stride : NULL;
}

// Begins to copy the next 64 k of the weights into a stage. fast: by cp.async.
template <class C>
GPU_DEV void mma_load_w(const struct mma_tile<C> &t, const struct linear_params &p,
                        unsigned char *stage, bool fast)
{
    constexpr int UNITS = C::WEIGHT_TILE * C::CHUNKS;
    int row = (int)threadIdx.x / C::CHUNKS, chunk = (int)threadIdx.x % C::CHUNKS;
    constexpr int BYTES = C::RAW > MMA_STEP ? C::RAW / MMA_STEP : 1;  // of a value, or
    constexpr int VALUES = C::RAW < MMA_STEP ? MMA_STEP / C::RAW : 1; // in a byte
    int left = ((int)p.k - t.k) * BYTES / VALUES - chunk * MMA_CHUNK; // bytes of a row
    if (fast) {
#pragma unroll
        for (int i = 0; i < (UNITS + C::THREADS - 1) / C::THREADS; i++) {
            if (UNITS % C::THREADS && (int)threadIdx.x + i * C::THREADS >= UNITS) break;
            const char *from = mma_weight_at<C>(t, p, i);
            bool inside = from && left > 0;
            cp_async16(mma_raw_chunk<C>(stage, row + i * C::PASS, chunk),
                       inside ? from : p.w.data, inside);
        }
        return;
    }
#pragma unroll 1
    for (int i = 0; (int)threadIdx.x + i * C::THREADS < UNITS; i++) {
        const char *from = mma_weight_at<C>(t, p, i);
        mma_copy_bytes(mma_raw_chunk<C>(stage, row + i * C::PASS, chunk), from,
                       from ? left : 0);
    }
}

// The same for rows of x.
template <class C>
GPU_DEV void mma_load_x(const struct mma_tile<C> &t, const struct linear_params &p,
                        unsigned char *stage, bool fast)
{
    int chunk = (int)threadIdx.x % 8;
    int left = ((int)p.k - t.k) * 2 - chunk * MMA_CHUNK;
#pragma unroll
    for (int i = 0; i < (int)(sizeof t.x / sizeof *t.x); i++) {
        int row = ((int)threadIdx.x + i * C::THREADS) / 8;
        if (C::ROW_TILE * 8 % C::THREADS && row >= C::ROW_TILE) break;
        unsigned char *to = mma_chunk(stage, row, chunk);
        const char *from = t.x[i] + t.k * 2LL;
        if (fast) {
            bool inside = t.x[i] && left > 0;
            cp_async16(to, inside ? from : p.x, inside);
        } else {
            mma_copy_bytes(to, from, t.x[i] ? left : 0);
        }
    }
}

// Begins to copy the next 64 k, if there are any, and closes the group.
template <class C>
GPU_DEV void mma_load(struct mma_tile<C> &t, const struct linear_params &p, unsigned char *ring,
                      int slot, bool fast_w, bool fast_x)
{
    if (t.k < (int)p.k) {
        mma_load_w<C>(t, p, ring + slot * C::W_STAGE, fast_w);
        mma_load_x<C>(t, p, ring + C::STAGES * C::W_STAGE + slot * C::X_STAGE, fast_x);
        t.w += C::RAW;
        t.w_upper += C::RAW;
        t.k += MMA_STEP;
    }
    cp_async_commit();
}

// MXFP4: the scales of the units that this thread widens at `step`. A unit is 32 values of a
// row.
template <class C>
GPU_DEV void mma_load_scales(uint8_t (&scale)[C::SCALES], const struct mma_tile<C> &t,
                             const struct linear_params &p, int step)
{
    constexpr int HALF = C::WEIGHT_TILE / 2;
    int64_t stride_upper = p.glu.kind != GLU_NONE ? p.w_up.scale_stride : p.w.scale_stride;
#pragma unroll
    for (int i = 0; i < C::SCALES; i++) {
        int unit = (int)threadIdx.x + i * C::THREADS, row = unit / 2;
        int at = step * 2 + unit % 2;
        bool exists = row < HALF ? row < t.n_row : row - HALF < t.n_row_upper;
        const char *from = row < HALF ? t.scale + row * p.w.scale_stride
                                      : t.scale_upper + (row - HALF) * stride_upper;
        scale[i] = exists && at < p.k / MXFP4_SCALE_COLS ? (uint8_t)from[at] : 0;
    }
}

// Widens a stage of stored weights into a tile of BF16.
template <class C>
GPU_DEV void mma_widen(unsigned char *wide, unsigned char *stage,
                       const uint8_t (&scale)[C::SCALES])
{
    constexpr int CHUNKS = C::CHUNKS, OUT = 8 / CHUNKS;
#pragma unroll
    for (int i = 0; i < (C::WEIGHT_TILE * CHUNKS + C::THREADS - 1) / C::THREADS; i++) {
        int unit = (int)threadIdx.x + i * C::THREADS, row = unit / CHUNKS,
            chunk = unit % CHUNKS;
        if (C::WEIGHT_TILE * CHUNKS % C::THREADS && row >= C::WEIGHT_TILE) break;
        uint4 raw = *(const uint4 *)mma_raw_chunk<C>(stage, row, chunk);
        const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
        uint32_t factor = widen_e8m0(scale[C::SCALES > 1 ? i : 0]); // of MXFP4
#pragma unroll
        for (int c = 0; c < OUT; c++) {
            uint32_t out[4];
            if (C::TYPE == PM_MXFP4) {
                widen_e2m1(out, word[c], factor);
            } else {
                uint32_t low[2], high[2];
                widen_e4m3(low, word[c * 2 % 4]);
                widen_e4m3(high, word[(c * 2 + 1) % 4]);
                out[0] = low[0], out[1] = low[1], out[2] = high[0], out[3] = high[1];
            }
            *(uint4 *)mma_chunk(wide, row, chunk * OUT + c) =
                make_uint4(out[0], out[1], out[2], out[3]);
        }
    }
}

// sum += weights x, 64 values of k. A sum belongs to weight row 16 i + lane / 4 (+ 8 for the
// upper two of the four) and row of x 8 j + lane % 4 * 2 (+ 1 for the odd ones) of the warp.
template <class C>
GPU_DEV void mma_step(float (&sum)[C::ATOMS_M][C::ATOMS_N][4], unsigned char *w,
                      unsigned char *x)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int m0 = warp % C::WARPS_M * (C::ATOMS_M * 16), n0 = warp / C::WARPS_M * (C::ATOMS_N * 8);
#pragma unroll
    for (int k32 = 0; k32 < 2; k32++) {
        uint32_t b[C::ATOMS_N][4];
#pragma unroll
        for (int j = 0; j < C::ATOMS_N; j++) {
            ldmatrix_x4(b[j], mma_chunk(x, n0 + j * 8 + lane % 8, k32 * 4 + lane / 8));
        }
#pragma unroll
        for (int k16 = 0; k16 < 2; k16++) {
            uint32_t a[C::ATOMS_M][4];
#pragma unroll
            for (int i = 0; i < C::ATOMS_M; i++) {
                ldmatrix_x4(
                    a[i], mma_chunk(w, m0 + i * 16 + lane % 16, k32 * 4 + k16 * 2 + lane / 16));
            }
#pragma unroll
            for (int i = 0; i < C::ATOMS_M; i++) {
#pragma unroll
                for (int j = 0; j < C::ATOMS_N; j++) {
                    if (C::TYPE == PM_F16) {
                        mma_f16_16816(sum[i][j], a[i], b[j][k16 * 2], b[j][k16 * 2 + 1]);
                    } else {
                        mma_bf16_16816(sum[i][j], a[i], b[j][k16 * 2], b[j][k16 * 2 + 1]);
                    }
                }
            }
        }
    }
}

template <class C> GPU_DEV void mma_clear(float (&sum)[C::ATOMS_M][C::ATOMS_N][4])
{
#pragma unroll
    for (int i = 0; i < C::ATOMS_M * C::ATOMS_N * 4; i++) {
        sum[i / 4 / C::ATOMS_N][i / 4 % C::ATOMS_N][i % 4] = 0;
    }
}

// Row `row` of expert e in the grid of scales; *bound: the first row after it with other
// scales.
GPU_DEV const char *mma_block_row(int *bound, const struct linear_stack &w, int e, int64_t row)
{
    int64_t at = w.scale_row + e * w.scale_expert_row + row, grid = at / F8_SCALE_SIDE;
    *bound = (int)((grid + 1) * F8_SCALE_SIDE - at);
    return mma_scale_row(w, e, grid);
}

GPU_DEV void mma_begin_blocks(struct mma_blocks &b, const struct linear_params &p,
                              const struct linear_task &task)
{
    bool gated = p.glu.kind != GLU_NONE;
    const struct linear_stack &up = gated ? p.w_up : p.w;
    b.w = mma_block_row(&b.bound, p.w, task.expert, task.col0);
    b.up = mma_block_row(&b.bound_up, up, task.expert, task.col0);
    b.more = b.bound < p.n - task.col0;
    b.more_up = b.bound_up < p.n - task.col0;
}

// The scales of 128 values of k: of w, those before the bound and the others, and of w_up.
GPU_DEV void mma_load_blocks(float (&scale)[4], const struct mma_blocks &b,
                             const struct linear_params &p, int block)
{
    bool gated = p.glu.kind != GLU_NONE;
    scale[0] = ((const float *)b.w)[block];
    scale[1] = b.more ? ((const float *)(b.w + p.w.scale_stride))[block] : 0.0f;
    scale[2] = gated ? ((const float *)b.up)[block] : 0.0f;
    scale[3] = gated && b.more_up ? ((const float *)(b.up + p.w_up.scale_stride))[block] : 0.0f;
}

// sum += scale of the row * part, part = 0.
template <class C>
GPU_DEV void mma_add_block(float (&sum)[C::ATOMS_M][C::ATOMS_N][4],
                           float (&part)[C::ATOMS_M][C::ATOMS_N][4], const float (&scale)[4],
                           const struct mma_blocks &b, bool gated)
{
    constexpr int HALF = C::WEIGHT_TILE / 2;
    int row0 =
        (int)threadIdx.x / 32 % C::WARPS_M * (C::ATOMS_M * 16) + (int)threadIdx.x % 32 / 4;
#pragma unroll
    for (int m = 0; m < C::ATOMS_M * 2; m++) {
        int row = row0 + m * 8;
        float factor = row < b.bound ? scale[0] : scale[1];
        if (gated && row >= HALF) factor = row - HALF < b.bound_up ? scale[2] : scale[3];
#pragma unroll
        for (int n = 0; n < C::ATOMS_N * 2; n++) {
            float &s = sum[m / 2][n / 2][m % 2 * 2 + n % 2];
            s = fmaf(factor, part[m / 2][n / 2][m % 2 * 2 + n % 2], s);
        }
    }
    mma_clear<C>(part);
}

// Brings the sums to the threads that store them: rows of x first, so that stores of a warp
// lie together. `out` takes the place of the ring.
template <class C>
GPU_DEV void mma_finish(const float (&sum)[C::ATOMS_M][C::ATOMS_N][4], float *out,
                        const struct linear_params &p, const struct linear_task &task)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int m0 = warp % C::WARPS_M * (C::ATOMS_M * 16) + lane / 4;
    int n0 = warp / C::WARPS_M * (C::ATOMS_N * 8) + lane % 4 * 2;
    bool gated = p.glu.kind != GLU_NONE;
    int n_col = gated ? C::WEIGHT_TILE / 2 : C::WEIGHT_TILE;
    __syncthreads(); // the last stage has been read
#pragma unroll
    for (int i = 0; i < C::ATOMS_M; i++) {
#pragma unroll
        for (int j = 0; j < C::ATOMS_N; j++) {
#pragma unroll
            for (int r = 0; r < 4; r++) {
                out[(n0 + j * 8 + r % 2) * C::SUM_STRIDE + m0 + i * 16 + r / 2 * 8] =
                    sum[i][j][r];
            }
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < task.n_row * n_col; i += C::THREADS) {
        // Divisions by constants.
        int row = gated ? i / (C::WEIGHT_TILE / 2) : i / C::WEIGHT_TILE, col = i - row * n_col;
        const float *s = out + row * C::SUM_STRIDE + col;
        if (task.col0 + col >= p.n) continue;
        linear_store(p, task.expert, task.row + row, task.col0 + col, s[0],
                     gated ? s[C::WEIGHT_TILE / 2] : 0.0f);
    }
    __syncthreads(); // the next tile's copies overwrite the sums
}

// Computes one tile.
template <class C>
GPU_DEV void mma_tile_run(unsigned char *ring, unsigned char *wide,
                          const struct linear_params &p, const struct linear_task &task,
                          bool fast_w, bool fast_x)
{
    float sum[C::ATOMS_M][C::ATOMS_N][4];
    // F8_E4M3: sums of the 128 k of a block; else unused.
    float part[C::BLOCK_SCALED ? C::ATOMS_M : 1][C::BLOCK_SCALED ? C::ATOMS_N : 1][4];
    float block_scale[4];
    struct mma_blocks blocks;
    uint8_t scale[C::SCALES] = {0};
    struct mma_tile<C> t;
    int n_step = ((int)p.k + MMA_STEP - 1) / MMA_STEP;
    int slot = 0;
    mma_begin<C>(t, p, task);
    mma_clear<C>(sum);
    if constexpr (C::BLOCK_SCALED) mma_clear<C>(part);
    if constexpr (C::BLOCK_SCALED) mma_begin_blocks(blocks, p, task);
    if constexpr (C::TYPE == PM_MXFP4) mma_load_scales<C>(scale, t, p, 0);
#pragma unroll 1
    for (int s = 0; s < C::STAGES - 1; s++)
        mma_load<C>(t, p, ring, s, fast_w, fast_x);
#pragma unroll 1
    for (int step = 0; step < n_step; step++) {
        unsigned char *w = ring + slot * C::W_STAGE;
        unsigned char *x = ring + C::STAGES * C::W_STAGE + slot * C::X_STAGE;
        cp_async_wait<C::STAGES - 2>();
        __syncthreads();
        // The stage that was read in the step before is free.
        mma_load<C>(t, p, ring, slot ? slot - 1 : C::STAGES - 1, fast_w, fast_x);
        if constexpr (C::CONVERT) {
            mma_widen<C>(wide, w, scale);
            if constexpr (C::TYPE == PM_MXFP4) mma_load_scales<C>(scale, t, p, step + 1);
            __syncthreads();
            w = wide;
        }
        if constexpr (C::BLOCK_SCALED) {
            if (step % 2 == 0) mma_load_blocks(block_scale, blocks, p, step / 2);
            mma_step<C>(part, w, x);
            if (step % 2 || step + 1 == n_step) {
                mma_add_block<C>(sum, part, block_scale, blocks, p.glu.kind != GLU_NONE);
            }
        } else {
            mma_step<C>(sum, w, x);
        }
        slot = slot + 1 < C::STAGES ? slot + 1 : 0;
    }
    mma_finish<C>(sum, (float *)ring, p, task);
}

template <class C>
__global__ void __launch_bounds__(C::THREADS, C::BLOCKS)
    mma_kernel(const __grid_constant__ struct linear_params p, bool fast_w, bool fast_x,
               bool pdl)
{
    GPU_DYN_SMEM(smem);
    unsigned char *at = smem;
    unsigned char *ring = smem_take<unsigned char>(at, C::RING + C::WIDE);
    int *first_tile = smem_take<int>(at, (size_t)p.n_expert + 1);
    int n_col = p.glu.kind != GLU_NONE ? C::WEIGHT_TILE / 2 : C::WEIGHT_TILE;
    int64_t n_col_tile = (p.n + n_col - 1) / n_col;
    griddep_wait_if(pdl);
    linear_count_tiles(first_tile, p, C::ROW_TILE);
    int64_t n_task = first_tile[p.n_expert] * n_col_tile;
    for (int64_t i = blockIdx.x; i < n_task; i += gridDim.x) {
        struct linear_task task =
            linear_task_at(first_tile, p, i, n_col_tile, n_col, C::ROW_TILE);
        mma_tile_run<C>(ring, ring + C::RING, p, task, fast_w, fast_x);
    }
}

template <class C> static pm_status mma_launch(struct device *d, const struct linear_params *p)
{
    size_t smem = GPU_SMEM_BYTES(unsigned char, C::RING + C::WIDE) +
                  GPU_SMEM_BYTES(int, (size_t)p->n_expert + 1);
    bool fast_w = linear_stack_aligned(&p->w, p->k) && linear_stack_aligned(&p->w_up, p->k);
    bool fast_x = linear_x_aligned(p);
    dim3 grid((unsigned)linear_grid(d, p, C::WEIGHT_TILE, C::ROW_TILE, smem, C::THREADS));
    TRY(cuda_check(cudaFuncSetAttribute((const void *)mma_kernel<C>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem),
                   "linear: shared memory"));
    bool pdl = d->sm >= 90;
    return cuda_check(GPU_LAUNCH_PDL_IF(pdl, (mma_kernel<C>), grid, dim3(C::THREADS), smem,
                                        d->stream, *p, fast_w, fast_x, pdl),
                      "linear");
}

// The kernels of one type: a case for each tile of linear_mma_tiles.
template <pm_dtype TYPE>
static pm_status mma_launch_tile(struct device *d, const struct linear_params *p,
                                 const struct linear_plan *plan)
{
    // Two sets of sums take the registers of four more warps.
    constexpr int WARPS_M = TYPE == PM_F8_E4M3 ? 4 : 2;
    switch (plan->weight_tile * 1000 + plan->row_tile) {
    case 16008: return mma_launch<mma_config<TYPE, 16, 8, 1, 1>>(d, p);
    case 64008: return mma_launch<mma_config<TYPE, 64, 8, 4, 1>>(d, p);
    case 16016: return mma_launch<mma_config<TYPE, 16, 16, 1, 1>>(d, p);
    case 64016: return mma_launch<mma_config<TYPE, 64, 16, 4, 1>>(d, p);
    case 128032: return mma_launch<mma_config<TYPE, 128, 32, 4, 1>>(d, p);
    case 128064: return mma_launch<mma_config<TYPE, 128, 64, WARPS_M, 2>>(d, p);
    case 128128: return mma_launch<mma_config<TYPE, 128, 128, 2, 4>>(d, p);
    default:
        return fail(PM_ERR_BUG, "linear: no tile of %d x %d", plan->weight_tile,
                    plan->row_tile);
    }
}

#endif
