/* chat.c - finds a checkpoint's template, and prepares what it is shown.
 *
 * Templates are written for transformers: they expect the variables that it passes, messages in
 * the form that its users write, and tools = None where there are none. The request comes in
 * the form of the chat API. The differences are small (chat.h lists them) and are mended by
 * rewriting the messages as JSON text, which happens only for a conversation that has them.
 *
 * Special tokens of tokenizer_config.json are constants of the checkpoint and count as bytes of
 * the template. Everything of the request stays the request's, but for a message's role when it
 * is one of the usual names. */
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/text/unicode.h"

enum { MAX_CONFIG_BYTES = 64 << 20, MAX_TOKENS = 32, MAX_VARIABLES = 128, PATH_BYTES = 4096 };

struct chat_token {
    char *name, *text;
};

struct chat {
    struct template *plain, *tools; /* tools NULL: plain does both */
    char *plain_source, *tools_source;
    struct chat_token token[MAX_TOKENS];
    size_t n_token;
};

/* Opening */

static pm_status set_template(struct template **t, char **source, const char *name,
                              const char *text, size_t n)
{
    if (*t) return fail(PM_ERR_FORMAT, "%s: given twice", name);
    TRY(copy_text(source, text, n));
    return template_parse(t, name, text, n);
}

static pm_status add_named(struct chat *c, struct json_doc *doc, const json *v)
{
    const char *name, *text;
    TRY(json_need_text(doc, v, "name", &name));
    TRY(json_need_text(doc, v, "template", &text));
    if (strcmp(name, "default") == 0) {
        return set_template(&c->plain, &c->plain_source, "chat_template", text,
                            json_text_bytes(json_get(v, "template")));
    }
    if (strcmp(name, "tool_use") == 0) {
        return set_template(&c->tools, &c->tools_source, "chat_template tool_use", text,
                            json_text_bytes(json_get(v, "template")));
    }
    return PM_OK; /* for other uses: retrieval and the like */
}

/* "chat_template": a text, a list of {name, template}, an object of name: template. */
static pm_status read_templates(struct chat *c, struct json_doc *doc, const json *v)
{
    if (!v || json_is_null(v)) return PM_OK;
    if (json_is_string(v)) {
        return set_template(&c->plain, &c->plain_source, "chat_template", json_text(v),
                            json_text_bytes(v));
    }
    if (!json_is_array(v)) return json_fail(doc, v, "a template or a list of {name, template}");
    for (const json *one = json_child(v); one; one = json_next(one)) {
        TRY(add_named(c, doc, one));
    }
    return PM_OK;
}

/* Members NAME_token: a text, or an added token {content}. */
static pm_status read_tokens(struct chat *c, const json *root)
{
    for (const json *m = json_child(root); m; m = json_next(m)) {
        const json *content = json_is_object(m) ? json_get(m, "content") : m;
        size_t n = json_key_bytes(m);
        struct chat_token *t = &c->token[c->n_token];
        if (n < 6 || strcmp(json_key(m) + n - 6, "_token") != 0) continue;
        if (!json_is_string(content) || c->n_token == MAX_TOKENS) continue;
        if (chat_token(c, json_key(m))) continue; /* the first file has the say */
        TRY(copy_text(&t->name, json_key(m), n));
        c->n_token++;
        TRY(copy_text(&t->text, json_text(content), json_text_bytes(content)));
    }
    return PM_OK;
}

static pm_status join_path(char path[PATH_BYTES], const char *folder, const char *name)
{
    int n = snprintf(path, PATH_BYTES, "%s/%s", folder, name);
    if (n < 0 || n >= PATH_BYTES)
        return fail(PM_ERR_TOO_LONG, "%s: the path is too long", folder);
    return PM_OK;
}

static pm_status read_jinja(struct chat *c, const char *path)
{
    FILE *file = fopen(path, "rb");
    struct text source = {0};
    pm_status status = PM_OK;
    char part[4096];
    size_t n;
    if (!file) return fail(PM_ERR_IO, "%s: cannot be read", path);
    while (status == PM_OK && source.n < MAX_CONFIG_BYTES &&
           (n = fread(part, 1, sizeof part, file)) > 0) {
        status = text_put(&source, part, n);
    }
    if (status == PM_OK && ferror(file)) status = fail(PM_ERR_IO, "%s: cannot be read", path);
    if (status == PM_OK) {
        status = set_template(&c->plain, &c->plain_source, "chat_template.jinja",
                              source.byte ? source.byte : "", source.n);
    }
    free(source.byte);
    fclose(file);
    return status;
}

/* Runs for a JSON file of the folder if it is there. */
static pm_status read_config(struct chat *c, const char *folder, const char *name, bool tokens)
{
    char path[PATH_BYTES];
    struct json_doc *doc;
    pm_status status = PM_OK;
    TRY(join_path(path, folder, name));
    if (access(path, F_OK) != 0) return PM_OK;
    TRY(json_load(&doc, path, MAX_CONFIG_BYTES));
    if (tokens) TRY_DONE(read_tokens(c, json_root(doc)));
    if (!c->plain) {
        TRY_DONE(read_templates(c, doc, json_get(json_root(doc), "chat_template")));
    }
done:
    json_free(doc);
    return status;
}

pm_status chat_open(struct chat **out, const char *folder)
{
    char path[PATH_BYTES];
    struct chat *c;
    pm_status status;
    TRY(join_path(path, folder, "chat_template.jinja"));
    TRY(alloc_array(&c, 1, sizeof *c, "chat template"));
    if (access(path, F_OK) == 0) TRY_DONE(read_jinja(c, path));
    TRY_DONE(read_config(c, folder, "chat_template.json", false));
    TRY_DONE(read_config(c, folder, "tokenizer_config.json", true));
    TRY_DONE(read_config(c, folder, "special_tokens_map.json", true));
    *out = NULL;
    if (c->plain || c->tools) {
        *out = c;
        c = NULL;
    }
done:
    chat_close(c);
    return status;
}

void chat_close(struct chat *c)
{
    if (!c) return;
    template_free(c->plain);
    template_free(c->tools);
    free(c->plain_source);
    free(c->tools_source);
    for (size_t i = 0; i < c->n_token; i++) {
        free(c->token[i].name);
        free(c->token[i].text);
    }
    free(c);
}

static bool use_tools(const struct chat *c, bool tools)
{
    return !c->plain || (tools && c->tools);
}

const char *chat_source(const struct chat *c, bool tools)
{
    return use_tools(c, tools) ? c->tools_source : c->plain_source;
}

const char *chat_token(const struct chat *c, const char *name)
{
    for (size_t i = 0; i < c->n_token; i++) {
        if (strcmp(c->token[i].name, name) == 0) return c->token[i].text;
    }
    return NULL;
}

/* Messages in the form of templates */

static bool is_text_part(const json *v)
{
    const char *type = json_text(json_get(v, "type"));
    return type && strcmp(type, "text") == 0 && json_is_string(json_get(v, "text"));
}

static pm_status put_parts(struct json_out *o, const json *content)
{
    struct text joined = {0};
    pm_status status = PM_OK;
    for (const json *part = json_child(content); part; part = json_next(part)) {
        const json *text = json_get(part, "text");
        if (!is_text_part(part)) {
            status = fail(PM_ERR_ARG, "messages: content has a part that is no text");
            goto done;
        }
        if (joined.n > 0 || part != json_child(content)) TRY_DONE(text_put(&joined, "\n", 1));
        TRY_DONE(text_put(&joined, json_text(text), json_text_bytes(text)));
    }
    json_put_string(o, joined.byte ? joined.byte : "", joined.n);
done:
    free(joined.byte);
    return status;
}

/* Arguments that are the text of an object go in as the object. */
static void put_arguments(struct json_out *o, const json *v)
{
    struct json_doc *doc;
    if (json_parse(&doc, "arguments", json_text(v), json_text_bytes(v)) == PM_OK) {
        if (json_is_object(json_root(doc))) {
            json_put(o, "%s", json_text(v));
            json_free(doc);
            return;
        }
        json_free(doc);
    }
    json_put_string(o, json_text(v), json_text_bytes(v));
}

static void put_scalar(struct json_out *o, const json *v)
{
    int64_t integer;
    if (json_number_text(v)) {
        json_put(o, "%s", json_number_text(v));
    } else if (json_integer(v, &integer)) {
        json_put(o, "%lld", (long long)integer);
    } else {
        json_put(o, json_is_null(v) ? "null" : json_true(v) ? "true" : "false");
    }
}

/* Writes a value as it is, but for the `arguments` of tool calls and lists in `content`. */
static pm_status put_value(struct json_out *o, const json *v, const char *key)
{
    bool object = json_is_object(v);
    if (key && json_is_string(v) && strcmp(key, "arguments") == 0) {
        put_arguments(o, v);
        return PM_OK;
    }
    if (json_is_string(v)) {
        json_put_string(o, json_text(v), json_text_bytes(v));
        return PM_OK;
    }
    if (!object && !json_is_array(v)) {
        put_scalar(o, v);
        return PM_OK;
    }
    json_put(o, object ? "{" : "[");
    for (const json *m = json_child(v); m; m = json_next(m)) {
        if (m != json_child(v)) json_put(o, ",");
        if (object) {
            json_put_string(o, json_key(m), json_key_bytes(m));
            json_put(o, ":");
        }
        TRY(put_value(o, m, object ? json_key(m) : key));
    }
    json_put(o, object ? "}" : "]");
    return o->status;
}

static const char *const reasoning_names[] = {"reasoning_content", "thinking", "reasoning"};

/* What a message says of its reasoning, under whichever name. */
static const json *reasoning_of(const json *message)
{
    for (size_t i = 0; i < sizeof reasoning_names / sizeof *reasoning_names; i++) {
        const json *v = json_get(message, reasoning_names[i]);
        if (v && !json_is_null(v)) return v;
    }
    return NULL;
}

static bool is_reasoning_name(const char *key)
{
    return strcmp(key, "thinking") == 0 || strcmp(key, "reasoning_content") == 0;
}

/* Templates read the reasoning under one name or the other. */
static pm_status put_reasoning(struct json_out *o, const json *message, bool *first)
{
    const json *reasoning = reasoning_of(message);
    for (int i = 0; reasoning && i < 2; i++) {
        json_put(o, "%s\"%s\":", *first ? "" : ",", reasoning_names[i]);
        TRY(put_value(o, reasoning, NULL));
        *first = false;
    }
    return PM_OK;
}

static pm_status put_message(struct json_out *o, const json *message)
{
    bool first = true;
    json_put(o, "{");
    for (const json *m = json_child(message); m; m = json_next(m)) {
        bool calls = strcmp(json_key(m), "tool_calls") == 0;
        if (json_is_null(m) || is_reasoning_name(json_key(m))) continue;
        if (!first) json_put(o, ",");
        first = false;
        json_put_string(o, json_key(m), json_key_bytes(m));
        json_put(o, ":");
        if (json_is_array(m) && strcmp(json_key(m), "content") == 0) {
            TRY(put_parts(o, m));
        } else {
            TRY(put_value(o, m, calls ? "" : NULL));
        }
    }
    TRY(put_reasoning(o, message, &first));
    json_put(o, "}");
    return o->status;
}

/* Whether a message has a form that templates do not know. */
static bool needs_rewrite(const json *message)
{
    const json *call = json_child(json_get(message, "tool_calls"));
    if (json_is_array(json_get(message, "content")) || reasoning_of(message)) return true;
    for (const json *m = json_child(message); m; m = json_next(m)) {
        if (json_is_null(m)) return true;
    }
    for (; call; call = json_next(call)) {
        if (json_is_string(json_get(json_get(call, "function"), "arguments"))) return true;
        if (json_is_string(json_get(call, "arguments"))) return true;
    }
    return false;
}

/* *doc = NULL when the messages can be shown as they are. */
static pm_status rewrite_messages(struct json_doc **doc, const json *messages)
{
    struct json_out o = {0};
    bool needed = false;
    pm_status status;
    *doc = NULL;
    for (const json *m = json_child(messages); m; m = json_next(m)) {
        if (!json_is_object(m)) return fail(PM_ERR_ARG, "messages: a message is no object");
        needed |= needs_rewrite(m);
    }
    if (!needed) return PM_OK;
    json_put(&o, "[");
    for (const json *m = json_child(messages); m; m = json_next(m)) {
        if (m != json_child(messages)) json_put(&o, ",");
        TRY_DONE(put_message(&o, m));
    }
    json_put(&o, "]");
    TRY_DONE(o.status);
    status = json_parse(doc, "messages", o.text, o.n);
    if (status == PM_ERR_FORMAT) status = PM_ERR_ARG; /* nested too deep, now that it is one */
done:
    free(o.text);
    return status;
}

/* Rendering */

static const char *const reserved[] = {"messages", "tools", "documents",
                                       "add_generation_prompt"};

static pm_status check_kwarg(const struct chat *c, const json *m)
{
    bool bad = strlen(json_key(m)) != json_key_bytes(m) || chat_token(c, json_key(m));
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        bad |= strcmp(json_key(m), reserved[i]) == 0;
    }
    if (!bad) return PM_OK;
    return fail(PM_ERR_ARG, "chat_template_kwargs: %s is reserved", json_key(m));
}

static pm_status check_request(const struct chat_request *q)
{
    if (!json_is_array(q->messages)) return fail(PM_ERR_ARG, "messages: wanted a list");
    if (q->tools && !json_is_null(q->tools) && !json_is_array(q->tools)) {
        return fail(PM_ERR_ARG, "tools: wanted a list");
    }
    if (q->kwargs && !json_is_null(q->kwargs) && !json_is_object(q->kwargs)) {
        return fail(PM_ERR_ARG, "chat_template_kwargs: wanted an object");
    }
    return PM_OK;
}

static pm_status render(const struct chat *c, const struct chat_request *q,
                        const json *messages, struct marked_text *out)
{
    bool tools = json_is_array(q->tools) && json_size(q->tools) > 0;
    struct template_variable v[MAX_VARIABLES] = {
        {.name = "messages", .value = messages, .roles = true},
        {.name = "tools", .value = tools ? q->tools : NULL},
        {.name = "documents"},
        {.name = "add_generation_prompt", .flag = true, .truth = q->add_generation_prompt},
    };
    size_t n = sizeof reserved / sizeof *reserved;
    for (size_t i = 0; i < c->n_token; i++) {
        v[n++] = (struct template_variable){.name = c->token[i].name,
                                            .text = c->token[i].text,
                                            .n_text = strlen(c->token[i].text)};
    }
    for (const json *m = json_child(q->kwargs); m; m = json_next(m)) {
        TRY(check_kwarg(c, m));
        if (n == MAX_VARIABLES) {
            return fail(PM_ERR_TOO_LONG, "chat_template_kwargs: more than %d members",
                        MAX_VARIABLES - MAX_TOKENS - 4);
        }
        v[n++] = (struct template_variable){.name = json_key(m), .value = m};
    }
    return template_render(use_tools(c, tools) ? c->tools : c->plain, v, n, NULL, out);
}

pm_status chat_render(const struct chat *c, const struct chat_request *request,
                      struct marked_text *out)
{
    struct json_doc *doc;
    pm_status status;
    TRY(check_request(request));
    TRY(rewrite_messages(&doc, request->messages));
    status = render(c, request, doc ? json_root(doc) : request->messages, out);
    json_free(doc);
    return status;
}

pm_status chat_tokenize(const struct marked_text *text, const struct tokenizer *t,
                        int32_t **ids, size_t *n)
{
    int32_t *id = NULL;
    size_t capacity = 0, n_id = 0;
    pm_status status = tokenizer_encode_marked(t, text, &id, &capacity, &n_id);
    if (status != PM_OK) {
        free(id);
        return status;
    }
    *ids = id;
    *n = n_id;
    return PM_OK;
}
