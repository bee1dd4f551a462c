/* golden_test.c - every family against the reference implementation.
 *
 * tests/golden holds tiny random checkpoints with the reference's float32 logits, made by
 * make_golden.py. For each: the prompt in one step lies within the tolerance of its weight
 * type; fed in pieces, token by token and with other numbers of threads it gives the same bits;
 * the greedy continuation is equal. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#include "moe/model.h"
#include "moe/safetensors.h"
#include "runtime/engine/sequence.h"

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

enum { MAX_CASES = 256, N_GREEDY = 16 };

struct golden {
    char name[64], type[16], folder[512];
    struct safetensors *file;
    int32_t *id;         /* [n] */
    const float *logits; /* [n, V] */
    int32_t greedy[N_GREEDY];
    int n, vocab;
    bool has_greedy;
};

/* The tree may have been copied to another machine than the one that built this. */
static const char *source_dir(void)
{
    const char *name = getenv("POLYMATH_SOURCE_DIR");
    return name ? name : PM_SOURCE_DIR;
}

static const void *need(struct golden *g, const char *name, const struct stored **out)
{
    const struct stored *s = safetensors_find(g->file, name);
    assert_non_null(s);
    if (out) *out = s;
    return s->data;
}

static void open_golden(struct golden *g)
{
    char path[640];
    const struct stored *s;
    float *copy;
    snprintf(g->folder, sizeof g->folder, "%s/tests/golden/%s", source_dir(), g->name);
    snprintf(path, sizeof path, "%s/golden.safetensors", g->folder);
    if (safetensors_open(&g->file, path) != PM_OK) FAIL("%s", pm_last_error());
    const void *id = need(g, "ids", &s);
    g->n = (int)s->dim[0];
    g->id = malloc(s->bytes);
    memcpy(g->id, id, s->bytes);
    const void *logits = need(g, "logits", &s);
    g->vocab = (int)s->dim[1];
    copy = malloc(s->bytes);
    memcpy(copy, logits, s->bytes);
    g->logits = copy;
    s = safetensors_find(g->file, "greedy");
    g->has_greedy = s && s->dim[0] == N_GREEDY;
    if (g->has_greedy) memcpy(g->greedy, s->data, sizeof g->greedy);
}

static void close_golden(struct golden *g)
{
    safetensors_close(g->file);
    free(g->id);
    free((void *)g->logits);
}

/* POLYMATH_TEST_DEVICE names another device than the CPU. */
static const char *device(void)
{
    const char *name = getenv("POLYMATH_TEST_DEVICE");
    return name ? name : "cpu";
}

static struct model *open_model(const struct golden *g, int n_thread, int max_row)
{
    struct model_options o = {.device = device(),
                              .n_thread = n_thread,
                              .max_row = max_row,
                              .max_out = max_row,
                              .context = g->n + N_GREEDY,
                              .kv_type = -1};
    struct model *m;
    if (model_open(&m, g->folder, &o) != PM_OK) FAIL("%s: %s", g->name, pm_last_error());
    return m;
}

/* All logits of the prompt, fed `step` tokens at a time. */
static float *run_prompt(const struct golden *g, int n_thread, int step)
{
    struct model *m = open_model(g, n_thread, step < g->n ? step : g->n);
    struct sequence s;
    float *out = calloc((size_t)g->n * (size_t)g->vocab, sizeof *out);
    if (sequence_open(&s, m) != PM_OK || sequence_feed(&s, g->id, g->n, out, true) != PM_OK) {
        FAIL("%s: %s", g->name, pm_last_error());
    }
    sequence_close(&s);
    model_close(m);
    return out;
}

static int best_of(const float *v, int n)
{
    int at = 0;
    for (int i = 1; i < n; i++) {
        if (v[i] > v[at]) at = i;
    }
    return at;
}

/* Largest difference from the reference, absolute. */
static double distance(const struct golden *g, const float *mine)
{
    double most = 0;
    for (int64_t i = 0; i < (int64_t)g->n * g->vocab; i++) {
        double d = fabs((double)mine[i] - g->logits[i]);
        if (!(d <= most)) most = isnan(d) ? INFINITY : d;
    }
    return most;
}

/* Root mean square difference over that of the reference's logits. */
static double relative_rms(const struct golden *g, const float *mine)
{
    double error = 0, all = 0;
    for (int64_t i = 0; i < (int64_t)g->n * g->vocab; i++) {
        double d = (double)mine[i] - g->logits[i];
        error += d * d;
        all += (double)g->logits[i] * g->logits[i];
    }
    return sqrt(error / all);
}

static void check_greedy(const struct golden *g)
{
    struct model *m = open_model(g, 2, g->n);
    struct sequence s;
    float *logits = calloc((size_t)g->vocab, sizeof *logits);
    assert_int_equal(sequence_open(&s, m), PM_OK);
    assert_int_equal(sequence_feed(&s, g->id, g->n, logits, false), PM_OK);
    for (int i = 0; i < N_GREEDY; i++) {
        int32_t id = best_of(logits, g->vocab);
        if (id != g->greedy[i]) {
            FAIL("%s: greedy token %d is %d, the reference has %d", g->name, i, id,
                 g->greedy[i]);
        }
        if (i + 1 < N_GREEDY) assert_int_equal(sequence_feed(&s, &id, 1, logits, false), PM_OK);
    }
    sequence_close(&s);
    model_close(m);
    free(logits);
}

static void check_same_bits(const struct golden *g, const float *whole)
{
    static const struct {
        int n_thread, step;
    } way[] = {{1, 1 << 20}, {3, 1 << 20}, {2, 7}, {2, 1}, {1, 16}};
    for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
        if (way[i].step > g->n && strcmp(device(), "cpu") != 0)
            continue; /* threads are the CPU's */
        float *again = run_prompt(g, way[i].n_thread, way[i].step);
        if (memcmp(whole, again, (size_t)g->n * (size_t)g->vocab * sizeof *again) != 0) {
            FAIL("%s: other bits with %d threads and steps of %d", g->name, way[i].n_thread,
                 way[i].step);
        }
        free(again);
    }
}

/* The bound of docs/testing.md: 9 roundings a layer, one more for each of latent attention, a
 * shared expert and a GPU, and one before the output, each of root mean square u / sqrt(12). */
static double bound(const struct golden *g)
{
    int a_layer = strcmp(device(), "cpu") == 0 ? 9 : 10;
    double u = strcmp(g->type, "f16") == 0 ? 0x1p-10 : 0x1p-7;
    struct model *m = open_model(g, 1, 1);
    const struct config *c = model_config(m);
    int n_layer = c->n_layer;
    a_layer += (c->mla.latent > 0) + (c->shared_dim > 0);
    model_close(m);
    return u / sqrt(12) * sqrt(a_layer * n_layer + 1);
}

static void golden_case(void **state)
{
    struct golden *g = *state;
    float *mine;
    double far;
    open_golden(g);
    mine = run_prompt(g, 2, 1 << 20);
    far = distance(g, mine);
    print_message("%-28s %-6s n %d  max difference %.3g  relative rms %.3g\n", g->name, g->type,
                  g->n, far, relative_rms(g, mine));
    if (strcmp(g->type, "f32") == 0) {
        if (!(far <= 1e-4)) FAIL("%s: %g from the reference, wanted 1e-4", g->name, far);
        if (g->has_greedy) check_greedy(g);
    } else if (!(relative_rms(g, mine) <= bound(g))) {
        FAIL("%s: relative rms %g, wanted %g", g->name, relative_rms(g, mine), bound(g));
    }
    check_same_bits(g, mine);
    free(mine);
    close_golden(g);
}

int main(int argc, char **argv)
{
    static struct golden golden[MAX_CASES];
    static struct CMUnitTest test[MAX_CASES];
    size_t n = 0;
    char path[512];
    FILE *f;
    snprintf(path, sizeof path, "%s/tests/golden/cases.txt", source_dir());
    f = fopen(path, "r");
    if (!f) return 1;
    while (n < MAX_CASES && fscanf(f, "%63s %15s", golden[n].name, golden[n].type) == 2) {
        if (argc > 1 && strcmp(argv[1], golden[n].name) != 0) continue;
        test[n] = (struct CMUnitTest){golden[n].name, golden_case, NULL, NULL, &golden[n]};
        n++;
    }
    fclose(f);
    if (n == 0) return 1;
    return _cmocka_run_group_tests("golden", test, n, NULL, NULL);
}
