/* tokenizer.h - text <-> token ids, as a Hugging Face tokenizer.json says. */
#ifndef RUNTIME_TOKENIZER_H
#define RUNTIME_TOKENIZER_H

#include "kernels/base.h"

#include "marked_text.h"

struct tokenizer;

/* Reads tokenizer.json (a file's path). PM_ERR_UNSUPPORTED names the part that is not known. */
pm_status tokenizer_open(struct tokenizer **out, const char *path);
/* The same from memory; `name` is what errors call it. */
pm_status tokenizer_parse(struct tokenizer **out, const char *name, const char *text, size_t n);
void tokenizer_close(struct tokenizer *t);

/* Ids run from 0 to size - 1 (added tokens included). */
int tokenizer_size(const struct tokenizer *t);
/* The id of a token's exact content, or -1. */
int32_t tokenizer_id(const struct tokenizer *t, const char *token);
/* The content of an id as in the file (byte-level alphabet and all), NULL when there is none.
 */
const char *tokenizer_token(const struct tokenizer *t, int32_t id);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);

/* The bytes that each id below n adds to a text, end to end in *byte (the caller frees it): id
 * i has byte[start[i]] .. byte[start[i + 1] - 1]; start [n + 1]. Special tokens and ids that
 * are none have no bytes. What the decoder does at the very start or end of a text is left out.
 * PM_ERR_UNSUPPORTED: with this decoder the text of a token depends on its neighbours. */
pm_status tokenizer_all_bytes(const struct tokenizer *t, int n, char **byte, size_t *start);

enum tokenizer_flags {
    TOKENIZE_ADD_SPECIAL = 1, /* apply the post-processor (BOS and the like) */
    TOKENIZE_PARSE_SPECIAL =
        2, /* added special tokens in the text become their ids; else they are plain text */
};

/* Ids of n bytes of UTF-8 text, appended to *id (of *capacity, *n_id used; grown with realloc).
 * Ill-formed UTF-8 is replaced by U+FFFD as the reference does for lossy input. Linear in n but
 * for a log factor, whatever the text. Any thread may call it on a shared tokenizer. */
pm_status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, int flags,
                           int32_t **id, size_t *capacity, size_t *n_id);

/* Ids of a text of two origins, appended likewise. Control tokens (special ones, and added
 * tokens that look like <...> or [...]) are recognised in bytes of the template only. All else
 * is as in tokenizer_encode with TOKENIZE_PARSE_SPECIAL: words and merges do not see where the
 * origin changes. PM_ERR_ARG for a text that is not UTF-8. */
pm_status tokenizer_encode_marked(const struct tokenizer *t, const struct marked_text *text,
                                  int32_t **id, size_t *capacity, size_t *n_id);

/* Streaming detokeniser: bytes of each id, with incomplete UTF-8 held back until complete. The
 * concatenation over all calls and the flush equals the reference's decode of the whole list.
 */
struct detokenizer;
pm_status detokenizer_open(struct detokenizer **out, const struct tokenizer *t,
                           bool skip_special);
void detokenizer_close(struct detokenizer *d);
/* *text is valid until the next call on d. */
pm_status detokenizer_add(struct detokenizer *d, int32_t id, const char **text, size_t *n);
pm_status detokenizer_flush(struct detokenizer *d, const char **text, size_t *n);

#endif
