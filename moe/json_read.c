/* json_read.c - typed, ranged reads that name the path of what they did not like.
 *
 * Values have no link to their parent. The path of a failure is found by searching the document
 * from its root, which costs time only when something is wrong. */
#include "json.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Values on the way from the root to a leaf: the scan allows 128 levels of nesting. */
enum { MAX_TRAIL = 130 };

/* Fills trail[0..] with the values from v down to target; the length, or 0. */
static int trace(const json *v, const json *target, const json **trail, int depth)
{
    trail[depth] = v;
    if (v == target) return depth + 1;
    for (const json *m = json_child(v); m; m = json_next(m)) {
        int length = trace(m, target, trail, depth + 1);
        if (length) return length;
    }
    return 0;
}

void json_put_path(struct json_out *o, const struct json_doc *doc, const json *v)
{
    const json *trail[MAX_TRAIL];
    char key[JSON_EXCERPT];
    int length = trace(json_root(doc), v, trail, 0);
    for (int i = 1; i < length; i++) {
        if (json_key(trail[i])) {
            if (i > 1) json_put(o, ".");
            json_put(o, "%s", json_excerpt(key, json_key(trail[i]), json_key_bytes(trail[i])));
        } else {
            int at = 0;
            for (const json *m = json_child(trail[i - 1]); m != trail[i]; m = json_next(m)) {
                at++;
            }
            json_put(o, "[%d]", at);
        }
    }
}

static void put_found(struct json_out *o, const json *v)
{
    char text[JSON_EXCERPT];
    if (json_is_string(v)) {
        json_put(o, "\"%s\"", json_excerpt(text, json_text(v), json_text_bytes(v)));
    } else if (json_is_number(v)) {
        json_put(o, "%.17g", json_number(v));
    } else if (json_is_object(v)) {
        json_put(o, "an object");
    } else if (json_is_array(v)) {
        json_put(o, "an array of %d", json_size(v));
    } else {
        json_put(o, json_is_null(v) ? "null" : json_true(v) ? "true" : "false");
    }
}

pm_status json_fail(struct json_doc *doc, const json *v, const char *wanted)
{
    struct json_out path = {0}, found = {0};
    pm_status status;
    if (v) json_put_path(&path, doc, v);
    if (v) put_found(&found, v);
    status = fail(PM_ERR_FORMAT, "%s: %s%sfound %s, wanted %s", json_name(doc),
                  path.text ? path.text : "", path.text ? ": " : "",
                  found.text ? found.text : "nothing", wanted);
    free(path.text);
    free(found.text);
    return status;
}

static pm_status fail_missing(struct json_doc *doc, const json *object, const char *key,
                              const char *wanted)
{
    struct json_out path = {0};
    pm_status status;
    if (object) json_put_path(&path, doc, object);
    status = fail(PM_ERR_FORMAT, "%s: %s%s%s: missing, wanted %s", json_name(doc),
                  path.text ? path.text : "", path.text ? "." : "", key, wanted);
    free(path.text);
    return status;
}

/* *out = object[key], or NULL where it is absent or null and nothing needs it. */
static pm_status read_member(struct json_doc *doc, const json *object, const char *key,
                             bool need, const char *wanted, const json **out)
{
    const json *v = json_get(object, key);
    if (object && !json_is_object(object)) return json_fail(doc, object, "an object");
    if (json_is_null(v)) v = NULL;
    if (!v && need) return fail_missing(doc, object, key, wanted);
    *out = v;
    return PM_OK;
}

static pm_status read_int(struct json_doc *doc, const json *object, const char *key,
                          int64_t min, int64_t max, bool need, int *out)
{
    char wanted[80];
    const json *v = NULL;
    int64_t value;
    min = max_i64(min, INT_MIN);
    max = min_i64(max, INT_MAX);
    snprintf(wanted, sizeof wanted, "an integer from %lld to %lld", (long long)min,
             (long long)max);
    TRY(read_member(doc, object, key, need, wanted, &v));
    if (!v) return PM_OK;
    if (!json_integer(v, &value) || value < min || value > max)
        return json_fail(doc, v, wanted);
    *out = (int)value;
    return PM_OK;
}

pm_status json_need_int(struct json_doc *doc, const json *object, const char *key, int64_t min,
                        int64_t max, int *out)
{
    return read_int(doc, object, key, min, max, true, out);
}

pm_status json_want_int(struct json_doc *doc, const json *object, const char *key, int64_t min,
                        int64_t max, int *out)
{
    return read_int(doc, object, key, min, max, false, out);
}

static pm_status read_float(struct json_doc *doc, const json *object, const char *key,
                            double min, double max, bool need, float *out)
{
    char wanted[80];
    const json *v = NULL;
    min = fmax(min, -FLT_MAX);
    max = fmin(max, FLT_MAX);
    snprintf(wanted, sizeof wanted, "a number from %g to %g", min, max);
    TRY(read_member(doc, object, key, need, wanted, &v));
    if (!v) return PM_OK;
    if (!json_is_number(v) || json_number(v) < min || json_number(v) > max) {
        return json_fail(doc, v, wanted);
    }
    *out = (float)json_number(v);
    return PM_OK;
}

pm_status json_need_float(struct json_doc *doc, const json *object, const char *key, double min,
                          double max, float *out)
{
    return read_float(doc, object, key, min, max, true, out);
}

pm_status json_want_float(struct json_doc *doc, const json *object, const char *key, double min,
                          double max, float *out)
{
    return read_float(doc, object, key, min, max, false, out);
}

pm_status json_want_bool(struct json_doc *doc, const json *object, const char *key, bool *out)
{
    const json *v = NULL;
    TRY(read_member(doc, object, key, false, "true or false", &v));
    if (!v) return PM_OK;
    if (!json_is_bool(v)) return json_fail(doc, v, "true or false");
    *out = json_true(v);
    return PM_OK;
}

static pm_status read_text(struct json_doc *doc, const json *object, const char *key, bool need,
                           const char **out)
{
    const json *v = NULL;
    TRY(read_member(doc, object, key, need, "a string", &v));
    if (!v) return PM_OK;
    if (!json_is_string(v)) return json_fail(doc, v, "a string");
    if (strlen(json_text(v)) != json_text_bytes(v)) {
        return json_fail(doc, v, "a string without \\u0000");
    }
    *out = json_text(v);
    return PM_OK;
}

pm_status json_need_text(struct json_doc *doc, const json *object, const char *key,
                         const char **out)
{
    return read_text(doc, object, key, true, out);
}

pm_status json_want_text(struct json_doc *doc, const json *object, const char *key,
                         const char **out)
{
    return read_text(doc, object, key, false, out);
}
