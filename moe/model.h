/* model.h - weights -> logits: opening a checkpoint and running one step of it. */
#ifndef MOE_MODEL_H
#define MOE_MODEL_H

#include "moe/batch.h"
#include "moe/config.h"

struct model;
struct synth_options;

struct model_options {
    const char *device; /* "auto", "cpu", "cuda:N" */
    int n_thread;       /* CPU threads, 0: one per CPU */
    int max_row;        /* rows of a step, 0: 512 */
    int max_seq;        /* sequences of a step, 0: 1 */
    int max_out;        /* rows whose logits a step gives, 0: max_seq */
    int context; /* most tokens of a sequence, 0: what the configuration allows, up to 4096 */
    int64_t kv_token; /* tokens the pool holds, 0: max_seq * context */
    bool plan_only;   /* count every byte, allocate and read none; the model cannot run */
    int kv_type; /* a pm_dtype of the KV cache; negative: F32 and F16 as the weights, else BF16
                  */
    /* NULL, or what to make the model from (synth.h): no folder is read, weights are made in
     * the device's memory. Not with plan_only. Borrowed until model_open returns. */
    const struct synth_options *synthetic;
};

/* Every byte of a plan, known without reading weights. */
struct model_plan {
    uint64_t file_bytes;       /* the checkpoint on disk, mapped */
    uint64_t copied_bytes;     /* vectors and gates in float32, transposed experts */
    uint64_t transposed_bytes; /* of these, input-major experts */
    uint64_t kv_bytes, kv_token, kv_token_bytes;
    uint64_t step_bytes; /* activations of a step */
};

/* folder may be NULL where the options say synthetic. */
pm_status model_open(struct model **out, const char *folder, const struct model_options *o);
void model_close(struct model *m);

const struct config *model_config(const struct model *m);
const struct model_plan *model_plan(const struct model *m);
const struct model_options *model_limits(const struct model *m); /* with all zeros filled in */
const char *model_device(const struct model *m);
pm_dtype model_kv_type(const struct model *m);
int64_t model_blocks(const struct model *m); /* KV blocks in the pool */
/* Brings all weights into memory: for measurements. */
void model_touch(const struct model *m);

/* GB/s that the model's device reads from memory, measured now in a fraction of a second. */
pm_status model_read_bandwidth(struct model *m, double *out);
/* Read bandwidth and multiply-add peaks of the model's device, in about two seconds. */
pm_status model_measure(struct model *m, struct peaks *out);

/* Which kernel computes one of the model's linear maps in steps of a number of rows. */
struct model_kernel {
    const char *what; /* "experts gate, up" */
    struct linear_kind kind;
    char text[160];
};

/* The distinct maps of the model, for steps of n_row rows: fills out [max] and returns how many
 * there are. */
int model_kernels(struct model *m, int n_row, struct model_kernel *out, int max);

/* One forward step. logits is host memory F32 [n_out, V]. PM_ERR_ARG names the field of the
 * batch that is out of range. Not reentrant; the caller's thread does the work of one worker.
 */
pm_status model_forward(struct model *m, const struct batch *b, float *logits);
/* The same in two halves: begin enqueues the step and reads *b, end waits for it and brings the
 * logits. Between them nothing else of the model may be called. */
pm_status model_begin(struct model *m, const struct batch *b);
pm_status model_end(struct model *m, float *logits);
/* Whether the device works between the two, so that the host can do something else. */
bool model_overlaps(const struct model *m);

/* Called after each gate with the choices of a step: id and weight are host memory [n_row,
 * top_k]. NULL stops. */
typedef void model_route(void *arg, int layer, int n_row, int top_k, const int32_t *id,
                         const float *weight);
void model_on_route(struct model *m, model_route *call, void *arg);

/* Bytes of weights that a step of n_row rows reads when the gates choose evenly: for the share
 * of memory bandwidth. Counts the types as stored. */
double model_step_bytes(const struct model *m, int n_row);
/* Multiply-adds times two of one row, attention over n_kv tokens included; `logits`: the output
 * matrix too. */
double model_row_flops(const struct model *m, int n_kv, bool logits);

struct weights;
const struct weights *model_weights(const struct model *m);

#endif
