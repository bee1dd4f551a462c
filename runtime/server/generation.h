/* generation.h - a request of the API at work: its prompts, its choices, its answer.
 *
 * Each choice is one pm_request. The engine's thread copies what it gives out to a tape under a
 * short lock, and nothing else; whoever answers reads the tape and writes JSON: the
 * connection's thread for a stream, a worker otherwise. A slow client thus costs memory,
 * bounded by the tokens asked for, and never the engine's time. */
#ifndef RUNTIME_GENERATION_H
#define RUNTIME_GENERATION_H

#include "openai.h"
#include "server_call.h"

/* A record of the tape, followed by n_text bytes and n_top candidates. */
struct tape_record {
    int32_t choice, id;
    float logprob;
    int32_t n_text, n_top;
    bool prompt;
};

struct tape {
    char *byte; /* [n] */
    size_t n, capacity;
};

struct prompt {
    int32_t *ids; /* [n] */
    size_t n;
    const char *text; /* [n_text] as it was given, or NULL for ids */
    size_t n_text;
};

struct generation;

struct choice {
    struct generation *g;
    int index;
    pm_request *request;
    int64_t last_us; /* of its last token, 0: none; the engine's thread */

    /* under the generation's lock */
    int n_prompt_seen, n_generated;
    bool started; /* a step of its prompt was computed */
    bool lost;    /* a token found no memory */
    bool ended;
    pm_status status;
    char error[256];
    pm_result result;

    /* the writer's */
    struct toolcall_parser *parser; /* NULL: text is content */
    bool echoed, scored, begun, done, called;
    size_t offset;                              /* characters so far, for text_offset */
    struct json_out text, reasoning, arguments; /* bytes that are not sent yet */
    struct json_out calls, ids;                 /* elements of lists */
    struct json_out column[4];                  /* elements of the lists of log-probabilities */
};

struct generation {
    struct job job; /* first: they are cast */
    struct call *call;
    struct openai_request r;
    struct prompt *prompt; /* [n_prompt] */
    int n_prompt;
    struct choice *choice; /* [n_choice] of prompt index / r.n */
    int n_choice;
    struct toolcall_style style;
    int64_t created_s;
    atomic_int n_open; /* choices that have not ended, and one while submitting */
    atomic_bool cancelled;

    pthread_mutex_t lock; /* of the tape, and of what choices say */
    struct tape tape;

    /* the writer's */
    struct tape taken;
    struct json_out head; /* what each event begins with */
    bool streaming, ending;
};

/* Takes the request over, tokenises or renders, submits. Answers by itself: true, or false when
 * the answer comes when all choices have ended. */
bool generation_start(struct call *c, struct openai_request *r);

/* Exchanges what the engine wrote for the empty tape that was read before. */
void generation_swap(struct generation *g);
/* The record at *at of g->taken, with its text and candidates; false at the end. */
bool generation_next(const struct generation *g, size_t *at, struct tape_record *record,
                     const char **text, const char **top);

/* The list of /v1/requests, and DELETE: false when c's key has no such request at work. */
void generation_list(struct call *c, struct json_out *o);
bool generation_cancel(struct call *c, const char *id);

#endif
