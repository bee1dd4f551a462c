/* server_work.c - one queue, one lock, n threads. */
#include "server_work.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct work {
    pthread_mutex_t lock;
    pthread_cond_t some;
    struct work_item *first, **last;
    bool closing;
    int n_thread, n_busy;
    pthread_t *thread; /* [n_thread] */
};

static void *work_loop(void *arg)
{
    struct work *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct work_item *item = w->first;
        if (!item) {
            /* A busy thread may still push. */
            if (w->closing && w->n_busy == 0) break;
            pthread_cond_wait(&w->some, &w->lock);
            continue;
        }
        w->first = item->next;
        if (!w->first) w->last = &w->first;
        w->n_busy++;
        pthread_mutex_unlock(&w->lock);
        item->run(item->arg);
        pthread_mutex_lock(&w->lock);
        w->n_busy--;
        if (w->closing) pthread_cond_broadcast(&w->some);
    }
    pthread_cond_broadcast(&w->some);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

pm_status work_open(struct work **out, int n_thread)
{
    struct work *w;
    TRY(alloc_array(&w, 1, sizeof *w, "work queue"));
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->some, NULL);
    w->last = &w->first;
    pm_status status = alloc_array(&w->thread, (size_t)n_thread, sizeof *w->thread, "threads");
    for (int i = 0; status == PM_OK && i < n_thread; i++) {
        int error = pthread_create(&w->thread[i], NULL, work_loop, w);
        if (error) {
            status = fail(PM_ERR_IO, "worker thread: %s", strerror(error));
        } else {
            w->n_thread++;
        }
    }
    if (status != PM_OK) {
        work_close(w);
        return status;
    }
    *out = w;
    return PM_OK;
}

void work_close(struct work *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_broadcast(&w->some);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n_thread; i++) {
        pthread_join(w->thread[i], NULL);
    }
    assert(!w->first);
    pthread_cond_destroy(&w->some);
    pthread_mutex_destroy(&w->lock);
    free(w->thread);
    free(w);
}

void work_push(struct work *w, struct work_item *item)
{
    item->next = NULL;
    pthread_mutex_lock(&w->lock);
    *w->last = item;
    w->last = &item->next;
    pthread_cond_signal(&w->some);
    pthread_mutex_unlock(&w->lock);
}
