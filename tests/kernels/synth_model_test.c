/* synth_model_test.c - a random model made in memory is the one that polymath synth writes, on
 * the device that POLYMATH_TEST_DEVICE names, a CPU without it. */
#define _XOPEN_SOURCE 700
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe/synth.h"
#include "runtime/engine/sequence.h"
#include "tests/kernels/bench_run.h"
#include "tests/oracle/rig.h"

enum { TOKENS = 5 };

static const char *device_name(void)
{
    const char *name = getenv("POLYMATH_TEST_DEVICE");
    return name ? name : "cpu";
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

/* Logits of the last of a few tokens; the caller frees them. */
static float *logits_of(const char *folder, const struct synth_options *synthetic, int *vocab)
{
    static const int32_t id[TOKENS] = {3, 1, 4, 1, 5};
    struct model_options o = {.device = device_name(),
                              .n_thread = 2,
                              .max_row = 8,
                              .context = 16,
                              .kv_type = -1,
                              .synthetic = synthetic};
    struct model *m;
    struct sequence s;
    float *logits;
    expect_ok(model_open(&m, folder, &o));
    *vocab = model_config(m)->vocab;
    logits = calloc((size_t)*vocab, sizeof *logits);
    assert_non_null(logits);
    expect_ok(sequence_open(&s, m));
    expect_ok(sequence_feed(&s, id, TOKENS, logits, false));
    sequence_close(&s);
    model_close(m);
    return logits;
}

static void check_same(const char *family, const char *dtype, const char *const *set, int n_set)
{
    char folder[] = "/tmp/synth_model_XXXXXX", out[64];
    struct synth_options o = {
        .family = family, .set = set, .n_set = n_set, .seed = 7, .dtype = dtype, .out = out};
    float *written, *made;
    int n, n_made;
    assert_non_null(mkdtemp(folder));
    snprintf(out, sizeof out, "%s/model", folder);
    expect_ok(synth_write(&o, NULL));
    written = logits_of(out, NULL, &n);
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    o.out = NULL;
    made = logits_of(NULL, &o, &n_made);
    assert_int_equal(n, n_made);
    if (memcmp(written, made, (size_t)n * sizeof *made) != 0) {
        rig_fail("%s %s: other logits", family, dtype);
    }
    assert_true(written[0] == written[0] && written[0] != written[1]);
    free(written);
    free(made);
}

/* One tensor for each expert, fused, input-major, quantised: every way into memory. */
static void a_made_model_is_the_written_one(void **state)
{
    static const char *const tiny[] = {"num_hidden_layers=2", "hidden_size=128",
                                       "moe_intermediate_size=128"};
    static const char *const plain[] = {"num_hidden_layers=2"};
    static const char *const dbrx[] = {"n_layers=2"};
    (void)state;
    check_same("qwen3_moe", "bf16", tiny, 3);
    check_same("qwen3_moe", "f32", tiny, 3);
    check_same("deepseek_v3", "fp8", plain, 1);
    check_same("gpt_oss", "mxfp4", plain, 1);
    check_same("gpt_oss", "bf16", plain, 1);
    check_same("dbrx", "bf16", dbrx, 1);
}

static void what_cannot_be_made_is_named(void **state)
{
    static const char *const huge[] = {"hidden_size=1000000000"};
    struct model_options o = {.device = device_name(), .kv_type = -1};
    struct synth_options synth = {.family = "gpt5"};
    struct model *m;
    (void)state;
    o.synthetic = &synth;
    expect_error(model_open(&m, NULL, &o), PM_ERR_UNSUPPORTED, "gpt5");
    synth.family = "qwen3_moe";
    synth.dtype = "int3";
    expect_error(model_open(&m, NULL, &o), PM_ERR_ARG, "int3");
    synth = (struct synth_options){.family = "qwen3_moe", .set = huge, .n_set = 1};
    expect_error(model_open(&m, NULL, &o), PM_ERR_FORMAT, "hidden_size: found 1000000000");
}

static void a_made_model_is_measured(void **state)
{
    const char *text[] = {"model",
                          "--device",
                          device_name(),
                          "--synthetic",
                          "qwen3_moe",
                          "--set",
                          "num_hidden_layers=1",
                          "--set",
                          "hidden_size=128",
                          "-p",
                          "4",
                          "-n",
                          "2",
                          "-r",
                          "1",
                          "-t",
                          "1",
                          "-o",
                          "json"};
    static const char *const neither[] = {"model"};
    static const char *const both[] = {"model", "folder", "--synthetic", "qwen3_moe"};
    struct json_doc *doc;
    const json *row;
    (void)state;
    bench_run_json(&doc, bench_model, text, (int)(sizeof text / sizeof *text));
    row = json_child(json_root(doc));
    assert_string_equal(json_text(json_get(row, "model")), "synthetic qwen3_moe");
    assert_true(json_number(json_get(row, "tokens_per_second")) > 0);
    assert_int_equal(json_size(json_root(doc)), 2);
    json_free(doc);
    assert_int_equal(bench_run(bench_model, neither, 1), EXIT_USAGE);
    assert_int_equal(bench_run(bench_model, both, 4), EXIT_USAGE);
    assert_non_null(strstr(pm_last_error(), "wanted a MODEL folder or --synthetic"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_made_model_is_the_written_one),
        cmocka_unit_test(what_cannot_be_made_is_named),
        cmocka_unit_test(a_made_model_is_measured),
    };
    const struct kernels *k;
    int index;
    if (kernels_select(&k, &index, device_name()) != PM_OK) return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
