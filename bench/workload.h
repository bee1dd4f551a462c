/* workload.h - what requests ask for: prompts and lengths, by seed or from a file. */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include "moe/json.h"

struct range {
    int lo, hi; /* both included */
};

struct workload_options {
    const char *kind;               /* "random", "shared-prefix" or "file:PATH" */
    bool chat;                      /* messages instead of a prompt */
    bool text;                      /* words instead of token ids; chat always has words */
    struct range input, output, id; /* tokens or words; new tokens; the ids drawn from */
    int prefix_len, n_prefix;
    uint64_t seed;
};

struct workload;

/* Reads the file of "file:PATH": JSON lines, each with "prompt" (text or ids) or "messages",
 * and "max_tokens" where it is not to be drawn from `output`. */
pm_status workload_open(struct workload **out, const struct workload_options *o);
void workload_close(struct workload *w);

/* Lines of the file; 0 for the drawn kinds. */
int64_t workload_size(const struct workload *w);

/* Writes the members "prompt" or "messages" and "max_tokens" of request i (a file's lines come
 * around again). Depends on the options and i alone. */
void workload_put(const struct workload *w, int64_t i, struct json_out *out);

#endif
