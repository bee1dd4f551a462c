/* synth_config.c - recipe + settings = config.json, and the two small files beside it.
 *
 * The text is the state: every setting parses it, and writes it anew with one value replaced.
 * That is quadratic in a file of 2 KB and needs no tree that can be changed. The writer indents
 * by 2 spaces and keeps the order of keys, so the last text is what goes to the disk. Whether
 * it makes sense is for config_parse to say. */
#include "synth_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "families.h"

enum { KEY_BYTES = 256 };

static const struct synth_dtype dtypes[] = {
    {"bf16", "bfloat16", PM_BF16, NULL},
    {"f32", "float32", PM_F32, NULL},
    {"f16", "float16", PM_F16, NULL},
    {"fp8", "bfloat16", PM_BF16,
     "{\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", \"quant_method\": \"fp8\", "
     "\"weight_block_size\": [128, 128]}"},
    {"mxfp4", "bfloat16", PM_BF16,
     "{\"modules_to_not_convert\": [\"model.layers.*.self_attn\", "
     "\"model.layers.*.mlp.router\", "
     "\"model.embed_tokens\", \"lm_head\"], \"quant_method\": \"mxfp4\"}"},
};

pm_status synth_find_dtype(const struct synth_dtype **out, const char *name)
{
    if (!name) name = "bf16";
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *out = &dtypes[i];
            return PM_OK;
        }
    }
    return fail(PM_ERR_ARG, "dtype: found \"%s\", wanted bf16, f32, f16, fp8 or mxfp4", name);
}

static void put_line(struct json_out *o, int depth)
{
    json_put(o, "\n%*s", 2 * depth, "");
}

/* The shortest of the usual precisions that reads back as the same number. */
static void put_number(struct json_out *o, const json *v)
{
    char text[40];
    int64_t whole;
    if (json_integer(v, &whole)) {
        json_put(o, "%lld", (long long)whole);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, json_number(v));
        if (strtod(text, NULL) == json_number(v)) break;
    }
    json_put(o, "%s", text);
}

static void put_value(struct json_out *o, const json *v, int depth)
{
    bool object = json_is_object(v);
    if (json_is_string(v)) {
        json_put_string(o, json_text(v), json_text_bytes(v));
    } else if (json_is_number(v)) {
        put_number(o, v);
    } else if (!object && !json_is_array(v)) {
        json_put(o, json_is_null(v) ? "null" : json_true(v) ? "true" : "false");
    } else {
        json_put(o, object ? "{" : "[");
        for (const json *m = json_child(v); m; m = json_next(m)) {
            put_line(o, depth + 1);
            if (object) {
                json_put_string(o, json_key(m), json_key_bytes(m));
                json_put(o, ": ");
            }
            put_value(o, m, depth + 1);
            if (json_next(m)) json_put(o, ",");
        }
        if (json_child(v)) put_line(o, depth);
        json_put(o, object ? "}" : "]");
    }
}

/* `object` (NULL: an empty one) with the value under a dotted key replaced or appended. */
static void put_changed(struct json_out *o, const json *object, const char *key,
                        const json *value, int depth)
{
    size_t n = strcspn(key, ".");
    const char *rest = key[n] ? key + n + 1 : NULL;
    const json *old = NULL, *m = json_child(object);
    bool done = false;
    json_put(o, "{");
    while (m || !done) {
        bool same = !m || (json_key_bytes(m) == n && memcmp(json_key(m), key, n) == 0);
        put_line(o, depth + 1);
        json_put_string(o, m ? json_key(m) : key, m ? json_key_bytes(m) : n);
        json_put(o, ": ");
        old = json_is_object(m) ? m : NULL;
        if (!same) {
            put_value(o, m, depth + 1);
        } else if (rest) {
            put_changed(o, old, rest, value, depth + 1);
        } else {
            put_value(o, value, depth + 1);
        }
        done = done || same;
        if (m) m = json_next(m);
        if (m || !done) json_put(o, ",");
    }
    put_line(o, depth);
    json_put(o, "}");
}

/* The object of the text model's settings: the root, or the one that its family nests. */
static const json *find_model(const json *root, const char **nested)
{
    const char *type = json_text(json_get(root, "model_type"));
    *nested = NULL;
    for (int f = 0; type && families[f]; f++) {
        for (const char *const *name = families[f]->model_type; *name; name++) {
            if (strcmp(*name, type) == 0) *nested = families[f]->nested;
        }
    }
    if (*nested && json_is_object(json_get(root, *nested))) return json_get(root, *nested);
    *nested = NULL;
    return root;
}

/* Puts `value` under `key` into the text; with `missing` only where the model has no such key.
 */
static pm_status set_value(struct json_out *text, const char *key, const json *value,
                           bool missing)
{
    struct json_doc *doc;
    struct json_out changed = {0};
    const json *root, *model;
    const char *nested;
    char first[KEY_BYTES], path[2 * KEY_BYTES];
    TRY(json_parse(&doc, "config.json", text->text, text->n));
    root = json_root(doc);
    model = find_model(root, &nested);
    snprintf(first, sizeof first, "%.*s", (int)strcspn(key, "."), key);
    /* The reader looks for the quantisation beside the nested object. */
    if (json_get(root, first) || strcmp(first, "quantization_config") == 0) nested = NULL;
    snprintf(path, sizeof path, "%s%s%s", nested ? nested : "", nested ? "." : "", key);
    if (!missing || !json_get(nested ? model : root, key)) {
        put_changed(&changed, root, path, value, 0);
        free(text->text);
        *text = changed;
    }
    json_free(doc);
    return text->status;
}

/* The same from the value's text: JSON, or else a string. */
static pm_status set_text(struct json_out *text, const char *key, const char *value,
                          bool missing)
{
    struct json_doc *doc;
    pm_status status;
    if (json_parse(&doc, key, value, strlen(value)) != PM_OK) {
        struct json_out quoted = {0};
        json_put_string(&quoted, value, strlen(value));
        status = quoted.status;
        if (status == PM_OK) status = json_parse(&doc, key, quoted.text, quoted.n);
        free(quoted.text);
        TRY(status);
    }
    status = set_value(text, key, json_root(doc), missing);
    json_free(doc);
    return status;
}

static pm_status set_option(struct json_out *text, const char *option)
{
    char key[KEY_BYTES];
    size_t n = strcspn(option, "=");
    if (!option[n] || n == 0 || n >= sizeof key) {
        return fail(PM_ERR_ARG, "setting \"%.100s\": wanted key=value", option);
    }
    memcpy(key, option, n);
    key[n] = 0;
    if (key[0] == '.' || key[n - 1] == '.' || strstr(key, "..")) {
        return fail(PM_ERR_ARG, "setting \"%.100s\": an empty name between dots", option);
    }
    return set_text(text, key, option + n + 1, false);
}

static const struct synth_recipe *find_recipe(const char *name)
{
    for (const struct synth_recipe *r = synth_recipes; r->name; r++) {
        if (strcmp(r->name, name) == 0) return r;
    }
    return NULL;
}

static pm_status apply_recipe(struct json_out *text, const struct synth_recipe *r)
{
    struct json_doc *doc;
    pm_status status = PM_OK;
    if (r->base) {
        TRY(apply_recipe(text, find_recipe(r->base)));
    } else {
        json_put(text, "{}");
        TRY(text->status);
    }
    TRY(json_parse(&doc, r->name, r->text, strlen(r->text)));
    for (const json *m = json_child(json_root(doc)); m && status == PM_OK; m = json_next(m)) {
        status = set_value(text, json_key(m), m, false);
    }
    json_free(doc);
    return status;
}

static pm_status unknown_family(const char *name)
{
    struct json_out known = {0};
    pm_status status;
    for (const struct synth_recipe *r = synth_recipes; r->name; r++) {
        if (r->name[0] != '*') json_put(&known, "%s%s", known.n ? ", " : "", r->name);
    }
    status = fail(PM_ERR_UNSUPPORTED, "family \"%.100s\": known are %s", name,
                  known.text ? known.text : "none");
    free(known.text);
    return status;
}

/* The tokenizer's end token, where the vocabulary has room for it. */
static pm_status set_tokens(struct json_out *text)
{
    struct json_doc *doc;
    const char *nested;
    char id[16];
    int64_t vocab = 0;
    TRY(json_parse(&doc, "config.json", text->text, text->n));
    json_integer(json_get(find_model(json_root(doc), &nested), "vocab_size"), &vocab);
    json_free(doc);
    snprintf(id, sizeof id, "%d", SYNTH_END);
    TRY(set_text(text, "bos_token_id", vocab > SYNTH_END ? id : "null", true));
    return set_text(text, "eos_token_id", vocab > SYNTH_END ? id : "null", true);
}

pm_status synth_config(struct json_out *text, const struct synth_options *o,
                       const struct synth_dtype *dtype)
{
    const struct synth_recipe *r = find_recipe(o->family);
    if (!r || r->name[0] == '*') return unknown_family(o->family);
    TRY(apply_recipe(text, r));
    for (int i = 0; i < o->n_set; i++) {
        TRY(set_option(text, o->set[i]));
    }
    TRY(set_text(text, "torch_dtype", dtype->torch, true));
    if (dtype->quantisation) {
        TRY(set_text(text, "quantization_config", dtype->quantisation, true));
    }
    return set_tokens(text);
}

const char *synth_prefix(const struct json_out *text)
{
    struct json_doc *doc;
    const char *nested = NULL;
    if (json_parse(&doc, "config.json", text->text, text->n) == PM_OK) {
        find_model(json_root(doc), &nested);
        json_free(doc);
    }
    return nested ? "language_model." : "";
}

void synth_generation_config(struct json_out *text, const struct config *c)
{
    json_put(text, "{\n  \"_from_model_config\": true,\n");
    if (c->bos >= 0) json_put(text, "  \"bos_token_id\": %d,\n", c->bos);
    if (c->n_eos) json_put(text, "  \"eos_token_id\": ");
    if (c->n_eos > 1) json_put(text, "[");
    for (int i = 0; i < c->n_eos; i++) {
        json_put(text, "%s%d", i ? ", " : "", c->eos[i]);
    }
    if (c->n_eos > 1) json_put(text, "]");
    if (c->n_eos) json_put(text, ",\n");
    json_put(text, "  \"transformers_version\": \"4.51.0\"\n}");
}

/* The character that stands for a byte: itself where it can be seen, else one of those from 256
 * on in the order of the bytes. Source: bytes_to_unicode() of GPT-2's encoder.py. */
static int byte_character(int byte)
{
    int hidden = 0;
    for (int b = 0; b <= byte; b++) {
        bool seen = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xff && b != 0xad);
        if (b == byte && seen) return byte;
        if (b < byte) hidden += !seen;
    }
    return 256 + hidden;
}

void synth_tokenizer(struct json_out *text)
{
    static const char level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                                "\"trim_offsets\": true, \"use_regex\": true}";
    json_put(text,
             "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
             "  \"added_tokens\": [\n    {\"id\": %d, \"content\": \"<|endoftext|>\", "
             "\"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
             "\"normalized\": false, \"special\": true}\n  ],\n"
             "  \"normalizer\": null,\n  \"pre_tokenizer\": %s,\n"
             "  \"post_processor\": null,\n  \"decoder\": %s,\n",
             SYNTH_END, level, level);
    json_put(text, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n"
                   "    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
                   "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
                   "    \"byte_fallback\": false,\n    \"vocab\": {");
    for (int byte = 0; byte < 256; byte++) {
        int c = byte_character(byte);
        char utf8[2] = {(char)c, 0};
        size_t n = 1;
        if (c >= 0x80) {
            utf8[0] = (char)(0xc0 | c >> 6);
            utf8[1] = (char)(0x80 | (c & 0x3f));
            n = 2;
        }
        json_put(text, "%s\n      ", byte ? "," : "");
        json_put_string(text, utf8, n);
        json_put(text, ": %d", byte);
    }
    json_put(text, "\n    },\n    \"merges\": []\n  }\n}");
}
