/* template_lex.c - cuts a template into data, tags and the tokens inside them.
 *
 * White space is settled here, in the way that transformers sets Jinja up: trim_blocks takes
 * the line feed after a block or a comment, lstrip_blocks the blanks before one when nothing
 * else stands on the line. A minus sign in a tag takes all white space on its side, a plus sign
 * keeps all of it. Data tokens are therefore slices of the source, and what is trimmed is never
 * seen again. */
#include "template_ast.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BRACKETS = 200 };

struct lexer {
    const char *text; /* [n] */
    size_t n, at;
    int line;
    bool line_starts; /* the last tag ended with its line */
    struct token_list *out;
    char open[MAX_BRACKETS]; /* brackets that wait to be closed */
    size_t n_open;
};

static bool has(const struct lexer *l, size_t at, const char *text)
{
    size_t n = strlen(text);
    return l->n - at >= n && memcmp(l->text + at, text, n) == 0;
}

static pm_status add(struct lexer *l, enum token_kind kind, size_t start, size_t end)
{
    struct token_list *out = l->out;
    TRY(grow_array(&out->token, &out->capacity, out->n + 1, sizeof *out->token));
    out->token[out->n++] = (struct token){kind, l->line, l->text + start, end - start};
    return PM_OK;
}

/* Moves on to `end` and counts lines. */
static void move(struct lexer *l, size_t end)
{
    for (; l->at < end; l->at++) {
        l->line += l->text[l->at] == '\n';
    }
}

/* The byte behind white space that starts at `at`. */
static size_t behind_space(const struct lexer *l, size_t at)
{
    while (at < l->n) {
        const char *next = l->text + at;
        if (!text_is_space(utf8_next(&next))) break;
        at = (size_t)(next - l->text);
    }
    return at;
}

static size_t before_space(const struct lexer *l, size_t start, size_t end)
{
    while (end > start) {
        const char *stop = l->text + end;
        uint32_t c = utf8_last(l->text + start, stop);
        char byte[UTF8_MAX];
        if (!text_is_space(c)) break;
        end -= utf8_write(byte, c);
    }
    return end;
}

/* Data [l->at, end) before a tag whose opening sign is followed by `sign`. */
static pm_status put_data(struct lexer *l, size_t end, char sign, bool print)
{
    size_t start = l->at, stop = end, line = start;
    if (sign == '-') {
        stop = before_space(l, start, end);
    } else if (sign != '+' && !print) {
        for (size_t i = start; i < end; i++) {
            if (l->text[i] == '\n') line = i + 1;
        }
        if ((line > start || l->line_starts) && before_space(l, line, end) == line) stop = line;
    }
    if (stop > start) TRY(add(l, TOKEN_DATA, start, stop));
    move(l, end);
    return PM_OK;
}

/* If a tag may end at `at` with `end` ("%}"): the byte behind it and the white space that it
 * takes, else 0. */
static size_t tag_end(const struct lexer *l, size_t at, const char *end, bool block)
{
    size_t n = strlen(end);
    if (l->text[at] == '-' && has(l, at + 1, end)) return behind_space(l, at + 1 + n);
    if (block && l->text[at] == '+' && has(l, at + 1, end)) return at + 1 + n;
    if (!has(l, at, end)) return 0;
    at += n;
    return block && at < l->n && l->text[at] == '\n' ? at + 1 : at;
}

static void tag_ended(struct lexer *l, size_t end)
{
    l->line_starts = end > 0 && l->text[end - 1] == '\n';
    move(l, end);
}

/* Inside tags */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c) ||
           (c & 0x80);
}

static size_t digits(const struct lexer *l, size_t at)
{
    while (at < l->n && (is_digit(l->text[at]) ||
                         (l->text[at] == '_' && at + 1 < l->n && is_digit(l->text[at + 1])))) {
        at++;
    }
    return at;
}

static pm_status lex_number(struct lexer *l)
{
    size_t start = l->at, end = digits(l, start), more;
    bool real = false, after_point = start > 0 && l->text[start - 1] == '.';
    if (end + 1 < l->n && l->text[end] == '.' && is_digit(l->text[end + 1]) && !after_point) {
        end = digits(l, end + 1);
        real = true;
    }
    if (end < l->n && (l->text[end] | 32) == 'e' && !after_point) {
        more = end + 1;
        if (more < l->n && (l->text[more] == '+' || l->text[more] == '-')) more++;
        if (more < l->n && is_digit(l->text[more])) {
            end = digits(l, more);
            real = true;
        }
    }
    TRY(add(l, real ? TOKEN_FLOAT : TOKEN_INT, start, end));
    l->at = end;
    return PM_OK;
}

static pm_status lex_text(struct lexer *l)
{
    char quote = l->text[l->at];
    size_t end = l->at + 1;
    while (end < l->n && l->text[end] != quote) {
        end += l->text[end] == '\\' && end + 1 < l->n ? 2 : 1;
    }
    if (end >= l->n) return fail(PM_ERR_FORMAT, "a text that does not end");
    TRY(add(l, TOKEN_TEXT, l->at, end + 1));
    move(l, end + 1);
    return PM_OK;
}

static pm_status balance(struct lexer *l, char c)
{
    char wanted = c == ')' ? '(' : c == ']' ? '[' : '{';
    if (c == '(' || c == '[' || c == '{') {
        if (l->n_open == MAX_BRACKETS) {
            return fail(PM_ERR_TOO_LONG, "more than %d open brackets", MAX_BRACKETS);
        }
        l->open[l->n_open++] = c;
    } else if (c == ')' || c == ']' || c == '}') {
        if (l->n_open == 0 || l->open[l->n_open - 1] != wanted) {
            return fail(PM_ERR_FORMAT, "found %c, which closes nothing", c);
        }
        l->n_open--;
    }
    return PM_OK;
}

static pm_status lex_sign(struct lexer *l)
{
    static const char *const sign[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                       "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                       ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (size_t i = 0; i < sizeof sign / sizeof *sign; i++) {
        if (!has(l, l->at, sign[i])) continue;
        TRY(balance(l, *sign[i]));
        TRY(add(l, TOKEN_SIGN, l->at, l->at + strlen(sign[i])));
        l->at += strlen(sign[i]);
        return PM_OK;
    }
    return fail(PM_ERR_FORMAT, "found an unexpected character '%c'",
                l->text[l->at] >= 0x20 && l->text[l->at] < 0x7f ? l->text[l->at] : '?');
}

static pm_status lex_tag(struct lexer *l, bool block)
{
    const char *end = block ? "%}" : "}}";
    l->n_open = 0;
    while (l->at < l->n) {
        size_t behind = l->n_open == 0 ? tag_end(l, l->at, end, block) : 0;
        char c = l->text[l->at];
        if (behind > 0) {
            TRY(add(l, block ? TOKEN_BLOCK_END : TOKEN_PRINT_END, l->at, l->at));
            tag_ended(l, behind);
            return PM_OK;
        }
        behind = behind_space(l, l->at);
        if (behind > l->at) {
            move(l, behind);
        } else if (is_digit(c)) {
            TRY(lex_number(l));
        } else if (is_name(c)) {
            size_t stop = l->at;
            while (stop < l->n && is_name(l->text[stop])) {
                stop++;
            }
            TRY(add(l, TOKEN_NAME, l->at, stop));
            l->at = stop;
        } else if (c == '"' || c == '\'') {
            TRY(lex_text(l));
        } else {
            TRY(lex_sign(l));
        }
    }
    return fail(PM_ERR_FORMAT, "the template ends inside a tag, wanted %s", end);
}

/* Data and tags */

static char sign_at(const struct lexer *l, size_t at)
{
    return at < l->n && (l->text[at] == '-' || l->text[at] == '+') ? l->text[at] : 0;
}

static pm_status lex_comment(struct lexer *l, size_t tag)
{
    char sign = sign_at(l, tag + 2);
    size_t end = tag + 2;
    TRY(put_data(l, tag, sign, false));
    while (end + 1 < l->n && !has(l, end, "#}")) {
        end++;
    }
    if (end + 1 >= l->n) return fail(PM_ERR_FORMAT, "a comment that does not end, wanted #}");
    if (end > tag + 2 && (l->text[end - 1] == '-' || l->text[end - 1] == '+')) end--;
    tag_ended(l, tag_end(l, end, "#}", true));
    return PM_OK;
}

/* The byte behind "{% word" at `at`, white space and signs as they may be; 0 when another tag
 * is there. */
static size_t word_tag(const struct lexer *l, size_t at, const char *word)
{
    if (!has(l, at, "{%")) return 0;
    at = behind_space(l, at + 2 + (sign_at(l, at + 2) != 0));
    if (!has(l, at, word)) return 0;
    at = behind_space(l, at + strlen(word));
    return at < l->n ? at : 0;
}

static pm_status lex_raw(struct lexer *l, size_t tag, size_t end)
{
    size_t stop;
    TRY(put_data(l, tag, sign_at(l, tag + 2), false));
    tag_ended(l, end);
    for (stop = l->at; stop < l->n; stop++) {
        size_t at = word_tag(l, stop, "endraw");
        size_t behind = at > 0 ? tag_end(l, at, "%}", true) : 0;
        if (behind == 0) continue;
        TRY(put_data(l, stop, sign_at(l, stop + 2), false));
        tag_ended(l, behind);
        return PM_OK;
    }
    return fail(PM_ERR_FORMAT, "{%% raw %%} without {%% endraw %%}");
}

/* Where a raw tag that starts at `at` ends, else 0. It takes no line feed. */
static size_t raw_end(const struct lexer *l, size_t at)
{
    at = word_tag(l, at, "raw");
    if (at == 0) return 0;
    if (has(l, at, "-%}")) return behind_space(l, at + 3);
    return has(l, at, "%}") ? at + 2 : 0;
}

static pm_status lex_all(struct lexer *l)
{
    while (l->at < l->n) {
        size_t tag = l->at, raw;
        bool print;
        while (tag < l->n && !has(l, tag, "{{") && !has(l, tag, "{%") && !has(l, tag, "{#")) {
            tag++;
        }
        if (tag == l->n) {
            TRY(add(l, TOKEN_DATA, l->at, tag));
            move(l, tag);
            break;
        }
        raw = raw_end(l, tag);
        if (l->text[tag + 1] == '#') {
            TRY(lex_comment(l, tag));
            continue;
        }
        if (raw > 0) {
            TRY(lex_raw(l, tag, raw));
            continue;
        }
        print = l->text[tag + 1] == '{';
        TRY(put_data(l, tag, sign_at(l, tag + 2), print));
        TRY(add(l, print ? TOKEN_PRINT_BEGIN : TOKEN_BLOCK_BEGIN, tag, tag));
        l->at = tag + 2 + (sign_at(l, tag + 2) != 0);
        TRY(lex_tag(l, !print));
    }
    return add(l, TOKEN_END, l->n, l->n);
}

pm_status template_lex(struct token_list *out, const char *source, size_t n, int *line)
{
    struct lexer l = {.text = source, .n = n, .line = 1, .line_starts = true, .out = out};
    pm_status status = lex_all(&l);
    *line = l.line;
    return status;
}
