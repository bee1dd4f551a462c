/* weights_test.c - tensors of a type that a place does not take are refused by name. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moe/model.h"
#include "tests/moe/variant.h"

enum { MAX_FILE = 1 << 20 };

#define FUSED PM_SOURCE_DIR "/tests/golden/qwen3_moe_fused"

static void write_file(const char *folder, const char *name, const char *data, size_t n)
{
    char path[512];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) FAIL("%s: cannot be written", path);
}

/* A copy of a safetensors file whose header has `new` in place of `old`. */
static void write_changed(const char *folder, const char *from, const char *old,
                          const char *new)
{
    char *data, *header, *at, *out;
    size_t n, n_header, n_changed, n_data;
    uint64_t length;
    FILE *f = fopen(from, "rb");
    data = malloc(MAX_FILE);
    if (!f || !data) FAIL("%s: cannot be read", from);
    n = fread(data, 1, MAX_FILE, f);
    fclose(f);
    memcpy(&length, data, sizeof length);
    n_header = (size_t)length;
    n_data = n - 8 - n_header;
    header = calloc(1, n_header + 1);
    out = calloc(1, n + strlen(new) + 8);
    assert_true(header && out);
    memcpy(header, data + 8, n_header);
    at = strstr(header, old);
    if (!at) FAIL("%s: no %s in %s", from, old, header);
    n_changed =
        (size_t)sprintf(out + 8, "%.*s%s%s", (int)(at - header), header, new, at + strlen(old));
    for (; n_changed % 8 != 0; n_changed++) {
        out[8 + n_changed] = ' ';
    }
    length = n_changed;
    memcpy(out, &length, sizeof length);
    memcpy(out + 8 + n_changed, data + 8 + n_header, n_data);
    write_file(folder, "model.safetensors", out, 8 + n_changed + n_data);
    free(header);
    free(out);
    free(data);
}

static void fused_experts_of_fp8_hear_what_is_read(void **state)
{
    char folder[] = "/tmp/polymath-weights-XXXXXX", text[VARIANT_BYTES], path[128];
    struct model_options o = {.device = "cpu", .n_thread = 1, .plan_only = true};
    struct model *m = NULL;
    pm_status status;
    (void)state;
    assert_non_null(mkdtemp(folder));
    variant_text(text, "qwen3_moe_fused");
    write_file(folder, "config.json", text, strlen(text));
    write_changed(
        folder, FUSED "/model.safetensors",
        "model.layers.1.mlp.experts.gate_up_proj\":{\"dtype\":\"F32\",\"shape\":[7,56,32]",
        "model.layers.1.mlp.experts.gate_up_proj\":{\"dtype\":\"F8_E4M3\",\"shape\":[7,56,"
        "128]");
    status = model_open(&m, folder, &o);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, i ? "config.json" : "model.safetensors");
        unlink(path);
    }
    rmdir(folder);
    assert_int_equal(status, PM_ERR_UNSUPPORTED);
    if (!strstr(pm_last_error(),
                "tensor model.layers.1.mlp.experts.gate_up_proj: found type "
                "F8_E4M3, wanted F32, F16 or BF16 for all experts in one tensor: "
                "F8_E4M3 is read from one tensor for each expert")) {
        FAIL("%s", pm_last_error());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_experts_of_fp8_hear_what_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
