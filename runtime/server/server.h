/* server.h - an engine behind HTTP: the endpoints that OpenAI's clients know, and health.
 *
 * Threads: libmicrohttpd's (epoll, a few for all connections), a watching thread, workers that
 * tokenise and format, and the engine's own. docs/serving.md says what each endpoint takes. */
#ifndef RUNTIME_SERVER_H
#define RUNTIME_SERVER_H

#include "server_auth.h"

struct server;

enum { MAX_SERVED_NAME = 16, MAX_ORIGIN = 16 };

struct server_options {
    const char *host;        /* to bind; NULL: no listening socket, see server_add */
    int port;                /* 0: any free one */
    const char *const *name; /* [n_name] of the model; the first is what answers say */
    int n_name;
    const char *const *origin; /* [n_origin] allowed by CORS, or "*"; none: CORS is off */
    int n_origin;
    struct auth auth; /* taken over, also on failure */
    size_t max_body;  /* bytes of a request */
    int max_connection;
    int n_thread, n_worker;
    int64_t read_us;  /* how long a head, and then a body, may take to arrive */
    int64_t idle_us;  /* without a byte taken by the client */
    int64_t ping_us;  /* a stream that was silent for so long says that it lives */
    int64_t stuck_us; /* an engine without a step for so long is not healthy */
};

/* The defaults of `polymath serve`. */
void server_options_init(struct server_options *o);

/* Binds and answers: health at once, requests with 503 until an engine is attached. Texts of
 * the options are borrowed until server_close. */
pm_status server_open(struct server **out, struct server_options *o);
/* The engine, opened from folder path, is borrowed until server_close. Once. */
pm_status server_attach(struct server *s, pm_engine *engine, const char *path);
/* From now on readiness and new requests are 503; those in work go on. */
void server_drain(struct server *s);
/* Requests in work. */
int server_load(struct server *s);
/* Ends what is still in work. NULL is fine. */
void server_close(struct server *s);

int server_port(const struct server *s);
/* Serves a connected socket as if it had been accepted, and closes it. */
pm_status server_add(struct server *s, int fd);

#endif
