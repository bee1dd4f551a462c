/* synth_tensors.c - walks the tensors that a configuration calls for.
 *
 * The walk is the mirror of the loader: the family's table of names says which tensors there
 * are, the configuration how large they are, and where a family can be stored in several ways
 * the walk takes the one of released checkpoints. One tensor per expert where the family has
 * such names; otherwise fused in 3-D, which for gpt-oss may be MXFP4; DBRX's stacks in 2-D.
 * Nothing here asks which family it is, so a new one needs no code.
 *
 * Values keep a model of any depth sane. Matrices map rows of unit size to rows of about unit
 * size: deviation 1 / sqrt(inputs). Embedded rows have unit size, and the matrices that write
 * to the residual are smaller by sqrt(2 layers), so that all layers together add about as much
 * as the token brought along. Without that, attention's averages make the rows of a deep model
 * alike, and its gates send all of them to the same experts. With it rows stay apart, logits of
 * the gates spread over about 1, and the load of the experts is even but for chance. A tied
 * model would predict the token that it has just read; its final norm therefore weighs with
 * both signs, and with a size that gives its logits the spread of 1 that others have. Biases
 * are small against what they are added to.
 *
 * Two quantisations. FP8: codes with deviation 128, so that 3.45 deviations just fit below 448,
 * and scales around deviation / 128, which differ from block to block. MXFP4: codes with a
 * deviation of 1 to 2, and exponents that mostly agree and sometimes differ by one. */
#include "synth_tensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families.h"

enum { NAME_BYTES = 512, FP8_BLOCK = 128, MXFP4_BLOCK = 32 };

static const double BIAS = 0.02, SELECT_BIAS = 0.02, NORM_SPREAD = 0.1, FP8_CODES = 128;

static pm_status too_large(const struct synth_tensor *t)
{
    return fail(PM_ERR_ARG, "tensor %s: its size does not fit 64 bits", t->name);
}

pm_status synth_tensor_size(const struct synth_tensor *t, int64_t *n, uint64_t *bytes)
{
    bool packed = t->type == PM_MXFP4; /* its shape counts bytes */
    size_t count = 1, size;
    for (int i = 0; i < t->n_dim; i++) {
        if (!mul_size(&count, count, (size_t)t->dim[i])) return too_large(t);
    }
    if (!mul_size(&size, count, packed ? 1 : (size_t)dtype_bits(t->type) / 8) ||
        size > INT64_MAX / 2) {
        return too_large(t);
    }
    *n = (int64_t)(packed ? 2 * count : count);
    *bytes = size;
    return PM_OK;
}

struct walk {
    const struct config *c;
    const struct names *names;
    const char *prefix;
    pm_dtype plain;
    synth_each *each;
    void *arg;
    double output_gain;
    int layer, expert; /* for '#' and '@' */
};

/* The name in full; where the loader takes several spellings, the first, which is the released
 * one. */
static pm_status spell(const struct walk *w, char *out, const char *pattern, const char *ending)
{
    size_t n = (size_t)snprintf(out, NAME_BYTES, "%s", w->prefix);
    for (const char *p = pattern; *p && *p != '|' && n < NAME_BYTES; p++) {
        if (*p == '#' || *p == '@') {
            n += (size_t)snprintf(out + n, NAME_BYTES - n, "%d",
                                  *p == '#' ? w->layer : w->expert);
        } else {
            out[n++] = *p;
        }
    }
    if (n < NAME_BYTES) n += (size_t)snprintf(out + n, NAME_BYTES - n, "%s", ending);
    if (n >= NAME_BYTES) return fail(PM_ERR_BUG, "%s%s: too long a name", pattern, ending);
    return PM_OK;
}

/* The tensor t, called by pattern and ending. */
static pm_status emit(const struct walk *w, const char *pattern, const char *ending,
                      struct synth_tensor t)
{
    char name[NAME_BYTES];
    if (!pattern) {
        return fail(PM_ERR_UNSUPPORTED,
                    "layer %d of this configuration needs a tensor that %s does not have",
                    w->layer, w->c->family->title);
    }
    TRY(spell(w, name, pattern, ending));
    t.name = name;
    return w->each(w->arg, &t);
}

static pm_status vector(const struct walk *w, const char *pattern, const char *ending,
                        int64_t n, double mean, double std)
{
    return emit(w, pattern, ending,
                (struct synth_tensor){
                    .type = w->plain, .n_dim = 1, .dim = {n}, .mean = mean, .std = std});
}

static pm_status norm(const struct walk *w, const char *pattern, int64_t n)
{
    return vector(w, pattern, ".weight", n, 1, NORM_SPREAD);
}

static pm_status bias(const struct walk *w, bool present, const char *pattern, int64_t n)
{
    return present ? vector(w, pattern, ".bias", n, 0, BIAS) : PM_OK;
}

/* A matrix that stays unquantised: embeddings, gates. */
static pm_status plain_matrix(const struct walk *w, const char *pattern, int64_t rows,
                              int64_t cols, double std)
{
    return emit(
        w, pattern, ".weight",
        (struct synth_tensor){.type = w->plain, .n_dim = 2, .dim = {rows, cols}, .std = std});
}

static pm_status scaled_matrix(const struct walk *w, const char *pattern, int64_t rows,
                               int64_t cols, double gain)
{
    double std = gain / sqrt((double)cols), scale = std / FP8_CODES;
    struct synth_tensor codes = {
        .type = PM_F8_E4M3, .n_dim = 2, .dim = {rows, cols}, .std = FP8_CODES};
    struct synth_tensor scales = {
        .type = PM_F32,
        .n_dim = 2,
        .dim = {(rows + FP8_BLOCK - 1) / FP8_BLOCK, (cols + FP8_BLOCK - 1) / FP8_BLOCK},
        .mean = scale,
        .std = scale / 8};
    if (w->c->quant != QUANT_FP8_BLOCK) return plain_matrix(w, pattern, rows, cols, std);
    TRY(emit(w, pattern, ".weight", codes));
    return emit(w, pattern, ".weight_scale_inv", scales);
}

static pm_status matrix(const struct walk *w, const char *pattern, int64_t rows, int64_t cols)
{
    return scaled_matrix(w, pattern, rows, cols, 1);
}

/* A matrix whose rows are added to the residual. */
static pm_status output_matrix(const struct walk *w, const char *pattern, int64_t cols)
{
    return scaled_matrix(w, pattern, w->c->hidden, cols, w->output_gain);
}

/* [E, rows, cols] as blocks and scales. */
static pm_status mxfp4(const struct walk *w, const char *pattern, int64_t rows, int64_t cols,
                       double std)
{
    int64_t n = w->c->gate.n_expert, groups = cols / MXFP4_BLOCK;
    int exponent;
    double codes = 2 * frexp(std, &exponent);
    if (cols % MXFP4_BLOCK) {
        return fail(PM_ERR_ARG, "MXFP4: %s: rows of %lld values, wanted a multiple of %d",
                    pattern, (long long)cols, MXFP4_BLOCK);
    }
    TRY(emit(w, pattern, "_blocks",
             (struct synth_tensor){.type = PM_MXFP4,
                                   .n_dim = 4,
                                   .dim = {n, rows, groups, MXFP4_BLOCK / 2},
                                   .std = codes}));
    return emit(w, pattern, "_scales",
                (struct synth_tensor){.type = PM_U8,
                                      .n_dim = 3,
                                      .dim = {n, rows, groups},
                                      .mean = 127 + exponent - 1,
                                      .std = 0.3});
}

/* All experts' [rows, cols] in one tensor. Input-major ones are bare parameters of a module,
 * output-major ones the weight of a linear module. */
static pm_status fused(const struct walk *w, const char *pattern, int64_t rows, int64_t cols,
                       double gain)
{
    const struct config *c = w->c;
    bool swap = c->fused_input_major;
    double std = gain / sqrt((double)cols);
    struct synth_tensor t = {.type = w->plain,
                             .n_dim = 3,
                             .dim = {c->gate.n_expert, swap ? cols : rows, swap ? rows : cols},
                             .std = std};
    if (c->quant == QUANT_MXFP4) {
        TRY(mxfp4(w, pattern, rows, cols, std));
    } else {
        TRY(emit(w, pattern, swap ? "" : ".weight", t));
    }
    if (!c->expert_bias) return PM_OK;
    return emit(
        w, pattern, "_bias",
        (struct synth_tensor){
            .type = w->plain, .n_dim = 2, .dim = {c->gate.n_expert, rows}, .std = BIAS});
}

/* DBRX: [E * F, D] whichever way an expert uses its F rows. */
static pm_status stacked(const struct walk *w, const char *pattern, double std)
{
    const struct config *c = w->c;
    int64_t rows = (int64_t)c->gate.n_expert * c->expert_dim;
    return emit(w, pattern, "",
                (struct synth_tensor){
                    .type = w->plain, .n_dim = 2, .dim = {rows, c->hidden}, .std = std});
}

static pm_status experts(struct walk *w)
{
    const struct config *c = w->c;
    const struct names *n = w->names;
    int64_t d = c->hidden, f = c->expert_dim;
    if (n->expert_gate) {
        for (w->expert = 0; w->expert < c->gate.n_expert; w->expert++) {
            TRY(matrix(w, n->expert_gate, f, d));
            TRY(matrix(w, n->expert_up, f, d));
            TRY(output_matrix(w, n->expert_down, f));
        }
        return PM_OK;
    }
    if (n->fused_up) {
        TRY(stacked(w, n->fused_gate_up, 1 / sqrt((double)d)));
        TRY(stacked(w, n->fused_up, 1 / sqrt((double)d)));
        return stacked(w, n->fused_down, w->output_gain / sqrt((double)f));
    }
    TRY(fused(w, n->fused_gate_up, 2 * f, d, 1));
    return fused(w, n->fused_down, d, f, w->output_gain);
}

/* In float32 whatever the rest is, as released: it is of the size of score differences. */
static pm_status select_bias(const struct walk *w)
{
    const char *pattern = w->names->select_bias;
    int64_t e = w->c->gate.n_expert;
    struct synth_tensor t = {.type = PM_F32, .n_dim = 1, .dim = {e}, .std = SELECT_BIAS};
    if (pattern && strstr(pattern, "moe_statics")) { /* ERNIE's is one row */
        t.n_dim = 2;
        t.dim[0] = 1;
        t.dim[1] = e;
    }
    return emit(w, pattern, "", t);
}

static pm_status shared_expert(const struct walk *w)
{
    const struct config *c = w->c;
    const struct names *n = w->names;
    int64_t d = c->hidden, f = c->shared_dim;
    if (n->shared_gate_up) {
        TRY(matrix(w, n->shared_gate_up, 2 * f, d));
    } else {
        TRY(matrix(w, n->shared_gate, f, d));
        TRY(matrix(w, n->shared_up, f, d));
    }
    TRY(output_matrix(w, n->shared_down, f));
    if (!c->shared_gate) return PM_OK;
    return plain_matrix(w, n->shared_switch, 1, d, 1 / sqrt((double)d));
}

static pm_status dense_mlp(const struct walk *w)
{
    const struct config *c = w->c;
    const struct names *n = w->names;
    int64_t d = c->hidden, f = c->dense_dim;
    TRY(matrix(w, n->dense_gate, f, d));
    TRY(bias(w, c->mlp_bias, n->dense_gate, f));
    TRY(matrix(w, n->dense_up, f, d));
    TRY(bias(w, c->mlp_bias, n->dense_up, f));
    TRY(output_matrix(w, n->dense_down, f));
    return bias(w, c->mlp_bias, n->dense_down, d);
}

static pm_status mlp(struct walk *w)
{
    const struct config *c = w->c;
    const struct names *n = w->names;
    int64_t d = c->hidden, e = c->gate.n_expert;
    if (!c->layer[w->layer].moe) return dense_mlp(w);
    TRY(plain_matrix(w, n->gate, e, d, 1 / sqrt((double)d)));
    TRY(bias(w, c->gate_bias, n->gate, e));
    if (c->select_bias) TRY(select_bias(w));
    TRY(experts(w));
    return c->shared_dim ? shared_expert(w) : PM_OK;
}

static pm_status latent_attention(const struct walk *w)
{
    const struct config *c = w->c;
    const struct mla *m = &c->mla;
    const struct names *n = w->names;
    int64_t d = c->hidden, h = c->n_head, q = h * (m->nope + m->rope);
    if (m->q_latent) {
        TRY(matrix(w, n->q_a, m->q_latent, d));
        TRY(norm(w, n->q_a_norm, m->q_latent));
        TRY(matrix(w, n->q_b, q, m->q_latent));
    } else {
        TRY(matrix(w, n->q, q, d));
    }
    TRY(matrix(w, n->kv_a, m->latent + m->rope, d));
    TRY(norm(w, n->kv_a_norm, m->latent));
    TRY(matrix(w, n->kv_b, h * (m->nope + m->v_dim), m->latent));
    return output_matrix(w, n->o, h * m->v_dim);
}

static pm_status attention(const struct walk *w)
{
    const struct config *c = w->c;
    const struct names *n = w->names;
    int64_t d = c->hidden, q = (int64_t)c->n_head * c->head_dim;
    int64_t kv = (int64_t)c->n_kv_head * c->head_dim;
    if (c->mla.latent) return latent_attention(w);
    if (n->qkv) {
        TRY(matrix(w, n->qkv, q + 2 * kv, d));
    } else {
        TRY(matrix(w, n->q, q, d));
        TRY(bias(w, c->qkv_bias, n->q, q));
        TRY(matrix(w, n->k, kv, d));
        TRY(bias(w, c->qkv_bias, n->k, kv));
        TRY(matrix(w, n->v, kv, d));
        TRY(bias(w, c->qkv_bias, n->v, kv));
    }
    TRY(output_matrix(w, n->o, q));
    TRY(bias(w, c->o_bias, n->o, d));
    if (c->qk_norm == QK_HEAD || c->qk_norm == QK_FULL) {
        bool full = c->qk_norm == QK_FULL;
        TRY(norm(w, n->q_norm, full ? q : c->head_dim));
        TRY(norm(w, n->k_norm, full ? kv : c->head_dim));
    }
    return c->sinks ? vector(w, n->sinks, "", c->n_head, 0, 1) : PM_OK;
}

static pm_status layers(struct walk *w)
{
    const struct config *c = w->c;
    const struct names *n = w->names;
    for (w->layer = 0; w->layer < c->n_layer; w->layer++) {
        TRY(norm(w, n->attn_norm, c->hidden));
        TRY(bias(w, c->norm_bias, n->attn_norm, c->hidden));
        TRY(attention(w));
        TRY(norm(w, n->mlp_norm, c->hidden));
        TRY(bias(w, c->norm_bias, n->mlp_norm, c->hidden));
        TRY(mlp(w));
    }
    return PM_OK;
}

static pm_status check_layout(const struct config *c)
{
    const struct names *n = &c->family->names;
    if (c->quant == QUANT_MXFP4 && strcmp(c->model_type, "gpt_oss") != 0) {
        return fail(PM_ERR_UNSUPPORTED, "mxfp4: found model_type %s, wanted gpt_oss",
                    c->model_type);
    }
    if (c->quant == QUANT_FP8_BLOCK && c->gate.n_expert && !n->expert_gate) {
        return fail(PM_ERR_UNSUPPORTED,
                    "fp8: model_type %s fuses its experts, wanted a family with one tensor per "
                    "expert",
                    c->model_type);
    }
    return PM_OK;
}

/* What undoes a multiplier of the configuration. */
static double inverse(double multiplier)
{
    return multiplier != 0 ? 1 / fabs(multiplier) : 1;
}

pm_status synth_walk(const struct config *c, pm_dtype plain, const char *prefix,
                     synth_each *each, void *arg)
{
    struct walk w = {c, &c->family->names, prefix, plain, each, arg, 0, 0, 0};
    int64_t d = c->hidden;
    double embed = inverse(c->embedding_scale), head = 1 / sqrt((double)d);
    w.output_gain = inverse(c->residual_scale) / sqrt(2.0 * c->n_layer);
    TRY(check_layout(c));
    TRY(plain_matrix(&w, w.names->embed, c->vocab, d, embed));
    TRY(layers(&w));
    TRY(vector(&w, w.names->final_norm, ".weight", d, c->tied ? 0 : 1,
               c->tied ? head / embed : NORM_SPREAD));
    TRY(bias(&w, c->norm_bias, w.names->final_norm, d));
    if (!c->tied) TRY(plain_matrix(&w, w.names->head, c->vocab, d, head));
    return bias(&w, c->head_bias, w.names->head, c->vocab);
}
