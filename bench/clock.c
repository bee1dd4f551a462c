/* clock.c - samples of equal numbers of operations, by the monotonic clock of the host. */
#include "clock.h"

#include "bench/stats.h"

enum { SAMPLE_US = 4000, MAX_TURN = 100000 };

struct queue {
    const struct kernels *k;
    struct device *d;
    clock_run *run;
    void *arg;
    int64_t turn;
};

static pm_status sample(struct queue *q, int64_t n, double *us)
{
    int64_t start = now_us();
    for (int64_t i = 0; i < n; i++) {
        TRY(q->run(q->arg, q->turn++));
    }
    TRY(q->k->sync(q->d));
    *us = (double)max_i64(now_us() - start, 1) / (double)n;
    return PM_OK;
}

pm_status clock_measure(struct timing *out, const struct kernels *k, struct device *d,
                        clock_run *run, void *arg, int n_sample, int64_t round)
{
    struct queue q = {k, d, run, arg, 0};
    double us[CLOCK_MAX_SAMPLE];
    int64_t n = 1;
    TRY(k->sync(d));
    TRY(sample(&q, 1, us));
    for (int64_t wanted = 2; n < wanted && n < MAX_TURN; n = wanted) {
        wanted = min_i64(MAX_TURN, min_i64(8 * n, (int64_t)(SAMPLE_US / us[0]) + 1));
        if (wanted <= n) break;
        TRY(sample(&q, wanted, us));
    }
    if (n > round) n = (n + round - 1) / round * round;
    for (int i = 0; i < n_sample; i++) {
        TRY(sample(&q, n, &us[i]));
    }
    *out = (struct timing){.n_turn = n, .deviation_us = stats_deviation(us, n_sample)};
    out->median_us = stats_median(us, n_sample);
    out->min_us = us[0];
    return PM_OK;
}
