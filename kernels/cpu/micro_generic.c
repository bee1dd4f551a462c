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
    for (int l = 0; l < n; l++) v[l] = p[l];
    return v;
}

static inline void v_store_n(float *p, vec v, int n)
{
    for (int l = 0; l < n; l++) p[l] = v[l];
}

static inline hvec h_load_n(const uint16_t *p, int n)
{
    hvec v = {0};
    for (int l = 0; l < n; l++) v[l] = p[l];
    return v;
}

static inline void h_store_n(uint16_t *p, hvec v, int n)
{
    for (int l = 0; l < n; l++) p[l] = v[l];
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

static inline void v_sum4(float *out, const vec *v)
{
    for (int j = 0; j < 4; j++) out[j] = v_sum(v[j]);
}

static inline void v_stream(float *p, vec v)
{
    for (int l = 0; l < LANES; l++) p[l] = v[l];
}

/* The bits of the magnitude, moved to their place, are 2^-120 of the value, subnormals too. */
static inline vec v_from_e4m3(const uint8_t *p)
{
    uvec u = {p[0], p[1], p[2], p[3]};
    uvec magnitude = (u & 0x7f) << 20, nan = (uvec)((u & 0x7f) == 0x7f);
    uvec value = (uvec)((vec)magnitude * 1329227995784915872903807060280344576.0f);
    return (vec)(value | (nan & 0x7fc00000) | (u & 0x80) << 24);
}

static inline void e2m1_block(float *to, const uint8_t *from, float half)
{
    static const float doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    for (int i = 0; i < MXFP4_BLOCK / 2; i++) {
        to[2 * i] = doubled[from[i] & 15] * half;
        to[2 * i + 1] = doubled[from[i] >> 4] * half;
    }
}

#include "kernels/cpu/micro_body.h"

static bool available(void)
{
    return true;
}

const struct micro micro_generic = {.name = "generic", .available = available, MICRO_BODY};

pm_status micro_select(const struct micro **out, const char *name)
{
    static const struct micro *const table[] = {
#if defined(__x86_64__)
        &micro_avx512bf16, &micro_avx512, &micro_avx2,
#endif
        &micro_generic,
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (name && *name && strcmp(name, table[i]->name) != 0) continue;
        if (table[i]->available()) {
            *out = table[i];
            return PM_OK;
        }
        if (name && *name) {
            return fail(PM_ERR_UNSUPPORTED, "this processor cannot run %s kernels", name);
        }
    }
    return fail(PM_ERR_ARG,
                "no kernels called %s: wanted generic, avx2, avx512 or avx512bf16", name);
}
