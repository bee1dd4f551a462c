/* micro_amx.h - tiles of linear maps on Intel's AMX, for the table in micro_avx512.c. The
 * contracts of the functions are those of struct micro and struct micro_map. */
#ifndef KERNELS_CPU_MICRO_AMX_H
#define KERNELS_CPU_MICRO_AMX_H

#include "kernels/cpu/micro.h"

/* Whether processor and kernel have it; asks the kernel's permission for this process. */
bool amx_available(void);

void amx_pack(void *to, const float *const *x, int n_x, int64_t k);
void amx_tile_bf16(const struct tile *tile);
void amx_tile_f8(const struct tile *tile);
void amx_tile_mxfp4(const struct tile *tile);
void amx_mix_pack(void *panel, const void *const *v, int64_t dim);
void amx_mix(const struct mix *mix);
double amx_peak(int64_t n);

#endif
