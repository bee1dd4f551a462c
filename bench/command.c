/* command.c - polymath bench: the machine's peaks, operations, models, and servers. */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/stats.h"
#include "kernels/kernels.h"

static const struct command model_command = {
    .name = "bench model",
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

static const struct command kernels_command = {
    .name = "bench kernels",
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
    .arguments = "",
    .about = "Measures read and copy bandwidth and the multiply-add rates of this machine.",
    .engine = true,
    .run = bench_peaks,
};

static const struct command serve_command = {
    .name = "bench serve",
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

static int run(const struct command *self, int argc, char **argv)
{
    (void)self;
    if (argc > 1 && strcmp(argv[1], "model") == 0) {
        return bench_model(&model_command, argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "kernels") == 0) {
        return bench_kernels(&kernels_command, argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "peaks") == 0) {
        return bench_peaks(&peaks_command, argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "serve") == 0) {
        return bench_serve(&serve_command, argc - 1, argv + 1);
    }
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    fputs("usage: polymath bench model MODEL|--synthetic FAMILY [options]\n"
          "       polymath bench kernels [options]\n"
          "       polymath bench peaks [options]\n"
          "       polymath bench serve [options]\n",
          help ? stdout : stderr);
    return help ? EXIT_OK : EXIT_USAGE;
}

const struct command bench_command = {
    .name = "bench",
    .arguments = "model|kernels|peaks|serve",
    .summary = "measure a model, its operations, the machine, or a server",
    .run = run,
};
