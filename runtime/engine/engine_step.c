/* engine_step.c - the engine's thread: plan, compute, sample, tell; again.
 *
 * A step: the scheduler seats requests and takes out the cancelled (under the lock); callers of
 * prompts are asked whether to go on; the scheduler plans rows (under the lock); the model
 * computes them; for each row that was the newest of its sequence a token is sampled. Then the
 * tokens are told: turned into text, searched for stop texts, given to callbacks, which run on
 * this thread without the lock. A request that ends leaves the scheduler first, so that its
 * blocks are free before its caller knows.
 *
 * Where the device works by itself, telling waits until the next step is enqueued: the host
 * turns step n into text while the device computes step n + 1. Only sampling lies between two
 * steps. When a text turns out to be at its end, its row of step n + 1 was computed for
 * nothing.
 *
 * What fails belongs to somebody: logits that are not numbers to their request, a step of the
 * model to all that were running. The engine goes on with the others. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/engine/engine_inside.h"

pm_status engine_batch_open(struct engine_batch *b, const struct model *m)
{
    const struct model_options *o = model_limits(m);
    size_t t = (size_t)o->max_row, n = (size_t)o->max_seq;
    size_t blocks = n * (size_t)scheduler_blocks(o->context);
    TRY(alloc_array(&b->id, t, sizeof *b->id, "batch"));
    TRY(alloc_array(&b->position, t, sizeof *b->position, "batch"));
    TRY(alloc_array(&b->slot, t, sizeof *b->slot, "batch"));
    TRY(alloc_array(&b->q_start, n + 1, sizeof *b->q_start, "batch"));
    TRY(alloc_array(&b->kv_len, n, sizeof *b->kv_len, "batch"));
    TRY(alloc_array(&b->block_table, blocks, sizeof *b->block_table, "batch"));
    TRY(alloc_array(&b->out_row, (size_t)o->max_out, sizeof *b->out_row, "batch"));
    /* Not touched: most of it is used only when prompts are scored. */
    b->logits = calloc((size_t)o->max_out * (size_t)model_config(m)->vocab, sizeof *b->logits);
    return b->logits ? PM_OK : fail(PM_ERR_NOMEM, "logits: no memory");
}

void engine_batch_close(struct engine_batch *b)
{
    free(b->id);
    free(b->position);
    free(b->slot);
    free(b->q_start);
    free(b->kv_len);
    free(b->block_table);
    free(b->out_row);
    free(b->logits);
}

static pm_request *request_of(struct schedule_request *s)
{
    return (pm_request *)(void *)s; /* its first field */
}

/* ------------------------------------------------------------------ ends */

/* It has left the scheduler. Nothing here uses it behind the last line. */
static void tell_end(pm_engine *e, pm_request *r)
{
    request_end(r);
    pthread_mutex_lock(&e->lock);
    r->over = true;
    pthread_cond_broadcast(&e->done);
    pthread_mutex_unlock(&e->lock);
}

static void end(pm_engine *e, pm_request *r)
{
    pthread_mutex_lock(&e->lock);
    scheduler_end(&e->scheduler, &r->schedule);
    pthread_mutex_unlock(&e->lock);
    tell_end(e, r);
}

static void end_swept(pm_engine *e)
{
    for (;;) {
        struct schedule_request *s;
        pthread_mutex_lock(&e->lock);
        s = scheduler_take_ended(&e->scheduler);
        pthread_mutex_unlock(&e->lock);
        if (!s) return;
        request_finish(request_of(s), s->late ? PM_FINISH_DEADLINE : PM_FINISH_CALLER);
        tell_end(e, request_of(s));
    }
}

/* Only this thread changes who is running. */
static void ask_prompts(pm_engine *e)
{
    for (int32_t i = e->scheduler.count.n_running; i-- > 0;) {
        pm_request *r = request_of(e->scheduler.running[i]);
        if (!r->params.go_on || r->schedule.n_done >= r->schedule.n_prompt) continue;
        if (r->params.go_on(r->arg)) continue;
        request_finish(r, PM_FINISH_CALLER);
        end(e, r);
    }
}

static void fail_running(pm_engine *e, pm_status status)
{
    pthread_mutex_lock(&e->lock);
    scheduler_failed(&e->scheduler);
    pthread_mutex_unlock(&e->lock);
    while (e->scheduler.count.n_running > 0) {
        pm_request *r = request_of(e->scheduler.running[0]);
        request_fail(r, status);
        end(e, r);
    }
}

/* ------------------------------------------------------------------ the step */

static void put_part(struct engine_batch *b, struct batch *to, const struct schedule_part *p,
                     int32_t i)
{
    const struct schedule_request *s = &p->request[0];
    int32_t n_block = scheduler_blocks(p->first + p->n_row);
    int32_t first_out = s->every_row ? 0 : p->n_row - p->sample;
    for (int32_t j = 0; j < p->n_row; j++) {
        int32_t row = to->n_row + j, position = p->first + j;
        b->id[row] = s->token[position];
        b->position[row] = position;
        b->slot[row] = (int64_t)s->block[position / KV_BLOCK] * KV_BLOCK + position % KV_BLOCK;
        if (j >= first_out) b->out_row[to->n_out++] = row;
    }
    memcpy(b->block_table + (size_t)i * (size_t)to->max_block, s->block,
           (size_t)n_block * sizeof *s->block);
    b->kv_len[i] = p->first + p->n_row;
    to->n_row += p->n_row;
    b->q_start[i + 1] = to->n_row;
}

static struct batch fill(struct engine_batch *b, const struct schedule_plan *plan)
{
    struct batch to = {.n_seq = plan->n_part,
                       .id = b->id,
                       .position = b->position,
                       .slot = b->slot,
                       .q_start = b->q_start,
                       .kv_len = b->kv_len,
                       .block_table = b->block_table,
                       .out_row = b->out_row};
    for (int32_t i = 0; i < plan->n_part; i++) {
        const struct schedule_part *p = &plan->part[i];
        to.max_block = (int)max_i64(to.max_block, scheduler_blocks(p->first + p->n_row));
    }
    for (int32_t i = 0; i < plan->n_part; i++) {
        put_part(b, &to, &plan->part[i], i);
    }
    return to;
}

static void count_experts(void *arg, int layer, int n_row, int top_k, const int32_t *id,
                          const float *weight)
{
    pm_engine *e = arg;
    atomic_uint_fast64_t *count =
        e->expert_count + (size_t)layer * (size_t)model_config(e->model)->gate.n_expert;
    (void)weight;
    for (int64_t i = 0; i < (int64_t)n_row * top_k; i++) {
        atomic_fetch_add_explicit(&count[id[i]], 1, memory_order_relaxed);
    }
}

/* Gives a part of the computed step its logits; returns where the next part's are. */
static float *give_part(pm_engine *e, const struct schedule_part *p, float *logits)
{
    size_t vocab = (size_t)model_config(e->model)->vocab;
    pm_request *r = request_of(p->request);
    for (int32_t j = 0; r->schedule.every_row && j < p->n_row; j++) {
        request_take_row(r, &e->tools, p->first + j, logits + (size_t)j * vocab);
    }
    logits += (size_t)(r->schedule.every_row ? p->n_row : p->sample) * vocab;
    if (p->sample) request_pick(r, &e->tools, logits - vocab);
    return logits;
}

/* Samples; those that have something to be told are noted, those that ended have left the
 * scheduler. */
static void sample(pm_engine *e, const struct schedule_part *part, int32_t n_part,
                   int32_t n_row)
{
    double bytes = model_step_bytes(e->model, n_row) / n_part;
    float *logits = e->batch.logits;
    uint64_t n_generated = 0;
    for (int32_t i = 0; i < n_part; i++) {
        pm_request *r = request_of(part[i].request);
        int32_t before = r->result.n_generated;
        if (before) r->result.generate_bytes += bytes;
        logits = give_part(e, &part[i], logits);
        n_generated += (uint64_t)(r->result.n_generated - before);
        if (r->has_fresh || r->ending) e->told[e->n_told++] = r;
    }
    pthread_mutex_lock(&e->lock);
    e->n_generated += n_generated;
    for (int32_t i = 0; i < e->n_told; i++) {
        if (e->told[i]->ending) scheduler_end(&e->scheduler, &e->told[i]->schedule);
    }
    pthread_mutex_unlock(&e->lock);
}

/* Who ends by what it was told while its next row is computed leaves with the next step. */
static void end_later(pm_engine *e, pm_request *r)
{
    pthread_mutex_lock(&e->lock);
    r->schedule.cancelled = true;
    pthread_mutex_unlock(&e->lock);
}

static void tell(pm_engine *e, bool in_flight)
{
    int32_t n = e->n_told;
    e->n_told = 0;
    for (int32_t i = 0; i < n; i++) {
        pm_request *r = e->told[i];
        bool has_ended = r->ending;
        request_tell(r);
        if (has_ended) {
            tell_end(e, r);
        } else if (r->ending && in_flight) {
            end_later(e, r);
        } else if (r->ending && r->schedule.state != SCHEDULE_NONE) {
            end(e, r); /* else it was swept, and ends there */
        }
    }
}

static pm_status compute(pm_engine *e, const struct batch *b, bool counting)
{
    pm_status status;
    model_on_route(e->model, counting ? count_experts : NULL, e);
    status = model_begin(e->model, b);
    tell(e, true);
    return status == PM_OK ? model_end(e->model, e->batch.logits) : status;
}

static void step(pm_engine *e)
{
    const struct schedule_plan *plan;
    int64_t start = now_us();
    bool counting;
    struct batch b;
    pm_status status;
    pthread_mutex_lock(&e->lock);
    plan = scheduler_plan(&e->scheduler);
    counting = e->counting;
    pthread_mutex_unlock(&e->lock);
    if (plan->n_part == 0) return;
    b = fill(&e->batch, plan);
    status = compute(e, &b, counting);
    if (status != PM_OK) {
        fail_running(e, status);
        return;
    }
    pthread_mutex_lock(&e->lock);
    scheduler_done(&e->scheduler, now_us() - start);
    pthread_mutex_unlock(&e->lock);
    sample(e, plan->part, b.n_seq, b.n_row);
    if (!e->overlaps) tell(e, false);
}

/* ------------------------------------------------------------------ the thread */

/* Under the lock, which a job runs without. */
static void run_jobs(pm_engine *e)
{
    struct engine_waiter *w;
    while ((w = e->job) != NULL) {
        e->job = w->next;
        if (!e->job) e->last_job = &e->job;
        scheduler_preempt_all(&e->scheduler);
        pthread_mutex_unlock(&e->lock);
        tell(e, false);
        w->status = w->job(e->model, w->arg);
        if (w->status != PM_OK) snprintf(w->error, sizeof w->error, "%s", pm_last_error());
        pthread_mutex_lock(&e->lock);
        w->over = true;
        pthread_cond_broadcast(&e->done);
    }
}

/* Everything between two steps that is not the lock's. */
static void turn(pm_engine *e, bool has_work)
{
    /* Who leaves is told first what it has. */
    if (!has_work || e->scheduler.ended) tell(e, false);
    end_swept(e);
    ask_prompts(e);
    if (has_work) step(e);
}

void *engine_main(void *engine)
{
    pm_engine *e = engine;
    bool has_work;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        run_jobs(e);
        if (e->closing) scheduler_cancel_all(&e->scheduler);
        scheduler_admit(&e->scheduler, now_us());
        has_work = scheduler_has_work(&e->scheduler);
        if (!has_work && !e->n_told) {
            e->mark_us = 0;
            if (e->closing) break;
            pthread_cond_wait(&e->work, &e->lock);
            continue;
        }
        pthread_mutex_unlock(&e->lock);
        turn(e, has_work);
        pthread_mutex_lock(&e->lock);
        e->mark_us = now_us();
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}
