/* kvpool.c - keys and values of all layers. A latent (MLA) cache holds one row of latent + rope
 * values a token and no values of its own. Memory is committed by the first write to a page, so
 * an unused pool costs nothing on a CPU. */
#include "kvpool.h"

#include <stdlib.h>
#include <string.h>

static void shape(const struct config *c, struct kv_layer *l)
{
    if (c->mla.latent) {
        l->n_kv_head = 1;
        l->k_dim = c->mla.latent + c->mla.rope;
        l->v_dim = 0;
    } else {
        l->n_kv_head = c->n_kv_head;
        l->k_dim = l->v_dim = c->head_dim;
    }
}

size_t kvpool_block_bytes(const struct config *c, pm_dtype type)
{
    struct kv_layer l;
    shape(c, &l);
    return (size_t)c->n_layer * KV_BLOCK * (size_t)l.n_kv_head * (size_t)(l.k_dim + l.v_dim) *
           (size_t)dtype_bits(type) / 8;
}

pm_status kvpool_open(struct kvpool *pool, const struct kernels *k, struct device *d,
                      const struct config *c, pm_dtype type, int64_t n_block)
{
    pm_status status = PM_OK;
    memset(pool, 0, sizeof *pool);
    pool->kernels = k;
    pool->device = d;
    pool->n_layer = c->n_layer;
    pool->n_block = n_block;
    TRY(alloc_array(&pool->layer, (size_t)c->n_layer, sizeof *pool->layer, "KV layers"));
    for (int i = 0; i < c->n_layer; i++) {
        struct kv_layer *l = &pool->layer[i];
        size_t size = (size_t)dtype_bits(type) / 8, tokens = (size_t)n_block * KV_BLOCK;
        size_t k_bytes, v_bytes;
        shape(c, l);
        l->type = type;
        l->n_block = n_block;
        if (!mul_size(&k_bytes, tokens, (size_t)l->n_kv_head * (size_t)l->k_dim * size) ||
            !mul_size(&v_bytes, tokens, (size_t)l->n_kv_head * (size_t)l->v_dim * size)) {
            status = fail(PM_ERR_NOMEM, "KV cache: %zu tokens are too many", tokens);
            goto done;
        }
        TRY_DONE(k->alloc(d, &l->k, k_bytes, "KV cache keys"));
        if (v_bytes) TRY_DONE(k->alloc(d, &l->v, v_bytes, "KV cache values"));
    }
done:
    if (status != PM_OK) kvpool_close(pool);
    return status;
}

void kvpool_close(struct kvpool *pool)
{
    if (!pool->layer) return;
    for (int i = 0; i < pool->n_layer; i++) {
        pool->kernels->free(pool->device, pool->layer[i].k);
        pool->kernels->free(pool->device, pool->layer[i].v);
    }
    free(pool->layer);
    pool->layer = NULL;
}
