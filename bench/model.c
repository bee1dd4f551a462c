/* model.c - polymath bench model: prompt and generation speed, beside the speed of light.
 *
 * Habits of llama-bench: -p and -n give tests pp512 and tg128, -d puts tokens into the cache
 * first, -r repeats, lists by commas; tokenisation and sampling are not timed. Each test
 * runs once unmeasured, after all weights were brought into memory. Each repetition takes other
 * random tokens. The machine's peaks are measured before and after all tests with the same
 * threads, and the better is taken, so that shares cannot be flattered by a busy moment.
 *
 * Bytes are the weights that the test needs at least once per step, in their stored type, and
 * the cache that it reads; flops are two per multiply-add of the active parameters and the
 * attention, the output matrix once per step. The roof of a test is what its steps would take
 * if each needed no longer than its bytes at the measured bandwidth or its flops at the
 * measured peak, whichever is longer: no step can be faster, and few can do both at once. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/stats.h"
#include "moe/json.h"
#include "moe/synth.h"
#include "moe/weights.h"
#include "runtime/engine/sequence.h"

enum { MAX_LIST = 32, MAX_REPEAT = 1000 };

struct list {
    int value[MAX_LIST];
    int n;
};

enum format { FORMAT_MD, FORMAT_CSV, FORMAT_JSON, FORMAT_JSONL };

struct request {
    const char *model;
    const struct synth_options *synthetic; /* NULL: the checkpoint in folder `model` */
    struct list prompt, generate, depth;
    int repeat;
    enum format format;
    bool progress;
};

struct result {
    bool is_prompt;
    int n, depth, repeat;
    double mean, deviation; /* tokens/s */
    double gbs, gflops;     /* at the mean */
    double roof;            /* share of it that the mean reaches */
};

struct bench {
    const struct request *q;
    struct model *model;
    struct sequence s;
    int32_t *id;
    float *logits;
    uint64_t random;
    struct peaks peaks;
    double flops_peak; /* GFLOP/s in the weights' type */
    const char *flops_type;
    struct result *result;
    int n_result;
};

static pm_status parse_list(struct list *out, const char *name, const char *text, int min)
{
    const char *p = text;
    out->n = 0;
    while (*p) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || v < min || v > 1 << 24 || (*end && *end != ',') || out->n == MAX_LIST) {
            return fail(PM_ERR_ARG, "%s: found \"%s\", wanted up to %d numbers with commas",
                        name, text, MAX_LIST);
        }
        out->value[out->n++] = (int)v;
        p = *end ? end + 1 : end;
    }
    return PM_OK;
}

static void random_ids(struct bench *b, int n)
{
    uint64_t vocab = (uint64_t)model_config(b->model)->vocab;
    for (int i = 0; i < n; i++) {
        b->random = b->random * 6364136223846793005u + 1442695040888963407u;
        b->id[i] = (int32_t)((b->random >> 33) % vocab);
    }
}

static pm_status run_once(struct bench *b, bool is_prompt, int n, int depth, double *us)
{
    int64_t start;
    sequence_rewind(&b->s, depth);
    random_ids(b, n);
    start = now_us();
    if (is_prompt) {
        TRY(sequence_feed(&b->s, b->id, n, b->logits, false));
    } else {
        for (int i = 0; i < n; i++) {
            TRY(sequence_feed(&b->s, b->id + i, 1, b->logits, false));
        }
    }
    *us = (double)(now_us() - start);
    return PM_OK;
}

/* Weight and cache bytes, and flops, of a whole test, and the seconds that it takes at least
 * with the peaks so far. */
struct work {
    double bytes, flops, roof;
};

static struct work test_work(const struct bench *b, const struct result *r)
{
    const struct model *m = b->model;
    int step = r->is_prompt ? model_limits(m)->max_row : 1;
    double token = (double)model_plan(m)->kv_token_bytes;
    struct work w = {0, 0, 0};
    for (int i = 0; i < r->n; i += step) {
        int part = r->n - i < step ? r->n - i : step, kv = r->depth + i + part;
        double bytes = model_step_bytes(m, part) + token * kv;
        double flops = part * model_row_flops(m, kv - part / 2, false) +
                       2.0 * model_config(m)->vocab * model_config(m)->hidden;
        w.bytes += bytes;
        w.flops += flops;
        w.roof += fmax(bytes / b->peaks.read_gbs, flops / b->flops_peak) / 1e9;
    }
    return w;
}

static pm_status run_test(struct bench *b, bool is_prompt, int n, int depth)
{
    double rate[MAX_REPEAT], us;
    struct result *r = &b->result[b->n_result];
    sequence_rewind(&b->s, 0);
    random_ids(b, depth);
    if (depth) TRY(sequence_feed(&b->s, b->id, depth, NULL, false));
    TRY(run_once(b, is_prompt, n, depth, &us));
    for (int i = 0; i < b->q->repeat; i++) {
        if (b->q->progress) {
            fprintf(stderr, "\r%s%d at depth %d: %d of %d ", is_prompt ? "pp" : "tg", n, depth,
                    i + 1, b->q->repeat);
        }
        TRY(run_once(b, is_prompt, n, depth, &us));
        rate[i] = n * 1e6 / us;
    }
    if (b->q->progress) fputs("\r\033[K", stderr);
    *r = (struct result){.is_prompt = is_prompt,
                         .n = n,
                         .depth = depth,
                         .repeat = b->q->repeat,
                         .mean = stats_mean(rate, b->q->repeat),
                         .deviation = stats_deviation(rate, b->q->repeat)};
    b->n_result++;
    return PM_OK;
}

static pm_status measure_peaks(struct bench *b)
{
    struct peaks now;
    TRY(model_measure(b->model, &now));
    if (now.read_gbs > b->peaks.read_gbs) b->peaks.read_gbs = now.read_gbs;
    if (now.f32_gflops > b->peaks.f32_gflops) b->peaks.f32_gflops = now.f32_gflops;
    if (now.bf16_gflops > b->peaks.bf16_gflops) b->peaks.bf16_gflops = now.bf16_gflops;
    return PM_OK;
}

static void choose_peak(struct bench *b)
{
    pm_dtype type = model_weights(b->model)->layer[0].o.type;
    bool narrow = type != PM_F32 && type != PM_F16;
    b->flops_peak = narrow ? b->peaks.bf16_gflops : b->peaks.f32_gflops;
    b->flops_type = narrow ? "bf16" : "f32";
}

static pm_status run_tests(struct bench *b)
{
    const struct request *q = b->q;
    TRY(measure_peaks(b));
    for (int d = 0; d < q->depth.n; d++) {
        for (int i = 0; i < q->prompt.n; i++) {
            if (q->prompt.value[i])
                TRY(run_test(b, true, q->prompt.value[i], q->depth.value[d]));
        }
        for (int i = 0; i < q->generate.n; i++) {
            if (q->generate.value[i]) {
                TRY(run_test(b, false, q->generate.value[i], q->depth.value[d]));
            }
        }
    }
    TRY(measure_peaks(b));
    choose_peak(b);
    for (int i = 0; i < b->n_result; i++) {
        struct result *r = &b->result[i];
        struct work w = test_work(b, r);
        double per_second = r->mean / r->n;
        r->gbs = w.bytes * per_second / 1e9;
        r->gflops = w.flops * per_second / 1e9;
        r->roof = w.roof * per_second;
    }
    return PM_OK;
}

static void test_name(const struct result *r, char *out, size_t n)
{
    snprintf(out, n, r->depth ? "%s%d @ d%d" : "%s%d", r->is_prompt ? "pp" : "tg", r->n,
             r->depth);
}

static void print_md(const struct bench *b, const char *cpu)
{
    char name[32];
    printf("| model | device | test | tokens/s | GB/s | of read %.1f | GFLOP/s | of %s %.0f | "
           "of roof |\n"
           "|---|---|---|---:|---:|---:|---:|---:|---:|\n",
           b->peaks.read_gbs, b->flops_type, b->flops_peak);
    for (int i = 0; i < b->n_result; i++) {
        const struct result *r = &b->result[i];
        test_name(r, name, sizeof name);
        printf("| %s | %s | %s | %.2f ± %.2f | %.2f | %.0f %% | %.1f | %.0f %% | %.0f %% |\n",
               model_config(b->model)->model_type, model_device(b->model), name, r->mean,
               r->deviation, r->gbs, 100 * r->gbs / b->peaks.read_gbs, r->gflops,
               100 * r->gflops / b->flops_peak, 100 * r->roof);
    }
    printf("\n%s, commit %s\n", cpu, pm_commit());
}

static void put_row(struct json_out *o, const struct bench *b, const struct result *r,
                    const char *cpu)
{
    const struct config *c = model_config(b->model);
    double total, active;
    char name[32];
    config_parameters(c, &total, &active);
    test_name(r, name, sizeof name);
    json_put(o, "{\"commit\": \"%s\", \"cpu\": ", pm_commit());
    json_put_string(o, cpu, strlen(cpu));
    json_put(o, ", \"device\": \"%s\", \"model\": ", model_device(b->model));
    json_put_string(o, b->q->model, strlen(b->q->model));
    json_put(
        o,
        ", \"family\": \"%s\", \"parameters\": %.0f, \"active_parameters\": %.0f, "
        "\"test\": \"%s\", \"n\": %d, \"depth\": %d, \"repeat\": %d, "
        "\"tokens_per_second\": %.4f, \"deviation\": %.4f, \"gigabytes_per_second\": %.4f, "
        "\"share_of_read\": %.4f, \"gigaflops\": %.3f, \"share_of_flops\": %.4f, "
        "\"read_gigabytes_per_second\": %.4f, \"peak_type\": \"%s\", \"peak_gigaflops\": "
        "%.3f, \"share_of_roof\": %.4f}",
        c->model_type, total, active, name, r->n, r->depth, r->repeat, r->mean, r->deviation,
        r->gbs, r->gbs / b->peaks.read_gbs, r->gflops, r->gflops / b->flops_peak,
        b->peaks.read_gbs, b->flops_type, b->flops_peak, r->roof);
}

static void print_csv(const struct bench *b, const char *cpu)
{
    char name[32];
    puts("commit,cpu,device,model,test,n,depth,repeat,tokens_per_second,deviation,"
         "gigabytes_per_second,share_of_read,gigaflops,share_of_flops,"
         "read_gigabytes_per_second,peak_type,peak_gigaflops,share_of_roof");
    for (int i = 0; i < b->n_result; i++) {
        const struct result *r = &b->result[i];
        test_name(r, name, sizeof name);
        printf("%s,\"%s\",\"%s\",\"%s\",%s,%d,%d,%d,%.4f,%.4f,%.4f,%.4f,%.3f,%.4f,%.4f,%s,%.3f,"
               "%.4f\n",
               pm_commit(), cpu, model_device(b->model), b->q->model, name, r->n, r->depth,
               r->repeat, r->mean, r->deviation, r->gbs, r->gbs / b->peaks.read_gbs, r->gflops,
               r->gflops / b->flops_peak, b->peaks.read_gbs, b->flops_type, b->flops_peak,
               r->roof);
    }
}

static void print_results(const struct bench *b)
{
    char cpu[128];
    machine_name(cpu, sizeof cpu);
    if (b->q->format == FORMAT_MD) {
        print_md(b, cpu);
    } else if (b->q->format == FORMAT_CSV) {
        print_csv(b, cpu);
    } else {
        bool lines = b->q->format == FORMAT_JSONL;
        struct json_out o = {0};
        for (int i = 0; i < b->n_result; i++) {
            json_put(&o, "%s", lines ? "" : i ? ",\n  " : "[\n  ");
            put_row(&o, b, &b->result[i], cpu);
            if (lines) json_put(&o, "\n");
        }
        if (!lines) json_put(&o, b->n_result ? "\n]\n" : "[]\n");
        fwrite(o.text, 1, o.n, stdout);
        free(o.text);
    }
}

static int largest(const struct list *l)
{
    int max = 0;
    for (int i = 0; i < l->n; i++) {
        if (l->value[i] > max) max = l->value[i];
    }
    return max;
}

static pm_status bench(const struct request *q, const struct pm_options *o)
{
    struct bench b = {.q = q, .random = o->seed + 1};
    int longest = largest(&q->prompt) > largest(&q->generate) ? largest(&q->prompt)
                                                              : largest(&q->generate);
    struct model_options m = {.device = o->device,
                              .n_thread = o->threads,
                              .max_row = o->batch,
                              .context = o->context,
                              .kv_type = -1,
                              .synthetic = q->synthetic};
    size_t n_test = (size_t)q->depth.n * (size_t)(q->prompt.n + q->generate.n);
    pm_status status;
    if (!m.context) m.context = longest + largest(&q->depth);
    TRY_DONE(model_open(&b.model, q->model, &m));
    model_touch(b.model);
    TRY_DONE(sequence_open(&b.s, b.model));
    TRY_DONE(
        alloc_array(&b.id, (size_t)longest + (size_t)largest(&q->depth), sizeof *b.id, "ids"));
    TRY_DONE(alloc_array(&b.logits, (size_t)model_config(b.model)->vocab, sizeof *b.logits,
                         "logits"));
    TRY_DONE(alloc_array(&b.result, n_test, sizeof *b.result, "results"));
    TRY_DONE(run_tests(&b));
    print_results(&b);
done:
    free(b.id);
    free(b.logits);
    free(b.result);
    sequence_close(&b.s);
    model_close(b.model);
    return status;
}

static pm_status parse_request(struct request *q, const char *p, const char *n, const char *d,
                               const char *r, const char *o)
{
    static const char *const format[] = {"md", "csv", "json", "jsonl"};
    struct list repeat;
    TRY(parse_list(&q->prompt, "p", p, 0));
    TRY(parse_list(&q->generate, "n", n, 0));
    TRY(parse_list(&q->depth, "d", d, 0));
    TRY(parse_list(&repeat, "r", r, 1));
    if (repeat.n != 1 || repeat.value[0] > MAX_REPEAT) {
        return fail(PM_ERR_ARG, "r: found \"%s\", wanted 1 to %d", r, MAX_REPEAT);
    }
    q->repeat = repeat.value[0];
    for (int i = 0; i < 4; i++) {
        if (strcmp(o, format[i]) == 0) {
            q->format = (enum format)i;
            return PM_OK;
        }
    }
    return fail(PM_ERR_ARG, "output: found \"%s\", wanted md, csv, json or jsonl", o);
}

/* Which model: a folder, or a random one of these options, which is called `name`. */
static pm_status parse_model(struct request *q, const struct arguments *a,
                             const struct synth_options *synth, char name[96])
{
    if ((a->n == 1) == (synth->family != NULL)) {
        return fail(PM_ERR_ARG, "bench model: wanted a MODEL folder or --synthetic FAMILY");
    }
    if (!synth->family && (synth->n_set || synth->dtype)) {
        return fail(PM_ERR_ARG, "bench model: --set and --dtype go with --synthetic");
    }
    snprintf(name, 96, "synthetic %.80s", synth->family ? synth->family : "");
    q->model = synth->family ? name : a->positional[0];
    q->synthetic = synth->family ? synth : NULL;
    return PM_OK;
}

int bench_model(const struct command *self, int argc, char **argv)
{
    enum { MAX_SET = 64 };
    const char *set[MAX_SET];
    struct synth_options synth = {.set = set};
    char name[96];
    const char *p = "512", *n = "128", *d = "0", *r = "5", *o = "md";
    const struct flag flags[] = {
        {.name = "prompt",
         .letter = 'p',
         .value = "N,...",
         .help = "prompt tokens [512]",
         .text = &p},
        {.name = "generate",
         .letter = 'n',
         .value = "N,...",
         .help = "generated tokens [128]",
         .text = &n},
        {.name = "depth",
         .letter = 'd',
         .value = "N,...",
         .help = "tokens already in the cache [0]",
         .text = &d},
        {.name = "repeat", .letter = 'r', .value = "N", .help = "repetitions [5]", .text = &r},
        {.name = "output",
         .letter = 'o',
         .value = "FORMAT",
         .help = "md, csv, json or jsonl [md]",
         .text = &o},
        {.name = "synthetic",
         .value = "FAMILY",
         .help = "a random model made in memory, as polymath synth writes them",
         .text = &synth.family},
        {.name = "set",
         .value = "KEY=VALUE",
         .help = "a key of its config.json; may be repeated",
         .list = set,
         .n_list = &synth.n_set,
         .max_list = MAX_SET},
        {.name = "dtype",
         .value = "TYPE",
         .help = "its type: f32, f16, bf16, fp8 or mxfp4 [bf16]",
         .text = &synth.dtype},
        {.name = NULL},
    };
    struct request q = {.progress = on_terminal(STDERR_FILENO)};
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = parse_request(&q, p, n, d, r, o);
        if (status == PM_OK) status = parse_model(&q, &a, &synth, name);
        if (status == PM_OK) status = bench(&q, a.options);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}
