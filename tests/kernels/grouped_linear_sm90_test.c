/* grouped_linear_sm90_test.c - the wgmma kernel against the oracle, for every tile of rows, and
 * its promise: the bits of a row of y depend on its row of x and on the weights alone.
 *
 * Runs on a GPU of compute capability 9.0 or on the emulator; skipped elsewhere, and where CUDA
 * is not built. Buffers are exact to the byte where a sanitizer watches, and what must not be
 * read is NaN. */
#if defined(TEST_CUDA)
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/linear.h"
#include "tests/oracle/oracle.h"

#include <cmocka.h>
#undef fail

enum { MAX_BUFFER = 16, NAN_BF16 = 0x7fc1, SKIPPED = 77 };

static struct device device;

/* A number generator of its own for every test. */
static uint64_t state;

static uint32_t below(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

static float normal(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)below(1 << 16) / (1 << 16);
    return sum - 6;
}

/* Memory of both sides, released after the test. */
static struct {
    void *host[MAX_BUFFER], *device[MAX_BUFFER];
    int n;
} memory;

struct both {
    void *host, *device;
    size_t bytes;
};

/* cmocka's fail_msg calls our fail(). */
#define stop(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

static void expect_cuda(cudaError_t error)
{
    if (error != cudaSuccess) stop("%s", cudaGetErrorString(error));
}

static struct both both(size_t bytes)
{
    struct both b = {malloc(bytes ? bytes : 1), NULL, bytes};
    assert_true(memory.n < MAX_BUFFER && b.host);
    expect_cuda(cudaMalloc(&b.device, bytes ? bytes : 1));
    memory.host[memory.n] = b.host;
    memory.device[memory.n++] = b.device;
    return b;
}

static void up(struct both b)
{
    expect_cuda(
        cudaMemcpyAsync(b.device, b.host, b.bytes, cudaMemcpyHostToDevice, device.stream));
}

static void down(struct both b)
{
    expect_cuda(
        cudaMemcpyAsync(b.host, b.device, b.bytes, cudaMemcpyDeviceToHost, device.stream));
    expect_cuda(cudaStreamSynchronize(device.stream));
}

static int begin(void **unused)
{
    (void)unused;
    state = 1;
    memory.n = 0;
    return 0;
}

static int end(void **unused)
{
    (void)unused;
    for (int i = 0; i < memory.n; i++) {
        free(memory.host[i]);
        cudaFree(memory.device[i]);
    }
    return 0;
}

/* What varies from case to case. */
struct shape {
    int n_expert, n, k;
    int rows; /* of y: spread at random, some experts none; n_expert 1 without offsets */
    enum glu_kind glu;
    pm_dtype bias; /* of w; w_up has another type. PM_MXFP4: no bias */
    pm_dtype y;
    bool source; /* rows of x are gathered */
    bool odd_y;  /* rows of y at addresses that are multiples of their type only */
    bool flip;   /* experts stand in falling order */
};

/* An operation in memory of both sides. */
struct problem {
    struct shape s;
    struct both w, b, b_up, x, y, offset, source;
    struct linear_params p;
    int64_t w_stride, x_rows;
};

static void put(void *at, pm_dtype type, int64_t i, float v)
{
    if (type == PM_F32)
        ((float *)at)[i] = v;
    else if (type == PM_F16)
        ((uint16_t *)at)[i] = (uint16_t)number_encode(&number_f16, v);
    else
        ((uint16_t *)at)[i] = (uint16_t)number_encode(&number_bf16, v);
}

/* rows x cols normal values with `gap` NaN behind each row. */
static struct both matrix(int64_t rows, int64_t cols, int64_t gap)
{
    struct both b = both((size_t)(rows * (cols + gap)) * 2);
    uint16_t *v = b.host;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols + gap; c++)
            v[r * (cols + gap) + c] =
                c < cols ? (uint16_t)number_encode(&number_bf16, normal()) : NAN_BF16;
    }
    up(b);
    return b;
}

static struct both vector(pm_dtype type, int64_t n)
{
    struct both b = both((size_t)n * (type == PM_F32 ? 4 : 2));
    for (int64_t i = 0; i < n; i++)
        put(b.host, type, i, normal());
    up(b);
    return b;
}

static void make_rows(struct problem *o)
{
    struct shape *s = &o->s;
    o->offset = both(sizeof(int32_t) * ((size_t)s->n_expert + 1));
    o->source = both(sizeof(int32_t) * (size_t)s->rows);
    int32_t *offset = o->offset.host, *source = o->source.host, *count;
    count = calloc((size_t)s->n_expert + 1, sizeof *count);
    assert_non_null(count);
    for (int i = 0; i < s->rows; i++)
        count[below(2) ? below((uint32_t)s->n_expert) : below((uint32_t)s->n_expert) / 3]++;
    offset[0] = 0;
    for (int e = 0; e < s->n_expert; e++)
        offset[e + 1] = offset[e] + count[e];
    free(count);
    for (int i = 0; i < s->rows; i++)
        source[i] = (int32_t)below((uint32_t)o->x_rows);
    up(o->offset);
    up(o->source);
}

static struct linear_stack stack(const struct both *b, pm_dtype type, int64_t stride,
                                 int64_t distance, int first)
{
    struct linear_stack t = {.type = type, .stride = stride, .expert_stride = distance};
    if (b->device) t.data = (const char *)b->device + first * llabs(distance);
    return t;
}

/* w and w_up of an expert stand one behind the other, as in files that fuse them. */
static void make(struct problem *o, struct shape s)
{
    bool gated = s.glu != GLU_NONE, biased = s.bias != PM_MXFP4;
    int64_t gap = below(2) * 8, distance, y_cols = s.odd_y ? s.n + 3 : (s.n + 15) / 8 * 8;
    pm_dtype bias_up = s.bias == PM_F32 ? PM_BF16 : s.bias == PM_BF16 ? PM_F16 : PM_F32;
    int first = s.flip ? s.n_expert - 1 : 0, sign = s.flip ? -1 : 1;
    memset(o, 0, sizeof *o);
    o->s = s;
    o->x_rows = s.source ? s.rows / 2 + 1 : s.rows;
    o->w_stride = (s.k + gap) * 2;
    distance = o->w_stride * s.n * (gated ? 2 : 1);
    o->w = matrix((int64_t)s.n_expert * s.n * (gated ? 2 : 1), s.k, gap);
    o->x = matrix(o->x_rows, s.k, 8);
    if (biased) o->b = vector(s.bias, (int64_t)s.n_expert * s.n);
    if (biased && gated) o->b_up = vector(bias_up, (int64_t)s.n_expert * s.n);
    o->y = both((size_t)(s.rows * y_cols) * (s.y == PM_F32 ? 4 : 2));
    make_rows(o);
    o->p = (struct linear_params){
        .w = stack(&o->w, PM_BF16, o->w_stride, sign * distance, first),
        .b = stack(&o->b, s.bias, 0, sign * s.n * (s.bias == PM_F32 ? 4 : 2), first),
        .b_up = stack(&o->b_up, bias_up, 0, sign * s.n * (bias_up == PM_F32 ? 4 : 2), first),
        .glu = {s.glu, 1.7f, 0.9f},
        .x = o->x.device,
        .x_type = PM_BF16,
        .x_stride = (s.k + 8) * 2,
        .x_rows = o->x_rows,
        .y = o->y.device,
        .y_type = s.y,
        .y_stride = y_cols * (s.y == PM_F32 ? 4 : 2),
        .n = s.n,
        .k = s.k,
        .n_expert = s.n_expert,
        .max_row = s.rows + (s.n_expert > 1 ? 5 : 0),
        .offset = s.n_expert > 1 ? o->offset.device : NULL,
        .source = s.source ? o->source.device : NULL};
    if (gated) {
        o->p.w_up = o->p.w;
        o->p.w_up.data += o->w_stride * s.n;
    }
}

/* Computes y with tiles of row_tile rows; y is all marks before. */
static void compute(struct problem *o, int row_tile)
{
    struct linear_plan plan = {.kernel = LINEAR_SM90, .weight_tile = 128, .row_tile = row_tile};
    memset(o->y.host, 0xee, o->y.bytes);
    up(o->y);
    if (cuda_grouped_linear_sm90(&device, &o->p, &plan) != PM_OK) stop("%s", pm_last_error());
    down(o->y);
}

/* Expert e of a stack, as the oracle sees it. */
static struct tensor host_view(const struct both *b, const struct linear_stack *t, int e,
                               int64_t rows, int64_t cols)
{
    struct tensor v = {.type = t->type, .rows = rows, .cols = cols, .stride = t->stride};
    if (t->data)
        v.data = (char *)b->host + (t->data + e * t->expert_stride - (char *)b->device);
    return v;
}

/* What y must be: want and bound, [rows, n] each. */
static void want_of(const struct problem *o, double *want, double *bound)
{
    const struct shape *s = &o->s;
    struct tensor *t = calloc((size_t)s->n_expert * 4, sizeof *t);
    struct tensor *up = t + s->n_expert, *b = up + s->n_expert, *b_up = b + s->n_expert;
    struct ragged rows = {s->n_expert, s->rows, o->offset.host,
                          s->source ? o->source.host : NULL};
    struct linear op = {.w = t, .b = b, .glu = o->p.glu};
    int32_t all[2] = {0, s->rows};
    assert_non_null(t);
    for (int e = 0; e < s->n_expert; e++) {
        t[e] = host_view(&o->w, &o->p.w, e, s->n, s->k);
        b[e] = host_view(&o->b, &o->p.b, e, 1, s->n);
        up[e] = host_view(&o->w, &o->p.w_up, e, s->n, s->k);
        b_up[e] = host_view(&o->b_up, &o->p.b_up, e, 1, s->n);
    }
    if (s->glu != GLU_NONE) op.w_up = up, op.b_up = b_up;
    if (s->n_expert == 1) rows.offset = all;
    op.x = (struct tensor){.data = o->x.host,
                           .type = PM_BF16,
                           .rows = o->x_rows,
                           .cols = s->k,
                           .stride = o->p.x_stride};
    op.rows = &rows;
    oracle_linear(want, bound, &op, 0);
    free(t);
}

static double got_at(const struct problem *o, int64_t row, int64_t col)
{
    struct tensor y = {.data = o->y.host, .type = o->s.y, .stride = o->p.y_stride};
    return oracle_value(&y, row, col);
}

/* y is within bound of want, and no byte beside its values changed. */
static void expect_right(const struct problem *o, const double *want, const double *bound,
                         const char *what)
{
    int size = o->s.y == PM_F32 ? 4 : 2;
    for (int64_t r = 0; r < o->s.rows; r++) {
        const unsigned char *row = (const unsigned char *)o->y.host + r * o->p.y_stride;
        for (int64_t c = 0; c < o->s.n; c++) {
            double w = want[r * o->s.n + c], slack = bound[r * o->s.n + c],
                   got = got_at(o, r, c);
            if (o->s.y == PM_BF16) slack += fabs(w) * 0x1p-8;
            if (!(fabs(got - w) <= slack))
                stop("%s: y[%d, %d] is %g, wanted %g +- %g", what, (int)r, (int)c, got, w,
                     slack);
        }
        for (int64_t i = (int64_t)o->s.n * size; i < o->p.y_stride; i++)
            if (row[i] != 0xee) stop("%s: byte %d of row %d changed", what, (int)i, (int)r);
    }
}

static const int row_tiles[] = {16, 64, 128};
enum { N_TILE = sizeof row_tiles / sizeof *row_tiles };

/* Every tile of rows: right, and the same bits. */
static void check(struct shape s)
{
    struct problem o;
    char what[160];
    size_t n = (size_t)s.rows * (size_t)s.n;
    double *want = malloc(n * sizeof *want), *bound = malloc(n * sizeof *bound);
    void *before;
    make(&o, s);
    before = malloc(o.y.bytes);
    assert_true(want && bound && before);
    want_of(&o, want, bound);
    for (int i = 0; i < N_TILE; i++) {
        snprintf(what, sizeof what, "E %d, rows %d, N %d, K %d, glu %d, tile %d", s.n_expert,
                 s.rows, s.n, s.k, (int)s.glu, row_tiles[i]);
        compute(&o, row_tiles[i]);
        expect_right(&o, want, bound, what);
        if (i && memcmp(before, o.y.host, o.y.bytes)) stop("%s: other bits", what);
        memcpy(before, o.y.host, o.y.bytes);
    }
    free(want);
    free(bound);
    free(before);
    end(NULL);
    memory.n = 0;
}

static void one_expert(void **unused)
{
    (void)unused;
    check((struct shape){1, 64, 64, 1, GLU_NONE, PM_MXFP4, PM_F32, false, false, false});
    check((struct shape){1, 200, 72, 9, GLU_NONE, PM_F32, PM_F32, false, false, false});
    check((struct shape){1, 128, 320, 17, GLU_SILU, PM_MXFP4, PM_BF16, true, false, false});
    check((struct shape){1, 264, 136, 130, GLU_NONE, PM_BF16, PM_BF16, false, false, false});
}

static void experts(void **unused)
{
    (void)unused;
    check((struct shape){5, 130, 200, 150, GLU_NONE, PM_F32, PM_F32, true, false, false});
    check((struct shape){5, 136, 264, 150, GLU_SILU, PM_MXFP4, PM_BF16, true, false, false});
    check((struct shape){3, 72, 64, 333, GLU_CLAMPED, PM_BF16, PM_BF16, true, false, true});
    check((struct shape){4, 96, 128, 90, GLU_GELU, PM_F16, PM_F32, false, false, true});
    check((struct shape){7, 320, 448, 40, GLU_NONE, PM_MXFP4, PM_BF16, false, false, false});
}

static void awkward_sizes(void **unused)
{
    (void)unused;
    check((struct shape){3, 1, 8, 20, GLU_NONE, PM_F16, PM_F32, true, true, false});
    check((struct shape){3, 77, 40, 70, GLU_NONE, PM_BF16, PM_BF16, true, true, false});
    check((struct shape){2, 131, 712, 33, GLU_SILU, PM_F32, PM_BF16, true, true, true});
    check((struct shape){2, 5, 1408, 12, GLU_CLAMPED, PM_MXFP4, PM_F32, false, true, false});
}

static void many_experts(void **unused)
{
    (void)unused;
    check((struct shape){512, 8, 8, 700, GLU_NONE, PM_F32, PM_F32, true, false, false});
    check((struct shape){129, 24, 16, 60, GLU_SILU, PM_MXFP4, PM_BF16, true, false, false});
}

/* Experts without any row at all leave y alone. */
static void no_rows(void **unused)
{
    struct problem o;
    (void)unused;
    make(&o, (struct shape){6, 64, 64, 10, GLU_NONE, PM_F32, PM_F32, true, false, false});
    memset(o.offset.host, 0, o.offset.bytes);
    up(o.offset);
    for (int i = 0; i < N_TILE; i++) {
        compute(&o, row_tiles[i]);
        for (size_t b = 0; b < o.y.bytes; b++)
            assert_int_equal(((unsigned char *)o.y.host)[b], 0xee);
    }
}

/* One row alone has the bits that it has among others, in every instruction shape. */
static void row_alone(void **unused)
{
    static const int batch[] = {1, 2, 9, 24, 57, 100, 128, 140};
    struct problem o;
    uint16_t alone[200];
    (void)unused;
    make(&o, (struct shape){1, 200, 200, 140, GLU_SILU, PM_F32, PM_BF16, false, false, false});
    for (size_t i = 0; i < sizeof batch / sizeof *batch; i++) {
        int last = batch[i] - 1;
        o.p.max_row = batch[i];
        for (int j = 0; j < N_TILE; j++) {
            o.p.x =
                (const char *)o.x.device + (139 - last) * o.p.x_stride; /* row 139 is last */
            compute(&o, row_tiles[j]);
            const char *row = (const char *)o.y.host + last * o.p.y_stride;
            if (i == 0 && j == 0) memcpy(alone, row, sizeof alone);
            if (memcmp(alone, row, sizeof alone)) stop("batch %d: other bits", batch[i]);
        }
    }
}

/* What is not a number stays in its row. */
static void nan_stays(void **unused)
{
    struct problem o;
    (void)unused;
    make(&o, (struct shape){1, 96, 64, 20, GLU_NONE, PM_MXFP4, PM_F32, false, false, false});
    ((uint16_t *)o.x.host)[5 * 72 + 3] = NAN_BF16;
    up(o.x);
    for (int i = 0; i < N_TILE; i++) {
        compute(&o, row_tiles[i]);
        for (int r = 0; r < 20; r++)
            for (int c = 0; c < 96; c++)
                assert_int_equal(isnan(got_at(&o, r, c)), r == 5);
    }
}

static bool open_device(void)
{
    int major = 0, n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n < 1) return false;
    expect_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major != 9) return false;
    device.sm = 90;
    expect_cuda(cudaDeviceGetAttribute(&device.n_sm, cudaDevAttrMultiProcessorCount, 0));
    expect_cuda(cudaStreamCreate(&device.stream));
    return true;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(one_expert),   TEST(experts), TEST(awkward_sizes),
                                       TEST(many_experts), TEST(no_rows), TEST(row_alone),
                                       TEST(nan_stays)};
    int failed;
    if (!open_device()) return SKIPPED;
    failed = cmocka_run_group_tests_name("wgmma", tests, NULL, NULL);
    cudaStreamDestroy(device.stream);
    return failed;
}
#else
int main(void)
{
    return 77;
}
#endif
