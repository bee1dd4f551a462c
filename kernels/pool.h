/* pool.h - CPU worker threads and one way to use them: parallel_for. */
#ifndef KERNELS_POOL_H
#define KERNELS_POOL_H

#include "base.h"

struct pool;

/* Runs task `task` (0 <= task < n_task) on worker `worker` (0 <= worker < pool_size). */
typedef void pool_task(void *arg, int64_t task, int worker);

/* Starts n_thread - 1 workers (the caller is the last one); n_thread = 0 takes one per CPU that
 * this process may use. PM_ERR_ARG over 1024, PM_ERR_NOMEM when a thread cannot be started. */
pm_status pool_open(struct pool **out, int n_thread);
void pool_close(struct pool *pool);
int pool_size(const struct pool *pool);

/* Calls run(arg, 0 .. n_task - 1), each once, in any order on any worker, and returns when all
 * are done. Tasks are handed out one by one, so unequal tasks balance. One thread may call this
 * at a time; not to be called from inside a task. */
void parallel_for(struct pool *pool, int64_t n_task, pool_task *run, void *arg);

#endif
