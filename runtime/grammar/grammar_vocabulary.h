/* grammar_vocabulary.h - the bytes of all tokens as a trie, and what they are inside strings.
 */
#ifndef RUNTIME_GRAMMAR_VOCABULARY_H
#define RUNTIME_GRAMMAR_VOCABULARY_H

#include "grammar.h"

enum { MAX_TOKEN_BYTES = 512 }; /* longer tokens are never allowed */

/* Nodes lie in the order of a walk that visits parents first; node 0 is the empty text. */
struct trie_node {
    uint32_t end;   /* behind the last node below this one */
    uint32_t token; /* its tokens are sorted[token] .. sorted[next node's token - 1] */
    uint8_t byte;
};

/* A token all of whose bytes are characters of a string, the last perhaps unfinished. */
struct inside_token {
    uint32_t id, chars; /* chars: how many it starts */
};

/* A trie node whose last byte is the first quote that ends a string. */
struct trie_quote {
    uint32_t node, chars;
};

struct grammar_vocabulary {
    int n_vocab, n_end;
    int32_t *end;           /* [n_end] */
    char *byte;             /* the tokens' bytes, end to end */
    size_t *start;          /* [n_vocab + 1] */
    struct trie_node *node; /* [n_node + 1], the last one closes the tokens of the one before */
    uint32_t n_node;
    uint32_t *sorted; /* [n_sorted] ids by their bytes */
    uint32_t n_sorted;
    uint32_t *inside;        /* [(n_vocab + 31) / 32] the mask of inside_token */
    struct inside_token *in; /* [n_in] most characters first */
    uint32_t n_in;
    struct trie_quote *quote; /* [n_quote] */
    uint32_t n_quote;
};

#endif
