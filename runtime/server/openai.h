/* openai.h - OpenAI's HTTP API in terms of the engine: requests, generations, answers.
 *
 * One table (openai_fields.c) says which fields a request may have, with type, range and
 * default; docs/serving.md explains them. A field that the table does not have is an error that
 * names it, since ignoring it might change what the client gets. */
#ifndef RUNTIME_OPENAI_H
#define RUNTIME_OPENAI_H

#include "moe/json.h"
#include "runtime/chat/toolcall.h"

enum {
    OPENAI_MAX_STOP = 16,
    OPENAI_MAX_STOP_BYTES = 1024,
    OPENAI_MAX_BIAS = 1024,
    OPENAI_MAX_N = 16,
    OPENAI_MAX_PROMPT = 64,
    OPENAI_MAX_CHOICE = 128, /* prompts times n */
    OPENAI_MAX_TOP = 32,
    OPENAI_MAX_TOOL = 128
};

/* Which endpoints know a field. */
enum openai_endpoint {
    OPENAI_COMPLETION = 1,
    OPENAI_CHAT = 2,
    OPENAI_TEMPLATE = 4, /* /apply-template */
    OPENAI_TOKENIZE = 8,
    OPENAI_DETOKENIZE = 16
};

/* What a request does not say: from generation_config.json, else OpenAI's values. */
struct openai_defaults {
    float temperature, top_p, min_p, repeat_penalty;
    int top_k;
};

enum tool_choice { TOOLS_NONE, TOOLS_AUTO, TOOLS_REQUIRED, TOOLS_NAMED };

struct openai_request {
    enum openai_endpoint endpoint;
    struct json_doc *doc;
    pm_params params;   /* with pointers into this */
    const char *model;  /* or NULL */
    const json *prompt; /* text, texts, ids, lists of ids */
    const json *messages, *tools, *kwargs;
    const json *tool; /* the function of TOOLS_NAMED */
    enum tool_choice tool_choice;
    int max_completion_tokens, n, best_of;
    int top; /* candidates to report; -1: no log-probabilities */
    int top_logprobs;
    uint64_t seed;
    bool seeded;
    bool logprobs, stream, include_usage, echo, return_token_ids, return_token_texts;
    bool add_generation_prompt, add_special_tokens, parse_special_tokens;
    bool parallel_tool_calls;
    const char *salt;
    const json *tokens; /* of /detokenize */
    const char *stop[OPENAI_MAX_STOP];
    struct pm_logit_bias *bias;
    struct json_out schema;  /* what pm_params.schema points at */
    struct json_out options; /* chat_template_kwargs with what other fields add to it */
    struct json_doc *options_doc;
    const char *param; /* the field that a failure is about, or NULL */
};

/* Reads n bytes of JSON. On failure the sentence names the field, r->param too, and
 * openai_request_clear is due as well. */
pm_status openai_parse(struct openai_request *r, enum openai_endpoint endpoint,
                       const struct openai_defaults *d, const char *text, size_t n);
void openai_request_clear(struct openai_request *r);

/* JSON of a value; numbers that are whole are written so. */
void openai_put_value(struct json_out *o, const json *v);

struct openai;

/* What the endpoints need beside the engine: defaults, template, pieces of tokens. */
pm_status openai_open(struct openai **out, pm_engine *e, const char *folder);
void openai_close(struct openai *o);

#endif
