/* load.h - when requests are sent: arrival times of an open loop, and random numbers by seed.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdint.h>

/* A stream of random numbers; equal seeds and streams give equal numbers everywhere. */
struct random_stream {
    uint64_t state;
};

struct random_stream random_open(uint64_t seed, uint64_t stream);
uint64_t random_bits(struct random_stream *r);
double random_uniform(struct random_stream *r); /* in (0, 1) */
/* A whole number from lo to hi, both included. */
int64_t random_between(struct random_stream *r, int64_t lo, int64_t hi);
double random_normal(struct random_stream *r);
/* Mean `shape`, variance `shape` (scale 1); shape > 0. */
double random_gamma(struct random_stream *r, double shape);

/* Arrivals at `rate` requests/s whose gaps are gamma distributed with shape `burstiness`: 1 is
 * a Poisson process, less comes in bursts, more is regular. With ramp_s > 0 the rate goes
 * linearly from rate to ramp_to within ramp_s seconds and stays there. */
struct load {
    double rate, burstiness;
    double ramp_to, ramp_s; /* ramp_s 0: no ramp */
    struct random_stream random;
    double work; /* expected number of arrivals until the last one */
};

void load_open(struct load *l, double rate, double burstiness, uint64_t seed);
/* Seconds from the start to the next arrival; never before the last one. */
double load_next(struct load *l);

#endif
