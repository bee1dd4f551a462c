/* kernels.c - polymath bench kernels: operations of a layer on the shapes of released models.
 *
 * Every case is shape x operation x weight type x routing x rows x cache; what an operation
 * does not depend on is not varied. Cold: a sample runs once over sets of memory (other
 * experts, other rows), as many as twice the cache holds and 64 at most; where they are smaller
 * than that, the cache is flushed before the sample. Hot: it repeats on one set. Baselines take
 * turns with the house's own operation, sample by sample, on the same memory. Peaks are
 * measured before and after all cases and the better is taken. */
#include "bench/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
    const struct kernels_request *q;
    const struct kernels *k;
    struct device *d;
    struct clock clock;
    struct tensor flush;                  /* of the clock, for cold cases */
    void *baseline[KERNELS_MAX_BASELINE]; /* their states */
    bool opened[KERNELS_MAX_BASELINE];
    double cache_bytes; /* 0: no case is cold */
    struct expert_copies copies;
    struct kernels_report report;
};

/* ------------------------------------------------------------------ one case */

/* What a contender runs: an operation, or its products by a baseline. */
struct entrant {
    const struct kernel_case *c;
    const struct kernel_op *op;
    const struct baseline *baseline; /* NULL: the house's own */
    void *state;
};

static pm_status turn(void *arg, int64_t number)
{
    const struct entrant *e = arg;
    const struct kernel_case *c = e->c;
    const struct kernel_set *s = &c->set[number % c->n_set];
    if (!e->baseline) return e->op->run(c, s);
    for (int i = 0; i < s->n_product; i++)
        TRY(e->baseline->run(e->state, c->k, c->d, &s->product[i]));
    return PM_OK;
}

/* As many sets as leave nothing of the first in a cache when its turn comes again. */
static pm_status prepare(struct bench *b, struct kernel_case *c, const struct kernel_op *op,
                         struct kernels_row *row)
{
    double flops, most = row->cold ? 2 * b->cache_bytes : 0;
    bool products = b->q->n_baseline && op->products;
    TRY(op->prepare(c, &c->set[0], 0));
    c->n_active = c->set[0].n_active;
    op->work(c, &row->bytes, &flops);
    c->n_set = (int)fmin(fmax(ceil(most / row->bytes), 1), MAX_SET);
    for (int i = 1; i < c->n_set; i++) {
        TRY(op->prepare(c, &c->set[i], i));
        c->n_active += c->set[i].n_active;
    }
    for (int i = 0; i < c->n_set && products; i++)
        TRY(op->products(c, &c->set[i]));
    c->n_active /= c->n_set;
    op->work(c, &row->bytes, &row->flops);
    row->n_set = c->n_set;
    row->n_active = c->n_active;
    return PM_OK;
}

/* A baseline that takes these types, ready and found to compute the same. */
static pm_status enter(struct bench *b, struct kernel_case *c, int number, struct entrant *e,
                       bool *takes)
{
    const struct baseline *base = b->q->baseline[number];
    *e = (struct entrant){.c = c, .baseline = base, .state = b->baseline[number]};
    *takes = c->set[0].n_product > 0 && base->takes(&c->set[0].product[0]);
    for (int i = 0; i < c->n_set && *takes; i++) {
        struct kernel_set *s = &c->set[i];
        for (int p = 0; p < s->n_product; p++)
            TRY(base->prepare(e->state, &s->product[p], &c->arena));
    }
    if (!*takes) return PM_OK;
    TRY(turn(e, 0));
    for (int p = 0; p < c->set[0].n_product; p++)
        TRY(baseline_check(base, c->k, c->d, &c->set[0].product[p]));
    return PM_OK;
}

static pm_status add_rows(struct bench *b, struct kernels_row *row, const struct contender *who,
                          int n)
{
    struct kernels_report *r = &b->report;
    for (int i = 0; i < n; i++) {
        const struct entrant *e = who[i].arg;
        TRY(grow_array(&r->row, &r->capacity, r->n + 1, sizeof *r->row));
        row->by = e->baseline ? e->baseline->name : "polymath";
        row->own_us = i ? who[0].time.median_us : 0;
        row->time = who[i].time;
        r->row[r->n++] = *row;
    }
    return PM_OK;
}

static pm_status measure_sets(struct bench *b, struct kernel_case *c,
                              const struct kernel_op *op, struct kernels_row *row)
{
    struct entrant entrant[1 + KERNELS_MAX_BASELINE] = {{.c = c, .op = op}};
    struct contender who[1 + KERNELS_MAX_BASELINE] = {{.run = turn, .arg = &entrant[0]}};
    bool rotates = row->bytes * c->n_set >= 2 * b->cache_bytes;
    int n = 1;
    for (int i = 0; i < b->q->n_baseline; i++) {
        bool takes;
        TRY(enter(b, c, i, &entrant[n], &takes));
        if (!takes) continue;
        who[n] = (struct contender){.run = turn, .arg = &entrant[n]};
        n++;
    }
    b->clock.flush = b->flush;
    if (!row->cold || rotates) b->clock.flush.data = NULL;
    TRY(clock_measure(&b->clock, who, n, b->q->repeat, row->cold ? c->n_set : 0,
                      &b->report.facts));
    row->clock_mhz = b->report.facts.clock_mhz;
    return add_rows(b, row, who, n);
}

static int64_t widest(const struct shape *s)
{
    int64_t head = s->mla.latent ? s->mla.nope + s->mla.rope : s->head_dim;
    int64_t n = max_i64(max_i64(s->hidden, s->inner), s->n_head * head);
    return max_i64(n, max_i64(s->gate.n_expert, s->mla.latent + s->mla.rope));
}

static pm_status measure_case(struct bench *b, struct kernel_case *c,
                              const struct kernel_op *op, bool cold)
{
    struct kernels_row row = {.op = op->name,
                              .type = c->type,
                              .by_type = op->by_type,
                              .by_routing = op->by_routing,
                              .experts = op->experts,
                              .n_row = c->n_row,
                              .n_expert = c->shape->gate.n_expert,
                              .top_k = c->shape->gate.top_k,
                              .n_sample = b->q->repeat,
                              .cold = cold};
    snprintf(row.shape, sizeof row.shape, "%s", c->shape->name);
    if (op->by_routing) snprintf(row.routing, sizeof row.routing, "%s", c->routing->name);
    TRY(b->k->reserve(b->d, c->n_row * c->shape->gate.top_k, widest(c->shape),
                      max_i64(c->context, c->n_row)));
    TRY(prepare(b, c, op, &row));
    return measure_sets(b, c, op, &row);
}

/* Which of a kind of case: what run_op loops over. */
struct choice {
    pm_dtype type;
    const struct routing_maker *routing;
    int64_t n_row;
    bool cold;
};

static pm_status run_case(struct bench *b, const struct shape *s, const struct kernel_op *op,
                          const struct choice *o)
{
    bool wide = o->type == PM_F32 || o->type == PM_F16;
    struct kernel_case *c;
    pm_status status;
    if (b->q->progress) {
        fprintf(stderr, "\r\033[K%s %s %s, %lld rows", s->name, op->name, dtype_name(o->type),
                (long long)o->n_row);
    }
    TRY(alloc_array(&c, 1, sizeof *c, "case"));
    *c = (struct kernel_case){.k = b->k,
                              .d = b->d,
                              .shape = s,
                              .copies = &b->copies,
                              .routing = o->routing,
                              .type = o->type,
                              .narrow = wide ? PM_F32 : b->k->narrow,
                              .n_row = o->n_row,
                              .context = b->q->context,
                              .arena = {.k = b->k, .d = b->d}};
    status = measure_case(b, c, op, o->cold);
    kernel_sets_free(c);
    arena_free(&c->arena);
    free(c);
    return status == PM_OK ? status : fail_prefix(status, "%s %s", s->name, op->name);
}

/* ------------------------------------------------------------------ all cases */

static pm_status run_op(struct bench *b, const struct shape *s, const struct kernel_op *op,
                        pm_dtype type)
{
    const struct kernels_request *q = b->q;
    int n_routing = op->by_routing ? q->n_routing : 1;
    struct choice o = {.type = type};
    for (int r = 0; r < n_routing; r++) {
        for (int i = 0; i < q->n_rows * q->n_cache; i++) {
            o.routing = &q->routing[r];
            o.n_row = q->n_row[i / q->n_cache];
            o.cold = q->cold[i % q->n_cache];
            TRY(run_case(b, s, op, &o));
        }
    }
    return PM_OK;
}

static pm_status run_type(struct bench *b, const struct shape *s, int number)
{
    const struct kernels_request *q = b->q;
    pm_dtype type = q->type[number];
    bool experts = false;
    pm_status status = PM_OK;
    for (int i = 0; i < q->n_op; i++) {
        experts = experts || q->op[i]->experts;
    }
    if (experts) TRY(expert_copies_open(&b->copies, b->k, b->d, s, type, b->cache_bytes));
    for (int i = 0; i < q->n_op && status == PM_OK; i++) {
        if (number == 0 || q->op[i]->by_type) status = run_op(b, s, q->op[i], type);
    }
    expert_copies_close(&b->copies);
    return status;
}

static pm_status measure_peaks(struct bench *b)
{
    struct peaks now, *best = &b->report.peaks;
    TRY(b->k->measure(b->d, PEAK_ALL, &now));
    best->read_gbs = fmax(best->read_gbs, now.read_gbs);
    best->copy_gbs = fmax(best->copy_gbs, now.copy_gbs);
    best->f32_gflops = fmax(best->f32_gflops, now.f32_gflops);
    best->bf16_gflops = fmax(best->bf16_gflops, now.bf16_gflops);
    return PM_OK;
}

static pm_status open_bench(struct bench *b, const struct pm_options *o)
{
    const struct kernels_request *q = b->q;
    struct device_facts facts;
    int index;
    TRY(kernels_select(&b->k, &index, o->device));
    TRY(b->k->open(&b->d, index, o->threads));
    b->k->facts(b->d, &facts);
    for (int i = 0; i < q->n_cache; i++) {
        if (q->cold[i]) b->cache_bytes = (double)facts.cache_bytes;
    }
    TRY(clock_open(&b->clock, b->k, b->d, 2 * (size_t)b->cache_bytes));
    b->flush = b->clock.flush;
    for (int i = 0; i < q->n_baseline; i++) {
        TRY(q->baseline[i]->open(&b->baseline[i], b->k, b->d));
        b->opened[i] = true;
    }
    return PM_OK;
}

static void close_bench(struct bench *b)
{
    for (int i = 0; i < b->q->n_baseline; i++) {
        if (b->opened[i]) b->q->baseline[i]->close(b->baseline[i]);
    }
    b->clock.flush = b->flush;
    clock_close(&b->clock);
    if (b->d) b->k->close(b->d);
    free(b->report.row);
}

pm_status kernels_bench(const struct kernels_request *q, const struct pm_options *o)
{
    struct bench b = {.q = q};
    pm_status status;
    TRY_DONE(open_bench(&b, o));
    TRY_DONE(measure_peaks(&b));
    for (int s = 0; s < q->n_shape; s++) {
        for (int t = 0; t < q->n_type; t++)
            TRY_DONE(run_type(&b, &q->shape[s], t));
    }
    TRY_DONE(measure_peaks(&b));
    kernels_walls(&b.report, b.k->narrow);
    b.report.device = b.k->describe(b.d);
    if (q->progress) fputs("\r\033[K", stderr);
    kernels_print(&b.report, q->format);
done:
    close_bench(&b);
    return status;
}
