/* server_work.h - a few threads for what would hold up a connection's thread: tokenising,
 * templates, long answers, and freeing what must be waited for.
 *
 * Items live inside the objects that they work on, so pushing one cannot fail. */
#ifndef RUNTIME_SERVER_WORK_H
#define RUNTIME_SERVER_WORK_H

#include "kernels/base.h"

struct work;

struct work_item {
    void (*run)(void *arg);
    void *arg;
    struct work_item *next;
};

pm_status work_open(struct work **out, int n_thread);
/* Runs what was pushed, and what that pushes, and ends the threads. */
void work_close(struct work *w);
/* Any thread. The item is the pusher's again when run begins. First in, first out. */
void work_push(struct work *w, struct work_item *item);

#endif
