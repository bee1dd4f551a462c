/* engine.c - a model, its tokenizer, and requests that share them.
 *
 * Opening takes all memory of the steps; the thread that runs them (engine_step.c) starts with
 * the first request. pm_generate and pm_score are requests that are waited for, so that there
 * is one way to the model. */
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "runtime/engine/engine_inside.h"
#include "runtime/options.h"

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

/* Rows whose logits a step gives: one for each sequence, and for prompts that are scored as
 * many as keep them within 64 MiB. */
static int output_rows(int vocab, int batch, int max_seq)
{
    int64_t n = min_i64(batch, (16 << 20) / max_i64(vocab, 1));
    return (int)max_i64(max_seq, n);
}

/* Tokens of the cache: a sequence of the whole context for each seat, up to a few. */
static int64_t cache_tokens(const struct pm_options *o, int context, int max_seq)
{
    enum { WHOLE = 8 };
    int64_t blocks = (context + KV_BLOCK - 1) / KV_BLOCK;
    if (o->kv_tokens) return o->kv_tokens;
    return min_i64(max_seq, WHOLE) * blocks * KV_BLOCK;
}

pm_status engine_model_options(struct model_options *out, const char *path,
                               const struct pm_options *o)
{
    struct model_options m = {.device = o->device, .n_thread = o->threads, .max_row = o->batch};
    struct config *c;
    TRY(kv_type(&m.kv_type, o->kv_type));
    TRY(config_load(&c, path));
    m.context = o->context ? o->context : (int)min_i64(c->max_position, 4096);
    m.max_seq = (int)min_i64(o->max_seqs, o->batch);
    m.max_out = output_rows(c->vocab, o->batch, m.max_seq);
    m.kv_token = cache_tokens(o, m.context, m.max_seq);
    config_free(c);
    *out = m;
    return PM_OK;
}

static pm_status open_model(pm_engine *e, const char *path, const struct pm_options *o)
{
    struct model_options m;
    TRY(engine_model_options(&m, path, o));
    return model_open(&e->model, path, &m);
}

static pm_status open_tokenizer(pm_engine *e, const char *path)
{
    char file[4096];
    snprintf(file, sizeof file, "%s/tokenizer.json", path);
    if (access(file, F_OK) != 0) return PM_OK;
    return tokenizer_open(&e->tokenizer, file);
}

static pm_status open_scheduler(pm_engine *e, const struct pm_options *o)
{
    const struct model_options *m = model_limits(e->model);
    struct scheduler_options s = {.max_row = m->max_row,
                                  .max_seq = m->max_seq,
                                  .max_out = m->max_out,
                                  .context = m->context,
                                  .max_waiting = o->max_queue,
                                  .max_waiting_token = o->max_queue_tokens,
                                  .n_block = model_blocks(e->model),
                                  .stretch = o->decode_slowdown,
                                  .prefix_cache = o->prefix_cache};
    if (getrandom(&s.secret, sizeof s.secret, 0) != sizeof s.secret) {
        return fail(PM_ERR_IO, "no random numbers for the cache's hashes");
    }
    return scheduler_open(&e->scheduler, &s);
}

static pm_status open_tools(pm_engine *e)
{
    const struct config *c = model_config(e->model);
    e->tools.end_id = c->eos;
    e->tools.n_end = c->n_eos;
    TRY(alloc_array(&e->tools.allowed, (size_t)(c->vocab + 31) / 32, sizeof *e->tools.allowed,
                    "mask"));
    return sampler_open(&e->tools.sampler, c->vocab);
}

pm_status pm_engine_open(pm_engine **out, const char *path, const pm_options *options)
{
    pm_engine *e;
    pm_options *defaults = NULL;
    pm_status status;
    TRY(alloc_array(&e, 1, sizeof *e, "engine"));
    pthread_mutex_init(&e->lock, NULL);
    pthread_mutex_init(&e->vocabulary_lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_cond_init(&e->done, NULL);
    e->last_job = &e->job;
    if (!options) {
        TRY_DONE(pm_options_new(&defaults));
        options = defaults;
    }
    TRY_DONE(open_tokenizer(e, path));
    TRY_DONE(open_model(e, path, options));
    TRY_DONE(open_scheduler(e, options));
    TRY_DONE(engine_batch_open(&e->batch, e->model));
    TRY_DONE(open_tools(e));
    TRY_DONE(alloc_array(&e->told, (size_t)model_limits(e->model)->max_seq, sizeof *e->told,
                         "requests"));
    e->overlaps = model_overlaps(e->model);
    *out = e;
    e = NULL;
done:
    pm_options_free(defaults);
    pm_engine_close(e);
    return status;
}

static void stop_thread(pm_engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->closing = true;
    pthread_cond_broadcast(&e->work);
    pthread_mutex_unlock(&e->lock);
    if (e->started) pthread_join(e->thread, NULL);
}

void pm_engine_close(pm_engine *e)
{
    if (!e) return;
    stop_thread(e);
    scheduler_close(&e->scheduler);
    engine_batch_close(&e->batch);
    sampler_close(e->tools.sampler);
    free(e->tools.allowed);
    free(e->told);
    grammar_vocabulary_close(e->vocabulary);
    model_close(e->model);
    tokenizer_close(e->tokenizer);
    free(e->expert_count);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->done);
    pthread_mutex_destroy(&e->lock);
    pthread_mutex_destroy(&e->vocabulary_lock);
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
