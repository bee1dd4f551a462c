/* attention_test.c - causal attention over the paged cache, plain and latent.
 *
 * A scene is what a model would bring: queries, keys and values of every token of some
 * sequences. A test feeds pieces of them in steps, through kv_write, and looks at the rows that
 * come out: against the oracle, and against the same rows that came in other steps, with other
 * company or other threads, whose bits must be equal. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/oracle/oracle.h"
#include "tests/oracle/paged.h"

enum { MAX_SEQ = 8, MAX_PIECE = 512 };

/* latent > 0: MLA with kv_b of weight type `weights`; then k_dim = latent + rope and one
 * "head". */
struct shape {
    int n_head, n_kv_head, k_dim, v_dim;
    int window, chunk;
    bool sink;
    int nope, rope, latent;
    pm_dtype weights;
};

struct scene {
    struct shape shape;
    struct paged paged;
    struct tensor q[MAX_SEQ], k[MAX_SEQ], v[MAX_SEQ]; /* [length, ...] */
    struct tensor kv_b;
    float *sink;
    float scale;
    int n_seq;
};

static int query_dim(const struct shape *s)
{
    return s->latent ? s->nope + s->rope : s->k_dim;
}

static struct scene scene(struct rig *rig, const struct shape *shape, pm_dtype type,
                          const int *length, int n_seq)
{
    struct scene s = {.shape = *shape, .n_seq = n_seq};
    int heads = shape->n_kv_head, v_dim = shape->latent ? 0 : shape->v_dim;
    s.paged = paged_open(rig, type, heads, shape->k_dim, v_dim, length, n_seq);
    s.scale = (float)(1 / sqrt(query_dim(shape)));
    if (shape->sink) s.sink = rig_floats(rig, shape->n_head, 2);
    for (int i = 0; i < n_seq; i++) {
        s.q[i] = rig_matrix(rig, length[i], (int64_t)shape->n_head * query_dim(shape));
        s.k[i] = rig_matrix(rig, length[i], (int64_t)heads * shape->k_dim);
        if (v_dim) s.v[i] = rig_matrix(rig, length[i], (int64_t)heads * v_dim);
    }
    if (shape->latent) {
        int64_t rows = (int64_t)shape->n_head * (shape->nope + shape->v_dim);
        s.kv_b = rig_weights(rig, shape->weights, rows, shape->latent);
    }
    return s;
}

/* One step: cache writes, then attention, with `n_padding` padding rows after each piece. */
struct step {
    struct attention_rows rows;
    struct attention plain;
    struct attention_mla mla;
    struct tensor out;
};

static struct step run(struct rig *rig, struct device *d, struct scene *s,
                       const struct piece *piece, int n, int n_padding)
{
    const struct shape *h = &s->shape;
    struct step step = {.rows = paged_rows(rig, &s->paged, piece, n, n_padding)};
    struct tensor k = paged_gather(rig, s->k, piece, n, n_padding), v = {0};
    struct tensor q = paged_gather(rig, s->q, piece, n, n_padding);
    if (!h->latent) v = paged_gather(rig, s->v, piece, n, n_padding);
    step.out = rig_matrix(rig, k.rows, (int64_t)h->n_head * h->v_dim);
    step.plain = (struct attention){step.out, q,         &s->paged.kv, NULL,   h->n_head,
                                    s->scale, h->window, h->chunk,     s->sink};
    step.mla =
        (struct attention_mla){step.out, q,       s->kv_b,  &s->paged.kv, NULL,    h->n_head,
                               h->nope,  h->rope, h->v_dim, h->latent,    s->scale};
    step.plain.rows = step.mla.rows = &step.rows;
    expect_ok(rig->k->kv_write(d, &s->paged.kv, k, v, &step.rows));
    expect_ok(h->latent ? rig->k->attention_mla(d, &step.mla)
                        : rig->k->attention(d, &step.plain));
    return step;
}

/* The rows of a step against the oracle, padding rows left out. */
static void check(struct rig *rig, struct scene *s, struct step *step)
{
    const struct shape *h = &s->shape;
    double unit = s->paged.kv.type == PM_BF16 ? rig->bf16_unit : 0;
    int64_t n = step->out.cols;
    double *want = rig_doubles(rig, step->out.rows * n);
    double *bound = rig_doubles(rig, step->out.rows * n);
    char name[120];
    step->plain.rows = step->mla.rows = &step->rows; /* the step may have been copied */
    if (h->latent) {
        oracle_attention_mla(want, bound, &step->mla, unit);
    } else {
        oracle_attention(want, bound, &step->plain, unit);
    }
    snprintf(name, sizeof name, "%s heads %d/%d dims %d/%d window %d chunk %d latent %d %s",
             dtype_name(s->paged.kv.type), h->n_head, h->n_kv_head, h->k_dim, h->v_dim,
             h->window, h->chunk, h->latent, h->latent ? dtype_name(h->weights) : "");
    for (int64_t r = 0; r < step->out.rows; r++) {
        struct tensor row = tensor_rows(&step->out, r, 1);
        if (step->rows.slot[r] >= 0) expect_close(name, &row, want + r * n, bound + r * n);
    }
}

/* Everything at once: sequence s whole. */
static int whole(const int *length, int n_seq, struct piece *piece)
{
    for (int i = 0; i < n_seq; i++) {
        piece[i] = (struct piece){i, 0, length[i]};
    }
    return n_seq;
}

static const pm_dtype cache_types[] = {PM_F32, PM_F16, PM_BF16};

static const struct shape plain[] = {
    {4, 4, 64, 64, .sink = false}, {16, 1, 64, 64, .sink = true},
    {6, 2, 80, 80, .sink = false}, {8, 2, 96, 96, .window = 7},
    {5, 1, 128, 128, .chunk = 0},  {16, 8, 128, 128, .window = 16, .sink = true},
    {2, 1, 192, 128, .chunk = 0},  {3, 3, 33, 17, .chunk = 0},
    {1, 1, 1, 1, .chunk = 0},      {12, 4, 64, 64, .chunk = 24},
    {8, 8, 16, 16, .window = 1},   {20, 2, 40, 24, .window = 100, .sink = true},
    {16, 2, 64, 64, .window = 33}, {4, 2, 64, 64, .window = 40, .chunk = 50},
    {30, 2, 20, 20, .chunk = 1},
};

static const struct shape latent[] = {
    {2, 1, 576, 128, .nope = 128, .rope = 64, .latent = 512, .weights = PM_BF16},
    {3, 1, 28, 12, .nope = 16, .rope = 8, .latent = 20, .weights = PM_F32},
    {4, 1, 49, 32, .nope = 32, .rope = 16, .latent = 33, .weights = PM_BF16},
    {5, 1, 160, 48, .nope = 40, .rope = 32, .latent = 128, .weights = PM_F8_E4M3},
    {2, 1, 196, 130, .nope = 70, .rope = 36, .latent = 160, .weights = PM_F8_E4M3},
    {3, 1, 80, 16, .nope = 24, .rope = 16, .latent = 64, .weights = PM_F16},
};

enum { N_PLAIN = sizeof plain / sizeof *plain, N_LATENT = sizeof latent / sizeof *latent };

static const struct shape *shape_at(int i)
{
    return i < N_PLAIN ? &plain[i] : &latent[i - N_PLAIN];
}

/* Sequences that end in a block's middle, at its end, after one token. */
static const int mixed[] = {37, 1, 64, 130, 16, 2};

enum { N_MIXED = sizeof mixed / sizeof *mixed };

static void prompts_match_oracle(void **state)
{
    struct rig *rig = *state;
    for (int c = 0; c < (N_PLAIN + N_LATENT) * 3; c++) {
        struct scene s = scene(rig, shape_at(c / 3), cache_types[c % 3], mixed, N_MIXED);
        struct piece piece[MAX_SEQ];
        struct step step = run(rig, rig->d, &s, piece, whole(mixed, N_MIXED, piece), c % 2);
        check(rig, &s, &step);
        rig_end(state);
    }
}

/* Steps of a running server: some sequences decode a token, others get a piece of a prompt. */
static void mixed_steps_match_oracle(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {80, 300, 33, 17};
    static const struct piece first[] = {{2, 0, 32}, {0, 0, 79}, {1, 0, 257}, {3, 0, 5}};
    static const struct piece second[] = {
        {3, 5, 17}, {0, 79, 80}, {2, 32, 32}, {1, 257, 300}, {2, 32, 33}};
    for (int c = 0; c < (N_PLAIN + N_LATENT) * 3; c += 2) {
        struct scene s = scene(rig, shape_at(c / 3), cache_types[c % 3], length, 4);
        struct step step;
        run(rig, rig->d, &s, first, 4, 0);
        step = run(rig, rig->d, &s, second, 5, c % 2);
        check(rig, &s, &step);
        rig_end(state);
    }
}

/* Scores so far apart that most weights vanish, and so large that float32 has no exponent left
 * over. */
static void peaked_softmax_matches_oracle(void **state)
{
    struct rig *rig = *state;
    static const float scale[] = {2, 100, -1, 0};
    for (int c = 0; c < 4 * 3 * 2; c++) {
        struct scene s =
            scene(rig, c % 2 ? &plain[0] : &latent[1], cache_types[c / 2 % 3], mixed, 4);
        struct piece piece[MAX_SEQ];
        struct step step;
        s.scale = scale[c / 6];
        step = run(rig, rig->d, &s, piece, whole(mixed, 4, piece), 0);
        check(rig, &s, &step);
        rig_end(state);
    }
}

/* Contexts so long that a task holds fewer queries; a short neighbour shares the step. */
static void long_contexts_match_oracle(void **state)
{
    struct rig *rig = *state;
    static const int lengths[][2] = {{5000, 40}, {33000, 7}};
    static const struct shape shapes[] = {{4, 1, 16, 8, .sink = true},
                                          {2, 1, 24, 8, .nope = 8, .rope = 8, .latent = 16}};
    for (int c = 0; c < 4; c++) {
        const int *length = lengths[c / 2];
        struct scene s = scene(rig, &shapes[c % 2], cache_types[c % 3], length, 2);
        struct piece past = {0, 0, length[0] - 3};
        struct piece both[] = {{0, length[0] - 3, length[0]}, {1, 0, length[1]}};
        struct step step, alone;
        struct tensor part;
        struct attention_rows rows = paged_rows(rig, &s.paged, &past, 1, 0);
        struct tensor k = paged_gather(rig, s.k, &past, 1, 0), v = {0};
        if (!s.shape.latent) v = paged_gather(rig, s.v, &past, 1, 0);
        expect_ok(rig->k->kv_write(rig->d, &s.paged.kv, k, v, &rows));
        step = run(rig, rig->d, &s, both, 2, 0);
        check(rig, &s, &step);
        alone = run(rig, rig->d, &s, &both[1], 1, 0);
        part = tensor_rows(&step.out, 3, length[1]);
        expect_same("beside a long sequence", &part, &alone.out);
        rig_end(state);
    }
}

/* ------------------------------------------------------------------ the same bits */

/* Rows first .. of the whole run against those of a step. */
static void expect_rows(const char *what, const struct tensor *all, int64_t first,
                        const struct tensor *some)
{
    struct tensor part = tensor_rows(all, first, some->rows);
    expect_same(what, &part, some);
}

static void rows_do_not_depend_on_how_a_prompt_is_cut(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {131}, cuts[] = {1, 3, 16, 50};
    for (int c = 0; c < (N_PLAIN + N_LATENT) * 3; c += 2) {
        struct scene s = scene(rig, shape_at(c / 3), cache_types[c % 3], length, 1);
        struct piece all = {0, 0, 131};
        struct step want = run(rig, rig->d, &s, &all, 1, 0);
        for (int i = 0; i < 4; i++) {
            /* A fresh pool: nothing after the current piece has been written. */
            s.paged = paged_open(rig, cache_types[c % 3], s.shape.n_kv_head, s.shape.k_dim,
                                 s.shape.latent ? 0 : s.shape.v_dim, length, 1);
            for (int first = 0; first < 131; first += cuts[i]) {
                struct piece piece = {0, first, (int)min_i64(first + cuts[i], 131)};
                struct step step = run(rig, rig->device[i % 3], &s, &piece, 1, 0);
                expect_rows("cut prompt", &want.out, first, &step.out);
            }
        }
        rig_end(state);
    }
}

static void rows_do_not_depend_on_their_company(void **state)
{
    struct rig *rig = *state;
    for (int c = 0; c < N_PLAIN + N_LATENT; c++) {
        struct scene s = scene(rig, shape_at(c), cache_types[c % 3], mixed, N_MIXED);
        struct piece piece[MAX_SEQ];
        struct step all = run(rig, rig->d, &s, piece, whole(mixed, N_MIXED, piece), 0);
        for (int i = 0; i < N_MIXED; i++) {
            /* Other blocks, too. */
            s.paged = paged_open(rig, cache_types[c % 3], s.shape.n_kv_head, s.shape.k_dim,
                                 s.shape.latent ? 0 : s.shape.v_dim, mixed, N_MIXED);
            struct step alone = run(rig, rig->d, &s, &piece[i], 1, 0);
            expect_rows("alone", &all.out, all.rows.q_start[i], &alone.out);
        }
        rig_end(state);
    }
}

static void rows_do_not_depend_on_the_threads(void **state)
{
    struct rig *rig = *state;
    for (int c = 0; c < N_PLAIN + N_LATENT; c++) {
        struct scene s = scene(rig, shape_at(c), cache_types[c % 3], mixed, N_MIXED);
        struct piece piece[MAX_SEQ];
        struct step all = run(rig, rig->d, &s, piece, whole(mixed, N_MIXED, piece), 0);
        for (int i = 0; i < RIG_DEVICES; i++) {
            struct step again = run(rig, rig->device[i], &s, piece, N_MIXED, 0);
            expect_same("threads", &again.out, &all.out);
        }
        rig_end(state);
    }
}

/* ------------------------------------------------------------------ edges */

/* With queries of zero the result is the mean of what is seen: values are their positions. */
static void windows_and_chunks_show_exactly_their_positions(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {70}, bounds[] = {0, 1, 2, 16, 17, 69, 70, 71};
    for (int c = 0; c < 8 * 8; c++) {
        struct shape shape = {2, 1, 8, 8, bounds[c / 8], bounds[c % 8], .sink = false};
        struct scene s = scene(rig, &shape, PM_F32, length, 1);
        struct piece all = {0, 0, 70};
        struct step step;
        for (int r = 0; r < 70; r++) {
            for (int i = 0; i < 16; i++) {
                rig_row(&s.q[0], r)[i] = 0;
                rig_row(&s.v[0], r)[i % 8] = (float)r;
            }
        }
        step = run(rig, rig->d, &s, &all, 1, 0);
        for (int r = 0; r < 70; r++) {
            int window = shape.window ? r - shape.window + 1 : 0;
            int chunk = shape.chunk ? r - r % shape.chunk : 0;
            int first = window > chunk ? window : chunk;
            double mean = ((first > 0 ? first : 0) + r) / 2.0;
            assert_true(fabs(rig_row(&step.out, r)[3] - mean) <= 1e-4);
        }
        rig_end(state);
    }
}

static void a_sink_takes_its_share(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {20};
    struct shape with = plain[0];
    struct piece all = {0, 0, 20};
    struct scene s;
    struct step step, none;
    with.sink = true;
    s = scene(rig, &with, PM_F32, length, 1);
    s.sink[0] = -INFINITY;
    s.sink[1] = 3e38f;
    s.sink[2] = 0;
    step = run(rig, rig->d, &s, &all, 1, 0);
    s.sink = NULL;
    none = run(rig, rig->d, &s, &all, 1, 0);
    for (int r = 0; r < 20; r++) {
        const float *a = rig_row(&step.out, r), *b = rig_row(&none.out, r);
        assert_memory_equal(a, b, 64 * sizeof(float));
        for (int i = 64; i < 128; i++) {
            assert_true(a[i] == 0);
        }
        for (int i = 128; i < 192; i++) {
            assert_true(fabsf(a[i]) < fabsf(b[i]));
        }
    }
}

static void what_is_not_a_number_stays_in_its_row(void **state)
{
    struct rig *rig = *state;
    static const float bad[] = {NAN, INFINITY, 3e38f};
    for (int c = 0; c < 3 * 2; c++) {
        struct scene s = scene(rig, c % 2 ? &plain[0] : &latent[1], PM_F32, mixed, 3);
        struct piece piece[MAX_SEQ];
        int n = whole(mixed, 3, piece);
        struct step good = run(rig, rig->d, &s, piece, n, 0), step;
        for (int64_t i = 0; i < s.q[0].cols; i++) {
            rig_row(&s.q[0], 5)[i] = bad[c / 2];
        }
        step = run(rig, rig->d, &s, piece, n, 0);
        for (int r = 0; r < good.rows.n_row; r++) {
            struct tensor a = tensor_rows(&good.out, r, 1), b = tensor_rows(&step.out, r, 1);
            if (r != 5) expect_same("beside a broken row", &a, &b);
        }
        if (c < 2) assert_true(isnan(rig_row(&step.out, 5)[0]));
        rig_end(state);
    }
}

/* Keys and values that are not numbers reach the rows that see them and no others, whoever
 * shares the step: a weight of zero is no way to leave them out. */
static void broken_tokens_reach_only_rows_that_see_them(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {90}, windows[] = {0, 5};
    static const struct piece all = {0, 0, 90};
    static const float bad[] = {NAN, INFINITY};
    for (int c = 0; c < 2 * 2 * 2 * 3; c++) {
        struct shape shape = c % 2 ? latent[1] : plain[2];
        struct scene s;
        struct step good, step;
        shape.window = c % 2 ? 0 : windows[c / 2 % 2];
        s = scene(rig, &shape, cache_types[c / 8], length, 1);
        good = run(rig, rig->d, &s, &all, 1, 0);
        if (c % 2) rig_row(&s.k[0], 41)[3] = bad[c / 4 % 2];
        if (c % 2 == 0) rig_row(&s.v[0], 41)[3] = bad[c / 4 % 2];
        step = run(rig, rig->d, &s, &all, 1, 0);
        for (int r = 0; r < 90; r++) {
            struct tensor a = tensor_rows(&good.out, r, 1), b = tensor_rows(&step.out, r, 1);
            bool sees = r >= 41 && (!shape.window || r - 41 < shape.window);
            if (!sees) expect_same("beside a broken token", &a, &b);
            if (sees) assert_false(isfinite(rig_row(&b, 0)[3]));
        }
        rig_end(state);
    }
}

static void a_step_without_rows_does_nothing(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {3};
    static const struct piece nothing[] = {{0, 3, 3}, {0, 3, 3}};
    for (int c = 0; c < 2; c++) {
        struct scene s = scene(rig, c % 2 ? &plain[0] : &latent[1], PM_F32, length, 1);
        run(rig, rig->d, &s, nothing, 2, 0);
        run(rig, rig->d, &s, nothing, 2, 2);
    }
}

/* Rows after the last sequence: a step that was filled up to a fixed size. In a process of its
 * own, which an alarm ends. */
static void padding_rows_may_follow_the_last_sequence(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {40};
    for (int c = 0; c < 2; c++) {
        struct scene s = scene(rig, c % 2 ? &plain[0] : &latent[1], PM_F32, length, 1);
        struct piece all = {0, 0, 40};
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            struct device *d; /* the threads of the others are not here */
            struct step step;
            int32_t *q_start;
            alarm(2);
            if (rig->k->open(&d, 0, 2) != PM_OK) _exit(1);
            step = run(rig, d, &s, &all, 1, 7);
            q_start = (int32_t *)(uintptr_t)step.rows.q_start;
            q_start[1] = 40;
            step.plain.rows = step.mla.rows = &step.rows;
            _exit((s.shape.latent ? rig->k->attention_mla(d, &step.mla)
                                  : rig->k->attention(d, &step.plain)) != PM_OK);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status))
            rig_fail("%s did not return", c ? "attention" : "attention_mla");
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(prompts_match_oracle),
        RIG_TEST(mixed_steps_match_oracle),
        RIG_TEST(peaked_softmax_matches_oracle),
        RIG_TEST(long_contexts_match_oracle),
        RIG_TEST(rows_do_not_depend_on_how_a_prompt_is_cut),
        RIG_TEST(rows_do_not_depend_on_their_company),
        RIG_TEST(rows_do_not_depend_on_the_threads),
        RIG_TEST(windows_and_chunks_show_exactly_their_positions),
        RIG_TEST(a_sink_takes_its_share),
        RIG_TEST(what_is_not_a_number_stays_in_its_row),
        RIG_TEST(broken_tokens_reach_only_rows_that_see_them),
        RIG_TEST(a_step_without_rows_does_nothing),
        RIG_TEST(padding_rows_may_follow_the_last_sequence),
    };
    return rig_run("attention", tests, sizeof tests / sizeof *tests);
}
