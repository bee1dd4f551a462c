/* engine_test.c - requests that share an engine, on the model of this repository.
 *
 * Tokens and log-probabilities of a request are the same bits alone, among others, after being
 * put back, and with a cached prefix. What is cancelled, late or refused leaves no block
 * behind.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <pthread.h>
#include <time.h>

#include "engine_helper.h"

static void wait_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* ------------------------------------------------------------------ same bits */

/* All requests at once, twice, with these settings. */
static void all_at_once(const char *const *pairs, pm_stats *stats)
{
    static struct heard got[N_PROMPT];
    const struct heard *want = heard_alone();
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

static void preempted_requests_without_prefixes_give_the_same_bits(void **state)
{
    static const char *const pairs[] = {"kv-tokens", "96",           "max-seqs", "12", "batch",
                                        "16",        "prefix-cache", "0",        NULL};
    pm_stats s;
    (void)state;
    all_at_once(pairs, &s);
    assert_true(s.n_preemption > 0 && s.prefix_hits == 0 && s.n_block_cached == 0);
}

/* ------------------------------------------------------------------ prefixes */

static const char *const long_prompt =
    "Once upon a time there was a little girl who lived in a house near the forest with her "
    "mother and her father and a small dog whose name was Spot. Every day they went for a "
    "walk.";

static void a_prefix_is_found_by_its_own_key_only(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(4, sizeof *h);
    pm_params p = params_of(1);
    int n_block;
    (void)state;
    for (int i = 0; i < 4; i++) {
        p.key = i == 2 ? 7 : 0;
        submit(e, &h[i], long_prompt, &p);
        finish(&h[i]);
        same(&h[0], &h[i], i);
    }
    n_block = (h[0].result.n_prompt - 1) / 16;
    assert_true(n_block > 1);
    assert_int_equal(h[0].result.n_cached, 0);
    assert_int_equal(h[1].result.n_cached, n_block * 16);
    assert_int_equal(h[2].result.n_cached, 0);
    assert_int_equal(h[3].result.n_cached, n_block * 16);
    pm_engine_close(e);
    free(h);
}

/* A prompt of whole blocks that are all cached: its last token is computed all the same. */
static void a_whole_prompt_in_the_cache_gives_the_same_bits(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(2, sizeof *h);
    pm_params p = params_of(0);
    int32_t *id;
    size_t n;
    (void)state;
    OK(pm_tokenize(e, long_prompt, strlen(long_prompt), true, false, &id, &n));
    assert_true(n > 32);
    for (int i = 0; i < 2; i++) {
        OK(submit_ids(e, &h[i], id, 32, &p));
        finish(&h[i]);
    }
    same(&h[0], &h[1], 1);
    assert_int_equal(h[1].result.n_cached, 16);
    pm_free(id);
    pm_engine_close(e);
    free(h);
}

/* Several answers to one new prompt: it is computed once, though all come at the same time. */
static void equal_prompts_at_the_same_time_are_computed_once(void **state)
{
    enum { N = 8 };
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(N, sizeof *h);
    pm_stats s;
    int n_prompt;
    (void)state;
    for (int i = 0; i < N; i++) {
        pm_params p = params_of(1);
        p.seed = (uint64_t)i;
        submit(e, &h[i], long_prompt, &p);
    }
    for (int i = 0; i < N; i++) {
        finish(&h[i]);
    }
    pm_engine_stats(e, &s);
    n_prompt = h[0].result.n_prompt;
    assert_true(s.prompt_tokens <= (uint64_t)(n_prompt + (N - 1) * 16));
    pm_engine_close(e);
    free(h);
}

/* ------------------------------------------------------------------ log-probabilities */

static void prompt_logprobs_are_those_of_a_score(void **state)
{
    static const char *const pairs[] = {"batch", "7", "max-seqs", "3", NULL};
    pm_engine *e = open_engine(pairs);
    struct heard *h = calloc(3, sizeof *h);
    float want[256];
    int32_t *id;
    size_t n;
    (void)state;
    OK(pm_tokenize(e, long_prompt, strlen(long_prompt), true, false, &id, &n));
    OK(pm_score(e, id, n, want, NULL));
    for (int i = 0; i < 3; i++) {
        pm_params p = params_of(i);
        p.n_prompt_logprob = i;
        OK(submit_ids(e, &h[i], id, n, &p));
    }
    for (int i = 0; i < 3; i++) {
        finish(&h[i]);
        assert_int_equal(h[i].n_prompt, n);
        assert_memory_equal(h[i].prompt_id, id, n * sizeof *id);
        assert_true(h[i].prompt_logprob[0] == 0);
        for (size_t j = 1; j < n; j++) {
            assert_true(fabsf(h[i].prompt_logprob[j] - want[j - 1]) < 1e-5f);
        }
        assert_int_equal(h[i].n_prompt_text, strlen(long_prompt));
        assert_memory_equal(h[i].prompt_text, long_prompt, h[i].n_prompt_text);
    }
    pm_free(id);
    pm_engine_close(e);
    free(h);
}

struct best {
    int n_token, n_top;
    bool wrong;
};

static bool hear_best(void *arg, const pm_token *t)
{
    struct best *b = arg;
    if (t->id < 0) return true;
    b->n_token++;
    b->n_top += t->n_top;
    for (int i = 0; i < t->n_top; i++) {
        if (i && t->top[i].logprob > t->top[i - 1].logprob) b->wrong = true;
    }
    if (t->n_top && (t->top[0].id != t->id || t->top[0].logprob != t->logprob)) b->wrong = true;
    return true;
}

static void candidates_come_with_each_token(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct best b = {0};
    pm_params p = params_of(0);
    (void)state;
    p.temperature = 0;
    p.max_tokens = 10;
    p.n_logprob = 5;
    OK(pm_generate(e, prompts[0], strlen(prompts[0]), &p, hear_best, &b, NULL));
    assert_true(b.n_token == 10 && b.n_top == 50 && !b.wrong);
    pm_engine_close(e);
}

/* ------------------------------------------------------------------ ends */

static void a_cancelled_request_ends_soon(void **state)
{
    static const char *const pairs[] = {"max-seqs", "1", NULL};
    pm_engine *e = open_engine(pairs);
    struct heard *h = calloc(3, sizeof *h);
    pm_params p = params_of(1);
    (void)state;
    p.max_tokens = 900;
    for (int i = 0; i < 3; i++) { /* one runs, two wait */
        submit(e, &h[i], prompts[i], &p);
    }
    pm_cancel(h[1].request);
    OK(pm_wait(h[1].request, NULL));
    pm_cancel(h[0].request);
    for (int i = 0; i < 2; i++) {
        finish(&h[i]);
        assert_int_equal(h[i].result.finish, PM_FINISH_CALLER);
        assert_true(h[i].n < 900);
    }
    pm_request_free(h[2].request); /* cancels */
    assert_int_equal(h[2].n_end, 1);
    nothing_held(e);
    pm_engine_close(e);
    free(h);
}

static void a_callback_ends_its_request(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(2, sizeof *h);
    const struct heard *want = heard_alone();
    (void)state;
    for (int i = 0; i < 2; i++) {
        pm_params p = params_of(i);
        h[i].stop_after = 3 + i;
        h[i].cancel = i == 1;
        submit(e, &h[i], prompts[i], &p);
        finish(&h[i]);
        assert_int_equal(h[i].result.finish, PM_FINISH_CALLER);
        assert_int_equal(h[i].n, 3 + i);
        assert_memory_equal(h[i].id, want[i].id, (size_t)h[i].n * sizeof *h[i].id);
    }
    nothing_held(e);
    pm_engine_close(e);
    free(h);
}

static void a_late_request_ends_at_its_deadline(void **state)
{
    static const char *const pairs[] = {"max-seqs", "1", NULL};
    pm_engine *e = open_engine(pairs);
    struct heard *h = calloc(2, sizeof *h);
    pm_params p = params_of(1);
    int64_t start = now_us();
    (void)state;
    p.max_tokens = 1000;
    p.deadline_us = 30000;
    for (int i = 0; i < 2; i++) { /* the second waits and never runs */
        submit(e, &h[i], prompts[i], &p);
    }
    for (int i = 0; i < 2; i++) {
        finish(&h[i]);
        assert_int_equal(h[i].result.finish, PM_FINISH_DEADLINE);
    }
    assert_true(now_us() - start >= 30000);
    nothing_held(e);
    pm_engine_close(e);
    free(h);
}

static void stop_texts_end_and_are_not_given_out(void **state)
{
    static const char *stop[] = {"zzz", "the"};
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(3, sizeof *h);
    pm_params p = params_of(0);
    const char *at;
    size_t before;
    (void)state;
    p.max_tokens = 200;
    submit(e, &h[0], prompts[0], &p);
    finish(&h[0]);
    at = strstr(h[0].text, "the");
    assert_non_null(at);
    before = (size_t)(at - h[0].text);
    p.stop = stop;
    p.n_stop = 2;
    submit(e, &h[1], prompts[0], &p);
    finish(&h[1]);
    assert_int_equal(h[1].result.finish, PM_FINISH_STOP);
    assert_int_equal(h[1].n_text, before);
    assert_memory_equal(h[1].text, h[0].text, before);
    /* Not before min_tokens. */
    p.min_tokens = h[1].n + 1;
    submit(e, &h[2], prompts[0], &p);
    finish(&h[2]);
    assert_true(h[2].n > h[1].n);
    assert_memory_equal(h[2].text, h[0].text, before + 3);
    pm_engine_close(e);
    free(h);
}

static void end_tokens_wait_for_min_tokens(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(2, sizeof *h);
    const pm_logit_bias wish = {model_config(engine_model(e))->eos[0], 100};
    pm_params p = params_of(0);
    (void)state;
    p.ignore_eos = false;
    p.bias = &wish;
    p.n_bias = 1;
    for (int i = 0; i < 2; i++) {
        p.min_tokens = i * 5;
        submit(e, &h[i], prompts[0], &p);
        finish(&h[i]);
        assert_int_equal(h[i].n, i * 5);
        assert_int_equal(h[i].result.finish, PM_FINISH_EOS);
    }
    pm_engine_close(e);
    free(h);
}

static bool go_on_once(void *arg)
{
    struct heard *h = arg;
    return h->stop_after-- > 0;
}

static void a_prompt_can_be_given_up_between_its_steps(void **state)
{
    static const char *const pairs[] = {"batch", "4", "max-seqs", "2", NULL};
    pm_engine *e = open_engine(pairs);
    struct heard *h = calloc(1, sizeof *h);
    pm_params p = params_of(0);
    (void)state;
    p.go_on = go_on_once;
    for (int i = 0; i < 3; i++) {
        h->stop_after = i;
        submit(e, h, long_prompt, &p);
        finish(h);
        assert_int_equal(h->result.finish, PM_FINISH_CALLER);
        assert_int_equal(h->result.n_prompt - h->result.n_cached, 4 * i);
        assert_int_equal(h->n, 0);
    }
    nothing_held(e);
    pm_engine_close(e);
    free(h);
}

static void no_new_tokens_are_a_result_too(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(1, sizeof *h);
    pm_params p = params_of(0);
    (void)state;
    p.max_tokens = 0;
    submit(e, h, prompts[0], &p);
    finish(h);
    assert_true(h->n == 0 && h->result.n_generated == 0 && h->result.n_prompt > 0);
    assert_int_equal(h->result.finish, PM_FINISH_LENGTH);
    pm_engine_close(e);
    free(h);
}

static void a_schema_is_kept_to(void **state)
{
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"name\":{\"enum\":"
                                 "[\"Tom\",\"Lily\"]},\"age\":{\"type\":\"integer\","
                                 "\"minimum\":3,\"maximum\":9}},\"required\":[\"name\","
                                 "\"age\"],\"additionalProperties\":false}";
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(N_PROMPT + 1, sizeof *h);
    const struct heard *want = heard_alone();
    (void)state;
    for (int i = 0; i <= N_PROMPT; i++) { /* every other beside it is free */
        pm_params p = params_of(i);
        p.max_tokens = i % 2 ? p.max_tokens : 100;
        if (i % 2 == 0) {
            p.schema = schema;
            p.n_schema = sizeof schema - 1;
        }
        submit(e, &h[i], prompts[i % N_PROMPT], &p);
    }
    for (int i = 0; i <= N_PROMPT; i++) {
        char name[8];
        int age = 0;
        finish(&h[i]);
        if (i % 2) {
            same(&want[i], &h[i], i);
            continue;
        }
        assert_int_equal(h[i].result.finish, PM_FINISH_EOS);
        if (sscanf(h[i].text, " { \"name\" : \"%7[a-zA-Z]\" , \"age\" : %d }", name, &age) !=
            2) {
            FAIL("found %s", h[i].text);
        }
        assert_true(age >= 3 && age <= 9 && (!strcmp(name, "Tom") || !strcmp(name, "Lily")));
    }
    pm_engine_close(e);
    free(h);
}

/* ------------------------------------------------------------------ bounds */

static void a_full_queue_refuses(void **state)
{
    static const char *const pairs[] = {"max-seqs",         "1",  "max-queue", "2",
                                        "max-queue-tokens", "40", NULL};
    pm_engine *e = open_engine(pairs);
    struct heard *h = calloc(8, sizeof *h);
    pm_params p = params_of(1);
    int32_t id[64];
    int n_full = 0, n_in = 0;
    pm_stats s;
    (void)state;
    for (int i = 0; i < 64; i++) {
        id[i] = 100 + i;
    }
    p.max_tokens = 900;
    for (int i = 0; i < 8; i++) {
        pm_status status = submit_ids(e, &h[n_in], id, 20, &p);
        n_in += status == PM_OK;
        n_full += status == PM_ERR_FULL;
    }
    assert_true(n_in >= 2 && n_in <= 3 && n_full == 8 - n_in);
    pm_engine_stats(e, &s);
    assert_true(s.n_waiting <= 2 && s.n_waiting_token <= 40);
    /* A prompt over the bound of tokens may wait when nobody else does. */
    for (int i = 0; i < n_in; i++) {
        pm_request_free(h[i].request);
    }
    p.max_tokens = 2;
    OK(submit_ids(e, &h[0], id, 64, &p));
    finish(&h[0]);
    pm_engine_close(e);
    free(h);
}

static void what_cannot_be_served_is_refused(void **state)
{
    static const char *const pairs[] = {"kv-tokens", "64", NULL};
    pm_engine *e = open_engine(pairs);
    struct heard *h = calloc(1, sizeof *h);
    pm_params p = params_of(0), q = p;
    int32_t id[80] = {0}, wrong = 1 << 20;
    const pm_logit_bias bias = {1 << 20, 1};
    (void)state;
    assert_int_equal(submit_ids(e, h, id, 0, &p), PM_ERR_ARG);
    assert_int_equal(submit_ids(e, h, id, 65, &p), PM_ERR_TOO_LONG);
    assert_int_equal(submit_ids(e, h, &wrong, 1, &p), PM_ERR_ARG);
    q.temperature = -1;
    assert_int_equal(submit_ids(e, h, id, 1, &q), PM_ERR_ARG);
    q = p;
    q.n_logprob = 33;
    assert_int_equal(submit_ids(e, h, id, 1, &q), PM_ERR_ARG);
    q = p;
    q.max_tokens = -1;
    assert_int_equal(submit_ids(e, h, id, 1, &q), PM_ERR_ARG);
    q = p;
    q.bias = &bias;
    q.n_bias = 1;
    assert_int_equal(submit_ids(e, h, id, 1, &q), PM_ERR_ARG);
    assert_null(h->request);
    /* All that the cache holds can be used; the answer ends there. */
    p.max_tokens = 100;
    OK(submit_ids(e, h, id, 60, &p));
    finish(h);
    assert_int_equal(h->n, 5);
    assert_int_equal(h->result.finish, PM_FINISH_LENGTH);
    pm_engine_close(e);
    free(h);
}

/* ------------------------------------------------------------------ other users of the model
 */

static pm_status read_all_blocks(struct model *m, void *arg)
{
    int *calls = arg;
    ++*calls;
    return model_blocks(m) > 0 ? fail(PM_ERR_UNSUPPORTED, "a job's sentence") : PM_OK;
}

static void scores_and_jobs_do_not_disturb_requests(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(N_PROMPT, sizeof *h);
    const struct heard *want = heard_alone();
    float first[64], again[64];
    int calls = 0;
    (void)state;
    OK(pm_score(e, want[0].id, 20, first, NULL));
    for (int i = 0; i < N_PROMPT; i++) {
        pm_params p = params_of(i);
        submit(e, &h[i], prompts[i], &p);
        if (i % 4) continue;
        OK(pm_score(e, want[0].id, 20, again, NULL));
        assert_memory_equal(first, again, 19 * sizeof *first);
        assert_int_equal(engine_exclusive(e, read_all_blocks, &calls), PM_ERR_UNSUPPORTED);
        assert_string_equal(pm_last_error(), "a job's sentence");
    }
    for (int i = 0; i < N_PROMPT; i++) {
        finish(&h[i]);
        same(&want[i], &h[i], i);
    }
    assert_int_equal(calls, 3);
    nothing_held(e);
    pm_engine_close(e);
    free(h);
}

static void experts_are_counted_from_the_first_question_on(void **state)
{
    pm_engine *e = open_engine(NULL);
    const struct config *c = model_config(engine_model(e));
    size_t n = (size_t)c->n_layer * (size_t)c->gate.n_expert;
    uint64_t *count = calloc(n, sizeof *count), sum = 0;
    struct heard *h = calloc(1, sizeof *h);
    pm_params p = params_of(0);
    (void)state;
    OK(pm_engine_experts(e, count));
    submit(e, h, prompts[1], &p);
    finish(h);
    OK(pm_engine_experts(e, count));
    for (size_t i = 0; i < n; i++) {
        sum += count[i];
    }
    /* The last new token is not computed. */
    assert_int_equal(sum, (uint64_t)(h->result.n_prompt + h->n - 1) *
                              (uint64_t)(c->n_layer * c->gate.top_k));
    pm_engine_close(e);
    free(count);
    free(h);
}

static void closing_an_engine_ends_its_requests(void **state)
{
    pm_engine *e = open_engine(NULL);
    struct heard *h = calloc(4, sizeof *h);
    pm_params p = params_of(1);
    (void)state;
    p.max_tokens = 900;
    for (int i = 0; i < 4; i++) {
        submit(e, &h[i], prompts[i], &p);
    }
    /* Frees while they run, and closes at once. */
    for (int i = 0; i < 4; i++) {
        pm_request_free(h[i].request);
        assert_int_equal(h[i].n_end, 1);
    }
    pm_engine_close(e);
    e = open_engine(NULL); /* never used */
    pm_engine_close(e);
    free(h);
}

/* ------------------------------------------------------------------ many threads */

/* ThreadSanitizer makes the kernels fifty times slower, and they are not what it looks for. */
#ifdef __SANITIZE_THREAD__
enum { THREADS_ONLY = 1, N_ROUND = 2 };
#else
enum { THREADS_ONLY = 0, N_ROUND = 12 };
#endif

struct worker {
    pm_engine *e;
    const struct heard *want;
    uint64_t random;
    int n_same, n_cancelled;
    bool wrong;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct heard *h = calloc(1, sizeof *h);
    for (int round = 0; round < N_ROUND; round++) {
        int i;
        pm_params p;
        pm_stats s;
        w->random = w->random * 6364136223846793005u + 1442695040888963407u;
        i = (int)(w->random >> 33) % N_PROMPT;
        p = params_of(i);
        p.key = w->random >> 60;
        h->stop_after = 0;
        submit(w->e, h, prompts[i], &p);
        pm_engine_stats(w->e, &s);
        if (w->random >> 50 & 1) {
            wait_ms((long)(w->random >> 40 & 7));
            pm_cancel(h->request);
        }
        OK(finish_status(h));
        if (h->result.finish == PM_FINISH_CALLER) {
            w->n_cancelled++;
        } else {
            same(&w->want[i], h, i);
            w->n_same++;
        }
    }
    free(h);
    return NULL;
}

static void many_threads_may_submit_and_cancel(void **state)
{
    enum { N = 8 };
    static const char *const pairs[] = {"kv-tokens", "160", "max-seqs", "6", NULL};
    pm_engine *e = open_engine(pairs);
    struct worker w[N] = {{0}};
    pthread_t thread[N];
    int n_same = 0, n_cancelled = 0;
    (void)state;
    for (int i = 0; i < N; i++) {
        w[i] = (struct worker){.e = e, .want = heard_alone(), .random = (uint64_t)i + 1};
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(thread[i], NULL);
        n_same += w[i].n_same;
        n_cancelled += w[i].n_cancelled;
    }
    assert_int_equal(n_same + n_cancelled, N * N_ROUND);
    assert_true(n_same > 0);
    nothing_held(e);
    pm_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest results[] = {
        cmocka_unit_test(a_full_batch_gives_the_same_bits),
        cmocka_unit_test(small_steps_give_the_same_bits),
        cmocka_unit_test(preempted_requests_give_the_same_bits),
        cmocka_unit_test(preempted_requests_without_prefixes_give_the_same_bits),
        cmocka_unit_test(a_prefix_is_found_by_its_own_key_only),
        cmocka_unit_test(a_whole_prompt_in_the_cache_gives_the_same_bits),
        cmocka_unit_test(prompt_logprobs_are_those_of_a_score),
        cmocka_unit_test(candidates_come_with_each_token),
        cmocka_unit_test(a_late_request_ends_at_its_deadline),
        cmocka_unit_test(stop_texts_end_and_are_not_given_out),
        cmocka_unit_test(end_tokens_wait_for_min_tokens),
        cmocka_unit_test(a_schema_is_kept_to),
        cmocka_unit_test(a_prompt_can_be_given_up_between_its_steps),
        cmocka_unit_test(no_new_tokens_are_a_result_too),
        cmocka_unit_test(what_cannot_be_served_is_refused),
        cmocka_unit_test(scores_and_jobs_do_not_disturb_requests),
    };
    const struct CMUnitTest threads[] = {
        cmocka_unit_test(equal_prompts_at_the_same_time_are_computed_once),
        cmocka_unit_test(a_cancelled_request_ends_soon),
        cmocka_unit_test(a_callback_ends_its_request),
        cmocka_unit_test(a_full_queue_refuses),
        cmocka_unit_test(experts_are_counted_from_the_first_question_on),
        cmocka_unit_test(closing_an_engine_ends_its_requests),
        cmocka_unit_test(many_threads_may_submit_and_cancel),
    };
    int failed = THREADS_ONLY ? 0 : cmocka_run_group_tests(results, NULL, NULL);
    return failed + cmocka_run_group_tests(threads, NULL, NULL);
}
