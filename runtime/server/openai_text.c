/* openai_text.c - text and tokens: what requests leave open, templates, pieces of tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "openai_inside.h"
#include "runtime/engine/engine.h"
#include "server_inside.h"

enum { MAX_GENERATION_CONFIG = 1 << 20 };

/* The model's authors know its temperature better than a default does. */
static pm_status read_defaults(struct openai_defaults *d, const char *folder)
{
    char path[4096];
    struct json_doc *doc = NULL;
    const json *root;
    pm_status status;
    *d = (struct openai_defaults){.temperature = 1, .top_p = 1, .repeat_penalty = 1};
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    if (access(path, F_OK) != 0) return PM_OK;
    TRY(json_load(&doc, path, MAX_GENERATION_CONFIG));
    root = json_root(doc);
    TRY_DONE(json_want_float(doc, root, "temperature", 0, 100, &d->temperature));
    TRY_DONE(json_want_float(doc, root, "top_p", 1e-9, 1, &d->top_p));
    TRY_DONE(json_want_float(doc, root, "min_p", 0, 1, &d->min_p));
    TRY_DONE(json_want_int(doc, root, "top_k", 0, 1 << 30, &d->top_k));
    TRY_DONE(json_want_float(doc, root, "repetition_penalty", 1e-6, 100, &d->repeat_penalty));
done:
    json_free(doc);
    return status;
}

static pm_status read_pieces(struct openai *o)
{
    if (!o->tokenizer) return PM_OK;
    TRY(alloc_array(&o->piece_start, (size_t)o->vocab + 1, sizeof *o->piece_start, "tokens"));
    pm_status status =
        tokenizer_all_bytes(o->tokenizer, o->vocab, &o->piece_byte, o->piece_start);
    /* Then tokens are spelled as the file has them. */
    if (status == PM_ERR_UNSUPPORTED) return PM_OK;
    for (int i = 0; status == PM_OK && i < o->vocab; i++) {
        size_t n = o->piece_start[i + 1] - o->piece_start[i];
        if (n > o->max_piece) o->max_piece = n;
    }
    return status;
}

pm_status openai_open(struct openai **out, pm_engine *e, const char *folder)
{
    struct openai *o;
    struct model *m = engine_model(e);
    pm_status status;
    TRY(alloc_array(&o, 1, sizeof *o, "server"));
    o->engine = e;
    o->tokenizer = engine_tokenizer(e);
    o->bos = model_config(m)->bos;
    o->vocab = model_config(m)->vocab;
    o->context = model_limits(m)->context;
    TRY_DONE(read_pieces(o));
    TRY_DONE(read_defaults(&o->defaults, folder));
    TRY_DONE(chat_open(&o->chat, folder));
    if (o->chat && o->tokenizer) o->style = toolcall_recognise(o->chat, o->tokenizer);
    *out = o;
    o = NULL;
done:
    openai_close(o);
    return status;
}

void openai_close(struct openai *o)
{
    if (!o) return;
    chat_close(o->chat);
    free(o->piece_byte);
    free(o->piece_start);
    free(o);
}

void openai_piece(const struct openai *o, int32_t id, const char **bytes, size_t *n)
{
    const char *token = o->tokenizer ? tokenizer_token(o->tokenizer, id) : NULL;
    *bytes = token ? token : "";
    *n = strlen(*bytes);
    if (!token || !o->piece_byte || tokenizer_is_special(o->tokenizer, id)) return;
    *bytes = o->piece_byte + o->piece_start[id];
    *n = o->piece_start[id + 1] - o->piece_start[id];
}

pm_status openai_render(const struct openai *o, const struct openai_request *r,
                        struct marked_text *text)
{
    struct chat_request chat = {.messages = r->messages,
                                .tools = r->tool_choice == TOOLS_NONE ? NULL : r->tools,
                                .kwargs = r->kwargs,
                                .add_generation_prompt = r->add_generation_prompt};
    if (!o->chat) {
        return fail(PM_ERR_UNSUPPORTED, "the model has no chat template; use /v1/completions");
    }
    if (!o->tokenizer) {
        return fail(PM_ERR_UNSUPPORTED, "the model has no tokenizer; use token ids");
    }
    return chat_render(o->chat, &chat, text);
}

/* ------------------------------------------------------------------ endpoints */

/* Parses the body and looks at the model's name; false when the call was answered. */
static bool read_request(struct call *c, struct openai_request *r,
                         enum openai_endpoint endpoint)
{
    pm_status status = openai_parse(r, endpoint, &c->server->openai->defaults,
                                    c->body ? c->body : "", c->n_body);
    if (status != PM_OK) {
        call_refuse_status(c, status, r->param);
    } else if (openai_model_is_served(c, r->model)) {
        return true;
    }
    openai_request_clear(r);
    return false;
}

bool route_completions(struct call *c)
{
    struct openai_request r;
    return !read_request(c, &r, OPENAI_COMPLETION) || generation_start(c, &r);
}

bool route_chat(struct call *c)
{
    struct openai_request r;
    return !read_request(c, &r, OPENAI_CHAT) || generation_start(c, &r);
}

static pm_status tokens_of(const struct openai *o, const struct openai_request *r,
                           int32_t **ids, size_t *n)
{
    struct marked_text text = {0};
    pm_status status;
    if (r->prompt) {
        return pm_tokenize(o->engine, json_text(r->prompt), json_text_bytes(r->prompt),
                           r->add_special_tokens, r->parse_special_tokens, ids, n);
    }
    TRY(openai_render(o, r, &text));
    status = chat_tokenize(&text, o->tokenizer, ids, n);
    marked_text_clear(&text);
    return status;
}

static void put_tokens(struct json_out *out, const struct openai *o, const int32_t *ids,
                       size_t n, bool texts)
{
    json_put(out, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", n, o->context);
    for (size_t i = 0; i < n; i++) {
        json_put(out, "%s%d", i ? "," : "", ids[i]);
    }
    json_put(out, "]");
    if (texts) json_put(out, ",\"token_strs\":[");
    for (size_t i = 0; texts && i < n; i++) {
        const char *piece;
        size_t n_piece;
        openai_piece(o, ids[i], &piece, &n_piece);
        if (i) json_put(out, ",");
        json_put_string(out, piece, n_piece);
    }
    json_put(out, texts ? "]}" : "}");
}

bool route_tokenize(struct call *c)
{
    const struct openai *o = c->server->openai;
    struct openai_request r;
    struct json_out out = {0};
    int32_t *ids = NULL;
    size_t n;
    pm_status status;
    if (!read_request(c, &r, OPENAI_TOKENIZE)) return true;
    status = tokens_of(o, &r, &ids, &n);
    if (status == PM_OK) {
        put_tokens(&out, o, ids, n, r.return_token_texts);
        call_answer_json(c, &out);
    } else {
        call_refuse_status(c, status, r.prompt ? "prompt" : "messages");
    }
    free(ids);
    openai_request_clear(&r);
    return true;
}

static pm_status text_of(const struct openai *o, const struct openai_request *r, char **text,
                         size_t *n)
{
    int32_t *ids = NULL;
    size_t n_id = 0;
    pm_status status;
    TRY(alloc_array(&ids, (size_t)json_size(r->tokens), sizeof *ids, "tokens"));
    for (const json *v = json_child(r->tokens); v; v = json_next(v)) {
        int64_t id;
        if (!json_integer(v, &id) || id < 0 || id >= o->vocab) {
            status = json_fail(r->doc, v, "a token id of the model");
            goto done;
        }
        ids[n_id++] = (int32_t)id;
    }
    status = pm_detokenize(o->engine, ids, n_id, text, n);
done:
    free(ids);
    return status;
}

bool route_detokenize(struct call *c)
{
    struct openai_request r;
    struct json_out out = {0};
    char *text = NULL;
    size_t n = 0;
    pm_status status;
    if (!read_request(c, &r, OPENAI_DETOKENIZE)) return true;
    status = text_of(c->server->openai, &r, &text, &n);
    if (status == PM_OK) {
        json_put(&out, "{\"prompt\":");
        json_put_string(&out, text ? text : "", n);
        json_put(&out, ",\"content\":");
        json_put_string(&out, text ? text : "", n);
        json_put(&out, "}");
        call_answer_json(c, &out);
    } else {
        call_refuse_status(c, status, "tokens");
    }
    pm_free(text);
    openai_request_clear(&r);
    return true;
}

bool route_template(struct call *c)
{
    struct openai_request r;
    struct marked_text text = {0};
    struct json_out out = {0};
    pm_status status;
    if (!read_request(c, &r, OPENAI_TEMPLATE)) return true;
    status = openai_render(c->server->openai, &r, &text);
    if (status == PM_OK) {
        json_put(&out, "{\"prompt\":");
        json_put_string(&out, text.text, text.n);
        json_put(&out, "}");
        call_answer_json(c, &out);
        marked_text_clear(&text);
    } else {
        call_refuse_status(c, status, "messages");
    }
    openai_request_clear(&r);
    return true;
}
