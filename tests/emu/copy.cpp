/* copy.cpp - asynchronous copies: cp.async, TMA and plain bulk copies.
 *
 * Asynchronous means late. A cp.async poisons its destination when issued and lands at its
 * wait, or, by a coin, at once; TMA waits in a list and runs at a random point of the schedule
 * (EMU_ASYNC). What is read before its wait is NaN, not luck. */
#include "core.hpp"

namespace emu {
/* -------------------------------------------------------------------------- cp.async */
static void copy_land(CopyOp *o)
{
    if (o->bytes == 0) return;
    if (o->source) {
        asan_check(o->g, (size_t)o->source);
        tsan_read(o->g, (size_t)o->source);
    }
    tsan_write(o->s, (size_t)o->bytes);
    raw_copy(o->s, o->g, (size_t)o->source);
    raw_set(o->s + o->source, 0, (size_t)(o->bytes - o->source));
    o->bytes = 0;
}

void cp_async(void *s, const void *g, int bytes, bool pred)
{
    if ((uintptr_t)s % (unsigned)bytes || (pred && (uintptr_t)g % (unsigned)bytes))
        die("cp_async%d: %p from %p is not aligned", bytes, s, g);
    Fiber *f = worker->running;
    CopyOp o = {smem_ptr(smem_off(s), bytes),
                (const char *)g,
                bytes,
                pred ? bytes : 0,
                f->copy_group,
                f->copy_seq++};
    if (options.async == ASYNC_EAGER || (options.async == ASYNC_RANDOM && (rng() & 1))) {
        copy_land(&o);
    } else {
        tsan_write(o.s, (size_t)bytes);
        raw_set(o.s, 0xff, (size_t)bytes);
    }
    if (f->n_copy == MAX_COPY) die("cp_async: more than %d in flight in a thread", MAX_COPY);
    f->copy[f->n_copy++] = o;
}

void cp_async_commit()
{
    worker->running->copy_group++;
}

void cp_async_wait(int keep)
{
    Fiber *f = worker->running;
    int n = 0;
    for (int i = 0; i < f->n_copy; i++) {
        if (f->copy[i].group < f->copy_group - keep)
            copy_land(&f->copy[i]);
        else
            f->copy[n++] = f->copy[i];
    }
    f->n_copy = n;
}

/* The thread's copies before `seq` land, whatever it does meanwhile. */
static void copy_land_before(Fiber *f, unsigned seq)
{
    int n = 0;
    for (int i = 0; i < f->n_copy; i++) {
        if ((int)(f->copy[i].seq - seq) < 0)
            copy_land(&f->copy[i]);
        else
            f->copy[n++] = f->copy[i];
    }
    f->n_copy = n;
}

void copy_exit(Fiber *f)
{
    for (int i = 0; i < f->n_copy; i++)
        if ((int)(f->copy[i].seq - f->copy_marked) >= 0)
            die("the thread ended with cp_async in flight: cp_async_wait<0>() is missing");
    if (f->bulk_waited < f->bulk_used)
        die("the thread ended with TMA stores in flight: bulk_wait_read<0>() is missing");
}

/* --------------------------------------------------- the list of what is on its way */
/* A context of its own that knows what `issuer` knows now. */
static void *engine_take(bool companion)
{
    void *ctx = worker->engine[worker->next_engine++ % MAX_ENGINE];
    char *token = &worker->tma_token;
    if (companion)
        as_companion([=] { tsan_release(token); });
    else
        tsan_release(token);
    tsan_as(ctx, [=] { tsan_acquire(token); });
    return ctx;
}

static void async_push(const AsyncOp &o)
{
    worker->async.push(o);
    if (options.async == ASYNC_EAGER) run_async(worker->async.n - 1);
}

void cp_async_arrive(uint64_t *bar)
{
    need_cc(90, "cp_async_mbar_arrive_noinc");
    smem_ptr(smem_off(bar), 8);
    tsan_read(bar, 1);
    Fiber *f = worker->running;
    f->copy_marked = f->copy_seq;
    AsyncOp o = AsyncOp();
    o.kind = COPY_ARRIVE;
    o.ctx = engine_take(false);
    o.owner = f;
    o.seq = f->copy_seq++; /* marks without copies between them keep their order, too */
    o.bar = bar;
    async_push(o);
}

static void copy_arrive(AsyncOp *o)
{
    /* An earlier mark of the same thread comes first. */
    for (int i = 0; i < worker->async.n; i++) {
        AsyncOp *q = &worker->async.v[i];
        if (q->kind == COPY_ARRIVE && q->owner == o->owner && (int)(q->seq - o->seq) < 0) {
            AsyncOp swap = *q;
            *q = *o;
            *o = swap;
            i = -1;
        }
    }
    tsan_as(o->ctx, [=] {
        copy_land_before(o->owner, o->seq);
        tsan_release((char *)o->bar + 2 * (*o->bar >> 63)); /* not to the companions */
    });
    mbar_count(o->bar, "cp_async_mbar_arrive_noinc");
}

/* ------------------------------------------------------------------------------- TMA */
/* What cuTensorMapEncodeTiled of this emulator puts into a CUtensorMap. */
struct Map {
    uint32_t magic;
    uint8_t size, rank, swizzle, unused;
    char *base;
    uint64_t dim[5], stride[4]; /* elements; bytes, of dimension 1 .. 4 */
    uint16_t box[5];
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap), "a CUtensorMap has 128 bytes");
enum { MAP_MAGIC = 0x7a3a4d54 };

unsigned swizzle(unsigned address, int mode)
{
    unsigned rows = mode == 3 ? 7 : mode == 2 ? 3 : mode == 1 ? 1 : 0;
    return address ^ (address >> 7 & rows) << 4;
}

static AsyncOp tma_op(const char *what, const CUtensorMap *map, const void *smem, int rank,
                      int x, int y, int z)
{
    const Map *m = (const Map *)map;
    unsigned s = smem_off(smem);
    need_cc(90, what);
    if ((uintptr_t)map % 64) die("%s: the tensor map is not 64-byte aligned", what);
    if (m->magic != MAP_MAGIC) die("%s: not a tensor map", what);
    if (m->rank != rank) die("%s: a map of %d dimensions, wanted %d", what, m->rank, rank);
    if (s % 128) die("%s: shared address 0x%x is not 128-byte aligned", what, s);
    if (m->swizzle && s % (128u << m->swizzle))
        die("%s: shared address 0x%x is not aligned to the swizzle's %u bytes", what, s,
            128u << m->swizzle);
    AsyncOp o = AsyncOp();
    o.smem = s;
    o.at[0] = x;
    o.at[1] = y;
    o.at[2] = z;
    o.owner = worker->running;
    raw_copy(o.map, map, sizeof o.map);
    return o;
}

static void bar_check(const char *what, uint64_t *bar)
{
    if (smem_off(bar) % 8) die("%s: the mbarrier is not 8-byte aligned", what);
    if (!(*bar >> 62 & 1)) die("%s: mbarrier at %p is not initialised", what, (void *)bar);
    if (worker->unfenced) die("%s: mbar_init without fence_barrier_init", what);
    tsan_read(bar, 1);
}

void tma_load(void *dst, const CUtensorMap *map, uint64_t *bar, int rank, int x, int y, int z)
{
    AsyncOp o = tma_op("tma_load", map, dst, rank, x, y, z);
    bar_check("tma_load", bar);
    o.kind = TMA_LOAD;
    o.bar = bar;
    o.ctx = engine_take(false);
    async_push(o);
}

void tma_store(const CUtensorMap *map, const void *src, int rank, int x, int y, int z)
{
    AsyncOp o = tma_op("tma_store", map, src, rank, x, y, z);
    Fiber *f = worker->running;
    o.kind = TMA_STORE;
    o.group = f->bulk_group;
    f->bulk_used = f->bulk_group + 1;
    o.ctx = engine_take(true);
    async_push(o);
}

void bulk_load(void *dst, const void *src, unsigned bytes, uint64_t *bar)
{
    need_cc(90, "bulk_load");
    if (bytes == 0 || bytes % 16 || (uintptr_t)src % 16 || smem_off(dst) % 16)
        die("bulk_load: %u bytes from %p to %p, wanted multiples of 16", bytes, src, dst);
    bar_check("bulk_load", bar);
    AsyncOp o = AsyncOp();
    o.kind = BULK_LOAD;
    o.smem = smem_off(dst);
    o.global = (const char *)src;
    o.bytes = bytes;
    o.bar = bar;
    o.ctx = engine_take(false);
    async_push(o);
}

void bulk_commit()
{
    worker->running->bulk_group++;
}

void bulk_wait(int keep)
{
    Fiber *f = worker->running;
    Worker *w = worker;
    char *token = (char *)&f->bulk_group;
    for (int i = 0; i < w->async.n; i++) {
        AsyncOp *o = &w->async.v[i];
        if (o->kind != TMA_STORE || o->owner != f || o->group >= f->bulk_group - keep) continue;
        run_async(i);
        i = -1;
    }
    tsan_acquire(token);
    if (f->bulk_group - keep > f->bulk_waited) f->bulk_waited = f->bulk_group - keep;
}

/* 16 bytes of a box between shared and global memory. at: the first element's coordinates. */
static void tma_chunk(const Map *m, char *s, const int64_t *at, bool store)
{
    bool row = true;
    for (int i = 1; i < m->rank; i++)
        row &= at[i] >= 0 && at[i] < (int64_t)m->dim[i];
    if (store)
        tsan_read(s, 16);
    else
        tsan_write(s, 16);
    char *g = m->base + at[0] * m->size;
    for (int i = 1; i < m->rank; i++)
        g += at[i] * (int64_t)m->stride[i - 1];
    /* Elements first .. last - 1 of the chunk lie inside. */
    int64_t n = 16 / m->size, first = at[0] < 0 ? -at[0] : 0, last = (int64_t)m->dim[0] - at[0];
    if (last > n) last = n;
    if (!row || first >= last) first = last = 0;
    size_t head = (size_t)first * m->size, tail = (size_t)last * m->size;
    if (tail > head) {
        asan_check(g + head, tail - head);
        if (store) {
            tsan_write(g + head, tail - head);
            raw_copy(g + head, s + head, tail - head);
        } else {
            tsan_read(g + head, tail - head);
            raw_copy(s + head, g + head, tail - head);
        }
    }
    if (store) return;
    raw_set(s, 0, head);
    raw_set(s + tail, 0, 16 - tail);
}

static void tma_box(AsyncOp *o, bool store)
{
    const Map *m = (const Map *)(const void *)o->map;
    int inner = m->box[0] * m->size;
    int rows = m->rank > 1 ? m->box[1] : 1, planes = m->rank > 2 ? m->box[2] : 1;
    unsigned s = o->smem;
    for (int z = 0; z < planes; z++)
        for (int y = 0; y < rows; y++)
            for (int c = 0; c < inner; c += 16, s += 16) {
                int64_t at[3] = {(int64_t)o->at[0] + c / m->size, (int64_t)o->at[1] + y,
                                 (int64_t)o->at[2] + z};
                tma_chunk(m, smem_ptr(swizzle(s, m->swizzle), 16), at, store);
            }
    o->bytes = (unsigned)(inner * rows * planes);
}

static void load_done(AsyncOp *o)
{
    char *token = (char *)o->bar + 2 * (*o->bar >> 63);
    tsan_as(o->ctx, [=] {
        tsan_release(token);
        tsan_release(token + 4);
    });
    mbar_complete(o->bar, o->bytes);
}

void run_async(int i)
{
    AsyncOp op = worker->async.take(i), *o = &op;
    worker->progress = true;
    switch (o->kind) {
    case TMA_LOAD:
        tsan_as(o->ctx, [=] { tma_box(o, false); });
        load_done(o);
        break;
    case TMA_STORE: {
        char *token = (char *)&o->owner->bulk_group;
        tsan_as(o->ctx, [=] {
            tma_box(o, true);
            tsan_release(token);
        });
        break;
    }
    case BULK_LOAD:
        tsan_as(o->ctx, [=] {
            char *s = smem_ptr(o->smem, (int)o->bytes);
            asan_check(o->global, o->bytes);
            tsan_read(o->global, o->bytes);
            tsan_write(s, o->bytes);
            raw_copy(s, o->global, o->bytes);
        });
        load_done(o);
        break;
    default: copy_arrive(o); break;
    }
}
} // namespace emu

/* ------------------------------------------------------- what the driver would encode */
/* Bytes of an element, by CUtensorMapDataType. */
static const uint8_t map_size[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};

/* The rules of the driver API's page on cuTensorMapEncodeTiled, as far as this project uses it.
 */
extern "C" CUresult CUDAAPI emu_cuTensorMapEncodeTiled(
    CUtensorMap *out, CUtensorMapDataType type, cuuint32_t rank, void *base,
    const cuuint64_t *dim, const cuuint64_t *stride, const cuuint32_t *box,
    const cuuint32_t *element_stride, CUtensorMapInterleave interleave,
    CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
    if (!out || (uintptr_t)out % 64 || !base || (uintptr_t)base % 16 || rank < 1 || rank > 3 ||
        interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || (unsigned)type >= sizeof map_size ||
        swizzle > CU_TENSOR_MAP_SWIZZLE_128B)
        return CUDA_ERROR_INVALID_VALUE;
    emu::Map m;
    memset(&m, 0, sizeof m);
    m.magic = emu::MAP_MAGIC;
    m.size = map_size[type];
    m.rank = (uint8_t)rank;
    m.swizzle = (uint8_t)swizzle;
    m.base = (char *)base;
    for (unsigned i = 0; i < rank; i++) {
        if (!dim[i] || dim[i] > 1ull << 32 || !box[i] || box[i] > 256)
            return CUDA_ERROR_INVALID_VALUE;
        if (element_stride[i] != 1) return CUDA_ERROR_NOT_SUPPORTED;
        m.dim[i] = dim[i];
        m.box[i] = (uint16_t)box[i];
        if (i == 0) continue;
        if (stride[i - 1] % 16 || stride[i - 1] >= 1ull << 40) return CUDA_ERROR_INVALID_VALUE;
        m.stride[i - 1] = stride[i - 1];
    }
    unsigned inner = box[0] * m.size, limit = swizzle ? 16u << swizzle : 1u << 20;
    if (inner % 16 || inner > limit) return CUDA_ERROR_INVALID_VALUE;
    memset(out, 0, sizeof *out);
    memcpy(out, &m, sizeof m);
    return CUDA_SUCCESS;
}
