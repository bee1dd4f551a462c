/* rope_frequency_test.c - RoPE settings in both dialects, and the frequencies they stand for.
 *
 * Frequencies are computed a second time here, in double, step by step as transformers
 * modeling_rope_utils.py does, from numbers that stand in the test beside the JSON. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/moe/variant.h"

/* The same settings in both dialects. */
static void both_dialects_of_rope_read_alike(void **state)
{
    static const char *const settings[] = {
        "\"type\":\"linear\",\"factor\":4",
        "\"type\":\"dynamic\",\"factor\":2",
        "\"type\":\"dynamic\",\"alpha\":1000",
        "\"rope_type\":\"yarn\",\"factor\":32,\"beta_fast\":16,\"beta_slow\":2,"
        "\"original_max_position_embeddings\":4096,\"truncate\":false",
        "\"type\":\"yarn\",\"factor\":40,\"mscale\":0.707,\"mscale_all_dim\":0.5,"
        "\"attention_factor\":1.5,\"original_max_position_embeddings\":64",
        "\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":2,\"high_freq_factor\":5,"
        "\"original_max_position_embeddings\":64",
        "\"type\":\"longrope\",\"short_factor\":[1,2,3],\"long_factor\":[4,5,6],"
        "\"short_mscale\":1.1,\"long_mscale\":1.2,\"original_max_position_embeddings\":64",
        "\"rope_type\":\"default\"",
    };
    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char text[VARIANT_BYTES], value[512];
        struct config *old, *new;
        struct rope a, b;
        variant_text(text, "llama_plain");
        variant_change(text, "partial_rotary_factor", "0.5");
        variant_change(text, "rope_theta", "12345");
        snprintf(value, sizeof value, "{%s}", settings[i]);
        variant_change(text, "rope_scaling", value);
        old = variant_parse(text);
        variant_text(text, "llama_plain");
        variant_change(text, "rope_theta", NULL);
        variant_change(text, "rope_scaling", NULL);
        snprintf(value, sizeof value, "{%s,\"rope_theta\":12345,\"partial_rotary_factor\":0.5}",
                 settings[i]);
        variant_change(text, "rope_parameters", value);
        new = variant_parse(text);
        a = old->rope;
        b = new->rope;
        if (a.short_factor) {
            assert_memory_equal(a.short_factor, b.short_factor, 3 * sizeof(float));
            assert_memory_equal(a.long_factor, b.long_factor, 3 * sizeof(float));
        }
        a.short_factor = a.long_factor = b.short_factor = b.long_factor = NULL;
        assert_memory_equal(&a, &b, sizeof a);
        assert_true(a.theta == 12345 && a.dim == 6);
        config_free(old);
        config_free(new);
    }
}

/* Settings with the values that the reference would read from them. */
struct waves {
    const char *rope; /* members of rope_parameters */
    int dim, max_position, context;
    double theta;
    enum rope_kind kind;
    double factor, original, beta_fast, beta_slow, low, high, alpha;
    bool truncate;
    double scale; /* the factor on cos and sin */
};

static const struct waves waves[] = {
    {"\"rope_type\":\"default\",\"rope_theta\":10000", 128, 4096, 4096, 1e4, .scale = 1},
    {"\"rope_type\":\"default\",\"rope_theta\":500000,\"partial_rotary_factor\":0.25", 32, 4096,
     4096, 5e5, .scale = 1},
    {"\"rope_type\":\"linear\",\"rope_theta\":10000,\"factor\":4", 128, 4096, 9000, 1e4,
     ROPE_LINEAR, .factor = 4, .scale = 1},
    /* gpt-oss */
    {"\"rope_type\":\"yarn\",\"rope_theta\":150000,\"factor\":32,\"beta_fast\":32,\"beta_"
     "slow\":1,"
     "\"original_max_position_embeddings\":4096,\"truncate\":false,\"partial_rotary_factor\":0."
     "5",
     64, 131072, 4096, 150000, ROPE_YARN, 32, 4096, 32, 1, .scale = 1.3465735902799727},
    /* DeepSeek-V3, V2-Lite, Kimi-K2 */
    {"\"type\":\"yarn\",\"rope_theta\":10000,\"factor\":40,\"beta_fast\":32,\"beta_slow\":1,"
     "\"original_max_position_embeddings\":4096,\"mscale\":1,\"mscale_all_dim\":1",
     128, 163840, 4096, 10000, ROPE_YARN, 40, 4096, 32, 1, .truncate = true, .scale = 1},
    {"\"type\":\"yarn\",\"rope_theta\":10000,\"factor\":40,\"mscale\":0.707,\"mscale_all_dim\":"
     "1,"
     "\"original_max_position_embeddings\":4096",
     128, 163840, 4096, 10000, ROPE_YARN, 40, 4096, 32, 1, .truncate = true,
     .scale = (0.1 * 0.707 * 3.6888794541139363 + 1) / (0.1 * 3.6888794541139363 + 1)},
    {"\"type\":\"yarn\",\"rope_theta\":50000,\"factor\":32,\"beta_fast\":1,\"beta_slow\":1,"
     "\"original_max_position_embeddings\":4096,\"attention_factor\":1.25",
     128, 131072, 4096, 50000, ROPE_YARN, 32, 4096, 1, 1, .truncate = true, .scale = 1.25},
    /* Both ends of the ramp at one place; a factor from the two lengths. */
    {"\"type\":\"yarn\",\"rope_theta\":50000,\"beta_fast\":2,\"beta_slow\":2,\"truncate\":"
     "false,"
     "\"original_max_position_embeddings\":1024",
     128, 8192, 4096, 50000, ROPE_YARN, 8, 1024, 2, 2, .scale = 1.2079441541679836},
    /* The ramp begins before the first pair and ends behind the last. */
    {"\"type\":\"yarn\",\"rope_theta\":100,\"factor\":0.5,\"beta_fast\":64,\"beta_slow\":0.001,"
     "\"original_max_position_embeddings\":128",
     128, 128, 128, 100, ROPE_YARN, 0.5, 128, 64, 0.001, .truncate = true, .scale = 1},
    {"\"rope_type\":\"llama3\",\"rope_theta\":500000,\"factor\":8,\"low_freq_factor\":1,"
     "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192",
     128, 131072, 4096, 500000, ROPE_LLAMA3, 8, 8192, .low = 1, .high = 4, .scale = 1},
    {"\"rope_type\":\"llama3\",\"rope_theta\":10000,\"factor\":32,\"low_freq_factor\":2,"
     "\"high_freq_factor\":16,\"original_max_position_embeddings\":512",
     128, 131072, 4096, 10000, ROPE_LLAMA3, 32, 512, .low = 2, .high = 16, .scale = 1},
    {"\"type\":\"dynamic\",\"rope_theta\":10000,\"factor\":2", 128, 4096, 4096, 1e4,
     ROPE_DYNAMIC, .factor = 2, .scale = 1},
    {"\"type\":\"dynamic\",\"rope_theta\":10000,\"factor\":2", 128, 4096, 9001, 1e4,
     ROPE_DYNAMIC, .factor = 2, .scale = 1},
    {"\"type\":\"dynamic\",\"rope_theta\":10000,\"factor\":1,\"alpha\":1000", 128, 4096, 9001,
     1e4, ROPE_NTK_ALPHA, .alpha = 1000, .scale = 1},
};

/* 1 / base^(2 i / dim) and its stretched forms, in the order of the reference. */
static double wave(const struct waves *w, int i)
{
    double dim = w->dim, base = w->theta, f;
    if (w->kind == ROPE_DYNAMIC) {
        double length = fmax(w->context, w->max_position);
        base *= pow(w->factor * length / w->max_position - (w->factor - 1), dim / (dim - 2));
    }
    if (w->kind == ROPE_NTK_ALPHA) base *= pow(w->alpha, dim / (dim - 2));
    f = 1 / pow(base, 2 * i / dim);
    if (w->kind == ROPE_LINEAR) return f / w->factor;
    if (w->kind == ROPE_LLAMA3) {
        double length = 2 * 3.14159265358979323846 / f;
        double smooth = (w->original / length - w->low) / (w->high - w->low);
        if (length < w->original / w->high) return f;
        if (length > w->original / w->low) return f / w->factor;
        return (1 - smooth) * f / w->factor + smooth * f;
    }
    if (w->kind == ROPE_YARN) {
        double from = dim * log(w->original / (w->beta_fast * 2 * 3.14159265358979323846)) /
                      (2 * log(base));
        double to = dim * log(w->original / (w->beta_slow * 2 * 3.14159265358979323846)) /
                    (2 * log(base));
        double ramp;
        if (w->truncate) from = floor(from);
        if (w->truncate) to = ceil(to);
        from = fmax(from, 0);
        to = fmin(to, dim - 1);
        if (from == to) to += 0.001;
        ramp = fmin(fmax((i - from) / (to - from), 0), 1);
        return f / w->factor * ramp + f * (1 - ramp);
    }
    return f;
}

static struct config *with_rope(const char *members, int max_position)
{
    char text[VARIANT_BYTES], value[1024];
    variant_text(text, "llama_plain");
    variant_change(text, "rope_theta", NULL);
    variant_change(text, "rope_scaling", NULL);
    variant_change(text, "head_dim", "128");
    snprintf(value, sizeof value, "%d", max_position);
    variant_change(text, "max_position_embeddings", value);
    snprintf(value, sizeof value, "{%s}", members);
    variant_change(text, "rope_parameters", value);
    return variant_parse(text);
}

static void expect_near(const char *what, int i, double got, double want)
{
    /* One rounding to float, and those of the settings themselves. */
    if (!(fabs(got - want) <= fabs(want) * 4e-7)) {
        FAIL("%s: %d is %.9g, wanted %.9g", what, i, got, want);
    }
}

static void frequencies_match_the_reference_formulas(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof waves / sizeof *waves; i++) {
        const struct waves *w = &waves[i];
        struct config *c = with_rope(w->rope, w->max_position);
        float inv_freq[64], scale = 0;
        assert_int_equal(c->rope.kind, w->kind);
        assert_int_equal(c->rope.dim, w->dim);
        rope_frequencies(c, w->context, inv_freq, &scale);
        for (int j = 0; j < w->dim / 2; j++) {
            expect_near(w->rope, j, inv_freq[j], wave(w, j));
        }
        expect_near(w->rope, -1, scale, w->scale);
        config_free(c);
    }
}

static void longrope_chooses_its_factors_by_context(void **state)
{
    static const double short_factor[] = {1, 1.02, 1.04, 1.06, 1.08, 1.1, 1.12, 1.14};
    static const double long_factor[] = {1, 1.7, 3.8, 7.3, 12.2, 18.5, 26.2, 35.3};
    static const struct {
        const char *key, *value;
        double scale, long_scale;
    } cases[] = {{"long_mscale", "1.25", 1.1, 1.25}, {"short_mscale", "0", 0, 1.25}};
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct config *c = variant_of("phimoe", cases[i / 2].key, cases[i / 2].value);
        const double *stretch = i % 2 ? long_factor : short_factor;
        float inv_freq[8], scale;
        double want = i % 2 ? cases[i / 2].long_scale : cases[i / 2].scale;
        /* Without its own scale: sqrt(1 + log(512 / 64) / log(64)), as Phi-3 has it. */
        if (want == 0) want = sqrt(1.5);
        rope_frequencies(c, i % 2 ? 65 : 64, inv_freq, &scale);
        for (int j = 0; j < 8; j++) {
            expect_near("longrope", j, inv_freq[j], 1 / (stretch[j] * pow(10000, j / 8.0)));
        }
        expect_near("longrope scale", i, scale, want);
        config_free(c);
    }
}

/* DeepSeek multiplies the softmax scale by mscale squared. */
static void mscale_all_dim_enters_the_softmax_scale(void **state)
{
    struct config *c = variant_of("deepseek_v2_lite", NULL, NULL);
    double m = 0.1 * 0.707 * log(40) + 1;
    (void)state;
    expect_near("scale", 0, c->attention_scale, m * m / sqrt(32));
    config_free(c);
    c = variant_of("deepseek_v2_lite", "mscale_all_dim", "0");
    expect_near("scale", 0, c->attention_scale, 1 / sqrt(32));
    config_free(c);
    c = variant_of("deepseek_v3_plain", NULL, NULL);
    expect_near("scale", 0, c->attention_scale, 1 / sqrt(48));
    config_free(c);
}

/* GptOssConfig has a scaling of its own for a file that says nothing of it, and its own theta.
 */
static void gpt_oss_scales_unless_the_file_says_otherwise(void **state)
{
    struct config *said = variant_of("gpt_oss", NULL, NULL);
    char text[VARIANT_BYTES];
    struct config *c;
    (void)state;
    assert_true(said->rope.kind == ROPE_YARN && said->rope.theta == 150000);
    for (int i = 0; i < 2; i++) {
        struct rope rope;
        float a[8], b[8], a_scale, b_scale;
        variant_text(text, "gpt_oss");
        variant_change(text, "rope_scaling", i ? NULL : "null");
        if (i) variant_change(text, "rope_theta", NULL);
        c = variant_parse(text);
        rope = c->rope;
        assert_true(rope.kind == ROPE_YARN && rope.theta == 150000 && rope.factor == 32);
        assert_true(rope.original == 4096 && !rope.truncate);
        rope_frequencies(said, 4096, a, &a_scale);
        rope_frequencies(c, 4096, b, &b_scale);
        assert_memory_equal(a, b, sizeof a);
        assert_true(a_scale == b_scale);
        config_free(c);
    }
    c = variant_of("gpt_oss", "rope_scaling", "{\"rope_type\":\"default\"}");
    assert_true(c->rope.kind == ROPE_DEFAULT && c->rope.factor == 1 && c->rope.truncate);
    config_free(c);
    /* What an own scaling leaves out is not the family's. */
    c = variant_of("gpt_oss", "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":4}");
    assert_true(c->rope.factor == 4 && c->rope.truncate);
    assert_int_equal(c->rope.original, c->max_position);
    config_free(c);
    config_free(said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_dialects_of_rope_read_alike),
        cmocka_unit_test(frequencies_match_the_reference_formulas),
        cmocka_unit_test(longrope_chooses_its_factors_by_context),
        cmocka_unit_test(mscale_all_dim_enters_the_softmax_scale),
        cmocka_unit_test(gpt_oss_scales_unless_the_file_says_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
