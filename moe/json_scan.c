/* json_scan.c - strings, numbers and depth of a JSON text, without building anything.
 *
 * cJSON accepts more than JSON: 01 and 1., raw control characters, any bytes as text, and it
 * cuts a number at 63 characters and a string at "\u0000". One loop over the bytes rejects what
 * is not JSON and notes the decoded length of every string, so that the tree can be told where
 * its strings really end. Memory: four bytes per string.
 *
 * The loop knows nothing of structure except how deep it is; a closing bracket too many makes
 * the depth negative, which is harmless because the parser stops there. */
#include "json_scan.h"

#include <string.h>

#include "json.h"

enum {
    MAX_DEPTH = 128,
    MAX_NUMBER = 63,   /* characters of a number that cJSON reads */
    EXACT_DIGITS = 15, /* digits that a double always holds */
};

size_t json_utf8_bytes(const char *p, size_t n)
{
    const unsigned char *c = (const unsigned char *)p;
    unsigned char low = 0x80, high = 0xbf;
    size_t bytes, i;
    if (c[0] < 0x80) return 1;
    if (c[0] < 0xc2 || c[0] > 0xf4) return 0;
    bytes = c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
    if (c[0] == 0xe0) low = 0xa0;
    if (c[0] == 0xed) high = 0x9f;
    if (c[0] == 0xf0) low = 0x90;
    if (c[0] == 0xf4) high = 0x8f;
    if (n < bytes || c[1] < low || c[1] > high) return 0;
    for (i = 2; i < bytes; i++) {
        if (c[i] < 0x80 || c[i] > 0xbf) return 0;
    }
    return bytes;
}

pm_status json_scan_fail(const struct json_scan *s, size_t at, const char *problem)
{
    char near[JSON_EXCERPT];
    size_t line = 1, start = 0, i;
    for (i = 0; i < at; i++) {
        if (s->text[i] != '\n') continue;
        line++;
        start = i + 1;
    }
    return fail(PM_ERR_FORMAT, "%s: line %zu, column %zu: %s at %s", s->name, line,
                at - start + 1, problem,
                at < s->n ? json_excerpt(near, s->text + at, s->n - at) : "the end");
}

/* The four hexadecimal digits of \uXXXX whose backslash is at `at`, or -1. */
static int scan_hex4(const struct json_scan *s, size_t at)
{
    int value = 0;
    if (at + 6 > s->n || s->text[at] != '\\' || s->text[at + 1] != 'u') return -1;
    for (size_t i = at + 2; i < at + 6; i++) {
        char c = s->text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Steps over the escape at s->at and adds the bytes of what it stands for. */
static pm_status scan_escape(struct json_scan *s, int *bytes)
{
    int unit, second;
    char c = s->at + 1 < s->n ? s->text[s->at + 1] : 0;
    if (c && strchr("\"\\/bfnrt", c)) {
        s->at += 2;
        *bytes += 1;
        return PM_OK;
    }
    unit = scan_hex4(s, s->at);
    if (unit < 0) return json_scan_fail(s, s->at, "unknown escape");
    if (unit < 0xd800 || unit > 0xdfff) {
        s->at += 6;
        *bytes += unit < 0x80 ? 1 : unit < 0x800 ? 2 : 3;
        return PM_OK;
    }
    second = scan_hex4(s, s->at + 6);
    if (unit > 0xdbff || second < 0xdc00 || second > 0xdfff) {
        return json_scan_fail(s, s->at, "lone surrogate");
    }
    s->at += 12;
    *bytes += 4;
    return PM_OK;
}

static pm_status scan_string(struct json_scan *s)
{
    size_t start = s->at++;
    int bytes = 0;
    for (;;) {
        unsigned char c;
        size_t step;
        if (s->at == s->n) return json_scan_fail(s, start, "string without an end");
        c = (unsigned char)s->text[s->at];
        if (c == '"') break;
        if (c == '\\') {
            TRY(scan_escape(s, &bytes));
            continue;
        }
        if (c < 0x20) return json_scan_fail(s, s->at, "control character in a string");
        step = json_utf8_bytes(s->text + s->at, s->n - s->at);
        if (step == 0) return json_scan_fail(s, s->at, "invalid UTF-8");
        s->at += step;
        bytes += (int)step;
    }
    s->at++;
    TRY(grow_array(&s->string_bytes, &s->capacity, s->n_string + 1, sizeof *s->string_bytes));
    s->string_bytes[s->n_string++] = bytes;
    return PM_OK;
}

static size_t skip_digits(const struct json_scan *s, size_t at)
{
    while (s->text[at] >= '0' && s->text[at] <= '9') {
        at++;
    }
    return at;
}

static pm_status note_number(struct json_scan *s, size_t start, size_t end)
{
    const char *text = s->text + start;
    int n = (int)(end - start);
    bool plain = n <= EXACT_DIGITS && !memchr(text, '.', end - start) &&
                 !memchr(text, 'e', end - start) && !memchr(text, 'E', end - start);
    TRY(grow_array(&s->lexeme, &s->capacity_number, s->n_number + 1, sizeof *s->lexeme));
    s->lexeme[s->n_number++] = (struct json_lexeme){plain ? NULL : text, n};
    return PM_OK;
}

/* RFC 8259, section 6: -? (0 | [1-9] digits) (. digits)? ([eE] [+-]? digits)? The zero after
 * the text ends every loop. */
static pm_status scan_number(struct json_scan *s)
{
    const char *text = s->text;
    size_t start = s->at, at = start + (text[start] == '-'), end;
    end = text[at] == '0' ? at + 1 : skip_digits(s, at);
    if (end == at) return json_scan_fail(s, start, "malformed number");
    if (text[end] == '.') {
        at = end + 1;
        end = skip_digits(s, at);
        if (end == at) return json_scan_fail(s, start, "malformed number");
    }
    if (text[end] == 'e' || text[end] == 'E') {
        at = end + 1;
        if (text[at] == '+' || text[at] == '-') at++;
        end = skip_digits(s, at);
        if (end == at) return json_scan_fail(s, start, "malformed number");
    }
    if (text[end] >= '0' && text[end] <= '9')
        return json_scan_fail(s, start, "malformed number");
    if (end - start > MAX_NUMBER) return json_scan_fail(s, start, "number of too many digits");
    s->at = end;
    return note_number(s, start, end);
}

pm_status json_scan_text(struct json_scan *s)
{
    int depth = 0;
    while (s->at < s->n) {
        char c = s->text[s->at];
        if (c == '"') {
            TRY(scan_string(s));
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            TRY(scan_number(s));
        } else if (c && strchr(" \t\n\r,:{}[]truefalsn", c)) {
            if (c == '{' || c == '[') depth++;
            if (c == '}' || c == ']') depth--;
            if (depth > MAX_DEPTH) return json_scan_fail(s, s->at, "nesting deeper than 128");
            s->at++;
        } else {
            return json_scan_fail(s, s->at, "malformed JSON");
        }
    }
    return PM_OK;
}
