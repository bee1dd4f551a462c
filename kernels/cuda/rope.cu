/* rope.cu - rotary positions: the table of angles, and the rotation of heads in place.
 *
 * The angle is a float32 product, as in the reference; its cosine and sine are taken in double
 * and rounded once. The table is made once a step and serves all layers: 8 T n bytes written.
 *
 * A rotation moves 16 T H n bytes for T rows of H heads with n pairs each, and reads 8 T n of
 * the table, which the heads of a row share in cache. A thread rotates four pairs: half-split
 * pairs stand n values apart, interleaved ones side by side. Has not run on hardware. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/math.cuh"

struct table_args {
    float *cosine, *sine; /* [T, n] */
    const int32_t *position;
    const float *inv_freq;
    int n;
    float factor;
};

__global__ void __launch_bounds__(256) rope_table_kernel(struct table_args a)
{
    int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    int64_t at = (int64_t)blockIdx.x * a.n + i;
    double sine, cosine;
    if (i >= a.n) return;
    float angle = (float)a.position[blockIdx.x] * a.inv_freq[i];
    sincos((double)angle, &sine, &cosine);
    a.cosine[at] = (float)cosine * a.factor;
    a.sine[at] = (float)sine * a.factor;
}

pm_status cuda_rope_table(struct device *d, float *cosine, float *sine, const int32_t *position,
                          int n_row, const float *inv_freq, int n, float factor)
{
    struct table_args a = {cosine, sine, position, inv_freq, n, factor};
    void (*kernel)(struct table_args) = rope_table_kernel;
    if (n_row == 0 || n == 0) return PM_OK;
    return cuda_check(
        GPU_LAUNCH(kernel, row_grid(n_row, n), dim3(row_threads(n)), 0, d->stream, a),
        "rope_table");
}

struct rope_args {
    struct tensor x;
    const float *cosine, *sine; /* [T, n] */
    int n_head, offset, n;
    bool round; /* groups of four stand at round addresses, in x and in the table */
};

template <bool INTERLEAVED>
__global__ void __launch_bounds__(256) rope_kernel(struct rope_args a)
{
    int per_head = (a.n + 3) / 4;
    int64_t item = (int64_t)blockIdx.y * blockDim.x + threadIdx.x, row = blockIdx.x;
    int64_t head = item / per_head, at = item % per_head * 4;
    char *x = tensor_row(a.x, row) + (head * (a.x.cols / a.n_head) + a.offset) * 4;
    float c[4], s[4], first[4], second[4], pair[8];
    if (head >= a.n_head) return;
    load_values<4>(c, (const char *)(a.cosine + row * a.n), PM_F32, at, a.n, a.round);
    load_values<4>(s, (const char *)(a.sine + row * a.n), PM_F32, at, a.n, a.round);
    if (INTERLEAVED) {
        load_values<8>(pair, x, PM_F32, 2 * at, 2 * a.n, a.round);
    } else {
        load_values<4>(first, x, PM_F32, at, a.n, a.round);
        load_values<4>(second, x + (int64_t)a.n * 4, PM_F32, at, a.n, a.round);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float u = INTERLEAVED ? pair[2 * i] : first[i];
        float v = INTERLEAVED ? pair[2 * i + 1] : second[i];
        pair[2 * i] = first[i] = u * c[i] - v * s[i];
        pair[2 * i + 1] = second[i] = v * c[i] + u * s[i];
    }
    if (INTERLEAVED) {
        store_values<8>(x, pair, PM_F32, 2 * at, 2 * a.n, a.round);
    } else {
        store_values<4>(x, first, PM_F32, at, a.n, a.round);
        store_values<4>(x + (int64_t)a.n * 4, second, PM_F32, at, a.n, a.round);
    }
}

pm_status cuda_rope(struct device *d, struct tensor x, int n_head, int offset,
                    const float *cosine, const float *sine, int n, bool interleaved)
{
    void (*kernel)(struct rope_args) = interleaved ? rope_kernel<true> : rope_kernel<false>;
    int64_t n_item = (int64_t)n_head * ceil_div(n, 4);
    bool round = rows_are_round(x) && x.cols / n_head % 4 == 0 && offset % 4 == 0 &&
                 n % 4 == 0 && ((uintptr_t)cosine | (uintptr_t)sine) % 16 == 0;
    struct rope_args a = {x, cosine, sine, n_head, offset, n, round};
    if (x.type != PM_F32) {
        return fail(PM_ERR_BUG, "rope: found rows of %s, wanted F32", dtype_name(x.type));
    }
    if (x.rows == 0 || n == 0) return PM_OK;
    return cuda_check(GPU_LAUNCH(kernel, row_grid(x.rows, n_item), dim3(row_threads(n_item)), 0,
                                 d->stream, a),
                      "rope");
}
