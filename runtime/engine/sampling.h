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
    float presence, frequency; /* 0: off; subtracted from logits of generated tokens, once and
                                  for each time */
    const pm_logit_bias *bias; /* [n_bias] added to logits before all else; borrowed */
    int n_bias;
};

/* What is known when a token is due. */
struct sampling_input {
    float *logits;        /* [V] is changed */
    const int32_t *token; /* [n_token] the sequence; from n_prompt on they were generated */
    int n_token, n_prompt;
    const uint32_t *allowed; /* [ceil(V / 32)] a bit for each token that may come, or NULL */
    int64_t index;           /* number of the token: which draw it is of its seed */
};

struct candidate {
    int32_t id;
    float logprob; /* natural, of the distribution before truncation, after bias, penalties and
                      mask, at temperature 1 */
};

/* Scratch memory for one pick at a time. */
struct sampler;

/* For a vocabulary of n tokens. */
pm_status sampler_open(struct sampler **out, int n);
void sampler_close(struct sampler *s);

/* PM_ERR_ARG names the setting that is out of range for a vocabulary of n. */
pm_status sampling_check(const struct sampling *o, int n);

/* Picks a token with checked settings. The draw depends on the seed and the index alone. Ties
 * go to the lower id. PM_ERR_DEVICE when a logit is NaN or none is finite. */
pm_status sampler_pick(struct sampler *s, const struct sampling *o,
                       const struct sampling_input *in, struct candidate *out);

/* The n_top most likely tokens of the last pick's distribution, best first; its logits must be
 * as the pick left them. */
void sampler_top(struct sampler *s, int n_top, struct candidate *out);

/* Of any logits [V] the log-probability of `id` and the n_top most likely tokens. PM_ERR_DEVICE
 * when a logit is NaN. */
pm_status sampler_look(struct sampler *s, const float *logits, int32_t id, int n_top,
                       struct candidate *top, float *logprob);

/* log softmax(logits)[id], in double. */
double log_probability(const float *logits, int n, int32_t id);

#endif
