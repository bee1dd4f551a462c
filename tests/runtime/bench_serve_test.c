/* bench_serve_test.c - polymath bench serve: arrival times, answers in pieces, prompts by
 * number, percentiles and goodput of requests whose times are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#undef fail /* cmocka's, which base.h has another of */

#include "bench/load.h"
#include "bench/serve.h"

#define EXPECT_OK(call) assert_int_equal(call, PM_OK)

/* ---- arrivals */

static void gamma_has_its_moments(void **state)
{
    static const double shapes[] = {0.25, 0.5, 1, 2, 9};
    enum { N = 200000 };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct random_stream r = random_open(5, i);
        double a = shapes[i], sum = 0, square = 0;
        for (int k = 0; k < N; k++) {
            double x = random_gamma(&r, a);
            assert_true(x >= 0);
            sum += x;
            square += x * x;
        }
        sum /= N;
        square = square / N - sum * sum;
        /* Six standard errors; the fourth central moment of a gamma is 3 a^2 + 6 a. */
        assert_true(fabs(sum - a) < 6 * sqrt(a / N));
        assert_true(fabs(square - a) < 6 * sqrt((2 * a * a + 6 * a) / N));
    }
}

/* Gaps of a Poisson process are exponential: the share over t is exp(-rate t). */
static void poisson_gaps_are_exponential(void **state)
{
    enum { N = 100000 };
    struct load l;
    double last = 0;
    int over[3] = {0};
    (void)state;
    load_open(&l, 20, 1, 3);
    for (int i = 0; i < N; i++) {
        double t = load_next(&l), gap = t - last;
        assert_true(gap >= 0);
        for (int k = 0; k < 3; k++) {
            over[k] += gap > 0.05 * (k + 1);
        }
        last = t;
    }
    assert_true(fabs(last / N - 0.05) < 0.001);
    for (int k = 0; k < 3; k++) {
        assert_true(fabs((double)over[k] / N - exp(-(k + 1))) < 0.01);
    }
}

static void burstiness_is_the_shape(void **state)
{
    enum { N = 50000 };
    static const double shapes[] = {0.2, 1, 16};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct load l;
        double last = 0, square = 0;
        load_open(&l, 4, shapes[i], 1);
        for (int k = 0; k < N; k++) {
            double t = load_next(&l);
            square += (t - last - 0.25) * (t - last - 0.25);
            last = t;
        }
        /* The squared coefficient of variation of a gap is 1 / shape. */
        assert_true(fabs(square / N * 16 * shapes[i] - 1) < 0.15);
        assert_true(fabs(last / N - 0.25) < 0.01);
    }
}

static void a_ramp_follows_the_integral_of_its_rate(void **state)
{
    struct load l;
    double t = 0;
    int half = 0, all = 0;
    (void)state;
    load_open(&l, 100, 50, 2);
    l.ramp_to = 900;
    l.ramp_s = 10;
    for (; t < 12; all++) {
        double next = load_next(&l);
        assert_true(next >= t);
        half += next < 5;
        t = next;
    }
    /* 100 t + 40 t^2 up to 10 s, then 900 a second. */
    assert_true(abs(half - 1500) < 40);
    assert_true(abs(all - (5000 + 1800)) < 80);
}

static void streams_repeat_and_differ(void **state)
{
    struct random_stream a = random_open(1, 2), b = random_open(1, 2), c = random_open(1, 3),
                         d = random_open(2, 2);
    (void)state;
    for (int i = 0; i < 100; i++) {
        uint64_t x = random_bits(&a);
        assert_true(x == random_bits(&b) && x != random_bits(&c) && x != random_bits(&d));
    }
}

/* ---- answers */

struct text {
    char data[4096];
    size_t n;
    int n_call;
};

static void append(void *arg, const char *data, size_t n)
{
    struct text *t = arg;
    assert_true(t->n + n < sizeof t->data);
    memcpy(t->data + t->n, data, n);
    t->n += n;
    t->data[t->n] = 0;
    t->n_call++;
}

/* Feeds the text in two parts, cut at `cut`. */
static pm_status feed(struct http_response *r, struct text *out, const char *text, size_t cut,
                      size_t *used)
{
    size_t n = strlen(text), first;
    *out = (struct text){0};
    http_response_reset(r);
    TRY(http_response_feed(r, text, cut, &first, append, out));
    TRY(http_response_feed(r, text + first, n - first, used, append, out));
    *used += first;
    return PM_OK;
}

static void answers_are_the_same_in_any_pieces(void **state)
{
    static const struct {
        const char *text, *body;
        bool keep_alive, to_close;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true, false},
        {"HTTP/1.1 429 \r\ncontent-length:2 \r\nConnection: x, Close\r\n\r\nno", "no", false,
         false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n1;a=\"b\"\r\n,\r\n"
         "0000a\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
         "hello,0123456789", true, false},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "", true, false},
        {"HTTP/1.0 200 OK\r\nContent-Type: TEXT/event-stream;x\r\n\r\nuntil the end",
         "until the end", false, true},
        {"HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 2\n\nok", "ok", true, false},
        {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", "", true,
         false},
    };
    struct http_response r = {0};
    struct text out;
    size_t used;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = strlen(cases[i].text);
        for (size_t cut = 0; cut <= n; cut++) {
            EXPECT_OK(feed(&r, &out, cases[i].text, cut, &used));
            assert_int_equal(used, n);
            assert_string_equal(out.data, cases[i].body);
            assert_int_equal(r.keep_alive, cases[i].keep_alive);
            assert_int_equal(r.state == HTTP_DONE, !cases[i].to_close);
            EXPECT_OK(http_response_close(&r));
        }
    }
    /* What follows an answer is not its own. */
    EXPECT_OK(feed(&r, &out, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc", 3, &used));
    assert_int_equal(used, strlen("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n") + 1);
    EXPECT_OK(feed(&r, &out, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", 3, &used));
    assert_int_equal(http_response_close(&r), PM_ERR_IO);
    http_response_free(&r);
}

static void malformed_answers_are_refused(void **state)
{
    static const char *const wrong[] = {
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1,1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
    };
    struct http_response r = {0};
    struct text out;
    size_t used;
    char *long_head = calloc(1, 70000);
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(feed(&r, &out, wrong[i], 9, &used), PM_ERR_FORMAT);
    }
    assert_non_null(long_head);
    memset(long_head, 'a', 69999);
    memcpy(long_head, "HTTP/1.1 200 ", 13);
    assert_int_equal(feed(&r, &out, long_head, 20, &used), PM_ERR_FORMAT);
    free(long_head);
    http_response_free(&r);
}

static void join_events(void *arg, const char *data, size_t n)
{
    append(arg, "[", 1);
    append(arg, data, n);
    append(arg, "]", 1);
    assert_int_equal(data[n], 0);
}

static void events_are_the_same_in_any_pieces(void **state)
{
    static const char text[] = "data: one\n\n"
                               ": a comment\n\ndata:two\r\ndata:  three\r\n\r\n"
                               "event: x\nid: 7\ndata: {\"a\": 1}\rretry: 5\r\r"
                               "data\n\ndata:\n\ndatax: no\n\ndata: unfinished\n";
    (void)state;
    for (size_t cut = 0; cut < sizeof text; cut++) {
        struct event_stream e = {0};
        struct text out = {0};
        EXPECT_OK(event_stream_feed(&e, text, cut, join_events, &out));
        EXPECT_OK(event_stream_feed(&e, text + cut, sizeof text - 1 - cut, join_events, &out));
        assert_string_equal(out.data, "[one][two\n three][{\"a\": 1}][]");
        event_stream_free(&e);
    }
}

/* ---- prompts */

static char *body_of(const struct workload *w, int64_t i)
{
    struct json_out o = {0};
    json_put(&o, "{");
    workload_put(w, i, &o);
    json_put(&o, "}");
    EXPECT_OK(o.status);
    return o.text;
}

static void prompts_depend_on_their_number_alone(void **state)
{
    struct workload_options o = {
        .kind = "random", .input = {10, 30}, .output = {1, 9}, .id = {256, 999}, .seed = 11};
    struct workload *w, *other;
    char *kept[20];
    (void)state;
    EXPECT_OK(workload_open(&w, &o));
    for (int i = 0; i < 20; i++) {
        kept[i] = body_of(w, i);
    }
    for (int i = 19; i >= 0; i--) {
        char *again = body_of(w, i);
        struct json_doc *doc;
        int max_tokens;
        assert_string_equal(again, kept[i]);
        EXPECT_OK(json_parse(&doc, "body", again, strlen(again)));
        const json *prompt = json_get(json_root(doc), "prompt");
        assert_in_range(json_size(prompt), 10, 30);
        for (const json *id = json_child(prompt); id; id = json_next(id)) {
            assert_in_range((int)json_number(id), 256, 999);
        }
        EXPECT_OK(json_need_int(doc, json_root(doc), "max_tokens", 1, 9, &max_tokens));
        json_free(doc);
        free(again);
    }
    o.seed = 12;
    EXPECT_OK(workload_open(&other, &o));
    for (int i = 0; i < 20; i++) {
        char *text = body_of(other, i);
        assert_string_not_equal(text, kept[i]);
        if (i) assert_string_not_equal(kept[i], kept[i - 1]);
        free(text);
    }
    for (int i = 0; i < 20; i++) {
        free(kept[i]);
    }
    workload_close(other);
    workload_close(w);
}

/* ---- results */

static void percentiles_lie_between_ranks(void **state)
{
    double x[101], one[1] = {7}, two[2] = {4, 2};
    struct serve_spread s;
    (void)state;
    for (int i = 0; i <= 100; i++) {
        x[(i * 37) % 101] = i;
    }
    s = serve_spread_of(x, 101);
    assert_true(s.mean > 50 - 1e-9 && s.mean < 50 + 1e-9 && s.median == 50 && s.max == 100);
    assert_true(fabs(s.p[0] - 50) < 1e-9 && fabs(s.p[1] - 90) < 1e-9);
    assert_true(fabs(s.p[2] - 95) < 1e-9 && fabs(s.p[3] - 99) < 1e-9);
    assert_true(fabs(s.std - sqrt((101.0 * 101 - 1) / 12)) < 1e-9);
    assert_true(fabs(serve_percentile_of(x, 101, 12.5) - 12.5) < 1e-9);
    s = serve_spread_of(one, 1);
    assert_true(s.mean == 7 && s.median == 7 && s.p[3] == 7 && s.std == 0);
    s = serve_spread_of(two, 2);
    assert_true(s.median == 3 && fabs(s.p[1] - 3.8) < 1e-9 && s.std == 1);
    s = serve_spread_of(NULL, 0);
    assert_true(s.n == 0 && s.mean == 0);
}

/* Ten requests, sent 100 ms apart and 3 ms late: request i has its first token after 10 + 10 i
 * ms and four more, 20 ms apart; request 9 failed, request 8 has one token. */
static void reports_of_known_requests(void **state)
{
    struct serve_sample sample[10] = {{0}};
    float gap[4] = {20, 20, 20, 20};
    struct serve_run run = {.sample = sample, .n = 10, .begin_us = 1000, .cpu_s = 0.5};
    struct serve_bounds bounds = {.ttft = 45, .tpot = 25};
    struct serve_report r;
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct serve_sample *q = &sample[i];
        q->due_us = 1000 + i * 100000;
        q->start_us = q->due_us + 3000;
        q->first_us = q->start_us + 10000 + i * 10000;
        q->n_chunk = i == 8 ? 1 : 5;
        q->n_gap = (size_t)q->n_chunk - 1;
        q->gap_ms = gap;
        q->last_us = q->first_us + (int64_t)q->n_gap * 20000;
        q->n_prompt = 7;
        q->n_output = q->n_chunk;
        q->n_cached = i == 2 ? 4 : 0;
    }
    snprintf(sample[9].error, sizeof sample[9].error, "HTTP 503");
    run.end_us = 1000 + 1000000;
    EXPECT_OK(serve_report(&r, &run, &bounds));
    assert_true(r.completed == 9 && r.failed == 1 && r.n_error == 1 && r.error[0].n == 1);
    assert_string_equal(r.error[0].text, "HTTP 503");
    assert_true(r.duration_s == 1 && r.n_input == 63 && r.n_output == 41 && r.n_cached == 4);
    assert_true(fabs(r.output_per_s - 41) < 1e-9 && fabs(r.total_per_s - 104) < 1e-9);
    assert_true(fabs(r.ttft.mean - 50) < 1e-9 && r.ttft.median == 50 && r.ttft.n == 9);
    assert_true(r.tpot.n == 8 && fabs(r.tpot.mean - 20) < 1e-9 && fabs(r.tpot.std) < 1e-6);
    assert_true(r.itl.n == 32 && r.itl.median == 20);
    assert_true(fabs(r.e2el.median - 120) < 1e-9 && fabs(r.late.p[3] - 3) < 1e-9);
    assert_true(r.n_good == 4 && fabs(r.good_per_s - 4) < 1e-9); /* 10, 20, 30 and 40 ms */
    assert_true(fabs(r.cpu_share - 0.5) < 1e-9);
    assert_true(fabs(r.peak_output_per_s - 41) < 1e-9);
    bounds.tpot = 19;
    EXPECT_OK(serve_report(&r, &run, &bounds));
    assert_int_equal(r.n_good, 0);
    bounds = (struct serve_bounds){.e2el = 90};
    EXPECT_OK(serve_report(&r, &run, &bounds));
    assert_int_equal(r.n_good, 2); /* request 0, and request 8 with its one token */
}

static void metrics_are_summed_by_suffix(void **state)
{
    static const char page[] = "# HELP a:prefix_cache_hits x 9\n"
                               "a:prefix_cache_hits_total{model=\"x\"} 3\n"
                               "a:prefix_cache_hits_total{model=\"y z\"} 4.5\n"
                               "b_prefix_cache_queries 1e3\n"
                               "prefix_cache_hits_ratio 7\n";
    (void)state;
    assert_true(serve_metric(page, "prefix_cache_hits") == 7.5);
    assert_true(serve_metric(page, "prefix_cache_queries") == 1000);
    assert_true(serve_metric(page, "nothing") == -1);
    assert_true(serve_metric("", "nothing") == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gamma_has_its_moments),
        cmocka_unit_test(poisson_gaps_are_exponential),
        cmocka_unit_test(burstiness_is_the_shape),
        cmocka_unit_test(a_ramp_follows_the_integral_of_its_rate),
        cmocka_unit_test(streams_repeat_and_differ),
        cmocka_unit_test(answers_are_the_same_in_any_pieces),
        cmocka_unit_test(malformed_answers_are_refused),
        cmocka_unit_test(events_are_the_same_in_any_pieces),
        cmocka_unit_test(prompts_depend_on_their_number_alone),
        cmocka_unit_test(percentiles_lie_between_ranks),
        cmocka_unit_test(reports_of_known_requests),
        cmocka_unit_test(metrics_are_summed_by_suffix),
    };
    return cmocka_run_group_tests_name("bench serve", tests, NULL, NULL);
}
