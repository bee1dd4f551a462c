/* bench_run.c - a benchmark's command with its output in a file. */
#define _DEFAULT_SOURCE
#include "tests/kernels/bench_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/oracle/rig.h"

enum { MAX_ARGUMENT = 48, MAX_OUTPUT = 1 << 20 };

int bench_run(bench_main *run, const char *const *text, int n)
{
    const struct command self = {
        .name = "bench", .arguments = "", .max_argument = 1, .engine = true};
    char *argv[MAX_ARGUMENT];
    assert_true(n <= MAX_ARGUMENT);
    for (int i = 0; i < n; i++)
        argv[i] = (char *)(uintptr_t)text[i];
    return run(&self, n, argv);
}

void bench_run_json(struct json_doc **doc, bench_main *run, const char *const *text, int n)
{
    char path[] = "/tmp/polymath-bench-XXXXXX";
    int file = mkstemp(path), saved = dup(STDOUT_FILENO), code;
    assert_true(file >= 0 && saved >= 0);
    fflush(stdout);
    assert_true(dup2(file, STDOUT_FILENO) >= 0);
    code = bench_run(run, text, n);
    fflush(stdout);
    assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    close(saved);
    close(file);
    if (code != EXIT_OK) rig_fail("status %d: %s", code, pm_last_error());
    expect_ok(json_load(doc, path, MAX_OUTPUT));
    unlink(path);
}
