/* stats.h - mean, deviation and the machine's name, for every benchmark row. */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include <stddef.h>

double stats_mean(const double *x, int n);
double stats_deviation(const double *x, int n); /* of a sample, 0 for n < 2 */
double stats_median(double *x, int n);          /* sorts x */
/* Between the values of a sorted list: share 0 is the first, 1 the last. */
double stats_quantile(const double *x, int n, double share);
/* The processor's name as the system gives it. */
void machine_name(char *out, size_t n);

#endif
