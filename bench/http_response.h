/* http_response.h - one HTTP/1.1 answer as it arrives, and the events of an event stream. */
#ifndef BENCH_HTTP_RESPONSE_H
#define BENCH_HTTP_RESPONSE_H

#include "kernels/base.h"

enum http_state {
    HTTP_STATUS, /* lines */
    HTTP_HEADER,
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK_END,
    HTTP_TRAILER,
    HTTP_SIZED, /* bytes */
    HTTP_CHUNK,
    HTTP_UNTIL_CLOSE,
    HTTP_DONE
};

struct http_response {
    int status;        /* 0 until the status line came */
    bool keep_alive;   /* the connection may be used again, once done */
    bool event_stream; /* Content-Type: text/event-stream */
    enum http_state state;
    /* inside */
    bool chunked, sized;
    uint64_t left; /* bytes of the body or chunk */
    char *line;    /* [n_line] a line that has not ended */
    size_t n_line, capacity, n_head;
};

typedef void http_on_body(void *arg, const char *data, size_t n);

/* Makes ready for another answer; a first one starts as {0}. */
void http_response_reset(struct http_response *r);
void http_response_free(struct http_response *r);

/* Takes bytes until the answer is done; *used of n were its own. The body goes to `call` in
 * pieces. PM_ERR_FORMAT: this is not HTTP, or its head is over 64 KiB. */
pm_status http_response_feed(struct http_response *r, const char *data, size_t n, size_t *used,
                             http_on_body *call, void *arg);
/* The peer closed. PM_ERR_IO unless the answer ends there. */
pm_status http_response_close(struct http_response *r);

/* Server-sent events (WHATWG HTML, section 9.2): `data` lines joined by line feeds, one call an
 * event; comments, names and ids are passed over. Starts as {0}. */
struct event_stream {
    char *data; /* [n] of the event so far, then the line so far */
    size_t n, n_line, capacity;
    bool has_data, after_return;
};

typedef void event_call(void *arg, const char *data, size_t n); /* closing zero */

pm_status event_stream_feed(struct event_stream *e, const char *data, size_t n,
                            event_call *call, void *arg);
void event_stream_free(struct event_stream *e);

#endif
