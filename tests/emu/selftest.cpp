/* selftest.cpp - the emulator's own promises: what it must notice, with which words, and what
 * its stand-in runtime does. What the instructions compute is the matter of the conformance
 * program.
 *
 * Without arguments it runs each case in a process of its own, since most end in an abort, and
 * demands the words of the table; `selftest CASE` is that process. Cases of a sanitizer run
 * only where it is compiled in. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensormap.h"

#define REQUIRE(condition)                                                                     \
    do {                                                                                       \
        if (condition) break;                                                                  \
        fprintf(stderr, "selftest: line %d: %s does not hold\n", __LINE__, #condition);        \
        exit(3);                                                                               \
    } while (0)
#define CHECK(call) REQUIRE((call) == cudaSuccess)

static cudaStream_t stream;
static unsigned char *buffer; /* 4 KiB on the device, zero */

typedef void (*kernel_fn)(unsigned char *);
static void launch(kernel_fn kernel, int threads, size_t smem, int blocks = 1)
{
    CHECK(GPU_LAUNCH(kernel, dim3(blocks), dim3(threads), smem, stream, buffer));
    CHECK(cudaStreamSynchronize(stream));
}

static void download(void *to, size_t n)
{
    CHECK(cudaMemcpyAsync(to, buffer, n, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
}

#define KERNEL(name) static void name([[maybe_unused]] unsigned char *buf)
enum { SMEM = 8192 };
#define TAKE(T, name, n) T *name = smem_take<T>(smem_at, n)
#define SMEM_BEGIN                                                                             \
    GPU_DYN_SMEM(smem_begin);                                                                  \
    unsigned char *smem_at = smem_begin

/* ------------------------------------------------------------ barriers and warps */
KERNEL(half_barrier)
{
    if (threadIdx.x < 32) named_barrier(1, 64);
}
KERNEL(barrier_counts)
{
    named_barrier(1, threadIdx.x < 32 ? 64 : 96);
}
KERNEL(divergent)
{
    if (threadIdx.x < 16)
        __ballot_sync(0xffffffffu, 1);
    else
        __shfl_sync(0xffffffffu, 1, 0);
}
KERNEL(exited_lane)
{
    if (threadIdx.x == 3) return;
    __syncwarp();
}
KERNEL(trap)
{
    gpu_trap();
}

/* Every thread of the grid waits for all others. */
KERNEL(grid_count)
{
    uint32_t *word = (uint32_t *)buf;
    atomic_add_acq_rel(word, 1);
    while (ld_acquire(word) < gridDim.x * blockDim.x)
        gpu_pause();
}
KERNEL(grid_relaxed)
{
    uint32_t *word = (uint32_t *)buf;
    if (blockIdx.x == 1) {
        word[64] = 7;
        __atomic_store_n(word, 1, __ATOMIC_RELAXED);
    } else {
        while (ld_relaxed(word) == 0)
            gpu_pause();
        word[65] = word[64];
    }
}

/* ------------------------------------------------------------------------ mbarriers */
KERNEL(mbar_never)
{
    SMEM_BEGIN;
    TAKE(uint64_t, bar, 1);
    mbar_init(bar, 2);
    mbar_arrive(bar);
    mbar_wait(bar, 0);
}
KERNEL(mbar_over)
{
    SMEM_BEGIN;
    TAKE(uint64_t, bar, 1);
    mbar_init(bar, 1);
    mbar_arrive_tx(bar, 16);
    mbar_arrive(bar);
}
KERNEL(mbar_raw)
{
    SMEM_BEGIN;
    TAKE(uint64_t, bar, 1);
    *bar = 0;
    mbar_arrive(bar);
}
static void bulk(unsigned char *buf, bool fence, uint32_t expect)
{
    SMEM_BEGIN;
    TAKE(uint64_t, bar, 1);
    TAKE(unsigned char, data, 64);
    mbar_init(bar, 1);
    if (fence) fence_barrier_init();
    mbar_arrive_tx(bar, expect);
    bulk_load(data, buf, 64, bar);
    mbar_wait(bar, 0);
}
KERNEL(bulk_wrong_bytes)
{
    bulk(buf, true, 128);
}
KERNEL(bulk_unfenced)
{
    bulk(buf, false, 64);
}

/* --------------------------------------------------------------------------- copies */
KERNEL(cp_async_misaligned)
{
    SMEM_BEGIN;
    TAKE(unsigned char, data, 64);
    cp_async16(data + 8, buf, true);
}
KERNEL(cp_async_unwaited)
{
    SMEM_BEGIN;
    TAKE(unsigned char, data, 64);
    cp_async16(data, buf, true);
}
KERNEL(cp_async_early)
{
    SMEM_BEGIN;
    TAKE(unsigned char, data, 64);
    cp_async16(data, buf, true);
    cp_async_commit();
    buf[16] = data[3]; /* too early */
    cp_async_wait<0>();
    buf[17] = data[3];
}
KERNEL(ldmatrix_outside)
{
    SMEM_BEGIN;
    TAKE(unsigned char, data, 64);
    uint32_t r[1];
    ldmatrix_x1(r, data + SMEM + 4096);
}
static CUtensorMap make_map()
{
    CUtensorMap map;
    const uint64_t dim[2] = {64, 8};
    const uint32_t box[2] = {64, 8};
    REQUIRE(tensormap_2d(&map, buffer, PM_BF16, dim, 128, box, TENSORMAP_SWIZZLE_128) == PM_OK);
    return map;
}
static void tma_misaligned(const CUtensorMap map)
{
    SMEM_BEGIN;
    TAKE(unsigned char, data, 2048);
    TAKE(uint64_t, bar, 1);
    mbar_init(bar, 1);
    fence_barrier_init();
    tma_load_2d(data + 128, &map, bar, 0, 0);
}
static void tma_store_unwaited(const CUtensorMap map)
{
    SMEM_BEGIN;
    TAKE(unsigned char, data, 1024);
    tma_store_2d(&map, data, 0, 0);
    bulk_commit();
}
static void tma_store_unfenced(const CUtensorMap map)
{
    SMEM_BEGIN;
    TAKE(unsigned char, data, 1024);
    for (int i = threadIdx.x; i < 1024; i += 32)
        data[i] = 1;
    __syncthreads();
    if (threadIdx.x) return;
    tma_store_2d(&map, data, 0, 0);
    bulk_commit();
    bulk_wait<0>();
}
static void launch_map(void (*kernel)(CUtensorMap), int threads)
{
    CHECK(GPU_LAUNCH(kernel, dim3(1), dim3(threads), SMEM, stream, make_map()));
    CHECK(cudaStreamSynchronize(stream));
}

/* ---------------------------------------------------------------------------- wgmma */
/* A 64 x 64 and B 8 x 64 of ones, with the steps that a case leaves out. */
struct WgmmaCase {
    bool fence, proxy, wait, same_lanes, same_warps;
};
static void wgmma_with(unsigned char *buf, WgmmaCase c)
{
    SMEM_BEGIN;
    TAKE(uint16_t, a, 64 * 64);
    TAKE(uint16_t, b, 8 * 64);
    int t = threadIdx.x;
    float d[4] = {0, 0, 0, 0};
    for (int i = t; i < 64 * 64; i += 128)
        a[i] = 0x3f80;
    for (int i = t; i < 8 * 64; i += 128)
        b[i] = 0x3f80;
    if (c.proxy) fence_proxy_async();
    __syncthreads();
    if (c.fence) wgmma_fence();
    uint64_t da = wgmma_desc_k128(smem_u32(a)), db = wgmma_desc_k128(smem_u32(b));
    if (!c.same_lanes) db += (uint64_t)(t & 1);
    if (!c.same_warps) db += (uint64_t)(t / 64);
    wgmma_bf16(d, da, db);
    wgmma_commit();
    if (c.wait) wgmma_wait<0>();
    if (d[0] == 16) buf[t] = 1;
    if (!c.wait) wgmma_wait<0>();
}
KERNEL(wgmma_right)
{
    wgmma_with(buf, {true, true, true, true, true});
}
KERNEL(wgmma_unfenced)
{
    wgmma_with(buf, {false, true, true, true, true});
}
KERNEL(wgmma_no_proxy)
{
    wgmma_with(buf, {true, false, true, true, true});
}
KERNEL(wgmma_early)
{
    wgmma_with(buf, {true, true, false, true, true});
}
KERNEL(wgmma_lanes)
{
    wgmma_with(buf, {true, true, true, false, true});
}
KERNEL(wgmma_warps)
{
    wgmma_with(buf, {true, true, true, true, false});
}
/* Two products with A in registers, which are written in between. */
static void wgmma_registers(unsigned char *buf, bool fence, bool wait)
{
    SMEM_BEGIN;
    TAKE(uint16_t, b, 8 * 64);
    int t = threadIdx.x;
    float d[4] = {0, 0, 0, 0};
    uint32_t a[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
    for (int i = t; i < 8 * 64; i += 128)
        b[i] = 0x3f80;
    fence_proxy_async();
    __syncthreads();
    for (int i = 0; i < 2; i++) {
        if (fence || i == 0) wgmma_fence();
        wgmma_bf16(d, a, wgmma_desc_k128(smem_u32(b)));
        wgmma_commit();
        if (wait) wgmma_wait<0>();
        a[t % 4] = 0x40004000;
    }
    wgmma_wait<0>();
    buf[t] = (unsigned char)d[0];
}
KERNEL(wgmma_registers_right)
{
    wgmma_registers(buf, true, true);
}
KERNEL(wgmma_registers_unfenced)
{
    wgmma_registers(buf, false, false);
}
KERNEL(wgmma_registers_early)
{
    wgmma_registers(buf, true, false);
}
/* What cp.async wrote came through the generic proxy. */
static void wgmma_copied(unsigned char *buf, bool proxy)
{
    SMEM_BEGIN;
    TAKE(uint16_t, a, 64 * 64 / 2 + 64);
    TAKE(uint64_t, bar, 1);
    int t = threadIdx.x;
    float d[4];
    if (t == 0) {
        mbar_init(bar, 128);
        fence_barrier_init();
    }
    __syncthreads();
    cp_async16(a + t * 8, buf, true);
    cp_async16(a + 1024 + t * 8, buf, true);
    cp_async_mbar_arrive_noinc(bar);
    mbar_wait(bar, 0);
    if (proxy) fence_proxy_async();
    wgmma_fence();
    uint64_t da = wgmma_desc(smem_u32(a), 128, 256, 0);
    wgmma_bf16(d, da, da, 0);
    wgmma_commit();
    wgmma_wait<0>();
    buf[2048 + t] = (unsigned char)d[0];
}
KERNEL(wgmma_copied_right)
{
    wgmma_copied(buf, true);
}
KERNEL(wgmma_copied_no_proxy)
{
    wgmma_copied(buf, false);
}

/* ----------------------------------------------------------------------- sanitizers */
KERNEL(smem_past_end)
{
    SMEM_BEGIN;
    TAKE(int, data, 32);
    TAKE(int, other, 32);
    other[0] = 1;
    data[32 + (buf[0] & 1)] = 1;
}
KERNEL(ldmatrix_past_end)
{
    SMEM_BEGIN;
    TAKE(unsigned char, data, 128);
    uint32_t r[2];
    ldmatrix_x2(r, data + threadIdx.x * 16);
}
KERNEL(global_past_end)
{
    buf[0] = buf[4096];
}
KERNEL(no_syncthreads)
{
    SMEM_BEGIN;
    TAKE(int, data, 64);
    data[threadIdx.x] = threadIdx.x;
    buf[threadIdx.x] = (unsigned char)data[63 - threadIdx.x];
}
KERNEL(with_syncthreads)
{
    SMEM_BEGIN;
    TAKE(int, data, 64);
    data[threadIdx.x] = threadIdx.x;
    __syncthreads();
    buf[threadIdx.x] = (unsigned char)data[63 - threadIdx.x];
}
KERNEL(add_one)
{
    buf[threadIdx.x]++;
}
KERNEL(slow_add)
{
    for (int i = 0; i < 1000; i++)
        __syncthreads();
    buf[threadIdx.x]++;
}
/* As no_syncthreads, in static shared memory. */
KERNEL(static_shared)
{
    __shared__ int data[64];
    data[threadIdx.x] = threadIdx.x;
    buf[threadIdx.x] = (unsigned char)data[63 - threadIdx.x];
}

/* --------------------------------------------------------------------------- runtime */
static void host_early()
{
    unsigned char got[64];
    CHECK(GPU_LAUNCH(slow_add, dim3(1), dim3(64), 0, stream, buffer));
    CHECK(cudaMemcpyAsync(got, buffer, 64, cudaMemcpyDeviceToHost, stream));
    REQUIRE(got[0] < 255); /* races with the copy */
    CHECK(cudaStreamSynchronize(stream));
}

static void host_dereference()
{
    REQUIRE(buffer[3] == 0);
}

/* Two streams in one capture, joined by events; the graph runs twice. */
static void graph()
{
    cudaStream_t other;
    cudaEvent_t fork, join;
    cudaGraph_t captured;
    cudaGraphExec_t exec;
    unsigned char got[64];
    size_t n = 0;
    cudaStreamCaptureStatus status;
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&fork));
    CHECK(cudaEventCreate(&join));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CHECK(GPU_LAUNCH(slow_add, dim3(1), dim3(64), 0, stream, buffer));
    CHECK(cudaEventRecord(fork, stream));
    CHECK(cudaStreamWaitEvent(other, fork, 0));
    CHECK(GPU_LAUNCH(add_one, dim3(1), dim3(32), 0, other, buffer));
    CHECK(cudaEventRecord(join, other));
    CHECK(cudaStreamWaitEvent(stream, join, 0));
    CHECK(GPU_LAUNCH(add_one, dim3(1), dim3(16), 0, stream, buffer));
    CHECK(cudaStreamIsCapturing(other, &status));
    REQUIRE(status == cudaStreamCaptureStatusActive);
    REQUIRE(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
    void *p;
    REQUIRE(cudaMalloc(&p, 16) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(stream, &captured));
    CHECK(cudaGraphGetNodes(captured, nullptr, &n));
    REQUIRE(n == 3);
    CHECK(cudaGraphInstantiate(&exec, captured, 0));
    CHECK(cudaGraphDestroy(captured));
    download(got, 64);
    REQUIRE(got[0] == 0); /* capturing ran nothing */
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaGraphLaunch(exec, stream));
    download(got, 64);
    REQUIRE(got[0] == 6 && got[16] == 4 && got[32] == 2 && got[63] == 2);
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaEventDestroy(fork));
    CHECK(cudaEventDestroy(join));
    CHECK(cudaStreamDestroy(other));
}

static void events()
{
    cudaStream_t other;
    cudaEvent_t a, b;
    float ms = -1;
    unsigned char got[64];
    CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&a));
    CHECK(cudaEventCreate(&b));
    CHECK(cudaEventRecord(a, stream));
    CHECK(GPU_LAUNCH(slow_add, dim3(1), dim3(64), 0, stream, buffer));
    CHECK(cudaEventRecord(b, stream));
    CHECK(cudaStreamWaitEvent(other, b, 0));
    CHECK(cudaMemcpyAsync(got, buffer, 64, cudaMemcpyDeviceToHost, other));
    CHECK(cudaStreamSynchronize(other));
    REQUIRE(got[63] == 1);
    CHECK(cudaEventSynchronize(b));
    CHECK(cudaEventElapsedTime(&ms, a, b));
    REQUIRE(ms >= 0);
    CHECK(cudaEventDestroy(a));
    CHECK(cudaEventDestroy(b));
    CHECK(cudaStreamDestroy(other));
}

static void limits()
{
    int optin, blocks;
    CHECK(cudaDeviceGetAttribute(&optin, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    REQUIRE(optin == 232448);
    REQUIRE(GPU_LAUNCH(add_one, dim3(1), dim3(32), 49153, stream, buffer) ==
            cudaErrorInvalidValue);
    REQUIRE(cudaGetLastError() == cudaErrorInvalidValue);
    CHECK(cudaFuncSetAttribute((const void *)add_one,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, optin));
    CHECK(GPU_LAUNCH(add_one, dim3(1), dim3(32), 49153, stream, buffer));
    REQUIRE(GPU_LAUNCH(add_one, dim3(1), dim3(1025), 0, stream, buffer) ==
            cudaErrorInvalidConfiguration);
    REQUIRE(GPU_LAUNCH(add_one, dim3(0), dim3(32), 0, stream, buffer) ==
            cudaErrorInvalidConfiguration);
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, (const void *)add_one, 256,
                                                        100 << 10));
    REQUIRE(blocks == 2);
    CHECK(cudaStreamSynchronize(stream));
    uint64_t dim[2] = {64, 8};
    const uint32_t box[2] = {128, 8};
    CUtensorMap map;
    REQUIRE(tensormap_2d(&map, buffer, PM_BF16, dim, 128, box, TENSORMAP_SWIZZLE_128) ==
            PM_ERR_ARG);
    REQUIRE(strstr(pm_last_error(), "256 bytes"));
    REQUIRE(tensormap_2d(&map, buffer, PM_BF16, dim, 130, box, TENSORMAP_PLAIN) == PM_ERR_ARG);
    REQUIRE(strstr(pm_last_error(), "stride[0] is 130"));
}

static void swizzle()
{
    for (uint32_t row = 0; row < 64; row++)
        for (uint32_t byte = 0; byte < 128; byte++) {
            uint32_t a = row * 128 + byte;
            REQUIRE(swizzle_128(row, byte) == (a ^ (a >> 7 & 7) << 4));
        }
}

static void default_stream()
{
    GPU_LAUNCH(add_one, dim3(1), dim3(32), 0, (cudaStream_t)0, buffer);
}

static void dependent()
{
    CHECK(GPU_LAUNCH_PDL(add_one, dim3(1), dim3(32), 0, stream, buffer));
    CHECK(cudaStreamSynchronize(stream));
}

/* Blocks that wait for each other run at once, without a word in the environment. */
static void grid_barrier()
{
    launch(grid_count, 64, 0, 4);
    uint32_t n;
    download(&n, 4);
    REQUIRE(n == 256);
}
/* One block more than the device holds: 4 multiprocessors of 2 blocks. */
static void grid_barrier_too_many()
{
    launch(grid_count, 1024, 0, 9);
}

static void cp_async_nan()
{
    unsigned char got[18];
    launch(cp_async_early, 1, SMEM);
    download(got, 18);
    REQUIRE(got[16] == 0xff && got[17] == 0);
}

static void wgmma_values()
{
    unsigned char got[128];
    launch(wgmma_right, 128, 16384);
    download(got, 128);
    REQUIRE(got[0] == 1 && got[127] == 1);
    CHECK(cudaMemsetAsync(buffer, 0, 128, stream));
    launch(wgmma_early, 128, 16384);
    download(got, 128);
    REQUIRE(got[0] == 0 && got[127] == 0);
}

/* ------------------------------------------------------------------------- the table */
enum where { ANY, FAST, ASAN, TSAN };
struct Case {
    const char *name;
    void (*run)();
    const char *words; /* of its report; NULL: it must succeed */
    where only;
    const char *env; /* NAME=VALUE, or NULL */
};
#define RUN(kernel, threads) [] { launch(kernel, threads, SMEM); }
#define RUN_WGMMA(kernel)    [] { launch(kernel, 128, 16384); }

static const Case cases[] = {
    {"half_barrier", RUN(half_barrier, 64), "deadlock", FAST, nullptr},
    {"barrier_counts", RUN(barrier_counts, 128), "thread counts differ", FAST, nullptr},
    {"divergent", RUN(divergent, 32), "divergent warp", FAST, nullptr},
    {"exited_lane", RUN(exited_lane, 32), "has exited", FAST, nullptr},
    {"trap", RUN(trap, 32), "gpu_trap", FAST, nullptr},
    {"mbar_never", RUN(mbar_never, 1), "deadlock", FAST, nullptr},
    {"mbar_over", RUN(mbar_over, 1), "more arrivals", FAST, nullptr},
    {"mbar_raw", RUN(mbar_raw, 1), "not initialised", FAST, nullptr},
    {"old_device", RUN(mbar_never, 1), "compute capability 80", FAST, "EMU_CC=80"},
    {"bulk_wrong_bytes", RUN(bulk_wrong_bytes, 1), "deadlock", FAST, nullptr},
    {"bulk_unfenced", RUN(bulk_unfenced, 1), "fence_barrier_init", FAST, nullptr},
    {"cp_async_misaligned", RUN(cp_async_misaligned, 1), "not aligned", FAST, nullptr},
    {"cp_async_unwaited", RUN(cp_async_unwaited, 1), "cp_async in flight", FAST, nullptr},
    {"cp_async_nan", cp_async_nan, nullptr, FAST, "EMU_ASYNC=2"},
    {"ldmatrix_outside", RUN(ldmatrix_outside, 32), "not in dynamic shared", FAST, nullptr},
    {"tma_misaligned", [] { launch_map(tma_misaligned, 1); }, "aligned to the swizzle", FAST,
     nullptr},
    {"tma_store_unwaited", [] { launch_map(tma_store_unwaited, 1); }, "TMA stores in flight",
     FAST, nullptr},
    {"wgmma_values", wgmma_values, nullptr, FAST, "EMU_ASYNC=2"},
    {"wgmma_unfenced", RUN_WGMMA(wgmma_unfenced), "without a wgmma_fence", FAST, nullptr},
    {"wgmma_lanes", RUN_WGMMA(wgmma_lanes), "differ between lanes", FAST, nullptr},
    {"wgmma_warps", RUN_WGMMA(wgmma_warps), "different operations", FAST, nullptr},
    {"wgmma_registers", RUN_WGMMA(wgmma_registers_right), nullptr, FAST, "EMU_ASYNC=2"},
    {"wgmma_registers_unfenced", RUN_WGMMA(wgmma_registers_unfenced),
     "since the last wgmma_commit", FAST, nullptr},
    {"wgmma_registers_early", RUN_WGMMA(wgmma_registers_early), "before its wait", FAST,
     nullptr},
    {"default_stream", default_stream, "default stream", FAST, nullptr},
    {"dependent", dependent, "never called griddep_wait", FAST, nullptr},
    {"grid_barrier_too_many", grid_barrier_too_many, "deadlock", FAST, "EMU_TIMEOUT=1"},
    {"grid_barrier", grid_barrier, nullptr, ANY, nullptr},
    {"grid_barrier_order", grid_barrier, nullptr, ANY, "EMU_ORDER=3"},
    {"graph", graph, nullptr, ANY, "EMU_JITTER_US=200"},
    {"events", events, nullptr, ANY, "EMU_JITTER_US=200"},
    {"limits", limits, nullptr, ANY, nullptr},
    {"swizzle", swizzle, nullptr, FAST, nullptr},
    {"smem_past_end", RUN(smem_past_end, 1), "AddressSanitizer", ASAN, nullptr},
    {"ldmatrix_past_end", RUN(ldmatrix_past_end, 32), "poisoned memory", ASAN, nullptr},
    {"global_past_end", RUN(global_past_end, 1), "AddressSanitizer", ASAN, nullptr},
    {"host_dereference", host_dereference, "AddressSanitizer", ASAN, nullptr},
    {"with_syncthreads", RUN(with_syncthreads, 64), nullptr, TSAN, nullptr},
    {"no_syncthreads", RUN(no_syncthreads, 64), "data race", TSAN, nullptr},
    {"static_shared", RUN(static_shared, 64), "data race", TSAN, nullptr},
    {"wgmma_right", RUN_WGMMA(wgmma_right), nullptr, TSAN, nullptr},
    {"wgmma_no_proxy", RUN_WGMMA(wgmma_no_proxy), "data race", TSAN, nullptr},
    {"wgmma_copied", RUN_WGMMA(wgmma_copied_right), nullptr, TSAN, nullptr},
    {"wgmma_copied_no_proxy", RUN_WGMMA(wgmma_copied_no_proxy), "data race", TSAN, nullptr},
    {"tma_store_unfenced", [] { launch_map(tma_store_unfenced, 32); }, "data race", TSAN,
     nullptr},
    {"grid_relaxed", [] { launch(grid_relaxed, 1, 0, 2); }, "data race", TSAN, nullptr},
    {"host_early", host_early, "data race", TSAN, nullptr},
};

static where variant()
{
#if defined(__SANITIZE_ADDRESS__)
    return ASAN;
#elif defined(__SANITIZE_THREAD__)
    return TSAN;
#else
    return FAST;
#endif
}

static int run_case(const Case *c)
{
    CHECK(cudaSetDevice(0));
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaMalloc((void **)&buffer, 4096));
    CHECK(cudaMemsetAsync(buffer, 0, 4096, stream));
    CHECK(cudaStreamSynchronize(stream));
    c->run();
    CHECK(cudaFree(buffer));
    CHECK(cudaStreamDestroy(stream));
    return 0;
}

/* Runs the case as a process; true when it ends as the table says. */
static bool case_holds(const char *program, const Case *c)
{
    static char text[65536];
    int fds[2], status;
    REQUIRE(pipe(fds) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        close(fds[0]);
        close(fds[1]);
        if (c->env) putenv((char *)c->env);
        execl(program, program, c->name, (char *)nullptr);
        _exit(127);
    }
    close(fds[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(fds[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    close(fds[0]);
    text[n] = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    bool clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    bool holds = c->words ? !clean && strstr(text, c->words) : clean;
    if (!holds)
        printf("FAIL %s: status 0x%x, wanted %s%s\n%s\n", c->name, (unsigned)status,
               c->words ? "a report with " : "success", c->words ? c->words : "", text);
    return holds;
}

int main(int argc, char **argv)
{
    int n = 0, n_bad = 0;
    if (argc > 1) {
        for (const Case &c : cases)
            if (!strcmp(c.name, argv[1])) return run_case(&c);
        fprintf(stderr, "selftest: no case %s\n", argv[1]);
        return 2;
    }
    setenv("TSAN_OPTIONS", "atexit_sleep_ms=0:halt_on_error=1", 0);
    for (const Case &c : cases) {
        if (c.only != ANY && c.only != variant()) continue;
        n++;
        n_bad += !case_holds(argv[0], &c);
    }
    printf("selftest: %d cases, %d wrong\n", n, n_bad);
    return n_bad != 0;
}
