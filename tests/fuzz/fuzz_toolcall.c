/* fuzz_toolcall.c - hostile answers of a model.
 *
 * The first byte chooses the format and whether the answer starts in reasoning, the second how
 * the rest, the answer, is cut. Cut or whole, the pieces are the same; calls have a begin, one
 * JSON object of arguments and an end, in this order; without a format and reasoning the
 * content is the answer. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/chat/toolcall.h"
#include "runtime/text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_FORMAT = TOOLCALL_GRANITE + 1 };

static const char tools[] =
    "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"s\":"
    "{\"type\":\"string\"}}}}}]";

/* All pieces as one text: kind, then the bytes; neighbours of a kind are one. */
struct record {
    struct text all;
    size_t arguments; /* where those of the open call start */
    int last;
};

static void keep(struct text *t, const char *text, size_t n)
{
    if (text_put(t, text, n) != PM_OK) abort();
}

static void check_arguments(const char *text, size_t n)
{
    struct json_doc *doc = NULL;
    assert(json_parse(&doc, "arguments", text, n) == PM_OK);
    assert(json_is_object(json_root(doc)));
    json_free(doc);
}

static void record(struct record *r, const struct toolcall_piece *piece, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct toolcall_piece *p = &piece[i];
        bool flows = p->kind == PIECE_CONTENT || p->kind == PIECE_REASONING;
        char kind = (char)('0' + p->kind);
        if (flows)
            assert(p->n > 0 && r->last != PIECE_CALL_BEGIN && r->last != PIECE_ARGUMENTS);
        if (p->kind == PIECE_CALL_BEGIN) assert(p->id && *p->id && p->n > 0);
        if (p->kind == PIECE_ARGUMENTS) assert(r->last == PIECE_CALL_BEGIN);
        if (p->kind == PIECE_CALL_END) assert(r->last == PIECE_ARGUMENTS);
        if (p->kind == PIECE_ARGUMENTS) check_arguments(p->text, p->n);
        if (!flows || r->last != (int)p->kind) keep(&r->all, &kind, 1);
        keep(&r->all, p->text, p->n);
        if (p->id) keep(&r->all, p->id, strlen(p->id));
        r->last = (int)p->kind;
    }
}

static struct record run(struct toolcall_style style, const json *root, const char *answer,
                         size_t n, size_t step)
{
    struct record r = {.last = -1};
    struct toolcall_parser *p;
    const struct toolcall_piece *piece;
    size_t n_piece, at = 0;
    if (toolcall_open(&p, style, NULL, root, 1) != PM_OK) abort();
    while (at < n) {
        size_t end = n - at < step ? n : at + step;
        if (toolcall_add(p, -1, answer + at, end - at, &piece, &n_piece) != PM_OK) abort();
        record(&r, piece, n_piece);
        at = end;
        step = step % 7 + 1;
    }
    if (toolcall_end(p, &piece, &n_piece) != PM_OK) abort();
    record(&r, piece, n_piece);
    toolcall_close(p);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct json_doc *doc;
    struct toolcall_style style;
    struct record whole, cut;
    const char *answer = (const char *)data + 2;
    if (n < 2 || json_parse(&doc, "tools", tools, sizeof tools - 1) != PM_OK) return 0;
    n -= 2;
    style.format = (enum toolcall_format)(data[0] % N_FORMAT);
    style.reasoning = data[0] / N_FORMAT & 1;
    style.starts_reasoning = data[0] / N_FORMAT & 2;
    whole = run(style, json_root(doc), answer, n, n + 1);
    cut = run(style, json_root(doc), answer, n, data[1] % 7 + 1);
    assert(whole.all.n == cut.all.n);
    assert(whole.all.n == 0 || memcmp(whole.all.byte, cut.all.byte, whole.all.n) == 0);
    if (style.format == TOOLCALL_NONE && !style.reasoning && n > 0) {
        assert(whole.all.n == n + 1 && memcmp(whole.all.byte + 1, answer, n) == 0);
    }
    free(whole.all.byte);
    free(cut.all.byte);
    json_free(doc);
    return 0;
}
