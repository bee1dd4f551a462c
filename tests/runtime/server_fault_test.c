/* server_fault_test.c - requests for which memory runs out, at each place in turn.
 *
 * The linker puts this file between everything and the allocator (--wrap). The n-th allocation
 * after a request was sent fails, on whatever thread it is; n goes up until the request needs
 * fewer. Each time the client gets a whole answer, an error object, or, once a stream began, an
 * error event or a cut; the connection ends; and the next request is served as ever. */
#define _GNU_SOURCE
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/server.h"

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

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

/* Sends a request, lets the n-th allocation from then on fail, and reads to the end. Returns
 * whether all of them were given. */
static bool ask(struct rig *r, const char *path, const char *body, int n)
{
    char head[512];
    size_t n_answer = 0;
    int pair[2], left;
    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
             "application/json\r\nContent-Length: %zu\r\n\r\n",
             path, strlen(body));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(server_add(r->s, pair[0]), PM_OK);
    atomic_store(&countdown, n);
    assert_true(send(pair[1], head, strlen(head), MSG_NOSIGNAL) > 0);
    assert_true(send(pair[1], body, strlen(body), MSG_NOSIGNAL) > 0);
    for (;;) {
        struct pollfd p = {.fd = pair[1], .events = POLLIN};
        ssize_t got;
        if (poll(&p, 1, PATIENCE_MS) != 1) FAIL("allocation %d: no answer", n);
        got = recv(pair[1], r->answer + n_answer, MAX_ANSWER - 1 - n_answer, 0);
        if (got <= 0) break;
        n_answer += (size_t)got;
    }
    r->answer[n_answer] = 0;
    close(pair[1]);
    left = atomic_exchange(&countdown, -1);
    return left >= 0;
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
    for (int i = 0; server_load(r->s) > 0; i++) {
        if (i > PATIENCE_MS) FAIL("%s: something is left at work", path);
        poll(NULL, 0, 1);
    }
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
        cmocka_unit_test(completions_may_find_no_memory),
        cmocka_unit_test(streams_may_find_no_memory),
        cmocka_unit_test(schemas_may_find_no_memory),
        cmocka_unit_test(tokenising_may_find_no_memory),
    };
    return cmocka_run_group_tests(tests, open_rig, close_rig);
}
