/* bench_run.h - a benchmark's command with its output in a file. */
#ifndef TESTS_KERNELS_BENCH_RUN_H
#define TESTS_KERNELS_BENCH_RUN_H

#include "bench/bench.h"
#include "moe/json.h"

/* Runs it with these words (the first is its name) and returns its exit status. */
typedef int bench_main(const struct command *self, int argc, char **argv);
int bench_run(bench_main *run, const char *const *text, int n);

/* The same; what it printed as JSON goes to *doc. Fails the test where it fails. */
void bench_run_json(struct json_doc **doc, bench_main *run, const char *const *text, int n);

#endif
