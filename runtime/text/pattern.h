/* pattern.h - what splits and replaces look for: a regular expression or a literal. */
#ifndef RUNTIME_PATTERN_H
#define RUNTIME_PATTERN_H

#include "moe/json.h"
#include "unicode.h"

struct pattern; /* not changed after it is made: shared by threads */
struct matcher; /* the memory of one thread's searches */

/* A regular expression as tokenizer files have it (Oniguruma). Errors start with `name`. */
pm_status pattern_regex(struct pattern **out, const char *name, const char *source, size_t n);
pm_status pattern_literal(struct pattern **out, const char *text, size_t n);
/* Reads {"Regex": ..} or {"String": ..} at `key` of object. */
pm_status pattern_parse(struct pattern **out, struct json_doc *doc, const json *object,
                        const char *key);
void pattern_free(struct pattern *p);

/* The text of a literal, NULL for a regular expression. */
const char *pattern_literal_text(const struct pattern *p, size_t *n);

pm_status matcher_new(struct matcher **out);
void matcher_free(struct matcher *m);

/* A search for all matches, from left to right. */
struct search {
    const struct pattern *pattern;
    struct matcher *matcher;
    const char *subject; /* [n] well-formed, with stand-ins for a regular expression */
    size_t n;
    size_t from;     /* where to look next */
    size_t last_end; /* of the last match, SIZE_MAX before the first */
};

/* `stand_ins`: text by unicode_stand_ins, or text itself. Both are borrowed. */
void search_init(struct search *s, const struct pattern *p, struct matcher *m, const char *text,
                 const char *stand_ins, size_t n);
/* *found = false at the end. Fails when a limit is hit, naming the pattern. An empty match does
 * not follow a match immediately. */
pm_status search_next(struct search *s, size_t *start, size_t *end, bool *found);

#endif
