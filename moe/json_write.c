/* json_write.c - JSON text in a growing buffer.
 *
 * A writer appends without looking; the first failure is kept in the buffer and turns the rest
 * into no-ops, so that one check at the end is enough. Strings always come out as valid JSON:
 * bytes that are not UTF-8 (a token may hold half a character) become U+FFFD. */
#include "json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "json_scan.h"

void json_put_bytes(struct json_out *o, const char *text, size_t n)
{
    if (o->status != PM_OK) return;
    o->status = grow_array(&o->text, &o->capacity, o->n + n + 1, 1);
    if (o->status != PM_OK) return;
    if (n) memcpy(o->text + o->n, text, n); /* an empty text may be NULL */
    o->n += n;
    o->text[o->n] = 0;
}

void json_put(struct json_out *o, const char *format, ...)
{
    va_list args;
    int n;
    if (o->status != PM_OK) return;
    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) {
        o->status = fail(PM_ERR_ARG, "text of a format cannot be written: %s", format);
        return;
    }
    o->status = grow_array(&o->text, &o->capacity, o->n + (size_t)n + 1, 1);
    if (o->status != PM_OK) return;
    va_start(args, format);
    vsnprintf(o->text + o->n, (size_t)n + 1, format, args);
    va_end(args);
    o->n += (size_t)n;
}

/* The escape of one byte below 0x20, of a quote or of a backslash. */
static void put_escape(struct json_out *o, char c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *found = memchr(from, c, sizeof from - 1);
    if (found) {
        json_put(o, "\\%c", to[found - from]);
    } else {
        json_put(o, "\\u%04x", (unsigned char)c);
    }
}

void json_put_string(struct json_out *o, const char *text, size_t n)
{
    size_t start = 0, at = 0; /* text[start..at) needs no escape and waits to be written */
    json_put_bytes(o, "\"", 1);
    while (at < n) {
        unsigned char c = (unsigned char)text[at];
        size_t step = json_utf8_bytes(text + at, n - at);
        if (step > 0 && c >= 0x20 && c != '"' && c != '\\') {
            at += step;
            continue;
        }
        json_put_bytes(o, text + start, at - start);
        if (step > 0) {
            put_escape(o, text[at]);
        } else {
            json_put_bytes(o, "\xef\xbf\xbd", 3);
        }
        start = ++at;
    }
    json_put_bytes(o, text + start, at - start);
    json_put_bytes(o, "\"", 1);
}

const char *json_excerpt(char out[JSON_EXCERPT], const char *text, size_t n)
{
    const size_t limit = JSON_EXCERPT - sizeof "...";
    size_t at = 0;
    while (at < n) {
        size_t step = json_utf8_bytes(text + at, n - at);
        bool plain = step > 0 && (unsigned char)text[at] >= 0x20 && text[at] != 0x7f;
        if (!plain) step = 1;
        if (at + step > limit) break;
        memcpy(out + at, plain ? text + at : "?", step);
        at += step;
    }
    strcpy(out + at, at < n ? "..." : "");
    return out;
}
