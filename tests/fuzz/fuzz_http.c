/* fuzz_http.c - arbitrary bytes as what a client sends, through libmicrohttpd.
 *
 * Each input travels over a socket pair to one server that lives as long as the process, with
 * the repository's model behind it, and the sending half is closed. The server must close the
 * connection in time, whatever came; what it sent must begin like HTTP. At the end of a run of
 * inputs nothing may be left at work: a call that is lost would keep the next ones waiting. */
#define _GNU_SOURCE
#include <assert.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/server/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_INPUT = 1 << 16, PATIENCE_MS = 20000 };

static struct server *open_server(void)
{
    static const char *const name[] = {"model"};
    static const char folder[] = PM_SOURCE_DIR "/models/polymath-16m";
    struct server_options o;
    struct server *s;
    pm_options *options;
    pm_engine *e;
    server_options_init(&o);
    o.host = NULL;
    o.name = name;
    o.n_name = 1;
    o.n_thread = o.n_worker = 1;
    o.max_connection = 64;
    o.max_body = 4096;
    if (auth_init(&o.auth) != PM_OK || pm_options_new(&options) != PM_OK ||
        pm_options_set(options, "threads", "1") != PM_OK ||
        pm_options_set(options, "context", "64") != PM_OK || server_open(&s, &o) != PM_OK ||
        pm_engine_open(&e, folder, options) != PM_OK || server_attach(s, e, folder) != PM_OK) {
        fprintf(stderr, "%s\n", pm_last_error());
        abort();
    }
    pm_options_free(options);
    return s;
}

/* Waits until the server has read what was sent, or will not: an end that comes in one event
 * with the last bytes is noticed only a second later. */
static void wait_until_read(int fd)
{
    for (int i = 0; i < 100000; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int left = 0;
        if (ioctl(fd, SIOCOUTQ, &left) != 0 || left == 0 || poll(&p, 1, 0) != 0) return;
        sched_yield();
    }
}

/* Reads to the end of the stream; aborts when it does not come. */
static size_t read_answer(int fd, char *out, size_t max)
{
    size_t n = 0;
    for (;;) {
        char room[4096];
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t got;
        if (poll(&p, 1, PATIENCE_MS) <= 0) {
            fprintf(stderr, "the server does not close the connection\n");
            abort();
        }
        got = recv(fd, room, sizeof room, 0);
        if (got <= 0) return n;
        if (n + (size_t)got <= max) {
            memcpy(out + n, room, (size_t)got);
            n += (size_t)got;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct server *server;
    char answer[1 << 14];
    int pair[2];
    if (!server) server = open_server();
    if (n > MAX_INPUT || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return 0;
    assert(server_add(server, pair[0]) == PM_OK);
    if (send(pair[1], data, n, MSG_NOSIGNAL | MSG_DONTWAIT) > 0) wait_until_read(pair[1]);
    shutdown(pair[1], SHUT_WR);
    n = read_answer(pair[1], answer, sizeof answer);
    assert(n < 5 || memcmp(answer, "HTTP/", 5) == 0);
    close(pair[1]);
    return 0;
}
