/* device.c - the CPU as a device: a thread pool, an instruction set, plain memory; and the
 * table of its operations. "Device" memory is host memory, so weights are used where the file
 * is mapped and upload copies. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/peaks.h"

static void cpu_close(struct device *d)
{
    if (!d) return;
    cpu_release(d);
    pool_close(d->pool);
    free(d);
}

static int cpu_count(const char **why)
{
    if (why) *why = "";
    return 1;
}

static pm_status cpu_open(struct device **out, int index, int n_thread)
{
    struct device *d;
    pm_status status;
    if (index != 0) return fail(PM_ERR_ARG, "cpu:%d: there is one CPU device, cpu", index);
    TRY(alloc_array(&d, 1, sizeof *d, "device"));
    TRY_DONE(micro_select(&d->micro, getenv("POLYMATH_ISA")));
    TRY_DONE(pool_open(&d->pool, n_thread));
    snprintf(d->text, sizeof d->text, "cpu %s, %d thread%s", d->micro->name, pool_size(d->pool),
             pool_size(d->pool) == 1 ? "" : "s");
    *out = d;
    d = NULL;
done:
    cpu_close(d);
    return status;
}

/* Zeroed and 64-byte aligned. Large blocks come from calloc untouched, so that pages of a cache
 * that is never filled are never committed. The block's start stands before the result. */
static pm_status cpu_alloc(struct device *d, void **out, size_t bytes, const char *what)
{
    enum { ALIGNMENT = 64 };
    size_t total;
    char *base, *p;
    (void)d;
    if (!add_size(&total, bytes, 2 * ALIGNMENT) || !(base = calloc(1, total))) {
        return fail(PM_ERR_NOMEM, "%s: no memory for %zu bytes", what, bytes);
    }
    p = base + 2 * ALIGNMENT - (uintptr_t)base % ALIGNMENT;
    memcpy(p - sizeof base, &base, sizeof base);
    *out = p;
    return PM_OK;
}

static void cpu_free(struct device *d, void *p)
{
    char *base;
    (void)d;
    if (!p) return;
    memcpy(&base, (char *)p - sizeof base, sizeof base);
    free(base);
}

static pm_status cpu_copy(struct device *d, void *to, const void *from, size_t bytes)
{
    (void)d;
    memcpy(to, from, bytes);
    return PM_OK;
}

static pm_status cpu_sync(struct device *d)
{
    (void)d;
    return PM_OK;
}

static pm_status cpu_set_stream(struct device *d, void *stream)
{
    (void)d;
    if (stream) return fail(PM_ERR_ARG, "stream: found one, a CPU takes NULL");
    return PM_OK;
}

static pm_status cpu_clear(struct device *d, void *p, size_t bytes)
{
    (void)d;
    if (bytes) memset(p, 0, bytes);
    return PM_OK;
}

static void *cpu_stream(struct device *d)
{
    (void)d;
    return NULL;
}

/* An operation is done when its call returns, so a mark is the clock of the host. */
static pm_status cpu_mark_new(struct device *d, void **mark)
{
    struct timespec *t;
    (void)d;
    TRY(alloc_array(&t, 1, sizeof *t, "mark"));
    *mark = t;
    return PM_OK;
}

static pm_status cpu_mark_set(struct device *d, void *mark)
{
    (void)d;
    clock_gettime(CLOCK_MONOTONIC, mark);
    return PM_OK;
}

static pm_status cpu_mark_us(struct device *d, double *us, void *from, void *to)
{
    const struct timespec *a = from, *b = to;
    (void)d;
    *us = (double)(b->tv_sec - a->tv_sec) * 1e6 + (double)(b->tv_nsec - a->tv_nsec) / 1e3;
    return PM_OK;
}

static void cpu_mark_free(struct device *d, void *mark)
{
    (void)d;
    free(mark);
}

static void cpu_facts(struct device *d, struct device_facts *out)
{
    enum { USUAL_CACHE = 32 << 20 };
    long bytes = 0;
    (void)d;
    memset(out, 0, sizeof *out);
#ifdef _SC_LEVEL3_CACHE_SIZE
    bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    out->cache_bytes = bytes > 0 ? (size_t)bytes : USUAL_CACHE;
}

static const char *cpu_describe(struct device *d)
{
    return d->text;
}

static pm_status cpu_reserve_step(struct device *d, int64_t n_row, int64_t n_col, int64_t n_kv)
{
    TRY(cpu_reserve(d, n_row, n_col));
    return cpu_reserve_bytes(d, 0, attention_scratch_bytes(n_kv, n_col));
}

static void cpu_explain(struct device *d, const struct linear_kind *kind, char *text,
                        size_t size)
{
    const struct micro_map *map = &d->micro->map[kind->type];
    const char *how = map->pack                ? "BF16 products of packed rows"
                      : map->x_type == PM_BF16 ? "BF16 products"
                      : kind->type == PM_F32   ? "F32 products"
                                               : "widened to F32 tile by tile";
    snprintf(text, size, "%s, %d weight rows at a time: %s", d->micro->name, micro_rows(map),
             how);
}

const struct kernels cpu_kernels = {
    .name = "cpu",
    .host_memory = true,
    .narrow = PM_F32,
    .count = cpu_count,
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .sync = cpu_sync,
    .set_stream = cpu_set_stream,
    .stream = cpu_stream,
    .clear = cpu_clear,
    .describe = cpu_describe,
    .reserve = cpu_reserve_step,
    .mark_new = cpu_mark_new,
    .mark_set = cpu_mark_set,
    .mark_us = cpu_mark_us,
    .mark_free = cpu_mark_free,
    .facts = cpu_facts,
    .explain = cpu_explain,
    .measure = peaks_measure,
    .embed = cpu_embed,
    .norm = cpu_norm,
    .linear = cpu_linear,
    .clamp = cpu_clamp,
    .scale = cpu_scale,
    .scale_rows = cpu_scale_rows,
    .add = cpu_add,
    .gate_rows = cpu_gate_rows,
    .rope_table = cpu_rope_table,
    .rope = cpu_rope,
    .kv_write = cpu_kv_write,
    .attention = cpu_attention,
    .attention_mla = cpu_attention_mla,
    .gate_topk = cpu_gate_topk,
    .permute = cpu_permute,
    .permute_scaled = cpu_permute_scaled,
    .unpermute = cpu_unpermute,
};

struct rows_job {
    rows_task *run;
    void *arg;
    int64_t n_row, part;
};

static void run_part(void *arg, int64_t task, int worker)
{
    const struct rows_job *job = arg;
    int64_t first = task * job->part;
    job->run(job->arg, first, min_i64(first + job->part, job->n_row), worker);
}

void parallel_rows(struct device *d, int64_t n_row, int64_t grain, rows_task *run, void *arg)
{
    struct rows_job job = {run, arg, n_row, 0};
    int64_t n_part = (n_row + grain - 1) / grain;
    if (n_row <= 0) return;
    /* A few parts per worker balance; more only cost dispatches. */
    n_part = min_i64(n_part, 4 * (int64_t)pool_size(d->pool));
    if (n_part <= 1 || pool_size(d->pool) == 1) {
        run(arg, 0, n_row, 0);
        return;
    }
    job.part = (n_row + n_part - 1) / n_part;
    parallel_for(d->pool, (n_row + job.part - 1) / job.part, run_part, &job);
}

void tensor_row_f32(const struct micro *m, float *to, const struct tensor *t, int64_t row)
{
    static const float e2m1[8] = {0, .5f, 1, 1.5f, 2, 3, 4, 6};
    const char *from = (const char *)t->data + row * t->stride;
    const uint8_t *byte = (const uint8_t *)from;
    switch (t->type) {
    case PM_F32: memcpy(to, from, (size_t)t->cols * sizeof *to); return;
    case PM_BF16: m->from_bf16(to, (const uint16_t *)(const void *)from, t->cols); return;
    case PM_F16: m->from_f16(to, (const uint16_t *)(const void *)from, t->cols); return;
    case PM_F8_E4M3: {
        int64_t scale_row = (t->scale_row + row) / F8_BLOCK;
        const float *scale =
            (const float *)(const void *)((const char *)t->scale + scale_row * t->scale_stride);
        for (int64_t i = 0; i < t->cols; i++) {
            to[i] = e4m3_to_f32(byte[i]) * scale[i / F8_BLOCK];
        }
        return;
    }
    case PM_MXFP4: {
        const uint8_t *scale = (const uint8_t *)t->scale + row * t->scale_stride;
        for (int64_t i = 0; i < t->cols; i++) {
            int code = i % 2 ? byte[i / 2] >> 4 : byte[i / 2] & 15;
            float v = e2m1[code & 7] * e8m0_to_f32(scale[i / MXFP4_BLOCK]);
            to[i] = code & 8 ? -v : v;
        }
        return;
    }
    default: memset(to, 0, (size_t)t->cols * sizeof *to);
    }
}
