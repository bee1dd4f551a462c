/* attention.h - what the two files of attention share: a query vector, and the cache that the
 * queries of a task read. */
#ifndef KERNELS_CPU_ATTENTION_H
#define KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/ops.h"

enum {
    TASK_QUERIES = 64,       /* most of a task */
    MIX_ROWS = 2 * KV_BLOCK, /* positions that meet weights in one product, and begin rows of
                                scores: a row of them begins at a multiple */
};

/* One query vector of a task. */
struct query {
    const float *q; /* [k_dim] */
    float *out;     /* [v_dim] */
    int first, end; /* visible positions first .. end - 1 */
    const float *sink;
};

/* What all queries of a task share. */
struct span {
    const struct micro *m;
    const struct kv_layer *kv;
    const int32_t *block; /* this sequence's block table */
    int kv_head, k_dim, v_dim;
    bool v_is_k; /* values are the first v_dim entries of the keys */
    float scale;
    float *room; /* [MICRO_ROOM] of the tiles */
};

/* A row of keys or values in the cache. */
const char *key_at(const struct span *s, int64_t position);
const char *value_at(const struct span *s, int64_t position);

/* out[i] = sum over visible j of score[i, j - base] v[j] for n queries, where base is a
 * multiple of MIX_ROWS and rows of scores have room for whole MIX_ROWS; spoils the scores. Only
 * where the instruction set has `mix` and the cache is BF16. room: mix_room_bytes(v_dim),
 * aligned. */
void mix_values(const struct span *s, const struct query *query, int n, float *score,
                int64_t stride, int base, char *room);
size_t mix_room_bytes(int64_t v_dim);

#endif
