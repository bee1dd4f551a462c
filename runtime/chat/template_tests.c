/* template_tests.c - Jinja's tests: what stands behind `is`, and what select() asks. */
#include "template_eval.h"

#include <math.h>
#include <string.h>

#include "template_text.h"

#define TEST(name)                                                                             \
    static pm_status name(struct render *r, const struct call *c, struct value *out)
#define ANSWER(truth) return *out = value_bool(truth), (void)r, PM_OK

TEST(test_defined)
{
    ANSWER(c->self.kind != VALUE_UNDEFINED);
}
TEST(test_undefined)
{
    ANSWER(c->self.kind == VALUE_UNDEFINED);
}
TEST(test_none)
{
    ANSWER(c->self.kind == VALUE_NONE);
}
TEST(test_boolean)
{
    ANSWER(c->self.kind == VALUE_BOOL);
}
TEST(test_true)
{
    ANSWER(c->self.kind == VALUE_BOOL && c->self.truth);
}
TEST(test_false)
{
    ANSWER(c->self.kind == VALUE_BOOL && !c->self.truth);
}
TEST(test_integer)
{
    ANSWER(c->self.kind == VALUE_INT);
}
TEST(test_float)
{
    ANSWER(c->self.kind == VALUE_FLOAT);
}
TEST(test_number)
{
    ANSWER(is_number(&c->self));
}
TEST(test_string)
{
    ANSWER(c->self.kind == VALUE_TEXT);
}
TEST(test_mapping)
{
    ANSWER(c->self.kind == VALUE_DICT);
}
TEST(test_filter)
{
    ANSWER(has_filter(&c->self));
}
TEST(test_test)
{
    ANSWER(has_test(&c->self));
}

TEST(test_iterable)
{
    ANSWER(is_sequence(&c->self) || c->self.kind == VALUE_TEXT || c->self.kind == VALUE_DICT ||
           c->self.kind == VALUE_ITERATOR || c->self.kind == VALUE_UNDEFINED ||
           c->self.kind == VALUE_LOOP);
}

/* What has a length and items: in Python an undefined value has both. */
TEST(test_sequence)
{
    ANSWER((is_sequence(&c->self) && c->self.kind != VALUE_VIEW) ||
           c->self.kind == VALUE_TEXT || c->self.kind == VALUE_DICT ||
           c->self.kind == VALUE_UNDEFINED);
}

TEST(test_callable)
{
    ANSWER(c->self.kind == VALUE_FUNCTION || c->self.kind == VALUE_METHOD ||
           c->self.kind == VALUE_MACRO || c->self.kind == VALUE_LOOP ||
           c->self.kind == VALUE_UNDEFINED);
}

/* What is the same object in Python: equal constants of one type, or one list. */
TEST(test_sameas)
{
    const struct value *a = &c->self, *b = &c->arg[0];
    bool equal = false;
    if (a->kind == b->kind) {
        if (is_sequence(a)) {
            equal = a->list.item == b->list.item && a->list.n == b->list.n;
        } else if (a->kind == VALUE_DICT) {
            equal = a->dict == b->dict;
        } else {
            TRY(value_equal(r, a, b, &equal));
        }
    }
    ANSWER(equal);
}

static pm_status text_test(struct render *r, const struct call *c, bool upper,
                           struct value *out)
{
    struct value text;
    TRY(to_text(r, &c->self, &text));
    TRY(work(r, text.text.n));
    ANSWER(text_has_case(&text, upper));
}

TEST(test_lower)
{
    return text_test(r, c, false, out);
}
TEST(test_upper)
{
    return text_test(r, c, true, out);
}

static pm_status remainder_test(struct render *r, const struct call *c, int64_t by,
                                int64_t wanted, struct value *out)
{
    struct value n = value_int(by), rest;
    if (!is_number(&c->self)) {
        return fail(PM_ERR_ARG, "a %s is not even, odd or divisible", kind_name(&c->self));
    }
    TRY(binary_operation(r, OP_MODULO, &c->self, &n, &rest));
    ANSWER(rest.kind == VALUE_FLOAT ? rest.real == (double)wanted : rest.integer == wanted);
}

TEST(test_even)
{
    return remainder_test(r, c, 2, 0, out);
}
TEST(test_odd)
{
    return remainder_test(r, c, 2, 1, out);
}

TEST(test_divisibleby)
{
    int64_t by;
    TRY(want_int(&c->arg[0], "num", 0, &by));
    return remainder_test(r, c, by, 0, out);
}

TEST(test_in)
{
    bool truth;
    TRY(value_contains(r, &c->arg[0], &c->self, &truth));
    ANSWER(truth);
}

TEST(test_eq)
{
    bool truth;
    TRY(value_equal(r, &c->self, &c->arg[0], &truth));
    ANSWER(truth);
}

TEST(test_ne)
{
    bool truth;
    TRY(value_equal(r, &c->self, &c->arg[0], &truth));
    ANSWER(!truth);
}

#define ORDER_TEST(name, condition)                                                            \
    TEST(name)                                                                                 \
    {                                                                                          \
        int order;                                                                             \
        TRY(value_compare(r, &c->self, &c->arg[0], &order));                                   \
        ANSWER(condition);                                                                     \
    }
ORDER_TEST(test_lt, order < 0)
ORDER_TEST(test_le, order <= 0)
ORDER_TEST(test_gt, order > 0)
ORDER_TEST(test_ge, order >= 0)

static const struct function tests[] = {
    {"!=", test_ne, {"other"}, 1},
    {"<", test_lt, {"other"}, 1},
    {"<=", test_le, {"other"}, 1},
    {"==", test_eq, {"other"}, 1},
    {">", test_gt, {"other"}, 1},
    {">=", test_ge, {"other"}, 1},
    {"boolean", test_boolean, {NULL}, 0},
    {"callable", test_callable, {NULL}, 0},
    {"defined", test_defined, {NULL}, 0},
    {"divisibleby", test_divisibleby, {"num"}, 1},
    {"eq", test_eq, {"other"}, 1},
    {"equalto", test_eq, {"other"}, 1},
    {"even", test_even, {NULL}, 0},
    {"false", test_false, {NULL}, 0},
    {"filter", test_filter, {NULL}, 0},
    {"float", test_float, {NULL}, 0},
    {"ge", test_ge, {"other"}, 1},
    {"greaterthan", test_gt, {"other"}, 1},
    {"gt", test_gt, {"other"}, 1},
    {"in", test_in, {"seq"}, 1},
    {"integer", test_integer, {NULL}, 0},
    {"iterable", test_iterable, {NULL}, 0},
    {"le", test_le, {"other"}, 1},
    {"lessthan", test_lt, {"other"}, 1},
    {"lower", test_lower, {NULL}, 0},
    {"lt", test_lt, {"other"}, 1},
    {"mapping", test_mapping, {NULL}, 0},
    {"ne", test_ne, {"other"}, 1},
    {"none", test_none, {NULL}, 0},
    {"number", test_number, {NULL}, 0},
    {"odd", test_odd, {NULL}, 0},
    {"sameas", test_sameas, {"other"}, 1},
    {"sequence", test_sequence, {NULL}, 0},
    {"string", test_string, {NULL}, 0},
    {"test", test_test, {NULL}, 0},
    {"true", test_true, {NULL}, 0},
    {"undefined", test_undefined, {NULL}, 0},
    {"upper", test_upper, {NULL}, 0},
};

static const struct function *find_test(const struct value *name)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (text_is(name, tests[i].name)) return &tests[i];
    }
    return NULL;
}

bool has_test(const struct value *name)
{
    return find_test(name) != NULL;
}

pm_status apply_test(struct render *r, const struct value *name, const struct value *self,
                     const struct arguments *all, bool *out)
{
    const struct function *f = find_test(name);
    struct value answer;
    char shown[JSON_EXCERPT];
    if (!f) {
        return fail(PM_ERR_UNSUPPORTED, "test %s is not known",
                    name->kind == VALUE_TEXT
                        ? json_excerpt(shown, name->text.byte, name->text.n)
                        : kind_name(name));
    }
    TRY(call_function(r, f, self, all, &answer));
    *out = value_true(&answer);
    return PM_OK;
}
