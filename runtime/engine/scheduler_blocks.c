/* scheduler_blocks.c - a request's blocks, and what of its tokens the cache already holds.
 *
 * Prefixes are known by a chain: the hash of a block covers its tokens, the hash of the block
 * before it, and the request's key. A block is published when its last row is planned, before
 * it is computed: within a step each layer writes the keys of all rows before any row attends,
 * so that another request may read them in the same step. Sixteen answers to one new prompt
 * compute it once. */
#include <string.h>

#include "runtime/engine/scheduler_inside.h"

/* The last block first, so that the end of a prompt is reused before its beginning. */
void schedule_drop_blocks(struct scheduler *s, struct schedule_request *r)
{
    while (r->n_block > 0) {
        kvcache_drop(&s->cache, r->block[--r->n_block]);
    }
    r->n_past = r->n_known = 0;
    r->reserved = false;
}

static struct siphash next_prefix(const struct scheduler *s, const struct schedule_request *r)
{
    struct {
        struct siphash before;
        uint64_t key, salt;
        int32_t token[BLOCK];
    } link = {.key = r->key, .salt = r->salt};
    if (r->n_known) link.before = r->prefix;
    memcpy(link.token, r->token + (size_t)r->n_known * BLOCK, sizeof link.token);
    return siphash(s->o.secret, &link, sizeof link);
}

int32_t schedule_usable_blocks(const struct scheduler *s, const struct schedule_request *r)
{
    return s->o.prefix_cache && !r->every_row ? (r->n_token - 1) / BLOCK : 0;
}

int32_t schedule_use_prefix(struct scheduler *s, struct schedule_request *r)
{
    int32_t most = schedule_usable_blocks(s, r), n_found = 0;
    while (r->n_past == r->n_known * BLOCK && r->n_known < most) {
        struct siphash hash = next_prefix(s, r);
        int32_t block = kvcache_find(&s->cache, hash);
        if (block < 0) break;
        kvcache_hold(&s->cache, block);
        if (r->n_known < r->n_block) {
            kvcache_drop(&s->cache, r->block[r->n_known]);
        } else {
            r->n_block++;
        }
        r->block[r->n_known++] = block;
        r->prefix = hash;
        r->n_past += BLOCK;
        n_found++;
    }
    return n_found;
}

void schedule_count_found(struct scheduler *s, struct schedule_request *r, int32_t n_block)
{
    if (r->n_preempted) return;
    r->n_cached += n_block * BLOCK;
    s->count.prefix_hits += (uint64_t)n_block * BLOCK;
}

void schedule_publish(struct scheduler *s, struct schedule_request *r)
{
    while (s->o.prefix_cache && (r->n_known + 1) * BLOCK <= r->n_past) {
        r->prefix = next_prefix(s, r);
        kvcache_publish(&s->cache, r->block[r->n_known], r->prefix);
        r->n_known++;
    }
}

bool schedule_take_blocks(struct scheduler *s, struct schedule_request *r, int32_t n)
{
    if (n - r->n_block > s->cache.n_free) return false;
    while (r->n_block < n) {
        r->block[r->n_block++] = kvcache_take(&s->cache);
    }
    return true;
}
