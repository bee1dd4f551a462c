/* server_head.c - who may come in: a request's head is judged before its body is read.
 *
 * Judged are length, origin, key, path, method and type of content, in this order. A refusal is
 * sent at once and the connection closed, since a body that nobody reads may follow. Both
 * length headers, or one of them twice, are refused: two programs that disagree about where a
 * request ends can be played against each other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <microhttpd.h>

#include "server_inside.h"

enum { MAX_HEAD = 16 << 10 };

static const char *header(struct call *c, const char *name)
{
    return MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, name);
}

struct head {
    int n_length, n_encoding;
    bool chunked, malformed;
};

/* Whether name begins with wanted; *exact: and ends with it. */
static bool is_header(const char *name, const char *wanted, bool *exact)
{
    size_t n = strlen(wanted);
    *exact = name[0] && strcasecmp(name, wanted) == 0;
    return strncasecmp(name, wanted, n) == 0;
}

/* libmicrohttpd 0.9.75 takes blanks before a colon for a part of the name, glues a folded line
 * to the name of its header, and leaves a lone CR in a value. Each can hide one of the two
 * headers that say where a body ends. */
static enum MHD_Result read_head(void *arg, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    struct head *h = arg;
    bool exact;
    (void)kind;
    if (name[strspn(name, token)]) h->malformed = true;
    for (const char *p = value ? value : ""; *p; p++) {
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f) h->malformed = true;
    }
    if (is_header(name, "Content-Length", &exact)) {
        h->n_length++;
        h->malformed |= !exact;
    }
    if (is_header(name, "Transfer-Encoding", &exact)) {
        h->n_encoding++;
        h->malformed |= !exact;
        h->chunked = value && strcasecmp(value, "chunked") == 0;
    }
    return MHD_YES;
}

static bool refuse_lengths(struct call *c, bool post, const char *version)
{
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    struct head h = {0};
    const char *length = header(c, "Content-Length");
    if (size && size->header_size > MAX_HEAD) {
        call_refuse(c, 431, "header_too_large", NULL, "the headers have more than %d bytes",
                    MAX_HEAD);
        return true;
    }
    MHD_get_connection_values(c->connection, MHD_HEADER_KIND, read_head, &h);
    if (h.malformed) {
        call_refuse(c, 400, "malformed_header", NULL, "a header's name or value is malformed");
        return true;
    }
    if (h.n_length + h.n_encoding > 1 || (h.n_encoding && !h.chunked) ||
        (h.n_encoding && strcmp(version, "HTTP/1.1") != 0)) {
        call_refuse(c, 400, "invalid_length", NULL,
                    "wanted one Content-Length, or Transfer-Encoding: chunked, not both");
        return true;
    }
    if (!post && (h.n_encoding || (length && strcmp(length, "0") != 0))) {
        call_refuse(c, 400, "unexpected_body", NULL, "a body is taken with POST alone");
        return true;
    }
    if (length && strtoull(length, NULL, 10) > c->max_body) {
        call_refuse(c, 413, "body_too_large", NULL,
                    "the body has %.24s bytes, wanted at most %zu", length, c->max_body);
        return true;
    }
    return false;
}

/* The route of a path, and its last part where the route has one. */
static const struct route *find_route(struct call *c, const char *path)
{
    for (const struct route *r = route_table; r->path; r++) {
        const char *part = strchr(r->path, '{');
        size_t n = part ? (size_t)(part - r->path) : 0;
        if (strcmp(r->path, path) == 0) return r;
        if (!part || strncmp(path, r->path, n) != 0 || !path[n]) continue;
        if (strcmp(part, "{id}") == 0 && strchr(path + n, '/')) continue;
        snprintf(c->rest, sizeof c->rest, "%s", path + n);
        return r;
    }
    return NULL;
}

static unsigned method_of(const char *name)
{
    if (strcmp(name, "GET") == 0 || strcmp(name, "HEAD") == 0) return METHOD_GET;
    if (strcmp(name, "POST") == 0) return METHOD_POST;
    return strcmp(name, "DELETE") == 0 ? METHOD_DELETE : 0;
}

static const char *allowed_origin(struct call *c)
{
    const struct server_options *o = &c->server->o;
    const char *origin = header(c, "Origin");
    for (int i = 0; origin && i < o->n_origin; i++) {
        if (strcmp(o->origin[i], "*") == 0 || strcmp(o->origin[i], origin) == 0) {
            return o->origin[i];
        }
    }
    return NULL;
}

/* What a browser asks before it sends a request of another origin. */
static bool preflight(struct call *c, const char *method)
{
    struct json_out o = {0};
    if (strcmp(method, "OPTIONS") != 0 || !c->origin) return false;
    json_put(&o, "%s", "");
    call_answer(c, 204, NULL, &o);
    return true;
}

static bool refuse_state(struct call *c)
{
    struct server *s = c->server;
    enum server_state state = atomic_load(&s->state);
    if (c->route->kind < ROUTE_WORK) return false;
    if (state == SERVER_LOADING) {
        call_refuse(c, 503, "loading", NULL, "the model is being loaded");
        return true;
    }
    if (state == SERVER_DRAINING && c->route->kind == ROUTE_MAKE) {
        call_refuse(c, 503, "draining", NULL, "the server is ending; it takes nothing new");
        c->close = true;
        return true;
    }
    return false;
}

static bool refuse_type(struct call *c)
{
    const char *type = header(c, "Content-Type");
    size_t n = type ? strcspn(type, "; \t") : 0;
    if (n == 16 && strncasecmp(type, "application/json", n) == 0) return false;
    call_refuse(c, 415, "unsupported_media_type", NULL,
                "Content-Type: found %.80s, wanted application/json", type ? type : "none");
    return true;
}

bool server_judge(struct call *c, const char *path, const char *method, const char *version)
{
    unsigned m = method_of(method);
    c->origin = allowed_origin(c);
    c->route = find_route(c, path);
    if (refuse_lengths(c, m == METHOD_POST, version)) return true;
    if (preflight(c, method)) return true;
    if (!(c->route && c->route->kind == ROUTE_OPEN) &&
        !auth_check(&c->server->o.auth, header(c, "Authorization"), &c->tenant)) {
        call_refuse(c, 401, "invalid_api_key", NULL,
                    "wanted an API key of this server as \"Authorization: Bearer KEY\"");
        return true;
    }
    if (!c->route) {
        call_refuse(c, 404, "unknown_path", NULL, "there is nothing at %.200s", path);
        return true;
    }
    if (!(c->route->methods & m)) {
        call_refuse(c, 405, "method_not_allowed", NULL, "%s does not take %.20s",
                    c->route->path, method);
        return true;
    }
    return (m == METHOD_POST && refuse_type(c)) || refuse_state(c);
}
