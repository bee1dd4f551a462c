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

pm_status detokenizer_add(struct detokenizer *d, int32_t id, const char **text, size_t *n)
{
    const struct added_token *added = added_tokens_by_id(d->tokenizer->added, id);
    const char *token;
    size_t n_token = 0;
    d->text.n = 0;
    if (added) {
        token = d->skip_special && added->skipped ? NULL : added->pattern;
        n_token = added->n_pattern;
    } else {
        token = vocabulary_token(bpe_vocabulary(d->tokenizer->bpe), id, &n_token);
    }
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
