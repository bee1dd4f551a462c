/* synth_source.h - a random checkpoint that is never written: its tensors are made in memory.
 */
#ifndef MOE_SYNTH_SOURCE_H
#define MOE_SYNTH_SOURCE_H

#include "moe/synth.h"
#include "moe/weights.h"

struct synth_source;

/* The model that synth_write would write with these options, bit for bit; `out`, shards and
 * progress mean nothing here. Tensors are filled by n_thread threads, 0: one for each CPU.
 * Errors as synth_write's. */
pm_status synth_source_open(struct synth_source **out, const struct synth_options *o,
                            int n_thread);
/* Frees what nobody took. */
void synth_source_close(struct synth_source *s);

/* Its configuration, which becomes the caller's. */
struct config *synth_source_config(struct synth_source *s);
/* For one weights_generate, which takes over the list of tensors. */
struct weight_source synth_source_weights(struct synth_source *s);

#endif
