/* grammar_automaton.h - automata over bytes that call each other: what a schema compiles to. */
#ifndef RUNTIME_GRAMMAR_AUTOMATON_H
#define RUNTIME_GRAMMAR_AUTOMATON_H

#include "kernels/base.h"

enum {
    CHARS_NODES = 21,       /* of the automaton of a string's characters */
    CHARS_START = 0,        /* between two characters */
    CHARS_ESCAPE = 1,       /* behind a backslash */
    CHARS_HEX = 9,          /* from here on inside \\uXXXX */
    CHARS_DONE = -1,        /* the byte ended a character */
    CHARS_QUOTE = -2,       /* the byte ended the string */
    CHARS_NONE = -3,        /* the byte cannot come here */
    UNLIMITED = INT32_MAX,  /* a maximum that is none */
    NEED_NEVER = UINT16_MAX /* no end can be reached */
};

/* Where a byte leads inside a JSON string behind its opening quote. `sub` counts from
 * CHARS_START to CHARS_NODES - 1. Well-formed UTF-8 (Unicode 15, table 3-7), the escapes of
 * RFC 8259, surrogates in pairs only. */
int chars_step(int sub, unsigned char byte);

/* A way to another node: for one byte of a range, for none, or through a call: `to` is then the
 * start of what is called, and `back` where its end leads. */
struct link {
    uint32_t to, back; /* back: NO_NODE for jumps */
    uint32_t next;     /* while building: the next link of the node */
    uint8_t low, high;
    bool jump; /* takes no byte */
};
enum { NO_NODE = 0 };

struct node {
    uint32_t first;  /* its links; frozen: [first, first + n_byte) take bytes, */
    uint32_t n_byte; /* [first + n_byte, first + n_byte + n_jump) do not */
    uint32_t n_jump;
    uint32_t chars; /* not 0: one of CHARS_NODES nodes of strings[chars - 1] */
    uint16_t need;  /* the frames that the shortest way to the end puts on the stack */
    uint8_t sub;    /* which of the CHARS_NODES */
    bool accept;    /* the end of what was called */
    bool plain;     /* frozen: nothing but links that take bytes, no need */
};

/* A free string between its quotes: min to max characters, then `to`. */
struct string_range {
    uint32_t to;
    int min, max;
};

/* Functions that add do nothing once status is a failure; then they return NO_NODE. Node 0 is
 * never used. */
struct automaton {
    struct node *node;
    struct link *link;
    struct string_range *strings;
    size_t n_node, node_capacity, n_link, link_capacity, n_strings, strings_capacity;
    size_t max_node; /* more are PM_ERR_ARG */
    pm_status status;
};

void automaton_init(struct automaton *a, size_t max_node);
void automaton_clear(struct automaton *a);

uint32_t automaton_node(struct automaton *a);
void automaton_range(struct automaton *a, uint32_t from, int low, int high, uint32_t to);
void automaton_jump(struct automaton *a, uint32_t from, uint32_t to);
void automaton_call(struct automaton *a, uint32_t from, uint32_t callee, uint32_t back);
void automaton_accept(struct automaton *a, uint32_t node);
/* Nodes for the n bytes of text behind `from`; returns the last. */
uint32_t automaton_text(struct automaton *a, uint32_t from, const char *text, size_t n);
/* The first of the nodes of a free string behind its opening quote. */
uint32_t automaton_string(struct automaton *a, int min, int max, uint32_t to);

/* Lays the links of each node side by side and computes `need` and `plain`. No more is added
 * after it. */
pm_status automaton_freeze(struct automaton *a);

/* What a deterministic copy must fulfil besides. */
struct copy_rules {
    int min, max; /* characters, counted with chars_step; 0 and UNLIMITED: not counted */
    int closing;  /* accepting nodes go on with this byte to `to`; -1: they accept */
    uint32_t to;
};

/* Copies the automaton from (without calls and strings) to out, so that at most one way is open
 * for each byte. *start = the copy of node `first`. Work and nodes are bounded: PM_ERR_ARG. */
pm_status automaton_determinise(const struct automaton *from, uint32_t first,
                                const struct copy_rules *rules, struct automaton *out,
                                uint32_t *start);

#endif
