/* weights_memory.h - how the bytes of a stored or generated tensor get to where a device reads
 * them; for weights.c. */
#ifndef MOE_WEIGHTS_MEMORY_H
#define MOE_WEIGHTS_MEMORY_H

#include "moe/weights.h"

/* Starts as {w, source}; memory_end when all is loaded. What it takes belongs to w. */
struct weight_memory {
    struct weights *w;
    const struct weight_source *source; /* NULL: tensors lie in the mapping */
    char *run;                          /* what is left of a block that is served in order */
    size_t run_bytes;
    char *part; /* generated values on their way to a device, or NULL yet */
};

/* Bytes from one piece of a run to the next, for a piece of so many bytes. */
size_t memory_step(size_t bytes);
/* Memory of the device's own: the next `bytes` that are taken stand one behind the other, so
 * that experts which are loaded alike stand at equal distances (kernels.h). */
pm_status memory_begin_run(struct weight_memory *m, size_t bytes, const char *what);
void memory_end_run(struct weight_memory *m);
void memory_end(struct weight_memory *m);

/* Memory that the device reads with the bytes of s: the mapping itself where it can be. */
pm_status memory_place(struct weight_memory *m, void **out, const struct stored *s);
/* out->rows x out->cols values of s (F32, F16 or BF16) in float32, starting at `first`, every
 * `step`. */
pm_status memory_widen(struct weight_memory *m, struct tensor *out, const struct stored *s,
                       int64_t first, int64_t step);
/* [n, in, cols] -> [n, cols, in] in the type of s. */
pm_status memory_transpose(struct weight_memory *m, void **out, const struct stored *s,
                           int64_t n, int64_t in, int64_t cols);

#endif
