/* template_eval.h - running a template's tree, and the table of what it may call. */
#ifndef RUNTIME_TEMPLATE_EVAL_H
#define RUNTIME_TEMPLATE_EVAL_H

#include "template_ast.h"

enum { MAX_PARAMETERS = 6 };

struct arguments {
    const struct value *item; /* [n] by place */
    size_t n;
    const struct value_entry *named; /* [n_named] by name */
    size_t n_named;
};

struct call {
    struct value self;                /* of filters, tests and methods */
    struct value arg[MAX_PARAMETERS]; /* VALUE_ABSENT where not given */
    const struct arguments *all;
};

typedef pm_status operation(struct render *r, const struct call *c, struct value *out);

/* A filter, test, method or function. */
struct function {
    const char *name;
    operation *run;
    const char *parameter[MAX_PARAMETERS]; /* {0}: takes none; "*": looks at call.all itself */
    int needed;                            /* so many of them must be given */
};

struct method {
    enum value_kind kind; /* of self; VALUE_LIST for tuples too */
    struct function function;
};

pm_status evaluate(struct render *r, struct scope *scope, const struct node *node,
                   struct value *out);
/* A body, into the output. */
pm_status execute(struct render *r, struct scope *scope, const struct node *list);

struct scope {
    struct binding *first;
    struct scope *parent;
};
pm_status scope_new(struct render *r, struct scope *parent, struct scope **out);
pm_status scope_set(struct render *r, struct scope *scope, int name, struct value value);

pm_status call_function(struct render *r, const struct function *f, const struct value *self,
                        const struct arguments *all, struct value *out);
pm_status call_value(struct render *r, const struct value *callee, const struct arguments *all,
                     struct value *out);
pm_status get_attribute(struct render *r, const struct value *v, const struct value *name,
                        struct value *out);
pm_status get_item(struct render *r, const struct value *v, const struct value *key,
                   struct value *out);
pm_status get_slice(struct render *r, const struct value *v, const struct value part[3],
                    struct value *out);
pm_status binary_operation(struct render *r, int op, const struct value *a,
                           const struct value *b, struct value *out);

/* By name; PM_ERR_UNSUPPORTED when there is no such filter or test. */
pm_status apply_filter(struct render *r, const struct value *name, const struct value *self,
                       const struct arguments *all, struct value *out);
pm_status apply_test(struct render *r, const struct value *name, const struct value *self,
                     const struct arguments *all, bool *out);
bool has_filter(const struct value *name);
bool has_test(const struct value *name);
/* NULL when there is none. */
const struct function *global_function(const struct template_name *name);
const struct method *find_method(const struct value *self, const struct value *name);

/* Arguments: the given value, else a default; fail with a sentence for another type. */
pm_status want_text(const struct value *v, const char *what, struct value *out);
pm_status want_int(const struct value *v, const char *what, int64_t otherwise, int64_t *out);
bool given(const struct value *v);

/* Refuses names that a namespace cannot have. */
pm_status check_member(const struct value *name);

/* text % value, and "...".format(...) */
pm_status format_percent(struct render *r, const struct value *text, const struct value *value,
                         struct value *out);
pm_status format_braces(struct render *r, const struct call *c, struct value *out);

#endif
