/* polymath.h - the public API of Polymath, a mixture-of-experts runtime.
 *
 * Opaque types: an engine (a loaded model with its KV cache and threads), options (named
 * settings) and a layer (the experts of one layer, without a model around them). Every fallible
 * function returns a pm_status; results go to out-parameters, which come first and are
 * untouched on failure. pm_last_error() has the sentence that says what, where, found and
 * wanted. Sizes are bytes (uint64_t), lengths are tokens (int32_t), times microseconds,
 * log-probabilities natural logarithms in float32, text UTF-8 with a byte length.
 *
 * This header includes only the C library and may be included from every folder: it owns the
 * status codes and the list of data types. */
#ifndef POLYMATH_H
#define POLYMATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PM_API __attribute__((visibility("default")))

/* name, value, text */
#define PM_STATUS_LIST(X)                                                                      \
    X(PM_OK, 0, "ok")                                                                          \
    X(PM_ERR_ARG, -1, "bad argument")                                                          \
    X(PM_ERR_NOMEM, -2, "out of memory")                                                       \
    X(PM_ERR_IO, -3, "input or output failed")                                                 \
    X(PM_ERR_FORMAT, -4, "malformed file")                                                     \
    X(PM_ERR_UNSUPPORTED, -5, "not supported")                                                 \
    X(PM_ERR_DEVICE, -6, "device failed")                                                      \
    X(PM_ERR_COMM, -7, "communication failed")                                                 \
    X(PM_ERR_FULL, -8, "full, try again later")                                                \
    X(PM_ERR_TOO_LONG, -9, "too long")                                                         \
    X(PM_ERR_CANCELLED, -10, "cancelled")                                                      \
    X(PM_ERR_BUG, -11, "internal error")

typedef enum pm_status {
#define X(name, value, text) name = value,
    PM_STATUS_LIST(X)
#undef X
} pm_status;

/* name, safetensors name, bits per element */
#define PM_DTYPE_LIST(X)                                                                       \
    X(PM_F32, "F32", 32)                                                                       \
    X(PM_F16, "F16", 16)                                                                       \
    X(PM_BF16, "BF16", 16)                                                                     \
    X(PM_F8_E4M3, "F8_E4M3", 8)                                                                \
    X(PM_MXFP4, "MXFP4", 4)                                                                    \
    X(PM_U8, "U8", 8)                                                                          \
    X(PM_I32, "I32", 32)                                                                       \
    X(PM_I64, "I64", 64)

typedef enum pm_dtype {
#define X(name, text, bits) name,
    PM_DTYPE_LIST(X)
#undef X
        PM_DTYPE_COUNT
} pm_dtype;

/* ------------------------------------------------------------------ library
 *
 * The version of the library, "major.minor.patch", and the commit it was built from. */
PM_API const char *pm_version(void);
PM_API const char *pm_commit(void);

/* A short constant text for a status. */
PM_API const char *pm_status_text(pm_status status);

/* The sentence of the last failure on this thread; valid until the next failing call on it. */
PM_API const char *pm_last_error(void);

/* ------------------------------------------------------------------ options
 *
 * Named settings of an engine and defaults of a generation. Keys are the long flags of the
 * program without the dashes ("threads", "context", "temperature"); docs/options.md has them
 * all. A fresh set holds the defaults, changed by the environment (POLYMATH_THREADS and so on).
 */
typedef struct pm_options pm_options;

PM_API pm_status pm_options_new(pm_options **out);
/* PM_ERR_ARG names the key and says what was found and wanted. */
PM_API pm_status pm_options_set(pm_options *options, const char *key, const char *value);
PM_API void pm_options_free(pm_options *options);

/* ------------------------------------------------------------------ engine
 *
 * A loaded model with its tokenizer and KV cache. Several engines may live in a process. Any
 * thread may call any function on an open engine at any time; steps of the model run on one
 * thread of the engine's own, which starts with the first request. */
typedef struct pm_engine pm_engine;

/* Loads the checkpoint folder `path`. options NULL takes the defaults. */
PM_API pm_status pm_engine_open(pm_engine **out, const char *path, const pm_options *options);
PM_API void pm_engine_close(pm_engine *engine);

typedef struct pm_info {
    const char *family, *device, *dtype; /* until the engine is closed */
    int32_t n_layer, n_expert, n_expert_per_token, vocab_size, context;
    double n_parameter, n_active_parameter;
    uint64_t file_bytes, copied_bytes, kv_bytes, step_bytes;
} pm_info;

PM_API pm_status pm_engine_info(const pm_engine *engine, pm_info *out);

/* What an engine has done since it was opened, and what it does now. */
typedef struct pm_stats {
    int32_t n_running, n_waiting;                  /* requests */
    int64_t n_waiting_token;                       /* prompt tokens of the waiting */
    int64_t n_block, n_block_used, n_block_cached; /* of the KV cache; cached: free, but holding
                                                      a prefix that may be asked for again */
    uint64_t prefix_queries, prefix_hits;          /* prompt tokens looked up and found */
    uint64_t prompt_tokens, generation_tokens;     /* computed; sampled */
    uint64_t n_preemption, n_step;
    int64_t step_age_us; /* since the last step ended while there was work; 0: idle. A healthy
                            engine stays under the time of one step */
} pm_stats;

PM_API void pm_engine_stats(const pm_engine *engine, pm_stats *out);

/* How often each expert was picked: counts [n_layer, n_expert] since the engine was opened. The
 * rows of layers without experts are 0. Counting costs a download a layer on a GPU and is off
 * until the first call. */
PM_API pm_status pm_engine_experts(pm_engine *engine, uint64_t *count);

/* ------------------------------------------------------------------ text */

/* Ids of n bytes of text in *ids [*n_id], freed with pm_free. add_special: put the tokens
 * around it that the tokenizer's file asks for (such as a beginning-of-text token). Special
 * tokens spelled in the text are recognised when parse_special is set. */
PM_API pm_status pm_tokenize(const pm_engine *engine, const char *text, size_t n,
                             bool add_special, bool parse_special, int32_t **ids, size_t *n_id);
/* Text of ids, *n bytes with a closing zero, freed with pm_free. */
PM_API pm_status pm_detokenize(const pm_engine *engine, const int32_t *ids, size_t n_id,
                               char **text, size_t *n);
PM_API void pm_free(void *p);

/* ------------------------------------------------------------------ generation */

typedef struct pm_params {
    int32_t max_tokens;   /* at most this many new tokens; the context is a bound as well */
    float temperature;    /* 0: always the most likely token */
    int32_t top_k;        /* 0: off */
    float top_p, min_p;   /* 1 and 0: off */
    float repeat_penalty; /* 1: off */
    uint64_t seed;
    const char *const *stop; /* [n_stop] texts that end the generation and are not given out */
    int32_t n_stop;
    int32_t n_logprob; /* how many candidates each token reports, up to 32 */
    bool ignore_eos;
    /* Subtracted from the logits of tokens already generated: once, and for each time. */
    float presence_penalty, frequency_penalty; /* 0: off */
    const struct pm_logit_bias *bias;          /* [n_bias] added to logits before all else */
    int32_t n_bias;
    int32_t min_tokens; /* before so many new tokens neither end tokens nor stop texts count */
    const char *schema; /* [n_schema] a JSON schema that the new text matches, or NULL; "{}" is
                           any JSON value. PM_ERR_ARG when it is not one that can be enforced */
    size_t n_schema;
    int32_t n_prompt_logprob; /* -1: off; else the prompt's tokens are reported too, with so
                                 many candidates each; the first has none */
    int32_t priority;         /* lower runs first */
    uint64_t key;             /* whose share of the engine it uses; prefixes of one key are not
                                 found by another */
    uint64_t salt;            /* nor those of one salt with another */
    int64_t deadline_us;      /* from the submission; 0: none */
    /* NULL, or asked with the callback's arg before each step of the prompt: false ends the
     * generation with PM_FINISH_CALLER, and n_prompt counts the tokens computed. */
    bool (*go_on)(void *arg);
} pm_params;

typedef struct pm_candidate {
    int32_t id;
    float logprob;
} pm_candidate;

typedef struct pm_logit_bias {
    int32_t id;
    float bias; /* -inf: never */
} pm_logit_bias;

/* One new token. `text` is what can be shown now: bytes of an unfinished character, or of what
 * may become a stop text, come with a later token. */
typedef struct pm_token {
    int32_t id;
    float logprob;
    const char *text; /* [n_text] until the callback returns */
    size_t n_text;
    const pm_candidate *top; /* [n_top] best first */
    int32_t n_top;
    bool prompt; /* a token of the prompt: see n_prompt_logprob */
} pm_token;

/* Returns false to stop the generation. */
typedef bool pm_on_token(void *arg, const pm_token *token);

typedef enum pm_finish {
    PM_FINISH_LENGTH,
    PM_FINISH_EOS,
    PM_FINISH_STOP,
    PM_FINISH_CALLER,  /* a callback returned false, or pm_cancel */
    PM_FINISH_DEADLINE /* its time was over */
} pm_finish;

typedef struct pm_result {
    int32_t n_prompt, n_generated;
    int64_t prompt_us, generate_us; /* generate_us: from the first new token to the last */
    double generate_bytes;          /* weight bytes that generation had to read */
    pm_finish finish;
    int32_t n_cached;    /* prompt tokens found in the cache */
    int32_t n_preempted; /* how often it was put back and recomputed */
    int64_t queue_us;    /* from submission to its first step */
} pm_result;

/* The defaults of the program: 256 tokens, temperature 0. */
PM_API void pm_params_init(pm_params *params);

/* Continues n bytes of text. Ends at max_tokens, an end token, a stop text, the context, or
 * when the callback says so. PM_ERR_TOO_LONG when the prompt alone fills the context. result
 * may be NULL. */
PM_API pm_status pm_generate(pm_engine *engine, const char *prompt, size_t n,
                             const pm_params *params, pm_on_token *call, void *arg,
                             pm_result *result);

/* The same from token ids. */
PM_API pm_status pm_generate_ids(pm_engine *engine, const int32_t *ids, size_t n_id,
                                 const pm_params *params, pm_on_token *call, void *arg,
                                 pm_result *result);

/* A generation in flight among others. Its tokens are those that it would have alone. */
typedef struct pm_request pm_request;

/* Called once, last, on the engine's thread: PM_OK with the result, or the failure and its
 * sentence. Callbacks must not block and may not call functions on their request but pm_cancel.
 */
typedef void pm_on_end(void *arg, pm_status status, const char *error, const pm_result *result);

/* Queues a generation and returns; params, ids and what they point at are copied. PM_ERR_FULL:
 * the queue's bounds (options max-queue, max-queue-tokens) are reached. PM_ERR_TOO_LONG: the
 * prompt does not fit the context or the cache. call and end may be NULL. Requests are freed
 * before their engine is closed. */
PM_API pm_status pm_submit(pm_request **out, pm_engine *engine, const int32_t *ids, size_t n_id,
                           const pm_params *params, pm_on_token *call, pm_on_end *end,
                           void *arg);
/* Waits for the end; the status and pm_last_error are the request's. result may be NULL. */
PM_API pm_status pm_wait(pm_request *request, pm_result *result);
/* Ends it before the engine's next step; its blocks are free from then on. Any thread. */
PM_API void pm_cancel(pm_request *request);
/* Cancels, waits until no callback can run any more, and frees. Not from a callback. */
PM_API void pm_request_free(pm_request *request);

/* Log-probabilities of ids[1 .. n_id - 1], each given all before it, in logprob [n_id - 1]. A
 * list longer than the context is scored in windows of the context that overlap by half.
 * logits, where not NULL, receives [n_id, vocab] values; the list must then fit the context.
 * Shares the engine with requests; PM_ERR_FULL as pm_submit. */
PM_API pm_status pm_score(pm_engine *engine, const int32_t *ids, size_t n_id, float *logprob,
                          float *logits);

/* ------------------------------------------------------------------ expert layer
 *
 * The mixture-of-experts layer alone, on the caller's own memory and stream: rows and gate
 * logits in, the weighted sum of the experts out. docs/layer.md has an introduction,
 * docs/layer.c and docs/layer.py are whole programs.
 *
 *   y[t] = sum over k of weight[t, k] * down(glu(gate(x[t]), up(x[t]))) of expert id[t, k]
 *
 * T rows, D hidden size, E experts, K experts of a row, F inner size of an expert. Pointers are
 * memory of the layer's device: host memory on a CPU, device memory on a GPU. The bits of y[t]
 * depend on x[t], its gate logits and the weights alone: not on T, the order of rows, or
 * threads. */
typedef struct pm_layer pm_layer;

/* From logits to scores of experts; the best K of score + select_bias are picked, the lower
 * expert among equals. */
typedef enum pm_gate_score { PM_SCORE_SOFTMAX, PM_SCORE_SIGMOID, PM_SCORE_LOGIT } pm_gate_score;
/* Experts are picked from the top_group best of n_group equal groups, which are ranked by their
 * best expert or by the sum of their best two. */
typedef enum pm_gate_group { PM_GROUP_NONE, PM_GROUP_MAX, PM_GROUP_TOP2 } pm_gate_group;
/* The weight of a picked expert. */
typedef enum pm_gate_weight {
    PM_WEIGHT_SCORE,          /* its score, without the bias */
    PM_WEIGHT_SOFTMAX_PICKED, /* softmax over the K picked logits */
    PM_WEIGHT_SIGMOID_PICKED, /* sigmoid of its logit */
    PM_WEIGHT_SPARSEMIXER     /* Phi-3.5-MoE: K = 2, `jitter` is its threshold */
} pm_gate_weight;
/* What the K weights are divided by. */
typedef enum pm_gate_renorm {
    PM_RENORM_NONE, /* 1 */
    PM_RENORM_SUM,  /* their sum + floor */
    PM_RENORM_MAX,  /* their sum, at least floor */
    PM_RENORM_NORM  /* the p-norm, p = floor */
} pm_gate_renorm;
typedef enum pm_glu {
    PM_GLU_SILU = 1, /* silu(gate) * up */
    PM_GLU_GELU,     /* gelu(gate) * up, by tanh */
    PM_GLU_CLAMPED /* g = min(gate, limit), u = clamp(up, -limit, limit): g sigmoid(alpha g) (u
                      + 1) */
} pm_glu;
/* Where the rows of the up matrix stand. */
typedef enum pm_gate_up {
    PM_GATE_UP_APART,      /* w_gate [E, F, D] and w_up [E, F, D] */
    PM_GATE_UP_HALVES,     /* w_gate [E, 2 F, D]: gate rows, then up rows */
    PM_GATE_UP_ALTERNATING /* w_gate [E, 2 F, D]: gate row, up row, ...; not for F8_E4M3 */
} pm_gate_up;

/* Set what is not used to 0. */
typedef struct pm_layer_shape {
    int32_t n_expert, top_k, hidden, inner; /* E to 4096, K to E, D, F */
    pm_dtype weight_type;                   /* F32, F16, BF16, F8_E4M3 or MXFP4 */
    pm_dtype bias_type;                     /* F32, F16 or BF16, of the experts' biases */
    pm_dtype gate_type;                     /* F32, F16 or BF16, of pm_layer_weights.gate */
    pm_dtype x_type, y_type;                /* F32; BF16 on a GPU */
    pm_gate_up gate_up;
    pm_glu glu;
    float alpha, limit; /* of PM_GLU_CLAMPED */
    pm_gate_score score;
    pm_gate_group group;
    int32_t n_group, top_group;
    pm_gate_weight weight;
    pm_gate_renorm renorm;
    float floor;         /* see pm_gate_renorm */
    float scale;         /* factor on the weights; 0: 1 */
    float jitter;        /* see PM_WEIGHT_SPARSEMIXER */
    int32_t scale_input; /* 1: weights multiply an expert's input, not its output (Llama-4) */
} pm_layer_shape;

/* Row-major, without gaps, kept by the caller until the layer is closed. Scales: F8_E4M3 has
 * one float for each 128 x 128 values of an expert's matrix [rows, cols], [E, ceil(rows / 128),
 * ceil(cols / 128)]; MXFP4 has one E8M0 byte for 32 values of a row, [E, rows, cols / 32]. On a
 * GPU matrices and scales start at multiples of 16 bytes. */
typedef struct pm_layer_weights {
    const void *w_gate, *w_up;          /* see pm_gate_up */
    const void *w_down;                 /* [E, D, F] */
    const void *s_gate, *s_up, *s_down; /* scales, NULL for other types */
    const void *b_gate, *b_up;          /* [E, F] or [E, 2 F] as w_gate, or NULL */
    const void *b_down;                 /* [E, D] or NULL */
    const void *gate;                   /* [E, D], or NULL: each step brings its logits */
    const float *gate_bias;             /* [E] added to these logits, or NULL */
    const float *select_bias;           /* [E] added to the scores for picking, or NULL */
} pm_layer_weights;

typedef struct pm_layer_options {
    const char *device; /* "auto" (also NULL), "cpu", "cuda:N" */
    int32_t n_thread;   /* CPU threads; 0: one per CPU */
    int64_t max_row;    /* rows of a step; 0: 512 */
    pm_layer *beside;   /* shares the threads and scratch memory of this layer, and its device;
                           NULL: has its own. Layers that share are all opened before the first
                           step, and used by one thread, on one stream, at a time */
} pm_layer_options;

/* One forward. */
typedef struct pm_layer_step {
    void *y;             /* [T, D] of y_type; may not overlap x */
    const void *x;       /* [T, D] of x_type */
    const float *logits; /* [T, E], NULL where the layer has its gate or `id` is given */
    const int32_t *id;   /* [T, K] experts picked elsewhere, each 0 .. E - 1, or NULL */
    const float *weight; /* [T, K] their weights, where id is given */
    int64_t n_row;       /* T, from 0 to max_row */
    int32_t add;         /* 1: y += instead of y =; y_type F32 only */
    void *workspace;     /* see pm_layer_workspace; of any alignment */
    size_t workspace_bytes;
    void *stream; /* a cudaStream_t, NULL is the default stream; on a CPU NULL */
} pm_layer_step;

/* Checks shape and weights and takes what a step of max_row rows needs. options NULL: zeros.
 * PM_ERR_ARG names the field, what was found and what is wanted; PM_ERR_UNSUPPORTED what the
 * device cannot compute. */
PM_API pm_status pm_layer_open(pm_layer **out, const pm_layer_shape *shape,
                               const pm_layer_weights *weights,
                               const pm_layer_options *options);
PM_API void pm_layer_close(pm_layer *layer);

/* Bytes of device memory that a step of n_row rows works in. */
PM_API pm_status pm_layer_workspace(size_t *bytes, const pm_layer *layer, int64_t n_row);

/* Computes y. Enqueues on the stream, allocates nothing and does not wait: may be captured in a
 * CUDA graph once all layers that share its scratch are open. On a CPU y is complete when it
 * returns. x, y and the workspace are the caller's again when the stream is done. */
PM_API pm_status pm_layer_forward(pm_layer *layer, const pm_layer_step *step);

/* Waits for the last step and copies its routing to host memory: id and weight, [T, K] each or
 * NULL, best expert first. Its workspace must still be as the step left it. */
PM_API pm_status pm_layer_routing(pm_layer *layer, int32_t *id, float *weight);

#ifdef __cplusplus
}
#endif
#endif
