/* rows.c - the oracle of what happens to one row at a time. */
#include <math.h>

#include "tests/oracle/oracle.h"

static double at(const struct tensor *t, int64_t row, int64_t col)
{
    return oracle_value(t, row, col);
}

void oracle_embed(double *want, double *bound, const struct tensor *table, const int32_t *id,
                  int64_t n_row, double scale)
{
    for (int64_t r = 0; r < n_row; r++) {
        for (int64_t i = 0; i < table->cols; i++, want++, bound++) {
            *want = at(table, id[r], i) * scale;
            /* Only a scale leaves something to round. */
            *bound = table->type == PM_F8_E4M3 || scale != 1 ? fabs(*want) * 2 * FLOAT_UNIT : 0;
        }
    }
}

/* A sum of n terms is off by n roundings of its magnitude; a square root halves that, and a few
 * more roundings follow. */
static void norm_row(double *want, double *bound, const struct tensor *x, int64_t r,
                     enum norm_kind kind, const float *w, const float *b, double eps)
{
    double n = (double)x->cols, mean = 0, size = 0, square = 0, inv;
    for (int64_t i = 0; i < x->cols; i++) {
        mean += at(x, r, i) / n;
        size += fabs(at(x, r, i)) / n;
    }
    if (kind != NORM_LAYER) mean = size = 0;
    for (int64_t i = 0; i < x->cols; i++) {
        square += (at(x, r, i) - mean) * (at(x, r, i) - mean) / n;
    }
    inv = 1 / sqrt(square + eps);
    for (int64_t i = 0; i < x->cols; i++) {
        double weight = kind == NORM_L2 ? 1 : w[i];
        double shift = kind == NORM_LAYER && b ? b[i] : 0;
        want[i] = (at(x, r, i) - mean) * inv * weight + shift;
        bound[i] = (fabs(at(x, r, i)) + size) * inv * fabs(weight) * (n + 8) + fabs(shift);
        bound[i] *= FLOAT_UNIT;
    }
}

void oracle_norm(double *want, double *bound, struct tensor x, enum norm_kind kind,
                 const float *w, const float *b, double eps)
{
    for (int64_t r = 0; r < x.rows; r++) {
        norm_row(want + r * x.cols, bound + r * x.cols, &x, r, kind, w, b, eps);
    }
}

void oracle_clamp(double *want, double *bound, struct tensor x, double limit)
{
    for (int64_t r = 0; r < x.rows; r++) {
        for (int64_t i = 0; i < x.cols; i++) {
            double v = at(&x, r, i);
            *want++ = v > limit ? limit : v < -limit ? -limit : v;
            *bound++ = 0;
        }
    }
}

void oracle_scale(double *want, double *bound, struct tensor x, const float *factor, int step)
{
    for (int64_t r = 0; r < x.rows; r++) {
        for (int64_t i = 0; i < x.cols; i++, want++, bound++) {
            *want = at(&x, r, i) * factor[r * step];
            *bound = fabs(*want) * FLOAT_UNIT;
        }
    }
}

void oracle_add(double *want, double *bound, struct tensor x, struct tensor y, double factor)
{
    for (int64_t r = 0; r < x.rows; r++) {
        for (int64_t i = 0; i < x.cols; i++, want++, bound++) {
            double term = factor * at(&y, r, i);
            *want = at(&x, r, i) + term;
            *bound = (fabs(*want) + fabs(term)) * FLOAT_UNIT * (1 + FLOAT_UNIT);
        }
    }
}

void oracle_gate_rows(double *want, double *bound, struct tensor y, struct tensor g)
{
    for (int64_t r = 0; r < y.rows; r++) {
        double gate = 1 / (1 + exp(-at(&g, r, 0)));
        for (int64_t i = 0; i < y.cols; i++, want++, bound++) {
            *want = at(&y, r, i) * gate;
            /* exp, 1 + e, 1 / e, product: exp gets two. The last term is what underflows. */
            *bound = fabs(*want) * 5 * FLOAT_UNIT + fabs(at(&y, r, i)) * 0x1p-126;
        }
    }
}

void oracle_rope_table(double *want, double *bound, const int32_t *position, int n_row,
                       const float *inv_freq, int n, double factor)
{
    for (int r = 0; r < n_row; r++) {
        for (int i = 0; i < n; i++) {
            double angle = (double)position[r] * inv_freq[i];
            int64_t at_cosine = (int64_t)r * n + i, at_sine = at_cosine + (int64_t)n_row * n;
            want[at_cosine] = cos(angle) * factor;
            want[at_sine] = sin(angle) * factor;
            /* The angle is a float32 product; cosine and sine turn no faster than it does. */
            bound[at_cosine] = bound[at_sine] = (fabs(angle) + 3) * fabs(factor) * FLOAT_UNIT;
        }
    }
}

void oracle_rope(double *want, double *bound, struct tensor x, int n_head, int offset,
                 const float *cosine, const float *sine, int n, bool interleaved)
{
    int64_t head_dim = x.cols / n_head;
    for (int64_t r = 0; r < x.rows; r++) {
        for (int64_t i = 0; i < x.cols; i++) {
            want[r * x.cols + i] = at(&x, r, i);
            bound[r * x.cols + i] = 0;
        }
        for (int64_t pair = 0; pair < (int64_t)n_head * n; pair++) {
            int64_t head = pair / n, i = pair % n, first = head * head_dim + offset;
            int64_t one = first + (interleaved ? 2 * i : i);
            int64_t two = first + (interleaved ? 2 * i + 1 : i + n);
            double a = at(&x, r, one), b = at(&x, r, two);
            double c = cosine[r * n + i], s = sine[r * n + i];
            want[r * x.cols + one] = a * c - b * s;
            want[r * x.cols + two] = b * c + a * s;
            bound[r * x.cols + one] = (fabs(a * c) + fabs(b * s)) * 2 * FLOAT_UNIT;
            bound[r * x.cols + two] = (fabs(b * c) + fabs(a * s)) * 2 * FLOAT_UNIT;
        }
    }
}

/* kv->k or kv->v, of `dim` values a head: x is [T, G * dim]. */
static void write_half(const struct kv_layer *kv, void *base, int dim, struct tensor x,
                       const int64_t *slot)
{
    for (int64_t r = 0; r < x.rows; r++) {
        for (int64_t i = 0; i < x.cols && slot[r] >= 0; i++) {
            int64_t block = slot[r] / KV_BLOCK, inside = slot[r] % KV_BLOCK, head = i / dim;
            int64_t to = ((block * kv->n_kv_head + head) * KV_BLOCK + inside) * dim + i % dim;
            double value = at(&x, r, i);
            if (kv->type == PM_F32) {
                ((float *)base)[to] = (float)value;
            } else {
                ((uint16_t *)base)[to] = (uint16_t)number_encode(
                    kv->type == PM_F16 ? &number_f16 : &number_bf16, value);
            }
        }
    }
}

void oracle_kv_write(const struct kv_layer *kv, struct tensor k, struct tensor v,
                     const struct attention_rows *rows)
{
    write_half(kv, kv->k, kv->k_dim, k, rows->slot);
    if (v.data) write_half(kv, kv->v, kv->v_dim, v, rows->slot);
}
