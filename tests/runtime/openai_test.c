/* openai_test.c - requests of the HTTP API: what fields mean, what they may hold, what is said
 * about others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/server/openai.h"

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

static const struct openai_defaults defaults = {
    .temperature = 0.5f, .top_p = 0.9f, .min_p = 0, .repeat_penalty = 1.25f, .top_k = 7};

static pm_status parse(struct openai_request *r, enum openai_endpoint endpoint,
                       const char *text)
{
    return openai_parse(r, endpoint, &defaults, text, strlen(text));
}

static void accepted(struct openai_request *r, enum openai_endpoint endpoint, const char *text)
{
    if (parse(r, endpoint, text) != PM_OK) FAIL("%s: %s", text, pm_last_error());
}

/* Refused, with the field's name as param and a part of the sentence. */
static void refused(enum openai_endpoint endpoint, const char *text, const char *param,
                    const char *part)
{
    struct openai_request r;
    if (parse(&r, endpoint, text) == PM_OK) FAIL("accepted: %s", text);
    if (param && (!r.param || strcmp(r.param, param) != 0)) {
        FAIL("%s: param is %s, wanted %s", text, r.param ? r.param : "none", param);
    }
    if (!strstr(pm_last_error(), part))
        FAIL("%s: no \"%s\" in: %s", text, part, pm_last_error());
    openai_request_clear(&r);
}

static void absent_fields_have_the_models_defaults(void **state)
{
    struct openai_request r;
    (void)state;
    accepted(&r, OPENAI_COMPLETION, "{\"prompt\": \"x\", \"seed\": null, \"stop\": null}");
    assert_true(r.params.temperature == 0.5f && r.params.top_p == 0.9f);
    assert_true(r.params.repeat_penalty == 1.25f && r.params.top_k == 7);
    assert_int_equal(r.params.max_tokens, 16);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.top, -1);
    assert_int_equal(r.params.n_prompt_logprob, -1);
    assert_false(r.stream || r.seeded || r.echo);
    assert_null(r.params.schema);
    openai_request_clear(&r);
    accepted(&r, OPENAI_CHAT, "{\"messages\": [{}]}");
    assert_int_equal(r.params.max_tokens, INT32_MAX);
    assert_int_equal(r.tool_choice, TOOLS_NONE);
    openai_request_clear(&r);
}

static void fields_reach_the_engine(void **state)
{
    struct openai_request r;
    (void)state;
    accepted(&r, OPENAI_COMPLETION,
             "{\"prompt\": \"x\", \"temperature\": 0, \"top_p\": 0.25, \"top_k\": -1, "
             "\"min_p\": 0.125, \"seed\": -3, \"max_tokens\": 5, \"min_tokens\": 2, "
             "\"presence_penalty\": -1, \"frequency_penalty\": 2, \"repetition_penalty\": 1.5, "
             "\"stop\": [\"a\", \"b\"], \"logit_bias\": {\"7\": -100, \"9\": 0.5}, "
             "\"logprobs\": 4, \"echo\": true, \"ignore_eos\": true, \"priority\": -2, "
             "\"deadline_ms\": 1500, \"n\": 3, \"stream\": true, "
             "\"stream_options\": {\"include_usage\": true}}");
    assert_true(r.params.temperature == 0 && r.params.top_p == 0.25f);
    assert_int_equal(r.params.top_k, 0);
    assert_true(r.params.min_p == 0.125f && r.seeded);
    assert_int_equal((int64_t)r.seed, -3);
    assert_int_equal(r.params.max_tokens, 5);
    assert_int_equal(r.params.min_tokens, 2);
    assert_true(r.params.presence_penalty == -1 && r.params.frequency_penalty == 2);
    assert_true(r.params.repeat_penalty == 1.5f);
    assert_int_equal(r.params.n_stop, 2);
    assert_string_equal(r.params.stop[1], "b");
    assert_int_equal(r.params.n_bias, 2);
    assert_int_equal(r.params.bias[0].id, 7);
    assert_true(r.params.bias[0].bias == -100);
    assert_int_equal(r.params.n_logprob, 4);
    assert_int_equal(r.params.n_prompt_logprob, 4);
    assert_int_equal(r.params.priority, -2);
    assert_int_equal(r.params.deadline_us, 1500000);
    assert_true(r.params.ignore_eos && r.stream && r.include_usage);
    assert_int_equal(r.n, 3);
    openai_request_clear(&r);
}

static void wrong_values_name_their_field(void **state)
{
    static const char *const wrong[][3] = {
        {"temperature", "\"hot\"", "from 0 to 100"},
        {"temperature", "-0.1", "from 0 to 100"},
        {"temperature", "101", "from 0 to 100"},
        {"top_p", "0", "from 1e-09 to 1"},
        {"top_k", "-2", "from -1"},
        {"top_k", "1.5", "from -1"},
        {"min_p", "1.1", "from 0 to 1"},
        {"max_tokens", "-1", "from 0 to"},
        {"max_tokens", "4294967296", "from 0 to"},
        {"max_tokens", "1e300", "from 0 to"},
        {"n", "0", "from 1 to 16"},
        {"n", "17", "from 1 to 16"},
        {"seed", "1e17", "2^53"},
        {"stop", "5", "a text or a list"},
        {"stop", "[\"\"]", "1 to 1024 bytes"},
        {"stop", "[\"a\\u0000b\"]", "1 to 1024 bytes"},
        {"logit_bias", "{\"-1\": 1}", "token id"},
        {"logit_bias", "{\"1\": 101}", "-100 to 100"},
        {"logit_bias", "[]", "an object"},
        {"logprobs", "true", "from 0 to 32"},
        {"logprobs", "33", "from 0 to 32"},
        {"stream", "1", "true or false"},
        {"stream_options", "{\"usage\": true}", "include_usage"},
        {"response_format", "{\"type\": \"json_schema\"}", "json_schema.schema"},
        {"response_format", "{\"type\": \"grammar\"}", "json_object"},
        {"best_of", "2", "same as n"},
        {"suffix", "\"end\"", "wanted \"\""},
        {"use_beam_search", "true", "wanted false"},
        {"guided_json", "{}", "response_format"},
        {"cache_salt", "7", "a string"},
        {"deadline_ms", "0", "from 1"},
        {"top_logprobs", "1", "not known"},
        {"messages", "[]", "not known"},
        {"max_completion_tokens", "1", "not known"},
        {"Temperature", "1", "not known"},
        {"n_discard", "-1", "not known"},
    };
    char text[256];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, "{\"prompt\": \"x\", \"%s\": %s}", wrong[i][0],
                 wrong[i][1]);
        refused(OPENAI_COMPLETION, text, wrong[i][0], wrong[i][2]);
    }
    refused(OPENAI_COMPLETION, "{}", "prompt", "missing");
    refused(OPENAI_CHAT, "{\"messages\": []}", "messages", "at least one");
    refused(OPENAI_CHAT, "{\"messages\": [{}], \"prompt\": \"x\"}", "prompt", "not known");
    refused(OPENAI_COMPLETION, "[]", NULL, "an object");
    refused(OPENAI_COMPLETION, "{\"prompt\": \"x\"", NULL, "malformed");
    refused(OPENAI_COMPLETION, "{\"prompt\": \"x\", \"prompt\": \"y\"}", NULL, "once");
    refused(OPENAI_TOKENIZE, "{\"prompt\": [1]}", NULL, "a text");
    refused(OPENAI_DETOKENIZE, "{}", "tokens", "missing");
}

static void what_changes_nothing_is_accepted(void **state)
{
    static const char *const harmless[] = {
        "\"user\": \"me\"",          "\"metadata\": {\"a\": \"b\"}",
        "\"store\": true",           "\"suffix\": \"\"",
        "\"suffix\": null",          "\"best_of\": 1",
        "\"length_penalty\": 1.0",   "\"skip_special_tokens\": true",
        "\"stop_token_ids\": []",    "\"response_format\": {\"type\": \"text\"}",
        "\"service_tier\": \"auto\""};
    struct openai_request r;
    char text[256];
    (void)state;
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        snprintf(text, sizeof text, "{\"prompt\": \"x\", %s}", harmless[i]);
        accepted(&r, OPENAI_COMPLETION, text);
        openai_request_clear(&r);
    }
}

static void schemas_are_passed_on(void **state)
{
    struct openai_request r;
    (void)state;
    accepted(&r, OPENAI_COMPLETION,
             "{\"prompt\": 1, \"response_format\": {\"type\": \"json_object\"}}");
    assert_string_equal(r.params.schema, "{\"type\":\"object\"}");
    openai_request_clear(&r);
    accepted(&r, OPENAI_CHAT,
             "{\"messages\": [{}], \"response_format\": {\"type\": \"json_schema\", "
             "\"json_schema\": {\"name\": \"a\", \"schema\": {\"b\": [1, 2.5, null, true, "
             "\"\\u00e9\\n\", {}, []]}}}}");
    assert_string_equal(r.params.schema, "{\"b\":[1,2.5,null,true,\"\xc3\xa9\\n\",{},[]]}");
    assert_int_equal(r.params.n_schema, strlen(r.params.schema));
    openai_request_clear(&r);
}

#define TOOLS                                                                                  \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": "    \
    "{\"p\": 1}}}, {\"type\": \"function\", \"function\": {\"name\": \"g\"}}]"

static void calls_that_must_come_are_schemas(void **state)
{
    struct openai_request r;
    (void)state;
    accepted(&r, OPENAI_CHAT,
             "{\"messages\": [{}], " TOOLS ", \"tool_choice\": {\"type\": \"function\", "
             "\"function\": {\"name\": \"f\"}}}");
    assert_int_equal(r.tool_choice, TOOLS_NAMED);
    assert_string_equal(r.params.schema, "{\"p\":1}");
    openai_request_clear(&r);
    accepted(&r, OPENAI_CHAT, "{\"messages\": [{}], " TOOLS ", \"tool_choice\": \"required\"}");
    assert_string_equal(
        r.params.schema,
        "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"name\":{\"enum\":[\"f\"]},"
        "\"arguments\":{\"p\":1}},\"required\":[\"name\",\"arguments\"],"
        "\"additionalProperties\":false},{\"type\":\"object\",\"properties\":{\"name\":"
        "{\"enum\":[\"g\"]},\"arguments\":{\"type\":\"object\"}},\"required\":[\"name\","
        "\"arguments\"],\"additionalProperties\":false}]}");
    openai_request_clear(&r);
    accepted(&r, OPENAI_CHAT, "{\"messages\": [{}], " TOOLS "}");
    assert_int_equal(r.tool_choice, TOOLS_AUTO);
    assert_null(r.params.schema);
    openai_request_clear(&r);
    refused(OPENAI_CHAT,
            "{\"messages\": [{}], " TOOLS
            ", \"tool_choice\": {\"function\": {\"name\": \"h\"}}}",
            "tool_choice", "not among");
    refused(OPENAI_CHAT, "{\"messages\": [{}], \"tool_choice\": \"required\"}", "tool_choice",
            "no tools");
    refused(OPENAI_CHAT,
            "{\"messages\": [{}], " TOOLS ", \"tool_choice\": \"required\", "
            "\"response_format\": {\"type\": \"json_object\"}}",
            "response_format", "combined");
    refused(OPENAI_CHAT, "{\"messages\": [{}], \"tools\": [{\"type\": \"function\"}]}", "tools",
            "function.name");
    refused(OPENAI_CHAT, "{\"messages\": [{}], \"tools\": [5]}", "tools", "an object");
}

static void chat_fields_go_to_the_template(void **state)
{
    struct openai_request r;
    (void)state;
    accepted(&r, OPENAI_CHAT,
             "{\"messages\": [{}], \"reasoning_effort\": \"low\", "
             "\"chat_template_kwargs\": {\"a\": [1]}}");
    assert_string_equal(json_text(json_get(r.kwargs, "reasoning_effort")), "low");
    assert_int_equal(json_size(json_get(r.kwargs, "a")), 1);
    openai_request_clear(&r);
    refused(OPENAI_CHAT,
            "{\"messages\": [{}], \"reasoning_effort\": \"low\", "
            "\"chat_template_kwargs\": {\"reasoning_effort\": \"high\"}}",
            "reasoning_effort", "as well");
    refused(OPENAI_CHAT, "{\"messages\": [{}], \"top_logprobs\": 3}", "top_logprobs",
            "logprobs: true");
    accepted(&r, OPENAI_CHAT,
             "{\"messages\": [{}], \"logprobs\": true, \"top_logprobs\": 3, "
             "\"max_tokens\": 4, \"max_completion_tokens\": 2}");
    assert_int_equal(r.top, 3);
    assert_int_equal(r.params.max_tokens, 2);
    openai_request_clear(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_fields_have_the_models_defaults),
        cmocka_unit_test(fields_reach_the_engine),
        cmocka_unit_test(wrong_values_name_their_field),
        cmocka_unit_test(what_changes_nothing_is_accepted),
        cmocka_unit_test(schemas_are_passed_on),
        cmocka_unit_test(calls_that_must_come_are_schemas),
        cmocka_unit_test(chat_fields_go_to_the_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
