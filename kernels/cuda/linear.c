/* linear.c - the host side of the linear maps: checks, narrowing of x, plan, launch.
 *
 * Kernels multiply 16-bit weights and those that widen to 16 bits with x of 16 bits (BF16; F16
 * for F16 weights). Where x has another type its rows are rounded once per call into scratch,
 * and operations of the call that share x share them. F32 weights meet x as it is.
 *
 * The kernels find an expert's weights by arithmetic, so the experts must stand at equal
 * distances and agree in type; that is checked here. What experts have no rows is known on the
 * device alone. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/linear.h"

enum { WORD = 16, SCALE_COLS = 32, MAX_COLS = 1 << 29 };

static int n_expert(const struct linear *op)
{
    return op->rows ? op->rows->n_expert : 1;
}

/* Experts whose tensors are looked at: two say where all of them are. */
static int n_looked(const struct linear *op)
{
    return op->checked && n_expert(op) > 2 ? 2 : n_expert(op);
}

static int64_t max_row(const struct linear *op)
{
    return op->rows ? op->rows->max_row : op->x.rows;
}

pm_dtype linear_x_type(pm_dtype w)
{
    return w == PM_F32 || w == PM_F16 ? w : PM_BF16;
}

static bool is_type_aligned(const void *p, int64_t stride, pm_dtype type)
{
    uintptr_t bytes = dtype_bits(type) < 8 ? 1 : (uintptr_t)dtype_bits(type) / 8;
    return (uintptr_t)p % bytes == 0 && (uint64_t)stride % bytes == 0;
}

static pm_status check_activation(const char *what, const struct tensor *t)
{
    if (t->type != PM_F32 && t->type != PM_BF16) {
        return fail(PM_ERR_ARG, "linear: %s is %s, wanted F32 or BF16", what,
                    dtype_name(t->type));
    }
    if (t->rows > INT32_MAX || !is_type_aligned(t->data, t->stride, t->type)) {
        return fail(PM_ERR_ARG, "linear: %s has %lld rows at %p, %lld bytes apart: not aligned",
                    what, (long long)t->rows, t->data, (long long)t->stride);
    }
    return PM_OK;
}

static pm_status check_weight(const struct linear *op, const struct tensor *w)
{
    if (w->type != PM_F32 && w->type != PM_BF16 && w->type != PM_F16 && w->type != PM_F8_E4M3 &&
        w->type != PM_MXFP4) {
        return fail(PM_ERR_UNSUPPORTED, "linear: weights of type %s", dtype_name(w->type));
    }
    if (w->cols != op->x.cols || w->rows != op->y.cols || w->cols < 1) {
        return fail(PM_ERR_ARG, "linear: weight is [%lld,%lld], wanted [%lld,%lld]",
                    (long long)w->rows, (long long)w->cols, (long long)op->y.cols,
                    (long long)op->x.cols);
    }
    if (w->cols > MAX_COLS) {
        return fail(PM_ERR_UNSUPPORTED, "linear: rows of %lld weights, wanted at most %d",
                    (long long)w->cols, MAX_COLS);
    }
    if (w->type == PM_MXFP4 && w->cols % SCALE_COLS) {
        return fail(PM_ERR_ARG, "linear: MXFP4 rows of %lld values, wanted a multiple of %d",
                    (long long)w->cols, SCALE_COLS);
    }
    if ((w->type == PM_MXFP4 || w->type == PM_F8_E4M3) && !w->scale) {
        return fail(PM_ERR_ARG, "linear: weights of type %s without scales",
                    dtype_name(w->type));
    }
    if (!is_type_aligned(w->data, w->stride, w->type)) {
        return fail(PM_ERR_ARG, "linear: %s weights at %p, %lld bytes apart: not aligned",
                    dtype_name(w->type), w->data, (long long)w->stride);
    }
    return PM_OK;
}

static pm_status check_bias(const struct linear *op, const struct tensor *b)
{
    if (b->cols != op->y.cols ||
        (b->type != PM_F32 && b->type != PM_BF16 && b->type != PM_F16)) {
        return fail(PM_ERR_ARG, "linear: bias is %s [%lld], wanted float [%lld]",
                    dtype_name(b->type), (long long)b->cols, (long long)op->y.cols);
    }
    if (!is_type_aligned(b->data, 0, b->type)) {
        return fail(PM_ERR_ARG, "linear: %s bias at %p: not aligned", dtype_name(b->type),
                    b->data);
    }
    return PM_OK;
}

static int64_t distance(const void *from, const void *to)
{
    return (int64_t)((uintptr_t)to - (uintptr_t)from);
}

/* Expert e's tensor is where, and as, the stack says. */
static bool is_in_stack(const struct linear_stack *s, const struct tensor *t, int64_t e)
{
    if (t->type != s->type || t->stride != s->stride || t->scale_stride != s->scale_stride) {
        return false;
    }
    if (!t->data || distance(s->data, t->data) != e * s->expert_stride) return false;
    if (!s->scale != !t->scale) return false;
    if (s->scale && distance(s->scale, t->scale) != e * s->scale_expert_stride) return false;
    return s->type != PM_F8_E4M3 || t->scale_row == s->scale_row + e * s->scale_expert_row;
}

/* The n tensors as a stack; t NULL or t[0].data NULL: absent, for all of them. */
static pm_status stack_of(struct linear_stack *out, const char *what, const struct tensor *t,
                          int n)
{
    memset(out, 0, sizeof *out);
    if (!t) return PM_OK;
    out->data = t[0].data;
    out->scale = t[0].scale;
    out->type = t[0].type;
    out->stride = t[0].stride;
    out->scale_stride = t[0].scale_stride;
    out->scale_row = t[0].scale_row;
    if (n > 1) {
        out->expert_stride = distance(t[0].data, t[1].data);
        if (t[0].scale) out->scale_expert_stride = distance(t[0].scale, t[1].scale);
        out->scale_expert_row = t[1].scale_row - t[0].scale_row;
    }
    for (int e = 0; e < n; e++) {
        if (!out->data && !t[e].data) continue;
        if (out->data && is_in_stack(out, &t[e], e)) continue;
        return fail(PM_ERR_UNSUPPORTED,
                    "linear: %s of expert %d is not of one type at equal distances with the "
                    "others",
                    what, e);
    }
    return PM_OK;
}

static pm_status check_rows(const struct linear *op)
{
    bool gated = op->glu.kind != GLU_NONE;
    int64_t n = max_row(op);
    TRY(check_activation("x", &op->x));
    TRY(check_activation("y", &op->y));
    if (n > op->y.rows || (!(op->rows && op->rows->source) && n > op->x.rows)) {
        return fail(PM_ERR_ARG, "linear: %lld rows, x has %lld and y has %lld", (long long)n,
                    (long long)op->x.rows, (long long)op->y.rows);
    }
    if (n_expert(op) > LINEAR_MAX_EXPERT) {
        return fail(PM_ERR_UNSUPPORTED, "linear: found %d experts, wanted up to %d",
                    n_expert(op), LINEAR_MAX_EXPERT);
    }
    if (gated != (op->w_up != NULL)) {
        return fail(PM_ERR_ARG, "linear: a gated map wants two weights, a plain one wants one");
    }
    return PM_OK;
}

static pm_status check_tensors(const struct linear *op)
{
    for (int e = 0; e < n_looked(op); e++) {
        TRY(check_weight(op, &op->w[e]));
        if (op->w_up) TRY(check_weight(op, &op->w_up[e]));
        if (op->b && op->b[e].data) TRY(check_bias(op, &op->b[e]));
        if (op->w_up && op->b_up && op->b_up[e].data) TRY(check_bias(op, &op->b_up[e]));
    }
    if (op->w_up && op->w_up[0].type != op->w[0].type) {
        return fail(PM_ERR_UNSUPPORTED, "linear: weights of types %s and %s in one gated map",
                    dtype_name(op->w[0].type), dtype_name(op->w_up[0].type));
    }
    return PM_OK;
}

pm_status linear_params_of(struct linear_params *out, const struct linear *op)
{
    struct linear_params p = {.glu = op->glu,
                              .x = op->x.data,
                              .x_type = op->x.type,
                              .x_stride = op->x.stride,
                              .x_rows = op->x.rows,
                              .y = op->y.data,
                              .y_type = op->y.type,
                              .y_stride = op->y.stride,
                              .n = op->y.cols,
                              .k = op->x.cols,
                              .n_expert = n_expert(op),
                              .max_row = max_row(op)};
    int n = n_looked(op);
    TRY(check_rows(op));
    TRY(check_tensors(op));
    TRY(stack_of(&p.w, "weight", op->w, n));
    TRY(stack_of(&p.w_up, "weight", op->w_up, n));
    TRY(stack_of(&p.b, "bias", op->b, n));
    if (op->w_up) TRY(stack_of(&p.b_up, "bias", op->b_up, n));
    if (op->rows) {
        p.offset = op->rows->offset;
        p.source = op->rows->source;
    }
    *out = p;
    return PM_OK;
}

static bool is_word(const void *p, int64_t stride)
{
    return (uintptr_t)p % WORD == 0 && stride % WORD == 0;
}

bool linear_stack_aligned(const struct linear_stack *w, int64_t k)
{
    if (!w->data) return true;
    return is_word(w->data, w->stride) && w->expert_stride % WORD == 0 &&
           k * dtype_bits(w->type) / 8 % WORD == 0;
}

bool linear_x_aligned(const struct linear_params *p)
{
    return is_word(p->x, p->x_stride) && p->k * dtype_bits(p->x_type) / 8 % WORD == 0;
}

struct linear_shape linear_shape_of(const struct linear_params *p)
{
    bool forward = p->w.stride > 0 && p->w.expert_stride >= 0 && p->w_up.expert_stride >= 0;
    return (struct linear_shape){.type = p->w.type,
                                 .glu = p->glu.kind != GLU_NONE,
                                 .aligned = forward && linear_stack_aligned(&p->w, p->k) &&
                                            linear_stack_aligned(&p->w_up, p->k) &&
                                            linear_x_aligned(p),
                                 .n_expert = p->n_expert,
                                 .n = p->n,
                                 .k = p->k,
                                 .max_row = p->max_row};
}

int linear_grid(const struct device *d, const struct linear_params *p, int weight_tile,
                int row_tile, size_t smem, int threads)
{
    enum { RESERVED = 1 << 10, SM_THREADS = 2048, MAX_BLOCKS = 16 };
    int64_t n_col = p->glu.kind != GLU_NONE ? weight_tile / 2 : weight_tile;
    int64_t row_tiles = p->max_row / row_tile + min_i64(p->n_expert, p->max_row);
    int64_t tiles = (p->n + n_col - 1) / n_col * row_tiles;
    int64_t per_sm = (int64_t)((d->smem_block + RESERVED) / (smem + RESERVED));
    per_sm = min_i64(max_i64(per_sm, 1), min_i64(SM_THREADS / threads, MAX_BLOCKS));
    return (int)min_i64(tiles, per_sm * d->n_sm);
}

pm_status linear_launch(struct device *d, const struct linear_params *p,
                        const struct linear_plan *plan)
{
    if (p->max_row == 0 || p->n == 0) return PM_OK;
    if (plan->kernel == LINEAR_SM90) return cuda_grouped_linear_sm90(d, p, plan);
    switch (p->w.type) {
    case PM_F32: return cuda_linear_f32(d, p, plan);
    case PM_BF16: return cuda_linear_bf16(d, p, plan);
    case PM_F16: return cuda_linear_f16(d, p, plan);
    case PM_F8_E4M3: return cuda_linear_f8(d, p, plan);
    case PM_MXFP4: return cuda_linear_mxfp4(d, p, plan);
    default: return fail(PM_ERR_BUG, "linear: no kernel for %s", dtype_name(p->w.type));
    }
}

static int64_t narrow_stride(int64_t k)
{
    return (k * 2 + WORD - 1) / WORD * WORD;
}

size_t cuda_linear_scratch(const struct device *d, int64_t n_row, int64_t n_col)
{
    (void)d;
    return (size_t)n_row * (size_t)narrow_stride(n_col);
}

/* Makes p's x what the kernels read. `now` is what scratch holds: an x before narrowing. */
static pm_status narrow(struct device *d, struct linear_params *p, struct linear_params *now)
{
    pm_dtype type = linear_x_type(p->w.type);
    int64_t rows = p->source ? p->x_rows : min_i64(p->x_rows, p->max_row);
    int64_t stride = narrow_stride(p->k);
    const struct linear_params from = *p;
    void *to;
    if (type == PM_F32 || type == p->x_type || p->max_row == 0) return PM_OK;
    TRY(cuda_scratch(d, &to, (size_t)(rows * stride), "linear"));
    p->x = to;
    p->x_type = type;
    p->x_stride = stride;
    if (now->x == from.x && now->x_stride == from.x_stride && now->x_type == from.x_type &&
        now->k == from.k && now->x_rows >= rows && linear_x_type(now->w.type) == type) {
        return PM_OK;
    }
    TRY(cuda_convert_rows(d, to, type, stride, from.x, from.x_type, from.x_stride, rows,
                          from.k));
    *now = from;
    now->x_rows = rows;
    return PM_OK;
}

pm_status cuda_check_linear(const struct linear *op)
{
    struct linear_params p;
    struct linear all = *op;
    all.checked = false;
    return linear_params_of(&p, &all);
}

pm_status cuda_linear(struct device *d, const struct linear *op, int n_op)
{
    const struct linear_machine machine = {d->sm, d->n_sm, d->smem_block};
    struct linear_params p, narrowed = {0};
    for (int i = 0; i < n_op; i++) {
        TRY(linear_params_of(&p, &op[i]));
    }
    for (int i = 0; i < n_op; i++) {
        struct linear_shape shape;
        struct linear_plan plan;
        TRY(linear_params_of(&p, &op[i]));
        TRY(narrow(d, &p, &narrowed));
        shape = linear_shape_of(&p);
        plan = linear_plan_of(&machine, &shape);
        TRY(linear_launch(d, &p, &plan));
    }
    return PM_OK;
}
