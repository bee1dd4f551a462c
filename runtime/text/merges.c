/* merges.c - reading the list of merges into a hash table.
 *
 * The list may spell a merge as one string with a blank or as a pair; a file uses one way. The
 * rank is the place in the list. A pair that comes twice keeps the later rank, as it does in
 * the reference, where the list fills a map from front to back. */
#include "merges.h"

#include <stdlib.h>
#include <string.h>

#include "unicode.h"

struct half {
    const char *text;
    size_t n;
};

static pm_status split_string(struct json_doc *doc, const json *v, struct half *left,
                              struct half *right)
{
    const char *text = json_text(v);
    size_t n = json_text_bytes(v);
    const char *blank = memchr(text, ' ', n);
    if (!blank || memchr(blank + 1, ' ', n - (size_t)(blank + 1 - text))) {
        return json_fail(doc, v, "two tokens with one blank between them");
    }
    *left = (struct half){text, (size_t)(blank - text)};
    *right = (struct half){blank + 1, n - left->n - 1};
    return PM_OK;
}

static pm_status split_pair(struct json_doc *doc, const json *v, struct half *left,
                            struct half *right)
{
    const json *a = json_child(v), *b = json_next(a);
    if (!json_is_array(v) || !json_is_string(a) || !json_is_string(b) || json_next(b)) {
        return json_fail(doc, v, "a pair of tokens, as the first merge is written");
    }
    *left = (struct half){json_text(a), json_text_bytes(a)};
    *right = (struct half){json_text(b), json_text_bytes(b)};
    return PM_OK;
}

static pm_status add(struct merges *m, struct json_doc *doc, const json *v,
                     const struct vocabulary *vocabulary, const struct half *left,
                     const struct half *right, size_t n_prefix, struct text *joined)
{
    int32_t a = vocabulary_find(vocabulary, left->text, left->n);
    int32_t b = vocabulary_find(vocabulary, right->text, right->n);
    int32_t result;
    size_t i;
    if (a < 0 || b < 0) return json_fail(doc, v, "tokens of the vocabulary");
    if (right->n < n_prefix) return json_fail(doc, v, "a right part with the prefix");
    joined->n = 0;
    TRY(text_put(joined, left->text, left->n));
    TRY(text_put(joined, right->text + n_prefix, right->n - n_prefix));
    result = vocabulary_find(vocabulary, joined->byte, joined->n);
    if (result < 0) return json_fail(doc, v, "a merge whose result is in the vocabulary");
    i = merges_slot(m, a, b);
    while (m->slot[i].rank != NO_MERGE && (m->slot[i].left != a || m->slot[i].right != b)) {
        i = (i + 1) & m->mask;
    }
    m->slot[i] = (struct merge){a, b, (uint32_t)m->n};
    m->result[m->n++] = result;
    return PM_OK;
}

static bool is_version(const json *v)
{
    return json_text_bytes(v) >= 8 && memcmp(json_text(v), "#version", 8) == 0;
}

static pm_status fill(struct merges *m, struct json_doc *doc, const json *v,
                      const struct vocabulary *vocabulary, size_t n_prefix)
{
    bool strings = json_is_string(json_child(v));
    struct text joined = {0};
    pm_status status = PM_OK;
    for (const json *one = json_child(v); one; one = json_next(one)) {
        struct half left, right;
        if (strings && !json_is_string(one)) {
            status = json_fail(doc, one, "a string, as the first merge is written");
            goto done;
        }
        if (strings && is_version(one)) continue;
        TRY_DONE((strings ? split_string : split_pair)(doc, one, &left, &right));
        TRY_DONE(add(m, doc, one, vocabulary, &left, &right, n_prefix, &joined));
    }
done:
    free(joined.byte);
    return status;
}

pm_status merges_parse(struct merges *m, struct json_doc *doc, const json *v,
                       const struct vocabulary *vocabulary, size_t n_prefix)
{
    size_t n = 0, n_slot = 16;
    if (!json_is_array(v)) return json_fail(doc, v, "a list of merges");
    for (const json *one = json_child(v); one; one = json_next(one)) {
        n++;
    }
    while (n_slot < 2 * n) {
        n_slot *= 2;
    }
    m->mask = n_slot - 1;
    TRY(alloc_array(&m->slot, n_slot, sizeof *m->slot, "merges"));
    TRY(alloc_array(&m->result, n, sizeof *m->result, "merges"));
    for (size_t i = 0; i < n_slot; i++) {
        m->slot[i].rank = NO_MERGE;
    }
    return fill(m, doc, v, vocabulary, n_prefix);
}

void merges_clear(struct merges *m)
{
    free(m->slot);
    free(m->result);
    *m = (struct merges){0};
}
