/* kvcache.c - counts of holders, a list of free blocks, a hash table of prefixes.
 *
 * The list of free blocks is in order of reuse. Blocks without a prefix go to its front: using
 * them costs nothing, and memory that was touched is touched again. Published ones go to its
 * end and wait there: least recently used is first. Who gives up a sequence drops its last
 * block first, so that the ends of prompts are reused before their beginnings. The hash table
 * chains through the blocks, so its room is known at open. */
#include "kvcache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

pm_status kvcache_open(struct kvcache *c, int64_t n_block)
{
    pm_status status;
    memset(c, 0, sizeof *c);
    if (n_block < 1 || n_block > 1 << 30) {
        return fail(PM_ERR_ARG, "KV cache: found %lld blocks, wanted 1 to %d",
                    (long long)n_block, 1 << 30);
    }
    c->n_block = c->n_free = (int32_t)n_block;
    for (c->n_bucket = 16; c->n_bucket < (uint32_t)n_block;) {
        c->n_bucket *= 2;
    }
    TRY_DONE(alloc_array(&c->block, (size_t)n_block + 1, sizeof *c->block, "KV blocks"));
    TRY_DONE(alloc_array(&c->bucket, c->n_bucket, sizeof *c->bucket, "KV blocks"));
    memset(c->bucket, -1, c->n_bucket * sizeof *c->bucket);
    for (int32_t i = 0; i <= c->n_block; i++) {
        c->block[i].next = i == c->n_block ? 0 : i + 1;
        c->block[i].previous = i == 0 ? c->n_block : i - 1;
    }
done:
    if (status != PM_OK) kvcache_close(c);
    return status;
}

void kvcache_close(struct kvcache *c)
{
    free(c->block);
    free(c->bucket);
    memset(c, 0, sizeof *c);
}

static int32_t *bucket_of(const struct kvcache *c, struct siphash hash)
{
    return &c->bucket[hash.low & (c->n_bucket - 1)];
}

static void withdraw(struct kvcache *c, int32_t block)
{
    int32_t *at = bucket_of(c, c->block[block].hash);
    while (*at != block) {
        at = &c->block[*at].chain;
    }
    *at = c->block[block].chain;
    c->block[block].published = false;
    if (c->block[block].n_holder == 0) c->n_cached--;
}

static void unlink_free(struct kvcache *c, int32_t block)
{
    struct kvcache_block *b = &c->block[block];
    c->block[b->previous].next = b->next;
    c->block[b->next].previous = b->previous;
    c->n_free--;
    if (b->published) c->n_cached--;
}

/* Before the free block `next`. */
static void link_free(struct kvcache *c, int32_t block, int32_t next)
{
    struct kvcache_block *b = &c->block[block];
    b->next = next;
    b->previous = c->block[next].previous;
    c->block[b->previous].next = block;
    c->block[next].previous = block;
    c->n_free++;
    if (b->published) c->n_cached++;
}

int32_t kvcache_take(struct kvcache *c)
{
    int32_t block = c->block[c->n_block].next;
    if (block == c->n_block) return -1;
    if (c->block[block].published) withdraw(c, block);
    unlink_free(c, block);
    c->block[block].n_holder = 1;
    return block;
}

void kvcache_hold(struct kvcache *c, int32_t block)
{
    if (c->block[block].n_holder == 0) unlink_free(c, block);
    c->block[block].n_holder++;
}

void kvcache_drop(struct kvcache *c, int32_t block)
{
    struct kvcache_block *b = &c->block[block];
    assert(b->n_holder > 0);
    if (--b->n_holder == 0) {
        link_free(c, block, b->published ? c->n_block : c->block[c->n_block].next);
    }
}

int32_t kvcache_find(const struct kvcache *c, struct siphash hash)
{
    for (int32_t i = *bucket_of(c, hash); i >= 0; i = c->block[i].chain) {
        const struct siphash *h = &c->block[i].hash;
        if (h->low == hash.low && h->high == hash.high) return i;
    }
    return -1;
}

void kvcache_publish(struct kvcache *c, int32_t block, struct siphash hash)
{
    struct kvcache_block *b = &c->block[block];
    int32_t *bucket = bucket_of(c, hash);
    assert(b->n_holder > 0);
    if (b->published || kvcache_find(c, hash) >= 0) return;
    b->hash = hash;
    b->published = true;
    b->chain = *bucket;
    *bucket = block;
}

void kvcache_forget(struct kvcache *c)
{
    for (int32_t i = 0; i < c->n_block; i++) {
        if (c->block[i].published) withdraw(c, i);
    }
}
