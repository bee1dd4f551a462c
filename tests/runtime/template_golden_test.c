/* template_golden_test.c - rendered texts equal to Jinja's.
 *
 * tests/golden/templates holds templates NAME.jinja, conversations.json (variables by name of
 * the case) and, for each template, NAME.json: by name of the case the text that Jinja gives,
 * or {"error": sentence} where it raises.
 *
 * With --render it is the other half of differential.py: each line of the input is an object
 * with a template and variables, each line of the output has text or error. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe/json.h"
#include "runtime/chat/template.h"

#include <cmocka.h>
#undef fail

enum { MAX_VARIABLES = 64, MAX_BYTES = 16 << 20, MIN_TEMPLATES = 20, MIN_CASES = 200 };

static pm_status render(const struct template *t, const json *variables,
                        struct marked_text *out)
{
    struct template_variable v[MAX_VARIABLES] = {{0}};
    size_t n = 0;
    for (const json *m = json_child(variables); m && n < MAX_VARIABLES; m = json_next(m)) {
        v[n].name = json_key(m);
        v[n].roles = true;
        v[n++].value = m;
    }
    return template_render(t, v, n, NULL, out);
}

static char *read_all(const char *path, size_t *n)
{
    char *text = malloc(MAX_BYTES);
    FILE *file = fopen(path, "rb");
    if (!text || !file) {
        print_error("%s: cannot be read\n", path);
        _fail(__FILE__, __LINE__);
    }
    *n = fread(text, 1, MAX_BYTES, file);
    fclose(file);
    return text;
}

/* Spans start at 0, end at n, alternate. */
static void check_spans(const struct marked_text *m, const char *where)
{
    size_t last = 0;
    for (size_t i = 0; i < m->n_span; i++) {
        bool fits =
            m->span[i].end > last && (i == 0 || m->span[i].request != m->span[i - 1].request);
        if (!fits) print_error("%s: span %zu\n", where, i);
        assert_true(fits);
        last = m->span[i].end;
    }
    assert_int_equal(last, m->n);
}

static void check_text(const struct marked_text *m, const json *wanted, const char *where)
{
    if (!json_is_string(wanted) || json_text_bytes(wanted) != m->n ||
        memcmp(json_text(wanted), m->text, m->n) != 0) {
        print_error("%s: found\n%s\nwanted\n%s\n", where, m->text,
                    json_is_string(wanted) ? json_text(wanted) : "an error");
        _fail(__FILE__, __LINE__);
    }
    check_spans(m, where);
}

/* Only the sentences of raise_exception are ours to repeat; they are given with raised. */
static void check_error(const json *wanted, const char *where)
{
    const json *raised = json_get(wanted, "raised");
    if (!json_is_object(wanted) || (raised && !strstr(pm_last_error(), json_text(raised)))) {
        print_error("%s: %s, wanted %s\n", where, pm_last_error(),
                    raised ? json_text(raised) : "a text");
        _fail(__FILE__, __LINE__);
    }
}

static int check_template(const char *folder, const char *name, const json *conversations)
{
    char path[1024], where[1024];
    struct json_doc *expected;
    struct template *t;
    size_t n, length = strlen(name) - strlen(".jinja");
    char *source;
    int n_case = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    source = read_all(path, &n);
    if (template_parse(&t, name, source, n) != PM_OK) {
        print_error("%s\n", pm_last_error());
        _fail(__FILE__, __LINE__);
    }
    free(source);
    snprintf(path, sizeof path, "%s/%.*s.json", folder, (int)length, name);
    assert_int_equal(json_load(&expected, path, MAX_BYTES), PM_OK);
    for (const json *m = json_child(json_root(expected)); m; m = json_next(m), n_case++) {
        struct marked_text text = {0};
        const json *variables = json_get(conversations, json_key(m));
        snprintf(where, sizeof where, "%s, %s", name, json_key(m));
        assert_non_null(variables);
        if (render(t, variables, &text) == PM_OK) {
            check_text(&text, m, where);
        } else {
            check_error(m, where);
        }
        marked_text_clear(&text);
    }
    json_free(expected);
    template_free(t);
    return n_case;
}

static void every_template_equals_jinja(void **state)
{
    const char *folder = PM_SOURCE_DIR "/tests/golden/templates";
    DIR *entries = opendir(folder);
    struct json_doc *conversations;
    struct dirent *entry;
    int n_template = 0, n_case = 0;
    (void)state;
    assert_non_null(entries);
    assert_int_equal(json_load(&conversations,
                               PM_SOURCE_DIR "/tests/golden/templates/conversations.json",
                               MAX_BYTES),
                     PM_OK);
    while ((entry = readdir(entries)) != NULL) {
        size_t n = strlen(entry->d_name);
        if (n < 6 || strcmp(entry->d_name + n - 6, ".jinja") != 0) continue;
        n_case += check_template(folder, entry->d_name, json_root(conversations));
        n_template++;
    }
    closedir(entries);
    json_free(conversations);
    print_message("%d cases of %d templates\n", n_case, n_template);
    assert_true(n_template >= MIN_TEMPLATES && n_case >= MIN_CASES);
}

/* One line of the differential test. */
static void answer(const json *root)
{
    const json *source = json_get(root, "template");
    struct template *t;
    struct marked_text text = {0};
    struct json_out o = {0};
    pm_status status =
        template_parse(&t, "template", json_text(source), json_text_bytes(source));
    if (status == PM_OK) {
        status = render(t, json_get(root, "variables"), &text);
        template_free(t);
    }
    json_put(&o, status == PM_OK ? "{\"text\":" : "{\"error\":");
    json_put_string(&o, status == PM_OK ? text.text : pm_last_error(),
                    status == PM_OK ? text.n : strlen(pm_last_error()));
    json_put(&o, ",\"status\":%d}", (int)status);
    puts(o.text);
    fflush(stdout);
    free(o.text);
    marked_text_clear(&text);
}

static int serve(void)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    while ((n = getline(&line, &capacity, stdin)) > 0) {
        struct json_doc *doc;
        if (json_parse(&doc, "line", line, (size_t)n) != PM_OK) {
            fprintf(stderr, "%s\n", pm_last_error());
            return 1;
        }
        answer(json_root(doc));
        json_free(doc);
    }
    free(line);
    return 0;
}

int main(int n, char **argument)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_template_equals_jinja)};
    if (n > 1 && strcmp(argument[1], "--render") == 0) return serve();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
