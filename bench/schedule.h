/* schedule.h - requests that the simulated scheduler serves. */
#ifndef BENCH_SCHEDULE_H
#define BENCH_SCHEDULE_H

#include "kernels/base.h"

struct arrival {
    int64_t at_us;
    int prompt, output; /* tokens; output at least 1 */
    int priority, key;
    int prefix, shared; /* the first `shared` tokens are those of prefix number `prefix` */
};

struct arrivals {
    struct arrival *list; /* [n] in the order of time */
    size_t n, capacity;
};

struct generated {
    int n, prompt, output, keys, prefixes, shared;
    double rate;   /* requests a second, Poisson */
    double spread; /* lengths are even between (1 - spread) and (1 + spread) of their mean */
    uint64_t seed;
};

/* Reads JSON lines from a file ("-": standard input): {"arrival_ms": 12.5, "prompt": 512,
 * "output": 128} and, where they are not 0, "key", "priority", "prefix", "shared". */
pm_status arrivals_read(struct arrivals *a, const char *path);
pm_status arrivals_make(struct arrivals *a, const struct generated *g);

#endif
