/* micro_body.h - the algorithms that all instruction sets share, written once over vectors.
 *
 * Each micro_<set>.c includes this file after it has defined:
 *   LANES      floats in a vector
 *   TILE_W, TILE_X  weight rows (a multiple of 4) and rows of x whose sums stay in registers
 *   vec        LANES floats, ivec LANES int32_t, hvec LANES uint16_t (vector_size types)
 *   V_REGISTER(v)             an asm operand: v in a register, read and written
 *   v_fma(a, b, c)            a * b + c, in one or two roundings
 *   v_max(a, b), v_min(a, b)  b where either is NaN
 *   v_load_n, v_store_n       the first n floats; loading fills with zeros
 *   h_load_n, h_store_n       the same for uint16_t
 *   v_from_bf16(hvec), v_from_f16(hvec), v_to_f16(vec)
 *   bf16_half(p, h)           LANES bf16 values from p + h * LANES; may read 2 * LANES from p
 *   v_sum(vec)                sum of the lanes in one fixed tree
 *   v_sum4(vec[4])            four of these sums, by the same tree
 *   v_stream(p, vec)          a store past the caches to an aligned address
 *   h_extend(const uint8_t *)  LANES signed bytes
 *   v_from_e2m1(const uint8_t *, float scale)  LANES values times scale
 *
 * The vector helpers below have one result for an element wherever it stands: tails run the
 * same operations on vectors filled up with zeros. Sums have a fixed order that depends on the
 * length alone. All are bound by loads and stores. */
#include <math.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE vec v_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS_INLINE void v_store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

ALWAYS_INLINE hvec h_load(const uint16_t *p)
{
    hvec v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS_INLINE void h_store(uint16_t *p, hvec v)
{
    memcpy(p, &v, sizeof v);
}

ALWAYS_INLINE vec v_all(float f)
{
    return (vec){0} + f;
}

/* Nearest even, as f32_to_bf16. */
ALWAYS_INLINE hvec v_to_bf16(vec v)
{
    uvec u = (uvec)v;
    uvec rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    uvec nan = (uvec)((u & 0x7fffffff) > 0x7f800000);
    return __builtin_convertvector((rounded & ~nan) | ((u >> 16 | 0x40) & nan), hvec);
}

/* LANES (or, in a last step, n) stored values of one type as floats. */
ALWAYS_INLINE vec load_as(pm_dtype type, const void *p, int64_t i)
{
    if (type == PM_F32) return v_load((const float *)p + i);
    if (type == PM_BF16) return v_from_bf16(h_load((const uint16_t *)p + i));
    return v_from_f16(h_load((const uint16_t *)p + i));
}

ALWAYS_INLINE vec load_n_as(pm_dtype type, const void *p, int64_t i, int n)
{
    if (type == PM_F32) return v_load_n((const float *)p + i, n);
    if (type == PM_BF16) return v_from_bf16(h_load_n((const uint16_t *)p + i, n));
    return v_from_f16(h_load_n((const uint16_t *)p + i, n));
}

#include "kernels/cpu/micro_tile.h"

/* sum of a[i] b[i]: vector i of the operands goes to accumulator i % 4. */
ALWAYS_INLINE float dot_as(pm_dtype type, const float *a, const void *b, int64_t n)
{
    vec acc[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            acc[j] = v_fma(v_load(a + i + j * LANES), load_as(type, b, i + j * LANES), acc[j]);
        }
    }
    for (; i < n; i += LANES) {
        int rest = (int)min_i64(LANES, n - i);
        acc[0] = v_fma(v_load_n(a + i, rest), load_n_as(type, b, i, rest), acc[0]);
    }
    return v_sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

static float dot_f32(const float *a, const float *b, int64_t n)
{
    return dot_as(PM_F32, a, b, n);
}

static float dot_bf16(const float *a, const uint16_t *b, int64_t n)
{
    return dot_as(PM_BF16, a, b, n);
}

static float dot_f16(const float *a, const uint16_t *b, int64_t n)
{
    return dot_as(PM_F16, a, b, n);
}

static float sum_squares(const float *x, int64_t n)
{
    return dot_as(PM_F32, x, x, n);
}

ALWAYS_INLINE void axpy_as(pm_dtype type, float *y, float a, const void *x, int64_t n)
{
    int64_t i = 0;
    vec factor = v_all(a);
    for (; i + LANES <= n; i += LANES) {
        v_store(y + i, v_fma(factor, load_as(type, x, i), v_load(y + i)));
    }
    if (i < n) {
        int rest = (int)(n - i);
        v_store_n(y + i, v_fma(factor, load_n_as(type, x, i, rest), v_load_n(y + i, rest)),
                  rest);
    }
}

static void axpy_f32(float *y, float a, const float *x, int64_t n)
{
    axpy_as(PM_F32, y, a, x, n);
}

static void axpy_bf16(float *y, float a, const uint16_t *x, int64_t n)
{
    axpy_as(PM_BF16, y, a, x, n);
}

static void axpy_f16(float *y, float a, const uint16_t *x, int64_t n)
{
    axpy_as(PM_F16, y, a, x, n);
}

static float max_f32(const float *x, int64_t n)
{
    vec max = v_all(-INFINITY);
    float lane[LANES], best = -INFINITY;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        max = v_max(v_load(x + i), max);
    v_store(lane, max);
    for (int l = 0; l < LANES; l++)
        best = lane[l] > best ? lane[l] : best;
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. ln 2 is split so that n times its
 * first part is exact; the polynomial is that of Cephes expf; 2^n is applied in two factors, so
 * that subnormal results round once and large ones become infinite. */
ALWAYS_INLINE vec v_exp(vec x)
{
    const float round = 12582912; /* 1.5 * 2^23: adding it leaves no bits after the point */
    vec t = v_min(v_all(89), v_max(v_all(-110), x));
    vec n = (t * 1.44269504088896341f + round) - round;
    vec r = v_fma(n, v_all(-0.693359375f), t);
    vec p = v_all(1.9875691500e-4f);
    ivec whole, half;
    r = v_fma(n, v_all(2.12194440e-4f), r);
    p = v_fma(p, r, v_all(1.3981999507e-3f));
    p = v_fma(p, r, v_all(8.3334519073e-3f));
    p = v_fma(p, r, v_all(4.1665795894e-2f));
    p = v_fma(p, r, v_all(1.6666665459e-1f));
    p = v_fma(p, r, v_all(5.0000001201e-1f));
    p = v_fma(p, r * r, r) + 1.0f;
    /* The comparison keeps NaN out of the conversion, whose result would be undefined. */
    whole = __builtin_convertvector((vec)((ivec)n & (n == n)), ivec);
    half = whole >> 1;
    return p * (vec)((half + 127) << 23) * (vec)((whole - half + 127) << 23);
}

static float exp_sum(float *x, int64_t n, float max)
{
    vec sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec e = v_exp(v_load(x + i) - max);
        v_store(x + i, e);
        sum += e;
    }
    if (i < n) {
        v_store_n(x + i, v_exp(v_load_n(x + i, (int)(n - i)) - max), (int)(n - i));
        sum += v_load_n(x + i, (int)(n - i));
    }
    return v_sum(sum);
}

/* Every kind is g / (1 + exp(-t)) * u: silu has t = g; gelu_tanh has t = 2 sqrt(2 / pi) (g +
 * 0.044715 g^3), because (1 + tanh z) / 2 = 1 / (1 + exp(-2 z)). */
ALWAYS_INLINE vec v_glu(vec g, vec u, const struct glu *glu)
{
    vec t = g;
    if (glu->kind == GLU_GELU) {
        t = g * 1.5957691216057308f * v_fma(g * g, v_all(0.044715f), v_all(1));
    } else if (glu->kind == GLU_CLAMPED) {
        g = v_min(v_all(glu->limit), g);
        u = v_max(v_all(-glu->limit), v_min(v_all(glu->limit), u)) + 1.0f;
        t = g * glu->alpha;
    }
    return g / (v_exp(-t) + 1.0f) * u;
}

static void glu_f32(float *y, const float *gate, const float *up, int64_t n,
                    const struct glu *glu)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        v_store(y + i, v_glu(v_load(gate + i), v_load(up + i), glu));
    }
    if (i < n) {
        int rest = (int)(n - i);
        v_store_n(y + i, v_glu(v_load_n(gate + i, rest), v_load_n(up + i, rest), glu), rest);
    }
}

static void to_bf16(uint16_t *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        h_store(y + i, v_to_bf16(v_load(x + i)));
    if (i < n) h_store_n(y + i, v_to_bf16(v_load_n(x + i, (int)(n - i))), (int)(n - i));
}

static void to_f16(uint16_t *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        h_store(y + i, v_to_f16(v_load(x + i)));
    if (i < n) h_store_n(y + i, v_to_f16(v_load_n(x + i, (int)(n - i))), (int)(n - i));
}

static void from_bf16(float *y, const uint16_t *x, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store(y + i, load_as(PM_BF16, x, i));
    if (i < n) v_store_n(y + i, load_n_as(PM_BF16, x, i, (int)(n - i)), (int)(n - i));
}

static void from_f16(float *y, const uint16_t *x, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store(y + i, load_as(PM_F16, x, i));
    if (i < n) v_store_n(y + i, load_n_as(PM_F16, x, i, (int)(n - i)), (int)(n - i));
}

static uint64_t stream_read(const void *from, size_t bytes)
{
    enum { AHEAD = 8192 }; /* beyond the page, where the prefetchers of the processor stop */
    uvec acc[4] = {{0}};
    uint64_t sum = 0;
    for (const char *p = from, *end = p + bytes; p < end; p += sizeof acc) {
        for (size_t line = 0; line < sizeof acc; line += LINE)
            __builtin_prefetch(p + AHEAD + line, 0, 2);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            acc[j] += (uvec)v_load((const float *)(const void *)p + j * LANES);
    }
    acc[0] += acc[1] + acc[2] + acc[3];
    for (int l = 0; l < LANES; l++)
        sum += acc[0][l];
    return sum;
}

static void stream_copy(void *to, const void *from, size_t bytes)
{
    float *out = to;
    const float *in = from;
    for (size_t i = 0; i < bytes / sizeof(float); i += LANES)
        v_stream(out + i, v_load(in + i));
}

/* Zeros that the compiler cannot see to be equal, so that it keeps all the sums. */
ALWAYS_INLINE void hide_sums(vec acc[][TILE_W])
{
    for (int i = 0; i < TILE_X * TILE_W; i++) {
        acc[i / TILE_W][i % TILE_W] = (vec){0};
        __asm__ volatile("" : V_REGISTER(acc[i / TILE_W][i % TILE_W]));
    }
}

/* As many independent sums as a tile has. */
static double peak_f32(int64_t n)
{
    vec acc[TILE_X][TILE_W], x[TILE_X], sum = {0};
    volatile float sink;
    for (int i = 0; i < TILE_X; i++)
        x[i] = v_all(0.5f);
    hide_sums(acc);
    for (int64_t r = 0; r < n; r++) {
#pragma GCC unroll 8
        for (int j = 0; j < TILE_W; j++)
            step(acc, j, TILE_X, x[0], x);
    }
    for (int i = 0; i < TILE_X * TILE_W; i++)
        sum += acc[i / TILE_W][i % TILE_W];
    sink = v_sum(sum);
    (void)sink;
    return 2.0 * LANES * TILE_X * TILE_W * (double)n;
}

#include "kernels/cpu/micro_values.h"

/* What every table has; a set replaces what it does better. */
#define MICRO_BODY                                                                             \
    .map = {[PM_F32] = {PM_F32, tile_f32, NULL},                                               \
            [PM_F16] = {PM_F32, tile_f16, NULL},                                               \
            [PM_BF16] = {PM_F32, tile_bf16, NULL},                                             \
            [PM_F8_E4M3] = {PM_F32, tile_f8, NULL},                                            \
            [PM_MXFP4] = {PM_F32, tile_mxfp4, NULL}},                                          \
    MICRO_HELPERS

#define MICRO_HELPERS                                                                          \
    .dot_f32 = dot_f32, .dot_bf16 = dot_bf16, .dot_f16 = dot_f16, .axpy_f32 = axpy_f32,        \
    .axpy_bf16 = axpy_bf16, .axpy_f16 = axpy_f16,                                              \
    .values = {[PM_F32] = values_f32, [PM_F16] = values_f16, [PM_BF16] = values_bf16},         \
    .sum_squares = sum_squares, .max = max_f32, .exp_sum = exp_sum, .glu = glu_f32,            \
    .to_bf16 = to_bf16, .to_f16 = to_f16, .from_bf16 = from_bf16, .from_f16 = from_f16,        \
    .stream_read = stream_read, .stream_copy = stream_copy, .peak_f32 = peak_f32
