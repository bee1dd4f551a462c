/* model.c - the straight-line layer loop, the same for every family.
 *
 *   x = embed(id)
 *   per layer:  x += o(attention(rope(norm(q)), ...)),  x += experts(norm(x)) [+ shared expert]
 *   logits = head(norm(x)[out rows])
 *
 * All buffers of a step are taken at open, for max_row rows; a step allocates nothing. What
 * differs between families is data in struct config. A dense model runs the same code: its MLP
 * is an expert that every row visits. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experts.h"
#include "kvpool.h"
#include "weights.h"

/* Device arrays of a step. */
struct step {
    float *x;             /* [T, D] residual stream */
    void *h;              /* [T, D] normalised rows, narrow */
    float *change;        /* [T, D] what a block adds to x; h where that is F32 */
    float *q, *k, *v;     /* [T, H k_dim], [T, G k_dim], [T, G v_dim] */
    float *latent;        /* [T, q_latent] */
    void *mixed;          /* [T, H v_dim] attention's output, narrow */
    void *inner, *expert; /* [T K, F], [T K, D], narrow */
    void *scaled;         /* [T K, D] experts' input where weights scale it, narrow */
    void *shared;         /* [T, max(shared, dense)], narrow */
    float *flag;          /* [T, 1] */
    float *gate;          /* [T, E] */
    float *logits;        /* [n_out, V] */
    float *cosine, *sine; /* [T, rope.dim / 2] */
    float *temperature;   /* [T] */
    struct routing routing;
    int32_t *id, *position, *q_start, *kv_len, *block_table, *out_row, *out_offset;
    int64_t *slot;
};

struct model {
    const struct kernels *k;
    struct device *d;
    struct config *c;
    struct weights w;
    struct kvpool kv;
    struct model_options o;
    struct model_plan plan;
    struct step s;
    struct attention_rows rows;
    struct ragged out, sorted, in_place;
    float *inv_freq, rope_factor; /* [rope.dim / 2] on the device */
    float *temperature_host;      /* [max_row] */
    model_route *route;
    void *route_arg;
    int max_block;
    int64_t n_block; /* of the pool */
    pm_dtype narrow; /* type of activations that only feed linear maps */
};

static struct tensor view(float *data, int64_t rows, int64_t cols)
{
    return tensor_view(data, PM_F32, rows, cols);
}

/* Rows that only feed a linear map. */
static struct tensor narrow(const struct model *m, void *data, int64_t rows, int64_t cols)
{
    return tensor_view(data, m->narrow, rows, cols);
}

/* Takes a device array and counts it; `out` is the address of a pointer. */
static pm_status take(struct model *m, void *out, int64_t n, size_t size, const char *what)
{
    size_t bytes;
    void *p;
    if (!mul_size(&bytes, (size_t)max_i64(n, 1), size)) {
        return fail(PM_ERR_NOMEM, "%s: %lld elements are too many", what, (long long)n);
    }
    m->plan.step_bytes += bytes;
    if (m->o.plan_only) return PM_OK;
    TRY(m->k->alloc(m->d, &p, bytes, what));
    memcpy(out, &p, sizeof p);
    return PM_OK;
}

static pm_status take_activations(struct model *m)
{
    const struct config *c = m->c;
    struct step *s = &m->s;
    int64_t t = m->o.max_row, tk = t * max_i64(1, c->gate.top_k), d = c->hidden;
    int64_t q = (int64_t)c->n_head * c->head_dim, kv = (int64_t)c->n_kv_head * c->head_dim;
    int64_t mixed = q, wide = max_i64(c->dense_dim, c->shared_dim), half = c->rope.dim / 2;
    size_t size = (size_t)dtype_bits(m->narrow) / 8;
    if (c->mla.latent) {
        kv = c->mla.latent + c->mla.rope;
        mixed = (int64_t)c->n_head * c->mla.v_dim;
    }
    TRY(take(m, &s->x, t * d, sizeof(float), "residual stream"));
    TRY(take(m, &s->h, t * d, size, "normalised rows"));
    if (m->narrow == PM_F32) {
        s->change = s->h;
    } else {
        TRY(take(m, &s->change, t * d, sizeof(float), "blocks' output"));
    }
    TRY(take(m, &s->q, t * q, sizeof(float), "queries"));
    TRY(take(m, &s->k, t * kv, sizeof(float), "keys"));
    TRY(take(m, &s->v, t * kv, sizeof(float), "values"));
    TRY(take(m, &s->latent, t * c->mla.q_latent, sizeof(float), "query latent"));
    TRY(take(m, &s->mixed, t * mixed, size, "attention output"));
    TRY(take(m, &s->shared, t * wide, size, "shared expert"));
    TRY(take(m, &s->flag, t, sizeof(float), "shared gate"));
    TRY(take(m, &s->cosine, t * half, sizeof(float), "RoPE table"));
    TRY(take(m, &s->sine, t * half, sizeof(float), "RoPE table"));
    TRY(take(m, &s->temperature, t, sizeof(float), "temperatures"));
    TRY(take(m, &s->logits, (int64_t)m->o.max_out * c->vocab, sizeof(float), "logits"));
    TRY(alloc_array(&m->temperature_host, (size_t)t, sizeof(float), "temperatures"));
    if (!c->gate.n_expert) return PM_OK;
    TRY(take(m, &s->inner, tk * c->expert_dim, size, "experts' inner rows"));
    TRY(take(m, &s->expert, tk * d, size, "experts' output"));
    if (c->gate.scale_input) TRY(take(m, &s->scaled, tk * d, size, "experts' input"));
    TRY(take(m, &s->gate, t * c->gate.n_expert, sizeof(float), "gate logits"));
    TRY(take(m, &s->routing.weight, tk, sizeof(float), "routing"));
    TRY(take(m, &s->routing.id, tk, sizeof(int32_t), "routing"));
    TRY(take(m, &s->routing.source, tk, sizeof(int32_t), "routing"));
    TRY(take(m, &s->routing.place, tk, sizeof(int32_t), "routing"));
    return take(m, &s->routing.offset, c->gate.n_expert + 1, sizeof(int32_t), "routing");
}

static pm_status take_rows(struct model *m)
{
    struct step *s = &m->s;
    int64_t t = m->o.max_row, n = m->o.max_seq;
    TRY(take(m, &s->id, t, sizeof(int32_t), "ids"));
    TRY(take(m, &s->position, t, sizeof(int32_t), "positions"));
    TRY(take(m, &s->slot, t, sizeof(int64_t), "slots"));
    TRY(take(m, &s->q_start, n + 1, sizeof(int32_t), "sequence starts"));
    TRY(take(m, &s->kv_len, n, sizeof(int32_t), "sequence lengths"));
    TRY(take(m, &s->block_table, n * m->max_block, sizeof(int32_t), "block table"));
    TRY(take(m, &s->out_row, m->o.max_out, sizeof(int32_t), "output rows"));
    return take(m, &s->out_offset, 2, sizeof(int32_t), "output rows");
}

static pm_status take_rope(struct model *m)
{
    int half = m->c->rope.dim / 2;
    float *host;
    pm_status status;
    TRY(alloc_array(&host, (size_t)half, sizeof *host, "RoPE"));
    rope_frequencies(m->c, m->o.context, host, &m->rope_factor);
    TRY_DONE(take(m, &m->inv_freq, half, sizeof(float), "RoPE"));
    if (!m->o.plan_only)
        TRY_DONE(m->k->upload(m->d, m->inv_freq, host, (size_t)half * sizeof *host));
done:
    free(host);
    return status;
}

static pm_status fill_options(struct model *m, const struct model_options *o)
{
    enum { DEFAULT_CONTEXT = 4096, MAX_STEP = 65536 };
    struct model_options *to = &m->o;
    *to = *o;
    if (!to->device) to->device = "auto";
    if (!to->max_row) to->max_row = 512;
    if (!to->max_seq) to->max_seq = 1;
    if (!to->max_out) to->max_out = to->max_seq;
    if (!to->context) to->context = (int)min_i64(m->c->max_position, DEFAULT_CONTEXT);
    if (to->max_row < 1 || to->max_row > MAX_STEP) {
        return fail(PM_ERR_ARG, "batch: found %d rows, wanted 1 to %d", to->max_row, MAX_STEP);
    }
    if (to->max_seq < 1 || to->max_seq > MAX_STEP || to->max_out < 1) {
        return fail(PM_ERR_ARG, "batch: found %d sequences, wanted 1 to %d", to->max_seq,
                    MAX_STEP);
    }
    if (to->context < 1 || to->context > m->c->max_position) {
        return fail(PM_ERR_ARG, "context: found %d tokens, the model allows 1 to %d",
                    to->context, m->c->max_position);
    }
    m->max_block = (to->context + KV_BLOCK - 1) / KV_BLOCK;
    if (!to->kv_token) to->kv_token = (int64_t)to->max_seq * m->max_block * KV_BLOCK;
    return PM_OK;
}

static int64_t widest(const struct config *c)
{
    int64_t n = max_i64(c->hidden, (int64_t)c->n_head * c->head_dim);
    n = max_i64(n, max_i64(c->dense_dim, c->shared_dim));
    n = max_i64(n, max_i64(c->expert_dim, c->mla.q_latent));
    n = max_i64(n, (int64_t)c->n_head * c->mla.v_dim);
    return max_i64(n, c->mla.latent + c->mla.rope);
}

static pm_status open_device(struct model *m, const char *folder)
{
    int index;
    pm_dtype type;
    TRY(kernels_select(&m->k, &index, m->o.device));
    TRY(m->k->open(&m->d, index, m->o.n_thread));
    TRY(weights_open(&m->w, m->c, folder, m->k, m->d, m->o.plan_only));
    /* Weights wider than the narrow type deserve activations as wide as they are. */
    type = m->w.layer[0].o.type;
    m->narrow = type == PM_F32 || type == PM_F16 ? PM_F32 : m->k->narrow;
    if (m->o.kv_type < 0) {
        type = m->w.layer[0].o.type;
        m->o.kv_type = type == PM_F32 || type == PM_F16 ? type : PM_BF16;
    }
    type = (pm_dtype)m->o.kv_type;
    if (type != PM_F32 && type != PM_F16 && type != PM_BF16) {
        return fail(PM_ERR_ARG, "KV type: found %s, wanted F32, F16 or BF16", dtype_name(type));
    }
    m->n_block = (m->o.kv_token + KV_BLOCK - 1) / KV_BLOCK;
    if (!m->o.plan_only) {
        TRY(kvpool_open(&m->kv, m->k, m->d, m->c, type, m->n_block));
        TRY(m->k->reserve(m->d, (int64_t)m->o.max_row * max_i64(1, m->c->gate.top_k),
                          widest(m->c), m->o.context));
    }
    m->plan.file_bytes = safetensors_bytes(m->w.files);
    m->plan.copied_bytes = m->w.copied_bytes;
    m->plan.transposed_bytes = m->w.transposed_bytes;
    m->plan.kv_token = (uint64_t)m->n_block * KV_BLOCK;
    m->plan.kv_token_bytes = kvpool_block_bytes(m->c, type) / KV_BLOCK;
    m->plan.kv_bytes = m->plan.kv_token * m->plan.kv_token_bytes;
    return PM_OK;
}

pm_status model_open(struct model **out, const char *folder, const struct model_options *o)
{
    struct model *m;
    pm_status status;
    TRY(alloc_array(&m, 1, sizeof *m, "model"));
    TRY_DONE(config_load(&m->c, folder));
    TRY_DONE(fill_options(m, o));
    TRY_DONE(open_device(m, folder));
    TRY_DONE(take_activations(m));
    TRY_DONE(take_rows(m));
    TRY_DONE(take_rope(m));
    *out = m;
    m = NULL;
done:
    model_close(m);
    return status;
}

void model_close(struct model *m)
{
    struct step *s;
    if (!m) return;
    s = &m->s;
    if (m->d) {
        void *array[] = {s->x,
                         s->h,
                         s->change == s->h ? NULL : s->change,
                         s->q,
                         s->k,
                         s->v,
                         s->latent,
                         s->mixed,
                         s->inner,
                         s->expert,
                         s->scaled,
                         s->shared,
                         s->flag,
                         s->gate,
                         s->logits,
                         s->cosine,
                         s->sine,
                         s->temperature,
                         s->routing.weight,
                         s->routing.id,
                         s->routing.offset,
                         s->routing.source,
                         s->routing.place,
                         s->id,
                         s->position,
                         s->q_start,
                         s->kv_len,
                         s->block_table,
                         s->out_row,
                         s->out_offset,
                         s->slot,
                         m->inv_freq};
        for (size_t i = 0; i < sizeof array / sizeof *array; i++) {
            m->k->free(m->d, array[i]);
        }
        kvpool_close(&m->kv);
        weights_close(&m->w);
        m->k->close(m->d);
    }
    free(m->temperature_host);
    config_free(m->c);
    free(m);
}

static pm_status check_batch(const struct model *m, const struct batch *b)
{
    if (b->n_row < 1 || b->n_row > m->o.max_row || b->n_seq < 1 || b->n_seq > m->o.max_seq ||
        b->n_out < 0 || b->n_out > m->o.max_out || b->max_block > m->max_block) {
        return fail(PM_ERR_ARG,
                    "batch: %d rows, %d sequences, %d outputs, %d blocks; the model was opened "
                    "for %d, %d, %d, %d",
                    b->n_row, b->n_seq, b->n_out, b->max_block, m->o.max_row, m->o.max_seq,
                    m->o.max_out, m->max_block);
    }
    for (int r = 0; r < b->n_row; r++) {
        if (b->id[r] < 0 || b->id[r] >= m->c->vocab) {
            return fail(PM_ERR_ARG, "batch: token %d of row %d, the vocabulary has %d",
                        b->id[r], r, m->c->vocab);
        }
        if (b->slot[r] >= m->kv.n_block * KV_BLOCK) {
            return fail(PM_ERR_ARG, "batch: slot %lld of row %d, the pool has %lld",
                        (long long)b->slot[r], r, (long long)m->kv.n_block * KV_BLOCK);
        }
        if (b->position[r] < 0 || b->position[r] >= m->o.context) {
            return fail(PM_ERR_TOO_LONG, "batch: position %d of row %d, the context is %d",
                        b->position[r], r, m->o.context);
        }
    }
    return PM_OK;
}

static pm_status upload_batch(struct model *m, const struct batch *b)
{
    struct step *s = &m->s;
    size_t t = (size_t)b->n_row, n = (size_t)b->n_seq;
    int32_t offset[2] = {0, b->n_out};
    TRY(m->k->upload(m->d, s->id, b->id, t * sizeof *b->id));
    TRY(m->k->upload(m->d, s->position, b->position, t * sizeof *b->position));
    TRY(m->k->upload(m->d, s->slot, b->slot, t * sizeof *b->slot));
    TRY(m->k->upload(m->d, s->q_start, b->q_start, (n + 1) * sizeof *b->q_start));
    TRY(m->k->upload(m->d, s->kv_len, b->kv_len, n * sizeof *b->kv_len));
    TRY(m->k->upload(m->d, s->block_table, b->block_table,
                     n * (size_t)b->max_block * sizeof *b->block_table));
    TRY(m->k->upload(m->d, s->out_row, b->out_row, (size_t)b->n_out * sizeof *b->out_row));
    TRY(m->k->upload(m->d, s->out_offset, offset, sizeof offset));
    if (m->c->temperature_scale > 0) {
        for (int r = 0; r < b->n_row; r++) {
            float steps = floorf(((float)b->position[r] + 1) / (float)m->c->temperature_floor);
            m->temperature_host[r] = log1pf(steps) * m->c->temperature_scale + 1;
        }
        TRY(m->k->upload(m->d, s->temperature, m->temperature_host, t * sizeof(float)));
    }
    m->rows = (struct attention_rows){b->n_row,   b->n_seq,  s->position,    s->slot,
                                      s->q_start, s->kv_len, s->block_table, b->max_block};
    m->out = (struct ragged){1, b->n_out, s->out_offset, s->out_row};
    return PM_OK;
}

/* h = norm(x) */
static pm_status norm(struct model *m, int64_t rows, const struct tensor *w,
                      const struct tensor *bias)
{
    int64_t cols = m->c->hidden;
    return m->k->norm(m->d, narrow(m, m->s.h, rows, cols), view(m->s.x, rows, cols), m->c->norm,
                      w, bias->data ? bias : NULL, m->c->norm_eps);
}

/* q and k of a layer normalised per head, over the full width, or without a weight. */
static pm_status qk_norm(struct model *m, const struct layer_weights *l, int64_t t)
{
    const struct config *c = m->c;
    int64_t h = c->n_head, g = c->n_kv_head, dim = c->head_dim;
    if (c->qk_norm == QK_FULL) {
        TRY(m->k->norm(m->d, view(m->s.q, t, h * dim), view(m->s.q, t, h * dim), NORM_RMS,
                       &l->q_norm, NULL, c->norm_eps));
        return m->k->norm(m->d, view(m->s.k, t, g * dim), view(m->s.k, t, g * dim), NORM_RMS,
                          &l->k_norm, NULL, c->norm_eps);
    }
    enum norm_kind kind = c->qk_norm == QK_L2 ? NORM_L2 : NORM_RMS;
    TRY(m->k->norm(m->d, view(m->s.q, t * h, dim), view(m->s.q, t * h, dim), kind, &l->q_norm,
                   NULL, c->norm_eps));
    return m->k->norm(m->d, view(m->s.k, t * g, dim), view(m->s.k, t * g, dim), kind,
                      &l->k_norm, NULL, c->norm_eps);
}

static pm_status qkv(struct model *m, const struct layer_weights *l, int64_t t)
{
    const struct config *c = m->c;
    struct tensor h = narrow(m, m->s.h, t, c->hidden);
    struct linear op[3] = {
        {.y = view(m->s.q, t, l->q.rows), .x = h, .w = &l->q, .b = &l->q_bias},
        {.y = view(m->s.k, t, l->k.rows), .x = h, .w = &l->k, .b = &l->k_bias},
        {.y = view(m->s.v, t, l->v.rows), .x = h, .w = &l->v, .b = &l->v_bias},
    };
    return m->k->linear(m->d, op, 3);
}

static pm_status plain_attention(struct model *m, int layer, int64_t t)
{
    const struct config *c = m->c;
    const struct layer_weights *l = &m->w.layer[layer];
    const struct layer_config *lc = &c->layer[layer];
    struct step *s = &m->s;
    int half = c->rope.dim / 2;
    struct tensor q = view(s->q, t, l->q.rows), k = view(s->k, t, l->k.rows);
    bool normed = c->qk_norm != QK_NONE && (lc->rope || !c->qk_norm_rope_only);
    TRY(qkv(m, l, t));
    if (normed && !c->qk_norm_after_rope) TRY(qk_norm(m, l, t));
    if (c->clip_qkv > 0) {
        TRY(m->k->clamp(m->d, q, c->clip_qkv));
        TRY(m->k->clamp(m->d, k, c->clip_qkv));
        TRY(m->k->clamp(m->d, view(s->v, t, l->v.rows), c->clip_qkv));
    }
    if (lc->rope) {
        TRY(m->k->rope(m->d, q, c->n_head, 0, s->cosine, s->sine, half, c->rope.interleaved));
        TRY(m->k->rope(m->d, k, c->n_kv_head, 0, s->cosine, s->sine, half,
                       c->rope.interleaved));
    }
    if (normed && c->qk_norm_after_rope) TRY(qk_norm(m, l, t));
    if (c->temperature_scale > 0 && !lc->rope) {
        TRY(m->k->scale_rows(m->d, q, s->temperature));
    }
    TRY(m->k->kv_write(m->d, &m->kv.layer[layer], k, view(s->v, t, l->v.rows), &m->rows));
    struct attention op = {
        .out = narrow(m, s->mixed, t, q.cols),
        .q = q,
        .kv = &m->kv.layer[layer],
        .rows = &m->rows,
        .n_head = c->n_head,
        .scale = c->attention_scale,
        .window = lc->window,
        .chunk = lc->chunk,
        .sink = l->sinks.data,
    };
    return m->k->attention(m->d, &op);
}

static pm_status latent_attention(struct model *m, int layer, int64_t t)
{
    const struct config *c = m->c;
    const struct mla *a = &c->mla;
    const struct layer_weights *l = &m->w.layer[layer];
    struct step *s = &m->s;
    struct tensor h = narrow(m, s->h, t, c->hidden), kv = view(s->k, t, l->kv_a.rows);
    struct tensor q = view(s->q, t, (int64_t)c->n_head * (a->nope + a->rope));
    struct tensor latent = kv, none = {0};
    struct linear first[2] = {
        {.y = kv, .x = h, .w = &l->kv_a},
        {.y = q, .x = h, .w = &l->q},
    };
    latent.cols = a->latent;
    if (a->q_latent) {
        struct tensor ql = view(s->latent, t, a->q_latent);
        struct linear up = {.y = q, .x = ql, .w = &l->q_b};
        first[1].y = ql;
        first[1].w = &l->q_a;
        TRY(m->k->linear(m->d, first, 2));
        TRY(m->k->norm(m->d, ql, ql, NORM_RMS, &l->q_a_norm, NULL, 1e-6f));
        TRY(m->k->linear(m->d, &up, 1));
    } else {
        TRY(m->k->linear(m->d, first, 2));
    }
    /* The reference builds both latent norms with their default epsilon, whatever rms_norm_eps
     * says. */
    TRY(m->k->norm(m->d, latent, latent, NORM_RMS, &l->kv_a_norm, NULL, 1e-6f));
    TRY(m->k->rope(m->d, q, c->n_head, a->nope, s->cosine, s->sine, a->rope / 2,
                   c->rope.interleaved));
    TRY(m->k->rope(m->d, kv, 1, a->latent, s->cosine, s->sine, a->rope / 2,
                   c->rope.interleaved));
    TRY(m->k->kv_write(m->d, &m->kv.layer[layer], kv, none, &m->rows));
    struct attention_mla op = {
        .out = narrow(m, s->mixed, t, (int64_t)c->n_head * a->v_dim),
        .q = q,
        .kv_b = l->kv_b,
        .kv = &m->kv.layer[layer],
        .rows = &m->rows,
        .n_head = c->n_head,
        .nope = a->nope,
        .rope = a->rope,
        .v_dim = a->v_dim,
        .latent = a->latent,
        .scale = c->attention_scale,
    };
    return m->k->attention_mla(m->d, &op);
}

/* x += residual_scale * o(attention(norm(x))) */
static pm_status attention_block(struct model *m, int layer, int64_t t)
{
    const struct config *c = m->c;
    const struct layer_weights *l = &m->w.layer[layer];
    struct step *s = &m->s;
    struct tensor x = view(s->x, t, c->hidden), change = view(s->change, t, c->hidden);
    struct linear out = {
        .y = change, .x = narrow(m, s->mixed, t, l->o.cols), .w = &l->o, .b = &l->o_bias};
    TRY(norm(m, t, &l->attn_norm, &l->attn_norm_bias));
    TRY(c->mla.latent ? latent_attention(m, layer, t) : plain_attention(m, layer, t));
    TRY(m->k->linear(m->d, &out, 1));
    return m->k->add(m->d, x, change, c->residual_scale);
}

/* x += residual_scale * down(glu(gate(h), up(h))) for one MLP that every row visits. */
static pm_status mlp(struct model *m, int64_t t, const struct tensor *w, const struct tensor *b,
                     const struct glu *glu, const struct tensor *flag)
{
    const struct config *c = m->c;
    struct step *s = &m->s;
    struct tensor h = narrow(m, s->h, t, c->hidden);
    struct tensor inner = narrow(m, s->shared, t, w[0].rows);
    struct tensor f = view(s->flag, t, 1), change = view(s->change, t, c->hidden);
    struct linear up = {
        .y = inner, .x = h, .w = &w[0], .w_up = &w[1], .b = &b[0], .b_up = &b[1], .glu = *glu};
    struct linear down = {.y = change, .x = inner, .w = &w[2], .b = &b[2]};
    if (flag->data) {
        struct linear op = {.y = f, .x = h, .w = flag};
        TRY(m->k->linear(m->d, &op, 1));
    }
    TRY(m->k->linear(m->d, &up, 1));
    TRY(m->k->linear(m->d, &down, 1));
    if (flag->data) TRY(m->k->gate_rows(m->d, change, f));
    return m->k->add(m->d, view(s->x, t, c->hidden), change, c->residual_scale);
}

/* The layer's gate with its own number of experts per token. */
static pm_status route(struct model *m, int layer, int64_t t, struct gate *gate)
{
    const struct config *c = m->c;
    const struct layer_weights *l = &m->w.layer[layer];
    struct step *s = &m->s;
    struct tensor logits = view(s->gate, t, c->gate.n_expert);
    struct linear op = {
        .y = logits, .x = narrow(m, s->h, t, c->hidden), .w = &l->gate, .b = &l->gate_bias};
    *gate = c->gate;
    gate->top_k = c->layer[layer].top_k;
    TRY(m->k->linear(m->d, &op, 1));
    TRY(m->k->gate_topk(m->d, gate, logits, l->select_bias.data, &s->routing));
    if (m->route && m->k->host_memory) {
        m->route(m->route_arg, layer, (int)t, gate->top_k, s->routing.id, s->routing.weight);
    }
    return m->k->permute(m->d, gate, (int)t, &s->routing);
}

static pm_status experts(struct model *m, int layer, int64_t t)
{
    const struct config *c = m->c;
    const struct layer_weights *l = &m->w.layer[layer];
    struct step *s = &m->s;
    struct gate gate;
    TRY(route(m, layer, t, &gate));
    struct experts e = {.gate = gate,
                        .glu = c->glu,
                        .w_gate = l->expert_gate,
                        .w_up = l->expert_up,
                        .w_down = l->expert_down,
                        .b_gate = l->expert_gate_bias,
                        .b_up = l->expert_up_bias,
                        .b_down = l->expert_down_bias};
    struct experts_room room = {s->inner, s->expert, s->scaled, PM_F32, PM_F32, s->routing};
    return experts_forward(m->k, m->d, &e, &room, view(s->x, t, c->hidden),
                           view(s->h, t, c->hidden), c->residual_scale);
}

/* x += experts(norm(x)) + shared(norm(x)), or a dense MLP */
static pm_status mlp_block(struct model *m, int layer, int64_t t)
{
    const struct config *c = m->c;
    const struct layer_weights *l = &m->w.layer[layer];
    struct tensor none[3] = {{0}};
    TRY(norm(m, t, &l->mlp_norm, &l->mlp_norm_bias));
    if (!c->layer[layer].moe) {
        struct tensor w[3] = {l->dense_gate, l->dense_up, l->dense_down};
        struct tensor b[3] = {l->dense_gate_bias, l->dense_up_bias, l->dense_down_bias};
        return mlp(m, t, w, b, &c->dense_glu, &none[0]);
    }
    TRY(experts(m, layer, t));
    if (!c->shared_dim) return PM_OK;
    struct tensor w[3] = {l->shared_gate, l->shared_up, l->shared_down};
    return mlp(m, t, w, none, &c->dense_glu, &l->shared_switch);
}

static pm_status head(struct model *m, int64_t t, int n_out, float *logits)
{
    const struct config *c = m->c;
    struct step *s = &m->s;
    struct tensor y = view(s->logits, n_out, c->vocab);
    struct linear op = {.y = y,
                        .x = narrow(m, s->h, t, c->hidden),
                        .w = &m->w.head,
                        .b = &m->w.head_bias,
                        .rows = &m->out};
    TRY(norm(m, t, &m->w.final_norm, &m->w.final_norm_bias));
    TRY(m->k->linear(m->d, &op, 1));
    if (c->logits_scale != 1) TRY(m->k->scale(m->d, y, c->logits_scale));
    return m->k->download(m->d, logits, s->logits,
                          (size_t)n_out * (size_t)c->vocab * sizeof *logits);
}

pm_status model_forward(struct model *m, const struct batch *b, float *logits)
{
    int64_t t = b->n_row;
    TRY(check_batch(m, b));
    TRY(upload_batch(m, b));
    TRY(m->k->embed(m->d, view(m->s.x, t, m->c->hidden), &m->w.embed, m->s.id,
                    m->c->embedding_scale));
    TRY(m->k->rope_table(m->d, m->s.cosine, m->s.sine, m->s.position, (int)t, m->inv_freq,
                         m->c->rope.dim / 2, m->rope_factor));
    for (int l = 0; l < m->c->n_layer; l++) {
        TRY(attention_block(m, l, t));
        TRY(mlp_block(m, l, t));
    }
    return b->n_out ? head(m, t, b->n_out, logits) : m->k->sync(m->d);
}

const struct config *model_config(const struct model *m)
{
    return m->c;
}

const struct model_plan *model_plan(const struct model *m)
{
    return &m->plan;
}

const struct model_options *model_limits(const struct model *m)
{
    return &m->o;
}

const char *model_device(const struct model *m)
{
    return m->k->describe(m->d);
}

pm_dtype model_kv_type(const struct model *m)
{
    return (pm_dtype)m->o.kv_type;
}

int64_t model_blocks(const struct model *m)
{
    return m->n_block;
}

const struct weights *model_weights(const struct model *m)
{
    return &m->w;
}

void model_touch(const struct model *m)
{
    safetensors_touch(m->w.files);
}

pm_status model_read_bandwidth(struct model *m, double *out)
{
    struct peaks peaks;
    TRY(m->k->measure(m->d, PEAK_READ, &peaks));
    *out = peaks.read_gbs;
    return PM_OK;
}

pm_status model_measure(struct model *m, struct peaks *out)
{
    return m->k->measure(m->d, PEAK_READ | PEAK_F32 | PEAK_BF16, out);
}

void model_on_route(struct model *m, model_route *call, void *arg)
{
    m->route = call;
    m->route_arg = arg;
}
