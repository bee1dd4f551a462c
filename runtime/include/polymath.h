/* polymath.h - the public API of Polymath, a mixture-of-experts runtime.
 *
 * Three opaque types: an engine (a loaded model with its KV cache and threads), a request (one
 * generation) and options (named settings). Every fallible function returns a pm_status;
 * results go to out-parameters, which come first and are untouched on failure. pm_last_error()
 * has the sentence that says what, where, found and wanted. Sizes are bytes (uint64_t), lengths
 * are tokens (int32_t), times microseconds, log-probabilities natural logarithms in float32,
 * text UTF-8 with a byte length.
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
 * A loaded model with its tokenizer and KV cache. One thread at a time may use an engine;
 * several engines may live in a process. */
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
} pm_params;

typedef struct pm_candidate {
    int32_t id;
    float logprob;
} pm_candidate;

/* One new token. `text` is what can be shown now: bytes of an unfinished character, or of what
 * may become a stop text, come with a later token. */
typedef struct pm_token {
    int32_t id;
    float logprob;
    const char *text; /* [n_text] until the callback returns */
    size_t n_text;
    const pm_candidate *top; /* [n_top] best first */
    int32_t n_top;
} pm_token;

/* Returns false to stop the generation. */
typedef bool pm_on_token(void *arg, const pm_token *token);

typedef enum pm_finish {
    PM_FINISH_LENGTH,
    PM_FINISH_EOS,
    PM_FINISH_STOP,
    PM_FINISH_CALLER
} pm_finish;

typedef struct pm_result {
    int32_t n_prompt, n_generated;
    int64_t prompt_us, generate_us; /* generate_us: from the first new token to the last */
    double generate_bytes;          /* weight bytes that generation had to read */
    pm_finish finish;
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

/* Log-probabilities of ids[1 .. n_id - 1], each given all before it, in logprob [n_id - 1]. A
 * list longer than the context is scored in windows of the context that overlap by half.
 * logits, where not NULL, receives [n_id, vocab] values; the list must then fit the context. */
PM_API pm_status pm_score(pm_engine *engine, const int32_t *ids, size_t n_id, float *logprob,
                          float *logits);

#ifdef __cplusplus
}
#endif
#endif
