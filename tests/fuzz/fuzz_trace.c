/* fuzz_trace.c - arbitrary bytes as a routing trace.
 *
 * Input that starts with "P" is a file as it is. Of other input the first four bytes are the
 * header's numbers and the rest is cut or filled up to the size that they call for, so that the
 * checks behind the size are reached. A file is refused with a sentence of one line that names
 * it; what is accepted has ids in range, and written again it is the same file. */
#define _GNU_SOURCE /* memfd_create */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_FILE = 4096, HEAD = 24 };

/* A file in memory; its path goes to `path`. */
static int open_file(char path[64])
{
    int file = memfd_create("trace", 0);
    if (file < 0) abort();
    snprintf(path, 64, "/proc/self/fd/%d", file);
    return file;
}

/* n bytes and what is missing, by the header that data[0 .. 3] stand for. */
static size_t cook(const uint8_t *data, size_t n, uint8_t out[MAX_FILE])
{
    uint32_t head[4] = {data[0] % 7, data[1] % 5, data[2] % 9, data[3] % 5};
    size_t size = HEAD + 4 * head[1] + 2 * (size_t)head[0] * head[1] * head[3];
    memset(out, 0, MAX_FILE);
    memcpy(out, "PMROUTE1", 8);
    memcpy(out + 8, head, sizeof head);
    memcpy(out + HEAD, data + 4, n - 4 < MAX_FILE - HEAD ? n - 4 : MAX_FILE - HEAD);
    return size;
}

static void check_same(const struct trace *t, const uint8_t *data, size_t n)
{
    static char path[64];
    static int file = -1;
    uint8_t again[MAX_FILE];
    if (file < 0) file = open_file(path);
    if (trace_write(t, path) != PM_OK) abort();
    assert(pread(file, again, sizeof again, 0) == (ssize_t)n);
    assert(memcmp(again, data, n) == 0);
}

static void check_file(const uint8_t *data, size_t n)
{
    static char path[64];
    static int file = -1;
    struct trace *t = NULL;
    if (file < 0) file = open_file(path);
    if (ftruncate(file, 0) != 0 || pwrite(file, data, n, 0) != (ssize_t)n) abort();
    if (trace_read(&t, path) != PM_OK) {
        assert(!t && strncmp(pm_last_error(), path, strlen(path)) == 0);
        assert(!strchr(pm_last_error(), '\n'));
        return;
    }
    for (size_t i = 0; i < (size_t)t->n_layer * t->n_token * t->top_k; i++) {
        assert(t->id[i] < t->n_expert || t->id[i] == TRACE_NONE);
    }
    check_same(t, data, n);
    trace_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t cooked[MAX_FILE];
    if (n > MAX_FILE) return 0;
    if (n < 4 || data[0] == 'P') {
        check_file(data, n);
    } else {
        size_t size = cook(data, n, cooked);
        check_file(cooked, size);
    }
    return 0;
}
