/* template_text.h - algorithms on texts that keep the origin of each byte. */
#ifndef RUNTIME_TEMPLATE_TEXT_H
#define RUNTIME_TEMPLATE_TEXT_H

#include "template_value.h"

enum { STRIP_LEFT = 1, STRIP_RIGHT = 2, STRIP_BOTH = 3 };

/* characters: a text of those to strip, or absent or none for white space. */
pm_status text_strip(struct render *r, const struct value *text, const struct value *characters,
                     int sides, struct value *out);
/* separator: a text that is not empty, or none for runs of white space. most < 0: no bound. */
pm_status text_split(struct render *r, const struct value *text, const struct value *separator,
                     int64_t most, bool from_right, struct value *out);
pm_status text_split_lines(struct render *r, const struct value *text, bool keep,
                           struct value *out);
pm_status text_replace(struct render *r, const struct value *text, const struct value *from,
                       const struct value *to, int64_t most, struct value *out);
/* The last place of `part` that ends at byte `to` or before. */
pm_status text_find_last(struct render *r, const struct value *text, const struct value *part,
                         size_t to, size_t *at, bool *found);

enum text_case { CASE_LOWER, CASE_UPPER, CASE_CAPITAL, CASE_TITLE, CASE_WORDS, CASE_SWAP };
/* CASE_TITLE is Python's method, CASE_WORDS Jinja's filter `title`. */
pm_status text_case(struct render *r, const struct value *text, enum text_case wanted,
                    struct value *out);
/* str.islower and isupper: some character has a case, and none another one. */
bool text_has_case(const struct value *text, bool upper);

/* str.isdigit and isalpha of one character. */
bool text_is_digit(uint32_t c);
bool text_is_letter(uint32_t c);

bool text_starts(const struct value *text, const struct value *part);
bool text_ends(const struct value *text, const struct value *part);

#endif
