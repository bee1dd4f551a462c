/* trace.h - routing traces: which experts each token chose in each layer, in a small file.
 *
 * Format, little-endian, all fields unsigned 32-bit unless said:
 *   magic "PMROUTE1" (8 bytes), n_token, n_layer (layers with experts), n_expert, top_k (most
 * per layer), then layer[n_layer]: the layer's number in the model, then for each layer the ids
 * as uint16 [n_token, top_k], best expert first, 65535 where a layer chooses fewer than top_k.
 */
#ifndef RUNTIME_TRACE_H
#define RUNTIME_TRACE_H

#include "moe/model.h"

struct trace {
    uint32_t n_token, n_layer, n_expert, top_k;
    uint32_t *layer; /* [n_layer] */
    uint16_t *id;    /* [n_layer, n_token, top_k] */
};

enum { TRACE_NONE = 65535 };

/* Room for a run of n_token tokens through c. PM_ERR_UNSUPPORTED for a dense model. */
pm_status trace_new(struct trace **out, const struct config *c, uint32_t n_token);
void trace_free(struct trace *t);
/* Stores the choices of rows first_token .. first_token + n_row - 1 in model layer `layer`. */
void trace_add(struct trace *t, int layer, uint32_t first_token, int n_row, int top_k,
               const int32_t *id);
pm_status trace_write(const struct trace *t, const char *path);
/* PM_ERR_FORMAT names the file and field. */
pm_status trace_read(struct trace **out, const char *path);

#endif
