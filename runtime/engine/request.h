/* request.h - one generation: its parameters, what was sampled, and text on its way out.
 *
 * Belongs to the caller from open to submit and after its end; in between to the engine's
 * thread, but for what is said to be under the engine's lock. */
#ifndef RUNTIME_REQUEST_H
#define RUNTIME_REQUEST_H

#include "runtime/engine/sampling.h"
#include "runtime/engine/scheduler.h"
#include "runtime/grammar/grammar.h"
#include "runtime/text/tokenizer.h"

/* Logits [V] of the row at `position` of the prompt. */
typedef void request_row(void *arg, int32_t position, const float *logits);

/* Text that is certain is given out, the rest held. */
struct text_gate {
    char **stop; /* [n_stop] */
    int32_t n_stop;
    char *held; /* [n_held] */
    size_t n_held, max_held;
    bool armed;   /* stop texts count */
    bool stopped; /* a stop text was found: what is held begins with it */
};

struct pm_request {
    struct schedule_request schedule;
    pm_engine *engine;
    pm_params params;
    pm_on_token *call;
    pm_on_end *end;
    request_row *row;
    void *arg;
    struct sampling sampling;
    struct detokenizer *detokenizer, *prompt_detokenizer; /* NULL: no tokenizer, not wanted */
    struct text_gate gate;
    struct grammar *grammar; /* of params.schema, or NULL */
    struct grammar_state *state;
    struct candidate *top;  /* [most candidates] */
    int32_t n_reported;     /* prompt tokens given out */
    struct candidate fresh; /* sampled and not told yet; its candidates are in `top` */
    bool has_fresh;
    int64_t first_us; /* time of the first new token */
    pm_result result;
    pm_status status;
    char error[512];
    bool over;   /* under the engine's lock: nobody but the caller uses it any more */
    bool ending; /* it has nothing to compute any more */
};

/* What a request needs to know of its engine. */
struct request_room {
    pm_engine *engine;
    const struct tokenizer *tokenizer;           /* or NULL */
    const struct grammar_vocabulary *vocabulary; /* where params.schema is set */
    int32_t vocab, context;
};

/* Copies ids, params and what they point at. */
pm_status request_open(pm_request **out, const struct request_room *room, const int32_t *ids,
                       size_t n_id, const pm_params *params);
void request_close(pm_request *r);

/* What all requests of an engine sample with. */
struct request_tools {
    struct sampler *sampler;
    const int32_t *end_id; /* [n_end] */
    int32_t n_end;
    uint32_t *allowed; /* [ceil(V / 32)] scratch */
};

/* The logits of a prompt's row: what was asked for of it is given out. Failures and a caller
 * that wants no more set `ending`. */
void request_take_row(pm_request *r, const struct request_tools *t, int32_t position,
                      const float *logits);

/* The logits after the last token: samples the next, which is appended to schedule.token and
 * waits to be told. `ending` is set when it was the last, or when there is none. */
void request_pick(pm_request *r, const struct request_tools *t, float *logits);
/* Gives the sampled token and its text out, where there is one; may set `ending`. */
void request_tell(pm_request *r);

/* It ends with a failure of this status and pm_last_error's sentence. */
void request_fail(pm_request *r, pm_status status);
void request_finish(pm_request *r, pm_finish finish);
/* Gives out what is still held and calls `end`: the last that is called for it. */
void request_end(pm_request *r);

#endif
