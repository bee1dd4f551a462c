/* sequence.c - feeds tokens of one sequence to the model, a step at a time. */
#include "sequence.h"

#include <stdlib.h>
#include <string.h>

pm_status sequence_open(struct sequence *s, struct model *model)
{
    const struct model_options *o = model_limits(model);
    pm_status status;
    memset(s, 0, sizeof *s);
    s->model = model;
    s->n_block = (int)min_i64((o->context + KV_BLOCK - 1) / KV_BLOCK, model_blocks(model));
    TRY_DONE(alloc_array(&s->block, (size_t)s->n_block, sizeof *s->block, "sequence"));
    TRY_DONE(alloc_array(&s->position, (size_t)o->max_row, sizeof *s->position, "sequence"));
    TRY_DONE(alloc_array(&s->out_row, (size_t)o->max_row, sizeof *s->out_row, "sequence"));
    TRY_DONE(alloc_array(&s->slot, (size_t)o->max_row, sizeof *s->slot, "sequence"));
    for (int i = 0; i < s->n_block; i++) {
        s->block[i] = i;
    }
done:
    if (status != PM_OK) sequence_close(s);
    return status;
}

void sequence_close(struct sequence *s)
{
    free(s->block);
    free(s->position);
    free(s->out_row);
    free(s->slot);
    memset(s, 0, sizeof *s);
}

void sequence_rewind(struct sequence *s, int n_keep)
{
    if (n_keep < s->n_past) s->n_past = n_keep;
}

static pm_status feed_step(struct sequence *s, const int32_t *id, int n, float *logits,
                           int n_out)
{
    int32_t q_start[2] = {0, n}, kv_len = s->n_past + n;
    struct batch b = {.n_row = n,
                      .n_seq = 1,
                      .n_out = n_out,
                      .id = id,
                      .position = s->position,
                      .slot = s->slot,
                      .q_start = q_start,
                      .kv_len = &kv_len,
                      .block_table = s->block,
                      .out_row = s->out_row};
    b.max_block = (kv_len + KV_BLOCK - 1) / KV_BLOCK;
    for (int i = 0; i < n; i++) {
        int position = s->n_past + i;
        s->position[i] = position;
        s->slot[i] = (int64_t)s->block[position / KV_BLOCK] * KV_BLOCK + position % KV_BLOCK;
        if (n_out == n) s->out_row[i] = i;
    }
    if (n_out == 1) s->out_row[0] = n - 1;
    TRY(model_forward(s->model, &b, logits));
    s->n_past += n;
    return PM_OK;
}

pm_status sequence_feed(struct sequence *s, const int32_t *id, int n, float *logits, bool all)
{
    const struct model_options *o = model_limits(s->model);
    int step = all ? (int)min_i64(o->max_row, o->max_out) : o->max_row;
    size_t vocab = (size_t)model_config(s->model)->vocab;
    int room = (int)min_i64(o->context, (int64_t)s->n_block * KV_BLOCK);
    if (n > room - s->n_past) {
        return fail(PM_ERR_TOO_LONG, "%d tokens after %d do not fit the context of %d", n,
                    s->n_past, room);
    }
    for (int i = 0; i < n; i += step) {
        int part = (int)min_i64(step, n - i);
        int n_out = !logits ? 0 : all ? part : i + part == n;
        float *to = logits && all ? logits + (size_t)i * vocab : logits;
        TRY(feed_step(s, id + i, part, to, n_out));
    }
    return PM_OK;
}
