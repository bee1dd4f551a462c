/* grouped_linear_sm90_f8.cu - the kernels of F8_E4M3 weights with scales of 128 x 128 blocks,
 * on Hopper. How they compute stands in sm90_linear.cuh and sm90_widen.cuh.
 *
 *   rows  weights  stages  blocks an SM  shared memory  for
 *     16       64      16             1         206 KiB  decode with few tasks, not gated
 *     16      128       4             2          94 KiB  decode: streams weights
 *     64      128       3             2         110 KiB  up to some 80 rows an expert
 *     96      256       3             1         190 KiB  prefill
 *
 * Predicted, not measured: this has not run on hardware. Bytes are half of BF16's, flops the
 * same, so memory's floor halves and compute's stays: Qwen3-30B-A3B, both maps, uniform
 * routing, 3.0 TB/s and 798 TFLOP/s: T 1 13 us, T 512 208 us, T 4096 388 us (compute), T 16384
 * 1550 us. Products of e4m3 with e4m3 would halve the last two, but activations would have to
 * be rounded to three bits of mantissa; here they keep BF16, and results those of the CPU. */
#include "kernels/cuda/sm90_linear.cuh"

typedef struct sm90_shape<PM_F8_E4M3, 16, 1, 1, 16, 1> sm90_thin;
typedef struct sm90_shape<PM_F8_E4M3, 16, 1, 2, 4, 2> sm90_decode;
typedef struct sm90_shape<PM_F8_E4M3, 64, 1, 2, 3, 2> sm90_middle;

pm_status sm90_launch_f8(struct device *d, const struct sm90_args *a,
                         const struct linear_plan *plan)
{
    pm_status status;
    if (sm90_launch_few<sm90_thin, sm90_decode, sm90_middle>(&status, d, a, plan))
        return status;
    return sm90_prefill_f8(d, a);
}
