/* synth_values.c - a counter-based generator: no state, so any element can be made alone.
 *
 * Values 2 i and 2 i + 1 of a tensor come from one 64-bit draw: splitmix64's output function
 * (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) of
 * key + i * golden ratio, where the key mixes the seed with the tensor's name. The sum of four
 * bytes of the draw has 1021 levels and is close to a normal distribution (kurtosis 2.7); a
 * table turns a level into the stored form of mean + std * z. The float work and the rounding
 * to the type are thus done once per tensor, the inner loop is integers and two loads, and the
 * bytes are the same on every machine: the table needs only operations that IEEE 754 rounds
 * exactly.
 *
 * One loop serves every type of a width, because the table already knows the type. */
#include "synth_values.h"

#include <assert.h>
#include <math.h>

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* FNV-1a. */
static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++) {
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    }
    return hash;
}

/* The nearest value of e2m1: 0, 0.5, 1, 1.5, 2, 3, 4 or 6 with a sign. */
static uint32_t to_e2m1(double x)
{
    static const double middle[] = {0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5};
    uint32_t code = 0;
    while (code < 7 && fabs(x) > middle[code]) {
        code++;
    }
    return x < 0 ? code | 8 : code;
}

static uint32_t encode(pm_dtype type, double x)
{
    union {
        float f;
        uint32_t u;
    } v = {(float)x};
    switch (type) {
    case PM_F32: return v.u;
    case PM_F16: return f32_to_f16(v.f);
    case PM_BF16: return f32_to_bf16(v.f);
    case PM_F8_E4M3: return f32_to_e4m3(v.f);
    case PM_MXFP4: return to_e2m1(x);
    case PM_U8: return x <= 0 ? 0 : x >= 255 ? 255 : (uint32_t)lrint(x);
    default: assert(!"a type that synth writes"); return 0;
    }
}

void synth_values_init(struct synth_values *v, uint64_t seed, const char *name, pm_dtype type,
                       double mean, double std)
{
    /* A byte has variance (256^2 - 1) / 12, the sum of four 21845. */
    double unit = std / sqrt(21845.0);
    v->key = mix(hash_name(name) ^ mix(seed + GOLDEN));
    v->type = type;
    for (int level = 0; level < SYNTH_LEVELS; level++) {
        v->code[level] = encode(type, mean + (level - SYNTH_LEVELS / 2) * unit);
    }
}

/* Two levels, 0 to 1020 each, in bits 0-15 and 32-47. */
static inline uint64_t draw_levels(uint64_t key, uint64_t i)
{
    const uint64_t even = 0x00ff00ff00ff00ffu;
    uint64_t r = mix(key + i * GOLDEN);
    r = (r & even) + (r >> 8 & even);
    return (r + (r >> 16)) & 0x0000ffff0000ffffu;
}

#define FILL(name, type)                                                                       \
    static void name(const struct synth_values *v, type *to, uint64_t draw, int64_t n)         \
    {                                                                                          \
        for (int64_t i = 0; i < n; i += 2, draw++) {                                           \
            uint64_t two = draw_levels(v->key, draw);                                          \
            to[i] = (type)v->code[(uint32_t)two];                                              \
            if (i + 1 < n) to[i + 1] = (type)v->code[two >> 32];                               \
        }                                                                                      \
    }
FILL(fill_8, uint8_t)
FILL(fill_16, uint16_t)
FILL(fill_32, uint32_t)

/* The first value goes to the low half of a byte. */
static void fill_4(const struct synth_values *v, uint8_t *to, uint64_t draw, int64_t n)
{
    for (int64_t i = 0; i < n / 2; i++) {
        uint64_t two = draw_levels(v->key, draw + (uint64_t)i);
        to[i] = (uint8_t)(v->code[(uint32_t)two] | v->code[two >> 32] << 4);
    }
}

void synth_values_fill(const struct synth_values *v, void *to, int64_t first, int64_t n)
{
    uint64_t draw = (uint64_t)first / 2;
    assert(first >= 0 && first % 2 == 0);
    switch (dtype_bits(v->type)) {
    case 4:
        assert(n % 2 == 0);
        fill_4(v, to, draw, n);
        break;
    case 8: fill_8(v, to, draw, n); break;
    case 16: fill_16(v, to, draw, n); break;
    case 32: fill_32(v, to, draw, n); break;
    }
}
