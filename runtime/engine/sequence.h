/* sequence.h - one token list with its blocks of the KV cache. */
#ifndef RUNTIME_SEQUENCE_H
#define RUNTIME_SEQUENCE_H

#include "moe/model.h"

/* Holds the first blocks of the pool: a model that serves one sequence at a time needs no
 * allocation of blocks. */
struct sequence {
    struct model *model;
    int n_past;                          /* tokens in the cache */
    int n_block;                         /* capacity in blocks */
    int32_t *block, *position, *out_row; /* [n_block], [max_row], [max_row] */
    int64_t *slot;                       /* [max_row] */
};

pm_status sequence_open(struct sequence *s, struct model *model);
void sequence_close(struct sequence *s);
/* Forgets all tokens from `n_keep` on. */
void sequence_rewind(struct sequence *s, int n_keep);

/* Appends n tokens in steps of at most the model's rows. logits receives the last row's [V];
 * with `all` every row's [n, V]. NULL: none. PM_ERR_TOO_LONG when they do not fit the context.
 */
pm_status sequence_feed(struct sequence *s, const int32_t *id, int n, float *logits, bool all);

#endif
