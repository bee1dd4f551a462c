/* sampling.h - from logits to the next token. */
#ifndef RUNTIME_SAMPLING_H
#define RUNTIME_SAMPLING_H

#include "kernels/base.h"

struct sampling {
    float temperature;    /* 0: the most likely token */
    int top_k;            /* 0: all */
    float top_p, min_p;   /* 1 and 0: off */
    float repeat_penalty; /* 1: off; divides positive logits of tokens seen, multiplies negative
                             ones */
    int repeat_last;      /* how many recent tokens count, default 64 */
    uint64_t seed;
};

struct candidate {
    int32_t id;
    float logprob; /* natural, of the distribution before truncation, after the penalty at
                      temperature 1 */
};

struct sampler;

/* Takes room for the candidates of a vocabulary of n tokens; *s is copied. */
pm_status sampler_open(struct sampler **out, int n, const struct sampling *s);
void sampler_close(struct sampler *s);

/* Picks from logits [n], which it may change. `recent` are the last n_recent tokens of the
 * sequence, oldest first. The draw depends on the seed and on `index`, the number of the token,
 * alone. Ties go to the lower id. PM_ERR_DEVICE when a logit is NaN. */
pm_status sampler_pick(struct sampler *s, float *logits, const int32_t *recent, int n_recent,
                       int64_t index, struct candidate *out);

/* The n_top most likely tokens of the last pick's distribution, best first. */
void sampler_top(struct sampler *s, int n_top, struct candidate *out);

/* log softmax(logits)[id], in double. */
double log_probability(const float *logits, int n, int32_t id);

#endif
