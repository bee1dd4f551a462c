/* grammar_state.c - follows a text through a grammar and finds the tokens that may come next.
 *
 * Where a text is in its grammar is a set of places: a node, and a stack of nodes to come back
 * to. Branches of anyOf make several places; to keep their number below that of the nodes,
 * places with the same node are one place whose stack has several tops. Stacks have numbers, so
 * a place is three integers.
 *
 * The mask of a set is found by walking the trie of tokens and the grammar together. Three
 * things make that cheap: a set of one place whose node only has links for bytes is stepped
 * without any bookkeeping; free strings take what the vocabulary has worked out; and the last
 * masks are kept, since a text is often where it was a moment ago (inside one string, behind
 * one key of each object of a list).
 *
 * Stacks that a walk made are forgotten when it ends; those that the text left behind are swept
 * when they have become many. Keys of kept masks name stacks, so they go then too. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "grammar_inside.h"
#include "grammar_stack.h"
#include "grammar_vocabulary.h"

enum {
    N_KEPT = 16,       /* masks */
    MAX_KEY = 8,       /* places of a set whose mask is kept */
    FIRST_SWEEP = 2048 /* stacks */
};

struct place {
    uint32_t node, count, stack; /* count: characters of a free string so far */
    uint32_t expanded;           /* the stack with which it was expanded */
};
enum { NOT_YET = UINT32_MAX };

/* place[first] .. place[first + n - 1] */
struct places {
    size_t first, n;
    bool complete; /* the text may end here */
};

struct kept_mask {
    struct place key[MAX_KEY];
    size_t n_key;
    bool complete;
    uint64_t used;
    uint32_t *mask;
};

/* Where in the current set a node is. */
struct mark {
    uint32_t epoch, at;
};

struct grammar_state {
    const struct automaton *a;
    const struct grammar_vocabulary *v;
    uint32_t start;
    struct places now;   /* at the beginning of `place` */
    struct place *place; /* sets of a walk lie end to end */
    size_t n_place, place_capacity;
    struct stacks stacks;
    size_t sweep_at;   /* stacks */
    struct mark *mark; /* [n_node] */
    uint32_t epoch;
    uint32_t *allowed; /* of the walk in progress */
    uint32_t *masks;   /* of `kept` */
    struct kept_mask kept[N_KEPT];
    uint64_t clock;
};

/* Sets of places */

/* Adds a place to the set that is being built, unless what is left of the depth does not
 * suffice to finish from there. */
static pm_status add(struct grammar_state *s, struct places *set, struct place p)
{
    const struct node *node = &s->a->node[p.node];
    struct mark *mark = &s->mark[p.node];
    if (node->need == NEED_NEVER ||
        node->need + s->stacks.stack[p.stack].depth > GRAMMAR_MAX_DEPTH) {
        return PM_OK;
    }
    if (mark->epoch == s->epoch) {
        assert(s->place[mark->at].count == p.count);
        return stacks_unite(&s->stacks, s->place[mark->at].stack, p.stack,
                            &s->place[mark->at].stack);
    }
    TRY(grow_array(&s->place, &s->place_capacity, s->n_place + 1, sizeof *s->place));
    *mark = (struct mark){s->epoch, (uint32_t)s->n_place};
    s->place[s->n_place++] = p;
    set->n++;
    return PM_OK;
}

/* Adds what a place leads to without a byte. */
static pm_status expand_place(struct grammar_state *s, struct places *set, struct place p)
{
    const struct node *node = &s->a->node[p.node];
    const struct link *link = &s->a->link[node->first + node->n_byte];
    for (uint32_t i = 0; i < node->n_jump; i++) {
        struct place next = {link[i].to, 0, p.stack, NOT_YET};
        if (link[i].back != NO_NODE) {
            /* The end of what is called must be able to come back, too. */
            if (s->a->node[link[i].back].need == NEED_NEVER ||
                s->a->node[link[i].back].need + s->stacks.stack[p.stack].depth >
                    GRAMMAR_MAX_DEPTH)
                continue;
            TRY(stacks_push(&s->stacks, link[i].back, p.stack, &next.stack));
        }
        TRY(add(s, set, next));
    }
    if (!node->accept) return PM_OK;
    for (uint32_t i = 0; i < s->stacks.stack[p.stack].n; i++) {
        struct frame f = s->stacks.frame[s->stacks.stack[p.stack].first + i];
        if (f.back == NO_NODE) {
            set->complete = true;
        } else {
            TRY(add(s, set, (struct place){f.back, 0, f.below, NOT_YET}));
        }
    }
    return PM_OK;
}

/* Completes a set. A place whose stack gets another top after its turn has its turn again. */
static pm_status expand(struct grammar_state *s, struct places *set)
{
    size_t kept = set->first;
    bool again;
    do {
        again = false;
        for (size_t i = set->first; i < set->first + set->n; i++) {
            struct place *p = &s->place[i];
            if (p->expanded == p->stack) continue;
            p->expanded = p->stack;
            again = true;
            TRY(expand_place(s, set, *p));
        }
    } while (again);
    /* What takes no byte has done its part. */
    for (size_t i = set->first; i < set->first + set->n; i++) {
        const struct node *node = &s->a->node[s->place[i].node];
        if (node->n_byte > 0 || node->chars) s->place[kept++] = s->place[i];
    }
    set->n = kept - set->first;
    s->n_place = kept;
    return PM_OK;
}

static void begin(struct grammar_state *s, struct places *set)
{
    *set = (struct places){.first = s->n_place};
    if (++s->epoch == 0) {
        memset(s->mark, 0, s->a->n_node * sizeof *s->mark);
        s->epoch = 1;
    }
}

/* Steps */

/* Where a byte leads from a free string; false: nowhere. */
static bool step_string(const struct automaton *a, const struct place *p, uint8_t byte,
                        struct place *out)
{
    const struct node *node = &a->node[p->node];
    const struct string_range *range = &a->strings[node->chars - 1];
    int sub = chars_step(node->sub, byte);
    uint32_t base = p->node - node->sub;
    if (sub == CHARS_NONE) return false;
    *out = (struct place){range->to, 0, p->stack, NOT_YET};
    if (sub == CHARS_QUOTE) return p->count >= (uint32_t)range->min;
    /* Without a maximum only whether the minimum is reached matters. */
    out->count = p->count;
    if (node->sub == CHARS_START) {
        if (p->count >= (uint32_t)range->max) return false;
        if (range->max != UNLIMITED || p->count < (uint32_t)range->min) out->count++;
    }
    out->node = base + (uint32_t)(sub == CHARS_DONE ? CHARS_START : sub);
    return true;
}

/* The ways of one place. */
static pm_status step_place(struct grammar_state *s, struct places *set, struct place p,
                            uint8_t byte)
{
    const struct node *node = &s->a->node[p.node];
    const struct link *link = &s->a->link[node->first];
    struct place next;
    if (node->chars) return step_string(s->a, &p, byte, &next) ? add(s, set, next) : PM_OK;
    for (uint32_t i = 0; i < node->n_byte; i++) {
        if (byte < link[i].low || byte > link[i].high) continue;
        TRY(add(s, set, (struct place){link[i].to, 0, p.stack, NOT_YET}));
    }
    return PM_OK;
}

/* The step of a set of one place that leads to at most one plain node; false: not that simple,
 * and nothing is done. */
static bool step_plain(struct grammar_state *s, const struct place *p, uint8_t byte,
                       struct places *out)
{
    const struct node *node = &s->a->node[p->node];
    const struct link *link = &s->a->link[node->first];
    struct place next = {0};
    if (node->chars) {
        if (!step_string(s->a, p, byte, &next)) return true;
    } else {
        for (uint32_t i = 0; i < node->n_byte; i++) {
            if (byte < link[i].low || byte > link[i].high) continue;
            if (next.node != NO_NODE) return false;
            next = (struct place){link[i].to, 0, p->stack, NOT_YET};
        }
        if (next.node == NO_NODE) return true;
    }
    if (!s->a->node[next.node].plain || s->n_place == s->place_capacity) return false;
    s->place[s->n_place++] = next;
    out->n = 1;
    return true;
}

/* The set behind a byte, at the end of `place`; empty when the byte cannot come. */
static pm_status step(struct grammar_state *s, const struct places *from, uint8_t byte,
                      struct places *out)
{
    *out = (struct places){.first = s->n_place};
    if (from->n == 1 && step_plain(s, &s->place[from->first], byte, out)) return PM_OK;
    begin(s, out);
    for (size_t i = from->first; i < from->first + from->n; i++) {
        TRY(step_place(s, out, s->place[i], byte));
    }
    return expand(s, out);
}

/* Masks */

static void allow(struct grammar_state *s, uint32_t id)
{
    s->allowed[id / 32] |= 1u << id % 32;
}

/* Allows the tokens below `node` that set admits. */
static pm_status walk(struct grammar_state *s, uint32_t node, const struct places *set)
{
    const struct trie_node *trie = s->v->node;
    for (uint32_t i = node + 1; i < trie[node].end; i = trie[i].end) {
        struct places next;
        size_t n_stack = s->stacks.n;
        TRY(step(s, set, trie[i].byte, &next));
        if (next.n > 0 || next.complete) {
            for (uint32_t t = trie[i].token; t < trie[i + 1].token; t++) {
                allow(s, s->v->sorted[t]);
            }
            if (trie[i].end > i + 1) TRY(walk(s, i, &next));
        }
        s->n_place = next.first;
        stacks_forget(&s->stacks, n_stack);
    }
    return PM_OK;
}

/* Between two characters of a free string: the tokens that stay inside. */
static void allow_inside(struct grammar_state *s, uint32_t left)
{
    const struct grammar_vocabulary *v = s->v;
    size_t n_word = ((size_t)v->n_vocab + 31) / 32;
    uint32_t n_over = 0;
    while (n_over < v->n_in && v->in[n_over].chars > left) {
        n_over++;
    }
    if (n_over > v->n_in / 2) {
        for (uint32_t i = n_over; i < v->n_in; i++) {
            allow(s, v->in[i].id);
        }
        return;
    }
    /* Tokens that are allowed already stay so: the walk comes after. */
    for (size_t i = 0; i < n_word; i++) {
        s->allowed[i] |= v->inside[i];
    }
    for (uint32_t i = 0; i < n_over; i++) {
        s->allowed[v->in[i].id / 32] &= ~(1u << v->in[i].id % 32);
    }
}

/* The tokens that end the string, and go on behind it. */
static pm_status allow_quotes(struct grammar_state *s, const struct place *p)
{
    const struct string_range *range = &s->a->strings[s->a->node[p->node].chars - 1];
    const struct grammar_vocabulary *v = s->v;
    struct places behind;
    size_t n_stack = s->stacks.n;
    begin(s, &behind);
    TRY(add(s, &behind, (struct place){range->to, 0, p->stack, NOT_YET}));
    TRY(expand(s, &behind));
    for (uint32_t i = 0; i < v->n_quote; i++) {
        uint32_t node = v->quote[i].node, chars = p->count + v->quote[i].chars;
        if (chars < (uint32_t)range->min || chars > (uint32_t)range->max) continue;
        for (uint32_t t = v->node[node].token; t < v->node[node + 1].token; t++) {
            allow(s, v->sorted[t]);
        }
        TRY(walk(s, node, &behind));
    }
    s->n_place = behind.first;
    stacks_forget(&s->stacks, n_stack);
    return PM_OK;
}

static bool is_free(const struct automaton *a, uint32_t node)
{
    return a->node[node].chars && a->node[node].sub == CHARS_START;
}

static pm_status find_allowed(struct grammar_state *s)
{
    struct places rest;
    /* Masks of several free strings would undo each other where their lengths differ; only the
     * first one is taken from the vocabulary. */
    size_t first = s->now.n;
    for (size_t i = s->now.n; i-- > 0;) {
        if (is_free(s->a, s->place[i].node)) first = i;
    }
    rest = (struct places){.first = s->n_place};
    for (size_t i = 0; i < s->now.n; i++) {
        if (i == first) continue;
        TRY(grow_array(&s->place, &s->place_capacity, s->n_place + 1, sizeof *s->place));
        s->place[s->n_place++] = s->place[i];
        rest.n++;
    }
    if (first < s->now.n) {
        struct place p = s->place[first];
        const struct string_range *range = &s->a->strings[s->a->node[p.node].chars - 1];
        uint32_t left = range->max == UNLIMITED ? UINT32_MAX : (uint32_t)range->max - p.count;
        allow_inside(s, left);
        TRY(allow_quotes(s, &p));
    }
    if (rest.n > 0) TRY(walk(s, 0, &rest));
    s->n_place = rest.first;
    return PM_OK;
}

/* Kept masks */

static bool is_kept(const struct grammar_state *s, const struct kept_mask *k)
{
    if (k->n_key != s->now.n || k->complete != s->now.complete) return false;
    for (size_t i = 0; i < k->n_key; i++) {
        const struct place *a = &k->key[i], *b = &s->place[i];
        if (a->node != b->node || a->count != b->count || a->stack != b->stack) return false;
    }
    return true;
}

static void keep(struct grammar_state *s, size_t n_word)
{
    struct kept_mask *oldest = &s->kept[0];
    if (s->now.n > MAX_KEY) return;
    for (int i = 1; i < N_KEPT; i++) {
        if (s->kept[i].used < oldest->used) oldest = &s->kept[i];
    }
    memcpy(oldest->key, s->place, s->now.n * sizeof *s->place);
    oldest->n_key = s->now.n;
    oldest->complete = s->now.complete;
    oldest->used = ++s->clock;
    memcpy(oldest->mask, s->allowed, n_word * sizeof *s->allowed);
}

pm_status grammar_allowed(struct grammar_state *s, uint32_t *allowed)
{
    size_t n_word = ((size_t)s->v->n_vocab + 31) / 32;
    size_t n_stack = s->stacks.n;
    bool any = false;
    pm_status status;
    for (int i = 0; i < N_KEPT; i++) {
        struct kept_mask *k = &s->kept[i];
        if (k->used == 0 || !is_kept(s, k)) continue;
        k->used = ++s->clock;
        memcpy(allowed, k->mask, n_word * sizeof *allowed);
        return PM_OK;
    }
    memset(allowed, 0, n_word * sizeof *allowed);
    s->allowed = allowed;
    status = find_allowed(s);
    s->n_place = s->now.n;
    stacks_forget(&s->stacks, n_stack);
    TRY(status);
    for (int i = 0; i < s->v->n_end && s->now.complete; i++) {
        allow(s, (uint32_t)s->v->end[i]);
    }
    for (size_t i = 0; i < n_word && !any; i++) {
        any = allowed[i] != 0;
    }
    if (!any) {
        return fail(PM_ERR_UNSUPPORTED, "the vocabulary has no token that the schema could go "
                                        "on with");
    }
    keep(s, n_word);
    return PM_OK;
}

/* Following */

/* Keeps only the stacks of the places where the text is. */
static pm_status sweep(struct grammar_state *s)
{
    struct stacks kept = {0};
    uint32_t *moved, *stack = NULL;
    pm_status status;
    TRY(alloc_array(&moved, s->stacks.n, sizeof *moved, "grammar"));
    TRY_DONE(alloc_array(&stack, s->now.n, sizeof *stack, "grammar"));
    for (size_t i = 0; i < s->now.n; i++) {
        TRY_DONE(stacks_move(&kept, &s->stacks, moved, s->place[i].stack, &stack[i]));
    }
    for (size_t i = 0; i < s->now.n; i++) {
        s->place[i].stack = stack[i];
    }
    for (int i = 0; i < N_KEPT; i++) {
        s->kept[i].used = 0;
    }
    stacks_clear(&s->stacks);
    s->stacks = kept;
    kept = (struct stacks){0};
    s->sweep_at = 2 * s->stacks.n > FIRST_SWEEP ? 2 * s->stacks.n : FIRST_SWEEP;
done:
    stacks_clear(&kept);
    free(stack);
    free(moved);
    return status;
}

static pm_status follow(struct grammar_state *s, const char *byte, size_t n, struct places *out)
{
    struct places at = s->now;
    for (size_t i = 0; i < n; i++) {
        struct places next;
        TRY(step(s, &at, (uint8_t)byte[i], &next));
        at = next;
        if (at.n == 0 && !at.complete) break;
    }
    *out = at;
    return PM_OK;
}

pm_status grammar_accept(struct grammar_state *s, int32_t id)
{
    const struct grammar_vocabulary *v = s->v;
    struct places next = {0};
    size_t n = 0;
    pm_status status;
    for (int i = 0; i < v->n_end; i++) {
        if (id != v->end[i]) continue;
        return s->now.complete ? PM_OK
                               : fail(PM_ERR_ARG, "token %d ends an unfinished value", (int)id);
    }
    if (id >= 0 && id < v->n_vocab) n = v->start[id + 1] - v->start[id];
    if (n == 0 || n > MAX_TOKEN_BYTES) {
        return fail(PM_ERR_ARG, "token %d is no text", (int)id);
    }
    status = follow(s, v->byte + v->start[id], n, &next);
    if (status == PM_OK && next.n == 0 && !next.complete) {
        status = fail(PM_ERR_ARG, "token %d does not fit the schema", (int)id);
    }
    if (status == PM_OK) {
        memmove(s->place, s->place + next.first, next.n * sizeof *s->place);
        s->now = (struct places){0, next.n, next.complete};
    }
    s->n_place = s->now.n;
    return status == PM_OK && s->stacks.n > s->sweep_at ? sweep(s) : status;
}

bool grammar_complete(const struct grammar_state *s)
{
    return s->now.complete;
}

/* Opening */

static pm_status take_buffers(struct grammar_state *s)
{
    size_t n_word = ((size_t)s->v->n_vocab + 31) / 32;
    TRY(alloc_array(&s->mark, s->a->n_node, sizeof *s->mark, "grammar"));
    TRY(alloc_array(&s->masks, N_KEPT * n_word, sizeof *s->masks, "grammar"));
    for (int i = 0; i < N_KEPT; i++) {
        s->kept[i].mask = s->masks + (size_t)i * n_word;
    }
    return PM_OK;
}

static pm_status open_first(struct grammar_state *s)
{
    struct places first;
    uint32_t bottom;
    TRY(stacks_push(&s->stacks, NO_NODE, 0, &bottom));
    begin(s, &first);
    TRY(add(s, &first, (struct place){s->start, 0, bottom, NOT_YET}));
    TRY(expand(s, &first));
    s->now = first;
    return PM_OK;
}

pm_status grammar_state_open(struct grammar_state **out, const struct grammar *g,
                             const struct grammar_vocabulary *v)
{
    struct grammar_state *s;
    pm_status status;
    TRY(alloc_array(&s, 1, sizeof *s, "grammar"));
    s->a = &g->automaton;
    s->v = v;
    s->start = g->start;
    s->sweep_at = FIRST_SWEEP;
    TRY_DONE(take_buffers(s));
    TRY_DONE(open_first(s));
    *out = s;
    s = NULL;
done:
    grammar_state_close(s);
    return status;
}

pm_status grammar_state_copy(struct grammar_state **out, const struct grammar_state *from)
{
    struct grammar_state *s;
    pm_status status;
    TRY(alloc_array(&s, 1, sizeof *s, "grammar"));
    s->a = from->a;
    s->v = from->v;
    s->start = from->start;
    s->sweep_at = from->sweep_at;
    s->now = from->now;
    TRY_DONE(take_buffers(s));
    TRY_DONE(stacks_copy(&s->stacks, &from->stacks));
    TRY_DONE(grow_array(&s->place, &s->place_capacity, from->n_place + 1, sizeof *s->place));
    memcpy(s->place, from->place, from->n_place * sizeof *s->place);
    s->n_place = from->n_place;
    *out = s;
    s = NULL;
done:
    grammar_state_close(s);
    return status;
}

void grammar_state_close(struct grammar_state *s)
{
    if (!s) return;
    stacks_clear(&s->stacks);
    free(s->masks);
    free(s->place);
    free(s->mark);
    free(s);
}
