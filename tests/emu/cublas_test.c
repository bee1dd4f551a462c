/* cublas_test.c - what the benchmark asks of cuBLAS, answered by cublas_fake.c, which has
 * NVIDIA's declarations: both ways give the products of all experts, in BF16 and F32, and
 * a result that differs is found. The device is the CPU that says it is none. */
#include <dlfcn.h>
#include <math.h>
#include <string.h>

#include "bench/kernel_case.h"
#include "tests/oracle/rig.h"

enum { EXPERTS = 5, OUT = 24, IN = 40, ROWS = 13 };

static const int32_t first[EXPERTS + 1] = {0, 3, 3, 4, 11, ROWS};

static const struct baseline *find(const char *name)
{
    const struct baseline *b = baselines;
    while (b->name && strcmp(b->name, name) != 0) {
        b++;
    }
    assert_non_null(b->name);
    return b;
}

static double value(const struct tensor *t, int64_t row, int64_t col)
{
    const char *p = (const char *)t->data + row * t->stride;
    if (t->type == PM_F32) return ((const float *)(const void *)p)[col];
    return bf16_to_f32(((const uint16_t *)(const void *)p)[col]);
}

/* Every value of a row of expert e in double precision. */
static void check_row(const struct product *p, int e, int64_t row)
{
    double unit = p->y.type == PM_F32 ? 0x1p-20 : 0x1p-8;
    for (int64_t n = 0; n < OUT; n++) {
        double sum = 0, size = 0, got = value(&p->y, row, n);
        for (int64_t k = 0; k < IN; k++) {
            double part = value(&p->w[e], n, k) * value(&p->x, row, k);
            sum += part;
            size += fabs(part);
        }
        if (fabs(got - sum) > unit * size) {
            rig_fail("row %lld, output %lld: found %g, wanted %g", (long long)row, (long long)n,
                     got, sum);
        }
    }
}

static void check(struct rig *rig, const char *name, pm_dtype type)
{
    const struct baseline *b = find(name);
    struct kernels k = *rig->k;
    struct tensor w[EXPERTS], x = rig_weights(rig, type, ROWS, IN);
    struct tensor y = tensor_view(rig_take(rig, ROWS * OUT, 4), type, ROWS, OUT);
    struct product p = {.w = w, .x = x, .y = y, .first = first, .n_expert = EXPERTS};
    struct arena arena = {.k = &k, .d = rig->d};
    void *state;
    k.host_memory = false;
    for (int e = 0; e < EXPERTS; e++)
        w[e] = rig_weights(rig, type, OUT, IN);
    assert_true(b->takes(&p));
    expect_ok(b->open(&state, &k, rig->d));
    expect_ok(b->prepare(state, &p, &arena));
    expect_ok(b->run(state, &k, rig->d, &p));
    for (int e = 0; e < EXPERTS; e++) {
        for (int32_t r = first[e]; r < first[e + 1]; r++)
            check_row(&p, e, r);
    }
    if (type == PM_F32) { /* the CPU's own maps give F32 alone */
        expect_ok(baseline_check(b, &k, rig->d, &p));
        ((float *)y.data)[3 * OUT] += 9; /* the first value of the row of expert 2 */
        assert_int_equal(baseline_check(b, &k, rig->d, &p), PM_ERR_DEVICE);
        assert_non_null(strstr(pm_last_error(), "expert 2, output 0: found"));
    }
    b->close(state);
    arena_free(&arena);
}

static void both_ways_compute_the_products(void **state)
{
    struct rig *rig = *state;
    check(rig, "cublas-loop", PM_F32);
    check(rig, "cublas-loop", PM_BF16);
    check(rig, "cublas-grouped", PM_F32);
    check(rig, "cublas-grouped", PM_BF16);
}

static void other_types_are_left_out(void **state)
{
    struct rig *rig = *state;
    struct tensor w = rig_weights(rig, PM_F8_E4M3, OUT, 128);
    struct product p = {.w = &w, .n_expert = 1};
    p.x = p.y = tensor_view(NULL, PM_BF16, 1, 1);
    assert_false(find("cublas-loop")->takes(&p));
    w.type = PM_BF16;
    assert_true(find("cublas-grouped")->takes(&p));
    p.x.type = PM_F32;
    assert_false(find("cublas-grouped")->takes(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(both_ways_compute_the_products),
        RIG_TEST(other_types_are_left_out),
    };
    void *library = dlopen("libcublas.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!library || !dlsym(library, "cublas_fake_calls")) {
        print_message("skipped: LD_LIBRARY_PATH does not lead to the cuBLAS of the tests\n");
        return 77;
    }
    return rig_run("cublas", tests, sizeof tests / sizeof *tests);
}
