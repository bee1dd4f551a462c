/* grammar_stack.h - stacks with several tops, one number for equal ones. */
#ifndef RUNTIME_GRAMMAR_STACK_H
#define RUNTIME_GRAMMAR_STACK_H

#include "kernels/base.h"

/* One top of a stack: come back to `back` with `below`. The bottom comes back to node 0. */
struct frame {
    uint32_t back, below;
};

struct stack {
    uint32_t first, n;     /* frame[first ..], sorted */
    uint32_t depth;        /* frames above the bottom */
    uint32_t bucket, next; /* next in the bucket, + 1 */
};

enum { N_STACK_BUCKET = 1024 };

/* Starts as {0}. Numbers stay until the stack is forgotten. */
struct stacks {
    struct frame *frame;
    struct stack *stack;
    size_t n_frame, frame_capacity, n, capacity;
    uint32_t bucket[N_STACK_BUCKET]; /* stack + 1 */
};

void stacks_clear(struct stacks *s);

/* The stack that comes back to `back` with `below`. */
pm_status stacks_push(struct stacks *s, uint32_t back, uint32_t below, uint32_t *out);
/* The stack with the tops of both. */
pm_status stacks_unite(struct stacks *s, uint32_t a, uint32_t b, uint32_t *out);
/* Forgets the stacks from n on, which nothing refers to. */
void stacks_forget(struct stacks *s, size_t n);

pm_status stacks_copy(struct stacks *out, const struct stacks *from);
/* Adds stack i of `from`. moved [from->n]: zeros at first, then what went where, + 1. */
pm_status stacks_move(struct stacks *s, const struct stacks *from, uint32_t *moved, uint32_t i,
                      uint32_t *out);

#endif
