/* kernels.h - what polymath bench kernels is asked and what it found. */
#ifndef BENCH_KERNELS_H
#define BENCH_KERNELS_H

#include "bench/clock.h"
#include "bench/kernel_case.h"
#include "runtime/options.h"

enum kernels_format { KERNELS_MD, KERNELS_CSV, KERNELS_JSON, KERNELS_JSONL };

enum { KERNELS_MAX_LIST = 32, KERNELS_MAX_BASELINE = 4 };

struct kernels_request {
    struct shape shape[KERNELS_MAX_LIST];
    const struct kernel_op *op[KERNELS_MAX_LIST];
    pm_dtype type[KERNELS_MAX_LIST];
    struct routing_maker routing[KERNELS_MAX_LIST];
    int64_t n_row[KERNELS_MAX_LIST];
    const struct baseline *baseline[KERNELS_MAX_BASELINE];
    bool cold[2];
    int n_shape, n_op, n_type, n_routing, n_rows, n_cache, n_baseline;
    int repeat, context;
    enum kernels_format format;
    bool progress;
};

struct kernels_row {
    char shape[32], routing[64];
    const char *op;
    const char *by; /* "polymath", or the name of a baseline */
    pm_dtype type;
    bool by_type, by_routing, experts; /* whether the fields mean anything to this op */
    int64_t n_row;
    int n_expert, top_k, n_set;
    struct timing time;
    int n_sample;
    double n_active, bytes, flops;
    double own_us;     /* the median of the house's own beside a baseline, else 0 */
    double wall_us;    /* at the measured peaks */
    bool memory_bound; /* which of the two makes the wall */
    bool cold;         /* a sample finds nothing of the set in a cache */
    int clock_mhz;     /* while it was measured, 0: not known */
};

struct kernels_report {
    const char *device;
    struct device_facts facts; /* after the last case */
    struct peaks peaks;
    struct kernels_row *row; /* [n] */
    size_t n, capacity;
};

/* Measures every case. PM_ERR_UNSUPPORTED where a baseline is not there. */
pm_status kernels_bench(const struct kernels_request *q, const struct pm_options *o);

/* Sets wall_us and memory_bound of all rows from the peaks. */
void kernels_walls(struct kernels_report *r, pm_dtype narrow);
/* Writes the rows to standard output. */
void kernels_print(const struct kernels_report *r, enum kernels_format format);

#endif
