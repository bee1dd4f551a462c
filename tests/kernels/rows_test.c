/* rows_test.c - what happens to one row at a time: embedding, clamp, scales, sums, cache
 * writes, and views of rows. Norms and RoPE have their own programs. */
#include <math.h>
#include <string.h>

#include "tests/oracle/oracle.h"
#include "tests/oracle/rig.h"

static const int64_t shapes[][2] = {{0, 33}, {1, 1}, {1, 33}, {3, 64}, {257, 33}, {2, 2880}};
static const pm_dtype stored[] = {PM_F32, PM_F16, PM_BF16, PM_F8_E4M3, PM_MXFP4};

enum { N_SHAPE = sizeof shapes / sizeof *shapes, N_STORED = sizeof stored / sizeof *stored };

static int64_t most(int64_t n)
{
    return n > 0 ? n : 1;
}

static void embedding_matches_oracle_for_every_type(void **state)
{
    struct rig *rig = *state;
    static const int64_t cols[] = {32, 160, 2880};
    static const float scale[] = {1, 12};
    for (int c = 0; c < N_STORED * 3 * 2; c++) {
        int64_t n = cols[c % 3], n_row = 9;
        struct tensor table = rig_weights(rig, stored[c / 6], 150, n);
        struct tensor y = rig_matrix(rig, n_row, n);
        static const int32_t ids[] = {0, 149, 7, 7, 128, 127, 1, 64, 0};
        int32_t *id = rig_ints(rig, ids, 9);
        double *want = rig_doubles(rig, n_row * n), *bound = rig_doubles(rig, n_row * n);
        oracle_embed(want, bound, &table, id, n_row, scale[c / 3 % 2]);
        expect_ok(rig->k->embed(rig->d, y, &table, id, scale[c / 3 % 2]));
        expect_close(dtype_name(stored[c / 6]), &y, want, bound);
    }
}

static void embedding_takes_odd_widths_and_no_rows(void **state)
{
    struct rig *rig = *state;
    static const int64_t cols[] = {1, 33, 129};
    for (int c = 0; c < 4 * 3; c++) {
        struct tensor table = rig_weights(rig, stored[c / 3], 3, cols[c % 3]);
        struct tensor y = rig_matrix(rig, 2, cols[c % 3]),
                      none = rig_matrix(rig, 0, cols[c % 3]);
        static const int32_t ids[] = {2, 1};
        int32_t *id = rig_ints(rig, ids, 2);
        double *want = rig_doubles(rig, 2 * cols[c % 3]),
               *bound = rig_doubles(rig, 2 * cols[c % 3]);
        oracle_embed(want, bound, &table, id, 2, 1);
        expect_ok(rig->k->embed(rig->d, y, &table, id, 1));
        expect_ok(rig->k->embed(rig->d, none, &table, id, 1));
        expect_close(dtype_name(stored[c / 3]), &y, want, bound);
    }
}

/* All codes of E4M3, and all values of MXFP4 with every scale that float32 can follow. */
static void every_code_is_read(void **state)
{
    struct rig *rig = *state;
    enum { N_SCALE = 253, COLS = N_SCALE * 32 };
    struct tensor small = rig_weights(rig, PM_F8_E4M3, 1, 256);
    struct tensor fine = rig_weights(rig, PM_MXFP4, 1, COLS);
    struct tensor y = rig_matrix(rig, 1, 256), z = rig_matrix(rig, 1, COLS);
    double *want = rig_doubles(rig, COLS), *bound = rig_doubles(rig, COLS);
    int32_t *id = rig_take(rig, 1, sizeof *id);
    for (int i = 0; i < 256; i++) {
        ((uint8_t *)small.data)[i] = (uint8_t)i;
    }
    for (int i = 0; i < COLS / 2; i++) {
        ((uint8_t *)fine.data)[i] = (uint8_t)(i % 8 * 2 | (i % 8 * 2 + 1) << 4);
        ((uint8_t *)(uintptr_t)fine.scale)[i / 16] = (uint8_t)(i / 16);
    }
    oracle_embed(want, bound, &small, id, 1, 1);
    expect_ok(rig->k->embed(rig->d, y, &small, id, 1));
    expect_close("F8_E4M3", &y, want, bound);
    oracle_embed(want, bound, &fine, id, 1, 1);
    expect_ok(rig->k->embed(rig->d, z, &fine, id, 1));
    expect_close("MXFP4", &z, want, bound);
}

/* The scale that the format sets aside. */
static void a_scale_may_be_no_number(void **state)
{
    struct rig *rig = *state;
    struct tensor fine = rig_weights(rig, PM_MXFP4, 1, 64), y = rig_matrix(rig, 1, 64);
    if (rig->k->host_memory) return; /* the CPU's tiles take it for 2^128 */
    ((uint8_t *)(uintptr_t)fine.scale)[1] = 255;
    expect_ok(rig->k->embed(rig->d, y, &fine, rig_take(rig, 1, sizeof(int32_t)), 1));
    for (int i = 0; i < 64; i++) {
        assert_int_equal(isnan(rig_row(&y, 0)[i]) != 0, i >= 32);
    }
}

/* The operations on x of one shape, by number. */
enum op { CLAMP, SCALE, SCALE_ROWS, ADD, GATE_ROWS, N_OP };

static const char *const op_name[] = {"clamp", "scale", "scale_rows", "add", "gate_rows"};

struct row_case {
    enum op op;
    struct tensor x, y, gate;
    float factor;
    float *factors; /* [T] */
};

static struct row_case row_case(struct rig *rig, enum op op, int64_t rows, int64_t cols)
{
    return (struct row_case){op,
                             rig_matrix(rig, rows, cols),
                             rig_matrix(rig, rows, cols),
                             rig_matrix(rig, rows, 1),
                             0.73f,
                             rig_floats(rig, rows, 2)};
}

static void run(struct rig *rig, struct device *d, const struct row_case *c, struct tensor x)
{
    const struct kernels *k = rig->k;
    switch (c->op) {
    case CLAMP: expect_ok(k->clamp(d, x, c->factor)); break;
    case SCALE: expect_ok(k->scale(d, x, c->factor)); break;
    case SCALE_ROWS: expect_ok(k->scale_rows(d, x, c->factors)); break;
    case ADD: expect_ok(k->add(d, x, c->y, c->factor)); break;
    default: expect_ok(k->gate_rows(d, x, c->gate)); break;
    }
}

static void check(struct rig *rig, const struct row_case *c)
{
    double *want = rig_doubles(rig, most(c->x.rows * c->x.cols));
    double *bound = rig_doubles(rig, most(c->x.rows * c->x.cols));
    struct tensor x = rig_copy(rig, &c->x);
    switch (c->op) {
    case CLAMP: oracle_clamp(want, bound, x, c->factor); break;
    case SCALE: oracle_scale(want, bound, x, &c->factor, 0); break;
    case SCALE_ROWS: oracle_scale(want, bound, x, c->factors, 1); break;
    case ADD: oracle_add(want, bound, x, c->y, c->factor); break;
    default: oracle_gate_rows(want, bound, x, c->gate); break;
    }
    run(rig, rig->d, c, x);
    expect_close(op_name[c->op], &x, want, bound);
}

static void row_operations_match_oracle(void **state)
{
    for (int op = 0; op < N_OP; op++) {
        for (int i = 0; i < N_SHAPE; i++) {
            struct row_case c = row_case(*state, op, shapes[i][0], shapes[i][1]);
            check(*state, &c);
        }
    }
}

/* A row's neighbours, its place and the threads leave no trace in its bits. */
static void a_row_depends_on_itself_alone(void **state)
{
    struct rig *rig = *state;
    for (int op = 0; op < N_OP; op++) {
        struct row_case c = row_case(rig, op, 257, 130);
        struct tensor y = rig_copy(rig, &c.x);
        run(rig, rig->d, &c, y);
        for (int device = 0; device < RIG_DEVICES; device++) {
            struct tensor again = rig_copy(rig, &c.x);
            run(rig, rig->device[device], &c, again);
            expect_same(op_name[op], &again, &y);
        }
        for (int64_t r = 0; r < c.x.rows; r += 13) {
            struct tensor part = tensor_rows(&c.x, r, 1), one = rig_copy(rig, &part);
            struct row_case alone = {
                c.op,     one,          tensor_rows(&c.y, r, 1), tensor_rows(&c.gate, r, 1),
                c.factor, c.factors + r};
            part = tensor_rows(&y, r, 1);
            run(rig, rig->d, &alone, one);
            expect_same(op_name[op], &one, &part);
        }
    }
}

/* Where a row stands decides how it is read, not what becomes of it. */
static void round_addresses_leave_no_trace(void **state)
{
    struct rig *rig = *state;
    static const int64_t cols[] = {1, 4, 33, 1024, 2880, 5003};
    for (int i = 0; i < N_OP * 6; i++) {
        struct row_case c = row_case(rig, i / 6, 5, cols[i % 6]), even = c;
        struct tensor x = rig_copy(rig, &c.x), y = rig_round(rig, &c.x, PM_F32);
        even.y = rig_round(rig, &c.y, PM_F32);
        run(rig, rig->d, &c, x);
        run(rig, rig->d, &even, y);
        expect_same(op_name[i / 6], &x, &y);
    }
}

static void a_gate_may_be_huge(void **state)
{
    struct rig *rig = *state;
    static const float gate[] = {3e38f, -3e38f, 100, -100, -88, 0};
    struct row_case c = row_case(rig, GATE_ROWS, 6, 20);
    for (int r = 0; r < 6; r++) {
        *rig_row(&c.gate, r) = gate[r];
    }
    check(rig, &c);
}

/* A broken value must stay visible until the logits are checked. */
static void what_is_not_a_number_is_not_hidden(void **state)
{
    struct rig *rig = *state;
    for (int op = 0; op < N_OP; op++) {
        struct row_case c = row_case(rig, op, 2, 20);
        struct tensor x = rig_copy(rig, &c.x);
        rig_row(&x, 1)[3] = NAN;
        run(rig, rig->d, &c, x);
        if (!isnan(rig_row(&x, 1)[3])) {
            rig_fail("%s made %g of NaN", op_name[op], (double)rig_row(&x, 1)[3]);
        }
        assert_true(isfinite(rig_row(&x, 1)[4]) && isfinite(rig_row(&x, 0)[3]));
    }
}

static void clamp_bounds_infinities(void **state)
{
    struct rig *rig = *state;
    struct tensor x = rig_matrix(rig, 1, 3);
    rig_row(&x, 0)[0] = INFINITY;
    rig_row(&x, 0)[1] = -INFINITY;
    rig_row(&x, 0)[2] = -8;
    expect_ok(rig->k->clamp(rig->d, x, 8));
    assert_true(rig_row(&x, 0)[0] == 8 && rig_row(&x, 0)[1] == -8 && rig_row(&x, 0)[2] == -8);
}

/* A view of rows reads what the whole matrix has there, scales included. */
static void views_of_rows_keep_their_values(void **state)
{
    struct rig *rig = *state;
    static const int64_t first[] = {0, 1, 127, 128, 200};
    for (int c = 0; c < N_STORED * 5; c++) {
        struct tensor whole = rig_weights(rig, stored[c / 5], 300, 160);
        struct tensor part = tensor_rows(&whole, first[c % 5], 90);
        struct tensor twice = tensor_rows(&part, 60, 20), y = rig_matrix(rig, 1, 160);
        int32_t *last = rig_take(rig, 1, sizeof *last);
        double want[160], bound[160];
        *last = 19;
        assert_int_equal(part.rows, 90);
        assert_int_equal(twice.cols, 160);
        expect_ok(rig->k->embed(rig->d, y, &twice, last, 1));
        *last += (int32_t)first[c % 5] + 60;
        oracle_embed(want, bound, &whole, last, 1, 1);
        expect_close(dtype_name(stored[c / 5]), &y, want, bound);
    }
}

static const pm_dtype cache_types[] = {PM_F32, PM_F16, PM_BF16};

/* A pool of 7 blocks with every byte 0x5a. */
static struct kv_layer pool(struct rig *rig, pm_dtype type, int n_head, int k_dim, int v_dim)
{
    struct kv_layer kv = {NULL, NULL, type, n_head, k_dim, v_dim, 7};
    int64_t values = 7 * (int64_t)n_head * KV_BLOCK, size = dtype_bits(type) / 8;
    kv.k = rig_take(rig, values * k_dim, (size_t)size);
    memset(kv.k, 0x5a, (size_t)(values * k_dim * size));
    if (!v_dim) return kv;
    kv.v = rig_take(rig, values * v_dim, (size_t)size);
    memset(kv.v, 0x5a, (size_t)(values * v_dim * size));
    return kv;
}

static void expect_pool(const struct kv_layer *got, const struct kv_layer *want)
{
    size_t values = (size_t)got->n_block * (size_t)got->n_kv_head * KV_BLOCK;
    size_t size = (size_t)dtype_bits(got->type) / 8;
    assert_memory_equal(got->k, want->k, values * (size_t)got->k_dim * size);
    if (got->v) assert_memory_equal(got->v, want->v, values * (size_t)got->v_dim * size);
}

/* Rows go to shuffled slots; every third is padding. */
static void cache_writes_match_oracle_in_every_bit(void **state)
{
    struct rig *rig = *state;
    static const int dims[][3] = {
        {1, 1, 1}, {2, 64, 64}, {3, 33, 80}, {1, 576, 0}, {8, 128, 128}};
    for (int c = 0; c < 3 * 5 * RIG_DEVICES; c++) {
        const int *dim = dims[c / 3 % 5];
        int n_row = 1 + rig_below(rig, 7 * KV_BLOCK);
        struct tensor k = rig_matrix(rig, n_row, (int64_t)dim[0] * dim[1]), v = {0};
        struct kv_layer got = pool(rig, cache_types[c % 3], dim[0], dim[1], dim[2]);
        struct kv_layer want = pool(rig, cache_types[c % 3], dim[0], dim[1], dim[2]);
        int64_t *slot = rig_take(rig, (int64_t)7 * KV_BLOCK, sizeof *slot);
        int32_t order[7 * KV_BLOCK];
        struct attention_rows rows = {.n_row = n_row, .slot = slot};
        if (dim[2]) v = rig_matrix(rig, n_row, (int64_t)dim[0] * dim[2]);
        for (int i = 0; i < 7 * KV_BLOCK; i++) {
            order[i] = i;
        }
        rig_shuffle(rig, order, 7 * KV_BLOCK);
        for (int i = 0; i < n_row; i++) {
            slot[i] = i % 3 == 2 ? -1 - i : order[i];
        }
        oracle_kv_write(&want, k, v, &rows);
        expect_ok(rig->k->kv_write(rig->device[c / 15], &got, k, v, &rows));
        expect_pool(&got, &want);
    }
}

/* Halves between two codes, subnormal results, overflow, infinities. */
static void cache_writes_round_to_nearest_even(void **state)
{
    struct rig *rig = *state;
    static const float special[] = {
        0.0f,     -0.0f,       INFINITY,    -INFINITY,      65504,         65519.996f,
        65520,    -1e30f,      3.4e38f,     6e-8f,          2.98e-8f,      2.9802322e-8f,
        2.99e-8f, -8.9407e-8f, 6.1e-5f,     6.1035e-5f,     1e-40f,        -1.4e-45f,
        1e-45f,   1.00390625f, 1.01171875f, 1.00048828125f, 1.00146484375f};
    enum { N = sizeof special / sizeof *special, DIM = 4 * N };
    for (int c = 0; c < 3; c++) {
        struct tensor k = rig_matrix(rig, 1, DIM), v = {0};
        struct kv_layer got = pool(rig, cache_types[c], 1, DIM, 0);
        struct kv_layer want = pool(rig, cache_types[c], 1, DIM, 0);
        int64_t *slot = rig_take(rig, 1, sizeof *slot);
        struct attention_rows rows = {.n_row = 1, .slot = slot};
        *slot = 37;
        for (int i = 0; i < DIM; i++) {
            /* Each value meets the vector part and the tail. */
            rig_row(&k, 0)[i] = special[i * 5 % N];
        }
        oracle_kv_write(&want, k, v, &rows);
        expect_ok(rig->k->kv_write(rig->d, &got, k, v, &rows));
        expect_pool(&got, &want);
    }
}

static void cache_writes_keep_what_is_not_a_number(void **state)
{
    struct rig *rig = *state;
    for (int c = 0; c < 3; c++) {
        struct tensor k = rig_matrix(rig, 1, 37), v = {0};
        struct kv_layer got = pool(rig, cache_types[c], 1, 37, 0);
        struct attention_rows rows = {.n_row = 1, .slot = rig_take(rig, 1, sizeof(int64_t))};
        struct tensor written = tensor_view(got.k, cache_types[c], 1, 37);
        for (int i = 0; i < 37; i++) {
            /* All of the fraction is in the bits that a shorter type has no room for. */
            uint32_t bits = 0x7f800001u;
            memcpy(&rig_row(&k, 0)[i], &bits, sizeof bits);
        }
        expect_ok(rig->k->kv_write(rig->d, &got, k, v, &rows));
        for (int i = 0; i < 37; i++) {
            assert_true(isnan(oracle_value(&written, 0, i)));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(embedding_matches_oracle_for_every_type),
        RIG_TEST(embedding_takes_odd_widths_and_no_rows),
        RIG_TEST(every_code_is_read),
        RIG_TEST(a_scale_may_be_no_number),
        RIG_TEST(row_operations_match_oracle),
        RIG_TEST(a_row_depends_on_itself_alone),
        RIG_TEST(round_addresses_leave_no_trace),
        RIG_TEST(a_gate_may_be_huge),
        RIG_TEST(what_is_not_a_number_is_not_hidden),
        RIG_TEST(clamp_bounds_infinities),
        RIG_TEST(views_of_rows_keep_their_values),
        RIG_TEST(cache_writes_match_oracle_in_every_bit),
        RIG_TEST(cache_writes_round_to_nearest_even),
        RIG_TEST(cache_writes_keep_what_is_not_a_number),
    };
    return rig_run("rows", tests, sizeof tests / sizeof *tests);
}
