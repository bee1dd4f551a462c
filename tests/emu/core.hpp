/* core.hpp - the emulator's state, shared by simt.cpp, sync.cpp, copy.cpp and matrix.cpp.
 *
 * Nothing here allocates or calls libc in a fiber: the sanitizers intercept both and would
 * charge them to the CUDA thread. Hence tables of fixed length and workers in mapped, zeroed
 * memory. */
#ifndef TESTS_EMU_CORE_HPP
#define TESTS_EMU_CORE_HPP

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "sanitize.hpp"
#include "simt.hpp"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace emu {
enum {
    SMEM_BASE = 0x400,             /* of the shared window: 0 is no valid address */
    SMEM_MAX = 232448 + 28 * 1024, /* 227 KiB, and room for red zones */
    MAX_THREAD = 1024,
    MAX_WARP = 32,
    MAX_ENGINE = 16, /* contexts that stand for TMA */
    MAX_COPY = 256,  /* cp.async in flight of a thread */
    MAX_ASYNC = 4096,
    MAX_WGMMA = 64, /* in flight of a warp */
};

/* The environment, read once. */
enum order { ORDER_FORWARD, ORDER_RANDOM, ORDER_REVERSE, ORDER_PRIORITY };
enum async { ASYNC_RANDOM, ASYNC_EAGER, ASYNC_LAZY };
struct Options {
    uint64_t seed;
    int threads, order, async, cc, sms;
    size_t stack;
    long timeout; /* s */
};
extern Options options;
long env_long(const char *name, long fallback);

template <class T, int N> struct Table {
    int n;
    T v[N];
    void push(T x)
    {
        if (n == N) die("emulator: a table of %d entries is full", N);
        v[n++] = x;
    }
    T take(int i)
    {
        T x = v[i];
        v[i] = v[--n];
        return x;
    }
};

enum state : char { READY, WAIT, DONE };

/* A cp.async in flight. bytes 0: landed already, only its wait is open. */
struct CopyOp {
    char *s;
    const char *g;
    int bytes, source; /* source 0: zeros */
    int group;
    unsigned seq;
};

struct Fiber : Ctx {
    void *sp;
    char *stack;
    void *tsan, *fake;
    const char *why; /* what it waits for */
    state st;
    bool external; /* waits for something outside the block */
    int vote;
    int copy_group, n_copy;
    unsigned copy_seq, copy_marked; /* next cp.async; first that no mbarrier covers */
    CopyOp *copy;                   /* elsewhere: this struct stays small */
    int bulk_group, bulk_used, bulk_waited;
};

template <int N> struct Ring {
    unsigned head, tail;
    Fiber *v[N];
    int size() { return (int)(tail - head); }
    Fiber *at(int i) { return v[(head + i) % N]; }
    void push(Fiber *f) { v[tail++ % N] = f; }
    Fiber *pop() { return v[head++ % N]; }
    Fiber *take(int i)
    {
        Fiber *f = at(i);
        v[(head + i) % N] = v[--tail % N];
        return f;
    }
};

/* A barrier of the block. expect < 0: all threads that have not exited. */
struct Barrier {
    int n, expect, votes;
    Table<Fiber *, MAX_THREAD> waiting;
};

/* Lanes that meet in a warp-wide instruction. */
struct Warp;
struct Meeting {
    unsigned mask, arrived;
    const char *what;
    Warp *warp;
    void *pay[32];
    Fiber *lane[32];
};

struct WgmmaForm {
    uint64_t da, db;
    int n, type, ta, tb, scale_d, a_regs;
};

struct WgmmaOp : WgmmaForm {
    int group;
    float *d[32];
    const uint32_t *regs[32]; /* A in registers, and what they held at the issue */
    uint32_t a[32][4];
};

struct Warp {
    unsigned used; /* of meeting */
    Meeting meeting[32];
    Table<WgmmaOp, MAX_WGMMA> wgmma;
    int group, seq;
    bool fenced;
    bool fenced_regs; /* since registers of A may have been written */
};

/* A copy on its way: a TMA box, a plain bulk copy, or a thread's cp.async with their mbarrier.
 */
enum async_kind { TMA_LOAD, TMA_STORE, BULK_LOAD, COPY_ARRIVE };
struct AsyncOp {
    int kind;
    void *ctx; /* TSan context that performs it */
    Fiber *owner;
    unsigned smem;
    int at[3];
    const char *global;
    unsigned bytes, seq;
    int group;
    uint64_t *bar;
    uint64_t map[16]; /* a copy: the issuing fiber's stack may be gone */
};

/* One launch; workers take blocks from it. */
struct Grid {
    const LaunchCfg *cfg;
    void (*thunk)(void *);
    void *arg;
    uint64_t n_block;
    int n_thread;
    int max_resident;
    std::atomic<uint64_t> next, beat, waits;
    std::atomic<int> resident;
    std::mutex mu;
    std::vector<std::thread> helpers;
};

struct Worker {
    Fiber main, fiber[MAX_THREAD];
    Warp warp[MAX_WARP];
    Barrier bar[16];
    Fiber *running;
    Ring<MAX_THREAD> ready;
    Table<Fiber *, MAX_THREAD> poll;
    Table<AsyncOp, MAX_ASYNC> async;
    CopyOp copy[MAX_THREAD][MAX_COPY];
    char *smem;
    Grid *grid;
    const LaunchCfg *cfg;
    Worker *next;
    int n_thread, n_stack, live;
    bool progress, wants_help;
    uint64_t beat;
    double stuck_since;
    long stuck_rounds;
    uint64_t rng;
    unsigned unfenced; /* mbarriers initialised since the last fence */
    unsigned priority[MAX_WARP];
    /* TSan: tokens, and contexts for TMA and for each warp's wgmma */
    char start_token, done_token, tma_token;
    char proxy_token[MAX_WARP], wgmma_token[MAX_WARP];
    void *engine[MAX_ENGINE], *companion[MAX_WARP];
    unsigned next_engine;
    struct {
        uint64_t a, b, form;
        int seq;
    } history[MAX_WARP / 4][64]; /* the last wgmmas of each warpgroup */
};
extern __thread Worker *worker;

/* simt.cpp */
uint64_t rng();
void block_on(const char *why); /* until wake() */
void wake(Fiber *f);
void poll_wait(const char *why, bool external); /* one turn of waiting */
char *smem_ptr(unsigned address, int bytes);
void need_cc(int cc, const char *what);

/* sync.cpp */
void bar_exit();          /* a thread ended: the others may be complete now */
void warp_exit(Fiber *f); /* its warp may not wait for it */
void mbar_complete(uint64_t *bar, unsigned bytes);
void mbar_count(uint64_t *bar, const char *what); /* one plain arrival without an order */
typedef void (*warp_fn)(Meeting *);
/* Every lane of mask posts `pay`; the last one runs fn for all. Nobody goes on before that. */
void warp_meet(unsigned mask, const char *what, bool sync, void *pay, warp_fn fn);

/* copy.cpp */
void run_async(int i);
void copy_exit(Fiber *f);
unsigned swizzle(unsigned address,
                 int mode); /* mode as a tensor map counts: 1 32, 2 64, 3 128 */

/* Memory of the CUDA program, moved without libc. */
static inline void raw_set(void *p, int c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile char *)p)[i] = (char)c;
}
static inline void raw_copy(void *d, const void *s, size_t n)
{
    if (((uintptr_t)d | (uintptr_t)s | n) % 8 == 0) {
        for (size_t i = 0; i < n / 8; i++)
            ((volatile uint64_t *)d)[i] = ((const uint64_t *)s)[i];
        return;
    }
    for (size_t i = 0; i < n; i++)
        ((volatile char *)d)[i] = ((const char *)s)[i];
}

/* A warp's companion context stands for what its accesses through the async proxy (wgmma, TMA
 * stores) may see. A token has a second half at + 4 for the companions; only fence.proxy.async
 * moves what a thread knows into its companion. */
template <class F> static inline void as_companion(F fn)
{
    if (TSAN) tsan_as(worker->companion[worker->running->lin / 32], fn);
}
static inline void sync_release(void *token)
{
    if (!TSAN) return;
    tsan_release(token);
    as_companion([=] { tsan_release((char *)token + 4); });
}
static inline void sync_acquire(void *token)
{
    if (!TSAN) return;
    tsan_acquire(token);
    as_companion([=] { tsan_acquire((char *)token + 4); });
}
/* Whoever completes a barrier acquires for all who wait, at that moment. Acquiring when they
 * resume would also take what faster threads released in the next phase, and hide a race there.
 */
static inline void acquire_for(Fiber *f, void *token)
{
    if (!TSAN) return;
    tsan_as(f->tsan, [=] { tsan_acquire(token); });
    tsan_as(worker->companion[f->lin / 32], [=] { tsan_acquire((char *)token + 4); });
}
} // namespace emu

#endif
