/* template_value.c - memory, texts, lists and dictionaries of a rendering, and their order.
 *
 * All memory of a rendering comes from one arena with a bound, so nothing is counted or freed
 * on the way and an error needs no clean-up. Every function that does work in proportion to its
 * input says so to work(), which bounds the time of a hostile template.
 *
 * A text is a view of bytes and, if it is of two origins, of one mark a byte. Slices are views
 * of both. What is made anew is built at the end of the output buffer, which serves as a stack:
 * printing a value and making a text of it are the same code. */
#include "template_value.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 16 << 10, MAX_BLOCK_BYTES = 1 << 20, STEP_BYTES = 64 };

struct arena_block {
    struct arena_block *next;
    size_t bytes;
    max_align_t start[];
};

pm_status arena_take(struct arena *a, void *out, size_t n, size_t size)
{
    struct arena_block *block;
    size_t bytes, all;
    void *taken;
    if (!mul_size(&bytes, n, size) || bytes > a->max - a->used) {
        return fail(PM_ERR_TOO_LONG, "needs more than %zu bytes of memory", a->max);
    }
    bytes = (bytes + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
    if (bytes > a->end - a->at) {
        all = a->block ? 2 * a->block->bytes : BLOCK_BYTES;
        if (all > MAX_BLOCK_BYTES) all = MAX_BLOCK_BYTES;
        if (all < bytes) all = bytes;
        block = malloc(sizeof *block + all);
        if (!block) return fail(PM_ERR_NOMEM, "%zu bytes for a template", all);
        block->next = a->block;
        block->bytes = all;
        a->block = block;
        a->at = 0;
        a->end = all;
    }
    taken = (char *)a->block->start + a->at;
    memset(taken, 0, bytes);
    memcpy(out, &taken, sizeof taken);
    a->at += bytes;
    a->used = a->max - a->used < bytes ? a->max : a->used + bytes;
    return PM_OK;
}

void arena_clear(struct arena *a)
{
    while (a->block) {
        struct arena_block *next = a->block->next;
        free(a->block);
        a->block = next;
    }
}

pm_status work(struct render *r, size_t n)
{
    size_t steps = 1 + n / STEP_BYTES;
    if (steps > r->steps) {
        r->steps = 0;
        return fail(PM_ERR_TOO_LONG, "the template takes too many steps");
    }
    r->steps -= steps;
    return PM_OK;
}

pm_status nest(struct render *r)
{
    if (r->depth >= MAX_NESTING) {
        return fail(PM_ERR_TOO_LONG, "values or calls nested over %d deep", MAX_NESTING);
    }
    r->depth++;
    return PM_OK;
}

/* Texts */

static pm_status reserve(struct render *r, size_t n)
{
    TRY(work(r, n));
    if (n > r->max_output || r->n > r->max_output - n) {
        return fail(PM_ERR_TOO_LONG, "the text grows over %zu bytes", r->max_output);
    }
    TRY(grow_array(&r->byte, &r->capacity, r->n + n, 1));
    return grow_array(&r->mark, &r->capacity_mark, r->n + n, 1);
}

pm_status put_bytes(struct render *r, const char *byte, size_t n, bool request)
{
    if (n == 0) return PM_OK;
    TRY(reserve(r, n));
    memcpy(r->byte + r->n, byte, n);
    memset(r->mark + r->n, request, n);
    r->n += n;
    return PM_OK;
}

pm_status put_slice(struct render *r, const struct value *text, size_t from, size_t to)
{
    const unsigned char *mark = text->text.mark;
    assert(text->kind == VALUE_TEXT && from <= to && to <= text->text.n);
    if (from == to) return PM_OK;
    TRY(put_bytes(r, text->text.byte + from, to - from, text->request));
    if (mark) memcpy(r->mark + r->n - (to - from), mark + from, to - from);
    return PM_OK;
}

pm_status put_text(struct render *r, const struct value *text)
{
    return put_slice(r, text, 0, text->text.n);
}

pm_status text_made(struct render *r, size_t start, struct value *out)
{
    size_t n = r->n - start;
    struct value v = text_of("", 0);
    assert(start <= r->n);
    if (n > 0) {
        const unsigned char *mark = r->mark + start;
        char *copy;
        TRY(arena_take(&r->arena, &copy, n, 1));
        memcpy(copy, r->byte + start, n);
        v = text_of(copy, n);
        v.request = mark[0];
        if (memchr(mark, !mark[0], n)) {
            unsigned char *marks;
            TRY(arena_take(&r->arena, &marks, n, 1));
            memcpy(marks, mark, n);
            v.text.mark = marks;
        }
    }
    r->n = start;
    *out = v;
    return PM_OK;
}

struct value text_of(const char *byte, size_t n)
{
    struct value v = {.kind = VALUE_TEXT};
    v.text.byte = byte;
    v.text.n = n;
    return v;
}

struct value text_slice(const struct value *text, size_t from, size_t to)
{
    struct value v = *text;
    assert(from <= to && to <= text->text.n);
    v.text.byte += from;
    if (v.text.mark) v.text.mark += from;
    v.text.n = to - from;
    return v;
}

bool text_is(const struct value *v, const char *text)
{
    size_t n = strlen(text);
    return v->kind == VALUE_TEXT && v->text.n == n && memcmp(v->text.byte, text, n) == 0;
}

bool text_origin(const struct value *text, size_t at)
{
    return text->text.mark ? text->text.mark[at] : text->request;
}

size_t text_characters(const struct value *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->text.n; i++) {
        n += (text->text.byte[i] & 0xc0) != 0x80;
    }
    return n;
}

size_t text_offset(const struct value *text, size_t i)
{
    size_t at = 0;
    while (i > 0 && at < text->text.n) {
        at += utf8_bytes(text->text.byte[at]);
        i--;
    }
    return at;
}

pm_status to_text(struct render *r, const struct value *v, struct value *out)
{
    size_t start = r->n;
    if (v->kind == VALUE_TEXT) {
        *out = *v;
        return PM_OK;
    }
    TRY(put_str(r, v));
    return text_made(r, start, out);
}

/* Other values */

static const struct value
    nothing; /* where the items of empty lists are, so that none is NULL */

struct value value_undefined(void)
{
    return (struct value){.kind = VALUE_UNDEFINED};
}

struct value value_none(void)
{
    return (struct value){.kind = VALUE_NONE};
}

struct value value_bool(bool truth)
{
    return (struct value){.kind = VALUE_BOOL, .truth = truth};
}

struct value value_int(int64_t integer)
{
    return (struct value){.kind = VALUE_INT, .integer = integer};
}

struct value value_float(double real)
{
    return (struct value){.kind = VALUE_FLOAT, .real = real};
}

struct value value_list(enum value_kind kind, const struct value *item, size_t n)
{
    struct value v = {.kind = kind};
    v.list.item = item ? item : &nothing;
    v.list.n = n;
    return v;
}

pm_status value_iterator(struct render *r, const struct value *item, size_t n,
                         struct value *out)
{
    struct value_iterator *iterator;
    TRY(arena_take(&r->arena, &iterator, 1, sizeof *iterator));
    iterator->item = item ? item : &nothing;
    iterator->n = n;
    out->kind = VALUE_ITERATOR;
    out->request = false;
    out->iterator = iterator;
    return PM_OK;
}

pm_status items_add(struct render *r, struct value_items *items, struct value v)
{
    if (items->n == items->capacity) {
        size_t capacity = items->capacity > 0 ? 2 * items->capacity : 8;
        struct value *grown;
        TRY(arena_take(&r->arena, &grown, capacity, sizeof *grown));
        if (items->n > 0) memcpy(grown, items->item, items->n * sizeof *grown);
        items->item = grown;
        items->capacity = capacity;
    }
    items->item[items->n++] = v;
    return work(r, 0);
}

pm_status dict_new(struct render *r, enum value_kind kind, struct value *out)
{
    struct value_dict *d;
    TRY(arena_take(&r->arena, &d, 1, sizeof *d));
    *out = (struct value){.kind = kind};
    out->dict = d;
    return PM_OK;
}

static bool is_key(const struct value *v)
{
    if (v->kind == VALUE_TUPLE) {
        for (size_t i = 0; i < v->list.n; i++) {
            if (!is_key(&v->list.item[i])) return false;
        }
        return true;
    }
    return v->kind != VALUE_LIST && v->kind != VALUE_DICT && v->kind != VALUE_VIEW;
}

pm_status dict_find(struct render *r, const struct value_dict *d, const struct value *key,
                    const struct value **out)
{
    *out = NULL;
    if (!is_key(key)) return fail(PM_ERR_ARG, "a %s cannot be a key", kind_name(key));
    TRY(work(r, d->n * sizeof(struct value_entry) / 4));
    for (size_t i = 0; i < d->n; i++) {
        const struct value *k = &d->entry[i].key;
        bool equal;
        if (k->kind == VALUE_TEXT && key->kind == VALUE_TEXT) {
            equal = k->text.n == key->text.n &&
                    memcmp(k->text.byte, key->text.byte, key->text.n) == 0;
        } else {
            TRY(value_equal(r, k, key, &equal));
        }
        if (equal) {
            *out = &d->entry[i].value;
            return PM_OK;
        }
    }
    return PM_OK;
}

const struct value *dict_text(const struct value_dict *d, const char *key)
{
    for (size_t i = 0; i < d->n; i++) {
        if (text_is(&d->entry[i].key, key)) return &d->entry[i].value;
    }
    return NULL;
}

pm_status dict_set(struct render *r, struct value_dict *d, struct value key, struct value value)
{
    const struct value *found;
    TRY(dict_find(r, d, &key, &found));
    if (found) {
        d->entry[(const struct value_entry *)((const char *)found -
                                              offsetof(struct value_entry, value)) -
                 d->entry]
            .value = value;
        return PM_OK;
    }
    if (d->n == d->capacity) {
        size_t capacity = d->capacity > 0 ? 2 * d->capacity : 8;
        struct value_entry *grown;
        TRY(arena_take(&r->arena, &grown, capacity, sizeof *grown));
        if (d->n > 0) memcpy(grown, d->entry, d->n * sizeof *grown);
        d->entry = grown;
        d->capacity = capacity;
    }
    d->entry[d->n++] = (struct value_entry){key, value};
    return PM_OK;
}

/* Asking */

bool is_sequence(const struct value *v)
{
    return v->kind == VALUE_LIST || v->kind == VALUE_TUPLE || v->kind == VALUE_RANGE ||
           v->kind == VALUE_VIEW;
}

bool is_number(const struct value *v)
{
    return v->kind == VALUE_INT || v->kind == VALUE_FLOAT || v->kind == VALUE_BOOL;
}

const char *kind_name(const struct value *v)
{
    static const char *const name[] = {
        [VALUE_ABSENT] = "'absent' object",     [VALUE_UNDEFINED] = "undefined value",
        [VALUE_NONE] = "'NoneType' object",     [VALUE_BOOL] = "'bool' object",
        [VALUE_INT] = "'int' object",           [VALUE_FLOAT] = "'float' object",
        [VALUE_TEXT] = "'str' object",          [VALUE_LIST] = "'list' object",
        [VALUE_TUPLE] = "'tuple' object",       [VALUE_RANGE] = "'range' object",
        [VALUE_VIEW] = "'dict_view' object",    [VALUE_ITERATOR] = "'generator' object",
        [VALUE_DICT] = "'dict' object",         [VALUE_NAMESPACE] = "'namespace' object",
        [VALUE_LOOP] = "'loop' object",         [VALUE_MACRO] = "'macro' object",
        [VALUE_FUNCTION] = "'function' object", [VALUE_METHOD] = "'method' object",
    };
    return name[v->kind];
}

bool value_true(const struct value *v)
{
    switch (v->kind) {
    case VALUE_ABSENT:
    case VALUE_UNDEFINED:
    case VALUE_NONE: return false;
    case VALUE_BOOL: return v->truth;
    case VALUE_INT: return v->integer != 0;
    case VALUE_FLOAT: return v->real != 0;
    case VALUE_TEXT: return v->text.n > 0;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_RANGE:
    case VALUE_VIEW: return v->list.n > 0;
    case VALUE_DICT: return v->dict->n > 0;
    default: return true;
    }
}

static double number(const struct value *v)
{
    return v->kind == VALUE_FLOAT ? v->real
           : v->kind == VALUE_INT ? (double)v->integer
                                  : (double)v->truth;
}

static int compare_numbers(const struct value *a, const struct value *b)
{
    double x = number(a), y = number(b);
    if (a->kind != VALUE_FLOAT && b->kind != VALUE_FLOAT) {
        int64_t i = a->kind == VALUE_INT ? a->integer : a->truth;
        int64_t j = b->kind == VALUE_INT ? b->integer : b->truth;
        return (i > j) - (i < j);
    }
    return (x > y) - (x < y);
}

static int compare_texts(const struct value *a, const struct value *b)
{
    size_t n = a->text.n < b->text.n ? a->text.n : b->text.n;
    int order = memcmp(a->text.byte, b->text.byte, n);
    /* In UTF-8 the order of bytes is the order of characters. */
    return order != 0 ? (order > 0) - (order < 0)
                      : (a->text.n > b->text.n) - (a->text.n < b->text.n);
}

static pm_status equal_dicts(struct render *r, const struct value_dict *a,
                             const struct value_dict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        const struct value *other;
        TRY(dict_find(r, b, &a->entry[i].key, &other));
        *out = other != NULL;
        if (other) TRY(value_equal(r, &a->entry[i].value, other, out));
    }
    return PM_OK;
}

static pm_status equal_lists(struct render *r, const struct value *a, const struct value *b,
                             bool *out)
{
    *out = a->list.n == b->list.n;
    for (size_t i = 0; *out && i < a->list.n; i++) {
        TRY(value_equal(r, &a->list.item[i], &b->list.item[i], out));
    }
    return PM_OK;
}

static pm_status equal_inside(struct render *r, const struct value *a, const struct value *b,
                              bool *out)
{
    *out = false;
    if (a->kind != b->kind) return PM_OK;
    switch (a->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE: *out = true; return PM_OK;
    case VALUE_TEXT:
        TRY(work(r, a->text.n));
        *out = a->text.n == b->text.n && memcmp(a->text.byte, b->text.byte, a->text.n) == 0;
        return PM_OK;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_RANGE:
    case VALUE_VIEW: return equal_lists(r, a, b, out);
    case VALUE_DICT: return equal_dicts(r, a->dict, b->dict, out);
    case VALUE_ITERATOR: *out = a->iterator == b->iterator; return PM_OK;
    case VALUE_NAMESPACE: *out = a->dict == b->dict; return PM_OK;
    case VALUE_LOOP: *out = a->loop == b->loop; return PM_OK;
    case VALUE_MACRO: *out = a->macro == b->macro; return PM_OK;
    case VALUE_FUNCTION: *out = a->function == b->function; return PM_OK;
    default: return PM_OK;
    }
}

pm_status value_equal(struct render *r, const struct value *a, const struct value *b, bool *out)
{
    pm_status status;
    TRY(work(r, 0));
    if (is_number(a) && is_number(b)) {
        /* Not a number is equal to nothing. */
        *out = compare_numbers(a, b) == 0 && !isnan(number(a)) && !isnan(number(b));
        return PM_OK;
    }
    TRY(nest(r));
    status = equal_inside(r, a, b, out);
    r->depth--;
    return status;
}

pm_status value_compare(struct render *r, const struct value *a, const struct value *b,
                        int *out)
{
    TRY(work(r, 0));
    if (is_number(a) && is_number(b)) {
        *out = compare_numbers(a, b);
        return PM_OK;
    }
    if (a->kind == VALUE_TEXT && b->kind == VALUE_TEXT) {
        TRY(work(r, a->text.n < b->text.n ? a->text.n : b->text.n));
        *out = compare_texts(a, b);
        return PM_OK;
    }
    if (a->kind == b->kind && (a->kind == VALUE_LIST || a->kind == VALUE_TUPLE)) {
        for (size_t i = 0; i < a->list.n && i < b->list.n; i++) {
            bool equal;
            TRY(value_equal(r, &a->list.item[i], &b->list.item[i], &equal));
            if (!equal) {
                pm_status status;
                TRY(nest(r));
                status = value_compare(r, &a->list.item[i], &b->list.item[i], out);
                r->depth--;
                return status;
            }
        }
        *out = (a->list.n > b->list.n) - (a->list.n < b->list.n);
        return PM_OK;
    }
    return fail(PM_ERR_ARG, "a %s and a %s have no order", kind_name(a), kind_name(b));
}

static pm_status contains_text(struct render *r, const struct value *text,
                               const struct value *item, bool *out)
{
    if (item->kind != VALUE_TEXT) {
        return fail(PM_ERR_ARG, "a text is asked for a %s, not for a text", kind_name(item));
    }
    TRY(work(r, text->text.n + item->text.n));
    return text_find(r, text, item, 0, &(size_t){0}, out);
}

pm_status value_contains(struct render *r, const struct value *container,
                         const struct value *item, bool *out)
{
    const struct value *list;
    size_t n;
    *out = false;
    if (container->kind == VALUE_TEXT) return contains_text(r, container, item, out);
    if (container->kind == VALUE_DICT) {
        const struct value *found;
        TRY(dict_find(r, container->dict, item, &found));
        *out = found != NULL;
        return PM_OK;
    }
    TRY(value_items(r, container, &list, &n));
    for (size_t i = 0; !*out && i < n; i++) {
        TRY(value_equal(r, item, &list[i], out));
    }
    return PM_OK;
}

static pm_status characters_of(struct render *r, const struct value *text,
                               const struct value **item, size_t *n)
{
    size_t count = text_characters(text), at = 0;
    struct value *character;
    TRY(work(r, count * sizeof *character));
    TRY(arena_take(&r->arena, &character, count, sizeof *character));
    for (size_t i = 0; i < count; i++) {
        size_t end = at + utf8_bytes(text->text.byte[at]);
        character[i] = text_slice(text, at, end);
        at = end;
    }
    *item = character;
    *n = count;
    return PM_OK;
}

static pm_status keys_of(struct render *r, const struct value_dict *d,
                         const struct value **item, size_t *n)
{
    struct value *key;
    TRY(work(r, d->n * sizeof *key));
    TRY(arena_take(&r->arena, &key, d->n, sizeof *key));
    for (size_t i = 0; i < d->n; i++) {
        key[i] = d->entry[i].key;
    }
    *item = key;
    *n = d->n;
    return PM_OK;
}

pm_status value_items(struct render *r, const struct value *v, const struct value **item,
                      size_t *n)
{
    *item = &nothing;
    *n = 0;
    switch (v->kind) {
    case VALUE_UNDEFINED: return PM_OK;
    case VALUE_LIST:
    case VALUE_TUPLE:
    case VALUE_RANGE:
    case VALUE_VIEW:
        *item = v->list.item;
        *n = v->list.n;
        return PM_OK;
    case VALUE_ITERATOR:
        *item = v->iterator->item + v->iterator->at;
        *n = v->iterator->n - v->iterator->at;
        v->iterator->at = v->iterator->n;
        return PM_OK;
    case VALUE_LOOP: /* the items from here on */
        *item = v->loop->item + v->loop->at;
        *n = v->loop->n - v->loop->at;
        return PM_OK;
    case VALUE_TEXT: return characters_of(r, v, item, n);
    case VALUE_DICT: return keys_of(r, v->dict, item, n);
    default: return fail(PM_ERR_ARG, "a %s cannot be walked through", kind_name(v));
    }
}
