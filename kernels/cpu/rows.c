/* rows.c - operations on one row at a time: embedding, norms, scaling, RoPE, cache writes.
 *
 * All are bound by memory and small beside the linear maps: a step of T rows moves a few T * D
 * floats here and the weights of the active experts there. Each row is computed alone in one
 * fixed order. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/ops.h"

enum { GRAIN_VALUES = 16384 }; /* below this a dispatch costs more than it saves */

static int64_t grain(int64_t cols)
{
    return max_i64(1, GRAIN_VALUES / max_i64(cols, 1));
}

struct embed_job {
    struct device *d;
    struct tensor y;
    const struct tensor *table;
    const int32_t *id;
    float scale;
};

static void embed_rows(void *arg, int64_t first, int64_t end, int worker)
{
    const struct embed_job *job = arg;
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        float *y = row_f32(&job->y, r);
        tensor_row_f32(job->d->micro, y, job->table, job->id[r]);
        if (job->scale == 1) continue;
        for (int64_t i = 0; i < job->y.cols; i++) {
            y[i] *= job->scale;
        }
    }
}

pm_status cpu_embed(struct device *d, struct tensor y, const struct tensor *table,
                    const int32_t *id, float scale)
{
    struct embed_job job = {d, y, table, id, scale};
    parallel_rows(d, y.rows, grain(y.cols), embed_rows, &job);
    return PM_OK;
}

struct norm_job {
    const struct micro *m;
    struct tensor y, x;
    enum norm_kind kind;
    const float *w, *b;
    float eps;
};

static void layer_norm_row(const struct norm_job *job, float *y, const float *x)
{
    int64_t n = job->x.cols;
    double mean = 0, var = 0;
    float shift, inv;
    for (int64_t i = 0; i < n; i++) {
        mean += x[i];
    }
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++) {
        var += (x[i] - mean) * (x[i] - mean);
    }
    inv = (float)(1 / sqrt(var / (double)n + job->eps));
    shift = (float)mean;
    for (int64_t i = 0; i < n; i++) {
        y[i] = (x[i] - shift) * inv * job->w[i] + (job->b ? job->b[i] : 0);
    }
}

static void norm_rows(void *arg, int64_t first, int64_t end, int worker)
{
    const struct norm_job *job = arg;
    int64_t n = job->x.cols;
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        const float *x = row_f32(&job->x, r);
        float *y = row_f32(&job->y, r);
        float inv;
        if (job->kind == NORM_LAYER) {
            layer_norm_row(job, y, x);
            continue;
        }
        inv = 1 / sqrtf(job->m->sum_squares(x, n) / (float)n + job->eps);
        if (job->kind == NORM_L2) {
            for (int64_t i = 0; i < n; i++) {
                y[i] = x[i] * inv;
            }
        } else {
            for (int64_t i = 0; i < n; i++) {
                y[i] = x[i] * inv * job->w[i];
            }
        }
    }
}

pm_status cpu_norm(struct device *d, struct tensor y, struct tensor x, enum norm_kind kind,
                   const struct tensor *w, const struct tensor *b, float eps)
{
    struct norm_job job = {d->micro, y, x, kind, w ? w->data : NULL, b ? b->data : NULL, eps};
    parallel_rows(d, x.rows, grain(x.cols), norm_rows, &job);
    return PM_OK;
}

enum row_op { ROW_CLAMP, ROW_SCALE, ROW_SCALE_ROWS, ROW_ADD, ROW_GATE };

struct row_job {
    enum row_op op;
    struct tensor x, y;
    float factor;
    const float *factors;
};

static void apply_rows(void *arg, int64_t first, int64_t end, int worker)
{
    const struct row_job *job = arg;
    int64_t n = job->x.cols;
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        float *x = row_f32(&job->x, r);
        float f = job->factor;
        switch (job->op) {
        case ROW_CLAMP:
            for (int64_t i = 0; i < n; i++) {
                x[i] = x[i] < -f ? -f : x[i] > f ? f : x[i]; /* NaN stays */
            }
            break;
        case ROW_ADD: {
            const float *y = row_f32(&job->y, r);
            for (int64_t i = 0; i < n; i++) {
                x[i] += f * y[i];
            }
            break;
        }
        case ROW_SCALE_ROWS: f = job->factors[r]; goto scale;
        case ROW_GATE: f = 1 / (1 + expf(-*row_f32(&job->y, r))); goto scale;
        case ROW_SCALE:
        scale:
            for (int64_t i = 0; i < n; i++) {
                x[i] *= f;
            }
        }
    }
}

static pm_status run_rows(struct device *d, struct row_job job)
{
    parallel_rows(d, job.x.rows, grain(job.x.cols), apply_rows, &job);
    return PM_OK;
}

pm_status cpu_clamp(struct device *d, struct tensor x, float limit)
{
    return run_rows(d, (struct row_job){.op = ROW_CLAMP, .x = x, .factor = limit});
}

pm_status cpu_scale(struct device *d, struct tensor x, float factor)
{
    return run_rows(d, (struct row_job){.op = ROW_SCALE, .x = x, .factor = factor});
}

pm_status cpu_scale_rows(struct device *d, struct tensor x, const float *factor)
{
    return run_rows(d, (struct row_job){.op = ROW_SCALE_ROWS, .x = x, .factors = factor});
}

pm_status cpu_add(struct device *d, struct tensor x, struct tensor y, float factor)
{
    return run_rows(d, (struct row_job){.op = ROW_ADD, .x = x, .y = y, .factor = factor});
}

pm_status cpu_gate_rows(struct device *d, struct tensor y, struct tensor g)
{
    return run_rows(d, (struct row_job){.op = ROW_GATE, .x = y, .y = g});
}

pm_status cpu_rope_table(struct device *d, float *cosine, float *sine, const int32_t *position,
                         int n_row, const float *inv_freq, int n, float factor)
{
    (void)d;
    for (int r = 0; r < n_row; r++) {
        for (int i = 0; i < n; i++) {
            /* The angle is a float32 product, as in the reference; its cosine is exact. */
            float angle = (float)position[r] * inv_freq[i];
            cosine[(int64_t)r * n + i] = (float)(cos((double)angle)) * factor;
            sine[(int64_t)r * n + i] = (float)(sin((double)angle)) * factor;
        }
    }
    return PM_OK;
}

struct rope_job {
    struct tensor x;
    int n_head, offset, n;
    const float *cosine, *sine;
    bool interleaved;
};

static void rotate(float *x, const float *c, const float *s, int n, bool interleaved)
{
    for (int i = 0; i < n; i++) {
        float *a = interleaved ? &x[2 * i] : &x[i];
        float *b = interleaved ? &x[2 * i + 1] : &x[i + n];
        float first = *a, second = *b;
        *a = first * c[i] - second * s[i];
        *b = second * c[i] + first * s[i];
    }
}

static void rope_rows(void *arg, int64_t first, int64_t end, int worker)
{
    const struct rope_job *job = arg;
    int64_t head_dim = job->x.cols / job->n_head;
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        const float *c = job->cosine + r * job->n, *s = job->sine + r * job->n;
        float *x = row_f32(&job->x, r);
        for (int h = 0; h < job->n_head; h++) {
            rotate(x + h * head_dim + job->offset, c, s, job->n, job->interleaved);
        }
    }
}

pm_status cpu_rope(struct device *d, struct tensor x, int n_head, int offset,
                   const float *cosine, const float *sine, int n, bool interleaved)
{
    struct rope_job job = {x, n_head, offset, n, cosine, sine, interleaved};
    parallel_rows(d, x.rows, grain(x.cols), rope_rows, &job);
    return PM_OK;
}

struct kv_job {
    const struct micro *m;
    const struct kv_layer *kv;
    struct tensor k, v;
    const int64_t *slot;
};

static void store(const struct micro *m, const struct kv_layer *kv, void *base, int dim,
                  int64_t slot, const float *from)
{
    for (int g = 0; g < kv->n_kv_head; g++) {
        int64_t at = ((slot / KV_BLOCK * kv->n_kv_head + g) * KV_BLOCK + slot % KV_BLOCK) * dim;
        const float *x = from + (int64_t)g * dim;
        if (kv->type == PM_F32) {
            memcpy((float *)base + at, x, (size_t)dim * sizeof *x);
        } else if (kv->type == PM_BF16) {
            m->to_bf16((uint16_t *)base + at, x, dim);
        } else {
            m->to_f16((uint16_t *)base + at, x, dim);
        }
    }
}

static void kv_rows(void *arg, int64_t first, int64_t end, int worker)
{
    const struct kv_job *job = arg;
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        if (job->slot[r] < 0) continue;
        store(job->m, job->kv, job->kv->k, job->kv->k_dim, job->slot[r], row_f32(&job->k, r));
        if (!job->v.data) continue;
        store(job->m, job->kv, job->kv->v, job->kv->v_dim, job->slot[r], row_f32(&job->v, r));
    }
}

pm_status cpu_kv_write(struct device *d, const struct kv_layer *kv, struct tensor k,
                       struct tensor v, const struct attention_rows *rows)
{
    struct kv_job job = {d->micro, kv, k, v, rows->slot};
    parallel_rows(d, rows->n_row, grain(k.cols), kv_rows, &job);
    return PM_OK;
}
