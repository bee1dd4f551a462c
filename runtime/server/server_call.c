/* server_call.c - suspending, waking, answering, counting references.
 *
 * The one rule about libmicrohttpd: a connection may be resumed only while it is suspended and
 * alive. `suspended` and `connection` change under the call's lock together with what they say,
 * so resuming happens under the lock too; it is a flag and a write to an eventfd. */
#define _POSIX_C_SOURCE 200809L
#include "server_call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#include "server_inside.h"

static const struct error_kind {
    int http;
    const char *type;
} error_kinds[] = {
    {400, "invalid_request_error"}, {401, "authentication_error"},
    {404, "not_found_error"},       {405, "invalid_request_error"},
    {408, "timeout_error"},         {413, "invalid_request_error"},
    {415, "invalid_request_error"}, {429, "rate_limit_error"},
    {431, "invalid_request_error"}, {501, "not_implemented_error"},
    {503, "unavailable_error"},     {0, "server_error"},
};

void put_error(struct json_out *o, int http, const char *code, const char *param,
               const char *message)
{
    const struct error_kind *k = error_kinds;
    while (k->http && k->http != http) {
        k++;
    }
    json_put(o, "{\"error\":{\"message\":");
    json_put_string(o, message, strlen(message));
    json_put(o, ",\"type\":\"%s\",\"param\":", k->type);
    if (param) {
        json_put_string(o, param, strlen(param));
    } else {
        json_put(o, "null");
    }
    json_put(o, ",\"code\":");
    if (code) {
        json_put(o, "\"%s\"}}", code);
    } else {
        json_put(o, "null}}");
    }
}

int http_of_status(pm_status status, const char **code)
{
    static const struct {
        pm_status status;
        int http;
        const char *code;
    } table[] = {
        {PM_ERR_ARG, 400, "invalid_value"},
        {PM_ERR_FORMAT, 400, "invalid_value"},
        {PM_ERR_UNSUPPORTED, 400, "unsupported_value"},
        {PM_ERR_TOO_LONG, 400, "context_length_exceeded"},
        {PM_ERR_FULL, 429, "queue_full"},
        {PM_ERR_NOMEM, 503, "out_of_memory"},
        {PM_ERR_CANCELLED, 503, "cancelled"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].status == status) {
            *code = table[i].code;
            return table[i].http;
        }
    }
    *code = "internal_error";
    return 500;
}

/* A text that can be sent when there is no memory for another. */
static void answer_without_memory(struct call *c)
{
    static const char text[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"unavailable_error\","
        "\"param\":null,\"code\":\"out_of_memory\"}}";
    c->http = 503;
    c->type = "application/json";
    c->fixed = text;
    c->n_fixed = sizeof text - 1;
    c->stream = false;
    c->retry_s = 1;
}

void call_answer(struct call *c, int http, const char *type, struct json_out *o)
{
    free(c->answer.text);
    c->answer = (struct json_out){0};
    if (o->status != PM_OK) {
        free(o->text);
        *o = (struct json_out){0};
        answer_without_memory(c);
        return;
    }
    c->http = http;
    c->type = type;
    c->answer = *o;
    c->stream = false;
    *o = (struct json_out){0};
}

void call_answer_json(struct call *c, struct json_out *o)
{
    call_answer(c, 200, "application/json", o);
}

void call_refuse(struct call *c, int http, const char *code, const char *param,
                 const char *format, ...)
{
    struct json_out o = {0};
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    put_error(&o, http, code, param, message);
    call_answer(c, http, "application/json", &o);
    if (http == 429 || http == 503) c->retry_s = 1;
}

void call_refuse_status(struct call *c, pm_status status, const char *param)
{
    const char *code, *message = pm_last_error();
    int http = http_of_status(status, &code);
    call_refuse(c, http, code, param, "%s", *message ? message : pm_status_text(status));
}

void call_set_job(struct call *c, struct job *j)
{
    bool gone;
    pthread_mutex_lock(&c->lock);
    c->job = j;
    gone = c->gone;
    pthread_mutex_unlock(&c->lock);
    if (gone) j->calls->cancel(j);
}

void call_stream(struct call *c)
{
    c->http = 200;
    c->type = "text/event-stream; charset=utf-8";
    atomic_store(&c->sent_us, now_us());
    c->stream = true;
}

/* Under the lock. */
static void resume(struct call *c)
{
    if (!c->suspended || !c->connection) return;
    c->suspended = false;
    MHD_resume_connection(c->connection);
}

void call_wake(struct call *c)
{
    pthread_mutex_lock(&c->lock);
    c->woken = true;
    if (c->ready) resume(c);
    pthread_mutex_unlock(&c->lock);
}

static void make_ready(struct call *c)
{
    pthread_mutex_lock(&c->lock);
    c->ready = true;
    resume(c);
    pthread_mutex_unlock(&c->lock);
}

static void run_route(void *arg)
{
    struct call *c = arg;
    if (c->route->run(c)) make_ready(c);
    call_release(c);
}

static void run_finish(void *arg)
{
    struct call *c = arg;
    c->job->calls->finish(c);
    make_ready(c);
    call_release(c);
}

static void push(struct call *c, void (*run)(void *))
{
    c->item.run = run;
    c->item.arg = c;
    work_push(c->server->work, &c->item);
}

void call_work(struct call *c)
{
    call_hold(c);
    push(c, run_route);
}

void call_finish(struct call *c)
{
    call_hold(c);
    push(c, run_finish);
}

void call_hold(struct call *c)
{
    atomic_fetch_add(&c->n_ref, 1);
}

bool call_hold_live(struct call *c)
{
    int n = atomic_load(&c->n_ref);
    while (n > 0) {
        if (atomic_compare_exchange_weak(&c->n_ref, &n, n + 1)) return true;
    }
    return false;
}

static void run_free(void *arg)
{
    struct call *c = arg;
    struct server *s = c->server;
    pthread_mutex_lock(&s->lock);
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    pthread_mutex_unlock(&s->lock);
    if (c->job) c->job->calls->free(c->job);
    free(c->body);
    free(c->answer.text);
    free(c->out.text);
    pthread_mutex_destroy(&c->lock);
    free(c);
    pthread_mutex_lock(&s->lock);
    s->n_call--;
    pthread_cond_broadcast(&s->less);
    pthread_mutex_unlock(&s->lock);
}

void call_release(struct call *c)
{
    if (atomic_fetch_sub(&c->n_ref, 1) == 1) push(c, run_free);
}

struct call *call_new(struct server *s)
{
    static const char digits[] = "0123456789abcdef";
    struct call *c = calloc(1, sizeof *c);
    uint64_t n;
    struct siphash name;
    if (!c) return NULL;
    c->server = s;
    c->n_ref = 1;
    c->arrival_us = now_us();
    pthread_mutex_init(&c->lock, NULL);
    /* Names that nobody can guess, since a name is enough to cancel. */
    n = atomic_fetch_add(&s->n_made, 1);
    name = siphash(s->o.auth.secret, &n, sizeof n);
    for (int i = 0; i < 16; i++) {
        c->id[i] = digits[name.high >> (4 * i) & 15];
    }
    pthread_mutex_lock(&s->lock);
    c->next = s->calls;
    c->link = &s->calls;
    if (c->next) c->next->link = &c->next;
    s->calls = c;
    s->n_call++;
    c->gone = s->closing;
    pthread_mutex_unlock(&s->lock);
    return c;
}

bool call_wait(struct call *c)
{
    bool ready;
    pthread_mutex_lock(&c->lock);
    ready = c->ready;
    if (!ready && !c->gone && !c->suspended) {
        c->suspended = true;
        MHD_suspend_connection(c->connection);
    }
    pthread_mutex_unlock(&c->lock);
    return ready;
}

void call_gone(struct call *c)
{
    struct job *j;
    pthread_mutex_lock(&c->lock);
    c->gone = true;
    j = c->job;
    resume(c);
    pthread_mutex_unlock(&c->lock);
    if (j) j->calls->cancel(j);
}

bool call_is_gone(struct call *c)
{
    bool gone;
    pthread_mutex_lock(&c->lock);
    gone = c->gone;
    pthread_mutex_unlock(&c->lock);
    return gone;
}

void call_completed(struct call *c)
{
    struct job *j;
    pthread_mutex_lock(&c->lock);
    c->connection = NULL;
    c->suspended = false;
    c->gone = true;
    j = c->job;
    pthread_mutex_unlock(&c->lock);
    if (j) j->calls->cancel(j);
    call_release(c);
}

void call_ping(struct call *c, int64_t us)
{
    pthread_mutex_lock(&c->lock);
    if (c->ready && c->stream && c->suspended && now_us() - atomic_load(&c->sent_us) > us) {
        c->ping = c->woken = true;
        resume(c);
    }
    pthread_mutex_unlock(&c->lock);
}

/* Copies what is written and not sent yet. */
static ssize_t take(struct call *c, char *buffer, size_t max)
{
    size_t n = c->out.n - c->n_sent;
    if (n > max) n = max;
    memcpy(buffer, c->out.text + c->n_sent, n);
    c->n_sent += n;
    return (ssize_t)n;
}

ssize_t call_read(void *call, uint64_t at, char *buffer, size_t max)
{
    struct call *c = call;
    (void)at;
    for (;;) {
        bool wait, gone, ping;
        if (c->n_sent < c->out.n) {
            atomic_store(&c->sent_us, now_us());
            return take(c, buffer, max);
        }
        if (c->ended) return MHD_CONTENT_READER_END_OF_STREAM;
        c->out.n = c->n_sent = 0;
        pthread_mutex_lock(&c->lock);
        c->woken = false; /* before the look, so that news after it are not missed */
        ping = c->ping;
        c->ping = false;
        pthread_mutex_unlock(&c->lock);
        if (c->job->calls->read(c, &c->out, &c->ended) != PM_OK) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (ping && c->out.n == 0 && !c->ended) json_put(&c->out, ": still at work\n\n");
        if (c->out.status != PM_OK) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (c->out.n > 0 || c->ended) continue;
        pthread_mutex_lock(&c->lock);
        gone = c->gone;
        wait = !gone && !c->woken;
        if (wait) {
            c->suspended = true;
            MHD_suspend_connection(c->connection);
        }
        pthread_mutex_unlock(&c->lock);
        if (gone) return MHD_CONTENT_READER_END_WITH_ERROR;
        if (wait) return 0;
    }
}
