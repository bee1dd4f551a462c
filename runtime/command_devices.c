/* command_devices.c - polymath devices: what --device can name here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "moe/json.h"
#include "runtime/command.h"

static pm_status print_device(const struct kernels *k, int index, int n_thread, bool as_json)
{
    struct device *d;
    char name[16] = "cpu";
    struct json_out out = {0};
    TRY(k->open(&d, index, n_thread));
    if (k != &cpu_kernels) snprintf(name, sizeof name, "cuda:%d", index);
    if (as_json) {
        json_put(&out, "{\"device\": \"%s\", \"name\": ", name);
        json_put_string(&out, k->describe(d), strlen(k->describe(d)));
        json_put(&out, "}");
        puts(out.text ? out.text : "");
        free(out.text);
    } else {
        printf("%-8s %s\n", name, k->describe(d));
    }
    k->close(d);
    return PM_OK;
}

/* A GPU that cannot be opened, say for its age, does not hide the others. */
static pm_status print_devices(const struct pm_options *o, bool as_json)
{
    const char *why = "built without CUDA";
    int n = 0;
    TRY(print_device(&cpu_kernels, 0, o->threads, as_json));
    if (&cuda_kernels) n = cuda_kernels.count(&why);
    for (int i = 0; i < n; i++) {
        if (print_device(&cuda_kernels, i, 0, as_json) == PM_OK) continue;
        fprintf(stderr, "polymath: %s\n", pm_last_error());
    }
    if (n == 0 && !as_json) printf("%-8s none%s%s\n", "cuda", *why ? ": " : "", why);
    return PM_OK;
}

static int devices(const struct command *self, int argc, char **argv)
{
    bool as_json = false;
    const struct flag flags[] = {
        {.name = "json", .help = "one JSON object a line", .on = &as_json},
        {.name = NULL},
    };
    struct arguments a;
    int code = arguments_parse(&a, self, flags, argc, argv);
    if (code < 0) {
        pm_status status = print_devices(a.options, as_json);
        code = status == PM_OK ? EXIT_OK : complain(status);
    }
    arguments_free(&a);
    return code;
}

const struct command devices_command = {
    .name = "devices",
    .arguments = "",
    .summary = "the devices that --device can name here",
    .about = "Lists the CPU and every GPU, and says why there is no GPU where there is none.",
    .engine = true,
    .run = devices,
};
