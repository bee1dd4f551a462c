/* gate.cu - from gate logits to weights, ids and the sorted rows, in one launch.
 *
 * A warp takes a row: its logits live in registers, expert 32 j + lane in element j of a lane.
 * K rounds of a warp-wide maximum pick the experts, ties to the lower one; lane k then holds
 * choice k, and the weights are made from those lanes in the order of the choice. Formulas and
 * the order of sums over K are those of cpu/gate.c; sums over all E experts run by lanes and
 * then by a butterfly, so a score may differ from the CPU's in its last bits, and with it the
 * order of two experts that are closer than that.
 *
 * While a warp walks its rows it counts its choices per expert; sort.cuh turns the counts into
 * offset, source and place. Up to 16 rows need one block and no barrier between blocks, more
 * rows up to one block per multiprocessor, all of them resident. Bytes that must move: 4 T E
 * of logits, 20 T K of routing. Has not run on hardware. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sort.cuh"

/* What a score that is -INFINITY or not a number counts as when experts are picked: above
 * -INFINITY, which marks the experts that are taken, and two of them still add up. */
#define LOWEST -1e38f

struct gate_args {
    struct gate gate;
    struct tensor logits; /* F32 [T, E] */
    const float *bias;    /* [E] or NULL */
    struct sort_args sort;
    int64_t per_warp; /* rows */
    bool pdl;         /* starts before the kernel before it has ended */
};

/* A lane's share of a row's choices: lane k has choice k. value is the score that becomes the
 * weight, or the logit where weights are made of picked logits. */
struct choice {
    float value;
    int32_t id;
};

/* The largest of 32 PER values v, the lower index of equals; on all lanes. Element j of a lane
 * has index 32 j + lane. */
struct found {
    float top;   /* v there */
    float value; /* value there */
    int at;
};

/* An integer that orders as v does; v is a number, and -0 is 0. */
GPU_DEV uint32_t order(float v)
{
    uint32_t bits = __float_as_uint(v + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

template <int PER> GPU_DEV struct found best(const float (&v)[PER], const float (&value)[PER])
{
    int lane = threadIdx.x % WARP;
    struct found f = {v[0], value[0], lane};
    uint32_t key, top;
#pragma unroll
    for (int j = 1; j < PER; j++) {
        if (v[j] > f.top) f = {v[j], value[j], j * WARP + lane};
    }
    key = order(f.top);
    top = __reduce_max_sync(ALL_LANES, key);
    f.at = (int)__reduce_min_sync(ALL_LANES, key == top ? (uint32_t)f.at : ~0u);
    f.top = __shfl_sync(ALL_LANES, f.top, f.at % WARP);
    f.value = __shfl_sync(ALL_LANES, f.value, f.at % WARP);
    return f;
}

template <int PER> GPU_DEV void set_at(float (&v)[PER], int at, float value)
{
#pragma unroll
    for (int j = 0; j < PER; j++) {
        if (j * WARP + (int)threadIdx.x % WARP == at) v[j] = value;
    }
}

/* The values of lanes 0 .. n - 1, added in this order. */
GPU_DEV float sum_in_order(float v, int n)
{
    float sum = 0;
    for (int k = 0; k < n; k++) {
        sum += __shfl_sync(ALL_LANES, v, k);
    }
    return sum;
}

/* logit -> score. */
template <int PER> GPU_DEV void make_scores(const struct gate &g, float (&v)[PER])
{
    int lane = threadIdx.x % WARP;
    float max = -INFINITY, sum = 0;
    if (g.score == SCORE_LOGIT) return;
#pragma unroll
    for (int j = 0; j < PER; j++) {
        if (j * WARP + lane < g.n_expert) max = fmaxf(max, v[j]);
    }
    if (g.score == SCORE_SOFTMAX) max = warp_max(max);
#pragma unroll
    for (int j = 0; j < PER; j++) {
        v[j] = g.score == SCORE_SOFTMAX ? expf(v[j] - max) : sigmoid(v[j]);
        if (j * WARP + lane < g.n_expert) sum += v[j];
    }
    if (g.score != SCORE_SOFTMAX) return;
    sum = warp_sum(sum);
#pragma unroll
    for (int j = 0; j < PER; j++) {
        v[j] /= sum;
    }
}

/* The largest, or the sum of the two largest, of a group's `size` picking scores. space holds
 * those of all experts, with a gap after every 32 so that groups start in different banks. */
GPU_DEV float group_score(enum gate_group kind, const float *space, int start, int size)
{
    float first = -INFINITY, second = -INFINITY;
    for (int e = start; e < start + size; e++) {
        float v = space[e + e / WARP];
        if (v > first) {
            second = first;
            first = v;
        } else if (v > second) {
            second = v;
        }
    }
    return kind == GROUP_MAX || size == 1 ? first : first + second;
}

/* Sets the picking scores of all experts outside the best groups to -INFINITY. */
template <int PER>
GPU_DEV void mask_groups(const struct gate &g, float (&pick)[PER], float *space)
{
    int lane = threadIdx.x % WARP, size = g.n_expert / g.n_group;
    float group[PER];
#pragma unroll
    for (int j = 0; j < PER; j++) {
        int e = j * WARP + lane;
        if (e < g.n_expert) space[e + e / WARP] = pick[j];
    }
    __syncwarp();
#pragma unroll
    for (int j = 0; j < PER; j++) {
        int i = j * WARP + lane;
        group[j] = i < g.n_group ? group_score(g.group, space, i * size, size) : -INFINITY;
    }
    __syncwarp();
    /* The same memory now says which groups stay. */
    for (int i = lane; i < g.n_expert; i += WARP) {
        space[i] = 0;
    }
    __syncwarp();
    for (int k = 0; k < g.top_group; k++) {
        struct found f = best<PER>(group, group);
        set_at<PER>(group, f.at, -INFINITY);
        if (lane == 0) space[f.at] = 1;
    }
    __syncwarp();
#pragma unroll
    for (int j = 0; j < PER; j++) {
        int e = j * WARP + lane;
        if (e < g.n_expert && space[e / size] == 0) pick[j] = -INFINITY;
    }
    __syncwarp();
}

/* Sparsemixer's two picks (arXiv 2409.12136, evaluation mode): a weight is a softmax over the
 * experts near the best one; `from` has the taken expert at -INFINITY. */
template <int PER>
GPU_DEV struct choice sparsemixer(const struct gate &g, const float (&logit)[PER],
                                  float (&from)[PER])
{
    struct choice mine = {};
    for (int k = 0; k < 2; k++) {
        struct found f = best<PER>(from, from);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < PER; j++) {
            float clamped = fmaxf(fabsf(logit[j]), f.top);
            bool far = (f.top - logit[j]) / clamped > 2 * g.jitter;
            if (from[j] != -INFINITY && !far) sum += expf(from[j] - f.top);
        }
        sum = warp_sum(sum);
        if ((int)threadIdx.x % WARP == k) mine = {1 / sum, f.at};
        set_at<PER>(from, f.at, -INFINITY);
    }
    return mine;
}

/* Weights of the picked experts from their scores or logits, renormalised. */
GPU_DEV float weigh(const struct gate &g, struct choice c)
{
    bool picked = (int)threadIdx.x % WARP < g.top_k;
    float w = c.value, sum = 1;
    if (g.weight == WEIGHT_SOFTMAX_PICKED) {
        w = expf(w - warp_max(picked ? w : -INFINITY));
        w /= sum_in_order(w, g.top_k);
    } else if (g.weight == WEIGHT_SIGMOID_PICKED) {
        w = sigmoid(w);
    }
    switch (g.renorm) {
    case RENORM_NONE: break;
    case RENORM_SUM: sum = sum_in_order(w, g.top_k) + g.floor; break;
    case RENORM_MAX: sum = fmaxf(sum_in_order(w, g.top_k), g.floor); break;
    case RENORM_NORM:
        sum = powf(sum_in_order(powf(fabsf(w), g.floor), g.top_k), 1 / g.floor);
        break;
    }
    return w / sum * g.scale;
}

/* Picks and weighs for one row. space is the warp's own shared memory, for groups. */
template <int PER>
GPU_DEV struct choice pick_experts(const struct gate_args &a, const float *logit, float *space)
{
    const struct gate &g = a.gate;
    int lane = threadIdx.x % WARP;
    bool mixer = g.weight == WEIGHT_SPARSEMIXER;
    float value[PER], pick[PER];
    struct choice mine = {};
#pragma unroll
    for (int j = 0; j < PER; j++) {
        int e = j * WARP + lane;
        value[j] = pick[j] = e < g.n_expert ? logit[e] : -INFINITY;
    }
    if (!mixer) make_scores<PER>(g, pick);
#pragma unroll
    for (int j = 0; j < PER; j++) {
        int e = j * WARP + lane;
        float score = pick[j];
        if (g.weight == WEIGHT_SCORE) value[j] = score;
        if (!mixer && a.bias && e < g.n_expert) score += a.bias[e];
        pick[j] = e >= g.n_expert ? -INFINITY : score > LOWEST ? score : LOWEST;
    }
    if (mixer) return sparsemixer<PER>(g, value, pick);
    if (g.group != GROUP_NONE) mask_groups<PER>(g, pick, space);
    for (int k = 0; k < g.top_k; k++) {
        struct found f = best<PER>(pick, value);
        set_at<PER>(pick, f.at, -INFINITY);
        if (lane == k) mine = {f.value, f.at};
    }
    mine.value = weigh(g, mine);
    return mine;
}

static __host__ __device__ inline int group_space(int n_expert)
{
    return n_expert + n_expert / WARP;
}

template <int PER>
__global__ void __launch_bounds__(SORT_MAX_THREADS, 1) gate_kernel(struct gate_args a)
{
    GPU_DYN_SMEM(memory);
    unsigned char *left = memory;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, top_k = a.gate.top_k;
    int n_expert = a.gate.n_expert, size = group_space(n_expert);
    bool sorted = a.sort.routing.offset != NULL;
    struct sort_memory m = sort_take(left, n_expert);
    float *space =
        a.gate.group == GROUP_NONE
            ? NULL
            : smem_take<float>(left, (size_t)(blockDim.x / WARP) * size) + warp * size;
    int32_t *seen = m.before + warp * n_expert;
    int64_t first = ((int64_t)blockIdx.x * (blockDim.x / WARP) + warp) * a.per_warp;
    int64_t end = min(first + a.per_warp, a.logits.rows);
    griddep_wait_if(a.pdl);
    sort_begin(m, n_expert);
    for (int64_t r = first; r < end; r++) {
        const float *logit = (const float *)tensor_row(a.logits, r);
        struct choice c = pick_experts<PER>(a, logit, space);
        if (lane < top_k) {
            a.sort.routing.weight[r * top_k + lane] = c.value;
            a.sort.routing.id[r * top_k + lane] = c.id;
            /* The experts of a row differ, so no two lanes meet. */
            if (sorted) a.sort.routing.place[r * top_k + lane] = seen[c.id]++;
        }
        __syncwarp();
    }
    first = min(first, a.logits.rows);
    if (sorted) sort_finish(a.sort, m, first * top_k, max(end, first) * top_k);
}

static pm_status check_gate(const struct gate *g, const struct tensor *logits)
{
    if (g->n_expert > SORT_MAX_EXPERTS || g->top_k > g->n_expert || g->top_k > WARP) {
        return fail(PM_ERR_ARG, "gate_topk: %d of %d experts, at most %d of %d", g->top_k,
                    g->n_expert, WARP, SORT_MAX_EXPERTS);
    }
    if (g->group != GROUP_NONE && (g->n_group < 1 || g->n_group > g->n_expert)) {
        return fail(PM_ERR_ARG, "gate_topk: %d groups of %d experts", g->n_group, g->n_expert);
    }
    if (g->weight == WEIGHT_SPARSEMIXER && g->top_k != 2) {
        return fail(PM_ERR_ARG, "gate_topk: found sparsemixer with %d experts, wanted 2",
                    g->top_k);
    }
    if (logits->type != PM_F32) {
        return fail(PM_ERR_BUG, "gate_topk: found logits of %s, wanted F32",
                    dtype_name(logits->type));
    }
    return PM_OK;
}

pm_status cuda_gate_topk(struct device *d, const struct gate *gate, struct tensor logits,
                         const float *bias, const struct routing *out)
{
    struct sort_args sort = {gate->n_expert, gate->top_k, *out, NULL, d->barrier};
    struct gate_args a = {*gate, logits, bias, sort, 0, d->sm >= 90};
    void (*kernel)(struct gate_args) = gate->n_expert <= 32    ? gate_kernel<1>
                                       : gate->n_expert <= 64  ? gate_kernel<2>
                                       : gate->n_expert <= 128 ? gate_kernel<4>
                                       : gate->n_expert <= 256 ? gate_kernel<8>
                                                               : gate_kernel<16>;
    int64_t n_block = max_i64(1, min_i64(ceil_div(logits.rows, SORT_MAX_WARPS), d->n_sm));
    int64_t n_warp = sort_warps(logits.rows);
    size_t bytes = sort_bytes(gate->n_expert, n_warp);
    size_t n_space = (size_t)n_warp * group_space(gate->n_expert);
    TRY(check_gate(gate, &logits));
    a.per_warp = ceil_div(logits.rows, n_block * n_warp);
    if (gate->group != GROUP_NONE) bytes += GPU_SMEM_BYTES(float, n_space);
    if (n_block > 1 && out->offset) {
        TRY(cuda_scratch(d, &a.sort.count, sizeof(int32_t) * n_block * gate->n_expert,
                         "gate_topk"));
    }
    TRY(cuda_check(cudaFuncSetAttribute((const void *)kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        (int)bytes),
                   "gate_topk"));
    return cuda_check(GPU_LAUNCH_PDL_IF(a.pdl, kernel, dim3((unsigned)n_block),
                                        dim3((unsigned)n_warp * WARP), bytes, d->stream, a),
                      "gate_topk");
}

size_t cuda_gate_scratch(const struct device *d, int64_t n_row)
{
    (void)n_row;
    return sizeof(int32_t) * SORT_MAX_EXPERTS * (size_t)d->n_sm;
}
