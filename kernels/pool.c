/* pool.c - CPU worker threads that share the tasks of one call at a time.
 *
 * Each worker owns a range of consecutive tasks, packed into one atomic word. A worker takes
 * tasks from the front of its own range, so that what it reads stays in order (the memory
 * prefetchers like that), and when that is empty, from the back of another's range.
 *
 * Nothing tells a worker which call a task belongs to, and nothing has to: a task that was
 * taken keeps its call alive (`remaining` is not zero), so `run` and `arg` read after taking it
 * are the right ones. A worker that wakes late finds only empty ranges and goes back to
 * waiting; the caller never waits for it.
 *
 * A forward pass makes thousands of calls a second, a few microseconds apart. A worker
 * therefore spins before it sleeps: first with pauses, which hand work over in well under a
 * microsecond, then giving its core away between looks, so that a machine with fewer free cores
 * than workers is not held up by workers that wait. */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    MAX_THREAD = 1024,
    MAX_TASK = 1 << 30, /* of one round: both ends of a range fit in a word */
    LOOKS = 64,         /* between two looks at the clock */
    PAUSE_US = 20,      /* of spinning with pauses, then with yields */
    SLEEP_US = 100,     /* until a worker without work sleeps */
};

struct worker {
    _Alignas(64) _Atomic uint64_t range; /* next << 32 | end */
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    _Alignas(64) _Atomic uint64_t epoch;    /* rounds so far */
    _Alignas(64) _Atomic int64_t remaining; /* tasks of this round that are not done */
    _Atomic uint64_t finished;              /* rounds so far whose tasks are all done */
    pool_task *run;
    void *arg;
    int64_t first; /* task number of the round's task 0 */
    _Atomic int n_sleeping;
    _Atomic bool stop;
    int size, n_started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct worker *worker; /* [size], the last is the caller's */
};

static void pause_core(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until *word is no longer `seen`, or returns after about `limit_us`. */
static uint64_t wait_change(_Atomic uint64_t *word, uint64_t seen, int64_t limit_us)
{
    int64_t since = 0, waited = 0;
    for (;;) {
        for (int i = 0; i < LOOKS; i++) {
            uint64_t now = atomic_load_explicit(word, memory_order_acquire);
            if (now != seen || waited > limit_us) return now;
            pause_core();
        }
        if (since == 0) since = now_us();
        waited = now_us() - since;
        if (waited > PAUSE_US) sched_yield();
    }
}

/* Takes the first task of a range, or its last one when `steal`. */
static bool take(struct worker *w, bool steal, int64_t *task)
{
    uint64_t range = atomic_load_explicit(&w->range, memory_order_relaxed);
    for (;;) {
        uint64_t next = range >> 32, end = range & UINT32_MAX;
        if (next >= end) return false;
        *task = (int64_t)(steal ? end - 1 : next);
        if (atomic_compare_exchange_weak_explicit(
                &w->range, &range, steal ? range - 1 : range + (UINT64_C(1) << 32),
                memory_order_acq_rel, memory_order_relaxed)) {
            return true;
        }
    }
}

static bool take_any(struct worker *own, int64_t *task)
{
    struct pool *pool = own->pool;
    if (take(own, false, task)) return true;
    for (int i = 1; i < pool->size; i++) {
        if (take(&pool->worker[(own->index + i) % pool->size], true, task)) return true;
    }
    return false;
}

static void run_tasks(struct worker *own)
{
    struct pool *pool = own->pool;
    int64_t task, n_done = 0;
    while (take_any(own, &task)) {
        pool->run(pool->arg, pool->first + task, own->index);
        n_done++;
    }
    if (n_done && atomic_fetch_sub(&pool->remaining, n_done) == n_done) {
        atomic_fetch_add(&pool->finished, 1);
    }
}

/* Waits for a round after `seen` and returns its number. */
static uint64_t wait_epoch(struct pool *pool, uint64_t seen)
{
    uint64_t epoch = wait_change(&pool->epoch, seen, SLEEP_US);
    if (epoch != seen) return epoch;
    /* Either the caller sees this count and signals, or this worker sees the new epoch. */
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->n_sleeping, 1);
    while ((epoch = atomic_load(&pool->epoch)) == seen) {
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
    return epoch;
}

static void post_epoch(struct pool *pool)
{
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->n_sleeping) > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void *worker_main(void *arg)
{
    struct worker *own = arg;
    uint64_t epoch = 0;
    for (;;) {
        epoch = wait_epoch(own->pool, epoch);
        if (atomic_load_explicit(&own->pool->stop, memory_order_acquire)) return NULL;
        run_tasks(own);
    }
}

static int count_cpus(void)
{
    cpu_set_t set;
    int n = 0;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

pm_status pool_open(struct pool **out, int n_thread)
{
    struct pool *pool;
    if (n_thread < 0 || n_thread > MAX_THREAD) {
        return fail(PM_ERR_ARG, "%d threads: wanted 0 to %d", n_thread, MAX_THREAD);
    }
    if (n_thread == 0) n_thread = (int)min_i64(count_cpus(), MAX_THREAD);
    TRY(alloc_array(&pool, 1, sizeof *pool, "thread pool"));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->size = n_thread;
    pm_status status =
        alloc_array(&pool->worker, (size_t)n_thread, sizeof *pool->worker, "thread pool");
    for (int i = 0; i < n_thread && status == PM_OK; i++) {
        struct worker *w = &pool->worker[i];
        w->pool = pool;
        w->index = i;
    }
    for (int i = 0; i < n_thread - 1 && status == PM_OK; i++) {
        struct worker *w = &pool->worker[i];
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            status = fail(PM_ERR_NOMEM, "cannot start thread %d of %d", i + 1, n_thread);
        } else {
            pool->n_started++;
        }
    }
    if (status != PM_OK) {
        pool_close(pool);
        return status;
    }
    *out = pool;
    return PM_OK;
}

void pool_close(struct pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->stop, true);
    post_epoch(pool);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->worker[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->worker);
    free(pool);
}

int pool_size(const struct pool *pool)
{
    return pool->size;
}

/* Shares out n tasks from number `first` on and returns when they are done. */
static void run_round(struct pool *pool, int64_t first, int64_t n)
{
    uint64_t finished = atomic_load_explicit(&pool->finished, memory_order_relaxed);
    pool->first = first;
    atomic_store_explicit(&pool->remaining, n, memory_order_relaxed);
    for (int i = 0; i < pool->size; i++) {
        uint64_t next = (uint64_t)(n * i / pool->size);
        uint64_t end = (uint64_t)(n * (i + 1) / pool->size);
        atomic_store_explicit(&pool->worker[i].range, next << 32 | end, memory_order_release);
    }
    post_epoch(pool);
    run_tasks(&pool->worker[pool->size - 1]);
    wait_change(&pool->finished, finished, INT64_MAX);
}

void parallel_for(struct pool *pool, int64_t n_task, pool_task *run, void *arg)
{
    if (n_task <= 1 || pool->size == 1) {
        for (int64_t i = 0; i < n_task; i++)
            run(arg, i, pool->size - 1);
        return;
    }
    pool->run = run;
    pool->arg = arg;
    for (int64_t first = 0; first < n_task; first += MAX_TASK) {
        run_round(pool, first, min_i64(n_task - first, MAX_TASK));
    }
}
