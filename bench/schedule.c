/* schedule.c - polymath bench schedule: the engine's scheduler under a load, without a model.
 *
 * Requests arrive at their times, the real scheduler plans each step, and a step takes what a
 * cost model says: so much a step, so much for each sequence, for each row of a prompt, and for
 * each thousand tokens of the cache that are read. Time is simulated, so that an hour of
 * traffic takes a second, and every run of the same load gives the same numbers. What limits a
 * deployment - seats, blocks, the length of pieces, the queue - shows without a GPU.
 *
 * TTFT is from arrival to the first token, TPOT the mean time between the tokens of a request,
 * ITL each of these times, E2EL from arrival to the last. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/schedule.h"
#include "bench/stats.h"
#include "runtime/engine/scheduler.h"

struct cost {
    double step, sequence, row, cache; /* us */
};

/* A request that has arrived; its memory lives from arrival to end. */
struct simulated {
    struct schedule_request r;
    const struct arrival *from;
    int64_t first_us, last_us;
};

struct series {
    double *x; /* [n] ms */
    size_t n, capacity;
};

enum { TTFT, TPOT, ITL, E2EL, QUEUE, N_SERIES };
static const char *const series_name[N_SERIES] = {"ttft", "tpot", "itl", "e2el", "queue"};

struct simulation {
    struct scheduler s;
    struct cost cost;
    const struct arrivals *arrivals;
    size_t next; /* of the arrivals */
    int64_t now;
    struct series series[N_SERIES];
    int64_t n_done, n_refused, n_preempted, n_output, n_found, n_prompt;
    double busy_us;
};

static pm_status note(struct simulation *m, int which, double us)
{
    struct series *s = &m->series[which];
    TRY(grow_array(&s->x, &s->capacity, s->n + 1, sizeof *s->x));
    s->x[s->n++] = us / 1000;
    return PM_OK;
}

static void free_simulated(struct simulated *q)
{
    free(q->r.token);
    free(q->r.block);
    free(q);
}

/* Tokens that only this request has, behind those of its prefix. */
static void fill_tokens(struct schedule_request *r, const struct arrival *a, size_t number)
{
    for (int i = 0; i < r->n_token; i++) {
        uint32_t x = i < a->shared ? (uint32_t)(a->prefix * 7919 + i)
                                   : (uint32_t)number * 2654435761u + (uint32_t)i;
        r->token[i] = (int32_t)(x & INT32_MAX);
    }
}

static pm_status arrive(struct simulation *m)
{
    const struct arrival *a = &m->arrivals->list[m->next];
    int64_t room = min_i64(m->s.o.context, m->s.o.n_block * 16);
    struct simulated *q;
    struct schedule_request *r;
    pm_status status;
    TRY(alloc_array(&q, 1, sizeof *q, "request"));
    r = &q->r;
    q->from = a;
    r->n_token = r->n_prompt = a->prompt;
    r->max_token = (int32_t)min_i64(room, (int64_t)a->prompt + a->output - 1);
    r->priority = a->priority;
    r->key = (uint64_t)a->key;
    if (a->prompt > room) {
        m->n_refused++;
        m->next++;
        free(q);
        return PM_OK;
    }
    TRY_DONE(alloc_array(&r->token, (size_t)r->max_token + 1, sizeof *r->token, "tokens"));
    TRY_DONE(alloc_array(&r->block, (size_t)scheduler_blocks(r->max_token), sizeof *r->block,
                         "blocks"));
    fill_tokens(r, a, m->next++);
    status = scheduler_submit(&m->s, r, a->at_us);
    if (status == PM_OK) return PM_OK;
    if (status == PM_ERR_FULL) status = PM_OK;
    m->n_refused++;
done:
    free_simulated(q);
    return status;
}

static pm_status leave(struct simulation *m, struct simulated *q)
{
    const struct schedule_request *r = &q->r;
    int n_new = r->n_token - r->n_prompt;
    TRY(note(m, E2EL, (double)(q->last_us - q->from->at_us)));
    TRY(note(m, QUEUE, (double)(r->start_us - q->from->at_us)));
    if (n_new > 1) TRY(note(m, TPOT, (double)(q->last_us - q->first_us) / (n_new - 1)));
    m->n_done++;
    m->n_output += n_new;
    m->n_prompt += r->n_prompt;
    m->n_found += r->n_cached;
    m->n_preempted += r->n_preempted > 0;
    free_simulated(q);
    return PM_OK;
}

static pm_status new_token(struct simulation *m, struct simulated *q)
{
    struct schedule_request *r = &q->r;
    TRY(note(m, q->first_us ? ITL : TTFT,
             (double)(m->now - (q->first_us ? q->last_us : q->from->at_us))));
    if (!q->first_us) q->first_us = m->now;
    q->last_us = m->now;
    r->token[r->n_token] = (int32_t)((uint32_t)(m->now + r->n_token) & INT32_MAX);
    r->n_token++;
    if (r->n_token <= r->max_token) return PM_OK;
    scheduler_end(&m->s, r);
    return leave(m, q);
}

static double step_cost(const struct cost *c, const struct schedule_plan *p)
{
    double kv = 0;
    for (int i = 0; i < p->n_part; i++) {
        kv += p->part[i].first + p->part[i].n_row;
    }
    return c->step + c->sequence * p->n_decode + c->row * p->n_prefill + c->cache * kv / 1000;
}

static pm_status simulate(struct simulation *m)
{
    const struct arrivals *a = m->arrivals;
    while (m->next < a->n || scheduler_has_work(&m->s)) {
        const struct schedule_plan *p;
        double us;
        int n;
        if (!scheduler_has_work(&m->s) && a->list[m->next].at_us > m->now) {
            m->now = a->list[m->next].at_us;
        }
        while (m->next < a->n && a->list[m->next].at_us <= m->now) {
            TRY(arrive(m));
        }
        scheduler_admit(&m->s, m->now);
        p = scheduler_plan(&m->s);
        n = p->n_part;
        us = n ? step_cost(&m->cost, p) : 0;
        m->now += (int64_t)us;
        m->busy_us += us;
        scheduler_done(&m->s, (int64_t)us);
        for (int i = 0; i < n; i++) {
            if (p->part[i].sample) TRY(new_token(m, (struct simulated *)p->part[i].request));
        }
    }
    return PM_OK;
}

/* ------------------------------------------------------------------ the result */

static const double quantile[] = {0.5, 0.9, 0.99};

static void print_json(struct simulation *m)
{
    const struct scheduler_counts *c = &m->s.count;
    printf("{\"completed\": %lld, \"refused\": %lld, \"seconds\": %.6f, "
           "\"output_tokens_per_second\": %.3f, \"busy\": %.4f, \"steps\": %llu, "
           "\"preemptions\": %llu, \"preempted_requests\": %lld, \"prompt_tokens\": %lld, "
           "\"prefix_hit_tokens\": %lld",
           (long long)m->n_done, (long long)m->n_refused, (double)m->now / 1e6,
           m->now ? (double)m->n_output * 1e6 / (double)m->now : 0,
           m->now ? m->busy_us / (double)m->now : 0, (unsigned long long)c->n_step,
           (unsigned long long)c->n_preemption, (long long)m->n_preempted,
           (long long)m->n_prompt, (long long)m->n_found);
    for (int i = 0; i < N_SERIES; i++) {
        struct series *s = &m->series[i];
        for (int j = 0; j < 3; j++) {
            printf(", \"p%.0f_%s_ms\": %.3f", quantile[j] * 100, series_name[i],
                   stats_quantile(s->x, (int)s->n, quantile[j]));
        }
    }
    puts("}");
}

static void print_table(struct simulation *m)
{
    const struct scheduler_counts *c = &m->s.count;
    printf("%lld requests done, %lld refused, in %.1f simulated seconds, %.0f %% of them busy\n"
           "%.1f output tokens/s, %llu steps\n"
           "%llu preemptions of %lld requests\n"
           "%.1f %% of %lld prompt tokens found in the cache\n\n"
           "| ms | p50 | p90 | p99 |\n|---|---:|---:|---:|\n",
           (long long)m->n_done, (long long)m->n_refused, (double)m->now / 1e6,
           m->now ? 100 * m->busy_us / (double)m->now : 0,
           m->now ? (double)m->n_output * 1e6 / (double)m->now : 0,
           (unsigned long long)c->n_step, (unsigned long long)c->n_preemption,
           (long long)m->n_preempted,
           m->n_prompt ? 100.0 * (double)m->n_found / (double)m->n_prompt : 0,
           (long long)m->n_prompt);
    for (int i = 0; i < N_SERIES; i++) {
        struct series *s = &m->series[i];
        printf("| %s | %.2f | %.2f | %.2f |\n", series_name[i],
               stats_quantile(s->x, (int)s->n, 0.5), stats_quantile(s->x, (int)s->n, 0.9),
               stats_quantile(s->x, (int)s->n, 0.99));
    }
}

static pm_status bench(const struct arrivals *a, const struct cost *cost,
                       const struct pm_options *o, bool json)
{
    struct simulation m = {.cost = *cost, .arrivals = a};
    int context = o->context ? o->context : 4096;
    int64_t tokens = o->kv_tokens ? o->kv_tokens : (int64_t)context * min_i64(8, o->max_seqs);
    struct scheduler_options s = {.max_row = o->batch,
                                  .max_seq = (int32_t)min_i64(o->max_seqs, o->batch),
                                  .max_out = (int32_t)min_i64(o->max_seqs, o->batch),
                                  .context = context,
                                  .max_waiting = o->max_queue,
                                  .max_waiting_token = o->max_queue_tokens,
                                  .n_block = (tokens + 15) / 16,
                                  .stretch = o->decode_slowdown,
                                  .prefix_cache = o->prefix_cache};
    pm_status status;
    TRY(scheduler_open(&m.s, &s));
    status = simulate(&m);
    for (int i = 0; i < N_SERIES; i++) {
        stats_median(m.series[i].x, (int)m.series[i].n); /* sorts */
    }
    if (status == PM_OK) json ? print_json(&m) : print_table(&m);
    scheduler_close(&m.s);
    for (int i = 0; i < N_SERIES; i++) {
        free(m.series[i].x);
    }
    return status;
}

/* ------------------------------------------------------------------ arguments */

static pm_status number(double *out, const char *name, const char *text, double min, double max)
{
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= min) || !(x <= max)) {
        return fail(PM_ERR_ARG, "%s: found \"%s\", wanted %g to %g", name, text, min, max);
    }
    *out = x;
    return PM_OK;
}

static pm_status parse_cost(struct cost *c, const char *text)
{
    char rest;
    if (sscanf(text, "%lf,%lf,%lf,%lf%c", &c->step, &c->sequence, &c->row, &c->cache, &rest) ==
            4 &&
        c->step >= 1 && c->sequence >= 0 && c->row >= 0 && c->cache >= 0) {
        return PM_OK;
    }
    return fail(PM_ERR_ARG, "cost: found \"%s\", wanted four numbers of us, the first over 0",
                text);
}

struct text_settings {
    const char *trace, *cost, *n, *rate, *prompt, *output, *spread, *keys, *prefixes, *shared;
    const char *seed;
};

static pm_status take_arrivals(struct arrivals *a, const struct text_settings *t)
{
    struct generated g = {0};
    double seed;
    struct {
        const char *name, *text;
        int *out;
        double min;
    } whole[] = {{"requests", t->n, &g.n, 1},
                 {"prompt", t->prompt, &g.prompt, 1},
                 {"output", t->output, &g.output, 1},
                 {"keys", t->keys, &g.keys, 1},
                 {"prefixes", t->prefixes, &g.prefixes, 1},
                 {"shared", t->shared, &g.shared, 0}};
    if (t->trace) return arrivals_read(a, t->trace);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        double x;
        TRY(number(&x, whole[i].name, whole[i].text, whole[i].min, 1 << 20));
        *whole[i].out = (int)x;
    }
    TRY(number(&g.rate, "rate", t->rate, 1e-6, 1e6));
    TRY(number(&g.spread, "spread", t->spread, 0, 1));
    TRY(number(&seed, "seed", t->seed, 0, 1e9));
    g.seed = (uint64_t)seed;
    return arrivals_make(a, &g);
}

int bench_schedule(const struct command *self, int argc, char **argv)
{
    struct text_settings t = {.cost = "5000,200,60,20",
                              .n = "1000",
                              .rate = "4",
                              .prompt = "512",
                              .output = "128",
                              .spread = "0.5",
                              .keys = "1",
                              .prefixes = "1",
                              .shared = "0",
                              .seed = "0"};
    bool json = false;
    const struct flag flags[] = {
        {.name = "trace",
         .value = "FILE",
         .help = "arrivals as JSON lines; see docs/formats.md",
         .text = &t.trace},
        {.name = "cost",
         .value = "A,B,C,D",
         .help = "us of a step, and more for each sequence, row of a prompt, and thousand\n"
                 "                                 tokens of cache read [5000,200,60,20]",
         .text = &t.cost},
        {.name = "requests", .value = "N", .help = "how many [1000]", .text = &t.n},
        {.name = "rate",
         .value = "X",
         .help = "requests a second, Poisson [4]",
         .text = &t.rate},
        {.name = "prompt", .value = "N", .help = "prompt tokens [512]", .text = &t.prompt},
        {.name = "output", .value = "N", .help = "new tokens [128]", .text = &t.output},
        {.name = "spread",
         .value = "X",
         .help = "lengths vary by this share of the mean [0.5]",
         .text = &t.spread},
        {.name = "keys", .value = "N", .help = "API keys [1]", .text = &t.keys},
        {.name = "prefixes",
         .value = "N",
         .help = "different beginnings [1]",
         .text = &t.prefixes},
        {.name = "shared",
         .value = "N",
         .help = "tokens of a beginning [0]",
         .text = &t.shared},
        {.name = "seed",
         .letter = 's',
         .value = "N",
         .help = "of the arrivals [0]",
         .text = &t.seed},
        {.name = "json", .help = "one JSON object", .on = &json},
        {.name = NULL},
    };
    struct arrivals list = {0};
    struct arguments a;
    struct cost cost;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = parse_cost(&cost, t.cost);
        if (status == PM_OK) status = take_arrivals(&list, &t);
        if (status == PM_OK) status = bench(&list, &cost, a.options, json);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    free(list.list);
    arguments_free(&a);
    return code;
}
