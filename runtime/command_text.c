/* command_text.c - polymath tokenize and polymath score. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/command.h"
#include "runtime/engine/engine.h"

enum { MAX_TEXT = 1 << 30 };

static pm_status print_tokens(const char *model, const char *text, size_t n, bool plain)
{
    char path[4096];
    struct tokenizer *t = NULL;
    int32_t *id = NULL;
    size_t capacity = 0, n_id = 0;
    pm_status status;
    snprintf(path, sizeof path, "%s/tokenizer.json", model);
    TRY_DONE(tokenizer_open(&t, path));
    TRY_DONE(tokenizer_encode(t, text, n, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &id,
                              &capacity, &n_id));
    for (size_t i = 0; i < n_id; i++) {
        const char *token = tokenizer_token(t, id[i]);
        if (plain) {
            printf("%s%d", i ? " " : "", id[i]);
        } else {
            printf("%8d  %s\n", id[i], token ? token : "");
        }
    }
    if (plain) putchar('\n');
done:
    free(id);
    tokenizer_close(t);
    return status;
}

static int run_tokenize(const struct command *self, int argc, char **argv)
{
    const char *file = NULL;
    bool plain = false;
    const struct flag flags[] = {
        {.name = "file",
         .letter = 'f',
         .value = "FILE",
         .help = "read the text from a file",
         .text = &file},
        {.name = "ids", .help = "only the ids, on one line", .on = &plain},
        {.name = NULL},
    };
    struct arguments a;
    char *text = NULL;
    size_t n;
    pm_status status;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        if (a.n > 1) {
            n = strlen(a.positional[1]);
            status = copy_text(&text, a.positional[1], n);
        } else {
            status = read_file(&text, &n, file ? file : "-", MAX_TEXT);
        }
        if (status == PM_OK) status = print_tokens(a.positional[0], text, n, plain);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    free(text);
    arguments_free(&a);
    return code;
}

const struct command tokenize_command = {
    .name = "tokenize",
    .arguments = "MODEL [TEXT]",
    .summary = "text to token ids",
    .about =
        "Prints the token ids of a text as the tokenizer.json in folder MODEL gives them. The\n"
        "text comes from the second argument, -f or standard input.",
    .min_argument = 1,
    .max_argument = 2,
    .run = run_tokenize,
};

static pm_status parse_ids(int32_t **out, size_t *n, const char *text)
{
    int32_t *id = NULL;
    size_t capacity = 0, count = 0;
    const char *p = text + strspn(text, " ,\t\n");
    while (*p) {
        char *end;
        long v = strtol(p, &end, 10);
        pm_status status = PM_OK;
        if (end == p || v < 0 || v > INT32_MAX) {
            status = fail(PM_ERR_ARG, "ids: found \"%.20s\", wanted token ids", p);
        } else {
            status = grow_array(&id, &capacity, count + 1, sizeof *id);
        }
        if (status != PM_OK) {
            free(id);
            return status;
        }
        id[count++] = (int32_t)v;
        p = end + strspn(end, " ,\t\n");
    }
    *out = id;
    *n = count;
    return PM_OK;
}

/* A NumPy file of format 1.0: float32, C order. */
static pm_status write_npy(const char *path, const float *data, size_t rows, size_t cols)
{
    char header[128];
    FILE *f = fopen(path, "wb");
    int n =
        snprintf(header, sizeof header,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", rows, cols);
    int padded = (10 + n + 1 + 63) / 64 * 64 - 10;
    unsigned char start[10] = {0x93,
                               'N',
                               'U',
                               'M',
                               'P',
                               'Y',
                               1,
                               0,
                               (unsigned char)(padded & 255),
                               (unsigned char)(padded >> 8)};
    bool good;
    if (!f) return fail(PM_ERR_IO, "%s: cannot be written", path);
    good = fwrite(start, 1, sizeof start, f) == sizeof start &&
           fprintf(f, "%-*s\n", padded - 1, header) == padded &&
           fwrite(data, sizeof *data, rows * cols, f) == rows * cols;
    good = fclose(f) == 0 && good;
    return good ? PM_OK : fail(PM_ERR_IO, "%s: cannot be written", path);
}

struct score_request {
    const char *ids, *logits;
    bool each, json;
};

static void print_scores(const struct score_request *q, const int32_t *id, size_t n_id,
                         const float *logprob, size_t n_byte)
{
    double sum = 0, bits;
    for (size_t i = 0; i + 1 < n_id; i++) {
        sum += logprob[i];
        if (q->each) printf("%d %.6f\n", id[i + 1], logprob[i]);
    }
    bits = -sum / log(2);
    if (q->json) {
        printf("{\"tokens\": %zu, \"log_probability\": %.6f, \"perplexity\": %.6f", n_id, sum,
               exp(-sum / (double)(n_id - 1)));
        if (n_byte)
            printf(", \"bytes\": %zu, \"bits_per_byte\": %.6f", n_byte, bits / (double)n_byte);
        puts("}");
        return;
    }
    printf("tokens: %zu\nlog-probability: %.6f\nperplexity: %.6f\n", n_id, sum,
           exp(-sum / (double)(n_id - 1)));
    if (n_byte) printf("bits per byte: %.6f\n", bits / (double)n_byte);
}

/* Text begins after the model's end or beginning token, so that its first token counts. */
static pm_status text_ids(pm_engine *e, int32_t **id, size_t *n_id, const char *text, size_t n)
{
    const struct config *c = model_config(engine_model(e));
    int32_t first = c->bos >= 0 ? c->bos : c->n_eos ? c->eos[0] : -1;
    int32_t *all;
    TRY(pm_tokenize(e, text, n, true, false, id, n_id));
    if (first < 0 || (*n_id > 0 && (*id)[0] == first)) return PM_OK;
    all = malloc((*n_id + 1) * sizeof *all);
    if (!all) return fail(PM_ERR_NOMEM, "no memory for %zu tokens", *n_id + 1);
    all[0] = first;
    if (*n_id) memcpy(all + 1, *id, *n_id * sizeof *all);
    free(*id);
    *id = all;
    ++*n_id;
    return PM_OK;
}

static pm_status score(const struct arguments *a, const struct score_request *q)
{
    pm_engine *e = NULL;
    char *text = NULL;
    int32_t *id = NULL;
    float *logprob = NULL, *logits = NULL;
    size_t n = 0, n_id = 0, vocab;
    pm_status status;
    TRY_DONE(pm_engine_open(&e, a->positional[0], a->options));
    if (q->ids) {
        TRY_DONE(parse_ids(&id, &n_id, q->ids));
    } else {
        TRY_DONE(read_file(&text, &n, a->n > 1 ? a->positional[1] : "-", MAX_TEXT));
        TRY_DONE(text_ids(e, &id, &n_id, text, n));
    }
    if (n_id < 1) {
        status = fail(PM_ERR_ARG, "there are no tokens to score");
        goto done;
    }
    vocab = (size_t)model_config(engine_model(e))->vocab;
    TRY_DONE(alloc_array(&logprob, n_id, sizeof *logprob, "log-probabilities"));
    if (q->logits) TRY_DONE(alloc_array(&logits, n_id * vocab, sizeof *logits, "logits"));
    TRY_DONE(pm_score(e, id, n_id, logprob, logits));
    if (q->logits) TRY_DONE(write_npy(q->logits, logits, n_id, vocab));
    print_scores(q, id, n_id, logprob, n);
done:
    free(text);
    free(id);
    free(logprob);
    free(logits);
    pm_engine_close(e);
    return status;
}

static int run_score(const struct command *self, int argc, char **argv)
{
    struct score_request q = {0};
    const struct flag flags[] = {
        {.name = "ids",
         .value = "\"1 2 3\"",
         .help = "score these token ids in place of a text",
         .text = &q.ids},
        {.name = "logits",
         .value = "OUT.npy",
         .help = "write all logits, float32 [n, vocabulary]",
         .text = &q.logits},
        {.name = "tokens", .help = "print each token's id and log-probability", .on = &q.each},
        {.name = "json", .help = "one JSON object", .on = &q.json},
        {.name = NULL},
    };
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = score(&a, &q);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}

const struct command score_command = {
    .name = "score",
    .arguments = "MODEL [FILE]",
    .summary = "log-probability, perplexity and bits per byte of a text",
    .about =
        "Scores every token of a text given all tokens before it. The text comes from FILE or\n"
        "standard input and is read as following the model's beginning- or end-of-text token.\n"
        "A text longer than the context is scored in windows that overlap by half.",
    .min_argument = 1,
    .max_argument = 2,
    .engine = true,
    .run = run_score,
};
