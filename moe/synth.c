/* synth.c - writes a random checkpoint: configuration, tokenizer, tensors.
 *
 * Everything that can be refused is refused before the folder is touched: the configuration is
 * made and checked, the tensors are listed and their bytes added up. The list is cut into
 * shards in its order; a shard is closed when the next tensor would not fit. Then each file is
 * written from front to back, in blocks of a few MiB, which the generator can make at any place
 * of any tensor. When a file fails, what was written before is removed: there is no half
 * checkpoint. */
#define _POSIX_C_SOURCE 200809L
#include "synth.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "safetensors.h"
#include "synth_config.h"
#include "synth_tensors.h"
#include "synth_values.h"

enum { PATH_BYTES = 4096, NAME_BYTES = 64, BLOCK = 1 << 22 };

struct item {
    struct synth_tensor tensor; /* the name is ours */
    int64_t n;                  /* values */
    uint64_t bytes;
    int shard;
};

struct synth {
    const struct synth_options *o;
    const struct synth_dtype *dtype;
    struct json_out text; /* config.json */
    struct config *config;
    struct item *item; /* [n] in the order of the files */
    size_t n, capacity;
    int n_shard;
    uint64_t shard_bytes, total, done; /* of the last shard, of all, written */
    void *block;                       /* [BLOCK] */
    bool made_folder;
};

static pm_status add_item(void *arg, const struct synth_tensor *t)
{
    struct synth *s = arg;
    struct item *item;
    uint64_t most = s->o->shard_bytes;
    size_t total;
    uint64_t bytes;
    int64_t n;
    char *name;
    TRY(synth_tensor_size(t, &n, &bytes));
    if (!add_size(&total, s->total, bytes) || total > INT64_MAX / 2) {
        return fail(PM_ERR_ARG, "all tensors together: their size does not fit 64 bits");
    }
    TRY(grow_array(&s->item, &s->capacity, s->n + 1, sizeof *s->item));
    TRY(copy_text(&name, t->name, strlen(t->name)));
    if (most && s->shard_bytes && (bytes > most || s->shard_bytes > most - bytes)) {
        s->n_shard++;
        s->shard_bytes = 0;
    }
    s->shard_bytes += bytes;
    s->total = total;
    item = &s->item[s->n++];
    *item = (struct item){*t, n, bytes, s->n_shard};
    item->tensor.name = name;
    return PM_OK;
}

static pm_status plan(struct synth *s)
{
    TRY(synth_find_dtype(&s->dtype, s->o->dtype));
    TRY(synth_config(&s->text, s->o, s->dtype));
    TRY(config_parse(&s->config, "config.json", s->text.text, s->text.n));
    TRY(synth_walk(s->config, s->dtype->plain, synth_prefix(&s->text), add_item, s));
    s->n_shard++;
    return alloc_array(&s->block, BLOCK, 1, "a block of tensors");
}

static pm_status check_empty(const char *folder)
{
    struct dirent *entry;
    bool empty = true;
    DIR *dir = opendir(folder);
    if (!dir) return fail(PM_ERR_ARG, "%s: %s, wanted a folder", folder, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        empty = empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
    }
    closedir(dir);
    if (!empty) return fail(PM_ERR_ARG, "%s: not empty, wanted a new or empty folder", folder);
    return PM_OK;
}

static pm_status make_folder(struct synth *s)
{
    const char *out = s->o->out;
    if (strlen(out) + NAME_BYTES >= PATH_BYTES) {
        return fail(PM_ERR_ARG, "%.100s...: too long a path", out);
    }
    if (mkdir(out, 0777) == 0) {
        s->made_folder = true;
        return PM_OK;
    }
    if (errno != EEXIST) return fail(PM_ERR_IO, "%s: %s", out, strerror(errno));
    return check_empty(out);
}

static void path_of(const struct synth *s, char *path, const char *name)
{
    snprintf(path, PATH_BYTES, "%s/%s", s->o->out, name);
}

static void shard_name(const struct synth *s, char *name, int shard)
{
    if (s->n_shard == 1) {
        snprintf(name, NAME_BYTES, "model.safetensors");
    } else {
        snprintf(name, NAME_BYTES, "model-%05d-of-%05d.safetensors", shard + 1, s->n_shard);
    }
}

/* Writes the text and a new line, and frees it. */
static pm_status write_text(const struct synth *s, const char *name, struct json_out *text)
{
    char path[PATH_BYTES];
    FILE *file = NULL;
    bool good;
    json_put(text, "\n");
    if (text->status == PM_OK) {
        path_of(s, path, name);
        file = fopen(path, "wb");
        good = file && fwrite(text->text, 1, text->n, file) == text->n;
        if (file && fclose(file) != 0) good = false;
        if (!good) text->status = fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
    }
    free(text->text);
    text->text = NULL;
    return text->status;
}

static pm_status write_texts(struct synth *s)
{
    struct json_out generation = {0}, tokenizer = {0};
    TRY(write_text(s, "config.json", &s->text));
    synth_generation_config(&generation, s->config);
    TRY(write_text(s, "generation_config.json", &generation));
    if (s->config->vocab <= SYNTH_END) return PM_OK;
    synth_tokenizer(&tokenizer);
    return write_text(s, "tokenizer.json", &tokenizer);
}

static pm_status write_index(const struct synth *s)
{
    struct json_out index = {0};
    char file[NAME_BYTES];
    if (s->n_shard == 1) return PM_OK;
    json_put(&index,
             "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
             (unsigned long long)s->total);
    for (size_t i = 0; i < s->n; i++) {
        const char *name = s->item[i].tensor.name;
        json_put(&index, "%s\n    ", i ? "," : "");
        json_put_string(&index, name, strlen(name));
        shard_name(s, file, s->item[i].shard);
        json_put(&index, ": \"%s\"", file);
    }
    json_put(&index, "\n  }\n}");
    return write_text(s, "model.safetensors.index.json", &index);
}

static pm_status write_values(struct synth *s, struct safetensors_writer *w,
                              const struct item *item)
{
    const struct synth_tensor *t = &item->tensor;
    struct synth_values values;
    int64_t bits = dtype_bits(t->type), step = (int64_t)BLOCK * 8 / bits;
    synth_values_init(&values, s->o->seed, t->name, t->type, t->mean, t->std);
    for (int64_t first = 0; first < item->n; first += step) {
        int64_t n = min_i64(step, item->n - first);
        size_t bytes = (size_t)(n * bits / 8);
        synth_values_fill(&values, s->block, first, n);
        TRY(safetensors_write(w, s->block, bytes));
        s->done += bytes;
        if (s->o->progress) s->o->progress(s->o->arg, s->done, s->total);
    }
    return PM_OK;
}

/* The shard that begins with item[first]; *next is the first item behind it. */
static pm_status write_shard(struct synth *s, size_t first, size_t *next)
{
    struct safetensors_writer *w = NULL;
    char path[PATH_BYTES], name[NAME_BYTES];
    int shard = s->item[first].shard;
    size_t end = first;
    pm_status status;
    shard_name(s, name, shard);
    path_of(s, path, name);
    TRY_DONE(safetensors_create(&w, path));
    for (; end < s->n && s->item[end].shard == shard; end++) {
        const struct synth_tensor *t = &s->item[end].tensor;
        pm_dtype stored = t->type == PM_MXFP4 ? PM_U8 : t->type;
        TRY_DONE(safetensors_declare(w, t->name, stored, t->n_dim, t->dim));
    }
    for (size_t i = first; i < end; i++) {
        TRY_DONE(write_values(s, w, &s->item[i]));
    }
    *next = end;
    status = safetensors_finish(w);
    w = NULL;
done:
    safetensors_abandon(w);
    return status;
}

static pm_status write_files(struct synth *s)
{
    size_t next = 0;
    TRY(write_texts(s));
    while (next < s->n) {
        TRY(write_shard(s, next, &next));
    }
    return write_index(s);
}

/* Takes back what a failed write left; the folder was empty before. */
static void remove_files(const struct synth *s)
{
    static const char *const text[] = {"config.json", "generation_config.json",
                                       "tokenizer.json", "model.safetensors.index.json"};
    char path[PATH_BYTES], name[NAME_BYTES];
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        path_of(s, path, text[i]);
        unlink(path);
    }
    for (int i = 0; i < s->n_shard; i++) {
        shard_name(s, name, i);
        path_of(s, path, name);
        unlink(path);
    }
    if (s->made_folder) rmdir(s->o->out);
}

pm_status synth_write(const struct synth_options *o, uint64_t *bytes)
{
    struct synth s = {.o = o};
    pm_status status;
    assert(o->family && o->out);
    TRY_DONE(plan(&s));
    TRY_DONE(make_folder(&s));
    status = write_files(&s);
    if (status != PM_OK) {
        remove_files(&s);
    } else if (bytes) {
        *bytes = s.total;
    }
done:
    for (size_t i = 0; i < s.n; i++) {
        free((char *)s.item[i].tensor.name);
    }
    free(s.item);
    free(s.block);
    free(s.text.text);
    config_free(s.config);
    return status;
}
