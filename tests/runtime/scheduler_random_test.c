/* scheduler_random_test.c - the scheduler against a naive model, under random operations.
 *
 * The model keeps what the cache would hold: for each slot of each block a number that depends
 * on the token there, on all before it, and on the key. A planned row writes its number and
 * then must find the right ones before it. So a wrong block, a block given to two writers, a
 * prefix of another key, a stale one, or one that is written again, all show as a wrong number.
 * Holders of every block are counted again after every operation.
 *
 * POLYMATH_TEST_OPERATIONS and POLYMATH_TEST_SEED change how much is done and what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#include "runtime/engine/scheduler.h"

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { N_OPERATION = 60000 };
#else
enum { N_OPERATION = 1000000 };
#endif

enum { BLOCK = 16, MAX_LIVE = 64, MAX_TOKEN = 160, MAX_BLOCK = 64, N_KEY = 4 };

struct live {
    struct schedule_request r;
    int32_t token[MAX_TOKEN + 1], block[MAX_TOKEN / BLOCK + 1];
    bool used, ending;
    int64_t submit_step, seen_step; /* seen: rows were planned */
};

struct world {
    struct scheduler s;
    struct scheduler_options o;
    struct live live[MAX_LIVE];
    uint64_t slot[MAX_BLOCK * BLOCK];
    uint64_t random;
    int64_t now, n_step;
    int n_finished, n_late, n_cancelled, n_full, most_preempted;
    int64_t longest_wait;
};

static uint64_t next_random(struct world *w)
{
    uint64_t x = w->random += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static int below(struct world *w, int n)
{
    return (int)(next_random(w) % (uint64_t)n);
}

static struct live *live_of(struct schedule_request *r)
{
    return (struct live *)(void *)r;
}

/* The number of the prefix that ends with token `position`. */
static uint64_t chain(uint64_t before, int32_t token, uint64_t key)
{
    uint64_t x = (before ^ (uint64_t)token << 32 ^ key) * 0xff51afd7ed558ccdu;
    return x ^ x >> 33;
}

/* ------------------------------------------------------------------ what must hold always */

static void check_blocks(const struct world *w)
{
    const struct kvcache *c = &w->s.cache;
    int holders[MAX_BLOCK] = {0}, n_free = 0, n_cached = 0, n_list = 0;
    for (int i = 0; i < MAX_LIVE; i++) {
        const struct schedule_request *r = &w->live[i].r;
        if (!w->live[i].used) continue;
        if (r->state == SCHEDULE_WAITING) assert_int_equal(r->n_block, 0);
        for (int b = 0; b < r->n_block; b++) {
            assert_true(r->block[b] >= 0 && r->block[b] < c->n_block);
            holders[r->block[b]]++;
        }
    }
    for (int b = 0; b < c->n_block; b++) {
        if (holders[b] != c->block[b].n_holder) {
            FAIL("block %d has %d holders, counted %d", b, c->block[b].n_holder, holders[b]);
        }
        n_free += holders[b] == 0;
        n_cached += holders[b] == 0 && c->block[b].published;
    }
    for (int b = c->block[c->n_block].next; b != c->n_block; b = c->block[b].next) {
        assert_int_equal(holders[b], 0);
        n_list++;
    }
    assert_int_equal(n_free, c->n_free);
    assert_int_equal(n_free, n_list);
    assert_int_equal(n_cached, c->n_cached);
}

static void check_counts(const struct world *w)
{
    const struct scheduler_counts *c = &w->s.count;
    int running = 0, waiting = 0, again = 0, flows = 0, members = 0;
    int64_t tokens = 0;
    const struct schedule_flow *f = w->s.ring;
    for (int i = 0; i < MAX_LIVE; i++) {
        const struct schedule_request *r = &w->live[i].r;
        if (!w->live[i].used) continue;
        running += r->state == SCHEDULE_RUNNING;
        if (r->state != SCHEDULE_WAITING) continue;
        waiting += !r->start_us;
        again += r->start_us != 0;
        tokens += r->start_us ? 0 : r->n_prompt;
    }
    assert_int_equal(running, c->n_running);
    assert_int_equal(waiting, c->n_waiting);
    assert_int_equal(again, c->n_preempted_waiting);
    assert_int_equal(tokens, c->n_waiting_token);
    assert_true(running <= w->o.max_seq && waiting <= w->o.max_waiting);
    if (f) {
        do {
            assert_true(f->next->previous == f);
            assert_true(f->n_request > 0);
            flows++;
            members += f->n_request;
            f = f->next;
        } while (f != w->s.ring);
    }
    assert_int_equal(members, running + waiting + again);
}

/* ------------------------------------------------------------------ operations */

/* Prompts begin like few others, so that prefixes meet. */
static void do_submit(struct world *w)
{
    struct live *l = NULL;
    struct schedule_request *r;
    int family = below(w, 3), same = below(w, 80), n_new;
    bool full;
    pm_status status;
    for (int i = 0; i < MAX_LIVE && !l; i++) {
        if (!w->live[i].used) l = &w->live[i];
    }
    if (!l) return;
    memset(l, 0, sizeof *l);
    r = &l->r;
    r->token = l->token;
    r->block = l->block;
    r->n_token = r->n_prompt = 1 + below(w, below(w, 4) ? 40 : 120);
    n_new = 1 + below(w, MAX_TOKEN - r->n_prompt);
    r->max_token = r->n_prompt + n_new - 1;
    for (int i = 0; i < r->n_prompt; i++) {
        r->token[i] = i < same ? family * 1000 + i : below(w, 1000) + 5000;
    }
    r->priority = below(w, 4) ? 0 : 1;
    r->key = (uint64_t)below(w, N_KEY);
    r->every_row = below(w, 10) == 0;
    if (below(w, 8) == 0) r->deadline_us = w->now + below(w, 200000);
    full = w->s.count.n_waiting + w->s.count.n_preempted_waiting >= w->o.max_waiting ||
           (w->s.count.n_waiting &&
            w->s.count.n_waiting_token + r->n_prompt > w->o.max_waiting_token);
    status = scheduler_submit(&w->s, r, w->now);
    assert_int_equal(status, full ? PM_ERR_FULL : PM_OK);
    w->n_full += full;
    l->used = !full;
    l->submit_step = l->seen_step = w->n_step;
}

static void do_cancel(struct world *w)
{
    struct live *l = &w->live[below(w, MAX_LIVE)];
    if (l->used) l->r.cancelled = true;
}

static void take_ended(struct world *w)
{
    struct schedule_request *r;
    while ((r = scheduler_take_ended(&w->s)) != NULL) {
        assert_true(r->cancelled || (r->deadline_us && r->deadline_us <= w->now));
        assert_true(r->state == SCHEDULE_NONE && r->n_block == 0);
        w->n_cancelled += r->cancelled;
        w->n_late += r->late && !r->cancelled;
        live_of(r)->used = false;
    }
    for (int i = 0; i < MAX_LIVE; i++) {
        const struct schedule_request *l = &w->live[i].r;
        if (!w->live[i].used) continue;
        assert_false(l->cancelled);
        assert_true(!l->deadline_us || l->deadline_us > w->now);
        if (l->n_preempted > w->most_preempted) w->most_preempted = l->n_preempted;
    }
}

static int64_t slot_of(const struct schedule_request *r, int position)
{
    return (int64_t)r->block[position / BLOCK] * BLOCK + position % BLOCK;
}

/* All rows of a step write before any reads. */
static void write_rows(struct world *w, const struct schedule_plan *p)
{
    for (int i = 0; i < p->n_part; i++) {
        const struct schedule_part *part = &p->part[i];
        const struct schedule_request *r = part->request;
        uint64_t before = 0;
        for (int j = 0; j < part->first + part->n_row; j++) {
            int64_t slot;
            before = chain(before, r->token[j], r->key);
            if (j < part->first) continue;
            slot = slot_of(r, j);
            assert_int_equal(w->s.cache.block[slot / BLOCK].n_holder > 0, 1);
            w->slot[slot] = before;
        }
    }
}

static void read_rows(const struct world *w, const struct schedule_plan *p)
{
    for (int i = 0; i < p->n_part; i++) {
        const struct schedule_part *part = &p->part[i];
        const struct schedule_request *r = part->request;
        uint64_t want = 0;
        for (int j = 0; j < part->first + part->n_row; j++) {
            want = chain(want, r->token[j], r->key);
            if (w->slot[slot_of(r, j)] != want) {
                FAIL("position %d of %d in block %d is not what was computed", j, r->n_token,
                     r->block[j / BLOCK]);
            }
        }
    }
}

static void check_plan(const struct world *w, const struct schedule_plan *p)
{
    int rows = 0, out = 0, decodes = 0;
    for (int i = 0; i < p->n_part; i++) {
        const struct schedule_part *part = &p->part[i];
        const struct schedule_request *r = part->request;
        assert_int_equal(r->state, SCHEDULE_RUNNING);
        assert_true(part->n_row > 0);
        assert_int_equal(part->first + part->n_row, r->n_past);
        assert_int_equal(part->sample, r->n_past == r->n_token);
        assert_true(scheduler_blocks(r->n_past) <= r->n_block);
        /* The last token is always computed: somebody must give its logits. */
        assert_true(part->first < r->n_token);
        rows += part->n_row;
        out += r->every_row ? part->n_row : part->sample;
    }
    for (int i = 0; i < w->s.count.n_running; i++) {
        const struct schedule_request *r = w->s.running[i];
        if (r->n_past == r->n_token) decodes++; /* planned to the end */
    }
    assert_int_equal(rows, p->n_row);
    assert_int_equal(out, p->n_out);
    assert_true(rows <= w->o.max_row && out <= w->o.max_out && p->n_part <= w->o.max_seq);
    assert_true(decodes >= p->n_decode);
    if (w->s.count.n_running) assert_true(p->n_row > 0);
}

/* Nobody of the best priority waits longer than all before him may take. */
static void check_waits(struct world *w, const struct schedule_plan *p)
{
    const int64_t bound = (int64_t)(MAX_LIVE + 1) * MAX_TOKEN;
    for (int i = 0; i < p->n_part; i++) {
        live_of(p->part[i].request)->seen_step = w->n_step;
    }
    for (int i = 0; i < MAX_LIVE; i++) {
        const struct live *l = &w->live[i];
        int64_t wait = w->n_step - l->seen_step;
        if (!l->used || l->r.priority > 0) continue;
        if (wait > w->longest_wait) w->longest_wait = wait;
        if (wait > bound) FAIL("a request got no row for %lld steps", (long long)wait);
    }
}

static void do_step(struct world *w)
{
    const struct schedule_plan *p;
    struct schedule_part part[MAX_LIVE];
    int n;
    scheduler_admit(&w->s, w->now);
    take_ended(w);
    check_blocks(w);
    check_counts(w);
    p = scheduler_plan(&w->s);
    check_plan(w, p);
    write_rows(w, p);
    read_rows(w, p);
    w->n_step++;
    check_waits(w, p);
    n = p->n_part;
    memcpy(part, p->part, (size_t)n * sizeof *part);
    if (below(w, 2000) == 0) { /* the device failed */
        scheduler_failed(&w->s);
        while (w->s.count.n_running) {
            struct schedule_request *r = w->s.running[0];
            scheduler_end(&w->s, r);
            live_of(r)->used = false;
        }
        memset(w->slot, 0xee, sizeof w->slot);
        return;
    }
    scheduler_done(&w->s, 100 + 40 * p->n_decode + below(w, 30) * p->n_prefill);
    for (int i = 0; i < n; i++) {
        struct schedule_request *r = part[i].request;
        if (!part[i].sample) continue;
        r->token[r->n_token++] = below(w, 3) + (below(w, 20) ? 0 : 7000);
        if (r->n_token <= r->max_token && below(w, 60)) continue;
        scheduler_end(&w->s, r);
        live_of(r)->used = false;
        w->n_finished++;
    }
}

static struct world *new_world(uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->random = seed;
    w->now = 1;
    w->o = (struct scheduler_options){.max_row = 8 + below(w, 60),
                                      .max_seq = 1 + below(w, 8),
                                      .context = MAX_TOKEN,
                                      .max_waiting = 1 + below(w, 20),
                                      .max_waiting_token = 100 + below(w, 1000),
                                      .n_block = 12 + below(w, MAX_BLOCK - 12),
                                      .stretch = (float)below(w, 4),
                                      .prefix_cache = below(w, 4) != 0,
                                      .secret = {seed, 1}};
    w->o.max_out = w->o.max_seq + below(w, 10);
    if (scheduler_open(&w->s, &w->o) != PM_OK) FAIL("%s", pm_last_error());
    return w;
}

/* Everybody ends when nobody comes, and nothing is left. */
static void drain(struct world *w)
{
    int64_t end = w->n_step + (int64_t)MAX_LIVE * MAX_TOKEN * (MAX_PREEMPTION + 2);
    while (scheduler_has_work(&w->s)) {
        w->now += 1;
        do_step(w);
        if (w->n_step > end) FAIL("after %lld steps there is still work", (long long)w->n_step);
    }
    check_blocks(w);
    check_counts(w);
    assert_int_equal(w->s.cache.n_free, w->s.cache.n_block);
    assert_null(w->s.ring);
}

static long from_environment(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : otherwise;
}

static void random_operations_keep_every_promise(void **state)
{
    long n = from_environment("POLYMATH_TEST_OPERATIONS", N_OPERATION);
    uint64_t seed = (uint64_t)from_environment("POLYMATH_TEST_SEED", 1);
    long finished = 0, cancelled = 0, late = 0, full = 0, preempted = 0, hits = 0, steps = 0;
    int most = 0;
    int64_t longest = 0;
    (void)state;
    print_message("seed %llu, %ld operations\n", (unsigned long long)seed, n);
    for (long i = 0; i < n; seed++) {
        struct world *w = new_world(seed);
        int hurry = 1 + below(w, 6); /* submissions for a step */
        for (int j = 0; j < 20000 && i < n; j++, i++) {
            int op = below(w, 20);
            w->now += below(w, 100);
            if (op == 0) {
                do_cancel(w);
            } else if (op <= hurry) {
                do_submit(w);
            } else {
                do_step(w);
            }
            check_blocks(w);
            check_counts(w);
        }
        drain(w);
        if (w->most_preempted > most) most = w->most_preempted;
        if (w->longest_wait > longest) longest = w->longest_wait;
        finished += w->n_finished;
        cancelled += w->n_cancelled;
        late += w->n_late;
        full += w->n_full;
        steps += w->n_step;
        preempted += (long)w->s.count.n_preemption;
        hits += (long)w->s.count.prefix_hits;
        scheduler_close(&w->s);
        free(w);
    }
    print_message(
        "%ld steps: %ld finished, %ld cancelled, %ld late, %ld refused, %ld preempted "
        "(at most %d times each), %ld tokens found, longest wait %lld steps\n",
        steps, finished, cancelled, late, full, preempted, most, hits, (long long)longest);
    assert_true(most <= MAX_PREEMPTION);
    assert_true(finished && cancelled && late && full && preempted && hits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_keep_every_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
