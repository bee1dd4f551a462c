/* command_serve.c - polymath serve: an engine behind HTTP until a signal comes.
 *
 * The socket answers while the model is loaded, so that who waits for it sees a reason. The
 * first SIGTERM or SIGINT drains: readiness goes, what runs may end within the grace time. The
 * second ends the program at once. Both are an orderly end, exit status 0. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "runtime/command.h"
#include "runtime/server/server.h"

/* Files that are not connections: the model's, the daemon's, spare. */
enum { OTHER_FILES = 128, MAX_FLAG_KEYS = 64 };

static sem_t signalled;
static volatile sig_atomic_t n_signal, loading;

static void on_signal(int number)
{
    (void)number;
    if (loading || n_signal) _exit(EXIT_OK);
    n_signal = 1;
    sem_post(&signalled);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sem_init(&signalled, 0, 0);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

/* The flags of the command as text. */
struct serve_flags {
    const char *host, *port, *key_file, *max_body, *max_connections, *grace, *threads, *workers,
        *patience;
    const char *name[MAX_SERVED_NAME], *origin[MAX_ORIGIN], *key[MAX_FLAG_KEYS];
    int n_name, n_origin, n_key;
};

static pm_status number(long long *out, const char *name, const char *text, long long min,
                        long long max)
{
    char *end;
    if (!text) return PM_OK;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (!*text || text[strspn(text, "0123456789")] || errno || value < min || value > max) {
        return fail(PM_ERR_ARG, "%s: found \"%s\", wanted a whole number from %lld to %lld",
                    name, text, min, max);
    }
    *out = value;
    return PM_OK;
}

/* The last part of a path. */
static const char *folder_name(char out[NAME_MAX + 1], const char *path)
{
    size_t n = strlen(path), start;
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    for (start = n; start > 0 && path[start - 1] != '/';) {
        start--;
    }
    snprintf(out, NAME_MAX + 1, "%.*s", (int)(n - start), path + start);
    return out;
}

static pm_status add_keys(struct auth *a, const struct serve_flags *f)
{
    const char *key = getenv("POLYMATH_API_KEY");
    if (key && *key) TRY(auth_add(a, key, strlen(key)));
    for (int i = 0; i < f->n_key; i++) {
        TRY(auth_add(a, f->key[i], strlen(f->key[i])));
    }
    if (f->key_file) {
        int before = a->n;
        TRY(auth_add_file(a, f->key_file));
        if (a->n == before) return fail(PM_ERR_ARG, "%s: holds no API key", f->key_file);
    }
    return PM_OK;
}

static pm_status read_flags(struct server_options *o, long long *grace,
                            const struct serve_flags *f)
{
    long long port = o->port, body = (long long)o->max_body, connections = o->max_connection;
    long long n_thread = o->n_thread, n_worker = o->n_worker, patience = o->read_us / 1000000;
    TRY(number(&port, "port", f->port, 0, 65535));
    TRY(number(&body, "max-body", f->max_body, 1024, 1 << 30));
    TRY(number(&connections, "max-connections", f->max_connections, 1, 1 << 20));
    TRY(number(&n_thread, "http-threads", f->threads, 1, 64));
    TRY(number(&n_worker, "workers", f->workers, 1, 256));
    TRY(number(&patience, "read-timeout", f->patience, 1, 86400));
    TRY(number(grace, "grace", f->grace, 0, 86400));
    if (f->host) o->host = f->host;
    o->port = (int)port;
    o->max_body = (size_t)body;
    o->max_connection = (int)connections;
    o->n_thread = (int)n_thread;
    o->n_worker = (int)n_worker;
    o->read_us = patience * 1000000;
    o->name = f->name;
    o->n_name = f->n_name;
    o->origin = f->origin;
    o->n_origin = f->n_origin;
    return add_keys(&o->auth, f);
}

/* A connection is a file. Raises the soft limit; where the hard one is too low, fewer
 * connections are taken rather than accept() failing. */
static void fit_files(struct server_options *o)
{
    struct rlimit limit;
    rlim_t want = (rlim_t)o->max_connection + OTHER_FILES;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want) return;
    limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want) return;
    o->max_connection =
        limit.rlim_cur > 2 * OTHER_FILES ? (int)limit.rlim_cur - OTHER_FILES : OTHER_FILES;
    fprintf(stderr, "polymath: at most %d connections: the limit of open files is %llu\n",
            o->max_connection, (unsigned long long)limit.rlim_cur);
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

static void say_ready(const struct server *s, const struct serve_flags *f,
                      const struct server_options *o, pm_engine *e, int64_t since)
{
    pm_info info;
    bool colons = strchr(o->host, ':') != NULL;
    pm_engine_info(e, &info);
    fprintf(stderr,
            "polymath: serving %s on %s at http://%s%s%s:%d, context %d, ready after %.1f s\n",
            f->name[0], info.device, colons ? "[" : "", o->host, colons ? "]" : "",
            server_port(s), info.context, (double)(now_us() - since) * 1e-6);
}

static void wait_for_end(struct server *s, long long grace)
{
    int64_t limit;
    while (sem_wait(&signalled) != 0 && errno == EINTR) {
    }
    fprintf(stderr,
            "polymath: draining %d requests, at most %lld s; a second signal ends now\n",
            server_load(s), grace);
    server_drain(s);
    limit = now_us() + grace * 1000000;
    while (server_load(s) > 0 && now_us() < limit) {
        struct timespec step = {0, 20000000};
        nanosleep(&step, NULL);
    }
}

static pm_status serve(const struct arguments *a, struct serve_flags *f)
{
    struct server_options o;
    struct server *s = NULL;
    pm_engine *e = NULL;
    char name[NAME_MAX + 1];
    long long grace = 30;
    int64_t since = now_us();
    bool keys;
    pm_status status;
    server_options_init(&o);
    TRY(auth_init(&o.auth));
    if (f->n_name == 0) f->name[f->n_name++] = folder_name(name, a->positional[0]);
    status = read_flags(&o, &grace, f);
    if (status != PM_OK) {
        auth_clear(&o.auth);
        return status;
    }
    keys = o.auth.n > 0;
    fit_files(&o);
    loading = 1;
    catch_signals();
    TRY_DONE(server_open(&s, &o));
    if (!keys && !is_loopback(o.host)) {
        fprintf(stderr, "polymath: %s is open to whoever reaches it: there is no --api-key\n",
                o.host);
    }
    TRY_DONE(pm_engine_open(&e, a->positional[0], a->options));
    TRY_DONE(server_attach(s, e, a->positional[0]));
    loading = 0;
    say_ready(s, f, &o, e, since);
    wait_for_end(s, grace);
done:
    server_close(s);
    pm_engine_close(e);
    return status;
}

static int run_serve(const struct command *self, int argc, char **argv)
{
    struct serve_flags f = {0};
    const struct flag flags[] = {
        {.name = "host", .value = "ADDRESS", .help = "to bind [127.0.0.1]", .text = &f.host},
        {.name = "port", .value = "N", .help = "0 takes a free one [8000]", .text = &f.port},
        {.name = "served-model-name",
         .value = "NAME",
         .help = "the model's name, may be given several times [the folder's]",
         .list = f.name,
         .n_list = &f.n_name,
         .max_list = MAX_SERVED_NAME},
        {.name = "api-key",
         .value = "KEY",
         .help = "who may call, may be given several times; also POLYMATH_API_KEY",
         .list = f.key,
         .n_list = &f.n_key,
         .max_list = MAX_FLAG_KEYS},
        {.name = "api-key-file", .value = "FILE", .help = "a key a line", .text = &f.key_file},
        {.name = "cors-origin",
         .value = "ORIGIN",
         .help = "web pages that may call, \"*\" is any, may be given several times [none]",
         .list = f.origin,
         .n_list = &f.n_origin,
         .max_list = MAX_ORIGIN},
        {.name = "max-body",
         .value = "BYTES",
         .help = "of a request [8388608]",
         .text = &f.max_body},
        {.name = "max-connections",
         .value = "N",
         .help = "open at once [4096]",
         .text = &f.max_connections},
        {.name = "grace",
         .value = "SECONDS",
         .help = "for running requests after a signal [30]",
         .text = &f.grace},
        {.name = "read-timeout",
         .value = "SECONDS",
         .help = "for the head of a request, and again for its body [30]",
         .text = &f.patience},
        {.name = "http-threads",
         .value = "N",
         .help = "of all connections [2]",
         .text = &f.threads},
        {.name = "workers",
         .value = "N",
         .help = "threads that tokenise and format [2]",
         .text = &f.workers},
        {.name = NULL},
    };
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = serve(&a, &f);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}

const struct command serve_command = {
    .name = "serve",
    .arguments = "MODEL",
    .summary = "an OpenAI-compatible HTTP server",
    .about =
        "Serves the checkpoint in folder MODEL to many clients at once: OpenAI's endpoints "
        "for\n"
        "completions and chats, a page at /, metrics for Prometheus. docs/serving.md has the\n"
        "endpoints and their fields.",
    .min_argument = 1,
    .max_argument = 1,
    .engine = true,
    .run = run_serve,
};
