/* fuzz_config.c - arbitrary bytes as config.json: refused with a sentence or read into a
 * configuration whose numbers are in range. The corpus has one small file per family. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moe/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct config *c)
{
    double total, active;
    if (c->n_layer < 1 || c->hidden < 1 || c->vocab < 1 || c->head_dim < 2) abort();
    if (c->n_head % c->n_kv_head != 0) abort();
    if (c->rope.dim < 2 || c->rope.dim % 2 != 0) abort();
    if (c->gate.n_expert < 0 || c->n_eos < 0 || c->n_eos > 16) abort();
    for (int l = 0; l < c->n_layer; l++) {
        const struct layer_config *layer = &c->layer[l];
        if (layer->window < 0 || layer->chunk < 0) abort();
        if (layer->moe && (layer->top_k < 1 || layer->top_k > c->gate.n_expert)) abort();
    }
    config_parameters(c, &total, &active);
    if (!(total > 0)) abort();
    float *inv_freq = malloc((size_t)c->rope.dim / 2 * sizeof *inv_freq), factor;
    rope_frequencies(c, c->max_position, inv_freq, &factor);
    free(inv_freq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c;
    if (config_parse(&c, "config.json", (const char *)data, size) == PM_OK) {
        check(c);
        config_free(c);
    } else if (!*pm_last_error()) {
        abort();
    }
    return 0;
}
