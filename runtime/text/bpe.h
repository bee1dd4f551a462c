/* bpe.h - the "model" of tokenizer.json when it is BPE: a word becomes ids. */
#ifndef RUNTIME_BPE_H
#define RUNTIME_BPE_H

#include "vocabulary.h"

struct bpe;       /* not changed once the special tokens are marked: shared by threads */
struct bpe_words; /* the memory of one thread: a cache of short words, and scratch */

/* A growing list of ids; starts as {0}; the owner frees `id`. */
struct id_list {
    int32_t *id;
    size_t n, capacity;
};

pm_status id_list_put(struct id_list *list, const int32_t *id, size_t n);

/* model: the value in the file. byte_level: words are bytes that stand for the characters of
 * the byte-level alphabet. */
pm_status bpe_parse(struct bpe **out, struct json_doc *doc, const json *model, bool byte_level);
void bpe_free(struct bpe *b);

const struct vocabulary *bpe_vocabulary(const struct bpe *b);

/* From now on a plain text never merges into this token. */
void bpe_mark_special(struct bpe *b, int32_t id);

pm_status bpe_words_new(struct bpe_words **out);
void bpe_words_free(struct bpe_words *words);

/* Appends the ids of a word of n > 0 bytes. O(n log n). `plain`: special tokens are not formed,
 * neither by merges nor by ignore_merges. */
pm_status bpe_encode(const struct bpe *b, struct bpe_words *words, const char *text, size_t n,
                     bool plain, struct id_list *out);

#endif
