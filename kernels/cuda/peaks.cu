/* peaks.cu - the machine's ceilings, measured: bytes read and copied a second, multiply-adds a
 * second in F32 and on the matrix units in BF16. They are the axes of every roofline share, so
 * they are taken from kernels that do nothing else, with values that are not zero: power, and
 * so the clock, depends on the bits that change. Has not run on hardware yet. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/ptx.cuh"

enum {
    THREADS = 256,
    BLOCKS_PER_SM = 8,
    BYTES_PER_SM = 8 << 20, /* far beyond L2: 1 GiB on 132 SMs */
    REPEATS = 5,
};

/* Writes once, at the end, what keeps the compiler from dropping the loads. */
__global__ void __launch_bounds__(THREADS) read_kernel(const uint4 *from, size_t n, uint4 *sink)
{
    size_t step = (size_t)gridDim.x * THREADS, i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    uint4 sum = {0, 0, 0, 0};
    for (; i + 3 * step < n; i += 4 * step) {
        uint4 v[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            v[j] = ld_global_nc(from + i + j * step);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            sum.x ^= v[j].x;
            sum.y ^= v[j].y;
            sum.z ^= v[j].z;
            sum.w ^= v[j].w;
        }
    }
    if (sum.x == 1 && sum.y == 2 && sum.z == 3 && sum.w == 4) *sink = sum;
}

__global__ void __launch_bounds__(THREADS) copy_kernel(uint4 *to, const uint4 *from, size_t n)
{
    size_t step = (size_t)gridDim.x * THREADS, i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        uint4 v[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            v[j] = ld_global_nc(from + i + j * step);
#pragma unroll
        for (int j = 0; j < 4; j++)
            st_global_cs(to + i + j * step, v[j]);
    }
}

__global__ void __launch_bounds__(THREADS) fill_kernel(uint32_t *to, size_t n)
{
    size_t step = (size_t)gridDim.x * THREADS;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) {
        to[i] = (uint32_t)i * 2654435761u;
    }
}

enum { F32_CHAINS = 16 };

__global__ void __launch_bounds__(THREADS) f32_kernel(int rounds, float *sink)
{
    float v[F32_CHAINS], a = 1 + 1e-7f * (float)threadIdx.x, b = 1e-7f, sum = 0;
#pragma unroll
    for (int i = 0; i < F32_CHAINS; i++)
        v[i] = (float)(i + (int)threadIdx.x);
    for (int r = 0; r < rounds; r++) {
#pragma unroll
        for (int i = 0; i < F32_CHAINS; i++)
            v[i] = fmaf(v[i], a, b);
    }
#pragma unroll
    for (int i = 0; i < F32_CHAINS; i++)
        sum += v[i];
    if (sum == 1) *sink = sum;
}

enum { MMA_CHAINS = 8, MMA_FLOPS = 2 * 16 * 8 * 16 };

__global__ void __launch_bounds__(THREADS) mma_kernel(int rounds, float *sink)
{
    float d[MMA_CHAINS][4] = {}, sum = 0;
    uint32_t one = 0x3f803f80u ^ threadIdx.x << 4 ^ threadIdx.x << 20;
    uint32_t a[4] = {one, one ^ 0x00110021u, one ^ 0x80210011u, one ^ 0x00318001u};
    for (int r = 0; r < rounds; r++) {
#pragma unroll
        for (int i = 0; i < MMA_CHAINS; i++)
            mma_bf16_16816(d[i], a, one, one ^ 0x80000031u);
    }
#pragma unroll
    for (int i = 0; i < MMA_CHAINS; i++)
        sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    if (sum == 1) *sink = sum;
}

enum { WGMMA_N = 256, WGMMA_K = 64, WGMMA_THREADS = 256, WGMMA_TILE = 128 * WGMMA_K };

/* Two warpgroups, each 64 x 256 with A and B in shared memory. */
__global__ void __launch_bounds__(WGMMA_THREADS, 1) wgmma_kernel(int rounds, float *sink)
{
#if GPU_SM90A
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem;
    uint16_t *a = smem_take<uint16_t>(p, WGMMA_TILE);
    uint16_t *b = smem_take<uint16_t>(p, WGMMA_N * WGMMA_K);
    float d[WGMMA_N / 2], sum = 0;
    for (int i = threadIdx.x; i < WGMMA_TILE; i += WGMMA_THREADS) {
        a[i] = (uint16_t)(0x3f00u ^ ((uint32_t)i * 40503u >> 8 & 0x80ff));
    }
    for (int i = threadIdx.x; i < WGMMA_N * WGMMA_K; i += WGMMA_THREADS) {
        b[i] = (uint16_t)(0x3f00u ^ ((uint32_t)i * 30011u >> 8 & 0x80ff));
    }
#pragma unroll
    for (int i = 0; i < WGMMA_N / 2; i++)
        d[i] = 0;
    fence_proxy_async();
    __syncthreads();
    uint64_t da = wgmma_desc_k128(smem_u32(a) + threadIdx.x / 128 * 64 * 128);
    uint64_t db = wgmma_desc_k128(smem_u32(b));
    for (int r = 0; r < rounds; r++) {
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < WGMMA_K / 16; k++) {
            wgmma_bf16(d, da + (uint64_t)(2 * k), db + (uint64_t)(2 * k), 1);
        }
        wgmma_commit();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();
    wgmma_hold(d);
#pragma unroll
    for (int i = 0; i < WGMMA_N / 2; i++)
        sum += d[i];
    if (sum == 1) *sink = sum;
#else
    (void)rounds;
    (void)sink;
    gpu_trap();
#endif
}

struct run {
    struct device *d;
    char *from, *to; /* [bytes] */
    size_t bytes;
    int rounds;
};

static cudaError_t launch_read(const struct run *r)
{
    return GPU_LAUNCH(read_kernel, r->d->n_sm * BLOCKS_PER_SM, THREADS, 0, r->d->stream,
                      (const uint4 *)r->from, r->bytes / 16, (uint4 *)r->to);
}

static cudaError_t launch_copy(const struct run *r)
{
    return GPU_LAUNCH(copy_kernel, r->d->n_sm * BLOCKS_PER_SM, THREADS, 0, r->d->stream,
                      (uint4 *)r->to, (const uint4 *)r->from, r->bytes / 16);
}

static cudaError_t launch_f32(const struct run *r)
{
    return GPU_LAUNCH(f32_kernel, r->d->n_sm * BLOCKS_PER_SM, THREADS, 0, r->d->stream,
                      r->rounds, (float *)r->to);
}

static cudaError_t launch_mma(const struct run *r)
{
    return GPU_LAUNCH(mma_kernel, r->d->n_sm * BLOCKS_PER_SM / 2, THREADS, 0, r->d->stream,
                      r->rounds, (float *)r->to);
}

static size_t wgmma_smem()
{
    return GPU_SMEM_BYTES(uint16_t, WGMMA_TILE) + GPU_SMEM_BYTES(uint16_t, WGMMA_N * WGMMA_K);
}

static cudaError_t launch_wgmma(const struct run *r)
{
    return GPU_LAUNCH(wgmma_kernel, r->d->n_sm, WGMMA_THREADS, wgmma_smem(), r->d->stream,
                      r->rounds, (float *)r->to);
}

/* Best seconds of REPEATS launches after one that warms up. */
static pm_status best_time(double *out, const struct run *r,
                           cudaError_t (*launch)(const struct run *))
{
    cudaEvent_t start = NULL, end = NULL;
    double best = 0;
    pm_status status;
    TRY_DONE(cuda_check(cudaEventCreate(&start), "making an event"));
    TRY_DONE(cuda_check(cudaEventCreate(&end), "making an event"));
    for (int i = 0; i <= REPEATS; i++) {
        float ms;
        TRY_DONE(cuda_check(cudaEventRecord(start, r->d->stream), "recording an event"));
        TRY_DONE(cuda_check(launch(r), "measuring"));
        TRY_DONE(cuda_check(cudaEventRecord(end, r->d->stream), "recording an event"));
        TRY_DONE(cuda_check(cudaEventSynchronize(end), "measuring"));
        TRY_DONE(cuda_check(cudaEventElapsedTime(&ms, start, end), "measuring"));
        if (i == 1 || (i > 1 && ms * 1e-3 < best)) best = ms * 1e-3;
    }
    *out = best > 0 ? best : 1e-9;
done:
    if (start) cudaEventDestroy(start);
    if (end) cudaEventDestroy(end);
    return status;
}

static pm_status measure_rates(struct run *r, int which, struct peaks *out)
{
    double seconds, sm = r->d->n_sm;
    if (which & PEAK_READ) {
        TRY(best_time(&seconds, r, launch_read));
        out->read_gbs = (double)r->bytes / seconds * 1e-9;
    }
    if (which & PEAK_COPY) {
        TRY(best_time(&seconds, r, launch_copy));
        out->copy_gbs = 2 * (double)r->bytes / seconds * 1e-9;
    }
    if (which & PEAK_F32) {
        TRY(best_time(&seconds, r, launch_f32));
        out->f32_gflops =
            2.0 * F32_CHAINS * r->rounds * THREADS * BLOCKS_PER_SM * sm / seconds * 1e-9;
    }
    if ((which & PEAK_BF16) && r->d->sm == 90) {
        double flops = 2.0 * 128 * WGMMA_N * WGMMA_K * r->rounds;
        TRY(cuda_check(cudaFuncSetAttribute((const void *)wgmma_kernel,
                                            cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            (int)wgmma_smem()),
                       "shared memory of the BF16 peak"));
        TRY(best_time(&seconds, r, launch_wgmma));
        out->bf16_gflops = flops * sm / seconds * 1e-9;
    } else if (which & PEAK_BF16) {
        double warps = BLOCKS_PER_SM / 2 * THREADS / 32 * sm;
        TRY(best_time(&seconds, r, launch_mma));
        out->bf16_gflops = (double)MMA_FLOPS * MMA_CHAINS * r->rounds * warps / seconds * 1e-9;
    }
    return PM_OK;
}

/* Takes two buffers for its length: not for use in a step. */
extern "C" pm_status cuda_measure(struct device *d, int which, struct peaks *out)
{
    struct run r = {d, NULL, NULL, (size_t)d->n_sm * BYTES_PER_SM, 4096};
    pm_status status;
    /* An emulated GPU has a handful of SMs and no use for the full length. */
    if (d->n_sm < 8) {
        r.bytes >>= 6;
        r.rounds = 4;
    }
    TRY_DONE(cuda_check(cudaMalloc((void **)&r.from, r.bytes), "memory for measuring"));
    TRY_DONE(cuda_check(cudaMalloc((void **)&r.to, r.bytes), "memory for measuring"));
    TRY_DONE(cuda_check(GPU_LAUNCH(fill_kernel, d->n_sm * BLOCKS_PER_SM, THREADS, 0, d->stream,
                                   (uint32_t *)r.from, r.bytes / 4),
                        "filling memory"));
    TRY_DONE(measure_rates(&r, which, out));
done:
    cudaStreamSynchronize(d->stream);
    if (r.from) cudaFree(r.from);
    if (r.to) cudaFree(r.to);
    return status;
}
