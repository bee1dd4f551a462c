/* normalizer.h - the "normalizer" of tokenizer.json: what happens to a text before it is split.
 */
#ifndef RUNTIME_NORMALIZER_H
#define RUNTIME_NORMALIZER_H

#include "pattern.h"

struct normalizer; /* not changed after it is made */

/* v: the value in the file; NULL and null do nothing. PM_ERR_UNSUPPORTED names the type. */
pm_status normalizer_parse(struct normalizer **out, struct json_doc *doc, const json *v);
void normalizer_free(struct normalizer *z);

/* A text on its way, and how much of its start comes from the first character of the whole
 * input: `head` bytes, 0 when the text starts later. Metaspace asks for it. */
struct passage {
    struct text text;
    size_t head;
    size_t most; /* text.n at most: PM_ERR_TOO_LONG beyond; set by normalizer_run */
};

/* Changes p in place; `spare` is scratch. */
pm_status normalizer_run(const struct normalizer *z, struct matcher *m, struct passage *p,
                         struct text *spare);

#endif
