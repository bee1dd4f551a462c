/* layer.h - the inside of the expert layer of polymath.h. */
#ifndef RUNTIME_LAYER_H
#define RUNTIME_LAYER_H

#include "moe/experts.h"

/* PM_ERR_ARG with the field, what was found and what is wanted. */
pm_status layer_check_shape(const pm_layer_shape *s, const struct kernels *k);
pm_status layer_check_weights(const pm_layer_shape *s, const pm_layer_weights *w);

/* Fills the lists of `e`, [E] each, from table [6 E] with views of the weights. Biases that
 * alternate are left out. */
void layer_views(struct experts *e, struct tensor *table, const pm_layer_shape *s,
                 const pm_layer_weights *w);

#endif
