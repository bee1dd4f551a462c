/* numbers.c - small floats and scaled blocks from their definitions.
 *
 * A code is sign, exponent, mantissa; its value is 2^(e - bias) (1 + m / 2^M), or without the
 * leading one where e is 0. Encoding works in double, whose 53 bits hold every float32 and
 * every midpoint of two codes exactly, so that nearest-even is decided once, by rint. */
#include <math.h>

#include "tests/oracle/oracle.h"

const struct number_format number_f16 = {5, 10, SPECIAL_IEEE};
const struct number_format number_bf16 = {8, 7, SPECIAL_IEEE};
const struct number_format number_e4m3 = {4, 3, SPECIAL_NAN};
const struct number_format number_e2m1 = {2, 1, SPECIAL_NUMBER};

double number_decode(const struct number_format *f, uint32_t code)
{
    int top = (1 << f->exponent) - 1, bias = top >> 1;
    int e = (int)(code >> f->mantissa) & top;
    int m = (int)code & ((1 << f->mantissa) - 1);
    double sign = code >> (f->exponent + f->mantissa) & 1 ? -1 : 1;
    double one = 1 << f->mantissa;
    if (e == top && f->special == SPECIAL_IEEE) return m ? NAN : sign * INFINITY;
    if (e == top && f->special == SPECIAL_NAN && m == one - 1) return NAN;
    if (e == 0) return sign * ldexp(m / one, 1 - bias);
    return sign * ldexp(1 + m / one, e - bias);
}

/* The largest finite code without its sign. */
static uint32_t largest(const struct number_format *f)
{
    uint32_t all = (1u << (f->exponent + f->mantissa)) - 1;
    if (f->special == SPECIAL_NUMBER) return all;
    return f->special == SPECIAL_NAN ? all - 1 : all - (1u << f->mantissa);
}

uint32_t number_encode(const struct number_format *f, double value)
{
    int bias = (1 << (f->exponent - 1)) - 1, e;
    uint32_t sign = (uint32_t)(signbit(value) != 0) << (f->exponent + f->mantissa);
    uint32_t max = largest(f), code;
    double a = fabs(value), units;
    if (isnan(value)) return sign | (max + (f->special == SPECIAL_IEEE ? 2 : 1));
    if (isinf(value)) return sign | (f->special == SPECIAL_IEEE ? max + 1 : max);
    /* Codes of one binade are equally spaced, and consecutive binades have consecutive codes:
     * what rounds up past the end of a binade is the next one's first. */
    e = a > 0 ? ilogb(a) : 0;
    if (e < 1 - bias || a == 0) e = 1 - bias;
    units = rint(ldexp(a, f->mantissa - e));
    if (e > 2 * bias + 1) return sign | (f->special == SPECIAL_IEEE ? max + 1 : max);
    code = (uint32_t)(units + ldexp(e + bias - 1, f->mantissa));
    if (code > max) code = f->special == SPECIAL_IEEE ? max + 1 : max;
    return sign | code;
}

static double scaled_e4m3(const struct tensor *t, int64_t row, int64_t col)
{
    const uint8_t *code = (const uint8_t *)t->data + row * t->stride + col;
    const char *scales = (const char *)t->scale + (t->scale_row + row) / 128 * t->scale_stride;
    return number_decode(&number_e4m3, *code) *
           ((const float *)(const void *)scales)[col / 128];
}

static double scaled_e2m1(const struct tensor *t, int64_t row, int64_t col)
{
    uint8_t pair = ((const uint8_t *)t->data + row * t->stride)[col / 2];
    uint8_t scale = ((const uint8_t *)t->scale + row * t->scale_stride)[col / 32];
    if (scale == 255) return NAN;
    return ldexp(number_decode(&number_e2m1, col % 2 ? pair >> 4 : pair & 15), scale - 127);
}

double oracle_value(const struct tensor *t, int64_t row, int64_t col)
{
    const void *at = (const char *)t->data + row * t->stride;
    switch (t->type) {
    case PM_F32: return ((const float *)at)[col];
    case PM_F16: return number_decode(&number_f16, ((const uint16_t *)at)[col]);
    case PM_BF16: return number_decode(&number_bf16, ((const uint16_t *)at)[col]);
    case PM_F8_E4M3: return scaled_e4m3(t, row, col);
    case PM_MXFP4: return scaled_e2m1(t, row, col);
    default: return NAN;
    }
}
