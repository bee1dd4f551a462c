/* linear_test.c - linear maps of every weight type against the oracle, and their promise: the
 * bits of a row of y depend on its row of x and on the weights alone. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/kernels/linear_mirror.h"
#include "tests/oracle/oracle.h"
#include "tests/oracle/rig.h"

#define F16_UNIT 0x1p-10 /* as BF16_UNIT, for values that become f16 */

enum { SHIFT = 1 }; /* bytes by which stored weights miss every alignment */

static const pm_dtype types[] = {PM_F32, PM_F16, PM_BF16, PM_F8_E4M3, PM_MXFP4};
enum { N_TYPE = sizeof types / sizeof *types };

/* Lengths of the reduction: around vectors, scale blocks and passes over K, and from models. */
static const int64_t lengths[] = {1,   2,   8,    15,   16,   17,   31,   32,   33,  44,  64,
                                  88,  127, 128,  129,  160,  257,  704,  767,  768, 769, 800,
                                  896, 897, 1408, 1536, 1537, 2048, 2080, 2880, 4128};
enum { N_LENGTH = sizeof lengths / sizeof *lengths };

static bool fits(pm_dtype type, int64_t k)
{
    return type != PM_MXFP4 || k % 32 == 0;
}

/* The same rows with `gap` bytes between them, `shift` bytes from an aligned address. */
static struct tensor moved(struct rig *rig, const struct tensor *t, int64_t gap, int shift)
{
    int64_t bytes = t->cols * dtype_bits(t->type) / 8;
    struct tensor to = *t;
    if (!t->data) return to;
    to.stride = bytes + gap;
    to.data = (char *)rig_take(rig, t->rows * to.stride + shift, 1) + shift;
    for (int64_t r = 0; r < t->rows; r++) {
        memcpy((char *)to.data + r * to.stride, (char *)t->data + r * t->stride, (size_t)bytes);
    }
    return to;
}

/* The same weights at an odd address. */
static struct tensor misplaced(struct rig *rig, struct tensor t, int64_t gap)
{
    return moved(rig, &t, gap, SHIFT);
}

/* The same tensors at addresses that the oracle may read from. */
static const struct tensor *aligned(struct rig *rig, const struct tensor *t, int n)
{
    struct tensor *to;
    if (!t) return NULL;
    to = rig_take(rig, n, sizeof *to);
    for (int i = 0; i < n; i++)
        to[i] = moved(rig, &t[i], 0, 0);
    return to;
}

static void oracle(struct rig *rig, double *want, double *bound, struct linear op, double unit)
{
    int n = op.rows ? op.rows->n_expert : 1;
    op.w = aligned(rig, op.w, n);
    op.w_up = aligned(rig, op.w_up, n);
    op.b = aligned(rig, op.b, n);
    op.b_up = aligned(rig, op.b_up, n);
    oracle_linear(want, bound, &op, unit);
}

/* A weight of the rig, a few rows into what it makes, so that scales do not begin with it. */
static struct tensor weights(struct rig *rig, pm_dtype type, int64_t n, int64_t k)
{
    struct tensor t = rig_weights(rig, type, n + 3, k);
    return misplaced(rig, tensor_rows(&t, 3, n), 5);
}

static struct tensor bias_of(struct rig *rig, pm_dtype type, int64_t n)
{
    return misplaced(rig, rig_weights(rig, type, 1, n), 0);
}

static struct tensor bias(struct rig *rig, int64_t n)
{
    static const pm_dtype of[] = {PM_F32, PM_F16, PM_BF16};
    return bias_of(rig, of[rig_below(rig, 3)], n);
}

/* A backend with memory of its own narrows x to the type that its weights widen to. */
static double unit_of(const struct rig *rig, pm_dtype type)
{
    bool narrow = type == PM_BF16 || type == PM_F8_E4M3 || type == PM_MXFP4;
    if (rig->k->host_memory) return narrow ? rig->bf16_unit : 0;
    return narrow ? BF16_UNIT : type == PM_F16 ? F16_UNIT : 0;
}

/* The operation on a device, with tensors of the host: a device with memory of its own gets
 * copies, the tensors of all experts at equal distances. */
static void run(struct rig *rig, struct device *d, const struct linear *op)
{
    struct mirror m = {.k = rig->k, .d = d};
    struct linear on;
    if (rig->k->host_memory) {
        expect_ok(rig->k->linear(d, op, 1));
        return;
    }
    on = mirror_linear(&m, op, 0);
    expect_ok(rig->k->reserve(d, op->x.rows, op->x.cols, 1));
    expect_ok(rig->k->linear(d, &on, 1));
    mirror_back(&m, &op->y, &on.y);
    mirror_free(&m);
}

static void check(struct rig *rig, const char *what, const struct linear *op)
{
    int64_t n = op->y.rows * op->y.cols;
    double *want = rig_doubles(rig, n), *bound = rig_doubles(rig, n);
    char name[128];
    snprintf(name, sizeof name, "%s %s [%d,%d] x %d", what, dtype_name(op->w[0].type),
             (int)op->w[0].rows, (int)op->w[0].cols, (int)op->y.rows);
    oracle(rig, want, bound, *op, unit_of(rig, op->w[0].type));
    run(rig, rig->d, op);
    expect_close(name, &op->y, want, bound);
}

/* y = w x + b */
static void check_plain(struct rig *rig, pm_dtype type, int64_t n_row, int64_t n, int64_t k)
{
    struct tensor w = weights(rig, type, n, k), b = bias(rig, n);
    struct linear op = {.y = rig_matrix(rig, n_row, n), .x = rig_matrix(rig, n_row, k)};
    op.w = &w;
    if (rig_below(rig, 2)) op.b = &b;
    check(rig, "plain", &op);
}

static void linear_matches_oracle_for_each_length(void **state)
{
    for (int t = 0; t < N_TYPE; t++) {
        for (int i = 0; i < N_LENGTH; i++) {
            if (!fits(types[t], lengths[i])) continue;
            check_plain(*state, types[t], 1, 3, lengths[i]);
            check_plain(*state, types[t], 9, 9, lengths[i]);
        }
    }
}

static void linear_matches_oracle_for_each_shape(void **state)
{
    static const int64_t columns[] = {1, 2, 3, 4, 5, 7, 8, 9, 130, 257};
    static const int64_t rows[] = {0, 1, 2, 3, 4, 5, 7, 8, 12, 25, 193, 200};
    for (int t = 0; t < N_TYPE; t++) {
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
            for (size_t j = 0; j < sizeof rows / sizeof *rows; j++) {
                check_plain(*state, types[t], rows[j], columns[i], 64);
            }
        }
    }
}

static void linear_gates(void **state)
{
    static const struct glu kinds[] = {
        {GLU_SILU, 0, 0}, {GLU_GELU, 0, 0}, {GLU_CLAMPED, 1.702f, 0.7f}};
    struct rig *rig = *state;
    for (int i = 0; i < 3 * N_TYPE; i++) {
        for (int64_t n_row = 1; n_row < 24; n_row += 11) {
            pm_dtype type = types[i / 3];
            struct tensor w[2] = {weights(rig, type, 37, 96), weights(rig, type, 37, 96)};
            struct tensor b[2] = {bias(rig, 37), bias(rig, 37)};
            struct linear op = {.y = rig_matrix(rig, n_row, 37),
                                .x = rig_matrix(rig, n_row, 96),
                                .w = &w[0],
                                .w_up = &w[1],
                                .glu = kinds[i % 3]};
            if (rig_below(rig, 2)) op.b = &b[0];
            if (rig_below(rig, 2)) op.b_up = &b[1];
            check(rig, "gated", &op);
        }
    }
}

/* Two views with double stride on one matrix, as gpt-oss stores gate and up. */
static void linear_takes_interleaved_rows(void **state)
{
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        struct tensor both = rig_weights(rig, types[t], 2 * 21, 160), w[2] = {both, both};
        struct linear op = {.y = rig_matrix(rig, 10, 21), .x = rig_matrix(rig, 10, 160)};
        if (types[t] == PM_F8_E4M3) continue; /* its scales cover rows that lie together */
        for (int i = 0; i < 2; i++) {
            w[i].rows = 21;
            w[i].data = (char *)both.data + i * both.stride;
            w[i].stride = 2 * both.stride;
            if (both.scale) w[i].scale = (const char *)both.scale + i * both.scale_stride;
            w[i].scale_stride = 2 * both.scale_stride;
        }
        op.w = &w[0];
        op.w_up = &w[1];
        op.glu.kind = GLU_SILU;
        check(rig, "interleaved", &op);
    }
}

enum { EXPERTS = 9, GROUPED_ROWS = 150 };

struct grouped {
    struct tensor w[EXPERTS], up[EXPERTS], b[EXPERTS];
    int32_t offset[EXPERTS + 1], source[GROUPED_ROWS];
    struct ragged rows;
    struct linear op;
};

/* Experts with no row, one row and many, each row of x used several times. Where weights stay
 * where they are, experts may differ in the type of their bias and in having one. */
static void make_grouped(struct rig *rig, struct grouped *g, pm_dtype type, int64_t n,
                         int64_t k)
{
    static const int32_t offset[EXPERTS + 1] = {0, 0, 1, 4, 4, 40, 50, 57, 57, GROUPED_ROWS};
    memcpy(g->offset, offset, sizeof offset);
    for (int e = 0; e < EXPERTS; e++) {
        g->w[e] = weights(rig, type, n, k);
        g->up[e] = weights(rig, type, n, k);
        g->b[e] = rig->k->host_memory ? bias(rig, n) : bias_of(rig, PM_BF16, n);
        if (e % 3 == 1 && rig->k->host_memory) g->b[e].data = NULL;
    }
    for (int r = 0; r < GROUPED_ROWS; r++)
        g->source[r] = rig_below(rig, 40);
    g->rows = (struct ragged){EXPERTS, GROUPED_ROWS, g->offset, g->source};
    g->op = (struct linear){.y = rig_matrix(rig, GROUPED_ROWS, n),
                            .x = rig_matrix(rig, 40, k),
                            .w = g->w,
                            .b = g->b,
                            .w_up = g->up,
                            .glu = {GLU_SILU, 0, 0},
                            .rows = &g->rows};
}

static void linear_groups_rows_by_expert(void **state)
{
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        struct grouped g;
        make_grouped(rig, &g, types[t], 20, 96);
        check(rig, "grouped gated", &g.op);
        g.op.w_up = NULL;
        g.op.glu.kind = GLU_NONE;
        check(rig, "grouped", &g.op);
        g.op.x = rig_matrix(rig, GROUPED_ROWS + 4, 96);
        g.rows.source = NULL;
        check(rig, "grouped in place", &g.op);
    }
}

/* Experts of one layer may be stored in different types. */
static void linear_mixes_types_of_experts(void **state)
{
    struct rig *rig = *state;
    struct grouped g;
    if (!rig->k->host_memory) return; /* refused: cuda_linear_test.c */
    make_grouped(rig, &g, PM_F32, 12, 64);
    for (int e = 0; e < EXPERTS; e++) {
        g.w[e] = weights(rig, types[e % N_TYPE], 12, 64);
        g.up[e] = weights(rig, types[(e + 1) % N_TYPE], 12, 64);
    }
    int64_t n = g.op.y.rows * g.op.y.cols;
    double *want = rig_doubles(rig, n), *bound = rig_doubles(rig, n);
    oracle(rig, want, bound, g.op, rig->bf16_unit);
    expect_ok(rig->k->linear(rig->d, &g.op, 1));
    expect_close("mixed", &g.op.y, want, bound);
}

static void linear_runs_several_operations(void **state)
{
    enum { OPS = 5 };
    struct rig *rig = *state;
    if (!rig->k->host_memory) return; /* cuda_linear_test.c has this */
    struct tensor w[OPS], x[2] = {rig_matrix(rig, 11, 96), rig_matrix(rig, 11, 96)};
    struct linear op[OPS];
    for (int i = 0; i < OPS; i++) {
        w[i] = weights(rig, types[i], 8 + 9 * i, 96);
        op[i] = (struct linear){.y = rig_matrix(rig, 11, w[i].rows), .x = x[i % 2], .w = &w[i]};
    }
    expect_ok(rig->k->linear(rig->d, op, OPS));
    for (int i = 0; i < OPS; i++) {
        struct linear alone = op[i];
        alone.y = rig_matrix(rig, 11, w[i].rows);
        check(rig, "one of several", &alone);
        expect_same("one of several", &op[i].y, &alone.y);
    }
    expect_ok(rig->k->linear(rig->d, op, 0));
}

/* Rows of y at the given rows of x. */
static struct tensor rows_alone(struct rig *rig, const struct linear *op)
{
    struct tensor y = rig_matrix(rig, op->x.rows, op->y.cols);
    for (int64_t r = 0; r < op->x.rows; r++) {
        struct linear one = *op;
        one.x = tensor_rows(&op->x, r, 1);
        one.y = tensor_rows(&y, r, 1);
        run(rig, rig->d, &one);
    }
    return y;
}

static void row_is_the_same_among_any_number_of_rows(void **state)
{
    static const int64_t length[] = {33, 160, 800, 2080};
    struct rig *rig = *state;
    for (int i = 0; i < 4 * N_TYPE; i++) {
        pm_dtype type = types[i / 4];
        int64_t k = fits(type, length[i % 4]) ? length[i % 4] : 96;
        struct tensor w = weights(rig, type, 13, k);
        struct linear op = {.x = rig_matrix(rig, 70, k), .y = rig_matrix(rig, 70, 13), .w = &w};
        struct tensor alone = rows_alone(rig, &op), x = op.x, y = op.y;
        for (int64_t n = 1; n <= 70; n++) {
            op.x = tensor_rows(&x, 70 - n, n);
            op.y = tensor_rows(&y, 70 - n, n);
            struct tensor want = tensor_rows(&alone, 70 - n, n);
            run(rig, rig->d, &op);
            expect_same(dtype_name(type), &op.y, &want);
        }
    }
}

/* The same weights as several experts, rows in another order: each row keeps its bits. */
static void row_is_the_same_in_any_order_and_expert(void **state)
{
    enum { ROWS = 70, PARTS = 6 };
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        struct tensor w = weights(rig, types[t], 21, 1600), experts[PARTS];
        struct linear op = {
            .x = rig_matrix(rig, ROWS, 1600), .y = rig_matrix(rig, ROWS, 21), .w = &w};
        struct tensor alone = rows_alone(rig, &op), got = rig_matrix(rig, ROWS, 21);
        int32_t source[ROWS], offset[PARTS + 1] = {0, 3, 3, 20, 21, 28, ROWS};
        struct ragged rows = {PARTS, ROWS, offset, source};
        for (int e = 0; e < PARTS; e++)
            experts[e] = misplaced(rig, w, e);
        for (int r = 0; r < ROWS; r++)
            source[r] = r;
        rig_shuffle(rig, source, ROWS);
        op.w = experts;
        op.rows = &rows;
        run(rig, rig->d, &op);
        for (int r = 0; r < ROWS; r++) {
            memcpy(rig_row(&got, source[r]), rig_row(&op.y, r), 21 * sizeof(float));
        }
        expect_same(dtype_name(types[t]), &got, &alone);
    }
}

static void row_is_the_same_with_any_number_of_threads(void **state)
{
    struct rig *rig = *state;
    struct device *seven;
    expect_ok(rig->k->open(&seven, 0, 7));
    for (int t = 0; t < N_TYPE; t++) {
        struct device *const device[] = {rig->device[0], rig->device[1], rig->device[2], seven};
        struct grouped g;
        make_grouped(rig, &g, types[t], 70, 352);
        run(rig, rig->d, &g.op);
        for (int i = 0; i < 4; i++) {
            struct linear op = g.op;
            op.y = rig_matrix(rig, GROUPED_ROWS, 70);
            run(rig, device[i], &op);
            expect_same(dtype_name(types[t]), &op.y, &g.op.y);
        }
    }
    rig->k->close(seven);
}

/* Every number of the small types, alone with a one, must come out exactly. */
static void codes_widen_exactly(void **state)
{
    struct rig *rig = *state;
    struct tensor f8 = rig_weights(rig, PM_F8_E4M3, 256, 128);
    struct tensor f4 = rig_weights(rig, PM_MXFP4, 256, 32);
    struct linear op = {.x = rig_matrix(rig, 1, 128), .y = rig_matrix(rig, 1, 256), .w = &f8};
    for (int i = 0; i < 128; i++)
        rig_row(&op.x, 0)[i] = i == 77 || i == 9;
    for (int c = 0; c < 256; c++) {
        memset((char *)f8.data + c * f8.stride, 0, 128);
        ((uint8_t *)f8.data)[c * f8.stride + 77] = (uint8_t)((c & 0x7f) == 0x7f ? 0 : c);
        memset((char *)f4.data + c * f4.stride, 0, 16);
        ((uint8_t *)f4.data)[c * f4.stride + 4] = (uint8_t)(c % 16 << 4 | c % 16);
        ((uint8_t *)(uintptr_t)f4.scale)[c * f4.scale_stride] = (uint8_t)(c / 16 * 16 + 3);
    }
    check(rig, "codes", &op);
    op.w = &f4;
    op.x.cols = 32;
    op.x.stride = 32 * sizeof(float);
    check(rig, "codes", &op);
}

/* The smallest scale of MXFP4, whose values bf16 may flush, and the one that is no number, for
 * few rows and for many. */
static void scales_at_their_ends_keep_to_their_row(void **state)
{
    static const int64_t n_row[] = {1, 9, 50};
    struct rig *rig = *state;
    struct tensor w = rig_weights(rig, PM_MXFP4, 40, 160);
    uint8_t *scale = (uint8_t *)(uintptr_t)w.scale;
    scale[2 * w.scale_stride + 1] = 0;
    scale[35 * w.scale_stride + 4] = 255;
    for (int i = 0; i < 3; i++) {
        struct linear op = {
            .x = rig_matrix(rig, n_row[i], 160), .y = rig_matrix(rig, n_row[i], 40), .w = &w};
        check(rig, "ends of scales", &op);
        assert_true(isnan(rig_row(&op.y, 0)[35]));
    }
}

static void linear_refuses_what_does_not_fit(void **state)
{
    struct rig *rig = *state;
    struct tensor w = rig_weights(rig, PM_BF16, 8, 32), b = bias(rig, 8), bad;
    struct linear good = {.x = rig_matrix(rig, 2, 32), .y = rig_matrix(rig, 2, 8), .w = &w};
    struct linear op = good;
    bad = w;
    bad.cols = 31;
    op.w = &bad;
    expect_error(rig->k->linear(rig->d, &op, 1), PM_ERR_ARG, "[8,31], wanted [8,32]");
    bad = w;
    bad.type = PM_I32;
    expect_error(rig->k->linear(rig->d, &op, 1), PM_ERR_UNSUPPORTED, "I32");
    op = good;
    op.y.rows = 1;
    expect_error(rig->k->linear(rig->d, &op, 1), PM_ERR_ARG, "2 rows");
    op = good;
    op.glu.kind = GLU_SILU;
    expect_error(rig->k->linear(rig->d, &op, 1), PM_ERR_ARG, "gated");
    op = good;
    b.cols = 7;
    op.b = &b;
    expect_error(rig->k->linear(rig->d, &op, 1), PM_ERR_ARG, "bias");
    bad = rig_weights(rig, PM_F8_E4M3, 8, 32);
    bad.scale = NULL;
    op = good;
    op.w = &bad;
    expect_error(rig->k->linear(rig->d, &op, 1), PM_ERR_ARG, "without scales");
    bad = rig_weights(rig, PM_MXFP4, 8, 64);
    bad.cols = 48;
    op = good;
    op.w = &bad;
    op.x.cols = 48;
    expect_error(rig->k->linear(rig->d, &op, 1), PM_ERR_ARG, "multiple of 32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(linear_matches_oracle_for_each_length),
        RIG_TEST(linear_matches_oracle_for_each_shape),
        RIG_TEST(linear_gates),
        RIG_TEST(linear_takes_interleaved_rows),
        RIG_TEST(linear_groups_rows_by_expert),
        RIG_TEST(linear_mixes_types_of_experts),
        RIG_TEST(linear_runs_several_operations),
        RIG_TEST(row_is_the_same_among_any_number_of_rows),
        RIG_TEST(row_is_the_same_in_any_order_and_expert),
        RIG_TEST(row_is_the_same_with_any_number_of_threads),
        RIG_TEST(codes_widen_exactly),
        RIG_TEST(scales_at_their_ends_keep_to_their_row),
        RIG_TEST(linear_refuses_what_does_not_fit),
    };
    return rig_run("linear", tests, sizeof tests / sizeof *tests);
}
