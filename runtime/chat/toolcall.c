/* toolcall.c - a stream of tokens is cut at the markers of a family's answers.
 *
 * The parser is in one of four places: content, reasoning, a call (from its opening marker to
 * its closing one, kept back as a whole), or, for gpt-oss, the header of a message. In each
 * place a few markers count. A marker that is a token of the tokenizer is known by its id; one
 * that is not is looked for in the text, of which only what may still become a marker is held
 * back.
 *
 * A call is read when it is complete. If it is malformed, its bytes come out as content, from
 * the opening marker on: nothing that the model wrote is lost, and nothing that was given out
 * has to be taken back.
 *
 * White space that belongs to the form is dropped: line feeds at both ends of reasoning, behind
 * it, and between calls. */
#include "toolcall.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "toolcall_inside.h"

enum { MAX_MARKERS = 8, ID_BYTES = 32, MAX_HELD_CALL = 16 << 20 };

enum place { IN_CONTENT, IN_REASONING, IN_CALL, IN_HEADER };

enum marker_kind {
    MARK_CALL_OPEN,
    MARK_CALL_CLOSE,
    MARK_THINK_OPEN,
    MARK_THINK_CLOSE,
    MARK_CHANNEL, /* and what follows of harmony */
    MARK_MESSAGE,
    MARK_MESSAGE_END,
    MARK_START
};

struct marker {
    enum marker_kind kind;
    const char *text;
    int32_t id; /* -1: found in text */
};

struct toolcall_parser {
    struct toolcall_style style;
    const struct tokenizer *tokenizer;
    struct marker marker[MAX_MARKERS];
    size_t n_marker;
    struct text text_parameters;
    enum place place;
    struct text held;  /* text that may become a marker */
    struct text blank; /* white space that may be the form's */
    struct text call;  /* from the opening marker on; of harmony: the header, then the body */
    size_t call_body;  /* where the body starts in it; of harmony 0 while in the header */
    bool said;         /* there was content that is not white space */
    bool drop_blank;   /* white space here is the form's if nothing but it follows */
    bool reasoned;     /* the reasoning has begun: its first line feeds are over */
    enum toolcall_piece_kind channel; /* of the harmony message */
    bool calls;                       /* the harmony message is a call */
    uint64_t seed;
    int n_call;
    /* Pieces of the present call on the parser; texts are offsets until they are given. */
    struct toolcall_piece *piece; /* [n_piece] */
    size_t *start;                /* [n_piece] of their texts in `out` */
    size_t n_piece, capacity, capacity_start;
    struct text out;
    char (*id)[ID_BYTES * 4]; /* [n_id] of CALL_BEGIN pieces */
    size_t n_id, capacity_id;
};

static pm_status feed(struct toolcall_parser *p, const char *text, size_t n, bool last);

/* Recognition */

static const struct {
    enum toolcall_format format;
    const char *name, *sign, *open, *close; /* sign: in the template; close NULL: the end */
} formats[] = {
    {TOOLCALL_HARMONY, "harmony", "<|channel|>", NULL, NULL},
    {TOOLCALL_DEEPSEEK_V3, "deepseek_v3", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁begin｜>",
     "<｜tool▁calls▁end｜>"},
    {TOOLCALL_KIMI_K2, "kimi_k2", "<|tool_calls_section_begin|>",
     "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"},
    {TOOLCALL_MINIMAX_M2, "minimax_m2", "<minimax:tool_call>", "<minimax:tool_call>",
     "</minimax:tool_call>"},
    {TOOLCALL_GLM4, "glm4", "<arg_key>", "<tool_call>", "</tool_call>"},
    {TOOLCALL_MISTRAL, "mistral", "[TOOL_CALLS]", "[TOOL_CALLS]", NULL},
    {TOOLCALL_GRANITE, "granite", "<|tool_call|>", "<|tool_call|>", NULL},
    {TOOLCALL_HERMES, "hermes", "<tool_call>", "<tool_call>", "</tool_call>"},
    {TOOLCALL_LLAMA3, "llama3", "\"parameters\": ", "<|python_tag|>", NULL},
};

const char *toolcall_format_name(enum toolcall_format format)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (formats[i].format == format) return formats[i].name;
    }
    return "none";
}

static bool mentions(const struct chat *c, const char *text)
{
    const char *plain = chat_source(c, false), *tools = chat_source(c, true);
    return (plain && strstr(plain, text)) || (tools && strstr(tools, text));
}

struct toolcall_style toolcall_recognise(const struct chat *c, const struct tokenizer *t)
{
    struct toolcall_style style = {TOOLCALL_NONE, false, false};
    if (!c) return style;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (!mentions(c, formats[i].sign)) continue;
        style.format = formats[i].format;
        break;
    }
    if (style.format == TOOLCALL_LLAMA3 && !mentions(c, "ipython")) {
        style.format = TOOLCALL_NONE;
    }
    style.reasoning = style.format != TOOLCALL_HARMONY &&
                      (mentions(c, "</think>") || mentions(c, "<think>") ||
                       (t && tokenizer_id(t, "</think>") >= 0));
    return style;
}

bool toolcall_starts_reasoning(const struct marked_text *prompt)
{
    static const char open[] = "<think>";
    size_t n = prompt->n, n_open = sizeof open - 1;
    while (n > 0 && strchr(" \t\r\n", prompt->text[n - 1]) && prompt->text[n - 1]) {
        n--;
    }
    /* The template writes it: a user's text that ends so does not count. */
    for (size_t i = 0; n > 0 && i < prompt->n_span; i++) {
        if (prompt->span[i].end < n) continue;
        if (prompt->span[i].request) return false;
        break;
    }
    return n >= n_open && memcmp(prompt->text + n - n_open, open, n_open) == 0;
}

/* Opening */

static void add_marker(struct toolcall_parser *p, enum marker_kind kind, const char *text)
{
    int32_t id = p->tokenizer ? tokenizer_id(p->tokenizer, text) : -1;
    assert(p->n_marker < MAX_MARKERS);
    p->marker[p->n_marker++] = (struct marker){kind, text, id};
}

static void add_markers(struct toolcall_parser *p)
{
    if (p->style.format == TOOLCALL_HARMONY) {
        add_marker(p, MARK_CHANNEL, "<|channel|>");
        add_marker(p, MARK_MESSAGE, "<|message|>");
        add_marker(p, MARK_START, "<|start|>");
        add_marker(p, MARK_MESSAGE_END, "<|end|>");
        add_marker(p, MARK_MESSAGE_END, "<|call|>");
        add_marker(p, MARK_MESSAGE_END, "<|return|>");
        return;
    }
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (formats[i].format != p->style.format) continue;
        add_marker(p, MARK_CALL_OPEN, formats[i].open);
        if (formats[i].close) add_marker(p, MARK_CALL_CLOSE, formats[i].close);
    }
    if (p->style.reasoning) {
        add_marker(p, MARK_THINK_OPEN, "<think>");
        add_marker(p, MARK_THINK_CLOSE, "</think>");
    }
}

pm_status toolcall_open(struct toolcall_parser **out, struct toolcall_style style,
                        const struct tokenizer *t, const json *tools, uint64_t seed)
{
    struct toolcall_parser *p;
    pm_status status;
    TRY(alloc_array(&p, 1, sizeof *p, "tool call parser"));
    p->style = style;
    p->tokenizer = t;
    p->seed = seed;
    p->place = style.format == TOOLCALL_HARMONY            ? IN_HEADER
               : style.reasoning && style.starts_reasoning ? IN_REASONING
                                                           : IN_CONTENT;
    p->channel = PIECE_CONTENT;
    add_markers(p);
    TRY_DONE(text_parameters_of(&p->text_parameters, tools));
    *out = p;
    p = NULL;
done:
    toolcall_close(p);
    return status;
}

void toolcall_close(struct toolcall_parser *p)
{
    if (!p) return;
    free(p->text_parameters.byte);
    free(p->held.byte);
    free(p->blank.byte);
    free(p->call.byte);
    free(p->out.byte);
    free(p->piece);
    free(p->start);
    free(p->id);
    free(p);
}

/* Giving pieces */

static pm_status give(struct toolcall_parser *p, enum toolcall_piece_kind kind,
                      const char *text, size_t n)
{
    struct toolcall_piece *last = p->n_piece > 0 ? &p->piece[p->n_piece - 1] : NULL;
    bool flows = kind == PIECE_CONTENT || kind == PIECE_REASONING;
    if (flows && n == 0) return PM_OK;
    if (!flows || !last || last->kind != kind) {
        TRY(grow_array(&p->piece, &p->capacity, p->n_piece + 1, sizeof *p->piece));
        TRY(grow_array(&p->start, &p->capacity_start, p->n_piece + 1, sizeof *p->start));
        p->start[p->n_piece] = p->out.n;
        p->piece[p->n_piece++] = (struct toolcall_piece){.kind = kind, .call = p->n_call};
    }
    p->piece[p->n_piece - 1].n += n;
    return text_put(&p->out, text, n);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Content: white space that may be the form's waits for what follows. */
static pm_status give_content(struct toolcall_parser *p, const char *text, size_t n)
{
    size_t blank = 0;
    while (p->drop_blank && blank < n && is_blank(text[blank])) {
        blank++;
    }
    TRY(text_put(&p->blank, text, blank));
    if (blank == n) return PM_OK;
    if (p->drop_blank && !p->reasoned) {
        TRY(give(p, PIECE_CONTENT, p->blank.byte, p->blank.n));
    }
    p->blank.n = 0;
    p->drop_blank = p->reasoned = false;
    for (size_t i = blank; i < n && !p->said; i++) {
        p->said = !is_blank(text[i]);
    }
    return give(p, PIECE_CONTENT, text + blank, n - blank);
}

/* Reasoning without the line feeds at its ends. */
static pm_status give_reasoning(struct toolcall_parser *p, const char *text, size_t n)
{
    size_t end = n;
    while (!p->reasoned && n > 0 && *text == '\n') {
        text++;
        end = --n;
    }
    if (n == 0) return PM_OK;
    p->reasoned = true;
    while (end > 0 && text[end - 1] == '\n') {
        end--;
    }
    if (end > 0) {
        TRY(give(p, PIECE_REASONING, p->blank.byte, p->blank.n));
        p->blank.n = 0;
        TRY(give(p, PIECE_REASONING, text, end));
    }
    return text_put(&p->blank, text + end, n - end);
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The model's id, or a new one; Mistral's templates want nine letters and digits. */
static pm_status set_id(struct toolcall_parser *p, const struct parsed_call *call)
{
    static const char digit[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    bool mistral = p->style.format == TOOLCALL_MISTRAL;
    uint64_t random = mix(p->seed + mix((uint64_t)p->n_call));
    char *id;
    size_t n = 0, wanted = mistral ? 9 : 24;
    TRY(grow_array(&p->id, &p->capacity_id, p->n_id + 1, sizeof *p->id));
    id = p->id[p->n_id++];
    if (call->id.n > 0 && call->id.n < sizeof *p->id && !memchr(call->id.byte, 0, call->id.n)) {
        memcpy(id, call->id.byte, call->id.n);
        id[call->id.n] = 0;
        return PM_OK;
    }
    if (!mistral) n = (size_t)snprintf(id, sizeof *p->id, "call_");
    for (size_t i = 0; i < wanted; i++) {
        id[n++] = digit[random % 36];
        random = i % 8 == 7 ? mix(random) : random / 36;
    }
    id[n] = 0;
    return PM_OK;
}

static pm_status give_call(struct toolcall_parser *p, const struct parsed_call *call)
{
    TRY(set_id(p, call));
    TRY(give(p, PIECE_CALL_BEGIN, call->name.byte, call->name.n));
    TRY(give(p, PIECE_ARGUMENTS, call->arguments.byte, call->arguments.n));
    TRY(give(p, PIECE_CALL_END, "", 0));
    p->n_call++;
    return PM_OK;
}

/* Calls */

/* The call is over: reads it, or shows it as what it is, with the marker that ended it. */
static pm_status end_call(struct toolcall_parser *p, const char *marker)
{
    struct call_list list = {0};
    struct text whole = p->call;
    bool well, harmony = p->style.format == TOOLCALL_HARMONY;
    pm_status status;
    const struct text *parameters = &p->text_parameters;
    p->call = (struct text){0}; /* giving content may begin a new one */
    p->place = IN_CONTENT;
    TRY_DONE(toolcall_read(p->style.format, whole.byte + p->call_body, whole.n - p->call_body,
                           parameters, &list, &well));
    if (well && harmony) {
        TRY_DONE(text_put(&list.call[0].name, whole.byte, p->call_body));
    }
    if (!well) {
        size_t shown = harmony ? p->call_body : 0;
        TRY_DONE(text_put(&whole, marker, strlen(marker)));
        TRY_DONE(give_content(p, whole.byte + shown, whole.n - shown));
        goto done;
    }
    p->blank.n = 0; /* between a call and the next, or in front of the first */
    for (size_t i = 0; i < list.n; i++) {
        TRY_DONE(give_call(p, &list.call[i]));
    }
    p->drop_blank = true;
    p->reasoned = false;
done:
    call_list_clear(&list);
    free(whole.byte);
    return status;
}

static pm_status open_call(struct toolcall_parser *p, const char *marker)
{
    p->place = IN_CALL;
    p->call.n = 0;
    TRY(text_put(&p->call, marker, strlen(marker)));
    p->call_body = p->call.n;
    return PM_OK;
}

/* Harmony */

static const char *find(const struct text *t, const char *part)
{
    size_t n = strlen(part);
    for (size_t i = 0; i + n <= t->n; i++) {
        if (memcmp(t->byte + i, part, n) == 0) return t->byte + i;
    }
    return NULL;
}

/* A header is complete: whom the message is for, and on which channel. What stays in p->call is
 * the function's name. */
static pm_status end_header(struct toolcall_parser *p)
{
    static const char recipient[] = "to=functions.";
    const char *to = find(&p->call, recipient);
    const char *end = p->call.n > 0 ? p->call.byte + p->call.n : NULL;
    const char *channel = find(&p->call, "<|channel|>");
    size_t n = 0;
    p->channel =
        channel && (size_t)(end - channel) >= 19 && memcmp(channel + 11, "analysis", 8) == 0
            ? PIECE_REASONING
            : PIECE_CONTENT;
    p->place = p->channel == PIECE_REASONING ? IN_REASONING : IN_CONTENT;
    p->reasoned = false;
    if (to) {
        to += sizeof recipient - 1;
        while (to + n < end && !is_blank(to[n]) && to[n] != '<') {
            n++;
        }
    }
    if (n > 0) {
        memmove(p->call.byte, to, n);
        p->place = IN_CALL;
    }
    p->call.n = p->call_body = n;
    return PM_OK;
}

/* A message is over; text behind it, without a header, is content. */
static pm_status end_message(struct toolcall_parser *p)
{
    if (p->place == IN_CALL) return end_call(p, "");
    p->blank.n = 0;
    p->place = IN_CONTENT;
    p->reasoned = false;
    return PM_OK;
}

static pm_status begin_header(struct toolcall_parser *p, const char *marker)
{
    if (p->place != IN_HEADER) {
        TRY(end_message(p));
        p->call.n = 0;
    }
    p->place = IN_HEADER;
    return strcmp(marker, "<|start|>") == 0 ? PM_OK
                                            : text_put(&p->call, marker, strlen(marker));
}

/* Markers */

static bool counts(const struct toolcall_parser *p, const struct marker *m)
{
    switch (m->kind) {
    case MARK_CALL_OPEN:
        return p->place == IN_CONTENT || (p->place == IN_REASONING && m->id >= 0);
    case MARK_CALL_CLOSE: return p->place == IN_CALL;
    case MARK_THINK_OPEN:
        return (p->place == IN_CONTENT && !p->said && p->n_call == 0) ||
               (p->place == IN_REASONING && !p->reasoned);
    case MARK_THINK_CLOSE: return p->place == IN_REASONING;
    case MARK_MESSAGE: return p->place == IN_HEADER;
    case MARK_MESSAGE_END: return p->place != IN_HEADER;
    default: return true;
    }
}

static pm_status take_marker(struct toolcall_parser *p, const struct marker *m)
{
    switch (m->kind) {
    case MARK_CALL_OPEN: return open_call(p, m->text);
    case MARK_CALL_CLOSE: return end_call(p, m->text);
    case MARK_THINK_OPEN:
        p->place = IN_REASONING;
        p->blank.n = 0;
        return PM_OK;
    case MARK_THINK_CLOSE:
        p->place = IN_CONTENT;
        p->blank.n = 0;
        p->drop_blank = p->reasoned = true; /* the line feeds behind it */
        return PM_OK;
    case MARK_MESSAGE: return end_header(p);
    case MARK_MESSAGE_END: return end_message(p);
    default: return begin_header(p, m->text);
    }
}

/* Text */

/* An answer of Llama 3 that starts as a call may: { and, as far as it goes, "name" or "type".
 */
static bool may_be_bare_call(const struct text *held, bool last)
{
    static const char *const key[] = {"\"name\"", "\"type\"", "\"function\"", "\"parameters\""};
    size_t i = 0;
    while (i < held->n && is_blank(held->byte[i])) {
        i++;
    }
    if (i == held->n) return !last;
    if (held->byte[i++] != '{') return false;
    while (i < held->n && is_blank(held->byte[i])) {
        i++;
    }
    for (size_t j = 0; j < sizeof key / sizeof *key; j++) {
        size_t n = strlen(key[j]), m = held->n - i < n ? held->n - i : n;
        if (memcmp(held->byte + i, key[j], m) == 0) return !last || m == n;
    }
    return false;
}

/* Text that holds no marker, in its place. */
static pm_status take_text(struct toolcall_parser *p, const char *text, size_t n)
{
    switch (p->place) {
    case IN_CONTENT: return give_content(p, text, n);
    case IN_REASONING: return give_reasoning(p, text, n);
    default:
        if (p->call.n + n > MAX_HELD_CALL) {
            return fail(PM_ERR_TOO_LONG, "a tool call of more than %d bytes", MAX_HELD_CALL);
        }
        return text_put(&p->call, text, n);
    }
}

/* The first marker in the text that counts, or the place from which on the text may become one;
 * NULL and n when there is neither. */
static const struct marker *find_marker(const struct toolcall_parser *p, const char *text,
                                        size_t n, size_t *at)
{
    for (size_t i = 0; i < n; i++) {
        const struct marker *found = NULL;
        for (size_t j = 0; j < p->n_marker; j++) {
            const struct marker *m = &p->marker[j];
            size_t length = strlen(m->text), most = n - i < length ? n - i : length;
            if (m->id >= 0 || !counts(p, m) || memcmp(text + i, m->text, most) != 0) continue;
            *at = i;
            if (most < length) return NULL; /* it may become one, perhaps a longer one */
            if (!found || length > strlen(found->text)) found = m;
        }
        if (found) return found;
    }
    *at = n;
    return NULL;
}

/* A step of feed(): moves *done on; false when the rest must wait. */
static pm_status feed_step(struct toolcall_parser *p, struct text *held, size_t *done,
                           bool last, bool *more)
{
    const char *text = held->byte + *done;
    size_t n = held->n - *done, at;
    const struct marker *m;
    struct text rest = {held->byte + *done, n, 0};
    bool bare = p->style.format == TOOLCALL_LLAMA3 && p->place == IN_CONTENT && !p->said &&
                p->n_call == 0;
    *more = false;
    if (bare && may_be_bare_call(&rest, last)) {
        bool sure = memchr(text, '"', n) != NULL && may_be_bare_call(&rest, true);
        if (!sure) return PM_OK;
        p->place = IN_CALL;
        p->call.n = p->call_body = 0;
    }
    m = find_marker(p, text, n, &at);
    if (!m && last) at = n;
    if (at > 0) TRY(take_text(p, text, at));
    *done += at;
    *more = m != NULL;
    if (!m || at > 0) return PM_OK; /* the text in front may be why it does not count */
    *done += strlen(m->text);
    return take_marker(p, m);
}

/* Text in which markers that are no tokens are looked for. */
static pm_status feed(struct toolcall_parser *p, const char *text, size_t n, bool last)
{
    struct text held = p->held;
    size_t done = 0;
    bool more = true;
    pm_status status;
    TRY(text_put(&p->held, text, n));
    held = p->held;
    p->held = (struct text){0};
    while (more && done < held.n) {
        TRY_DONE(feed_step(p, &held, &done, last, &more));
    }
    status = done < held.n ? text_put(&p->held, held.byte + done, held.n - done) : PM_OK;
done:
    free(held.byte);
    return status;
}

static void begin_pieces(struct toolcall_parser *p)
{
    p->n_piece = p->n_id = 0;
    p->out.n = 0;
}

static pm_status give_pieces(struct toolcall_parser *p, const struct toolcall_piece **piece,
                             size_t *n_piece)
{
    size_t id = 0;
    for (size_t i = 0; i < p->n_piece; i++) {
        p->piece[i].text = p->piece[i].n > 0 ? p->out.byte + p->start[i] : "";
        p->piece[i].id = p->piece[i].kind == PIECE_CALL_BEGIN ? p->id[id++] : NULL;
    }
    *piece = p->piece;
    *n_piece = p->n_piece;
    return PM_OK;
}

pm_status toolcall_add(struct toolcall_parser *p, int32_t id, const char *text, size_t n,
                       const struct toolcall_piece **piece, size_t *n_piece)
{
    begin_pieces(p);
    for (size_t i = 0; id >= 0 && i < p->n_marker; i++) {
        const struct marker *m = &p->marker[i];
        if (m->id != id || !counts(p, m)) continue;
        TRY(feed(p, "", 0, true)); /* what waited is no marker */
        TRY(take_marker(p, m));
        return give_pieces(p, piece, n_piece);
    }
    /* Markers inside of calls are part of their form, even where decoding leaves them out. */
    if (n == 0 && id >= 0 && p->place == IN_CALL && p->tokenizer &&
        tokenizer_is_special(p->tokenizer, id)) {
        text = tokenizer_token(p->tokenizer, id);
        n = strlen(text);
    }
    TRY(feed(p, text, n, false));
    return give_pieces(p, piece, n_piece);
}

pm_status toolcall_end(struct toolcall_parser *p, const struct toolcall_piece **piece,
                       size_t *n_piece)
{
    begin_pieces(p);
    TRY(feed(p, "", 0, true));
    if (p->place == IN_CALL) TRY(end_call(p, ""));
    if (p->place == IN_HEADER) { /* no message came: the header is all there is */
        p->place = IN_CONTENT;
        TRY(give_content(p, p->call.byte, p->call.n));
        p->call.n = 0;
    }
    return give_pieces(p, piece, n_piece);
}
