/* grammar_number.h - numbers within bounds as automata over their decimal digits. */
#ifndef RUNTIME_GRAMMAR_NUMBER_H
#define RUNTIME_GRAMMAR_NUMBER_H

#include "grammar_automaton.h"

struct number_bound {
    bool is, exclusive;
    double value;
};

struct number_rules {
    struct number_bound low, high;
    bool integer;
    int multiple; /* 1: any; integers only */
};
enum { MAX_MULTIPLE = 1000 };

/* Adds an automaton for the numbers that fulfil the rules. PM_ERR_ARG: a bound that cannot be
 * compared exactly. */
pm_status number_build(struct automaton *a, const struct number_rules *rules, uint32_t *start);

#endif
