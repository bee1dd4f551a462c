/* serve.h - what polymath bench serve asks, sees and reports. */
#ifndef BENCH_SERVE_H
#define BENCH_SERVE_H

#include "bench/http_response.h"
#include "bench/workload.h"

/* Bounds in milliseconds that a good request keeps; 0: no bound. */
struct serve_bounds {
    double ttft, tpot, e2el;
};

struct serve_options {
    const char *url, *endpoint, *model, *key, *extra_body;
    const char *rate, *ramp, *goodput, *preset, *prompt; /* as given */
    const char *output, *save;
    int concurrency, n_request, n_warmup, timeout_s, n_prefix, prefix_len;
    double burstiness, duration_s, temperature;
    uint64_t seed;
    const char *workload;
    struct range input, output_len, id;
    bool ignore_eos, detail, show_progress;
    /* read out of the texts above */
    bool chat, plain, open_loop, at_once; /* at_once: the rate is "inf" */
    double requests_per_s, ramp_to, ramp_s;
    struct serve_bounds bounds;
};

/* One request as the client saw it. Times are now_us(). */
struct serve_sample {
    int64_t due_us, start_us;         /* when it was to be sent, and was */
    int64_t first_us;                 /* the first token; 0: none */
    int64_t last_us;                  /* the last piece of the answer's text, or its end */
    int n_prompt, n_output, n_cached; /* tokens as the server counts them */
    int n_chunk;
    bool counted;  /* n_output is a count of chunks: the server told no usage */
    float *gap_ms; /* [n_gap] between chunks with text */
    size_t n_gap, gap_capacity;
    char error[64]; /* "": complete */
};

/* ---- one answer (serve_stream.c) */

struct serve_stream {
    struct serve_sample sample;
    struct event_stream events;
    int64_t now_us, chunk_us;
    char refusal[512]; /* [n_refusal] the begin of an answer that is not 200 */
    size_t n_refusal;
    bool chat, plain, done, has_usage, has_choice; /* plain: the answer is no stream */
};

void serve_stream_body(struct serve_stream *s, const struct http_response *r, const char *data,
                       size_t n);
void serve_stream_end(struct serve_stream *s, const struct http_response *r, const char *error);

/* ---- all of them (serve_run.c) */

struct serve_run {
    struct serve_sample *sample; /* [n] in the order they ended */
    size_t n, capacity;
    int64_t begin_us, end_us; /* from the first request's sending to the last one's end */
    int max_concurrent;
    double cpu_s; /* this process, meanwhile */
    /* the server, as it tells itself; "" where it does not */
    char model[256], version[128];
    char said[512];                     /* the first refusal's body; "": there was none */
    double prefix_queries, prefix_hits; /* tokens, from its metrics; -1: not told */
};

pm_status serve_run(struct serve_run *out, const struct serve_options *o);
void serve_run_free(struct serve_run *run);

/* The sum of all samples on a Prometheus page whose name ends in `suffix` or suffix_total; -1
 * where there is none. */
double serve_metric(const char *page, const char *suffix);

/* ---- what it comes to (serve_report.c) */

enum { N_PERCENTILE = 4 };
extern const double serve_percentile[N_PERCENTILE];

struct serve_spread {
    size_t n;
    double mean, std, median, max; /* std of the population */
    double p[N_PERCENTILE];
};

/* Between the two nearest ranks, linearly (Hyndman and Fan, type 7); x ascends. */
double serve_percentile_of(const double *x, size_t n, double percent);
/* Sorts x. */
struct serve_spread serve_spread_of(double *x, size_t n);

enum { MAX_ERROR_KIND = 16 };

struct serve_report {
    double duration_s;
    int64_t completed, failed, n_input, n_output, n_cached, n_good;
    double requests_per_s, good_per_s, output_per_s, total_per_s, peak_output_per_s;
    struct serve_spread ttft, tpot, itl, e2el, late; /* ms */
    double cpu_share;                                /* of one core */
    bool counted; /* some output tokens are counts of chunks */
    struct {
        const char *text; /* of a sample */
        int64_t n;
    } error[MAX_ERROR_KIND]; /* the last one may stand for all others */
    int n_error;
};

pm_status serve_report(struct serve_report *out, const struct serve_run *run,
                       const struct serve_bounds *bounds);

/* ---- on paper (serve_print.c) */

void serve_print_table(const struct serve_report *r, const struct serve_run *run,
                       const struct serve_options *o);
/* The members of vLLM's result file, and more; command is the command line. */
pm_status serve_print_json(struct json_out *out, const struct serve_report *r,
                           const struct serve_run *run, const struct serve_options *o,
                           const char *command);

#endif
