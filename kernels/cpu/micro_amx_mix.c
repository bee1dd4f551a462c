/* micro_amx_mix.c - weighted sums of cached values on AMX, see struct mix.
 *
 *   sum[q][i] += weight[q][j] v[j][i]      16 x 16 sums, 32 rows v
 *
 * Weights are the first operand as they lie; of the second, a register's row holds pairs of
 * rows of v, so a panel interleaves them. Panels are multiplied in their order, sums come from
 * memory and go back there as they are: the bits of a query depend on its weights and panels
 * alone.
 *
 * Bytes: panels once for 16 queries, sums twice a call. Limiter: the unit, 16 cycles for each
 * 32 x 16 values of 16 queries, and nearly as long the making of panels for 64. */
#include "kernels/cpu/micro_amx.h"
#include "kernels/cpu/micro_amx_unit.h"

void amx_mix_pack(void *panel, const void *const *v, int64_t dim)
{
    const __m512i low = _mm512_setr_epi32(0x00200000, 0x00210001, 0x00220002, 0x00230003,
                                          0x00240004, 0x00250005, 0x00260006, 0x00270007,
                                          0x00280008, 0x00290009, 0x002a000a, 0x002b000b,
                                          0x002c000c, 0x002d000d, 0x002e000e, 0x002f000f);
    const __m512i high = _mm512_or_si512(low, _mm512_set1_epi32(0x00100010));
    char *to = panel;
    for (int64_t i = 0; i < dim; i += STEP, to += 2 * SUMS * 4) {
        __mmask32 mask = dim - i >= STEP ? ~0u : (1u << (dim - i)) - 1;
        for (int j = 0; j < SIDE; j++) {
            __m512i a = _mm512_setzero_si512(), b = a;
            if (v[2 * j]) a = _mm512_maskz_loadu_epi16(mask, (const uint16_t *)v[2 * j] + i);
            if (v[2 * j + 1]) {
                b = _mm512_maskz_loadu_epi16(mask, (const uint16_t *)v[2 * j + 1] + i);
            }
            _mm512_storeu_si512(to + j * LINE, _mm512_permutex2var_epi16(a, low, b));
            if (dim - i > SIDE) {
                _mm512_storeu_si512(to + SUMS * 4 + j * LINE,
                                    _mm512_permutex2var_epi16(a, high, b));
            }
        }
    }
}

/* Registers 0 to 3 hold sums of n queries, 4 their weights, 5 and 6 values. */
static void configure_mix(int n)
{
    struct shape s = {.palette = 1};
    for (int r = 0; r < 7; r++) {
        s.rows[r] = (uint8_t)(r < 5 ? n : SIDE);
        s.row_bytes[r] = LINE;
    }
    load_shape(&s);
}

/* Up to 16 queries, n (a constant) registers of sums. */
ALWAYS_INLINE void mix_columns(const struct mix *op, const uint16_t *weight, const char *panel,
                               float *sum, int n)
{
    int64_t sum_stride = op->sum_stride * 4, weight_stride = op->weight_stride * 2;
    int64_t panel_bytes = MICRO_PACKED_STEP * op->dim * 2;
    _tile_loadd(0, sum, sum_stride);
    if (n > 1) _tile_loadd(1, sum + SIDE, sum_stride);
    if (n > 2) _tile_loadd(2, sum + 2 * SIDE, sum_stride);
    if (n > 3) _tile_loadd(3, sum + 3 * SIDE, sum_stride);
    for (int i = 0; i < op->n_panel; i++, weight += STEP, panel += panel_bytes) {
        _tile_loadd(4, weight, weight_stride);
        _tile_loadd(5, panel, LINE);
        _tile_dpbf16ps(0, 4, 5);
        if (n > 1) {
            _tile_loadd(6, panel + SUMS * 4, LINE);
            _tile_dpbf16ps(1, 4, 6);
        }
        if (n > 2) {
            _tile_loadd(5, panel + 2 * SUMS * 4, LINE);
            _tile_dpbf16ps(2, 4, 5);
        }
        if (n > 3) {
            _tile_loadd(6, panel + 3 * SUMS * 4, LINE);
            _tile_dpbf16ps(3, 4, 6);
        }
    }
    _tile_stored(0, sum, sum_stride);
    if (n > 1) _tile_stored(1, sum + SIDE, sum_stride);
    if (n > 2) _tile_stored(2, sum + 2 * SIDE, sum_stride);
    if (n > 3) _tile_stored(3, sum + 3 * SIDE, sum_stride);
}

void amx_mix(const struct mix *op)
{
    int was = 0;
    for (int q = 0; q < op->n_query; q += SIDE) {
        int n = (int)min_i64(SIDE, op->n_query - q);
        const uint16_t *weight = op->weight + q * op->weight_stride;
        float *sum = op->sum + q * op->sum_stride;
        const char *panel = op->panels;
        if (n != was) configure_mix(n);
        was = n;
        for (int64_t i = 0; i < op->dim;
             i += 4 * SIDE, sum += 4 * SIDE, panel += 4 * SUMS * 4) {
            switch (min_i64(4, (op->dim - i) / SIDE)) {
            case 4: mix_columns(op, weight, panel, sum, 4); break;
            case 3: mix_columns(op, weight, panel, sum, 3); break;
            case 2: mix_columns(op, weight, panel, sum, 2); break;
            default: mix_columns(op, weight, panel, sum, 1);
            }
        }
    }
    _tile_release();
    memory_barrier();
}
