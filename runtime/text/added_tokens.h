/* added_tokens.h - the "added_tokens" of tokenizer.json: contents that are found before
 * anything else looks at the text. */
#ifndef RUNTIME_ADDED_TOKENS_H
#define RUNTIME_ADDED_TOKENS_H

#include "marked_text.h"
#include "normalizer.h"
#include "vocabulary.h"

struct added_token {
    char *content; /* [n] and a closing zero */
    char *pattern; /* [n_pattern] what is looked for: the normalised content, or the content */
    size_t n, n_pattern;
    int32_t id;
    bool single_word, left, right; /* not inside a word; takes the blanks on its left, right */
    bool normalized;               /* looked for in the normalised text */
    bool special;
    bool control; /* special, or with the look of a marker: <...> or [...] */
    bool skipped; /* when special tokens are left out of decoded text */
};

struct added_tokens; /* not changed after it is made */

/* list: the value in the file, NULL or null for none. */
pm_status added_tokens_parse(struct added_tokens **out, struct json_doc *doc, const json *list,
                             const struct vocabulary *v, const struct normalizer *z,
                             struct matcher *m);
void added_tokens_free(struct added_tokens *a);

size_t added_tokens_count(const struct added_tokens *a);
const struct added_token *added_tokens_get(const struct added_tokens *a, size_t i);
/* NULL: no such token. */
const struct added_token *added_tokens_find(const struct added_tokens *a, const char *content,
                                            size_t n);
const struct added_token *added_tokens_by_id(const struct added_tokens *a, int32_t id);

/* Called for the parts of a text in order: token NULL for text between tokens, [start, end). */
typedef pm_status (*part_sink)(void *context, const struct added_token *token, size_t start,
                               size_t end);

enum added_mode {
    ADDED_ALL,
    ADDED_NO_SPECIAL, /* special tokens that are found are text */
    ADDED_NO_CONTROL  /* control tokens are */
};

/* Finds the tokens that are looked for in normalised text, or the others. */
pm_status added_tokens_split(const struct added_tokens *a, bool normalized,
                             enum added_mode mode, const char *text, size_t n, part_sink sink,
                             void *context);

/* Finds the tokens that are looked for in the raw text, and all control tokens by their
 * contents. Control tokens are found in bytes of the template only, whatever stands beside
 * them. */
pm_status added_tokens_split_marked(const struct added_tokens *a, const struct marked_text *m,
                                    part_sink sink, void *context);

#endif
