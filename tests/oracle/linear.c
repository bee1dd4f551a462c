/* linear.c - the oracle of the linear maps, gated ones included.
 *
 * All activations used here have a slope of at most 1.13, which is how far an error of the gate
 * carries into the result. */
#include <math.h>

#include "tests/oracle/oracle.h"

static const double STEEPEST = 1.13;

/* w[n] . x[row] + b[n] */
static double dot(double *bound, const struct tensor *w, const struct tensor *b, int64_t n,
                  const struct tensor *x, int64_t row, double unit)
{
    double sum = 0, size = 0;
    for (int64_t i = 0; i < w->cols; i++) {
        double term = oracle_value(w, n, i) * oracle_value(x, row, i);
        sum += term;
        size += fabs(term);
    }
    if (b && b->data) {
        /* A vector is one row. */
        sum += oracle_value(b, 0, n);
        size += fabs(oracle_value(b, 0, n));
    }
    *bound = size * (((double)w->cols + 4) * FLOAT_UNIT + unit);
    return sum;
}

static double activate(const struct glu *glu, double g)
{
    switch (glu->kind) {
    case GLU_SILU: return g / (1 + exp(-g));
    case GLU_GELU:
        return 0.5 * g * (1 + tanh(0.79788456080286535588 * (g + 0.044715 * g * g * g)));
    default: g = fmin(g, glu->limit); return g / (1 + exp(-glu->alpha * g));
    }
}

static void gated(double *want, double *bound, const struct glu *glu, double gate,
                  double gate_bound, double up, double up_bound)
{
    double a = activate(glu, gate), u = up;
    if (glu->kind == GLU_CLAMPED) u = fmin(fmax(up, -glu->limit), glu->limit) + 1;
    *want = a * u;
    *bound = STEEPEST * gate_bound * (fabs(u) + up_bound) + fabs(a) * up_bound +
             fabs(*want) * 16 * FLOAT_UNIT;
}

static void expert_row(double *want, double *bound, const struct linear *op, int e, int64_t row,
                       double unit)
{
    for (int64_t n = 0; n < op->w[e].rows; n++) {
        double up, up_bound;
        want[n] = dot(&bound[n], &op->w[e], op->b ? &op->b[e] : NULL, n, &op->x, row, unit);
        if (!op->w_up) continue;
        up = dot(&up_bound, &op->w_up[e], op->b_up ? &op->b_up[e] : NULL, n, &op->x, row, unit);
        gated(&want[n], &bound[n], &op->glu, want[n], bound[n], up, up_bound);
    }
}

void oracle_linear(double *want, double *bound, const struct linear *op, double unit)
{
    const struct ragged *rows = op->rows;
    int n_expert = rows ? rows->n_expert : 1;
    int64_t cols = op->w[0].rows;
    for (int e = 0; e < n_expert; e++) {
        int64_t first = rows ? rows->offset[e] : 0;
        int64_t end = rows ? rows->offset[e + 1] : op->x.rows;
        for (int64_t r = first; r < end; r++) {
            int64_t from = rows && rows->source ? rows->source[r] : r;
            expert_row(want + r * cols, bound + r * cols, op, e, from, unit);
        }
    }
}
