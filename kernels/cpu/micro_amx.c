/* micro_amx.c - tiles of linear maps on AMX, whose registers are matrices.
 *
 *   C[m][n] += sum over k of A[m][k] B[k][n]      16 x 16 sums, 32 values of K, TDPBF16PS
 *
 * A is 16 weight rows, loaded from where they are stored. B is 16 rows of x, rounded to bf16
 * and packed so that a register's row holds a pair of values of K for each of them. C has a row
 * for each weight row and a column for each row of x. Two of each kind make 32 x 32 outputs
 * with four loads for four products, which take twice as long as the loads.
 *
 * The reduction runs over steps of 32 values in ascending order, the last one filled up with
 * zeros, in one accumulator. Sums that leave the registers between parts of K come back as they
 * were. So the bits of an output depend on its rows of w and x alone; that the unit computes a
 * column in the same way whatever the number of columns is tested, not documented.
 *
 * BF16 weights are read in place; what does not fill a register (the ends of K and of the rows)
 * and narrower types go through the tile's room. E4M3 is widened exactly; each block of 128
 * values is summed from zero and enters the sum as sum = fma(scale, block, sum). E2M1 times its
 * E8M0 scale is a bf16 number. The unit rounds to nearest even and takes subnormal numbers as
 * zero.
 *
 * Bytes: stored weights once; 2 KB of weights and 2 KB of x out of the caches for 32 x 32 x 32
 * multiply-adds, which take 64 cycles, or 110 where both come out of the second cache. Limiter:
 * memory, which gives a core 2 KB in 500 cycles; so the next weight rows are fetched meanwhile.
 *
 * The registers are configured and released within each tile: a thread that waits holds none,
 * and a switch of threads need not save 8 KB. */
#define _GNU_SOURCE
#include "kernels/cpu/micro_amx.h"

#include <assert.h>
#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/micro_amx_widen.h"

enum {
    PANEL = 16 * STEP, /* values of a row of widened weights */
    PANEL_BYTES = 2 * SIDE * PANEL * (int)sizeof(uint16_t),
    PAGE = 4096,
    STREAMS = 8, /* most pages to fetch from at a time */
};

_Static_assert(MICRO_PACKED_ROWS % MICRO_PACKED_GROUP == 0 && MICRO_PACKED_GROUP == 2 * SIDE,
               "two registers of weight rows");
_Static_assert(MICRO_ROOM * sizeof(float) >=
                   PANEL_BYTES + (2 * MICRO_PACKED_X / SIDE + 4) * SUMS * sizeof(float),
               "a panel, all sums, and those of a block of E4M3");
_Static_assert(F8_BLOCK % STEP == 0 && PANEL % F8_BLOCK == 0, "whole blocks in a part");

bool amx_available(void)
{
    enum {
        TILE_DATA = 18,
        REQUEST = 0x1023,
        BF16_BIT = 1 << 22,
        TILE_BIT = 1 << 24,
        VBMI_BIT = 2
    };
    unsigned a, b, c, d;
    if (!micro_avx512bf16.available() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if (!(d & BF16_BIT) || !(d & TILE_BIT) || !(c & VBMI_BIT)) return false;
#if defined(SYS_arch_prctl)
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

/* The registers by number: sums of weight rows a and rows of x b are in 2 a + b. */
#define WEIGHTS_0 4
#define WEIGHTS_1 5
#define X_0       6
#define X_1       7

/* Shapes the registers for n0 and n1 rows of x; clears them. Where n1 is 0, the second
 * registers have some shape too, since to clear one without would be a fault. */
static void configure(int n0, int n1)
{
    struct shape s = {.palette = 1};
    for (int r = 0; r < 8; r++) {
        int n = r % 2 && n1 ? n1 : n0;
        bool weights = r == WEIGHTS_0 || r == WEIGHTS_1;
        s.rows[r] = SIDE;
        s.row_bytes[r] = (uint16_t)(weights ? LINE : n * 4);
    }
    load_shape(&s);
}

/* What is fetched meanwhile: a line of each of some streams in turn, then the same of the next
 * streams. A stream is a page of the rows, or where rows lie apart, a row. The processor's own
 * prefetchers follow such streams, but none across the end of a page: taken page by page they
 * would start anew all the time. */
struct ahead {
    const char *line, *end; /* the next line, and where its turn ends */
    int64_t stride, span;   /* from stream to stream, and of those that take turns */
    int length, turns;      /* lines in a stream, left until these streams are done */
    int n;                  /* lines at a time */
};

/* Rows of the tile's `ahead_bytes` from `row` on, fetched n_time times. */
static struct ahead plan_ahead(const struct tile *t, const char *row, int64_t n_time)
{
    struct ahead a = {.stride = t->ahead_stride};
    int64_t n = t->ahead_rows, bytes = t->ahead_bytes, n_turn;
    if (!row || n == 0) return a;
    if (a.stride == bytes) {
        n = (n * bytes + PAGE - 1) / PAGE;
        a.stride = bytes = PAGE;
    }
    n_turn = (n + STREAMS - 1) / STREAMS;
    n = (n + n_turn - 1) / n_turn;
    a.span = n * a.stride;
    a.line = row;
    a.end = row + a.span;
    a.length = a.turns = (int)((bytes + LINE - 1) / LINE);
    a.n = (int)((n_turn * n * a.length + n_time - 1) / n_time);
    return a;
}

ALWAYS_INLINE void fetch_ahead(struct ahead *a)
{
    for (int j = 0; j < a->n; j++) {
        __builtin_prefetch(a->line, 0, 2);
        a->line += a->stride;
        if (a->line < a->end) continue;
        a->line -= a->span - LINE;
        a->end += LINE;
        if (--a->turns) continue;
        a->line += a->span - a->length * LINE;
        a->end += a->span - a->length * LINE;
        a->turns = a->length;
    }
}

/* Up to 32 weight rows of a tile. */
struct group {
    const void *const *w, *const *w_scale;
    int n_w;
    float *y;
    const __m512i *table; /* E4M3: see make_table */
};

/* One part of K for such a group and up to 32 rows of x. */
struct part {
    const char *w[2]; /* of each 16 rows */
    int64_t w_stride;
    const char *x[2];
    int64_t x_step[2]; /* bytes of a step: 16 pairs for each row of x */
    int64_t n_step;
    struct ahead *ahead; /* fetched row by row and step by step */
    int n0, n1;          /* rows of x for which the registers are shaped */
};

/* n_a and n_b are constants: registers of weights and of x. */
ALWAYS_INLINE void steps(const struct part *p, int n_a, int n_b)
{
    const char *w0 = p->w[0], *w1 = p->w[1], *x0 = p->x[0], *x1 = p->x[1];
    int64_t stride = p->w_stride, x0_step = p->x_step[0], x1_step = p->x_step[1];
    struct ahead ahead = *p->ahead;
    for (int64_t i = 0; i < p->n_step; i++) {
        fetch_ahead(&ahead);
        _tile_loadd(X_0, x0, x0_step / SIDE);
        _tile_loadd(WEIGHTS_0, w0, stride);
        _tile_dpbf16ps(0, WEIGHTS_0, X_0);
        if (n_a == 2) {
            _tile_loadd(WEIGHTS_1, w1, stride);
            _tile_dpbf16ps(2, WEIGHTS_1, X_0);
        }
        if (n_b == 2) {
            _tile_loadd(X_1, x1, x1_step / SIDE);
            _tile_dpbf16ps(1, WEIGHTS_0, X_1);
            if (n_a == 2) _tile_dpbf16ps(3, WEIGHTS_1, X_1);
        }
        w0 += LINE;
        w1 += LINE;
        x0 += x0_step;
        x1 += x1_step;
    }
    *p->ahead = ahead;
}

static void run_steps(const struct part *p, int n_a, int n_b)
{
    memory_barrier();
    if (n_a == 2 && n_b == 2) {
        steps(p, 2, 2);
    } else if (n_a == 2) {
        steps(p, 2, 1);
    } else if (n_b == 2) {
        steps(p, 1, 2);
    } else {
        steps(p, 1, 1);
    }
}

/* Sums of a block of up to 32 rows of x: four registers, rows of n0 or n1 sums. */
ALWAYS_INLINE void clear_sums(void)
{
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

static void load_sums(const float *sum, int n_a, int n0, int n1)
{
    memory_barrier();
    clear_sums();
    _tile_loadd(0, sum, n0 * 4);
    if (n1) _tile_loadd(1, sum + SUMS, n1 * 4);
    if (n_a < 2) return;
    _tile_loadd(2, sum + 2 * SUMS, n0 * 4);
    if (n1) _tile_loadd(3, sum + 3 * SUMS, n1 * 4);
}

static void store_sums(float *sum, int n_a, int n0, int n1)
{
    _tile_stored(0, sum, n0 * 4);
    if (n1) _tile_stored(1, sum + SUMS, n1 * 4);
    if (n_a == 2) _tile_stored(2, sum + 2 * SUMS, n0 * 4);
    if (n_a == 2 && n1) _tile_stored(3, sum + 3 * SUMS, n1 * 4);
    memory_barrier();
}

/* Columns of a register of sums, n of them, to rows of y of n_w values. */
static void store_y(float *y, int64_t y_stride, const float *sum, int n, int n_w)
{
    __m512i v[SIDE];
    if (n == 1) { /* one column of 16 sums is a row already */
        _mm512_mask_storeu_epi32(y, first(n_w), _mm512_loadu_si512(sum));
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        v[i] = _mm512_maskz_loadu_epi32(first(n), sum + i * n);
    transpose(v);
    for (int i = 0; i < n; i++)
        _mm512_mask_storeu_epi32(y + i * y_stride, first(n_w), v[i]);
}

/* 16 pairs of a row of x from k on, n of them to be had. */
ALWAYS_INLINE __m512i round_pairs(const float *x, int64_t n)
{
    __m512 low, high;
    if (n >= STEP) {
        low = _mm512_loadu_ps(x);
        high = _mm512_loadu_ps(x + SIDE);
    } else {
        __mmask32 mask = (1u << n) - 1;
        low = _mm512_maskz_loadu_ps((__mmask16)mask, x);
        high = _mm512_maskz_loadu_ps((__mmask16)(mask >> SIDE), x + SIDE);
    }
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

void amx_pack(void *to, const float *const *x, int n_x, int64_t k)
{
    char *out = to;
    for (int i = 0; i < n_x; i += SIDE) {
        int n = (int)min_i64(SIDE, n_x - i);
        for (int64_t at = 0; at < k; at += STEP, out += LINE * n) {
            __m512i v[SIDE];
            if (n == 1) {
                _mm512_storeu_si512(out, round_pairs(x[i] + at, k - at));
                continue;
            }
            for (int j = 0; j < n; j++)
                v[j] = round_pairs(x[i + j] + at, k - at);
            for (int j = n; j < SIDE; j++)
                v[j] = _mm512_setzero_si512();
            transpose(v);
#pragma GCC unroll 16
            for (int j = 0; j < SIDE; j++)
                _mm512_mask_storeu_epi32(out + 4 * n * j, first(n), v[j]);
        }
    }
}

/* Values k .. end - 1 of the weight rows, as bf16 in the tile's room; zeros where rows or
 * values end before registers do. */
static void widen(const struct group *g, pm_dtype type, int64_t k, int64_t end, uint16_t *panel,
                  struct ahead *ahead)
{
    for (int j = 0; j < 2 * SIDE; j++, panel += PANEL) {
        fetch_ahead(ahead);
        if (j >= g->n_w) {
            memset(panel, 0, PANEL * sizeof *panel);
        } else {
            widen_row(panel, type, g->w[j], g->w_scale[j], k, end, g->table);
        }
    }
}

/* total += scale * sum for the registers of a block of rows of x; row m of a register belongs
 * to weight row m. */
static void add_scaled(const struct group *g, float *total, const float *sum, int64_t block,
                       int n0, int n1)
{
    for (int r = 0; r < 4; r++, total += SUMS, sum += SUMS) {
        int n = r % 2 ? n1 : n0, row = r / 2 * SIDE;
        int n_row = (int)min_i64(SIDE, g->n_w - row);
        bool shared = n_row > 0 && g->w_scale[row] == g->w_scale[row + n_row - 1];
        for (int m = 0; m < n_row && n; m++) {
            /* One scale for all rows: 16 sums at a time, of whichever rows. */
            int first_sum = shared ? m * SIDE : m * n, n_sum = shared ? SIDE : n;
            float scale;
            if (shared && first_sum >= n_row * n) break;
            memcpy(&scale, (const char *)g->w_scale[row + (shared ? 0 : m)] + block * 4, 4);
            __m512 v = _mm512_maskz_loadu_ps(first(n_sum), sum + first_sum);
            __m512 before = _mm512_maskz_loadu_ps(first(n_sum), total + first_sum);
            v = _mm512_fmadd_ps(_mm512_set1_ps(scale), v, before);
            _mm512_mask_storeu_ps(total + first_sum, first(n_sum), v);
        }
    }
}

/* Steps p->n_step of E4M3 from step 0 of block `block` on, block by block. */
static void run_blocks(const struct group *g, struct part p, float *total, float *sum,
                       int64_t block)
{
    enum { BLOCK_STEPS = F8_BLOCK / STEP };
    int64_t n_step = p.n_step;
    int n_a = g->n_w > SIDE ? 2 : 1;
    for (int64_t i = 0; i < n_step; i += BLOCK_STEPS, block++) {
        p.n_step = min_i64(BLOCK_STEPS, n_step - i);
        clear_sums();
        run_steps(&p, n_a, p.n1 ? 2 : 1);
        store_sums(sum, n_a, p.n0, p.n1);
        add_scaled(g, total, sum, block, p.n0, p.n1);
        for (int j = 0; j < 2; j++) {
            p.w[j] += BLOCK_STEPS * LINE;
            p.x[j] += BLOCK_STEPS * p.x_step[j];
        }
    }
}

/* Where a part of K ends that begins at k, and where its weights are. */
static int64_t place_weights(const struct tile *t, const struct group *g, pm_dtype type,
                             int64_t k, struct part *p)
{
    int64_t whole = t->k / STEP * STEP, end = min_i64(t->k, k + PANEL);
    p->w[0] = (const char *)g->w[0] + 2 * k;
    p->w[1] = (const char *)g->w[SIDE] + 2 * k;
    p->w_stride = (const char *)g->w[1] - (const char *)g->w[0];
    if (type == PM_BF16 && g->n_w % SIDE == 0 && k < whole) return whole;
    widen(g, type, k, end, (uint16_t *)(void *)t->room, p->ahead);
    p->w_stride = PANEL * (int64_t)sizeof(uint16_t);
    p->w[0] = (const char *)t->room;
    p->w[1] = p->w[0] + SIDE * p->w_stride;
    return end;
}

/* Points a part at the block of rows of x from row i on and shapes the registers. */
static void place_x(const struct tile *t, int i, int64_t step, struct part *p)
{
    int64_t all_steps = (t->k + STEP - 1) / STEP;
    int n0 = (int)min_i64(SIDE, t->n_x - i), n1 = (int)min_i64(SIDE, t->n_x - i - n0);
    const char *x = (const char *)t->packed + i * all_steps * LINE;
    p->x_step[0] = (int64_t)n0 * LINE;
    p->x_step[1] = (int64_t)n1 * LINE;
    p->x[0] = x + step * p->x_step[0];
    p->x[1] = x + all_steps * p->x_step[0] + step * p->x_step[1];
    if (n0 != p->n0 || n1 != p->n1) configure(n0, n1);
    p->n0 = n0;
    p->n1 = n1;
}

/* The part of K from step `step` on for all rows of x, in blocks with four registers of sums.
 */
static void run_part(const struct tile *t, const struct group *g, pm_dtype type, int64_t step,
                     struct part *p)
{
    float *sums = t->room + PANEL_BYTES / sizeof(float);
    float *block_sums = sums + 2 * MICRO_PACKED_X / SIDE * SUMS;
    int n_a = g->n_w > SIDE ? 2 : 1;
    for (int i = 0; i < t->n_x; i += 2 * SIDE, sums += 4 * SUMS) {
        place_x(t, i, step, p);
        if (type == PM_F8_E4M3) {
            if (step == 0) memset(sums, 0, 4 * SUMS * sizeof *sums);
            run_blocks(g, *p, sums, block_sums, step * STEP / F8_BLOCK);
            continue;
        }
        if (step == 0) {
            clear_sums();
        } else {
            load_sums(sums, n_a, p->n0, p->n1);
        }
        run_steps(p, n_a, p->n1 ? 2 : 1);
        store_sums(sums, n_a, p->n0, p->n1);
    }
}

static void finish_group(const struct tile *t, const struct group *g)
{
    const float *sums = t->room + PANEL_BYTES / sizeof(float);
    for (int i = 0; i < t->n_x; i += 2 * SIDE, sums += 4 * SUMS) {
        for (int r = 0; r < 4; r++) {
            int row = i + r % 2 * SIDE, w = r / 2 * SIDE;
            if (row >= t->n_x || w >= g->n_w) continue;
            store_y(g->y + row * t->y_stride + w, t->y_stride, sums + r * SUMS,
                    (int)min_i64(SIDE, t->n_x - row), (int)min_i64(SIDE, g->n_w - w));
        }
    }
}

/* Few rows of x: weights are widened two steps at a time into a small room, while the unit
 * multiplies those before; its latency would otherwise take as long as the widening. */
enum {
    PAIR = 2 * STEP,                                /* values of K at a time */
    PAIR_BYTES = 2 * SIDE * PAIR * 2,               /* of bf16 */
    MOST_BLOCKS = PANEL_BYTES / 2 / 2 / (2 * SIDE), /* of MXFP4 in a row */
};

/* What is added to exponents, [32, n_block], in the tile's room behind two pairs. False where a
 * scale has none. */
static bool make_exponents(const struct tile *t, const struct group *g)
{
    int n = (int)(t->k / MXFP4_BLOCK);
    uint16_t *to = (uint16_t *)(void *)t->room + PAIR_BYTES;
    __mmask16 special = 0;
    if (n > MOST_BLOCKS) return false;
    for (int j = 0; j < g->n_w; j++, to += n) {
        for (int i = 0; i < n; i += SIDE) {
            __mmask16 mask = first((int)min_i64(SIDE, n - i));
            __m128i s = _mm_maskz_loadu_epi8(mask, (const uint8_t *)g->w_scale[j] + i);
            __m256i e = _mm256_sub_epi16(_mm256_cvtepu8_epi16(s), _mm256_set1_epi16(127));
            special |= _mm_mask_cmpeq_epi8_mask(mask, s, _mm_setzero_si128()) |
                       _mm_mask_cmpeq_epi8_mask(mask, s, _mm_set1_epi8((char)0xff));
            _mm256_mask_storeu_epi16(to + i, mask, _mm256_slli_epi16(e, 7));
        }
    }
    return special == 0;
}

/* Values k .. k + 63 of the group's rows. */
ALWAYS_INLINE void widen_pair(const struct tile *t, const struct group *g, pm_dtype type,
                              int64_t k, uint16_t *to)
{
    int64_t n = min_i64(PAIR, t->k - k), n_block = t->k / MXFP4_BLOCK;
    const uint16_t *exponent =
        (const uint16_t *)(const void *)t->room + PAIR_BYTES + k / MXFP4_BLOCK;
    __mmask64 mask = n == PAIR ? ~0ull : (1ull << n) - 1;
    for (int j = 0; j < g->n_w; j++, to += PAIR, exponent += n_block) {
        const uint8_t *w = g->w[j];
        if (type == PM_F8_E4M3) {
            widen_e4m3(to, _mm512_maskz_loadu_epi8(mask, w + k), g->table);
            continue;
        }
        _mm512_storeu_si512(to, widen_e2m1(w + k / 2, exponent[0]));
        if (n > STEP) _mm512_storeu_si512(to + STEP, widen_e2m1(w + k / 2 + 16, exponent[1]));
    }
}

ALWAYS_INLINE void run_pairs(const struct tile *t, const struct group *g, pm_dtype type,
                             struct part *p)
{
    float *sums = t->room + PANEL_BYTES / sizeof(float);
    float *block_sums = sums + 2 * MICRO_PACKED_X / SIDE * SUMS;
    uint16_t *room = (uint16_t *)(void *)t->room;
    int n_a = g->n_w > SIDE ? 2 : 1;
    place_x(t, 0, 0, p);
    if (type == PM_F8_E4M3) memset(sums, 0, 4 * SUMS * sizeof *sums);
    memset(room, 0, 2 * PAIR_BYTES);
    clear_sums();
    widen_pair(t, g, type, 0, room);
    p->w_stride = PAIR * 2;
    for (int64_t k = 0, i = 0; k < t->k; k += PAIR, i ^= 1) {
        uint16_t *now = room + i * PAIR_BYTES / 2;
        if (k + PAIR < t->k) widen_pair(t, g, type, k + PAIR, room + (i ^ 1) * PAIR_BYTES / 2);
        p->w[0] = (const char *)now;
        p->w[1] = p->w[0] + SIDE * p->w_stride;
        p->n_step = min_i64(2, (t->k - k + STEP - 1) / STEP);
        run_steps(p, n_a, p->n1 ? 2 : 1);
        p->x[0] += p->n_step * p->x_step[0];
        p->x[1] += p->n_step * p->x_step[1];
        if (type == PM_F8_E4M3 && ((k + PAIR) % F8_BLOCK == 0 || k + PAIR >= t->k)) {
            store_sums(block_sums, n_a, p->n0, p->n1);
            add_scaled(g, sums, block_sums, k / F8_BLOCK, p->n0, p->n1);
            clear_sums();
        }
    }
    if (type == PM_MXFP4) store_sums(sums, n_a, p->n0, p->n1);
}

ALWAYS_INLINE void run_panels(const struct tile *t, const struct group *g, pm_dtype type,
                              struct part *p)
{
    for (int64_t k = 0, end; k < t->k; k = end) {
        end = place_weights(t, g, type, k, p);
        p->n_step = (end - k + STEP - 1) / STEP;
        run_part(t, g, type, k / STEP, p);
    }
}

ALWAYS_INLINE void run_tile(const struct tile *t, pm_dtype type)
{
    int64_t n_step = (t->k + STEP - 1) / STEP, n_block = (t->n_x + 2 * SIDE - 1) / (2 * SIDE);
    struct part p = {.n0 = 0};
    __m512i table[4];
    assert(t->n_x <= MICRO_PACKED_X);
    if (t->n_x == 0) return;
    if (type == PM_F8_E4M3) make_table(table);
    for (int row = 0; row < t->n_w; row += 2 * SIDE) {
        bool last = row + 2 * SIDE >= t->n_w;
        const char *next = last ? t->ahead : t->w[row + 2 * SIDE];
        struct group g = {t->w + row, t->w_scale + row, (int)min_i64(2 * SIDE, t->n_w - row),
                          t->y + row, table};
        bool few = t->n_x <= 2 * SIDE && type != PM_BF16 &&
                   (type != PM_MXFP4 || make_exponents(t, &g));
        int64_t n_widen = type == PM_BF16 || few ? 0 : (t->k + PANEL - 1) / PANEL * 2 * SIDE;
        struct ahead ahead = plan_ahead(t, next, n_step * n_block + n_widen);
        p.ahead = &ahead;
        if (few) {
            run_pairs(t, &g, type, &p);
        } else {
            run_panels(t, &g, type, &p);
        }
        finish_group(t, &g);
    }
    _tile_release();
}

void amx_tile_bf16(const struct tile *t)
{
    run_tile(t, PM_BF16);
}

void amx_tile_f8(const struct tile *t)
{
    run_tile(t, PM_F8_E4M3);
}

void amx_tile_mxfp4(const struct tile *t)
{
    run_tile(t, PM_MXFP4);
}

double amx_peak(int64_t n)
{
    configure(SIDE, SIDE);
    for (int64_t i = 0; i < n; i++) {
        _tile_dpbf16ps(0, WEIGHTS_0, X_0);
        _tile_dpbf16ps(1, WEIGHTS_0, X_1);
        _tile_dpbf16ps(2, WEIGHTS_1, X_0);
        _tile_dpbf16ps(3, WEIGHTS_1, X_1);
    }
    _tile_release();
    return 2.0 * 4 * SIDE * SIDE * STEP * (double)n;
}
