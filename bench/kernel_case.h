/* kernel_case.h - one operation on one shape: its memory, its work, one run of it. */
#ifndef BENCH_KERNEL_CASE_H
#define BENCH_KERNEL_CASE_H

#include "bench/baselines.h"
#include "bench/routing_make.h"
#include "bench/shapes.h"
#include "moe/experts.h"

/* Memory of a device that is freed together. */
struct arena {
    const struct kernels *k;
    struct device *d;
    void **block;
    size_t n, capacity;
};

/* n random values: about normal, or random codes in the small types. *out is the address of a
 * pointer. */
pm_status arena_values(struct arena *a, void *out, pm_dtype type, int64_t n, const char *what);
/* n matrices [rows, cols] one behind the other, with scales where the type has them. */
pm_status arena_matrices(struct arena *a, struct tensor *to, int n, pm_dtype type, int64_t rows,
                         int64_t cols);
pm_status arena_bytes(struct arena *a, void *out, const void *from, size_t n, const char *what);
void arena_free(struct arena *a);

enum { MAX_COPY = 16, MAX_SET = 64, MAX_PRODUCT = 3 };

/* The experts of a shape, in so many copies that no cache holds all. */
struct expert_copies {
    struct arena arena;
    struct tensor *table; /* [n, 6, E] */
    struct experts expert[MAX_COPY];
    int n;
    double expert_bytes; /* of one expert's three matrices with scales */
};

/* PM_ERR_NOMEM where the host has not that much memory left. */
pm_status expert_copies_open(struct expert_copies *c, const struct kernels *k, struct device *d,
                             const struct shape *s, pm_dtype type, double cache_bytes);
void expert_copies_close(struct expert_copies *c);

/* What a run works on. */
struct kernel_set {
    struct tensor x, y, w;
    struct experts experts;
    struct experts_room room;
    struct tensor logits;
    float *bias;
    struct attention_rows rows;
    struct kv_layer kv;
    int n_active;                        /* experts with rows */
    int32_t *first;                      /* [E + 1] on the host: an expert's first sorted row */
    struct product product[MAX_PRODUCT]; /* the operation's, for baselines */
    int n_product;
};

struct kernel_case {
    const struct kernels *k;
    struct device *d;
    const struct shape *shape;
    const struct expert_copies *copies;
    const struct routing_maker *routing;
    pm_dtype type, narrow; /* of weights, of activations that feed linear maps */
    int64_t n_row;
    int context; /* cached tokens of a decoding row */
    struct arena arena;
    struct kernel_set set[MAX_SET];
    int n_set;
    double n_active; /* mean over the sets */
};

struct kernel_op {
    const char *name, *help;
    bool experts, by_type, by_routing; /* what it depends on beside shape and rows */
    enum peak memory;                  /* what bounds its bytes */
    pm_status (*prepare)(struct kernel_case *c, struct kernel_set *s, int number);
    pm_status (*run)(const struct kernel_case *c, const struct kernel_set *s);
    /* Useful bytes and multiply-adds times two of one run. */
    void (*work)(const struct kernel_case *c, double *bytes, double *flops);
    /* Its matrix products on rows that are sorted already, or NULL. */
    pm_status (*products)(struct kernel_case *c, struct kernel_set *s);
};

extern const struct kernel_op kernel_ops[]; /* ends with a NULL name */

/* Frees what the sets hold on the host. */
void kernel_sets_free(struct kernel_case *c);

/* kernel_attention.c */
pm_status attention_prepare_decode(struct kernel_case *c, struct kernel_set *s, int number);
pm_status attention_prepare_prefill(struct kernel_case *c, struct kernel_set *s, int number);
pm_status attention_run(const struct kernel_case *c, const struct kernel_set *s);
void attention_work_decode(const struct kernel_case *c, double *bytes, double *flops);
void attention_work_prefill(const struct kernel_case *c, double *bytes, double *flops);

/* Bytes of n values of a type, with their scales. */
double kernel_values_bytes(pm_dtype type, double n);

#endif
