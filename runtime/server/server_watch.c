/* server_watch.c - a table of peers, an epoll set, a thread.
 *
 * Events name a place in the table and how often the place was taken, so an event that was on
 * its way when its connection closed finds another count and is dropped. */
#define _GNU_SOURCE
#include "server_watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum phase { PHASE_FREE, PHASE_HEAD, PHASE_BODY, PHASE_BUSY };
enum { N_EVENT = 64, TICK_MS = 1000, LEFT_US = 1000000 };
static const uint64_t STOP = UINT64_MAX;

struct peer {
    struct peer *next_free;
    void *request; /* while PHASE_BODY or PHASE_BUSY */
    int64_t since_us;
    enum phase phase;
    int fd;
    uint32_t count; /* how often this place was taken */
    bool hung_up;
};

struct watch {
    struct watch_options o;
    pthread_mutex_t lock;
    pthread_t thread;
    int epoll, stop;
    bool started;
    struct peer *peer; /* [o.max_peer] */
    struct peer *free_peer;
};

static void hang_up(struct watch *w, uint64_t name)
{
    struct peer *p = &w->peer[(uint32_t)name];
    void *request = NULL;
    pthread_mutex_lock(&w->lock);
    if (p->phase != PHASE_FREE && p->count == name >> 32) {
        p->hung_up = true;
        request = p->request;
        if (request) w->o.hold(request);
    }
    pthread_mutex_unlock(&w->lock);
    if (request) w->o.gone(request);
}

/* Nothing of an answer was written in these phases, so the socket's output is ours. */
static void end_slow(struct watch *w)
{
    int64_t now = now_us();
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->o.max_peer; i++) {
        struct peer *p = &w->peer[i];
        int64_t limit = p->phase == PHASE_BUSY ? INT64_MAX : w->o.read_us;
        /* libmicrohttpd does not see an end that came in one event with the last bytes. */
        if (p->hung_up && p->phase != PHASE_BUSY) limit = LEFT_US;
        if (now - p->since_us < limit || p->phase == PHASE_FREE) continue;
        if (p->phase == PHASE_BODY && !p->hung_up) {
            ssize_t sent =
                send(p->fd, w->o.too_slow, strlen(w->o.too_slow), MSG_DONTWAIT | MSG_NOSIGNAL);
            (void)sent; /* it is a courtesy */
        }
        shutdown(p->fd, SHUT_RDWR);
        p->since_us = now; /* once is enough; libmicrohttpd closes it */
    }
    pthread_mutex_unlock(&w->lock);
}

static void *watch_loop(void *arg)
{
    struct watch *w = arg;
    int64_t next = now_us() + TICK_MS * 1000;
    for (;;) {
        struct epoll_event event[N_EVENT];
        int n = epoll_wait(w->epoll, event, N_EVENT, TICK_MS);
        for (int i = 0; i < n; i++) {
            if (event[i].data.u64 == STOP) return NULL;
            hang_up(w, event[i].data.u64);
        }
        if (now_us() < next) continue;
        next = now_us() + TICK_MS * 1000;
        end_slow(w);
        if (w->o.tick) w->o.tick(w->o.arg);
    }
}

pm_status watch_open(struct watch **out, const struct watch_options *o)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = STOP};
    struct watch *w;
    pm_status status;
    int error;
    TRY(alloc_array(&w, 1, sizeof *w, "watch"));
    w->o = *o;
    pthread_mutex_init(&w->lock, NULL);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->stop = eventfd(0, EFD_CLOEXEC);
    TRY_DONE(alloc_array(&w->peer, (size_t)o->max_peer, sizeof *w->peer, "connections"));
    for (int i = o->max_peer; i-- > 0;) {
        w->peer[i].next_free = w->free_peer;
        w->free_peer = &w->peer[i];
    }
    if (w->epoll < 0 || w->stop < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->stop, &event)) {
        status = fail(PM_ERR_IO, "epoll: %s", strerror(errno));
        goto done;
    }
    error = pthread_create(&w->thread, NULL, watch_loop, w);
    if (error) {
        status = fail(PM_ERR_IO, "watching thread: %s", strerror(error));
        goto done;
    }
    w->started = true;
    *out = w;
    w = NULL;
done:
    watch_close(w);
    return status;
}

void watch_close(struct watch *w)
{
    if (!w) return;
    if (w->started) {
        uint64_t one = 1;
        /* An eventfd takes eight bytes unless it is full. */
        if (write(w->stop, &one, sizeof one) == (ssize_t)sizeof one) {
            pthread_join(w->thread, NULL);
        }
    }
    if (w->epoll >= 0) close(w->epoll);
    if (w->stop >= 0) close(w->stop);
    pthread_mutex_destroy(&w->lock);
    free(w->peer);
    free(w);
}

struct peer *watch_add(struct watch *w, int fd)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET};
    struct peer *p;
    pthread_mutex_lock(&w->lock);
    p = w->free_peer;
    if (p) {
        w->free_peer = p->next_free;
        *p = (struct peer){
            .since_us = now_us(), .phase = PHASE_HEAD, .fd = fd, .count = p->count + 1};
        event.data.u64 = (uint64_t)p->count << 32 | (uint64_t)(p - w->peer);
        /* Out of memory: the client's hang-up is then noticed with the next write. */
        (void)epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event);
    }
    pthread_mutex_unlock(&w->lock);
    return p;
}

void watch_remove(struct watch *w, struct peer *p)
{
    if (!p) return;
    pthread_mutex_lock(&w->lock);
    (void)epoll_ctl(w->epoll, EPOLL_CTL_DEL, p->fd, NULL);
    p->phase = PHASE_FREE;
    p->request = NULL;
    p->next_free = w->free_peer;
    w->free_peer = p;
    pthread_mutex_unlock(&w->lock);
}

static void set_phase(struct peer *p, enum phase phase)
{
    p->phase = phase;
    p->since_us = now_us();
}

void watch_head(struct watch *w, struct peer *p, void *request)
{
    if (!p) return;
    pthread_mutex_lock(&w->lock);
    p->request = request;
    set_phase(p, PHASE_BODY);
    pthread_mutex_unlock(&w->lock);
}

void watch_body(struct watch *w, struct peer *p)
{
    void *request = NULL;
    if (!p) return;
    pthread_mutex_lock(&w->lock);
    set_phase(p, PHASE_BUSY);
    if (p->hung_up) {
        request = p->request;
        w->o.hold(request);
    }
    pthread_mutex_unlock(&w->lock);
    if (request) w->o.gone(request);
}

void watch_answered(struct watch *w, struct peer *p)
{
    if (!p) return;
    pthread_mutex_lock(&w->lock);
    p->request = NULL;
    set_phase(p, PHASE_HEAD);
    pthread_mutex_unlock(&w->lock);
}
