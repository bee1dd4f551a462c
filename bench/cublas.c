/* cublas.c - cuBLAS as a baseline, opened while the program runs: nothing links it.
 *
 * Two ways to multiply the rows of experts: a loop of cublasGemmEx, one for each expert that
 * has rows, and one cublasGemmGroupedBatchedEx (cuBLAS 12.5 and later), whose groups are the
 * experts. Declarations and numbers follow cublas_api.h and library_types.h; the lists of
 * addresses of the grouped call are device memory, all other lists host memory. It works on the
 * stream of the device with a workspace of its own, so that it may be recorded. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/baselines.h"
#include "bench/kernel_case.h"

enum {
    OP_N = 0,
    OP_T = 1,
    TYPE_F32 = 0,
    TYPE_BF16 = 14,
    COMPUTE_F32 = 68,
    ALGORITHM = -1, /* cuBLAS chooses */
    WORKSPACE = 64 << 20,
};

typedef int create_fn(void **handle);
typedef int destroy_fn(void *handle);
typedef int set_stream_fn(void *handle, void *stream);
typedef int set_workspace_fn(void *handle, void *workspace, size_t bytes);
typedef int gemm_fn(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha,
                    const void *a, int type_a, int lda, const void *b, int type_b, int ldb,
                    const void *beta, void *c, int type_c, int ldc, int compute, int algorithm);
typedef int grouped_fn(void *handle, const int *op_a, const int *op_b, const int *m,
                       const int *n, const int *k, const void *alpha, const void *const *a,
                       int type_a, const int *lda, const void *const *b, int type_b,
                       const int *ldb, const void *beta, void *const *c, int type_c,
                       const int *ldc, int n_group, const int *group_size, int compute);

struct cublas {
    const struct kernels *k;
    struct device *d;
    void *library, *handle, *workspace;
    create_fn *create;
    destroy_fn *destroy;
    set_stream_fn *set_stream;
    set_workspace_fn *set_workspace;
    gemm_fn *gemm;
    grouped_fn *grouped;
};

bool cublas_takes(const struct product *p)
{
    pm_dtype type = p->w[0].type;
    return (type == PM_BF16 || type == PM_F32) && p->x.type == type && p->y.type == type;
}

static pm_status check(int code, const char *what)
{
    if (code == 0) return PM_OK;
    return fail(PM_ERR_DEVICE, "baseline cublas: %s: cuBLAS status %d", what, code);
}

static pm_status load(const struct cublas *c, void *function, const char *name)
{
    void *found = dlsym(c->library, name);
    if (!found) {
        return fail(PM_ERR_UNSUPPORTED,
                    "baseline cublas: this cuBLAS has no %s, wanted version 12.5 or later",
                    name);
    }
    memcpy(function, &found, sizeof found);
    return PM_OK;
}

static pm_status open_library(struct cublas *c)
{
    static const char *const name[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so",
                                       "/usr/local/cuda/lib64/libcublas.so"};
    for (size_t i = 0; !c->library && i < sizeof name / sizeof *name; i++) {
        c->library = dlopen(name[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (!c->library) {
        return fail(PM_ERR_UNSUPPORTED,
                    "baseline cublas: libcublas.so.13 or .12 is not here: install it, or put "
                    "its folder into LD_LIBRARY_PATH");
    }
    TRY(load(c, &c->create, "cublasCreate_v2"));
    TRY(load(c, &c->destroy, "cublasDestroy_v2"));
    TRY(load(c, &c->set_stream, "cublasSetStream_v2"));
    TRY(load(c, &c->set_workspace, "cublasSetWorkspace_v2"));
    TRY(load(c, &c->gemm, "cublasGemmEx"));
    return load(c, &c->grouped, "cublasGemmGroupedBatchedEx");
}

pm_status cublas_open(void **state, const struct kernels *k, struct device *d)
{
    struct cublas *c;
    pm_status status;
    if (k->host_memory) {
        return fail(PM_ERR_ARG, "baseline cublas: found the device %s, wanted a GPU",
                    k->describe(d));
    }
    TRY(alloc_array(&c, 1, sizeof *c, "cublas"));
    *c = (struct cublas){.k = k, .d = d};
    TRY_DONE(open_library(c));
    TRY_DONE(check(c->create(&c->handle), "cublasCreate"));
    TRY_DONE(check(c->set_stream(c->handle, k->stream(d)), "cublasSetStream"));
    TRY_DONE(k->alloc(d, &c->workspace, WORKSPACE, "cuBLAS workspace"));
    TRY_DONE(check(c->set_workspace(c->handle, c->workspace, WORKSPACE), "cublasSetWorkspace"));
    *state = c;
    c = NULL;
done:
    cublas_close(c);
    return status;
}

/* The library stays loaded: it does not like to be unloaded. */
void cublas_close(void *state)
{
    struct cublas *c = state;
    if (!c) return;
    if (c->handle) c->destroy(c->handle);
    c->k->free(c->d, c->workspace);
    free(c);
}

/* Row-major y [rows, N] = x [rows, K] w [N, K]^T is, read column by column, y^T = w x^T: a
 * row-major matrix is its own transpose with the stride as leading dimension. */
struct gemm cublas_gemm(const struct product *p, int expert)
{
    const struct tensor *w = &p->w[expert];
    int64_t first = p->first[expert], size = dtype_bits(w->type) / 8;
    return (struct gemm){.m = (int)w->rows,
                         .n = p->first[expert + 1] - (int)first,
                         .k = (int)w->cols,
                         .lda = (int)(w->stride / size),
                         .ldb = (int)(p->x.stride / size),
                         .ldc = (int)(p->y.stride / size),
                         .a = w->data,
                         .b = (const char *)p->x.data + first * p->x.stride,
                         .c = (char *)p->y.data + first * p->y.stride};
}

static int cuda_type(pm_dtype type)
{
    return type == PM_BF16 ? TYPE_BF16 : TYPE_F32;
}

pm_status cublas_run_loop(void *state, const struct kernels *k, struct device *d,
                          const struct product *p)
{
    const struct cublas *c = state;
    const float one = 1, zero = 0;
    int type = cuda_type(p->x.type);
    (void)k;
    (void)d;
    for (int e = 0; e < p->n_expert; e++) {
        struct gemm g = cublas_gemm(p, e);
        if (g.n == 0) continue;
        TRY(check(c->gemm(c->handle, OP_T, OP_N, g.m, g.n, g.k, &one, g.a, type, g.lda, g.b,
                          type, g.ldb, &zero, g.c, type, g.ldc, COMPUTE_F32, ALGORITHM),
                  "cublasGemmEx"));
    }
    return PM_OK;
}

/* [3, E] addresses: of matrices, of rows, of results, for experts that have rows. */
pm_status cublas_prepare_grouped(void *state, struct product *p, struct arena *a)
{
    size_t e = (size_t)p->n_expert;
    const void **list;
    pm_status status;
    (void)state;
    TRY(alloc_array(&list, 3 * e, sizeof *list, "addresses"));
    for (int i = 0, n = 0; i < p->n_expert; i++) {
        struct gemm g = cublas_gemm(p, i);
        if (g.n == 0) continue;
        list[n] = g.a;
        list[e + (size_t)n] = g.b;
        list[2 * e + (size_t)n] = g.c;
        n++;
    }
    status = arena_bytes(a, &p->list, list, 3 * e * sizeof *list, "addresses");
    free(list);
    return status;
}

pm_status cublas_run_grouped(void *state, const struct kernels *k, struct device *d,
                             const struct product *p)
{
    enum { FIELDS = 9 }; /* op a, op b, m, n, k, lda, ldb, ldc, size of the group */
    const struct cublas *c = state;
    size_t e = (size_t)p->n_expert, n = 0;
    int *v, type = cuda_type(p->x.type);
    float *factor; /* [2, E] */
    void *const *list = p->list;
    pm_status status;
    (void)k;
    (void)d;
    TRY(alloc_array(&v, FIELDS * e, sizeof *v, "groups"));
    status = alloc_array(&factor, 2 * e, sizeof *factor, "groups");
    for (size_t i = 0; i < e && status == PM_OK; i++) {
        struct gemm g = cublas_gemm(p, (int)i);
        const int field[FIELDS] = {OP_T, OP_N, g.m, g.n, g.k, g.lda, g.ldb, g.ldc, 1};
        for (size_t f = 0; f < FIELDS; f++)
            v[f * e + n] = field[f];
        factor[n] = 1;
        n += g.n > 0;
    }
    if (status == PM_OK) {
        status =
            check(c->grouped(c->handle, v, v + e, v + 2 * e, v + 3 * e, v + 4 * e, factor,
                             (const void *const *)list, type, v + 5 * e,
                             (const void *const *)(list + e), type, v + 6 * e, factor + e,
                             list + 2 * e, type, v + 7 * e, (int)n, v + 8 * e, COMPUTE_F32),
                  "cublasGemmGroupedBatchedEx");
    }
    free(v);
    free(factor);
    return status;
}
