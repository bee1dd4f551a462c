/* template_value.h - values of a template and the memory of one rendering.
 *
 * A value is small and passed by copy; what it points at lives in the rendering's arena, in the
 * template, or in the JSON that the caller lent, and never moves or dies before the rendering
 * ends. Texts, lists and tuples never change. Dictionaries do while they are made; namespaces
 * do, and a loop's state. */
#ifndef RUNTIME_TEMPLATE_VALUE_H
#define RUNTIME_TEMPLATE_VALUE_H

#include "runtime/text/unicode.h"
#include "template.h"

/* Memory that is given back all at once. */
struct arena {
    struct arena_block *block;
    size_t at, end; /* free bytes of the newest block */
    size_t used, max;
};
/* n zeroed elements. PM_ERR_TOO_LONG over the bound. */
pm_status arena_take(struct arena *a, void *out, size_t n, size_t size);
void arena_clear(struct arena *a);

enum value_kind {
    VALUE_ABSENT, /* an argument that was not given; never a value of an expression */
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_TEXT,
    VALUE_LIST,
    VALUE_TUPLE,
    VALUE_RANGE,
    VALUE_VIEW, /* of a dictionary: keys, values, items */
    VALUE_ITERATOR,
    VALUE_DICT,
    VALUE_NAMESPACE,
    VALUE_LOOP,
    VALUE_MACRO,
    VALUE_FUNCTION,
    VALUE_METHOD
};

struct value {
    enum value_kind kind;
    bool request; /* a text, or what text of it will be, is the request's; where a text has
                     marks they say it byte by byte */
    union {
        bool truth;
        int64_t integer;
        double real;
        struct {
            const char *byte;          /* [n] well-formed UTF-8 */
            const unsigned char *mark; /* [n] 1: the request's; NULL: all as `request` */
            size_t n;
        } text;
        struct {
            const struct value *item; /* [n] of lists, tuples, ranges and views */
            size_t n;
            const char *view; /* "dict_items" */
        } list;
        struct value_iterator *iterator;
        struct value_dict *dict; /* of dictionaries and namespaces */
        struct loop *loop;
        struct macro *macro;
        const struct function *function;
        struct {
            const struct method *method;
            const struct value *self;
        } bound;
    };
};

struct value_iterator {
    const struct value *item; /* [n] from `at` on to come */
    size_t n, at;
};

struct value_entry {
    struct value key, value;
};
struct value_dict {
    struct value_entry *entry; /* [n] in the order of insertion */
    size_t n, capacity;
};

/* A loop in progress: the variable `loop`. */
struct loop {
    const struct value *item; /* [n] */
    size_t n, at;
    int depth;
    struct value changed; /* last arguments of loop.changed() */
};

struct scope;
struct node;
struct template_name;

/* A function that a template defined, with the scope that it was defined in. */
struct macro {
    const struct node *node;
    struct scope *scope;
};

/* One rendering. */
struct render {
    const struct template *t;
    struct arena arena;
    size_t steps; /* left */
    size_t max_output;
    int depth, line;
    enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;
    struct value hole; /* the text of a block that goes through filters */
    /* The output, and above it, like a stack, the texts that are being made. */
    char *byte;
    unsigned char *mark;
    size_t n, capacity, capacity_mark;
};

/* Counts an operation that moves n bytes, or looks at n values of 64 bytes. */
pm_status work(struct render *r, size_t n);

/* Texts are made on top of the output: `start = r->n; put_...; text_made(r, start, &v)`. */
pm_status put_bytes(struct render *r, const char *byte, size_t n, bool request);
pm_status put_text(struct render *r, const struct value *text);
pm_status put_slice(struct render *r, const struct value *text, size_t from, size_t to);
pm_status text_made(struct render *r, size_t start, struct value *out);

/* A text without copying: of constants, and of what lives as long. */
struct value text_of(const char *byte, size_t n);
struct value text_slice(const struct value *text, size_t from, size_t to);
struct value value_undefined(void);
struct value value_none(void);
struct value value_bool(bool truth);
struct value value_int(int64_t integer);
struct value value_float(double real);
struct value value_list(enum value_kind kind, const struct value *item, size_t n);
pm_status value_iterator(struct render *r, const struct value *item, size_t n,
                         struct value *out);

/* A growing list in the arena. */
struct value_items {
    struct value *item;
    size_t n, capacity;
};
pm_status items_add(struct render *r, struct value_items *items, struct value v);

pm_status dict_new(struct render *r, enum value_kind kind, struct value *out);
pm_status dict_set(struct render *r, struct value_dict *d, struct value key,
                   struct value value);
/* *out = NULL when there is none. */
pm_status dict_find(struct render *r, const struct value_dict *d, const struct value *key,
                    const struct value **out);
const struct value *dict_text(const struct value_dict *d, const char *key);

bool is_sequence(const struct value *v); /* list, tuple, range or view */
bool is_number(const struct value *v);   /* int, float or bool */
bool text_is(const struct value *v, const char *text);
size_t text_characters(const struct value *text);
/* Whether the byte is the request's. */
bool text_origin(const struct value *text, size_t at);
/* White space of Python's str.isspace. */
bool text_is_space(uint32_t c);
/* The first place of `part` from byte `from` on. */
pm_status text_find(struct render *r, const struct value *text, const struct value *part,
                    size_t from, size_t *at, bool *found);
/* The byte at which character i starts. */
size_t text_offset(const struct value *text, size_t i);
/* "'NoneType' object", as in Python's messages. */
const char *kind_name(const struct value *v);

bool value_true(const struct value *v);
pm_status value_equal(struct render *r, const struct value *a, const struct value *b,
                      bool *out);
/* -1, 0, 1; fails where Python has no order. */
pm_status value_compare(struct render *r, const struct value *a, const struct value *b,
                        int *out);
pm_status value_contains(struct render *r, const struct value *container,
                         const struct value *item, bool *out);
/* What iterating gives, in *item [*n]; an iterator is used up by it. */
pm_status value_items(struct render *r, const struct value *v, const struct value **item,
                      size_t *n);

/* str(v), repr(v) and json.dumps(v) on top of the output. */
pm_status put_str(struct render *r, const struct value *v);
pm_status put_repr(struct render *r, const struct value *v);
struct json_style {
    bool ascii, sort;
    const struct value *indent; /* a text, NULL for one line */
    struct value item, key;     /* separators */
};
pm_status put_json(struct render *r, const struct value *v, const struct json_style *style,
                   int depth);
/* str(v) as a value. */
pm_status to_text(struct render *r, const struct value *v, struct value *out);
pm_status put_number(struct render *r, const struct value *v); /* an int or a float */

/* A value of JSON whose texts are lent. */
pm_status value_of_json(struct render *r, const json *v, bool roles, struct value *out);

enum { MAX_NESTING = 500 }; /* of values, expressions, calls and bodies: bounds the C stack */
pm_status nest(struct render *r);

#endif
