/* cublas_fake.c - the calls of cuBLAS that the benchmark makes, written against NVIDIA's own
 * header and computed on the host in the plainest way: what bench/cublas.c declares for itself
 * is thereby held against the real declarations, values and meaning. Lists of addresses, device
 * memory in truth, are host memory here. Built as libcublas.so.13 for cublas_test alone. */
#include <cublas_v2.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* Tells the test that it has found this library and not the real one. */
EXPORT int cublas_fake_calls;

EXPORT cublasStatus_t CUBLASWINAPI cublasCreate_v2(cublasHandle_t *handle)
{
    static int anything;
    *handle = (cublasHandle_t)(void *)&anything;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t CUBLASWINAPI cublasDestroy_v2(cublasHandle_t handle)
{
    return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

EXPORT cublasStatus_t CUBLASWINAPI cublasSetStream_v2(cublasHandle_t handle, cudaStream_t s)
{
    (void)s;
    return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

EXPORT cublasStatus_t CUBLASWINAPI cublasSetWorkspace_v2(cublasHandle_t handle, void *p,
                                                         size_t bytes)
{
    return handle && p && bytes ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

static float get(const void *p, cudaDataType type, int64_t i)
{
    union {
        uint32_t u;
        float f;
    } v;
    if (type == CUDA_R_32F) return ((const float *)p)[i];
    v.u = (uint32_t)((const uint16_t *)p)[i] << 16;
    return v.f;
}

static void put(void *p, cudaDataType type, int64_t i, float value)
{
    union {
        float f;
        uint32_t u;
    } v = {value};
    if (type == CUDA_R_32F) {
        ((float *)p)[i] = value;
    } else {
        ((uint16_t *)p)[i] = (uint16_t)((v.u + 0x7fffu + (v.u >> 16 & 1)) >> 16);
    }
}

struct side {
    const void *data;
    cudaDataType type;
    cublasOperation_t op;
    int ld;
};

static float element(const struct side *s, int64_t row, int64_t col)
{
    return get(s->data, s->type, s->op == CUBLAS_OP_T ? col + row * s->ld : row + col * s->ld);
}

static cublasStatus_t multiply(int m, int n, int k, float alpha, const struct side *a,
                               const struct side *b, float beta, const struct side *c)
{
    int wrong = a->type != b->type || (a->type != CUDA_R_32F && a->type != CUDA_R_16BF);
    if (wrong || m < 1 || n < 1 || k < 1) return CUBLAS_STATUS_INVALID_VALUE;
    if (a->ld < (a->op == CUBLAS_OP_T ? k : m) || b->ld < (b->op == CUBLAS_OP_T ? n : k) ||
        c->ld < m) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = 0; i < m; i++) {
            float sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += element(a, i, l) * element(b, l, j);
            sum = alpha * sum + (beta != 0 ? beta * element(c, i, j) : 0);
            put((void *)(uintptr_t)c->data, c->type, i + j * c->ld, sum);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t CUBLASWINAPI cublasGemmEx(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
    int k, const void *alpha, const void *A, cudaDataType Atype, int lda, const void *B,
    cudaDataType Btype, int ldb, const void *beta, void *C, cudaDataType Ctype, int ldc,
    cublasComputeType_t computeType, cublasGemmAlgo_t algo)
{
    struct side a = {A, Atype, transa, lda}, b = {B, Btype, transb, ldb};
    struct side c = {C, Ctype, CUBLAS_OP_N, ldc};
    cublas_fake_calls++;
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (computeType != CUBLAS_COMPUTE_32F || algo != CUBLAS_GEMM_DEFAULT) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    return multiply(m, n, k, *(const float *)alpha, &a, &b, *(const float *)beta, &c);
}

EXPORT cublasStatus_t CUBLASWINAPI cublasGemmGroupedBatchedEx(
    cublasHandle_t handle, const cublasOperation_t transa_array[],
    const cublasOperation_t transb_array[], const int m_array[], const int n_array[],
    const int k_array[], const void *alpha_array, const void *const Aarray[],
    cudaDataType_t Atype, const int lda_array[], const void *const Barray[],
    cudaDataType_t Btype, const int ldb_array[], const void *beta_array, void *const Carray[],
    cudaDataType_t Ctype, const int ldc_array[], int group_count, const int group_size[],
    cublasComputeType_t computeType)
{
    int problem = 0;
    cublas_fake_calls++;
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (computeType != CUBLAS_COMPUTE_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int g = 0; g < group_count; g++) {
        for (int i = 0; i < group_size[g]; i++, problem++) {
            struct side a = {Aarray[problem], Atype, transa_array[g], lda_array[g]};
            struct side b = {Barray[problem], Btype, transb_array[g], ldb_array[g]};
            struct side c = {Carray[problem], Ctype, CUBLAS_OP_N, ldc_array[g]};
            cublasStatus_t status =
                multiply(m_array[g], n_array[g], k_array[g], ((const float *)alpha_array)[g],
                         &a, &b, ((const float *)beta_array)[g], &c);
            if (status != CUBLAS_STATUS_SUCCESS) return status;
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}
