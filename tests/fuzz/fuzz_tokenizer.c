/* fuzz_tokenizer.c - a hostile tokenizer.json, and hostile texts for good ones.
 *
 * Input that starts with "{" is a file: it is refused with a sentence of one line, or it makes
 * a tokenizer that must survive a few texts. Any other input is a text; its first byte chooses
 * one of the tokenizers below and the flags. For each text
 *
 *   ids are in range, the same when asked again, and those of plain text are never special;
 *   what is decoded is well-formed in every fragment, and for the first two tokenizers it is
 *   the text itself: with U+FFFD for what was ill-formed, and a blank for each U+2581. */
#define _GNU_SOURCE /* memmem */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/tokenizer.h"
#include "runtime/text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { BYTE_LEVEL, BLANK_MARKS, NORMALIZED, N_TOKENIZER };
enum { ALL_FLAGS = TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL };
enum { MAX_TEXT = 256 }; /* longer texts find nothing new, slowly */

#define ADDED(id, content, left, right, normalized, special)                                   \
    "{\"id\":" id ",\"content\":\"" content "\",\"single_word\":false,\"lstrip\":" left        \
    ",\"rstrip\":" right ",\"normalized\":" normalized ",\"special\":" special "}"

/* The two vocabularies with a token for each byte are written by build_file. */
static const char *const heads[] = {
    [BYTE_LEVEL] =
        "{\"added_tokens\":[" ADDED("300", "<s>", "false", "false", "false", "true") "," ADDED(
            "301", "tool", "false", "false", "true",
            "false") "],"
                     "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                     "\"Split\","
                     "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{"
                     "L}\\\\p{N}]?"
                     "\\\\p{L}+|\\\\p{N}{1,3}| "
                     "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"
                     "\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"
                     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"
                     ","
                     "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"merges\":[\"a b\",\"ab "
                     "c\",\"b c\","
                     "\"\\u0120 a\",\"\\u0120 \\u0120\",\"\\u00e4 "
                     "\\u00b8\"],\"vocab\":{\"ab\":256,"
                     "\"abc\":257,\"bc\":258,\"\\u0120a\":259,\"\\u0120\\u0120\":260,"
                     "\"\\u00e4\\u00b8\":261",
    [BLANK_MARKS] = "{\"added_tokens\":[" ADDED(
        "301", "</s>", "false", "false", "false",
        "true") "],"
                "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
                "\"prepend\":\"\\u2581\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
                "\"content\":\"\\u2581\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
                "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},\"content\":\" \"},"
                "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},"
                "\"model\":{\"byte_fallback\":true,\"merges\":[[\"\\u2581\",\"a\"],[\"a\","
                "\"b\"],"
                "[\"\\u2581a\",\"b\"],[\"\\u2581\",\"\\u2581\"]],\"vocab\":{\"\\u2581\":256,"
                "\"a\":257,"
                "\"b\":258,\"\\u2581a\":259,\"ab\":260,\"\\u2581ab\":261,\"\\u2581\\u2581\":"
                "262",
    [NORMALIZED] =
        "{\"added_tokens\":[" ADDED("20", "[X]", "true", "true", "true", "true") "," ADDED(
            "21", "Ab", "false", "false", "true",
            "false") "],"
                     "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
                     "\"NFKD\"},"
                     "{\"type\":\"StripAccents\"},{\"type\":\"NFKC\"},{\"type\":\"Lowercase\"},"
                     "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},{\"type\":"
                     "\"Replace\","
                     "\"pattern\":{\"Regex\":\"[\\\\p{L}&&[^a-z]]+\"},\"content\":\"b c\"}]},"
                     "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                     "\"Whitespace\"},"
                     "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":"
                     "\"Punctuation\","
                     "\"behavior\":\"MergedWithPrevious\"},{\"type\":\"Metaspace\","
                     "\"replacement\":\"_\","
                     "\"prepend_scheme\":\"first\"}]},\"decoder\":{\"type\":\"Sequence\","
                     "\"decoders\":["
                     "{\"type\":\"Strip\",\"content\":\"_\",\"start\":1,\"stop\":1},{\"type\":"
                     "\"Fuse\"},"
                     "{\"type\":\"Replace\",\"pattern\":{\"String\":\"aab\"},\"content\":\"b\"}"
                     "]},"
                     "\"model\":{\"unk_token\":\"u\",\"fuse_unk\":true,\"merges\":[\"a b\",\"_ "
                     "a\"],"
                     "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"_\":3,\"_a\":4,\"u\":5,\"c\":6",
};

static struct tokenizer *open_tokenizer(int kind)
{
    struct tokenizer *t = NULL;
    struct text file = {0};
    char token[32];
    bool ok = text_put(&file, heads[kind], strlen(heads[kind])) == PM_OK;
    for (int byte = 0; byte < 256 && kind != NORMALIZED; byte++) {
        char name[8];
        if (kind == BYTE_LEVEL) {
            name[utf8_write(name, byte_level_character((unsigned char)byte))] = 0;
        } else {
            snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        }
        snprintf(token, sizeof token, ",\"%s%s\":%d",
                 name[0] == '"' || name[0] == '\\' ? "\\" : "", name, byte);
        ok = ok && text_put(&file, token, strlen(token)) == PM_OK;
    }
    ok = ok && text_put(&file, "}}}", 3) == PM_OK;
    if (!ok || tokenizer_parse(&t, "head", file.byte, file.n) != PM_OK) {
        fprintf(stderr, "%s\n", pm_last_error());
        abort();
    }
    free(file.byte);
    return t;
}

/* The text of ids, read as a stream. */
static void decode(const struct tokenizer *t, const int32_t *id, size_t n_id, struct text *out)
{
    struct detokenizer *d = NULL;
    const char *part;
    size_t n;
    pm_status status = detokenizer_open(&d, t, false);
    for (size_t i = 0; i < n_id && status == PM_OK; i++) {
        status = detokenizer_add(d, id[i], &part, &n);
        if (status == PM_OK) assert(utf8_valid(part, n));
        if (status == PM_OK) status = text_put(out, part, n);
    }
    if (status == PM_OK) status = detokenizer_flush(d, &part, &n);
    if (status == PM_OK) status = text_put(out, part, n);
    assert(status == PM_OK || status == PM_ERR_TOO_LONG);
    detokenizer_close(d);
}

static void check_ids(const struct tokenizer *t, const int32_t *id, size_t n, bool plain)
{
    for (size_t i = 0; i < n; i++) {
        assert(id[i] >= 0 && id[i] < tokenizer_size(t));
        assert(!plain || !tokenizer_is_special(t, id[i]));
    }
}

static void check_text(int kind, const char *text, size_t n, const struct text *decoded)
{
    struct text wanted = {0};
    size_t skip = kind == BLANK_MARKS;
    if (kind == NORMALIZED) return;
    if (utf8_repair(&wanted, text, n, NULL) != PM_OK) abort();
    if (kind == BLANK_MARKS) {
        size_t k = 0;
        for (size_t i = 0; i < wanted.n; i++) {
            bool mark = wanted.n - i >= 3 && memcmp(wanted.byte + i, "\xe2\x96\x81", 3) == 0;
            wanted.byte[k++] = mark ? ' ' : wanted.byte[i];
            if (mark) i += 2;
        }
        wanted.n = k;
    }
    /* A blank stands before each section, and there are several with added tokens. */
    if (kind == BYTE_LEVEL || !memmem(wanted.byte ? wanted.byte : "", wanted.n, "</s>", 4)) {
        if (wanted.n == 0) skip = 0;
        assert(decoded->n == wanted.n + skip);
        assert(wanted.n == 0 || memcmp(decoded->byte + skip, wanted.byte, wanted.n) == 0);
    }
    free(wanted.byte);
}

static void run_text(const struct tokenizer *t, int kind, int flags, const char *text, size_t n)
{
    int32_t *id = NULL, *again = NULL;
    size_t capacity = 0, n_id = 0, capacity_again = 0, n_again = 0;
    struct text decoded = {0};
    if (tokenizer_encode(t, text, n, flags, &id, &capacity, &n_id) != PM_OK) abort();
    if (tokenizer_encode(t, text, n, flags, &again, &capacity_again, &n_again) != PM_OK)
        abort();
    assert(n_id == n_again && (n_id == 0 || memcmp(id, again, n_id * sizeof *id) == 0));
    check_ids(t, id, n_id, (flags & TOKENIZE_PARSE_SPECIAL) == 0);
    decode(t, id, n_id, &decoded);
    check_text(kind, text, n, &decoded);
    free(decoded.byte);
    free(again);
    free(id);
}

static void run_file(const uint8_t *data, size_t n)
{
    static const char *const texts[] = {"", " a", "aB c\xcc\x81 ab1,</s>X\n\n  \xe4\xb8\xad",
                                        "\xf0\x9f\x91\xa9\xe2\x80\x8d\xff\xc3 <s> _a 's"};
    struct tokenizer *t = NULL;
    int32_t *id = NULL;
    size_t capacity = 0, n_id = 0;
    if (tokenizer_parse(&t, "input", (const char *)data, n) != PM_OK) {
        assert(!t && strncmp(pm_last_error(), "input: ", 7) == 0);
        assert(!strchr(pm_last_error(), '\n'));
        return;
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (int flags = 0; flags <= ALL_FLAGS; flags += ALL_FLAGS) {
            size_t before = n_id;
            pm_status status =
                tokenizer_encode(t, texts[i], strlen(texts[i]), flags, &id, &capacity, &n_id);
            assert(status == PM_OK ? n_id >= before : n_id == before);
        }
    }
    for (int32_t one = -1; one < 8; one++) {
        const char *token = tokenizer_token(t, one);
        /* A content with a zero inside is longer than a C string can say. */
        if (token && tokenizer_id(t, token) >= 0) assert(one >= 0);
    }
    if (id) {
        struct text decoded = {0};
        decode(t, id, n_id, &decoded);
        free(decoded.byte);
    }
    free(id);
    tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct tokenizer *opened[N_TOKENIZER];
    int kind;
    if (n == 0) return 0;
    if (data[0] == '{') {
        run_file(data, n);
        return 0;
    }
    if (n > MAX_TEXT) n = MAX_TEXT;
    kind = data[0] % N_TOKENIZER;
    if (!opened[kind]) opened[kind] = open_tokenizer(kind);
    run_text(opened[kind], kind, data[0] / N_TOKENIZER % (ALL_FLAGS + 1),
             (const char *)data + 1, n - 1);
    return 0;
}
