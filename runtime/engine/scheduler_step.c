/* scheduler_step.c - the rows of a step, and what its time teaches.
 *
 * How many rows prompts may have beside running sequences is measured, not modelled: the cost
 * of a row depends on its place in its prompt and on how many experts its neighbours visit.
 * Steps without prompts are timed by number of sequences; what a step with prompts took above
 * that tells what a row takes, and with it how many rows `stretch` allows. Where several
 * prompts wait, as in a burst, that limit rises with half their number, or beside one sequence
 * with their number: few must not make many wait, and seats whose prompts are not computed give
 * no tokens. And beside few sequences pieces do not become shorter than
 * SHARED_ROWS divided by their number: a row there visits experts that nobody else does, and a
 * long prompt in pieces of one row would read all weights for each of its tokens. Every
 * MEASURE_EVERY such steps one leaves prompts out to measure again. */
#include "runtime/engine/scheduler_inside.h"

enum {
    MEASURE_EVERY = 64,
    SHARED_ROWS = 16, /* prompt rows that a step has at least beside one running sequence */
    LEAST_ROWS = 2,   /* and beside many */
    OLDEST_SHARE = 4  /* one part in so many is for the prompt that was seated first */
};

static const double FADE = 8; /* steps that a measurement counts */
/* A step that takes so many times what it may was held up by others, and counts as no more. */
static const double MOST_OVER = 2;
static const double MOST_GROWTH = 1.25; /* of a piece, from step to step */
/* Of what a step with prompts may take more, so much is aimed at: times vary, and few steps are
 * to be over. */
static const double AIM = 0.75;

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
    schedule_publish(s, r);
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
    if (n_prompt > 2) p->prompts = (double)n_prompt / (double)min_i64(p->n_decode, 2);
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
        schedule_count_found(s, r, schedule_use_prefix(s, r));
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

/* A mean that follows. */
static void follow(double *mean, double x)
{
    *mean = *mean > 0 ? *mean + (x - *mean) / FADE : x;
}

/* Learns from a step's time how many prompt rows the next may have beside others. What a row
 * takes is the ratio of two sums, times and rows of the last steps: a busy machine's steps are
 * now longer, now shorter, and the quotient of one step with a short piece would call a row
 * dear that is not, which keeps pieces short. */
static void learn(struct scheduler *s, double us)
{
    const struct schedule_plan *p = &s->plan;
    double *alone = &s->decode_us[bin_of(p->n_decode)], row_us, extra, next, least;
    bool cut_short;
    if (p->n_decode == 0) return;
    if (p->n_prefill == 0) {
        follow(alone, us);
        s->n_mixed = 0;
        return;
    }
    s->n_mixed++;
    if (*alone <= 0) return;
    if (us > *alone * s->o.stretch * MOST_OVER) us = *alone * s->o.stretch * MOST_OVER;
    s->more_us += us - *alone - s->more_us / FADE;
    s->more_rows += p->n_prefill - s->more_rows / FADE;
    row_us = s->more_us > 0 ? s->more_us / s->more_rows : 0;
    extra = *alone * (s->o.stretch - 1) * AIM;
    /* A piece under the limit says nothing of what a longer one would take. */
    cut_short = p->n_prefill < (int32_t)(s->chunk * p->prompts);
    next = cut_short ? s->chunk : s->chunk * MOST_GROWTH;
    if (row_us * next > extra) next = extra / row_us;
    least = (double)max_i64(LEAST_ROWS, SHARED_ROWS / p->n_decode);
    s->chunk = next < least ? least : next > s->o.max_row ? s->o.max_row : next;
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
