/* template_eval.c - runs a template: statements write to the output, expressions give values.
 *
 * Scopes are chains of bindings. A loop's turn, a macro's call and a block that is captured
 * have their own scope; setting a name binds it in the innermost one, so that it is gone at
 * its end, as in Jinja. A macro keeps the scope that it was defined in.
 *
 * break and continue are a flag that every list of statements looks at. */
#include "template_eval.h"

#include <stdlib.h>
#include <string.h>

struct binding {
    int name;
    struct value value;
    struct binding *next;
};

/* Scopes */

pm_status scope_new(struct render *r, struct scope *parent, struct scope **out)
{
    TRY(arena_take(&r->arena, out, 1, sizeof **out));
    (*out)->parent = parent;
    return PM_OK;
}

static struct binding *find_binding(struct scope *scope, int name)
{
    for (struct binding *b = scope->first; b; b = b->next) {
        if (b->name == name) return b;
    }
    return NULL;
}

pm_status scope_set(struct render *r, struct scope *scope, int name, struct value value)
{
    struct binding *b = find_binding(scope, name);
    if (!b) {
        TRY(arena_take(&r->arena, &b, 1, sizeof *b));
        b->name = name;
        b->next = scope->first;
        scope->first = b;
    }
    b->value = value;
    return work(r, 0);
}

static struct value look_up(const struct render *r, struct scope *scope, int name)
{
    const struct template_name *n = &r->t->names[name];
    const struct function *f;
    struct value v = value_undefined();
    for (; scope; scope = scope->parent) {
        struct binding *b = find_binding(scope, name);
        if (b) return b->value;
    }
    f = global_function(n);
    if (f) {
        v.kind = VALUE_FUNCTION;
        v.function = f;
    } else {
        v.text.byte = n->text; /* for the sentence of who uses it */
        v.text.n = n->n;
    }
    return v;
}

/* Calls */

static pm_status add_named(struct render *r, struct value_dict *named, struct value key,
                           struct value value)
{
    const struct value *found;
    char shown[JSON_EXCERPT];
    if (key.kind != VALUE_TEXT) return fail(PM_ERR_ARG, "** with a key that is no text");
    TRY(dict_find(r, named, &key, &found));
    if (found) {
        return fail(PM_ERR_ARG, "found the argument %s twice",
                    json_excerpt(shown, key.text.byte, key.text.n));
    }
    return dict_set(r, named, key, value);
}

static pm_status evaluate_arguments(struct render *r, struct scope *scope,
                                    const struct node *list, struct arguments *out)
{
    struct value_items items = {0};
    struct value named;
    TRY(dict_new(r, VALUE_DICT, &named));
    for (const struct node *n = list; n; n = n->next) {
        const struct value *item;
        size_t n_item;
        struct value v;
        TRY(evaluate(r, scope, n->kind == NODE_KEYWORD || n->kind == NODE_SPREAD ? n->a : n,
                     &v));
        if (n->kind == NODE_KEYWORD) {
            TRY(add_named(r, named.dict, n->constant, v));
        } else if (n->kind != NODE_SPREAD) {
            TRY(items_add(r, &items, v));
        } else if (n->op == 1) {
            TRY(value_items(r, &v, &item, &n_item));
            for (size_t i = 0; i < n_item; i++) {
                TRY(items_add(r, &items, item[i]));
            }
        } else if (v.kind == VALUE_DICT) {
            for (size_t i = 0; i < v.dict->n; i++) {
                TRY(add_named(r, named.dict, v.dict->entry[i].key, v.dict->entry[i].value));
            }
        } else {
            return fail(PM_ERR_ARG, "** of a %s, wanted a dictionary", kind_name(&v));
        }
    }
    *out = (struct arguments){items.item, items.n, named.dict->entry, named.dict->n};
    return PM_OK;
}

static bool uses(const struct node *macro, int name)
{
    return macro->op >> name & 1;
}

/* The argument that goes to a parameter, NULL when none does. */
static const struct value *argument_of(const struct arguments *all, size_t i,
                                       const struct template_name *name)
{
    if (i < all->n) return &all->item[i];
    for (size_t j = 0; j < all->n_named; j++) {
        const struct value *key = &all->named[j].key;
        if (key->text.n == name->n && memcmp(key->text.byte, name->text, name->n) == 0) {
            return &all->named[j].value;
        }
    }
    return NULL;
}

static bool is_parameter(const struct render *r, const struct node *list,
                         const struct value *key)
{
    for (; list; list = list->next) {
        const struct template_name *name = &r->t->names[list->name];
        if (key->text.n == name->n && memcmp(key->text.byte, name->text, name->n) == 0) {
            return true;
        }
    }
    return false;
}

/* varargs, kwargs and caller; what is left over otherwise is one argument too many. */
static pm_status bind_rest(struct render *r, struct scope *scope, const struct node *macro,
                           const struct arguments *all, size_t n_parameter)
{
    struct value kwargs, rest = value_list(VALUE_TUPLE, NULL, 0), caller = value_undefined();
    struct value name;
    TRY(dict_new(r, VALUE_DICT, &kwargs));
    if (all->n > n_parameter) {
        if (!uses(macro, NAME_VARARGS)) {
            return fail(PM_ERR_ARG, "a macro takes %zu arguments, found %zu", n_parameter,
                        all->n);
        }
        rest = value_list(VALUE_TUPLE, all->item + n_parameter, all->n - n_parameter);
    }
    for (size_t i = 0; i < all->n_named; i++) {
        const struct value_entry *e = &all->named[i];
        if (is_parameter(r, macro->a, &e->key)) continue;
        if (text_is(&e->key, "caller") && uses(macro, NAME_CALLER)) {
            caller = e->value;
        } else if (uses(macro, NAME_KWARGS)) {
            TRY(dict_set(r, kwargs.dict, e->key, e->value));
        } else {
            char shown[JSON_EXCERPT];
            return fail(PM_ERR_ARG, "a macro takes no argument %s",
                        json_excerpt(shown, e->key.text.byte, e->key.text.n));
        }
    }
    if (uses(macro, NAME_VARARGS)) TRY(scope_set(r, scope, NAME_VARARGS, rest));
    if (uses(macro, NAME_KWARGS)) TRY(scope_set(r, scope, NAME_KWARGS, kwargs));
    name = text_of("caller", 6);
    if (!uses(macro, NAME_CALLER) || is_parameter(r, macro->a, &name)) return PM_OK;
    return scope_set(r, scope, NAME_CALLER, caller);
}

static pm_status run_macro(struct render *r, const struct macro *m, const struct arguments *all,
                           struct value *out)
{
    struct scope *scope;
    size_t start = r->n, i = 0;
    TRY(scope_new(r, m->scope, &scope));
    for (const struct node *p = m->node->a; p; p = p->next, i++) {
        const struct value *given = argument_of(all, i, &r->t->names[p->name]);
        struct value v = value_undefined();
        v.text.byte = r->t->names[p->name].text;
        v.text.n = r->t->names[p->name].n;
        if (given) {
            v = *given;
        } else if (p->a) {
            TRY(evaluate(r, scope, p->a, &v));
        }
        TRY(scope_set(r, scope, p->name, v));
    }
    TRY(bind_rest(r, scope, m->node, all, i));
    TRY(execute(r, scope, m->node->list));
    return text_made(r, start, out);
}

pm_status call_value(struct render *r, const struct value *callee, const struct arguments *all,
                     struct value *out)
{
    char shown[JSON_EXCERPT];
    pm_status status;
    switch (callee->kind) {
    case VALUE_FUNCTION: return call_function(r, callee->function, NULL, all, out);
    case VALUE_METHOD:
        return call_function(r, &callee->bound.method->function, callee->bound.self, all, out);
    case VALUE_MACRO:
        TRY(nest(r));
        status = run_macro(r, callee->macro, all, out);
        r->depth--;
        return status;
    case VALUE_UNDEFINED:
        return fail(PM_ERR_ARG, "%s is undefined and cannot be called",
                    json_excerpt(shown, callee->text.n ? callee->text.byte : "a value",
                                 callee->text.n ? callee->text.n : 7));
    default: return fail(PM_ERR_ARG, "a %s cannot be called", kind_name(callee));
    }
}

/* Expressions */

static pm_status evaluate_list(struct render *r, struct scope *scope, const struct node *node,
                               struct value *out)
{
    struct value_items items = {0};
    for (const struct node *n = node->list; n; n = n->next) {
        struct value v;
        TRY(evaluate(r, scope, n, &v));
        TRY(items_add(r, &items, v));
    }
    *out = value_list(node->kind == NODE_TUPLE ? VALUE_TUPLE : VALUE_LIST, items.item, items.n);
    return PM_OK;
}

static pm_status evaluate_dict(struct render *r, struct scope *scope, const struct node *node,
                               struct value *out)
{
    struct value dict;
    TRY(dict_new(r, VALUE_DICT, &dict));
    for (const struct node *n = node->list; n; n = n->next->next) {
        struct value key, value;
        TRY(evaluate(r, scope, n, &key));
        TRY(evaluate(r, scope, n->next, &value));
        TRY(dict_set(r, dict.dict, key, value));
    }
    *out = dict;
    return PM_OK;
}

static pm_status evaluate_slice(struct render *r, struct scope *scope, const struct node *node,
                                struct value *out)
{
    const struct node *n = node->list;
    struct value v, part[3];
    TRY(evaluate(r, scope, node->a, &v));
    for (int i = 0; i < 3; i++, n = n->next) {
        part[i] = value_none();
        if (n->kind != NODE_ABSENT) TRY(evaluate(r, scope, n, &part[i]));
    }
    return get_slice(r, &v, part, out);
}

static pm_status evaluate_concat(struct render *r, struct scope *scope, const struct node *node,
                                 struct value *out)
{
    size_t start = r->n;
    for (const struct node *n = node->list; n; n = n->next) {
        struct value v;
        TRY(evaluate(r, scope, n, &v));
        TRY(put_str(r, &v));
    }
    return text_made(r, start, out);
}

static pm_status compare(struct render *r, int op, const struct value *a, const struct value *b,
                         bool *out)
{
    int order;
    if (op == OP_EQUAL || op == OP_DIFFERENT) {
        TRY(value_equal(r, a, b, out));
        *out ^= op == OP_DIFFERENT;
        return PM_OK;
    }
    if (op == OP_IN || op == OP_NOT_IN) {
        TRY(value_contains(r, b, a, out));
        *out ^= op == OP_NOT_IN;
        return PM_OK;
    }
    TRY(value_compare(r, a, b, &order));
    *out = op == OP_LESS         ? order < 0
           : op == OP_LESS_EQUAL ? order <= 0
           : op == OP_GREATER    ? order > 0
                                 : order >= 0;
    return PM_OK;
}

static pm_status evaluate_compare(struct render *r, struct scope *scope,
                                  const struct node *node, struct value *out)
{
    struct value left, right;
    bool truth = true;
    TRY(evaluate(r, scope, node->a, &left));
    for (const struct node *n = node->list; n && truth; n = n->next) {
        TRY(evaluate(r, scope, n->a, &right));
        TRY(compare(r, n->op, &left, &right, &truth));
        left = right;
    }
    *out = value_bool(truth);
    return PM_OK;
}

static pm_status evaluate_sign(struct render *r, struct scope *scope, const struct node *node,
                               struct value *out)
{
    struct value v, zero = value_int(0);
    TRY(evaluate(r, scope, node->a, &v));
    if (!is_number(&v)) return fail(PM_ERR_ARG, "a sign before a %s", kind_name(&v));
    if (v.kind == VALUE_FLOAT) {
        *out = value_float(node->kind == NODE_MINUS ? -v.real : v.real);
        return PM_OK;
    }
    return binary_operation(r, node->kind == NODE_MINUS ? OP_SUBTRACT : OP_ADD, &zero, &v, out);
}

static pm_status evaluate_call(struct render *r, struct scope *scope, const struct node *node,
                               struct value *out)
{
    struct arguments all;
    struct value callee;
    TRY(evaluate(r, scope, node->a, &callee));
    TRY(evaluate_arguments(r, scope, node->list, &all));
    r->line = node->line;
    return call_value(r, &callee, &all, out);
}

static pm_status evaluate_applied(struct render *r, struct scope *scope,
                                  const struct node *node, struct value *out)
{
    struct arguments all;
    struct value v;
    bool truth;
    TRY(evaluate(r, scope, node->a, &v));
    TRY(evaluate_arguments(r, scope, node->list, &all));
    r->line = node->line;
    if (node->kind == NODE_FILTER) return apply_filter(r, &node->constant, &v, &all, out);
    TRY(apply_test(r, &node->constant, &v, &all, &truth));
    *out = value_bool(truth != (node->op == 1));
    return PM_OK;
}

static pm_status evaluate_operands(struct render *r, struct scope *scope,
                                   const struct node *node, struct value *out)
{
    struct value a, b;
    TRY(evaluate(r, scope, node->a, &a));
    switch (node->kind) {
    case NODE_NOT: *out = value_bool(!value_true(&a)); return PM_OK;
    case NODE_AND:
    case NODE_OR:
        if (value_true(&a) == (node->kind == NODE_AND)) return evaluate(r, scope, node->b, out);
        *out = a;
        return PM_OK;
    case NODE_TERNARY:
        if (value_true(&a)) return evaluate(r, scope, node->b, out);
        if (node->c) return evaluate(r, scope, node->c, out);
        *out = value_undefined();
        return PM_OK;
    case NODE_ATTRIBUTE: return get_attribute(r, &a, &node->constant, out);
    default: break;
    }
    TRY(evaluate(r, scope, node->b, &b));
    r->line = node->line;
    if (node->kind == NODE_ITEM) return get_item(r, &a, &b, out);
    return binary_operation(r, node->op, &a, &b, out);
}

static pm_status evaluate_inside(struct render *r, struct scope *scope, const struct node *node,
                                 struct value *out)
{
    switch (node->kind) {
    case NODE_CONSTANT: *out = node->constant; return PM_OK;
    case NODE_NAME: *out = look_up(r, scope, node->name); return PM_OK;
    case NODE_HOLE: *out = r->hole; return PM_OK;
    case NODE_LIST:
    case NODE_TUPLE: return evaluate_list(r, scope, node, out);
    case NODE_DICT: return evaluate_dict(r, scope, node, out);
    case NODE_SLICE: return evaluate_slice(r, scope, node, out);
    case NODE_CALL: return evaluate_call(r, scope, node, out);
    case NODE_FILTER:
    case NODE_TEST: return evaluate_applied(r, scope, node, out);
    case NODE_MINUS:
    case NODE_PLUS: return evaluate_sign(r, scope, node, out);
    case NODE_CONCAT: return evaluate_concat(r, scope, node, out);
    case NODE_COMPARE: return evaluate_compare(r, scope, node, out);
    default: return evaluate_operands(r, scope, node, out);
    }
}

pm_status evaluate(struct render *r, struct scope *scope, const struct node *node,
                   struct value *out)
{
    pm_status status;
    r->line = node->line;
    TRY(work(r, 0));
    TRY(nest(r));
    status = evaluate_inside(r, scope, node, out);
    r->depth--;
    return status;
}

/* Statements */

/* As transformers' namespaces refuse them. */
pm_status check_member(const struct value *name)
{
    if (name->text.n == 0 || *name->text.byte != '_') return PM_OK;
    return fail(PM_ERR_ARG, "a member of a namespace cannot start with an underscore");
}

static pm_status assign(struct render *r, struct scope *scope, const struct node *target,
                        struct value v)
{
    const struct value *item;
    struct value owner;
    size_t n, n_target = 0;
    if (target->kind == NODE_NAME) return scope_set(r, scope, target->name, v);
    if (target->kind == NODE_ATTRIBUTE) {
        TRY(evaluate(r, scope, target->a, &owner));
        if (owner.kind != VALUE_NAMESPACE) {
            return fail(PM_ERR_ARG, "an attribute of a %s cannot be set, only of a namespace",
                        kind_name(&owner));
        }
        TRY(check_member(&target->constant));
        return dict_set(r, owner.dict, target->constant, v);
    }
    for (const struct node *t = target->list; t; t = t->next) {
        n_target++;
    }
    TRY(value_items(r, &v, &item, &n));
    if (n != n_target) {
        return fail(PM_ERR_ARG, "found %zu values for %zu names", n, n_target);
    }
    for (const struct node *t = target->list; t; t = t->next) {
        TRY(assign(r, scope, t, *item++));
    }
    return PM_OK;
}

static pm_status filter_items(struct render *r, struct scope *scope, const struct node *node,
                              const struct value **item, size_t *n)
{
    struct value_items kept = {0};
    for (size_t i = 0; i < *n; i++) {
        struct scope *turn;
        struct value v;
        TRY(scope_new(r, scope, &turn));
        TRY(assign(r, turn, node->a, (*item)[i]));
        TRY(evaluate(r, turn, node->c, &v));
        if (!value_true(&v)) continue;
        v = (*item)[i];
        /* What was unpacked for the filter is packed again, as a tuple. */
        if (node->a->kind == NODE_TUPLE && v.kind == VALUE_LIST) v.kind = VALUE_TUPLE;
        TRY(items_add(r, &kept, v));
    }
    *item = kept.item;
    *n = kept.n;
    return PM_OK;
}

/* *finished: a turn came to its end. Jinja asks for that, not for turns, before `else`. */
static pm_status execute_turns(struct render *r, struct scope *scope, const struct node *node,
                               struct value loop, bool *finished)
{
    bool stop = false;
    for (size_t i = 0; i < loop.loop->n && !stop; i++) {
        struct scope *turn;
        loop.loop->at = i;
        TRY(scope_new(r, scope, &turn));
        TRY(scope_set(r, turn, NAME_LOOP, loop));
        TRY(assign(r, turn, node->a, loop.loop->item[i]));
        TRY(execute(r, turn, node->list));
        stop = r->flow == FLOW_BREAK;
        *finished |= r->flow == FLOW_ON;
        r->flow = FLOW_ON;
    }
    return PM_OK;
}

static pm_status execute_for(struct render *r, struct scope *scope, const struct node *node)
{
    struct value v, loop = {.kind = VALUE_LOOP};
    struct scope *otherwise;
    bool finished = false;
    TRY(evaluate(r, scope, node->b, &v));
    TRY(arena_take(&r->arena, &loop.loop, 1, sizeof *loop.loop));
    TRY(value_items(r, &v, &loop.loop->item, &loop.loop->n));
    if (node->c) TRY(filter_items(r, scope, node, &loop.loop->item, &loop.loop->n));
    TRY(execute_turns(r, scope, node, loop, &finished));
    if (finished || !node->d) return PM_OK;
    TRY(scope_new(r, scope, &otherwise));
    return execute(r, otherwise, node->d->list);
}

static pm_status execute_if(struct render *r, struct scope *scope, const struct node *node)
{
    for (const struct node *branch = node->list; branch; branch = branch->next) {
        struct value v = value_bool(true);
        if (branch->a) TRY(evaluate(r, scope, branch->a, &v));
        if (value_true(&v)) return execute(r, scope, branch->list);
    }
    return PM_OK;
}

/* The text of a body in a scope of its own, through the filters of a block. Where the body was
 * left by break or continue the text is lost, as in Jinja. */
static pm_status capture(struct render *r, struct scope *scope, const struct node *node,
                         struct value *out)
{
    size_t start = r->n;
    struct scope *inside;
    struct value text, outer = r->hole;
    TRY(scope_new(r, scope, &inside));
    TRY(execute(r, inside, node->list));
    TRY(text_made(r, start, &text));
    *out = text;
    if (!node->b || r->flow != FLOW_ON) return PM_OK;
    r->hole = text;
    TRY(evaluate(r, scope, node->b, out));
    r->hole = outer;
    return PM_OK;
}

static pm_status define_macro(struct render *r, struct scope *scope, const struct node *node,
                              struct value *out)
{
    out->kind = VALUE_MACRO;
    out->request = false;
    TRY(arena_take(&r->arena, &out->macro, 1, sizeof *out->macro));
    out->macro->node = node;
    out->macro->scope = scope;
    return PM_OK;
}

static pm_status execute_call_block(struct render *r, struct scope *scope,
                                    const struct node *node)
{
    struct value callee, caller, named, out;
    struct arguments all;
    TRY(evaluate(r, scope, node->b->a, &callee));
    TRY(evaluate_arguments(r, scope, node->b->list, &all));
    TRY(define_macro(r, scope, node, &caller));
    TRY(dict_new(r, VALUE_DICT, &named));
    for (size_t i = 0; i < all.n_named; i++) {
        TRY(dict_set(r, named.dict, all.named[i].key, all.named[i].value));
    }
    TRY(dict_set(r, named.dict, text_of("caller", 6), caller));
    all.named = named.dict->entry;
    all.n_named = named.dict->n;
    TRY(call_value(r, &callee, &all, &out));
    return put_str(r, &out);
}

static pm_status execute_with(struct render *r, struct scope *scope, const struct node *node)
{
    struct scope *inside;
    TRY(scope_new(r, scope, &inside));
    for (const struct node *n = node->a; n; n = n->next) {
        struct value v;
        TRY(evaluate(r, scope, n->b, &v)); /* values do not see one another */
        TRY(assign(r, inside, n->a, v));
    }
    return execute(r, inside, node->list);
}

static pm_status execute_set(struct render *r, struct scope *scope, const struct node *node)
{
    struct value v;
    if (node->kind == NODE_SET) {
        TRY(evaluate(r, scope, node->b, &v));
    } else {
        TRY(capture(r, scope, node, &v));
        if (r->flow != FLOW_ON) return PM_OK;
    }
    r->line = node->line;
    return assign(r, scope, node->a, v);
}

static pm_status execute_one(struct render *r, struct scope *scope, const struct node *node)
{
    struct value v;
    struct scope *inside;
    r->line = node->line;
    TRY(work(r, 0));
    switch (node->kind) {
    case NODE_DATA: return put_text(r, &node->constant);
    case NODE_PRINT: TRY(evaluate(r, scope, node->a, &v)); return put_str(r, &v);
    case NODE_IF: return execute_if(r, scope, node);
    case NODE_FOR: return execute_for(r, scope, node);
    case NODE_SET:
    case NODE_SET_BLOCK: return execute_set(r, scope, node);
    case NODE_MACRO:
        TRY(define_macro(r, scope, node, &v));
        return scope_set(r, scope, node->name, v);
    case NODE_CALL_BLOCK: return execute_call_block(r, scope, node);
    case NODE_FILTER_BLOCK:
        TRY(capture(r, scope, node, &v));
        return r->flow == FLOW_ON ? put_str(r, &v) : PM_OK;
    case NODE_WITH: return execute_with(r, scope, node);
    case NODE_SCOPE: TRY(scope_new(r, scope, &inside)); return execute(r, inside, node->list);
    case NODE_BREAK: r->flow = FLOW_BREAK; return PM_OK;
    default: r->flow = FLOW_CONTINUE; return PM_OK;
    }
}

pm_status execute(struct render *r, struct scope *scope, const struct node *list)
{
    TRY(nest(r));
    for (; list && r->flow == FLOW_ON; list = list->next) {
        TRY(execute_one(r, scope, list));
    }
    r->depth--;
    return PM_OK;
}
