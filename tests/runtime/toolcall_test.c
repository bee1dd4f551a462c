/* toolcall_test.c - answers of every family become content, reasoning and calls, however the
 * text is cut; what is malformed comes out as it came.
 *
 * An answer is written down with its pieces: content as it is, {R:reasoning} and
 * {C:name|arguments|id}, id left out where it is made up. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/chat/toolcall.h"

#include <cmocka.h>
#undef fail

enum { MAX_SHOWN = 1 << 16 };

struct shown {
    char text[MAX_SHOWN];
    size_t n;
    enum toolcall_piece_kind last;
    bool in_call, ids;
    int n_call;
};

static void put(struct shown *s, const char *text, size_t n)
{
    assert_true(s->n + n < sizeof s->text);
    memcpy(s->text + s->n, text, n);
    s->n += n;
    s->text[s->n] = 0;
}

static void show(struct shown *s, const struct toolcall_piece *piece, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct toolcall_piece *p = &piece[i];
        if (s->last == PIECE_REASONING && p->kind != PIECE_REASONING) put(s, "}", 1);
        switch (p->kind) {
        case PIECE_REASONING:
            if (s->last != PIECE_REASONING) put(s, "{R:", 3);
            assert_true(p->n > 0);
            put(s, p->text, p->n);
            break;
        case PIECE_CONTENT:
            assert_true(p->n > 0);
            put(s, p->text, p->n);
            break;
        case PIECE_CALL_BEGIN:
            assert_false(s->in_call);
            assert_int_equal(p->call, s->n_call);
            assert_true(p->id && *p->id);
            put(s, "{C:", 3);
            put(s, p->text, p->n);
            put(s, "|", 1);
            if (s->ids) put(s, p->id, strlen(p->id));
            if (s->ids) put(s, "|", 1);
            s->in_call = true;
            break;
        case PIECE_ARGUMENTS:
            assert_true(s->in_call);
            put(s, p->text, p->n);
            break;
        case PIECE_CALL_END:
            assert_true(s->in_call);
            assert_int_equal(p->call, s->n_call);
            put(s, "}", 1);
            s->in_call = false;
            s->n_call++;
        }
        s->last = p->kind;
    }
}

static void finish(struct toolcall_parser *p, struct shown *s)
{
    const struct toolcall_piece *piece;
    size_t n;
    assert_int_equal(toolcall_end(p, &piece, &n), PM_OK);
    show(s, piece, n);
    if (s->last == PIECE_REASONING) put(s, "}", 1);
    assert_false(s->in_call);
    toolcall_close(p);
}

static struct shown *shown_new(bool ids)
{
    struct shown *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->last = PIECE_CALL_END;
    s->ids = ids;
    return s;
}

static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\","
                            "\"parameters\":{\"properties\":{\"s\":{"
                            "\"type\":\"string\"},\"n\":{\"type\":\"integer\"}}}}}]";

/* Feeds an answer in texts of `step` bytes, the first of `first`. */
static struct shown *run(struct toolcall_style style, const char *answer, size_t first,
                         size_t step, bool ids)
{
    struct shown *s = shown_new(ids);
    struct toolcall_parser *p;
    struct json_doc *doc;
    size_t n = strlen(answer), at = 0;
    assert_int_equal(json_parse(&doc, "tools", tools, sizeof tools - 1), PM_OK);
    assert_int_equal(toolcall_open(&p, style, NULL, json_root(doc), 7), PM_OK);
    json_free(doc);
    while (at < n) {
        const struct toolcall_piece *piece;
        size_t n_piece, end = at == 0 && first > 0 ? first : at + step;
        if (end > n) end = n;
        assert_int_equal(toolcall_add(p, -1, answer + at, end - at, &piece, &n_piece), PM_OK);
        show(s, piece, n_piece);
        at = end;
    }
    finish(p, s);
    return s;
}

static void check(struct toolcall_style style, const char *answer, const char *wanted)
{
    size_t n = strlen(answer);
    for (size_t first = 1; first <= n; first++) { /* cut in two at every byte */
        struct shown *s = run(style, answer, first, n, false);
        if (strcmp(s->text, wanted) != 0) print_error("%s, cut at %zu\n", answer, first);
        assert_string_equal(s->text, wanted);
        free(s);
    }
    for (size_t step = 1; step < 8 && step < n; step++) {
        struct shown *s = run(style, answer, 0, step, false);
        if (strcmp(s->text, wanted) != 0) print_error("%s, by %zu\n", answer, step);
        assert_string_equal(s->text, wanted);
        free(s);
    }
}

#define STYLE(format) ((struct toolcall_style){TOOLCALL_##format, true, false})

static void hermes_calls_are_read(void **state)
{
    const struct toolcall_style style = STYLE(HERMES);
    (void)state;
    check(style, "Hello.", "Hello.");
    check(style,
          "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"x\", \"n\": "
          "1.0}}\n</tool_call>",
          "{C:f|{\"s\": \"x\", \"n\": 1.0}}");
    check(style,
          "Let me.\n<tool_call>{\"arguments\":{},\"name\":\"g\"}</tool_call>\n<tool_call>\n"
          "{\"name\": \"f\", \"arguments\": {\"a\": [1, {\"b\": \"}\\\"\"}]}}\n</tool_call>\n",
          "Let me.\n{C:g|{}}{C:f|{\"a\": [1, {\"b\": \"}\\\"\"}]}}");
    check(style, "<tool_call>{\"name\":\"f\"}</tool_call> done", "{C:f|{}} done");
    check(style, "<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>", "{C:f|{}}");
    check(style, "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"s\\\": 1}\"}</tool_call>",
          "{C:f|{\"s\": 1}}");
    check(style, "<tool_call>{\"name\":\"f\",\"arguments\":{\"s\":1}}", "{C:f|{\"s\":1}}");
    check(style,
          "<tool_call>\n<function=f>\n<parameter=s>\n12\n</parameter>\n<parameter=n>\n12\n"
          "</parameter>\n</function>\n</tool_call>",
          "{C:f|{\"s\": \"12\", \"n\": 12}}");
}

static void malformed_calls_are_content(void **state)
{
    static const char *const answers[] = {
        "<tool_call>{\"name\": \"f\", \"arguments\": {</tool_call> x",
        "<tool_call></tool_call>",
        "a <tool_call>{\"name\": 1}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"no\"}</tool_call>",
        "<tool_call>[]</tool_call>",
        "<tool_call>{\"name\": \"f\"} and more</tool_call>",
        "<tool_call>{\"name\": \"f",
        "<tool_call>",
        "<tool_call",
        "<tool_ca <tool_call >",
        "1 < 2 </tool_call> <",
        "<tool_call>{\"name\":\"f\",\"argument\\u0073\":{}}</tool_call>"};
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        check(STYLE(HERMES), answers[i], answers[i]);
        check(STYLE(NONE), answers[i], answers[i]);
    }
    check(STYLE(HERMES), "<tool_call>x</tool_call><tool_call>{\"name\":\"f\"}</tool_call>",
          "<tool_call>x</tool_call>{C:f|{}}");
}

static void mistral_and_granite_calls_are_read(void **state)
{
    (void)state;
    check(STYLE(MISTRAL),
          "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"s\": \"[TOOL_CALLS]\"}, \"id\": "
          "\"abcdefghi\"}, {\"name\": \"g\", \"arguments\": {}}]",
          "{C:f|{\"s\": \"[TOOL_CALLS]\"}}{C:g|{}}");
    check(STYLE(MISTRAL), "ok [TOOL_CALLS]f[ARGS]{\"n\": 1}[TOOL_CALLS]g[CALL_ID]x[ARGS]{}",
          "ok {C:f|{\"n\": 1}}{C:g|{}}");
    check(STYLE(MISTRAL), "[TOOL_CALLS] nothing", "[TOOL_CALLS] nothing");
    check(STYLE(MISTRAL), "[TOOL [1] [TOOL_CALL]", "[TOOL [1] [TOOL_CALL]");
    check(STYLE(GRANITE), "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"n\": 1}}]",
          "{C:f|{\"n\": 1}}");
    check(STYLE(GRANITE), "<|tool_call|>[1]", "<|tool_call|>[1]");
}

static void llama_calls_are_read(void **state)
{
    (void)state;
    check(STYLE(LLAMA3), "{\"name\": \"f\", \"parameters\": {\"s\": \"}\"}}",
          "{C:f|{\"s\": \"}\"}}");
    check(STYLE(LLAMA3),
          " {\"name\":\"f\",\"parameters\":{}}; {\"name\":\"g\",\"parameters\":{\"n\":1}}",
          "{C:f|{}}{C:g|{\"n\":1}}");
    check(STYLE(LLAMA3),
          "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}",
          "{C:f|{}}");
    check(
        STYLE(LLAMA3),
        "{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"n\": 2}}}",
        "{C:f|{\"n\": 2}}");
    check(STYLE(LLAMA3), "{\"a\": 1}", "{\"a\": 1}");
    check(STYLE(LLAMA3), "{\"name\": \"f\"", "{\"name\": \"f\"");
    check(STYLE(LLAMA3), "{", "{");
    check(STYLE(LLAMA3), "The call {\"name\": \"f\", \"parameters\": {}}",
          "The call {\"name\": \"f\", \"parameters\": {}}");
    check(STYLE(LLAMA3), "{\"name\": \"f\", \"parameters\": {}} is it",
          "{\"name\": \"f\", \"parameters\": {}} is it");
}

static void deepseek_calls_are_read(void **state)
{
    (void)state;
    check(STYLE(DEEPSEEK_V3),
          "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"
          "\"s\": "
          "\"x\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>g<｜tool▁sep｜>{\"n\": "
          "1}<｜tool▁call▁"
          "end｜><｜tool▁calls▁end｜>",
          "Hm.{C:f|{\"s\": \"x\"}}{C:g|{\"n\": 1}}");
    check(STYLE(DEEPSEEK_V3), "<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>",
          "<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>");
    check(STYLE(DEEPSEEK_V3), "<｜ and <｜tool▁", "<｜ and <｜tool▁");
}

static void kimi_calls_are_read(void **state)
{
    static const char answer[] =
        "Ok<|tool_calls_section_begin|><|tool_call_begin|>functions.f:3<|tool_call_argument_"
        "begin|>"
        "{\"s\": "
        "\"a\"}<|tool_call_end|><|tool_call_begin|>g<|tool_call_argument_begin|>{}<|tool_"
        "call_end|><|tool_calls_section_end|>";
    struct shown *s = run(STYLE(KIMI_K2), answer, 0, 1000, true);
    (void)state;
    check(STYLE(KIMI_K2), answer, "Ok{C:f|{\"s\": \"a\"}}{C:g|{}}");
    assert_string_equal(s->text, "Ok{C:f|functions.f:3|{\"s\": \"a\"}}{C:g|g|{}}");
    free(s);
}

static void glm_and_minimax_calls_are_read(void **state)
{
    (void)state;
    check(
        STYLE(GLM4),
        "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>12</arg_value>\n<arg_key>n</arg_key>\n"
        "<arg_value>12</arg_value>\n<arg_key>o</arg_key><arg_value>{\"a\": [1]}</arg_value>\n"
        "<arg_key>q</arg_key>\n<arg_value>it's \"x\"</arg_value>\n</tool_call>",
        "{C:f|{\"s\": \"12\", \"n\": 12, \"o\": {\"a\": [1]}, \"q\": \"it's \\\"x\\\"\"}}");
    check(STYLE(GLM4), "a\n<tool_call>g\n</tool_call>\n<tool_call>h</tool_call>",
          "a\n{C:g|{}}{C:h|{}}");
    check(STYLE(GLM4), "<tool_call>f\n<arg_key>s</tool_call>",
          "<tool_call>f\n<arg_key>s</tool_call>");
    check(STYLE(MINIMAX_M2),
          "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"s\">1</parameter>\n"
          "<parameter name=\"n\">1</parameter>\n</invoke>\n<invoke name=\"g\">\n</invoke>\n"
          "</minimax:tool_call>",
          "{C:f|{\"s\": \"1\", \"n\": 1}}{C:g|{}}");
    check(STYLE(MINIMAX_M2), "<minimax:tool_call>f</minimax:tool_call>",
          "<minimax:tool_call>f</minimax:tool_call>");
}

static void harmony_messages_are_read(void **state)
{
    (void)state;
    check(STYLE(HARMONY),
          "<|channel|>analysis<|message|>I think.<|end|><|start|>assistant"
          "<|channel|>final<|message|>Hi there<|return|>",
          "{R:I think.}Hi there");
    check(STYLE(HARMONY),
          "<|channel|>analysis<|message|>Call.<|end|><|start|>assistant<|channel|>commentary "
          "to=functions.f <|constrain|>json<|message|>{\"s\": 1}<|call|>",
          "{R:Call.}{C:f|{\"s\": 1}}");
    check(STYLE(HARMONY), " to=functions.g<|channel|>commentary json<|message|>{}", "{C:g|{}}");
    check(STYLE(HARMONY),
          "<|channel|>commentary<|message|>First.<|end|><|start|>assistant"
          "<|channel|>commentary to=functions.g<|message|>no<|call|>",
          "First.no");
    check(STYLE(HARMONY), "plain text", "plain text");
    check(STYLE(HARMONY), "<|channel|>final<|message|>1 <| 2", "1 <| 2");
}

static void reasoning_is_split(void **state)
{
    struct toolcall_style inside = STYLE(HERMES);
    (void)state;
    inside.starts_reasoning = true;
    check(STYLE(HERMES), "<think>\nOne\n\ntwo.\n</think>\n\nAnswer", "{R:One\n\ntwo.}Answer");
    check(STYLE(HERMES), "<think>\n\n</think>\n\nAnswer\n", "Answer\n");
    check(STYLE(HERMES), "A <think> b </think>", "A <think> b </think>");
    check(STYLE(HERMES), "<think>never ends", "{R:never ends}");
    check(STYLE(HERMES), "<think>x</think>\n<tool_call>{\"name\":\"f\"}</tool_call>",
          "{R:x}{C:f|{}}");
    check(inside, "Hm <tool_call> hm\n</think>\n\nYes</think>",
          "{R:Hm <tool_call> hm}Yes</think>");
    check(inside, "<think>\nHm</think>Yes", "{R:Hm}Yes");
    check((struct toolcall_style){TOOLCALL_NONE, false, false}, "<think>a</think>b",
          "<think>a</think>b");
}

/* Markers that are tokens count by their id only. */
static void marker_tokens_are_known_by_id(void **state)
{
    static const char body[] = "{\"name\":\"f\",\"arguments\":{\"s\":\"</tool_call>\"}}";
    struct tokenizer *t;
    struct toolcall_parser *p;
    struct shown *s = shown_new(false);
    const struct toolcall_piece *piece;
    size_t n;
    int32_t open, close;
    (void)state;
    assert_int_equal(
        tokenizer_open(&t, PM_SOURCE_DIR "/tests/golden/tokenizers/qwen2/tokenizer.json"),
        PM_OK);
    open = tokenizer_id(t, "<tool_call>");
    close = tokenizer_id(t, "</tool_call>");
    assert_true(open >= 0 && close >= 0);
    assert_int_equal(toolcall_open(&p, STYLE(HERMES), t, NULL, 1), PM_OK);
#define ADD(id, text)                                                                          \
    assert_int_equal(toolcall_add(p, id, text, strlen(text), &piece, &n), PM_OK),              \
        show(s, piece, n)
    ADD(5, "Write <tool_call>");
    ADD(6, "{\"name\":\"g\"}</tool_call>, ");
    ADD(open, "<tool_call>");
    ADD(7, body);
    ADD(close, "");
    ADD(8, "!");
#undef ADD
    finish(p, s);
    assert_string_equal(s->text, "Write <tool_call>{\"name\":\"g\"}</tool_call>, "
                                 "{C:f|{\"s\":\"</tool_call>\"}}!");
    free(s);
    tokenizer_close(t);
}

/* gpt-oss: the markers' ids come with text or without, and spelled markers are text. */
static void harmony_is_read_from_ids(void **state)
{
    struct tokenizer *t;
    (void)state;
    assert_int_equal(
        tokenizer_open(&t, PM_SOURCE_DIR "/tests/golden/tokenizers/o200k/tokenizer.json"),
        PM_OK);
    for (int spelled = 0; spelled < 2; spelled++) {
        static const struct {
            const char *marker, *text;
        } answer[] = {{"<|channel|>", NULL},  {NULL, "analysis"},
                      {"<|message|>", NULL},  {NULL, "Is <|end|> a marker?"},
                      {"<|end|>", NULL},      {"<|start|>", NULL},
                      {NULL, "assistant"},    {NULL, " to=functions.f"},
                      {"<|channel|>", NULL},  {NULL, "commentary json"},
                      {"<|message|>", NULL},  {NULL, "{\"s\": "},
                      {NULL, "\"<|end|>\"}"}, {"<|end|>", NULL},
                      {"<|start|>", NULL},    {NULL, "assistant"},
                      {"<|channel|>", NULL},  {NULL, "final"},
                      {"<|message|>", NULL},  {NULL, "Done."},
                      {"<|return|>", NULL}};
        struct shown *s = shown_new(false);
        struct toolcall_parser *p;
        assert_int_equal(toolcall_open(&p, STYLE(HARMONY), t, NULL, 1), PM_OK);
        for (size_t i = 0; i < sizeof answer / sizeof *answer; i++) {
            const struct toolcall_piece *piece;
            const char *marker = answer[i].marker, *text = answer[i].text;
            int32_t id = marker ? tokenizer_id(t, marker) : 0;
            size_t n;
            assert_true(id >= 0);
            if (marker) text = spelled ? marker : "";
            assert_int_equal(toolcall_add(p, id, text, strlen(text), &piece, &n), PM_OK);
            show(s, piece, n);
        }
        finish(p, s);
        assert_string_equal(s->text, "{R:Is <|end|> a marker?}{C:f|{\"s\": \"<|end|>\"}}Done.");
        free(s);
    }
    tokenizer_close(t);
}

static void ids_are_the_same_for_a_seed(void **state)
{
    static const char answer[] =
        "<tool_call>{\"name\":\"f\"}</tool_call><tool_call>{\"name\":\"f\"}</tool_call>";
    struct shown *a = run(STYLE(HERMES), answer, 0, 3, true);
    struct shown *b = run(STYLE(HERMES), answer, 0, 50, true);
    struct shown *m = run(STYLE(MISTRAL), "[TOOL_CALLS][{\"name\":\"f\"}]", 0, 50, true);
    char first[64], second[64], nine[64];
    (void)state;
    assert_string_equal(a->text, b->text);
    assert_int_equal(sscanf(a->text, "{C:f|%63[^|]|{}}{C:f|%63[^|]|{}}", first, second), 2);
    assert_string_not_equal(first, second);
    assert_int_equal(strlen(first), strlen("call_") + 24);
    assert_int_equal(sscanf(m->text, "{C:f|%63[^|]|{}}", nine), 1);
    assert_int_equal(strlen(nine), 9);
    free(a);
    free(b);
    free(m);
}

/* The templates that the golden tests render tell their families. */
static void styles_are_recognised(void **state)
{
    static const struct {
        const char *name, *format;
        bool reasoning;
    } families[] = {{"mixtral", "none", false},
                    {"mistral_tools", "mistral", false},
                    {"qwen2_moe", "none", false},
                    {"qwen3_moe", "hermes", true},
                    {"olmoe", "none", false},
                    {"deepseek_v2", "none", false},
                    {"deepseek_v3", "deepseek_v3", true},
                    {"llama3", "llama3", false},
                    {"glm4_moe", "glm4", true},
                    {"kimi_k2", "kimi_k2", false},
                    {"minimax_m2", "minimax_m2", true},
                    {"gpt_oss", "harmony", false},
                    {"granite", "granite", false},
                    {"hunyuan", "none", true},
                    {"ernie", "none", false},
                    {"phimoe", "none", false}};
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char folder[] = "/tmp/toolcall_test_XXXXXX", from[1024], to[1024];
        struct chat *c;
        struct toolcall_style style;
        assert_non_null(mkdtemp(folder));
        snprintf(from, sizeof from, "%s/tests/golden/templates/%s.jinja", PM_SOURCE_DIR,
                 families[i].name);
        snprintf(to, sizeof to, "%s/chat_template.jinja", folder);
        assert_int_equal(symlink(from, to), 0);
        assert_int_equal(chat_open(&c, folder), PM_OK);
        unlink(to);
        rmdir(folder);
        style = toolcall_recognise(c, NULL);
        if (strcmp(toolcall_format_name(style.format), families[i].format) != 0) {
            print_error("%s\n", families[i].name);
        }
        assert_string_equal(toolcall_format_name(style.format), families[i].format);
        assert_int_equal(style.reasoning, families[i].reasoning);
        chat_close(c);
    }
}

static void prompts_tell_whether_reasoning_has_begun(void **state)
{
    static const struct {
        const char *text;
        bool request, wanted;
    } prompts[] = {{"<think>\n", false, true},
                   {"<think>", true, false},
                   {"<think>\n\n</think>\n\n", false, false},
                   {"", false, false},
                   {"x", false, false}};
    (void)state;
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        char text[64];
        struct text_span span = {strlen(prompts[i].text), prompts[i].request};
        struct marked_text m = {text, strlen(prompts[i].text), &span, span.end > 0};
        strcpy(text, prompts[i].text);
        assert_int_equal(toolcall_starts_reasoning(&m), prompts[i].wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hermes_calls_are_read),
        cmocka_unit_test(malformed_calls_are_content),
        cmocka_unit_test(mistral_and_granite_calls_are_read),
        cmocka_unit_test(llama_calls_are_read),
        cmocka_unit_test(deepseek_calls_are_read),
        cmocka_unit_test(kimi_calls_are_read),
        cmocka_unit_test(glm_and_minimax_calls_are_read),
        cmocka_unit_test(harmony_messages_are_read),
        cmocka_unit_test(reasoning_is_split),
        cmocka_unit_test(marker_tokens_are_known_by_id),
        cmocka_unit_test(harmony_is_read_from_ids),
        cmocka_unit_test(ids_are_the_same_for_a_seed),
        cmocka_unit_test(styles_are_recognised),
        cmocka_unit_test(prompts_tell_whether_reasoning_has_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
