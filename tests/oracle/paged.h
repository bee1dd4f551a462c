/* paged.h - sequences over a paged cache, as a scheduler would leave them.
 *
 * Blocks of all sequences are dealt from one shuffled pool that has more than they need. The
 * pool starts as NaN in every type, so that a read of a token that nobody wrote shows. Entries
 * of a block table past a sequence's last block are -1. */
#ifndef TESTS_ORACLE_PAGED_H
#define TESTS_ORACLE_PAGED_H

#include "tests/oracle/rig.h"

struct paged {
    struct kv_layer kv;
    int n_seq, max_block;
    int32_t *block_table; /* [S, max_block] */
};

/* Tokens first .. end - 1 of a sequence, fed in one step. */
struct piece {
    int seq, first, end;
};

/* Room for n_seq sequences of up to length[s] tokens. v_dim 0: no values (MLA). */
struct paged paged_open(struct rig *rig, pm_dtype type, int n_kv_head, int k_dim, int v_dim,
                        const int *length, int n_seq);

/* The rows of a step of these pieces, followed by `n_padding` rows each that belong to their
 * sequence but have no slot. Sequences are numbered as the pieces are. */
struct attention_rows paged_rows(struct rig *rig, const struct paged *p,
                                 const struct piece *piece, int n, int n_padding);

/* The rows of a step from one matrix [length, cols] per sequence; padding rows are NaN. */
struct tensor paged_gather(struct rig *rig, const struct tensor *each,
                           const struct piece *piece, int n, int n_padding);

#endif
