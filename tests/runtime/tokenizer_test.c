/* tokenizer_test.c - long words take time in proportion to their length.
 *
 * A word is what a style's pre-tokenizer leaves whole: a run of one letter, of pairs that
 * merge, of letters in no order, of blanks, digits or marks. Each is encoded at two lengths and
 * the processor time compared, the best of a few rounds. Work that grows with the square of the
 * length would give the square of the ratio of the lengths. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/text/tokenizer.h"

#include <cmocka.h>
#undef fail

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

enum { SHORT = 25000, LONG = 100000, ROUNDS = 2 };
/* Linear is LONG / SHORT = 4, with a heap a little more; the square is 16. */
static const double MAX_RATIO = 9;
static const double MAX_SECONDS = 1;  /* of the longer word; a hundredth is usual */
static const double TOO_SHORT = 1e-3; /* to be compared: the rest is noise */

static const char *const styles[] = {
    "gpt2",  "llama3", "qwen2",   "deepseek_v3",      "deepseek_llm",
    "o200k", "kimi",   "mixtral", "metaspace_always", "mixed"};

static const struct word {
    const char *name, *unit; /* unit NULL: letters in no order */
    const char *end;
} words[] = {
    {"one letter", "a", ""},
    {"pairs", "er", ""},
    {"letters", NULL, ""},
    {"blanks", " ", ""},
    {"blanks, letter", " ", "x"},
    {"blanks, digit", " ", "7"},
    {"line feeds", "\n", "x"},
    {"mixed blanks", " \n", "x"},
    {"digits", "7", ""},
    {"signs", "=", ""},
    {"accents", "\xcc\x81", ""},
    {"Han", "\xe4\xb8\xad", ""},
    {"blank marks", "\xe2\x96\x81", "x"},
    {"apostrophes", "'s", ""},
    {"emoji", "\xf0\x9f\x91\x8d", ""},
};

static struct tokenizer *open_style(const char *name)
{
    char path[1024];
    struct tokenizer *t;
    snprintf(path, sizeof path, "%s/tests/golden/tokenizers/%s/tokenizer.json", PM_SOURCE_DIR,
             name);
    if (tokenizer_open(&t, path) != PM_OK) FAIL("%s", pm_last_error());
    return t;
}

/* A word of about n bytes; returns how many. */
static size_t fill(char *text, const struct word *w, size_t n)
{
    const char *unit = w->unit ? w->unit : "?";
    size_t n_unit = strlen(unit), n_end = strlen(w->end), used = 0;
    uint32_t random = 1;
    for (; used + n_unit + n_end <= n; used += n_unit) {
        random = random * 1664525u + 1013904223u;
        memcpy(text + used, unit, n_unit);
        if (!w->unit) text[used] = (char)('a' + (random >> 24) % 26);
    }
    memcpy(text + used, w->end, n_end);
    return used + n_end;
}

/* Processor seconds of encoding a text, the best of a few rounds. */
static double seconds(const struct tokenizer *t, const char *text, size_t n)
{
    double best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        struct timespec a, b;
        int32_t *id = NULL;
        size_t capacity = 0, n_id = 0;
        double time;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        if (tokenizer_encode(t, text, n, 0, &id, &capacity, &n_id) != PM_OK) {
            FAIL("%s", pm_last_error());
        }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        free(id);
        time = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        if (time < best) best = time;
    }
    return best;
}

static void long_words_take_linear_time(void **state)
{
    char *text = malloc(LONG);
    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof styles / sizeof *styles; i++) {
        struct tokenizer *t = open_style(styles[i]);
        for (size_t j = 0; j < sizeof words / sizeof *words; j++) {
            size_t n = fill(text, &words[j], LONG);
            double longer = seconds(t, text, n), shorter;
            n = fill(text, &words[j], SHORT);
            shorter = seconds(t, text, n);
            if (longer > MAX_SECONDS || (longer > TOO_SHORT && longer > MAX_RATIO * shorter)) {
                FAIL("%s, %s: %d bytes in %.6f s, %d in %.6f s", styles[i], words[j].name,
                     (int)LONG, longer, (int)SHORT, shorter);
            }
        }
        tokenizer_close(t);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_words_take_linear_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
