/* openai_inside.h - what the endpoints share. */
#ifndef RUNTIME_OPENAI_INSIDE_H
#define RUNTIME_OPENAI_INSIDE_H

#include "chat.h"
#include "generation.h"
#include "openai.h"

struct openai {
    pm_engine *engine;
    const struct tokenizer *tokenizer; /* NULL: the checkpoint has none */
    struct chat *chat;                 /* NULL: no template */
    struct toolcall_style style;
    struct openai_defaults defaults;
    int bos, vocab, context;
    bool byte_level; /* tokens spell bytes in the alphabet of GPT-2 */
};

/* The model that a request names must be served: refuses with 404. */
bool openai_model_is_served(struct call *c, const char *model);
const char *openai_model_name(const struct call *c);

/* The prompt of a conversation: ids [*n] to be freed, and the text. */
pm_status openai_render(const struct openai *o, const struct openai_request *r,
                        struct marked_text *text);

/* What one token adds to a text, as its bytes: exact for a token that is part of a character.
 */
pm_status openai_piece(const struct openai *o, int32_t id, struct json_out *bytes);

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
