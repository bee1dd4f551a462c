/* kernel_memory.c - random values in the memory of a device.
 *
 * A block of random values is made once on the host and laid out again and again, which no
 * kernel can tell from fresh ones: its length is odd, so that equal values never stand at equal
 * places of rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/kernel_case.h"

enum { PATTERN = 1000003, F8_BLOCK = 128, MXFP4_BLOCK = 32, ALIGNMENT = 256 };

static pm_status keep(struct arena *a, void *out, size_t bytes, const char *what)
{
    void *p;
    TRY(grow_array(&a->block, &a->capacity, a->n + 1, sizeof *a->block));
    TRY(a->k->alloc(a->d, &p, bytes, what));
    a->block[a->n++] = p;
    memcpy(out, &p, sizeof p);
    return PM_OK;
}

pm_status arena_bytes(struct arena *a, void *out, const void *from, size_t n, const char *what)
{
    void *p;
    TRY(keep(a, &p, n, what));
    TRY(a->k->upload(a->d, p, from, n));
    TRY(a->k->sync(a->d)); /* `from` is the caller's again */
    memcpy(out, &p, sizeof p);
    return PM_OK;
}

void arena_free(struct arena *a)
{
    while (a->n) {
        a->k->free(a->d, a->block[--a->n]);
    }
    free(a->block);
    a->block = NULL;
    a->capacity = 0;
}

/* Sum of uniform numbers, small enough that long sums of products stay finite everywhere. */
static float small_value(uint64_t *state)
{
    float sum = -2;
    for (int i = 0; i < 4; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) * 0x1p-24f;
    }
    return 0.05f * sum;
}

static void fill_pattern(char *to, pm_dtype type, int64_t n, uint64_t *state)
{
    for (int64_t i = 0; i < n; i++) {
        float value = small_value(state);
        uint16_t half = type == PM_F16 ? f32_to_f16(value) : f32_to_bf16(value);
        uint8_t code = (uint8_t)(*state >> 32);
        if (type == PM_F8_E4M3) code = f32_to_e4m3(value * 64);
        if (type == PM_F32) memcpy(to + i * 4, &value, 4);
        if (type == PM_F16 || type == PM_BF16) memcpy(to + i * 2, &half, 2);
        if (type == PM_F8_E4M3 || type == PM_MXFP4) to[i] = (char)code;
    }
}

pm_status arena_values(struct arena *a, void *out, pm_dtype type, int64_t n, const char *what)
{
    size_t unit = type == PM_MXFP4 ? 1 : (size_t)dtype_bits(type) / 8; /* of the pattern */
    size_t bytes = (size_t)n * (size_t)dtype_bits(type) / 8, done = 0;
    int64_t n_pattern = min_i64(n, PATTERN);
    uint64_t state = 1 + (uint64_t)type;
    char *pattern = NULL, *p;
    pm_status status;
    TRY(alloc_array(&pattern, (size_t)n_pattern, unit, "random values"));
    fill_pattern(pattern, type, n_pattern, &state);
    TRY_DONE(keep(a, &p, bytes, what));
    while (done < bytes) {
        size_t part = (size_t)min_i64(n_pattern * (int64_t)unit, (int64_t)(bytes - done));
        TRY_DONE(a->k->upload(a->d, p + done, pattern, part));
        done += part;
    }
    TRY_DONE(a->k->sync(a->d));
    memcpy(out, &p, sizeof p);
done:
    free(pattern);
    return status;
}

double kernel_values_bytes(pm_dtype type, double n)
{
    double scale = type == PM_MXFP4 ? n / MXFP4_BLOCK : 0;
    if (type == PM_F8_E4M3) scale = n / (F8_BLOCK * F8_BLOCK) * sizeof(float);
    return n * dtype_bits(type) / 8 + scale;
}

pm_status arena_matrices(struct arena *a, struct tensor *to, int n, pm_dtype type, int64_t rows,
                         int64_t cols)
{
    struct tensor t = tensor_view(NULL, type, rows, cols);
    int64_t high = (rows + F8_BLOCK - 1) / F8_BLOCK, wide = (cols + F8_BLOCK - 1) / F8_BLOCK;
    int64_t n_scale = 0, scale_bytes = 0;
    void *scale = NULL;
    TRY(arena_values(a, &t.data, type, n * rows * cols, "experts"));
    if (type == PM_F8_E4M3) {
        n_scale = high * wide;
        t.scale_stride = wide * (int64_t)sizeof(float);
        scale_bytes = n_scale * (int64_t)sizeof(float);
        TRY(arena_values(a, &scale, PM_F32, n * n_scale, "scales"));
    } else if (type == PM_MXFP4) {
        uint8_t *host;
        pm_status status;
        t.scale_stride = cols / MXFP4_BLOCK;
        scale_bytes = rows * t.scale_stride;
        TRY(alloc_array(&host, (size_t)(n * scale_bytes), 1, "scales"));
        memset(host, 120, (size_t)(n * scale_bytes));
        status = arena_bytes(a, &scale, host, (size_t)(n * scale_bytes), "scales");
        free(host);
        TRY(status);
    }
    for (int e = 0; e < n; e++) {
        to[e] = t;
        to[e].data = (char *)t.data + e * rows * t.stride;
        if (scale) to[e].scale = (char *)scale + e * scale_bytes;
    }
    return PM_OK;
}

static pm_status biases(struct arena *a, struct tensor *to, int n, int64_t cols)
{
    struct tensor t = tensor_view(NULL, PM_F32, 1, cols);
    TRY(arena_values(a, &t.data, PM_F32, n * cols, "biases"));
    for (int e = 0; e < n; e++) {
        to[e] = t;
        to[e].data = (char *)t.data + e * t.stride;
    }
    return PM_OK;
}

static pm_status one_copy(struct expert_copies *c, struct experts *e, struct tensor *table,
                          const struct shape *s, pm_dtype type)
{
    int n = s->gate.n_expert;
    int64_t d = s->hidden, f = s->inner;
    *e = (struct experts){.gate = s->gate,
                          .glu = s->glu,
                          .w_gate = table,
                          .w_up = table + n,
                          .w_down = table + 2 * n};
    TRY(arena_matrices(&c->arena, table, n, type, f, d));
    TRY(arena_matrices(&c->arena, table + n, n, type, f, d));
    TRY(arena_matrices(&c->arena, table + 2 * n, n, type, d, f));
    if (!s->expert_bias) return PM_OK;
    e->b_gate = table + 3 * n;
    e->b_up = table + 4 * n;
    e->b_down = table + 5 * n;
    TRY(biases(&c->arena, table + 3 * n, n, f));
    TRY(biases(&c->arena, table + 4 * n, n, f));
    return biases(&c->arena, table + 5 * n, n, d);
}

/* Bytes that the system can give without swapping, 0: not known. */
static double available_bytes(void)
{
    char line[128];
    double kilobytes = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemAvailable: %lf kB", &kilobytes) == 1) break;
    }
    if (f) fclose(f);
    return kilobytes * 1024;
}

pm_status expert_copies_open(struct expert_copies *c, const struct kernels *k, struct device *d,
                             const struct shape *s, pm_dtype type, double cache_bytes)
{
    size_t n = (size_t)s->gate.n_expert;
    double all, left = available_bytes();
    pm_status status = PM_OK;
    memset(c, 0, sizeof *c);
    c->arena.k = k;
    c->arena.d = d;
    c->expert_bytes = kernel_values_bytes(type, 3.0 * s->hidden * s->inner);
    all = c->expert_bytes * (double)n;
    c->n = (int)fmin(fmax(ceil(2 * cache_bytes / all), 1), MAX_COPY);
    if (k->host_memory && left > 0 && all * c->n > 0.8 * left) {
        return fail(PM_ERR_NOMEM,
                    "%s: %s experts take %.1f GB and %.1f GB are free; --experts takes fewer",
                    s->name, dtype_name(type), all * c->n / 1e9, left / 1e9);
    }
    TRY(alloc_array(&c->table, (size_t)c->n * 6 * n, sizeof *c->table, "experts"));
    for (int i = 0; i < c->n && status == PM_OK; i++) {
        status = one_copy(c, &c->expert[i], c->table + (size_t)i * 6 * n, s, type);
    }
    if (status != PM_OK) expert_copies_close(c);
    return status;
}

void expert_copies_close(struct expert_copies *c)
{
    if (c->arena.k) arena_free(&c->arena);
    free(c->table);
    memset(c, 0, sizeof *c);
}
