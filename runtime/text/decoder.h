/* decoder.h - the "decoder" of tokenizer.json: contents of tokens become text, in a stream. */
#ifndef RUNTIME_DECODER_H
#define RUNTIME_DECODER_H

#include "pattern.h"

struct decoder;  /* not changed after it is made: shared by threads */
struct decoding; /* one stream */

/* v: the value in the file; NULL and null put a blank between tokens. PM_ERR_UNSUPPORTED names
 * the type. */
pm_status decoder_parse(struct decoder **out, struct json_doc *doc, const json *v);
void decoder_free(struct decoder *d);

/* d is borrowed until decoding_free. */
pm_status decoding_new(struct decoding **out, const struct decoder *d);
void decoding_free(struct decoding *s);

/* Appends to out what the next token, or the end of the stream, makes certain. After the end a
 * stream starts anew. */
pm_status decoding_put(struct decoding *s, const char *token, size_t n, struct text *out);
pm_status decoding_end(struct decoding *s, struct text *out);

/* Appends the bytes of one token in the middle of a text, with s as scratch.
 * PM_ERR_UNSUPPORTED: they depend on its neighbours. */
pm_status decoding_bytes(struct decoding *s, const char *token, size_t n, struct text *out);

#endif
