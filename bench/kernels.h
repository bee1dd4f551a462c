/* kernels.h - what polymath bench kernels is asked and what it found. */
#ifndef BENCH_KERNELS_H
#define BENCH_KERNELS_H

#include "bench/clock.h"
#include "bench/kernel_case.h"

enum kernels_format { KERNELS_MD, KERNELS_CSV, KERNELS_JSON, KERNELS_JSONL };

struct kernels_row {
    char shape[32], routing[64];
    const char *op;
    pm_dtype type;
    bool by_type, by_routing, experts; /* whether the fields mean anything to this op */
    int64_t n_row;
    int n_expert, top_k, n_set;
    struct timing time;
    int n_sample;
    double n_active, bytes, flops;
    double wall_us;    /* at the measured peaks */
    bool memory_bound; /* which of the two makes the wall */
    bool cold;         /* the sets together are larger than twice the cache */
};

struct kernels_report {
    const char *device;
    struct peaks peaks;
    struct kernels_row *row; /* [n] */
    size_t n, capacity;
};

/* Sets wall_us and memory_bound of all rows from the peaks. */
void kernels_walls(struct kernels_report *r, pm_dtype narrow);
/* Writes the rows to standard output. */
void kernels_print(const struct kernels_report *r, enum kernels_format format);

#endif
