/* fuzz_template.c - a hostile template over a hostile conversation.
 *
 * The input is a template; if it has a byte 0, JSON of the variables stands behind it: members
 * are variables by name. Without, the template sees a conversation of the target's own. The
 * template is refused with a sentence of one line, or rendered within small limits to a text of
 * well-formed UTF-8 whose spans cover it and alternate, and once more to the same. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/chat/template.h"
#include "runtime/text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_VARIABLES = 16 };

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"a<b>\\n\"},{\"role\":\"user\","
    "\"content\":"
    "\"\xc3\xa9 '\\\"\"},{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
    "\"arguments\":{\"x\":1,\"y\":[2.5,null,true]}}}]}],\"tools\":[{\"function\":{\"name\":"
    "\"f\"}"
    "}],\"add_generation_prompt\":true,\"s\":\"a,b c\",\"i\":-7,\"f\":0.5,\"l\":[3,\"x\",1],"
    "\"d\":{\"b\":1,\"a\":{}},\"n\":null}";

static void check_sentence(void)
{
    const char *sentence = pm_last_error();
    assert(*sentence && utf8_valid(sentence, strlen(sentence)));
}

static void check(const struct marked_text *m)
{
    size_t last = 0;
    assert(utf8_valid(m->text, m->n));
    for (size_t i = 0; i < m->n_span; i++) {
        assert(m->span[i].end > last);
        assert(i == 0 || m->span[i].request != m->span[i - 1].request);
        last = m->span[i].end;
    }
    assert(last == m->n);
}

static void render(const struct template *t, const struct template_variable *v, size_t n)
{
    const struct template_limits limits = {20000, 1 << 20, 1 << 16};
    struct marked_text m = {0}, again = {0};
    if (template_render(t, v, n, &limits, &m) != PM_OK) {
        check_sentence();
        return;
    }
    check(&m);
    assert(template_render(t, v, n, &limits, &again) == PM_OK);
    /* The clock may turn between the two. */
    assert(template_mentions(t, "strftime_now") ||
           (m.n == again.n && memcmp(m.text, again.text, m.n) == 0));
    marked_text_clear(&m);
    marked_text_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char bos[] = "<s>";
    const uint8_t *zero = n > 0 ? memchr(data, 0, n) : NULL;
    size_t n_source = zero ? (size_t)(zero - data) : n, n_variable = 1;
    struct template_variable v[MAX_VARIABLES] = {
        {.name = "bos_token", .text = bos, .n_text = sizeof bos - 1}};
    struct json_doc *doc = NULL;
    struct template *t;
    pm_status status =
        zero ? json_parse(&doc, "variables", (const char *)zero + 1, n - n_source - 1)
             : json_parse(&doc, "variables", conversation, sizeof conversation - 1);
    if (status != PM_OK) return 0;
    if (template_parse(&t, "fuzz", (const char *)data, n_source) != PM_OK) {
        check_sentence();
        json_free(doc);
        return 0;
    }
    for (const json *m = json_child(json_root(doc)); m && n_variable < MAX_VARIABLES;
         m = json_next(m)) {
        if (!json_key(m)) break;
        v[n_variable].name = json_key(m);
        v[n_variable].roles = true;
        v[n_variable++].value = m;
    }
    render(t, v, n_variable);
    template_free(t);
    json_free(doc);
    return 0;
}
