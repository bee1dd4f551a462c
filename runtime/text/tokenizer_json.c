/* tokenizer_json.c - strict reads: what the reference requires in a file is required here. */
#include "tokenizer_json.h"

#include <string.h>

#include "unicode.h"

pm_status tokenizer_need_bool(struct json_doc *doc, const json *object, const char *key,
                              bool *out)
{
    if (json_is_object(object) && !json_get(object, key)) {
        return fail(PM_ERR_FORMAT, "%s: %s: missing, wanted true or false", json_name(doc),
                    key);
    }
    return json_want_bool(doc, object, key, out);
}

pm_status tokenizer_need_character(struct json_doc *doc, const json *object, const char *key,
                                   uint32_t *out)
{
    const char *text;
    TRY(json_need_text(doc, object, key, &text));
    if (*text == 0 || utf8_bytes(*text) != json_text_bytes(json_get(object, key))) {
        return json_fail(doc, json_get(object, key), "one character");
    }
    *out = utf8_next(&text);
    return PM_OK;
}

pm_status tokenizer_need_bytes(struct json_doc *doc, const json *object, const char *key,
                               char **out, size_t *n)
{
    const char *text;
    TRY(json_need_text(doc, object, key, &text));
    *n = json_text_bytes(json_get(object, key));
    return copy_text(out, text, *n);
}

pm_status tokenizer_fail_type(struct json_doc *doc, const char *part, const char *type)
{
    char shown[JSON_EXCERPT];
    return fail(PM_ERR_UNSUPPORTED, "%s: %s %s is not supported", json_name(doc), part,
                json_excerpt(shown, type, strlen(type)));
}
