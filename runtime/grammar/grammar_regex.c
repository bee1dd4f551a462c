/* grammar_regex.c - regular expressions to automata, by recursive descent.
 *
 * A part of the expression becomes nodes between two nodes; a repeated part is read again for
 * each repetition, which the limit on nodes bounds. Sets of characters are lists of sorted
 * ranges until they become bytes: a range of code points is cut where the length of UTF-8
 * changes and then into runs in which each byte has a range of its own (after Thompson and Pike
 * as in RE2's compiler); quotes, backslashes and controls become their escapes. */
#include "grammar_regex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/unicode.h"

enum {
    MAX_CHARACTER = 0x10ffff,
    MAX_NESTING = 64,
    MAX_REPEAT = 10000,
    FIRST_SURROGATE = 0xd800,
    LAST_SURROGATE = 0xdfff
};

struct range {
    uint32_t low, high;
};

/* Ranges in any order; may overlap until set_sort. */
struct char_set {
    struct range *range;
    size_t n, capacity;
    pm_status status;
};

struct regex {
    struct automaton *a;
    const char *at, *end;
    int nesting;
};

/* Sets */

static void set_add(struct char_set *s, uint32_t low, uint32_t high)
{
    if (s->status == PM_OK) {
        s->status = grow_array(&s->range, &s->capacity, s->n + 1, sizeof *s->range);
    }
    if (s->status == PM_OK) s->range[s->n++] = (struct range){low, high};
}

static int order(const void *left, const void *right)
{
    const struct range *a = left, *b = right;
    return (a->low > b->low) - (a->low < b->low);
}

static void set_sort(struct char_set *s)
{
    size_t n = 0;
    if (s->n > 1) qsort(s->range, s->n, sizeof *s->range, order);
    for (size_t i = 0; i < s->n; i++) {
        struct range r = s->range[i];
        if (n > 0 && r.low <= s->range[n - 1].high + 1) {
            if (r.high > s->range[n - 1].high) s->range[n - 1].high = r.high;
        } else {
            s->range[n++] = r;
        }
    }
    s->n = n;
}

static void set_negate(struct char_set *s)
{
    struct char_set other = {.status = s->status};
    uint32_t low = 0;
    set_sort(s);
    for (size_t i = 0; i < s->n; i++) {
        if (s->range[i].low > low) set_add(&other, low, s->range[i].low - 1);
        low = s->range[i].high + 1;
    }
    if (low <= MAX_CHARACTER) set_add(&other, low, MAX_CHARACTER);
    free(s->range);
    *s = other;
}

static const struct range digits[] = {{'0', '9'}};
static const struct range words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const struct range spaces[] = {
    {'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
    {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
static const struct range ends_of_lines[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

static void set_add_table(struct char_set *s, const struct range *r, size_t n, bool negated)
{
    uint32_t low = 0;
    for (size_t i = 0; i < n; i++) {
        if (!negated) {
            set_add(s, r[i].low, r[i].high);
        } else if (r[i].low > low) {
            set_add(s, low, r[i].low - 1);
        }
        low = r[i].high + 1;
    }
    if (negated) set_add(s, low, MAX_CHARACTER);
}
#define ADD_TABLE(s, table, negated)                                                           \
    set_add_table(s, table, sizeof(table) / sizeof *(table), negated)

/* Characters to bytes */

static void put_bytes(struct automaton *a, uint32_t from, const unsigned char *low,
                      const unsigned char *high, size_t n, uint32_t to)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t next = i + 1 == n ? to : automaton_node(a);
        automaton_range(a, from, low[i], high[i], next);
        from = next;
    }
}

/* low and high have the same length in UTF-8. */
static void put_utf8(struct automaton *a, uint32_t from, uint32_t low, uint32_t high,
                     uint32_t to)
{
    char first[UTF8_MAX], last[UTF8_MAX];
    size_t n = utf8_write(first, low);
    for (size_t tail = 1; tail < n; tail++) {
        uint32_t mask = (1u << 6 * tail) - 1;
        if ((low & ~mask) == (high & ~mask)) continue;
        if ((low & mask) != 0) {
            put_utf8(a, from, low, low | mask, to);
            put_utf8(a, from, (low | mask) + 1, high, to);
            return;
        }
        if ((high & mask) != mask) {
            put_utf8(a, from, low, (high & ~mask) - 1, to);
            put_utf8(a, from, high & ~mask, high, to);
            return;
        }
    }
    utf8_write(last, high);
    put_bytes(a, from, (unsigned char *)first, (unsigned char *)last, n, to);
}

size_t regex_spell(char out[REGEX_SPELLING], uint32_t c)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *found = c > 0 && c < 0x80 ? strchr(plain, (int)c) : NULL;
    if (found) return (size_t)snprintf(out, REGEX_SPELLING, "\\%c", letter[found - plain]);
    if (c < 0x20) return (size_t)snprintf(out, REGEX_SPELLING, "\\u%04x", (unsigned)c);
    return utf8_write(out, c);
}

static void put_character(struct automaton *a, uint32_t from, uint32_t c, uint32_t to)
{
    char text[REGEX_SPELLING];
    size_t n = regex_spell(text, c);
    put_bytes(a, from, (unsigned char *)text, (unsigned char *)text, n, to);
}

static void put_range(struct automaton *a, uint32_t from, struct range r, uint32_t to)
{
    /* Runs of one length in UTF-8 that are written as they are, surrogates left out. */
    static const struct range lengths[] = {{0x20, 0x21},
                                           {0x23, 0x5b},
                                           {0x5d, 0x7f},
                                           {0x80, 0x7ff},
                                           {0x800, FIRST_SURROGATE - 1},
                                           {LAST_SURROGATE + 1, 0xffff},
                                           {0x10000, MAX_CHARACTER}};
    for (uint32_t c = r.low; c <= r.high && c <= '\\'; c++) {
        if (c < 0x20 || c == '"' || c == '\\') put_character(a, from, c, to);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint32_t low = r.low > lengths[i].low ? r.low : lengths[i].low;
        uint32_t high = r.high < lengths[i].high ? r.high : lengths[i].high;
        if (low <= high) put_utf8(a, from, low, high, to);
    }
}

static void put_set(struct automaton *a, uint32_t from, struct char_set *s, uint32_t to)
{
    set_sort(s);
    if (a->status == PM_OK) a->status = s->status;
    for (size_t i = 0; i < s->n; i++) {
        put_range(a, from, s->range[i], to);
    }
}

/* Reading */

static pm_status refuse(const char *what)
{
    return fail(PM_ERR_ARG, "the pattern has %s", what);
}

static bool looking_at(const struct regex *r, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(r->end - r->at) >= n && memcmp(r->at, text, n) == 0;
}

static bool take(struct regex *r, const char *text)
{
    if (!looking_at(r, text)) return false;
    r->at += strlen(text);
    return true;
}

/* n hexadecimal digits. */
static pm_status read_hexadecimal(struct regex *r, int n, uint32_t *c)
{
    *c = 0;
    for (; n > 0; n--, r->at++) {
        int digit;
        if (r->at == r->end) return refuse("an escape cut short");
        digit = *r->at >= '0' && *r->at <= '9' ? *r->at - '0' : (*r->at | 32) - 'a' + 10;
        if (digit < 0 || digit > 15 || (digit > 9 && (*r->at | 32) < 'a')) {
            return refuse("an escape without hexadecimal digits");
        }
        *c = *c << 4 | (uint32_t)digit;
    }
    return PM_OK;
}

static pm_status read_unicode_escape(struct regex *r, uint32_t *c)
{
    uint32_t low;
    TRY(read_hexadecimal(r, 4, c));
    if (*c < FIRST_SURROGATE || *c > LAST_SURROGATE) return PM_OK;
    if (*c >= 0xdc00 || !take(r, "\\u")) return refuse("half a surrogate pair");
    TRY(read_hexadecimal(r, 4, &low));
    if (low < 0xdc00 || low > LAST_SURROGATE) return refuse("half a surrogate pair");
    *c = 0x10000 + ((*c - FIRST_SURROGATE) << 10) + (low - 0xdc00);
    return PM_OK;
}

/* Behind a backslash: a set (*is_set) is added to s, a character goes to *c. */
static pm_status read_escape(struct regex *r, struct char_set *s, uint32_t *c, bool *is_set)
{
    static const char names[] = "fnrtv", values[] = "\f\n\r\t\v";
    const char *name;
    char escape;
    *is_set = false;
    if (r->at == r->end) return refuse("a backslash at its end");
    escape = *r->at++;
    *is_set = strchr("dDwWsS", escape) && escape;
    switch (escape) {
    case 'd':
    case 'D': ADD_TABLE(s, digits, escape == 'D'); return s->status;
    case 'w':
    case 'W': ADD_TABLE(s, words, escape == 'W'); return s->status;
    case 's':
    case 'S': ADD_TABLE(s, spaces, escape == 'S'); return s->status;
    case 'x': return read_hexadecimal(r, 2, c);
    case 'u': return read_unicode_escape(r, c);
    }
    name = escape ? strchr(names, escape) : NULL;
    if (name) {
        *c = (unsigned char)values[name - names];
        return PM_OK;
    }
    if (!escape || !strchr("^$\\.*+?()[]{}|/-\"'#&,:;<=>@_`~% !", escape)) {
        return refuse("an escape that is not supported");
    }
    *c = (unsigned char)escape;
    return PM_OK;
}

/* One character or set inside a class. */
static pm_status read_class_item(struct regex *r, struct char_set *s, uint32_t *c, bool *is_set)
{
    *is_set = false;
    if (r->at == r->end) return refuse("a class without its ]");
    if (take(r, "\\")) {
        if (take(r, "b")) {
            *c = '\b';
            return PM_OK;
        }
        return read_escape(r, s, c, is_set);
    }
    *c = utf8_next(&r->at);
    return PM_OK;
}

static pm_status read_class(struct regex *r, struct char_set *s)
{
    bool negated = take(r, "^");
    while (!take(r, "]")) {
        uint32_t low = 0, high = 0;
        bool is_set, ends_in_set = false;
        TRY(read_class_item(r, s, &low, &is_set));
        if (is_set) continue;
        high = low;
        if (looking_at(r, "-") && r->end - r->at > 1 && r->at[1] != ']') {
            r->at++;
            TRY(read_class_item(r, s, &high, &ends_in_set));
        }
        if (ends_in_set || high < low) return refuse("a range that is none");
        set_add(s, low, high);
    }
    if (negated) set_negate(s);
    return s->status;
}

static pm_status read_alternatives(struct regex *r, uint32_t from, uint32_t to, bool outermost);

static pm_status read_group(struct regex *r, uint32_t from, uint32_t to)
{
    if (take(r, "?")) {
        if (take(r, "<") && !looking_at(r, "=") && !looking_at(r, "!")) {
            while (r->at < r->end && *r->at++ != '>') {
            }
        } else if (!take(r, ":")) {
            return refuse("look-around");
        }
    }
    if (++r->nesting > MAX_NESTING) return refuse("more than 64 levels of parentheses");
    TRY(read_alternatives(r, from, to, false));
    r->nesting--;
    return take(r, ")") ? PM_OK : refuse("a parenthesis that is not closed");
}

/* One atom between two nodes. */
static pm_status read_atom(struct regex *r, uint32_t from, uint32_t to)
{
    struct char_set s = {0};
    uint32_t c = 0;
    bool is_set = true;
    pm_status status = PM_OK;
    if (take(r, "(")) return read_group(r, from, to);
    if (take(r, "[")) {
        TRY_DONE(read_class(r, &s));
    } else if (take(r, ".")) {
        ADD_TABLE(&s, ends_of_lines, true);
    } else if (take(r, "\\")) {
        TRY_DONE(read_escape(r, &s, &c, &is_set));
    } else {
        if (*r->at && strchr("*+?{}])^$", *r->at)) {
            status =
                refuse(*r->at == '^' || *r->at == '$' ? "an anchor inside"
                                                      : "a quantifier or bracket out of place");
            goto done;
        }
        c = utf8_next(&r->at);
        is_set = false;
    }
    if (!is_set) set_add(&s, c, c);
    put_set(r->a, from, &s, to);
    status = r->a->status;
done:
    free(s.range);
    return status;
}

static bool read_number(struct regex *r, int *out)
{
    const char *before = r->at;
    *out = 0;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        *out = *out * 10 + (*r->at - '0');
        if (*out > MAX_REPEAT) *out = MAX_REPEAT + 1;
    }
    return r->at > before;
}

static pm_status read_braces(struct regex *r, int *min, int *max)
{
    if (!read_number(r, min)) return refuse("a { without a number");
    *max = *min;
    if (take(r, ",") && !read_number(r, max)) *max = UNLIMITED;
    if (!take(r, "}")) return refuse("a { without its }");
    if (*max < *min) return refuse("a repetition that is none");
    if (*min > MAX_REPEAT || (*max > MAX_REPEAT && *max != UNLIMITED)) {
        return refuse("more than 10000 repetitions");
    }
    return PM_OK;
}

static pm_status read_quantifier(struct regex *r, int *min, int *max)
{
    static const struct {
        const char *sign;
        int min, max;
    } signs[] = {{"*", 0, UNLIMITED}, {"+", 1, UNLIMITED}, {"?", 0, 1}};
    bool found = false;
    *min = *max = 1;
    for (size_t i = 0; i < sizeof signs / sizeof *signs && !found; i++) {
        found = take(r, signs[i].sign);
        if (found) {
            *min = signs[i].min;
            *max = signs[i].max;
        }
    }
    if (!found && take(r, "{")) {
        TRY(read_braces(r, min, max));
        found = true;
    }
    if (found) take(r, "?"); /* lazy or not, the language is the same */
    return PM_OK;
}

/* Reads the atom at `source` once more, between new nodes. */
static pm_status repeat_atom(struct regex *r, const char *source, uint32_t from, uint32_t to)
{
    const char *behind = r->at;
    r->at = source;
    TRY(read_atom(r, from, to));
    r->at = behind;
    return r->a->status;
}

/* An atom with its quantifier. */
static pm_status read_repetition(struct regex *r, uint32_t from, uint32_t *to)
{
    const char *source = r->at;
    uint32_t first = automaton_node(r->a), last = automaton_node(r->a), end;
    int min, max;
    TRY(read_atom(r, first, last));
    TRY(read_quantifier(r, &min, &max));
    end = automaton_node(r->a);
    if (min == 0) automaton_jump(r->a, from, end);
    if (max > 0) automaton_jump(r->a, from, first);
    if (max == UNLIMITED && min < 2) {
        automaton_jump(r->a, last, first);
    }
    for (int i = 1; i < min || (max != UNLIMITED && i < max); i++) {
        uint32_t next = automaton_node(r->a);
        if (i >= min) automaton_jump(r->a, last, end);
        TRY(repeat_atom(r, source, last, next));
        if (max == UNLIMITED && i + 1 == min) automaton_jump(r->a, next, last);
        last = next;
    }
    if (max > 0) automaton_jump(r->a, last, end);
    *to = end;
    return r->a->status;
}

/* Anything, any number of times. */
static void put_anything(struct automaton *a, uint32_t node)
{
    put_range(a, node, (struct range){0, MAX_CHARACTER}, node);
}

static pm_status read_alternative(struct regex *r, uint32_t from, uint32_t to, bool outermost)
{
    uint32_t at = automaton_node(r->a);
    bool anchored = outermost && take(r, "^");
    automaton_jump(r->a, from, at);
    if (outermost && !anchored) put_anything(r->a, at);
    while (r->at < r->end && *r->at != '|' && *r->at != ')') {
        if (outermost && *r->at == '$' && (r->at + 1 == r->end || r->at[1] == '|')) {
            r->at++;
            automaton_jump(r->a, at, to);
            return r->a->status;
        }
        TRY(read_repetition(r, at, &at));
    }
    if (outermost) {
        uint32_t rest = automaton_node(r->a);
        automaton_jump(r->a, at, rest);
        put_anything(r->a, rest);
        at = rest;
    }
    automaton_jump(r->a, at, to);
    return r->a->status;
}

static pm_status read_alternatives(struct regex *r, uint32_t from, uint32_t to, bool outermost)
{
    do {
        TRY(read_alternative(r, from, to, outermost));
    } while (take(r, "|"));
    return PM_OK;
}

pm_status regex_build(struct automaton *a, const char *source, size_t n, uint32_t *start)
{
    struct regex r = {a, source, source + n, 0};
    uint32_t first = automaton_node(a), last = automaton_node(a);
    TRY(read_alternatives(&r, first, last, true));
    if (r.at < r.end) return refuse("a parenthesis too many");
    automaton_accept(a, last);
    *start = first;
    return a->status;
}
