/* json.h - typed, ranged, path-named reads of JSON. The only door to cJSON.
 *
 * A reader asks for a key with a type and a range; anything else fails with one sentence that
 * has file, path, what was found and what was wanted. */
#ifndef MOE_JSON_H
#define MOE_JSON_H

#include "kernels/base.h"

struct json_doc;
typedef struct cJSON json; /* a value inside a document, borrowed until json_free */

/* Parses n bytes; `name` (copied) is what errors call the document. Rejects: anything but one
 * JSON value with white space around it, duplicate keys in an object, nesting over 128, invalid
 * UTF-8, lone surrogates, numbers that a double cannot hold. Linear in n, but for the sort of
 * each object's keys. */
pm_status json_parse(struct json_doc **out, const char *name, const char *text, size_t n);

/* Reads and parses a regular file of at most max_bytes; errors call it by its path. PM_ERR_IO
 * when it cannot be read. */
pm_status json_load(struct json_doc **out, const char *path, size_t max_bytes);
void json_free(struct json_doc *doc);
const json *json_root(const struct json_doc *doc);
const char *json_name(const struct json_doc *doc);

bool json_is_object(const json *v);
bool json_is_array(const json *v);
bool json_is_string(const json *v);
bool json_is_number(const json *v);
bool json_is_bool(const json *v);
bool json_is_null(const json *v);

/* Raw access: NULL where absent or another type. Keys are case-sensitive. A lookup walks the
 * object's list, so loops over big objects use json_child / json_next. */
const json *json_get(const json *object, const char *key);
const json *json_child(const json *v); /* first member or element */
const json *json_next(const json *v);
const char *json_key(const json *v); /* of an object's member */
int json_size(const json *v);
const char *json_text(const json *v); /* of a string */
/* Bytes of json_key and json_text without the closing zero: "\u0000" is legal inside both. */
size_t json_key_bytes(const json *v);
size_t json_text_bytes(const json *v);
double json_number(const json *v); /* of a number, else 0 */
/* How a number is spelled where that says more than its double: with a point, an exponent, or
 * more than 15 characters. NULL for others. */
const char *json_number_text(const json *v);
bool json_true(const json *v);
/* Reads an integer value; false when v is not a whole number within +-2^53. */
bool json_integer(const json *v, int64_t *out);

/* Typed reads of object[key]. A missing or null key fails with PM_ERR_FORMAT in the `need_`
 * form and leaves *out untouched (the default) in the `want_` form; a wrong type or a value out
 * of range fails in both: "config.json: text_config.num_experts: found \"8\", wanted an integer
 * from 1 to 4096". */
pm_status json_need_int(struct json_doc *doc, const json *object, const char *key, int64_t min,
                        int64_t max, int *out);
pm_status json_want_int(struct json_doc *doc, const json *object, const char *key, int64_t min,
                        int64_t max, int *out);
pm_status json_need_float(struct json_doc *doc, const json *object, const char *key, double min,
                          double max, float *out);
pm_status json_want_float(struct json_doc *doc, const json *object, const char *key, double min,
                          double max, float *out);
pm_status json_want_bool(struct json_doc *doc, const json *object, const char *key, bool *out);
pm_status json_need_text(struct json_doc *doc, const json *object, const char *key,
                         const char **out);
pm_status json_want_text(struct json_doc *doc, const json *object, const char *key,
                         const char **out);

/* Fails with the path of v inside doc: "NAME: PATH: found VALUE, wanted WANTED". */
pm_status json_fail(struct json_doc *doc, const json *v, const char *wanted);

/* Writing: a growing text buffer. Starts as {0}; the caller frees text. */
struct json_out {
    char *text; /* [n] and a closing zero; NULL before the first byte */
    size_t n, capacity;
    pm_status status; /* first failure; writing goes on as a no-op */
};
void json_put(struct json_out *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The path of v inside doc as text_config.layer_types[3], nothing for the root. */
void json_put_path(struct json_out *o, const struct json_doc *doc, const json *v);
/* As they are; text may be NULL where n is 0. */
void json_put_bytes(struct json_out *o, const char *text, size_t n);
/* Quoted and escaped; each byte that is not UTF-8 becomes U+FFFD. */
void json_put_string(struct json_out *o, const char *text, size_t n);
/* Fills out with the first 100 bytes of text, made fit for a one-line message: what cannot be
 * printed becomes '?', a cut ends in "...". Returns out. */
enum { JSON_EXCERPT = 104 };
const char *json_excerpt(char out[JSON_EXCERPT], const char *text, size_t n);

#endif
