/* layer_shape.c - what a layer is made of: checked, and cut into one view per expert. */
#include "layer.h"

enum { MAX_EXPERT = 4096, MAX_WIDTH = 1 << 24, F8_BLOCK = 128, MXFP4_BLOCK = 32 };

/* The public lists are those of kernels.h. */
#define SAME(a, b) _Static_assert((int)(a) == (int)(b), #a)
SAME(PM_SCORE_LOGIT, SCORE_LOGIT);
SAME(PM_SCORE_SIGMOID, SCORE_SIGMOID);
SAME(PM_GROUP_MAX, GROUP_MAX);
SAME(PM_GROUP_TOP2, GROUP_TOP2);
SAME(PM_WEIGHT_SOFTMAX_PICKED, WEIGHT_SOFTMAX_PICKED);
SAME(PM_WEIGHT_SIGMOID_PICKED, WEIGHT_SIGMOID_PICKED);
SAME(PM_WEIGHT_SPARSEMIXER, WEIGHT_SPARSEMIXER);
SAME(PM_RENORM_SUM, RENORM_SUM);
SAME(PM_RENORM_MAX, RENORM_MAX);
SAME(PM_RENORM_NORM, RENORM_NORM);
SAME(PM_GLU_SILU, GLU_SILU);
SAME(PM_GLU_GELU, GLU_GELU);
SAME(PM_GLU_CLAMPED, GLU_CLAMPED);

static pm_status in_range(const char *field, int64_t found, int64_t min, int64_t max)
{
    if (found >= min && found <= max) return PM_OK;
    return fail(PM_ERR_ARG, "layer: %s: found %lld, wanted %lld to %lld", field,
                (long long)found, (long long)min, (long long)max);
}

static const char *type_text(pm_dtype type)
{
    return (unsigned)type < PM_DTYPE_COUNT ? dtype_name(type) : "no type";
}

static bool is_float(pm_dtype type)
{
    return type == PM_F32 || type == PM_F16 || type == PM_BF16;
}

static pm_status check_types(const pm_layer_shape *s, const struct kernels *k)
{
    const struct {
        const char *field;
        pm_dtype type;
    } row[] = {{"x_type", s->x_type}, {"y_type", s->y_type}};
    if (!is_float(s->weight_type) && s->weight_type != PM_F8_E4M3 &&
        s->weight_type != PM_MXFP4) {
        return fail(PM_ERR_ARG,
                    "layer: weight_type: found %s, wanted F32, F16, BF16, F8_E4M3 or MXFP4",
                    type_text(s->weight_type));
    }
    if (!is_float(s->bias_type) || !is_float(s->gate_type)) {
        bool bias = !is_float(s->bias_type);
        return fail(PM_ERR_ARG, "layer: %s: found %s, wanted F32, F16 or BF16",
                    bias ? "bias_type" : "gate_type",
                    type_text(bias ? s->bias_type : s->gate_type));
    }
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        if (row[i].type == PM_F32 || row[i].type == k->narrow) continue;
        return fail(PM_ERR_ARG, "layer: %s: found %s, wanted F32%s on this device",
                    row[i].field, type_text(row[i].type),
                    k->narrow == PM_BF16 ? " or BF16" : "");
    }
    return PM_OK;
}

/* Groups cut the experts evenly and the best of them have enough experts. */
static pm_status check_groups(const pm_layer_shape *s)
{
    TRY(in_range("group", s->group, PM_GROUP_NONE, PM_GROUP_TOP2));
    if (s->group == PM_GROUP_NONE) return PM_OK;
    TRY(in_range("n_group", s->n_group, 1, s->n_expert));
    if (s->n_expert % s->n_group) {
        return fail(PM_ERR_ARG, "layer: n_group: found %d, wanted a divisor of %d experts",
                    s->n_group, s->n_expert);
    }
    TRY(in_range("top_group", s->top_group, 1, s->n_group));
    return in_range("top_k", s->top_k, 1, (int64_t)s->top_group * (s->n_expert / s->n_group));
}

static pm_status check_gate(const pm_layer_shape *s)
{
    TRY(in_range("score", s->score, PM_SCORE_SOFTMAX, PM_SCORE_LOGIT));
    TRY(check_groups(s));
    TRY(in_range("weight", s->weight, PM_WEIGHT_SCORE, PM_WEIGHT_SPARSEMIXER));
    TRY(in_range("renorm", s->renorm, PM_RENORM_NONE, PM_RENORM_NORM));
    TRY(in_range("scale_input", s->scale_input, 0, 1));
    if (s->weight == PM_WEIGHT_SPARSEMIXER) TRY(in_range("top_k", s->top_k, 2, 2));
    if (s->renorm == PM_RENORM_NORM && !(s->floor > 0)) {
        return fail(PM_ERR_ARG, "layer: floor: found %g, wanted the p of a norm, above 0",
                    (double)s->floor);
    }
    return PM_OK;
}

pm_status layer_check_shape(const pm_layer_shape *s, const struct kernels *k)
{
    TRY(in_range("n_expert", s->n_expert, 1, MAX_EXPERT));
    TRY(in_range("top_k", s->top_k, 1, s->n_expert));
    TRY(in_range("hidden", s->hidden, 1, MAX_WIDTH));
    TRY(in_range("inner", s->inner, 1, MAX_WIDTH));
    TRY(check_types(s, k));
    TRY(in_range("gate_up", s->gate_up, PM_GATE_UP_APART, PM_GATE_UP_ALTERNATING));
    TRY(in_range("glu", s->glu, PM_GLU_SILU, PM_GLU_CLAMPED));
    TRY(check_gate(s));
    if (s->weight_type == PM_MXFP4 && (s->hidden % MXFP4_BLOCK || s->inner % MXFP4_BLOCK)) {
        return fail(PM_ERR_ARG,
                    "layer: hidden and inner: found %d and %d, MXFP4 wants multiples of %d",
                    s->hidden, s->inner, MXFP4_BLOCK);
    }
    if (s->weight_type == PM_F8_E4M3 && s->gate_up == PM_GATE_UP_ALTERNATING) {
        return fail(PM_ERR_UNSUPPORTED,
                    "layer: gate_up: F8_E4M3 scales cover rows that stand together");
    }
    return PM_OK;
}

pm_status layer_check_weights(const pm_layer_shape *s, const pm_layer_weights *w)
{
    bool apart = s->gate_up == PM_GATE_UP_APART;
    bool scaled = s->weight_type == PM_F8_E4M3 || s->weight_type == PM_MXFP4;
    const struct {
        const char *field;
        bool found, wanted;
    } row[] = {
        {"w_gate", w->w_gate, true},           {"w_up", w->w_up, apart},
        {"w_down", w->w_down, true},           {"s_gate", w->s_gate, scaled},
        {"s_up", w->s_up, scaled && apart},    {"s_down", w->s_down, scaled},
        {"b_up", w->b_up, w->b_gate && apart},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        if (row[i].found == row[i].wanted) continue;
        return fail(PM_ERR_ARG, "layer: %s: found %s, wanted %s for this shape", row[i].field,
                    row[i].found ? "a pointer" : "NULL", row[i].wanted ? "a pointer" : "NULL");
    }
    if (w->gate_bias && !w->gate) {
        return fail(PM_ERR_ARG,
                    "layer: gate_bias: found a pointer, wanted NULL without a gate");
    }
    return PM_OK;
}

/* Matrix e of [E, rows, cols]. */
static struct tensor matrix(const void *data, const void *scale, pm_dtype type, int e,
                            int64_t rows, int64_t cols)
{
    struct tensor t = tensor_view((void *)(uintptr_t)data, type, rows, cols);
    size_t scale_bytes;
    t.data = (char *)t.data + e * rows * t.stride;
    if (!scale) return t;
    if (type == PM_F8_E4M3) {
        t.scale_stride = (cols + F8_BLOCK - 1) / F8_BLOCK * (int64_t)sizeof(float);
        scale_bytes = (size_t)((rows + F8_BLOCK - 1) / F8_BLOCK * t.scale_stride);
    } else {
        t.scale_stride = cols / MXFP4_BLOCK;
        scale_bytes = (size_t)(rows * t.scale_stride);
    }
    t.scale = (const char *)scale + (size_t)e * scale_bytes;
    return t;
}

/* Every second row, from row `first` on. */
static struct tensor every_second(struct tensor t, int first)
{
    t.rows /= 2;
    t.data = (char *)t.data + first * t.stride;
    t.stride *= 2;
    if (t.scale) t.scale = (const char *)t.scale + first * t.scale_stride;
    t.scale_stride *= 2;
    return t;
}

static struct tensor bias(const void *data, pm_dtype type, int64_t at, int64_t n)
{
    struct tensor t = tensor_view((void *)(uintptr_t)data, type, 1, n);
    if (data) t.data = (char *)t.data + at * dtype_bits(type) / 8;
    return t;
}

void layer_views(struct experts *e, struct tensor *table, const pm_layer_shape *s,
                 const pm_layer_weights *w)
{
    int64_t d = s->hidden, f = s->inner;
    int n = s->n_expert;
    bool apart = s->gate_up == PM_GATE_UP_APART, halves = s->gate_up == PM_GATE_UP_HALVES;
    for (int i = 0; i < n; i++) {
        struct tensor gate, up;
        if (apart) {
            gate = matrix(w->w_gate, w->s_gate, s->weight_type, i, f, d);
            up = matrix(w->w_up, w->s_up, s->weight_type, i, f, d);
        } else {
            struct tensor both = matrix(w->w_gate, w->s_gate, s->weight_type, i, 2 * f, d);
            gate = halves ? tensor_rows(&both, 0, f) : every_second(both, 0);
            up = halves ? tensor_rows(&both, f, f) : every_second(both, 1);
        }
        table[i] = gate;
        table[n + i] = up;
        table[2 * n + i] = matrix(w->w_down, w->s_down, s->weight_type, i, d, f);
        table[3 * n + i] = bias(w->b_gate, s->bias_type, (apart ? i : 2 * i) * f, f);
        table[4 * n + i] = apart ? bias(w->b_up, s->bias_type, i * f, f)
                                 : bias(w->b_gate, s->bias_type, (2 * i + 1) * f, f);
        table[5 * n + i] = bias(w->b_down, s->bias_type, i * d, d);
    }
    e->w_gate = table;
    e->w_up = table + n;
    e->w_down = table + 2 * n;
    e->b_gate = w->b_gate && (apart || halves) ? table + 3 * n : NULL;
    e->b_up = w->b_gate && (apart || halves) ? table + 4 * n : NULL;
    e->b_down = w->b_down ? table + 5 * n : NULL;
}
