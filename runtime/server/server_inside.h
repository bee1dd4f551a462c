/* server_inside.h - the server's state, for its own files and the routes. */
#ifndef RUNTIME_SERVER_INSIDE_H
#define RUNTIME_SERVER_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "metrics.h"
#include "server.h"
#include "server_call.h"

struct MHD_Daemon;
struct MHD_Response;

enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING };

struct server {
    struct server_options o;
    struct MHD_Daemon *daemon;
    struct MHD_Response *no_memory; /* answers when no call can be made */
    struct watch *watch;
    struct work *work;
    int port;

    /* set by server_attach before the state is SERVER_READY */
    pm_engine *engine;
    const char *path;
    pm_info info;
    int64_t created_s; /* of the epoch */
    struct openai *openai;

    _Atomic enum server_state state;
    atomic_bool counts_experts;  /* somebody asked for them */
    atomic_int n_job;            /* that make something */
    atomic_uint_fast64_t n_made; /* calls */
    struct metrics metrics;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t less;  /* a call was freed */
    struct call *calls;
    int n_call;
    bool closing;
};

/* Looks at the head of a request; true when it was answered (server_head.c). */
bool server_judge(struct call *c, const char *path, const char *method, const char *version);

#endif
