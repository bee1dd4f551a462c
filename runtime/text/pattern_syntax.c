/* pattern_syntax.c - Oniguruma's Ruby syntax rewritten for PCRE2.
 *
 * The patterns of tokenizer.json are written for Oniguruma. Most of the text of a pattern means
 * the same to PCRE2; what does not is rewritten here:
 *
 *   (?i)b|c        holds to the end of the group, alternatives included: (?i:b|c)
 *   (?m:.)         "m" is dot-all; "s" and "x" are unknown or refused
 *   ( )            captures are not needed, back references are refused
 *   x{1,3}+        not possessive, a repeat of a repeat: (?:x{1,3})+
 *   x{2}?  x{,3}   an optional pair: (?:x{2})?; from 0 to 3
 *   ^  $           always per line, which is the MULTILINE flag
 *   \h \w \s \b    other sets (pattern_class.c)
 *   \u00e9 \O      \x{e9}, any character
 *
 * Each literal is written so that PCRE2 cannot mistake it. One pass with a stack of groups; the
 * start of the last atom in the output is remembered, because a repeat may have to wrap it. */
#include "pattern_syntax.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pattern_class.h"

enum {
    MAX_GROUPS = 200,  /* PCRE2 allows 250 nested parentheses */
    MAX_WRAPS = 100,   /* each moves the rest of the output */
    MAX_REPEAT = 65535 /* PCRE2's */
};

struct rewriter {
    struct pattern_reader r;
    struct text *out;
    size_t atom;   /* where the last atom starts in out, SIZE_MAX when there is none */
    bool repeated; /* the atom has its repeat already */
    int n_group, n_wrap;
    struct {
        size_t start;
        int n_option;        /* (?i) that close with the group */
    } group[MAX_GROUPS + 1]; /* [0] is the whole expression */
};

static pm_status put(struct rewriter *w, const char *s)
{
    return text_put(w->out, s, strlen(s));
}

static void set_atom(struct rewriter *w, size_t start)
{
    w->atom = start;
    w->repeated = false;
}

/* Puts (?: ) around the last atom. */
static pm_status wrap(struct rewriter *w)
{
    struct text *out = w->out;
    if (++w->n_wrap > MAX_WRAPS) {
        return pattern_fail(&w->r, PM_ERR_UNSUPPORTED, "too many repeats of repeats");
    }
    TRY(put(w, "(?:)"));
    memmove(out->byte + w->atom + 3, out->byte + w->atom, out->n - 4 - w->atom);
    memcpy(out->byte + w->atom, "(?:", 3);
    out->byte[out->n - 1] = ')';
    w->repeated = false;
    return PM_OK;
}

static pm_status begin_repeat(struct rewriter *w)
{
    if (w->atom == SIZE_MAX) {
        return pattern_fail(&w->r, PM_ERR_FORMAT, "a repeat of nothing");
    }
    if (w->repeated) TRY(wrap(w));
    w->repeated = true;
    return PM_OK;
}

/* "*", "+", "?" with "?" (reluctant) or "+" (possessive) behind it. */
static pm_status read_repeat(struct rewriter *w)
{
    TRY(begin_repeat(w));
    TRY(text_put(w->out, w->r.at++, 1));
    if (w->r.at < w->r.end && (*w->r.at == '?' || *w->r.at == '+')) {
        TRY(text_put(w->out, w->r.at++, 1));
    }
    return PM_OK;
}

/* A decimal number at *at, -1 when there is none. */
static int read_count(const char **at, const char *end)
{
    int value = -1;
    while (*at < end && **at >= '0' && **at <= '9') {
        value = (value < 0 ? 0 : value) * 10 + (**at - '0');
        if (value > MAX_REPEAT) value = MAX_REPEAT + 1;
        (*at)++;
    }
    return value;
}

/* "{n}", "{n,}", "{,m}", "{n,m}"; anything else is a literal brace. */
static pm_status read_interval(struct rewriter *w)
{
    const char *at = w->r.at + 1, *end = w->r.end;
    int least = read_count(&at, end), most = least;
    bool comma = at < end && *at == ',';
    char text[40];
    if (comma) {
        at++;
        most = read_count(&at, end);
    }
    if (at == end || *at != '}' || (least < 0 && most < 0)) {
        size_t start = w->out->n;
        TRY(pattern_put_literal(w->out, '{'));
        set_atom(w, start);
        w->r.at++;
        return PM_OK;
    }
    if (least < 0) least = 0;
    if (least > MAX_REPEAT || most > MAX_REPEAT || (most >= 0 && most < least)) {
        return pattern_fail(&w->r, PM_ERR_UNSUPPORTED, "the numbers of a repeat");
    }
    w->r.at = at + 1;
    TRY(begin_repeat(w));
    if (most < 0) {
        snprintf(text, sizeof text, "{%d,}", least);
    } else {
        snprintf(text, sizeof text, "{%d,%d}", least, most);
    }
    TRY(put(w, text));
    if (comma && w->r.at < end && *w->r.at == '?') {
        w->r.at++;
        return put(w, "?");
    }
    return PM_OK;
}

/* Behind "(?": "i)", "m-i:" and the like. */
static pm_status read_options(struct rewriter *w)
{
    char options[16] = "(?";
    size_t n = 2;
    for (; w->r.at < w->r.end && strchr("im-", *w->r.at) && n + 2 < sizeof options; w->r.at++) {
        options[n++] = *w->r.at == 'm' ? 's' : *w->r.at;
    }
    if (n == 2 || w->r.at == w->r.end || (*w->r.at != ')' && *w->r.at != ':')) {
        return pattern_fail(&w->r, PM_ERR_UNSUPPORTED, "a group that starts with \"(?\"");
    }
    options[n++] = ':';
    options[n] = 0;
    if (*w->r.at == ')') {
        w->group[w->n_group].n_option++;
        set_atom(w, SIZE_MAX);
    } else {
        w->group[++w->n_group].start = w->out->n;
        w->group[w->n_group].n_option = 0;
    }
    w->r.at++;
    return put(w, options);
}

/* Behind "(": which group it is, as PCRE2 writes it; NULL for options. */
static pm_status read_group_kind(struct rewriter *w, const char **kind)
{
    static const char *const same[] = {"?:", "?=", "?!", "?>", "?<=", "?<!"};
    size_t left = (size_t)(w->r.end - w->r.at);
    const char *close;
    *kind = "?:";
    if (left > 0 && *w->r.at == '*') {
        return pattern_fail(&w->r, PM_ERR_UNSUPPORTED, "a group that starts with \"(*\"");
    }
    if (left < 2 || *w->r.at != '?') return PM_OK;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (left >= strlen(same[i]) && memcmp(w->r.at, same[i], strlen(same[i])) == 0) {
            w->r.at += strlen(same[i]);
            *kind = same[i];
            return PM_OK;
        }
    }
    if (w->r.at[1] == '<' || w->r.at[1] == '\'') {
        close = memchr(w->r.at + 2, w->r.at[1] == '<' ? '>' : '\'', left - 2);
        if (!close) return pattern_fail(&w->r, PM_ERR_FORMAT, "a name of a group has no end");
        w->r.at = close + 1;
        return PM_OK;
    }
    w->r.at++;
    *kind = NULL;
    return PM_OK;
}

static pm_status open_group(struct rewriter *w)
{
    const char *kind;
    if (w->n_group == MAX_GROUPS) return pattern_fail(&w->r, PM_ERR_UNSUPPORTED, "depth");
    if (w->r.end - w->r.at >= 3 && memcmp(w->r.at, "(?#", 3) == 0) {
        const char *close = memchr(w->r.at, ')', (size_t)(w->r.end - w->r.at));
        if (!close) return pattern_fail(&w->r, PM_ERR_FORMAT, "a comment has no end");
        w->r.at = close + 1;
        return PM_OK;
    }
    w->r.at++;
    TRY(read_group_kind(w, &kind));
    if (!kind) {
        TRY(read_options(w));
    } else {
        w->group[++w->n_group].start = w->out->n;
        w->group[w->n_group].n_option = 0;
        TRY(put(w, "("));
        TRY(put(w, kind));
    }
    set_atom(w, SIZE_MAX);
    return PM_OK;
}

static pm_status close_options(struct rewriter *w)
{
    for (; w->group[w->n_group].n_option > 0; w->group[w->n_group].n_option--) {
        TRY(put(w, ")"));
    }
    return PM_OK;
}

static pm_status close_group(struct rewriter *w)
{
    if (w->n_group == 0) return pattern_fail(&w->r, PM_ERR_FORMAT, ") without (");
    TRY(close_options(w));
    w->r.at++;
    set_atom(w, w->group[w->n_group--].start);
    return put(w, ")");
}

/* \b or \B by the reference's set of word characters. */
static pm_status put_boundary(struct rewriter *w, bool negated)
{
    struct pattern_reader r = {.name = w->r.name, .at = "\\w"};
    struct character_set word;
    char text[6 * SET_BYTES];
    bool is_set;
    r.end = r.at + 2;
    TRY(pattern_read_set(&r, false, &word, &is_set));
    snprintf(text, sizeof text, "(?:(?<=[%s])(?%c[%s])|(?<![%s])(?%c[%s]))", word.inside,
             negated ? '=' : '!', word.inside, word.inside, negated ? '!' : '=', word.inside);
    return put(w, text);
}

static pm_status read_escape(struct rewriter *w)
{
    struct character_set set;
    size_t start = w->out->n;
    char kind, what[40];
    uint32_t c;
    bool done;
    TRY(pattern_read_character(&w->r, &c, &done));
    set_atom(w, start);
    if (done) return pattern_put_literal(w->out, c);
    TRY(pattern_read_set(&w->r, false, &set, &done));
    if (done) {
        TRY(put(w, set.negated ? "[^" : "["));
        TRY(put(w, set.inside));
        return put(w, "]");
    }
    kind = w->r.at[1];
    snprintf(what, sizeof what, "\\%c", kind);
    if (strchr("123456789XyYKGkgcCM", kind)) {
        return pattern_fail(&w->r, PM_ERR_UNSUPPORTED, what);
    }
    w->r.at += 2;
    switch (kind) {
    case 'A':
    case 'z':
    case 'Z': set_atom(w, SIZE_MAX); return put(w, what);
    case 'b':
    case 'B': set_atom(w, SIZE_MAX); return put_boundary(w, kind == 'B');
    case 'R': return put(w, what);
    case 'N': return put(w, "[^\\n]");
    case 'O': return put(w, "(?s:.)");
    }
    return pattern_put_literal(w->out, (unsigned char)kind);
}

static pm_status read_next(struct rewriter *w)
{
    size_t start = w->out->n;
    char c = *w->r.at;
    switch (c) {
    case '\\': return read_escape(w);
    case '(': return open_group(w);
    case ')': return close_group(w);
    case '*':
    case '+':
    case '?': return read_repeat(w);
    case '{': return read_interval(w);
    case '^':
    case '$':
    case '|': set_atom(w, SIZE_MAX); return text_put(w->out, w->r.at++, 1);
    case '.': set_atom(w, start); return text_put(w->out, w->r.at++, 1);
    case '[': set_atom(w, start); return pattern_read_class(&w->r, w->out);
    }
    set_atom(w, start);
    return pattern_put_literal(w->out, utf8_next(&w->r.at));
}

pm_status pattern_rewrite(struct text *out, const char *name, const char *source, size_t n)
{
    struct rewriter w = {
        .r = {.name = name, .source = source, .at = source, .end = source + n, .n = n},
        .out = out,
        .atom = SIZE_MAX};
    while (w.r.at < w.r.end) {
        TRY(read_next(&w));
    }
    if (w.n_group > 0) return pattern_fail(&w.r, PM_ERR_FORMAT, "( without )");
    return close_options(&w);
}
