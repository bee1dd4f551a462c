/* workload.c - prompts by number: request i is the same in every run with the same seed,
 * whatever else was sent and in whatever order.
 *
 * Ids make the length of a prompt exact on servers that take them; words are for the others,
 * and for chats, where the template adds tokens of its own: lengths in results are always what
 * the server counted. Both kinds are drawn without repetition by intent, so that a prefix
 * cache finds only what `shared-prefix` means it to find. */
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load.h"
#include "runtime/command.h"

struct workload {
    struct workload_options o;
    char *text;        /* the file */
    const char **line; /* [n_line] */
    size_t n_line, capacity;
};

enum { MAX_FILE = 1 << 30 };

/* What a stream of random numbers is for. */
enum use { USE_LENGTHS, USE_INPUT, USE_PREFIX, N_USE };

static struct random_stream stream(const struct workload *w, enum use use, int64_t i)
{
    return random_open(w->o.seed, (uint64_t)i * N_USE + use);
}

/* ---- drawn prompts */

static const char *const words[] = {
    "time",  "year",   "people", "way",     "day",    "man",    "thing", "woman",
    "life",  "child",  "world",  "school",  "state",  "family", "group", "hand",
    "part",  "place",  "case",   "week",    "work",   "night",  "point", "home",
    "water", "room",   "story",  "month",   "lot",    "right",  "study", "book",
    "eye",   "job",    "word",   "side",    "kind",   "head",   "house", "friend",
    "hour",  "game",   "line",   "end",     "law",    "car",    "city",  "name",
    "team",  "minute", "idea",   "body",    "back",   "face",   "door",  "health",
    "art",   "war",    "party",  "morning", "reason", "girl",   "guy",   "moment"};
enum { N_WORD = sizeof words / sizeof *words };

static void put_drawn(const struct workload *w, struct random_stream r, int n,
                      struct json_out *out, bool first)
{
    for (int i = 0; i < n; i++) {
        const char *between = first && i == 0 ? "" : w->o.text ? " " : ",";
        if (w->o.text) {
            json_put(out, "%s%s", between, words[random_between(&r, 0, N_WORD - 1)]);
        } else {
            json_put(out, "%s%lld", between,
                     (long long)random_between(&r, w->o.id.lo, w->o.id.hi));
        }
    }
}

static void put_random(const struct workload *w, int64_t i, struct json_out *out)
{
    struct random_stream r = stream(w, USE_LENGTHS, i);
    int n_input = (int)random_between(&r, w->o.input.lo, w->o.input.hi);
    int n_output = (int)random_between(&r, w->o.output.lo, w->o.output.hi);
    bool shared = w->o.prefix_len > 0;
    const char *quote = w->o.text ? "\"" : "";
    json_put(out,
             w->o.chat ? "\"messages\": [{\"role\": \"user\", \"content\": %s"
                       : "\"prompt\": %s",
             w->o.text ? quote : "[");
    if (shared) {
        int64_t prefix = random_between(&r, 0, w->o.n_prefix - 1);
        put_drawn(w, stream(w, USE_PREFIX, prefix), w->o.prefix_len, out, true);
    }
    put_drawn(w, stream(w, USE_INPUT, i), n_input, out, !shared);
    json_put(out, "%s%s, \"max_tokens\": %d", w->o.text ? quote : "]", w->o.chat ? "}]" : "",
             n_output);
}

/* ---- a file */

static pm_status check_line(const struct workload *w, const char *path, size_t n_bytes)
{
    const char *line = w->line[w->n_line - 1];
    char name[300];
    struct json_doc *doc;
    const json *prompt, *messages;
    pm_status status;
    int max_tokens = 1;
    snprintf(name, sizeof name, "%.200s line %zu", path, w->n_line);
    TRY(json_parse(&doc, name, line, n_bytes));
    prompt = json_get(json_root(doc), "prompt");
    messages = json_get(json_root(doc), "messages");
    if (!json_is_object(json_root(doc))) {
        status = json_fail(doc, json_root(doc), "an object");
    } else if (w->o.chat ? !messages : !prompt) {
        status = fail(PM_ERR_FORMAT, "%s: has no %s, which this endpoint takes", name,
                      w->o.chat ? "messages" : "prompt");
    } else {
        status = json_want_int(doc, json_root(doc), "max_tokens", 1, 1 << 24, &max_tokens);
    }
    json_free(doc);
    return status;
}

static pm_status read_lines(struct workload *w, const char *path)
{
    size_t n;
    TRY(read_file(&w->text, &n, path, MAX_FILE));
    for (char *p = w->text, *end; *p; p = end) {
        size_t n_bytes = strcspn(p, "\n");
        end = p + n_bytes + (p[n_bytes] == '\n');
        p[n_bytes] = 0;
        if (p[strspn(p, " \t\r")] == 0) continue;
        TRY(grow_array(&w->line, &w->capacity, w->n_line + 1, sizeof *w->line));
        w->line[w->n_line++] = p;
        TRY(check_line(w, path, n_bytes));
    }
    if (w->n_line == 0) return fail(PM_ERR_FORMAT, "%s: has no requests", path);
    return PM_OK;
}

/* A value again as JSON: texts, numbers, lists and objects of a line that was checked. */
static void put_value(struct json_out *out, const json *v)
{
    if (json_is_string(v)) {
        json_put_string(out, json_text(v), json_text_bytes(v));
    } else if (json_is_number(v)) {
        json_put(out, "%.17g", json_number(v));
    } else if (json_is_bool(v)) {
        json_put(out, "%s", json_true(v) ? "true" : "false");
    } else if (json_is_null(v)) {
        json_put(out, "null");
    } else {
        bool object = json_is_object(v);
        json_put(out, "%s", object ? "{" : "[");
        for (const json *m = json_child(v); m; m = json_next(m)) {
            if (m != json_child(v)) json_put(out, ", ");
            if (object) {
                json_put_string(out, json_key(m), json_key_bytes(m));
                json_put(out, ": ");
            }
            put_value(out, m);
        }
        json_put(out, "%s", object ? "}" : "]");
    }
}

static void put_line(const struct workload *w, int64_t i, struct json_out *out)
{
    struct random_stream r = stream(w, USE_LENGTHS, i);
    const char *line = w->line[(uint64_t)i % w->n_line];
    const char *key = w->o.chat ? "messages" : "prompt";
    int max_tokens = (int)random_between(&r, w->o.output.lo, w->o.output.hi);
    struct json_doc *doc;
    out->status = json_parse(&doc, "request", line, strlen(line));
    if (out->status != PM_OK) return;
    out->status = json_want_int(doc, json_root(doc), "max_tokens", 1, 1 << 24, &max_tokens);
    json_put(out, "\"%s\": ", key);
    put_value(out, json_get(json_root(doc), key));
    json_put(out, ", \"max_tokens\": %d", max_tokens);
    json_free(doc);
}

/* ---- both */

static pm_status check_kind(struct workload *w)
{
    const char *kind = w->o.kind;
    if (strncmp(kind, "file:", 5) == 0) return read_lines(w, kind + 5);
    if (strcmp(kind, "random") == 0) {
        w->o.prefix_len = 0;
    } else if (strcmp(kind, "shared-prefix") != 0) {
        return fail(PM_ERR_ARG,
                    "workload: found \"%s\", wanted random, shared-prefix or file:PATH", kind);
    }
    return PM_OK;
}

pm_status workload_open(struct workload **out, const struct workload_options *o)
{
    struct workload *w;
    pm_status status;
    TRY(alloc_array(&w, 1, sizeof *w, "workload"));
    w->o = *o;
    w->o.text = o->text || o->chat;
    status = check_kind(w);
    if (status != PM_OK) {
        workload_close(w);
        return status;
    }
    *out = w;
    return PM_OK;
}

void workload_close(struct workload *w)
{
    if (!w) return;
    free(w->text);
    free(w->line);
    free(w);
}

int64_t workload_size(const struct workload *w)
{
    return (int64_t)w->n_line;
}

void workload_put(const struct workload *w, int64_t i, struct json_out *out)
{
    if (out->status != PM_OK) return;
    if (w->n_line) {
        put_line(w, i, out);
    } else {
        put_random(w, i, out);
    }
}
