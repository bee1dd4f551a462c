/* grammar_determinise.c - the subset construction, with a count of characters on the side.
 *
 * A state of the copy stands for the set of nodes in which the original may be, and, where the
 * length of the string is bounded as well, for the number of characters so far and the place
 * inside the current one. So a pattern and a length meet in one automaton, and the analysis of
 * needs removes the states from which the length cannot be kept.
 *
 * The number of sets can grow exponentially with the original; a bound on the states and one on
 * the work turn that into a refusal. */
#include <stdlib.h>
#include <string.h>

#include "grammar_automaton.h"

enum { MAX_SETS = 1 << 14, MAX_WORK = 20000000, N_BUCKET = 1 << 12 };

struct set {
    size_t first, n; /* member[first ..]: sorted */
    int count, sub;
    uint32_t node; /* of the copy */
    uint32_t next; /* in the bucket */
};

struct copy {
    const struct automaton *from;
    const struct copy_rules *rules;
    struct automaton *out;
    struct set *set;
    uint32_t *member, *waiting, *mark; /* mark [n_node]: the epoch in which it was met */
    uint32_t *bucket;                  /* [N_BUCKET] set + 1 */
    size_t n_set, set_capacity, n_member, member_capacity, waiting_capacity;
    uint32_t epoch;
    int64_t work;
};

static bool counts(const struct copy *c)
{
    return c->rules->min > 0 || c->rules->max != UNLIMITED;
}

static int order(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* Appends `node` and what jumps reach from it to the members of the set that is being built. */
static pm_status reach(struct copy *c, uint32_t node)
{
    size_t n = 0;
    if (c->mark[node] == c->epoch) return PM_OK;
    TRY(grow_array(&c->waiting, &c->waiting_capacity, 1, sizeof *c->waiting));
    c->mark[node] = c->epoch;
    c->waiting[n++] = node;
    while (n > 0) {
        const struct node *at = &c->from->node[node = c->waiting[--n]];
        bool keeps = at->accept;
        for (uint32_t l = at->first; l != UINT32_MAX; l = c->from->link[l].next) {
            const struct link *link = &c->from->link[l];
            c->work++;
            if (!link->jump) {
                keeps = true;
            } else if (c->mark[link->to] != c->epoch) {
                c->mark[link->to] = c->epoch;
                TRY(grow_array(&c->waiting, &c->waiting_capacity, n + 1, sizeof *c->waiting));
                c->waiting[n++] = link->to;
            }
        }
        if (!keeps) continue;
        TRY(grow_array(&c->member, &c->member_capacity, c->n_member + 1, sizeof *c->member));
        c->member[c->n_member++] = node;
    }
    return PM_OK;
}

static uint32_t hash_of(const struct copy *c, const struct set *s)
{
    uint64_t h = (uint64_t)s->count * 31 + (uint64_t)s->sub;
    for (size_t i = 0; i < s->n; i++) {
        h = (h ^ c->member[s->first + i]) * 0x9e3779b97f4a7c15u;
    }
    return (uint32_t)(h >> 40) & (N_BUCKET - 1);
}

static pm_status add_node(struct copy *c, struct set *s)
{
    bool ends = false;
    s->node = automaton_node(c->out);
    for (size_t i = 0; i < s->n && !ends; i++) {
        ends = c->from->node[c->member[s->first + i]].accept;
    }
    if (!ends || s->count < c->rules->min || s->sub != CHARS_START) return c->out->status;
    if (c->rules->closing < 0) {
        automaton_accept(c->out, s->node);
    } else {
        automaton_range(c->out, s->node, c->rules->closing, c->rules->closing, c->rules->to);
    }
    return c->out->status;
}

/* The set whose members lie from `first` on at the end of `member`: found, or made. */
static pm_status intern(struct copy *c, size_t first, int count, int sub, uint32_t *node)
{
    struct set s = {.first = first, .n = c->n_member - first, .count = count, .sub = sub};
    uint32_t at;
    qsort(c->member + first, s.n, sizeof *c->member, order);
    at = hash_of(c, &s);
    for (uint32_t i = c->bucket[at]; i > 0; i = c->set[i - 1].next) {
        const struct set *o = &c->set[i - 1];
        if (o->n != s.n || o->count != count || o->sub != sub) continue;
        if (memcmp(c->member + o->first, c->member + first, s.n * sizeof *c->member) != 0)
            continue;
        c->n_member = first;
        *node = o->node;
        return PM_OK;
    }
    if (c->n_set == MAX_SETS || c->work > MAX_WORK) {
        return fail(PM_ERR_ARG, "too complex: its automaton has more than %zu states",
                    c->n_set);
    }
    TRY(grow_array(&c->set, &c->set_capacity, c->n_set + 1, sizeof *c->set));
    TRY(add_node(c, &s));
    s.next = c->bucket[at];
    *node = s.node;
    c->set[c->n_set++] = s;
    c->bucket[at] = (uint32_t)c->n_set;
    return PM_OK;
}

/* cut[b]: bytes from b on may lead elsewhere than b - 1. */
static void find_cuts(struct copy *c, const struct set *s, bool cut[257])
{
    memset(cut, 0, 257 * sizeof *cut);
    for (size_t i = 0; i < s->n; i++) {
        const struct node *at = &c->from->node[c->member[s->first + i]];
        for (uint32_t l = at->first; l != UINT32_MAX; l = c->from->link[l].next) {
            if (c->from->link[l].jump) continue;
            cut[c->from->link[l].low] = cut[c->from->link[l].high + 1] = true;
        }
    }
    for (int byte = 1; byte < 256 && counts(c); byte++) {
        if (chars_step(s->sub, (unsigned char)byte) !=
            chars_step(s->sub, (unsigned char)(byte - 1)))
            cut[byte] = true;
    }
}

/* The count and the place behind a byte; false: the length forbids it. */
static bool count_byte(const struct copy *c, const struct set *s, int byte, int *count,
                       int *sub)
{
    *count = s->count;
    *sub = s->sub;
    if (!counts(c)) return true;
    if (s->sub == CHARS_START && s->count >= c->rules->max) return false;
    *sub = chars_step(s->sub, (unsigned char)byte);
    if (*sub == CHARS_DONE) {
        *sub = CHARS_START;
        if (c->rules->max != UNLIMITED || s->count < c->rules->min) *count = s->count + 1;
    }
    return *sub >= 0;
}

static pm_status follow(struct copy *c, size_t index, int low, int high)
{
    struct set s = c->set[index];
    size_t first = c->n_member;
    int count, sub;
    uint32_t node;
    if (!count_byte(c, &s, low, &count, &sub)) return PM_OK;
    c->epoch++;
    for (size_t i = 0; i < s.n; i++) {
        const struct node *at = &c->from->node[c->member[s.first + i]];
        for (uint32_t l = at->first; l != UINT32_MAX; l = c->from->link[l].next) {
            const struct link *link = &c->from->link[l];
            c->work++;
            if (!link->jump && link->low <= low && low <= link->high) TRY(reach(c, link->to));
        }
    }
    if (c->n_member == first) return PM_OK;
    TRY(intern(c, first, count, sub, &node));
    automaton_range(c->out, s.node, low, high, node);
    return c->out->status;
}

static pm_status build(struct copy *c, uint32_t first, uint32_t *start)
{
    bool cut[257];
    c->epoch++;
    /* A set may be empty, but not at no address. */
    TRY(grow_array(&c->member, &c->member_capacity, 1, sizeof *c->member));
    TRY(reach(c, first));
    TRY(intern(c, 0, 0, CHARS_START, start));
    for (size_t i = 0; i < c->n_set; i++) {
        struct set s = c->set[i];
        find_cuts(c, &s, cut);
        for (int low = 0, high; low < 256; low = high) {
            for (high = low + 1; high < 256 && !cut[high];) {
                high++;
            }
            TRY(follow(c, i, low, high - 1));
        }
    }
    return PM_OK;
}

pm_status automaton_determinise(const struct automaton *from, uint32_t first,
                                const struct copy_rules *rules, struct automaton *out,
                                uint32_t *start)
{
    struct copy c = {.from = from, .rules = rules, .out = out};
    pm_status status;
    TRY(from->status);
    TRY_DONE(alloc_array(&c.mark, from->n_node, sizeof *c.mark, "grammar"));
    TRY_DONE(alloc_array(&c.bucket, N_BUCKET, sizeof *c.bucket, "grammar"));
    TRY_DONE(build(&c, first, start));
done:
    free(c.set);
    free(c.member);
    free(c.waiting);
    free(c.mark);
    free(c.bucket);
    return status;
}
