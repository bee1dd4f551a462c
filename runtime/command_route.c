/* command_route.c - polymath route: the experts that a text visits, and polymath synth. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moe/synth.h"
#include "runtime/command.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/sequence.h"
#include "runtime/trace.h"

enum { MAX_TEXT = 1 << 28, BAR = 24 };

struct recording {
    struct trace *trace;
    const int32_t *id; /* [n_token] */
    uint32_t first;    /* token of the step's first row */
};

static void on_route(void *arg, int layer, int n_row, int top_k, const int32_t *id,
                     const float *weight)
{
    const struct recording *r = arg;
    (void)weight;
    trace_add(r->trace, layer, r->first, n_row, top_k, id);
}

/* Feeds the ids in windows of the context and records every token once. */
static pm_status record(struct model *m, void *arg)
{
    int context = model_limits(m)->context, batch = model_limits(m)->max_row;
    struct recording *r = arg;
    const int32_t *id = r->id;
    size_t n = r->trace->n_token;
    struct sequence s;
    pm_status status;
    TRY(sequence_open(&s, m));
    model_on_route(m, on_route, r);
    for (size_t i = 0; i < n;) {
        int part = (int)min_i64(batch, (int64_t)(n - i));
        if (s.n_past == context) sequence_rewind(&s, 0);
        part = (int)min_i64(part, context - s.n_past);
        r->first = (uint32_t)i;
        TRY_DONE(sequence_feed(&s, id + i, part, NULL, false));
        i += (size_t)part;
    }
    status = PM_OK;
done:
    model_on_route(m, NULL, NULL);
    sequence_close(&s);
    return status;
}

static void print_layer(const struct trace *t, uint32_t layer, double *load, bool bars)
{
    size_t n = (size_t)t->n_token * t->top_k;
    const uint16_t *id = t->id + (size_t)layer * n;
    double sum = 0, max = 0, min = 1;
    memset(load, 0, t->n_expert * sizeof *load);
    for (size_t i = 0; i < n; i++) {
        if (id[i] == TRACE_NONE) continue;
        load[id[i]]++;
        sum++;
    }
    for (uint32_t e = 0; e < t->n_expert; e++) {
        load[e] /= sum > 0 ? sum : 1;
        if (load[e] > max) max = load[e];
        if (load[e] < min) min = load[e];
    }
    printf("layer %-3u  least %5.2f %%  most %5.2f %%  even %5.2f %%\n", t->layer[layer],
           100 * min, 100 * max, 100.0 / t->n_expert);
    for (uint32_t e = 0; bars && e < t->n_expert; e++) {
        int length = max > 0 ? (int)(load[e] / max * BAR + 0.5) : 0;
        printf("  %3u %6.2f %% ", e, 100 * load[e]);
        for (int i = 0; i < length; i++) {
            fputs("\xe2\x96\x88", stdout);
        }
        putchar('\n');
    }
}

static pm_status route(const struct arguments *a, const char *out)
{
    pm_engine *e = NULL;
    char *text = NULL;
    int32_t *id = NULL;
    struct trace *t = NULL;
    double *load = NULL;
    size_t n, n_id = 0;
    pm_status status;
    TRY_DONE(pm_engine_open(&e, a->positional[0], a->options));
    TRY_DONE(read_file(&text, &n, a->n > 1 ? a->positional[1] : "-", MAX_TEXT));
    TRY_DONE(pm_tokenize(e, text, n, true, false, &id, &n_id));
    if (n_id == 0) {
        status = fail(PM_ERR_ARG, "the text has no tokens");
        goto done;
    }
    TRY_DONE(trace_new(&t, model_config(engine_model(e)), (uint32_t)n_id));
    struct recording r = {t, id, 0};
    TRY_DONE(engine_exclusive(e, record, &r));
    if (out) TRY_DONE(trace_write(t, out));
    TRY_DONE(alloc_array(&load, t->n_expert, sizeof *load, "load"));
    printf("%u tokens, %u layers, %u experts, %u per token\n", t->n_token, t->n_layer,
           t->n_expert, t->top_k);
    for (uint32_t l = 0; l < t->n_layer; l++) {
        print_layer(t, l, load, on_terminal(STDOUT_FILENO));
    }
done:
    free(load);
    free(text);
    free(id);
    trace_free(t);
    pm_engine_close(e);
    return status;
}

static int run_route(const struct command *self, int argc, char **argv)
{
    const char *out = NULL;
    const struct flag flags[] = {
        {.name = "output",
         .letter = 'o',
         .value = "TRACE",
         .help = "write the choices to a file",
         .text = &out},
        {.name = NULL},
    };
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = route(&a, out);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}

const struct command route_command = {
    .name = "route",
    .arguments = "MODEL [FILE]",
    .summary = "which experts a text visits, layer by layer",
    .about =
        "Runs a text through the model and records which experts each token chose. Prints the\n"
        "load of each layer (with bars on a terminal); -o writes a trace that the kernel\n"
        "benchmarks can replay. Its format is described in docs/formats.md.",
    .min_argument = 1,
    .max_argument = 2,
    .engine = true,
    .run = run_route,
};

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    fprintf(stderr, "\r%3.0f %% of %.2f GB",
            total ? 100.0 * (double)done / (double)total : 100.0, (double)total / 1e9);
    if (done == total) fputc('\n', stderr);
}

static int run_synth(const struct command *self, int argc, char **argv)
{
    enum { MAX_SET = 64 };
    const char *set[MAX_SET], *dtype = NULL, *shard = NULL;
    int n_set = 0;
    const struct flag flags[] = {
        {.name = "set",
         .value = "KEY=VALUE",
         .help = "a key of config.json; may be repeated",
         .list = set,
         .n_list = &n_set,
         .max_list = MAX_SET},
        {.name = "dtype",
         .value = "TYPE",
         .help = "f32, f16, bf16, fp8 or mxfp4 [bf16]",
         .text = &dtype},
        {.name = "shard-bytes",
         .value = "N",
         .help = "split the weights into files of about N bytes",
         .text = &shard},
        {.name = NULL},
    };
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        struct synth_options o = {.family = a.positional[0],
                                  .out = a.positional[1],
                                  .set = set,
                                  .n_set = n_set,
                                  .seed = a.options->seed,
                                  .dtype = dtype ? dtype : "bf16",
                                  .progress = on_terminal(STDERR_FILENO) ? on_progress : NULL};
        uint64_t bytes = 0;
        char text[32], *end = NULL;
        pm_status status = PM_OK;
        if (shard) o.shard_bytes = strtoull(shard, &end, 0);
        if (shard && (*end || !o.shard_bytes)) {
            status = fail(PM_ERR_ARG, "shard-bytes: found \"%s\", wanted a number", shard);
        }
        if (status == PM_OK) status = synth_write(&o, &bytes);
        if (status == PM_OK) {
            bytes_text(text, sizeof text, (double)bytes);
            printf("%s: %s\n", o.out, text);
        }
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}

const struct command synth_command = {
    .name = "synth",
    .arguments = "FAMILY OUT",
    .summary = "write a random checkpoint of any dimensions",
    .about =
        "Writes a random checkpoint of a model family to folder OUT, in the layout of "
        "released\n"
        "ones, for benchmarks and tests. FAMILY is a model_type such as qwen3_moe, or a\n"
        "released shape such as qwen3-30b-a3b. --set num_hidden_layers=4 changes a key of\n"
        "config.json; -s sets the seed.",
    .min_argument = 2,
    .max_argument = 2,
    .generation = true,
    .run = run_synth,
};
