/* scheduler.c - queues, admission, preemption.
 *
 * Blocks for all tokens that a request has are taken when it is seated, so a prompt that has
 * begun never waits for memory; a decode row takes one block each KV_BLOCK tokens, and only
 * then somebody can be preempted. All that happens before the step is planned
 * (scheduler_step.c): a planned row is computed. */
#include "scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/engine/scheduler_inside.h"

enum {
    QUANTUM = 512,   /* tokens of a key's turn */
    FIRST_CHUNK = 32 /* prompt rows beside decode rows, before anything was measured */
};

pm_status scheduler_open(struct scheduler *s, const struct scheduler_options *o)
{
    size_t n_seq = (size_t)o->max_seq, n_flow = n_seq + (size_t)o->max_waiting;
    pm_status status;
    memset(s, 0, sizeof *s);
    if (o->max_seq < 1 || o->max_row < o->max_seq || o->max_waiting < 0) {
        return fail(PM_ERR_ARG, "max-seqs: found %d, wanted 1 to the %d rows of a step",
                    o->max_seq, o->max_row);
    }
    s->o = *o;
    s->chunk = FIRST_CHUNK;
    TRY_DONE(kvcache_open(&s->cache, o->n_block));
    TRY_DONE(alloc_array(&s->running, n_seq, sizeof *s->running, "scheduler"));
    TRY_DONE(alloc_array(&s->order, n_seq, sizeof *s->order, "scheduler"));
    TRY_DONE(alloc_array(&s->plan.part, n_seq, sizeof *s->plan.part, "scheduler"));
    TRY_DONE(alloc_array(&s->flow, n_flow, sizeof *s->flow, "scheduler"));
    for (size_t i = 0; i < n_flow; i++) {
        s->flow[i].next = i + 1 < n_flow ? &s->flow[i + 1] : NULL;
    }
    s->free_flow = s->flow;
done:
    if (status != PM_OK) scheduler_close(s);
    return status;
}

void scheduler_close(struct scheduler *s)
{
    kvcache_close(&s->cache);
    free(s->running);
    free(s->order);
    free(s->plan.part);
    free(s->flow);
    memset(s, 0, sizeof *s);
}

/* ------------------------------------------------------------------ queues */

static struct schedule_flow *join_flow(struct scheduler *s, uint64_t key, int32_t priority)
{
    struct schedule_flow *f = s->ring;
    if (f) {
        do {
            if (f->key == key && f->priority == priority) return f;
            f = f->next;
        } while (f != s->ring);
    }
    f = s->free_flow;
    assert(f); /* there are as many as requests */
    s->free_flow = f->next;
    /* A key that comes starts with a turn: it need not wait for the end of a round. */
    *f = (struct schedule_flow){.key = key, .priority = priority, .deficit = QUANTUM};
    if (s->ring) { /* last in the round */
        f->next = s->ring;
        f->previous = s->ring->previous;
        f->previous->next = f->next->previous = f;
    } else {
        s->ring = f->next = f->previous = f;
    }
    return f;
}

static void leave_flow(struct scheduler *s, struct schedule_request *r)
{
    struct schedule_flow *f = r->flow;
    r->flow = NULL;
    if (--f->n_request > 0) return;
    if (s->ring == f) s->ring = f->next == f ? NULL : f->next;
    f->previous->next = f->next;
    f->next->previous = f->previous;
    f->next = s->free_flow;
    s->free_flow = f;
}

static void wait_last(struct schedule_request *r)
{
    struct schedule_flow *f = r->flow;
    r->next = NULL;
    r->previous = f->last;
    *(f->last ? &f->last->next : &f->first) = r;
    f->last = r;
}

static void wait_first(struct schedule_request *r)
{
    struct schedule_flow *f = r->flow;
    r->previous = NULL;
    r->next = f->first;
    *(f->first ? &f->first->previous : &f->last) = r;
    f->first = r;
}

/* A request waits under the queue's bounds until it is seated for the first time. */
static void count_waiting(struct scheduler *s, const struct schedule_request *r, int sign)
{
    if (r->start_us) {
        s->count.n_preempted_waiting += sign;
    } else {
        s->count.n_waiting += sign;
        s->count.n_waiting_token += (int64_t)sign * r->n_prompt;
    }
}

static void leave_queue(struct scheduler *s, struct schedule_request *r)
{
    struct schedule_flow *f = r->flow;
    *(r->previous ? &r->previous->next : &f->first) = r->next;
    *(r->next ? &r->next->previous : &f->last) = r->previous;
    r->next = r->previous = NULL;
    count_waiting(s, r, -1);
}

pm_status scheduler_submit(struct scheduler *s, struct schedule_request *r, int64_t now_us)
{
    int64_t room = min_i64(s->o.context, s->o.n_block * BLOCK);
    assert(r->state == SCHEDULE_NONE && r->n_token == r->n_prompt && r->n_prompt > 0);
    if (r->max_token > room) {
        return fail(PM_ERR_TOO_LONG, "the sequence needs %d tokens, there is room for %lld",
                    r->max_token, (long long)room);
    }
    if (s->count.n_waiting + s->count.n_preempted_waiting >= s->o.max_waiting) {
        return fail(PM_ERR_FULL, "%d requests wait, which is the most",
                    s->count.n_waiting + s->count.n_preempted_waiting);
    }
    if (s->count.n_waiting > 0 &&
        s->count.n_waiting_token + r->n_prompt > s->o.max_waiting_token) {
        return fail(PM_ERR_FULL, "%lld tokens wait, %d more are over the bound of %lld",
                    (long long)s->count.n_waiting_token, r->n_prompt,
                    (long long)s->o.max_waiting_token);
    }
    r->state = SCHEDULE_WAITING;
    r->submit_us = now_us;
    r->flow = join_flow(s, r->key, r->priority);
    r->flow->n_request++;
    wait_last(r);
    count_waiting(s, r, 1);
    return PM_OK;
}

/* ------------------------------------------------------------------ preemption */

static void unseat(struct scheduler *s, struct schedule_request *r)
{
    int32_t i = 0;
    while (s->running[i] != r) {
        i++;
    }
    memmove(s->running + i, s->running + i + 1,
            (size_t)(--s->count.n_running - i) * sizeof *s->running);
    schedule_drop_blocks(s, r);
    r->state = SCHEDULE_NONE;
}

static void preempt(struct scheduler *s, struct schedule_request *r)
{
    unseat(s, r);
    r->state = SCHEDULE_WAITING;
    r->n_preempted++;
    s->count.n_preemption++;
    wait_first(r);
    count_waiting(s, r, 1);
}

/* The last seated among the lowest priority that is at least `least`, but none that holds a
 * reservation; NULL: none. */
static struct schedule_request *victim(const struct scheduler *s, int64_t least)
{
    struct schedule_request *worst = NULL;
    for (int32_t i = 0; i < s->count.n_running; i++) {
        struct schedule_request *r = s->running[i];
        if (r->reserved || r->priority < least) continue;
        if (!worst || r->priority >= worst->priority) worst = r;
    }
    return worst;
}

/* Blocks for the decode rows of all running, the earlier seated first. */
static void grow(struct scheduler *s)
{
    for (int32_t i = 0; i < s->count.n_running; i++) {
        struct schedule_request *r = s->running[i];
        while (!schedule_take_blocks(s, r, scheduler_blocks(r->n_token))) {
            struct schedule_request *worst = victim(s, INT64_MIN);
            assert(worst); /* r itself, at the least */
            preempt(s, worst);
            if (worst->turn <= r->turn) i--; /* those behind it moved up */
            if (worst == r) break;
        }
    }
}

/* ------------------------------------------------------------------ admission */

/* Tokens that a key pays for a request's seat; those generated are paid as they come. Who was
 * preempted has paid. */
static int64_t cost_of(const struct schedule_request *r)
{
    return r->n_preempted ? 0 : r->n_token - r->n_past;
}

/* Rounds that a flow must wait for its first request to be affordable. */
static int64_t rounds(const struct schedule_flow *f)
{
    int64_t missing = cost_of(f->first) - f->deficit;
    return missing <= 0 ? 0 : (missing + QUANTUM - 1) / QUANTUM;
}

/* The flow whose turn it is among those with the lowest priority number: as if the round went
 * on, each flow getting its quantum, until one can pay. */
static struct schedule_flow *next_flow(struct scheduler *s, int64_t *n_round)
{
    struct schedule_flow *best = NULL, *f = s->ring;
    if (!f) return NULL;
    do {
        if (f->first && (!best || f->priority < best->priority ||
                         (f->priority == best->priority && rounds(f) < rounds(best)))) {
            best = f;
        }
        f = f->next;
    } while (f != s->ring);
    if (best) *n_round = rounds(best);
    return best;
}

static void pay_rounds(struct scheduler *s, struct schedule_flow *taken, int64_t n_round)
{
    struct schedule_flow *f = s->ring;
    do {
        if (f->first && f->priority == taken->priority) f->deficit += n_round * QUANTUM;
        f = f->next;
    } while (f != s->ring);
}

static bool must_reserve(const struct schedule_request *r)
{
    return r->n_preempted >= MAX_PREEMPTION;
}

/* Blocks that r needs to run: those of its tokens, or all that it may need when it was
 * preempted too often. */
static int32_t room_of(const struct schedule_request *r)
{
    return scheduler_blocks(must_reserve(r) ? r->max_token : r->n_token);
}

/* Takes them. Beside others a block for each of them stays free. */
static bool take_room(struct scheduler *s, struct schedule_request *r)
{
    int32_t want = room_of(r), spare = s->count.n_running, n_found = schedule_use_prefix(s, r);
    if (want - r->n_block + spare > s->cache.n_free || !schedule_take_blocks(s, r, want)) {
        schedule_drop_blocks(s, r);
        return false;
    }
    r->reserved = must_reserve(r);
    schedule_count_found(s, r, n_found);
    return true;
}

/* Whether r would fit without those of a higher priority number; shared blocks count twice, so
 * this may be too hopeful. */
static bool may_fit(const struct scheduler *s, const struct schedule_request *r)
{
    int64_t n_free = s->cache.n_free, n_left = 0;
    for (int32_t i = 0; i < s->count.n_running; i++) {
        const struct schedule_request *o = s->running[i];
        bool gives_way = !o->reserved && o->priority > r->priority;
        n_free += gives_way ? o->n_block : 0;
        n_left += !gives_way;
    }
    return n_left < s->o.max_seq && room_of(r) + n_left <= n_free;
}

static void seat(struct scheduler *s, struct schedule_request *r, int64_t now_us)
{
    leave_queue(s, r);
    r->state = SCHEDULE_RUNNING;
    r->turn = s->turn++;
    s->running[s->count.n_running++] = r;
    if (!r->start_us) {
        r->start_us = max_i64(now_us, 1);
        if (schedule_usable_blocks(s, r)) s->count.prefix_queries += (uint64_t)r->n_prompt;
    }
}

/* Seats requests while there are seats and blocks. A request of a lower priority number may
 * take the place of running ones of a higher. Nobody overtakes one that waits for blocks. */
static void admit(struct scheduler *s, int64_t now_us)
{
    struct schedule_flow *f;
    int64_t n_round;
    while ((f = next_flow(s, &n_round)) != NULL) {
        struct schedule_request *r = f->first;
        while (s->count.n_running == s->o.max_seq || !take_room(s, r)) {
            struct schedule_request *worst = victim(s, (int64_t)r->priority + 1);
            if (!worst || !may_fit(s, r)) return;
            preempt(s, worst);
        }
        pay_rounds(s, f, n_round);
        f->deficit -= cost_of(r);
        s->ring = f->next; /* the round goes on behind it */
        seat(s, r, now_us);
        /* Who has nothing waiting saves no turns up. */
        if (!f->first) f->deficit = min_i64(f->deficit, 0);
    }
}

/* Takes out who was cancelled or is late. */
static void sweep_one(struct scheduler *s, struct schedule_request *r, int64_t now_us)
{
    r->late = r->deadline_us && now_us >= r->deadline_us;
    if (!r->cancelled && !r->late) return;
    scheduler_end(s, r);
    r->next = s->ended;
    s->ended = r;
}

static void sweep(struct scheduler *s, int64_t now_us)
{
    int32_t n_flow = 0;
    struct schedule_flow *f;
    for (int32_t i = s->count.n_running; i-- > 0;) {
        sweep_one(s, s->running[i], now_us);
    }
    f = s->ring;
    if (!f) return;
    do {
        n_flow++;
        f = f->next;
    } while (f != s->ring);
    for (f = s->ring; n_flow-- > 0;) {
        struct schedule_flow *next_flow_of_ring = f->next; /* f may be gone behind its last */
        for (struct schedule_request *r = f->first, *next; r; r = next) {
            next = r->next;
            sweep_one(s, r, now_us);
        }
        f = next_flow_of_ring;
    }
}

void scheduler_admit(struct scheduler *s, int64_t now_us)
{
    sweep(s, now_us);
    grow(s);
    admit(s, now_us);
}

struct schedule_request *scheduler_take_ended(struct scheduler *s)
{
    struct schedule_request *r = s->ended;
    if (r) {
        s->ended = r->next;
        r->next = NULL;
    }
    return r;
}

/* ------------------------------------------------------------------ ends */

void scheduler_end(struct scheduler *s, struct schedule_request *r)
{
    if (r->state == SCHEDULE_WAITING) {
        leave_queue(s, r);
    } else {
        unseat(s, r);
    }
    r->state = SCHEDULE_NONE;
    leave_flow(s, r);
}

bool scheduler_has_work(const struct scheduler *s)
{
    const struct scheduler_counts *c = &s->count;
    return c->n_running || c->n_waiting || c->n_preempted_waiting || s->ended;
}

void scheduler_cancel_all(struct scheduler *s)
{
    struct schedule_flow *f = s->ring;
    for (int32_t i = 0; i < s->count.n_running; i++) {
        s->running[i]->cancelled = true;
    }
    if (!f) return;
    do {
        for (struct schedule_request *r = f->first; r; r = r->next) {
            r->cancelled = true;
        }
        f = f->next;
    } while (f != s->ring);
}

void scheduler_preempt_all(struct scheduler *s)
{
    while (s->count.n_running > 0) {
        preempt(s, s->running[s->count.n_running - 1]);
    }
    kvcache_forget(&s->cache);
}
