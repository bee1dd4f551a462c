/* openai_routes.c - the table of paths, and the endpoints that only report. */
#include <stdlib.h>
#include <string.h>

#include "openai_inside.h"
#include "page.h"
#include "server_inside.h"

const char *openai_model_name(const struct call *c)
{
    return c->server->o.name[0];
}

bool openai_model_is_served(struct call *c, const char *model)
{
    const struct server_options *o = &c->server->o;
    if (!model || strcmp(model, c->server->path) == 0) return true;
    for (int i = 0; i < o->n_name; i++) {
        if (strcmp(model, o->name[i]) == 0) return true;
    }
    call_refuse(c, 404, "model_not_found", "model",
                "the model %.200s is not served here; %s is", model, o->name[0]);
    return false;
}

static bool is_loaded(struct call *c)
{
    if (atomic_load(&c->server->state) != SERVER_LOADING) return true;
    call_refuse(c, 503, "loading", NULL, "the model is being loaded");
    return false;
}

/* ------------------------------------------------------------------ health */

static bool route_live(struct call *c)
{
    struct json_out o = {0};
    json_put(&o, "{\"status\":\"ok\"}");
    call_answer_json(c, &o);
    return true;
}

/* The engine says itself when it last made a step: a server that answers while its engine hangs
 * is not healthy. */
static bool route_ready(struct call *c)
{
    struct server *s = c->server;
    enum server_state state = atomic_load(&s->state);
    struct json_out o = {0};
    pm_stats stats = {0};
    const char *say = "ready";
    if (state == SERVER_READY) pm_engine_stats(s->engine, &stats);
    if (state == SERVER_LOADING) say = "loading";
    if (state == SERVER_DRAINING) say = "draining";
    if (stats.step_age_us > s->o.stuck_us) say = "stuck";
    json_put(&o, "{\"status\":\"%s\",\"step_age_seconds\":%.3f,\"running\":%d,\"waiting\":%d}",
             say, (double)stats.step_age_us * 1e-6, stats.n_running, stats.n_waiting);
    call_answer(c, strcmp(say, "ready") == 0 ? 200 : 503, "application/json", &o);
    return true;
}

static bool route_version(struct call *c)
{
    struct json_out o = {0};
    json_put(&o, "{\"version\":\"%s\",\"commit\":\"%s\"}", pm_version(), pm_commit());
    call_answer_json(c, &o);
    return true;
}

/* ------------------------------------------------------------------ model and load */

static void put_model(const struct server *s, struct json_out *o, const char *name)
{
    json_put(o, "{\"id\":");
    json_put_string(o, name, strlen(name));
    json_put(o,
             ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"polymath\","
             "\"max_model_len\":%d,\"meta\":{\"family\":\"%s\",\"device\":\"%s\","
             "\"dtype\":\"%s\",\"n_layer\":%d,\"n_expert\":%d,\"n_expert_per_token\":%d,"
             "\"vocab_size\":%d,\"n_params\":%.0f,\"n_active_params\":%.0f,\"chat\":%s}}",
             (long long)s->created_s, s->info.context, s->info.family, s->info.device,
             s->info.dtype, s->info.n_layer, s->info.n_expert, s->info.n_expert_per_token,
             s->info.vocab_size, s->info.n_parameter, s->info.n_active_parameter,
             s->openai->chat ? "true" : "false");
}

static bool route_models(struct call *c)
{
    const struct server *s = c->server;
    struct json_out o = {0};
    if (!is_loaded(c)) return true;
    json_put(&o, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < s->o.n_name; i++) {
        if (i) json_put(&o, ",");
        put_model(s, &o, s->o.name[i]);
    }
    json_put(&o, "]}");
    call_answer_json(c, &o);
    return true;
}

static bool route_model(struct call *c)
{
    struct json_out o = {0};
    if (!is_loaded(c) || !openai_model_is_served(c, c->rest)) return true;
    put_model(c->server, &o, c->rest);
    call_answer_json(c, &o);
    return true;
}

/* Counts [n_layer, n_expert] to be freed, or NULL for a model without experts. */
static pm_status read_experts(const struct server *s, uint64_t **out)
{
    uint64_t *count = NULL;
    pm_status status;
    *out = NULL;
    if (s->info.n_expert == 0) return PM_OK;
    TRY(alloc_array(&count, (size_t)s->info.n_layer * (size_t)s->info.n_expert, sizeof *count,
                    "experts"));
    status = pm_engine_experts(s->engine, count);
    if (status != PM_OK) {
        free(count);
        return status;
    }
    *out = count;
    return PM_OK;
}

static bool route_experts(struct call *c)
{
    const struct server *s = c->server;
    struct json_out o = {0};
    uint64_t *count, n_token = 0;
    pm_status status = read_experts(s, &count);
    atomic_store(&c->server->counts_experts, true);
    if (status != PM_OK) {
        call_refuse_status(c, status, NULL);
        return true;
    }
    json_put(&o, "{\"layers\":%d,\"experts\":%d,\"experts_per_token\":%d,\"counts\":[",
             s->info.n_layer, s->info.n_expert, s->info.n_expert_per_token);
    for (int i = 0; count && i < s->info.n_layer; i++) {
        uint64_t sum = 0;
        json_put(&o, i ? ",[" : "[");
        for (int j = 0; j < s->info.n_expert; j++) {
            uint64_t n = count[(size_t)i * (size_t)s->info.n_expert + (size_t)j];
            sum += n;
            json_put(&o, "%s%llu", j ? "," : "", (unsigned long long)n);
        }
        json_put(&o, "]");
        sum /= (uint64_t)max_i64(1, s->info.n_expert_per_token);
        if (sum > n_token) n_token = sum;
    }
    json_put(&o, "],\"tokens\":%llu}", (unsigned long long)n_token);
    free(count);
    call_answer_json(c, &o);
    return true;
}

static bool route_metrics(struct call *c)
{
    struct server *s = c->server;
    struct json_out o = {0};
    uint64_t *count = NULL;
    pm_stats stats;
    pm_status status = PM_OK;
    /* Counting costs a GPU time: a scrape alone shall not begin it. */
    if (atomic_load(&s->counts_experts)) status = read_experts(s, &count);
    if (status != PM_OK) {
        call_refuse_status(c, status, NULL);
        return true;
    }
    pm_engine_stats(s->engine, &stats);
    metrics_put(&o, &s->metrics, openai_model_name(c), &stats, count, s->info.n_layer,
                s->info.n_expert);
    free(count);
    call_answer(c, 200, "text/plain; version=0.0.4; charset=utf-8", &o);
    return true;
}

/* ------------------------------------------------------------------ requests */

static bool route_requests(struct call *c)
{
    struct json_out o = {0};
    generation_list(c, &o);
    call_answer_json(c, &o);
    return true;
}

/* The id as an answer has it, with or without what it begins with. */
static bool route_cancel(struct call *c)
{
    const char *dash = strrchr(c->rest, '-');
    struct json_out o = {0};
    if (!generation_cancel(c, dash ? dash + 1 : c->rest)) {
        call_refuse(c, 404, "request_not_found", "id", "there is no request %.60s at work",
                    c->rest);
        return true;
    }
    json_put(&o, "{\"id\":");
    json_put_string(&o, c->rest, strlen(c->rest));
    json_put(&o, ",\"object\":\"request\",\"deleted\":true}");
    call_answer_json(c, &o);
    return true;
}

static bool route_missing(struct call *c)
{
    call_refuse(c, 501, "not_implemented", NULL,
                "%s is not offered: this server generates text", c->route->path);
    return true;
}

static bool route_page(struct call *c)
{
    c->http = 200;
    c->type = "text/html; charset=utf-8";
    c->fixed = page_html;
    c->n_fixed = page_bytes;
    c->policy = page_policy;
    return true;
}

const struct route route_table[] = {
    {"/v1/chat/completions", METHOD_POST, ROUTE_MAKE, route_chat},
    {"/v1/completions", METHOD_POST, ROUTE_MAKE, route_completions},
    {"/v1/models", METHOD_GET, ROUTE_QUICK, route_models},
    {"/v1/models/{name}", METHOD_GET, ROUTE_QUICK, route_model},
    {"/tokenize", METHOD_POST, ROUTE_WORK, route_tokenize},
    {"/detokenize", METHOD_POST, ROUTE_WORK, route_detokenize},
    {"/apply-template", METHOD_POST, ROUTE_WORK, route_template},
    {"/health/live", METHOD_GET, ROUTE_OPEN, route_live},
    {"/health/ready", METHOD_GET, ROUTE_QUICK, route_ready},
    {"/health", METHOD_GET, ROUTE_QUICK, route_ready},
    {"/metrics", METHOD_GET, ROUTE_WORK, route_metrics},
    {"/version", METHOD_GET, ROUTE_QUICK, route_version},
    {"/experts", METHOD_GET, ROUTE_WORK, route_experts},
    {"/v1/requests", METHOD_GET, ROUTE_WORK, route_requests},
    {"/v1/requests/{id}", METHOD_DELETE, ROUTE_WORK, route_cancel},
    {"/", METHOD_GET, ROUTE_QUICK, route_page},
    {"/v1/embeddings", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {"/v1/responses", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {"/v1/messages", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {"/v1/rerank", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {"/v1/score", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {"/v1/moderations", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {"/v1/audio/speech", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {"/v1/audio/transcriptions", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {"/v1/images/generations", METHOD_GET | METHOD_POST, ROUTE_QUICK, route_missing},
    {NULL, 0, 0, NULL},
};
