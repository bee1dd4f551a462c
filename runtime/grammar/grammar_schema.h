/* grammar_schema.h - what the files of the schema compiler share. */
#ifndef RUNTIME_GRAMMAR_SCHEMA_H
#define RUNTIME_GRAMMAR_SCHEMA_H

#include "grammar_inside.h"
#include "moe/json.h"

enum { MAX_PARTS = 16 };

enum type_bits {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_INTEGER = 4,
    TYPE_NUMBER = 8, /* comes with TYPE_INTEGER: integers are numbers */
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_ALL = 127
};

/* Schemas that must all hold, without repetition: a schema, what its $ref and allOf lead to,
 * and the branches chosen so far. A schema that leads back to itself without a value in between
 * means its smallest solution, so that way is `never`. */
enum part_done { DONE_ANY_OF = 1, DONE_ONE_OF = 2 };
struct view {
    const json *part[MAX_PARTS];
    uint8_t done[MAX_PARTS];  /* keywords that need not be looked at again */
    int8_t origin[MAX_PARTS]; /* the part that brought it, -1: none */
    int n;
    bool never; /* false is among them */
};

/* A view and the node where its values start. */
struct rule {
    struct view view;
    uint64_t hash;
    uint32_t start;
    uint32_t next; /* in the bucket, + 1 */
};
enum { N_RULE_BUCKET = 4096 };

struct schema {
    struct json_doc *doc;
    struct automaton a;
    struct rule *rule; /* those from n_built on wait to be built */
    size_t n_rule, rule_capacity, n_built;
    uint32_t bucket[N_RULE_BUCKET]; /* rule + 1 */
    uint32_t end;                   /* accepts: where every value ends */
    uint32_t space;                 /* white space, to be called */
    uint32_t free_string;           /* behind the quote of a string without limits */
    uint32_t free_number[2]; /* a number, an integer without rules; NO_NODE until one is met */
};

/* Fails with "schema: PATH: " and the message; a status of an automaton gets the same prefix.
 */
pm_status schema_fail(const struct schema *c, const json *v, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
pm_status schema_prefix(const struct schema *c, const json *v, pm_status status);

/* Adds a schema and what it refers to; origin: the part that brings it, or -1. */
pm_status view_add(struct schema *c, struct view *view, const json *s, int origin);
/* The start of the view's values; they are built later. A view that nothing fulfils has a start
 * from which no end can be reached. */
pm_status schema_start(struct schema *c, const struct view *view, uint32_t *start);

/* The types that all parts allow. `explicit`: a schema without `type` allows all; otherwise
 * those that its keywords speak of. */
pm_status view_types(struct schema *c, const struct view *view, bool is_explicit, int *types);
/* The value of a keyword in the first part that has it, or NULL. */
const json *view_get(const struct view *view, const char *key);
/* The i-th keyword that is known, NULL behind the last; *types: the types that it speaks of, or
 * none (0 and less). */
const char *schema_keyword(int i, int *types);

/* The values of a view behind `start`, in grammar_types.c and grammar_values.c. */
pm_status build_object(struct schema *c, const struct view *view, uint32_t start);
pm_status build_array(struct schema *c, const struct view *view, uint32_t start);
pm_status build_string(struct schema *c, const struct view *view, uint32_t start);
pm_status build_number(struct schema *c, const struct view *view, bool integer, uint32_t start);
/* Those among the values of enum or const that the view accepts. */
pm_status build_values(struct schema *c, const struct view *view, int types, uint32_t start);

/* The schemas that hold for a property, named by its text: in each part the property's own,
 * else that of additional properties. */
pm_status view_property(struct schema *c, const struct view *view, const char *name, size_t n,
                        struct view *out);
/* PM_ERR_ARG unless each two schemas of the list are known to exclude each other. */
pm_status check_exclusive(struct schema *c, const json *list);

/* Appends text as JSON writes it between quotes, each character in its only spelling. */
void put_spelled(struct json_out *o, const char *text, size_t n);
bool same_text(const char *a, size_t n_a, const char *b, size_t n_b);

#endif
