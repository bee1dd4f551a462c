/* select.c - from a device's name to a backend. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

pm_status kernels_select(const struct kernels **out, int *index, const char *device)
{
    if (strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0) {
        *out = &cpu_kernels;
        *index = 0;
        return PM_OK;
    }
    return fail(PM_ERR_ARG, "device: found \"%s\", this build has auto and cpu", device);
}
