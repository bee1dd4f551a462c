/* recorded.h - steps that a device records once and replays: a decode step launches a thousand
 * small kernels, and asking for them one by one takes longer than running them. */
#ifndef MOE_RECORDED_H
#define MOE_RECORDED_H

#include "kernels/kernels.h"

/* Steps of up to this many rows are recorded; larger ones keep the device busy anyway. */
enum { RECORDED_ROWS = 64 };

/* Starts as {k, d}. */
struct recorded {
    const struct kernels *k;
    struct device *d;
    void *graph[RECORDED_ROWS + 1];
    bool seen[RECORDED_ROWS + 1];
};

/* Runs step(arg), or replays what an earlier call with this n_row enqueued. What the step
 * enqueues must depend on nothing but n_row; n_row 0, or a device that does not record: always
 * runs it. */
typedef pm_status recorded_step(void *arg);
pm_status recorded_run(struct recorded *r, int n_row, recorded_step *step, void *arg);
void recorded_close(struct recorded *r);

#endif
