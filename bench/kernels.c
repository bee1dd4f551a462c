/* kernels.c - polymath bench kernels: operations of a layer on the shapes of released models.
 *
 * Every case is shape x operation x weight type x routing x rows; what an operation does not
 * depend on is not varied. Caches are cold: runs take turns on sets of memory (other experts,
 * other rows) that together are larger than twice the cache, where 64 sets are enough for
 * that; the column `cold` says whether they were, --warm keeps one set. Peaks are measured
 * before and after all cases and the better is taken. */
#define _DEFAULT_SOURCE
#include "bench/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"

enum { MAX_LIST = 32, MAX_ROWS = 1 << 20, MAX_CONTEXT = 1 << 20, MAX_EXPERT = 4096 };

struct words {
    const char *text[MAX_LIST];
    size_t n_text[MAX_LIST];
    int n;
};

struct request {
    struct shape shape[MAX_LIST];
    const struct kernel_op *op[MAX_LIST];
    pm_dtype type[MAX_LIST];
    struct routing_maker routing[MAX_LIST];
    int64_t n_row[MAX_LIST];
    int n_shape, n_op, n_type, n_routing, n_rows;
    int repeat, context;
    enum kernels_format format;
    bool progress, warm;
};

struct bench {
    const struct request *q;
    const struct kernels *k;
    struct device *d;
    double cache_bytes;
    struct expert_copies copies;
    struct kernels_report report;
};

/* ------------------------------------------------------------------ one case */

/* The last cache of a processor; GPUs of today have at most this. */
static double cache_size(const struct kernels *k)
{
    enum { GPU_CACHE = 128 << 20, CPU_CACHE = 32 << 20 };
    long bytes = 0;
    if (!k->host_memory) return GPU_CACHE;
#ifdef _SC_LEVEL3_CACHE_SIZE
    bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return bytes > 0 ? (double)bytes : CPU_CACHE;
}

static pm_status turn(void *arg, int64_t number)
{
    const struct kernel_case *c = ((void **)arg)[0];
    const struct kernel_op *op = ((void **)arg)[1];
    return op->run(c, &c->set[number % c->n_set]);
}

/* As many sets as leave nothing of the first in a cache when its turn comes again. */
static pm_status prepare(struct bench *b, struct kernel_case *c, const struct kernel_op *op,
                         struct kernels_row *row)
{
    double flops;
    TRY(op->prepare(c, &c->set[0], 0));
    c->n_active = c->set[0].n_active;
    op->work(c, &row->bytes, &flops);
    c->n_set = (int)fmin(fmax(ceil(2 * b->cache_bytes / row->bytes), 1), MAX_SET);
    for (int i = 1; i < c->n_set; i++) {
        TRY(op->prepare(c, &c->set[i], i));
        c->n_active += c->set[i].n_active;
    }
    c->n_active /= c->n_set;
    op->work(c, &row->bytes, &row->flops);
    row->cold = !b->q->warm && row->bytes * c->n_set >= 2 * b->cache_bytes;
    row->n_set = c->n_set;
    row->n_active = c->n_active;
    return PM_OK;
}

static int64_t widest(const struct shape *s)
{
    int64_t head = s->mla.latent ? s->mla.nope + s->mla.rope : s->head_dim;
    int64_t n = max_i64(max_i64(s->hidden, s->inner), s->n_head * head);
    return max_i64(n, max_i64(s->gate.n_expert, s->mla.latent + s->mla.rope));
}

static pm_status measure_case(struct bench *b, struct kernel_case *c,
                              const struct kernel_op *op)
{
    struct kernels_report *r = &b->report;
    int n_sample = b->q->repeat;
    void *arg[2] = {c, (void *)(uintptr_t)op};
    struct kernels_row row = {.op = op->name,
                              .type = c->type,
                              .by_type = op->by_type,
                              .by_routing = op->by_routing,
                              .experts = op->experts,
                              .n_row = c->n_row,
                              .n_expert = c->shape->gate.n_expert,
                              .top_k = c->shape->gate.top_k,
                              .n_sample = n_sample};
    snprintf(row.shape, sizeof row.shape, "%s", c->shape->name);
    if (op->by_routing) snprintf(row.routing, sizeof row.routing, "%s", c->routing->name);
    TRY(b->k->reserve(b->d, c->n_row * c->shape->gate.top_k, widest(c->shape),
                      max_i64(c->context, c->n_row)));
    TRY(prepare(b, c, op, &row));
    TRY(clock_measure(&row.time, b->k, b->d, turn, arg, n_sample, c->n_set));
    TRY(grow_array(&r->row, &r->capacity, r->n + 1, sizeof *r->row));
    r->row[r->n++] = row;
    return PM_OK;
}

static pm_status run_case(struct bench *b, const struct shape *s, const struct kernel_op *op,
                          pm_dtype type, const struct routing_maker *routing, int64_t n_row)
{
    bool wide = type == PM_F32 || type == PM_F16;
    struct kernel_case *c;
    pm_status status;
    if (b->q->progress) {
        fprintf(stderr, "\r\033[K%s %s %s, %lld rows", s->name, op->name, dtype_name(type),
                (long long)n_row);
    }
    TRY(alloc_array(&c, 1, sizeof *c, "case"));
    *c = (struct kernel_case){.k = b->k,
                              .d = b->d,
                              .shape = s,
                              .copies = &b->copies,
                              .routing = routing,
                              .type = type,
                              .narrow = wide ? PM_F32 : b->k->narrow,
                              .n_row = n_row,
                              .context = b->q->context,
                              .arena = {.k = b->k, .d = b->d}};
    status = measure_case(b, c, op);
    arena_free(&c->arena);
    free(c);
    return status == PM_OK ? status : fail_prefix(status, "%s %s", s->name, op->name);
}

/* ------------------------------------------------------------------ all cases */

static pm_status run_op(struct bench *b, const struct shape *s, const struct kernel_op *op,
                        pm_dtype type)
{
    const struct request *q = b->q;
    int n_routing = op->by_routing ? q->n_routing : 1;
    for (int r = 0; r < n_routing; r++) {
        for (int i = 0; i < q->n_rows; i++) {
            TRY(run_case(b, s, op, type, &q->routing[r], q->n_row[i]));
        }
    }
    return PM_OK;
}

static pm_status run_type(struct bench *b, const struct shape *s, int number)
{
    const struct request *q = b->q;
    pm_dtype type = q->type[number];
    bool experts = false;
    pm_status status = PM_OK;
    for (int i = 0; i < q->n_op; i++) {
        experts = experts || q->op[i]->experts;
    }
    if (experts) TRY(expert_copies_open(&b->copies, b->k, b->d, s, type, b->cache_bytes));
    for (int i = 0; i < q->n_op && status == PM_OK; i++) {
        if (number == 0 || q->op[i]->by_type) status = run_op(b, s, q->op[i], type);
    }
    expert_copies_close(&b->copies);
    return status;
}

static pm_status measure_peaks(struct bench *b)
{
    struct peaks now, *best = &b->report.peaks;
    TRY(b->k->measure(b->d, PEAK_ALL, &now));
    best->read_gbs = fmax(best->read_gbs, now.read_gbs);
    best->copy_gbs = fmax(best->copy_gbs, now.copy_gbs);
    best->f32_gflops = fmax(best->f32_gflops, now.f32_gflops);
    best->bf16_gflops = fmax(best->bf16_gflops, now.bf16_gflops);
    return PM_OK;
}

static pm_status bench(const struct request *q, const struct pm_options *o)
{
    struct bench b = {.q = q};
    int index;
    pm_status status;
    TRY_DONE(kernels_select(&b.k, &index, o->device));
    TRY_DONE(b.k->open(&b.d, index, o->threads));
    if (!q->warm) b.cache_bytes = cache_size(b.k);
    TRY_DONE(measure_peaks(&b));
    for (int s = 0; s < q->n_shape; s++) {
        for (int t = 0; t < q->n_type; t++)
            TRY_DONE(run_type(&b, &q->shape[s], t));
    }
    TRY_DONE(measure_peaks(&b));
    kernels_walls(&b.report, b.k->narrow);
    b.report.device = b.k->describe(b.d);
    if (q->progress) fputs("\r\033[K", stderr);
    kernels_print(&b.report, q->format);
done:
    if (b.d) b.k->close(b.d);
    free(b.report.row);
    return status;
}

/* ------------------------------------------------------------------ what is asked */

static pm_status cut_words(struct words *w, const char *flag, const char *text)
{
    w->n = 0;
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        if (n == 0 || w->n == MAX_LIST) {
            return fail(PM_ERR_ARG, "%s: found \"%s\", wanted up to %d values with commas",
                        flag, text, MAX_LIST);
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

static pm_status parse_ops(struct request *q, const char *text)
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

static pm_status parse_types(struct request *q, const char *text)
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

static pm_status parse_shapes(struct request *q, const char *text, const char *experts,
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

static pm_status parse_format(struct request *q, const char *text)
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

struct flags {
    const char *shape, *op, *type, *routing, *rows, *experts, *top_k, *cached, *repeat, *output;
    bool warm;
};

static pm_status parse_request(struct request *q, const struct flags *f)
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
        {"warm", 0, NULL, "repeat on the same memory: caches keep what fits", .on = &f.warm},
        {"repeat", 'r', "N", "samples of a case [10]", .text = &f.repeat},
        {"output", 'o', "FORMAT", "md, csv, json or jsonl [md]", .text = &f.output},
        {.name = NULL},
    };
    struct request *q = NULL;
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = alloc_array(&q, 1, sizeof *q, "request");
        if (status == PM_OK) status = parse_request(q, &f);
        if (status == PM_OK) q->warm = f.warm;
        if (status == PM_OK) q->progress = on_terminal(STDERR_FILENO);
        if (status == PM_OK) status = bench(q, a.options);
        code = status == PM_OK ? EXIT_OK : complain(status);
        for (int i = 0; q && i < q->n_routing; i++)
            routing_free(&q->routing[i]);
        free(q);
    }
    arguments_free(&a);
    return code;
}
