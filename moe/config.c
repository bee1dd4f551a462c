/* config.c - the keys that all families share, then the family's own.
 *
 * Two dialects of RoPE settings are in the wild: the older rope_theta beside rope_scaling, and
 * rope_parameters, which holds both. Either may be absent. Class defaults of the reference
 * implementation are not repeated here when released files disagree with them: a file says what
 * its model is. generation_config.json, where present, has the last word on the end tokens. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "families.h"

enum { MAX_LAYERS = 4096, MAX_SIZE = 1 << 24, CONFIG_BYTES = 16 << 20 };

static pm_status read_rope_kind(struct rope *r, struct json_doc *doc, const json *o)
{
    static const struct {
        const char *name;
        enum rope_kind kind;
    } kinds[] = {
        {"default", ROPE_DEFAULT}, {"mrope", ROPE_DEFAULT}, {"linear", ROPE_LINEAR},
        {"dynamic", ROPE_DYNAMIC}, {"yarn", ROPE_YARN},     {"llama3", ROPE_LLAMA3},
        {"longrope", ROPE_LONG},   {"su", ROPE_LONG},
    };
    const char *kind = "default";
    TRY(json_want_text(doc, o, "type", &kind));
    TRY(json_want_text(doc, o, "rope_type", &kind));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kind, kinds[i].name) == 0) {
            r->kind = kinds[i].kind;
            return PM_OK;
        }
    }
    return fail(PM_ERR_UNSUPPORTED,
                "%s: rope_type: found \"%s\", wanted default, linear, dynamic, yarn, llama3 or "
                "longrope",
                json_name(doc), kind);
}

static pm_status read_factors(float **out, struct json_doc *doc, const json *o, const char *key,
                              int n)
{
    const json *list = json_get(o, key);
    float *f;
    int i = 0;
    if (!list) return PM_OK;
    if (!json_is_array(list) || json_size(list) != n) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "a list of %d numbers", n);
        return json_fail(doc, list, wanted);
    }
    TRY(alloc_array(&f, (size_t)n, sizeof *f, key));
    for (const json *v = json_child(list); v; v = json_next(v)) {
        if (!json_is_number(v) || !(json_number(v) > 0)) {
            free(f);
            return json_fail(doc, v, "a positive number");
        }
        f[i++] = (float)json_number(v);
    }
    free(*out);
    *out = f;
    return PM_OK;
}

static void rope_defaults(struct rope *r, int max_position)
{
    r->kind = ROPE_DEFAULT;
    r->factor = 1;
    r->beta_fast = 32;
    r->beta_slow = 1;
    r->truncate = true;
    r->low_freq_factor = 1;
    r->high_freq_factor = 4;
    r->original = max_position;
}

static pm_status read_rope(struct config *c, struct json_doc *doc, const json *root)
{
    struct rope *r = &c->rope;
    const json *o = json_get(root, "rope_parameters");
    float partial = 1;
    int rotary = 0;
    if (!json_is_object(o)) o = json_get(root, "rope_scaling");
    /* A family may have read theta elsewhere, and set the scaling of files without one. */
    if (r->theta == 0) r->theta = 10000;
    if (r->kind == ROPE_DEFAULT || json_is_object(o)) rope_defaults(r, c->max_position);
    TRY(json_want_float(doc, root, "rope_theta", 1e-6, 1e12, &r->theta));
    TRY(json_want_float(doc, root, "partial_rotary_factor", 0, 1, &partial));
    TRY(json_want_int(doc, root, "original_max_position_embeddings", 1, 1 << 30, &r->original));
    TRY(json_want_int(doc, root, "rotary_dim", 2, MAX_SIZE, &rotary));
    if (json_is_object(o)) {
        TRY(read_rope_kind(r, doc, o));
        TRY(json_want_float(doc, o, "rope_theta", 1e-6, 1e12, &r->theta));
        TRY(json_want_float(doc, o, "partial_rotary_factor", 0, 1, &partial));
        if (!json_get(root, "original_max_position_embeddings")) {
            TRY(json_want_int(doc, o, "original_max_position_embeddings", 1, 1 << 30,
                              &r->original));
        }
        r->factor = r->kind == ROPE_YARN || r->kind == ROPE_LONG
                        ? (float)c->max_position / (float)r->original
                        : 1;
        TRY(json_want_float(doc, o, "factor", 1e-6, 1e6, &r->factor));
        TRY(json_want_float(doc, o, "alpha", 0, 1e9, &r->alpha));
        TRY(json_want_float(doc, o, "beta_fast", 1e-6, 1e6, &r->beta_fast));
        TRY(json_want_float(doc, o, "beta_slow", 1e-6, 1e6, &r->beta_slow));
        TRY(json_want_float(doc, o, "mscale", 0, 1e6, &r->mscale));
        TRY(json_want_float(doc, o, "mscale_all_dim", 0, 1e6, &r->mscale_all_dim));
        TRY(json_want_float(doc, o, "attention_factor", 0, 1e6, &r->attention_factor));
        TRY(json_want_bool(doc, o, "truncate", &r->truncate));
        TRY(json_want_float(doc, o, "low_freq_factor", 1e-6, 1e6, &r->low_freq_factor));
        TRY(json_want_float(doc, o, "high_freq_factor", 1e-6, 1e6, &r->high_freq_factor));
        TRY(json_want_float(doc, o, "short_mscale", 0, 1e6, &r->short_mscale));
        TRY(json_want_float(doc, o, "long_mscale", 0, 1e6, &r->long_mscale));
        if (r->kind == ROPE_DYNAMIC && r->alpha > 0) r->kind = ROPE_NTK_ALPHA;
    }
    if (c->mla.latent) {
        r->dim = c->mla.rope;
    } else {
        /* The partial factor goes first: where a file has both keys they agree, and a
         * rotary_dim alone is the older spelling. */
        r->dim = rotary && partial == 1 ? rotary : (int)((float)c->head_dim * partial);
        r->dim -= r->dim % 2;
    }
    if (r->dim % 2 != 0 || r->dim < 2 || r->dim > (c->mla.latent ? c->mla.rope : c->head_dim)) {
        return fail(
            PM_ERR_FORMAT,
            "%s: rotary_dim: found %d, wanted an even number from 2 to the head size %d",
            json_name(doc), r->dim, c->head_dim);
    }
    if (json_is_object(o)) {
        TRY(read_factors(&r->short_factor, doc, o, "short_factor", r->dim / 2));
        TRY(read_factors(&r->long_factor, doc, o, "long_factor", r->dim / 2));
    }
    if (r->kind == ROPE_LONG && (!r->short_factor || !r->long_factor)) {
        return fail(PM_ERR_FORMAT, "%s: rope_scaling: longrope needs short_factor, long_factor",
                    json_name(doc));
    }
    return PM_OK;
}

static pm_status read_activation(struct config *c, struct json_doc *doc, const json *root)
{
    const char *act = "silu";
    TRY(json_want_text(doc, root, "hidden_act", &act));
    if (strcmp(act, "silu") == 0 || strcmp(act, "swish") == 0) {
        c->glu.kind = GLU_SILU;
    } else if (strcmp(act, "gelu_pytorch_tanh") == 0 || strcmp(act, "gelu_new") == 0) {
        c->glu.kind = GLU_GELU;
    } else {
        return fail(PM_ERR_UNSUPPORTED,
                    "%s: hidden_act: found \"%s\", wanted silu or gelu_pytorch_tanh",
                    json_name(doc), act);
    }
    c->dense_glu = c->glu;
    return PM_OK;
}

static pm_status read_quantisation(struct config *c, struct json_doc *doc, const json *root)
{
    const json *q = json_get(root, "quantization_config");
    const json *block;
    const char *method = "";
    if (!json_is_object(q)) return PM_OK;
    TRY(json_want_text(doc, q, "quant_method", &method));
    if (strcmp(method, "mxfp4") == 0) {
        c->quant = QUANT_MXFP4;
        return PM_OK;
    }
    if (strcmp(method, "fp8") != 0) {
        return fail(PM_ERR_UNSUPPORTED,
                    "%s: quantization_config.quant_method: found \"%s\", wanted fp8 or mxfp4",
                    json_name(doc), method);
    }
    c->quant = QUANT_FP8_BLOCK;
    block = json_get(q, "weight_block_size");
    if (!json_is_array(block) || json_size(block) != 2 ||
        json_number(json_child(block)) != 128 ||
        json_number(json_next(json_child(block))) != 128) {
        if (block) return json_fail(doc, block, "[128, 128]");
        return fail(PM_ERR_UNSUPPORTED,
                    "%s: quantization_config.weight_block_size: missing, wanted [128, 128]",
                    json_name(doc));
    }
    return PM_OK;
}

/* An id or a list of ids; replaces what an earlier file said. */
static pm_status read_end_tokens(struct config *c, struct json_doc *doc, const json *root)
{
    const json *v = json_get(root, "eos_token_id");
    int64_t id;
    if (!v || json_is_null(v)) return PM_OK;
    c->n_eos = 0;
    for (const json *e = json_is_array(v) ? json_child(v) : v; e;
         e = json_is_array(v) ? json_next(e) : NULL) {
        if (!json_integer(e, &id) || id < -1 || id > MAX_SIZE) {
            return json_fail(doc, e, "a token id or a list of token ids");
        }
        if (id >= 0 && c->n_eos < (int)(sizeof c->eos / sizeof *c->eos)) {
            c->eos[c->n_eos++] = (int32_t)id;
        }
    }
    return PM_OK;
}

/* sliding_window of a file that does not have the key; null is no window. */
static int default_window(const char *model_type)
{
    static const struct {
        const char *model_type;
        int window;
    } defaults[] = {{"gpt_oss", 128},    {"mistral", 4096}, {"qwen2", 4096},
                    {"qwen2_moe", 4096}, {"qwen3", 4096},   {"qwen3_moe", 4096}};
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
        if (strcmp(model_type, defaults[i].model_type) == 0) return defaults[i].window;
    }
    return 0;
}

/* layer_types and sliding_window. Without layer_types a window holds for all layers. */
static pm_status read_windows(struct config *c, struct json_doc *doc, const json *root)
{
    const json *types = json_get(root, "layer_types");
    bool use = true;
    int window = 0, i = 0;
    TRY(json_want_bool(doc, root, "use_sliding_window", &use));
    if (use && !json_get(root, "sliding_window")) window = default_window(c->model_type);
    if (use) TRY(json_want_int(doc, root, "sliding_window", 0, 1 << 30, &window));
    for (i = 0; i < c->n_layer; i++) {
        c->layer[i].rope = true;
        c->layer[i].window = window;
    }
    if (!json_is_array(types)) return PM_OK;
    if (json_size(types) < c->n_layer) {
        return json_fail(doc, types, "one layer type for each of num_hidden_layers");
    }
    i = 0;
    for (const json *t = json_child(types); t && i < c->n_layer; t = json_next(t), i++) {
        const char *text = json_is_string(t) ? json_text(t) : "";
        if (strcmp(text, "full_attention") == 0) {
            c->layer[i].window = 0;
        } else if (strcmp(text, "chunked_attention") == 0) {
            c->layer[i].window = 0;
        } else if (strcmp(text, "sliding_attention") != 0) {
            return json_fail(doc, t, "full_attention, sliding_attention or chunked_attention");
        } else if (use && window == 0) {
            return fail(PM_ERR_FORMAT,
                        "%s: sliding_window: found none, layer_types wants one for layer %d",
                        json_name(doc), i);
        }
    }
    return PM_OK;
}

/* The key under which this file has a value: DBRX spells a few of them its own way. */
static const char *spelling(const json *root, const char *key, const char *other)
{
    return json_get(root, key) ? key : json_get(root, other) ? other : key;
}

static pm_status read_sizes(struct config *c, struct json_doc *doc, const json *root)
{
    TRY(json_need_int(doc, root, spelling(root, "hidden_size", "d_model"), 1, MAX_SIZE,
                      &c->hidden));
    TRY(json_need_int(doc, root, spelling(root, "num_hidden_layers", "n_layers"), 1, MAX_LAYERS,
                      &c->n_layer));
    TRY(json_need_int(doc, root, spelling(root, "num_attention_heads", "n_heads"), 1, 65536,
                      &c->n_head));
    TRY(json_need_int(doc, root, "vocab_size", 1, MAX_SIZE, &c->vocab));
    c->n_kv_head = c->n_head;
    TRY(json_want_int(doc, root, "num_key_value_heads", 1, 65536, &c->n_kv_head));
    c->head_dim = c->hidden / c->n_head;
    TRY(json_want_int(doc, root, "head_dim", 1, 65536, &c->head_dim));
    c->max_position = 2048;
    TRY(json_want_int(doc, root, spelling(root, "max_position_embeddings", "max_seq_len"), 1,
                      1 << 30, &c->max_position));
    TRY(json_want_int(doc, root, "intermediate_size", 1, MAX_SIZE, &c->dense_dim));
    c->norm_eps = 1e-6f;
    TRY(json_want_float(doc, root, "rms_norm_eps", 0, 1, &c->norm_eps));
    return PM_OK;
}

static pm_status read_common(struct config *c, struct json_doc *doc, const json *root)
{
    const json *tie = json_get(root, "tie_word_embeddings");
    const char *dtype = "?";
    int bos = -1;
    TRY(read_sizes(c, doc, root));
    TRY(alloc_array(&c->layer, (size_t)c->n_layer, sizeof *c->layer, "layers"));
    c->tied_known = json_is_bool(tie);
    TRY(json_want_bool(doc, root, "tie_word_embeddings", &c->tied));
    TRY(read_activation(c, doc, root));
    TRY(read_windows(c, doc, root));
    TRY(read_end_tokens(c, doc, root));
    TRY(json_want_int(doc, root, "bos_token_id", -1, MAX_SIZE, &bos));
    c->bos = bos;
    TRY(json_want_text(doc, root, "torch_dtype", &dtype));
    TRY(json_want_text(doc, root, "dtype", &dtype));
    snprintf(c->dtype, sizeof c->dtype, "%s", dtype);
    c->embedding_scale = c->residual_scale = c->logits_scale = 1;
    c->norm = NORM_RMS;
    return PM_OK;
}

static pm_status find_family(struct config *c, struct json_doc *doc, const json *root)
{
    const char *type;
    char known[768];
    size_t n = 0;
    TRY(json_need_text(doc, root, "model_type", &type));
    snprintf(c->model_type, sizeof c->model_type, "%s", type);
    for (int f = 0; families[f]; f++) {
        for (const char *const *name = families[f]->model_type; *name; name++) {
            if (strcmp(*name, type) == 0) {
                c->family = families[f];
                return PM_OK;
            }
            if (n < sizeof known) {
                n +=
                    (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", *name);
            }
        }
    }
    return fail(PM_ERR_UNSUPPORTED, "%s: model_type: found \"%s\", known are %s",
                json_name(doc), type, known);
}

/* What a family's own keys may have broken. */
static pm_status check_heads(const struct config *c, struct json_doc *doc)
{
    if (c->n_head % c->n_kv_head != 0) {
        return fail(PM_ERR_FORMAT,
                    "%s: num_key_value_heads: found %d, wanted a divisor of "
                    "num_attention_heads (%d)",
                    json_name(doc), c->n_kv_head, c->n_head);
    }
    if (c->head_dim < 2) {
        return fail(PM_ERR_FORMAT, "%s: head_dim: found %d, wanted at least 2", json_name(doc),
                    c->head_dim);
    }
    return PM_OK;
}

static pm_status check_gate(const struct config *c, struct json_doc *doc)
{
    const struct gate *g = &c->gate;
    if (!g->n_expert) return PM_OK;
    for (int l = 0; l < c->n_layer; l++) {
        if (c->layer[l].top_k < 1 || c->layer[l].top_k > g->n_expert) {
            return fail(PM_ERR_FORMAT, "%s: experts per token: found %d, wanted 1 to %d",
                        json_name(doc), c->layer[l].top_k, g->n_expert);
        }
    }
    if (g->group != GROUP_NONE &&
        (g->n_group < 1 || g->n_expert % g->n_group != 0 || g->top_group < 1 ||
         g->top_group > g->n_group || g->top_k > g->n_expert / g->n_group * g->top_group)) {
        return fail(PM_ERR_FORMAT,
                    "%s: n_group, topk_group: found %d and %d, wanted groups that divide %d "
                    "experts and hold %d of them",
                    json_name(doc), g->n_group, g->top_group, g->n_expert, g->top_k);
    }
    return PM_OK;
}

static pm_status parse(struct config *c, struct json_doc *doc)
{
    const json *root = json_root(doc);
    if (!json_is_object(root)) return json_fail(doc, root, "an object");
    TRY(find_family(c, doc, root));
    TRY(read_quantisation(c, doc, root));
    if (c->family->nested && json_is_object(json_get(root, c->family->nested))) {
        root = json_get(root, c->family->nested);
    }
    TRY(read_common(c, doc, root));
    c->attention_scale = 0;
    TRY(c->family->read(c, doc, root));
    TRY(check_heads(c, doc));
    TRY(read_rope(c, doc, root));
    if (c->attention_scale == 0) {
        int dim = c->mla.latent ? c->mla.nope + c->mla.rope : c->head_dim;
        c->attention_scale = (float)(1 / sqrt((double)dim));
    }
    if (c->mla.latent && c->rope.kind != ROPE_DEFAULT && c->rope.mscale_all_dim > 0 &&
        c->rope.factor > 1) {
        double m = 0.1 * c->rope.mscale_all_dim * log(c->rope.factor) + 1;
        c->attention_scale = (float)(c->attention_scale * m * m);
    }
    if (c->n_eos == 0) TRY(read_end_tokens(c, doc, json_root(doc)));
    return check_gate(c, doc);
}

static pm_status from_doc(struct config **out, struct json_doc *doc)
{
    struct config *c;
    pm_status status;
    TRY(alloc_array(&c, 1, sizeof *c, "config"));
    c->bos = -1;
    status = parse(c, doc);
    if (status != PM_OK) {
        config_free(c);
        return status;
    }
    *out = c;
    return PM_OK;
}

pm_status config_parse(struct config **out, const char *name, const char *text, size_t n)
{
    struct json_doc *doc;
    pm_status status;
    TRY(json_parse(&doc, name, text, n));
    status = from_doc(out, doc);
    json_free(doc);
    return status;
}

pm_status config_load(struct config **out, const char *folder)
{
    char path[4096];
    struct json_doc *doc = NULL;
    struct config *c = NULL;
    FILE *probe;
    pm_status status;
    if (snprintf(path, sizeof path, "%s/config.json", folder) >= (int)sizeof path) {
        return fail(PM_ERR_ARG, "%s: the path is too long", folder);
    }
    TRY(json_load(&doc, path, CONFIG_BYTES));
    TRY_DONE(from_doc(&c, doc));
    json_free(doc);
    doc = NULL;
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    probe = fopen(path, "r");
    if (probe) {
        fclose(probe);
        TRY_DONE(json_load(&doc, path, CONFIG_BYTES));
        TRY_DONE(read_end_tokens(c, doc, json_root(doc)));
    }
    *out = c;
    c = NULL;
done:
    json_free(doc);
    config_free(c);
    return status;
}

void config_free(struct config *c)
{
    if (!c) return;
    free(c->layer);
    free(c->rope.short_factor);
    free(c->rope.long_factor);
    free(c);
}

void config_parameters(const struct config *c, double *total, double *active)
{
    double d = c->hidden, all = 0, used = 0;
    double attention = d * c->head_dim * (2.0 * c->n_head + 2.0 * c->n_kv_head);
    double embedding = d * c->vocab;
    if (c->mla.latent) {
        const struct mla *m = &c->mla;
        double q = (double)c->n_head * (m->nope + m->rope);
        attention = (m->q_latent ? d * m->q_latent + m->q_latent * q : d * q) +
                    d * (m->latent + m->rope) +
                    (double)m->latent * c->n_head * (m->nope + m->v_dim) +
                    (double)c->n_head * m->v_dim * d;
    }
    for (int l = 0; l < c->n_layer; l++) {
        double shared = attention + 2 * d;
        if (c->layer[l].moe) {
            double expert = 3 * d * c->expert_dim;
            shared += 3 * d * c->shared_dim + d * c->gate.n_expert;
            all += shared + expert * c->gate.n_expert;
            used += shared + expert * c->layer[l].top_k;
        } else {
            all += shared + 3 * d * c->dense_dim;
            used += shared + 3 * d * c->dense_dim;
        }
    }
    *total = all + d + embedding * (c->tied ? 1 : 2);
    /* Looking up one row of the embedding is free; the output matrix is read whole. */
    *active = used + d + embedding;
}
