/* template_operate.c - attributes, items, slices, arithmetic, and binding of arguments.
 *
 * a.b asks a's methods first and then its keys, a['b'] the other way round. What is not there
 * is undefined, which prints as nothing, is false and empty, and fails when it is asked for
 * more: Jinja's default. */
#include "template_eval.h"

#include <math.h>
#include <string.h>

/* Arguments */

bool given(const struct value *v)
{
    return v->kind != VALUE_ABSENT;
}

pm_status want_text(const struct value *v, const char *what, struct value *out)
{
    if (v->kind != VALUE_TEXT) {
        return fail(PM_ERR_ARG, "%s is a %s, wanted a text", what, kind_name(v));
    }
    *out = *v;
    return PM_OK;
}

pm_status want_int(const struct value *v, const char *what, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (v->kind == VALUE_ABSENT) return PM_OK;
    if (v->kind == VALUE_BOOL) {
        *out = v->truth;
        return PM_OK;
    }
    if (v->kind != VALUE_INT) {
        return fail(PM_ERR_ARG, "%s is a %s, wanted an integer", what, kind_name(v));
    }
    *out = v->integer;
    return PM_OK;
}

static int find_parameter(const struct function *f, const struct value *name)
{
    for (int i = 0; i < MAX_PARAMETERS && f->parameter[i]; i++) {
        if (text_is(name, f->parameter[i])) return i;
    }
    return -1;
}

pm_status call_function(struct render *r, const struct function *f, const struct value *self,
                        const struct arguments *all, struct value *out)
{
    struct call c = {.all = all};
    char shown[JSON_EXCERPT];
    size_t n = 0;
    if (self) c.self = *self;
    TRY(work(r, 0));
    if (f->parameter[0] && *f->parameter[0] == '*') return f->run(r, &c, out);
    while (n < MAX_PARAMETERS && f->parameter[n]) {
        n++;
    }
    if (all->n > n) {
        return fail(PM_ERR_ARG, "%s takes %zu arguments, found %zu", f->name, n, all->n);
    }
    for (size_t i = 0; i < all->n; i++) {
        c.arg[i] = all->item[i];
    }
    for (size_t i = 0; i < all->n_named; i++) {
        int at = find_parameter(f, &all->named[i].key);
        if (at < 0 || c.arg[at].kind != VALUE_ABSENT) {
            const struct value *key = &all->named[i].key;
            return fail(PM_ERR_ARG, "%s takes no argument %s%s", f->name,
                        json_excerpt(shown, key->text.byte, key->text.n),
                        at < 0 ? "" : " twice");
        }
        c.arg[at] = all->named[i].value;
    }
    for (int i = 0; i < f->needed; i++) {
        if (c.arg[i].kind == VALUE_ABSENT) {
            return fail(PM_ERR_ARG, "%s needs an argument %s", f->name, f->parameter[i]);
        }
    }
    return f->run(r, &c, out);
}

/* Attributes and items */

static pm_status fail_undefined(const struct value *v)
{
    char shown[JSON_EXCERPT];
    if (v->text.n == 0) return fail(PM_ERR_ARG, "a value is undefined");
    return fail(PM_ERR_ARG, "%s is undefined", json_excerpt(shown, v->text.byte, v->text.n));
}

static pm_status undefined(const struct value *name, struct value *out)
{
    *out = value_undefined();
    if (name->kind == VALUE_TEXT) out->text = name->text;
    return PM_OK;
}

static pm_status bind_method(struct render *r, const struct method *m, const struct value *self,
                             struct value *out)
{
    struct value *copy;
    TRY(arena_take(&r->arena, &copy, 1, sizeof *copy));
    *copy = *self;
    *out = (struct value){.kind = VALUE_METHOD};
    out->bound.method = m;
    out->bound.self = copy;
    return PM_OK;
}

static bool loop_attribute(const struct loop *l, const struct value *name, struct value *out)
{
    int64_t at = (int64_t)l->at, n = (int64_t)l->n;
    if (text_is(name, "index")) {
        *out = value_int(at + 1);
    } else if (text_is(name, "index0")) {
        *out = value_int(at);
    } else if (text_is(name, "revindex")) {
        *out = value_int(n - at);
    } else if (text_is(name, "revindex0")) {
        *out = value_int(n - at - 1);
    } else if (text_is(name, "first")) {
        *out = value_bool(at == 0);
    } else if (text_is(name, "last")) {
        *out = value_bool(at + 1 == n);
    } else if (text_is(name, "length")) {
        *out = value_int(n);
    } else if (text_is(name, "depth")) {
        *out = value_int(1);
    } else if (text_is(name, "depth0")) {
        *out = value_int(0);
    } else if (text_is(name, "previtem")) {
        *out = at > 0 ? l->item[at - 1] : value_undefined();
    } else if (text_is(name, "nextitem")) {
        *out = at + 1 < n ? l->item[at + 1] : value_undefined();
    } else {
        return false;
    }
    return true;
}

pm_status get_attribute(struct render *r, const struct value *v, const struct value *name,
                        struct value *out)
{
    const struct method *m;
    const struct value *found;
    if (v->kind == VALUE_UNDEFINED) return fail_undefined(v);
    if (v->kind == VALUE_LOOP && loop_attribute(v->loop, name, out)) return PM_OK;
    m = find_method(v, name);
    if (m) return bind_method(r, m, v, out);
    if (v->kind == VALUE_DICT || v->kind == VALUE_NAMESPACE) {
        TRY(dict_find(r, v->dict, name, &found));
        if (found) {
            *out = *found;
            return PM_OK;
        }
    }
    return undefined(name, out);
}

static pm_status get_character(struct render *r, const struct value *text, int64_t i,
                               struct value *out)
{
    size_t n, at;
    TRY(work(r, text->text.n));
    n = text_characters(text);
    if (i < 0) i += (int64_t)n;
    if (i < 0 || (size_t)i >= n) {
        *out = value_undefined();
        return PM_OK;
    }
    at = n == text->text.n ? (size_t)i : text_offset(text, (size_t)i);
    *out = text_slice(text, at, at + utf8_bytes(text->text.byte[at]));
    return PM_OK;
}

static bool index_of(const struct value *key, int64_t *out)
{
    if (key->kind != VALUE_INT && key->kind != VALUE_BOOL) return false;
    *out = key->kind == VALUE_INT ? key->integer : key->truth;
    return true;
}

pm_status get_item(struct render *r, const struct value *v, const struct value *key,
                   struct value *out)
{
    const struct value *found = NULL;
    int64_t i;
    if (v->kind == VALUE_UNDEFINED) return fail_undefined(v);
    if (v->kind == VALUE_DICT && key->kind != VALUE_LIST && key->kind != VALUE_DICT &&
        key->kind != VALUE_TUPLE) {
        TRY(dict_find(r, v->dict, key, &found));
        if (found) {
            *out = *found;
            return PM_OK;
        }
    }
    if (key->kind == VALUE_TEXT) return get_attribute(r, v, key, out);
    if (index_of(key, &i)) {
        if (v->kind == VALUE_TEXT) return get_character(r, v, i, out);
        if (is_sequence(v) && v->kind != VALUE_VIEW) {
            if (i < 0) i += (int64_t)v->list.n;
            if (i >= 0 && (size_t)i < v->list.n) {
                *out = v->list.item[i];
                return PM_OK;
            }
        }
    }
    return undefined(key, out);
}

/* Slices: the first element, the step and the number of elements, as Python clips them. */
static pm_status slice_bounds(const struct value part[3], size_t size, int64_t *first,
                              int64_t *step, size_t *count)
{
    int64_t n = (int64_t)size, bound[2];
    int64_t low, high;
    *step = 1;
    if (part[2].kind != VALUE_NONE && !index_of(&part[2], step)) {
        return fail(PM_ERR_ARG, "a slice with a step that is no integer");
    }
    if (*step == 0) return fail(PM_ERR_ARG, "a slice with a step of 0");
    if (*step == INT64_MIN) *step = -INT64_MAX;
    low = *step < 0 ? -1 : 0;
    high = *step < 0 ? n - 1 : n;
    for (int i = 0; i < 2; i++) {
        bound[i] = (i == 0) == (*step > 0) ? low : high;
        if (part[i].kind == VALUE_NONE) continue;
        if (!index_of(&part[i], &bound[i])) {
            return fail(PM_ERR_ARG, "a slice from or to a %s", kind_name(&part[i]));
        }
        if (bound[i] < 0) bound[i] += n;
        if (bound[i] < low) bound[i] = low;
        if (bound[i] > high) bound[i] = high;
    }
    *first = bound[0];
    if (*step > 0) {
        *count = bound[1] > bound[0] ? (size_t)((bound[1] - bound[0] - 1) / *step + 1) : 0;
    } else {
        *count = bound[1] < bound[0] ? (size_t)((bound[0] - bound[1] - 1) / -*step + 1) : 0;
    }
    return PM_OK;
}

static pm_status slice_text(struct render *r, const struct value *v, const struct value part[3],
                            struct value *out)
{
    int64_t first, step;
    const struct value *character;
    size_t count, n, start = r->n;
    TRY(work(r, v->text.n));
    TRY(slice_bounds(part, text_characters(v), &first, &step, &count));
    if (step == 1) {
        size_t from = text_offset(v, (size_t)first);
        struct value rest = text_slice(v, from, v->text.n);
        *out = text_slice(&rest, 0, text_offset(&rest, count));
        return PM_OK;
    }
    TRY(value_items(r, v, &character, &n));
    for (size_t i = 0; i < count; i++) {
        TRY(put_text(r, &character[first + (int64_t)i * step]));
    }
    return text_made(r, start, out);
}

pm_status get_slice(struct render *r, const struct value *v, const struct value part[3],
                    struct value *out)
{
    int64_t first, step;
    struct value *item;
    const struct value *from = v->list.item; /* out may be v */
    size_t count;
    if (v->kind == VALUE_UNDEFINED) return fail_undefined(v);
    if (v->kind == VALUE_TEXT) return slice_text(r, v, part, out);
    if (!is_sequence(v) || v->kind == VALUE_VIEW) {
        return fail(PM_ERR_ARG, "a slice of a %s", kind_name(v));
    }
    TRY(slice_bounds(part, v->list.n, &first, &step, &count));
    *out = value_list(v->kind, count > 0 ? from + first : NULL, count);
    if (step == 1 || count == 0) return PM_OK;
    TRY(work(r, count * sizeof *item));
    TRY(arena_take(&r->arena, &item, count, sizeof *item));
    for (size_t i = 0; i < count; i++) {
        item[i] = from[first + (int64_t)i * step];
    }
    out->list.item = item;
    return PM_OK;
}

/* Arithmetic */

static int64_t integer(const struct value *v)
{
    return v->kind == VALUE_INT ? v->integer : v->truth;
}

static double real(const struct value *v)
{
    return v->kind == VALUE_FLOAT ? v->real : (double)integer(v);
}

static pm_status fail_overflow(void)
{
    return fail(PM_ERR_ARG, "an integer that does not fit 64 bits");
}

static pm_status integer_power(int64_t base, int64_t exponent, struct value *out)
{
    int64_t result = 1;
    if (exponent < 0) {
        if (base == 0) return fail(PM_ERR_ARG, "a division by zero");
        *out = value_float(pow((double)base, (double)exponent));
        return PM_OK;
    }
    while (exponent > 0) {
        if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) {
            return fail_overflow();
        }
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return fail_overflow();
    }
    *out = value_int(result);
    return PM_OK;
}

static pm_status integer_operation(int op, int64_t a, int64_t b, struct value *out)
{
    int64_t result = 0;
    bool over = false;
    switch (op) {
    case OP_ADD: over = __builtin_add_overflow(a, b, &result); break;
    case OP_SUBTRACT: over = __builtin_sub_overflow(a, b, &result); break;
    case OP_MULTIPLY: over = __builtin_mul_overflow(a, b, &result); break;
    case OP_POWER: return integer_power(a, b, out);
    default:
        if (b == 0) return fail(PM_ERR_ARG, "a division by zero");
        if (op == OP_DIVIDE) {
            *out = value_float((double)a / (double)b);
            return PM_OK;
        }
        if (b == -1) { /* the one quotient that can overflow */
            over = op == OP_FLOOR && __builtin_sub_overflow((int64_t)0, a, &result);
            break;
        }
        result = op == OP_FLOOR ? a / b : a % b;
        if (a % b != 0 && (a < 0) != (b < 0)) result += op == OP_FLOOR ? -1 : b;
    }
    if (over) return fail_overflow();
    *out = value_int(result);
    return PM_OK;
}

static pm_status real_operation(int op, double a, double b, struct value *out)
{
    double result;
    switch (op) {
    case OP_ADD: result = a + b; break;
    case OP_SUBTRACT: result = a - b; break;
    case OP_MULTIPLY: result = a * b; break;
    case OP_POWER:
        if (a == 0 && b < 0) return fail(PM_ERR_ARG, "a division by zero");
        result = pow(a, b);
        if (!isfinite(result) && isfinite(a) && isfinite(b)) {
            return fail(PM_ERR_ARG, "a power that is no real number");
        }
        break;
    default:
        if (b == 0) return fail(PM_ERR_ARG, "a division by zero");
        if (op == OP_DIVIDE) {
            result = a / b;
            break;
        }
        result = fmod(a, b);
        if (result != 0 && (result < 0) != (b < 0)) result += b;
        if (result == 0) result = copysign(0, b);
        if (op == OP_FLOOR) result = floor((a - result) / b + 0.5);
    }
    *out = value_float(result);
    return PM_OK;
}

static pm_status join_lists(struct render *r, const struct value *a, const struct value *b,
                            struct value *out)
{
    struct value *item;
    size_t n = a->list.n + b->list.n;
    TRY(work(r, n * sizeof *item));
    TRY(arena_take(&r->arena, &item, n, sizeof *item));
    if (a->list.n > 0) memcpy(item, a->list.item, a->list.n * sizeof *item);
    if (b->list.n > 0) memcpy(item + a->list.n, b->list.item, b->list.n * sizeof *item);
    *out = value_list(a->kind, item, n);
    return PM_OK;
}

static pm_status join_texts(struct render *r, const struct value *a, const struct value *b,
                            struct value *out)
{
    size_t start = r->n;
    if (a->text.n == 0 || b->text.n == 0) {
        *out = a->text.n == 0 ? *b : *a;
        return PM_OK;
    }
    TRY(put_text(r, a));
    TRY(put_text(r, b));
    return text_made(r, start, out);
}

static pm_status repeat(struct render *r, const struct value *v, int64_t times,
                        struct value *out)
{
    size_t start = r->n;
    struct value_items items = {0};
    for (int64_t i = 0; i < times; i++) {
        if (v->kind == VALUE_TEXT) {
            if (v->text.n == 0) break;
            TRY(put_text(r, v));
            continue;
        }
        if (v->list.n == 0) break;
        for (size_t j = 0; j < v->list.n; j++) {
            TRY(items_add(r, &items, v->list.item[j]));
        }
    }
    if (v->kind == VALUE_TEXT) return text_made(r, start, out);
    *out = value_list(v->kind, items.item, items.n);
    return PM_OK;
}

static bool repeatable(const struct value *v)
{
    return v->kind == VALUE_TEXT || v->kind == VALUE_LIST || v->kind == VALUE_TUPLE;
}

pm_status binary_operation(struct render *r, int op, const struct value *a,
                           const struct value *b, struct value *out)
{
    static const char *const sign[] = {
        [OP_ADD] = "+",    [OP_SUBTRACT] = "-", [OP_MULTIPLY] = "*", [OP_DIVIDE] = "/",
        [OP_FLOOR] = "//", [OP_MODULO] = "%",   [OP_POWER] = "**"};
    struct value result = value_none();
    int64_t times;
    if (a->kind == VALUE_UNDEFINED) return fail_undefined(a);
    if (op == OP_MODULO && a->kind == VALUE_TEXT) return format_percent(r, a, b, out);
    if (b->kind == VALUE_UNDEFINED) return fail_undefined(b);
    if (is_number(a) && is_number(b)) {
        bool request = a->request || b->request;
        if (a->kind == VALUE_FLOAT || b->kind == VALUE_FLOAT) {
            TRY(real_operation(op, real(a), real(b), &result));
        } else {
            TRY(integer_operation(op, integer(a), integer(b), &result));
        }
        *out = result;
        out->request = request;
        return PM_OK;
    }
    if (op == OP_ADD && a->kind == b->kind) {
        if (a->kind == VALUE_TEXT) return join_texts(r, a, b, out);
        if (a->kind == VALUE_LIST || a->kind == VALUE_TUPLE) return join_lists(r, a, b, out);
    }
    if (op == OP_MULTIPLY && repeatable(a) && index_of(b, &times)) {
        return repeat(r, a, times, out);
    }
    if (op == OP_MULTIPLY && repeatable(b) && index_of(a, &times)) {
        return repeat(r, b, times, out);
    }
    return fail(PM_ERR_ARG, "a %s %s a %s", kind_name(a), sign[op], kind_name(b));
}
