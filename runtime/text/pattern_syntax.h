/* pattern_syntax.h - regular expressions of tokenizer files in the dialect of PCRE2. */
#ifndef RUNTIME_PATTERN_SYNTAX_H
#define RUNTIME_PATTERN_SYNTAX_H

#include "unicode.h"

/* Appends to out an expression for PCRE2 (UTF, UCP, MULTILINE, newline LF) that matches what
 * the n bytes of well-formed source match in Oniguruma's Ruby syntax. It has no captures.
 * Errors start with `name`: PM_ERR_UNSUPPORTED names the construct, PM_ERR_FORMAT the mistake.
 */
pm_status pattern_rewrite(struct text *out, const char *name, const char *source, size_t n);

#endif
