/* grammar_stack.c - a graph-structured stack (after Tomita), interned.
 *
 * A stack is a set of tops, each with the stack below it, so places that differ only in their
 * past share one. Tops lie sorted in one array, stacks in another, both in the order in which
 * they were made: forgetting the last ones is cutting the arrays, and each of them is the head
 * of its bucket. */
#include "grammar_stack.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void stacks_clear(struct stacks *s)
{
    free(s->frame);
    free(s->stack);
    *s = (struct stacks){0};
}

static uint32_t hash_frames(const struct frame *f, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ f[i].back) * 0x9e3779b97f4a7c15u;
        h = (h ^ f[i].below ^ h >> 32) * 0x9e3779b97f4a7c15u;
    }
    return (uint32_t)(h >> 40) % N_STACK_BUCKET;
}

/* The stack whose n tops lie at the end of `frame`: found, or made. */
static pm_status intern(struct stacks *s, size_t n, uint32_t *out)
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
    TRY(grow_array(&s->stack, &s->capacity, s->n + 1, sizeof *s->stack));
    for (size_t i = first; i < s->n_frame; i++) {
        uint32_t depth = s->frame[i].back == 0 ? 0 : s->stack[s->frame[i].below].depth + 1;
        if (depth > made.depth) made.depth = depth;
    }
    made.next = s->bucket[made.bucket];
    s->stack[s->n++] = made;
    s->bucket[made.bucket] = (uint32_t)s->n;
    *out = (uint32_t)s->n - 1;
    return PM_OK;
}

pm_status stacks_push(struct stacks *s, uint32_t back, uint32_t below, uint32_t *out)
{
    TRY(grow_array(&s->frame, &s->frame_capacity, s->n_frame + 1, sizeof *s->frame));
    s->frame[s->n_frame++] = (struct frame){back, below};
    return intern(s, 1, out);
}

static bool is_before(struct frame a, struct frame b)
{
    return a.back != b.back ? a.back < b.back : a.below < b.below;
}

pm_status stacks_unite(struct stacks *s, uint32_t a, uint32_t b, uint32_t *out)
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

void stacks_forget(struct stacks *s, size_t n)
{
    while (s->n > n) {
        const struct stack *top = &s->stack[--s->n];
        assert(s->bucket[top->bucket] == s->n + 1);
        s->bucket[top->bucket] = top->next;
        s->n_frame = top->first;
    }
}

pm_status stacks_copy(struct stacks *out, const struct stacks *from)
{
    struct stacks copy = *from;
    pm_status status;
    copy.frame = NULL;
    copy.stack = NULL;
    copy.frame_capacity = copy.capacity = 0;
    TRY_DONE(grow_array(&copy.frame, &copy.frame_capacity, from->n_frame, sizeof *copy.frame));
    TRY_DONE(grow_array(&copy.stack, &copy.capacity, from->n, sizeof *copy.stack));
    memcpy(copy.frame, from->frame, from->n_frame * sizeof *copy.frame);
    memcpy(copy.stack, from->stack, from->n * sizeof *copy.stack);
    *out = copy;
    copy = (struct stacks){0};
done:
    stacks_clear(&copy);
    return status;
}

pm_status stacks_move(struct stacks *s, const struct stacks *from, uint32_t *moved, uint32_t i,
                      uint32_t *out)
{
    const struct stack *old = &from->stack[i];
    struct frame *frame;
    pm_status status = PM_OK;
    if (moved[i] > 0) {
        *out = moved[i] - 1;
        return PM_OK;
    }
    TRY(alloc_array(&frame, old->n, sizeof *frame, "grammar"));
    for (uint32_t k = 0; k < old->n; k++) {
        frame[k] = from->frame[old->first + k];
        if (frame[k].back == 0) continue;
        TRY_DONE(stacks_move(s, from, moved, frame[k].below, &frame[k].below));
    }
    TRY_DONE(grow_array(&s->frame, &s->frame_capacity, s->n_frame + old->n, sizeof *s->frame));
    memcpy(s->frame + s->n_frame, frame, old->n * sizeof *frame);
    s->n_frame += old->n;
    TRY_DONE(intern(s, old->n, out));
    moved[i] = *out + 1;
done:
    free(frame);
    return status;
}
