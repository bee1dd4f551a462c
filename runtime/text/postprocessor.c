/* postprocessor.c - templates for one text: [BOS] text [EOS].
 *
 * Only what changes the ids of a single text is kept: a list in front and a list behind. That
 * covers TemplateProcessing, BertProcessing and RobertaProcessing; ByteLevel moves offsets
 * only. A Sequence may hold one of the former; the reference does not join two templates
 * either. */
#include "postprocessor.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer_json.h"

static pm_status put_integer(struct id_list *list, struct json_doc *doc, const json *v)
{
    int64_t value;
    int32_t id;
    if (!json_integer(v, &value) || value < 0 || value > MAX_TOKEN_ID) {
        return json_fail(doc, v, "a token id");
    }
    id = (int32_t)value;
    return id_list_put(list, &id, 1);
}

/* {"SpecialToken": {"id": "<s>"}} by way of special_tokens: {"<s>": {"ids": [1]}}. */
static pm_status put_special(struct id_list *list, struct json_doc *doc, const json *v,
                             const json *special_tokens)
{
    const char *name;
    const json *ids;
    TRY(json_need_text(doc, v, "id", &name));
    ids = json_get(json_get(special_tokens, name), "ids");
    if (!json_is_array(ids)) return json_fail(doc, v, "a token with ids in special_tokens");
    for (const json *one = json_child(ids); one; one = json_next(one)) {
        TRY(put_integer(list, doc, one));
    }
    return PM_OK;
}

static pm_status read_template(struct postprocessor *p, struct json_doc *doc, const json *v)
{
    const json *single = json_get(v, "single"), *special = json_get(v, "special_tokens");
    bool behind = false;
    if (!json_is_array(single)) return json_fail(doc, v, "a template with a list \"single\"");
    for (const json *piece = json_child(single); piece; piece = json_next(piece)) {
        const json *sequence = json_get(piece, "Sequence");
        const json *token = json_get(piece, "SpecialToken");
        if (token) {
            TRY(put_special(behind ? &p->after : &p->before, doc, token, special));
        } else if (sequence) {
            const char *id;
            TRY(json_need_text(doc, sequence, "id", &id));
            if (behind || strcmp(id, "A") != 0) {
                return json_fail(doc, piece, "the sequence A once");
            }
            behind = true;
        } else {
            return json_fail(doc, piece, "a SpecialToken or a Sequence");
        }
    }
    return behind ? PM_OK : json_fail(doc, single, "a template with the sequence A");
}

/* ["[CLS]", 101] at cls goes in front, the same at sep behind. */
static pm_status read_bert(struct postprocessor *p, struct json_doc *doc, const json *v)
{
    const json *cls = json_next(json_child(json_get(v, "cls")));
    const json *sep = json_next(json_child(json_get(v, "sep")));
    if (!cls || !sep) return json_fail(doc, v, "cls and sep as [token, id]");
    TRY(put_integer(&p->before, doc, cls));
    return put_integer(&p->after, doc, sep);
}

static pm_status read_processor(struct postprocessor *p, struct json_doc *doc, const json *v,
                                int *n_template)
{
    const char *type;
    bool template;
    TRY(json_need_text(doc, v, "type", &type));
    if (strcmp(type, "ByteLevel") == 0) return PM_OK;
    if (strcmp(type, "Sequence") == 0) {
        const json *list = json_get(v, "processors");
        if (!json_is_array(list)) return json_fail(doc, v, "a list \"processors\"");
        for (const json *one = json_child(list); one; one = json_next(one)) {
            TRY(read_processor(p, doc, one, n_template));
        }
        return PM_OK;
    }
    template = strcmp(type, "TemplateProcessing") == 0;
    if (template || strcmp(type, "BertProcessing") == 0 ||
        strcmp(type, "RobertaProcessing") == 0) {
        if ((*n_template)++ > 0) {
            return fail(PM_ERR_UNSUPPORTED, "%s: post_processor with two templates",
                        json_name(doc));
        }
        return template ? read_template(p, doc, v) : read_bert(p, doc, v);
    }
    return tokenizer_fail_type(doc, "post_processor", type);
}

pm_status postprocessor_parse(struct postprocessor *p, struct json_doc *doc, const json *v)
{
    int n_template = 0;
    return v && !json_is_null(v) ? read_processor(p, doc, v, &n_template) : PM_OK;
}

void postprocessor_clear(struct postprocessor *p)
{
    free(p->before.id);
    free(p->after.id);
    *p = (struct postprocessor){0};
}
