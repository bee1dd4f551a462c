/* options.c - the table behind every flag, environment variable and API key. */
#define _POSIX_C_SOURCE 200809L
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(f) offsetof(struct pm_options, f), sizeof(((struct pm_options *)0)->f)

const struct option options_table[] = {
    {"device", 0, GROUP_ENGINE, OPTION_TEXT, FIELD(device), 0, 0, "NAME",
     "where to compute: auto (a GPU where there is one), cpu, cuda:N"},
    {"threads", 't', GROUP_ENGINE, OPTION_INT, FIELD(threads), 0, 1024, "N",
     "CPU threads; 0 takes one per CPU"},
    {"context", 'c', GROUP_ENGINE, OPTION_INT, FIELD(context), 0, 1 << 30, "N",
     "most tokens of a sequence; 0 takes the model's limit, at most 4096"},
    {"batch", 'b', GROUP_ENGINE, OPTION_INT, FIELD(batch), 1, 65536, "N",
     "most prompt tokens of one step"},
    {"kv-type", 0, GROUP_ENGINE, OPTION_TEXT, FIELD(kv_type), 0, 0, "TYPE",
     "type of the KV cache: auto, f32, f16, bf16"},
    {"max-seqs", 0, GROUP_ENGINE, OPTION_INT, FIELD(max_seqs), 1, 4096, "N",
     "most requests that run at once; at most batch"},
    {"kv-tokens", 0, GROUP_ENGINE, OPTION_INT, FIELD(kv_tokens), 0, 1 << 30, "N",
     "tokens that the KV cache holds; 0 takes context times max-seqs, but at most times 8"},
    {"max-queue", 0, GROUP_ENGINE, OPTION_INT, FIELD(max_queue), 1, 1 << 20, "N",
     "most requests that wait; more are refused"},
    {"max-queue-tokens", 0, GROUP_ENGINE, OPTION_INT, FIELD(max_queue_tokens), 1, 1 << 30, "N",
     "most prompt tokens that wait; more are refused"},
    {"prefix-cache", 0, GROUP_ENGINE, OPTION_SWITCH, FIELD(prefix_cache), 0, 1, "0|1",
     "keep prompts in the KV cache for prompts that begin alike"},
    {"decode-slowdown", 0, GROUP_ENGINE, OPTION_FLOAT, FIELD(decode_slowdown), 0, 1000, "X",
     "a step with prompts may take X times a step without; 0 is no limit"},
    {"max-tokens", 'n', GROUP_GENERATION, OPTION_INT, FIELD(max_tokens), 0, 1 << 30, "N",
     "most new tokens"},
    {"temperature", 0, GROUP_GENERATION, OPTION_FLOAT, FIELD(temperature), 0, 100, "X",
     "0 always takes the most likely token"},
    {"top-k", 0, GROUP_GENERATION, OPTION_INT, FIELD(top_k), 0, 1 << 30, "N",
     "draw from the N most likely tokens; 0 is off"},
    {"top-p", 0, GROUP_GENERATION, OPTION_FLOAT, FIELD(top_p), 1e-9, 1, "X",
     "draw from the most likely tokens that hold X of the probability"},
    {"min-p", 0, GROUP_GENERATION, OPTION_FLOAT, FIELD(min_p), 0, 1, "X",
     "drop tokens under X times the probability of the best"},
    {"repeat-penalty", 0, GROUP_GENERATION, OPTION_FLOAT, FIELD(repeat_penalty), 1e-6, 100, "X",
     "make recent tokens less likely; 1 is off"},
    {"seed", 's', GROUP_GENERATION, OPTION_U64, FIELD(seed), 0, 0, "N",
     "seed of the draws; the same seed gives the same text"},
    {"stop", 0, GROUP_GENERATION, OPTION_LIST, FIELD(stop), 0, 0, "TEXT",
     "end before this text; may be given several times"},
    {"logprobs", 0, GROUP_GENERATION, OPTION_INT, FIELD(logprobs), 0, 32, "N",
     "report the N most likely tokens at each step (with --json)"},
    {"ignore-eos", 0, GROUP_GENERATION, OPTION_FLAG, FIELD(ignore_eos), 0, 1, "",
     "go on past the end token"},
    {NULL, 0, 0, 0, 0, 0, 0, 0, NULL, NULL},
};

const struct option *options_find(const char *name)
{
    for (const struct option *row = options_table; row->name; row++) {
        if (strcmp(row->name, name) == 0) return row;
    }
    return NULL;
}

static pm_status wrong(const struct option *row, const char *value)
{
    if (row->kind == OPTION_U64) {
        return fail(PM_ERR_ARG, "%s: found \"%s\", wanted a whole number", row->name, value);
    }
    return fail(PM_ERR_ARG, "%s: found \"%s\", wanted a %snumber from %g to %g", row->name,
                value, row->kind == OPTION_INT ? "whole " : "", row->min, row->max);
}

/* Numbers are plain decimal, and zeros in front mean nothing: strtod and strtoull would also
 * take signs, blanks, hexadecimal and names. */
static pm_status set_number(void *field, const struct option *row, const char *value)
{
    static const char digits[] = "0123456789";
    char *end;
    errno = 0;
    if (row->kind == OPTION_FLOAT) {
        double x = strtod(value, &end);
        bool plain = isdigit((unsigned char)*value) || *value == '.';
        if (value[strspn(value, "0123456789.eE+-")] != 0) plain = false;
        if (!plain || errno || *end || !(x >= row->min) || !(x <= row->max)) {
            return wrong(row, value);
        }
        *(float *)field = (float)x;
    } else {
        unsigned long long u = strtoull(value, &end, 10);
        if (!*value || value[strspn(value, digits)] != 0 || errno) return wrong(row, value);
        if (row->kind == OPTION_U64) {
            *(uint64_t *)field = u;
            return PM_OK;
        }
        if ((double)u < row->min || (double)u > row->max) return wrong(row, value);
        *(int *)field = (int)u;
    }
    return PM_OK;
}

pm_status options_set(struct pm_options *o, const struct option *row, const char *value)
{
    void *field = (char *)o + row->offset;
    switch (row->kind) {
    case OPTION_TEXT:
        if (strlen(value) >= row->size) {
            return fail(PM_ERR_ARG, "%s: found \"%s\", wanted at most %zu characters",
                        row->name, value, row->size - 1);
        }
        memcpy(field, value, strlen(value) + 1);
        return PM_OK;
    case OPTION_LIST:
        if (o->n_stop == MAX_STOP) {
            return fail(PM_ERR_ARG, "%s: more than %d of them", row->name, MAX_STOP);
        }
        if (!*value) return fail(PM_ERR_ARG, "%s: found an empty text", row->name);
        TRY(copy_text(&o->stop[o->n_stop], value, strlen(value)));
        o->n_stop++;
        return PM_OK;
    case OPTION_SWITCH:
    case OPTION_FLAG:
        if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0) return wrong(row, value);
        *(bool *)field = *value == '1';
        return PM_OK;
    default: return set_number(field, row, value);
    }
}

void options_value(const struct pm_options *o, const struct option *row, char *out, size_t n)
{
    const void *field = (const char *)o + row->offset;
    switch (row->kind) {
    case OPTION_INT: snprintf(out, n, "%d", *(const int *)field); break;
    case OPTION_FLOAT: snprintf(out, n, "%g", *(const float *)field); break;
    case OPTION_U64:
        snprintf(out, n, "%llu", (unsigned long long)*(const uint64_t *)field);
        break;
    case OPTION_TEXT: snprintf(out, n, "%s", (const char *)field); break;
    case OPTION_SWITCH: snprintf(out, n, "%d", *(const bool *)field); break;
    case OPTION_FLAG: snprintf(out, n, "%s", *(const bool *)field ? "on" : "off"); break;
    case OPTION_LIST: snprintf(out, n, "none"); break;
    }
}

/* POLYMATH_MAX_TOKENS for max-tokens. */
static const char *from_environment(const struct option *row)
{
    char name[64] = "POLYMATH_";
    size_t n = strlen(name);
    for (const char *p = row->name; *p && n < sizeof name - 1; p++) {
        name[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    }
    name[n] = 0;
    return getenv(name);
}

pm_status pm_options_new(pm_options **out)
{
    struct pm_options *o;
    TRY(alloc_array(&o, 1, sizeof *o, "options"));
    snprintf(o->device, sizeof o->device, "auto");
    snprintf(o->kv_type, sizeof o->kv_type, "auto");
    o->batch = 512;
    o->max_seqs = 32;
    o->max_queue = 1024;
    o->max_queue_tokens = 1 << 20;
    o->prefix_cache = true;
    o->decode_slowdown = 2;
    o->max_tokens = 256;
    o->top_p = 1;
    o->repeat_penalty = 1;
    for (const struct option *row = options_table; row->name; row++) {
        const char *value = from_environment(row);
        pm_status status = value ? options_set(o, row, value) : PM_OK;
        if (status != PM_OK) {
            pm_options_free(o);
            return fail_prefix(status, "environment");
        }
    }
    *out = o;
    return PM_OK;
}

pm_status pm_options_set(pm_options *o, const char *key, const char *value)
{
    const struct option *row = options_find(key);
    if (!row) return fail(PM_ERR_ARG, "option \"%s\" is not known", key);
    return options_set(o, row, value);
}

void pm_options_free(pm_options *o)
{
    if (!o) return;
    for (int i = 0; i < o->n_stop; i++) {
        free(o->stop[i]);
    }
    free(o);
}
