/* synth_source.c - a random checkpoint in memory alone: for shapes that no disk should hold.
 *
 * The generator makes any value of any tensor from its index, so a tensor is filled by many
 * threads, piece by piece, in whatever order the loader asks. The table of a tensor's levels is
 * made when its first piece is asked for and kept until another tensor is. */
#include "synth_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/pool.h"
#include "safetensors.h"
#include "synth_config.h"
#include "synth_tensors.h"
#include "synth_values.h"

enum { PIECE = 1 << 18 }; /* bytes of a task, a multiple of any value pair */

struct spread {
    pm_dtype type; /* of the values: MXFP4 where the file has bytes */
    double mean, std;
};

struct synth_source {
    uint64_t seed;
    char name[80];
    struct config *config;
    struct stored *tensor; /* [n]; owns the names */
    struct spread *spread; /* [n] */
    size_t n, capacity, spread_capacity;
    struct safetensors *files;
    bool taken; /* files are the weights' */
    struct pool *pool;
    struct synth_values values; /* of the tensor `ready` */
    const struct stored *ready;
};

static pm_status add_tensor(void *arg, const struct synth_tensor *t)
{
    struct synth_source *s = arg;
    struct stored *to;
    uint64_t bytes;
    int64_t n;
    char *name;
    TRY(synth_tensor_size(t, &n, &bytes));
    TRY(grow_array(&s->tensor, &s->capacity, s->n + 1, sizeof *s->tensor));
    TRY(grow_array(&s->spread, &s->spread_capacity, s->n + 1, sizeof *s->spread));
    TRY(copy_text(&name, t->name, strlen(t->name)));
    to = &s->tensor[s->n];
    *to = (struct stored){.name = name,
                          .bytes = bytes,
                          .type = t->type == PM_MXFP4 ? PM_U8 : t->type,
                          .n_dim = t->n_dim};
    memcpy(to->dim, t->dim, sizeof t->dim);
    s->spread[s->n++] = (struct spread){t->type, t->mean, t->std};
    return PM_OK;
}

struct piece {
    const struct synth_values *values;
    char *to;
    size_t first, n; /* bytes */
};

static void fill_piece(void *arg, int64_t task, int worker)
{
    const struct piece *p = arg;
    size_t at = (size_t)task * PIECE, left = p->n - at, n = left < PIECE ? left : PIECE;
    int64_t bits = dtype_bits(p->values->type);
    (void)worker;
    synth_values_fill(p->values, p->to + at, (int64_t)(p->first + at) * 8 / bits,
                      (int64_t)n * 8 / bits);
}

static void fill(void *arg, const struct stored *t, size_t first, size_t n, void *to)
{
    struct synth_source *s = arg;
    struct piece p = {&s->values, to, first, n};
    if (s->ready != t) {
        const struct spread *spread = &s->spread[t - safetensors_at(s->files, 0)];
        synth_values_init(&s->values, s->seed, t->name, spread->type, spread->mean,
                          spread->std);
        s->ready = t;
    }
    parallel_for(s->pool, (int64_t)((n + PIECE - 1) / PIECE), fill_piece, &p);
}

static pm_status open_source(struct synth_source *s, const struct synth_options *o,
                             struct json_out *text)
{
    const struct synth_dtype *dtype;
    TRY(synth_find_dtype(&dtype, o->dtype));
    TRY(synth_config(text, o, dtype));
    TRY(config_parse(&s->config, "config.json", text->text, text->n));
    TRY(synth_walk(s->config, dtype->plain, synth_prefix(text), add_tensor, s));
    return safetensors_list(&s->files, s->name, s->tensor, s->n);
}

pm_status synth_source_open(struct synth_source **out, const struct synth_options *o,
                            int n_thread)
{
    struct json_out text = {0};
    struct synth_source *s = NULL;
    pm_status status;
    TRY_DONE(alloc_array(&s, 1, sizeof *s, "random model"));
    s->seed = o->seed;
    snprintf(s->name, sizeof s->name, "synthetic %.64s", o->family);
    TRY_DONE(pool_open(&s->pool, n_thread));
    TRY_DONE(open_source(s, o, &text));
    *out = s;
    s = NULL;
done:
    free(text.text);
    synth_source_close(s);
    return status;
}

void synth_source_close(struct synth_source *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) {
        free((char *)(uintptr_t)s->tensor[i].name);
    }
    free(s->tensor);
    free(s->spread);
    if (!s->taken) safetensors_close(s->files);
    config_free(s->config);
    pool_close(s->pool);
    free(s);
}

struct config *synth_source_config(struct synth_source *s)
{
    struct config *c = s->config;
    s->config = NULL;
    return c;
}

struct weight_source synth_source_weights(struct synth_source *s)
{
    s->taken = true;
    return (struct weight_source){.name = s->name, .files = s->files, .fill = fill, .arg = s};
}
