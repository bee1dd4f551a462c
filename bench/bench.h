/* bench.h - the benchmarks that `polymath bench` runs. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "runtime/command.h"

int bench_model(const struct command *self, int argc, char **argv);
int bench_batch(const struct command *self, int argc, char **argv);
int bench_schedule(const struct command *self, int argc, char **argv);
int bench_kernels(const struct command *self, int argc, char **argv);
int bench_serve(const struct command *self, int argc, char **argv);
int bench_peaks(const struct command *self, int argc, char **argv);
int bench_report(const struct command *self, int argc, char **argv);

#endif
