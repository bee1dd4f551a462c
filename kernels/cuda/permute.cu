/* permute.cu - rows to their experts and back: the sort for ids given from outside, rows scaled
 * into their places, and the sum of the experts' outputs.
 *
 * Bytes that must move, for T rows of D values and K experts each:
 *
 *   permute          16 T K
 *   permute_scaled   T D size of x + T K D size of y
 *   unpermute        T K D size of x + 8 T D
 *
 * unpermute is the one that counts. A thread owns eight columns of a row (four where x is F32),
 * has the loads of four experts in flight and adds them in the order of the choice. None of
 * this has run on hardware. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sort.cuh"

/* ------------------------------------------------------------------ the sort */

/* Ranks of choices first .. end - 1 of one warp, 32 at a time: lanes with the same expert find
 * each other, the lowest of them counts for all. */
__global__ void __launch_bounds__(SORT_MAX_THREADS)
    permute_kernel(struct sort_args a, int64_t n_choice, int64_t per_warp)
{
    GPU_DYN_SMEM(memory);
    unsigned char *left = memory;
    struct sort_memory m = sort_take(left, a.n_expert);
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int64_t first = (int64_t)blockIdx.x * (blockDim.x / WARP) + warp;
    first = min(first * per_warp, n_choice);
    int64_t end = min(first + per_warp, n_choice);
    int32_t *seen = m.before + warp * a.n_expert;
    sort_begin(m, a.n_expert);
    for (int64_t i = first; i < end; i += WARP) {
        bool mine = i + lane < end;
        int32_t e = mine ? a.routing.id[i + lane] : -1;
        uint32_t same = __match_any_sync(ALL_LANES, e);
        int lower = __popc(same & ((1u << lane) - 1));
        int32_t old = mine ? seen[e] : 0;
        __syncwarp();
        if (mine) a.routing.place[i + lane] = old + lower;
        if (mine && lower == 0) seen[e] = old + __popc(same);
        __syncwarp();
    }
    sort_finish(a, m, first, end);
}

pm_status cuda_permute(struct device *d, const struct gate *gate, int n_row,
                       const struct routing *routing)
{
    struct sort_args a = {gate->n_expert, gate->top_k, *routing, NULL, d->barrier};
    void (*kernel)(struct sort_args, int64_t, int64_t) = permute_kernel;
    int64_t n = (int64_t)n_row * gate->top_k;
    int64_t n_block = max_i64(1, min_i64(ceil_div(n, 4 * SORT_MAX_THREADS), d->n_sm));
    int64_t n_warp = sort_warps(ceil_div(n, WARP));
    int64_t per_warp = ceil_div(ceil_div(n, n_block * n_warp), WARP) * WARP;
    if (gate->n_expert > SORT_MAX_EXPERTS) {
        return fail(PM_ERR_ARG, "permute: found %d experts, wanted at most %d", gate->n_expert,
                    SORT_MAX_EXPERTS);
    }
    if (n_block > 1) {
        TRY(cuda_scratch(d, &a.count, sizeof(int32_t) * n_block * gate->n_expert, "permute"));
    }
    return cuda_check(GPU_LAUNCH(kernel, dim3((unsigned)n_block), dim3((unsigned)n_warp * WARP),
                                 sort_bytes(gate->n_expert, n_warp), d->stream, a, n, per_warp),
                      "permute");
}

/* ------------------------------------------------------------------ rows */

struct rows_args {
    struct tensor y, x;
    const int32_t *place; /* [T, K] */
    const float *weight;  /* [T, K] or NULL: 1 */
    int top_k;
    float factor;
    bool round;
    bool pdl; /* starts before the kernel before it has ended */
};

__global__ void __launch_bounds__(256) permute_scaled_kernel(struct rows_args a)
{
    int64_t at = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * 4, n = a.x.cols;
    int64_t choice = (int64_t)blockIdx.x * a.top_k;
    float x[4], y[4];
    griddep_wait_if(a.pdl);
    if (at >= n) return;
    load_values<4>(x, tensor_row(a.x, blockIdx.x), a.x.type, at, n, a.round);
    for (int k = 0; k < a.top_k; k++) {
        float w = a.weight[choice + k];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            y[i] = w * x[i];
        }
        store_values<4>(tensor_row(a.y, a.place[choice + k]), y, a.y.type, at, n, a.round);
    }
}

static pm_status check_rows(const char *what, const struct tensor *y, const struct tensor *x,
                            bool wide)
{
    if (is_activation(x->type) && (wide ? y->type == PM_F32 : is_activation(y->type))) {
        return PM_OK;
    }
    return fail(PM_ERR_BUG, "%s: found %s to %s, wanted F32 or BF16 to %s", what,
                dtype_name(x->type), dtype_name(y->type), wide ? "F32" : "F32 or BF16");
}

pm_status cuda_permute_scaled(struct device *d, const struct gate *gate, struct tensor y,
                              struct tensor x, const struct routing *routing)
{
    bool round = rows_are_round(y) && rows_are_round(x);
    bool pdl = d->sm >= 90;
    struct rows_args a = {y, x, routing->place, routing->weight, gate->top_k, 1, round, pdl};
    void (*kernel)(struct rows_args) = permute_scaled_kernel;
    int64_t n_group = ceil_div(x.cols, 4);
    TRY(check_rows("permute_scaled", &y, &x, false));
    if (x.rows == 0 || x.cols == 0) return PM_OK;
    return cuda_check(GPU_LAUNCH_PDL_IF(pdl, kernel, row_grid(x.rows, n_group),
                                        dim3(row_threads(n_group)), 0, d->stream, a),
                      "permute_scaled");
}

/* V columns of a row; TYPE is that of x. */
template <pm_dtype TYPE, int V>
__global__ void __launch_bounds__(256) unpermute_kernel(struct rows_args a)
{
    int64_t at = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * V, n = a.y.cols;
    const int32_t *place = a.place + (int64_t)blockIdx.x * a.top_k;
    const float *weight = a.weight ? a.weight + (int64_t)blockIdx.x * a.top_k : NULL;
    char *row = tensor_row(a.y, blockIdx.x);
    float y[V], sum[V] = {};
    griddep_wait_if(a.pdl);
    if (at >= n) return;
    load_values<V>(y, row, PM_F32, at, n, a.round);
#pragma unroll 4
    for (int k = 0; k < a.top_k; k++) {
        float x[V], w = weight ? weight[k] : 1;
        load_values<V>(x, tensor_row(a.x, place[k]), TYPE, at, n, a.round);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum[i] += w * x[i];
        }
    }
#pragma unroll
    for (int i = 0; i < V; i++) {
        y[i] += a.factor * sum[i];
    }
    store_values<V>(row, y, PM_F32, at, n, a.round);
}

pm_status cuda_unpermute(struct device *d, const struct gate *gate, struct tensor y,
                         struct tensor x, const struct routing *routing, float factor)
{
    bool round = rows_are_round(y) && rows_are_round(x), narrow = x.type == PM_BF16;
    const float *weight = gate->scale_input ? NULL : routing->weight;
    bool pdl = d->sm >= 90;
    struct rows_args a = {y, x, routing->place, weight, gate->top_k, factor, round, pdl};
    void (*kernel)(struct rows_args) =
        narrow ? unpermute_kernel<PM_BF16, 8> : unpermute_kernel<PM_F32, 4>;
    int64_t n_group = ceil_div(y.cols, narrow ? 8 : 4);
    TRY(check_rows("unpermute", &y, &x, true));
    if (y.rows == 0 || y.cols == 0) return PM_OK;
    return cuda_check(GPU_LAUNCH_PDL_IF(pdl, kernel, row_grid(y.rows, n_group),
                                        dim3(row_threads(n_group)), 0, d->stream, a),
                      "unpermute");
}
