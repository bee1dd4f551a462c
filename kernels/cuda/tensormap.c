/* tensormap.c - encodes tensor maps through the driver. The rules are checked here first, so
 * that a wrong shape is told by name and not as the driver's "invalid value". */
#include "kernels/cuda/tensormap.h"

#include <cuda_runtime_api.h>

typedef CUresult(CUDAAPI *encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                     const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                     const cuuint32_t *, CUtensorMapInterleave,
                                     CUtensorMapSwizzle, CUtensorMapL2promotion,
                                     CUtensorMapFloatOOBfill);

static pm_status find_encoder(encode_fn *out)
{
    void *fn = NULL;
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000,
                                                         cudaEnableDefault, &found);
    if (error != cudaSuccess)
        return fail(PM_ERR_DEVICE, "cuda: cuTensorMapEncodeTiled: %s",
                    cudaGetErrorString(error));
    if (found != cudaDriverEntryPointSuccess || !fn)
        return fail(PM_ERR_UNSUPPORTED, "cuda: the driver has no cuTensorMapEncodeTiled");
    *(void **)out = fn;
    return PM_OK;
}

static pm_status find_type(CUtensorMapDataType *out, pm_dtype type)
{
    switch (type) {
    case PM_F32: *out = CU_TENSOR_MAP_DATA_TYPE_FLOAT32; return PM_OK;
    case PM_F16: *out = CU_TENSOR_MAP_DATA_TYPE_FLOAT16; return PM_OK;
    case PM_BF16: *out = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16; return PM_OK;
    case PM_F8_E4M3:
    case PM_U8: *out = CU_TENSOR_MAP_DATA_TYPE_UINT8; return PM_OK;
    default:
        return fail(PM_ERR_ARG, "tensor map: type %s, wanted F32, F16, BF16, F8_E4M3 or U8",
                    dtype_name(type));
    }
}

static pm_status check_box(uint32_t rank, const void *base, uint32_t row_bytes,
                           const uint64_t *dim, const uint64_t *stride, const uint32_t *box,
                           enum tensormap_swizzle swizzle)
{
    if ((uintptr_t)base % 16 || !base)
        return fail(PM_ERR_ARG, "tensor map: base %p, wanted a multiple of 16", base);
    for (uint32_t i = 0; i < rank; i++) {
        if (dim[i] < 1 || dim[i] > (uint64_t)1 << 32)
            return fail(PM_ERR_ARG, "tensor map: dim[%u] is %llu, wanted 1 to 2^32", i,
                        (unsigned long long)dim[i]);
        if (box[i] < 1 || box[i] > 256)
            return fail(PM_ERR_ARG, "tensor map: box[%u] is %u, wanted 1 to 256", i, box[i]);
    }
    for (uint32_t i = 0; i + 1 < rank; i++)
        if (stride[i] % 16 || stride[i] >= (uint64_t)1 << 40)
            return fail(PM_ERR_ARG,
                        "tensor map: stride[%u] is %llu bytes, wanted a multiple of 16 below "
                        "2^40",
                        i, (unsigned long long)stride[i]);
    if (row_bytes % 16 || (swizzle == TENSORMAP_SWIZZLE_128 && row_bytes > 128))
        return fail(PM_ERR_ARG, "tensor map: a row of the box has %u bytes, wanted %s",
                    row_bytes,
                    swizzle == TENSORMAP_SWIZZLE_128 ? "a multiple of 16 up to 128"
                                                     : "a multiple of 16");
    return PM_OK;
}

static pm_status encode(CUtensorMap *out, uint32_t rank, const void *base, pm_dtype type,
                        const uint64_t *dim, const uint64_t *stride, const uint32_t *box,
                        enum tensormap_swizzle swizzle)
{
    const cuuint32_t one[3] = {1, 1, 1};
    cuuint64_t size[3], distance[2] = {0, 0};
    CUtensorMapDataType kind;
    encode_fn fn;
    TRY(find_type(&kind, type));
    TRY(check_box(rank, base, box[0] * (uint32_t)dtype_bits(type) / 8, dim, stride, box,
                  swizzle));
    TRY(find_encoder(&fn));
    for (uint32_t i = 0; i < rank; i++) {
        size[i] = dim[i];
        if (i > 0) distance[i - 1] = stride[i - 1];
    }
    CUtensorMap map;
    CUresult result = fn(&map, kind, rank, (void *)(uintptr_t)base, size, distance, box, one,
                         CU_TENSOR_MAP_INTERLEAVE_NONE,
                         swizzle == TENSORMAP_SWIZZLE_128 ? CU_TENSOR_MAP_SWIZZLE_128B
                                                          : CU_TENSOR_MAP_SWIZZLE_NONE,
                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return fail(PM_ERR_DEVICE, "cuda: cuTensorMapEncodeTiled: driver error %d",
                    (int)result);
    *out = map;
    return PM_OK;
}

pm_status tensormap_2d(CUtensorMap *out, const void *base, pm_dtype type, const uint64_t dim[2],
                       uint64_t stride, const uint32_t box[2], enum tensormap_swizzle swizzle)
{
    return encode(out, 2, base, type, dim, &stride, box, swizzle);
}

pm_status tensormap_3d(CUtensorMap *out, const void *base, pm_dtype type, const uint64_t dim[3],
                       const uint64_t stride[2], const uint32_t box[3],
                       enum tensormap_swizzle swizzle)
{
    return encode(out, 3, base, type, dim, stride, box, swizzle);
}
