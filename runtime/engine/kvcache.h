/* kvcache.h - who holds which block of the KV cache, and which blocks hold a known prefix.
 *
 * Knows numbers of blocks, not their memory. A block is held by one or more sequences, or free.
 * A full block may be published under the hash of all tokens up to its end; a free block keeps
 * its hash until it is taken again, so that a later prompt that begins alike finds it. Nothing
 * is ever copied: a published block is never written again.
 *
 * Not thread-safe. After open nothing allocates. */
#ifndef RUNTIME_KVCACHE_H
#define RUNTIME_KVCACHE_H

#include "kernels/base.h"
#include "runtime/engine/siphash.h"

/* The list of free blocks ends in both directions at entry n_block. */
struct kvcache_block {
    int32_t n_holder;       /* 0: free */
    int32_t next, previous; /* in the list of free blocks */
    int32_t chain;          /* next block of the same bucket, -1 ends */
    bool published;
    struct siphash hash;
};

struct kvcache {
    int32_t n_block, n_free, n_cached; /* cached: free and published */
    struct kvcache_block *block;       /* [n_block + 1], the last is the list's head */
    int32_t *bucket;                   /* [n_bucket] first block of a chain, -1: none */
    uint32_t n_bucket;                 /* a power of two */
};

pm_status kvcache_open(struct kvcache *c, int64_t n_block);
void kvcache_close(struct kvcache *c);

/* Takes a free block: one without a prefix where there is one, else the one whose prefix was
 * given back first. -1 when none is free. */
int32_t kvcache_take(struct kvcache *c);
/* One more sequence holds the block; it may have been free. */
void kvcache_hold(struct kvcache *c, int32_t block);
/* One sequence less. */
void kvcache_drop(struct kvcache *c, int32_t block);

/* The block that holds the prefix with this hash, or -1. */
int32_t kvcache_find(const struct kvcache *c, struct siphash hash);
/* Makes a held block known under its hash; without effect when another block is. */
void kvcache_publish(struct kvcache *c, int32_t block, struct siphash hash);
/* Forgets all prefixes: the blocks' contents are not what they were. */
void kvcache_forget(struct kvcache *c);

#endif
