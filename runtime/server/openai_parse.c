/* openai_parse.c - a request as a whole: defaults, fields, and what they mean together. */
#include <stdlib.h>
#include <string.h>

#include "openai_fields.h"

void openai_put_value(struct json_out *o, const json *v)
{
    int64_t whole;
    if (json_is_string(v)) {
        json_put_string(o, json_text(v), json_text_bytes(v));
    } else if (json_is_number(v)) {
        if (json_integer(v, &whole)) {
            json_put(o, "%lld", (long long)whole);
        } else {
            json_put(o, "%.17g", json_number(v));
        }
    } else if (json_is_object(v) || json_is_array(v)) {
        json_put(o, json_is_object(v) ? "{" : "[");
        for (const json *m = json_child(v); m; m = json_next(m)) {
            if (json_is_object(v)) {
                json_put_string(o, json_key(m), json_key_bytes(m));
                json_put(o, ":");
            }
            openai_put_value(o, m);
            if (json_next(m)) json_put(o, ",");
        }
        json_put(o, json_is_object(v) ? "}" : "]");
    } else {
        json_put(o, json_is_bool(v) ? json_true(v) ? "true" : "false" : "null");
    }
}

static pm_status wrong(struct openai_request *r, const char *param, const char *what)
{
    r->param = param;
    return fail(PM_ERR_ARG, "%s: %s: %s", json_name(r->doc), param, what);
}

/* The object that a call of one of the tools is, or the arguments of the one that was named. */
static void put_tool(struct json_out *o, const json *tool, bool named)
{
    const json *f = json_get(tool, "function"), *p = json_get(f, "parameters");
    const json *name = json_get(f, "name");
    if (!named) {
        json_put(o, "{\"type\":\"object\",\"properties\":{\"name\":{\"enum\":[");
        json_put_string(o, json_text(name), json_text_bytes(name));
        json_put(o, "]},\"arguments\":");
    }
    if (p && json_is_object(p)) {
        openai_put_value(o, p);
    } else {
        json_put(o, "{\"type\":\"object\"}");
    }
    if (!named) {
        json_put(o, "},\"required\":[\"name\",\"arguments\"],\"additionalProperties\":false}");
    }
}

static const json *find_tool(const json *tools, const json *name)
{
    for (const json *t = json_child(tools); t; t = json_next(t)) {
        const json *n = json_get(json_get(t, "function"), "name");
        if (strcmp(json_text(n), json_text(name)) == 0) return t;
    }
    return NULL;
}

/* What must come is enforced by a schema: the call as one JSON object. */
static pm_status settle_tools(struct openai_request *r)
{
    struct json_out *o = &r->schema;
    if (!r->tools) {
        if (r->tool_choice >= TOOLS_REQUIRED) {
            return wrong(r, "tool_choice", "asks for a call, and there are no tools");
        }
        r->tool_choice = TOOLS_NONE;
        return PM_OK;
    }
    if (r->tool_choice < TOOLS_REQUIRED) return PM_OK;
    if (o->n > 0) {
        return wrong(r, "response_format",
                     "cannot be combined with a tool call that must come");
    }
    if (r->tool_choice == TOOLS_NAMED) {
        const json *t = find_tool(r->tools, r->tool);
        if (!t) return wrong(r, "tool_choice", "names a function that is not among the tools");
        put_tool(o, t, true);
        return o->status;
    }
    json_put(o, "{\"anyOf\":[");
    for (const json *t = json_child(r->tools); t; t = json_next(t)) {
        put_tool(o, t, false);
        if (json_next(t)) json_put(o, ",");
    }
    json_put(o, "]}");
    return o->status;
}

/* Further variables of the template in one object. */
static pm_status settle_options(struct openai_request *r)
{
    struct json_out o = {0};
    pm_status status;
    if (r->options.n == 0) return PM_OK;
    if (r->kwargs && json_get(r->kwargs, "reasoning_effort")) {
        return wrong(r, "reasoning_effort", "stands in chat_template_kwargs as well");
    }
    json_put(&o, "{%s", r->options.text);
    for (const json *m = json_child(r->kwargs); m; m = json_next(m)) {
        json_put(&o, ",");
        json_put_string(&o, json_key(m), json_key_bytes(m));
        json_put(&o, ":");
        openai_put_value(&o, m);
    }
    json_put(&o, "}");
    TRY_DONE(o.status);
    TRY_DONE(json_parse(&r->options_doc, "chat_template_kwargs", o.text, o.n));
    r->kwargs = json_root(r->options_doc);
done:
    free(o.text);
    return status;
}

static pm_status settle(struct openai_request *r)
{
    bool generates = (r->endpoint & (OPENAI_COMPLETION | OPENAI_CHAT)) != 0;
    if (r->endpoint == OPENAI_COMPLETION && !r->prompt) {
        return wrong(r, "prompt", "missing");
    }
    if (r->endpoint & (OPENAI_CHAT | OPENAI_TEMPLATE) &&
        (!r->messages || json_size(r->messages) == 0)) {
        return wrong(r, "messages", "missing, wanted at least one");
    }
    if (r->endpoint == OPENAI_TOKENIZE && !r->prompt == !r->messages) {
        return wrong(r, "prompt", "wanted either prompt or messages");
    }
    if (r->endpoint == OPENAI_TOKENIZE && r->prompt && !json_is_string(r->prompt)) {
        return json_fail(r->doc, r->prompt, "a text");
    }
    if (r->endpoint == OPENAI_DETOKENIZE && !r->tokens) return wrong(r, "tokens", "missing");
    TRY(settle_options(r));
    if (!generates) return PM_OK;
    if (r->best_of && r->best_of != r->n) {
        return wrong(r, "best_of", "wanted the same as n: choices are not ranked");
    }
    if (r->max_completion_tokens >= 0) r->params.max_tokens = r->max_completion_tokens;
    if (r->endpoint == OPENAI_CHAT) {
        if (r->top_logprobs > 0 && !r->logprobs) {
            return wrong(r, "top_logprobs", "wanted logprobs: true beside it");
        }
        r->top = r->logprobs ? r->top_logprobs : -1;
    }
    TRY(settle_tools(r));
    if (r->schema.n > 0) {
        r->params.schema = r->schema.text;
        r->params.n_schema = r->schema.n;
    }
    r->params.stop = r->stop;
    r->params.bias = r->bias;
    r->params.n_logprob = r->top > 0 ? r->top : 0;
    if (r->echo && r->top >= 0) r->params.n_prompt_logprob = r->top;
    return PM_OK;
}

pm_status openai_parse(struct openai_request *r, enum openai_endpoint endpoint,
                       const struct openai_defaults *d, const char *text, size_t n)
{
    memset(r, 0, sizeof *r);
    pm_params_init(&r->params);
    r->endpoint = endpoint;
    r->params.max_tokens = endpoint == OPENAI_COMPLETION ? 16 : INT32_MAX;
    r->params.n_prompt_logprob = -1;
    r->params.temperature = d->temperature;
    r->params.top_p = d->top_p;
    r->params.top_k = d->top_k;
    r->params.min_p = d->min_p;
    r->params.repeat_penalty = d->repeat_penalty;
    r->max_completion_tokens = -1;
    r->n = 1;
    r->top = -1;
    r->tool_choice = TOOLS_AUTO;
    r->add_generation_prompt = r->add_special_tokens = r->parse_special_tokens = true;
    r->parallel_tool_calls = true;
    TRY(json_parse(&r->doc, "request", text, n));
    TRY(openai_read_fields(r));
    return settle(r);
}

void openai_request_clear(struct openai_request *r)
{
    json_free(r->doc);
    json_free(r->options_doc);
    free(r->bias);
    free(r->schema.text);
    free(r->options.text);
}
