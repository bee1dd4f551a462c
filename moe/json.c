/* json.c - JSON documents: a strict scan, the cJSON tree and raw access.
 *
 * The only file that includes cJSON, because cJSON has edges that every caller would have to
 * remember. This file removes them once:
 *
 *   cJSON                                      here
 *   valueint saturates at 32 bits              numbers are doubles; integers are checked
 *   the default getter ignores case            keys compare by bytes and length
 *   duplicate keys are kept                    rejected, in O(n log n) for any input
 *   nesting up to 1,000                        128, counted before the tree is built
 *   "\u0000" cuts a string short               lengths are kept beside the text
 *   01, 1., control characters, broken UTF-8,
 *   infinities, numbers cut at 63 characters   rejected
 *
 * A document is read in three passes. `json_scan_text` walks the bytes without memory of
 * structure: it validates strings, numbers and depth and notes the decoded length of every
 * string. Then cJSON builds the tree, and checks what the scan leaves out: brackets, commas,
 * colons. Last, `check_value` walks the tree in document order, hands each string its length
 * and rejects duplicate keys. The tree is ours after that, so lengths live in two fields that a
 * reader of cJSON would not use: `valueint` of a member is the length of its key, `valuedouble`
 * of a string the length of its text. `valuestring` of a number is its spelling, where that
 * says more than the double: it is freed with the tree.
 *
 * A document may be read from any thread; it is not changed after json_parse. */
#define _POSIX_C_SOURCE 200809L
#include "json.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "json_scan.h"

enum { FEW_MEMBERS = 8 }; /* up to here all pairs of keys are compared */

struct json_doc {
    char *name;
    cJSON *root;
};

/* Check: the tree against the scan */

struct keyed {
    uint64_t hash;
    const cJSON *member;
};

struct check {
    struct json_doc *doc;
    const struct json_scan *scan;
    size_t next_string, next_number;
    struct keyed *keyed; /* scratch of one object at a time */
    size_t capacity;
};

static int order_by_key(const void *left, const void *right)
{
    const struct keyed *a = left, *b = right;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    if (a->member->valueint != b->member->valueint) {
        return a->member->valueint < b->member->valueint ? -1 : 1;
    }
    return memcmp(a->member->string, b->member->string, (size_t)a->member->valueint);
}

static pm_status fail_duplicate(struct json_doc *doc, const cJSON *member)
{
    return json_fail(doc, member, "each key once");
}

/* Sorting by hash keeps the comparisons cheap, and unlike a hash table stays O(n log n) for
 * keys that were chosen to collide. */
static pm_status check_keys(struct check *k, const cJSON *object)
{
    size_t n = 0, i;
    for (const cJSON *m = object->child; m; m = m->next) {
        uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
        TRY(grow_array(&k->keyed, &k->capacity, n + 1, sizeof *k->keyed));
        for (int b = 0; b < m->valueint; b++) {
            hash = (hash ^ (unsigned char)m->string[b]) * 0x100000001b3u;
        }
        k->keyed[n++] = (struct keyed){hash, m};
    }
    if (n <= FEW_MEMBERS) {
        for (i = 1; i < n; i++) {
            for (size_t j = 0; j < i; j++) {
                if (order_by_key(&k->keyed[i], &k->keyed[j]) == 0) {
                    return fail_duplicate(k->doc, k->keyed[i].member);
                }
            }
        }
        return PM_OK;
    }
    qsort(k->keyed, n, sizeof *k->keyed, order_by_key);
    for (i = 1; i < n; i++) {
        if (order_by_key(&k->keyed[i - 1], &k->keyed[i]) == 0) {
            return fail_duplicate(k->doc, k->keyed[i].member);
        }
    }
    return PM_OK;
}

static int next_string_bytes(struct check *k)
{
    assert(k->next_string < k->scan->n_string);
    return k->scan->string_bytes[k->next_string++];
}

static pm_status check_number(struct check *k, cJSON *v)
{
    const struct json_lexeme *l = &k->scan->lexeme[k->next_number++];
    assert(k->next_number <= k->scan->n_number);
    if (!isfinite(v->valuedouble)) {
        return json_fail(k->doc, v, "a number that a double can hold");
    }
    return l->text ? copy_text(&v->valuestring, l->text, (size_t)l->n) : PM_OK;
}

/* The scan bounds the recursion. */
static pm_status check_value(struct check *k, cJSON *v)
{
    if (json_is_number(v)) TRY(check_number(k, v));
    if (json_is_string(v)) {
        int bytes = next_string_bytes(k);
        assert(v->valuestring[bytes] == 0);
        v->valuedouble = bytes;
    }
    for (cJSON *m = v->child; m; m = m->next) {
        if (m->string) {
            m->valueint = next_string_bytes(k);
            assert(m->string[m->valueint] == 0);
        }
        TRY(check_value(k, m));
    }
    return json_is_object(v) ? check_keys(k, v) : PM_OK;
}

static pm_status build_tree(struct json_doc *doc, struct json_scan *s)
{
    struct check k = {.doc = doc, .scan = s};
    const char *end = s->text;
    pm_status status;
    /* The closing zero counts as text: cJSON 1.7.15 reads one byte past the end of `{"a":1,`
     * otherwise. The scan saw to it that it is the only zero. */
    doc->root = cJSON_ParseWithLengthOpts(s->text, s->n + 1, &end, false);
    if (!doc->root) return json_scan_fail(s, (size_t)(end - s->text), "malformed JSON");
    while (*end && strchr(" \t\n\r", *end)) {
        end++;
    }
    if (*end) return json_scan_fail(s, (size_t)(end - s->text), "more after the JSON value");
    status = check_value(&k, doc->root);
    assert(status != PM_OK || (k.next_string == s->n_string && k.next_number == s->n_number));
    free(k.keyed);
    return status;
}

/* text has a zero after its n bytes. */
static pm_status parse_terminated(struct json_doc **out, const char *name, const char *text,
                                  size_t n)
{
    struct json_scan s = {.name = name, .text = text, .n = n};
    struct json_doc *doc = NULL;
    pm_status status;
    /* Lengths and offsets are stored as int. */
    if (n >= INT_MAX) return fail(PM_ERR_TOO_LONG, "%s: %zu bytes of JSON", name, n);
    TRY_DONE(json_scan_text(&s));
    TRY_DONE(alloc_array(&doc, 1, sizeof *doc, name));
    TRY_DONE(copy_text(&doc->name, name, strlen(name)));
    TRY_DONE(build_tree(doc, &s));
    *out = doc;
    doc = NULL;
done:
    json_free(doc);
    free(s.string_bytes);
    free(s.lexeme);
    return status;
}

pm_status json_parse(struct json_doc **out, const char *name, const char *text, size_t n)
{
    char *copy;
    pm_status status;
    TRY(copy_text(&copy, text, n));
    status = parse_terminated(out, name, copy, n);
    free(copy);
    return status;
}

/* Reads exactly n bytes: a file that shrinks meanwhile is an error, growth is ignored. */
static pm_status read_file(int file, const char *path, char *text, size_t n)
{
    size_t at = 0;
    while (at < n) {
        ssize_t got = read(file, text + at, n - at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
        if (got == 0) return fail(PM_ERR_IO, "%s: ends after %zu of %zu bytes", path, at, n);
        at += (size_t)got;
    }
    text[n] = 0;
    return PM_OK;
}

pm_status json_load(struct json_doc **out, const char *path, size_t max_bytes)
{
    struct stat info;
    char *text = NULL;
    pm_status status;
    /* Without O_NONBLOCK a FIFO would wait here for a writer. */
    int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(file, &info) != 0) {
        status = fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        status = fail(PM_ERR_IO, "%s: not a regular file", path);
        goto done;
    }
    if ((uint64_t)info.st_size > max_bytes) {
        status = fail(PM_ERR_TOO_LONG, "%s: %lld bytes, at most %zu wanted", path,
                      (long long)info.st_size, max_bytes);
        goto done;
    }
    TRY_DONE(alloc_array(&text, (size_t)info.st_size + 1, 1, path));
    TRY_DONE(read_file(file, path, text, (size_t)info.st_size));
    TRY_DONE(parse_terminated(out, path, text, (size_t)info.st_size));
done:
    free(text);
    close(file);
    return status;
}

void json_free(struct json_doc *doc)
{
    if (!doc) return;
    cJSON_Delete(doc->root);
    free(doc->name);
    free(doc);
}

/* Raw access */

const json *json_root(const struct json_doc *doc)
{
    return doc->root;
}

const char *json_name(const struct json_doc *doc)
{
    return doc->name;
}

bool json_is_object(const json *v)
{
    return cJSON_IsObject(v);
}

bool json_is_array(const json *v)
{
    return cJSON_IsArray(v);
}

bool json_is_string(const json *v)
{
    return cJSON_IsString(v);
}

bool json_is_number(const json *v)
{
    return cJSON_IsNumber(v);
}

bool json_is_bool(const json *v)
{
    return cJSON_IsBool(v);
}

bool json_is_null(const json *v)
{
    return cJSON_IsNull(v);
}

const json *json_get(const json *object, const char *key)
{
    size_t bytes = strlen(key);
    if (!json_is_object(object)) return NULL;
    for (const cJSON *m = object->child; m; m = m->next) {
        if (json_key_bytes(m) == bytes && memcmp(m->string, key, bytes) == 0) return m;
    }
    return NULL;
}

const json *json_child(const json *v)
{
    return v ? v->child : NULL;
}

const json *json_next(const json *v)
{
    return v ? v->next : NULL;
}

const char *json_key(const json *v)
{
    return v ? v->string : NULL;
}

size_t json_key_bytes(const json *v)
{
    return v && v->string ? (size_t)v->valueint : 0;
}

int json_size(const json *v)
{
    return v ? cJSON_GetArraySize(v) : 0;
}

const char *json_text(const json *v)
{
    return json_is_string(v) ? v->valuestring : NULL;
}

size_t json_text_bytes(const json *v)
{
    return json_is_string(v) ? (size_t)v->valuedouble : 0;
}

double json_number(const json *v)
{
    return json_is_number(v) ? v->valuedouble : 0;
}

const char *json_number_text(const json *v)
{
    return json_is_number(v) ? v->valuestring : NULL;
}

bool json_true(const json *v)
{
    return cJSON_IsTrue(v);
}

bool json_integer(const json *v, int64_t *out)
{
    const double limit = 9007199254740992.0; /* 2^53: beyond it neighbours collapse */
    double d = json_number(v);
    if (!json_is_number(v) || d != floor(d) || fabs(d) > limit) return false;
    *out = (int64_t)d;
    return true;
}
