/* command_info.c - polymath info: what a checkpoint is and what it will take, weights unread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe/families.h"
#include "moe/model.h"
#include "moe/safetensors.h"
#include "runtime/command.h"
#include "runtime/engine/engine.h"

/* Bytes by data type and by what they are for. */
enum role { ROLE_EXPERT, ROLE_MLP, ROLE_ATTENTION, ROLE_EMBEDDING, ROLE_OTHER, N_ROLE };

struct kinds {
    double bytes[PM_DTYPE_COUNT + 1], role[N_ROLE];
    int64_t n;
};

static enum role role_of(const char *name)
{
    static const struct {
        const char *part;
        enum role role;
    } parts[] = {
        {"shared", ROLE_MLP},        {"experts.", ROLE_EXPERT}, {"linear.weight", ROLE_EXPERT},
        {".attn.", ROLE_ATTENTION},  {"norm", ROLE_OTHER},      {"router", ROLE_OTHER},
        {".gate.", ROLE_OTHER},      {"attn", ROLE_ATTENTION},  {"embed", ROLE_EMBEDDING},
        {"lm_head", ROLE_EMBEDDING}, {".wte.", ROLE_EMBEDDING}, {"mlp.", ROLE_MLP},
        {"feed_forward.", ROLE_MLP},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strstr(name, parts[i].part)) return parts[i].role;
    }
    return ROLE_OTHER;
}

static pm_status count_kinds(const char *folder, struct kinds *k)
{
    struct safetensors *st;
    TRY(safetensors_open(&st, folder));
    memset(k, 0, sizeof *k);
    k->n = safetensors_count(st);
    for (int64_t i = 0; i < k->n; i++) {
        const struct stored *s = safetensors_at(st, i);
        k->bytes[s->type] += (double)s->bytes;
        k->role[role_of(s->name)] += (double)s->bytes;
    }
    safetensors_close(st);
    return PM_OK;
}

static void print_gate(const struct config *c)
{
    static const char *const score[] = {"softmax", "sigmoid", "logits"};
    static const char *const weight[] = {"score", "softmax of the picked",
                                         "sigmoid of the picked", "sparsemixer"};
    const struct gate *g = &c->gate;
    int n_moe = 0;
    for (int l = 0; l < c->n_layer; l++) {
        n_moe += c->layer[l].moe;
    }
    if (!g->n_expert) {
        printf("experts             none (dense)\n");
        return;
    }
    printf("experts             %d, %d per token, inner size %d, in %d of %d layers\n",
           g->n_expert, g->top_k, c->expert_dim, n_moe, c->n_layer);
    printf("gate                %s%s, weights: %s%s", score[g->score],
           c->select_bias ? " + bias" : "", weight[g->weight],
           g->renorm != RENORM_NONE ? ", renormalised" : "");
    if (g->group != GROUP_NONE) printf(", %d of %d groups", g->top_group, g->n_group);
    if (g->scale != 1) printf(", scale %g", g->scale);
    putchar('\n');
    if (c->shared_dim) {
        printf("shared expert       inner size %d%s\n", c->shared_dim,
               c->shared_gate ? ", gated" : "");
    }
}

static void print_attention(const struct config *c)
{
    static const char *const rope[] = {"default", "linear", "dynamic", "NTK alpha",
                                       "yarn",    "llama3", "longrope"};
    static const char *const norm[] = {"", ", q and k normalised per head",
                                       ", q and k normalised over their width",
                                       ", q and k L2-normalised"};
    if (c->mla.latent) {
        printf(
            "attention           MLA, %d heads, latent %d + rope %d, nope %d, value %d, query "
            "latent %d\n",
            c->n_head, c->mla.latent, c->mla.rope, c->mla.nope, c->mla.v_dim, c->mla.q_latent);
    } else {
        printf("attention           %d heads, %d KV heads, head size %d%s%s\n", c->n_head,
               c->n_kv_head, c->head_dim, norm[c->qk_norm], c->sinks ? ", sinks" : "");
    }
    printf("rope                %s, theta %g, %d of a head's values, %s\n", rope[c->rope.kind],
           c->rope.theta, c->rope.dim, c->rope.interleaved ? "pairs" : "halves");
    for (int l = 0; l < c->n_layer; l++) {
        if (c->layer[l].window || c->layer[l].chunk) {
            printf("window              %s of %d tokens (first in layer %d)\n",
                   c->layer[l].window ? "sliding" : "chunks",
                   c->layer[l].window ? c->layer[l].window : c->layer[l].chunk, l);
            break;
        }
    }
}

static void print_model(const struct config *c, const struct kinds *k)
{
    double total, active;
    char text[32];
    config_parameters(c, &total, &active);
    printf("family              %s (%s)\n", c->model_type, c->family->title);
    printf("parameters          %.3f billion, %.3f billion active per token\n", total / 1e9,
           active / 1e9);
    printf("layers              %d\nhidden size         %d\n", c->n_layer, c->hidden);
    printf("vocabulary          %d%s\n", c->vocab, c->tied ? ", tied embeddings" : "");
    printf("context             %d\n", c->max_position);
    print_attention(c);
    print_gate(c);
    if (c->dense_dim) printf("dense inner size    %d\n", c->dense_dim);
    static const char *const role[] = {"experts", "dense and shared", "attention", "embeddings",
                                       "norms, gates"};
    printf("tensors             %lld\n", (long long)k->n);
    for (int r = 0; r < N_ROLE; r++) {
        if (k->role[r] == 0) continue;
        bytes_text(text, sizeof text, k->role[r]);
        printf("  %-17s %s\n", role[r], text);
    }
    for (int t = 0; t <= PM_DTYPE_COUNT; t++) {
        if (k->bytes[t] == 0) continue;
        bytes_text(text, sizeof text, k->bytes[t]);
        printf("  %-17s %s\n", t < PM_DTYPE_COUNT ? dtype_name((pm_dtype)t) : "other", text);
    }
}

/* Opens the model of an engine with these options for questions: nothing is allocated or read.
 */
static pm_status open_plan(struct model **out, const char *folder, const struct pm_options *o)
{
    struct model_options m;
    TRY(engine_model_options(&m, folder, o));
    m.plan_only = true;
    return model_open(out, folder, &m);
}

/* The memory that opening the model with these options takes. */
static pm_status print_plan(const char *folder, const struct pm_options *o)
{
    struct model *model;
    const struct model_plan *p;
    char mapped[32], copied[32], kv[32], step[32], token[32];
    TRY(open_plan(&model, folder, o));
    p = model_plan(model);
    bytes_text(mapped, sizeof mapped, (double)p->file_bytes);
    bytes_text(copied, sizeof copied, (double)p->copied_bytes);
    bytes_text(kv, sizeof kv, (double)p->kv_bytes);
    bytes_text(step, sizeof step, (double)p->step_bytes);
    bytes_text(token, sizeof token, (double)p->kv_token_bytes);
    printf("\nmemory plan (%s, context %d, steps of %d rows of %d requests)\n",
           model_device(model), model_limits(model)->context, model_limits(model)->max_row,
           model_limits(model)->max_seq);
    printf("  weights mapped    %s, read as they are used\n", mapped);
    printf("  weights copied    %s (vectors and gates in float32%s)\n", copied,
           p->transposed_bytes ? ", input-major experts transposed" : "");
    printf("  KV cache          %s: %llu tokens of %s in %s\n", kv,
           (unsigned long long)p->kv_token, token, dtype_name(model_kv_type(model)));
    printf("  step              %s\n", step);
    model_close(model);
    return PM_OK;
}

enum { MAX_KERNEL = 64 };

static void print_kernel_rows(const struct model_kernel *kernel, int n)
{
    for (int i = 0; i < n; i++) {
        const struct linear_kind *k = &kernel[i].kind;
        char shape[64];
        snprintf(shape, sizeof shape, "%s [%lld, %lld]%s", dtype_name(k->type), (long long)k->n,
                 (long long)k->k, k->n_expert > 1 ? " each" : "");
        printf("    %-17s %-26s %s\n", kernel[i].what, shape, kernel[i].text);
    }
}

static bool same_kernels(const struct model_kernel *a, const struct model_kernel *b, int n)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(a[i].text, b[i].text) != 0) return false;
    }
    return true;
}

/* Which kernel computes each linear map, for steps of one row to full ones; sizes that are
 * alike are listed once. */
static pm_status print_kernels(const char *folder, const struct pm_options *o)
{
    static struct model_kernel kernel[2][MAX_KERNEL];
    struct model *model;
    TRY(open_plan(&model, folder, o));
    int most = model_limits(model)->max_row, n_last = 0;
    printf("\nkernels (%s)\n", model_device(model));
    for (int rows = 1, now = 0; rows <= most; rows *= 8) {
        int n = model_kernels(model, rows, kernel[now], MAX_KERNEL);
        if (n != n_last || !same_kernels(kernel[0], kernel[1], n)) {
            printf("  steps of %d row%s and more\n", rows, rows == 1 ? "" : "s");
            print_kernel_rows(kernel[now], n);
            now = !now;
        }
        n_last = n;
    }
    model_close(model);
    return PM_OK;
}

static pm_status info(const struct arguments *a, bool dry_run, bool kernels)
{
    const char *folder = a->positional[0];
    struct config *c = NULL;
    struct kinds k;
    pm_status status;
    TRY_DONE(config_load(&c, folder));
    TRY_DONE(count_kinds(folder, &k));
    print_model(c, &k);
    if (dry_run) TRY_DONE(print_plan(folder, a->options));
    if (kernels) TRY_DONE(print_kernels(folder, a->options));
done:
    config_free(c);
    return status;
}

static int run(const struct command *self, int argc, char **argv)
{
    bool dry_run = false, kernels = false;
    const struct flag flags[] = {
        {.name = "dry-run",
         .help = "also the memory plan for the options below",
         .on = &dry_run},
        {.name = "kernels",
         .help = "also which kernel computes which linear map on --device, and why",
         .on = &kernels},
        {.name = NULL},
    };
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = info(&a, dry_run, kernels);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}

const struct command info_command = {
    .name = "info",
    .arguments = "MODEL",
    .summary = "family, dimensions, parameters, bytes and memory plan",
    .about = "Prints what the checkpoint in folder MODEL is, from its configuration and the "
             "headers\n"
             "of its tensors. With --dry-run also what opening it takes.",
    .min_argument = 1,
    .max_argument = 1,
    .engine = true,
    .run = run,
};
