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
 *   v_sum4(out, vec[4])       out[j] = v_sum(vec[j]), the same tree
 *   v_stream(p, vec)          a store past the caches to an aligned address
 *   h_extend(const uint8_t *)  LANES signed bytes
 *   v_from_e2m1(const uint8_t *, float scale)  LANES values times scale
 *
 * A linear map in the row-dot form: every output owns one vector accumulator. Step s of the
 * reduction adds w[s * LANES + l] * x[s * LANES + l] to lane l; the last step loads zeros past
 * the end; then v_sum. A tile runs MICRO_ROWS x n_x of these sums side by side to share loads,
 * which changes no sum's own sequence: this is why a row's result does not depend on how many
 * rows came with it. Weights narrower than float32 are widened exactly while they are loaded.
 *
 * Bytes of a tile: weights once per TILE_X rows of x, from the first cache after the first time;
 * x from the second. Flops: 2 K for each output. With one row of x the limiter is memory; from
 * about 16 rows per weight row on, the multiply-adds. */
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

/* E4M3 by way of float16, whose subnormals cover those of E4M3: sign and magnitude, moved, stand
 * for 1 / E4M3_UNIT of the value. The two codes that mean NaN count as +-480: no one stores NaN
 * weights, and to look for them would cost a quarter of the speed. */
static const float E4M3_UNIT = 256;

ALWAYS_INLINE vec v_from_e4m3(const uint8_t *p)
{
    return v_from_f16((h_extend(p) << 7) & 0xbf80);
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

/* The last n values of a row, n < LANES. */
ALWAYS_INLINE vec load_rest(pm_dtype type, const void *p, int64_t i, int n, float scale)
{
    if (type == PM_F8_E4M3) {
        uint8_t rest[LANES] = {0};
        memcpy(rest, (const uint8_t *)p + i, (size_t)n);
        return v_from_e4m3(rest) * scale;
    }
    if (type == PM_MXFP4) {
        uint8_t rest[LANES / 2] = {0};
        memcpy(rest, (const uint8_t *)p + i / 2, (size_t)n / 2);
        return v_from_e2m1(rest, scale);
    }
    return load_n_as(type, p, i, n);
}

/* Half `half` of 2 * LANES values from i on; `scale` is that of their block. */
ALWAYS_INLINE vec load_half(pm_dtype type, const void *p, int64_t i, int half, float scale)
{
    const uint8_t *byte = p;
    if (type == PM_BF16) return bf16_half((const uint16_t *)p + i, half);
    if (type == PM_F8_E4M3) return v_from_e4m3(byte + i + half * LANES) * scale;
    if (type == PM_MXFP4) return v_from_e2m1(byte + (i + half * LANES) / 2, scale);
    return load_as(type, p, i + half * LANES);
}

enum { WIDEN_X = 8 }; /* rows of x from which on widened weights are worth storing */

/* What one pass over the rows of x computes: values k .. end - 1 of the reduction. */
struct pass {
    const char *w[MICRO_ROWS]; /* value 0 of each weight row */
    int64_t k, end;
    float *sums;             /* [n_x, MICRO_ROWS, LANES] between passes */
    const char *ahead;       /* a weight row to fetch meanwhile, from where this pass begins */
    int64_t ahead_step;      /* bytes of it that a step stands for; 0: none */
    const char *const *more; /* [n_more] further rows to fetch */
    int n_more;
};

/* Shares the rows of tile.next among the parts of a pass. */
ALWAYS_INLINE void share_next(const struct tile *t, struct pass *p, int part, int n_part,
                              int64_t begin, int64_t step)
{
    int share = (MICRO_ROWS + n_part - 1) / n_part, first = part * share;
    p->ahead = (const char *)t;
    p->ahead_step = 0;
    p->n_more = 0;
    if (!t->next[0] || first >= MICRO_ROWS) return;
    p->ahead = t->next[first] + begin;
    p->ahead_step = step;
    p->more = t->next + first + 1;
    p->n_more = (int)min_i64(share, MICRO_ROWS - first) - 1;
}

/* A line of each row. The address of the first is kept in a register of its own: arithmetic
 * on others would take turns of the ports that multiply. */
ALWAYS_INLINE void fetch_next(const struct pass *p, const char **ahead)
{
    __builtin_prefetch(*ahead, 0, 2);
    if (p->n_more) {
        int64_t offset = *ahead - p->more[-1];
#pragma GCC unroll 1
        for (int j = 0; j < p->n_more; j++) __builtin_prefetch(p->more[j] + offset, 0, 2);
    }
    *ahead += p->ahead_step;
}

/* The sums of n_x rows and TILE_W weight rows: zero, or what the pass before left. */
ALWAYS_INLINE void begin_sums(const struct pass *p, int row, int w, int n_x, vec acc[][TILE_W])
{
    const float *from = p->sums + (int64_t)(row * MICRO_ROWS + w) * LANES;
    if (p->k == 0) {
#pragma GCC unroll 32
        for (int i = 0; i < n_x * TILE_W; i++) acc[i / TILE_W][i % TILE_W] = (vec){0};
        return;
    }
#pragma GCC unroll 32
    for (int i = 0; i < n_x * TILE_W; i++) {
        acc[i / TILE_W][i % TILE_W] =
            v_load(from + (i / TILE_W * MICRO_ROWS + i % TILE_W) * LANES);
    }
}

/* Leaves them to the next pass, or finishes them. */
ALWAYS_INLINE void end_sums(const struct tile *t, const struct pass *p, int row, int w, int n_x,
                            vec acc[][TILE_W])
{
    float *to = p->sums + (int64_t)(row * MICRO_ROWS + w) * LANES;
    float *y = t->y + row * t->y_stride + w;
    if (p->end < t->k) {
#pragma GCC unroll 32
        for (int i = 0; i < n_x * TILE_W; i++) {
            v_store(to + (i / TILE_W * MICRO_ROWS + i % TILE_W) * LANES,
                    acc[i / TILE_W][i % TILE_W]);
        }
        return;
    }
    for (int i = 0; i < n_x; i++, y += t->y_stride) {
        float sum[TILE_W];
        for (int j = 0; j < TILE_W; j += 4) v_sum4(sum + j, &acc[i][j]);
        if (t->n_w - w >= TILE_W) {
            memcpy(y, sum, sizeof sum);
        } else {
            for (int j = 0; j < t->n_w - w; j++) y[j] = sum[j];
        }
    }
}

/* Adds one weight row times n_x rows of x to their sums. The empty statement keeps the weights
 * in a register: the compiler would rather load them again for each of the products. */
ALWAYS_INLINE void step(vec acc[][TILE_W], int j, int n_x, vec w, const vec *x)
{
    __asm__ volatile("" : V_REGISTER(w));
#pragma GCC unroll 8
    for (int i = 0; i < n_x; i++) acc[i][j] = v_fma(w, x[i], acc[i][j]);
}

/* How many values share a scale; a plain type has one block. */
ALWAYS_INLINE int block_of(pm_dtype type)
{
    return type == PM_MXFP4 ? MXFP4_BLOCK : F8_BLOCK;
}

/* The scale of value k of weight row j, from the tile's room, see expand_scales. */
ALWAYS_INLINE float scale_of(const struct tile *t, const struct pass *p, pm_dtype type, int j,
                             int64_t k)
{
    if (type != PM_F8_E4M3 && type != PM_MXFP4) return 1;
    return t->room[j * MICRO_K + (k - p->k) / block_of(type)];
}

/* A pass over rows row .. row + n_x - 1 of x and weight rows w0 .. w0 + TILE_W - 1, stored or in
 * a panel, where one register serves for all; type, panel and n_x are constants. */
ALWAYS_INLINE void pass_rows(const struct tile *t, const struct pass *p, pm_dtype type,
                             bool panel, int row, int w0, int n_x)
{
    vec acc[TILE_X][TILE_W], x[TILE_X];
    const float *xp[TILE_X];
    const char *wp[TILE_W], *ahead = p->ahead;
    int64_t k = p->k;
#pragma GCC unroll 8
    for (int i = 0; i < n_x; i++) xp[i] = t->x[row + i];
#pragma GCC unroll 8
    for (int j = 0; j < TILE_W; j++) wp[j] = p->w[w0 + j];
    begin_sums(p, row, w0, n_x, acc);
    for (; k + 2 * LANES <= p->end; k += 2 * LANES) {
        const float *base = (const float *)(const void *)p->w[0] + w0 * MICRO_K + k;
        fetch_next(p, &ahead);
        __asm__("" : "+r"(base));
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
#pragma GCC unroll 8
            for (int i = 0; i < n_x; i++) x[i] = v_load(xp[i] + k + half * LANES);
#pragma GCC unroll 8
            for (int j = 0; j < TILE_W; j++) {
                step(acc, j, n_x,
                     panel ? v_load(base + j * MICRO_K + half * LANES)
                           : load_half(type, wp[j], k, half, scale_of(t, p, type, w0 + j, k)),
                     x);
            }
        }
    }
    for (; k < p->end; k += LANES) {
        int n = (int)min_i64(LANES, p->end - k);
#pragma GCC unroll 8
        for (int i = 0; i < n_x; i++) x[i] = v_load_n(xp[i] + k, n);
#pragma GCC unroll 8
        for (int j = 0; j < TILE_W; j++) {
            const char *from = panel ? p->w[0] + (w0 + j) * MICRO_K * sizeof(float) : wp[j];
            step(acc, j, n_x, load_rest(type, from, k, n, scale_of(t, p, type, w0 + j, k)), x);
        }
    }
    end_sums(t, p, row, w0, n_x, acc);
}

/* Runs a pass over all rows, cut into parts of nearly equal height: a part of one row would
 * wait for the latency of its few sums. */
#define PASS_CASE(rows, type, panel, n)                                                        \
    case n: rows(t, p, type, panel, row, w, n <= TILE_X ? n : 1); break

#define PASS_FUNCTION(name, rows, type, panel)                                                 \
    static void name(const struct tile *t, struct pass *p)                                     \
    {                                                                                          \
        int n_part = (t->n_x + TILE_X - 1) / TILE_X, row = 0;                                  \
        int64_t begin = t->next_bytes * p->k / t->k;                                           \
        int64_t step_bytes = t->next_bytes * 2 * LANES / t->k;                                 \
        for (int part = 0; part < n_part; part++) {                                            \
            int height = (t->n_x - row + n_part - part - 1) / (n_part - part);                 \
            share_next(t, p, part, n_part, begin, step_bytes);                                 \
            for (int w = 0; w < t->n_w; w += TILE_W) {                                         \
                switch (height) {                                                              \
                    PASS_CASE(rows, type, panel, 1);                                           \
                    PASS_CASE(rows, type, panel, 2);                                           \
                    PASS_CASE(rows, type, panel, 3);                                           \
                }                                                                              \
            }                                                                                  \
            row += height;                                                                     \
        }                                                                                      \
    }

PASS_FUNCTION(pass_f32, pass_rows, PM_F32, false)
PASS_FUNCTION(pass_bf16, pass_rows, PM_BF16, false)
PASS_FUNCTION(pass_f16, pass_rows, PM_F16, false)
PASS_FUNCTION(pass_f8, pass_rows, PM_F8_E4M3, false)
PASS_FUNCTION(pass_mxfp4, pass_rows, PM_MXFP4, false)
PASS_FUNCTION(pass_panel, pass_rows, PM_F32, true)

/* Values of K in each of as few passes as there can be of at most `most` values; whole blocks of
 * scales. */
ALWAYS_INLINE int64_t pass_length(int64_t k, int64_t most)
{
    int64_t n_pass = (k + most - 1) / most;
    return (k + n_pass * F8_BLOCK - 1) / (n_pass * F8_BLOCK) * F8_BLOCK;
}

/* 2^(s - 127); 255 is NaN. */
ALWAYS_INLINE vec v_from_e8m0(const uint8_t *p)
{
    uvec s = __builtin_convertvector(h_extend(p) & 0xff, uvec);
    return (vec)(s << 23 | ((uvec)(s == 0) & 0x00400000) | ((uvec)(s == 255) & 0x7fc00000));
}

/* The scales of a pass as floats that what `load_half` widens is to be multiplied with, in the
 * tile's room. */
ALWAYS_INLINE void expand_scales(const struct tile *t, const struct pass *p, pm_dtype type)
{
    int64_t first = p->k / block_of(type);
    int n = (int)((p->end + block_of(type) - 1) / block_of(type) - first);
    for (int j = 0; j < t->n_w; j++) {
        float *to = t->room + j * MICRO_K;
        const uint8_t *from = (const uint8_t *)t->w_scale[j] + first;
        if (type == PM_F8_E4M3) {
            const char *scale = (const char *)t->w_scale[j] + first * (int64_t)sizeof *to;
            for (int i = 0; i < n; i++) {
                memcpy(&to[i], scale + i * (int)sizeof *to, sizeof *to);
                to[i] *= E4M3_UNIT;
            }
            continue;
        }
        for (int i = 0; i < n; i += LANES) {
            uint8_t rest[LANES] = {0};
            if (i + LANES <= n) {
                v_store(to + i, v_from_e8m0(from + i));
            } else {
                memcpy(rest, from + i, (size_t)(n - i));
                v_store(to + i, v_from_e8m0(rest));
            }
        }
    }
}

/* Values k .. end - 1 of the weight rows as floats, in the tile's room. Each row's scales stand
 * where its values will, so they step aside. */
ALWAYS_INLINE void widen(const struct tile *t, struct pass *p, pm_dtype type)
{
    float scale[MICRO_K / MXFP4_BLOCK];
    int64_t block = block_of(type);
    for (int j = 0; j < t->n_w; j++) {
        float *to = t->room + j * MICRO_K - p->k;
        memcpy(scale, t->room + j * MICRO_K, sizeof scale);
        for (int64_t k = p->k, stop; k < p->end; k = stop) {
            float s = scale[(k - p->k) / block];
            stop = min_i64(p->end, k + block);
            for (; k + 2 * LANES <= stop; k += 2 * LANES) {
                v_store(to + k, load_half(type, t->w[j], k, 0, s));
                v_store(to + k + LANES, load_half(type, t->w[j], k, 1, s));
            }
            for (; k < stop; k += LANES) {
                int n = (int)min_i64(LANES, stop - k);
                v_store_n(to + k, load_rest(type, t->w[j], k, n, s), n);
            }
        }
    }
    p->w[0] = (const char *)(t->room - p->k);
}

/* Passes of MICRO_K values, so that what belongs to the weights of a pass fits into the tile's
 * room: with few rows of x their scales, with more the widened weights themselves, which all
 * rows of x then find in the first cache. */
ALWAYS_INLINE void run_passes(const struct tile *t, pm_dtype type, bool panel,
                              void (*pass)(const struct tile *, struct pass *))
{
    int64_t length = pass_length(t->k, MICRO_K);
    struct pass p = {.sums = t->room + MICRO_ROWS * MICRO_K};
    for (int j = 0; j < MICRO_ROWS; j++) p.w[j] = t->w[j];
    for (; p.k < t->k; p.k = p.end) {
        p.end = min_i64(p.k + length, t->k);
        if (type == PM_F8_E4M3 || type == PM_MXFP4) expand_scales(t, &p, type);
        if (panel) widen(t, &p, type);
        pass(t, &p);
    }
}

/* With few rows of x, one pass over the weights as they are stored. */
ALWAYS_INLINE void tile_plain(const struct tile *t, pm_dtype type,
                              void (*pass)(const struct tile *, struct pass *))
{
    struct pass p = {.end = t->k};
    if (t->room && t->n_x >= WIDEN_X) {
        run_passes(t, type, true, pass_panel);
        return;
    }
    for (int j = 0; j < MICRO_ROWS; j++) p.w[j] = t->w[j];
    pass(t, &p);
}

ALWAYS_INLINE void tile_scaled(const struct tile *t, pm_dtype type,
                               void (*pass)(const struct tile *, struct pass *))
{
    if (t->n_x > TILE_X) {
        run_passes(t, type, true, pass_panel);
    } else {
        run_passes(t, type, false, pass);
    }
}

static void tile_f32(const struct tile *t)
{
    tile_plain(t, PM_F32, pass_f32);
}

static void tile_bf16(const struct tile *t)
{
    tile_plain(t, PM_BF16, pass_bf16);
}

static void tile_f16(const struct tile *t)
{
    tile_plain(t, PM_F16, pass_f16);
}

static void tile_f8(const struct tile *t)
{
    tile_scaled(t, PM_F8_E4M3, pass_f8);
}

static void tile_mxfp4(const struct tile *t)
{
    tile_scaled(t, PM_MXFP4, pass_mxfp4);
}

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
        v_store_n(y + i, v_fma(factor, load_n_as(type, x, i, rest), v_load_n(y + i, rest)), rest);
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
    for (; i + LANES <= n; i += LANES) max = v_max(v_load(x + i), max);
    v_store(lane, max);
    for (int l = 0; l < LANES; l++) best = lane[l] > best ? lane[l] : best;
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
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
    for (; i + LANES <= n; i += LANES) h_store(y + i, v_to_bf16(v_load(x + i)));
    if (i < n) h_store_n(y + i, v_to_bf16(v_load_n(x + i, (int)(n - i))), (int)(n - i));
}

static void to_f16(uint16_t *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) h_store(y + i, v_to_f16(v_load(x + i)));
    if (i < n) h_store_n(y + i, v_to_f16(v_load_n(x + i, (int)(n - i))), (int)(n - i));
}

static void from_bf16(float *y, const uint16_t *x, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, load_as(PM_BF16, x, i));
    if (i < n) v_store_n(y + i, load_n_as(PM_BF16, x, i, (int)(n - i)), (int)(n - i));
}

static void from_f16(float *y, const uint16_t *x, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, load_as(PM_F16, x, i));
    if (i < n) v_store_n(y + i, load_n_as(PM_F16, x, i, (int)(n - i)), (int)(n - i));
}

static uint64_t stream_read(const void *from, size_t bytes)
{
    uvec acc[4] = {{0}};
    uint64_t sum = 0;
    for (const char *p = from, *end = p + bytes; p < end; p += 4 * sizeof(uvec)) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) acc[j] += (uvec)v_load((const float *)(const void *)p + j * LANES);
    }
    acc[0] += acc[1] + acc[2] + acc[3];
    for (int l = 0; l < LANES; l++) sum += acc[0][l];
    return sum;
}

static void stream_copy(void *to, const void *from, size_t bytes)
{
    float *out = to;
    const float *in = from;
    for (size_t i = 0; i < bytes / sizeof(float); i += LANES) v_stream(out + i, v_load(in + i));
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
    for (int i = 0; i < TILE_X; i++) x[i] = v_all(0.5f);
    hide_sums(acc);
    for (int64_t r = 0; r < n; r++) {
#pragma GCC unroll 8
        for (int j = 0; j < TILE_W; j++) step(acc, j, TILE_X, x[0], x);
    }
    for (int i = 0; i < TILE_X * TILE_W; i++) sum += acc[i / TILE_W][i % TILE_W];
    sink = v_sum(sum);
    (void)sink;
    return 2.0 * LANES * TILE_X * TILE_W * (double)n;
}

/* What every table has; a set replaces what it does better. */
#include "kernels/cpu/micro_values.h"

#define MICRO_BODY                                                                                 .map = {[PM_F32] = {PM_F32, tile_f32},                                                     \
            [PM_F16] = {PM_F32, tile_f16},                                                     \
            [PM_BF16] = {PM_F32, tile_bf16},                                                   \
            [PM_F8_E4M3] = {PM_F32, tile_f8},                                                  \
            [PM_MXFP4] = {PM_F32, tile_mxfp4}},                                                \
    MICRO_HELPERS

#define MICRO_HELPERS                                                                              .dot_f32 = dot_f32, .dot_bf16 = dot_bf16, .dot_f16 = dot_f16, .axpy_f32 = axpy_f32,            .axpy_bf16 = axpy_bf16, .axpy_f16 = axpy_f16, .values = {[PM_F32] = values_f32, [PM_F16] = values_f16, [PM_BF16] = values_bf16}, .sum_squares = sum_squares, .max = max_f32,      .exp_sum = exp_sum, .glu = glu_f32, .to_bf16 = to_bf16, .to_f16 = to_f16,                      .from_bf16 = from_bf16, .from_f16 = from_f16, .stream_read = stream_read,                      .stream_copy = stream_copy, .peak_f32 = peak_f32
