/* micro_amx_widen.h - rows of stored weights as bf16, for micro_amx.c. */
#ifndef KERNELS_CPU_MICRO_AMX_WIDEN_H
#define KERNELS_CPU_MICRO_AMX_WIDEN_H

#include "kernels/cpu/micro.h"
#include "kernels/cpu/micro_amx_unit.h"
#include "kernels/cpu/micro_pairs.h"

/* 64 codes of E4M3 as bf16, by a table of 128 bytes for each half of the result. */
ALWAYS_INLINE void widen_e4m3(uint16_t *to, __m512i code, const __m512i *table)
{
    /* Eights of codes in the order in which the halves of lanes are interleaved. */
    __m512i c = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), code);
    __m512i low = _mm512_permutex2var_epi8(table[0], c, table[1]);
    __m512i high = _mm512_permutex2var_epi8(table[2], c, table[3]);
    high = _mm512_ternarylogic_epi32(high, c, _mm512_set1_epi8((char)0x80), 0xf8);
    _mm512_storeu_si512(to, _mm512_unpacklo_epi8(low, high));
    _mm512_storeu_si512(to + STEP, _mm512_unpackhi_epi8(low, high));
}

/* The table: low bytes and high bytes of the values of codes 0 .. 127. */
static void make_table(__m512i *table)
{
    uint16_t value[128];
    uint8_t half[2][128];
    __m128i code = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int i = 0; i < 128; i += STEP) {
        __m256i some = _mm256_set_m128i(_mm_add_epi8(code, _mm_set1_epi8((char)(i + SIDE))),
                                        _mm_add_epi8(code, _mm_set1_epi8((char)i)));
        _mm512_storeu_si512(value + i, pairs_from_e4m3(some));
    }
    for (int i = 0; i < 128; i++) {
        half[0][i] = (uint8_t)value[i];
        half[1][i] = (uint8_t)(value[i] >> 8);
    }
    memcpy(table, half, sizeof half);
}

/* A block of MXFP4 whose scale adds to exponents. */
ALWAYS_INLINE __m512i widen_e2m1(const uint8_t *w, uint16_t exponent)
{
    const __m512i value = _mm512_broadcast_i32x8(
        _mm256_setr_epi32(0x3f000000, 0x3fc03f80, 0x40404000, 0x40c04080, (int)0xbf008000,
                          (int)0xbfc0bf80, (int)0xc040c000, (int)0xc0c0c080));
    __m512i table =
        _mm512_mask_add_epi16(value, 0xfefefefe, value, _mm512_set1_epi16((short)exponent));
    __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)w));
    b = _mm512_or_si512(b, _mm512_slli_epi32(b, 12));
    return _mm512_permutexvar_epi16(b, table);
}

/* n blocks of MXFP4, PANEL values at most. As pairs_from_e2m1, but the scales of all blocks are
 * turned into what is added to exponents at once. */
ALWAYS_INLINE void widen_mxfp4(uint16_t *to, const uint8_t *w, const uint8_t *scale, int n)
{
    uint16_t exponent[SIDE];
    __m128i s = _mm_maskz_loadu_epi8(first(n), scale);
    __mmask16 special = _mm_cmpeq_epi8_mask(s, _mm_setzero_si128()) |
                        _mm_cmpeq_epi8_mask(s, _mm_set1_epi8((char)0xff));
    _mm256_storeu_si256(
        (__m256i *)(void *)exponent,
        _mm256_slli_epi16(_mm256_sub_epi16(_mm256_cvtepu8_epi16(s), _mm256_set1_epi16(127)),
                          7));
    if (special & first(n)) {
        for (int i = 0; i < n; i++)
            _mm512_storeu_si512(to + i * STEP,
                                pairs_from_e2m1(w + i * MXFP4_BLOCK / 2, scale[i]));
        return;
    }
    for (int i = 0; i < n; i++)
        _mm512_storeu_si512(to + i * STEP, widen_e2m1(w + i * MXFP4_BLOCK / 2, exponent[i]));
}

/* Values k .. end - 1 of one weight row as bf16. */
ALWAYS_INLINE void widen_row(uint16_t *to, pm_dtype type, const char *w, const uint8_t *scale,
                             int64_t k, int64_t end, const __m512i *table)
{
    if (type == PM_F8_E4M3) {
        for (int64_t i = k; i < end; i += 2 * STEP, to += 2 * STEP) {
            __mmask64 mask = end - i >= 2 * STEP ? ~0ull : (1ull << (end - i)) - 1;
            widen_e4m3(to, _mm512_maskz_loadu_epi8(mask, w + i), table);
        }
        return;
    }
    if (type == PM_MXFP4) {
        widen_mxfp4(to, (const uint8_t *)w + k / 2, scale + k / MXFP4_BLOCK,
                    (int)((end - k) / MXFP4_BLOCK));
        return;
    }
    for (int64_t i = k; i < end; i += STEP, to += STEP) {
        __mmask32 mask = end - i >= STEP ? ~0u : (1u << (end - i)) - 1;
        _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(mask, w + 2 * i));
    }
}
#endif
