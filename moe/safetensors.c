/* safetensors.c - an open checkpoint: mapped shards and one table of tensors.
 *
 * Every shard is mapped whole and read-only. Opening reads the headers and nothing else, so it
 * costs milliseconds whatever the size of the weights, and a rank that loads its slice pages in
 * its slice. No advice is given to the kernel: the loader reads each tensor front to back,
 * which the default read-ahead serves, while MADV_SEQUENTIAL would drop pages that the CPU
 * backend computes from in place, and MADV_WILLNEED would fetch the slices of other ranks.
 *
 * With an index, the index decides. Published checkpoints exist that reuse shards of another
 * checkpoint and so carry tensors that the index does not list, or lists elsewhere; taking
 * those would overwrite the right ones. So a shard contributes exactly the tensors that the
 * index assigns to it, all of them, and the names of a folder are unique because JSON keys are.
 *
 * The table is sorted by name once, and a name is found by bisection: for the 50,000 tensors of
 * a large model that is 16 comparisons, and unlike a hash table it has no bad case that a file
 * could provoke.
 *
 * All sizes come from safetensors_check.c, which trusts nothing. Files are opened so that a
 * FIFO or a device is refused and never waited for. */
#define _POSIX_C_SOURCE 200809L
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"

enum { MAX_INDEX = 1 << 28 }; /* bytes of model.safetensors.index.json */

struct shard {
    char *path;
    void *data; /* [bytes] the mapping; NULL before it */
    size_t bytes;
};

struct safetensors {
    struct shard *shard; /* [n_shard] */
    size_t n_shard, shard_capacity;
    struct stored *tensor; /* [n] shard by shard; owns the names */
    size_t n, capacity;
    const struct stored **by_name; /* [n] sorted */
};

/* One line of the index. */
struct listed {
    const char *file, *name; /* in the document */
    bool seen;
};

/* What add_tensor needs to know about the shard that is being read. */
struct adding {
    struct safetensors *st;
    struct listed *listed; /* [n_listed] the index's names for this shard, sorted */
    size_t n_listed;
    bool all; /* no index: take every tensor */
};

static int order_listed(const void *left, const void *right)
{
    const struct listed *a = left, *b = right;
    int order = strcmp(a->file, b->file);
    return order ? order : strcmp(a->name, b->name);
}

static int compare_name_listed(const void *name, const void *listed)
{
    return strcmp(name, ((const struct listed *)listed)->name);
}

static int order_by_name(const void *left, const void *right)
{
    const struct stored *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static int compare_name(const void *name, const void *tensor)
{
    const struct stored *const *t = tensor;
    return strcmp(name, (*t)->name);
}

static pm_status add_tensor(void *arg, const struct stored *tensor)
{
    struct adding *adding = arg;
    struct safetensors *st = adding->st;
    struct stored copy = *tensor;
    char *name;
    if (!adding->all) {
        struct listed *found = bsearch(tensor->name, adding->listed, adding->n_listed,
                                       sizeof *adding->listed, compare_name_listed);
        if (!found) return PM_OK;
        found->seen = true;
    }
    TRY(grow_array(&st->tensor, &st->capacity, st->n + 1, sizeof *st->tensor));
    TRY(copy_text(&name, tensor->name, strlen(tensor->name)));
    copy.name = name;
    copy.file = (int)st->n_shard - 1;
    st->tensor[st->n++] = copy;
    return PM_OK;
}

static pm_status map_file(struct shard *shard, int file)
{
    struct stat info;
    void *data;
    if (fstat(file, &info) != 0) {
        return fail(PM_ERR_IO, "%s: %s", shard->path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return fail(PM_ERR_IO, "%s: not a regular file", shard->path);
    }
    if (info.st_size == 0) return fail(PM_ERR_FORMAT, "%s: empty file", shard->path);
    data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) {
        return fail(PM_ERR_IO, "%s: cannot map %lld bytes: %s", shard->path,
                    (long long)info.st_size, strerror(errno));
    }
    shard->data = data;
    shard->bytes = (size_t)info.st_size;
    return PM_OK;
}

/* Takes over path, maps the file and adds its tensors. */
static pm_status add_shard(struct safetensors *st, char *path, struct adding *adding)
{
    struct shard *shard;
    pm_status status =
        grow_array(&st->shard, &st->shard_capacity, st->n_shard + 1, sizeof *shard);
    int file;
    if (status != PM_OK) {
        free(path);
        return status;
    }
    shard = &st->shard[st->n_shard++];
    *shard = (struct shard){.path = path};
    /* Without O_NONBLOCK a FIFO would wait here for a writer. */
    file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
    status = map_file(shard, file);
    close(file);
    TRY(status);
    return safetensors_check(path, shard->data, shard->bytes, add_tensor, adding);
}

static pm_status join_path(char **out, const char *folder, const char *file)
{
    size_t bytes = strlen(folder) + strlen(file) + 2;
    char *path;
    TRY(alloc_array(&path, bytes, 1, folder));
    snprintf(path, bytes, "%s/%s", folder, file);
    *out = path;
    return PM_OK;
}

/* Adds the shard of listed[0..n), which all have the same file. */
static pm_status add_listed(struct safetensors *st, const char *folder, struct listed *listed,
                            size_t n)
{
    struct adding adding = {.st = st, .listed = listed, .n_listed = n};
    char *path, name[JSON_EXCERPT];
    TRY(join_path(&path, folder, listed[0].file));
    TRY(add_shard(st, path, &adding));
    for (size_t i = 0; i < n; i++) {
        if (listed[i].seen) continue;
        return fail(PM_ERR_FORMAT, "%s: tensor %s: missing, the index lists it here", path,
                    json_excerpt(name, listed[i].name, strlen(listed[i].name)));
    }
    return PM_OK;
}

/* Whether text names a file inside its folder and fits in a one-line message. */
static bool is_plain_name(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == '/') return false;
    }
    return n > 0 && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}

/* Fills listed[n] from the weight map. */
static pm_status read_weight_map(struct json_doc *doc, const json *map, struct listed *listed)
{
    size_t n = 0;
    for (const json *m = json_child(map); m; m = json_next(m)) {
        const char *file = json_text(m);
        if (!file || !is_plain_name(file, json_text_bytes(m))) {
            return json_fail(doc, m, "the name of a file in the same folder");
        }
        if (strlen(json_key(m)) != json_key_bytes(m)) {
            return json_fail(doc, m, "a name without \\u0000");
        }
        listed[n++] = (struct listed){.file = file, .name = json_key(m)};
    }
    return PM_OK;
}

static pm_status open_index(struct safetensors *st, const char *folder, const char *index)
{
    struct json_doc *doc = NULL;
    struct listed *listed = NULL;
    const json *map;
    size_t n, first, last;
    pm_status status;
    TRY_DONE(json_load(&doc, index, MAX_INDEX));
    map = json_get(json_root(doc), "weight_map");
    if (!json_is_object(map) || !json_child(map)) {
        status = json_fail(doc, map, "a weight_map of tensor names to files");
        goto done;
    }
    n = (size_t)json_size(map);
    TRY_DONE(alloc_array(&listed, n, sizeof *listed, index));
    TRY_DONE(read_weight_map(doc, map, listed));
    qsort(listed, n, sizeof *listed, order_listed);
    for (first = 0; first < n; first = last) {
        for (last = first + 1; last < n; last++) {
            if (strcmp(listed[last].file, listed[first].file) != 0) break;
        }
        TRY_DONE(add_listed(st, folder, listed + first, last - first));
    }
done:
    free(listed);
    json_free(doc);
    return status;
}

/* One file wins over an index, as it does for the libraries that write these folders. */
static pm_status open_folder(struct safetensors *st, const char *folder)
{
    struct adding all = {.st = st, .all = true};
    char *path;
    pm_status status;
    TRY(join_path(&path, folder, "model.safetensors"));
    if (access(path, F_OK) == 0) return add_shard(st, path, &all);
    free(path);
    TRY(join_path(&path, folder, "model.safetensors.index.json"));
    if (access(path, F_OK) == 0) {
        status = open_index(st, folder, path);
    } else {
        status =
            fail(PM_ERR_IO,
                 "%s: has neither model.safetensors nor model.safetensors.index.json", folder);
    }
    free(path);
    return status;
}

static pm_status open_path(struct safetensors *st, const char *path)
{
    struct adding all = {.st = st, .all = true};
    struct stat info;
    char *copy;
    if (stat(path, &info) != 0) return fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return open_folder(st, path);
    TRY(copy_text(&copy, path, strlen(path)));
    return add_shard(st, copy, &all);
}

static pm_status sort_names(struct safetensors *st, const char *what)
{
    TRY(alloc_array(&st->by_name, st->n, sizeof *st->by_name, what));
    for (size_t i = 0; i < st->n; i++) {
        st->by_name[i] = &st->tensor[i];
    }
    qsort(st->by_name, st->n, sizeof *st->by_name, order_by_name);
    return PM_OK;
}

pm_status safetensors_open(struct safetensors **out, const char *path)
{
    struct safetensors *st = NULL;
    pm_status status;
    TRY(alloc_array(&st, 1, sizeof *st, path));
    TRY_DONE(open_path(st, path));
    TRY_DONE(sort_names(st, path));
    *out = st;
    st = NULL;
done:
    safetensors_close(st);
    return status;
}

static pm_status list_tensors(struct safetensors *st, const char *title,
                              const struct stored *tensor, size_t n)
{
    struct adding all = {.st = st, .all = true};
    TRY(grow_array(&st->shard, &st->shard_capacity, 1, sizeof *st->shard));
    st->shard[0] = (struct shard){0};
    st->n_shard = 1;
    TRY(copy_text(&st->shard[0].path, title, strlen(title)));
    for (size_t i = 0; i < n; i++) {
        TRY(add_tensor(&all, &tensor[i]));
        st->tensor[i].data = NULL;
        st->shard[0].bytes += tensor[i].bytes;
    }
    TRY(sort_names(st, title));
    for (size_t i = 1; i < n; i++) {
        if (strcmp(st->by_name[i - 1]->name, st->by_name[i]->name) != 0) continue;
        return fail(PM_ERR_FORMAT, "%s: tensor %s: listed twice", title, st->by_name[i]->name);
    }
    return PM_OK;
}

pm_status safetensors_list(struct safetensors **out, const char *title,
                           const struct stored *tensor, size_t n)
{
    struct safetensors *st = NULL;
    pm_status status;
    TRY(alloc_array(&st, 1, sizeof *st, title));
    TRY_DONE(list_tensors(st, title, tensor, n));
    *out = st;
    st = NULL;
done:
    safetensors_close(st);
    return status;
}

void safetensors_close(struct safetensors *st)
{
    if (!st) return;
    for (size_t i = 0; i < st->n; i++) {
        free((char *)st->tensor[i].name);
    }
    for (size_t i = 0; i < st->n_shard; i++) {
        if (st->shard[i].data) munmap(st->shard[i].data, st->shard[i].bytes);
        free(st->shard[i].path);
    }
    free(st->by_name);
    free(st->tensor);
    free(st->shard);
    free(st);
}

int64_t safetensors_count(const struct safetensors *st)
{
    return (int64_t)st->n;
}

const struct stored *safetensors_at(const struct safetensors *st, int64_t i)
{
    return i >= 0 && i < (int64_t)st->n ? &st->tensor[i] : NULL;
}

const struct stored *safetensors_find(const struct safetensors *st, const char *name)
{
    const struct stored **found =
        bsearch(name, st->by_name, st->n, sizeof *st->by_name, compare_name);
    return found ? *found : NULL;
}

const char *safetensors_file(const struct safetensors *st, int file)
{
    return st->shard[file].path;
}

uint64_t safetensors_bytes(const struct safetensors *st)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < st->n_shard; i++) {
        bytes += st->shard[i].bytes;
    }
    return bytes;
}

void safetensors_touch(const struct safetensors *st)
{
    enum { PAGE = 4096 };
    volatile unsigned char sink = 0;
    for (size_t i = 0; i < st->n_shard; i++) {
        const unsigned char *p = st->shard[i].data;
        for (size_t at = 0; p && at < st->shard[i].bytes; at += PAGE) {
            sink = (unsigned char)(sink + p[at]);
        }
    }
}
