/* micro_avx512.c - the tables for x86 processors with AVX-512: one for those with F, BW, VL and
 * DQ, one for those that also have BF16, one for those that also have AMX (see micro_amx.c).
 *
 * avx512: activations stay float32, every weight type is widened and multiplied with FMA: 8
 * weight rows by 3 rows of x in 24 of the 32 registers.
 *
 * avx512bf16: BF16, F8_E4M3 and MXFP4 weights meet activations rounded to bf16 in VDPBF16PS:
 *   acc[l] += w[2 l] x[2 l] + w[2 l + 1] x[2 l + 1]      for 16 lanes l
 * whose products and sums are rounded by the instruction (nearest even, subnormal inputs and
 * results count as zero) in the same way for every row. BF16 is read as stored. E4M3 is widened
 * exactly; each block of 128 values is summed from zero and enters the accumulator as
 * acc = fma(scale, block, acc). The product of an E2M1 value and its E8M0 scale is a bf16
 * number (exact while it is a normal one), so MXFP4 becomes plain BF16.
 *
 * Limiter with many rows: two FMA a cycle, 64 flops; VDPBF16PS makes twice that on Zen 5 and
 * half of it on Sapphire and Emerald Rapids, see `preferred` in micro_generic.c. With one row:
 * memory.
 *
 * The functions of the second table carry a target attribute, so that one file serves both and
 * nothing of it runs where it cannot. */
#include <immintrin.h>

#include "kernels/cpu/micro_amx.h"
#include "kernels/cpu/micro_pairs.h"

#define V_REGISTER(v) "+v"(v)

enum { LANES = 16, TILE_W = 8, TILE_X = 3 };

typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef uint16_t hvec __attribute__((vector_size(32)));
typedef float quad __attribute__((vector_size(16)));

static inline vec v_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline vec v_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

static inline vec v_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}

static inline __mmask16 first_lanes(int n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline vec v_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

static inline void v_store_n(float *p, vec v, int n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

static inline hvec h_load_n(const uint16_t *p, int n)
{
    return (hvec)_mm256_maskz_loadu_epi16(first_lanes(n), p);
}

static inline void h_store_n(uint16_t *p, hvec v, int n)
{
    _mm256_mask_storeu_epi16(p, first_lanes(n), (__m256i)v);
}

static inline vec v_from_bf16(hvec h)
{
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
}

/* One shuffle widens: it moves 16 values to the upper halves of the lanes, the mask clears the
 * lower halves. Zero-extending and shifting would be two operations on the FMA's ports. */
static inline vec bf16_half(const uint16_t *p, int half)
{
    const __m512i step = _mm512_set1_epi32(0x00010000);
    const __m512i lane =
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i index =
        _mm512_mullo_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(16 * half)), step);
    return (vec)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, index, _mm512_loadu_si512(p));
}

static inline vec v_from_f16(hvec h)
{
    return _mm512_cvtph_ps((__m256i)h);
}

static inline hvec v_to_f16(vec v)
{
    return (hvec)_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Four vectors at once: lanes l and l + 2 of each quarter, then the two sums of a quarter (a
 * transposition makes these one lane of a vector), then quarters 0 + 2 and 1 + 3, then those.
 */
static inline quad v_sum4(const vec *v)
{
    __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512 c = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
    __m256 d = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
    return _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1));
}

static inline float v_sum(vec v)
{
    const vec same[4] = {v, v, v, v};
    return v_sum4(same)[0];
}

static inline void v_stream(float *p, vec v)
{
    _mm512_stream_ps(p, v);
}

static inline hvec h_extend(const uint8_t *p)
{
    return (hvec)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* Each half of the lanes gets the four bytes of its eight codes and shifts its code down; the
 * look-up minds the lowest four bits only. */
static inline vec v_from_e2m1(const uint8_t *p, float scale)
{
    const __m512 value =
        _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6);
    const __m512i shift =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    __m512 table = _mm512_mul_ps(value, _mm512_set1_ps(scale));
    int32_t word[2];
    __builtin_memcpy(word, p, sizeof word);
    __m512i code = _mm512_mask_broadcastd_epi32(_mm512_set1_epi32(word[0]), 0xff00,
                                                _mm_cvtsi32_si128(word[1]));
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(code, shift), table);
}

#include "kernels/cpu/micro_body.h"

static bool available(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

const struct micro micro_avx512 = {.name = "avx512", .available = available, MICRO_BODY};

#define WITH_BF16 __attribute__((target("avx512bf16")))

enum {
    DP_K = 2048,          /* most values of K in a pass over stored rows */
    PANEL_K = 2 * MICRO_K /* and in one over widened rows: bf16 in the room of floats */
};

WITH_BF16 ALWAYS_INLINE vec dp(vec acc, pairs a, pairs b)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
}

WITH_BF16 ALWAYS_INLINE pairs load_pairs(const void *p, int64_t i)
{
    return _mm512_loadu_si512((const uint16_t *)p + i);
}

WITH_BF16 ALWAYS_INLINE pairs load_pairs_n(const void *p, int64_t i, int n)
{
    return _mm512_maskz_loadu_epi16((1u << n) - 1, (const uint16_t *)p + i);
}

WITH_BF16 ALWAYS_INLINE void dp_step(vec acc[][TILE_W], int j, int n_x, pairs w, const pairs *x)
{
    __asm__ volatile("" : V_REGISTER(w));
#pragma GCC unroll 8
    for (int i = 0; i < n_x; i++)
        acc[i][j] = dp(acc[i][j], w, x[i]);
}

/* total += scale * block: what the block of E4M3 at k adds. */
WITH_BF16 ALWAYS_INLINE void add_block(const struct tile *t, int w0, int64_t k, int n_x,
                                       vec total[][TILE_W], vec block[][TILE_W])
{
#pragma GCC unroll 8
    for (int j = 0; j < TILE_W; j++) {
        float scale;
        memcpy(&scale, (const char *)t->w_scale[w0 + j] + k / F8_BLOCK * 4, sizeof scale);
#pragma GCC unroll 8
        for (int i = 0; i < n_x; i++) {
            total[i][j] = v_fma(v_all(scale), block[i][j], total[i][j]);
            block[i][j] = (vec){0};
        }
    }
}

/* Values k .. end - 1 for n_x rows of x and TILE_W weight rows. */
WITH_BF16 ALWAYS_INLINE void dp_span(const struct pass *p, int64_t k, int64_t end,
                                     const char *const *wp, const uint16_t *const *xp, int n_x,
                                     const char **ahead, vec acc[][TILE_W])
{
    pairs x[TILE_X];
    for (; k + PAIRS <= end; k += PAIRS) {
        fetch_next(p, ahead);
#pragma GCC unroll 8
        for (int i = 0; i < n_x; i++)
            x[i] = load_pairs(xp[i], k);
#pragma GCC unroll 8
        for (int j = 0; j < TILE_W; j++)
            dp_step(acc, j, n_x, load_pairs(wp[j], k), x);
    }
    if (k < end) {
        int n = (int)(end - k);
#pragma GCC unroll 8
        for (int i = 0; i < n_x; i++)
            x[i] = load_pairs_n(xp[i], k, n);
#pragma GCC unroll 8
        for (int j = 0; j < TILE_W; j++)
            dp_step(acc, j, n_x, load_pairs_n(wp[j], k, n), x);
    }
}

/* pass_rows with pairs of bf16 in the place of floats. */
WITH_BF16 ALWAYS_INLINE void dp_rows(const struct tile *t, const struct pass *p, pm_dtype type,
                                     bool panel, int row, int w0, int n_x)
{
    vec acc[TILE_X][TILE_W], total[TILE_X][TILE_W];
    const uint16_t *xp[TILE_X];
    const char *wp[TILE_W], *ahead = p->ahead;
    (void)panel;
#pragma GCC unroll 8
    for (int i = 0; i < n_x; i++)
        xp[i] = t->x[row + i];
#pragma GCC unroll 8
    for (int j = 0; j < TILE_W; j++)
        wp[j] = p->w[w0 + j];
    clear_sums(n_x, acc);
    if (type != PM_F8_E4M3) {
        dp_span(p, p->k, p->end, wp, xp, n_x, &ahead, acc);
        add_sums(t, p, row, w0, n_x, acc);
        return;
    }
    clear_sums(n_x, total);
    for (int64_t k = p->k; k < p->end; k += F8_BLOCK) {
        dp_span(p, k, min_i64(k + F8_BLOCK, p->end), wp, xp, n_x, &ahead, acc);
        add_block(t, w0, k, n_x, total, acc);
    }
    add_sums(t, p, row, w0, n_x, total);
}

WITH_BF16 PASS_FUNCTION(pass_dp, dp_rows, PM_BF16, false) WITH_BF16
    PASS_FUNCTION(pass_dp_scaled, dp_rows, PM_F8_E4M3, false)

    /* Nothing is widened, and a pass may be longer. */
    static void tile_dp(const struct tile *t)
{
    int64_t length = pass_length(t->k, DP_K);
    struct pass p = {.k = 0};
    for (int j = 0; j < MICRO_ROWS; j++)
        p.w[j] = t->w[j];
    for (; p.k < t->k; p.k = p.end) {
        p.end = min_i64(p.k + length, t->k);
        pass_dp(t, &p);
    }
}

/* Passes whose weights are widened to bf16 in the tile's room. */
ALWAYS_INLINE void dp_widened(const struct tile *t, pm_dtype type,
                              void (*pass)(const struct tile *, struct pass *))
{
    struct pass p = {.k = 0};
    int64_t length = pass_length(t->k, PANEL_K);
    uint16_t *panel = (uint16_t *)(void *)t->room;
    for (; p.k < t->k; p.k = p.end) {
        p.end = min_i64(p.k + length, t->k);
        for (int j = 0; j < MICRO_ROWS; j++) {
            const uint8_t *w = t->w[j], *scale = t->w_scale[j];
            uint16_t *to = panel + j * PANEL_K - p.k;
            p.w[j] = (const char *)to;
            for (int64_t k = p.k; k < p.end && j < t->n_w; k += PAIRS) {
                pairs v = type == PM_F8_E4M3 ? pairs_from_e4m3(codes_n(w + k, p.end - k))
                                             : pairs_from_e2m1(w + k / 2, scale[k / PAIRS]);
                _mm512_storeu_si512(to + k, v);
            }
        }
        pass(t, &p);
    }
}

static void tile_dp_f8(const struct tile *t)
{
    dp_widened(t, PM_F8_E4M3, pass_dp_scaled);
}

static void tile_dp_mxfp4(const struct tile *t)
{
    dp_widened(t, PM_MXFP4, pass_dp);
}

WITH_BF16 static double peak_bf16(int64_t n)
{
    vec acc[TILE_X][TILE_W], sum = {0};
    pairs x[TILE_X];
    volatile float sink;
    for (int i = 0; i < TILE_X; i++)
        x[i] = (pairs)v_all(0.5f);
    hide_sums(acc);
    for (int64_t r = 0; r < n; r++) {
#pragma GCC unroll 8
        for (int j = 0; j < TILE_W; j++)
            dp_step(acc, j, TILE_X, x[0], x);
    }
    for (int i = 0; i < TILE_X * TILE_W; i++)
        sum += acc[i / TILE_W][i % TILE_W];
    sink = v_sum(sum);
    (void)sink;
    return 2.0 * PAIRS * TILE_X * TILE_W * (double)n;
}

static bool available_bf16(void)
{
    return available() && __builtin_cpu_supports("avx512bf16");
}

const struct micro micro_avx512bf16 = {.name = "avx512bf16",
                                       .available = available_bf16,
                                       .map = {[PM_F32] = {PM_F32, tile_f32, NULL},
                                               [PM_F16] = {PM_F32, tile_f16, NULL},
                                               [PM_BF16] = {PM_BF16, tile_dp, NULL},
                                               [PM_F8_E4M3] = {PM_BF16, tile_dp_f8, NULL},
                                               [PM_MXFP4] = {PM_BF16, tile_dp_mxfp4, NULL}},
                                       MICRO_HELPERS,
                                       .peak_bf16 = peak_bf16};

/* What the tiles of AMX do not multiply runs as in the first table. */
const struct micro micro_amx = {.name = "amx",
                                .available = amx_available,
                                .map = {[PM_F32] = {PM_F32, tile_f32, NULL},
                                        [PM_F16] = {PM_F32, tile_f16, NULL},
                                        [PM_BF16] = {PM_F32, amx_tile_bf16, amx_pack},
                                        [PM_F8_E4M3] = {PM_F32, amx_tile_f8, amx_pack},
                                        [PM_MXFP4] = {PM_F32, amx_tile_mxfp4, amx_pack}},
                                MICRO_HELPERS,
                                .mix_pack = amx_mix_pack,
                                .mix = amx_mix,
                                .peak_bf16 = amx_peak};
