/* codes_test.c - every code of the block formats as a row of floats, those that mean NaN too.
 *
 * E4M3 has two codes for NaN (0x7f, 0xff), and no infinity. E8M0, the scale of MXFP4, has one
 * (255), which makes its whole block NaN, zeros included. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/ops.h"
#include "tests/oracle/oracle.h"

#include <cmocka.h>
#undef fail

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

enum { CODES = 256 };

static const struct micro *best(void)
{
    const struct micro *m = NULL;
    if (micro_select(&m, NULL) != PM_OK) FAIL("%s", pm_last_error());
    return m;
}

/* Row 0 of t against the oracle; returns how many values are NaN. */
static int check_row(const struct tensor *t, const char *what)
{
    float row[CODES];
    int n_nan = 0;
    tensor_row_f32(best(), row, t, 0);
    for (int i = 0; i < CODES; i++) {
        double want = oracle_value(t, 0, i);
        if (isnan(want) ? !isnan(row[i]) : (double)row[i] != (double)(float)want) {
            FAIL("%s: value %d is %g, wanted %g", what, i, (double)row[i], want);
        }
        n_nan += isnan(row[i]) != 0;
    }
    return n_nan;
}

static void every_code_of_e4m3_is_what_the_format_says(void **state)
{
    static const float scales[] = {1, 0.25f, 3};
    (void)state;
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        uint8_t code[CODES];
        float scale[CODES / 128] = {scales[s], -scales[s]};
        struct tensor t = tensor_view(code, PM_F8_E4M3, 1, CODES);
        for (int i = 0; i < CODES; i++) {
            code[i] = (uint8_t)i;
        }
        t.scale = scale;
        t.scale_stride = sizeof scale;
        assert_int_equal(check_row(&t, "E4M3"), 2);
    }
}

static void every_scale_of_mxfp4_is_what_the_format_says(void **state)
{
    (void)state;
    for (int s = 0; s < 256; s++) {
        uint8_t code[CODES / 2], scale[CODES / 32];
        struct tensor t = tensor_view(code, PM_MXFP4, 1, CODES);
        for (int i = 0; i < CODES / 2; i++) {
            code[i] = (uint8_t)(i % 8 * 2 | (i % 8 * 2 + 1) << 4); /* all sixteen in a block */
        }
        memset(scale, s, sizeof scale);
        scale[3] = 127;
        t.scale = scale;
        t.scale_stride = sizeof scale;
        assert_int_equal(check_row(&t, "MXFP4"), s == 255 ? CODES - 32 : 0);
    }
}

static void a_scale_is_a_power_of_two(void **state)
{
    (void)state;
    for (int s = 0; s < 255; s++) {
        assert_true((double)e8m0_to_f32((uint8_t)s) == ldexp(1, s - 127));
    }
    assert_true(isnan(e8m0_to_f32(255)));
    assert_true(isnan(e4m3_to_f32(0x7f)) && isnan(e4m3_to_f32(0xff)));
    assert_true(e4m3_to_f32(0x7e) == 448 && e4m3_to_f32(0xfe) == -448);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_of_e4m3_is_what_the_format_says),
        cmocka_unit_test(every_scale_of_mxfp4_is_what_the_format_says),
        cmocka_unit_test(a_scale_is_a_power_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
