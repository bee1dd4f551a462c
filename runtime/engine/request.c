/* request.c - from logits to tokens and text that the caller sees.
 *
 * A token's text passes through the detokeniser, which holds back bytes of an unfinished
 * character, and a gate, which holds back what may be the beginning of a stop text. */
#include "request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ open */

enum { MAX_LOGPROB = 32 };

static pm_status check_params(const pm_params *p)
{
    if (p->n_logprob < 0 || p->n_logprob > MAX_LOGPROB) {
        return fail(PM_ERR_ARG, "logprobs: found %d, wanted 0 to %d", p->n_logprob,
                    MAX_LOGPROB);
    }
    if (p->n_prompt_logprob < -1 || p->n_prompt_logprob > MAX_LOGPROB) {
        return fail(PM_ERR_ARG, "prompt logprobs: found %d, wanted -1 to %d",
                    p->n_prompt_logprob, MAX_LOGPROB);
    }
    if (p->max_tokens < 0) {
        return fail(PM_ERR_ARG, "max-tokens: found %d, wanted 0 or more", p->max_tokens);
    }
    if (p->n_bias < 0 || p->n_stop < 0 || p->min_tokens < 0) {
        return fail(PM_ERR_ARG,
                    "n_bias, n_stop, min_tokens: found %d, %d, %d, wanted 0 or more", p->n_bias,
                    p->n_stop, p->min_tokens);
    }
    for (int i = 0; i < p->n_stop; i++) {
        if (!p->stop[i][0]) return fail(PM_ERR_ARG, "stop: found an empty text");
    }
    return PM_OK;
}

static pm_status check_ids(const struct request_room *room, const int32_t *ids, size_t n_id)
{
    if (n_id == 0) return fail(PM_ERR_ARG, "the prompt has no tokens");
    if (n_id > (size_t)room->context) {
        return fail(PM_ERR_TOO_LONG, "the prompt has %zu tokens, the context is %d", n_id,
                    room->context);
    }
    for (size_t i = 0; i < n_id; i++) {
        if (ids[i] >= 0 && ids[i] < room->vocab) continue;
        return fail(PM_ERR_ARG, "token %zu: found %d, the vocabulary has %d", i, ids[i],
                    room->vocab);
    }
    return PM_OK;
}

static pm_status open_schedule(struct schedule_request *s, const struct request_room *room,
                               const int32_t *ids, size_t n_id, const pm_params *p)
{
    /* The last new token is not computed. */
    int64_t most = (int64_t)n_id + max_i64(p->max_tokens, 1) - 1;
    s->n_token = s->n_prompt = (int32_t)n_id;
    s->max_token = (int32_t)min_i64(most, room->context);
    s->priority = p->priority;
    s->key = p->key;
    s->salt = p->salt;
    s->every_row = p->n_prompt_logprob >= 0;
    TRY(alloc_array(&s->token, (size_t)s->max_token + 1, sizeof *s->token, "tokens"));
    TRY(alloc_array(&s->block, (size_t)scheduler_blocks(s->max_token), sizeof *s->block,
                    "blocks"));
    memcpy(s->token, ids, n_id * sizeof *ids);
    return PM_OK;
}

static pm_status copy_stops(struct text_gate *g, const pm_params *p)
{
    TRY(alloc_array(&g->stop, (size_t)max_i64(1, p->n_stop), sizeof *g->stop, "stop texts"));
    for (; g->n_stop < p->n_stop; g->n_stop++) {
        TRY(copy_text(&g->stop[g->n_stop], p->stop[g->n_stop], strlen(p->stop[g->n_stop])));
    }
    return PM_OK;
}

static pm_status copy_sampling(struct sampling *s, const pm_params *p, int32_t vocab)
{
    pm_logit_bias *bias;
    *s = (struct sampling){.temperature = p->temperature,
                           .top_k = p->top_k,
                           .top_p = p->top_p,
                           .min_p = p->min_p,
                           .repeat_penalty = p->repeat_penalty,
                           .seed = p->seed,
                           .presence = p->presence_penalty,
                           .frequency = p->frequency_penalty};
    TRY(alloc_array(&bias, (size_t)max_i64(p->n_bias, 1), sizeof *bias, "logit bias"));
    if (p->n_bias) memcpy(bias, p->bias, (size_t)p->n_bias * sizeof *bias);
    s->bias = bias;
    s->n_bias = p->n_bias;
    return sampling_check(s, vocab);
}

static pm_status open_texts(pm_request *r, const struct tokenizer *t)
{
    if (!t) return PM_OK;
    TRY(detokenizer_open(&r->detokenizer, t, true));
    if (r->params.n_prompt_logprob < 0) return PM_OK;
    return detokenizer_open(&r->prompt_detokenizer, t, true);
}

pm_status request_open(pm_request **out, const struct request_room *room, const int32_t *ids,
                       size_t n_id, const pm_params *p)
{
    int32_t n_top = (int32_t)max_i64(1, max_i64(p->n_logprob, p->n_prompt_logprob));
    pm_request *r;
    pm_status status;
    TRY(check_params(p));
    TRY(check_ids(room, ids, n_id));
    TRY(alloc_array(&r, 1, sizeof *r, "request"));
    r->engine = room->engine;
    r->params = *p;
    r->result.finish = PM_FINISH_CALLER;
    TRY_DONE(open_schedule(&r->schedule, room, ids, n_id, p));
    TRY_DONE(copy_stops(&r->gate, p));
    TRY_DONE(alloc_array(&r->top, (size_t)n_top, sizeof *r->top, "logprobs"));
    TRY_DONE(copy_sampling(&r->sampling, p, room->vocab));
    TRY_DONE(open_texts(r, room->tokenizer));
    if (p->schema) {
        TRY_DONE(grammar_open(&r->grammar, p->schema, p->n_schema));
        TRY_DONE(grammar_state_open(&r->state, r->grammar, room->vocabulary));
    }
    *out = r;
    r = NULL;
done:
    request_close(r);
    return status;
}

void request_close(pm_request *r)
{
    if (!r) return;
    for (int32_t i = 0; i < r->gate.n_stop; i++) {
        free(r->gate.stop[i]);
    }
    free(r->gate.stop);
    free(r->gate.held);
    free(r->top);
    free((void *)r->sampling.bias);
    grammar_state_close(r->state);
    grammar_close(r->grammar);
    detokenizer_close(r->detokenizer);
    detokenizer_close(r->prompt_detokenizer);
    free(r->schedule.token);
    free(r->schedule.block);
    free(r);
}

/* ------------------------------------------------------------------ ends */

void request_fail(pm_request *r, pm_status status)
{
    if (r->ending) return;
    r->status = status;
    snprintf(r->error, sizeof r->error, "%s", pm_last_error());
    r->ending = true;
}

void request_finish(pm_request *r, pm_finish finish)
{
    if (r->ending) return;
    r->result.finish = finish;
    r->ending = true;
}

/* ------------------------------------------------------------------ text */

static pm_status hold(struct text_gate *g, const char *text, size_t n)
{
    TRY(grow_array(&g->held, &g->max_held, g->n_held + n + 1, 1));
    memcpy(g->held + g->n_held, text, n);
    g->n_held += n;
    g->held[g->n_held] = 0;
    return PM_OK;
}

/* Where a stop text begins in the held bytes, or where it may yet begin: *complete tells. */
static size_t find_stop(const struct text_gate *g, bool *complete)
{
    size_t at = g->n_held;
    *complete = false;
    for (int32_t i = 0; g->armed && i < g->n_stop; i++) {
        const char *stop = g->stop[i];
        size_t n = strlen(stop);
        for (size_t j = 0; j < g->n_held && j <= at; j++) {
            size_t left = g->n_held - j, same = left < n ? left : n;
            if (memcmp(g->held + j, stop, same) != 0) continue;
            if (j < at || (j == at && same == n)) {
                at = j;
                *complete = same == n;
            }
            break;
        }
    }
    return at;
}

/* Adds text and gives out the token with what cannot belong to a stop text; `last`: with all
 * that is not a whole stop text. */
static pm_status give(pm_request *r, pm_token *token, const char *text, size_t n, bool last,
                      bool *go_on)
{
    struct text_gate *g = &r->gate;
    bool complete = false;
    size_t ready;
    TRY(hold(g, text, n));
    ready = find_stop(g, &complete);
    if (last && !complete) ready = g->n_held;
    if (complete) g->stopped = true;
    token->text = g->held;
    token->n_text = ready;
    *go_on = !r->call || r->call(r->arg, token);
    memmove(g->held, g->held + ready, g->n_held - ready);
    g->n_held -= ready;
    return PM_OK;
}

static pm_status flush(pm_request *r)
{
    pm_token none = {.id = -1};
    const char *text = "";
    size_t n = 0;
    bool go_on;
    if (r->gate.stopped || r->schedule.n_token == r->schedule.n_prompt) return PM_OK;
    if (r->detokenizer) TRY(detokenizer_flush(r->detokenizer, &text, &n));
    if (n == 0 && r->gate.n_held == 0) return PM_OK;
    return give(r, &none, text, n, true, &go_on);
}

void request_end(pm_request *r)
{
    if (r->status == PM_OK) {
        pm_status status = flush(r);
        if (status != PM_OK) {
            r->ending = false;
            request_fail(r, status);
        }
    }
    if (!r->first_us && r->schedule.start_us) {
        r->result.prompt_us = now_us() - r->schedule.start_us;
    }
    r->result.n_cached = r->schedule.n_cached;
    r->result.n_preempted = r->schedule.n_preempted;
    r->result.n_prompt = r->schedule.n_done;
    r->result.queue_us =
        r->schedule.start_us ? r->schedule.start_us - r->schedule.submit_us : 0;
    if (r->end) r->end(r->arg, r->status, r->status == PM_OK ? "" : r->error, &r->result);
}

/* ------------------------------------------------------------------ logits */

static pm_status give_prompt_token(pm_request *r, pm_token *token)
{
    struct schedule_request *s = &r->schedule;
    const char *text = "";
    size_t n = 0;
    token->id = s->token[r->n_reported];
    token->prompt = true;
    if (r->prompt_detokenizer) {
        TRY(detokenizer_add(r->prompt_detokenizer, token->id, &text, &n));
    }
    token->text = text;
    token->n_text = n;
    r->n_reported++;
    if (r->call && !r->call(r->arg, token)) request_finish(r, PM_FINISH_CALLER);
    return PM_OK;
}

static pm_status report_row(pm_request *r, const struct request_tools *t, int32_t position,
                            const float *logits)
{
    pm_token token = {.n_top = r->params.n_prompt_logprob,
                      .top = (const pm_candidate *)(const void *)r->top};
    if (position == 0) {
        pm_token first = {0};
        TRY(give_prompt_token(r, &first));
        if (r->ending) return PM_OK;
    }
    if (position + 1 >= r->schedule.n_prompt) return PM_OK;
    TRY(sampler_look(t->sampler, logits, r->schedule.token[position + 1], token.n_top, r->top,
                     &token.logprob));
    return give_prompt_token(r, &token);
}

void request_take_row(pm_request *r, const struct request_tools *t, int32_t position,
                      const float *logits)
{
    pm_status status;
    /* Rows computed again after a preemption were told before. */
    if (r->ending || position + 1 < r->n_reported || position >= r->schedule.n_prompt) return;
    if (r->row) {
        r->row(r->arg, position, logits);
        r->n_reported = position + 2;
        return;
    }
    status = report_row(r, t, position, logits);
    if (status != PM_OK) request_fail(r, status);
}

static bool is_end(const struct request_tools *t, int32_t id)
{
    for (int32_t i = 0; i < t->n_end; i++) {
        if (t->end_id[i] == id) return true;
    }
    return false;
}

static pm_status pick(pm_request *r, const struct request_tools *t, float *logits)
{
    struct schedule_request *s = &r->schedule;
    struct sampling_input in = {.logits = logits,
                                .token = s->token,
                                .n_token = s->n_token,
                                .n_prompt = s->n_prompt,
                                .index = s->n_token};
    /* A grammar says itself when the text may end. */
    bool may_end = r->state || r->result.n_generated >= r->params.min_tokens;
    if (r->state) {
        TRY(grammar_allowed(r->state, t->allowed));
        in.allowed = t->allowed;
    }
    for (int32_t i = 0; !may_end && i < t->n_end; i++) {
        logits[t->end_id[i]] = -INFINITY;
    }
    TRY(sampler_pick(t->sampler, &r->sampling, &in, &r->fresh));
    if (r->params.n_logprob) sampler_top(t->sampler, r->params.n_logprob, r->top);
    if ((r->state || !r->params.ignore_eos) && is_end(t, r->fresh.id)) {
        request_finish(r, PM_FINISH_EOS);
        return PM_OK;
    }
    if (r->state) TRY(grammar_accept(r->state, r->fresh.id));
    s->token[s->n_token++] = r->fresh.id;
    r->result.n_generated++;
    r->has_fresh = true;
    return PM_OK;
}

void request_pick(pm_request *r, const struct request_tools *t, float *logits)
{
    const struct schedule_request *s = &r->schedule;
    pm_status status = PM_OK;
    int64_t now = now_us();
    if (r->ending) return;
    if (!r->first_us) {
        r->first_us = now;
        r->result.prompt_us = now - s->start_us;
    }
    r->result.generate_us = now - r->first_us;
    if (r->params.max_tokens > 0) status = pick(r, t, logits);
    if (status != PM_OK) {
        request_fail(r, status);
    } else if (r->result.n_generated >= r->params.max_tokens || s->n_token > s->max_token) {
        request_finish(r, PM_FINISH_LENGTH);
    }
}

static pm_status tell(pm_request *r, bool *go_on)
{
    pm_token token = {.id = r->fresh.id,
                      .logprob = r->fresh.logprob,
                      .n_top = r->params.n_logprob,
                      .top = (const pm_candidate *)(const void *)r->top};
    const char *text = "";
    size_t n = 0;
    r->gate.armed = r->result.n_generated > r->params.min_tokens;
    if (r->detokenizer) TRY(detokenizer_add(r->detokenizer, token.id, &text, &n));
    return give(r, &token, text, n, false, go_on);
}

void request_tell(pm_request *r)
{
    bool go_on = true;
    pm_status status;
    if (!r->has_fresh) return;
    r->has_fresh = false;
    status = tell(r, &go_on);
    if (status == PM_OK && go_on && !r->gate.stopped) return;
    r->ending = false; /* this is a better reason than its length */
    if (status != PM_OK) {
        request_fail(r, status);
    } else {
        request_finish(r, r->gate.stopped ? PM_FINISH_STOP : PM_FINISH_CALLER);
    }
}
