/* weights.c - finds, checks and views the tensors of a checkpoint.
 *
 * On a device that shares host memory a matrix is a view of the mapped file: opening touches no
 * weights, and a 3 GB checkpoint is ready at once. Copies are made only where the file cannot
 * be read as it stands: vectors and gates become float32 (small, and routing needs the
 * precision), and expert tensors stored input-major, [in, out], are transposed once in their
 * own type. Tensors that are generated instead of stored (weights_generate) are written where
 * the device wants them.
 *
 * Experts come one tensor each or fused in 3-D; fused gate and up halves, or alternating rows,
 * are told apart by views. Whatever the checkpoint holds beyond what the configuration calls
 * for is an error, but for a short list of tensors that inference does not use. */
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "families.h"
#include "weights_memory.h"

enum { NAME_BYTES = 512 };

struct loader {
    struct weights *w;
    const struct config *c;
    const struct names *names;
    const char *folder, *prefix;
    bool *used; /* [count] tensors that were asked for */
    int layer;  /* -1 outside */
    struct weight_memory memory;
};

/* Fills in '#' and '@' and the checkpoint's prefix; ends at a '|'. */
static void spell(const struct loader *ld, char *out, const char *pattern, int expert,
                  const char *ending)
{
    size_t n = (size_t)snprintf(out, NAME_BYTES, "%s", ld->prefix);
    for (const char *p = pattern; *p && *p != '|' && n < NAME_BYTES - 16; p++) {
        if (*p == '#') {
            n += (size_t)snprintf(out + n, NAME_BYTES - n, "%d", ld->layer);
        } else if (*p == '@') {
            n += (size_t)snprintf(out + n, NAME_BYTES - n, "%d", expert);
        } else {
            out[n++] = *p;
        }
    }
    snprintf(out + n, NAME_BYTES - n, "%s", ending);
}

static const struct stored *find(struct loader *ld, const char *pattern, int expert,
                                 const char *ending)
{
    char name[NAME_BYTES];
    while (pattern) {
        const struct stored *s;
        spell(ld, name, pattern, expert, ending);
        s = safetensors_find(ld->w->files, name);
        if (s) {
            ld->used[s - safetensors_at(ld->w->files, 0)] = true;
            return s;
        }
        pattern = strchr(pattern, '|');
        if (pattern) pattern++;
    }
    return NULL;
}

/* A tensor called with either of two endings; missing is an error. */
static pm_status need(struct loader *ld, const struct stored **out, const char *pattern,
                      int expert, const char *ending, const char *other)
{
    const struct stored *s = find(ld, pattern, expert, ending);
    char name[NAME_BYTES];
    if (!s && other) s = find(ld, pattern, expert, other);
    if (!s) {
        spell(ld, name, pattern ? pattern : "?", expert, ending);
        return fail(PM_ERR_FORMAT, "%s: tensor %s is missing (%s)", ld->folder, name,
                    ld->c->family->title);
    }
    *out = s;
    return PM_OK;
}

static void shape_text(char *out, size_t n, const struct stored *s)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < s->n_dim && at < n; i++) {
        at += (size_t)snprintf(out + at, n - at, "%s%lld", i ? "," : "", (long long)s->dim[i]);
    }
}

static pm_status check_shape(const struct loader *ld, const struct stored *s, int n_dim,
                             const int64_t *dim)
{
    struct stored wanted = {.n_dim = n_dim};
    char got[128], want[128];
    bool same = s->n_dim == n_dim;
    for (int i = 0; i < n_dim; i++) {
        wanted.dim[i] = dim[i];
        same = same && s->dim[i] == dim[i];
    }
    if (same) return PM_OK;
    shape_text(got, sizeof got, s);
    shape_text(want, sizeof want, &wanted);
    return fail(PM_ERR_FORMAT, "%s: tensor %s: found [%s], config.json calls for [%s]",
                safetensors_file(ld->w->files, s->file), s->name, got, want);
}

static pm_status wrong_type(const struct loader *ld, const struct stored *s, const char *wanted)
{
    return fail(PM_ERR_UNSUPPORTED, "%s: tensor %s: found type %s, wanted %s",
                safetensors_file(ld->w->files, s->file), s->name, dtype_name(s->type), wanted);
}

static bool is_float(pm_dtype t)
{
    return t == PM_F32 || t == PM_F16 || t == PM_BF16;
}

/* A float32 copy of rows x cols values of a stored tensor, starting at `first`, every `step`.
 */
static pm_status copy_f32(struct loader *ld, struct tensor *out, const struct stored *s,
                          int64_t first, int64_t step)
{
    if (!is_float(s->type)) return wrong_type(ld, s, "F32, F16 or BF16");
    return memory_widen(&ld->memory, out, s, first, step);
}

static pm_status load_vector(struct loader *ld, struct tensor *out, const char *pattern,
                             const char *ending, const char *other, int64_t n)
{
    const struct stored *s;
    TRY(need(ld, &s, pattern, 0, ending, other));
    if (s->n_dim == 2 && s->dim[0] == 1) { /* ERNIE's [1, E] */
        TRY(check_shape(ld, s, 2, (const int64_t[]){1, n}));
    } else {
        TRY(check_shape(ld, s, 1, &n));
    }
    *out = (struct tensor){.rows = 1, .cols = n};
    return copy_f32(ld, out, s, 0, 1);
}

/* The scales of an FP8 matrix of rows x cols: weight_scale_inv [ceil / 128, ceil / 128]. */
static pm_status load_scale(struct loader *ld, struct tensor *t, const char *pattern,
                            int expert, const struct stored *weight)
{
    const struct stored *s;
    struct tensor scale;
    int64_t dim[2] = {(t->rows + 127) / 128, (t->cols + 127) / 128};
    char name[NAME_BYTES];
    if (ld->c->quant != QUANT_FP8_BLOCK) {
        return wrong_type(ld, weight,
                          "F32, F16 or BF16 (config.json has no fp8 "
                          "quantization_config)");
    }
    s = find(ld, pattern, expert, ".weight_scale_inv");
    if (!s) {
        spell(ld, name, pattern, expert, ".weight_scale_inv");
        return fail(PM_ERR_FORMAT, "%s: tensor %s is missing", ld->folder, name);
    }
    TRY(check_shape(ld, s, 2, dim));
    scale = (struct tensor){.rows = dim[0], .cols = dim[1]};
    TRY(copy_f32(ld, &scale, s, 0, 1));
    t->scale = scale.data;
    t->scale_stride = scale.stride;
    return PM_OK;
}

static pm_status load_matrix(struct loader *ld, struct tensor *out, const char *pattern,
                             int expert, int64_t rows, int64_t cols)
{
    const struct stored *s;
    struct tensor t;
    void *data;
    TRY(need(ld, &s, pattern, expert, ".weight", NULL));
    TRY(check_shape(ld, s, 2, (const int64_t[]){rows, cols}));
    if (!is_float(s->type) && s->type != PM_F8_E4M3) {
        return wrong_type(ld, s, "F32, F16, BF16 or F8_E4M3");
    }
    TRY(memory_place(&ld->memory, &data, s));
    t = tensor_view(data, s->type, rows, cols);
    if (s->type == PM_F8_E4M3) TRY(load_scale(ld, &t, pattern, expert, s));
    *out = t;
    return PM_OK;
}

/* The gate in float32: [E, D]. */
static pm_status load_gate(struct loader *ld, struct tensor *out, const char *pattern,
                           int64_t rows, int64_t cols)
{
    const struct stored *s;
    TRY(need(ld, &s, pattern, 0, ".weight", NULL));
    TRY(check_shape(ld, s, 2, (const int64_t[]){rows, cols}));
    *out = (struct tensor){.rows = rows, .cols = cols};
    return copy_f32(ld, out, s, 0, 1);
}

/* Splits one fused plain tensor into `n_part` matrices per expert: halves one after the other,
 * or alternating rows. `part` are arrays of E tensors. */
static pm_status load_fused(struct loader *ld, struct tensor *const *part, int n_part,
                            const char *pattern, int64_t rows, int64_t cols, bool input_major)
{
    const struct stored *s;
    int64_t n = ld->c->gate.n_expert, all = rows * n_part, row_bytes;
    void *data;
    TRY(need(ld, &s, pattern, 0, "", ".weight"));
    if (s->type == PM_F8_E4M3) {
        return wrong_type(
            ld, s,
            "F32, F16 or BF16 for all experts in one tensor: F8_E4M3 is read from "
            "one tensor for each expert");
    }
    if (!is_float(s->type)) return wrong_type(ld, s, "F32, F16 or BF16");
    if (s->n_dim == 2) { /* DBRX stacks its experts: [E * F, D] */
        int64_t flat[2] = {input_major ? n * cols : n * all, input_major ? all : cols};
        TRY(check_shape(ld, s, 2, flat));
    } else {
        int64_t dim[3] = {n, input_major ? cols : all, input_major ? all : cols};
        TRY(check_shape(ld, s, 3, dim));
    }
    if (input_major) {
        TRY(memory_transpose(&ld->memory, &data, s, n, cols, all));
    } else {
        TRY(memory_place(&ld->memory, &data, s));
    }
    row_bytes = cols * dtype_bits(s->type) / 8;
    for (int64_t e = 0; e < n; e++) {
        for (int p = 0; p < n_part; p++) {
            bool alternate = ld->c->interleaved_gate_up && n_part == 2;
            int64_t first = e * all + (alternate ? p : p * rows);
            part[p][e] = tensor_view((char *)data + first * row_bytes, s->type, rows, cols);
            if (alternate) part[p][e].stride = 2 * row_bytes;
        }
    }
    return PM_OK;
}

/* The same for MXFP4: P_blocks [E, rows, cols / 32, 16] and P_scales [E, rows, cols / 32]. */
static pm_status load_mxfp4(struct loader *ld, struct tensor *const *part, int n_part,
                            const char *pattern, int64_t rows, int64_t cols)
{
    const struct stored *block, *scale;
    int64_t n = ld->c->gate.n_expert, all = rows * n_part;
    void *data, *scales;
    TRY(need(ld, &block, pattern, 0, "_blocks", NULL));
    TRY(need(ld, &scale, pattern, 0, "_scales", NULL));
    TRY(check_shape(ld, block, 4, (const int64_t[]){n, all, cols / 32, 16}));
    TRY(check_shape(ld, scale, 3, (const int64_t[]){n, all, cols / 32}));
    if (block->type != PM_U8) return wrong_type(ld, block, "U8");
    if (scale->type != PM_U8) return wrong_type(ld, scale, "U8");
    if (cols % 32) {
        return fail(PM_ERR_FORMAT, "%s: rows of %lld values, wanted a multiple of 32",
                    block->name, (long long)cols);
    }
    TRY(memory_place(&ld->memory, &data, block));
    TRY(memory_place(&ld->memory, &scales, scale));
    for (int64_t e = 0; e < n; e++) {
        for (int p = 0; p < n_part; p++) {
            bool alternate = n_part == 2 && ld->c->interleaved_gate_up;
            int64_t first = e * all + (alternate ? p : p * rows), step = alternate ? 2 : 1;
            part[p][e] = (struct tensor){
                .data = (char *)data + first * (cols / 2),
                .scale = (char *)scales + first * (cols / 32),
                .type = PM_MXFP4,
                .rows = rows,
                .cols = cols,
                .stride = step * (cols / 2),
                .scale_stride = step * (cols / 32),
            };
        }
    }
    return PM_OK;
}

/* Biases of fused experts: P_bias [E, n_part * rows] as float32 vectors. */
static pm_status load_fused_bias(struct loader *ld, struct tensor *const *part, int n_part,
                                 const char *pattern, int64_t rows)
{
    const struct stored *s;
    int64_t n = ld->c->gate.n_expert, all = rows * n_part;
    bool alternate = n_part == 2 && ld->c->interleaved_gate_up;
    TRY(need(ld, &s, pattern, 0, "_bias", ".bias"));
    TRY(check_shape(ld, s, 2, (const int64_t[]){n, all}));
    TRY(memory_begin_run(&ld->memory,
                         (size_t)(n * n_part) * memory_step((size_t)rows * sizeof(float)),
                         s->name));
    for (int64_t e = 0; e < n; e++) {
        for (int p = 0; p < n_part; p++) {
            part[p][e] = (struct tensor){.rows = 1, .cols = rows};
            TRY(copy_f32(ld, &part[p][e], s, e * all + (alternate ? p : p * rows),
                         alternate ? 2 : 1));
        }
    }
    memory_end_run(&ld->memory);
    return PM_OK;
}

/* Bytes on a device of an expert's three matrices, scales included, as the first one is stored.
 */
static size_t expert_bytes(const struct config *c, const struct stored *first)
{
    int64_t d = c->hidden, f = c->expert_dim;
    size_t matrix = memory_step((size_t)(d * f) * (size_t)dtype_bits(first->type) / 8);
    size_t scale = (size_t)((d + 127) / 128 * ((f + 127) / 128)) * sizeof(float);
    return 3 * (matrix + (first->type == PM_F8_E4M3 ? memory_step(scale) : 0));
}

/* One tensor per expert and matrix. */
static pm_status load_single_experts(struct loader *ld, struct layer_weights *l,
                                     const struct stored *first)
{
    const struct config *c = ld->c;
    const struct names *n = ld->names;
    int64_t d = c->hidden, f = c->expert_dim, count = c->gate.n_expert;
    TRY(memory_begin_run(&ld->memory, (size_t)count * expert_bytes(c, first), "experts"));
    for (int e = 0; e < count; e++) {
        TRY(load_matrix(ld, &l->expert_gate[e], n->expert_gate, e, f, d));
        TRY(load_matrix(ld, &l->expert_up[e], n->expert_up, e, f, d));
        TRY(load_matrix(ld, &l->expert_down[e], n->expert_down, e, d, f));
    }
    memory_end_run(&ld->memory);
    return PM_OK;
}

static pm_status load_experts(struct loader *ld, struct layer_weights *l)
{
    const struct config *c = ld->c;
    const struct names *n = ld->names;
    struct tensor *both[2] = {l->expert_gate, l->expert_up};
    struct tensor *bias[2] = {l->expert_gate_bias, l->expert_up_bias};
    const struct stored *first;
    int64_t d = c->hidden, f = c->expert_dim;
    if (c->expert_bias) {
        TRY(load_fused_bias(ld, bias, 2, n->fused_gate_up, f));
        TRY(load_fused_bias(ld, &l->expert_down_bias, 1, n->fused_down, d));
    }
    first = n->expert_gate ? find(ld, n->expert_gate, 0, ".weight") : NULL;
    if (first) return load_single_experts(ld, l, first);
    if (n->fused_gate_up && find(ld, n->fused_gate_up, 0, "_blocks")) {
        TRY(load_mxfp4(ld, both, 2, n->fused_gate_up, f, d));
        return load_mxfp4(ld, &l->expert_down, 1, n->fused_down, d, f);
    }
    if (n->fused_up) { /* DBRX: w1 and v1 apart, w2 input-major */
        TRY(load_fused(ld, &l->expert_gate, 1, n->fused_gate_up, f, d, false));
        TRY(load_fused(ld, &l->expert_up, 1, n->fused_up, f, d, false));
        return load_fused(ld, &l->expert_down, 1, n->fused_down, d, f, true);
    }
    if (n->fused_gate_up && (!n->expert_gate || find(ld, n->fused_gate_up, 0, "") ||
                             find(ld, n->fused_gate_up, 0, ".weight"))) {
        TRY(load_fused(ld, both, 2, n->fused_gate_up, f, d, c->fused_input_major));
        return load_fused(ld, &l->expert_down, 1, n->fused_down, d, f, c->fused_input_major);
    }
    /* Neither layout: name the one that released checkpoints have. */
    return load_matrix(ld, &l->expert_gate[0], n->expert_gate, 0, f, d);
}

static pm_status load_shared(struct loader *ld, struct layer_weights *l)
{
    const struct config *c = ld->c;
    const struct names *n = ld->names;
    int64_t d = c->hidden, f = c->shared_dim;
    if (n->shared_gate_up) {
        struct tensor both;
        TRY(load_matrix(ld, &both, n->shared_gate_up, 0, 2 * f, d));
        l->shared_gate = tensor_rows(&both, 0, f);
        l->shared_up = tensor_rows(&both, f, f);
    } else {
        TRY(load_matrix(ld, &l->shared_gate, n->shared_gate, 0, f, d));
        TRY(load_matrix(ld, &l->shared_up, n->shared_up, 0, f, d));
    }
    TRY(load_matrix(ld, &l->shared_down, n->shared_down, 0, d, f));
    if (c->shared_gate) TRY(load_gate(ld, &l->shared_switch, n->shared_switch, 1, d));
    return PM_OK;
}

static pm_status load_dense(struct loader *ld, struct layer_weights *l)
{
    const struct config *c = ld->c;
    const struct names *n = ld->names;
    int64_t d = c->hidden, f = c->dense_dim;
    if (!n->dense_gate || !f) {
        return fail(PM_ERR_FORMAT, "%s: layer %d has no experts and no dense MLP", ld->folder,
                    ld->layer);
    }
    TRY(load_matrix(ld, &l->dense_gate, n->dense_gate, 0, f, d));
    TRY(load_matrix(ld, &l->dense_up, n->dense_up, 0, f, d));
    TRY(load_matrix(ld, &l->dense_down, n->dense_down, 0, d, f));
    if (!c->mlp_bias) return PM_OK;
    TRY(load_vector(ld, &l->dense_gate_bias, n->dense_gate, ".bias", NULL, f));
    TRY(load_vector(ld, &l->dense_up_bias, n->dense_up, ".bias", NULL, f));
    return load_vector(ld, &l->dense_down_bias, n->dense_down, ".bias", NULL, d);
}

static pm_status load_mlp(struct loader *ld, struct layer_weights *l)
{
    const struct config *c = ld->c;
    const struct names *n = ld->names;
    if (!c->layer[ld->layer].moe) return load_dense(ld, l);
    TRY(load_gate(ld, &l->gate, n->gate, c->gate.n_expert, c->hidden));
    if (c->gate_bias) {
        TRY(load_vector(ld, &l->gate_bias, n->gate, ".bias", NULL, c->gate.n_expert));
    }
    if (c->select_bias) {
        TRY(load_vector(ld, &l->select_bias, n->select_bias, "", NULL, c->gate.n_expert));
    }
    TRY(load_experts(ld, l));
    return c->shared_dim ? load_shared(ld, l) : PM_OK;
}

static pm_status load_mla(struct loader *ld, struct layer_weights *l)
{
    const struct config *c = ld->c;
    const struct mla *m = &c->mla;
    const struct names *n = ld->names;
    int64_t d = c->hidden, h = c->n_head, q = h * (m->nope + m->rope);
    if (m->q_latent) {
        TRY(load_matrix(ld, &l->q_a, n->q_a, 0, m->q_latent, d));
        TRY(load_vector(ld, &l->q_a_norm, n->q_a_norm, ".weight", NULL, m->q_latent));
        TRY(load_matrix(ld, &l->q_b, n->q_b, 0, q, m->q_latent));
    } else {
        TRY(load_matrix(ld, &l->q, n->q, 0, q, d));
    }
    TRY(load_matrix(ld, &l->kv_a, n->kv_a, 0, m->latent + m->rope, d));
    TRY(load_vector(ld, &l->kv_a_norm, n->kv_a_norm, ".weight", NULL, m->latent));
    TRY(load_matrix(ld, &l->kv_b, n->kv_b, 0, h * (m->nope + m->v_dim), m->latent));
    return load_matrix(ld, &l->o, n->o, 0, d, h * m->v_dim);
}

static pm_status load_attention(struct loader *ld, struct layer_weights *l)
{
    const struct config *c = ld->c;
    const struct names *n = ld->names;
    int64_t d = c->hidden, q = (int64_t)c->n_head * c->head_dim;
    int64_t kv = (int64_t)c->n_kv_head * c->head_dim;
    if (c->mla.latent) return load_mla(ld, l);
    if (n->qkv) {
        struct tensor all;
        TRY(load_matrix(ld, &all, n->qkv, 0, q + 2 * kv, d));
        l->q = tensor_rows(&all, 0, q);
        l->k = tensor_rows(&all, q, kv);
        l->v = tensor_rows(&all, q + kv, kv);
    } else {
        TRY(load_matrix(ld, &l->q, n->q, 0, q, d));
        TRY(load_matrix(ld, &l->k, n->k, 0, kv, d));
        TRY(load_matrix(ld, &l->v, n->v, 0, kv, d));
    }
    TRY(load_matrix(ld, &l->o, n->o, 0, d, q));
    if (c->qkv_bias) {
        TRY(load_vector(ld, &l->q_bias, n->q, ".bias", NULL, q));
        TRY(load_vector(ld, &l->k_bias, n->k, ".bias", NULL, kv));
        TRY(load_vector(ld, &l->v_bias, n->v, ".bias", NULL, kv));
    }
    if (c->o_bias) TRY(load_vector(ld, &l->o_bias, n->o, ".bias", NULL, d));
    if (c->qk_norm == QK_HEAD || c->qk_norm == QK_FULL) {
        bool full = c->qk_norm == QK_FULL;
        TRY(load_vector(ld, &l->q_norm, n->q_norm, ".weight", NULL, full ? q : c->head_dim));
        TRY(load_vector(ld, &l->k_norm, n->k_norm, ".weight", NULL, full ? kv : c->head_dim));
    }
    if (c->sinks) TRY(load_vector(ld, &l->sinks, n->sinks, "", NULL, c->n_head));
    return PM_OK;
}

static pm_status load_layer(struct loader *ld, struct layer_weights *l)
{
    const struct config *c = ld->c;
    const struct names *n = ld->names;
    TRY(load_vector(ld, &l->attn_norm, n->attn_norm, ".weight", NULL, c->hidden));
    TRY(load_vector(ld, &l->mlp_norm, n->mlp_norm, ".weight", NULL, c->hidden));
    if (c->norm_bias) {
        TRY(load_vector(ld, &l->attn_norm_bias, n->attn_norm, ".bias", NULL, c->hidden));
        TRY(load_vector(ld, &l->mlp_norm_bias, n->mlp_norm, ".bias", NULL, c->hidden));
    }
    TRY(load_attention(ld, l));
    return load_mlp(ld, l);
}

static pm_status load_outer(struct loader *ld)
{
    const struct config *c = ld->c;
    const struct names *n = ld->names;
    struct weights *w = ld->w;
    bool has_head;
    TRY(load_matrix(ld, &w->embed, n->embed, 0, c->vocab, c->hidden));
    TRY(load_vector(ld, &w->final_norm, n->final_norm, ".weight", NULL, c->hidden));
    if (c->norm_bias) {
        TRY(load_vector(ld, &w->final_norm_bias, n->final_norm, ".bias", NULL, c->hidden));
    }
    has_head = find(ld, n->head, 0, ".weight") != NULL;
    if (c->tied || (!has_head && !c->tied_known)) {
        w->head = w->embed;
    } else {
        TRY(load_matrix(ld, &w->head, n->head, 0, c->vocab, c->hidden));
    }
    if (c->head_bias) TRY(load_vector(ld, &w->head_bias, n->head, ".bias", NULL, c->vocab));
    return PM_OK;
}

/* Tensors that released checkpoints carry and plain generation does not use: rotary buffers,
 * next-token-prediction layers after the last, other modalities. */
static bool is_ignored(const struct loader *ld, const char *name)
{
    static const char *const part[] = {"rotary_emb.inv_freq", "vision", "multi_modal_projector",
                                       ".masked_bias", "mtp."};
    int layer;
    const char *at = strstr(name, "layers.");
    if (at && sscanf(at, "layers.%d.", &layer) == 1 && layer >= ld->c->n_layer) return true;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        if (strstr(name, part[i])) return true;
    }
    return false;
}

static pm_status check_extra(const struct loader *ld)
{
    for (int64_t i = 0; i < safetensors_count(ld->w->files); i++) {
        const struct stored *s = safetensors_at(ld->w->files, i);
        if (!ld->used[i] && !is_ignored(ld, s->name)) {
            return fail(PM_ERR_FORMAT, "%s: tensor %s is not part of a %s model of %d layers",
                        safetensors_file(ld->w->files, s->file), s->name, ld->c->model_type,
                        ld->c->n_layer);
        }
    }
    return PM_OK;
}

/* All expert arrays in one table: up to six per layer with experts. */
static pm_status take_table(struct weights *w, const struct config *c)
{
    size_t kinds = c->expert_bias ? 6 : 3, n = 0;
    size_t e = (size_t)c->gate.n_expert;
    struct tensor *next;
    for (int l = 0; l < c->n_layer; l++) {
        n += c->layer[l].moe;
    }
    TRY(alloc_array(&w->table, n * kinds * e, sizeof *w->table, "expert tensors"));
    next = w->table;
    for (int i = 0; i < c->n_layer; i++) {
        struct layer_weights *l = &w->layer[i];
        struct tensor **part[6] = {&l->expert_gate,    &l->expert_up,
                                   &l->expert_down,    &l->expert_gate_bias,
                                   &l->expert_up_bias, &l->expert_down_bias};
        for (size_t k = 0; k < kinds && c->layer[i].moe; k++) {
            *part[k] = next;
            next += e;
        }
    }
    return PM_OK;
}

/* Multimodal checkpoints put the text model under a prefix. */
static const char *find_prefix(const struct weights *w, const struct names *n)
{
    static const char *const prefix[] = {"", "language_model.", "model.language_model."};
    for (size_t i = 0; i < sizeof prefix / sizeof *prefix; i++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "%s%s.weight", prefix[i], n->embed);
        if (safetensors_find(w->files, name)) return prefix[i];
    }
    return "";
}

/* Everything, from w->files. */
static pm_status load_all(struct loader *ld)
{
    struct weights *w = ld->w;
    const struct config *c = ld->c;
    TRY(alloc_array(&ld->used, (size_t)safetensors_count(w->files), sizeof *ld->used,
                    "tensors"));
    TRY(alloc_array(&w->layer, (size_t)c->n_layer, sizeof *w->layer, "layers"));
    TRY(take_table(w, c));
    ld->prefix = find_prefix(w, ld->names);
    ld->layer = -1;
    TRY(load_outer(ld));
    for (ld->layer = 0; ld->layer < c->n_layer; ld->layer++) {
        TRY(load_layer(ld, &w->layer[ld->layer]));
    }
    return check_extra(ld);
}

pm_status weights_open(struct weights *w, const struct config *c, const char *folder,
                       const struct kernels *k, struct device *d, bool plan_only)
{
    struct loader ld = {
        .w = w, .c = c, .names = &c->family->names, .folder = folder, .memory = {.w = w}};
    pm_status status;
    *w = (struct weights){.kernels = k, .device = d, .plan_only = plan_only};
    TRY_DONE(safetensors_open(&w->files, folder));
    TRY_DONE(load_all(&ld));
done:
    free(ld.used);
    if (status != PM_OK) weights_close(w);
    return status;
}

pm_status weights_generate(struct weights *w, const struct config *c,
                           const struct weight_source *source, const struct kernels *k,
                           struct device *d)
{
    struct loader ld = {.w = w,
                        .c = c,
                        .names = &c->family->names,
                        .folder = source->name,
                        .memory = {.w = w, .source = source}};
    pm_status status;
    *w = (struct weights){.kernels = k, .device = d, .files = source->files};
    status = load_all(&ld);
    free(ld.used);
    memory_end(&ld.memory);
    if (status != PM_OK) weights_close(w);
    return status;
}

void weights_close(struct weights *w)
{
    for (size_t i = 0; i < w->n_owned; i++) {
        w->kernels->free(w->device, w->owned[i]);
    }
    free(w->owned);
    free(w->layer);
    free(w->table);
    safetensors_close(w->files);
    memset(w, 0, sizeof *w);
}
