/* wrappers.hpp - the functions of kernels/cuda/ptx.cuh over the emulator, in the same order;
 * their contracts stand there. Included by simt.hpp only. */
#ifndef TESTS_EMU_WRAPPERS_HPP
#define TESTS_EMU_WRAPPERS_HPP

#define EMU_WRAP(head, body)                                                                   \
    GPU_DEV head                                                                               \
    {                                                                                          \
        body;                                                                                  \
    }

/* sm_80 */
EMU_WRAP(void smem_redzone(void *p, size_t n), emu::poison_region(p, n))
EMU_WRAP(void gpu_trap(), emu::die("gpu_trap: this device has no code for the kernel"))
EMU_WRAP(uint32_t smem_u32(const void *p), return emu::smem_off(p))
EMU_WRAP(void gpu_pause(), emu::spin())
EMU_WRAP(void cp_async4(void *s, const void *g, bool pred), emu::cp_async(s, g, 4, pred))
EMU_WRAP(void cp_async8(void *s, const void *g, bool pred), emu::cp_async(s, g, 8, pred))
EMU_WRAP(void cp_async16(void *s, const void *g, bool pred), emu::cp_async(s, g, 16, pred))
EMU_WRAP(void cp_async_commit(), emu::cp_async_commit())
template <int N>
EMU_WRAP(void cp_async_wait(), emu::cp_async_wait(N))
EMU_WRAP(void ldmatrix_x1(uint32_t (&r)[1], const void *p), emu::ldmatrix(r, p, 1, false))
    EMU_WRAP(void ldmatrix_x2(uint32_t (&r)[2], const void *p), emu::ldmatrix(r, p, 2, false))
        EMU_WRAP(void ldmatrix_x4(uint32_t (&r)[4], const void *p),
                 emu::ldmatrix(r, p, 4, false))
            EMU_WRAP(void ldmatrix_x1_trans(uint32_t (&r)[1], const void *p),
                     emu::ldmatrix(r, p, 1, true))
                EMU_WRAP(void ldmatrix_x2_trans(uint32_t (&r)[2], const void *p),
                         emu::ldmatrix(r, p, 2, true))
                    EMU_WRAP(void ldmatrix_x4_trans(uint32_t (&r)[4], const void *p),
                             emu::ldmatrix(r, p, 4, true))
                        EMU_WRAP(void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4],
                                                     uint32_t b0, uint32_t b1),
                                 emu::mma(d, a, b0, b1, false))
                            EMU_WRAP(void mma_f16_16816(float (&d)[4], const uint32_t (&a)[4],
                                                        uint32_t b0, uint32_t b1),
                                     emu::mma(d, a, b0, b1, true))
                                EMU_WRAP(void named_barrier(int id, int n),
                                         emu::bar_sync(id, n))
                                    EMU_WRAP(void named_barrier_arrive(int id, int n),
                                             emu::bar_arrive(id, n)) GPU_DEV uint4
    ld_global_nc(const void *p)
{
    if ((uintptr_t)p % 16) emu::die("ld_global_nc: %p is not 16-byte aligned", p);
    return *(const uint4 *)p;
}
GPU_DEV void st_global_cs(void *p, uint4 v)
{
    if ((uintptr_t)p % 16) emu::die("st_global_cs: %p is not 16-byte aligned", p);
    *(uint4 *)p = v;
}
EMU_WRAP(void prefetch_l2(const void *p), (void)p)
EMU_WRAP(uint32_t ld_acquire(const uint32_t *p), return __atomic_load_n(p, __ATOMIC_ACQUIRE))
EMU_WRAP(uint32_t ld_relaxed(const uint32_t *p), return __atomic_load_n(p, __ATOMIC_RELAXED))
GPU_DEV void st_release(uint32_t *p, uint32_t v)
{
    emu::atomic_point();
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
GPU_DEV uint32_t atomic_add_acq_rel(uint32_t *p, uint32_t v)
{
    emu::atomic_point();
    return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);
}

/* sm_90 */
EMU_WRAP(void mbar_init(uint64_t *bar, uint32_t n), emu::mbar_init(bar, n))
EMU_WRAP(void fence_barrier_init(), emu::fence_mbar_init())
EMU_WRAP(void mbar_arrive(uint64_t *bar), emu::mbar_arrive(bar, 0))
EMU_WRAP(void mbar_arrive_tx(uint64_t *bar, uint32_t bytes), emu::mbar_arrive(bar, bytes))
EMU_WRAP(bool mbar_test(uint64_t *bar, uint32_t parity), return emu::mbar_test(bar, parity))
EMU_WRAP(void mbar_wait(uint64_t *bar, uint32_t parity), emu::mbar_wait(bar, parity))
EMU_WRAP(void cp_async_mbar_arrive_noinc(uint64_t *bar), emu::cp_async_arrive(bar))
EMU_WRAP(void fence_proxy_async(), emu::fence_proxy_async())
EMU_WRAP(void fence_proxy_async_global(), emu::fence_proxy_async())
#define GPU_L2_EVICT_NORMAL 0x1000000000000000ull
#define GPU_L2_EVICT_FIRST  0x12f0000000000000ull
#define GPU_L2_EVICT_LAST   0x14f0000000000000ull
EMU_WRAP(void tma_load_2d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y,
                          uint64_t = 0),
         emu::tma_load(dst, map, bar, 2, x, y, 0))
EMU_WRAP(void tma_load_3d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y, int z,
                          uint64_t = 0),
         emu::tma_load(dst, map, bar, 3, x, y, z))
EMU_WRAP(void tma_store_2d(const CUtensorMap *map, const void *src, int x, int y),
         emu::tma_store(map, src, 2, x, y, 0))
EMU_WRAP(void tma_store_3d(const CUtensorMap *map, const void *src, int x, int y, int z),
         emu::tma_store(map, src, 3, x, y, z))
EMU_WRAP(void bulk_commit(), emu::bulk_commit())
template <int N>
EMU_WRAP(void bulk_wait(), emu::bulk_wait(N))
template <int N>
EMU_WRAP(void bulk_wait_read(), emu::bulk_wait(N))
EMU_WRAP(void bulk_load(void *dst, const void *src, uint32_t bytes, uint64_t *bar),
         emu::bulk_load(dst, src, bytes,
                        bar)) EMU_WRAP(void tma_prefetch_map(const CUtensorMap *map), (void)map)
    EMU_WRAP(void stmatrix_x1(void *p, const uint32_t (&r)[1]), emu::stmatrix(r, p, 1, false))
        EMU_WRAP(void stmatrix_x2(void *p, const uint32_t (&r)[2]),
                 emu::stmatrix(r, p, 2, false))
            EMU_WRAP(void stmatrix_x4(void *p, const uint32_t (&r)[4]),
                     emu::stmatrix(r, p, 4, false))
                EMU_WRAP(void stmatrix_x1_trans(void *p, const uint32_t (&r)[1]),
                         emu::stmatrix(r, p, 1, true))
                    EMU_WRAP(void stmatrix_x2_trans(void *p, const uint32_t (&r)[2]),
                             emu::stmatrix(r, p, 2, true))
                        EMU_WRAP(void stmatrix_x4_trans(void *p, const uint32_t (&r)[4]),
                                 emu::stmatrix(r, p, 4, true))
                            EMU_WRAP(void griddep_wait(), emu::griddep_wait())
                                EMU_WRAP(void griddep_launch(), emu::griddep_launch())
                                    EMU_WRAP(bool elect_one(), return emu::elect())

    /* sm_90a */
    template <int N>
    EMU_WRAP(void reg_dealloc(), emu::set_max_registers(N))
    template <int N>
    EMU_WRAP(void reg_alloc(), emu::set_max_registers(N))
    EMU_WRAP(void wgmma_fence(), emu::wgmma_fence())
        EMU_WRAP(void wgmma_commit(), emu::wgmma_commit()) template <int N>
        EMU_WRAP(void wgmma_wait(), emu::wgmma_wait(N))
        template <int R>
        EMU_WRAP(void wgmma_hold(float (&d)[R]), (void)d)
        template <int R>
        constexpr bool emu_wgmma_size()
{
    return R == 4 || R == 8 || R == 12 || R == 16 || R == 24 || R == 32 || R == 48 || R == 64 ||
           R == 80 || R == 96 || R == 128;
}
#define EMU_WGMMA(name, type)                                                                  \
    template <int TA = 0, int TB = 0, int R>                                                   \
    GPU_DEV void name(float(&d)[R], uint64_t da, uint64_t db, int scale_d = 1)                 \
    {                                                                                          \
        static_assert(emu_wgmma_size<R>(), "ptx.cuh has no wgmma of this N");                  \
        emu::wgmma(d, 2 * R, type, nullptr, da, db, TA, TB, scale_d);                          \
    }                                                                                          \
    template <int TB = 0, int R>                                                               \
    GPU_DEV void name(float(&d)[R], const uint32_t(&a)[4], uint64_t db, int scale_d = 1)       \
    {                                                                                          \
        static_assert(emu_wgmma_size<R>(), "ptx.cuh has no wgmma of this N");                  \
        emu::wgmma(d, 2 * R, type, a, 0, db, 0, TB, scale_d);                                  \
    }
EMU_WGMMA(wgmma_bf16, emu::WGMMA_BF16)
EMU_WGMMA(wgmma_f16, emu::WGMMA_F16)
#undef EMU_WGMMA
template <int R>
GPU_DEV void wgmma_e4m3(float (&d)[R], uint64_t da, uint64_t db, int scale_d = 1)
{
    static_assert(emu_wgmma_size<R>(), "ptx.cuh has no wgmma of this N");
    emu::wgmma(d, 2 * R, emu::WGMMA_E4M3, nullptr, da, db, 0, 0, scale_d);
}
#undef EMU_WRAP

#endif
