/* server.c - the daemon: its socket, its limits, what libmicrohttpd calls, and how it ends.
 *
 * libmicrohttpd calls on_request once with a request's head, again with each piece of its body,
 * and at its end; while that leaves the answer open, the connection is suspended, and it is
 * called once more when it was resumed. */
#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <microhttpd.h>

#include "openai.h"
#include "server_inside.h"

enum { POOL_BYTES = 40 << 10, BACKLOG = 1024 };

static const char too_slow[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
                               "Content-Type: application/json\r\nContent-Length: 120\r\n\r\n"
                               "{\"error\":{\"message\":\"the request did not arrive in time\","
                               "\"type\":\"timeout_error\",\"param\":null,\"code\":\"request_"
                               "timeout\"}}\n";

void server_options_init(struct server_options *o)
{
    *o = (struct server_options){.host = "127.0.0.1",
                                 .port = 8000,
                                 .max_body = 8 << 20,
                                 .max_connection = 4096,
                                 .n_thread = 2,
                                 .n_worker = 2,
                                 .read_us = 30000000,
                                 .idle_us = 60000000,
                                 .stuck_us = 30000000,
                                 .ping_us = 15000000};
}

/* ------------------------------------------------------------------ answers */

static void add_header(struct MHD_Response *r, const char *name, const char *value)
{
    /* One that does not fit is left out: each is a help, not a promise. */
    if (value) (void)MHD_add_response_header(r, name, value);
}

static void add_headers(struct call *c, struct MHD_Response *r)
{
    char number[16];
    add_header(r, "Content-Type", c->type);
    add_header(r, "X-Request-Id", c->id);
    add_header(r, "X-Content-Type-Options", "nosniff");
    add_header(r, "Content-Security-Policy", c->policy ? c->policy : "default-src 'none'");
    if (c->stream) {
        add_header(r, "Cache-Control", "no-cache");
        add_header(r, "X-Accel-Buffering", "no"); /* a proxy shall not gather the events */
    }
    if (c->retry_s) {
        snprintf(number, sizeof number, "%d", c->retry_s);
        add_header(r, "Retry-After", number);
    }
    if (c->http == 401) {
        bool page = c->route && strcmp(c->route->path, "/") == 0;
        add_header(r, "WWW-Authenticate",
                   page ? "Basic realm=\"polymath\", charset=\"UTF-8\"" : "Bearer");
    }
    if (c->http == 405) {
        char allow[32];
        snprintf(allow, sizeof allow, "%s%s%s",
                 c->route->methods & METHOD_GET ? "GET, HEAD, " : "",
                 c->route->methods & METHOD_POST ? "POST, " : "",
                 c->route->methods & METHOD_DELETE ? "DELETE, " : "");
        allow[strlen(allow) - 2] = 0;
        add_header(r, "Allow", allow);
    }
    if (c->close || atomic_load(&c->server->state) == SERVER_DRAINING) {
        add_header(r, "Connection", "close");
    }
    if (c->origin) {
        add_header(r, "Access-Control-Allow-Origin", c->origin);
        add_header(r, "Vary", "Origin");
        if (c->http == 204) {
            add_header(r, "Access-Control-Allow-Methods", "GET, POST, DELETE");
            add_header(r, "Access-Control-Allow-Headers", "Authorization, Content-Type");
            add_header(r, "Access-Control-Max-Age", "600");
        }
    }
}

static enum MHD_Result send_answer(struct call *c)
{
    struct MHD_Response *r;
    enum MHD_Result result;
    if (c->stream) {
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, call_read, c, NULL);
    } else if (c->fixed) {
        r = MHD_create_response_from_buffer(c->n_fixed, (void *)c->fixed,
                                            MHD_RESPMEM_PERSISTENT);
    } else {
        /* The call lives until the request is completed, and so does the text. */
        r = MHD_create_response_from_buffer(c->answer.n, c->answer.text,
                                            MHD_RESPMEM_PERSISTENT);
    }
    if (!r) return MHD_queue_response(c->connection, 503, c->server->no_memory);
    add_headers(c, r);
    result = MHD_queue_response(c->connection, (unsigned)c->http, r);
    MHD_destroy_response(r);
    atomic_fetch_add_explicit(&c->server->metrics.response[c->http / 100 - 1], 1,
                              memory_order_relaxed);
    return result;
}

/* ------------------------------------------------------------------ libmicrohttpd calls */

static struct call *begin(struct server *s, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct call *c = call_new(s);
    if (!c) return NULL;
    c->connection = connection;
    c->peer = info ? info->socket_context : NULL;
    c->max_body = s->o.max_body;
    watch_head(s->watch, c->peer, c);
    return c;
}

/* A body without a length that grows too long is read on and forgotten, as much again as was
 * allowed, so that the client gets to read its answer. */
static enum MHD_Result take_body(struct call *c, const char *data, size_t *n)
{
    if (c->n_over == 0 && c->n_body + *n <= c->max_body) {
        size_t capacity = c->body_capacity;
        if (c->starved || grow_array(&c->body, &capacity, c->n_body + *n + 1, 1) != PM_OK) {
            c->starved = true;
            *n = 0;
            return MHD_YES;
        }
        c->body_capacity = capacity;
        memcpy(c->body + c->n_body, data, *n);
        c->n_body += *n;
        c->body[c->n_body] = 0;
    } else {
        c->n_over += *n;
        if (c->n_over > c->max_body) return MHD_NO;
    }
    *n = 0;
    return MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection,
                                  const char *path, const char *method, const char *version,
                                  const char *data, size_t *n, void **context)
{
    struct call *c = *context;
    if (!c) {
        struct server *s = arg;
        *context = c = begin(s, connection);
        if (!c) return MHD_queue_response(connection, 503, s->no_memory);
        if (call_is_gone(c)) return MHD_NO;
        if (!server_judge(c, path, method, version)) return MHD_YES;
        /* What follows was not looked at: it must not be taken for another request. */
        c->close = true;
        watch_body(s->watch, c->peer);
        return send_answer(c);
    }
    if (*n > 0) return take_body(c, data, n);
    if (!c->body_read) {
        c->body_read = true;
        watch_body(c->server->watch, c->peer);
        if (c->n_over > 0) {
            call_refuse(c, 413, "body_too_large", NULL, "the body has more than %zu bytes",
                        c->max_body);
            c->close = true;
            return send_answer(c);
        }
        if (c->starved) {
            call_refuse_status(c, PM_ERR_NOMEM, NULL);
            return send_answer(c);
        }
        if (c->route->kind < ROUTE_WORK) {
            c->route->run(c);
            return send_answer(c);
        }
        call_work(c);
    }
    if (call_wait(c)) return send_answer(c);
    return call_is_gone(c) ? MHD_NO : MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct server *s = arg;
    struct call *c = *context;
    (void)connection;
    (void)code;
    if (!c) return;
    *context = NULL;
    watch_answered(s->watch, c->peer);
    call_completed(c);
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct server *s = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *fd =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        int one = 1;
        *context = fd ? watch_add(s->watch, fd->connect_fd) : NULL;
        /* A machine that vanished never closes; a socket that is no TCP one need not. */
        if (fd) (void)setsockopt(fd->connect_fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    } else {
        watch_remove(s->watch, *context);
        *context = NULL;
    }
}

/* Its complaints are about what clients did, but for one: a thread of it that has no connection
 * and finds no descriptor for the first one tries again at once, for ever. It has nobody to
 * serve meanwhile, so it may sleep here. */
static void quiet(void *arg, const char *format, va_list args)
{
    static const struct timespec pause = {0, 20000000};
    (void)arg;
    (void)args;
    if (strstr(format, "limit at FIRST connection")) nanosleep(&pause, NULL);
}

/* ------------------------------------------------------------------ open and close */

static pm_status bind_address(int *out, const struct addrinfo *a)
{
    int one = 1, fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail(PM_ERR_IO, "socket: %s", strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int error = errno;
        close(fd);
        return fail(PM_ERR_IO, "bind: %s", strerror(error));
    }
    *out = fd;
    return PM_OK;
}

static pm_status listen_at(int *out, int *port, const char *host, int wanted)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list = NULL;
    struct sockaddr_storage address;
    socklen_t n_address = sizeof address;
    char service[16], number[16];
    pm_status status = PM_OK;
    snprintf(service, sizeof service, "%d", wanted);
    int error = getaddrinfo(host, service, &hints, &list);
    if (error) return fail(PM_ERR_ARG, "host: found \"%s\": %s", host, gai_strerror(error));
    status = bind_address(out, list);
    freeaddrinfo(list);
    if (status != PM_OK) return fail_prefix(status, "%s port %d", host, wanted);
    if (getsockname(*out, (struct sockaddr *)&address, &n_address) == 0 &&
        getnameinfo((struct sockaddr *)&address, n_address, NULL, 0, number, sizeof number,
                    NI_NUMERICSERV) == 0) {
        *port = atoi(number);
    }
    return PM_OK;
}

static pm_status start_daemon(struct server *s)
{
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                     MHD_USE_ERROR_LOG;
    int fd = -1;
    if (s->o.host) {
        TRY(listen_at(&fd, &s->port, s->o.host, s->o.port));
    } else {
        flags |= MHD_USE_NO_LISTEN_SOCKET;
    }
    struct MHD_OptionItem list[] = {
        {MHD_OPTION_LISTEN_SOCKET, fd, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, quiet, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, s, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.max_connection,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(s->o.idle_us / 1000000),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)(s->o.n_thread > 1 ? s->o.n_thread : 0),
        MHD_OPTION_ARRAY, s->o.host ? list : list + 1, MHD_OPTION_END);
    if (s->daemon) return PM_OK;
    if (fd >= 0) close(fd);
    return fail(PM_ERR_IO, "libmicrohttpd did not start: %s", strerror(errno));
}

static void ping_streams(void *arg)
{
    struct server *s = arg;
    pthread_mutex_lock(&s->lock);
    for (struct call *c = s->calls; c; c = c->next) {
        call_ping(c, s->o.ping_us);
    }
    pthread_mutex_unlock(&s->lock);
}

static void hold_call(void *call)
{
    call_hold(call);
}

static void lose_call(void *call)
{
    call_gone(call);
    call_release(call);
}

pm_status server_open(struct server **out, struct server_options *o)
{
    static const char text[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"unavailable_error\","
        "\"param\":null,\"code\":\"out_of_memory\"}}";
    struct server *s;
    pm_status status;
    struct watch_options w = {.max_peer = o->max_connection,
                              .read_us = o->read_us,
                              .gone = lose_call,
                              .hold = hold_call,
                              .too_slow = too_slow,
                              .tick = ping_streams};
    status = alloc_array(&s, 1, sizeof *s, "server");
    if (status != PM_OK) {
        auth_clear(&o->auth);
        return status;
    }
    s->o = *o;
    o->auth.n = 0;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->less, NULL);
    s->no_memory =
        MHD_create_response_from_buffer(sizeof text - 1, (void *)text, MHD_RESPMEM_PERSISTENT);
    if (!s->no_memory) {
        status = fail(PM_ERR_NOMEM, "server: no memory for a response");
        goto done;
    }
    add_header(s->no_memory, "Content-Type", "application/json");
    w.arg = s;
    TRY_DONE(work_open(&s->work, s->o.n_worker));
    TRY_DONE(watch_open(&s->watch, &w));
    TRY_DONE(start_daemon(s));
    *out = s;
    s = NULL;
done:
    server_close(s);
    return status;
}

pm_status server_attach(struct server *s, pm_engine *engine, const char *path)
{
    s->engine = engine;
    s->path = path;
    s->created_s = (int64_t)time(NULL);
    TRY(pm_engine_info(engine, &s->info));
    TRY(openai_open(&s->openai, engine, path));
    atomic_store(&s->state, SERVER_READY);
    return PM_OK;
}

void server_drain(struct server *s)
{
    atomic_store(&s->state, SERVER_DRAINING);
}

int server_load(struct server *s)
{
    return atomic_load(&s->n_job);
}

int server_port(const struct server *s)
{
    return s->port;
}

pm_status server_add(struct server *s, int fd)
{
    struct sockaddr_storage none = {.ss_family = AF_UNIX};
    if (MHD_add_connection(s->daemon, fd, (struct sockaddr *)&none, sizeof none) == MHD_YES) {
        return PM_OK;
    }
    return fail(PM_ERR_IO, "connection: %s", strerror(errno));
}

/* libmicrohttpd may not end while a connection is suspended, and none is once every call knows
 * that it is over. */
static void end_calls(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    for (struct call *c = s->calls; c; c = c->next) {
        call_gone(c);
    }
    pthread_mutex_unlock(&s->lock);
}

void server_close(struct server *s)
{
    if (!s) return;
    server_drain(s);
    end_calls(s);
    if (s->daemon) MHD_stop_daemon(s->daemon);
    watch_close(s->watch);
    pthread_mutex_lock(&s->lock);
    while (s->n_call > 0) {
        pthread_cond_wait(&s->less, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    work_close(s->work);
    if (s->no_memory) MHD_destroy_response(s->no_memory);
    openai_close(s->openai);
    auth_clear(&s->o.auth);
    pthread_cond_destroy(&s->less);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
