/* sampling.c - bias, penalties, mask, truncation, temperature, draw: in the order that the
 * field uses.
 *
 * bias -> repeat penalty -> presence and frequency penalty -> mask -> log probabilities
 * (reported) -> top-k -> top-p -> min-p -> temperature -> draw. Truncation looks at the
 * distribution at temperature 1, so that changing the temperature does not change which tokens
 * are allowed. The random number is a hash of seed and token index: a sequence can be resumed
 * or replayed from any token.
 *
 * Vocabularies have 150,000 tokens and every sequence of a step needs a pick, so nothing is
 * sorted: a greedy pick is two passes that the compiler turns into vectors; where a truncation
 * needs the best in order, they come out of a heap one by one, and the heap holds only what is
 * not hopelessly unlikely. Sums run in a fixed number of lanes, so that their roundings do not
 * depend on the instruction set. */
#include "sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampler {
    int n;
    const float *logits;    /* [n] of the last pick, after all changes; borrowed */
    int best;               /* the most likely token */
    double log_sum;         /* log of the sum of exp(logits) */
    int32_t *count;         /* [n] zeros between picks */
    struct candidate *heap; /* [n] */
    int n_heap;
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

pm_status sampler_open(struct sampler **out, int n)
{
    struct sampler *s;
    pm_status status;
    TRY(alloc_array(&s, 1, sizeof *s, "sampler"));
    s->n = n;
    TRY_DONE(alloc_array(&s->count, (size_t)n, sizeof *s->count, "sampler"));
    TRY_DONE(alloc_array(&s->heap, (size_t)n, sizeof *s->heap, "sampler"));
    *out = s;
    s = NULL;
done:
    sampler_close(s);
    return status;
}

void sampler_close(struct sampler *s)
{
    if (!s) return;
    free(s->count);
    free(s->heap);
    free(s);
}

static pm_status check_penalty(const char *name, float x)
{
    if (x >= -100 && x <= 100) return PM_OK;
    return fail(PM_ERR_ARG, "%s: found %g, wanted -100 to 100", name, (double)x);
}

pm_status sampling_check(const struct sampling *o, int n)
{
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
    TRY(check_penalty("presence penalty", o->presence));
    TRY(check_penalty("frequency penalty", o->frequency));
    for (int i = 0; i < o->n_bias; i++) {
        if (o->bias[i].id < 0 || o->bias[i].id >= n) {
            return fail(PM_ERR_ARG, "logit bias: found token %d, the vocabulary has %d",
                        o->bias[i].id, n);
        }
        if (isnan(o->bias[i].bias) || o->bias[i].bias == INFINITY) {
            return fail(PM_ERR_ARG, "logit bias of token %d: found %g, wanted a number or -inf",
                        o->bias[i].id, (double)o->bias[i].bias);
        }
    }
    return PM_OK;
}

/* ------------------------------------------------------------------ changes of logits */

static void repeat_penalty(struct sampler *s, const struct sampling *o,
                           const struct sampling_input *in)
{
    int last = o->repeat_last > 0 ? o->repeat_last : 64;
    int first = in->n_token > last ? in->n_token - last : 0;
    if (o->repeat_penalty == 1) return;
    for (int i = first; i < in->n_token; i++) {
        int32_t id = in->token[i];
        if (id < 0 || id >= s->n || s->count[id]++) continue;
        float *l = &in->logits[id];
        *l = *l > 0 ? *l / o->repeat_penalty : *l * o->repeat_penalty;
    }
    for (int i = first; i < in->n_token; i++) {
        int32_t id = in->token[i];
        if (id >= 0 && id < s->n) s->count[id] = 0;
    }
}

/* Both times the generated tokens are walked, the second time to leave zeros. */
static void presence_penalty(struct sampler *s, const struct sampling *o,
                             const struct sampling_input *in)
{
    if (o->presence == 0 && o->frequency == 0) return;
    for (int i = in->n_prompt; i < in->n_token; i++) {
        int32_t id = in->token[i];
        if (id >= 0 && id < s->n) s->count[id]++;
    }
    for (int i = in->n_prompt; i < in->n_token; i++) {
        int32_t id = in->token[i];
        if (id < 0 || id >= s->n || !s->count[id]) continue;
        in->logits[id] -= o->presence + o->frequency * (float)s->count[id];
        s->count[id] = 0;
    }
}

static void mask(float *logits, int n, const uint32_t *allowed)
{
    for (int i = 0; allowed && i < n; i += 32) {
        uint32_t bits = allowed[i / 32];
        if (bits == UINT32_MAX) continue;
        for (int j = 0; j < 32 && i + j < n; j++) {
            if (!(bits >> j & 1)) logits[i + j] = -INFINITY;
        }
    }
}

/* ------------------------------------------------------------------ passes over all */

/* The passes are written in vectors of four numbers, which every processor has, and some of
 * them side by side: each is its own sequence of operations, so the bits are the same
 * everywhere. */
typedef float floats __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(16)));
typedef float two_floats __attribute__((vector_size(8)));
typedef double doubles __attribute__((vector_size(16)));
enum { WIDE = 4, SIDES = 4, LANES = WIDE * SIDES };

static inline floats choose(ints mask, floats yes, floats no)
{
    return (floats)((mask & (ints)yes) | (~mask & (ints)no));
}

static inline floats load(const float *p)
{
    floats x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* The largest logit; NAN when one of them is. */
static float largest(const float *logits, int n)
{
    floats top[SIDES];
    ints bad = {0};
    float best = -INFINITY;
    int any = 0, i = 0;
    for (int s = 0; s < SIDES; s++) {
        top[s] = (floats){-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    }
    for (; i + LANES <= n; i += LANES) {
        for (int s = 0; s < SIDES; s++) {
            floats x = load(logits + i + s * WIDE);
            top[s] = choose(x > top[s], x, top[s]);
            bad |= x != x;
        }
    }
    for (int j = 0; j < LANES; j++) {
        float x = top[j / WIDE][j % WIDE];
        best = x > best ? x : best;
        any |= bad[j % WIDE];
    }
    for (; i < n; i++) {
        best = logits[i] > best ? logits[i] : best;
        any |= logits[i] != logits[i];
    }
    return any ? NAN : best;
}

/* exp(x) of x <= 0 to 2 units in the last place of a float; 0 under -87. x = k ln 2 + r with
 * |r| <= ln 2 / 2, exp(r) by its series to r^7. */
static inline floats quick_exp(floats x)
{
    const floats least = {-87, -87, -87, -87};
    ints tiny = x < least;
    floats y = choose(tiny, least, x);
    floats k = y * 1.44269504f + 12582912.0f; /* rounds: 1.5 * 2^23 leaves no fraction */
    ints two_to_k = ((ints)k << 23) + 0x3f800000;
    floats r, p;
    k -= 12582912.0f;
    r = (y - k * 0.693359375f) + k * 2.12194440e-4f;
    p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1;
    p = p * r + 1;
    p *= (floats)two_to_k;
    return (floats)(~tiny & (ints)p);
}

/* log of the sum of exp(logits), none of which is over `top`. */
static double log_sum_of(const float *logits, int n, float top)
{
    doubles sum[2 * SIDES] = {{0}};
    double all = 0;
    for (int i = 0; i < n; i += LANES) {
        float part[LANES];
        const float *at = logits + i;
        if (n - i < LANES) {
            for (int j = 0; j < LANES; j++) {
                part[j] = j < n - i ? logits[i + j] : -INFINITY;
            }
            at = part;
        }
        for (int s = 0; s < SIDES; s++) {
            floats x = quick_exp(load(at + s * WIDE) - top);
            two_floats half[2];
            memcpy(half, &x, sizeof x);
            sum[2 * s] += __builtin_convertvector(half[0], doubles);
            sum[2 * s + 1] += __builtin_convertvector(half[1], doubles);
        }
    }
    for (int j = 0; j < 2 * SIDES; j++) {
        all += sum[j][0] + sum[j][1];
    }
    return top + log(all);
}

double log_probability(const float *logits, int n, int32_t id)
{
    double sum = 0;
    float top = logits[0];
    for (int i = 1; i < n; i++) {
        if (logits[i] > top) top = logits[i];
    }
    for (int i = 0; i < n; i++) {
        sum += exp((double)logits[i] - top);
    }
    return logits[id] - (top + log(sum));
}

static int first_with(const float *logits, int n, float value)
{
    int i = 0;
    while (i < n && logits[i] != value) {
        i++;
    }
    return i;
}

static int first_nan(const float *logits, int n)
{
    int i = 0;
    while (i < n && !isnan(logits[i])) {
        i++;
    }
    return i;
}

/* ------------------------------------------------------------------ the best in order */

static bool is_better(struct candidate a, struct candidate b)
{
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.id < b.id;
}

static void sift_down(struct candidate *heap, int n, int at)
{
    struct candidate c = heap[at];
    for (;;) {
        int child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && is_better(heap[child + 1], heap[child])) child++;
        if (!is_better(heap[child], c)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = c;
}

static float logprob_of(const struct sampler *s, int32_t id)
{
    return (float)(s->logits[id] - s->log_sum);
}

/* Whether one of LANES logits is at least `cut`. */
static bool any_over(const float *logits, float cut)
{
    ints over = {0};
    for (int s = 0; s < SIDES; s++) {
        over |= load(logits + s * WIDE) >= cut;
    }
    return over[0] | over[1] | over[2] | over[3];
}

/* Those of at least `floor` in the order of their ids; returns the sum of their probabilities.
 */
static double collect(struct sampler *s, double floor)
{
    float cut = (float)(floor + s->log_sum - 0.01); /* no logit under this is over the floor */
    double sum = 0;
    s->n_heap = 0;
    for (int i = 0; i < s->n; i += LANES) {
        int end = s->n - i < LANES ? s->n : i + LANES;
        if (end - i == LANES && !any_over(s->logits + i, cut)) continue;
        for (int j = i; j < end; j++) {
            float p = logprob_of(s, j);
            if (!(p >= floor) || p == -INFINITY) continue;
            s->heap[s->n_heap++] = (struct candidate){j, p};
            sum += exp(p);
        }
    }
    return sum;
}

static void make_heap(struct sampler *s)
{
    for (int i = s->n_heap / 2; i-- > 0;) {
        sift_down(s->heap, s->n_heap, i);
    }
}

/* The best of the heap moves behind its end, so the best are the array's last, in order. */
static struct candidate pop(struct sampler *s)
{
    struct candidate best = s->heap[0];
    s->heap[0] = s->heap[--s->n_heap];
    s->heap[s->n_heap] = best;
    if (s->n_heap) sift_down(s->heap, s->n_heap, 0);
    return best;
}

/* How much less likely than the best, as logarithms: tokens under it are looked at only when
 * those over it do not suffice. */
static const double likely[] = {2, 5, 12, INFINITY};

/* The best tokens: at most n, holding `mass` of the probability, none under `floor`. They end
 * up at the end of s->heap, the best last; returns how many. */
static int truncate_best(struct sampler *s, int n, double mass, double floor)
{
    double best = logprob_of(s, s->best), sum = 0, least;
    int taken = 0, n_all;
    for (const double *l = likely;; l++) {
        least = best - *l > floor ? best - *l : floor;
        sum = collect(s, least);
        if (least == floor || s->n_heap >= n || sum >= mass * (1 + 1e-9)) break;
    }
    if (n > s->n_heap) n = s->n_heap;
    n_all = s->n_heap;
    make_heap(s);
    sum = 0;
    while (taken < n) {
        sum += exp(pop(s).logprob);
        taken++;
        if (sum >= mass) break;
    }
    memmove(s->heap, s->heap + n_all - taken, (size_t)taken * sizeof *s->heap);
    return taken;
}

void sampler_top(struct sampler *s, int n_top, struct candidate *out)
{
    int n = truncate_best(s, n_top, INFINITY, -INFINITY);
    for (int i = 0; i < n; i++) {
        out[i] = s->heap[n - 1 - i];
    }
}

/* ------------------------------------------------------------------ pick */

/* From the first n of s->heap, weighted by exp(logprob / temperature). */
static struct candidate draw(const struct sampler *s, int n, double temperature, double u)
{
    double best = logprob_of(s, s->best), sum = 0, at = 0;
    for (int i = 0; i < n; i++) {
        sum += exp((s->heap[i].logprob - best) / temperature);
    }
    for (int i = n; i-- > 0;) {
        at += exp((s->heap[i].logprob - best) / temperature);
        if (u * sum < at) return s->heap[i];
    }
    return s->heap[0];
}

/* exp(logit / temperature) of LANES tokens from i on, relative to the best; returns their sum.
 */
static double weights(const struct sampler *s, int i, float per_temperature, float w[LANES])
{
    const float top = s->logits[s->best];
    double sum = 0;
    for (int j = 0; j < LANES; j++) {
        w[j] = i + j < s->n ? s->logits[i + j] : -INFINITY;
    }
    for (int side = 0; side < SIDES; side++) {
        floats x = quick_exp((load(w + side * WIDE) - top) * per_temperature);
        memcpy(w + side * WIDE, &x, sizeof x);
    }
    for (int j = 0; j < LANES; j++) {
        sum += (double)w[j];
    }
    return sum;
}

/* From all tokens, in the order of their ids: one pass for the sum, one to where the draw
 * falls. */
static struct candidate draw_any(const struct sampler *s, float temperature, double u)
{
    float w[LANES], per_temperature = 1 / temperature;
    double sum = 0, at = 0;
    if (!(per_temperature < 1e30f)) per_temperature = 1e30f; /* -0 * inf is no weight */
    for (int i = 0; i < s->n; i += LANES) {
        sum += weights(s, i, per_temperature, w);
    }
    for (int i = 0; i < s->n; i += LANES) {
        double here = weights(s, i, per_temperature, w), before = at;
        at += here;
        if (u * sum >= at) continue;
        for (int j = 0; j < LANES; j++) {
            before += (double)w[j];
            if (u * sum < before) return (struct candidate){i + j, logprob_of(s, i + j)};
        }
    }
    return (struct candidate){s->best, logprob_of(s, s->best)};
}

static pm_status look(struct sampler *s, const float *logits)
{
    float top = largest(logits, s->n);
    if (isnan(top) || top == INFINITY) {
        int at = isnan(top) ? first_nan(logits, s->n) : first_with(logits, s->n, top);
        return fail(PM_ERR_DEVICE,
                    "logits: token %d has %g; the weights or the computation are broken", at,
                    (double)logits[at]);
    }
    if (top == -INFINITY) return fail(PM_ERR_DEVICE, "logits: all are -inf");
    s->logits = logits;
    s->best = first_with(logits, s->n, top);
    s->log_sum = log_sum_of(logits, s->n, top);
    return PM_OK;
}

pm_status sampler_pick(struct sampler *s, const struct sampling *o,
                       const struct sampling_input *in, struct candidate *out)
{
    double floor = -INFINITY;
    int n;
    for (int i = 0; i < o->n_bias; i++) {
        in->logits[o->bias[i].id] += o->bias[i].bias;
    }
    repeat_penalty(s, o, in);
    presence_penalty(s, o, in);
    if (in->allowed) {
        TRY(look(s, in->logits)); /* a mask must not hide what is broken */
        mask(in->logits, s->n, in->allowed);
    }
    TRY(look(s, in->logits));
    *out = (struct candidate){s->best, logprob_of(s, s->best)};
    if (o->temperature == 0) return PM_OK;
    if (o->min_p > 0) floor = out->logprob + log(o->min_p) - 1e-6;
    if (o->top_k > 0 || o->top_p < 1) {
        double mass = o->top_p < 1 ? (double)o->top_p : INFINITY;
        n = truncate_best(s, o->top_k > 0 ? o->top_k : s->n, mass, floor);
    } else if (o->min_p > 0) {
        collect(s, floor);
        n = s->n_heap;
    } else {
        *out = draw_any(s, o->temperature, uniform(o->seed, in->index));
        return PM_OK;
    }
    *out = draw(s, n, (double)o->temperature, uniform(o->seed, in->index));
    return PM_OK;
}

pm_status sampler_look(struct sampler *s, const float *logits, int32_t id, int n_top,
                       struct candidate *top, float *logprob)
{
    TRY(look(s, logits));
    if (n_top > 0) sampler_top(s, n_top, top);
    *logprob = logprob_of(s, id);
    return PM_OK;
}
