/* grouped_linear_sm90.cu - the grouped linear map on Hopper: host side, and the kernels of BF16
 * weights. How they compute stands in sm90_linear.cuh.
 *
 * Four kernels differ in the tile, which follows from the plan's estimate of the rows of an
 * expert; any expert size is right with each of them and gives the same bits:
 *
 *   rows  weights  stages  blocks an SM  shared memory  for
 *     16       64      20             1         214 KiB  decode with few tasks, not gated
 *     16      128       5             2         104 KiB  decode: streams weights
 *     64      128       4             2         110 KiB  up to some 80 rows an expert
 *    128      256       4             1         214 KiB  prefill
 *
 * Predicted, not measured: this has not run on hardware. Floors of the routed experts of
 * Qwen3-30B-A3B (D 2048, F 768, E 128, K 8), both maps, uniform routing, at 3.0 TB/s and 798
 * TFLOP/s; `goal` is what the design aims at:
 *
 *   T       MB    GFLOP   memory us   compute us   goal us
 *   1       75    0.08         25.2          0.1        30
 *   512   1208    38.7          408           48       425
 *   4096  1208     309          447          388       560
 *   16384 1208    1237          582         1550      1850 */
#include "kernels/cuda/sm90_linear.cuh"
#include "kernels/cuda/tensormap.h"

/* [K, N, E] of a stack of weights, MXFP4 in bytes. TMA wants distances that are not negative:
 * experts that lie one before the other are counted from the last. */
static pm_status weights_map(CUtensorMap *out, bool *flip, const struct linear_params *p,
                             const struct linear_stack *w)
{
    const char *base = w->data;
    int64_t distance = p->n_expert > 1 ? w->expert_stride : w->stride * p->n;
    bool packed = w->type == PM_MXFP4;
    uint64_t dim[3] = {(uint64_t)(packed ? p->k / 2 : p->k), (uint64_t)p->n,
                       (uint64_t)p->n_expert};
    uint64_t stride[2];
    uint32_t box[3] = {(uint32_t)sm90_step(w->type) / (packed ? 2 : 1), SM90_ATOM, 1};
    *flip = distance < 0;
    if (*flip) {
        base += distance * (p->n_expert - 1);
        distance = -distance;
    }
    stride[0] = (uint64_t)w->stride;
    stride[1] = (uint64_t)distance;
    return tensormap_3d(out, base, packed ? PM_U8 : w->type, dim, stride, box,
                        packed ? TENSORMAP_PLAIN : TENSORMAP_SWIZZLE_128);
}

extern "C" pm_status cuda_grouped_linear_sm90(struct device *d, const struct linear_params *p,
                                              const struct linear_plan *plan)
{
    struct sm90_args a = {};
    a.p = *p;
    a.wide_y = ((uintptr_t)p->y | (uintptr_t)p->y_stride) % 16 == 0;
    TRY(weights_map(&a.w, &a.flip, p, &p->w));
    if (p->glu.kind != GLU_NONE) TRY(weights_map(&a.w_up, &a.flip_up, p, &p->w_up));
    switch (p->w.type) {
    case PM_BF16: return sm90_launch_bf16(d, &a, plan);
    case PM_F8_E4M3: return sm90_launch_f8(d, &a, plan);
    case PM_MXFP4: return sm90_launch_mxfp4(d, &a, plan);
    default: return fail(PM_ERR_BUG, "linear: no wgmma for %s", dtype_name(p->w.type));
    }
}

typedef struct sm90_shape<PM_BF16, 16, 1, 1, 20, 1> sm90_thin;
typedef struct sm90_shape<PM_BF16, 16, 1, 2, 5, 2> sm90_decode;
typedef struct sm90_shape<PM_BF16, 64, 1, 2, 4, 2> sm90_middle;

pm_status sm90_launch_bf16(struct device *d, const struct sm90_args *a,
                           const struct linear_plan *plan)
{
    pm_status status;
    if (sm90_launch_few<sm90_thin, sm90_decode, sm90_middle>(&status, d, a, plan))
        return status;
    return sm90_prefill_bf16(d, a);
}
