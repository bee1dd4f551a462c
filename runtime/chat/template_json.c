/* template_json.c - values as JSON and out of JSON.
 *
 * Written is what json.dumps of Python writes: the bytes that a value brings keep its origin,
 * all else is the template's. Read are the documents of the caller, whose texts are lent. */
#include "template_value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pm_status put(struct render *r, const char *text)
{
    return put_bytes(r, text, strlen(text), false);
}

/* Writing */

static pm_status put_json_escape(struct render *r, uint32_t c, bool request)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    const char *known = c < 0x80 && c != 0 ? strchr(from, (int)c) : NULL;
    char text[16];
    int n;
    if (known) {
        n = snprintf(text, sizeof text, "\\%c", to[known - from]);
    } else if (c < 0x10000) {
        n = snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    } else {
        n = snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd7c0u + (unsigned)(c >> 10),
                     0xdc00u + (unsigned)(c & 0x3ff));
    }
    return put_bytes(r, text, (size_t)n, request);
}

static pm_status put_json_text(struct render *r, const struct value *v, bool ascii)
{
    const char *byte = v->text.byte, *at = byte, *end = byte + v->text.n;
    size_t start = 0;
    TRY(put(r, "\""));
    while (at < end) {
        size_t here = (size_t)(at - byte);
        uint32_t c = utf8_next(&at);
        if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !ascii)) continue;
        TRY(put_slice(r, v, start, here));
        TRY(put_json_escape(r, c, text_origin(v, here)));
        start = (size_t)(at - byte);
    }
    TRY(put_slice(r, v, start, v->text.n));
    return put(r, "\"");
}

static pm_status put_line(struct render *r, const struct json_style *style, int depth)
{
    if (!style->indent) return PM_OK;
    TRY(put(r, "\n"));
    for (int i = 0; i < depth; i++) {
        TRY(put_text(r, style->indent));
    }
    return PM_OK;
}

static pm_status put_json_list(struct render *r, const struct value *v,
                               const struct json_style *style, int depth)
{
    if (v->list.n == 0) return put(r, "[]");
    TRY(put(r, "["));
    for (size_t i = 0; i < v->list.n; i++) {
        if (i > 0) TRY(put_text(r, &style->item));
        TRY(put_line(r, style, depth + 1));
        TRY(put_json(r, &v->list.item[i], style, depth + 1));
    }
    TRY(put_line(r, style, depth));
    return put(r, "]");
}

static pm_status put_json_scalar(struct render *r, const struct value *v)
{
    char text[32];
    size_t n;
    switch (v->kind) {
    case VALUE_NONE: return put_bytes(r, "null", 4, v->request);
    case VALUE_BOOL:
        return put_bytes(r, v->truth ? "true" : "false", v->truth ? 4 : 5, v->request);
    case VALUE_INT: return put_number(r, v);
    case VALUE_FLOAT:
        if (isfinite(v->real)) return put_number(r, v);
        n = (size_t)snprintf(text, sizeof text, "%s",
                             isnan(v->real) ? "NaN"
                             : v->real > 0  ? "Infinity"
                                            : "-Infinity");
        return put_bytes(r, text, n, v->request);
    default: return fail(PM_ERR_ARG, "a %s has no form in JSON", kind_name(v));
    }
}

static pm_status put_json_key(struct render *r, const struct value *key,
                              const struct json_style *style)
{
    if (key->kind == VALUE_TEXT) return put_json_text(r, key, style->ascii);
    TRY(put(r, "\""));
    TRY(put_json_scalar(r, key));
    return put(r, "\"");
}

/* Indices of a dictionary's entries in the order of their keys. */
static pm_status sorted_entries(struct render *r, const struct value_dict *d, size_t *order)
{
    for (size_t i = 0; i < d->n; i++) {
        size_t at = i;
        for (; at > 0; at--) {
            int c;
            TRY(value_compare(r, &d->entry[order[at - 1]].key, &d->entry[i].key, &c));
            if (c <= 0) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    return PM_OK;
}

static pm_status put_json_dict(struct render *r, const struct value_dict *d,
                               const struct json_style *style, int depth)
{
    size_t *order;
    if (d->n == 0) return put(r, "{}");
    TRY(arena_take(&r->arena, &order, d->n, sizeof *order));
    for (size_t i = 0; i < d->n; i++) {
        order[i] = i;
    }
    if (style->sort) TRY(sorted_entries(r, d, order));
    TRY(put(r, "{"));
    for (size_t i = 0; i < d->n; i++) {
        const struct value_entry *e = &d->entry[order[i]];
        if (i > 0) TRY(put_text(r, &style->item));
        TRY(put_line(r, style, depth + 1));
        TRY(put_json_key(r, &e->key, style));
        TRY(put_text(r, &style->key));
        TRY(put_json(r, &e->value, style, depth + 1));
    }
    TRY(put_line(r, style, depth));
    return put(r, "}");
}

pm_status put_json(struct render *r, const struct value *v, const struct json_style *style,
                   int depth)
{
    pm_status status;
    TRY(work(r, 0));
    TRY(nest(r));
    if (v->kind == VALUE_TEXT) {
        status = put_json_text(r, v, style->ascii);
    } else if (v->kind == VALUE_LIST || v->kind == VALUE_TUPLE) {
        status = put_json_list(r, v, style, depth);
    } else if (v->kind == VALUE_DICT) {
        status = put_json_dict(r, v->dict, style, depth);
    } else {
        status = put_json_scalar(r, v);
    }
    r->depth--;
    return status;
}

/* Reading */

static bool is_role(const json *v)
{
    static const char *const role[] = {"system", "developer", "user",      "assistant",
                                       "tool",   "function",  "ipython",   "observation",
                                       "model",  "context",   "documents", "critic"};
    const char *text = json_text(v);
    for (size_t i = 0; text && i < sizeof role / sizeof *role; i++) {
        if (strlen(role[i]) == json_text_bytes(v) && strcmp(role[i], text) == 0) return true;
    }
    return false;
}

static struct value request_text(const char *text, size_t n)
{
    struct value v = text_of(text, n);
    v.request = true;
    return v;
}

static pm_status dict_of_json(struct render *r, const json *v, bool roles, struct value *out)
{
    size_t n = (size_t)json_size(v);
    struct value_dict *d;
    TRY(dict_new(r, VALUE_DICT, out));
    d = out->dict;
    TRY(arena_take(&r->arena, &d->entry, n, sizeof *d->entry));
    d->capacity = n;
    for (const json *m = json_child(v); m; m = json_next(m)) {
        struct value_entry *e = &d->entry[d->n];
        e->key = request_text(json_key(m), json_key_bytes(m));
        TRY(value_of_json(r, m, false, &e->value));
        if (roles && text_is(&e->key, "role") && is_role(m)) e->value.request = false;
        d->n++; /* the parser saw to it that keys are unique */
    }
    return PM_OK;
}

static pm_status list_of_json(struct render *r, const json *v, bool roles, struct value *out)
{
    struct value *item;
    size_t n = (size_t)json_size(v), i = 0;
    TRY(arena_take(&r->arena, &item, n, sizeof *item));
    for (const json *m = json_child(v); m; m = json_next(m)) {
        TRY(value_of_json(r, m, roles, &item[i++]));
    }
    *out = value_list(VALUE_LIST, item, n);
    return PM_OK;
}

/* A number with a point or an exponent is a float; integers are exact up to 64 bits. */
static struct value number_of_json(const json *v)
{
    const char *text = json_number_text(v);
    int64_t integer = 0;
    if (text && !strpbrk(text, ".eE")) {
        errno = 0;
        integer = strtoll(text, NULL, 10);
        if (errno == 0) return value_int(integer);
    }
    if (text || !json_integer(v, &integer)) return value_float(json_number(v));
    return value_int(integer);
}

/* The parser bounds the recursion. */
pm_status value_of_json(struct render *r, const json *v, bool roles, struct value *out)
{
    TRY(work(r, 0));
    if (json_is_object(v)) return dict_of_json(r, v, roles, out);
    if (json_is_array(v)) return list_of_json(r, v, roles, out);
    if (json_is_string(v)) {
        *out = request_text(json_text(v), json_text_bytes(v));
        return PM_OK;
    }
    if (json_is_bool(v)) {
        *out = value_bool(json_true(v));
    } else if (json_is_number(v)) {
        *out = number_of_json(v);
    } else {
        *out = value_none();
    }
    out->request = true;
    return PM_OK;
}
