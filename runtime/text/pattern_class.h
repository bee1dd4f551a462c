/* pattern_class.h - sets of characters in regular expressions: \d, \p{L}, [a-z&&[^aeiou]]. */
#ifndef RUNTIME_PATTERN_CLASS_H
#define RUNTIME_PATTERN_CLASS_H

#include "unicode.h"

/* An expression that is being read. */
struct pattern_reader {
    const char *name;     /* what errors start with */
    const char *source;   /* [n] */
    const char *at, *end; /* at: the next byte */
    size_t n;
};

/* Fails with the name, the expression and `what`. */
pm_status pattern_fail(const struct pattern_reader *r, pm_status status, const char *what);

/* A literal character, escaped where it could mean something. */
pm_status pattern_put_literal(struct text *out, uint32_t c);

/* Reads the escape of one character (\n, \x{1F600}, \-) at a backslash, or, with *is_character
 * = false, nothing: then it is a set or an assertion. */
pm_status pattern_read_character(struct pattern_reader *r, uint32_t *c, bool *is_character);

/* A set as the inside of a PCRE2 class. */
enum { SET_BYTES = 192 };
struct character_set {
    char inside[SET_BYTES];
    bool negated;
};

/* Reads \d, \P{Lu} and the like at a backslash; *is_set = false reads nothing. `in_class`:
 * the reference's \w has a few characters more outside a class. */
pm_status pattern_read_set(struct pattern_reader *r, bool in_class, struct character_set *set,
                           bool *is_set);

/* Reads a class from its "[" to its "]" and appends an expression for one character. */
pm_status pattern_read_class(struct pattern_reader *r, struct text *out);

#endif
