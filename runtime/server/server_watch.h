/* server_watch.h - connections from outside: who hung up, who is too slow.
 *
 * libmicrohttpd looks at a connection only while it may read or write on it. A connection that
 * waits for the engine is suspended, so its client may be gone for minutes unnoticed. One
 * thread here waits for all sockets' hang-ups (EPOLLRDHUP: the peer closed, or closed its
 * half) and, once a second, looks for requests that take too long to arrive.
 *
 * A client that closes its sending half while its request is in work counts as gone. */
#ifndef RUNTIME_SERVER_WATCH_H
#define RUNTIME_SERVER_WATCH_H

#include "kernels/base.h"

struct watch;
struct peer; /* one connection */

struct watch_options {
    int max_peer;
    int64_t read_us; /* from the opening, or the last answer, to the end of the next head; and
                        from there to the end of the body */
    /* The peer's request lost its client; any thread may call it, it takes over one reference.
     */
    void (*gone)(void *request);
    void (*hold)(void *request); /* takes a reference, under the watch's lock */
    const char *too_slow;        /* a whole HTTP answer for a body that did not come in time */
    void (*tick)(void *arg);     /* NULL, or called about once a second */
    void *arg;
};

pm_status watch_open(struct watch **out, const struct watch_options *o);
void watch_close(struct watch *w);

/* A connection opened and closed; the socket must still be open for both. NULL when the table
 * is full, which is then simply not watched. */
struct peer *watch_add(struct watch *w, int fd);
void watch_remove(struct watch *w, struct peer *p);

/* Its request: head read, body read, answered. p may be NULL. */
void watch_head(struct watch *w, struct peer *p, void *request);
void watch_body(struct watch *w, struct peer *p);
void watch_answered(struct watch *w, struct peer *p);

#endif
