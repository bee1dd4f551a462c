/* simt.cpp - the scheduler: fibers, the choice of who runs next, shared memory, grids.
 *
 * A block runs on one worker. When all its threads wait for something outside the block (a grid
 * barrier) and other blocks have not begun, the worker asks for a helper that runs one of them,
 * up to as many as the emulated device holds at a time. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core.hpp"

namespace emu {
__thread Ctx *cur;
__thread Worker *worker;
#if defined(EMU_ASAN)
__thread const void *main_stack;
__thread size_t main_size;
#endif

long env_long(const char *name, long fallback)
{
    const char *s = getenv(name);
    return s && *s ? strtol(s, nullptr, 0) : fallback;
}

Options options = {(uint64_t)env_long("EMU_SEED", 0),
                   (int)env_long("EMU_THREADS", 1),
                   (int)env_long("EMU_ORDER", ORDER_FORWARD),
                   (int)env_long("EMU_ASYNC", ASYNC_RANDOM),
                   (int)env_long("EMU_CC", 90),
                   (int)env_long("EMU_SMS", 4),
                   (size_t)env_long("EMU_STACK", SANITIZED ? 262144 : 65536),
                   env_long("EMU_TIMEOUT", 20)};

int device_cc()
{
    return options.cc;
}

void die(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "emu: error: %s\n", text);
    if (cur)
        fprintf(stderr,
                "emu:   in %s block (%u,%u,%u) thread %u (warp %u lane %u), seed %llu\n",
                worker->cfg->name, cur->bid.x, cur->bid.y, cur->bid.z, cur->lin, cur->lin / 32,
                cur->lane, (unsigned long long)options.seed);
    const char *last = nullptr;
    for (int i = 0, n = 0; worker && i < worker->n_thread && n < 6; i++) {
        Fiber *f = &worker->fiber[i];
        if (f->st == DONE || !f->why || f->why == last) continue;
        fprintf(stderr, "emu:   thread %d.. waits in %s\n", i, f->why);
        last = f->why;
        n++;
    }
    fflush(stderr);
    abort();
}

void need_cc(int cc, const char *what)
{
    if (options.cc < cc) die("%s: this device has compute capability %d", what, options.cc);
}

/* ------------------------------------------------------------------------- switching */
#if !defined(__x86_64__)
#error "the emulator switches fibers with x86-64 instructions"
#endif
asm(".text\n.globl emu_switch\n.type emu_switch,@function\nemu_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size emu_switch,.-emu_switch\n");
extern "C" void emu_switch(void **save, void *to);
static void fiber_main();

static void stack_init(Fiber *f)
{
    /* Tops differ modulo 4 KiB, so that stacks do not fight for the same cache lines. */
    char *top = f->stack + options.stack - 64 - (f->lin % 61) * 64;
    void **s = (void **)((uintptr_t)top & ~(uintptr_t)15);
    *--s = nullptr;
    *--s = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--s = nullptr;
    f->sp = s;
}

static void go(Fiber *to)
{
    Worker *w = worker;
    Fiber *me = w->running;
    if (to == me) return;
    w->running = to;
    cur = to == &w->main ? nullptr : to;
    tsan_switch(to->tsan);
    asan_start(me->st == DONE ? nullptr : &me->fake, to->stack, options.stack, to == &w->main);
    emu_switch(&me->sp, to->sp);
    asan_finish(worker->running->fake);
}

/* ------------------------------------------------------------------------ who is next */
uint64_t rng()
{
    uint64_t x = worker->rng;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return worker->rng = x;
}

static double seconds()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static Fiber *pick_ready(Worker *w)
{
    int n = w->ready.size(), best = 0;
    switch (options.order) {
    case ORDER_RANDOM: return w->ready.take((int)(rng() % (unsigned)n));
    case ORDER_REVERSE: return w->ready.take(n - 1);
    case ORDER_PRIORITY: /* one warp as far ahead as it can go */
        if ((rng() & 255) == 0) w->priority[rng() % MAX_WARP] = (unsigned)rng();
        for (int i = 1; i < n; i++)
            if (w->priority[w->ready.at(i)->lin / 32] >
                w->priority[w->ready.at(best)->lin / 32])
                best = i;
        return w->ready.take(best);
    default: return w->ready.pop();
    }
}

/* A round of polling brought nothing: true when the worker should start a helper. */
static bool stuck(Worker *w)
{
    bool external = false;
    for (int i = 0; i < w->poll.n; i++)
        external |= w->poll.v[i]->external;
    if (!external)
        die("deadlock: %d threads wait for mbarriers and nothing is on its way", w->poll.n);
    Grid *g = w->grid;
    if (g->next < g->n_block && g->resident < g->max_resident) return true;
    uint64_t beat = g->beat;
    if (beat != w->beat || w->stuck_rounds++ == 0) {
        w->beat = beat;
        w->stuck_rounds = 1;
        w->stuck_since = seconds();
    } else if (w->stuck_rounds % 256 == 0) {
        double limit =
            g->resident == 1 ? 0.1 * (double)options.timeout : (double)options.timeout;
        if (seconds() - w->stuck_since > limit)
            die("deadlock: %d threads spin and nothing has moved for %g s (%d blocks run, %d "
                "at "
                "most, %llu not begun)",
                w->poll.n, limit, (int)g->resident, g->max_resident,
                (unsigned long long)(g->next < g->n_block ? g->n_block - g->next : 0));
    }
    sched_yield();
    return false;
}

static Fiber *pick()
{
    Worker *w = worker;
    for (;;) {
        if (options.async == ASYNC_RANDOM && w->async.n && (rng() & 7) == 0)
            run_async((int)(rng() % (unsigned)w->async.n));
        if (w->ready.size()) return pick_ready(w);
        if (w->live == 0) {
            if (w->async.n) die("the block ended with %d copies on their way", w->async.n);
            return &w->main;
        }
        if (w->async.n && !w->progress)
            run_async(options.async == ASYNC_RANDOM ? (int)(rng() % (unsigned)w->async.n) : 0);
        if (!w->poll.n)
            die("deadlock: %d live threads wait in barriers or warp-wide instructions",
                w->live);
        if (w->progress) {
            w->stuck_rounds = 0;
            w->grid->beat++;
        } else if (stuck(w)) {
            w->wants_help = true;
            return &w->main;
        }
        w->progress = false;
        for (int i = 0; i < w->poll.n; i++)
            w->ready.push(w->poll.v[i]);
        w->poll.n = 0;
    }
}

void block_on(const char *why)
{
    Fiber *f = worker->running;
    f->st = WAIT;
    f->why = why;
    go(pick());
    f->st = READY;
    f->why = nullptr;
}

void wake(Fiber *f)
{
    worker->ready.push(f);
    worker->progress = true;
}

void poll_wait(const char *why, bool external)
{
    Fiber *f = worker->running;
    f->why = why;
    f->external = external;
    worker->poll.push(f);
    go(pick());
    f->why = nullptr;
}

void spin()
{
    poll_wait("a spinning loop", true);
}

void atomic_point()
{
    if (!cur) return;
    worker->grid->beat++;
    if (options.order == ORDER_FORWARD || rng() & 3) return;
    worker->ready.push(worker->running);
    go(pick());
}

static void fiber_main()
{
    Worker *w = worker;
    Fiber *f = w->running;
    asan_finish(nullptr);
    tsan_acquire(&w->start_token);
    w->grid->thunk(w->grid->arg);
    copy_exit(f);
    warp_exit(f);
    f->st = DONE;
    w->live--;
    w->progress = true;
    bar_exit();
    tsan_release(&w->done_token);
    go(pick());
    __builtin_trap();
}

/* --------------------------------------------------------------------- shared memory */
void *dyn_smem()
{
    return worker->smem;
}

unsigned smem_off(const void *p)
{
    ptrdiff_t d = (const char *)p - worker->smem;
    if (d < 0 || d > (ptrdiff_t)worker->cfg->smem)
        die("address %p is not in dynamic shared memory", p);
    return (unsigned)d + SMEM_BASE;
}

char *smem_ptr(unsigned address, int bytes)
{
    size_t size = worker->cfg->smem;
    if (address < SMEM_BASE || address + (unsigned)bytes > SMEM_BASE + size)
        die("shared address 0x%x (+%d) lies outside the %zu bytes of dynamic shared memory",
            address, bytes, size);
    char *p = worker->smem + (address - SMEM_BASE);
    asan_check(p, (size_t)bytes);
    return p;
}

void poison_region(const void *p, size_t n)
{
    if (worker->running->lin == 0) asan_poison(p, n);
}

/* ---------------------------------------------------------------------------- grids */
static std::mutex pool_mu;
static Worker *pool;

static void *map_memory(size_t n)
{
    void *p = mmap(nullptr, n, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) die("no memory for the emulator");
    return p;
}

static Worker *take_worker(int n_thread)
{
    Worker *w;
    {
        std::lock_guard<std::mutex> lock(pool_mu);
        w = pool;
        if (w) pool = w->next;
    }
    if (!w) {
        w = (Worker *)map_memory(sizeof(Worker));
        w->smem = (char *)map_memory(SMEM_MAX + 4096);
        for (void *&c : w->companion)
            c = tsan_new();
        for (void *&c : w->engine)
            c = tsan_new();
    }
    for (; w->n_stack < n_thread; w->n_stack++) {
        char *s = (char *)map_memory(options.stack + 4096);
        mprotect(s, 4096, PROT_NONE);
        w->fiber[w->n_stack].stack = s + 4096;
        w->fiber[w->n_stack].tsan = tsan_new();
    }
    return w;
}

static void give_worker(Worker *w)
{
    std::lock_guard<std::mutex> lock(pool_mu);
    w->next = pool;
    pool = w;
}

static void fiber_init(Worker *w, int i, uint3 bid)
{
    Fiber *f = &w->fiber[i];
    dim3 b = w->cfg->block;
    char *stack = f->stack;
    void *tsan = f->tsan;
    *f = Fiber();
    f->stack = stack;
    f->tsan = tsan;
    f->lin = (unsigned)i;
    f->lane = (unsigned)i % 32;
    f->tid = {(unsigned)i % b.x, (unsigned)i / b.x % b.y, (unsigned)i / b.x / b.y};
    f->bid = bid;
    f->bdim = b;
    f->gdim = w->cfg->grid;
    f->copy = w->copy[i];
    stack_init(f);
    w->ready.push(f);
}

static void block_init(Worker *w, uint64_t block)
{
    const LaunchCfg *c = w->cfg;
    w->rng = (options.seed + 1) * 0x9e3779b97f4a7c15ull ^ (block + 1) * 0xbf58476d1ce4e5b9ull;
    if (!w->rng) w->rng = 1;
    asan_unpoison(w->smem, SMEM_MAX + 4096);
    memset(w->smem, 0xff, c->smem); /* NaN: nothing is zero by luck */
    asan_poison(w->smem + c->smem, SMEM_MAX + 4096 - c->smem);
    for (Warp &q : w->warp) {
        q.used = 0;
        q.wgmma.n = q.group = q.seq = 0;
        q.fenced = false;
    }
    for (Barrier &b : w->bar)
        b.n = b.votes = b.waiting.n = 0;
    for (auto &h : w->history)
        for (auto &q : h)
            q.seq = 0;
    for (unsigned &p : w->priority)
        p = (unsigned)(rng() >> 32);
    w->ready.head = w->ready.tail = 0;
    w->poll.n = w->async.n = 0;
    w->live = w->n_thread;
    w->unfenced = 0;
    w->progress = w->wants_help = false;
    w->stuck_rounds = 0;
    uint3 bid = {(unsigned)(block % c->grid.x), (unsigned)(block / c->grid.x % c->grid.y),
                 (unsigned)(block / c->grid.x / c->grid.y)};
    for (int i = 0; i < w->n_thread; i++)
        fiber_init(w, i, bid);
}

static void work(Grid *g);

static void start_helper(Grid *g)
{
    std::lock_guard<std::mutex> lock(g->mu);
    if (g->resident >= g->max_resident || g->next >= g->n_block) return;
    if (g->helpers.size() + 1 >= g->n_block) return; /* enough are on their way */
    g->resident++;
    g->helpers.emplace_back(work, g);
}

static void run_block(Worker *w, uint64_t block)
{
    block_init(w, block);
    tsan_release(&w->start_token);
    w->running = &w->main;
    w->main.tsan = tsan_current();
    go(pick());
    while (w->wants_help) { /* the block waits for blocks that have not begun */
        w->wants_help = false;
        start_helper(w->grid);
        go(pick());
    }
    tsan_acquire(&w->done_token);
    w->grid->beat++;
}

/* Block i of the order of this run: a bijection on 0 .. n - 1. */
static uint64_t block_at(uint64_t i, uint64_t n)
{
    if (options.order == ORDER_REVERSE) return n - 1 - i;
    if (options.order == ORDER_FORWARD) return i;
    uint64_t step = 0x9e3779b97f4a7c15ull * (options.seed + 1) % n | 1;
    for (;; step++) { /* coprime to n */
        uint64_t a = step, b = n;
        while (b) {
            uint64_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1) break;
    }
    return (i * step + options.seed) % n;
}

static void work(Grid *g)
{
    Worker *w = take_worker(g->n_thread);
    worker = w;
    w->grid = g;
    w->cfg = g->cfg;
    w->n_thread = g->n_thread;
    for (uint64_t i; (i = g->next++) < g->n_block;)
        run_block(w, block_at(i, g->n_block));
    g->resident--;
    worker = nullptr;
    cur = nullptr;
    give_worker(w);
}

int blocks_per_sm(int n_thread, size_t smem)
{
    size_t room = (options.cc >= 90 ? 228 : options.cc == 80 ? 164 : 100) * 1024;
    int by_smem = (int)(room / (smem + 1024)), by_threads = 2048 / ((n_thread + 31) / 32 * 32);
    int n = by_smem < by_threads ? by_smem : by_threads;
    return n < 1 ? 1 : n > 32 ? 32 : n;
}

void run_grid(const LaunchCfg &cfg, void (*thunk)(void *), void *arg)
{
    Grid g;
    g.cfg = &cfg;
    g.thunk = thunk;
    g.arg = arg;
    g.n_block = (uint64_t)cfg.grid.x * cfg.grid.y * cfg.grid.z;
    g.n_thread = (int)(cfg.block.x * cfg.block.y * cfg.block.z);
    g.max_resident = options.sms * blocks_per_sm(g.n_thread, cfg.smem);
    g.next = g.beat = g.waits = 0;
    int n = options.threads;
    if ((uint64_t)n > g.n_block) n = (int)g.n_block;
    if (n < 1) n = 1;
    g.resident = n;
    {
        std::lock_guard<std::mutex> lock(g.mu);
        for (int i = 1; i < n; i++)
            g.helpers.emplace_back(work, &g);
    }
    work(&g);
    for (size_t i = 0;; i++) { /* a helper may still start another one */
        std::thread t;
        {
            std::lock_guard<std::mutex> lock(g.mu);
            if (i == g.helpers.size()) break;
            t = std::move(g.helpers[i]);
        }
        t.join();
    }
    if (cfg.dependent && !g.waits)
        die("%s was launched with GPU_LAUNCH_PDL and never called griddep_wait", cfg.name);
}
} // namespace emu
