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
    /* For texts of two origins: the raw ones, and control tokens that are normalised, by their
     * contents. What a normalizer makes of a text has no origin any more, so these must be
     * found before it runs. */
    struct finder marked;
    struct added_token *by_raw_content; /* [n_by_raw_content] views of such control tokens */
    size_t n_by_raw_content;
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

static bool is_text(const struct added_token *t, enum added_mode mode)
{
    return mode == ADDED_NO_SPECIAL ? t->special : mode == ADDED_NO_CONTROL && t->control;
}

/* Where the parts of a text go. */
struct parts {
    const char *text; /* [n] */
    size_t n, done;   /* all before `done` is given away */
    part_sink sink;
    void *context;
};

/* A token at [start, end), whose blanks it may take. */
static pm_status take_token(struct parts *p, const struct added_token *t, size_t start,
                            size_t end)
{
    if (t->left) take_left(p->text, p->done, &start);
    if (t->right) take_right(p->text, p->n, &end);
    if (p->done < start) TRY(p->sink(p->context, NULL, p->done, start));
    if (start < end) TRY(p->sink(p->context, t, start, end));
    if (start <= end) p->done = end; /* inside those blanks it goes back */
    return PM_OK;
}

static pm_status take_rest(struct parts *p)
{
    return p->done < p->n ? p->sink(p->context, NULL, p->done, p->n) : PM_OK;
}

pm_status added_tokens_split(const struct added_tokens *a, bool normalized,
                             enum added_mode mode, const char *text, size_t n, part_sink sink,
                             void *context)
{
    const struct finder *f = normalized ? &a->normalized : &a->raw;
    struct parts p = {text, n, 0, sink, context};
    for (size_t i = 0; f->n > 0 && i < n;) {
        const struct added_token *t = longest(f, text + i, n - i);
        size_t start = i;
        if (!t) {
            i++;
            continue;
        }
        i += t->n_pattern;
        if (is_text(t, mode)) continue;
        if (t->single_word && inside_word(text, n, start, i)) continue;
        TRY(take_token(&p, t, start, i));
    }
    return take_rest(&p);
}

/* In bytes of the template a match may not reach into the request's: what is left of it there
 * is looked for anew, shorter. In bytes of the request a control token is stepped over by one
 * byte only, so that it cannot hide a token of the template that starts inside it. */
pm_status added_tokens_split_marked(const struct added_tokens *a, const struct marked_text *m,
                                    part_sink sink, void *context)
{
    const struct finder *f = &a->marked;
    struct parts p = {m->text, m->n, 0, sink, context};
    const struct text_span *span = m->span;
    for (size_t i = 0; f->n > 0 && i < m->n;) {
        const struct added_token *t;
        size_t start = i;
        while (span->end <= i) {
            span++;
        }
        t = longest(f, m->text + i, m->n - i);
        if (t && t->control && !span->request && t->n_pattern > span->end - i) {
            t = longest(f, m->text + i, span->end - i);
        }
        if (!t || (t->control && span->request)) {
            i++;
            continue;
        }
        i += t->n_pattern;
        if (t->single_word && inside_word(m->text, m->n, start, i)) continue;
        TRY(take_token(&p, t, start, i));
    }
    return take_rest(&p);
}

/* Reading */

/* Files declare many markers (<think>, <tool_call>) as no special tokens, so that decoding
 * keeps them; a model obeys them all the same. */
static bool is_marker(const char *content, size_t n)
{
    return n > 2 && ((content[0] == '<' && content[n - 1] == '>') ||
                     (content[0] == '[' && content[n - 1] == ']'));
}

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
    TRY(tokenizer_need_bytes(doc, v, "content", &t->content, &t->n));
    t->control = t->special || is_marker(t->content, t->n);
    return PM_OK;
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

/* Puts the patterns that were collected in order. */
static void sort_finder(struct finder *f)
{
    size_t n = 0;
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
}

static pm_status build_finder(const struct added_tokens *a, struct finder *f, bool normalized)
{
    TRY(alloc_array(&f->pattern, a->n, sizeof *f->pattern, "added tokens"));
    for (size_t i = 0; i < a->n; i++) {
        const struct added_token *t = &a->token[i];
        if (t->normalized == normalized) f->pattern[f->n++] = t;
    }
    sort_finder(f);
    return PM_OK;
}

static pm_status build_marked_finder(struct added_tokens *a)
{
    struct finder *f = &a->marked;
    TRY(alloc_array(&f->pattern, a->n, sizeof *f->pattern, "added tokens"));
    TRY(alloc_array(&a->by_raw_content, a->n, sizeof *a->by_raw_content, "added tokens"));
    for (size_t i = 0; i < a->n; i++) {
        const struct added_token *t = &a->token[i];
        if (!t->normalized) {
            f->pattern[f->n++] = t;
        } else if (t->control) {
            struct added_token *view = &a->by_raw_content[a->n_by_raw_content++];
            *view = *t;
            view->pattern = t->content;
            view->n_pattern = t->n;
            f->pattern[f->n++] = view;
        }
    }
    sort_finder(f);
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
    TRY_DONE(build_marked_finder(a));
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
    free(a->marked.pattern);
    free(a->by_raw_content);
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
