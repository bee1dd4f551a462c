/* postprocessor.h - the "post_processor" of tokenizer.json: ids in front of a text and behind.
 */
#ifndef RUNTIME_POSTPROCESSOR_H
#define RUNTIME_POSTPROCESSOR_H

#include "bpe.h"

/* What goes around the ids of a text; starts as {0}. */
struct postprocessor {
    struct id_list before, after;
};

/* v: the value in the file; NULL and null add nothing. PM_ERR_UNSUPPORTED names the type. */
pm_status postprocessor_parse(struct postprocessor *p, struct json_doc *doc, const json *v);
void postprocessor_clear(struct postprocessor *p);

#endif
