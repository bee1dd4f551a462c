/* grouped_linear_sm90_f8_prefill.cu - the kernel of grouped_linear_sm90_f8.cu for many rows,
 * in a file of its own for the sake of compile times. 96 rows: two sets of sums beside one of a
 * block's, and the weights, fill the registers of a thread.
 * Has not run on hardware yet. */
#include "kernels/cuda/sm90_linear.cuh"

pm_status sm90_prefill_f8(struct device *d, const struct sm90_args *a)
{
    return sm90_launch<struct sm90_shape<PM_F8_E4M3, linear_sm90_rows(PM_F8_E4M3), 2, 2, 3, 1>>(
        d, a);
}
