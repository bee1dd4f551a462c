/* added_tokens.c - finding added tokens, leftmost first, of these the longest.
 *
 * Two searches, as in the reference: tokens with normalized = false in the raw text, the others
 * in the normalised pieces that remain, with their contents normalised the same way.
 *
 * A search keeps its patterns sorted. At a place of the text the range of patterns that agree
 * so far is narrowed byte by byte; the first pattern of a range is the one that ends there, if
 * any does. Bytes that start no pattern, nearly all, cost one look at a table. The cost of a
 * place is bounded by the longest pattern of the file.
 *
 * A match that is refused (inside a word, or special in a plain text) is jumped over as a
 * whole: the reference asks its automaton for matches first and refuses them afterwards. For
 * the same reason a token that took the blanks on its right does not keep the next match from
 * starting inside them, unless that one takes blanks on its left and finds none left. */
#include "added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer_json.h"

struct finder {
    const struct added_token **pattern; /* [n] sorted by bytes, each once */
    size_t n;
    size_t first[257]; /* patterns that start with byte b: [first[b], first[b + 1]) */
};

struct added_tokens {
    struct added_token *token; /* [n] in the order of the file */
    size_t n, capacity;
    const struct added_token **by_id, **by_content; /* [n] sorted */
    struct finder raw, normalized;
};

/* Order */

static int compare_bytes(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int order = memcmp(a, b, n_a < n_b ? n_a : n_b);
    return order != 0 ? order : (n_a > n_b) - (n_a < n_b);
}

static int compare_content(const void *left, const void *right)
{
    const struct added_token *a = *(const struct added_token *const *)left;
    const struct added_token *b = *(const struct added_token *const *)right;
    return compare_bytes(a->content, a->n, b->content, b->n);
}

static int compare_pattern(const void *left, const void *right)
{
    const struct added_token *a = *(const struct added_token *const *)left;
    const struct added_token *b = *(const struct added_token *const *)right;
    int order = compare_bytes(a->pattern, a->n_pattern, b->pattern, b->n_pattern);
    return order != 0 ? order : (a->id > b->id) - (a->id < b->id);
}

static int compare_id(const void *left, const void *right)
{
    const struct added_token *a = *(const struct added_token *const *)left;
    const struct added_token *b = *(const struct added_token *const *)right;
    return (a->id > b->id) - (a->id < b->id);
}

/* Searching */

/* The longest pattern at the start of text, NULL when there is none. */
static const struct added_token *longest(const struct finder *f, const char *text, size_t n)
{
    const struct added_token *best = NULL;
    unsigned char byte = (unsigned char)*text;
    size_t low = f->first[byte], high = f->first[byte + 1];
    for (size_t depth = 1; low < high; depth++) {
        size_t from, to;
        if (f->pattern[low]->n_pattern == depth) best = f->pattern[low++];
        if (depth == n) break;
        byte = (unsigned char)text[depth];
        for (from = low, to = high; from < to;) { /* the first that is not below byte */
            size_t middle = (from + to) / 2;
            if ((unsigned char)f->pattern[middle]->pattern[depth] < byte) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        low = from;
        for (to = high; from < to;) { /* the first above byte */
            size_t middle = (from + to) / 2;
            if ((unsigned char)f->pattern[middle]->pattern[depth] <= byte) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        high = from;
    }
    return best;
}

static bool inside_word(const char *text, size_t n, size_t start, size_t end)
{
    const char *after = text + end;
    if (start > 0 && unicode_is_word(utf8_last(text, text + start))) return true;
    return end < n && unicode_is_word(utf8_next(&after));
}

/* Moves *start back over blanks, or on to what is done already. */
static void take_left(const char *text, size_t least, size_t *start)
{
    if (*start < least) *start = least;
    while (*start > least && unicode_is_space(utf8_last(text, text + *start))) {
        do {
            (*start)--;
        } while ((text[*start] & 0xc0) == 0x80);
    }
}

static void take_right(const char *text, size_t n, size_t *end)
{
    while (*end < n) {
        const char *at = text + *end;
        if (!unicode_is_space(utf8_next(&at))) break;
        *end = (size_t)(at - text);
    }
}

pm_status added_tokens_split(const struct added_tokens *a, bool normalized, bool plain,
                             const char *text, size_t n, part_sink sink, void *context)
{
    const struct finder *f = normalized ? &a->normalized : &a->raw;
    size_t done = 0; /* all before it is in parts */
    for (size_t i = 0; f->n > 0 && i < n;) {
        const struct added_token *t = longest(f, text + i, n - i);
        size_t start = i, end;
        if (!t) {
            i++;
            continue;
        }
        i = end = i + t->n_pattern;
        if (plain && t->special) continue;
        if (t->single_word && inside_word(text, n, start, end)) continue;
        if (t->left) take_left(text, done, &start);
        if (t->right) take_right(text, n, &end);
        if (done < start) TRY(sink(context, NULL, done, start));
        if (start < end) TRY(sink(context, t, start, end));
        if (start <= end) done = end; /* inside those blanks it goes back */
    }
    return done < n ? sink(context, NULL, done, n) : PM_OK;
}

/* Reading */

static pm_status read_token(struct added_token *t, struct json_doc *doc, const json *v)
{
    int id;
    if (!json_is_object(v)) return json_fail(doc, v, "an added token");
    TRY(json_need_int(doc, v, "id", 0, MAX_TOKEN_ID, &id));
    TRY(tokenizer_need_bool(doc, v, "single_word", &t->single_word));
    TRY(tokenizer_need_bool(doc, v, "lstrip", &t->left));
    TRY(tokenizer_need_bool(doc, v, "rstrip", &t->right));
    TRY(tokenizer_need_bool(doc, v, "normalized", &t->normalized));
    TRY(tokenizer_need_bool(doc, v, "special", &t->special));
    t->id = id;
    return tokenizer_need_bytes(doc, v, "content", &t->content, &t->n);
}

static pm_status set_pattern(struct added_token *t, const char *name,
                             const struct normalizer *z, struct matcher *m)
{
    struct passage p = {0};
    struct text spare = {0};
    pm_status status;
    TRY_DONE(text_put(&p.text, t->content, t->n));
    if (t->normalized) TRY_DONE(normalizer_run(z, m, &p, &spare));
    if (p.text.n == 0) {
        char shown[JSON_EXCERPT];
        /* The reference would find it between any two characters. */
        status = fail(PM_ERR_UNSUPPORTED, "%s: added token \"%s\" is empty when normalised",
                      name, json_excerpt(shown, t->content, t->n));
        goto done;
    }
    t->n_pattern = p.text.n;
    TRY_DONE(copy_text(&t->pattern, p.text.byte, p.text.n));
done:
    free(p.text.byte);
    free(spare.byte);
    return status;
}

/* Reads all tokens. One that has the content of another replaces it but for the id. */
static pm_status read_tokens(struct added_tokens *a, struct json_doc *doc, const json *list,
                             const struct vocabulary *v)
{
    for (const json *one = json_child(list); one; one = json_next(one)) {
        struct added_token *t;
        int32_t known;
        TRY(grow_array(&a->token, &a->capacity, a->n + 1, sizeof *a->token));
        t = &a->token[a->n];
        *t = (struct added_token){0};
        a->n++;
        TRY(read_token(t, doc, one));
        /* The model knows best which id its tokens have. */
        known = vocabulary_find(v, t->content, t->n);
        if (known >= 0) t->id = known;
        if (t->n == 0) free(a->token[--a->n].content); /* the reference ignores these */
    }
    return PM_OK;
}

static pm_status sort_pointers(struct added_tokens *a, const struct added_token ***out,
                               int (*compare)(const void *, const void *))
{
    TRY(alloc_array(out, a->n, sizeof **out, "added tokens"));
    for (size_t i = 0; i < a->n; i++) {
        (*out)[i] = &a->token[i];
    }
    qsort(*out, a->n, sizeof **out, compare);
    return PM_OK;
}

/* Of tokens with one content the last has the say, with the id of the first. */
static int compare_repeats(const void *left, const void *right)
{
    const struct added_token *a = *(const struct added_token *const *)left;
    const struct added_token *b = *(const struct added_token *const *)right;
    int order = compare_content(left, right);
    return order != 0 ? order : (a > b) - (a < b);
}

static pm_status drop_repeats(struct added_tokens *a)
{
    const struct added_token **sorted;
    size_t n = 0;
    TRY(sort_pointers(a, &sorted, compare_repeats));
    for (size_t i = 0, first = 0; i < a->n; i++) {
        struct added_token *t = &a->token[sorted[i] - a->token];
        if (i > first && compare_content(&sorted[first], &sorted[i]) != 0) first = i;
        t->id = sorted[first]->id;
        if (i + 1 < a->n && compare_content(&sorted[i], &sorted[i + 1]) == 0) {
            free(t->content);
            t->content = NULL;
        }
    }
    free(sorted);
    for (size_t i = 0; i < a->n; i++) {
        if (a->token[i].content) a->token[n++] = a->token[i];
    }
    a->n = n;
    return PM_OK;
}

static pm_status fail_id(struct json_doc *doc, const struct added_token *t, const char *owner,
                         size_t n)
{
    char shown[JSON_EXCERPT], other[JSON_EXCERPT];
    return fail(PM_ERR_FORMAT,
                "%s: added token \"%s\": found id %d, which is \"%s\", wanted its own",
                json_name(doc), json_excerpt(shown, t->content, t->n), t->id,
                json_excerpt(other, owner, n));
}

static pm_status check_ids(const struct added_tokens *a, struct json_doc *doc,
                           const struct vocabulary *v)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct added_token *t = a->by_id[i];
        size_t n;
        const char *owner = vocabulary_token(v, t->id, &n);
        if (owner && (n != t->n || memcmp(owner, t->content, n) != 0)) {
            return fail_id(doc, t, owner, n);
        }
        if (i > 0 && a->by_id[i - 1]->id == t->id) {
            return fail_id(doc, t, a->by_id[i - 1]->content, a->by_id[i - 1]->n);
        }
    }
    return PM_OK;
}

static pm_status build_finder(const struct added_tokens *a, struct finder *f, bool normalized)
{
    size_t n = 0;
    TRY(alloc_array(&f->pattern, a->n, sizeof *f->pattern, "added tokens"));
    for (size_t i = 0; i < a->n; i++) {
        const struct added_token *t = &a->token[i];
        if (t->normalized == normalized) f->pattern[f->n++] = t;
    }
    qsort(f->pattern, f->n, sizeof *f->pattern, compare_pattern);
    for (size_t i = 0; i < f->n; i++) {
        const struct added_token *t = f->pattern[i], *last = n > 0 ? f->pattern[n - 1] : NULL;
        if (last &&
            compare_bytes(last->pattern, last->n_pattern, t->pattern, t->n_pattern) == 0) {
            continue;
        }
        f->pattern[n++] = t;
        f->first[(unsigned char)t->pattern[0] + 1]++;
    }
    f->n = n;
    for (int b = 0; b < 256; b++) {
        f->first[b + 1] += f->first[b];
    }
    return PM_OK;
}

/* A token is left out of decoded text when what it decodes to is the content of a special
 * token: its own, unless the normalizer changes it. */
static void set_skipped(struct added_tokens *a)
{
    for (size_t i = 0; i < a->n; i++) {
        struct added_token *t = &a->token[i];
        const struct added_token *same = added_tokens_find(a, t->pattern, t->n_pattern);
        t->skipped = same && same->special;
    }
}

pm_status added_tokens_parse(struct added_tokens **out, struct json_doc *doc, const json *list,
                             const struct vocabulary *v, const struct normalizer *z,
                             struct matcher *m)
{
    struct added_tokens *a;
    pm_status status;
    if (list && json_is_null(list)) list = NULL;
    if (list && !json_is_array(list)) return json_fail(doc, list, "a list of added tokens");
    TRY(alloc_array(&a, 1, sizeof *a, "added tokens"));
    TRY_DONE(read_tokens(a, doc, list, v));
    TRY_DONE(drop_repeats(a));
    for (size_t i = 0; i < a->n; i++) {
        TRY_DONE(set_pattern(&a->token[i], json_name(doc), z, m));
    }
    TRY_DONE(sort_pointers(a, &a->by_id, compare_id));
    TRY_DONE(sort_pointers(a, &a->by_content, compare_content));
    TRY_DONE(check_ids(a, doc, v));
    TRY_DONE(build_finder(a, &a->raw, false));
    TRY_DONE(build_finder(a, &a->normalized, true));
    set_skipped(a);
    *out = a;
    a = NULL;
done:
    added_tokens_free(a);
    return status;
}

void added_tokens_free(struct added_tokens *a)
{
    if (!a) return;
    for (size_t i = 0; i < a->n; i++) {
        free(a->token[i].content);
        free(a->token[i].pattern);
    }
    free(a->token);
    free(a->by_id);
    free(a->by_content);
    free(a->raw.pattern);
    free(a->normalized.pattern);
    free(a);
}

size_t added_tokens_count(const struct added_tokens *a)
{
    return a->n;
}

const struct added_token *added_tokens_get(const struct added_tokens *a, size_t i)
{
    return &a->token[i];
}

const struct added_token *added_tokens_find(const struct added_tokens *a, const char *content,
                                            size_t n)
{
    struct added_token wanted = {.n = n};
    const struct added_token *key = &wanted;
    const struct added_token **found;
    memcpy(&wanted.content, &content, sizeof content); /* only read */
    found = bsearch(&key, a->by_content, a->n, sizeof *a->by_content, compare_content);
    return found ? *found : NULL;
}

const struct added_token *added_tokens_by_id(const struct added_tokens *a, int32_t id)
{
    struct added_token wanted = {.id = id};
    const struct added_token *key = &wanted;
    const struct added_token **found =
        bsearch(&key, a->by_id, a->n, sizeof *a->by_id, compare_id);
    return found ? *found : NULL;
}
