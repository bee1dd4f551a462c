/* kvcache_test.c - the keyed hash, and blocks: taken, held, dropped, found again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#include "runtime/engine/kvcache.h"

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

/* Vectors of the authors' reference, key 00 01 .. 0f, input 00 01 ..; openssl mac SIPHASH gives
 * the same. */
static void siphash_gives_the_reference_values(void **state)
{
    static const struct {
        int n;
        const char *hex;
    } want[] = {
        {0, "a3817f04ba25a8e66df67214c7550293"},  {1, "da87c1d86b99af44347659119b22fc45"},
        {7, "a1f1ebbed8dbc153c0b84aa61ff08239"},  {8, "3b62a9ba6258f5610f83e264f31497b4"},
        {15, "5493e99933b0a8117e08ec0f97cfc3d9"}, {63, "5150d1772f50834a503e069a973fbd7c"}};
    unsigned char input[64];
    struct siphash key;
    (void)state;
    for (int i = 0; i < 64; i++) {
        input[i] = (unsigned char)i;
    }
    memcpy(&key, input, sizeof key);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct siphash h = siphash(key, input, (size_t)want[i].n);
        unsigned char byte[16];
        char hex[33];
        memcpy(byte, &h, sizeof byte);
        for (int j = 0; j < 16; j++) {
            snprintf(hex + 2 * j, 3, "%02x", byte[j]);
        }
        assert_string_equal(hex, want[i].hex);
    }
}

static struct siphash hash_of(uint64_t x)
{
    return (struct siphash){x, ~x};
}

static struct kvcache open_cache(int n)
{
    struct kvcache c;
    if (kvcache_open(&c, n) != PM_OK) FAIL("%s", pm_last_error());
    return c;
}

static void every_block_is_taken_once(void **state)
{
    struct kvcache c = open_cache(5);
    bool seen[5] = {false};
    (void)state;
    for (int i = 0; i < 5; i++) {
        int32_t block = kvcache_take(&c);
        assert_true(block >= 0 && block < 5 && !seen[block]);
        seen[block] = true;
        assert_int_equal(c.n_free, 4 - i);
    }
    assert_int_equal(kvcache_take(&c), -1);
    kvcache_drop(&c, 3);
    assert_int_equal(kvcache_take(&c), 3);
    kvcache_close(&c);
}

static void a_shared_block_is_free_after_its_last_holder(void **state)
{
    struct kvcache c = open_cache(2);
    int32_t block = kvcache_take(&c);
    (void)state;
    kvcache_hold(&c, block);
    kvcache_drop(&c, block);
    assert_int_equal(c.n_free, 1);
    kvcache_drop(&c, block);
    assert_int_equal(c.n_free, 2);
    kvcache_close(&c);
}

static void a_prefix_is_found_until_its_block_is_taken(void **state)
{
    struct kvcache c = open_cache(2);
    int32_t a = kvcache_take(&c), b;
    (void)state;
    assert_int_equal(kvcache_find(&c, hash_of(7)), -1);
    kvcache_publish(&c, a, hash_of(7));
    assert_int_equal(kvcache_find(&c, hash_of(7)), a);
    kvcache_drop(&c, a);
    assert_int_equal(c.n_cached, 1);
    assert_int_equal(kvcache_find(&c, hash_of(7)), a);
    kvcache_hold(&c, a); /* out of the free list */
    assert_true(c.n_cached == 0 && c.n_free == 1);
    kvcache_drop(&c, a);
    b = kvcache_take(&c); /* the block without a prefix goes first */
    assert_int_not_equal(a, b);
    assert_int_equal(kvcache_find(&c, hash_of(7)), a);
    assert_int_equal(kvcache_take(&c), a);
    assert_int_equal(kvcache_find(&c, hash_of(7)), -1);
    assert_int_equal(c.n_cached, 0);
    kvcache_close(&c);
}

static void prefixes_are_reused_in_the_order_they_were_given_back(void **state)
{
    static const int order[] = {2, 0, 3, 1};
    struct kvcache c = open_cache(4);
    (void)state;
    for (int i = 0; i < 4; i++) {
        int32_t block = kvcache_take(&c);
        kvcache_publish(&c, block, hash_of((uint64_t)block));
    }
    for (int i = 0; i < 4; i++) {
        kvcache_drop(&c, order[i]);
    }
    kvcache_hold(&c, 0); /* used again: now it is the latest */
    kvcache_drop(&c, 0);
    assert_int_equal(kvcache_take(&c), 2);
    assert_int_equal(kvcache_take(&c), 3);
    assert_int_equal(kvcache_take(&c), 1);
    assert_int_equal(kvcache_take(&c), 0);
    kvcache_close(&c);
}

static void blocks_without_a_prefix_are_taken_first(void **state)
{
    struct kvcache c = open_cache(3);
    (void)state;
    for (int i = 0; i < 3; i++) {
        kvcache_take(&c);
    }
    kvcache_publish(&c, 0, hash_of(1));
    kvcache_drop(&c, 0);
    kvcache_drop(&c, 1); /* given back later, and yet */
    kvcache_drop(&c, 2);
    assert_int_equal(kvcache_take(&c), 2);
    assert_int_equal(kvcache_take(&c), 1);
    assert_int_equal(kvcache_take(&c), 0);
    kvcache_close(&c);
}

/* All in one bucket, so that chains are walked. */
static void a_prefix_has_one_block(void **state)
{
    enum { N = 40 };
    struct kvcache c = open_cache(N);
    (void)state;
    for (int i = 0; i < N; i++) {
        int32_t block = kvcache_take(&c);
        kvcache_publish(&c, block, hash_of((uint64_t)(i / 2) << 40));
    }
    for (int i = 0; i < N / 2; i++) {
        int32_t block = kvcache_find(&c, hash_of((uint64_t)i << 40));
        assert_int_equal(block, 2 * i);
        assert_true(c.block[block].published && !c.block[block + 1].published);
    }
    for (int i = 0; i < N; i += 4) { /* out of the middle of the chain */
        kvcache_drop(&c, i);
    }
    for (int i = 0; i < N / 4; i++) {
        kvcache_take(&c);
    }
    for (int i = 0; i < N / 2; i++) {
        assert_int_equal(kvcache_find(&c, hash_of((uint64_t)i << 40)), i % 2 ? 2 * i : -1);
    }
    kvcache_forget(&c);
    for (int i = 0; i < N / 2; i++) {
        assert_int_equal(kvcache_find(&c, hash_of((uint64_t)i << 40)), -1);
    }
    kvcache_close(&c);
}

static void sizes_out_of_range_are_refused(void **state)
{
    struct kvcache c;
    (void)state;
    assert_int_equal(kvcache_open(&c, 0), PM_ERR_ARG);
    assert_int_equal(kvcache_open(&c, ((int64_t)1 << 30) + 1), PM_ERR_ARG);
    kvcache_close(&c); /* as after a failed open */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(siphash_gives_the_reference_values),
        cmocka_unit_test(every_block_is_taken_once),
        cmocka_unit_test(a_shared_block_is_free_after_its_last_holder),
        cmocka_unit_test(a_prefix_is_found_until_its_block_is_taken),
        cmocka_unit_test(prefixes_are_reused_in_the_order_they_were_given_back),
        cmocka_unit_test(blocks_without_a_prefix_are_taken_first),
        cmocka_unit_test(a_prefix_has_one_block),
        cmocka_unit_test(sizes_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
