/* rig.h - what every test of an operation stands on: devices, memory, random values,
 * comparison.
 *
 * A program's tests run once for each backend of tests/kernels/backends.h, or for the one that
 * POLYMATH_TEST_BACKEND names, and on the CPU once for each instruction set that this processor
 * has, or for the one that POLYMATH_ISA names. A test gets a struct rig as its state, with
 * devices of 1, 2 and 3 threads, and takes all its memory from it, whatever an operation reads
 * included: the device reaches it as the test does, and the rig frees it after the test. Every
 * test starts from the same seed, which is printed; POLYMATH_TEST_SEED sets another.
 *
 * This header brings cmocka along, after base.h and without the macro that hides fail(). */
#ifndef TESTS_ORACLE_RIG_H
#define TESTS_ORACLE_RIG_H

#include <setjmp.h>
#include <stdarg.h>

#include "kernels/kernels.h"

#include <cmocka.h>
#undef fail

enum { RIG_DEVICES = 3, RIG_MEMORY = 8192 };

struct backend;

/* The normal density as layers of equal area, see rig_normal. */
enum { N_LAYER = 128 };
struct normal_layers {
    double x[N_LAYER + 1], density[N_LAYER + 1];
};

struct rig {
    const struct kernels *k;
    const struct backend *backend;      /* limits of it, see backends.h */
    struct device *device[RIG_DEVICES]; /* of 1, 2 and 3 threads */
    struct device *d;                   /* the one with 2 */
    double bf16_unit; /* relative error of activations that meet bf16 values, see oracle.h */
    uint64_t random;
    struct normal_layers normal;
    void *memory[RIG_MEMORY];
    int n_memory;
};

/* An entry of the list of tests. */
#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_begin, rig_end)
int rig_begin(void **state);
int rig_end(void **state);

/* Runs the tests for each instruction set; what main returns. */
int rig_run(const char *title, const struct CMUnitTest *tests, size_t n);

/* n elements of `size` bytes, zeroed, until the end of the test. Every block is its own
 * allocation, so that a sanitizer sees a step beyond its end. */
void *rig_take(struct rig *rig, int64_t n, size_t size);

/* An F32 matrix of normal values. Rows stand apart and not at round addresses; between them are
 * marks that expect_close and expect_same look after. */
struct tensor rig_matrix(struct rig *rig, int64_t rows, int64_t cols);
struct tensor rig_copy(struct rig *rig, const struct tensor *t);
/* The same values in rows of `type`, F32 or BF16, that stand at multiples of 16 bytes. */
struct tensor rig_round(struct rig *rig, const struct tensor *t, pm_dtype type);
/* An F32 matrix of the values of a BF16 one. */
struct tensor rig_widen(struct rig *rig, const struct tensor *t);
/* A copy of n int32. */
int32_t *rig_ints(struct rig *rig, const int32_t *v, int64_t n);
/* n normal values times `size`. */
float *rig_floats(struct rig *rig, int64_t n, double size);
/* Weights of any type, of normal values as far as the type has them; scales are their own. */
struct tensor rig_weights(struct rig *rig, pm_dtype type, int64_t rows, int64_t cols);
/* n doubles for an oracle. */
double *rig_doubles(struct rig *rig, int64_t n);

uint64_t rig_random(struct rig *rig);
int rig_below(struct rig *rig, int n); /* 0 .. n - 1 */
double rig_uniform(struct rig *rig);   /* 0 <= x < 1 */
double rig_normal(struct rig *rig);
void rig_shuffle(struct rig *rig, int32_t *v, int n);

static inline float *rig_row(const struct tensor *t, int64_t row)
{
    return (float *)(void *)((char *)t->data + row * t->stride);
}

/* Fails unless every value of got is within bound of want; both are dense. NaN must meet NaN
 * and an infinity the same one. */
void expect_close(const char *what, const struct tensor *got, const double *want,
                  const double *bound);
/* Fails unless the bits are equal. */
void expect_same(const char *what, const struct tensor *a, const struct tensor *b);
/* Fails unless the status is PM_OK, with the sentence of the error. Waits for the devices: what
 * an operation enqueued can be read after. */
void expect_ok(pm_status status);
/* Fails unless the status is `want` and the sentence of the error has `part`. */
void expect_error(pm_status status, pm_status want, const char *part);
/* Fails with a sentence. */
void rig_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
