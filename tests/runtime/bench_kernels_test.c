/* bench_kernels_test.c - polymath bench kernels: which experts rows choose, what a run reports,
 * what wrong flags are told. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/kernels.h"
#include "bench/routing_make.h"
#include "moe/json.h"
#include "tests/oracle/rig.h"

enum { ROWS = 400 };

static const struct command self = {.name = "bench kernels", .arguments = "", .engine = true};

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

struct sleepy {
    struct rig *rig;
    int64_t last, n;
};

static pm_status sleep_a_little(void *arg, int64_t turn)
{
    struct sleepy *s = arg;
    assert_int_equal(turn, s->last + 1);
    s->last = turn;
    s->n++;
    usleep(200);
    return PM_OK;
}

static void clock_counts_whole_rounds(void **state)
{
    struct rig *rig = *state;
    struct sleepy s = {rig, -1, 0};
    struct timing t;
    expect_ok(clock_measure(&t, rig->k, rig->d, sleep_a_little, &s, 3, 7));
    assert_true(t.median_us >= 200 && t.min_us >= 200 && t.min_us <= t.median_us);
    assert_true(t.deviation_us >= 0 && (t.n_turn <= 7 || t.n_turn % 7 == 0));
}

/* The exit status for these arguments. */
static int run_with(const char *const *text, int n)
{
    enum { MAX_ARGUMENT = 40 };
    char *argv[MAX_ARGUMENT];
    assert_true(n <= MAX_ARGUMENT);
    for (int i = 0; i < n; i++)
        argv[i] = (char *)(uintptr_t)text[i];
    return bench_kernels(&self, n, argv);
}

/* The same with standard output in a file. */
static int run_into(const char *path, const char *const *text, int n)
{
    int saved = dup(STDOUT_FILENO), code;
    fflush(stdout);
    assert_non_null(freopen(path, "w", stdout));
    code = run_with(text, n);
    fflush(stdout);
    assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    close(saved);
    return code;
}

static void check_row(const json *row)
{
    static const char *const numbers[] = {
        "rows",      "experts",      "top_k",         "median_us",
        "min_us",    "deviation_us", "samples",       "turns",
        "sets",      "bytes",        "flops",         "gigabytes_per_second",
        "gigaflops", "wall_us",      "share_of_wall", "read_gigabytes_per_second"};
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
    char path[] = "/tmp/polymath-bench-XXXXXX";
    static const char *const text[] = {"kernels",  "--shape",   "qwen3-next,deepseek-v2-lite",
                                       "-e",       "4",         "-k",
                                       "2",        "-n",        "1,3",
                                       "-r",       "2",         "--type",
                                       "bf16,fp8", "--routing", "uniform,zipf:1.0",
                                       "--cached", "40",        "--warm",
                                       "-t",       "1",         "-o",
                                       "json"};
    struct json_doc *doc;
    int file = mkstemp(path), n = 0;
    (void)state;
    assert_true(file >= 0);
    close(file);
    assert_int_equal(run_into(path, text, (int)(sizeof text / sizeof *text)), EXIT_OK);
    expect_ok(json_load(&doc, path, 1 << 20));
    unlink(path);
    for (const json *row = json_child(json_root(doc)); row; row = json_next(row)) {
        check_row(row);
        n++;
    }
    /* Of 11 operations: 3 vary by type and routing, 3 by routing alone, 1 by type, 4 by none.
     */
    assert_int_equal(n, 2 * 2 * (3 * 4 + 3 * 2 + 1 * 2 + 4));
    json_free(doc);
}

static void wrong_flags_are_usage_errors(void **state)
{
    static const char *const wrong[][2] = {
        {"--shape", "gpt5"}, {"--op", "matmul"},   {"--type", "int3"},
        {"--rows", "0"},     {"--rows", "1,,2"},   {"--experts", "5000"},
        {"--top-k", "200"},  {"--cached", "-1"},   {"--repeat", "1001"},
        {"--output", "xml"}, {"--routing", "odd"}, {"--frobnicate", "1"}};
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
                                      "--frobnicate: unknown option"};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *text[] = {"kernels", wrong[i][0], wrong[i][1]};
        assert_int_equal(run_with(text, 3), EXIT_USAGE);
        if (!strstr(pm_last_error(), say[i])) rig_fail("\"%s\": %s", say[i], pm_last_error());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(every_shape_gets_rows_that_its_gate_would_choose),
        RIG_TEST(popularity_is_as_asked),
        RIG_TEST(wrong_routings_are_named),
        RIG_TEST(shapes_are_cut_to_what_fits),
        RIG_TEST(clock_counts_whole_rounds),
        RIG_TEST(run_reports_every_operation),
        RIG_TEST(wrong_flags_are_usage_errors),
    };
    /* The program does the same on every instruction set. */
    setenv("POLYMATH_ISA", "generic", 0);
    return rig_run("bench kernels", tests, sizeof tests / sizeof *tests);
}
