/* config_test.c - what config.json means, for every family, and what it may not say.
 *
 * The configurations are those of tests/golden, read as they are or with one key changed: `change`
 * edits the text of the file. RoPE frequencies are computed a second time here, in double, as
 * transformers modeling_rope_utils.py writes them. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "moe/families.h"
#include "moe/safetensors.h"

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

enum { TEXT_BYTES = 16384 };

/* ------------------------------------------------------------------ texts of configurations */

static void read_file(const char *path, char *text)
{
    FILE *f = fopen(path, "rb");
    size_t n;
    if (!f) FAIL("%s: cannot be opened", path);
    n = fread(text, 1, TEXT_BYTES - 1, f);
    text[n] = 0;
    fclose(f);
}

static void golden_text(const char *name, char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/%s/config.json", PM_SOURCE_DIR, name);
    read_file(path, text);
}

/* The end of the JSON value at p. */
static char *value_end(char *p)
{
    int depth = 0;
    bool quoted = false;
    for (;; p++) {
        if (*p == '"') quoted = !quoted;
        if (quoted) continue;
        if (depth == 0 && (*p == ',' || *p == '}' || *p == ']')) return p;
        depth += (*p == '[' || *p == '{') - (*p == ']' || *p == '}');
    }
}

/* Sets the first `key` in the text to `value`, adds it to the root where there is none, or takes
 * it out where value is NULL. */
static void change(char *text, const char *key, const char *value)
{
    char quoted[96], rest[TEXT_BYTES], *at, *end;
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = strstr(text, quoted);
    if (!at) {
        at = strchr(text, '{') + 1;
        snprintf(rest, sizeof rest, "%s", at);
        if (value) snprintf(at, (size_t)(text + TEXT_BYTES - at), "%s%s,%s", quoted, value, rest);
        return;
    }
    end = value_end(at + strlen(quoted));
    if (!value && *end == ',') end++;
    if (!value && *end == '}') {
        while (*at != ',') {
            at--;
        }
    }
    snprintf(rest, sizeof rest, "%s", end);
    snprintf(at, (size_t)(text + TEXT_BYTES - at), "%s%s%s", value ? quoted : "",
             value ? value : "", rest);
}

static struct config *parse(const char *text)
{
    struct config *c = NULL;
    if (config_parse(&c, "config.json", text, strlen(text)) != PM_OK) {
        FAIL("%s\n%s", pm_last_error(), text);
    }
    return c;
}

/* A golden configuration with key = value. */
static struct config *changed(const char *name, const char *key, const char *value)
{
    char text[TEXT_BYTES];
    golden_text(name, text);
    if (key) change(text, key, value);
    return parse(text);
}

static void assert_said(const char *what, const char *part)
{
    if (!strstr(pm_last_error(), part)) FAIL("%s: no \"%s\" in: %s", what, part, pm_last_error());
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
    if (status != want) FAIL("%s: status %d, wanted %d: %s", what, status, want, pm_last_error());
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
    {"mixtral", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0, QK_NONE, 12,
     false, "MM"},
    {"mixtral_swa", 9, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0, QK_NONE,
     32, false, "mm"},
    {"qwen2_moe", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 1, 36, QK_NONE,
     10, false, "MDM"},
    {"qwen2_moe_norm", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 36,
     QK_NONE, 10, false, "DMD"},
    {"qwen3_moe", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0, QK_HEAD,
     24, false, "MM"},
    {"qwen3_moe_mixed", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 1, 0,
     QK_HEAD, 16, false, "DDDM"},
    {"qwen3_moe_fused", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0,
     QK_HEAD, 24, false, "MM"},
    {"olmoe", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 1, 0, QK_FULL, 12,
     false, "MM"},
    {"olmoe_norm", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 0, QK_FULL,
     12, false, "MM"},
    {"deepseek_v2", 9, 3, SCORE_SOFTMAX, GROUP_MAX, WEIGHT_SCORE, RENORM_NONE, false, 4, 12,
     QK_NONE, 32, true, "DM"},
    {"deepseek_v2_lite", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 1, 24,
     QK_NONE, 16, true, "DM"},
    {"deepseek_v3", 8, 3, SCORE_SIGMOID, GROUP_TOP2, WEIGHT_SCORE, RENORM_SUM, true, 2.5f, 20,
     QK_NONE, 64, true, "DM"},
    {"deepseek_v3_plain", 5, 2, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, true, 1.7f,
     40, QK_NONE, 16, true, "DM"},
    {"kimi_k2", 9, 4, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, true, 2.827f, 12, QK_NONE,
     16, true, "DM"},
    {"glm4_moe", 7, 3, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, true, 2.5f, 12, QK_HEAD,
     8, false, "DM"},
    {"glm4_moe_air", 8, 2, SCORE_SIGMOID, GROUP_TOP2, WEIGHT_SCORE, RENORM_SUM, true, 1, 20, QK_NONE,
     12, false, "DM"},
    {"dots1", 7, 3, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, true, 2.5f, 24, QK_HEAD, 80,
     false, "DM"},
    {"minimax_m2", 7, 3, SCORE_SIGMOID, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, true, 1, 0, QK_FULL,
     32, false, "MM"},
    {"gpt_oss", 5, 2, SCORE_LOGIT, GROUP_NONE, WEIGHT_SOFTMAX_PICKED, RENORM_NONE, false, 1, 0,
     QK_NONE, 16, false, "mM"},
    {"gpt_oss_k1", 3, 1, SCORE_LOGIT, GROUP_NONE, WEIGHT_SOFTMAX_PICKED, RENORM_NONE, false, 1, 0,
     QK_NONE, 32, false, "MmM"},
    {"granitemoe", 7, 3, SCORE_LOGIT, GROUP_NONE, WEIGHT_SOFTMAX_PICKED, RENORM_NONE, false, 1, 0,
     QK_NONE, 12, false, "MM"},
    {"granitemoeshared", 5, 2, SCORE_LOGIT, GROUP_NONE, WEIGHT_SOFTMAX_PICKED, RENORM_NONE, false, 1,
     36, QK_NONE, 10, false, "MM"},
    {"phimoe", 6, 2, SCORE_LOGIT, GROUP_NONE, WEIGHT_SPARSEMIXER, RENORM_NONE, false, 1, 0, QK_NONE,
     16, false, "MM"},
    {"hunyuan_v1_moe", 7, 3, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_SUM, false, 1, 20,
     QK_HEAD, 24, false, "MM"},
    {"ernie4_5_moe", 7, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_MAX, true, 1, 24, QK_NONE,
     10, true, "DMMD"},
    {"llama4_text", 5, 1, SCORE_LOGIT, GROUP_NONE, WEIGHT_SIGMOID_PICKED, RENORM_NONE, false, 1, 20,
     QK_L2, 16, true, "dmdM"},
    {"llama4", 5, 1, SCORE_LOGIT, GROUP_NONE, WEIGHT_SIGMOID_PICKED, RENORM_NONE, false, 1, 28,
     QK_NONE, 32, true, "Mm"},
    {"dbrx", 5, 2, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NORM, false, 1, 0, QK_NONE, 12,
     false, "MM"},
    {"llama_plain", 0, 0, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 0, 0, QK_NONE,
     12, false, "DD"},
    {"qwen3", 0, 0, SCORE_SOFTMAX, GROUP_NONE, WEIGHT_SCORE, RENORM_NONE, false, 0, 0, QK_HEAD, 128,
     false, "DD"},
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
        FAIL("%s: gate %d/%d score %d group %d weight %d renorm %d bias %d scale %g", want->name,
             g->top_k, g->n_expert, g->score, g->group, g->weight, g->renorm, c->select_bias,
             (double)g->scale);
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
        struct config *c = changed(readings[i].name, NULL, NULL);
        check_reading(&readings[i], c);
        config_free(c);
    }
}

static void what_only_one_family_has_is_read(void **state)
{
    struct config *c = changed("phimoe", NULL, NULL);
    (void)state;
    assert_true(c->norm == NORM_LAYER && c->norm_bias && c->head_bias && c->o_bias);
    assert_true(c->gate.jitter == 0.15f);
    config_free(c);
    c = changed("granitemoe", NULL, NULL);
    assert_true(c->embedding_scale == 8 && c->residual_scale == 0.22f);
    assert_true(c->attention_scale == 0.11f && fabs(c->logits_scale - 1 / 0.03) < 1e-4);
    config_free(c);
    c = changed("gpt_oss", NULL, NULL);
    assert_true(c->sinks && c->gate_bias && c->expert_bias && c->qkv_bias && c->o_bias);
    assert_true(c->glu.kind == GLU_CLAMPED && c->glu.limit == 7 && c->glu.alpha == 1.702f);
    assert_true(c->interleaved_gate_up && !c->rope.truncate);
    config_free(c);
    c = changed("hunyuan_v1_moe", NULL, NULL);
    assert_true(c->layer[0].top_k == 3 && c->layer[1].top_k == 2 && c->qk_norm_after_rope);
    assert_int_equal(c->rope.kind, ROPE_NTK_ALPHA);
    config_free(c);
    c = changed("ernie4_5_moe", NULL, NULL);
    assert_true(c->gate.floor == 0.5f);
    config_free(c);
    c = changed("olmoe", NULL, NULL);
    assert_true(c->clip_qkv == 0.9f && c->eos[0] == 1);
    config_free(c);
    c = changed("llama4_text", NULL, NULL);
    assert_true(c->gate.scale_input && c->fused_input_major && c->qk_norm_rope_only);
    assert_true(c->temperature_scale == 0.3f && c->temperature_floor == 8);
    assert_true(c->layer[0].rope && !c->layer[3].rope && c->layer[0].chunk == 12);
    assert_true(c->expert_dim == 20 && c->dense_dim == 44);
    config_free(c);
    c = changed("dbrx_p2", NULL, NULL);
    assert_true(c->norm == NORM_LAYER && !c->norm_bias && c->gate.floor == 2);
    assert_true(c->n_kv_head == 1 && c->clip_qkv == 8 && c->rope.theta == 500000);
    config_free(c);
    c = changed("deepseek_v3_fp8", NULL, NULL);
    assert_true(c->quant == QUANT_FP8_BLOCK && c->gate.floor == 1e-20f);
    assert_true(c->mla.latent == 40 && c->mla.q_latent == 48 && c->mla.v_dim == 64);
    config_free(c);
    c = changed("qwen2_moe", NULL, NULL);
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
    struct config *c = changed("mixtral", "num_key_value_heads", NULL);
    (void)state;
    assert_true(c->n_kv_head == c->n_head && c->head_dim == 12 && c->norm == NORM_RMS);
    assert_true(fabs(c->attention_scale - 1 / sqrt(12)) < 1e-7 && c->logits_scale == 1);
    assert_true(c->tied_known && !c->tied);
    config_free(c);
    c = changed("mixtral", "tie_word_embeddings", NULL);
    assert_false(c->tied_known);
    config_free(c);
    c = changed("mixtral", "head_dim", "null");
    assert_int_equal(c->head_dim, 12);
    config_free(c);
    c = changed("mixtral", "bos_token_id", "null");
    assert_int_equal(c->bos, -1);
    config_free(c);
}

/* ------------------------------------------------------------------ windows, end tokens, types */

static void expect_windows(const char *name, const char *key, const char *value, const int *want)
{
    struct config *c = changed(name, key, value);
    for (int l = 0; l < c->n_layer; l++) {
        if (c->layer[l].window != want[l]) {
            FAIL("%s, %s %s: window %d in layer %d, wanted %d", name, key, value,
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
                   "[\"full_attention\",\"sliding_attention\",\"full_attention\"]", (int[]){0, 9});
    /* The Qwen configurations carry a window that is switched off. */
    expect_windows("qwen3_moe", "sliding_window", "4096", (int[]){0, 0});
}

static void end_tokens_are_one_or_many(void **state)
{
    struct config *c = changed("mixtral", "eos_token_id", "[5,6,7]");
    (void)state;
    assert_true(c->n_eos == 3 && c->eos[0] == 5 && c->eos[2] == 7);
    config_free(c);
    c = changed("mixtral", "eos_token_id", "9");
    assert_true(c->n_eos == 1 && c->eos[0] == 9);
    config_free(c);
    c = changed("mixtral", "eos_token_id", NULL);
    assert_int_equal(c->n_eos, 0);
    config_free(c);
    /* Where the text model's own settings have none, those of the root count. */
    c = changed("llama4", "eos_token_id", NULL);
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
    char folder[] = "/tmp/polymath-config-XXXXXX", text[TEXT_BYTES], path[600];
    struct config *c = NULL;
    (void)state;
    assert_non_null(mkdtemp(folder));
    golden_text("mixtral", text);
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
        char text[TEXT_BYTES], what[128];
        bool spelled = strcmp(missing[i][1], "d_model") == 0;
        golden_text(missing[i][0], text);
        change(text, missing[i][1], NULL);
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
    {"mixtral", "eos_token_id", "\"x\"", PM_ERR_FORMAT, "eos_token_id"},
    {"mixtral", "eos_token_id", "[1,\"a\"]", PM_ERR_FORMAT, "eos_token_id[1]"},
    {"mixtral", "eos_token_id", "1.5", PM_ERR_FORMAT, "eos_token_id"},
    {"mixtral", "bos_token_id", "\"<s>\"", PM_ERR_FORMAT, "bos_token_id"},
    {"mixtral", "layer_types", "[\"full_attention\"]", PM_ERR_FORMAT, "layer_types"},
    {"mixtral", "layer_types", "[\"full_attention\",\"linear\"]", PM_ERR_FORMAT, "layer_types[1]"},
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
    {"dbrx", "ffn_act_fn", "{\"name\":\"relu\"}", PM_ERR_UNSUPPORTED, "relu"},
    {"granitemoe", "logits_scaling", "0", PM_ERR_FORMAT, "logits_scaling"},
};

static void wrong_values_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char text[TEXT_BYTES], what[256];
        golden_text(refused[i].name, text);
        /* DBRX has its own objects for what other families say at the root. */
        if (strcmp(refused[i].key, "ffn_act_fn") == 0) {
            change(text, "ffn_config",
                   "{\"moe_num_experts\":4,\"moe_top_k\":2,\"ffn_hidden_size\":8,"
                   "\"ffn_act_fn\":{\"name\":\"relu\"}}");
        } else {
            change(text, refused[i].key, refused[i].value);
        }
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
    char text[TEXT_BYTES];
    int n = 0;
    (void)state;
    golden_text("mixtral", text);
    change(text, "model_type", "\"gpt2\"");
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
    char text[TEXT_BYTES];
    (void)state;
    golden_text("dbrx", text);
    change(text, "kv_n_heads", "3");
    refuse_text("3 of 4 heads", text, PM_ERR_FORMAT, "kv_n_heads");
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
        char text[TEXT_BYTES];
        golden_text(cases[i][0], text);
        change(text, cases[i][1], "4096");
        change(text, "moe_intermediate_size", "16777216");
        refuse_text(cases[i][0], text, PM_ERR_FORMAT, cases[i][1]);
    }
}

/* ------------------------------------------------------------------ RoPE */

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
        char text[TEXT_BYTES], value[512];
        struct config *old, *new;
        struct rope a, b;
        golden_text("llama_plain", text);
        change(text, "partial_rotary_factor", "0.5");
        change(text, "rope_theta", "12345");
        snprintf(value, sizeof value, "{%s}", settings[i]);
        change(text, "rope_scaling", value);
        old = parse(text);
        golden_text("llama_plain", text);
        change(text, "rope_theta", NULL);
        change(text, "rope_scaling", NULL);
        snprintf(value, sizeof value, "{%s,\"rope_theta\":12345,\"partial_rotary_factor\":0.5}",
                 settings[i]);
        change(text, "rope_parameters", value);
        new = parse(text);
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
    {"\"rope_type\":\"default\",\"rope_theta\":500000,\"partial_rotary_factor\":0.25", 32, 4096, 4096,
     5e5, .scale = 1},
    {"\"rope_type\":\"linear\",\"rope_theta\":10000,\"factor\":4", 128, 4096, 9000, 1e4, ROPE_LINEAR,
     .factor = 4, .scale = 1},
    /* gpt-oss */
    {"\"rope_type\":\"yarn\",\"rope_theta\":150000,\"factor\":32,\"beta_fast\":32,\"beta_slow\":1,"
     "\"original_max_position_embeddings\":4096,\"truncate\":false,\"partial_rotary_factor\":0.5",
     64, 131072, 4096, 150000, ROPE_YARN, 32, 4096, 32, 1, .scale = 1.3465735902799727},
    /* DeepSeek-V3, V2-Lite, Kimi-K2 */
    {"\"type\":\"yarn\",\"rope_theta\":10000,\"factor\":40,\"beta_fast\":32,\"beta_slow\":1,"
     "\"original_max_position_embeddings\":4096,\"mscale\":1,\"mscale_all_dim\":1",
     128, 163840, 4096, 10000, ROPE_YARN, 40, 4096, 32, 1, .truncate = true, .scale = 1},
    {"\"type\":\"yarn\",\"rope_theta\":10000,\"factor\":40,\"mscale\":0.707,\"mscale_all_dim\":1,"
     "\"original_max_position_embeddings\":4096",
     128, 163840, 4096, 10000, ROPE_YARN, 40, 4096, 32, 1, .truncate = true,
     .scale = (0.1 * 0.707 * 3.6888794541139363 + 1) / (0.1 * 3.6888794541139363 + 1)},
    {"\"type\":\"yarn\",\"rope_theta\":50000,\"factor\":32,\"beta_fast\":1,\"beta_slow\":1,"
     "\"original_max_position_embeddings\":4096,\"attention_factor\":1.25",
     128, 131072, 4096, 50000, ROPE_YARN, 32, 4096, 1, 1, .truncate = true, .scale = 1.25},
    /* Both ends of the ramp at one place; a factor from the two lengths. */
    {"\"type\":\"yarn\",\"rope_theta\":50000,\"beta_fast\":2,\"beta_slow\":2,\"truncate\":false,"
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
    {"\"type\":\"dynamic\",\"rope_theta\":10000,\"factor\":2", 128, 4096, 4096, 1e4, ROPE_DYNAMIC,
     .factor = 2, .scale = 1},
    {"\"type\":\"dynamic\",\"rope_theta\":10000,\"factor\":2", 128, 4096, 9001, 1e4, ROPE_DYNAMIC,
     .factor = 2, .scale = 1},
    {"\"type\":\"dynamic\",\"rope_theta\":10000,\"factor\":1,\"alpha\":1000", 128, 4096, 9001, 1e4,
     ROPE_NTK_ALPHA, .alpha = 1000, .scale = 1},
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
    char text[TEXT_BYTES], value[1024];
    golden_text("llama_plain", text);
    change(text, "rope_theta", NULL);
    change(text, "rope_scaling", NULL);
    change(text, "head_dim", "128");
    snprintf(value, sizeof value, "%d", max_position);
    change(text, "max_position_embeddings", value);
    snprintf(value, sizeof value, "{%s}", members);
    change(text, "rope_parameters", value);
    return parse(text);
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
        struct config *c = changed("phimoe", cases[i / 2].key, cases[i / 2].value);
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
    struct config *c = changed("deepseek_v2_lite", NULL, NULL);
    double m = 0.1 * 0.707 * log(40) + 1;
    (void)state;
    expect_near("scale", 0, c->attention_scale, m * m / sqrt(32));
    config_free(c);
    c = changed("deepseek_v2_lite", "mscale_all_dim", "0");
    expect_near("scale", 0, c->attention_scale, 1 / sqrt(32));
    config_free(c);
    c = changed("deepseek_v3_plain", NULL, NULL);
    expect_near("scale", 0, c->attention_scale, 1 / sqrt(48));
    config_free(c);
}

/* ------------------------------------------------------------------ sizes */

/* Values in the file, all of which a family without biases and q, k norms counts. */
static void parameters_are_those_of_the_file(void **state)
{
    static const char *const names[] = {"mixtral", "llama_plain", "olmoe"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        char path[512];
        struct config *c = changed(names[i], NULL, NULL);
        struct safetensors *file;
        double total, active, stored = 0, slack = 0;
        snprintf(path, sizeof path, "%s/tests/golden/%s/model.safetensors", PM_SOURCE_DIR, names[i]);
        assert_int_equal(safetensors_open(&file, path), PM_OK);
        for (int64_t t = 0; t < safetensors_count(file); t++) {
            stored += (double)safetensors_at(file, t)->bytes / sizeof(float);
        }
        safetensors_close(file);
        config_parameters(c, &total, &active);
        if (strcmp(names[i], "olmoe") == 0) slack = 4.0 * c->hidden;
        if (fabs(total - stored) > slack) FAIL("%s: %g, file %g", names[i], total, stored);
        assert_true(active < total);
        config_free(c);
    }
}

static void active_parameters_leave_out_idle_experts(void **state)
{
    struct config *c = changed("mixtral", NULL, NULL);
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
        cmocka_unit_test(end_tokens_are_one_or_many),
        cmocka_unit_test(generation_config_has_the_last_word_on_end_tokens),
        cmocka_unit_test(missing_keys_are_named),
        cmocka_unit_test(wrong_values_are_refused_by_name),
        cmocka_unit_test(texts_that_are_no_configuration_are_refused),
        cmocka_unit_test(an_unknown_family_hears_of_all_known_ones),
        cmocka_unit_test(dbrx_heads_divide_too),
        cmocka_unit_test(shared_experts_too_wide_are_refused),
        cmocka_unit_test(both_dialects_of_rope_read_alike),
        cmocka_unit_test(frequencies_match_the_reference_formulas),
        cmocka_unit_test(longrope_chooses_its_factors_by_context),
        cmocka_unit_test(mscale_all_dim_enters_the_softmax_scale),
        cmocka_unit_test(parameters_are_those_of_the_file),
        cmocka_unit_test(active_parameters_leave_out_idle_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
