/* serve_run.c - the loop that sends requests and watches answers.
 *
 * Open loop: requests leave at their due times whatever the server does, unless a concurrency
 * bound holds them back; closed loop: as many are in flight as asked, the next one leaves when
 * one ends. The next request's text is made while there is time, so that a due time only costs
 * a system call; how late requests left is part of the result. Requests that warm up are drawn
 * from numbers of their own, so that they put no measured prompt into a cache. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench/http_client.h"
#include "bench/load.h"
#include "bench/serve.h"

enum { LOOK_US = 100000, BACK_OFF_US = 10000, ASK_US = 10000000 };

static const int64_t first_warmup = (int64_t)1 << 40;

struct run {
    const struct serve_options *o;
    struct serve_run *out;
    struct http_client *client;
    struct workload *work;
    const char *model, *path;
    struct load load;
    /* this phase */
    bool measured, open_loop, stopped, abandoned;
    int max_flight; /* 0: no bound */
    int64_t next, end;
    int64_t begin_us, due_us, not_before_us, look_us;
    struct json_out body; /* of request `next`, once made */
    int n_flight;
    int64_t n_done, n_failed, n_token;
    pm_status status; /* first failure of a callback */
};

struct flight {
    struct run *run;
    struct serve_stream stream;
};

/* ---- one request */

static void keep(struct run *r, struct serve_sample *q)
{
    struct serve_run *out = r->out;
    r->n_done++;
    r->n_failed += *q->error != 0;
    r->n_token += q->n_output;
    if (r->measured) {
        r->status = grow_array(&out->sample, &out->capacity, out->n + 1, sizeof *out->sample);
        if (r->status == PM_OK) {
            out->sample[out->n++] = *q;
            return;
        }
    }
    free(q->gap_ms);
}

static void on_body(void *arg, const struct http_response *answer, const char *data, size_t n)
{
    struct flight *f = arg;
    serve_stream_body(&f->stream, answer, data, n);
}

static void on_end(void *arg, const struct http_response *answer, const char *error)
{
    struct flight *f = arg;
    struct run *r = f->run;
    serve_stream_end(&f->stream, answer, error);
    r->n_flight--;
    if (!*r->out->said) {
        memcpy(r->out->said, f->stream.refusal, sizeof r->out->said);
    }
    if (answer->status == 0) r->not_before_us = now_us() + BACK_OFF_US;
    keep(r, &f->stream.sample);
    free(f);
}

static void make_body(struct run *r)
{
    const struct serve_options *o = r->o;
    struct json_out *b = &r->body;
    if (b->n) return;
    if (o->plain) {
        json_put(b, "{%s}", o->extra_body ? o->extra_body : "");
        return;
    }
    json_put(b, "{\"model\": ");
    json_put_string(b, r->model, strlen(r->model));
    json_put(b, ", ");
    workload_put(r->work, r->next, b);
    json_put(b,
             ", \"temperature\": %g, \"stream\": true, \"stream_options\": "
             "{\"include_usage\": true}%s",
             o->temperature, o->ignore_eos ? ", \"ignore_eos\": true" : "");
    if (o->extra_body) json_put(b, ", %s", o->extra_body);
    json_put(b, "}");
}

static pm_status send_next(struct run *r)
{
    static const struct http_handler handler = {on_body, on_end};
    struct http_request q = {.method = "POST", .path = r->path, .key = r->o->key};
    struct flight *f;
    make_body(r);
    TRY(r->body.status);
    TRY(alloc_array(&f, 1, sizeof *f, "request"));
    f->run = r;
    f->stream.chat = r->o->chat;
    f->stream.plain = r->o->plain;
    f->stream.sample.start_us = now_us();
    f->stream.sample.due_us = r->open_loop ? r->due_us : f->stream.sample.start_us;
    if (r->o->plain && !r->o->extra_body) {
        q.method = "GET";
    } else {
        q.body = r->body.text;
        q.n_body = r->body.n;
    }
    q.timeout_us = (int64_t)r->o->timeout_s * 1000000;
    r->next++;
    r->n_flight++;
    if (r->open_loop && !r->o->at_once) {
        r->due_us = r->begin_us + (int64_t)(load_next(&r->load) * 1e6);
    }
    if (http_client_send(r->client, &q, &handler, f) != PM_OK) {
        struct http_response none = {0};
        on_end(f, &none, pm_last_error());
    }
    r->body.n = 0;
    if (r->measured && r->n_flight > r->out->max_concurrent)
        r->out->max_concurrent = r->n_flight;
    return r->status;
}

/* ---- a phase */

static bool has_more(const struct run *r, int64_t now)
{
    int64_t until = r->begin_us + (int64_t)(r->o->duration_s * 1e6);
    if (r->stopped || r->next == r->end) return false;
    return !r->measured || !r->o->duration_s || (r->open_loop ? r->due_us : now) < until;
}

static bool may_send(const struct run *r, int64_t now)
{
    if (!has_more(r, now) || now < r->not_before_us) return false;
    if (r->max_flight && r->n_flight >= r->max_flight) return false;
    return !r->open_loop || r->due_us <= now;
}

static int64_t next_moment(const struct run *r, int64_t now)
{
    int64_t until = now + LOOK_US;
    if (!has_more(r, now) || (r->max_flight && r->n_flight >= r->max_flight)) return until;
    if (r->not_before_us > now) return r->not_before_us;
    return r->open_loop ? min_i64(until, r->due_us) : until;
}

/* Ten times a second: the first interrupt ends the sending, the second the waiting. */
static void look_around(struct run *r, int64_t now)
{
    static const struct timespec at_once = {0};
    sigset_t interrupt;
    if (now < r->look_us) return;
    r->look_us = now + LOOK_US;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    if (sigtimedwait(&interrupt, NULL, &at_once) == SIGINT) {
        r->abandoned = r->stopped;
        r->stopped = true;
    }
    if (!r->o->show_progress) return;
    fprintf(stderr, "\r\033[K%s%lld in flight %d, done %lld, failed %lld, %.1f tokens/s ",
            r->measured ? "sent " : "warming up: sent ", (long long)(r->n_done + r->n_flight),
            r->n_flight, (long long)r->n_done, (long long)r->n_failed,
            (double)r->n_token * 1e6 / (double)(now - r->begin_us + 1));
}

static pm_status run_phase(struct run *r)
{
    r->n_done = r->n_failed = r->n_token = 0;
    r->body.n = 0;
    make_body(r);
    r->begin_us = r->due_us = now_us();
    if (r->open_loop && !r->o->at_once) {
        r->due_us += (int64_t)(load_next(&r->load) * 1e6);
    }
    for (;;) {
        int64_t now = now_us();
        while (may_send(r, now)) {
            TRY(send_next(r));
            now = now_us();
        }
        if (has_more(r, now)) make_body(r);
        TRY(r->body.status);
        if (r->abandoned || (!r->n_flight && !has_more(r, now))) break;
        TRY(http_client_wait(r->client, next_moment(r, now)));
        TRY(r->status);
        look_around(r, now);
    }
    if (r->o->show_progress) fputs("\r\033[K", stderr);
    return PM_OK;
}

static pm_status warm_up(struct run *r)
{
    if (!r->o->n_warmup) return PM_OK;
    r->next = first_warmup;
    r->end = first_warmup + r->o->n_warmup;
    r->max_flight = r->o->concurrency ? r->o->concurrency : 1;
    TRY(run_phase(r));
    if (r->n_failed == r->n_done) {
        return fail(PM_ERR_IO, "%s: all %lld requests of the warm-up failed", r->o->url,
                    (long long)r->n_done);
    }
    return PM_OK;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* How many requests are measured; with --duration alone, those that fit. */
static int64_t n_measured(const struct run *r)
{
    if (r->o->n_request) return r->o->n_request;
    if (r->o->duration_s) return INT64_MAX;
    return workload_size(r->work) ? workload_size(r->work) : 100;
}

static pm_status measure(struct run *r)
{
    double cpu = cpu_seconds();
    r->measured = true;
    r->open_loop = r->o->open_loop;
    r->max_flight = r->o->concurrency;
    r->next = 0;
    r->end = n_measured(r);
    TRY(run_phase(r));
    r->out->begin_us = r->begin_us;
    r->out->end_us = r->begin_us;
    for (size_t i = 0; i < r->out->n; i++) {
        r->out->end_us = max_i64(r->out->end_us, r->out->sample[i].last_us);
    }
    r->out->cpu_s = cpu_seconds() - cpu;
    return PM_OK;
}

/* ---- the server */

/* The body of a GET, or NULL where the server does not answer 200. */
static char *look_up(struct run *r, const char *path)
{
    struct http_request q = {
        .method = "GET", .path = path, .key = r->o->key, .timeout_us = ASK_US};
    char *body;
    size_t n;
    int status;
    if (http_client_ask(r->client, &q, &status, &body, &n) != PM_OK) return NULL;
    if (status == 200) return body;
    free(body);
    return NULL;
}

/* A text at the path of keys; the first element where an array stands in between. */
static void copy_member(char *out, size_t n, const char *text, const char *array,
                        const char *key)
{
    struct json_doc *doc;
    const json *v;
    if (!text || json_parse(&doc, "answer", text, strlen(text)) != PM_OK) return;
    v = json_root(doc);
    if (array) v = json_get(v, array) ? json_child(json_get(v, array)) : NULL;
    v = v ? json_get(v, key) : NULL;
    if (v && json_is_string(v)) snprintf(out, n, "%.*s", (int)n - 1, json_text(v));
    json_free(doc);
}

static pm_status ask_server(struct run *r)
{
    char *models = look_up(r, "/v1/models"), *version = look_up(r, "/version");
    copy_member(r->out->model, sizeof r->out->model, models, "data", "id");
    copy_member(r->out->version, sizeof r->out->version, version, NULL, "version");
    free(models);
    free(version);
    if (r->o->model) snprintf(r->out->model, sizeof r->out->model, "%s", r->o->model);
    if (!*r->out->model && !r->o->plain) {
        return fail(PM_ERR_IO, "%s: /v1/models names no model, so --model is needed",
                    r->o->url);
    }
    r->model = r->out->model;
    return PM_OK;
}

double serve_metric(const char *page, const char *suffix)
{
    double sum = 0;
    bool found = false;
    size_t n_suffix = strlen(suffix);
    for (const char *p = page; *p; p += strcspn(p, "\n"), p += *p == '\n') {
        size_t n = strcspn(p, "{ \n");
        const char *value = p + n;
        if (*p == '#') continue;
        if (n > 6 && memcmp(p + n - 6, "_total", 6) == 0) n -= 6;
        if (n < n_suffix || memcmp(p + n - n_suffix, suffix, n_suffix) != 0) continue;
        if (*value == '{') value += strcspn(value, "}\n");
        if (*value == '}') value++;
        sum += strtod(value, NULL);
        found = true;
    }
    return found ? sum : -1;
}

static void look_at_cache(struct run *r, double *queries, double *hits)
{
    char *page = look_up(r, "/metrics");
    *queries = page ? serve_metric(page, "prefix_cache_queries") : -1;
    *hits = page ? serve_metric(page, "prefix_cache_hits") : -1;
    free(page);
}

static pm_status run_all(struct run *r)
{
    double queries, hits;
    TRY(ask_server(r));
    TRY(warm_up(r));
    look_at_cache(r, &queries, &hits);
    TRY(measure(r));
    look_at_cache(r, &r->out->prefix_queries, &r->out->prefix_hits);
    if (queries >= 0) r->out->prefix_queries -= queries;
    if (hits >= 0) r->out->prefix_hits -= hits;
    return PM_OK;
}

pm_status serve_run(struct serve_run *out, const struct serve_options *o)
{
    struct workload_options w = {.kind = o->workload,
                                 .chat = o->chat,
                                 .text = strcmp(o->prompt, "text") == 0,
                                 .input = o->input,
                                 .output = o->output_len,
                                 .id = o->id,
                                 .prefix_len = o->prefix_len,
                                 .n_prefix = o->n_prefix,
                                 .seed = o->seed};
    struct run r = {.o = o, .out = out};
    sigset_t interrupt, before;
    pm_status status;
    r.path = o->plain ? o->endpoint : o->chat ? "/v1/chat/completions" : "/v1/completions";
    load_open(&r.load, o->requests_per_s, o->burstiness, o->seed);
    r.load.ramp_to = o->ramp_s ? o->ramp_to : o->requests_per_s;
    r.load.ramp_s = o->ramp_s;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before);
    TRY_DONE(workload_open(&r.work, &w));
    TRY_DONE(http_client_open(&r.client, o->url));
    TRY_DONE(run_all(&r));
done:
    sigprocmask(SIG_SETMASK, &before, NULL);
    http_client_close(r.client);
    workload_close(r.work);
    free(r.body.text);
    return status;
}

void serve_run_free(struct serve_run *run)
{
    for (size_t i = 0; i < run->n; i++) {
        free(run->sample[i].gap_ms);
    }
    free(run->sample);
}
