/* rope.c - inverse frequencies of rotary position embeddings (RoFormer, arXiv 2104.09864) and
 * their stretched forms: linear, dynamic NTK, NTK with a fixed alpha, YaRN (arXiv 2309.00071),
 * Llama-3's smoothed bands and LongRoPE (arXiv 2402.13753).
 *
 * Must match transformers modeling_rope_utils.py. Frequencies are float32 there; here they are
 * computed in double and rounded once, which differs by less than one unit of the last place.
 */
#define _XOPEN_SOURCE 700 /* M_PI */
#include "config.h"

#include <math.h>

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* The pair index at which a wave turns `rotations` times within the original context. */
static double yarn_dim(const struct rope *r, double rotations)
{
    return r->dim * log(r->original / (rotations * 2 * M_PI)) / (2 * log(r->theta));
}

static void yarn(const struct rope *r, float *inv_freq, float *factor)
{
    double low = yarn_dim(r, r->beta_fast), high = yarn_dim(r, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, r->dim - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < r->dim / 2; i++) {
        double plain = pow(r->theta, -2.0 * i / r->dim);
        double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
        inv_freq[i] = (float)(plain / r->factor * ramp + plain * (1 - ramp));
    }
    if (r->attention_factor > 0) {
        *factor = r->attention_factor;
    } else if (r->mscale > 0 && r->mscale_all_dim > 0) {
        *factor = (float)(yarn_mscale(r->factor, r->mscale) /
                          yarn_mscale(r->factor, r->mscale_all_dim));
    } else {
        *factor = (float)yarn_mscale(r->factor, 1);
    }
}

static void llama3(const struct rope *r, float *inv_freq)
{
    double low = r->original / r->low_freq_factor, high = r->original / r->high_freq_factor;
    for (int i = 0; i < r->dim / 2; i++) {
        double f = pow(r->theta, -2.0 * i / r->dim);
        double wave = 2 * M_PI / f;
        if (wave > low) {
            f /= r->factor;
        } else if (wave >= high) {
            double smooth = (r->original / wave - r->low_freq_factor) /
                            (r->high_freq_factor - r->low_freq_factor);
            f = (1 - smooth) * f / r->factor + smooth * f;
        }
        inv_freq[i] = (float)f;
    }
}

/* The set of factors is chosen by the context the engine was opened for, once, so that keys
 * written early and late in a sequence agree. */
static void longrope(const struct rope *r, int context, float *inv_freq, float *factor)
{
    bool is_long = context > r->original;
    const float *scale = is_long ? r->long_factor : r->short_factor;
    float mscale = is_long ? r->long_mscale : r->short_mscale;
    for (int i = 0; i < r->dim / 2; i++) {
        inv_freq[i] = (float)(pow(r->theta, -2.0 * i / r->dim) / scale[i]);
    }
    if (mscale > 0) {
        *factor = mscale;
    } else if (r->attention_factor > 0) {
        *factor = r->attention_factor;
    } else {
        *factor =
            r->factor <= 1 ? 1 : (float)sqrt(1 + log(r->factor) / log((double)r->original));
    }
}

void rope_frequencies(const struct config *c, int context, float *inv_freq, float *factor)
{
    const struct rope *r = &c->rope;
    double theta = r->theta, divide = 1;
    *factor = 1;
    switch (r->kind) {
    case ROPE_YARN: yarn(r, inv_freq, factor); return;
    case ROPE_LLAMA3: llama3(r, inv_freq); return;
    case ROPE_LONG: longrope(r, context, inv_freq, factor); return;
    case ROPE_LINEAR: divide = r->factor; break;
    case ROPE_NTK_ALPHA: theta *= pow(r->alpha, r->dim / (r->dim - 2.0)); break;
    case ROPE_DYNAMIC:
        if (context > c->max_position) {
            theta *= pow(r->factor * context / c->max_position - (r->factor - 1),
                         r->dim / (r->dim - 2.0));
        }
        break;
    case ROPE_DEFAULT: break;
    }
    for (int i = 0; i < r->dim / 2; i++) {
        inv_freq[i] = (float)(pow(theta, -2.0 * i / r->dim) / divide);
    }
}
