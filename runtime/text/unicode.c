/* unicode.c - UTF-8, character properties and the byte-level alphabet.
 *
 * A token id depends on whether a character is a letter, a digit or a blank, so these answers
 * must be those of the reference tokenizer, not of a recent Unicode. The reference is a stack
 * of libraries with tables of different years; utf8proc and PCRE2 are of another year again.
 * Two small tables (unicode_tables.h) hold what differs:
 *
 *   stand_ins  characters that our libraries may not know yet. A text is shown to PCRE2 with
 *              each of them replaced by an older character that is like it in category, script
 *              and UTF-8 length: offsets of matches then hold for the true text.
 *   newer      characters that part of the reference does not know yet.
 *
 * Text inside the tokenizer is always well-formed UTF-8: `utf8_repair` is the only gate. */
#include "unicode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "unicode_tables.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

pm_status text_put(struct text *t, const char *byte, size_t n)
{
    TRY(grow_array(&t->byte, &t->capacity, t->n + n, 1));
    if (n > 0) memcpy(t->byte + t->n, byte, n);
    t->n += n;
    return PM_OK;
}

pm_status text_put_character(struct text *t, uint32_t c)
{
    TRY(grow_array(&t->byte, &t->capacity, t->n + UTF8_MAX, 1));
    t->n += utf8_write(t->byte + t->n, c);
    return PM_OK;
}

size_t utf8_write(char out[UTF8_MAX], uint32_t c)
{
    utf8proc_uint8_t *byte = (utf8proc_uint8_t *)out;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, byte);
}

uint32_t utf8_last(const char *text, const char *end)
{
    assert(end > text);
    do {
        end--;
    } while (end > text && (*end & 0xc0) == 0x80);
    return utf8_next(&end);
}

/* Bytes of the well-formed sequence at s, or minus those of the maximal ill-formed part, or 0
 * when all n bytes are the start of a sequence that goes on. */
static int sequence_bytes(const unsigned char *s, size_t n)
{
    unsigned low = 0x80, high = 0xbf;
    int need = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] < 0x80) return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4) return -1;
    /* The second byte rules out overlong forms, surrogates and what is above U+10FFFF. */
    if (s[0] == 0xe0) low = 0xa0;
    if (s[0] == 0xed) high = 0x9f;
    if (s[0] == 0xf0) low = 0x90;
    if (s[0] == 0xf4) high = 0x8f;
    for (int i = 1; i < need; i++) {
        if ((size_t)i == n) return 0;
        if (s[i] < low || s[i] > high) return -i;
        low = 0x80;
        high = 0xbf;
    }
    return need;
}

/* Bytes of ASCII at the start of s. */
static size_t ascii_bytes(const char *s, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, s + i, 8);
        if (word & 0x8080808080808080u) break;
    }
    while (i < n && (s[i] & 0x80) == 0) {
        i++;
    }
    return i;
}

/* Bytes of well-formed text at the start of s. */
static size_t valid_bytes(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        int bytes;
        i += ascii_bytes(s + i, n - i);
        if (i == n) break;
        bytes = sequence_bytes((const unsigned char *)s + i, n - i);
        if (bytes <= 0) break;
        i += (size_t)bytes;
    }
    return i;
}

bool utf8_valid(const char *text, size_t n)
{
    return valid_bytes(text, n) == n;
}

pm_status utf8_repair(struct text *out, const char *text, size_t n, size_t *held)
{
    size_t i = 0;
    if (held) *held = 0;
    while (i < n) {
        size_t good = valid_bytes(text + i, n - i);
        int bytes;
        TRY(text_put(out, text + i, good));
        i += good;
        if (i == n) break;
        bytes = sequence_bytes((const unsigned char *)text + i, n - i);
        if (bytes == 0 && held) {
            *held = n - i;
            break;
        }
        TRY(text_put_character(out, REPLACEMENT));
        i += bytes == 0 ? n - i : (size_t)-bytes;
    }
    return PM_OK;
}

/* Properties */

/* Index of the last range that starts at or before c, or -1; of any of the three tables. */
static int find_range(const void *table, size_t n, size_t size, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        uint32_t first;
        memcpy(&first, (const char *)table + middle * size, sizeof first);
        if (first <= c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return (int)low - 1;
}

uint32_t unicode_stand_in(uint32_t c)
{
    int i;
    if (c < stand_ins[0].first) return c;
    i = find_range(stand_ins, COUNT(stand_ins), sizeof stand_ins[0], c);
    return c <= stand_ins[i].last ? stand_ins[i].like : c;
}

bool unicode_is_newer(uint32_t c)
{
    int i;
    if (c < newer[0].first) return false;
    i = find_range(newer, COUNT(newer), sizeof newer[0], c);
    return c <= newer[i].last || unicode_stand_in(c) != c;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)unicode_stand_in(c));
}

bool unicode_is_space(uint32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool is_mark_category(utf8proc_category_t g)
{
    return g == UTF8PROC_CATEGORY_MN || g == UTF8PROC_CATEGORY_MC || g == UTF8PROC_CATEGORY_ME;
}

bool unicode_is_word(uint32_t c)
{
    utf8proc_category_t g = category(c);
    if (g >= UTF8PROC_CATEGORY_LU && g <= UTF8PROC_CATEGORY_LO) return true;
    if (is_mark_category(g) || g == UTF8PROC_CATEGORY_ND || g == UTF8PROC_CATEGORY_NL ||
        g == UTF8PROC_CATEGORY_PC) {
        return true;
    }
    /* Joiners, and the circled, squared and negative letters, which are symbols by category. */
    return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
           (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189);
}

bool unicode_is_numeric(uint32_t c)
{
    utf8proc_category_t g = category(c);
    if (c < 0x80) return c >= '0' && c <= '9';
    return g == UTF8PROC_CATEGORY_ND || g == UTF8PROC_CATEGORY_NL ||
           g == UTF8PROC_CATEGORY_NO || (c >= 0x11de0 && c <= 0x11de9) ||
           (c >= 0x16ff4 && c <= 0x16ff6); /* the last two: Unicode 17 */
}

bool unicode_is_punctuation(uint32_t c)
{
    utf8proc_category_t g;
    if (c < 0x80) {
        return c > ' ' && c < 0x7f && (c < '0' || c > '9') &&
               ((c | 32) < 'a' || (c | 32) > 'z');
    }
    if (c == 0x166d || c == 0x111c9) return true; /* were punctuation in Unicode 8 */
    g = category(c);
    return g >= UTF8PROC_CATEGORY_PC && g <= UTF8PROC_CATEGORY_PO && !unicode_is_newer(c);
}

bool unicode_is_mark(uint32_t c)
{
    if (c == 0x1cf2 || c == 0x1cf3) return true; /* were marks in Unicode 9 */
    return is_mark_category(category(c)) && !unicode_is_newer(c);
}

bool unicode_is_printable(uint32_t c)
{
    if (c < 0x7f) return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

int unicode_lower(uint32_t c, uint32_t out[2])
{
    int i;
    out[0] = c;
    if (c < 0x80) {
        if (c >= 'A' && c <= 'Z') out[0] = c + 32;
        return 1;
    }
    if (c == 0x130) { /* the only one that becomes two */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    i = find_range(newer_lower, COUNT(newer_lower), sizeof newer_lower[0], c);
    if (i >= 0 && c <= newer_lower[i].last) {
        out[0] = newer_lower[i].to + (c - newer_lower[i].first);
    } else {
        out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    }
    return 1;
}

pm_status unicode_stand_ins(struct text *copy, const char *text, size_t n, bool *out)
{
    const char *at = text, *end = text + n;
    *out = false;
    for (;;) {
        const char *from;
        uint32_t c, like;
        at += ascii_bytes(at, (size_t)(end - at));
        if (at == end) return PM_OK;
        from = at;
        c = utf8_next(&at);
        like = unicode_stand_in(c);
        if (like == c) continue;
        if (!*out) {
            copy->n = 0;
            TRY(text_put(copy, text, n));
            *out = true;
        }
        assert((like < 0x10000) == (c < 0x10000) && c >= 0x800 && like >= 0x800);
        utf8_write(copy->byte + (from - text), like);
    }
}

/* The byte-level alphabet: printable Latin-1 stands for itself, the 68 others follow U+0100. */

uint32_t byte_level_character(unsigned char byte)
{
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0x7e) return byte;
    if (byte <= 0xa0) return 0x121u + (byte - 0x7fu);
    return byte == 0xad ? 0x143 : byte;
}

int byte_level_byte(uint32_t c)
{
    if (c >= 0x144) return -1;
    if (c == 0x143) return 0xad;
    if (c >= 0x121) return (int)(c - 0x121 + 0x7f);
    if (c >= 0x100) return (int)(c - 0x100);
    return byte_level_character((unsigned char)c) == c ? (int)c : -1;
}

pm_status byte_level_put(struct text *out, const char *text, size_t n)
{
    TRY(grow_array(&out->byte, &out->capacity, out->n + 2 * n, 1));
    for (size_t i = 0; i < n; i++) {
        uint32_t c = byte_level_character((unsigned char)text[i]);
        out->n += utf8_write(out->byte + out->n, c);
    }
    return PM_OK;
}
