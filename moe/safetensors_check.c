/* safetensors_check.c - the rules of the format, applied to the header of one file.
 *
 *   [8 bytes: n, little endian][n bytes: JSON][data]
 *
 * The JSON maps tensor names to {dtype, shape, data_offsets}. What makes the format safe is
 * that every byte of the data belongs to exactly one tensor, so nothing can hide and nothing
 * can alias. That is checked in three steps: each entry alone (types, ranges, and that the
 * shape fills its interval), then all intervals sorted by where they begin (each starts where
 * the one before it ended), then the end of the last one against the size of the file.
 *
 * A type that the format knows and Polymath does not compute with is no error here: a
 * checkpoint may carry an F64 tensor that nobody loads. Sizes come from the file and are not
 * trusted, so every product is checked. The data is never read. */
#include "json.h"
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, MAX_HEADER = 100000000 };

/* The format's types. MXFP4 is not among them: models store it as U8 blocks and scales. */
static const struct format_type {
    const char *name;
    int bits;
    pm_dtype type;
} format_types[] = {
    {"F32", 32, PM_F32},
    {"F16", 16, PM_F16},
    {"BF16", 16, PM_BF16},
    {"F8_E4M3", 8, PM_F8_E4M3},
    {"U8", 8, PM_U8},
    {"I32", 32, PM_I32},
    {"I64", 64, PM_I64},
    {"BOOL", 8, PM_DTYPE_COUNT},
    {"F4", 4, PM_DTYPE_COUNT},
    {"F6_E2M3", 6, PM_DTYPE_COUNT},
    {"F6_E3M2", 6, PM_DTYPE_COUNT},
    {"F8_E5M2", 8, PM_DTYPE_COUNT},
    {"F8_E8M0", 8, PM_DTYPE_COUNT},
    {"I8", 8, PM_DTYPE_COUNT},
    {"I16", 16, PM_DTYPE_COUNT},
    {"U16", 16, PM_DTYPE_COUNT},
    {"U32", 32, PM_DTYPE_COUNT},
    {"F64", 64, PM_DTYPE_COUNT},
    {"C64", 64, PM_DTYPE_COUNT},
    {"U64", 64, PM_DTYPE_COUNT},
};

struct entry {
    struct stored tensor;
    uint64_t begin, end; /* in the data */
};

struct header {
    struct json_doc *doc;
    const char *data;
    uint64_t data_bytes;
    struct entry *entry; /* [n] */
    size_t n, capacity;
};

static pm_status read_type(struct header *h, const json *tensor, struct stored *out, int *bits)
{
    const json *type = json_get(tensor, "dtype");
    const char *name = json_text(type);
    const size_t n_type = sizeof format_types / sizeof *format_types;
    for (size_t i = 0; name && i < n_type; i++) {
        if (json_text_bytes(type) != strlen(format_types[i].name)) continue;
        if (strcmp(name, format_types[i].name) != 0) continue;
        out->type = format_types[i].type;
        *bits = format_types[i].bits;
        return PM_OK;
    }
    if (!type) return json_fail(h->doc, tensor, "a dtype");
    return json_fail(h->doc, type, "a dtype of safetensors");
}

/* Fills n_dim, dim and bytes. */
static pm_status read_shape(struct header *h, const json *tensor, int bits, struct stored *out)
{
    const json *shape = json_get(tensor, "shape");
    size_t n = 1;
    if (!shape) return json_fail(h->doc, tensor, "a shape");
    if (!json_is_array(shape) || json_size(shape) > SAFETENSORS_MAX_DIM) {
        return json_fail(h->doc, shape, "an array of at most 8 dimensions");
    }
    out->n_dim = 0;
    for (const json *d = json_child(shape); d; d = json_next(d)) {
        int64_t dim;
        if (!json_integer(d, &dim) || dim < 0) {
            return json_fail(h->doc, d, "an integer of at least 0");
        }
        out->dim[out->n_dim++] = dim;
        if (!mul_size(&n, n, (size_t)dim)) return json_fail(h->doc, d, "a smaller tensor");
    }
    if (!mul_size(&n, n, (size_t)bits)) return json_fail(h->doc, shape, "a smaller tensor");
    if (n % 8 != 0) return json_fail(h->doc, shape, "elements that fill whole bytes");
    out->bytes = n / 8;
    return PM_OK;
}

static pm_status read_interval(struct header *h, const json *tensor, struct entry *out)
{
    const json *offsets = json_get(tensor, "data_offsets");
    int64_t begin, end;
    if (!offsets) return json_fail(h->doc, tensor, "data_offsets");
    if (!json_is_array(offsets) || json_size(offsets) != 2) {
        return json_fail(h->doc, offsets, "an array of begin and end");
    }
    if (!json_integer(json_child(offsets), &begin) || begin < 0) {
        return json_fail(h->doc, json_child(offsets), "an integer of at least 0");
    }
    if (!json_integer(json_next(json_child(offsets)), &end) || end < begin) {
        return json_fail(h->doc, json_next(json_child(offsets)), "an integer not below begin");
    }
    out->begin = (uint64_t)begin;
    out->end = (uint64_t)end;
    return PM_OK;
}

/* The name for a message: a file may put a line feed into it, or a megabyte. */
static const char *excerpt(char out[JSON_EXCERPT], const struct entry *e)
{
    return json_excerpt(out, e->tensor.name, strlen(e->tensor.name));
}

/* What only shape, interval and file together can say. */
static pm_status check_entry(const struct header *h, const struct entry *e)
{
    const char *name = json_name(h->doc);
    char tensor[JSON_EXCERPT];
    if (e->end > h->data_bytes) {
        return fail(PM_ERR_FORMAT,
                    "%s: tensor %s: ends at byte %llu of the data, which has %llu; the file "
                    "may be cut short",
                    name, excerpt(tensor, e), (unsigned long long)e->end,
                    (unsigned long long)h->data_bytes);
    }
    if (e->end - e->begin != e->tensor.bytes) {
        return fail(PM_ERR_FORMAT,
                    "%s: tensor %s: data_offsets hold %llu bytes, dtype and shape need %zu",
                    name, excerpt(tensor, e), (unsigned long long)(e->end - e->begin),
                    e->tensor.bytes);
    }
    return PM_OK;
}

static pm_status read_tensor(struct header *h, const json *tensor)
{
    struct entry e = {.tensor = {.name = json_key(tensor)}};
    int bits = 0;
    if (!json_is_object(tensor)) return json_fail(h->doc, tensor, "an object");
    if (strlen(e.tensor.name) != json_key_bytes(tensor)) {
        return json_fail(h->doc, tensor, "a name without \\u0000");
    }
    TRY(read_type(h, tensor, &e.tensor, &bits));
    TRY(read_shape(h, tensor, bits, &e.tensor));
    TRY(read_interval(h, tensor, &e));
    TRY(check_entry(h, &e));
    e.tensor.data = h->data + e.begin;
    TRY(grow_array(&h->entry, &h->capacity, h->n + 1, sizeof *h->entry));
    h->entry[h->n++] = e;
    return PM_OK;
}

static pm_status check_metadata(struct header *h, const json *metadata)
{
    if (json_is_null(metadata)) return PM_OK;
    if (!json_is_object(metadata)) return json_fail(h->doc, metadata, "an object of strings");
    for (const json *m = json_child(metadata); m; m = json_next(m)) {
        if (!json_is_string(m)) return json_fail(h->doc, m, "a string");
    }
    return PM_OK;
}

static int order_by_begin(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    /* An empty tensor stands before the one that begins at the same byte. */
    if (a->end != b->end) return a->end < b->end ? -1 : 1;
    return strcmp(a->tensor.name, b->tensor.name);
}

/* Sorts the entries and checks that they cover the data without overlap. */
static pm_status check_layout(struct header *h)
{
    const char *name = json_name(h->doc);
    char tensor[JSON_EXCERPT], other[JSON_EXCERPT];
    uint64_t at = 0;
    if (h->n > 0) qsort(h->entry, h->n, sizeof *h->entry, order_by_begin);
    for (size_t i = 0; i < h->n; i++) {
        const struct entry *e = &h->entry[i];
        if (e->begin < at) {
            return fail(PM_ERR_FORMAT,
                        "%s: tensor %s: begins at byte %llu, inside of tensor %s that ends at "
                        "%llu",
                        name, excerpt(tensor, e), (unsigned long long)e->begin,
                        excerpt(other, e - 1), (unsigned long long)at);
        }
        if (e->begin > at) {
            return fail(
                PM_ERR_FORMAT, "%s: tensor %s: begins at byte %llu, wanted %llu without a gap",
                name, excerpt(tensor, e), (unsigned long long)e->begin, (unsigned long long)at);
        }
        at = e->end;
    }
    if (at != h->data_bytes) {
        return fail(PM_ERR_FORMAT, "%s: %llu bytes of data, the tensors cover %llu", name,
                    (unsigned long long)h->data_bytes, (unsigned long long)at);
    }
    return PM_OK;
}

/* *n = bytes of JSON. */
static pm_status check_length(const char *name, const unsigned char *file, uint64_t size,
                              uint64_t *n)
{
    uint64_t length = 0;
    if (size < LENGTH_BYTES) {
        return fail(PM_ERR_FORMAT, "%s: %llu bytes, a safetensors file has at least 8", name,
                    (unsigned long long)size);
    }
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        length = length << 8 | file[i];
    }
    if (length > MAX_HEADER) {
        return fail(PM_ERR_FORMAT, "%s: header of %llu bytes, at most 100000000 wanted", name,
                    (unsigned long long)length);
    }
    if (length > size - LENGTH_BYTES) {
        return fail(PM_ERR_FORMAT,
                    "%s: header of %llu bytes, but the file has only %llu; it may be cut short",
                    name, (unsigned long long)length, (unsigned long long)size - LENGTH_BYTES);
    }
    if (length == 0 || file[LENGTH_BYTES] != '{') {
        return fail(PM_ERR_FORMAT, "%s: the header does not start with {", name);
    }
    *n = length;
    return PM_OK;
}

pm_status safetensors_check(const char *name, const void *file, uint64_t size,
                            safetensors_each *each, void *arg)
{
    struct header h = {0};
    const char *text = (const char *)file + LENGTH_BYTES;
    const json *metadata;
    uint64_t n = 0;
    pm_status status;
    TRY(check_length(name, file, size, &n));
    h.data = text + n;
    h.data_bytes = size - LENGTH_BYTES - n;
    TRY_DONE(json_parse(&h.doc, name, text, n));
    metadata = json_get(json_root(h.doc), "__metadata__");
    for (const json *m = json_child(json_root(h.doc)); m; m = json_next(m)) {
        if (m == metadata) {
            TRY_DONE(check_metadata(&h, m));
        } else {
            TRY_DONE(read_tensor(&h, m));
        }
    }
    TRY_DONE(check_layout(&h));
    for (size_t i = 0; i < h.n; i++) {
        TRY_DONE(each(arg, &h.entry[i].tensor));
    }
done:
    free(h.entry);
    json_free(h.doc);
    return status;
}
