/* options_test.c - the option table: defaults, ranges, sentences, the environment. */
#define _POSIX_C_SOURCE 200809L
#include <float.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/options.h"

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

static struct pm_options *fresh(void)
{
    struct pm_options *o = NULL;
    if (pm_options_new(&o) != PM_OK) FAIL("%s", pm_last_error());
    return o;
}

static void assert_said(const char *part)
{
    if (!strstr(pm_last_error(), part)) FAIL("no \"%s\" in: %s", part, pm_last_error());
}

static void set(struct pm_options *o, const char *key, const char *value)
{
    if (pm_options_set(o, key, value) != PM_OK) FAIL("%s", pm_last_error());
}

static void value_is(const struct pm_options *o, const char *key, const char *want)
{
    char text[64];
    options_value(o, options_find(key), text, sizeof text);
    if (strcmp(text, want) != 0) FAIL("%s is %s, wanted %s", key, text, want);
}

static void fresh_options_hold_the_defaults(void **state)
{
    static const char *const want[][2] = {
        {"device", "auto"},    {"threads", "0"},        {"context", "0"},
        {"batch", "512"},      {"kv-type", "auto"},     {"max-tokens", "256"},
        {"temperature", "0"},  {"top-k", "0"},          {"top-p", "1"},
        {"min-p", "0"},        {"repeat-penalty", "1"}, {"seed", "0"},
        {"logprobs", "0"},     {"ignore-eos", "off"},   {"max-seqs", "32"},
        {"kv-tokens", "0"},    {"max-queue", "1024"},   {"max-queue-tokens", "1048576"},
        {"prefix-cache", "1"}, {"decode-slowdown", "2"}};
    struct pm_options *o = fresh();
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        value_is(o, want[i][0], want[i][1]);
    }
    assert_int_equal(o->n_stop, 0);
    pm_options_free(o);
    pm_options_free(NULL);
}

/* Names and letters are unique, fields lie inside and do not overlap, help is there, and the
 * default of every number is inside its range. */
static void the_table_is_sound(void **state)
{
    struct pm_options *o = fresh();
    (void)state;
    for (const struct option *a = options_table; a->name; a++) {
        char value[64];
        assert_ptr_equal(options_find(a->name), a);
        assert_true(a->offset + a->size <= sizeof(struct pm_options));
        assert_true(a->help && *a->help && a->value);
        for (const struct option *b = options_table; b < a; b++) {
            assert_string_not_equal(a->name, b->name);
            if (a->letter) assert_int_not_equal(a->letter, b->letter);
            assert_true(a->offset >= b->offset + b->size || b->offset >= a->offset + a->size);
        }
        options_value(o, a, value, sizeof value);
        if (a->kind == OPTION_INT || a->kind == OPTION_FLOAT || a->kind == OPTION_U64) {
            if (options_set(o, a, value) != PM_OK) FAIL("%s", pm_last_error());
        }
    }
    pm_options_free(o);
}

static void values_come_back_as_they_were_set(void **state)
{
    static const char *const pairs[][2] = {
        {"device", "cpu"},         {"threads", "1024"},
        {"context", "1073741824"}, {"batch", "1"},
        {"kv-type", "bf16"},       {"max-seqs", "64"},
        {"prefix-cache", "0"},     {"decode-slowdown", "1.5"},
        {"max-tokens", "0"},       {"temperature", "0.7"},
        {"top-k", "40"},           {"top-p", "0.95"},
        {"min-p", "0.05"},         {"repeat-penalty", "1.1"},
        {"logprobs", "32"},        {"seed", "18446744073709551615"}};
    struct pm_options *o = fresh();
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        set(o, pairs[i][0], pairs[i][1]);
    }
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        value_is(o, pairs[i][0], pairs[i][1]);
    }
    assert_true(o->temperature == 0.7f && o->seed == UINT64_MAX && o->threads == 1024);
    set(o, "ignore-eos", "1");
    assert_true(o->ignore_eos);
    set(o, "ignore-eos", "0");
    value_is(o, "ignore-eos", "off");
    pm_options_free(o);
}

static void wrong_values_are_refused_and_change_nothing(void **state)
{
    static const char *const wrong[][2] = {{"threads", "-1"},
                                           {"threads", "1025"},
                                           {"threads", "1.5"},
                                           {"threads", ""},
                                           {"threads", "two"},
                                           {"threads", "2x"},
                                           {"threads", "nan"},
                                           {"threads", "inf"},
                                           {"batch", "0"},
                                           {"batch", "65537"},
                                           {"context", "1e10"},
                                           {"max-tokens", "-5"},
                                           {"temperature", "-0.1"},
                                           {"temperature", "101"},
                                           {"temperature", "nan"},
                                           {"temperature", "hot"},
                                           {"top-p", "0"},
                                           {"top-p", "1.01"},
                                           {"min-p", "-1"},
                                           {"min-p", "2"},
                                           {"repeat-penalty", "0"},
                                           {"repeat-penalty", "1e3"},
                                           {"seed", "-1"},
                                           {"seed", " -1"},
                                           {"seed", "1.5"},
                                           {"seed", ""},
                                           {"seed", "18446744073709551616"},
                                           {"seed", "x"},
                                           {"logprobs", "33"},
                                           {"ignore-eos", "yes"},
                                           {"prefix-cache", "on"},
                                           {"max-seqs", "0"},
                                           {"ignore-eos", ""},
                                           {"temperature", "1e400"},
                                           {"threads", "0x10"},
                                           {"threads", "1e2"},
                                           {"threads", "8.0"},
                                           {"threads", " 8"},
                                           {"threads", "8 "},
                                           {"threads", "+8"},
                                           {"threads", "-0"},
                                           {"threads", "18446744073709551617"},
                                           {"max-tokens", "Infinity"},
                                           {"seed", "0x10"},
                                           {"seed", "1e2"},
                                           {"seed", "+1"},
                                           {"temperature", "0x1p-1"},
                                           {"temperature", "inf"},
                                           {"temperature", "NAN"},
                                           {"temperature", "nan(1)"},
                                           {"temperature", " 1"},
                                           {"temperature", "+1"},
                                           {"temperature", "-0"},
                                           {"temperature", "1e"},
                                           {"temperature", "."},
                                           {"temperature", ""},
                                           {"kv-type", "more than seven"}};
    struct pm_options *o = fresh();
    (void)state;
    set(o, "seed", "7");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct pm_options before = *o;
        pm_status status = pm_options_set(o, wrong[i][0], wrong[i][1]);
        if (status != PM_ERR_ARG) {
            FAIL("%s \"%s\" gave status %d", wrong[i][0], wrong[i][1], status);
        }
        assert_said(wrong[i][0]);
        assert_said(wrong[i][1]);
        assert_memory_equal(o, &before, sizeof before);
    }
    pm_options_free(o);
}

static void zeros_in_front_are_not_octal(void **state)
{
    struct pm_options *o = fresh();
    (void)state;
    set(o, "threads", "010");
    set(o, "seed", "010");
    set(o, "temperature", "00.50");
    assert_true(o->threads == 10 && o->seed == 10 && o->temperature == 0.5f);
    set(o, "temperature", "5e-1");
    set(o, "top-p", ".5");
    set(o, "min-p", "1.");
    assert_true(o->temperature == 0.5f && o->top_p == 0.5f && o->min_p == 1);
    pm_options_free(o);
}

static void the_sentence_says_what_was_wanted(void **state)
{
    struct pm_options *o = fresh();
    (void)state;
    pm_options_set(o, "threads", "lots");
    assert_string_equal(pm_last_error(),
                        "threads: found \"lots\", wanted a whole number from 0 to 1024");
    pm_options_set(o, "top-p", "3");
    assert_said("wanted a number from 1e-09 to 1");
    pm_options_set(o, "seed", "x");
    assert_said("wanted a whole number");
    pm_options_set(o, "temperature", "nan");
    assert_string_equal(pm_last_error(),
                        "temperature: found \"nan\", wanted a number from 0 to 100");
    pm_options_free(o);
}

static void unknown_keys_are_refused(void **state)
{
    struct pm_options *o = fresh();
    (void)state;
    assert_int_equal(pm_options_set(o, "thread", "1"), PM_ERR_ARG);
    assert_said("\"thread\"");
    assert_int_equal(pm_options_set(o, "", "1"), PM_ERR_ARG);
    assert_int_equal(pm_options_set(o, "Threads", "1"), PM_ERR_ARG);
    assert_null(options_find("max_tokens"));
    pm_options_free(o);
}

static void texts_end_where_their_field_does(void **state)
{
    struct pm_options *o = fresh();
    const struct option *row = options_find("device");
    char text[64];
    (void)state;
    memset(text, 'a', sizeof text);
    text[row->size - 1] = 0;
    set(o, "device", text);
    assert_string_equal(o->device, text);
    text[row->size - 1] = 'a';
    text[row->size] = 0;
    assert_int_equal(pm_options_set(o, "device", text), PM_ERR_ARG);
    set(o, "device", "");
    assert_string_equal(o->device, "");
    pm_options_free(o);
}

static void stop_texts_add_up_to_a_limit(void **state)
{
    struct pm_options *o = fresh();
    (void)state;
    assert_int_equal(pm_options_set(o, "stop", ""), PM_ERR_ARG);
    assert_int_equal(o->n_stop, 0);
    for (int i = 0; i < MAX_STOP; i++) {
        char text[32];
        snprintf(text, sizeof text, "stop %d\n", i);
        set(o, "stop", text);
    }
    assert_int_equal(o->n_stop, MAX_STOP);
    assert_string_equal(o->stop[0], "stop 0\n");
    assert_string_equal(o->stop[15], "stop 15\n");
    assert_int_equal(pm_options_set(o, "stop", "more"), PM_ERR_ARG);
    assert_said("16");
    pm_options_free(o);
}

static void the_environment_changes_defaults(void **state)
{
    struct pm_options *o, *kept = NULL;
    (void)state;
    setenv("POLYMATH_MAX_TOKENS", "7", 1);
    setenv("POLYMATH_KV_TYPE", "f32", 1);
    setenv("POLYMATH_IGNORE_EOS", "1", 1);
    setenv("POLYMATH_STOP", "END", 1);
    o = fresh();
    assert_true(o->max_tokens == 7 && o->ignore_eos && o->n_stop == 1);
    assert_string_equal(o->kv_type, "f32");
    assert_string_equal(o->stop[0], "END");
    set(o, "max-tokens", "8"); /* what is said later wins */
    assert_int_equal(o->max_tokens, 8);
    pm_options_free(o);
    setenv("POLYMATH_TOP_P", "7", 1);
    assert_int_equal(pm_options_new(&kept), PM_ERR_ARG);
    assert_null(kept);
    assert_said("environment: top-p: found \"7\"");
    unsetenv("POLYMATH_TOP_P");
    unsetenv("POLYMATH_MAX_TOKENS");
    unsetenv("POLYMATH_KV_TYPE");
    unsetenv("POLYMATH_IGNORE_EOS");
    unsetenv("POLYMATH_STOP");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_options_hold_the_defaults),
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(values_come_back_as_they_were_set),
        cmocka_unit_test(wrong_values_are_refused_and_change_nothing),
        cmocka_unit_test(zeros_in_front_are_not_octal),
        cmocka_unit_test(the_sentence_says_what_was_wanted),
        cmocka_unit_test(unknown_keys_are_refused),
        cmocka_unit_test(texts_end_where_their_field_does),
        cmocka_unit_test(stop_texts_add_up_to_a_limit),
        cmocka_unit_test(the_environment_changes_defaults),
    };
    /* The defaults are what they are without the caller's settings. */
    for (const struct option *row = options_table; row->name; row++) {
        char name[64] = "POLYMATH_";
        size_t n = strlen(name);
        for (const char *p = row->name; *p; p++) {
            name[n++] = (char)(*p == '-' ? '_' : *p - ('a' - 'A'));
        }
        name[n] = 0;
        unsetenv(name);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
