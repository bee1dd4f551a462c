/* command_run.c - polymath run: a prompt, streamed text, and how fast it was. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moe/json.h"
#include "runtime/command.h"
#include "runtime/engine/engine.h"

enum { MAX_PROMPT = 64 << 20 };

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    if (interrupted) _exit(130); /* the second time, at once */
    interrupted = 1;
}

struct stream {
    bool json;
    struct json_out out; /* "tokens" of --json */
    char *text;          /* the whole completion, for --json */
    size_t n, capacity;
    pm_status status;
    int n_token;
};

static void put_token(struct stream *s, const pm_token *t)
{
    json_put(&s->out,
             "%s\n    {\"id\": %d, \"logprob\": %.6f, \"text\": ", s->n_token++ ? "," : "",
             t->id, t->logprob);
    json_put_string(&s->out, t->text, t->n_text);
    if (t->n_top) json_put(&s->out, ", \"top\": [");
    for (int i = 0; i < t->n_top; i++) {
        json_put(&s->out, "%s{\"id\": %d, \"logprob\": %.6f}", i ? ", " : "", t->top[i].id,
                 t->top[i].logprob);
    }
    json_put(&s->out, t->n_top ? "]}" : "}");
}

static bool on_token(void *arg, const pm_token *t)
{
    struct stream *s = arg;
    if (s->json) {
        if (t->id >= 0) put_token(s, t);
        s->status = grow_array(&s->text, &s->capacity, s->n + t->n_text + 1, 1);
        if (s->status != PM_OK) return false;
        memcpy(s->text + s->n, t->text, t->n_text);
        s->n += t->n_text;
    } else {
        fwrite(t->text, 1, t->n_text, stdout);
        if (fflush(stdout) != 0) return false; /* nobody reads any more */
    }
    return !interrupted;
}

/* Between steps of the prompt. */
static bool on_step(void *arg)
{
    (void)arg;
    return !interrupted;
}

static const char *finish_text(pm_finish f)
{
    static const char *const text[] = {"length", "eos", "stop", "interrupted", "deadline"};
    return text[f];
}

static double per_second(double n, int64_t us)
{
    return us > 0 ? n * 1e6 / (double)us : 0;
}

static void print_json(const struct stream *s, const pm_result *r, const char *prompt, size_t n)
{
    struct json_out o = {0};
    json_put(&o, "{\n  \"prompt\": ");
    json_put_string(&o, prompt, n);
    json_put(&o, ",\n  \"text\": ");
    json_put_string(&o, s->text ? s->text : "", s->n);
    json_put(&o, ",\n  \"finish\": \"%s\",\n  \"tokens\": [%s\n  ],\n", finish_text(r->finish),
             s->out.text ? s->out.text : "");
    json_put(&o, "  \"prompt_tokens\": %d, \"generated_tokens\": %d,\n", r->n_prompt,
             r->n_generated);
    json_put(&o,
             "  \"prompt_tokens_per_second\": %.2f, \"generated_tokens_per_second\": %.2f,\n"
             "  \"generated_gigabytes_per_second\": %.3f\n}\n",
             per_second(r->n_prompt, r->prompt_us),
             per_second(r->n_generated - 1, r->generate_us),
             per_second(r->generate_bytes, r->generate_us) / 1e9);
    fwrite(o.text, 1, o.n, stdout);
    free(o.text);
}

/* Two lines on stderr: the rates, and what share of the machine's read bandwidth they are. The
 * bandwidth is measured now, with the same threads, in a fraction of a second. */
static void print_rates(pm_engine *e, const pm_result *r)
{
    double gbs = per_second(r->generate_bytes, r->generate_us) / 1e9, read_gbs = 0;
    fprintf(stderr, "\n[prompt %d tokens, %.1f tokens/s; generated %d tokens, %.1f tokens/s",
            r->n_prompt, per_second(r->n_prompt, r->prompt_us), r->n_generated,
            per_second(r->n_generated - 1, r->generate_us));
    if (r->n_generated > 1 && gbs > 0 && !interrupted &&
        model_read_bandwidth(engine_model(e), &read_gbs) == PM_OK) {
        fprintf(stderr, ", %.1f GB/s of weights, %.0f %% of this machine's %.1f GB/s", gbs,
                100 * gbs / read_gbs, read_gbs);
    }
    fprintf(stderr, "; %s]\n", finish_text(r->finish));
}

/* Input-major expert weights are the one thing that opening copies: say what that took. */
static void print_cost(pm_engine *e)
{
    char text[32];
    uint64_t bytes = model_plan(engine_model(e))->transposed_bytes;
    if (bytes < 1 << 20) return;
    bytes_text(text, sizeof text, (double)bytes);
    fprintf(stderr, "[transposed %s of input-major expert weights into memory]\n", text);
}

/* The prompt from -p, the argument, -f or standard input, in this order. */
static pm_status take_prompt(char **out, size_t *n, const char *prompt, const char *argument,
                             const char *file)
{
    const char *text = prompt ? prompt : argument;
    if (!text) return read_file(out, n, file ? file : "-", MAX_PROMPT);
    *n = strlen(text);
    return copy_text(out, text, *n);
}

static pm_status generate(const struct arguments *a, const char *prompt, size_t n, bool as_json,
                          bool quiet)
{
    const struct pm_options *o = a->options;
    struct stream s = {.json = as_json};
    pm_engine *e = NULL;
    pm_params p;
    pm_result r;
    pm_status status;
    pm_params_init(&p);
    p.max_tokens = o->max_tokens;
    p.temperature = o->temperature;
    p.top_k = o->top_k;
    p.top_p = o->top_p;
    p.min_p = o->min_p;
    p.repeat_penalty = o->repeat_penalty;
    p.seed = o->seed;
    p.stop = (const char *const *)o->stop;
    p.n_stop = o->n_stop;
    p.n_logprob = o->logprobs;
    p.ignore_eos = o->ignore_eos;
    p.go_on = on_step;
    a->options->max_seqs = 1; /* memory for others would be wasted */
    TRY_DONE(pm_engine_open(&e, a->positional[0], o));
    if (!quiet) print_cost(e);
    if (!as_json && on_terminal(STDOUT_FILENO)) {
        fwrite(prompt, 1, n, stdout);
        fflush(stdout);
    }
    TRY_DONE(pm_generate(e, prompt, n, &p, on_token, &s, &r));
    TRY_DONE(s.status);
    if (as_json) {
        print_json(&s, &r, prompt, n);
    } else {
        putchar('\n');
        fflush(stdout);
        if (!quiet) print_rates(e, &r);
    }
done:
    free(s.out.text);
    free(s.text);
    pm_engine_close(e);
    return status;
}

static int run(const struct command *self, int argc, char **argv)
{
    const char *prompt = NULL, *file = NULL;
    bool as_json = false, quiet = false;
    const struct flag flags[] = {
        {.name = "prompt",
         .letter = 'p',
         .value = "TEXT",
         .help = "the prompt",
         .text = &prompt},
        {.name = "file",
         .letter = 'f',
         .value = "FILE",
         .help = "read the prompt from a file",
         .text = &file},
        {.name = "json", .help = "one JSON object with text, tokens and rates", .on = &as_json},
        {.name = "quiet", .letter = 'q', .help = "no rates on stderr", .on = &quiet},
        {.name = NULL},
    };
    struct arguments a;
    struct sigaction action = {.sa_handler = on_interrupt};
    char *text = NULL;
    size_t n = 0;
    pm_status status;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        sigaction(SIGINT, &action, NULL);
        signal(SIGPIPE, SIG_IGN);
        status = take_prompt(&text, &n, prompt, a.n > 1 ? a.positional[1] : NULL, file);
        if (status == PM_OK) status = generate(&a, text, n, as_json, quiet);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    free(text);
    arguments_free(&a);
    return code;
}

const struct command run_command = {
    .name = "run",
    .arguments = "MODEL [PROMPT]",
    .summary = "continue a prompt",
    .about =
        "Continues a prompt with the model in folder MODEL and streams the text to standard\n"
        "output. The prompt comes from -p, the second argument, -f or standard input.",
    .min_argument = 1,
    .max_argument = 2,
    .engine = true,
    .generation = true,
    .run = run,
};
