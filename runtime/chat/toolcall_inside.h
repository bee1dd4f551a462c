/* toolcall_inside.h - calls as the parts of the tool-call parser hand them over. */
#ifndef RUNTIME_TOOLCALL_INSIDE_H
#define RUNTIME_TOOLCALL_INSIDE_H

#include "runtime/text/unicode.h"
#include "toolcall.h"

struct parsed_call {
    struct text name, arguments, id; /* id.n = 0: the model gave none */
};

struct call_list {
    struct parsed_call *call; /* [n] */
    size_t n, capacity;
};
void call_list_clear(struct call_list *list);

/* Which parameters of which functions are texts: "NAME" 0 "KEY" 0 for each of them. */
pm_status text_parameters_of(struct text *out, const json *tools);

/* Reads the calls between a format's markers (of harmony: the arguments of one call, whose name
 * is in the header). *well = false when they are malformed; the list may then hold some. */
pm_status toolcall_read(enum toolcall_format format, const char *body, size_t n,
                        const struct text *text_parameters, struct call_list *out, bool *well);

/* Whether n bytes are one JSON object. */
bool is_json_object(const char *text, size_t n);

#endif
