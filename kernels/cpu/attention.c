/* attention.c - causal attention over the paged cache, plain and latent (MLA).
 *
 *     out[h] = sum_j softmax_j(scale * q[h] . k[j]) v[j]        j over the visible positions
 *
 * Work is cut into tasks of up to TASK_QUERIES query vectors that read the same KV head: the
 * heads of its group for a few rows. A task computes all its scores with the tile kernels of
 * the linear maps (cached keys in the place of weight rows), then each query's softmax over its
 * own visible span, then the weighted sum of values in order of position. Scores of a whole
 * span are kept (n_kv floats a query), so there is no rescaling and no order that depends on
 * blocking: a row's result depends on that row and its cache alone.
 *
 * Bytes: n_kv * G * (k_dim + v_dim) * size of the cache's type for a decoded row, read once.
 * Flops: 2 * n_kv * H * (k_dim + v_dim) a row. Decode is bound by memory, prefill by the
 * multiply-adds.
 *
 * MLA runs in its absorbed form (arXiv 2405.04434, section 2.1): q_nope W_uk meets the latent
 * directly, and W_uv is applied to the weighted latent, so the cache stays latent + rope values
 * a token. Prefill and decode share it, because a second form would round differently. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/attention.h"

enum { SCORE_FLOATS = 1 << 18, MIN_QUERIES = 8 };
enum { ROOM_BYTES = MICRO_ROOM * (int)sizeof(float) }; /* begins a task's scratch */

static size_t element(pm_dtype type)
{
    return (size_t)dtype_bits(type) / 8;
}

const char *key_at(const struct span *s, int64_t position)
{
    int64_t block = s->block[position / KV_BLOCK] * (int64_t)s->kv->n_kv_head + s->kv_head;
    int64_t at = (block * KV_BLOCK + position % KV_BLOCK) * s->kv->k_dim;
    return (const char *)s->kv->k + (size_t)at * element(s->kv->type);
}

const char *value_at(const struct span *s, int64_t position)
{
    int64_t block = s->block[position / KV_BLOCK] * (int64_t)s->kv->n_kv_head + s->kv_head;
    int64_t at = (block * KV_BLOCK + position % KV_BLOCK) * s->kv->v_dim;
    if (s->v_is_k) return key_at(s, position);
    return (const char *)s->kv->v + (size_t)at * element(s->kv->type);
}

/* Most queries of a task for sequences of n_kv tokens. */
static int task_queries(int64_t n_kv)
{
    int64_t n = SCORE_FLOATS / max_i64(n_kv, 1);
    return (int)min_i64(TASK_QUERIES, max_i64(n, MIN_QUERIES));
}

static size_t padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Of the scores of a task: rows begin and end at multiples of MIX_ROWS, and as bf16 they fit
 * into their own place. */
static size_t score_bytes(int64_t n_kv)
{
    return padded((size_t)task_queries(n_kv) * (size_t)(n_kv + 2 * MIX_ROWS) * sizeof(float));
}

size_t attention_scratch_bytes(int64_t n_kv, int64_t n_col)
{
    /* The tile's room, scores, converted queries, for MLA the absorbed queries and latent sums,
     * and what mixing takes. */
    return ROOM_BYTES + score_bytes(n_kv) +
           (size_t)TASK_QUERIES * 3 * padded((size_t)n_col * sizeof(float)) +
           mix_room_bytes(n_col);
}

/* Points the tile at the keys of positions j .. j + n_w - 1; a block of them is contiguous. */
static void point_keys(const struct span *s, struct tile *tile, int j, int rows)
{
    size_t step = (size_t)s->kv->k_dim * element(s->kv->type);
    const char *key = NULL;
    for (int w = 0; w < rows; w++) {
        int at = j + (int)min_i64(w, tile->n_w - 1);
        if (w == 0 || at % KV_BLOCK == 0) key = key_at(s, at) - at % KV_BLOCK * (int64_t)step;
        tile->w[w] = key + (size_t)(at % KV_BLOCK) * step;
    }
}

/* score[i, j - base] = q[i] . k[j] for positions first .. end - 1. */
static void scores(const struct span *s, const struct query *query, int n, int first, int end,
                   float *score, int64_t stride, char *converted)
{
    const struct micro_map *map = &s->m->map[s->kv->type];
    const void *x[TASK_QUERIES];
    struct tile tile = {.n_x = n, .k = s->k_dim, .x = x, .y_stride = stride, .room = s->room};
    size_t row_bytes = padded((size_t)s->k_dim * sizeof(float));
    int rows = micro_rows(map);
    for (int i = 0; i < n; i++) {
        x[i] = query[i].q;
        if (map->x_type == PM_BF16) {
            s->m->to_bf16((uint16_t *)(void *)(converted + (size_t)i * row_bytes), query[i].q,
                          s->k_dim);
            x[i] = converted + (size_t)i * row_bytes;
        }
    }
    if (map->pack) {
        map->pack(converted, (const float *const *)x, n, s->k_dim);
        tile.packed = converted;
    }
    for (int j = first; j < end; j += tile.n_w) {
        /* Tiles of several blocks begin where a block does. */
        int most = j % KV_BLOCK ? (int)min_i64(rows, KV_BLOCK) : rows;
        tile.n_w = (int)min_i64(most - j % most, end - j);
        point_keys(s, &tile, j, rows);
        tile.y = score + (j - first / MIX_ROWS * MIX_ROWS);
        map->tile(&tile);
    }
}

/* The softmax of one query over its visible scores, in place, without the division: returns
 * 1 / sum. */
static float softmax(const struct span *s, const struct query *q, float *visible)
{
    int n = q->end - q->first;
    float max, sum;
    for (int j = 0; j < n; j++) {
        visible[j] *= s->scale;
    }
    max = s->m->max(visible, n);
    if (q->sink && *q->sink > max) max = *q->sink;
    sum = s->m->exp_sum(visible, n, max);
    if (q->sink) sum += expf(*q->sink - max);
    return 1 / sum;
}

/* out[i] = sum over j of score[i, j - base] v[j], a block of the cache at a time: queries that
 * see the whole block together, others each over what they see. A value that a query does not
 * see never meets it, not even with weight 0: it may be infinite. */
static void weighted_sums(const struct span *s, const struct query *query, int n,
                          const float *score, int64_t stride, int first, int end)
{
    float *y[TASK_QUERIES];
    const float *p[TASK_QUERIES];
    struct values values = {.dim = s->v_dim, .y = y, .p = p};
    int base = first / MIX_ROWS * MIX_ROWS;
    values.v_stride = (int64_t)element(s->kv->type) * (s->v_is_k ? s->kv->k_dim : s->kv->v_dim);
    for (int i = 0; i < n; i++)
        memset(query[i].out, 0, (size_t)s->v_dim * sizeof(float));
    for (int j = first, stop; j < end; j = stop) {
        int n_whole = 0;
        stop = (int)min_i64(end, (j / KV_BLOCK + 1) * KV_BLOCK);
        for (int i = 0; i < n; i++) {
            int from = (int)max_i64(j, query[i].first), to = (int)min_i64(stop, query[i].end);
            const float *weight = score + i * stride + (from - base);
            if (from >= to) continue;
            if (to - from == stop - j) {
                y[n_whole] = query[i].out;
                p[n_whole++] = weight;
                continue;
            }
            struct values alone = values;
            alone.n_query = 1;
            alone.n_row = to - from;
            alone.y = &query[i].out;
            alone.p = &weight;
            alone.v = value_at(s, from);
            s->m->values[s->kv->type](&alone);
        }
        values.v = value_at(s, j);
        values.n_row = stop - j;
        values.n_query = n_whole;
        if (n_whole) s->m->values[s->kv->type](&values);
    }
}

/* All of a task. Scratch: scores, converted queries, and at the end room to mix values. */
static void attend(const struct span *s, const struct query *query, int n, char *scratch,
                   int64_t n_kv)
{
    int first = query[0].first, end = query[0].end, base;
    int64_t stride;
    float *score = (float *)(void *)scratch;
    float inverse[TASK_QUERIES];
    char *converted = scratch + score_bytes(n_kv);
    for (int i = 1; i < n; i++) {
        first = (int)min_i64(first, query[i].first);
        end = (int)max_i64(end, query[i].end);
    }
    base = first / MIX_ROWS * MIX_ROWS;
    stride = (end + MIX_ROWS - 1) / MIX_ROWS * MIX_ROWS - base;
    scores(s, query, n, first, end, score, stride, converted);
    for (int i = 0; i < n; i++)
        inverse[i] = softmax(s, &query[i], score + i * stride + (query[i].first - base));
    if (s->m->mix && s->kv->type == PM_BF16) {
        char *room = converted + (size_t)TASK_QUERIES * 3 * padded((size_t)s->k_dim * 4);
        mix_values(s, query, n, score, stride, base, room);
    } else {
        weighted_sums(s, query, n, score, stride, first, end);
    }
    for (int i = 0; i < n; i++) {
        for (int c = 0; c < s->v_dim; c++) {
            query[i].out[c] *= inverse[i];
        }
    }
}

/* The visible span of a row. */
static void set_span(struct query *q, int position, int window, int chunk)
{
    q->end = position + 1;
    q->first = 0;
    if (window > 0 && q->end > window) q->first = q->end - window;
    if (chunk > 0) q->first = (int)max_i64(q->first, position / chunk * chunk);
}

struct attention_job {
    struct device *d;
    const struct attention *op;
    const struct attention_mla *mla;
    int rows_per_task, heads_per_task, n_head_task;
    int64_t n_kv;
};

static int sequence_of(const struct attention_rows *rows, int64_t row)
{
    int low = 0, high = rows->n_seq - 1;
    while (low < high) {
        int mid = (low + high + 1) / 2;
        if (rows->q_start[mid] <= row) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    return low;
}

/* One task: some heads of one group for some rows. Rows of several sequences are taken apart.
 */
static void attention_task(void *arg, int64_t task, int worker)
{
    const struct attention_job *job = arg;
    const struct attention *op = job->op;
    const struct attention_rows *rows = op->rows;
    int head0 = (int)(task % job->n_head_task) * job->heads_per_task;
    int64_t row = task / job->n_head_task * job->rows_per_task;
    int64_t end = min_i64(row + job->rows_per_task, rows->q_start[rows->n_seq]);
    int group = op->n_head / op->kv->n_kv_head;
    struct span s = {.m = job->d->micro,
                     .kv = op->kv,
                     .kv_head = head0 / group,
                     .k_dim = op->kv->k_dim,
                     .v_dim = op->kv->v_dim,
                     .scale = op->scale,
                     .room = cpu_worker_scratch(job->d, worker)};
    char *scratch = (char *)s.room + ROOM_BYTES;
    while (row < end) {
        int seq = sequence_of(rows, row), n = 0;
        int64_t stop = min_i64(end, rows->q_start[seq + 1]);
        struct query query[TASK_QUERIES];
        s.block = rows->block_table + (int64_t)seq * rows->max_block;
        for (; row < stop; row++) {
            if (rows->slot[row] < 0) continue;
            for (int h = head0; h < head0 + job->heads_per_task; h++) {
                struct query *q = &query[n++];
                q->q = row_f32(&op->q, row) + (int64_t)h * op->kv->k_dim;
                q->out = row_f32(&op->out, row) + (int64_t)h * op->kv->v_dim;
                q->sink = op->sink ? &op->sink[h] : NULL;
                set_span(q, rows->position[row], op->window, op->chunk);
            }
        }
        if (n) attend(&s, query, n, scratch, job->n_kv);
    }
}

/* Heads and rows of a task: whole groups where there are tasks enough for all workers. */
static void cut(struct attention_job *job, int n_head, int group, int n_row, int64_t n_kv)
{
    int limit = task_queries(n_kv), heads = group;
    while (heads > limit || (heads > 1 && (int64_t)n_head / heads * n_row <
                                              2 * (int64_t)pool_size(job->d->pool))) {
        int next = heads - 1;
        while (group % next) {
            next--;
        }
        heads = next;
    }
    job->heads_per_task = heads;
    job->n_head_task = n_head / heads;
    job->rows_per_task = (int)max_i64(1, limit / heads);
    /* Short prompts still feed every worker. */
    while (job->rows_per_task > 1 &&
           (int64_t)(n_row + job->rows_per_task - 1) / job->rows_per_task * job->n_head_task <
               2 * (int64_t)pool_size(job->d->pool)) {
        job->rows_per_task /= 2;
    }
    job->n_kv = n_kv;
}

static int64_t longest(const struct attention_rows *rows)
{
    int64_t n = 1;
    for (int s = 0; s < rows->n_seq; s++) {
        n = max_i64(n, rows->kv_len[s]);
    }
    return n;
}

pm_status cpu_attention(struct device *d, const struct attention *op)
{
    struct attention_job job = {.d = d, .op = op};
    int64_t n_kv = longest(op->rows);
    if (op->rows->n_row == 0) return PM_OK;
    TRY(cpu_reserve_bytes(
        d, 0, attention_scratch_bytes(n_kv, max_i64(op->kv->k_dim, op->kv->v_dim))));
    cut(&job, op->n_head, op->n_head / op->kv->n_kv_head, op->rows->n_row, n_kv);
    parallel_for(d->pool,
                 (op->rows->n_row + job.rows_per_task - 1) / job.rows_per_task *
                     job.n_head_task,
                 attention_task, &job);
    return PM_OK;
}

/* to[c] = sum over i of q[i] * W_uk[i][c]: the query in latent space. */
static void absorb(const struct attention_mla *op, const struct micro *m, int head,
                   const float *q, float *to, float *row)
{
    int64_t base = (int64_t)head * (op->nope + op->v_dim);
    memset(to, 0, (size_t)op->latent * sizeof *to);
    for (int i = 0; i < op->nope; i++) {
        const char *w = (const char *)op->kv_b.data + (base + i) * op->kv_b.stride;
        if (op->kv_b.type == PM_F32) {
            m->axpy_f32(to, q[i], (const void *)w, op->latent);
        } else if (op->kv_b.type == PM_BF16) {
            m->axpy_bf16(to, q[i], (const void *)w, op->latent);
        } else {
            tensor_row_f32(m, row, &op->kv_b, base + i);
            m->axpy_f32(to, q[i], row, op->latent);
        }
    }
    memcpy(to + op->latent, q + op->nope, (size_t)op->rope * sizeof *to);
}

/* out[i] = W_uv[i] . latent */
static void project(const struct attention_mla *op, const struct micro *m, int head,
                    const float *latent, float *out, float *row)
{
    int64_t base = (int64_t)head * (op->nope + op->v_dim) + op->nope;
    for (int i = 0; i < op->v_dim; i++) {
        const char *w = (const char *)op->kv_b.data + (base + i) * op->kv_b.stride;
        if (op->kv_b.type == PM_F32) {
            out[i] = m->dot_f32(latent, (const void *)w, op->latent);
        } else if (op->kv_b.type == PM_BF16) {
            out[i] = m->dot_bf16(latent, (const void *)w, op->latent);
        } else {
            tensor_row_f32(m, row, &op->kv_b, base + i);
            out[i] = m->dot_f32(latent, row, op->latent);
        }
    }
}

static void mla_rows(const struct attention_job *job, int head, int seq, int64_t row,
                     int64_t stop, char *scratch)
{
    const struct attention_mla *op = job->mla;
    const struct attention_rows *rows = op->rows;
    const struct micro *m = job->d->micro;
    struct span s = {.m = m,
                     .kv = op->kv,
                     .k_dim = op->kv->k_dim,
                     .v_dim = op->latent,
                     .v_is_k = true,
                     .scale = op->scale,
                     .room = (float *)(void *)scratch,
                     .block = rows->block_table + (int64_t)seq * rows->max_block};
    struct query query[TASK_QUERIES];
    float *out[TASK_QUERIES];
    size_t width = padded((size_t)op->kv->k_dim * sizeof(float)) / sizeof(float);
    char *after_room = scratch + ROOM_BYTES;
    float *absorbed =
        (float *)(void *)(after_room + score_bytes(job->n_kv)) + TASK_QUERIES * width;
    float *latent = absorbed + TASK_QUERIES * width;
    float *spare = (float *)(void *)after_room; /* the scores' place, free before and after */
    int n = 0;
    for (; row < stop; row++) {
        struct query *q = &query[n];
        if (rows->slot[row] < 0) continue;
        q->q = absorbed + (size_t)n * width;
        q->out = latent + (size_t)n * width;
        q->sink = NULL;
        set_span(q, rows->position[row], 0, 0);
        absorb(op, m, head, row_f32(&op->q, row) + (int64_t)head * (op->nope + op->rope),
               absorbed + (size_t)n * width, spare);
        out[n++] = row_f32(&op->out, row) + (int64_t)head * op->v_dim;
    }
    if (!n) return;
    attend(&s, query, n, after_room, job->n_kv);
    for (int i = 0; i < n; i++) {
        project(op, m, head, query[i].out, out[i], spare);
    }
}

static void mla_task(void *arg, int64_t task, int worker)
{
    const struct attention_job *job = arg;
    const struct attention_rows *rows = job->mla->rows;
    int head = (int)(task % job->n_head_task);
    int64_t row = task / job->n_head_task * job->rows_per_task;
    int64_t end = min_i64(row + job->rows_per_task, rows->q_start[rows->n_seq]);
    while (row < end) {
        int seq = sequence_of(rows, row);
        int64_t stop = min_i64(end, rows->q_start[seq + 1]);
        mla_rows(job, head, seq, row, stop, cpu_worker_scratch(job->d, worker));
        row = stop;
    }
}

pm_status cpu_attention_mla(struct device *d, const struct attention_mla *op)
{
    struct attention_job job = {.d = d, .mla = op};
    int64_t n_kv = max_i64(longest(op->rows), op->latent);
    if (op->rows->n_row == 0) return PM_OK;
    TRY(cpu_reserve_bytes(d, 0, attention_scratch_bytes(n_kv, op->kv->k_dim)));
    cut(&job, op->n_head, 1, op->rows->n_row, n_kv);
    parallel_for(d->pool,
                 (op->rows->n_row + job.rows_per_task - 1) / job.rows_per_task *
                     job.n_head_task,
                 mla_task, &job);
    return PM_OK;
}
