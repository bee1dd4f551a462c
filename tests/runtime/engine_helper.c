/* engine_helper.c - what the tests of the engine share. */
#include "engine_helper.h"

const char *const prompts[N_PROMPT] = {
    "Once upon a time",
    "The little dog",
    "It was raining, and",
    "A",
    "Tom and Lily went to the",
    "There was a big red ball. There was a big blue ball. There was a big green ball. There "
    "was",
    "\"Hello\", said the cat. \"What are you doing here?\" The bird looked down and",
    "One day",
    "She had a",
    "Why do",
    "In the morning the sun was shining over the hills and the village",
    "The end of the story is that"};

static const char *model_folder(void)
{
    static char path[512];
    const char *source = getenv("POLYMATH_SOURCE_DIR");
    snprintf(path, sizeof path, "%s/models/polymath-16m", source ? source : PM_SOURCE_DIR);
    return path;
}

pm_engine *open_engine(const char *const *pairs)
{
    pm_options *o;
    pm_engine *e;
    OK(pm_options_new(&o));
    OK(pm_options_set(o, "device", "cpu"));
    OK(pm_options_set(o, "threads", "2"));
    for (; pairs && *pairs; pairs += 2) {
        OK(pm_options_set(o, pairs[0], pairs[1]));
    }
    OK(pm_engine_open(&e, model_folder(), o));
    pm_options_free(o);
    return e;
}

static void hear_prompt(struct heard *h, const pm_token *t)
{
    h->prompt_id[h->n_prompt] = t->id;
    h->prompt_logprob[h->n_prompt++] = t->logprob;
    memcpy(h->prompt_text + h->n_prompt_text, t->text, t->n_text);
    h->n_prompt_text += t->n_text;
}

static bool on_token(void *arg, const pm_token *t)
{
    struct heard *h = arg;
    if (t->prompt) {
        hear_prompt(h, t);
        return true;
    }
    if (t->id >= 0) {
        h->id[h->n] = t->id;
        h->logprob[h->n++] = t->logprob;
    }
    memcpy(h->text + h->n_text, t->text, t->n_text);
    h->n_text += t->n_text;
    if (!h->stop_after || h->n < h->stop_after) return true;
    if (h->cancel) pm_cancel(h->request);
    return h->cancel;
}

static void on_end(void *arg, pm_status status, const char *error, const pm_result *result)
{
    struct heard *h = arg;
    h->n_end++;
    h->status = status;
    h->result = *result;
    snprintf(h->error, sizeof h->error, "%s", error);
}

pm_params params_of(int i)
{
    pm_params p;
    pm_params_init(&p);
    p.max_tokens = 20 + 7 * (i % 5);
    p.temperature = i % 3 ? 0.8f : 0;
    p.top_p = i % 2 ? 0.95f : 1;
    p.top_k = i % 4 ? 0 : 40;
    p.frequency_penalty = i % 5 ? 0 : 0.3f;
    p.repeat_penalty = i % 6 ? 1 : 1.1f;
    p.seed = (uint64_t)i;
    p.ignore_eos = true;
    return p;
}

pm_status submit_ids(pm_engine *e, struct heard *h, const int32_t *id, size_t n,
                     const pm_params *p)
{
    int stop_after = h->stop_after;
    bool cancel = h->cancel;
    memset(h, 0, sizeof *h);
    h->stop_after = stop_after;
    h->cancel = cancel;
    return pm_submit(&h->request, e, id, n, p, on_token, on_end, h);
}

void submit(pm_engine *e, struct heard *h, const char *prompt, const pm_params *p)
{
    int32_t *id;
    size_t n;
    OK(pm_tokenize(e, prompt, strlen(prompt), true, false, &id, &n));
    OK(submit_ids(e, h, id, n, p));
    pm_free(id);
}

pm_status finish_status(struct heard *h)
{
    pm_status status = pm_wait(h->request, NULL);
    pm_request_free(h->request);
    assert_int_equal(h->n_end, 1);
    assert_int_equal(h->status, status);
    return status;
}

void finish(struct heard *h)
{
    OK(finish_status(h));
}

void same(const struct heard *want, const struct heard *got, int i)
{
    if (want->n != got->n || memcmp(want->id, got->id, (size_t)want->n * sizeof *want->id) ||
        memcmp(want->logprob, got->logprob, (size_t)want->n * sizeof *want->logprob) ||
        want->n_text != got->n_text || memcmp(want->text, got->text, want->n_text)) {
        FAIL("request %d: %d tokens \"%.*s\", wanted %d tokens \"%.*s\"", i, got->n,
             (int)got->n_text, got->text, want->n, (int)want->n_text, want->text);
    }
}

void nothing_held(pm_engine *e)
{
    pm_stats s;
    pm_engine_stats(e, &s);
    assert_int_equal(s.n_running, 0);
    assert_int_equal(s.n_waiting, 0);
    assert_int_equal(s.n_waiting_token, 0);
    assert_int_equal(s.n_block_used, 0);
}

struct heard *heard_alone(void)
{
    static struct heard list[N_PROMPT];
    static bool known;
    static const char *const pairs[] = {"max-seqs", "1", "prefix-cache", "0", NULL};
    pm_engine *e;
    if (known) return list;
    e = open_engine(pairs);
    for (int i = 0; i < N_PROMPT; i++) {
        pm_params p = params_of(i);
        submit(e, &list[i], prompts[i], &p);
        finish(&list[i]);
        assert_int_equal(list[i].n, p.max_tokens);
    }
    pm_engine_close(e);
    known = true;
    return list;
}
