/* routing_make.h - which experts the rows of a benchmark choose. */
#ifndef BENCH_ROUTING_MAKE_H
#define BENCH_ROUTING_MAKE_H

#include "kernels/kernels.h"

struct trace;

enum routing_kind {
    ROUTING_UNIFORM, /* every expert as likely as the others */
    ROUTING_ZIPF,    /* the n-th most popular expert is as likely as n^-exponent */
    ROUTING_ONE_HOT, /* all rows choose the same experts */
    ROUTING_TRACE,   /* the choices of a recorded text, a layer from the middle */
};

struct routing_maker {
    enum routing_kind kind;
    char name[64]; /* as the rows of a benchmark call it */
    double exponent;
    struct trace *trace;
};

/* "uniform", "zipf:1.0", "one-hot" or "trace:FILE" in the first n bytes of text. */
pm_status routing_parse(struct routing_maker *m, const char *text, size_t n);
void routing_free(struct routing_maker *m);

/* id [n_row, K], K different experts a row from at most top_group groups. Equal seeds give
 * equal ids; popular experts change with the seed. PM_ERR_ARG where a trace has other experts.
 */
pm_status routing_ids(const struct routing_maker *m, int32_t *id, const struct gate *g,
                      int64_t n_row, uint64_t seed);

/* logits [n_row, E] from which a gate picks these ids. */
void routing_logits(float *logits, const int32_t *id, const struct gate *g, int64_t n_row,
                    uint64_t seed);

/* How many experts have rows. */
int routing_active(const int32_t *id, const struct gate *g, int64_t n_row);

#endif
