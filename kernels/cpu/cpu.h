/* cpu.h - the CPU device and what its operations share.
 *
 * The caller's thread is the last worker of the pool. One thread at a time may call into a
 * device. */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include "kernels/cpu/micro.h"
#include "kernels/pool.h"

struct device {
    struct pool *pool;
    const struct micro *micro;
    /* Grown by cpu_reserve only. */
    char *scratch; /* [scratch_bytes] for one operation at a time */
    size_t scratch_bytes;
    char
        *worker_scratch; /* [pool_size, worker_bytes] for one task at a time, 64-byte aligned */
    size_t worker_bytes; /* of each worker, a multiple of 64 */
    char text[96];       /* what `describe` returns */
};

/* Scratch of this worker for the length of one task. */
static inline void *cpu_worker_scratch(const struct device *d, int worker)
{
    return d->worker_scratch + (size_t)worker * d->worker_bytes;
}

/* Room for steps of up to n_row rows (after top-k expansion) of up to n_col values; keeps what
 * an earlier call reserved. Needs d->pool and d->micro. PM_ERR_NOMEM. */
pm_status cpu_reserve(struct device *d, int64_t n_row, int64_t n_col);

/* At least `bytes` of scratch for an operation and `worker_bytes` for each worker. */
pm_status cpu_reserve_bytes(struct device *d, size_t bytes, size_t worker_bytes);

/* Frees what cpu_reserve took. */
void cpu_release(struct device *d);

/* The op `linear` of kernels.h. Allocates only when a call is larger than what was reserved. */
pm_status cpu_linear(struct device *d, const struct linear *op, int n_op);

#endif
