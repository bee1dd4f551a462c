/* openai_inside.h - what the endpoints share. */
#ifndef RUNTIME_OPENAI_INSIDE_H
#define RUNTIME_OPENAI_INSIDE_H

#include "generation.h"
#include "openai.h"
#include "runtime/chat/chat.h"

struct openai {
    pm_engine *engine;
    const struct tokenizer *tokenizer; /* NULL: the checkpoint has none */
    struct chat *chat;                 /* NULL: no template */
    struct toolcall_style style;
    struct openai_defaults defaults;
    int bos, vocab, context;
    char *piece_byte;    /* what each token adds to a text, end to end, or NULL: not known */
    size_t *piece_start; /* [vocab + 1] */
    size_t max_piece;    /* bytes of the longest, 0: not known */
};

/* The model that a request names must be served: refuses with 404. */
bool openai_model_is_served(struct call *c, const char *model);
const char *openai_model_name(const struct call *c);

/* The prompt of a conversation: ids [*n] to be freed, and the text. */
pm_status openai_render(const struct openai *o, const struct openai_request *r,
                        struct marked_text *text);

/* What one token adds to a text, [*n] bytes, which may be a part of a character. */
void openai_piece(const struct openai *o, int32_t id, const char **bytes, size_t *n);

/* Lists: a comma before all elements but the first, and elements that were gathered. */
static inline void openai_next(struct json_out *list)
{
    if (list->n > 0) json_put(list, ",");
}

static inline void openai_put_list(struct json_out *o, const struct json_out *list)
{
    if (list->status != PM_OK) o->status = list->status;
    json_put_bytes(o, list->text, list->n);
}

/* A token's log-probability is added to its choice's; what was gathered is written as the
 * choice's "logprobs" and forgotten. */
void openai_take_logprob(struct generation *g, struct choice *c, const struct tape_record *r,
                         const char *top);
void openai_put_logprobs(struct generation *g, struct choice *c, struct json_out *o);

/* Writing (openai_write.c). On the connection's thread: */
pm_status openai_read_stream(struct call *c, struct json_out *out, bool *end);
/* On a worker: */
void openai_finish(struct call *c);

/* Endpoints (openai_routes.c, openai_text.c) */
bool route_completions(struct call *c);
bool route_chat(struct call *c);
bool route_tokenize(struct call *c);
bool route_detokenize(struct call *c);
bool route_template(struct call *c);

#endif
