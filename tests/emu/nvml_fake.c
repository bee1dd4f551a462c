/* nvml_fake.c - what kernels/cuda/clock.c asks of NVML, for the emulated device. Signatures are
 * those of NVML's reference manual. Built as libnvidia-ml.so.1 for bench_device_test_emu alone.
 */
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef int nvmlReturn_t;
typedef struct device_st *nvmlDevice_t;
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6 };

static int started;
static struct device_st {
    unsigned sm_mhz, memory_mhz, max_sm_mhz;
} device = {1410, 2619, 1980};

/* Tells the test that it has found this library; how often it was started and not ended. */
EXPORT int nvml_fake_started(void)
{
    return started;
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    started++;
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    if (!started) return UNINITIALIZED;
    started--;
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    if (!started) return UNINITIALIZED;
    snprintf(version, length, "123.45.67");
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *id, nvmlDevice_t *out)
{
    if (!started) return UNINITIALIZED;
    if (strcmp(id, "0000:00:00.0") != 0) return NOT_FOUND;
    *out = &device;
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, int type, unsigned int *mhz)
{
    if (!started || d != &device) return INVALID_ARGUMENT;
    if (type != 1 && type != 2) return INVALID_ARGUMENT; /* graphics 0, SM 1, memory 2 */
    *mhz = type == 1 ? d->sm_mhz : d->memory_mhz;
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t d, int type, unsigned int *mhz)
{
    if (!started || d != &device || type != 1) return INVALID_ARGUMENT;
    *mhz = d->max_sm_mhz;
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, int sensor, unsigned int *celsius)
{
    if (!started || d != &device || sensor != 0) return INVALID_ARGUMENT;
    *celsius = 41;
    return SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *milliwatts)
{
    if (!started || d != &device) return INVALID_ARGUMENT;
    *milliwatts = 345600;
    return SUCCESS;
}
