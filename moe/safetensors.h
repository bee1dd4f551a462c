/* safetensors.h - checkpoints on disk: mapped, checked, found by name; and the writer.
 *
 * Format: https://github.com/huggingface/safetensors - 8-byte little-endian header length, a
 * JSON object name -> {dtype, shape, data_offsets}, then the data. A folder holds
 * model.safetensors or the shards that model.safetensors.index.json lists.
 *
 * A file must stay as it is while it is open: when another process cuts it short, reading the
 * lost bytes of the mapping ends this process with SIGBUS. */
#ifndef MOE_SAFETENSORS_H
#define MOE_SAFETENSORS_H

#include "kernels/base.h"

enum { SAFETENSORS_MAX_DIM = 8 };

struct stored { /* one tensor as it stands in a file; borrowed until close */
    const char *name;
    const void *data; /* inside the mapping, not necessarily aligned; NULL without files */
    size_t bytes;
    pm_dtype type; /* PM_DTYPE_COUNT for a type of the format that is not computed with (F64) */
    int n_dim;
    int64_t dim[SAFETENSORS_MAX_DIM];
    int file; /* index of the shard */
};

struct safetensors;

/* Opens a checkpoint folder, or one .safetensors file. Checks every header completely (length,
 * JSON, known dtypes, overflow, overlap, gaps, file size, duplicate names, index against
 * shards); touches no tensor data. In a folder with an index, the index says which shard a
 * tensor comes from; a tensor that it does not assign to a shard is left out. PM_ERR_IO when a
 * file is missing or not a regular file, PM_ERR_FORMAT otherwise. Errors say file, tensor,
 * found, wanted. Any thread may read what is open. */
pm_status safetensors_open(struct safetensors **out, const char *path);
/* A checkpoint without files: these tensors, in this order, without data. Names are copied;
 * `title` stands where messages name a file. PM_ERR_FORMAT where two have one name. */
pm_status safetensors_list(struct safetensors **out, const char *title,
                           const struct stored *tensor, size_t n);
void safetensors_close(struct safetensors *st);

/* Tensors in the order of their data, shard by shard. */
int64_t safetensors_count(const struct safetensors *st);
const struct stored *safetensors_at(const struct safetensors *st, int64_t i);
/* By name, in O(log n); NULL when absent. */
const struct stored *safetensors_find(const struct safetensors *st, const char *name);
/* The path of shard `file`, for messages. */
const char *safetensors_file(const struct safetensors *st, int file);
/* Bytes of all files. */
uint64_t safetensors_bytes(const struct safetensors *st);
/* Reads every page once, so that later reads find them in memory and in the page table: for
 * measurements. */
void safetensors_touch(const struct safetensors *st);

/* Checks a file of `size` bytes at `file` (open and the fuzz target share this) and calls
 * each(arg, tensor) in the order of the data; a failure of each ends the check. Reads the
 * header only: `data` points behind it, `name` lives until the call returns, `file` is 0. */
typedef pm_status safetensors_each(void *arg, const struct stored *tensor);
pm_status safetensors_check(const char *name, const void *file, uint64_t size,
                            safetensors_each *each, void *arg);

/* Writer: declare all tensors, then write their data in the same order. The file appears under
 * its name when it is complete; until then the data is in PATH.tmp. */
struct safetensors_writer;
pm_status safetensors_create(struct safetensors_writer **out, const char *path);
/* Any type but PM_MXFP4, which the format stores as PM_U8 blocks and scales. */
pm_status safetensors_declare(struct safetensors_writer *w, const char *name, pm_dtype type,
                              int n_dim, const int64_t *dim);
/* The first write closes the header. Data may come in pieces; a tensor's pieces add up to its
 * bytes. */
pm_status safetensors_write(struct safetensors_writer *w, const void *data, size_t bytes);
/* Finishes the file; fails when bytes are missing or a call before failed. Frees the writer in
 * any case. */
pm_status safetensors_finish(struct safetensors_writer *w);
/* Removes what was written and frees the writer (NULL is accepted); pm_last_error stays. */
void safetensors_abandon(struct safetensors_writer *w);

#endif
