/* engine_request.c - requests from outside: submitting, waiting, cancelling, asking. */
#include <stdlib.h>
#include <string.h>

#include "runtime/engine/engine_inside.h"

void pm_params_init(pm_params *p)
{
    *p =
        (pm_params){.max_tokens = 256, .top_p = 1, .repeat_penalty = 1, .n_prompt_logprob = -1};
}

/* Under the lock. */
static pm_status start_thread(pm_engine *e)
{
    if (e->started) return PM_OK;
    if (pthread_create(&e->thread, NULL, engine_main, e) != 0) {
        return fail(PM_ERR_NOMEM, "the engine's thread cannot be started");
    }
    e->started = true;
    return PM_OK;
}

/* Under the lock: there is something to do. */
static void wake(pm_engine *e)
{
    if (!e->mark_us) e->mark_us = now_us();
    pthread_cond_signal(&e->work);
}

/* The bytes of all tokens, for grammars: built once, when the first asks. */
static pm_status need_vocabulary(pm_engine *e)
{
    const struct config *c = model_config(e->model);
    pm_status status = PM_OK;
    if (!e->tokenizer) {
        return fail(PM_ERR_UNSUPPORTED, "schema: the model's folder has no tokenizer.json");
    }
    if (!c->n_eos) {
        return fail(PM_ERR_UNSUPPORTED, "schema: the model has no token that ends a text");
    }
    pthread_mutex_lock(&e->vocabulary_lock);
    if (!e->vocabulary) {
        status =
            grammar_vocabulary_open(&e->vocabulary, e->tokenizer, c->vocab, c->eos, c->n_eos);
    }
    pthread_mutex_unlock(&e->vocabulary_lock);
    return status;
}

pm_status engine_submit(pm_request **out, pm_engine *e, const int32_t *ids, size_t n_id,
                        const pm_params *params, const struct engine_calls *calls)
{
    struct request_room room = {.engine = e,
                                .tokenizer = e->tokenizer,
                                .vocab = model_config(e->model)->vocab,
                                .context = (int32_t)min_i64(model_limits(e->model)->context,
                                                            model_blocks(e->model) * KV_BLOCK)};
    int64_t now = now_us();
    pm_request *r;
    pm_status status;
    if (params->schema) {
        TRY(need_vocabulary(e));
        room.vocabulary = e->vocabulary;
    }
    TRY(request_open(&r, &room, ids, n_id, params));
    r->call = calls->token;
    r->end = calls->end;
    r->row = calls->row;
    r->arg = calls->arg;
    r->schedule.every_row |= calls->row != NULL;
    if (params->deadline_us > 0) r->schedule.deadline_us = now + params->deadline_us;
    /* The engine's thread may end it before this returns, and the caller free it then: *out
     * is set before. */
    pthread_mutex_lock(&e->lock);
    status = start_thread(e);
    if (status == PM_OK) status = scheduler_submit(&e->scheduler, &r->schedule, now);
    if (status == PM_OK) {
        *out = r;
        wake(e);
    }
    pthread_mutex_unlock(&e->lock);
    if (status != PM_OK) request_close(r);
    return status;
}

pm_status pm_submit(pm_request **out, pm_engine *e, const int32_t *ids, size_t n_id,
                    const pm_params *params, pm_on_token *call, pm_on_end *end, void *arg)
{
    struct engine_calls calls = {call, end, NULL, arg};
    return engine_submit(out, e, ids, n_id, params, &calls);
}

static void wait_over(pm_request *r)
{
    pm_engine *e = r->engine;
    pthread_mutex_lock(&e->lock);
    while (!r->over) {
        pthread_cond_wait(&e->done, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
}

pm_status pm_wait(pm_request *r, pm_result *result)
{
    wait_over(r);
    if (r->status != PM_OK) return fail(r->status, "%s", r->error);
    if (result) *result = r->result;
    return PM_OK;
}

void pm_cancel(pm_request *r)
{
    pm_engine *e = r->engine;
    pthread_mutex_lock(&e->lock);
    r->schedule.cancelled = true;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
}

void pm_request_free(pm_request *r)
{
    if (!r) return;
    pm_cancel(r);
    wait_over(r);
    request_close(r);
}

pm_status pm_generate_ids(pm_engine *e, const int32_t *ids, size_t n_id,
                          const pm_params *params, pm_on_token *call, void *arg,
                          pm_result *result)
{
    pm_request *r;
    pm_status status;
    TRY(pm_submit(&r, e, ids, n_id, params, call, NULL, arg));
    status = pm_wait(r, result);
    pm_request_free(r);
    return status;
}

pm_status pm_generate(pm_engine *e, const char *prompt, size_t n, const pm_params *params,
                      pm_on_token *call, void *arg, pm_result *result)
{
    int32_t *ids;
    size_t n_id;
    pm_status status;
    TRY(pm_tokenize(e, prompt, n, true, true, &ids, &n_id));
    if (n_id == 0 && model_config(e->model)->bos >= 0) {
        free(ids); /* an empty prompt begins a text */
        TRY(copy_text((char **)&ids, (const char *)&model_config(e->model)->bos, sizeof *ids));
        n_id = 1;
    }
    status = pm_generate_ids(e, ids, n_id, params, call, arg, result);
    free(ids);
    return status;
}

/* ------------------------------------------------------------------ scores */

/* One window of a text: tokens from n_skip on have their log-probabilities stored. */
struct score {
    const int32_t *id; /* [n] */
    int32_t n, n_skip, vocab;
    float *logprob; /* [n - 1] */
    float *logits;  /* [n, V] or NULL */
};

static void score_row(void *arg, int32_t position, const float *logits)
{
    struct score *s = arg;
    size_t vocab = (size_t)s->vocab;
    if (s->logits) {
        memcpy(s->logits + (size_t)position * vocab, logits, vocab * sizeof *logits);
    }
    if (position + 1 < s->n && position + 1 >= s->n_skip) {
        s->logprob[position] = (float)log_probability(logits, s->vocab, s->id[position + 1]);
    }
}

static pm_status score_window(pm_engine *e, struct score *s)
{
    struct engine_calls calls = {.row = score_row, .arg = s};
    pm_params params;
    pm_request *r;
    pm_status status;
    pm_params_init(&params);
    params.max_tokens = 0;
    TRY(engine_submit(&r, e, s->id, (size_t)s->n, &params, &calls));
    status = pm_wait(r, NULL);
    pm_request_free(r);
    return status;
}

pm_status pm_score(pm_engine *e, const int32_t *ids, size_t n_id, float *logprob, float *logits)
{
    size_t context = (size_t)model_limits(e->model)->context, half = (context + 1) / 2;
    int32_t vocab = model_config(e->model)->vocab;
    if (n_id < 1) return fail(PM_ERR_ARG, "there are no tokens to score");
    if (logits && n_id > context) {
        return fail(PM_ERR_TOO_LONG, "logits of %zu tokens, the context is %zu", n_id, context);
    }
    for (size_t first = 0; first == 0 || first + 1 < n_id; first += half) {
        size_t n = n_id - first < context ? n_id - first : context;
        size_t skip = first == 0 ? 1 : context - half; /* what the last window has scored */
        struct score s = {ids + first, (int32_t)n,      (int32_t)skip,
                          vocab,       logprob + first, logits};
        TRY(score_window(e, &s));
        if (first + n == n_id) break;
    }
    return PM_OK;
}

/* ------------------------------------------------------------------ questions */

void pm_engine_stats(const pm_engine *engine, pm_stats *out)
{
    pm_engine *e = (pm_engine *)engine; /* the lock is not part of what it promises */
    const struct scheduler_counts *c = &e->scheduler.count;
    const struct kvcache *k = &e->scheduler.cache;
    pthread_mutex_lock(&e->lock);
    *out = (pm_stats){.n_running = c->n_running,
                      .n_waiting = c->n_waiting + c->n_preempted_waiting,
                      .n_waiting_token = c->n_waiting_token,
                      .n_block = k->n_block,
                      .n_block_used = k->n_block - k->n_free,
                      .n_block_cached = k->n_cached,
                      .prefix_queries = c->prefix_queries,
                      .prefix_hits = c->prefix_hits,
                      .prompt_tokens = c->prompt_tokens,
                      .generation_tokens = e->n_generated,
                      .n_preemption = c->n_preemption,
                      .n_step = c->n_step,
                      .step_age_us = e->mark_us ? now_us() - e->mark_us : 0};
    pthread_mutex_unlock(&e->lock);
}

pm_status pm_engine_experts(pm_engine *e, uint64_t *count)
{
    const struct config *c = model_config(e->model);
    size_t n = (size_t)c->n_layer * (size_t)c->gate.n_expert;
    pm_status status = PM_OK;
    if (!c->gate.n_expert) return fail(PM_ERR_UNSUPPORTED, "the model has no experts");
    pthread_mutex_lock(&e->lock);
    if (!e->expert_count) {
        status = alloc_array(&e->expert_count, n, sizeof *e->expert_count, "expert counts");
    }
    if (status == PM_OK) e->counting = true;
    pthread_mutex_unlock(&e->lock);
    for (size_t i = 0; i < n && status == PM_OK; i++) {
        count[i] = atomic_load_explicit(&e->expert_count[i], memory_order_relaxed);
    }
    return status;
}

/* ------------------------------------------------------------------ jobs */

pm_status engine_exclusive(pm_engine *e, engine_job *job, void *arg)
{
    struct engine_waiter w = {.job = job, .arg = arg};
    pm_status status;
    pthread_mutex_lock(&e->lock);
    status = start_thread(e);
    if (status == PM_OK) {
        *e->last_job = &w;
        e->last_job = &w.next;
        wake(e);
        while (!w.over) {
            pthread_cond_wait(&e->done, &e->lock);
        }
        status = w.status;
        if (status != PM_OK) fail(status, "%s", w.error);
    }
    pthread_mutex_unlock(&e->lock);
    return status;
}
