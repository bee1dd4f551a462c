/* pool_test.c - parallel_for runs each task once, on a worker that does nothing else meanwhile.
 */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/pool.h"

#include <cmocka.h>
#undef fail

enum { MAX_TASKS = 5000, MAX_WORKERS = 32 };

static const int sizes[] = {1, 2, 3, 7, 16};
enum { N_SIZE = sizeof sizes / sizeof *sizes };

struct record {
    _Atomic int n_run[MAX_TASKS];
    _Atomic int n_busy[MAX_WORKERS]; /* tasks that a worker runs at the moment */
    _Atomic int wrong;
    int n_worker;
    int64_t work;   /* turns of a loop in a task */
    int64_t uneven; /* tasks below this number take a hundred times as many */
};

static void spend(int64_t turns)
{
    for (volatile int64_t i = 0; i < turns;)
        i = i + 1;
}

static void record_task(void *arg, int64_t task, int worker)
{
    struct record *r = arg;
    if (worker < 0 || worker >= r->n_worker || atomic_fetch_add(&r->n_busy[worker], 1) != 0) {
        r->wrong++;
        return;
    }
    spend(task < r->uneven ? 100 * r->work : r->work);
    r->n_run[task]++;
    atomic_fetch_sub(&r->n_busy[worker], 1);
}

static void check_round(struct pool *pool, int64_t n_task, int64_t work, int64_t uneven)
{
    struct record *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->n_worker = pool_size(pool);
    r->work = work;
    r->uneven = uneven;
    parallel_for(pool, n_task, record_task, r);
    assert_int_equal(r->wrong, 0);
    for (int64_t i = 0; i < MAX_TASKS; i++)
        assert_int_equal(r->n_run[i], i < n_task);
    free(r);
}

static struct pool *open_pool(int n_thread)
{
    struct pool *pool;
    assert_int_equal(pool_open(&pool, n_thread), PM_OK);
    return pool;
}

static void every_task_runs_once(void **state)
{
    (void)state;
    for (int s = 0; s < N_SIZE; s++) {
        struct pool *pool = open_pool(sizes[s]);
        assert_int_equal(pool_size(pool), sizes[s]);
        for (int64_t n = 0; n < 40; n++)
            check_round(pool, n, 10, 0);
        check_round(pool, MAX_TASKS, 10, 0);
        pool_close(pool);
    }
}

static void unequal_tasks_all_run(void **state)
{
    (void)state;
    for (int s = 0; s < N_SIZE; s++) {
        struct pool *pool = open_pool(sizes[s]);
        for (int64_t uneven = 1; uneven < 200; uneven *= 3) {
            check_round(pool, 200, 500, uneven);
        }
        pool_close(pool);
    }
}

struct count {
    _Atomic int64_t sum;
    int64_t plain; /* written by whoever runs the only task */
};

static void count_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    ((struct count *)arg)->sum += task + 1;
}

static void plain_task(void *arg, int64_t task, int worker)
{
    (void)worker;
    if (task == 0) ((struct count *)arg)->plain++;
}

/* Rounds follow each other at once, with another job and argument each time: a worker that is
 * late for one must not run tasks of the next with what it saw before. What tasks wrote is seen
 * after the round. */
static void rounds_do_not_mix(void **state)
{
    (void)state;
    for (int s = 0; s < N_SIZE; s++) {
        struct pool *pool = open_pool(sizes[s]);
        struct count count[2] = {{0, 0}, {0, 0}};
        for (int64_t i = 0; i < 3000; i++) {
            int64_t n = 1 + i % 9;
            parallel_for(pool, n, i % 2 ? count_task : plain_task, &count[i % 2]);
        }
        int64_t want = 0;
        for (int64_t i = 1; i < 3000; i += 2)
            want += (1 + i % 9) * (2 + i % 9) / 2;
        assert_int_equal(count[1].sum, want);
        assert_int_equal(count[1].plain, 0);
        assert_int_equal(count[0].plain, 1500);
        assert_int_equal(count[0].sum, 0);
        pool_close(pool);
    }
}

/* Longer than a worker spins: it sleeps, and wakes for the next round. */
static void sleeping_workers_wake(void **state)
{
    struct timespec pause = {0, 2000000};
    struct pool *pool = open_pool(3);
    (void)state;
    for (int i = 0; i < 20; i++) {
        nanosleep(&pause, NULL);
        check_round(pool, 64, 1000, 0);
    }
    nanosleep(&pause, NULL);
    pool_close(pool);
}

static void pool_opens_and_closes(void **state)
{
    struct pool *pool = NULL;
    (void)state;
    assert_int_equal(pool_open(&pool, -1), PM_ERR_ARG);
    assert_int_equal(pool_open(&pool, 1025), PM_ERR_ARG);
    assert_null(pool);
    pool_close(NULL);
    for (int i = 0; i < 20; i++)
        pool_close(open_pool(1 + i % 5));
    pool = open_pool(0);
    assert_true(pool_size(pool) >= 1);
    check_round(pool, 100, 10, 0);
    pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),  cmocka_unit_test(unequal_tasks_all_run),
        cmocka_unit_test(rounds_do_not_mix),     cmocka_unit_test(sleeping_workers_wake),
        cmocka_unit_test(pool_opens_and_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
