/* sampling.c - penalty, temperature, truncation, draw: in the order that the field uses.
 *
 * repeat penalty -> log probabilities (reported) -> top-k -> top-p -> min-p -> temperature ->
 * draw. Truncation looks at the distribution at temperature 1, so that changing the
 * temperature does not change which tokens are allowed. Nothing is sorted unless asked for: a
 * greedy step is one pass over the vocabulary. The random number is a hash of seed and token
 * index: a sequence can be resumed or replayed from any token. */
#include "sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampler {
    struct sampling o;
    int n;
    float *logits;            /* [n] of the last pick, after the penalty; borrowed */
    double log_sum;           /* log of the sum of exp(logits) */
    struct candidate *sorted; /* [n] */
};

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Uniform in [0, 1) from the seed and the token's number. */
static double uniform(uint64_t seed, int64_t index)
{
    return (double)(mix(mix(seed) ^ (uint64_t)index) >> 11) * 0x1p-53;
}

pm_status sampler_open(struct sampler **out, int n, const struct sampling *o)
{
    struct sampler *s;
    pm_status status;
    if (!(o->temperature >= 0) || o->temperature > 100) {
        return fail(PM_ERR_ARG, "temperature: found %g, wanted 0 to 100", o->temperature);
    }
    if (!(o->top_p > 0) || o->top_p > 1) {
        return fail(PM_ERR_ARG, "top-p: found %g, wanted over 0 to 1", o->top_p);
    }
    if (!(o->min_p >= 0) || o->min_p > 1) {
        return fail(PM_ERR_ARG, "min-p: found %g, wanted 0 to 1", o->min_p);
    }
    if (o->top_k < 0) return fail(PM_ERR_ARG, "top-k: found %d, wanted 0 or more", o->top_k);
    if (!(o->repeat_penalty > 0) || o->repeat_penalty > 100) {
        return fail(PM_ERR_ARG, "repeat-penalty: found %g, wanted over 0 to 100",
                    o->repeat_penalty);
    }
    TRY(alloc_array(&s, 1, sizeof *s, "sampler"));
    s->o = *o;
    s->n = n;
    TRY_DONE(alloc_array(&s->sorted, (size_t)n, sizeof *s->sorted, "sampler"));
    *out = s;
    s = NULL;
done:
    sampler_close(s);
    return status;
}

void sampler_close(struct sampler *s)
{
    if (!s) return;
    free(s->sorted);
    free(s);
}

static void penalise(const struct sampler *s, float *logits, const int32_t *recent,
                     int n_recent)
{
    int last = s->o.repeat_last > 0 ? s->o.repeat_last : 64;
    int first = n_recent > last ? n_recent - last : 0;
    if (s->o.repeat_penalty == 1) return;
    for (int i = first; i < n_recent; i++) {
        bool seen = false;
        for (int j = first; j < i && !seen; j++) {
            seen = recent[j] == recent[i];
        }
        if (seen || recent[i] < 0 || recent[i] >= s->n) continue;
        float *l = &logits[recent[i]];
        *l = *l > 0 ? *l / s->o.repeat_penalty : *l * s->o.repeat_penalty;
    }
}

static pm_status find_best(const float *logits, int n, int *best)
{
    int at = 0;
    for (int i = 0; i < n; i++) {
        if (logits[i] > logits[at]) at = i;
        if (isnan(logits[i])) at = i;
        if (isnan(logits[at])) break;
    }
    if (!isfinite(logits[at])) {
        return fail(PM_ERR_DEVICE,
                    "logits: token %d has %g; the weights or the computation are broken", at,
                    logits[at]);
    }
    *best = at;
    return PM_OK;
}

static double log_sum_exp(const float *logits, int n, int best)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += exp((double)logits[i] - logits[best]);
    }
    return logits[best] + log(sum);
}

double log_probability(const float *logits, int n, int32_t id)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return logits[id] - log_sum_exp(logits, n, best);
}

static int by_probability(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    if (a->logprob != b->logprob) return a->logprob < b->logprob ? 1 : -1;
    return a->id < b->id ? -1 : 1;
}

/* Candidates of at least `floor`, best first; returns how many. */
static int sort_candidates(struct sampler *s, double floor)
{
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        float p = (float)(s->logits[i] - s->log_sum);
        if (p >= floor) s->sorted[n++] = (struct candidate){i, p};
    }
    qsort(s->sorted, (size_t)n, sizeof *s->sorted, by_probability);
    return n;
}

static int truncate_candidates(const struct sampler *s, int n)
{
    double sum = 0;
    if (s->o.top_k > 0 && n > s->o.top_k) n = s->o.top_k;
    if (s->o.top_p < 1) {
        for (int i = 0; i < n; i++) {
            sum += exp(s->sorted[i].logprob);
            if (sum >= s->o.top_p) return i + 1;
        }
    }
    return n;
}

static struct candidate draw(const struct sampler *s, int n, double u)
{
    double sum = 0, at = 0;
    for (int i = 0; i < n; i++) {
        sum += exp((double)(s->sorted[i].logprob - s->sorted[0].logprob) / s->o.temperature);
    }
    for (int i = 0; i < n; i++) {
        at += exp((double)(s->sorted[i].logprob - s->sorted[0].logprob) / s->o.temperature);
        if (u * sum < at) return s->sorted[i];
    }
    return s->sorted[n - 1];
}

pm_status sampler_pick(struct sampler *s, float *logits, const int32_t *recent, int n_recent,
                       int64_t index, struct candidate *out)
{
    int best, n;
    double floor = -INFINITY;
    penalise(s, logits, recent, n_recent);
    TRY(find_best(logits, s->n, &best));
    s->logits = logits;
    s->log_sum = log_sum_exp(logits, s->n, best);
    *out = (struct candidate){best, (float)(logits[best] - s->log_sum)};
    if (s->o.temperature == 0) return PM_OK;
    if (s->o.min_p > 0) floor = out->logprob + log(s->o.min_p) - 1e-6;
    n = truncate_candidates(s, sort_candidates(s, floor));
    *out = draw(s, n, uniform(s->o.seed, index));
    return PM_OK;
}

void sampler_top(struct sampler *s, int n_top, struct candidate *out)
{
    int n = sort_candidates(s, -INFINITY);
    memcpy(out, s->sorted, (size_t)(n_top < n ? n_top : n) * sizeof *out);
}
