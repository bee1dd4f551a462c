/* cuda_linear_test.c - the CUDA linear maps tile by tile: against the oracle, and their promise
 * that the bits of an output depend neither on the tile nor on the path of a copy.
 *
 * linear_test.c has the operation as such. Here every kernel that the plan may choose runs, by
 * plans of the test's own, on a GPU or on the emulator. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if !defined(TEST_CUDA)

int main(void)
{
    return 77; /* without CUDA there is nothing to test */
}

#else

#include "kernels/cuda/linear.h"
#include "tests/kernels/backends.h"
#include "tests/kernels/linear_mirror.h"
#include "tests/oracle/oracle.h"

#define F16_UNIT                                                                               \
    0x1p-10 /* as BF16_UNIT: twice the share of a rounding, room for its products */

static struct rig rig_memory;

static const pm_dtype types[] = {PM_F32, PM_F16, PM_BF16, PM_F8_E4M3, PM_MXFP4};
enum { N_TYPE = sizeof types / sizeof *types };

static const struct glu glus[] = {
    {GLU_NONE, 0, 0}, {GLU_SILU, 0, 0}, {GLU_GELU, 0, 0}, {GLU_CLAMPED, 1.702f, 0.7f}};
enum { N_GLU = sizeof glus / sizeof *glus };

static double unit_of(pm_dtype type)
{
    return type == PM_F32 ? 0 : type == PM_F16 ? F16_UNIT : BF16_UNIT;
}

static struct linear_machine machine(const struct rig *rig)
{
    return (struct linear_machine){rig->d->sm, rig->d->n_sm, rig->d->smem_block};
}

/* Narrows x as cuda_linear does. */
static void narrow(struct mirror *m, struct linear_params *p)
{
    pm_dtype type = linear_x_type(p->w.type);
    int64_t stride = (p->k * 2 + 15) / 16 * 16;
    char *zero = calloc(1, (size_t)(p->x_rows * stride + 1)), *to;
    to = mirror_copy(m, zero, p->x_rows * stride);
    free(zero);
    if (type == PM_F32 || type == p->x_type) return;
    expect_ok(cuda_convert_rows(m->d, to, type, stride, p->x, p->x_type, p->x_stride, p->x_rows,
                                p->k));
    p->x = to;
    p->x_type = type;
    p->x_stride = stride;
}

/* op, in host memory, with this plan; NULL: the planned one, through cuda_linear. */
static void run(struct rig *rig, const struct linear *op, const struct linear_plan *plan,
                int64_t gap)
{
    struct mirror m = {.k = rig->k, .d = rig->d};
    struct linear on = mirror_linear(&m, op, gap);
    if (plan) {
        struct linear_params p;
        expect_ok(linear_params_of(&p, &on));
        narrow(&m, &p);
        expect_ok(linear_launch(rig->d, &p, plan));
    } else {
        expect_ok(rig->k->reserve(rig->d, op->x.rows, op->x.cols, 1));
        expect_ok(rig->k->linear(rig->d, &on, 1));
    }
    expect_ok(rig->k->sync(rig->d));
    mirror_back(&m, &op->y, &on.y);
    mirror_free(&m);
}

/* The plans for a type that this machine admits; returns how many. */
static int plans(const struct rig *rig, struct linear_plan *out, pm_dtype type, int n_expert)
{
    struct linear_machine m = machine(rig);
    struct linear_shape s = {.type = type, .n_expert = n_expert};
    int n_tile, n = 0;
    bool f32 = type == PM_F32;
    const struct linear_tile *tile =
        f32 ? linear_f32_tiles(&n_tile) : linear_mma_tiles(&n_tile);
    for (int i = 0; i < n_tile; i++) {
        out[n] = (struct linear_plan){f32 ? LINEAR_F32 : LINEAR_MMA, tile[i].weight_tile,
                                      tile[i].row_tile, ""};
        n += linear_plan_ok(&m, &s, &out[n]);
    }
    if (n < 2) rig_fail("%d plans for %s", n, dtype_name(type));
    return n;
}
enum { MAX_PLAN = 16 };

/* A BF16 matrix as one of floats. */
static struct tensor widened(struct rig *rig, const struct tensor *t)
{
    struct tensor to =
        tensor_view(rig_floats(rig, t->rows * t->cols, 0), PM_F32, t->rows, t->cols);
    for (int64_t i = 0; i < t->rows * t->cols; i++)
        ((float *)to.data)[i] = (float)oracle_value(t, i / t->cols, i % t->cols);
    return to;
}

static void expect_oracle(struct rig *rig, const char *what, const struct linear *op)
{
    int64_t n = op->y.rows * op->y.cols;
    double *want = rig_doubles(rig, n), *bound = rig_doubles(rig, n);
    struct tensor y = op->y;
    oracle_linear(want, bound, op, unit_of(op->w[0].type));
    if (y.type == PM_BF16) {
        y = widened(rig, &op->y);
        for (int64_t i = 0; i < n; i++)
            bound[i] += (want[i] < 0 ? -want[i] : want[i]) * 0x1p-8;
    }
    expect_close(what, &y, want, bound);
}

/* The plans of wgmma for an operation that admits them; returns how many. Two of them take the
 * kernel of 64 weights where nothing is gated. */
static int wgmma_plans(const struct rig *rig, struct linear_plan *out, const struct linear *op,
                       int64_t gap)
{
    static const struct linear_tile tile[] = {{64, 16}, {128, 16}, {128, 64}, {128, 128}};
    pm_dtype type = op->w[0].type;
    struct linear_machine m = machine(rig);
    struct linear_shape s = {.type = type,
                             .aligned = op->x.cols * dtype_bits(type) / 8 % 16 == 0 &&
                                        op->x.cols % 8 == 0 && gap % 16 == 0};
    int n = 0;
    for (size_t i = 0; i < sizeof tile / sizeof *tile; i++) {
        out[n] =
            (struct linear_plan){LINEAR_SM90, tile[i].weight_tile, tile[i].row_tile, "test"};
        n += linear_plan_ok(&m, &s, &out[n]);
    }
    return n;
}

/* Every plan gives the oracle's values and the first one's bits. */
static void check_plans(struct rig *rig, const struct linear *op, int64_t gap,
                        const struct linear_plan *plan, int n)
{
    struct linear first = *op;
    for (int i = 0; i < n; i++) {
        char what[128];
        struct linear at = *op;
        at.y = rig_copy(rig, &op->y);
        snprintf(what, sizeof what, "%s %s [%d,%d] x %d, tile %d x %d, glu %d",
                 linear_kernel_name(plan[i].kernel), dtype_name(op->w[0].type),
                 (int)op->w[0].rows, (int)op->w[0].cols, (int)op->y.rows, plan[i].weight_tile,
                 plan[i].row_tile, op->glu.kind);
        run(rig, &at, &plan[i], gap);
        if (i == 0) {
            first = at;
            expect_oracle(rig, what, &at);
        } else if (memcmp(at.y.data, first.y.data, (size_t)(at.y.rows * at.y.stride)) != 0) {
            expect_oracle(rig, what, &at);
            rig_fail("%s: other bits than the first tile", what);
        }
    }
}

/* Each kernel for itself: their instructions need not sum alike. */
static void check_tiles(struct rig *rig, const struct linear *op, int64_t gap)
{
    struct linear_plan plan[MAX_PLAN];
    int n = plans(rig, plan, op->w[0].type, op->rows ? op->rows->n_expert : 1);
    check_plans(rig, op, gap, plan, n);
    n = wgmma_plans(rig, plan, op, gap);
    check_plans(rig, op, gap, plan, n);
}

/* A dense map with biases, half of the time without the second. */
static struct linear dense(struct rig *rig, pm_dtype type, struct glu glu, int64_t n_row,
                           int64_t n, int64_t k)
{
    static const pm_dtype of[] = {PM_F32, PM_F16, PM_BF16};
    struct tensor *t = rig_take(rig, 4, sizeof *t);
    struct linear op = {.y = rig_matrix(rig, n_row, n), .x = rig_matrix(rig, n_row, k)};
    for (int i = 0; i < 2; i++) {
        t[i] = rig_weights(rig, type, n, k);
        t[i + 2] = rig_weights(rig, of[rig_below(rig, 3)], 1, n);
    }
    op.w = &t[0];
    op.b = &t[2];
    op.glu = glu;
    if (glu.kind != GLU_NONE) op.w_up = &t[1];
    if (glu.kind != GLU_NONE && rig_below(rig, 2)) op.b_up = &t[3];
    return op;
}

static void tiles_agree_for_each_length(void **state)
{
    static const int64_t length[] = {1, 7, 8, 31, 32, 64, 72, 96, 128, 136, 200, 288, 320, 704};
    for (int t = 0; t < N_TYPE; t++) {
        for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
            if (types[t] == PM_MXFP4 && length[i] % 32) continue;
            struct linear op = dense(*state, types[t], glus[i % 2], 5, 19, length[i]);
            check_tiles(*state, &op, 0);
        }
    }
}

static void tiles_agree_for_each_shape(void **state)
{
    static const int64_t columns[] = {1, 8, 33, 64, 65, 130}, rows[] = {0, 1, 9, 40, 130};
    for (int t = 0; t < N_TYPE; t++) {
        for (int i = 0; i < 6 * 5; i++) {
            struct linear op =
                dense(*state, types[t], glus[(i + t) % N_GLU], rows[i % 5], columns[i / 5], 96);
            check_tiles(*state, &op, 0);
        }
    }
}

/* Gaps between rows keep copies of 16 bytes away, and must not change a bit. */
static void paths_of_a_copy_agree(void **state)
{
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        struct linear_plan plan[MAX_PLAN];
        struct linear op = dense(rig, types[t], glus[1], 9, 40, 160), slow;
        int n = plans(rig, plan, types[t], 1), size = dtype_bits(types[t]) / 8;
        slow = op;
        slow.y = rig_copy(rig, &op.y);
        run(rig, &op, &plan[0], 0);
        run(rig, &slow, &plan[n - 1], size ? size : 1);
        expect_oracle(rig, dtype_name(types[t]), &op);
        expect_same(dtype_name(types[t]), &slow.y, &op.y);
    }
}

/* Activations of BF16 on both sides; F32 x that is BF16 already gives the same bits. */
static void activations_may_be_narrow(void **state)
{
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        for (int64_t k = 33 - types[t] / 4; k < 200; k += 128) {
            struct linear op, wide;
            if (types[t] == PM_MXFP4 && k % 32) continue;
            op = dense(rig, types[t], glus[t % N_GLU], 11, 21, k);
            op.x = rig_weights(rig, PM_BF16, 11, k);
            wide = op;
            wide.x = widened(rig, &op.x);
            run(rig, &op, NULL, 0);
            run(rig, &wide, NULL, 0);
            expect_oracle(rig, "narrow x", &op);
            expect_same("narrow x", &op.y, &wide.y);
            op.y = tensor_view(rig_take(rig, 11 * 21, 2), PM_BF16, 11, 21);
            run(rig, &op, NULL, 0);
            expect_oracle(rig, "narrow y", &op);
            for (int i = 0; i < 11 * 21; i++) {
                if (((uint16_t *)op.y.data)[i] != f32_to_bf16(rig_row(&wide.y, i / 21)[i % 21]))
                    rig_fail("narrow y: not the rounded wide one");
            }
        }
    }
}

/* Experts of many sizes; max_row is a bound, rows beyond the last expert stay as they are. */
static struct linear grouped(struct rig *rig, pm_dtype type, struct glu glu, int n_expert,
                             int64_t n, int64_t k)
{
    static const int size[] = {0, 1, 0, 3, 40, 0, 8, 9, 0, 0, 17, 130};
    struct tensor *t = rig_take(rig, 3 * n_expert, sizeof *t);
    struct ragged *rows = rig_take(rig, 1, sizeof *rows);
    int32_t *offset = rig_take(rig, n_expert + 1, 4), *source;
    for (int e = 0; e < n_expert; e++) {
        int at = n_expert > 12 ? e * 7 % 4 : e;
        offset[e + 1] = offset[e] + size[at];
        t[e] = rig_weights(rig, type, n, k);
        t[n_expert + e] = rig_weights(rig, type, n, k);
        t[2 * n_expert + e] = rig_weights(rig, PM_BF16, 1, n);
    }
    source = rig_take(rig, offset[n_expert], 4);
    for (int r = 0; r < offset[n_expert]; r++)
        source[r] = rig_below(rig, 20);
    *rows = (struct ragged){n_expert, offset[n_expert], offset, source};
    return (struct linear){.y = rig_matrix(rig, offset[n_expert], n),
                           .x = rig_matrix(rig, 20, k),
                           .w = t,
                           .b = t + 2 * n_expert,
                           .w_up = glu.kind != GLU_NONE ? t + n_expert : NULL,
                           .glu = glu,
                           .rows = rows};
}

static void experts_of_all_sizes(void **state)
{
    for (int t = 0; t < N_TYPE; t++) {
        struct linear op = grouped(*state, types[t], glus[t % N_GLU], 12, 70, 160);
        check_tiles(*state, &op, 0);
        struct ragged in_place = *op.rows;
        in_place.source = NULL;
        op.x = rig_matrix(*state, op.y.rows, 160);
        op.rows = &in_place;
        check_tiles(*state, &op, 0);
    }
}

static void experts_up_to_512(void **state)
{
    static const int count[] = {33, 256, 512};
    for (int i = 0; i < 3; i++) {
        struct linear op = grouped(*state, types[i + 1], glus[i], count[i], 9, 32);
        check_tiles(*state, &op, 0);
    }
}

/* max_row bounds the rows; what lies beyond the last expert's rows keeps its bits. */
static void rows_beyond_the_last_expert_are_left_alone(void **state)
{
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        struct linear op = grouped(rig, types[t], glus[1], 12, 30, 64);
        int32_t offset[13] = {0, 0, 2, 2, 2, 3, 9, 9, 9, 9, 9, 9, 9};
        struct ragged few = *op.rows;
        struct tensor before = rig_copy(rig, &op.y);
        struct tensor rest = tensor_rows(&op.y, 9, op.y.rows - 9);
        struct tensor kept = tensor_rows(&before, 9, op.y.rows - 9);
        few.offset = offset;
        op.rows = &few;
        run(rig, &op, NULL, 0);
        expect_same("rows beyond", &rest, &kept);
        op.y.rows = 9;
        few.max_row = 9;
        expect_oracle(rig, "few rows", &op);
        memset(offset, 0, sizeof offset);
        op.y = rig_copy(rig, &before);
        few.max_row = op.y.rows;
        run(rig, &op, NULL, 0);
        expect_same("no rows", &op.y, &before);
    }
}

/* Experts that are slices of one F8 matrix, whose scales begin within a block. */
static void slices_share_their_scales(void **state)
{
    enum { N = 70, E = 12 };
    struct rig *rig = *state;
    struct linear op = grouped(rig, PM_F8_E4M3, glus[1], E, N, 288);
    struct tensor all = rig_weights(rig, PM_F8_E4M3, N * E, 288), part[E];
    for (int e = 0; e < E; e++)
        part[e] = tensor_rows(&all, e * N, N);
    op.w = part;
    check_tiles(rig, &op, 0);
}

/* A row's bits are those it has alone, whatever else there is and whichever tile is planned. */
static void row_has_the_same_bits_in_any_batch(void **state)
{
    static const int count[] = {1, 2, 8, 9, 17, 33, 65};
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        struct linear all = dense(rig, types[t], glus[1], 65, 40, 192);
        struct tensor alone = rig_copy(rig, &all.y);
        for (int r = 0; r < 65; r++) {
            struct linear one = all;
            one.x = tensor_rows(&all.x, r, 1);
            one.y = tensor_rows(&alone, r, 1);
            run(rig, &one, NULL, 0);
        }
        for (int i = 0; i < 7; i++) {
            struct linear some = all;
            struct tensor want = tensor_rows(&alone, 65 - count[i], count[i]);
            some.x = tensor_rows(&all.x, 65 - count[i], count[i]);
            some.y = tensor_rows(&all.y, 65 - count[i], count[i]);
            run(rig, &some, NULL, 0);
            expect_same(dtype_name(types[t]), &some.y, &want);
        }
    }
}

/* Every scale of MXFP4, products out of float32's range and scales that are no number included.
 */
static void mxfp4_takes_every_scale(void **state)
{
    struct rig *rig = *state;
    struct tensor w = rig_weights(rig, PM_MXFP4, 256, 32);
    struct linear op = {.y = rig_matrix(rig, 1, 256), .x = rig_matrix(rig, 1, 32), .w = &w};
    for (int s = 0; s < 256; s++) {
        ((uint8_t *)(uintptr_t)w.scale)[s] = (uint8_t)s;
        memset((char *)w.data + s * 16, 0, 16);
        ((uint8_t *)w.data)[s * 16 + 3] = (uint8_t)(s % 2 ? 0x10 : 0xd0);
    }
    for (int i = 0; i < 32; i++)
        rig_row(&op.x, 0)[i] = i == 7;
    run(rig, &op, NULL, 0);
    for (int s = 0; s < 256; s++) {
        double want = oracle_value(&w, s, 7);
        float got = rig_row(&op.y, 0)[s];
        bool same = s == 255 ? got != got : got == (float)want;
        if (!same) rig_fail("scale %d: %g, wanted %g", s, (double)got, want);
    }
}

/* Every code of F8_E4M3, at every place of four, by each kernel; two codes are no number. */
static void f8_takes_every_code(void **state)
{
    static const struct linear_plan mma = {LINEAR_MMA, 16, 8, "test"};
    const struct linear_plan *plan[] = {NULL, &mma};
    struct rig *rig = *state;
    struct tensor w = rig_weights(rig, PM_F8_E4M3, 256, 128);
    struct linear op = {.y = rig_matrix(rig, 4, 256), .x = rig_matrix(rig, 4, 128), .w = &w};
    for (int c = 0; c < 256; c++) {
        uint8_t *row = (uint8_t *)w.data + c * 128;
        memset(row, 0, 128);
        memset(row + 36, c, 4);
    }
    for (int i = 0; i < 4 * 128; i++)
        rig_row(&op.x, i / 128)[i % 128] = i % 128 == 36 + i / 128;
    for (int i = 0; i < 2; i++) {
        run(rig, &op, plan[i], 0);
        for (int c = 0; c < 4 * 256; c++) {
            double want = oracle_value(&w, c % 256, 36);
            float got = rig_row(&op.y, c / 256)[c % 256];
            bool same = c % 128 == 127 ? got != got : got == (float)want;
            if (!same) rig_fail("code %d: %g, wanted %g", c % 256, (double)got, want);
        }
    }
}

/* Values of x beyond F16 stay finite. */
static void f16_saturates(void **state)
{
    struct rig *rig = *state;
    struct tensor w = rig_weights(rig, PM_F16, 1, 3);
    struct linear op = {.y = rig_matrix(rig, 3, 1), .x = rig_matrix(rig, 3, 3), .w = &w};
    static const uint16_t one[] = {0x3c00, 0, 0};
    memcpy(w.data, one, sizeof one);
    for (int r = 0; r < 3; r++) {
        for (int i = 0; i < 3; i++)
            rig_row(&op.x, r)[i] = i == 0 ? (float[]){1e9f, -70000.0f, 65519.9f}[r] : 0;
    }
    run(rig, &op, NULL, 0);
    for (int r = 0; r < 3; r++) {
        float got = rig_row(&op.y, r)[0], want = r == 1 ? -65504.0f : 65504.0f;
        if (got != want) rig_fail("row %d: %g, wanted %g", r, (double)got, (double)want);
    }
}

/* Operations of one call share the narrowed x where they can. */
static void several_operations_share_x(void **state)
{
    enum { OPS = 6 };
    struct rig *rig = *state;
    struct mirror m[OPS] = {0};
    struct linear op[OPS], on[OPS];
    expect_ok(rig->k->reserve(rig->d, 20, 96, 1));
    for (int i = 0; i < OPS; i++) {
        op[i] = dense(rig, types[i % N_TYPE], glus[0], 11, 8 + 9 * i, 96);
        if (i != 3) op[i].x = op[0].x;
        m[i].k = rig->k;
        m[i].d = rig->d;
        on[i] = mirror_linear(&m[i], &op[i], 0);
        if (i != 3) on[i].x = on[0].x;
    }
    expect_ok(rig->k->linear(rig->d, on, OPS));
    expect_ok(rig->k->linear(rig->d, on, 0));
    for (int i = 0; i < OPS; i++) {
        mirror_back(&m[i], &op[i].y, &on[i].y);
        expect_oracle(rig, "one of several", &op[i]);
    }
    for (int i = 0; i < OPS; i++)
        mirror_free(&m[i]);
}

static void refuses_what_kernels_cannot_reach(void **state)
{
    struct rig *rig = *state;
    struct linear op = grouped(rig, PM_BF16, glus[1], 12, 8, 32), bad = op;
    struct mirror m = {.k = rig->k, .d = rig->d};
    struct linear on = mirror_linear(&m, &op, 0);
    struct tensor w[12], b[12];
    memcpy(w, on.w, sizeof w);
    memcpy(b, on.b, sizeof b);
    bad = on;
    bad.w = w;
    bad.b = b;
    w[5].data = (char *)w[5].data + 16;
    expect_error(rig->k->linear(rig->d, &bad, 1), PM_ERR_UNSUPPORTED, "weight of expert 5");
    w[5] = on.w[5];
    w[7].type = PM_F16;
    expect_error(rig->k->linear(rig->d, &bad, 1), PM_ERR_UNSUPPORTED, "weight of expert 7");
    w[7] = on.w[7];
    b[2].data = NULL;
    expect_error(rig->k->linear(rig->d, &bad, 1), PM_ERR_UNSUPPORTED, "bias of expert 2");
    b[2] = on.b[2];
    /* A list that was checked is taken at its word beyond the second expert. */
    expect_ok(rig->k->check_linear(&on));
    b[2].data = on.b[2].data;
    w[7].data = NULL;
    bad.checked = true;
    expect_error(rig->k->check_linear(&bad), PM_ERR_UNSUPPORTED, "weight of expert 7");
    expect_ok(rig->k->linear(rig->d, &bad, 1));
    w[1].type = PM_F16;
    expect_error(rig->k->linear(rig->d, &bad, 1), PM_ERR_UNSUPPORTED, "weight of expert 1");
    bad = on;
    bad.x.data = (char *)on.x.data + 1;
    expect_error(rig->k->linear(rig->d, &bad, 1), PM_ERR_ARG, "x has");
    bad.x = on.x;
    bad.y.type = PM_F16;
    expect_error(rig->k->linear(rig->d, &bad, 1), PM_ERR_ARG, "y is F16");
    mirror_free(&m);
}

#define TEST(f) cmocka_unit_test_prestate_setup_teardown(f, rig_begin, rig_end, &rig_memory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tiles_agree_for_each_length),
        TEST(tiles_agree_for_each_shape),
        TEST(paths_of_a_copy_agree),
        TEST(activations_may_be_narrow),
        TEST(experts_of_all_sizes),
        TEST(experts_up_to_512),
        TEST(rows_beyond_the_last_expert_are_left_alone),
        TEST(slices_share_their_scales),
        TEST(row_has_the_same_bits_in_any_batch),
        TEST(mxfp4_takes_every_scale),
        TEST(f8_takes_every_code),
        TEST(f16_saturates),
        TEST(several_operations_share_x),
        TEST(refuses_what_kernels_cannot_reach),
    };
    int failed;
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (backends[i].k == &cuda_kernels) rig_memory.backend = &backends[i];
    }
    rig_memory.k = &cuda_kernels;
    if (rig_memory.k->open(&rig_memory.d, 0, 1) != PM_OK) {
        printf("skipped: %s\n", pm_last_error());
        return 77;
    }
    failed = cmocka_run_group_tests_name("cuda linear", tests, NULL, NULL);
    rig_memory.k->close(rig_memory.d);
    return failed != 0;
}

#endif
