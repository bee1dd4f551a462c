/* scheduler.c - admission, preemption and the rows of a step.
 *
 * Blocks for all tokens that a request has are taken when it is seated, so a prompt that has
 * begun never waits for memory; a decode row takes one block each KV_BLOCK tokens, and only
 * then somebody can be preempted. All that happens before the step is planned: a planned row is
 * computed.
 *
 * A block is published when its last row is planned, before it is computed: within a step each
 * layer writes the keys of all rows before any row attends, so that another request may read
 * them in the same step. Sixteen answers to one new prompt compute it once.
 *
 * How many rows prompts may have beside running sequences is controlled, not modelled: the cost
 * of a row depends on how many experts its neighbours visit. Steps without prompts are timed by
 * number of sequences; what a step with prompts took above that, against what `stretch` allows,
 * shrinks the next piece or lets it grow. Where more prompts wait than sequences run, as at the
 * beginning of a burst, the limit rises with their ratio: few must not make many wait. Every
 * MEASURE_EVERY such steps one leaves prompts out to measure again. */
#include "scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 16,
    QUANTUM = 512,    /* tokens of a key's turn */
    LEAST_CHUNK = 16, /* prompt rows beside decode rows, so that prompts never stand still */
    FIRST_CHUNK = 32, /* before anything was measured */
    MEASURE_EVERY = 64,
    OLDEST_SHARE = 4 /* one part in so many is for the prompt that was seated first */
};

static const double MOST_GROWTH = 1.25; /* of a piece, from step to step */

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

/* ------------------------------------------------------------------ blocks */

/* The last block first, so that the end of a prompt is reused before its beginning. */
static void drop_blocks(struct scheduler *s, struct schedule_request *r)
{
    while (r->n_block > 0) {
        kvcache_drop(&s->cache, r->block[--r->n_block]);
    }
    r->n_past = r->n_known = 0;
    r->reserved = false;
}

static struct siphash next_prefix(const struct scheduler *s, const struct schedule_request *r)
{
    struct {
        struct siphash before;
        uint64_t key;
        int32_t token[BLOCK];
    } link = {.key = r->key};
    if (r->n_known) link.before = r->prefix;
    memcpy(link.token, r->token + (size_t)r->n_known * BLOCK, sizeof link.token);
    return siphash(s->o.secret, &link, sizeof link);
}

/* Tokens of the cache that may be used: the last token is always computed. */
static int32_t usable_blocks(const struct scheduler *s, const struct schedule_request *r)
{
    return s->o.prefix_cache && !r->every_row ? (r->n_token - 1) / BLOCK : 0;
}

/* Follows the chain over blocks that are known to the cache; those that r holds in their place
 * are given back. Returns how many there were. */
static int32_t use_prefix(struct scheduler *s, struct schedule_request *r)
{
    int32_t most = usable_blocks(s, r), n_found = 0;
    while (r->n_past == r->n_known * BLOCK && r->n_known < most) {
        struct siphash hash = next_prefix(s, r);
        int32_t block = kvcache_find(&s->cache, hash);
        if (block < 0) break;
        kvcache_hold(&s->cache, block);
        if (r->n_known < r->n_block) {
            kvcache_drop(&s->cache, r->block[r->n_known]);
        } else {
            r->n_block++;
        }
        r->block[r->n_known++] = block;
        r->prefix = hash;
        r->n_past += BLOCK;
        n_found++;
    }
    return n_found;
}

/* Found tokens are told of a request's first run only. */
static void count_found(struct scheduler *s, struct schedule_request *r, int32_t n_block)
{
    if (r->n_preempted) return;
    r->n_cached += n_block * BLOCK;
    s->count.prefix_hits += (uint64_t)n_block * BLOCK;
}

/* Makes the blocks known that end at or before n_past. */
static void publish(struct scheduler *s, struct schedule_request *r)
{
    while (s->o.prefix_cache && (r->n_known + 1) * BLOCK <= r->n_past) {
        r->prefix = next_prefix(s, r);
        kvcache_publish(&s->cache, r->block[r->n_known], r->prefix);
        r->n_known++;
    }
}

/* Takes blocks until r holds n; false: there are too few. */
static bool take_blocks(struct scheduler *s, struct schedule_request *r, int32_t n)
{
    if (n - r->n_block > s->cache.n_free) return false;
    while (r->n_block < n) {
        r->block[r->n_block++] = kvcache_take(&s->cache);
    }
    return true;
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
    drop_blocks(s, r);
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
        while (!take_blocks(s, r, scheduler_blocks(r->n_token))) {
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
    int32_t want = room_of(r), spare = s->count.n_running, n_found = use_prefix(s, r);
    if (want - r->n_block + spare > s->cache.n_free || !take_blocks(s, r, want)) {
        drop_blocks(s, r);
        return false;
    }
    r->reserved = must_reserve(r);
    count_found(s, r, n_found);
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
        if (usable_blocks(s, r)) s->count.prefix_queries += (uint64_t)r->n_prompt;
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

/* ------------------------------------------------------------------ the step */

static int bin_of(int32_t n)
{
    int bin = 0;
    while (n > 1 && bin + 1 < SCHEDULE_BINS) {
        n /= 2;
        bin++;
    }
    return bin;
}

static bool decodes(const struct schedule_request *r)
{
    return r->n_past + 1 == r->n_token && r->n_past >= r->n_prompt;
}

/* Adds rows of r to the step. */
static void plan_part(struct scheduler *s, struct schedule_request *r, int32_t n)
{
    struct schedule_plan *p = &s->plan;
    struct schedule_part part = {r, r->n_past, n, r->n_past + n == r->n_token};
    if (n == 0) return;
    if (decodes(r)) {
        p->n_decode++;
    } else {
        p->n_prefill += n;
        s->count.prompt_tokens += (uint64_t)n;
    }
    p->part[p->n_part++] = part;
    p->n_row += n;
    p->n_out += r->every_row ? n : part.sample;
    r->n_past += n;
    publish(s, r);
}

/* The lower priority number first, then the shorter rest. */
static bool goes_before(const struct schedule_request *a, const struct schedule_request *b)
{
    if (a->priority != b->priority) return a->priority < b->priority;
    return a->n_token - a->n_past < b->n_token - b->n_past;
}

/* The running whose prompts are not computed yet, in the order of their shares; equals as they
 * were seated. */
static int32_t sort_prefills(struct scheduler *s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->count.n_running; i++) {
        struct schedule_request *r = s->running[i];
        int32_t at = n;
        if (r->n_past == r->n_token) continue; /* its decode row is planned */
        for (; at > 0 && goes_before(r, s->order[at - 1]); at--) {
            s->order[at] = s->order[at - 1];
        }
        s->order[at] = r;
        n++;
    }
    return n;
}

/* Prompt rows that the step may have. */
static int32_t prefill_budget(struct scheduler *s, int32_t n_prompt)
{
    struct schedule_plan *p = &s->plan;
    int32_t left = s->o.max_row - p->n_row;
    if (p->n_decode == 0 || s->o.stretch <= 0) return left;
    if (s->n_mixed >= MEASURE_EVERY || s->decode_us[bin_of(p->n_decode)] <= 0) return 0;
    if (n_prompt > p->n_decode) p->prompts = (double)n_prompt / p->n_decode;
    return (int32_t)min_i64(left, (int64_t)(s->chunk * p->prompts));
}

/* Of at most n rows of r those whose outputs the step has room for; each of the running that is
 * not planned yet may need one. */
static int32_t piece(const struct scheduler *s, const struct schedule_request *r, int32_t n)
{
    int32_t n_out = s->o.max_out - s->plan.n_out - (s->count.n_running - s->plan.n_part - 1);
    n = (int32_t)min_i64(n, r->n_token - r->n_past);
    return r->every_row ? (int32_t)min_i64(n, n_out) : n;
}

/* Short rests go first, so that a long prompt does not hold them up; but a share of each step
 * belongs to the one that was seated first, so that short ones do not starve it. */
static void plan_prefill(struct scheduler *s)
{
    int32_t n = sort_prefills(s), left = n ? prefill_budget(s, n) : 0, share;
    struct schedule_request *oldest = NULL;
    for (int32_t i = 0; i < n; i++) {
        struct schedule_request *r = s->order[i];
        if (!oldest || (r->priority == oldest->priority && r->turn < oldest->turn)) oldest = r;
    }
    share = (left + OLDEST_SHARE - 1) / OLDEST_SHARE;
    for (int32_t i = 0; i < n && left > 0; i++) {
        struct schedule_request *r = s->order[i];
        int32_t rows;
        if (r == oldest) share = 0;
        count_found(s, r, use_prefix(s, r));
        rows = piece(s, r, left - share);
        plan_part(s, r, rows);
        left -= rows;
    }
}

const struct schedule_plan *scheduler_plan(struct scheduler *s)
{
    struct schedule_part *part = s->plan.part;
    s->plan = (struct schedule_plan){.part = part, .prompts = 1};
    for (int32_t i = 0; i < s->count.n_running; i++) {
        if (decodes(s->running[i])) plan_part(s, s->running[i], 1);
    }
    plan_prefill(s);
    return &s->plan;
}

/* Learns from a step's time how many prompt rows the next may have beside others. */
static void learn(struct scheduler *s, double us)
{
    const struct schedule_plan *p = &s->plan;
    double *known = &s->decode_us[bin_of(p->n_decode)], allowed, ratio;
    if (p->n_decode == 0) return;
    if (p->n_prefill == 0) {
        *known = *known > 0 ? *known + (us - *known) / 8 : us;
        s->n_mixed = 0;
        return;
    }
    s->n_mixed++;
    allowed = *known * s->o.stretch * p->prompts;
    if (allowed <= 0 || us <= 0) return;
    /* What the rows of prompts may take, by what they took. */
    ratio = us > *known ? (allowed - *known) / (us - *known) : MOST_GROWTH;
    /* A piece under the limit says nothing of what a full one would take. */
    if (ratio > 1 && p->n_prefill < (int32_t)(s->chunk * p->prompts)) return;
    ratio = ratio < 0.5 ? 0.5 : ratio > MOST_GROWTH ? MOST_GROWTH : ratio;
    s->chunk *= ratio;
    if (s->chunk < LEAST_CHUNK) s->chunk = LEAST_CHUNK;
    if (s->chunk > s->o.max_row) s->chunk = s->o.max_row;
}

void scheduler_done(struct scheduler *s, int64_t us)
{
    s->count.n_step++;
    learn(s, (double)us);
    for (int32_t i = 0; i < s->plan.n_part; i++) {
        const struct schedule_part *p = &s->plan.part[i];
        struct schedule_request *r = p->request;
        if (p->sample) r->flow->deficit--;
        r->n_done = (int32_t)max_i64(r->n_done, min_i64(r->n_past, r->n_prompt));
    }
    s->plan.n_part = 0;
}

void scheduler_failed(struct scheduler *s)
{
    kvcache_forget(&s->cache);
    s->plan.n_part = 0;
}

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
