/* engine_helper.h - requests on the model of this repository, and what they gave. */
#ifndef TESTS_ENGINE_HELPER_H
#define TESTS_ENGINE_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#undef fail /* cmocka's macro would hide ours */

#include "runtime/engine/engine_inside.h"

#define FAIL(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))
#define OK(call)                                                                               \
    do {                                                                                       \
        if ((call) != PM_OK) FAIL("%s", pm_last_error());                                      \
    } while (0)

enum { MAX_HEARD = 1024, N_PROMPT = 12 };

extern const char *const prompts[N_PROMPT];

/* What a request gave. */
struct heard {
    int32_t id[MAX_HEARD], prompt_id[MAX_HEARD];
    float logprob[MAX_HEARD], prompt_logprob[MAX_HEARD];
    char text[8192], prompt_text[8192];
    size_t n_text, n_prompt_text;
    int n, n_prompt, n_end;
    int stop_after;   /* the callback wants no more than so many tokens; 0: all */
    bool cancel;      /* and says so by pm_cancel */
    pm_status status; /* of on_end */
    char error[256];
    pm_result result;
    pm_request *request;
};

/* Options as pairs of key and value, ending with NULL; on two threads of the CPU. */
pm_engine *open_engine(const char *const *pairs);
/* Parameters of request i: temperatures, seeds and lengths of all kinds. */
pm_params params_of(int i);
/* heard is cleared but for stop_after and cancel. */
pm_status submit_ids(pm_engine *e, struct heard *h, const int32_t *id, size_t n,
                     const pm_params *p);
void submit(pm_engine *e, struct heard *h, const char *prompt, const pm_params *p);
/* Waits, and frees. */
pm_status finish_status(struct heard *h);
void finish(struct heard *h);
/* Equal tokens, log-probabilities to the bit, and text. */
void same(const struct heard *want, const struct heard *got, int i);
/* Nobody runs or waits, and every block is free. */
void nothing_held(pm_engine *e);
/* Each of the prompts with its params_of alone on an engine that serves one at a time and keeps
 * no prefixes: [N_PROMPT]. */
struct heard *heard_alone(void);

#endif
