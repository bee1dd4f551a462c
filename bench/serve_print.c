/* serve_print.c - the result of polymath bench serve as a table and as JSON.
 *
 * The JSON has the members of the file that `vllm bench serve --save-result` writes, so that
 * tools which read those read these, and beside them what makes a number checkable: machine,
 * commit, command line, how late the client sent and how busy it was. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/serve.h"
#include "bench/stats.h"

/* ---- table */

static void print_count(const char *name, double value, const char *unit)
{
    printf("%-32s %12.*f %s\n", name, value == (double)(int64_t)value ? 0 : 2, value, unit);
}

static void print_spread(const char *name, const struct serve_spread *s)
{
    if (s->n == 0) {
        printf("%-20s %9s\n", name, "none");
        return;
    }
    printf("%-20s %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, s->mean, s->std, s->p[0],
           s->p[1], s->p[2], s->p[3], s->max);
}

static void print_warnings(const struct serve_report *r, const struct serve_options *o)
{
    if (r->counted) puts("Output tokens are counted chunks: the server told no usage.");
    if (r->cpu_share > 0.8) {
        puts("The client was busy: it may be what was measured. Run it on another machine.");
    }
    if (o->open_loop && !o->at_once && r->late.p[3] > 10) {
        puts("Requests left late: the load was lighter than asked for.");
    }
}

void serve_print_table(const struct serve_report *r, const struct serve_run *run,
                       const struct serve_options *o)
{
    double cached = r->n_input ? 100 * (double)r->n_cached / (double)r->n_input : 0;
    printf("%s, model %s%s%s\n", o->url, run->model, *run->version ? ", version " : "",
           run->version);
    print_count("requests completed", (double)r->completed, "");
    print_count("requests failed", (double)r->failed, "");
    for (int i = 0; i < r->n_error; i++) {
        printf("  %-30s %12lld\n", r->error[i].text, (long long)r->error[i].n);
    }
    if (*run->said) {
        char text[JSON_EXCERPT];
        printf("  the first refusal: %s\n", json_excerpt(text, run->said, strlen(run->said)));
    }
    print_count("duration", r->duration_s, "s");
    print_count("input tokens", (double)r->n_input, "");
    print_count("output tokens", (double)r->n_output, "");
    print_count("requests", r->requests_per_s, "/s");
    if (o->bounds.ttft || o->bounds.tpot || o->bounds.e2el) {
        print_count("requests within bounds", r->good_per_s, "/s (goodput)");
        print_count("  share of all", 100.0 * (double)r->n_good / (double)(run->n ? run->n : 1),
                    "%");
    }
    print_count("output", r->output_per_s, "tokens/s");
    print_count("output, best second", r->peak_output_per_s, "tokens/s");
    print_count("input and output", r->total_per_s, "tokens/s");
    print_count("most requests in flight", run->max_concurrent, "");
    print_count("prompt tokens found cached", cached, "% (by usage)");
    if (run->prefix_queries > 0) {
        print_count("", 100 * run->prefix_hits / run->prefix_queries, "% (by /metrics)");
    }
    print_count("client's processor", 100 * r->cpu_share, "% of one core");
    printf("\n%-20s %9s %9s %9s %9s %9s %9s %9s\n", "ms", "mean", "std", "p50", "p90", "p95",
           "p99", "max");
    print_spread("TTFT first token", &r->ttft);
    print_spread("TPOT per token", &r->tpot);
    print_spread("ITL between chunks", &r->itl);
    print_spread("E2EL whole request", &r->e2el);
    print_spread("sent late by", &r->late);
    print_warnings(r, o);
}

/* ---- JSON */

static void put_text(struct json_out *o, const char *key, const char *text)
{
    json_put(o, ",\n  \"%s\": ", key);
    json_put_string(o, text, strlen(text));
}

static void put_number(struct json_out *o, const char *key, double value)
{
    json_put(o, ",\n  \"%s\": %.*g", key, 17, value);
}

static void put_bool(struct json_out *o, const char *key, bool value)
{
    json_put(o, ",\n  \"%s\": %s", key, value ? "true" : "false");
}

static void put_spread(struct json_out *o, const char *name, const struct serve_spread *s)
{
    json_put(o, ",\n  \"mean_%s_ms\": %.6g, \"median_%s_ms\": %.6g, \"std_%s_ms\": %.6g", name,
             s->mean, name, s->median, name, s->std);
    for (int i = 0; i < N_PERCENTILE; i++) {
        json_put(o, ", \"p%g_%s_ms\": %.6g", serve_percentile[i], name, s->p[i]);
    }
    json_put(o, ", \"max_%s_ms\": %.6g", name, s->max);
}

static void put_where(struct json_out *o, const struct serve_run *run,
                      const struct serve_options *q, const char *command)
{
    char cpu[128], date[32];
    time_t now = time(NULL);
    struct tm at;
    machine_name(cpu, sizeof cpu);
    strftime(date, sizeof date, "%Y%m%d-%H%M%S", gmtime_r(&now, &at));
    json_put(o, "{\n  \"date\": \"%s\"", date);
    put_text(o, "endpoint_type", q->chat ? "openai-chat" : "openai");
    put_text(o, "backend", q->chat ? "openai-chat" : "openai");
    json_put(o, ",\n  \"label\": null");
    put_text(o, "model_id", run->model);
    put_text(o, "tokenizer_id", run->model);
    put_text(o, "machine", cpu);
    put_number(o, "n_cpu", (double)sysconf(_SC_NPROCESSORS_ONLN));
    put_text(o, "commit", pm_commit());
    put_bool(o, "dirty", strstr(pm_commit(), "-dirty") != NULL);
    put_text(o, "command", command);
    put_text(o, "server_version", run->version);
    json_put(o, ",\n  \"seed\": %llu", (unsigned long long)q->seed);
}

static void put_load(struct json_out *o, const struct serve_run *run,
                     const struct serve_options *q)
{
    put_text(o, "workload", q->workload);
    put_number(o, "num_prompts", (double)run->n);
    if (!q->open_loop || q->at_once) {
        put_text(o, "request_rate", "inf");
    } else {
        put_number(o, "request_rate", q->requests_per_s);
    }
    put_number(o, "burstiness", q->burstiness);
    if (q->ramp_s > 0) {
        put_text(o, "ramp_up_strategy", "linear");
        put_number(o, "ramp_up_start_rps", q->requests_per_s);
        put_number(o, "ramp_up_end_rps", q->ramp_to);
        put_number(o, "ramp_up_seconds", q->ramp_s);
    }
    if (q->concurrency) {
        put_number(o, "max_concurrency", q->concurrency);
    } else {
        json_put(o, ",\n  \"max_concurrency\": null");
    }
}

static void put_totals(struct json_out *o, const struct serve_report *r,
                       const struct serve_run *run, const struct serve_bounds *b)
{
    put_number(o, "duration", r->duration_s);
    put_number(o, "completed", (double)r->completed);
    put_number(o, "failed", (double)r->failed);
    json_put(o, ",\n  \"errors_by_kind\": {");
    for (int i = 0; i < r->n_error; i++) {
        json_put(o, "%s", i ? ", " : "");
        json_put_string(o, r->error[i].text, strlen(r->error[i].text));
        json_put(o, ": %lld", (long long)r->error[i].n);
    }
    json_put(o, "}");
    if (*run->said) put_text(o, "first_refusal", run->said);
    put_number(o, "total_input_tokens", (double)r->n_input);
    put_number(o, "total_output_tokens", (double)r->n_output);
    put_bool(o, "output_tokens_from_usage", !r->counted);
    put_number(o, "request_throughput", r->requests_per_s);
    if (b->ttft || b->tpot || b->e2el) {
        put_number(o, "request_goodput", r->good_per_s);
        json_put(o, ",\n  \"goodput_config_dict\": {\"ttft\": %g, \"tpot\": %g, \"e2el\": %g}",
                 b->ttft, b->tpot, b->e2el);
        put_number(o, "good_requests", (double)r->n_good);
    } else {
        json_put(o, ",\n  \"request_goodput\": null");
    }
    put_number(o, "output_throughput", r->output_per_s);
    put_number(o, "total_token_throughput", r->total_per_s);
    put_number(o, "max_output_tokens_per_s", r->peak_output_per_s);
    put_number(o, "max_concurrent_requests", run->max_concurrent);
    put_number(o, "total_cached_tokens", (double)r->n_cached);
    if (run->prefix_queries >= 0) {
        put_number(o, "prefix_cache_queries", run->prefix_queries);
        put_number(o, "prefix_cache_hits", run->prefix_hits);
    }
    put_number(o, "client_cpu_share", r->cpu_share);
}

/* One array over all requests, in the order they ended. */
static void put_each(struct json_out *o, const struct serve_run *run, const char *key,
                     void (*put)(struct json_out *o, const struct serve_run *run,
                                 const struct serve_sample *q))
{
    json_put(o, ",\n  \"%s\": [", key);
    for (size_t i = 0; i < run->n; i++) {
        json_put(o, "%s", i ? ", " : "");
        put(o, run, &run->sample[i]);
    }
    json_put(o, "]");
}

static void put_input(struct json_out *o, const struct serve_run *run,
                      const struct serve_sample *q)
{
    (void)run;
    json_put(o, "%d", q->n_prompt);
}

static void put_output(struct json_out *o, const struct serve_run *run,
                       const struct serve_sample *q)
{
    (void)run;
    json_put(o, "%d", q->n_output);
}

static void put_ttft(struct json_out *o, const struct serve_run *run,
                     const struct serve_sample *q)
{
    (void)run;
    json_put(o, "%.6f", q->first_us ? (double)(q->first_us - q->start_us) / 1e6 : 0.0);
}

static void put_gaps(struct json_out *o, const struct serve_run *run,
                     const struct serve_sample *q)
{
    (void)run;
    json_put(o, "[");
    for (size_t i = 0; i < q->n_gap; i++) {
        json_put(o, "%s%.6f", i ? ", " : "", (double)q->gap_ms[i] / 1000);
    }
    json_put(o, "]");
}

static void put_start(struct json_out *o, const struct serve_run *run,
                      const struct serve_sample *q)
{
    json_put(o, "%.6f", (double)(q->start_us - run->begin_us) / 1e6);
}

static void put_error(struct json_out *o, const struct serve_run *run,
                      const struct serve_sample *q)
{
    (void)run;
    json_put_string(o, q->error, strlen(q->error));
}

pm_status serve_print_json(struct json_out *out, const struct serve_report *r,
                           const struct serve_run *run, const struct serve_options *o,
                           const char *command)
{
    put_where(out, run, o, command);
    put_load(out, run, o);
    put_totals(out, r, run, &o->bounds);
    put_spread(out, "ttft", &r->ttft);
    put_spread(out, "tpot", &r->tpot);
    put_spread(out, "itl", &r->itl);
    put_spread(out, "e2el", &r->e2el);
    put_spread(out, "lateness", &r->late);
    if (o->detail) {
        put_each(out, run, "input_lens", put_input);
        put_each(out, run, "output_lens", put_output);
        put_each(out, run, "ttfts", put_ttft);
        put_each(out, run, "itls", put_gaps);
        put_each(out, run, "start_times", put_start);
        put_each(out, run, "errors", put_error);
    }
    json_put(out, "\n}\n");
    return out->status;
}
