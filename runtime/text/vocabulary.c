/* vocabulary.c - one arena of contents, a hash table over them, and an index by id.
 *
 * The table is built once from the file and only read after that. A stranger's text is looked
 * up in it but never stored, so the length of a probe depends on the file alone.
 *
 * The index by id has one slot up to the largest id. It comes from calloc untouched: a file of
 * one token with a huge id costs address space, not memory. */
#include "vocabulary.h"

#include <stdlib.h>
#include <string.h>

struct token {
    size_t at; /* in the arena */
    uint32_t n;
    int32_t id;
};

struct vocabulary {
    char *arena;
    struct token *token; /* [n_token] in the order of the file */
    uint32_t *slot;      /* [n_slot] index of a token plus one, 0: free; a power of two */
    uint32_t *by_id;     /* [size] the same */
    size_t n_token, n_slot;
    int size;
};

static struct token *find(const struct vocabulary *v, const char *content, size_t n,
                          size_t *free_slot)
{
    size_t i = hash_bytes(content, n) & (v->n_slot - 1);
    for (; v->slot[i] != 0; i = (i + 1) & (v->n_slot - 1)) {
        struct token *t = &v->token[v->slot[i] - 1];
        if (t->n == n && memcmp(v->arena + t->at, content, n) == 0) return t;
    }
    *free_slot = i;
    return NULL;
}

/* Counts tokens, bytes and the largest id. */
static pm_status measure(struct vocabulary *v, struct json_doc *doc, const json *object,
                         size_t *bytes)
{
    int64_t id, largest = -1;
    *bytes = 0;
    for (const json *m = json_child(object); m; m = json_next(m)) {
        if (!json_integer(m, &id) || id < 0 || id > MAX_TOKEN_ID) {
            return json_fail(doc, m, "an id from 0 to 16777215");
        }
        if (id > largest) largest = id;
        if (json_key_bytes(m) >= UINT32_MAX) return json_fail(doc, m, "a shorter token");
        *bytes += json_key_bytes(m) + 1;
        v->n_token++;
    }
    v->size = (int)largest + 1;
    for (v->n_slot = 16; v->n_slot < 2 * v->n_token;) {
        v->n_slot *= 2;
    }
    return PM_OK;
}

static pm_status fill(struct vocabulary *v, struct json_doc *doc, const json *object)
{
    size_t at = 0, i = 0, free_slot = 0;
    int64_t id;
    for (const json *m = json_child(object); m; m = json_next(m)) {
        struct token *t = &v->token[i++];
        if (!json_integer(m, &id)) return json_fail(doc, m, "an id");
        *t = (struct token){.at = at, .n = (uint32_t)json_key_bytes(m), .id = (int32_t)id};
        memcpy(v->arena + at, json_key(m), t->n);
        v->arena[at + t->n] = 0;
        at += t->n + 1;
        if (v->by_id[id] != 0) return json_fail(doc, m, "an id that no other token has");
        v->by_id[id] = (uint32_t)i;
        if (find(v, json_key(m), t->n, &free_slot)) return json_fail(doc, m, "a token once");
        v->slot[free_slot] = (uint32_t)i;
    }
    return PM_OK;
}

pm_status vocabulary_parse(struct vocabulary **out, struct json_doc *doc, const json *object)
{
    struct vocabulary *v;
    size_t bytes;
    pm_status status;
    TRY(alloc_array(&v, 1, sizeof *v, "vocabulary"));
    TRY_DONE(measure(v, doc, object, &bytes));
    TRY_DONE(alloc_array(&v->arena, bytes, 1, "vocabulary"));
    TRY_DONE(alloc_array(&v->token, v->n_token, sizeof *v->token, "vocabulary"));
    TRY_DONE(alloc_array(&v->slot, v->n_slot, sizeof *v->slot, "vocabulary"));
    v->by_id = calloc((size_t)v->size + 1, sizeof *v->by_id);
    if (!v->by_id) {
        status = fail(PM_ERR_NOMEM, "%s: no memory for %d ids", json_name(doc), v->size);
        goto done;
    }
    TRY_DONE(fill(v, doc, object));
    *out = v;
    v = NULL;
done:
    vocabulary_free(v);
    return status;
}

void vocabulary_free(struct vocabulary *v)
{
    if (!v) return;
    free(v->arena);
    free(v->token);
    free(v->slot);
    free(v->by_id);
    free(v);
}

int vocabulary_size(const struct vocabulary *v)
{
    return v->size;
}

int vocabulary_count(const struct vocabulary *v)
{
    return (int)v->n_token;
}

int32_t vocabulary_find(const struct vocabulary *v, const char *content, size_t n)
{
    size_t free_slot;
    const struct token *t = find(v, content, n, &free_slot);
    return t ? t->id : -1;
}

const char *vocabulary_token(const struct vocabulary *v, int32_t id, size_t *n)
{
    const struct token *t;
    if (id < 0 || id >= v->size || v->by_id[id] == 0) return NULL;
    t = &v->token[v->by_id[id] - 1];
    *n = t->n;
    return v->arena + t->at;
}
