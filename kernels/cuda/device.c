/* device.c - a GPU as a device: a stream, memory, scratch; and the table of its operations.
 *
 * The CUDA runtime is linked statically and finds the driver itself, so a program with this
 * backend starts on a machine that has neither GPU nor driver and then counts no devices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/plan.h"

enum { OLDEST_SM = 80, STAGING_BYTES = 1 << 20, STAGING_ALIGN = 64 };

pm_status cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return PM_OK;
    if (error == cudaErrorMemoryAllocation) {
        return fail(PM_ERR_NOMEM, "cuda: %s: %s", what, cudaGetErrorString(error));
    }
    return fail(PM_ERR_DEVICE, "cuda: %s: %s", what, cudaGetErrorString(error));
}

/* A driver that is absent or too old for the runtime is no GPU: 0 and its words. */
static int cuda_count(const char **why)
{
    int n = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        n = 0;
    }
    if (why) *why = error == cudaSuccess ? "" : cudaGetErrorString(error);
    return n;
}

static void cuda_close(struct device *d)
{
    if (!d) return;
    cuda_facts_close(d);
    if (d->own) cudaStreamSynchronize(d->own);
    if (d->scratch) cudaFree(d->scratch); /* waits for the caller's streams */
    if (d->barrier) cudaFree(d->barrier);
    if (d->staging) cudaFreeHost(d->staging);
    if (d->own) cudaStreamDestroy(d->own);
    free(d);
}

static pm_status attribute(int *out, enum cudaDeviceAttr which, int index)
{
    return cuda_check(cudaDeviceGetAttribute(out, which, index), "reading a device attribute");
}

static pm_status read_properties(struct device *d)
{
    struct cudaDeviceProp p;
    int major, minor, smem;
    TRY(attribute(&major, cudaDevAttrComputeCapabilityMajor, d->index));
    TRY(attribute(&minor, cudaDevAttrComputeCapabilityMinor, d->index));
    TRY(attribute(&d->n_sm, cudaDevAttrMultiProcessorCount, d->index));
    TRY(attribute(&smem, cudaDevAttrMaxSharedMemoryPerBlockOptin, d->index));
    TRY(cuda_check(cudaGetDeviceProperties(&p, d->index), "reading device properties"));
    d->sm = 10 * major + minor;
    d->smem_block = (size_t)smem;
    snprintf(d->text, sizeof d->text, "cuda:%d %.80s, sm_%d, %d SMs", d->index, p.name, d->sm,
             d->n_sm);
    if (d->sm < OLDEST_SM) {
        return fail(PM_ERR_UNSUPPORTED,
                    "%s: found compute capability %d.%d, wanted 8.0 or newer", d->text, major,
                    minor);
    }
    return PM_OK;
}

static pm_status cuda_open(struct device **out, int index, int n_thread)
{
    struct device *d;
    const char *why;
    pm_status status;
    int n = cuda_count(&why);
    (void)n_thread;
    if (index < 0 || index >= n) {
        return fail(PM_ERR_ARG, "cuda:%d: found %d CUDA devices%s%s", index, n,
                    *why ? ": " : "", why);
    }
    TRY(alloc_array(&d, 1, sizeof *d, "device"));
    d->index = index;
    TRY_DONE(cuda_check(cudaSetDevice(index), "choosing the device"));
    TRY_DONE(read_properties(d));
    TRY_DONE(cuda_check(cudaStreamCreateWithFlags(&d->own, cudaStreamNonBlocking),
                        "making a stream"));
    d->stream = d->own;
    TRY_DONE(cuda_check(cudaMallocHost((void **)&d->staging, STAGING_BYTES), "staging memory"));
    TRY_DONE(cuda_check(cudaMalloc((void **)&d->barrier, 2 * sizeof *d->barrier), "barrier"));
    TRY_DONE(cuda_check(cudaMemsetAsync(d->barrier, 0, 2 * sizeof *d->barrier, d->own),
                        "clearing the barrier"));
    TRY_DONE(cuda_check(cudaStreamSynchronize(d->own), "clearing the barrier"));
    *out = d;
    d = NULL;
done:
    cuda_close(d);
    return status;
}

/* Zeroed, as on the CPU: what a cache holds before its first write must be finite. */
static pm_status cuda_alloc(struct device *d, void **out, size_t bytes, const char *what)
{
    void *p;
    pm_status status;
    if (bytes == 0) bytes = 1;
    if (cudaMalloc(&p, bytes) != cudaSuccess) {
        size_t left = 0, all = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&left, &all);
        return fail(PM_ERR_NOMEM, "%s: no memory for %zu bytes on %s (%zu of %zu are free)",
                    what, bytes, d->text, left, all);
    }
    status = cuda_check(cudaMemsetAsync(p, 0, bytes, d->stream), "clearing memory");
    if (status == PM_OK) {
        *out = p;
    } else {
        cudaFree(p);
    }
    return status;
}

static void cuda_free(struct device *d, void *p)
{
    if (!p) return;
    cudaStreamSynchronize(d->own); /* a stream of the caller's may be gone; cudaFree waits */
    cudaFree(p);
}

static pm_status cuda_sync(struct device *d)
{
    TRY(cuda_check(cudaStreamSynchronize(d->stream), "waiting for the device"));
    d->staged = 0;
    return PM_OK;
}

/* The caller's bytes are its own again at once: small ones wait in page-locked memory for the
 * copy, which is reused when it is full and the stream has drained; large ones are waited for.
 */
static pm_status cuda_upload(struct device *d, void *to, const void *from, size_t bytes)
{
    const void *source = from;
    bool small = bytes <= STAGING_BYTES / 4;
    if (bytes == 0) return PM_OK;
    /* Kernels run on the calling thread's device; each step begins with an upload. */
    TRY(cuda_check(cudaSetDevice(d->index), "choosing the device"));
    if (small) {
        if (bytes > STAGING_BYTES - d->staged) TRY(cuda_sync(d));
        source = memcpy(d->staging + d->staged, from, bytes);
        d->staged += (bytes + STAGING_ALIGN - 1) / STAGING_ALIGN * STAGING_ALIGN;
    }
    TRY(cuda_check(cudaMemcpyAsync(to, source, bytes, cudaMemcpyHostToDevice, d->stream),
                   "upload"));
    return small ? PM_OK : cuda_sync(d);
}

static pm_status cuda_download(struct device *d, void *to, const void *from, size_t bytes)
{
    if (bytes) {
        TRY(cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream),
                       "download"));
    }
    return cuda_sync(d);
}

/* Kernels go to the thread's current device, which must be that of the stream. */
static pm_status cuda_set_stream(struct device *d, void *stream)
{
    TRY(cuda_check(cudaSetDevice(d->index), "choosing the device"));
    if (d->staged) TRY(cuda_sync(d));
    d->stream = stream;
    return PM_OK;
}

static void *cuda_stream(struct device *d)
{
    return d->stream;
}

static pm_status cuda_clear(struct device *d, void *p, size_t bytes)
{
    if (bytes == 0) return PM_OK;
    return cuda_check(cudaMemsetAsync(p, 0, bytes, d->stream), "clearing memory");
}

static pm_status cuda_record_begin(struct device *d)
{
    return cuda_check(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal),
                      "recording a step");
}

static pm_status cuda_record_end(struct device *d, void **out)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    pm_status status = cuda_check(cudaStreamEndCapture(d->stream, &graph), "recording a step");
    if (status == PM_OK) {
        status = cuda_check(cudaGraphInstantiate(&ready, graph, 0), "recording a step");
    }
    if (graph) cudaGraphDestroy(graph);
    if (status == PM_OK) {
        *out = ready;
    } else {
        (void)cudaGetLastError(); /* told already: the next launch does not fail for it */
    }
    return status;
}

static pm_status cuda_replay(struct device *d, void *graph)
{
    return cuda_check(cudaGraphLaunch(graph, d->stream), "replaying a step");
}

static void cuda_record_free(struct device *d, void *graph)
{
    cudaStreamSynchronize(d->stream);
    cudaGraphExecDestroy(graph);
}

static const char *cuda_describe(struct device *d)
{
    return d->text;
}

static pm_status cuda_reserve(struct device *d, int64_t n_row, int64_t n_col, int64_t n_kv)
{
    size_t part[] = {cuda_linear_scratch(d, n_row, n_col),
                     cuda_attention_scratch(d, n_row, n_col, n_kv),
                     cuda_gate_scratch(d, n_row)};
    size_t bytes = 0;
    void *p;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        if (part[i] > bytes) bytes = part[i];
    }
    if (bytes <= d->scratch_bytes) return PM_OK;
    TRY(cuda_alloc(d, &p, bytes, "scratch"));
    cuda_free(d, d->scratch);
    d->scratch = p;
    d->scratch_bytes = bytes;
    return PM_OK;
}

pm_status cuda_scratch(struct device *d, void *out, size_t bytes, const char *what)
{
    if (bytes > d->scratch_bytes) {
        return fail(PM_ERR_BUG, "%s: found %zu bytes of scratch reserved, wanted %zu", what,
                    d->scratch_bytes, bytes);
    }
    memcpy(out, &d->scratch, sizeof d->scratch);
    return PM_OK;
}

static void cuda_explain(struct device *d, const struct linear_kind *kind, char *text,
                         size_t size)
{
    const struct linear_machine machine = {d->sm, d->n_sm, d->smem_block};
    /* Weights and rows that a model allocates are aligned, unless K is odd. */
    const struct linear_shape shape = {.type = kind->type,
                                       .glu = kind->glu,
                                       .aligned =
                                           kind->k * dtype_bits(kind->type) / 8 % 16 == 0,
                                       .n_expert = kind->n_expert,
                                       .n = kind->n,
                                       .k = kind->k,
                                       .max_row = kind->rows};
    struct linear_plan plan = linear_plan_of(&machine, &shape);
    snprintf(text, size, "%s, %d weight rows x %d rows: %s", linear_kernel_name(plan.kernel),
             plan.weight_tile, plan.row_tile, plan.reason);
}

const struct kernels cuda_kernels = {
    .name = "cuda",
    .host_memory = false,
    .narrow = PM_BF16,
    .count = cuda_count,
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_sync,
    .set_stream = cuda_set_stream,
    .stream = cuda_stream,
    .clear = cuda_clear,
    .record_begin = cuda_record_begin,
    .record_end = cuda_record_end,
    .replay = cuda_replay,
    .record_free = cuda_record_free,
    .describe = cuda_describe,
    .reserve = cuda_reserve,
    .mark_new = cuda_mark_new,
    .mark_set = cuda_mark_set,
    .mark_us = cuda_mark_us,
    .mark_free = cuda_mark_free,
    .facts = cuda_facts,
    .explain = cuda_explain,
    .check_linear = cuda_check_linear,
    .measure = cuda_measure,
    .embed = cuda_embed,
    .norm = cuda_norm,
    .linear = cuda_linear,
    .clamp = cuda_clamp,
    .scale = cuda_scale,
    .scale_rows = cuda_scale_rows,
    .add = cuda_add,
    .gate_rows = cuda_gate_rows,
    .rope_table = cuda_rope_table,
    .rope = cuda_rope,
    .kv_write = cuda_kv_write,
    .attention = cuda_attention,
    .attention_mla = cuda_attention_mla,
    .gate_topk = cuda_gate_topk,
    .permute = cuda_permute,
    .permute_scaled = cuda_permute_scaled,
    .unpermute = cuda_unpermute,
};
