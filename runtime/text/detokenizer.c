/* detokenizer.c - ids to text in a stream: looks the token up and hands it to the decoder.
 *
 * An id that is no token is left out, as the reference does. So is, on demand, a special token.
 * A special token that the normalizer changes is decoded as what it was changed to and then not
 * recognised as special; that too is the reference's way. */
#include "tokenizer.h"

#include <stdlib.h>

#include "tokenizer_parts.h"

struct detokenizer {
    const struct tokenizer *tokenizer;
    struct decoding *decoding;
    struct text text; /* what the last call made certain */
    bool skip_special;
};

pm_status detokenizer_open(struct detokenizer **out, const struct tokenizer *t,
                           bool skip_special)
{
    struct detokenizer *d;
    pm_status status;
    TRY(alloc_array(&d, 1, sizeof *d, "detokenizer"));
    d->tokenizer = t;
    d->skip_special = skip_special;
    status = decoding_new(&d->decoding, t->decoder);
    if (status != PM_OK) {
        detokenizer_close(d);
        return status;
    }
    *out = d;
    return PM_OK;
}

void detokenizer_close(struct detokenizer *d)
{
    if (!d) return;
    decoding_free(d->decoding);
    free(d->text.byte);
    free(d);
}

static void give(struct detokenizer *d, const char **text, size_t *n)
{
    *text = d->text.n > 0 ? d->text.byte : "";
    *n = d->text.n;
}

/* The content of an id as the decoder gets it; NULL: none. */
static const char *content_of(const struct tokenizer *t, int32_t id, bool skip_special,
                              size_t *n)
{
    const struct added_token *added = added_tokens_by_id(t->added, id);
    if (!added) return vocabulary_token(bpe_vocabulary(t->bpe), id, n);
    *n = added->n_pattern;
    return skip_special && added->skipped ? NULL : added->pattern;
}

pm_status tokenizer_all_bytes(const struct tokenizer *t, int n, char **byte, size_t *start)
{
    struct text all = {0};
    struct decoding *s = NULL;
    pm_status status;
    TRY_DONE(decoding_new(&s, t->decoder));
    for (int32_t id = 0; id < n; id++) {
        size_t n_token = 0;
        const char *token =
            tokenizer_is_special(t, id) ? NULL : content_of(t, id, true, &n_token);
        start[id] = all.n;
        if (token) TRY_DONE(decoding_bytes(s, token, n_token, &all));
    }
    start[n] = all.n;
    *byte = all.byte;
    all.byte = NULL;
done:
    decoding_free(s);
    free(all.byte);
    return status;
}

pm_status detokenizer_add(struct detokenizer *d, int32_t id, const char **text, size_t *n)
{
    size_t n_token = 0;
    const char *token = content_of(d->tokenizer, id, d->skip_special, &n_token);
    d->text.n = 0;
    if (token) TRY(decoding_put(d->decoding, token, n_token, &d->text));
    give(d, text, n);
    return PM_OK;
}

pm_status detokenizer_flush(struct detokenizer *d, const char **text, size_t *n)
{
    d->text.n = 0;
    TRY(decoding_end(d->decoding, &d->text));
    give(d, text, n);
    return PM_OK;
}
