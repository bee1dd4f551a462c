/* vocabulary.h - the model's tokens: content -> id and id -> content. */
#ifndef RUNTIME_VOCABULARY_H
#define RUNTIME_VOCABULARY_H

#include "moe/json.h"

enum { MAX_TOKEN_ID = (1 << 24) - 1 };

struct vocabulary; /* not changed after it is made */

/* v: {"content": id, ...}. Ids may have gaps; an id twice is PM_ERR_FORMAT. */
pm_status vocabulary_parse(struct vocabulary **out, struct json_doc *doc, const json *v);
void vocabulary_free(struct vocabulary *v);

/* The largest id plus one; how many tokens there are. */
int vocabulary_size(const struct vocabulary *v);
int vocabulary_count(const struct vocabulary *v);

/* -1: no such token. */
int32_t vocabulary_find(const struct vocabulary *v, const char *content, size_t n);
/* With a closing zero; NULL: no such id. */
const char *vocabulary_token(const struct vocabulary *v, int32_t id, size_t *n);

/* The hash of the table, for others that look up short strings. */
static inline uint64_t hash_bytes(const char *byte, size_t n)
{
    uint64_t h = n * 0x9e3779b97f4a7c15u, word = 0;
    for (; n >= 8; n -= 8, byte += 8) {
        __builtin_memcpy(&word, byte, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (word = 0; n > 0; n--) {
        word = word << 8 | (unsigned char)byte[n - 1];
    }
    h = (h ^ word) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
}

#endif
