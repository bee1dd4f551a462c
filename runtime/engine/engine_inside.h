/* engine_inside.h - the parts of an engine, shared by its files.
 *
 * The lock guards the scheduler, the jobs and the fields below it. It is held for host work of
 * microseconds, never across a step or a callback. */
#ifndef RUNTIME_ENGINE_INSIDE_H
#define RUNTIME_ENGINE_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/engine/engine.h"
#include "runtime/engine/request.h"

/* The arrays of struct batch, for the largest step. */
struct engine_batch {
    int32_t *id, *position, *q_start, *kv_len, *block_table, *out_row;
    int64_t *slot;
    float *logits; /* [max_out, V] */
};

/* An exclusive job; who waits for it has it on the stack. */
struct engine_waiter {
    engine_job *job;
    void *arg;
    struct engine_waiter *next;
    bool over;
    pm_status status;
    char error[512];
};

struct pm_engine {
    struct model *model;
    struct tokenizer *tokenizer;
    struct engine_batch batch;
    struct request_tools tools;
    pm_request **told; /* [n_told] of [max_seq]: have a token, or an end, to be told */
    int32_t n_told;
    bool overlaps;                         /* tell while the device computes the next step */
    struct grammar_vocabulary *vocabulary; /* from the first schema on, under its own lock */
    pthread_mutex_t vocabulary_lock;
    atomic_uint_fast64_t *expert_count; /* [n_layer, n_expert] */

    pthread_mutex_t lock;
    pthread_cond_t work, done; /* something to do; a request or job is over */
    struct scheduler scheduler;
    pthread_t thread;
    bool started, closing, counting;
    struct engine_waiter *job, **last_job;
    uint64_t n_generated;
    int64_t mark_us; /* work came or a step ended; 0: idle */
};

pm_status engine_batch_open(struct engine_batch *b, const struct model *m);
void engine_batch_close(struct engine_batch *b);

/* What the thread does until the engine closes. */
void *engine_main(void *engine);

struct engine_calls {
    pm_on_token *token;
    pm_on_end *end;
    request_row *row; /* gets the logits of all of the prompt */
    void *arg;
};

/* pm_submit with all hooks. */
pm_status engine_submit(pm_request **out, pm_engine *e, const int32_t *ids, size_t n_id,
                        const pm_params *params, const struct engine_calls *calls);

#endif
