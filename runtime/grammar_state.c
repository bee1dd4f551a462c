/* grammar_state.c - follows a text through a grammar and finds the tokens that may come next.
 *
 * Where a text is in its grammar is a set of places: a node, and a stack of nodes to come back
 * to. Branches of anyOf make several places; to keep their number below that of the nodes,
 * places with the same node are one place whose stack has several tops (a graph-structured
 * stack, after Tomita). Stacks are interned: equal ones have one number, so a place is three
 * integers.
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
#include "grammar_vocabulary.h"

enum {
    N_BUCKET = 1024,
    N_KEPT = 16,       /* masks */
    MAX_KEY = 8,       /* places of a set whose mask is kept */
    FIRST_SWEEP = 2048 /* stacks */
};

/* One top of a stack: come back to `back` with `below`. */
struct frame {
    uint32_t back, below;
};

struct stack {
    uint32_t first, n; /* frame[first ..], sorted */
    uint32_t depth;
    uint32_t bucket, next; /* next in the bucket, + 1 */
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
    struct frame *frame;
    struct stack *stack;
    size_t n_place, place_capacity, n_frame, frame_capacity, n_stack, stack_capacity;
    size_t sweep_at;
    uint32_t bucket[N_BUCKET]; /* stack + 1 */
    struct mark *mark;         /* [n_node] */
    uint32_t epoch;
    uint32_t *allowed; /* of the walk in progress */
    struct kept_mask kept[N_KEPT];
    uint64_t clock;
};

/* Stacks */

static uint32_t hash_frames(const struct frame *f, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ f[i].back) * 0x9e3779b97f4a7c15u;
        h = (h ^ f[i].below ^ h >> 32) * 0x9e3779b97f4a7c15u;
    }
    return (uint32_t)(h >> 40) % N_BUCKET;
}

/* The stack whose n tops lie at the end of `frame`: found, or made. */
static pm_status intern(struct grammar_state *s, size_t n, uint32_t *out)
{
    size_t first = s->n_frame - n;
    struct stack made = {.first = (uint32_t)first, .n = (uint32_t)n};
    made.bucket = hash_frames(s->frame + first, n);
    for (uint32_t i = s->bucket[made.bucket]; i > 0; i = s->stack[i - 1].next) {
        const struct stack *o = &s->stack[i - 1];
        if (o->n != n || memcmp(s->frame + o->first, s->frame + first, n * sizeof *s->frame))
            continue;
        s->n_frame = first;
        *out = i - 1;
        return PM_OK;
    }
    TRY(grow_array(&s->stack, &s->stack_capacity, s->n_stack + 1, sizeof *s->stack));
    for (size_t i = first; i < s->n_frame; i++) {
        uint32_t depth =
            s->frame[i].back == NO_NODE ? 0 : s->stack[s->frame[i].below].depth + 1;
        if (depth > made.depth) made.depth = depth;
    }
    made.next = s->bucket[made.bucket];
    s->stack[s->n_stack++] = made;
    s->bucket[made.bucket] = (uint32_t)s->n_stack;
    *out = (uint32_t)s->n_stack - 1;
    return PM_OK;
}

static pm_status push(struct grammar_state *s, uint32_t back, uint32_t below, uint32_t *out)
{
    TRY(grow_array(&s->frame, &s->frame_capacity, s->n_frame + 1, sizeof *s->frame));
    s->frame[s->n_frame++] = (struct frame){back, below};
    return intern(s, 1, out);
}

static bool is_before(struct frame a, struct frame b)
{
    return a.back != b.back ? a.back < b.back : a.below < b.below;
}

/* The stack with the tops of both. */
static pm_status unite(struct grammar_state *s, uint32_t a, uint32_t b, uint32_t *out)
{
    size_t i = s->stack[a].first, j = s->stack[b].first, n = 0;
    size_t end_i = i + s->stack[a].n, end_j = j + s->stack[b].n;
    *out = a;
    if (a == b) return PM_OK;
    TRY(grow_array(&s->frame, &s->frame_capacity, s->n_frame + s->stack[a].n + s->stack[b].n,
                   sizeof *s->frame));
    for (; i < end_i || j < end_j; n++) {
        bool left = j == end_j || (i < end_i && !is_before(s->frame[j], s->frame[i]));
        struct frame f = s->frame[left ? i : j];
        if (left && j < end_j && !is_before(f, s->frame[j])) j++;
        i += left;
        j += !left;
        s->frame[s->n_frame++] = f;
    }
    return intern(s, n, out);
}

/* Forgets the stacks from n on, which nothing refers to. */
static void forget(struct grammar_state *s, size_t n)
{
    while (s->n_stack > n) {
        const struct stack *top = &s->stack[--s->n_stack];
        assert(s->bucket[top->bucket] == s->n_stack + 1);
        s->bucket[top->bucket] = top->next;
        s->n_frame = top->first;
    }
}

/* Sets of places */

/* Adds a place to the set that is being built, unless what is left of the depth does not
 * suffice to finish from there. */
static pm_status add(struct grammar_state *s, struct places *set, struct place p)
{
    const struct node *node = &s->a->node[p.node];
    struct mark *mark = &s->mark[p.node];
    if (node->need == NEED_NEVER || node->need + s->stack[p.stack].depth > GRAMMAR_MAX_DEPTH) {
        return PM_OK;
    }
    if (mark->epoch == s->epoch) {
        assert(s->place[mark->at].count == p.count);
        return unite(s, s->place[mark->at].stack, p.stack, &s->place[mark->at].stack);
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
                s->a->node[link[i].back].need + s->stack[p.stack].depth > GRAMMAR_MAX_DEPTH)
                continue;
            TRY(push(s, link[i].back, p.stack, &next.stack));
        }
        TRY(add(s, set, next));
    }
    if (!node->accept) return PM_OK;
    for (uint32_t i = 0; i < s->stack[p.stack].n; i++) {
        struct frame f = s->frame[s->stack[p.stack].first + i];
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
        size_t n_stack = s->n_stack;
        TRY(step(s, set, trie[i].byte, &next));
        if (next.n > 0 || next.complete) {
            for (uint32_t t = trie[i].token; t < trie[i + 1].token; t++) {
                allow(s, s->v->sorted[t]);
            }
            if (trie[i].end > i + 1) TRY(walk(s, i, &next));
        }
        s->n_place = next.first;
        forget(s, n_stack);
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
    size_t n_stack = s->n_stack;
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
    forget(s, n_stack);
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
    size_t n_stack = s->n_stack;
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
    forget(s, n_stack);
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

/* Copies stack i of `old` to s; moved [n]: where those copied before went, + 1. */
static pm_status move_stack(struct grammar_state *s, const struct grammar_state *old,
                            uint32_t *moved, uint32_t i, uint32_t *out)
{
    const struct stack *from = &old->stack[i];
    struct frame *frame;
    pm_status status = PM_OK;
    if (moved[i] > 0) {
        *out = moved[i] - 1;
        return PM_OK;
    }
    TRY(alloc_array(&frame, from->n, sizeof *frame, "grammar"));
    for (uint32_t k = 0; k < from->n; k++) {
        frame[k] = old->frame[from->first + k];
        if (frame[k].back == NO_NODE) continue;
        TRY_DONE(move_stack(s, old, moved, frame[k].below, &frame[k].below));
    }
    TRY_DONE(grow_array(&s->frame, &s->frame_capacity, s->n_frame + from->n, sizeof *s->frame));
    memcpy(s->frame + s->n_frame, frame, from->n * sizeof *frame);
    s->n_frame += from->n;
    TRY_DONE(intern(s, from->n, out));
    moved[i] = *out + 1;
done:
    free(frame);
    return status;
}

/* Keeps only the stacks of the places where the text is. */
static pm_status sweep(struct grammar_state *s)
{
    struct grammar_state old = *s;
    uint32_t *moved;
    pm_status status;
    TRY(alloc_array(&moved, s->n_stack, sizeof *moved, "grammar"));
    s->frame = NULL;
    s->stack = NULL;
    s->n_frame = s->frame_capacity = s->n_stack = s->stack_capacity = 0;
    memset(s->bucket, 0, sizeof s->bucket);
    for (int i = 0; i < N_KEPT; i++) {
        s->kept[i].used = 0;
    }
    for (size_t i = 0; i < s->now.n; i++) {
        TRY_DONE(move_stack(s, &old, moved, s->place[i].stack, &s->place[i].stack));
    }
    s->sweep_at = 2 * s->n_stack > FIRST_SWEEP ? 2 * s->n_stack : FIRST_SWEEP;
done:
    free(old.frame);
    free(old.stack);
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
    return status == PM_OK && s->n_stack > s->sweep_at ? sweep(s) : status;
}

bool grammar_complete(const struct grammar_state *s)
{
    return s->now.complete;
}

/* Opening */

static pm_status open_first(struct grammar_state *s)
{
    struct places first;
    uint32_t bottom;
    TRY(push(s, NO_NODE, 0, &bottom));
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
    size_t n_word = ((size_t)v->n_vocab + 31) / 32;
    pm_status status;
    TRY(alloc_array(&s, 1, sizeof *s, "grammar"));
    s->a = &g->automaton;
    s->v = v;
    s->start = g->start;
    s->sweep_at = FIRST_SWEEP;
    TRY_DONE(alloc_array(&s->mark, s->a->n_node, sizeof *s->mark, "grammar"));
    for (int i = 0; i < N_KEPT; i++) {
        TRY_DONE(alloc_array(&s->kept[i].mask, n_word, sizeof *s->kept[i].mask, "grammar"));
    }
    TRY_DONE(open_first(s));
    *out = s;
    s = NULL;
done:
    grammar_state_close(s);
    return status;
}

static pm_status copy_array(void *out, const void *from, size_t n, size_t size)
{
    void *made;
    TRY(alloc_array(&made, n, size, "grammar"));
    if (n > 0) memcpy(made, from, n * size);
    *(void **)out = made;
    return PM_OK;
}

pm_status grammar_state_copy(struct grammar_state **out, const struct grammar_state *from)
{
    struct grammar_state *s;
    size_t n_word = ((size_t)from->v->n_vocab + 31) / 32;
    pm_status status;
    TRY(alloc_array(&s, 1, sizeof *s, "grammar"));
    *s = *from;
    s->place = NULL;
    s->frame = NULL;
    s->stack = NULL;
    s->mark = NULL;
    memset(s->kept, 0, sizeof s->kept);
    s->place_capacity = from->n_place;
    s->frame_capacity = from->n_frame;
    s->stack_capacity = from->n_stack;
    s->epoch = 0;
    TRY_DONE(copy_array(&s->place, from->place, from->n_place, sizeof *s->place));
    TRY_DONE(copy_array(&s->frame, from->frame, from->n_frame, sizeof *s->frame));
    TRY_DONE(copy_array(&s->stack, from->stack, from->n_stack, sizeof *s->stack));
    TRY_DONE(alloc_array(&s->mark, s->a->n_node, sizeof *s->mark, "grammar"));
    for (int i = 0; i < N_KEPT; i++) {
        TRY_DONE(alloc_array(&s->kept[i].mask, n_word, sizeof *s->kept[i].mask, "grammar"));
    }
    *out = s;
    s = NULL;
done:
    grammar_state_close(s);
    return status;
}

void grammar_state_close(struct grammar_state *s)
{
    if (!s) return;
    for (int i = 0; i < N_KEPT; i++) {
        free(s->kept[i].mask);
    }
    free(s->place);
    free(s->frame);
    free(s->stack);
    free(s->mark);
    free(s);
}
