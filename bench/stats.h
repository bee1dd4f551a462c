/* stats.h - mean, deviation and the machine's name, for every benchmark row. */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include <stddef.h>

double stats_mean(const double *x, int n);
double stats_deviation(const double *x, int n); /* of a sample, 0 for n < 2 */
double stats_median(double *x, int n);          /* sorts x */
/* The value that a share q of x is under, between neighbours in proportion; sorts x. */
double stats_quantile(double *x, int n, double q);
/* The processor's name as the system gives it. */
void machine_name(char *out, size_t n);

#endif
