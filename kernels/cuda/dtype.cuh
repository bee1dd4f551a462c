/* dtype.cuh - numbers as weights store them, as float32, exactly.
 *
 * Every format is decoded by integer moves and one product with a power of two, so that a GPU
 * and a CPU give the same bits: a small exponent and mantissa go to their places in a float32,
 * whose bias differs by a constant; the product repairs the bias, subnormals included.
 *
 *   F32, F16, BF16   the value
 *   F8_E4M3          value * scale of its 128 x 128 block, in one float32 product; the code
 *                    0x7f (either sign) is not a number
 *   MXFP4            e2m1 * 2^(e8m0 - 127), exact; two values a byte, the lower four bits
 *                    first; the scale code 255 is not a number
 *
 * Has not run on hardware yet. */
#ifndef KERNELS_CUDA_DTYPE_CUH
#define KERNELS_CUDA_DTYPE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/ptx.cuh"
#include "kernels/kernels.h"

enum {
    F8_SCALE_SIDE = 128, /* rows and columns that share a scale of F8_E4M3 */
    MXFP4_SCALE_COLS = 32
};

GPU_DEV float bf16_value(uint16_t code)
{
    return __uint_as_float((uint32_t)code << 16);
}

/* To the nearest, ties to even. What is not a number becomes 0x7fff. */
GPU_DEV uint16_t bf16_code(float value)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

/* Two of them in one word, `low` in the lower half. */
GPU_DEV uint32_t bf16_pair(float low, float high)
{
    return bf16_code(low) | (uint32_t)bf16_code(high) << 16;
}

GPU_DEV float f16_value(uint16_t code)
{
    return __half2float(__ushort_as_half(code));
}

GPU_DEV float e4m3_value(uint32_t code)
{
    uint32_t size = code & 0x7f, sign = (code & 0x80) << 24;
    float value = __uint_as_float(size << 20) * 0x1p120f;
    if (size == 0x7f) return __uint_as_float(0x7fffffff);
    return __uint_as_float(__float_as_uint(value) | sign);
}

GPU_DEV float e2m1_value(uint32_t code)
{
    float value = __uint_as_float((code & 7) << 22) * 0x1p126f;
    return __uint_as_float(__float_as_uint(value) | (code & 8) << 28);
}

GPU_DEV float e8m0_value(uint32_t code)
{
    if (code == 255) return __uint_as_float(0x7fffffff);
    return __uint_as_float(code ? code << 23 : 0x00400000);
}

/* One row of a matrix of weights: its values, and the scales that hold for it. */
struct weight_row {
    const unsigned char *data, *scale;
};

/* Row `row` of t; scale is NULL where the type has none. */
GPU_DEV struct weight_row weight_row_at(const struct tensor &t, int64_t row)
{
    const unsigned char *data = (const unsigned char *)t.data + row * t.stride;
    const unsigned char *scale = (const unsigned char *)t.scale;
    if (t.type == PM_F8_E4M3) scale += (t.scale_row + row) / F8_SCALE_SIDE * t.scale_stride;
    if (t.type == PM_MXFP4) scale += row * t.scale_stride;
    return {data, scale};
}

/* Value `col` of a row. */
template <pm_dtype TYPE> GPU_DEV float weight_at(struct weight_row row, int64_t col)
{
    if (TYPE == PM_F32) return ((const float *)row.data)[col];
    if (TYPE == PM_F16) return f16_value(((const uint16_t *)row.data)[col]);
    if (TYPE == PM_BF16) return bf16_value(((const uint16_t *)row.data)[col]);
    if (TYPE == PM_F8_E4M3) {
        return e4m3_value(row.data[col]) * ((const float *)row.scale)[col / F8_SCALE_SIDE];
    }
    uint32_t code = row.data[col / 2] >> (col % 2 * 4);
    return e2m1_value(code) * e8m0_value(row.scale[col / MXFP4_SCALE_COLS]);
}

/* Values col .. col + 7 of a row, col a multiple of 8 and all of them inside it. Their first
 * byte stands at a multiple of their size (32, 16, 8 or 4 bytes; of 16 for F32). */
template <pm_dtype TYPE>
GPU_DEV void weight_8(float (&out)[8], struct weight_row row, int64_t col)
{
    if (TYPE == PM_F32) {
        const float4 *from = (const float4 *)((const float *)row.data + col);
        float4 a = from[0], b = from[1];
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else if (TYPE == PM_F16 || TYPE == PM_BF16) {
        uint4 four = *(const uint4 *)((const uint16_t *)row.data + col);
        const uint32_t word[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint16_t code = (uint16_t)(word[i / 2] >> (i % 2 * 16));
            out[i] = TYPE == PM_F16 ? f16_value(code) : bf16_value(code);
        }
    } else if (TYPE == PM_F8_E4M3) {
        uint2 two = *(const uint2 *)(row.data + col);
        float scale = ((const float *)row.scale)[col / F8_SCALE_SIDE];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint32_t word = i < 4 ? two.x : two.y;
            out[i] = e4m3_value(word >> (i % 4 * 8) & 0xff) * scale;
        }
    } else {
        uint32_t word = *(const uint32_t *)(row.data + col / 2);
        float scale = e8m0_value(row.scale[col / MXFP4_SCALE_COLS]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            out[i] = e2m1_value(word >> (i * 4)) * scale;
        }
    }
}

#endif
