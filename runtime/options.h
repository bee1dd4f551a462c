/* options.h - one row per option: flag, environment name, range, help. */
#ifndef RUNTIME_OPTIONS_H
#define RUNTIME_OPTIONS_H

#include "kernels/base.h"

enum { MAX_STOP = 16 };

struct pm_options {
    /* engine */
    char device[32], kv_type[8];
    int threads, context, batch;
    int max_seqs, kv_tokens, max_queue, max_queue_tokens;
    float decode_slowdown;
    bool prefix_cache;
    /* generation */
    int max_tokens, top_k, logprobs;
    float temperature, top_p, min_p, repeat_penalty;
    uint64_t seed;
    char *stop[MAX_STOP];
    int n_stop;
    bool ignore_eos;
};

enum option_kind {
    OPTION_INT,
    OPTION_FLOAT,
    OPTION_U64,
    OPTION_TEXT,
    OPTION_LIST,
    OPTION_SWITCH, /* takes 0 or 1 */
    OPTION_FLAG    /* bare: sets it */
};
enum option_group { GROUP_ENGINE, GROUP_GENERATION };

struct option {
    const char *name;
    char letter; /* 0: none */
    enum option_group group;
    enum option_kind kind;
    size_t offset, size; /* in struct pm_options */
    double min, max;
    const char *value; /* what help calls the value */
    const char *help;
};

extern const struct option options_table[]; /* ends with a NULL name */

const struct option *options_find(const char *name);
pm_status options_set(struct pm_options *o, const struct option *row, const char *value);
/* The value as text, for `--help` and docs/options.md. */
void options_value(const struct pm_options *o, const struct option *row, char *out, size_t n);

#endif
