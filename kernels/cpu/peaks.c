/* peaks.c - measured memory bandwidth and multiply-add peaks.
 *
 * Bandwidth: every worker streams through its own part of a buffer that no cache holds, with
 * vector loads and prefetches; the copy writes past the caches. Multiply-adds: as many
 * independent sums as a tile of the linear maps has, all in registers. Each figure is the best
 * of several passes, because a peak is what the machine can do, and others may be using it too.
 */
#define _DEFAULT_SOURCE
#include "peaks.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    MAX_BYTES = 1 << 30,
    MIN_BYTES = 1 << 22,
    SLICES = 8,           /* parts of a worker, so that a late one can be helped */
    PASS_US = 500 * 1000, /* for all passes of one figure */
    SLICE_FLOPS = 50 * 1000 * 1000,
};

struct peak_job {
    const struct micro *micro;
    enum peak figure;
    char *buffer;
    size_t slice_bytes; /* a multiple of PAGE */
    int64_t rounds;
    _Atomic uint64_t sink;
};

static void run_slice(void *arg, int64_t task, int worker)
{
    struct peak_job *job = arg;
    char *p = job->buffer + (size_t)task * job->slice_bytes;
    size_t half = job->slice_bytes / 2;
    (void)worker;
    switch (job->figure) {
    case PEAK_READ: job->sink += job->micro->stream_read(p, job->slice_bytes); break;
    case PEAK_COPY: job->micro->stream_copy(p, p + half, half); break;
    case PEAK_F32: job->micro->peak_f32(job->rounds); break;
    case PEAK_BF16: job->micro->peak_bf16(job->rounds); break;
    case PEAK_ALL: break;
    }
}

/* The most work a microsecond that a pass of all slices reached; a pass is `work` in all. */
static double best_rate(struct device *d, struct peak_job *job, int64_t n_slice, double work)
{
    int64_t begin = now_us(), now = begin, last;
    double best = 0;
    do {
        last = now;
        parallel_for(d->pool, n_slice, run_slice, job);
        now = now_us();
        double rate = work / (double)max_i64(now - last, 1);
        if (rate > best) best = rate;
    } while (now - begin < PASS_US);
    return best;
}

static double flops_peak(struct device *d, enum peak figure)
{
    struct peak_job job = {.micro = d->micro, .figure = figure};
    int64_t n_slice = (int64_t)pool_size(d->pool) * SLICES;
    double (*peak)(int64_t) = figure == PEAK_F32 ? d->micro->peak_f32 : d->micro->peak_bf16;
    double round = peak(1);
    job.rounds = (int64_t)(SLICE_FLOPS / round);
    return best_rate(d, &job, n_slice, round * (double)job.rounds * (double)n_slice) / 1e3;
}

static pm_status bandwidth_peaks(struct device *d, int which, struct peaks *peaks)
{
    struct peak_job job = {.micro = d->micro};
    int64_t n_slice = (int64_t)pool_size(d->pool) * SLICES;
    int64_t memory = sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    int64_t bytes = max_i64(MIN_BYTES, min_i64(MAX_BYTES, memory / 4));
    job.slice_bytes = (size_t)(bytes / n_slice / (2 * PAGE) * (2 * PAGE));
    TRY(alloc_array(&job.buffer, (size_t)n_slice, job.slice_bytes, "bandwidth measurement"));
    bytes = n_slice * (int64_t)job.slice_bytes;
    job.figure = PEAK_READ;
    if (which & PEAK_READ) peaks->read_gbs = best_rate(d, &job, n_slice, (double)bytes) / 1e3;
    job.figure = PEAK_COPY;
    if (which & PEAK_COPY) peaks->copy_gbs = best_rate(d, &job, n_slice, (double)bytes) / 1e3;
    free(job.buffer);
    return PM_OK;
}

pm_status peaks_measure(struct device *d, int which, struct peaks *out)
{
    struct peaks peaks = {0};
    bool has_bf16 = d->micro->peak_bf16 != NULL;
    if (which & (PEAK_READ | PEAK_COPY)) TRY(bandwidth_peaks(d, which, &peaks));
    if (which & PEAK_F32 || (which & PEAK_BF16 && !has_bf16)) {
        peaks.f32_gflops = flops_peak(d, PEAK_F32);
    }
    if (which & PEAK_BF16) {
        peaks.bf16_gflops = has_bf16 ? flops_peak(d, PEAK_BF16) : peaks.f32_gflops;
    }
    *out = peaks;
    return PM_OK;
}
