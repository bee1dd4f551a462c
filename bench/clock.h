/* clock.h - the time of operations on a device, side by side. */
#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include "kernels/kernels.h"

enum { CLOCK_MAX_SAMPLE = 1000, CLOCK_MAX_TURN = 64 };

/* Enqueues the operation once. A sample runs turns 0 .. n_turn - 1, so that it can take other
 * memory each time. */
typedef pm_status clock_run(void *arg, int64_t turn);

struct timing { /* of one operation, over samples */
    double median_us, p10_us, p90_us, min_us, deviation_us;
    int64_t n_turn; /* operations in a sample */
    bool replayed;  /* a sample was a recorded graph */
};

/* One of those that are measured in turns. */
struct contender {
    clock_run *run;
    void *arg;
    struct timing time; /* filled in */
};

struct clock {
    const struct kernels *k;
    struct device *d;
    struct tensor flush, flush_x, flush_y; /* absent: caches stay as they are */
};

/* flush_bytes: what is read before each sample, to leave nothing else in a cache; 0: nothing
 * is. PM_ERR_NOMEM. */
pm_status clock_open(struct clock *c, const struct kernels *k, struct device *d,
                     size_t flush_bytes);
void clock_close(struct clock *c);

/* n_sample samples of each contender, one after the other, each sample n_turn operations that
 * are recorded and replayed where the device can. Times are the device's own; what runs first
 * goes round. n_turn 0: as many as fill a millisecond. *facts (may be NULL) is read while the
 * device works. */
pm_status clock_measure(struct clock *c, struct contender *who, int n, int n_sample,
                        int64_t n_turn, struct device_facts *facts);

#endif
