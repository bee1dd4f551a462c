/* engine.c - a model, its tokenizer and one sequence: text in, text out.
 *
 * Generation is prefill in steps of `batch` rows, then one row a step. Detokenised bytes pass
 * through a small gate that holds back what may be the beginning of a stop text; unfinished
 * UTF-8 is held back by the detokeniser before that. */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/options.h"
#include "runtime/sampling.h"
#include "runtime/sequence.h"

struct pm_engine {
    struct model *model;
    struct tokenizer *tokenizer;
    struct sequence sequence;
    float *logits; /* [V] */
    const char *path;
};

static pm_status kv_type(int *out, const char *name)
{
    static const struct {
        const char *name;
        int type;
    } types[] = {{"auto", -1}, {"f32", PM_F32}, {"f16", PM_F16}, {"bf16", PM_BF16}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *out = types[i].type;
            return PM_OK;
        }
    }
    return fail(PM_ERR_ARG, "kv-type: found \"%s\", wanted auto, f32, f16 or bf16", name);
}

/* Rows whose logits a step gives: as many as keep them within 64 MiB, for scoring. */
static int output_rows(int vocab, int batch)
{
    return (int)max_i64(1, min_i64(batch, (16 << 20) / max_i64(vocab, 1)));
}

static pm_status open_model(pm_engine *e, const char *path, const struct pm_options *o)
{
    struct model_options m = {.device = o->device,
                              .n_thread = o->threads,
                              .max_row = o->batch,
                              .context = o->context};
    struct config *c;
    TRY(kv_type(&m.kv_type, o->kv_type));
    TRY(config_load(&c, path));
    m.max_out = output_rows(c->vocab, o->batch);
    config_free(c);
    return model_open(&e->model, path, &m);
}

static pm_status open_tokenizer(pm_engine *e, const char *path)
{
    char file[4096];
    snprintf(file, sizeof file, "%s/tokenizer.json", path);
    if (access(file, F_OK) != 0) return PM_OK;
    return tokenizer_open(&e->tokenizer, file);
}

pm_status pm_engine_open(pm_engine **out, const char *path, const pm_options *options)
{
    pm_engine *e;
    pm_options *defaults = NULL;
    pm_status status;
    TRY(alloc_array(&e, 1, sizeof *e, "engine"));
    if (!options) {
        TRY_DONE(pm_options_new(&defaults));
        options = defaults;
    }
    TRY_DONE(open_tokenizer(e, path));
    TRY_DONE(open_model(e, path, options));
    TRY_DONE(sequence_open(&e->sequence, e->model));
    TRY_DONE(alloc_array(&e->logits, (size_t)model_config(e->model)->vocab, sizeof *e->logits,
                         "logits"));
    *out = e;
    e = NULL;
done:
    pm_options_free(defaults);
    pm_engine_close(e);
    return status;
}

void pm_engine_close(pm_engine *e)
{
    if (!e) return;
    sequence_close(&e->sequence);
    model_close(e->model);
    tokenizer_close(e->tokenizer);
    free(e->logits);
    free(e);
}

struct model *engine_model(pm_engine *e)
{
    return e->model;
}

const struct tokenizer *engine_tokenizer(const pm_engine *e)
{
    return e->tokenizer;
}

pm_status pm_engine_info(const pm_engine *e, pm_info *out)
{
    const struct config *c = model_config(e->model);
    const struct model_plan *p = model_plan(e->model);
    *out = (pm_info){
        .family = c->model_type,
        .device = model_device(e->model),
        .dtype = c->dtype,
        .n_layer = c->n_layer,
        .n_expert = c->gate.n_expert,
        .n_expert_per_token = c->gate.top_k,
        .vocab_size = c->vocab,
        .context = model_limits(e->model)->context,
        .file_bytes = p->file_bytes,
        .copied_bytes = p->copied_bytes,
        .kv_bytes = p->kv_bytes,
        .step_bytes = p->step_bytes,
    };
    config_parameters(c, &out->n_parameter, &out->n_active_parameter);
    return PM_OK;
}

static pm_status need_tokenizer(const pm_engine *e)
{
    if (e->tokenizer) return PM_OK;
    return fail(PM_ERR_IO,
                "the model's folder has no tokenizer.json, so it takes token ids only");
}

pm_status pm_tokenize(const pm_engine *e, const char *text, size_t n, bool add_special,
                      bool parse_special, int32_t **ids, size_t *n_id)
{
    int flags =
        (add_special ? TOKENIZE_ADD_SPECIAL : 0) | (parse_special ? TOKENIZE_PARSE_SPECIAL : 0);
    int32_t *list = NULL;
    size_t capacity = 0, count = 0;
    pm_status status;
    TRY(need_tokenizer(e));
    status = tokenizer_encode(e->tokenizer, text, n, flags, &list, &capacity, &count);
    if (status != PM_OK) {
        free(list);
        return status;
    }
    *ids = list;
    *n_id = count;
    return PM_OK;
}

static pm_status append(char **text, size_t *capacity, size_t *n, const char *more,
                        size_t n_more)
{
    TRY(grow_array(text, capacity, *n + n_more + 1, 1));
    memcpy(*text + *n, more, n_more);
    *n += n_more;
    (*text)[*n] = 0;
    return PM_OK;
}

pm_status pm_detokenize(const pm_engine *e, const int32_t *ids, size_t n_id, char **text,
                        size_t *n)
{
    struct detokenizer *d = NULL;
    char *all = NULL;
    const char *piece;
    size_t capacity = 0, length = 0, n_piece;
    pm_status status;
    TRY(need_tokenizer(e));
    TRY(detokenizer_open(&d, e->tokenizer, false));
    for (size_t i = 0; i < n_id; i++) {
        TRY_DONE(detokenizer_add(d, ids[i], &piece, &n_piece));
        TRY_DONE(append(&all, &capacity, &length, piece, n_piece));
    }
    TRY_DONE(detokenizer_flush(d, &piece, &n_piece));
    TRY_DONE(append(&all, &capacity, &length, piece, n_piece));
    *text = all;
    *n = length;
    all = NULL;
done:
    free(all);
    detokenizer_close(d);
    return status;
}

void pm_free(void *p)
{
    free(p);
}

void pm_params_init(pm_params *p)
{
    *p = (pm_params){.max_tokens = 256, .top_p = 1, .repeat_penalty = 1};
}

/* The state of one generation. */
struct generation {
    pm_engine *e;
    const pm_params *p;
    pm_on_token *call;
    void *arg;
    struct sampler *sampler;
    struct detokenizer *detokenizer; /* NULL: no tokenizer */
    struct candidate *top;
    char *held; /* bytes not given out yet */
    size_t n_held, max_held;
    int32_t *recent; /* [n_recent] the whole sequence */
    size_t n_recent, max_recent;
    bool stopped; /* a stop text was found */
};

/* Where a stop text begins in the held bytes, or where it may yet begin: *complete tells. */
static size_t find_stop(const struct generation *g, bool *complete)
{
    size_t at = g->n_held;
    *complete = false;
    for (int i = 0; i < g->p->n_stop; i++) {
        const char *stop = g->p->stop[i];
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

/* Adds bytes and gives out what cannot belong to a stop text. False: the caller wants no more.
 */
static pm_status give(struct generation *g, struct candidate c, int n_top, const char *text,
                      size_t n, bool last, bool *go_on)
{
    size_t ready;
    bool complete;
    pm_token token = {.id = c.id,
                      .logprob = c.logprob,
                      .n_top = n_top,
                      .top = (const pm_candidate *)(const void *)g->top};
    TRY(append(&g->held, &g->max_held, &g->n_held, text, n));
    ready = find_stop(g, &complete);
    if (last && !complete) ready = g->n_held;
    if (complete) g->stopped = true;
    token.text = g->held;
    token.n_text = ready;
    if (g->call) *go_on = g->call(g->arg, &token);
    memmove(g->held, g->held + ready, g->n_held - ready);
    g->n_held -= ready;
    return PM_OK;
}

static bool is_end(const pm_engine *e, int32_t id)
{
    const struct config *c = model_config(e->model);
    for (int i = 0; i < c->n_eos; i++) {
        if (c->eos[i] == id) return true;
    }
    return false;
}

static pm_status remember(struct generation *g, int32_t id)
{
    TRY(grow_array(&g->recent, &g->max_recent, g->n_recent + 1, sizeof *g->recent));
    g->recent[g->n_recent++] = id;
    return PM_OK;
}

/* Text of a token; for an id without text, nothing. */
static pm_status token_text(struct generation *g, int32_t id, const char **text, size_t *n)
{
    *text = "";
    *n = 0;
    return g->detokenizer ? detokenizer_add(g->detokenizer, id, text, n) : PM_OK;
}

static pm_status generate_tokens(struct generation *g, pm_result *r)
{
    pm_engine *e = g->e;
    int n_top = g->p->n_logprob;
    bool go_on = true;
    int64_t start = now_us();
    r->finish = PM_FINISH_LENGTH;
    for (int i = 0; i < g->p->max_tokens; i++) {
        struct candidate c;
        const char *text;
        size_t n;
        TRY(sampler_pick(g->sampler, e->logits, g->recent, (int)g->n_recent,
                         (int64_t)g->n_recent, &c));
        if (n_top) sampler_top(g->sampler, n_top, g->top);
        if (!g->p->ignore_eos && is_end(e, c.id)) {
            r->finish = PM_FINISH_EOS;
            break;
        }
        TRY(remember(g, c.id));
        TRY(token_text(g, c.id, &text, &n));
        r->n_generated++;
        TRY(give(g, c, n_top, text, n, false, &go_on));
        r->generate_us = now_us() - start;
        if (g->stopped || !go_on) {
            r->finish = g->stopped ? PM_FINISH_STOP : PM_FINISH_CALLER;
            break;
        }
        if (e->sequence.n_past >= model_limits(e->model)->context ||
            i + 1 == g->p->max_tokens) {
            break;
        }
        TRY(sequence_feed(&e->sequence, &c.id, 1, e->logits, false));
        r->generate_bytes += model_step_bytes(e->model, 1);
    }
    return PM_OK;
}

/* What the detokeniser and the stop gate still hold. */
static pm_status flush(struct generation *g)
{
    const char *text = "";
    size_t n = 0;
    bool go_on = true;
    struct candidate none = {-1, 0};
    if (g->stopped) return PM_OK;
    if (g->detokenizer) TRY(detokenizer_flush(g->detokenizer, &text, &n));
    if (n == 0 && g->n_held == 0) return PM_OK;
    return give(g, none, 0, text, n, true, &go_on);
}

static pm_status open_generation(struct generation *g)
{
    const pm_params *p = g->p;
    struct sampling s = {.temperature = p->temperature,
                         .top_k = p->top_k,
                         .top_p = p->top_p,
                         .min_p = p->min_p,
                         .repeat_penalty = p->repeat_penalty,
                         .seed = p->seed};
    int vocab = model_config(g->e->model)->vocab;
    if (p->n_logprob < 0 || p->n_logprob > 32) {
        return fail(PM_ERR_ARG, "logprobs: found %d, wanted 0 to 32", p->n_logprob);
    }
    TRY(sampler_open(&g->sampler, vocab, &s));
    TRY(alloc_array(&g->top, (size_t)max_i64(1, p->n_logprob), sizeof *g->top, "logprobs"));
    if (!g->e->tokenizer) return PM_OK;
    return detokenizer_open(&g->detokenizer, g->e->tokenizer, true);
}

/* Feeds the prompt, a step at a time while the caller wants more; *n_fed counts tokens. */
static pm_status feed_prompt(struct generation *g, const int32_t *ids, int n, int *n_fed)
{
    int step = model_limits(g->e->model)->max_row;
    for (*n_fed = 0; *n_fed < n;) {
        int part = (int)min_i64(step, n - *n_fed);
        bool last = *n_fed + part == n;
        if (g->p->go_on && !g->p->go_on(g->arg)) return PM_OK;
        TRY(sequence_feed(&g->e->sequence, ids + *n_fed, part, last ? g->e->logits : NULL,
                          false));
        *n_fed += part;
    }
    return PM_OK;
}

pm_status pm_generate_ids(pm_engine *e, const int32_t *ids, size_t n_id,
                          const pm_params *params, pm_on_token *call, void *arg,
                          pm_result *result)
{
    struct generation g = {.e = e, .p = params, .call = call, .arg = arg};
    pm_result r = {.finish = PM_FINISH_CALLER};
    int64_t start = now_us();
    pm_status status;
    if (n_id == 0) return fail(PM_ERR_ARG, "the prompt has no tokens");
    if (n_id > (size_t)model_limits(e->model)->context) {
        return fail(PM_ERR_TOO_LONG, "the prompt has %zu tokens, the context is %d", n_id,
                    model_limits(e->model)->context);
    }
    TRY_DONE(open_generation(&g));
    for (size_t i = 0; i < n_id; i++) {
        TRY_DONE(remember(&g, ids[i]));
    }
    sequence_rewind(&e->sequence, 0);
    TRY_DONE(feed_prompt(&g, ids, (int)n_id, &r.n_prompt));
    r.prompt_us = now_us() - start;
    if (r.n_prompt == (int32_t)n_id) {
        TRY_DONE(generate_tokens(&g, &r));
        TRY_DONE(flush(&g));
    }
    if (result) *result = r;
done:
    sampler_close(g.sampler);
    detokenizer_close(g.detokenizer);
    free(g.top);
    free(g.held);
    free(g.recent);
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

/* Scores ids[first .. first + n - 1] after feeding them; the first of them is given. */
static pm_status score_window(pm_engine *e, const int32_t *ids, int n, int n_skip,
                              float *logprob, float *all)
{
    int vocab = model_config(e->model)->vocab;
    int step = (int)min_i64(model_limits(e->model)->max_out, model_limits(e->model)->max_row);
    float *logits = NULL;
    pm_status status;
    sequence_rewind(&e->sequence, 0);
    TRY(alloc_array(&logits, (size_t)step * (size_t)vocab, sizeof *logits, "logits"));
    for (int i = 0; i < n; i += step) {
        int part = (int)min_i64(step, n - i);
        TRY_DONE(sequence_feed(&e->sequence, ids + i, part, logits, true));
        if (all) {
            memcpy(all + (size_t)i * (size_t)vocab, logits,
                   (size_t)part * (size_t)vocab * sizeof *logits);
        }
        for (int j = i; j < i + part && j + 1 < n; j++) {
            if (j + 1 < n_skip) continue;
            logprob[j] = (float)log_probability(logits + (size_t)(j - i) * (size_t)vocab, vocab,
                                                ids[j + 1]);
        }
    }
    status = PM_OK;
done:
    free(logits);
    return status;
}

pm_status pm_score(pm_engine *e, const int32_t *ids, size_t n_id, float *logprob, float *logits)
{
    size_t context = (size_t)model_limits(e->model)->context, half = (context + 1) / 2;
    if (n_id < 1) return fail(PM_ERR_ARG, "there are no tokens to score");
    for (size_t i = 0; i < n_id; i++) {
        if (ids[i] < 0 || ids[i] >= model_config(e->model)->vocab) {
            return fail(PM_ERR_ARG, "token %zu: found %d, the vocabulary has %d", i, ids[i],
                        model_config(e->model)->vocab);
        }
    }
    if (n_id <= context) return score_window(e, ids, (int)n_id, 1, logprob, logits);
    if (logits) {
        return fail(PM_ERR_TOO_LONG, "logits of %zu tokens, the context is %zu", n_id, context);
    }
    for (size_t first = 0; first + 1 < n_id; first += half) {
        size_t n = n_id - first < context ? n_id - first : context;
        size_t skip = first == 0 ? 1 : context - half; /* what the last window has scored */
        TRY(score_window(e, ids + first, (int)n, (int)skip, logprob + first, NULL));
        if (first + n == n_id) break;
    }
    return PM_OK;
}
