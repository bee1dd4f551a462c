/* schema_check.c - a validator that shares nothing with the compiler it tests but the JSON
 * reader: it walks schema and value together and answers yes or no. */
#include "schema_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEVEL = 300 };

struct check {
    const json *root;
    long budget; /* of comparisons: anyOf of anyOf is exponential here */
};

static bool fulfils(struct check *c, const json *schema, const json *v, int level);

static bool same(const json *a, const json *b)
{
    const json *x = json_child(a), *y = json_child(b);
    if (json_is_string(a) && json_is_string(b)) {
        return json_text_bytes(a) == json_text_bytes(b) &&
               memcmp(json_text(a), json_text(b), json_text_bytes(a)) == 0;
    }
    if (json_is_number(a) && json_is_number(b)) return json_number(a) == json_number(b);
    if (json_is_bool(a) && json_is_bool(b)) return json_true(a) == json_true(b);
    if (json_is_null(a) && json_is_null(b)) return true;
    if (json_size(a) != json_size(b)) return false;
    if (json_is_array(a) && json_is_array(b)) {
        for (; x; x = json_next(x), y = json_next(y)) {
            if (!same(x, y)) return false;
        }
        return true;
    }
    if (!json_is_object(a) || !json_is_object(b)) return false;
    for (; x; x = json_next(x)) {
        for (y = json_child(b); y; y = json_next(y)) {
            if (json_key_bytes(x) == json_key_bytes(y) &&
                memcmp(json_key(x), json_key(y), json_key_bytes(x)) == 0 && same(x, y))
                break;
        }
        if (!y) return false;
    }
    return true;
}

static bool has_type(const json *v, const json *type)
{
    const char *name = json_text(type);
    if (strcmp(name, "null") == 0) return json_is_null(v);
    if (strcmp(name, "boolean") == 0) return json_is_bool(v);
    if (strcmp(name, "number") == 0) return json_is_number(v);
    if (strcmp(name, "integer") == 0)
        return json_is_number(v) && floor(json_number(v)) == json_number(v);
    if (strcmp(name, "string") == 0) return json_is_string(v);
    if (strcmp(name, "array") == 0) return json_is_array(v);
    return json_is_object(v);
}

static bool check_type(const json *schema, const json *v)
{
    const json *type = json_get(schema, "type");
    if (!type || (json_is_null(v) && json_true(json_get(schema, "nullable")))) return true;
    if (json_is_string(type)) return has_type(v, type);
    for (const json *one = json_child(type); one; one = json_next(one)) {
        if (has_type(v, one)) return true;
    }
    return false;
}

static bool check_values(const json *schema, const json *v)
{
    const json *list = json_get(schema, "enum"), *single = json_get(schema, "const");
    const json *one = json_child(list);
    if (single && !same(single, v)) return false;
    while (one && !same(one, v)) {
        one = json_next(one);
    }
    return !list || one;
}

static bool check_number(const json *schema, const json *v)
{
    const json *low = json_get(schema, "minimum"), *high = json_get(schema, "maximum");
    const json *above = json_get(schema, "exclusiveMinimum");
    const json *below = json_get(schema, "exclusiveMaximum");
    const json *multiple = json_get(schema, "multipleOf");
    double n = json_number(v);
    if (!json_is_number(v)) return true;
    if (low && n < json_number(low)) return false;
    if (high && n > json_number(high)) return false;
    if (json_is_number(above) && n <= json_number(above)) return false;
    if (json_is_number(below) && n >= json_number(below)) return false;
    if (json_true(above) && low && n == json_number(low)) return false;
    if (json_true(below) && high && n == json_number(high)) return false;
    return !multiple || fmod(n, json_number(multiple)) == 0;
}

static bool within(const json *schema, const char *min, const char *max, double n)
{
    const json *low = json_get(schema, min), *high = json_get(schema, max);
    return (!low || n >= json_number(low)) && (!high || n <= json_number(high));
}

static bool check_string(const json *schema, const json *v)
{
    double n = 0;
    size_t n_byte = json_text_bytes(v);
    if (!json_is_string(v)) return true;
    for (size_t i = 0; i < n_byte; i++) {
        n += (json_text(v)[i] & 0xc0) != 0x80;
    }
    return within(schema, "minLength", "maxLength", n);
}

static bool check_array(struct check *c, const json *schema, const json *v, int level)
{
    const json *prefix = json_child(json_get(schema, "prefixItems"));
    const json *items = json_get(schema, "items");
    if (!json_is_array(v)) return true;
    if (!within(schema, "minItems", "maxItems", json_size(v))) return false;
    for (const json *one = json_child(v); one; one = json_next(one)) {
        const json *s = prefix ? prefix : items;
        if (s && !fulfils(c, s, one, level)) return false;
        if (prefix) prefix = json_next(prefix);
    }
    return true;
}

static const json *find(const json *object, const char *key, size_t n)
{
    const json *m = json_child(object);
    while (m && (json_key_bytes(m) != n || memcmp(json_key(m), key, n) != 0)) {
        m = json_next(m);
    }
    return m;
}

static bool check_object(struct check *c, const json *schema, const json *v, int level)
{
    const json *properties = json_get(schema, "properties");
    const json *others = json_get(schema, "additionalProperties");
    const json *need = json_child(json_get(schema, "required"));
    if (!json_is_object(v)) return true;
    if (!within(schema, "minProperties", "maxProperties", json_size(v))) return false;
    for (; need; need = json_next(need)) {
        if (!find(v, json_text(need), json_text_bytes(need))) return false;
    }
    for (const json *m = json_child(v); m; m = json_next(m)) {
        const json *s = find(properties, json_key(m), json_key_bytes(m));
        if (!s) s = others;
        if (s && !fulfils(c, s, m, level)) return false;
    }
    return true;
}

/* The part of a pointer up to the next slash, with ~0 and ~1 resolved; moves *at behind it. */
static size_t take_step(const char **at, const char *end, char *out)
{
    size_t n = 0;
    for (; *at < end && **at != '/'; ++*at) {
        out[n] = **at;
        if (**at == '~' && *at + 1 < end) out[n] = *++*at == '1' ? '/' : '~';
        n++;
    }
    out[n] = 0;
    return n;
}

static const json *resolve(const json *root, const json *ref)
{
    const char *at = json_text(ref) + 1, *end = json_text(ref) + json_text_bytes(ref);
    char *step = malloc(json_text_bytes(ref) + 1);
    while (root && step && at < end) {
        size_t n;
        at++;
        n = take_step(&at, end, step);
        if (json_is_array(root)) {
            long index = strtol(step, NULL, 10);
            for (root = json_child(root); root && index > 0; index--) {
                root = json_next(root);
            }
        } else {
            root = find(root, step, n);
        }
    }
    free(step);
    return root;
}

static int count_fulfilled(struct check *c, const json *list, const json *v, int level)
{
    int n = 0;
    for (const json *one = json_child(list); one; one = json_next(one)) {
        n += fulfils(c, one, v, level);
    }
    return n;
}

static bool fulfils(struct check *c, const json *schema, const json *v, int level)
{
    const json *ref = json_get(schema, "$ref"), *all = json_get(schema, "allOf");
    const json *any = json_get(schema, "anyOf"), *one = json_get(schema, "oneOf");
    if (level > MAX_LEVEL || --c->budget < 0) return true;
    if (json_is_bool(schema)) return json_true(schema);
    level++;
    if (ref && !fulfils(c, resolve(c->root, ref), v, level)) return false;
    if (all && count_fulfilled(c, all, v, level) != json_size(all)) return false;
    if (any && count_fulfilled(c, any, v, level) == 0) return false;
    if (one && count_fulfilled(c, one, v, level) != 1 && c->budget >= 0) return false;
    return check_type(schema, v) && check_values(schema, v) && check_number(schema, v) &&
           check_string(schema, v) && check_array(c, schema, v, level) &&
           check_object(c, schema, v, level);
}

bool schema_check(const json *root, const json *schema, const json *value)
{
    struct check c = {root, 50000};
    return fulfils(&c, schema, value, 0);
}
