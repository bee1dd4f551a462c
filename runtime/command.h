/* command.h - the program's subcommands and how they read their arguments. */
#ifndef RUNTIME_COMMAND_H
#define RUNTIME_COMMAND_H

#include "runtime/options.h"

/* Exit statuses of the program. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* A flag of one command. Takes a value unless `on` is set. */
struct flag {
    const char *name;
    char letter;
    const char *value; /* what help calls the value */
    const char *help;
    const char **text; /* receives the value */
    bool *on;          /* set by the bare flag */
    const char **list; /* receives every value, [*n_list] of [max_list] */
    int *n_list, max_list;
};

struct command {
    const char *name;
    const char *arguments; /* "MODEL [FILE]" */
    const char *summary;   /* one line of `polymath --help` */
    const char *about;     /* more, for `polymath NAME --help` */
    int min_argument, max_argument;
    bool engine, generation; /* which groups of options_table it takes */
    int (*run)(const struct command *self, int argc, char **argv);
};

/* All commands, ending with a NULL name; bench lives in its own folder. */
extern const struct command run_command, serve_command, info_command, score_command,
    tokenize_command, route_command, synth_command, bench_command, devices_command;

struct arguments {
    const char *positional[16];
    int n;
    struct pm_options *options;
};

/* Parses argv[1 ..]; answers --help itself. Returns -1 to go on, or an exit status. */
int arguments_parse(struct arguments *a, const struct command *c, const struct flag *flags,
                    int argc, char **argv);
void arguments_free(struct arguments *a);

/* "polymath: sentence" on stderr; returns EXIT_FAILED, or EXIT_USAGE for PM_ERR_ARG. */
int complain(pm_status status);

/* Reads a whole file ("-": stdin) of at most max bytes. */
pm_status read_file(char **text, size_t *n, const char *path, size_t max);

/* Progress lines on stderr, only on a terminal. */
bool on_terminal(int fd);

/* 1.5 GB, 12.3 MB, ... */
void bytes_text(char *out, size_t n, double bytes);

#endif
