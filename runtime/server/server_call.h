/* server_call.h - one HTTP request from its first header to its last byte.
 *
 * A call is made by the connection's thread with the head of a request, fills with its body,
 * and runs its route: at once when that is quick, else on a worker while the connection is
 * suspended. The route answers (call_answer, call_refuse) or starts a job whose output is
 * streamed, or which answers when it is done.
 *
 * Who holds a call: libmicrohttpd until the request is completed, a work item while it is
 * queued or runs, and each of the job's parts until the engine is done with it. The last to let
 * go hands it to a worker, since freeing may wait for a callback of the engine to return. */
#ifndef RUNTIME_SERVER_CALL_H
#define RUNTIME_SERVER_CALL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "moe/json.h"
#include "server_watch.h"
#include "server_work.h"

struct server;
struct call;
struct MHD_Connection;

enum { METHOD_GET = 1, METHOD_POST = 2, METHOD_DELETE = 4 };
enum route_kind {
    ROUTE_OPEN,  /* at once, without a key */
    ROUTE_QUICK, /* at once */
    ROUTE_WORK,  /* on a worker, with an engine */
    ROUTE_MAKE   /* the same, and refused while draining */
};

struct route {
    const char *path; /* where it ends in "{id}" or "{name}", anything, which becomes call.rest;
                         a name may have slashes */
    unsigned methods;
    enum route_kind kind;
    bool (*run)(struct call *c); /* false: its job will answer */
};

extern const struct route route_table[]; /* ends with a NULL path */

/* What a route started and has not answered yet. */
struct job {
    const struct job_calls *calls;
};

struct job_calls {
    /* Appends what is new to out; *end: nothing follows. On the connection's thread. */
    pm_status (*read)(struct call *c, struct json_out *out, bool *end);
    void (*finish)(struct call *c); /* answers; on a worker, after call_finish */
    void (*cancel)(struct job *j);  /* any thread, more than once, must not wait */
    void (*free)(struct job *j);    /* on a worker, when the engine is done with it */
};

struct call {
    struct server *server;
    const struct route *route;
    struct peer *peer;
    struct call *next, **link; /* all calls of the server; under its lock */
    struct work_item item;
    atomic_int n_ref;

    /* set before the route runs */
    uint64_t tenant;
    int64_t arrival_us;
    char id[24]; /* 16 hexadecimal digits */
    char rest[256];
    const char *origin; /* allowed by CORS, or NULL */
    char *body;         /* [n_body] and a closing zero */
    size_t n_body, body_capacity, max_body, n_over;
    bool body_read, starved; /* starved: there was no memory for the body */

    /* the answer; the route's, then the connection's thread's */
    int http; /* status, 0: none yet */
    const char *type;
    struct json_out answer;
    const void *fixed; /* an answer that is not freed, in place of it */
    size_t n_fixed;
    const char *policy; /* Content-Security-Policy */
    bool stream, close;
    int retry_s;

    /* of the stream; the connection's thread's */
    struct json_out out;
    size_t n_sent;
    bool ended;
    atomic_int_fast64_t sent_us; /* when it last had something to send */

    pthread_mutex_t lock;              /* of what follows */
    struct job *job;                   /* set once */
    struct MHD_Connection *connection; /* NULL: completed */
    bool suspended;
    bool ready; /* the answer is there */
    bool woken; /* the stream has news */
    bool ping;  /* it was silent for long */
    bool gone;  /* the client, or the server */
};

/* Routes */

/* The answer is o's text, which is taken over; a failure kept in o becomes the answer. */
void call_answer(struct call *c, int http, const char *type, struct json_out *o);
void call_answer_json(struct call *c, struct json_out *o);
/* An error object of OpenAI's form; code and param may be NULL. */
void call_refuse(struct call *c, int http, const char *code, const char *param,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The same from a failure of this thread. */
void call_refuse_status(struct call *c, pm_status status, const char *param);
/* Writes such an object. */
void put_error(struct json_out *o, int http, const char *code, const char *param,
               const char *message);
int http_of_status(pm_status status, const char **code);

/* What the call does from now on; cancelled at once when the client has gone already. */
void call_set_job(struct call *c, struct job *j);
/* The answer is a stream of events that the job writes. */
void call_stream(struct call *c);

/* Jobs; any thread */

void call_wake(struct call *c);   /* read has news */
void call_finish(struct call *c); /* finish shall run; once */
void call_hold(struct call *c);
/* For who found the call in the server's list, under its lock: false when it is being freed. */
bool call_hold_live(struct call *c);
void call_release(struct call *c);

/* The server's side */

/* NULL: out of memory. */
struct call *call_new(struct server *s);
/* Runs the route on a worker. */
void call_work(struct call *c);
/* On the connection's thread: true when the answer is there, else the connection is suspended
 * unless the call is gone. */
bool call_wait(struct call *c);
/* The client is gone, or the server is closing. */
void call_gone(struct call *c);
bool call_is_gone(struct call *c);
/* A stream that waits and was silent for `us` gets a comment to send, so that proxies keep its
 * connection and a client that is gone without a word is noticed. */
void call_ping(struct call *c, int64_t us);
/* libmicrohttpd is done with it. */
void call_completed(struct call *c);
/* A content reader callback of libmicrohttpd for the stream. */
ssize_t call_read(void *call, uint64_t at, char *buffer, size_t max);

#endif
