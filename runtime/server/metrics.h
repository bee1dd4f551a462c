/* metrics.h - what the server counts, and its page for Prometheus.
 *
 * The names are vLLM's behind the prefix "polymath:", so that a dashboard moves over with one
 * replacement. Counting is a handful of relaxed atomic additions, on any thread; a page read
 * while requests end may have one of them in one series and not yet in the next. */
#ifndef RUNTIME_METRICS_H
#define RUNTIME_METRICS_H

#include <stdatomic.h>

#include "moe/json.h"

enum { MAX_BUCKET = 24 };

/* name, help, first bucket, buckets: 1, 2.5, 5, 10, ... times the first */
#define METRICS_HISTOGRAMS(X)                                                                  \
    X(time_to_first_token_seconds, "From the request's arrival to its first token.", 1e-3, 19) \
    X(inter_token_latency_seconds, "Between two tokens of a sequence.", 1e-4, 16)              \
    X(e2e_request_latency_seconds, "From the request's arrival to its end.", 1e-3, 20)         \
    X(request_queue_time_seconds, "From submission to the first step.", 1e-4, 22)              \
    X(request_prefill_time_seconds, "From the first step to the first token.", 1e-3, 18)       \
    X(request_decode_time_seconds, "From the first token to the last.", 1e-3, 20)              \
    X(request_prompt_tokens, "Tokens of a prompt.", 1, 19)                                     \
    X(request_generation_tokens, "Tokens generated for a sequence.", 1, 19)

enum metrics_histogram {
#define X(name, help, first, n) METRICS_##name,
    METRICS_HISTOGRAMS(X)
#undef X
        METRICS_N_HISTOGRAM
};

/* How a sequence ended, as request_success_total tells it. */
enum metrics_finish {
    METRICS_LENGTH,
    METRICS_STOP,
    METRICS_ABORT,
    METRICS_DEADLINE,
    METRICS_ERROR,
    METRICS_N_FINISH
};

/* Starts as zeros. */
struct metrics {
    struct {
        atomic_uint_fast64_t bucket[MAX_BUCKET + 1]; /* the last: over all bounds */
        atomic_uint_fast64_t sum;                    /* in millionths */
    } histogram[METRICS_N_HISTOGRAM];
    atomic_uint_fast64_t finish[METRICS_N_FINISH];
    atomic_uint_fast64_t response[5]; /* HTTP answers of 1xx .. 5xx */
};

void metrics_observe(struct metrics *m, enum metrics_histogram h, double value);
void metrics_observe_us(struct metrics *m, enum metrics_histogram h, int64_t us);

/* How uneven an expert load is: count [E] of one layer. *imbalance is the largest over the
 * mean, *entropy that of the shares in units of ln E: 1 is even. 0 and 0 without load. */
void metrics_balance(const uint64_t *count, int n_expert, double *imbalance, double *entropy);

/* Everything, in Prometheus' text format 0.0.4; count [n_layer, n_expert] may be NULL. */
void metrics_put(struct json_out *o, struct metrics *m, const char *model,
                 const pm_stats *stats, const uint64_t *count, int n_layer, int n_expert);

#endif
