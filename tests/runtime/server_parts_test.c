/* server_parts_test.c - keys, histograms and the work queue, without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/server/metrics.h"
#include "runtime/server/server_auth.h"
#include "runtime/server/server_work.h"

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

static void keys_are_told_apart(void **state)
{
    struct auth a;
    uint64_t one, two, again;
    (void)state;
    assert_int_equal(auth_init(&a), PM_OK);
    assert_true(auth_check(&a, NULL, &one) && one == 0); /* nobody asks */
    assert_int_equal(auth_add(&a, "alpha", 5), PM_OK);
    assert_int_equal(auth_add(&a, "beta", 4), PM_OK);
    assert_true(auth_check(&a, "Bearer alpha", &one));
    assert_true(auth_check(&a, "bearer   beta", &two));
    assert_true(auth_check(&a, "Basic OmFscGhh", &again)); /* :alpha */
    assert_true(one != 0 && one != two && one == again);
    assert_true(auth_hash(&a, "s") == auth_hash(&a, "s") &&
                auth_hash(&a, "s") != auth_hash(&a, "t"));
    auth_clear(&a);
}

static void other_headers_are_no_key(void **state)
{
    static const char *const wrong[] = {"",           "Bearer",         "Bearer ",
                                        "Bearer alp", "Bearer alphaa",  "Bearer alphaalpha",
                                        "alpha",      "Basic YWxwaGE=", "Basic !!!!",
                                        "Basic",      "Digest alpha"};
    struct auth a;
    uint64_t tenant;
    (void)state;
    assert_int_equal(auth_init(&a), PM_OK);
    assert_int_equal(auth_add(&a, "alpha", 5), PM_OK);
    assert_false(auth_check(&a, NULL, &tenant));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(auth_check(&a, wrong[i], &tenant));
    }
    assert_int_equal(auth_add(&a, "", 0), PM_ERR_ARG);
    assert_int_equal(auth_add(&a, "with blank", 10), PM_ERR_ARG);
    auth_clear(&a);
}

static void histograms_add_up(void **state)
{
    static struct metrics m;
    struct json_out o = {0};
    pm_stats stats = {.n_block = 4, .n_block_used = 1};
    uint64_t count[] = {3, 1, 0, 0};
    (void)state;
    metrics_observe(&m, METRICS_request_prompt_tokens, 1);
    metrics_observe(&m, METRICS_request_prompt_tokens, 2);
    metrics_observe(&m, METRICS_request_prompt_tokens, 1e12);
    metrics_observe(&m, METRICS_request_prompt_tokens, -1);
    metrics_put(&o, &m, "a\"b", &stats, count, 2, 2);
    assert_int_equal(o.status, PM_OK);
    assert_non_null(
        strstr(o.text, "polymath:kv_cache_usage_perc{model_name=\"a\\\"b\"} 0.25\n"));
    assert_non_null(
        strstr(o.text, "request_prompt_tokens_bucket{model_name=\"a\\\"b\",le=\"1\"} 2\n"));
    assert_non_null(
        strstr(o.text, "request_prompt_tokens_bucket{model_name=\"a\\\"b\",le=\"2.5\"} 3\n"));
    assert_non_null(
        strstr(o.text, "request_prompt_tokens_bucket{model_name=\"a\\\"b\",le=\"+Inf\"} 4\n"));
    assert_non_null(strstr(o.text, "request_prompt_tokens_count{model_name=\"a\\\"b\"} 4\n"));
    assert_non_null(
        strstr(o.text, "expert_imbalance{model_name=\"a\\\"b\",layer=\"0\"} 1.5\n"));
    assert_null(strstr(o.text, "layer=\"1\"")); /* nothing was routed there */
    free(o.text);
}

struct chain {
    struct work *w;
    struct work_item item;
    int left;
};

static void next_link(void *arg)
{
    struct chain *c = arg;
    if (--c->left > 0) work_push(c->w, &c->item);
}

static void closing_runs_what_is_pushed_meanwhile(void **state)
{
    struct chain c[8];
    struct work *w;
    (void)state;
    assert_int_equal(work_open(&w, 3), PM_OK);
    for (int i = 0; i < 8; i++) {
        c[i] = (struct chain){.w = w, .item = {next_link, &c[i], NULL}, .left = 1000};
        work_push(w, &c[i].item);
    }
    work_close(w);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(c[i].left, 0);
    }
    work_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_told_apart),
        cmocka_unit_test(other_headers_are_no_key),
        cmocka_unit_test(histograms_add_up),
        cmocka_unit_test(closing_runs_what_is_pushed_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
