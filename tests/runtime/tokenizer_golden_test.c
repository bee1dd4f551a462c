/* tokenizer_golden_test.c - ids and text equal to the reference library.
 *
 * tests/golden/tokenizers holds small tokenizer.json files in the styles of the families and,
 * for each, cases.jsonl: a text, whether special tokens go around it, its ids and the text that
 * the ids decode to. Decoding is done an id at a time, so it covers streaming as well. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe/json.h"
#include "runtime/text/tokenizer.h"

#include <cmocka.h> /* last: its macro fail() hides the function */

enum { MAX_LINE = 1 << 20, MIN_STYLES = 12, MIN_CASES = 100 };

static void check_ids(const struct tokenizer *t, const json *root, const char *where)
{
    const json *text = json_get(root, "text"), *ids = json_get(root, "ids");
    int flags = TOKENIZE_PARSE_SPECIAL;
    int32_t *id = NULL;
    size_t capacity = 0, n = 0, i = 0;
    if (json_true(json_get(root, "add_special"))) flags |= TOKENIZE_ADD_SPECIAL;
    if (tokenizer_encode(t, json_text(text), json_text_bytes(text), flags, &id, &capacity,
                         &n) != PM_OK) {
        print_error("%s: %s\n", where, pm_last_error());
        assert_true(false);
    }
    for (const json *v = json_child(ids); v; v = json_next(v), i++) {
        if (i >= n || id[i] != (int32_t)json_number(v)) {
            print_error("%s: id %zu is %d, wanted %d\n", where, i, i < n ? id[i] : -1,
                        (int)json_number(v));
            assert_true(false);
        }
    }
    assert_int_equal(i, n);
    free(id);
}

static void check_text(const struct tokenizer *t, const json *root, const char *where)
{
    const json *wanted = json_get(root, "decoded");
    struct detokenizer *d;
    char *all = calloc(1, MAX_LINE);
    const char *piece;
    size_t length = 0, n;
    if (json_is_string(wanted)) {
        assert_int_equal(detokenizer_open(&d, t, false), PM_OK);
        for (const json *v = json_child(json_get(root, "ids")); v; v = json_next(v)) {
            assert_int_equal(detokenizer_add(d, (int32_t)json_number(v), &piece, &n), PM_OK);
            memcpy(all + length, piece, n);
            length += n;
        }
        assert_int_equal(detokenizer_flush(d, &piece, &n), PM_OK);
        memcpy(all + length, piece, n);
        length += n;
        if (length != json_text_bytes(wanted) || memcmp(all, json_text(wanted), length) != 0) {
            print_error("%s: decoded \"%.*s\", wanted \"%s\"\n", where, (int)length, all,
                        json_text(wanted));
            assert_true(false);
        }
        detokenizer_close(d);
    }
    free(all);
}

/* All lines of one style; returns how many. */
static int check_style(const char *folder)
{
    char path[1600], where[1700], *line = malloc(MAX_LINE);
    struct tokenizer *t;
    struct json_doc *doc;
    int n = 0;
    FILE *f;
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    if (tokenizer_open(&t, path) != PM_OK) {
        print_error("%s\n", pm_last_error());
        assert_true(false);
    }
    snprintf(path, sizeof path, "%s/cases.jsonl", folder);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, MAX_LINE, f)) {
        snprintf(where, sizeof where, "%s:%d", path, ++n);
        assert_int_equal(json_parse(&doc, where, line, strlen(line)), PM_OK);
        check_ids(t, json_root(doc), where);
        check_text(t, json_root(doc), where);
        json_free(doc);
    }
    fclose(f);
    tokenizer_close(t);
    free(line);
    return n;
}

static void every_style_equals_the_reference(void **state)
{
    char folder[1024];
    const struct dirent *entry;
    int n_style = 0;
    DIR *dir;
    (void)state;
    snprintf(folder, sizeof folder, "%s/tests/golden/tokenizers", PM_SOURCE_DIR);
    dir = opendir(folder);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char path[1500];
        FILE *f;
        snprintf(path, sizeof path, "%s/%s/tokenizer.json", folder, entry->d_name);
        f = fopen(path, "r");
        if (!f) continue;
        fclose(f);
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        assert_true(check_style(path) >= MIN_CASES);
        n_style++;
    }
    closedir(dir);
    assert_true(n_style >= MIN_STYLES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_style_equals_the_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
