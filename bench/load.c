/* load.c - arrival times.
 *
 * Gaps are drawn for a rate of one a second and summed: that sum is the expected number of
 * arrivals. A changing rate is then a change of clock: the arrival happens when the integral of
 * the rate reaches the sum. Without a ramp that is a division by the rate. */
#include "load.h"

#include <math.h>
#include <stdbool.h>

struct random_stream random_open(uint64_t seed, uint64_t stream)
{
    struct random_stream r = {seed * 0x9e3779b97f4a7c15u + 1};
    r.state = random_bits(&r) ^ stream;
    r.state = random_bits(&r);
    return r;
}

/* SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
uint64_t random_bits(struct random_stream *r)
{
    uint64_t x = r->state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

double random_uniform(struct random_stream *r)
{
    return ((double)(random_bits(r) >> 11) + 0.5) * 0x1p-53;
}

int64_t random_between(struct random_stream *r, int64_t lo, int64_t hi)
{
    /* The bias of the remainder is under 2^-31 for the ranges of a workload. */
    return lo + (int64_t)(random_bits(r) % (uint64_t)(hi - lo + 1));
}

double random_normal(struct random_stream *r)
{
    double angle = 6.283185307179586 * random_uniform(r);
    return sqrt(-2 * log(random_uniform(r))) * cos(angle);
}

/* Marsaglia and Tsang, "A simple method for generating gamma variables", 2000: for shapes from
 * 1 on, accepted in more than 95 of 100 tries; smaller shapes by its last section. */
double random_gamma(struct random_stream *r, double shape)
{
    double boost = shape < 1 ? pow(random_uniform(r), 1 / shape) : 1;
    double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = random_normal(r), v = 1 + c * x;
        if (v <= 0) continue;
        v = v * v * v;
        if (log(random_uniform(r)) < 0.5 * x * x + d - d * v + d * log(v)) return boost * d * v;
    }
}

void load_open(struct load *l, double rate, double burstiness, uint64_t seed)
{
    *l = (struct load){.rate = rate,
                       .burstiness = burstiness,
                       .ramp_to = rate,
                       .random = random_open(seed, UINT64_MAX)};
}

double load_next(struct load *l)
{
    double change = l->ramp_to - l->rate, on_ramp = (l->rate + change / 2) * l->ramp_s;
    l->work += random_gamma(&l->random, l->burstiness) / l->burstiness;
    if (l->work >= on_ramp) return l->ramp_s + (l->work - on_ramp) / l->ramp_to;
    if (change == 0) return l->work / l->rate;
    /* rate t + change t^2 / (2 ramp_s) = work, by the root that does not cancel. */
    return 2 * l->work / (l->rate + sqrt(l->rate * l->rate + 2 * change * l->work / l->ramp_s));
}
