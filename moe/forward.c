/* forward.c - one step: the straight-line layer loop, the same for every family.
 *
 *   x = embed(id)
 *   per layer:  x += o(attention(rope(norm(q)), ...)),  x += experts(norm(x)) [+ shared expert]
 *   logits = head(norm(x)[out rows])
 *
 * A step allocates nothing. What differs between families is data in struct config. A dense
 * model runs the same code: its MLP is an expert that every row visits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_inside.h"

/* q_start, and of each sequence its length and its blocks. */
static pm_status check_sequences(const struct model *m, const struct batch *b)
{
    if (b->q_start[0] != 0) {
        return fail(PM_ERR_ARG, "batch: sequence 0 begins at row %d, wanted 0", b->q_start[0]);
    }
    for (int s = 0; s < b->n_seq; s++) {
        int begin = b->q_start[s], end = b->q_start[s + 1], n_kv = b->kv_len[s];
        bool last = s + 1 == b->n_seq;
        if (end < begin || end > b->n_row || (last && end != b->n_row)) {
            return fail(PM_ERR_ARG, "batch: sequence %d ends at row %d, wanted %d to %d", s,
                        end, last ? b->n_row : begin, b->n_row);
        }
        if (n_kv < 0 || n_kv > m->o.context || n_kv > (int64_t)b->max_block * KV_BLOCK) {
            return fail(PM_ERR_ARG,
                        "batch: sequence %d has %d tokens, wanted 0 to %lld: the context is "
                        "%d, its blocks hold %lld",
                        s, n_kv,
                        (long long)min_i64(m->o.context, (int64_t)b->max_block * KV_BLOCK),
                        m->o.context, (long long)b->max_block * KV_BLOCK);
        }
        for (int i = 0; (int64_t)i * KV_BLOCK < n_kv; i++) {
            int32_t block = b->block_table[(int64_t)s * b->max_block + i];
            if (block >= 0 && block < m->kv.n_block) continue;
            return fail(PM_ERR_ARG, "batch: block %d of sequence %d is %d, the pool has %lld",
                        i, s, block, (long long)m->kv.n_block);
        }
        for (int r = begin; r < end; r++) {
            if (b->slot[r] < 0 || b->position[r] < n_kv) continue;
            return fail(PM_ERR_ARG,
                        "batch: position %d of row %d, its sequence %d has %d tokens",
                        b->position[r], r, s, n_kv);
        }
    }
    return PM_OK;
}

static pm_status check_batch(const struct model *m, const struct batch *b)
{
    if (b->n_row < 1 || b->n_row > m->o.max_row || b->n_seq < 1 || b->n_seq > m->o.max_seq ||
        b->n_out < 0 || b->n_out > m->o.max_out || b->max_block < 0 ||
        b->max_block > m->max_block) {
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
    for (int i = 0; i < b->n_out; i++) {
        if (b->out_row[i] >= 0 && b->out_row[i] < b->n_row) continue;
        return fail(PM_ERR_ARG, "batch: output %d is of row %d, the step has %d", i,
                    b->out_row[i], b->n_row);
    }
    return check_sequences(m, b);
}

/* Recorded steps are alike in their arguments, the width of the block table included. */
static pm_status upload_batch(struct model *m, const struct batch *b, bool recorded)
{
    struct step *s = &m->s;
    size_t t = (size_t)b->n_row, n = (size_t)b->n_seq;
    int32_t offset[2] = {0, b->n_out};
    int width = recorded ? m->max_block : b->max_block;
    TRY(m->k->upload(m->d, s->id, b->id, t * sizeof *b->id));
    TRY(m->k->upload(m->d, s->position, b->position, t * sizeof *b->position));
    TRY(m->k->upload(m->d, s->slot, b->slot, t * sizeof *b->slot));
    TRY(m->k->upload(m->d, s->q_start, b->q_start, (n + 1) * sizeof *b->q_start));
    TRY(m->k->upload(m->d, s->kv_len, b->kv_len, n * sizeof *b->kv_len));
    for (size_t i = 0; i < n; i++) {
        TRY(m->k->upload(m->d, s->block_table + i * (size_t)width,
                         b->block_table + i * (size_t)b->max_block,
                         (size_t)b->max_block * sizeof *b->block_table));
    }
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
                                      s->q_start, s->kv_len, s->block_table, width};
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

/* Calls back with the choices of a layer, brought to host memory where they are elsewhere. */
static pm_status tell_route(struct model *m, int layer, int64_t t, int top_k)
{
    const struct routing *r = &m->s.routing;
    size_t n = (size_t)t * (size_t)top_k;
    if (m->k->host_memory) {
        m->route(m->route_arg, layer, (int)t, top_k, r->id, r->weight);
        return PM_OK;
    }
    TRY(m->k->download(m->d, m->route_id, r->id, n * sizeof *r->id));
    TRY(m->k->download(m->d, m->route_weight, r->weight, n * sizeof *r->weight));
    m->route(m->route_arg, layer, (int)t, top_k, m->route_id, m->route_weight);
    return PM_OK;
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
    return m->route ? tell_route(m, layer, t, gate->top_k) : PM_OK;
}

static pm_status experts(struct model *m, int layer, int64_t t)
{
    const struct config *c = m->c;
    struct step *s = &m->s;
    struct gate gate;
    TRY(route(m, layer, t, &gate));
    struct experts e = model_experts(m, layer, gate);
    struct experts_room room = {s->inner, s->expert, s->scaled, m->narrow, s->routing};
    return experts_forward(m->k, m->d, &e, &room, view(s->x, t, c->hidden),
                           narrow(m, s->h, t, c->hidden), c->residual_scale);
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

static pm_status head(struct model *m, int64_t t, int n_out)
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
    return c->logits_scale == 1 ? PM_OK : m->k->scale(m->d, y, c->logits_scale);
}

/* Everything that a step enqueues between the upload of its batch and the download of its
 * logits. */
static pm_status run_step(void *arg)
{
    struct model *m = arg;
    const struct config *c = m->c;
    struct step *s = &m->s;
    int64_t t = m->rows.n_row;
    TRY(m->k->embed(m->d, view(s->x, t, c->hidden), &m->w.embed, s->id, c->embedding_scale));
    TRY(m->k->rope_table(m->d, s->cosine, s->sine, s->position, (int)t, m->inv_freq,
                         c->rope.dim / 2, m->rope_factor));
    for (int l = 0; l < c->n_layer; l++) {
        TRY(attention_block(m, l, t));
        TRY(mlp_block(m, l, t));
    }
    return m->out.max_row ? head(m, t, (int)m->out.max_row) : PM_OK;
}

pm_status model_begin(struct model *m, const struct batch *b)
{
    /* Of decode steps, one row and its logits for each sequence, all that the host knows is
     * their size. */
    bool recorded =
        m->k->record_begin && b->n_row == b->n_seq && b->n_row == b->n_out && !m->route;
    TRY(check_batch(m, b));
    TRY(upload_batch(m, b, recorded));
    return recorded_run(&m->recorded, recorded ? b->n_row : 0, run_step, m);
}

pm_status model_end(struct model *m, float *logits)
{
    size_t n = (size_t)m->out.max_row * (size_t)m->c->vocab;
    return n ? m->k->download(m->d, logits, m->s.logits, n * sizeof *logits) : m->k->sync(m->d);
}

bool model_overlaps(const struct model *m)
{
    return !m->k->host_memory;
}

pm_status model_forward(struct model *m, const struct batch *b, float *logits)
{
    TRY(model_begin(m, b));
    return model_end(m, logits);
}
