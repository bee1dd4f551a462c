/* tensor.c - views of matrices. */
#include "kernels.h"

struct tensor tensor_view(void *data, pm_dtype type, int64_t rows, int64_t cols)
{
    return (struct tensor){.data = data,
                           .type = type,
                           .rows = rows,
                           .cols = cols,
                           .stride = cols * dtype_bits(type) / 8};
}

struct tensor tensor_rows(const struct tensor *t, int64_t n0, int64_t n)
{
    struct tensor view = *t;
    view.data = (char *)t->data + n0 * t->stride;
    view.rows = n;
    view.scale_row += n0;
    if (t->type == PM_MXFP4) view.scale = (const char *)t->scale + n0 * t->scale_stride;
    return view;
}
