/* bpe.c - byte pair encoding of one word.
 *
 * A word starts as one symbol for each character. The pair of neighbours with the best rank (of
 * equals the leftmost) becomes one symbol, until no pair is in the list of merges. Pairs wait
 * in a heap of 64-bit keys, rank above position, so that the best is one comparison away. A
 * merge makes up to two new pairs and leaves old ones in the heap; these are recognised when
 * they come up, because the symbols they spoke of are gone or merge into something else. n
 * symbols, at most 3n pairs: O(n log n) for any word, and words may be as long as the text.
 *
 * Two shortcuts that change no id:
 *
 *   A cache of short words, direct-mapped, one for each thread. Natural text repeats itself.
 *   Without a pre-tokenizer the whole text is one word. When no merge makes a token that has
 *   the mark of a blank (U+2581) behind another character, no merge crosses a place where a
 *   mark follows another character, and the word is cut there.
 *
 * Unknown characters follow the reference to the letter: byte tokens when all are there, else
 * the unknown token, fused or not; one that waits to be fused is written when the next known
 * character comes, so byte tokens can overtake it. */
#include "bpe.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "merges.h"
#include "tokenizer_json.h"
#include "unicode.h"

enum {
    CACHE_WORDS = 1 << 14, /* of 64 bytes: 1 MiB */
    CACHE_BYTES = 21,
    CACHE_IDS = 10,
    MAX_WORD_BYTES = 1 << 30 /* positions are 32 bits */
};

static const char BLANK_MARK[] = "\xe2\x96\x81";
enum { BLANK_MARK_BYTES = 3 };

struct string {
    char *text;
    size_t n;
};

struct bpe {
    struct vocabulary *vocabulary;
    struct merges merges;
    struct string prefix, suffix, unknown; /* text NULL: absent */
    int32_t unknown_id;                    /* -1: not in the vocabulary */
    int32_t byte_id[256];                  /* of a byte as a character of the alphabet, or -1 */
    int32_t fallback_id[256];              /* of <0x00> to <0xFF>, or -1 */
    uint8_t *special;                      /* a bit for each id */
    bool byte_level, byte_fallback, fuse_unknown, ignore_merges;
    bool cut_at_marks;
};

struct symbol {
    int32_t id; /* -1: merged into the one before it */
    int32_t previous, next;
};

struct cached {
    uint8_t n, n_id; /* n 0: free */
    bool plain;
    char text[CACHE_BYTES];
    int32_t id[CACHE_IDS];
};

struct bpe_words {
    struct cached *cache; /* [CACHE_WORDS] */
    struct symbol *symbol;
    size_t n_symbol, symbol_capacity;
    uint64_t *heap;
    size_t n_heap, heap_capacity;
    struct text spelled; /* scratch of one character or of a word in the byte-level alphabet */
};

pm_status id_list_put(struct id_list *list, const int32_t *id, size_t n)
{
    TRY(grow_array(&list->id, &list->capacity, list->n + n, sizeof *list->id));
    if (n > 0) memcpy(list->id + list->n, id, n * sizeof *id);
    list->n += n;
    return PM_OK;
}

/* The heap: smallest key first */

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t key = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (key <= heap[child]) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = key;
}

static pm_status heap_push(struct bpe_words *w, uint64_t key)
{
    size_t i = w->n_heap;
    TRY(grow_array(&w->heap, &w->heap_capacity, i + 1, sizeof *w->heap));
    w->n_heap++;
    while (i > 0 && key < w->heap[(i - 1) / 2]) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = key;
    return PM_OK;
}

static uint64_t heap_pop(struct bpe_words *w)
{
    uint64_t key = w->heap[0];
    w->heap[0] = w->heap[--w->n_heap];
    if (w->n_heap > 0) sift_down(w->heap, w->n_heap, 0);
    return key;
}

/* Merging */

static bool is_special(const struct bpe *b, int32_t id)
{
    return b->special[id / 8] >> id % 8 & 1;
}

/* The key of the pair that starts at `position`, UINT64_MAX when it does not merge. */
static uint64_t pair_key(const struct bpe *b, const struct bpe_words *w, int32_t position,
                         bool plain)
{
    const struct symbol *left = &w->symbol[position];
    uint32_t rank = merges_find(&b->merges, left->id, w->symbol[left->next].id);
    if (rank == NO_MERGE || (plain && is_special(b, b->merges.result[rank]))) return UINT64_MAX;
    return (uint64_t)rank << 32 | (uint32_t)position;
}

static pm_status push_pair(const struct bpe *b, struct bpe_words *w, int32_t position,
                           bool plain)
{
    uint64_t key = pair_key(b, w, position, plain);
    return key == UINT64_MAX ? PM_OK : heap_push(w, key);
}

static pm_status fill_heap(const struct bpe *b, struct bpe_words *w, bool plain)
{
    TRY(grow_array(&w->heap, &w->heap_capacity, w->n_symbol, sizeof *w->heap));
    w->n_heap = 0;
    for (size_t i = 0; i + 1 < w->n_symbol; i++) {
        uint64_t key = pair_key(b, w, (int32_t)i, plain);
        if (key != UINT64_MAX) w->heap[w->n_heap++] = key;
    }
    for (size_t i = w->n_heap / 2; i-- > 0;) {
        sift_down(w->heap, w->n_heap, i);
    }
    return PM_OK;
}

static pm_status merge_all(const struct bpe *b, struct bpe_words *w, bool plain)
{
    const struct merges *m = &b->merges;
    TRY(fill_heap(b, w, plain));
    while (w->n_heap > 0) {
        uint64_t key = heap_pop(w);
        int32_t position = (int32_t)(uint32_t)key;
        struct symbol *left = &w->symbol[position], *right;
        int32_t result = m->result[key >> 32];
        uint32_t now;
        if (left->id < 0 || left->next < 0) continue;
        right = &w->symbol[left->next];
        /* The pair may be another one by now. */
        now = merges_find(m, left->id, right->id);
        if (now == NO_MERGE || m->result[now] != result) continue;
        left->id = result;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) {
            w->symbol[left->next].previous = position;
            TRY(push_pair(b, w, position, plain));
        }
        if (left->previous >= 0) TRY(push_pair(b, w, left->previous, plain));
    }
    return PM_OK;
}

/* Characters to symbols */

static pm_status add_symbol(struct bpe_words *w, int32_t id)
{
    int32_t i = (int32_t)w->n_symbol;
    TRY(grow_array(&w->symbol, &w->symbol_capacity, w->n_symbol + 1, sizeof *w->symbol));
    if (i > 0) w->symbol[i - 1].next = i;
    w->symbol[i] = (struct symbol){id, i - 1, -1};
    w->n_symbol++;
    return PM_OK;
}

/* Adds the byte tokens of text when there is one for each byte; else *done = false. */
static pm_status add_bytes(const struct bpe *b, struct bpe_words *w, const struct text *text,
                           bool *done)
{
    *done = false;
    for (size_t i = 0; i < text->n; i++) {
        if (b->fallback_id[(unsigned char)text->byte[i]] < 0) return PM_OK;
    }
    for (size_t i = 0; i < text->n; i++) {
        TRY(add_symbol(w, b->fallback_id[(unsigned char)text->byte[i]]));
    }
    *done = true;
    return PM_OK;
}

/* Adds the character in w->spelled, which is not a token. */
static pm_status add_unknown(const struct bpe *b, struct bpe_words *w, bool *waits)
{
    if (b->byte_fallback) {
        bool done;
        TRY(add_bytes(b, w, &w->spelled, &done));
        if (done) return PM_OK;
    }
    if (!b->unknown.text) return PM_OK; /* without an unknown token it is dropped */
    if (b->unknown_id < 0) {
        char shown[JSON_EXCERPT];
        return fail(PM_ERR_FORMAT, "the unknown token \"%s\" is not in the vocabulary",
                    json_excerpt(shown, b->unknown.text, b->unknown.n));
    }
    if (*waits && !b->fuse_unknown) TRY(add_symbol(w, b->unknown_id));
    *waits = true;
    return PM_OK;
}

/* Adds the character of n bytes at text, with the affixes of its place. */
static pm_status add_character(const struct bpe *b, struct bpe_words *w, const char *text,
                               size_t n, bool first, bool last, bool *waits)
{
    struct text *s = &w->spelled;
    int32_t id = -1;
    bool affixed = (!first && b->prefix.n > 0) || (last && b->suffix.n > 0);
    if (b->byte_level && !affixed) id = b->byte_id[(unsigned char)*text];
    if (id < 0) {
        s->n = 0;
        if (!first && b->prefix.n > 0) TRY(text_put(s, b->prefix.text, b->prefix.n));
        TRY(b->byte_level ? byte_level_put(s, text, n) : text_put(s, text, n));
        if (last && b->suffix.n > 0) TRY(text_put(s, b->suffix.text, b->suffix.n));
        id = vocabulary_find(b->vocabulary, s->byte, s->n);
    }
    if (id < 0) return add_unknown(b, w, waits);
    if (*waits) TRY(add_symbol(w, b->unknown_id));
    *waits = false;
    return add_symbol(w, id);
}

static pm_status encode_part(const struct bpe *b, struct bpe_words *w, const char *text,
                             size_t n, bool plain, struct id_list *out)
{
    bool waits = false;
    w->n_symbol = 0;
    for (size_t i = 0; i < n;) {
        size_t bytes = b->byte_level ? 1 : utf8_bytes(text[i]);
        TRY(add_character(b, w, text + i, bytes, i == 0, i + bytes == n, &waits));
        i += bytes;
    }
    if (waits) TRY(add_symbol(w, b->unknown_id));
    if (w->n_symbol == 0) return PM_OK;
    TRY(merge_all(b, w, plain));
    for (int32_t i = 0; i >= 0; i = w->symbol[i].next) {
        TRY(id_list_put(out, &w->symbol[i].id, 1));
    }
    return PM_OK;
}

/* ignore_merges: a word that is a token is that token. */
static pm_status find_word(const struct bpe *b, struct bpe_words *w, const char *text, size_t n,
                           bool plain, int32_t *id)
{
    if (b->byte_level) {
        w->spelled.n = 0;
        TRY(byte_level_put(&w->spelled, text, n));
        text = w->spelled.byte;
        n = w->spelled.n;
    }
    *id = vocabulary_find(b->vocabulary, text, n);
    if (*id >= 0 && plain && is_special(b, *id)) *id = -1;
    return PM_OK;
}

static pm_status encode_new(const struct bpe *b, struct bpe_words *w, const char *text,
                            size_t n, bool plain, struct id_list *out)
{
    if (b->ignore_merges) {
        int32_t id;
        TRY(find_word(b, w, text, n, plain, &id));
        if (id >= 0) return id_list_put(out, &id, 1);
    }
    return encode_part(b, w, text, n, plain, out);
}

static pm_status encode_cached(const struct bpe *b, struct bpe_words *w, const char *text,
                               size_t n, bool plain, struct id_list *out)
{
    struct cached *c;
    size_t before = out->n;
    if (n > CACHE_BYTES) return encode_new(b, w, text, n, plain, out);
    c = &w->cache[hash_bytes(text, n) & (CACHE_WORDS - 1)];
    if (c->n == n && c->plain == plain && memcmp(c->text, text, n) == 0) {
        return id_list_put(out, c->id, c->n_id);
    }
    TRY(encode_new(b, w, text, n, plain, out));
    if (out->n - before > CACHE_IDS) return PM_OK;
    c->n = (uint8_t)n;
    c->n_id = (uint8_t)(out->n - before);
    c->plain = plain;
    memcpy(c->text, text, n);
    if (c->n_id > 0) memcpy(c->id, out->id + before, c->n_id * sizeof *c->id);
    return PM_OK;
}

static bool is_mark(const char *text, size_t n)
{
    return n >= BLANK_MARK_BYTES && memcmp(text, BLANK_MARK, BLANK_MARK_BYTES) == 0;
}

/* Bytes before the first mark that follows another character. */
static size_t bytes_to_cut(const char *text, size_t n)
{
    size_t i = 0;
    while (is_mark(text + i, n - i)) {
        i += BLANK_MARK_BYTES;
    }
    while (i < n) {
        const char *next = memchr(text + i, BLANK_MARK[0], n - i);
        if (!next) return n;
        i = (size_t)(next - text);
        if (is_mark(next, n - i)) return i;
        i++;
    }
    return n;
}

pm_status bpe_encode(const struct bpe *b, struct bpe_words *words, const char *text, size_t n,
                     bool plain, struct id_list *out)
{
    size_t bytes = n;
    if (n > MAX_WORD_BYTES) return fail(PM_ERR_TOO_LONG, "a word of %zu bytes", n);
    for (; n > 0; text += bytes, n -= bytes) {
        if (b->cut_at_marks) bytes = bytes_to_cut(text, n);
        TRY(encode_cached(b, words, text, bytes, plain, out));
    }
    return PM_OK;
}

pm_status bpe_words_new(struct bpe_words **out)
{
    struct bpe_words *w;
    pm_status status;
    TRY(alloc_array(&w, 1, sizeof *w, "words"));
    assert(sizeof(struct cached) == 64);
    status = alloc_array(&w->cache, CACHE_WORDS, sizeof *w->cache, "words");
    if (status != PM_OK) {
        bpe_words_free(w);
        return status;
    }
    *out = w;
    return PM_OK;
}

void bpe_words_free(struct bpe_words *w)
{
    if (!w) return;
    free(w->cache);
    free(w->symbol);
    free(w->heap);
    free(w->spelled.byte);
    free(w);
}

/* Reading */

static pm_status read_string(struct string *s, struct json_doc *doc, const json *model,
                             const char *key)
{
    const char *text = NULL;
    TRY(json_want_text(doc, model, key, &text));
    if (!text) return PM_OK;
    s->n = json_text_bytes(json_get(model, key));
    return copy_text(&s->text, text, s->n);
}

static void find_byte_tokens(struct bpe *b)
{
    for (int i = 0; i < 256; i++) {
        char name[8];
        size_t n = utf8_write(name, byte_level_character((unsigned char)i));
        b->byte_id[i] = vocabulary_find(b->vocabulary, name, n);
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        b->fallback_id[i] = vocabulary_find(b->vocabulary, name, 6);
    }
}

/* Whether text has a mark behind another character. */
static bool has_inner_mark(const char *text, size_t n)
{
    return n > 0 && bytes_to_cut(text, n) < n;
}

/* See the head of the file. The unknown token may stand where another character was. */
static bool can_cut_at_marks(const struct bpe *b)
{
    size_t n;
    if (b->byte_level || b->ignore_merges || b->prefix.n > 0 || b->suffix.n > 0) return false;
    if (vocabulary_find(b->vocabulary, BLANK_MARK, BLANK_MARK_BYTES) < 0) return false;
    if (b->unknown.text && strstr(b->unknown.text, BLANK_MARK)) return false;
    for (size_t i = 0; i < b->merges.n; i++) {
        const char *text = vocabulary_token(b->vocabulary, b->merges.result[i], &n);
        if (has_inner_mark(text, n)) return false;
    }
    return true;
}

static pm_status read_model(struct bpe *b, struct json_doc *doc, const json *model)
{
    const char *type = "BPE"; /* old files do not say it */
    const json *vocabulary = json_get(model, "vocab"), *merges = json_get(model, "merges");
    if (!json_is_object(model)) return json_fail(doc, model, "a model");
    TRY(json_want_text(doc, model, "type", &type));
    if (strcmp(type, "BPE") != 0) return tokenizer_fail_type(doc, "model", type);
    if (!json_is_object(vocabulary) || !merges) {
        return json_fail(doc, model, "a model with vocab and merges");
    }
    TRY(json_want_bool(doc, model, "byte_fallback", &b->byte_fallback));
    TRY(json_want_bool(doc, model, "fuse_unk", &b->fuse_unknown));
    TRY(json_want_bool(doc, model, "ignore_merges", &b->ignore_merges));
    TRY(read_string(&b->prefix, doc, model, "continuing_subword_prefix"));
    TRY(read_string(&b->suffix, doc, model, "end_of_word_suffix"));
    TRY(read_string(&b->unknown, doc, model, "unk_token"));
    TRY(vocabulary_parse(&b->vocabulary, doc, vocabulary));
    return merges_parse(&b->merges, doc, merges, b->vocabulary, b->prefix.n);
}

pm_status bpe_parse(struct bpe **out, struct json_doc *doc, const json *model, bool byte_level)
{
    struct bpe *b;
    pm_status status;
    TRY(alloc_array(&b, 1, sizeof *b, "model"));
    b->byte_level = byte_level;
    TRY_DONE(read_model(b, doc, model));
    b->special = calloc((size_t)vocabulary_size(b->vocabulary) / 8 + 1, 1);
    if (!b->special) {
        status = fail(PM_ERR_NOMEM, "%s: no memory for the model", json_name(doc));
        goto done;
    }
    b->unknown_id = -1;
    if (b->unknown.text) {
        b->unknown_id = vocabulary_find(b->vocabulary, b->unknown.text, b->unknown.n);
    }
    find_byte_tokens(b);
    b->cut_at_marks = can_cut_at_marks(b);
    *out = b;
    b = NULL;
done:
    bpe_free(b);
    return status;
}

void bpe_free(struct bpe *b)
{
    if (!b) return;
    vocabulary_free(b->vocabulary);
    merges_clear(&b->merges);
    free(b->prefix.text);
    free(b->suffix.text);
    free(b->unknown.text);
    free(b->special);
    free(b);
}

const struct vocabulary *bpe_vocabulary(const struct bpe *b)
{
    return b->vocabulary;
}

void bpe_mark_special(struct bpe *b, int32_t id)
{
    if (id < vocabulary_size(b->vocabulary)) b->special[id / 8] |= (uint8_t)(1 << id % 8);
}
