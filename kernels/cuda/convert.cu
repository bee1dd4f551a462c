// convert.cu - rows of activations in a narrower type.
//
// A thread makes 8 values, 16 bytes, of a row; beyond K they are zeros. Bytes: x once, the
// result once. Not measured: this has run on no GPU yet.
#include "kernels/cuda/dtype.cuh"
#include "kernels/cuda/linear.h"

enum { CONVERT_THREADS = 256, CONVERT_VALUES = 8 };

// To the nearest, ties to even; finite values stay finite. A NaN stays one: comparisons with it
// are false.
GPU_DEV uint16_t f16_code_saturating(float v)
{
    const float most = 65504.0f;
    if (v > most) v = most;
    if (v < -most) v = -most;
    return __half_as_ushort(__float2half_rn(v));
}

template <pm_dtype FROM> GPU_DEV float convert_value(const char *row, int64_t i)
{
    if (FROM == PM_F32) return ((const float *)row)[i];
    return bf16_value(((const uint16_t *)row)[i]);
}

template <pm_dtype TO, pm_dtype FROM>
__global__ void __launch_bounds__(CONVERT_THREADS)
    convert_kernel(char *to, int64_t to_stride, const char *from, int64_t from_stride,
                   int64_t rows, int64_t k)
{
    int64_t per_row = (k + CONVERT_VALUES - 1) / CONVERT_VALUES, n = rows * per_row;
    int64_t at = (int64_t)blockIdx.x * CONVERT_THREADS + threadIdx.x;
    for (; at < n; at += (int64_t)gridDim.x * CONVERT_THREADS) {
        int64_t row = at / per_row, k0 = at % per_row * CONVERT_VALUES;
        const char *x = from + row * from_stride;
        uint32_t word[4] = {0, 0, 0, 0};
#pragma unroll
        for (int i = 0; i < CONVERT_VALUES; i++) {
            float v = k0 + i < k ? convert_value<FROM>(x, k0 + i) : 0.0f;
            uint32_t code = TO == PM_F16 ? f16_code_saturating(v) : bf16_code(v);
            word[i / 2] |= code << (i % 2 * 16);
        }
        *(uint4 *)(to + row * to_stride + k0 * 2) =
            make_uint4(word[0], word[1], word[2], word[3]);
    }
}

extern "C" pm_status cuda_convert_rows(struct device *d, void *to, pm_dtype to_type,
                                       int64_t to_stride, const void *from, pm_dtype from_type,
                                       int64_t from_stride, int64_t rows, int64_t k)
{
    enum { BLOCKS_PER_SM = 8 };
    int64_t n = rows * ((k + CONVERT_VALUES - 1) / CONVERT_VALUES);
    int64_t blocks = (n + CONVERT_THREADS - 1) / CONVERT_THREADS;
    auto kernel = convert_kernel<PM_BF16, PM_F32>;
    if (n == 0) return PM_OK;
    if (to_type == PM_F16) {
        kernel = from_type == PM_F32 ? convert_kernel<PM_F16, PM_F32>
                                     : convert_kernel<PM_F16, PM_BF16>;
    } else if (to_type != PM_BF16 || from_type != PM_F32) {
        return fail(PM_ERR_BUG, "convert: %s to %s", dtype_name(from_type),
                    dtype_name(to_type));
    }
    dim3 grid((unsigned)min_i64(blocks, (int64_t)d->n_sm * BLOCKS_PER_SM));
    return cuda_check(GPU_LAUNCH(kernel, grid, dim3(CONVERT_THREADS), 0, d->stream, (char *)to,
                                 to_stride, (const char *)from, from_stride, rows, k),
                      "convert");
}
