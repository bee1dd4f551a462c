/* layer.c - the expert layer of polymath.h: routing, experts, and the memory between them.
 *
 * A layer holds views of the caller's weights and a machine: a device with its threads and its
 * scratch, which layers may share. All arrays of a step lie in the caller's workspace, so a
 * step neither allocates nor waits. Here alone runtime/ handles device pointers, because they
 * are the caller's and nothing looks into them. */
#include "layer.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256, DEFAULT_ROWS = 512 };

struct machine {
    const struct kernels *k;
    struct device *d;
    int n_user;
};

struct pm_layer {
    struct machine *machine;
    pm_layer_shape shape;
    struct experts experts;
    struct tensor *table; /* [6 E] views of the experts' weights */
    struct tensor gate, gate_bias;
    const float *select_bias;
    void *bias; /* [2, E, F] biases that alternated, one list after the other */
    int64_t max_row;
    pm_dtype type; /* of rows inside the experts */
    /* One expert a row, of weight 1: turns F32 rows into y_type. NULL where that is F32. */
    struct routing plain;
    struct routing last; /* of the last step */
    int64_t last_row;
};

/* A step's arrays, in the workspace. */
struct room {
    float *logits; /* [T, E] */
    float *sum;    /* [T, D] where y is not F32 */
    struct experts_room experts;
};

static struct gate gate_of(const pm_layer_shape *s)
{
    return (struct gate){.n_expert = s->n_expert,
                         .top_k = s->top_k,
                         .score = (enum gate_score)s->score,
                         .group = (enum gate_group)s->group,
                         .n_group = s->n_group,
                         .top_group = s->top_group,
                         .weight = (enum gate_weight)s->weight,
                         .renorm = (enum gate_renorm)s->renorm,
                         .floor = s->floor,
                         .scale = s->scale == 0 ? 1 : s->scale,
                         .jitter = s->jitter,
                         .scale_input = s->scale_input != 0};
}

static pm_status machine_open(struct machine **out, const pm_layer_options *o)
{
    struct machine *m;
    int index;
    pm_status status;
    if (o->beside) {
        *out = o->beside->machine;
        (*out)->n_user++;
        return PM_OK;
    }
    TRY(alloc_array(&m, 1, sizeof *m, "layer"));
    TRY_DONE(kernels_select(&m->k, &index, o->device ? o->device : "auto"));
    TRY_DONE(m->k->open(&m->d, index, o->n_thread));
    m->n_user = 1;
    *out = m;
    m = NULL;
done:
    free(m);
    return status;
}

static void machine_close(struct machine *m)
{
    if (!m || --m->n_user > 0) return;
    m->k->close(m->d);
    free(m);
}

/* Copies alternating biases [E, 2 F] apart: a bias of kernels.h has no gaps. */
static pm_status split_bias(pm_layer *l, const pm_layer_weights *w)
{
    const struct kernels *k = l->machine->k;
    pm_layer_shape *s = &l->shape;
    size_t size = (size_t)dtype_bits(s->bias_type) / 8;
    size_t n = (size_t)s->n_expert * (size_t)s->inner, f = (size_t)s->inner;
    char *from = NULL, *to = NULL;
    pm_status status;
    TRY_DONE(alloc_array(&from, 2 * n, size, "biases"));
    TRY_DONE(alloc_array(&to, 2 * n, size, "biases"));
    TRY_DONE(k->alloc(l->machine->d, &l->bias, 2 * n * size, "biases"));
    TRY_DONE(k->download(l->machine->d, from, w->b_gate, 2 * n * size));
    for (size_t i = 0; i < n; i++) {
        memcpy(to + i * size, from + 2 * i * size, size);
        memcpy(to + (n + i) * size, from + (2 * i + 1) * size, size);
    }
    TRY_DONE(k->upload(l->machine->d, l->bias, to, 2 * n * size));
    TRY_DONE(k->sync(l->machine->d));
    for (int e = 0; e < s->n_expert; e++) {
        struct tensor *gate = &l->table[3 * s->n_expert + e], *up = gate + s->n_expert;
        gate->data = (char *)l->bias + (size_t)e * f * size;
        up->data = (char *)l->bias + (n + (size_t)e * f) * size;
    }
    l->experts.b_gate = l->table + 3 * s->n_expert;
    l->experts.b_up = l->table + 4 * s->n_expert;
done:
    free(from);
    free(to);
    return status;
}

static pm_status make_plain(pm_layer *l)
{
    const struct kernels *k = l->machine->k;
    struct device *d = l->machine->d;
    size_t n = (size_t)l->max_row;
    float *one = NULL;
    int32_t *place = NULL;
    void *weight_at = NULL, *place_at = NULL;
    pm_status status;
    TRY_DONE(alloc_array(&one, n, sizeof *one, "layer"));
    TRY_DONE(alloc_array(&place, n, sizeof *place, "layer"));
    for (size_t i = 0; i < n; i++) {
        one[i] = 1;
        place[i] = (int32_t)i;
    }
    TRY_DONE(k->alloc(d, &weight_at, n * sizeof *one, "layer"));
    l->plain.weight = weight_at;
    TRY_DONE(k->alloc(d, &place_at, n * sizeof *place, "layer"));
    l->plain.place = place_at;
    TRY_DONE(k->upload(d, weight_at, one, n * sizeof *one));
    TRY_DONE(k->upload(d, place_at, place, n * sizeof *place));
    status = k->sync(d);
done:
    free(one);
    free(place);
    return status;
}

static pm_status fill(pm_layer *l, const pm_layer_weights *w, const pm_layer_options *o)
{
    const pm_layer_shape *s = &l->shape;
    const struct kernels *k = l->machine->k;
    bool wide = s->weight_type == PM_F32 || s->weight_type == PM_F16;
    int64_t widest = max_i64(s->n_expert, max_i64(s->hidden, s->inner));
    TRY(layer_check_shape(s, k));
    TRY(layer_check_weights(s, w));
    l->max_row = o->max_row ? o->max_row : DEFAULT_ROWS;
    if (l->max_row < 1 || l->max_row > INT32_MAX / s->top_k) {
        return fail(PM_ERR_ARG, "layer: max_row: found %lld, wanted 1 to %d",
                    (long long)l->max_row, INT32_MAX / s->top_k);
    }
    l->type = wide ? PM_F32 : k->narrow;
    l->experts.gate = gate_of(s);
    l->experts.glu = (struct glu){(enum glu_kind)s->glu, s->alpha, s->limit};
    TRY(alloc_array(&l->table, 6 * (size_t)s->n_expert, sizeof *l->table, "layer"));
    layer_views(&l->experts, l->table, s, w);
    if (w->b_gate && !l->experts.b_gate) TRY(split_bias(l, w));
    l->gate = tensor_view((void *)(uintptr_t)w->gate, s->gate_type, s->n_expert, s->hidden);
    l->gate_bias = tensor_view((void *)(uintptr_t)w->gate_bias, PM_F32, 1, s->n_expert);
    l->select_bias = w->select_bias;
    TRY(experts_check(k, &l->experts));
    l->experts.checked = true;
    if (s->y_type != PM_F32) TRY(make_plain(l));
    TRY(k->reserve(l->machine->d, l->max_row * s->top_k, widest, 0));
    /* What was enqueued here must be done before a step comes on another stream. */
    return k->sync(l->machine->d);
}

pm_status pm_layer_open(pm_layer **out, const pm_layer_shape *shape,
                        const pm_layer_weights *weights, const pm_layer_options *options)
{
    static const pm_layer_options defaults;
    const pm_layer_options *o = options ? options : &defaults;
    pm_layer *l;
    pm_status status;
    if (!out || !shape || !weights) {
        return fail(PM_ERR_ARG, "layer: found NULL, wanted a place, a shape and weights");
    }
    TRY(alloc_array(&l, 1, sizeof *l, "layer"));
    l->shape = *shape;
    TRY_DONE(machine_open(&l->machine, o));
    TRY_DONE(fill(l, weights, o));
    *out = l;
    l = NULL;
done:
    pm_layer_close(l);
    return status;
}

void pm_layer_close(pm_layer *l)
{
    if (!l) return;
    if (l->machine) {
        void *owned[] = {l->bias, l->plain.weight, l->plain.place};
        for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
            l->machine->k->free(l->machine->d, owned[i]);
        }
        machine_close(l->machine);
    }
    free(l->table);
    free(l);
}

/* Gives *out the next `bytes` behind *at, or only counts them where base is NULL. */
static void put(void *out, char *base, size_t *at, int64_t n, size_t size)
{
    if (base) {
        char *p = base + *at;
        memcpy(out, &p, sizeof p);
    }
    *at += ((size_t)n * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Returns the bytes of a step of n_row rows; with a base also places its arrays. */
static size_t lay_out(struct room *r, const pm_layer *l, int64_t n_row, char *base)
{
    const pm_layer_shape *s = &l->shape;
    int64_t n = n_row * s->top_k;
    size_t value = (size_t)dtype_bits(l->type) / 8, at = 0;
    struct routing *routing = &r->experts.routing;
    *r = (struct room){.experts.type = l->type};
    if (l->gate.data) put(&r->logits, base, &at, n_row * s->n_expert, sizeof(float));
    put(&routing->weight, base, &at, n, sizeof(float));
    put(&routing->id, base, &at, n, sizeof(int32_t));
    put(&routing->source, base, &at, n, sizeof(int32_t));
    put(&routing->place, base, &at, n, sizeof(int32_t));
    put(&routing->offset, base, &at, s->n_expert + 1, sizeof(int32_t));
    put(&r->experts.inner, base, &at, n * s->inner, value);
    put(&r->experts.out, base, &at, n * s->hidden, value);
    if (s->scale_input) put(&r->experts.scaled, base, &at, n * s->hidden, value);
    if (s->y_type != PM_F32) put(&r->sum, base, &at, n_row * s->hidden, sizeof(float));
    return at;
}

static pm_status check_rows(const pm_layer *l, int64_t n_row)
{
    if (n_row >= 0 && n_row <= l->max_row) return PM_OK;
    return fail(PM_ERR_ARG, "layer: n_row: found %lld, wanted 0 to %lld (max_row)",
                (long long)n_row, (long long)l->max_row);
}

pm_status pm_layer_workspace(size_t *bytes, const pm_layer *l, int64_t n_row)
{
    struct room r;
    TRY(check_rows(l, n_row));
    *bytes = lay_out(&r, l, n_row, NULL) + ALIGNMENT - 1;
    return PM_OK;
}

static bool overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes)
{
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return x < y + (uintptr_t)b_bytes && y < x + (uintptr_t)a_bytes;
}

/* Where the caller's ids can be read, a wrong one is named instead of used. */
static pm_status check_ids(const pm_layer *l, const pm_layer_step *step)
{
    int64_t n = step->n_row * l->shape.top_k;
    if (!l->machine->k->host_memory) return PM_OK;
    for (int64_t i = 0; i < n; i++) {
        if (step->id[i] >= 0 && step->id[i] < l->shape.n_expert) continue;
        return fail(PM_ERR_ARG, "layer: id %lld: found %d, wanted 0 to %d", (long long)i,
                    step->id[i], l->shape.n_expert - 1);
    }
    return PM_OK;
}

static pm_status check_step(const pm_layer *l, const pm_layer_step *step)
{
    const pm_layer_shape *s = &l->shape;
    int64_t values = step->n_row * s->hidden;
    size_t bytes;
    if (!step->x || !step->y) {
        return fail(PM_ERR_ARG, "layer: %s: found NULL", step->x ? "y" : "x");
    }
    if (overlap(step->x, values * dtype_bits(s->x_type) / 8, step->y,
                values * dtype_bits(s->y_type) / 8)) {
        return fail(PM_ERR_ARG, "layer: y: found memory of x, wanted its own");
    }
    if (step->id ? !step->weight : !(step->logits || l->gate.data)) {
        return fail(PM_ERR_ARG, step->id ? "layer: weight: found NULL beside id"
                                         : "layer: logits: found NULL, the layer has no gate");
    }
    if (step->add && s->y_type != PM_F32) {
        return fail(PM_ERR_ARG, "layer: add: found 1, y_type %s wants 0",
                    dtype_name(s->y_type));
    }
    TRY(pm_layer_workspace(&bytes, l, step->n_row));
    if (!step->workspace || step->workspace_bytes < bytes) {
        return fail(PM_ERR_ARG, "layer: workspace: found %zu bytes, %lld rows want %zu",
                    step->workspace ? step->workspace_bytes : 0, (long long)step->n_row, bytes);
    }
    return step->id ? check_ids(l, step) : PM_OK;
}

/* Fills the routing from what the step brings: picks, logits, or nothing but x. */
static pm_status route(pm_layer *l, const pm_layer_step *step, struct room *r, struct tensor x)
{
    const struct kernels *k = l->machine->k;
    struct device *d = l->machine->d;
    struct routing *routing = &r->experts.routing;
    struct tensor logits =
        tensor_view((void *)(uintptr_t)step->logits, PM_F32, x.rows, l->shape.n_expert);
    if (step->id) {
        routing->id = (int32_t *)(uintptr_t)step->id;
        routing->weight = (float *)(uintptr_t)step->weight;
        return k->permute(d, &l->experts.gate, (int)x.rows, routing);
    }
    if (!step->logits) {
        struct linear op = {.x = x, .w = &l->gate, .b = &l->gate_bias};
        logits.data = r->logits;
        op.y = logits;
        TRY(k->linear(d, &op, 1));
    }
    return k->gate_topk(d, &l->experts.gate, logits, l->select_bias, routing);
}

static pm_status to_type(const pm_layer *l, struct tensor y, struct tensor sum)
{
    struct gate plain = {.n_expert = 1, .top_k = 1};
    return l->machine->k->permute_scaled(l->machine->d, &plain, y, sum, &l->plain);
}

pm_status pm_layer_forward(pm_layer *l, const pm_layer_step *step)
{
    const pm_layer_shape *s = &l->shape;
    const struct kernels *k = l->machine->k;
    struct device *d = l->machine->d;
    int64_t t = step->n_row;
    struct tensor x = tensor_view((void *)(uintptr_t)step->x, s->x_type, t, s->hidden);
    struct tensor y = tensor_view(step->y, s->y_type, t, s->hidden), sum = y;
    struct room r;
    char *base;
    TRY(check_rows(l, t));
    TRY(k->set_stream(d, step->stream));
    l->last_row = 0;
    if (t == 0) return PM_OK;
    TRY(check_step(l, step));
    base = step->workspace;
    base += (ALIGNMENT - (uintptr_t)base % ALIGNMENT) % ALIGNMENT;
    lay_out(&r, l, t, base);
    TRY(route(l, step, &r, x));
    if (r.sum) sum = tensor_view(r.sum, PM_F32, t, s->hidden);
    if (!step->add) TRY(k->clear(d, sum.data, (size_t)(sum.rows * sum.stride)));
    TRY(experts_forward(k, d, &l->experts, &r.experts, sum, x, 1));
    if (r.sum) TRY(to_type(l, y, sum));
    l->last = r.experts.routing;
    l->last_row = t;
    return PM_OK;
}

pm_status pm_layer_routing(pm_layer *l, int32_t *id, float *weight)
{
    const struct kernels *k = l->machine->k;
    size_t n = (size_t)l->last_row * (size_t)l->shape.top_k;
    if (id) TRY(k->download(l->machine->d, id, l->last.id, n * sizeof *id));
    if (weight) TRY(k->download(l->machine->d, weight, l->last.weight, n * sizeof *weight));
    return PM_OK;
}
