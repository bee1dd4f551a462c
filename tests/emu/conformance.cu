/* conformance.cu - calls every function of kernels/cuda/ptx.cuh on fixed input.
 *
 *   conformance check          against what the definition says, computed on the host
 *   conformance dump FILE      writes the raw results
 *   conformance compare FILE   against a dump, of a GPU for instance
 *
 * The same source runs on the emulator and, built by nvcc, on a GPU. A dump is "PMCONF1\n",
 * then for each result a line "name bytes tolerance\n" and the bytes. Results of sm_90 are left
 * out on older devices, and compare skips what the dump lacks. */
#include "conformance.h"

#include <stdio.h>
#include <stdlib.h>

cudaStream_t conform_stream;

/* --------------------------------------------------------------------------- helpers */
static enum { MODE_CHECK, MODE_DUMP, MODE_COMPARE } mode;
static FILE *file;
static int n_record, n_bad;

void conform_check(cudaError_t error, const char *call, int line)
{
    if (error == cudaSuccess) return;
    fprintf(stderr, "conformance: line %d: %s: %s\n", line, call, cudaGetErrorString(error));
    exit(2);
}

static uint32_t state = 1;

uint32_t conform_random()
{
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

uint32_t conform_integer(int type, float *value)
{
    /* 0 .. 4 in e4m3 and f16; bf16 is the upper half of a float */
    static const uint8_t e4m3[] = {0, 0x38, 0x40, 0x44, 0x48};
    static const uint16_t f16[] = {0, 0x3c00, 0x4000, 0x4200, 0x4400};
    int v = (int)(conform_random() % 9) - 4, size = v < 0 ? -v : v;
    *value = (float)v;
    if (type == CONFORM_E4M3) return e4m3[size] | (v < 0 ? 0x80u : 0u);
    if (type == CONFORM_F16) return f16[size] | (v < 0 ? 0x8000u : 0u);
    return float_bits((float)v) >> 16;
}

uint32_t conform_real(float *value)
{
    uint32_t bits = float_bits((float)(int)(conform_random() % 2001) / 1000.0f - 1.0f) >> 16;
    uint32_t wide = bits << 16;
    memcpy(value, &wide, 4);
    return bits;
}

void *conform_upload(const void *from, size_t n)
{
    void *p;
    CHECK(cudaMalloc(&p, n));
    if (from)
        CHECK(cudaMemcpyAsync(p, from, n, cudaMemcpyHostToDevice, conform_stream));
    else
        CHECK(cudaMemsetAsync(p, 0xee, n, conform_stream));
    CHECK(cudaStreamSynchronize(conform_stream));
    return p;
}

void conform_download(void *to, const void *device, size_t n)
{
    CHECK(cudaMemcpyAsync(to, device, n, cudaMemcpyDeviceToHost, conform_stream));
    CHECK(cudaStreamSynchronize(conform_stream));
}

void conform_free(void *device)
{
    CHECK(cudaFree(device));
}

static void compare(const char *name, const void *got, const void *want, size_t n,
                    float tolerance)
{
    if (tolerance == 0) {
        const unsigned char *a = (const unsigned char *)got, *b = (const unsigned char *)want;
        for (size_t i = 0; i < n; i++)
            if (a[i] != b[i]) {
                printf("FAIL %s: byte %zu of %zu is 0x%02x, wanted 0x%02x\n", name, i, n, a[i],
                       b[i]);
                n_bad++;
                return;
            }
        return;
    }
    const float *a = (const float *)got, *b = (const float *)want;
    for (size_t i = 0; i < n / 4; i++) {
        float error = fabsf(a[i] - b[i]);
        if (error <= tolerance * (1 + fabsf(b[i]))) continue;
        printf("FAIL %s: value %zu is %g, wanted %g\n", name, i, (double)a[i], (double)b[i]);
        n_bad++;
        return;
    }
}

/* The next result of the dump; the file is read in order. */
static bool dump_read(const char *name, void *out, size_t n)
{
    char found[128];
    size_t bytes;
    float tolerance;
    long at = ftell(file);
    if (fscanf(file, "%127s %zu %g", found, &bytes, &tolerance) != 3 || getc(file) != '\n')
        return false;
    if (strcmp(found, name)) {
        fseek(file, at, SEEK_SET);
        return false;
    }
    return bytes == n && fread(out, 1, n, file) == n;
}

void conform_record(const char *name, const void *got, const void *want, size_t n,
                    float tolerance)
{
    n_record++;
    if (mode == MODE_CHECK) {
        compare(name, got, want, n, tolerance);
    } else if (mode == MODE_DUMP) {
        fprintf(file, "%s %zu %g\n", name, n, (double)tolerance);
        fwrite(got, 1, n, file);
    } else {
        void *other = malloc(n);
        if (dump_read(name, other, n)) {
            compare(name, got, other, n, tolerance);
        } else {
            printf("FAIL %s: the dump has something else here\n", name);
            n_bad++;
        }
        free(other);
    }
}

/* One launch on an input of n_in bytes and an output of n_out, then the record. */
template <class... P, class... A>
static void run(const char *name, void (*kernel)(const unsigned char *, unsigned char *, P...),
                int blocks, int threads, size_t smem, const void *in, size_t n_in,
                const void *want, size_t n_out, A... args)
{
    unsigned char *d_in = (unsigned char *)conform_upload(in, n_in);
    unsigned char *d_out = (unsigned char *)conform_upload(NULL, n_out);
    unsigned char *got = (unsigned char *)malloc(n_out);
    CHECK(GPU_LAUNCH(kernel, dim3(blocks), dim3(threads), smem, conform_stream, d_in, d_out,
                     args...));
    conform_download(got, d_out, n_out);
    conform_record(name, got, want, n_out, 0);
    free(got);
    conform_free(d_in);
    conform_free(d_out);
}

static unsigned char bytes[65536], want[65536];

/* ------------------------------------------------------------------ sm_80: movement */
__global__ void cp_async_kernel(const unsigned char *in, unsigned char *out)
{
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem, *s = smem_take<unsigned char>(p, 32 * 28);
    int t = threadIdx.x;
    cp_async4(s + t * 4, in + t * 4, t % 3 != 0);
    cp_async_commit();
    cp_async8(s + 128 + t * 8, in + 128 + t * 8, t % 5 != 0);
    cp_async_commit();
    cp_async16(s + 384 + t * 16, in + 384 + t * 16, t % 7 != 0);
    cp_async_commit();
    cp_async_wait<1>();
    cp_async_wait<0>();
    __syncthreads();
    for (int i = t; i < 32 * 28; i += 32)
        out[i] = s[i];
}

static void cp_async_case()
{
    for (int t = 0; t < 32; t++) {
        memcpy(want + t * 4, bytes + t * 4, 4);
        memcpy(want + 128 + t * 8, bytes + 128 + t * 8, 8);
        memcpy(want + 384 + t * 16, bytes + 384 + t * 16, 16);
        if (t % 3 == 0) memset(want + t * 4, 0, 4);
        if (t % 5 == 0) memset(want + 128 + t * 8, 0, 8);
        if (t % 7 == 0) memset(want + 384 + t * 16, 0, 16);
    }
    run("cp_async", cp_async_kernel, 1, 32, GPU_SMEM_BYTES(unsigned char, 32 * 28), bytes, 1024,
        want, 32 * 28);
}

/* 4 matrices of 8 rows in shared memory, rows 32 bytes apart; lane l names row l. */
__global__ void ldmatrix_kernel(const unsigned char *in, unsigned char *out)
{
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem, *s = smem_take<unsigned char>(p, 1024);
    int t = threadIdx.x;
    for (int i = t; i < 1024; i += 32)
        s[i] = in[i];
    __syncthreads();
    uint32_t r1[1], r2[2], r4[4], *o = (uint32_t *)out + t * 14;
    ldmatrix_x1(r1, s + t * 32);
    o[0] = r1[0];
    ldmatrix_x1_trans(r1, s + t * 32);
    o[1] = r1[0];
    ldmatrix_x2(r2, s + t * 32);
    o[2] = r2[0], o[3] = r2[1];
    ldmatrix_x2_trans(r2, s + t * 32);
    o[4] = r2[0], o[5] = r2[1];
    ldmatrix_x4(r4, s + t * 32);
    for (int i = 0; i < 4; i++)
        o[6 + i] = r4[i];
    ldmatrix_x4_trans(r4, s + t * 32);
    for (int i = 0; i < 4; i++)
        o[10 + i] = r4[i];
}

static uint16_t matrix_value(int matrix, int row, int col)
{
    uint16_t v;
    memcpy(&v, bytes + (matrix * 8 + row) * 32 + col * 2, 2);
    return v;
}

static void ldmatrix_case()
{
    uint32_t *o = (uint32_t *)want;
    for (int t = 0; t < 32; t++)
        for (int trans = 0; trans < 2; trans++)
            for (int i = 0; i < 4; i++) {
                uint32_t v = 0;
                for (int h = 0; h < 2; h++)
                    v |= (uint32_t)(trans ? matrix_value(i, t % 4 * 2 + h, t / 4)
                                          : matrix_value(i, t / 4, t % 4 * 2 + h))
                         << 16 * h;
                if (i < 1) o[t * 14 + trans] = v;
                if (i < 2) o[t * 14 + 2 + trans * 2 + i] = v;
                o[t * 14 + 6 + trans * 4 + i] = v;
            }
    run("ldmatrix", ldmatrix_kernel, 1, 32, GPU_SMEM_BYTES(unsigned char, 1024), bytes, 1024,
        want, 32 * 14 * 4);
}

__global__ void shuffle_kernel(const unsigned char *in, unsigned char *out)
{
    int t = threadIdx.x, *o = (int *)out + t * 16, v = in[t];
    unsigned all = 0xffffffffu;
    o[0] = __shfl_sync(all, v, 5);
    o[1] = __shfl_sync(all, v, t + 3, 8);
    o[2] = __shfl_up_sync(all, v, 3);
    o[3] = __shfl_up_sync(all, v, 2, 8);
    o[4] = __shfl_down_sync(all, v, 7);
    o[5] = __shfl_down_sync(all, v, 1, 4);
    o[6] = __shfl_xor_sync(all, v, 9);
    o[7] = __shfl_xor_sync(all, v, 2, 16);
    o[8] = (int)__ballot_sync(all, v & 1);
    o[9] = (int)__match_any_sync(all, v & 3);
    o[10] = __reduce_add_sync(all, v);
    o[11] = __reduce_min_sync(all, v);
    o[12] = __reduce_max_sync(all, v);
    o[13] = __any_sync(all, v == in[4]) + 2 * __all_sync(all, v == in[4]);
    o[14] = __syncthreads_count(v & 1);
    o[15] = 0;
    if (t % 2) o[15] = __shfl_sync(0xaaaaaaaau, v, t / 4 * 4 + 1);
}

static void shuffle_case()
{
    int sum = 0, low = 255, high = 0, odd = 0;
    unsigned ballot = 0, any = 0;
    for (int t = 0; t < 32; t++) {
        int v = bytes[t];
        sum += v;
        low = v < low ? v : low;
        high = v > high ? v : high;
        odd += v & 1;
        ballot |= (unsigned)(v & 1) << t;
        any |= (unsigned)(v == bytes[4]) << t;
    }
    for (int t = 0; t < 32; t++) {
        int *o = (int *)want + t * 16, v = bytes[t];
        unsigned match = 0;
        for (int k = 0; k < 32; k++)
            match |= (unsigned)((bytes[k] & 3) == (v & 3)) << k;
        int all[16] = {bytes[5],
                       bytes[t / 8 * 8 + (t + 3) % 8],
                       t < 3 ? v : bytes[t - 3],
                       t % 8 < 2 ? v : bytes[t - 2],
                       t + 7 > 31 ? v : bytes[t + 7],
                       t % 4 == 3 ? v : bytes[t + 1],
                       bytes[t ^ 9],
                       bytes[t ^ 2],
                       (int)ballot,
                       (int)match,
                       sum,
                       low,
                       high,
                       (any != 0) + 2 * (any == 0xffffffffu),
                       odd,
                       t % 2 ? bytes[t / 4 * 4 + 1] : 0};
        memcpy(o, all, sizeof all);
    }
    run("shuffle", shuffle_kernel, 1, 32, 0, bytes, 32, want, 32 * 64);
}

/* Warps 0 and 1 fill a buffer that warps 2 and 3 empty, in turns, over barriers 1 and 2. */
__global__ void named_barrier_kernel(const unsigned char *in, unsigned char *out)
{
    GPU_DYN_SMEM(smem);
    unsigned char *p = smem, *s = smem_take<unsigned char>(p, 64);
    int t = threadIdx.x;
    for (int turn = 0; turn < 8; turn++) {
        if (t < 64) {
            if (turn > 0) named_barrier(2, 128); /* empty */
            s[t] = in[turn * 64 + t];
            named_barrier_arrive(1, 128); /* full */
        } else {
            named_barrier(1, 128);
            out[turn * 64 + t - 64] = s[127 - t];
            if (turn < 7) named_barrier_arrive(2, 128);
        }
    }
}

static void named_barrier_case()
{
    for (int i = 0; i < 512; i++)
        want[i] = bytes[i / 64 * 64 + 63 - i % 64];
    run("named_barrier", named_barrier_kernel, 1, 128, GPU_SMEM_BYTES(unsigned char, 64), bytes,
        512, want, 512);
}

/* All blocks write, meet at a barrier of the grid (word[0 .. 1], zero at first), and read what
 * the next block wrote; twice. */
__global__ void grid_barrier_kernel(const unsigned char *in, unsigned char *out, uint32_t *word)
{
    int t = threadIdx.x, b = blockIdx.x, n = gridDim.x;
    for (int turn = 0; turn < 2; turn++) {
        st_global_cs(out + ((turn * n + b) * 64 + t) * 16,
                     ld_global_nc(in + ((turn * n + b) * 64 + t) * 16));
        prefetch_l2(in);
        __syncthreads();
        if (t == 0) {
            uint32_t goal = (uint32_t)(turn + 1);
            if (atomic_add_acq_rel(word, 1) == goal * n - 1) st_release(word + 1, goal);
            while (ld_relaxed(word + 1) < goal)
                gpu_pause();
            ld_acquire(word + 1);
        }
        __syncthreads();
        int next = (b + 1) % n;
        out[2 * n * 1024 + (turn * n + b) * 64 + t] =
            out[((turn * n + next) * 64 + t) * 16 + turn];
    }
}

static void grid_barrier_case()
{
    enum { BLOCKS = 4 };
    memcpy(want, bytes, 2 * BLOCKS * 1024);
    for (int turn = 0; turn < 2; turn++)
        for (int b = 0; b < BLOCKS; b++)
            for (int t = 0; t < 64; t++)
                want[2 * BLOCKS * 1024 + (turn * BLOCKS + b) * 64 + t] =
                    bytes[((turn * BLOCKS + (b + 1) % BLOCKS) * 64 + t) * 16 + turn];
    static const uint32_t zero[2] = {0, 0};
    uint32_t *word = (uint32_t *)conform_upload(zero, sizeof zero);
    run("grid_barrier", grid_barrier_kernel, BLOCKS, 64, 0, bytes, 2 * BLOCKS * 1024, want,
        2 * BLOCKS * 1024 + 2 * BLOCKS * 64, word);
    conform_free(word);
}

int main(int argc, char **argv)
{
    int major = 0;
    if (argc == 2 && !strcmp(argv[1], "check")) {
        mode = MODE_CHECK;
    } else if (argc == 3 && !strcmp(argv[1], "dump")) {
        mode = MODE_DUMP;
        file = fopen(argv[2], "wb");
    } else if (argc == 3 && !strcmp(argv[1], "compare")) {
        mode = MODE_COMPARE;
        file = fopen(argv[2], "rb");
    } else {
        fprintf(stderr, "usage: conformance check | dump FILE | compare FILE\n");
        return 2;
    }
    char magic[9] = "";
    if (mode == MODE_DUMP && file) fputs("PMCONF1\n", file);
    if (mode != MODE_CHECK &&
        (!file ||
         (mode == MODE_COMPARE && (!fgets(magic, 9, file) || strcmp(magic, "PMCONF1\n"))))) {
        fprintf(stderr, "conformance: %s: not a dump that can be used\n", argv[2]);
        return 2;
    }
    CHECK(cudaSetDevice(0));
    CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    CHECK(cudaStreamCreateWithFlags(&conform_stream, cudaStreamNonBlocking));
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(conform_random() >> 8);
    cp_async_case();
    ldmatrix_case();
    shuffle_case();
    named_barrier_case();
    grid_barrier_case();
    conform_matrix_80();
    if (major == 9) {
        conform_data_90(bytes, want);
        conform_matrix_90();
    }
    CHECK(cudaStreamDestroy(conform_stream));
    if (file && fclose(file)) n_bad++;
    printf("conformance: %d results, %d wrong\n", n_record, n_bad);
    return n_bad != 0;
}
