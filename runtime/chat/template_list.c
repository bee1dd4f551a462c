/* template_list.c - Jinja's filters on lists.
 *
 * Filters that Jinja writes as generators give iterators: they can be walked once, and have
 * neither length nor items. Sorting is a stable merge, as Python's. */
#include "template_filter.h"

#include <string.h>

#include "template_method.h"
#include "template_text.h"

static pm_status filter_length(struct render *r, const struct call *c, struct value *out)
{
    const struct value *v = &c->self;
    if (v->kind == VALUE_TEXT) {
        TRY(work(r, v->text.n));
        *out = value_int((int64_t)text_characters(v));
    } else if (is_sequence(v)) {
        *out = value_int((int64_t)v->list.n);
    } else if (v->kind == VALUE_DICT) {
        *out = value_int((int64_t)v->dict->n);
    } else if (v->kind == VALUE_LOOP) {
        *out = value_int((int64_t)v->loop->n);
    } else if (v->kind == VALUE_UNDEFINED) {
        *out = value_int(0);
    } else {
        return fail(PM_ERR_ARG, "a %s has no length", kind_name(v));
    }
    return PM_OK;
}

static pm_status filter_first(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item;
    size_t n;
    if (c->self.kind == VALUE_ITERATOR) { /* takes one only */
        struct value_iterator *i = c->self.iterator;
        *out = i->at < i->n ? i->item[i->at++] : value_undefined();
        return PM_OK;
    }
    TRY(value_items(r, &c->self, &item, &n));
    *out = n > 0 ? item[0] : value_undefined();
    return PM_OK;
}

static pm_status filter_last(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item;
    size_t n;
    if (c->self.kind == VALUE_ITERATOR) {
        return fail(PM_ERR_ARG, "the last of a %s", kind_name(&c->self));
    }
    TRY(value_items(r, &c->self, &item, &n));
    *out = n > 0 ? item[n - 1] : value_undefined();
    return PM_OK;
}

static pm_status filter_list(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item;
    size_t n;
    TRY(value_items(r, &c->self, &item, &n));
    *out = value_list(VALUE_LIST, item, n);
    return PM_OK;
}

static pm_status filter_reverse(struct render *r, const struct call *c, struct value *out)
{
    struct value part[3] = {value_none(), value_none(), value_int(-1)}, list;
    const struct value *item;
    size_t n;
    if (c->self.kind == VALUE_TEXT) return get_slice(r, &c->self, part, out);
    TRY(value_items(r, &c->self, &item, &n));
    list = value_list(VALUE_LIST, item, n);
    TRY(get_slice(r, &list, part, &list));
    return value_iterator(r, list.list.item, list.list.n, out);
}

/* Attributes of items: "a.b.0" is a chain of names and indices; integers are indices. */

static pm_status attribute_of(struct render *r, const struct value *v, const struct value *path,
                              const struct value *otherwise, struct value *out)
{
    struct value parts, dot = text_of(".", 1);
    *out = *v;
    if (path->kind != VALUE_TEXT) {
        TRY(get_item(r, v, path, out));
        if (out->kind == VALUE_UNDEFINED && given(otherwise)) *out = *otherwise;
        return PM_OK;
    }
    TRY(text_split(r, path, &dot, -1, false, &parts));
    for (size_t i = 0; i < parts.list.n; i++) {
        struct value key = parts.list.item[i];
        int64_t index = 0;
        bool digits = key.text.n > 0 && key.text.n < 10;
        for (size_t j = 0; digits && j < key.text.n; j++) {
            digits = key.text.byte[j] >= '0' && key.text.byte[j] <= '9';
            index = index * 10 + (key.text.byte[j] - '0');
        }
        if (digits) key = value_int(index);
        TRY(get_item(r, out, &key, out));
        if (out->kind == VALUE_UNDEFINED && given(otherwise)) *out = *otherwise;
    }
    return PM_OK;
}

static pm_status without_case(struct render *r, const struct value *v, bool sensitive,
                              struct value *out)
{
    *out = *v;
    return v->kind == VALUE_TEXT && !sensitive ? text_case(r, v, CASE_LOWER, out) : PM_OK;
}

/* The key by which an item is ordered: itself, an attribute, or, after commas, several. */
static pm_status key_of(struct render *r, const struct value *v, const struct value *attribute,
                        bool sensitive, struct value *out)
{
    struct value_items keys = {0};
    struct value parts, comma = text_of(",", 1);
    if (!given(attribute) || attribute->kind == VALUE_NONE) {
        return without_case(r, v, sensitive, out);
    }
    if (attribute->kind != VALUE_TEXT) {
        parts = value_list(VALUE_LIST, attribute, 1);
    } else {
        TRY(text_split(r, attribute, &comma, -1, false, &parts));
    }
    for (size_t i = 0; i < parts.list.n; i++) {
        TRY(attribute_of(r, v, &parts.list.item[i], &(struct value){0}, out));
        TRY(without_case(r, out, sensitive, out));
        TRY(items_add(r, &keys, *out));
    }
    if (keys.n > 1) *out = value_list(VALUE_LIST, keys.item, keys.n);
    return PM_OK;
}

static pm_status merge(struct render *r, const struct value_entry *from, struct value_entry *to,
                       size_t low, size_t middle, size_t high, int sign)
{
    size_t i = low, j = middle;
    for (size_t k = low; k < high; k++) {
        int order = j == high ? -1 : 1;
        if (i < middle && j < high) {
            TRY(value_compare(r, &from[i].key, &from[j].key, &order));
            order *= sign;
        }
        to[k] = order <= 0 ? from[i++] : from[j++];
    }
    return PM_OK;
}

/* Stable, backwards too: equal items keep their order. */
static pm_status sort_entries(struct render *r, struct value_entry *entry, size_t n,
                              bool backwards)
{
    struct value_entry *from = entry, *to;
    TRY(arena_take(&r->arena, &to, n, sizeof *to));
    for (size_t width = 1; width < n; width *= 2) {
        struct value_entry *swap = from;
        for (size_t low = 0; low < n; low += 2 * width) {
            size_t middle = low + width < n ? low + width : n;
            size_t high = low + 2 * width < n ? low + 2 * width : n;
            TRY(merge(r, from, to, low, middle, high, backwards ? -1 : 1));
        }
        from = to;
        to = swap;
    }
    if (from != entry) memcpy(entry, from, n * sizeof *entry);
    return PM_OK;
}

static pm_status keyed_entries(struct render *r, const struct value *v,
                               const struct value *attribute, bool sensitive,
                               struct value_entry **out, size_t *n)
{
    const struct value *item;
    TRY(value_items(r, v, &item, n));
    TRY(arena_take(&r->arena, out, *n, sizeof **out));
    for (size_t i = 0; i < *n; i++) {
        TRY(key_of(r, &item[i], attribute, sensitive, &(*out)[i].key));
        (*out)[i].value = item[i];
    }
    return PM_OK;
}

static pm_status values_of(struct render *r, const struct value_entry *entry, size_t n,
                           struct value *out)
{
    struct value *item;
    TRY(arena_take(&r->arena, &item, n, sizeof *item));
    for (size_t i = 0; i < n; i++) {
        item[i] = entry[i].value;
    }
    *out = value_list(VALUE_LIST, item, n);
    return PM_OK;
}

static pm_status filter_sort(struct render *r, const struct call *c, struct value *out)
{
    struct value_entry *entry;
    size_t n;
    TRY(keyed_entries(r, &c->self, &c->arg[2], value_true(&c->arg[1]), &entry, &n));
    TRY(sort_entries(r, entry, n, value_true(&c->arg[0])));
    return values_of(r, entry, n, out);
}

static pm_status filter_dictsort(struct render *r, const struct call *c, struct value *out)
{
    bool by_value = given(&c->arg[1]) && text_is(&c->arg[1], "value");
    struct value_entry *entry;
    size_t n;
    if (c->self.kind != VALUE_DICT) {
        return fail(PM_ERR_ARG, "dictsort of a %s", kind_name(&c->self));
    }
    n = c->self.dict->n;
    TRY(arena_take(&r->arena, &entry, n, sizeof *entry));
    for (size_t i = 0; i < n; i++) {
        const struct value_entry *e = &c->self.dict->entry[i];
        struct value *pair;
        TRY(arena_take(&r->arena, &pair, 2, sizeof *pair));
        pair[0] = e->key;
        pair[1] = e->value;
        entry[i].value = value_list(VALUE_TUPLE, pair, 2);
        TRY(without_case(r, by_value ? &e->value : &e->key, value_true(&c->arg[0]),
                         &entry[i].key));
    }
    TRY(sort_entries(r, entry, n, value_true(&c->arg[2])));
    return values_of(r, entry, n, out);
}

static pm_status extreme(struct render *r, const struct call *c, int sign, struct value *out)
{
    struct value_entry *entry;
    size_t n, best = 0;
    TRY(keyed_entries(r, &c->self, &c->arg[1], value_true(&c->arg[0]), &entry, &n));
    *out = value_undefined();
    if (n == 0) return PM_OK;
    for (size_t i = 1; i < n; i++) {
        int order;
        TRY(value_compare(r, &entry[i].key, &entry[best].key, &order));
        if (order * sign > 0) best = i;
    }
    *out = entry[best].value;
    return PM_OK;
}

static pm_status filter_max(struct render *r, const struct call *c, struct value *out)
{
    return extreme(r, c, 1, out);
}

static pm_status filter_min(struct render *r, const struct call *c, struct value *out)
{
    return extreme(r, c, -1, out);
}

static pm_status filter_unique(struct render *r, const struct call *c, struct value *out)
{
    struct value_entry *entry;
    struct value seen;
    struct value_items kept = {0};
    size_t n;
    TRY(keyed_entries(r, &c->self, &c->arg[1], value_true(&c->arg[0]), &entry, &n));
    TRY(dict_new(r, VALUE_DICT, &seen));
    for (size_t i = 0; i < n; i++) {
        const struct value *known;
        TRY(dict_find(r, seen.dict, &entry[i].key, &known));
        if (known) continue;
        TRY(dict_set(r, seen.dict, entry[i].key, value_none()));
        TRY(items_add(r, &kept, entry[i].value));
    }
    return value_iterator(r, kept.item, kept.n, out);
}

static pm_status filter_sum(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item;
    size_t n;
    struct value sum = given(&c->arg[1]) ? c->arg[1] : value_int(0);
    TRY(value_items(r, &c->self, &item, &n));
    for (size_t i = 0; i < n; i++) {
        struct value v = item[i];
        if (given(&c->arg[0]) && c->arg[0].kind != VALUE_NONE) {
            TRY(attribute_of(r, &item[i], &c->arg[0], &(struct value){0}, &v));
        }
        TRY(binary_operation(r, OP_ADD, &sum, &v, &sum));
    }
    *out = sum;
    return PM_OK;
}

static pm_status filter_join(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item;
    size_t n, start;
    struct value between = text_of("", 0);
    struct value_items texts = {0};
    if (given(&c->arg[0])) TRY(to_text(r, &c->arg[0], &between));
    TRY(value_items(r, &c->self, &item, &n));
    for (size_t i = 0; i < n; i++) {
        struct value v = item[i];
        if (given(&c->arg[1]) && c->arg[1].kind != VALUE_NONE) {
            TRY(attribute_of(r, &item[i], &c->arg[1], &(struct value){0}, &v));
        }
        TRY(items_add(r, &texts, v));
    }
    start = r->n;
    for (size_t i = 0; i < n; i++) {
        if (i > 0) TRY(put_text(r, &between));
        TRY(put_str(r, &texts.item[i]));
    }
    return text_made(r, start, out);
}

static pm_status filter_items(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item = NULL;
    if (c->self.kind == VALUE_UNDEFINED) return value_iterator(r, item, 0, out);
    if (c->self.kind != VALUE_DICT) {
        return fail(PM_ERR_ARG, "items of a %s, wanted a dictionary", kind_name(&c->self));
    }
    TRY(dict_pairs(r, c->self.dict, &item));
    return value_iterator(r, item, c->self.dict->n, out);
}

/* map(attribute=..., default=...) or map('filter', ...) */
static pm_status filter_map(struct render *r, const struct call *c, struct value *out)
{
    struct value attribute = {0}, otherwise = {0};
    struct arguments rest = *c->all;
    struct value_items results = {0};
    const struct value *item;
    size_t n;
    if (!value_true(&c->self)) return value_iterator(r, NULL, 0, out); /* none as well */
    if (c->all->n == 0) {
        for (size_t i = 0; i < c->all->n_named; i++) {
            const struct value_entry *e = &c->all->named[i];
            bool is_default = text_is(&e->key, "default");
            if (!is_default && !text_is(&e->key, "attribute")) {
                return fail(PM_ERR_ARG, "map takes attribute and default");
            }
            *(is_default ? &otherwise : &attribute) = e->value;
        }
        if (!given(&attribute)) return fail(PM_ERR_ARG, "map needs a filter");
    } else {
        rest.item++;
        rest.n--;
    }
    TRY(value_items(r, &c->self, &item, &n));
    for (size_t i = 0; i < n; i++) {
        struct value v;
        if (given(&attribute)) {
            TRY(attribute_of(r, &item[i], &attribute, &otherwise, &v));
        } else {
            TRY(apply_filter(r, &c->all->item[0], &item[i], &rest, &v));
        }
        TRY(items_add(r, &results, v));
    }
    return value_iterator(r, results.item, results.n, out);
}

/* select, reject ('test', ...); selectattr, rejectattr ('attribute', 'test', ...) */
static pm_status choose(struct render *r, const struct call *c, bool keep, bool by_attribute,
                        struct value *out)
{
    struct arguments rest = *c->all;
    const struct value *attribute = NULL, *test = NULL, *item;
    struct value_items kept = {0};
    size_t n;
    if (!value_true(&c->self)) return value_iterator(r, NULL, 0, out); /* none as well */
    if (by_attribute) {
        if (rest.n == 0) return fail(PM_ERR_ARG, "selectattr needs an attribute");
        attribute = rest.item++;
        rest.n--;
    }
    if (rest.n > 0) {
        test = rest.item++;
        rest.n--;
    }
    TRY(value_items(r, &c->self, &item, &n));
    for (size_t i = 0; i < n; i++) {
        struct value v = item[i];
        bool truth;
        if (attribute) TRY(attribute_of(r, &item[i], attribute, &(struct value){0}, &v));
        truth = value_true(&v);
        if (test) TRY(apply_test(r, test, &v, &rest, &truth));
        if (truth == keep) TRY(items_add(r, &kept, item[i]));
    }
    return value_iterator(r, kept.item, kept.n, out);
}

static pm_status filter_select(struct render *r, const struct call *c, struct value *out)
{
    return choose(r, c, true, false, out);
}

static pm_status filter_reject(struct render *r, const struct call *c, struct value *out)
{
    return choose(r, c, false, false, out);
}

static pm_status filter_selectattr(struct render *r, const struct call *c, struct value *out)
{
    return choose(r, c, true, true, out);
}

static pm_status filter_rejectattr(struct render *r, const struct call *c, struct value *out)
{
    return choose(r, c, false, true, out);
}

static const struct function filters[] = {
    {"count", filter_length, {NULL}, 0},
    {"dictsort", filter_dictsort, {"case_sensitive", "by", "reverse"}, 0},
    {"first", filter_first, {NULL}, 0},
    {"items", filter_items, {NULL}, 0},
    {"join", filter_join, {"d", "attribute"}, 0},
    {"last", filter_last, {NULL}, 0},
    {"length", filter_length, {NULL}, 0},
    {"list", filter_list, {NULL}, 0},
    {"map", filter_map, {"*"}, 0},
    {"max", filter_max, {"case_sensitive", "attribute"}, 0},
    {"min", filter_min, {"case_sensitive", "attribute"}, 0},
    {"reject", filter_reject, {"*"}, 0},
    {"rejectattr", filter_rejectattr, {"*"}, 0},
    {"reverse", filter_reverse, {NULL}, 0},
    {"select", filter_select, {"*"}, 0},
    {"selectattr", filter_selectattr, {"*"}, 0},
    {"sort", filter_sort, {"reverse", "case_sensitive", "attribute"}, 0},
    {"sum", filter_sum, {"attribute", "start"}, 0},
    {"unique", filter_unique, {"case_sensitive", "attribute"}, 0},
};

const struct function *find_list_filter(const struct value *name)
{
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        if (text_is(name, filters[i].name)) return &filters[i];
    }
    return NULL;
}
