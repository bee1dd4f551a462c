/* base.c - the thread-local failure sentence, checked memory, scalar number formats. */
#define _POSIX_C_SOURCE 200809L
#include "base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ERROR_BYTES = 1024 };

static _Thread_local char last_error[ERROR_BYTES];

const char *pm_last_error(void)
{
    return last_error;
}

const char *pm_status_text(pm_status status)
{
    switch (status) {
#define X(name, value, text)                                                                   \
    case name: return text;
        PM_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

pm_status fail(pm_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return status;
}

pm_status fail_prefix(pm_status status, const char *format, ...)
{
    char prefix[ERROR_BYTES / 2];
    char old[ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    memcpy(old, last_error, sizeof old);
    /* A sentence that no longer fits is cut at its end, never the prefix. */
    snprintf(last_error, sizeof last_error, "%s: %.*s", prefix,
             (int)(sizeof last_error - strlen(prefix) - 3), old);
    return status;
}

pm_status alloc_array(void *out, size_t n, size_t size, const char *what)
{
    enum { ALIGNMENT = 64 };
    size_t bytes;
    void *p;
    if (!mul_size(&bytes, n, size) || !add_size(&bytes, bytes, ALIGNMENT)) {
        return fail(PM_ERR_NOMEM, "%s: %zu elements of %zu bytes are too many", what, n, size);
    }
    bytes -= bytes % ALIGNMENT;
    p = aligned_alloc(ALIGNMENT, bytes);
    if (!p) return fail(PM_ERR_NOMEM, "%s: no memory for %zu bytes", what, bytes);
    memset(p, 0, bytes);
    memcpy(out, &p, sizeof p);
    return PM_OK;
}

pm_status grow_array(void *array, size_t *capacity, size_t need, size_t size)
{
    size_t n = *capacity ? *capacity : 16;
    size_t bytes;
    void *p;
    if (need <= *capacity) return PM_OK;
    while (n < need) {
        if (!mul_size(&n, n, 2)) return fail(PM_ERR_NOMEM, "%zu elements are too many", need);
    }
    memcpy(&p, array, sizeof p);
    if (!mul_size(&bytes, n, size))
        return fail(PM_ERR_NOMEM, "%zu elements are too many", need);
    p = realloc(p, bytes);
    if (!p) return fail(PM_ERR_NOMEM, "no memory for %zu bytes", bytes);
    memcpy(array, &p, sizeof p);
    *capacity = n;
    return PM_OK;
}

pm_status copy_text(char **out, const char *text, size_t n)
{
    char *p = malloc(n + 1);
    if (!p) return fail(PM_ERR_NOMEM, "no memory for %zu bytes of text", n);
    memcpy(p, text, n);
    p[n] = 0;
    *out = p;
    return PM_OK;
}

const char *dtype_name(pm_dtype type)
{
    static const char *const name[] = {
#define X(id, text, bits) text,
        PM_DTYPE_LIST(X)
#undef X
    };
    return (unsigned)type < PM_DTYPE_COUNT ? name[type] : "?";
}

int dtype_bits(pm_dtype type)
{
    static const int bits_of[] = {
#define X(id, text, bits) bits,
        PM_DTYPE_LIST(X)
#undef X
    };
    return (unsigned)type < PM_DTYPE_COUNT ? bits_of[type] : 0;
}

int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

float f16_to_f32(uint16_t h)
{
    int exponent = h >> 10 & 31;
    float mantissa = (float)(h & 1023);
    float value;
    if (exponent == 31) {
        value = mantissa != 0 ? NAN : INFINITY;
    } else if (exponent == 0) {
        value = ldexpf(mantissa, -24);
    } else {
        value = ldexpf(mantissa + 1024, exponent - 25);
    }
    return h & 0x8000 ? -value : value;
}

uint16_t f32_to_f16(float f)
{
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    float a = fabsf(f);
    int exponent;
    if (isnan(f)) return sign | 0x7e00;
    if (a >= 65520) return sign | 0x7c00;
    if (a < ldexpf(1, -14)) return sign | (uint16_t)lrintf(ldexpf(a, 24));
    frexpf(a, &exponent);
    /* The sum carries a mantissa that rounds up to 2048 into the exponent. */
    return sign | (uint16_t)(((exponent + 13) << 10) + (int)lrintf(ldexpf(a, 11 - exponent)));
}

float e4m3_to_f32(uint8_t b)
{
    union {
        uint32_t u;
        float f;
    } v;
    uint32_t exponent = b >> 3 & 15, mantissa = b & 7;
    if ((b & 0x7f) == 0x7f) return NAN;
    v.f = (float)mantissa * 0x1p-9f; /* without an implicit bit, when the exponent is 0 */
    if (exponent > 0) v.u = (exponent + 127 - 7) << 23 | mantissa << 20;
    v.u |= (uint32_t)(b & 0x80) << 24;
    return v.f;
}

float e8m0_to_f32(uint8_t b)
{
    return b == 255 ? NAN : ldexpf(1, b - 127);
}

uint8_t f32_to_e4m3(float f)
{
    uint8_t sign = signbit(f) ? 0x80 : 0;
    float a = fabsf(f);
    int exponent;
    if (isnan(f)) return sign | 0x7f;
    if (a >= 448) return sign | 0x7e;
    if (a < ldexpf(1, -6)) return sign | (uint8_t)lrintf(ldexpf(a, 9));
    frexpf(a, &exponent);
    return sign | (uint8_t)(((exponent + 5) << 3) + (int)lrintf(ldexpf(a, 4 - exponent)));
}
