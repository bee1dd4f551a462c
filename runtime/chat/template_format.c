/* template_format.c - the two ways of Python to put values into texts: "%d of %s" % (1, x) and
 * "{} of {name}".format(1, name=x). */
#include "template_eval.h"

#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 1000 };

struct field {
    char type;  /* s, r, d, f, x, X, o, e, g, or 0 */
    char align; /* <, >, ^ or 0 */
    bool zero, plus, blank, alternate;
    int width, precision; /* -1: none */
};

static bool read_digits(const char **at, const char *end, int *out)
{
    if (*at == end || **at < '0' || **at > '9') return true;
    for (*out = 0; *at < end && **at >= '0' && **at <= '9'; (*at)++) {
        *out = *out * 10 + (**at - '0');
        if (*out > MAX_WIDTH) return false;
    }
    return true;
}

static pm_status number_text(const struct field *f, const struct value *v, char *out,
                             size_t room, size_t *n)
{
    char format[16];
    bool whole = strchr("dxXo", f->type) != NULL;
    double real;
    int64_t integer;
    if (!is_number(v)) return fail(PM_ERR_ARG, "%%%c of a %s", f->type, kind_name(v));
    real = v->kind == VALUE_FLOAT ? v->real
           : v->kind == VALUE_INT ? (double)v->integer
                                  : v->truth;
    integer = v->kind == VALUE_INT ? v->integer : v->kind == VALUE_BOOL ? v->truth : 0;
    if (whole && v->kind == VALUE_FLOAT) {
        if (f->type != 'd' || !(real > -9e18 && real < 9e18)) {
            return fail(PM_ERR_ARG, "%%%c of a float", f->type);
        }
        integer = (int64_t)real;
    }
    if (whole && f->type != 'd') {
        snprintf(format, sizeof format, "%%s%%%sll%c", f->alternate ? "#" : "", f->type);
        *n = (size_t)snprintf(out, room, format, integer < 0 ? "-" : "",
                              integer < 0 ? 0 - (unsigned long long)integer
                                          : (unsigned long long)integer);
    } else if (whole) {
        *n = (size_t)snprintf(out, room,
                              f->plus    ? "%+lld"
                              : f->blank ? "% lld"
                                         : "%lld",
                              (long long)integer);
    } else {
        snprintf(format, sizeof format, "%%%s.*%c",
                 f->plus    ? "+"
                 : f->blank ? " "
                            : "",
                 f->type);
        *n = (size_t)snprintf(out, room, format, f->precision < 0 ? 6 : f->precision, real);
    }
    return *n < room ? PM_OK : fail(PM_ERR_TOO_LONG, "a number of %zu characters", *n);
}

static pm_status put_fill(struct render *r, char c, int64_t n)
{
    for (; n > 0; n--) {
        TRY(put_bytes(r, &c, 1, false));
    }
    return PM_OK;
}

/* A text in its width; zeros go behind a sign. */
static pm_status put_padded(struct render *r, const struct field *f, const struct value *text)
{
    int64_t room = f->width - (int64_t)text_characters(text), left;
    bool sign = text->text.n > 0 && strchr("+-", *text->text.byte);
    if (room <= 0) return put_text(r, text);
    if (f->zero && f->align == 0) {
        TRY(put_slice(r, text, 0, sign));
        TRY(put_fill(r, '0', room));
        return put_slice(r, text, sign, text->text.n);
    }
    left = f->align == '<' ? 0 : f->align == '^' ? room / 2 : room;
    TRY(put_fill(r, ' ', left));
    TRY(put_text(r, text));
    return put_fill(r, ' ', room - left);
}

static pm_status put_field(struct render *r, const struct field *f, const struct value *v)
{
    char digits[1400];
    struct value text;
    size_t start = r->n, n;
    struct field plain = *f;
    if (f->type == 's' || f->type == 'r') {
        TRY(f->type == 's' ? put_str(r, v) : put_repr(r, v));
        TRY(text_made(r, start, &text));
        if (f->precision >= 0)
            text = text_slice(&text, 0, text_offset(&text, (size_t)f->precision));
        plain.zero = false;
        return put_padded(r, &plain, &text);
    }
    TRY(number_text(f, v, digits, sizeof digits, &n));
    text = text_of(digits, n);
    text.request = v->request;
    return put_padded(r, f, &text);
}

/* Percent */

struct percent {
    const struct value *values;
    size_t used; /* of a tuple, or 1 of anything else */
};

static pm_status next_value(struct percent *p, struct value *out)
{
    bool tuple = p->values->kind == VALUE_TUPLE;
    if (p->used >= (tuple ? p->values->list.n : 1)) {
        return fail(PM_ERR_ARG, "not enough values for a format");
    }
    *out = tuple ? p->values->list.item[p->used] : *p->values;
    p->used++;
    return PM_OK;
}

/* (name) selects from a dictionary. */
static pm_status named_value(struct render *r, struct percent *p, const char **at,
                             const char *end, struct value *out)
{
    const char *close = memchr(*at, ')', (size_t)(end - *at));
    struct value key;
    const struct value *found = NULL;
    if (!close || p->values->kind != VALUE_DICT) {
        return fail(PM_ERR_ARG, "a format with names needs a dictionary");
    }
    key = text_of(*at + 1, (size_t)(close - *at - 1));
    TRY(dict_find(r, p->values->dict, &key, &found));
    if (!found) return fail(PM_ERR_ARG, "a format names a key that is not there");
    *out = *found;
    *at = close + 1;
    p->used = 1;
    return PM_OK;
}

static pm_status put_percent(struct render *r, struct percent *p, const char **at,
                             const char *end)
{
    struct field f = {.precision = -1};
    struct value v = value_none();
    bool named = *at < end && **at == '(';
    if (named) TRY(named_value(r, p, at, end, &v));
    for (; *at < end && strchr("-+ 0#", **at) && **at; (*at)++) {
        if (**at == '-') f.align = '<';
        if (**at == '+') f.plus = true;
        if (**at == ' ') f.blank = true;
        if (**at == '0') f.zero = true;
        if (**at == '#') f.alternate = true;
    }
    if (!read_digits(at, end, &f.width)) return fail(PM_ERR_ARG, "a format too wide");
    if (*at < end && **at == '.') {
        (*at)++;
        f.precision = 0;
        if (!read_digits(at, end, &f.precision))
            return fail(PM_ERR_ARG, "a format too precise");
    }
    if (*at == end) return fail(PM_ERR_ARG, "a format that is cut short");
    f.type = *(*at)++;
    if (f.type == '%') return put_bytes(r, "%", 1, false);
    if (!strchr("srdifxXoeg", f.type) || !f.type) {
        return fail(PM_ERR_UNSUPPORTED, "a format of type %c is not supported",
                    f.type > 0x20 && f.type < 0x7f ? f.type : '?');
    }
    if (f.type == 'i') f.type = 'd';
    if (!named) TRY(next_value(p, &v));
    return put_field(r, &f, &v);
}

/* Python lets a value go unused if it has items but is no tuple. */
static bool has_items(const struct value *v)
{
    return v->kind == VALUE_DICT || v->kind == VALUE_LIST || v->kind == VALUE_RANGE ||
           v->kind == VALUE_UNDEFINED;
}

pm_status format_percent(struct render *r, const struct value *text, const struct value *value,
                         struct value *out)
{
    const char *byte = text->text.byte, *at = byte, *end = byte + text->text.n;
    struct percent p = {.values = value};
    size_t start = r->n;
    bool left;
    while (at < end) {
        const char *sign = memchr(at, '%', (size_t)(end - at));
        TRY(put_slice(r, text, (size_t)(at - byte), (size_t)((sign ? sign : end) - byte)));
        if (!sign) break;
        at = sign + 1;
        TRY(put_percent(r, &p, &at, end));
    }
    left = value->kind == VALUE_TUPLE ? p.used < value->list.n : p.used == 0;
    if (left && !has_items(value)) {
        return fail(PM_ERR_ARG, "more values than a format takes");
    }
    return text_made(r, start, out);
}

/* Braces */

static pm_status read_spec(struct field *f, const char *at, const char *end)
{
    if (at < end && strchr("<>^", *at)) f->align = *at++;
    if (at < end && *at == '+') f->plus = *at++ == '+';
    if (at < end && *at == '0') f->zero = *at++ == '0';
    if (!read_digits(&at, end, &f->width)) return fail(PM_ERR_ARG, "a format too wide");
    if (at < end && *at == '.') {
        at++;
        if (!read_digits(&at, end, &f->precision))
            return fail(PM_ERR_ARG, "a format too precise");
    }
    if (at < end && strchr("sdfxXoeg", *at)) f->type = *at++;
    return at == end ? PM_OK : fail(PM_ERR_UNSUPPORTED, "a format like this is not supported");
}

static pm_status braces_value(const struct call *c, const char *name, size_t n, size_t *next,
                              struct value *out)
{
    size_t index = 0;
    bool digits = true;
    for (size_t i = 0; i < n && digits; i++) {
        digits = name[i] >= '0' && name[i] <= '9' && index < 1000;
        index = index * 10 + (size_t)(name[i] - '0');
    }
    if (n == 0) index = (*next)++;
    if (digits) {
        if (index >= c->all->n) return fail(PM_ERR_ARG, "not enough values for a format");
        *out = c->all->item[index];
        return PM_OK;
    }
    for (size_t i = 0; i < c->all->n_named; i++) {
        const struct value *key = &c->all->named[i].key;
        if (key->text.n == n && memcmp(key->text.byte, name, n) == 0) {
            *out = c->all->named[i].value;
            return PM_OK;
        }
    }
    return fail(PM_ERR_ARG, "a format names a value that is not there");
}

/* What is between braces: name, !r, :spec. */
static pm_status put_braces(struct render *r, const struct call *c, const char *at,
                            const char *end, size_t *next)
{
    struct field f = {.precision = -1};
    const char *name_end = at;
    struct value v;
    while (name_end < end && *name_end != '!' && *name_end != ':') {
        name_end++;
    }
    TRY(braces_value(c, at, (size_t)(name_end - at), next, &v));
    at = name_end;
    if (at + 1 < end && *at == '!') {
        f.type = at[1];
        at += 2;
        if (f.type != 'r' && f.type != 's') {
            return fail(PM_ERR_UNSUPPORTED, "a format like this is not supported");
        }
    }
    if (at < end && *at != ':') return fail(PM_ERR_ARG, "a malformed format");
    if (at < end) TRY(read_spec(&f, at + 1, end));
    if (f.type == 0)
        f.type = v.kind == VALUE_INT                         ? 'd'
                 : v.kind == VALUE_FLOAT && f.precision >= 0 ? 'g'
                                                             : 's';
    if (f.align == 0 && (f.type == 's' || f.type == 'r') && !is_number(&v)) f.align = '<';
    return put_field(r, &f, &v);
}

pm_status format_braces(struct render *r, const struct call *c, struct value *out)
{
    const struct value *text = &c->self;
    size_t start = r->n, at = 0, next = 0;
    while (at < text->text.n) {
        const char *byte = text->text.byte + at;
        size_t left = text->text.n - at, n = 0;
        const char *close;
        while (n < left && byte[n] != '{' && byte[n] != '}') {
            n++;
        }
        TRY(put_slice(r, text, at, at + n));
        at += n;
        if (at == text->text.n) break;
        byte = text->text.byte + at;
        left = text->text.n - at;
        if (left > 1 && byte[1] == byte[0]) { /* a brace itself */
            TRY(put_slice(r, text, at, at + 1));
            at += 2;
            continue;
        }
        close = *byte == '{' ? memchr(byte, '}', left) : NULL;
        if (!close) return fail(PM_ERR_ARG, "a format with a single brace");
        TRY(put_braces(r, c, byte + 1, close, &next));
        at += (size_t)(close - byte) + 1;
    }
    return text_made(r, start, out);
}
