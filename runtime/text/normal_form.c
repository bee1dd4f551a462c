/* normal_form.c - NFC, NFD, NFKC and NFKD over utf8proc.
 *
 * utf8proc can normalise a whole text, but three things stand against calling it for that: it
 * sorts runs of marks by exchange, quadratic for a hostile text; it is slow where nothing is to
 * do, which is nearly everywhere; and its tables are newer than the reference's.
 *
 * So the text is cut. A character is settled in a form when the form does not change it, it is
 * no mark, and it never merges with what stands before it. Between two settled characters the
 * first is copied as it is. An unsettled character and its followers up to the next settled one
 * are a segment, together with the settled character before them, because that one may take
 * part (e + acute). Segments are decomposed, sorted and composed; nothing crosses their edges.
 * Characters that the reference does not know are settled by definition.
 *
 * `settled` lists large ranges only: a settled character missing there costs time, no more. */
#include "normal_form.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

enum { FEW_MARKS = 16, MAX_CLASS = 256 };

static const struct {
    uint32_t first, last;
} settled[][12] = {
    [NORMAL_C] = {{0, 0x2ff},
                  {0x388, 0x482},
                  {0x488, 0x590},
                  {0x671, 0x6d5},
                  {0x1e00, 0x1f70},
                  {0x2002, 0x20cf},
                  {0x212c, 0x2328},
                  {0x2e00, 0x3029},
                  {0x3030, 0x3098},
                  {0x309b, 0xa66e},
                  {0xabee, 0xf8ff},
                  {0x1f000, 0x2f7ff}},
    [NORMAL_D] = {{0, 0xbf},
                  {0x4fa, 0x590},
                  {0x2002, 0x20cf},
                  {0x2e00, 0x3029},
                  {0x30ff, 0xa66e},
                  {0xd7a4, 0xf8ff},
                  {0x1f000, 0x2f7ff}},
    [NORMAL_KC] = {{0, 0x9f},
                   {0xbf, 0x131},
                   {0x3fa, 0x482},
                   {0x488, 0x586},
                   {0x303b, 0x3098},
                   {0x30a0, 0x30fe},
                   {0x3400, 0xa66e},
                   {0xabee, 0xf8ff},
                   {0x1f252, 0x1fbef},
                   {0x20000, 0x2f7ff}},
    [NORMAL_KD] = {{0, 0x9f},
                   {0x4fa, 0x586},
                   {0x3400, 0xa66e},
                   {0xd7a4, 0xf8ff},
                   {0x1f252, 0x1fbef},
                   {0x20000, 0x2f7ff}},
};

enum nature {
    UNSETTLED,
    SETTLED,
    UNKNOWN, /* to the reference: settled, and not composed with what follows either */
};

static enum nature nature_of(enum normal_form form, uint32_t c)
{
    size_t n = sizeof settled[0] / sizeof settled[0][0];
    if (c < 0x80) return SETTLED;
    if (unicode_is_newer(c)) return UNKNOWN;
    for (size_t i = 0; i < n && settled[form][i].last > 0; i++) {
        if (c < settled[form][i].first) break;
        if (c <= settled[form][i].last) return SETTLED;
    }
    return UNSETTLED;
}

/* The characters of one segment. */
struct segment {
    utf8proc_int32_t *c, *sorted;
    size_t n, capacity, sorted_capacity;
};

static int combining_class(utf8proc_int32_t c)
{
    return utf8proc_get_property(c)->combining_class & (MAX_CLASS - 1);
}

static pm_status decompose(struct segment *s, enum normal_form form, const char *text, size_t n)
{
    enum { ROOM = 32 }; /* the longest decomposition has 18 characters */
    const char *at = text;
    int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE;
    if (form == NORMAL_KC || form == NORMAL_KD) options |= UTF8PROC_COMPAT;
    s->n = 0;
    while (at < text + n) {
        utf8proc_int32_t c = (utf8proc_int32_t)utf8_next(&at);
        utf8proc_ssize_t got;
        TRY(grow_array(&s->c, &s->capacity, s->n + ROOM, sizeof *s->c));
        got = utf8proc_decompose_char(c, s->c + s->n, ROOM, (utf8proc_option_t)options, NULL);
        if (got < 0 || got > ROOM) return fail(PM_ERR_BUG, "utf8proc: U+%04X", (unsigned)c);
        s->n += (size_t)got;
    }
    return PM_OK;
}

/* Stable sort of n marks by combining class: by counting when there are many. */
static pm_status sort_marks(struct segment *s, utf8proc_int32_t *mark, size_t n)
{
    size_t start[MAX_CLASS + 1] = {0};
    if (n <= FEW_MARKS) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t c = mark[i];
            size_t j = i;
            for (; j > 0 && combining_class(mark[j - 1]) > combining_class(c); j--) {
                mark[j] = mark[j - 1];
            }
            mark[j] = c;
        }
        return PM_OK;
    }
    TRY(grow_array(&s->sorted, &s->sorted_capacity, n, sizeof *s->sorted));
    for (size_t i = 0; i < n; i++) {
        start[combining_class(mark[i]) + 1]++;
    }
    for (size_t i = 1; i <= MAX_CLASS; i++) {
        start[i] += start[i - 1];
    }
    for (size_t i = 0; i < n; i++) {
        s->sorted[start[combining_class(mark[i])]++] = mark[i];
    }
    memcpy(mark, s->sorted, n * sizeof *mark);
    return PM_OK;
}

static pm_status sort_segment(struct segment *s)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t first = i;
        while (i < s->n && combining_class(s->c[i]) != 0) {
            i++;
        }
        if (i - first > 1) TRY(sort_marks(s, s->c + first, i - first));
    }
    return PM_OK;
}

static pm_status put_segment(struct text *out, struct segment *s, enum normal_form form,
                             const char *text, size_t n)
{
    TRY(decompose(s, form, text, n));
    TRY(sort_segment(s));
    if (form == NORMAL_C || form == NORMAL_KC) {
        utf8proc_ssize_t left =
            utf8proc_normalize_utf32(s->c, (utf8proc_ssize_t)s->n,
                                     (utf8proc_option_t)(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
        if (left < 0) return fail(PM_ERR_BUG, "utf8proc: %s", utf8proc_errmsg(left));
        s->n = (size_t)left;
    }
    for (size_t i = 0; i < s->n; i++) {
        TRY(text_put_character(out, (uint32_t)s->c[i]));
    }
    return PM_OK;
}

/* Where the segment that starts with an unsettled character ends. */
static const char *segment_end(enum normal_form form, const char *at, const char *end)
{
    while (at < end) {
        const char *next = at;
        if (nature_of(form, utf8_next(&next)) != UNSETTLED) break;
        at = next;
    }
    return at;
}

pm_status normal_form_put(struct text *out, enum normal_form form, const char *text, size_t n)
{
    const char *at = text, *end = text + n;
    const char *copied = text; /* all before it is in out */
    const char *first = text;  /* where a segment would start that has its unsettled at `at` */
    struct segment s = {0};
    pm_status status = PM_OK;
    while (at < end) {
        const char *next = at;
        enum nature nature = nature_of(form, utf8_next(&next));
        if (nature != UNSETTLED) {
            first = nature == SETTLED ? at : next;
            at = next;
            continue;
        }
        next = segment_end(form, next, end);
        TRY_DONE(text_put(out, copied, (size_t)(first - copied)));
        TRY_DONE(put_segment(out, &s, form, first, (size_t)(next - first)));
        copied = first = at = next;
    }
    TRY_DONE(text_put(out, copied, (size_t)(end - copied)));
done:
    free(s.c);
    free(s.sorted);
    return status;
}
