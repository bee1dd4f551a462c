/* grammar_regex.h - regular expressions and character classes as automata over JSON text. */
#ifndef RUNTIME_GRAMMAR_REGEX_H
#define RUNTIME_GRAMMAR_REGEX_H

#include "grammar_automaton.h"

/* Adds an automaton for a regular expression of ECMA-262's language without look-around, back
 * references, word boundaries and properties. Characters stand as JSON writes them between
 * quotes: themselves, or the shortest escape. An alternative of the outermost level without ^
 * or $ may be preceded or followed by anything. PM_ERR_ARG says what it cannot do. */
pm_status regex_build(struct automaton *a, const char *source, size_t n, uint32_t *start);

/* A character between quotes in its only spelling: itself or its shortest escape; the bytes. */
enum { REGEX_SPELLING = 8 };
size_t regex_spell(char out[REGEX_SPELLING], uint32_t c);

#endif
