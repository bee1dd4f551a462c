// linear_f8.cu - the linear maps of F8_E4M3 weights on mma.sync, see linear_mma.cuh. A file of
// its own, so that types compile side by side. Has not run on hardware yet.
#include "kernels/cuda/linear_mma.cuh"

extern "C" pm_status cuda_linear_f8(struct device *d, const struct linear_params *p,
                                    const struct linear_plan *plan)
{
    return mma_launch_tile<PM_F8_E4M3>(d, p, plan);
}
