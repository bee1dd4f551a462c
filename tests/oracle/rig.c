/* rig.c - see rig.h. Random numbers are those of splitmix64. */
#define _POSIX_C_SOURCE 200809L
#include "tests/oracle/rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/backends.h"
#include "tests/oracle/oracle.h"

enum { GAP = 3 }; /* floats between two rows */

static const uint32_t MARK = 0x7fc5a5a5; /* a NaN that no computation makes */

static uint64_t seed(void)
{
    const char *text = getenv("POLYMATH_TEST_SEED");
    return text ? strtoull(text, NULL, 0) : 1;
}

/* A normal value by the ziggurat method (Marsaglia and Tsang 2000): 128 layers of one area
 * cover the density, so a layer is chosen evenly and a point in it is nearly always under the
 * curve. Tests draw so many values that a logarithm and a cosine for each were most of their
 * time. */
static const double TAIL = 3.442619855899; /* where the last layer's tail begins */
static const double AREA = 9.91256303526217e-3;

static double density(double x)
{
    return exp(-0.5 * x * x);
}

static void build_layers(struct normal_layers *n)
{
    n->x[0] = AREA / density(TAIL); /* the width that gives the tail's layer its area */
    n->x[1] = TAIL;
    for (int i = 2; i < N_LAYER; i++) {
        n->x[i] = sqrt(-2 * log(AREA / n->x[i - 1] + density(n->x[i - 1])));
    }
    n->x[N_LAYER] = 0;
    for (int i = 0; i <= N_LAYER; i++) {
        n->density[i] = density(n->x[i]);
    }
}

int rig_begin(void **state)
{
    struct rig *rig = *state;
    rig->random = seed();
    build_layers(&rig->normal);
    rig->n_memory = 0;
    return 0;
}

int rig_end(void **state)
{
    struct rig *rig = *state;
    while (rig->n_memory) {
        rig->backend->give(rig->memory[--rig->n_memory]);
    }
    return 0;
}

/* Scratch for the largest operations of the tests. */
enum { MOST_ROWS = 4096, MOST_COLS = 8192, MOST_TOKENS = 8192 };

static void close_devices(struct rig *rig)
{
    for (int i = 0; i < RIG_DEVICES; i++) {
        rig->k->close(rig->device[i]);
        rig->device[i] = NULL;
    }
}

static pm_status open_devices(struct rig *rig)
{
    for (int i = 0; i < RIG_DEVICES; i++) {
        pm_status status = rig->k->open(&rig->device[i], 0, i + 1);
        if (status == PM_OK && !rig->k->host_memory) {
            status = rig->k->reserve(rig->device[i], MOST_ROWS, MOST_COLS, MOST_TOKENS);
        }
        if (status != PM_OK) {
            close_devices(rig);
            return status;
        }
    }
    rig->d = rig->device[1];
    rig->bf16_unit = rig->k->narrow == PM_BF16 || strstr(rig->k->describe(rig->d), "bf16") ||
                             strstr(rig->k->describe(rig->d), "amx")
                         ? BF16_UNIT
                         : 0;
    return PM_OK;
}

static struct rig *current; /* what the group's setup hands to its tests, or NULL */

static int hand_over(void **state)
{
    *state = current;
    return 0;
}

/* Runs the tests on one device of a backend; false where the machine has none. */
static bool run_on(const char *title, const char *variant, const struct CMUnitTest *tests,
                   size_t n, int *failed)
{
    char name[96];
    if (open_devices(current) != PM_OK) {
        printf("%s: skipped, %s\n", variant, pm_last_error());
        return false;
    }
    snprintf(name, sizeof name, "%s %s seed %llu", title, variant, (unsigned long long)seed());
    print_message("%s\n", name);
    *failed += _cmocka_run_group_tests(name, tests, n, hand_over, NULL);
    close_devices(current);
    return true;
}

/* The number of instruction sets that the tests ran with. */
static int run_cpu(const char *title, const struct CMUnitTest *tests, size_t n, int *failed)
{
#if defined(__SANITIZE_ADDRESS__)
    /* Memory errors are the same in tables that share their code, and checked code is slow. */
    static const char *const all[] = {"amx", "avx512bf16", "avx2", "generic"};
    const int enough = 3;
#else
    static const char *const all[] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};
    const int enough = 5;
#endif
    const char *only = getenv("POLYMATH_ISA");
    int n_run = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all && n_run < enough; i++) {
        if (only && strcmp(only, all[i]) != 0) continue;
        setenv("POLYMATH_ISA", all[i], 1);
        n_run += run_on(title, all[i], tests, n, failed);
        if (only) break; /* the variable now points to what this loop wrote */
    }
    return n_run;
}

enum { SKIPPED = 77 }; /* the machine has no such device */

int rig_run(const char *title, const struct CMUnitTest *tests, size_t n)
{
    const char *only = getenv("POLYMATH_TEST_BACKEND");
    int failed = 0, n_run = 0;
    current = calloc(1, sizeof *current);
    if (!current) return 1;
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        current->backend = &backends[i];
        current->k = backends[i].k;
        if (only && strcmp(only, current->k->name) != 0) continue;
        n_run += current->k == &cpu_kernels
                     ? run_cpu(title, tests, n, &failed)
                     : run_on(title, current->k->name, tests, n, &failed);
    }
    free(current);
    current = NULL;
    if (n_run) return failed != 0;
    return only && strcmp(only, cpu_kernels.name) != 0 ? SKIPPED : 1;
}

void *rig_take(struct rig *rig, int64_t n, size_t size)
{
    void *p = rig->backend->take(n > 0 ? (size_t)n : 1, size);
    if (!p || rig->n_memory == RIG_MEMORY) rig_fail("the rig is out of memory");
    rig->memory[rig->n_memory++] = p;
    return p;
}

struct tensor rig_matrix(struct rig *rig, int64_t rows, int64_t cols)
{
    struct tensor t = tensor_view(NULL, PM_F32, rows, cols);
    t.stride = (cols + GAP) * (int64_t)sizeof(float);
    t.data = rig_take(rig, rows * (cols + GAP), sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        float *x = rig_row(&t, r);
        for (int64_t i = 0; i < cols; i++) {
            x[i] = (float)rig_normal(rig);
        }
        for (int64_t i = cols; i < cols + GAP; i++) {
            memcpy(&x[i], &MARK, sizeof MARK);
        }
    }
    return t;
}

struct tensor rig_copy(struct rig *rig, const struct tensor *t)
{
    struct tensor copy = *t;
    copy.data = rig_take(rig, t->rows * t->stride, 1);
    memcpy(copy.data, t->data, (size_t)(t->rows * t->stride));
    return copy;
}

struct tensor rig_round(struct rig *rig, const struct tensor *t, pm_dtype type)
{
    struct tensor copy = tensor_view(NULL, type, t->rows, t->cols);
    copy.stride = copy.stride / 16 * 16 + 32; /* never the distance of rig_matrix */
    copy.data = rig_take(rig, copy.rows * copy.stride, 1);
    for (int64_t r = 0; r < t->rows; r++) {
        float *full = rig_row(&copy, r);
        uint16_t *half = (uint16_t *)(void *)full;
        for (int64_t i = 0; i < t->cols; i++) {
            if (type == PM_BF16) {
                half[i] = f32_to_bf16(rig_row(t, r)[i]);
            } else {
                full[i] = rig_row(t, r)[i];
            }
        }
    }
    return copy;
}

struct tensor rig_widen(struct rig *rig, const struct tensor *t)
{
    struct tensor wide = rig_matrix(rig, t->rows, t->cols);
    for (int64_t r = 0; r < t->rows; r++) {
        const uint16_t *half = (const uint16_t *)(const void *)rig_row(t, r);
        for (int64_t i = 0; i < t->cols; i++) {
            rig_row(&wide, r)[i] = bf16_to_f32(half[i]);
        }
    }
    return wide;
}

int32_t *rig_ints(struct rig *rig, const int32_t *v, int64_t n)
{
    int32_t *copy = rig_take(rig, n, sizeof *copy);
    memcpy(copy, v, (size_t)n * sizeof *copy);
    return copy;
}

float *rig_floats(struct rig *rig, int64_t n, double size)
{
    float *x = rig_take(rig, n, sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(rig_normal(rig) * size);
    }
    return x;
}

static void fill_small(struct rig *rig, struct tensor *t, const struct number_format *f)
{
    for (int64_t i = 0; i < t->rows * t->cols; i++) {
        uint32_t code = number_encode(f, rig_normal(rig));
        if (f == &number_e4m3) ((uint8_t *)t->data)[i] = (uint8_t)code;
        if (f == &number_e2m1) ((uint8_t *)t->data)[i / 2] |= (uint8_t)(code << i % 2 * 4);
        if (f == &number_f16 || f == &number_bf16) ((uint16_t *)t->data)[i] = (uint16_t)code;
    }
}

struct tensor rig_weights(struct rig *rig, pm_dtype type, int64_t rows, int64_t cols)
{
    struct tensor t = tensor_view(NULL, type, rows, cols);
    t.data = rig_take(rig, rows * t.stride, 1);
    switch (type) {
    case PM_F16: fill_small(rig, &t, &number_f16); break;
    case PM_BF16: fill_small(rig, &t, &number_bf16); break;
    case PM_F8_E4M3: {
        int64_t wide = (cols + 127) / 128, high = (rows + 127) / 128;
        float *scale = rig_take(rig, wide * high, sizeof *scale);
        for (int64_t i = 0; i < wide * high; i++) {
            scale[i] = (float)(0.25 + rig_uniform(rig));
        }
        fill_small(rig, &t, &number_e4m3);
        t.scale = scale;
        t.scale_stride = wide * (int64_t)sizeof *scale;
        break;
    }
    case PM_MXFP4: {
        uint8_t *scale = rig_take(rig, rows * cols / 32, 1);
        for (int64_t i = 0; i < rows * cols / 32; i++) {
            scale[i] = (uint8_t)(124 + rig_below(rig, 6));
        }
        fill_small(rig, &t, &number_e2m1);
        t.scale = scale;
        t.scale_stride = cols / 32;
        break;
    }
    default: t.data = rig_floats(rig, rows * cols, 1);
    }
    return t;
}

double *rig_doubles(struct rig *rig, int64_t n)
{
    return rig_take(rig, n, sizeof(double));
}

uint64_t rig_random(struct rig *rig)
{
    uint64_t x = rig->random += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

int rig_below(struct rig *rig, int n)
{
    return (int)(rig_random(rig) % (uint64_t)n);
}

double rig_uniform(struct rig *rig)
{
    return (double)(rig_random(rig) >> 11) * 0x1p-53;
}

static double tail_value(struct rig *rig)
{
    double x, y;
    do {
        x = -log(1 - rig_uniform(rig)) / TAIL;
        y = -log(1 - rig_uniform(rig));
    } while (2 * y < x * x);
    return TAIL + x;
}

double rig_normal(struct rig *rig)
{
    const struct normal_layers *n = &rig->normal;
    for (;;) {
        uint64_t bits = rig_random(rig);
        int i = (int)(bits & (N_LAYER - 1));
        double sign = bits >> 7 & 1 ? -1 : 1;
        double x = (double)(bits >> 11) * 0x1p-53 * n->x[i];
        if (x < n->x[i + 1]) return sign * x;
        if (i == 0) return sign * tail_value(rig);
        if (n->density[i] + rig_uniform(rig) * (n->density[i + 1] - n->density[i]) < density(x))
            return sign * x;
    }
}

void rig_shuffle(struct rig *rig, int32_t *v, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = rig_below(rig, i + 1);
        int32_t old = v[i];
        v[i] = v[j];
        v[j] = old;
    }
}

/* What stands between the rows of a matrix of the rig has not changed. */
static void check_marks(const char *what, const struct tensor *t)
{
    if (t->stride != (t->cols + GAP) * (int64_t)sizeof(float)) return; /* not the rig's own */
    for (int64_t r = 0; r < t->rows; r++) {
        for (int i = 0; i < GAP; i++) {
            if (memcmp(rig_row(t, r) + t->cols + i, &MARK, sizeof MARK) != 0) {
                rig_fail("%s: wrote past row %lld", what, (long long)r);
            }
        }
    }
}

static bool is_close(float got, double want, double bound)
{
    if (isnan(want)) return isnan(got);
    if (isinf(want) || isinf(got)) return (double)got == want;
    return fabs((double)got - want) <= bound;
}

void expect_close(const char *what, const struct tensor *got, const double *want,
                  const double *bound)
{
    check_marks(what, got);
    for (int64_t r = 0; r < got->rows; r++) {
        for (int64_t i = 0; i < got->cols; i++) {
            float value = rig_row(got, r)[i];
            int64_t at = r * got->cols + i;
            if (is_close(value, want[at], bound[at])) continue;
            rig_fail("%s: [%lld,%lld] of [%lld,%lld] is %.9g, wanted %.9g within %.3g", what,
                     (long long)r, (long long)i, (long long)got->rows, (long long)got->cols,
                     (double)value, want[at], bound[at]);
        }
    }
}

void expect_same(const char *what, const struct tensor *a, const struct tensor *b)
{
    check_marks(what, a);
    check_marks(what, b);
    for (int64_t r = 0; r < a->rows; r++) {
        if (memcmp(rig_row(a, r), rig_row(b, r), (size_t)a->cols * sizeof(float)) != 0) {
            rig_fail("%s: other bits in row %lld of %lld", what, (long long)r,
                     (long long)a->rows);
        }
    }
}

void expect_ok(pm_status status)
{
    if (status != PM_OK) rig_fail("%s", pm_last_error());
    for (int i = 0; current && i < RIG_DEVICES; i++) {
        if (!current->device[i]) continue;
        if (current->k->sync(current->device[i]) != PM_OK) rig_fail("%s", pm_last_error());
    }
}

void expect_error(pm_status status, pm_status want, const char *part)
{
    if (status != want) rig_fail("status %d, wanted %d: %s", status, want, pm_last_error());
    if (!strstr(pm_last_error(), part)) rig_fail("no \"%s\" in: %s", part, pm_last_error());
}

void rig_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprint_error(format, args);
    va_end(args);
    print_error("\n");
    _fail(__FILE__, __LINE__);
}
