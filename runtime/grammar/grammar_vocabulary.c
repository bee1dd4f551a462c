/* grammar_vocabulary.c - a trie of tokens.
 *
 * A grammar walks the trie to find all tokens that may come next: the bytes that tokens share
 * are looked at once, and a byte that cannot come rules out all tokens behind it. The tokens
 * are sorted by their bytes; a node is made where a token differs from the one before.
 *
 * Most steps of most texts are inside a free string, where nearly all tokens are allowed and a
 * walk would see nearly all nodes. What tokens mean there depends on no schema, so it is worked
 * out once here: which tokens are nothing but characters, how many, and where in the trie a
 * string would end. */
#include "grammar_vocabulary.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "grammar_automaton.h"

/* Sorting */

struct token {
    const char *byte; /* [n] */
    size_t n;
    uint32_t id;
};

static int order_by_bytes(const void *left, const void *right)
{
    const struct token *a = left, *b = right;
    int order = memcmp(a->byte, b->byte, a->n < b->n ? a->n : b->n);
    if (order == 0) order = (a->n > b->n) - (a->n < b->n);
    return order != 0 ? order : (a->id > b->id) - (a->id < b->id);
}

static size_t common_bytes(const struct token *a, const struct token *b)
{
    size_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && a->byte[i] == b->byte[i]) {
        i++;
    }
    return i;
}

/* The trie of n sorted tokens; node has room for all bytes and two. */
static void build_trie(struct grammar_vocabulary *v, const struct token *token)
{
    uint32_t path[MAX_TOKEN_BYTES + 1] = {0}; /* the nodes of the token before */
    size_t depth = 0;
    v->n_node = 1;
    v->node[0] = (struct trie_node){0};
    for (uint32_t i = 0; i < v->n_sorted; i++) {
        size_t shared = i > 0 ? common_bytes(&token[i - 1], &token[i]) : 0;
        for (; depth > shared; depth--) {
            v->node[path[depth]].end = v->n_node;
        }
        while (depth < token[i].n) {
            uint8_t byte = (uint8_t)token[i].byte[depth];
            path[++depth] = v->n_node;
            v->node[v->n_node++] = (struct trie_node){.byte = byte, .token = i};
        }
        v->sorted[i] = token[i].id;
    }
    for (; depth > 0; depth--) {
        v->node[path[depth]].end = v->n_node;
    }
    v->node[0].end = v->n_node;
    v->node[v->n_node] = (struct trie_node){.end = v->n_node + 1, .token = v->n_sorted};
}

/* Tokens as contents of strings */

struct string_walk {
    uint32_t end; /* of the node's subtree */
    uint32_t chars;
    int sub;
};

static int order_by_chars(const void *left, const void *right)
{
    const struct inside_token *a = left, *b = right;
    if (a->chars != b->chars) return a->chars < b->chars ? 1 : -1;
    return (a->id > b->id) - (a->id < b->id);
}

static void note_inside(struct grammar_vocabulary *v, uint32_t node, uint32_t chars)
{
    for (uint32_t t = v->node[node].token; t < v->node[node + 1].token; t++) {
        uint32_t id = v->sorted[t];
        v->inside[id / 32] |= 1u << id % 32;
        v->in[v->n_in++] = (struct inside_token){id, chars};
    }
}

/* Walks the trie as the inside of a string; `in` has room. */
static pm_status walk_strings(struct grammar_vocabulary *v)
{
    struct string_walk way[MAX_TOKEN_BYTES + 1];
    size_t depth = 0, capacity = 0;
    way[0] = (struct string_walk){v->n_node, 0, CHARS_START};
    for (uint32_t i = 1; i < v->n_node;) {
        struct string_walk at;
        int sub;
        while (i >= way[depth].end) {
            depth--;
        }
        at = way[depth];
        sub = chars_step(at.sub, v->node[i].byte);
        if (sub == CHARS_QUOTE) {
            TRY(grow_array(&v->quote, &capacity, v->n_quote + 1, sizeof *v->quote));
            v->quote[v->n_quote++] = (struct trie_quote){i, at.chars};
        }
        if (sub == CHARS_NONE || sub == CHARS_QUOTE) {
            i = v->node[i].end;
            continue;
        }
        way[++depth] = (struct string_walk){v->node[i].end, at.chars + (at.sub == CHARS_START),
                                            sub == CHARS_DONE ? CHARS_START : sub};
        note_inside(v, i, way[depth].chars);
        i++;
    }
    qsort(v->in, v->n_in, sizeof *v->in, order_by_chars);
    return PM_OK;
}

static pm_status build(struct grammar_vocabulary *v)
{
    struct token *token;
    size_t n_byte = 0;
    pm_status status;
    TRY(alloc_array(&token, (size_t)v->n_vocab, sizeof *token, "vocabulary"));
    for (int id = 0; id < v->n_vocab; id++) {
        size_t n = v->start[id + 1] - v->start[id];
        bool ends = false;
        for (int i = 0; i < v->n_end; i++) {
            ends = ends || v->end[i] == id;
        }
        if (n == 0 || n > MAX_TOKEN_BYTES || ends) continue;
        token[v->n_sorted++] = (struct token){v->byte + v->start[id], n, (uint32_t)id};
        n_byte += n;
    }
    if (n_byte > UINT32_MAX - 2) {
        status = fail(PM_ERR_TOO_LONG, "a vocabulary of %zu bytes", n_byte);
        goto done;
    }
    qsort(token, v->n_sorted, sizeof *token, order_by_bytes);
    TRY_DONE(alloc_array(&v->node, n_byte + 2, sizeof *v->node, "vocabulary"));
    TRY_DONE(alloc_array(&v->sorted, v->n_sorted, sizeof *v->sorted, "vocabulary"));
    TRY_DONE(alloc_array(&v->in, v->n_sorted, sizeof *v->in, "vocabulary"));
    build_trie(v, token);
    TRY_DONE(alloc_array(&v->inside, ((size_t)v->n_vocab + 31) / 32, sizeof *v->inside,
                         "vocabulary"));
    TRY_DONE(walk_strings(v));
done:
    free(token);
    return status;
}

/* Opening */

pm_status grammar_vocabulary_new(struct grammar_vocabulary **out, const char *byte,
                                 const size_t *start, int n_vocab, const int32_t *end,
                                 int n_end)
{
    struct grammar_vocabulary *v;
    pm_status status;
    TRY(alloc_array(&v, 1, sizeof *v, "vocabulary"));
    v->n_vocab = n_vocab;
    v->n_end = n_end;
    TRY_DONE(alloc_array(&v->end, (size_t)n_end, sizeof *v->end, "vocabulary"));
    TRY_DONE(alloc_array(&v->start, (size_t)n_vocab + 1, sizeof *v->start, "vocabulary"));
    TRY_DONE(alloc_array(&v->byte, start[n_vocab], 1, "vocabulary"));
    for (int i = 0; i < n_end; i++) {
        if (end[i] < 0 || end[i] >= n_vocab) {
            status =
                fail(PM_ERR_ARG, "end token %d: wanted an id below %d", (int)end[i], n_vocab);
            goto done;
        }
        v->end[i] = end[i];
    }
    memcpy(v->start, start, ((size_t)n_vocab + 1) * sizeof *start);
    if (start[n_vocab] > 0) memcpy(v->byte, byte, start[n_vocab]);
    TRY_DONE(build(v));
    *out = v;
    v = NULL;
done:
    grammar_vocabulary_close(v);
    return status;
}

pm_status grammar_vocabulary_open(struct grammar_vocabulary **out, const struct tokenizer *t,
                                  int n_vocab, const int32_t *end, int n_end)
{
    char *byte = NULL;
    size_t *start = NULL;
    pm_status status;
    TRY_DONE(alloc_array(&start, (size_t)n_vocab + 1, sizeof *start, "vocabulary"));
    TRY_DONE(tokenizer_all_bytes(t, n_vocab, &byte, start));
    TRY_DONE(grammar_vocabulary_new(out, byte, start, n_vocab, end, n_end));
done:
    free(start);
    free(byte);
    return status;
}

void grammar_vocabulary_close(struct grammar_vocabulary *v)
{
    if (!v) return;
    free(v->end);
    free(v->byte);
    free(v->start);
    free(v->node);
    free(v->sorted);
    free(v->inside);
    free(v->in);
    free(v->quote);
    free(v);
}
