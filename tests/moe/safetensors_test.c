/* safetensors_test.c - files that are accepted, files that are refused and in which words,
 * folders of shards, and what the writer writes.
 *
 * Every test works in a folder of its own, which setup makes and teardown removes. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "moe/safetensors.h"

#include <cmocka.h> /* last: its macro fail() hides the function */

enum { PATH_BYTES = 512 };

static int make_folder(void **state)
{
    char *folder = strdup("/tmp/safetensors_test_XXXXXX");
    *state = folder;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char path[PATH_BYTES];
    struct dirent *entry;
    DIR *folder = opendir(*state);
    while (folder && (entry = readdir(folder)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", (char *)*state, entry->d_name);
        remove(path);
    }
    if (folder) closedir(folder);
    rmdir(*state);
    free(*state);
    return 0;
}

static void assert_said(const char *part)
{
    if (!strstr(pm_last_error(), part)) fail_msg("no \"%s\" in: %s", part, pm_last_error());
    if (strchr(pm_last_error(), '\n')) fail_msg("more than a line: %s", pm_last_error());
}

/* Where `name` lies in the test's folder; valid until the next call but three. */
static const char *in(void **state, const char *name)
{
    static char path[4][PATH_BYTES];
    static unsigned next;
    char *out = path[next++ % 4];
    snprintf(out, PATH_BYTES, "%s/%s", (char *)*state, name);
    return out;
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* A file: the length of `header`, `header`, then n_data bytes 0, 1, 2, ... The caller frees it.
 */
static unsigned char *file_of(const char *header, size_t n_data, size_t *n)
{
    size_t n_header = strlen(header);
    unsigned char *file = malloc(8 + n_header + n_data);
    assert_non_null(file);
    for (int i = 0; i < 8; i++) {
        file[i] = (unsigned char)(n_header >> 8 * i);
    }
    memcpy(file + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++) {
        file[8 + n_header + i] = (unsigned char)i;
    }
    *n = 8 + n_header + n_data;
    return file;
}

static void store(const char *path, const char *header, size_t n_data)
{
    size_t n;
    unsigned char *file = file_of(header, n_data, &n);
    write_file(path, file, n);
    free(file);
}

static pm_status count_tensor(void *arg, const struct stored *tensor)
{
    (void)tensor;
    ++*(int *)arg;
    return PM_OK;
}

/* The number of tensors of a file that must be accepted. */
static int accept(const char *header, size_t n_data)
{
    int count = 0;
    size_t n;
    unsigned char *file = file_of(header, n_data, &n);
    if (safetensors_check("x.safetensors", file, n, count_tensor, &count) != PM_OK) {
        fail_msg("%s", pm_last_error());
    }
    free(file);
    return count;
}

/* A file that must be refused, with no tensor handed out; the sentence has both parts. */
static void refuse(const char *header, size_t n_data, const char *where, const char *what)
{
    int count = 0;
    size_t n;
    unsigned char *file = file_of(header, n_data, &n);
    assert_int_equal(safetensors_check("x.safetensors", file, n, count_tensor, &count),
                     PM_ERR_FORMAT);
    assert_int_equal(count, 0);
    assert_said("x.safetensors: ");
    assert_said(where);
    assert_said(what);
    free(file);
}

/* {"t":{"dtype":TYPE,"shape":SHAPE,"data_offsets":OFFSETS}} with n_data bytes is refused. */
static void refuse_tensor(const char *type, const char *shape, const char *offsets,
                          size_t n_data, const char *what)
{
    char header[512];
    snprintf(header, sizeof header, "{\"t\":{\"dtype\":%s,\"shape\":%s,\"data_offsets\":%s}}",
             type, shape, offsets);
    refuse(header, n_data, "t", what);
}

static struct safetensors *open_or_fail(const char *path)
{
    struct safetensors *st = NULL;
    if (safetensors_open(&st, path) != PM_OK) fail_msg("%s", pm_last_error());
    return st;
}

static void refuse_open(const char *path, pm_status status, const char *where, const char *what)
{
    struct safetensors *st = NULL;
    assert_int_equal(safetensors_open(&st, path), status);
    assert_null(st);
    assert_said(where);
    assert_said(what);
}

#define TWO_TENSORS                                                                            \
    "{\"__metadata__\":{\"format\":\"pt\"},"                                                   \
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[8,14]},"                        \
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}"

static void a_file_is_opened_and_read(void **state)
{
    const char *path = in(state, "x.safetensors");
    struct safetensors *st;
    const struct stored *a, *b;
    store(path, TWO_TENSORS, 14);
    st = open_or_fail(path);
    assert_int_equal(safetensors_count(st), 2);
    a = safetensors_find(st, "a");
    b = safetensors_find(st, "b");
    assert_ptr_equal(a, safetensors_at(st, 0)); /* in the order of the data */
    assert_ptr_equal(b, safetensors_at(st, 1));
    assert_null(safetensors_at(st, 2));
    assert_null(safetensors_at(st, -1));
    assert_null(safetensors_find(st, "c"));
    assert_null(safetensors_find(st, "__metadata__"));
    assert_string_equal(a->name, "a");
    assert_int_equal(a->type, PM_F32);
    assert_int_equal(a->n_dim, 2);
    assert_true(a->dim[0] == 2 && a->dim[1] == 1);
    assert_int_equal(a->bytes, 8);
    assert_memory_equal(a->data, "\0\1\2\3\4\5\6\7", 8);
    assert_int_equal(b->type, PM_BF16);
    assert_memory_equal(b->data, "\10\11\12\13\14\15", 6);
    assert_string_equal(safetensors_file(st, b->file), path);
    assert_int_equal(safetensors_bytes(st), 8 + strlen(TWO_TENSORS) + 14);
    safetensors_close(st);
    safetensors_close(NULL);
}

static void unusual_files_are_accepted(void **state)
{
    (void)state;
    assert_int_equal(accept("{}", 0), 0);
    assert_int_equal(accept("{}   \n", 0), 0);
    assert_int_equal(accept("{\"__metadata__\":{}}", 0), 0);
    assert_int_equal(accept("{\"__metadata__\":null}", 0), 0);
    /* A scalar; empty tensors before, between and after others; keys that are not known. */
    assert_int_equal(
        accept("{\"x\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8), 1);
    assert_int_equal(accept("{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                            "\"e\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[0,0]},"
                            "\"m\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[2,2]},"
                            "\"y\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]},"
                            "\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[3,3]}}",
                            3),
                     5);
    assert_int_equal(accept("{\"x\":{\"new\":1,\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1],"
                            "\"data_offsets\":[0,1]}}",
                            1),
                     1);
}

static pm_status keep_tensor(void *arg, const struct stored *tensor)
{
    *(struct stored *)arg = *tensor;
    return PM_OK;
}

static void every_type_of_the_format_is_known(void **state)
{
    const struct {
        const char *name;
        int bits;
        pm_dtype type;
    } types[] = {
        {"F32", 32, PM_F32},
        {"F16", 16, PM_F16},
        {"BF16", 16, PM_BF16},
        {"F8_E4M3", 8, PM_F8_E4M3},
        {"U8", 8, PM_U8},
        {"I32", 32, PM_I32},
        {"I64", 64, PM_I64},
        {"F64", 64, PM_DTYPE_COUNT},
        {"I8", 8, PM_DTYPE_COUNT},
        {"I16", 16, PM_DTYPE_COUNT},
        {"U16", 16, PM_DTYPE_COUNT},
        {"U32", 32, PM_DTYPE_COUNT},
        {"U64", 64, PM_DTYPE_COUNT},
        {"BOOL", 8, PM_DTYPE_COUNT},
        {"F8_E5M2", 8, PM_DTYPE_COUNT},
        {"F8_E8M0", 8, PM_DTYPE_COUNT},
        {"F4", 4, PM_DTYPE_COUNT},
        {"C64", 64, PM_DTYPE_COUNT},
        {"F6_E2M3", 6, PM_DTYPE_COUNT},
        {"F6_E3M2", 6, PM_DTYPE_COUNT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const size_t bytes = (size_t)types[i].bits;
        struct stored tensor = {0};
        char header[128];
        unsigned char *file;
        size_t n;
        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%zu]}}",
                 types[i].name, bytes);
        file = file_of(header, bytes, &n);
        assert_int_equal(safetensors_check("x", file, n, keep_tensor, &tensor), PM_OK);
        assert_int_equal(tensor.type, types[i].type);
        assert_int_equal(tensor.bytes, bytes);
        free(file);
    }
}

static void malformed_tensors_are_refused(void **state)
{
    (void)state;
    refuse_tensor("\"F33\"", "[1]", "[0,4]", 4, "t.dtype: found \"F33\", wanted a dtype");
    refuse_tensor("\"f32\"", "[1]", "[0,4]", 4, "t.dtype: found \"f32\"");
    refuse_tensor("\"F32\\u0000\"", "[1]", "[0,4]", 4, "t.dtype: found \"F32?\"");
    refuse_tensor("\"MXFP4\"", "[2]", "[0,1]", 1, "t.dtype: found \"MXFP4\"");
    refuse_tensor("7", "[1]", "[0,4]", 4, "t.dtype: found 7");
    refuse_tensor("\"U8\"", "1", "[0,1]", 1, "t.shape: found 1");
    refuse_tensor("\"U8\"", "[-1]", "[0,1]", 1, "t.shape[0]: found -1");
    refuse_tensor("\"U8\"", "[1,0.5]", "[0,1]", 1, "t.shape[1]: found 0.5");
    refuse_tensor("\"U8\"", "[\"1\"]", "[0,1]", 1, "t.shape[0]: found \"1\"");
    refuse_tensor("\"U8\"", "[1e300]", "[0,1]", 1, "t.shape[0]");
    refuse_tensor("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]", 1, "an array of 9, wanted");
    refuse_tensor("\"U8\"", "[4294967296,4294967296]", "[0,0]", 0, "wanted a smaller tensor");
    refuse_tensor("\"F32\"", "[4503599627370496,1024]", "[0,0]", 0, "wanted a smaller tensor");
    refuse_tensor("\"F4\"", "[3]", "[0,2]", 2, "whole bytes");
    refuse_tensor("\"U8\"", "[1]", "[0]", 1, "t.data_offsets: found an array of 1");
    refuse_tensor("\"U8\"", "[1]", "[0,1,2]", 1, "t.data_offsets: found an array of 3");
    refuse_tensor("\"U8\"", "[1]", "{}", 1, "t.data_offsets: found an object");
    refuse_tensor("\"U8\"", "[1]", "[-1,0]", 1, "t.data_offsets[0]: found -1");
    refuse_tensor("\"U8\"", "[1]", "[1,0]", 1, "t.data_offsets[1]: found 0");
    refuse_tensor("\"U8\"", "[1]", "[0,1.5]", 1, "t.data_offsets[1]: found 1.5");
    refuse_tensor("\"U8\"", "[1]", "[0,18446744073709551617]", 1, "t.data_offsets[1]");
    refuse_tensor("\"F32\"", "[2]", "[0,7]", 7, "tensor t: data_offsets hold 7 bytes");
    refuse_tensor("\"F32\"", "[2]", "[0,7]", 7, "need 8");
    refuse_tensor("\"F32\"", "[4]", "[0,16]", 9, "ends at byte 16 of the data, which has 9");
    refuse("{\"t\":5}", 0, "t: ", "found 5, wanted an object");
    refuse("{\"t\":{\"shape\":[],\"data_offsets\":[0,1]}}", 1, "t: ", "wanted a dtype");
    refuse("{\"t\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "t: ", "wanted a shape");
    refuse("{\"t\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "t: ", "wanted data_offsets");
    refuse("{\"a\\u0000\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "a?",
           "without");
}

static void malformed_headers_are_refused(void **state)
{
    (void)state;
    refuse("", 0, "", "does not start with {");
    refuse(" {}", 0, "", "does not start with {");
    refuse("[]", 0, "", "does not start with {");
    refuse("{", 0, "", "malformed JSON");
    refuse("{}{}", 0, "", "more after");
    refuse("{\"\xff\":1}", 0, "", "invalid UTF-8");
    refuse("{\"__metadata__\\u0000\":{}}", 0, "__metadata__?", "without");
    refuse("{\"__metadata__\":[]}", 0, "__metadata__", "wanted an object of strings");
    refuse("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__.a", "found 1, wanted a string");
    refuse("{\"t\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
           "\"t\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
           0, "t: ", "each key once");
}

static void overlaps_and_gaps_are_refused(void **state)
{
    (void)state;
    refuse("{\"late\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]},"
           "\"early\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}",
           4, "tensor late: begins at byte 2", "inside of tensor early");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
           "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
           2, "tensor b", "inside of tensor a");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
           "\"empty\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}",
           4, "tensor empty", "inside of tensor a");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
           "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}",
           5, "tensor b: begins at byte 3", "wanted 2 without a gap");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "tensor a",
           "begins at byte 1, wanted 0");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 3,
           "3 bytes of data", "cover 2");
    refuse("{}", 1, "1 bytes of data", "cover 0");
}

static void names_cannot_break_a_message(void **state)
{
    char header[3000] = "{\"";
    (void)state;
    refuse("{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2,
           "tensor a?b: ", "need 1");
    refuse("{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
           "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
           1, "tensor c: ", "inside of tensor a?b that");
    memset(header + 2, 'n', 2000);
    strcat(header, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,2]}}");
    refuse(header, 2, "nnn...: ", "need 1");
    assert_true(strlen(pm_last_error()) < 250);
}

static void lengths_are_checked_before_they_are_used(void **state)
{
    unsigned char file[16] = {0};
    int count = 0;
    (void)state;
    for (size_t n = 0; n < 8; n++) {
        assert_int_equal(safetensors_check("x", file, n, count_tensor, &count), PM_ERR_FORMAT);
        assert_said("x: ");
        assert_said("has at least 8");
    }
    file[0] = 9;
    assert_int_equal(safetensors_check("x", file, 16, count_tensor, &count), PM_ERR_FORMAT);
    assert_said("header of 9 bytes, but the file has only 8");
    memset(file, 0xff, 8);
    assert_int_equal(safetensors_check("x", file, 16, count_tensor, &count), PM_ERR_FORMAT);
    assert_said("header of 18446744073709551615 bytes, at most 100000000");
}

static void each_cut_of_a_good_file_is_refused(void **state)
{
    size_t n, cut;
    int count = 0;
    unsigned char *file = file_of(TWO_TENSORS, 14, &n);
    (void)state;
    for (cut = 0; cut < n; cut++) {
        unsigned char *part = malloc(cut ? cut : 1);
        memcpy(part, file, cut);
        assert_int_equal(safetensors_check("x", part, cut, count_tensor, &count),
                         PM_ERR_FORMAT);
        free(part);
    }
    assert_int_equal(count, 0);
    free(file);
}

static pm_status stop(void *arg, const struct stored *tensor)
{
    (void)tensor;
    ++*(int *)arg;
    return PM_ERR_CANCELLED;
}

static void a_failure_of_the_caller_ends_the_check(void **state)
{
    int count = 0;
    size_t n;
    unsigned char *file = file_of(TWO_TENSORS, 14, &n);
    (void)state;
    assert_int_equal(safetensors_check("x", file, n, stop, &count), PM_ERR_CANCELLED);
    assert_int_equal(count, 1);
    free(file);
}

static void what_is_no_file_is_refused_without_waiting(void **state)
{
    refuse_open(in(state, "gone.safetensors"), PM_ERR_IO, "gone.safetensors", "No such file");
    refuse_open(in(state, ""), PM_ERR_IO, *state, "neither model.safetensors nor");
    write_file(in(state, "empty.safetensors"), "", 0);
    refuse_open(in(state, "empty.safetensors"), PM_ERR_FORMAT, "empty.safetensors",
                "empty file");
    assert_int_equal(mkfifo(in(state, "pipe"), 0600), 0);
    refuse_open(in(state, "pipe"), PM_ERR_IO, "pipe", "not a regular file");
    refuse_open("/dev/zero", PM_ERR_IO, "/dev/zero", "not a regular file");
    assert_int_equal(mkfifo(in(state, "model.safetensors"), 0600), 0);
    refuse_open(*state, PM_ERR_IO, "model.safetensors", "not a regular file");
}

static void a_folder_prefers_the_single_file(void **state)
{
    struct safetensors *st;
    store(in(state, "model.safetensors"), TWO_TENSORS, 14);
    write_file(in(state, "model.safetensors.index.json"), "{}", 2);
    st = open_or_fail(*state);
    assert_int_equal(safetensors_count(st), 2);
    safetensors_close(st);
}

static void write_index(void **state, const char *weight_map)
{
    char text[1024];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":1},\"weight_map\":%s}",
             weight_map);
    write_file(in(state, "model.safetensors.index.json"), text, strlen(text));
}

#define ONE(name, byte)                                                                        \
    "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" byte "]}}"

static void shards_are_one_checkpoint(void **state)
{
    struct safetensors *st;
    const struct stored *x, *a;
    store(in(state, "s1"), ONE("x", "0,1"), 1);
    store(in(state, "s2"), TWO_TENSORS, 14);
    write_index(state, "{\"a\":\"s2\",\"x\":\"s1\",\"b\":\"s2\"}");
    st = open_or_fail(*state);
    assert_int_equal(safetensors_count(st), 3);
    x = safetensors_find(st, "x");
    a = safetensors_find(st, "a");
    assert_true(x && a && x->file != a->file);
    assert_string_equal(safetensors_file(st, x->file), in(state, "s1"));
    assert_string_equal(safetensors_file(st, a->file), in(state, "s2"));
    assert_memory_equal(a->data, "\0\1\2\3", 4);
    assert_int_equal(safetensors_bytes(st),
                     8 + strlen(TWO_TENSORS) + 14 + 8 + strlen(ONE("x", "0,1")) + 1);
    safetensors_close(st);
}

static void the_index_decides_which_shard_a_tensor_comes_from(void **state)
{
    struct safetensors *st;
    store(in(state, "s1"), ONE("a", "0,1"), 1);
    store(in(state, "s2"), TWO_TENSORS, 14);
    write_index(state, "{\"b\":\"s2\",\"a\":\"s1\"}");
    st = open_or_fail(*state);
    assert_int_equal(safetensors_count(st), 2);
    assert_string_equal(safetensors_file(st, safetensors_find(st, "a")->file), in(state, "s1"));
    safetensors_close(st);
    /* A tensor that the index does not list is left out. */
    write_index(state, "{\"b\":\"s2\"}");
    st = open_or_fail(*state);
    assert_int_equal(safetensors_count(st), 1);
    assert_null(safetensors_find(st, "a"));
    safetensors_close(st);
}

static void an_index_that_its_shards_do_not_meet_is_refused(void **state)
{
    store(in(state, "s1"), ONE("x", "0,1"), 1);
    write_index(state, "{\"x\":\"s1\",\"y\":\"s1\"}");
    refuse_open(*state, PM_ERR_FORMAT, in(state, "s1"), "tensor y: missing");
    write_index(state, "{\"x\":\"s1\",\"y\\n\":\"s1\"}");
    refuse_open(*state, PM_ERR_FORMAT, in(state, "s1"), "tensor y?: missing");
    write_index(state, "{\"x\":\"s1\",\"y\":\"s2\"}");
    refuse_open(*state, PM_ERR_IO, in(state, "s2"), "No such file");
    write_file(in(state, "s2"), "1234", 4);
    refuse_open(*state, PM_ERR_FORMAT, in(state, "s2"), "4 bytes");
    unlink(in(state, "s2"));
    assert_int_equal(mkfifo(in(state, "s2"), 0600), 0);
    refuse_open(*state, PM_ERR_IO, in(state, "s2"), "not a regular file");
}

static void index_names_cannot_leave_the_folder(void **state)
{
    const char *const names[] = {"../s1", "/etc/passwd", "sub/s1", "..", ".",
                                 "",      "s1\\u0000x",  "s\\n1"};
    char map[128];
    store(in(state, "s1"), ONE("x", "0,1"), 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(map, sizeof map, "{\"x\":\"%s\"}", names[i]);
        write_index(state, map);
        refuse_open(*state, PM_ERR_FORMAT, "index.json: weight_map.x: found",
                    "wanted the name of a file in the same folder");
    }
}

static void malformed_indexes_are_refused(void **state)
{
    const char *const maps[] = {"{}", "[]", "null", "\"s1\"", "{\"x\":1}", "{\"x\":{}}"};
    store(in(state, "s1"), ONE("x", "0,1"), 1);
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        write_index(state, maps[i]);
        refuse_open(*state, PM_ERR_FORMAT, "model.safetensors.index.json: ", "wanted");
    }
    write_index(state, "{\"x\":\"s1\",\"x\":\"s1\"}");
    refuse_open(*state, PM_ERR_FORMAT, "index.json: weight_map.x", "each key once");
    write_file(in(state, "model.safetensors.index.json"), "{}", 2);
    refuse_open(*state, PM_ERR_FORMAT, "index.json: found nothing", "wanted a weight_map");
}

static void fifty_thousand_tensors_open_fast(void **state)
{
    const int n = 50000;
    const int64_t dim[] = {1};
    struct safetensors_writer *w;
    struct safetensors *st;
    unsigned char byte;
    char name[64];
    int64_t start;
    assert_int_equal(safetensors_create(&w, in(state, "model.safetensors")), PM_OK);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.up_proj.weight", i / 256,
                 i % 256);
        assert_int_equal(safetensors_declare(w, name, PM_U8, 1, dim), PM_OK);
    }
    for (int i = 0; i < n; i++) {
        byte = (unsigned char)(i % 251);
        assert_int_equal(safetensors_write(w, &byte, 1), PM_OK);
    }
    assert_int_equal(safetensors_finish(w), PM_OK);
    start = now_us();
    st = open_or_fail(*state);
    assert_int_equal(safetensors_count(st), n);
    for (int i = 0; i < n; i++) {
        const struct stored *found;
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.up_proj.weight", i / 256,
                 i % 256);
        found = safetensors_find(st, name);
        assert_true(found && *(const unsigned char *)found->data == i % 251);
    }
    safetensors_close(st);
    /* Far above what it takes under a sanitizer, far below a quadratic walk. */
    assert_true(now_us() - start < 10000000);
}

static void golden_checkpoints_open(void **state)
{
    char path[PATH_BYTES];
    struct safetensors *st;
    (void)state;
    snprintf(path, sizeof path, "%s/tests/golden/qwen3_moe", PM_SOURCE_DIR);
    if (access(path, F_OK) != 0) skip();
    st = open_or_fail(path);
    assert_non_null(safetensors_find(st, "model.embed_tokens.weight"));
    safetensors_close(st);
}

static void the_writer_round_trips(void **state)
{
    const int64_t dim[] = {2, 3, 0};
    const float f32[] = {1, 2, 3, 4, 5, 6};
    const unsigned char bf16[4] = {1, 2, 3, 4}, scalar[8] = {9};
    const char *path = in(state, "out.safetensors");
    struct safetensors_writer *w;
    struct safetensors *st;
    const struct stored *t;
    assert_int_equal(safetensors_create(&w, path), PM_OK);
    assert_int_equal(safetensors_declare(w, "none", PM_F16, 3, dim), PM_OK);
    assert_int_equal(safetensors_declare(w, "f\"\n\xc3\xa9", PM_F32, 2, dim), PM_OK);
    assert_int_equal(safetensors_declare(w, "b", PM_BF16, 1, dim), PM_OK);
    assert_int_equal(safetensors_declare(w, "s", PM_I64, 0, NULL), PM_OK);
    assert_int_equal(safetensors_write(w, f32, 10), PM_OK);
    assert_int_equal(safetensors_write(w, NULL, 0), PM_OK);
    assert_int_equal(safetensors_write(w, (const char *)f32 + 10, 14), PM_OK);
    assert_int_equal(safetensors_write(w, bf16, 4), PM_OK);
    assert_int_not_equal(access(path, F_OK),
                         0); /* nothing under the name until it is complete */
    assert_int_equal(safetensors_write(w, scalar, 8), PM_OK);
    assert_int_equal(safetensors_finish(w), PM_OK);
    assert_int_not_equal(access(in(state, "out.safetensors.tmp"), F_OK), 0);
    st = open_or_fail(path);
    assert_int_equal(safetensors_count(st), 4);
    t = safetensors_find(st, "f\"\n\xc3\xa9");
    assert_non_null(t);
    assert_int_equal((uintptr_t)t->data % 64, 0); /* data starts on a cache line */
    assert_memory_equal(t->data, f32, sizeof f32);
    assert_true(t->type == PM_F32 && t->n_dim == 2 && t->dim[1] == 3);
    assert_memory_equal(safetensors_find(st, "b")->data, bf16, 4);
    assert_int_equal(safetensors_find(st, "s")->n_dim, 0);
    assert_int_equal(safetensors_find(st, "none")->bytes, 0);
    safetensors_close(st);
}

static void an_empty_file_can_be_written(void **state)
{
    struct safetensors_writer *w;
    struct safetensors *st;
    assert_int_equal(safetensors_create(&w, in(state, "e")), PM_OK);
    assert_int_equal(safetensors_finish(w), PM_OK);
    st = open_or_fail(in(state, "e"));
    assert_int_equal(safetensors_count(st), 0);
    assert_null(safetensors_find(st, "x"));
    safetensors_close(st);
}

/* A writer with tensors a [4] and b [2] of U8. */
static struct safetensors_writer *two_writer(void **state)
{
    const int64_t four = 4, two = 2;
    struct safetensors_writer *w;
    assert_int_equal(safetensors_create(&w, in(state, "w")), PM_OK);
    assert_int_equal(safetensors_declare(w, "a", PM_U8, 1, &four), PM_OK);
    assert_int_equal(safetensors_declare(w, "b", PM_U8, 1, &two), PM_OK);
    return w;
}

static void assert_nothing_left(void **state)
{
    assert_int_not_equal(access(in(state, "w"), F_OK), 0);
    assert_int_not_equal(access(in(state, "w.tmp"), F_OK), 0);
}

static void a_writer_with_missing_bytes_leaves_nothing(void **state)
{
    struct safetensors_writer *w = two_writer(state);
    assert_int_equal(safetensors_write(w, "1234", 4), PM_OK);
    assert_int_equal(safetensors_write(w, "5", 1), PM_OK);
    assert_int_equal(safetensors_finish(w), PM_ERR_ARG);
    assert_said("w: tensor b: 1 bytes written, wanted 2");
    assert_nothing_left(state);
    assert_int_equal(safetensors_finish(two_writer(state)), PM_ERR_ARG);
    assert_said("tensor a: 0 bytes written, wanted 4");
    assert_nothing_left(state);
}

static void a_writer_with_too_many_bytes_leaves_nothing(void **state)
{
    struct safetensors_writer *w = two_writer(state);
    assert_int_equal(safetensors_write(w, "12345", 5), PM_ERR_ARG);
    assert_said("w: tensor a: 5 bytes after 0, wanted 4 in all");
    assert_int_equal(safetensors_write(w, "1234", 4), PM_ERR_ARG); /* a failure is final */
    assert_int_equal(safetensors_finish(w), PM_ERR_ARG);
    assert_said("tensor a: 5 bytes");
    assert_nothing_left(state);
    w = two_writer(state);
    assert_int_equal(safetensors_write(w, "1234", 4), PM_OK);
    assert_int_equal(safetensors_write(w, "12", 2), PM_OK);
    assert_int_equal(safetensors_write(w, "1", 1), PM_ERR_ARG);
    assert_said("1 bytes more than the tensors declared");
    safetensors_abandon(w);
    assert_said("1 bytes more than"); /* the sentence outlives the writer */
    assert_nothing_left(state);
    safetensors_abandon(NULL);
}

static void what_the_reader_refuses_cannot_be_declared(void **state)
{
    const int64_t two = 2, minus = -1, huge[] = {1LL << 40, 1LL << 40};
    struct safetensors_writer *w = two_writer(state);
    assert_int_equal(safetensors_declare(w, "m", PM_MXFP4, 1, &two), PM_ERR_ARG);
    assert_said("w: tensor m: dtype MXFP4");
    safetensors_abandon(w);
    w = two_writer(state);
    assert_int_equal(safetensors_declare(w, "m", PM_U8, 1, &minus), PM_ERR_ARG);
    assert_said("dimension 0 is -1");
    safetensors_abandon(w);
    w = two_writer(state);
    assert_int_equal(safetensors_declare(w, "m", PM_U8, 2, huge), PM_ERR_ARG);
    assert_said("tensor m: dimension 1");
    safetensors_abandon(w);
    w = two_writer(state);
    assert_int_equal(safetensors_declare(w, "m", PM_U8, 9, huge), PM_ERR_ARG);
    assert_said("9 dimensions, wanted at most 8");
    safetensors_abandon(w);
    w = two_writer(state);
    assert_int_equal(safetensors_declare(w, "a", PM_U8, 1, &two), PM_OK);
    assert_int_equal(safetensors_write(w, "1234", 4), PM_ERR_FORMAT);
    assert_said("w: a: found an object, wanted each key once");
    safetensors_abandon(w);
    assert_nothing_left(state);
}

static void writing_where_one_cannot_is_an_io_error(void **state)
{
    struct safetensors_writer *w = NULL;
    assert_int_equal(safetensors_create(&w, in(state, "no/such")), PM_ERR_IO);
    assert_said("no/such.tmp: No such file");
    assert_null(w);
}

/* A file size limit stands for the full disk. */
static void a_full_disk_is_an_io_error_and_leaves_the_old_file(void **state)
{
    const int64_t n = 1 << 20;
    char *data = calloc(1, (size_t)n);
    struct rlimit old, small;
    struct safetensors_writer *w;
    pm_status status;
    write_file(in(state, "w"), "old", 3);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 1 << 16;
    assert_int_equal(safetensors_create(&w, in(state, "w")), PM_OK);
    assert_int_equal(safetensors_declare(w, "a", PM_U8, 1, &n), PM_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    status = safetensors_write(w, data, (size_t)n);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, PM_ERR_IO);
    assert_said("w.tmp: File too large");
    assert_int_equal(safetensors_finish(w), PM_ERR_IO);
    assert_said("w.tmp: File too large");
    assert_int_not_equal(access(in(state, "w.tmp"), F_OK), 0);
    assert_int_equal(access(in(state, "w"), F_OK), 0);
    free(data);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_file_is_opened_and_read),
        cmocka_unit_test(unusual_files_are_accepted),
        cmocka_unit_test(every_type_of_the_format_is_known),
        cmocka_unit_test(malformed_tensors_are_refused),
        cmocka_unit_test(malformed_headers_are_refused),
        cmocka_unit_test(overlaps_and_gaps_are_refused),
        cmocka_unit_test(names_cannot_break_a_message),
        cmocka_unit_test(lengths_are_checked_before_they_are_used),
        cmocka_unit_test(each_cut_of_a_good_file_is_refused),
        cmocka_unit_test(a_failure_of_the_caller_ends_the_check),
        IN_FOLDER(what_is_no_file_is_refused_without_waiting),
        IN_FOLDER(a_folder_prefers_the_single_file),
        IN_FOLDER(shards_are_one_checkpoint),
        IN_FOLDER(the_index_decides_which_shard_a_tensor_comes_from),
        IN_FOLDER(an_index_that_its_shards_do_not_meet_is_refused),
        IN_FOLDER(index_names_cannot_leave_the_folder),
        IN_FOLDER(malformed_indexes_are_refused),
        IN_FOLDER(fifty_thousand_tensors_open_fast),
        cmocka_unit_test(golden_checkpoints_open),
        IN_FOLDER(the_writer_round_trips),
        IN_FOLDER(an_empty_file_can_be_written),
        IN_FOLDER(a_writer_with_missing_bytes_leaves_nothing),
        IN_FOLDER(a_writer_with_too_many_bytes_leaves_nothing),
        IN_FOLDER(what_the_reader_refuses_cannot_be_declared),
        IN_FOLDER(writing_where_one_cannot_is_an_io_error),
        IN_FOLDER(a_full_disk_is_an_io_error_and_leaves_the_old_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
