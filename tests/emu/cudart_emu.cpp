/* cudart_emu.cpp - a stand-in for the CUDA runtime library, with NVIDIA's headers and names:
 * link it instead of libcudart.
 *
 * Device memory is heap memory filled with NaN, a stream is a host thread with a queue: a host
 * that reads before it synchronises is a data race to ThreadSanitizer. Under AddressSanitizer
 * device memory is poisoned whenever no stream runs an operation, so a host that dereferences a
 * device pointer is caught too. A captured graph is the list of the captured operations in the
 * order of the calls. The default stream is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "simt.hpp"

typedef std::function<void()> Op;

struct CUgraph_st {
    std::vector<Op> ops;
};
struct CUgraphExec_st {
    std::vector<Op> ops;
};

struct CUevent_st {
    std::mutex m;
    std::condition_variable changed;
    uint64_t recorded = 0, done = 0;
    std::chrono::steady_clock::time_point time;
    CUgraph_st *capture = nullptr; /* recorded while this was captured */
};

struct CUstream_st {
    std::mutex m;
    std::condition_variable changed;
    std::deque<Op> queue;
    bool busy = false, stop = false, blocking;
    int device;
    CUgraph_st *capture = nullptr;
    std::thread thread;
    CUstream_st(int index, bool is_blocking);
    ~CUstream_st();
    void run();
};

static std::mutex mu;
static std::set<cudaStream_t> streams;
static std::map<const void *, size_t> smem_limit;
static std::map<char *, size_t> allocations;
static int n_capture;
static thread_local cudaError_t last_error;
static thread_local int current_device;

static long setting(const char *name, long fallback)
{
    const char *s = getenv(name);
    return s && *s ? strtol(s, nullptr, 0) : fallback;
}

static cudaError_t ret(cudaError_t error)
{
    if (error != cudaSuccess) last_error = error;
    return error;
}

/* While one of these lives, device memory may be touched. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
static int users;
static std::mutex users_mu;
static void set_access(bool open)
{
    std::lock_guard<std::mutex> lock(mu);
    for (auto &a : allocations) {
        if (open)
            __asan_unpoison_memory_region(a.first, a.second);
        else
            __asan_poison_memory_region(a.first, a.second);
    }
}
struct Access {
    Access()
    {
        std::lock_guard<std::mutex> lock(users_mu);
        if (!users++) set_access(true);
    }
    ~Access()
    {
        std::lock_guard<std::mutex> lock(users_mu);
        if (!--users) set_access(false);
    }
};
#else
struct Access {
    Access() {}
    ~Access() {}
};
#endif

/* ThreadSanitizer: a host that waits for a stream learns what the stream did, and tells it
 * nothing. The lock alone would order what the host did before, and hide a read that came too
 * early. */
#if defined(__SANITIZE_THREAD__)
extern "C" {
void AnnotateIgnoreSyncBegin(const char *file, int line);
void AnnotateIgnoreSyncEnd(const char *file, int line);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void __tsan_acquire(void *token);
void __tsan_release(void *token);
}
struct OneWay {
    void *token;
    explicit OneWay(void *t) : token(t)
    {
        AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__); /* of the queue, under its lock */
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~OneWay()
    {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
        AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
        __tsan_acquire(token);
    }
};
static void tell_waiters(void *token)
{
    __tsan_release(token);
}
#else
struct OneWay {
    explicit OneWay(void *) {}
    ~OneWay() {}
};
static void tell_waiters(void *) {}
#endif

/* --------------------------------------------------------------------------- streams */
CUstream_st::CUstream_st(int index, bool is_blocking) : blocking(is_blocking), device(index)
{
    thread = std::thread([this] { run(); });
}

CUstream_st::~CUstream_st()
{
    {
        std::lock_guard<std::mutex> lock(m);
        stop = true;
    }
    changed.notify_all();
    thread.join();
}

void CUstream_st::run()
{
    static const long jitter = setting("EMU_JITTER_US", 0);
    unsigned seed = 1;
    for (;;) {
        Op op;
        {
            std::unique_lock<std::mutex> lock(m);
            changed.wait(lock, [&] { return stop || !queue.empty(); });
            if (queue.empty()) return;
            op = std::move(queue.front());
            queue.pop_front();
            busy = true;
        }
        if (jitter) usleep((unsigned)(rand_r(&seed) % jitter));
        op();
        op = nullptr;
        tell_waiters(this);
        {
            std::lock_guard<std::mutex> lock(m);
            busy = false;
        }
        changed.notify_all();
    }
}

static cudaStream_t need(cudaStream_t s)
{
    if (!s || s == cudaStreamLegacy || s == cudaStreamPerThread)
        emu::die("the default stream is not emulated: pass a stream");
    return s;
}

static void push(cudaStream_t s, Op op)
{
    {
        std::lock_guard<std::mutex> lock(s->m);
        s->queue.push_back(std::move(op));
    }
    s->changed.notify_all();
}

/* Queues op, or puts it into the graph that the stream captures. */
static cudaError_t later(cudaStream_t s, Op op)
{
    Op guarded = [op] {
        Access access;
        op();
    };
    if (need(s)->capture)
        s->capture->ops.push_back(guarded);
    else
        push(s, guarded);
    return cudaSuccess;
}

static void drain(cudaStream_t s)
{
    OneWay way(s);
    std::unique_lock<std::mutex> lock(s->m);
    s->changed.wait(lock, [&] { return s->queue.empty() && !s->busy; });
}

static void drain_all(bool only_blocking)
{
    std::set<cudaStream_t> copy;
    {
        std::lock_guard<std::mutex> lock(mu);
        copy = streams;
    }
    for (cudaStream_t s : copy)
        if (s->device == current_device && (s->blocking || !only_blocking)) drain(s);
}

namespace emu {
cudaError_t enqueue(cudaStream_t s, void (*fn)(void *), void *arg, void (*del)(void *))
{
    std::shared_ptr<void> job(arg, del);
    return later(s, [fn, job] { fn(job.get()); });
}

static size_t smem_optin()
{
    int cc = device_cc();
    return cc >= 90 ? 232448 : cc == 80 || cc == 87 ? 166912 : 101376;
}
/* Red zones between arrays do not count against the device's limit. */
enum { RED_ZONES = 28 * 1024 };

cudaError_t check_launch(dim3 g, dim3 b, size_t smem, const void *kernel)
{
    uint64_t n = (uint64_t)b.x * b.y * b.z;
    if (!g.x || !g.y || !g.z || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535 || n == 0 ||
        n > 1024 || b.z > 64)
        return ret(cudaErrorInvalidConfiguration);
    std::lock_guard<std::mutex> lock(mu);
    auto i = smem_limit.find(kernel);
    size_t limit = i == smem_limit.end() ? 48 << 10 : i->second;
    return smem > limit ? ret(cudaErrorInvalidValue) : cudaSuccess;
}
} // namespace emu

extern "C" {
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    *s = new CUstream_st(current_device, !(flags & cudaStreamNonBlocking));
    std::lock_guard<std::mutex> lock(mu);
    streams.insert(*s);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *s)
{
    return cudaStreamCreateWithFlags(s, 0);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(s, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = *greatest = 0;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    {
        std::lock_guard<std::mutex> lock(mu);
        if (!streams.erase(s)) return ret(cudaErrorInvalidResourceHandle);
    }
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (need(s)->capture) return ret(cudaErrorStreamCaptureUnsupported);
    drain(s);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t s)
{
    std::lock_guard<std::mutex> lock(need(s)->m);
    return s->queue.empty() && !s->busy ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize(void)
{
    if (n_capture) return ret(cudaErrorStreamCaptureUnsupported);
    drain_all(false);
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *user)
{
    if (need(s)->capture) {
        s->capture->ops.push_back([=] { fn(user); });
        return cudaSuccess;
    }
    push(s, [=] { fn(user); }); /* a host function has no access to device memory */
    return cudaSuccess;
}

/* ---------------------------------------------------------------------------- events */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new CUevent_st();
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    return cudaEventCreateWithFlags(e, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    e->capture = need(s)->capture;
    if (e->capture) return cudaSuccess; /* the list of operations is an order already */
    uint64_t number;
    {
        std::lock_guard<std::mutex> lock(e->m);
        number = ++e->recorded;
    }
    push(s, [=] {
        /* Notified inside the lock: a waiter may destroy the event at once. */
        std::lock_guard<std::mutex> lock(e->m);
        e->time = std::chrono::steady_clock::now();
        if (e->done < number) e->done = number;
        tell_waiters(e);
        e->changed.notify_all();
    });
    return cudaSuccess;
}
static void event_wait(cudaEvent_t e, uint64_t number)
{
    OneWay way(e);
    std::unique_lock<std::mutex> lock(e->m);
    e->changed.wait(lock, [&] { return e->done >= number; });
}
static uint64_t event_number(cudaEvent_t e)
{
    std::lock_guard<std::mutex> lock(e->m);
    return e->recorded;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    if (e->capture) { /* the stream joins the capture */
        if (need(s)->capture && s->capture != e->capture)
            return ret(cudaErrorStreamCaptureMerge);
        s->capture = e->capture;
        return cudaSuccess;
    }
    if (need(s)->capture) return ret(cudaErrorStreamCaptureIsolation);
    uint64_t number = event_number(e);
    push(s, [=] { event_wait(e, number); });
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (e->capture) return ret(cudaErrorCapturedEvent);
    event_wait(e, event_number(e));
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    std::lock_guard<std::mutex> lock(e->m);
    return e->done >= e->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b)
{
    std::scoped_lock lock(a->m, b->m);
    if (a->done < a->recorded || b->done < b->recorded) return ret(cudaErrorNotReady);
    *ms = std::chrono::duration<float, std::milli>(b->time - a->time).count();
    return cudaSuccess;
}

/* ---------------------------------------------------------------------------- graphs */
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode)
{
    if (need(s)->capture) return ret(cudaErrorIllegalState);
    s->capture = new CUgraph_st();
    std::lock_guard<std::mutex> lock(mu);
    n_capture++;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    *graph = need(s)->capture;
    if (!*graph) return ret(cudaErrorIllegalState);
    std::lock_guard<std::mutex> lock(mu);
    n_capture--;
    for (cudaStream_t other : streams)
        if (other->capture == *graph) other->capture = nullptr;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status)
{
    *status = need(s)->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n)
{
    if (nodes) return ret(cudaErrorNotSupported);
    *n = graph->ops.size();
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = new CUgraphExec_st{graph->ops};
    return cudaSuccess;
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo *info)
{
    exec->ops = graph->ops;
    if (info) info->result = cudaGraphExecUpdateSuccess;
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    if (need(s)->capture) return ret(cudaErrorStreamCaptureUnsupported);
    for (const Op &op : exec->ops)
        push(s, op);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

/* ---------------------------------------------------------------------------- memory */
cudaError_t cudaMalloc(void **p, size_t n)
{
    void *q = nullptr;
    if (n_capture) return ret(cudaErrorStreamCaptureUnsupported);
    if (posix_memalign(&q, 256, n ? n : 1)) return ret(cudaErrorMemoryAllocation);
    memset(q, 0xff, n);
    *p = q;
    {
        std::lock_guard<std::mutex> lock(mu);
        allocations[(char *)q] = n;
    }
    Access access; /* leaves the new memory closed */
    return cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    if (!p) return cudaSuccess;
    if (n_capture) return ret(cudaErrorStreamCaptureUnsupported);
    drain_all(false);
    {
        Access access;
        std::lock_guard<std::mutex> lock(mu);
        if (!allocations.erase((char *)p)) return ret(cudaErrorInvalidValue);
    }
    free(p);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
    if (posix_memalign(p, 256, n ? n : 1)) return ret(cudaErrorMemoryAllocation);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t n)
{
    return cudaHostAlloc(p, n, 0);
}
cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}
cudaError_t cudaHostRegister(void *, size_t, unsigned)
{
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *)
{
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, enum cudaMemcpyKind,
                            cudaStream_t stream)
{
    return later(stream, [=] { memcpy(d, s, n); });
}
cudaError_t cudaMemcpy2DAsync(void *d, size_t d_pitch, const void *s, size_t s_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind,
                              cudaStream_t stream)
{
    if (width > d_pitch || width > s_pitch) return ret(cudaErrorInvalidValue);
    return later(stream, [=] {
        for (size_t i = 0; i < height; i++)
            memcpy((char *)d + i * d_pitch, (const char *)s + i * s_pitch, width);
    });
}
cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t stream)
{
    return later(stream, [=] { memset(d, v, n); });
}
cudaError_t cudaMemcpy(void *d, const void *s, size_t n, enum cudaMemcpyKind)
{
    if (n_capture) return ret(cudaErrorStreamCaptureUnsupported);
    drain_all(true);
    Access access;
    memcpy(d, s, n);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *d, int v, size_t n)
{
    if (n_capture) return ret(cudaErrorStreamCaptureUnsupported);
    drain_all(true);
    Access access;
    memset(d, v, n);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *available = *total = (size_t)8 << 30;
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p)
{
    memset(a, 0, sizeof *a);
    std::lock_guard<std::mutex> lock(mu);
    auto i = allocations.upper_bound((char *)p);
    if (i == allocations.begin()) return cudaSuccess;
    --i;
    if ((char *)p >= i->first + i->second) return cudaSuccess;
    a->type = cudaMemoryTypeDevice;
    a->devicePointer = (void *)p;
    return cudaSuccess;
}

/* --------------------------------------------------------------------------- devices */
cudaError_t cudaGetDeviceCount(int *n)
{
    *n = (int)setting("EMU_DEVICES", 1);
    return *n ? cudaSuccess : ret(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int index)
{
    if (index < 0 || index >= setting("EMU_DEVICES", 1)) return ret(cudaErrorInvalidDevice);
    current_device = index;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *index)
{
    *index = current_device;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr attribute, int)
{
    int cc = emu::device_cc();
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *v = cc / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *v = cc % 10; break;
    case cudaDevAttrMultiProcessorCount: *v = (int)setting("EMU_SMS", 4); break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 48 << 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = (int)emu::smem_optin(); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = (int)emu::smem_optin() + 1024; break;
    case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 2048; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *v = 65536; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrL2CacheSize: *v = 50 << 20; break;
    case cudaDevAttrClockRate: *v = 1000000; break;
    case cudaDevAttrMemoryClockRate: *v = 1000000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *v = 1024; break;
    default: return ret(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    int optin, sms;
    if (device < 0 || device >= setting("EMU_DEVICES", 1)) return ret(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "SIMT emulator");
    cudaDeviceGetAttribute(&optin, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
    p->major = emu::device_cc() / 10;
    p->minor = emu::device_cc() % 10;
    p->multiProcessorCount = sms;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = (size_t)optin;
    p->sharedMemPerMultiprocessor = (size_t)optin + 1024;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->regsPerMultiprocessor = 65536;
    p->l2CacheSize = 50 << 20;
    p->totalGlobalMem = (size_t)8 << 30;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *id, int n, int device)
{
    if (device < 0 || device >= setting("EMU_DEVICES", 1)) return ret(cudaErrorInvalidDevice);
    snprintf(id, (size_t)n, "0000:%02x:00.0", device);
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v)
{
    *v = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int v)
{
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (v < 0 || (size_t)v > emu::smem_optin() + emu::RED_ZONES)
        return ret(cudaErrorInvalidValue);
    std::lock_guard<std::mutex> lock(mu);
    smem_limit[kernel] = (size_t)v;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *,
                                                                   int block, size_t smem,
                                                                   unsigned)
{
    if (block < 1 || block > 1024) return ret(cudaErrorInvalidValue);
    *n = emu::blocks_per_sm(block, smem);
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *kernel, int block,
                                                          size_t smem)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(n, kernel, block, smem, 0);
}

/* ---------------------------------------------------------------------------- errors */
cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}
static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
};
const char *cudaGetErrorString(cudaError_t error)
{
    for (auto &e : errors)
        if (e.error == error) return e.text;
    return "an error that the emulator has no words for";
}
const char *cudaGetErrorName(cudaError_t error)
{
    for (auto &e : errors)
        if (e.error == error) return e.name;
    return "cudaErrorUnknown";
}

/* ---------------------------------------------------------------------------- driver */
CUresult CUDAAPI emu_cuTensorMapEncodeTiled(CUtensorMap *, CUtensorMapDataType, cuuint32_t,
                                            void *, const cuuint64_t *, const cuuint64_t *,
                                            const cuuint32_t *, const cuuint32_t *,
                                            CUtensorMapInterleave, CUtensorMapSwizzle,
                                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **fn, unsigned,
                                             unsigned long long,
                                             enum cudaDriverEntryPointQueryResult *result)
{
    bool known = !strcmp(symbol, "cuTensorMapEncodeTiled") && emu::device_cc() >= 90;
    *fn = known ? (void *)emu_cuTensorMapEncodeTiled : nullptr;
    if (result)
        *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
}
