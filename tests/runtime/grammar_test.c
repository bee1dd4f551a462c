/* grammar_test.c - what a schema lets through, and that masks say the same as single tokens.
 *
 * Texts are fed through a small vocabulary of single bytes and of pieces that cut across
 * everything: strings, escapes, characters, structure. Each case has texts that must pass under
 * any cut and texts that must not. Random walks over the masks must end in values that a small
 * validator here accepts; with PM_GRAMMAR_WALKS=FILE they are also written down, for
 * grammar_check.py to ask the jsonschema package. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "moe/json.h"
#include "runtime/grammar/grammar.h"
#include "schema_check.h"

#include <cmocka.h>
#undef fail

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

static const char *const pieces[] = {
    "{\"",  "\":",     "\": ",  "\",\"",    "\", \"",   "\"}",         "\"]",      "},{",
    "[[",   "]]",      "}}",    " \"",      "\\\"",     "\\u",         "\\ud83d",  "\\n",
    "true", "false",   "null",  "12",       "007",      "3.1",         "1e5",      "-1",
    "ab",   "abc",     "name",  "\"name\"", "\n",       "\n  ",        "    ",     ", ",
    ": ",   "[]",      "{}",    "\xc3\xa9", "\xf0\x9f", "\x98\x80",    "\xe4\xb8", "a\"",
    "b\",", "\"a\":1", "00",    "-",        "2024-",    "hello world", "\"\"",     "\"\\\\\"",
    "}\n",  "],\n",    "\"b\"", "x\xe4",    "0.5",      "99",
};

enum { N_PIECE = sizeof pieces / sizeof *pieces, END = 256 + N_PIECE, N_VOCAB = END + 1 };
enum { N_WORD = (N_VOCAB + 31) / 32 };

static struct grammar_vocabulary *open_vocabulary(void)
{
    struct grammar_vocabulary *v = NULL;
    static const int32_t end[] = {END};
    char byte[4096];
    size_t start[N_VOCAB + 1], n = 0;
    for (int i = 0; i < N_VOCAB; i++) {
        start[i] = n;
        if (i < 256) byte[n++] = (char)i;
        for (const char *at = i >= 256 && i < END ? pieces[i - 256] : ""; *at; at++) {
            byte[n++] = *at;
        }
    }
    start[N_VOCAB] = n;
    if (grammar_vocabulary_new(&v, byte, start, N_VOCAB, end, 1) != PM_OK)
        FAIL("%s", pm_last_error());
    return v;
}

static struct grammar *compile(const char *schema)
{
    struct grammar *g = NULL;
    if (grammar_open(&g, schema, strlen(schema)) != PM_OK) {
        FAIL("%s\n  of %s", pm_last_error(), schema);
    }
    return g;
}

static struct grammar_state *begin(const struct grammar *g, const struct grammar_vocabulary *v)
{
    struct grammar_state *s = NULL;
    if (grammar_state_open(&s, g, v) != PM_OK) FAIL("%s", pm_last_error());
    return s;
}

static bool is_set(const uint32_t *mask, int id)
{
    return mask[id / 32] >> id % 32 & 1;
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* A token that text starts with: a byte, or with luck a piece. */
static int choose_token(const char *text, uint64_t *seed)
{
    int first = (int)(next_random(seed) % N_PIECE);
    for (int i = 0; i < N_PIECE && next_random(seed) % 8 != 0; i++) {
        int piece = (first + i) % N_PIECE;
        if (strncmp(text, pieces[piece], strlen(pieces[piece])) == 0) return 256 + piece;
    }
    return (unsigned char)*text;
}

/* Feeds text in a random cut; whether it passes and is complete. Masks must agree. */
static bool passes(const struct grammar *g, const struct grammar_vocabulary *v,
                   const char *text, uint64_t *seed)
{
    struct grammar_state *s = begin(g, v);
    bool ok = true, complete;
    for (const char *at = text; *at && ok;) {
        uint32_t mask[N_WORD];
        int id = choose_token(at, seed);
        if (grammar_allowed(s, mask) != PM_OK) FAIL("%s", pm_last_error());
        ok = grammar_accept(s, id) == PM_OK;
        if (ok != is_set(mask, id)) {
            FAIL("%s before %s: token %d: mask %d, accept %d", text, at, id, is_set(mask, id),
                 ok);
        }
        at += id < 256 ? 1 : strlen(pieces[id - 256]);
    }
    complete = ok && grammar_complete(s);
    if (complete) {
        uint32_t mask[N_WORD];
        assert_int_equal(grammar_allowed(s, mask), PM_OK);
        assert_true(is_set(mask, END));
        assert_int_equal(grammar_accept(s, END), PM_OK);
    }
    grammar_state_close(s);
    return complete;
}

enum { MAX_TEXTS = 12 };
static const struct schema_case {
    const char *schema;
    const char *good[MAX_TEXTS], *bad[MAX_TEXTS]; /* NULL after the last */
} cases[] = {
#include "grammar_cases.inc"
};
enum { N_CASE = sizeof cases / sizeof *cases };

static void texts_pass_in_any_cut(void **state)
{
    struct grammar_vocabulary *v = open_vocabulary();
    uint64_t seed = 1;
    (void)state;
    for (int i = 0; i < N_CASE; i++) {
        struct grammar *g = compile(cases[i].schema);
        for (int cut = 0; cut < 20; cut++) {
            for (int k = 0; k < MAX_TEXTS && cases[i].good[k]; k++) {
                if (!passes(g, v, cases[i].good[k], &seed))
                    FAIL("%s refuses %s", cases[i].schema, cases[i].good[k]);
            }
            for (int k = 0; k < MAX_TEXTS && cases[i].bad[k]; k++) {
                if (passes(g, v, cases[i].bad[k], &seed))
                    FAIL("%s accepts %s", cases[i].schema, cases[i].bad[k]);
            }
        }
        grammar_close(g);
    }
    grammar_vocabulary_close(v);
}

/* Masks */

static void check_mask(const struct grammar_state *s, const uint32_t *mask, const char *schema,
                       const char *text)
{
    for (int id = 0; id < N_VOCAB; id++) {
        struct grammar_state *probe = NULL;
        bool ok;
        assert_int_equal(grammar_state_copy(&probe, s), PM_OK);
        ok = grammar_accept(probe, id) == PM_OK;
        if (ok != is_set(mask, id)) {
            FAIL("%s behind %s: token %d: mask %d, alone %d", schema, text, id,
                 is_set(mask, id), ok);
        }
        grammar_state_close(probe);
    }
}

/* A token that brings the value nearer to its end, or any allowed one. */
static int choose_allowed(const uint32_t *mask, bool hurry, uint64_t *seed)
{
    static const char closers[] = "\"b]}0a";
    int first = (int)(next_random(seed) % N_VOCAB);
    if (is_set(mask, END) && (hurry || next_random(seed) % 4 == 0)) return END;
    if (hurry || next_random(seed) % 3 == 0) {
        for (const char *at = closers; *at; at++) {
            if (is_set(mask, *at)) return *at;
        }
    }
    while (!is_set(mask, first)) {
        first = (first + 1) % N_VOCAB;
    }
    return first;
}

enum { MAX_WALK_TEXT = 4096, HURRY_AFTER = 40, MAX_STEPS = 400 };

/* Samples until the end token; false: the walk was cut. Each step's mask may be checked. */
static bool walk(const struct grammar *g, const struct grammar_vocabulary *v,
                 const char *schema, bool check, uint64_t *seed, char *text)
{
    struct grammar_state *s = begin(g, v);
    size_t n = 0;
    bool ended = false;
    text[0] = 0;
    for (int step = 0; step < MAX_STEPS && !ended; step++) {
        uint32_t mask[N_WORD];
        int id;
        if (grammar_allowed(s, mask) != PM_OK) FAIL("%s: %s", schema, pm_last_error());
        assert_int_equal(is_set(mask, END), grammar_complete(s));
        if (check) check_mask(s, mask, schema, text);
        id = choose_allowed(mask, step > HURRY_AFTER, seed);
        assert_int_equal(grammar_accept(s, id), PM_OK);
        ended = id == END;
        if (id >= 256 && id < END) n += (size_t)sprintf(text + n, "%s", pieces[id - 256]);
        if (id < 256) text[n++] = (char)id;
        text[n] = 0;
    }
    grammar_state_close(s);
    return ended;
}

static void masks_say_what_single_tokens_say(void **state)
{
    struct grammar_vocabulary *v = open_vocabulary();
    uint64_t seed = 2;
    (void)state;
    for (int i = 0; i < N_CASE; i++) {
        struct grammar *g = compile(cases[i].schema);
        char text[MAX_WALK_TEXT];
        for (int k = 0; k < 2; k++) {
            walk(g, v, cases[i].schema, true, &seed, text);
        }
        grammar_close(g);
    }
    grammar_vocabulary_close(v);
}

/* Texts of walks */

static bool is_double_key(void)
{
    return strstr(pm_last_error(), "wanted each key once") != NULL;
}

static void check_text(const char *schema, const char *text)
{
    struct json_doc *schema_doc, *doc;
    assert_int_equal(json_parse(&schema_doc, "schema", schema, strlen(schema)), PM_OK);
    if (json_parse(&doc, "text", text, strlen(text)) == PM_OK) {
        if (!schema_check(json_root(schema_doc), json_root(schema_doc), json_root(doc)))
            FAIL("%s is not fulfilled by %s", schema, text);
        json_free(doc);
    } else if (!is_double_key()) {
        FAIL("%s: %s: %s", schema, text, pm_last_error());
    }
    json_free(schema_doc);
}

static void write_walk(FILE *file, const char *schema, const char *text)
{
    struct json_out o = {0};
    json_put(&o, "{\"schema\":");
    json_put_string(&o, schema, strlen(schema));
    json_put(&o, ",\"text\":");
    json_put_string(&o, text, strlen(text));
    fprintf(file, "%s}\n", o.text);
    free(o.text);
}

static void random_walks_fulfil_their_schema(void **state)
{
    struct grammar_vocabulary *v = open_vocabulary();
    const char *path = getenv("PM_GRAMMAR_WALKS");
    FILE *file = path ? fopen(path, "w") : NULL;
    int n_walk = file ? 300 : 50;
    uint64_t seed = 3;
    (void)state;
    for (int i = 0; i < N_CASE; i++) {
        struct grammar *g = compile(cases[i].schema);
        int n_ended = 0;
        for (int k = 0; k < n_walk; k++) {
            char text[MAX_WALK_TEXT];
            if (!walk(g, v, cases[i].schema, false, &seed, text)) continue;
            n_ended++;
            check_text(cases[i].schema, text);
            if (file) write_walk(file, cases[i].schema, text);
        }
        if (n_ended < n_walk / 5) FAIL("%s: only %d walks ended", cases[i].schema, n_ended);
        grammar_close(g);
    }
    if (file) fclose(file);
    grammar_vocabulary_close(v);
}

/* Refusals */

static const char *const refusals[][2] = {
    {"", "schema: "},
    {"3", "schema: wanted a schema: an object, true, false"},
    {"{\"type\":\"text\"}", "schema: type: wanted one of null, boolean"},
    {"{\"type\":[]}", "schema: type: wanted at least one type"},
    {"{\"properties\":{\"age\":{\"type\":\"number\",\"multipleOf\":0.1}}}",
     "schema: properties.age.multipleOf: not supported: only whole numbers from 1 to 1000"},
    {"{\"not\":{}}", "schema: not: not supported: this keyword cannot be enforced"},
    {"{\"items\":{\"patternProperties\":{}}}",
     "schema: items.patternProperties: not supported"},
    {"{\"if\":{},\"then\":{}}", "schema: if: not supported"},
    {"{\"type\":\"array\",\"uniqueItems\":true}", "schema: uniqueItems: not supported"},
    {"{\"type\":\"array\",\"contains\":{}}", "schema: contains: not supported"},
    {"{\"type\":\"array\",\"items\":[{}]}", "schema: items: not supported as a list"},
    {"{\"type\":\"object\",\"minProperties\":1}", "schema: minProperties: not supported"},
    {"{\"type\":\"object\",\"maxProperties\":1}", "schema: maxProperties: not supported"},
    {"{\"colour\":1}", "schema: colour: not supported"},
    {"{\"type\":\"string\",\"format\":\"hostname\"}",
     "schema: format: not supported: only date"},
    {"{\"type\":\"string\",\"pattern\":\"(\"}",
     "schema: pattern: the pattern has a parenthesis"},
    {"{\"type\":\"string\",\"pattern\":\"a(?=b)\"}",
     "schema: pattern: the pattern has look-around"},
    {"{\"type\":\"string\",\"pattern\":\"\\\\bx\"}",
     "schema: pattern: the pattern has an escape"},
    {"{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}",
     "schema: pattern: the pattern has an escape"},
    {"{\"type\":\"string\",\"pattern\":\"(^a)\"}",
     "schema: pattern: the pattern has an anchor"},
    {"{\"type\":\"string\",\"pattern\":\"a\",\"format\":\"date\"}",
     "schema: format: not supported beside another"},
    {"{\"oneOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}",
     "schema: oneOf: not supported where one value may fulfil two schemas, here 0 and 1"},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"properties\":{}}]}", "schema: "},
    {"{\"anyOf\":[]}", "schema: anyOf: wanted a list of schemas"},
    {"{\"anyOf\":[{\"type\":\"null\"},7]}", "schema: anyOf[1]: wanted a schema"},
    {"{\"$ref\":\"#/$defs/x\"}", "schema: $ref: leads to nothing"},
    {"{\"$ref\":\"http://example.com\"}", "schema: $ref: only references into this schema"},
    {"{\"$ref\":\"#\"}", "schema: no value fulfils it"},
    {"{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"$ref\":\"#\"}}}",
     "schema: no value fulfils it"},
    {"false", "schema: no value fulfils it"},
    {"{\"enum\":[]}", "schema: no value fulfils it"},
    {"{\"type\":\"string\",\"enum\":[1]}", "schema: no value fulfils it"},
    {"{\"enum\":[\"a\"],\"minLength\":1}",
     "schema: minLength: not supported beside enum or const"},
    {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "schema: no value fulfils it"},
    {"{\"type\":\"integer\",\"minimum\":9223372036854775807}",
     "schema: minimum: 9.2233720368547758e+18 is not supported, only 0 and 1e-20 to 1e15"},
    {"{\"type\":\"string\",\"minLength\":3,\"pattern\":\"^ab$\"}",
     "schema: no value fulfils it"},
    {"{\"type\":\"array\",\"minItems\":100000}", "schema: minItems: not supported over 16384"},
    {"{\"type\":\"object\",\"properties\":[]}", "schema: properties: wanted an object"},
    {"{\"required\":{}}", "schema: required: wanted a list of names"},
    {"{\"minLength\":-1}", "schema: minLength: wanted a whole number"},
    /* Small texts that would make large automata. */
    {"{\"type\":\"string\",\"pattern\":\"^(((a{100}){100}){100}){100}$\"}",
     "schema: pattern: too complex"},
    {"{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){20}\"}", "schema: pattern: too complex"},
    {"{\"type\":\"string\",\"pattern\":\"(.{0,200}x){0,200}\"}",
     "schema: pattern: too complex"},
};

static void refusals_name_the_keyword(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct grammar *g = NULL;
        pm_status status = grammar_open(&g, refusals[i][0], strlen(refusals[i][0]));
        if (status != PM_ERR_ARG || g) FAIL("%s: status %d", refusals[i][0], (int)status);
        if (strncmp(pm_last_error(), refusals[i][1], strlen(refusals[i][1])) != 0)
            FAIL("%s: %s", refusals[i][0], pm_last_error());
    }
}

/* Limits */

/* Of this process: others may keep the processor busy. */
static double seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

/* anyOf of anyOf, allOf of anyOf, many properties, deep nesting: in bounded time, either way.
 */
static void large_schemas_take_bounded_time(void **state)
{
    static const struct {
        const char *head, *unit, *tail;
        int n;
    } shapes[] = {
        {"{\"allOf\":[{}", ",{\"anyOf\":[{\"minimum\":%d},{\"maximum\":%d}]}", "]}", 14},
        {"{\"allOf\":[{}", ",{\"anyOf\":[{\"minimum\":%d},{\"maximum\":%d}]}", "]}", 1000},
        {"{\"anyOf\":[{}", ",{\"properties\":{\"a%d\":{\"minLength\":%d}}}", "]}", 1000},
        {"{\"properties\":{\"z\":{}", ",\"a%d\":{\"maxLength\":%d}", "}}", 2000},
        {"{\"enum\":[0", ",\"value %d\",%d", "]}", 5000},
        {"{\"allOf\":[{\"const\":1},{\"enum\":[1", ",\"value %d\",%d", "]}]}", 5000},
        {"{\"prefixItems\":[{}", ",{\"const\":%d},{\"minimum\":%d}", "]}", 400},
        {"{\"oneOf\":[{\"type\":\"null\"}", ",{\"const\":\"x%d %d\"}", "]}", 200},
        {"{\"required\":[\"a\"", ",\"b%d\",\"c%d\"", "]}", 1500},
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct json_out o = {0};
        struct grammar *g = NULL;
        double start = seconds();
        json_put(&o, "%s", shapes[i].head);
        for (int k = 0; k < shapes[i].n; k++) {
            char unit[100];
            snprintf(unit, sizeof unit, shapes[i].unit, k, k);
            json_put(&o, "%s", unit);
        }
        json_put(&o, "%s", shapes[i].tail);
        if (grammar_open(&g, o.text, o.n) != PM_OK && !strstr(pm_last_error(), "too complex"))
            FAIL("shape %zu: %s", i, pm_last_error());
        start = seconds() - start;
        if (start > 10) FAIL("shape %zu took %.1f s", i, start); /* a tenth is usual */
        grammar_close(g);
        free(o.text);
    }
}

static void nesting_ends_in_time(void **state)
{
    struct grammar_vocabulary *v = open_vocabulary();
    struct grammar *g = compile("{}");
    struct grammar_state *s = begin(g, v);
    uint32_t mask[N_WORD];
    int depth = 0;
    (void)state;
    while (grammar_accept(s, '[') == PM_OK) {
        depth++;
    }
    assert_int_equal(depth, GRAMMAR_MAX_DEPTH);
    assert_int_equal(grammar_allowed(s, mask), PM_OK);
    assert_false(is_set(mask, '{'));
    for (; depth > 0; depth--) {
        assert_int_equal(grammar_accept(s, ']'), PM_OK);
    }
    assert_true(grammar_complete(s));
    grammar_state_close(s);
    grammar_close(g);
    grammar_vocabulary_close(v);
}

/* Stacks that the text left behind are swept: a long text does not grow the state. */
static void long_texts_stay_right(void **state)
{
    struct grammar_vocabulary *v = open_vocabulary();
    struct grammar *g =
        compile("{\"type\":\"array\",\"items\":{\"anyOf\":[{\"type\":\"array\",\"items\":"
                "{\"type\":\"integer\"},\"maxItems\":9000},{\"type\":\"array\","
                "\"items\":{\"type\":\"string\"}}]}}");
    struct grammar_state *s = begin(g, v);
    (void)state;
    assert_int_equal(grammar_accept(s, '['), PM_OK);
    assert_int_equal(grammar_accept(s, '['), PM_OK);
    for (int i = 0; i < 8000; i++) {
        assert_int_equal(grammar_accept(s, '7'), PM_OK);
        assert_int_equal(grammar_accept(s, ','), PM_OK);
        assert_int_equal(grammar_accept(s, ' '), PM_OK);
    }
    assert_int_equal(grammar_accept(s, '"'), PM_ERR_ARG);
    assert_int_equal(grammar_accept(s, '1'), PM_OK);
    assert_int_equal(grammar_accept(s, ']'), PM_OK);
    assert_int_equal(grammar_accept(s, ']'), PM_OK);
    assert_true(grammar_complete(s));
    grammar_state_close(s);
    grammar_close(g);
    grammar_vocabulary_close(v);
}

/* Real tokenizers */

static const char book_schema[] =
    "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\",\"minLength\":1},"
    "\"year\":{\"type\":\"integer\",\"minimum\":1450,\"maximum\":2100},\"tags\":{\"type\":"
    "\"array\","
    "\"items\":{\"type\":\"string\",\"maxLength\":9},\"maxItems\":3},\"kind\":{\"enum\":"
    "[\"novel\",\"\xc3\xa9tude\",null]}},\"required\":[\"title\",\"kind\"],"
    "\"additionalProperties\":false}";
static const char *const books[] = {
    "{\"title\": \"The sea\", \"year\": 1999, \"tags\": [\"a\", \"deep blue\"], \"kind\": "
    "\"novel\"}",
    "{\"title\":\"\xe4\xb8\xad\xe6\x96\x87 "
    "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac\",\"kind\":\"\xc3\xa9tude\"}",
    "{\n  \"title\": \"a \\\"b\\\" \\u00e9\\n\",\n  \"tags\": [],\n  \"kind\": null\n}",
};

struct style {
    struct tokenizer *t;
    struct grammar_vocabulary *v;
    char *byte;
    size_t *start;
    int n, end;
    int single[128]; /* the token of one byte */
};

/* false: the tokenizer's decoder leaves tokens no bytes of their own. */
static bool open_style(struct style *s, const char *name)
{
    char path[1024];
    bool ok;
    snprintf(path, sizeof path, "%s/tests/golden/tokenizers/%s/tokenizer.json", PM_SOURCE_DIR,
             name);
    if (tokenizer_open(&s->t, path) != PM_OK) FAIL("%s", pm_last_error());
    s->end = tokenizer_size(s->t); /* a row of the logits that is no token */
    s->n = s->end + 1;
    s->start = calloc((size_t)s->n + 1, sizeof *s->start);
    assert_non_null(s->start);
    ok = grammar_vocabulary_open(&s->v, s->t, s->n, &s->end, 1) == PM_OK;
    if (ok) assert_int_equal(tokenizer_all_bytes(s->t, s->n, &s->byte, s->start), PM_OK);
    for (int i = 0; i < s->n && ok; i++) {
        char c = s->start[i + 1] > s->start[i] ? s->byte[s->start[i]] : -1;
        if (s->start[i + 1] - s->start[i] == 1 && c >= 0) s->single[(int)c] = i;
    }
    return ok;
}

static void close_style(struct style *s)
{
    grammar_vocabulary_close(s->v);
    tokenizer_close(s->t);
    free(s->byte);
    free(s->start);
}

static void check_book(const struct style *s, const struct grammar *g, const char *book)
{
    struct grammar_state *state = begin(g, s->v);
    uint32_t *mask = calloc((size_t)s->n / 32 + 1, sizeof *mask);
    int32_t *id = NULL;
    size_t capacity = 0, n = 0;
    assert_int_equal(tokenizer_encode(s->t, book, strlen(book), 0, &id, &capacity, &n), PM_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(grammar_allowed(state, mask), PM_OK);
        if (!is_set(mask, id[i])) FAIL("%s: token %zu, %d, is not allowed", book, i, id[i]);
        assert_int_equal(grammar_accept(state, id[i]), PM_OK);
    }
    assert_true(grammar_complete(state));
    grammar_state_close(state);
    free(mask);
    free(id);
}

/* Samples a text and decodes it: it is what the tokens' bytes said, and fulfils the schema. */
static bool check_sample(const struct style *s, const struct grammar *g, uint64_t *seed)
{
    struct grammar_state *state = begin(g, s->v);
    uint32_t *mask = calloc((size_t)s->n / 32 + 1, sizeof *mask);
    struct detokenizer *d = NULL;
    char bytes[1 << 14], text[1 << 14];
    const char *part;
    size_t n_byte = 0, n_text = 0, n_part;
    int id = 0;
    assert_int_equal(detokenizer_open(&d, s->t, false), PM_OK);
    for (int step = 0; step < 200 && id != s->end; step++) {
        assert_int_equal(grammar_allowed(state, mask), PM_OK);
        id = (int)(next_random(seed) % (uint32_t)s->n);
        for (const char *at = "}]:\""; *at && step % 3 == 2; at++) {
            if (is_set(mask, s->single[(int)*at])) id = s->single[(int)*at];
        }
        while (!is_set(mask, id)) {
            id = (id + 1) % s->n;
        }
        if (is_set(mask, s->end)) id = s->end;
        assert_false(tokenizer_is_special(s->t, id));
        assert_int_equal(grammar_accept(state, id), PM_OK);
        if (id == s->end) break;
        memcpy(bytes + n_byte, s->byte + s->start[id], s->start[id + 1] - s->start[id]);
        n_byte += s->start[id + 1] - s->start[id];
        assert_int_equal(detokenizer_add(d, id, &part, &n_part), PM_OK);
        memcpy(text + n_text, part, n_part);
        n_text += n_part;
    }
    assert_int_equal(detokenizer_flush(d, &part, &n_part), PM_OK);
    memcpy(text + n_text, part, n_part);
    n_text += n_part;
    text[n_text] = 0;
    if (id == s->end) {
        size_t blank = n_byte > n_text; /* some decoders take the first one away */
        assert_int_equal(n_text + blank, n_byte);
        assert_memory_equal(text, bytes + blank, n_text);
        check_text(book_schema, text);
    }
    detokenizer_close(d);
    grammar_state_close(state);
    free(mask);
    return id == s->end;
}

static void tokenizers_give_tokens_their_bytes(void **state)
{
    static const char *const names[] = {
        "gpt2",    "gpt2_prefix", "llama3",           "qwen2",           "deepseek_v3",
        "o200k",   "kimi",        "metaspace_always", "metaspace_first", "metaspace_never",
        "mixtral", "added"};
    struct grammar *g = compile(book_schema);
    uint64_t seed = 4;
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct style s = {0};
        int n_ended = 0;
        if (!open_style(&s, names[i])) FAIL("%s: %s", names[i], pm_last_error());
        for (size_t k = 0; k < sizeof books / sizeof *books; k++) {
            /* This decoder has no bytes, so no line feeds. */
            if (strcmp(names[i], "metaspace_always") == 0 && strchr(books[k], '\n')) continue;
            check_book(&s, g, books[k]);
        }
        for (int k = 0; k < 30; k++) {
            n_ended += check_sample(&s, g, &seed);
        }
        if (n_ended < 10) FAIL("%s: only %d samples ended", names[i], n_ended);
        close_style(&s);
    }
    grammar_close(g);
}

static void tokens_without_bytes_of_their_own_are_refused(void **state)
{
    struct style s = {0};
    (void)state;
    assert_false(open_style(&s, "mixed")); /* no decoder: blanks between tokens */
    assert_non_null(strstr(pm_last_error(), "gives its tokens no bytes of their own"));
    close_style(&s);
}

/* Questions of grammar_suite.py, a line each: S and a schema, T and a text. */
static int answer(void)
{
    struct grammar_vocabulary *v = open_vocabulary();
    struct grammar *g = NULL;
    static char line[1 << 20];
    uint64_t seed = 5;
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (*line == 'S') {
            grammar_close(g);
            g = NULL;
            puts(grammar_open(&g, line + 1, strlen(line + 1)) == PM_OK ? "compiled"
                                                                       : "refused");
        } else {
            puts(g && passes(g, v, line + 1, &seed) ? "passes" : "fails");
        }
        fflush(stdout);
    }
    grammar_close(g);
    grammar_vocabulary_close(v);
    return 0;
}

int main(int n_argument, char **argument)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_pass_in_any_cut),
        cmocka_unit_test(masks_say_what_single_tokens_say),
        cmocka_unit_test(random_walks_fulfil_their_schema),
        cmocka_unit_test(refusals_name_the_keyword),
        cmocka_unit_test(large_schemas_take_bounded_time),
        cmocka_unit_test(nesting_ends_in_time),
        cmocka_unit_test(long_texts_stay_right),
        cmocka_unit_test(tokenizers_give_tokens_their_bytes),
        cmocka_unit_test(tokens_without_bytes_of_their_own_are_refused),
    };
    if (n_argument > 1 && strcmp(argument[1], "--answer") == 0) return answer();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
