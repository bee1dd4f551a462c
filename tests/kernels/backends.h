/* backends.h - the backends whose operations the tests hold against the oracle.
 *
 * The CPU always; with TEST_CUDA also the CUDA backend, on a GPU or on the emulator. Tests read
 * and write what they give to an operation, so memory must be reachable from both sides. */
#ifndef TESTS_KERNELS_BACKENDS_H
#define TESTS_KERNELS_BACKENDS_H

#include <stdlib.h>

#include "kernels/kernels.h"

struct backend {
    const struct kernels *k;
    int max_expert;                       /* of its gate */
    void *(*take)(size_t n, size_t size); /* zeroed memory for the device and the test */
    void (*give)(void *p);                /* gives it back, NULL included */
};

#ifdef TEST_CUDA
#include <cuda_runtime_api.h>
#include <string.h>

#ifdef TEST_CUDA_EMULATED
/* The emulated device reads the memory of the process; a sanitizer watches its edges. */
static inline void *take_for_cuda(size_t n, size_t size)
{
    return calloc(n, size);
}

static inline void give_for_cuda(void *p)
{
    free(p);
}
#else
static inline void *take_for_cuda(size_t n, size_t size)
{
    void *p;
    size_t bytes;
    if (!mul_size(&bytes, n, size)) return NULL;
    if (cudaMallocManaged(&p, bytes, cudaMemAttachGlobal) != cudaSuccess) return NULL;
    return memset(p, 0, bytes);
}

static inline void give_for_cuda(void *p)
{
    cudaFree(p);
}
#endif
#endif

static const struct backend backends[] = {
    {&cpu_kernels, 4096, calloc, free},
#ifdef TEST_CUDA
    {&cuda_kernels, 512, take_for_cuda, give_for_cuda},
#endif
};

#endif
