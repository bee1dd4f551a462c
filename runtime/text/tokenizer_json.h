/* tokenizer_json.h - reads that several parts of tokenizer.json need. */
#ifndef RUNTIME_TOKENIZER_JSON_H
#define RUNTIME_TOKENIZER_JSON_H

#include "moe/json.h"

/* Like the reads of json.h; all fail where the key is missing. */
pm_status tokenizer_need_bool(struct json_doc *doc, const json *object, const char *key,
                              bool *out);
/* A string of exactly one character. */
pm_status tokenizer_need_character(struct json_doc *doc, const json *object, const char *key,
                                   uint32_t *out);
/* A copy of a string that may have zeros inside; *n bytes and a closing zero. */
pm_status tokenizer_need_bytes(struct json_doc *doc, const json *object, const char *key,
                               char **out, size_t *n);

/* PM_ERR_UNSUPPORTED: "tokenizer.json: normalizer Nmt is not supported". */
pm_status tokenizer_fail_type(struct json_doc *doc, const char *part, const char *type);

#endif
