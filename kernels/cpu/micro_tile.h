/* micro_tile.h - tiles of linear maps in the row-dot form. Included by micro_body.h.
 *
 *   y[i][j] = sum over k of w[j][k] x[i][k]
 *
 * The reduction is cut into passes, as few and as equal as a limit on their length allows. In a
 * pass every output owns one vector accumulator: step s adds w[s * LANES + l] * x[s * LANES +
 * l] to lane l, the last step takes zeros past the end, the lanes are summed in one fixed tree,
 * and the sum is added to that of the passes before. TILE_W x TILE_X outputs run side by side
 * and share loads, which changes no output's own sequence of operations: that is why a row's
 * bits do not depend on how many rows came with it. They depend on K and on the weights' type.
 *
 * With few rows of x, weights are widened in registers as they are read, and the limiter is
 * memory (for E4M3 and MXFP4 nearly so). With more, a pass of weights is widened into the
 * tile's room once and read again for every TILE_X rows of x; the widening would otherwise take
 * a third of the turns of the ports that multiply.
 *
 * Bytes: stored weights once; widened ones from the first cache, x from the second, TILE_X rows
 * for every TILE_W * TILE_X * K multiply-adds. Flops: 2 K for each output. Next weight rows are
 * fetched into the second cache line by line between the steps, because the prefetchers stop at
 * the end of a page and know nothing of experts. */

#include <assert.h>

/* E4M3 by way of float16, whose subnormals cover those of E4M3: sign and magnitude, moved,
 * stand for 1 / E4M3_UNIT of the value. The two codes that mean NaN count as +-480: no one
 * stores NaN weights, and to look for them would cost a quarter of the speed. */
static const float E4M3_UNIT = 256;

ALWAYS_INLINE vec v_from_e4m3(const uint8_t *p)
{
    return v_from_f16((h_extend(p) << 7) & 0xbf80);
}

/* The last n values of a row, n <= LANES. */
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

enum {
    LINE = 64,       /* bytes that memory gives at a time */
    OWN_AHEAD = 512, /* bytes from the step that multiplies a line to the one that fetches it */
    WIDEN_X = 7,     /* rows of x from which on widened weights are worth storing */
};

_Static_assert(TILE_X <= 3 && TILE_W % 4 == 0 && MICRO_ROWS % TILE_W == 0, "see PASS_FUNCTION");

/* What one pass over the rows of x computes: values k .. end - 1 of the reduction. */
struct pass {
    const char *w[MICRO_ROWS]; /* value 0 of each weight row */
    int64_t k, end;
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
        int n = offset % LINE < p->ahead_step ? p->n_more : 0;
#pragma GCC unroll 1
        for (int j = 0; j < n; j++)
            __builtin_prefetch(p->more[j] + offset, 0, 2);
    }
    *ahead += p->ahead_step;
}

/* Whether a step reads whole lines of stored weights. */
ALWAYS_INLINE bool by_lines(pm_dtype type)
{
    if (type == PM_F8_E4M3 || type == PM_MXFP4) return false;
    return 2 * LANES * (type == PM_F32 ? 4 : 2) >= LINE;
}

/* For rows of x that fit into one part, where memory is the limiter: a line of each next row
 * and, `at` bytes into the part's own rows, one to the first cache out of the second. The loads
 * of the steps alone would not look far enough ahead to keep both busy. */
ALWAYS_INLINE void fetch_rows(const struct pass *p, const char **ahead, const char *const *w,
                              int64_t at)
{
    if (p->n_more < MICRO_ROWS - 1) {
        fetch_next(p, ahead);
        return;
    }
    int64_t offset = *ahead - p->more[-1];
#pragma GCC unroll 8
    for (int j = 0; j < TILE_W; j++)
        __builtin_prefetch(w[j] + at + OWN_AHEAD, 0, 3);
#pragma GCC unroll 8
    for (int j = 0; j < MICRO_ROWS; j++)
        __builtin_prefetch(p->more[j - 1] + offset, 0, 2);
    *ahead += p->ahead_step;
}

ALWAYS_INLINE void clear_sums(int n_x, vec acc[][TILE_W])
{
#pragma GCC unroll 32
    for (int i = 0; i < n_x * TILE_W; i++)
        acc[i / TILE_W][i % TILE_W] = (vec){0};
}

/* Adds the sums of a pass to those of the passes before it. */
ALWAYS_INLINE void add_sums(const struct tile *t, const struct pass *p, int row, int w, int n_x,
                            vec acc[][TILE_W])
{
    float *y = t->y + row * t->y_stride + w;
#pragma GCC unroll 8
    for (int i = 0; i < n_x; i++, y += t->y_stride) {
#pragma GCC unroll 2
        for (int j = 0; j < TILE_W; j += 4) {
            quad sum = v_sum4(&acc[i][j]), before = {0};
            int n = (int)min_i64(4, t->n_w - w - j);
            if (n == 4) {
                if (p->k) memcpy(&before, y + j, sizeof before);
                sum += before;
                memcpy(y + j, &sum, sizeof sum);
            } else if (n > 0) {
                if (p->k) memcpy(&before, y + j, (size_t)n * sizeof *y);
                sum += before;
                memcpy(y + j, &sum, (size_t)n * sizeof *y);
            }
        }
    }
}

/* Adds one weight row times n_x rows of x to their sums. The empty statement keeps the weights
 * in a register: the compiler would rather load them again for each of the products. */
ALWAYS_INLINE void step(vec acc[][TILE_W], int j, int n_x, vec w, const vec *x)
{
    __asm__ volatile("" : V_REGISTER(w));
#pragma GCC unroll 8
    for (int i = 0; i < n_x; i++)
        acc[i][j] = v_fma(w, x[i], acc[i][j]);
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

/* A pass over rows row .. row + n_x - 1 of x and weight rows w0 .. w0 + TILE_W - 1, stored or
 * in a panel, where one register serves for all; type, panel and n_x are constants. */
ALWAYS_INLINE void pass_rows(const struct tile *t, const struct pass *p, pm_dtype type,
                             bool panel, int row, int w0, int n_x)
{
    vec acc[TILE_X][TILE_W], x[TILE_X];
    const float *xp[TILE_X];
    const char *wp[TILE_W], *ahead = p->ahead;
    int64_t k = p->k;
#pragma GCC unroll 8
    for (int i = 0; i < n_x; i++)
        xp[i] = t->x[row + i];
#pragma GCC unroll 8
    for (int j = 0; j < TILE_W; j++)
        wp[j] = p->w[w0 + j];
    clear_sums(n_x, acc);
    for (; k + 2 * LANES <= p->end; k += 2 * LANES) {
        const float *base = (const float *)(const void *)p->w[0] + w0 * MICRO_K + k;
        if (!panel && by_lines(type)) {
            fetch_rows(p, &ahead, wp, type == PM_F32 ? 4 * k : 2 * k);
        } else {
            fetch_next(p, &ahead);
        }
        __asm__("" : "+r"(base));
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
#pragma GCC unroll 8
            for (int i = 0; i < n_x; i++)
                x[i] = v_load(xp[i] + k + half * LANES);
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
        for (int i = 0; i < n_x; i++)
            x[i] = v_load_n(xp[i] + k, n);
#pragma GCC unroll 8
        for (int j = 0; j < TILE_W; j++) {
            const char *from = panel ? p->w[0] + (w0 + j) * MICRO_K * sizeof(float) : wp[j];
            step(acc, j, n_x, load_rest(type, from, k, n, scale_of(t, p, type, w0 + j, k)), x);
        }
    }
    add_sums(t, p, row, w0, n_x, acc);
}

/* Runs a pass over all rows, cut into parts of nearly equal height: a part of one row would
 * wait for the latency of its few sums. */
#define PASS_CASE(rows, type, panel, n)                                                        \
    case n:                                                                                    \
        rows(t, p, type, panel, row, w, n <= TILE_X ? n : 1);                                  \
        break

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

/* Values of K in each of as few passes as there can be of at most `most` values; whole blocks
 * of scales. */
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
    struct pass p = {.k = 0};
    for (int j = 0; j < MICRO_ROWS; j++)
        p.w[j] = t->w[j];
    for (; p.k < t->k; p.k = p.end) {
        p.end = min_i64(p.k + length, t->k);
        if (type == PM_F8_E4M3 || type == PM_MXFP4) expand_scales(t, &p, type);
        if (panel) widen(t, &p, type);
        pass(t, &p);
    }
}

ALWAYS_INLINE void tile_plain(const struct tile *t, pm_dtype type,
                              void (*pass)(const struct tile *, struct pass *))
{
    if (t->n_x >= WIDEN_X) {
        run_passes(t, type, true, pass_panel);
    } else {
        run_passes(t, type, false, pass);
    }
}

ALWAYS_INLINE void tile_scaled(const struct tile *t, pm_dtype type,
                               void (*pass)(const struct tile *, struct pass *))
{
    assert(t->room);
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
