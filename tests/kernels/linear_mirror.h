/* linear_mirror.h - a linear map of the rig's host memory, laid out in a device's memory as the
 * CUDA backend wants it: the tensors of all experts in one block, at equal distances. Blocks
 * end with their last value, so that a sanitizer sees a step beyond. */
#ifndef TESTS_KERNELS_LINEAR_MIRROR_H
#define TESTS_KERNELS_LINEAR_MIRROR_H

#include <stdlib.h>
#include <string.h>

#include "tests/oracle/rig.h"

enum { MIRROR_MEMORY = 64 };

struct mirror {
    const struct kernels *k;
    struct device *d;
    struct tensor *stack[4]; /* what an operation points to, on the host */
    struct ragged rows;
    void *memory[MIRROR_MEMORY]; /* on the device */
    int n_memory;
};

static inline void mirror_free(struct mirror *m)
{
    while (m->n_memory) {
        m->k->free(m->d, m->memory[--m->n_memory]);
    }
    for (int i = 0; i < 4; i++) {
        free(m->stack[i]);
        m->stack[i] = NULL;
    }
}

/* A copy of `bytes` bytes, until mirror_free. */
static inline void *mirror_copy(struct mirror *m, const void *from, int64_t bytes)
{
    void *to;
    if (m->n_memory == MIRROR_MEMORY) rig_fail("the mirror is out of memory");
    expect_ok(m->k->alloc(m->d, &to, (size_t)bytes, "mirror"));
    m->memory[m->n_memory++] = to;
    expect_ok(m->k->upload(m->d, to, from, (size_t)bytes));
    expect_ok(m->k->sync(m->d));
    return to;
}

/* A copy of a matrix of plain rows, gaps included. */
static inline struct tensor mirror_matrix(struct mirror *m, const struct tensor *t)
{
    struct tensor to = *t;
    int64_t row = t->cols * dtype_bits(t->type) / 8;
    to.data = mirror_copy(m, t->data, t->rows ? (t->rows - 1) * t->stride + row : 0);
    return to;
}

static inline void mirror_scales(struct mirror *m, struct tensor *to, const struct tensor *from,
                                 int n)
{
    int64_t bytes[2], span;
    char *host, *device;
    if (!from[0].scale) return;
    if (from[0].type == PM_F8_E4M3) {
        bytes[0] = ((from[0].scale_row + from[0].rows - 1) / 128 + 1) * from[0].scale_stride;
        /* Slices of one matrix share its scales. */
        if (n > 1 && from[0].scale == from[1].scale) {
            bytes[0] = ((from[n - 1].scale_row + from[n - 1].rows - 1) / 128 + 1) *
                       from[0].scale_stride;
            device = mirror_copy(m, from[0].scale, bytes[0]);
            for (int e = 0; e < n; e++)
                to[e].scale = device;
            return;
        }
        span = bytes[0];
    } else {
        bytes[0] = (from[0].rows - 1) * from[0].scale_stride + from[0].cols / 32;
        span = from[0].rows * from[0].scale_stride;
    }
    bytes[1] = (n - 1) * span + bytes[0];
    host = calloc(1, (size_t)bytes[1]);
    for (int e = 0; e < n; e++)
        memcpy(host + e * span, from[e].scale, (size_t)bytes[0]);
    device = mirror_copy(m, host, bytes[1]);
    for (int e = 0; e < n; e++)
        to[e].scale = device + e * span;
    free(host);
}

/* n tensors of one type and shape at equal distances, `gap` bytes between rows. */
static inline const struct tensor *mirror_stack(struct mirror *m, int slot,
                                                const struct tensor *from, int n, int64_t gap)
{
    struct tensor *to = m->stack[slot] = calloc((size_t)n, sizeof *to);
    int64_t rows = from[0].rows, row = from[0].cols * dtype_bits(from[0].type) / 8;
    int64_t stride = row + gap, span = rows * stride, bytes = n * span - gap;
    char *host = calloc(1, (size_t)bytes), *device;
    for (int e = 0; e < n; e++) {
        for (int64_t r = 0; r < rows; r++)
            memcpy(host + e * span + r * stride, (char *)from[e].data + r * from[e].stride,
                   (size_t)row);
    }
    device = mirror_copy(m, host, bytes);
    for (int e = 0; e < n; e++) {
        to[e] = from[e];
        to[e].data = device + e * span;
        to[e].stride = stride;
    }
    mirror_scales(m, to, from, n);
    free(host);
    return to;
}

/* The operation in the device's memory. A mirror holds one operation. `gap`: bytes between two
 * rows of weights, a multiple of the size of a weight. */
static inline struct linear mirror_linear(struct mirror *m, const struct linear *op,
                                          int64_t gap)
{
    struct linear to = *op;
    int n = op->rows ? op->rows->n_expert : 1;
    to.x = mirror_matrix(m, &op->x);
    to.y = mirror_matrix(m, &op->y);
    to.w = mirror_stack(m, 0, op->w, n, gap);
    if (op->w_up) to.w_up = mirror_stack(m, 1, op->w_up, n, gap);
    if (op->b && op->b[0].data) to.b = mirror_stack(m, 2, op->b, n, 0);
    if (op->b_up && op->b_up[0].data) to.b_up = mirror_stack(m, 3, op->b_up, n, 0);
    if (op->rows) {
        int64_t n_row = op->rows->offset[n];
        m->rows = *op->rows;
        m->rows.offset = mirror_copy(m, op->rows->offset, (n + 1) * 4);
        if (op->rows->source) m->rows.source = mirror_copy(m, op->rows->source, n_row * 4);
        to.rows = &m->rows;
    }
    return to;
}

/* Brings a matrix that mirror_matrix copied back to where it came from. */
static inline void mirror_back(struct mirror *m, const struct tensor *host,
                               const struct tensor *device)
{
    int64_t row = host->cols * dtype_bits(host->type) / 8;
    if (host->rows == 0) return;
    expect_ok(m->k->download(m->d, host->data, device->data,
                             (size_t)((host->rows - 1) * host->stride + row)));
}

#endif
