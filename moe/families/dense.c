/* dense.c - Llama, Mistral, Qwen2 and Qwen3: a mixture of one expert in every layer.
 * Source: transformers models/{llama,mistral,qwen2,qwen3}/modeling_*.py. */
#include <string.h>

#include "moe/families.h"

static pm_status read(struct config *c, struct json_doc *doc, const json *root)
{
    bool bias = false;
    TRY(json_want_bool(doc, root, "attention_bias", &bias));
    TRY(json_want_bool(doc, root, "mlp_bias", &c->mlp_bias));
    c->qkv_bias = c->o_bias = bias;
    if (strncmp(c->model_type, "qwen", 4) == 0) TRY(family_qwen_windows(c, doc, root));
    if (strcmp(c->model_type, "qwen2") == 0) {
        c->qkv_bias = true;
        c->o_bias = false;
    }
    if (strcmp(c->model_type, "qwen3") == 0) c->qk_norm = QK_HEAD;
    if (!c->dense_dim) {
        return fail(PM_ERR_FORMAT, "%s: intermediate_size: missing", json_name(doc));
    }
    return PM_OK;
}

const struct family family_dense = {
    .model_type = {"llama", "mistral", "qwen2", "qwen3"},
    .title = "dense Llama, Mistral, Qwen2, Qwen3",
    .names = {NAMES_COMMON, NAMES_ATTENTION, NAMES_QK_NORM, NAMES_DENSE},
    .read = read,
};
