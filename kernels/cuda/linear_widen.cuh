// linear_widen.cuh - eight weights of a small type as BF16, exactly, in two or three
// instructions each: where few rows meet many weights, widening is most of the arithmetic.
//
// The bits of a small float go to their places in a BF16, whose bias differs by a constant, and
// one product with a power of two repairs the bias, subnormals included. Such a product is
// exact unless it leaves the range of BF16, which is that of float32.
// Has not run on hardware yet.
#ifndef KERNELS_CUDA_LINEAR_WIDEN_CUH
#define KERNELS_CUDA_LINEAR_WIDEN_CUH

#include <string.h>

#include "kernels/cuda/dtype.cuh"

// Two products of BF16, each word holding two values.
GPU_DEV uint32_t widen_mul(uint32_t a, uint32_t b)
{
    __nv_bfloat162 x, y;
    memcpy((void *)&x, &a, sizeof x);
    memcpy((void *)&y, &b, sizeof y);
    x = __hmul2(x, y);
    memcpy(&a, &x, sizeof a);
    return a;
}

// 2^(code - 127) as BF16, twice.
GPU_DEV uint32_t widen_e8m0(uint32_t code)
{
    uint32_t one = code == 255 ? 0x7fff : code ? code << 7 : 0x0040;
    return one | one << 16;
}

// Eight codes of e2m1, the first in the lowest four bits, times a scale.
GPU_DEV void widen_e2m1(uint32_t (&out)[4], uint32_t codes, uint32_t scale)
{
    // The eight sizes as BF16: upper bytes 00 3f 3f 3f 40 40 40 40, lower 00 00 80 c0 00 40 80
    // c0.
    uint32_t odd_signs = codes, even_signs = codes << 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t which = codes >> (16 * half) & 0x7777;
        uint32_t upper = __byte_perm(0x3f3f3f00, 0x40404040, which);
        uint32_t lower = __byte_perm(0xc0800000, 0xc0804000, which);
        uint32_t sign = __byte_perm(even_signs, odd_signs, half ? 0x7362 : 0x5140);
        upper |= sign & 0x80808080u;
        out[half * 2] = widen_mul(__byte_perm(lower, upper, 0x5140), scale);
        out[half * 2 + 1] = widen_mul(__byte_perm(lower, upper, 0x7362), scale);
    }
}

// Four codes of e4m3, the first in the lowest byte; those that are no number become 480.
GPU_DEV void widen_e4m3_numbers(uint32_t (&out)[2], uint32_t codes)
{
    const uint32_t power = 0x7b807b80; // 2^120
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t two =
            __byte_perm(codes, 0, half ? 0x3424 : 0x1404); // codes in the upper bytes
        out[half] = widen_mul((two & 0x80008000u) | (two >> 4 & 0x07f007f0u), power);
    }
}

// Not 0 where one of them is no number: 0x7f is the only size that carries into the sign.
GPU_DEV uint32_t widen_e4m3_odd(uint32_t codes)
{
    return ((codes & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
}

// Makes those that are no number so.
GPU_DEV void widen_e4m3_mend(uint32_t (&out)[2], uint32_t codes)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if ((codes >> (8 * i) & 0x7f) == 0x7f) out[i / 2] |= 0x7fffu << (16 * (i % 2));
    }
}

GPU_DEV void widen_e4m3(uint32_t (&out)[2], uint32_t codes)
{
    widen_e4m3_numbers(out, codes);
    if (widen_e4m3_odd(codes)) widen_e4m3_mend(out, codes);
}

#endif
