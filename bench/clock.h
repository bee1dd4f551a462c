/* clock.h - the time of one operation of a device. */
#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include "kernels/kernels.h"

/* Enqueues the operation once; turn counts up from 0, so that it can take other memory each
 * time. */
typedef pm_status clock_run(void *arg, int64_t turn);

struct timing {
    double median_us, min_us, deviation_us; /* of one operation, over samples */
    int64_t n_turn;                         /* operations in a sample */
};

enum { CLOCK_MAX_SAMPLE = 1000 };

/* Takes n_sample samples after some operations that do not count. A sample is as many
 * operations as fill some milliseconds, a multiple of `round` where it is more than that, from
 * an idle device to an idle device: on a device with a queue the cost of enqueueing is hidden
 * behind the work where that is longer. */
pm_status clock_measure(struct timing *out, const struct kernels *k, struct device *d,
                        clock_run *run, void *arg, int n_sample, int64_t round);

#endif
