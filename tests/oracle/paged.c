/* paged.c - see paged.h. */
#include <math.h>
#include <string.h>

#include "tests/oracle/paged.h"

static int blocks_of(int length)
{
    return (length + KV_BLOCK - 1) / KV_BLOCK;
}

static void *pool(struct rig *rig, const struct kv_layer *kv, int dim)
{
    int64_t n = kv->n_block * kv->n_kv_head * KV_BLOCK * dim;
    size_t size = (size_t)dtype_bits(kv->type) / 8;
    void *p = rig_take(rig, n, size);
    memset(p, 0xff, (size_t)n * size);
    return p;
}

struct paged paged_open(struct rig *rig, pm_dtype type, int n_kv_head, int k_dim, int v_dim,
                        const int *length, int n_seq)
{
    struct paged p = {.kv = {.type = type,
                             .n_kv_head = n_kv_head,
                             .k_dim = k_dim,
                             .v_dim = v_dim,
                             .n_block = 3},
                      .n_seq = n_seq,
                      .max_block = 1};
    int32_t *order;
    int next = 0;
    for (int s = 0; s < n_seq; s++) {
        p.kv.n_block += blocks_of(length[s]);
        /* One entry more than the longest needs. */
        if (blocks_of(length[s]) >= p.max_block) p.max_block = blocks_of(length[s]) + 1;
    }
    p.kv.k = pool(rig, &p.kv, k_dim);
    if (v_dim) p.kv.v = pool(rig, &p.kv, v_dim);
    order = rig_take(rig, p.kv.n_block, sizeof *order);
    for (int b = 0; b < p.kv.n_block; b++) {
        order[b] = b;
    }
    rig_shuffle(rig, order, (int)p.kv.n_block);
    p.block_table = rig_take(rig, (int64_t)n_seq * p.max_block, sizeof *p.block_table);
    for (int i = 0; i < n_seq * p.max_block; i++) {
        bool used = i % p.max_block < blocks_of(length[i / p.max_block]);
        p.block_table[i] = used ? order[next++] : -1;
    }
    return p;
}

struct attention_rows paged_rows(struct rig *rig, const struct paged *p,
                                 const struct piece *piece, int n, int n_padding)
{
    struct attention_rows rows = {.n_seq = n, .max_block = p->max_block};
    int32_t *q_start = rig_take(rig, n + 1, sizeof *q_start);
    int32_t *kv_len = rig_take(rig, n, sizeof *kv_len);
    int32_t *table = rig_take(rig, (int64_t)n * p->max_block, sizeof *table);
    int32_t *position;
    int64_t *slot;
    for (int i = 0; i < n; i++) {
        q_start[i + 1] = q_start[i] + piece[i].end - piece[i].first + n_padding;
        kv_len[i] = piece[i].end;
        memcpy(table + (int64_t)i * p->max_block,
               p->block_table + (int64_t)piece[i].seq * p->max_block,
               (size_t)p->max_block * sizeof *table);
    }
    rows.n_row = q_start[n];
    position = rig_take(rig, rows.n_row, sizeof *position);
    slot = rig_take(rig, rows.n_row, sizeof *slot);
    for (int i = 0; i < n; i++) {
        for (int r = q_start[i], at = piece[i].first; r < q_start[i + 1]; r++, at++) {
            const int32_t *block = table + (int64_t)i * p->max_block;
            position[r] = at < piece[i].end ? at : 0;
            slot[r] = at < piece[i].end
                          ? (int64_t)block[at / KV_BLOCK] * KV_BLOCK + at % KV_BLOCK
                          : -1;
        }
    }
    rows.position = position;
    rows.slot = slot;
    rows.q_start = q_start;
    rows.kv_len = kv_len;
    rows.block_table = table;
    return rows;
}

struct tensor paged_gather(struct rig *rig, const struct tensor *each,
                           const struct piece *piece, int n, int n_padding)
{
    struct tensor t;
    int64_t rows = 0, r = 0, cols = each[0].cols;
    for (int i = 0; i < n; i++) {
        rows += piece[i].end - piece[i].first + n_padding;
    }
    t = rig_matrix(rig, rows, cols);
    for (int i = 0; i < n; i++) {
        for (int at = piece[i].first; at < piece[i].end + n_padding; at++, r++) {
            if (at < piece[i].end) {
                memcpy(rig_row(&t, r), rig_row(&each[piece[i].seq], at),
                       (size_t)cols * sizeof(float));
                continue;
            }
            for (int64_t c = 0; c < cols; c++) {
                rig_row(&t, r)[c] = NAN;
            }
        }
    }
    return t;
}
