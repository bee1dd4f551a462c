/* engine.h - what the programs need from an engine beyond the public API. */
#ifndef RUNTIME_ENGINE_H
#define RUNTIME_ENGINE_H

#include "moe/model.h"
#include "runtime/text/tokenizer.h"

struct pm_options;

/* The limits that an engine with these options opens the model in folder `path` with. */
pm_status engine_model_options(struct model_options *out, const char *path,
                               const struct pm_options *o);

/* Its limits and plan may be read at any time; only a job may run it. */
struct model *engine_model(pm_engine *e);
/* NULL when the folder has no tokenizer.json. */
const struct tokenizer *engine_tokenizer(const pm_engine *e);

/* Runs job(arg) on the engine's thread between two steps and returns its status, with its
 * sentence in pm_last_error. The job has the model and its whole cache for itself: running
 * requests are put back and computed again, cached prefixes forgotten. Not from a callback. */
typedef pm_status engine_job(struct model *m, void *arg);
pm_status engine_exclusive(pm_engine *e, engine_job *job, void *arg);

#endif
