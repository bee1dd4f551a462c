/* norm_test.c - RMS, layer and L2 norms against the oracle; rows alone, in place, in views. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/oracle/oracle.h"
#include "tests/oracle/rig.h"

static const struct {
    enum norm_kind kind;
    bool bias;
    const char *name;
} kinds[] = {
    {NORM_RMS, false, "rms"},
    {NORM_LAYER, true, "layer"},
    {NORM_LAYER, false, "layer without bias"},
    {NORM_L2, false, "l2"},
};

enum { N_KIND = sizeof kinds / sizeof *kinds };

struct norm_case {
    struct tensor x, w, b;
    const struct tensor *weight, *bias; /* NULL where the kind has none */
    int kind;
    float eps;
};

/* Values of `size`, off zero by `middle`. */
static struct norm_case norm_case(struct rig *rig, int kind, int64_t rows, int64_t cols,
                                  double size, double middle)
{
    struct norm_case c = {.x = rig_matrix(rig, rows, cols), .kind = kind, .eps = 1e-6f};
    for (int64_t i = 0; i < rows * cols; i++) {
        float *x = &rig_row(&c.x, i / cols)[i % cols];
        *x = (float)(*x * size + middle);
    }
    c.w = tensor_view(rig_floats(rig, cols, 1), PM_F32, 1, cols);
    c.b = tensor_view(rig_floats(rig, cols, 1), PM_F32, 1, cols);
    return c;
}

static void run(struct rig *rig, struct device *d, const struct norm_case *c, struct tensor y,
                struct tensor x)
{
    const struct tensor *w = kinds[c->kind].kind == NORM_L2 ? NULL : &c->w;
    const struct tensor *b = kinds[c->kind].bias ? &c->b : NULL;
    expect_ok(rig->k->norm(d, y, x, kinds[c->kind].kind, w, b, c->eps));
}

static void check(struct rig *rig, const struct norm_case *c)
{
    int64_t n = c->x.rows * c->x.cols;
    double *want = rig_doubles(rig, n), *bound = rig_doubles(rig, n);
    struct tensor y = rig_matrix(rig, c->x.rows, c->x.cols);
    oracle_norm(want, bound, c->x, kinds[c->kind].kind, c->w.data,
                kinds[c->kind].bias ? c->b.data : NULL, c->eps);
    run(rig, rig->d, c, y, c->x);
    expect_close(kinds[c->kind].name, &y, want, bound);
}

static void norm_matches_oracle(void **state)
{
    static const int64_t shape[][2] = {{0, 33},    {1, 1},    {3, 1},     {1, 33},
                                       {3, 128},   {257, 33}, {5, 64},    {3, 2880},
                                       {257, 100}, {2, 130},  {2, 1000},  {1, 1025},
                                       {1, 4096},  {1, 7168}, {1, 16384}, {1, 20001}};
    for (int kind = 0; kind < N_KIND; kind++) {
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
            struct norm_case c = norm_case(*state, kind, shape[i][0], shape[i][1], 1, 0);
            check(*state, &c);
        }
    }
}

/* eps rules where values are small; the mean must leave where it is large. */
static void norm_holds_for_small_and_large_values(void **state)
{
    static const struct {
        double size, middle;
        float eps;
    } values[] = {{1e-3, 0, 1e-5f}, {1e-6, 0, 1e-6f},  {1e4, 0, 1e-5f},
                  {1, 300, 1e-5f},  {1e-18, 0, 1e-6f}, {1, 0, 0.5f}};
    for (int kind = 0; kind < N_KIND; kind++) {
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            struct norm_case c =
                norm_case(*state, kind, 3, 48, values[i].size, values[i].middle);
            c.eps = values[i].eps;
            check(*state, &c);
        }
    }
}

/* Where a row stands decides how it is read, not what becomes of it. */
static void round_addresses_leave_no_trace(void **state)
{
    struct rig *rig = *state;
    static const int64_t cols[] = {4, 33, 128, 500, 1000, 2880, 5003, 16400};
    for (int i = 0; i < N_KIND * 8; i++) {
        struct norm_case c = norm_case(rig, i / 8, 2, cols[i % 8], 1, 0.1);
        struct tensor y = rig_matrix(rig, 2, cols[i % 8]), x = rig_round(rig, &c.x, PM_F32);
        struct tensor even = rig_round(rig, &x, PM_F32);
        run(rig, rig->d, &c, y, c.x);
        run(rig, rig->d, &c, even, x);
        expect_same(kinds[c.kind].name, &even, &y);
    }
}

/* What feeds a linear map is the F32 result, rounded once. */
static void a_narrow_result_is_the_wide_one_rounded(void **state)
{
    struct rig *rig = *state;
    static const int64_t cols[] = {1, 33, 128, 2880, 20001};
    if (rig->k->narrow != PM_BF16) return;
    for (int i = 0; i < N_KIND * 5 * 2; i++) {
        struct norm_case c = norm_case(rig, i / 10, 3, cols[i % 5], 1, 0);
        struct tensor x = i / 5 % 2 ? rig_round(rig, &c.x, PM_F32) : c.x;
        struct tensor y = rig_matrix(rig, 3, cols[i % 5]), half = rig_round(rig, &y, PM_BF16);
        struct tensor want;
        run(rig, rig->d, &c, y, x);
        run(rig, rig->d, &c, half, x);
        want = rig_round(rig, &y, PM_BF16);
        y = rig_widen(rig, &half);
        want = rig_widen(rig, &want);
        expect_same(kinds[c.kind].name, &y, &want);
    }
}

static void a_row_of_zeros_stays_finite(void **state)
{
    for (int kind = 0; kind < N_KIND; kind++) {
        struct norm_case c = norm_case(*state, kind, 2, 40, 0, 0);
        check(*state, &c);
    }
}

static void norm_may_write_over_its_input(void **state)
{
    struct rig *rig = *state;
    for (int kind = 0; kind < N_KIND; kind++) {
        struct norm_case c = norm_case(rig, kind, 5, 77, 1, 0);
        struct tensor y = rig_matrix(rig, 5, 77), x = rig_copy(rig, &c.x);
        run(rig, rig->d, &c, y, c.x);
        run(rig, rig->d, &c, x, x);
        expect_same(kinds[kind].name, &x, &y);
    }
}

/* The latent part of a wider row, as MLA has it: what stands beside it must not change. */
static void norm_keeps_to_its_columns(void **state)
{
    struct rig *rig = *state;
    for (int kind = 0; kind < N_KIND; kind++) {
        struct norm_case c = norm_case(rig, kind, 6, 40, 1, 0);
        struct tensor wide = rig_matrix(rig, 6, 56), before = rig_copy(rig, &wide);
        struct tensor part = wide, y = rig_matrix(rig, 6, 40);
        part.cols = 40;
        for (int r = 0; r < 6; r++) {
            memcpy(rig_row(&c.x, r), rig_row(&wide, r), 40 * sizeof(float));
        }
        run(rig, rig->d, &c, y, c.x);
        run(rig, rig->d, &c, part, part);
        for (int r = 0; r < 6; r++) {
            assert_memory_equal(rig_row(&wide, r), rig_row(&y, r), 40 * sizeof(float));
            assert_memory_equal(rig_row(&wide, r) + 40, rig_row(&before, r) + 40,
                                16 * sizeof(float));
        }
    }
}

static void a_row_depends_on_itself_alone(void **state)
{
    struct rig *rig = *state;
    static const int64_t shape[][2] = {{257, 33}, {40, 2880}};
    for (int kind = 0; kind < N_KIND; kind++) {
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
            struct norm_case c = norm_case(rig, kind, shape[i][0], shape[i][1], 1, 0);
            struct tensor y = rig_matrix(rig, c.x.rows, c.x.cols);
            run(rig, rig->d, &c, y, c.x);
            for (int device = 0; device < RIG_DEVICES; device++) {
                struct tensor again = rig_matrix(rig, c.x.rows, c.x.cols);
                run(rig, rig->device[device], &c, again, c.x);
                expect_same(kinds[kind].name, &again, &y);
            }
            for (int64_t r = 0; r < c.x.rows; r++) {
                struct tensor one = rig_matrix(rig, 1, c.x.cols), part = tensor_rows(&y, r, 1);
                run(rig, rig->d, &c, one, tensor_rows(&c.x, r, 1));
                expect_same(kinds[kind].name, &one, &part);
            }
        }
    }
}

static void what_is_not_a_number_stays_in_its_row(void **state)
{
    struct rig *rig = *state;
    for (int kind = 0; kind < N_KIND; kind++) {
        struct norm_case c = norm_case(rig, kind, 3, 50, 1, 0);
        struct tensor y = rig_matrix(rig, 3, 50);
        rig_row(&c.x, 1)[17] = NAN;
        run(rig, rig->d, &c, y, c.x);
        for (int i = 0; i < 50; i++) {
            assert_true(isfinite(rig_row(&y, 0)[i]) && isfinite(rig_row(&y, 2)[i]));
            assert_true(isnan(rig_row(&y, 1)[i]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(norm_matches_oracle),
        RIG_TEST(norm_holds_for_small_and_large_values),
        RIG_TEST(round_addresses_leave_no_trace),
        RIG_TEST(a_narrow_result_is_the_wide_one_rounded),
        RIG_TEST(a_row_of_zeros_stays_finite),
        RIG_TEST(norm_may_write_over_its_input),
        RIG_TEST(norm_keeps_to_its_columns),
        RIG_TEST(a_row_depends_on_itself_alone),
        RIG_TEST(what_is_not_a_number_stays_in_its_row),
    };
    return rig_run("norm", tests, sizeof tests / sizeof *tests);
}
