/* simt.hpp - the CUDA device side for a host C++ compiler. kernels/cuda/ptx.cuh includes it
 * when nvcc is not compiling; kernels include nothing of the emulator themselves.
 *
 * One fiber is one CUDA thread, one worker (an operating system thread) runs one block at a
 * time. Fibers switch only inside the calls declared here, so a loop that waits must call one
 * (gpu_pause, __nanosleep, mbar_test). NVIDIA's own headers give the vector types, bf16, f16
 * and fp8 arithmetic; this file adds what only nvcc knows. docs/emulator.md has the whole
 * picture. */
#ifndef TESTS_EMU_SIMT_HPP
#define TESTS_EMU_SIMT_HPP

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

namespace emu {
/* What a CUDA thread can ask about itself. */
struct Ctx {
    uint3 tid, bid;
    dim3 bdim, gdim;
    unsigned lin, lane; /* number in the block, number in the warp */
};
extern __thread Ctx *cur; /* the running CUDA thread */

/* Ends the program with a sentence, the place and what the other threads wait for. */
[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Compute capability of the emulated device, two digits. */
int device_cc();
/* How many griddep_wait and griddep_launch calls ran so far. */
unsigned long griddep_waits();
unsigned long griddep_launches();

/* Blocks of n_thread threads and smem bytes that one emulated multiprocessor holds. */
int blocks_per_sm(int n_thread, size_t smem);

/* sync.cpp */
void syncthreads();
int syncthreads_count(int pred);
void syncwarp(unsigned mask);
void bar_sync(int id, int n);
void bar_arrive(int id, int n);
enum shfl_mode { SHFL_IDX, SHFL_UP, SHFL_DOWN, SHFL_XOR };
uint64_t shfl(unsigned mask, uint64_t v, int mode, int arg, int width);
unsigned ballot(unsigned mask, int pred);
unsigned match_any(unsigned mask, uint64_t v);
enum redux_op { REDUX_ADD, REDUX_MIN, REDUX_MAX, REDUX_AND, REDUX_OR, REDUX_XOR };
long long redux(unsigned mask, long long v, int op);
bool elect();
void mbar_init(uint64_t *bar, unsigned n);
void mbar_arrive(uint64_t *bar, unsigned bytes);
bool mbar_test(uint64_t *bar, unsigned parity);
void mbar_wait(uint64_t *bar, unsigned parity);
void fence_mbar_init();
void fence_proxy_async();
void griddep_wait();
void griddep_launch();
void set_max_registers(int n);

/* simt.cpp */
void *dyn_smem();
unsigned smem_off(const void *p);
void poison_region(const void *p, size_t n);
void spin();         /* a turn of a waiting loop */
void atomic_point(); /* may let another thread go first */

/* copy.cpp */
void cp_async(void *s, const void *g, int bytes, bool pred);
void cp_async_commit();
void cp_async_wait(int keep);
void cp_async_arrive(uint64_t *bar);
void tma_load(void *dst, const CUtensorMap *map, uint64_t *bar, int rank, int x, int y, int z);
void tma_store(const CUtensorMap *map, const void *src, int rank, int x, int y, int z);
void bulk_load(void *dst, const void *src, unsigned bytes, uint64_t *bar);
void bulk_commit();
void bulk_wait(int keep);

/* matrix.cpp */
enum wgmma_type { WGMMA_BF16, WGMMA_F16, WGMMA_E4M3 };
void ldmatrix(uint32_t *r, const void *row, int n, bool trans);
void stmatrix(const uint32_t *r, void *row, int n, bool trans);
void mma(float *d, const uint32_t *a, uint32_t b0, uint32_t b1, bool f16);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int keep);
/* a NULL: A comes from shared memory through da */
void wgmma(float *d, int n, int type, const uint32_t *a, uint64_t da, uint64_t db, int ta,
           int tb, int scale_d);

/* A launch: what the runtime stand-in hands to run_grid when its turn in the stream comes. */
struct LaunchCfg {
    dim3 grid, block;
    size_t smem;
    const char *name;
    bool dependent; /* launched with GPU_LAUNCH_PDL */
};
void run_grid(const LaunchCfg &cfg, void (*thunk)(void *), void *arg);
cudaError_t check_launch(dim3 grid, dim3 block, size_t smem, const void *kernel);
cudaError_t enqueue(cudaStream_t stream, void (*fn)(void *), void *arg, void (*del)(void *));

template <class... P> struct Job {
    LaunchCfg cfg;
    void (*kernel)(P...);
    std::tuple<P...> args;
    static void thread(void *p) { std::apply(((Job *)p)->kernel, ((Job *)p)->args); }
    static void grid(void *p) { run_grid(((Job *)p)->cfg, thread, p); }
    static void del(void *p) { delete (Job *)p; }
};

template <class... P, class... A>
cudaError_t launch(const char *name, bool dependent, void (*kernel)(P...), dim3 grid,
                   dim3 block, size_t smem, cudaStream_t stream, A &&...args)
{
    cudaError_t error = check_launch(grid, block, smem, (const void *)kernel);
    if (error != cudaSuccess) return error;
    auto *job = new Job<P...>{{grid, block, smem, name, dependent},
                              kernel,
                              std::tuple<P...>(std::forward<A>(args)...)};
    return enqueue(stream, Job<P...>::grid, job, Job<P...>::del);
}
} // namespace emu

/* ------------------------------------------------------------------ CUDA C++ spellings */
#undef __shared__
#define __shared__ static thread_local /* a worker runs one block at a time */
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __forceinline__
#define __forceinline__ inline
#undef __grid_constant__
#define __grid_constant__
#define threadIdx (emu::cur->tid)
#define blockIdx  (emu::cur->bid)
#define blockDim  (emu::cur->bdim)
#define gridDim   (emu::cur->gdim)
constexpr int warpSize = 32;

#define GPU_EMU            1
#define GPU_SM90           1
#define GPU_SM90A          1
#define GPU_DEV            static inline
#define GPU_DYN_SMEM(name) unsigned char *name = (unsigned char *)emu::dyn_smem()
#define GPU_SMEM_RZ        1024
#define GPU_LAUNCH(k, grid, block, smem, stream, ...)                                          \
    emu::launch(#k, false, (k), (grid), (block), (smem), (stream), __VA_ARGS__)
#define GPU_LAUNCH_PDL(k, grid, block, smem, stream, ...)                                      \
    emu::launch(#k, true, (k), (grid), (block), (smem), (stream), __VA_ARGS__)
#define GPU_LAUNCH_PDL_IF(pdl, k, grid, block, smem, stream, ...)                              \
    emu::launch(#k, (pdl), (k), (grid), (block), (smem), (stream), __VA_ARGS__)

GPU_DEV void __syncthreads()
{
    emu::syncthreads();
}
GPU_DEV int __syncthreads_count(int p)
{
    return emu::syncthreads_count(p);
}
GPU_DEV int __syncthreads_or(int p)
{
    return emu::syncthreads_count(p) != 0;
}
GPU_DEV int __syncthreads_and(int p)
{
    return emu::syncthreads_count(!p) == 0;
}
GPU_DEV void __syncwarp(unsigned mask = 0xffffffffu)
{
    emu::syncwarp(mask);
}
GPU_DEV unsigned __ballot_sync(unsigned mask, int p)
{
    return emu::ballot(mask, p);
}
GPU_DEV int __any_sync(unsigned mask, int p)
{
    return emu::ballot(mask, p) != 0;
}
GPU_DEV int __all_sync(unsigned mask, int p)
{
    return emu::ballot(mask, !p) == 0;
}
template <class T> unsigned __match_any_sync(unsigned mask, T v)
{
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    return emu::match_any(mask, bits);
}
template <class T> T emu_shfl(unsigned mask, T v, int mode, int arg, int width)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = emu::shfl(mask, bits, mode, arg, width);
    memcpy(&v, &bits, sizeof v);
    return v;
}
template <class T> T __shfl_sync(unsigned mask, T v, int lane, int width = 32)
{
    return emu_shfl(mask, v, emu::SHFL_IDX, lane, width);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32)
{
    return emu_shfl(mask, v, emu::SHFL_UP, (int)d, width);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32)
{
    return emu_shfl(mask, v, emu::SHFL_DOWN, (int)d, width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32)
{
    return emu_shfl(mask, v, emu::SHFL_XOR, x, width);
}
#define EMU_REDUX(name, op)                                                                    \
    template <class T> T name(unsigned mask, T v)                                              \
    {                                                                                          \
        static_assert(sizeof(T) == 4, "redux takes int and unsigned");                         \
        return (T)emu::redux(mask, (long long)v, emu::op);                                     \
    }
EMU_REDUX(__reduce_add_sync, REDUX_ADD)
EMU_REDUX(__reduce_min_sync, REDUX_MIN)
EMU_REDUX(__reduce_max_sync, REDUX_MAX)
EMU_REDUX(__reduce_and_sync, REDUX_AND)
EMU_REDUX(__reduce_or_sync, REDUX_OR)
EMU_REDUX(__reduce_xor_sync, REDUX_XOR)
#undef EMU_REDUX

/* Atomics acquire and release, so that ThreadSanitizer accepts the usual idioms with fences; a
 * missing __threadfence is therefore not found. */
template <class T> struct emu_same {
    typedef T type;
};
template <class T, class F> T emu_atomic(T *p, F change)
{
    emu::atomic_point();
    T old, next;
    __atomic_load(p, &old, __ATOMIC_ACQUIRE);
    do
        next = change(old);
    while (
        !__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return old;
}
#define EMU_ATOMIC(name, expression)                                                           \
    template <class T> T name(T *p, typename emu_same<T>::type v)                              \
    {                                                                                          \
        return emu_atomic(p, [=](T old) { return (T)(expression); });                          \
    }
EMU_ATOMIC(atomicAdd, old + v)
EMU_ATOMIC(atomicSub, old - v)
EMU_ATOMIC(atomicExch, ((void)old, v))
EMU_ATOMIC(atomicMax, old < v ? v : old)
EMU_ATOMIC(atomicMin, v < old ? v : old)
EMU_ATOMIC(atomicAnd, old &v)
EMU_ATOMIC(atomicOr, old | v)
EMU_ATOMIC(atomicXor, old ^ v)
EMU_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
#undef EMU_ATOMIC
template <class T>
T atomicCAS(T *p, typename emu_same<T>::type compare, typename emu_same<T>::type v)
{
    return emu_atomic(p, [=](T old) { return old == compare ? v : old; });
}
GPU_DEV void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
GPU_DEV void __threadfence_block()
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}
GPU_DEV void __nanosleep(unsigned)
{
    emu::spin();
}
[[noreturn]] GPU_DEV void __trap()
{
    emu::die("__trap");
}

/* Bits, conversions and the mathematical functions that a host library lacks or names apart. */
GPU_DEV int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
GPU_DEV int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
GPU_DEV int __ffs(int x)
{
    return __builtin_ffs(x);
}
GPU_DEV int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
GPU_DEV unsigned __brev(unsigned x)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++)
        r |= (x >> i & 1) << (31 - i);
    return r;
}
GPU_DEV unsigned __byte_perm(unsigned x, unsigned y, unsigned s)
{
    uint64_t both = (uint64_t)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++)
        r |= (unsigned)(both >> 8 * (s >> 4 * i & 7) & 0xff) << 8 * i;
    return r;
}
template <class T> T __ldg(const T *p)
{
    return *p;
}
template <class T> T __ldcg(const T *p)
{
    return *p;
}
template <class T> T __ldcs(const T *p)
{
    return *p;
}
template <class T> void __stcs(T *p, typename emu_same<T>::type v)
{
    *p = v;
}
template <class T> void __stcg(T *p, typename emu_same<T>::type v)
{
    *p = v;
}
template <class To, class From> To emu_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
#define EMU_FN(type, name, params, expression)                                                 \
    GPU_DEV type name params                                                                   \
    {                                                                                          \
        return expression;                                                                     \
    }
EMU_FN(float, __uint_as_float, (unsigned u), emu_bits<float>(u))
EMU_FN(float, __int_as_float, (int u), emu_bits<float>(u))
EMU_FN(unsigned, __float_as_uint, (float f), emu_bits<unsigned>(f))
EMU_FN(int, __float_as_int, (float f), emu_bits<int>(f))
EMU_FN(float, __fadd_rn, (float a, float b), a + b)
EMU_FN(float, __fsub_rn, (float a, float b), a - b)
EMU_FN(float, __fmul_rn, (float a, float b), a *b)
EMU_FN(float, __fmaf_rn, (float a, float b, float c), fmaf(a, b, c))
EMU_FN(float, __fdiv_rn, (float a, float b), a / b)
EMU_FN(float, __frcp_rn, (float a), 1.0f / a)
EMU_FN(float, __fsqrt_rn, (float a), sqrtf(a))
EMU_FN(float, __fdividef, (float a, float b), a / b)
EMU_FN(float, rsqrtf, (float x), 1.0f / sqrtf(x))
EMU_FN(int, __float2int_rn, (float x), (int)rintf(x))
EMU_FN(int, __float2int_rz, (float x), (int)x)
EMU_FN(int, __float2int_rd, (float x), (int)floorf(x))
EMU_FN(float, __int2float_rn, (int x), (float)x)
EMU_FN(float, __uint2float_rn, (unsigned x), (float)x)
EMU_FN(float, __saturatef, (float x), x > 0 ? (x < 1 ? x : 1) : 0)
EMU_FN(int, min, (int a, int b), b < a ? b : a)
EMU_FN(int, max, (int a, int b), a < b ? b : a)
EMU_FN(unsigned, min, (unsigned a, unsigned b), b < a ? b : a)
EMU_FN(unsigned, max, (unsigned a, unsigned b), a < b ? b : a)
EMU_FN(long, min, (long a, long b), b < a ? b : a)
EMU_FN(long, max, (long a, long b), a < b ? b : a)
EMU_FN(unsigned long, min, (unsigned long a, unsigned long b), b < a ? b : a)
EMU_FN(unsigned long, max, (unsigned long a, unsigned long b), a < b ? b : a)
EMU_FN(long long, min, (long long a, long long b), b < a ? b : a)
EMU_FN(long long, max, (long long a, long long b), a < b ? b : a)
EMU_FN(float, min, (float a, float b), fminf(a, b))
EMU_FN(float, max, (float a, float b), fmaxf(a, b))
#undef EMU_FN
/* glibc declares __expf and its kin: macros, not functions. */
#define __expf(x)    expf(x)
#define __logf(x)    logf(x)
#define __log2f(x)   log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x)    sinf(x)
#define __cosf(x)    cosf(x)
#define __exp2f(x)   exp2f(x)

#include "wrappers.hpp"

#endif
