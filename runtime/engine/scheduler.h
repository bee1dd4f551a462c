/* scheduler.h - whose tokens the next step computes.
 *
 * Continuous batching: requests wait until there is a seat and memory for all their tokens,
 * then run until they end. Each step has one budget of rows. First every running sequence gets
 * the row of its newest token (decode), then prompts share what is left in pieces (prefill).
 *
 *   scheduler_submit    a request waits, or PM_ERR_FULL
 *   scheduler_admit     takes out who was cancelled or is late, takes blocks, preempts, seats
 *   scheduler_plan      rows of the step, in the order of the batch
 *   scheduler_done      the step was computed and took so long
 *   scheduler_end       a request leaves, its blocks are free
 *
 * Fair: a lower `priority` goes first; among equals the keys take turns by deficit round robin
 * (Shreedhar and Varghese, 1996) on tokens, those generated included; of one key, first come.
 *
 * Preempted is, when blocks run out, who was seated last among the lowest priority. It waits in
 * front of its key's queue and computes its tokens again. After MAX_PREEMPTION times a request
 * is seated with all blocks that it may ever need and is not preempted again, so two requests
 * cannot evict each other for ever.
 *
 * Pure: the time comes from the caller, memory is taken at open, requests are the caller's. Not
 * thread-safe. */
#ifndef RUNTIME_SCHEDULER_H
#define RUNTIME_SCHEDULER_H

#include "runtime/engine/kvcache.h"

enum schedule_state { SCHEDULE_NONE, SCHEDULE_WAITING, SCHEDULE_RUNNING };

struct schedule_flow;

/* A request as the scheduler sees it; the caller's memory from submit to end. */
struct schedule_request {
    /* The caller's, before submit. The caller appends to token a new one after each step that
     * computed all of them. */
    int32_t *token; /* [max_token + 1] the last new one is never computed */
    int32_t *block; /* [scheduler_blocks(max_token)] */
    int32_t n_token, n_prompt, max_token;
    int32_t priority;
    uint64_t key, salt;
    int64_t deadline_us; /* 0: none */
    bool every_row;      /* all rows are computed: prefixes are not looked up */
    /* Set at any time, by any thread that holds the scheduler's lock. */
    bool cancelled;
    /* The scheduler's. */
    enum schedule_state state;
    bool late;             /* its deadline was over */
    bool reserved;         /* holds all blocks that it may need */
    int32_t n_past;        /* tokens in the cache, those of the step in flight included */
    int32_t n_done;        /* prompt tokens computed or found, however often */
    int32_t n_block;       /* held */
    int32_t n_known;       /* first blocks whose hash is in the chain below */
    struct siphash prefix; /* hash of the first n_known blocks */
    int32_t n_cached;      /* prompt tokens found in the cache in its first run */
    int32_t n_preempted;
    int64_t submit_us, start_us; /* start: first seated; 0: not yet */
    uint64_t turn;               /* order of seating */
    struct schedule_flow *flow;
    struct schedule_request *next, *previous; /* in the flow's queue, or among the ended */
};

/* A key's queue at one priority, and its account. Exists while it has requests. */
struct schedule_flow {
    uint64_t key;
    int32_t priority;
    int32_t n_request; /* waiting and running */
    int64_t deficit;   /* tokens that it may still take this round */
    struct schedule_request *first, *last;
    struct schedule_flow *next, *previous; /* ring of all flows */
};

/* Rows of one request in a step. */
struct schedule_part {
    struct schedule_request *request;
    int32_t first, n_row; /* tokens first .. first + n_row - 1 */
    bool sample;          /* these are all of its tokens: a new one is due */
};

struct schedule_plan {
    struct schedule_part *part; /* [max_seq] */
    int32_t n_part, n_row, n_decode, n_prefill;
    int32_t n_out;  /* rows whose logits are needed */
    double prompts; /* how many times the rows of one prompt they may have together */
};

struct scheduler_options {
    int32_t max_row, max_seq, max_out, context;
    int32_t max_waiting;
    int64_t max_waiting_token, n_block;
    float stretch; /* a step with a prompt may take so many times a step without; 0: no limit */
    bool prefix_cache;
    struct siphash secret; /* key of the prefixes' hashes */
};

struct scheduler_counts {
    int32_t n_running, n_waiting, n_preempted_waiting;
    int64_t n_waiting_token;
    uint64_t prefix_queries, prefix_hits, n_preemption, n_step;
    uint64_t prompt_tokens;
};

/* Steps without prompts, by number of sequences: bin b has 2^b and more. */
enum { SCHEDULE_BINS = 17, MAX_PREEMPTION = 3 };

struct scheduler {
    struct scheduler_options o;
    struct kvcache cache;
    struct scheduler_counts count;
    struct schedule_request **running; /* [max_seq] in the order of seating */
    struct schedule_request **order;   /* [max_seq] scratch */
    struct schedule_flow *flow;        /* [max_waiting + max_seq] */
    struct schedule_flow *free_flow, *ring;
    struct schedule_request *ended; /* cancelled or late, to be taken by the caller */
    struct schedule_plan plan;
    uint64_t turn;
    double decode_us[SCHEDULE_BINS]; /* 0: not measured */
    double more_us, more_rows;       /* what prompts' rows added to steps with others, fading */
    double chunk;                    /* prompt rows beside decode rows that keep the stretch */
    int32_t n_mixed;                 /* steps with prompts since the last without */
};

pm_status scheduler_open(struct scheduler *s, const struct scheduler_options *o);
void scheduler_close(struct scheduler *s);

static inline int32_t scheduler_blocks(int64_t n_token)
{
    enum { BLOCK = 16 };
    return (int32_t)((n_token + BLOCK - 1) / BLOCK);
}

/* PM_ERR_FULL when too many requests or prompt tokens wait; PM_ERR_TOO_LONG when max_token are
 * more than the context or all blocks. */
pm_status scheduler_submit(struct scheduler *s, struct schedule_request *r, int64_t now_us);

/* Prepares a step at time now. Requests that were cancelled or are late have left and form the
 * list scheduler_take_ended gives. */
void scheduler_admit(struct scheduler *s, int64_t now_us);
/* The next of those, NULL: none. */
struct schedule_request *scheduler_take_ended(struct scheduler *s);

/* The rows of the next step; none when nobody runs. Valid until the next call. */
const struct schedule_plan *scheduler_plan(struct scheduler *s);
/* The planned step took `us`. Where a part had `sample` set its request got a token, or is
 * ended next. */
void scheduler_done(struct scheduler *s, int64_t us);
/* The planned step failed: what it should have written is not in the cache. Every running
 * request must be ended. */
void scheduler_failed(struct scheduler *s);

/* Ends a waiting or running request. */
void scheduler_end(struct scheduler *s, struct schedule_request *r);
bool scheduler_has_work(const struct scheduler *s);
/* Everybody leaves at the next scheduler_admit. */
void scheduler_cancel_all(struct scheduler *s);
/* Puts every running request back and forgets all prefixes: the blocks are used otherwise. */
void scheduler_preempt_all(struct scheduler *s);

#endif
