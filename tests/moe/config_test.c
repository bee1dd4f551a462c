/* config_test.c - what config.json means, for every family, and what it may not say.
 *
 * The configurations are those of tests/golden, read as they are or with one key changed. What
 * becomes of RoPE settings is in rope_frequency_test.c. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moe/families.h"
#include "moe/safetensors.h"

#include "tests/moe/variant.h"

static void assert_said(const char *what, const char *part)
{
    if (!strstr(pm_last_error(), part))
        FAIL("%s: no \"%s\" in: %s", what, part, pm_last_error());
    if (strchr(pm_last_error(), '\n')) FAIL("%s: more than a line: %s", what, pm_last_error());
}

static void refuse_text(const char *what, const char *text, pm_status want, const char *part)
{
    struct config *c = NULL;
    pm_status status = config_parse(&c, "config.json", text, strlen(text));
    if (status == PM_OK) {
        config_free(c);
        FAIL("%s: accepted", what);
    }
    assert_null(c);
    if (status != want)
        FAIL("%s: status %d, wanted %d: %s", what, status, want, pm_last_error());
    assert_said(what, "config.json: ");
    assert_said(what, part);
}

/* ------------------------------------------------------------------ what the families are */

struct reading {
    const char *name;
    int n_expert, top_k;
    enum gate_score score;
    enum gate_group group;
    enum gate_weight weight;
    enum gate_renorm renorm;
    bool select_bias;
    float scale;
    int shared_dim;
    enum qk_norm qk_norm;
    int rope_dim;
    bool interleaved;
    const char *layers; /* M: experts, m: experts with a window or chunk; D, d: dense */
};

static const struct reading readings[] = {
    {"mixtral", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0, QK_NONE,
     12, false, "MM"},
    {"mixtral_swa", 9, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0,
     QK_NONE, 32, false, "mm"},
    {"qwen2_moe", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 1, 36,
     QK_NONE, 10, false, "MDM"},
    {"qwen2_moe_norm", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 36,
     QK_NONE, 10, false, "DMD"},
    {"qwen3_moe", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0,
     QK_HEAD, 24, false, "MM"},
    {"qwen3_moe_mixed", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 1, 0,
     QK_HEAD, 16, false, "DDDM"},
    {"qwen3_moe_fused", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0,
     QK_HEAD, 24, false, "MM"},
    {"olmoe", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 1, 0, QK_FULL,
     12, false, "MM"},
    {"olmoe_norm", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0,
     QK_FULL, 12, false, "MM"},
    {"deepseek_v2", 9, 3, SCORE_SOFTMAX, GROUP_MAX, WEIGHT_SCORE, RENORM_NONE, false, 4, 12,
     QK_NONE, 32, true, "DM"},
    {"deepseek_v2_lite", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 1,
     24, QK_NONE, 16, true, "DM"},
    {"deepseek_v3", 8, 3, SCORE_SIGMOID, GROUP_TOP2, WEIGHT_SCORE, RENORM_SUM, true, 2.5f, 20,
     QK_NONE, 64, true, "DM"},
    {"deepseek_v3_plain", 5, 2, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, true,
     1.7f, 40, QK_NONE, 16, true, "DM"},
    {"kimi_k2", 9, 4, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, true, 2.827f, 12,
     QK_NONE, 16, true, "DM"},
    {"glm4_moe", 7, 3, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, true, 2.5f, 12,
     QK_HEAD, 8, false, "DM"},
    {"glm4_moe_air", 8, 2, SCORE_SIGMOID, GROUP_TOP2, WEIGHT_SCORE, RENORM_SUM, true, 1, 20,
     QK_NONE, 12, false, "DM"},
    {"dots1", 7, 3, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, true, 2.5f, 24,
     QK_HEAD, 80, false, "DM"},
    {"minimax_m2", 7, 3, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, true, 1, 0,
     QK_FULL, 32, false, "MM"},
    {"gpt_oss", 5, 2, SCORE_LOGIT, GROUP_NONE, WEIGHT_SOFTMAX_PICKED, RENORM_NONE, false, 1, 0,
     QK_NONE, 16, false, "mM"},
    {"gpt_oss_k1", 3, 1, SCORE_LOGIT, GROUP_NONE, WEIGHT_SOFTMAX_PICKED, RENORM_NONE, false, 1,
     0, QK_NONE, 32, false, "MmM"},
    {"granitemoe", 7, 3, SCORE_LOGIT, GROUP_NONE, WEIGHT_SOFTMAX_PICKED, RENORM_NONE, false, 1,
     0, QK_NONE, 12, false, "MM"},
    {"granitemoeshared", 5, 2, SCORE_LOGIT, GROUP_NONE, WEIGHT_SOFTMAX_PICKED, RENORM_NONE,
     false, 1, 36, QK_NONE, 10, false, "MM"},
    {"phimoe", 6, 2, SCORE_LOGIT, GROUP_NONE, WEIGHT_SPARSEMIXER, RENORM_NONE, false, 1, 0,
     QK_NONE, 16, false, "MM"},
    {"hunyuan_v1_moe", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 20,
     QK_HEAD, 24, false, "MM"},
    {"ernie4_5_moe", 7, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_MAX, true, 1, 24,
     QK_NONE, 10, true, "DMMD"},
    {"llama4_text", 5, 1, SCORE_LOGIT, GROUP_NONE, WEIGHT_SIGMOID_PICKED, RENORM_NONE, false, 1,
     20, QK_L2, 16, true, "dmdM"},
    {"llama4", 5, 1, SCORE_LOGIT, GROUP_NONE, WEIGHT_SIGMOID_PICKED, RENORM_NONE, false, 1, 28,
     QK_NONE, 32, true, "Mm"},
    {"dbrx", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NORM, false, 1, 0, QK_NONE,
     12, false, "MM"},
    {"llama_plain", 0, 0, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 0, 0,
     QK_NONE, 12, false, "DD"},
    {"qwen3", 0, 0, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 0, 0, QK_HEAD,
     128, false, "DD"},
};

static void check_reading(const struct reading *want, const struct config *c)
{
    const struct gate *g = &c->gate;
    char layers[16];
    for (int l = 0; l <= c->n_layer; l++) {
        bool local = l < c->n_layer && (c->layer[l].window || c->layer[l].chunk);
        layers[l] = (char)(l == c->n_layer ? 0 : c->layer[l].moe ? 'M' : 'D');
        if (local) layers[l] = c->layer[l].moe ? 'm' : 'd';
    }
    if (strcmp(layers, want->layers) != 0) {
        FAIL("%s: layers %s, wanted %s", want->name, layers, want->layers);
    }
    if (g->n_expert != want->n_expert || g->top_k != want->top_k || g->score != want->score ||
        g->group != want->group || g->weight != want->weight || g->renorm != want->renorm ||
        g->scale != want->scale || c->select_bias != want->select_bias) {
        FAIL("%s: gate %d/%d score %d group %d weight %d renorm %d bias %d scale %g",
             want->name, g->top_k, g->n_expert, g->score, g->group, g->weight, g->renorm,
             c->select_bias, (double)g->scale);
    }
    if (c->shared_dim != want->shared_dim || c->qk_norm != want->qk_norm ||
        c->rope.dim != want->rope_dim || c->rope.interleaved != want->interleaved) {
        FAIL("%s: shared %d, qk norm %d, rope of %d, interleaved %d", want->name, c->shared_dim,
             c->qk_norm, c->rope.dim, c->rope.interleaved);
    }
}

static void every_family_reads_as_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++) {
        struct config *c = variant_of(readings[i].name, NULL, NULL);
        check_reading(&readings[i], c);
        config_free(c);
    }
}

static void what_only_one_family_has_is_read(void **state)
{
    struct config *c = variant_of("phimoe", NULL, NULL);
    (void)state;
    assert_true(c->norm == NORM_LAYER && c->norm_bias && c->head_bias && c->o_bias);
    assert_true(c->gate.jitter == 0.15f);
    config_free(c);
    c = variant_of("granitemoe", NULL, NULL);
    assert_true(c->embedding_scale == 8 && c->residual_scale == 0.22f);
    assert_true(c->attention_scale == 0.11f && fabs(c->logits_scale - 1 / 0.03) < 1e-4);
    config_free(c);
    c = variant_of("gpt_oss", NULL, NULL);
    assert_true(c->sinks && c->gate_bias && c->expert_bias && c->qkv_bias && c->o_bias);
    assert_true(c->glu.kind == GLU_CLAMPED && c->glu.limit == 7 && c->glu.alpha == 1.702f);
    assert_true(c->interleaved_gate_up && !c->rope.truncate);
    config_free(c);
    c = variant_of("hunyuan_v1_moe", NULL, NULL);
    assert_true(c->layer[0].top_k == 3 && c->layer[1].top_k == 2 && c->qk_norm_after_rope);
    assert_int_equal(c->rope.kind, ROPE_NTK_ALPHA);
    config_free(c);
    c = variant_of("ernie4_5_moe", NULL, NULL);
    assert_true(c->gate.floor == 0.5f);
    config_free(c);
    c = variant_of("olmoe", NULL, NULL);
    assert_true(c->clip_qkv == 0.9f && c->eos[0] == 1);
    config_free(c);
    c = variant_of("llama4_text", NULL, NULL);
    assert_true(c->gate.scale_input && c->fused_input_major && c->qk_norm_rope_only);
    assert_true(c->temperature_scale == 0.3f && c->temperature_floor == 8);
    assert_true(c->layer[0].rope && !c->layer[3].rope && c->layer[0].chunk == 12);
    assert_true(c->expert_dim == 20 && c->dense_dim == 44);
    config_free(c);
    c = variant_of("dbrx_p2", NULL, NULL);
    assert_true(c->norm == NORM_LAYER && !c->norm_bias && c->gate.floor == 2);
    assert_true(c->n_kv_head == 1 && c->clip_qkv == 8 && c->rope.theta == 500000);
    config_free(c);
    c = variant_of("deepseek_v3_fp8", NULL, NULL);
    assert_true(c->quant == QUANT_FP8_BLOCK && c->gate.floor == 1e-20f);
    assert_true(c->mla.latent == 40 && c->mla.q_latent == 48 && c->mla.v_dim == 64);
    config_free(c);
    c = variant_of("qwen2_moe", NULL, NULL);
    assert_true(c->shared_gate && c->qkv_bias && !c->o_bias);
    config_free(c);
}

/* cases.txt lists every folder of tests/golden with a model in it. */
static void every_golden_configuration_loads(void **state)
{
    char path[512], name[64], type[16];
    int n = 0;
    FILE *f;
    (void)state;
    snprintf(path, sizeof path, "%s/tests/golden/cases.txt", PM_SOURCE_DIR);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fscanf(f, "%63s %15s", name, type) == 2) {
        struct config *c = NULL;
        snprintf(path, sizeof path, "%s/tests/golden/%s", PM_SOURCE_DIR, name);
        if (config_load(&c, path) != PM_OK) FAIL("%s", pm_last_error());
        assert_true(c->n_layer > 0 && c->n_eos > 0 && c->attention_scale > 0);
        config_free(c);
        n++;
    }
    fclose(f);
    assert_true(n >= 40);
}

static void absent_keys_have_their_defaults(void **state)
{
    struct config *c = variant_of("mixtral", "num_key_value_heads", NULL);
    (void)state;
    assert_true(c->n_kv_head == c->n_head && c->head_dim == 12 && c->norm == NORM_RMS);
    assert_true(fabs(c->attention_scale - 1 / sqrt(12)) < 1e-7 && c->logits_scale == 1);
    assert_true(c->tied_known && !c->tied);
    config_free(c);
    c = variant_of("mixtral", "tie_word_embeddings", NULL);
    assert_false(c->tied_known);
    config_free(c);
    c = variant_of("mixtral", "head_dim", "null");
    assert_int_equal(c->head_dim, 12);
    config_free(c);
    c = variant_of("mixtral", "bos_token_id", "null");
    assert_int_equal(c->bos, -1);
    config_free(c);
}

/* ------------------------------------------------------------------ windows, end tokens */

static void expect_windows(const char *name, const char *key, const char *value,
                           const int *want)
{
    struct config *c = variant_of(name, key, value);
    for (int l = 0; l < c->n_layer; l++) {
        if (c->layer[l].window != want[l]) {
            FAIL("%s, other %s: window %d in layer %d, wanted %d", name, key,
                 c->layer[l].window, l, want[l]);
        }
    }
    config_free(c);
}

static void windows_hold_where_the_file_says(void **state)
{
    (void)state;
    expect_windows("mixtral_swa", "x", "0", (int[]){11, 11});
    expect_windows("mixtral_swa", "sliding_window", "null", (int[]){0, 0});
    expect_windows("mixtral_swa", "use_sliding_window", "false", (int[]){0, 0});
    expect_windows("mixtral_swa", "layer_types", "[\"full_attention\",\"sliding_attention\"]",
                   (int[]){0, 11});
    expect_windows("gpt_oss_k1", "x", "0", (int[]){0, 16, 0});
    /* Without the list, gpt-oss begins with a window and alternates. */
    expect_windows("gpt_oss_k1", "layer_types", NULL, (int[]){16, 0, 16});
    /* A list may go on for layers that are not loaded. */
    expect_windows("gpt_oss", "layer_types",
                   "[\"full_attention\",\"sliding_attention\",\"full_attention\"]",
                   (int[]){0, 9});
    /* A file without the key means the window of the released models. */
    expect_windows("gpt_oss", "sliding_window", NULL, (int[]){128, 0});
}

/* The Qwen configurations carry a window that is off unless they say otherwise. */
static void qwen_windows_are_switched_on_by_name(void **state)
{
    static const struct {
        const char *golden, *use, *first, *window;
        int want[3];
    } cases[] = {
        {"qwen3_moe", "false", NULL, "64", {0, 0}},
        {"qwen3_moe", NULL, NULL, "64", {0, 0}},
        {"qwen3_moe", "true", NULL, "64", {64, 64}},
        {"qwen3_moe", "true", "28", "64", {64, 64}},
        {"qwen3_moe", "true", NULL, NULL, {4096, 4096}},
        {"qwen3_moe", "true", NULL, "null", {0, 0}},
        {"qwen2", "true", "1", "64", {0, 64}},
        {"qwen2", "true", "28", "64", {0, 0}},
        {"qwen2", "true", NULL, "64", {0, 0}},
        {"qwen2", "true", "1", NULL, {0, 4096}},
        {"qwen2", NULL, "0", "64", {0, 0}},
        {"qwen3", "true", "1", "64", {0, 64}},
        {"qwen2_moe", "true", NULL, "64", {64, 0, 64}},
        {"qwen2_moe", "true", "2", "64", {64, 0, 0}},
        {"qwen2_moe", "true", "0", "64", {0, 0, 0}},
        {"qwen2_moe", "true", NULL, NULL, {4096, 0, 4096}},
        {"qwen2_moe", "false", "28", "64", {0, 0, 0}},
        {"qwen2_moe", NULL, "28", "64", {0, 0, 0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[VARIANT_BYTES];
        struct config *c;
        variant_text(text, cases[i].golden);
        variant_change(text, "sliding_window", cases[i].window);
        variant_change(text, "use_sliding_window", cases[i].use);
        variant_change(text, "max_window_layers", cases[i].first);
        c = variant_parse(text);
        for (int l = 0; l < c->n_layer; l++) {
            if (c->layer[l].window != cases[i].want[l]) {
                FAIL("case %d: window %d in layer %d", (int)i, c->layer[l].window, l);
            }
        }
        config_free(c);
    }
}

static void end_tokens_are_one_or_many(void **state)
{
    struct config *c = variant_of("mixtral", "eos_token_id", "[5,6,7]");
    (void)state;
    assert_true(c->n_eos == 3 && c->eos[0] == 5 && c->eos[2] == 7);
    config_free(c);
    c = variant_of("mixtral", "eos_token_id", "9");
    assert_true(c->n_eos == 1 && c->eos[0] == 9);
    config_free(c);
    c = variant_of("mixtral", "eos_token_id", NULL);
    assert_int_equal(c->n_eos, 0);
    config_free(c);
    /* Where the text model's own settings have none, those of the root count. */
    c = variant_of("llama4", "eos_token_id", NULL);
    assert_int_equal(c->n_eos, 0);
    config_free(c);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[600];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void generation_config_has_the_last_word_on_end_tokens(void **state)
{
    char folder[] = "/tmp/polymath-config-XXXXXX", text[VARIANT_BYTES], path[600];
    struct config *c = NULL;
    (void)state;
    assert_non_null(mkdtemp(folder));
    variant_text(text, "mixtral");
    write_file(folder, "config.json", text);
    assert_int_equal(config_load(&c, folder), PM_OK);
    assert_true(c->n_eos == 1 && c->eos[0] == 1);
    config_free(c);
    c = NULL;
    write_file(folder, "generation_config.json", "{\"eos_token_id\":[7,8]}");
    assert_int_equal(config_load(&c, folder), PM_OK);
    assert_true(c->n_eos == 2 && c->eos[0] == 7 && c->eos[1] == 8);
    config_free(c);
    c = NULL;
    write_file(folder, "generation_config.json", "{\"temperature\":1}");
    assert_int_equal(config_load(&c, folder), PM_OK);
    assert_true(c->n_eos == 1 && c->eos[0] == 1);
    config_free(c);
    c = NULL;
    write_file(folder, "generation_config.json", "{");
    assert_int_equal(config_load(&c, folder), PM_ERR_FORMAT);
    assert_said("broken", "generation_config.json");
    assert_null(c);
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    assert_int_equal(config_load(&c, folder), PM_ERR_IO);
    assert_said("no file", "config.json");
    rmdir(folder);
}

/* ------------------------------------------------------------------ refusals */

static void missing_keys_are_named(void **state)
{
    static const char *const missing[][2] = {
        {"mixtral", "model_type"},
        {"mixtral", "hidden_size"},
        {"mixtral", "num_hidden_layers"},
        {"mixtral", "num_attention_heads"},
        {"mixtral", "vocab_size"},
        {"mixtral", "num_local_experts"},
        {"mixtral", "num_experts_per_tok"},
        {"mixtral", "intermediate_size"},
        {"qwen3_moe", "moe_intermediate_size"},
        {"qwen2_moe", "shared_expert_intermediate_size"},
        {"deepseek_v3", "kv_lora_rank"},
        {"deepseek_v3", "qk_nope_head_dim"},
        {"deepseek_v3", "qk_rope_head_dim"},
        {"deepseek_v3", "v_head_dim"},
        {"deepseek_v3", "n_routed_experts"},
        {"deepseek_v2", "n_group"},
        {"deepseek_v2", "topk_group"},
        {"ernie4_5_moe", "moe_k"},
        {"hunyuan_v1_moe", "moe_topk"},
        {"hunyuan_v1_moe", "num_experts"},
        {"phimoe", "long_factor"},
        {"dbrx", "ffn_config"},
        {"dbrx", "attn_config"},
        {"dbrx", "d_model"},
        {"llama_plain", "intermediate_size"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        char text[VARIANT_BYTES], what[128];
        bool spelled = strcmp(missing[i][1], "d_model") == 0;
        variant_text(text, missing[i][0]);
        variant_change(text, missing[i][1], NULL);
        snprintf(what, sizeof what, "%s without %s", missing[i][0], missing[i][1]);
        refuse_text(what, text, PM_ERR_FORMAT, spelled ? "hidden_size" : missing[i][1]);
    }
}

static const struct {
    const char *name, *key, *value;
    pm_status status;
    const char *part;
} refused[] = {
    {"mixtral", "hidden_size", "\"48\"", PM_ERR_FORMAT, "hidden_size: found \"48\""},
    {"mixtral", "hidden_size", "0", PM_ERR_FORMAT, "hidden_size: found 0"},
    {"mixtral", "hidden_size", "-48", PM_ERR_FORMAT, "found -48"},
    {"mixtral", "hidden_size", "48.5", PM_ERR_FORMAT, "found 48.5"},
    {"mixtral", "hidden_size", "1e12", PM_ERR_FORMAT, "hidden_size"},
    {"mixtral", "hidden_size", "[48]", PM_ERR_FORMAT, "an array"},
    {"mixtral", "hidden_size", "null", PM_ERR_FORMAT, "missing"},
    {"mixtral", "num_hidden_layers", "4097", PM_ERR_FORMAT, "num_hidden_layers"},
    {"mixtral", "vocab_size", "true", PM_ERR_FORMAT, "vocab_size: found true"},
    {"mixtral", "num_key_value_heads", "3", PM_ERR_FORMAT, "divisor"},
    {"mixtral", "num_key_value_heads", "8", PM_ERR_FORMAT, "divisor"},
    {"mixtral", "head_dim", "1", PM_ERR_FORMAT, "head_dim"},
    {"mixtral", "num_attention_heads", "48", PM_ERR_FORMAT, "head_dim"},
    {"mixtral", "rms_norm_eps", "-1e-5", PM_ERR_FORMAT, "rms_norm_eps"},
    {"mixtral", "rms_norm_eps", "\"small\"", PM_ERR_FORMAT, "rms_norm_eps"},
    {"mixtral", "rope_theta", "0", PM_ERR_FORMAT, "rope_theta"},
    {"mixtral", "num_local_experts", "4097", PM_ERR_FORMAT, "num_local_experts"},
    {"mixtral", "num_experts_per_tok", "0", PM_ERR_FORMAT, "num_experts_per_tok"},
    {"mixtral", "num_experts_per_tok", "6", PM_ERR_FORMAT, "num_experts_per_tok: found 6"},
    {"mixtral", "tie_word_embeddings", "0", PM_ERR_FORMAT, "tie_word_embeddings"},
    {"mixtral", "hidden_act", "\"relu\"", PM_ERR_UNSUPPORTED, "hidden_act: found \"relu\""},
    {"mixtral", "hidden_act", "1", PM_ERR_FORMAT, "hidden_act"},
    {"mixtral", "model_type", "7", PM_ERR_FORMAT, "model_type"},
    {"mixtral", "sliding_window", "-1", PM_ERR_FORMAT, "sliding_window"},
    {"mixtral", "sliding_window", "\"all\"", PM_ERR_FORMAT, "sliding_window"},
    {"gpt_oss", "sliding_window", "null", PM_ERR_FORMAT,
     "sliding_window: found none, layer_types wants one for layer 0"},
    {"gpt_oss", "sliding_window", "0", PM_ERR_FORMAT, "sliding_window: found none"},
    {"mixtral", "layer_types", "[\"full_attention\",\"sliding_attention\"]", PM_ERR_FORMAT,
     "layer_types wants one for layer 1"},
    {"mixtral", "eos_token_id", "\"x\"", PM_ERR_FORMAT, "eos_token_id"},
    {"mixtral", "eos_token_id", "[1,\"a\"]", PM_ERR_FORMAT, "eos_token_id[1]"},
    {"mixtral", "eos_token_id", "1.5", PM_ERR_FORMAT, "eos_token_id"},
    {"mixtral", "bos_token_id", "\"<s>\"", PM_ERR_FORMAT, "bos_token_id"},
    {"mixtral", "layer_types", "[\"full_attention\"]", PM_ERR_FORMAT, "layer_types"},
    {"mixtral", "layer_types", "[\"full_attention\",\"linear\"]", PM_ERR_FORMAT,
     "layer_types[1]"},
    {"mixtral", "layer_types", "[1,2]", PM_ERR_FORMAT, "layer_types[0]"},
    {"mixtral", "rope_scaling", "{\"type\":\"weird\"}", PM_ERR_UNSUPPORTED, "\"weird\""},
    {"mixtral", "rope_scaling", "{\"type\":\"linear\",\"factor\":\"4\"}", PM_ERR_FORMAT,
     "rope_scaling.factor"},
    {"mixtral", "rope_scaling", "{\"type\":\"linear\",\"factor\":0}", PM_ERR_FORMAT, "factor"},
    {"mixtral", "rope_scaling", "{\"type\":\"longrope\"}", PM_ERR_FORMAT, "short_factor"},
    {"mixtral", "partial_rotary_factor", "0", PM_ERR_FORMAT, "rotary"},
    {"mixtral", "partial_rotary_factor", "1.5", PM_ERR_FORMAT, "partial_rotary_factor"},
    {"minimax_m2", "rotary_dim", "96", PM_ERR_FORMAT, "rotary_dim"},
    {"phimoe", "long_factor", "[1,2,3]", PM_ERR_FORMAT, "long_factor: found an array of 3"},
    {"phimoe", "short_factor", "[1,1,1,1,1,1,1,0]", PM_ERR_FORMAT, "short_factor[7]"},
    {"phimoe", "short_factor", "[1,1,1,1,1,1,1,\"a\"]", PM_ERR_FORMAT, "short_factor[7]"},
    {"phimoe", "num_experts_per_tok", "1", PM_ERR_UNSUPPORTED, "sparsemixer"},
    {"mixtral", "quantization_config", "{\"quant_method\":\"awq\"}", PM_ERR_UNSUPPORTED, "awq"},
    {"mixtral", "quantization_config", "{\"quant_method\":\"fp8\"}", PM_ERR_UNSUPPORTED,
     "weight_block_size"},
    {"deepseek_v3_fp8", "weight_block_size", "[64,128]", PM_ERR_FORMAT, "[128, 128]"},
    {"deepseek_v3_fp8", "weight_block_size", "[128]", PM_ERR_FORMAT, "[128, 128]"},
    {"deepseek_v3", "n_group", "3", PM_ERR_FORMAT, "n_group"},
    {"deepseek_v3", "n_group", "0", PM_ERR_FORMAT, "n_group"},
    {"deepseek_v3", "n_group", "9", PM_ERR_FORMAT, "n_group"},
    {"deepseek_v3", "topk_group", "5", PM_ERR_FORMAT, "topk_group"},
    {"deepseek_v3", "topk_group", "1", PM_ERR_FORMAT, "topk_group"}, /* 2 experts, 3 wanted */
    {"deepseek_v3", "attention_bias", "true", PM_ERR_UNSUPPORTED, "attention_bias"},
    {"deepseek_v3", "moe_layer_freq", "0", PM_ERR_FORMAT, "moe_layer_freq"},
    {"deepseek_v2", "n_group", "2", PM_ERR_FORMAT, "n_group"},
    {"deepseek_v2", "topk_method", "\"other\"", PM_ERR_UNSUPPORTED, "topk_method"},
    {"qwen2_moe", "mlp_only_layers", "[-1]", PM_ERR_FORMAT, "mlp_only_layers[0]"},
    {"qwen2_moe", "decoder_sparse_step", "0", PM_ERR_FORMAT, "decoder_sparse_step"},
    {"hunyuan_v1_moe", "moe_topk", "[3]", PM_ERR_FORMAT, "moe_topk"},
    {"hunyuan_v1_moe", "moe_topk", "[3,8]", PM_ERR_FORMAT, "moe_topk"},
    {"hunyuan_v1_moe", "moe_topk", "0", PM_ERR_FORMAT, "moe_topk"},
    {"hunyuan_v1_moe", "num_experts", "[7,6]", PM_ERR_UNSUPPORTED, "num_experts"},
    {"llama4_text", "moe_layers", "[4]", PM_ERR_FORMAT, "moe_layers[0]"},
    {"llama4_text", "no_rope_layers", "[1,1]", PM_ERR_FORMAT, "no_rope_layers"},
    {"llama4_text", "floor_scale", "0", PM_ERR_FORMAT, "floor_scale"},
    {"llama4", "num_local_experts", "\"5\"", PM_ERR_FORMAT, "text_config.num_local_experts"},
    {"dbrx", "ffn_config", "3", PM_ERR_FORMAT, "ffn_config"},
    {"dbrx", "moe_top_k", "6", PM_ERR_FORMAT, "ffn_config.moe_top_k"},
    {"dbrx", "ffn_config",
     "{\"moe_num_experts\":4,\"moe_top_k\":2,\"ffn_hidden_size\":8,"
     "\"ffn_act_fn\":{\"name\":\"relu\"}}",
     PM_ERR_UNSUPPORTED, "relu"},
    {"granitemoe", "logits_scaling", "0", PM_ERR_FORMAT, "logits_scaling"},
};

static void wrong_values_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char text[VARIANT_BYTES], what[256];
        variant_text(text, refused[i].name);
        variant_change(text, refused[i].key, refused[i].value);
        snprintf(what, sizeof what, "%s with %s %s", refused[i].name, refused[i].key,
                 refused[i].value);
        refuse_text(what, text, refused[i].status, refused[i].part);
    }
}

static void texts_that_are_no_configuration_are_refused(void **state)
{
    (void)state;
    refuse_text("a list", "[]", PM_ERR_FORMAT, "an object");
    refuse_text("nothing", "{}", PM_ERR_FORMAT, "model_type");
    refuse_text("half", "{\"model_type\":", PM_ERR_FORMAT, "line 1");
}

static void an_unknown_family_hears_of_all_known_ones(void **state)
{
    char text[VARIANT_BYTES];
    int n = 0;
    (void)state;
    variant_text(text, "mixtral");
    variant_change(text, "model_type", "\"gpt2\"");
    refuse_text("gpt2", text, PM_ERR_UNSUPPORTED, "model_type: found \"gpt2\"");
    for (int f = 0; families[f]; f++) {
        for (const char *const *name = families[f]->model_type; *name; name++, n++) {
            assert_said("gpt2", *name);
        }
    }
    assert_true(n >= 20);
}

/* Heads that do not divide would read beyond the cache. */
static void dbrx_heads_divide_too(void **state)
{
    char text[VARIANT_BYTES];
    (void)state;
    variant_text(text, "dbrx");
    variant_change(text, "kv_n_heads", "3");
    refuse_text("3 of 4 heads", text, PM_ERR_FORMAT, "divisor");
}

/* 4096 shared experts of 2^24 values have more values than an int counts. */
static void shared_experts_too_wide_are_refused(void **state)
{
    static const char *const cases[][2] = {{"deepseek_v2", "n_shared_experts"},
                                           {"deepseek_v3", "n_shared_experts"},
                                           {"glm4_moe", "n_shared_experts"},
                                           {"ernie4_5_moe", "moe_num_shared_experts"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[VARIANT_BYTES];
        variant_text(text, cases[i][0]);
        variant_change(text, cases[i][1], "4096");
        variant_change(text, "moe_intermediate_size", "16777216");
        refuse_text(cases[i][0], text, PM_ERR_FORMAT, "shared expert");
    }
}

/* ------------------------------------------------------------------ sizes */

/* Families without biases: every value in the file counts, but for norms of q and k and for
 * frequencies that old files carry. */
static void parameters_are_those_of_the_file(void **state)
{
    static const char *const names[] = {"mixtral", "llama_plain", "olmoe"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        char path[512];
        struct config *c = variant_of(names[i], NULL, NULL);
        struct safetensors *file;
        double total, active, stored = 0;
        snprintf(path, sizeof path, "%s/tests/golden/%s/model.safetensors", PM_SOURCE_DIR,
                 names[i]);
        assert_int_equal(safetensors_open(&file, path), PM_OK);
        for (int64_t t = 0; t < safetensors_count(file); t++) {
            const struct stored *s = safetensors_at(file, t);
            bool counts = !strstr(s->name, "inv_freq") && !strstr(s->name, "q_norm") &&
                          !strstr(s->name, "k_norm");
            if (counts) stored += (double)s->bytes / sizeof(float);
        }
        safetensors_close(file);
        config_parameters(c, &total, &active);
        if (total != stored) FAIL("%s: %g, file %g", names[i], total, stored);
        assert_true(active < total);
        config_free(c);
    }
}

static void active_parameters_leave_out_idle_experts(void **state)
{
    struct config *c = variant_of("mixtral", NULL, NULL);
    double total, active, idle = 2.0 * 3 * 3 * 48 * 28, embedding = 48 * 96;
    (void)state;
    config_parameters(c, &total, &active);
    assert_true(total - active == idle + embedding);
    config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_reads_as_it_is),
        cmocka_unit_test(what_only_one_family_has_is_read),
        cmocka_unit_test(every_golden_configuration_loads),
        cmocka_unit_test(absent_keys_have_their_defaults),
        cmocka_unit_test(windows_hold_where_the_file_says),
        cmocka_unit_test(qwen_windows_are_switched_on_by_name),
        cmocka_unit_test(end_tokens_are_one_or_many),
        cmocka_unit_test(generation_config_has_the_last_word_on_end_tokens),
        cmocka_unit_test(missing_keys_are_named),
        cmocka_unit_test(wrong_values_are_refused_by_name),
        cmocka_unit_test(texts_that_are_no_configuration_are_refused),
        cmocka_unit_test(an_unknown_family_hears_of_all_known_ones),
        cmocka_unit_test(dbrx_heads_divide_too),
        cmocka_unit_test(shared_experts_too_wide_are_refused),
        cmocka_unit_test(parameters_are_those_of_the_file),
        cmocka_unit_test(active_parameters_leave_out_idle_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
