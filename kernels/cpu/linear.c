/* linear.c - linear maps, dense or grouped by expert, plain or gated.
 *
 *   y[r] = w[e] x[source(r)] + b[e]            for each row r of expert e
 *   y[r] = glu(w[e] x + b[e], w_up[e] x + b_up[e])
 *
 * w is [N, K] as it lies in the file, x is float32 [rows, K]. Where the instruction set
 * multiplies bf16, rows of x are rounded to bf16 once per call, and operations with the same x
 * share them; where its tiles want x packed, a worker packs the rows of a task and keeps them
 * for its next one, which mostly has the same.
 *
 * All operations of a call become one list of tasks under one dispatch. A task is a chunk of
 * columns n0 .. n1 of one expert for a block of its rows: the weights of a chunk come from
 * memory once, the block of rows stays in the second cache, and a gated task keeps the sums of
 * `up` in its scratch until the end, where bias and glu are applied to whole chunks of rows.
 * Within the task, a tile's weight rows at a time meet all rows of the block (see micro_tile.h
 * and micro_amx.c) while the next weight rows are fetched.
 *
 * Bytes: the weights of every expert that has rows, once per block of rows, plus x and y.
 * Flops: 2 N K a row. Limiter: memory below about 16 rows an expert, multiply-adds above.
 *
 * Determinism: how rows and columns are cut into tasks depends on the call and on the number of
 * threads, but an output's sum is made by one tile in one order over K, so its bits depend on
 * its row of x and its row of w alone. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum {
    CHUNK_BYTES = 128 << 10, /* of weights in a task, where there are tasks enough */
    MIN_CHUNK_BYTES = 16 << 10,
    CHUNKS_PER_WORKER = 8,   /* wanted, to balance */
    BLOCK_BYTES = 768 << 10, /* of x in a task, */
    PACKED_BYTES = 1 << 20,  /* of packed x */
    MIN_BLOCK = 32,          /* rows of x in a task, whose number is a multiple of this */
    MAX_BLOCK = MICRO_PACKED_X,
    MAX_CHUNK = 128,          /* columns in a task */
    SERIAL_VALUES = 32 << 10, /* activations to convert without a dispatch */
    STREAM_BYTES = 4 << 20,   /* of y from which on it is written past the caches */
};

/* One operation of the call: how it is cut. */
struct map_plan {
    char *x;          /* [rows_read, K] bf16, or NULL where no weight wants it */
    int64_t x_stride; /* bytes */
    int64_t chunk;    /* columns in a task */
    int64_t n_chunk;
    int64_t block; /* most rows of x in a task, a multiple of MIN_BLOCK */
};

/* The rows of one expert in one operation. Its tasks count chunks within blocks, so that
 * consecutive tasks keep the block of x. */
struct part {
    int op, expert;
    int32_t first_row, n_row;
    int64_t first_task;
};

/* The rows of x that a worker has packed. */
struct packed {
    const struct part *part; /* NULL: none of this call */
    int64_t block;
};

struct linear_call {
    struct device *d;
    const struct linear *op;
    int n_op;
    struct map_plan *plan; /* [n_op] */
    struct part *part;     /* [n_part] */
    struct packed *packed; /* [pool_size] */
    int64_t n_part, n_task;
};

static size_t padded(size_t bytes)
{
    return (bytes + MICRO_ALIGNMENT - 1) / MICRO_ALIGNMENT * MICRO_ALIGNMENT;
}

static int n_expert(const struct linear *op)
{
    return op->rows ? op->rows->n_expert : 1;
}

static int32_t expert_begin(const struct linear *op, int e)
{
    return op->rows ? op->rows->offset[e] : 0;
}

static int32_t expert_end(const struct linear *op, int e)
{
    return op->rows ? op->rows->offset[e + 1] : (int32_t)op->x.rows;
}

/* Rows of x that may be read. */
static int64_t rows_read(const struct linear *op)
{
    if (!op->rows || op->rows->source) return op->x.rows;
    return min_i64(op->x.rows, op->rows->offset[op->rows->n_expert]);
}

static int64_t stored_bytes(const struct tensor *w)
{
    return w->cols * dtype_bits(w->type) / 8;
}

pm_status cpu_reserve_bytes(struct device *d, size_t bytes, size_t worker_bytes)
{
    bytes = padded(bytes);
    worker_bytes = padded(worker_bytes);
    if (bytes > d->scratch_bytes) {
        char *p;
        TRY(alloc_array(&p, bytes, 1, "scratch"));
        free(d->scratch);
        d->scratch = p;
        d->scratch_bytes = bytes;
    }
    if (worker_bytes > d->worker_bytes) {
        char *p;
        TRY(alloc_array(&p, (size_t)pool_size(d->pool), worker_bytes, "scratch of workers"));
        free(d->worker_scratch);
        d->worker_scratch = p;
        d->worker_bytes = worker_bytes;
    }
    return PM_OK;
}

void cpu_release(struct device *d)
{
    free(d->scratch);
    free(d->worker_scratch);
    d->scratch = d->worker_scratch = NULL;
    d->scratch_bytes = d->worker_bytes = 0;
}

/* A worker's scratch during a call, but for the packed rows of x, which follow. */
struct scratch {
    const void *x[MAX_BLOCK]; /* rows of x */
    _Alignas(MICRO_ALIGNMENT) float room[MICRO_ROOM];
    float sum[MAX_BLOCK * MAX_CHUNK], up[MAX_BLOCK * MAX_CHUNK]; /* [n_row, n_column] */
};

/* Most rows of x in a task whose rows have so many bytes. */
static int64_t block_rows(int64_t bytes, int64_t row_bytes)
{
    int64_t n = min_i64(bytes / row_bytes, MAX_BLOCK) / MIN_BLOCK * MIN_BLOCK;
    return max_i64(n, MIN_BLOCK);
}

/* Of a worker for reductions of up to k values. */
static size_t scratch_bytes(const struct micro *micro, int64_t k)
{
    size_t packed_bytes = 0;
    for (int t = 0; t < PM_DTYPE_COUNT; t++) {
        if (!micro->map[t].pack) continue;
        packed_bytes =
            (size_t)max_i64(PACKED_BYTES, micro_packed_bytes(MIN_BLOCK, k)) + MICRO_ALIGNMENT;
    }
    return sizeof(struct scratch) + packed_bytes;
}

pm_status cpu_reserve(struct device *d, int64_t n_row, int64_t n_col)
{
    enum { SPARE_OPS = 16 };
    size_t x_bytes, list_bytes;
    if (!mul_size(&x_bytes, (size_t)n_row, padded((size_t)n_col * sizeof(uint16_t))) ||
        !mul_size(&list_bytes, (size_t)n_row + SPARE_OPS, sizeof(struct part))) {
        return fail(PM_ERR_NOMEM, "%lld rows of %lld values are too many", (long long)n_row,
                    (long long)n_col);
    }
    list_bytes += padded(SPARE_OPS * sizeof(struct map_plan)) + MICRO_ALIGNMENT +
                  padded((size_t)pool_size(d->pool) * sizeof(struct packed));
    return cpu_reserve_bytes(d, x_bytes + list_bytes, scratch_bytes(d->micro, n_col));
}

static pm_status check_weight(const struct linear *op, const struct tensor *w,
                              const struct micro *micro)
{
    if ((unsigned)w->type >= PM_DTYPE_COUNT || !micro->map[w->type].tile) {
        return fail(PM_ERR_UNSUPPORTED, "linear: weights of type %s", dtype_name(w->type));
    }
    if (w->cols != op->x.cols || w->rows != op->y.cols || w->cols < 1) {
        return fail(PM_ERR_ARG, "linear: weight is [%lld,%lld], wanted [%lld,%lld]",
                    (long long)w->rows, (long long)w->cols, (long long)op->y.cols,
                    (long long)op->x.cols);
    }
    if (w->type == PM_MXFP4 && w->cols % MXFP4_BLOCK) {
        return fail(PM_ERR_ARG, "linear: MXFP4 rows of %lld values, wanted a multiple of %d",
                    (long long)w->cols, MXFP4_BLOCK);
    }
    if ((w->type == PM_MXFP4 || w->type == PM_F8_E4M3) && !w->scale) {
        return fail(PM_ERR_ARG, "linear: weights of type %s without scales",
                    dtype_name(w->type));
    }
    return PM_OK;
}

static pm_status check_bias(const struct linear *op, const struct tensor *b)
{
    if (!b->data) return PM_OK;
    if (b->cols != op->y.cols ||
        (b->type != PM_F32 && b->type != PM_BF16 && b->type != PM_F16)) {
        return fail(PM_ERR_ARG, "linear: bias is %s [%lld], wanted float [%lld]",
                    dtype_name(b->type), (long long)b->cols, (long long)op->y.cols);
    }
    return PM_OK;
}

static pm_status check(const struct linear *op, const struct micro *micro)
{
    bool gated = op->glu.kind != GLU_NONE;
    int32_t n_row = expert_end(op, n_expert(op) - 1);
    if (op->x.type != PM_F32 || op->y.type != PM_F32 || op->x.rows > INT32_MAX) {
        return fail(PM_ERR_ARG, "linear: activations are %s -> %s, wanted F32",
                    dtype_name(op->x.type), dtype_name(op->y.type));
    }
    if (n_row > op->y.rows || (!(op->rows && op->rows->source) && n_row > op->x.rows)) {
        return fail(PM_ERR_ARG, "linear: %d rows, x has %lld and y has %lld", (int)n_row,
                    (long long)op->x.rows, (long long)op->y.rows);
    }
    if (gated != (op->w_up != NULL)) {
        return fail(PM_ERR_ARG, "linear: a gated map wants two weights, a plain one wants one");
    }
    for (int e = 0; e < n_expert(op); e++) {
        if (expert_begin(op, e) == expert_end(op, e)) continue;
        TRY(check_weight(op, &op->w[e], micro));
        if (gated) TRY(check_weight(op, &op->w_up[e], micro));
        if (op->b) TRY(check_bias(op, &op->b[e]));
        if (gated && op->b_up) TRY(check_bias(op, &op->b_up[e]));
    }
    return PM_OK;
}

struct convert_job {
    const struct micro *micro;
    const struct tensor *x;
    const struct map_plan *plan;
    int64_t n_row, rows_per_task;
};

static void convert_task(void *arg, int64_t task, int worker)
{
    const struct convert_job *job = arg;
    int64_t first = task * job->rows_per_task;
    int64_t end = min_i64(first + job->rows_per_task, job->n_row);
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        const void *from = (const char *)job->x->data + r * job->x->stride;
        void *to = job->plan->x + r * job->plan->x_stride;
        job->micro->to_bf16(to, from, job->x->cols);
    }
}

static void convert(struct device *d, const struct linear *op, const struct map_plan *plan)
{
    struct convert_job job = {d->micro, &op->x, plan, rows_read(op), 1};
    job.rows_per_task = max_i64(1, SERIAL_VALUES / 4 / op->x.cols);
    if (job.n_row * op->x.cols <= SERIAL_VALUES) job.rows_per_task = max_i64(1, job.n_row);
    parallel_for(d->pool, (job.n_row + job.rows_per_task - 1) / job.rows_per_task, convert_task,
                 &job);
}

static bool wants_bf16(const struct micro *micro, const struct linear *op)
{
    for (int e = 0; e < n_expert(op); e++) {
        if (expert_begin(op, e) == expert_end(op, e)) continue;
        if (micro->map[op->w[e].type].x_type == PM_BF16) return true;
        if (op->w_up && micro->map[op->w_up[e].type].x_type == PM_BF16) return true;
    }
    return false;
}

/* The first operation whose converted rows serve op[i], maybe i itself; -1: none needed. */
static int x_owner(const struct micro *micro, const struct linear *op, int i)
{
    if (!wants_bf16(micro, &op[i])) return -1;
    for (int j = 0; j < i; j++) {
        if (op[j].x.data == op[i].x.data && op[j].x.stride == op[i].x.stride &&
            op[j].x.cols == op[i].x.cols && rows_read(&op[j]) >= rows_read(&op[i]) &&
            wants_bf16(micro, &op[j])) {
            return j;
        }
    }
    return i;
}

static size_t x_stride(const struct linear *op)
{
    return padded((size_t)op->x.cols * sizeof(uint16_t));
}

static size_t x_bytes(const struct linear_call *call, int i)
{
    if (x_owner(call->d->micro, call->op, i) != i) return 0;
    return (size_t)rows_read(&call->op[i]) * x_stride(&call->op[i]);
}

/* Reserves what the call needs, places it, and converts activations. */
static pm_status place(struct linear_call *call)
{
    size_t packed_bytes = (size_t)pool_size(call->d->pool) * sizeof *call->packed;
    size_t bytes = padded((size_t)call->n_op * sizeof *call->plan), part_at, x_at;
    size_t packed_at = bytes;
    int64_t k = 0;
    bytes += padded(packed_bytes);
    part_at = bytes;
    for (int i = 0; i < call->n_op; i++) {
        const struct linear *op = &call->op[i];
        k = max_i64(k, op->x.cols);
        for (int e = 0; e < n_expert(op); e++) {
            call->n_part += expert_begin(op, e) < expert_end(op, e);
        }
    }
    bytes += padded((size_t)call->n_part * sizeof *call->part);
    x_at = bytes;
    for (int i = 0; i < call->n_op; i++)
        bytes += x_bytes(call, i);
    TRY(cpu_reserve_bytes(call->d, bytes, scratch_bytes(call->d->micro, k)));
    call->plan = (struct map_plan *)(void *)call->d->scratch;
    call->packed = (struct packed *)(void *)(call->d->scratch + packed_at);
    memset(call->packed, 0, packed_bytes);
    call->part = (struct part *)(void *)(call->d->scratch + part_at);
    for (int i = 0; i < call->n_op; i++) {
        int owner = x_owner(call->d->micro, call->op, i);
        struct map_plan *plan = &call->plan[i];
        *plan = (struct map_plan){.x_stride = (int64_t)x_stride(&call->op[i])};
        if (owner < 0) continue;
        plan->x = owner == i ? call->d->scratch + x_at : call->plan[owner].x;
        x_at += x_bytes(call, i);
        if (owner == i) convert(call->d, &call->op[i], plan);
    }
    return PM_OK;
}

/* Stored bytes of what makes one column of y for expert e. */
static int64_t column_bytes(const struct linear *op, int e)
{
    return stored_bytes(&op->w[e]) + (op->w_up ? stored_bytes(&op->w_up[e]) : 0);
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Cuts the columns of op[i] into chunks of about chunk_bytes and its rows into blocks. */
static void cut(struct linear_call *call, int i, int e, int64_t chunk_bytes)
{
    const struct linear *op = &call->op[i];
    struct map_plan *plan = &call->plan[i];
    const struct micro_map *map = &call->d->micro->map[op->w[e].type];
    int64_t n = op->y.cols, rows = map->pack ? MICRO_PACKED_GROUP : MICRO_ROWS;
    int64_t row_bytes = plan->x ? plan->x_stride : op->x.cols * (int64_t)sizeof(float);
    int64_t chunk = min_i64(MAX_CHUNK, max_i64(1, chunk_bytes / column_bytes(op, e)));
    plan->n_chunk = ceil_div(n, chunk);
    /* Equal chunks, of whole tiles. */
    chunk = ceil_div(ceil_div(n, plan->n_chunk), rows) * rows;
    plan->chunk = min_i64(chunk, MAX_CHUNK);
    plan->n_chunk = ceil_div(n, plan->chunk);
    plan->block = map->pack ? block_rows(PACKED_BYTES, micro_packed_bytes(1, op->x.cols))
                            : block_rows(BLOCK_BYTES, row_bytes);
}

/* Lists the tasks. */
static void plan_tasks(struct linear_call *call)
{
    int64_t total = 0, wanted = CHUNKS_PER_WORKER * (int64_t)pool_size(call->d->pool);
    struct part *part = call->part;
    for (int i = 0; i < call->n_op; i++) {
        const struct linear *op = &call->op[i];
        for (int e = 0; e < n_expert(op); e++) {
            if (expert_begin(op, e) == expert_end(op, e)) continue;
            total += column_bytes(op, e) * op->y.cols;
        }
    }
    total = min_i64(CHUNK_BYTES, max_i64(MIN_CHUNK_BYTES, total / wanted));
    for (int i = 0; i < call->n_op; i++) {
        const struct linear *op = &call->op[i];
        for (int e = 0; e < n_expert(op); e++) {
            int32_t first = expert_begin(op, e), n_row = expert_end(op, e) - first;
            if (n_row == 0) continue;
            if (!call->plan[i].chunk) cut(call, i, e, total);
            *part++ = (struct part){i, e, first, n_row, call->n_task};
            call->n_task += call->plan[i].n_chunk * ceil_div(n_row, call->plan[i].block);
        }
    }
}

/* What a task computes. */
struct task {
    struct scratch *scratch; /* and what is packed in it, of the worker */
    struct packed *packed;
    const struct linear *op;
    const struct map_plan *plan;
    const struct part *part;
    int64_t block;
    int expert;
    int32_t row, n_row; /* rows of y */
    int64_t column, n_column;
};

static struct task find_task(const struct linear_call *call, int64_t number)
{
    int64_t low = 0, high = call->n_part - 1;
    struct task task = {0};
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (call->part[middle].first_task <= number) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    const struct part *part = &call->part[low];
    const struct map_plan *plan = &call->plan[part->op];
    int64_t n_block = ceil_div(part->n_row, plan->block);
    int64_t chunk = (number - part->first_task) % plan->n_chunk;
    int64_t block = (number - part->first_task) / plan->n_chunk;
    int64_t n_unit = ceil_div(part->n_row, MIN_BLOCK);
    int64_t first = n_unit * block / n_block * MIN_BLOCK;
    int64_t end = n_unit * (block + 1) / n_block * MIN_BLOCK;
    task.op = &call->op[part->op];
    task.plan = plan;
    task.part = part;
    task.block = block;
    task.expert = part->expert;
    task.row = part->first_row + (int32_t)first;
    task.n_row = (int32_t)(min_i64(end, part->n_row) - first);
    task.column = chunk * plan->chunk;
    task.n_column = min_i64(plan->chunk, task.op->y.cols - task.column);
    return task;
}

static void point_x(const struct task *task, pm_dtype type, const void **x)
{
    const struct linear *op = task->op;
    const int32_t *source = op->rows ? op->rows->source : NULL;
    const char *base = type == PM_BF16 ? task->plan->x : op->x.data;
    int64_t stride = type == PM_BF16 ? task->plan->x_stride : op->x.stride;
    for (int32_t r = 0; r < task->n_row; r++) {
        int64_t from = source ? source[task->row + r] : task->row + r;
        x[r] = base + from * stride;
    }
}

/* The task's rows of x as the tile wants them: packed, in the worker's room. */
static const void *pack_x(const struct task *task, const struct micro_map *map)
{
    struct packed *packed = task->packed;
    struct scratch *scratch = task->scratch;
    char *room = (char *)scratch + padded(sizeof *scratch);
    if (packed->part == task->part && packed->block == task->block) return room;
    point_x(task, PM_F32, scratch->x);
    map->pack(room, (const float *const *)scratch->x, task->n_row, task->op->x.cols);
    *packed = (struct packed){task->part, task->block};
    return room;
}

/* Points the tile at weight rows row .. row + n_w - 1 of `rows` and their scales. */
static void point_w(struct tile *tile, const struct tensor *w, int64_t row, int rows)
{
    for (int j = 0; j < rows; j++) {
        int64_t r = row + min_i64(j, tile->n_w - 1);
        int64_t scale_row = w->type == PM_F8_E4M3 ? (w->scale_row + r) / F8_BLOCK : r;
        tile->w[j] = (const char *)w->data + r * w->stride;
        if (w->scale) tile->w_scale[j] = (const char *)w->scale + scale_row * w->scale_stride;
    }
}

/* What the tile fetches: weight rows from `row` on. */
static void point_next(struct tile *tile, const struct tensor *w, int64_t row)
{
    tile->next_bytes = stored_bytes(w);
    for (int j = 0; j < MICRO_ROWS; j++) {
        tile->next[j] = (const char *)w->data + min_i64(row + j, w->rows - 1) * w->stride;
    }
    tile->ahead = tile->next[0];
}

/* sum[r, n] = w[column + n] x[r] for the task's rows and columns. Row after_row of `after` is
 * what will be read next, or after is NULL. */
static void run_columns(const struct linear_call *call, const struct task *task,
                        const struct tensor *w, float *sum, const struct tensor *after,
                        int64_t after_row)
{
    const struct micro_map *map = &call->d->micro->map[w->type];
    struct scratch *scratch = task->scratch;
    int rows = micro_rows(map);
    struct tile tile = {.n_x = task->n_row,
                        .k = w->cols,
                        .x = scratch->x,
                        .y_stride = task->n_column,
                        .room = scratch->room,
                        .ahead_rows = MICRO_PACKED_GROUP,
                        .ahead_bytes = stored_bytes(w),
                        .ahead_stride = w->stride};
    if (map->pack) {
        tile.packed = pack_x(task, map);
    } else {
        point_x(task, map->x_type, scratch->x);
    }
    for (int64_t n = 0; n < task->n_column; n += rows) {
        bool last = n + rows >= task->n_column;
        tile.n_w = (int)min_i64(rows, task->n_column - n);
        tile.y = sum + n;
        point_w(&tile, w, task->column + n, rows);
        tile.next[0] = tile.ahead = NULL;
        if (!last) {
            point_next(&tile, w, task->column + n + rows);
        } else if (after) {
            point_next(&tile, after, after_row);
        }
        map->tile(&tile);
    }
}

static void add_bias(const struct micro *m, const struct task *task, const struct tensor *b,
                     float *sum)
{
    float bias[MAX_CHUNK];
    const void *from;
    if (!b || !b[task->expert].data) return;
    b += task->expert;
    from = (const char *)b->data + task->column * dtype_bits(b->type) / 8;
    if (b->type == PM_F32) memcpy(bias, from, (size_t)task->n_column * sizeof *bias);
    if (b->type == PM_BF16) m->from_bf16(bias, from, task->n_column);
    if (b->type == PM_F16) m->from_f16(bias, from, task->n_column);
    for (int32_t r = 0; r < task->n_row; r++) {
        m->axpy_f32(sum + r * task->n_column, 1, bias, task->n_column);
    }
}

/* Rows of y from the sums. These go through scratch because a few columns at a time of rows
 * that are a power of two apart would fight for the same lines of the caches; and past the
 * caches where y is larger than they are, since memory need not be read then to be written. */
static void finish(const struct micro *m, const struct task *task, struct scratch *scratch)
{
    const struct linear *op = task->op;
    int64_t n = task->n_column;
    size_t bytes = (size_t)n * sizeof(float);
    bool large = op->y.rows * op->y.stride >= STREAM_BYTES;
    add_bias(m, task, op->b, scratch->sum);
    if (op->w_up) add_bias(m, task, op->b_up, scratch->up);
    for (int32_t r = 0; r < task->n_row; r++) {
        float *sum = scratch->sum + r * n;
        float *y = (float *)(void *)((char *)op->y.data + (task->row + r) * op->y.stride) +
                   task->column;
        if (op->w_up) m->glu(sum, sum, scratch->up + r * n, n, &op->glu);
        if (large && ((uintptr_t)y | bytes) % MICRO_ALIGNMENT == 0) {
            m->stream_copy(y, sum, bytes);
        } else {
            memcpy(y, sum, bytes);
        }
    }
    /* Such stores are not in the order of others: here they come before the task's end. */
    if (large) atomic_thread_fence(memory_order_seq_cst);
}

static void linear_task(void *arg, int64_t number, int worker)
{
    const struct linear_call *call = arg;
    struct task task = find_task(call, number), next = task;
    const struct linear *op = task.op;
    const struct tensor *w = &op->w[task.expert], *after = NULL;
    struct scratch *scratch = cpu_worker_scratch(call->d, worker);
    task.scratch = scratch;
    task.packed = &call->packed[worker];
    if (number + 1 < call->n_task) {
        next = find_task(call, number + 1);
        after = &next.op->w[next.expert];
    }
    if (op->w_up) {
        const struct tensor *up = &op->w_up[task.expert];
        run_columns(call, &task, w, scratch->sum, up, task.column);
        run_columns(call, &task, up, scratch->up, after, next.column);
    } else {
        run_columns(call, &task, w, scratch->sum, after, next.column);
    }
    finish(call->d->micro, &task, scratch);
}

pm_status cpu_linear(struct device *d, const struct linear *op, int n_op)
{
    struct linear_call call = {.d = d, .op = op, .n_op = n_op};
    for (int i = 0; i < n_op; i++)
        TRY(check(&op[i], d->micro));
    TRY(place(&call));
    plan_tasks(&call);
    parallel_for(d->pool, call.n_task, linear_task, &call);
    return PM_OK;
}
