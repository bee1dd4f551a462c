/* micro_amx_unit.h - the matrix unit of AMX: its sizes, the shape of its registers, and what
 * both of its users need beside. */
#ifndef KERNELS_CPU_MICRO_AMX_UNIT_H
#define KERNELS_CPU_MICRO_AMX_UNIT_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    SIDE = 16,          /* rows and columns of a register of sums */
    STEP = 32,          /* values of K in a product */
    SUMS = SIDE * SIDE, /* in a register */
    LINE = 64,          /* bytes of a register's row, and that memory gives at a time */
};

/* The compiler's built-ins do not tell it that they read and write memory. */
ALWAYS_INLINE void memory_barrier(void)
{
    __asm__ volatile("" ::: "memory");
}

/* As LDTILECFG wants it, of 8 registers. */
struct shape {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Shapes the registers and clears them. */
ALWAYS_INLINE void load_shape(const struct shape *s)
{
    __asm__ volatile("" ::"r"(s) : "memory");
    _tile_loadconfig(s);
}

static inline __mmask16 first(int n)
{
    return (__mmask16)((1u << n) - 1);
}

/* v[i] lane j becomes v[j] lane i. */
ALWAYS_INLINE void transpose(__m512i *v)
{
    __m512i t[SIDE];
#pragma GCC unroll 8
    for (int i = 0; i < SIDE; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < SIDE; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* Now quarter q of v[4 r + j] holds column 4 q + j of rows 4 r .. 4 r + 3. */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i a = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x44);
        __m512i b = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xee);
        __m512i c = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x44);
        __m512i d = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xee);
        t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[8 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    memcpy(v, t, sizeof t);
}
#endif
