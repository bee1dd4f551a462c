/* shapes.h - layers of released models, for the kernel benchmarks. */
#ifndef BENCH_SHAPES_H
#define BENCH_SHAPES_H

#include "moe/config.h"

struct shape {
    const char *name;
    int hidden, inner;               /* D, F */
    int n_head, n_kv_head, head_dim; /* of plain attention */
    struct mla mla;                  /* latent 0: plain attention */
    bool select_bias, expert_bias;
    struct glu glu;
    struct gate gate;
};

extern const struct shape shapes[]; /* ends with a NULL name */

/* PM_ERR_ARG lists the names. */
pm_status shapes_find(const struct shape **out, const char *name, size_t n);

/* The shape with n experts of which a row picks k, 0: as it has, as far as that goes; without
 * groups where they do not fit. PM_ERR_ARG where k is more than there are. */
pm_status shapes_cut(struct shape *out, const struct shape *s, int n, int k);

#endif
