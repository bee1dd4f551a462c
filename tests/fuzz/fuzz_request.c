/* fuzz_request.c - arbitrary bytes as the JSON of an API request.
 *
 * The first byte chooses the endpoint. What is accepted must keep every promise that the engine
 * relies on; what is refused must have a sentence of one line, and a field's name that is in
 * the request or known to the server. */
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "runtime/server/openai.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_params(const struct openai_request *r)
{
    const pm_params *p = &r->params;
    assert(p->max_tokens >= 0 && p->min_tokens >= 0);
    assert(p->temperature >= 0 && p->temperature <= 100);
    assert(p->top_p > 0 && p->top_p <= 1 && p->min_p >= 0 && p->min_p <= 1);
    assert(p->top_k >= 0 && p->repeat_penalty > 0 && p->repeat_penalty <= 100);
    assert(fabsf(p->presence_penalty) <= 2 && fabsf(p->frequency_penalty) <= 2);
    assert(p->n_logprob >= 0 && p->n_logprob <= OPENAI_MAX_TOP);
    assert(p->n_prompt_logprob >= -1 && p->n_prompt_logprob <= OPENAI_MAX_TOP);
    assert(r->n >= 1 && r->n <= OPENAI_MAX_N && p->deadline_us >= 0);
    assert(p->n_stop >= 0 && p->n_stop <= OPENAI_MAX_STOP);
    for (int i = 0; i < p->n_stop; i++) {
        size_t bytes = strlen(p->stop[i]);
        assert(bytes > 0 && bytes <= OPENAI_MAX_STOP_BYTES);
    }
    for (int i = 0; i < p->n_bias; i++) {
        assert(p->bias[i].id >= 0 && fabsf(p->bias[i].bias) <= 100);
    }
    if (p->schema) {
        struct json_doc *doc;
        assert(json_parse(&doc, "schema", p->schema, p->n_schema) == PM_OK);
        json_free(doc);
    }
    if (r->tool_choice >= TOOLS_REQUIRED) assert(r->tools && p->schema);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct openai_defaults defaults = {
        .temperature = 1, .top_p = 1, .repeat_penalty = 1};
    static const enum openai_endpoint endpoint[] = {
        OPENAI_COMPLETION, OPENAI_CHAT, OPENAI_TEMPLATE, OPENAI_TOKENIZE, OPENAI_DETOKENIZE};
    struct openai_request r;
    if (n == 0) return 0;
    if (openai_parse(&r, endpoint[data[0] % 5], &defaults, (const char *)data + 1, n - 1) ==
        PM_OK) {
        check_params(&r);
    } else {
        assert(*pm_last_error() && !strchr(pm_last_error(), '\n'));
        assert(!r.param || strlen(r.param) < n + 32);
    }
    openai_request_clear(&r);
    return 0;
}
