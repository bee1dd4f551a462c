/* attention_mix.c - the second half of attention where the instruction set multiplies tiles of
 * bf16: weighted sums of cached values.
 *
 *     out[i] = sum_j w[i, j] v[j]        j over the visible positions of query i
 *
 * Weights become bf16 and meet MIX_ROWS positions at a time, those at multiples of MIX_ROWS,
 * in ascending order. Queries that see all positions of some share what is made of their values
 * (a panel); where a query's span begins or ends in between, the other values are zeros for it:
 * a weight of zero would not do, because a value that it does not see may be infinite. So a
 * query's products, and their order, are those that it has alone.
 *
 * Bytes and flops as in attention.c. Limiter: the exponentials of the softmax, of which there
 * is one for 2 v_dim multiply-adds here. */
#include <string.h>

#include "kernels/cpu/attention.h"

enum { PANELS = 8 }; /* made at a time: of 128 values each they fill a sixteenth of the cache */

struct mixing {
    const struct span *s;
    const struct query *query;
    int n, base;
    const uint16_t *weight; /* [n, stride] from position `base` on */
    int64_t stride;
    float *sum;         /* [n, width] */
    int64_t width;      /* v_dim, filled up */
    size_t panel_bytes; /* of MIX_ROWS positions */
    char *panels;       /* [PANELS], and one for the ends of spans */
};

static int64_t width_of(int64_t v_dim)
{
    return (v_dim + MICRO_MIX_DIM - 1) / MICRO_MIX_DIM * MICRO_MIX_DIM;
}

size_t mix_room_bytes(int64_t v_dim)
{
    size_t width = (size_t)width_of(v_dim);
    return (PANELS + 1) * MIX_ROWS * width * sizeof(uint16_t) +
           TASK_QUERIES * width * sizeof(float);
}

/* Weights of each query as bf16 in the place of its scores: zeros where it sees nothing. */
static void narrow_weights(const struct mixing *x, float *score, int64_t stride)
{
    enum { AT_A_TIME = 256 };
    uint16_t some[AT_A_TIME];
    for (int i = 0; i < x->n; i++) {
        const struct query *q = &x->query[i];
        float *from = score + i * stride;
        uint16_t *to = (uint16_t *)(void *)from;
        int first = q->first - x->base, end = q->end - x->base, n;
        int whole = (end + MIX_ROWS - 1) / MIX_ROWS * MIX_ROWS;
        for (int j = first; j < end; j += n) {
            n = (int)min_i64(AT_A_TIME, end - j);
            x->s->m->to_bf16(some, from + j, n);
            memcpy(to + j, some, (size_t)n * sizeof *to);
        }
        memset(to, 0, (size_t)first * sizeof *to);
        memset(to + end, 0, (size_t)(whole - end) * sizeof *to);
    }
}

/* The values at positions from .. to - 1, which lie within MIX_ROWS, and zeros around them. */
static void make_panel(const struct mixing *x, char *panel, int from, int to)
{
    const void *v[MIX_ROWS];
    int first = from / MIX_ROWS * MIX_ROWS;
    for (int j = 0; j < MIX_ROWS; j++) {
        bool seen = first + j >= from && first + j < to;
        v[j] = seen ? value_at(x->s, first + j) : NULL;
    }
    x->s->m->mix_pack(panel, v, x->s->v_dim);
}

/* Adds what n queries from number q on have of n_panel panels from position `first` on. */
static void mix(const struct mixing *x, int q, int n, int first, int n_panel,
                const char *panels)
{
    struct mix op = {.n_query = n,
                     .n_panel = n_panel,
                     .dim = x->width,
                     .weight = x->weight + q * x->stride + (first - x->base),
                     .weight_stride = x->stride,
                     .panels = panels,
                     .sum = x->sum + q * x->width,
                     .sum_stride = x->width};
    x->s->m->mix(&op);
}

/* Positions from .. to - 1 of n queries that see no others of their MIX_ROWS. */
static void mix_end(const struct mixing *x, int q, int n, int from, int to)
{
    char *panel = x->panels + PANELS * x->panel_bytes;
    make_panel(x, panel, from, to);
    mix(x, q, n, from / MIX_ROWS * MIX_ROWS, 1, panel);
}

/* How many of the queries from number q on have the span of the first; with `whole`, the same
 * whole MIX_ROWS in it. */
static int count_alike(const struct mixing *x, int q, bool whole)
{
    const struct query *a = &x->query[q];
    int n = 1;
    for (; q + n < x->n; n++) {
        const struct query *b = a + n;
        bool same = a->first == b->first && a->end == b->end;
        if (whole) {
            same =
                (a->first + MIX_ROWS - 1) / MIX_ROWS == (b->first + MIX_ROWS - 1) / MIX_ROWS &&
                a->end / MIX_ROWS == b->end / MIX_ROWS;
        }
        if (!same) break;
    }
    return n;
}

/* The queries from number q on, whose whole MIX_ROWS are the same, over the positions
 * begin .. end - 1 of the panels. */
static void mix_alike(const struct mixing *x, int q, int n, int begin, int end)
{
    int first = (x->query[q].first + MIX_ROWS - 1) / MIX_ROWS * MIX_ROWS;
    int stop = x->query[q].end / MIX_ROWS * MIX_ROWS, same;
    int from = (int)max_i64(first, begin), to = (int)min_i64(stop, end);
    for (int i = q; i < q + n; i += same) {
        const struct query *at = &x->query[i];
        same = (int)min_i64(count_alike(x, i, false), q + n - i);
        if (at->first < first && at->first >= begin && at->first < end) {
            mix_end(x, i, same, at->first, (int)min_i64(first, at->end));
        }
    }
    if (from < to) {
        mix(x, q, n, from, (to - from) / MIX_ROWS,
            x->panels + (size_t)(from - begin) / MIX_ROWS * x->panel_bytes);
    }
    for (int i = q; i < q + n; i += same) {
        const struct query *at = &x->query[i];
        same = (int)min_i64(count_alike(x, i, false), q + n - i);
        if (at->end > stop && stop >= first && stop >= begin && stop < end) {
            mix_end(x, i, same, stop, at->end);
        }
    }
}

/* Makes the panels of begin .. end - 1 that some query sees all of. */
static void make_panels(const struct mixing *x, int begin, int end)
{
    for (int j = begin; j < end; j += MIX_ROWS) {
        bool seen = false;
        for (int i = 0; i < x->n && !seen; i++) {
            seen = x->query[i].first <= j && x->query[i].end >= j + MIX_ROWS;
        }
        if (seen) {
            make_panel(x, x->panels + (size_t)(j - begin) / MIX_ROWS * x->panel_bytes, j,
                       j + MIX_ROWS);
        }
    }
}

void mix_values(const struct span *s, const struct query *query, int n, float *score,
                int64_t stride, int base, char *room)
{
    struct mixing x = {.s = s, .query = query, .n = n, .base = base};
    int last = base, alike;
    x.width = width_of(s->v_dim);
    x.panel_bytes = MIX_ROWS * (size_t)x.width * sizeof(uint16_t);
    x.panels = room;
    x.sum = (float *)(void *)(room + (PANELS + 1) * x.panel_bytes);
    x.weight = (const uint16_t *)(const void *)score;
    x.stride = 2 * stride;
    narrow_weights(&x, score, stride);
    memset(x.sum, 0, (size_t)n * (size_t)x.width * sizeof *x.sum);
    for (int i = 0; i < n; i++)
        last = (int)max_i64(last, query[i].end);
    for (int begin = base; begin < last; begin += PANELS * MIX_ROWS) {
        int end = begin + PANELS * MIX_ROWS;
        make_panels(&x, begin, end);
        for (int q = 0; q < n; q += alike) {
            alike = count_alike(&x, q, true);
            mix_alike(&x, q, alike, begin, end);
        }
    }
    for (int i = 0; i < n; i++)
        memcpy(query[i].out, x.sum + i * x.width, (size_t)s->v_dim * sizeof(float));
}
