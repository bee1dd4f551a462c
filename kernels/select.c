/* select.c - from a device's name to a backend. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

/* The number behind "cuda:", 0 for "cuda", -1 for anything else. */
static int cuda_index(const char *device)
{
    char *end;
    long n;
    if (strcmp(device, "cuda") == 0) return 0;
    if (strncmp(device, "cuda:", 5) != 0 || device[5] < '0' || device[5] > '9') return -1;
    n = strtol(device + 5, &end, 10);
    return *end || n > 1023 ? -1 : (int)n;
}

/* "auto, cpu and cuda:0 to cuda:3", or why there is no GPU. */
static void name_devices(char *out, size_t size)
{
    const char *why;
    int n;
    if (!&cuda_kernels) {
        snprintf(out, size, "auto and cpu (it was built without CUDA)");
        return;
    }
    n = cuda_kernels.count(&why);
    if (n == 0) {
        snprintf(out, size, "auto and cpu (no GPU%s%s)", *why ? ": " : "", why);
    } else if (n == 1) {
        snprintf(out, size, "auto, cpu and cuda:0");
    } else {
        snprintf(out, size, "auto, cpu and cuda:0 to cuda:%d", n - 1);
    }
}

pm_status kernels_select(const struct kernels **out, int *index, const char *device)
{
    bool automatic = strcmp(device, "auto") == 0;
    int n_gpu = &cuda_kernels ? cuda_kernels.count(NULL) : 0;
    int wanted = automatic ? 0 : cuda_index(device);
    char known[160];
    if (wanted >= 0 && wanted < n_gpu) {
        *out = &cuda_kernels;
        *index = wanted;
        return PM_OK;
    }
    if (automatic || strcmp(device, "cpu") == 0) {
        *out = &cpu_kernels;
        *index = 0;
        return PM_OK;
    }
    name_devices(known, sizeof known);
    return fail(PM_ERR_ARG, "device: found \"%s\", this machine has %s", device, known);
}
