/* baselines.h - other ways to multiply the rows of experts, measured beside the house's own. */
#ifndef BENCH_BASELINES_H
#define BENCH_BASELINES_H

#include "kernels/kernels.h"

struct arena;

/* Rows first[e] .. first[e + 1] - 1 of y are those of x times w[e] transposed: what any library
 * can compute. Rows are sorted by expert and lie without gaps. */
struct product {
    const struct tensor *w; /* [E] of [N, K] */
    struct tensor x, y;     /* [rows, K], [rows, N] */
    const int32_t *first;   /* [E + 1] on the host */
    int n_expert;
    void *list; /* the baseline's own, in device memory */
};

struct baseline {
    const char *name, *flag; /* as rows call it; a value of --baseline that asks for more */
    bool (*takes)(const struct product *p);
    /* *state is NULL where there is nothing to close. */
    pm_status (*open)(void **state, const struct kernels *k, struct device *d);
    void (*close)(void *state);
    /* Memory for p->list, where one is needed. */
    pm_status (*prepare)(void *state, struct product *p, struct arena *a);
    pm_status (*run)(void *state, const struct kernels *k, struct device *d,
                     const struct product *p);
};

extern const struct baseline baselines[]; /* ends with a NULL name */

/* cublas.c */
bool cublas_takes(const struct product *p);
pm_status cublas_open(void **state, const struct kernels *k, struct device *d);
void cublas_close(void *state);
pm_status cublas_prepare_grouped(void *state, struct product *p, struct arena *a);
pm_status cublas_run_loop(void *state, const struct kernels *k, struct device *d,
                          const struct product *p);
pm_status cublas_run_grouped(void *state, const struct kernels *k, struct device *d,
                             const struct product *p);

/* One expert's product in the column-major words of BLAS: C [m, n] = A^T [m, k] B [k, n]. */
struct gemm {
    int m, n, k, lda, ldb, ldc;
    const void *a, *b;
    void *c;
};
struct gemm cublas_gemm(const struct product *p, int expert);

/* Compares the first rows of some experts in p->y with the house's own linear map.
 * PM_ERR_DEVICE names the value that differs. */
pm_status baseline_check(const struct baseline *b, const struct kernels *k, struct device *d,
                         const struct product *p);

#endif
