/* shapes.c - layers of released models. Source: config.json of each release, but for the last.
 */
#include "shapes.h"

#include <stdio.h>
#include <string.h>

#define SOFTMAX(e, k, r)                                                                       \
    {                                                                                          \
        .n_expert = e, .top_k = k, .renorm = r, .scale = 1                                     \
    }
#define SIGMOID(e, k, g, t, s)                                                                 \
    {                                                                                          \
        .n_expert = e, .top_k = k, .score = SCORE_SIGMOID,                                     \
        .group = (g) > 1 ? GROUP_TOP2 : GROUP_NONE, .n_group = g, .top_group = t,              \
        .renorm = RENORM_SUM, .floor = 1e-20f, .scale = s                                      \
    }
#define PICKED(e, k)                                                                           \
    {                                                                                          \
        .n_expert = e, .top_k = k, .score = SCORE_LOGIT, .weight = WEIGHT_SOFTMAX_PICKED,      \
        .scale = 1                                                                             \
    }
#define LATENT                                                                                 \
    {                                                                                          \
        .latent = 512, .nope = 128, .rope = 64, .v_dim = 128                                   \
    }
#define SILU                                                                                   \
    {                                                                                          \
        GLU_SILU, 0, 0                                                                         \
    }
#define OSS                                                                                    \
    {                                                                                          \
        GLU_CLAMPED, 1.702f, 7                                                                 \
    }

/* clang-format off */
const struct shape shapes[] = {
    /* name               D     F      H    G   Dh   latent  bias          activation, gate */
    {"qwen3-30b",        2048,   768,  32,  4, 128, {0},    false, false, SILU, SOFTMAX(128, 8, RENORM_SUM)},
    {"qwen3-235b",       4096,  1536,  64,  4, 128, {0},    false, false, SILU, SOFTMAX(128, 8, RENORM_SUM)},
    {"qwen3-next",       2048,   512,  16,  2, 256, {0},    false, false, SILU, SOFTMAX(512, 10, RENORM_SUM)},
    {"mixtral",          4096, 14336,  32,  8, 128, {0},    false, false, SILU, SOFTMAX(8, 2, RENORM_SUM)},
    {"olmoe",            2048,  1024,  16, 16, 128, {0},    false, false, SILU, SOFTMAX(64, 8, RENORM_NONE)},
    {"gpt-oss-20b",      2880,  2880,  64,  8,  64, {0},    false, true,  OSS,  PICKED(32, 4)},
    {"gpt-oss-120b",     2880,  2880,  64,  8,  64, {0},    false, true,  OSS,  PICKED(128, 4)},
    {"deepseek-v2-lite", 2048,  1408,  16,  0,   0, LATENT, false, false, SILU, SOFTMAX(64, 6, RENORM_NONE)},
    {"deepseek-v3",      7168,  2048, 128,  0,   0, LATENT, true,  false, SILU, SIGMOID(256, 8, 8, 4, 2.5f)},
    {"kimi-k2",          7168,  2048,  64,  0,   0, LATENT, true,  false, SILU, SIGMOID(384, 8, 1, 1, 2.827f)},
    {"glm-4.5-air",      4096,  1408,  96,  8, 128, {0},    true,  false, SILU, SIGMOID(128, 8, 1, 1, 1)},
    /* The layer on which SonicMoE (arXiv 2512.14080) reports its best rate; attention as Mixtral. */
    {"sonic",            4096,  2048,  32,  8, 128, {0},    false, false, SILU, SOFTMAX(64, 4, RENORM_SUM)},
    {NULL, 0, 0, 0, 0, 0, {0}, false, false, SILU, PICKED(0, 0)},
};
/* clang-format on */

pm_status shapes_find(const struct shape **out, const char *name, size_t n)
{
    char known[512] = "";
    for (const struct shape *s = shapes; s->name; s++) {
        size_t used = strlen(known);
        if (strlen(s->name) == n && memcmp(s->name, name, n) == 0) {
            *out = s;
            return PM_OK;
        }
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", s->name);
    }
    return fail(PM_ERR_ARG, "shape: found \"%.*s\", wanted %s", (int)n, name, known);
}

pm_status shapes_cut(struct shape *out, const struct shape *s, int n, int k)
{
    struct gate g = s->gate;
    if (n) g.n_expert = n;
    if (k) g.top_k = k;
    if (!k && g.top_k > g.n_expert) g.top_k = g.n_expert;
    if (g.top_k > g.n_expert) {
        return fail(PM_ERR_ARG, "top-k: found %d, %s has %d experts here", k, s->name,
                    g.n_expert);
    }
    if (g.group != GROUP_NONE &&
        (g.n_expert % g.n_group || g.top_k > g.top_group * (g.n_expert / g.n_group))) {
        g.group = GROUP_NONE;
        g.n_group = g.top_group = 1;
    }
    *out = *s;
    out->gate = g;
    return PM_OK;
}
