/* fuzz_schema.c - arbitrary schemas, and what random samples through them are worth.
 *
 * Input that starts with "{" is a schema; a zero byte may follow, and then bytes that choose
 * tokens. Any other input is a recipe from which a schema of known keywords is cooked, so that
 * most of them compile. A schema is refused with a sentence of one line, or each walk through
 * it
 *
 *   always has a token to go on with, and the end token exactly where the value is whole;
 *   has masks that agree with single tokens, and single tokens that are refused change nothing;
 *   ends in a JSON value that fulfils the schema, by a validator of its own. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe/json.h"
#include "runtime/grammar/grammar.h"
#include "tests/runtime/schema_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const pieces[] = {
    "{\"",     "\":",  "\": ", "\",\"", "\"}",      "},{",   "[[",       "]]",
    "}}",      " \"",  "\\\"", "\\u",   "\\ud8",    "true",  "12",       "3.1",
    "ab",      "\n  ", ", ",   "[]",    "{}",       "\xc3",  "\xf0\x9f", "a\"",
    "\"a\":1", "00",   "\"\"", "\"a\"", "\"b\": 1", "x\xe4", "ull",      "[1,"};
enum {
    N_PIECE = sizeof pieces / sizeof *pieces,
    END = 256 + N_PIECE,
    N_VOCAB = END + 1,
    N_WORD = (N_VOCAB + 31) / 32,
    MAX_STEPS = 60,
    HURRY_AFTER = 15,
    MAX_TEXT = 8 * MAX_STEPS,
    N_PROBE = 3,
    PROBE_EVERY = 8
};

/* Bytes that decide; zeros when they are used up. */
struct choices {
    const uint8_t *at, *end;
    uint64_t seed; /* makes up for the end of the bytes */
};

static uint32_t choose(struct choices *c, uint32_t n)
{
    c->seed = c->seed * 6364136223846793005u + 1442695040888963407u;
    return (c->at < c->end ? *c->at++ : (uint32_t)(c->seed >> 40)) % n;
}

static const struct grammar_vocabulary *vocabulary(void)
{
    static struct grammar_vocabulary *v;
    static const int32_t end[] = {END};
    char byte[2048];
    size_t start[N_VOCAB + 1], n = 0;
    if (v) return v;
    for (int i = 0; i < N_VOCAB; i++) {
        const char *piece = i >= 256 && i < END ? pieces[i - 256] : "";
        start[i] = n;
        if (i < 256) byte[n++] = (char)i;
        memcpy(byte + n, piece, strlen(piece));
        n += strlen(piece);
    }
    start[N_VOCAB] = n;
    if (grammar_vocabulary_new(&v, byte, start, N_VOCAB, end, 1) != PM_OK) abort();
    return v;
}

/* Recipes */

static void put_schema(struct json_out *o, struct choices *c, int level);

static void put_list(struct json_out *o, struct choices *c, int level, const char *keyword)
{
    json_put(o, "\"%s\":[", keyword);
    for (uint32_t i = 0, n = 1 + choose(c, 3); i < n; i++) {
        if (i > 0) json_put(o, ",");
        put_schema(o, c, level);
    }
    json_put(o, "]");
}

static void put_value(struct json_out *o, struct choices *c)
{
    static const char *const values[] = {
        "null", "true",           "1",         "-12",       "0.5", "\"a\"", "\"ab\"",
        "\"\"", "\"\\n\\u00e9\"", "[1,\"a\"]", "{\"a\":1}", "1e3"};
    json_put(o, "%s", values[choose(c, sizeof values / sizeof *values)]);
}

static const char *name_of(struct choices *c)
{
    static const char *const names[] = {"a", "b", "ab", "", "a/b", "\\u00e9", "\\n", "\\u0001"};
    return names[choose(c, sizeof names / sizeof *names)];
}

static void put_object(struct json_out *o, struct choices *c, int level)
{
    static const char *const types[] = {"", "\"type\":\"object\","};
    static const char *const rest[] = {",\"additionalProperties\":false", "",
                                       ",\"additionalProperties\":"};
    uint32_t used = 0, n = choose(c, 4), tail;
    json_put(o, "%s\"properties\":{", types[choose(c, 2)]);
    for (uint32_t i = 0; i < n; i++) {
        char name[4] = {(char)('a' + i), 0};
        json_put(o, "%s\"%s%s\":", i > 0 ? "," : "", choose(c, 4) ? "" : name_of(c), name);
        put_schema(o, c, level);
    }
    json_put(o, "},\"required\":[");
    for (uint32_t i = 0; i < n; i++) {
        if (choose(c, 2)) json_put(o, "%s\"%c\"", used++ > 0 ? "," : "", (char)('a' + i));
    }
    tail = choose(c, 3);
    json_put(o, "]%s", rest[tail]);
    if (tail == 2) put_schema(o, c, level);
}

static void put_array(struct json_out *o, struct choices *c, int level)
{
    uint32_t min = choose(c, 4);
    json_put(o, "\"type\":\"array\"");
    if (choose(c, 2)) json_put(o, ",\"minItems\":%u", min);
    if (choose(c, 2)) json_put(o, ",\"maxItems\":%u", min + choose(c, 4));
    if (choose(c, 2)) {
        json_put(o, ",");
        put_list(o, c, level, "prefixItems");
    }
    if (choose(c, 2)) {
        json_put(o, ",\"items\":");
        put_schema(o, c, level);
    }
}

static void put_string(struct json_out *o, struct choices *c)
{
    static const char *const patterns[] = {",\"pattern\":\"^a*b?$\"",
                                           ",\"pattern\":\"[^a-y]|\\\\d{2}$\"",
                                           ",\"pattern\":\"^(\\\\w|-){1,3}\""};
    uint32_t min = choose(c, 4), pattern = choose(c, 8);
    json_put(o, "\"type\":\"string\"%s", pattern < 3 ? patterns[pattern] : "");
    /* The automata of dates are large, and always the same. */
    if (pattern == 3 && choose(c, 16) == 0) json_put(o, ",\"format\":\"date-time\"");
    if (choose(c, 2)) json_put(o, ",\"minLength\":%u", min);
    if (choose(c, 2)) json_put(o, ",\"maxLength\":%u", min + choose(c, 5));
}

static void put_number(struct json_out *o, struct choices *c)
{
    static const char *const bounds[] = {"0",   "-1",   "1",     "0.5",    "-2.25", "10",
                                         "99",  "1e3",  "-1e14", "0.001",  "7",     "-100",
                                         "123", "12.5", "3e-7",  "999999", "-0",    "2.5e10"};
    static const char *const keys[] = {"minimum", "maximum", "exclusiveMinimum",
                                       "exclusiveMaximum"};
    json_put(o, "\"type\":\"%s\"", choose(c, 2) ? "integer" : "number");
    for (int k = 0; k < 4; k++) {
        if (choose(c, 3) == 0) json_put(o, ",\"%s\":%s", keys[k], bounds[choose(c, 18)]);
    }
    if (choose(c, 4) == 0) json_put(o, ",\"multipleOf\":%u", 1 + choose(c, 13));
}

static void put_members(struct json_out *o, struct choices *c, int level)
{
    static const char *const lists[] = {"anyOf", "oneOf", "allOf"};
    static const char *const types[] = {"null",   "boolean", "string",
                                        "object", "array",   "number"};
    static const char *const targets[] = {"#", "#/$defs/a", "#/$defs/b"};
    switch (choose(c, 11)) {
    case 0: put_object(o, c, level); break;
    case 1: put_array(o, c, level); break;
    case 2: put_string(o, c); break;
    case 3: put_number(o, c); break;
    case 4: put_list(o, c, level, lists[choose(c, 3)]); break;
    case 5: json_put(o, "\"$ref\":\"%s\"", targets[choose(c, 3)]); break;
    case 6:
        json_put(o, "\"enum\":[");
        put_value(o, c);
        json_put(o, ",");
        put_value(o, c);
        json_put(o, "]");
        break;
    case 7:
        json_put(o, "\"const\":");
        put_value(o, c);
        break;
    case 8: json_put(o, "\"type\":[\"%s\",\"null\"]", types[choose(c, 6)]); break;
    case 9: json_put(o, "\"type\":\"%s\",\"nullable\":true", types[choose(c, 6)]); break;
    case 10:
        put_list(o, c, level, lists[choose(c, 3)]);
        json_put(o, ",");
        put_object(o, c, level);
        break;
    }
}

static void put_schema(struct json_out *o, struct choices *c, int level)
{
    if (level > 4 || c->at == c->end) {
        json_put(o, "%s", level % 2 ? "true" : "{\"type\":\"integer\"}");
        return;
    }
    json_put(o, "{");
    put_members(o, c, level + 1);
    json_put(o, "}");
}

static void put_recipe(struct json_out *o, struct choices *c)
{
    json_put(o, "{\"$defs\":{\"a\":");
    put_schema(o, c, 2);
    json_put(o, ",\"b\":");
    put_schema(o, c, 2);
    json_put(o, "},");
    put_members(o, c, 0);
    json_put(o, "}");
}

/* Walks */

static bool is_set(const uint32_t *mask, int id)
{
    return mask[id / 32] >> id % 32 & 1;
}

static int choose_allowed(struct choices *c, const uint32_t *mask, int step)
{
    static const char closers[] = "\"]}0-:a1T.Z2";
    int id = (int)(choose(c, 256) + choose(c, 256)) % N_VOCAB;
    if (is_set(mask, END) && (step > HURRY_AFTER || choose(c, 4) == 0)) return END;
    for (const char *at = closers; *at && step > HURRY_AFTER; at++) {
        if (is_set(mask, *at)) return *at;
    }
    while (!is_set(mask, id)) {
        id = (id + 1) % N_VOCAB;
    }
    return id;
}

static void probe(struct choices *c, const struct grammar_state *s, const uint32_t *mask)
{
    struct grammar_state *copy = NULL;
    if (grammar_state_copy(&copy, s) != PM_OK) abort();
    for (int i = 0; i < N_PROBE; i++) {
        int id = (int)(choose(c, 256) + choose(c, 256)) % N_VOCAB;
        pm_status status = grammar_accept(copy, id);
        assert((status == PM_OK) == is_set(mask, id));
        if (status == PM_OK) break;
        assert(grammar_complete(copy) == grammar_complete(s));
    }
    grammar_state_close(copy);
}

static void check_text(const char *schema, size_t n_schema, const char *text, size_t n)
{
    struct json_doc *schema_doc = NULL, *doc = NULL;
    if (json_parse(&schema_doc, "schema", schema, n_schema) != PM_OK) abort();
    if (json_parse(&doc, "text", text, n) == PM_OK) {
        assert(schema_check(json_root(schema_doc), json_root(schema_doc), json_root(doc)));
    } else {
        assert(strstr(pm_last_error(), "wanted each key once"));
    }
    json_free(doc);
    json_free(schema_doc);
}

static void walk(struct choices *c, const struct grammar *g, const char *schema,
                 size_t n_schema)
{
    struct grammar_state *s = NULL;
    char text[MAX_TEXT];
    size_t n = 0;
    if (grammar_state_open(&s, g, vocabulary()) != PM_OK) abort();
    for (int step = 0; step < MAX_STEPS; step++) {
        uint32_t mask[N_WORD];
        int id;
        if (grammar_allowed(s, mask) != PM_OK) abort();
        assert(is_set(mask, END) == grammar_complete(s));
        if (step % PROBE_EVERY == 0) probe(c, s, mask);
        id = choose_allowed(c, mask, step);
        if (grammar_accept(s, id) != PM_OK) abort();
        if (id == END) {
            check_text(schema, n_schema, text, n);
            break;
        }
        if (id < 256) {
            text[n++] = (char)id;
        } else {
            memcpy(text + n, pieces[id - 256], strlen(pieces[id - 256]));
            n += strlen(pieces[id - 256]);
        }
    }
    grammar_state_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct choices c = {data, data + n, n};
    struct json_out schema = {0};
    struct grammar *g = NULL;
    pm_status status;
    if (n > 0 && data[0] == '{') {
        const uint8_t *zero = memchr(data, 0, n);
        size_t length = zero ? (size_t)(zero - data) : n;
        schema.text = malloc(length + 1);
        if (!schema.text) abort();
        memcpy(schema.text, data, length);
        schema.text[schema.n = length] = 0;
        c.at = zero ? zero + 1 : c.end;
    } else {
        put_recipe(&schema, &c);
    }
    status = grammar_open(&g, schema.text, schema.n);
    if (status != PM_OK) {
        assert(status == PM_ERR_ARG && !g && strncmp(pm_last_error(), "schema: ", 8) == 0);
        assert(!strchr(pm_last_error(), '\n'));
    } else {
        walk(&c, g, schema.text, schema.n);
    }
    grammar_close(g);
    free(schema.text);
    return 0;
}
