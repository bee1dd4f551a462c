/* server_fault_test.c - what clients hear when the model or the allocator fails.
 *
 * A step of the model can give logits that are not numbers, or hang: the request ends with an
 * error, the server says that it is not healthy, and both end with the fault.
 *
 * The linker puts this file between everything and the allocator (--wrap). The n-th allocation
 * after a request was sent fails, on whatever thread it is; n goes up until the request needs
 * fewer. Each time the client gets a whole answer, an error object, or, once a stream began, an
 * error event or a cut; the connection ends; and the next request is served as ever. */
#define _GNU_SOURCE
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/engine/engine.h"
#include "runtime/server/server.h"

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

pm_status __real_model_end(struct model *m, float *logits);
pm_status __wrap_model_end(struct model *m, float *logits);
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);

/* Allocations until one fails; negative: none does. */
static atomic_int countdown = -1;

static bool fails_now(void)
{
    return atomic_load(&countdown) >= 0 && atomic_fetch_sub(&countdown, 1) == 0;
}

void *__wrap_malloc(size_t n)
{
    return fails_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails_now() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    return fails_now() ? NULL : __real_aligned_alloc(alignment, n);
}

/* The next step that ends: hangs until it may go on, or has no numbers in its first output. */
static atomic_bool hang, broken;

pm_status __wrap_model_end(struct model *m, float *logits)
{
    while (atomic_load(&hang)) {
        poll(NULL, 0, 1);
    }
    pm_status status = __real_model_end(m, logits);
    if (status == PM_OK && atomic_exchange(&broken, false)) logits[5] = NAN;
    return status;
}

enum { MAX_ANSWER = 1 << 16, PATIENCE_MS = 60000 };

struct rig {
    struct server *s;
    pm_engine *e;
    char answer[MAX_ANSWER];
};

static int open_rig(void **state)
{
    static const char *const name[] = {"model"};
    static const char folder[] = PM_SOURCE_DIR "/models/polymath-16m";
    struct rig *r = calloc(1, sizeof *r);
    struct server_options o;
    pm_options *options;
    server_options_init(&o);
    o.host = NULL;
    o.name = name;
    o.n_name = 1;
    o.n_thread = 1;
    o.max_connection = 16;
    o.stuck_us = 50000;
    o.ping_us = 100000;
    if (auth_init(&o.auth) != PM_OK || pm_options_new(&options) != PM_OK ||
        pm_options_set(options, "threads", "1") != PM_OK ||
        pm_options_set(options, "context", "128") != PM_OK || server_open(&r->s, &o) != PM_OK ||
        pm_engine_open(&r->e, folder, options) != PM_OK ||
        server_attach(r->s, r->e, folder) != PM_OK) {
        FAIL("%s", pm_last_error());
    }
    pm_options_free(options);
    *state = r;
    return 0;
}

static int close_rig(void **state)
{
    struct rig *r = *state;
    server_close(r->s);
    pm_engine_close(r->e);
    free(r);
    return 0;
}

/* A connection on which a request was sent. */
static int begin(struct rig *r, const char *method, const char *path, const char *body)
{
    char text[2048]; /* sent at once: who lacks memory for a head may close behind it */
    int pair[2];
    int n = snprintf(text, sizeof text,
                     "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
                     "application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     method, path, strlen(body), body);
    assert_in_range(n, 1, sizeof text - 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(server_add(r->s, pair[0]), PM_OK);
    assert_int_equal(send(pair[1], text, (size_t)n, MSG_NOSIGNAL), n);
    return pair[1];
}

/* Reads to the end, or until `mark` came, and closes. */
static void finish(struct rig *r, int fd, const char *mark)
{
    size_t n = 0;
    r->answer[0] = 0;
    while (!mark || !strstr(r->answer, mark)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t got;
        if (poll(&p, 1, PATIENCE_MS) != 1) FAIL("no answer after: %s", r->answer);
        got = recv(fd, r->answer + n, MAX_ANSWER - 1 - n, 0);
        if (got <= 0) break;
        n += (size_t)got;
        r->answer[n] = 0;
    }
    close(fd);
}

/* Sends a request, lets the n-th allocation from then on fail, and reads to the end. Returns
 * whether all of them were given. */
static bool ask(struct rig *r, const char *path, const char *body, int n)
{
    int fd;
    atomic_store(&countdown, n);
    fd = begin(r, "POST", path, body);
    finish(r, fd, NULL);
    return atomic_exchange(&countdown, -1) >= 0;
}

static void said(const struct rig *r, const char *part)
{
    if (!strstr(r->answer, part)) FAIL("no %s in %s", part, r->answer);
}

static void get(struct rig *r, const char *path)
{
    finish(r, begin(r, "GET", path, ""), NULL);
}

static void idle(struct rig *r)
{
    for (int i = 0; server_load(r->s) > 0; i++) {
        if (i > PATIENCE_MS) FAIL("something is left at work");
        poll(NULL, 0, 1);
    }
}

static void a_stuck_engine_is_not_healthy(void **state)
{
    static const char body[] = "{\"prompt\": \"x\", \"max_tokens\": 4, \"ignore_eos\": true, "
                               "\"stream\": true}";
    struct rig *r = *state;
    int stays, leaves;
    get(r, "/health/ready");
    said(r, "HTTP/1.1 200");
    atomic_store(&hang, true);
    stays = begin(r, "POST", "/v1/completions", body);
    leaves = begin(r, "POST", "/v1/completions", body);
    for (int i = 0; i < 1000; i++) {
        get(r, "/health/ready");
        if (strstr(r->answer, "HTTP/1.1 503")) break;
        poll(NULL, 0, 10);
    }
    said(r, "\"status\":\"stuck\"");
    get(r, "/health/live");
    said(r, "HTTP/1.1 200");
    close(leaves);
    /* Who waits hears that the server lives, and gets all tokens in the end. */
    poll(NULL, 0, 2500);
    atomic_store(&hang, false);
    finish(r, stays, NULL);
    said(r, ": still at work\n\n");
    said(r, "\"finish_reason\":\"length\"");
    idle(r);
    get(r, "/health/ready");
    said(r, "HTTP/1.1 200");
}

static void broken_logits_are_an_error(void **state)
{
    struct rig *r = *state;
    atomic_store(&broken, true);
    finish(r, begin(r, "POST", "/v1/completions", "{\"prompt\": \"x\"}"), NULL);
    said(r, "HTTP/1.1 500");
    said(r, "\"type\":\"server_error\"");
    atomic_store(&broken, true);
    finish(r, begin(r, "POST", "/v1/completions", "{\"prompt\": \"x\", \"stream\": true}"),
           NULL);
    said(r, "HTTP/1.1 200");
    said(r, "data: {\"error\":{");
    said(r, "data: [DONE]");
    finish(r, begin(r, "POST", "/v1/completions", "{\"prompt\": \"x\"}"), NULL);
    said(r, "HTTP/1.1 200");
    get(r, "/metrics");
    said(r, "finished_reason=\"error\"} 2");
    idle(r);
}

static void check_answer(const struct rig *r, int n)
{
    const char *a = r->answer;
    if (strncmp(a, "HTTP/1.1 200", 12) == 0) {
        /* A stream that could not go on may be cut: then it has no end. */
        if (strstr(a, "event-stream") || strstr(a, "\"usage\"") || strstr(a, "\"tokens\"") ||
            strstr(a, "\"prompt\"")) {
            return;
        }
    } else if (strncmp(a, "HTTP/1.1 503", 12) == 0) {
        if (strstr(a, "{\"error\":{\"message\":\"") && strstr(a, "out_of_memory")) return;
    }
    FAIL("allocation %d: %s", n, *a ? a : "closed without an answer");
}

static void starve(struct rig *r, const char *path, const char *body)
{
    enum { MAX_N = 3000 };
    int n = 0;
    while (!ask(r, path, body, n)) {
        check_answer(r, n);
        if (++n == MAX_N) FAIL("%s: it never ends", path);
    }
    check_answer(r, n);
    assert_non_null(strstr(r->answer, "HTTP/1.1 200"));
    assert_true(n > 10);
    print_message("%s: %d allocations\n", path, n);
    idle(r);
}

static void completions_may_find_no_memory(void **state)
{
    starve(*state, "/v1/completions",
           "{\"prompt\": \"def add(a, b):\", \"max_tokens\": 4, \"n\": 2, \"logprobs\": 2, "
           "\"stop\": [\"never\"], \"echo\": true, \"return_token_ids\": true}");
}

static void streams_may_find_no_memory(void **state)
{
    starve(*state, "/v1/completions",
           "{\"prompt\": [\"def add(a, b):\", [1, 2]], \"max_tokens\": 4, \"logprobs\": 1, "
           "\"stream\": true, \"stream_options\": {\"include_usage\": true}}");
}

static void schemas_may_find_no_memory(void **state)
{
    starve(*state, "/v1/completions",
           "{\"prompt\": \"x\", \"max_tokens\": 3, \"response_format\": {\"type\": "
           "\"json_schema\", \"json_schema\": {\"schema\": {\"type\": \"integer\"}}}}");
}

static void tokenising_may_find_no_memory(void **state)
{
    starve(*state, "/tokenize",
           "{\"prompt\": \"def add(a, b):\", \"return_token_strs\": true}");
    starve(*state, "/detokenize", "{\"tokens\": [5, 6, 7, 8]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stuck_engine_is_not_healthy),
        cmocka_unit_test(broken_logits_are_an_error),
        cmocka_unit_test(completions_may_find_no_memory),
        cmocka_unit_test(streams_may_find_no_memory),
        cmocka_unit_test(schemas_may_find_no_memory),
        cmocka_unit_test(tokenising_may_find_no_memory),
    };
    return cmocka_run_group_tests(tests, open_rig, close_rig);
}
