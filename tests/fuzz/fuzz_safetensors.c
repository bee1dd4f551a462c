/* fuzz_safetensors.c - arbitrary bytes as a whole safetensors file.
 *
 * Whatever the check accepts must keep its promises: intervals inside the file, in order,
 * without overlap, as long as shape and type say. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "moe/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct seen {
    const uint8_t *at, *end; /* the next tensor begins at `at` */
};

static pm_status check_tensor(void *arg, const struct stored *tensor)
{
    struct seen *seen = arg;
    const uint8_t *begin = tensor->data;
    size_t n = 1;
    if (!seen->at) seen->at = begin;
    assert(begin == seen->at);
    assert(begin <= seen->end && tensor->bytes <= (size_t)(seen->end - begin));
    assert(tensor->name && tensor->n_dim >= 0 && tensor->n_dim <= SAFETENSORS_MAX_DIM);
    for (int i = 0; i < tensor->n_dim; i++) {
        assert(tensor->dim[i] >= 0);
        n *= (size_t)tensor->dim[i];
    }
    if (tensor->type != PM_DTYPE_COUNT) {
        assert(n * (size_t)dtype_bits(tensor->type) == tensor->bytes * 8);
    }
    seen->at = begin + tensor->bytes;
    return PM_OK;
}

static void check(const uint8_t *data, size_t n)
{
    struct seen seen = {.end = data + n};
    if (safetensors_check("input", data, n, check_tensor, &seen) == PM_OK) {
        assert(!seen.at || seen.at == seen.end);
    } else {
        assert(strncmp(pm_last_error(), "input: ", 7) == 0);
        assert(!strchr(pm_last_error(), '\n'));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    size_t end = n;
    uint8_t *copy;
    check(data, n);
    while (end > 8 && data[end - 1] != '}') {
        end--;
    }
    if (end <= 8) return 0;
    copy = malloc(n);
    if (!copy) abort();
    memcpy(copy, data, n);
    for (int i = 0; i < 8; i++) {
        copy[i] = (uint8_t)((end - 8) >> 8 * i);
    }
    check(copy, n);
    free(copy);
    return 0;
}
