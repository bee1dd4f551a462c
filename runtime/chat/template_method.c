/* template_method.c - methods of texts, lists, dictionaries and loops, and global functions.
 *
 * Methods that change their object do not exist: in the sandbox that transformers uses calling
 * them is an error, and so it is here. */
#define _POSIX_C_SOURCE 200809L
#include "template_method.h"

#include <string.h>
#include <time.h>

#include "template_text.h"

enum { MAX_RANGE = 100000 };

static pm_status give_bool(struct value *out, bool truth)
{
    *out = value_bool(truth);
    return PM_OK;
}

static pm_status need_text(const struct call *c, int i, struct value *out)
{
    return want_text(&c->arg[i], "an argument of a text's method", out);
}

/* Texts */

static pm_status strip_sides(struct render *r, const struct call *c, int sides,
                             struct value *out)
{
    struct value text;
    if (given(&c->arg[0]) && c->arg[0].kind != VALUE_NONE) TRY(need_text(c, 0, &text));
    return text_strip(r, &c->self, &c->arg[0], sides, out);
}

static pm_status method_strip(struct render *r, const struct call *c, struct value *out)
{
    return strip_sides(r, c, STRIP_BOTH, out);
}

static pm_status method_lstrip(struct render *r, const struct call *c, struct value *out)
{
    return strip_sides(r, c, STRIP_LEFT, out);
}

static pm_status method_rstrip(struct render *r, const struct call *c, struct value *out)
{
    return strip_sides(r, c, STRIP_RIGHT, out);
}

static pm_status split(struct render *r, const struct call *c, bool right, struct value *out)
{
    struct value text;
    int64_t most;
    if (given(&c->arg[0]) && c->arg[0].kind != VALUE_NONE) TRY(need_text(c, 0, &text));
    TRY(want_int(&c->arg[1], "maxsplit", -1, &most));
    return text_split(r, &c->self, &c->arg[0], most, right, out);
}

static pm_status method_split(struct render *r, const struct call *c, struct value *out)
{
    return split(r, c, false, out);
}

static pm_status method_rsplit(struct render *r, const struct call *c, struct value *out)
{
    return split(r, c, true, out);
}

static pm_status method_splitlines(struct render *r, const struct call *c, struct value *out)
{
    return text_split_lines(r, &c->self, value_true(&c->arg[0]), out);
}

static pm_status method_replace(struct render *r, const struct call *c, struct value *out)
{
    struct value from, to;
    int64_t most;
    TRY(need_text(c, 0, &from));
    TRY(need_text(c, 1, &to));
    TRY(want_int(&c->arg[2], "count", -1, &most));
    return text_replace(r, &c->self, &from, &to, most, out);
}

/* A text or a tuple of them, at one end of self. */
static pm_status has_end(const struct call *c,
                         bool (*is)(const struct value *, const struct value *),
                         struct value *out)
{
    const struct value *part = &c->arg[0];
    size_t n = 1;
    if (part->kind == VALUE_TUPLE) {
        n = part->list.n;
        part = part->list.item;
    }
    *out = value_bool(false);
    for (size_t i = 0; i < n; i++) {
        struct value text;
        TRY(want_text(&part[i], "startswith or endswith", &text));
        if (is(&c->self, &text)) out->truth = true;
    }
    return PM_OK;
}

static pm_status method_startswith(struct render *r, const struct call *c, struct value *out)
{
    (void)r;
    return has_end(c, text_starts, out);
}

static pm_status method_endswith(struct render *r, const struct call *c, struct value *out)
{
    (void)r;
    return has_end(c, text_ends, out);
}

static pm_status method_removeprefix(struct render *r, const struct call *c, struct value *out)
{
    struct value part;
    (void)r;
    TRY(need_text(c, 0, &part));
    *out = c->self;
    if (text_starts(&c->self, &part)) *out = text_slice(out, part.text.n, out->text.n);
    return PM_OK;
}

static pm_status method_removesuffix(struct render *r, const struct call *c, struct value *out)
{
    struct value part;
    (void)r;
    TRY(need_text(c, 0, &part));
    *out = c->self;
    if (text_ends(&c->self, &part)) *out = text_slice(out, 0, out->text.n - part.text.n);
    return PM_OK;
}

static pm_status find(struct render *r, const struct call *c, bool last, struct value *out)
{
    struct value part, head;
    size_t at = 0;
    bool found;
    TRY(need_text(c, 0, &part));
    TRY(work(r, c->self.text.n));
    if (last) {
        TRY(text_find_last(r, &c->self, &part, c->self.text.n, &at, &found));
    } else {
        TRY(text_find(r, &c->self, &part, 0, &at, &found));
    }
    head = text_slice(&c->self, 0, at);
    *out = value_int(found ? (int64_t)text_characters(&head) : -1);
    return PM_OK;
}

static pm_status method_find(struct render *r, const struct call *c, struct value *out)
{
    return find(r, c, false, out);
}

static pm_status method_rfind(struct render *r, const struct call *c, struct value *out)
{
    return find(r, c, true, out);
}

static pm_status must_be_found(struct value *out)
{
    return out->integer < 0 ? fail(PM_ERR_ARG, "index: the text is not found") : PM_OK;
}

static pm_status method_index(struct render *r, const struct call *c, struct value *out)
{
    TRY(find(r, c, false, out));
    return must_be_found(out);
}

static pm_status method_rindex(struct render *r, const struct call *c, struct value *out)
{
    TRY(find(r, c, true, out));
    return must_be_found(out);
}

static pm_status method_count(struct render *r, const struct call *c, struct value *out)
{
    struct value part;
    size_t from = 0, at;
    int64_t n = 0;
    bool found = true;
    TRY(need_text(c, 0, &part));
    if (part.text.n == 0) n = (int64_t)text_characters(&c->self) + 1;
    while (part.text.n > 0 && found) {
        TRY(text_find(r, &c->self, &part, from, &at, &found));
        n += found;
        if (found) from = at + part.text.n;
    }
    *out = value_int(n);
    return PM_OK;
}

static pm_status cut(struct render *r, const struct call *c, bool last, struct value *out)
{
    struct value part, *item, empty = text_of("", 0);
    size_t at = 0;
    bool found;
    TRY(need_text(c, 0, &part));
    if (part.text.n == 0) return fail(PM_ERR_ARG, "partition by an empty text");
    TRY(arena_take(&r->arena, &item, 3, sizeof *item));
    if (last) {
        TRY(text_find_last(r, &c->self, &part, c->self.text.n, &at, &found));
    } else {
        TRY(text_find(r, &c->self, &part, 0, &at, &found));
    }
    item[0] = item[1] = item[2] = empty;
    if (found) {
        item[0] = text_slice(&c->self, 0, at);
        item[1] = text_slice(&c->self, at, at + part.text.n);
        item[2] = text_slice(&c->self, at + part.text.n, c->self.text.n);
    } else {
        item[last ? 2 : 0] = c->self;
    }
    *out = value_list(VALUE_TUPLE, item, 3);
    return PM_OK;
}

static pm_status method_partition(struct render *r, const struct call *c, struct value *out)
{
    return cut(r, c, false, out);
}

static pm_status method_rpartition(struct render *r, const struct call *c, struct value *out)
{
    return cut(r, c, true, out);
}

static pm_status method_join(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item;
    size_t n, start;
    TRY(value_items(r, &c->arg[0], &item, &n));
    start = r->n;
    for (size_t i = 0; i < n; i++) {
        struct value text;
        TRY(want_text(&item[i], "an item of join", &text));
        if (i > 0) TRY(put_text(r, &c->self));
        TRY(put_text(r, &text));
    }
    return text_made(r, start, out);
}

#define CASE_METHOD(name, wanted)                                                              \
    static pm_status name(struct render *r, const struct call *c, struct value *out)           \
    {                                                                                          \
        return text_case(r, &c->self, wanted, out);                                            \
    }
CASE_METHOD(method_lower, CASE_LOWER)
CASE_METHOD(method_upper, CASE_UPPER)
CASE_METHOD(method_capitalize, CASE_CAPITAL)
CASE_METHOD(method_title, CASE_TITLE)
CASE_METHOD(method_swapcase, CASE_SWAP)

static bool all_are(const struct value *text, bool (*is)(uint32_t c))
{
    const char *at = text->text.byte, *end = at + text->text.n;
    if (at == end) return false;
    while (at < end) {
        if (!is(utf8_next(&at))) return false;
    }
    return true;
}

static pm_status method_isspace(struct render *r, const struct call *c, struct value *out)
{
    TRY(work(r, c->self.text.n));
    return give_bool(out, all_are(&c->self, text_is_space));
}

static pm_status method_isdigit(struct render *r, const struct call *c, struct value *out)
{
    TRY(work(r, c->self.text.n));
    return give_bool(out, all_are(&c->self, text_is_digit));
}

static pm_status method_isalpha(struct render *r, const struct call *c, struct value *out)
{
    TRY(work(r, c->self.text.n));
    return give_bool(out, all_are(&c->self, text_is_letter));
}

static bool is_letter_or_number(uint32_t c)
{
    return text_is_letter(c) || unicode_is_numeric(c);
}

static pm_status method_isalnum(struct render *r, const struct call *c, struct value *out)
{
    TRY(work(r, c->self.text.n));
    return give_bool(out, all_are(&c->self, is_letter_or_number));
}

static pm_status method_islower(struct render *r, const struct call *c, struct value *out)
{
    TRY(work(r, c->self.text.n));
    return give_bool(out, text_has_case(&c->self, false));
}

static pm_status method_isupper(struct render *r, const struct call *c, struct value *out)
{
    TRY(work(r, c->self.text.n));
    return give_bool(out, text_has_case(&c->self, true));
}

/* Fills a text up with one character: `left` of it in front, the rest behind. */
static pm_status justify(struct render *r, const struct call *c, int side, struct value *out)
{
    struct value fill = text_of(" ", 1);
    int64_t width, n = (int64_t)text_characters(&c->self), left;
    size_t start = r->n;
    TRY(want_int(&c->arg[0], "width", 0, &width));
    if (given(&c->arg[1])) TRY(need_text(c, 1, &fill));
    if (text_characters(&fill) != 1) return fail(PM_ERR_ARG, "the fill is one character");
    n = width > n ? width - n : 0;
    left = side < 0 ? 0 : side > 0 ? n : n / 2 + (n & width & 1);
    for (int64_t i = 0; i < left; i++) {
        TRY(put_text(r, &fill));
    }
    TRY(put_text(r, &c->self));
    for (int64_t i = left; i < n; i++) {
        TRY(put_text(r, &fill));
    }
    return text_made(r, start, out);
}

static pm_status method_ljust(struct render *r, const struct call *c, struct value *out)
{
    return justify(r, c, -1, out);
}

static pm_status method_rjust(struct render *r, const struct call *c, struct value *out)
{
    return justify(r, c, 1, out);
}

static pm_status method_center(struct render *r, const struct call *c, struct value *out)
{
    return justify(r, c, 0, out);
}

static pm_status method_zfill(struct render *r, const struct call *c, struct value *out)
{
    struct call filled = *c;
    struct value sign = c->self, digits;
    size_t start = r->n;
    bool has_sign = sign.text.n > 0 && (*sign.text.byte == '-' || *sign.text.byte == '+');
    int64_t width;
    TRY(want_int(&c->arg[0], "width", 0, &width));
    filled.self = text_slice(&c->self, has_sign, c->self.text.n);
    filled.arg[0] = value_int(width - (has_sign && width > INT64_MIN));
    filled.arg[1] = text_of("0", 1);
    TRY(justify(r, &filled, 1, &digits));
    TRY(put_slice(r, &c->self, 0, has_sign));
    TRY(put_text(r, &digits));
    return text_made(r, start, out);
}

/* Lists and dictionaries */

static pm_status list_index(struct render *r, const struct call *c, struct value *out)
{
    for (size_t i = 0; i < c->self.list.n; i++) {
        bool equal;
        TRY(value_equal(r, &c->self.list.item[i], &c->arg[0], &equal));
        if (equal) {
            *out = value_int((int64_t)i);
            return PM_OK;
        }
    }
    return fail(PM_ERR_ARG, "index: the item is not in the list");
}

static pm_status list_count(struct render *r, const struct call *c, struct value *out)
{
    int64_t n = 0;
    for (size_t i = 0; i < c->self.list.n; i++) {
        bool equal;
        TRY(value_equal(r, &c->self.list.item[i], &c->arg[0], &equal));
        n += equal;
    }
    *out = value_int(n);
    return PM_OK;
}

static pm_status method_copy(struct render *r, const struct call *c, struct value *out)
{
    (void)r;
    *out = c->self; /* nothing can change it */
    return PM_OK;
}

static pm_status dict_get(struct render *r, const struct call *c, struct value *out)
{
    const struct value *found;
    TRY(dict_find(r, c->self.dict, &c->arg[0], &found));
    *out = found ? *found : given(&c->arg[1]) ? c->arg[1] : value_none();
    return PM_OK;
}

pm_status dict_pairs(struct render *r, const struct value_dict *d, const struct value **item)
{
    struct value *pairs;
    TRY(work(r, d->n * sizeof *pairs));
    TRY(arena_take(&r->arena, &pairs, d->n, sizeof *pairs));
    for (size_t i = 0; i < d->n; i++) {
        struct value *pair;
        TRY(arena_take(&r->arena, &pair, 2, sizeof *pair));
        pair[0] = d->entry[i].key;
        pair[1] = d->entry[i].value;
        pairs[i] = value_list(VALUE_TUPLE, pair, 2);
    }
    *item = pairs;
    return PM_OK;
}

static pm_status dict_items(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item;
    TRY(dict_pairs(r, c->self.dict, &item));
    *out = value_list(VALUE_VIEW, item, c->self.dict->n);
    out->list.view = "dict_items";
    return PM_OK;
}

static pm_status dict_keys(struct render *r, const struct call *c, struct value *out)
{
    const struct value *item;
    size_t n;
    TRY(value_items(r, &c->self, &item, &n));
    *out = value_list(VALUE_VIEW, item, n);
    out->list.view = "dict_keys";
    return PM_OK;
}

static pm_status dict_values(struct render *r, const struct call *c, struct value *out)
{
    const struct value_dict *d = c->self.dict;
    struct value *item;
    TRY(work(r, d->n * sizeof *item));
    TRY(arena_take(&r->arena, &item, d->n, sizeof *item));
    for (size_t i = 0; i < d->n; i++) {
        item[i] = d->entry[i].value;
    }
    *out = value_list(VALUE_VIEW, item, d->n);
    out->list.view = "dict_values";
    return PM_OK;
}

static pm_status refuse_change(struct render *r, const struct call *c, struct value *out)
{
    (void)r, (void)out;
    return fail(PM_ERR_ARG, "a %s cannot be changed by a template", kind_name(&c->self));
}

static pm_status loop_cycle(struct render *r, const struct call *c, struct value *out)
{
    (void)r;
    if (c->all->n == 0) return fail(PM_ERR_ARG, "loop.cycle needs arguments");
    *out = c->all->item[c->self.loop->at % c->all->n];
    return PM_OK;
}

static pm_status loop_changed(struct render *r, const struct call *c, struct value *out)
{
    struct loop *l = c->self.loop;
    struct value now = value_list(VALUE_TUPLE, c->all->item, c->all->n);
    bool equal = false;
    if (l->changed.kind != VALUE_ABSENT) TRY(value_equal(r, &l->changed, &now, &equal));
    l->changed = now;
    return give_bool(out, !equal);
}

static const struct method methods[] = {
    {VALUE_TEXT, {"capitalize", method_capitalize, {NULL}, 0}},
    {VALUE_TEXT, {"center", method_center, {"width", "fillchar"}, 1}},
    {VALUE_TEXT, {"count", method_count, {"sub"}, 1}},
    {VALUE_TEXT, {"endswith", method_endswith, {"suffix"}, 1}},
    {VALUE_TEXT, {"find", method_find, {"sub"}, 1}},
    {VALUE_TEXT, {"format", format_braces, {"*"}, 0}},
    {VALUE_TEXT, {"index", method_index, {"sub"}, 1}},
    {VALUE_TEXT, {"isalnum", method_isalnum, {NULL}, 0}},
    {VALUE_TEXT, {"isalpha", method_isalpha, {NULL}, 0}},
    {VALUE_TEXT, {"isdigit", method_isdigit, {NULL}, 0}},
    {VALUE_TEXT, {"islower", method_islower, {NULL}, 0}},
    {VALUE_TEXT, {"isspace", method_isspace, {NULL}, 0}},
    {VALUE_TEXT, {"isupper", method_isupper, {NULL}, 0}},
    {VALUE_TEXT, {"join", method_join, {"iterable"}, 1}},
    {VALUE_TEXT, {"ljust", method_ljust, {"width", "fillchar"}, 1}},
    {VALUE_TEXT, {"lower", method_lower, {NULL}, 0}},
    {VALUE_TEXT, {"lstrip", method_lstrip, {"chars"}, 0}},
    {VALUE_TEXT, {"partition", method_partition, {"sep"}, 1}},
    {VALUE_TEXT, {"removeprefix", method_removeprefix, {"prefix"}, 1}},
    {VALUE_TEXT, {"removesuffix", method_removesuffix, {"suffix"}, 1}},
    {VALUE_TEXT, {"replace", method_replace, {"old", "new", "count"}, 2}},
    {VALUE_TEXT, {"rfind", method_rfind, {"sub"}, 1}},
    {VALUE_TEXT, {"rindex", method_rindex, {"sub"}, 1}},
    {VALUE_TEXT, {"rjust", method_rjust, {"width", "fillchar"}, 1}},
    {VALUE_TEXT, {"rpartition", method_rpartition, {"sep"}, 1}},
    {VALUE_TEXT, {"rsplit", method_rsplit, {"sep", "maxsplit"}, 0}},
    {VALUE_TEXT, {"rstrip", method_rstrip, {"chars"}, 0}},
    {VALUE_TEXT, {"split", method_split, {"sep", "maxsplit"}, 0}},
    {VALUE_TEXT, {"splitlines", method_splitlines, {"keepends"}, 0}},
    {VALUE_TEXT, {"startswith", method_startswith, {"prefix"}, 1}},
    {VALUE_TEXT, {"strip", method_strip, {"chars"}, 0}},
    {VALUE_TEXT, {"swapcase", method_swapcase, {NULL}, 0}},
    {VALUE_TEXT, {"title", method_title, {NULL}, 0}},
    {VALUE_TEXT, {"upper", method_upper, {NULL}, 0}},
    {VALUE_TEXT, {"zfill", method_zfill, {"width"}, 1}},
    {VALUE_LIST, {"append", refuse_change, {"*"}, 0}},
    {VALUE_LIST, {"copy", method_copy, {NULL}, 0}},
    {VALUE_LIST, {"count", list_count, {"value"}, 1}},
    {VALUE_LIST, {"extend", refuse_change, {"*"}, 0}},
    {VALUE_LIST, {"index", list_index, {"value"}, 1}},
    {VALUE_LIST, {"insert", refuse_change, {"*"}, 0}},
    {VALUE_LIST, {"pop", refuse_change, {"*"}, 0}},
    {VALUE_LIST, {"remove", refuse_change, {"*"}, 0}},
    {VALUE_LIST, {"reverse", refuse_change, {"*"}, 0}},
    {VALUE_LIST, {"sort", refuse_change, {"*"}, 0}},
    {VALUE_DICT, {"clear", refuse_change, {"*"}, 0}},
    {VALUE_DICT, {"copy", method_copy, {NULL}, 0}},
    {VALUE_DICT, {"get", dict_get, {"key", "default"}, 1}},
    {VALUE_DICT, {"items", dict_items, {NULL}, 0}},
    {VALUE_DICT, {"keys", dict_keys, {NULL}, 0}},
    {VALUE_DICT, {"pop", refuse_change, {"*"}, 0}},
    {VALUE_DICT, {"setdefault", refuse_change, {"*"}, 0}},
    {VALUE_DICT, {"update", refuse_change, {"*"}, 0}},
    {VALUE_DICT, {"values", dict_values, {NULL}, 0}},
    {VALUE_LOOP, {"changed", loop_changed, {"*"}, 0}},
    {VALUE_LOOP, {"cycle", loop_cycle, {"*"}, 0}},
};

const struct method *find_method(const struct value *self, const struct value *name)
{
    enum value_kind kind = self->kind == VALUE_TUPLE ? VALUE_LIST : self->kind;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (methods[i].kind != kind || !text_is(name, methods[i].function.name)) continue;
        if (self->kind == VALUE_TUPLE && methods[i].function.run != list_index &&
            methods[i].function.run != list_count) {
            continue;
        }
        return &methods[i];
    }
    return NULL;
}

/* Functions */

static pm_status function_range(struct render *r, const struct call *c, struct value *out)
{
    int64_t first, last, step, n = 0;
    bool one = !given(&c->arg[1]);
    struct value *item;
    TRY(want_int(&c->arg[0], "range", 0, one ? &last : &first));
    if (one) first = 0;
    if (!one) TRY(want_int(&c->arg[1], "range", 0, &last));
    TRY(want_int(&c->arg[2], "range", 1, &step));
    if (step == 0) return fail(PM_ERR_ARG, "range with a step of 0");
    if (step > 0 && last > first)
        n = (int64_t)(((uint64_t)last - (uint64_t)first - 1) / (uint64_t)step);
    if (step < 0 && last < first)
        n = (int64_t)(((uint64_t)first - (uint64_t)last - 1) / (0 - (uint64_t)step));
    if (n >= MAX_RANGE) {
        return fail(PM_ERR_TOO_LONG, "a range of more than %d numbers", (int)MAX_RANGE);
    }
    n += step > 0 ? last > first : last < first;
    TRY(work(r, (size_t)n * sizeof *item));
    TRY(arena_take(&r->arena, &item, (size_t)n, sizeof *item));
    for (int64_t i = 0; i < n; i++) {
        item[i] = value_int(first + i * step);
    }
    *out = value_list(VALUE_RANGE, item, (size_t)n);
    return PM_OK;
}

static pm_status fill_dict(struct render *r, const struct call *c, enum value_kind kind,
                           struct value *out)
{
    TRY(dict_new(r, kind, out));
    for (size_t i = 0; i < c->all->n; i++) {
        const struct value *v = &c->all->item[i];
        const struct value *item;
        size_t n;
        if (v->kind == VALUE_DICT) {
            for (size_t j = 0; j < v->dict->n; j++) {
                TRY(dict_set(r, out->dict, v->dict->entry[j].key, v->dict->entry[j].value));
            }
            continue;
        }
        TRY(value_items(r, v, &item, &n));
        for (size_t j = 0; j < n; j++) {
            const struct value *pair;
            size_t two;
            TRY(value_items(r, &item[j], &pair, &two));
            if (two != 2) return fail(PM_ERR_ARG, "dict of something that is no list of pairs");
            TRY(dict_set(r, out->dict, pair[0], pair[1]));
        }
    }
    for (size_t i = 0; i < c->all->n_named; i++) {
        TRY(dict_set(r, out->dict, c->all->named[i].key, c->all->named[i].value));
    }
    return PM_OK;
}

static pm_status function_dict(struct render *r, const struct call *c, struct value *out)
{
    return fill_dict(r, c, VALUE_DICT, out);
}

static pm_status function_namespace(struct render *r, const struct call *c, struct value *out)
{
    TRY(fill_dict(r, c, VALUE_NAMESPACE, out));
    for (size_t i = 0; i < out->dict->n; i++) {
        const struct value *key = &out->dict->entry[i].key;
        if (key->kind == VALUE_TEXT) TRY(check_member(key));
    }
    return PM_OK;
}

static pm_status function_raise(struct render *r, const struct call *c, struct value *out)
{
    struct value text;
    (void)out;
    TRY(to_text(r, &c->arg[0], &text));
    return fail(PM_ERR_ARG, "%.*s", text.text.n < 1000 ? (int)text.text.n : 1000,
                text.text.byte);
}

static pm_status function_strftime(struct render *r, const struct call *c, struct value *out)
{
    char format[256], made[512];
    struct value text;
    time_t now = time(NULL);
    struct tm local;
    size_t n, start = r->n;
    TRY(want_text(&c->arg[0], "strftime_now", &text));
    if (text.text.n >= sizeof format)
        return fail(PM_ERR_TOO_LONG, "strftime_now of a long text");
    memcpy(format, text.text.byte, text.text.n);
    format[text.text.n] = 0;
    if (!localtime_r(&now, &local)) return fail(PM_ERR_BUG, "no local time");
    n = strftime(made, sizeof made, format, &local);
    if (!utf8_valid(made, n)) return fail(PM_ERR_ARG, "strftime_now gives no UTF-8");
    TRY(put_bytes(r, made, n, text.request));
    return text_made(r, start, out);
}

static const struct function functions[] = {
    {"dict", function_dict, {"*"}, 0},
    {"namespace", function_namespace, {"*"}, 0},
    {"raise_exception", function_raise, {"message"}, 1},
    {"range", function_range, {"start", "stop", "step"}, 1},
    {"strftime_now", function_strftime, {"format"}, 1},
};

const struct function *global_function(const struct template_name *name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        const char *known = functions[i].name;
        if (strlen(known) == name->n && memcmp(known, name->text, name->n) == 0) {
            return &functions[i];
        }
    }
    return NULL;
}
