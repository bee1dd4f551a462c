/* safetensors_write.c - writes one file, all of it or nothing.
 *
 * Declarations become the JSON header; the data follows in the order of the declarations,
 * packed, because the format allows no holes. The header is padded with spaces so that the data
 * begins at a multiple of 64 bytes in the file and so in a mapping.
 *
 * The bytes go to PATH.tmp. Only a complete file is synced and renamed, so a full disk or a
 * stopped process leaves no half checkpoint under a name that a loader would open. The header
 * is passed through safetensors_check before it is written: the writer cannot produce what the
 * reader refuses (a name declared twice, a name that is not UTF-8).
 *
 * After a failure every call returns its status and leaves its sentence; finish or abandon then
 * removes the temporary file. */
#define _POSIX_C_SOURCE 200809L
#include "safetensors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"

enum { LENGTH_BYTES = 8, ALIGNMENT = 64 };

struct declared {
    char name[JSON_EXCERPT]; /* for messages */
    size_t bytes;
};

struct safetensors_writer {
    char *path, *temporary;
    int file;     /* -1 before open and after close */
    bool created; /* the temporary file is there and ours */
    struct json_out header;
    struct declared *tensor; /* [n] */
    size_t n, capacity;
    size_t data_bytes; /* of all tensors */
    bool started;      /* the header is written */
    size_t current;    /* the tensor that the next byte belongs to */
    size_t written;    /* bytes of it so far */
    pm_status status;  /* the first failure */
};

static void free_writer(struct safetensors_writer *w)
{
    free(w->tensor);
    free(w->header.text);
    free(w->temporary);
    free(w->path);
    free(w);
}

pm_status safetensors_create(struct safetensors_writer **out, const char *path)
{
    struct safetensors_writer *w = NULL;
    size_t bytes = strlen(path) + sizeof ".tmp";
    pm_status status;
    TRY(alloc_array(&w, 1, sizeof *w, path));
    w->file = -1;
    TRY_DONE(copy_text(&w->path, path, strlen(path)));
    TRY_DONE(alloc_array(&w->temporary, bytes, 1, path));
    snprintf(w->temporary, bytes, "%s.tmp", path);
    /* Python libraries refuse a checkpoint whose metadata does not name its framework. */
    json_put(&w->header, "{\"__metadata__\":{\"format\":\"pt\"}");
    TRY_DONE(w->header.status);
    w->file = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->file < 0) {
        status = fail(PM_ERR_IO, "%s: %s", w->temporary, strerror(errno));
        goto done;
    }
    w->created = true;
    *out = w;
    w = NULL;
done:
    safetensors_abandon(w);
    return status;
}

/* Keeps the first failure. */
static pm_status keep(struct safetensors_writer *w, pm_status status)
{
    if (w->status == PM_OK) w->status = status;
    return status;
}

/* *out = bytes of the tensor. */
static pm_status count_bytes(const struct safetensors_writer *w, const char *tensor,
                             pm_dtype type, int n_dim, const int64_t *dim, size_t *out)
{
    size_t bytes = (size_t)dtype_bits(type) / 8;
    if (bytes == 0) {
        return fail(PM_ERR_ARG, "%s: tensor %s: dtype %s, wanted one that the format stores",
                    w->path, tensor, dtype_name(type));
    }
    if (n_dim < 0 || n_dim > SAFETENSORS_MAX_DIM) {
        return fail(PM_ERR_ARG, "%s: tensor %s: %d dimensions, wanted at most %d", w->path,
                    tensor, n_dim, SAFETENSORS_MAX_DIM);
    }
    for (int i = 0; i < n_dim; i++) {
        if (dim[i] < 0 || !mul_size(&bytes, bytes, (size_t)dim[i])) {
            return fail(PM_ERR_ARG, "%s: tensor %s: dimension %d is %lld", w->path, tensor, i,
                        (long long)dim[i]);
        }
    }
    *out = bytes;
    return PM_OK;
}

static pm_status declare(struct safetensors_writer *w, const char *name, pm_dtype type,
                         int n_dim, const int64_t *dim)
{
    struct json_out *h = &w->header;
    struct declared *tensor;
    size_t bytes = 0, end;
    TRY(grow_array(&w->tensor, &w->capacity, w->n + 1, sizeof *w->tensor));
    tensor = &w->tensor[w->n];
    json_excerpt(tensor->name, name, strlen(name));
    TRY(count_bytes(w, tensor->name, type, n_dim, dim, &bytes));
    if (!add_size(&end, w->data_bytes, bytes)) {
        return fail(PM_ERR_ARG, "%s: tensor %s: %zu bytes are too many", w->path, tensor->name,
                    bytes);
    }
    json_put(h, ",");
    json_put_string(h, name, strlen(name));
    json_put(h, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(type));
    for (int i = 0; i < n_dim; i++) {
        json_put(h, "%s%lld", i ? "," : "", (long long)dim[i]);
    }
    json_put(h, "],\"data_offsets\":[%zu,%zu]}", w->data_bytes, end);
    TRY(h->status);
    tensor->bytes = bytes;
    w->n++;
    w->data_bytes = end;
    return PM_OK;
}

pm_status safetensors_declare(struct safetensors_writer *w, const char *name, pm_dtype type,
                              int n_dim, const int64_t *dim)
{
    assert(!w->started);
    if (w->status != PM_OK) return w->status;
    return keep(w, declare(w, name, type, n_dim, dim));
}

static pm_status write_all(struct safetensors_writer *w, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t n = write(w->file, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(PM_ERR_IO, "%s: %s", w->temporary, strerror(errno));
        at += n;
        bytes -= (size_t)n;
    }
    return PM_OK;
}

static pm_status ignore_tensor(void *arg, const struct stored *tensor)
{
    (void)arg;
    (void)tensor;
    return PM_OK;
}

/* Steps over tensors that have all their bytes, empty ones too. */
static void skip_complete(struct safetensors_writer *w)
{
    while (w->current < w->n && w->written == w->tensor[w->current].bytes) {
        w->current++;
        w->written = 0;
    }
}

static pm_status start(struct safetensors_writer *w)
{
    struct json_out file = {0};
    size_t n, pad;
    pm_status status;
    w->started = true;
    json_put(&w->header, "}");
    pad = (ALIGNMENT - (LENGTH_BYTES + w->header.n) % ALIGNMENT) % ALIGNMENT;
    n = w->header.n + pad;
    json_put(&file, "%*s%s%*s", LENGTH_BYTES, "", w->header.text, (int)pad, "");
    TRY_DONE(w->header.status);
    TRY_DONE(file.status);
    for (int i = 0; i < LENGTH_BYTES; i++) {
        file.text[i] = (char)(n >> 8 * i);
    }
    TRY_DONE(
        safetensors_check(w->path, file.text, file.n + w->data_bytes, ignore_tensor, NULL));
    TRY_DONE(write_all(w, file.text, file.n));
    skip_complete(w);
done:
    free(file.text);
    return status;
}

static pm_status write_data(struct safetensors_writer *w, const void *data, size_t bytes)
{
    if (!w->started) TRY(start(w));
    if (bytes == 0) return PM_OK;
    if (w->current == w->n) {
        return fail(PM_ERR_ARG, "%s: %zu bytes more than the tensors declared", w->path, bytes);
    }
    if (bytes > w->tensor[w->current].bytes - w->written) {
        return fail(PM_ERR_ARG, "%s: tensor %s: %zu bytes after %zu, wanted %zu in all",
                    w->path, w->tensor[w->current].name, bytes, w->written,
                    w->tensor[w->current].bytes);
    }
    TRY(write_all(w, data, bytes));
    w->written += bytes;
    skip_complete(w);
    return PM_OK;
}

pm_status safetensors_write(struct safetensors_writer *w, const void *data, size_t bytes)
{
    if (w->status != PM_OK) return w->status;
    return keep(w, write_data(w, data, bytes));
}

/* A checkpoint under its final name is on the disk: without fsync a crash could leave the name
 * and lose the bytes, and some file systems report a full disk only here. */
static pm_status complete(struct safetensors_writer *w)
{
    int file = w->file;
    if (!w->started) TRY(start(w));
    if (w->current < w->n) {
        return fail(PM_ERR_ARG, "%s: tensor %s: %zu bytes written, wanted %zu", w->path,
                    w->tensor[w->current].name, w->written, w->tensor[w->current].bytes);
    }
    if (fsync(file) != 0) return fail(PM_ERR_IO, "%s: %s", w->temporary, strerror(errno));
    w->file = -1;
    if (close(file) != 0) return fail(PM_ERR_IO, "%s: %s", w->temporary, strerror(errno));
    if (rename(w->temporary, w->path) != 0) {
        return fail(PM_ERR_IO, "%s: %s", w->path, strerror(errno));
    }
    return PM_OK;
}

pm_status safetensors_finish(struct safetensors_writer *w)
{
    pm_status status = w->status != PM_OK ? w->status : complete(w);
    if (status != PM_OK) {
        safetensors_abandon(w);
    } else {
        free_writer(w);
    }
    return status;
}

void safetensors_abandon(struct safetensors_writer *w)
{
    if (!w) return;
    if (w->file >= 0) close(w->file);
    if (w->created) unlink(w->temporary);
    free_writer(w);
}
