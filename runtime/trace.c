/* trace.c - reads and writes routing traces. */
#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "PMROUTE1";

static pm_status take(struct trace **out, uint32_t n_token, uint32_t n_layer, uint32_t n_expert,
                      uint32_t top_k)
{
    struct trace *t;
    size_t n;
    pm_status status;
    if (!mul_size(&n, n_token, n_layer) || !mul_size(&n, n, top_k)) {
        return fail(PM_ERR_TOO_LONG, "trace: %u tokens of %u layers are too many", n_token,
                    n_layer);
    }
    TRY(alloc_array(&t, 1, sizeof *t, "trace"));
    t->n_token = n_token;
    t->n_layer = n_layer;
    t->n_expert = n_expert;
    t->top_k = top_k;
    TRY_DONE(alloc_array(&t->layer, n_layer, sizeof *t->layer, "trace"));
    TRY_DONE(alloc_array(&t->id, n, sizeof *t->id, "trace"));
    memset(t->id, 0xff, n * sizeof *t->id);
    *out = t;
    t = NULL;
done:
    trace_free(t);
    return status;
}

pm_status trace_new(struct trace **out, const struct config *c, uint32_t n_token)
{
    uint32_t n_layer = 0;
    struct trace *t;
    for (int l = 0; l < c->n_layer; l++) {
        n_layer += c->layer[l].moe;
    }
    if (!n_layer) {
        return fail(PM_ERR_UNSUPPORTED, "a %s model has no experts to route to", c->model_type);
    }
    TRY(take(&t, n_token, n_layer, (uint32_t)c->gate.n_expert, (uint32_t)c->gate.top_k));
    n_layer = 0;
    for (int l = 0; l < c->n_layer; l++) {
        if (c->layer[l].moe) t->layer[n_layer++] = (uint32_t)l;
    }
    *out = t;
    return PM_OK;
}

void trace_free(struct trace *t)
{
    if (!t) return;
    free(t->layer);
    free(t->id);
    free(t);
}

void trace_add(struct trace *t, int layer, uint32_t first_token, int n_row, int top_k,
               const int32_t *id)
{
    uint32_t at = 0;
    while (at < t->n_layer && t->layer[at] != (uint32_t)layer) {
        at++;
    }
    for (int r = 0; r < n_row && at < t->n_layer; r++) {
        size_t row = (size_t)at * t->n_token + first_token + (size_t)r;
        if (first_token + (size_t)r >= t->n_token) return;
        for (int k = 0; k < top_k; k++) {
            t->id[row * t->top_k + (size_t)k] = (uint16_t)id[(int64_t)r * top_k + k];
        }
    }
}

pm_status trace_write(const struct trace *t, const char *path)
{
    uint32_t head[4] = {t->n_token, t->n_layer, t->n_expert, t->top_k};
    size_t n = (size_t)t->n_layer * t->n_token * t->top_k;
    FILE *f = fopen(path, "wb");
    bool good;
    if (!f) return fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
    good = fwrite(magic, sizeof magic, 1, f) == 1 && fwrite(head, sizeof head, 1, f) == 1 &&
           fwrite(t->layer, sizeof *t->layer, t->n_layer, f) == t->n_layer &&
           fwrite(t->id, sizeof *t->id, n, f) == n;
    good = fclose(f) == 0 && good;
    return good ? PM_OK : fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
}

/* The size that the header calls for is the file's. */
static pm_status check_size(FILE *f, const char *path, const uint32_t head[4])
{
    uint64_t want = sizeof magic + 4 * sizeof *head + (uint64_t)head[1] * sizeof *head;
    uint64_t ids = (uint64_t)head[0] * head[1]; /* below 2^42 */
    long at = ftell(f), size;
    want += ids * head[3] * sizeof(uint16_t); /* below 2^55 */
    if (fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 || fseek(f, at, SEEK_SET) != 0) {
        return fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
    }
    if ((uint64_t)size != want) {
        return fail(PM_ERR_FORMAT, "%s: size: found %ld bytes, the header calls for %llu", path,
                    size, (unsigned long long)want);
    }
    return PM_OK;
}

static pm_status check_ids(const struct trace *t, const char *path)
{
    size_t n = (size_t)t->n_layer * t->n_token * t->top_k;
    for (size_t i = 0; i < n; i++) {
        if (t->id[i] >= t->n_expert && t->id[i] != TRACE_NONE) {
            return fail(PM_ERR_FORMAT, "%s: id %zu: found %u, wanted under %u", path, i,
                        t->id[i], t->n_expert);
        }
    }
    return PM_OK;
}

pm_status trace_read(struct trace **out, const char *path)
{
    char start[sizeof magic];
    uint32_t head[4];
    struct trace *t = NULL;
    size_t n;
    FILE *f = fopen(path, "rb");
    pm_status status = PM_OK;
    if (!f) return fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
    if (fread(start, sizeof start, 1, f) != 1 || memcmp(start, magic, sizeof magic) != 0 ||
        fread(head, sizeof head, 1, f) != 1) {
        status = fail(PM_ERR_FORMAT, "%s: not a routing trace (no PMROUTE1)", path);
        goto done;
    }
    if (head[0] > 1u << 30 || head[1] > 4096 || head[2] > 4096 || head[3] > head[2]) {
        status = fail(PM_ERR_FORMAT, "%s: found %u tokens, %u layers, %u experts, top %u", path,
                      head[0], head[1], head[2], head[3]);
        goto done;
    }
    TRY_DONE(check_size(f, path, head));
    TRY_DONE(take(&t, head[0], head[1], head[2], head[3]));
    n = (size_t)t->n_layer * t->n_token * t->top_k;
    if (fread(t->layer, sizeof *t->layer, t->n_layer, f) != t->n_layer ||
        fread(t->id, sizeof *t->id, n, f) != n || fgetc(f) != EOF) {
        status = fail(PM_ERR_FORMAT, "%s: the size does not match the header", path);
        goto done;
    }
    TRY_DONE(check_ids(t, path));
    *out = t;
    t = NULL;
done:
    trace_free(t);
    fclose(f);
    return status;
}
