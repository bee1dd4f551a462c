/* ops.h - the CPU operations that the table in device.c lists; contracts stand in kernels.h. */
#ifndef KERNELS_CPU_OPS_H
#define KERNELS_CPU_OPS_H

#include "kernels/cpu/cpu.h"

pm_status cpu_embed(struct device *d, struct tensor y, const struct tensor *table,
                    const int32_t *id, float scale);
pm_status cpu_norm(struct device *d, struct tensor y, struct tensor x, enum norm_kind kind,
                   const struct tensor *w, const struct tensor *b, float eps);
pm_status cpu_clamp(struct device *d, struct tensor x, float limit);
pm_status cpu_scale(struct device *d, struct tensor x, float factor);
pm_status cpu_scale_rows(struct device *d, struct tensor x, const float *factor);
pm_status cpu_add(struct device *d, struct tensor x, struct tensor y, float factor);
pm_status cpu_gate_rows(struct device *d, struct tensor y, struct tensor g);
pm_status cpu_rope_table(struct device *d, float *cosine, float *sine, const int32_t *position,
                         int n_row, const float *inv_freq, int n, float factor);
pm_status cpu_rope(struct device *d, struct tensor x, int n_head, int offset,
                   const float *cosine, const float *sine, int n, bool interleaved);
pm_status cpu_kv_write(struct device *d, const struct kv_layer *kv, struct tensor k,
                       struct tensor v, const struct attention_rows *rows);
pm_status cpu_attention(struct device *d, const struct attention *op);
pm_status cpu_attention_mla(struct device *d, const struct attention_mla *op);
pm_status cpu_gate_topk(struct device *d, const struct gate *gate, struct tensor logits,
                        const float *bias, const struct routing *out);
pm_status cpu_permute(struct device *d, const struct gate *gate, int n_row,
                      const struct routing *routing);
pm_status cpu_permute_scaled(struct device *d, const struct gate *gate, struct tensor y,
                             struct tensor x, const struct routing *routing);
pm_status cpu_unpermute(struct device *d, const struct gate *gate, struct tensor y,
                        struct tensor x, const struct routing *routing, float factor);

/* Scratch of a worker for attention over n_kv tokens. */
size_t attention_scratch_bytes(int64_t n_kv, int64_t n_col);

/* Row `row` of t, of any weight type, as floats. */
void tensor_row_f32(const struct micro *m, float *to, const struct tensor *t, int64_t row);

/* Calls run(arg, first, end, worker) over parts of n_row rows, each of at least `grain` rows.
 */
typedef void rows_task(void *arg, int64_t first, int64_t end, int worker);
void parallel_rows(struct device *d, int64_t n_row, int64_t grain, rows_task *run, void *arg);

static inline float *row_f32(const struct tensor *t, int64_t row)
{
    return (float *)((char *)t->data + row * t->stride);
}

#endif
