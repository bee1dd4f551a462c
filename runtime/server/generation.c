/* generation.c - from a parsed request to running choices, and what the engine tells of them.
 *
 * Choice i of a prompt draws with seed + i, so that a request with a seed repeats as a whole
 * and its first choice is that of the same request with n = 1.
 *
 * n_open counts the choices that have not ended and one more while choices are submitted: who
 * brings it to zero has the answer written. Each choice holds the call until its end was told,
 * since the engine's thread uses the generation until then. */
#include "generation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "openai_inside.h"
#include "server_inside.h"

/* ------------------------------------------------------------------ the engine's thread */

static bool append(struct tape *t, const struct tape_record *r, const pm_token *token)
{
    size_t n_top = (size_t)r->n_top * sizeof *token->top;
    size_t need = t->n + sizeof *r + token->n_text + n_top;
    if (grow_array(&t->byte, &t->capacity, need, 1) != PM_OK) return false;
    memcpy(t->byte + t->n, r, sizeof *r);
    t->n += sizeof *r;
    memcpy(t->byte + t->n, token->text, token->n_text);
    t->n += token->n_text;
    if (n_top) memcpy(t->byte + t->n, token->top, n_top);
    t->n += n_top;
    return true;
}

static void observe_token(struct choice *c)
{
    struct call *call = c->g->call;
    struct metrics *m = &call->server->metrics;
    int64_t now = now_us();
    if (c->last_us) {
        metrics_observe_us(m, METRICS_inter_token_latency_seconds, now - c->last_us);
    } else {
        metrics_observe_us(m, METRICS_time_to_first_token_seconds, now - call->arrival_us);
    }
    c->last_us = now;
}

static bool on_token(void *arg, const pm_token *t)
{
    struct choice *c = arg;
    struct generation *g = c->g;
    struct tape_record r = {.choice = c->index,
                            .id = t->id,
                            .logprob = t->logprob,
                            .n_text = (int32_t)t->n_text,
                            .n_top = t->n_top,
                            .prompt = t->prompt};
    bool kept;
    if (!t->prompt && t->id >= 0) observe_token(c);
    pthread_mutex_lock(&g->lock);
    kept = append(&g->tape, &r, t);
    if (!kept) c->lost = true;
    if (t->prompt) {
        c->n_prompt_seen++;
    } else if (t->id >= 0) {
        c->n_generated++;
    }
    pthread_mutex_unlock(&g->lock);
    if (g->streaming) call_wake(g->call);
    return kept;
}

static bool on_prompt(void *arg)
{
    struct choice *c = arg;
    pthread_mutex_lock(&c->g->lock);
    c->started = true;
    pthread_mutex_unlock(&c->g->lock);
    return true;
}

static void observe_end(const struct choice *c)
{
    static const enum metrics_finish finish[] = {
        [PM_FINISH_LENGTH] = METRICS_LENGTH,     [PM_FINISH_EOS] = METRICS_STOP,
        [PM_FINISH_STOP] = METRICS_STOP,         [PM_FINISH_CALLER] = METRICS_ABORT,
        [PM_FINISH_DEADLINE] = METRICS_DEADLINE,
    };
    const pm_result *r = &c->result;
    struct metrics *m = &c->g->call->server->metrics;
    enum metrics_finish f = c->status != PM_OK ? METRICS_ERROR : finish[r->finish];
    atomic_fetch_add_explicit(&m->finish[f], 1, memory_order_relaxed);
    metrics_observe_us(m, METRICS_e2e_request_latency_seconds,
                       now_us() - c->g->call->arrival_us);
    if (c->status != PM_OK) return;
    metrics_observe_us(m, METRICS_request_queue_time_seconds, r->queue_us);
    metrics_observe_us(m, METRICS_request_prefill_time_seconds, r->prompt_us);
    metrics_observe_us(m, METRICS_request_decode_time_seconds, r->generate_us);
    metrics_observe(m, METRICS_request_prompt_tokens, r->n_prompt);
    metrics_observe(m, METRICS_request_generation_tokens, r->n_generated);
}

/* One of n_open is over. */
static void close_one(struct generation *g)
{
    bool last = atomic_fetch_sub(&g->n_open, 1) == 1;
    if (g->streaming) {
        call_wake(g->call);
    } else if (last) {
        call_finish(g->call);
    }
}

static void on_end(void *arg, pm_status status, const char *error, const pm_result *result)
{
    struct choice *c = arg;
    struct generation *g = c->g;
    struct call *call = g->call;
    pthread_mutex_lock(&g->lock);
    c->status = status;
    if (status == PM_OK) {
        c->result = *result;
    } else {
        snprintf(c->error, sizeof c->error, "%s", error ? error : pm_status_text(status));
    }
    if (c->lost && c->status == PM_OK) {
        c->status = PM_ERR_NOMEM;
        snprintf(c->error, sizeof c->error, "no memory for the text");
    }
    c->ended = true;
    pthread_mutex_unlock(&g->lock);
    observe_end(c);
    close_one(g);
    call_release(call);
}

/* ------------------------------------------------------------------ reading the tape */

void generation_swap(struct generation *g)
{
    struct tape old = g->taken;
    old.n = 0;
    pthread_mutex_lock(&g->lock);
    g->taken = g->tape;
    g->tape = old;
    pthread_mutex_unlock(&g->lock);
}

bool generation_next(const struct generation *g, size_t *at, struct tape_record *record,
                     const char **text, const char **top)
{
    const struct tape *t = &g->taken;
    if (*at >= t->n) return false;
    memcpy(record, t->byte + *at, sizeof *record);
    *at += sizeof *record;
    *text = t->byte + *at;
    *at += (size_t)record->n_text;
    *top = t->byte + *at;
    *at += (size_t)record->n_top * sizeof(pm_candidate);
    return true;
}

/* ------------------------------------------------------------------ the job */

static void cancel(struct job *j)
{
    struct generation *g = (struct generation *)j;
    atomic_store(&g->cancelled, true);
    for (int i = 0; i < g->n_choice; i++) {
        pm_request *r;
        pthread_mutex_lock(&g->lock);
        r = g->choice[i].request;
        pthread_mutex_unlock(&g->lock);
        if (r) pm_cancel(r);
    }
}

static void free_choice(struct choice *c)
{
    pm_request_free(c->request);
    toolcall_close(c->parser);
    free(c->text.text);
    free(c->reasoning.text);
    free(c->arguments.text);
    free(c->calls.text);
    free(c->ids.text);
    for (int i = 0; i < 4; i++) {
        free(c->column[i].text);
    }
}

static void free_generation(struct job *j)
{
    struct generation *g = (struct generation *)j;
    struct server *s = g->call->server;
    for (int i = 0; i < g->n_choice; i++) {
        free_choice(&g->choice[i]);
    }
    for (int i = 0; i < g->n_prompt; i++) {
        free(g->prompt[i].ids);
    }
    openai_request_clear(&g->r);
    free(g->choice);
    free(g->prompt);
    free(g->tape.byte);
    free(g->taken.byte);
    free(g->head.text);
    pthread_mutex_destroy(&g->lock);
    free(g);
    atomic_fetch_sub(&s->n_job, 1);
}

static const struct job_calls calls = {openai_read_stream, openai_finish, cancel,
                                       free_generation};

/* ------------------------------------------------------------------ prompts */

static pm_status ids_of(struct generation *g, struct prompt *p, const json *list)
{
    const struct openai *o = g->call->server->openai;
    size_t n = 0;
    if (json_size(list) > o->context) {
        return fail(PM_ERR_TOO_LONG, "the prompt has %d tokens, the context is %d",
                    json_size(list), o->context);
    }
    TRY(alloc_array(&p->ids, (size_t)json_size(list), sizeof *p->ids, "prompt"));
    for (const json *v = json_child(list); v; v = json_next(v)) {
        int64_t id;
        if (!json_integer(v, &id) || id < 0 || id >= o->vocab) {
            return json_fail(g->r.doc, v, "a token id of the model");
        }
        p->ids[n++] = (int32_t)id;
    }
    p->n = n;
    return PM_OK;
}

/* Megabytes that cannot fit are refused before they keep a worker tokenising. Normalisation may
 * shrink a text, by far less than the slack here. */
static pm_status check_text(const struct openai *o, size_t n)
{
    enum { SLACK = 4 };
    if (o->max_piece == 0 || n / (SLACK * o->max_piece) <= (size_t)o->context) return PM_OK;
    return fail(PM_ERR_TOO_LONG,
                "the prompt has %zu bytes, the context is %d tokens of at most %zu bytes", n,
                o->context, o->max_piece);
}

static pm_status one_prompt(struct generation *g, struct prompt *p, const json *v)
{
    const struct openai *o = g->call->server->openai;
    if (json_is_array(v)) {
        TRY(ids_of(g, p, v));
    } else if (json_is_string(v)) {
        p->text = json_text(v);
        p->n_text = json_text_bytes(v);
        TRY(check_text(o, p->n_text));
        TRY(pm_tokenize(o->engine, p->text, p->n_text, g->r.add_special_tokens, true, &p->ids,
                        &p->n));
    } else {
        return json_fail(g->r.doc, v, "a text or a list of token ids");
    }
    if (p->n == 0 && o->bos >= 0) { /* an empty prompt begins a text */
        free(p->ids);
        p->ids = NULL;
        TRY(alloc_array(&p->ids, 1, sizeof *p->ids, "prompt"));
        p->ids[p->n++] = o->bos;
    }
    if (p->n == 0) return json_fail(g->r.doc, v, "at least one token");
    return PM_OK;
}

static pm_status read_prompts(struct generation *g)
{
    const json *v = g->r.prompt, *first = json_is_array(v) ? json_child(v) : NULL;
    bool many = first && !json_is_number(first);
    int n = many ? json_size(v) : 1;
    g->r.param = "prompt";
    if (n > OPENAI_MAX_PROMPT || n * g->r.n > OPENAI_MAX_CHOICE) {
        return fail(PM_ERR_ARG,
                    "request: prompt: found %d prompts with n %d, wanted at most %d "
                    "prompts and %d choices",
                    n, g->r.n, OPENAI_MAX_PROMPT, OPENAI_MAX_CHOICE);
    }
    TRY(alloc_array(&g->prompt, (size_t)n, sizeof *g->prompt, "prompts"));
    g->n_prompt = n;
    if (!many) return one_prompt(g, &g->prompt[0], v);
    for (int i = 0; i < n; i++, first = json_next(first)) {
        TRY(one_prompt(g, &g->prompt[i], first));
    }
    return PM_OK;
}

static pm_status read_messages(struct generation *g)
{
    const struct openai *o = g->call->server->openai;
    struct marked_text text = {0};
    pm_status status;
    g->r.param = "messages";
    TRY(alloc_array(&g->prompt, 1, sizeof *g->prompt, "prompt"));
    g->n_prompt = 1;
    TRY(openai_render(o, &g->r, &text));
    status = check_text(o, text.n);
    if (status == PM_OK)
        status = chat_tokenize(&text, o->tokenizer, &g->prompt[0].ids, &g->prompt[0].n);
    g->style = o->style;
    g->style.starts_reasoning = o->style.reasoning && toolcall_starts_reasoning(&text);
    marked_text_clear(&text);
    return status;
}

/* In harmony a call is a message of its own with a header, which a schema would forbid. */
static pm_status check_style(struct generation *g)
{
    if (g->r.tool_choice < TOOLS_REQUIRED || g->style.format != TOOLCALL_HARMONY) return PM_OK;
    g->r.param = "tool_choice";
    return fail(PM_ERR_UNSUPPORTED,
                "request: tool_choice: found a call that must come, wanted auto or none: this "
                "model's answers are messages with headers");
}

static pm_status check_lengths(struct generation *g)
{
    int context = g->call->server->openai->context;
    for (int i = 0; i < g->n_prompt; i++) {
        size_t n = g->prompt[i].n + (g->r.params.max_tokens > 0);
        if (n > (size_t)context) {
            return fail(
                PM_ERR_TOO_LONG,
                "the prompt has %zu tokens, the context is %d and a token more is wanted",
                g->prompt[i].n, context);
        }
    }
    return PM_OK;
}

/* ------------------------------------------------------------------ submitting */

static pm_status open_parser(struct generation *g, struct choice *c)
{
    const struct openai *o = g->call->server->openai;
    struct toolcall_style style = g->style;
    bool wanted = g->r.tools && g->r.tool_choice == TOOLS_AUTO;
    if (g->r.endpoint != OPENAI_CHAT || g->r.params.schema) return PM_OK;
    /* Harmony's channels have to be read in any case. */
    if (!wanted && style.format != TOOLCALL_HARMONY) style.format = TOOLCALL_NONE;
    if (style.format == TOOLCALL_NONE && !style.reasoning) return PM_OK;
    return toolcall_open(&c->parser, style, o->tokenizer, g->r.tools,
                         g->r.seed + (uint64_t)c->index);
}

static pm_status open_choices(struct generation *g)
{
    g->n_choice = 0;
    TRY(alloc_array(&g->choice, (size_t)(g->n_prompt * g->r.n), sizeof *g->choice, "choices"));
    for (int i = 0; i < g->n_prompt * g->r.n; i++) {
        g->choice[i].g = g;
        g->choice[i].index = i;
        g->n_choice++;
        TRY(open_parser(g, &g->choice[i]));
    }
    return PM_OK;
}

static pm_status submit(struct generation *g, struct choice *c)
{
    const struct server *s = g->call->server;
    const struct prompt *p = &g->prompt[c->index / g->r.n];
    pm_params params = g->r.params;
    pm_request *request = NULL;
    pm_status status;
    params.seed = g->r.seed + (uint64_t)(c->index % g->r.n);
    params.max_tokens =
        (int32_t)min_i64(params.max_tokens, (int64_t)s->openai->context - (int64_t)p->n);
    params.go_on = on_prompt;
    call_hold(g->call);
    atomic_fetch_add(&g->n_open, 1);
    status = pm_submit(&request, s->engine, p->ids, p->n, &params, on_token, on_end, c);
    if (status != PM_OK) {
        atomic_fetch_sub(&g->n_open, 1);
        call_release(g->call);
        return status;
    }
    pthread_mutex_lock(&g->lock);
    c->request = request;
    pthread_mutex_unlock(&g->lock);
    if (atomic_load(&g->cancelled)) pm_cancel(request);
    return PM_OK;
}

static pm_status prepare(struct generation *g)
{
    struct openai_request *r = &g->r;
    if (!r->seeded && getrandom(&r->seed, sizeof r->seed, 0) != (ssize_t)sizeof r->seed) {
        return fail(PM_ERR_IO, "getrandom failed");
    }
    r->params.key = g->call->tenant;
    if (r->salt) r->params.salt = auth_hash(&g->call->server->o.auth, r->salt);
    TRY(r->endpoint == OPENAI_CHAT ? read_messages(g) : read_prompts(g));
    TRY(check_lengths(g));
    TRY(check_style(g));
    r->param = NULL;
    return open_choices(g);
}

static pm_status submit_all(struct generation *g)
{
    for (int i = 0; i < g->n_choice; i++) {
        TRY(submit(g, &g->choice[i]));
    }
    return PM_OK;
}

bool generation_start(struct call *c, struct openai_request *r)
{
    struct generation *g;
    pm_status status = alloc_array(&g, 1, sizeof *g, "generation");
    if (status != PM_OK) {
        openai_request_clear(r);
        call_refuse_status(c, status, NULL);
        return true;
    }
    g->job.calls = &calls;
    g->call = c;
    g->r = *r;
    /* They point into the request. */
    g->r.params.stop = g->r.stop;
    g->created_s = (int64_t)time(NULL);
    g->streaming = g->r.stream;
    pthread_mutex_init(&g->lock, NULL);
    atomic_fetch_add(&c->server->n_job, 1);
    status = prepare(g);
    atomic_store(&g->n_open, 1);
    call_set_job(c, &g->job);
    if (status == PM_OK) status = submit_all(g);
    if (status != PM_OK) {
        call_refuse_status(c, status, g->r.param);
        /* What was submitted ends by itself; n_open never comes to 0, so nobody answers. */
        cancel(&g->job);
        return true;
    }
    if (g->streaming) call_stream(c);
    close_one(g);
    return g->streaming;
}

/* ------------------------------------------------------------------ requests at work */

/* A request of c's key that has not ended; under the other's lock. */
static bool is_ours(const struct call *c, const struct call *other)
{
    const struct generation *g = (const struct generation *)other->job;
    return g && other->tenant == c->tenant && atomic_load(&g->n_open) > 0;
}

static void put_request(struct json_out *o, struct call *c)
{
    struct generation *g = (struct generation *)c->job;
    int64_t n_prompt = 0, n_generated = 0, n_cached = 0;
    bool started = false, running = false;
    for (int i = 0; i < g->n_prompt; i++) {
        n_prompt += (int64_t)g->prompt[i].n;
    }
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < g->n_choice; i++) {
        const struct choice *h = &g->choice[i];
        n_generated += h->n_generated;
        n_cached += h->ended ? h->result.n_cached : 0;
        started |= h->started;
        running |= h->n_generated > 0;
    }
    pthread_mutex_unlock(&g->lock);
    json_put(o,
             "{\"id\":\"%s\",\"state\":\"%s\",\"prompt_tokens\":%lld,\"cached_tokens\":%lld,"
             "\"generated_tokens\":%lld,\"choices\":%d,\"stream\":%s,\"age_ms\":%lld}",
             c->id,
             running   ? "decode"
             : started ? "prefill"
                       : "waiting",
             (long long)n_prompt, (long long)n_cached, (long long)n_generated, g->n_choice,
             g->streaming ? "true" : "false", (long long)((now_us() - c->arrival_us) / 1000));
}

void generation_list(struct call *c, struct json_out *o)
{
    struct server *s = c->server;
    bool first = true;
    json_put(o, "{\"requests\":[");
    pthread_mutex_lock(&s->lock);
    for (struct call *other = s->calls; other; other = other->next) {
        pthread_mutex_lock(&other->lock);
        bool ours = is_ours(c, other);
        pthread_mutex_unlock(&other->lock);
        if (!ours) continue;
        if (!first) json_put(o, ",");
        first = false;
        put_request(o, other);
    }
    pthread_mutex_unlock(&s->lock);
    json_put(o, "]}");
}

bool generation_cancel(struct call *c, const char *id)
{
    struct server *s = c->server;
    struct call *found = NULL;
    pthread_mutex_lock(&s->lock);
    for (struct call *other = s->calls; other && !found; other = other->next) {
        pthread_mutex_lock(&other->lock);
        if (is_ours(c, other) && strcmp(other->id, id) == 0) found = other;
        pthread_mutex_unlock(&other->lock);
    }
    if (found && !call_hold_live(found)) found = NULL;
    pthread_mutex_unlock(&s->lock);
    if (!found) return false;
    cancel(found->job);
    call_release(found);
    return true;
}
