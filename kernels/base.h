/* base.h - what every file needs: failing with a sentence, checked sizes, checked allocation.
 */
#ifndef KERNELS_BASE_H
#define KERNELS_BASE_H

#include <stdarg.h>

#include "polymath.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Records the sentence of a failure for this thread and returns `status`, so that a caller can
 * write `return fail(PM_ERR_FORMAT, "%s: tensor %s is ..., wanted ...", ...)`. */
pm_status fail(pm_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts `prefix: ` in front of the recorded sentence and returns `status` unchanged. */
pm_status fail_prefix(pm_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Returns from the calling function when `call` fails: for functions with nothing to release.
 */
#define TRY(call)                                                                              \
    do {                                                                                       \
        pm_status try_status_ = (call);                                                        \
        if (try_status_ != PM_OK) return try_status_;                                          \
    } while (0)

/* Goes to the label `done` with `status` set when `call` fails. */
#define TRY_DONE(call)                                                                         \
    do {                                                                                       \
        status = (call);                                                                       \
        if (status != PM_OK) goto done;                                                        \
    } while (0)

/* *out = a * b, or false when it does not fit. */
static inline bool mul_size(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* *out = a + b, or false when it does not fit. */
static inline bool add_size(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

/* n zeroed elements of `size` bytes, 64-byte aligned, freed with free(). PM_ERR_NOMEM names
 * `what`. n = 0 gives a valid pointer. `out` is the address of any object pointer. */
pm_status alloc_array(void *out, size_t n, size_t size, const char *what);

/* Grows *array (of *capacity elements of `size` bytes) to hold at least `need`, doubling. */
pm_status grow_array(void *array, size_t *capacity, size_t need, size_t size);

/* A copy of n bytes of text with a closing zero. */
pm_status copy_text(char **out, const char *text, size_t n);

/* Name of a data type as safetensors spells it; bits of one element. */
const char *dtype_name(pm_dtype type);
int dtype_bits(pm_dtype type);

/* Monotonic time in microseconds. */
int64_t now_us(void);

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* bf16 and f16 scalars. to_bf16 rounds to nearest even; NaN stays NaN. */
static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v;
    v.u = (uint32_t)h << 16;
    return v.f;
}

static inline uint16_t f32_to_bf16(float f)
{
    union {
        float f;
        uint32_t u;
    } v;
    v.f = f;
    if ((v.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(v.u >> 16 | 0x40);
    return (uint16_t)((v.u + 0x7fffu + (v.u >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float e4m3_to_f32(uint8_t b); /* 0x7f and 0xff are NaN (OCP 8-bit floating point, E4M3) */
uint8_t f32_to_e4m3(float f); /* to nearest even, saturating at 448 */
float e8m0_to_f32(uint8_t b); /* 2^(b - 127); 255 is NaN (OCP microscaling formats, E8M0) */

#ifdef __cplusplus
}
#endif

#endif
