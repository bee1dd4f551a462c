/* merges.h - the merges of a BPE model: (left id, right id) -> rank -> new id. */
#ifndef RUNTIME_MERGES_H
#define RUNTIME_MERGES_H

#include "vocabulary.h"

#define NO_MERGE UINT32_MAX

struct merge {
    int32_t left, right;
    uint32_t rank; /* NO_MERGE: a free slot */
};

/* The fields are the interface of the one inner loop that needs them. */
struct merges {
    struct merge *slot; /* [mask + 1] open addressing, a power of two */
    int32_t *result;    /* [n] by rank: the new id */
    size_t mask, n;
};

/* v: ["a b", ...] or [["a", "b"], ...], best first. n_prefix: bytes of the prefix that the
 * right part of a merge loses. Fails when a part or the result is no token. */
pm_status merges_parse(struct merges *m, struct json_doc *doc, const json *v,
                       const struct vocabulary *vocabulary, size_t n_prefix);
void merges_clear(struct merges *m);

static inline size_t merges_slot(const struct merges *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (size_t)(pair * 0x9e3779b97f4a7c15u >> 32) & m->mask;
}

/* The rank of a merge, NO_MERGE when there is none. */
static inline uint32_t merges_find(const struct merges *m, int32_t left, int32_t right)
{
    size_t i = merges_slot(m, left, right);
    while (m->slot[i].rank != NO_MERGE &&
           (m->slot[i].left != left || m->slot[i].right != right)) {
        i = (i + 1) & m->mask;
    }
    return m->slot[i].rank;
}

#endif
