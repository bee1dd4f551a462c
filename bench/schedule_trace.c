/* schedule_trace.c - arrivals from a file, or made up. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/schedule.h"
#include "moe/json.h"
#include "runtime/command.h"

enum { MAX_BYTES = 1 << 28, MAX_LENGTH = 1 << 20 };

static pm_status add(struct arrivals *a, struct arrival one)
{
    TRY(grow_array(&a->list, &a->capacity, a->n + 1, sizeof *a->list));
    a->list[a->n++] = one;
    return PM_OK;
}

static int by_time(const void *left, const void *right)
{
    const struct arrival *a = left, *b = right;
    return (a->at_us > b->at_us) - (a->at_us < b->at_us);
}

static pm_status read_line(struct arrivals *a, const char *name, const char *line, size_t n)
{
    struct arrival one = {0};
    struct json_doc *doc;
    float ms = 0;
    pm_status status;
    TRY(json_parse(&doc, name, line, n));
    const json *root = json_root(doc);
    if (!json_is_object(root)) {
        status = json_fail(doc, root, "an object");
        goto done;
    }
    TRY_DONE(json_need_float(doc, root, "arrival_ms", 0, 1e9, &ms));
    TRY_DONE(json_need_int(doc, root, "prompt", 1, MAX_LENGTH, &one.prompt));
    TRY_DONE(json_need_int(doc, root, "output", 1, MAX_LENGTH, &one.output));
    TRY_DONE(json_want_int(doc, root, "key", 0, INT32_MAX, &one.key));
    TRY_DONE(json_want_int(doc, root, "priority", INT32_MIN, INT32_MAX, &one.priority));
    TRY_DONE(json_want_int(doc, root, "prefix", 0, INT32_MAX, &one.prefix));
    TRY_DONE(json_want_int(doc, root, "shared", 0, one.prompt, &one.shared));
    one.at_us = (int64_t)((double)ms * 1000);
    status = add(a, one);
done:
    json_free(doc);
    return status;
}

pm_status arrivals_read(struct arrivals *a, const char *path)
{
    char *text;
    size_t n, at = 0;
    int number = 1;
    pm_status status = PM_OK;
    TRY(read_file(&text, &n, path, MAX_BYTES));
    for (; at < n && status == PM_OK; number++) {
        size_t length = strcspn(text + at, "\n");
        char name[256];
        snprintf(name, sizeof name, "%s:%d", path, number);
        if (length) status = read_line(a, name, text + at, length);
        at += length + 1;
    }
    free(text);
    if (a->n) qsort(a->list, a->n, sizeof *a->list, by_time);
    return status;
}

static double uniform(uint64_t *random)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (double)(*random >> 11) * 0x1p-53;
}

static int length_around(int mean, double spread, uint64_t *random)
{
    double x = mean * (1 + spread * (2 * uniform(random) - 1));
    return x < 1 ? 1 : (int)x;
}

pm_status arrivals_make(struct arrivals *a, const struct generated *g)
{
    uint64_t random = g->seed * 2 + 1;
    double at = 0;
    uniform(&random);
    for (int i = 0; i < g->n; i++) {
        struct arrival one = {.at_us = (int64_t)at};
        one.prompt = length_around(g->prompt, g->spread, &random);
        one.output = length_around(g->output, g->spread, &random);
        one.key = (int)(uniform(&random) * g->keys);
        one.prefix = (int)(uniform(&random) * g->prefixes);
        one.shared = (int)min_i64(g->shared, one.prompt);
        TRY(add(a, one));
        at -= log(1 - uniform(&random)) / g->rate * 1e6;
    }
    return PM_OK;
}
