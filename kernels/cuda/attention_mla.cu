/* attention_mla.cu - latent attention (MLA) in its absorbed form, arXiv 2405.04434 section 2.1.
 *
 *     a[h]   = (q_nope[h] W_uk[h], q_rope[h])         absorb: the query in latent space
 *     s[h]   = softmax(scale * a[h] . cache) latent    attention over one KV head
 *     out[h] = W_uv[h] s[h]                            project
 *
 * The two maps are one kernel, head_linear: float32 multiply-adds, k ascending, weights of any
 * type decoded on their way to shared memory. Rows go in slices that fit the scratch memory.
 *
 * Bytes: a step reads kv_b twice a slice. Flops: 2 H latent (nope + v_dim) a row.
 * Has not run on hardware yet. */
#include "kernels/cuda/attention.cuh"

enum {
    COLS = 64,     /* columns of a block */
    DEPTH = 32,    /* k of a step */
    THREADS = 128, /* 8 groups of rows by 16 of columns */
    GROUPS = 8
};

/* y[r, h y_head + n] = sum over k of x[r, h x_head + k] W[k, n], n < n_col, for every head h.
 * W[k, n] is row h w_head + k, column n of w; transposed: row h w_head + n, column k. Columns
 * n_col .. n_col + n_copy - 1 are copies of x[r, h x_head + depth ..]. Rows without a slot are
 * left alone. */
struct head_map {
    struct tensor w;
    int64_t w_row, w_head; /* row of W of head 0, rows from a head to the next */
    const float *x;
    int64_t x_stride, x_head;
    void *y;
    int64_t y_stride, y_head;
    bool y_narrow;
    int n_row, n_col, n_copy, depth;
    const int64_t *slot;    /* [n_row] */
    const int32_t *end_row; /* rows from *end_row - row0 belong to no sequence */
    int row0;
};

/* W[k0 .. k0 + DEPTH - 1, n0 .. n0 + COLS - 1] of a head to b [DEPTH, COLS + 4]. */
template <pm_dtype TYPE, bool TRANSPOSED>
GPU_DEV void stage_weights(const struct head_map &m, int64_t row0, int k0, int n0, float *b)
{
#pragma unroll 8
    for (int i = threadIdx.x; i < DEPTH * COLS; i += THREADS) {
        int k = TRANSPOSED ? i % DEPTH : i / COLS, n = TRANSPOSED ? i / DEPTH : i % COLS;
        float value = 0;
        if (k0 + k < m.depth && n0 + n < m.n_col) {
            int64_t row = row0 + (TRANSPOSED ? n0 + n : k0 + k);
            value = weight_at<TYPE>(weight_row_at(m.w, row), TRANSPOSED ? k0 + k : n0 + n);
        }
        b[k * (COLS + 4) + n] = value;
    }
}

template <bool TRANSPOSED>
GPU_DEV void stage_any(const struct head_map &m, int64_t row0, int k0, int n0, float *b)
{
    switch (m.w.type) {
    case PM_F32: stage_weights<PM_F32, TRANSPOSED>(m, row0, k0, n0, b); break;
    case PM_F16: stage_weights<PM_F16, TRANSPOSED>(m, row0, k0, n0, b); break;
    case PM_BF16: stage_weights<PM_BF16, TRANSPOSED>(m, row0, k0, n0, b); break;
    case PM_F8_E4M3: stage_weights<PM_F8_E4M3, TRANSPOSED>(m, row0, k0, n0, b); break;
    default: stage_weights<PM_MXFP4, TRANSPOSED>(m, row0, k0, n0, b); break;
    }
}

/* Grid: [parts of the columns, heads, parts of the rows]; a block has GROUPS * RM rows, a
 * thread RM rows by 4 columns. */
template <bool TRANSPOSED, int RM>
__global__ void __launch_bounds__(THREADS, 1)
    head_linear(const __grid_constant__ struct head_map m)
{
    GPU_DYN_SMEM(memory);
    unsigned char *at = memory;
    constexpr int ROWS = GROUPS * RM;
    float *a = smem_take<float>(at, ROWS * (DEPTH + 1));
    float *b = smem_take<float>(at, DEPTH * (COLS + 4));
    int n0 = (int)blockIdx.x * COLS, head = (int)blockIdx.y, r0 = (int)blockIdx.z * ROWS;
    int row = threadIdx.x / 16 * RM, col = threadIdx.x % 16 * 4;
    const float *x = m.x + head * m.x_head;
    float sum[RM][4] = {};
    for (int k0 = 0; n0 < m.n_col && k0 < m.depth; k0 += DEPTH) {
        stage_any<TRANSPOSED>(m, m.w_row + head * m.w_head, k0, n0, b);
        for (int i = threadIdx.x; i < ROWS * DEPTH; i += THREADS) {
            int r = i / DEPTH, k = i % DEPTH;
            bool some = r0 + r < m.n_row && k0 + k < m.depth;
            a[r * (DEPTH + 1) + k] = some ? x[(r0 + r) * m.x_stride + k0 + k] : 0;
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; k++) {
            float4 w = *(const float4 *)(b + k * (COLS + 4) + col);
#pragma unroll
            for (int i = 0; i < RM; i++) {
                float value = a[(row + i) * (DEPTH + 1) + k];
                sum[i][0] = fmaf(value, w.x, sum[i][0]);
                sum[i][1] = fmaf(value, w.y, sum[i][1]);
                sum[i][2] = fmaf(value, w.z, sum[i][2]);
                sum[i][3] = fmaf(value, w.w, sum[i][3]);
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < RM; i++) {
        int r = r0 + row + i;
        if (r >= m.n_row || m.row0 + r >= *m.end_row || m.slot[r] < 0) continue;
        for (int j = 0; j < 4; j++) {
            int n = n0 + col + j;
            int64_t to = r * m.y_stride + head * m.y_head + n;
            if (n >= m.n_col + m.n_copy) break;
            float value = n < m.n_col ? sum[i][j] : x[r * m.x_stride + m.depth + n - m.n_col];
            if (m.y_narrow) {
                ((uint16_t *)m.y)[to] = bf16_code(value);
            } else {
                ((float *)m.y)[to] = value;
            }
        }
    }
}

template <bool TRANSPOSED>
static pm_status launch_head_linear(struct device *d, const struct head_map &m, int n_head,
                                    const char *what)
{
    bool many = m.n_row > 2 * GROUPS;
    int rows = GROUPS * (many ? 8 : 2);
    dim3 grid((unsigned)((m.n_col + m.n_copy + COLS - 1) / COLS), (unsigned)n_head,
              (unsigned)((m.n_row + rows - 1) / rows));
    size_t bytes = GPU_SMEM_BYTES(float, (size_t)(rows * (DEPTH + 1))) +
                   GPU_SMEM_BYTES(float, (size_t)(DEPTH * (COLS + 4)));
    auto kernel = many ? head_linear<TRANSPOSED, 8> : head_linear<TRANSPOSED, 2>;
    return cuda_check(GPU_LAUNCH(kernel, grid, dim3(THREADS), bytes, d->stream, m), what);
}

/* Scratch of a slice: absorbed queries, latent sums, then what is left for partial results. */
struct slice {
    float *absorbed; /* [n, H * k_dim] */
    float *latent;   /* [n, H * latent] */
    float *part;
    size_t part_bytes;
    int row0, row1;
};

static size_t padded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static struct head_map map_of(const struct attention_mla *op, const struct slice *s)
{
    struct head_map m = {};
    m.w = op->kv_b;
    m.w_head = op->nope + op->v_dim;
    m.n_row = s->row1 - s->row0;
    m.slot = op->rows->slot + s->row0;
    m.end_row = op->rows->q_start + op->rows->n_seq;
    m.row0 = s->row0;
    return m;
}

static pm_status absorb(struct device *d, const struct attention_mla *op, const struct slice *s)
{
    struct head_map m = map_of(op, s);
    m.x_stride = op->q.stride / (int64_t)sizeof(float);
    m.x = (const float *)op->q.data + s->row0 * m.x_stride;
    m.x_head = op->nope + op->rope;
    m.y = s->absorbed;
    m.y_head = op->latent + op->rope;
    m.y_stride = op->n_head * m.y_head;
    m.n_col = op->latent;
    m.n_copy = op->rope;
    m.depth = op->nope;
    return launch_head_linear<false>(d, m, op->n_head, "attention_mla: queries");
}

static pm_status project(struct device *d, const struct attention_mla *op,
                         const struct slice *s)
{
    struct head_map m = map_of(op, s);
    m.w_row = op->nope;
    m.x = s->latent;
    m.x_head = op->latent;
    m.x_stride = (int64_t)op->n_head * op->latent;
    m.y = (char *)op->out.data + s->row0 * op->out.stride;
    m.y_narrow = op->out.type == PM_BF16;
    m.y_head = op->v_dim;
    m.y_stride = op->out.stride / (m.y_narrow ? 2 : 4);
    m.n_col = op->v_dim;
    m.depth = op->latent;
    return launch_head_linear<true>(d, m, op->n_head, "attention_mla: values");
}

static pm_status attend(struct device *d, const struct attention_mla *op, const struct slice *s)
{
    struct attend a = {};
    a.q = s->absorbed;
    a.q_stride = (int64_t)op->n_head * op->kv->k_dim;
    a.out = s->latent;
    a.out_stride = (int64_t)op->n_head * op->latent;
    a.k = a.v = op->kv->k;
    a.n_kv_head = 1;
    a.k_dim = a.v_stride = op->kv->k_dim;
    a.v_dim = op->latent;
    a.n_head = op->n_head;
    a.row0 = s->row0;
    a.row1 = s->row1;
    a.rows = *op->rows;
    a.scale = op->scale * LOG2_E;
    a.part = s->part;
    a.part_bytes = s->part_bytes;
    return cuda_attend(d, &a, op->kv->type);
}

extern "C" pm_status cuda_attention_mla(struct device *d, const struct attention_mla *op)
{
    size_t wide = (size_t)op->n_head * (size_t)op->kv->k_dim * sizeof(float);
    size_t narrow = (size_t)op->n_head * (size_t)op->latent * sizeof(float), left;
    int n_row = op->rows->n_row, step;
    unsigned char *memory;
    if (n_row == 0 || op->rows->n_seq == 0) return PM_OK;
    TRY(cuda_scratch(d, &memory, wide + narrow + 512, "attention_mla"));
    left = d->scratch_bytes - 512;
    step = (int)min_i64(n_row, (int64_t)(left / (wide + narrow)));
    left = d->scratch_bytes - padded((size_t)step * wide) - padded((size_t)step * narrow);
    for (int row = 0; row < n_row; row += step) {
        struct slice s = {};
        s.row0 = row;
        s.row1 = (int)min_i64(row + step, n_row);
        s.absorbed = (float *)memory;
        s.latent = (float *)(memory + padded((size_t)step * wide));
        s.part =
            (float *)(memory + padded((size_t)step * wide) + padded((size_t)step * narrow));
        s.part_bytes = left;
        TRY(absorb(d, op, &s));
        TRY(attend(d, op, &s));
        TRY(project(d, op, &s));
    }
    return PM_OK;
}
