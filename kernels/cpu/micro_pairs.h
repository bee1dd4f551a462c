/* micro_pairs.h - small floats widened to vectors of 32 bf16, for micro_avx512.c and
 * micro_amx.c. */
#ifndef KERNELS_CPU_MICRO_PAIRS_H
#define KERNELS_CPU_MICRO_PAIRS_H

#include <immintrin.h>
#include <stdint.h>

enum { PAIRS = 32 }; /* bf16 values in a vector */

typedef __m512i pairs;

/* 32 codes of E2M1 times their scale. A word looks up by its lowest five bits, of which the
 * fifth belongs to the next code, so the table is there twice. The scale is added to the
 * exponents of all values but the zeros. */
static inline pairs pairs_from_e2m1(const uint8_t *p, uint8_t scale)
{
    const __m512i value = _mm512_setr_epi32(
        0x3f000000, 0x3fc03f80, 0x40404000, 0x40c04080, (int)0xbf008000, (int)0xbfc0bf80,
        (int)0xc040c000, (int)0xc0c0c080, 0x3f000000, 0x3fc03f80, 0x40404000, 0x40c04080,
        (int)0xbf008000, (int)0xbfc0bf80, (int)0xc040c000, (int)0xc0c0c080);
    __m512i exponent = _mm512_set1_epi16((short)((scale - 127) * 128));
    __m512i table = _mm512_mask_add_epi16(value, 0xfefefefe, value, exponent);
    __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    /* Too small for bf16 to hold as normal numbers, or no number. */
    if (scale == 0) table = _mm512_setzero_si512();
    if (scale == 255) table = _mm512_set1_epi16(0x7fc0);
    return _mm512_permutexvar_epi16(_mm512_or_si512(b, _mm512_slli_epi32(b, 12)), table);
}

/* 32 codes of E4M3: moving the bits and adding to the exponent is right for normal values, the
 * eight others are looked up. */
static inline pairs pairs_from_e4m3(__m256i codes)
{
    const __m512i subnormal = _mm512_setr_epi32(0x3b000000, 0x3bc03b80, 0x3c203c00, 0x3c603c40,
                                                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512i w = _mm512_cvtepi8_epi16(codes);
    __m512i magnitude = _mm512_and_si512(_mm512_slli_epi16(w, 4), _mm512_set1_epi16(0x07f0));
    __mmask32 small = _mm512_testn_epi16_mask(w, _mm512_set1_epi16(0x78));
    __m512i value = _mm512_add_epi16(magnitude, _mm512_set1_epi16(120 << 7));
    value = _mm512_mask_permutexvar_epi16(value, small, w, subnormal);
    return _mm512_or_si512(value, _mm512_and_si512(w, _mm512_set1_epi16((short)0x8000)));
}

static inline __m256i codes_n(const uint8_t *p, int64_t n)
{
    return _mm256_maskz_loadu_epi8(n >= PAIRS ? ~0u : (1u << n) - 1, p);
}

#endif
