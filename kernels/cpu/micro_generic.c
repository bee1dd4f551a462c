/* micro_generic.c - the table for any processor, and the choice among all tables.
 *
 * Vectors of 4 floats, which the compiler maps to what there is; products and sums are rounded
 * apart. It is there to be correct everywhere and to be compared with; its tile is small enough
 * for 16 vector registers. */
#include "kernels/cpu/micro.h"

#if defined(__aarch64__)
#define V_REGISTER(v) "+w"(v)
#elif defined(__x86_64__)
#define V_REGISTER(v) "+x"(v)
#else
#define V_REGISTER(v) "+m"(v)
#endif

enum { LANES = 4, TILE_W = 4, TILE_X = 2 };

typedef float vec __attribute__((vector_size(16)));
typedef int32_t ivec __attribute__((vector_size(16)));
typedef uint32_t uvec __attribute__((vector_size(16)));
typedef uint16_t hvec __attribute__((vector_size(8)));
typedef vec quad;

static inline vec pick(ivec mask, vec yes, vec no)
{
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

static inline vec v_fma(vec a, vec b, vec c)
{
    return a * b + c;
}

static inline vec v_max(vec a, vec b)
{
    return pick(a > b, a, b);
}

static inline vec v_min(vec a, vec b)
{
    return pick(a < b, a, b);
}

static inline vec v_load_n(const float *p, int n)
{
    vec v = {0};
    __builtin_memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline void v_store_n(float *p, vec v, int n)
{
    __builtin_memcpy(p, &v, (size_t)n * sizeof *p);
}

static inline hvec h_load_n(const uint16_t *p, int n)
{
    hvec v = {0};
    __builtin_memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline void h_store_n(uint16_t *p, hvec v, int n)
{
    __builtin_memcpy(p, &v, (size_t)n * sizeof *p);
}

static inline vec v_from_bf16(hvec h)
{
    return (vec)(__builtin_convertvector(h, ivec) << 16);
}

static inline vec bf16_half(const uint16_t *p, int half)
{
    hvec h;
    __builtin_memcpy(&h, p + half * LANES, sizeof h);
    return v_from_bf16(h);
}

/* The bits of the magnitude, moved to their place, are 2^-112 of the value, subnormals too. */
static inline vec v_from_f16(hvec h)
{
    uvec u = __builtin_convertvector(h, uvec);
    uvec magnitude = (u & 0x7fff) << 13;
    uvec special = (uvec)((u & 0x7c00) == 0x7c00);
    uvec value = (uvec)((vec)magnitude * 5192296858534827628530496329220096.0f);
    value = (value & ~special) | ((magnitude | 0x7f800000) & special);
    return (vec)(value | (u & 0x8000) << 16);
}

/* A normal result rounds in integers, with the carry going into the exponent. A subnormal one
 * rounds in the addition of 0.5, whose last bit is worth 2^-24. */
static inline hvec v_to_f16(vec v)
{
    uvec u = (uvec)v & 0x7fffffff;
    uvec normal = (u + 0xfff + (u >> 13 & 1) - (112u << 23)) >> 13;
    uvec small = (uvec)((vec)u + 0.5f) - 0x3f000000;
    uvec is_small = (uvec)(u < 0x38800000), is_large = (uvec)(u >= 0x477ff000);
    uvec is_nan = (uvec)(u > 0x7f800000);
    normal = (normal & ~is_small) | (small & is_small);
    normal = (normal & ~is_large) | (0x7c00 & is_large);
    normal = (normal & ~is_nan) | (0x7e00 & is_nan);
    return __builtin_convertvector(normal | ((uvec)v >> 16 & 0x8000), hvec);
}

static inline float v_sum(vec v)
{
    return (v[0] + v[2]) + (v[1] + v[3]);
}

static inline quad v_sum4(const vec *v)
{
    return (quad){v_sum(v[0]), v_sum(v[1]), v_sum(v[2]), v_sum(v[3])};
}

static inline void v_stream(float *p, vec v)
{
    for (int l = 0; l < LANES; l++)
        p[l] = v[l];
}

static inline hvec h_extend(const uint8_t *p)
{
    hvec v;
    for (int l = 0; l < LANES; l++)
        v[l] = (uint16_t)(int8_t)p[l];
    return v;
}

static inline vec v_from_e2m1(const uint8_t *p, float scale)
{
    static const float value[16] = {0,    .5f,  1,  1.5f,  2,  3,  4,  6,
                                    -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};
    vec v = {value[p[0] & 15], value[p[0] >> 4], value[p[1] & 15], value[p[1] >> 4]};
    return v * scale;
}

#include "kernels/cpu/micro_body.h"

static bool available(void)
{
    return true;
}

const struct micro micro_generic = {.name = "generic", .available = available, MICRO_BODY};

/* Intel's cores run VDPBF16PS at half the rate of float32 FMA; AMD's run it at twice that. */
static bool preferred(const struct micro *micro)
{
#if defined(__x86_64__)
    if (micro == &micro_avx512bf16) return !__builtin_cpu_is("intel");
#endif
    (void)micro;
    return true;
}

pm_status micro_select(const struct micro **out, const char *name)
{
    static const struct micro *const table[] = {
#if defined(__x86_64__)
        &micro_amx,
        &micro_avx512bf16,
        &micro_avx512,
        &micro_avx2,
#endif
        &micro_generic,
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (name && *name ? strcmp(name, table[i]->name) != 0 : !preferred(table[i])) continue;
        if (table[i]->available()) {
            *out = table[i];
            return PM_OK;
        }
        if (name && *name) {
            return fail(PM_ERR_UNSUPPORTED, "this processor cannot run %s kernels", name);
        }
    }
    return fail(PM_ERR_ARG,
                "no kernels called %s: wanted generic, avx2, avx512, avx512bf16 or amx", name);
}
