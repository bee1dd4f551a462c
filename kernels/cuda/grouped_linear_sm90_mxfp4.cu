/* grouped_linear_sm90_mxfp4.cu - the kernels of MXFP4 weights on Hopper. How they compute
 * stands in sm90_linear.cuh and sm90_widen.cuh.
 *
 *   rows  weights  stages  blocks an SM  shared memory  for
 *     16       64      24             1         206 KiB  decode with few tasks, not gated
 *     16      128       7             2          98 KiB  decode: streams weights
 *     64      128       4             2         110 KiB  up to some 80 rows an expert
 *    128      256       4             1         214 KiB  prefill
 *
 * Predicted, not measured: this has not run on hardware. A weight and its share of a scale have
 * 4.25 bits: floors of the routed experts of gpt-oss-120b (D 2880, F 2880, E 128, K 4), both
 * maps, uniform routing, at 3.0 TB/s and 798 TFLOP/s: T 1 18 us, T 64 495 us, T 4096 1020 us
 * (compute). */
#include "kernels/cuda/sm90_linear.cuh"

typedef struct sm90_shape<PM_MXFP4, 16, 1, 1, 24, 1> sm90_thin;
typedef struct sm90_shape<PM_MXFP4, 16, 1, 2, 7, 2> sm90_decode;
typedef struct sm90_shape<PM_MXFP4, 64, 1, 2, 4, 2> sm90_middle;

pm_status sm90_launch_mxfp4(struct device *d, const struct sm90_args *a,
                            const struct linear_plan *plan)
{
    pm_status status;
    if (sm90_launch_few<sm90_thin, sm90_decode, sm90_middle>(&status, d, a, plan))
        return status;
    return sm90_prefill_mxfp4(d, a);
}
