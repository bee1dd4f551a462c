/* toolcall.h - generated text, as it comes, becomes content, reasoning and tool calls. */
#ifndef RUNTIME_TOOLCALL_H
#define RUNTIME_TOOLCALL_H

#include "chat.h"

enum toolcall_format {
    TOOLCALL_NONE,        /* all text is content */
    TOOLCALL_HERMES,      /* <tool_call>{"name": ..., "arguments": {...}}</tool_call> */
    TOOLCALL_MISTRAL,     /* [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...] */
    TOOLCALL_LLAMA3,      /* {"name": ..., "parameters": {...}} as the whole answer */
    TOOLCALL_DEEPSEEK_V3, /* <|tool calls begin|> ... <|tool sep|>NAME ```json ... ``` */
    TOOLCALL_KIMI_K2,     /* <|tool_calls_section_begin|> ... functions.NAME:0 ... {...} */
    TOOLCALL_GLM4,        /* <tool_call>NAME <arg_key>k</arg_key> <arg_value>v</arg_value> */
    TOOLCALL_MINIMAX_M2,  /* <minimax:tool_call><invoke name=...><parameter name=...> */
    TOOLCALL_HARMONY,     /* gpt-oss: <|channel|>commentary to=functions.NAME ... */
    TOOLCALL_GRANITE      /* <|tool_call|> [{"name": ..., "arguments": {...}}, ...] */
};

/* How a model's answers are to be read. */
struct toolcall_style {
    enum toolcall_format format;
    bool reasoning;        /* <think> ... </think> is reasoning */
    bool starts_reasoning; /* the prompt ends inside of <think>: set it for each request with
                              toolcall_starts_reasoning */
};

/* Recognises the style by the template's source and the tokenizer's tokens. For a request
 * without tools a server sets format to TOOLCALL_NONE, unless it is TOOLCALL_HARMONY: an answer
 * in JSON is no call then. */
struct toolcall_style toolcall_recognise(const struct chat *c, const struct tokenizer *t);
const char *toolcall_format_name(enum toolcall_format format);

/* Whether a prompt's text leaves the model inside of reasoning. */
bool toolcall_starts_reasoning(const struct marked_text *prompt);

enum toolcall_piece_kind {
    PIECE_CONTENT,
    PIECE_REASONING,
    PIECE_CALL_BEGIN, /* text: the function's name; id: of the call */
    PIECE_ARGUMENTS,  /* text: more of the call's arguments, together one JSON object */
    PIECE_CALL_END
};

struct toolcall_piece {
    enum toolcall_piece_kind kind;
    int call;         /* 0, 1, ... of the answer; in content and reasoning the next one */
    const char *text; /* [n] until the next call on the parser */
    size_t n;
    const char *id; /* of CALL_BEGIN, with a closing zero: the model's own or a new one */
};

struct toolcall_parser;

/* seed: ids of calls are made from it, so that equal runs have equal ids. tools: the request's,
 * or NULL; argument types of formats without JSON are taken from there. Nothing is kept of it.
 * t may be NULL: then markers are found in text alone. */
pm_status toolcall_open(struct toolcall_parser **out, struct toolcall_style style,
                        const struct tokenizer *t, const json *tools, uint64_t seed);
void toolcall_close(struct toolcall_parser *p);

/* Takes one generated token: its id (-1: unknown) and its text [n], special tokens spelled out,
 * which may be empty while a character is incomplete. A marker that is a token of the tokenizer
 * counts only when its id comes, so that a model that talks about markers makes no calls.
 * Pieces that are certain now are in *piece [*n_piece]. Text that is no call comes out as
 * content unchanged; a call that turns out malformed comes out as content from its marker on.
 * Calls are begun when they are known to be whole, so that no begun call is taken back. */
pm_status toolcall_add(struct toolcall_parser *p, int32_t id, const char *text, size_t n,
                       const struct toolcall_piece **piece, size_t *n_piece);
/* The end of the answer: gives out what was held back. */
pm_status toolcall_end(struct toolcall_parser *p, const struct toolcall_piece **piece,
                       size_t *n_piece);

#endif
