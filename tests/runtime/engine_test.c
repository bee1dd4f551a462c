/* engine_test.c - requests that share an engine, on the model of this repository.
 *
 * Tokens and log-probabilities of a request are the same bits alone, among others, after being
 * put back, and with a cached prefix. What is cancelled, late or refused leaves no block
 * behind.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#include "runtime/engine_inside.h"

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))
#define OK(call)                                                                               \
    do {                                                                                       \
        if ((call) != PM_OK) FAIL("%s", pm_last_error());                                      \
    } while (0)

enum { MAX_OUT = 256, N_PROMPT = 12 };

static const char *const prompts[N_PROMPT] = {
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

/* Options as pairs of key and value, ending with NULL. */
static pm_engine *open_engine(const char *const *pairs)
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

/* What a request gave. */
struct heard {
    int32_t id[MAX_OUT];
    float logprob[MAX_OUT];
    char text[8192];
    size_t n_text;
    int n, n_prompt, n_end, stop_after;
    pm_status status;
    char error[256];
    pm_result result;
    pm_request *request;
};

static bool on_token(void *arg, const pm_token *t)
{
    struct heard *h = arg;
    if (t->prompt) {
        h->n_prompt++;
        return true;
    }
    if (t->id >= 0 && h->n < MAX_OUT) {
        h->id[h->n] = t->id;
        h->logprob[h->n++] = t->logprob;
    }
    memcpy(h->text + h->n_text, t->text, t->n_text);
    h->n_text += t->n_text;
    return !h->stop_after || h->n < h->stop_after;
}

static void on_end(void *arg, pm_status status, const char *error, const pm_result *result)
{
    struct heard *h = arg;
    h->n_end++;
    h->status = status;
    h->result = *result;
    snprintf(h->error, sizeof h->error, "%s", error);
}

static pm_params params_of(int i)
{
    pm_params p;
    pm_params_init(&p);
    p.max_tokens = 20 + 7 * (i % 5);
    p.temperature = i % 3 ? 0.8f : 0;
    p.top_p = i % 2 ? 0.95f : 1;
    p.seed = (uint64_t)i;
    p.ignore_eos = true;
    return p;
}

static void submit(pm_engine *e, struct heard *h, const char *prompt, const pm_params *p)
{
    int32_t *id;
    size_t n;
    memset(h, 0, sizeof *h);
    OK(pm_tokenize(e, prompt, strlen(prompt), true, false, &id, &n));
    OK(pm_submit(&h->request, e, id, n, p, on_token, on_end, h));
    pm_free(id);
}

static void finish(struct heard *h)
{
    OK(pm_wait(h->request, NULL));
    pm_request_free(h->request);
    assert_int_equal(h->n_end, 1);
}

static void same(const struct heard *a, const struct heard *b, int i)
{
    if (a->n != b->n || memcmp(a->id, b->id, (size_t)a->n * sizeof *a->id) ||
        memcmp(a->logprob, b->logprob, (size_t)a->n * sizeof *a->logprob) ||
        a->n_text != b->n_text || memcmp(a->text, b->text, a->n_text)) {
        FAIL("request %d: %d tokens \"%.*s\", wanted %d tokens \"%.*s\"", i, b->n,
             (int)b->n_text, b->text, a->n, (int)a->n_text, a->text);
    }
}

/* Every block is free when nobody runs. */
static void nothing_held(pm_engine *e)
{
    pm_stats s;
    pm_engine_stats(e, &s);
    assert_int_equal(s.n_running, 0);
    assert_int_equal(s.n_waiting, 0);
    assert_int_equal(s.n_waiting_token, 0);
    assert_int_equal(s.n_block_used, 0);
}

/* Each request alone, on an engine of its own settings. */
static struct heard *alone(void)
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

/* All requests at once, twice, with these settings. */
static void all_at_once(const char *const *pairs, pm_stats *stats)
{
    static struct heard got[N_PROMPT];
    const struct heard *want = alone();
    pm_engine *e = open_engine(pairs);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N_PROMPT; i++) {
            pm_params p = params_of(i);
            submit(e, &got[i], prompts[i], &p);
        }
        for (int i = 0; i < N_PROMPT; i++) {
            finish(&got[i]);
            same(&want[i], &got[i], i);
        }
    }
    nothing_held(e);
    if (stats) pm_engine_stats(e, stats);
    pm_engine_close(e);
}

static void a_full_batch_gives_the_same_bits(void **state)
{
    pm_stats s;
    (void)state;
    all_at_once(NULL, &s);
    assert_true(s.prefix_hits > 0); /* in the second round */
}

static void small_steps_give_the_same_bits(void **state)
{
    static const char *const pairs[] = {"batch", "5", "max-seqs", "4", NULL};
    (void)state;
    all_at_once(pairs, NULL);
}

static void preempted_requests_give_the_same_bits(void **state)
{
    static const char *const pairs[] = {"kv-tokens", "96", "max-seqs", "12", NULL};
    pm_stats s;
    (void)state;
    all_at_once(pairs, &s);
    assert_true(s.n_preemption > 0);
}

static void a_cancelled_request_ends_soon(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard h;
    pm_params p = params_of(1);
    (void)state;
    p.max_tokens = 900;
    submit(e, &h, prompts[0], &p);
    pm_cancel(h.request);
    OK(pm_wait(h.request, NULL));
    assert_int_equal(h.result.finish, PM_FINISH_CALLER);
    pm_request_free(h.request);
    nothing_held(e);
    pm_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_batch_gives_the_same_bits),
        cmocka_unit_test(small_steps_give_the_same_bits),
        cmocka_unit_test(preempted_requests_give_the_same_bits),
        cmocka_unit_test(a_cancelled_request_ends_soon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
