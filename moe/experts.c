/* experts.c - gather by expert, gate and up with the activation between them, down, and the
 * weighted sum back to rows.
 *
 * Rows are not copied to be sorted: the first grouped map reads x through routing.source. Only
 * where weights scale the input do rows exist once per choice. The bits of a row of y depend on
 * its x, its ids and its weights alone. */
#include "experts.h"

static struct linear gate_and_up(const struct experts *e, struct tensor y, struct tensor x,
                                 const struct ragged *rows)
{
    return (struct linear){.y = y,
                           .x = x,
                           .w = e->w_gate,
                           .b = e->b_gate,
                           .w_up = e->w_up,
                           .b_up = e->b_up,
                           .glu = e->glu,
                           .rows = rows,
                           .checked = e->checked};
}

static struct linear down_of(const struct experts *e, struct tensor y, struct tensor x,
                             const struct ragged *rows)
{
    return (struct linear){
        .y = y, .x = x, .w = e->w_down, .b = e->b_down, .rows = rows, .checked = e->checked};
}

pm_status experts_check(const struct kernels *k, const struct experts *e)
{
    struct tensor inner = tensor_view(NULL, PM_F32, 0, e->w_gate[0].rows);
    struct tensor x = tensor_view(NULL, PM_F32, 0, e->w_gate[0].cols);
    struct ragged rows = {.n_expert = e->gate.n_expert};
    struct linear up = gate_and_up(e, inner, x, &rows), down = down_of(e, x, inner, &rows);
    if (!k->check_linear) return PM_OK;
    TRY(k->check_linear(&up));
    return k->check_linear(&down);
}

pm_status experts_forward(const struct kernels *k, struct device *d, const struct experts *e,
                          const struct experts_room *room, struct tensor y, struct tensor x,
                          float factor)
{
    const struct gate *g = &e->gate;
    const struct routing *routing = &room->routing;
    int64_t n = x.rows * g->top_k, f = e->w_gate[0].rows;
    struct ragged gathered = {g->n_expert, n, routing->offset, routing->source};
    struct ragged sorted = {g->n_expert, n, routing->offset, NULL};
    struct tensor inner = tensor_view(room->inner, room->type, n, f);
    struct tensor out = tensor_view(room->out, room->type, n, x.cols);
    struct linear up = gate_and_up(e, inner, x, &gathered);
    struct linear down = down_of(e, out, inner, &sorted);
    if (g->scale_input) {
        up.x = tensor_view(room->scaled, room->type, n, x.cols);
        up.rows = &sorted;
        TRY(k->permute_scaled(d, g, up.x, x, routing));
    }
    TRY(k->linear(d, &up, 1));
    TRY(k->linear(d, &down, 1));
    return k->unpermute(d, g, y, out, routing, factor);
}
