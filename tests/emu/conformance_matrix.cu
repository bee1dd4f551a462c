/* conformance_matrix.cu - mma and wgmma: every shape, operand source and layout of ptx.cuh.
 *
 * The host lays the operands out in an image of shared memory, by the definition of the layout;
 * the kernel copies the image in, multiplies, and writes its accumulators as they lie in
 * registers. Small integers make the sums exact, whatever the order. */
#include <stdio.h>
#include <stdlib.h>

#include "conformance.h"

/* ------------------------------------------------------------------------- mma.m16n8k16 */
template <bool F16>
__global__ void mma_kernel(const uint32_t *__restrict__ a, const uint32_t *__restrict__ b,
                           float *out)
{
    int lane = threadIdx.x;
    uint32_t ra[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
    float d[4];
    for (int i = 0; i < 4; i++)
        d[i] = (float)(lane + i);
    if (F16)
        mma_f16_16816(d, ra, b[lane * 2], b[lane * 2 + 1]);
    else
        mma_bf16_16816(d, ra, b[lane * 2], b[lane * 2 + 1]);
    for (int i = 0; i < 4; i++)
        out[lane * 4 + i] = d[i];
}

/* Fills 16-bit fragments from matrices: a [16, 16] and b [16, 8] by the tables of ptx.cuh. */
static void mma_case(const char *name, bool f16, bool real)
{
    float a[16][16], b[16][8], got[128], want[128];
    uint16_t ua[16][16], ub[16][8];
    uint32_t ra[128], rb[64];
    int type = f16 ? CONFORM_F16 : CONFORM_BF16;
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            ua[i][k] =
                (uint16_t)(real ? conform_real(&a[i][k]) : conform_integer(type, &a[i][k]));
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++)
            ub[k][j] =
                (uint16_t)(real ? conform_real(&b[k][j]) : conform_integer(type, &b[k][j]));
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4 * 2;
        for (int r = 0; r < 4; r++) {
            const uint16_t *p = &ua[g + (r & 1) * 8][t + (r >> 1) * 8];
            ra[l * 4 + r] = p[0] | (uint32_t)p[1] << 16;
        }
        for (int r = 0; r < 2; r++)
            rb[l * 2 + r] = ub[t + r * 8][g] | (uint32_t)ub[t + r * 8 + 1][g] << 16;
        for (int r = 0; r < 4; r++) {
            double sum = l + r;
            for (int k = 0; k < 16; k++)
                sum += (double)a[g + (r >> 1) * 8][k] * b[k][t + (r & 1)];
            want[l * 4 + r] = (float)sum;
        }
    }
    uint32_t *da = (uint32_t *)conform_upload(ra, sizeof ra);
    uint32_t *db = (uint32_t *)conform_upload(rb, sizeof rb);
    float *out = (float *)conform_upload(NULL, sizeof got);
    if (f16)
        CHECK(
            GPU_LAUNCH((mma_kernel<true>), dim3(1), dim3(32), 0, conform_stream, da, db, out));
    else
        CHECK(
            GPU_LAUNCH((mma_kernel<false>), dim3(1), dim3(32), 0, conform_stream, da, db, out));
    conform_download(got, out, sizeof got);
    conform_record(name, got, want, sizeof got, real ? 1e-5f : 0);
    conform_free(da);
    conform_free(db);
    conform_free(out);
}

void conform_matrix_80()
{
    mma_case("mma_bf16_16816", false, false);
    mma_case("mma_f16_16816", true, false);
    mma_case("mma_bf16_16816/real", false, true);
}

/* --------------------------------------------------------------------------------- wgmma */
enum layout { K_SWIZZLE, K_PLAIN, MN_SWIZZLE, MN_PLAIN };
enum source { SS, RS };
enum { DEPTH = 128 }; /* bytes of k in the image: 64 values of 16 bits, 128 of 8 */

/* An operand in the image: its place, its descriptor's distances, bytes from one wgmma to the
 * next. */
struct Operand {
    uint32_t base, leading, stride, step;
    uint32_t swizzle;
};

struct Plan {
    Operand a, b;
    int n_step, keep; /* keep: the first wgmma adds to what the registers hold */
};

template <int N, int TYPE, int SOURCE, int TA, int TB>
__global__ void __launch_bounds__(128)
    wgmma_kernel(const uint4 *__restrict__ image, int n_image, Plan plan,
                 const uint32_t *__restrict__ regs, float *out)
{
#if GPU_SM90A
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem;
    uint4 *s = smem_take<uint4>(p, n_image);
    int tid = threadIdx.x;
    float d[N / 2];
    for (int i = 0; i < N / 2; i++)
        d[i] = (float)(tid % 7 + i);
    for (int i = tid; i < n_image; i += 128)
        s[i] = image[i];
    fence_proxy_async();
    __syncthreads();
    wgmma_hold(d);
    for (int k = 0; k < plan.n_step; k++) {
        uint32_t base = smem_u32(s);
        uint64_t da = wgmma_desc(base + plan.a.base + k * plan.a.step, plan.a.leading,
                                 plan.a.stride, plan.a.swizzle);
        uint64_t db = wgmma_desc(base + plan.b.base + k * plan.b.step, plan.b.leading,
                                 plan.b.stride, plan.b.swizzle);
        /* The short form must say the same. */
        if (plan.a.swizzle && !TA) da = wgmma_desc_k128(base + plan.a.base) + k * 2;
        int scale_d = k > 0 || plan.keep;
        uint32_t a[4];
        for (int r = 0; SOURCE == RS && r < 4; r++)
            a[r] = regs[(k * 128 + tid) * 4 + r];
        wgmma_fence();
        if constexpr (TYPE == CONFORM_E4M3)
            wgmma_e4m3(d, da, db, scale_d);
        else if constexpr (TYPE == CONFORM_F16 && SOURCE == RS)
            wgmma_f16<TB>(d, a, db, scale_d);
        else if constexpr (TYPE == CONFORM_F16)
            wgmma_f16<TA, TB>(d, da, db, scale_d);
        else if constexpr (SOURCE == RS)
            wgmma_bf16<TB>(d, a, db, scale_d);
        else
            wgmma_bf16<TA, TB>(d, da, db, scale_d);
        wgmma_commit();
        if (SOURCE == RS) wgmma_wait<0>(); /* a is written again */
    }
    wgmma_wait<0>();
    wgmma_hold(d);
    for (int i = 0; i < N / 2; i++)
        out[tid * (N / 2) + i] = d[i];
#else
    gpu_trap();
#endif
}

/* Byte of value (row, k) inside an operand of `size`-byte values, and the distances. */
static uint32_t place(int layout, int size, int row, int k)
{
    uint32_t r = (uint32_t)row, kb = (uint32_t)(k * size);
    uint32_t a;
    switch (layout) {
    case K_SWIZZLE: a = r * 128 + kb; return a ^ (a >> 7 & 7) << 4;
    case K_PLAIN: return r / 8 * (DEPTH * 8) + kb / 16 * 128 + r % 8 * 16 + kb % 16;
    case MN_SWIZZLE:
        a = r / 64 * 8192 + (uint32_t)k / 8 * 1024 + (uint32_t)k % 8 * 128 + r % 64 * 2;
        return a ^ (a >> 7 & 7) << 4;
    default: return r / 8 * 1024 + (uint32_t)k / 8 * 128 + (uint32_t)k % 8 * 16 + r % 8 * 2;
    }
}

static Operand operand(int layout, uint32_t base)
{
    switch (layout) {
    case K_SWIZZLE: return {base, 16, 1024, 32, 1};
    case K_PLAIN: return {base, 128, DEPTH * 8, 256, 0};
    case MN_SWIZZLE: return {base, 8192, 1024, 2048, 1};
    default: return {base, 128, 1024, 256, 0};
    }
}

typedef cudaError_t (*wgmma_launch)(const uint4 *, int, Plan, const uint32_t *, float *,
                                    size_t);
template <int N, int TYPE, int SOURCE, int TA, int TB>
static cudaError_t launch(const uint4 *image, int n_image, Plan plan, const uint32_t *regs,
                          float *out, size_t smem)
{
    return GPU_LAUNCH((wgmma_kernel<N, TYPE, SOURCE, TA, TB>), dim3(1), dim3(128), smem,
                      conform_stream, image, n_image, plan, regs, out);
}

struct Form {
    const char *name;
    wgmma_launch launch;
    int n, type, source, a_layout, b_layout;
    bool keep, real;
};

/* A of the registers of step k, thread t, as mma_bf16_16816 lays it out. */
static uint32_t fragment(const uint16_t *a, int n_k, int k, int t, int r)
{
    int row = t / 32 * 16 + t % 32 / 4 + (r & 1) * 8;
    const uint16_t *p = a + row * n_k + k * 16 + t % 4 * 2 + (r >> 1) * 8;
    return p[0] | (uint32_t)p[1] << 16;
}

static void wgmma_case(const Form *f)
{
    int size = f->type == CONFORM_E4M3 ? 1 : 2, n_k = DEPTH / size, n = f->n;
    size_t n_bytes = (size_t)(64 + (n + 63) / 64 * 64) * DEPTH, n_out = 64 * (size_t)n;
    float *a = (float *)malloc(64 * (size_t)n_k * 4),
          *b = (float *)malloc((size_t)(n * n_k) * 4);
    uint16_t *bits = (uint16_t *)malloc(64 * (size_t)n_k * 2);
    unsigned char *image = (unsigned char *)calloc(n_bytes, 1);
    float *got = (float *)malloc(n_out * 4), *want = (float *)malloc(n_out * 4);
    static uint32_t regs[4 * 128 * 4];
    for (int m = 0; m < 64 + n; m++)
        for (int k = 0; k < n_k; k++) {
            bool is_a = m < 64;
            float *value = is_a ? &a[m * n_k + k] : &b[(m - 64) * n_k + k];
            uint32_t v = f->real ? conform_real(value) : conform_integer(f->type, value);
            unsigned char *at = is_a ? image + place(f->a_layout, size, m, k)
                                     : image + 64 * DEPTH + place(f->b_layout, size, m - 64, k);
            memcpy(at, &v, (size_t)size);
            if (is_a) bits[m * n_k + k] = (uint16_t)v;
        }
    if (f->source == RS)
        for (int i = 0; i < 4 * 128 * 4; i++)
            regs[i] = fragment(bits, n_k, i / 512, i / 4 % 128, i % 4);
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < n / 2; i++) {
            int row = t / 32 * 16 + t % 32 / 4 + (i / 2 & 1) * 8;
            int col = i / 4 * 8 + t % 4 * 2 + (i & 1);
            double sum = f->keep ? t % 7 + i : 0;
            for (int k = 0; k < n_k; k++)
                sum += (double)a[row * n_k + k] * b[col * n_k + k];
            want[t * (n / 2) + i] = (float)sum;
        }
    Plan plan = {operand(f->a_layout, 0), operand(f->b_layout, 64 * DEPTH), 4, f->keep};
    uint4 *d_image = (uint4 *)conform_upload(image, n_bytes);
    uint32_t *d_regs = (uint32_t *)conform_upload(regs, sizeof regs);
    float *out = (float *)conform_upload(NULL, n_out * 4);
    CHECK(f->launch(d_image, (int)(n_bytes / 16), plan, d_regs, out,
                    GPU_SMEM_BYTES(uint4, n_bytes / 16)));
    conform_download(got, out, n_out * 4);
    conform_record(f->name, got, want, n_out * 4, f->real ? 1e-5f : 0);
    conform_free(d_image);
    conform_free(d_regs);
    conform_free(out);
    free(a);
    free(b);
    free(bits);
    free(image);
    free(got);
    free(want);
}

#define FORM(n, type, source, ta, tb, a, b, keep, real)                                        \
    {                                                                                          \
        "wgmma/" #type "/n" #n "/" #source "/" #a "/" #b "/keep" #keep "/real" #real,          \
            launch<n, CONFORM_##type, source, ta, tb>, n, CONFORM_##type, source, a, b, keep,  \
            real                                                                               \
    }
#define K_FORM(n) FORM(n, BF16, SS, 0, 0, K_SWIZZLE, K_SWIZZLE, 1, 0)

static const Form forms[] = {
    K_FORM(8),
    K_FORM(16),
    K_FORM(24),
    K_FORM(32),
    K_FORM(48),
    K_FORM(64),
    K_FORM(96),
    K_FORM(128),
    K_FORM(160),
    K_FORM(192),
    K_FORM(256),
    FORM(64, BF16, SS, 0, 0, K_SWIZZLE, K_SWIZZLE, 0, 0),
    FORM(64, BF16, SS, 0, 0, K_SWIZZLE, K_SWIZZLE, 1, 1),
    FORM(64, BF16, SS, 0, 0, K_PLAIN, K_PLAIN, 1, 0),
    FORM(24, BF16, SS, 0, 0, K_PLAIN, K_SWIZZLE, 1, 0),
    FORM(64, BF16, SS, 0, 1, K_SWIZZLE, MN_SWIZZLE, 1, 0),
    FORM(128, BF16, SS, 0, 1, K_SWIZZLE, MN_SWIZZLE, 1, 0),
    FORM(32, BF16, SS, 0, 1, K_SWIZZLE, MN_PLAIN, 1, 0),
    FORM(64, BF16, SS, 1, 1, MN_SWIZZLE, MN_SWIZZLE, 1, 0),
    FORM(16, BF16, SS, 1, 0, MN_PLAIN, K_SWIZZLE, 1, 0),
    FORM(64, F16, SS, 0, 0, K_SWIZZLE, K_SWIZZLE, 1, 0),
    FORM(64, F16, SS, 0, 1, K_SWIZZLE, MN_SWIZZLE, 1, 0),
    FORM(64, BF16, RS, 0, 0, K_SWIZZLE, K_SWIZZLE, 1, 0),
    FORM(64, BF16, RS, 0, 1, K_SWIZZLE, MN_SWIZZLE, 0, 0),
    FORM(32, F16, RS, 0, 0, K_SWIZZLE, K_SWIZZLE, 1, 0),
    FORM(16, E4M3, SS, 0, 0, K_SWIZZLE, K_SWIZZLE, 1, 0),
    FORM(64, E4M3, SS, 0, 0, K_SWIZZLE, K_SWIZZLE, 0, 0),
    FORM(32, E4M3, SS, 0, 0, K_PLAIN, K_PLAIN, 1, 0),
};

void conform_matrix_90()
{
    for (const Form &f : forms)
        wgmma_case(&f);
}
