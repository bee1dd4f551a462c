/* attention.c - the oracle of attention over the paged cache, plain and latent.
 *
 *     out = sum over j of p_j v_j,  p = softmax over the visible j of scale * q . k_j
 *
 * The error allowed: a score of n products is off by (n + 2) roundings of its magnitude, and by
 * `unit` of it where the query is narrowed; the exponential turns an absolute error of its
 * argument into a relative one; its share in the numerator and in the sum makes it two. A
 * weight that is narrowed before it meets a value is off by `unit` once more. */
#include <math.h>
#include <stdlib.h>

#include "tests/oracle/oracle.h"

/* What one query of one head sees: keys [n, k_dim] and values [n, v_dim] at its positions. */
struct seen {
    int n, k_dim, v_dim;
    double *k, *v;
    double *k_size, *v_size; /* magnitudes of the terms that k and v are sums of */
};

static double *doubles(int64_t n)
{
    return calloc((size_t)(n > 0 ? n : 1), sizeof(double));
}

static double cached(const struct kv_layer *kv, const void *base, int dim, int64_t block,
                     int inside, int head, int i)
{
    int64_t at = ((block * kv->n_kv_head + head) * KV_BLOCK + inside) * dim + i;
    if (kv->type == PM_F32) return ((const float *)base)[at];
    return number_decode(kv->type == PM_F16 ? &number_f16 : &number_bf16,
                         ((const uint16_t *)base)[at]);
}

/* Reads key or value vectors of positions 0 .. n - 1 of a sequence. */
static void gather(double *to, const struct kv_layer *kv, const void *base, int dim, int head,
                   const int32_t *block, int n)
{
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < dim; i++) {
            *to++ = cached(kv, base, dim, block[j / KV_BLOCK], j % KV_BLOCK, head, i);
        }
    }
}

/* p [n] becomes scores; returns the largest error that one of them may have. */
static double score(double *p, const struct seen *s, int first, const double *q, double scale,
                    double roundings, double unit)
{
    double error = 0, most = 0;
    for (int j = first; j < s->n; j++) {
        double sum = 0, size = 0;
        for (int i = 0; i < s->k_dim; i++) {
            sum += q[i] * s->k[(int64_t)j * s->k_dim + i];
            size += fabs(q[i]) * s->k_size[(int64_t)j * s->k_dim + i];
        }
        p[j] = sum * scale;
        error = fmax(error, fabs(scale) * size * (roundings * FLOAT_UNIT + unit));
        most = fmax(most, fabs(p[j]));
    }
    return error + 3 * most * FLOAT_UNIT; /* the scaling and the subtraction of the maximum */
}

/* One head of one row: positions first .. n - 1 are seen. */
static void attend(double *want, double *bound, const struct seen *s, int first,
                   const double *q, double scale, const float *sink, double roundings,
                   double unit)
{
    double *p = doubles(s->n), max = sink ? *sink : -INFINITY, sum, error;
    error = score(p, s, first, q, scale, roundings + s->k_dim, unit);
    for (int j = first; j < s->n; j++) {
        max = fmax(max, p[j]);
    }
    sum = sink ? exp(*sink - max) : 0;
    for (int j = first; j < s->n; j++) {
        p[j] = exp(p[j] - max);
        sum += p[j];
    }
    for (int i = 0; i < s->v_dim; i++) {
        double size = 0;
        want[i] = 0;
        for (int j = first; j < s->n; j++) {
            want[i] += p[j] / sum * s->v[(int64_t)j * s->v_dim + i];
            size += p[j] / sum * s->v_size[(int64_t)j * s->v_dim + i];
        }
        bound[i] =
            size * (expm1(2 * error) + (2.0 * s->n + 16 + roundings) * FLOAT_UNIT + unit);
    }
    free(p);
}

static int first_seen(int position, int window, int chunk)
{
    int first = 0;
    if (window > 0 && position - window + 1 > first) first = position - window + 1;
    if (chunk > 0 && position / chunk * chunk > first) first = position / chunk * chunk;
    return first;
}

static void magnitudes(double *to, const double *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = fabs(from[i]);
    }
}

/* All rows of sequence s that use KV head g. */
static void plain_group(double *want, double *bound, const struct attention *op, int s, int g,
                        double unit)
{
    const struct attention_rows *rows = op->rows;
    const struct kv_layer *kv = op->kv;
    int n = rows->kv_len[s], k_dim = kv->k_dim, v_dim = kv->v_dim;
    int group = op->n_head / kv->n_kv_head;
    const int32_t *block = rows->block_table + (int64_t)s * rows->max_block;
    struct seen seen = {n,
                        k_dim,
                        v_dim,
                        doubles((int64_t)n * k_dim),
                        doubles((int64_t)n * v_dim),
                        doubles((int64_t)n * k_dim),
                        doubles((int64_t)n * v_dim)};
    double *q = doubles(k_dim);
    gather(seen.k, kv, kv->k, k_dim, g, block, n);
    gather(seen.v, kv, kv->v, v_dim, g, block, n);
    magnitudes(seen.k_size, seen.k, (int64_t)n * k_dim);
    magnitudes(seen.v_size, seen.v, (int64_t)n * v_dim);
    for (int64_t r = rows->q_start[s]; r < rows->q_start[s + 1]; r++) {
        if (rows->slot[r] < 0) continue;
        seen.n = rows->position[r] + 1;
        for (int h = g * group; h < (g + 1) * group; h++) {
            int64_t to = (r * op->n_head + h) * v_dim;
            for (int i = 0; i < k_dim; i++) {
                q[i] = oracle_value(&op->q, r, (int64_t)h * k_dim + i);
            }
            attend(want + to, bound + to, &seen,
                   first_seen(rows->position[r], op->window, op->chunk), q, op->scale,
                   op->sink ? &op->sink[h] : NULL, 2, unit);
        }
    }
    free(seen.k);
    free(seen.v);
    free(seen.k_size);
    free(seen.v_size);
    free(q);
}

void oracle_attention(double *want, double *bound, const struct attention *op, double unit)
{
    for (int s = 0; s < op->rows->n_seq; s++) {
        if (op->rows->q_start[s] == op->rows->q_start[s + 1]) continue;
        for (int g = 0; g < op->kv->n_kv_head; g++) {
            plain_group(want, bound, op, s, g, unit);
        }
    }
}

/* Vectors of one head from the latents: rows first .. first + n_row - 1 of kv_b times each. */
static void expand(double *to, double *size, const struct attention_mla *op, int64_t first,
                   int n_row, int stride, const double *cache, int n)
{
    double *w = doubles(op->latent);
    for (int i = 0; i < n_row; i++) {
        for (int c = 0; c < op->latent; c++) {
            w[c] = oracle_value(&op->kv_b, first + i, c);
        }
        for (int64_t j = 0; j < n; j++) {
            const double *latent = cache + j * (op->latent + op->rope);
            for (int c = 0; c < op->latent; c++) {
                to[j * stride + i] += w[c] * latent[c];
                size[j * stride + i] += fabs(w[c] * latent[c]);
            }
        }
    }
    free(w);
}

/* Head h of all rows of sequence s; cache is [kv_len, latent + rope]. */
static void latent_head(double *want, double *bound, const struct attention_mla *op, int s,
                        int h, const double *cache, double unit)
{
    const struct attention_rows *rows = op->rows;
    int n = rows->kv_len[s], k_dim = op->nope + op->rope, width = op->latent + op->rope;
    int64_t base = (int64_t)h * (op->nope + op->v_dim);
    struct seen seen = {n,
                        k_dim,
                        op->v_dim,
                        doubles((int64_t)n * k_dim),
                        doubles((int64_t)n * op->v_dim),
                        doubles((int64_t)n * k_dim),
                        doubles((int64_t)n * op->v_dim)};
    double *q = doubles(k_dim);
    expand(seen.k, seen.k_size, op, base, op->nope, k_dim, cache, n);
    expand(seen.v, seen.v_size, op, base + op->nope, op->v_dim, op->v_dim, cache, n);
    for (int64_t j = 0; j < n; j++) {
        for (int i = 0; i < op->rope; i++) {
            double x = cache[j * width + op->latent + i];
            seen.k[j * k_dim + op->nope + i] = x;
            seen.k_size[j * k_dim + op->nope + i] = fabs(x);
        }
    }
    for (int64_t r = rows->q_start[s]; r < rows->q_start[s + 1]; r++) {
        int64_t to = (r * op->n_head + h) * op->v_dim;
        if (rows->slot[r] < 0) continue;
        seen.n = rows->position[r] + 1;
        for (int i = 0; i < k_dim; i++) {
            q[i] = oracle_value(&op->q, r, (int64_t)h * k_dim + i);
        }
        /* Both products with kv_b are sums over the latent, a scaled weight is one rounding. */
        attend(want + to, bound + to, &seen, 0, q, op->scale, NULL, 2.0 * op->latent + 8, unit);
    }
    free(seen.k);
    free(seen.v);
    free(seen.k_size);
    free(seen.v_size);
    free(q);
}

void oracle_attention_mla(double *want, double *bound, const struct attention_mla *op,
                          double unit)
{
    const struct attention_rows *rows = op->rows;
    for (int s = 0; s < rows->n_seq; s++) {
        const int32_t *block = rows->block_table + (int64_t)s * rows->max_block;
        double *cache = doubles((int64_t)rows->kv_len[s] * op->kv->k_dim);
        if (rows->q_start[s] < rows->q_start[s + 1]) {
            gather(cache, op->kv, op->kv->k, op->kv->k_dim, 0, block, rows->kv_len[s]);
            for (int h = 0; h < op->n_head; h++) {
                latent_head(want, bound, op, s, h, cache, unit);
            }
        }
        free(cache);
    }
}
