/* synth_test.c - random checkpoints: the loader accepts those of every family, they look like
 * released ones, the seed decides every byte, and what cannot be written is refused.
 *
 * Every test works in a folder of its own, which setup makes and teardown removes. */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "moe/families.h"
#include "moe/synth.h"
#include "moe/synth_config.h"
#include "moe/synth_tensors.h"
#include "moe/synth_values.h"
#include "moe/weights.h"

#include <cmocka.h> /* last: its macro fail() hides the function */

enum { PATH_BYTES = 512, MAX_SET = 8 };

static int make_folder(void **state)
{
    char *folder = strdup("/tmp/synth_test_XXXXXX");
    *state = folder;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int remove_folder(void **state)
{
    remove_tree(*state);
    free(*state);
    return 0;
}

/* Where `name` lies in the test's folder; valid until the next call but three. */
static const char *in(void **state, const char *name)
{
    static char path[4][PATH_BYTES];
    static unsigned next;
    char *out = path[next++ % 4];
    snprintf(out, PATH_BYTES, "%s/%s", (char *)*state, name);
    return out;
}

static void assert_said(const char *part)
{
    if (!strstr(pm_last_error(), part)) fail_msg("no \"%s\" in: %s", part, pm_last_error());
    if (strchr(pm_last_error(), '\n')) fail_msg("more than a line: %s", pm_last_error());
}

static void assert_ok(pm_status status, const char *what)
{
    if (status != PM_OK) fail_msg("%s: %s", what, pm_last_error());
}

#define assert_fails(call, status, part)                                                       \
    do {                                                                                       \
        assert_int_equal(call, status);                                                        \
        assert_said(part);                                                                     \
    } while (0)

static size_t set_count(const char *const *set)
{
    size_t n = 0;
    while (set[n]) {
        n++;
    }
    return n;
}

/* Options with a NULL-terminated list of settings. */
static struct synth_options options(const char *family, const char *out, const char *const *set)
{
    return (struct synth_options){
        .family = family, .out = out, .set = set, .n_set = (int)set_count(set)};
}

#define SET(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_SET   ((const char *const[]){NULL})
#define TINY                                                                                   \
    SET("hidden_size=64", "num_hidden_layers=2", "moe_intermediate_size=32", "vocab_size=300")

/* The checkpoint in `folder` is one that the loader accepts. */
static void assert_opens(const char *folder, const char *model_type)
{
    struct device *device;
    struct config *c;
    struct weights w;
    assert_ok(cpu_kernels.open(&device, 0, 1), "cpu");
    assert_ok(config_load(&c, folder), model_type);
    assert_string_equal(c->model_type, model_type);
    assert_ok(weights_open(&w, c, folder, &cpu_kernels, device, false), model_type);
    weights_close(&w);
    config_free(c);
    cpu_kernels.close(device);
}

static char *read_file(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    char *text;
    long size;
    if (!file) fail_msg("%s: %s", path, strerror(errno));
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size = ftell(file);
    rewind(file);
    text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    text[size] = 0;
    fclose(file);
    *n = (size_t)size;
    return text;
}

static bool same_files(const char *a, const char *b)
{
    size_t n_a, n_b;
    char *text_a = read_file(a, &n_a), *text_b = read_file(b, &n_b);
    bool same = n_a == n_b && memcmp(text_a, text_b, n_a) == 0;
    free(text_a);
    free(text_b);
    return same;
}

static const struct stored *need(const struct safetensors *st, const char *name)
{
    const struct stored *s = safetensors_find(st, name);
    if (!s) fail_msg("no tensor %s", name);
    return s;
}

static void the_loader_accepts_every_family(void **state)
{
    for (int f = 0; families[f]; f++) {
        for (const char *const *name = families[f]->model_type; *name; name++) {
            struct synth_options o = options(*name, in(state, *name), NO_SET);
            assert_ok(synth_write(&o, NULL), *name);
            assert_opens(o.out, *name);
            remove_tree(o.out);
        }
    }
}

static void the_loader_accepts_every_dtype(void **state)
{
    static const char *const dtype[] = {"f32", "f16", "fp8", "mxfp4"};
    static const char *const family[] = {"qwen3_moe", "qwen3_moe", "deepseek_v3", "gpt_oss"};
    static const char *const torch[] = {"float32", "float16", "bfloat16", "bfloat16"};
    for (int i = 0; i < 4; i++) {
        struct synth_options o = options(family[i], in(state, dtype[i]), NO_SET);
        struct config *c;
        o.dtype = dtype[i];
        assert_ok(synth_write(&o, NULL), dtype[i]);
        assert_opens(o.out, family[i]);
        assert_ok(config_load(&c, o.out), dtype[i]);
        assert_string_equal(c->dtype, torch[i]);
        config_free(c);
    }
}

/* The walk asks for what a golden checkpoint, written by the reference, has. */
struct layout {
    const struct safetensors *st;
    const char *folder;
    int n;
};

static pm_status compare_layout(void *arg, const struct synth_tensor *t)
{
    struct layout *l = arg;
    const struct stored *s = safetensors_find(l->st, t->name);
    if (!s) fail_msg("%s: no tensor %s", l->folder, t->name);
    if (s->type != (t->type == PM_MXFP4 ? PM_U8 : t->type) || s->n_dim != t->n_dim ||
        memcmp(s->dim, t->dim, (size_t)t->n_dim * sizeof *t->dim) != 0) {
        fail_msg("%s: tensor %s has another type or shape", l->folder, t->name);
    }
    l->n++;
    return PM_OK;
}

static void the_layout_is_that_of_released_checkpoints(void **state)
{
    static const char *const golden[] = {
        "dbrx",
        "deepseek_v2",
        "deepseek_v2_lite",
        "deepseek_v3",
        "dots1",
        "deepseek_v3_fp8",
        "ernie4_5_moe",
        "glm4_moe",
        "glm4_moe_air",
        "gpt_oss",
        "gpt_oss_mxfp4",
        "granitemoe",
        "kimi_k2",
        "granitemoeshared",
        "hunyuan_v1_moe",
        "llama4",
        "llama_plain",
        "llama4_text",
        "minimax_m2",
        "mixtral",
        "phimoe",
        "olmoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "qwen3_moe_f16",
        "qwen3_moe_fp8",
        "qwen3_moe_mixed",
    };
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        char folder[PATH_BYTES];
        struct safetensors *st;
        struct config *c;
        struct layout l;
        snprintf(folder, sizeof folder, "%s/tests/golden/%s", PM_SOURCE_DIR, golden[i]);
        if (access(folder, R_OK) != 0) skip();
        assert_ok(config_load(&c, folder), golden[i]);
        assert_ok(safetensors_open(&st, folder), golden[i]);
        l = (struct layout){st, golden[i], 0};
        assert_ok(synth_walk(c,
                             strcmp(c->dtype, "float32") == 0   ? PM_F32
                             : strcmp(c->dtype, "float16") == 0 ? PM_F16
                                                                : PM_BF16,
                             strcmp(c->model_type, "llama4") == 0 ? "language_model." : "",
                             compare_layout, &l),
                  golden[i]);
        assert_true(l.n > 10);
        safetensors_close(st);
        config_free(c);
    }
}

static pm_status count_parameters(void *arg, const struct synth_tensor *t)
{
    int64_t *sum = arg, n = 1;
    for (int i = 0; i < t->n_dim; i++) {
        n *= t->dim[i];
    }
    *sum += n;
    return PM_OK;
}

/* The counts that the released checkpoints have. */
static void presets_have_the_parameters_of_the_released_models(void **state)
{
    static const struct {
        const char *name;
        int64_t parameters;
    } model[] = {
        {"qwen3-30b-a3b", 30532122624},    {"olmoe-1b-7b", 6919161856},
        {"mixtral-8x7b", 46702792704},     {"gpt-oss-20b", 20914757184},
        {"deepseek-v2-lite", 15706484224}, {"qwen1.5-moe-a2.7b", 14315784192},
    };
    (void)state;
    for (size_t i = 0; i < sizeof model / sizeof *model; i++) {
        struct synth_options o = options(model[i].name, "-", NO_SET);
        const struct synth_dtype *dtype;
        struct json_out text = {0};
        struct config *c;
        int64_t n = 0;
        assert_ok(synth_find_dtype(&dtype, NULL), "dtype");
        assert_ok(synth_config(&text, &o, dtype), model[i].name);
        assert_ok(config_parse(&c, model[i].name, text.text, text.n), model[i].name);
        assert_ok(synth_walk(c, PM_BF16, "", count_parameters, &n), model[i].name);
        if (n != model[i].parameters) {
            fail_msg("%s: found %lld parameters, wanted %lld", model[i].name, (long long)n,
                     (long long)model[i].parameters);
        }
        config_free(c);
        free(text.text);
    }
}

static void the_seed_decides_every_byte(void **state)
{
    struct synth_options o = options("qwen3_moe", in(state, "a"), TINY);
    o.seed = 7;
    assert_ok(synth_write(&o, NULL), "first");
    o.out = in(state, "b");
    assert_ok(synth_write(&o, NULL), "second");
    o.out = in(state, "c");
    o.seed = 8;
    assert_ok(synth_write(&o, NULL), "other seed");
    assert_true(same_files(in(state, "a/model.safetensors"), in(state, "b/model.safetensors")));
    assert_true(same_files(in(state, "a/config.json"), in(state, "b/config.json")));
    assert_true(same_files(in(state, "a/tokenizer.json"), in(state, "b/tokenizer.json")));
    assert_false(
        same_files(in(state, "a/model.safetensors"), in(state, "c/model.safetensors")));
    assert_true(same_files(in(state, "a/config.json"), in(state, "c/config.json")));
}

static void assert_same_tensors(const char *a, const char *b)
{
    struct safetensors *st_a, *st_b;
    assert_ok(safetensors_open(&st_a, a), a);
    assert_ok(safetensors_open(&st_b, b), b);
    assert_int_equal(safetensors_count(st_a), safetensors_count(st_b));
    for (int64_t i = 0; i < safetensors_count(st_a); i++) {
        const struct stored *s = safetensors_at(st_a, i), *t = need(st_b, s->name);
        assert_int_equal(s->type, t->type);
        assert_int_equal(s->bytes, t->bytes);
        assert_memory_equal(s->data, t->data, s->bytes);
    }
    safetensors_close(st_a);
    safetensors_close(st_b);
}

static void shards_hold_the_same_tensors(void **state)
{
    enum { MOST = 30000 }; /* less than the embedding, more than an expert's matrix */
    struct synth_options o = options("qwen3_moe", in(state, "whole"), TINY);
    struct json_doc *index;
    struct safetensors *st;
    uint64_t total, in_shard[64] = {0};
    int64_t stated, largest = 0;
    int n_in_shard[64] = {0};
    assert_ok(synth_write(&o, NULL), "whole");
    o.out = in(state, "parts");
    o.shard_bytes = MOST;
    assert_ok(synth_write(&o, &total), "parts");
    assert_same_tensors(in(state, "whole"), in(state, "parts"));
    assert_opens(o.out, "qwen3_moe");
    assert_ok(safetensors_open(&st, o.out), "parts");
    for (int64_t i = 0; i < safetensors_count(st); i++) {
        const struct stored *s = safetensors_at(st, i);
        assert_in_range(s->file, 0, 63);
        in_shard[s->file] += s->bytes;
        n_in_shard[s->file]++;
        largest = max_i64(largest, s->file);
    }
    for (int i = 0; i <= largest; i++) {
        assert_true(in_shard[i] <= MOST || n_in_shard[i] == 1);
    }
    assert_in_range(largest, 4, 63);
    assert_ok(json_load(&index, in(state, "parts/model.safetensors.index.json"), 1 << 20),
              "index");
    assert_true(
        json_integer(json_get(json_get(json_root(index), "metadata"), "total_size"), &stated));
    assert_int_equal(stated, total);
    json_free(index);
    safetensors_close(st);
}

/* The configuration that `set` gives; the caller frees it. */
static struct config *configure(const char *family, const char *const *set,
                                struct json_out *text)
{
    struct synth_options o = options(family, "-", set);
    const struct synth_dtype *dtype;
    struct config *c;
    *text = (struct json_out){0};
    assert_ok(synth_find_dtype(&dtype, "f32"), "dtype");
    assert_ok(synth_config(text, &o, dtype), family);
    assert_ok(config_parse(&c, family, text->text, text->n), family);
    return c;
}

static void settings_override_and_add(void **state)
{
    struct json_out text;
    struct config *c =
        configure("mixtral",
                  SET("num_hidden_layers=2", "num_hidden_layers=3", "tie_word_embeddings=true",
                      "my.own.key=a = b", "rope_theta=12345.5", "list=[1, 2.5, {}]"),
                  &text);
    (void)state;
    assert_int_equal(c->n_layer, 3);
    assert_true(c->tied);
    assert_true(c->rope.theta == 12345.5f);
    assert_non_null(
        strstr(text.text, "\n  \"my\": {\n    \"own\": {\n      \"key\": \"a = b\"\n"));
    assert_non_null(strstr(text.text, "\n  \"list\": [\n    1,\n    2.5,\n    {}\n  ]"));
    assert_non_null(strstr(text.text, "\n  \"attention_dropout\": 0.0,\n"));
    assert_non_null(strstr(text.text, "\n  \"torch_dtype\": \"float32\",\n"));
    config_free(c);
    free(text.text);
}

static void settings_reach_nested_objects(void **state)
{
    struct json_out text;
    struct config *c = configure("dbrx", SET("ffn_config.moe_top_k=3", "d_model=512"), &text);
    (void)state;
    assert_int_equal(c->gate.top_k, 3);
    assert_int_equal(c->gate.n_expert, 8);
    assert_int_equal(c->hidden, 512);
    config_free(c);
    free(text.text);
    c = configure("llama4", SET("num_hidden_layers=5", "text_config.head_dim=32"), &text);
    assert_int_equal(c->n_layer, 5);
    assert_int_equal(c->head_dim, 32);
    assert_int_equal(c->eos[0], SYNTH_END);
    assert_string_equal(c->dtype, "float32");
    config_free(c);
    free(text.text);
}

static void tied_embeddings_have_no_head(void **state)
{
    struct synth_options o = options("olmoe", in(state, "a"),
                                     SET("tie_word_embeddings=true", "num_hidden_layers=1"));
    struct safetensors *st;
    assert_ok(synth_write(&o, NULL), "olmoe");
    assert_ok(safetensors_open(&st, o.out), "olmoe");
    assert_null(safetensors_find(st, "lm_head.weight"));
    safetensors_close(st);
    assert_opens(o.out, "olmoe");
}

static void wrong_options_are_named(void **state)
{
    const char *out = in(state, "none");
    struct synth_options o = options("mixtra", out, NO_SET);
    assert_fails(synth_write(&o, NULL), PM_ERR_UNSUPPORTED, "\"mixtra\"");
    for (int f = 0; families[f]; f++) {
        assert_said(families[f]->model_type[0]);
    }
    assert_said("qwen3-30b-a3b");
    o.family = "*common";
    assert_fails(synth_write(&o, NULL), PM_ERR_UNSUPPORTED, "mixtral");
    o = options("mixtral", out, SET("num_hidden_layers=many"));
    assert_fails(synth_write(&o, NULL), PM_ERR_FORMAT, "num_hidden_layers: found \"many\"");
    o = options("dbrx", out, SET("ffn_config.moe_top_k=0"));
    assert_fails(synth_write(&o, NULL), PM_ERR_FORMAT, "ffn_config.moe_top_k: found 0");
    o = options("mixtral", out, SET("hidden_size"));
    assert_fails(synth_write(&o, NULL), PM_ERR_ARG, "\"hidden_size\": wanted key=value");
    o = options("mixtral", out, SET("=3"));
    assert_fails(synth_write(&o, NULL), PM_ERR_ARG, "wanted key=value");
    o = options("mixtral", out, SET("a..b=3"));
    assert_fails(synth_write(&o, NULL), PM_ERR_ARG, "a..b");
    o = options("mixtral", out, SET("model_type=none"));
    assert_fails(synth_write(&o, NULL), PM_ERR_UNSUPPORTED, "\"none\"");
    assert_int_equal(access(out, F_OK), -1);
}

static void wrong_dtypes_are_named(void **state)
{
    struct synth_options o = options("mixtral", in(state, "none"), NO_SET);
    o.dtype = "int8";
    assert_fails(synth_write(&o, NULL), PM_ERR_ARG, "\"int8\"");
    o.dtype = "mxfp4";
    assert_fails(synth_write(&o, NULL), PM_ERR_UNSUPPORTED, "gpt_oss");
    o.family = "granitemoe";
    o.dtype = "fp8";
    assert_fails(synth_write(&o, NULL), PM_ERR_UNSUPPORTED, "granitemoe");
    o = options("gpt_oss", o.out, SET("hidden_size=100"));
    o.dtype = "mxfp4";
    assert_fails(synth_write(&o, NULL), PM_ERR_ARG, "multiple of 32");
    assert_int_equal(access(o.out, F_OK), -1);
}

static void a_size_beyond_64_bits_is_refused(void **state)
{
    struct synth_options o = options("granitemoe", in(state, "none"),
                                     SET("hidden_size=16777216", "intermediate_size=16777216",
                                         "num_hidden_layers=4096", "num_local_experts=4096",
                                         "num_attention_heads=1", "num_key_value_heads=1"));
    o.dtype = "f32";
    assert_fails(synth_write(&o, NULL), PM_ERR_ARG, "does not fit");
}

static void only_a_new_or_empty_folder_is_written(void **state)
{
    struct synth_options o = options("mixtral", in(state, "a/b"), SET("num_hidden_layers=1"));
    FILE *file;
    assert_fails(synth_write(&o, NULL), PM_ERR_IO, "a/b");
    assert_int_equal(mkdir(in(state, "a"), 0777), 0);
    o.out = in(state, "a");
    assert_ok(synth_write(&o, NULL), "empty folder");
    assert_fails(synth_write(&o, NULL), PM_ERR_ARG, "not empty");
    assert_opens(o.out, "mixtral");
    o.out = in(state, "file");
    file = fopen(o.out, "w");
    assert_non_null(file);
    fclose(file);
    assert_fails(synth_write(&o, NULL), PM_ERR_ARG, "wanted a folder");
}

/* RLIMIT_FSIZE stands for a full disk. */
static void a_full_disk_leaves_nothing(void **state)
{
    struct synth_options o = options("mixtral", in(state, "a"), NO_SET);
    struct rlimit old, small;
    pm_status status;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 1 << 20;
    signal(SIGXFSZ, SIG_IGN);
    o.shard_bytes = 600000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    status = synth_write(&o, NULL);
    assert_ok(status, "shards below the limit");
    o.shard_bytes = 0;
    o.out = in(state, "b");
    status = synth_write(&o, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, PM_ERR_IO);
    assert_said("model.safetensors");
    assert_int_equal(access(o.out, F_OK), -1);
}

struct seen {
    uint64_t done, total;
    int n;
};

static void see(void *arg, uint64_t done, uint64_t total)
{
    struct seen *seen = arg;
    assert_true(done > seen->done);
    assert_true(seen->n == 0 || total == seen->total);
    *seen = (struct seen){done, total, seen->n + 1};
}

static void progress_ends_at_the_total(void **state)
{
    struct seen seen = {0};
    struct synth_options o = options("mixtral", in(state, "a"), SET("vocab_size=20000"));
    uint64_t bytes;
    o.progress = see;
    o.arg = &seen;
    assert_ok(synth_write(&o, &bytes), "mixtral");
    assert_true(seen.n > 10);
    assert_int_equal(seen.done, bytes);
    assert_int_equal(seen.total, bytes);
}

/* Value i of any stored type but MXFP4. */
static double value_of(const struct stored *s, int64_t i)
{
    switch (s->type) {
    case PM_F32: return ((const float *)s->data)[i];
    case PM_F16: return f16_to_f32(((const uint16_t *)s->data)[i]);
    case PM_BF16: return bf16_to_f32(((const uint16_t *)s->data)[i]);
    case PM_F8_E4M3: return e4m3_to_f32(((const uint8_t *)s->data)[i]);
    default: return ((const uint8_t *)s->data)[i];
    }
}

static void assert_moments(const double *x, int64_t n, double mean, double std)
{
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        square += (x[i] - mean) * (x[i] - mean);
    }
    /* Five deviations of the estimates, and what rounding to 4 bits does to the spread. */
    if (fabs(sum / (double)n - mean) > 5 * std / sqrt((double)n)) {
        fail_msg("mean %g, wanted %g", sum / (double)n, mean);
    }
    if (fabs(sqrt(square / (double)n) / std - 1) > 0.1) {
        fail_msg("deviation %g, wanted %g", sqrt(square / (double)n), std);
    }
}

/* Checks a stored matrix, scaled where it is FP8. */
static void assert_normal(const struct safetensors *st, const char *name, double mean,
                          double std)
{
    const struct stored *s = need(st, name);
    int64_t cols = s->n_dim == 2 ? s->dim[1] : s->dim[0];
    int64_t n = s->n_dim == 2 ? s->dim[0] * cols : cols;
    double *x = malloc((size_t)n * sizeof *x);
    char scale_name[PATH_BYTES];
    assert_non_null(x);
    snprintf(scale_name, sizeof scale_name, "%s_scale_inv", name);
    for (int64_t i = 0; i < n; i++) {
        x[i] = value_of(s, i);
        if (s->type == PM_F8_E4M3) {
            const struct stored *scale = need(st, scale_name);
            x[i] *= value_of(scale, i / cols / 128 * scale->dim[1] + i % cols / 128);
        }
    }
    assert_moments(x, n, mean, std);
    free(x);
}

static void values_are_normal_in_every_type(void **state)
{
    static const char *const dtype[] = {"bf16", "f32", "f16", "fp8"};
    for (int i = 0; i < 4; i++) {
        struct synth_options o =
            options("qwen3_moe", in(state, dtype[i]),
                    SET("num_hidden_layers=1", "hidden_size=400", "moe_intermediate_size=200"));
        struct safetensors *st;
        o.dtype = dtype[i];
        assert_ok(synth_write(&o, NULL), dtype[i]);
        assert_ok(safetensors_open(&st, o.out), dtype[i]);
        assert_normal(st, "model.embed_tokens.weight", 0, 1);
        assert_normal(st, "lm_head.weight", 0, 0.05);
        assert_normal(st, "model.layers.0.mlp.gate.weight", 0, 0.05);
        assert_normal(st, "model.layers.0.self_attn.q_proj.weight", 0, 0.05);
        assert_normal(st, "model.layers.0.mlp.experts.7.up_proj.weight", 0, 0.05);
        assert_normal(st, "model.layers.0.mlp.experts.7.down_proj.weight", 0, 1 / sqrt(400));
        assert_normal(st, "model.norm.weight", 1, 0.1);
        safetensors_close(st);
    }
}

static void mxfp4_values_are_normal(void **state)
{
    static const double magnitude[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    struct synth_options o =
        options("gpt_oss", in(state, "a"), SET("num_hidden_layers=1", "hidden_size=416"));
    const struct stored *block, *scale;
    struct safetensors *st;
    double *x;
    int64_t n;
    o.dtype = "mxfp4";
    assert_ok(synth_write(&o, NULL), "gpt_oss");
    assert_ok(safetensors_open(&st, o.out), "gpt_oss");
    block = need(st, "model.layers.0.mlp.experts.gate_up_proj_blocks");
    scale = need(st, "model.layers.0.mlp.experts.gate_up_proj_scales");
    n = (int64_t)block->bytes * 2;
    x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        int code = (int)value_of(block, i / 2) >> (i % 2 ? 4 : 0) & 15;
        double exponent = value_of(scale, i / 32) - 127;
        x[i] = ldexp(code & 8 ? -magnitude[code & 7] : magnitude[code & 7], (int)exponent);
    }
    assert_moments(x, n, 0, 1 / sqrt(416));
    free(x);
    safetensors_close(st);
}

static void values_depend_on_their_index_alone(void **state)
{
    enum { N = 1001, TIMES = 200 };
    static const pm_dtype type[] = {PM_F32, PM_BF16, PM_F8_E4M3};
    static uint8_t whole[4 * N], piece[4 * N];
    struct synth_values v, other;
    (void)state;
    srand(1);
    for (size_t t = 0; t < sizeof type / sizeof *type; t++) {
        size_t size = (size_t)dtype_bits(type[t]) / 8;
        synth_values_init(&v, 3, "a.weight", type[t], 0, 1);
        synth_values_fill(&v, whole, 0, N);
        for (int i = 0; i < TIMES; i++) {
            int first = rand() % (N / 2) * 2, n = 1 + rand() % (N - first);
            synth_values_fill(&v, piece, first, n);
            assert_memory_equal(piece, whole + (size_t)first * size, (size_t)n * size);
        }
        synth_values_init(&other, 3, "b.weight", type[t], 0, 1);
        synth_values_fill(&other, piece, 0, N);
        assert_memory_not_equal(piece, whole, (size_t)N * size);
    }
    /* Pinned: a checkpoint named by its seed must stay what it is. */
    synth_values_init(&v, 3, "a.weight", PM_BF16, 0, 1);
    synth_values_fill(&v, whole, 0, 4);
    assert_memory_equal(whole, ((const uint16_t[]){0xbf5f, 0xbf13, 0xbf1e, 0x3fc5}), 8);
}

static void the_tokenizer_knows_every_byte(void **state)
{
    struct synth_options o = options("mixtral", in(state, "a"), SET("num_hidden_layers=1"));
    struct json_doc *doc;
    const json *vocab, *added;
    int64_t id;
    bool seen[256] = {0};
    assert_ok(synth_write(&o, NULL), "mixtral");
    assert_ok(json_load(&doc, in(state, "a/tokenizer.json"), 1 << 20), "tokenizer");
    vocab = json_get(json_get(json_root(doc), "model"), "vocab");
    assert_int_equal(json_size(vocab), 256);
    for (const json *v = json_child(vocab); v; v = json_next(v)) {
        assert_true(json_integer(v, &id));
        assert_in_range(id, 0, 255);
        assert_false(seen[id]);
        seen[id] = true;
    }
    assert_true(json_integer(json_get(vocab, "A"), &id) && id == 'A');
    assert_true(json_integer(json_get(vocab, "\xc4\xa0"), &id) && id == ' ');
    assert_true(json_integer(json_get(vocab, "\xc4\x80"), &id) && id == 0);
    assert_true(json_integer(json_get(vocab, "\xc3\xbf"), &id) && id == 0xff);
    assert_true(json_integer(json_get(vocab, "\xc5\x83"), &id) && id == 0xad);
    added = json_child(json_get(json_root(doc), "added_tokens"));
    assert_string_equal(json_text(json_get(added, "content")), "<|endoftext|>");
    assert_true(json_integer(json_get(added, "id"), &id) && id == SYNTH_END);
    json_free(doc);
}

static void a_small_vocabulary_has_no_tokenizer(void **state)
{
    struct synth_options o =
        options("mixtral", in(state, "a"), SET("num_hidden_layers=1", "vocab_size=256"));
    struct config *c;
    assert_ok(synth_write(&o, NULL), "256");
    assert_int_equal(access(in(state, "a/tokenizer.json"), F_OK), -1);
    assert_ok(config_load(&c, o.out), "256");
    assert_int_equal(c->n_eos, 0);
    config_free(c);
    o = options("mixtral", in(state, "b"), SET("num_hidden_layers=1", "eos_token_id=[5, 6]"));
    assert_ok(synth_write(&o, NULL), "two end tokens");
    assert_ok(config_load(&c, o.out), "two end tokens");
    assert_int_equal(c->n_eos, 2);
    assert_int_equal(c->eos[1], 6);
    config_free(c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_loader_accepts_every_family),
        TEST(the_loader_accepts_every_dtype),
        TEST(the_layout_is_that_of_released_checkpoints),
        TEST(presets_have_the_parameters_of_the_released_models),
        TEST(the_seed_decides_every_byte),
        TEST(shards_hold_the_same_tensors),
        TEST(settings_override_and_add),
        TEST(settings_reach_nested_objects),
        TEST(tied_embeddings_have_no_head),
        TEST(wrong_options_are_named),
        TEST(wrong_dtypes_are_named),
        TEST(a_size_beyond_64_bits_is_refused),
        TEST(only_a_new_or_empty_folder_is_written),
        TEST(a_full_disk_leaves_nothing),
        TEST(progress_ends_at_the_total),
        TEST(values_are_normal_in_every_type),
        TEST(mxfp4_values_are_normal),
        TEST(values_depend_on_their_index_alone),
        TEST(the_tokenizer_knows_every_byte),
        TEST(a_small_vocabulary_has_no_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
