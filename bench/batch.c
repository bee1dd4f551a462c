/* batch.c - polymath bench batch: how much an engine gives when many requests share it.
 *
 * For each number of requests in flight the engine is opened with so many seats, and all
 * requests are submitted at once: as many run as there are seats, the others follow. Prompts
 * are random tokens of one length, so nothing is found in the cache, and every answer has the
 * same length. Rates count all tokens from the first submission to the last end. TTFT is the
 * time from a request's first step to its first token, ITL between two tokens of a request.
 *
 * With --intruder a long prompt arrives once all requests run: what the time between their
 * tokens was before, and what it is while that prompt is computed. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "bench/stats.h"
#include "moe/json.h"
#include "runtime/engine/engine.h"

enum { MAX_LIST = 16, MAX_SEATS = 1024 };

struct setting {
    const char *model;
    int seats[MAX_LIST], n_seats;
    int prompt, generate, rounds, intruder;
    bool json;
};

/* One request; its callbacks run on the engine's thread. */
struct client {
    pm_request *request;
    int64_t *at; /* [generate] us, when its tokens came */
    int n;
};

struct row {
    int seats, n_request;
    double output_rate, total_rate, ttft[2], itl[2], during[2]; /* p50, p99 in ms */
    pm_stats stats;
};

static bool on_token(void *arg, const pm_token *t)
{
    struct client *c = arg;
    if (t->id >= 0) c->at[c->n++] = now_us();
    return true;
}

static pm_status submit(pm_engine *e, struct client *c, int n_prompt, int n_new, uint64_t seed)
{
    uint64_t vocab = (uint64_t)model_config(engine_model(e))->vocab;
    pm_params p;
    int32_t *id;
    pm_status status;
    TRY(alloc_array(&id, (size_t)n_prompt, sizeof *id, "prompt"));
    for (int i = 0; i < n_prompt; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        id[i] = (int32_t)((seed >> 33) % vocab);
    }
    pm_params_init(&p);
    p.max_tokens = n_new;
    p.ignore_eos = true;
    status = pm_submit(&c->request, e, id, (size_t)n_prompt, &p, on_token, NULL, c);
    free(id);
    return status;
}

/* The gaps in ms between tokens of which the second came after `from` and until `to`. */
static int gaps_between(const struct client *c, int n, int64_t from, int64_t to, double *gap)
{
    int n_gap = 0;
    for (int i = 0; i < n; i++) {
        for (int j = 1; j < c[i].n; j++) {
            if (c[i].at[j] <= from || c[i].at[j] > to) continue;
            gap[n_gap++] = (double)(c[i].at[j] - c[i].at[j - 1]) / 1e3;
        }
    }
    return n_gap;
}

static void two_quantiles(double out[2], double *x, int n)
{
    out[0] = stats_median(x, n); /* sorts */
    out[1] = stats_quantile(x, n, 0.99);
}

static void finish_row(struct row *r, struct client *c, int n, double *work, double us,
                       const struct setting *s)
{
    for (int i = 0; i < n; i++) {
        pm_result result = {0};
        pm_wait(c[i].request, &result);
        work[i] = (double)result.prompt_us / 1e3;
    }
    two_quantiles(r->ttft, work, n);
    two_quantiles(r->itl, work, gaps_between(c, n, 0, INT64_MAX, work));
    r->output_rate = (double)n * s->generate * 1e6 / us;
    r->total_rate = (double)n * (s->generate + s->prompt) * 1e6 / us;
}

struct clients {
    struct client *list; /* [n] */
    int64_t *at;
    double *work;
    size_t n;
};

static pm_status open_clients(struct clients *c, int n, int n_new)
{
    memset(c, 0, sizeof *c);
    c->n = (size_t)n;
    TRY(alloc_array(&c->list, c->n, sizeof *c->list, "clients"));
    TRY(alloc_array(&c->at, c->n * (size_t)n_new, sizeof *c->at, "clients"));
    TRY(alloc_array(&c->work, c->n * (size_t)n_new + 1, sizeof *c->work, "clients"));
    for (size_t i = 0; i < c->n; i++) {
        c->list[i].at = c->at + i * (size_t)n_new;
    }
    return PM_OK;
}

static void close_clients(struct clients *c)
{
    for (size_t i = 0; c->list && i < c->n; i++) {
        pm_request_free(c->list[i].request);
    }
    free(c->list);
    free(c->at);
    free(c->work);
}

static pm_status run_clients(pm_engine *e, const struct setting *s, struct row *r)
{
    struct clients c;
    pm_status status;
    int64_t start;
    TRY_DONE(open_clients(&c, r->n_request, s->generate));
    start = now_us();
    for (size_t i = 0; i < c.n; i++) {
        TRY_DONE(submit(e, &c.list[i], s->prompt, s->generate, i + 1));
    }
    for (size_t i = 0; i < c.n; i++) {
        TRY_DONE(pm_wait(c.list[i].request, NULL));
    }
    finish_row(r, c.list, r->n_request, c.work, (double)(now_us() - start), s);
    pm_engine_stats(e, &r->stats);
done:
    close_clients(&c);
    return status;
}

/* Once `seats` requests run and have had some tokens, a long prompt arrives. */
static pm_status run_intruder(pm_engine *e, const struct setting *s, struct row *r)
{
    struct client intruder = {0};
    struct clients c;
    uint64_t enough = (uint64_t)(r->seats * min_i64(32, s->generate / 2));
    int64_t come = 0, first;
    pm_status status;
    TRY_DONE(open_clients(&c, r->seats, s->generate));
    TRY_DONE(alloc_array(&intruder.at, 1, sizeof *intruder.at, "clients"));
    for (size_t i = 0; i < c.n; i++) {
        TRY_DONE(submit(e, &c.list[i], s->prompt, s->generate, i + 1));
    }
    for (pm_stats now = {0}; now.generation_tokens < enough;) {
        struct timespec t = {0, 1000000};
        nanosleep(&t, NULL);
        pm_engine_stats(e, &now);
        now.generation_tokens -= r->stats.generation_tokens;
    }
    come = now_us();
    TRY_DONE(submit(e, &intruder, s->intruder, 1, 7));
    TRY_DONE(pm_wait(intruder.request, NULL));
    first = intruder.at[0];
    for (size_t i = 0; i < c.n; i++) {
        pm_cancel(c.list[i].request);
        TRY_DONE(pm_wait(c.list[i].request, NULL));
    }
    two_quantiles(r->itl, c.work, gaps_between(c.list, r->seats, 0, come, c.work));
    two_quantiles(r->during, c.work, gaps_between(c.list, r->seats, come, first, c.work));
    r->ttft[0] = (double)(first - come) / 1e3;
done:
    pm_request_free(intruder.request);
    free(intruder.at);
    close_clients(&c);
    return status;
}

static pm_status run_row(const struct setting *s, struct pm_options *o, struct row *r)
{
    int tokens = (s->prompt + s->generate + 15) / 16 * 16 + 16;
    struct row warm = {.n_request = 1};
    struct setting brief = *s; /* of the request that warms up */
    pm_engine *e;
    pm_status status;
    o->max_seqs = r->seats + (s->intruder > 0);
    o->kv_tokens = r->seats * tokens + s->intruder + 16 * (r->seats + 2);
    if (o->max_queue < r->n_request) o->max_queue = r->n_request;
    TRY(pm_engine_open(&e, s->model, o));
    model_touch(engine_model(e));
    brief.generate = (int)min_i64(s->generate, 16);
    status = run_clients(e, &brief, &warm);
    if (status == PM_OK && s->intruder) {
        r->stats = warm.stats;
        status = run_intruder(e, s, r);
    } else if (status == PM_OK) {
        status = run_clients(e, s, r);
    }
    pm_engine_close(e);
    return status;
}

static void begin_json(const struct setting *s, const struct row *r)
{
    struct json_out o = {0};
    json_put_string(&o, s->model, strlen(s->model));
    printf("{\"commit\": \"%s\", \"model\": %s, \"seats\": %d, ", pm_commit(),
           o.text ? o.text : "\"\"", r->seats);
    free(o.text);
}

static void print_intruder(const struct setting *s, const struct row *r)
{
    double times = r->itl[0] > 0 ? r->during[1] / r->itl[0] : 0;
    if (s->json) {
        begin_json(s, r);
        printf("\"intruder_tokens\": %d, \"itl_p50_ms\": %.3f, \"itl_p99_ms\": %.3f, "
               "\"itl_during_p50_ms\": %.3f, "
               "\"itl_during_p99_ms\": %.3f, \"intruder_ttft_ms\": %.3f}\n",
               s->intruder, r->itl[0], r->itl[1], r->during[0], r->during[1], r->ttft[0]);
    } else {
        printf("| %d | %.2f | %.2f | %.2f | %.2f | %.2f | %.0f |\n", r->seats, r->itl[0],
               r->itl[1], r->during[0], r->during[1], times, r->ttft[0]);
    }
}

static void print_row(const struct setting *s, const struct row *r, const struct row *first)
{
    if (s->json) {
        begin_json(s, r);
        printf("\"requests\": %d, "
               "\"prompt_tokens\": %d, \"output_tokens\": %d, \"output_tokens_per_second\": "
               "%.3f, \"tokens_per_second\": %.3f, \"ttft_p50_ms\": %.3f, \"ttft_p99_ms\": "
               "%.3f, \"itl_p50_ms\": %.3f, \"itl_p99_ms\": %.3f, \"preemptions\": %llu}\n",
               r->n_request, s->prompt, s->generate, r->output_rate, r->total_rate, r->ttft[0],
               r->ttft[1], r->itl[0], r->itl[1], (unsigned long long)r->stats.n_preemption);
        return;
    }
    printf("| %d | %d | %.1f | %.2f | %.1f | %.1f | %.1f | %.2f | %.2f |\n", r->seats,
           r->n_request, r->output_rate, r->output_rate / first->output_rate, r->total_rate,
           r->ttft[0], r->ttft[1], r->itl[0], r->itl[1]);
}

static pm_status bench(const struct setting *s, struct pm_options *o)
{
    struct row row[MAX_LIST] = {{0}};
    char cpu[128];
    if (!s->json && s->intruder) {
        printf("| seats | ITL p50 ms | p99 | beside the prompt p50 | p99 | p99 by p50 before | "
               "prompt's TTFT ms |\n|---:|---:|---:|---:|---:|---:|---:|\n");
    } else if (!s->json) {
        printf("| seats | requests | output tokens/s | times the first | all tokens/s | TTFT "
               "p50 ms | p99 | ITL p50 ms | p99 |\n|---:|---:|---:|---:|---:|---:|---:|---:|"
               "---:|\n");
    }
    for (int i = 0; i < s->n_seats; i++) {
        row[i].seats = s->seats[i];
        row[i].n_request = s->seats[i] * s->rounds;
        TRY(run_row(s, o, &row[i]));
        s->intruder ? print_intruder(s, &row[i]) : print_row(s, &row[i], &row[0]);
        fflush(stdout);
    }
    machine_name(cpu, sizeof cpu);
    if (!s->json) {
        printf("\nprompts of %d tokens, answers of %d; %s, commit %s\n", s->prompt, s->generate,
               cpu, pm_commit());
    }
    return PM_OK;
}

static pm_status parse_number(int *out, const char *name, const char *text, long max)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end || v < 1 || v > max) {
        return fail(PM_ERR_ARG, "%s: found \"%s\", wanted 1 to %ld", name, text, max);
    }
    *out = (int)v;
    return PM_OK;
}

static pm_status parse_seats(struct setting *s, const char *text)
{
    char copy[256], *at = copy;
    if (strlen(text) >= sizeof copy) return fail(PM_ERR_ARG, "seats: the list is too long");
    memcpy(copy, text, strlen(text) + 1);
    while (at) {
        char *comma = strchr(at, ',');
        if (comma) *comma++ = 0;
        if (s->n_seats == MAX_LIST) return fail(PM_ERR_ARG, "seats: over %d", MAX_LIST);
        TRY(parse_number(&s->seats[s->n_seats++], "seats", at, MAX_SEATS));
        at = comma;
    }
    return PM_OK;
}

int bench_batch(const struct command *self, int argc, char **argv)
{
    const char *seats = "1,8,32", *prompt = "64", *generate = "64", *rounds = "2",
               *intruder = NULL;
    struct setting s = {0};
    const struct flag flags[] = {
        {.name = "seats",
         .value = "N,...",
         .help = "requests at once [1,8,32]",
         .text = &seats},
        {.name = "prompt",
         .letter = 'p',
         .value = "N",
         .help = "prompt tokens [64]",
         .text = &prompt},
        {.name = "generate",
         .letter = 'n',
         .value = "N",
         .help = "generated tokens [64]",
         .text = &generate},
        {.name = "rounds",
         .letter = 'r',
         .value = "N",
         .help = "requests of each seat [2]",
         .text = &rounds},
        {.name = "intruder",
         .value = "N",
         .help = "a prompt of N tokens arrives while all run",
         .text = &intruder},
        {.name = "json", .help = "one JSON object a row", .on = &s.json},
        {.name = NULL},
    };
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = parse_seats(&s, seats);
        s.model = a.positional[0];
        if (status == PM_OK) status = parse_number(&s.prompt, "prompt", prompt, 1 << 20);
        if (status == PM_OK) status = parse_number(&s.generate, "generate", generate, 1 << 20);
        if (status == PM_OK) status = parse_number(&s.rounds, "rounds", rounds, 1000);
        if (status == PM_OK && intruder) {
            status = parse_number(&s.intruder, "intruder", intruder, 1 << 20);
        }
        if (status == PM_OK) status = bench(&s, a.options);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}
