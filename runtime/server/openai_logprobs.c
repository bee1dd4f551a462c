/* openai_logprobs.c - log-probabilities in OpenAI's two forms: a list of tokens with their
 * candidates for chats, four lists side by side for completions. */
#include <stdlib.h>
#include <string.h>

#include "openai_inside.h"
#include "server_inside.h"

/* -inf is no JSON. */
static double finite(float logprob)
{
    return logprob > -9999 ? logprob : -9999;
}

static void put_chat_token(struct json_out *o, const struct openai *a, int32_t id,
                           float logprob)
{
    const char *piece;
    size_t n;
    openai_piece(a, id, &piece, &n);
    json_put(o, "\"token\":");
    json_put_string(o, piece, n);
    json_put(o, ",\"logprob\":%.6g,\"bytes\":[", finite(logprob));
    for (size_t i = 0; i < n; i++) {
        json_put(o, "%s%u", i ? "," : "", (unsigned char)piece[i]);
    }
    json_put(o, "]");
}

static void chat_logprob(struct generation *g, struct choice *c, const struct tape_record *r,
                         const char *top)
{
    struct json_out *o = &c->column[0];
    openai_next(o);
    json_put(o, "{");
    put_chat_token(o, g->call->server->openai, r->id, r->logprob);
    json_put(o, ",\"top_logprobs\":[");
    for (int i = 0; i < r->n_top; i++) {
        pm_candidate k;
        memcpy(&k, top + (size_t)i * sizeof k, sizeof k);
        json_put(o, i ? ",{" : "{");
        put_chat_token(o, g->call->server->openai, k.id, k.logprob);
        json_put(o, "}");
    }
    json_put(o, "]}");
}

/* Candidates by their text. Parts of characters look alike; the likelier one stands for them.
 */
static void put_top(struct json_out *o, const struct openai *a, const struct tape_record *r,
                    const char *top)
{
    struct json_out name[OPENAI_MAX_TOP + 1] = {{0}};
    int n = 0;
    json_put(o, "{");
    for (int i = 0; i <= r->n_top && i <= OPENAI_MAX_TOP; i++) {
        pm_candidate k = {r->id, r->logprob};
        const char *piece;
        size_t n_piece;
        bool known = false;
        if (i < r->n_top) memcpy(&k, top + (size_t)i * sizeof k, sizeof k);
        openai_piece(a, k.id, &piece, &n_piece);
        json_put_string(&name[n], piece, n_piece);
        if (name[n].status != PM_OK) o->status = name[n].status;
        for (int j = 0; j < n && o->status == PM_OK; j++) {
            known |= strcmp(name[j].text, name[n].text) == 0;
        }
        if (known) {
            name[n].n = 0;
            continue;
        }
        json_put(o, "%s%s:%.6g", n ? "," : "", name[n].text ? name[n].text : "\"\"",
                 finite(k.logprob));
        n++;
    }
    json_put(o, "}");
    for (int i = 0; i <= OPENAI_MAX_TOP; i++) {
        free(name[i].text);
    }
}

enum { TOKENS, TOKEN_LOGPROBS, TOP_LOGPROBS, TEXT_OFFSET };

static size_t count_characters(const char *text, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    return count;
}

static void completion_logprob(struct generation *g, struct choice *c,
                               const struct tape_record *r, const char *top)
{
    const struct openai *a = g->call->server->openai;
    struct json_out *k = c->column;
    const char *piece;
    size_t n;
    openai_piece(a, r->id, &piece, &n);
    for (int i = 0; i < 4; i++) {
        openai_next(&k[i]);
    }
    json_put_string(&k[TOKENS], piece, n);
    json_put(&k[TEXT_OFFSET], "%zu", c->offset);
    if (r->prompt && !c->scored) { /* nothing is before it */
        json_put(&k[TOKEN_LOGPROBS], "null");
        json_put(&k[TOP_LOGPROBS], "null");
    } else {
        json_put(&k[TOKEN_LOGPROBS], "%.6g", finite(r->logprob));
        put_top(&k[TOP_LOGPROBS], a, r, top);
    }
    c->scored = true;
    c->offset += count_characters(piece, n);
}

void openai_take_logprob(struct generation *g, struct choice *c, const struct tape_record *r,
                         const char *top)
{
    (g->r.endpoint == OPENAI_CHAT ? chat_logprob : completion_logprob)(g, c, r, top);
}

void openai_put_logprobs(struct generation *g, struct choice *c, struct json_out *o)
{
    static const char *const name[] = {"tokens", "token_logprobs", "top_logprobs",
                                       "text_offset"};
    json_put(o, ",\"logprobs\":");
    if (g->r.top < 0) {
        json_put(o, "null");
        return;
    }
    if (g->r.endpoint == OPENAI_CHAT) {
        json_put(o, "{\"content\":[");
        openai_put_list(o, &c->column[0]);
        json_put(o, "]}");
        c->column[0].n = 0;
        return;
    }
    for (int i = 0; i < 4; i++) {
        json_put(o, "%s\"%s\":[", i ? "]," : "{", name[i]);
        openai_put_list(o, &c->column[i]);
        c->column[i].n = 0;
    }
    json_put(o, "]}");
}
