/* kernel_ops.c - the operations that polymath bench kernels measures.
 *
 * Useful work only: the weights of experts that have rows, once; rows in and out once; the
 * cache of a row's sequence. Multiply-adds count twice. In the whole layer, rows between the
 * two maps are counted as written and read, sorted outputs are not. */
#include <stdlib.h>
#include <string.h>

#include "bench/kernel_case.h"

static double value_bytes(pm_dtype type)
{
    return dtype_bits(type) / 8.0;
}

static double choices(const struct kernel_case *c)
{
    return (double)c->n_row * c->shape->gate.top_k;
}

static pm_status take_rows(struct kernel_case *c, struct tensor *out, pm_dtype type,
                           int64_t rows, int64_t cols)
{
    *out = tensor_view(NULL, type, rows, cols);
    return arena_values(&c->arena, &out->data, type, rows * cols, "rows");
}

/* Where each expert's rows begin when ids are sorted. */
static pm_status count_rows(const struct kernel_case *c, struct kernel_set *s,
                            const int32_t *id)
{
    const struct gate *g = &c->shape->gate;
    TRY(alloc_array(&s->first, (size_t)g->n_expert + 1, sizeof *s->first, "routing"));
    for (int64_t i = 0; i < c->n_row * g->top_k; i++)
        s->first[id[i] + 1]++;
    for (int e = 0; e < g->n_expert; e++)
        s->first[e + 1] += s->first[e];
    return PM_OK;
}

void kernel_sets_free(struct kernel_case *c)
{
    for (int i = 0; i < MAX_SET; i++) {
        free(c->set[i].first);
        c->set[i].first = NULL;
    }
}

/* Ids of the case's routing, sorted by expert; with `logits` also what a gate would pick them
 * from. */
static pm_status take_routing(struct kernel_case *c, struct kernel_set *s, int number,
                              bool logits)
{
    const struct gate *g = &c->shape->gate;
    struct routing *r = &s->room.routing;
    size_t n = (size_t)c->n_row * (size_t)g->top_k, e = (size_t)g->n_expert;
    float *value = NULL;
    int32_t *id = NULL;
    pm_status status;
    TRY_DONE(alloc_array(&id, n, sizeof *id, "routing"));
    TRY_DONE(routing_ids(c->routing, id, g, c->n_row, (uint64_t)number + 1));
    s->n_active = routing_active(id, g, c->n_row);
    TRY_DONE(count_rows(c, s, id));
    TRY_DONE(arena_bytes(&c->arena, &r->id, id, n * sizeof *id, "routing"));
    TRY_DONE(arena_bytes(&c->arena, &r->source, id, n * sizeof *id, "routing"));
    TRY_DONE(arena_bytes(&c->arena, &r->place, id, n * sizeof *id, "routing"));
    TRY_DONE(arena_values(&c->arena, &r->offset, PM_F32, g->n_expert + 1, "routing"));
    TRY_DONE(arena_values(&c->arena, &r->weight, PM_F32, (int64_t)n, "routing"));
    TRY_DONE(c->k->permute(c->d, g, (int)c->n_row, r));
    if (!logits) goto done;
    TRY_DONE(alloc_array(&value, (size_t)c->n_row * e, sizeof *value, "logits"));
    routing_logits(value, id, g, c->n_row, (uint64_t)number + 1);
    s->logits = tensor_view(NULL, PM_F32, c->n_row, g->n_expert);
    TRY_DONE(arena_bytes(&c->arena, &s->logits.data, value,
                         (size_t)c->n_row * e * sizeof *value, "logits"));
    memset(value, 0, e * sizeof *value);
    if (c->shape->select_bias) {
        status = arena_bytes(&c->arena, &s->bias, value, e * sizeof *value, "bias");
    }
done:
    free(value);
    free(id);
    return status;
}

/* ------------------------------------------------------------------ routing */

static pm_status prepare_gate(struct kernel_case *c, struct kernel_set *s, int number)
{
    return take_routing(c, s, number, true);
}

static pm_status run_gate(const struct kernel_case *c, const struct kernel_set *s)
{
    return c->k->gate_topk(c->d, &c->shape->gate, s->logits, s->bias, &s->room.routing);
}

static void work_gate(const struct kernel_case *c, double *bytes, double *flops)
{
    *bytes = (double)c->n_row * c->shape->gate.n_expert * sizeof(float) +
             choices(c) * (sizeof(float) + 3 * sizeof(int32_t)) +
             c->shape->gate.n_expert * sizeof(int32_t);
    *flops = 0;
}

static pm_status prepare_permute(struct kernel_case *c, struct kernel_set *s, int number)
{
    return take_routing(c, s, number, false);
}

static pm_status run_permute(const struct kernel_case *c, const struct kernel_set *s)
{
    return c->k->permute(c->d, &c->shape->gate, (int)c->n_row, &s->room.routing);
}

static void work_permute(const struct kernel_case *c, double *bytes, double *flops)
{
    *bytes = choices(c) * 3 * sizeof(int32_t) + c->shape->gate.n_expert * sizeof(int32_t);
    *flops = 0;
}

/* ------------------------------------------------------------------ experts */

static pm_status take_room(struct kernel_case *c, struct kernel_set *s, int number)
{
    int64_t n = c->n_row * c->shape->gate.top_k;
    struct experts_room *r = &s->room;
    s->experts = c->copies->expert[number % c->copies->n];
    r->type = c->narrow;
    TRY(arena_values(&c->arena, &r->inner, r->type, n * c->shape->inner, "inner rows"));
    return arena_values(&c->arena, &r->out, r->type, n * c->shape->hidden, "outputs");
}

static pm_status prepare_experts(struct kernel_case *c, struct kernel_set *s, int number)
{
    TRY(take_routing(c, s, number, true));
    TRY(take_rows(c, &s->x, c->narrow, c->n_row, c->shape->hidden));
    TRY(take_rows(c, &s->y, PM_F32, c->n_row, c->shape->hidden));
    return take_room(c, s, number);
}

static struct ragged sorted(const struct kernel_case *c, const struct kernel_set *s)
{
    return (struct ragged){c->shape->gate.n_expert, c->n_row * c->shape->gate.top_k,
                           s->room.routing.offset, NULL};
}

static struct tensor inner_rows(const struct kernel_case *c, const struct kernel_set *s)
{
    return tensor_view(s->room.inner, s->room.type, c->n_row * c->shape->gate.top_k,
                       c->shape->inner);
}

static struct tensor out_rows(const struct kernel_case *c, const struct kernel_set *s)
{
    return tensor_view(s->room.out, s->room.type, c->n_row * c->shape->gate.top_k,
                       c->shape->hidden);
}

static pm_status run_up(const struct kernel_case *c, const struct kernel_set *s)
{
    const struct experts *e = &s->experts;
    struct ragged rows = sorted(c, s);
    struct linear op = {.y = inner_rows(c, s),
                        .x = s->x,
                        .w = e->w_gate,
                        .b = e->b_gate,
                        .w_up = e->w_up,
                        .b_up = e->b_up,
                        .glu = e->glu,
                        .rows = &rows};
    rows.source = s->room.routing.source;
    return c->k->linear(c->d, &op, 1);
}

static pm_status run_down(const struct kernel_case *c, const struct kernel_set *s)
{
    struct ragged rows = sorted(c, s);
    struct linear op = {.y = out_rows(c, s),
                        .x = inner_rows(c, s),
                        .w = s->experts.w_down,
                        .b = s->experts.b_down,
                        .rows = &rows};
    return c->k->linear(c->d, &op, 1);
}

static pm_status run_unpermute(const struct kernel_case *c, const struct kernel_set *s)
{
    return c->k->unpermute(c->d, &c->shape->gate, s->y, out_rows(c, s), &s->room.routing, 1);
}

static pm_status run_layer(const struct kernel_case *c, const struct kernel_set *s)
{
    TRY(run_gate(c, s));
    TRY(c->k->clear(c->d, s->y.data, (size_t)(s->y.rows * s->y.stride)));
    return experts_forward(c->k, c->d, &s->experts, &s->room, s->y, s->x, 1);
}

/* Two of the three matrices. */
static void work_up(const struct kernel_case *c, double *bytes, double *flops)
{
    double d = c->shape->hidden, f = c->shape->inner, unit = value_bytes(c->narrow);
    *bytes = c->n_active * c->copies->expert_bytes * 2 / 3 + (double)c->n_row * d * unit +
             choices(c) * f * unit;
    *flops = 4 * choices(c) * d * f;
}

static void work_down(const struct kernel_case *c, double *bytes, double *flops)
{
    double d = c->shape->hidden, f = c->shape->inner, unit = value_bytes(c->narrow);
    *bytes = c->n_active * c->copies->expert_bytes / 3 + choices(c) * (d + f) * unit;
    *flops = 2 * choices(c) * d * f;
}

static pm_status prepare_unpermute(struct kernel_case *c, struct kernel_set *s, int number)
{
    int64_t n = c->n_row * c->shape->gate.top_k;
    s->room.type = c->narrow;
    TRY(take_routing(c, s, number, false));
    TRY(take_rows(c, &s->y, PM_F32, c->n_row, c->shape->hidden));
    return arena_values(&c->arena, &s->room.out, c->narrow, n * c->shape->hidden, "outputs");
}

static void work_unpermute(const struct kernel_case *c, double *bytes, double *flops)
{
    double d = c->shape->hidden;
    *bytes = choices(c) * d * value_bytes(c->narrow) + 2 * (double)c->n_row * d * sizeof(float);
    *flops = 0;
}

static void work_layer(const struct kernel_case *c, double *bytes, double *flops)
{
    double d = c->shape->hidden, f = c->shape->inner, t = (double)c->n_row;
    double unit = value_bytes(c->narrow);
    *bytes = c->n_active * c->copies->expert_bytes + 2 * choices(c) * f * unit +
             t * (d * (unit + sizeof(float)) + c->shape->gate.n_expert * sizeof(float));
    *flops = 6 * choices(c) * d * f;
}

/* ------------------------------------------------------------------ for baselines */

static void add_product(const struct kernel_case *c, struct kernel_set *s,
                        const struct tensor *w, struct tensor x, struct tensor y)
{
    s->product[s->n_product++] = (struct product){
        .w = w, .x = x, .y = y, .first = s->first, .n_expert = c->shape->gate.n_expert};
}

static pm_status products_down(struct kernel_case *c, struct kernel_set *s)
{
    add_product(c, s, s->experts.w_down, inner_rows(c, s), out_rows(c, s));
    return PM_OK;
}

/* Gate and up, each with results of its own. */
static pm_status products_up(struct kernel_case *c, struct kernel_set *s)
{
    int64_t n = c->n_row * c->shape->gate.top_k;
    const struct tensor *w[2] = {s->experts.w_gate, s->experts.w_up};
    struct tensor x, y;
    TRY(take_rows(c, &x, c->narrow, n, c->shape->hidden));
    for (int i = 0; i < 2; i++) {
        TRY(take_rows(c, &y, c->narrow, n, c->shape->inner));
        add_product(c, s, w[i], x, y);
    }
    return PM_OK;
}

static pm_status products_layer(struct kernel_case *c, struct kernel_set *s)
{
    TRY(products_up(c, s));
    return products_down(c, s);
}

/* ------------------------------------------------------------------ around the experts */

static pm_status prepare_norm(struct kernel_case *c, struct kernel_set *s, int number)
{
    (void)number;
    TRY(take_rows(c, &s->x, PM_F32, c->n_row, c->shape->hidden));
    TRY(take_rows(c, &s->y, c->k->narrow, c->n_row, c->shape->hidden));
    return take_rows(c, &s->w, PM_F32, 1, c->shape->hidden);
}

static pm_status run_norm(const struct kernel_case *c, const struct kernel_set *s)
{
    return c->k->norm(c->d, s->y, s->x, NORM_RMS, &s->w, NULL, 1e-6f);
}

static void work_norm(const struct kernel_case *c, double *bytes, double *flops)
{
    *bytes = (double)c->n_row * c->shape->hidden * (sizeof(float) + value_bytes(c->k->narrow));
    *flops = 0;
}

static int64_t heads_width(const struct shape *s)
{
    return (int64_t)s->n_head * (s->mla.latent ? s->mla.v_dim : s->head_dim);
}

/* The output projection of the attention. */
static pm_status prepare_dense(struct kernel_case *c, struct kernel_set *s, int number)
{
    int64_t n = c->shape->hidden, k = heads_width(c->shape);
    (void)number;
    TRY(take_rows(c, &s->x, c->narrow, c->n_row, k));
    TRY(take_rows(c, &s->y, PM_F32, c->n_row, n));
    return arena_matrices(&c->arena, &s->w, 1, c->type, n, k);
}

static pm_status run_dense(const struct kernel_case *c, const struct kernel_set *s)
{
    struct linear op = {.y = s->y, .x = s->x, .w = &s->w};
    return c->k->linear(c->d, &op, 1);
}

static void work_dense(const struct kernel_case *c, double *bytes, double *flops)
{
    double n = c->shape->hidden, k = (double)heads_width(c->shape), t = (double)c->n_row;
    *bytes = kernel_values_bytes(c->type, n * k) + t * k * value_bytes(c->narrow) +
             t * n * sizeof(float);
    *flops = 2 * t * n * k;
}

/* The gate's logits; its weights are float32. */
static pm_status prepare_logits(struct kernel_case *c, struct kernel_set *s, int number)
{
    (void)number;
    TRY(take_rows(c, &s->x, c->k->narrow, c->n_row, c->shape->hidden));
    TRY(take_rows(c, &s->y, PM_F32, c->n_row, c->shape->gate.n_expert));
    return take_rows(c, &s->w, PM_F32, c->shape->gate.n_expert, c->shape->hidden);
}

static void work_logits(const struct kernel_case *c, double *bytes, double *flops)
{
    double n = c->shape->gate.n_expert, k = c->shape->hidden, t = (double)c->n_row;
    *bytes = n * k * sizeof(float) + t * k * value_bytes(c->k->narrow) + t * n * sizeof(float);
    *flops = 2 * t * n * k;
}

const struct kernel_op kernel_ops[] = {
    {"gate", "logits to weights, ids and sorted rows", false, false, true, PEAK_READ,
     prepare_gate, run_gate, work_gate, NULL},
    {"permute", "ids to sorted rows", false, false, true, PEAK_READ, prepare_permute,
     run_permute, work_permute, NULL},
    {"up", "gathered rows to gated inner rows of the experts", true, true, true, PEAK_READ,
     prepare_experts, run_up, work_up, products_up},
    {"down", "inner rows to outputs of the experts", true, true, true, PEAK_READ,
     prepare_experts, run_down, work_down, products_down},
    {"unpermute", "weighted sum of the experts' outputs", false, false, true, PEAK_COPY,
     prepare_unpermute, run_unpermute, work_unpermute, NULL},
    {"layer", "from logits to the layer's output", true, true, true, PEAK_READ, prepare_experts,
     run_layer, work_layer, products_layer},
    {"norm", "RMS norm of rows", false, false, false, PEAK_COPY, prepare_norm, run_norm,
     work_norm, NULL},
    {"logits", "the gate's linear map, float32 weights", false, false, false, PEAK_READ,
     prepare_logits, run_dense, work_logits, NULL},
    {"dense", "the output projection of the attention", false, true, false, PEAK_READ,
     prepare_dense, run_dense, work_dense, NULL},
    {"decode", "attention of one row in each of T sequences", false, false, false, PEAK_READ,
     attention_prepare_decode, attention_run, attention_work_decode, NULL},
    {"prefill", "attention of T rows of one sequence", false, false, false, PEAK_READ,
     attention_prepare_prefill, attention_run, attention_work_prefill, NULL},
    {NULL, NULL, false, false, false, 0, NULL, NULL, NULL, NULL},
};
