/* batch.c - polymath bench batch: how much an engine gives when many requests share it.
 *
 * For each number of requests in flight the engine is opened with so many seats, and all
 * requests are submitted at once: as many run as there are seats, the others follow. Prompts
 * are random tokens of one length, so nothing is found in the cache, and every answer has the
 * same length. Rates count all tokens from the first submission to the last end. TTFT is the
 * time from a request's first step to its first token, ITL between two tokens of a request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/stats.h"
#include "moe/json.h"
#include "runtime/engine.h"

enum { MAX_LIST = 16, MAX_SEATS = 1024 };

struct setting {
    const char *model;
    int seats[MAX_LIST], n_seats;
    int prompt, generate, rounds;
    bool json;
};

/* One request; its callbacks run on the engine's thread. */
struct client {
    pm_request *request;
    int64_t last_us;
    double *gap; /* [generate - 1] us */
    int n_gap;
};

struct row {
    int seats, n_request;
    double output_rate, total_rate, ttft[2], itl[2]; /* p50, p99 in ms */
    pm_stats stats;
};

static bool on_token(void *arg, const pm_token *t)
{
    struct client *c = arg;
    int64_t now = now_us();
    if (t->id < 0) return true;
    if (c->last_us) c->gap[c->n_gap++] = (double)(now - c->last_us);
    c->last_us = now;
    return true;
}

static pm_status submit(pm_engine *e, struct client *c, const struct setting *s, uint64_t seed)
{
    uint64_t vocab = (uint64_t)model_config(engine_model(e))->vocab;
    pm_params p;
    int32_t *id;
    pm_status status;
    TRY(alloc_array(&id, (size_t)s->prompt, sizeof *id, "prompt"));
    for (int i = 0; i < s->prompt; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        id[i] = (int32_t)((seed >> 33) % vocab);
    }
    pm_params_init(&p);
    p.max_tokens = s->generate;
    p.ignore_eos = true;
    status = pm_submit(&c->request, e, id, (size_t)s->prompt, &p, on_token, NULL, c);
    free(id);
    return status;
}

static void finish_row(struct row *r, struct client *c, int n, double *work, double us,
                       const struct setting *s)
{
    int n_gap = 0;
    for (int i = 0; i < n; i++) {
        pm_result result = {0};
        pm_wait(c[i].request, &result);
        work[i] = (double)result.prompt_us / 1e3;
    }
    r->ttft[0] = stats_median(work, n);
    r->ttft[1] = stats_quantile(work, n, 0.99);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < c[i].n_gap; j++) {
            work[n_gap++] = c[i].gap[j] / 1e3;
        }
    }
    r->itl[0] = stats_median(work, n_gap);
    r->itl[1] = stats_quantile(work, n_gap, 0.99);
    r->output_rate = (double)n * s->generate * 1e6 / us;
    r->total_rate = (double)n * (s->generate + s->prompt) * 1e6 / us;
}

static pm_status run_clients(pm_engine *e, const struct setting *s, struct row *r)
{
    size_t n = (size_t)r->n_request, n_gap = (size_t)s->generate;
    struct client *c = NULL;
    double *gaps = NULL, *work = NULL;
    pm_status status;
    int64_t start;
    TRY_DONE(alloc_array(&c, n, sizeof *c, "clients"));
    TRY_DONE(alloc_array(&gaps, n * n_gap, sizeof *gaps, "clients"));
    TRY_DONE(alloc_array(&work, n * n_gap + 1, sizeof *work, "clients"));
    start = now_us();
    for (size_t i = 0; i < n; i++) {
        c[i].gap = gaps + i * n_gap;
        TRY_DONE(submit(e, &c[i], s, i + 1));
    }
    for (size_t i = 0; i < n; i++) {
        TRY_DONE(pm_wait(c[i].request, NULL));
    }
    finish_row(r, c, r->n_request, work, (double)(now_us() - start), s);
    pm_engine_stats(e, &r->stats);
done:
    for (size_t i = 0; c && i < n; i++) {
        pm_request_free(c[i].request);
    }
    free(c);
    free(gaps);
    free(work);
    return status;
}

static pm_status run_row(const struct setting *s, struct pm_options *o, struct row *r)
{
    int blocks = (s->prompt + s->generate + 15) / 16 + 1;
    struct row warm = {.n_request = 1};
    pm_engine *e;
    pm_status status;
    o->max_seqs = r->seats;
    o->kv_tokens = r->seats * blocks * 16;
    if (o->max_queue < r->n_request) o->max_queue = r->n_request;
    TRY(pm_engine_open(&e, s->model, o));
    model_touch(engine_model(e));
    status = run_clients(e, s, &warm);
    if (status == PM_OK) status = run_clients(e, s, r);
    pm_engine_close(e);
    return status;
}

static void print_row(const struct setting *s, const struct row *r, const struct row *first)
{
    if (s->json) {
        printf("{\"commit\": \"%s\", \"model\": \"%s\", \"seats\": %d, \"requests\": %d, "
               "\"prompt_tokens\": %d, \"output_tokens\": %d, \"output_tokens_per_second\": "
               "%.3f, \"tokens_per_second\": %.3f, \"ttft_p50_ms\": %.3f, \"ttft_p99_ms\": "
               "%.3f, \"itl_p50_ms\": %.3f, \"itl_p99_ms\": %.3f, \"preemptions\": %llu}\n",
               pm_commit(), s->model, r->seats, r->n_request, s->prompt, s->generate,
               r->output_rate, r->total_rate, r->ttft[0], r->ttft[1], r->itl[0], r->itl[1],
               (unsigned long long)r->stats.n_preemption);
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
    if (!s->json) {
        printf("| seats | requests | output tokens/s | times the first | all tokens/s | TTFT "
               "p50 ms | p99 | ITL p50 ms | p99 |\n|---:|---:|---:|---:|---:|---:|---:|---:|"
               "---:|\n");
    }
    for (int i = 0; i < s->n_seats; i++) {
        row[i].seats = s->seats[i];
        row[i].n_request = s->seats[i] * s->rounds;
        TRY(run_row(s, o, &row[i]));
        print_row(s, &row[i], &row[0]);
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
    const char *seats = "1,8,32", *prompt = "64", *generate = "64", *rounds = "2";
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
        if (status == PM_OK) status = bench(&s, a.options);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}
