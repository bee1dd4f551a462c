/* routing_make.c - draws of experts.
 *
 * An expert is drawn by its popularity, by bisection of the cumulated sum, and drawn again
 * where the row has it or its group may not be opened; after some tries the next expert that
 * fits is taken, so that one very popular expert cannot hold the loop. */
#include "routing_make.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/trace.h"

enum { MAX_EXPERT = 4096 };

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static double uniform(uint64_t *state)
{
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

static pm_status wrong(const char *text, size_t n)
{
    return fail(PM_ERR_ARG,
                "routing: found \"%.*s\", wanted uniform, zipf:1.0, one-hot or trace:FILE",
                (int)n, text);
}

pm_status routing_parse(struct routing_maker *m, const char *text, size_t n)
{
    char word[4096], *end;
    if (n >= sizeof word) return wrong(text, 40);
    memcpy(word, text, n);
    word[n] = 0;
    memset(m, 0, sizeof *m);
    snprintf(m->name, sizeof m->name, "%.32s", word);
    if (strcmp(word, "uniform") == 0) return PM_OK;
    if (strcmp(word, "one-hot") == 0) {
        m->kind = ROUTING_ONE_HOT;
        return PM_OK;
    }
    if (strncmp(word, "zipf:", 5) == 0) {
        m->kind = ROUTING_ZIPF;
        m->exponent = strtod(word + 5, &end);
        if (end == word + 5 || *end || !(m->exponent >= 0 && m->exponent <= 10)) {
            return fail(PM_ERR_ARG, "routing: found \"%s\", wanted zipf:0 to zipf:10", word);
        }
        return PM_OK;
    }
    if (strncmp(word, "trace:", 6) == 0) {
        m->kind = ROUTING_TRACE;
        snprintf(m->name, sizeof m->name, "trace");
        return trace_read(&m->trace, word + 6);
    }
    return wrong(word, n);
}

void routing_free(struct routing_maker *m)
{
    trace_free(m->trace);
    m->trace = NULL;
}

static pm_status from_trace(const struct trace *t, int32_t *id, const struct gate *g,
                            int64_t n_row, uint64_t seed)
{
    const uint16_t *from;
    if (t->n_expert != (uint32_t)g->n_expert || t->top_k != (uint32_t)g->top_k) {
        return fail(PM_ERR_ARG,
                    "routing: found a trace of top %u of %u experts, wanted %d of %d", t->top_k,
                    t->n_expert, g->top_k, g->n_expert);
    }
    if (!t->n_token || !t->n_layer) return fail(PM_ERR_ARG, "routing: the trace is empty");
    from = t->id + (size_t)(t->n_layer / 2) * t->n_token * t->top_k;
    for (int64_t r = 0; r < n_row; r++) {
        const uint16_t *row = from + ((uint64_t)r + seed * 977) % t->n_token * t->top_k;
        for (int k = 0; k < g->top_k; k++) {
            if (row[k] == TRACE_NONE) {
                return fail(PM_ERR_ARG, "routing: layer %u of the trace chose fewer than %d",
                            t->layer[t->n_layer / 2], g->top_k);
            }
            id[r * g->top_k + k] = row[k];
        }
    }
    return PM_OK;
}

/* What one row has chosen so far. */
struct row {
    int32_t *id;
    int n, n_group;
    int32_t group[MAX_EXPERT];
};

static bool fits(const struct row *row, const struct gate *g, int32_t expert)
{
    int32_t group = g->group == GROUP_NONE ? 0 : expert / (g->n_expert / g->n_group);
    for (int k = 0; k < row->n; k++) {
        if (row->id[k] == expert) return false;
    }
    if (g->group == GROUP_NONE) return true;
    for (int i = 0; i < row->n_group; i++) {
        if (row->group[i] == group) return true;
    }
    return row->n_group < g->top_group;
}

static void choose(struct row *row, const struct gate *g, int32_t expert)
{
    int32_t group = g->group == GROUP_NONE ? 0 : expert / (g->n_expert / g->n_group);
    bool known = false;
    for (int i = 0; i < row->n_group; i++) {
        known = known || row->group[i] == group;
    }
    if (!known) row->group[row->n_group++] = group;
    row->id[row->n++] = expert;
}

/* The first entry of the cumulated sum above x. */
static int find(const double *sum, int n, double x)
{
    int low = 0, high = n - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (sum[middle] > x) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void draw_row(struct row *row, const struct gate *g, const double *sum,
                     const int32_t *expert, uint64_t *state)
{
    enum { TRIES = 64 };
    int n = g->n_expert;
    while (row->n < g->top_k) {
        int at = 0;
        for (int i = 0; i < TRIES; i++) {
            at = find(sum, n, uniform(state) * sum[n - 1]);
            if (fits(row, g, expert[at])) break;
        }
        while (!fits(row, g, expert[at])) {
            at = (at + 1) % n;
        }
        choose(row, g, expert[at]);
    }
}

pm_status routing_ids(const struct routing_maker *m, int32_t *id, const struct gate *g,
                      int64_t n_row, uint64_t seed)
{
    double sum[MAX_EXPERT], total = 0;
    int32_t expert[MAX_EXPERT];
    uint64_t state = seed;
    struct row row;
    if (m->kind == ROUTING_TRACE) return from_trace(m->trace, id, g, n_row, seed);
    for (int e = 0; e < g->n_expert; e++) {
        expert[e] = e;
        total += m->kind == ROUTING_ZIPF ? pow(e + 1, -m->exponent) : 1;
        sum[e] = total;
    }
    for (int e = g->n_expert - 1; e > 0; e--) {
        int j = (int)(next_random(&state) % (uint64_t)(e + 1));
        int32_t old = expert[e];
        expert[e] = expert[j];
        expert[j] = old;
    }
    for (int64_t r = 0; r < n_row; r++) {
        if (r > 0 && m->kind == ROUTING_ONE_HOT) {
            memcpy(id + r * g->top_k, id, (size_t)g->top_k * sizeof *id);
            continue;
        }
        row.id = id + r * g->top_k;
        row.n = row.n_group = 0;
        draw_row(&row, g, sum, expert, &state);
    }
    return PM_OK;
}

void routing_logits(float *logits, const int32_t *id, const struct gate *g, int64_t n_row,
                    uint64_t seed)
{
    uint64_t state = ~seed;
    for (int64_t r = 0; r < n_row; r++) {
        float *row = logits + r * g->n_expert;
        for (int e = 0; e < g->n_expert; e++) {
            row[e] = (float)uniform(&state) - 3;
        }
        for (int k = 0; k < g->top_k; k++) {
            row[id[r * g->top_k + k]] = 2 - 1.5f * (float)k / (float)g->top_k;
        }
    }
}

int routing_active(const int32_t *id, const struct gate *g, int64_t n_row)
{
    bool seen[MAX_EXPERT] = {false};
    int n = 0;
    for (int64_t i = 0; i < n_row * g->top_k; i++) {
        n += !seen[id[i]];
        seen[id[i]] = true;
    }
    return n;
}
