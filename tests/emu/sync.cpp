/* sync.cpp - how threads of a block meet: barriers, warp-wide instructions, mbarriers, fences.
 */
#include "core.hpp"

namespace emu {
/* -------------------------------------------------------------------------- barriers */
static void bar_release(Barrier *b)
{
    for (int i = 0; i < b->waiting.n; i++) {
        Fiber *f = b->waiting.v[i];
        f->vote = b->votes;
        acquire_for(f, b);
        wake(f);
    }
    b->waiting.n = b->n = b->votes = 0;
}

/* Counts this thread in; true when it was the last. */
static bool bar_count(Barrier *b, int id, int n, int vote)
{
    if (b->n && b->expect != n)
        die("barrier %d: thread counts differ (%d and %d)", id, b->expect, n);
    sync_release(b);
    b->expect = n;
    b->votes += vote;
    return ++b->n == (n < 0 ? worker->live : n);
}

static int bar_wait(int id, int n, int vote, const char *why)
{
    Barrier *b = &worker->bar[id];
    Fiber *f = worker->running;
    if (bar_count(b, id, n, vote)) {
        f->vote = b->votes;
        sync_acquire(b);
        bar_release(b);
    } else {
        b->waiting.push(f);
        block_on(why);
    }
    return f->vote;
}

void bar_exit()
{
    Barrier *b = &worker->bar[0];
    if (b->n && b->expect < 0 && b->n == worker->live) bar_release(b);
}

void syncthreads()
{
    bar_wait(0, -1, 0, "__syncthreads");
}

int syncthreads_count(int pred)
{
    return bar_wait(0, -1, pred != 0, "__syncthreads_count");
}

static void bar_check(int id, int n)
{
    if (id < 0 || id > 15 || n <= 0 || n % 32 || n > worker->n_thread)
        die("named barrier %d among %d threads of %d: wanted 0-15, whole warps", id, n,
            worker->n_thread);
}

void bar_sync(int id, int n)
{
    bar_check(id, n);
    bar_wait(id, n, 0, "named_barrier");
}

void bar_arrive(int id, int n)
{
    bar_check(id, n);
    if (bar_count(&worker->bar[id], id, n, 0)) bar_release(&worker->bar[id]);
}

/* -------------------------------------------------------------------- warp-wide calls */
static Meeting *meeting_find(Warp *w, Fiber *f, unsigned mask, const char *what)
{
    for (unsigned u = w->used; u; u &= u - 1) {
        Meeting *m = &w->meeting[__builtin_ctz(u)];
        if (m->mask != mask) continue; /* legal divergence, or a deadlock found later */
        if (m->what != what)
            die("divergent warp: lane %u in %s mask %08x while lanes %08x wait in %s", f->lane,
                what, mask, m->arrived, m->what);
        return m;
    }
    int k = __builtin_ctz(~w->used);
    Meeting *m = &w->meeting[k];
    w->used |= 1u << k;
    m->mask = mask;
    m->arrived = 0;
    m->what = what;
    m->warp = w;
    for (unsigned lane = 0; lane < 32; lane++) {
        unsigned t = (f->lin & ~31u) + lane;
        if (!(mask >> lane & 1)) continue;
        if (t >= (unsigned)worker->n_thread || worker->fiber[t].st == DONE)
            die("%s: mask %08x names lane %u, which has exited", what, mask, lane);
    }
    return m;
}

void warp_exit(Fiber *f)
{
    Warp *w = &worker->warp[f->lin / 32];
    for (unsigned u = w->used; u; u &= u - 1) {
        const Meeting *m = &w->meeting[__builtin_ctz(u)];
        if (m->mask >> f->lane & 1)
            die("%s: mask %08x names lane %u, which has exited", m->what, m->mask, f->lane);
    }
}

void warp_meet(unsigned mask, const char *what, bool sync, void *pay, warp_fn fn)
{
    Fiber *f = worker->running;
    Warp *w = &worker->warp[f->lin / 32];
    if (!(mask >> f->lane & 1)) die("%s: the calling lane is not in mask %08x", what, mask);
    Meeting *m = meeting_find(w, f, mask, what);
    if (sync) sync_release(m);
    m->pay[f->lane] = pay;
    m->lane[f->lane] = f;
    m->arrived |= 1u << f->lane;
    if (m->arrived != mask) {
        block_on(what);
        return;
    }
    if (fn) fn(m);
    for (int l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        if (sync) acquire_for(m->lane[l], m);
        if (m->lane[l] != f) wake(m->lane[l]);
    }
    w->used &= ~(1u << (m - w->meeting));
}

void syncwarp(unsigned mask)
{
    warp_meet(mask, "__syncwarp", true, nullptr, nullptr);
}

struct Shuffle {
    uint64_t v, out;
    int mode, arg, width;
};

static int shuffle_source(const Shuffle *s, int lane)
{
    int base = lane & ~(s->width - 1), from = lane;
    switch (s->mode) {
    case SHFL_IDX: return base + (s->arg & (s->width - 1));
    case SHFL_UP: from = lane - s->arg; return from < base ? lane : from;
    case SHFL_DOWN: from = lane + s->arg; break;
    default: from = lane ^ s->arg; break;
    }
    return from >= base + s->width ? lane : from;
}

uint64_t shfl(unsigned mask, uint64_t v, int mode, int arg, int width)
{
    static const char *const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                        "__shfl_xor_sync"};
    if (width < 1 || width > 32 || (width & (width - 1)))
        die("%s: width %d is no power of two up to 32", names[mode], width);
    Shuffle s = {v, v, mode, arg, width};
    warp_meet(mask, names[mode], false, &s, [](Meeting *m) {
        for (int l = 0; l < 32; l++) {
            if (!(m->mask >> l & 1)) continue;
            Shuffle *q = (Shuffle *)m->pay[l];
            int from = shuffle_source(q, l);
            if (!(m->mask >> from & 1))
                die("shuffle: lane %d reads lane %d, not in mask %08x", l, from, m->mask);
            q->out = ((Shuffle *)m->pay[from])->v;
        }
    });
    return s.out;
}

struct Vote {
    uint64_t v;
    unsigned out;
};

unsigned ballot(unsigned mask, int pred)
{
    Vote x = {pred != 0, 0};
    warp_meet(mask, "__ballot_sync", false, &x, [](Meeting *m) {
        unsigned bits = 0;
        for (int l = 0; l < 32; l++)
            if (m->mask >> l & 1) bits |= (unsigned)((Vote *)m->pay[l])->v << l;
        for (int l = 0; l < 32; l++)
            if (m->mask >> l & 1) ((Vote *)m->pay[l])->out = bits;
    });
    return x.out;
}

unsigned match_any(unsigned mask, uint64_t v)
{
    Vote x = {v, 0};
    warp_meet(mask, "__match_any_sync", false, &x, [](Meeting *m) {
        for (int l = 0; l < 32; l++) {
            if (!(m->mask >> l & 1)) continue;
            Vote *mine = (Vote *)m->pay[l];
            for (int k = 0; k < 32; k++)
                if ((m->mask >> k & 1) && ((Vote *)m->pay[k])->v == mine->v)
                    mine->out |= 1u << k;
        }
    });
    return x.out;
}

struct Redux {
    long long v;
    int op;
};

static long long redux_step(int op, long long a, long long b)
{
    switch (op) {
    case REDUX_ADD: return a + b;
    case REDUX_MIN: return b < a ? b : a;
    case REDUX_MAX: return a < b ? b : a;
    case REDUX_AND: return a & b;
    case REDUX_OR: return a | b;
    default: return a ^ b;
    }
}

long long redux(unsigned mask, long long v, int op)
{
    need_cc(80, "__reduce_sync");
    Redux x = {v, op};
    warp_meet(mask, "__reduce_sync", false, &x, [](Meeting *m) {
        int first = __builtin_ctz(m->mask);
        long long sum = ((Redux *)m->pay[first])->v;
        for (int l = first + 1; l < 32; l++)
            if (m->mask >> l & 1)
                sum = redux_step(((Redux *)m->pay[l])->op, sum, ((Redux *)m->pay[l])->v);
        for (int l = 0; l < 32; l++)
            if (m->mask >> l & 1) ((Redux *)m->pay[l])->v = sum;
    });
    return x.v;
}

bool elect()
{
    need_cc(90, "elect_one");
    warp_meet(~0u, "elect_one", false, nullptr, nullptr);
    return worker->running->lane == 0;
}

void set_max_registers(int n)
{
    need_cc(90, "setmaxnreg");
    if (n < 24 || n > 256 || n % 8) die("setmaxnreg %d: wanted 24 to 256 in steps of 8", n);
    warp_meet(~0u, "setmaxnreg", false, nullptr, nullptr);
}

/* ------------------------------------------------------------------------- mbarriers
 * A real 64-bit word: pending arrivals 0-19, their number in a phase 20-39, bytes on their way
 * 40-61 (signed), bit 62 initialised, bit 63 parity of the running phase. TSan tokens: the
 * word's address for even phases, + 2 for odd ones, each + 4 for the companions. */
static int field(uint64_t v, int shift, int bits)
{
    return (int)(v >> shift & ((1ull << bits) - 1));
}

static void mbar_check(uint64_t *bar)
{
    if (smem_off(bar) % 8) die("mbarrier at %p is not 8-byte aligned", (void *)bar);
    if (!(*bar >> 62 & 1)) die("mbarrier at %p is not initialised", (void *)bar);
}

static void mbar_step(uint64_t *bar, int arrivals, int bytes)
{
    mbar_check(bar);
    uint64_t v = *bar;
    int pending = field(v, 0, 20) - arrivals, count = field(v, 20, 20);
    int tx = (field(v, 40, 22) ^ 0x200000) - 0x200000 + bytes;
    uint64_t phase = v >> 63;
    if (pending < 0) die("mbarrier: more arrivals than its count %d", count);
    if (tx >= 0x100000 || tx <= -0x100000)
        die("mbarrier: %d bytes outstanding, at most 1048575 can be counted", tx);
    if (pending == 0 && tx == 0) {
        phase ^= 1;
        pending = count;
        worker->progress = true;
    }
    *bar = (uint64_t)pending | (uint64_t)count << 20 | (uint64_t)(tx & 0x3fffff) << 40 |
           1ull << 62 | phase << 63;
}

void mbar_init(uint64_t *bar, unsigned n)
{
    need_cc(90, "mbar_init");
    smem_ptr(smem_off(bar), 8);
    if (smem_off(bar) % 8) die("mbarrier at %p is not 8-byte aligned", (void *)bar);
    if (n < 1 || n >= 1u << 20) die("mbar_init: %u arrivals, wanted 1 to 1048575", n);
    tsan_write(bar, 8);
    worker->unfenced++;
    *bar = (uint64_t)n | (uint64_t)n << 20 | 1ull << 62;
}

void fence_mbar_init()
{
    worker->unfenced = 0;
}

void mbar_arrive(uint64_t *bar, unsigned bytes)
{
    mbar_check(bar);
    tsan_read(bar, 1);
    sync_release((char *)bar + 2 * (*bar >> 63));
    mbar_step(bar, 1, (int)bytes);
}

void mbar_complete(uint64_t *bar, unsigned bytes)
{
    mbar_step(bar, 0, -(int)bytes);
}

void mbar_count(uint64_t *bar, const char *what)
{
    if (!(*bar >> 62 & 1)) die("%s: mbarrier at %p is not initialised", what, (void *)bar);
    mbar_step(bar, 1, 0);
}

static bool mbar_over(uint64_t *bar, unsigned parity)
{
    mbar_check(bar);
    return (*bar >> 63) != (parity & 1);
}

bool mbar_test(uint64_t *bar, unsigned parity)
{
    tsan_read(bar, 1);
    if (!mbar_over(bar, parity)) poll_wait("mbar_test", true);
    if (!mbar_over(bar, parity)) return false;
    sync_acquire((char *)bar + 2 * (parity & 1));
    return true;
}

void mbar_wait(uint64_t *bar, unsigned parity)
{
    tsan_read(bar, 1); /* races with an mbar_init that is not ordered before */
    while (!mbar_over(bar, parity))
        poll_wait("mbar_wait", false);
    sync_acquire((char *)bar + 2 * (parity & 1));
}

void fence_proxy_async()
{
    need_cc(90, "fence_proxy_async");
    char *token = &worker->proxy_token[worker->running->lin / 32];
    tsan_release(token);
    as_companion([=] { tsan_acquire(token); });
}

/* ------------------------------------------------------------------- dependent launch */
static std::atomic<unsigned long> n_wait, n_launch;

unsigned long griddep_waits()
{
    return n_wait;
}

unsigned long griddep_launches()
{
    return n_launch;
}

void griddep_wait()
{
    need_cc(90, "griddep_wait");
    n_wait++;
    worker->grid->waits++;
}

void griddep_launch()
{
    need_cc(90, "griddep_launch");
    n_launch++;
}
} // namespace emu
