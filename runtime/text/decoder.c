/* decoder.c - a chain of stages that turn tokens into text while they arrive.
 *
 * The reference decodes a whole list: each decoder maps a list of tokens to another list. Here
 * the same chain runs as a stream whose output, put together, is the same text. Between stages
 * a token travels in fragments, and the last fragment says that the token ends. Before a Fuse a
 * fragment is a whole token; behind it the stream is one token that ends with the stream. So:
 *
 *   Fuse, ByteLevel   pass fragments on and end the token at the end of the stream
 *   Strip, Replace    hold back what may still be stripped or become a match
 *   ByteFallback      holds a run of byte tokens back until another token follows, because one
 *                     wrong byte turns every byte of its run into U+FFFD
 *   others            need whole tokens and collect fragments until the token ends
 *
 * ByteLevel holds an incomplete character back. Fragments are well-formed UTF-8 everywhere. */
#include "decoder.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer_json.h"

enum { MAX_STAGES = 64, MAX_TOKEN_BYTES = 1 << 26 };

static const char REPLACEMENT_TEXT[] = "\xef\xbf\xbd";

struct stage;
typedef pm_status (*stage_take)(struct decoding *s, size_t i, const char *text, size_t n,
                                bool end);
typedef pm_status (*stage_finish)(struct decoding *s, size_t i);

struct content {
    char *text; /* [n] */
    size_t n;
};

struct stage {
    stage_take take;
    stage_finish finish;     /* NULL: nothing to do at the end of the stream */
    struct pattern *pattern; /* Replace, BPEDecoder */
    struct content content;  /* Replace */
    uint32_t character;      /* Strip: what; Metaspace: the mark */
    int start, stop;         /* Strip: how many at most at either end */
    bool drops_first;        /* Metaspace: no blanks in the first token */
};

struct decoder {
    struct stage stage[MAX_STAGES];
    size_t n_stage;
};

struct state {
    struct text held;  /* fragments of a token, or what may become a match */
    struct text run;   /* ByteFallback, ByteLevel: bytes; BPEDecoder: the token before */
    struct text built; /* what is handed on */
    size_t n_token;
    int n_start, n_stop; /* Strip: characters stripped so far; held at the end */
    bool past_start, has_run;
};

struct decoding {
    const struct decoder *d;
    struct matcher *matcher;
    struct text *out; /* of the call in progress */
    struct state state[MAX_STAGES];
};

static pm_status emit(struct decoding *s, size_t i, const char *text, size_t n, bool end)
{
    if (n == 0) text = ""; /* an empty buffer may have no bytes to point at */
    if (i + 1 == s->d->n_stage) return text_put(s->out, text, n);
    return s->d->stage[i + 1].take(s, i + 1, text, n, end);
}

/* Collects fragments; true when *text is the whole token, valid until the next fragment. */
static pm_status collect(struct decoding *s, size_t i, const char **text, size_t *n, bool end,
                         bool *whole)
{
    struct text *held = &s->state[i].held;
    *whole = end;
    if (end && held->n == 0) return PM_OK;
    TRY(text_put(held, *text, *n));
    if (!end) return PM_OK;
    *text = held->byte;
    *n = held->n;
    held->n = 0; /* the bytes stay */
    return PM_OK;
}

/* Tokens with a blank between them, when the file has no decoder */

static pm_status take_join(struct decoding *s, size_t i, const char *text, size_t n, bool end)
{
    if (s->state[i].n_token++ > 0) TRY(emit(s, i, " ", 1, false));
    return emit(s, i, text, n, end);
}

/* Fuse */

static pm_status take_fuse(struct decoding *s, size_t i, const char *text, size_t n, bool end)
{
    (void)end;
    return emit(s, i, text, n, false);
}

static pm_status finish_fuse(struct decoding *s, size_t i)
{
    return emit(s, i, "", 0, true);
}

/* ByteLevel */

/* Appends the bytes of a token, or the token itself when it has other characters. */
static pm_status put_bytes(struct text *out, const char *token, size_t n)
{
    const char *at = token;
    size_t before = out->n;
    while (at < token + n) {
        int byte = byte_level_byte(utf8_next(&at));
        char c = (char)byte;
        if (byte < 0) {
            out->n = before;
            return text_put(out, token, n);
        }
        TRY(text_put(out, &c, 1));
    }
    return PM_OK;
}

static pm_status take_byte_level(struct decoding *s, size_t i, const char *text, size_t n,
                                 bool end)
{
    struct state *st = &s->state[i];
    size_t held;
    bool whole;
    TRY(collect(s, i, &text, &n, end, &whole));
    if (!whole) return PM_OK;
    TRY(put_bytes(&st->run, text, n));
    st->built.n = 0;
    TRY(utf8_repair(&st->built, st->run.byte, st->run.n, &held));
    if (held > 0) memmove(st->run.byte, st->run.byte + st->run.n - held, held);
    st->run.n = held;
    return emit(s, i, st->built.byte, st->built.n, false);
}

static pm_status finish_byte_level(struct decoding *s, size_t i)
{
    struct state *st = &s->state[i];
    st->built.n = 0;
    TRY(utf8_repair(&st->built, st->run.byte, st->run.n, NULL));
    st->run.n = 0;
    return emit(s, i, st->built.byte, st->built.n, true);
}

/* ByteFallback */

static int hexadecimal(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of "<0xE9>", -1 for other tokens. "<0x+9>" is 9 to the reference's parser. */
static int fallback_byte(const char *token, size_t n)
{
    int high, low;
    if (n != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>') return -1;
    high = token[3] == '+' ? 0 : hexadecimal(token[3]);
    low = hexadecimal(token[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static pm_status finish_byte_fallback(struct decoding *s, size_t i)
{
    struct text *run = &s->state[i].run;
    size_t n = run->n;
    run->n = 0;
    if (n == 0) return PM_OK;
    if (utf8_valid(run->byte, n)) return emit(s, i, run->byte, n, true);
    for (size_t k = 0; k < n; k++) {
        TRY(emit(s, i, REPLACEMENT_TEXT, sizeof REPLACEMENT_TEXT - 1, true));
    }
    return PM_OK;
}

static pm_status take_byte_fallback(struct decoding *s, size_t i, const char *text, size_t n,
                                    bool end)
{
    bool whole;
    int byte;
    TRY(collect(s, i, &text, &n, end, &whole));
    if (!whole) return PM_OK;
    byte = fallback_byte(text, n);
    if (byte >= 0) {
        char c = (char)byte;
        return text_put(&s->state[i].run, &c, 1);
    }
    TRY(finish_byte_fallback(s, i));
    return emit(s, i, text, n, true);
}

/* Replace */

static pm_status check_length(const struct text *t)
{
    if (t->n <= MAX_TOKEN_BYTES) return PM_OK;
    return fail(PM_ERR_TOO_LONG, "the decoder makes a token of %zu bytes", t->n);
}

/* built = token with the matches of p replaced; returns where the last match ends in *rest. */
static pm_status replace_all(struct decoding *s, struct state *st, const struct pattern *p,
                             const struct content *content, const char *token, size_t n,
                             size_t *rest)
{
    struct text stand_ins = {0};
    struct search search;
    size_t start, end, done = 0;
    bool differs, found;
    pm_status status;
    st->built.n = 0;
    *rest = 0;
    if (n == 0) return PM_OK;
    TRY_DONE(unicode_stand_ins(&stand_ins, token, n, &differs));
    search_init(&search, p, s->matcher, token, differs ? stand_ins.byte : token, n);
    for (;;) {
        TRY_DONE(search_next(&search, &start, &end, &found));
        if (!found) break;
        TRY_DONE(text_put(&st->built, token + done, start - done));
        TRY_DONE(text_put(&st->built, content->text, content->n));
        TRY_DONE(check_length(&st->built));
        done = end;
    }
    TRY_DONE(text_put(&st->built, token + done, n - done));
    *rest = done;
done:
    free(stand_ins.byte);
    return status;
}

static pm_status take_replace_whole(struct decoding *s, size_t i, const char *text, size_t n,
                                    bool end)
{
    const struct stage *g = &s->d->stage[i];
    struct state *st = &s->state[i];
    size_t rest;
    bool whole;
    TRY(collect(s, i, &text, &n, end, &whole));
    if (!whole) return PM_OK;
    TRY(replace_all(s, st, g->pattern, &g->content, text, n, &rest));
    return emit(s, i, st->built.byte, st->built.n, true);
}

/* Bytes at the end of text that are the start of the literal. */
static size_t possible_start(const char *literal, size_t n_literal, const char *text, size_t n)
{
    size_t most = n_literal - 1 < n ? n_literal - 1 : n;
    while (most > 0 && memcmp(text + n - most, literal, most) != 0) {
        most--;
    }
    return most;
}

/* A literal: a match may begin in one fragment and end in another. */
static pm_status take_replace(struct decoding *s, size_t i, const char *text, size_t n,
                              bool end)
{
    const struct stage *g = &s->d->stage[i];
    struct state *st = &s->state[i];
    struct text *held = &st->held;
    size_t n_literal, rest, keep = 0;
    const char *literal = pattern_literal_text(g->pattern, &n_literal);
    TRY(text_put(held, text, n));
    if (held->n == 0) return emit(s, i, "", 0, end);
    TRY(replace_all(s, st, g->pattern, &g->content, held->byte, held->n, &rest));
    if (!end) keep = possible_start(literal, n_literal, held->byte + rest, held->n - rest);
    if (keep > 0) memmove(held->byte, held->byte + held->n - keep, keep);
    held->n = keep;
    return emit(s, i, st->built.byte, st->built.n - keep, end);
}

/* Strip */

static pm_status take_strip(struct decoding *s, size_t i, const char *text, size_t n, bool end)
{
    const struct stage *g = &s->d->stage[i];
    struct state *st = &s->state[i];
    const char *at = text;
    st->built.n = 0;
    while (at < text + n) {
        uint32_t c = utf8_next(&at);
        if (c == g->character && !st->past_start && st->n_start < g->start) {
            st->n_start++;
            continue;
        }
        st->past_start = true;
        if (c == g->character && st->n_stop < g->stop) {
            st->n_stop++;
            continue;
        }
        /* One more of them sets the first of those held free, another character all. */
        for (; c != g->character && st->n_stop > 0; st->n_stop--) {
            TRY(text_put_character(&st->built, g->character));
        }
        TRY(text_put_character(&st->built, c));
    }
    if (end) {
        st->n_start = st->n_stop = 0;
        st->past_start = false;
    }
    return emit(s, i, st->built.byte, st->built.n, end);
}

/* Metaspace */

static pm_status take_metaspace(struct decoding *s, size_t i, const char *text, size_t n,
                                bool end)
{
    const struct stage *g = &s->d->stage[i];
    struct state *st = &s->state[i];
    const char *at = text;
    st->built.n = 0;
    while (at < text + n) {
        uint32_t c = utf8_next(&at);
        if (c != g->character) {
            TRY(text_put_character(&st->built, c));
        } else if (st->n_token > 0 || !g->drops_first) {
            TRY(text_put(&st->built, " ", 1));
        }
    }
    if (end) st->n_token++;
    return emit(s, i, st->built.byte, st->built.n, end);
}

/* BPEDecoder: the suffix of words is a blank, but nothing in the last token */

static pm_status put_run(struct decoding *s, size_t i, char *blank, size_t n_blank)
{
    struct state *st = &s->state[i];
    struct content content = {blank, n_blank};
    size_t rest;
    TRY(replace_all(s, st, s->d->stage[i].pattern, &content, st->run.byte, st->run.n, &rest));
    return emit(s, i, st->built.byte, st->built.n, true);
}

static pm_status take_bpe(struct decoding *s, size_t i, const char *text, size_t n, bool end)
{
    struct state *st = &s->state[i];
    char blank[] = " ";
    bool whole;
    TRY(collect(s, i, &text, &n, end, &whole));
    if (!whole) return PM_OK;
    if (st->has_run) TRY(put_run(s, i, blank, 1));
    st->has_run = true;
    st->run.n = 0;
    return text_put(&st->run, text, n);
}

static pm_status finish_bpe(struct decoding *s, size_t i)
{
    return s->state[i].has_run ? put_run(s, i, NULL, 0) : PM_OK;
}

/* Streams */

pm_status decoding_new(struct decoding **out, const struct decoder *d)
{
    struct decoding *s;
    pm_status status;
    TRY(alloc_array(&s, 1, sizeof *s, "decoder"));
    s->d = d;
    status = matcher_new(&s->matcher);
    if (status != PM_OK) {
        decoding_free(s);
        return status;
    }
    *out = s;
    return PM_OK;
}

void decoding_free(struct decoding *s)
{
    if (!s) return;
    matcher_free(s->matcher);
    for (size_t i = 0; i < MAX_STAGES; i++) {
        free(s->state[i].held.byte);
        free(s->state[i].run.byte);
        free(s->state[i].built.byte);
    }
    free(s);
}

pm_status decoding_put(struct decoding *s, const char *token, size_t n, struct text *out)
{
    s->out = out;
    return s->d->n_stage > 0 ? s->d->stage[0].take(s, 0, token, n, true)
                             : text_put(out, token, n);
}

pm_status decoding_end(struct decoding *s, struct text *out)
{
    s->out = out;
    for (size_t i = 0; i < s->d->n_stage; i++) {
        struct state *st = &s->state[i];
        if (s->d->stage[i].finish) TRY(s->d->stage[i].finish(s, i));
        st->held.n = st->run.n = st->n_token = 0;
        st->n_start = st->n_stop = 0;
        st->past_start = st->has_run = false;
    }
    return PM_OK;
}

/* One token alone */

static pm_status put_blanks(const struct stage *g, const char *text, size_t n, struct text *out)
{
    for (const char *at = text; at < text + n;) {
        uint32_t c = utf8_next(&at);
        TRY(text_put_character(out, c == g->character ? ' ' : c));
    }
    return PM_OK;
}

/* What stage i makes of a whole token, in its `built`; *last: bytes that no other stage sees.
 */
static pm_status stage_bytes(struct decoding *s, size_t i, bool fused, const char *text,
                             size_t n, bool *last)
{
    const struct stage *g = &s->d->stage[i];
    struct state *st = &s->state[i];
    size_t rest;
    st->built.n = 0;
    if (g->take == take_replace || g->take == take_replace_whole) {
        return replace_all(s, st, g->pattern, &g->content, text, n, &rest);
    }
    if (g->take == take_byte_level) {
        *last = true;
        return put_bytes(&st->built, text, n);
    }
    if (g->take == take_byte_fallback && fallback_byte(text, n) >= 0) {
        char c = (char)fallback_byte(text, n);
        *last = true;
        return text_put(&st->built, &c, 1);
    }
    if (g->take == take_metaspace) return put_blanks(g, text, n, &st->built);
    if (g->take == take_join || g->take == take_bpe || (g->take == take_strip && !fused)) {
        return fail(PM_ERR_UNSUPPORTED, "the tokenizer's decoder gives its tokens no bytes of "
                                        "their own");
    }
    return text_put(&st->built, text, n);
}

pm_status decoding_bytes(struct decoding *s, const char *token, size_t n, struct text *out)
{
    bool last = false, fused = false;
    for (size_t i = 0; i < s->d->n_stage && !last; i++) {
        TRY(stage_bytes(s, i, fused, token, n, &last));
        fused = fused || s->d->stage[i].take == take_fuse;
        n = s->state[i].built.n;
        token = n > 0 ? s->state[i].built.byte : "";
    }
    return text_put(out, token, n);
}

/* Reading */

static pm_status read_replace(struct stage *g, struct json_doc *doc, const json *v)
{
    size_t n;
    TRY(tokenizer_need_bytes(doc, v, "content", &g->content.text, &g->content.n));
    TRY(pattern_parse(&g->pattern, doc, v, "pattern"));
    if (!pattern_literal_text(g->pattern, &n) || n == 0) g->take = take_replace_whole;
    return PM_OK;
}

static pm_status read_strip(struct stage *g, struct json_doc *doc, const json *v)
{
    TRY(tokenizer_need_character(doc, v, "content", &g->character));
    TRY(json_need_int(doc, v, "start", 0, 1 << 20, &g->start));
    return json_need_int(doc, v, "stop", 0, 1 << 20, &g->stop);
}

static pm_status read_metaspace(struct stage *g, struct json_doc *doc, const json *v)
{
    const char *scheme = "always";
    bool add = true;
    TRY(tokenizer_need_character(doc, v, "replacement", &g->character));
    TRY(json_want_bool(doc, v, "add_prefix_space", &add));
    TRY(json_want_text(doc, v, "prepend_scheme", &scheme));
    g->drops_first = add && strcmp(scheme, "never") != 0;
    return PM_OK;
}

static pm_status read_bpe(struct stage *g, struct json_doc *doc, const json *v)
{
    const char *suffix;
    TRY(json_need_text(doc, v, "suffix", &suffix));
    if (*suffix == 0) return json_fail(doc, json_get(v, "suffix"), "a suffix");
    return pattern_literal(&g->pattern, suffix, json_text_bytes(json_get(v, "suffix")));
}

static const struct {
    const char *type;
    stage_take take;
    stage_finish finish;
    pm_status (*read)(struct stage *g, struct json_doc *doc, const json *v);
} kinds[] = {
    {"ByteLevel", take_byte_level, finish_byte_level, NULL},
    {"ByteFallback", take_byte_fallback, finish_byte_fallback, NULL},
    {"Fuse", take_fuse, finish_fuse, NULL},
    {"Replace", take_replace, NULL, read_replace},
    {"Strip", take_strip, NULL, read_strip},
    {"Metaspace", take_metaspace, NULL, read_metaspace},
    {"BPEDecoder", take_bpe, finish_bpe, read_bpe},
};

static pm_status read_stage(struct decoder *d, struct json_doc *doc, const json *v)
{
    const char *type;
    TRY(json_need_text(doc, v, "type", &type));
    if (strcmp(type, "Sequence") == 0) {
        const json *list = json_get(v, "decoders");
        if (!json_is_array(list)) return json_fail(doc, v, "a list \"decoders\"");
        for (const json *one = json_child(list); one; one = json_next(one)) {
            TRY(read_stage(d, doc, one));
        }
        return PM_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct stage *g = &d->stage[d->n_stage];
        if (strcmp(type, kinds[i].type) != 0) continue;
        if (d->n_stage == MAX_STAGES) return json_fail(doc, v, "at most 64 decoders");
        d->n_stage++;
        g->take = kinds[i].take;
        g->finish = kinds[i].finish;
        return kinds[i].read ? kinds[i].read(g, doc, v) : PM_OK;
    }
    return tokenizer_fail_type(doc, "decoder", type);
}

pm_status decoder_parse(struct decoder **out, struct json_doc *doc, const json *v)
{
    struct decoder *d;
    pm_status status = PM_OK;
    TRY(alloc_array(&d, 1, sizeof *d, "decoder"));
    if (v && !json_is_null(v)) {
        status = read_stage(d, doc, v);
    } else {
        d->stage[d->n_stage++].take = take_join;
    }
    if (status != PM_OK) {
        decoder_free(d);
        return status;
    }
    *out = d;
    return PM_OK;
}

void decoder_free(struct decoder *d)
{
    if (!d) return;
    for (size_t i = 0; i < d->n_stage; i++) {
        pattern_free(d->stage[i].pattern);
        free(d->stage[i].content.text);
    }
    free(d);
}
