/* clock.c - samples between two marks on the device, in turns.
 *
 * All turns of a sample are one recorded graph, so the host enqueues one thing and its speed
 * does not count; what cannot be recorded is enqueued as it is and says so. All samples are
 * enqueued before the first is waited for: a device with a queue is never idle in between.
 * Before a cold sample a matrix of twice the cache is read through the device's own linear map
 * with one row, which writes next to nothing: written lines would have to leave the cache
 * during the sample. */
#include "clock.h"

#include <stdlib.h>
#include <string.h>

#include "bench/stats.h"

enum { FLUSH_COLS = 4096, SAMPLE_US = 1000 };

static pm_status take(struct clock *c, struct tensor *t, int64_t rows, int64_t cols)
{
    void *p;
    TRY(c->k->alloc(c->d, &p, (size_t)(rows * cols) * sizeof(float), "cache flush"));
    *t = tensor_view(p, PM_F32, rows, cols);
    return PM_OK;
}

/* Memory that was never written may be one page of zeros to a CPU. */
static pm_status fill(struct clock *c, float *row)
{
    for (int i = 0; i < FLUSH_COLS; i++)
        row[i] = (float)(i % 7) - 3;
    for (int64_t r = 0; r < c->flush.rows; r++) {
        char *to = (char *)c->flush.data + r * c->flush.stride;
        TRY(c->k->upload(c->d, to, row, FLUSH_COLS * sizeof *row));
    }
    TRY(c->k->upload(c->d, c->flush_x.data, row, FLUSH_COLS * sizeof *row));
    return c->k->sync(c->d);
}

pm_status clock_open(struct clock *c, const struct kernels *k, struct device *d,
                     size_t flush_bytes)
{
    int64_t rows = (int64_t)(flush_bytes / (FLUSH_COLS * sizeof(float))) + 1;
    float *row = NULL;
    pm_status status = PM_OK;
    *c = (struct clock){.k = k, .d = d};
    if (flush_bytes == 0) return PM_OK;
    TRY_DONE(alloc_array(&row, FLUSH_COLS, sizeof *row, "cache flush"));
    TRY_DONE(k->reserve(d, 1, max_i64(rows, FLUSH_COLS), 1));
    TRY_DONE(take(c, &c->flush, rows, FLUSH_COLS));
    TRY_DONE(take(c, &c->flush_x, 1, FLUSH_COLS));
    TRY_DONE(take(c, &c->flush_y, 1, rows));
    TRY_DONE(fill(c, row));
done:
    free(row);
    if (status != PM_OK) clock_close(c);
    return status;
}

void clock_close(struct clock *c)
{
    if (!c->k) return;
    c->k->free(c->d, c->flush.data);
    c->k->free(c->d, c->flush_x.data);
    c->k->free(c->d, c->flush_y.data);
    memset(c, 0, sizeof *c);
}

/* One measurement of several contenders. */
struct course {
    struct clock *clock;
    struct contender *who; /* [n] */
    void **graph;          /* [n] or NULL each */
    void **mark;           /* [n_sample, n, 2] */
    double us[CLOCK_MAX_SAMPLE];
    int n, n_sample;
    int64_t n_turn;
};

static pm_status turns(const struct contender *who, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        TRY(who->run(who->arg, i));
    return PM_OK;
}

/* The graph of all turns, or NULL where it cannot be had. */
static void *record(const struct course *c, const struct contender *who)
{
    const struct kernels *k = c->clock->k;
    struct device *d = c->clock->d;
    void *graph = NULL;
    pm_status status, ended;
    if (!k->record_begin || k->record_begin(d) != PM_OK) return NULL;
    status = turns(who, c->n_turn);
    ended = k->record_end(d, &graph);
    if (status == PM_OK && ended == PM_OK) return graph;
    if (graph) k->record_free(d, graph);
    return NULL;
}

static pm_status flush(const struct clock *c)
{
    struct linear op = {.y = c->flush_y, .x = c->flush_x, .w = &c->flush};
    return c->flush.data ? c->k->linear(c->d, &op, 1) : PM_OK;
}

static pm_status sample(struct course *c, int i, void *const *mark)
{
    const struct kernels *k = c->clock->k;
    struct device *d = c->clock->d;
    TRY(flush(c->clock));
    TRY(k->mark_set(d, mark[0]));
    if (c->graph[i]) {
        TRY(k->replay(d, c->graph[i]));
    } else {
        TRY(turns(&c->who[i], c->n_turn));
    }
    return k->mark_set(d, mark[1]);
}

/* How many turns of the first contender fill a sample. */
static pm_status choose_turns(struct course *c)
{
    const struct kernels *k = c->clock->k;
    struct device *d = c->clock->d;
    double us;
    TRY(k->mark_set(d, c->mark[0]));
    TRY(turns(c->who, 1));
    TRY(k->mark_set(d, c->mark[1]));
    TRY(k->mark_us(d, &us, c->mark[0], c->mark[1]));
    c->n_turn = us > 0 ? (int64_t)(SAMPLE_US / us) : CLOCK_MAX_TURN;
    c->n_turn = max_i64(1, min_i64(c->n_turn, CLOCK_MAX_TURN));
    return PM_OK;
}

/* Each contender runs once as it is: a backend prepares things on first use. */
static pm_status warm_up(struct course *c)
{
    for (int i = 0; i < c->n; i++)
        TRY(turns(&c->who[i], max_i64(c->n_turn, 1)));
    if (!c->n_turn) TRY(choose_turns(c));
    TRY(c->clock->k->sync(c->clock->d));
    for (int i = 0; i < c->n; i++)
        c->graph[i] = record(c, &c->who[i]);
    return PM_OK;
}

static pm_status run_samples(struct course *c)
{
    for (int s = 0; s < c->n_sample; s++) {
        for (int i = 0; i < c->n; i++) {
            int at = (s + i) % c->n;
            TRY(sample(c, at, c->mark + 2 * (s * c->n + at)));
        }
    }
    return PM_OK;
}

static pm_status read_samples(struct course *c, int at)
{
    struct timing *t = &c->who[at].time;
    int n = c->n_sample;
    for (int s = 0; s < n; s++) {
        void **mark = c->mark + 2 * (s * c->n + at);
        TRY(c->clock->k->mark_us(c->clock->d, &c->us[s], mark[0], mark[1]));
        c->us[s] = c->us[s] > 0 ? c->us[s] / (double)c->n_turn : 1e-3;
    }
    *t = (struct timing){.n_turn = c->n_turn, .replayed = c->graph[at] != NULL};
    t->deviation_us = stats_deviation(c->us, n);
    t->median_us = stats_median(c->us, n);
    t->p10_us = stats_quantile(c->us, n, 0.1);
    t->p90_us = stats_quantile(c->us, n, 0.9);
    t->min_us = c->us[0];
    return PM_OK;
}

pm_status clock_measure(struct clock *clock, struct contender *who, int n, int n_sample,
                        int64_t n_turn, struct device_facts *facts)
{
    const struct kernels *k = clock->k;
    int n_mark = 2 * n * n_sample;
    struct course *c;
    pm_status status;
    TRY(alloc_array(&c, 1, sizeof *c, "samples"));
    *c = (struct course){
        .clock = clock, .who = who, .n = n, .n_sample = n_sample, .n_turn = n_turn};
    TRY_DONE(alloc_array(&c->graph, (size_t)n, sizeof *c->graph, "samples"));
    TRY_DONE(alloc_array(&c->mark, (size_t)n_mark, sizeof *c->mark, "samples"));
    for (int i = 0; i < n_mark; i++)
        TRY_DONE(k->mark_new(clock->d, &c->mark[i]));
    TRY_DONE(warm_up(c));
    TRY_DONE(run_samples(c));
    if (facts) k->facts(clock->d, facts);
    for (int i = 0; i < n; i++)
        TRY_DONE(read_samples(c, i));
done:
    k->sync(clock->d);
    for (int i = 0; c->mark && i < n_mark; i++)
        k->mark_free(clock->d, c->mark[i]);
    for (int i = 0; c->graph && i < n; i++) {
        if (c->graph[i]) k->record_free(clock->d, c->graph[i]);
    }
    free(c->mark);
    free(c->graph);
    free(c);
    return status;
}
