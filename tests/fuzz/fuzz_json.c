/* fuzz_json.c - arbitrary bytes as a JSON text.
 *
 * What is accepted is written again from the tree, and that text must be accepted and give the
 * same text once more: so lengths, escapes and numbers survive the trip, and whatever cJSON
 * builds agrees with what the scan saw. What is refused must have a sentence of one line. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "moe/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void put_value(struct json_out *o, const json *v)
{
    if (json_is_string(v)) {
        json_put_string(o, json_text(v), json_text_bytes(v));
    } else if (json_is_number(v)) {
        json_put(o, "%.17g", json_number(v));
    } else if (json_is_object(v) || json_is_array(v)) {
        json_put(o, json_is_object(v) ? "{" : "[");
        for (const json *m = json_child(v); m; m = json_next(m)) {
            if (json_is_object(v)) {
                json_put_string(o, json_key(m), json_key_bytes(m));
                json_put(o, ":");
            }
            put_value(o, m);
            if (json_next(m)) json_put(o, ",");
        }
        json_put(o, json_is_object(v) ? "}" : "]");
    } else {
        assert(json_is_null(v) || json_is_bool(v));
        json_put(o, json_is_null(v) ? "null" : json_true(v) ? "true" : "false");
    }
}

/* Reads each value in the ways that can fail; the sentence has its path. */
static void read_values(struct json_doc *doc, const json *v)
{
    for (const json *m = json_child(v); m; m = json_next(m)) {
        int whole = 0;
        if (json_is_object(v) && strlen(json_key(m)) == json_key_bytes(m)) {
            assert(json_get(v, json_key(m)) == m);
            if (json_want_int(doc, v, json_key(m), -5, 5, &whole) != PM_OK) {
                assert(strncmp(pm_last_error(), "input: ", 7) == 0);
            }
            assert(whole >= -5 && whole <= 5);
        }
        read_values(doc, m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct json_doc *doc = NULL, *again = NULL;
    struct json_out first = {0}, second = {0};
    if (json_parse(&doc, "input", (const char *)data, n) != PM_OK) {
        assert(!doc && strncmp(pm_last_error(), "input: ", 7) == 0);
        assert(!strchr(pm_last_error(), '\n'));
        return 0;
    }
    put_value(&first, json_root(doc));
    read_values(doc, json_root(doc));
    assert(first.status == PM_OK && first.n == strlen(first.text));
    if (json_parse(&again, "again", first.text, first.n) != PM_OK) abort();
    put_value(&second, json_root(again));
    assert(strcmp(first.text, second.text) == 0);
    free(second.text);
    free(first.text);
    json_free(again);
    json_free(doc);
    return 0;
}
