/* template_parse.h - what the parsers of statements and of expressions share. */
#ifndef RUNTIME_TEMPLATE_PARSE_H
#define RUNTIME_TEMPLATE_PARSE_H

#include "template_ast.h"

struct parser {
    struct template *t;
    const struct token *token; /* the current one */
    int depth, n_loop;
    int uses; /* bits of the fixed names that the macro mentions */
};

bool at_sign(const struct parser *p, const char *sign);
bool at_name(const struct parser *p, const char *name);
bool skip_sign(struct parser *p, const char *sign);
bool skip_name(struct parser *p, const char *name);
pm_status need_sign(struct parser *p, const char *sign);
/* "found X, wanted Y" */
pm_status fail_token(const struct parser *p, const char *wanted);
pm_status new_node(struct parser *p, enum node_kind kind, struct node **out);
/* One level deeper; the caller takes it back with depth--. */
pm_status parse_nest(struct parser *p);

/* a if b else c and all below it. */
pm_status parse_expression(struct parser *p, struct node **out);
/* Expressions with commas between them; without a comma the expression itself. */
enum tuple_kind { TUPLE_PLAIN, TUPLE_NO_TERNARY };
pm_status parse_tuple(struct parser *p, enum tuple_kind kind, struct node **out);
/* A name, names with commas, or, unless `names`, an attribute of a name. */
pm_status parse_target(struct parser *p, bool names, struct node **out);
/* Wraps *out into the filters that follow; `first`: the first has no bar in front. */
pm_status parse_filters(struct parser *p, bool first, struct node **out);

#endif
