/* clock.c - time on a GPU, and what else a measurement should say: clocks, heat, driver.
 *
 * A mark is an event: the device writes the time when it gets there, so queues and the host's
 * own speed do not count. Clocks come from NVML, the library of nvidia-smi, which is opened
 * while the program runs; without it those fields stay 0. CUDA's numbers of devices are not
 * NVML's, so a device is found by its place on the bus. Declarations follow nvml.h. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

pm_status cuda_mark_new(struct device *d, void **mark)
{
    cudaEvent_t event;
    (void)d;
    TRY(cuda_check(cudaEventCreate(&event), "making an event"));
    *mark = event;
    return PM_OK;
}

pm_status cuda_mark_set(struct device *d, void *mark)
{
    return cuda_check(cudaEventRecord(mark, d->stream), "recording an event");
}

pm_status cuda_mark_us(struct device *d, double *us, void *from, void *to)
{
    float ms;
    (void)d;
    TRY(cuda_check(cudaEventSynchronize(from), "waiting for an event"));
    TRY(cuda_check(cudaEventSynchronize(to), "waiting for an event"));
    TRY(cuda_check(cudaEventElapsedTime(&ms, from, to), "reading an event"));
    *us = 1e3 * (double)ms;
    return PM_OK;
}

void cuda_mark_free(struct device *d, void *mark)
{
    (void)d;
    if (mark) cudaEventDestroy(mark);
}

/* ------------------------------------------------------------------ NVML */

enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_TEMPERATURE_GPU = 0 };

struct nvml {
    void *library, *device; /* NULL: not there */
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver)(char *text, unsigned size);
    int (*find)(const char *bus_id, void **device);
    int (*clock)(void *device, int which, unsigned *mhz);
    int (*max_clock)(void *device, int which, unsigned *mhz);
    int (*temperature)(void *device, int which, unsigned *celsius);
    int (*power)(void *device, unsigned *milliwatts);
};

static bool load(const struct nvml *n, void *function, const char *name)
{
    void *found = dlsym(n->library, name);
    memcpy(function, &found, sizeof found);
    return found != NULL;
}

static bool nvml_open(struct nvml *n)
{
    n->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (n->library && load(n, &n->init, "nvmlInit_v2") &&
        load(n, &n->shutdown, "nvmlShutdown") &&
        load(n, &n->driver, "nvmlSystemGetDriverVersion") &&
        load(n, &n->find, "nvmlDeviceGetHandleByPciBusId_v2") &&
        load(n, &n->clock, "nvmlDeviceGetClockInfo") &&
        load(n, &n->max_clock, "nvmlDeviceGetMaxClockInfo") &&
        load(n, &n->temperature, "nvmlDeviceGetTemperature") &&
        load(n, &n->power, "nvmlDeviceGetPowerUsage") && n->init() == 0) {
        return true;
    }
    if (n->library) dlclose(n->library);
    n->library = NULL;
    return false;
}

/* The library and the device in it. */
static void nvml_find(struct nvml *n, int index)
{
    char bus_id[32];
    if (!nvml_open(n)) return;
    if (cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, index) != cudaSuccess) {
        (void)cudaGetLastError();
    } else if (n->find(bus_id, &n->device) != 0) {
        n->device = NULL;
    }
}

static void read_nvml(const struct nvml *n, struct device_facts *out)
{
    unsigned v;
    if (!n->device) return;
    if (n->clock(n->device, NVML_CLOCK_SM, &v) == 0) out->clock_mhz = (int)v;
    if (n->max_clock(n->device, NVML_CLOCK_SM, &v) == 0) out->max_clock_mhz = (int)v;
    if (n->clock(n->device, NVML_CLOCK_MEM, &v) == 0) out->memory_mhz = (int)v;
    if (n->temperature(n->device, NVML_TEMPERATURE_GPU, &v) == 0) out->celsius = (int)v;
    if (n->power(n->device, &v) == 0) out->watts = (int)((v + 500) / 1000);
}

/* NVML takes long to start, and a clock is to be read while the device still works. */
void cuda_facts(struct device *d, struct device_facts *out)
{
    char driver[48] = "";
    int supports = 0, runtime = 0, cache = 0;
    struct nvml *n = d->nvml;
    memset(out, 0, sizeof *out);
    if (!n && alloc_array(&n, 1, sizeof *n, "NVML") == PM_OK) {
        nvml_find(n, d->index);
        d->nvml = n;
    }
    if (n) read_nvml(n, out);
    if (n && n->library && n->driver(driver, sizeof driver) != 0) driver[0] = 0;
    if (cudaDriverGetVersion(&supports) != cudaSuccess ||
        cudaRuntimeGetVersion(&runtime) != cudaSuccess ||
        cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, d->index) != cudaSuccess) {
        (void)cudaGetLastError();
    }
    out->cache_bytes = (size_t)cache;
    snprintf(out->software, sizeof out->software, "%s%s%sCUDA %d.%d, runtime %d.%d",
             *driver ? "driver " : "", driver, *driver ? ", " : "", supports / 1000,
             supports % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

void cuda_facts_close(struct device *d)
{
    struct nvml *n = d->nvml;
    if (n && n->library) {
        n->shutdown();
        dlclose(n->library);
    }
    free(n);
    d->nvml = NULL;
}
