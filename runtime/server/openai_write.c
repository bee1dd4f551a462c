/* openai_write.c - what choices generated, as OpenAI's JSON: events of a stream, or one object.
 *
 * Both read the same tape. A record becomes pieces (content, reasoning, parts of tool calls);
 * a piece becomes an event, or is added to its choice until all have ended.
 *
 *   stream   an event for each token that shows something, the role in a choice's first, its
 *            finish_reason in its last; then usage if it was asked for; then [DONE]
 *   failure  after a stream began: an event with an error object, then [DONE]
 *
 * A call that the request forces comes as plain JSON, which the schema guarantees: arguments of
 * a named function are passed on as they come, a choice among functions is held until it is
 * whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "openai_inside.h"
#include "server_inside.h"

struct piece {
    enum toolcall_piece_kind kind;
    int call;
    const char *text; /* [n] */
    size_t n;
    const char *id;
};

static bool is_chat(const struct generation *g)
{
    return g->r.endpoint == OPENAI_CHAT;
}

static const struct openai *openai_of(const struct generation *g)
{
    return g->call->server->openai;
}

/* ------------------------------------------------------------------ events */

static void put_head(struct generation *g, struct json_out *o)
{
    const char *model = openai_model_name(g->call);
    if (g->head.n == 0) {
        json_put(&g->head, "{\"id\":\"%s-%s\",\"object\":\"%s\",\"created\":%lld,\"model\":",
                 is_chat(g) ? "chatcmpl" : "cmpl", g->call->id,
                 !is_chat(g)    ? "text_completion"
                 : g->streaming ? "chat.completion.chunk"
                                : "chat.completion",
                 (long long)g->created_s);
        json_put_string(&g->head, model, strlen(model));
        json_put(&g->head, ",\"choices\":[");
    }
    openai_put_list(o, &g->head);
}

static void put_call_delta(struct json_out *o, const struct piece *p)
{
    json_put(o, "\"tool_calls\":[{\"index\":%d,", p->call);
    if (p->kind == PIECE_CALL_BEGIN) {
        json_put(o, "\"id\":");
        json_put_string(o, p->id, strlen(p->id));
        json_put(o, ",\"type\":\"function\",\"function\":{\"name\":");
        json_put_string(o, p->text, p->n);
        json_put(o, ",\"arguments\":\"\"}}]");
    } else {
        json_put(o, "\"function\":{\"arguments\":");
        json_put_string(o, p->text, p->n);
        json_put(o, "}}]");
    }
}

static void put_prompt_ids(struct json_out *o, const struct prompt *p)
{
    json_put(o, "\"prompt_token_ids\":[");
    for (size_t i = 0; i < p->n; i++) {
        json_put(o, "%s%d", i ? "," : "", p->ids[i]);
    }
    json_put(o, "]");
}

/* One event about a choice; p NULL: nothing new but what the columns and the end have. */
static void put_event(struct generation *g, struct choice *c, struct json_out *o,
                      const struct piece *p, const char *finish)
{
    bool first = !c->begun;
    json_put(o, "data: ");
    put_head(g, o);
    json_put(o, "{\"index\":%d,", c->index);
    if (is_chat(g)) {
        json_put(o, "\"delta\":{");
        if (first) json_put(o, "\"role\":\"assistant\"%s", p ? "," : "");
        if (p && p->kind <= PIECE_REASONING) {
            json_put(o, p->kind == PIECE_CONTENT ? "\"content\":" : "\"reasoning_content\":");
            json_put_string(o, p->text, p->n);
        } else if (p) {
            put_call_delta(o, p);
        }
        json_put(o, "}");
    } else {
        json_put(o, "\"text\":");
        json_put_string(o, p ? p->text : "", p ? p->n : 0);
    }
    c->begun = true;
    openai_put_logprobs(g, c, o);
    if (g->r.return_token_ids) {
        json_put(o, ",");
        if (first) {
            put_prompt_ids(o, &g->prompt[c->index / g->r.n]);
            json_put(o, ",");
        }
        json_put(o, "\"token_ids\":[");
        openai_put_list(o, &c->ids);
        json_put(o, "]");
        c->ids.n = 0;
    }
    json_put(o, finish ? ",\"finish_reason\":\"%s\"}]" : ",\"finish_reason\":null}]", finish);
    json_put(o, g->r.include_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

/* ------------------------------------------------------------------ pieces */

static void keep_call(struct choice *c, const struct piece *p)
{
    struct json_out *o = &c->calls;
    if (p->kind == PIECE_CALL_BEGIN) {
        openai_next(o);
        json_put(o, "{\"id\":");
        json_put_string(o, p->id, strlen(p->id));
        json_put(o, ",\"type\":\"function\",\"function\":{\"name\":");
        json_put_string(o, p->text, p->n);
        json_put(o, ",\"arguments\":");
        c->arguments.n = 0;
    } else if (p->kind == PIECE_ARGUMENTS) {
        json_put_bytes(&c->arguments, p->text, p->n);
    } else {
        json_put_string(o, c->arguments.n ? c->arguments.text : "", c->arguments.n);
        if (c->arguments.status != PM_OK) o->status = c->arguments.status;
        json_put(o, "}}");
    }
}

static void take_piece(struct generation *g, struct choice *c, struct json_out *o,
                       const struct piece *p)
{
    if (p->kind == PIECE_CALL_BEGIN) c->called = true;
    if (g->streaming) {
        if (p->kind != PIECE_CALL_END && (p->n > 0 || p->kind == PIECE_CALL_BEGIN)) {
            put_event(g, c, o, p, NULL);
        }
    } else if (p->kind == PIECE_CONTENT) {
        json_put_bytes(&c->text, p->text, p->n);
    } else if (p->kind == PIECE_REASONING) {
        json_put_bytes(&c->reasoning, p->text, p->n);
    } else {
        keep_call(c, p);
    }
}

static void take_pieces(struct generation *g, struct choice *c, struct json_out *o,
                        const struct toolcall_piece *piece, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct piece p = {piece[i].kind, piece[i].call, piece[i].text, piece[i].n, piece[i].id};
        if (p.kind >= PIECE_CALL_BEGIN && !g->r.parallel_tool_calls && p.call > 0) continue;
        take_piece(g, c, o, &p);
    }
}

static pm_status parse_text(struct generation *g, struct choice *c, struct json_out *o,
                            int32_t id, const char *text, size_t n)
{
    const struct toolcall_piece *piece;
    size_t n_piece;
    TRY(toolcall_add(c->parser, id, text, n, &piece, &n_piece));
    take_pieces(g, c, o, piece, n_piece);
    return PM_OK;
}

/* A parser wants special tokens spelled out, which the engine leaves out of the text: what
 * comes with one was held back before it. */
static pm_status parse_record(struct generation *g, struct choice *c, struct json_out *o,
                              const struct tape_record *r, const char *text)
{
    const struct tokenizer *t = openai_of(g)->tokenizer;
    size_t n = (size_t)r->n_text;
    if (r->id < 0 || !tokenizer_is_special(t, r->id)) {
        return parse_text(g, c, o, r->id, text, n);
    }
    if (n > 0) TRY(parse_text(g, c, o, -1, text, n));
    text = tokenizer_token(t, r->id);
    return parse_text(g, c, o, r->id, text, strlen(text));
}

static void begin_call(struct generation *g, struct choice *c, struct json_out *o,
                       const char *name, size_t n)
{
    char id[64];
    struct piece p = {PIECE_CALL_BEGIN, 0, name, n, id};
    snprintf(id, sizeof id, "call_%s%02d", g->call->id, c->index);
    take_piece(g, c, o, &p);
}

/* Text of a forced call. */
static void take_forced(struct generation *g, struct choice *c, struct json_out *o,
                        const char *text, size_t n)
{
    struct piece p = {PIECE_ARGUMENTS, 0, text, n, NULL};
    if (g->r.tool_choice == TOOLS_REQUIRED) {
        json_put_bytes(&c->text, text, n);
        return;
    }
    if (!c->called) begin_call(g, c, o, json_text(g->r.tool), json_text_bytes(g->r.tool));
    take_piece(g, c, o, &p);
}

/* At the end of a forced call. What was cut short is content: it is not a call. */
static void end_forced(struct generation *g, struct choice *c, struct json_out *o)
{
    struct piece p = {PIECE_CALL_END, 0, "", 0, NULL};
    struct json_doc *doc = NULL;
    struct json_out text = c->text, arguments = {0};
    const json *name;
    if (g->r.tool_choice == TOOLS_NAMED) {
        if (c->called) take_piece(g, c, o, &p);
        return;
    }
    c->text = (struct json_out){0};
    if (text.status == PM_OK && text.n > 0 &&
        json_parse(&doc, "call", text.text, text.n) == PM_OK &&
        json_is_string(name = json_get(json_root(doc), "name"))) {
        begin_call(g, c, o, json_text(name), json_text_bytes(name));
        openai_put_value(&arguments, json_get(json_root(doc), "arguments"));
        p = (struct piece){PIECE_ARGUMENTS, 0, arguments.text, arguments.n, NULL};
        take_piece(g, c, o, &p);
        p = (struct piece){PIECE_CALL_END, 0, "", 0, NULL};
    } else {
        p = (struct piece){PIECE_CONTENT, 0, text.text, text.n, NULL};
    }
    take_piece(g, c, o, &p);
    if (arguments.status != PM_OK) o->status = arguments.status;
    json_free(doc);
    free(arguments.text);
    free(text.text);
}

static bool is_forced(const struct generation *g)
{
    return g->r.tools && g->r.tool_choice >= TOOLS_REQUIRED;
}

static pm_status take_record(struct generation *g, struct json_out *o,
                             const struct tape_record *r, const char *text, const char *top)
{
    struct choice *c = &g->choice[r->choice];
    size_t before = o->n, n = (size_t)r->n_text;
    if (g->r.top >= 0 && r->id >= 0) {
        openai_take_logprob(g, c, r, top);
    }
    if (r->prompt) return PM_OK; /* its text is known */
    if (g->r.return_token_ids && r->id >= 0) {
        openai_next(&c->ids);
        json_put(&c->ids, "%d", r->id);
    }
    if (is_forced(g)) {
        take_forced(g, c, o, text, n);
    } else if (c->parser) {
        TRY(parse_record(g, c, o, r, text));
    } else {
        struct piece p = {PIECE_CONTENT, 0, text, n, NULL};
        take_piece(g, c, o, &p);
    }
    if (g->streaming && o->n == before && r->id >= 0 &&
        (g->r.top >= 0 || g->r.return_token_ids)) {
        put_event(g, c, o, NULL, NULL);
    }
    return PM_OK;
}

/* ------------------------------------------------------------------ ends */

static const char *finish_reason(const struct generation *g, const struct choice *c)
{
    static const char *const text[] = {[PM_FINISH_LENGTH] = "length",
                                       [PM_FINISH_EOS] = "stop",
                                       [PM_FINISH_STOP] = "stop",
                                       [PM_FINISH_CALLER] = "abort",
                                       [PM_FINISH_DEADLINE] = "deadline"};
    bool stopped = c->result.finish == PM_FINISH_EOS || c->result.finish == PM_FINISH_STOP;
    /* OpenAI calls a named function an ordinary stop. */
    if (c->called && stopped && g->r.tool_choice != TOOLS_NAMED) return "tool_calls";
    return text[c->result.finish];
}

/* What the choice's parser still holds. */
static pm_status end_choice(struct generation *g, struct choice *c, struct json_out *o)
{
    const struct toolcall_piece *piece;
    size_t n;
    c->done = true;
    if (is_forced(g)) end_forced(g, c, o);
    if (!c->parser) return PM_OK;
    TRY(toolcall_end(c->parser, &piece, &n));
    take_pieces(g, c, o, piece, n);
    return PM_OK;
}

static void put_usage(struct generation *g, struct json_out *o)
{
    long long n_prompt = 0, n_cached = 0, n_new = 0;
    for (int i = 0; i < g->n_choice; i++) {
        n_new += g->choice[i].result.n_generated;
        if (i % g->r.n != 0) continue;
        n_prompt += (long long)g->prompt[i / g->r.n].n;
        n_cached += g->choice[i].result.n_cached;
    }
    json_put(o,
             "\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
             "\"total_tokens\":%lld,\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
             n_prompt, n_new, n_prompt + n_new, n_cached);
}

static double per_second(double n, int64_t us)
{
    return us > 0 ? n * 1e6 / (double)us : 0;
}

/* Of the first choice: the others run beside it. */
static void put_timings(struct generation *g, struct json_out *o)
{
    const pm_result *r = &g->choice[0].result;
    int n_computed = r->n_prompt - r->n_cached;
    json_put(o,
             ",\"timings\":{\"queue_ms\":%.3f,\"cache_n\":%d,\"prompt_n\":%d,"
             "\"prompt_ms\":%.3f,\"prompt_per_second\":%.2f,\"predicted_n\":%d,"
             "\"predicted_ms\":%.3f,\"predicted_per_second\":%.2f}",
             (double)r->queue_us * 1e-3, r->n_cached, n_computed, (double)r->prompt_us * 1e-3,
             per_second(n_computed, r->prompt_us), r->n_generated,
             (double)r->generate_us * 1e-3,
             per_second(r->n_generated > 1 ? r->n_generated - 1 : 0, r->generate_us));
}

/* The first choice that failed, or NULL. */
static const struct choice *failed_choice(const struct generation *g)
{
    for (int i = 0; i < g->n_choice; i++) {
        if (g->choice[i].status != PM_OK) return &g->choice[i];
    }
    return NULL;
}

static void end_stream(struct generation *g, struct json_out *o)
{
    const struct choice *bad = failed_choice(g);
    if (bad) {
        const char *code;
        int http = http_of_status(bad->status, &code);
        json_put(o, "data: ");
        put_error(o, http, code, NULL, bad->error);
        json_put(o, "\n\n");
    } else if (g->r.include_usage) {
        json_put(o, "data: ");
        put_head(g, o);
        json_put(o, "],");
        put_usage(g, o);
        put_timings(g, o);
        json_put(o, "}\n\n");
    }
    json_put(o, "data: [DONE]\n\n");
}

/* ------------------------------------------------------------------ echo */

static pm_status put_echo(struct generation *g, struct choice *c, struct json_out *o)
{
    const struct prompt *p = &g->prompt[c->index / g->r.n];
    struct piece piece = {PIECE_CONTENT, 0, p->text, p->n_text, NULL};
    char *text = NULL;
    if (!g->r.echo) return PM_OK;
    if (!p->text) {
        TRY(pm_detokenize(openai_of(g)->engine, p->ids, p->n, &text, &piece.n));
        piece.text = text;
    }
    take_piece(g, c, o, &piece);
    pm_free(text);
    return PM_OK;
}

/* ------------------------------------------------------------------ the two readers */

/* Whether a choice had ended when the tape was taken: what it gave out is all there. */
static pm_status read_tape(struct generation *g, struct json_out *o, bool ended[])
{
    struct tape_record r;
    const char *text, *top;
    size_t at = 0;
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < g->n_choice; i++) {
        ended[i] = g->choice[i].ended;
    }
    pthread_mutex_unlock(&g->lock);
    generation_swap(g);
    while (generation_next(g, &at, &r, &text, &top)) {
        struct choice *c = &g->choice[r.choice];
        if (!c->echoed) {
            c->echoed = true;
            TRY(put_echo(g, c, o));
        }
        TRY(take_record(g, o, &r, text, top));
    }
    return PM_OK;
}

pm_status openai_read_stream(struct call *call, struct json_out *out, bool *end)
{
    struct generation *g = (struct generation *)call->job;
    bool ended[OPENAI_MAX_CHOICE];
    bool all = true;
    TRY(read_tape(g, out, ended));
    for (int i = 0; i < g->n_choice; i++) {
        struct choice *c = &g->choice[i];
        all &= ended[i];
        if (!ended[i] || c->done) continue;
        if (!c->echoed) TRY(put_echo(g, c, out));
        TRY(end_choice(g, c, out));
        if (c->status == PM_OK) put_event(g, c, out, NULL, finish_reason(g, c));
    }
    if (all && !g->ending) {
        g->ending = true;
        end_stream(g, out);
        *end = true;
    }
    return out->status;
}

static void put_message(struct choice *c, struct json_out *o)
{
    json_put(o, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (c->text.n == 0 && c->called) {
        json_put(o, "null");
    } else {
        json_put_string(o, c->text.n ? c->text.text : "", c->text.n);
    }
    if (c->reasoning.n > 0) {
        json_put(o, ",\"reasoning_content\":");
        json_put_string(o, c->reasoning.text, c->reasoning.n);
    }
    if (c->called) {
        json_put(o, ",\"tool_calls\":[");
        openai_put_list(o, &c->calls);
        json_put(o, "]");
    }
    json_put(o, "}");
}

static pm_status put_choice(struct generation *g, struct choice *c, struct json_out *o)
{
    const struct json_out *part[] = {&c->text, &c->reasoning, &c->calls, &c->ids};
    TRY(end_choice(g, c, o));
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        TRY(part[i]->status);
    }
    json_put(o, "%s{\"index\":%d,", c->index ? "," : "", c->index);
    if (is_chat(g)) {
        put_message(c, o);
    } else {
        json_put(o, "\"text\":");
        json_put_string(o, c->text.n ? c->text.text : "", c->text.n);
    }
    openai_put_logprobs(g, c, o);
    if (g->r.return_token_ids) {
        json_put(o, ",");
        put_prompt_ids(o, &g->prompt[c->index / g->r.n]);
        json_put(o, ",\"token_ids\":[");
        openai_put_list(o, &c->ids);
        json_put(o, "]");
    }
    json_put(o, ",\"finish_reason\":\"%s\"}", finish_reason(g, c));
    return o->status;
}

static pm_status put_answer(struct generation *g, struct json_out *o)
{
    bool ended[OPENAI_MAX_CHOICE];
    TRY(read_tape(g, o, ended));
    put_head(g, o);
    for (int i = 0; i < g->n_choice; i++) {
        struct choice *c = &g->choice[i];
        if (!c->echoed) TRY(put_echo(g, c, o));
        TRY(put_choice(g, c, o));
    }
    json_put(o, "],");
    put_usage(g, o);
    put_timings(g, o);
    json_put(o, "}");
    return o->status;
}

void openai_finish(struct call *call)
{
    struct generation *g = (struct generation *)call->job;
    const struct choice *bad = failed_choice(g);
    struct json_out o = {0};
    pm_status status;
    if (bad) {
        const char *code;
        int http = http_of_status(bad->status, &code);
        call_refuse(call, http, code, NULL, "%s", bad->error);
        return;
    }
    status = put_answer(g, &o);
    if (status == PM_OK) {
        call_answer_json(call, &o);
    } else {
        free(o.text);
        call_refuse_status(call, status, NULL);
    }
}
