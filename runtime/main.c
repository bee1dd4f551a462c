/* main.c - the polymath program: finds the command and runs it. */
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "runtime/command.h"

static const struct command *const commands[] = {
    &run_command,   &serve_command, &info_command,  &score_command,   &tokenize_command,
    &route_command, &bench_command, &synth_command, &devices_command,
};
enum { N_COMMAND = sizeof commands / sizeof *commands };

static void print_usage(FILE *to)
{
    fprintf(to, "usage: polymath COMMAND [arguments]\n\n"
                "A mixture-of-experts runtime.\n\ncommands:\n");
    for (int i = 0; i < N_COMMAND; i++) {
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fprintf(to, "\npolymath COMMAND --help says more. Exit status: 0 done, 1 failed, 2 wrong "
                "usage.\n");
}

/* The text of docs/options.md. */
static int print_options(void)
{
    pm_options *o;
    pm_status status = pm_options_new(&o);
    if (status != PM_OK) return complain(status);
    puts("# Options\n\nEvery option has a flag, an environment variable and a key for "
         "`pm_options_set`:\n`--top-k 40`, `POLYMATH_TOP_K=40`, `\"top-k\", \"40\"`. A flag "
         "wins over "
         "the environment.\nThis page is what `polymath --help-options` prints.\n");
    puts("| flag | short | default | |\n|---|---|---|---|");
    for (const struct option *row = options_table; row->name; row++) {
        char now[64], letter[8] = "";
        options_value(o, row, now, sizeof now);
        if (row->letter) snprintf(letter, sizeof letter, "`-%c`", row->letter);
        printf("| `--%s%s%s` | %s | %s | %s |\n", row->name, *row->value ? " " : "", row->value,
               letter, now, row->help);
    }
    puts("\n`POLYMATH_ISA` chooses the instruction set of the CPU backend: generic, avx2, "
         "avx512, avx512bf16 or amx.");
    pm_options_free(o);
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("polymath %s (%s), %s\n", pm_version(), pm_commit(),
               &cuda_kernels ? "cpu and cuda" : "cpu");
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--help-options") == 0) return print_options();
    for (int i = 0; i < N_COMMAND; i++) {
        if (strcmp(argv[1], commands[i]->name) == 0) {
            return commands[i]->run(commands[i], argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "polymath: unknown command \"%s\"; see polymath --help\n", argv[1]);
    return EXIT_USAGE;
}
