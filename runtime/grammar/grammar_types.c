/* grammar_types.c - objects, arrays, strings and numbers: keywords to nodes.
 *
 * An object's properties stand in a chain of places before a key: K[i] is where one of the
 * properties from i on may come, up to the first that must. Behind the value of property i is
 * A[i + 1], with a comma to K[i + 1], or the end where no more are required. Additional keys
 * come at the end of the chain; each must differ from all declared names, which is decided
 * along a trie of the names while the key is written.
 *
 * An array is unrolled as far as its items differ or are counted. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grammar_number.h"
#include "grammar_regex.h"
#include "grammar_schema.h"

enum {
    MAX_PROPERTIES = 4096,
    MAX_UNROLLED = 1 << 14,
    MAX_PREFIX = 1024,
    MAX_PATTERN_STATES = 1 << 15
};

/* Reads a whole number of at least 0. */
static pm_status read_count(const struct schema *c, const json *v, int *out)
{
    int64_t n;
    if (!json_integer(v, &n) || n < 0) return schema_fail(c, v, "wanted a whole number");
    *out = (int)min_i64(n, UNLIMITED);
    return PM_OK;
}

/* The narrowest of all parts' bounds of a count. */
static pm_status read_counts(const struct schema *c, const struct view *view,
                             const char *min_key, const char *max_key, int *min, int *max)
{
    *min = 0;
    *max = UNLIMITED;
    for (int i = 0; i < view->n; i++) {
        const json *low = json_get(view->part[i], min_key);
        const json *high = json_get(view->part[i], max_key);
        int n;
        if (low) {
            TRY(read_count(c, low, &n));
            if (n > *min) *min = n;
        }
        if (high) {
            TRY(read_count(c, high, &n));
            if (n < *max) *max = n;
        }
    }
    return PM_OK;
}

/* Strings */

static const struct {
    const char *name, *pattern;
} formats[] = {
#define YEAR "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
#define LEAP "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                   \
    "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"                            \
    "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|" LEAP "-02-29)"
#define HOUR  "(?:[01][0-9]|2[0-3])"
#define TIME  HOUR ":[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-]" HOUR ":[0-5][0-9])"
#define BYTE  "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"uuid", "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
    {"ipv4", "^" BYTE "(?:\\." BYTE "){3}$"},
    {"email", "^[A-Za-z0-9_%+-]{1,32}(?:\\.[A-Za-z0-9_%+-]{1,15}){0,2}@(?:" LABEL
              "\\.){1,2}[A-Za-z]{2,24}$"},
};

/* The pattern of a format, or NULL. */
static const char *format_pattern(const json *format)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (json_is_string(format) && same_text(json_text(format), json_text_bytes(format),
                                                formats[i].name, strlen(formats[i].name)))
            return formats[i].pattern;
    }
    return NULL;
}

/* The one pattern or format of all parts; *at = NULL: there is none. */
static pm_status find_pattern(const struct schema *c, const struct view *view, const json **at,
                              const char **source, size_t *n)
{
    *at = NULL;
    for (int i = 0; i < view->n; i++) {
        const json *pattern = json_get(view->part[i], "pattern");
        const json *format = json_get(view->part[i], "format");
        const json *both[2] = {pattern, format};
        for (int k = 0; k < 2; k++) {
            if (!both[k]) continue;
            if (!json_is_string(both[k])) return schema_fail(c, both[k], "wanted a string");
            if (*at) {
                return schema_fail(c, both[k],
                                   "not supported beside another pattern or format");
            }
            *at = both[k];
            *source = k ? format_pattern(format) : json_text(pattern);
            *n = k && *source ? strlen(*source) : json_text_bytes(both[k]);
            if (!*source) {
                return schema_fail(c, format,
                                   "not supported: only date, time, date-time, uuid, "
                                   "ipv4, email");
            }
        }
    }
    return PM_OK;
}

static pm_status build_pattern(struct schema *c, const char *source, size_t n, int min, int max,
                               uint32_t start)
{
    const struct copy_rules rules = {min, max, '"', c->end};
    struct automaton pattern;
    uint32_t first, copy;
    pm_status status;
    automaton_init(&pattern, MAX_PATTERN_STATES);
    TRY_DONE(regex_build(&pattern, source, n, &first));
    TRY_DONE(automaton_determinise(&pattern, first, &rules, &c->a, &copy));
    automaton_range(&c->a, start, '"', '"', copy);
done:
    automaton_clear(&pattern);
    return status;
}

pm_status build_string(struct schema *c, const struct view *view, uint32_t start)
{
    const json *at;
    const char *source;
    size_t n;
    int min, max;
    TRY(read_counts(c, view, "minLength", "maxLength", &min, &max));
    TRY(find_pattern(c, view, &at, &source, &n));
    if (at) return schema_prefix(c, at, build_pattern(c, source, n, min, max, start));
    if (min > max) return PM_OK; /* no string at all */
    automaton_range(&c->a, start, '"', '"',
                    min == 0 && max == UNLIMITED ? c->free_string
                                                 : automaton_string(&c->a, min, max, c->end));
    return c->a.status;
}

/* Numbers */

/* A bound of one part. The keywords are numbers; exclusive ones were once true or false. */
static pm_status read_bound(const struct schema *c, const json *part, const char *key,
                            const char *exclusive_key, bool is_low, struct number_bound *bound)
{
    const json *keyword[2] = {json_get(part, key), json_get(part, exclusive_key)};
    for (int k = 0; k < 2; k++) {
        const json *v = keyword[k];
        double value = json_number(v);
        bool exclusive = k == 1 || json_true(keyword[1]);
        if (!v || (k == 1 && json_is_bool(v))) continue;
        if (!json_is_number(v)) return schema_fail(c, v, "wanted a number");
        if (bound->is && (is_low ? value < bound->value : value > bound->value)) continue;
        if (bound->is && value == bound->value) exclusive = exclusive || bound->exclusive;
        *bound = (struct number_bound){true, exclusive, value};
    }
    return PM_OK;
}

static pm_status read_multiple(const struct schema *c, const json *v,
                               struct number_rules *rules)
{
    int64_t n, both;
    if (!v) return PM_OK;
    if (!json_integer(v, &n) || n < 1 || n > MAX_MULTIPLE) {
        return schema_fail(c, v, "not supported: only whole numbers from 1 to %d",
                           MAX_MULTIPLE);
    }
    for (both = n; both % rules->multiple != 0;) {
        both += n;
    }
    if (both > MAX_MULTIPLE) return schema_fail(c, v, "not supported beside the other one");
    rules->multiple = (int)both;
    rules->integer = true;
    return PM_OK;
}

static pm_status add_number(struct schema *c, const struct number_rules *number,
                            uint32_t *start)
{
    const struct copy_rules rules = {0, UNLIMITED, -1, NO_NODE};
    struct automaton digits;
    uint32_t first;
    pm_status status;
    automaton_init(&digits, MAX_PATTERN_STATES);
    TRY_DONE(number_build(&digits, number, &first));
    TRY_DONE(automaton_determinise(&digits, first, &rules, &c->a, start));
done:
    automaton_clear(&digits);
    return status;
}

pm_status build_number(struct schema *c, const struct view *view, bool integer, uint32_t start)
{
    static const char *const keys[] = {"minimum", "maximum", "exclusiveMinimum",
                                       "exclusiveMaximum"};
    struct number_rules number = {.integer = integer, .multiple = 1};
    const json *at = NULL;
    uint32_t made, *to = &made;
    for (int i = 0; i < view->n; i++) {
        const json *part = view->part[i];
        TRY(read_bound(c, part, keys[0], keys[2], true, &number.low));
        TRY(read_bound(c, part, keys[1], keys[3], false, &number.high));
        TRY(read_multiple(c, json_get(part, "multipleOf"), &number));
    }
    for (int k = 0; k < 4 && !at; k++) {
        at = view_get(view, keys[k]);
    }
    /* Numbers without rules are all the same one. */
    if (!number.low.is && !number.high.is && number.multiple == 1) {
        to = &c->free_number[number.integer];
    }
    if (to == &made || *to == NO_NODE) {
        pm_status status = add_number(c, &number, to);
        if (status != PM_OK) return at ? schema_prefix(c, at, status) : status;
    }
    automaton_jump(&c->a, start, *to);
    return c->a.status;
}

/* Arrays */

/* What all parts say about the item at `index`. */
static pm_status view_item(struct schema *c, const struct view *view, int index,
                           struct view *out)
{
    *out = (struct view){0};
    for (int i = 0; i < view->n; i++) {
        const json *items = json_get(view->part[i], "items");
        const json *one = json_child(json_get(view->part[i], "prefixItems"));
        for (int k = 0; one && k < index; k++) {
            one = json_next(one);
        }
        if (json_is_array(items)) {
            return schema_fail(c, items, "not supported as a list: use prefixItems");
        }
        if (one || items) TRY(view_add(c, out, one ? one : items, -1));
    }
    return PM_OK;
}

static pm_status count_prefix(const struct schema *c, const struct view *view, int *n)
{
    *n = 0;
    for (int i = 0; i < view->n; i++) {
        const json *prefix = json_get(view->part[i], "prefixItems");
        const json *unique = json_get(view->part[i], "uniqueItems");
        if (prefix && !json_is_array(prefix)) {
            return schema_fail(c, prefix, "wanted a list of schemas");
        }
        if (json_size(prefix) > MAX_PREFIX) {
            return schema_fail(c, prefix, "too complex: more than %d schemas", MAX_PREFIX);
        }
        if (json_size(prefix) > *n) *n = json_size(prefix);
        if (unique && (!json_is_bool(unique) || json_true(unique))) {
            return schema_fail(c, unique, "not supported, only false");
        }
    }
    return PM_OK;
}

/* Where a comma leads: white space, then `to`. */
static void build_comma(struct schema *c, uint32_t from, uint32_t to)
{
    uint32_t comma = automaton_node(&c->a);
    automaton_range(&c->a, from, ',', ',', comma);
    automaton_call(&c->a, comma, c->space, to);
}

/* White space and the bracket that ends a container. */
static void build_close(struct schema *c, uint32_t from, int bracket)
{
    uint32_t last = automaton_node(&c->a);
    automaton_call(&c->a, from, c->space, last);
    automaton_range(&c->a, last, bracket, bracket, c->end);
}

pm_status build_array(struct schema *c, const struct view *view, uint32_t start)
{
    uint32_t open = automaton_node(&c->a), first = automaton_node(&c->a);
    uint32_t before = automaton_node(&c->a), item = NO_NODE;
    int min, max, n_prefix, last;
    TRY(read_counts(c, view, "minItems", "maxItems", &min, &max));
    TRY(count_prefix(c, view, &n_prefix));
    last = max != UNLIMITED ? max : n_prefix > min ? n_prefix : min;
    if (last > MAX_UNROLLED || min > MAX_UNROLLED) {
        return schema_fail(c, view_get(view, last == max ? "maxItems" : "minItems"),
                           "not supported over %d", MAX_UNROLLED);
    }
    automaton_range(&c->a, start, '[', '[', open);
    automaton_call(&c->a, open, c->space, first);
    automaton_jump(&c->a, first, before);
    if (min == 0) automaton_range(&c->a, first, ']', ']', c->end);
    /* One item more than `last` where the list goes on for ever. */
    for (int i = 0; i < last + (max == UNLIMITED); i++) {
        uint32_t after = automaton_node(&c->a), next = before;
        struct view one;
        if (i <= n_prefix) {
            TRY(view_item(c, view, i, &one));
            TRY(schema_start(c, &one, &item));
        }
        automaton_call(&c->a, before, item, after);
        if (i + 1 >= min) build_close(c, after, ']');
        if (i < last) next = automaton_node(&c->a);
        if (i + 1 < last || max == UNLIMITED) build_comma(c, after, next);
        before = next;
        TRY(c->a.status);
    }
    return c->a.status;
}

/* Objects */

struct name {
    const char *text;
    size_t n;
    bool required;
};

struct object {
    struct name *name; /* in the order of the text */
    size_t n, capacity;
    bool is_open; /* others may follow */
    struct view others;
};

static pm_status add_name(const struct schema *c, struct object *o, const json *at,
                          const char *text, size_t n, bool required)
{
    for (size_t i = 0; i < o->n; i++) {
        if (!same_text(o->name[i].text, o->name[i].n, text, n)) continue;
        o->name[i].required = o->name[i].required || required;
        return PM_OK;
    }
    if (o->n == MAX_PROPERTIES) {
        return schema_fail(c, at, "too complex: more than %d properties", MAX_PROPERTIES);
    }
    TRY(grow_array(&o->name, &o->capacity, o->n + 1, sizeof *o->name));
    o->name[o->n++] = (struct name){text, n, required};
    return PM_OK;
}

static pm_status read_names(const struct schema *c, const struct view *view, struct object *o)
{
    for (int i = 0; i < view->n; i++) {
        const json *properties = json_get(view->part[i], "properties");
        if (properties && !json_is_object(properties)) {
            return schema_fail(c, properties, "wanted an object of schemas");
        }
        for (const json *p = json_child(properties); p; p = json_next(p)) {
            TRY(add_name(c, o, p, json_key(p), json_key_bytes(p), false));
        }
    }
    for (int i = 0; i < view->n; i++) {
        const json *required = json_get(view->part[i], "required");
        if (required && !json_is_array(required)) {
            return schema_fail(c, required, "wanted a list of names");
        }
        for (const json *r = json_child(required); r; r = json_next(r)) {
            if (!json_is_string(r)) return schema_fail(c, r, "wanted a name");
            TRY(add_name(c, o, r, json_text(r), json_text_bytes(r), true));
        }
    }
    return PM_OK;
}

/* Additional properties are allowed where a part says so and none forbids them, or where no
 * part speaks of properties. */
static pm_status read_others(struct schema *c, const struct view *view, struct object *o)
{
    bool opened = false, declared = false, closed = false;
    for (int i = 0; i < view->n; i++) {
        const json *others = json_get(view->part[i], "additionalProperties");
        declared = declared || json_get(view->part[i], "properties");
        if (!others) continue;
        TRY(view_add(c, &o->others, others, -1));
        closed = closed || o->others.never;
        opened = true;
    }
    o->is_open = !closed && (opened || !declared);
    return PM_OK;
}

static pm_status check_counts(const struct schema *c, const struct view *view,
                              const struct object *o)
{
    size_t n_required = 0;
    int min, max;
    for (size_t i = 0; i < o->n; i++) {
        n_required += o->name[i].required;
    }
    TRY(read_counts(c, view, "minProperties", "maxProperties", &min, &max));
    if ((size_t)min > n_required) {
        return schema_fail(c, view_get(view, "minProperties"),
                           "not supported over the number of required properties, %zu",
                           n_required);
    }
    if (max != UNLIMITED && (o->is_open || (size_t)max < o->n)) {
        return schema_fail(c, view_get(view, "maxProperties"),
                           "not supported, unless all properties are declared and allowed");
    }
    return PM_OK;
}

pm_status view_property(struct schema *c, const struct view *view, const char *name, size_t n,
                        struct view *out)
{
    *out = (struct view){0};
    for (int i = 0; i < view->n; i++) {
        const json *found = json_child(json_get(view->part[i], "properties"));
        while (found && !same_text(json_key(found), json_key_bytes(found), name, n)) {
            found = json_next(found);
        }
        if (!found) found = json_get(view->part[i], "additionalProperties");
        if (found) TRY(view_add(c, out, found, -1));
    }
    return PM_OK;
}

/* A colon, perhaps a blank, and a value. */
static void build_value(struct schema *c, uint32_t from, uint32_t value, uint32_t after)
{
    uint32_t colon = automaton_node(&c->a), blank = automaton_node(&c->a);
    automaton_range(&c->a, from, ':', ':', colon);
    automaton_range(&c->a, colon, ' ', ' ', blank);
    automaton_jump(&c->a, colon, blank);
    automaton_call(&c->a, blank, value, after);
}

static pm_status build_property(struct schema *c, const struct view *view,
                                const struct name *name, uint32_t before, uint32_t after)
{
    struct json_out key = {0};
    struct view property;
    uint32_t value, from;
    pm_status status;
    TRY_DONE(view_property(c, view, name->text, name->n, &property));
    TRY_DONE(schema_start(c, &property, &value));
    json_put(&key, "\"");
    put_spelled(&key, name->text, name->n);
    json_put(&key, "\"");
    TRY_DONE(key.status);
    from = automaton_text(&c->a, before, key.text, key.n);
    build_value(c, from, value, after);
    status = c->a.status;
done:
    free(key.text);
    return status;
}

/* A place in the trie of declared names: how far its key is the start of one of them. */
struct key_trie {
    struct schema *c;
    const struct object *o;
    char **spelled;  /* [o->n] sorted */
    uint32_t free;   /* the characters of a key that is none of them */
    uint32_t escape; /* behind a backslash that leaves the names */
    uint32_t colon;  /* behind the closing quote */
};

#define SHORT_ESCAPES "\"\\bfnrt"

/* Nodes for the names first .. last - 1, which share `at` bytes that end at `sub` of a
 * character. */
static void build_key(struct key_trie *t, uint32_t node, size_t first, size_t last, size_t at,
                      int sub)
{
    struct automaton *a = &t->c->a;
    bool taken[256] = {false};
    size_t i = first;
    while (i < last && t->spelled[i][at] == 0) {
        i++; /* a whole name: no quote here */
    }
    taken['"'] = i > first;
    while (i < last && a->status == PM_OK) {
        uint8_t byte = (uint8_t)t->spelled[i][at];
        int next = chars_step(sub, byte);
        size_t end = i;
        uint32_t to = automaton_node(a);
        while (end < last && (uint8_t)t->spelled[end][at] == byte) {
            end++;
        }
        taken[byte] = true;
        automaton_range(a, node, byte, byte, to);
        build_key(t, to, i, end, at + 1, next == CHARS_DONE ? CHARS_START : next);
        i = end;
    }
    /* Here the key leaves all names. Not by \\u0061 and the like, nor inside such an escape:
     * they could spell a declared name another way. */
    for (int byte = 0; byte < 256 && sub < CHARS_HEX; byte++) {
        int next = chars_step(sub, (uint8_t)byte);
        if (taken[byte] || next == CHARS_NONE) continue;
        if (sub == CHARS_ESCAPE && !strchr(SHORT_ESCAPES, byte)) continue;
        automaton_range(a, node, byte, byte,
                        next == CHARS_QUOTE    ? t->colon
                        : next == CHARS_DONE   ? t->free
                        : next == CHARS_ESCAPE ? t->escape
                                               : t->free + (uint32_t)next);
    }
}

static int order_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static pm_status build_others(struct schema *c, struct object *o, uint32_t before,
                              uint32_t after)
{
    struct key_trie t = {.c = c, .o = o, .colon = automaton_node(&c->a)};
    uint32_t value, first = automaton_node(&c->a);
    size_t n = 0;
    pm_status status;
    t.free = automaton_string(&c->a, 0, UNLIMITED, t.colon);
    t.escape = automaton_node(&c->a);
    for (const char *at = SHORT_ESCAPES; *at; at++) {
        automaton_range(&c->a, t.escape, *at, *at, t.free);
    }
    TRY_DONE(schema_start(c, &o->others, &value));
    TRY_DONE(alloc_array(&t.spelled, o->n, sizeof *t.spelled, "grammar"));
    for (; n < o->n; n++) {
        struct json_out key = {0};
        put_spelled(&key, o->name[n].text, o->name[n].n);
        json_put(&key, "%s", "");
        t.spelled[n] = key.text;
        if (key.status != PM_OK) n++;
        TRY_DONE(key.status);
    }
    qsort(t.spelled, n, sizeof *t.spelled, order_names);
    automaton_range(&c->a, before, '"', '"', n > 0 ? first : t.free);
    if (n > 0) build_key(&t, first, 0, n, 0, CHARS_START);
    build_value(c, t.colon, value, after);
    status = c->a.status;
done:
    for (size_t i = 0; i < n && t.spelled; i++) {
        free(t.spelled[i]);
    }
    free(t.spelled);
    return status;
}

/* key[i] and after[i] of the essay; key [o->n + 1], after [o->n + 1]. */
static pm_status build_chain(struct schema *c, const struct view *view, struct object *o,
                             uint32_t *key, uint32_t *after)
{
    bool required = false; /* one of those from i on */
    for (size_t i = 0; i <= o->n; i++) {
        key[i] = automaton_node(&c->a);
        after[i] = automaton_node(&c->a);
    }
    for (size_t i = o->n + 1; i-- > 0;) {
        if (i < o->n && o->name[i].required) required = true;
        if (!required) build_close(c, after[i], '}');
        if (i < o->n || o->is_open) build_comma(c, after[i], key[i]);
    }
    for (size_t i = 0; i < o->n; i++) {
        TRY(build_property(c, view, &o->name[i], key[i], after[i + 1]));
        if (!o->name[i].required) automaton_jump(&c->a, key[i], key[i + 1]);
    }
    return o->is_open ? build_others(c, o, key[o->n], after[o->n]) : PM_OK;
}

pm_status build_object(struct schema *c, const struct view *view, uint32_t start)
{
    struct object o = {0};
    uint32_t *key = NULL, *after = NULL, open = automaton_node(&c->a);
    bool required = false;
    pm_status status;
    TRY_DONE(read_names(c, view, &o));
    TRY_DONE(read_others(c, view, &o));
    TRY_DONE(check_counts(c, view, &o));
    TRY_DONE(alloc_array(&key, o.n + 1, sizeof *key, "grammar"));
    TRY_DONE(alloc_array(&after, o.n + 1, sizeof *after, "grammar"));
    TRY_DONE(build_chain(c, view, &o, key, after));
    for (size_t i = 0; i < o.n; i++) {
        required = required || o.name[i].required;
    }
    automaton_range(&c->a, start, '{', '{', open);
    if (!required) {
        build_close(c, open, '}');
    }
    automaton_call(&c->a, open, c->space, key[0]);
    status = c->a.status;
done:
    free(after);
    free(key);
    free(o.name);
    return status;
}
