/* batch_test.c - a step that would read or write beside its sequences is refused.
 *
 * One good batch of two sequences, and the same with one field changed: the sentence names the
 * sequence or the row, what was found and what was wanted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe/model.h"
#include "tests/moe/variant.h"

enum { CONTEXT = 40, ROWS = 6, SEQUENCES = 2, BLOCKS = 3 };

/* A batch that owns its arrays: 4 rows from position 30, 2 rows from position 0. */
struct case_batch {
    struct batch b;
    int32_t id[ROWS], position[ROWS], q_start[SEQUENCES + 1], kv_len[SEQUENCES];
    int32_t block[SEQUENCES * BLOCKS], out_row[SEQUENCES];
    int64_t slot[ROWS];
};

static void fill(struct case_batch *c)
{
    static const int32_t block[SEQUENCES * BLOCKS] = {4, 1, 3, 5, -1, 99};
    *c = (struct case_batch){.q_start = {0, 4, ROWS}, .kv_len = {34, 2}, .out_row = {3, 5}};
    memcpy(c->block, block, sizeof block);
    for (int r = 0; r < ROWS; r++) {
        int s = r >= 4;
        c->id[r] = r + 1;
        c->position[r] = s ? r - 4 : 30 + r;
        c->slot[r] = block[s * BLOCKS + c->position[r] / KV_BLOCK] * (int64_t)KV_BLOCK +
                     c->position[r] % KV_BLOCK;
    }
    c->b = (struct batch){ROWS,    SEQUENCES,  SEQUENCES, BLOCKS,   c->id,     c->position,
                          c->slot, c->q_start, c->kv_len, c->block, c->out_row};
}

static struct model *open_model(void)
{
    struct model_options o = {.device = "cpu",
                              .n_thread = 1,
                              .max_row = 8,
                              .max_seq = SEQUENCES,
                              .context = CONTEXT,
                              .kv_type = -1};
    struct model *m = NULL;
    if (model_open(&m, PM_SOURCE_DIR "/tests/golden/qwen3_moe", &o) != PM_OK) {
        FAIL("%s", pm_last_error());
    }
    return m;
}

static void what_the_sequences_need_is_enough(void **state)
{
    struct model *m = open_model();
    float *logits = malloc(SEQUENCES * (size_t)model_config(m)->vocab * sizeof *logits);
    struct case_batch c;
    (void)state;
    assert_non_null(logits);
    fill(&c); /* blocks that no token needs are not looked at */
    if (model_forward(m, &c.b, logits) != PM_OK) FAIL("%s", pm_last_error());
    fill(&c); /* a padding row has any position, and a sequence may have no rows */
    c.slot[5] = -1;
    c.position[5] = 39;
    if (model_forward(m, &c.b, logits) != PM_OK) FAIL("%s", pm_last_error());
    fill(&c);
    c.q_start[1] = ROWS;
    c.kv_len[0] = 40;
    c.kv_len[1] = 0;
    if (model_forward(m, &c.b, logits) != PM_OK) FAIL("%s", pm_last_error());
    free(logits);
    model_close(m);
}

static const struct wrong {
    const char *field;
    int index;
    int64_t value;
    const char *sentence;
} wrongs[] = {
    {"q_start", 0, 1, "batch: sequence 0 begins at row 1, wanted 0"},
    {"q_start", 0, -1, "batch: sequence 0 begins at row -1, wanted 0"},
    {"q_start", 1, -1, "batch: sequence 0 ends at row -1, wanted 0 to 6"},
    {"q_start", 1, 7, "batch: sequence 0 ends at row 7, wanted 0 to 6"},
    {"q_start", 2, 5, "batch: sequence 1 ends at row 5, wanted 6 to 6"},
    {"q_start", 2, 7, "batch: sequence 1 ends at row 7, wanted 6 to 6"},
    {"q_start", 2, 3, "batch: sequence 1 ends at row 3, wanted 6 to 6"},
    {"kv_len", 0, 33, "batch: position 33 of row 3, its sequence 0 has 33 tokens"},
    {"kv_len", 1, 0, "batch: position 0 of row 4, its sequence 1 has 0 tokens"},
    {"kv_len", 1, -1, "batch: sequence 1 has -1 tokens, wanted 0 to 40"},
    {"kv_len", 0, 41, "batch: sequence 0 has 41 tokens, wanted 0 to 40: the context is 40"},
    {"kv_len", 1, 17, "batch: block 1 of sequence 1 is -1, the pool has 6"},
    {"kv_len", 0, 2147483647, "batch: sequence 0 has 2147483647 tokens"},
    {"max_block", 0, 1,
     "batch: sequence 0 has 34 tokens, wanted 0 to 16: the context is 40, "
     "its blocks hold 16"},
    {"max_block", 0, -1, "batch: 6 rows, 2 sequences, 2 outputs, -1 blocks"},
    {"block", 2, 6, "batch: block 2 of sequence 0 is 6, the pool has 6"},
    {"block", 0, -1, "batch: block 0 of sequence 0 is -1, the pool has 6"},
    {"block", 3, 6, "batch: block 0 of sequence 1 is 6, the pool has 6"},
    {"position", 5, 2, "batch: position 2 of row 5, its sequence 1 has 2 tokens"},
    {"position", 5, -1, "batch: position -1 of row 5"},
    {"position", 0, 40, "batch: position 40 of row 0, the context is 40"},
    {"slot", 2, 96, "batch: slot 96 of row 2, the pool has 96"},
    {"id", 1, 96, "batch: token 96 of row 1, the vocabulary has 96"},
    {"id", 1, -1, "batch: token -1 of row 1"},
    {"out_row", 1, 6, "batch: output 1 is of row 6, the step has 6"},
    {"out_row", 0, -1, "batch: output 0 is of row -1, the step has 6"},
};

static void change(struct case_batch *c, const struct wrong *w)
{
    const struct {
        const char *field;
        int32_t *array;
    } fields[] = {{"q_start", c->q_start},       {"kv_len", c->kv_len}, {"block", c->block},
                  {"position", c->position},     {"id", c->id},         {"out_row", c->out_row},
                  {"max_block", &c->b.max_block}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(w->field, fields[i].field) == 0) {
            fields[i].array[w->index] = (int32_t)w->value;
            return;
        }
    }
    assert_string_equal(w->field, "slot");
    c->slot[w->index] = w->value;
}

static void what_does_not_fit_together_is_refused_by_name(void **state)
{
    struct model *m = open_model();
    (void)state;
    assert_int_equal(model_blocks(m), 6);
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        struct case_batch c;
        pm_status status;
        fill(&c);
        change(&c, &wrongs[i]);
        status = model_forward(m, &c.b, NULL);
        if (status != PM_ERR_ARG && status != PM_ERR_TOO_LONG) {
            FAIL("%s %d: status %d", wrongs[i].field, (int)i, status);
        }
        if (strncmp(pm_last_error(), wrongs[i].sentence, strlen(wrongs[i].sentence)) != 0) {
            FAIL("%s: \"%s\", wanted \"%s\"", wrongs[i].field, pm_last_error(),
                 wrongs[i].sentence);
        }
    }
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_sequences_need_is_enough),
        cmocka_unit_test(what_does_not_fit_together_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
