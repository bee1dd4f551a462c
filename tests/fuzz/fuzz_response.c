/* fuzz_response.c - arbitrary bytes as a server's answer: whole and byte by byte, the client
 * takes the same body, the same events, the same end. */
#include <stdlib.h>
#include <string.h>

#include "bench/http_response.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct event_stream events;
    pm_status status, stream_status;
    int answer;
    enum http_state state;
    size_t used, n_body, n_event;
    uint64_t body, event; /* hashes */
};

static void hash(uint64_t *h, const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        *h = (*h ^ (uint8_t)data[i]) * 0x100000001b3u;
    }
}

static void take_event(void *arg, const char *data, size_t n)
{
    struct seen *s = arg;
    if (data[n] != 0) abort();
    s->n_event++;
    hash(&s->event, data, n);
}

static void take_body(void *arg, const char *data, size_t n)
{
    struct seen *s = arg;
    s->n_body += n;
    hash(&s->body, data, n);
    if (s->stream_status == PM_OK) {
        s->stream_status = event_stream_feed(&s->events, data, n, take_event, s);
    }
}

static struct seen feed(const char *data, size_t size, size_t step)
{
    struct http_response r = {0};
    struct seen s = {.status = PM_OK, .stream_status = PM_OK};
    while (s.used < size && s.status == PM_OK && r.state != HTTP_DONE) {
        size_t n = size - s.used < step ? size - s.used : step, used;
        s.status = http_response_feed(&r, data + s.used, n, &used, take_body, &s);
        if (used > n || (s.status == PM_OK && used < n && r.state != HTTP_DONE)) abort();
        s.used += s.status == PM_OK ? used : 0;
    }
    if (s.status != PM_OK && !*pm_last_error()) abort();
    s.answer = r.status;
    s.state = r.state;
    http_response_free(&r);
    event_stream_free(&s.events);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen a = feed((const char *)data, size, size ? size : 1);
    struct seen b = feed((const char *)data, size, 1);
    if (a.status != b.status || a.answer != b.answer || a.n_body != b.n_body ||
        a.body != b.body || a.n_event != b.n_event || a.event != b.event) {
        abort();
    }
    if (a.status == PM_OK && (a.state != b.state || a.used != b.used)) abort();
    return 0;
}
