/* attention_test.c - causal attention over the paged cache, plain and latent.
 *
 * A scene is what a model would bring: queries, keys and values of every token of some
 * sequences. A test feeds pieces of them in steps, through kv_write, and looks at the rows that
 * come out: against the oracle, and against the same rows that came in other steps, with other
 * company or other threads, whose bits must be equal.
 *
 * Every backend takes the same tests. A GPU that is emulated is slow, so it gets the shapes
 * that its kernels tell apart, and shorter contexts. */
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
    expect_ok(rig->k->sync(d));
    return step;
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

/* What a CUDA backend tells apart: tile shapes, head sizes that no tile fits, types of cache.
 */
static const struct shape few[] = {
    {4, 2, 64, 64, .window = 40, .chunk = 50},
    {5, 1, 80, 80, .window = 7, .sink = true},
    {6, 3, 128, 128, .chunk = 24},
    {2, 1, 192, 128, .sink = true},
    {2, 1, 256, 256, .window = 33},
    {20, 1, 40, 24, .window = 100, .sink = true},
    {3, 3, 33, 17, .chunk = 0},
    {2, 1, 8, 8, .window = 1},
};

static const struct shape few_latent[] = {
    {2, 1, 576, 128, .nope = 128, .rope = 64, .latent = 512, .weights = PM_BF16},
    {3, 1, 80, 16, .nope = 24, .rope = 16, .latent = 64, .weights = PM_F16},
    {3, 1, 28, 12, .nope = 16, .rope = 8, .latent = 20, .weights = PM_F32},
    {2, 1, 200, 130, .nope = 70, .rope = 40, .latent = 160, .weights = PM_F8_E4M3},
    {20, 1, 72, 24, .nope = 16, .rope = 8, .latent = 64, .weights = PM_MXFP4},
};

enum {
    N_FEW = sizeof few / sizeof *few,
    N_FEW_LATENT = sizeof few_latent / sizeof *few_latent
};

/* The CPU has them all. */
static bool has_all(const struct rig *rig)
{
    return rig->k->host_memory;
}

static int n_shape(const struct rig *rig)
{
    return has_all(rig) ? N_PLAIN + N_LATENT : N_FEW + N_FEW_LATENT;
}

/* Types that shape i is tried with: all, or a narrow one and for some shapes F32. */
static int n_type(const struct rig *rig, int i)
{
    return has_all(rig) ? 3 : 1 + (i % 3 == 0);
}

static pm_dtype type_at(const struct rig *rig, int i, int t)
{
    static const pm_dtype types[] = {PM_F32, PM_F16, PM_BF16};
    if (has_all(rig)) return types[t];
    return t ? PM_F32 : types[1 + i % 2];
}

static const struct shape *shape_at(const struct rig *rig, int i)
{
    if (!has_all(rig)) return i < N_FEW ? &few[i] : &few_latent[i - N_FEW];
    return i < N_PLAIN ? &plain[i] : &latent[i - N_PLAIN];
}

/* How far a query's products with narrow keys may be off, and a weight's with narrow values,
 * see oracle.h. The CPU narrows queries to bf16 where it has such products. CUDA splits queries
 * and weights into two numbers of the cache's type: each is off by 2^-18 of the value (BF16) or
 * 2^-22 (F16), and the unit covers both. */
static double narrow_unit(const struct rig *rig, pm_dtype type)
{
    if (type == PM_F32) return 0;
    if (has_all(rig)) return type == PM_BF16 ? rig->bf16_unit : 0;
    return type == PM_BF16 ? 0x1p-16 : 0x1p-20;
}

/* A shape of each kind for tests of other things than shapes. */
static const struct shape *a_shape(const struct rig *rig, bool is_latent)
{
    if (has_all(rig)) return is_latent ? &latent[1] : &plain[0];
    return is_latent ? &few_latent[1] : &few[0];
}

/* The rows of a step against the oracle, padding rows left out. */
static void check(struct rig *rig, struct scene *s, struct step *step)
{
    const struct shape *h = &s->shape;
    double unit = narrow_unit(rig, s->paged.kv.type);
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

/* Sequences that end in a block's middle, at its end, after one token. */
static const int mixed[] = {37, 1, 130, 64, 16, 2};

enum { N_MIXED = sizeof mixed / sizeof *mixed };

static void prompts_match_oracle(void **state)
{
    struct rig *rig = *state;
    for (int i = 0; i < n_shape(rig); i++) {
        for (int t = 0; t < n_type(rig, i); t++) {
            struct scene s = scene(rig, shape_at(rig, i), type_at(rig, i, t), mixed, N_MIXED);
            struct piece piece[MAX_SEQ];
            struct step step = run(rig, rig->d, &s, piece, whole(mixed, N_MIXED, piece), i % 2);
            check(rig, &s, &step);
            rig_end(state);
        }
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
    for (int c = 0; c < n_shape(rig) * 3; c += has_all(rig) ? 2 : 7) {
        struct scene s = scene(rig, shape_at(rig, c / 3), cache_types[c % 3], length, 4);
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
        struct shape shape = *a_shape(rig, c % 2 == 0);
        struct scene s = scene(rig, &shape, cache_types[c / 2 % 3], mixed, 2);
        struct piece piece[MAX_SEQ];
        struct step step;
        s.scale = scale[c / 6];
        step = run(rig, rig->d, &s, piece, whole(mixed, 2, piece), 0);
        check(rig, &s, &step);
        rig_end(state);
    }
}

/* Contexts so long that a task holds fewer queries; a short neighbour shares the step. */
static void long_contexts_match_oracle(void **state)
{
    struct rig *rig = *state;
    static const int all[][2] = {{5000, 40}, {33000, 7}}, shorter[][2] = {{1300, 40}, {700, 7}};
    static const struct shape shapes[] = {{4, 1, 16, 8, .sink = true},
                                          {2, 1, 24, 8, .nope = 8, .rope = 8, .latent = 16}};
    for (int c = 0; c < 4; c++) {
        const int *length = has_all(rig) ? all[c / 2] : shorter[c / 2];
        struct scene s = scene(rig, &shapes[c % 2], cache_types[(c + c / 2) % 3], length, 2);
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
    static const int cuts[] = {1, 3, 16, 50};
    int n = has_all(rig) ? 131 : 75;
    for (int c = 0; c < n_shape(rig) * 3; c += has_all(rig) ? 2 : 4) {
        struct scene s = scene(rig, shape_at(rig, c / 3), cache_types[c % 3], &n, 1);
        struct piece all = {0, 0, n};
        struct step want = run(rig, rig->d, &s, &all, 1, 0);
        for (int i = has_all(rig) ? 0 : 2; i < 4; i++) {
            /* A fresh pool: nothing after the current piece has been written. */
            s.paged = paged_open(rig, cache_types[c % 3], s.shape.n_kv_head, s.shape.k_dim,
                                 s.shape.latent ? 0 : s.shape.v_dim, &n, 1);
            for (int first = 0; first < n; first += cuts[i]) {
                struct piece piece = {0, first, (int)min_i64(first + cuts[i], n)};
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
    for (int c = 0; c < n_shape(rig); c += has_all(rig) ? 1 : 4) {
        struct scene s = scene(rig, shape_at(rig, c), cache_types[c % 3], mixed, N_MIXED);
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
    for (int c = 0; c < n_shape(rig); c += has_all(rig) ? 1 : 6) {
        struct scene s = scene(rig, shape_at(rig, c), cache_types[c % 3], mixed, N_MIXED);
        struct piece piece[MAX_SEQ];
        struct step all = run(rig, rig->d, &s, piece, whole(mixed, N_MIXED, piece), 0);
        for (int i = 0; i < RIG_DEVICES; i++) {
            struct step again = run(rig, rig->device[i], &s, piece, N_MIXED, 0);
            expect_same("threads", &again.out, &all.out);
        }
        rig_end(state);
    }
}

/* A context of several splits: a prompt, its last rows, and rows alone. A device with next to
 * no scratch memory has no room for partial results and takes latent attention in slices. */
static void rows_do_not_depend_on_splits_and_slices(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {530}, alone[] = {0, 255, 256, 400, 511, 512, 529};
    static const struct piece all = {0, 0, 530}, tail = {0, 470, 530};
    static const struct shape shapes[] = {
        {2, 1, 32, 32, .sink = true},
        {2, 1, 80, 72, .window = 300},
        {2, 1, 48, 16, .nope = 16, .rope = 16, .latent = 32, .weights = PM_BF16},
        {1, 1, 16, 136, .chunk = 270},
    };
    struct device *little;
    expect_ok(rig->k->open(&little, 0, 1));
    expect_ok(rig->k->reserve(little, 1, 64, 64));
    for (int c = 0; c < 4; c++) {
        struct scene s = scene(rig, &shapes[c], cache_types[1 + c % 2], length, 1);
        struct step want = run(rig, rig->d, &s, &all, 1, 0), step;
        check(rig, &s, &want);
        step = run(rig, little, &s, &all, 1, 0);
        expect_same("little scratch", &want.out, &step.out);
        step = run(rig, rig->d, &s, &tail, 1, 0);
        expect_rows("tail", &want.out, tail.first, &step.out);
        for (int i = 0; i < 7; i++) {
            struct piece one = {0, alone[i], alone[i] + 1};
            step = run(rig, rig->d, &s, &one, 1, 0);
            expect_rows("alone", &want.out, alone[i], &step.out);
            step = run(rig, little, &s, &one, 1, 0);
            expect_rows("alone, little scratch", &want.out, alone[i], &step.out);
        }
        rig_end(state);
    }
    rig->k->close(little);
}

/* ------------------------------------------------------------------ edges */

/* With queries of zero the result is the mean of what is seen: values are their positions. */
static void windows_and_chunks_show_exactly_their_positions(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {70}, bounds[] = {0, 1, 2, 16, 17, 69, 70, 71};
    for (int c = 0; c < 8 * 8; c++) {
        struct shape shape = {2, 1, 8, 8, bounds[c / 8], bounds[c % 8], .sink = false};
        struct scene s = scene(rig, &shape, cache_types[c % 3], length, 1);
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
    with.sink = true;
    for (int c = 0; c < 3; c++) {
        struct scene s = scene(rig, &with, cache_types[c], length, 1);
        struct step step, none;
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
}

static void what_is_not_a_number_stays_in_its_row(void **state)
{
    struct rig *rig = *state;
    static const float bad[] = {NAN, INFINITY, 3e38f};
    for (int c = 0; c < 3 * 2 * 3; c += has_all(rig) ? 1 : 5) {
        struct scene s = scene(rig, a_shape(rig, c % 2 == 0), cache_types[c / 6], mixed, 3);
        struct piece piece[MAX_SEQ];
        int n = whole(mixed, 3, piece);
        struct step good = run(rig, rig->d, &s, piece, n, 0), step;
        for (int64_t i = 0; i < s.q[0].cols; i++) {
            rig_row(&s.q[0], 5)[i] = bad[c / 2 % 3];
        }
        step = run(rig, rig->d, &s, piece, n, 0);
        for (int r = 0; r < good.rows.n_row; r++) {
            struct tensor a = tensor_rows(&good.out, r, 1), b = tensor_rows(&step.out, r, 1);
            if (r != 5) expect_same("beside a broken row", &a, &b);
        }
        if (c / 2 % 3 == 0) assert_true(isnan(rig_row(&step.out, 5)[0]));
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
        struct shape shape = c % 2 ? *a_shape(rig, true) : plain[2];
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
        struct scene s = scene(rig, a_shape(rig, c % 2 == 0), PM_BF16, length, 1);
        run(rig, rig->d, &s, nothing, 2, 0);
        run(rig, rig->d, &s, nothing, 2, 2);
    }
}

/* Rows after the last sequence: a step that was filled up to a fixed size. */
static pm_status filled_up(struct rig *rig, struct device *d, struct scene *s)
{
    struct piece all = {0, 0, 40};
    struct step step = run(rig, d, s, &all, 1, 7);
    int32_t *q_start = (int32_t *)(uintptr_t)step.rows.q_start;
    q_start[1] = 40;
    step.plain.rows = step.mla.rows = &step.rows;
    TRY(s->shape.latent ? rig->k->attention_mla(d, &step.mla)
                        : rig->k->attention(d, &step.plain));
    return rig->k->sync(d);
}

/* On the CPU in a process of its own, which an alarm ends. */
static void padding_rows_may_follow_the_last_sequence(void **state)
{
    struct rig *rig = *state;
    static const int length[] = {40};
    for (int c = 0; c < 2 * 3; c++) {
        struct scene s = scene(rig, a_shape(rig, c % 2 == 0), cache_types[c / 2], length, 1);
        int status = 0;
        pid_t child;
        if (!has_all(rig)) {
            expect_ok(filled_up(rig, rig->d, &s));
            continue;
        }
        child = fork();
        if (child == 0) {
            struct device *d; /* the threads of the others are not here */
            alarm(2);
            _exit(rig->k->open(&d, 0, 2) != PM_OK || filled_up(rig, d, &s) != PM_OK);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status))
            rig_fail("%s did not return", c % 2 ? "attention" : "attention_mla");
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
        RIG_TEST(rows_do_not_depend_on_splits_and_slices),
        RIG_TEST(windows_and_chunks_show_exactly_their_positions),
        RIG_TEST(a_sink_takes_its_share),
        RIG_TEST(what_is_not_a_number_stays_in_its_row),
        RIG_TEST(broken_tokens_reach_only_rows_that_see_them),
        RIG_TEST(a_step_without_rows_does_nothing),
        RIG_TEST(padding_rows_may_follow_the_last_sequence),
    };
    return rig_run("attention", tests, sizeof tests / sizeof *tests);
}
