/* plan_test.c - the choice of a CUDA kernel and its tile; no GPU is needed. */
#include <setjmp.h>
#include <stdarg.h>

#include "kernels/cuda/plan.h"

#include <cmocka.h>
#undef fail

static const struct linear_machine a100 = {80, 108, 163 << 10};
static const struct linear_machine h100 = {90, 132, 227 << 10};
static const struct linear_machine small = {86, 46, 99 << 10};

/* The gate and up matrices of a layer of Qwen3-30B-A3B for T rows. */
static struct linear_shape qwen(pm_dtype type, int64_t t)
{
    return (struct linear_shape){.type = type,
                                 .glu = true,
                                 .aligned = true,
                                 .n_expert = 128,
                                 .n = 768,
                                 .k = 2048,
                                 .max_row = 8 * t};
}

static void plan_is_always_one_that_exists(void **state)
{
    static const pm_dtype types[] = {PM_F32, PM_F16, PM_BF16, PM_F8_E4M3, PM_MXFP4};
    static const struct linear_machine *const machines[] = {&a100, &h100, &small};
    (void)state;
    for (int i = 0; i < 3 * 5 * 2 * 2 * 4; i++) {
        struct linear_shape s = {.type = types[i % 5],
                                 .glu = i / 5 % 2,
                                 .aligned = i / 10 % 2,
                                 .n_expert = (int[]){1, 8, 128, 512}[i / 60],
                                 .n = 1,
                                 .k = 1};
        const struct linear_machine *m = machines[i / 20 % 3];
        for (; s.n < 300000; s.n = s.n * 3 + 1) {
            for (s.max_row = 0; s.max_row < 5000000; s.max_row = s.max_row * 2 + 1) {
                struct linear_plan plan = linear_plan_of(m, &s);
                assert_true(linear_plan_ok(m, &s, &plan));
                assert_non_null(plan.reason);
                assert_true(plan.row_tile > 0 && plan.weight_tile > 0);
            }
        }
    }
}

static void wgmma_takes_aligned_rows_on_sm_90(void **state)
{
    struct linear_shape s = qwen(PM_BF16, 1);
    (void)state;
    assert_int_equal(linear_plan_of(&h100, &s).kernel, LINEAR_SM90);
    assert_int_equal(linear_plan_of(&a100, &s).kernel, LINEAR_MMA);
    assert_string_equal(linear_plan_of(&a100, &s).reason, "wgmma needs sm_90");
    s.aligned = false;
    assert_int_equal(linear_plan_of(&h100, &s).kernel, LINEAR_MMA);
    assert_string_equal(linear_plan_of(&h100, &s).reason,
                        "wgmma kernels take rows aligned to 16 bytes");
    for (int i = 0; i < 2; i++) {
        s = qwen(i ? PM_MXFP4 : PM_F8_E4M3, 1);
        assert_int_equal(linear_plan_of(&h100, &s).kernel, LINEAR_SM90);
        assert_string_equal(linear_plan_of(&h100, &s).reason, "weights widen to BF16 on sm_90");
        assert_int_equal(linear_plan_of(&a100, &s).kernel, LINEAR_MMA);
    }
    s = qwen(PM_F16, 1);
    assert_int_equal(linear_plan_of(&h100, &s).kernel, LINEAR_MMA);
    assert_string_equal(linear_plan_of(&h100, &s).reason,
                        "wgmma kernels take BF16, F8_E4M3 and MXFP4 weights");
    s = qwen(PM_F32, 1);
    assert_int_equal(linear_plan_of(&h100, &s).kernel, LINEAR_F32);
}

/* Most experts' rows fit one tile, whatever the number of rows. */
static void row_tile_follows_the_rows_of_an_expert(void **state)
{
    static const struct {
        int64_t t;
        int tile;
    } want[] = {{1, 8}, {16, 8}, {64, 8}, {128, 16}, {256, 32}, {1024, 64}, {4096, 128}};
    (void)state;
    for (int i = 0; i < 7; i++) {
        struct linear_shape s = qwen(PM_BF16, want[i].t);
        assert_int_equal(linear_plan_of(&a100, &s).row_tile, want[i].tile);
    }
}

static void wgmma_tiles_fit_the_registers(void **state)
{
    struct linear_shape s = qwen(PM_F8_E4M3, 4096);
    (void)state;
    assert_int_equal(linear_plan_of(&h100, &s).row_tile, 96);
    s.max_row = 8;
    assert_int_equal(linear_plan_of(&h100, &s).row_tile, 8);
    s = qwen(PM_MXFP4, 4096);
    assert_int_equal(linear_plan_of(&h100, &s).row_tile, 128);
}

/* A small dense matrix at one row is cut into the smallest tiles, a large one is not. */
static void weight_tile_fills_the_machine(void **state)
{
    struct linear_shape s = {
        .type = PM_BF16, .n_expert = 1, .n = 2048, .k = 4096, .max_row = 1};
    (void)state;
    assert_int_equal(linear_plan_of(&a100, &s).weight_tile, 16);
    s.n = 151936;
    assert_int_equal(linear_plan_of(&a100, &s).weight_tile, 64);
    s.max_row = 32;
    assert_int_equal(linear_plan_of(&a100, &s).row_tile, 32);
    s.n = 2048;
    assert_int_equal(linear_plan_of(&a100, &s).weight_tile, 16);
}

static void plan_refuses_what_does_not_fit(void **state)
{
    struct linear_shape s = qwen(PM_BF16, 4096);
    struct linear_plan plan = {LINEAR_MMA, 128, 128, ""};
    struct linear_machine tiny = {80, 108, 48 << 10}, old = {75, 40, 64 << 10};
    (void)state;
    assert_true(linear_plan_ok(&a100, &s, &plan));
    assert_false(linear_plan_ok(&tiny, &s, &plan));
    assert_false(linear_plan_ok(&old, &s, &plan));
    plan.row_tile = 24;
    assert_false(linear_plan_ok(&a100, &s, &plan));
    plan.kernel = LINEAR_SM90;
    assert_false(linear_plan_ok(&a100, &s, &plan));
    assert_true(linear_plan_ok(&h100, &s, &plan));
    plan = (struct linear_plan){LINEAR_F32, 4, 4, ""};
    assert_false(linear_plan_ok(&h100, &s, &plan));
    assert_string_equal(linear_kernel_name(LINEAR_F32), "fma");
    assert_string_equal(linear_kernel_name(LINEAR_SM90), "wgmma");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_is_always_one_that_exists),
        cmocka_unit_test(wgmma_takes_aligned_rows_on_sm_90),
        cmocka_unit_test(row_tile_follows_the_rows_of_an_expert),
        cmocka_unit_test(wgmma_tiles_fit_the_registers),
        cmocka_unit_test(weight_tile_fills_the_machine),
        cmocka_unit_test(plan_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
