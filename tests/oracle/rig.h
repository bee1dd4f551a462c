/* rig.h - what every test of an operation stands on: devices, memory, random values, comparison.
 *
 * A program's tests run once for each instruction set that this processor has. A test gets a
 * struct rig as its state, with devices of 1, 2 and 3 threads, and takes all its memory from it:
 * the rig frees it after the test. Random values are the same for each instruction set; the seed
 * is printed, and POLYMATH_TEST_SEED sets another. */
#ifndef TESTS_ORACLE_RIG_H
#define TESTS_ORACLE_RIG_H

#include "kernels/kernels.h"

enum { RIG_DEVICES = 3, RIG_MEMORY = 4096 };

struct rig {
    const struct kernels *k;
    struct device *device[RIG_DEVICES]; /* of 1, 2 and 3 threads */
    struct device *d;                   /* the one with 2 */
    double bf16_unit; /* relative error of activations that meet bf16 weights, see oracle.h */
    uint64_t random;
    void *memory[RIG_MEMORY];
    int n_memory;
};

typedef void rig_test(void **state);

/* Runs tests[n] for each instruction set; the number of failures, or 77 when none can run. */
int rig_run(const char *title, const char *const *name, rig_test *const *test, int n);

/* n elements of `size` bytes, of no particular content, until the end of the test. Every block
 * is its own allocation, so that a sanitizer sees a step beyond its end. */
void *rig_take(struct rig *rig, int64_t n, size_t size);

/* An F32 matrix of normal values. Rows stand apart and not at round addresses; between them are
 * marks that expect_close and expect_same look after. */
struct tensor rig_matrix(struct rig *rig, int64_t rows, int64_t cols);
struct tensor rig_copy(struct rig *rig, const struct tensor *t);
/* n normal values times `size`. */
float *rig_floats(struct rig *rig, int64_t n, double size);

uint64_t rig_random(struct rig *rig);
int rig_below(struct rig *rig, int n); /* 0 .. n - 1 */
double rig_uniform(struct rig *rig);   /* 0 <= x < 1 */
double rig_normal(struct rig *rig);
void rig_shuffle(struct rig *rig, int32_t *v, int n);

static inline float *rig_row(const struct tensor *t, int64_t row)
{
    return (float *)(void *)((char *)t->data + row * t->stride);
}

/* Fails unless every value of got is within bound of want; both are dense. NaN must meet NaN and
 * an infinity the same one. */
void expect_close(const char *what, const struct tensor *got, const double *want,
                  const double *bound);
/* Fails unless the bits are equal. */
void expect_same(const char *what, const struct tensor *a, const struct tensor *b);
/* Fails unless a status is PM_OK, with the sentence of the error. */
void expect_ok(pm_status status);
/* Fails with a sentence. */
void rig_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* The main function of a program whose tests are the functions in the list. */
#define RIG_MAIN(title, ...)                                                                   \
    int main(void)                                                                             \
    {                                                                                          \
        static const char *const name[] = {RIG_NAMES(__VA_ARGS__)};                            \
        static rig_test *const test[] = {__VA_ARGS__};                                         \
        return rig_run(title, name, test, (int)(sizeof test / sizeof *test));                  \
    }

#endif
