/* marked_text.h - a text of which each byte is known to come from a template or a request. */
#ifndef RUNTIME_MARKED_TEXT_H
#define RUNTIME_MARKED_TEXT_H

#include "kernels/base.h"

/* Bytes [previous end, end) of a text. Neighbours differ in `request`. */
struct text_span {
    size_t end;
    bool request; /* from the request, else from the template */
};

struct marked_text {
    char *text; /* [n] well-formed UTF-8 and a closing zero */
    size_t n;
    struct text_span *span; /* [n_span] the last one ends at n */
    size_t n_span;
};

void marked_text_clear(struct marked_text *m);

#endif
