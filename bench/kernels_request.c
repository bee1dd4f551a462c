/* kernels_request.c - the flags of polymath bench kernels. */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/kernels.h"

enum { MAX_ROWS = 1 << 20, MAX_CONTEXT = 1 << 20, MAX_EXPERT = 4096 };

/* A list by commas. */
struct words {
    const char *text[KERNELS_MAX_LIST];
    size_t n_text[KERNELS_MAX_LIST];
    int n;
};

static pm_status cut_words(struct words *w, const char *flag, const char *text)
{
    w->n = 0;
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        if (n == 0 || w->n == KERNELS_MAX_LIST) {
            return fail(PM_ERR_ARG, "%s: found \"%s\", wanted up to %d values with commas",
                        flag, text, KERNELS_MAX_LIST);
        }
        w->text[w->n] = p;
        w->n_text[w->n++] = n;
        p += n;
        if (!*p) return PM_OK;
    }
}

static bool is_word(const struct words *w, int i, const char *word)
{
    return strlen(word) == w->n_text[i] && memcmp(w->text[i], word, w->n_text[i]) == 0;
}

static pm_status parse_number(int64_t *out, const char *flag, const char *text, size_t n,
                              int64_t max)
{
    char *end;
    long long v = strtoll(text, &end, 10);
    if (end != text + n || v < 1 || v > max) {
        return fail(PM_ERR_ARG, "%s: found \"%.*s\", wanted a number from 1 to %lld", flag,
                    (int)n, text, (long long)max);
    }
    *out = v;
    return PM_OK;
}

static pm_status parse_ops(struct kernels_request *q, const char *text)
{
    char known[256] = "";
    struct words w;
    if (strcmp(text, "all") == 0) {
        for (const struct kernel_op *op = kernel_ops; op->name; op++)
            q->op[q->n_op++] = op;
        return PM_OK;
    }
    TRY(cut_words(&w, "op", text));
    for (int i = 0; i < w.n; i++) {
        const struct kernel_op *op = kernel_ops;
        while (op->name && !is_word(&w, i, op->name)) {
            op++;
        }
        q->op[q->n_op++] = op;
        if (op->name) continue;
        for (op = kernel_ops; op->name; op++) {
            size_t n = strlen(known);
            snprintf(known + n, sizeof known - n, ", %s", op->name);
        }
        return fail(PM_ERR_ARG, "op: found \"%.*s\", wanted all%s", (int)w.n_text[i], w.text[i],
                    known);
    }
    return PM_OK;
}

static pm_status parse_types(struct kernels_request *q, const char *text)
{
    static const struct {
        const char *name;
        pm_dtype type;
    } known[] = {
        {"bf16", PM_BF16},   {"f16", PM_F16},     {"f32", PM_F32},
        {"fp8", PM_F8_E4M3}, {"mxfp4", PM_MXFP4},
    };
    enum { N = sizeof known / sizeof *known };
    struct words w;
    TRY(cut_words(&w, "type", text));
    for (int i = 0; i < w.n; i++) {
        int at = 0;
        while (at < N && !is_word(&w, i, known[at].name)) {
            at++;
        }
        if (at == N) {
            return fail(PM_ERR_ARG, "type: found \"%.*s\", wanted bf16, f16, f32, fp8 or mxfp4",
                        (int)w.n_text[i], w.text[i]);
        }
        q->type[q->n_type++] = known[at].type;
    }
    return PM_OK;
}

static pm_status parse_shapes(struct kernels_request *q, const char *text, const char *experts,
                              const char *top_k)
{
    struct words w;
    int64_t n = 0, k = 0;
    TRY(cut_words(&w, "shape", text));
    if (experts) TRY(parse_number(&n, "experts", experts, strlen(experts), MAX_EXPERT));
    if (top_k) TRY(parse_number(&k, "top-k", top_k, strlen(top_k), MAX_EXPERT));
    for (int i = 0; i < w.n; i++) {
        const struct shape *s;
        TRY(shapes_find(&s, w.text[i], w.n_text[i]));
        TRY(shapes_cut(&q->shape[q->n_shape++], s, (int)n, (int)k));
    }
    return PM_OK;
}

static pm_status parse_format(struct kernels_request *q, const char *text)
{
    static const char *const format[] = {"md", "csv", "json", "jsonl"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, format[i]) == 0) {
            q->format = (enum kernels_format)i;
            return PM_OK;
        }
    }
    return fail(PM_ERR_ARG, "output: found \"%s\", wanted md, csv, json or jsonl", text);
}

static pm_status parse_cache(struct kernels_request *q, const char *text)
{
    struct words w;
    TRY(cut_words(&w, "cache", text));
    for (int i = 0; i < w.n; i++) {
        bool cold = is_word(&w, i, "cold");
        if (i > 1 || (!cold && !is_word(&w, i, "hot"))) {
            return fail(PM_ERR_ARG, "cache: found \"%s\", wanted cold, hot or cold,hot", text);
        }
        q->cold[q->n_cache++] = cold;
    }
    return PM_OK;
}

static pm_status parse_baselines(struct kernels_request *q, const char *text)
{
    struct words w;
    if (!text) return PM_OK;
    TRY(cut_words(&w, "baseline", text));
    for (int i = 0; i < w.n; i++) {
        int before = q->n_baseline;
        for (const struct baseline *b = baselines; b->name; b++) {
            bool asked = is_word(&w, i, b->flag) || is_word(&w, i, b->name);
            if (asked && q->n_baseline < KERNELS_MAX_BASELINE) q->baseline[q->n_baseline++] = b;
        }
        if (q->n_baseline == before) {
            return fail(PM_ERR_ARG,
                        "baseline: found \"%s\", wanted loop, cublas, "
                        "cublas-loop or cublas-grouped",
                        text);
        }
    }
    return PM_OK;
}

/* What can be asked for, as tables. */
static void print_known(void)
{
    puts("| shape | D | F | E | K | heads | KV heads | head size |\n"
         "|---|---:|---:|---:|---:|---:|---:|---:|");
    for (const struct shape *s = shapes; s->name; s++) {
        printf("| %s | %d | %d | %d | %d | %d | %d | %d |\n", s->name, s->hidden, s->inner,
               s->gate.n_expert, s->gate.top_k, s->n_head, s->n_kv_head, s->head_dim);
    }
    puts("\n| op | computes |\n|---|---|");
    for (const struct kernel_op *op = kernel_ops; op->name; op++)
        printf("| %s | %s |\n", op->name, op->help);
}

struct flags {
    const char *shape, *op, *type, *routing, *rows, *experts, *top_k, *cached, *repeat, *output;
    const char *cache, *baseline;
    bool list;
};

static pm_status parse_request(struct kernels_request *q, const struct flags *f)
{
    struct words w;
    int64_t n;
    TRY(parse_shapes(q, f->shape, f->experts, f->top_k));
    TRY(parse_ops(q, f->op));
    TRY(parse_types(q, f->type));
    TRY(cut_words(&w, "rows", f->rows));
    for (int i = 0; i < w.n; i++) {
        TRY(parse_number(&q->n_row[q->n_rows++], "rows", w.text[i], w.n_text[i], MAX_ROWS));
    }
    TRY(parse_number(&n, "cached", f->cached, strlen(f->cached), MAX_CONTEXT));
    q->context = (int)n;
    TRY(parse_number(&n, "repeat", f->repeat, strlen(f->repeat), CLOCK_MAX_SAMPLE));
    q->repeat = (int)n;
    TRY(parse_format(q, f->output));
    TRY(parse_cache(q, f->cache));
    TRY(parse_baselines(q, f->baseline));
    TRY(cut_words(&w, "routing", f->routing));
    for (int i = 0; i < w.n; i++) {
        TRY(routing_parse(&q->routing[q->n_routing], w.text[i], w.n_text[i]));
        q->n_routing++;
    }
    return PM_OK;
}

int bench_kernels(const struct command *self, int argc, char **argv)
{
    struct flags f = {.shape = "qwen3-30b",
                      .op = "all",
                      .type = "bf16",
                      .routing = "uniform",
                      .rows = "1,16,512",
                      .cached = "1024",
                      .repeat = "10",
                      .cache = "cold",
                      .output = "md"};
    const struct flag flags[] = {
        {"shape", 's', "NAME,...", "layers of released models [qwen3-30b]", .text = &f.shape},
        {"op", 0, "NAME,...", "gate, permute, up, down, unpermute, layer, ... [all]",
         .text = &f.op},
        {"type", 0, "TYPE,...", "weights: bf16, f16, f32, fp8, mxfp4 [bf16]", .text = &f.type},
        {"routing", 0, "KIND,...", "uniform, zipf:1.0, one-hot, trace:FILE [uniform]",
         .text = &f.routing},
        {"rows", 'n', "N,...", "rows of a step, T [1,16,512]", .text = &f.rows},
        {"experts", 'e', "N", "take N experts, not all of the shape", .text = &f.experts},
        {"top-k", 'k', "N", "experts of a row, not those of the shape", .text = &f.top_k},
        {"cached", 0, "N", "tokens that a decoding row attends to [1024]", .text = &f.cached},
        {"cache", 0, "STATE,...",
         "cold: nothing of a sample is cached; hot: all that fits [cold]", .text = &f.cache},
        {"baseline", 0, "NAME,...",
         "beside up, down, layer: loop, cublas (opened when asked for)", .text = &f.baseline},
        {"list", 0, NULL, "print the shapes and operations there are", .on = &f.list},
        {"repeat", 'r', "N", "samples of a case [10]", .text = &f.repeat},
        {"output", 'o', "FORMAT", "md, csv, json or jsonl [md]", .text = &f.output},
        {.name = NULL},
    };
    struct kernels_request *q = NULL;
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0 && f.list) {
        print_known();
        code = EXIT_OK;
    } else if (code < 0) {
        pm_status status = alloc_array(&q, 1, sizeof *q, "request");
        if (status == PM_OK) status = parse_request(q, &f);
        if (status == PM_OK) q->progress = on_terminal(STDERR_FILENO);
        if (status == PM_OK) status = kernels_bench(q, a.options);
        code = status == PM_OK ? EXIT_OK : complain(status);
        for (int i = 0; q && i < q->n_routing; i++)
            routing_free(&q->routing[i]);
        free(q);
    }
    arguments_free(&a);
    return code;
}
