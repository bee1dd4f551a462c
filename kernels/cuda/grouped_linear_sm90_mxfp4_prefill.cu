/* grouped_linear_sm90_mxfp4_prefill.cu - the kernel of grouped_linear_sm90_mxfp4.cu for many
 * rows, in a file of its own for the sake of compile times. Has not run on hardware yet. */
#include "kernels/cuda/sm90_linear.cuh"

pm_status sm90_prefill_mxfp4(struct device *d, const struct sm90_args *a)
{
    return sm90_launch<struct sm90_shape<PM_MXFP4, linear_sm90_rows(PM_MXFP4), 2, 2, 4, 1>>(d,
                                                                                            a);
}
