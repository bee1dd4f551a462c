/* gate_test.c - picking experts, weighing them, sorting rows by expert and putting them back.
 *
 * Logits are random, so a choice may hang on less than float32 can tell. The oracle knows how
 * near each row's decisions were; rows nearer than MARGIN are not compared, and they must be
 * few. Exact ties have a rule and their own test. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/kernels/backends.h"
#include "tests/oracle/oracle.h"
#include "tests/oracle/rig.h"

static const double MARGIN = 1e-5;

enum { MAX_K = 16 };

/* How the families of docs/models.md choose, with released sizes. */
struct family_gate {
    const char *name;
    struct gate gate;
    bool bias;
};

#define G(...)                                                                                 \
    {                                                                                          \
        __VA_ARGS__, .scale = 1                                                                \
    }

static const struct family_gate families[] = {
    {"mixtral", G(8, 2, .renorm = RENORM_SUM), false},
    {"qwen2_moe", G(60, 4), false},
    {"qwen3_moe", G(128, 8, .renorm = RENORM_SUM), false},
    {"qwen3_next", G(512, 10, .renorm = RENORM_SUM), false},
    {"olmoe", G(64, 8), false},
    {"deepseek_v2",
     {160, 6, .group = GROUP_MAX, .n_group = 8, .top_group = 3, .scale = 16},
     false},
    {"deepseek_v2_lite", G(64, 6), false},
    {"deepseek_v3",
     {256, 8, SCORE_SIGMOID, GROUP_TOP2, 8, 4, .renorm = RENORM_SUM, .floor = 1e-20f,
      .scale = 2.5f},
     true},
    {"kimi_k2",
     {384, 8, SCORE_SIGMOID, .renorm = RENORM_SUM, .floor = 1e-20f, .scale = 2.827f},
     true},
    {"glm4_moe",
     {160, 8, SCORE_SIGMOID, GROUP_TOP2, 1, 1, .renorm = RENORM_SUM, .floor = 1e-20f,
      .scale = 2.5f},
     true},
    {"dots1",
     {128, 6, SCORE_SIGMOID, .renorm = RENORM_SUM, .floor = 1e-20f, .scale = 2.5f},
     true},
    {"dots1 as is", {128, 6, SCORE_SIGMOID, .scale = 2.5f}, true},
    {"minimax_m2", G(256, 8, SCORE_SIGMOID, .renorm = RENORM_SUM), true},
    {"gpt_oss 20b", G(32, 4, SCORE_LOGIT, .weight = WEIGHT_SOFTMAX_PICKED), false},
    {"gpt_oss 120b", G(128, 4, SCORE_LOGIT, .weight = WEIGHT_SOFTMAX_PICKED), false},
    {"granitemoe", G(72, 10, SCORE_LOGIT, .weight = WEIGHT_SOFTMAX_PICKED), false},
    {"phimoe", G(16, 2, SCORE_LOGIT, .weight = WEIGHT_SPARSEMIXER, .jitter = 0.01f), false},
    {"phimoe, wide", G(16, 2, SCORE_LOGIT, .weight = WEIGHT_SPARSEMIXER, .jitter = 0.3f),
     false},
    {"hunyuan_v1_moe", G(64, 8, .renorm = RENORM_SUM), false},
    {"ernie4_5_moe", G(64, 6, .renorm = RENORM_MAX, .floor = 1e-12f), true},
    {"ernie4_5_moe, high floor", G(64, 6, .renorm = RENORM_MAX, .floor = 0.4f), true},
    {"llama4 scout",
     G(16, 1, SCORE_LOGIT, .weight = WEIGHT_SIGMOID_PICKED, .scale_input = true), false},
    {"llama4 maverick",
     G(128, 1, SCORE_LOGIT, .weight = WEIGHT_SIGMOID_PICKED, .scale_input = true), false},
    {"dbrx", G(16, 4, .renorm = RENORM_NORM, .floor = 1), false},
    {"dbrx, p 2", G(16, 4, .renorm = RENORM_NORM, .floor = 2), false},
    {"jamba", G(16, 2), false},
};

/* Sizes at the edges. */
static const struct family_gate edges[] = {
    {"one expert", G(1, 1), false},
    {"one expert, sigmoid", G(1, 1, SCORE_SIGMOID, .renorm = RENORM_SUM), true},
    {"all of 5", G(5, 5, .renorm = RENORM_SUM), true},
    {"1 of 5", G(5, 1), false},
    {"16 of 512", G(512, 16, SCORE_SIGMOID, GROUP_TOP2, 16, 3), true},
    {"groups of one", G(5, 2, SCORE_SIGMOID, GROUP_TOP2, 5, 2), true},
    {"groups of one, max", G(5, 3, .group = GROUP_MAX, .n_group = 5, .top_group = 3), false},
    {"all groups", G(12, 7, SCORE_SIGMOID, GROUP_TOP2, 4, 4), true},
    {"all of the groups kept", G(12, 6, SCORE_SIGMOID, GROUP_MAX, 4, 2), true},
    {"odd groups", G(33, 11, SCORE_LOGIT, GROUP_MAX, 3, 1), true},
    {"sparsemixer of 2", G(2, 2, SCORE_LOGIT, .weight = WEIGHT_SPARSEMIXER, .jitter = 0.1f),
     false},
    {"4096", G(4096, 8, .renorm = RENORM_SUM), false},
};

enum { N_FAMILY = sizeof families / sizeof *families, N_EDGE = sizeof edges / sizeof *edges };

static struct routing take_routing(struct rig *rig, const struct gate *g, int64_t n_row)
{
    return (struct routing){rig_take(rig, n_row * g->top_k, sizeof(float)),
                            rig_take(rig, n_row * g->top_k, sizeof(int32_t)),
                            rig_take(rig, g->n_expert + 1, sizeof(int32_t)),
                            rig_take(rig, n_row * g->top_k, sizeof(int32_t)),
                            rig_take(rig, n_row * g->top_k, sizeof(int32_t))};
}

static struct routing choose(struct rig *rig, struct device *d, const struct gate *g,
                             struct tensor logits, const float *bias)
{
    struct routing out = take_routing(rig, g, logits.rows);
    expect_ok(rig->k->gate_topk(d, g, logits, bias, &out));
    return out;
}

/* Ids in range, none twice in a row. */
static void expect_distinct(const char *name, const struct gate *g, const int32_t *id)
{
    for (int k = 0; k < g->top_k; k++) {
        if (id[k] < 0 || id[k] >= g->n_expert) rig_fail("%s: expert %d", name, id[k]);
        for (int j = 0; j < k; j++) {
            if (id[j] == id[k]) rig_fail("%s: expert %d twice", name, id[k]);
        }
    }
}

/* Compares row r; false when its choice is too near to call. */
static bool check_row(const char *name, const struct gate *g, const float *logit,
                      const float *bias, const struct routing *got, int64_t r)
{
    double weight[MAX_K], bound[MAX_K];
    int32_t id[MAX_K];
    double margin = oracle_gate(id, weight, bound, g, logit, bias);
    expect_distinct(name, g, got->id + r * g->top_k);
    if (margin < MARGIN) return false;
    for (int k = 0; k < g->top_k; k++) {
        int32_t got_id = got->id[r * g->top_k + k];
        double got_weight = got->weight[r * g->top_k + k];
        if (got_id != id[k]) {
            rig_fail("%s: row %d choice %d is expert %d, wanted %d", name, (int)r, k, got_id,
                     id[k]);
        }
        if (!(fabs(got_weight - weight[k]) <= bound[k])) {
            rig_fail("%s: row %d choice %d weighs %.9g, wanted %.9g within %.3g", name, (int)r,
                     k, got_weight, weight[k], bound[k]);
        }
    }
    return true;
}

static void check(struct rig *rig, const struct family_gate *f, int64_t n_row, double spread)
{
    const struct gate *g = &f->gate;
    struct tensor logits = rig_matrix(rig, n_row, g->n_expert);
    float *bias = f->bias ? rig_floats(rig, g->n_expert, 0.1) : NULL;
    struct routing got;
    int compared = 0;
    for (int64_t i = 0; i < n_row * g->n_expert; i++) {
        rig_row(&logits, i / g->n_expert)[i % g->n_expert] *= (float)spread;
    }
    got = choose(rig, rig->d, g, logits, bias);
    for (int64_t r = 0; r < n_row; r++) {
        compared += check_row(f->name, g, rig_row(&logits, r), bias, &got, r);
    }
    if (compared < 0.8 * (double)n_row) {
        rig_fail("%s: %d of %d rows are too near to call", f->name, (int)n_row - compared,
                 (int)n_row);
    }
}

static void gate_matches_oracle_for_every_family(void **state)
{
    static const int rows[] = {0, 3, 257};
    for (int f = 0; f < N_FAMILY * 3; f++) {
        check(*state, &families[f / 3], rows[f % 3], 1.5);
    }
}

static void gate_matches_oracle_at_the_edges_of_sizes(void **state)
{
    const struct rig *rig = *state;
    for (int f = 0; f < N_EDGE; f++) {
        if (edges[f].gate.n_expert > rig->backend->max_expert) continue;
        check(*state, &edges[f], 40, 1.5);
    }
}

static void gate_takes_any_number_of_experts(void **state)
{
    static const int experts[] = {16, 33, 512};
    for (int c = 0; c < MAX_K * 3 * 2; c++) {
        struct family_gate f = {"any number", {.scale = 1, .renorm = RENORM_SUM}, c % 2};
        f.gate.n_expert = experts[c / 2 % 3];
        f.gate.top_k = 1 + c / 6;
        f.gate.score = c % 2 ? SCORE_SIGMOID : SCORE_SOFTMAX;
        check(*state, &f, 20, 1.5);
    }
}

/* Every score with every group, weight, renormalisation, with and without bias. Softmaxed
 * weights divided by a p-norm, which no family has, stand apart. */
static void check_combinations(struct rig *rig, bool softmax_norm)
{
    for (int c = 0; c < 3 * 3 * 3 * 4 * 2 * 2; c++) {
        char name[80];
        struct family_gate f = {
            name, {24, 5, .n_group = 6, .top_group = 3, .scale = 1.5f}, false};
        int rest = c;
        f.gate.score = (enum gate_score)(rest % 3);
        f.gate.group = (enum gate_group)((rest /= 3) % 3);
        f.gate.weight = (enum gate_weight)((rest /= 3) % 3);
        f.gate.renorm = (enum gate_renorm)((rest /= 3) % 4);
        f.bias = (rest /= 4) % 2;
        f.gate.floor = rest / 2 ? 0.7f : f.gate.renorm == RENORM_NORM ? 1.5f : 1e-20f;
        snprintf(name, sizeof name, "score %d group %d weight %d renorm %d floor %g%s",
                 f.gate.score, f.gate.group, f.gate.weight, f.gate.renorm, (double)f.gate.floor,
                 f.bias ? " bias" : "");
        if (softmax_norm !=
            (f.gate.weight == WEIGHT_SOFTMAX_PICKED && f.gate.renorm == RENORM_NORM)) {
            continue;
        }
        check(rig, &f, 20, 1);
    }
}

static void gate_matches_oracle_for_every_combination(void **state)
{
    check_combinations(*state, false);
}

static void softmaxed_weights_have_a_p_norm_too(void **state)
{
    check_combinations(*state, true);
}

static struct tensor constant(struct rig *rig, int64_t rows, int64_t cols, float value)
{
    struct tensor t = rig_matrix(rig, rows, cols);
    for (int64_t i = 0; i < rows * cols; i++) {
        rig_row(&t, i / cols)[i % cols] = value;
    }
    return t;
}

static void ties_go_to_the_lower_expert(void **state)
{
    struct rig *rig = *state;
    for (int f = 0; f < N_FAMILY + N_EDGE; f++) {
        const struct gate *g = f < N_FAMILY ? &families[f].gate : &edges[f - N_FAMILY].gate;
        struct tensor logits = constant(rig, 2, g->n_expert, 0.25f);
        struct routing got;
        if (g->n_expert > rig->backend->max_expert) continue;
        /* In the second row the last expert and the one before it stand out alike. */
        if (g->n_expert > 3) rig_row(&logits, 1)[g->n_expert - 2] = 0.75f;
        if (g->n_expert > 3) rig_row(&logits, 1)[g->n_expert - 1] = 0.75f;
        got = choose(rig, rig->d, g, logits, NULL);
        for (int k = 0; k < g->top_k; k++) {
            assert_int_equal(got.id[k], k);
        }
        if (g->n_expert > 3 && g->top_group != 1) {
            assert_int_equal(got.id[g->top_k], g->n_expert - 2);
        }
    }
}

/* Equal values in a row of few different ones: ids of equal value ascend. */
static void equal_values_are_taken_in_order(void **state)
{
    struct rig *rig = *state;
    const struct gate g = G(64, 16, SCORE_LOGIT, .weight = WEIGHT_SOFTMAX_PICKED);
    struct tensor logits = rig_matrix(rig, 100, 64);
    struct routing got;
    for (int i = 0; i < 100 * 64; i++) {
        int value = rig_below(rig, 6);
        rig_row(&logits, i / 64)[i % 64] = value || i % 3 ? -(float)value : 0; /* 0 is -0 */
    }
    got = choose(rig, rig->d, &g, logits, NULL);
    for (int r = 0; r < 100; r++) {
        const float *v = rig_row(&logits, r);
        const int32_t *id = got.id + r * 16;
        for (int k = 1; k < 16; k++) {
            assert_true(v[id[k]] < v[id[k - 1]] ||
                        (v[id[k]] == v[id[k - 1]] && id[k] > id[k - 1]));
        }
        for (int e = 0; e < 64; e++) {
            bool better = v[e] > v[id[15]] || (v[e] == v[id[15]] && e < id[15]), taken = false;
            for (int k = 0; k < 16; k++) {
                taken = taken || id[k] == e;
            }
            if (better) assert_true(taken);
        }
    }
}

/* With a bias that makes all scores negative, a masked group at 0 would win. */
static void experts_of_masked_groups_never_win(void **state)
{
    struct rig *rig = *state;
    const struct gate g = {32, 4, SCORE_SIGMOID, GROUP_TOP2, 8, 2, .scale = 1};
    struct tensor logits = rig_matrix(rig, 50, 32);
    float *bias = rig_floats(rig, 32, 0.1);
    struct routing got;
    for (int e = 0; e < 32; e++) {
        bias[e] -= 3;
    }
    got = choose(rig, rig->d, &g, logits, bias);
    for (int r = 0; r < 50; r++) {
        int32_t *id = got.id + r * 4, group[2] = {id[0] / 4, -1};
        check_row("masked", &g, rig_row(&logits, r), bias, &got, r);
        for (int k = 1; k < 4; k++) {
            if (id[k] / 4 == group[0] || id[k] / 4 == group[1]) continue;
            assert_int_equal(group[1], -1);
            group[1] = id[k] / 4;
        }
    }
}

/* Bad values in all places, all but one, one, one half, the other, or random ones. */
static struct tensor bad_logits(struct rig *rig, int n)
{
    static const float bad[] = {NAN, -INFINITY, INFINITY, 3.4e38f, -3.4e38f, 1e-45f, 0};
    enum { N_BAD = sizeof bad / sizeof *bad, N_WAY = 8 };
    struct tensor logits = rig_matrix(rig, N_BAD * N_WAY, n);
    for (int r = 0; r < N_BAD * N_WAY; r++) {
        float *logit = rig_row(&logits, r);
        for (int e = 0; e < n; e++) {
            const bool place[N_WAY] = {true,      e != n - 1, e != 0, e == n / 2,
                                       e < n / 2, e >= n / 2, e % 2,  rig_below(rig, 2) != 0};
            int way = r / N_BAD;
            if (!place[way]) continue;
            logit[e] = way == N_WAY - 1 ? bad[rig_below(rig, N_BAD)] : bad[r % N_BAD];
        }
    }
    return logits;
}

/* Logits that no model should make: no crash, no expert twice, no id out of range. */
static void check_bad_logits(struct rig *rig, bool groups, bool mixed)
{
    for (int f = 0; f < N_FAMILY + N_EDGE; f++) {
        const struct family_gate *c = f < N_FAMILY ? &families[f] : &edges[f - N_FAMILY];
        const struct gate *g = &c->gate;
        struct tensor logits;
        struct routing got;
        if ((g->group != GROUP_NONE) != groups) continue;
        if ((g->weight == WEIGHT_SPARSEMIXER) != mixed) continue;
        if (g->n_expert > rig->backend->max_expert) continue;
        logits = bad_logits(rig, g->n_expert);
        got =
            choose(rig, rig->d, g, logits, c->bias ? rig_floats(rig, g->n_expert, 0.1) : NULL);
        for (int64_t r = 0; r < logits.rows; r++) {
            char name[96];
            snprintf(name, sizeof name, "%s, row %d", c->name, (int)r);
            expect_distinct(name, g, got.id + r * g->top_k);
        }
    }
}

static void broken_logits_never_repeat_an_expert(void **state)
{
    check_bad_logits(*state, false, false);
}

static void broken_logits_never_repeat_an_expert_of_groups(void **state)
{
    check_bad_logits(*state, true, false);
}

static void broken_logits_never_repeat_an_expert_of_sparsemixer(void **state)
{
    check_bad_logits(*state, false, true);
}

static void a_row_depends_on_itself_alone(void **state)
{
    struct rig *rig = *state;
    const int n_row = rig->k->host_memory ? 257 : 66; /* some blocks of a GPU */
    const int n_device = rig->k->host_memory ? RIG_DEVICES : 1;
    for (int f = 0; f < N_FAMILY; f++) {
        const struct gate *g = &families[f].gate;
        struct tensor logits = rig_matrix(rig, n_row, g->n_expert);
        float *bias = families[f].bias ? rig_floats(rig, g->n_expert, 0.1) : NULL;
        struct routing all = choose(rig, rig->d, g, logits, bias);
        size_t n = (size_t)g->top_k;
        for (int device = 0; device < n_device; device++) {
            struct routing again = choose(rig, rig->device[device], g, logits, bias);
            assert_memory_equal(again.id, all.id, (size_t)n_row * n * sizeof(int32_t));
            assert_memory_equal(again.weight, all.weight, (size_t)n_row * n * sizeof(float));
        }
        for (int r = 0; r < n_row; r += 13) {
            struct routing one = choose(rig, rig->d, g, tensor_rows(&logits, r, 1), bias);
            assert_memory_equal(one.id, all.id + (size_t)r * n, n * sizeof(int32_t));
            assert_memory_equal(one.weight, all.weight + (size_t)r * n, n * sizeof(float));
        }
    }
}

static void impossible_gates_are_refused(void **state)
{
    struct rig *rig = *state;
    const struct gate too_few = G(4, 5), too_many = G(4097, 2);
    struct tensor logits = rig_matrix(rig, 1, 4097);
    struct routing out = take_routing(rig, &too_many, 3);
    expect_error(rig->k->gate_topk(rig->d, &too_few, logits, NULL, &out), PM_ERR_ARG, "5 of 4");
    expect_error(rig->k->gate_topk(rig->d, &too_many, logits, NULL, &out), PM_ERR_ARG, "4097");
}

/* ------------------------------------------------------------------ sorting */

static const int sort_sizes[][3] = {/* T, E, K */
                                    {0, 5, 2},   {1, 1, 1},    {1, 512, 16},   {3, 5, 5},
                                    {257, 5, 1}, {257, 64, 8}, {257, 512, 10}, {40, 16, 16}};

enum { N_SORT = sizeof sort_sizes / sizeof *sort_sizes };

struct sorted {
    struct gate gate;
    struct routing routing;
    int n_row;
};

/* Random distinct experts with random weights; odd cases leave half of the experts empty. */
static struct sorted sorted(struct rig *rig, int c)
{
    const int *size = sort_sizes[c];
    struct sorted s = {G(size[1], size[2]), {0}, size[0]};
    int n = c % 2 && size[1] / 2 >= size[2] ? size[1] / 2 : size[1];
    int32_t *expert = rig_take(rig, n, sizeof *expert);
    s.routing = take_routing(rig, &s.gate, s.n_row);
    for (int e = 0; e < n; e++) {
        expert[e] = e;
    }
    for (int r = 0; r < s.n_row; r++) {
        rig_shuffle(rig, expert, n);
        for (int k = 0; k < s.gate.top_k; k++) {
            s.routing.id[r * s.gate.top_k + k] = expert[k];
            s.routing.weight[r * s.gate.top_k + k] = (float)rig_normal(rig);
        }
    }
    expect_ok(rig->k->permute(rig->d, &s.gate, s.n_row, &s.routing));
    return s;
}

static void expect_sorted(struct rig *rig, const struct gate *g, int n_row,
                          const struct routing *got)
{
    struct routing want = take_routing(rig, g, n_row);
    size_t n = (size_t)n_row * (size_t)g->top_k * sizeof(int32_t);
    oracle_permute(g, n_row, got->id, want.offset, want.source, want.place);
    assert_memory_equal(got->offset, want.offset, ((size_t)g->n_expert + 1) * sizeof(int32_t));
    assert_memory_equal(got->source, want.source, n);
    assert_memory_equal(got->place, want.place, n);
}

/* Twice: what one run leaves behind must not meet the next. */
static void choices_come_sorted_by_expert(void **state)
{
    struct rig *rig = *state;
    static const int rows[] = {0, 1, 2, 7, 16, 17, 300},
                     experts[] = {1, 8, 60, 64, 128, 256, 384, 512};
    for (int c = 0; c < 7 * 8 * 2; c++) {
        int n_expert = experts[c / 2 % 8], n_row = rows[c / 16];
        struct gate g = G(n_expert, (int)min_i64(1 + c / 2 % MAX_K, n_expert));
        struct tensor logits = rig_matrix(rig, n_row, n_expert);
        struct routing got = choose(rig, rig->d, &g, logits, NULL);
        expect_sorted(rig, &g, n_row, &got);
    }
}

static void without_offsets_nothing_is_sorted(void **state)
{
    struct rig *rig = *state;
    const struct gate g = G(60, 4);
    struct tensor logits = rig_matrix(rig, 40, 60);
    struct routing all = choose(rig, rig->d, &g, logits, NULL);
    struct routing some = take_routing(rig, &g, 40);
    some.offset = some.source = some.place = NULL;
    expect_ok(rig->k->gate_topk(rig->d, &g, logits, NULL, &some));
    assert_memory_equal(some.id, all.id, 40 * 4 * sizeof(int32_t));
    assert_memory_equal(some.weight, all.weight, 40 * 4 * sizeof(float));
}

static void permute_matches_oracle(void **state)
{
    struct rig *rig = *state;
    for (int c = 0; c < N_SORT; c++) {
        struct sorted s = sorted(rig, c);
        expect_sorted(rig, &s.gate, s.n_row, &s.routing);
    }
}

/* Experts that change nothing: what comes back is x times the sum of its weights. */
static void unpermute_undoes_permute_with_identity_experts(void **state)
{
    struct rig *rig = *state;
    for (int c = 0; c < N_SORT * 2; c++) {
        struct sorted s = sorted(rig, c / 2);
        int64_t width = c % 3 ? 33 : 300;
        struct tensor x = rig_matrix(rig, s.n_row, width), y = rig_matrix(rig, s.n_row, width);
        struct tensor inner = rig_matrix(rig, (int64_t)s.n_row * s.gate.top_k, width);
        double *want = rig_doubles(rig, s.n_row * width),
               *bound = rig_doubles(rig, s.n_row * width);
        s.gate.scale_input = c % 2;
        if (s.gate.scale_input) {
            expect_ok(rig->k->permute_scaled(rig->d, &s.gate, inner, x, &s.routing));
        }
        for (int64_t i = 0; i < inner.rows && !s.gate.scale_input; i++) {
            memcpy(rig_row(&inner, i), rig_row(&x, s.routing.source[i]),
                   (size_t)width * sizeof(float));
        }
        for (int64_t i = 0; i < s.n_row * width; i++) {
            double sum = 0, size = 0, old = rig_row(&y, i / width)[i % width];
            for (int k = 0; k < s.gate.top_k; k++) {
                double term = (double)s.routing.weight[i / width * s.gate.top_k + k] *
                              rig_row(&x, i / width)[i % width];
                sum += term;
                size += fabs(term);
            }
            want[i] = old + 0.5 * sum;
            bound[i] = (size * (s.gate.top_k + 2) + fabs(want[i])) * FLOAT_UNIT;
        }
        expect_ok(rig->k->unpermute(rig->d, &s.gate, y, inner, &s.routing, 0.5f));
        expect_close(c % 2 ? "scaled input" : "scaled output", &y, want, bound);
    }
}

static void unpermute_matches_oracle(void **state)
{
    struct rig *rig = *state;
    static const int64_t widths[] = {1, 33, 255, 256, 257, 2880};
    for (int c = 0; c < N_SORT * 6 * 2; c++) {
        struct sorted s = sorted(rig, c / 12);
        int64_t width = s.n_row == 257 && widths[c % 6] == 2880 ? 512 : widths[c % 6];
        struct tensor y = rig_matrix(rig, s.n_row, width);
        struct tensor x = rig_matrix(rig, (int64_t)s.n_row * s.gate.top_k, width);
        double *want = rig_doubles(rig, s.n_row * width),
               *bound = rig_doubles(rig, s.n_row * width);
        s.gate.scale_input = c / 6 % 2;
        oracle_unpermute(want, bound, &s.gate, y, x, &s.routing, 0.22f);
        expect_ok(rig->k->unpermute(rig->d, &s.gate, y, x, &s.routing, 0.22f));
        expect_close("unpermute", &y, want, bound);
    }
}

/* Experts' outputs that are narrow: the same sum of values that are fewer bits wide. */
static void unpermute_takes_narrow_rows(void **state)
{
    struct rig *rig = *state;
    static const int64_t widths[] = {1, 33, 512, 2880};
    if (rig->k->narrow != PM_BF16) return;
    for (int c = 0; c < N_SORT * 4; c++) {
        struct sorted s = sorted(rig, c / 4);
        int64_t width = s.n_row == 257 ? 72 + c % 2 : widths[c % 4];
        struct tensor y = rig_matrix(rig, s.n_row, width), even = rig_round(rig, &y, PM_F32);
        struct tensor x = rig_matrix(rig, (int64_t)s.n_row * s.gate.top_k, width);
        double *want = rig_doubles(rig, s.n_row * width),
               *bound = rig_doubles(rig, s.n_row * width);
        x = rig_round(rig, &x, PM_BF16);
        oracle_unpermute(want, bound, &s.gate, y, x, &s.routing, 0.22f);
        expect_ok(rig->k->unpermute(rig->d, &s.gate, y, x, &s.routing, 0.22f));
        expect_close("unpermute", &y, want, bound);
        expect_ok(rig->k->unpermute(rig->d, &s.gate, even, x, &s.routing, 0.22f));
        expect_same("round addresses", &even, &y);
    }
}

/* Large terms that cancel show the order: the best expert comes first, wherever it stands. */
static void unpermute_adds_in_order_of_choice(void **state)
{
    struct rig *rig = *state;
    static const float term[] = {1e8f, -1e8f, 1};
    static const int32_t ids[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}};
    const struct gate g = G(3, 3);
    struct routing routing = take_routing(rig, &g, 3);
    struct tensor x = rig_matrix(rig, 9, 40), y = rig_matrix(rig, 3, 40);
    memcpy(routing.id, ids, sizeof ids);
    expect_ok(rig->k->permute(rig->d, &g, 3, &routing));
    for (int i = 0; i < 9 * 40; i++) {
        routing.weight[i / 40] = 1;
        rig_row(&x, routing.place[i / 40])[i % 40] = term[i / 40 % 3];
        rig_row(&y, i / 120)[i % 40] = 0;
    }
    expect_ok(rig->k->unpermute(rig->d, &g, y, x, &routing, 1));
    for (int i = 0; i < 3 * 40; i++) {
        assert_true(rig_row(&y, i / 40)[i % 40] == 1);
    }
}

static void permute_scaled_multiplies_each_copy(void **state)
{
    struct rig *rig = *state;
    for (int c = 0; c < N_SORT; c++) {
        struct sorted s = sorted(rig, c);
        int64_t n = (int64_t)s.n_row * s.gate.top_k, width = 33;
        struct tensor x = rig_matrix(rig, s.n_row, width), y = rig_matrix(rig, n, width);
        double *want = rig_doubles(rig, n * width), *bound = rig_doubles(rig, n * width);
        for (int64_t i = 0; i < n * width; i++) {
            int64_t choice = i / width, to = s.routing.place[choice] * width + i % width;
            want[to] = (double)s.routing.weight[choice] *
                       rig_row(&x, choice / s.gate.top_k)[i % width];
            bound[to] = fabs(want[to]) * FLOAT_UNIT;
        }
        expect_ok(rig->k->permute_scaled(rig->d, &s.gate, y, x, &s.routing));
        expect_close("permute_scaled", &y, want, bound);
    }
}

static void permute_scaled_rounds_once(void **state)
{
    struct rig *rig = *state;
    if (rig->k->narrow != PM_BF16) return;
    for (int c = 0; c < N_SORT * 2; c++) {
        struct sorted s = sorted(rig, c / 2);
        int64_t n = (int64_t)s.n_row * s.gate.top_k, width = c % 2 ? 33 : 72;
        struct tensor x = rig_matrix(rig, s.n_row, width), y = rig_matrix(rig, n, width);
        struct tensor narrow = rig_round(rig, &y, PM_BF16), want;
        x = rig_round(rig, &x, c / 2 % 2 ? PM_BF16 : PM_F32);
        expect_ok(rig->k->permute_scaled(rig->d, &s.gate, y, x, &s.routing));
        expect_ok(rig->k->permute_scaled(rig->d, &s.gate, narrow, x, &s.routing));
        want = rig_round(rig, &y, PM_BF16);
        want = rig_widen(rig, &want);
        y = rig_widen(rig, &narrow);
        expect_same("narrow", &y, &want);
    }
}

/* The same row in another batch stands at other places; its bits must not know. */
static void unpermuted_rows_depend_on_themselves_alone(void **state)
{
    struct rig *rig = *state;
    struct sorted s = sorted(rig, 5);
    int k = s.gate.top_k;
    struct tensor x = rig_matrix(rig, (int64_t)s.n_row * k, 300);
    struct tensor y = rig_matrix(rig, s.n_row, 300), all = rig_copy(rig, &y);
    expect_ok(rig->k->unpermute(rig->d, &s.gate, all, x, &s.routing, 0.3f));
    for (int device = 0; device < RIG_DEVICES; device++) {
        struct tensor again = rig_copy(rig, &y);
        expect_ok(rig->k->unpermute(rig->device[device], &s.gate, again, x, &s.routing, 0.3f));
        expect_same("threads", &again, &all);
    }
    for (int r = 0; r < s.n_row; r += 7) {
        struct routing alone = take_routing(rig, &s.gate, 1);
        struct tensor part = tensor_rows(&y, r, 1), one = rig_copy(rig, &part);
        struct tensor inner = rig_matrix(rig, k, 300);
        memcpy(alone.id, s.routing.id + r * k, (size_t)k * sizeof *alone.id);
        memcpy(alone.weight, s.routing.weight + r * k, (size_t)k * sizeof *alone.weight);
        expect_ok(rig->k->permute(rig->d, &s.gate, 1, &alone));
        for (int i = 0; i < k; i++) {
            memcpy(rig_row(&inner, alone.place[i]), rig_row(&x, s.routing.place[r * k + i]),
                   300 * sizeof(float));
        }
        expect_ok(rig->k->unpermute(rig->d, &s.gate, one, inner, &alone, 0.3f));
        part = tensor_rows(&all, r, 1);
        expect_same("one row", &one, &part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(gate_matches_oracle_for_every_family),
        RIG_TEST(gate_matches_oracle_at_the_edges_of_sizes),
        RIG_TEST(gate_takes_any_number_of_experts),
        RIG_TEST(gate_matches_oracle_for_every_combination),
        RIG_TEST(softmaxed_weights_have_a_p_norm_too),
        RIG_TEST(ties_go_to_the_lower_expert),
        RIG_TEST(equal_values_are_taken_in_order),
        RIG_TEST(experts_of_masked_groups_never_win),
        RIG_TEST(broken_logits_never_repeat_an_expert),
        RIG_TEST(broken_logits_never_repeat_an_expert_of_groups),
        RIG_TEST(broken_logits_never_repeat_an_expert_of_sparsemixer),
        RIG_TEST(a_row_depends_on_itself_alone),
        RIG_TEST(impossible_gates_are_refused),
        RIG_TEST(choices_come_sorted_by_expert),
        RIG_TEST(without_offsets_nothing_is_sorted),
        RIG_TEST(permute_matches_oracle),
        RIG_TEST(unpermute_undoes_permute_with_identity_experts),
        RIG_TEST(unpermute_matches_oracle),
        RIG_TEST(unpermute_takes_narrow_rows),
        RIG_TEST(unpermute_adds_in_order_of_choice),
        RIG_TEST(permute_scaled_multiplies_each_copy),
        RIG_TEST(permute_scaled_rounds_once),
        RIG_TEST(unpermuted_rows_depend_on_themselves_alone),
    };
    return rig_run("gate", tests, sizeof tests / sizeof *tests);
}
