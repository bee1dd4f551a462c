// linear_bf16.cu - the linear maps of BF16 weights on mma.sync, see linear_mma.cuh. A file of
// its own, so that types compile side by side. Has not run on hardware yet.
#include "kernels/cuda/linear_mma.cuh"

extern "C" pm_status cuda_linear_bf16(struct device *d, const struct linear_params *p,
                                      const struct linear_plan *plan)
{
    return mma_launch_tile<PM_BF16>(d, p, plan);
}
