/* chat.h - a checkpoint's chat template: messages become the ids of a prompt. */
#ifndef RUNTIME_CHAT_H
#define RUNTIME_CHAT_H

#include "runtime/text/tokenizer.h"
#include "template.h"

struct chat; /* not changed after it is opened: shared by threads */

/* Reads the templates of a checkpoint folder: chat_template.jinja, or else chat_template.json,
 * or else "chat_template" of tokenizer_config.json, which is a text or a list of {name,
 * template} (used are "default" and "tool_use"); special tokens from tokenizer_config.json,
 * then special_tokens_map.json.
 * Fails when a file is malformed; *out = NULL and PM_OK when there is no template at all. */
pm_status chat_open(struct chat **out, const char *folder);
void chat_close(struct chat *c);

/* What a conversation is made of; all but messages may be NULL. The documents are borrowed. */
struct chat_request {
    const json *messages; /* list of objects */
    const json *tools;    /* list of objects, or null */
    const json *kwargs;   /* object: further variables (chat_template_kwargs) */
    bool add_generation_prompt;
};

/* Renders the template for tools if there are tools and such a template, else the default one.
 * Where messages differ in form, the template sees what transformers' users give it:
 *
 *   content         a list of text parts is one text, joined by line feeds; other parts fail
 *   tool_calls      function.arguments that is a text of a JSON object is that object
 *   null members    are left out
 *   reasoning_content, thinking, reasoning: one stands for the first two
 *
 * PM_ERR_ARG: messages, tools or kwargs have the wrong type, kwargs name a reserved variable
 * (messages, tools, add_generation_prompt, ...), or the template refuses the conversation. */
pm_status chat_render(const struct chat *c, const struct chat_request *request,
                      struct marked_text *out);

/* The ids of a rendered text, in *ids [*n] freed with free(). Control tokens (special ones and
 * added tokens that look like <...> or [...]) are recognised in bytes of the template only; in
 * all else the ids are those of the whole text. Adds no BOS and no EOS: a template writes its
 * own. */
pm_status chat_tokenize(const struct marked_text *text, const struct tokenizer *t,
                        int32_t **ids, size_t *n);

/* The source of the template that is rendered with or without tools, and a special token of
 * tokenizer_config.json ("eos_token"), NULL when there is none. For whoever recognises a family
 * by them. */
const char *chat_source(const struct chat *c, bool tools);
const char *chat_token(const struct chat *c, const char *name);

#endif
