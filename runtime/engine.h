/* engine.h - what the programs need from an engine beyond the public API. */
#ifndef RUNTIME_ENGINE_H
#define RUNTIME_ENGINE_H

#include "moe/model.h"
#include "runtime/tokenizer.h"

struct model *engine_model(pm_engine *e);
/* NULL when the folder has no tokenizer.json. */
const struct tokenizer *engine_tokenizer(const pm_engine *e);

#endif
