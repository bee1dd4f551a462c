/* grammar_inside.h - what the compiler of schemas hands to the follower of texts. */
#ifndef RUNTIME_GRAMMAR_INSIDE_H
#define RUNTIME_GRAMMAR_INSIDE_H

#include "grammar.h"
#include "grammar_automaton.h"

struct grammar {
    struct automaton automaton; /* frozen */
    uint32_t start;
};

#endif
