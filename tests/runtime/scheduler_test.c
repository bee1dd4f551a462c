/* scheduler_test.c - what the scheduler promises, one promise at a time;
 * scheduler_random_test.c has them all at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#include "runtime/engine/scheduler.h"

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

enum { BLOCK = 16, MAX_LIVE = 64 };

struct small {
    struct scheduler s;
    struct scheduler_options o;
    struct schedule_request *request; /* [MAX_LIVE] */
    int n;
    int64_t now;
};

static struct small open_small(struct scheduler_options o)
{
    struct small t = {.o = o, .now = 1};
    if (!t.o.context) t.o.context = 4096;
    if (!t.o.max_out) t.o.max_out = t.o.max_seq;
    if (!t.o.max_waiting) t.o.max_waiting = 100;
    if (!t.o.max_waiting_token) t.o.max_waiting_token = 1 << 20;
    if (!t.o.n_block) t.o.n_block = 1000;
    if (scheduler_open(&t.s, &t.o) != PM_OK) FAIL("%s", pm_last_error());
    t.request = calloc(MAX_LIVE, sizeof *t.request);
    assert_non_null(t.request);
    return t;
}

static void close_small(struct small *t)
{
    for (int i = 0; i < t->n; i++) {
        free(t->request[i].token);
        free(t->request[i].block);
    }
    scheduler_close(&t->s);
    free(t->request);
}

/* A request of n_prompt tokens that are its own unless `same`, and n_new new ones. */
static struct schedule_request *add(struct small *t, int n_prompt, int n_new, int priority,
                                    uint64_t key, int same)
{
    struct schedule_request *r = &t->request[t->n++];
    assert_true(t->n <= MAX_LIVE);
    r->n_token = r->n_prompt = n_prompt;
    r->max_token = n_prompt + n_new - 1;
    r->token = calloc((size_t)r->max_token + 1, sizeof *r->token);
    r->block = calloc((size_t)scheduler_blocks(r->max_token), sizeof *r->block);
    r->priority = priority;
    r->key = key;
    for (int i = 0; i < n_prompt; i++) {
        r->token[i] = i < same ? i : t->n * 10000 + i;
    }
    assert_int_equal(scheduler_submit(&t->s, r, t->now), PM_OK);
    return r;
}

/* One step that takes `us`, or what `cost` makes of it; ends who is done. Returns the plan. */
static const struct schedule_plan *run_step(struct small *t, int64_t us)
{
    static struct schedule_part part[MAX_LIVE];
    static struct schedule_plan copy;
    scheduler_admit(&t->s, t->now);
    copy = *scheduler_plan(&t->s);
    memcpy(part, copy.part, (size_t)copy.n_part * sizeof *part);
    copy.part = part;
    t->now += us;
    scheduler_done(&t->s, us);
    for (int i = 0; i < copy.n_part; i++) {
        struct schedule_request *r = part[i].request;
        if (!part[i].sample) continue;
        r->token[r->n_token++] = 9;
        if (r->n_token > r->max_token) scheduler_end(&t->s, r);
    }
    return &copy;
}

static const struct schedule_part *part_of(const struct schedule_plan *p,
                                           const struct schedule_request *r)
{
    for (int i = 0; i < p->n_part; i++) {
        if (p->part[i].request == r) return &p->part[i];
    }
    return NULL;
}

static void decode_rows_go_first_and_prompts_share_the_rest(void **state)
{
    struct small t = open_small((struct scheduler_options){.max_row = 32, .max_seq = 4});
    struct schedule_request *a = add(&t, 5, 50, 0, 0, 0), *longer, *shorter;
    const struct schedule_plan *p;
    (void)state;
    run_step(&t, 100);
    longer = add(&t, 100, 5, 0, 0, 0);
    shorter = add(&t, 20, 5, 0, 0, 0);
    p = run_step(&t, 100);
    assert_true(p->part[0].request == a && p->part[0].n_row == 1);
    assert_int_equal(p->n_row, 32);
    /* The shorter gets all it needs, but the one that came first always moves on. */
    assert_int_equal(part_of(p, shorter)->n_row, 20);
    assert_int_equal(part_of(p, longer)->n_row, 11);
    close_small(&t);
}

static void a_long_prompt_moves_on_among_short_ones(void **state)
{
    struct small t = open_small((struct scheduler_options){.max_row = 32, .max_seq = 8});
    struct schedule_request *longer = add(&t, 400, 2, 0, 0, 0);
    int n_step = 0;
    (void)state;
    for (; longer->state != SCHEDULE_NONE; n_step++) {
        if (t.n < MAX_LIVE) add(&t, 30, 1, 0, 0, 0); /* one in each step: it never ends */
        run_step(&t, 100);
        assert_true(n_step < 100);
    }
    assert_true(n_step >= 400 / 32 && n_step <= 400 / 8 + 2);
    close_small(&t);
}

/* How a prompt of 4,000 tokens fares beside 8 sequences: steps, those over twice their time
 * alone, those without the prompt. */
struct passage {
    int n_step, n_over, n_pure;
};

/* Each part that was sampled has its token. */
static void give_tokens(struct small *t, const struct schedule_part *part, int n)
{
    for (int i = 0; i < n; i++) {
        struct schedule_request *r = part[i].request;
        if (!part[i].sample) continue;
        r->token[r->n_token++] = 9;
        if (r->n_token > r->max_token) scheduler_end(&t->s, r);
    }
}

/* A step takes 1 ms, and 50 us for each row of a prompt. On a busy machine it takes up to 80
 * percent more or less, and one in eight ten times as long. */
static struct passage pass_prompt(bool busy)
{
    struct small t =
        open_small((struct scheduler_options){.max_row = 512, .max_seq = 16, .stretch = 2});
    uint32_t random = 7;
    struct schedule_request *prompt;
    struct passage passage = {0};
    for (int i = 0; i < 8; i++) {
        add(&t, 10, 3000, 0, 0, 0);
    }
    for (int i = 0; i < 20; i++) {
        run_step(&t, 1000);
    }
    prompt = add(&t, 4000, 1, 0, 0, 0);
    for (; prompt->state != SCHEDULE_NONE; passage.n_step++) {
        /* What it costs is known once it is planned. */
        struct schedule_part part[MAX_LIVE];
        const struct schedule_plan *p;
        int64_t us;
        int n;
        scheduler_admit(&t.s, t.now);
        p = scheduler_plan(&t.s);
        n = p->n_part;
        us = 1000 + 50 * p->n_prefill;
        if (busy) {
            random = random * 1664525 + 1013904223;
            us = random >> 29 ? us * (20 + (random >> 16) % 161) / 100 : us * 10;
        }
        assert_int_equal(p->n_decode, 8);
        passage.n_over += us > 2100;
        passage.n_pure += p->n_prefill == 0;
        t.now += us;
        memcpy(part, p->part, (size_t)n * sizeof *part);
        scheduler_done(&t.s, us);
        give_tokens(&t, part, n);
        assert_true(passage.n_step < 2900);
    }
    close_small(&t);
    return passage;
}

/* It may double the time of a step, and not more but for the first few; and nearly all that the
 * stretch allows is used. What a step without prompts takes is measured again. */
static void a_long_prompt_does_not_slow_others_beyond_the_stretch(void **state)
{
    struct passage p = pass_prompt(false);
    (void)state;
    assert_true(p.n_over <= p.n_step / 100 + 3);
    assert_true(p.n_pure >= p.n_step / 70);
    assert_true(p.n_step < 4000 / 20 * 3 / 2);
}

/* On a busy machine the time of a step says little about what a row took. */
static void a_busy_machine_does_not_starve_a_long_prompt(void **state)
{
    struct passage p = pass_prompt(true);
    (void)state;
    print_message("%d steps\n", p.n_step);
    assert_true(p.n_step < 4000 / 20 * 3);
}

/* Two keys that always want more, one with few long requests and many short ones the other. */
static void keys_share_tokens_not_requests(void **state)
{
    struct small t = open_small(
        (struct scheduler_options){.max_row = 64, .max_seq = 4, .max_waiting = 1000});
    struct schedule_request *of[2][24];
    int64_t token[2] = {0};
    (void)state;
    for (int i = 0; i < 20; i++) {
        of[0][i] = add(&t, 40, 10, 0, 1, 0);
    }
    for (int i = 0; i < 10; i++) {
        of[1][i] = add(&t, 240, 10, 0, 2, 0);
    }
    /* Until one of them has nothing waiting any more. */
    for (int i = 0; i < 25; i++) {
        run_step(&t, 100);
    }
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < (k ? 10 : 20); i++) {
            token[k] += of[k][i]->start_us ? of[k][i]->n_past : 0;
            token[k] += of[k][i]->state == SCHEDULE_NONE ? of[k][i]->n_token : 0;
        }
    }
    assert_true(token[0] > 0 && token[1] > 0);
    assert_true(token[0] < 3 * token[1] && token[1] < 3 * token[0]);
    close_small(&t);
}

/* Long questions with short answers against short questions with long ones. */
static void answers_are_paid_like_prompts(void **state)
{
    enum { N = 30 };
    struct small t = open_small((struct scheduler_options){.max_row = 64, .max_seq = 4});
    struct schedule_request *of[2][N];
    int n_started[2] = {0};
    (void)state;
    for (int i = 0; i < N; i++) {
        of[0][i] = add(&t, 10, 70, 0, 1, 0);
        of[1][i] = add(&t, 70, 10, 0, 2, 0);
    }
    while (n_started[0] < N && n_started[1] < N && n_started[0] + n_started[1] < 40) {
        run_step(&t, 100);
        for (int k = 0; k < 2; k++) {
            n_started[k] = 0;
            for (int i = 0; i < N; i++) {
                n_started[k] += of[k][i]->start_us > 0;
            }
        }
    }
    /* 80 tokens each, so as many of one kind as of the other, but for a turn of 512 tokens. */
    assert_true(abs(n_started[0] - n_started[1]) <= 512 / 80 + 2);
    close_small(&t);
}

static void a_flood_of_one_key_does_not_hold_up_another(void **state)
{
    struct small t = open_small(
        (struct scheduler_options){.max_row = 64, .max_seq = 2, .max_waiting = 1000});
    struct schedule_request *late;
    int n_step = 0;
    (void)state;
    for (int i = 0; i < 50; i++) {
        add(&t, 60, 20, 0, 1, 0);
    }
    for (int i = 0; i < 5; i++) {
        run_step(&t, 100);
    }
    late = add(&t, 60, 20, 0, 2, 0);
    for (; !late->start_us; n_step++) {
        run_step(&t, 100);
        assert_true(n_step < 200);
    }
    assert_true(n_step <= 25); /* when the next seat is free, not behind fifty */
    close_small(&t);
}

static void a_lower_priority_number_takes_seats(void **state)
{
    struct small t = open_small((struct scheduler_options){.max_row = 64, .max_seq = 2});
    struct schedule_request *a = add(&t, 20, 90, 1, 0, 0), *b = add(&t, 20, 90, 1, 0, 0), *c;
    (void)state;
    run_step(&t, 100);
    run_step(&t, 100);
    c = add(&t, 20, 3, 0, 0, 0);
    run_step(&t, 100);
    assert_int_equal(c->state, SCHEDULE_RUNNING);
    assert_true(a->state == SCHEDULE_RUNNING && b->state == SCHEDULE_WAITING);
    assert_true(b->n_preempted == 1 && a->n_preempted == 0); /* the last in */
    for (int i = 0; i < 10 && b->state == SCHEDULE_WAITING; i++) {
        run_step(&t, 100);
    }
    assert_int_equal(c->state, SCHEDULE_NONE);
    assert_int_equal(b->state, SCHEDULE_RUNNING);
    close_small(&t);
}

/* Memory for one and a half: the later is put back a few times, then gets all it needs. */
static void two_requests_do_not_evict_each_other_for_ever(void **state)
{
    struct small t =
        open_small((struct scheduler_options){.max_row = 64, .max_seq = 2, .n_block = 30});
    struct schedule_request *a = add(&t, 16, 300, 0, 0, 0), *b = add(&t, 16, 300, 0, 0, 0);
    int n_step = 0;
    (void)state;
    for (; scheduler_has_work(&t.s); n_step++) {
        run_step(&t, 100);
        assert_true(n_step < 1000);
    }
    assert_true(a->n_token == 316 && b->n_token == 316);
    assert_true(a->n_preempted == 0 && b->n_preempted >= 1 && b->n_preempted <= MAX_PREEMPTION);
    close_small(&t);
}

static void the_last_token_of_a_cached_prompt_is_computed(void **state)
{
    static const int want[] = {16, 15, 1, 16};
    struct small t = open_small(
        (struct scheduler_options){.max_row = 64, .max_seq = 4, .prefix_cache = true});
    (void)state;
    add(&t, 64, 1, 0, 0, 64);
    run_step(&t, 100);
    for (int i = 0; i < 4; i++) {
        struct schedule_request *r = add(&t,
                                         i == 0   ? 48
                                         : i == 1 ? 47
                                         : i == 2 ? 33
                                                  : 64,
                                         1, 0, 0, 64);
        const struct schedule_plan *p = run_step(&t, 100);
        assert_int_equal(part_of(p, r)->n_row, want[i]);
    }
    assert_int_equal(t.s.count.prefix_hits, 32 + 32 + 32 + 48);
    close_small(&t);
}

static void a_prefix_that_is_being_computed_is_shared(void **state)
{
    struct small t = open_small(
        (struct scheduler_options){.max_row = 40, .max_seq = 4, .prefix_cache = true});
    struct schedule_request *a = add(&t, 100, 1, 0, 0, 100), *b = add(&t, 100, 1, 0, 0, 100);
    int rows = 0;
    (void)state;
    for (int i = 0; scheduler_has_work(&t.s); i++) {
        rows += run_step(&t, 100)->n_row;
        assert_true(i < 10);
    }
    assert_true(a->state == SCHEDULE_NONE && b->state == SCHEDULE_NONE);
    assert_true(rows <= 100 + 16);
    close_small(&t);
}

static void who_was_put_back_finds_what_it_had(void **state)
{
    struct small t = open_small(
        (struct scheduler_options){.max_row = 80, .max_seq = 1, .prefix_cache = true});
    struct schedule_request *a = add(&t, 70, 20, 1, 0, 0), *b;
    (void)state;
    for (int i = 0; i < 13; i++) { /* to 83 tokens */
        run_step(&t, 100);
    }
    b = add(&t, 20, 1, 0, 0, 0);
    run_step(&t, 100);
    assert_true(b->state == SCHEDULE_NONE && a->n_preempted == 1);
    assert_int_equal(part_of(run_step(&t, 100), a)->n_row, 83 - 80);
    close_small(&t);
}

/* When somebody seated before gives way, who follows still gets its block in the same step. */
static void nobody_is_passed_over_when_another_gives_way(void **state)
{
    struct small t =
        open_small((struct scheduler_options){.max_row = 80, .max_seq = 3, .n_block = 7});
    struct schedule_request *a = add(&t, 20, 50, 1, 0, 0), *b, *c;
    (void)state;
    run_step(&t, 100);
    b = add(&t, 16, 40, 0, 0, 0);
    c = add(&t, 16, 40, 0, 0, 0);
    while (a->n_preempted == 0) {
        run_step(&t, 100);
        assert_true(c->state == SCHEDULE_RUNNING);
    }
    assert_true(b->n_block == 3 && c->n_block == 3);
    assert_true(b->n_preempted == 0 && c->n_preempted == 0);
    close_small(&t);
}

static void jobs_put_everybody_back(void **state)
{
    struct small t = open_small(
        (struct scheduler_options){.max_row = 40, .max_seq = 4, .prefix_cache = true});
    struct schedule_request *a = add(&t, 40, 30, 0, 0, 40);
    (void)state;
    for (int i = 0; i < 5; i++) {
        run_step(&t, 100);
    }
    scheduler_preempt_all(&t.s);
    assert_int_equal(t.s.cache.n_free, t.s.cache.n_block);
    assert_int_equal(t.s.cache.n_cached, 0);
    for (int i = 0; scheduler_has_work(&t.s); i++) {
        run_step(&t, 100);
        assert_true(i < 40);
    }
    assert_int_equal(a->n_token, 70);
    close_small(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_rows_go_first_and_prompts_share_the_rest),
        cmocka_unit_test(a_long_prompt_moves_on_among_short_ones),
        cmocka_unit_test(a_long_prompt_does_not_slow_others_beyond_the_stretch),
        cmocka_unit_test(a_busy_machine_does_not_starve_a_long_prompt),
        cmocka_unit_test(keys_share_tokens_not_requests),
        cmocka_unit_test(answers_are_paid_like_prompts),
        cmocka_unit_test(a_flood_of_one_key_does_not_hold_up_another),
        cmocka_unit_test(a_lower_priority_number_takes_seats),
        cmocka_unit_test(two_requests_do_not_evict_each_other_for_ever),
        cmocka_unit_test(the_last_token_of_a_cached_prompt_is_computed),
        cmocka_unit_test(a_prefix_that_is_being_computed_is_shared),
        cmocka_unit_test(who_was_put_back_finds_what_it_had),
        cmocka_unit_test(nobody_is_passed_over_when_another_gives_way),
        cmocka_unit_test(jobs_put_everybody_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
