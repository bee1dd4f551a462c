/* serve_report.c - from samples to percentiles, rates and goodput.
 *
 *   TTFT  first token - sending           TPOT  (E2EL - TTFT) / (output tokens - 1)
 *   E2EL  last piece - sending            ITL   gaps between chunks, of all requests together
 *
 * as `vllm bench serve` has them. Failed requests are counted and enter no percentile; a
 * request of one token has no TPOT and keeps any bound on it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/serve.h"

const double serve_percentile[N_PERCENTILE] = {50, 90, 95, 99};

double serve_percentile_of(const double *x, size_t n, double percent)
{
    double at = percent / 100 * (double)(n - 1);
    size_t below = (size_t)at;
    if (n == 0) return 0;
    if (below + 1 >= n) return x[n - 1];
    return x[below] + (at - (double)below) * (x[below + 1] - x[below]);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct serve_spread serve_spread_of(double *x, size_t n)
{
    struct serve_spread s = {.n = n};
    double square = 0;
    if (n == 0) return s;
    qsort(x, n, sizeof *x, ascending);
    for (size_t i = 0; i < n; i++) {
        s.mean += x[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        square += (x[i] - s.mean) * (x[i] - s.mean);
    }
    s.std = sqrt(square / (double)n);
    s.median = serve_percentile_of(x, n, 50);
    s.max = x[n - 1];
    for (int i = 0; i < N_PERCENTILE; i++) {
        s.p[i] = serve_percentile_of(x, n, serve_percentile[i]);
    }
    return s;
}

/* One list of numbers for each spread. */
enum { TTFT, TPOT, ITL, E2EL, LATE, N_LIST };
struct lists {
    double *x[N_LIST];
    size_t n[N_LIST], capacity[N_LIST];
};

static pm_status add(struct lists *l, int which, double x)
{
    TRY(grow_array(&l->x[which], &l->capacity[which], l->n[which] + 1, sizeof(double)));
    l->x[which][l->n[which]++] = x;
    return PM_OK;
}

static bool within(double x, double bound)
{
    return bound == 0 || x <= bound;
}

static pm_status add_completed(struct serve_report *r, struct lists *l,
                               const struct serve_sample *q, const struct serve_bounds *bounds)
{
    double e2el = (double)(q->last_us - q->start_us) / 1000, ttft = e2el, tpot = 0;
    r->completed++;
    r->n_input += q->n_prompt;
    r->n_output += q->n_output;
    r->n_cached += q->n_cached;
    r->counted |= q->counted;
    if (q->first_us) {
        ttft = (double)(q->first_us - q->start_us) / 1000;
        TRY(add(l, TTFT, ttft));
    }
    if (q->first_us && q->n_output > 1) {
        tpot = (e2el - ttft) / (q->n_output - 1);
        TRY(add(l, TPOT, tpot));
    }
    for (size_t i = 0; i < q->n_gap; i++) {
        TRY(add(l, ITL, q->gap_ms[i]));
    }
    r->n_good +=
        within(ttft, bounds->ttft) && within(tpot, bounds->tpot) && within(e2el, bounds->e2el);
    return add(l, E2EL, e2el);
}

static void count_error(struct serve_report *r, const char *text)
{
    int i = 0;
    while (i < r->n_error && strcmp(r->error[i].text, text) != 0) {
        i++;
    }
    if (i == MAX_ERROR_KIND) {
        i--;
        r->error[i].text = "other";
    } else if (i == r->n_error) {
        r->error[r->n_error++].text = text;
    }
    r->error[i].n++;
}

/* The most tokens of any whole second, a chunk's tokens at the chunk's time. */
static pm_status find_peak(struct serve_report *r, const struct serve_run *run)
{
    size_t n = (size_t)r->duration_s + 1;
    double *second;
    TRY(alloc_array(&second, n, sizeof *second, "seconds"));
    for (size_t i = 0; i < run->n; i++) {
        const struct serve_sample *q = &run->sample[i];
        double at = (double)(q->first_us - run->begin_us) / 1e6;
        double each = q->n_chunk ? (double)q->n_output / q->n_chunk : 0;
        if (*q->error || !q->first_us) continue;
        for (size_t k = 0; k <= q->n_gap; k++) {
            size_t s = at > 0 ? (size_t)at : 0;
            second[s < n ? s : n - 1] += each;
            if (k < q->n_gap) at += q->gap_ms[k] / 1000;
        }
    }
    for (size_t i = 0; i < n; i++) {
        r->peak_output_per_s = fmax(r->peak_output_per_s, second[i]);
    }
    free(second);
    return PM_OK;
}

static void set_rates(struct serve_report *r, const struct serve_run *run)
{
    double s = r->duration_s > 0 ? r->duration_s : 1e-6;
    r->requests_per_s = (double)r->completed / s;
    r->good_per_s = (double)r->n_good / s;
    r->output_per_s = (double)r->n_output / s;
    r->total_per_s = (double)(r->n_input + r->n_output) / s;
    r->cpu_share = run->cpu_s / s;
}

pm_status serve_report(struct serve_report *out, const struct serve_run *run,
                       const struct serve_bounds *bounds)
{
    struct serve_report r = {.duration_s = (double)(run->end_us - run->begin_us) / 1e6};
    struct lists l = {0};
    pm_status status = PM_OK;
    for (size_t i = 0; i < run->n; i++) {
        const struct serve_sample *q = &run->sample[i];
        TRY_DONE(add(&l, LATE, (double)(q->start_us - q->due_us) / 1000));
        if (*q->error) {
            r.failed++;
            count_error(&r, q->error);
        } else {
            TRY_DONE(add_completed(&r, &l, q, bounds));
        }
    }
    set_rates(&r, run);
    TRY_DONE(find_peak(&r, run));
    r.ttft = serve_spread_of(l.x[TTFT], l.n[TTFT]);
    r.tpot = serve_spread_of(l.x[TPOT], l.n[TPOT]);
    r.itl = serve_spread_of(l.x[ITL], l.n[ITL]);
    r.e2el = serve_spread_of(l.x[E2EL], l.n[E2EL]);
    r.late = serve_spread_of(l.x[LATE], l.n[LATE]);
    *out = r;
done:
    for (int i = 0; i < N_LIST; i++) {
        free(l.x[i]);
    }
    return status;
}
