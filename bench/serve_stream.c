/* serve_stream.c - one streamed completion, from bytes to times.
 *
 * The first token is the first chunk that carries text, or that says neither who speaks nor
 * that the answer is over: a server may send an assistant's role at once, and a token whose
 * text is held back (half a character) as an empty chunk. Tokens are what `usage` counts,
 * since a chunk may hold several. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/serve.h"

static void go_wrong(struct serve_stream *s, const char *what)
{
    if (!*s->sample.error) snprintf(s->sample.error, sizeof s->sample.error, "%s", what);
}

static bool has_text(const json *object, const char *key)
{
    const json *v = json_get(object, key);
    return v && json_is_string(v) && json_text_bytes(v) > 0;
}

static void take_choice(struct serve_stream *s, const json *choice)
{
    const json *delta = s->chat ? json_get(choice, "delta") : choice;
    const json *finish = json_get(choice, "finish_reason");
    const json *calls = json_get(delta, "tool_calls");
    bool ends = finish && json_is_string(finish), speaker = s->chat && json_get(delta, "role");
    bool shown = has_text(delta, s->chat ? "content" : "text") ||
                 has_text(delta, "reasoning_content") || has_text(delta, "reasoning") ||
                 (calls && json_size(calls) > 0);
    struct serve_sample *q = &s->sample;
    s->has_choice = true;
    q->last_us = s->now_us;
    if (!shown && (ends || speaker)) return;
    if (q->n_chunk++ == 0) {
        q->first_us = s->now_us;
    } else if (grow_array(&q->gap_ms, &q->gap_capacity, q->n_gap + 1, sizeof(float)) == PM_OK) {
        q->gap_ms[q->n_gap++] = (float)(s->now_us - s->chunk_us) / 1000;
    } else {
        go_wrong(s, "no memory in the client");
    }
    s->chunk_us = s->now_us;
}

static int count_of(const json *object, const char *key)
{
    const json *v = object ? json_get(object, key) : NULL;
    int64_t n = 0;
    if (v && json_integer(v, &n) && n >= 0 && n <= INT32_MAX) return (int)n;
    return 0;
}

static void take_usage(struct serve_stream *s, const json *usage)
{
    s->has_usage = true;
    s->sample.n_prompt = count_of(usage, "prompt_tokens");
    s->sample.n_output = count_of(usage, "completion_tokens");
    s->sample.n_cached = count_of(json_get(usage, "prompt_tokens_details"), "cached_tokens");
}

static void take_event(void *arg, const char *data, size_t n)
{
    struct serve_stream *s = arg;
    struct json_doc *doc;
    const json *choices, *usage;
    if (strcmp(data, "[DONE]") == 0) {
        s->done = true;
        return;
    }
    if (json_parse(&doc, "event", data, n) != PM_OK) {
        go_wrong(s, "malformed event");
        return;
    }
    choices = json_get(json_root(doc), "choices");
    usage = json_get(json_root(doc), "usage");
    if (json_get(json_root(doc), "error")) go_wrong(s, "error event");
    if (choices && json_child(choices)) take_choice(s, json_child(choices));
    if (usage && json_is_object(usage)) take_usage(s, usage);
    json_free(doc);
}

void serve_stream_body(struct serve_stream *s, const struct http_response *r, const char *data,
                       size_t n)
{
    if (r->status != 200) {
        size_t room = sizeof s->refusal - 1 - s->n_refusal;
        memcpy(s->refusal + s->n_refusal, data, n < room ? n : room);
        s->n_refusal += n < room ? n : room;
    }
    if (s->plain || r->status != 200 || !r->event_stream) return;
    s->now_us = now_us();
    if (event_stream_feed(&s->events, data, n, take_event, s) != PM_OK) {
        go_wrong(s, "malformed event");
    }
}

void serve_stream_end(struct serve_stream *s, const struct http_response *r, const char *error)
{
    struct serve_sample *q = &s->sample;
    char status[32];
    if (error) {
        go_wrong(s, error);
    } else if (r->status != 200) {
        snprintf(status, sizeof status, "HTTP %d", r->status);
        go_wrong(s, status);
    } else if (s->plain) {
        /* any 200 is what was asked for */
    } else if (!r->event_stream) {
        go_wrong(s, "not an event stream");
    } else if (!s->done) {
        go_wrong(s, "event stream without [DONE]");
    } else if (!s->has_choice) {
        go_wrong(s, "event stream without choices");
    }
    if (!s->has_usage && !s->plain) {
        q->n_output = q->n_chunk;
        q->counted = true;
    }
    if (*q->error || !q->last_us) q->last_us = now_us();
    /* All of its text was held back until the end. */
    if (!*q->error && !q->first_us && q->n_output > 0) q->first_us = q->last_us;
    event_stream_free(&s->events);
}
