/* http_client.c - a load generator's client: epoll, keep-alive, no threads.
 *
 * A connection is idle or carries one exchange. Exchanges take the idle connection used last;
 * servers close idle ones at any time, so that an exchange on a used connection which ends
 * before the first byte of an answer is sent once more on a new one, as browsers do. Waiting
 * until a moment uses a timer descriptor, since epoll counts in milliseconds, which is too
 * coarse to send by a schedule. */
#define _GNU_SOURCE
#include "http_client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "moe/json.h"

enum { MAX_EVENT = 256, READ_BYTES = 65536, CONNECT_S = 5, SCAN_US = 100000 };

struct connection {
    int fd;
    size_t place; /* in the client's list */
    bool busy, used, writing;
    char *out; /* [n_out] the request; [n_sent] of it have been written */
    size_t n_out, n_sent;
    int64_t deadline_us;
    struct http_response response;
    const struct http_handler *handler;
    void *arg;
};

struct http_client {
    int epoll, timer;
    char host[256], base[256]; /* host: as the Host header has it */
    struct sockaddr_storage address;
    socklen_t n_address;
    struct connection **connection; /* [n] */
    size_t n, capacity;
    int64_t next_scan_us;
    char input[READ_BYTES];
};

/* ---- connections */

static pm_status watch(struct http_client *c, int op, int fd, uint32_t events, void *data)
{
    struct epoll_event e = {.events = events, .data.ptr = data};
    if (epoll_ctl(c->epoll, op, fd, &e) == 0) return PM_OK;
    return fail(PM_ERR_IO, "epoll: %s", strerror(errno));
}

static void drop(struct http_client *c, struct connection *k)
{
    c->connection[k->place] = c->connection[--c->n];
    c->connection[k->place]->place = k->place;
    close(k->fd);
    http_response_free(&k->response);
    free(k->out);
    free(k);
}

static pm_status connection_new(struct connection **out, struct http_client *c, int fd)
{
    struct connection *k;
    int on = 1;
    TRY(grow_array(&c->connection, &c->capacity, c->n + 1, sizeof(struct connection *)));
    TRY(alloc_array(&k, 1, sizeof *k, "connection"));
    k->fd = fd;
    pm_status status = watch(c, EPOLL_CTL_ADD, fd, EPOLLIN, k);
    if (status != PM_OK) {
        free(k);
        return status;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    k->place = c->n;
    c->connection[c->n++] = k;
    *out = k;
    return PM_OK;
}

static pm_status connection_start(struct connection **out, struct http_client *c)
{
    int fd = socket(c->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    pm_status status;
    if (fd < 0) return fail(PM_ERR_IO, "%s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&c->address, c->n_address) != 0 &&
        errno != EINPROGRESS) {
        status = fail(PM_ERR_IO, "%s", strerror(errno));
    } else {
        status = connection_new(out, c, fd);
    }
    if (status != PM_OK) close(fd);
    return status;
}

/* ---- an exchange */

static void finish(struct http_client *c, struct connection *k, const char *error)
{
    const struct http_handler *handler = k->handler;
    struct http_response answer = k->response;
    void *arg = k->arg;
    free(k->out);
    k->out = NULL;
    k->busy = false;
    k->used = true;
    if (error || !answer.keep_alive) {
        drop(c, k);
    } else {
        http_response_reset(&k->response);
    }
    answer.line = NULL;
    handler->end(arg, &answer, error);
}

/* Writes what the socket takes. */
static void write_some(struct http_client *c, struct connection *k)
{
    while (k->n_sent < k->n_out) {
        ssize_t n =
            send(k->fd, k->out + k->n_sent, k->n_out - k->n_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break; /* full, or broken: then reading says how */
        k->n_sent += (size_t)n;
    }
    if (k->writing != (k->n_sent < k->n_out)) {
        k->writing = !k->writing;
        watch(c, EPOLL_CTL_MOD, k->fd, k->writing ? EPOLLIN | EPOLLOUT : EPOLLIN, k);
    }
}

/* Once more on a new connection. */
static void send_again(struct http_client *c, struct connection *old, const char *error)
{
    struct connection *k;
    if (connection_start(&k, c) != PM_OK) {
        finish(c, old, error);
        return;
    }
    k->busy = true;
    k->out = old->out;
    k->n_out = old->n_out;
    k->deadline_us = old->deadline_us;
    k->handler = old->handler;
    k->arg = old->arg;
    old->out = NULL;
    drop(c, old);
    write_some(c, k);
}

/* The peer closed, or the connection broke with `error`. */
static void closed(struct http_client *c, struct connection *k, const char *error)
{
    if (!k->busy) {
        drop(c, k);
    } else if (k->used && k->response.status == 0 && k->response.n_line == 0) {
        send_again(c, k, error ? error : "closed before an answer");
    } else if (!error && http_response_close(&k->response) == PM_OK) {
        finish(c, k, NULL);
    } else {
        finish(c, k,
               error                ? error
               : k->response.status ? "closed in an answer"
                                    : "closed before an answer");
    }
}

static void pass_body(void *arg, const char *data, size_t n)
{
    const struct connection *k = arg;
    k->handler->body(k->arg, &k->response, data, n);
}

static void read_some(struct http_client *c, struct connection *k)
{
    ssize_t n = recv(k->fd, c->input, sizeof c->input, MSG_DONTWAIT);
    size_t used;
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) {
        closed(c, k, n < 0 ? strerror(errno) : NULL);
    } else if (!k->busy) {
        drop(c, k); /* what nobody asked for */
    } else if (http_response_feed(&k->response, c->input, (size_t)n, &used, pass_body, k) !=
               PM_OK) {
        finish(c, k, "malformed answer");
    } else if (k->response.state == HTTP_DONE) {
        finish(c, k, used < (size_t)n ? "bytes after the answer" : NULL);
    }
}

static pm_status put_request(char **out, size_t *n, const struct http_client *c,
                             const struct http_request *q)
{
    struct json_out o = {0};
    bool has_key = q->key && *q->key;
    json_put(&o, "%s %s%s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n", q->method, c->base, q->path,
             c->host);
    if (has_key) json_put(&o, "Authorization: Bearer %s\r\n", q->key);
    if (q->body) {
        json_put(&o, "Content-Type: application/json\r\nContent-Length: %zu\r\n", q->n_body);
    }
    json_put(&o, "\r\n");
    if (q->body) json_put(&o, "%.*s", (int)q->n_body, q->body);
    if (o.status != PM_OK) {
        free(o.text);
        return o.status;
    }
    *out = o.text;
    *n = o.n;
    return PM_OK;
}

pm_status http_client_send(struct http_client *c, const struct http_request *q,
                           const struct http_handler *handler, void *arg)
{
    struct connection *k = NULL;
    char *out = NULL;
    size_t n_out = 0;
    TRY(put_request(&out, &n_out, c, q));
    for (size_t i = c->n; i > 0 && !k; i--) {
        if (!c->connection[i - 1]->busy) k = c->connection[i - 1];
    }
    pm_status status = k ? PM_OK : connection_start(&k, c);
    if (status != PM_OK) {
        free(out);
        return status;
    }
    k->busy = true;
    k->out = out;
    k->n_out = n_out;
    k->n_sent = 0;
    k->handler = handler;
    k->arg = arg;
    k->deadline_us = now_us() + q->timeout_us;
    write_some(c, k);
    return PM_OK;
}

/* ---- waiting */

static void end_late(struct http_client *c)
{
    int64_t now = now_us();
    if (now < c->next_scan_us) return;
    c->next_scan_us = now + SCAN_US;
    for (size_t i = c->n; i > 0; i--) {
        struct connection *k = i <= c->n ? c->connection[i - 1] : NULL;
        if (k && k->busy && k->deadline_us <= now) finish(c, k, "timed out");
    }
}

pm_status http_client_wait(struct http_client *c, int64_t until_us)
{
    struct epoll_event event[MAX_EVENT];
    struct itimerspec at = {
        .it_value = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000 + 1}};
    int n;
    timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &at, NULL);
    n = epoll_wait(c->epoll, event, MAX_EVENT, SCAN_US / 1000);
    if (n < 0 && errno != EINTR) return fail(PM_ERR_IO, "epoll: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        struct connection *k = event[i].data.ptr;
        if (!k) continue; /* the timer */
        if (event[i].events & EPOLLOUT) write_some(c, k);
        if (event[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_some(c, k);
    }
    end_late(c);
    return PM_OK;
}

struct answer {
    struct json_out body;
    int status;
    bool done;
    char error[128];
};

static void keep_body(void *arg, const struct http_response *r, const char *data, size_t n)
{
    struct answer *a = arg;
    (void)r;
    json_put(&a->body, "%.*s", (int)n, data);
}

static void keep_end(void *arg, const struct http_response *r, const char *error)
{
    struct answer *a = arg;
    a->done = true;
    a->status = r->status;
    snprintf(a->error, sizeof a->error, "%s", error ? error : "");
}

pm_status http_client_ask(struct http_client *c, const struct http_request *q, int *status,
                          char **body, size_t *n_body)
{
    static const struct http_handler handler = {keep_body, keep_end};
    struct answer a = {0};
    pm_status result = http_client_send(c, q, &handler, &a);
    while (result == PM_OK && !a.done) {
        result = http_client_wait(c, now_us() + SCAN_US);
    }
    json_put(&a.body, "%s", ""); /* an empty body is a text too */
    if (result == PM_OK) result = a.body.status;
    if (result == PM_OK && a.error[0]) result = fail(PM_ERR_IO, "%s", a.error);
    if (result != PM_OK) {
        free(a.body.text);
        return fail_prefix(result, "%s %s", q->method, q->path);
    }
    *status = a.status;
    *body = a.body.text;
    *n_body = a.body.n;
    return PM_OK;
}

/* ---- opening */

/* Cuts a URL into the Host header's text, host, port and the path in front of requests. */
static pm_status cut_url(struct http_client *c, char host[256], char port[8], const char *url)
{
    const char *p = url + 7, *end, *colon;
    size_t n;
    if (strncmp(url, "http://", 7) != 0) {
        return fail(PM_ERR_ARG, "url: found \"%s\", wanted http://HOST:PORT", url);
    }
    n = strcspn(p, "/");
    snprintf(c->base, sizeof c->base, "%s", p + n);
    while (*c->base && c->base[strlen(c->base) - 1] == '/') {
        c->base[strlen(c->base) - 1] = 0;
    }
    end = c->base + strlen(c->base);
    if (end - c->base >= 3 && strcmp(end - 3, "/v1") == 0) c->base[end - c->base - 3] = 0;
    if (!n || n >= sizeof c->host) return fail(PM_ERR_ARG, "url: found \"%s\"", url);
    memcpy(c->host, p, n);
    c->host[n] = 0;
    colon = strrchr(c->host, ':');
    if (colon && strchr(colon, ']')) colon = NULL;
    snprintf(port, 8, "%.7s", colon ? colon + 1 : "80");
    n = colon ? (size_t)(colon - c->host) : strlen(c->host);
    p = c->host;
    if (n > 2 && p[0] == '[' && p[n - 1] == ']') {
        p++;
        n -= 2;
    }
    memcpy(host, p, n);
    host[n] = 0;
    return PM_OK;
}

/* The first of the host's addresses where something listens, and the connection to it. */
static pm_status connect_first(struct http_client *c, const char *url, const char *host,
                               const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL, *a;
    struct timeval limit = {.tv_sec = CONNECT_S};
    struct connection *k;
    int code = getaddrinfo(host, port, &hints, &list), fd = -1;
    pm_status status = fail(PM_ERR_IO, "%s: no address", url);
    if (code != 0) return fail(PM_ERR_IO, "%s: %s", url, gai_strerror(code));
    for (a = list; a; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        status = fail(PM_ERR_IO, "%s: %s", url, strerror(errno));
        if (fd >= 0) close(fd);
    }
    if (a) {
        memcpy(&c->address, a->ai_addr, a->ai_addrlen);
        c->n_address = a->ai_addrlen;
        status = connection_new(&k, c, fd);
        if (status == PM_OK) k->used = true;
    }
    freeaddrinfo(list);
    return status;
}

pm_status http_client_open(struct http_client **out, const char *url)
{
    struct http_client *c;
    char host[256], port[8];
    pm_status status;
    TRY(alloc_array(&c, 1, sizeof *c, "client"));
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (c->epoll < 0 || c->timer < 0) {
        status = fail(PM_ERR_IO, "epoll: %s", strerror(errno));
        goto done;
    }
    TRY_DONE(watch(c, EPOLL_CTL_ADD, c->timer, EPOLLIN, NULL));
    TRY_DONE(cut_url(c, host, port, url));
    TRY_DONE(connect_first(c, url, host, port));
    *out = c;
    c = NULL;
done:
    http_client_close(c);
    return status;
}

void http_client_close(struct http_client *c)
{
    if (!c) return;
    while (c->n) {
        struct connection *k = c->connection[c->n - 1];
        if (k->busy) {
            finish(c, k, "dropped");
        } else {
            drop(c, k);
        }
    }
    free(c->connection);
    if (c->timer >= 0) close(c->timer);
    if (c->epoll >= 0) close(c->epoll);
    free(c);
}
