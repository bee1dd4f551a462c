/* unicode.h - UTF-8 and the properties of characters, as the reference tokenizer sees them. */
#ifndef RUNTIME_UNICODE_H
#define RUNTIME_UNICODE_H

#include "kernels/base.h"

enum { REPLACEMENT = 0xfffd, UTF8_MAX = 4 };

/* A growing run of bytes; starts as {0}; the owner frees `byte`. */
struct text {
    char *byte;
    size_t n, capacity;
};

pm_status text_put(struct text *t, const char *byte, size_t n);
pm_status text_put_character(struct text *t, uint32_t c);

/* Bytes of the character that starts with this byte of well-formed text. */
static inline size_t utf8_bytes(char first)
{
    unsigned char b = (unsigned char)first;
    return b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
}

/* The character at *at in well-formed text; *at moves behind it. */
static inline uint32_t utf8_next(const char **at)
{
    const unsigned char *s = (const unsigned char *)*at;
    size_t n = utf8_bytes(**at);
    *at += n;
    switch (n) {
    case 1: return s[0];
    case 2: return (uint32_t)(s[0] & 31) << 6 | (s[1] & 63);
    case 3: return (uint32_t)(s[0] & 15) << 12 | (uint32_t)(s[1] & 63) << 6 | (s[2] & 63);
    }
    return (uint32_t)(s[0] & 7) << 18 | (uint32_t)(s[1] & 63) << 12 |
           (uint32_t)(s[2] & 63) << 6 | (s[3] & 63);
}

/* The character that ends at `end`; text[0] is the start of a character, end > text. */
uint32_t utf8_last(const char *text, const char *end);

/* Writes c as UTF-8; returns the bytes. */
size_t utf8_write(char out[UTF8_MAX], uint32_t c);

bool utf8_valid(const char *text, size_t n);

/* Appends text with U+FFFD for each maximal ill-formed part, as String::from_utf8_lossy. With
 * `held`, a sequence that only the end of the text cuts short is left out and its bytes are
 * counted there; without, it is replaced too. */
pm_status utf8_repair(struct text *out, const char *text, size_t n, size_t *held);

bool unicode_is_space(uint32_t c);       /* White_Space: 25 characters */
bool unicode_is_word(uint32_t c);        /* \w of UTS 18, joiners included */
bool unicode_is_numeric(uint32_t c);     /* Nd, Nl, No */
bool unicode_is_punctuation(uint32_t c); /* ASCII punctuation and P */
bool unicode_is_mark(uint32_t c);        /* M */
bool unicode_is_printable(uint32_t c);   /* not C, not Z but for the blank */

/* Lower case of c, one or two characters; returns how many. */
int unicode_lower(uint32_t c, uint32_t out[2]);

/* Whether the reference's tables of normal forms and categories are older than c. */
bool unicode_is_newer(uint32_t c);

/* A character of Unicode 14 with the category, the script (where an old script has it) and the
 * UTF-8 length of c, for libraries that do not know c yet; c itself where they do. */
uint32_t unicode_stand_in(uint32_t c);

/* *out = true when text has a character whose stand-in is another; `copy` is then replaced by
 * the text with stand-ins, of the same length. */
pm_status unicode_stand_ins(struct text *copy, const char *text, size_t n, bool *out);

/* The byte-level alphabet of GPT-2: byte <-> one of 256 printable characters. */
uint32_t byte_level_character(unsigned char byte);
int byte_level_byte(uint32_t c); /* -1: not in the alphabet */
pm_status byte_level_put(struct text *out, const char *text, size_t n);

#endif
