/* synth_config.c - recipe + settings = config.json, and the two small files beside it.
 *
 * The text is the state: a setting copies it with the bytes of one value replaced. So numbers
 * stay as they were spelled, which matters: the Python classes that read these files refuse 7
 * where they declare a float and 7.0 where they declare an integer. Only text that json_parse
 * has accepted is walked here, so the walk need not look for errors. It is indented once, at
 * the end. Whether the result makes sense is for config_parse to say.
 */
#include "synth_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "families.h"

enum { KEY_BYTES = 256 };

static const struct synth_dtype dtypes[] = {
    {"bf16", "\"bfloat16\"", PM_BF16, NULL},
    {"f32", "\"float32\"", PM_F32, NULL},
    {"f16", "\"float16\"", PM_F16, NULL},
    {"fp8", "\"bfloat16\"", PM_BF16,
     "{\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", \"quant_method\": \"fp8\", "
     "\"weight_block_size\": [128, 128]}"},
    {"mxfp4", "\"bfloat16\"", PM_BF16,
     "{\"modules_to_not_convert\": [\"model.layers.*.self_attn\", "
     "\"model.layers.*.mlp.router\", \"model.embed_tokens\", \"lm_head\"], "
     "\"quant_method\": \"mxfp4\"}"},
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

/* The first byte behind the value that begins at p. */
static const char *end_of_value(const char *p)
{
    int depth = 0;
    if (!strchr("{[\"", *p)) return p + strcspn(p, ",]} \t\r\n");
    do {
        depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        if (*p == '"') {
            for (p++; *p != '"'; p++) {
                if (*p == '\\') p++;
            }
        }
        p++;
    } while (depth > 0);
    return p;
}

/* A member of an object as it is spelled. */
struct member {
    const char *key, *value; /* the key with its quotes */
    int key_bytes, value_bytes;
};

/* *at is behind the opening brace or where the last call left it. */
static bool next_member(const char **at, struct member *m)
{
    static const char space[] = " \t\r\n,";
    const char *end;
    m->key = *at + strspn(*at, space);
    if (*m->key != '"') return false;
    end = end_of_value(m->key);
    m->key_bytes = (int)(end - m->key);
    m->value = strchr(end, ':') + 1;
    m->value += strspn(m->value, space);
    *at = end_of_value(m->value);
    m->value_bytes = (int)(*at - m->value);
    return true;
}

static void put_changed(struct json_out *o, const char *object, const char *key,
                        const char *value);

/* The value, or for a key inside the old value, that one changed. */
static void put_new(struct json_out *o, const char *old, const char *key, const char *value)
{
    if (*key) {
        put_changed(o, *old == '{' ? old : "{}", key + 1, value);
    } else {
        json_put(o, "%s", value);
    }
}

/* `object` with the value under a dotted key replaced or appended. */
static void put_changed(struct json_out *o, const char *object, const char *key,
                        const char *value)
{
    struct json_out name = {0};
    struct member m;
    size_t n = strcspn(key, ".");
    const char *comma = "";
    bool found = false;
    json_put_string(&name, key, n);
    if (name.status != PM_OK) o->status = name.status;
    json_put(o, "{");
    for (const char *at = object + 1; o->status == PM_OK && next_member(&at, &m);) {
        json_put(o, "%s%.*s:", comma, m.key_bytes, m.key);
        if ((size_t)m.key_bytes == name.n && memcmp(m.key, name.text, name.n) == 0) {
            put_new(o, m.value, key + n, value);
            found = true;
        } else {
            json_put(o, "%.*s", m.value_bytes, m.value);
        }
        comma = ",";
    }
    if (!found) {
        json_put(o, "%s%s:", comma, name.text ? name.text : "");
        put_new(o, "", key + n, value);
    }
    json_put(o, "}");
    free(name.text);
}

/* Indents by 2 spaces, one member or element a line. */
static void put_pretty(struct json_out *o, const char *text)
{
    int depth = 0;
    for (const char *p = text; *p; p++) {
        if (strchr("{[", *p)) {
            const char *inside = p + 1 + strspn(p + 1, " \t\r\n");
            bool empty = strchr("}]", *inside) != NULL;
            if (empty) {
                json_put(o, "%c%c", *p, *inside);
                p = inside;
            } else {
                json_put(o, "%c\n%*s", *p, 2 * ++depth, "");
            }
        } else if (strchr("}]", *p)) {
            json_put(o, "\n%*s%c", 2 * --depth, "", *p);
        } else if (*p == ',') {
            json_put(o, ",\n%*s", 2 * depth, "");
        } else if (*p == ':') {
            json_put(o, ": ");
        } else if (!strchr(" \t\r\n", *p)) {
            const char *end = end_of_value(p);
            json_put(o, "%.*s", (int)(end - p), p);
            p = end - 1;
        }
    }
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

/* Puts the JSON text `value` under `key`; with `missing` only where the model has no such key.
 */
static pm_status set_value(struct json_out *text, const char *key, const char *value,
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
        put_changed(&changed, text->text, path, value);
        free(text->text);
        *text = changed;
    }
    json_free(doc);
    return text->status;
}

/* The same with a value that is JSON, or else a string. */
static pm_status set_text(struct json_out *text, const char *key, const char *value)
{
    struct json_out quoted = {0};
    struct json_doc *doc;
    pm_status status;
    if (json_parse(&doc, key, value, strlen(value)) == PM_OK) {
        json_free(doc);
        return set_value(text, key, value, false);
    }
    json_put_string(&quoted, value, strlen(value));
    status = quoted.status;
    if (status == PM_OK) status = set_value(text, key, quoted.text, false);
    free(quoted.text);
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
    return set_text(text, key, option + n + 1);
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
    struct json_out key = {0}, value = {0};
    struct member m;
    if (!r->base) {
        json_put(text, "%s", r->text);
        return text->status;
    }
    TRY(apply_recipe(text, find_recipe(r->base)));
    for (const char *at = r->text + 1; text->status == PM_OK && next_member(&at, &m);) {
        key.n = value.n = 0;
        json_put(&key, "%.*s", m.key_bytes - 2, m.key + 1);
        json_put(&value, "%.*s", m.value_bytes, m.value);
        text->status = key.status != PM_OK ? key.status : value.status;
        if (text->status == PM_OK) set_value(text, key.text, value.text, false);
    }
    free(key.text);
    free(value.text);
    return text->status;
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
    TRY(set_value(text, "bos_token_id", vocab > SYNTH_END ? id : "null", true));
    return set_value(text, "eos_token_id", vocab > SYNTH_END ? id : "null", true);
}

pm_status synth_config(struct json_out *text, const struct synth_options *o,
                       const struct synth_dtype *dtype)
{
    const struct synth_recipe *r = find_recipe(o->family);
    struct json_out pretty = {0};
    if (!r || r->name[0] == '*') return unknown_family(o->family);
    TRY(apply_recipe(text, r));
    for (int i = 0; i < o->n_set; i++) {
        TRY(set_option(text, o->set[i]));
    }
    TRY(set_value(text, "torch_dtype", dtype->torch, true));
    if (dtype->quantisation) {
        TRY(set_value(text, "quantization_config", dtype->quantisation, true));
    }
    TRY(set_tokens(text));
    put_pretty(&pretty, text->text);
    free(text->text);
    *text = pretty;
    return text->status;
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
