/* json_test.c - what a JSON document may be, what reads promise, what errors say. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "moe/json.h"

#include <cmocka.h> /* last: its macro fail() hides the function */

static struct json_doc *parse_bytes(const char *text, size_t n)
{
    struct json_doc *doc = NULL;
    if (json_parse(&doc, "doc", text, n) != PM_OK) fail_msg("%s", pm_last_error());
    return doc;
}

static struct json_doc *parse(const char *text)
{
    return parse_bytes(text, strlen(text));
}

static void assert_said(const char *part)
{
    if (!strstr(pm_last_error(), part)) fail_msg("no \"%s\" in: %s", part, pm_last_error());
    if (strchr(pm_last_error(), '\n')) fail_msg("more than a line: %s", pm_last_error());
}

/* Parsing n bytes fails with a sentence that has `part` and leaves the out-parameter alone. */
static void refuse_bytes(const char *text, size_t n, const char *part)
{
    struct json_doc *doc = NULL;
    if (json_parse(&doc, "doc", text, n) == PM_OK) fail_msg("accepted: %.*s", (int)n, text);
    assert_null(doc);
    assert_said("doc: line ");
    assert_said(part);
}

static void refuse(const char *text, const char *part)
{
    refuse_bytes(text, strlen(text), part);
}

static void assert_string(const json *v, const char *text, size_t n)
{
    assert_true(json_is_string(v));
    assert_int_equal(json_text_bytes(v), n);
    assert_memory_equal(json_text(v), text, n + 1);
}

static void numbers_keep_their_spelling(void **state)
{
    struct json_doc *doc =
        parse("[1, 1.0, {\"a\": 1e2, \"b\": -5}, 12345678901234567890, 999]");
    static const char *const wanted[] = {NULL, "1.0", NULL, "12345678901234567890", NULL};
    const json *v = json_child(json_root(doc)), *inner = json_get(json_next(json_next(v)), "a");
    (void)state;
    assert_string_equal(json_number_text(inner), "1e2");
    assert_null(json_number_text(json_next(inner)));
    assert_int_equal(json_key_bytes(inner), 1);
    for (int i = 0; i < 5; i++, v = json_next(v)) {
        assert_int_equal(json_number_text(v) == NULL, wanted[i] == NULL);
        if (wanted[i]) assert_string_equal(json_number_text(v), wanted[i]);
    }
    json_free(doc);
}

static void parse_reads_every_type(void **state)
{
    struct json_doc *doc = parse(" { \"o\":{}, \"a\":[1,2], \"s\":\"x\", \"n\":-1.5e1,"
                                 "\"t\":true, \"f\":false, \"z\":null }\r\n\t ");
    const json *root = json_root(doc);
    (void)state;
    assert_string_equal(json_name(doc), "doc");
    assert_int_equal(json_size(root), 7);
    assert_true(json_is_object(json_get(root, "o")));
    assert_true(json_is_array(json_get(root, "a")));
    assert_true(json_number(json_next(json_child(json_get(root, "a")))) == 2);
    assert_string(json_get(root, "s"), "x", 1);
    assert_true(json_number(json_get(root, "n")) == -15);
    assert_true(json_true(json_get(root, "t")));
    assert_true(json_is_bool(json_get(root, "f")) && !json_true(json_get(root, "f")));
    assert_true(json_is_null(json_get(root, "z")));
    assert_string_equal(json_key(json_child(root)), "o");
    json_free(doc);
}

static void a_root_may_be_any_value(void **state)
{
    const char *const text[] = {"1", "\"x\"", "true", "null", "[]", "{}", " 0 "};
    (void)state;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        json_free(parse(text[i]));
    }
}

static void raw_access_of_another_type_is_null(void **state)
{
    struct json_doc *doc = parse("[\"x\",1]");
    const json *text = json_child(json_root(doc)), *number = json_next(text);
    (void)state;
    assert_null(json_get(json_root(doc), "x"));
    assert_null(json_get(NULL, "x"));
    assert_null(json_text(number));
    assert_int_equal(json_text_bytes(number), 0);
    assert_true(json_number(text) == 0);
    assert_false(json_true(text));
    assert_null(json_key(text));
    assert_null(json_next(number));
    assert_null(json_child(NULL));
    assert_int_equal(json_size(NULL), 0);
    json_free(doc);
}

static void keys_are_case_sensitive(void **state)
{
    struct json_doc *doc = parse("{\"Key\":1,\"key\":2}");
    (void)state;
    assert_true(json_number(json_get(json_root(doc), "key")) == 2);
    assert_null(json_get(json_root(doc), "KEY"));
    json_free(doc);
}

static void escapes_decode_with_their_length(void **state)
{
    struct json_doc *doc = parse("[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\", \"\\u0041\\u00e9\\u20AC\","
                                 " \"\\ud83d\\uDE00\", \"\xc3\xa9\xf0\x9f\x98\x80\", \"\"]");
    const json *v = json_child(json_root(doc));
    (void)state;
    assert_string(v, "\"\\/\b\f\n\r\t", 8);
    assert_string(v = json_next(v), "A\xc3\xa9\xe2\x82\xac", 6);
    assert_string(v = json_next(v), "\xf0\x9f\x98\x80", 4);
    assert_string(v = json_next(v), "\xc3\xa9\xf0\x9f\x98\x80", 6);
    assert_string(json_next(v), "", 0);
    json_free(doc);
}

static void a_zero_inside_a_string_is_kept(void **state)
{
    struct json_doc *doc =
        parse("{\"a\\u0000b\":\"x\\u0000\",\"a\\u0000c\":\"\\u0000\",\"a\":1}");
    const json *v = json_child(json_root(doc));
    const char *text = "untouched";
    (void)state;
    assert_int_equal(json_key_bytes(v), 3);
    assert_memory_equal(json_key(v), "a\0b", 4);
    assert_string(v, "x\0", 2);
    assert_string(json_next(v), "\0", 1);
    /* A C string finds only the key that it can spell, */
    assert_true(json_number(json_get(json_root(doc), "a")) == 1);
    json_free(doc);
    /* and text that a C string cannot hold is not handed out as one. */
    doc = parse("{\"a\":\"x\\u0000\"}");
    assert_int_equal(json_need_text(doc, json_root(doc), "a", &text), PM_ERR_FORMAT);
    assert_string_equal(text, "untouched");
    json_free(doc);
    refuse_bytes("\"a\0b\"", 5, "control character");
    refuse_bytes("{}\0", 3, "malformed");
}

static void structure_errors_are_refused(void **state)
{
    const char *const text[] = {
        "",        " ",        "{",     "}",     "[",     "]",       "[1,]",   "[,1]",
        "{\"a\"}", "{\"a\":}", "{,}",   "[1 2]", "{1:2}", "{a:1}",   "tru",    "truefalse",
        "nul",     "[1}",      "{]",    "'a'",   "\"a",   "\"a\\\"", "//x\n1", "{\"1\":1,",
        "[1,2],3", "1 2",      "{} {}", "NaN",   "[NaN]", "Infinity"};
    (void)state;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        refuse(text[i], "doc: line 1, column ");
    }
    refuse("{\n \"a\": 1,\n  ]\n}", "doc: line 3, column ");
    refuse("\xef\xbb\xbf{}", "malformed");
    refuse("[1]\f", "malformed");
    refuse("[1] x", "column 5");
}

static void malformed_numbers_are_refused(void **state)
{
    const char *const text[] = {"-",  "+1",  "01",    "-01",  "1.",  ".5",    "1.e5",
                                "1e", "1e+", "1.5.5", "0x10", "--1", "1e5e5", "00"};
    (void)state;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        refuse(text[i], "doc: line 1, column ");
    }
}

static void numbers_beyond_a_double_are_refused(void **state)
{
    struct json_doc *doc = NULL;
    char digits[70];
    const char *const text[] = {"{\"a\":[0,1e999]}", "{\"a\":[0,-1e400]}"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(json_parse(&doc, "doc", text[i], strlen(text[i])), PM_ERR_FORMAT);
        assert_said("doc: a[1]: found ");
    }
    memset(digits, '1', sizeof digits);
    refuse_bytes(digits, 64, "too many digits");
    json_free(parse_bytes(digits, 63));
    json_free(parse("[1e308,5e-324,1e-999]"));
}

static void invalid_utf8_is_refused(void **state)
{
    /* A bare continuation, overlong forms, a surrogate, above U+10FFFF, cut characters. */
    const char *const text[] = {
        "\x80",         "\xc0\xaf",         "\xc1\xbf",         "\xe0\x80\xaf",
        "\xed\xa0\x80", "\xf0\x80\x80\xaf", "\xf5\x80\x80\x80", "\xf4\x90\x80\x80",
        "\xc3",         "\xe2\x82",         "\xf0\x9f\x98",     "\xff",
        "\xc3(",        "\xe2\x28\xa1"};
    char quoted[16];
    (void)state;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        snprintf(quoted, sizeof quoted, "\"%s\"", text[i]);
        refuse(quoted, "invalid UTF-8");
        snprintf(quoted, sizeof quoted, "{\"%s\":1}", text[i]);
        refuse(quoted, "invalid UTF-8");
    }
    refuse("\xc3\xa9", "malformed");
}

static void malformed_strings_are_refused(void **state)
{
    (void)state;
    refuse("\"\\ud800\"", "lone surrogate");
    refuse("\"\\udc00\"", "lone surrogate");
    refuse("\"\\ud800\\ud800\"", "lone surrogate");
    refuse("\"\\ud83d\\n\"", "lone surrogate");
    refuse("\"\\ud83d", "lone surrogate");
    refuse("\"\\x41\"", "unknown escape");
    refuse("\"\\u12g4\"", "unknown escape");
    refuse("\"\\u12", "unknown escape");
    refuse("\"\\", "unknown escape");
    refuse("\"a\tb\"", "control character");
    refuse("[\"a\nb\"]", "control character");
    refuse("[1, \"abc", "column 5: string without an end");
}

/* [[[...]]] */
static char *nest(int depth)
{
    char *text = malloc((size_t)depth * 2 + 1);
    memset(text, '[', (size_t)depth);
    memset(text + depth, ']', (size_t)depth);
    text[depth * 2] = 0;
    return text;
}

static void nesting_ends_at_128(void **state)
{
    char *text = nest(128);
    (void)state;
    json_free(parse(text));
    free(text);
    text = nest(129);
    refuse(text, "column 129: nesting deeper than 128");
    free(text);
    text = nest(1000000);
    refuse(text, "nesting");
    free(text);
    /* Brackets inside strings do not nest. */
    json_free(parse("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
                    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]"));
}

static void the_deepest_path_is_named(void **state)
{
    char *text = nest(128);
    struct json_doc *doc;
    (void)state;
    text[127] = '[';
    doc = parse(text);
    const json *v = json_root(doc);
    while (json_child(v)) {
        v = json_child(v);
    }
    assert_int_equal(json_fail(doc, v, "less"), PM_ERR_FORMAT);
    assert_said("doc: [0][0][0]");
    json_free(doc);
    free(text);
}

static void duplicate_keys_are_refused(void **state)
{
    const char *const text[] = {"{\"a\":1,\"a\":2}", "{\"x\":{\"a\":1,\"b\":2,\"\\u0061\":3}}",
                                "[{\"\":1,\"\":2}]", "{\"a\\u0000b\":1,\"a\\u0000b\":2}"};
    const char *const path[] = {"doc: a: ", "doc: x.a: ", "doc: [0].: ", "doc: a?b: "};
    struct json_doc *doc = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        assert_int_equal(json_parse(&doc, "doc", text[i], strlen(text[i])), PM_ERR_FORMAT);
        assert_said(path[i]);
        assert_said("each key once");
    }
    json_free(parse("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"));
}

/* {"k0":0,"k1":1,...} and `last` */
static struct json_out many_members(int n, const char *last)
{
    struct json_out o = {0};
    json_put(&o, "{");
    for (int i = 0; i < n; i++) {
        json_put(&o, "%s\"k%d\":%d", i ? "," : "", i, i);
    }
    json_put(&o, "%s}", last);
    assert_int_equal(o.status, PM_OK);
    return o;
}

static void large_objects_stay_fast(void **state)
{
    const int n = 400000;
    int64_t start = now_us();
    struct json_out o = many_members(n, "");
    struct json_doc *doc = parse_bytes(o.text, o.n);
    int at = 0;
    (void)state;
    for (const json *m = json_child(json_root(doc)); m; m = json_next(m)) {
        assert_true(json_number(m) == at);
        at++;
    }
    assert_int_equal(at, n);
    json_free(doc);
    free(o.text);
    o = many_members(n, ",\"k77777\":0");
    doc = NULL;
    assert_int_equal(json_parse(&doc, "doc", o.text, o.n), PM_ERR_FORMAT);
    assert_said("doc: k77777: ");
    free(o.text);
    /* Far above what it takes under a sanitizer, far below a quadratic walk. */
    assert_true(now_us() - start < 20000000);
}

static void integers_are_whole_and_exact(void **state)
{
    struct json_doc *doc = parse("[4096.0,1e3,-0,9007199254740992,-9007199254740992,"
                                 "9007199254740994,1.5,1e300,\"1\",true]");
    const int64_t wanted[] = {4096, 1000, 0, 9007199254740992, -9007199254740992};
    const json *v = json_child(json_root(doc));
    int64_t value = 7;
    (void)state;
    for (size_t i = 0; i < 5; i++, v = json_next(v)) {
        assert_true(json_integer(v, &value));
        assert_true(value == wanted[i]);
    }
    value = 7;
    for (; v; v = json_next(v)) {
        assert_false(json_integer(v, &value));
        assert_true(value == 7);
    }
    assert_false(json_integer(NULL, &value));
    json_free(doc);
}

static void int_reads_check_type_and_range(void **state)
{
    struct json_doc *doc = parse("{\"t\":{\"n\":\"8\",\"big\":4294967296,\"half\":0.5,\"ok\":8,"
                                 "\"null\":null,\"list\":[1],\"o\":{},\"yes\":true}}");
    const json *t = json_get(json_root(doc), "t");
    int value = -1;
    (void)state;
    assert_int_equal(json_need_int(doc, t, "ok", 8, 8, &value), PM_OK);
    assert_int_equal(value, 8);
    assert_int_equal(json_need_int(doc, t, "n", 1, 4096, &value), PM_ERR_FORMAT);
    assert_string_equal(pm_last_error(),
                        "doc: t.n: found \"8\", wanted an integer from 1 to 4096");
    assert_int_equal(json_want_int(doc, t, "ok", 9, 10, &value), PM_ERR_FORMAT);
    assert_said("doc: t.ok: found 8, wanted an integer from 9 to 10");
    /* A range of 64 bits does not let a value through that an int cannot hold. */
    assert_int_equal(json_need_int(doc, t, "big", INT64_MIN, INT64_MAX, &value), PM_ERR_FORMAT);
    assert_said("found 4294967296");
    assert_int_equal(json_need_int(doc, t, "half", 0, 1, &value), PM_ERR_FORMAT);
    assert_said("found 0.5");
    assert_int_equal(json_want_int(doc, t, "list", 0, 1, &value), PM_ERR_FORMAT);
    assert_said("found an array of 1");
    assert_int_equal(json_want_int(doc, t, "o", 0, 1, &value), PM_ERR_FORMAT);
    assert_said("found an object");
    assert_int_equal(json_want_int(doc, t, "yes", 0, 1, &value), PM_ERR_FORMAT);
    assert_said("found true");
    assert_int_equal(value, 8);
    json_free(doc);
}

static void missing_keys_fail_only_where_needed(void **state)
{
    struct json_doc *doc = parse("{\"t\":{\"null\":null},\"n\":1}");
    const json *root = json_root(doc), *t = json_get(root, "t");
    const char *text = "default";
    float number = 2;
    bool yes = true;
    int value = -1;
    (void)state;
    assert_int_equal(json_want_int(doc, t, "gone", 0, 9, &value), PM_OK);
    assert_int_equal(json_want_int(doc, t, "null", 0, 9, &value), PM_OK);
    assert_int_equal(json_want_int(doc, json_get(root, "gone"), "x", 0, 9, &value), PM_OK);
    assert_int_equal(json_want_float(doc, t, "gone", 0, 9, &number), PM_OK);
    assert_int_equal(json_want_text(doc, t, "gone", &text), PM_OK);
    assert_int_equal(json_want_bool(doc, t, "null", &yes), PM_OK);
    assert_true(value == -1 && number == 2 && yes && strcmp(text, "default") == 0);
    assert_int_equal(json_need_int(doc, t, "null", 0, 9, &value), PM_ERR_FORMAT);
    assert_string_equal(pm_last_error(), "doc: t.null: missing, wanted an integer from 0 to 9");
    assert_int_equal(json_need_text(doc, root, "gone", &text), PM_ERR_FORMAT);
    assert_said("doc: gone: missing, wanted a string");
    assert_int_equal(json_need_float(doc, root, "gone", 0, 1, &number), PM_ERR_FORMAT);
    assert_said("missing, wanted a number from 0 to 1");
    /* A key of something that is no object is a wrong type in both forms. */
    assert_int_equal(json_want_int(doc, json_get(root, "n"), "x", 0, 9, &value), PM_ERR_FORMAT);
    assert_said("doc: n: found 1, wanted an object");
    json_free(doc);
}

static void float_text_and_bool_reads_check_type_and_range(void **state)
{
    struct json_doc *doc = parse("{\"f\":0.25,\"i\":3,\"big\":1e39,\"s\":\"x\",\"t\":true}");
    const json *root = json_root(doc);
    const char *text = NULL;
    float number = 0;
    bool yes = false;
    (void)state;
    assert_int_equal(json_need_float(doc, root, "f", 0, 1, &number), PM_OK);
    assert_true(number == 0.25f);
    assert_int_equal(json_want_float(doc, root, "i", 0, INFINITY, &number), PM_OK);
    assert_true(number == 3);
    assert_int_equal(json_want_float(doc, root, "big", -INFINITY, INFINITY, &number),
                     PM_ERR_FORMAT);
    assert_said("doc: big: ");
    assert_int_equal(json_want_float(doc, root, "i", 0, 1, &number), PM_ERR_FORMAT);
    assert_int_equal(json_want_float(doc, root, "s", 0, 1, &number), PM_ERR_FORMAT);
    assert_int_equal(json_need_text(doc, root, "s", &text), PM_OK);
    assert_string_equal(text, "x");
    assert_int_equal(json_want_text(doc, root, "i", &text), PM_ERR_FORMAT);
    assert_said("doc: i: found 3, wanted a string");
    assert_int_equal(json_want_bool(doc, root, "t", &yes), PM_OK);
    assert_true(yes);
    assert_int_equal(json_want_bool(doc, root, "i", &yes), PM_ERR_FORMAT);
    assert_said("wanted true or false");
    json_free(doc);
}

static void messages_are_one_short_line(void **state)
{
    char text[3000] = "{\"a\\nb\":\"";
    struct json_doc *doc;
    (void)state;
    for (size_t i = strlen(text); i < 2000; i += 2) {
        memcpy(text + i, "\xc3\xa9", 3);
    }
    strcat(text, "\"}");
    doc = parse(text);
    json_fail(doc, json_child(json_root(doc)), "a word");
    assert_said("doc: a?b: found \"\xc3\xa9");
    assert_said("\xc3\xa9...\", wanted a word");
    assert_true(strlen(pm_last_error()) < 200);
    json_fail(doc, json_root(doc), "a word");
    assert_string_equal(pm_last_error(), "doc: found an object, wanted a word");
    json_fail(doc, NULL, "a word");
    assert_string_equal(pm_last_error(), "doc: found nothing, wanted a word");
    json_free(doc);
}

static void load_reads_a_regular_file(void **state)
{
    char folder[] = "/tmp/json_test_XXXXXX";
    char path[64], pipe[64];
    struct json_doc *doc = NULL;
    FILE *file;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.json", folder);
    snprintf(pipe, sizeof pipe, "%s/pipe", folder);
    file = fopen(path, "w");
    fputs("{\"a\":1}", file);
    fclose(file);
    assert_int_equal(json_load(&doc, path, 7), PM_OK);
    assert_string_equal(json_name(doc), path);
    json_free(doc);
    doc = NULL;
    assert_int_equal(json_load(&doc, path, 6), PM_ERR_TOO_LONG);
    assert_said("7 bytes, at most 6");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(json_load(&doc, pipe, 100), PM_ERR_IO);
    assert_said(pipe);
    assert_int_equal(json_load(&doc, folder, 100), PM_ERR_IO);
    assert_said("not a regular file");
    assert_int_equal(json_load(&doc, "/dev/zero", 100), PM_ERR_IO);
    unlink(path);
    assert_int_equal(json_load(&doc, path, 100), PM_ERR_IO);
    assert_said("No such file");
    assert_null(doc);
    unlink(pipe);
    rmdir(folder);
}

static void written_strings_read_back(void **state)
{
    const char all[] = "\"\\/\b\f\n\r\t\x01\x1f \x7f\xc3\xa9\xf0\x9f\x98\x80\0end";
    const size_t n = sizeof all - 1;
    struct json_out o = {0};
    struct json_doc *doc;
    (void)state;
    json_put(&o, "{\"n\":%d,\"s\":", 5);
    json_put_string(&o, all, n);
    json_put(&o, "}");
    assert_int_equal(o.status, PM_OK);
    assert_int_equal(o.n, strlen(o.text));
    doc = parse_bytes(o.text, o.n);
    assert_string(json_get(json_root(doc), "s"), all, n);
    json_free(doc);
    free(o.text);
}

static void written_bytes_that_are_not_utf8_are_replaced(void **state)
{
    struct json_out o = {0};
    struct json_doc *doc;
    (void)state;
    json_put_string(&o, "a\xff\xe2\x82z\xc3", 6);
    doc = parse_bytes(o.text, o.n);
    assert_string(json_root(doc), "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd", 14);
    json_free(doc);
    free(o.text);
}

static void nothing_can_be_written(void **state)
{
    struct json_out o = {0};
    (void)state;
    json_put_bytes(&o, NULL, 0);
    assert_int_equal(o.status, PM_OK);
    assert_string_equal(o.text, "");
    json_put_bytes(&o, "[]", 2);
    json_put_bytes(&o, NULL, 0);
    assert_string_equal(o.text, "[]");
    free(o.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_can_be_written),
        cmocka_unit_test(numbers_keep_their_spelling),
        cmocka_unit_test(parse_reads_every_type),
        cmocka_unit_test(a_root_may_be_any_value),
        cmocka_unit_test(raw_access_of_another_type_is_null),
        cmocka_unit_test(keys_are_case_sensitive),
        cmocka_unit_test(escapes_decode_with_their_length),
        cmocka_unit_test(a_zero_inside_a_string_is_kept),
        cmocka_unit_test(structure_errors_are_refused),
        cmocka_unit_test(malformed_numbers_are_refused),
        cmocka_unit_test(numbers_beyond_a_double_are_refused),
        cmocka_unit_test(invalid_utf8_is_refused),
        cmocka_unit_test(malformed_strings_are_refused),
        cmocka_unit_test(nesting_ends_at_128),
        cmocka_unit_test(the_deepest_path_is_named),
        cmocka_unit_test(duplicate_keys_are_refused),
        cmocka_unit_test(large_objects_stay_fast),
        cmocka_unit_test(integers_are_whole_and_exact),
        cmocka_unit_test(int_reads_check_type_and_range),
        cmocka_unit_test(missing_keys_fail_only_where_needed),
        cmocka_unit_test(float_text_and_bool_reads_check_type_and_range),
        cmocka_unit_test(messages_are_one_short_line),
        cmocka_unit_test(load_reads_a_regular_file),
        cmocka_unit_test(written_strings_read_back),
        cmocka_unit_test(written_bytes_that_are_not_utf8_are_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
