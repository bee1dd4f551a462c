/* bench_device_test.c - marks, recorded samples and the kernel benchmark on the device that
 * POLYMATH_TEST_DEVICE names, a CPU without it. */
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/clock.h"
#include "tests/kernels/bench_run.h"
#include "tests/oracle/rig.h"

struct fixture {
    const struct kernels *k;
    struct device *d;
    const char *name;
};

static void open_fixture(struct fixture *f)
{
    int index;
    f->name = getenv("POLYMATH_TEST_DEVICE");
    if (!f->name) f->name = "cpu";
    expect_ok(kernels_select(&f->k, &index, f->name));
    expect_ok(f->k->open(&f->d, index, 1));
}

static void marks_bound_the_work_between_them(void **state)
{
    enum { BYTES = 32 << 20, N = 3 };
    struct fixture f;
    void *mark[N], *block;
    double short_us, long_us, all_us;
    int64_t start;
    (void)state;
    open_fixture(&f);
    for (int i = 0; i < N; i++)
        expect_ok(f.k->mark_new(f.d, &mark[i]));
    expect_ok(f.k->alloc(f.d, &block, BYTES, "test"));
    expect_ok(f.k->clear(f.d, block, BYTES));
    expect_ok(f.k->sync(f.d));
    start = now_us();
    expect_ok(f.k->mark_set(f.d, mark[0]));
    expect_ok(f.k->mark_set(f.d, mark[1]));
    for (int i = 0; i < 8; i++)
        expect_ok(f.k->clear(f.d, block, BYTES));
    expect_ok(f.k->mark_set(f.d, mark[2]));
    expect_ok(f.k->mark_us(f.d, &short_us, mark[0], mark[1]));
    expect_ok(f.k->mark_us(f.d, &long_us, mark[1], mark[2]));
    expect_ok(f.k->mark_us(f.d, &all_us, mark[0], mark[2]));
    assert_true(short_us >= 0 && long_us > short_us);
    assert_true(fabs(short_us + long_us - all_us) <= 1 + 1e-3 * all_us);
    assert_true(all_us <= (double)(now_us() - start) + 2);
    for (int i = 0; i < N; i++)
        f.k->mark_free(f.d, mark[i]);
    f.k->mark_free(f.d, NULL);
    f.k->free(f.d, block);
    f.k->close(f.d);
}

static void a_device_says_what_a_measurement_needs(void **state)
{
    struct fixture f;
    struct device_facts facts;
    (void)state;
    open_fixture(&f);
    memset(&facts, 0xff, sizeof facts);
    f.k->facts(f.d, &facts);
    assert_true(facts.cache_bytes >= 1 << 20);
    assert_true(facts.clock_mhz >= 0 && facts.watts >= 0 && facts.clock_mhz <= 10000);
    assert_true(memchr(facts.software, 0, sizeof facts.software) != NULL);
    assert_true(f.k->host_memory || strstr(facts.software, "CUDA "));
    f.k->close(f.d);
}

#ifdef TEST_CUDA_EMULATED
/* With the NVML of the tests, which is started once for a device and ended with it. */
static void clocks_come_from_nvml(void **state)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    int (*started)(void) = NULL;
    void *found = library ? dlsym(library, "nvml_fake_started") : NULL;
    struct fixture f;
    struct device_facts facts;
    (void)state;
    memcpy(&started, &found, sizeof started);
    if (!started) {
        skip();
        return;
    }
    open_fixture(&f);
    assert_int_equal(started(), 0);
    for (int i = 0; i < 2; i++) {
        f.k->facts(f.d, &facts);
        assert_int_equal(started(), 1);
        assert_int_equal(facts.clock_mhz, 1410);
        assert_int_equal(facts.max_clock_mhz, 1980);
        assert_int_equal(facts.memory_mhz, 2619);
        assert_int_equal(facts.celsius, 41);
        assert_int_equal(facts.watts, 346);
        assert_non_null(strstr(facts.software, "driver 123.45.67, CUDA "));
    }
    f.k->close(f.d);
    assert_int_equal(started(), 0);
    dlclose(library);
}
#endif

/* Adds 1 to one value, and notes the turn. */
struct counter {
    struct fixture *f;
    struct tensor x, one;
    int64_t n_call;
};

static pm_status count(void *arg, int64_t turn)
{
    struct counter *c = arg;
    c->n_call++;
    assert_true(turn < 5);
    return c->f->k->add(c->f->d, c->x, c->one, 1);
}

/* Recorded turns are enqueued once and run in each sample; every sample runs all turns. */
static void samples_run_all_turns_of_all_contenders(void **state)
{
    enum { SAMPLES = 3, TURNS = 5, WHO = 2 };
    struct fixture f;
    struct counter c[WHO];
    struct contender who[WHO];
    struct clock clock;
    struct device_facts facts;
    float one = 1, value;
    (void)state;
    open_fixture(&f);
    expect_ok(clock_open(&clock, f.k, f.d, 1 << 16));
    for (int i = 0; i < WHO; i++) {
        void *p, *q;
        expect_ok(f.k->alloc(f.d, &p, sizeof one, "test"));
        expect_ok(f.k->alloc(f.d, &q, sizeof one, "test"));
        expect_ok(f.k->upload(f.d, q, &one, sizeof one));
        c[i] = (struct counter){
            .f = &f, .x = tensor_view(p, PM_F32, 1, 1), .one = tensor_view(q, PM_F32, 1, 1)};
        who[i] = (struct contender){.run = count, .arg = &c[i]};
    }
    expect_ok(clock_measure(&clock, who, WHO, SAMPLES, TURNS, &facts));
    for (int i = 0; i < WHO; i++) {
        const struct timing *t = &who[i].time;
        bool records = f.k->record_begin != NULL;
        assert_int_equal(t->replayed, records);
        assert_int_equal(t->n_turn, TURNS);
        assert_true(0 < t->min_us && t->min_us <= t->p10_us && t->p10_us <= t->median_us &&
                    t->median_us <= t->p90_us);
        assert_int_equal(c[i].n_call, records ? 2 * TURNS : (1 + SAMPLES) * TURNS);
        expect_ok(f.k->download(f.d, &value, c[i].x.data, sizeof value));
        assert_true(value == (1 + SAMPLES) * TURNS);
        f.k->free(f.d, c[i].x.data);
        f.k->free(f.d, c[i].one.data);
    }
    clock_close(&clock);
    f.k->close(f.d);
}

/* Where turns are not given they fill a millisecond, up to a limit. */
static void turns_are_chosen(void **state)
{
    struct fixture f;
    struct clock clock;
    struct counter c = {.f = &f};
    struct contender who = {.run = count, .arg = &c};
    void *p, *q;
    (void)state;
    open_fixture(&f);
    enum { ROWS = 64, COLS = 65536 };
    expect_ok(clock_open(&clock, f.k, f.d, 0));
    expect_ok(f.k->alloc(f.d, &p, (size_t)ROWS * COLS * sizeof(float), "test"));
    expect_ok(f.k->alloc(f.d, &q, (size_t)ROWS * COLS * sizeof(float), "test"));
    c.x = tensor_view(p, PM_F32, ROWS, COLS);
    c.one = tensor_view(q, PM_F32, ROWS, COLS);
    expect_ok(clock_measure(&clock, &who, 1, 1, 0, NULL));
    assert_true(who.time.n_turn >= 1 && who.time.n_turn <= CLOCK_MAX_TURN);
    f.k->free(f.d, p);
    f.k->free(f.d, q);
    clock_close(&clock);
    f.k->close(f.d);
}

/* The program's own benchmark with a baseline, on small layers. */
static void kernels_are_measured_beside_a_baseline(void **state)
{
    const char *device = getenv("POLYMATH_TEST_DEVICE");
    const char *text[] = {"kernels", "--device",   device ? device : "cpu",
                          "--shape", "qwen3-next", "-e",
                          "2",       "-k",         "1",
                          "-n",      "2",          "-r",
                          "1",       "--op",       "gate,down,unpermute,norm",
                          "--cache", "hot",        "--baseline",
                          "loop",    "-t",         "1",
                          "-o",      "json"};
    struct json_doc *doc;
    int n_own = 0, n_loop = 0;
    (void)state;
    bench_run_json(&doc, bench_kernels, text, (int)(sizeof text / sizeof *text));
    for (const json *row = json_child(json_root(doc)); row; row = json_next(row)) {
        const char *by = json_text(json_get(row, "by"));
        double times = json_number(json_get(row, "times_polymath"));
        if (strcmp(by, "loop") == 0) {
            assert_string_equal(json_text(json_get(row, "op")), "down");
            assert_true(times > 0);
            n_loop++;
        } else {
            assert_string_equal(by, "polymath");
            assert_true(times == 1);
            n_own++;
        }
        assert_true(json_number(json_get(row, "share_of_wall")) > 0);
    }
    assert_int_equal(n_own, 4);
    assert_int_equal(n_loop, 1);
    json_free(doc);
}

static void cublas_says_what_it_wants(void **state)
{
    static const char *const text[] = {"kernels", "--device", "cpu", "--baseline", "cublas"};
    (void)state;
    assert_int_equal(bench_run(bench_kernels, text, 5), EXIT_USAGE);
    assert_non_null(strstr(pm_last_error(), "baseline cublas: found the device cpu"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_bound_the_work_between_them),
        cmocka_unit_test(a_device_says_what_a_measurement_needs),
#ifdef TEST_CUDA_EMULATED
        cmocka_unit_test(clocks_come_from_nvml),
#endif
        cmocka_unit_test(samples_run_all_turns_of_all_contenders),
        cmocka_unit_test(turns_are_chosen),
        cmocka_unit_test(kernels_are_measured_beside_a_baseline),
        cmocka_unit_test(cublas_says_what_it_wants),
    };
    const char *name = getenv("POLYMATH_TEST_DEVICE");
    const struct kernels *k;
    int index;
    if (name && kernels_select(&k, &index, name) != PM_OK) return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
