/* peaks.h - what this machine can do at most, to set beside what is measured. */
#ifndef KERNELS_CPU_PEAKS_H
#define KERNELS_CPU_PEAKS_H

#include "kernels/cpu/cpu.h"

/* Measures the figures of `which` (bits of enum peak) with all threads of d, for half a second
 * each; the others are 0. bf16_gflops is the float32 figure where there is no such instruction.
 * Bandwidth takes memory for the time: up to 1 GiB, at most a quarter of the machine's.
 * PM_ERR_NOMEM. Not during an operation. */
pm_status peaks_measure(struct device *d, int which, struct peaks *out);

#endif
