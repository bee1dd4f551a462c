/* tokenizer_parts.h - what tokenizer.c and detokenizer.c share. */
#ifndef RUNTIME_TOKENIZER_PARTS_H
#define RUNTIME_TOKENIZER_PARTS_H

#include "added_tokens.h"
#include "bpe.h"
#include "decoder.h"
#include "normalizer.h"
#include "postprocessor.h"
#include "pretokenizer.h"
#include "tokenizer.h"

struct workspaces;

struct tokenizer {
    struct normalizer *normalizer;
    struct added_tokens *added;
    struct pretokenizer *pretokenizer;
    struct bpe *bpe;
    struct postprocessor postprocessor;
    struct decoder *decoder;
    struct workspaces *workspaces; /* idle ones; the only part that changes */
    int size;
};

#endif
