/* layer_test.c - the expert layer of polymath.h against the oracles: every gate, type and
 * layout; the same bits for a row in any company; and what wrong arguments are told. */
#define _DEFAULT_SOURCE
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/oracle/oracle.h"
#include "tests/oracle/rig.h"

enum { EXPERTS = 8, ROWS = 9 };

static const pm_dtype types[] = {PM_F32, PM_F16, PM_BF16, PM_F8_E4M3, PM_MXFP4};
enum { N_TYPE = sizeof types / sizeof *types };

/* The gates of the families of docs/models.md. */
static const pm_layer_shape gates[] = {
    {.top_k = 2, .score = PM_SCORE_SOFTMAX, .renorm = PM_RENORM_SUM},
    {.top_k = 8, .score = PM_SCORE_SOFTMAX, .scale = 0.5f},
    {.top_k = 3,
     .score = PM_SCORE_SIGMOID,
     .group = PM_GROUP_TOP2,
     .n_group = 4,
     .top_group = 2,
     .renorm = PM_RENORM_SUM,
     .floor = 1e-20f,
     .scale = 2.5f},
    {.top_k = 2,
     .score = PM_SCORE_SOFTMAX,
     .group = PM_GROUP_MAX,
     .n_group = 2,
     .top_group = 1},
    {.top_k = 4, .score = PM_SCORE_LOGIT, .weight = PM_WEIGHT_SOFTMAX_PICKED},
    {.top_k = 1, .score = PM_SCORE_LOGIT, .weight = PM_WEIGHT_SIGMOID_PICKED, .scale_input = 1},
    {.top_k = 3, .score = PM_SCORE_LOGIT, .weight = PM_WEIGHT_SIGMOID_PICKED, .scale_input = 1},
    {.top_k = 2, .weight = PM_WEIGHT_SPARSEMIXER, .jitter = 0.1f},
    {.top_k = 4, .score = PM_SCORE_SOFTMAX, .renorm = PM_RENORM_MAX, .floor = 1e-12f},
    {.top_k = 4, .score = PM_SCORE_SOFTMAX, .renorm = PM_RENORM_NORM, .floor = 1},
};
enum { N_GATE = sizeof gates / sizeof *gates };

/* A layer's memory as the caller has it, and the views of it that the oracle reads. */
struct made {
    pm_layer_shape shape;
    pm_layer_weights weights;
    struct tensor gate[EXPERTS], up[EXPERTS], down[EXPERTS];
    struct tensor gate_bias[EXPERTS], up_bias[EXPERTS], down_bias[EXPERTS];
};

/* [E, rows, cols] without gaps; each[e] is expert e of it. */
static const void *stack(struct rig *rig, struct tensor *each, const void **scale,
                         pm_dtype type, int64_t rows, int64_t cols)
{
    char *data = NULL, *scales = NULL;
    for (int e = 0; e < EXPERTS; e++) {
        struct tensor t = rig_weights(rig, type, rows, cols);
        int64_t bytes = rows * t.stride;
        int64_t high = type == PM_F8_E4M3 ? (rows + 127) / 128 : rows;
        int64_t scale_bytes = high * t.scale_stride;
        if (e == 0) data = rig_take(rig, EXPERTS * bytes, 1);
        if (e == 0 && t.scale) scales = rig_take(rig, EXPERTS * scale_bytes, 1);
        memcpy(data + e * bytes, t.data, (size_t)bytes);
        if (scales) memcpy(scales + e * scale_bytes, t.scale, (size_t)scale_bytes);
        each[e] = t;
        each[e].data = data + e * bytes;
        if (scales) each[e].scale = scales + e * scale_bytes;
    }
    *scale = scales;
    return data;
}

/* The rows of t from `first` on in steps of 2. */
static struct tensor every_second(struct tensor t, int first)
{
    t.data = (char *)t.data + first * t.stride;
    if (t.scale) t.scale = (const char *)t.scale + first * t.scale_stride;
    t.rows /= 2;
    t.stride *= 2;
    t.scale_stride *= 2;
    return t;
}

/* The half of a bias [2 F] that belongs to the gate (0) or up (1), as a plain vector. */
static struct tensor half_bias(struct rig *rig, const struct tensor *both, pm_gate_up layout,
                               int half)
{
    int64_t f = both->cols / 2, size = dtype_bits(both->type) / 8;
    struct tensor t = tensor_view(NULL, both->type, 1, f);
    t.data = rig_take(rig, f, (size_t)size);
    for (int64_t i = 0; i < f; i++) {
        int64_t from = layout == PM_GATE_UP_HALVES ? half * f + i : 2 * i + half;
        memcpy((char *)t.data + i * size, (char *)both->data + from * size, (size_t)size);
    }
    return t;
}

static void make_gate_up(struct rig *rig, struct made *m)
{
    pm_layer_shape *s = &m->shape;
    pm_layer_weights *w = &m->weights;
    struct tensor both[EXPERTS], bias[EXPERTS];
    const void *none;
    if (s->gate_up == PM_GATE_UP_APART) {
        w->w_gate = stack(rig, m->gate, &w->s_gate, s->weight_type, s->inner, s->hidden);
        w->w_up = stack(rig, m->up, &w->s_up, s->weight_type, s->inner, s->hidden);
        w->b_gate = stack(rig, m->gate_bias, &none, s->bias_type, 1, s->inner);
        w->b_up = stack(rig, m->up_bias, &none, s->bias_type, 1, s->inner);
        return;
    }
    w->w_gate = stack(rig, both, &w->s_gate, s->weight_type, 2 * s->inner, s->hidden);
    w->b_gate = stack(rig, bias, &none, s->bias_type, 1, 2 * s->inner);
    for (int e = 0; e < EXPERTS; e++) {
        bool halves = s->gate_up == PM_GATE_UP_HALVES;
        m->gate[e] = halves ? tensor_rows(&both[e], 0, s->inner) : every_second(both[e], 0);
        m->up[e] =
            halves ? tensor_rows(&both[e], s->inner, s->inner) : every_second(both[e], 1);
        m->gate_bias[e] = half_bias(rig, &bias[e], s->gate_up, 0);
        m->up_bias[e] = half_bias(rig, &bias[e], s->gate_up, 1);
    }
}

static void make(struct rig *rig, struct made *m, const pm_layer_shape *gate, pm_dtype type,
                 pm_gate_up layout, pm_glu glu)
{
    bool blocks = type == PM_MXFP4 || type == PM_F8_E4M3;
    pm_layer_weights *w = &m->weights;
    const void *none;
    memset(m, 0, sizeof *m);
    m->shape = *gate;
    m->shape.n_expert = EXPERTS;
    m->shape.hidden = blocks ? 160 : 44;
    m->shape.inner = blocks ? 96 : 37;
    m->shape.weight_type = type;
    m->shape.bias_type = types[rig_below(rig, 3)];
    m->shape.gate_up = layout;
    m->shape.glu = glu;
    m->shape.alpha = 1.702f;
    m->shape.limit = 7;
    make_gate_up(rig, m);
    w->w_down = stack(rig, m->down, &w->s_down, type, m->shape.hidden, m->shape.inner);
    w->b_down = stack(rig, m->down_bias, &none, m->shape.bias_type, 1, m->shape.hidden);
    if (gate->score == PM_SCORE_SIGMOID) w->select_bias = rig_floats(rig, EXPERTS, 0.1);
}

static pm_layer *open_layer(const struct made *m, int n_thread, int64_t max_row)
{
    pm_layer_options o = {.device = "cpu", .n_thread = n_thread, .max_row = max_row};
    pm_layer *l = NULL;
    expect_ok(pm_layer_open(&l, &m->shape, &m->weights, &o));
    return l;
}

/* A step's memory: y and the workspace hold what no computation leaves. The workspace is at an
 * odd address. */
static pm_layer_step new_step(struct rig *rig, const pm_layer *l, const struct made *m,
                              int64_t n_row)
{
    pm_layer_step step = {.n_row = n_row};
    size_t bytes;
    char *room;
    expect_ok(pm_layer_workspace(&bytes, l, n_row));
    room = rig_take(rig, (int64_t)bytes + 1, 1);
    memset(room, 0xff, bytes + 1);
    step.workspace = room + 1;
    step.workspace_bytes = bytes;
    step.y = rig_take(rig, n_row * m->shape.hidden, sizeof(float));
    memset(step.y, 0xff, (size_t)(n_row * m->shape.hidden) * sizeof(float));
    step.x = rig_floats(rig, n_row * m->shape.hidden, 0.25);
    step.logits = rig_floats(rig, n_row * EXPERTS, 1.5);
    return step;
}

static struct tensor dense(const void *data, int64_t rows, int64_t cols)
{
    return tensor_view((void *)(uintptr_t)data, PM_F32, rows, cols);
}

/* Expert e of one row: out and bound are [D]. */
static void expert_oracle(struct rig *rig, const struct made *m, int e, const float *x,
                          double *out, double *bound)
{
    int64_t d = m->shape.hidden, f = m->shape.inner;
    double *inner = rig_doubles(rig, f), *inner_bound = rig_doubles(rig, f);
    double unit =
        m->shape.weight_type == PM_F32 || m->shape.weight_type == PM_F16 ? 0 : rig->bf16_unit;
    float *rounded = rig_take(rig, f, sizeof *rounded);
    struct linear up = {.x = dense(x, 1, d),
                        .w = &m->gate[e],
                        .b = &m->gate_bias[e],
                        .w_up = &m->up[e],
                        .b_up = &m->up_bias[e],
                        .glu = {(enum glu_kind)m->shape.glu, m->shape.alpha, m->shape.limit}};
    struct linear down = {.x = dense(rounded, 1, f), .w = &m->down[e], .b = &m->down_bias[e]};
    oracle_linear(inner, inner_bound, &up, unit);
    for (int64_t i = 0; i < f; i++)
        rounded[i] = (float)inner[i];
    oracle_linear(out, bound, &down, unit);
    for (int64_t n = 0; n < d; n++) {
        for (int64_t i = 0; i < f; i++) {
            double error = inner_bound[i] + fabs(inner[i]) * FLOAT_UNIT;
            bound[n] += fabs(oracle_value(&m->down[e], n, i)) * error;
        }
    }
}

/* One row of y from the ids and weights that the layer reported. */
static void check_row(struct rig *rig, const struct made *m, const float *x, const float *y,
                      const int32_t *id, const float *weight)
{
    const pm_layer_shape *s = &m->shape;
    int64_t d = s->hidden;
    double *want = rig_doubles(rig, d), *bound = rig_doubles(rig, d);
    double *out = rig_doubles(rig, d), *out_bound = rig_doubles(rig, d);
    float *scaled = rig_take(rig, d, sizeof *scaled);
    struct tensor got = dense(y, 1, d);
    for (int k = 0; k < s->top_k; k++) {
        double w = s->scale_input ? 1 : weight[k];
        for (int64_t i = 0; i < d; i++)
            scaled[i] = s->scale_input ? weight[k] * x[i] : x[i];
        expert_oracle(rig, m, id[k], scaled, out, out_bound);
        for (int64_t i = 0; i < d; i++) {
            want[i] += w * out[i];
            bound[i] += fabs(w) * (out_bound[i] + fabs(out[i]) * (s->top_k + 2) * FLOAT_UNIT);
        }
    }
    expect_close("layer", &got, want, bound);
}

/* Ids and weights against the oracle of the gate; equally good picks may change places. */
static void check_gate(const struct made *m, const float *logit, const int32_t *id,
                       const float *weight)
{
    const pm_layer_shape *s = &m->shape;
    struct gate gate = {s->n_expert,
                        s->top_k,
                        (enum gate_score)s->score,
                        (enum gate_group)s->group,
                        s->n_group,
                        s->top_group,
                        (enum gate_weight)s->weight,
                        (enum gate_renorm)s->renorm,
                        s->floor,
                        s->scale == 0 ? 1 : s->scale,
                        s->jitter,
                        s->scale_input};
    int32_t want_id[EXPERTS];
    double want[EXPERTS], bound[EXPERTS];
    double margin = oracle_gate(want_id, want, bound, &gate, logit, m->weights.select_bias);
    if (margin < 64 * FLOAT_UNIT) return;
    for (int k = 0; k < s->top_k; k++) {
        if (id[k] != want_id[k]) rig_fail("pick %d is %d, wanted %d", k, id[k], want_id[k]);
        if (!(fabs(weight[k] - want[k]) <= bound[k])) {
            rig_fail("weight %d is %.9g, wanted %.9g within %.3g", k, (double)weight[k],
                     want[k], bound[k]);
        }
    }
}

static void check_layer(struct rig *rig, const struct made *m, int64_t n_row)
{
    pm_layer *l = open_layer(m, 2, n_row);
    pm_layer_step step = new_step(rig, l, m, n_row);
    int64_t k = m->shape.top_k, d = m->shape.hidden;
    int32_t *id = rig_take(rig, n_row * k, sizeof *id);
    float *weight = rig_take(rig, n_row * k, sizeof *weight);
    expect_ok(pm_layer_forward(l, &step));
    expect_ok(pm_layer_routing(l, id, weight));
    for (int64_t t = 0; t < n_row; t++) {
        check_gate(m, step.logits + t * EXPERTS, id + t * k, weight + t * k);
        check_row(rig, m, (const float *)step.x + t * d, (const float *)step.y + t * d,
                  id + t * k, weight + t * k);
    }
    pm_layer_close(l);
}

static void layer_matches_oracle_for_each_gate(void **state)
{
    struct made m;
    for (int g = 0; g < N_GATE; g++) {
        make(*state, &m, &gates[g], PM_F32, PM_GATE_UP_APART, PM_GLU_SILU);
        check_layer(*state, &m, ROWS);
    }
}

static void layer_matches_oracle_for_each_type_and_layout(void **state)
{
    struct made m;
    for (int t = 0; t < N_TYPE; t++) {
        for (int layout = PM_GATE_UP_APART; layout <= PM_GATE_UP_ALTERNATING; layout++) {
            if (types[t] == PM_F8_E4M3 && layout == PM_GATE_UP_ALTERNATING) continue;
            make(*state, &m, &gates[(3 * t + layout) % N_GATE], types[t], (pm_gate_up)layout,
                 (pm_glu)(PM_GLU_SILU + layout));
            check_layer(*state, &m, 1 + layout);
        }
    }
}

/* The layer's own gate gives what its logits, computed outside, would give. */
static void gate_of_the_layer_makes_its_logits(void **state)
{
    struct rig *rig = *state;
    struct made m;
    make(rig, &m, &gates[0], PM_BF16, PM_GATE_UP_HALVES, PM_GLU_SILU);
    int64_t d = m.shape.hidden;
    struct tensor w = rig_weights(rig, PM_F32, EXPERTS, d);
    struct tensor b = dense(rig_floats(rig, EXPERTS, 1), 1, EXPERTS);
    struct tensor logits = dense(rig_take(rig, ROWS * EXPERTS, sizeof(float)), ROWS, EXPERTS);
    m.weights.gate = w.data;
    m.weights.gate_bias = b.data;
    pm_layer *l = open_layer(&m, 1, ROWS);
    pm_layer_step a = new_step(rig, l, &m, ROWS), other = new_step(rig, l, &m, ROWS);
    struct linear op = {.x = dense(a.x, ROWS, d), .y = logits, .w = &w, .b = &b};
    expect_ok(rig->k->linear(rig->d, &op, 1));
    a.logits = NULL;
    other.logits = logits.data;
    other.x = a.x;
    expect_ok(pm_layer_forward(l, &a));
    expect_ok(pm_layer_forward(l, &other));
    assert_memory_equal(a.y, other.y, (size_t)(ROWS * d) * sizeof(float));
    pm_layer_close(l);
}

static void picks_may_come_from_elsewhere(void **state)
{
    struct rig *rig = *state;
    struct made m;
    int32_t id[ROWS * 2];
    float weight[ROWS * 2];
    make(rig, &m, &gates[0], PM_F32, PM_GATE_UP_APART, PM_GLU_GELU);
    pm_layer *l = open_layer(&m, 2, ROWS);
    pm_layer_step own = new_step(rig, l, &m, ROWS), given = own;
    size_t bytes = (size_t)(ROWS * m.shape.hidden) * sizeof(float);
    expect_ok(pm_layer_forward(l, &own));
    expect_ok(pm_layer_routing(l, id, weight));
    given.y = rig_take(rig, (int64_t)bytes, 1);
    given.logits = NULL;
    given.id = id;
    given.weight = weight;
    expect_ok(pm_layer_forward(l, &given));
    assert_memory_equal(own.y, given.y, bytes);
    id[3] = EXPERTS;
    expect_error(pm_layer_forward(l, &given), PM_ERR_ARG, "id 3: found 8, wanted 0 to 7");
    id[3] = -1;
    expect_error(pm_layer_forward(l, &given), PM_ERR_ARG, "id 3: found -1");
    given.weight = NULL;
    expect_error(pm_layer_forward(l, &given), PM_ERR_ARG, "weight: found NULL");
    pm_layer_close(l);
}

static void layer_adds_when_told(void **state)
{
    struct rig *rig = *state;
    struct made m;
    make(rig, &m, &gates[0], PM_F32, PM_GATE_UP_APART, PM_GLU_SILU);
    pm_layer *l = open_layer(&m, 1, 3);
    pm_layer_step step = new_step(rig, l, &m, 3), more = step;
    int64_t n = 3 * m.shape.hidden;
    float *sum = rig_floats(rig, n, 1), *before = rig_take(rig, n, sizeof *before);
    memcpy(before, sum, (size_t)n * sizeof *sum);
    more.y = sum;
    more.add = 1;
    expect_ok(pm_layer_forward(l, &step));
    expect_ok(pm_layer_forward(l, &more));
    for (int64_t i = 0; i < n; i++) {
        assert_true(sum[i] == before[i] + ((float *)step.y)[i]);
    }
    pm_layer_close(l);
}

/* Rows alone, all in another order, other threads, a machine shared with another layer. */
static void row_is_the_same_in_any_company(void **state)
{
    enum { MANY = 70 };
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        struct made m;
        int32_t order[MANY];
        make(rig, &m, &gates[t % 3], types[t], PM_GATE_UP_APART, PM_GLU_SILU);
        pm_layer *l = open_layer(&m, 3, MANY), *beside = NULL;
        pm_layer_options o = {.max_row = MANY, .beside = l};
        int64_t d = m.shape.hidden;
        size_t bytes = (size_t)d * sizeof(float);
        expect_ok(pm_layer_open(&beside, &m.shape, &m.weights, &o));
        pm_layer_step all = new_step(rig, l, &m, MANY), mixed = new_step(rig, l, &m, MANY);
        pm_layer_step one = new_step(rig, l, &m, 1);
        expect_ok(pm_layer_forward(l, &all));
        for (int64_t i = 0; i < MANY * d; i++) {
            assert_true(isfinite(((float *)all.y)[i]));
        }
        pm_layer_close(l);
        for (int r = 0; r < MANY; r++)
            order[r] = r;
        rig_shuffle(rig, order, MANY);
        for (int r = 0; r < MANY; r++) {
            memcpy((char *)(uintptr_t)mixed.x + (size_t)r * bytes,
                   (const char *)all.x + (size_t)order[r] * bytes, bytes);
            memcpy((float *)(uintptr_t)mixed.logits + r * EXPERTS,
                   all.logits + order[r] * EXPERTS, EXPERTS * sizeof(float));
        }
        expect_ok(pm_layer_forward(beside, &mixed));
        for (int r = 0; r < MANY; r++) {
            assert_memory_equal((char *)mixed.y + (size_t)r * bytes,
                                (char *)all.y + (size_t)order[r] * bytes, bytes);
        }
        for (int r = 0; r < MANY; r++) {
            one.x = (const char *)all.x + (size_t)r * bytes;
            one.logits = all.logits + r * EXPERTS;
            expect_ok(pm_layer_forward(beside, &one));
            assert_memory_equal(one.y, (char *)all.y + (size_t)r * bytes, bytes);
        }
        pm_layer_close(beside);
    }
}

static void no_rows_are_ordinary(void **state)
{
    struct rig *rig = *state;
    struct made m;
    make(rig, &m, &gates[0], PM_BF16, PM_GATE_UP_APART, PM_GLU_SILU);
    pm_layer *l = open_layer(&m, 1, 4);
    pm_layer_step step = new_step(rig, l, &m, 2);
    int32_t id = 77;
    expect_ok(pm_layer_forward(l, &step));
    step.n_row = 0;
    step.x = step.y = step.workspace = NULL;
    expect_ok(pm_layer_forward(l, &step));
    expect_ok(pm_layer_routing(l, &id, NULL));
    assert_int_equal(id, 77);
    pm_layer_close(l);
    pm_layer_close(NULL);
}

#ifndef __SANITIZE_ADDRESS__
static void step_allocates_nothing(void **state)
{
    struct rig *rig = *state;
    for (int t = 0; t < N_TYPE; t++) {
        struct made m;
        make(rig, &m, &gates[0], types[t], PM_GATE_UP_APART, PM_GLU_SILU);
        pm_layer *l = open_layer(&m, 2, 64);
        pm_layer_step step = new_step(rig, l, &m, 64);
        struct mallinfo2 before = mallinfo2(), after;
        expect_ok(pm_layer_forward(l, &step));
        after = mallinfo2();
        assert_int_equal(before.uordblks, after.uordblks);
        assert_int_equal(before.hblkhd, after.hblkhd);
        pm_layer_close(l);
    }
}
#endif

/* Opens with one field changed. */
#define REFUSES(field, value, status, part)                                                    \
    do {                                                                                       \
        struct made bad_ = m;                                                                  \
        bad_.field = (value);                                                                  \
        expect_error(pm_layer_open(&l, &bad_.shape, &bad_.weights, &o), status, part);         \
        assert_null(l);                                                                        \
    } while (0)

static void open_names_what_does_not_fit(void **state)
{
    pm_layer_options o = {.device = "cpu", .n_thread = 1};
    pm_layer *l = NULL;
    struct made m;
    make(*state, &m, &gates[0], PM_MXFP4, PM_GATE_UP_APART, PM_GLU_SILU);
    REFUSES(shape.n_expert, 0, PM_ERR_ARG, "n_expert: found 0, wanted 1 to 4096");
    REFUSES(shape.top_k, 9, PM_ERR_ARG, "top_k: found 9, wanted 1 to 8");
    REFUSES(shape.hidden, -1, PM_ERR_ARG, "hidden: found -1");
    REFUSES(shape.inner, 100, PM_ERR_ARG, "160 and 100, MXFP4 wants multiples of 32");
    REFUSES(shape.weight_type, PM_I32, PM_ERR_ARG, "weight_type: found I32");
    REFUSES(shape.weight_type, (pm_dtype)99, PM_ERR_ARG, "weight_type: found no type");
    REFUSES(shape.bias_type, PM_MXFP4, PM_ERR_ARG, "bias_type: found MXFP4");
    REFUSES(shape.gate_type, PM_U8, PM_ERR_ARG, "gate_type: found U8");
    REFUSES(shape.x_type, PM_BF16, PM_ERR_ARG, "x_type: found BF16, wanted F32 on this device");
    REFUSES(shape.y_type, PM_F16, PM_ERR_ARG, "y_type: found F16");
    REFUSES(shape.gate_up, (pm_gate_up)3, PM_ERR_ARG, "gate_up: found 3");
    REFUSES(shape.glu, (pm_glu)0, PM_ERR_ARG, "glu: found 0, wanted 1 to 3");
    REFUSES(shape.score, (pm_gate_score)7, PM_ERR_ARG, "score: found 7");
    REFUSES(shape.weight, (pm_gate_weight)7, PM_ERR_ARG, "weight: found 7");
    REFUSES(shape.renorm, PM_RENORM_NORM, PM_ERR_ARG, "floor: found 0");
    REFUSES(shape.scale_input, 2, PM_ERR_ARG, "scale_input: found 2");
    REFUSES(weights.w_down, NULL, PM_ERR_ARG, "w_down: found NULL, wanted a pointer");
    REFUSES(weights.s_up, NULL, PM_ERR_ARG, "s_up: found NULL");
    REFUSES(weights.b_up, NULL, PM_ERR_ARG, "b_up: found NULL");
    REFUSES(weights.gate_bias, m.weights.w_up, PM_ERR_ARG, "gate_bias: found a pointer");
    REFUSES(shape.gate_up, PM_GATE_UP_HALVES, PM_ERR_ARG, "w_up: found a pointer");
    m.shape.group = PM_GROUP_MAX;
    REFUSES(shape.n_group, 3, PM_ERR_ARG, "n_group: found 3, wanted a divisor of 8 experts");
    m.shape.n_group = 8;
    REFUSES(shape.top_group, 9, PM_ERR_ARG, "top_group: found 9");
    REFUSES(shape.top_group, 1, PM_ERR_ARG, "top_k: found 2, wanted 1 to 1");
    m.shape.group = PM_GROUP_NONE;
    o.max_row = -3;
    REFUSES(shape.top_k, 2, PM_ERR_ARG, "max_row: found -3");
    o.device = "tpu";
    REFUSES(shape.top_k, 2, PM_ERR_ARG, "device: found \"tpu\"");
    make(*state, &m, &gates[0], PM_F8_E4M3, PM_GATE_UP_HALVES, PM_GLU_SILU);
    o = (pm_layer_options){.device = "cpu", .n_thread = 1};
    REFUSES(shape.gate_up, PM_GATE_UP_ALTERNATING, PM_ERR_UNSUPPORTED, "gate_up: F8_E4M3");
    expect_error(pm_layer_open(&l, NULL, NULL, NULL), PM_ERR_ARG, "found NULL");
}

static void step_names_what_does_not_fit(void **state)
{
    struct rig *rig = *state;
    struct made m;
    make(rig, &m, &gates[0], PM_F32, PM_GATE_UP_APART, PM_GLU_SILU);
    pm_layer *l = open_layer(&m, 1, 4);
    pm_layer_step good = new_step(rig, l, &m, 4), step = good;
    size_t bytes = 5;
    expect_error(pm_layer_workspace(&bytes, l, 5), PM_ERR_ARG, "n_row: found 5, wanted 0 to 4");
    assert_int_equal(bytes, 5);
    step.n_row = -1;
    expect_error(pm_layer_forward(l, &step), PM_ERR_ARG, "n_row: found -1");
    step = good;
    step.workspace_bytes--;
    expect_error(pm_layer_forward(l, &step), PM_ERR_ARG, "workspace: found");
    step = good;
    step.stream = &step;
    expect_error(pm_layer_forward(l, &step), PM_ERR_ARG, "stream: found one");
    step = good;
    step.logits = NULL;
    expect_error(pm_layer_forward(l, &step), PM_ERR_ARG, "logits: found NULL");
    step = good;
    step.y = (char *)(uintptr_t)step.x + 4;
    expect_error(pm_layer_forward(l, &step), PM_ERR_ARG, "y: found memory of x");
    step = good;
    step.x = NULL;
    expect_error(pm_layer_forward(l, &step), PM_ERR_ARG, "x: found NULL");
    expect_ok(pm_layer_forward(l, &good));
    pm_layer_close(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(layer_matches_oracle_for_each_gate),
        RIG_TEST(layer_matches_oracle_for_each_type_and_layout),
        RIG_TEST(gate_of_the_layer_makes_its_logits),
        RIG_TEST(picks_may_come_from_elsewhere),
        RIG_TEST(layer_adds_when_told),
        RIG_TEST(row_is_the_same_in_any_company),
        RIG_TEST(no_rows_are_ordinary),
#ifndef __SANITIZE_ADDRESS__
        RIG_TEST(step_allocates_nothing),
#endif
        RIG_TEST(open_names_what_does_not_fit),
        RIG_TEST(step_names_what_does_not_fit),
    };
    return rig_run("layer", tests, sizeof tests / sizeof *tests);
}
