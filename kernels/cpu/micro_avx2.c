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
typedef float quad __attribute__((vector_size(16)));

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
    __builtin_memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline void h_store_n(uint16_t *p, hvec v, int n)
{
    __builtin_memcpy(p, &v, (size_t)n * sizeof *p);
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

static inline quad v_sum4(const vec *v)
{
    __m256 a = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    __m256 b = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    __m256 c = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    return _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1));
}

static inline void v_stream(float *p, vec v)
{
    _mm256_stream_ps(p, v);
}

static inline hvec h_extend(const uint8_t *p)
{
    return (hvec)_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

/* All lanes get the four bytes and shift their code down. The look-up minds the lowest three
 * bits only, and the fourth becomes the sign. */
static inline vec v_from_e2m1(const uint8_t *p, float scale)
{
    const __m256 value = _mm256_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6);
    const __m256i shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    __m256 table = _mm256_mul_ps(value, _mm256_set1_ps(scale));
    int32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32(word), shift);
    __m256i sign = _mm256_slli_epi32(_mm256_and_si256(code, _mm256_set1_epi32(8)), 28);
    return _mm256_xor_ps(_mm256_permutevar8x32_ps(table, code), _mm256_castsi256_ps(sign));
}

#include "kernels/cpu/micro_body.h"

/* Every processor with AVX2 has F16C. */
static bool available(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const struct micro micro_avx2 = {.name = "avx2", .available = available, MICRO_BODY};
