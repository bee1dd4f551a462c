/* model.c - opening a checkpoint: options, device, weights, and all buffers of a step, taken
 * once for max_row rows. A step itself is forward.c. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model_inside.h"
#include "synth_source.h"

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
    if (!m->k->host_memory) {
        TRY(alloc_array(&m->route_id, (size_t)tk, sizeof *m->route_id, "routing"));
        TRY(alloc_array(&m->route_weight, (size_t)tk, sizeof *m->route_weight, "routing"));
    }
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

static pm_status open_weights(struct model *m, const char *folder, struct synth_source *made)
{
    struct weight_source source;
    if (!made) return weights_open(&m->w, m->c, folder, m->k, m->d, m->o.plan_only);
    source = synth_source_weights(made);
    return weights_generate(&m->w, m->c, &source, m->k, m->d);
}

static pm_status open_device(struct model *m, const char *folder, struct synth_source *made)
{
    int index;
    pm_dtype type;
    TRY(kernels_select(&m->k, &index, m->o.device));
    TRY(m->k->open(&m->d, index, m->o.n_thread));
    m->recorded = (struct recorded){.k = m->k, .d = m->d};
    TRY(open_weights(m, folder, made));
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

static pm_status check_experts(const struct model *m)
{
    for (int layer = 0; layer < m->c->n_layer && !m->o.plan_only; layer++) {
        struct experts e = model_experts(m, layer, m->c->gate);
        if (m->c->layer[layer].moe) TRY(experts_check(m->k, &e));
    }
    return PM_OK;
}

pm_status model_open(struct model **out, const char *folder, const struct model_options *o)
{
    struct synth_source *made = NULL;
    struct model *m;
    pm_status status;
    assert(!o->synthetic || !o->plan_only);
    TRY(alloc_array(&m, 1, sizeof *m, "model"));
    if (o->synthetic) {
        TRY_DONE(synth_source_open(&made, o->synthetic, o->n_thread));
        m->c = synth_source_config(made);
    } else {
        TRY_DONE(config_load(&m->c, folder));
    }
    TRY_DONE(fill_options(m, o));
    m->o.synthetic = NULL; /* not ours to keep */
    TRY_DONE(open_device(m, folder, made));
    TRY_DONE(check_experts(m));
    TRY_DONE(take_activations(m));
    TRY_DONE(take_rows(m));
    TRY_DONE(take_rope(m));
    *out = m;
    m = NULL;
done:
    synth_source_close(made);
    model_close(m);
    return status;
}

void model_close(struct model *m)
{
    struct step *s;
    if (!m) return;
    s = &m->s;
    if (m->d) {
        recorded_close(&m->recorded);
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
    free(m->route_id);
    free(m->route_weight);
    config_free(m->c);
    free(m);
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
