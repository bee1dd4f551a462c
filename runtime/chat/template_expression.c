/* template_expression.c - expressions: from ternaries down to literals, in Jinja's order.
 *
 *   a if b else c, or, and, not, comparisons, + -, ~, * / // %, **, signs, then what follows an
 *   operand: .name [item] (call) |filter and `is` tests
 *
 * Two things are Jinja's own: `~` binds between + and *, and a sign binds closer than a filter
 * behind its operand, so that -1|abs is 1. */
#include "template_parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static pm_status parse_unary(struct parser *p, bool filters, struct node **out);
static pm_status parse_primary(struct parser *p, struct node **out);

/* Puts a new node over *out. */
static pm_status wrap(struct parser *p, enum node_kind kind, struct node **out)
{
    struct node *n;
    TRY(new_node(p, kind, &n));
    n->line = (*out)->line;
    n->a = *out;
    *out = n;
    return PM_OK;
}

/* Literals */

static int hex_digits(const char *text, size_t n, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        char c = text[i] | 32;
        if (text[i] >= '0' && text[i] <= '9') {
            *out = *out << 4 | (uint32_t)(text[i] - '0');
        } else if (c >= 'a' && c <= 'f') {
            *out = *out << 4 | (uint32_t)(c - 'a' + 10);
        } else {
            return false;
        }
    }
    return true;
}

/* One escape at text[0] == '\\' of n bytes; returns how many it takes, 0 when malformed. */
static size_t unescape(const char *text, size_t n, char out[UTF8_MAX + 1], size_t *n_out)
{
    static const char from[] = "\\'\"abfnrtv\n", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *known = text[1] ? strchr(from, text[1]) : NULL;
    size_t digits = text[1] == 'x' ? 2 : text[1] == 'u' ? 4 : text[1] == 'U' ? 8 : 0, end = 1;
    uint32_t c = 0;
    *n_out = 1;
    if (known) {
        *n_out = text[1] != '\n'; /* a line that goes on */
        out[0] = to[known - from];
        return 2;
    }
    if (digits > 0) {
        if (n < 2 + digits || !hex_digits(text + 2, digits, &c)) return 0;
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
        *n_out = utf8_write(out, c);
        return 2 + digits;
    }
    while (end < 4 && end < n && text[end] >= '0' && text[end] <= '7') {
        c = c * 8 + (uint32_t)(text[end++] - '0');
    }
    if (end > 1) {
        *n_out = utf8_write(out, c);
        return end;
    }
    out[0] = '\\'; /* no escape: both characters stay */
    return 1;
}

/* Appends the inside of a literal to out[*n]. */
static pm_status unquote(const struct token *token, char *out, size_t *n)
{
    const char *text = token->text + 1;
    size_t left = token->n - 2, step, made;
    for (; left > 0; text += step, left -= step) {
        char bytes[UTF8_MAX + 1];
        if (*text != '\\' || left < 2) {
            out[(*n)++] = *text;
            step = 1;
            continue;
        }
        step = unescape(text, left, bytes, &made);
        if (step == 0) return fail(PM_ERR_FORMAT, "a text with a malformed escape");
        memcpy(out + *n, bytes, made);
        *n += made;
    }
    return PM_OK;
}

/* Literals that stand side by side are one. */
static pm_status parse_text(struct parser *p, struct node **out)
{
    const struct token *last = p->token;
    size_t room = 0, n = 0;
    char *text;
    TRY(new_node(p, NODE_CONSTANT, out));
    for (; last->kind == TOKEN_TEXT; last++) {
        room += last->n;
    }
    TRY(arena_take(&p->t->arena, &text, room, 1));
    for (; p->token < last; p->token++) {
        TRY(unquote(p->token, text, &n));
    }
    (*out)->constant = text_of(text, n);
    return PM_OK;
}

static pm_status parse_number(struct parser *p, struct node **out)
{
    bool real = p->token->kind == TOKEN_FLOAT;
    char digits[64];
    size_t n = 0;
    TRY(new_node(p, NODE_CONSTANT, out));
    for (size_t i = 0; i < p->token->n; i++) {
        if (p->token->text[i] == '_') continue;
        if (n == sizeof digits - 1) return fail(PM_ERR_TOO_LONG, "a number of too many digits");
        digits[n++] = p->token->text[i];
    }
    digits[n] = 0;
    errno = 0;
    if (real) {
        (*out)->constant = value_float(strtod(digits, NULL));
    } else {
        (*out)->constant = value_int(strtoll(digits, NULL, 10));
        if (errno == ERANGE) return fail(PM_ERR_TOO_LONG, "the number %s is too large", digits);
    }
    p->token++;
    return PM_OK;
}

static pm_status parse_word(struct parser *p, struct node **out)
{
    static const struct {
        const char *word;
        struct value value;
    } constant[] = {
        {"true", {.kind = VALUE_BOOL, .truth = true}},
        {"True", {.kind = VALUE_BOOL, .truth = true}},
        {"false", {.kind = VALUE_BOOL}},
        {"False", {.kind = VALUE_BOOL}},
        {"none", {.kind = VALUE_NONE}},
        {"None", {.kind = VALUE_NONE}},
    };
    TRY(new_node(p, NODE_NAME, out));
    for (size_t i = 0; i < sizeof constant / sizeof *constant; i++) {
        if (!skip_name(p, constant[i].word)) continue;
        (*out)->kind = NODE_CONSTANT;
        (*out)->constant = constant[i].value;
        return PM_OK;
    }
    TRY(template_intern(p->t, p->token->text, p->token->n, &(*out)->name));
    if ((*out)->name < N_FIXED_NAMES) p->uses |= 1 << (*out)->name;
    p->token++;
    return PM_OK;
}

static pm_status parse_list(struct parser *p, struct node **out)
{
    struct node **last;
    TRY(new_node(p, NODE_LIST, out));
    last = &(*out)->list;
    p->token++;
    for (bool first = true; !at_sign(p, "]"); first = false) {
        if (!first) TRY(need_sign(p, ","));
        if (at_sign(p, "]")) break;
        TRY(parse_expression(p, last));
        last = &(*last)->next;
    }
    return need_sign(p, "]");
}

static pm_status parse_dict(struct parser *p, struct node **out)
{
    struct node **last;
    TRY(new_node(p, NODE_DICT, out));
    last = &(*out)->list;
    p->token++;
    for (bool first = true; !at_sign(p, "}"); first = false) {
        if (!first) TRY(need_sign(p, ","));
        if (at_sign(p, "}")) break;
        TRY(parse_expression(p, last));
        last = &(*last)->next;
        TRY(need_sign(p, ":"));
        TRY(parse_expression(p, last));
        last = &(*last)->next;
    }
    return need_sign(p, "}");
}

static pm_status parse_brackets(struct parser *p, struct node **out)
{
    p->token++;
    if (at_sign(p, ")")) {
        TRY(new_node(p, NODE_TUPLE, out));
    } else {
        TRY(parse_tuple(p, TUPLE_PLAIN, out));
    }
    return need_sign(p, ")");
}

static pm_status parse_primary(struct parser *p, struct node **out)
{
    switch (p->token->kind) {
    case TOKEN_NAME: return parse_word(p, out);
    case TOKEN_TEXT: return parse_text(p, out);
    case TOKEN_INT:
    case TOKEN_FLOAT: return parse_number(p, out);
    default: break;
    }
    if (at_sign(p, "(")) return parse_brackets(p, out);
    if (at_sign(p, "[")) return parse_list(p, out);
    if (at_sign(p, "{")) return parse_dict(p, out);
    return fail_token(p, "an expression");
}

/* What follows an operand */

static pm_status parse_argument(struct parser *p, struct node **out, bool *keywords)
{
    bool named = p->token->kind == TOKEN_NAME && p->token[1].kind == TOKEN_SIGN &&
                 p->token[1].n == 1 && *p->token[1].text == '=';
    if (at_sign(p, "*") || at_sign(p, "**")) {
        TRY(new_node(p, NODE_SPREAD, out));
        (*out)->op = (int)p->token->n;
        if ((*out)->op == 2) *keywords = true;
        p->token++;
        return parse_expression(p, &(*out)->a);
    }
    if (named) {
        TRY(new_node(p, NODE_KEYWORD, out));
        (*out)->constant = text_of(p->token->text, p->token->n);
        *keywords = true;
        p->token += 2;
        return parse_expression(p, &(*out)->a);
    }
    if (*keywords) return fail_token(p, "arguments with names, as those before");
    return parse_expression(p, out);
}

static pm_status parse_arguments(struct parser *p, struct node **last)
{
    bool keywords = false;
    TRY(need_sign(p, "("));
    for (bool first = true; !at_sign(p, ")"); first = false) {
        if (!first) TRY(need_sign(p, ","));
        if (at_sign(p, ")")) break;
        TRY(parse_argument(p, last, &keywords));
        last = &(*last)->next;
    }
    return need_sign(p, ")");
}

static pm_status parse_attribute(struct parser *p, struct node **out)
{
    p->token++;
    if (p->token->kind == TOKEN_INT) {
        TRY(wrap(p, NODE_ITEM, out));
        return parse_number(p, &(*out)->b);
    }
    if (p->token->kind != TOKEN_NAME) return fail_token(p, "a name or a number");
    TRY(wrap(p, NODE_ATTRIBUTE, out));
    (*out)->constant = text_of(p->token->text, p->token->n);
    p->token++;
    return PM_OK;
}

/* [a], [a:b], [a:b:c] */
static pm_status parse_item(struct parser *p, struct node **out)
{
    struct node **last;
    bool slice = false;
    TRY(wrap(p, NODE_SLICE, out));
    p->token++;
    last = &(*out)->list;
    for (int i = 0; i < 3; i++) {
        if (at_sign(p, ":") || at_sign(p, "]")) {
            TRY(new_node(p, NODE_ABSENT, last));
        } else {
            TRY(parse_expression(p, last));
        }
        last = &(*last)->next;
        if (i < 2) slice |= skip_sign(p, ":");
    }
    if (!slice) {
        if ((*out)->list->kind == NODE_ABSENT) return fail_token(p, "an expression");
        (*out)->kind = NODE_ITEM;
        (*out)->b = (*out)->list;
        (*out)->list = NULL;
        (*out)->b->next = NULL;
    }
    return need_sign(p, "]");
}

static pm_status parse_postfix(struct parser *p, struct node **out)
{
    for (;;) {
        if (at_sign(p, ".")) {
            TRY(parse_attribute(p, out));
        } else if (at_sign(p, "[")) {
            TRY(parse_item(p, out));
        } else if (at_sign(p, "(")) {
            TRY(wrap(p, NODE_CALL, out));
            TRY(parse_arguments(p, &(*out)->list));
        } else {
            return PM_OK;
        }
    }
}

static pm_status parse_filter(struct parser *p, struct node **out)
{
    if (p->token->kind != TOKEN_NAME) return fail_token(p, "a filter");
    TRY(wrap(p, NODE_FILTER, out));
    (*out)->line = p->token->line;
    (*out)->constant = text_of(p->token->text, p->token->n);
    p->token++;
    return at_sign(p, "(") ? parse_arguments(p, &(*out)->list) : PM_OK;
}

pm_status parse_filters(struct parser *p, bool first, struct node **out)
{
    while (first || skip_sign(p, "|")) {
        TRY(parse_filter(p, out));
        first = false;
    }
    return PM_OK;
}

/* is [not] name, is [not] name(...), is [not] name operand */
static pm_status parse_test(struct parser *p, struct node **out)
{
    bool negated;
    p->token++;
    negated = skip_name(p, "not");
    if (p->token->kind != TOKEN_NAME) return fail_token(p, "a test");
    TRY(wrap(p, NODE_TEST, out));
    (*out)->op = negated;
    (*out)->line = p->token->line;
    (*out)->constant = text_of(p->token->text, p->token->n);
    p->token++;
    if (at_sign(p, "(")) return parse_arguments(p, &(*out)->list);
    if (p->token->kind == TOKEN_TEXT || p->token->kind == TOKEN_INT ||
        p->token->kind == TOKEN_FLOAT || at_sign(p, "[") || at_sign(p, "{") ||
        (p->token->kind == TOKEN_NAME && !at_name(p, "else") && !at_name(p, "or") &&
         !at_name(p, "and"))) {
        if (at_name(p, "is")) return fail_token(p, "one test, not a chain");
        /* As in Jinja, a word that follows is an operand, whatever it is. */
        TRY(parse_primary(p, &(*out)->list));
        return parse_postfix(p, &(*out)->list);
    }
    return PM_OK;
}

static pm_status parse_behind(struct parser *p, struct node **out)
{
    for (;;) {
        if (at_sign(p, "|")) {
            TRY(parse_filters(p, false, out));
        } else if (at_name(p, "is")) {
            TRY(parse_test(p, out));
        } else if (at_sign(p, "(")) {
            TRY(wrap(p, NODE_CALL, out));
            TRY(parse_arguments(p, &(*out)->list));
        } else {
            return PM_OK;
        }
    }
}

/* Operators */

static pm_status parse_unary(struct parser *p, bool filters, struct node **out)
{
    TRY(parse_nest(p));
    if (at_sign(p, "-") || at_sign(p, "+")) {
        TRY(new_node(p, at_sign(p, "-") ? NODE_MINUS : NODE_PLUS, out));
        p->token++;
        TRY(parse_unary(p, false, &(*out)->a));
    } else {
        TRY(parse_primary(p, out));
    }
    TRY(parse_postfix(p, out));
    if (filters) TRY(parse_behind(p, out));
    p->depth--;
    return PM_OK;
}

struct operator
{
    const char *sign;
    enum operator_kind op;
};

/* The operator of the list at the current token, 0 when there is none; moves behind it. */
static int take_operator(struct parser *p, const struct operator* list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (skip_sign(p, list[i].sign)) return list[i].op;
    }
    return 0;
}

static pm_status parse_power(struct parser *p, struct node **out)
{
    TRY(parse_unary(p, true, out));
    while (skip_sign(p, "**")) {
        TRY(wrap(p, NODE_BINARY, out));
        (*out)->op = OP_POWER;
        TRY(parse_unary(p, true, &(*out)->b));
    }
    return PM_OK;
}

static pm_status parse_product(struct parser *p, struct node **out)
{
    static const struct operator list[] = {
        {"*", OP_MULTIPLY}, {"/", OP_DIVIDE}, {"//", OP_FLOOR}, {"%", OP_MODULO}};
    int op;
    TRY(parse_power(p, out));
    while ((op = take_operator(p, list, 4)) != 0) {
        TRY(wrap(p, NODE_BINARY, out));
        (*out)->op = op;
        TRY(parse_power(p, &(*out)->b));
    }
    return PM_OK;
}

static pm_status parse_concat(struct parser *p, struct node **out)
{
    struct node *first, **last;
    TRY(parse_product(p, out));
    if (!at_sign(p, "~")) return PM_OK;
    first = *out;
    TRY(new_node(p, NODE_CONCAT, out));
    (*out)->list = first;
    last = &first->next;
    while (skip_sign(p, "~")) {
        TRY(parse_product(p, last));
        last = &(*last)->next;
    }
    return PM_OK;
}

static pm_status parse_sum(struct parser *p, struct node **out)
{
    static const struct operator list[] = {{"+", OP_ADD}, {"-", OP_SUBTRACT}};
    int op;
    TRY(parse_concat(p, out));
    while ((op = take_operator(p, list, 2)) != 0) {
        TRY(wrap(p, NODE_BINARY, out));
        (*out)->op = op;
        TRY(parse_concat(p, &(*out)->b));
    }
    return PM_OK;
}

static int take_comparison(struct parser *p)
{
    static const struct operator list[] = {{"==", OP_EQUAL},  {"!=", OP_DIFFERENT},
                                           {"<", OP_LESS},    {"<=", OP_LESS_EQUAL},
                                           {">", OP_GREATER}, {">=", OP_GREATER_EQUAL}};
    if (skip_name(p, "in")) return OP_IN;
    if (at_name(p, "not") && p->token[1].kind == TOKEN_NAME && p->token[1].n == 2 &&
        memcmp(p->token[1].text, "in", 2) == 0) {
        p->token += 2;
        return OP_NOT_IN;
    }
    return take_operator(p, list, 6);
}

static pm_status parse_compare(struct parser *p, struct node **out)
{
    struct node **last = NULL;
    int op;
    TRY(parse_sum(p, out));
    while ((op = take_comparison(p)) != 0) {
        if (!last) {
            TRY(wrap(p, NODE_COMPARE, out));
            last = &(*out)->list;
        }
        TRY(new_node(p, NODE_OPERAND, last));
        (*last)->op = op;
        TRY(parse_sum(p, &(*last)->a));
        last = &(*last)->next;
    }
    return PM_OK;
}

static pm_status parse_not(struct parser *p, struct node **out)
{
    if (!at_name(p, "not")) return parse_compare(p, out);
    TRY(parse_nest(p));
    TRY(new_node(p, NODE_NOT, out));
    p->token++;
    TRY(parse_not(p, &(*out)->a));
    p->depth--;
    return PM_OK;
}

static pm_status parse_and(struct parser *p, struct node **out)
{
    TRY(parse_not(p, out));
    while (skip_name(p, "and")) {
        TRY(wrap(p, NODE_AND, out));
        TRY(parse_not(p, &(*out)->b));
    }
    return PM_OK;
}

static pm_status parse_or(struct parser *p, struct node **out)
{
    TRY(parse_and(p, out));
    while (skip_name(p, "or")) {
        TRY(wrap(p, NODE_OR, out));
        TRY(parse_and(p, &(*out)->b));
    }
    return PM_OK;
}

pm_status parse_expression(struct parser *p, struct node **out)
{
    TRY(parse_nest(p));
    TRY(parse_or(p, out));
    while (skip_name(p, "if")) {
        struct node *value = *out;
        TRY(new_node(p, NODE_TERNARY, out));
        (*out)->b = value;
        TRY(parse_or(p, &(*out)->a));
        if (skip_name(p, "else")) TRY(parse_expression(p, &(*out)->c));
    }
    p->depth--;
    return PM_OK;
}

static pm_status parse_part(struct parser *p, enum tuple_kind kind, struct node **out)
{
    return kind == TUPLE_NO_TERNARY ? parse_or(p, out) : parse_expression(p, out);
}

pm_status parse_tuple(struct parser *p, enum tuple_kind kind, struct node **out)
{
    struct node *first, **last;
    TRY(parse_part(p, kind, out));
    if (!at_sign(p, ",")) return PM_OK;
    first = *out;
    TRY(new_node(p, NODE_TUPLE, out));
    (*out)->list = first;
    last = &first->next;
    while (skip_sign(p, ",")) {
        if (p->token->kind == TOKEN_PRINT_END || p->token->kind == TOKEN_BLOCK_END ||
            at_sign(p, ")")) {
            break;
        }
        TRY(parse_part(p, kind, last));
        last = &(*last)->next;
    }
    return PM_OK;
}

/* One name, or a bracket of targets. */
static pm_status parse_target_part(struct parser *p, struct node **out)
{
    if (at_sign(p, "(")) {
        TRY(parse_nest(p));
        p->token++;
        TRY(parse_target(p, true, out));
        p->depth--;
        return need_sign(p, ")");
    }
    if (p->token->kind != TOKEN_NAME) return fail_token(p, "a name");
    TRY(parse_word(p, out));
    return (*out)->kind == NODE_NAME ? PM_OK : fail_token(p, "a name that can be set");
}

pm_status parse_target(struct parser *p, bool names, struct node **out)
{
    struct node *first, **last;
    TRY(parse_target_part(p, out));
    if (!names && (*out)->kind == NODE_NAME && at_sign(p, ".")) {
        TRY(parse_attribute(p, out));
        return (*out)->kind == NODE_ATTRIBUTE ? PM_OK : fail_token(p, "an attribute");
    }
    if (!at_sign(p, ",")) return PM_OK;
    first = *out;
    TRY(new_node(p, NODE_TUPLE, out));
    (*out)->list = first;
    last = &first->next;
    while (skip_sign(p, ",") && (p->token->kind == TOKEN_NAME || at_sign(p, "(")) &&
           !at_name(p, "in")) {
        TRY(parse_target_part(p, last));
        last = &(*last)->next;
    }
    return PM_OK;
}
