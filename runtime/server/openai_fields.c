/* openai_fields.c - the fields of a request, one row each.
 *
 * A row says on which endpoints a field is known, what it may hold, and where it goes. Null is
 * the same as absent. A row of kind ACCEPTED names what changes nothing here (who asks, and
 * notes to self), FIXED what is taken with the one value that asks for nothing special, and
 * REFUSED what OpenAI or other servers know and this one does not, with the reason. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "openai_fields.h"

enum kind { INT, NUMBER, BOOL, TEXT, JSON, LIST, OBJECT, READ, ACCEPTED, FIXED, REFUSED };

struct field {
    const char *name;
    unsigned endpoints;
    enum kind kind;
    size_t offset;
    double min, max;
    const char *note; /* of FIXED: the value as JSON; of REFUSED: why */
    pm_status (*read)(struct openai_request *r, const json *v);
};

static pm_status read_seed(struct openai_request *r, const json *v)
{
    int64_t seed;
    if (!json_integer(v, &seed)) return json_fail(r->doc, v, "a whole number within 2^53");
    r->seed = (uint64_t)seed;
    r->seeded = true;
    return PM_OK;
}

static pm_status read_top_k(struct openai_request *r, const json *v)
{
    int64_t k;
    if (!json_integer(v, &k) || k < -1 || k > 1 << 30) {
        return json_fail(r->doc, v, "a whole number from -1 to 1073741824");
    }
    r->params.top_k = k < 0 ? 0 : (int32_t)k; /* -1 is how others say off */
    return PM_OK;
}

static pm_status add_stop(struct openai_request *r, const json *v)
{
    size_t n = json_text_bytes(v);
    if (!json_is_string(v) || n == 0 || n > OPENAI_MAX_STOP_BYTES ||
        strlen(json_text(v)) != n) {
        return json_fail(r->doc, v, "a text of 1 to 1024 bytes");
    }
    r->stop[r->params.n_stop++] = json_text(v);
    return PM_OK;
}

static pm_status read_stop(struct openai_request *r, const json *v)
{
    if (json_is_string(v)) return add_stop(r, v);
    if (!json_is_array(v) || json_size(v) > OPENAI_MAX_STOP) {
        return json_fail(r->doc, v, "a text or a list of up to 16");
    }
    for (const json *s = json_child(v); s; s = json_next(s)) {
        TRY(add_stop(r, s));
    }
    return PM_OK;
}

/* A token's id as the key of a member. */
static bool id_of_key(const json *v, int32_t *id)
{
    const char *key = json_key(v);
    long value = 0;
    size_t n = json_key_bytes(v);
    if (n == 0 || n > 9 || strspn(key, "0123456789") != n) return false;
    value = strtol(key, NULL, 10);
    *id = (int32_t)value;
    return true;
}

static pm_status read_logit_bias(struct openai_request *r, const json *v)
{
    int n = 0;
    if (!json_is_object(v) || json_size(v) > OPENAI_MAX_BIAS) {
        return json_fail(r->doc, v, "an object of up to 1024 token ids");
    }
    TRY(alloc_array(&r->bias, (size_t)json_size(v), sizeof *r->bias, "logit_bias"));
    for (const json *m = json_child(v); m; m = json_next(m)) {
        if (!id_of_key(m, &r->bias[n].id)) return json_fail(r->doc, m, "a token id as the key");
        if (!json_is_number(m) || !(fabs(json_number(m)) <= 100)) {
            return json_fail(r->doc, m, "a number from -100 to 100");
        }
        r->bias[n++].bias = (float)json_number(m);
    }
    r->params.n_bias = n;
    return PM_OK;
}

/* A number for completions, true or false for a chat. */
static pm_status read_logprobs(struct openai_request *r, const json *v)
{
    int64_t n = 0;
    if (r->endpoint == OPENAI_CHAT) {
        if (!json_is_bool(v)) return json_fail(r->doc, v, "true or false");
        r->logprobs = json_true(v);
        return PM_OK;
    }
    if (!json_integer(v, &n) || n < 0 || n > OPENAI_MAX_TOP) {
        return json_fail(r->doc, v, "a whole number from 0 to 32");
    }
    r->top = (int)n;
    return PM_OK;
}

static pm_status read_stream_options(struct openai_request *r, const json *v)
{
    if (!json_is_object(v)) return json_fail(r->doc, v, "an object");
    for (const json *m = json_child(v); m; m = json_next(m)) {
        if (json_is_null(m)) continue;
        if (strcmp(json_key(m), "include_usage") == 0 && json_is_bool(m)) {
            r->include_usage = json_true(m);
        } else if (strcmp(json_key(m), "include_obfuscation") != 0 || !json_is_bool(m) ||
                   json_true(m)) {
            return json_fail(r->doc, m, "include_usage: true or false, and nothing else");
        }
    }
    return PM_OK;
}

static pm_status read_response_format(struct openai_request *r, const json *v)
{
    const json *type = json_get(v, "type"), *spec = json_get(v, "json_schema");
    const char *name = type && json_is_string(type) ? json_text(type) : "";
    if (!json_is_object(v)) return json_fail(r->doc, v, "an object");
    if (strcmp(name, "text") == 0) return PM_OK;
    if (strcmp(name, "json_object") == 0) {
        json_put(&r->schema, "{\"type\":\"object\"}");
        return r->schema.status;
    }
    if (strcmp(name, "json_schema") != 0) {
        return json_fail(r->doc, type ? type : v, "type text, json_object or json_schema");
    }
    if (!spec || !json_is_object(json_get(spec, "schema"))) {
        return json_fail(r->doc, spec ? spec : v, "json_schema.schema, an object");
    }
    openai_put_value(&r->schema, json_get(spec, "schema"));
    return r->schema.status;
}

static pm_status read_tools(struct openai_request *r, const json *v)
{
    if (!json_is_array(v) || json_size(v) > OPENAI_MAX_TOOL) {
        return json_fail(r->doc, v, "a list of up to 128 tools");
    }
    for (const json *t = json_child(v); t; t = json_next(t)) {
        const json *type = json_get(t, "type"), *f = json_get(t, "function");
        const json *name = json_get(f, "name"), *p = json_get(f, "parameters");
        if (!json_is_object(t)) return json_fail(r->doc, t, "an object");
        if (!type || !json_is_string(type) || strcmp(json_text(type), "function") != 0) {
            return json_fail(r->doc, type ? type : t, "type \"function\"");
        }
        if (!name || !json_is_string(name) || json_text_bytes(name) == 0 ||
            strlen(json_text(name)) != json_text_bytes(name)) {
            return json_fail(r->doc, name ? name : t, "function.name, a text");
        }
        if (p && !json_is_null(p) && !json_is_object(p)) {
            return json_fail(r->doc, p, "a JSON schema as an object");
        }
    }
    if (json_size(v) > 0) r->tools = v;
    return PM_OK;
}

static pm_status read_tool_choice(struct openai_request *r, const json *v)
{
    static const char *const name[] = {"none", "auto", "required"};
    const json *f = json_get(v, "function");
    for (int i = 0; json_is_string(v) && i < 3; i++) {
        if (strcmp(json_text(v), name[i]) != 0) continue;
        r->tool_choice = (enum tool_choice)i;
        return PM_OK;
    }
    if (!json_is_object(v) || !f || !json_is_string(json_get(f, "name"))) {
        return json_fail(r->doc, v,
                         "\"none\", \"auto\", \"required\" or {\"type\": \"function\", "
                         "\"function\": {\"name\": ...}}");
    }
    r->tool_choice = TOOLS_NAMED;
    r->tool = json_get(f, "name");
    return PM_OK;
}

static pm_status read_deadline(struct openai_request *r, const json *v)
{
    double ms = json_number(v);
    if (!json_is_number(v) || !(ms >= 1) || !(ms <= 1e10)) {
        return json_fail(r->doc, v, "milliseconds from 1 to 1e+10");
    }
    r->params.deadline_us = (int64_t)(ms * 1000);
    return PM_OK;
}

/* Variables of the template that OpenAI made a field of. */
static pm_status read_effort(struct openai_request *r, const json *v)
{
    if (!json_is_string(v) || json_text_bytes(v) > 32) return json_fail(r->doc, v, "a text");
    json_put(&r->options, "\"reasoning_effort\":");
    json_put_string(&r->options, json_text(v), json_text_bytes(v));
    return r->options.status;
}

#define AT(f) offsetof(struct openai_request, f)
enum {
    C = OPENAI_COMPLETION,
    H = OPENAI_CHAT,
    G = C | H,
    T = OPENAI_TEMPLATE,
    K = OPENAI_TOKENIZE,
    D = OPENAI_DETOKENIZE,
    MANY = 1 << 30
};

static const struct field fields[] = {
    {"model", G | T | K | D, TEXT, AT(model), 0, 0, NULL, NULL},
    {"prompt", C | K, JSON, AT(prompt), 0, 0, NULL, NULL},
    {"content", K, JSON, AT(prompt), 0, 0, NULL, NULL},
    {"tokens", D, LIST, AT(tokens), 0, 0, NULL, NULL},
    {"messages", H | T | K, LIST, AT(messages), 0, 0, NULL, NULL},
    {"tools", H | T | K, READ, 0, 0, 0, NULL, read_tools},
    {"chat_template_kwargs", H | T | K, OBJECT, AT(kwargs), 0, 0, NULL, NULL},
    {"add_generation_prompt", H | T | K, BOOL, AT(add_generation_prompt), 0, 0, NULL, NULL},
    {"reasoning_effort", H | T | K, READ, 0, 0, 0, NULL, read_effort},
    {"max_tokens", G, INT, AT(params.max_tokens), 0, MANY, NULL, NULL},
    {"max_completion_tokens", H, INT, AT(max_completion_tokens), 0, MANY, NULL, NULL},
    {"min_tokens", G, INT, AT(params.min_tokens), 0, MANY, NULL, NULL},
    {"temperature", G, NUMBER, AT(params.temperature), 0, 100, NULL, NULL},
    {"top_p", G, NUMBER, AT(params.top_p), 1e-9, 1, NULL, NULL},
    {"min_p", G, NUMBER, AT(params.min_p), 0, 1, NULL, NULL},
    {"top_k", G, READ, 0, 0, 0, NULL, read_top_k},
    {"presence_penalty", G, NUMBER, AT(params.presence_penalty), -2, 2, NULL, NULL},
    {"frequency_penalty", G, NUMBER, AT(params.frequency_penalty), -2, 2, NULL, NULL},
    {"repetition_penalty", G, NUMBER, AT(params.repeat_penalty), 1e-6, 100, NULL, NULL},
    {"repeat_penalty", G, NUMBER, AT(params.repeat_penalty), 1e-6, 100, NULL, NULL},
    {"seed", G, READ, 0, 0, 0, NULL, read_seed},
    {"n", G, INT, AT(n), 1, OPENAI_MAX_N, NULL, NULL},
    {"best_of", C, INT, AT(best_of), 1, OPENAI_MAX_N, NULL, NULL},
    {"stop", G, READ, 0, 0, 0, NULL, read_stop},
    {"ignore_eos", G, BOOL, AT(params.ignore_eos), 0, 0, NULL, NULL},
    {"logit_bias", G, READ, 0, 0, 0, NULL, read_logit_bias},
    {"logprobs", G, READ, 0, 0, 0, NULL, read_logprobs},
    {"top_logprobs", H, INT, AT(top_logprobs), 0, OPENAI_MAX_TOP, NULL, NULL},
    {"echo", C, BOOL, AT(echo), 0, 0, NULL, NULL},
    {"stream", G, BOOL, AT(stream), 0, 0, NULL, NULL},
    {"stream_options", G, READ, 0, 0, 0, NULL, read_stream_options},
    {"response_format", G, READ, 0, 0, 0, NULL, read_response_format},
    {"tool_choice", H, READ, 0, 0, 0, NULL, read_tool_choice},
    {"parallel_tool_calls", H, BOOL, AT(parallel_tool_calls), 0, 0, NULL, NULL},
    {"priority", G, INT, AT(params.priority), -MANY, MANY, NULL, NULL},
    {"cache_salt", G, TEXT, AT(salt), 0, 0, NULL, NULL},
    {"deadline_ms", G, READ, 0, 0, 0, NULL, read_deadline},
    {"return_token_ids", G, BOOL, AT(return_token_ids), 0, 0, NULL, NULL},
    {"add_special_tokens", C | K, BOOL, AT(add_special_tokens), 0, 0, NULL, NULL},
    {"add_special", K, BOOL, AT(add_special_tokens), 0, 0, NULL, NULL},
    {"parse_special", K, BOOL, AT(parse_special_tokens), 0, 0, NULL, NULL},
    {"return_token_strs", K, BOOL, AT(return_token_texts), 0, 0, NULL, NULL},
    {"with_pieces", K, BOOL, AT(return_token_texts), 0, 0, NULL, NULL},

    {"user", G | T | K | D, ACCEPTED, 0, 0, 0, NULL, NULL},
    {"metadata", G, ACCEPTED, 0, 0, 0, NULL, NULL},
    {"store", G, ACCEPTED, 0, 0, 0, NULL, NULL},
    {"service_tier", G, ACCEPTED, 0, 0, 0, NULL, NULL},
    {"safety_identifier", G, ACCEPTED, 0, 0, 0, NULL, NULL},
    {"prompt_cache_key", G, ACCEPTED, 0, 0, 0, NULL, NULL},
    {"prompt_cache_retention", G, ACCEPTED, 0, 0, 0, NULL, NULL},
    {"request_id", G, ACCEPTED, 0, 0, 0, NULL, NULL},
    {"cache_prompt", G, ACCEPTED, 0, 0, 0, NULL, NULL},

    {"suffix", C, FIXED, 0, 0, 0, "\"\"", NULL},
    {"use_beam_search", G, FIXED, 0, 0, 0, "false", NULL},
    {"length_penalty", G, FIXED, 0, 0, 0, "1", NULL},
    {"skip_special_tokens", G, FIXED, 0, 0, 0, "true", NULL},
    {"spaces_between_special_tokens", G, FIXED, 0, 0, 0, "true", NULL},
    {"include_stop_str_in_output", G, FIXED, 0, 0, 0, "false", NULL},
    {"stop_token_ids", G, FIXED, 0, 0, 0, "[]", NULL},
    {"continue_final_message", H | T | K, FIXED, 0, 0, 0, "false", NULL},
    {"add_special_tokens", H, FIXED, 0, 0, 0, "false", NULL},
    {"echo", H, FIXED, 0, 0, 0, "false", NULL},
    {"modalities", H, FIXED, 0, 0, 0, "[\"text\"]", NULL},
    {"verbosity", H, FIXED, 0, 0, 0, "\"medium\"", NULL},

    {"functions", H, REFUSED, 0, 0, 0, "give them as tools", NULL},
    {"function_call", H, REFUSED, 0, 0, 0, "give it as tool_choice", NULL},
    {"audio", H, REFUSED, 0, 0, 0, "the model makes text", NULL},
    {"prediction", H, REFUSED, 0, 0, 0, "there is no speculation", NULL},
    {"web_search_options", H, REFUSED, 0, 0, 0, "there is no search", NULL},
    {"chat_template", H | T | K, REFUSED, 0, 0, 0, "the checkpoint's own is used", NULL},
    {"documents", H | T | K, REFUSED, 0, 0, 0, "give them in chat_template_kwargs", NULL},
    {"prompt_logprobs", G, REFUSED, 0, 0, 0, "completions have echo with logprobs", NULL},
    {"guided_json", G, REFUSED, 0, 0, 0, "give it as response_format", NULL},
    {"structured_outputs", G, REFUSED, 0, 0, 0, "give it as response_format", NULL},
    {NULL, 0, 0, 0, 0, 0, NULL, NULL},
};

static const struct field *find_field(enum openai_endpoint endpoint, const json *member)
{
    for (const struct field *f = fields; f->name; f++) {
        if (f->endpoints & endpoint && strcmp(f->name, json_key(member)) == 0 &&
            strlen(f->name) == json_key_bytes(member)) {
            return f;
        }
    }
    return NULL;
}

static bool same_value(const json *v, const char *text)
{
    struct json_out o = {0};
    bool same;
    openai_put_value(&o, v);
    same = o.status == PM_OK && strcmp(o.text, text) == 0;
    free(o.text);
    return same;
}

static pm_status read_field(struct openai_request *r, const struct field *f, const json *v)
{
    const json *root = json_root(r->doc);
    char *at = (char *)r + f->offset;
    switch (f->kind) {
    case INT:
        return json_want_int(r->doc, root, f->name, (int64_t)f->min, (int64_t)f->max,
                             (int *)(void *)at);
    case NUMBER:
        return json_want_float(r->doc, root, f->name, f->min, f->max, (float *)(void *)at);
    case BOOL: return json_want_bool(r->doc, root, f->name, (bool *)(void *)at);
    case TEXT: return json_want_text(r->doc, root, f->name, (const char **)(void *)at);
    case LIST:
    case OBJECT:
        if (f->kind == LIST && !json_is_array(v)) return json_fail(r->doc, v, "a list");
        if (f->kind == OBJECT && !json_is_object(v)) return json_fail(r->doc, v, "an object");
        memcpy(at, &v, sizeof v);
        return PM_OK;
    case JSON: memcpy(at, &v, sizeof v); return PM_OK;
    case READ: return f->read(r, v);
    case ACCEPTED: return PM_OK;
    case FIXED:
        if (same_value(v, f->note)) return PM_OK;
        return json_fail(r->doc, v, f->note);
    case REFUSED: break;
    }
    return fail(PM_ERR_UNSUPPORTED, "%s: %s: not supported: %s", json_name(r->doc), f->name,
                f->note);
}

pm_status openai_read_fields(struct openai_request *r)
{
    const json *root = json_root(r->doc);
    if (!json_is_object(root)) return json_fail(r->doc, root, "an object");
    for (const json *m = json_child(root); m; m = json_next(m)) {
        const struct field *f = find_field(r->endpoint, m);
        r->param = json_key(m);
        if (!f) {
            char name[JSON_EXCERPT];
            return fail(PM_ERR_ARG, "%s: %s: this field is not known here", json_name(r->doc),
                        json_excerpt(name, json_key(m), json_key_bytes(m)));
        }
        if (!json_is_null(m)) TRY(read_field(r, f, m));
    }
    r->param = NULL;
    return PM_OK;
}
