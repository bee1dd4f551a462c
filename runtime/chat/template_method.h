/* template_method.h - pairs of a dictionary, for methods and filters. */
#ifndef RUNTIME_TEMPLATE_METHOD_H
#define RUNTIME_TEMPLATE_METHOD_H

#include "template_eval.h"

/* (key, value) for each entry, in *item [d->n]. */
pm_status dict_pairs(struct render *r, const struct value_dict *d, const struct value **item);

#endif
