/* grammar_number.c - comparing numbers digit by digit.
 *
 * Numbers without leading zeros compare by the length of their whole part first, then digit by
 * digit. So for each length there is a path of digits on which it is remembered whether all
 * digits so far are those of the lower or of the upper bound ("tight"); the first other digit
 * decides that side. Negative numbers are magnitudes with the bounds exchanged.
 *
 * With bounds a number has at most 15 digits in all. That many survive the trip through a
 * double, so a reader that compares doubles agrees with us, at exclusive bounds too; a bound is
 * taken as the shortest decimal that reads back as its double, which is what was written. */
#include "grammar_number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar_regex.h"

enum { MAX_DIGITS = 15, MAX_FRACTION = 40, N_SLOT = 256 };

static const double BEYOND_DIGITS = 1e15;

struct decimal {
    bool is, exclusive;
    int n_whole;             /* digits of the whole part, 1 for zero */
    char whole[MAX_DIGITS];  /* values 0 to 9 */
    char part[MAX_FRACTION]; /* behind the point, zeros to the end */
};

struct magnitudes {
    struct automaton *a;
    struct decimal low, high;
    bool integer;
    int multiple;
    uint32_t *node; /* [tight low][tight high][N_SLOT][multiple] NO_NODE: not made yet */
};

static pm_status read_decimal(struct decimal *d, const struct number_bound *bound, double value)
{
    char text[40];
    int exponent, digits = 0;
    *d = (struct decimal){.is = true, .exclusive = bound->exclusive, .n_whole = 1};
    if (value == 0) return PM_OK;
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value) break;
    }
    exponent = atoi(strchr(text, 'e') + 1);
    if (exponent >= MAX_DIGITS || exponent < -20) {
        return fail(PM_ERR_ARG, "%.17g is not supported, only 0 and 1e-20 to 1e15", value);
    }
    if (exponent > 0) d->n_whole = exponent + 1;
    for (const char *at = text; *at != 'e'; at++) {
        int place = exponent - digits; /* of the digit: 0 is the last before the point */
        if (*at == '.') continue;
        if (place >= 0) {
            d->whole[d->n_whole - 1 - place] = (char)(*at - '0');
        } else {
            d->part[-place - 1] = (char)(*at - '0');
        }
        digits++;
    }
    return PM_OK;
}

static bool zeros_from(const struct decimal *d, int place)
{
    while (place < MAX_FRACTION && d->part[place] == 0) {
        place++;
    }
    return place >= MAX_FRACTION;
}

/* Whether the number may end with `places` digits behind the point. */
static bool may_end(const struct magnitudes *m, int places, bool tight_low, bool tight_high)
{
    if (tight_low && (!zeros_from(&m->low, places) || m->low.exclusive)) return false;
    return !tight_high || !zeros_from(&m->high, places) || !m->high.exclusive;
}

/* A place in a number: `at` digits of `whole` before the point, or behind it. */
struct place {
    int whole, at;
    bool tight_low, tight_high;
    int rest; /* of the value by `multiple` */
};

/* Whole numbers that are tight to nothing differ only in how many digits are to come. */
static uint32_t *slot_of(const struct magnitudes *m, const struct place *p)
{
    int slot = p->whole * 16 + p->at;
    if (m->integer && !p->tight_low && !p->tight_high) slot = p->whole - p->at;
    return &m->node[(((size_t)p->tight_low * 2 + p->tight_high) * N_SLOT + (size_t)slot) *
                        (size_t)m->multiple +
                    (size_t)p->rest];
}

static int digit_at(const struct decimal *d, const struct place *p, bool behind)
{
    return behind ? d->part[p->at] : d->whole[p->at];
}

static uint32_t build_part(struct magnitudes *m, const struct place *p);
static uint32_t build_whole(struct magnitudes *m, const struct place *p);

/* Ways for each digit from `first` on that the bounds allow. */
static void put_digits(struct magnitudes *m, uint32_t node, const struct place *p, int first,
                       bool behind)
{
    int low = p->tight_low ? digit_at(&m->low, p, behind) : 0;
    int high = p->tight_high ? digit_at(&m->high, p, behind) : 9;
    for (int d = first > low ? first : low; d <= high; d++) {
        struct place next = *p;
        uint32_t to;
        next.at++;
        next.tight_low = p->tight_low && d == low;
        next.tight_high = p->tight_high && d == high;
        next.rest = (p->rest * 10 + d) % m->multiple;
        to = behind ? build_part(m, &next) : build_whole(m, &next);
        automaton_range(m->a, node, '0' + d, '0' + d, to);
    }
}

static uint32_t build_part(struct magnitudes *m, const struct place *p)
{
    uint32_t node = automaton_node(m->a);
    if (p->at > 0 && may_end(m, p->at, p->tight_low, p->tight_high)) {
        automaton_accept(m->a, node);
    }
    if (m->a->status != PM_OK || p->whole + p->at >= MAX_DIGITS) return node;
    if (p->tight_low || p->tight_high) {
        put_digits(m, node, p, 0, true);
    } else {
        struct place next = *p;
        next.at++;
        automaton_range(m->a, node, '0', '9', build_part(m, &next));
    }
    return node;
}

static uint32_t build_whole(struct magnitudes *m, const struct place *p)
{
    uint32_t node = *slot_of(m, p);
    if (node != NO_NODE || m->a->status != PM_OK) return node;
    node = *slot_of(m, p) = automaton_node(m->a);
    if (p->at < p->whole) {
        put_digits(m, node, p, p->at == 0 && p->whole > 1, false);
        return node;
    }
    if (p->rest == 0 && may_end(m, 0, p->tight_low, p->tight_high)) {
        automaton_accept(m->a, node);
    }
    if (!m->integer && p->whole < MAX_DIGITS) {
        struct place part = {p->whole, 0, p->tight_low, p->tight_high, 0};
        automaton_range(m->a, node, '.', '.', build_part(m, &part));
    }
    return node;
}

static pm_status build_magnitudes(struct magnitudes *m, uint32_t from)
{
    int first = m->low.is ? m->low.n_whole : 1;
    int last = m->high.is ? m->high.n_whole : MAX_DIGITS;
    TRY(m->a->status);
    TRY(alloc_array(&m->node, (size_t)4 * N_SLOT * (size_t)m->multiple, sizeof *m->node,
                    "grammar"));
    for (int whole = first; whole <= last; whole++) {
        struct place p = {whole, 0, m->low.is && whole == first, m->high.is && whole == last,
                          0};
        uint32_t to = build_whole(m, &p);
        automaton_jump(m->a, from, to);
    }
    free(m->node);
    return m->a->status;
}

static pm_status build_bounded(struct automaton *a, const struct number_rules *rules,
                               uint32_t start)
{
    struct number_bound bound[2] = {rules->low, rules->high};
    const struct number_bound *low = &bound[0], *high = &bound[1];
    const struct number_bound above_zero = {true, true, 0};
    struct magnitudes m = {.a = a, .integer = rules->integer, .multiple = rules->multiple};
    uint32_t negative;
    /* What 15 digits cannot reach is no bound. */
    if (low->value <= -BEYOND_DIGITS) bound[0].is = false;
    if (high->value >= BEYOND_DIGITS) bound[1].is = false;
    if (!high->is || high->value >= 0) {
        if (low->is && low->value >= 0) TRY(read_decimal(&m.low, low, low->value));
        if (high->is) TRY(read_decimal(&m.high, high, high->value));
        TRY(build_magnitudes(&m, start));
    }
    if (low->is && low->value >= 0) return PM_OK;
    m.low = m.high = (struct decimal){0};
    if (high->is && high->value < 0) {
        TRY(read_decimal(&m.low, high, -high->value));
    } else {
        TRY(read_decimal(&m.low, &above_zero, 0));
    }
    if (low->is) TRY(read_decimal(&m.high, low, -low->value));
    negative = automaton_node(a);
    automaton_range(a, start, '-', '-', negative);
    return build_magnitudes(&m, negative);
}

pm_status number_build(struct automaton *a, const struct number_rules *rules, uint32_t *start)
{
    static const char integer[] = "^-?(?:0|[1-9][0-9]{0,18})$";
    static const char number[] =
        "^-?(?:0|[1-9][0-9]{0,18})(?:\\.[0-9]{1,19})?(?:[eE][+-]?[0-9]{1,2})?$";
    const char *source = rules->integer ? integer : number;
    if (!rules->low.is && !rules->high.is && rules->multiple == 1) {
        return regex_build(a, source, strlen(source), start);
    }
    *start = automaton_node(a);
    return build_bounded(a, rules, *start);
}
