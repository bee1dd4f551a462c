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
#include "runtime/grammar.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts_pass_in_any_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
