/* scheduler_test.c - the scheduler against a naive model, under random operations.
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

/* ------------------------------------------------------------------ single promises */

struct small {
    struct scheduler s;
    struct scheduler_options o;
    struct live *live; /* [MAX_LIVE] */
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
    t.live = calloc(MAX_LIVE, sizeof *t.live);
    assert_non_null(t.live);
    return t;
}

static void close_small(struct small *t)
{
    for (int i = 0; i < t->n; i++) {
        if (t->live[i].r.token != t->live[i].token) {
            free(t->live[i].r.token);
            free(t->live[i].r.block);
        }
    }
    scheduler_close(&t->s);
    free(t->live);
}

/* A request of n_prompt tokens that are its own unless `same`, and n_new new ones. */
static struct schedule_request *add(struct small *t, int n_prompt, int n_new, int priority,
                                    uint64_t key, int same)
{
    struct live *l = &t->live[t->n++];
    struct schedule_request *r = &l->r;
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
    struct world w = {.random = 7};
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
        if (busy) us = below(&w, 8) ? us * (20 + below(&w, 161)) / 100 : us * 10;
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
        cmocka_unit_test(random_operations_keep_every_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
