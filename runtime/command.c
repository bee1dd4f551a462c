/* command.c - arguments: one parser for every command's flags and the shared options. */
#define _POSIX_C_SOURCE 200809L
#include "command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int complain(pm_status status)
{
    fprintf(stderr, "polymath: %s\n", pm_last_error());
    return status == PM_ERR_ARG ? EXIT_USAGE : EXIT_FAILED;
}

bool on_terminal(int fd)
{
    return isatty(fd) == 1;
}

void bytes_text(char *out, size_t n, double bytes)
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 1000 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(out, n, u ? "%.2f %s" : "%.0f %s", bytes, unit[u]);
}

pm_status read_file(char **text, size_t *n, const char *path, size_t max)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    char *all = NULL;
    size_t capacity = 0, length = 0;
    pm_status status;
    if (!f) return fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
    for (;;) {
        size_t got;
        TRY_DONE(grow_array(&all, &capacity, length + 65536, 1));
        got = fread(all + length, 1, capacity - length - 1, f);
        length += got;
        if (got == 0) break;
        if (length > max) {
            status = fail(PM_ERR_TOO_LONG, "%s: more than %zu bytes", path, max);
            goto done;
        }
    }
    if (ferror(f)) {
        status = fail(PM_ERR_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    all[length] = 0;
    *text = all;
    *n = length;
    all = NULL;
done:
    free(all);
    if (f != stdin) fclose(f);
    return status;
}

static void print_row(char letter, const char *name, const char *value, const char *help,
                      const char *now)
{
    char left[64];
    snprintf(left, sizeof left, "%c%c%c --%s %s", letter ? '-' : ' ', letter ? letter : ' ',
             letter ? ',' : ' ', name, value);
    printf("  %-30s %s", left, help);
    if (now) printf(" [%s]", now);
    putchar('\n');
}

static void print_help(const struct command *c, const struct flag *flags,
                       const struct pm_options *o)
{
    printf("usage: polymath %s %s [options]\n\n%s\n", c->name, c->arguments, c->about);
    if (flags && flags->name) puts("\noptions:");
    for (const struct flag *f = flags; f && f->name; f++) {
        print_row(f->letter, f->name, f->value ? f->value : "", f->help, NULL);
    }
    for (int group = GROUP_ENGINE; group <= GROUP_GENERATION; group++) {
        if (group == GROUP_ENGINE ? !c->engine : !c->generation) continue;
        printf("\n%s:\n", group == GROUP_ENGINE ? "engine" : "generation");
        for (const struct option *row = options_table; row->name; row++) {
            char now[64];
            if ((int)row->group != group) continue;
            options_value(o, row, now, sizeof now);
            print_row(row->letter, row->name, row->value, row->help, now);
        }
    }
}

static const struct flag *find_flag(const struct flag *flags, const char *name, size_t n,
                                    char letter)
{
    for (const struct flag *f = flags; f && f->name; f++) {
        if (letter ? f->letter == letter : strlen(f->name) == n && !memcmp(f->name, name, n)) {
            return f;
        }
    }
    return NULL;
}

static const struct option *find_option(const struct command *c, const char *name, size_t n,
                                        char letter)
{
    for (const struct option *row = options_table; row->name; row++) {
        bool taken = row->group == GROUP_ENGINE ? c->engine : c->generation;
        if (!taken) continue;
        if (letter ? row->letter == letter
                   : strlen(row->name) == n && !memcmp(row->name, name, n)) {
            return row;
        }
    }
    return NULL;
}

static pm_status take_flag(const struct flag *f, const char *value)
{
    if (f->on) {
        *f->on = true;
    } else if (f->text) {
        *f->text = value;
    } else {
        if (*f->n_list == f->max_list) {
            return fail(PM_ERR_ARG, "--%s: given more than %d times", f->name, f->max_list);
        }
        f->list[(*f->n_list)++] = value;
    }
    return PM_OK;
}

/* One argument that begins with a dash; *i moves past a value. */
static pm_status take_dashed(struct arguments *a, const struct command *c,
                             const struct flag *flags, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *name = arg + 2, *value = NULL;
    char letter = 0;
    size_t n;
    const struct flag *f;
    const struct option *row;
    bool bare;
    if (arg[1] != '-') {
        letter = arg[1];
        if (arg[2]) value = arg + 2;
        n = 1;
    } else {
        n = strcspn(name, "=");
        if (name[n]) value = name + n + 1;
    }
    f = find_flag(flags, name, n, letter);
    row = f ? NULL : find_option(c, name, n, letter);
    if (!f && !row) {
        return fail(PM_ERR_ARG, "%s: unknown option; see polymath %s --help", arg, c->name);
    }
    bare = f ? f->on != NULL : row->kind == OPTION_FLAG;
    if (bare && value) return fail(PM_ERR_ARG, "%s: takes no value", arg);
    if (!bare && !value) {
        if (*i + 1 >= argc) return fail(PM_ERR_ARG, "%s: needs a value", arg);
        value = argv[++*i];
    }
    return f ? take_flag(f, value) : options_set(a->options, row, bare ? "1" : value);
}

int arguments_parse(struct arguments *a, const struct command *c, const struct flag *flags,
                    int argc, char **argv)
{
    bool only_positional = false;
    pm_status status;
    memset(a, 0, sizeof *a);
    status = pm_options_new(&a->options);
    if (status != PM_OK) return complain(status);
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (!only_positional && (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)) {
            print_help(c, flags, a->options);
            return EXIT_OK;
        }
        if (!only_positional && strcmp(arg, "--") == 0) {
            only_positional = true;
        } else if (!only_positional && arg[0] == '-' && arg[1]) {
            status = take_dashed(a, c, flags, argc, argv, &i);
            if (status != PM_OK) return complain(status);
        } else if (a->n < c->max_argument) {
            a->positional[a->n++] = arg;
        } else {
            fprintf(stderr, "polymath: unexpected argument \"%s\"; see polymath %s --help\n",
                    arg, c->name);
            return EXIT_USAGE;
        }
    }
    if (a->n < c->min_argument) {
        fprintf(stderr, "usage: polymath %s %s [options]; see polymath %s --help\n", c->name,
                c->arguments, c->name);
        return EXIT_USAGE;
    }
    return -1;
}

void arguments_free(struct arguments *a)
{
    pm_options_free(a->options);
}
