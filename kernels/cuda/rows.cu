/* rows.cu - operations on one row at a time: embedding, norms, scaling, sums.
 *
 * All are bound by memory. A block works on one row, a thread on groups of four neighbouring
 * values (eight of a table of embeddings), so that a warp moves 512 bytes at once. Bytes that
 * must move, with T rows of D values:
 *
 *   embed        T D (stored size + 4)
 *   norm         T D (4 + size of y) + 4 D; a row of up to 16384 values is read once and held
 *   clamp, scale, scale_rows, gate_rows      8 T D
 *   add          12 T D
 *
 * None of this has run on hardware. A norm is two passes over values held in registers (the
 * mean, then the squares around it); how many threads share a row follows from D alone, so
 * that its bits do too. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/math.cuh"

/* ------------------------------------------------------------------ embedding */

struct embed_args {
    struct tensor y, table;
    const int32_t *id; /* [T] */
    float scale;
    bool round; /* groups of eight stand at round addresses in y and table */
};

template <pm_dtype TYPE>
__global__ void __launch_bounds__(256) embed_kernel(struct embed_args a)
{
    int64_t at = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * 8, n = a.y.cols;
    struct weight_row from = weight_row_at(a.table, a.id[blockIdx.x]);
    float v[8];
    if (at >= n) return;
    if (a.round && at + 8 <= n) {
        weight_8<TYPE>(v, from, at);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v[i] = at + i < n ? weight_at<TYPE>(from, at + i) : 0;
        }
    }
    if (a.scale != 1) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v[i] *= a.scale;
        }
    }
    store_values<8>(tensor_row(a.y, blockIdx.x), v, PM_F32, at, n, a.round);
}

pm_status cuda_embed(struct device *d, struct tensor y, const struct tensor *table,
                     const int32_t *id, float scale)
{
    bool round = rows_are_round(y) && rows_are_round(*table);
    struct embed_args args = {y, *table, id, scale, round};
    int64_t n_group = ceil_div(y.cols, 8);
    void (*kernel)(struct embed_args) = NULL;
    if (y.rows == 0 || y.cols == 0) return PM_OK;
    switch (table->type) {
    case PM_F32: kernel = embed_kernel<PM_F32>; break;
    case PM_F16: kernel = embed_kernel<PM_F16>; break;
    case PM_BF16: kernel = embed_kernel<PM_BF16>; break;
    case PM_F8_E4M3: kernel = embed_kernel<PM_F8_E4M3>; break;
    case PM_MXFP4: kernel = embed_kernel<PM_MXFP4>; break;
    default: break;
    }
    if (!kernel || y.type != PM_F32) {
        return fail(PM_ERR_BUG,
                    "embed: found a table of %s and rows of %s, wanted weights and F32",
                    dtype_name(table->type), dtype_name(y.type));
    }
    return cuda_check(GPU_LAUNCH(kernel, row_grid(y.rows, n_group), dim3(row_threads(n_group)),
                                 0, d->stream, args),
                      "embed");
}

/* ------------------------------------------------------------------ norms */

struct norm_args {
    struct tensor y, x;
    const float *w, *b; /* [D] or NULL */
    enum norm_kind kind;
    float eps;
    bool round; /* x, y, w and b stand at round addresses */
};

/* Sums over the threads that share a row: a warp, or a block. */
template <int TEAM> GPU_DEV float team_sum(float v, float *part)
{
    return TEAM == WARP ? warp_sum(v) : block_sum(v, part, TEAM / WARP);
}

/* y = (x - mean) * inv * w + b, one group. */
GPU_DEV void write_norm(const struct norm_args &a, char *y, const float (&x)[4], float mean,
                        float inv, int64_t at)
{
    float v[4], w[4], b[4];
    int64_t n = a.x.cols;
    if (at >= n) return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = (x[i] - mean) * inv;
    }
    if (a.w) {
        load_values<4>(w, (const char *)a.w, PM_F32, at, n, a.round);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[i] *= w[i];
        }
    }
    if (a.b) {
        load_values<4>(b, (const char *)a.b, PM_F32, at, n, a.round);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[i] += b[i];
        }
    }
    store_values<4>(y, v, a.y.type, at, n, a.round);
}

/* TEAM threads share a row; each holds GROUPS groups of four, or reads them again in every pass
 * where GROUPS is 0 and a row is longer than can be held. */
template <int TEAM, int GROUPS>
__global__ void __launch_bounds__(TEAM < 128 ? 128 : TEAM) norm_kernel(struct norm_args a)
{
    GPU_DYN_SMEM(memory);
    unsigned char *left = memory;
    enum { ROWS = TEAM < 128 ? 128 / TEAM : 1, HELD = GROUPS ? GROUPS : 1 };
    int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / TEAM, n = a.x.cols;
    int64_t first = threadIdx.x % TEAM * 4;
    int n_pass = GROUPS ? GROUPS : (int)((n + TEAM * 4 - 1) / (TEAM * 4));
    float *part = TEAM == WARP ? NULL : smem_take<float>(left, TEAM / WARP);
    float *other = TEAM == WARP ? NULL : smem_take<float>(left, TEAM / WARP);
    float x[HELD][4], mean = 0, square = 0, inv;
    if (row >= a.x.rows) return;
    const char *from = tensor_row(a.x, row);
    if (GROUPS) {
#pragma unroll
        for (int p = 0; p < HELD; p++) {
            load_values<4>(x[p], from, PM_F32, first + p * TEAM * 4, n, a.round);
        }
    }
    if (a.kind == NORM_LAYER) {
#pragma unroll
        for (int p = 0; p < n_pass; p++) {
            float(&v)[4] = x[GROUPS ? p : 0];
            if (!GROUPS) load_values<4>(v, from, PM_F32, first + p * TEAM * 4, n, a.round);
            mean += (v[0] + v[1]) + (v[2] + v[3]);
        }
        mean = team_sum<TEAM>(mean, part) / (float)n;
    }
#pragma unroll
    for (int p = 0; p < n_pass; p++) {
        float(&v)[4] = x[GROUPS ? p : 0];
        int64_t at = first + (int64_t)p * TEAM * 4;
        if (!GROUPS) load_values<4>(v, from, PM_F32, at, n, a.round);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float apart = at + i < n ? v[i] - mean : 0;
            square += apart * apart;
        }
    }
    inv = 1 / sqrtf(team_sum<TEAM>(square, other) / (float)n + a.eps);
#pragma unroll
    for (int p = 0; p < n_pass; p++) {
        float(&v)[4] = x[GROUPS ? p : 0];
        int64_t at = first + (int64_t)p * TEAM * 4;
        if (!GROUPS) load_values<4>(v, from, PM_F32, at, n, a.round);
        write_norm(a, tensor_row(a.y, row), v, mean, inv, at);
    }
}

template <int TEAM, int GROUPS>
static pm_status launch_norm(struct device *d, struct norm_args a)
{
    void (*kernel)(struct norm_args) = norm_kernel<TEAM, GROUPS>;
    int64_t rows = TEAM < 128 ? 128 / TEAM : 1;
    size_t bytes = TEAM == WARP ? 0 : 2 * GPU_SMEM_BYTES(float, TEAM / WARP);
    return cuda_check(GPU_LAUNCH(kernel, dim3((unsigned)ceil_div(a.x.rows, rows)),
                                 dim3(TEAM < 128 ? 128 : TEAM), bytes, d->stream, a),
                      "norm");
}

pm_status cuda_norm(struct device *d, struct tensor y, struct tensor x, enum norm_kind kind,
                    const struct tensor *w, const struct tensor *b, float eps)
{
    const float *weight = w && kind != NORM_L2 ? (const float *)w->data : NULL;
    const float *bias = b && kind == NORM_LAYER ? (const float *)b->data : NULL;
    bool round = rows_are_round(x) && rows_are_round(y) &&
                 ((uintptr_t)weight | (uintptr_t)bias) % 16 == 0;
    struct norm_args a = {y, x, weight, bias, kind, eps, round};
    int64_t n = x.cols;
    if (x.type != PM_F32 || !is_activation(y.type)) {
        return fail(PM_ERR_BUG, "norm: found %s to %s, wanted F32 to F32 or BF16",
                    dtype_name(x.type), dtype_name(y.type));
    }
    if (x.rows == 0 || n == 0) return PM_OK;
    if (n <= 128) return launch_norm<32, 1>(d, a);
    if (n <= 512) return launch_norm<32, 4>(d, a);
    if (n <= 1024) return launch_norm<128, 2>(d, a);
    if (n <= 4096) return launch_norm<256, 4>(d, a);
    if (n <= 16384) return launch_norm<512, 8>(d, a);
    return launch_norm<512, 0>(d, a);
}

/* ------------------------------------------------------------------ value by value */

enum row_op { ROW_CLAMP, ROW_SCALE, ROW_SCALE_ROWS, ROW_ADD, ROW_GATE };

struct row_args {
    struct tensor x, y;
    const float *factors; /* [T] */
    float factor;
    bool round;
};

template <row_op OP> __global__ void __launch_bounds__(256) row_kernel(struct row_args a)
{
    int64_t at = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * 4, n = a.x.cols;
    char *row = tensor_row(a.x, blockIdx.x);
    float f = a.factor, x[4], y[4];
    if (at >= n) return;
    load_values<4>(x, row, PM_F32, at, n, a.round);
    if (OP == ROW_ADD) {
        load_values<4>(y, tensor_row(a.y, blockIdx.x), a.y.type, at, n, a.round);
    }
    if (OP == ROW_SCALE_ROWS) f = a.factors[blockIdx.x];
    if (OP == ROW_GATE) f = sigmoid(*(const float *)tensor_row(a.y, blockIdx.x));
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (OP == ROW_CLAMP) {
            x[i] = x[i] < -f ? -f : x[i] > f ? f : x[i]; /* NaN stays */
        } else if (OP == ROW_ADD) {
            x[i] += f * y[i];
        } else {
            x[i] *= f;
        }
    }
    store_values<4>(row, x, PM_F32, at, n, a.round);
}

template <row_op OP>
static pm_status run_rows(struct device *d, struct row_args a, const char *what)
{
    void (*kernel)(struct row_args) = row_kernel<OP>;
    int64_t n_group = ceil_div(a.x.cols, 4);
    if (a.x.type != PM_F32 || (a.y.data && !is_activation(a.y.type))) {
        return fail(PM_ERR_BUG, "%s: found rows of %s, wanted F32", what, dtype_name(a.x.type));
    }
    if (a.x.rows == 0 || a.x.cols == 0) return PM_OK;
    a.round = rows_are_round(a.x) && (OP != ROW_ADD || rows_are_round(a.y));
    return cuda_check(GPU_LAUNCH(kernel, row_grid(a.x.rows, n_group),
                                 dim3(row_threads(n_group)), 0, d->stream, a),
                      what);
}

pm_status cuda_clamp(struct device *d, struct tensor x, float limit)
{
    struct row_args a = {x, {}, NULL, limit, false};
    return run_rows<ROW_CLAMP>(d, a, "clamp");
}

pm_status cuda_scale(struct device *d, struct tensor x, float factor)
{
    struct row_args a = {x, {}, NULL, factor, false};
    return run_rows<ROW_SCALE>(d, a, "scale");
}

pm_status cuda_scale_rows(struct device *d, struct tensor x, const float *factor)
{
    struct row_args a = {x, {}, factor, 0, false};
    return run_rows<ROW_SCALE_ROWS>(d, a, "scale_rows");
}

pm_status cuda_add(struct device *d, struct tensor x, struct tensor y, float factor)
{
    struct row_args a = {x, y, NULL, factor, false};
    return run_rows<ROW_ADD>(d, a, "add");
}

pm_status cuda_gate_rows(struct device *d, struct tensor y, struct tensor g)
{
    struct row_args a = {y, g, NULL, 0, false};
    return run_rows<ROW_GATE>(d, a, "gate_rows");
}
