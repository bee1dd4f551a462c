/* bench_kernels_test.c - polymath bench kernels: which experts rows choose, what a run reports,
 * what wrong flags are told. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/kernels.h"
#include "bench/routing_make.h"
#include "bench/stats.h"
#include "runtime/trace.h"
#include "tests/kernels/bench_run.h"
#include "tests/oracle/rig.h"

enum { ROWS = 400 };

static void parse(struct routing_maker *m, const char *text)
{
    expect_ok(routing_parse(m, text, strlen(text)));
}

/* Every row has K different experts from at most top_group groups. */
static void check_ids(const struct gate *g, const int32_t *id, int n_row)
{
    for (int r = 0; r < n_row; r++) {
        bool group[512] = {false};
        int n_group = 0;
        for (int k = 0; k < g->top_k; k++) {
            int32_t e = id[r * g->top_k + k];
            int at = g->group == GROUP_NONE ? 0 : e / (g->n_expert / g->n_group);
            assert_true(e >= 0 && e < g->n_expert);
            for (int j = 0; j < k; j++) {
                assert_true(id[r * g->top_k + j] != e);
            }
            n_group += !group[at];
            group[at] = true;
        }
        assert_true(g->group == GROUP_NONE || n_group <= g->top_group);
    }
}

static void every_shape_gets_rows_that_its_gate_would_choose(void **state)
{
    static const char *const kinds[] = {"uniform", "zipf:1.2", "one-hot"};
    struct rig *rig = *state;
    for (const struct shape *s = shapes; s->name; s++) {
        const struct gate *g = &s->gate;
        int64_t n = (int64_t)ROWS * g->top_k;
        struct tensor logits = tensor_view(NULL, PM_F32, ROWS, g->n_expert);
        struct routing out = {.weight = rig_take(rig, n, sizeof(float)),
                              .id = rig_take(rig, n, sizeof(int32_t))};
        int32_t *id = rig_take(rig, n, sizeof *id);
        logits.data = rig_take(rig, ROWS * g->n_expert, sizeof(float));
        for (size_t i = 0; i < 3; i++) {
            struct routing_maker m;
            parse(&m, kinds[i]);
            expect_ok(routing_ids(&m, id, g, ROWS, 5));
            check_ids(g, id, ROWS);
            routing_logits(logits.data, id, g, ROWS, 5);
            expect_ok(rig->k->gate_topk(rig->d, g, logits, NULL, &out));
            assert_memory_equal(out.id, id, (size_t)n * sizeof *id);
            assert_int_equal(routing_active(id, g, ROWS) == g->top_k,
                             i == 2 || g->n_expert == g->top_k);
        }
    }
}

/* Shares of the experts, most popular first. */
static void shares(const char *kind, double share[16])
{
    enum { MANY = 20000 };
    static int32_t id[MANY];
    struct gate g = {.n_expert = 16, .top_k = 1};
    struct routing_maker m;
    double count[16] = {0};
    parse(&m, kind);
    expect_ok(routing_ids(&m, id, &g, MANY, 11));
    for (int i = 0; i < MANY; i++)
        count[id[i]]++;
    for (int n = 0; n < 16; n++) {
        int best = 0;
        for (int e = 0; e < 16; e++) {
            if (count[e] > count[best]) best = e;
        }
        share[n] = count[best] / MANY;
        count[best] = -1;
    }
}

static void popularity_is_as_asked(void **state)
{
    double share[16], sum = 0;
    (void)state;
    for (int n = 1; n <= 16; n++)
        sum += 1.0 / n;
    shares("zipf:1", share);
    for (int n = 1; n <= 16; n++) {
        assert_true(fabs(share[n - 1] - 1 / (n * sum)) < 0.015);
    }
    shares("uniform", share);
    assert_true(share[0] < 1.15 / 16 && share[15] > 0.85 / 16);
    shares("one-hot", share);
    assert_true(share[0] == 1);
}

static void quantiles_lie_between_values(void **state)
{
    static const double x[] = {1, 2, 3, 4, 8};
    (void)state;
    assert_true(stats_quantile(x, 5, 0) == 1 && stats_quantile(x, 5, 1) == 8);
    assert_true(stats_quantile(x, 5, 0.5) == 3 && stats_quantile(x, 5, 0.125) == 1.5);
    assert_true(stats_quantile(x, 5, 0.875) == 6);
    assert_true(stats_quantile(x, 1, 0.9) == 1 && stats_quantile(x, 0, 0.5) == 0);
}

static void wrong_routings_are_named(void **state)
{
    struct routing_maker m;
    (void)state;
    expect_error(routing_parse(&m, "even", 4), PM_ERR_ARG, "routing: found \"even\", wanted");
    expect_error(routing_parse(&m, "zipf:x", 6), PM_ERR_ARG, "zipf:0 to zipf:10");
    expect_error(routing_parse(&m, "zipf:-1", 7), PM_ERR_ARG, "found \"zipf:-1\"");
    expect_error(routing_parse(&m, "trace:/nowhere", 14), PM_ERR_IO, "/nowhere");
}

static void shapes_are_cut_to_what_fits(void **state)
{
    const struct shape *s;
    struct shape cut;
    (void)state;
    expect_ok(shapes_find(&s, "deepseek-v3", 11));
    expect_ok(shapes_cut(&cut, s, 64, 0));
    assert_true(cut.gate.n_expert == 64 && cut.gate.top_k == 8 && cut.gate.group == GROUP_TOP2);
    expect_ok(shapes_cut(&cut, s, 4, 0));
    assert_true(cut.gate.top_k == 4 && cut.gate.group == GROUP_NONE);
    expect_ok(shapes_cut(&cut, s, 0, 3));
    assert_true(cut.gate.n_expert == 256 && cut.gate.top_k == 3);
    expect_error(shapes_cut(&cut, s, 4, 5), PM_ERR_ARG, "top-k: found 5");
    expect_error(shapes_find(&s, "deepseek", 8), PM_ERR_ARG, "wanted qwen3-30b, ");
}

static void check_row(const json *row)
{
    static const char *const numbers[] = {"rows",          "experts",
                                          "top_k",         "median_us",
                                          "p10_us",        "p90_us",
                                          "min_us",        "deviation_us",
                                          "samples",       "turns",
                                          "sets",          "bytes",
                                          "flops",         "gigabytes_per_second",
                                          "gigaflops",     "wall_us",
                                          "share_of_wall", "read_gigabytes_per_second"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const json *v = json_get(row, numbers[i]);
        if (!v || !json_is_number(v) || !isfinite(json_number(v))) {
            rig_fail("%s is no number", numbers[i]);
        }
    }
    assert_true(json_number(json_get(row, "median_us")) > 0);
    assert_true(json_number(json_get(row, "wall_us")) > 0);
    assert_true(json_number(json_get(row, "bytes")) > 0);
}

/* All operations on two kinds of attention and types with scales; several devices' worth of
 * rows are pointless here, one instruction set is enough. */
static void run_reports_every_operation(void **state)
{
    static const char *const text[] = {"kernels",  "--shape",   "qwen3-next,deepseek-v2-lite",
                                       "-e",       "4",         "-k",
                                       "2",        "-n",        "1,3",
                                       "-r",       "2",         "--type",
                                       "bf16,fp8", "--routing", "uniform,zipf:1.0",
                                       "--cached", "40",        "--cache",
                                       "hot",      "-t",        "1",
                                       "-o",       "json"};
    struct json_doc *doc;
    int n = 0;
    (void)state;
    bench_run_json(&doc, bench_kernels, text, (int)(sizeof text / sizeof *text));
    for (const json *row = json_child(json_root(doc)); row; row = json_next(row)) {
        check_row(row);
        n++;
    }
    /* Of 11 operations: 3 vary by type and routing, 3 by routing alone, 1 by type, 4 by none.
     */
    assert_int_equal(n, 2 * 2 * (3 * 4 + 3 * 2 + 1 * 2 + 4));
    json_free(doc);
}

/* A trace of top 2 of 4 experts in which every token chooses 3, then 1. */
static void recorded_traces_route_rows(void **state)
{
    enum { TOKENS = 5 };
    char path[] = "/tmp/polymath-trace-XXXXXX", word[64];
    const struct gate g = {.n_expert = 4, .top_k = 2};
    struct config c = {.n_layer = 2, .gate = g};
    struct layer_config layer[2] = {{.moe = true, .top_k = 2}, {.moe = true, .top_k = 2}};
    struct routing_maker m;
    struct trace *t;
    int32_t id[2 * TOKENS], chosen[2 * TOKENS];
    int file = mkstemp(path);
    (void)state;
    assert_true(file >= 0);
    close(file);
    c.layer = layer;
    for (int i = 0; i < TOKENS; i++) {
        chosen[2 * i] = 3;
        chosen[2 * i + 1] = 1;
    }
    expect_ok(trace_new(&t, &c, TOKENS));
    for (int l = 0; l < 2; l++)
        trace_add(t, l, 0, TOKENS, 2, chosen);
    expect_ok(trace_write(t, path));
    trace_free(t);
    snprintf(word, sizeof word, "trace:%s", path);
    parse(&m, word);
    expect_ok(routing_ids(&m, id, &g, TOKENS, 3));
    assert_memory_equal(id, chosen, sizeof id);
    routing_free(&m);
    unlink(path);
}

/* What cuBLAS is asked for, computed in BLAS's column-major words, is what the linear map
 * gives. */
static void a_gemm_is_the_product_of_an_expert(void **state)
{
    enum { EXPERTS = 3, OUT = 6, IN = 10, COUNT = 7 };
    static const int32_t first[EXPERTS + 1] = {0, 4, 4, COUNT};
    struct rig *rig = *state;
    struct tensor w[EXPERTS], x = rig_weights(rig, PM_F32, COUNT, IN);
    struct tensor y =
        tensor_view(rig_take(rig, COUNT * OUT, sizeof(float)), PM_F32, COUNT, OUT);
    struct product p = {.w = w, .x = x, .y = y, .first = first, .n_expert = EXPERTS};
    for (int e = 0; e < EXPERTS; e++)
        w[e] = rig_weights(rig, PM_F32, OUT, IN);
    for (int e = 0; e < EXPERTS; e++) {
        struct gemm g = cublas_gemm(&p, e);
        const float *a = g.a, *b = g.b;
        float *c = g.c;
        assert_int_equal(g.n, first[e + 1] - first[e]);
        for (int i = 0; i < g.m; i++) {
            for (int j = 0; j < g.n; j++) {
                double sum = 0;
                for (int k = 0; k < g.k; k++) /* A is transposed, B is not */
                    sum += (double)a[k + i * g.lda] * (double)b[k + j * g.ldb];
                c[i + j * g.ldc] = (float)sum;
            }
        }
    }
    expect_ok(baseline_check(&baselines[0], rig->k, rig->d, &p));
    ((float *)y.data)[3] += 1;
    expect_error(baseline_check(&baselines[0], rig->k, rig->d, &p), PM_ERR_DEVICE,
                 "loop: expert 0, output 3: found");
    expect_ok(baselines[0].run(NULL, rig->k, rig->d, &p));
    expect_ok(baseline_check(&baselines[0], rig->k, rig->d, &p));
}

static void wrong_flags_are_usage_errors(void **state)
{
    static const char *const wrong[][2] = {
        {"--shape", "gpt5"},   {"--op", "matmul"},    {"--type", "int3"},   {"--rows", "0"},
        {"--rows", "1,,2"},    {"--experts", "5000"}, {"--top-k", "200"},   {"--cached", "-1"},
        {"--repeat", "1001"},  {"--output", "xml"},   {"--routing", "odd"}, {"--cache", "cool"},
        {"--baseline", "mkl"}, {"--frobnicate", "1"}};
    static const char *const say[] = {"shape: found \"gpt5\"",
                                      "op: found \"matmul\", wanted all, gate, permute, up",
                                      "type: found \"int3\"",
                                      "rows: found \"0\"",
                                      "rows: found \"1,,2\"",
                                      "experts: found \"5000\"",
                                      "top-k: found 200, qwen3-30b has 128",
                                      "cached: found \"-1\"",
                                      "repeat: found \"1001\"",
                                      "output: found \"xml\"",
                                      "routing: found \"odd\"",
                                      "cache: found \"cool\"",
                                      "baseline: found \"mkl\"",
                                      "--frobnicate: unknown option"};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *text[] = {"kernels", wrong[i][0], wrong[i][1]};
        assert_int_equal(bench_run(bench_kernels, text, 3), EXIT_USAGE);
        if (!strstr(pm_last_error(), say[i])) rig_fail("\"%s\": %s", say[i], pm_last_error());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(every_shape_gets_rows_that_its_gate_would_choose),
        RIG_TEST(popularity_is_as_asked),
        RIG_TEST(quantiles_lie_between_values),
        RIG_TEST(wrong_routings_are_named),
        RIG_TEST(shapes_are_cut_to_what_fits),
        RIG_TEST(recorded_traces_route_rows),
        RIG_TEST(a_gemm_is_the_product_of_an_expert),
        RIG_TEST(run_reports_every_operation),
        RIG_TEST(wrong_flags_are_usage_errors),
    };
    /* The program does the same on every instruction set. */
    setenv("POLYMATH_ISA", "generic", 0);
    return rig_run("bench kernels", tests, sizeof tests / sizeof *tests);
}
