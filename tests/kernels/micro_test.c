/* micro_test.c - the vector helpers of every instruction set: accuracy, conversions bit by bit,
 * and an element's independence of its neighbours. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/micro.h"
#include "tests/oracle/rig.h"

enum { MAX_N = 200, EDGE = 16 }; /* EDGE: values around an array that must stay as they are */

static const struct micro *micro; /* the table that the tests of a group use */

static float value_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static uint64_t state_of_random = 1;

static uint32_t random_bits(void)
{
    state_of_random = state_of_random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state_of_random >> 32);
}

static float random_value(void)
{
    return (float)(int32_t)random_bits() * 0x1p-30f;
}

static void check_exp(float x, float got)
{
    double want = exp((double)x);
    float nearest = (float)want;
    double ulp = nearest < 0x1p-126f ? 0x1p-149 : ldexp(1, ilogb(want) - 23);
    if (isinf(nearest) && isinf(got)) return;
    if (fabs((double)got - want) > 2 * ulp) {
        rig_fail("%s: exp(%.9g) is %.9g, wanted %.9g", micro->name, (double)x, (double)got,
                 want);
    }
}

static void exp_is_accurate(void **state)
{
    float x[64], got[64];
    (void)state;
    for (uint32_t bits = 0; bits < 0x42d20000u; bits += 64 * 67) {
        for (uint32_t i = 0; i < 64; i++)
            got[i] = x[i] = -value_of(bits + 67 * i);
        micro->exp_sum(got, 64, 0);
        for (int i = 0; i < 64; i++)
            check_exp(x[i], got[i]);
    }
    for (float up = 0; up < 89; up += 0.37f) {
        got[0] = up;
        micro->exp_sum(got, 1, 0);
        check_exp(up, got[0]);
    }
}

static void exp_knows_the_ends(void **state)
{
    float x[] = {-INFINITY, -200, -104, 0, 90, INFINITY, NAN};
    (void)state;
    micro->exp_sum(x, 7, 0);
    assert_true(x[0] == 0 && x[1] == 0 && x[2] == 0 && x[3] == 1);
    assert_true(isinf(x[4]) && isinf(x[5]) && isnan(x[6]));
    assert_true(micro->exp_sum(x, 0, 0) == 0);
}

/* Values of an array of any length are those that each gets alone. */
static void elements_do_not_know_their_neighbours(void **state)
{
    static const struct glu kinds[] = {
        {GLU_SILU, 0, 0}, {GLU_GELU, 0, 0}, {GLU_CLAMPED, 1.702f, 7}};
    (void)state;
    for (int n = 0; n <= MAX_N; n++) {
        float g[MAX_N + EDGE], u[MAX_N], e[MAX_N + EDGE];
        for (int i = 0; i < n; i++) {
            g[i] = 8 * random_value();
            u[i] = random_value();
            e[i] = g[i];
        }
        for (int i = n; i < n + EDGE; i++)
            g[i] = e[i] = -7;
        float y[MAX_N + EDGE];
        for (int i = n; i < n + EDGE; i++)
            y[i] = -7;
        micro->glu(y, g, u, n, &kinds[n % 3]);
        micro->exp_sum(e, n, 0.5f);
        for (int i = 0; i < n; i++) {
            float alone = g[i], exp_alone = g[i];
            micro->glu(&alone, &alone, &u[i], 1, &kinds[n % 3]);
            micro->exp_sum(&exp_alone, 1, 0.5f);
            assert_int_equal(bits_of(y[i]), bits_of(alone));
            assert_int_equal(bits_of(e[i]), bits_of(exp_alone));
        }
        for (int i = n; i < n + EDGE; i++)
            assert_true(y[i] == -7 && e[i] == -7);
    }
}

static double glu_exactly(const struct glu *glu, double g, double u)
{
    switch (glu->kind) {
    case GLU_SILU: return g / (1 + exp(-g)) * u;
    case GLU_GELU: /* 1 + tanh z, without its cancellation for negative z */
        return g / (1 + exp(-1.59576912160573071176 * (g + 0.044715 * g * g * g))) * u;
    default:
        g = fmin(g, glu->limit);
        u = fmin(fmax(u, -glu->limit), glu->limit);
        return g / (1 + exp(-glu->alpha * g)) * (u + 1);
    }
}

static void glu_is_accurate(void **state)
{
    static const struct glu kinds[] = {
        {GLU_SILU, 0, 0}, {GLU_GELU, 0, 0}, {GLU_CLAMPED, 1.702f, 7}};
    (void)state;
    for (int i = 0; i < 30000; i++) {
        const struct glu *glu = &kinds[i % 3];
        float g = random_value() * (i % 7 + 1) * 8, u = random_value() * 9, y;
        double want = glu_exactly(glu, g, u);
        micro->glu(&y, &g, &u, 1, glu);
        /* exp carries the rounding of its argument into its result; beyond its range it is 0.
         */
        double bound = fabs(want) * (20 + 4 * fabs(g) * (1 + 0.05 * g * g)) * 0x1p-24 + 1e-33;
        if (glu->kind == GLU_CLAMPED) bound += fabs(g) * 0x1p-22; /* of u + 1 near 0 */
        if (fabs((double)y - want) > bound) {
            rig_fail("%s: glu %d of %.9g, %.9g is %.9g, wanted %.9g", micro->name,
                     (int)glu->kind, (double)g, (double)u, (double)y, want);
        }
    }
    float big[3] = {INFINITY, 1000, -1000}, one[3] = {1, 1, 1};
    micro->glu(big, big, one, 3, &kinds[0]);
    assert_true(isinf(big[0]) && big[1] == 1000 && big[2] == 0);
}

static void conversions_round_to_nearest_even(void **state)
{
    (void)state;
    for (int round = 0; round < 40000; round++) {
        float x[40];
        uint16_t bf16[40], f16[40];
        int n = 1 + round % 40;
        for (int i = 0; i < n; i++) {
            uint32_t bits = random_bits();
            /* Half of them in the range of f16 and with ties. */
            if (round % 2) bits = (bits & 0x8fffe000u) + 0x38000000u + (bits & 1) * 0x1000u;
            x[i] = value_of(bits);
        }
        micro->to_bf16(bf16, x, n);
        micro->to_f16(f16, x, n);
        for (int i = 0; i < n; i++) {
            assert_int_equal(bf16[i], f32_to_bf16(x[i]));
            if (isnan(x[i])) {
                assert_true(isnan(f16_to_f32(f16[i])));
            } else {
                assert_int_equal(f16[i], f32_to_f16(x[i]));
            }
        }
    }
}

static void conversions_widen_exactly(void **state)
{
    enum { N = 100 };
    (void)state;
    for (uint32_t first = 0; first < 0x10000; first += N) {
        uint16_t code[N];
        float f16[N], bf16[N];
        for (uint32_t i = 0; i < N; i++)
            code[i] = (uint16_t)(first + i);
        int n = (int)(N - first % 3);
        micro->from_f16(f16, code, n);
        micro->from_bf16(bf16, code, n);
        for (int i = 0; i < n; i++) {
            float want = f16_to_f32(code[i]);
            assert_true(isnan(want) ? isnan(f16[i]) : bits_of(want) == bits_of(f16[i]));
            assert_int_equal(bits_of(bf16[i]), (uint32_t)code[i] << 16);
        }
    }
}

static void check_sum(const char *what, int n, float got, double want, double size)
{
    if (fabs((double)got - want) > size * (n + 2) * 0x1p-24) {
        rig_fail("%s: %s of %d is %.9g, wanted %.9g", micro->name, what, n, (double)got, want);
    }
}

static void sums_match_double(void **state)
{
    (void)state;
    for (int n = 0; n <= MAX_N; n++) {
        float a[MAX_N], b[MAX_N], y[3][MAX_N], largest = -INFINITY;
        uint16_t f16[MAX_N], bf16[MAX_N];
        double dot[3] = {0}, size[3] = {0}, square = 0;
        for (int i = 0; i < n; i++) {
            a[i] = random_value();
            b[i] = random_value();
        }
        micro->to_f16(f16, b, n);
        micro->to_bf16(bf16, b, n);
        for (int i = 0; i < n; i++) {
            double w[3] = {b[i], f16_to_f32(f16[i]), bf16_to_f32(bf16[i])};
            for (int t = 0; t < 3; t++) {
                dot[t] += a[i] * w[t];
                size[t] += fabs(a[i] * w[t]);
                y[t][i] = a[i];
            }
            square += (double)a[i] * a[i];
            largest = fmaxf(largest, a[i]);
        }
        check_sum("dot_f32", n, micro->dot_f32(a, b, n), dot[0], size[0]);
        check_sum("dot_f16", n, micro->dot_f16(a, f16, n), dot[1], size[1]);
        check_sum("dot_bf16", n, micro->dot_bf16(a, bf16, n), dot[2], size[2]);
        check_sum("sum_squares", n, micro->sum_squares(a, n), square, square);
        assert_true(micro->max(a, n) == largest);
        micro->axpy_f32(y[0], 0.75f, b, n);
        micro->axpy_f16(y[1], 0.75f, f16, n);
        micro->axpy_bf16(y[2], 0.75f, bf16, n);
        for (int i = 0; i < n; i++) {
            check_sum("axpy_f32", 1, y[0][i], a[i] + 0.75 * b[i], 3);
            check_sum("axpy_f16", 1, y[1][i], a[i] + 0.75 * f16_to_f32(f16[i]), 3);
            check_sum("axpy_bf16", 1, y[2][i], a[i] + 0.75 * bf16_to_f32(bf16[i]), 3);
        }
    }
}

/* A row of x among twelve, of which some tables widen weights first, and alone. */
static void tile_gives_a_row_the_same_alone(void **state)
{
    enum { K = 1700, X = 12, W = MICRO_ROWS };
    static const pm_dtype types[] = {PM_F32, PM_F16, PM_BF16};
    static _Alignas(MICRO_ALIGNMENT) float room[MICRO_ROOM];
    static _Alignas(MICRO_ALIGNMENT) uint16_t narrow[X][K], packed[X * (K + 32)];
    static float x[X][K], w[W][K];
    (void)state;
    for (int i = 0; i < X * K; i++)
        x[i / K][i % K] = random_value();
    for (int t = 0; t < 3; t++) {
        const struct micro_map *map = &micro->map[types[t]];
        float y[X][W], alone[W];
        const float *wide[X];
        const void *rows[X];
        struct tile tile = {.n_w = W,
                            .n_x = X,
                            .k = K,
                            .x = rows,
                            .packed = packed,
                            .y = y[0],
                            .y_stride = W,
                            .room = room};
        for (int i = 0; i < X; i++) {
            micro->to_bf16(narrow[i], x[i], K);
            wide[i] = x[i];
            rows[i] = map->x_type == PM_BF16 ? (const void *)narrow[i] : x[i];
        }
        for (int j = 0; j < W; j++) {
            uint16_t *half = (uint16_t *)(void *)w[j];
            for (int k = 0; k < K; k++) {
                float v = random_value();
                if (types[t] == PM_F32) w[j][k] = v;
                if (types[t] == PM_F16) half[k] = f32_to_f16(v);
                if (types[t] == PM_BF16) half[k] = f32_to_bf16(v);
            }
        }
        for (int j = 0; j < MICRO_PACKED_ROWS; j++)
            tile.w[j] = w[j < W ? j : W - 1];
        if (map->pack) map->pack(packed, wide, X, K);
        map->tile(&tile);
        tile.n_x = 1;
        tile.y = alone;
        if (map->pack) map->pack(packed, wide, 1, K);
        map->tile(&tile);
        assert_memory_equal(y[0], alone, sizeof alone);
    }
}

static void tables_are_chosen_by_name(void **state)
{
    const struct micro *m = NULL;
    (void)state;
    assert_int_equal(micro_select(&m, "sse9"), PM_ERR_ARG);
    assert_null(m);
    assert_int_equal(micro_select(&m, "generic"), PM_OK);
    assert_string_equal(m->name, "generic");
    assert_int_equal(micro_select(&m, NULL), PM_OK);
    assert_true(m->available());
    assert_int_equal(micro_select(&m, ""), PM_OK);
}

int main(void)
{
    static const char *const names[] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_accurate),
        cmocka_unit_test(exp_knows_the_ends),
        cmocka_unit_test(elements_do_not_know_their_neighbours),
        cmocka_unit_test(glu_is_accurate),
        cmocka_unit_test(conversions_round_to_nearest_even),
        cmocka_unit_test(conversions_widen_exactly),
        cmocka_unit_test(sums_match_double),
        cmocka_unit_test(tile_gives_a_row_the_same_alone),
        cmocka_unit_test(tables_are_chosen_by_name),
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (micro_select(&micro, names[i]) != PM_OK) {
            printf("%s: skipped, %s\n", names[i], pm_last_error());
            continue;
        }
        failed += cmocka_run_group_tests_name(names[i], tests, NULL, NULL);
    }
    return failed != 0;
}
