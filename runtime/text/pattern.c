/* pattern.c - searches with PCRE2, or with memmem for literals.
 *
 * Patterns come from a file and meet texts of strangers. PCRE2's compiled code runs on a stack
 * of its own of at most STACK_BYTES, whatever the text: a search that needs more runs again in
 * the interpreter, which takes its memory from the heap up to HEAP_KIB, and MATCH_LIMIT bounds
 * the work of both. Beyond that the search fails with the pattern in the message. So a hostile
 * text costs an error and never the stack of the thread.
 *
 * A pattern is compiled once and shared. What a search writes to is in a matcher, one for each
 * thread that is inside an encode. */
#define _GNU_SOURCE /* memmem */
#include "pattern.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "pattern_syntax.h"

enum {
    STACK_BYTES = 1 << 20,
    STACK_START_BYTES = 32 << 10,
    HEAP_KIB = 256 << 10,
    MATCH_LIMIT = 20000000,
    MAX_PATTERN_BYTES = 1 << 16
};

struct pattern {
    char *source; /* as in the file, for messages; the text of a literal */
    size_t n;
    pcre2_code *code; /* NULL: a literal */
    bool compiled;    /* to machine code */
};

struct matcher {
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    pcre2_match_data *data;
};

static pm_status compile(struct pattern *p, const char *name, const struct text *rewritten)
{
    const uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    PCRE2_UCHAR message[128];
    char shown[JSON_EXCERPT];
    PCRE2_SIZE at;
    int code;
    if (!context) return fail(PM_ERR_NOMEM, "%s: no memory for a pattern", name);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_bsr(context, PCRE2_BSR_UNICODE);
    p->code = pcre2_compile((PCRE2_SPTR)(rewritten->n ? rewritten->byte : ""), rewritten->n,
                            flags, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!p->code) {
        pcre2_get_error_message(code, message, sizeof message);
        return fail(PM_ERR_UNSUPPORTED, "%s: pattern \"%s\": %s", name,
                    json_excerpt(shown, p->source, p->n), (const char *)message);
    }
    /* Without machine code (a hardened system may refuse it) the interpreter does the work. */
    p->compiled = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    return PM_OK;
}

pm_status pattern_regex(struct pattern **out, const char *name, const char *source, size_t n)
{
    struct pattern *p = NULL;
    struct text rewritten = {0};
    pm_status status;
    if (n > MAX_PATTERN_BYTES) {
        return fail(PM_ERR_UNSUPPORTED, "%s: a pattern of %zu bytes, at most %d wanted", name,
                    n, (int)MAX_PATTERN_BYTES);
    }
    TRY_DONE(pattern_literal(&p, source, n));
    TRY_DONE(pattern_rewrite(&rewritten, name, source, n));
    TRY_DONE(compile(p, name, &rewritten));
    *out = p;
    p = NULL;
done:
    pattern_free(p);
    free(rewritten.byte);
    return status;
}

pm_status pattern_literal(struct pattern **out, const char *text, size_t n)
{
    struct pattern *p;
    pm_status status;
    TRY(alloc_array(&p, 1, sizeof *p, "pattern"));
    status = copy_text(&p->source, text, n);
    p->n = n;
    if (status != PM_OK) {
        pattern_free(p);
        return status;
    }
    *out = p;
    return PM_OK;
}

pm_status pattern_parse(struct pattern **out, struct json_doc *doc, const json *object,
                        const char *key)
{
    const json *value = json_get(object, key);
    const json *only = json_child(value);
    if (!value) return json_fail(doc, object, "a pattern");
    if (!json_is_object(value) || !json_is_string(only) || json_next(only)) {
        return json_fail(doc, value, "{\"Regex\": ...} or {\"String\": ...}");
    }
    if (strcmp(json_key(only), "String") == 0) {
        return pattern_literal(out, json_text(only), json_text_bytes(only));
    }
    if (strcmp(json_key(only), "Regex") != 0) {
        return json_fail(doc, value, "{\"Regex\": ...} or {\"String\": ...}");
    }
    return pattern_regex(out, json_name(doc), json_text(only), json_text_bytes(only));
}

void pattern_free(struct pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    free(p->source);
    free(p);
}

const char *pattern_literal_text(const struct pattern *p, size_t *n)
{
    *n = p->n;
    return p->code ? NULL : p->source;
}

pm_status matcher_new(struct matcher **out)
{
    struct matcher *m;
    TRY(alloc_array(&m, 1, sizeof *m, "matcher"));
    m->context = pcre2_match_context_create(NULL);
    m->stack = pcre2_jit_stack_create(STACK_START_BYTES, STACK_BYTES, NULL);
    m->data = pcre2_match_data_create(1, NULL);
    if (!m->context || !m->stack || !m->data) {
        matcher_free(m);
        return fail(PM_ERR_NOMEM, "no memory to match patterns");
    }
    pcre2_jit_stack_assign(m->context, NULL, m->stack);
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_depth_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_KIB);
    *out = m;
    return PM_OK;
}

void matcher_free(struct matcher *m)
{
    if (!m) return;
    pcre2_match_data_free(m->data);
    pcre2_jit_stack_free(m->stack);
    pcre2_match_context_free(m->context);
    free(m);
}

void search_init(struct search *s, const struct pattern *p, struct matcher *m, const char *text,
                 const char *stand_ins, size_t n)
{
    *s = (struct search){.pattern = p, .matcher = m, .n = n, .last_end = SIZE_MAX};
    s->subject = p->code ? stand_ins : text;
}

static pm_status find_regex(struct search *s, size_t *start, size_t *end, bool *found)
{
    const struct pattern *p = s->pattern;
    struct matcher *m = s->matcher;
    PCRE2_SPTR subject = (PCRE2_SPTR)s->subject;
    PCRE2_UCHAR message[128];
    char shown[JSON_EXCERPT];
    int got = PCRE2_ERROR_JIT_STACKLIMIT;
    if (p->compiled) {
        got = pcre2_jit_match(p->code, subject, s->n, s->from, 0, m->data, m->context);
    }
    if (got == PCRE2_ERROR_JIT_STACKLIMIT) {
        got = pcre2_match(p->code, subject, s->n, s->from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          m->data, m->context);
    }
    *found = got >= 0;
    if (got >= 0) {
        const PCRE2_SIZE *match = pcre2_get_ovector_pointer(m->data);
        *start = match[0];
        *end = match[1];
        return PM_OK;
    }
    if (got == PCRE2_ERROR_NOMATCH) return PM_OK;
    pcre2_get_error_message(got, message, sizeof message);
    return fail(PM_ERR_TOO_LONG, "pattern \"%s\" on a text of %zu bytes: %s",
                json_excerpt(shown, p->source, p->n), s->n, (const char *)message);
}

static void find_literal(const struct search *s, size_t *start, size_t *end, bool *found)
{
    const struct pattern *p = s->pattern;
    const char *at = s->subject + s->from;
    if (p->n > 0) at = memmem(at, s->n - s->from, p->source, p->n);
    *found = at != NULL;
    if (!at) return;
    *start = (size_t)(at - s->subject);
    *end = *start + p->n;
}

pm_status search_next(struct search *s, size_t *start, size_t *end, bool *found)
{
    *found = false;
    while (s->from <= s->n) {
        if (s->pattern->code) {
            TRY(find_regex(s, start, end, found));
        } else {
            find_literal(s, start, end, found);
        }
        if (!*found) return PM_OK;
        if (*end > *start || *end != s->last_end) {
            s->from = s->last_end = *end;
            return PM_OK;
        }
        /* An empty match right behind the last one: on from the next character. */
        *found = false;
        s->from += s->from < s->n ? utf8_bytes(s->subject[s->from]) : 1;
    }
    return PM_OK;
}
