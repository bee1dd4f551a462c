/* oracle.h - every operation of kernels.h once more: in double, in plain loops, to be read.
 *
 * An oracle repeats the formula of the contract. It shares no code with a backend, not even the
 * decoding of small floats. It takes the operation's own views and writes dense matrices of
 * doubles:
 *
 *   want[i]   the value, as good as exact
 *   bound[i]  how far a float32 computation may be from it: the sum of the magnitudes of the
 *             terms, times the number of roundings on the way, times FLOAT_UNIT
 *
 * so that a tolerance follows from the types and the length of the reduction and nothing is
 * tuned. `unit` stands for the relative error of activations that a backend narrows before it
 * multiplies: 0, or BF16_UNIT where they become bf16. Both outputs belong to the caller. */
#ifndef TESTS_ORACLE_ORACLE_H
#define TESTS_ORACLE_ORACLE_H

#include "kernels/kernels.h"

#define FLOAT_UNIT 0x1p-24 /* a rounding to float32 is off by at most this share */
#define BF16_UNIT  0x1p-8  /* twice the share of a rounding to bf16: room for its products */

/* A small float: sign, exponent, mantissa bits, and what the largest exponent stands for. */
enum special {
    SPECIAL_IEEE,   /* infinity and NaN */
    SPECIAL_NAN,    /* all ones is NaN, everything else a number (E4M3) */
    SPECIAL_NUMBER, /* only numbers (E2M1) */
};

struct number_format {
    int exponent, mantissa;
    enum special special;
};

extern const struct number_format number_f16, number_bf16, number_e4m3, number_e2m1;

double number_decode(const struct number_format *f, uint32_t code);
/* The nearest code, ties to the even one; too large becomes infinite or else the largest. */
uint32_t number_encode(const struct number_format *f, double value);

/* Value [row, col] of a tensor of any weight type. */
double oracle_value(const struct tensor *t, int64_t row, int64_t col);

/* ------------------------------------------------------------------ rows; x is [T, n] */

void oracle_embed(double *want, double *bound, const struct tensor *table, const int32_t *id,
                  int64_t n_row, double scale);
void oracle_norm(double *want, double *bound, struct tensor x, enum norm_kind kind,
                 const float *w, const float *b, double eps);
void oracle_clamp(double *want, double *bound, struct tensor x, double limit);
/* x[t] *= factor[t]; step 0 takes factor[0] for all rows */
void oracle_scale(double *want, double *bound, struct tensor x, const float *factor, int step);
void oracle_add(double *want, double *bound, struct tensor x, struct tensor y, double factor);
void oracle_gate_rows(double *want, double *bound, struct tensor y, struct tensor g);
/* want and bound are [2, T, n]: cosines, then sines. */
void oracle_rope_table(double *want, double *bound, const int32_t *position, int n_row,
                       const float *inv_freq, int n, double factor);
void oracle_rope(double *want, double *bound, struct tensor x, int n_head, int offset,
                 const float *cosine, const float *sine, int n, bool interleaved);
/* Changes the cache itself, to exactly the bits that it must have. */
void oracle_kv_write(const struct kv_layer *kv, struct tensor k, struct tensor v,
                     const struct attention_rows *rows);
void oracle_linear(double *want, double *bound, const struct linear *op, double unit);

/* ------------------------------------------------------------------ attention
 *
 * want and bound are [T, H * v_dim]; padding rows are left alone. The second is the expanded
 * form of MLA: keys and values of every head are made from the latent, then plain attention. */
void oracle_attention(double *want, double *bound, const struct attention *op, double unit);
void oracle_attention_mla(double *want, double *bound, const struct attention_mla *op,
                          double unit);

/* ------------------------------------------------------------------ experts */

/* Picks and weighs for one row of logits: id, weight and bound are [K]. Returns the margin: the
 * smallest relative distance between what a comparison on the way took and the best that it
 * left. Below some roundings another choice is as good. Exact ties do not count: they have a
 * rule. */
double oracle_gate(int32_t *id, double *weight, double *bound, const struct gate *g,
                   const float *logit, const float *bias);
void oracle_permute(const struct gate *g, int n_row, const int32_t *id, int32_t *offset,
                    int32_t *source, int32_t *place);
void oracle_unpermute(double *want, double *bound, const struct gate *g, struct tensor y,
                      struct tensor x, const struct routing *routing, double factor);

#endif
