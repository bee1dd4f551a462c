/* toolcall_read.c - the text between the markers of tool calls becomes names and arguments.
 *
 * Arguments that the model wrote as JSON go on byte by byte as they are: reading them into
 * numbers and back would change some. They are checked to be one JSON object. Formats that
 * spell arguments as text between tags get JSON made of it: a parameter that the request's
 * tools declare as a text is one, any other is the JSON value that it spells, if it does.
 *
 * Malformed is not an error here: the caller then shows the text as it came. */
#include <stdlib.h>
#include <string.h>

#include "toolcall_inside.h"

/* A view of text that is eaten from the left. */
struct view {
    const char *at, *end;
};

static size_t left(const struct view *v)
{
    return (size_t)(v->end - v->at);
}

static void skip_blanks(struct view *v)
{
    while (v->at < v->end && strchr(" \t\r\n", *v->at) && *v->at) {
        v->at++;
    }
}

static struct view trimmed(struct view v)
{
    skip_blanks(&v);
    while (v.end > v.at && strchr(" \t\r\n", v.end[-1]) && v.end[-1]) {
        v.end--;
    }
    return v;
}

static bool skip(struct view *v, const char *text)
{
    size_t n = strlen(text);
    if (left(v) < n || memcmp(v->at, text, n) != 0) return false;
    v->at += n;
    return true;
}

/* What stands before `text`, which is eaten too. */
static bool take_until(struct view *v, const char *text, struct view *out)
{
    size_t n = strlen(text);
    for (const char *at = v->at; (size_t)(v->end - at) >= n; at++) {
        if (memcmp(at, text, n) != 0) continue;
        *out = (struct view){v->at, at};
        v->at = at + n;
        return true;
    }
    return false;
}

void call_list_clear(struct call_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->call[i].name.byte);
        free(list->call[i].arguments.byte);
        free(list->call[i].id.byte);
    }
    free(list->call);
    *list = (struct call_list){0};
}

static pm_status add_call(struct call_list *list, struct parsed_call **out)
{
    TRY(grow_array(&list->call, &list->capacity, list->n + 1, sizeof *list->call));
    *out = &list->call[list->n++];
    **out = (struct parsed_call){0};
    return PM_OK;
}

static pm_status put_view(struct text *t, struct view v)
{
    return text_put(t, v.at, left(&v));
}

static struct json_doc *parse(const char *text, size_t n)
{
    struct json_doc *doc = NULL;
    return json_parse(&doc, "call", text, n) == PM_OK ? doc : NULL;
}

bool is_json_object(const char *text, size_t n)
{
    struct json_doc *doc = parse(text, n);
    bool object = doc && json_is_object(json_root(doc));
    json_free(doc);
    return object;
}

/* JSON text: values as the model spelled them */

/* The end of the value at v->at of well-formed JSON. */
static void skip_value(struct view *v)
{
    int depth = 0;
    for (; v->at < v->end; v->at++) {
        char c = *v->at;
        if (c == '"') {
            for (v->at++; v->at < v->end && *v->at != '"'; v->at++) {
                if (*v->at == '\\') v->at++;
            }
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth-- == 0) return;
        } else if (c == ',' && depth == 0) {
            return;
        }
    }
}

/* The text of object[key] in well-formed JSON without escapes in its keys. */
static bool raw_member(struct view object, const char *key, struct view *out)
{
    size_t n = strlen(key);
    struct view v = trimmed(object);
    if (!skip(&v, "{")) return false;
    for (;;) {
        const char *name;
        bool found;
        skip_blanks(&v);
        if (!skip(&v, "\"")) return false;
        name = v.at;
        while (v.at < v.end && *v.at != '"') {
            v.at += *v.at == '\\' ? 2 : 1;
        }
        found = (size_t)(v.at - name) == n && memcmp(name, key, n) == 0;
        v.at++;
        skip_blanks(&v);
        v.at++; /* the colon */
        out->at = v.at;
        skip_value(&v);
        out->end = v.at;
        *out = trimmed(*out);
        if (found) return true;
        if (!skip(&v, ",")) return false;
    }
}

/* Arguments: an object, a text that spells one, or null for none. */
static pm_status put_arguments(struct text *out, struct view raw, bool *well)
{
    struct json_doc *doc = parse(raw.at, left(&raw));
    const json *root = doc ? json_root(doc) : NULL;
    pm_status status = PM_OK;
    if (json_is_object(root)) {
        status = put_view(out, raw);
    } else if (json_is_string(root) && is_json_object(json_text(root), json_text_bytes(root))) {
        status = text_put(out, json_text(root), json_text_bytes(root));
    } else if (json_is_null(root)) {
        status = text_put(out, "{}", 2);
    } else {
        *well = false;
    }
    json_free(doc);
    return status;
}

/* {"name": ..., "arguments" or "parameters": {...}, "id": ...}; may be inside "function". */
static pm_status read_object(struct call_list *out, struct view raw, const json *v, bool *well)
{
    const json *function = json_get(v, "function"), *name, *id = json_get(v, "id");
    struct view inside = raw, arguments;
    struct parsed_call *call;
    if (json_is_object(function)) {
        if (!raw_member(raw, "function", &inside)) *well = false;
        v = function;
    }
    name = json_get(v, "name");
    if (!*well || !json_is_string(name) || json_text_bytes(name) == 0) {
        *well = false;
        return PM_OK;
    }
    TRY(add_call(out, &call));
    TRY(text_put(&call->name, json_text(name), json_text_bytes(name)));
    if (json_is_string(id)) TRY(text_put(&call->id, json_text(id), json_text_bytes(id)));
    if (raw_member(inside, "arguments", &arguments) ||
        raw_member(inside, "parameters", &arguments)) {
        return put_arguments(&call->arguments, arguments, well);
    }
    *well = !json_get(v, "arguments") && !json_get(v, "parameters"); /* an escaped key */
    return text_put(&call->arguments, "{}", 2);
}

/* An object or a list of them, with nothing behind. */
static pm_status read_json(struct call_list *out, struct view body, bool *well)
{
    struct json_doc *doc = parse(body.at, left(&body));
    const json *root = doc ? json_root(doc) : NULL;
    struct view v = trimmed(body), one;
    pm_status status = PM_OK;
    *well = json_is_object(root) || (json_is_array(root) && json_size(root) > 0);
    if (json_is_object(root)) {
        status = read_object(out, v, root, well);
    } else if (*well) {
        v.at++;
        for (const json *m = json_child(root); m && *well && status == PM_OK;
             m = json_next(m)) {
            one.at = v.at;
            skip_value(&v);
            one.end = v.at++;
            *well = json_is_object(m);
            if (*well) status = read_object(out, one, m, well);
        }
    }
    json_free(doc);
    return status;
}

/* Llama 3 writes several calls with ; between them. */
static pm_status read_llama3(struct call_list *out, struct view body, bool *well)
{
    do {
        struct view one = {body.at, body.at};
        int depth = 0;
        for (; body.at < body.end; body.at++) { /* up to the end of an object */
            if (*body.at == '"') {
                for (body.at++; body.at < body.end && *body.at != '"'; body.at++) {
                    if (*body.at == '\\') body.at++;
                }
                if (body.at >= body.end) break;
            }
            if (*body.at == '{') depth++;
            if (*body.at == '}' && --depth == 0) break;
        }
        if (body.at >= body.end) {
            *well = false;
            return PM_OK;
        }
        one.end = ++body.at;
        TRY(read_json(out, one, well));
        skip_blanks(&body);
    } while (*well && skip(&body, ";"));
    *well = *well && left(&body) == 0;
    return PM_OK;
}

/* Mistral: a list, or NAME[ARGS]{...} with the marker before each further one. */
static pm_status read_mistral(struct call_list *out, struct view body, bool *well)
{
    struct view rest = trimmed(body), name, one, id;
    if (left(&rest) > 0 && (*rest.at == '[' || *rest.at == '{')) {
        return read_json(out, rest, well);
    }
    *well = left(&rest) > 0;
    while (*well && left(&rest) > 0) {
        struct parsed_call *call;
        if (!take_until(&rest, "[TOOL_CALLS]", &one)) {
            one = rest;
            rest.at = rest.end;
        }
        *well = take_until(&one, "[ARGS]", &name);
        if (!*well) break;
        id = name;
        TRY(add_call(out, &call));
        if (take_until(&id, "[CALL_ID]", &name)) TRY(put_view(&call->id, trimmed(id)));
        name = trimmed(name);
        *well = left(&name) > 0;
        TRY(put_view(&call->name, name));
        if (*well) TRY(put_arguments(&call->arguments, trimmed(one), well));
    }
    return PM_OK;
}

/* DeepSeek V3: function SEP NAME ```json {...} ```; since V3.1: NAME SEP {...}. */
static pm_status read_deepseek(struct call_list *out, struct view body, bool *well)
{
    struct view rest = trimmed(body), one, name;
    *well = left(&rest) > 0;
    while (*well && left(&rest) > 0) {
        struct parsed_call *call;
        struct view fenced;
        skip_blanks(&rest);
        *well = skip(&rest, "<｜tool▁call▁begin｜>") &&
                take_until(&rest, "<｜tool▁call▁end｜>", &one) &&
                take_until(&one, "<｜tool▁sep｜>", &name);
        if (!*well) break;
        fenced = one;
        TRY(add_call(out, &call));
        if (take_until(&fenced, "```json", &name)) {
            *well = take_until(&fenced, "```", &one);
        }
        name = trimmed(name);
        *well = *well && left(&name) > 0;
        TRY(put_view(&call->name, name));
        if (*well) TRY(put_arguments(&call->arguments, trimmed(one), well));
        skip_blanks(&rest);
    }
    return PM_OK;
}

/* functions.NAME:NUMBER, which is the id as well. */
static pm_status read_kimi(struct call_list *out, struct view body, bool *well)
{
    struct view rest = trimmed(body), one, id;
    *well = left(&rest) > 0;
    while (*well && left(&rest) > 0) {
        struct parsed_call *call;
        struct view name;
        *well = skip(&rest, "<|tool_call_begin|>") &&
                take_until(&rest, "<|tool_call_end|>", &one) &&
                take_until(&one, "<|tool_call_argument_begin|>", &id);
        if (!*well) break;
        id = name = trimmed(id);
        TRY(add_call(out, &call));
        TRY(put_view(&call->id, id));
        skip(&name, "functions.");
        for (const char *at = name.at; at < name.end; at++) {
            if (*at == ':') name.end = at;
        }
        *well = left(&name) > 0;
        TRY(put_view(&call->name, name));
        if (*well) TRY(put_arguments(&call->arguments, trimmed(one), well));
        skip_blanks(&rest);
    }
    return PM_OK;
}

/* Tags */

pm_status text_parameters_of(struct text *out, const json *tools)
{
    for (const json *tool = json_child(tools); tool; tool = json_next(tool)) {
        const json *f =
            json_is_object(json_get(tool, "function")) ? json_get(tool, "function") : tool;
        const json *name = json_get(f, "name");
        const json *members = json_get(json_get(f, "parameters"), "properties");
        if (!json_is_string(name) || strlen(json_text(name)) != json_text_bytes(name)) continue;
        for (const json *m = json_child(members); m; m = json_next(m)) {
            const char *type = json_text(json_get(m, "type"));
            if (!type || strcmp(type, "string") != 0) continue;
            if (strlen(json_key(m)) != json_key_bytes(m)) continue;
            TRY(text_put(out, json_text(name), json_text_bytes(name) + 1));
            TRY(text_put(out, json_key(m), json_key_bytes(m) + 1));
        }
    }
    return PM_OK;
}

static bool is_view(const char *text, size_t n, struct view v)
{
    return n == left(&v) && memcmp(text, v.at, n) == 0;
}

static bool is_text_parameter(const struct text *parameters, struct view name, struct view key)
{
    for (size_t i = 0; i < parameters->n;) {
        const char *f = parameters->byte + i, *k = f + strlen(f) + 1;
        i = (size_t)(k - parameters->byte) + strlen(k) + 1;
        if (is_view(f, strlen(f), name) && is_view(k, strlen(k), key)) return true;
    }
    return false;
}

/* Adds "key": value to an object of JSON that is being written. */
static pm_status put_parameter(struct text *out, const struct text *parameters,
                               struct view name, struct view key, struct view value)
{
    struct json_out o = {0};
    struct json_doc *doc = NULL;
    pm_status status;
    if (!is_text_parameter(parameters, name, key)) {
        struct view bare = trimmed(value);
        doc = parse(bare.at, left(&bare));
        if (doc) value = bare;
    }
    json_put(&o, out->n > 0 ? ", " : "{");
    json_put_string(&o, key.at, left(&key));
    json_put(&o, ": ");
    if (!doc) json_put_string(&o, value.at, left(&value));
    TRY_DONE(o.status);
    TRY_DONE(text_put(out, o.text, o.n));
    if (doc) TRY_DONE(put_view(out, value));
done:
    json_free(doc);
    free(o.text);
    return status;
}

static pm_status close_arguments(struct text *out)
{
    return text_put(out, out->n > 0 ? "}" : "{}", out->n > 0 ? 1 : 2);
}

/* NAME, then <arg_key>K</arg_key> <arg_value>V</arg_value> again and again. */
static pm_status read_glm4(struct call_list *out, struct view body,
                           const struct text *parameters, bool *well)
{
    struct view rest = body, name = body, key, value;
    struct parsed_call *call;
    if (take_until(&rest, "<arg_key>", &name)) {
        rest.at -= strlen("<arg_key>");
    } else {
        rest.at = rest.end;
    }
    name = trimmed(name);
    *well = left(&name) > 0 && !memchr(name.at, '<', left(&name)) &&
            !memchr(name.at, '\n', left(&name)) && *name.at != '{';
    if (!*well) return PM_OK;
    TRY(add_call(out, &call));
    TRY(put_view(&call->name, name));
    for (skip_blanks(&rest); left(&rest) > 0; skip_blanks(&rest)) {
        *well = skip(&rest, "<arg_key>") && take_until(&rest, "</arg_key>", &key);
        if (!*well) return PM_OK;
        skip_blanks(&rest);
        *well = skip(&rest, "<arg_value>") && take_until(&rest, "</arg_value>", &value);
        if (!*well) return PM_OK;
        TRY(put_parameter(&call->arguments, parameters, name, trimmed(key), value));
    }
    return close_arguments(&call->arguments);
}

/* The tags of a format: begin NAME stop ... end, and the same for parameters. */
struct tags {
    const char *call, *call_stop, *call_end, *key, *key_stop, *key_end;
    bool lines; /* a value stands on lines of its own */
};

static struct view without_lines(struct view v)
{
    if (v.at < v.end && *v.at == '\n') v.at++;
    if (v.at < v.end && v.end[-1] == '\n') v.end--;
    return v;
}

static pm_status read_tags(struct call_list *out, struct view body, const struct tags *tags,
                           const struct text *parameters, bool *well)
{
    struct view rest = trimmed(body), name, key, value, inside;
    *well = left(&rest) > 0;
    for (; *well && left(&rest) > 0; skip_blanks(&rest)) {
        struct parsed_call *call;
        *well = skip(&rest, tags->call) && take_until(&rest, tags->call_stop, &name) &&
                left(&name) > 0 && take_until(&rest, tags->call_end, &inside);
        if (!*well) break;
        TRY(add_call(out, &call));
        TRY(put_view(&call->name, name));
        for (skip_blanks(&inside); *well && left(&inside) > 0; skip_blanks(&inside)) {
            *well = skip(&inside, tags->key) && take_until(&inside, tags->key_stop, &key) &&
                    take_until(&inside, tags->key_end, &value);
            if (!*well) break;
            if (tags->lines) value = without_lines(value);
            TRY(put_parameter(&call->arguments, parameters, name, key, value));
        }
        TRY(close_arguments(&call->arguments));
    }
    return PM_OK;
}

/* JSON, or, of the same family's models for code, <function=NAME> <parameter=K> V. */
static pm_status read_hermes(struct call_list *out, struct view body,
                             const struct text *parameters, bool *well)
{
    static const struct tags coder = {"<function=",   ">", "</function>", "<parameter=", ">",
                                      "</parameter>", true};
    struct view v = trimmed(body);
    if (left(&v) > 0 && *v.at == '<') return read_tags(out, v, &coder, parameters, well);
    return read_json(out, v, well);
}

pm_status toolcall_read(enum toolcall_format format, const char *body, size_t n,
                        const struct text *text_parameters, struct call_list *out, bool *well)
{
    static const struct tags minimax = {
        "<invoke name=\"", "\">", "</invoke>", "<parameter name=\"", "\">",
        "</parameter>",    true};
    struct view v = {body, body + n};
    struct parsed_call *call;
    pm_status status = PM_OK;
    *well = true;
    switch (format) {
    case TOOLCALL_HERMES: status = read_hermes(out, v, text_parameters, well); break;
    case TOOLCALL_MISTRAL: status = read_mistral(out, v, well); break;
    case TOOLCALL_GRANITE: status = read_json(out, v, well); break;
    case TOOLCALL_LLAMA3: status = read_llama3(out, trimmed(v), well); break;
    case TOOLCALL_DEEPSEEK_V3: status = read_deepseek(out, v, well); break;
    case TOOLCALL_KIMI_K2: status = read_kimi(out, v, well); break;
    case TOOLCALL_GLM4: status = read_glm4(out, v, text_parameters, well); break;
    case TOOLCALL_MINIMAX_M2:
        status = read_tags(out, v, &minimax, text_parameters, well);
        break;
    case TOOLCALL_HARMONY:
        TRY(add_call(out, &call));
        v = trimmed(v);
        if (left(&v) == 0) return text_put(&call->arguments, "{}", 2);
        return put_arguments(&call->arguments, v, well);
    case TOOLCALL_NONE: *well = false;
    }
    *well = *well && out->n > 0;
    return status;
}
