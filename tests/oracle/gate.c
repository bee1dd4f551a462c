/* gate.c - the oracle of picking experts, sorting rows by expert and putting them back.
 *
 * Scores, picking values and weights are doubles. Two experts whose values differ by less than
 * float32 can tell may change places; oracle_gate says by its margin when that may happen. */
#include <math.h>
#include <stdlib.h>

#include "tests/oracle/oracle.h"

/* Picks the best of the n values that are `open`, the lower index of equals; lowers *margin to
 * the relative distance of the best one that differs. */
static int pick_best(const double *v, const bool *open, int n, double *margin)
{
    int at = -1;
    for (int i = 0; i < n; i++) {
        if (open[i] && (at < 0 || v[i] > v[at])) at = i;
    }
    for (int i = 0; i < n; i++) {
        double size = at < 0 ? 0 : fmax(fabs(v[i]), fabs(v[at]));
        if (at < 0 || !open[i] || v[i] == v[at]) continue;
        *margin = fmin(*margin, (v[at] - v[i]) / size);
    }
    return at;
}

static double group_score(const struct gate *g, const double *pick, int n)
{
    double first = -INFINITY, second = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (pick[i] > first) {
            second = first;
            first = pick[i];
        } else if (pick[i] > second) {
            second = pick[i];
        }
    }
    return g->group == GROUP_MAX || n == 1 ? first : first + second;
}

/* Closes the experts of all groups but the best. */
static void close_groups(const struct gate *g, const double *pick, bool *open, double *margin)
{
    int size = g->n_expert / g->n_group;
    double *score = calloc((size_t)g->n_group, sizeof *score);
    bool *left = calloc((size_t)g->n_group, sizeof *left);
    for (int i = 0; i < g->n_group; i++) {
        score[i] = group_score(g, pick + (int64_t)i * size, size);
        left[i] = true;
    }
    for (int k = 0; k < g->top_group; k++) {
        left[pick_best(score, left, g->n_group, margin)] = false;
    }
    for (int e = 0; e < g->n_expert; e++) {
        if (left[e / size]) open[e] = false;
    }
    free(score);
    free(left);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* score [E]; returns a bound of their relative error in roundings. */
static double scores(const struct gate *g, const float *logit, double *score)
{
    double max = -INFINITY, min = INFINITY, sum = 0;
    for (int e = 0; e < g->n_expert; e++) {
        max = fmax(max, logit[e]);
        min = fmin(min, logit[e]);
    }
    for (int e = 0; e < g->n_expert; e++) {
        score[e] = g->score == SCORE_SOFTMAX   ? exp(logit[e] - max)
                   : g->score == SCORE_SIGMOID ? sigmoid(logit[e])
                                               : logit[e];
        sum += score[e];
    }
    for (int e = 0; e < g->n_expert && g->score == SCORE_SOFTMAX; e++) {
        score[e] /= sum;
    }
    if (g->score == SCORE_SOFTMAX) return g->n_expert + 2 * (max - min) + 12;
    return g->score == SCORE_SIGMOID ? 8 : 0;
}

/* Phi-3.5-MoE in evaluation mode, as its authors' code: twice a softmax over the experts within
 * the relative threshold of the best. */
static double sparsemixer(int32_t *id, double *weight, double *bound, const struct gate *g,
                          const float *logit)
{
    double margin = INFINITY, value[4096];
    bool open[4096];
    for (int e = 0; e < g->n_expert; e++) {
        value[e] = logit[e];
        open[e] = true;
    }
    for (int k = 0; k < 2; k++) {
        int at = pick_best(value, open, g->n_expert, &margin);
        double sum = 0, spread = 0;
        for (int e = 0; e < g->n_expert; e++) {
            double distance = (value[at] - value[e]) / fmax(fabs(value[e]), value[at]);
            if (open[e]) margin = fmin(margin, fabs(distance - 2 * (double)g->jitter));
            if (!open[e] || distance > 2 * (double)g->jitter) continue;
            sum += exp(value[e] - value[at]);
            spread = fmax(spread, value[at] - value[e]);
        }
        id[k] = at;
        weight[k] = 1 / sum;
        bound[k] = weight[k] * (g->n_expert + 2 * spread + 12) * FLOAT_UNIT;
        open[at] = false;
    }
    return margin;
}

static void weigh(const struct gate *g, const float *logit, const double *score,
                  double roundings, const int32_t *id, double *weight, double *bound)
{
    double sum = 0, size = 0, picked = 0, max = -INFINITY, min = INFINITY, divide = 1;
    for (int k = 0; k < g->top_k; k++) {
        max = fmax(max, logit[id[k]]);
        min = fmin(min, logit[id[k]]);
    }
    for (int k = 0; k < g->top_k; k++) {
        picked += exp(logit[id[k]] - max);
    }
    for (int k = 0; k < g->top_k; k++) {
        weight[k] = score[id[k]];
        if (g->weight == WEIGHT_SOFTMAX_PICKED) weight[k] = exp(logit[id[k]] - max) / picked;
        if (g->weight == WEIGHT_SIGMOID_PICKED) weight[k] = sigmoid(logit[id[k]]);
        sum += g->renorm == RENORM_NORM ? pow(fabs(weight[k]), g->floor) : weight[k];
        size += g->renorm == RENORM_NORM ? pow(fabs(weight[k]), g->floor) : fabs(weight[k]);
    }
    if (g->weight == WEIGHT_SOFTMAX_PICKED) roundings = g->top_k + 2 * (max - min) + 12;
    if (g->weight == WEIGHT_SIGMOID_PICKED) roundings = 8;
    if (g->renorm == RENORM_SUM) divide = sum + g->floor;
    if (g->renorm == RENORM_MAX) divide = fmax(sum, g->floor);
    if (g->renorm == RENORM_NORM) divide = pow(sum, 1 / (double)g->floor);
    for (int k = 0; k < g->top_k; k++) {
        /* Where terms of the sum cancel, its relative error grows. */
        double worse = g->renorm == RENORM_NONE ? 1 : 1 + size / fabs(sum);
        weight[k] = weight[k] / divide * g->scale;
        bound[k] =
            fabs(weight[k]) * (roundings + g->top_k + 12) * worse * FLOAT_UNIT + 0x1p-126;
    }
}

double oracle_gate(int32_t *id, double *weight, double *bound, const struct gate *g,
                   const float *logit, const float *bias)
{
    double score[4096], pick[4096], margin = INFINITY, roundings;
    bool open[4096];
    if (g->weight == WEIGHT_SPARSEMIXER) return sparsemixer(id, weight, bound, g, logit);
    roundings = scores(g, logit, score);
    for (int e = 0; e < g->n_expert; e++) {
        pick[e] = score[e] + (bias ? bias[e] : 0);
        open[e] = true;
    }
    if (g->group != GROUP_NONE) close_groups(g, pick, open, &margin);
    for (int k = 0; k < g->top_k; k++) {
        id[k] = pick_best(pick, open, g->n_expert, &margin);
        open[id[k]] = false;
    }
    weigh(g, logit, score, roundings, id, weight, bound);
    return margin;
}

void oracle_permute(const struct gate *g, int n_row, const int32_t *id, int32_t *offset,
                    int32_t *source, int32_t *place)
{
    int32_t n = 0;
    for (int e = 0; e < g->n_expert; e++) {
        offset[e] = n;
        for (int64_t i = 0; i < (int64_t)n_row * g->top_k; i++) {
            if (id[i] != e) continue;
            source[n] = (int32_t)(i / g->top_k);
            place[i] = n++;
        }
    }
    offset[g->n_expert] = n;
}

void oracle_unpermute(double *want, double *bound, const struct gate *g, struct tensor y,
                      struct tensor x, const struct routing *routing, double factor)
{
    for (int64_t r = 0; r < y.rows; r++) {
        for (int64_t i = 0; i < y.cols; i++, want++, bound++) {
            double sum = 0, size = 0, old = oracle_value(&y, r, i);
            for (int64_t k = r * g->top_k; k < (r + 1) * g->top_k; k++) {
                double w = g->scale_input ? 1 : routing->weight[k];
                double term = w * oracle_value(&x, routing->place[k], i);
                sum += term;
                size += fabs(term);
            }
            *want = old + factor * sum;
            *bound = (fabs(factor) * size * (g->top_k + 2) + fabs(*want)) * FLOAT_UNIT;
        }
    }
}
