/* explain.c - which kernels a model's linear maps would run on. */
#include <string.h>

#include "model_inside.h"

/* Adds a map whose kind is not there yet. */
static int add_kernel(struct model *m, struct model_kernel *out, int n, int max,
                      const char *what, const struct tensor *w, bool glu, int n_expert,
                      int64_t rows)
{
    struct linear_kind kind = {w->type, glu, n_expert, w->rows, w->cols, rows};
    if (!w->cols || n >= max) return n;
    for (int i = 0; i < n; i++) {
        const struct linear_kind *k = &out[i].kind;
        if (strcmp(out[i].what, what) == 0 && k->type == kind.type && k->n == kind.n &&
            k->k == kind.k) {
            return n;
        }
    }
    out[n].what = what;
    out[n].kind = kind;
    m->k->explain(m->d, &kind, out[n].text, sizeof out[n].text);
    return n + 1;
}

int model_kernels(struct model *m, int n_row, struct model_kernel *out, int max)
{
    int n = 0;
    for (int i = 0; i < m->c->n_layer; i++) {
        const struct layer_weights *l = &m->w.layer[i];
        const struct {
            const char *what;
            const struct tensor *w;
            bool glu;
        } dense[] = {{"q", &l->q, false},
                     {"q latent", &l->q_a, false},
                     {"q from latent", &l->q_b, false},
                     {"k", &l->k, false},
                     {"v", &l->v, false},
                     {"kv latent", &l->kv_a, false},
                     {"attention output", &l->o, false},
                     {"gate", &l->gate, false},
                     {"shared gate, up", &l->shared_gate, true},
                     {"shared down", &l->shared_down, false},
                     {"dense gate, up", &l->dense_gate, true},
                     {"dense down", &l->dense_down, false}};
        for (size_t j = 0; j < sizeof dense / sizeof *dense; j++) {
            n = add_kernel(m, out, n, max, dense[j].what, dense[j].w, dense[j].glu, 1, n_row);
        }
        if (!m->c->layer[i].moe) continue;
        int e = m->c->gate.n_expert;
        int64_t rows = (int64_t)n_row * m->c->layer[i].top_k;
        n = add_kernel(m, out, n, max, "experts gate, up", l->expert_gate, true, e, rows);
        n = add_kernel(m, out, n, max, "experts down", l->expert_down, false, e, rows);
    }
    return add_kernel(m, out, n, max, "head", &m->w.head, false, 1, 1);
}
