/* template_ast.h - tokens and tree of a template. */
#ifndef RUNTIME_TEMPLATE_AST_H
#define RUNTIME_TEMPLATE_AST_H

#include "template_value.h"

/* Tokens. Operators and brackets are TOKEN_SIGN with their text. */
enum token_kind {
    TOKEN_DATA,
    TOKEN_PRINT_BEGIN, /* {{ */
    TOKEN_PRINT_END,
    TOKEN_BLOCK_BEGIN, /* {% */
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_TEXT, /* a literal, quotes included */
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_SIGN,
    TOKEN_END
};

struct token {
    enum token_kind kind;
    int line;
    const char *text; /* [n] in the source */
    size_t n;
};

struct token_list {
    struct token *token; /* [n] the last one is TOKEN_END; freed by the caller */
    size_t n, capacity;
};

/* Cuts a source without carriage returns into tokens, white space control applied. */
pm_status template_lex(struct token_list *out, const char *source, size_t n, int *line);

/* Tree. `list` heads a chain by `next`. */
enum node_kind {
    /* statements */
    NODE_DATA,  /* constant */
    NODE_PRINT, /* a */
    NODE_IF,    /* list: NODE_BRANCH {a: test or NULL, list: body} */
    NODE_BRANCH,
    NODE_FOR,       /* a: target, b: what, c: filter or NULL, list: body, d: NODE_BRANCH else */
    NODE_SET,       /* a: target, b: value */
    NODE_SET_BLOCK, /* a: target, b: filters over NODE_HOLE or NULL, list: body */
    NODE_MACRO,     /* name, a: parameters, list: body, op: bits 1 << NAME_... mentioned */
    NODE_CALL_BLOCK,   /* a: parameters, b: call, list: body */
    NODE_FILTER_BLOCK, /* b: filters over NODE_HOLE, list: body */
    NODE_WITH,         /* a: chain of NODE_SET, list: body */
    NODE_SCOPE,        /* list: body in a scope of its own */
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_PARAMETER, /* name, a: default or NULL */
    /* expressions */
    NODE_CONSTANT,
    NODE_NAME,
    NODE_HOLE, /* the text of a block */
    NODE_LIST,
    NODE_TUPLE,
    NODE_DICT,      /* list: key, value, key, ... */
    NODE_ATTRIBUTE, /* a, constant: the name */
    NODE_ITEM,      /* a, b */
    NODE_SLICE,     /* a; list: three, NODE_ABSENT where left out */
    NODE_ABSENT,
    NODE_CALL,    /* a, list: arguments */
    NODE_KEYWORD, /* constant: its name, a: value */
    NODE_SPREAD,  /* *a, or **a with op = 2 */
    NODE_FILTER,  /* constant: its name, a: input, list: arguments */
    NODE_TEST,    /* the same; op = 1: negated */
    NODE_NOT,
    NODE_MINUS,
    NODE_PLUS,
    NODE_BINARY, /* op, a, b */
    NODE_AND,
    NODE_OR,
    NODE_CONCAT,  /* list */
    NODE_COMPARE, /* a; list: NODE_OPERAND {op, a} */
    NODE_OPERAND,
    NODE_TERNARY /* a: test, b: value, c: other value or NULL */
};

enum operator_kind {
    OP_ADD = 1,
    OP_SUBTRACT,
    OP_MULTIPLY,
    OP_DIVIDE,
    OP_FLOOR,
    OP_MODULO,
    OP_POWER,
    OP_EQUAL,
    OP_DIFFERENT,
    OP_LESS,
    OP_LESS_EQUAL,
    OP_GREATER,
    OP_GREATER_EQUAL,
    OP_IN,
    OP_NOT_IN
};

struct node {
    enum node_kind kind;
    int op, line;
    int name; /* index into the template's names */
    struct value constant;
    struct node *a, *b, *c, *d, *list, *next;
};

struct template_name {
    const char *text;
    size_t n;
};

struct template
{
    char *name;
    char *source; /* [n_source] with line feeds only */
    size_t n_source;
    struct node *body;
    struct arena arena;
    struct template_name *names; /* [n_names] */
    size_t n_names, capacity;
};

enum { NAME_LOOP, NAME_CALLER, NAME_VARARGS, NAME_KWARGS, N_FIXED_NAMES };

/* The index of a name; adds it when new. */
pm_status template_intern(struct template *t, const char *text, size_t n, int *out);
/* Builds t->body from the tokens of t->source; *line is where it fails. */
pm_status template_parse_tokens(struct template *t, const struct token_list *tokens, int *line);

#endif
