/* tensormap.h - descriptors of tensors for TMA. Host side, from C or CUDA files.
 *
 * The encoder is a function of the driver, found at run time: nothing links libcuda. Encoding
 * costs about a microsecond and touches no device. Contract of the fields: CUDA driver API,
 * cuTensorMapEncodeTiled. */
#ifndef KERNELS_CUDA_TENSORMAP_H
#define KERNELS_CUDA_TENSORMAP_H

#include <cuda.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How a box lies in shared memory: rows one after another, or rows of at most 128 bytes in the
 * 128-byte swizzle (ptx.cuh, swizzle_128). */
enum tensormap_swizzle { TENSORMAP_PLAIN, TENSORMAP_SWIZZLE_128 };

/* *out describes a tensor of `type` (BF16, F16, F32 or a one-byte type) at `base`, 16-byte
 * aligned, of dim elements, dim[0] the fastest; stride are the bytes between neighbours of
 * dimension 1 and up, multiples of 16 below 2^40. One copy moves a box of elements, each side
 * at most 256; a row of the box is a multiple of 16 bytes. What lies outside reads as zero.
 * PM_ERR_ARG names the field that a rule forbids; PM_ERR_UNSUPPORTED where the driver knows no
 * tensor maps. */
pm_status tensormap_2d(CUtensorMap *out, const void *base, pm_dtype type, const uint64_t dim[2],
                       uint64_t stride, const uint32_t box[2], enum tensormap_swizzle swizzle);
pm_status tensormap_3d(CUtensorMap *out, const void *base, pm_dtype type, const uint64_t dim[3],
                       const uint64_t stride[2], const uint32_t box[3],
                       enum tensormap_swizzle swizzle);

#ifdef __cplusplus
}
#endif

#endif
