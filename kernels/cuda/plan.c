/* plan.c - which kernel computes a linear map and with which tile.
 *
 * Rows of a tile. The host knows how many rows there are at most, not how they spread over the
 * experts. It plans for the mean: a tile some times larger than that takes most experts' rows
 * at once, so weights come from memory once; what spills over reads them from the second cache.
 *
 * Weights of a tile. Large tiles read x less often, small ones occupy more multiprocessors: the
 * largest tile of which there are enough. */
#include "kernels/cuda/plan.h"

#include <stddef.h>

static const struct linear_tile mma_tiles[] = {{16, 8},   {64, 8},   {16, 16},  {64, 16},
                                               {128, 32}, {128, 64}, {128, 128}};
static const struct linear_tile f32_tiles[] = {{2, 1}, {4, 4}};

enum {
    N_MMA = sizeof mma_tiles / sizeof *mma_tiles,
    N_F32 = sizeof f32_tiles / sizeof *f32_tiles,
};

const struct linear_tile *linear_mma_tiles(int *n)
{
    *n = N_MMA;
    return mma_tiles;
}

const struct linear_tile *linear_f32_tiles(int *n)
{
    *n = N_F32;
    return f32_tiles;
}

const char *linear_kernel_name(enum linear_kernel kernel)
{
    static const char *const name[] = {"fma", "mma", "wgmma"};
    return name[kernel];
}

static bool has_tile(const struct linear_tile *tiles, int n, const struct linear_plan *plan)
{
    for (int i = 0; i < n; i++) {
        if (tiles[i].weight_tile == plan->weight_tile && tiles[i].row_tile == plan->row_tile) {
            return true;
        }
    }
    return false;
}

static bool has_wgmma(pm_dtype type)
{
    return type == PM_BF16 || type == PM_F8_E4M3 || type == PM_MXFP4;
}

bool linear_plan_ok(const struct linear_machine *m, const struct linear_shape *s,
                    const struct linear_plan *plan)
{
    switch (plan->kernel) {
    case LINEAR_F32: return s->type == PM_F32 && has_tile(f32_tiles, N_F32, plan);
    case LINEAR_MMA:
        return linear_mma_raw(s->type) && m->sm >= 80 && has_tile(mma_tiles, N_MMA, plan) &&
               linear_mma_smem(s->type, plan->weight_tile, plan->row_tile, s->n_expert) <=
                   m->smem_block;
    case LINEAR_SM90: return has_wgmma(s->type) && m->sm == 90 && s->aligned;
    }
    return false;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Rows that an expert which has any has in the mean. */
static int64_t mean_rows(const struct linear_shape *s)
{
    int64_t n = min_i64(s->n_expert, s->max_row);
    return n > 0 ? ceil_div(s->max_row, n) : 0;
}

/* The row tile for experts of `mean` rows. One expert has just these; among several, some have
 * twice as many. */
static int row_tile_for(int64_t mean, bool dense)
{
    static const struct {
        int tile, most_dense, most;
    } rule[] = {{8, 8, 4}, {16, 16, 10}, {32, 32, 24}, {64, 64, 80}};
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++) {
        if (mean <= (dense ? rule[i].most_dense : rule[i].most)) return rule[i].tile;
    }
    return 128;
}

/* Tiles of the operation when rows spread evenly. */
static int64_t n_task(const struct linear_shape *s, const struct linear_tile *tile)
{
    int64_t n_expert = min_i64(s->n_expert, s->max_row);
    int64_t rows = n_expert * ceil_div(mean_rows(s), tile->row_tile);
    return rows * ceil_div(s->n * (s->glu ? 2 : 1), tile->weight_tile);
}

/* The largest tile for these rows that gives every multiprocessor two tiles; tiles for fewer
 * rows if none does. */
static struct linear_plan plan_mma(const struct linear_machine *m, const struct linear_shape *s,
                                   const char *reason)
{
    struct linear_plan plan = {LINEAR_MMA, 16, 8, reason};
    int row_tile = row_tile_for(mean_rows(s), s->n_expert == 1);
    for (int i = N_MMA - 1; i >= 0; i--) {
        struct linear_plan at = {LINEAR_MMA, mma_tiles[i].weight_tile, mma_tiles[i].row_tile,
                                 reason};
        if (at.row_tile > row_tile || !linear_plan_ok(m, s, &at)) continue;
        plan = at;
        if (n_task(s, &mma_tiles[i]) >= 2 * m->n_sm) break;
        if (at.row_tile <= 16 && at.weight_tile == 16)
            break; /* fewer rows give no more tiles */
    }
    return plan;
}

struct linear_plan linear_plan_of(const struct linear_machine *m, const struct linear_shape *s)
{
    struct linear_plan plan = {LINEAR_SM90, 128, 0,
                               s->type == PM_BF16 ? "BF16 weights on sm_90"
                                                  : "weights widen to BF16 on sm_90"};
    if (s->type == PM_F32) {
        const struct linear_tile *tile = &f32_tiles[mean_rows(s) > 2];
        return (struct linear_plan){LINEAR_F32, tile->weight_tile, tile->row_tile,
                                    "F32 weights keep all their bits"};
    }
    if (linear_plan_ok(m, s, &plan)) {
        int64_t rows = row_tile_for(mean_rows(s), s->n_expert == 1);
        plan.row_tile = (int)min_i64(rows, linear_sm90_rows(s->type));
        return plan;
    }
    if (m->sm != 90) return plan_mma(m, s, "wgmma needs sm_90");
    if (!has_wgmma(s->type))
        return plan_mma(m, s, "wgmma kernels take BF16, F8_E4M3 and MXFP4 weights");
    return plan_mma(m, s, "wgmma kernels take rows aligned to 16 bytes");
}
