/* command.c - polymath bench: the machine's peaks, operations, models, servers, and tables. */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/stats.h"
#include "kernels/kernels.h"

static const struct command model_command = {
    .name = "bench model",
    .summary = "prompt and generation speed of a model",
    .arguments = "[MODEL]",
    .about =
        "Measures prompt processing (pp) and generation (tg) of the model in folder MODEL, "
        "with\n"
        "the share of the machine's measured peaks. Lists take commas: -p 128,512 -d 0,4096.\n"
        "Instead of a folder, --synthetic qwen3-30b-a3b makes a random model in the device's "
        "memory.",
    .min_argument = 0,
    .max_argument = 1,
    .engine = true,
    .run = bench_model,
};

static const struct command batch_command = {
    .name = "bench batch",
    .summary = "requests that run at once, through the scheduler",
    .arguments = "MODEL",
    .about = "Measures how many tokens the model in folder MODEL gives to requests that run at "
             "once,\nthrough the scheduler: rates, time to the first token and between tokens.",
    .min_argument = 1,
    .max_argument = 1,
    .engine = true,
    .run = bench_batch,
};

static const struct command schedule_command = {
    .name = "bench schedule",
    .summary = "the scheduler under a load, in simulated time",
    .arguments = "",
    .about =
        "Serves arrivals with the engine's scheduler in simulated time: no model, a step "
        "takes what\n--cost says. For the choice of --max-seqs, --kv-tokens, --batch and the "
        "queue's bounds.",
    .engine = true,
    .run = bench_schedule,
};

static const struct command kernels_command = {
    .name = "bench kernels",
    .summary = "operations of a layer beside the roofline",
    .arguments = "",
    .about =
        "Measures the operations of a layer on shapes of released models, with caches cold, "
        "beside\n"
        "what the measured peaks allow. Lists take commas, for example:\n"
        "  polymath bench kernels --shape qwen3-30b,olmoe --op up,down,layer -n 1,64 -o json",
    .engine = true,
    .run = bench_kernels,
};

static const struct command peaks_command = {
    .name = "bench peaks",
    .summary = "this machine's bandwidth and multiply-add rates",
    .arguments = "",
    .about = "Measures read and copy bandwidth and the multiply-add rates of this machine.",
    .engine = true,
    .run = bench_peaks,
};

static const struct command report_command = {
    .name = "bench report",
    .summary = "result files as one page of tables",
    .arguments = "FILE...",
    .about = "Prints result files (-o json of the other benchmarks) as one page of tables.",
    .min_argument = 1,
    .max_argument = 16,
    .run = bench_report,
};

static const struct command load_command = {
    .name = "bench serve",
    .summary = "a server under load, as its clients see it",
    .arguments = "",
    .about =
        "Loads a running OpenAI-compatible server and measures times to the first token and\n"
        "between tokens, throughput and goodput; docs/benchmarks.md says what is measured "
        "how.\n"
        "  polymath bench serve --concurrency 8 -n 200 --input-len 100..500 --ignore-eos\n"
        "  polymath bench serve --rate 4 --burstiness 0.5 -d 60 --goodput ttft:500,tpot:50\n"
        "Presets: mixtral-8x7b, deepseek-r1, deepseek-r1-interactive, gpt-oss-120b,\n"
        "gpt-oss-120b-interactive.",
    .run = bench_serve,
};

static pm_status print_peaks(const struct pm_options *o, bool json)
{
    const struct kernels *k;
    struct device *d;
    struct peaks p;
    char cpu[128];
    int index;
    pm_status status;
    TRY(kernels_select(&k, &index, o->device));
    TRY(k->open(&d, index, o->threads));
    status = k->measure(d, PEAK_ALL, &p);
    machine_name(cpu, sizeof cpu);
    if (status == PM_OK && json) {
        printf("{\"cpu\": \"%s\", \"device\": \"%s\", \"commit\": \"%s\", \"read_gbs\": %.3f, "
               "\"copy_gbs\": %.3f, \"f32_gflops\": %.2f, \"bf16_gflops\": %.2f}\n",
               cpu, k->describe(d), pm_commit(), p.read_gbs, p.copy_gbs, p.f32_gflops,
               p.bf16_gflops);
    } else if (status == PM_OK) {
        printf("%s, %s\nread   %8.2f GB/s\ncopy   %8.2f GB/s (read + written)\n"
               "f32    %8.1f GFLOP/s\nbf16   %8.1f GFLOP/s\n",
               cpu, k->describe(d), p.read_gbs, p.copy_gbs, p.f32_gflops, p.bf16_gflops);
    }
    k->close(d);
    return status;
}

int bench_peaks(const struct command *self, int argc, char **argv)
{
    bool json = false;
    const struct flag flags[] = {
        {.name = "json", .help = "one JSON object", .on = &json},
        {.name = NULL},
    };
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = print_peaks(a.options, json);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}

static const struct {
    const char *name;
    const struct command *command;
} parts[] = {
    {"model", &model_command},     {"batch", &batch_command}, {"schedule", &schedule_command},
    {"kernels", &kernels_command}, {"peaks", &peaks_command}, {"serve", &load_command},
    {"report", &report_command},
};
enum { N_PART = sizeof parts / sizeof *parts };

static int run(const struct command *self, int argc, char **argv)
{
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    (void)self;
    for (int i = 0; argc > 1 && i < N_PART; i++) {
        if (strcmp(argv[1], parts[i].name) == 0) {
            return parts[i].command->run(parts[i].command, argc - 1, argv + 1);
        }
    }
    for (int i = 0; i < N_PART; i++) {
        fprintf(help ? stdout : stderr, "%s polymath bench %-8s %s\n",
                i ? "      " : "usage:", parts[i].name, parts[i].command->summary);
    }
    return help ? EXIT_OK : EXIT_USAGE;
}

const struct command bench_command = {
    .name = "bench",
    .arguments = "model|batch|schedule|kernels|peaks|serve|report",
    .summary = "measure a model, its operations, the machine, or a server",
    .run = run,
};
