/* metrics.c - histograms with 1-2.5-5 buckets, and the text of a scrape.
 *
 * Three buckets a decade bound the error of a percentile by the ratio 2.5, which is what a
 * dashboard of latencies needs; the same ladder serves seconds and tokens. */
#include "metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct ladder {
    const char *name, *help;
    double first;
    int n;
} ladder[] = {
#define X(name, help, first, n) {#name, help, first, n},
    METRICS_HISTOGRAMS(X)
#undef X
};

#define X(name, help, first, n) _Static_assert(n <= MAX_BUCKET, #name);
METRICS_HISTOGRAMS(X)
#undef X

static double bound(const struct ladder *l, int bucket)
{
    static const double step[] = {1, 2.5, 5};
    double decade = 1;
    for (int i = 0; i < bucket / 3; i++) {
        decade *= 10;
    }
    return l->first * step[bucket % 3] * decade;
}

void metrics_observe(struct metrics *m, enum metrics_histogram h, double value)
{
    int bucket = 0;
    if (!(value >= 0)) value = 0;
    while (bucket < ladder[h].n && value > bound(&ladder[h], bucket)) {
        bucket++;
    }
    atomic_fetch_add_explicit(&m->histogram[h].bucket[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->histogram[h].sum, (uint64_t)(value * 1e6 + 0.5),
                              memory_order_relaxed);
}

void metrics_observe_us(struct metrics *m, enum metrics_histogram h, int64_t us)
{
    metrics_observe(m, h, (double)us * 1e-6);
}

void metrics_balance(const uint64_t *count, int n_expert, double *imbalance, double *entropy)
{
    uint64_t sum = 0, most = 0;
    double h = 0;
    for (int i = 0; i < n_expert; i++) {
        sum += count[i];
        if (count[i] > most) most = count[i];
    }
    *imbalance = *entropy = 0;
    if (sum == 0) return;
    for (int i = 0; i < n_expert; i++) {
        double p = (double)count[i] / (double)sum;
        if (p > 0) h -= p * log(p);
    }
    *imbalance = (double)most * n_expert / (double)sum;
    *entropy = n_expert > 1 ? h / log(n_expert) : 1;
}

static void put_head(struct json_out *o, const char *name, const char *type, const char *help)
{
    json_put(o, "# HELP polymath:%s %s\n# TYPE polymath:%s %s\n", name, help, name, type);
}

static void put_histogram(struct json_out *o, struct metrics *m, int h, const char *label)
{
    const struct ladder *l = &ladder[h];
    uint64_t n = 0;
    put_head(o, l->name, "histogram", l->help);
    for (int i = 0; i <= l->n; i++) {
        n += atomic_load_explicit(&m->histogram[h].bucket[i], memory_order_relaxed);
        if (i < l->n) {
            json_put(o, "polymath:%s_bucket{%s,le=\"%g\"} %llu\n", l->name, label, bound(l, i),
                     (unsigned long long)n);
        }
    }
    json_put(o,
             "polymath:%s_bucket{%s,le=\"+Inf\"} %llu\npolymath:%s_sum{%s} %.6f\n"
             "polymath:%s_count{%s} %llu\n",
             l->name, label, (unsigned long long)n, l->name, label,
             (double)atomic_load_explicit(&m->histogram[h].sum, memory_order_relaxed) * 1e-6,
             l->name, label, (unsigned long long)n);
}

static void put_value(struct json_out *o, const char *label, const char *name, const char *type,
                      const char *help, double value)
{
    put_head(o, name, type, help);
    json_put(o, "polymath:%s{%s} %.15g\n", name, label, value);
}

static void put_engine(struct json_out *o, const char *label, const pm_stats *s)
{
    double used = s->n_block > 0 ? (double)s->n_block_used / (double)s->n_block : 0;
    const struct {
        const char *name, *type, *help;
        double value;
    } row[] = {
        {"num_requests_running", "gauge", "Sequences in the batch.", s->n_running},
        {"num_requests_waiting", "gauge", "Sequences in the queue.", s->n_waiting},
        {"num_tokens_waiting", "gauge", "Prompt tokens of the queue.",
         (double)s->n_waiting_token},
        {"kv_cache_usage_perc", "gauge", "Blocks of the KV cache in use; 1 is all.", used},
        {"kv_cache_blocks", "gauge", "Blocks of the KV cache.", (double)s->n_block},
        {"kv_cache_blocks_cached", "gauge", "Free blocks that hold a prefix.",
         (double)s->n_block_cached},
        {"prefix_cache_queries_total", "counter", "Prompt tokens looked up.",
         (double)s->prefix_queries},
        {"prefix_cache_hits_total", "counter", "Prompt tokens found.", (double)s->prefix_hits},
        {"prompt_tokens_total", "counter", "Prompt tokens computed.", (double)s->prompt_tokens},
        {"generation_tokens_total", "counter", "Tokens sampled.", (double)s->generation_tokens},
        {"num_preemptions_total", "counter", "Sequences put back and recomputed.",
         (double)s->n_preemption},
        {"steps_total", "counter", "Steps of the model.", (double)s->n_step},
        {"step_age_seconds", "gauge", "Since the last step while there was work; 0: idle.",
         (double)s->step_age_us * 1e-6},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        put_value(o, label, row[i].name, row[i].type, row[i].help, row[i].value);
    }
}

/* One series a layer: a series for each expert would be thousands. */
static void put_experts(struct json_out *o, const char *label, const uint64_t *count,
                        int n_layer, int n_expert)
{
    double imbalance, entropy;
    put_head(o, "expert_imbalance", "gauge", "Load of the busiest expert over the mean.");
    for (int i = 0; i < n_layer; i++) {
        metrics_balance(count + (size_t)i * (size_t)n_expert, n_expert, &imbalance, &entropy);
        if (imbalance > 0) {
            json_put(o, "polymath:expert_imbalance{%s,layer=\"%d\"} %.6g\n", label, i,
                     imbalance);
        }
    }
    put_head(o, "expert_entropy", "gauge", "Entropy of the experts' shares; 1 is even.");
    for (int i = 0; i < n_layer; i++) {
        metrics_balance(count + (size_t)i * (size_t)n_expert, n_expert, &imbalance, &entropy);
        if (imbalance > 0) {
            json_put(o, "polymath:expert_entropy{%s,layer=\"%d\"} %.6g\n", label, i, entropy);
        }
    }
}

void metrics_put(struct json_out *o, struct metrics *m, const char *model,
                 const pm_stats *stats, const uint64_t *count, int n_layer, int n_expert)
{
    static const char *const reason[METRICS_N_FINISH] = {"length", "stop", "abort", "deadline",
                                                         "error"};
    struct json_out label = {0};
    json_put(&label, "model_name=");
    json_put_string(&label, model, strlen(model)); /* the escapes are the same */
    if (label.status != PM_OK) {
        o->status = label.status;
        return;
    }
    put_engine(o, label.text, stats);
    put_head(o, "request_success_total", "counter", "Sequences ended, by reason.");
    for (int i = 0; i < METRICS_N_FINISH; i++) {
        json_put(o, "polymath:request_success_total{%s,finished_reason=\"%s\"} %llu\n",
                 label.text, reason[i],
                 (unsigned long long)atomic_load_explicit(&m->finish[i], memory_order_relaxed));
    }
    put_head(o, "http_responses_total", "counter", "Answers sent, by class of status.");
    for (int i = 1; i < 5; i++) {
        json_put(
            o, "polymath:http_responses_total{class=\"%dxx\"} %llu\n", i + 1,
            (unsigned long long)atomic_load_explicit(&m->response[i], memory_order_relaxed));
    }
    for (int i = 0; i < METRICS_N_HISTOGRAM; i++) {
        put_histogram(o, m, i, label.text);
    }
    if (count) put_experts(o, label.text, count, n_layer, n_expert);
    free(label.text);
}
