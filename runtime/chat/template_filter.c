/* template_filter.c - Jinja's filters on single values; those on lists are in template_list.c.
 */
#include "template_filter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "template_text.h"

static pm_status filter_case(struct render *r, const struct call *c, enum text_case wanted,
                             struct value *out)
{
    struct value text;
    TRY(to_text(r, &c->self, &text));
    return text_case(r, &text, wanted, out);
}

static pm_status filter_lower(struct render *r, const struct call *c, struct value *out)
{
    return filter_case(r, c, CASE_LOWER, out);
}

static pm_status filter_upper(struct render *r, const struct call *c, struct value *out)
{
    return filter_case(r, c, CASE_UPPER, out);
}

static pm_status filter_title(struct render *r, const struct call *c, struct value *out)
{
    return filter_case(r, c, CASE_WORDS, out);
}

static pm_status filter_capitalize(struct render *r, const struct call *c, struct value *out)
{
    return filter_case(r, c, CASE_CAPITAL, out);
}

static pm_status filter_string(struct render *r, const struct call *c, struct value *out)
{
    return to_text(r, &c->self, out);
}

static pm_status filter_trim(struct render *r, const struct call *c, struct value *out)
{
    struct value text;
    TRY(to_text(r, &c->self, &text));
    return text_strip(r, &text, &c->arg[0], STRIP_BOTH, out);
}

static pm_status filter_replace(struct render *r, const struct call *c, struct value *out)
{
    struct value text, from, to;
    int64_t most = -1;
    TRY(to_text(r, &c->self, &text));
    TRY(to_text(r, &c->arg[0], &from));
    TRY(to_text(r, &c->arg[1], &to));
    if (c->arg[2].kind != VALUE_NONE) TRY(want_int(&c->arg[2], "count", -1, &most));
    return text_replace(r, &text, &from, &to, most, out);
}

static pm_status filter_default(struct render *r, const struct call *c, struct value *out)
{
    bool missing =
        c->self.kind == VALUE_UNDEFINED || (value_true(&c->arg[1]) && !value_true(&c->self));
    (void)r;
    *out = !missing ? c->self : given(&c->arg[0]) ? c->arg[0] : text_of("", 0);
    return PM_OK;
}

static pm_status filter_abs(struct render *r, const struct call *c, struct value *out)
{
    const struct value *v = &c->self;
    struct value zero = value_int(0);
    if (!is_number(v)) return fail(PM_ERR_ARG, "abs of a %s", kind_name(v));
    if (v->kind == VALUE_FLOAT) {
        *out = value_float(fabs(v->real));
        return PM_OK;
    }
    return binary_operation(r, v->kind == VALUE_INT && v->integer < 0 ? OP_SUBTRACT : OP_ADD,
                            &zero, v, out);
}

/* Numbers out of texts, as Python reads them: white space around, underscores inside. */
static bool read_number(const struct value *text, bool real, int base, struct value *out)
{
    char digits[64], *end;
    size_t n = 0, from = 0, to = text->text.n;
    while (from < to && text_is_space((unsigned char)text->text.byte[from])) {
        from++;
    }
    while (to > from && text_is_space((unsigned char)text->text.byte[to - 1])) {
        to--;
    }
    if (to == from || to - from >= sizeof digits) return false;
    for (; from < to; from++) {
        char b = text->text.byte[from];
        bool inside = n > 0 && from + 1 < to && digits[n - 1] >= '0' && digits[n - 1] <= '9';
        if (b == '_' && inside && text->text.byte[from + 1] != '_') continue;
        if (real && (b | 32) == 'x') return false; /* strtod reads these, Python does not */
        if (b == 0 || b == '_') return false;
        digits[n++] = b;
    }
    digits[n] = 0;
    if (text_is_space((unsigned char)*digits)) return false;
    if (real) {
        *out = value_float(strtod(digits, &end));
        return *end == 0 && !strchr(digits, '(');
    }
    *out = value_int(strtoll(digits, &end, base));
    return *end == 0 && out->integer != INT64_MAX && out->integer != INT64_MIN;
}

static bool to_real(const struct value *v, double *out)
{
    struct value read;
    if (v->kind == VALUE_TEXT) {
        if (!read_number(v, true, 10, &read)) return false;
        *out = read.real;
        return true;
    }
    if (!is_number(v)) return false;
    *out = v->kind == VALUE_FLOAT ? v->real
           : v->kind == VALUE_INT ? (double)v->integer
                                  : v->truth;
    return true;
}

static pm_status filter_int(struct render *r, const struct call *c, struct value *out)
{
    const struct value *v = &c->self;
    int64_t base;
    double real;
    (void)r;
    if (v->kind == VALUE_UNDEFINED) return fail(PM_ERR_ARG, "int of an undefined value");
    TRY(want_int(&c->arg[1], "base", 10, &base));
    *out = given(&c->arg[0]) ? c->arg[0] : value_int(0);
    if (base != 0 && (base < 2 || base > 36))
        return fail(PM_ERR_ARG, "int with base %lld", (long long)base);
    if (v->kind == VALUE_INT || v->kind == VALUE_BOOL) {
        *out = value_int(v->kind == VALUE_INT ? v->integer : v->truth);
        out->request = v->request;
    } else if (v->kind == VALUE_TEXT && read_number(v, false, (int)base, out)) {
        out->request = true;
    } else if (to_real(v, &real) && isfinite(real)) {
        if (fabs(real) >= 9e18) return fail(PM_ERR_ARG, "an integer that does not fit 64 bits");
        *out = value_int((int64_t)real);
        out->request = true;
    } else {
        *out = given(&c->arg[0]) ? c->arg[0] : value_int(0);
    }
    return PM_OK;
}

static pm_status filter_float(struct render *r, const struct call *c, struct value *out)
{
    double real;
    (void)r;
    if (c->self.kind == VALUE_UNDEFINED) {
        return fail(PM_ERR_ARG, "float of an undefined value");
    }
    if (to_real(&c->self, &real)) {
        *out = value_float(real);
        out->request = true;
    } else {
        *out = given(&c->arg[0]) ? c->arg[0] : value_float(0);
    }
    return PM_OK;
}

static pm_status filter_round(struct render *r, const struct call *c, struct value *out)
{
    char digits[400];
    int64_t precision;
    double real, scale;
    (void)r;
    TRY(want_int(&c->arg[0], "precision", 0, &precision));
    if (!is_number(&c->self)) return fail(PM_ERR_ARG, "round of a %s", kind_name(&c->self));
    if (precision < 0 || precision > 20) {
        return fail(PM_ERR_UNSUPPORTED, "round with precision %lld", (long long)precision);
    }
    to_real(&c->self, &real);
    if (given(&c->arg[1]) && !text_is(&c->arg[1], "common")) {
        scale = pow(10, (double)precision);
        if (text_is(&c->arg[1], "ceil")) {
            *out = value_float(ceil(real * scale) / scale);
        } else if (text_is(&c->arg[1], "floor")) {
            *out = value_float(floor(real * scale) / scale);
        } else {
            return fail(PM_ERR_ARG, "round: method must be common, ceil or floor");
        }
    } else if (c->self.kind != VALUE_FLOAT) {
        *out = value_int(c->self.kind == VALUE_INT ? c->self.integer : c->self.truth);
    } else {
        /* Printing rounds the exact value, halves to even: Python's rule. */
        snprintf(digits, sizeof digits, "%.*f", (int)precision, real);
        *out = value_float(isfinite(real) ? strtod(digits, NULL) : real);
    }
    out->request = c->self.request;
    return PM_OK;
}

static pm_status filter_indent(struct render *r, const struct call *c, struct value *out)
{
    struct value text, lines, width = c->arg[0];
    int64_t columns;
    size_t start = r->n;
    bool blank = value_true(&c->arg[2]);
    if (width.kind != VALUE_TEXT) {
        TRY(want_int(&width, "width", 4, &columns));
        width = text_of(" ", 1);
        TRY(binary_operation(r, OP_MULTIPLY, &width,
                             &(struct value){.kind = VALUE_INT, .integer = columns}, &width));
    }
    TRY(want_text(&c->self, "indent", &text));
    TRY(text_split_lines(r, &text, false, &lines));
    for (size_t i = 0; i < lines.list.n; i++) {
        const struct value *line = &lines.list.item[i];
        if (i > 0) TRY(put_bytes(r, "\n", 1, false));
        if (i == 0 ? value_true(&c->arg[1]) : blank || line->text.n > 0) {
            TRY(put_text(r, &width));
        }
        TRY(put_text(r, line));
    }
    if (text.text.n == 0 && value_true(&c->arg[1])) TRY(put_text(r, &width));
    /* Jinja appends a line feed before it splits, so that one at the end stays. */
    if (text.text.n > 0 && text.text.byte[text.text.n - 1] == '\n') {
        TRY(put_bytes(r, "\n", 1,
                      text.text.mark ? text.text.mark[text.text.n - 1] : text.request));
        if (blank) TRY(put_text(r, &width));
    }
    return text_made(r, start, out);
}

static pm_status filter_escape(struct render *r, const struct call *c, struct value *out)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct value text;
    size_t start = r->n, done = 0;
    TRY(to_text(r, &c->self, &text));
    for (size_t i = 0; i < text.text.n; i++) {
        const char *known = text.text.byte[i] ? strchr(from, text.text.byte[i]) : NULL;
        if (!known) continue;
        TRY(put_slice(r, &text, done, i));
        TRY(put_bytes(r, to[known - from], strlen(to[known - from]), text_origin(&text, i)));
        done = i + 1;
    }
    TRY(put_slice(r, &text, done, text.text.n));
    return text_made(r, start, out);
}

static pm_status filter_format(struct render *r, const struct call *c, struct value *out)
{
    struct value text, values;
    TRY(to_text(r, &c->self, &text));
    values = value_list(VALUE_TUPLE, c->all->item, c->all->n);
    if (c->all->n_named > 0) {
        TRY(dict_new(r, VALUE_DICT, &values));
        for (size_t i = 0; i < c->all->n_named; i++) {
            TRY(dict_set(r, values.dict, c->all->named[i].key, c->all->named[i].value));
        }
    }
    return format_percent(r, &text, &values, out);
}

/* tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False) */
static pm_status filter_tojson(struct render *r, const struct call *c, struct value *out)
{
    struct json_style style = {.ascii = value_true(&c->arg[0]), .sort = value_true(&c->arg[3])};
    struct value indent = c->arg[1];
    size_t start = r->n;
    style.key = text_of(": ", 2);
    style.item = text_of(", ", 2);
    if (indent.kind == VALUE_INT || indent.kind == VALUE_BOOL) {
        struct value blank = text_of(" ", 1);
        TRY(binary_operation(r, OP_MULTIPLY, &blank, &indent, &indent));
    }
    if (indent.kind == VALUE_TEXT) {
        style.indent = &indent;
        style.item = text_of(",", 1);
    }
    if (given(&c->arg[2]) && c->arg[2].kind != VALUE_NONE) {
        const struct value *pair;
        size_t n;
        TRY(value_items(r, &c->arg[2], &pair, &n));
        if (n != 2) return fail(PM_ERR_ARG, "tojson: separators are two texts");
        TRY(want_text(&pair[0], "a separator", &style.item));
        TRY(want_text(&pair[1], "a separator", &style.key));
    }
    TRY(put_json(r, &c->self, &style, 0));
    return text_made(r, start, out);
}

static pm_status filter_safe(struct render *r, const struct call *c, struct value *out)
{
    return to_text(r, &c->self, out); /* nothing is escaped here in the first place */
}

static const struct function filters[] = {
    {"abs", filter_abs, {NULL}, 0},
    {"capitalize", filter_capitalize, {NULL}, 0},
    {"d", filter_default, {"default_value", "boolean"}, 0},
    {"default", filter_default, {"default_value", "boolean"}, 0},
    {"e", filter_escape, {NULL}, 0},
    {"escape", filter_escape, {NULL}, 0},
    {"float", filter_float, {"default"}, 0},
    {"forceescape", filter_escape, {NULL}, 0},
    {"format", filter_format, {"*"}, 0},
    {"indent", filter_indent, {"width", "first", "blank"}, 0},
    {"int", filter_int, {"default", "base"}, 0},
    {"lower", filter_lower, {NULL}, 0},
    {"replace", filter_replace, {"old", "new", "count"}, 2},
    {"round", filter_round, {"precision", "method"}, 0},
    {"safe", filter_safe, {NULL}, 0},
    {"string", filter_string, {NULL}, 0},
    {"title", filter_title, {NULL}, 0},
    {"tojson", filter_tojson, {"ensure_ascii", "indent", "separators", "sort_keys"}, 0},
    {"trim", filter_trim, {"chars"}, 0},
    {"upper", filter_upper, {NULL}, 0},
};

static const struct function *find_filter(const struct value *name)
{
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        if (text_is(name, filters[i].name)) return &filters[i];
    }
    return find_list_filter(name);
}

bool has_filter(const struct value *name)
{
    return find_filter(name) != NULL;
}

pm_status apply_filter(struct render *r, const struct value *name, const struct value *self,
                       const struct arguments *all, struct value *out)
{
    const struct function *f = find_filter(name);
    char shown[JSON_EXCERPT];
    if (!f) {
        return fail(PM_ERR_UNSUPPORTED, "filter %s is not known",
                    name->kind == VALUE_TEXT
                        ? json_excerpt(shown, name->text.byte, name->text.n)
                        : kind_name(name));
    }
    return call_function(r, f, self, all, out);
}
