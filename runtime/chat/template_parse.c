/* template_parse.c - statements: tokens become a tree.
 *
 * Expressions are in template_expression.c. Nodes live in the template's arena and are linked,
 * so that nothing but the arena is freed. Nesting is bounded, since every level of it is a
 * level of the C stack here and once more when the template runs. */
#include "template_parse.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SOURCE_BYTES = 1 << 20, MAX_NAMES = 4096, TREE_BYTES = 256 << 20, MAX_DEPTH = 200 };

pm_status template_intern(struct template *t, const char *text, size_t n, int *out)
{
    for (size_t i = 0; i < t->n_names; i++) {
        if (t->names[i].n == n && memcmp(t->names[i].text, text, n) == 0) {
            *out = (int)i;
            return PM_OK;
        }
    }
    if (t->n_names == MAX_NAMES) {
        return fail(PM_ERR_TOO_LONG, "more than %d names", MAX_NAMES);
    }
    TRY(grow_array(&t->names, &t->capacity, t->n_names + 1, sizeof *t->names));
    t->names[t->n_names] = (struct template_name){text, n};
    *out = (int)t->n_names++;
    return PM_OK;
}

/* Tokens */

bool at_sign(const struct parser *p, const char *sign)
{
    return p->token->kind == TOKEN_SIGN && p->token->n == strlen(sign) &&
           memcmp(p->token->text, sign, p->token->n) == 0;
}

bool at_name(const struct parser *p, const char *name)
{
    return p->token->kind == TOKEN_NAME && p->token->n == strlen(name) &&
           memcmp(p->token->text, name, p->token->n) == 0;
}

bool skip_sign(struct parser *p, const char *sign)
{
    bool found = at_sign(p, sign);
    p->token += found;
    return found;
}

bool skip_name(struct parser *p, const char *name)
{
    bool found = at_name(p, name);
    p->token += found;
    return found;
}

pm_status fail_token(const struct parser *p, const char *wanted)
{
    static const char *const name[] = {
        [TOKEN_DATA] = "text",    [TOKEN_PRINT_BEGIN] = "{{",
        [TOKEN_PRINT_END] = "}}", [TOKEN_BLOCK_BEGIN] = "{%",
        [TOKEN_BLOCK_END] = "%}", [TOKEN_END] = "the end of the template",
    };
    char shown[JSON_EXCERPT];
    const char *kind =
        p->token->kind < sizeof name / sizeof *name ? name[p->token->kind] : NULL;
    return fail(PM_ERR_FORMAT, "found %s, wanted %s",
                kind ? kind : json_excerpt(shown, p->token->text, p->token->n), wanted);
}

pm_status need_sign(struct parser *p, const char *sign)
{
    return skip_sign(p, sign) ? PM_OK : fail_token(p, sign);
}

static pm_status need_kind(struct parser *p, enum token_kind kind, const char *wanted)
{
    if (p->token->kind != kind) return fail_token(p, wanted);
    p->token += kind != TOKEN_END;
    return PM_OK;
}

pm_status new_node(struct parser *p, enum node_kind kind, struct node **out)
{
    struct node *n;
    TRY(arena_take(&p->t->arena, &n, 1, sizeof *n));
    n->kind = kind;
    n->line = p->token->line;
    n->name = -1;
    *out = n;
    return PM_OK;
}

pm_status parse_nest(struct parser *p)
{
    if (p->depth >= MAX_DEPTH) {
        return fail(PM_ERR_TOO_LONG, "nested over %d deep", MAX_DEPTH);
    }
    p->depth++;
    return PM_OK;
}

/* Statements */

/* Parses up to a block whose name is one of the words (separated by blanks) and leaves its
 * name as the current token. */
static pm_status parse_body(struct parser *p, const char *words, struct node **out);

static pm_status end_block(struct parser *p)
{
    return need_kind(p, TOKEN_BLOCK_END, "%}");
}

/* The body of a statement whose tag was read but for its end, and the tag that ends it. */
static pm_status parse_inside(struct parser *p, const char *word, struct node **out)
{
    TRY(end_block(p));
    TRY(parse_body(p, word, out));
    p->token++; /* the word */
    return PM_OK;
}

static pm_status parse_if(struct parser *p, struct node *n)
{
    struct node **last = &n->list;
    bool more = true;
    while (more) {
        bool otherwise = at_name(p, "else");
        p->token++;
        TRY(new_node(p, NODE_BRANCH, last));
        if (!otherwise) TRY(parse_tuple(p, TUPLE_NO_TERNARY, &(*last)->a));
        TRY(end_block(p));
        TRY(parse_body(p, otherwise ? "endif" : "elif else endif", &(*last)->list));
        last = &(*last)->next;
        more = !at_name(p, "endif");
    }
    p->token++;
    return PM_OK;
}

static pm_status parse_for(struct parser *p, struct node *n)
{
    p->token++;
    TRY(parse_target(p, true, &n->a));
    if (!skip_name(p, "in")) return fail_token(p, "in");
    TRY(parse_tuple(p, TUPLE_NO_TERNARY, &n->b));
    if (skip_name(p, "if")) TRY(parse_expression(p, &n->c));
    if (at_name(p, "recursive")) {
        return fail(PM_ERR_UNSUPPORTED, "recursive loops are not supported");
    }
    TRY(end_block(p));
    p->n_loop++;
    TRY(parse_body(p, "else endfor", &n->list));
    p->n_loop--;
    if (at_name(p, "else")) {
        p->token++;
        TRY(new_node(p, NODE_BRANCH, &n->d));
        TRY(end_block(p));
        TRY(parse_body(p, "endfor", &n->d->list));
    }
    p->token++;
    return PM_OK;
}

static pm_status parse_set(struct parser *p, struct node *n)
{
    p->token++;
    TRY(parse_target(p, false, &n->a));
    if (skip_sign(p, "=")) return parse_tuple(p, TUPLE_PLAIN, &n->b);
    n->kind = NODE_SET_BLOCK;
    if (at_sign(p, "|")) {
        TRY(new_node(p, NODE_HOLE, &n->b));
        TRY(parse_filters(p, false, &n->b));
    }
    return parse_inside(p, "endset", &n->list);
}

static pm_status parse_name(struct parser *p, int *out)
{
    if (p->token->kind != TOKEN_NAME) return fail_token(p, "a name");
    TRY(template_intern(p->t, p->token->text, p->token->n, out));
    p->token++;
    return PM_OK;
}

static pm_status parse_parameters(struct parser *p, struct node **last)
{
    bool defaults = false;
    TRY(need_sign(p, "("));
    for (bool first = true; !at_sign(p, ")"); first = false) {
        if (!first) TRY(need_sign(p, ","));
        TRY(new_node(p, NODE_PARAMETER, last));
        TRY(parse_name(p, &(*last)->name));
        if (skip_sign(p, "=")) {
            defaults = true;
            TRY(parse_expression(p, &(*last)->a));
        } else if (defaults) {
            return fail(PM_ERR_FORMAT, "a parameter without default after one with");
        }
        last = &(*last)->next;
    }
    return need_sign(p, ")");
}

/* The body of a function: a loop around it is not seen from inside. */
static pm_status parse_function_body(struct parser *p, const char *word, struct node *n)
{
    int n_loop = p->n_loop, uses = p->uses;
    p->n_loop = p->uses = 0;
    TRY(parse_inside(p, word, &n->list));
    n->op = p->uses;
    p->uses |= uses;
    p->n_loop = n_loop;
    return PM_OK;
}

static pm_status parse_macro(struct parser *p, struct node *n)
{
    p->token++;
    TRY(parse_name(p, &n->name));
    TRY(parse_parameters(p, &n->a));
    return parse_function_body(p, "endmacro", n);
}

static pm_status parse_call_block(struct parser *p, struct node *n)
{
    p->token++;
    if (at_sign(p, "(")) TRY(parse_parameters(p, &n->a));
    TRY(parse_expression(p, &n->b));
    if (n->b->kind != NODE_CALL) return fail(PM_ERR_FORMAT, "{%% call %%} without a call");
    return parse_function_body(p, "endcall", n);
}

static pm_status parse_filter_block(struct parser *p, struct node *n)
{
    p->token++;
    TRY(new_node(p, NODE_HOLE, &n->b));
    TRY(parse_filters(p, true, &n->b));
    return parse_inside(p, "endfilter", &n->list);
}

static pm_status parse_with(struct parser *p, struct node *n)
{
    struct node **last = &n->a;
    p->token++;
    while (p->token->kind != TOKEN_BLOCK_END) {
        if (n->a) TRY(need_sign(p, ","));
        TRY(new_node(p, NODE_SET, last));
        TRY(parse_target(p, true, &(*last)->a));
        TRY(need_sign(p, "="));
        TRY(parse_expression(p, &(*last)->b));
        last = &(*last)->next;
    }
    return parse_inside(p, "endwith", &n->list);
}

static pm_status parse_generation(struct parser *p, struct node *n)
{
    p->token++;
    return parse_function_body(p, "endgeneration", n);
}

static pm_status parse_jump(struct parser *p, struct node *n)
{
    (void)n;
    if (p->n_loop == 0) return fail(PM_ERR_FORMAT, "break or continue outside of a loop");
    p->token++;
    return PM_OK;
}

static pm_status parse_statement(struct parser *p, struct node **out)
{
    static const struct {
        const char *word;
        enum node_kind kind;
        pm_status (*parse)(struct parser *p, struct node *n);
    } statement[] = {
        {"if", NODE_IF, parse_if},
        {"for", NODE_FOR, parse_for},
        {"set", NODE_SET, parse_set},
        {"macro", NODE_MACRO, parse_macro},
        {"call", NODE_CALL_BLOCK, parse_call_block},
        {"filter", NODE_FILTER_BLOCK, parse_filter_block},
        {"with", NODE_WITH, parse_with},
        {"generation", NODE_SCOPE, parse_generation},
        {"break", NODE_BREAK, parse_jump},
        {"continue", NODE_CONTINUE, parse_jump},
    };
    static const char *const refused[] = {"extends", "include", "import",    "from",
                                          "block",   "print",   "autoescape"};
    for (size_t i = 0; i < sizeof statement / sizeof *statement; i++) {
        if (!at_name(p, statement[i].word)) continue;
        TRY(new_node(p, statement[i].kind, out));
        TRY(statement[i].parse(p, *out));
        return end_block(p);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (at_name(p, refused[i])) {
            return fail(PM_ERR_UNSUPPORTED, "{%% %s %%} is not supported", refused[i]);
        }
    }
    return fail_token(p, "a statement");
}

static bool at_word(const struct parser *p, const char *words)
{
    while (p->token->kind == TOKEN_NAME && *words) {
        size_t n = strcspn(words, " ");
        if (p->token->n == n && memcmp(p->token->text, words, n) == 0) return true;
        words += n + (words[n] == ' ');
    }
    return false;
}

static pm_status parse_print(struct parser *p, struct node **out)
{
    TRY(new_node(p, NODE_PRINT, out));
    p->token++;
    TRY(parse_tuple(p, TUPLE_PLAIN, &(*out)->a));
    return need_kind(p, TOKEN_PRINT_END, "}}");
}

static pm_status parse_body(struct parser *p, const char *words, struct node **out)
{
    TRY(parse_nest(p));
    for (;; out = *out ? &(*out)->next : out) {
        if (p->token->kind == TOKEN_DATA) {
            TRY(new_node(p, NODE_DATA, out));
            (*out)->constant = text_of(p->token->text, p->token->n);
            p->token++;
        } else if (p->token->kind == TOKEN_PRINT_BEGIN) {
            TRY(parse_print(p, out));
        } else if (p->token->kind == TOKEN_BLOCK_BEGIN) {
            p->token++;
            if (at_word(p, words)) break;
            TRY(parse_statement(p, out));
        } else if (*words) {
            return fail_token(p, words);
        } else {
            break;
        }
    }
    p->depth--;
    return PM_OK;
}

pm_status template_parse_tokens(struct template *t, const struct token_list *tokens, int *line)
{
    struct parser p = {.t = t, .token = tokens->token};
    pm_status status = parse_body(&p, "", &t->body);
    if (status == PM_OK && p.token->kind != TOKEN_END) {
        status = fail_token(&p, "the end of the template");
    }
    *line = p.token->line;
    return status;
}

/* Opening */

/* Line ends become line feeds, and the last one goes. */
static pm_status copy_source(struct template *t, const char *source, size_t n)
{
    struct text valid = {0};
    pm_status status;
    TRY_DONE(utf8_repair(&valid, source, n, NULL));
    TRY_DONE(alloc_array(&t->source, valid.n + 1, 1, "template"));
    for (size_t i = 0; i < valid.n; i++) {
        if (valid.byte[i] == '\r') {
            t->source[t->n_source++] = '\n';
            i += i + 1 < valid.n && valid.byte[i + 1] == '\n';
        } else {
            t->source[t->n_source++] = valid.byte[i];
        }
    }
    if (t->n_source > 0 && t->source[t->n_source - 1] == '\n') t->n_source--;
    t->source[t->n_source] = 0;
done:
    free(valid.byte);
    return status;
}

static pm_status parse_source(struct template *t)
{
    static const char *const fixed[] = {[NAME_LOOP] = "loop",
                                        [NAME_CALLER] = "caller",
                                        [NAME_VARARGS] = "varargs",
                                        [NAME_KWARGS] = "kwargs"};
    struct token_list tokens = {0};
    pm_status status;
    int line = 1, index;
    for (int i = 0; i < N_FIXED_NAMES; i++) {
        TRY(template_intern(t, fixed[i], strlen(fixed[i]), &index));
        assert(index == i);
    }
    TRY_DONE(template_lex(&tokens, t->source, t->n_source, &line));
    TRY_DONE(template_parse_tokens(t, &tokens, &line));
done:
    free(tokens.token);
    return status == PM_OK ? PM_OK : fail_prefix(status, "%s: line %d", t->name, line);
}

pm_status template_parse(struct template **out, const char *name, const char *source, size_t n)
{
    struct template *t;
    pm_status status;
    if (n > MAX_SOURCE_BYTES) {
        return fail(PM_ERR_TOO_LONG, "%s: %zu bytes, at most %d wanted", name, n,
                    MAX_SOURCE_BYTES);
    }
    TRY(alloc_array(&t, 1, sizeof *t, "template"));
    t->arena.max = TREE_BYTES;
    TRY_DONE(copy_text(&t->name, name, strlen(name)));
    TRY_DONE(copy_source(t, source, n));
    TRY_DONE(parse_source(t));
    *out = t;
    t = NULL;
done:
    template_free(t);
    return status;
}

void template_free(struct template *t)
{
    if (!t) return;
    free(t->name);
    free(t->source);
    free(t->names);
    arena_clear(&t->arena);
    free(t);
}

bool template_mentions(const struct template *t, const char *variable)
{
    size_t n = strlen(variable);
    for (size_t i = N_FIXED_NAMES; i < t->n_names; i++) {
        if (t->names[i].n == n && memcmp(t->names[i].text, variable, n) == 0) return true;
    }
    return false;
}
