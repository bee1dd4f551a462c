/* synth_values.h - the random values of one tensor, by element index. */
#ifndef MOE_SYNTH_VALUES_H
#define MOE_SYNTH_VALUES_H

#include "kernels/base.h"

enum { SYNTH_LEVELS = 4 * 255 + 1 };

struct synth_values {
    uint64_t key;
    pm_dtype type;
    uint32_t code[SYNTH_LEVELS]; /* the stored form of each level */
};

/* Values that are normal with this mean and deviation, cut at 3.45 deviations; their sequence
 * depends on the seed and the name. `type` is a float type, PM_MXFP4 (4-bit values without
 * their scales) or PM_U8 (whole numbers). */
void synth_values_init(struct synth_values *v, uint64_t seed, const char *name, pm_dtype type,
                       double mean, double std);

/* Writes values first .. first + n - 1; `first` is even, and for PM_MXFP4 so is n. */
void synth_values_fill(const struct synth_values *v, void *to, int64_t first, int64_t n);

#endif
