/* siphash.c - two rounds for each 8 bytes, four at the end of each half of the output. */
#include "siphash.h"

#include <string.h>

static uint64_t rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void rounds(uint64_t v[4], int n)
{
    for (int i = 0; i < n; i++) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
}

/* Little-endian, as all machines that this runs on: up to 8 bytes. */
static uint64_t word_at(const unsigned char *p, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, p, n);
    return word;
}

struct siphash siphash(struct siphash key, const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t v[4] = {key.low ^ 0x736f6d6570736575u, key.high ^ 0x646f72616e646f6du ^ 0xee,
                     key.low ^ 0x6c7967656e657261u, key.high ^ 0x7465646279746573u};
    struct siphash out;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        absorb(v, word_at(p + i, 8));
    }
    absorb(v, word_at(p + i, n - i) | (uint64_t)n << 56);
    v[2] ^= 0xee;
    rounds(v, 4);
    out.low = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    rounds(v, 4);
    out.high = v[0] ^ v[1] ^ v[2] ^ v[3];
    return out;
}
