/* openai_write_test.c - what a model says, as the events and the object that a client gets.
 *
 * The tape is written here as the engine's thread would write it, so that answers can have what
 * the repository's small model never says: tool calls, reasoning, failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/server/openai_inside.h"
#include "runtime/server/server_inside.h"

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

struct rig {
    struct server server;
    struct openai openai;
    struct call call;
    struct generation g;
    struct choice choice[2];
    struct prompt prompt;
    int32_t prompt_id[3];
    const char *name;
    struct tokenizer *tokenizer;
};

/* A request of n choices that all speak in `style`. */
static struct rig *open_rig(const char *request, int n, struct toolcall_style style)
{
    static const struct openai_defaults defaults = {.temperature = 1, .top_p = 1};
    struct rig *r = calloc(1, sizeof *r);
    r->name = "m";
    r->server.o.name = &r->name;
    r->server.o.n_name = 1;
    r->server.openai = &r->openai;
    if (tokenizer_open(&r->tokenizer, PM_SOURCE_DIR "/models/polymath-16m/tokenizer.json")) {
        FAIL("%s", pm_last_error());
    }
    r->openai.tokenizer = r->tokenizer;
    r->call.server = &r->server;
    strcpy(r->call.id, "0123456789abcdef");
    r->call.job = &r->g.job;
    pthread_mutex_init(&r->g.lock, NULL);
    if (openai_parse(&r->g.r, OPENAI_CHAT, &defaults, request, strlen(request)) != PM_OK) {
        FAIL("%s", pm_last_error());
    }
    r->prompt = (struct prompt){.ids = r->prompt_id, .n = 3};
    r->g.call = &r->call;
    r->g.prompt = &r->prompt;
    r->g.n_prompt = 1;
    r->g.choice = r->choice;
    r->g.n_choice = n;
    r->g.streaming = r->g.r.stream;
    for (int i = 0; i < n; i++) {
        r->choice[i].g = &r->g;
        r->choice[i].index = i;
        if (style.format == TOOLCALL_NONE && !style.reasoning) continue;
        if (toolcall_open(&r->choice[i].parser, style, NULL, r->g.r.tools, 7) != PM_OK) {
            FAIL("%s", pm_last_error());
        }
    }
    return r;
}

static void close_rig(struct rig *r)
{
    for (int i = 0; i < 2; i++) {
        struct choice *c = &r->choice[i];
        toolcall_close(c->parser);
        free(c->text.text);
        free(c->reasoning.text);
        free(c->arguments.text);
        free(c->calls.text);
        free(c->ids.text);
    }
    openai_request_clear(&r->g.r);
    free(r->g.tape.byte);
    free(r->g.taken.byte);
    free(r->g.head.text);
    free(r->call.answer.text);
    pthread_mutex_destroy(&r->g.lock);
    tokenizer_close(r->tokenizer);
    free(r);
}

/* A token of ordinary text. */
static void say(struct rig *r, int choice, const char *text)
{
    struct tape_record record = {.choice = choice, .id = 300, .n_text = (int32_t)strlen(text)};
    struct tape *t = &r->g.tape;
    if (grow_array(&t->byte, &t->capacity, t->n + sizeof record + strlen(text), 1) != PM_OK) {
        FAIL("no memory");
    }
    memcpy(t->byte + t->n, &record, sizeof record);
    memcpy(t->byte + t->n + sizeof record, text, strlen(text));
    t->n += sizeof record + strlen(text);
    r->choice[choice].result.n_generated++;
}

static void end(struct rig *r, int choice, pm_finish finish)
{
    r->choice[choice].result.finish = finish;
    r->choice[choice].ended = true;
}

/* What the stream has to say now. */
static char *read_stream(struct rig *r, bool *over)
{
    struct json_out o = {0};
    *over = false;
    if (openai_read_stream(&r->call, &o, over) != PM_OK) FAIL("%s", pm_last_error());
    return o.text ? o.text : calloc(1, 1);
}

static void contains(const char *text, const char *part)
{
    if (!strstr(text, part)) FAIL("no %s in %s", part, text);
}

static void lacks(const char *text, const char *part)
{
    if (strstr(text, part)) FAIL("%s is in %s", part, text);
}

static const struct toolcall_style plain = {TOOLCALL_NONE, false, false};
static const struct toolcall_style hermes = {TOOLCALL_HERMES, true, false};

#define TOOLS                                                                                  \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}, {\"type\": "       \
    "\"function\", \"function\": {\"name\": \"g\"}}]"

static void say_call(struct rig *r)
{
    say(r, 0, "<think>hm");
    say(r, 0, "</think>Let me see.");
    say(r, 0, "<tool_call>{\"name\": \"f\", ");
    say(r, 0, "\"arguments\": {\"x\": 1}}</tool_call>");
    say(r, 0, "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>");
    end(r, 0, PM_FINISH_EOS);
}

static void a_call_is_told_apart_from_text(void **state)
{
    struct rig *r = open_rig("{\"messages\": [{}], " TOOLS "}", 1, hermes);
    const char *a;
    (void)state;
    say_call(r);
    openai_finish(&r->call);
    a = r->call.answer.text;
    contains(a, "\"content\":\"Let me see.\"");
    contains(a, "\"reasoning_content\":\"hm\"");
    contains(a, "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":"
                " 1}\"}}");
    contains(a, "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]");
    contains(a, "\"finish_reason\":\"tool_calls\"");
    close_rig(r);
    r = open_rig("{\"messages\": [{}], \"parallel_tool_calls\": false, " TOOLS "}", 1, hermes);
    say_call(r);
    openai_finish(&r->call);
    contains(r->call.answer.text, "\"name\":\"f\"");
    lacks(r->call.answer.text, "\"name\":\"g\"");
    close_rig(r);
}

static void a_streamed_call_has_a_begin_and_arguments(void **state)
{
    struct rig *r = open_rig("{\"messages\": [{}], \"stream\": true, " TOOLS "}", 1, hermes);
    bool over;
    char *text;
    (void)state;
    say_call(r);
    text = read_stream(r, &over);
    assert_true(over);
    contains(text, "{\"role\":\"assistant\",\"reasoning_content\":\"hm\"}");
    contains(text, "{\"content\":\"Let me see.\"}");
    contains(text, "\"tool_calls\":[{\"index\":0,\"id\":\"");
    contains(text, "\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]");
    contains(text, "{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{}\"}}]}");
    contains(
        text,
        "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]");
    free(text);
    close_rig(r);
}

static void a_forced_call_that_was_cut_is_content(void **state)
{
    struct rig *r =
        open_rig("{\"messages\": [{}], \"tool_choice\": \"required\", " TOOLS "}", 1, plain);
    (void)state;
    say(r, 0, "{\"name\": \"f\", \"argu");
    end(r, 0, PM_FINISH_LENGTH);
    openai_finish(&r->call);
    contains(r->call.answer.text, "\"content\":\"{\\\"name\\\": \\\"f\\\", \\\"argu\"}");
    contains(r->call.answer.text, "\"finish_reason\":\"length\"");
    close_rig(r);
    r = open_rig("{\"messages\": [{}], \"tool_choice\": \"required\", " TOOLS "}", 1, plain);
    say(r, 0, "{\"name\": \"g\", \"arguments\": {\"a\": [1]}}");
    end(r, 0, PM_FINISH_EOS);
    openai_finish(&r->call);
    contains(r->call.answer.text, "\"content\":null,\"tool_calls\":[{\"id\":\"call_");
    contains(r->call.answer.text, "{\"name\":\"g\",\"arguments\":\"{\\\"a\\\":[1]}\"}}]");
    close_rig(r);
}

/* A failure ends the stream of all choices: what came before stands, nothing claims success. */
static void a_failure_in_a_stream_is_an_event(void **state)
{
    struct rig *r = open_rig("{\"messages\": [{}], \"stream\": true, \"n\": 2, "
                             "\"stream_options\": {\"include_usage\": true}}",
                             2, plain);
    bool over;
    char *text;
    (void)state;
    say(r, 0, "a");
    say(r, 1, "b");
    text = read_stream(r, &over);
    assert_false(over);
    contains(text, "{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"b\"}");
    free(text);
    end(r, 0, PM_FINISH_EOS);
    text = read_stream(r, &over);
    assert_false(over);
    contains(text, "\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"");
    free(text);
    r->choice[1].status = PM_ERR_DEVICE;
    strcpy(r->choice[1].error, "the device \"0\" failed");
    end(r, 1, PM_FINISH_LENGTH);
    text = read_stream(r, &over);
    assert_true(over);
    contains(text, "data: {\"error\":{\"message\":\"the device \\\"0\\\" "
                   "failed\",\"type\":\"server_error\"");
    lacks(text, "finish_reason");
    lacks(text, "\"usage\":{");
    contains(text, "data: [DONE]\n\n");
    free(text);
    close_rig(r);
}

static void a_failure_before_the_answer_is_its_status(void **state)
{
    struct rig *r = open_rig("{\"messages\": [{}]}", 1, plain);
    (void)state;
    say(r, 0, "a");
    r->choice[0].status = PM_ERR_NOMEM;
    strcpy(r->choice[0].error, "no memory for the text");
    end(r, 0, PM_FINISH_LENGTH);
    openai_finish(&r->call);
    assert_int_equal(r->call.http, 503);
    contains(r->call.answer.text, "\"code\":\"out_of_memory\"");
    close_rig(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_is_told_apart_from_text),
        cmocka_unit_test(a_streamed_call_has_a_begin_and_arguments),
        cmocka_unit_test(a_forced_call_that_was_cut_is_content),
        cmocka_unit_test(a_failure_in_a_stream_is_an_event),
        cmocka_unit_test(a_failure_before_the_answer_is_its_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
