/* trace_test.c - routing traces: what is stored where, the file's bytes, files that lie. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/trace.h"
#include "tests/moe/variant.h"

static char path[] = "/tmp/polymath-trace-XXXXXX";

static int make_path(void **state)
{
    int file = mkstemp(path);
    (void)state;
    return file < 0 ? -1 : close(file);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_bytes(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* 3 tokens through layers 1 and 3, which choose 2 and 1 of 4 experts. */
static struct trace *small_trace(void)
{
    static const int32_t first[] = {3, 0, 1, 2}, last[] = {2, 3}, one[] = {1, 0, 2};
    struct config *c = variant_of("llama4_text", "num_local_experts", "4");
    struct trace *t = NULL;
    c->gate.top_k = 2;
    if (trace_new(&t, c, 3) != PM_OK) FAIL("%s", pm_last_error());
    config_free(c);
    trace_add(t, 1, 0, 2, 2, first);
    trace_add(t, 1, 2, 1, 2, last);
    trace_add(t, 3, 0, 3, 1, one);
    return t;
}

static void choices_stand_by_layer_and_token(void **state)
{
    struct trace *t = small_trace();
    static const uint16_t want[] = {3, 0, 1, 2, 2, 3};
    (void)state;
    assert_true(t->n_token == 3 && t->n_layer == 2 && t->n_expert == 4 && t->top_k == 2);
    assert_true(t->layer[0] == 1 && t->layer[1] == 3);
    assert_memory_equal(t->id, want, sizeof want);
    trace_free(t);
    trace_free(NULL);
}

static void what_was_not_chosen_is_marked(void **state)
{
    struct config *c = variant_of("mixtral", NULL, NULL);
    static const int32_t id[] = {4, 1};
    struct trace *t = NULL;
    (void)state;
    assert_int_equal(trace_new(&t, c, 5), PM_OK);
    trace_add(t, 1, 2, 1, 2, id);
    for (uint32_t i = 0; i < 2 * 5 * 2; i++) {
        assert_int_equal(t->id[i], i == 14 ? 4 : i == 15 ? 1 : TRACE_NONE);
    }
    config_free(c);
    trace_free(t);
}

static void choices_outside_of_the_trace_are_left_out(void **state)
{
    struct trace *t = small_trace();
    static const int32_t id[] = {0, 0, 0, 0, 0, 0};
    uint16_t before[12];
    (void)state;
    memcpy(before, t->id, sizeof before);
    trace_add(t, 0, 0, 3, 2, id); /* a dense layer */
    trace_add(t, 7, 0, 3, 2, id);
    trace_add(t, 1, 3, 3, 2, id); /* past the last token */
    trace_add(t, 1, UINT32_MAX, 3, 2, id);
    trace_add(t, 1, 0, 0, 2, id);
    assert_memory_equal(t->id, before, sizeof before);
    trace_add(t, 1, 2, 3, 2, id); /* one of three fits */
    assert_int_equal(t->id[4], 0);
    assert_memory_equal(t->id, before, 4 * sizeof *before);
    assert_memory_equal(t->id + 6, before + 6, 6 * sizeof *before);
    trace_free(t);
}

static void a_dense_model_has_no_trace(void **state)
{
    struct config *c = variant_of("llama_plain", NULL, NULL);
    struct trace *t = NULL;
    (void)state;
    assert_int_equal(trace_new(&t, c, 3), PM_ERR_UNSUPPORTED);
    assert_non_null(strstr(pm_last_error(), "llama"));
    assert_null(t);
    config_free(c);
}

/* The format is a promise to other programs. */
static void the_file_is_the_documented_bytes(void **state)
{
    static const unsigned char want[] = {
        'P', 'M', 'R', 'O', 'U', 'T', 'E', '1', 3,   0,   0, 0, 2,   0,   0, 0, 4,   0,  0,
        0,   2,   0,   0,   0,   1,   0,   0,   0,   3,   0, 0, 0,   3,   0, 0, 0,   1,  0,
        2,   0,   2,   0,   3,   0,   1,   0,   255, 255, 0, 0, 255, 255, 2, 0, 255, 255};
    unsigned char got[100];
    struct trace *t = small_trace();
    FILE *f;
    (void)state;
    assert_int_equal(trace_write(t, path), PM_OK);
    f = fopen(path, "rb");
    assert_int_equal(fread(got, 1, sizeof got, f), sizeof want);
    fclose(f);
    assert_memory_equal(got, want, sizeof want);
    trace_free(t);
}

static void a_trace_reads_back(void **state)
{
    struct trace *t = small_trace(), *again = NULL;
    (void)state;
    assert_int_equal(trace_write(t, path), PM_OK);
    if (trace_read(&again, path) != PM_OK) FAIL("%s", pm_last_error());
    assert_true(again->n_token == 3 && again->n_layer == 2 && again->n_expert == 4);
    assert_int_equal(again->top_k, 2);
    assert_memory_equal(again->layer, t->layer, 2 * sizeof *t->layer);
    assert_memory_equal(again->id, t->id, 12 * sizeof *t->id);
    trace_free(t);
    trace_free(again);
}

static void an_empty_trace_reads_back(void **state)
{
    struct config *c = variant_of("mixtral", NULL, NULL);
    struct trace *t = NULL, *again = NULL;
    (void)state;
    assert_int_equal(trace_new(&t, c, 0), PM_OK);
    assert_int_equal(trace_write(t, path), PM_OK);
    assert_int_equal(trace_read(&again, path), PM_OK);
    assert_true(again->n_token == 0 && again->n_layer == 2);
    config_free(c);
    trace_free(t);
    trace_free(again);
}

static void refuse(const void *bytes, size_t n, const char *part)
{
    struct trace *t = NULL;
    pm_status status;
    write_bytes(bytes, n);
    status = trace_read(&t, path);
    if (status != PM_ERR_FORMAT) FAIL("%s: status %d: %s", part, status, pm_last_error());
    assert_null(t);
    if (!strstr(pm_last_error(), path)) FAIL("no file in: %s", pm_last_error());
    if (!strstr(pm_last_error(), part)) FAIL("no \"%s\" in: %s", part, pm_last_error());
}

/* A file of one layer whose header says this, with n_id ids after it. */
static size_t file_of(unsigned char *bytes, const uint32_t head[4], const uint16_t *id,
                      size_t n_id)
{
    uint32_t layer = 0;
    memcpy(bytes, "PMROUTE1", 8);
    memcpy(bytes + 8, head, 16);
    memcpy(bytes + 24, &layer, 4);
    if (n_id) memcpy(bytes + 28, id, n_id * sizeof *id);
    return 28 + n_id * sizeof *id;
}

static void broken_files_are_refused(void **state)
{
    static const uint32_t good[] = {2, 1, 8, 2}, many[] = {0x40000001, 1, 8, 2};
    static const uint32_t layers[] = {2, 4097, 8, 2}, experts[] = {2, 1, 4097, 2};
    static const uint32_t wide[] = {2, 1, 8, 9};
    static const uint16_t id[] = {0, 7, TRACE_NONE, 3, 0}, bad[] = {0, 7, 8, 3};
    unsigned char bytes[64];
    struct trace *t = NULL;
    size_t n = file_of(bytes, good, id, 4);
    (void)state;
    write_bytes(bytes, n);
    assert_int_equal(trace_read(&t, path), PM_OK);
    trace_free(t);
    for (size_t cut = 0; cut < n; cut++) {
        refuse(bytes, cut, cut < 24 ? "PMROUTE1" : "size");
    }
    refuse(bytes, file_of(bytes, good, id, 5), "size");
    refuse(bytes, file_of(bytes, good, bad, 4), "id 2");
    refuse(bytes, file_of(bytes, many, id, 4), "tokens");
    refuse(bytes, file_of(bytes, layers, id, 4), "4097 layers");
    refuse(bytes, file_of(bytes, experts, id, 4), "4097 experts");
    refuse(bytes, file_of(bytes, wide, id, 4), "top 9");
    n = file_of(bytes, good, id, 4);
    bytes[7] = '2';
    refuse(bytes, n, "PMROUTE1");
}

/* A header alone must not take memory for what it claims: here for 32 PiB. */
static void a_header_that_claims_too_much_is_refused(void **state)
{
    static const uint32_t huge[] = {1u << 30, 4096, 4096, 4096};
    static const uint16_t id[] = {0};
    unsigned char bytes[64];
    (void)state;
    refuse(bytes, file_of(bytes, huge, id, 1), "size");
}

static void files_out_of_reach_are_named(void **state)
{
    struct trace *t = small_trace(), *none = NULL;
    (void)state;
    assert_int_equal(trace_write(t, "/tmp/polymath-no-such-folder/trace"), PM_ERR_IO);
    assert_non_null(strstr(pm_last_error(), "/tmp/polymath-no-such-folder/trace: "));
    assert_int_equal(trace_read(&none, "/tmp/polymath-no-such-folder/trace"), PM_ERR_IO);
    assert_non_null(strstr(pm_last_error(), "/tmp/polymath-no-such-folder/trace: "));
    if (access("/dev/full", W_OK) == 0)
        assert_int_equal(trace_write(t, "/dev/full"), PM_ERR_IO);
    assert_null(none);
    trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_stand_by_layer_and_token),
        cmocka_unit_test(what_was_not_chosen_is_marked),
        cmocka_unit_test(choices_outside_of_the_trace_are_left_out),
        cmocka_unit_test(a_dense_model_has_no_trace),
        cmocka_unit_test(the_file_is_the_documented_bytes),
        cmocka_unit_test(a_trace_reads_back),
        cmocka_unit_test(an_empty_trace_reads_back),
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(a_header_that_claims_too_much_is_refused),
        cmocka_unit_test(files_out_of_reach_are_named),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
