/* conformance_data.cu - the movers of sm_90: mbarriers, TMA, bulk copies, stmatrix, dependent
 * launch. */
#include <stdio.h>
#include <stdlib.h>

#include "conformance.h"
#include "kernels/cuda/tensormap.h"

static const unsigned char *bytes; /* 64 KiB of input */

/* What a kernel of these cases gets: input, output, tensor map. */
typedef void (*data_kernel)(const unsigned char *, unsigned char *, const CUtensorMap);

static void run(const char *name, data_kernel kernel, int threads, size_t smem,
                const CUtensorMap *map, const void *want, size_t n_out)
{
    static CUtensorMap none;
    unsigned char *in = (unsigned char *)conform_upload(bytes, 65536);
    unsigned char *out = (unsigned char *)conform_upload(NULL, n_out);
    unsigned char *got = (unsigned char *)malloc(n_out);
    CHECK(GPU_LAUNCH(kernel, dim3(1), dim3(threads), smem, conform_stream, in, out,
                     map ? *map : none));
    conform_download(got, out, n_out);
    conform_record(name, got, want, n_out, 0);
    free(got);
    conform_free(in);
    conform_free(out);
}

/* ------------------------------------------------------------------------- mbarriers */
/* The answers of mbar_test for both parities after each step of a barrier of 3 arrivals. */
__global__ void mbarrier_kernel(const unsigned char *, unsigned char *out,
                                const __grid_constant__ CUtensorMap)
{
#if GPU_SM90
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem;
    uint64_t *bar = smem_take<uint64_t>(p, 1);
    mbar_init(bar, 3);
    fence_barrier_init();
    for (int step = 0; step < 12; step++) {
        out[step * 2] = mbar_test(bar, 0);
        out[step * 2 + 1] = mbar_test(bar, 1);
        mbar_arrive(bar);
    }
    mbar_wait(bar, 1);
#else
    gpu_trap();
#endif
}

static void mbarrier_case(unsigned char *want)
{
    for (int step = 0; step < 12; step++) {
        int phase = step / 3 % 2; /* of the phase that runs */
        want[step * 2] = phase == 1;
        want[step * 2 + 1] = phase == 0;
    }
    run("mbarrier", mbarrier_kernel, 1, GPU_SMEM_BYTES(uint64_t, 1), NULL, want, 24);
}

/* Warp 0 fills by cp.async and by one bulk copy, two barriers tell warp 1; one lane is elected.
 */
__global__ void arrive_kernel(const unsigned char *in, unsigned char *out,
                              const __grid_constant__ CUtensorMap)
{
#if GPU_SM90
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem, *a = smem_take<unsigned char>(p, 512);
    unsigned char *b = smem_take<unsigned char>(p, 1024);
    uint64_t *bar = smem_take<uint64_t>(p, 2);
    int t = threadIdx.x;
    if (t == 0) {
        mbar_init(&bar[0], 32);
        mbar_init(&bar[1], 1);
        fence_barrier_init();
    }
    __syncthreads();
    if (t < 32) {
        cp_async16(a + t * 16, in + t * 16, t != 9);
        cp_async_mbar_arrive_noinc(&bar[0]);
        if (elect_one()) {
            mbar_arrive_tx(&bar[1], 1024);
            bulk_load(b, in + 4096, 1024, &bar[1]);
        }
    } else {
        mbar_wait(&bar[0], 0);
        mbar_wait(&bar[1], 0);
        for (int i = t - 32; i < 512; i += 32)
            out[i] = a[i];
        for (int i = t - 32; i < 1024; i += 32)
            out[512 + i] = b[i];
    }
#else
    gpu_trap();
#endif
}

static void arrive_case(unsigned char *want)
{
    memcpy(want, bytes, 512);
    memset(want + 9 * 16, 0, 16);
    memcpy(want + 512, bytes + 4096, 1024);
    run("cp_async_mbar_arrive_noinc+bulk_load", arrive_kernel, 64,
        GPU_SMEM_BYTES(unsigned char, 512) + GPU_SMEM_BYTES(unsigned char, 1024) +
            GPU_SMEM_BYTES(uint64_t, 2),
        NULL, want, 1536);
}

/* Six stores into six areas of 512 bytes, rows 16 bytes apart. */
__global__ void stmatrix_kernel(const unsigned char *in, unsigned char *out,
                                const __grid_constant__ CUtensorMap)
{
#if GPU_SM90
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem, *s = smem_take<unsigned char>(p, 6 * 512);
    int t = threadIdx.x;
    for (int i = t; i < 6 * 512; i += 32)
        s[i] = 0xee;
    const uint32_t *w = (const uint32_t *)in + t * 4;
    uint32_t r1[1] = {w[0]}, r2[2] = {w[0], w[1]}, r4[4] = {w[0], w[1], w[2], w[3]};
    __syncthreads();
    unsigned char *row = s + t * 16;
    stmatrix_x1(row, r1);
    stmatrix_x1_trans(row + 512, r1);
    stmatrix_x2(row + 1024, r2);
    stmatrix_x2_trans(row + 1536, r2);
    stmatrix_x4(row + 2048, r4);
    stmatrix_x4_trans(row + 2560, r4);
    __syncthreads();
    for (int i = t; i < 6 * 512; i += 32)
        out[i] = s[i];
#else
    gpu_trap();
#endif
}

static void stmatrix_case(unsigned char *want)
{
    memset(want, 0xee, 6 * 512);
    for (int n = 0; n < 3; n++)
        for (int trans = 0; trans < 2; trans++)
            for (int i = 0; i < 1 << n; i++)
                for (int t = 0; t < 32; t++)
                    for (int h = 0; h < 2; h++) {
                        int a = t / 4, b = t % 4 * 2 + h;
                        memcpy(want + (n * 2 + trans) * 512 + i * 128 + (trans ? b : a) * 16 +
                                   (trans ? a : b) * 2,
                               bytes + t * 16 + i * 4 + h * 2, 2);
                    }
    run("stmatrix", stmatrix_kernel, 32, GPU_SMEM_BYTES(unsigned char, 6 * 512), NULL, want,
        6 * 512);
}

/* ------------------------------------------------------------------------------- TMA */
/* A tensor of 3 planes of 11 rows of 40 elements, 48 apart, at an offset in the input, a box of
 * 16-byte multiples, and where it is taken. */
struct Tile {
    const char *name;
    pm_dtype type;
    int size, rank;
    uint32_t box[3];
    int at[3];
    tensormap_swizzle swizzle;
};

enum { COLS = 40, PITCH = 48, ROWS = 11, PLANES = 3, TENSOR_AT = 1024 };

template <int RANK, int X, int Y, int Z>
__global__ void tma_load_kernel(const unsigned char *, unsigned char *out,
                                const __grid_constant__ CUtensorMap map)
{
#if GPU_SM90
    enum { MOST = 8192 };
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem, *s = smem_take<unsigned char>(p, MOST);
    uint64_t *bar = smem_take<uint64_t>(p, 1);
    uint32_t n = *(const uint32_t *)out; /* bytes of the box */
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        fence_barrier_init();
        tma_prefetch_map(&map);
        mbar_arrive_tx(bar, n);
        if (RANK == 2 && Y < 0)
            tma_load_2d(s, &map, bar, X, Y, GPU_L2_EVICT_FIRST);
        else if (RANK == 2)
            tma_load_2d(s, &map, bar, X, Y);
        else if (Z > 1)
            tma_load_3d(s, &map, bar, X, Y, Z, GPU_L2_EVICT_LAST);
        else
            tma_load_3d(s, &map, bar, X, Y, Z);
    }
    __syncthreads();
    mbar_wait(bar, 0);
    for (uint32_t i = threadIdx.x; i < n; i += 32)
        out[i] = s[i];
#else
    gpu_trap();
#endif
}

/* Fills a box from shared memory, byte i is i % 251, and stores it. */
template <int RANK, int X, int Y, int Z>
__global__ void tma_store_kernel(const unsigned char *, unsigned char *out,
                                 const __grid_constant__ CUtensorMap map)
{
#if GPU_SM90
    enum { MOST = 8192 };
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem, *s = smem_take<unsigned char>(p, MOST);
    (void)out;
    for (int i = threadIdx.x; i < MOST; i += 32)
        s[i] = (unsigned char)(i % 251);
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        if (RANK == 2)
            tma_store_2d(&map, s, X, Y);
        else
            tma_store_3d(&map, s, X, Y, Z);
        bulk_commit();
        bulk_wait_read<0>();
        bulk_wait<0>();
    }
#else
    gpu_trap();
#endif
}

static void tile_map(const Tile *t, CUtensorMap *map, const unsigned char *base)
{
    uint64_t dim[3] = {COLS, ROWS, PLANES};
    uint64_t stride[2] = {(uint64_t)PITCH * t->size, (uint64_t)PITCH * t->size * ROWS};
    pm_status status =
        t->rank == 2 ? tensormap_2d(map, base, t->type, dim, stride[0], t->box, t->swizzle)
                     : tensormap_3d(map, base, t->type, dim, stride, t->box, t->swizzle);
    if (status == PM_OK) return;
    fprintf(stderr, "conformance: %s: %s\n", t->name, pm_last_error());
    exit(2);
}

/* Calls fn for each element of the box: its byte in shared memory, and in the tensor, or -1. */
template <class F> static uint32_t tile_each(const Tile *t, F fn)
{
    uint32_t s = 0, planes = t->rank == 3 ? t->box[2] : 1;
    for (uint32_t z = 0; z < planes; z++)
        for (uint32_t y = 0; y < t->box[1]; y++)
            for (uint32_t x = 0; x < t->box[0]; x++, s += (uint32_t)t->size) {
                int gx = t->at[0] + (int)x, gy = t->at[1] + (int)y;
                int gz = t->rank == 3 ? t->at[2] + (int)z : 0;
                bool inside =
                    gx >= 0 && gx < COLS && gy >= 0 && gy < ROWS && gz >= 0 && gz < PLANES;
                uint32_t at = t->swizzle == TENSORMAP_PLAIN ? s : s ^ (s >> 7 & 7) << 4;
                fn(at, inside ? ((gz * ROWS + gy) * PITCH + gx) * t->size : -1);
            }
    return s;
}

static void tile_load(const Tile *t, data_kernel kernel, unsigned char *want)
{
    CUtensorMap map;
    unsigned char *tensor = (unsigned char *)conform_upload(bytes + TENSOR_AT, 16384);
    tile_map(t, &map, tensor);
    uint32_t n = tile_each(t, [=](uint32_t at, int from) {
        memset(want + at, 0, (size_t)t->size);
        if (from >= 0) memcpy(want + at, bytes + TENSOR_AT + from, (size_t)t->size);
    });
    unsigned char *got = (unsigned char *)malloc(n);
    memset(got, 0xee, n);
    memcpy(got, &n, 4);
    unsigned char *out = (unsigned char *)conform_upload(got, n);
    CHECK(GPU_LAUNCH(kernel, dim3(1), dim3(32),
                     GPU_SMEM_BYTES(unsigned char, 8192) + GPU_SMEM_BYTES(uint64_t, 1),
                     conform_stream, tensor, out, map));
    conform_download(got, out, n);
    conform_record(t->name, got, want, n, 0);
    free(got);
    conform_free(out);
    conform_free(tensor);
}

static void tile_store(const Tile *t, data_kernel kernel, unsigned char *want)
{
    enum { TENSOR_BYTES = PITCH * ROWS * PLANES * 4 };
    CUtensorMap map;
    unsigned char *tensor = (unsigned char *)conform_upload(NULL, TENSOR_BYTES);
    tile_map(t, &map, tensor);
    memset(want, 0xee, TENSOR_BYTES);
    tile_each(t, [=](uint32_t at, int to) {
        for (int i = 0; to >= 0 && i < t->size; i++)
            want[to + i] = (unsigned char)((at + (uint32_t)i) % 251);
    });
    unsigned char *got = (unsigned char *)malloc(TENSOR_BYTES);
    CHECK(GPU_LAUNCH(kernel, dim3(1), dim3(32), GPU_SMEM_BYTES(unsigned char, 8192),
                     conform_stream, tensor, tensor, map));
    conform_download(got, tensor, TENSOR_BYTES);
    conform_record(t->name, got, want, TENSOR_BYTES, 0);
    free(got);
    conform_free(tensor);
}

#define TILE(name, type, size, rank, b0, b1, b2, x, y, z, swizzle, kernel, run)                \
    do {                                                                                       \
        const Tile tile_ = {name, type, size, rank, {b0, b1, b2}, {x, y, z}, swizzle};         \
        run(&tile_, kernel<rank, x, y, z>, want);                                              \
    } while (0)

static void tma_cases(unsigned char *want)
{
    enum tensormap_swizzle plain = TENSORMAP_PLAIN, swizzled = TENSORMAP_SWIZZLE_128;
    TILE("tma_load_2d", PM_BF16, 2, 2, 32, 8, 1, 4, 2, 0, plain, tma_load_kernel, tile_load);
    TILE("tma_load_2d/swizzle", PM_BF16, 2, 2, 64, 16, 1, 0, 0, 0, swizzled, tma_load_kernel,
         tile_load);
    TILE("tma_load_2d/outside", PM_BF16, 2, 2, 64, 16, 1, -3, -2, 0, swizzled, tma_load_kernel,
         tile_load);
    TILE("tma_load_2d/f32", PM_F32, 4, 2, 8, 9, 1, 35, 5, 0, plain, tma_load_kernel, tile_load);
    TILE("tma_load_3d/u8", PM_U8, 1, 3, 32, 4, 2, 12, 9, 1, plain, tma_load_kernel, tile_load);
    TILE("tma_load_3d/swizzle", PM_F16, 2, 3, 64, 8, 3, 3, 5, 2, swizzled, tma_load_kernel,
         tile_load);
    TILE("tma_store_2d", PM_F32, 4, 2, 16, 4, 1, 30, 9, 0, plain, tma_store_kernel, tile_store);
    TILE("tma_store_2d/swizzle", PM_BF16, 2, 2, 64, 8, 1, -5, 2, 0, swizzled, tma_store_kernel,
         tile_store);
    TILE("tma_store_3d", PM_BF16, 2, 3, 16, 5, 2, 8, -1, 2, plain, tma_store_kernel,
         tile_store);
}

/* ---------------------------------------------------------- launches and registers */
__global__ void first_kernel(unsigned char *out)
{
#if GPU_SM90
    griddep_launch();
    out[threadIdx.x] = (unsigned char)threadIdx.x;
#else
    gpu_trap();
#endif
}

__global__ void __launch_bounds__(256, 1) second_kernel(unsigned char *out)
{
#if GPU_SM90A
    int t = threadIdx.x;
    griddep_wait();
    if (t < 128) {
        reg_dealloc<40>();
        out[256 + t] = (unsigned char)(out[t] + 1);
    } else {
        reg_alloc<232>();
        out[256 + t] = (unsigned char)(out[t] + 2);
    }
    fence_proxy_async_global();
#else
    gpu_trap();
#endif
}

static void dependent_case(unsigned char *want)
{
    unsigned char *out = (unsigned char *)conform_upload(NULL, 512), got[512];
    CHECK(GPU_LAUNCH(first_kernel, dim3(1), dim3(256), 0, conform_stream, out));
    CHECK(GPU_LAUNCH_PDL(second_kernel, dim3(1), dim3(256), 0, conform_stream, out));
    conform_download(got, out, 512);
    for (int i = 0; i < 512; i++)
        want[i] = (unsigned char)(i < 256 ? i : i % 256 + (i % 256 < 128 ? 1 : 2));
    conform_record("dependent_launch", got, want, 512, 0);
    conform_free(out);
}

void conform_data_90(const unsigned char *in, unsigned char *want)
{
    bytes = in;
    mbarrier_case(want);
    arrive_case(want);
    stmatrix_case(want);
    tma_cases(want);
    dependent_case(want);
}
