/* baselines.c - the per-expert loop, and whether a baseline computes the same.
 *
 * A baseline does the matrix products of an operation and nothing else: rows stand sorted
 * before the clock starts, and nobody applies the activation or adds the experts up. That
 * favours it. */
#include "bench/baselines.h"

#include <math.h>
#include <stdlib.h>

#include "bench/kernel_case.h"

static struct tensor rows_of(const struct tensor *t, const struct product *p, int expert)
{
    return tensor_rows(t, p->first[expert], p->first[expert + 1] - p->first[expert]);
}

static bool takes_all(const struct product *p)
{
    (void)p;
    return true;
}

static pm_status loop_open(void **state, const struct kernels *k, struct device *d)
{
    (void)k;
    (void)d;
    *state = NULL;
    return PM_OK;
}

static void loop_close(void *state)
{
    (void)state;
}

static pm_status loop_prepare(void *state, struct product *p, struct arena *a)
{
    (void)state;
    (void)p;
    (void)a;
    return PM_OK;
}

/* One dense linear map for each expert that has rows. */
static pm_status loop_run(void *state, const struct kernels *k, struct device *d,
                          const struct product *p)
{
    (void)state;
    for (int e = 0; e < p->n_expert; e++) {
        struct linear op = {
            .y = rows_of(&p->y, p, e), .x = rows_of(&p->x, p, e), .w = &p->w[e]};
        if (op.x.rows) TRY(k->linear(d, &op, 1));
    }
    return PM_OK;
}

const struct baseline baselines[] = {
    {"loop", "loop", takes_all, loop_open, loop_close, loop_prepare, loop_run},
    {"cublas-loop", "cublas", cublas_takes, cublas_open, cublas_close, loop_prepare,
     cublas_run_loop},
    {"cublas-grouped", "cublas", cublas_takes, cublas_open, cublas_close,
     cublas_prepare_grouped, cublas_run_grouped},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};

/* ------------------------------------------------------------------ the same numbers */

static float value(const struct tensor *t, const void *row, int64_t i)
{
    return t->type == PM_F32 ? ((const float *)row)[i]
                             : bf16_to_f32(((const uint16_t *)row)[i]);
}

/* Both round to the type of y; sums may run in another order. */
static pm_status compare_row(const struct tensor *y, const void *got, const void *want,
                             int64_t *at)
{
    double unit = y->type == PM_F32 ? 0x1p-12 : 0x1p-6, most = 0;
    for (int64_t i = 0; i < y->cols; i++)
        most = fmax(most, fabs((double)value(y, want, i)));
    for (int64_t i = 0; i < y->cols; i++) {
        double difference = (double)value(y, got, i) - (double)value(y, want, i);
        if (fabs(difference) <= unit * most) continue;
        *at = i;
        return PM_ERR_DEVICE;
    }
    return PM_OK;
}

struct check {
    const struct baseline *b;
    const struct kernels *k;
    struct device *d;
    const struct product *p;
    struct tensor own; /* [1, N] on the device */
    char *got, *want;  /* [N] */
};

static pm_status check_expert(const struct check *c, int e)
{
    struct tensor x = rows_of(&c->p->x, c->p, e), y = rows_of(&c->p->y, c->p, e);
    size_t bytes = (size_t)y.stride;
    struct linear op = {.y = c->own, .x = tensor_rows(&x, 0, 1), .w = &c->p->w[e]};
    int64_t at;
    TRY(c->k->linear(c->d, &op, 1));
    TRY(c->k->download(c->d, c->want, c->own.data, bytes));
    TRY(c->k->download(c->d, c->got, y.data, bytes));
    if (compare_row(&y, c->got, c->want, &at) == PM_OK) return PM_OK;
    return fail(PM_ERR_DEVICE, "%s: expert %d, output %lld: found %g, wanted %g", c->b->name, e,
                (long long)at, (double)value(&y, c->got, at), (double)value(&y, c->want, at));
}

pm_status baseline_check(const struct baseline *b, const struct kernels *k, struct device *d,
                         const struct product *p)
{
    enum { EXPERTS = 4 };
    struct check c = {.b = b, .k = k, .d = d, .p = p};
    void *own = NULL;
    pm_status status;
    TRY_DONE(alloc_array(&c.got, (size_t)p->y.stride, 1, "baseline"));
    TRY_DONE(alloc_array(&c.want, (size_t)p->y.stride, 1, "baseline"));
    TRY_DONE(k->alloc(d, &own, (size_t)p->y.stride, "baseline"));
    c.own = tensor_view(own, p->y.type, 1, p->y.cols);
    for (int e = 0, n = 0; e < p->n_expert && n < EXPERTS; e++) {
        if (p->first[e] == p->first[e + 1]) continue;
        TRY_DONE(check_expert(&c, e));
        n++;
    }
done:
    k->free(d, own);
    free(c.got);
    free(c.want);
    return status;
}
