/* rope_test.c - the table of angles and the rotation of heads. */
#include <math.h>
#include <string.h>

#include "tests/oracle/oracle.h"
#include "tests/oracle/rig.h"

enum { MAX_POSITION = 1 << 17 };

/* A rotation: n pairs of each of n_head heads of head_dim, from `offset` on. */
struct shape {
    int n_row, n_head, head_dim, offset, n;
};

struct table {
    float *cosine, *sine;
};

static int32_t *positions(struct rig *rig, int n_row)
{
    int32_t *position = rig_take(rig, n_row, sizeof *position);
    for (int r = 0; r < n_row; r++) {
        position[r] = r == 0 ? 0 : rig_below(rig, r % 2 ? 64 : MAX_POSITION);
    }
    return position;
}

static float *frequencies(struct rig *rig, int n)
{
    float *inv_freq = rig_take(rig, n, sizeof *inv_freq);
    for (int i = 0; i < n; i++) {
        inv_freq[i] = (float)pow(10000, -(double)i / n);
    }
    return inv_freq;
}

static struct table make_table(struct rig *rig, const int32_t *position, int n_row, int n,
                               float factor)
{
    struct table t = {rig_take(rig, (int64_t)n_row * n, sizeof(float)),
                      rig_take(rig, (int64_t)n_row * n, sizeof(float))};
    expect_ok(rig->k->rope_table(rig->d, t.cosine, t.sine, position, n_row, frequencies(rig, n),
                                 n, factor));
    return t;
}

static void rotate(struct rig *rig, struct device *d, struct tensor x, const struct shape *s,
                   const struct table *t, bool interleaved)
{
    expect_ok(rig->k->rope(d, x, s->n_head, s->offset, t->cosine, t->sine, s->n, interleaved));
}

static void table_matches_oracle(void **state)
{
    struct rig *rig = *state;
    static const int rows[] = {0, 1, 3, 257}, width[] = {1, 16, 33, 64};
    static const float factor[] = {1, 1.3465736f};
    for (int c = 0; c < 4 * 4 * 2; c++) {
        int n_row = rows[c % 4], n = width[c / 4 % 4];
        int64_t all = (int64_t)n_row * n;
        int32_t *position = positions(rig, n_row);
        float *inv_freq = frequencies(rig, n);
        double *want = rig_doubles(rig, 2 * all), *bound = rig_doubles(rig, 2 * all);
        struct table t = make_table(rig, position, n_row, n, factor[c / 16]);
        struct tensor cosine = tensor_view(t.cosine, PM_F32, n_row, n);
        struct tensor sine = tensor_view(t.sine, PM_F32, n_row, n);
        oracle_rope_table(want, bound, position, n_row, inv_freq, n, factor[c / 16]);
        expect_close("cosine", &cosine, want, bound);
        expect_close("sine", &sine, want + all, bound + all);
    }
}

static const struct shape shapes[] = {
    {0, 4, 64, 0, 32},     /* no rows */
    {1, 1, 2, 0, 1},       /* the smallest head */
    {3, 16, 64, 0, 32},    /* whole heads */
    {257, 2, 80, 0, 40},   /* */
    {5, 3, 96, 0, 48},     /* */
    {5, 2, 128, 0, 32},    /* half of a head (GLM-4.5, MiniMax-M2) */
    {9, 2, 24, 0, 6},      /* */
    {7, 16, 192, 128, 32}, /* the end of a head (MLA queries) */
    {7, 1, 576, 512, 32},  /* behind a latent (MLA keys) */
    {33, 5, 9, 2, 3},      /* an odd head */
};

static void rotation_matches_oracle(void **state)
{
    struct rig *rig = *state;
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i / 2];
        struct tensor x = rig_matrix(rig, s->n_row, (int64_t)s->n_head * s->head_dim);
        struct table t = make_table(rig, positions(rig, s->n_row), s->n_row, s->n, 1.2f);
        double *want = rig_doubles(rig, x.rows * x.cols);
        double *bound = rig_doubles(rig, x.rows * x.cols);
        oracle_rope(want, bound, x, s->n_head, s->offset, t.cosine, t.sine, s->n, i % 2);
        rotate(rig, rig->d, x, s, &t, i % 2);
        expect_close(i % 2 ? "interleaved" : "half-split", &x, want, bound);
    }
}

/* Where a row stands decides how it is read, not what becomes of it. */
static void round_addresses_leave_no_trace(void **state)
{
    struct rig *rig = *state;
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i / 2];
        struct tensor x = rig_matrix(rig, s->n_row, (int64_t)s->n_head * s->head_dim);
        struct tensor even = rig_round(rig, &x, PM_F32);
        struct table t = make_table(rig, positions(rig, s->n_row), s->n_row, s->n, 1.2f);
        rotate(rig, rig->d, x, s, &t, i % 2);
        rotate(rig, rig->d, even, s, &t, i % 2);
        expect_same(i % 2 ? "interleaved" : "half-split", &even, &x);
    }
}

/* Neighbours and halves are the same rotation of other values. */
static void interleaved_is_half_split_of_moved_values(void **state)
{
    struct rig *rig = *state;
    const struct shape s = {9, 3, 40, 6, 16};
    struct tensor x = rig_matrix(rig, s.n_row, 120), moved = rig_copy(rig, &x);
    struct table t = make_table(rig, positions(rig, s.n_row), s.n_row, s.n, 1);
    for (int step = 0; step < 2; step++) {
        for (int r = 0; r < s.n_row; r++) {
            for (int j = 0; j < s.n_head * s.n; j++) {
                int base = j / s.n * s.head_dim + s.offset, i = j % s.n;
                float *from = rig_row(&x, r) + base, *to = rig_row(&moved, r) + base;
                if (step == 0) {
                    to[2 * i] = from[i];
                    to[2 * i + 1] = from[i + s.n];
                } else if (to[2 * i] != from[i] || to[2 * i + 1] != from[i + s.n]) {
                    rig_fail("row %d, pair %d differs", r, i);
                }
            }
        }
        if (step == 1) break;
        rotate(rig, rig->d, x, &s, &t, false);
        rotate(rig, rig->d, moved, &s, &t, true);
    }
}

/* The product of rows 0 and 1 of x, rotated to two positions, and what it may be off by. */
static double product(struct rig *rig, const struct tensor *x, const int32_t *position,
                      bool interleaved, double *bound)
{
    const struct shape s = {2, 1, 64, 0, 32};
    struct tensor y = rig_copy(rig, x);
    struct table t = make_table(rig, rig_ints(rig, position, 2), 2, s.n, 1);
    double sum = 0, size = 0;
    rotate(rig, rig->d, y, &s, &t, interleaved);
    for (int i = 0; i < 64; i++) {
        double term = (double)rig_row(&y, 0)[i] * rig_row(&y, 1)[i];
        sum += term;
        size += fabs(term);
    }
    /* The angle of each row is a float32 product of its position. */
    *bound = 2 * size * (position[0] + 8) * FLOAT_UNIT;
    return sum;
}

/* What a model needs of it. */
static void products_depend_on_the_distance_alone(void **state)
{
    static const int32_t near[] = {7, 3}, far[] = {2004, 2000}, other[] = {7, 2};
    struct rig *rig = *state;
    struct tensor x = rig_matrix(rig, 2, 64);
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        double bound;
        double a = product(rig, &x, near, interleaved, &bound);
        double c = product(rig, &x, other, interleaved, &bound);
        double b = product(rig, &x, far, interleaved, &bound);
        assert_true(fabs(a - b) <= 2 * bound);
        assert_false(fabs(a - c) <= 2 * bound);
    }
}

static void a_row_depends_on_itself_alone(void **state)
{
    struct rig *rig = *state;
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i / 2];
        struct tensor x = rig_matrix(rig, s->n_row, (int64_t)s->n_head * s->head_dim);
        struct tensor y = rig_copy(rig, &x);
        int32_t *position = positions(rig, s->n_row);
        struct table t = make_table(rig, position, s->n_row, s->n, 1);
        rotate(rig, rig->d, y, s, &t, i % 2);
        for (int device = 0; device < RIG_DEVICES; device++) {
            struct tensor again = rig_copy(rig, &x);
            rotate(rig, rig->device[device], again, s, &t, i % 2);
            expect_same("threads", &again, &y);
        }
        for (int r = 0; r < s->n_row; r++) {
            struct tensor row = tensor_rows(&x, r, 1), one = rig_copy(rig, &row);
            struct tensor part = tensor_rows(&y, r, 1);
            struct table own = make_table(rig, &position[r], 1, s->n, 1);
            rotate(rig, rig->d, one, s, &own, i % 2);
            expect_same("one row", &one, &part);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(table_matches_oracle),
        RIG_TEST(rotation_matches_oracle),
        RIG_TEST(round_addresses_leave_no_trace),
        RIG_TEST(interleaved_is_half_split_of_moved_values),
        RIG_TEST(products_depend_on_the_distance_alone),
        RIG_TEST(a_row_depends_on_itself_alone),
    };
    return rig_run("rope", tests, sizeof tests / sizeof *tests);
}
