/* http_response.c - the client's side of HTTP/1.1, strict where a wrong guess would shift the
 * border between two answers.
 *
 * A machine with two kinds of states: those that wait for a line and those that count bytes.
 * Whatever piece the network delivers is worked through in a loop; an unfinished line waits in
 * a buffer. Answers that have both a length and chunks, or two different lengths, are refused:
 * RFC 9112, section 6.3. */
#define _POSIX_C_SOURCE 200809L
#include "http_response.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_HEAD = 65536, MAX_EVENT = 1 << 24 };

void http_response_reset(struct http_response *r)
{
    *r = (struct http_response){.line = r->line, .capacity = r->capacity};
}

void http_response_free(struct http_response *r)
{
    free(r->line);
    *r = (struct http_response){0};
}

static pm_status take_status(struct http_response *r, const char *line)
{
    bool known = strncmp(line, "HTTP/1.1 ", 9) == 0 || strncmp(line, "HTTP/1.0 ", 9) == 0;
    if (!known || strspn(line + 9, "0123456789") != 3 || (line[12] && line[12] != ' ')) {
        return fail(PM_ERR_FORMAT, "answer: found \"%.40s\", wanted HTTP/1.1 and a status",
                    line);
    }
    r->status = atoi(line + 9);
    r->keep_alive = line[7] == '1';
    r->state = HTTP_HEADER;
    return PM_OK;
}

/* Is `word` one of the comma-separated words of a header's value? */
static bool has_word(const char *value, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = value; *p; p += strcspn(p, ","), p += *p == ',') {
        p += strspn(p, " \t");
        if (strncasecmp(p, word, n) == 0 && strchr(" \t,;", p[n])) return true;
    }
    return false;
}

static pm_status take_length(struct http_response *r, const char *value)
{
    size_t digits = strspn(value, "0123456789");
    uint64_t length = strtoull(value, NULL, 10);
    if (!digits || digits > 18 || value[digits] || (r->sized && r->left != length)) {
        return fail(PM_ERR_FORMAT, "answer: Content-Length: found \"%.40s\"", value);
    }
    r->sized = true;
    r->left = length;
    return PM_OK;
}

static pm_status take_header(struct http_response *r, char *line)
{
    char *colon = strchr(line, ':'), *value, *end;
    if (!colon || colon == line) {
        return fail(PM_ERR_FORMAT, "answer: found \"%.40s\", wanted a header", line);
    }
    *colon = 0;
    value = colon + 1 + strspn(colon + 1, " \t");
    end = value + strlen(value);
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) {
        *--end = 0;
    }
    if (strcasecmp(line, "Content-Length") == 0) return take_length(r, value);
    if (strcasecmp(line, "Transfer-Encoding") == 0) {
        r->chunked = strcasecmp(value, "chunked") == 0;
        if (!r->chunked) {
            return fail(PM_ERR_FORMAT, "answer: Transfer-Encoding: found \"%.40s\"", value);
        }
    } else if (strcasecmp(line, "Content-Type") == 0) {
        r->event_stream = has_word(value, "text/event-stream");
    } else if (strcasecmp(line, "Connection") == 0) {
        if (has_word(value, "close")) r->keep_alive = false;
        if (has_word(value, "keep-alive")) r->keep_alive = true;
    }
    return PM_OK;
}

static pm_status end_head(struct http_response *r)
{
    if (r->status < 200) { /* an interim answer: the real one follows */
        http_response_reset(r);
        return PM_OK;
    }
    if (r->chunked && r->sized) {
        return fail(PM_ERR_FORMAT, "answer: has Content-Length and Transfer-Encoding");
    }
    if (r->status == 204 || r->status == 304 || (r->sized && r->left == 0)) {
        r->state = HTTP_DONE;
    } else if (r->chunked) {
        r->state = HTTP_CHUNK_SIZE;
    } else {
        r->state = r->sized ? HTTP_SIZED : HTTP_UNTIL_CLOSE;
        if (!r->sized) r->keep_alive = false;
    }
    return PM_OK;
}

static pm_status take_chunk_size(struct http_response *r, const char *line)
{
    size_t digits = strspn(line, "0123456789abcdefABCDEF");
    if (!digits || digits > 15 || !strchr("; \t", line[digits])) {
        return fail(PM_ERR_FORMAT, "answer: found \"%.40s\", wanted the size of a chunk", line);
    }
    r->left = strtoull(line, NULL, 16);
    r->state = r->left ? HTTP_CHUNK : HTTP_TRAILER;
    return PM_OK;
}

static pm_status take_line(struct http_response *r, char *line)
{
    switch (r->state) {
    case HTTP_STATUS: return take_status(r, line);
    case HTTP_HEADER: return *line ? take_header(r, line) : end_head(r);
    case HTTP_CHUNK_SIZE: return take_chunk_size(r, line);
    case HTTP_CHUNK_END:
        if (*line) {
            return fail(PM_ERR_FORMAT, "answer: found \"%.40s\" after a chunk", line);
        }
        r->state = HTTP_CHUNK_SIZE;
        return PM_OK;
    default: /* HTTP_TRAILER */
        if (!*line) r->state = HTTP_DONE;
        return PM_OK;
    }
}

/* Moves bytes up to a line feed into the buffer; works on the line when it is complete. */
static pm_status feed_line(struct http_response *r, const char *data, size_t n, size_t *used)
{
    const char *feed = memchr(data, '\n', n);
    size_t part = feed ? (size_t)(feed - data) : n;
    bool in_chunks = r->state >= HTTP_CHUNK_SIZE && r->state <= HTTP_CHUNK_END;
    r->n_head = in_chunks ? part : r->n_head + part + 1;
    if (r->n_head > MAX_HEAD || r->n_line + part > MAX_HEAD) {
        return fail(PM_ERR_FORMAT, "answer: its head is over %d bytes", MAX_HEAD);
    }
    TRY(grow_array(&r->line, &r->capacity, r->n_line + part + 1, 1));
    memcpy(r->line + r->n_line, data, part);
    r->n_line += part;
    *used += part + (feed != NULL);
    if (!feed) return PM_OK;
    if (r->n_line && r->line[r->n_line - 1] == '\r') r->n_line--;
    r->line[r->n_line] = 0;
    r->n_line = 0;
    return take_line(r, r->line);
}

pm_status http_response_feed(struct http_response *r, const char *data, size_t n, size_t *used,
                             http_on_body *call, void *arg)
{
    *used = 0;
    while (*used < n && r->state != HTTP_DONE) {
        size_t part = n - *used;
        if (r->state < HTTP_SIZED) {
            TRY(feed_line(r, data + *used, part, used));
            continue;
        }
        if (r->state != HTTP_UNTIL_CLOSE && part > r->left) part = (size_t)r->left;
        call(arg, data + *used, part);
        *used += part;
        if (r->state == HTTP_UNTIL_CLOSE) continue;
        r->left -= part;
        if (!r->left) r->state = r->state == HTTP_CHUNK ? HTTP_CHUNK_END : HTTP_DONE;
    }
    return PM_OK;
}

pm_status http_response_close(struct http_response *r)
{
    if (r->state == HTTP_UNTIL_CLOSE) r->state = HTTP_DONE;
    if (r->state == HTTP_DONE) return PM_OK;
    return fail(PM_ERR_IO, "answer: closed before its end");
}

/* One line of an event stream, which stands after the event's data. */
static void end_event_line(struct event_stream *e, event_call *call, void *arg)
{
    char *line = e->data + e->n;
    size_t n = e->n_line, skip;
    e->n_line = 0;
    if (n == 0) {
        if (e->has_data) {
            e->data[e->n] = 0;
            call(arg, e->data, e->n);
        }
        e->n = 0;
        e->has_data = false;
        return;
    }
    if (n < 5 || memcmp(line, "data:", 5) != 0) return;
    skip = n > 5 && line[5] == ' ' ? 6 : 5;
    /* The line moves down over its name; a second line of data keeps a line feed before it. */
    if (e->has_data) *line++ = '\n';
    memmove(line, e->data + e->n + skip, n - skip);
    e->n += n - skip + (e->has_data ? 1 : 0);
    e->has_data = true;
}

pm_status event_stream_feed(struct event_stream *e, const char *data, size_t n,
                            event_call *call, void *arg)
{
    for (size_t i = 0; i < n; i++) {
        bool follows = e->after_return && data[i] == '\n';
        e->after_return = data[i] == '\r';
        if (follows) continue;
        if (e->n + e->n_line + 2 > MAX_EVENT) {
            return fail(PM_ERR_TOO_LONG, "answer: an event of over %d bytes", MAX_EVENT);
        }
        TRY(grow_array(&e->data, &e->capacity, e->n + e->n_line + 2, 1));
        if (data[i] == '\r' || data[i] == '\n') {
            end_event_line(e, call, arg);
        } else {
            e->data[e->n + e->n_line++] = data[i];
        }
    }
    return PM_OK;
}

void event_stream_free(struct event_stream *e)
{
    free(e->data);
    *e = (struct event_stream){0};
}
