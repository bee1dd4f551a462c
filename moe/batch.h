/* batch.h - one step of work as plain arrays: all that crosses from runtime to moe. */
#ifndef MOE_BATCH_H
#define MOE_BATCH_H

#include <stdint.h>

/* T rows of S sequences; rows of a sequence are consecutive and in order. Row r feeds token
 * id[r] at position[r] and writes its keys and values to slot[r] of the pool. Arrays are the
 * caller's and are read during the call only. */
struct batch {
    int n_row, n_seq, n_out, max_block;
    const int32_t *id;          /* [T] */
    const int32_t *position;    /* [T] */
    const int64_t *slot;        /* [T] block * KV_BLOCK + offset; < 0: a padding row */
    const int32_t *q_start;     /* [S + 1] ascending, from 0 to T */
    const int32_t *kv_len;      /* [S] tokens in the cache after this step */
    const int32_t *block_table; /* [S, max_block] those that kv_len needs are read */
    const int32_t *out_row;     /* [n_out] rows whose logits are wanted */
};

#endif
