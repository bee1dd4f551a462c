/* template_text.c - stripping, splitting, replacing and changing the case of texts.
 *
 * What only cuts gives views; what makes new bytes gives each the origin of the byte it was
 * made from, and inserted texts their own. */
#define _GNU_SOURCE /* memmem: linear whatever the texts */
#include "template_text.h"

#include <string.h>

#include <utf8proc.h>

bool text_is_space(uint32_t c)
{
    return (c >= 0x1c && c <= 0x1f) || unicode_is_space(c);
}

/* Finding */

enum { STEP_CHARACTERS = 16 }; /* compared for the price of a byte */

pm_status text_find(struct render *r, const struct value *text, const struct value *part,
                    size_t from, size_t *at, bool *found)
{
    const char *place;
    *found = false;
    if (from > text->text.n) return PM_OK;
    TRY(work(r, 0));
    place = memmem(text->text.byte + from, text->text.n - from, part->text.byte, part->text.n);
    if (!place) return work(r, text->text.n - from);
    *found = true;
    *at = (size_t)(place - text->text.byte);
    return work(r, *at - from);
}

pm_status text_find_last(struct render *r, const struct value *text, const struct value *part,
                         size_t to, size_t *at, bool *found)
{
    size_t n = part->text.n, cost = n < STEP_CHARACTERS ? 1 : n / STEP_CHARACTERS;
    *found = false;
    if (n > to) return PM_OK;
    for (size_t i = to - n + 1; i-- > 0;) {
        if (memcmp(text->text.byte + i, part->text.byte, n) == 0) {
            *found = true;
            *at = i;
            return work(r, (to - i) * cost);
        }
    }
    return work(r, to * cost);
}

bool text_starts(const struct value *text, const struct value *part)
{
    return part->text.n <= text->text.n &&
           memcmp(text->text.byte, part->text.byte, part->text.n) == 0;
}

bool text_ends(const struct value *text, const struct value *part)
{
    return part->text.n <= text->text.n && memcmp(text->text.byte + text->text.n - part->text.n,
                                                  part->text.byte, part->text.n) == 0;
}

/* Stripping */

static bool strips(const struct value *characters, uint32_t c)
{
    const char *at, *end;
    if (characters->kind != VALUE_TEXT) return text_is_space(c);
    at = characters->text.byte;
    end = at + characters->text.n;
    while (at < end) {
        if (utf8_next(&at) == c) return true;
    }
    return false;
}

pm_status text_strip(struct render *r, const struct value *text, const struct value *characters,
                     int sides, struct value *out)
{
    const char *byte = text->text.byte;
    size_t from = 0, to = text->text.n;
    while (sides & STRIP_LEFT && from < to) {
        const char *at = byte + from;
        if (!strips(characters, utf8_next(&at))) break;
        from = (size_t)(at - byte);
        TRY(work(r, characters->kind == VALUE_TEXT ? characters->text.n : 0));
    }
    while (sides & STRIP_RIGHT && from < to) {
        if (!strips(characters, utf8_last(byte, byte + to))) break;
        do {
            to--;
        } while ((byte[to] & 0xc0) == 0x80);
        TRY(work(r, characters->kind == VALUE_TEXT ? characters->text.n : 0));
    }
    *out = text_slice(text, from, to);
    return PM_OK;
}

/* Splitting */

static void reverse_items(struct value_items *items)
{
    for (size_t i = 0; 2 * i + 1 < items->n; i++) {
        struct value v = items->item[i];
        items->item[i] = items->item[items->n - 1 - i];
        items->item[items->n - 1 - i] = v;
    }
}

static pm_status split_right(struct render *r, const struct value *text,
                             const struct value *separator, int64_t most,
                             struct value_items *items)
{
    size_t to = text->text.n, at;
    bool found;
    for (; most != 0; most--) {
        TRY(text_find_last(r, text, separator, to, &at, &found));
        if (!found) break;
        TRY(items_add(r, items, text_slice(text, at + separator->text.n, to)));
        to = at;
    }
    TRY(items_add(r, items, text_slice(text, 0, to)));
    reverse_items(items);
    return PM_OK;
}

static pm_status split_left(struct render *r, const struct value *text,
                            const struct value *separator, int64_t most,
                            struct value_items *items)
{
    size_t from = 0, at;
    bool found;
    for (; most != 0; most--) {
        TRY(text_find(r, text, separator, from, &at, &found));
        if (!found) break;
        TRY(items_add(r, items, text_slice(text, from, at)));
        from = at + separator->text.n;
    }
    return items_add(r, items, text_slice(text, from, text->text.n));
}

/* Runs of white space part the words; none of them is empty. What is left after `most` words
 * keeps its end. */
static pm_status split_words(struct render *r, const struct value *text, int64_t most,
                             struct value_items *items)
{
    const char *byte = text->text.byte, *at = byte, *end = byte + text->text.n;
    TRY(work(r, text->text.n));
    while (at < end) {
        const char *word = at;
        if (text_is_space(utf8_next(&at))) continue;
        if (most-- == 0) {
            struct value rest = text_slice(text, (size_t)(word - byte), text->text.n);
            return items_add(r, items, rest);
        }
        for (;;) {
            const char *next = at;
            if (at == end || text_is_space(utf8_next(&next))) break;
            at = next;
        }
        TRY(items_add(r, items, text_slice(text, (size_t)(word - byte), (size_t)(at - byte))));
    }
    return PM_OK;
}

static pm_status split_words_right(struct render *r, const struct value *text, int64_t most,
                                   struct value_items *items)
{
    struct value_items words = {0};
    const struct value *kept;
    struct value head;
    TRY(split_words(r, text, -1, &words));
    if (most < 0 || (size_t)most >= words.n) {
        *items = words;
        return PM_OK;
    }
    kept = words.item + (words.n - (size_t)most);
    /* All before the last words is one piece, with the white space at its start and inside. */
    head =
        text_slice(text, 0, (size_t)(kept[-1].text.byte - text->text.byte) + kept[-1].text.n);
    TRY(items_add(r, items, head));
    for (int64_t i = 0; i < most; i++) {
        TRY(items_add(r, items, kept[i]));
    }
    return PM_OK;
}

pm_status text_split(struct render *r, const struct value *text, const struct value *separator,
                     int64_t most, bool from_right, struct value *out)
{
    struct value_items items = {0};
    if (separator->kind != VALUE_TEXT) {
        TRY(from_right ? split_words_right(r, text, most, &items)
                       : split_words(r, text, most, &items));
    } else if (separator->text.n == 0) {
        return fail(PM_ERR_ARG, "split by an empty text");
    } else if (from_right) {
        TRY(split_right(r, text, separator, most, &items));
    } else {
        TRY(split_left(r, text, separator, most, &items));
    }
    *out = value_list(VALUE_LIST, items.item, items.n);
    return PM_OK;
}

static bool ends_line(uint32_t c)
{
    return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

pm_status text_split_lines(struct render *r, const struct value *text, bool keep,
                           struct value *out)
{
    const char *byte = text->text.byte, *at = byte, *end = byte + text->text.n, *line = byte;
    struct value_items items = {0};
    TRY(work(r, text->text.n));
    while (at < end) {
        const char *stop = at;
        uint32_t c = utf8_next(&at);
        if (!ends_line(c)) continue;
        if (c == '\r' && at < end && *at == '\n') at++;
        TRY(items_add(
            r, &items,
            text_slice(text, (size_t)(line - byte), (size_t)((keep ? at : stop) - byte))));
        line = at;
    }
    if (line < end) {
        TRY(items_add(r, &items, text_slice(text, (size_t)(line - byte), text->text.n)));
    }
    *out = value_list(VALUE_LIST, items.item, items.n);
    return PM_OK;
}

/* An empty text is found between all characters. */
static pm_status replace_gaps(struct render *r, const struct value *text,
                              const struct value *to, int64_t most)
{
    size_t at = 0;
    for (; most != 0; most--) {
        size_t next;
        TRY(put_text(r, to));
        if (at == text->text.n) return PM_OK;
        next = at + utf8_bytes(text->text.byte[at]);
        TRY(put_slice(r, text, at, next));
        at = next;
    }
    return put_slice(r, text, at, text->text.n);
}

pm_status text_replace(struct render *r, const struct value *text, const struct value *from,
                       const struct value *to, int64_t most, struct value *out)
{
    size_t start = r->n, done = 0, at;
    bool found;
    if (from->text.n == 0) {
        TRY(replace_gaps(r, text, to, most));
        return text_made(r, start, out);
    }
    for (; most != 0; most--) {
        TRY(text_find(r, text, from, done, &at, &found));
        if (!found) break;
        TRY(put_slice(r, text, done, at));
        TRY(put_text(r, to));
        done = at + from->text.n;
    }
    if (done == 0) {
        *out = *text;
        return PM_OK;
    }
    TRY(put_slice(r, text, done, text->text.n));
    return text_made(r, start, out);
}

/* Case */

static bool is_cased(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
           category == UTF8PROC_CATEGORY_LT;
}

static bool is_upper(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LU;
}

bool text_is_digit(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND || c == 0xb2 ||
           c == 0xb3 || c == 0xb9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
           (c >= 0x2080 && c <= 0x2089);
}

bool text_is_letter(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool text_has_case(const struct value *text, bool upper)
{
    const char *at = text->text.byte, *end = at + text->text.n;
    bool cased = false;
    while (at < end) {
        uint32_t c = utf8_next(&at);
        if (!is_cased(c)) continue;
        if (is_upper(c) != upper) return false;
        cased = true;
    }
    return cased;
}

/* Writes c in another case, up to two characters; returns how many. */
static int change_case(uint32_t c, bool upper, bool title, uint32_t out[2])
{
    if (!upper) return unicode_lower(c, out);
    if (c == 0xdf) { /* sharp s has no upper case of its own */
        out[0] = 'S';
        out[1] = title ? 's' : 'S';
        return 2;
    }
    out[0] = (uint32_t)(title ? utf8proc_totitle((utf8proc_int32_t)c)
                              : utf8proc_toupper((utf8proc_int32_t)c));
    return 1;
}

/* A word of the filter `title` starts behind one of these. */
static bool parts_words(uint32_t c)
{
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || text_is_space(c);
}

pm_status text_case(struct render *r, const struct value *text, enum text_case wanted,
                    struct value *out)
{
    const char *byte = text->text.byte, *at = byte, *end = byte + text->text.n;
    size_t start = r->n;
    bool starts = true;
    while (at < end) {
        size_t here = (size_t)(at - byte);
        uint32_t c = utf8_next(&at), changed[2];
        bool title = wanted >= CASE_CAPITAL && wanted <= CASE_WORDS && starts;
        bool upper = wanted == CASE_UPPER || title ||
                     (wanted == CASE_SWAP && is_cased(c) && !is_upper(c));
        int n = change_case(c, upper, title, changed);
        for (int i = 0; i < n; i++) {
            char bytes[UTF8_MAX];
            TRY(put_bytes(r, bytes, utf8_write(bytes, changed[i]), text_origin(text, here)));
        }
        starts = wanted == CASE_TITLE ? !is_cased(c) : wanted == CASE_WORDS && parts_words(c);
    }
    return text_made(r, start, out);
}
