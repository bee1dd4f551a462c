/* ptx.cuh - what a kernel needs beyond C++: instructions of the GPU, one inline function each,
 * launches, and the carving of dynamic shared memory. Every kernel file includes it; inline
 * assembly stands here and nowhere else.
 *
 * Two compilers read a kernel. nvcc sees the PTX below. A host C++ compiler sees simt.hpp,
 * which declares the same functions over an emulator, so that the same kernel source runs on a
 * CPU under sanitizers. An instruction enters this file with its emulated body and a test.
 *
 * Groups: everything is visible to nvcc's host pass, else only where the architecture has it.
 *   sm_80    always
 *   sm_90    GPU_SM90: mbarrier, TMA, stmatrix, dependent launch
 *   sm_90a   GPU_SM90A: wgmma, setmaxnreg
 * A kernel that needs a group keeps its body behind `#if GPU_SM90A`, with gpu_trap() in the
 * other branch; the host chooses kernels by the compute capability.
 *
 * Source: PTX ISA 9.0, chapter "Instruction Set". Addresses in shared memory are pointers here;
 * the wrappers convert. "Warp-wide" functions are called by all 32 lanes together.
 * Has not run on hardware yet. */
#ifndef KERNELS_CUDA_PTX_CUH
#define KERNELS_CUDA_PTX_CUH

#if defined(__CUDACC__)

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include <utility>

#define GPU_DEV __device__ __forceinline__

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define GPU_SM90 1
#else
#define GPU_SM90 0
#endif
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GPU_SM90A 1
#else
#define GPU_SM90A 0
#endif

/* The block's dynamic shared memory, 1024-byte aligned. */
#define GPU_DYN_SMEM(name) extern __shared__ __align__(1024) unsigned char name[]

/* Bytes between two arrays of dynamic shared memory; the emulator has a red zone there. */
#define GPU_SMEM_RZ 0

/* Launches kernel k(...) and yields a cudaError_t. Put template arguments in parentheses. */
#define GPU_LAUNCH(k, grid, block, smem, stream, ...)                                          \
    gpu_launch((k), (grid), (block), (smem), (stream), false, __VA_ARGS__)

/* The same with programmatic dependent launch (sm_90 devices): the kernel may start when all
 * blocks of the kernel before it called griddep_launch() or ended, and must call griddep_wait()
 * before it touches anything that kernel writes or reads. */
#define GPU_LAUNCH_PDL(k, grid, block, smem, stream, ...)                                      \
    GPU_LAUNCH_PDL_IF(true, k, grid, block, smem, stream, __VA_ARGS__)
/* Dependent launch where `pdl` holds, for kernels of all devices: see griddep_wait_if. */
#define GPU_LAUNCH_PDL_IF(pdl, k, grid, block, smem, stream, ...)                              \
    gpu_launch((k), (grid), (block), (smem), (stream), (pdl), __VA_ARGS__)

template <class... P, class... A>
static inline cudaError_t gpu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem,
                                     cudaStream_t stream, bool dependent, A &&...args)
{
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = dependent ? 1 : 0;
    cudaError_t error = cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...);
    if (error != cudaSuccess) cudaGetLastError(); /* it is told here, not again later */
    return error;
}

GPU_DEV void smem_redzone(void *, size_t) {}

/* ------------------------------------------------------------------------------- sm_80 */

/* Ends the kernel with an error: for bodies that this architecture has no code for. */
GPU_DEV void gpu_trap()
{
    __trap();
}

/* Address of shared memory as the instructions take it. */
GPU_DEV uint32_t smem_u32(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* One turn of a loop that waits for another block: every such loop calls it. */
GPU_DEV void gpu_pause()
{
    __nanosleep(20);
}

/* Asynchronous copies global -> shared of 4, 8, 16 bytes, both sides aligned to the size; where
 * `pred` is false the destination becomes zero and `g` is not read (any pointer will do). */
GPU_DEV void cp_async4(void *s, const void *g, bool pred)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(smem_u32(s)), "l"(g),
                 "r"(pred ? 4 : 0)
                 : "memory");
}
GPU_DEV void cp_async8(void *s, const void *g, bool pred)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(smem_u32(s)), "l"(g),
                 "r"(pred ? 8 : 0)
                 : "memory");
}
GPU_DEV void cp_async16(void *s, const void *g, bool pred)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem_u32(s)), "l"(g),
                 "r"(pred ? 16 : 0)
                 : "memory");
}

/* Closes this thread's group of copies; waits until at most N of its groups are in flight. */
GPU_DEV void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> GPU_DEV void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Warp-wide: 8 x 8 matrices of 16-bit values; lane 8 i + j gives the address of row j (16
 * bytes, aligned) of matrix i. Lane l receives in r[i] the values 2 (l % 4), 2 (l % 4) + 1 of
 * row l / 4; _trans: of column l / 4. x1 and x2 use the addresses of lanes 0-7 and 0-15. */
#define PTX_LDMATRIX(name, n, trans, regs, outs, address)                                      \
    GPU_DEV void name(uint32_t(&r)[n], const void *p)                                          \
    {                                                                                          \
        asm volatile("ldmatrix.sync.aligned.m8n8.x" #n trans ".shared.b16 {" regs              \
                     "}, [" address "];"                                                       \
                     : outs                                                                    \
                     : "r"(smem_u32(p))                                                        \
                     : "memory");                                                              \
    }
#define PTX_OUT1 "=r"(r[0])
#define PTX_OUT2 "=r"(r[0]), "=r"(r[1])
#define PTX_OUT4 "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
PTX_LDMATRIX(ldmatrix_x1, 1, "", "%0", PTX_OUT1, "%1")
PTX_LDMATRIX(ldmatrix_x2, 2, "", "%0,%1", PTX_OUT2, "%2")
PTX_LDMATRIX(ldmatrix_x4, 4, "", "%0,%1,%2,%3", PTX_OUT4, "%4")
PTX_LDMATRIX(ldmatrix_x1_trans, 1, ".trans", "%0", PTX_OUT1, "%1")
PTX_LDMATRIX(ldmatrix_x2_trans, 2, ".trans", "%0,%1", PTX_OUT2, "%2")
PTX_LDMATRIX(ldmatrix_x4_trans, 4, ".trans", "%0,%1,%2,%3", PTX_OUT4, "%4")
#undef PTX_LDMATRIX

/* Warp-wide: d [16, 8] += a [16, 16] b [16, 8] with f32 sums. With g = lane / 4, t = 2 (lane %
 * 4): a[0] holds a[g][t, t+1], a[1] a[g+8][t..], a[2] a[g][t+8..], a[3] a[g+8][t+8..]; b0 holds
 * b[t, t+1][g], b1 b[t+8, t+9][g]; d[0], d[1] are d[g][t, t+1], d[2], d[3] d[g+8][t, t+1]. */
#define PTX_MMA(name, type)                                                                    \
    GPU_DEV void name(float(&d)[4], const uint32_t(&a)[4], uint32_t b0, uint32_t b1)           \
    {                                                                                          \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "            \
                     "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"                      \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                          \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));          \
    }
PTX_MMA(mma_bf16_16816, "bf16")
PTX_MMA(mma_f16_16816, "f16")
#undef PTX_MMA

/* Barriers 1-15 of a block among n threads (a multiple of 32); 0 is __syncthreads. arrive
 * counts this warp in without waiting. */
GPU_DEV void named_barrier(int id, int n)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n) : "memory");
}
GPU_DEV void named_barrier_arrive(int id, int n)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n) : "memory");
}

/* 16 bytes of memory that the kernel does not write, past L1; 16 bytes written once. */
GPU_DEV uint4 ld_global_nc(const void *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
GPU_DEV void st_global_cs(void *p, uint4 v)
{
    asm volatile("st.global.cs.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}

/* Asks for the line at p to come to L2. */
GPU_DEV void prefetch_l2(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* Words through which blocks of a grid talk, with the order the name says at gpu scope. */
GPU_DEV uint32_t ld_acquire(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
GPU_DEV uint32_t ld_relaxed(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
GPU_DEV void st_release(uint32_t *p, uint32_t v)
{
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
/* Adds v and returns the value before. */
GPU_DEV uint32_t atomic_add_acq_rel(uint32_t *p, uint32_t v)
{
    uint32_t old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(p), "r"(v)
                 : "memory");
    return old;
}

/* ------------------------------------------------------------------------------- sm_90 */
#if GPU_SM90

/* An mbarrier counts n arrivals and outstanding bytes; its phase ends when both reach zero.
 * fence_barrier_init makes the initialisation visible to TMA; a block barrier does so to the
 * other threads. */
GPU_DEV void mbar_init(uint64_t *bar, uint32_t n)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_u32(bar)), "r"(n)
                 : "memory");
}
GPU_DEV void fence_barrier_init()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
GPU_DEV void mbar_arrive(uint64_t *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_u32(bar)) : "memory");
}
/* Arrives and adds `bytes` to what the phase waits for. */
GPU_DEV void mbar_arrive_tx(uint64_t *bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_u32(bar)),
                 "r"(bytes)
                 : "memory");
}
/* Has the phase of this parity ended? The first phase has parity 0; before any phase ended the
 * answer for parity 1 is yes. */
GPU_DEV bool mbar_test(uint64_t *bar, uint32_t parity)
{
    uint32_t done;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(smem_u32(bar)), "r"(parity)
                 : "memory");
    return done != 0;
}
GPU_DEV void mbar_wait(uint64_t *bar, uint32_t parity)
{
    asm volatile("{\n.reg .pred p;\nWAIT%=:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra DONE%=;\nbra WAIT%=;\nDONE%=:\n}" ::"r"(smem_u32(bar)),
                 "r"(parity)
                 : "memory");
}
/* Arrives when this thread's cp.async so far have landed. The arrival counts against the n of
 * mbar_init. What landed was written by the generic proxy: wgmma needs fence_proxy_async. */
GPU_DEV void cp_async_mbar_arrive_noinc(uint64_t *bar)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(smem_u32(bar))
                 : "memory");
}

/* Orders ordinary accesses of this thread, and what it knows of, before accesses of TMA and
 * wgmma: to shared memory; to global memory. */
GPU_DEV void fence_proxy_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
GPU_DEV void fence_proxy_async_global()
{
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

/* L2 policies of the overloads with `hint`. */
#define GPU_L2_EVICT_NORMAL 0x1000000000000000ull
#define GPU_L2_EVICT_FIRST  0x12f0000000000000ull
#define GPU_L2_EVICT_LAST   0x14f0000000000000ull

/* TMA: one thread copies a box of the mapped tensor to shared memory, 128-byte aligned (1024
 * with 128-byte swizzle), and counts its bytes on `bar`. x is the fastest dimension;
 * coordinates may lie outside, zeros come from there and count. The map is a __grid_constant__
 * parameter. */
#define PTX_TMA     "cp.async.bulk.tensor."
#define PTX_TO_SMEM ".shared::cluster.global.tile.mbarrier::complete_tx::bytes"
GPU_DEV void tma_load_2d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y)
{
    asm volatile(PTX_TMA "2d" PTX_TO_SMEM " [%0], [%1, {%3, %4}], [%2];" ::"r"(smem_u32(dst)),
                 "l"(map), "r"(smem_u32(bar)), "r"(x), "r"(y)
                 : "memory");
}
GPU_DEV void tma_load_2d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y,
                         uint64_t hint)
{
    asm volatile(PTX_TMA "2d" PTX_TO_SMEM
                         ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(smem_u32(dst)),
                 "l"(map), "r"(smem_u32(bar)), "r"(x), "r"(y), "l"(hint)
                 : "memory");
}
GPU_DEV void tma_load_3d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y, int z)
{
    asm volatile(PTX_TMA "3d" PTX_TO_SMEM
                         " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(smem_u32(dst)),
                 "l"(map), "r"(smem_u32(bar)), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
GPU_DEV void tma_load_3d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y, int z,
                         uint64_t hint)
{
    asm volatile(PTX_TMA "3d" PTX_TO_SMEM ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], "
                         "%6;" ::"r"(smem_u32(dst)),
                 "l"(map), "r"(smem_u32(bar)), "r"(x), "r"(y), "r"(z), "l"(hint)
                 : "memory");
}

/* TMA: shared memory, after fence_proxy_async by its writers and a barrier, to a box of the
 * tensor; what lies outside is dropped. Ends with a group of this thread: bulk_commit, then
 * bulk_wait_read (the source may be reused) or bulk_wait (written), until at most N groups are
 * in flight. A block waits for its reads before it ends. */
GPU_DEV void tma_store_2d(const CUtensorMap *map, const void *src, int x, int y)
{
    asm volatile(PTX_TMA
                 "2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
                 "r"(smem_u32(src)), "r"(x), "r"(y)
                 : "memory");
}
GPU_DEV void tma_store_3d(const CUtensorMap *map, const void *src, int x, int y, int z)
{
    asm volatile(PTX_TMA
                 "3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
                 "r"(smem_u32(src)), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
GPU_DEV void bulk_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
template <int N> GPU_DEV void bulk_wait()
{
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}
template <int N> GPU_DEV void bulk_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
#undef PTX_TMA
#undef PTX_TO_SMEM

/* One thread copies `bytes` (a multiple of 16, both sides 16-byte aligned) to shared memory and
 * counts them on `bar`. */
GPU_DEV void bulk_load(void *dst, const void *src, uint32_t bytes, uint64_t *bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(smem_u32(dst)),
                 "l"(src), "r"(bytes), "r"(smem_u32(bar))
                 : "memory");
}

/* Fetches a tensor map ahead of its first use. */
GPU_DEV void tma_prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* Warp-wide: the inverse of ldmatrix. */
#define PTX_STMATRIX(name, n, trans, regs, ins)                                                \
    GPU_DEV void name(void *p, const uint32_t(&r)[n])                                          \
    {                                                                                          \
        asm volatile("stmatrix.sync.aligned.m8n8.x" #n trans ".shared.b16 [%0], {" regs        \
                     "};" ::"r"(smem_u32(p)),                                                  \
                     ins                                                                       \
                     : "memory");                                                              \
    }
#define PTX_IN2 "r"(r[0]), "r"(r[1])
#define PTX_IN4 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
PTX_STMATRIX(stmatrix_x1, 1, "", "%1", "r"(r[0]))
PTX_STMATRIX(stmatrix_x2, 2, "", "%1,%2", PTX_IN2)
PTX_STMATRIX(stmatrix_x4, 4, "", "%1,%2,%3,%4", PTX_IN4)
PTX_STMATRIX(stmatrix_x1_trans, 1, ".trans", "%1", "r"(r[0]))
PTX_STMATRIX(stmatrix_x2_trans, 2, ".trans", "%1,%2", PTX_IN2)
PTX_STMATRIX(stmatrix_x4_trans, 4, ".trans", "%1,%2,%3,%4", PTX_IN4)
#undef PTX_STMATRIX
#undef PTX_IN2
#undef PTX_IN4

/* Programmatic dependent launch: waits until the kernel before has ended and its writes are
 * visible; lets the kernel after start. Both do nothing in a kernel launched otherwise. */
GPU_DEV void griddep_wait()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
GPU_DEV void griddep_launch()
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/* Warp-wide: true in one lane. */
GPU_DEV bool elect_one()
{
    uint32_t mine;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.b32 %0, 1, 0, p;\n}"
                 : "=r"(mine)
                 :
                 : "memory");
    return mine != 0;
}
#endif /* GPU_SM90 */
#undef PTX_OUT1
#undef PTX_OUT2
#undef PTX_OUT4

/* ------------------------------------------------------------------------------ sm_90a */
#if GPU_SM90A

/* Lowers or raises the registers of each thread of a warpgroup to N, a multiple of 8. */
template <int N> GPU_DEV void reg_dealloc()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> GPU_DEV void reg_alloc()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* Before the first wgmma, and whenever registers that it uses were written: orders them. */
GPU_DEV void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
/* Closes a group of wgmmas; waits until at most N groups are in flight. */
GPU_DEV void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> GPU_DEV void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* Keeps the compiler from moving uses of the accumulators across this point: before wgmma_fence
 * and after the wgmma_wait that ends the group. */
template <int R> GPU_DEV void wgmma_hold(float (&d)[R])
{
#pragma unroll
    for (int i = 0; i < R; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* wgmma by the four warps of a warpgroup: d [64, N] = a [64, K] b [K, N] + (scale_d ? d : 0), K
 * = 16 values of 16 bits or 32 of 8, f32 sums. N is twice the length of d: 8, 16, 24, 32, 48,
 * 64, 96, 128, 160, 192 or 256. Lane l of warp w holds in d[4 j + 2 h + i] the value at row 16
 * w + l / 4 + 8 h, column 8 j + 2 (l % 4) + i. da and db are descriptors (wgmma_desc); TA and
 * TB are 1 where A or B is MN-major. Forms whose a is uint32_t[4] take A from registers: each
 * warp its 16 rows, as mma_bf16_16816 lays them out.
 *
 * The operands stay in use until wgmma_wait. */
#define PTX_D4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PTX_D8(i)  PTX_D4(i), PTX_D4(i + 4)
#define PTX_D16(i) PTX_D8(i), PTX_D8(i + 8)
#define PTX_D32(i) PTX_D16(i), PTX_D16(i + 16)
#define PTX_D64(i) PTX_D32(i), PTX_D32(i + 32)
/* clang-format off */
#define PTX_R(a, b, c, e) "%" #a ",%" #b ",%" #c ",%" #e
#define PTX_R4 PTX_R(0, 1, 2, 3)
#define PTX_R8 PTX_R4 "," PTX_R(4, 5, 6, 7)
#define PTX_R12 PTX_R8 "," PTX_R(8, 9, 10, 11)
#define PTX_R16 PTX_R12 "," PTX_R(12, 13, 14, 15)
#define PTX_R24 PTX_R16 "," PTX_R(16, 17, 18, 19) "," PTX_R(20, 21, 22, 23)
#define PTX_R32 PTX_R24 "," PTX_R(24, 25, 26, 27) "," PTX_R(28, 29, 30, 31)
#define PTX_R48 PTX_R32 "," \
    PTX_R(32, 33, 34, 35) "," PTX_R(36, 37, 38, 39) "," PTX_R(40, 41, 42, 43) "," \
    PTX_R(44, 45, 46, 47)
#define PTX_R64 PTX_R48 "," \
    PTX_R(48, 49, 50, 51) "," PTX_R(52, 53, 54, 55) "," PTX_R(56, 57, 58, 59) "," \
    PTX_R(60, 61, 62, 63)
#define PTX_R80 PTX_R64 "," \
    PTX_R(64, 65, 66, 67) "," PTX_R(68, 69, 70, 71) "," PTX_R(72, 73, 74, 75) "," \
    PTX_R(76, 77, 78, 79)
#define PTX_R96 PTX_R80 "," \
    PTX_R(80, 81, 82, 83) "," PTX_R(84, 85, 86, 87) "," PTX_R(88, 89, 90, 91) "," \
    PTX_R(92, 93, 94, 95)
#define PTX_R128 PTX_R96 "," \
    PTX_R(96, 97, 98, 99) "," PTX_R(100, 101, 102, 103) "," PTX_R(104, 105, 106, 107) "," \
    PTX_R(108, 109, 110, 111) "," PTX_R(112, 113, 114, 115) "," PTX_R(116, 117, 118, 119) "," \
    PTX_R(120, 121, 122, 123) "," PTX_R(124, 125, 126, 127)
/* clang-format on */

#define PTX_SCALE(i) "{\n.reg .pred p;\nsetp.ne.b32 p, %" #i ", 0;\n"

/* A and B in shared memory, 16-bit types. r registers, n columns, then the operands' numbers.
 */
#define PTX_WGMMA_SS(name, type, r, n, regs, outs, i0, i1, i2, i3, i4)                         \
    template <int TA = 0, int TB = 0>                                                          \
    GPU_DEV void name(float(&d)[r], uint64_t da, uint64_t db, int scale_d = 1)                 \
    {                                                                                          \
        asm volatile(PTX_SCALE(i2) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type      \
                                   "." type " {" regs "}, %" #i0 ", %" #i1 ", p, 1, 1, %" #i3  \
                                   ", %" #i4 ";\n}"                                            \
                     : outs                                                                    \
                     : "l"(da), "l"(db), "r"(scale_d), "n"(TA), "n"(TB)                        \
                     : "memory");                                                              \
    }
/* A in registers, B in shared memory. */
#define PTX_WGMMA_RS(name, type, r, n, regs, outs, i0, i1, i2, i3, i4, i5, i6)                 \
    template <int TB = 0>                                                                      \
    GPU_DEV void name(float(&d)[r], const uint32_t(&a)[4], uint64_t db, int scale_d = 1)       \
    {                                                                                          \
        asm volatile(PTX_SCALE(i5) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type      \
                                   "." type " {" regs "}, {%" #i0 ",%" #i1 ",%" #i2 ",%" #i3   \
                                   "}, %" #i4 ", p, 1, 1, %" #i6 ";\n}"                        \
                     : outs                                                                    \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(db), "r"(scale_d),      \
                       "n"(TB)                                                                 \
                     : "memory");                                                              \
    }
/* e4m3 with K = 32, both K-major in shared memory. */
#define PTX_WGMMA_FP8(r, n, regs, outs, i0, i1, i2)                                            \
    GPU_DEV void wgmma_e4m3(float(&d)[r], uint64_t da, uint64_t db, int scale_d = 1)           \
    {                                                                                          \
        asm volatile(PTX_SCALE(i2) "wgmma.mma_async.sync.aligned.m64n" #n                      \
                                   "k32.f32.e4m3.e4m3 {" regs "}, %" #i0 ", %" #i1             \
                                   ", p, 1, 1;\n}"                                             \
                     : outs                                                                    \
                     : "l"(da), "l"(db), "r"(scale_d)                                          \
                     : "memory");                                                              \
    }
#define PTX_WGMMA(r, n, regs, outs, i0, i1, i2, i3, i4, i5, i6)                                \
    PTX_WGMMA_SS(wgmma_bf16, "bf16", r, n, regs, PTX_LIST outs, i0, i1, i2, i3, i4)            \
    PTX_WGMMA_SS(wgmma_f16, "f16", r, n, regs, PTX_LIST outs, i0, i1, i2, i3, i4)              \
    PTX_WGMMA_RS(wgmma_bf16, "bf16", r, n, regs, PTX_LIST outs, i0, i1, i2, i3, i4, i5, i6)    \
    PTX_WGMMA_RS(wgmma_f16, "f16", r, n, regs, PTX_LIST outs, i0, i1, i2, i3, i4, i5, i6)      \
    PTX_WGMMA_FP8(r, n, regs, PTX_LIST outs, i0, i1, i2)
#define PTX_LIST(...) __VA_ARGS__
PTX_WGMMA(4, 8, PTX_R4, (PTX_D4(0)), 4, 5, 6, 7, 8, 9, 10)
PTX_WGMMA(8, 16, PTX_R8, (PTX_D8(0)), 8, 9, 10, 11, 12, 13, 14)
PTX_WGMMA(12, 24, PTX_R12, (PTX_D8(0), PTX_D4(8)), 12, 13, 14, 15, 16, 17, 18)
PTX_WGMMA(16, 32, PTX_R16, (PTX_D16(0)), 16, 17, 18, 19, 20, 21, 22)
PTX_WGMMA(24, 48, PTX_R24, (PTX_D16(0), PTX_D8(16)), 24, 25, 26, 27, 28, 29, 30)
PTX_WGMMA(32, 64, PTX_R32, (PTX_D32(0)), 32, 33, 34, 35, 36, 37, 38)
PTX_WGMMA(48, 96, PTX_R48, (PTX_D32(0), PTX_D16(32)), 48, 49, 50, 51, 52, 53, 54)
PTX_WGMMA(64, 128, PTX_R64, (PTX_D64(0)), 64, 65, 66, 67, 68, 69, 70)
PTX_WGMMA(80, 160, PTX_R80, (PTX_D64(0), PTX_D16(64)), 80, 81, 82, 83, 84, 85, 86)
PTX_WGMMA(96, 192, PTX_R96, (PTX_D64(0), PTX_D32(64)), 96, 97, 98, 99, 100, 101, 102)
PTX_WGMMA(128, 256, PTX_R128, (PTX_D64(0), PTX_D64(64)), 128, 129, 130, 131, 132, 133, 134)
#undef PTX_WGMMA
#undef PTX_WGMMA_SS
#undef PTX_WGMMA_RS
#undef PTX_WGMMA_FP8
#undef PTX_SCALE
#undef PTX_LIST
#undef PTX_D4
#undef PTX_D8
#undef PTX_D16
#undef PTX_D32
#undef PTX_D64
#undef PTX_R
#undef PTX_R4
#undef PTX_R8
#undef PTX_R12
#undef PTX_R16
#undef PTX_R24
#undef PTX_R32
#undef PTX_R48
#undef PTX_R64
#undef PTX_R80
#undef PTX_R96
#undef PTX_R128
#endif /* GPU_SM90A */

#else /* the emulator */
#include <simt.hpp>
#endif

/* ------------------------------------------------- both compilers: arithmetic and carving */

/* Descriptor of a matrix in shared memory for wgmma (PTX ISA, "Matrix-descriptor format"):
 * start, leading and stride distances in bytes, swizzle 0 none, 1 128 bytes, 2 64, 3 32.
 *
 * K-major (rows of K values): without swizzle 8 rows x 16 bytes are contiguous, `leading` lies
 * between neighbours along K, `stride` between groups of 8 rows. With the 128-byte swizzle 8
 * rows x 128 bytes are an atom, 1024-byte aligned, `stride` lies between atoms down the rows,
 * and steps along K inside the atom add their bytes to the start.
 *
 * MN-major (rows of one k, M or N values contiguous; trans = 1): with the 128-byte swizzle an
 * atom is 8 k x 64 values; `leading` lies between atoms along MN, `stride` between atoms along
 * K. Without swizzle 8 k x 8 values are contiguous; `leading` along K, `stride` along MN. */
GPU_DEV uint64_t wgmma_desc(uint32_t start, uint32_t leading, uint32_t stride, uint32_t swizzle)
{
    return (uint64_t)((start & 0x3ffff) >> 4) | (uint64_t)((leading & 0x3ffff) >> 4) << 16 |
           (uint64_t)((stride & 0x3ffff) >> 4) << 32 | (uint64_t)swizzle << 62;
}
/* K-major, 128-byte swizzle, atoms of 8 rows x 128 bytes one after another. A step of k bytes
 * inside the atom adds k / 16 to the descriptor. */
GPU_DEV uint64_t wgmma_desc_k128(uint32_t start)
{
    return wgmma_desc(start, 16, 1024, 1);
}

/* Byte offset of (row, byte of the row) in a tile of 128-byte rows with the 128-byte swizzle,
 * as TMA writes it and wgmma reads it; the tile is 1024-byte aligned. */
GPU_DEV uint32_t swizzle_128(uint32_t row, uint32_t byte)
{
    return row * 128 + (byte ^ (row & 7) << 4);
}

/* The first thing in every thread of a kernel that is launched with GPU_LAUNCH_PDL_IF(pdl,
 * ...): griddep_wait; then griddep_launch, for what it lets start waits in its turn. */
GPU_DEV void griddep_wait_if(bool pdl)
{
#if GPU_SM90
    if (!pdl) return;
    griddep_wait();
    griddep_launch();
#else
    (void)pdl;
#endif
}

/* Takes n elements of dynamic shared memory at p and moves p on, in steps of 128 bytes. Host
 * code sizes the launch with GPU_SMEM_BYTES for each array, in the same order. */
template <class T> GPU_DEV T *smem_take(unsigned char *&p, size_t n)
{
    T *array = (T *)p;
    size_t bytes = (n * sizeof(T) + 127) / 128 * 128;
    smem_redzone(p + n * sizeof(T), bytes - n * sizeof(T) + GPU_SMEM_RZ);
    p += bytes + GPU_SMEM_RZ;
    return array;
}
#define GPU_SMEM_BYTES(T, n) (((n) * sizeof(T) + 127) / 128 * 128 + GPU_SMEM_RZ)

#endif
