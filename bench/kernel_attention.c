/* kernel_attention.c - the attention of a shape over a paged cache in BF16.
 *
 * Blocks of a sequence lie one behind the other; sequences and blocks are what a server that
 * just started would have. */
#include <stdlib.h>

#include "bench/kernel_case.h"

/* Copies one of the host's arrays to the device and puts its place into *out. */
static pm_status put(struct kernel_case *c, void *out, const void *from, size_t n, size_t size)
{
    return arena_bytes(&c->arena, out, from, n * size, "attention rows");
}

struct host_rows {
    int32_t *position, *q_start, *kv_len, *block;
    int64_t *slot;
};

/* n_seq sequences of `length` tokens, whose last `each` are the rows. */
static void fill_rows(const struct host_rows *h, int n_seq, int each, int length, int max_block)
{
    for (int s = 0; s < n_seq; s++) {
        int64_t first_block = (int64_t)s * max_block;
        h->q_start[s] = s * each;
        h->kv_len[s] = length;
        for (int b = 0; b < max_block; b++) {
            h->block[first_block + b] = (int32_t)(first_block + b);
        }
        for (int i = 0; i < each; i++) {
            int at = length - each + i;
            h->position[s * each + i] = at;
            h->slot[s * each + i] = first_block * KV_BLOCK + at;
        }
    }
    h->q_start[n_seq] = n_seq * each;
}

static pm_status take_sequences(struct kernel_case *c, struct kernel_set *s, int n_seq,
                                int each, int length)
{
    int max_block = (length + KV_BLOCK - 1) / KV_BLOCK;
    size_t t = (size_t)n_seq * (size_t)each, n = (size_t)n_seq;
    struct host_rows h = {0};
    struct attention_rows *r = &s->rows;
    pm_status status;
    TRY_DONE(alloc_array(&h.position, t, sizeof *h.position, "rows"));
    TRY_DONE(alloc_array(&h.slot, t, sizeof *h.slot, "rows"));
    TRY_DONE(alloc_array(&h.q_start, n + 1, sizeof *h.q_start, "rows"));
    TRY_DONE(alloc_array(&h.kv_len, n, sizeof *h.kv_len, "rows"));
    TRY_DONE(alloc_array(&h.block, n * (size_t)max_block, sizeof *h.block, "rows"));
    fill_rows(&h, n_seq, each, length, max_block);
    *r = (struct attention_rows){.n_row = (int)t, .n_seq = n_seq, .max_block = max_block};
    TRY_DONE(put(c, &r->position, h.position, t, sizeof *h.position));
    TRY_DONE(put(c, &r->slot, h.slot, t, sizeof *h.slot));
    TRY_DONE(put(c, &r->q_start, h.q_start, n + 1, sizeof *h.q_start));
    TRY_DONE(put(c, &r->kv_len, h.kv_len, n, sizeof *h.kv_len));
    TRY_DONE(put(c, &r->block_table, h.block, n * (size_t)max_block, sizeof *h.block));
done:
    free(h.position);
    free(h.slot);
    free(h.q_start);
    free(h.kv_len);
    free(h.block);
    return status;
}

static int64_t key_values(const struct shape *s) /* of one token, all heads */
{
    return s->mla.latent ? s->mla.latent + s->mla.rope : (int64_t)s->n_kv_head * s->head_dim;
}

static pm_status take_cache(struct kernel_case *c, struct kernel_set *s)
{
    const struct shape *p = c->shape;
    bool latent = p->mla.latent != 0;
    int64_t n_block = (int64_t)s->rows.n_seq * s->rows.max_block, n = n_block * KV_BLOCK;
    s->kv = (struct kv_layer){.type = PM_BF16,
                              .n_kv_head = latent ? 1 : p->n_kv_head,
                              .k_dim = latent ? (int)key_values(p) : p->head_dim,
                              .v_dim = latent ? 0 : p->head_dim,
                              .n_block = n_block};
    TRY(arena_values(&c->arena, &s->kv.k, PM_BF16, n * key_values(p), "keys"));
    if (latent) return PM_OK;
    return arena_values(&c->arena, &s->kv.v, PM_BF16, n * key_values(p), "values");
}

static pm_status prepare(struct kernel_case *c, struct kernel_set *s, int n_seq, int each,
                         int length)
{
    const struct shape *p = c->shape;
    const struct mla *a = &p->mla;
    int64_t q = (int64_t)p->n_head * (a->latent ? a->nope + a->rope : p->head_dim);
    int64_t out = (int64_t)p->n_head * (a->latent ? a->v_dim : p->head_dim);
    struct tensor *x = &s->x, *y = &s->y;
    TRY(take_sequences(c, s, n_seq, each, length));
    TRY(take_cache(c, s));
    *x = tensor_view(NULL, PM_F32, c->n_row, q);
    *y = tensor_view(NULL, c->k->narrow, c->n_row, out);
    TRY(arena_values(&c->arena, &x->data, PM_F32, c->n_row * q, "queries"));
    TRY(arena_values(&c->arena, &y->data, c->k->narrow, c->n_row * out, "outputs"));
    if (!a->latent) return PM_OK;
    s->w = tensor_view(NULL, PM_BF16, (int64_t)p->n_head * (a->nope + a->v_dim), a->latent);
    return arena_values(&c->arena, &s->w.data, PM_BF16, s->w.rows * s->w.cols, "kv_b");
}

pm_status attention_prepare_decode(struct kernel_case *c, struct kernel_set *s, int number)
{
    (void)number;
    return prepare(c, s, (int)c->n_row, 1, c->context);
}

pm_status attention_prepare_prefill(struct kernel_case *c, struct kernel_set *s, int number)
{
    (void)number;
    return prepare(c, s, 1, (int)c->n_row, (int)c->n_row);
}

pm_status attention_run(const struct kernel_case *c, const struct kernel_set *s)
{
    const struct shape *p = c->shape;
    struct attention plain = {.out = s->y,
                              .q = s->x,
                              .kv = &s->kv,
                              .rows = &s->rows,
                              .n_head = p->n_head,
                              .scale = 0.1f};
    struct attention_mla latent = {.out = s->y,
                                   .q = s->x,
                                   .kv_b = s->w,
                                   .kv = &s->kv,
                                   .rows = &s->rows,
                                   .n_head = p->n_head,
                                   .nope = p->mla.nope,
                                   .rope = p->mla.rope,
                                   .v_dim = p->mla.v_dim,
                                   .latent = p->mla.latent,
                                   .scale = 0.1f};
    return p->mla.latent ? c->k->attention_mla(c->d, &latent) : c->k->attention(c->d, &plain);
}

/* `cached` tokens are read; a row sees `seen` of them on average. */
static void work(const struct kernel_case *c, double cached, double seen, double *bytes,
                 double *flops)
{
    const struct shape *p = c->shape;
    const struct mla *a = &p->mla;
    double t = (double)c->n_row, h = p->n_head, out = dtype_bits(c->k->narrow) / 8.0;
    if (a->latent) {
        double weights = h * (a->nope + a->v_dim) * a->latent;
        *bytes = 2 * (cached * (double)key_values(p) + weights) +
                 t * h * ((a->nope + a->rope) * sizeof(float) + a->v_dim * out);
        *flops = 2 * t * (weights + h * seen * (2 * a->latent + a->rope));
    } else {
        *bytes = 2 * 2 * cached * (double)key_values(p) +
                 t * h * p->head_dim * (sizeof(float) + out);
        *flops = 2 * t * h * seen * 2 * p->head_dim;
    }
}

void attention_work_decode(const struct kernel_case *c, double *bytes, double *flops)
{
    work(c, (double)c->n_row * c->context, c->context, bytes, flops);
}

void attention_work_prefill(const struct kernel_case *c, double *bytes, double *flops)
{
    work(c, (double)c->n_row, ((double)c->n_row + 1) / 2, bytes, flops);
}
