/* template.h - chat templates: a Jinja template and some variables become a text of which each
 * byte knows where it came from. */
#ifndef RUNTIME_TEMPLATE_H
#define RUNTIME_TEMPLATE_H

#include "moe/json.h"

#include "runtime/text/marked_text.h"

struct template; /* not changed after it is made: shared by threads */

/* n bytes of source; `name` (copied) is what errors call it: "NAME: line 3: ...". PM_ERR_FORMAT
 * where the source breaks the grammar, PM_ERR_UNSUPPORTED for statements that load other
 * templates, PM_ERR_TOO_LONG over 1 MiB. Unknown filters, tests and functions fail only where
 * a rendering comes to them. */
pm_status template_parse(struct template **out, const char *name, const char *source, size_t n);
void template_free(struct template *t);

/* Whether the name occurs as a variable anywhere. */
bool template_mentions(const struct template *t, const char *variable);

/* A variable: what `value` says, else `text`, else `truth` if it is a flag, else none. */
struct template_variable {
    const char *name;
    const json *value; /* borrowed for the call; its texts count as the request's */
    const char *text;  /* [n_text] counts as the template's */
    size_t n_text;
    bool flag, truth;
    bool roles; /* member "role" of the elements: one of the usual names counts as the
                   template's, so that a template may build a control token of it */
};

/* Bounds of one rendering; PM_ERR_TOO_LONG where one is met. A step is an operation, or 64
 * bytes that one moves. */
struct template_limits {
    size_t max_steps, max_memory, max_output; /* 0: the defaults, 20 million, 256 and 64 MiB */
};

/* limits may be NULL. PM_ERR_ARG with the sentence of raise_exception, or for what Jinja would
 * raise. *out is untouched on failure. */
pm_status template_render(const struct template *t, const struct template_variable *variable,
                          size_t n, const struct template_limits *limits,
                          struct marked_text *out);

#endif
