/* engine_fault_test.c - what happens to requests when something breaks.
 *
 * The linker puts this file between the engine and the model, and between everything and the
 * allocator (--wrap): a step can give logits that are not numbers, fail, or hang; an allocation
 * can fail, each in turn. Who is hit gets a sentence, everybody else the same bits as ever, and
 * no block stays held. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "engine_helper.h"

pm_status __real_model_begin(struct model *m, const struct batch *b);
pm_status __real_model_end(struct model *m, float *logits);
pm_status __wrap_model_begin(struct model *m, const struct batch *b);
pm_status __wrap_model_end(struct model *m, float *logits);
bool __wrap_model_overlaps(const struct model *m);
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);

static void wait_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* ------------------------------------------------------------------ the model */

enum fault { FAULT_NONE, FAULT_NAN, FAULT_FAIL, FAULT_FAIL_LATE, FAULT_HANG };

static struct {
    atomic_int fault, countdown; /* steps until it happens */
    int now;                     /* in the step in flight; the engine's thread */
    atomic_bool hanging, go_on;
} model_fault;

static void break_model(enum fault fault, int countdown)
{
    atomic_store(&model_fault.countdown, countdown);
    atomic_store(&model_fault.go_on, false);
    atomic_store(&model_fault.fault, fault);
}

/* Whether the fault is due in the step that begins now. */
static bool is_due(const struct batch *b)
{
    int fault = atomic_load(&model_fault.fault);
    if (fault == FAULT_NONE || atomic_fetch_sub(&model_fault.countdown, 1) > 0) return false;
    return fault != FAULT_NAN || b->n_out >= 2;
}

pm_status __wrap_model_begin(struct model *m, const struct batch *b)
{
    int fault = FAULT_NONE;
    if (is_due(b)) fault = atomic_exchange(&model_fault.fault, FAULT_NONE);
    if (fault == FAULT_FAIL) return fail(PM_ERR_DEVICE, "the device fell off its bus");
    model_fault.now = fault;
    return __real_model_begin(m, b);
}

pm_status __wrap_model_end(struct model *m, float *logits)
{
    size_t vocab = (size_t)model_config(m)->vocab;
    if (model_fault.now == FAULT_FAIL_LATE) {
        return fail(PM_ERR_DEVICE, "the device fell off its bus");
    }
    atomic_store(&model_fault.hanging, model_fault.now == FAULT_HANG);
    while (model_fault.now == FAULT_HANG && !atomic_load(&model_fault.go_on)) {
        wait_ms(1);
    }
    atomic_store(&model_fault.hanging, false);
    TRY(__real_model_end(m, logits));
    if (model_fault.now == FAULT_NAN) logits[vocab + 5] = NAN; /* the second output */
    return PM_OK;
}

/* Engines opened while this is set tell a step while the next is computed. */
static bool pretend_to_overlap;

bool __wrap_model_overlaps(const struct model *m)
{
    (void)m;
    return pretend_to_overlap;
}

static void submit_all(pm_engine *e, struct heard *h)
{
    for (int i = 0; i < N_PROMPT; i++) {
        pm_params p = params_of(i);
        submit(e, &h[i], prompts[i], &p);
    }
}

/* Everything works as if nothing had happened. */
static void serves_on(pm_engine *e, struct heard *h)
{
    const struct heard *want = heard_alone();
    submit_all(e, h);
    for (int i = 0; i < N_PROMPT; i++) {
        finish(&h[i]);
        same(&want[i], &h[i], i);
    }
    nothing_held(e);
}

static void logits_that_are_not_numbers_end_their_request_alone(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(N_PROMPT, sizeof *h);
    const struct heard *want = heard_alone();
    int n_failed = 0;
    (void)state;
    break_model(FAULT_NAN, 5);
    submit_all(e, h);
    for (int i = 0; i < N_PROMPT; i++) {
        if (finish_status(&h[i]) == PM_OK) {
            same(&want[i], &h[i], i);
        } else {
            n_failed++;
            assert_int_equal(h[i].status, PM_ERR_DEVICE);
            assert_non_null(strstr(h[i].error, "token 5 has"));
            assert_non_null(strstr(pm_last_error(), "token 5 has"));
        }
    }
    assert_int_equal(n_failed, 1);
    nothing_held(e);
    serves_on(e, h);
    pm_engine_close(e);
    free(h);
}

static void a_failed_step_ends_who_runs_and_the_engine_goes_on(void **state)
{
    static const char *const pairs[] = {"max-seqs", "4", NULL};
    pm_engine *e = open_engine(pairs);
    struct heard *h = calloc(N_PROMPT, sizeof *h);
    const struct heard *want = heard_alone();
    int n_failed = 0;
    (void)state;
    for (int step = 0; step < 9; step += 4) {
        n_failed = 0;
        break_model(step == 4 ? FAULT_FAIL_LATE : FAULT_FAIL, step);
        submit_all(e, h);
        for (int i = 0; i < N_PROMPT; i++) {
            if (finish_status(&h[i]) == PM_OK) {
                same(&want[i], &h[i], i);
            } else {
                n_failed++;
                assert_int_equal(h[i].status, PM_ERR_DEVICE);
                assert_string_equal(h[i].error, "the device fell off its bus");
            }
        }
        assert_true(n_failed >= 1 && n_failed <= 4); /* those that waited ran later */
        nothing_held(e);
    }
    serves_on(e, h);
    pm_engine_close(e);
    free(h);
}

static void a_stuck_device_is_seen_and_nobody_else_gets_stuck(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(2, sizeof *h);
    pm_params p = params_of(1);
    pm_stats s;
    (void)state;
    pm_engine_stats(e, &s);
    assert_int_equal(s.step_age_us, 0);
    break_model(FAULT_HANG, 3);
    submit(e, &h[0], prompts[0], &p);
    while (!atomic_load(&model_fault.hanging)) {
        wait_ms(1);
    }
    wait_ms(60);
    pm_engine_stats(e, &s);
    assert_true(s.step_age_us >= 50000);
    assert_int_equal(s.n_running, 1);
    submit(e, &h[1], prompts[1], &p); /* is not held up */
    pm_cancel(h[0].request);
    pm_engine_stats(e, &s);
    assert_true(s.n_waiting == 1 && h[0].n_end == 0);
    atomic_store(&model_fault.go_on, true);
    for (int i = 0; i < 2; i++) {
        finish(&h[i]);
    }
    assert_int_equal(h[0].result.finish, PM_FINISH_CALLER);
    assert_int_equal(h[1].n, p.max_tokens);
    for (int i = 0; s.step_age_us; i++) { /* it becomes idle soon */
        wait_ms(1);
        pm_engine_stats(e, &s);
        assert_true(i < 5000);
    }
    nothing_held(e);
    pm_engine_close(e);
    free(h);
}

/* ------------------------------------------------------------------ the allocator */

/* Allocations until one fails, on this thread or on all; negative: none does. */
static _Thread_local int own_countdown = -1;
static atomic_int all_countdown = -1;

static bool fails_now(void)
{
    int all = atomic_load(&all_countdown);
    if (own_countdown >= 0 && own_countdown-- == 0) return true;
    return all >= 0 && atomic_fetch_sub(&all_countdown, 1) == 0;
}

void *__wrap_malloc(size_t n)
{
    return fails_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails_now() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    return fails_now() ? NULL : __real_aligned_alloc(alignment, n);
}

static pm_params rich_params(void)
{
    static const char *const stop[] = {"no such text", "nor this"};
    static const pm_logit_bias bias = {3, -1};
    pm_params p = params_of(1);
    p.stop = stop;
    p.n_stop = 2;
    p.bias = &bias;
    p.n_bias = 1;
    p.n_logprob = 4;
    p.schema = "{\"type\":\"integer\"}";
    p.n_schema = strlen(p.schema);
    p.n_prompt_logprob = 2;
    return p;
}

static void every_allocation_of_a_submission_may_fail(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(1, sizeof *h);
    pm_params p = rich_params();
    int32_t id[] = {5, 6, 7, 8};
    pm_status status = PM_ERR_NOMEM;
    int n = 0;
    (void)state;
    for (; status != PM_OK; n++) {
        own_countdown = n;
        status = submit_ids(e, h, id, 4, &p);
        own_countdown = -1;
        if (status == PM_OK) break;
        assert_int_equal(status, PM_ERR_NOMEM);
        assert_null(h->request);
        nothing_held(e);
    }
    assert_true(n > 8);
    finish(h);
    assert_int_equal(h->n_prompt, 4);
    pm_engine_close(e);
    free(h);
}

/* On the engine's thread only text can need memory: who gets none ends, the others do not. */
static void every_allocation_of_a_generation_may_fail(void **state)
{
    enum { MAX_N = 100 };
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(3, sizeof *h);
    const struct heard *want = heard_alone();
    int n = 0, left = 0, n_hit = 0;
    (void)state;
    for (; n < MAX_N && left <= 0; n++) {
        for (int i = 0; i < 2; i++) {
            pm_params p = params_of(i);
            submit(e, &h[i], prompts[i], &p);
        }
        atomic_store(&all_countdown, n);
        for (int i = 0; i < 2; i++) {
            if (finish_status(&h[i]) == PM_OK) {
                same(&want[i], &h[i], i);
            } else {
                n_hit++;
                assert_int_equal(h[i].status, PM_ERR_NOMEM);
            }
        }
        left = atomic_exchange(&all_countdown, -1) + 1;
        nothing_held(e);
    }
    /* Text grows its buffers; the hundred steps take nothing. */
    assert_true(n < 32);
    assert_true(n_hit > 0);
    pm_engine_close(e);
    free(h);
}

/* ------------------------------------------------------------------ overlap */

static void telling_late_changes_nothing(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(N_PROMPT, sizeof *h);
    (void)state;
    for (int i = 0; i < 3; i++) {
        serves_on(e, h);
    }
    pm_engine_close(e);
    free(h);
}

/* Stop texts, callbacks that want no more, and cancels, found while the next row is computed.
 */
static void who_ends_while_the_next_row_is_computed_ends_once(void **state)
{
    static const char *const stop[] = {"e"};
    static const char *const pairs[] = {"kv-tokens", "96", NULL};
    pm_engine *e = open_engine(pairs);
    struct heard *h = calloc(N_PROMPT, sizeof *h);
    const struct heard *want = heard_alone();
    (void)state;
    for (int i = 0; i < N_PROMPT; i++) {
        pm_params p = params_of(i);
        if (i % 4 == 1) {
            p.stop = stop;
            p.n_stop = 1;
        }
        h[i].stop_after = i % 4 == 2 ? 5 : i % 4 == 3 ? 7 : 0;
        h[i].cancel = i % 4 == 3;
        submit(e, &h[i], prompts[i], &p);
    }
    for (int i = 0; i < N_PROMPT; i++) {
        pm_finish finish_of[] = {PM_FINISH_LENGTH, PM_FINISH_STOP, PM_FINISH_CALLER,
                                 PM_FINISH_CALLER};
        finish(&h[i]);
        assert_int_equal(h[i].result.finish, finish_of[i % 4]);
        assert_memory_equal(h[i].id, want[i].id, (size_t)h[i].n * sizeof *h[i].id);
        if (i % 4 == 0) same(&want[i], &h[i], i);
        if (i % 4 == 1) assert_null(memchr(h[i].text, 'e', h[i].n_text));
        if (i % 4 == 2) assert_int_equal(h[i].n, 5);
        if (i % 4 == 3) assert_true(h[i].n == 7 || h[i].n == 8); /* one was on its way */
    }
    nothing_held(e);
    pm_engine_close(e);
    free(h);
}

static int overlap(void **state)
{
    (void)state;
    pretend_to_overlap = true;
    return 0;
}

static int no_overlap(void **state)
{
    (void)state;
    pretend_to_overlap = false;
    return 0;
}

/* Each test on a device that computes while the host tells, too. */
#define BOTH(test)                                                                             \
    cmocka_unit_test(test),                                                                    \
    {                                                                                          \
#test " (overlap)", test, overlap, no_overlap, NULL                                    \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(logits_that_are_not_numbers_end_their_request_alone),
        BOTH(a_failed_step_ends_who_runs_and_the_engine_goes_on),
        BOTH(a_stuck_device_is_seen_and_nobody_else_gets_stuck),
        BOTH(every_allocation_of_a_submission_may_fail),
        BOTH(every_allocation_of_a_generation_may_fail),
        BOTH(telling_late_changes_nothing),
        BOTH(who_ends_while_the_next_row_is_computed_ends_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
