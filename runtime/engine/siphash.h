/* siphash.h - a keyed hash of 128 bits: SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast
 * short-input PRF", 2012) with the 128-bit output of its authors' reference. */
#ifndef RUNTIME_SIPHASH_H
#define RUNTIME_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct siphash {
    uint64_t low, high;
};

/* Who does not know the key cannot find two texts of the same hash. */
struct siphash siphash(struct siphash key, const void *data, size_t n);

#endif
