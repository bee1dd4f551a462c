/* grammar_values.c - enum and const, and when schemas exclude each other. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar_regex.h"
#include "grammar_schema.h"
#include "runtime/text/unicode.h"

enum { MAX_VALUE_STATES = 1 << 16, MAX_BRANCHES = 256, MAX_PAIRS = 1 << 20 };

/* Writing values in their only spelling */

void put_spelled(struct json_out *o, const char *text, size_t n)
{
    char spelled[REGEX_SPELLING];
    const char *at = text;
    while (at < text + n) {
        size_t bytes = regex_spell(spelled, utf8_next(&at));
        json_put(o, "%.*s", (int)bytes, spelled);
    }
}

static void put_number(struct json_out *o, const json *v)
{
    const char *spelling = json_number_text(v);
    double value = json_number(v);
    char text[40];
    if (spelling) {
        json_put(o, "%s", spelling);
        return;
    }
    if (value == floor(value) && fabs(value) < 1e15) {
        json_put(o, "%.0f", value);
        return;
    }
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, value);
        if (strtod(text, NULL) == value) break;
    }
    json_put(o, "%s", text);
}

static void put_value(struct json_out *o, const json *v)
{
    if (json_is_string(v)) {
        json_put(o, "\"");
        put_spelled(o, json_text(v), json_text_bytes(v));
        json_put(o, "\"");
    } else if (json_is_number(v)) {
        put_number(o, v);
    } else if (json_is_object(v) || json_is_array(v)) {
        json_put(o, json_is_object(v) ? "{" : "[");
        for (const json *m = json_child(v); m; m = json_next(m)) {
            if (json_is_object(v)) {
                json_put(o, "\"");
                put_spelled(o, json_key(m), json_key_bytes(m));
                json_put(o, "\":");
            }
            put_value(o, m);
            if (json_next(m)) json_put(o, ",");
        }
        json_put(o, json_is_object(v) ? "}" : "]");
    } else {
        json_put(o, json_is_null(v) ? "null" : json_true(v) ? "true" : "false");
    }
}

/* Comparing */

static const json *find_member(const json *object, const json *like)
{
    const json *m = json_child(object);
    while (m &&
           !same_text(json_key(m), json_key_bytes(m), json_key(like), json_key_bytes(like))) {
        m = json_next(m);
    }
    return m;
}

static int type_of(const json *v)
{
    if (json_is_null(v)) return TYPE_NULL;
    if (json_is_bool(v)) return TYPE_BOOLEAN;
    if (json_is_string(v)) return TYPE_STRING;
    if (json_is_array(v)) return TYPE_ARRAY;
    if (json_is_object(v)) return TYPE_OBJECT;
    return json_number(v) == floor(json_number(v)) ? TYPE_INTEGER : TYPE_NUMBER;
}

static bool is_equal(const json *a, const json *b)
{
    const json *x, *y;
    if (type_of(a) != type_of(b)) return false;
    switch (type_of(a)) {
    case TYPE_NULL: return true;
    case TYPE_BOOLEAN: return json_true(a) == json_true(b);
    case TYPE_STRING:
        return same_text(json_text(a), json_text_bytes(a), json_text(b), json_text_bytes(b));
    case TYPE_ARRAY:
        for (x = json_child(a), y = json_child(b); x && y; x = json_next(x), y = json_next(y)) {
            if (!is_equal(x, y)) return false;
        }
        return !x && !y;
    case TYPE_OBJECT:
        if (json_size(a) != json_size(b)) return false;
        for (x = json_child(a); x; x = json_next(x)) {
            y = find_member(b, x);
            if (!y || !is_equal(x, y)) return false;
        }
        return true;
    }
    return json_number(a) == json_number(b);
}

/* pairs: how many comparisons are left; none: nothing is found. */
static bool is_listed(const json *list, const json *v, int *pairs)
{
    const json *one = json_child(list);
    while (one && --*pairs >= 0 && !is_equal(one, v)) {
        one = json_next(one);
    }
    return one != NULL && *pairs >= 0;
}

/* Values of enum and const */

/* Beside listed values only keywords that choose among them by type and value are enforced. */
static pm_status check_alone(const struct schema *c, const struct view *view, int types)
{
    const char *key;
    for (int i = 0, of; (key = schema_keyword(i, &of)) != NULL; i++) {
        const json *found = of > 0 && (types & of) ? view_get(view, key) : NULL;
        if (found) return schema_fail(c, found, "not supported beside enum or const");
    }
    return PM_OK;
}

/* Whether all lists but `known`, from which v comes, have v too. */
static bool is_accepted(const struct view *view, const json *v, const json *known, int *pairs)
{
    for (int i = 0; i < view->n; i++) {
        const json *list = json_get(view->part[i], "enum");
        const json *one = json_get(view->part[i], "const");
        if (list && list != known && !is_listed(list, v, pairs)) return false;
        if (one && one != known && !is_equal(one, v)) return false;
    }
    return true;
}

/* The list that names all values: *single is the value of a const. */
static pm_status find_values(const struct schema *c, const struct view *view, const json **list,
                             const json **single)
{
    *single = view_get(view, "const");
    *list = view_get(view, "enum");
    for (int i = 0; i < view->n; i++) {
        const json *values = json_get(view->part[i], "enum");
        if (values && !json_is_array(values)) {
            return schema_fail(c, values, "wanted a list of values");
        }
    }
    return PM_OK;
}

static pm_status add_value(struct automaton *a, uint32_t start, const json *v)
{
    struct json_out text = {0};
    put_value(&text, v);
    if (text.status == PM_OK) {
        automaton_accept(a, automaton_text(a, start, text.text, text.n));
    }
    free(text.text);
    return text.status == PM_OK ? a->status : text.status;
}

pm_status build_values(struct schema *c, const struct view *view, int types, uint32_t start)
{
    const struct copy_rules rules = {0, UNLIMITED, -1, NO_NODE};
    const json *list, *single, *one;
    struct automaton values;
    uint32_t first, copy;
    int used = 0, pairs = MAX_PAIRS;
    pm_status status;
    TRY(find_values(c, view, &list, &single));
    automaton_init(&values, MAX_VALUE_STATES);
    first = automaton_node(&values);
    for (one = single ? single : json_child(list); one; one = single ? NULL : json_next(one)) {
        int type = type_of(one);
        if (!(types & type) || !is_accepted(view, one, single ? single : list, &pairs))
            continue;
        used |= type;
        TRY_DONE(add_value(&values, first, one));
    }
    if (pairs < 0) {
        status = fail(PM_ERR_ARG, "too complex: several long lists of values");
        goto done;
    }
    TRY_DONE(check_alone(c, view, used));
    TRY_DONE(automaton_determinise(&values, first, &rules, &c->a, &copy));
    automaton_jump(&c->a, start, copy);
    status = c->a.status;
done:
    automaton_clear(&values);
    return schema_prefix(c, single ? single : list, status);
}

/* Exclusion */

/* Whether the listed values of both views are known and have none in common. */
static bool lists_exclude(const struct view *a, const struct view *b, int *pairs)
{
    const struct view *both[2] = {a, b};
    const json *list[2], *single[2];
    for (int k = 0; k < 2; k++) {
        single[k] = view_get(both[k], "const");
        list[k] = view_get(both[k], "enum");
        if (!single[k] && !json_is_array(list[k])) return false;
    }
    for (const json *x = single[0] ? single[0] : json_child(list[0]); x;
         x = single[0] ? NULL : json_next(x)) {
        for (const json *y = single[1] ? single[1] : json_child(list[1]); y;
             y = single[1] ? NULL : json_next(y)) {
            if (--*pairs < 0 || is_equal(x, y)) return false;
        }
    }
    return true;
}

static bool is_required(const struct view *view, const char *name, size_t n)
{
    for (int i = 0; i < view->n; i++) {
        const json *one = json_child(json_get(view->part[i], "required"));
        for (; one; one = json_next(one)) {
            if (json_is_string(one) && same_text(json_text(one), json_text_bytes(one), name, n))
                return true;
        }
    }
    return false;
}

/* Whether a property that both require cannot have the same value in both. */
static pm_status objects_exclude(struct schema *c, const struct view *a, const struct view *b,
                                 int *pairs, bool *out)
{
    *out = false;
    for (int i = 0; i < a->n; i++) {
        const json *one = json_child(json_get(a->part[i], "required"));
        for (; one && !*out; one = json_next(one)) {
            const char *name = json_text(one);
            size_t n = json_text_bytes(one);
            struct view x, y;
            int types_x, types_y;
            if (!name || !is_required(b, name, n)) continue;
            TRY(view_property(c, a, name, n, &x));
            TRY(view_property(c, b, name, n, &y));
            TRY(view_types(c, &x, true, &types_x));
            TRY(view_types(c, &y, true, &types_y));
            *out = (types_x & types_y) == 0 || lists_exclude(&x, &y, pairs);
        }
    }
    return PM_OK;
}

/* The types that are left where the values are listed. */
static int listed_types(const struct view *view, int types)
{
    const json *single = view_get(view, "const"), *list = view_get(view, "enum");
    int listed = 0;
    if (!single && !json_is_array(list)) return types;
    for (const json *one = single ? single : json_child(list); one;
         one = single ? NULL : json_next(one)) {
        listed |= type_of(one);
    }
    return types & listed;
}

static pm_status views_exclude(struct schema *c, const struct view *a, const struct view *b,
                               int *pairs, bool *out)
{
    int made_a, made_b, all_a, all_b;
    TRY(view_types(c, a, false, &made_a));
    TRY(view_types(c, b, false, &made_b));
    TRY(view_types(c, a, true, &all_a));
    TRY(view_types(c, b, true, &all_b));
    /* Types of which one makes values that the other one may accept. */
    all_a = listed_types(a, all_a);
    all_b = listed_types(b, all_b);
    made_a = (listed_types(a, made_a) & all_b) | (listed_types(b, made_b) & all_a);
    *out = made_a == 0 || lists_exclude(a, b, pairs);
    if (!*out && made_a == TYPE_OBJECT) return objects_exclude(c, a, b, pairs, out);
    return PM_OK;
}

pm_status check_exclusive(struct schema *c, const json *list)
{
    struct view *view;
    int n = 0, pairs = MAX_PAIRS;
    pm_status status = PM_OK;
    if (json_size(list) > MAX_BRANCHES) {
        return schema_fail(c, list, "too complex: more than %d branches", MAX_BRANCHES);
    }
    TRY(alloc_array(&view, (size_t)json_size(list), sizeof *view, "grammar"));
    for (const json *one = json_child(list); one; one = json_next(one)) {
        TRY_DONE(view_add(c, &view[n++], one, -1));
    }
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) {
            bool exclude = view[i].never || view[k].never;
            if (!exclude) TRY_DONE(views_exclude(c, &view[k], &view[i], &pairs, &exclude));
            if (exclude) continue;
            status = schema_fail(c, list,
                                 "not supported where one value may fulfil two "
                                 "schemas, here %d and %d; wanted anyOf, or a property "
                                 "that both require with different values",
                                 k, i);
            goto done;
        }
    }
done:
    free(view);
    return status;
}
