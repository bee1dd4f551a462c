/* example.c - the whole way from a checkpoint folder to text through polymath.h.
 *
 *     cc example.c $(pkg-config --cflags --libs polymath) -o example
 *     ./example models/polymath-16m "def fibonacci(n):" */
#include <stdio.h>
#include <string.h>

#include <polymath.h>

static bool print_token(void *arg, const pm_token *token)
{
    int *count = arg;
    ++*count;
    fwrite(token->text, 1, token->n_text, stdout);
    fflush(stdout);
    return true; /* false would end the generation here */
}

static int complain(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, pm_last_error());
    return 1;
}

int main(int argc, char **argv)
{
    pm_options *options = NULL;
    pm_engine *engine = NULL;
    pm_params params;
    pm_result result;
    pm_info info;
    int code = 0, n_call = 0;
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL PROMPT\n", argv[0]);
        return 2;
    }
    if (pm_options_new(&options) != PM_OK ||
        pm_options_set(options, "context", "512") != PM_OK ||
        pm_engine_open(&engine, argv[1], options) != PM_OK) {
        code = complain("open");
    } else {
        pm_engine_info(engine, &info);
        fprintf(stderr, "%s on %s: %d layers, %d experts, %d per token\n", info.family,
                info.device, info.n_layer, info.n_expert, info.n_expert_per_token);
        pm_params_init(&params);
        params.max_tokens = 32;
        if (pm_generate(engine, argv[2], strlen(argv[2]), &params, print_token, &n_call,
                        &result) != PM_OK) {
            code = complain("generate");
        } else {
            fprintf(stderr, "\n%d prompt tokens, %d new ones\n", result.n_prompt,
                    result.n_generated);
        }
    }
    pm_engine_close(engine);
    pm_options_free(options);
    return code;
}
