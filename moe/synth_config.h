/* synth_config.h - the text files of a random checkpoint. */
#ifndef MOE_SYNTH_CONFIG_H
#define MOE_SYNTH_CONFIG_H

#include "config.h"
#include "synth.h"

/* A configuration to start from: the keys of `text` over those of the recipe called `base`.
 * Names that begin with '*' are only there to be a base. */
struct synth_recipe {
    const char *name, *base; /* base NULL: none */
    const char *text;        /* a JSON object */
};

extern const struct synth_recipe synth_recipes[]; /* ends with a name of NULL */

/* How tensors are stored. */
struct synth_dtype {
    const char *name;         /* of synth_options.dtype */
    const char *torch;        /* torch_dtype of config.json, with its quotes */
    pm_dtype plain;           /* the type of what is not quantised */
    const char *quantisation; /* quantization_config of config.json, or NULL */
};

/* PM_ERR_ARG lists the names; NULL is bf16. */
pm_status synth_find_dtype(const struct synth_dtype **out, const char *name);

/* *text (empty before) becomes config.json: the recipe of o->family, then o->set, then
 * torch_dtype, quantization_config, bos_token_id and eos_token_id where nobody has set them.
 *
 * A setting is key=value; the value is JSON, or a string when it is not valid JSON. Dots in the
 * key enter objects (ffn_config.moe_top_k) and make them where there are none. In a family that
 * nests its text model (Llama-4) a key that the root lacks belongs to the nested object. */
pm_status synth_config(struct json_out *text, const struct synth_options *o,
                       const struct synth_dtype *dtype);

/* What the names of tensors begin with: multimodal checkpoints, whose config.json nests the
 * text model, put it under a prefix. */
const char *synth_prefix(const struct json_out *text);

/* Appends generation_config.json and tokenizer.json. The tokenizer knows the 256 bytes, token b
 * being byte b, and the special token <|endoftext|>, SYNTH_END; it merges nothing. */
enum { SYNTH_END = 256 };
void synth_generation_config(struct json_out *text, const struct config *c);
void synth_tokenizer(struct json_out *text);

#endif
