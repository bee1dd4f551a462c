/* template_render.c - one rendering: variables in, a text with its origins out.
 *
 * The template is shared and not changed; all that a rendering needs is in a struct render, and
 * gone at its end, whatever happened. */
#include "template_eval.h"

#include <stdlib.h>
#include <string.h>

static pm_status bind_variables(struct render *r, struct scope *scope,
                                const struct template_variable *variable, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t bytes = strlen(variable[i].name), j = 0;
        struct value v = value_none();
        while (j < r->t->n_names && (r->t->names[j].n != bytes ||
                                     memcmp(r->t->names[j].text, variable[i].name, bytes))) {
            j++;
        }
        if (j == r->t->n_names) continue; /* the template does not ask for it */
        if (variable[i].value) {
            TRY(value_of_json(r, variable[i].value, variable[i].roles, &v));
        } else if (variable[i].text) {
            v = text_of(variable[i].text, variable[i].n_text);
        } else if (variable[i].flag) {
            v = value_bool(variable[i].truth);
        }
        TRY(scope_set(r, scope, (int)j, v));
    }
    return PM_OK;
}

static pm_status run(struct render *r, const struct template_variable *variable, size_t n)
{
    struct scope *context, *scope;
    TRY(scope_new(r, NULL, &context));
    TRY(bind_variables(r, context, variable, n));
    TRY(scope_new(r, context, &scope));
    return execute(r, scope, r->t->body);
}

static pm_status give(struct render *r, struct marked_text *out)
{
    struct marked_text m = {0};
    size_t capacity = 0;
    pm_status status;
    TRY_DONE(copy_text(&m.text, r->n > 0 ? r->byte : "", r->n));
    m.n = r->n;
    for (size_t i = 0; i < r->n;) {
        const unsigned char *other = memchr(r->mark + i, !r->mark[i], r->n - i);
        TRY_DONE(grow_array(&m.span, &capacity, m.n_span + 1, sizeof *m.span));
        m.span[m.n_span].request = r->mark[i];
        i = other ? (size_t)(other - r->mark) : r->n;
        m.span[m.n_span++].end = i;
    }
    *out = m;
    m = (struct marked_text){0};
done:
    marked_text_clear(&m);
    return status;
}

void marked_text_clear(struct marked_text *m)
{
    free(m->text);
    free(m->span);
    *m = (struct marked_text){0};
}

pm_status template_render(const struct template *t, const struct template_variable *variable,
                          size_t n, const struct template_limits *limits,
                          struct marked_text *out)
{
    static const struct template_limits defaults = {20000000, 256u << 20, 64u << 20};
    struct render r = {.t = t};
    pm_status status;
    if (!limits) limits = &defaults;
    r.steps = limits->max_steps ? limits->max_steps : defaults.max_steps;
    r.arena.max = limits->max_memory ? limits->max_memory : defaults.max_memory;
    r.max_output = limits->max_output ? limits->max_output : defaults.max_output;
    status = run(&r, variable, n);
    if (status != PM_OK) {
        status = fail_prefix(status, "%s: line %d", t->name, r.line);
    } else {
        status = give(&r, out);
    }
    arena_clear(&r.arena);
    free(r.byte);
    free(r.mark);
    return status;
}
