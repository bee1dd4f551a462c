/* kvpool.h - the device memory of the KV cache: one pool of blocks for all layers. */
#ifndef MOE_KVPOOL_H
#define MOE_KVPOOL_H

#include "moe/config.h"

struct kvpool {
    const struct kernels *kernels;
    struct device *device;
    struct kv_layer *layer; /* [n_layer] */
    int n_layer;
    int64_t n_block;
};

/* Bytes of one block over all layers. */
size_t kvpool_block_bytes(const struct config *c, pm_dtype type);
pm_status kvpool_open(struct kvpool *pool, const struct kernels *k, struct device *d,
                      const struct config *c, pm_dtype type, int64_t n_block);
void kvpool_close(struct kvpool *pool);

#endif
