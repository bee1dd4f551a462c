/* serve.c - polymath bench serve: a server under load, from the outside.
 *
 * The flags are a table over struct serve_options. A preset sets the bounds that an MLPerf
 * inference task puts on the 99th percentiles of TTFT and TPOT. */
#define _POSIX_C_SOURCE 200809L
#include "bench/serve.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"

enum kind { TEXT, WHOLE, REAL, RANGE, SEED, SWITCH };

#define AT(f) offsetof(struct serve_options, f)

static const struct row {
    const char *name;
    char letter;
    enum kind kind;
    size_t offset;
    double min, max;
    const char *value, *help;
} rows[] = {
    {"url", 0, TEXT, AT(url), 0, 0, "URL", "the server [http://127.0.0.1:8000]"},
    {"endpoint", 0, TEXT, AT(endpoint), 0, 0, "NAME",
     "completions, chat, or any /PATH [completions]"},
    {"model", 0, TEXT, AT(model), 0, 0, "NAME", "[the first of /v1/models]"},
    {"api-key", 0, TEXT, AT(key), 0, 0, "KEY", "bearer token [$OPENAI_API_KEY]"},
    {"rate", 'r', TEXT, AT(rate), 0, 0, "X", "open loop: requests/s; inf: all at once"},
    {"burstiness", 0, REAL, AT(burstiness), 1e-3, 1e6, "X",
     "gamma shape of the gaps; 1 is Poisson, less bursts [1]"},
    {"ramp", 0, TEXT, AT(ramp), 0, 0, "A..B:S", "open loop: from A to B requests/s in S s"},
    {"concurrency", 'c', WHOLE, AT(concurrency), 1, 65536, "N",
     "closed loop: in flight; a bound on an open one [1]"},
    {"num-requests", 'n', WHOLE, AT(n_request), 1, 1 << 30, "N",
     "[100, a file's lines, or by --duration]"},
    {"duration", 'd', REAL, AT(duration_s), 1e-3, 1e7, "S", "send for S seconds"},
    {"warmup", 'w', WHOLE, AT(n_warmup), 0, 1 << 20, "N", "unmeasured requests before [0]"},
    {"timeout", 0, WHOLE, AT(timeout_s), 1, 86400, "S", "of one request [600]"},
    {"seed", 's', SEED, AT(seed), 0, 0, "N", "of the workload and the arrivals [0]"},
    {"workload", 0, TEXT, AT(workload), 0, 0, "KIND",
     "random, shared-prefix, file:JSONL [random]"},
    {"prompt", 0, TEXT, AT(prompt), 0, 0, "KIND", "ids or text; chat is always text [ids]"},
    {"input-len", 0, RANGE, AT(input), 1, 1 << 24, "N|A..B", "tokens or words [128]"},
    {"output-len", 0, RANGE, AT(output_len), 1, 1 << 24, "N|A..B", "max_tokens [64]"},
    {"prefix-len", 0, WHOLE, AT(prefix_len), 1, 1 << 24, "N",
     "shared-prefix: tokens in front [256]"},
    {"num-prefixes", 0, WHOLE, AT(n_prefix), 1, 1 << 24, "N",
     "shared-prefix: how many differ [4]"},
    {"ids", 0, RANGE, AT(id), 0, 1 << 24, "A..B", "ids are drawn from these [256..999]"},
    {"temperature", 0, REAL, AT(temperature), 0, 100, "X", "[0]"},
    {"ignore-eos", 0, SWITCH, AT(ignore_eos), 0, 0, "",
     "fixed output lengths, where the server knows ignore_eos"},
    {"extra-body", 0, TEXT, AT(extra_body), 0, 0, "JSON",
     "members added to each request; a /PATH's body"},
    {"goodput", 0, TEXT, AT(goodput), 0, 0, "BOUNDS", "ttft:MS,tpot:MS,e2el:MS"},
    {"preset", 0, TEXT, AT(preset), 0, 0, "NAME", "an MLPerf task's bounds; help lists them"},
    {"output", 'o', TEXT, AT(output), 0, 0, "FORMAT", "table or json [table]"},
    {"save", 0, TEXT, AT(save), 0, 0, "FILE", "write the JSON there too"},
    {"detail", 0, SWITCH, AT(detail), 0, 0, "", "JSON with the times of each request"},
};
enum { N_ROW = sizeof rows / sizeof *rows };

/* MLPerf inference, loadgen's mlperf.conf: bounds in ms of the Server and Interactive
 * scenarios. */
static const struct preset {
    const char *name;
    struct serve_bounds bounds;
} presets[] = {
    {"mixtral-8x7b", {2000, 200, 0}},
    {"deepseek-r1", {2000, 80, 0}},
    {"deepseek-r1-interactive", {1500, 15, 0}},
    {"gpt-oss-120b", {3000, 80, 0}},
    {"gpt-oss-120b-interactive", {2000, 15, 0}},
};
enum { N_PRESET = sizeof presets / sizeof *presets };

/* ---- values */

/* A plain decimal number that fills the text up to end. */
static bool read_real(double *out, const char *text, const char *end)
{
    char copy[32], *stop;
    size_t n = (size_t)(end - text);
    double x;
    if (n == 0 || n >= sizeof copy || strspn(text, "0123456789.") < n) return false;
    memcpy(copy, text, n);
    copy[n] = 0;
    x = strtod(copy, &stop);
    if (*stop) return false;
    *out = x;
    return true;
}

static bool read_whole(int *out, const char *text, const char *end, double min, double max)
{
    double x;
    if (!read_real(&x, text, end) || strspn(text, "0123456789") < (size_t)(end - text) ||
        x < min || x > max) {
        return false;
    }
    *out = (int)x;
    return true;
}

static pm_status wrong(const struct row *row, const char *value)
{
    return fail(PM_ERR_ARG, "%s: found \"%s\", wanted %s from %.10g to %.10g", row->name, value,
                row->kind == REAL ? "a number" : "a whole number", row->min, row->max);
}

static pm_status set_range(struct range *out, const struct row *row, const char *value)
{
    const char *dots = strstr(value, ".."), *end = value + strlen(value);
    struct range r;
    if (!read_whole(&r.lo, value, dots ? dots : end, row->min, row->max)) {
        return wrong(row, value);
    }
    r.hi = r.lo;
    if (dots && !read_whole(&r.hi, dots + 2, end, r.lo, row->max)) return wrong(row, value);
    *out = r;
    return PM_OK;
}

static pm_status set_value(struct serve_options *o, const struct row *row, const char *value)
{
    char *field = (char *)o + row->offset;
    const char *end = value + strlen(value);
    double x;
    switch (row->kind) {
    case WHOLE:
        return read_whole((int *)(void *)field, value, end, row->min, row->max)
                   ? PM_OK
                   : wrong(row, value);
    case REAL:
        if (!read_real(&x, value, end) || x < row->min || x > row->max) {
            return wrong(row, value);
        }
        *(double *)(void *)field = x;
        return PM_OK;
    case SEED:
        errno = 0;
        *(uint64_t *)(void *)field = strtoull(value, NULL, 10);
        if (!*value || value[strspn(value, "0123456789")] || errno) {
            return fail(PM_ERR_ARG, "%s: found \"%s\", wanted a whole number", row->name,
                        value);
        }
        return PM_OK;
    case RANGE: return set_range((struct range *)(void *)field, row, value);
    default: *(const char **)(void *)field = value; return PM_OK;
    }
}

/* ---- what texts mean */

static pm_status read_load(struct serve_options *o)
{
    const char *dots = o->ramp ? strstr(o->ramp, "..") : NULL;
    const char *colon = dots ? strchr(dots, ':') : NULL;
    o->open_loop = o->rate || o->ramp;
    if (o->ramp) {
        bool ok = colon && read_real(&o->requests_per_s, o->ramp, dots) &&
                  read_real(&o->ramp_to, dots + 2, colon) &&
                  read_real(&o->ramp_s, colon + 1, o->ramp + strlen(o->ramp));
        if (!ok || o->rate || !(o->ramp_to > 0) || !(o->ramp_s > 0)) {
            return fail(PM_ERR_ARG,
                        "ramp: found \"%s\", wanted FROM..TO:SECONDS, and no --rate", o->ramp);
        }
    } else if (o->rate && strcmp(o->rate, "inf") == 0) {
        o->at_once = true;
    } else if (o->rate && (!read_real(&o->requests_per_s, o->rate, o->rate + strlen(o->rate)) ||
                           !(o->requests_per_s > 0))) {
        return fail(PM_ERR_ARG, "rate: found \"%s\", wanted requests/s or inf", o->rate);
    }
    if (!o->open_loop && !o->concurrency) o->concurrency = 1;
    return PM_OK;
}

static pm_status read_preset(struct serve_options *o)
{
    if (!o->preset) return PM_OK;
    for (int i = 0; i < N_PRESET; i++) {
        if (strcmp(o->preset, presets[i].name) == 0) {
            o->bounds = presets[i].bounds;
            return PM_OK;
        }
    }
    return fail(PM_ERR_ARG,
                "preset: found \"%s\", wanted mixtral-8x7b, deepseek-r1, "
                "deepseek-r1-interactive, gpt-oss-120b or gpt-oss-120b-interactive",
                o->preset);
}

/* "ttft:200,tpot:50"; blanks separate too. */
static pm_status read_goodput(struct serve_options *o)
{
    const char *p = o->goodput ? o->goodput : "";
    while (*p) {
        size_t n = strcspn(p, ", ");
        const char *end = p + n, *value = memchr(p, ':', n);
        double *bound = !value                    ? NULL
                        : !strncmp(p, "ttft:", 5) ? &o->bounds.ttft
                        : !strncmp(p, "tpot:", 5) ? &o->bounds.tpot
                        : !strncmp(p, "e2el:", 5) ? &o->bounds.e2el
                                                  : NULL;
        if (!bound || !read_real(bound, value + 1, end) || !(*bound > 0)) {
            return fail(PM_ERR_ARG, "goodput: found \"%s\", wanted ttft:MS,tpot:MS,e2el:MS",
                        o->goodput);
        }
        p = end + strspn(end, ", ");
    }
    return PM_OK;
}

/* The members of --extra-body, without the braces, in *inside. */
static pm_status read_extra(struct serve_options *o, char **inside)
{
    struct json_doc *doc;
    const char *open;
    pm_status status;
    if (!o->extra_body) return PM_OK;
    TRY(json_parse(&doc, "extra-body", o->extra_body, strlen(o->extra_body)));
    status =
        json_is_object(json_root(doc)) ? PM_OK : json_fail(doc, json_root(doc), "an object");
    bool empty = status == PM_OK && json_size(json_root(doc)) == 0;
    json_free(doc);
    if (status != PM_OK) return fail(PM_ERR_ARG, "extra-body: wanted a JSON object");
    open = strchr(o->extra_body, '{') + 1;
    TRY(copy_text(inside, open, (size_t)(strrchr(open, '}') - open)));
    o->extra_body = empty ? NULL : *inside;
    return PM_OK;
}

static pm_status one_of(const char *name, const char *value, const char *a, const char *b)
{
    if (strcmp(value, a) == 0 || strcmp(value, b) == 0) return PM_OK;
    return fail(PM_ERR_ARG, "%s: found \"%s\", wanted %s or %s", name, value, a, b);
}

static pm_status read_options(struct serve_options *o, const char *const *text, char **extra)
{
    for (int i = 0; i < N_ROW; i++) {
        if (rows[i].kind != SWITCH && text[i]) TRY(set_value(o, &rows[i], text[i]));
    }
    o->plain = *o->endpoint == '/';
    if (!o->plain) TRY(one_of("endpoint", o->endpoint, "completions", "chat"));
    TRY(one_of("prompt", o->prompt, "ids", "text"));
    TRY(one_of("output", o->output, "table", "json"));
    o->chat = strcmp(o->endpoint, "chat") == 0;
    if (!o->key) o->key = getenv("OPENAI_API_KEY");
    TRY(read_load(o));
    TRY(read_preset(o));
    TRY(read_goodput(o));
    return read_extra(o, extra);
}

/* ---- the command */

/* The command line as it could be typed again, without the key. */
static void put_command(struct json_out *out, int argc, char **argv)
{
    json_put(out, "polymath bench");
    for (int i = 0; i < argc; i++) {
        bool plain = argv[i][strcspn(argv[i], " \"'{}$*?|&;<>()\\")] == 0 && *argv[i];
        bool secret = i > 0 && strcmp(argv[i - 1], "--api-key") == 0;
        if (strncmp(argv[i], "--api-key=", 10) == 0) {
            json_put(out, " --api-key=...");
        } else {
            json_put(out, plain ? " %s" : " '%s'", secret ? "..." : argv[i]);
        }
    }
}

static pm_status save(const char *path, const struct json_out *text)
{
    FILE *f = fopen(path, "w");
    bool ok = f && fwrite(text->text, 1, text->n, f) == text->n;
    if (f && fclose(f) != 0) ok = false;
    return ok ? PM_OK : fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
}

static pm_status show(const struct serve_run *run, const struct serve_options *o, int argc,
                      char **argv)
{
    struct json_out result = {0}, command = {0};
    struct serve_report r;
    pm_status status;
    TRY(serve_report(&r, run, &o->bounds));
    put_command(&command, argc, argv);
    TRY_DONE(command.status);
    TRY_DONE(serve_print_json(&result, &r, run, o, command.text));
    if (strcmp(o->output, "json") == 0) {
        fwrite(result.text, 1, result.n, stdout);
    } else {
        serve_print_table(&r, run, o);
    }
    if (o->save) TRY_DONE(save(o->save, &result));
    if (r.completed == 0 && run->n) {
        status = fail(PM_ERR_IO, "%s: all %zu requests failed, the first kind is: %s", o->url,
                      run->n, r.error[0].text);
    }
done:
    free(result.text);
    free(command.text);
    return status;
}

static pm_status serve(struct serve_options *o, const char *const *text, int argc, char **argv)
{
    struct serve_run run = {.prefix_queries = -1, .prefix_hits = -1};
    char *extra = NULL;
    pm_status status = read_options(o, text, &extra);
    if (status == PM_OK) status = serve_run(&run, o);
    if (status == PM_OK) status = show(&run, o, argc, argv);
    serve_run_free(&run);
    free(extra);
    return status;
}

int bench_serve(const struct command *self, int argc, char **argv)
{
    struct serve_options o = {.url = "http://127.0.0.1:8000",
                              .endpoint = "completions",
                              .workload = "random",
                              .prompt = "ids",
                              .output = "table",
                              .burstiness = 1,
                              .timeout_s = 600,
                              .input = {128, 128},
                              .output_len = {64, 64},
                              .id = {256, 999},
                              .prefix_len = 256,
                              .n_prefix = 4,
                              .show_progress = on_terminal(STDERR_FILENO)};
    struct flag flags[N_ROW + 1] = {0};
    const char *text[N_ROW] = {0};
    struct arguments a;
    int code;
    for (int i = 0; i < N_ROW; i++) {
        flags[i] = (struct flag){.name = rows[i].name,
                                 .letter = rows[i].letter,
                                 .value = rows[i].value,
                                 .help = rows[i].help};
        if (rows[i].kind == SWITCH) {
            flags[i].on = (bool *)((char *)&o + rows[i].offset);
        } else {
            flags[i].text = &text[i];
        }
    }
    code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = serve(&o, text, argc, argv);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}
