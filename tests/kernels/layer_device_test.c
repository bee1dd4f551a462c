/* layer_device_test.c - the expert layer of polymath.h on a device with memory and a stream of
 * the caller's, beside the same layer on a CPU.
 *
 * POLYMATH_TEST_DEVICE names the device; compiled without TEST_CUDA it is the CPU with other
 * threads. Weights are bf16, so a device with narrow activations rounds each of them to bf16:
 * x, inner rows, outputs and y, whose errors of at most 2^-9 each are far from 2^-6 of the
 * largest value together. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef TEST_CUDA
#include <cuda_runtime_api.h>
#endif

#include "tests/oracle/rig.h"

enum { EXPERTS = 8, TOP_K = 3, HIDDEN = 160, INNER = 96, ROWS = 19, MAX_BLOCK = 32 };

struct fixture {
    const struct kernels *k;
    struct device *d; /* for memory; the layer has its own */
    const char *name;
    void *block[MAX_BLOCK];
    int n_block;
    void *stream;
};

static const void *place(struct fixture *f, const void *from, size_t n)
{
    void *p;
    assert_true(f->n_block < MAX_BLOCK);
    expect_ok(f->k->alloc(f->d, &p, n, "test"));
    f->block[f->n_block++] = p;
    if (from) expect_ok(f->k->upload(f->d, p, from, n));
    expect_ok(f->k->sync(f->d));
    return p;
}

static void open_fixture(struct fixture *f)
{
    const char *name = getenv("POLYMATH_TEST_DEVICE");
    int index;
    memset(f, 0, sizeof *f);
    f->name = name ? name : "cpu";
    expect_ok(kernels_select(&f->k, &index, f->name));
    expect_ok(f->k->open(&f->d, index, 3));
#ifdef TEST_CUDA
    cudaStream_t stream;
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    f->stream = stream;
#endif
}

static void close_fixture(struct fixture *f)
{
#ifdef TEST_CUDA
    assert_int_equal(cudaStreamDestroy((cudaStream_t)f->stream), cudaSuccess);
#endif
    while (f->n_block)
        f->k->free(f->d, f->block[--f->n_block]);
    f->k->close(f->d);
}

/* n bf16 values, as bits and as floats where `wide` is not NULL. */
static const uint16_t *values(struct rig *rig, int n, float *wide)
{
    uint16_t *v = rig_take(rig, n, sizeof *v);
    for (int i = 0; i < n; i++) {
        v[i] = f32_to_bf16((float)rig_uniform(rig) - 0.5f);
        if (wide) wide[i] = bf16_to_f32(v[i]);
    }
    return v;
}

struct made {
    pm_layer_shape shape;
    pm_layer_weights host, there;
    const uint16_t *x_narrow; /* [ROWS, HIDDEN] */
    float *x, *logits;
};

static void make(struct rig *rig, struct fixture *f, struct made *m, bool alternate, bool scale)
{
    enum { UP = EXPERTS * 2 * INNER * HIDDEN, DOWN = EXPERTS * HIDDEN * INNER };
    m->shape = (pm_layer_shape){
        .n_expert = EXPERTS,
        .top_k = TOP_K,
        .hidden = HIDDEN,
        .inner = INNER,
        .weight_type = PM_BF16,
        .bias_type = PM_BF16,
        .gate_up = alternate ? PM_GATE_UP_ALTERNATING : PM_GATE_UP_HALVES,
        .glu = PM_GLU_SILU,
        .score = PM_SCORE_SIGMOID,
        .renorm = PM_RENORM_SUM,
        .scale = 2,
        .scale_input = scale,
    };
    m->x = rig_take(rig, ROWS * HIDDEN, sizeof *m->x);
    m->x_narrow = values(rig, ROWS * HIDDEN, m->x);
    m->logits = rig_floats(rig, ROWS * EXPERTS, 1);
    m->host = (pm_layer_weights){.w_gate = values(rig, UP, NULL),
                                 .w_down = values(rig, DOWN, NULL),
                                 .b_gate = values(rig, EXPERTS * 2 * INNER, NULL),
                                 .select_bias = rig_floats(rig, EXPERTS, 0.1)};
    m->there = (pm_layer_weights){
        .w_gate = place(f, m->host.w_gate, UP * sizeof(uint16_t)),
        .w_down = place(f, m->host.w_down, DOWN * sizeof(uint16_t)),
        .b_gate = place(f, m->host.b_gate, EXPERTS * 2 * INNER * sizeof(uint16_t)),
        .select_bias = place(f, m->host.select_bias, EXPERTS * sizeof(float))};
}

static void on_the_host(struct rig *rig, const struct made *m, float *y, int32_t *id)
{
    pm_layer_options o = {.device = "cpu", .n_thread = 1, .max_row = ROWS};
    pm_layer_step step = {.y = y, .x = m->x, .logits = m->logits, .n_row = ROWS};
    pm_layer *l;
    expect_ok(pm_layer_open(&l, &m->shape, &m->host, &o));
    expect_ok(pm_layer_workspace(&step.workspace_bytes, l, ROWS));
    step.workspace = rig_take(rig, (int64_t)step.workspace_bytes, 1);
    expect_ok(pm_layer_forward(l, &step));
    expect_ok(pm_layer_routing(l, id, NULL));
    pm_layer_close(l);
}

/* Rows first .. first + n - 1 on the device; bits of y in their type. */
static void on_the_device(struct fixture *f, const struct made *m, const pm_layer_shape *s,
                          int first, int n, void *y, int32_t *id)
{
    size_t y_bytes = (size_t)n * HIDDEN * (size_t)dtype_bits(s->y_type) / 8;
    pm_layer_options o = {.device = f->name, .n_thread = 3, .max_row = ROWS};
    pm_layer_step step = {.n_row = n, .stream = f->stream};
    pm_layer *l;
    expect_ok(pm_layer_open(&l, s, &m->there, &o));
    expect_ok(pm_layer_workspace(&step.workspace_bytes, l, n));
    step.workspace = (void *)(uintptr_t)place(f, NULL, step.workspace_bytes);
    step.y = (void *)(uintptr_t)place(f, NULL, y_bytes);
    step.logits = place(f, m->logits + first * EXPERTS, (size_t)n * EXPERTS * sizeof(float));
    step.x = s->x_type == PM_F32
                 ? place(f, m->x + first * HIDDEN, (size_t)n * HIDDEN * 4)
                 : place(f, m->x_narrow + first * HIDDEN, (size_t)n * HIDDEN * 2);
    expect_ok(pm_layer_forward(l, &step));
    expect_ok(pm_layer_routing(l, id, NULL)); /* waits */
    expect_ok(f->k->download(f->d, y, step.y, y_bytes));
    pm_layer_close(l);
}

static void compare(struct rig *rig, struct fixture *f, const struct made *m, pm_dtype type)
{
    enum { N = ROWS * HIDDEN };
    float *want = rig_take(rig, N, sizeof *want), *got = rig_take(rig, N, sizeof *got);
    char *alone = rig_take(rig, N, sizeof *want);
    int32_t id[ROWS * TOP_K], want_id[ROWS * TOP_K];
    size_t row = HIDDEN * (size_t)dtype_bits(type) / 8;
    double largest = 0;
    pm_layer_shape s = m->shape;
    s.x_type = s.y_type = type;
    on_the_host(rig, m, want, want_id);
    on_the_device(f, m, &s, 0, ROWS, got, id);
    assert_memory_equal(id, want_id, sizeof id);
    on_the_device(f, m, &s, ROWS - 1, 1, alone, id);
    assert_memory_equal(alone, (char *)got + (ROWS - 1) * row, row);
    for (int i = 0; i < N; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int i = 0; i < N; i++) {
        float value = type == PM_F32 ? got[i] : bf16_to_f32(((uint16_t *)(void *)got)[i]);
        double bound = f->k->narrow == PM_F32 ? 0 : 0x1p-6 * largest;
        if (!(fabs(value - want[i]) <= bound)) {
            rig_fail("y[%d] is %.9g, wanted %.9g within %.3g", i, (double)value,
                     (double)want[i], bound);
        }
    }
}

static void layer_on_the_device_is_that_on_the_host(void **state)
{
    for (int i = 0; i < 4; i++) {
        struct fixture f;
        struct made m;
        open_fixture(&f);
        make(*state, &f, &m, i % 2, i / 2);
        compare(*state, &f, &m, PM_F32);
        if (f.k->narrow != PM_F32) compare(*state, &f, &m, f.k->narrow);
        close_fixture(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {RIG_TEST(layer_on_the_device_is_that_on_the_host)};
    return rig_run("layer on a device", tests, sizeof tests / sizeof *tests);
}
