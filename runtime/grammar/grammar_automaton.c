/* grammar_automaton.c - nodes, links, and how deep the shortest way to the end goes.
 *
 * An automaton is a set of small machines over bytes. A machine may call another one, as a
 * schema speaks of others by reference: the caller's node goes on a stack, and the end of the
 * called machine comes back to it. Free strings, the most frequent thing in JSON, are not built
 * from links: each is a group of nodes that share one transition function, chars_step, and a
 * count of characters that the follower of the text keeps.
 *
 * `need` of a node is the smallest number of frames that must still go on the stack before the
 * end of its machine: max over the calls on a way, min over the ways. It is found by relaxing
 * predecessors until nothing gets smaller. With it the follower takes a link only if what is
 * left of the depth suffices to finish, so a text can never run into the limit, and a node from
 * which no end can be reached (NEED_NEVER) is never entered. */
#include "grammar_automaton.h"

#include <assert.h>
#include <stdlib.h>

#include "grammar.h"

/* Characters of strings */

enum {
    SUB_TAIL = 2, /* one continuation byte to come */
    SUB_TAIL_2,   /* two, and so on */
    SUB_E0,
    SUB_ED,
    SUB_F0,
    SUB_TAIL_3,
    SUB_F4,
    SUB_HEX_4 = CHARS_HEX, /* four digits to come */
    SUB_HEX_3,
    SUB_HEX_2,
    SUB_HEX_1,
    SUB_D, /* \uD: three to come, and the next one tells surrogates */
    SUB_HIGH_2,
    SUB_HIGH_1,
    SUB_LOW_ESCAPE, /* behind a high surrogate */
    SUB_LOW_U,
    SUB_LOW_D,
    SUB_LOW,
    SUB_LAST_HEX_2
};

static bool is_between(unsigned char byte, int low, int high)
{
    return byte >= low && byte <= high;
}

static bool is_hexadecimal(unsigned char byte)
{
    return is_between(byte, '0', '9') || is_between(byte | 32, 'a', 'f');
}

static int start_step(unsigned char byte)
{
    if (byte == '"') return CHARS_QUOTE;
    if (byte == '\\') return CHARS_ESCAPE;
    if (byte < 0x20) return CHARS_NONE;
    if (byte < 0x80) return CHARS_DONE;
    if (byte < 0xc2 || byte > 0xf4) return CHARS_NONE;
    if (byte < 0xe0) return SUB_TAIL;
    if (byte < 0xf0) return byte == 0xe0 ? SUB_E0 : byte == 0xed ? SUB_ED : SUB_TAIL_2;
    return byte == 0xf0 ? SUB_F0 : byte == 0xf4 ? SUB_F4 : SUB_TAIL_3;
}

static int escape_step(unsigned char byte)
{
    switch (byte) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't': return CHARS_DONE;
    case 'u': return SUB_HEX_4;
    }
    return CHARS_NONE;
}

static int hex_step(int sub, unsigned char byte)
{
    if (!is_hexadecimal(byte)) return CHARS_NONE;
    switch (sub) {
    case SUB_HEX_4: return (byte | 32) == 'd' ? SUB_D : SUB_HEX_3;
    case SUB_HEX_3: return SUB_HEX_2;
    case SUB_HEX_2:
    case SUB_LAST_HEX_2: return SUB_HEX_1;
    case SUB_D:
        if (is_between(byte, '0', '7')) return SUB_HEX_2;
        return is_between(byte, '8', '9') || is_between(byte | 32, 'a', 'b') ? SUB_HIGH_2
                                                                             : CHARS_NONE;
    case SUB_HIGH_2: return SUB_HIGH_1;
    case SUB_HIGH_1: return SUB_LOW_ESCAPE;
    }
    return CHARS_DONE;
}

int chars_step(int sub, unsigned char byte)
{
    switch (sub) {
    case CHARS_START: return start_step(byte);
    case CHARS_ESCAPE: return escape_step(byte);
    case SUB_TAIL: return is_between(byte, 0x80, 0xbf) ? CHARS_DONE : CHARS_NONE;
    case SUB_TAIL_2: return is_between(byte, 0x80, 0xbf) ? SUB_TAIL : CHARS_NONE;
    case SUB_E0: return is_between(byte, 0xa0, 0xbf) ? SUB_TAIL : CHARS_NONE;
    case SUB_ED: return is_between(byte, 0x80, 0x9f) ? SUB_TAIL : CHARS_NONE;
    case SUB_F0: return is_between(byte, 0x90, 0xbf) ? SUB_TAIL_2 : CHARS_NONE;
    case SUB_TAIL_3: return is_between(byte, 0x80, 0xbf) ? SUB_TAIL_2 : CHARS_NONE;
    case SUB_F4: return is_between(byte, 0x80, 0x8f) ? SUB_TAIL_2 : CHARS_NONE;
    case SUB_LOW_ESCAPE: return byte == '\\' ? SUB_LOW_U : CHARS_NONE;
    case SUB_LOW_U: return byte == 'u' ? SUB_LOW_D : CHARS_NONE;
    case SUB_LOW_D: return (byte | 32) == 'd' ? SUB_LOW : CHARS_NONE;
    case SUB_LOW: return is_between(byte | 32, 'c', 'f') ? SUB_LAST_HEX_2 : CHARS_NONE;
    }
    return hex_step(sub, byte);
}

/* Building */

void automaton_init(struct automaton *a, size_t max_node)
{
    *a = (struct automaton){.n_node = 1, .max_node = max_node};
    a->status = grow_array(&a->node, &a->node_capacity, 1, sizeof *a->node);
    if (a->status == PM_OK) a->node[0] = (struct node){0};
}

void automaton_clear(struct automaton *a)
{
    free(a->node);
    free(a->link);
    free(a->strings);
    *a = (struct automaton){0};
}

uint32_t automaton_node(struct automaton *a)
{
    if (a->status == PM_OK && a->n_node >= a->max_node) {
        a->status = fail(PM_ERR_ARG, "too complex: more than %zu states", a->max_node);
    }
    if (a->status == PM_OK) {
        a->status = grow_array(&a->node, &a->node_capacity, a->n_node + 1, sizeof *a->node);
    }
    if (a->status != PM_OK) return NO_NODE;
    a->node[a->n_node] = (struct node){.first = UINT32_MAX};
    return (uint32_t)a->n_node++;
}

static void put_link(struct automaton *a, uint32_t from, struct link link)
{
    if (a->status == PM_OK && a->n_link >= 16 * a->max_node) {
        a->status = fail(PM_ERR_ARG, "too complex: more than %zu ways", a->n_link);
    }
    if (a->status == PM_OK) {
        a->status = grow_array(&a->link, &a->link_capacity, a->n_link + 1, sizeof *a->link);
    }
    if (a->status != PM_OK) return;
    assert(from < a->n_node && link.to < a->n_node && link.back < a->n_node);
    link.next = a->node[from].first;
    a->link[a->n_link] = link;
    a->node[from].first = (uint32_t)a->n_link++;
}

void automaton_range(struct automaton *a, uint32_t from, int low, int high, uint32_t to)
{
    put_link(a, from, (struct link){.to = to, .low = (uint8_t)low, .high = (uint8_t)high});
}

void automaton_jump(struct automaton *a, uint32_t from, uint32_t to)
{
    put_link(a, from, (struct link){.to = to, .jump = true});
}

void automaton_call(struct automaton *a, uint32_t from, uint32_t callee, uint32_t back)
{
    put_link(a, from, (struct link){.to = callee, .back = back, .jump = true});
}

void automaton_accept(struct automaton *a, uint32_t node)
{
    if (a->status == PM_OK) a->node[node].accept = true;
}

uint32_t automaton_text(struct automaton *a, uint32_t from, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t to = automaton_node(a);
        automaton_range(a, from, (unsigned char)text[i], (unsigned char)text[i], to);
        from = to;
    }
    return from;
}

uint32_t automaton_string(struct automaton *a, int min, int max, uint32_t to)
{
    uint32_t first = NO_NODE;
    if (a->status != PM_OK) return NO_NODE;
    a->status =
        grow_array(&a->strings, &a->strings_capacity, a->n_strings + 1, sizeof *a->strings);
    if (a->status != PM_OK) return NO_NODE;
    a->strings[a->n_strings++] = (struct string_range){to, min, max};
    for (int sub = 0; sub < CHARS_NODES; sub++) {
        uint32_t node = automaton_node(a);
        if (a->status != PM_OK) return NO_NODE;
        if (sub == 0) first = node;
        a->node[node].chars = (uint32_t)a->n_strings;
        a->node[node].sub = (uint8_t)sub;
    }
    return first;
}

/* Freezing */

static pm_status lay_links(struct automaton *a)
{
    struct link *laid;
    size_t n = 0;
    TRY(alloc_array(&laid, a->n_link, sizeof *laid, "grammar"));
    for (size_t i = 1; i < a->n_node; i++) {
        struct node *node = &a->node[i];
        size_t first = n;
        for (int jumps = 0; jumps < 2; jumps++) {
            for (uint32_t l = node->first; l != UINT32_MAX; l = a->link[l].next) {
                if (a->link[l].jump == (bool)jumps) laid[n++] = a->link[l];
            }
            if (!jumps) node->n_byte = (uint32_t)(n - first);
        }
        node->n_jump = (uint32_t)(n - first) - node->n_byte;
        node->first = (uint32_t)first;
    }
    free(a->link);
    a->link = laid;
    a->link_capacity = n;
    return PM_OK;
}

/* The need of a node from those of the nodes behind it. */
static uint16_t need_of(const struct automaton *a, const struct node *node)
{
    int best = node->accept ? 0 : NEED_NEVER;
    if (node->chars) best = a->node[a->strings[node->chars - 1].to].need;
    for (uint32_t l = node->first; l < node->first + node->n_byte + node->n_jump; l++) {
        const struct link *link = &a->link[l];
        int need = a->node[link->to].need;
        if (link->back != NO_NODE && need < NEED_NEVER) {
            int rest = a->node[link->back].need;
            need = need + 1 > rest ? need + 1 : rest;
        }
        if (need < best) best = need;
    }
    return best > GRAMMAR_MAX_DEPTH ? NEED_NEVER : (uint16_t)best;
}

/* Who must be looked at again when the need of a node falls. */
struct before {
    uint32_t *start; /* [n_node + 2] */
    uint32_t *from;  /* from[start[i]] .. from[start[i + 1] - 1] lead to i */
};

/* Calls visit(i, j) for each i that depends on j. */
static void count_or_place(const struct automaton *a, struct before *b, bool place)
{
    for (uint32_t i = 1; i < a->n_node; i++) {
        const struct node *node = &a->node[i];
        uint32_t target[2] = {NO_NODE, NO_NODE};
        for (uint32_t l = 0; l <= node->n_byte + node->n_jump; l++) {
            bool links = l < node->n_byte + node->n_jump;
            target[0] = links         ? a->link[node->first + l].to
                        : node->chars ? a->strings[node->chars - 1].to
                                      : NO_NODE;
            target[1] = links ? a->link[node->first + l].back : NO_NODE;
            for (int t = 0; t < 2; t++) {
                if (target[t] == NO_NODE) continue;
                if (place) {
                    b->from[b->start[target[t] + 1]++] = i;
                } else {
                    b->start[target[t] + 2]++;
                }
            }
        }
    }
}

static pm_status relax(struct automaton *a, const struct before *b)
{
    uint32_t *queue;
    bool *waits = NULL;
    size_t first = 0, n = 0;
    pm_status status;
    TRY(alloc_array(&queue, a->n_node, sizeof *queue, "grammar"));
    TRY_DONE(alloc_array(&waits, a->n_node, sizeof *waits, "grammar"));
    for (size_t i = 1; i < a->n_node; i++) {
        a->node[i].need = NEED_NEVER;
        queue[n++] = (uint32_t)(a->n_node - i); /* ends are mostly built last */
        waits[i] = true;
    }
    while (n > 0) {
        uint32_t i = queue[first];
        uint16_t need = need_of(a, &a->node[i]);
        first = (first + 1) % a->n_node;
        n--;
        waits[i] = false;
        if (need >= a->node[i].need) continue;
        a->node[i].need = need;
        for (uint32_t k = b->start[i]; k < b->start[i + 1]; k++) {
            if (waits[b->from[k]]) continue;
            waits[b->from[k]] = true;
            queue[(first + n++) % a->n_node] = b->from[k];
        }
    }
done:
    free(waits);
    free(queue);
    return status;
}

static pm_status find_needs(struct automaton *a)
{
    struct before b = {0};
    pm_status status;
    TRY_DONE(alloc_array(&b.start, a->n_node + 2, sizeof *b.start, "grammar"));
    TRY_DONE(alloc_array(&b.from, 2 * a->n_link + a->n_node, sizeof *b.from, "grammar"));
    count_or_place(a, &b, false);
    for (size_t i = 1; i < a->n_node + 2; i++) {
        b.start[i] += b.start[i - 1];
    }
    count_or_place(a, &b, true);
    TRY_DONE(relax(a, &b));
done:
    free(b.start);
    free(b.from);
    return status;
}

pm_status automaton_freeze(struct automaton *a)
{
    TRY(a->status);
    TRY(lay_links(a));
    TRY(find_needs(a));
    for (size_t i = 1; i < a->n_node; i++) {
        struct node *node = &a->node[i];
        node->plain = node->n_jump == 0 && !node->accept && node->need == 0;
    }
    return PM_OK;
}
