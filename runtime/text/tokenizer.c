/* tokenizer.c - tokenizer.json from end to end.
 *
 * A text goes through the parts of the file in this order:
 *
 *   repair          ill-formed UTF-8 becomes U+FFFD; all that follows may rely on UTF-8
 *   added tokens    those that are looked for in the raw text cut it into sections
 *   normalizer      each section on its own
 *   added tokens    those that are looked for in normalised text cut the sections again
 *   pre-tokenizer   each part becomes words
 *   model           each word becomes ids
 *   post-processor  ids in front and behind
 *
 * Truncation and padding in the file are not for us: the caller decides about lengths.
 *
 * A tokenizer is shared by threads and constant, but searching and merging need memory. Each
 * encode takes a workspace from a small pool of idle ones and puts it back, by one atomic
 * exchange each, so that threads never wait for one another. The pool also keeps the caches of
 * words warm. Whether a workspace was there or is new changes no id. */
#include "tokenizer.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer_json.h"
#include "tokenizer_parts.h"

enum {
    MAX_FILE_BYTES = 256 << 20,
    MAX_TEXT_BYTES = 1 << 30,
    MAX_IDLE = 32,
    KEPT_BYTES = 1 << 20
};

struct workspace {
    struct matcher *matcher;
    struct pretokenization *pretokenization;
    struct bpe_words *words;
    struct passage passage;
    struct text spare;
};

struct workspaces {
    _Atomic(struct workspace *) idle[MAX_IDLE];
};

static void workspace_free(struct workspace *w)
{
    if (!w) return;
    matcher_free(w->matcher);
    pretokenization_free(w->pretokenization);
    bpe_words_free(w->words);
    free(w->passage.text.byte);
    free(w->spare.byte);
    free(w);
}

static pm_status workspace_take(struct workspaces *pool, struct workspace **out)
{
    struct workspace *w;
    pm_status status;
    for (int i = 0; i < MAX_IDLE; i++) {
        w = atomic_exchange(&pool->idle[i], NULL);
        if (w) {
            *out = w;
            return PM_OK;
        }
    }
    TRY(alloc_array(&w, 1, sizeof *w, "workspace"));
    TRY_DONE(matcher_new(&w->matcher));
    TRY_DONE(pretokenization_new(&w->pretokenization));
    TRY_DONE(bpe_words_new(&w->words));
    *out = w;
    w = NULL;
done:
    workspace_free(w);
    return status;
}

static void workspace_give(struct workspaces *pool, struct workspace *w)
{
    /* One giant text must not keep its memory for ever: all buffers grow with the text. */
    bool small = w->passage.text.capacity <= KEPT_BYTES && w->spare.capacity <= KEPT_BYTES;
    for (int i = 0; small && i < MAX_IDLE; i++) {
        struct workspace *none = NULL;
        if (atomic_compare_exchange_strong(&pool->idle[i], &none, w)) return;
    }
    workspace_free(w);
}

/* Opening */

static pm_status parse_parts(struct tokenizer *t, struct json_doc *doc)
{
    const json *root = json_root(doc);
    const char *version = "1.0";
    struct workspace *w = NULL;
    pm_status status;
    if (!json_is_object(root)) return json_fail(doc, root, "an object");
    TRY(json_want_text(doc, root, "version", &version));
    if (strcmp(version, "1.0") != 0) return tokenizer_fail_type(doc, "version", version);
    if (!json_get(root, "model")) return json_fail(doc, root, "a tokenizer with a model");
    TRY(normalizer_parse(&t->normalizer, doc, json_get(root, "normalizer")));
    TRY(pretokenizer_parse(&t->pretokenizer, doc, json_get(root, "pre_tokenizer")));
    TRY(bpe_parse(&t->bpe, doc, json_get(root, "model"),
                  pretokenizer_is_byte_level(t->pretokenizer)));
    TRY(postprocessor_parse(&t->postprocessor, doc, json_get(root, "post_processor")));
    TRY(decoder_parse(&t->decoder, doc, json_get(root, "decoder")));
    TRY(workspace_take(t->workspaces, &w));
    status = added_tokens_parse(&t->added, doc, json_get(root, "added_tokens"),
                                bpe_vocabulary(t->bpe), t->normalizer, w->matcher);
    workspace_give(t->workspaces, w);
    return status;
}

static void note_added_tokens(struct tokenizer *t)
{
    t->size = vocabulary_size(bpe_vocabulary(t->bpe));
    for (size_t i = 0; i < added_tokens_count(t->added); i++) {
        const struct added_token *token = added_tokens_get(t->added, i);
        if (token->special) bpe_mark_special(t->bpe, token->id);
        if (token->id >= t->size) t->size = token->id + 1;
    }
}

static pm_status parse_doc(struct tokenizer **out, struct json_doc *doc)
{
    struct tokenizer *t;
    pm_status status;
    TRY(alloc_array(&t, 1, sizeof *t, "tokenizer"));
    TRY_DONE(alloc_array(&t->workspaces, 1, sizeof *t->workspaces, "tokenizer"));
    TRY_DONE(parse_parts(t, doc));
    note_added_tokens(t);
    *out = t;
    t = NULL;
done:
    tokenizer_close(t);
    return status;
}

pm_status tokenizer_open(struct tokenizer **out, const char *path)
{
    struct json_doc *doc;
    pm_status status;
    TRY(json_load(&doc, path, MAX_FILE_BYTES));
    status = parse_doc(out, doc);
    json_free(doc);
    return status;
}

pm_status tokenizer_parse(struct tokenizer **out, const char *name, const char *text, size_t n)
{
    struct json_doc *doc;
    pm_status status;
    TRY(json_parse(&doc, name, text, n));
    status = parse_doc(out, doc);
    json_free(doc);
    return status;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    for (int i = 0; t->workspaces && i < MAX_IDLE; i++) {
        workspace_free(atomic_load(&t->workspaces->idle[i]));
    }
    free(t->workspaces);
    normalizer_free(t->normalizer);
    added_tokens_free(t->added);
    pretokenizer_free(t->pretokenizer);
    bpe_free(t->bpe);
    postprocessor_clear(&t->postprocessor);
    decoder_free(t->decoder);
    free(t);
}

/* Asking */

int tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    const struct added_token *added = added_tokens_find(t->added, token, n);
    return added ? added->id : vocabulary_find(bpe_vocabulary(t->bpe), token, n);
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id)
{
    const struct added_token *added = added_tokens_by_id(t->added, id);
    size_t n;
    return added ? added->content : vocabulary_token(bpe_vocabulary(t->bpe), id, &n);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    const struct added_token *added = added_tokens_by_id(t->added, id);
    return added && added->special;
}

/* Encoding */

struct encoding {
    const struct tokenizer *t;
    struct workspace *w;
    const char *text; /* of the search in progress */
    size_t head;      /* bytes of its start that come from the first character of all */
    enum added_mode mode;
    struct id_list ids;
};

static pm_status take_word(void *context, const char *text, size_t n)
{
    struct encoding *e = context;
    return bpe_encode(e->t->bpe, e->w->words, text, n, e->mode != ADDED_ALL, &e->ids);
}

/* A part of a normalised section. */
static pm_status take_part(void *context, const struct added_token *token, size_t start,
                           size_t end)
{
    struct encoding *e = context;
    const struct passage *p = &e->w->passage;
    if (token) return id_list_put(&e->ids, &token->id, 1);
    return pretokenizer_run(e->t->pretokenizer, e->w->pretokenization, e->w->matcher,
                            p->text.byte + start, end - start,
                            p->head > start ? p->head - start : 0, take_word, e);
}

/* A section of the raw text. */
static pm_status take_section(void *context, const struct added_token *token, size_t start,
                              size_t end)
{
    struct encoding *e = context;
    struct passage *p = &e->w->passage;
    if (token) return id_list_put(&e->ids, &token->id, 1);
    p->text.n = 0;
    TRY(text_put(&p->text, e->text + start, end - start));
    p->head = start == 0 ? utf8_bytes(*e->text) : 0;
    TRY(normalizer_run(e->t->normalizer, e->w->matcher, p, &e->w->spare));
    return added_tokens_split(e->t->added, true, e->mode, p->text.byte, p->text.n, take_part,
                              e);
}

static pm_status encode(struct encoding *e, const char *text, size_t n, int flags)
{
    const struct postprocessor *around = &e->t->postprocessor;
    struct text repaired = {0};
    pm_status status = PM_OK;
    e->mode = flags & TOKENIZE_PARSE_SPECIAL ? ADDED_ALL : ADDED_NO_SPECIAL;
    if (!utf8_valid(text, n)) {
        TRY_DONE(utf8_repair(&repaired, text, n, NULL));
        text = repaired.byte;
        n = repaired.n;
    }
    e->text = text;
    if (flags & TOKENIZE_ADD_SPECIAL) {
        TRY_DONE(id_list_put(&e->ids, around->before.id, around->before.n));
    }
    TRY_DONE(added_tokens_split(e->t->added, false, e->mode, text, n, take_section, e));
    if (flags & TOKENIZE_ADD_SPECIAL) {
        TRY_DONE(id_list_put(&e->ids, around->after.id, around->after.n));
    }
done:
    free(repaired.byte);
    return status;
}

/* Takes the list back to the caller, who keeps it as it was when something failed. */
static pm_status give_ids(const struct encoding *e, pm_status status, int32_t **id,
                          size_t *capacity, size_t *n_id)
{
    *id = e->ids.id;
    *capacity = e->ids.capacity;
    if (status == PM_OK) *n_id = e->ids.n;
    return status;
}

pm_status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, int flags,
                           int32_t **id, size_t *capacity, size_t *n_id)
{
    struct encoding e = {.t = t, .ids = {*id, *n_id, *capacity}};
    pm_status status;
    if (n > MAX_TEXT_BYTES) return fail(PM_ERR_TOO_LONG, "a text of %zu bytes", n);
    if (n == 0) text = "";
    TRY(workspace_take(t->workspaces, &e.w));
    status = encode(&e, text, n, flags);
    workspace_give(t->workspaces, e.w);
    return give_ids(&e, status, id, capacity, n_id);
}

pm_status tokenizer_encode_marked(const struct tokenizer *t, const struct marked_text *text,
                                  int32_t **id, size_t *capacity, size_t *n_id)
{
    struct encoding e = {.t = t, .ids = {*id, *n_id, *capacity}, .mode = ADDED_NO_CONTROL};
    pm_status status;
    if (text->n > MAX_TEXT_BYTES) return fail(PM_ERR_TOO_LONG, "a text of %zu bytes", text->n);
    if (!utf8_valid(text->text, text->n)) {
        return fail(PM_ERR_ARG, "a marked text that is not UTF-8");
    }
    TRY(workspace_take(t->workspaces, &e.w));
    e.text = text->text;
    status = added_tokens_split_marked(t->added, text, take_section, &e);
    workspace_give(t->workspaces, e.w);
    return give_ids(&e, status, id, capacity, n_id);
}
