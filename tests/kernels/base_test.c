/* base_test.c - failure sentences, checked sizes, checked memory, number formats, devices.
 *
 * The formats are checked code by code against the oracle's definitions: every decoding, and
 * every encoding at, between and next to all codes. */
#define _POSIX_C_SOURCE 200809L
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/oracle/oracle.h"
#include "tests/oracle/rig.h"

static void failing_returns_its_status_and_keeps_its_sentence(void **state)
{
    (void)state;
    assert_int_equal(fail(PM_ERR_FORMAT, "x: found %d, wanted %s", 3, "four"), PM_ERR_FORMAT);
    assert_string_equal(pm_last_error(), "x: found 3, wanted four");
    assert_int_equal(fail_prefix(PM_ERR_IO, "%s[%d]", "file", 7), PM_ERR_IO);
    assert_string_equal(pm_last_error(), "file[7]: x: found 3, wanted four");
    assert_int_equal(fail_prefix(PM_ERR_ARG, "%s", pm_last_error()), PM_ERR_ARG);
    assert_string_equal(pm_last_error(),
                        "file[7]: x: found 3, wanted four: file[7]: x: found 3, wanted four");
}

static void long_sentences_are_cut_at_their_end(void **state)
{
    char text[5000], start[400];
    size_t n;
    (void)state;
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 0;
    fail(PM_ERR_ARG, "start %s", text);
    n = strlen(pm_last_error());
    assert_true(n >= 500 && n < 5000);
    assert_memory_equal(pm_last_error(), "start aaa", 9);
    memset(start, 'b', sizeof start);
    start[sizeof start - 1] = 0;
    fail_prefix(PM_ERR_ARG, "%s", start);
    assert_int_equal(strlen(pm_last_error()), n);
    assert_memory_equal(pm_last_error(), start, sizeof start - 1);
    assert_memory_equal(pm_last_error() + sizeof start - 1, ": start aaa", 11);
    /* A prefix longer than there is room for leaves something of both. */
    fail(PM_ERR_ARG, "the end");
    fail_prefix(PM_ERR_ARG, "%s", text);
    assert_memory_equal(pm_last_error(), "aaaa", 4);
    assert_non_null(strstr(pm_last_error(), "a: the end"));
}

static void *fail_elsewhere(void *arg)
{
    (void)arg;
    fail(PM_ERR_ARG, "another thread");
    return NULL;
}

static void a_sentence_belongs_to_its_thread(void **state)
{
    pthread_t thread;
    (void)state;
    fail(PM_ERR_ARG, "this thread");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(pm_last_error(), "this thread");
}

static pm_status tried(pm_status first, int *reached)
{
    TRY(first);
    *reached += 1;
    return PM_OK;
}

static pm_status tried_with_done(pm_status first, int *reached)
{
    pm_status status;
    TRY_DONE(first);
    *reached += 1;
done:
    *reached += 10;
    return status;
}

static void try_leaves_at_a_failure(void **state)
{
    int reached = 0;
    (void)state;
    assert_int_equal(tried(PM_ERR_IO, &reached), PM_ERR_IO);
    assert_int_equal(reached, 0);
    assert_int_equal(tried(PM_OK, &reached), PM_OK);
    assert_int_equal(reached, 1);
    assert_int_equal(tried_with_done(PM_ERR_FULL, &reached), PM_ERR_FULL);
    assert_int_equal(reached, 11);
    assert_int_equal(tried_with_done(PM_OK, &reached), PM_OK);
    assert_int_equal(reached, 22);
}

static void every_status_has_a_text(void **state)
{
    static const pm_status all[] = {
#define X(name, value, text) name,
        PM_STATUS_LIST(X)
#undef X
    };
    (void)state;
    assert_int_equal(PM_OK, 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(pm_status_text(all[i]), pm_status_text(all[j]));
        }
        assert_true(all[i] <= 0);
    }
    assert_string_equal(pm_status_text((pm_status)-1000), "unknown status");
}

static void sizes_that_overflow_are_seen(void **state)
{
    size_t n = 7;
    (void)state;
    assert_true(mul_size(&n, SIZE_MAX / 2, 2) && n == SIZE_MAX - 1);
    assert_false(mul_size(&n, SIZE_MAX / 2 + 1, 2));
    assert_true(mul_size(&n, 0, SIZE_MAX) && n == 0);
    assert_true(add_size(&n, SIZE_MAX - 1, 1) && n == SIZE_MAX);
    assert_false(add_size(&n, SIZE_MAX, 1));
    assert_true(min_i64(-3, 2) == -3 && max_i64(-3, 2) == 2);
    assert_true(min_i64(INT64_MIN, INT64_MAX) == INT64_MIN);
}

static void arrays_are_zeroed_and_aligned(void **state)
{
    static const size_t sizes[][2] = {{0, 8}, {1, 1}, {63, 1}, {64, 1}, {65, 1}, {1000, 24}};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = NULL;
        assert_int_equal(alloc_array(&p, sizes[i][0], sizes[i][1], "bytes"), PM_OK);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t j = 0; j < sizes[i][0] * sizes[i][1]; j++) {
            assert_int_equal(p[j], 0);
        }
        free(p);
    }
}

static void arrays_too_large_are_named(void **state)
{
    int mark = 0, *p = &mark;
    (void)state;
    assert_int_equal(alloc_array(&p, SIZE_MAX / 4, 8, "the heap"), PM_ERR_NOMEM);
    assert_non_null(strstr(pm_last_error(), "the heap"));
    assert_int_equal(alloc_array(&p, SIZE_MAX, 1, "the heap"), PM_ERR_NOMEM);
    assert_ptr_equal(p, &mark);
}

static void growing_keeps_what_is_there(void **state)
{
    int *p = NULL;
    size_t capacity = 0;
    (void)state;
    for (size_t n = 1; n <= 1000; n++) {
        size_t before = capacity;
        assert_int_equal(grow_array(&p, &capacity, n, sizeof *p), PM_OK);
        assert_true(capacity >= n);
        assert_true(capacity == before || capacity >= 2 * before);
        p[n - 1] = (int)n;
    }
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(p[i], i + 1);
    }
    assert_int_equal(grow_array(&p, &capacity, SIZE_MAX / 2 + 2, sizeof *p), PM_ERR_NOMEM);
    assert_int_equal(grow_array(&p, &capacity, SIZE_MAX / 4, 64), PM_ERR_NOMEM);
    assert_int_equal(p[999], 1000);
    free(p);
}

static void texts_are_copied_with_a_zero(void **state)
{
    char *p = NULL;
    (void)state;
    assert_int_equal(copy_text(&p, "abcdef", 3), PM_OK);
    assert_string_equal(p, "abc");
    free(p);
    assert_int_equal(copy_text(&p, "a\0b", 3), PM_OK);
    assert_memory_equal(p, "a\0b", 4);
    free(p);
    assert_int_equal(copy_text(&p, "", 0), PM_OK);
    assert_string_equal(p, "");
    free(p);
}

static void types_have_names_and_sizes(void **state)
{
    (void)state;
    assert_string_equal(dtype_name(PM_F8_E4M3), "F8_E4M3");
    assert_string_equal(dtype_name(PM_DTYPE_COUNT), "?");
    assert_string_equal(dtype_name((pm_dtype)-1), "?");
    assert_int_equal(dtype_bits(PM_MXFP4), 4);
    assert_int_equal(dtype_bits(PM_I64), 64);
    assert_int_equal(dtype_bits((pm_dtype)-1), 0);
    for (int t = 0; t < PM_DTYPE_COUNT; t++) {
        assert_true(dtype_bits((pm_dtype)t) > 0);
    }
}

static void time_does_not_go_back(void **state)
{
    int64_t before = now_us();
    (void)state;
    for (int i = 0; i < 1000; i++) {
        int64_t now = now_us();
        assert_true(now >= before);
        before = now;
    }
}

/* ------------------------------------------------------------------ number formats */

struct codec {
    const struct number_format *format;
    const char *name;
    float (*decode)(uint32_t code);
    uint32_t (*encode)(float value);
};

static float decode_bf16(uint32_t code)
{
    return bf16_to_f32((uint16_t)code);
}
static uint32_t encode_bf16(float value)
{
    return f32_to_bf16(value);
}
static float decode_f16(uint32_t code)
{
    return f16_to_f32((uint16_t)code);
}
static uint32_t encode_f16(float value)
{
    return f32_to_f16(value);
}
static float decode_e4m3(uint32_t code)
{
    return e4m3_to_f32((uint8_t)code);
}
static uint32_t encode_e4m3(float value)
{
    return f32_to_e4m3(value);
}

static const struct codec codecs[] = {
    {&number_bf16, "bf16", decode_bf16, encode_bf16},
    {&number_f16, "f16", decode_f16, encode_f16},
    {&number_e4m3, "e4m3", decode_e4m3, encode_e4m3},
};

static uint32_t n_code(const struct codec *c)
{
    return 2u << (c->format->exponent + c->format->mantissa);
}

static void every_code_decodes_to_its_definition(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        for (uint32_t code = 0; code < n_code(&codecs[i]); code++) {
            double want = number_decode(codecs[i].format, code);
            float got = codecs[i].decode(code);
            bool same =
                isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(want);
            if (!same) {
                print_error("%s %#x is %g, wanted %g\n", codecs[i].name, code, (double)got,
                            want);
                _fail(__FILE__, __LINE__);
            }
        }
    }
}

static void expect_encoding(const struct codec *c, float value)
{
    uint32_t got = c->encode(value), want = number_encode(c->format, value);
    if (got == want) return;
    print_error("%s of %.9g is %#x, wanted %#x\n", c->name, (double)value, got, want);
    _fail(__FILE__, __LINE__);
}

/* Each code's own value, the middle to the next one, and the floats around both. */
static void every_value_encodes_to_the_nearest_code(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        const struct codec *c = &codecs[i];
        for (uint32_t code = 0; code < n_code(c); code++) {
            double here = number_decode(c->format, code);
            double next = number_decode(c->format, code + 1);
            float value[2] = {(float)here, (float)((here + next) / 2)};
            for (int j = 0; j < 2; j++) {
                if (!isfinite(value[j])) continue;
                expect_encoding(c, value[j]);
                expect_encoding(c, nextafterf(value[j], INFINITY));
                expect_encoding(c, nextafterf(value[j], -INFINITY));
            }
        }
    }
}

static void large_values_become_infinite_or_stay_the_largest(void **state)
{
    static const float large[] = {65504,  65519, 65520,  65536, 1e6f, FLT_MAX,       448,
                                  463.9f, 464,   464.1f, 480,   512,  3.3895314e38f, 3.39e38f};
    (void)state;
    for (int i = 0; i < 3; i++) {
        for (size_t j = 0; j < sizeof large / sizeof *large; j++) {
            expect_encoding(&codecs[i], large[j]);
            expect_encoding(&codecs[i], -large[j]);
        }
        expect_encoding(&codecs[i], INFINITY);
        expect_encoding(&codecs[i], -INFINITY);
    }
    assert_int_equal(f32_to_e4m3(INFINITY), 0x7e);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
}

static void what_is_not_a_number_stays_so(void **state)
{
    static const uint32_t bits[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x7fffffff};
    (void)state;
    for (int i = 0; i < 3; i++) {
        for (size_t j = 0; j < sizeof bits / sizeof *bits; j++) {
            float value;
            memcpy(&value, &bits[j], sizeof value);
            assert_true(isnan(codecs[i].decode(codecs[i].encode(value))));
        }
    }
}

/* ------------------------------------------------------------------ devices */

static void devices_are_chosen_by_name(void **state)
{
    const struct kernels *k = NULL;
    int index = -1;
    (void)state;
    assert_int_equal(kernels_select(&k, &index, "cpu"), PM_OK);
    assert_true(k == &cpu_kernels && index == 0);
    k = NULL;
    assert_int_equal(kernels_select(&k, &index, "auto"), PM_OK);
    assert_non_null(k);
    k = NULL;
    expect_error(kernels_select(&k, &index, "tpu"), PM_ERR_ARG, "\"tpu\"");
    expect_error(kernels_select(&k, &index, ""), PM_ERR_ARG, "cpu");
    assert_null(k);
}

static void a_device_says_what_it_is(void **state)
{
    struct device *d = NULL;
    (void)state;
    expect_ok(cpu_kernels.open(&d, 0, 3));
    assert_non_null(strstr(cpu_kernels.describe(d), "cpu "));
    assert_non_null(strstr(cpu_kernels.describe(d), ", 3 threads"));
    cpu_kernels.close(d);
    cpu_kernels.close(NULL);
    d = NULL;
    expect_error(cpu_kernels.open(&d, 1, 1), PM_ERR_ARG, "cpu:1");
    setenv("POLYMATH_ISA", "mmx", 1);
    expect_error(cpu_kernels.open(&d, 0, 1), PM_ERR_ARG, "mmx");
    setenv("POLYMATH_ISA", "generic", 1);
    assert_null(d);
    expect_ok(cpu_kernels.open(&d, 0, 1));
    assert_string_equal(cpu_kernels.describe(d), "cpu generic, 1 thread");
    cpu_kernels.close(d);
    unsetenv("POLYMATH_ISA");
}

static void device_memory_is_zeroed_and_aligned(void **state)
{
    static const size_t sizes[] = {0, 1, 63, 64, 1000, 1 << 20};
    const struct kernels *k = &cpu_kernels;
    struct device *d = NULL;
    void *p = NULL;
    (void)state;
    expect_ok(k->open(&d, 0, 1));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char text[6] = "abcde", back[6] = "";
        expect_ok(k->alloc(d, &p, sizes[i], "test"));
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t j = 0; j < sizes[i]; j++) {
            assert_int_equal(((unsigned char *)p)[j], 0);
        }
        if (sizes[i] >= sizeof text) {
            expect_ok(k->upload(d, p, text, sizeof text));
            expect_ok(k->download(d, back, p, sizeof back));
            assert_memory_equal(text, back, sizeof text);
        }
        k->free(d, p);
    }
    k->free(d, NULL);
    p = NULL;
    expect_error(k->alloc(d, &p, SIZE_MAX - 100, "the moon"), PM_ERR_NOMEM, "the moon");
    assert_null(p);
    expect_ok(k->sync(d));
    k->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_returns_its_status_and_keeps_its_sentence),
        cmocka_unit_test(long_sentences_are_cut_at_their_end),
        cmocka_unit_test(a_sentence_belongs_to_its_thread),
        cmocka_unit_test(try_leaves_at_a_failure),
        cmocka_unit_test(every_status_has_a_text),
        cmocka_unit_test(sizes_that_overflow_are_seen),
        cmocka_unit_test(arrays_are_zeroed_and_aligned),
        cmocka_unit_test(arrays_too_large_are_named),
        cmocka_unit_test(growing_keeps_what_is_there),
        cmocka_unit_test(texts_are_copied_with_a_zero),
        cmocka_unit_test(types_have_names_and_sizes),
        cmocka_unit_test(time_does_not_go_back),
        cmocka_unit_test(every_code_decodes_to_its_definition),
        cmocka_unit_test(every_value_encodes_to_the_nearest_code),
        cmocka_unit_test(large_values_become_infinite_or_stay_the_largest),
        cmocka_unit_test(what_is_not_a_number_stays_so),
        cmocka_unit_test(devices_are_chosen_by_name),
        cmocka_unit_test(a_device_says_what_it_is),
        cmocka_unit_test(device_memory_is_zeroed_and_aligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
