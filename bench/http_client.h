/* http_client.h - many HTTP/1.1 exchanges at once with one server, on one thread. */
#ifndef BENCH_HTTP_CLIENT_H
#define BENCH_HTTP_CLIENT_H

#include "bench/http_response.h"

struct http_client;

/* What to ask. Texts are copied. */
struct http_request {
    const char *method, *path; /* "/v1/models"; goes behind the path of the client's URL */
    const char *key;           /* sent as a bearer token; NULL or "": none */
    const char *body;          /* [n_body] JSON; NULL: none */
    size_t n_body;
    int64_t timeout_us; /* of the whole exchange */
};

/* Callbacks come from http_client_wait, where they may start exchanges. */
struct http_handler {
    void (*body)(void *arg, const struct http_response *r, const char *data, size_t n);
    /* Once, last. error NULL: the answer is complete; else what went wrong, in few words. */
    void (*end)(void *arg, const struct http_response *r, const char *error);
};

/* Connects to "http://host[:port][/path]" (port 80 where none is given, IPv6 addresses in
 * brackets; a path's last part "v1" is dropped, since requests name it). Fails when nothing
 * answers there. No TLS. */
pm_status http_client_open(struct http_client **out, const char *url);
/* Exchanges that are still open end with "dropped"; they may not start others. */
void http_client_close(struct http_client *c);

/* Starts an exchange on an idle connection, else on a new one; handler stays the caller's. A
 * failure is one of this request (refused, no descriptors): its `end` is not called. */
pm_status http_client_send(struct http_client *c, const struct http_request *q,
                           const struct http_handler *handler, void *arg);

/* Handles what happens; returns after some of it, or at until_us of the clock now_us(). */
pm_status http_client_wait(struct http_client *c, int64_t until_us);

/* One exchange from start to end: the body in *body, freed with free(). PM_ERR_IO when there
 * was no answer; any status is an answer. */
pm_status http_client_ask(struct http_client *c, const struct http_request *q, int *status,
                          char **body, size_t *n_body);

#endif
