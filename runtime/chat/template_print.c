/* template_print.c - how Python prints values.
 *
 * str() of a text is the text; of everything else it is repr(), in which texts are quoted and
 * what cannot be printed is escaped. The bytes that a value brings keep its origin; brackets,
 * commas and quotes around them are the template's. */
#include "template_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pm_status put(struct render *r, const char *text)
{
    return put_bytes(r, text, strlen(text), false);
}

/* The shortest decimal digits that read back as the same number. */
static pm_status float_text(double real, char out[32], size_t *n)
{
    char digits[32], *exponent;
    int precision = 1, power, n_digit = 0;
    if (!isfinite(real)) {
        *n = (size_t)snprintf(out, 32, "%s", isnan(real) ? "nan" : real > 0 ? "inf" : "-inf");
        return PM_OK;
    }
    do {
        snprintf(out, 32, "%.*e", precision - 1, real);
    } while (strtod(out, NULL) != real && precision++ < 17);
    exponent = strchr(out, 'e');
    power = atoi(exponent + 1);
    for (const char *at = out; at < exponent; at++) {
        if (*at >= '0' && *at <= '9') digits[n_digit++] = *at;
    }
    digits[n_digit] = 0;
    if (power < -4 || power >= 16) {
        *n = (size_t)snprintf(out, 32, "%s%c%s%se%c%02d", signbit(real) ? "-" : "", digits[0],
                              n_digit > 1 ? "." : "", digits + 1, power < 0 ? '-' : '+',
                              abs(power));
    } else {
        int places = n_digit - 1 - power;
        *n = (size_t)snprintf(out, 32, "%.*f", places > 1 ? places : 1, real);
    }
    return PM_OK;
}

pm_status put_number(struct render *r, const struct value *v)
{
    char text[32];
    size_t n;
    if (v->kind == VALUE_INT) {
        n = (size_t)snprintf(text, sizeof text, "%lld", (long long)v->integer);
    } else {
        TRY(float_text(v->real, text, &n));
    }
    return put_bytes(r, text, n, v->request);
}

/* Escapes of repr(): \n, \x7f, \u200b, \U000e0001. */
static pm_status put_escape(struct render *r, uint32_t c, bool request)
{
    static const char from[] = "\n\r\t\\", to[] = "nrt\\";
    const char *known = c < 0x80 && c != 0 ? strchr(from, (int)c) : NULL;
    char text[16];
    int n;
    if (known) {
        n = snprintf(text, sizeof text, "\\%c", to[known - from]);
    } else {
        n = snprintf(text, sizeof text,
                     c < 0x100     ? "\\x%02x"
                     : c < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                     (unsigned)c);
    }
    return put_bytes(r, text, (size_t)n, request);
}

static pm_status put_quoted(struct render *r, const struct value *v)
{
    const char *byte = v->text.byte, *at = byte, *end = byte + v->text.n;
    bool single = memchr(byte, '\'', v->text.n), both = memchr(byte, '"', v->text.n);
    char quote = single && !both ? '"' : '\'';
    size_t start = 0;
    TRY(put_bytes(r, &quote, 1, false));
    while (at < end) {
        size_t here = (size_t)(at - byte);
        uint32_t c = utf8_next(&at);
        if (c != (uint32_t)quote && c != '\\' && unicode_is_printable(c)) continue;
        TRY(put_slice(r, v, start, here));
        if (c == (uint32_t)quote) {
            TRY(put_bytes(r, "\\'", 2, text_origin(v, here)));
        } else {
            TRY(put_escape(r, c, text_origin(v, here)));
        }
        start = (size_t)(at - byte);
    }
    TRY(put_slice(r, v, start, v->text.n));
    return put_bytes(r, &quote, 1, false);
}

static pm_status put_range(struct render *r, const struct value *v)
{
    const struct value *item = v->list.item;
    int64_t step = v->list.n > 1 ? item[1].integer - item[0].integer : 1;
    int64_t first = v->list.n > 0 ? item[0].integer : 0;
    int64_t last = v->list.n > 0 ? item[v->list.n - 1].integer + (step > 0 ? 1 : -1) : 0;
    char text[80];
    if (step == 1) {
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)first, (long long)last);
    } else {
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)first,
                 (long long)last, (long long)step);
    }
    return put(r, text);
}

static pm_status put_list(struct render *r, const struct value *v)
{
    bool tuple = v->kind == VALUE_TUPLE, view = v->kind == VALUE_VIEW;
    if (v->kind == VALUE_RANGE) return put_range(r, v);
    if (view) {
        TRY(put(r, v->list.view));
        TRY(put(r, "("));
    }
    TRY(put(r, tuple ? "(" : "["));
    for (size_t i = 0; i < v->list.n; i++) {
        if (i > 0) TRY(put(r, ", "));
        TRY(put_repr(r, &v->list.item[i]));
    }
    if (tuple && v->list.n == 1) TRY(put(r, ","));
    TRY(put(r, tuple ? ")" : "]"));
    return view ? put(r, ")") : PM_OK;
}

static pm_status put_dict(struct render *r, const struct value_dict *d)
{
    TRY(put(r, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0) TRY(put(r, ", "));
        TRY(put_repr(r, &d->entry[i].key));
        TRY(put(r, ": "));
        TRY(put_repr(r, &d->entry[i].value));
    }
    return put(r, "}");
}

static pm_status put_inside(struct render *r, const struct value *v)
{
    switch (v->kind) {
    case VALUE_UNDEFINED: return put(r, "Undefined");
    case VALUE_NONE: return put_bytes(r, "None", 4, v->request);
    case VALUE_BOOL:
        return put_bytes(r, v->truth ? "True" : "False", v->truth ? 4 : 5, v->request);
    case VALUE_INT:
    case VALUE_FLOAT: return put_number(r, v);
    case VALUE_TEXT: return put_quoted(r, v);
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_RANGE:
    case VALUE_VIEW: return put_list(r, v);
    case VALUE_DICT: return put_dict(r, v->dict);
    case VALUE_NAMESPACE:
        TRY(put(r, "<Namespace "));
        TRY(put_dict(r, v->dict));
        return put(r, ">");
    default:
        TRY(put(r, "<"));
        TRY(put(r, kind_name(v)));
        return put(r, ">");
    }
}

pm_status put_repr(struct render *r, const struct value *v)
{
    pm_status status;
    TRY(work(r, 0));
    TRY(nest(r));
    status = put_inside(r, v);
    r->depth--;
    return status;
}

pm_status put_str(struct render *r, const struct value *v)
{
    if (v->kind == VALUE_UNDEFINED) return PM_OK;
    return v->kind == VALUE_TEXT ? put_text(r, v) : put_repr(r, v);
}
