/* synth.h - random checkpoints of any family and any size, for benchmarks and tests. */
#ifndef MOE_SYNTH_H
#define MOE_SYNTH_H

#include "kernels/base.h"

struct synth_options {
    const char *family;     /* a model_type of config.json, or the name of a released model */
    const char *out;        /* a folder that is new or empty; its parent exists */
    const char *const *set; /* [n_set] "key=value", later ones win; see synth_config.h */
    int n_set;
    uint64_t seed;
    const char *dtype; /* bf16 (also NULL), f32, f16, fp8, mxfp4 (gpt_oss only) */
    uint64_t
        shard_bytes; /* a shard's most bytes of tensors; 0: one file. A tensor is not cut */
    void (*progress)(void *arg, uint64_t done, uint64_t total); /* bytes of tensors, or NULL */
    void *arg;
};

/* Writes config.json, generation_config.json, tokenizer.json (where the vocabulary has room for
 * 256 bytes and an end token) and the tensors as model.safetensors or as shards with an index:
 * a folder that config_load and weights_open accept. *bytes (may be NULL) is the size of all
 * tensors. The same options give the same bytes on every machine; the values of a tensor depend
 * only on the seed, the tensor's name, type and shape.
 *
 * PM_ERR_UNSUPPORTED for a family that is not known (the sentence lists those that are) or that
 * has no layout of this dtype, PM_ERR_ARG for a dtype, a setting or a folder that cannot be
 * used, PM_ERR_FORMAT when config_parse refuses the result, PM_ERR_IO when the disk does; what
 * was written is then removed again. Any thread; progress is called on it. */
pm_status synth_write(const struct synth_options *o, uint64_t *bytes);

#endif
