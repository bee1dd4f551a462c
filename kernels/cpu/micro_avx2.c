/* micro_avx2.c - the table for x86 processors with AVX2, FMA and F16C.
 *
 * Activations stay float32; every weight type is widened to float32 and multiplied with FMA. 4
 * weight rows by 3 rows of x take 12 of the 16 registers for sums. Limiter with many rows: two
 * FMA a cycle, 32 flops; with one row: memory. */
#include <immintrin.h>

#include "kernels/cpu/micro.h"

#define V_REGISTER(v) "+x"(v)

enum { LANES = 8, TILE_W = 4, TILE_X = 3 };

typedef float vec __attribute__((vector_size(32)));
typedef int32_t ivec __attribute__((vector_size(32)));
typedef uint32_t uvec __attribute__((vector_size(32)));
typedef uint16_t hvec __attribute__((vector_size(16)));

static inline vec v_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vec v_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

static inline vec v_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}

static inline __m256i first_lanes(int n)
{
    return (__m256i)((ivec){0, 1, 2, 3, 4, 5, 6, 7} < n);
}

static inline vec v_load_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, first_lanes(n));
}

static inline void v_store_n(float *p, vec v, int n)
{
    _mm256_maskstore_ps(p, first_lanes(n), v);
}

static inline hvec h_load_n(const uint16_t *p, int n)
{
    hvec v = {0};
    for (int l = 0; l < n; l++) v[l] = p[l];
    return v;
}

static inline void h_store_n(uint16_t *p, hvec v, int n)
{
    for (int l = 0; l < n; l++) p[l] = v[l];
}

static inline vec v_from_bf16(hvec h)
{
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
}

static inline vec bf16_half(const uint16_t *p, int half)
{
    hvec h;
    __builtin_memcpy(&h, p + half * LANES, sizeof h);
    return v_from_bf16(h);
}

static inline vec v_from_f16(hvec h)
{
    return _mm256_cvtph_ps((__m128i)h);
}

static inline hvec v_to_f16(vec v)
{
    return (hvec)_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Lanes l and l + 2 of each half first, then the two sums of a half, then the halves: what
 * v_sum4 does to four vectors at once. */
static inline float v_sum(vec v)
{
    __m256 pair = _mm256_add_ps(v, _mm256_permute_ps(v, 0x4e));
    __m256 half = _mm256_add_ps(pair, _mm256_permute_ps(pair, 0xb1));
    return _mm_cvtss_f32(
        _mm_add_ss(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

static inline void v_sum4(float *out, const vec *v)
{
    __m256 a = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    __m256 b = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    __m256 c = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1)));
}

static inline void v_stream(float *p, vec v)
{
    _mm256_stream_ps(p, v);
}

/* By way of float16, whose subnormals cover those of E4M3: moved bits stand for 2^-8 of it. */
static inline vec v_from_e4m3(const uint8_t *p)
{
    __m128i b = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)p));
    __m128i magnitude = _mm_and_si128(b, _mm_set1_epi16(0x7f));
    __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
    __m128i half = _mm_or_si128(_mm_slli_epi16(magnitude, 7),
                                _mm_slli_epi16(_mm_and_si128(b, _mm_set1_epi16(0x80)), 8));
    half = _mm_or_si128(half, _mm_and_si128(nan, _mm_set1_epi16(0x7e00)));
    return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
}

static inline void store_codes(float *to, __m128i codes, __m256 half)
{
    __m256i low = _mm256_cvtepi8_epi32(codes);
    __m256i high = _mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8));
    _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_cvtepi32_ps(low), half));
    _mm256_storeu_ps(to + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(high), half));
}

static inline void e2m1_block(float *to, const uint8_t *from, float half)
{
    const __m128i doubled =
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m128i nibble = _mm_set1_epi8(15);
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)from);
    __m128i low = _mm_shuffle_epi8(doubled, _mm_and_si128(codes, nibble));
    __m128i high = _mm_shuffle_epi8(doubled, _mm_and_si128(_mm_srli_epi16(codes, 4), nibble));
    store_codes(to, _mm_unpacklo_epi8(low, high), _mm256_set1_ps(half));
    store_codes(to + 16, _mm_unpackhi_epi8(low, high), _mm256_set1_ps(half));
}

#include "kernels/cpu/micro_body.h"

static bool available(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

const struct micro micro_avx2 = {.name = "avx2", .available = available, MICRO_BODY};
