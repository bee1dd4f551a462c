/* kernels.h - the seam between what a model computes and how an operation is computed.
 *
 * A backend is a table of functions over tensor views. Views own nothing. Activations are
 * F32; those that only feed a linear map may be `narrow`, a type the backend names. Weights
 * keep the type of their file. Shape letters: T rows in the batch, S sequences, D hidden size,
 * H query heads, G KV heads, Dh head size, E experts, K experts per token, F expert inner size,
 * V vocabulary.
 *
 * Every operation enqueues; only download and sync wait. Nothing allocates after reserve. The
 * result of a row depends on that row alone: not on the number of rows, their order, or the
 * number of threads. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A row-major matrix [rows, cols]; a vector is one row. data NULL means absent. */
struct tensor {
    void *data;
    const void *scale; /* F8_E4M3: float [.., ceil(cols / 128)], one per 128 x 128 block;
                          MXFP4: uint8 e8m0 [rows, cols / 32]; else NULL */
    pm_dtype type;
    int64_t rows, cols;
    int64_t stride;       /* bytes from a row to the next */
    int64_t scale_stride; /* bytes from a row of scales to the next (F8_E4M3: every 128 rows) */
    int64_t scale_row;    /* F8_E4M3: where row 0 stands in the grid of scales */
};

/* Rows n0 .. n0 + n - 1 of t. */
struct tensor tensor_rows(const struct tensor *t, int64_t n0, int64_t n);

/* A view of plain rows: stride = cols * size of the type. */
struct tensor tensor_view(void *data, pm_dtype type, int64_t rows, int64_t cols);

/* Rows sorted by expert: rows offset[e] .. offset[e + 1] - 1 belong to expert e. */
struct ragged {
    int n_expert;
    int64_t max_row;       /* host upper bound of offset[n_expert] */
    const int32_t *offset; /* [E + 1] on the device */
    const int32_t *source; /* [max_row] on the device: the row of x that a sorted row reads, or
                              NULL: itself */
};

/* What an expert does between its two linear maps. */
enum glu_kind {
    GLU_NONE,    /* plain linear */
    GLU_SILU,    /* silu(gate) * up */
    GLU_GELU,    /* gelu_tanh(gate) * up */
    GLU_CLAMPED, /* gpt-oss: g = min(gate, limit), u = clamp(up, -limit, limit): g sigmoid(alpha
                    g) (u + 1) */
};

struct glu {
    enum glu_kind kind;
    float alpha, limit;
};

/* y[r] = w[e] x[source(r)] + b[e] for each row r of expert e; with w_up also
 * y[r] = glu(w[e] x + b[e], w_up[e] x + b_up[e]).  y is F32 or narrow [rows, N], x is F32 or
 * narrow [any, K], w is [N, K] of any weight type, b is F32 or BF16 or F16 [N]. rows NULL: one
 * expert and all rows of x. y may not overlap x. Where device memory is not host memory the
 * experts of w stand at equal distances, and so do those of w_up, b and b_up. */
struct linear {
    struct tensor y, x;
    const struct tensor *w, *b;       /* [E]; b NULL or b[e].data NULL: no bias */
    const struct tensor *w_up, *b_up; /* [E]; NULL unless glu.kind != GLU_NONE */
    struct glu glu;
    const struct ragged *rows;
    bool
        checked; /* check_linear has accepted these lists: not each expert is looked at again */
};

enum norm_kind {
    NORM_RMS,   /* x / sqrt(mean(x^2) + eps) * w */
    NORM_LAYER, /* (x - mean) / sqrt(var + eps) * w + b */
    NORM_L2,    /* x / sqrt(mean(x^2) + eps), no weight (Llama-4) */
};

/* How a layer picks experts. Covers the families of docs/models.md with one primitive; source:
 * each family's modeling code. */
enum gate_score { SCORE_SOFTMAX, SCORE_SIGMOID, SCORE_LOGIT };
enum gate_group { GROUP_NONE, GROUP_MAX, GROUP_TOP2 };
enum gate_weight {
    WEIGHT_SCORE,          /* the score of the picked expert, without the bias */
    WEIGHT_SOFTMAX_PICKED, /* softmax over the K picked logits */
    WEIGHT_SIGMOID_PICKED, /* sigmoid of the picked logit (Llama-4) */
    WEIGHT_SPARSEMIXER,    /* Phi-3.5-MoE, K = 2 */
};
enum gate_renorm {
    RENORM_NONE,
    RENORM_SUM,  /* w / (sum + floor) */
    RENORM_MAX,  /* w / max(sum, floor) */
    RENORM_NORM, /* w / (sum |w|^p)^(1/p), p = floor (DBRX) */
};

struct gate {
    int n_expert, top_k;
    enum gate_score score;
    enum gate_group group;
    int n_group, top_group;
    enum gate_weight weight;
    enum gate_renorm renorm;
    float floor;      /* the small number of RENORM_* */
    float scale;      /* factor on the weights */
    float jitter;     /* sparsemixer */
    bool scale_input; /* weights multiply the expert's input, not its output (Llama-4) */
};

/* Device arrays that describe which experts each row chose and where its copies stand when
 * sorted by expert. */
struct routing {
    float *weight;   /* [T, K] */
    int32_t *id;     /* [T, K] best first; ties go to the lower expert */
    int32_t *offset; /* [E + 1] */
    int32_t *source; /* [T * K] row of x for each sorted row, ascending within an expert */
    int32_t *place;  /* [T, K] sorted row of each choice */
};

/* One step's rows as the attention sees them: rows q_start[s] .. q_start[s+1]-1 are the newest
 * rows of sequence s, whose cache then holds kv_len[s] tokens (those rows included). */
struct attention_rows {
    int n_row, n_seq;
    const int32_t *position; /* [T] position of a row in its sequence, from 0 */
    const int64_t
        *slot; /* [T] token slot in the pool (block * KV_BLOCK + offset), < 0: padding */
    const int32_t *q_start;     /* [S + 1] */
    const int32_t *kv_len;      /* [S] */
    const int32_t *block_table; /* [S, max_block] */
    int max_block;
};

enum { KV_BLOCK = 16 }; /* tokens in a block of the KV cache */

/* One layer's cache: k is [n_block, G, KV_BLOCK, k_dim], v is [n_block, G, KV_BLOCK, v_dim],
 * both of `type` (F32, F16, BF16). MLA keeps one "head" with k_dim = latent + rope and v
 * absent. */
struct kv_layer {
    void *k, *v;
    pm_dtype type;
    int n_kv_head, k_dim, v_dim;
    int64_t n_block;
};

struct attention {
    struct tensor out; /* F32 or narrow [T, H * v_dim] */
    struct tensor q;   /* F32 [T, H * k_dim] after RoPE */
    const struct kv_layer *kv;
    const struct attention_rows *rows;
    int n_head;
    float scale;
    int window;        /* > 0: a row sees the last `window` positions, its own included */
    int chunk;         /* > 0: a row sees only positions of its own chunk (Llama-4) */
    const float *sink; /* [H] one more logit in the denominator (gpt-oss), or NULL */
};

/* MLA in its absorbed form (DeepSeek-V2 section 2.1): scores against the latent cache with
 * q_nope W_uk, values through W_uv. kv_b is [H * (nope + v_dim), latent]: per head first the
 * nope rows (W_uk), then the v_dim rows (W_uv). */
struct attention_mla {
    struct tensor out; /* F32 or narrow [T, H * v_dim] */
    struct tensor q;   /* F32 [T, H * (nope + rope)] after RoPE on the rope part */
    struct tensor kv_b;
    const struct kv_layer *kv;
    const struct attention_rows *rows;
    int n_head, nope, rope, v_dim, latent;
    float scale;
};

struct device;

/* What the machine can do, measured: the two axes of the roofline. */
struct peaks {
    double read_gbs, copy_gbs;      /* GB/s; a copy counts what it reads and writes */
    double f32_gflops, bf16_gflops; /* multiply-adds times two */
};

enum peak { PEAK_READ = 1, PEAK_COPY = 2, PEAK_F32 = 4, PEAK_BF16 = 8, PEAK_ALL = 15 };

/* What a measurement says beside its numbers. What cannot be read is 0 or "". */
struct device_facts {
    size_t cache_bytes;             /* of the last level */
    char software[96];              /* "driver 580.95.05, CUDA 13.0, runtime 13.0" */
    int clock_mhz, max_clock_mhz;   /* of the multiprocessors: now, at most */
    int memory_mhz, celsius, watts; /* now */
};

/* A linear map as far as the choice of a kernel depends on it. */
struct linear_kind {
    pm_dtype type; /* of the weights */
    bool glu;      /* gated */
    int n_expert;  /* 1: dense */
    int64_t n, k;  /* outputs, inputs */
    int64_t rows;  /* of all experts together */
};

struct kernels {
    const char *name;
    bool host_memory; /* device memory is host memory: mapped weights are used in place */
    pm_dtype narrow;  /* type of activations that only feed linear maps: F32, or BF16 */

    /* device */
    int (*count)(const char **why); /* devices there are; why: words for having none, or "" */
    pm_status (*open)(struct device **out, int index, int n_thread);
    void (*close)(struct device *d);
    pm_status (*alloc)(struct device *d, void **out, size_t bytes, const char *what);
    void (*free)(struct device *d, void *p);
    /* `from` may be reused when it returns */
    pm_status (*upload)(struct device *d, void *to, const void *from, size_t bytes);
    pm_status (*download)(struct device *d, void *to, const void *from,
                          size_t bytes); /* waits */
    pm_status (*sync)(struct device *d);
    /* Everything that follows is enqueued on a stream of the caller's (CUDA: a cudaStream_t,
     * NULL is its default stream), which must outlive that. Where there are no streams:
     * PM_ERR_ARG for any but NULL. */
    pm_status (*set_stream)(struct device *d, void *stream);
    /* What set_stream takes: where operations are enqueued now. NULL where there are none. */
    void *(*stream)(struct device *d);
    pm_status (*clear)(struct device *d, void *p, size_t bytes); /* zeros; enqueues */
    const char *(*describe)(struct device *d); /* "cpu avx512-bf16, 2 threads" */
    /* Scratch for steps of up to n_row rows (after top-k expansion) of up to n_col values over
     * sequences of up to n_kv tokens. */
    pm_status (*reserve)(struct device *d, int64_t n_row, int64_t n_col, int64_t n_kv);

    /* What is enqueued between record_begin and record_end does not run but goes into *graph,
     * which replay enqueues, with the same addresses and numbers. After a failure in between
     * record_end is still called. All NULL where a device records nothing. */
    pm_status (*record_begin)(struct device *d);
    pm_status (*record_end)(struct device *d, void **graph);
    pm_status (*replay)(struct device *d, void *graph);
    void (*record_free)(struct device *d, void *graph);

    /* Time on the device. mark_set notes the moment at which all that was enqueued before is
     * done; mark_us waits for two moments and gives the microseconds from one to the other. */
    pm_status (*mark_new)(struct device *d, void **mark);
    pm_status (*mark_set)(struct device *d, void *mark);
    pm_status (*mark_us)(struct device *d, double *us, void *from, void *to);
    void (*mark_free)(struct device *d, void *mark); /* NULL is fine */

    void (*facts)(struct device *d, struct device_facts *out);

    /* Which kernel computes such a map, and why, in one line of `size` bytes at most. */
    void (*explain)(struct device *d, const struct linear_kind *kind, char *text, size_t size);

    /* Whether `linear` takes the experts' tensors of this operation, whose x and y may be
     * without data or rows; NULL where it looks at them one by one anyway. */
    pm_status (*check_linear)(const struct linear *op);

    /* Measures the `which` (bits of enum peak) now, with all threads. */
    pm_status (*measure)(struct device *d, int which, struct peaks *out);

    /* operations */
    pm_status (*embed)(struct device *d, struct tensor y, const struct tensor *table,
                       const int32_t *id, float scale);
    /* y F32 or narrow, x F32, w and b F32 [cols] */
    pm_status (*norm)(struct device *d, struct tensor y, struct tensor x, enum norm_kind kind,
                      const struct tensor *w, const struct tensor *b, float eps);
    pm_status (*linear)(struct device *d, const struct linear *op, int n_op);
    pm_status (*clamp)(struct device *d, struct tensor x, float limit);
    pm_status (*scale)(struct device *d, struct tensor x, float factor);
    /* x[t] *= factor[position(t)] row by row (Llama-4 temperature) */
    pm_status (*scale_rows)(struct device *d, struct tensor x, const float *factor);
    pm_status (*add)(struct device *d, struct tensor x, struct tensor y,
                     float factor); /* x += factor * y */
    /* y[t] *= sigmoid(g[t]) with g [T, 1] (Qwen2-MoE shared expert) */
    pm_status (*gate_rows)(struct device *d, struct tensor y, struct tensor g);
    /* cos and sin [T, n] of position * inv_freq[n], times factor */
    pm_status (*rope_table)(struct device *d, float *cos, float *sin, const int32_t *position,
                            int n_row, const float *inv_freq, int n, float factor);
    /* Rotates values offset .. offset + 2 n - 1 of each of n_head heads of head_dim in x [T,
     * n_head * head_dim] */
    pm_status (*rope)(struct device *d, struct tensor x, int n_head, int offset,
                      const float *cos, const float *sin, int n, bool interleaved);
    /* k is F32 [T, G * k_dim], v is F32 [T, G * v_dim] (absent when the cache has none) */
    pm_status (*kv_write)(struct device *d, const struct kv_layer *kv, struct tensor k,
                          struct tensor v, const struct attention_rows *rows);
    pm_status (*attention)(struct device *d, const struct attention *op);
    pm_status (*attention_mla)(struct device *d, const struct attention_mla *op);
    /* logits F32 [T, E]; bias float [E] or NULL is added to the scores for picking only. Fills
     * all of out, the sorted rows included; where out->offset is NULL only weight and id. */
    pm_status (*gate_topk)(struct device *d, const struct gate *gate, struct tensor logits,
                           const float *bias, const struct routing *out);
    /* fills offset, source and place from ids that gate_topk has not chosen */
    pm_status (*permute)(struct device *d, const struct gate *gate, int n_row,
                         const struct routing *routing);
    /* y[place[t, k]] = weight[t, k] * x[t]: the experts' rows when weights scale their input; y
     * and x F32 or narrow */
    pm_status (*permute_scaled)(struct device *d, const struct gate *gate, struct tensor y,
                                struct tensor x, const struct routing *routing);
    /* y[t] += sum over k, in order, of weight[t, k] * x[place[t, k]] (weight 1 when
     * scale_input); y F32, x F32 or narrow */
    pm_status (*unpermute)(struct device *d, const struct gate *gate, struct tensor y,
                           struct tensor x, const struct routing *routing, float factor);
};

extern const struct kernels cpu_kernels;
/* Absent (its address is NULL) in a program that was linked without the CUDA backend. */
extern const struct kernels cuda_kernels __attribute__((weak));

/* The backend for "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N"; PM_ERR_ARG
 * names the devices there are. */
pm_status kernels_select(const struct kernels **out, int *index, const char *device);

#ifdef __cplusplus
}
#endif

#endif
