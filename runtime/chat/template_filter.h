/* template_filter.h - the second table of filters: those on lists. */
#ifndef RUNTIME_TEMPLATE_FILTER_H
#define RUNTIME_TEMPLATE_FILTER_H

#include "template_eval.h"

/* NULL when there is none. */
const struct function *find_list_filter(const struct value *name);

#endif
