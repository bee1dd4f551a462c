/* report.c - polymath bench report: result files as one page of tables.
 *
 * A file is what a benchmark wrote with -o json (or bench peaks --json): an object or a list of
 * them. What a row is, its keys say: "op" is an operation, "test" a model, "what" an expert
 * layer beside PyTorch's (bench/baselines/torch_moe.py), "read_gbs" the machine. Baselines
 * stand in the row of the operation that they follow, as multiples of its time; rows of torch
 * likewise. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "moe/json.h"

enum { MAX_FILE_BYTES = 1 << 28, MAX_FILE = 16 };

static double number(const json *row, const char *key)
{
    return json_number(json_get(row, key));
}

static const char *text(const json *row, const char *key)
{
    const char *s = json_text(json_get(row, key));
    return s ? s : "-";
}

static bool is(const json *row, const char *key, const char *value)
{
    return row && strcmp(text(row, key), value) == 0;
}

/* The time of `name` beside an own row, among the rows that follow it: "x 2.10", or "-". */
static void print_times(const json *own, const char *kind, const char *name, const char *us)
{
    const char *first = text(own, kind);
    for (const json *row = json_next(own); row; row = json_next(row)) {
        if (is(row, kind, first)) break;
        if (!is(row, kind, name) || number(own, us) <= 0) continue;
        printf(" %.2f |", number(row, us) / number(own, us));
        return;
    }
    printf(" - |");
}

static void print_operation(const json *row)
{
    static const char *const beside[] = {"loop", "cublas-loop", "cublas-grouped"};
    if (!is(row, "by", "polymath")) return;
    printf("| %s | %s | %s | %s | %.0f | %s | %.1f | %.1f to %.1f | %.0f %% | %s |",
           text(row, "shape"), text(row, "op"), text(row, "type"), text(row, "routing"),
           number(row, "rows"), json_true(json_get(row, "cold")) ? "cold" : "hot",
           number(row, "median_us"), number(row, "p10_us"), number(row, "p90_us"),
           100 * number(row, "share_of_wall"), text(row, "bound"));
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
        print_times(row, "by", beside[i], "median_us");
    putchar('\n');
}

static void print_torch(const json *row)
{
    if (!is(row, "what", "polymath")) return;
    printf("| %s | %.0f | %.1f | %.1f | %.2f |", text(row, "shape"), number(row, "T"),
           number(row, "us"), number(row, "gbs"), number(row, "tflops"));
    print_times(row, "what", "grouped_mm", "us");
    print_times(row, "what", "loop", "us");
    putchar('\n');
}

static void print_model(const json *row)
{
    printf("| %s | %s | %.2f ± %.2f | %.0f %% | %.0f %% |\n", text(row, "model"),
           text(row, "test"), number(row, "tokens_per_second"), number(row, "deviation"),
           100 * number(row, "share_of_read"), 100 * number(row, "share_of_flops"));
}

static void print_peaks(const json *row)
{
    printf("| %s | %.1f | %.1f | %.0f | %.0f |\n", text(row, "device"), number(row, "read_gbs"),
           number(row, "copy_gbs"), number(row, "f32_gflops"), number(row, "bf16_gflops"));
}

static const struct section {
    const char *key, *title, *head;
    void (*print)(const json *row);
} sections[] = {
    {"read_gbs", "Ceilings",
     "| device | read GB/s | copy GB/s | f32 GFLOP/s | bf16 GFLOP/s |\n"
     "|---|---:|---:|---:|---:|",
     print_peaks},
    {"op", "Operations",
     "| shape | op | type | routing | T | cache | us | p10 to p90 | of wall | bound | loop x | "
     "cublas-loop x | cublas-grouped x |\n"
     "|---|---|---|---|---:|---|---:|---:|---:|---|---:|---:|---:|",
     print_operation},
    {"what", "Expert layer beside PyTorch",
     "| shape | T | us | GB/s | TFLOP/s | grouped_mm x | loop x |\n"
     "|---|---:|---:|---:|---:|---:|---:|",
     print_torch},
    {"test", "Models",
     "| model | test | tokens/s | of read | of multiply-adds |\n|---|---|---:|---:|---:|",
     print_model},
};

/* The rows of a document: the members of a list, or the one object it is. */
static const json *first_row(const struct json_doc *doc)
{
    const json *root = json_root(doc);
    return json_is_array(root) ? json_child(root) : root;
}

static void print_section(const struct section *s, struct json_doc *const *doc, int n)
{
    bool begun = false;
    for (int i = 0; i < n; i++) {
        for (const json *row = first_row(doc[i]); row; row = json_next(row)) {
            if (!json_get(row, s->key)) continue;
            if (!begun) printf("\n## %s\n\n%s\n", s->title, s->head);
            begun = true;
            s->print(row);
        }
    }
}

/* Where the numbers come from: the first row that says so. */
static void print_origin(struct json_doc *const *doc, int n)
{
    for (int i = 0; i < n; i++) {
        for (const json *row = first_row(doc[i]); row; row = json_next(row)) {
            if (!json_get(row, "commit")) continue;
            printf("%s, %s, commit %s", text(row, "device"), text(row, "cpu"),
                   text(row, "commit"));
            printf("%s%s\n", *text(row, "software") > '-' ? ", " : "",
                   *text(row, "software") > '-' ? text(row, "software") : "");
            return;
        }
    }
}

static pm_status report(const struct arguments *a)
{
    struct json_doc *doc[MAX_FILE] = {NULL};
    pm_status status = PM_OK;
    for (int i = 0; i < a->n; i++) {
        TRY_DONE(json_load(&doc[i], a->positional[i], MAX_FILE_BYTES));
        for (const json *row = first_row(doc[i]); row; row = json_next(row)) {
            if (json_is_object(row)) continue;
            status = json_fail(doc[i], row, "an object with a result");
            goto done;
        }
    }
    print_origin(doc, a->n);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        print_section(&sections[i], doc, a->n);
done:
    for (int i = 0; i < a->n; i++)
        json_free(doc[i]);
    return status;
}

int bench_report(const struct command *self, int argc, char **argv)
{
    const struct flag flags[] = {{.name = NULL}};
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = report(&a);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}
