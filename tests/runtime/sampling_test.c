/* sampling_test.c - penalty, truncation, draws: which tokens may come, and how often.
 *
 * Probabilities are powers of two where a test counts on where a threshold falls. Draws take
 * consecutive token numbers of one seed, as a generation does, so every count here is the same
 * in every run. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/engine/sampling.h"

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

enum { MAX_VOCAB = 2000, N_DRAW = 100000 };

static struct sampling defaults(void)
{
    return (struct sampling){.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7};
}

/* A sampler with its settings. */
struct picker {
    struct sampler *sampler;
    struct sampling o;
};

static struct picker open_sampler(int n, const struct sampling *o)
{
    struct picker p = {NULL, *o};
    if (sampling_check(o, n) != PM_OK) FAIL("%s", pm_last_error());
    if (sampler_open(&p.sampler, n) != PM_OK) FAIL("%s", pm_last_error());
    return p;
}

static pm_status pick_after(const struct picker *p, float *logits, const int32_t *recent,
                            int n_recent, int64_t index, struct candidate *out)
{
    struct sampling_input in = {.logits = logits,
                                .token = recent,
                                .n_token = n_recent,
                                .n_prompt = n_recent,
                                .index = index};
    return sampler_pick(p->sampler, &p->o, &in, out);
}

/* The choice for token number `index` from a copy of the logits. */
static struct candidate pick(const struct picker *s, const float *logits, int n, int64_t index)
{
    float copy[MAX_VOCAB];
    struct candidate c = {-1, 0};
    memcpy(copy, logits, (size_t)n * sizeof *copy);
    if (pick_after(s, copy, NULL, 0, index, &c) != PM_OK) FAIL("%s", pm_last_error());
    if (c.id < 0 || c.id >= n) FAIL("token %d of %d", c.id, n);
    return c;
}

/* Counts of `n_draw` draws. */
static void draw(const struct sampling *o, const float *logits, int n, int n_draw, int *count)
{
    struct picker s = open_sampler(n, o);
    memset(count, 0, (size_t)n * sizeof *count);
    for (int i = 0; i < n_draw; i++) {
        count[pick(&s, logits, n, i).id]++;
    }
    sampler_close(s.sampler);
}

/* Tokens 0 .. 5 with probabilities 1/2, 1/4 .. 1/32, 1/32, in the order 3, 0, 5, 1, 2, 4. */
static const float halves[6] = {-2, -4, -5, -1, -5, -3};
#define LN2 0.69314718055994530942

static void halves_logits(float *logits)
{
    for (int i = 0; i < 6; i++) {
        logits[i] = (float)(halves[i] * LN2 + 3);
    }
}

/* A set of tokens as digits: draws give these and no others. */
static void expect_set(const char *what, const struct sampling *o, const char *digits)
{
    float logits[6];
    int count[6];
    halves_logits(logits);
    draw(o, logits, 6, 2000, count);
    for (int i = 0; i < 6; i++) {
        bool wanted = strchr(digits, '0' + i) != NULL;
        if (wanted != (count[i] > 0)) FAIL("%s: token %d came %d times", what, i, count[i]);
    }
}

/* ------------------------------------------------------------------ greedy */

static void greedy_takes_the_best_and_the_lower_of_equals(void **state)
{
    static const float rows[][5] = {{0, 3, 1, 3, 2},
                                    {-1, -2, -1, -1, -9},
                                    {5, 1, 2, 3, 4},
                                    {1, 2, 3, 4, 5},
                                    {0, 0, 0, 0, 0}};
    static const int best[] = {1, 0, 0, 4, 0};
    struct sampling o = defaults();
    struct picker s;
    (void)state;
    o.temperature = 0;
    s = open_sampler(5, &o);
    for (int r = 0; r < 5; r++) {
        struct candidate c = pick(&s, rows[r], 5, r);
        double sum = 0;
        for (int i = 0; i < 5; i++) {
            sum += exp(rows[r][i]);
        }
        assert_int_equal(c.id, best[r]);
        assert_true(fabs(c.logprob - (rows[r][best[r]] - log(sum))) < 1e-6);
    }
    sampler_close(s.sampler);
}

static void one_token_is_always_certain(void **state)
{
    struct sampling o = defaults();
    float logit = -40;
    struct picker s = open_sampler(1, &o);
    struct candidate c = pick(&s, &logit, 1, 0);
    (void)state;
    assert_true(c.id == 0 && c.logprob == 0);
    sampler_close(s.sampler);
}

static void low_temperatures_are_greedy(void **state)
{
    static const float t[] = {0.02f, 1e-6f, 1e-30f, FLT_MIN};
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct sampling o = defaults();
        o.temperature = t[i];
        expect_set("cold", &o, "3");
    }
}

/* ------------------------------------------------------------------ truncation */

static void top_k_keeps_the_k_best(void **state)
{
    static const char *const sets[] = {"012345", "3",     "30",     "305",
                                       "3051",   "30512", "305124", "305124"};
    (void)state;
    for (int k = 0; k < 8; k++) {
        struct sampling o = defaults();
        o.top_k = k; /* 4 of 3 and 5 are equal: the lower id stays */
        expect_set("top-k", &o, sets[k]);
    }
}

static void top_p_keeps_the_fewest_that_hold_p(void **state)
{
    static const struct {
        float p;
        const char *set;
    } cases[] = {{0.001f, "3"},     {0.49f, "3"},    {0.51f, "30"},   {0.74f, "30"},
                 {0.76f, "305"},    {0.88f, "3051"}, {0.93f, "3051"}, {0.95f, "30512"},
                 {0.99f, "305124"}, {1, "305124"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sampling o = defaults();
        o.top_p = cases[i].p;
        expect_set("top-p", &o, cases[i].set);
    }
}

static void min_p_keeps_what_is_near_the_best(void **state)
{
    static const struct {
        float p;
        const char *set;
    } cases[] = {{0, "305124"}, {0.05f, "305124"}, {0.07f, "3051"}, {0.1f, "3051"},
                 {0.2f, "305"}, {0.25f, "305"},    {0.3f, "30"},    {0.5f, "30"},
                 {0.6f, "3"},   {1, "3"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sampling o = defaults();
        o.min_p = cases[i].p;
        expect_set("min-p", &o, cases[i].set);
    }
}

static void truncations_leave_what_all_of_them_keep(void **state)
{
    struct sampling o = defaults();
    (void)state;
    o.top_k = 4;
    o.top_p = 0.76f;
    expect_set("top-k 4, top-p 0.76", &o, "305");
    o.top_k = 2;
    expect_set("top-k 2, top-p 0.76", &o, "30");
    o.min_p = 0.6f;
    expect_set("min-p 0.6 as well", &o, "3");
    o = defaults();
    o.top_p = 0.95f;
    o.min_p = 0.2f;
    expect_set("top-p 0.95, min-p 0.2", &o, "305");
}

/* Temperature acts on what is left, not on what is allowed. */
static void temperature_does_not_change_the_set(void **state)
{
    static const float t[] = {0.4f, 3, 100};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct sampling o = defaults();
        o.temperature = t[i];
        o.top_p = 0.76f;
        expect_set("top-p", &o, "305");
        o.top_p = 1;
        o.min_p = 0.3f;
        expect_set("min-p", &o, "30");
    }
}

/* ------------------------------------------------------------------ penalty */

static float penalised(const float *logits, int n, struct sampling o, const int32_t *recent,
                       int n_recent, int id)
{
    float copy[MAX_VOCAB];
    struct candidate c, top[MAX_VOCAB];
    struct picker s = open_sampler(n, &o);
    memcpy(copy, logits, (size_t)n * sizeof *copy);
    assert_int_equal(pick_after(&s, copy, recent, n_recent, 0, &c), PM_OK);
    sampler_top(s.sampler, n, top);
    sampler_close(s.sampler);
    for (int i = 0; i < n; i++) {
        if (top[i].id == id) return top[i].logprob - top[0].logprob;
    }
    FAIL("token %d is not among the candidates", id);
    return 0;
}

static void penalty_divides_positive_and_multiplies_negative_logits(void **state)
{
    static const float logits[] = {8, 4, -2, 0};
    static const int32_t recent[] = {1, 2, 3, 1, 2, 1};
    struct sampling o = defaults();
    (void)state;
    o.repeat_penalty = 2;
    /* Once, however often a token came. */
    assert_true(fabsf(penalised(logits, 4, o, recent, 6, 1) - (2 - 8)) < 1e-5f);
    assert_true(fabsf(penalised(logits, 4, o, recent, 6, 2) - (-4 - 8)) < 1e-5f);
    assert_true(fabsf(penalised(logits, 4, o, recent, 6, 3) - (0 - 8)) < 1e-5f);
    assert_true(fabsf(penalised(logits, 4, o, recent, 0, 1) - (4 - 8)) < 1e-5f);
    o.repeat_penalty = 1;
    assert_true(fabsf(penalised(logits, 4, o, recent, 6, 1) - (4 - 8)) < 1e-5f);
}

static void penalty_looks_at_the_last_tokens_only(void **state)
{
    static const float logits[] = {8, 4, 4, 4};
    struct sampling o = defaults();
    int32_t recent[100];
    (void)state;
    o.repeat_penalty = 2;
    o.repeat_last = 2;
    for (int i = 0; i < 100; i++) {
        recent[i] = i < 97 ? 1 : i == 97 ? 2 : 3;
    }
    assert_true(fabsf(penalised(logits, 4, o, recent, 100, 2) - -4) < 1e-5f);
    assert_true(fabsf(penalised(logits, 4, o, recent, 100, 3) - -6) < 1e-5f);
    o.repeat_last = 3;
    assert_true(fabsf(penalised(logits, 4, o, recent, 100, 2) - -6) < 1e-5f);
    assert_true(fabsf(penalised(logits, 4, o, recent, 100, 1) - -4) < 1e-5f);
    /* 64 is what it is when nothing is said. */
    o.repeat_last = 0;
    for (int i = 0; i < 100; i++) {
        recent[i] = i == 35 ? 1 : i == 36 ? 2 : 3;
    }
    assert_true(fabsf(penalised(logits, 4, o, recent, 100, 1) - -4) < 1e-5f);
    assert_true(fabsf(penalised(logits, 4, o, recent, 100, 2) - -6) < 1e-5f);
}

static void penalty_changes_the_greedy_choice_and_its_probability(void **state)
{
    static const int32_t recent[] = {0, -1, 5, 1000000};
    float logits[] = {2, 1.5f, -1};
    struct sampling o = defaults();
    struct candidate c;
    struct picker s;
    (void)state;
    o.temperature = 0;
    o.repeat_penalty = 4;
    s = open_sampler(3, &o);
    assert_int_equal(pick_after(&s, logits, recent, 4, 0, &c), PM_OK);
    assert_int_equal(c.id, 1);
    assert_true(fabs(c.logprob - (1.5 - log(exp(0.5) + exp(1.5) + exp(-1)))) < 1e-6);
    sampler_close(s.sampler);
}

/* ------------------------------------------------------------------ draws */

static void the_same_seed_gives_the_same_tokens(void **state)
{
    float logits[50] = {0};
    struct sampling o = defaults(), other = defaults();
    struct picker a, b, c;
    int same = 0, repeated = 0, last = -1;
    (void)state;
    other.seed = 8;
    a = open_sampler(50, &o);
    b = open_sampler(50, &o);
    c = open_sampler(50, &other);
    for (int i = 0; i < 1000; i++) {
        int id = pick(&a, logits, 50, i).id;
        same += id == pick(&c, logits, 50, i).id;
        repeated += id == last;
        last = id;
    }
    /* 20 of 1000 by chance. */
    assert_true(same > 0 && same < 50);
    assert_true(repeated > 0 && repeated < 50);
    /* A sequence can be taken up at any token. */
    for (int i = 999; i >= 0; i -= 7) {
        assert_int_equal(pick(&b, logits, 50, i).id, pick(&a, logits, 50, i).id);
    }
    sampler_close(a.sampler);
    sampler_close(b.sampler);
    sampler_close(c.sampler);
}

static double chi_square(const int *count, const double *p, int n, int n_draw)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double want = p[i] * n_draw;
        if (want == 0 && count[i]) return INFINITY;
        if (want > 0) sum += (count[i] - want) * (count[i] - want) / want;
    }
    return sum;
}

/* p[i] = exp(logit / temperature) over the tokens that `kept` names, or all. */
static void probabilities(double *p, const float *logits, int n, double temperature,
                          const char *kept)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        bool in = !kept || strchr(kept, '0' + i);
        p[i] = in ? exp(logits[i] / temperature) : 0;
        sum += p[i];
    }
    for (int i = 0; i < n; i++) {
        p[i] /= sum;
    }
}

static void draws_follow_the_distribution(void **state)
{
    static const struct {
        float temperature, top_p;
        const char *kept;
        double bound; /* exceeded with a probability of 1e-4 at that many degrees of freedom */
    } cases[] = {{1, 1, NULL, 25.74},
                 {0.5f, 1, NULL, 25.74},
                 {2.5f, 1, NULL, 25.74},
                 {1, 0.76f, "305", 18.42},
                 {0.7f, 0.76f, "305", 18.42}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sampling o = defaults();
        float logits[6];
        double p[6], x;
        int count[6];
        halves_logits(logits);
        o.temperature = cases[i].temperature;
        o.top_p = cases[i].top_p;
        draw(&o, logits, 6, N_DRAW, count);
        probabilities(p, logits, 6, o.temperature, cases[i].kept);
        x = chi_square(count, p, 6, N_DRAW);
        if (!(x < cases[i].bound)) FAIL("case %d: chi square %g", (int)i, x);
        /* Truer than chance would be, it is not a draw. */
        assert_true(x > 0.001);
    }
}

static void draws_from_many_tokens_follow_the_distribution(void **state)
{
    enum { N = 500 };
    struct sampling o = defaults();
    float logits[N];
    double p[N], x;
    int count[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        logits[i] = (float)sin(i * 0.7);
    }
    draw(&o, logits, N, N_DRAW, count);
    probabilities(p, logits, N, 1, NULL);
    x = chi_square(count, p, N, N_DRAW);
    /* 499 degrees of freedom: mean 499, deviation 31.6; four of them. */
    if (!(x > 499 - 4 * 31.6 && x < 499 + 4 * 31.6)) FAIL("chi square %g", x);
}

/* Neighbours in token number and in seed have nothing to do with each other. */
static void neighbouring_draws_are_independent(void **state)
{
    enum { N = 8 };
    float logits[N] = {0};
    int pair[2][N * N] = {{0}};
    double p[N * N];
    (void)state;
    for (int seed = 0; seed < 200; seed++) {
        struct sampling o = defaults(), next = defaults();
        struct picker a, b;
        o.seed = (uint64_t)seed;
        next.seed = (uint64_t)seed + 1;
        a = open_sampler(N, &o);
        b = open_sampler(N, &next);
        for (int i = 0; i < 250; i++) {
            int id = pick(&a, logits, N, i).id;
            pair[0][id * N + pick(&a, logits, N, i + 1).id]++;
            pair[1][id * N + pick(&b, logits, N, i).id]++;
        }
        sampler_close(a.sampler);
        sampler_close(b.sampler);
    }
    for (int i = 0; i < N * N; i++) {
        p[i] = 1.0 / (N * N);
    }
    for (int i = 0; i < 2; i++) {
        double x = chi_square(pair[i], p, N * N, 200 * 250);
        /* 63 degrees of freedom: mean 63, deviation 11.2; draws overlap, so five of them. */
        if (!(x < 63 + 5 * 11.2)) FAIL("%s: chi square %g", i ? "seeds" : "tokens", x);
    }
}

/* ------------------------------------------------------------------ candidates */

static void candidates_come_best_first_with_log_probabilities(void **state)
{
    static const int32_t order[] = {3, 0, 5, 1, 2, 4};
    struct candidate top[6] = {{-7, -7}, {-7, -7}, {-7, -7}, {-7, -7}, {-7, -7}, {-7, -7}};
    struct sampling o = defaults();
    struct picker s;
    float logits[6];
    (void)state;
    for (int cold = 0; cold < 2; cold++) {
        struct candidate c;
        o.temperature = cold ? 0 : 0.8f;
        o.top_k = 2; /* is not seen here */
        s = open_sampler(6, &o);
        halves_logits(logits);
        assert_int_equal(pick_after(&s, logits, NULL, 0, 0, &c), PM_OK);
        sampler_top(s.sampler, 3, top);
        assert_int_equal(top[3].id, -7);
        sampler_top(s.sampler, 6, top);
        for (int i = 0; i < 6; i++) {
            assert_int_equal(top[i].id, order[i]);
            assert_true(fabs(top[i].logprob - halves[order[i]] * LN2) < 1e-6);
            assert_true(fabs(log_probability(logits, 6, order[i]) - halves[order[i]] * LN2) <
                        1e-6);
            top[i].id = -7;
        }
        sampler_top(s.sampler, 100, top); /* there are 6 */
        assert_int_equal(top[5].id, 4);
        top[3].id = -7;
        sampler_close(s.sampler);
    }
}

static void log_probabilities_survive_large_logits(void **state)
{
    static const float logits[] = {-3e38f, 1e5f, 1e5f, 0};
    (void)state;
    assert_true(fabs(log_probability(logits, 4, 1) - -LN2) < 1e-9);
    assert_true(fabs(log_probability(logits, 4, 3) - (-1e5 - LN2)) < 1e-9);
    assert_true(log_probability(logits, 4, 0) <= -2.9e38);
}

/* ------------------------------------------------------------------ broken logits */

static void what_is_not_a_number_is_an_error(void **state)
{
    (void)state;
    for (int c = 0; c < 3 * 2; c++) {
        struct sampling o = defaults();
        struct candidate kept = {42, 1};
        struct picker s;
        float logits[6];
        int at = c / 2 == 0 ? 0 : c / 2 == 1 ? 3 : 5;
        o.temperature = c % 2 ? 0 : 1;
        s = open_sampler(6, &o);
        halves_logits(logits);
        logits[at] = NAN;
        assert_int_equal(pick_after(&s, logits, NULL, 0, 0, &kept), PM_ERR_DEVICE);
        assert_true(kept.id == 42 && kept.logprob == 1);
        assert_non_null(strstr(pm_last_error(), at == 0   ? "token 0"
                                                : at == 3 ? "token 3"
                                                          : "token 5"));
        sampler_close(s.sampler);
    }
}

/* Tokens that someone ruled out. */
static void minus_infinity_is_never_drawn(void **state)
{
    static const float t[] = {0, 1, 100};
    (void)state;
    for (int c = 0; c < 3; c++) {
        struct sampling o = defaults();
        float logits[6];
        int count[6];
        o.temperature = t[c];
        halves_logits(logits);
        logits[3] = logits[0] = logits[4] = -INFINITY;
        draw(&o, logits, 6, 3000, count);
        assert_true(count[3] == 0 && count[0] == 0 && count[4] == 0 && count[5] > 0);
        o.top_k = 5;
        o.min_p = 1e-6f;
        draw(&o, logits, 6, 3000, count);
        assert_true(count[3] == 0 && count[0] == 0 && count[4] == 0 && count[5] > 0);
    }
}

/* An overflow is an error or the obvious token, never something else. */
static void infinite_logits_do_not_give_nonsense(void **state)
{
    (void)state;
    for (int c = 0; c < 2 * 3; c++) {
        struct sampling o = defaults();
        struct candidate got = {42, 1};
        struct picker s;
        float logits[6];
        pm_status status;
        o.temperature = (float)(c % 3);
        s = open_sampler(6, &o);
        halves_logits(logits);
        logits[2] = INFINITY;
        for (int i = 0; i < 6 && c / 3; i++) {
            logits[i] = -INFINITY;
        }
        status = pick_after(&s, logits, NULL, 0, 0, &got);
        if (status == PM_OK && (got.id < 0 || got.id > 5 || isnan(got.logprob))) {
            FAIL("%s at temperature %g: token %d of 6, log probability %g",
                 c / 3 ? "all -inf" : "one inf", (double)o.temperature, got.id,
                 (double)got.logprob);
        }
        if (status == PM_OK && c / 3 == 0) assert_int_equal(got.id, 2);
        if (status != PM_OK) assert_int_equal(status, PM_ERR_DEVICE);
        sampler_close(s.sampler);
    }
}

static void settings_out_of_range_are_refused(void **state)
{
    static const struct {
        float temperature, top_p, min_p, penalty;
        int top_k;
        const char *part;
    } cases[] = {
        {-1, 1, 0, 1, 0, "temperature: found -1"},
        {101, 1, 0, 1, 0, "temperature"},
        {NAN, 1, 0, 1, 0, "temperature"},
        {1, 0, 0, 1, 0, "top-p: found 0"},
        {1, 1.5f, 0, 1, 0, "top-p"},
        {1, NAN, 0, 1, 0, "top-p"},
        {1, 1, -0.1f, 1, 0, "min-p"},
        {1, 1, 1.1f, 1, 0, "min-p"},
        {1, 1, NAN, 1, 0, "min-p"},
        {1, 1, 0, 0, 0, "repeat-penalty"},
        {1, 1, 0, -1, 0, "repeat-penalty"},
        {1, 1, 0, 101, 0, "repeat-penalty"},
        {1, 1, 0, 1, -1, "top-k: found -1"},
        {INFINITY, 1, 0, 1, 0, "temperature"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sampling o = {.temperature = cases[i].temperature,
                             .top_k = cases[i].top_k,
                             .top_p = cases[i].top_p,
                             .min_p = cases[i].min_p,
                             .repeat_penalty = cases[i].penalty};
        assert_int_equal(sampling_check(&o, 6), PM_ERR_ARG);
        if (!strstr(pm_last_error(), cases[i].part))
            FAIL("case %d: %s", (int)i, pm_last_error());
    }
    sampler_close(NULL);
}

static void penalties_and_biases_out_of_range_are_refused(void **state)
{
    static const pm_logit_bias wrong[] = {{-1, 0}, {6, 0}, {0, NAN}, {0, INFINITY}};
    static const pm_logit_bias right = {5, -INFINITY};
    struct sampling o = defaults();
    (void)state;
    o.n_bias = 1;
    o.bias = &right;
    assert_int_equal(sampling_check(&o, 6), PM_OK);
    for (int i = 0; i < 4; i++) {
        o.bias = &wrong[i];
        assert_int_equal(sampling_check(&o, 6), PM_ERR_ARG);
    }
    o.n_bias = 0;
    o.presence = NAN;
    assert_int_equal(sampling_check(&o, 6), PM_ERR_ARG);
    o.presence = 0;
    o.frequency = 101;
    assert_int_equal(sampling_check(&o, 6), PM_ERR_ARG);
    assert_non_null(strstr(pm_last_error(), "frequency penalty: found 101"));
}

/* ------------------------------------------------------------------ penalties of generated */

/* Logits after a pick, relative to those before. */
static void changes(const struct sampling *o, const int32_t *token, int n, int n_prompt,
                    float *change, int n_vocab)
{
    struct picker p = open_sampler(n_vocab, o);
    float logits[MAX_VOCAB] = {0};
    struct sampling_input in = {
        .logits = logits, .token = token, .n_token = n, .n_prompt = n_prompt};
    struct candidate c;
    for (int twice = 0; twice < 2; twice++) { /* nothing is left of the first time */
        memset(logits, 0, sizeof logits);
        assert_int_equal(sampler_pick(p.sampler, o, &in, &c), PM_OK);
        if (twice) assert_memory_equal(change, logits, (size_t)n_vocab * sizeof *change);
        memcpy(change, logits, (size_t)n_vocab * sizeof *change);
    }
    sampler_close(p.sampler);
}

static void presence_counts_once_and_frequency_each_time(void **state)
{
    static const int32_t token[] = {0, 1, 1, 2, 3, 2, 2, -1, 9};
    struct sampling o = defaults();
    float change[5];
    (void)state;
    o.presence = 0.5f;
    o.frequency = 0.25f;
    changes(&o, token, 9, 3, change, 5); /* the prompt's 0 1 1 does not count */
    assert_true(change[0] == 0 && change[1] == 0 && change[4] == 0);
    assert_true(change[2] == -1.25f && change[3] == -0.75f);
    o.presence = 0;
    o.frequency = -1;
    changes(&o, token, 9, 0, change, 5);
    assert_true(change[0] == 1 && change[1] == 2 && change[2] == 3 && change[4] == 0);
}

static void biases_come_before_penalties(void **state)
{
    static const pm_logit_bias bias[] = {{1, 4}, {2, -INFINITY}};
    static const int32_t token[] = {1, 0};
    struct sampling o = defaults();
    float change[3];
    (void)state;
    o.bias = bias;
    o.n_bias = 2;
    o.repeat_penalty = 2;
    changes(&o, token, 2, 0, change, 3);
    assert_true(change[0] == 0 && change[1] == 2 && change[2] == -INFINITY);
}

static void only_what_the_mask_allows_comes(void **state)
{
    enum { N = 70 };
    uint32_t allowed[3] = {0, 1u << 5, 1u << 3}; /* 37 and 67 */
    int count[N] = {0};
    (void)state;
    for (int cold = 0; cold < 2; cold++) {
        struct sampling o = defaults();
        struct picker p;
        o.temperature = cold ? 0 : 1;
        p = open_sampler(N, &o);
        for (int i = 0; i < 500; i++) {
            float logits[N];
            struct sampling_input in = {.logits = logits, .allowed = allowed, .index = i};
            struct candidate c;
            for (int j = 0; j < N; j++) {
                logits[j] = j == 67 ? 1 : 2;
            }
            assert_int_equal(sampler_pick(p.sampler, &o, &in, &c), PM_OK);
            count[c.id]++;
            if (cold) assert_int_equal(c.id, 37);
            /* What is broken is not hidden by the mask. */
            logits[3] = NAN;
            assert_int_equal(sampler_pick(p.sampler, &o, &in, &c), PM_ERR_DEVICE);
        }
        sampler_close(p.sampler);
    }
    assert_true(count[67] > 0 && count[37] + count[67] == 1000);
}

static int by_probability(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    if (a->logprob != b->logprob) return a->logprob < b->logprob ? 1 : -1;
    return a->id < b->id ? -1 : 1;
}

/* The best in order, against a sort, for distributions from flat to steep, with many equals. */
static void the_best_are_those_of_a_sort(void **state)
{
    static struct candidate want[MAX_VOCAB], got[MAX_VOCAB];
    static float logits[MAX_VOCAB];
    uint64_t random = 5;
    (void)state;
    for (int round = 0; round < 40; round++) {
        struct sampling o = defaults();
        struct picker p = open_sampler(MAX_VOCAB, &o);
        float steep = (float)(round % 8) * 8, unused;
        for (int i = 0; i < MAX_VOCAB; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            logits[i] = steep * (float)(random >> 56) / 256;
        }
        for (int i = 0; i < MAX_VOCAB; i++) {
            float logprob;
            assert_int_equal(sampler_look(p.sampler, logits, i, 0, NULL, &logprob), PM_OK);
            if (i % 100 == 0) {
                double exact = log_probability(logits, MAX_VOCAB, i);
                assert_true(fabs(logprob - exact) < 4e-6);
            }
            want[i] = (struct candidate){i, logprob};
        }
        qsort(want, MAX_VOCAB, sizeof *want, by_probability);
        for (int n = 1; n <= MAX_VOCAB; n = n * 3 + 1) {
            assert_int_equal(sampler_look(p.sampler, logits, 0, n, got, &unused), PM_OK);
            assert_memory_equal(got, want, (size_t)n * sizeof *got);
        }
        sampler_close(p.sampler);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_best_and_the_lower_of_equals),
        cmocka_unit_test(one_token_is_always_certain),
        cmocka_unit_test(low_temperatures_are_greedy),
        cmocka_unit_test(top_k_keeps_the_k_best),
        cmocka_unit_test(top_p_keeps_the_fewest_that_hold_p),
        cmocka_unit_test(min_p_keeps_what_is_near_the_best),
        cmocka_unit_test(truncations_leave_what_all_of_them_keep),
        cmocka_unit_test(temperature_does_not_change_the_set),
        cmocka_unit_test(penalty_divides_positive_and_multiplies_negative_logits),
        cmocka_unit_test(penalty_looks_at_the_last_tokens_only),
        cmocka_unit_test(penalty_changes_the_greedy_choice_and_its_probability),
        cmocka_unit_test(the_same_seed_gives_the_same_tokens),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(draws_from_many_tokens_follow_the_distribution),
        cmocka_unit_test(neighbouring_draws_are_independent),
        cmocka_unit_test(candidates_come_best_first_with_log_probabilities),
        cmocka_unit_test(log_probabilities_survive_large_logits),
        cmocka_unit_test(what_is_not_a_number_is_an_error),
        cmocka_unit_test(minus_infinity_is_never_drawn),
        cmocka_unit_test(infinite_logits_do_not_give_nonsense),
        cmocka_unit_test(settings_out_of_range_are_refused),
        cmocka_unit_test(penalties_and_biases_out_of_range_are_refused),
        cmocka_unit_test(presence_counts_once_and_frequency_each_time),
        cmocka_unit_test(biases_come_before_penalties),
        cmocka_unit_test(only_what_the_mask_allows_comes),
        cmocka_unit_test(the_best_are_those_of_a_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
