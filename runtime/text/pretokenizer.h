/* pretokenizer.h - the "pre_tokenizer" of tokenizer.json: a text becomes words. */
#ifndef RUNTIME_PRETOKENIZER_H
#define RUNTIME_PRETOKENIZER_H

#include "pattern.h"

struct pretokenizer;    /* not changed after it is made: shared by threads */
struct pretokenization; /* the memory of one thread's runs */

/* v: the value in the file; NULL and null make one word of each text. PM_ERR_UNSUPPORTED names
 * the type. */
pm_status pretokenizer_parse(struct pretokenizer **out, struct json_doc *doc, const json *v);
void pretokenizer_free(struct pretokenizer *p);

pm_status pretokenization_new(struct pretokenization **out);
void pretokenization_free(struct pretokenization *run);

/* Whether the words are bytes that stand for their characters of the byte-level alphabet, left
 * to the model because it needs no text for that. */
bool pretokenizer_is_byte_level(const struct pretokenizer *p);

/* Called for each word in order; n > 0; text is valid during the call. */
typedef pm_status (*word_sink)(void *context, const char *text, size_t n);

/* Splits n > 0 bytes of well-formed text; `head` as struct passage has it. */
pm_status pretokenizer_run(const struct pretokenizer *p, struct pretokenization *run,
                           struct matcher *m, const char *text, size_t n, size_t head,
                           word_sink sink, void *context);

#endif
