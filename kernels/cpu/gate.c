/* gate.c - from gate logits to weights and ids, and the sort by expert.
 *
 * One primitive for all families (kernels.h, struct gate): scores in float32 over all experts,
 * picking on score + bias inside the groups that survive, weights from the unbiased scores.
 * Ties go to the lower expert, groups likewise. Cost: T * E exponentials and T * K * E
 * compares, some microseconds beside milliseconds of expert work. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/ops.h"

enum { MAX_EXPERTS = 4096 };

/* What a score that is -INFINITY or not a number counts as when experts are picked: above
 * -INFINITY, which marks the experts that are taken, and two of them still add up. */
#define LOWEST -1e38f

struct gate_job {
    const struct micro *m;
    const struct gate *g;
    struct tensor logits;
    const float *bias;
    const struct routing *out;
};

/* The best of n values that is not taken (-INFINITY), lower index first. */
static int best(const float *v, int n)
{
    int at = 0;
    for (int i = 1; i < n; i++) {
        if (v[i] > v[at]) at = i;
    }
    return at;
}

/* Sets the picking scores of all experts outside the best groups to -INFINITY. */
static void mask_groups(const struct gate *g, float *pick)
{
    int size = g->n_expert / g->n_group;
    float group[MAX_EXPERTS];
    bool keep[MAX_EXPERTS] = {false};
    for (int i = 0; i < g->n_group; i++) {
        const float *s = pick + (int64_t)i * size;
        float first = -INFINITY, second = -INFINITY;
        for (int j = 0; j < size; j++) {
            if (s[j] > first) {
                second = first;
                first = s[j];
            } else if (s[j] > second) {
                second = s[j];
            }
        }
        group[i] = g->group == GROUP_MAX || size == 1 ? first : first + second;
    }
    for (int k = 0; k < g->top_group; k++) {
        int at = best(group, g->n_group);
        keep[at] = true;
        group[at] = -INFINITY;
    }
    for (int e = 0; e < g->n_expert; e++) {
        if (!keep[e / size]) pick[e] = -INFINITY;
    }
}

/* One of sparsemixer's two picks (arXiv 2409.12136, evaluation mode): the weight is a softmax
 * over the experts near the best one; `from` has the taken expert at -INFINITY. */
static float sparsemixer_pick(const float *logit, const float *from, int n, float jitter,
                              int32_t *id)
{
    int at = best(from, n);
    float max = from[at], sum = 0;
    for (int e = 0; e < n; e++) {
        float clamped = fmaxf(fabsf(logit[e]), max);
        if (from[e] == -INFINITY || (max - logit[e]) / clamped > 2 * jitter) continue;
        sum += expf(from[e] - max);
    }
    *id = at;
    return 1 / sum;
}

static void sparsemixer(const struct gate *g, const float *logit, float *weight, int32_t *id)
{
    float from[MAX_EXPERTS];
    for (int e = 0; e < g->n_expert; e++) {
        from[e] = logit[e] > LOWEST ? logit[e] : LOWEST;
    }
    weight[0] = sparsemixer_pick(logit, from, g->n_expert, g->jitter, &id[0]);
    from[id[0]] = -INFINITY;
    weight[1] = sparsemixer_pick(logit, from, g->n_expert, g->jitter, &id[1]);
}

/* Weights of the picked experts before renormalisation. */
static void raw_weights(const struct gate *g, const float *logit, const float *score,
                        float *weight, const int32_t *id)
{
    float sum = 0, max = logit[id[0]];
    for (int k = 1; k < g->top_k; k++) {
        max = fmaxf(max, logit[id[k]]);
    }
    for (int k = 0; k < g->top_k; k++) {
        switch (g->weight) {
        case WEIGHT_SOFTMAX_PICKED: weight[k] = expf(logit[id[k]] - max); break;
        case WEIGHT_SIGMOID_PICKED: weight[k] = 1 / (1 + expf(-logit[id[k]])); break;
        default: weight[k] = score[id[k]];
        }
        sum += weight[k];
    }
    for (int k = 0; k < g->top_k && g->weight == WEIGHT_SOFTMAX_PICKED; k++) {
        weight[k] /= sum;
    }
}

static void weigh(const struct gate *g, const float *logit, const float *score, float *weight,
                  const int32_t *id)
{
    float sum = 0;
    raw_weights(g, logit, score, weight, id);
    for (int k = 0; k < g->top_k; k++) {
        sum += g->renorm == RENORM_NORM ? powf(fabsf(weight[k]), g->floor) : weight[k];
    }
    switch (g->renorm) {
    case RENORM_NONE: sum = 1; break;
    case RENORM_SUM: sum += g->floor; break;
    case RENORM_MAX: sum = fmaxf(sum, g->floor); break;
    case RENORM_NORM: sum = powf(sum, 1 / g->floor); break;
    }
    for (int k = 0; k < g->top_k; k++) {
        weight[k] = weight[k] / sum * g->scale;
    }
}

static void gate_row(const struct gate_job *job, int64_t r)
{
    const struct gate *g = job->g;
    const float *logit = row_f32(&job->logits, r);
    float *weight = job->out->weight + r * g->top_k;
    int32_t *id = job->out->id + r * g->top_k;
    float score[MAX_EXPERTS], pick[MAX_EXPERTS];
    int n = g->n_expert;
    if (g->weight == WEIGHT_SPARSEMIXER) {
        sparsemixer(g, logit, weight, id);
        return;
    }
    memcpy(score, logit, (size_t)n * sizeof *score);
    if (g->score == SCORE_SOFTMAX) {
        float sum = job->m->exp_sum(score, n, job->m->max(logit, n));
        for (int e = 0; e < n; e++) {
            score[e] /= sum;
        }
    } else if (g->score == SCORE_SIGMOID) {
        for (int e = 0; e < n; e++) {
            score[e] = 1 / (1 + expf(-logit[e]));
        }
    }
    for (int e = 0; e < n; e++) {
        pick[e] = score[e] + (job->bias ? job->bias[e] : 0);
        if (!(pick[e] > LOWEST)) pick[e] = LOWEST;
    }
    if (g->group != GROUP_NONE) mask_groups(g, pick);
    for (int k = 0; k < g->top_k; k++) {
        id[k] = best(pick, n);
        pick[id[k]] = -INFINITY;
    }
    weigh(g, logit, score, weight, id);
}

static void gate_rows(void *arg, int64_t first, int64_t end, int worker)
{
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        gate_row(arg, r);
    }
}

pm_status cpu_gate_topk(struct device *d, const struct gate *gate, struct tensor logits,
                        const float *bias, const struct routing *out)
{
    struct gate_job job = {d->micro, gate, logits, bias, out};
    if (gate->n_expert > MAX_EXPERTS || gate->top_k > gate->n_expert) {
        return fail(PM_ERR_ARG, "gate_topk: %d of %d experts, at most %d", gate->top_k,
                    gate->n_expert, MAX_EXPERTS);
    }
    parallel_rows(d, logits.rows, max_i64(1, 2048 / gate->n_expert), gate_rows, &job);
    if (!out->offset) return PM_OK;
    return cpu_permute(d, gate, (int)logits.rows, out);
}

pm_status cpu_permute(struct device *d, const struct gate *gate, int n_row,
                      const struct routing *routing)
{
    int64_t n = (int64_t)n_row * gate->top_k;
    int32_t *offset = routing->offset;
    int32_t next[MAX_EXPERTS];
    (void)d;
    memset(offset, 0, (size_t)(gate->n_expert + 1) * sizeof *offset);
    for (int64_t i = 0; i < n; i++) {
        offset[routing->id[i] + 1]++;
    }
    for (int e = 0; e < gate->n_expert; e++) {
        offset[e + 1] += offset[e];
        next[e] = offset[e];
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t at = next[routing->id[i]]++;
        routing->source[at] = (int32_t)(i / gate->top_k);
        routing->place[i] = at;
    }
    return PM_OK;
}

struct unpermute_job {
    const struct micro *m;
    const struct gate *g;
    struct tensor y, x;
    const struct routing *routing;
    float factor;
};

static void scale_into_place(void *arg, int64_t first, int64_t end, int worker)
{
    const struct unpermute_job *job = arg;
    int top_k = job->g->top_k;
    (void)worker;
    for (int64_t i = first * top_k; i < end * top_k; i++) {
        const float *x = row_f32(&job->x, i / top_k);
        float *y = row_f32(&job->y, job->routing->place[i]);
        float w = job->routing->weight[i];
        for (int64_t j = 0; j < job->x.cols; j++) {
            y[j] = w * x[j];
        }
    }
}

pm_status cpu_permute_scaled(struct device *d, const struct gate *gate, struct tensor y,
                             struct tensor x, const struct routing *routing)
{
    struct unpermute_job job = {d->micro, gate, y, x, routing, 1};
    parallel_rows(d, x.rows, max_i64(1, 8192 / (x.cols * gate->top_k)), scale_into_place, &job);
    return PM_OK;
}

/* Long parts, because a row of x is read from memory: its prefetchers like to go on. */
static void unpermute_rows(void *arg, int64_t first, int64_t end, int worker)
{
    enum { PART = 2048 };
    const struct unpermute_job *job = arg;
    int top_k = job->g->top_k;
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        const int32_t *place = job->routing->place + r * top_k;
        const float *weight = job->routing->weight + r * top_k;
        float *y = row_f32(&job->y, r);
        for (int64_t i = 0; i < job->y.cols; i += PART) {
            int64_t n = min_i64(PART, job->y.cols - i);
            float sum[PART];
            memset(sum, 0, (size_t)n * sizeof *sum);
            for (int k = 0; k < top_k; k++) {
                const float *x = row_f32(&job->x, place[k]) + i;
                job->m->axpy_f32(sum, job->g->scale_input ? 1 : weight[k], x, n);
            }
            job->m->axpy_f32(y + i, job->factor, sum, n);
        }
    }
}

pm_status cpu_unpermute(struct device *d, const struct gate *gate, struct tensor y,
                        struct tensor x, const struct routing *routing, float factor)
{
    struct unpermute_job job = {d->micro, gate, y, x, routing, factor};
    parallel_rows(d, y.rows, max_i64(1, 8192 / (y.cols * gate->top_k)), unpermute_rows, &job);
    return PM_OK;
}
