/* json_scan.h - the pass over the bytes of a JSON text before cJSON builds its tree. */
#ifndef MOE_JSON_SCAN_H
#define MOE_JSON_SCAN_H

#include "kernels/base.h"

/* The spelling of a number that its double does not tell: 1.0, 1e2, 12345678901234567890. */
struct json_lexeme {
    const char *text; /* [n] in the document's text; NULL for plain integers */
    int n;
};

struct json_scan {
    const char *name; /* of the document, for messages */
    const char *text; /* [n] and a closing zero; borrowed */
    size_t n, at;
    int *string_bytes; /* [n_string] decoded length of each string, in document order */
    size_t n_string, capacity;
    struct json_lexeme *lexeme; /* [n_number] of each number, in document order */
    size_t n_number, capacity_number;
};

/* Validates strings, numbers, nesting and the bytes between them, and fills string_bytes and
 * lexeme, which the caller frees in any case. PM_ERR_FORMAT names line and column. The
 * structure (which bracket, comma or colon goes where) is left to the parser. n is below
 * INT_MAX. */
pm_status json_scan_text(struct json_scan *s);

/* Fails with "NAME: line L, column C: PROBLEM at EXCERPT" for the byte at `at`. */
pm_status json_scan_fail(const struct json_scan *s, size_t at, const char *problem);

/* Bytes of the UTF-8 character at p [n >= 1], 0 when there is none: no overlong forms, no
 * surrogates, nothing above U+10FFFF (Unicode 15, table 3-7). */
size_t json_utf8_bytes(const char *p, size_t n);

#endif
