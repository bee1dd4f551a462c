/* matrix.cpp - ldmatrix, stmatrix, mma and wgmma. Layouts follow the fragment figures and the
 * matrix-descriptor tables of the PTX ISA; the canonical layouts behind the descriptors are
 * those of CUTLASS, include/cute/arch/mma_sm90_desc.hpp.
 *
 * Products are summed in f32 in ascending k: hardware sums in another order and precision, so
 * results compare within a tolerance. */
#include "core.hpp"

namespace emu {
/* --------------------------------------------------------------------------- numbers */
static inline float float_of(uint32_t bits)
{
    float f;
    __builtin_memcpy(&f, &bits, 4);
    return f;
}

static inline float from_bf16(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

static inline float from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, bits = (uint32_t)(h & 0x7fff) << 13;
    if ((h & 0x7c00) == 0x7c00) return float_of(sign | 0x7f800000 | bits);
    return float_of(sign | 0x3f800000) * (float_of(bits) * 0x1p112f);
}

static inline float from_e4m3(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80) << 24, bits = (uint32_t)(b & 0x7f) << 20;
    if ((b & 0x7f) == 0x7f) return float_of(0x7fc00000);
    return float_of(sign | 0x3f800000) * (float_of(bits) * 0x1p120f);
}

static inline float from_16(uint16_t h, int type)
{
    return type == WGMMA_F16 ? from_f16(h) : from_bf16(h);
}

/* ------------------------------------------------------------- ldmatrix and stmatrix */
struct MatrixMove {
    uint32_t *r;
    char *row;
    int n;
    bool trans;
};

static char *matrix_row(const char *what, const void *row, int n)
{
    if ((int)worker->running->lane >= n * 8) return nullptr;
    if ((uintptr_t)row % 16) die("%s: row address %p is not 16-byte aligned", what, row);
    return smem_ptr(smem_off(row), 16);
}

/* The half h of lane l's register of a matrix: row and column. */
static void matrix_place(int l, int h, bool trans, int *row, int *col)
{
    int a = l / 4, b = l % 4 * 2 + h;
    *row = trans ? b : a;
    *col = trans ? a : b;
}

void ldmatrix(uint32_t *r, const void *row, int n, bool trans)
{
    MatrixMove x = {r, matrix_row("ldmatrix", row, n), n, trans};
    if (x.row) tsan_read(x.row, 16);
    static const char *const names[] = {"ldmatrix", "ldmatrix_trans"};
    warp_meet(~0u, names[trans], false, &x, [](Meeting *m) {
        const MatrixMove *first = (MatrixMove *)m->pay[0];
        uint16_t v[4][8][8];
        for (int i = 0; i < first->n * 8; i++)
            __builtin_memcpy(v[i / 8][i % 8], ((MatrixMove *)m->pay[i])->row, 16);
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < first->n; i++) {
                uint32_t word = 0;
                for (int h = 0; h < 2; h++) {
                    int a, b;
                    matrix_place(l, h, first->trans, &a, &b);
                    word |= (uint32_t)v[i][a][b] << 16 * h;
                }
                ((MatrixMove *)m->pay[l])->r[i] = word;
            }
    });
}

void stmatrix(const uint32_t *r, void *row, int n, bool trans)
{
    need_cc(90, "stmatrix");
    MatrixMove x = {(uint32_t *)r, matrix_row("stmatrix", row, n), n, trans};
    if (x.row) tsan_write(x.row, 16);
    static const char *const names[] = {"stmatrix", "stmatrix_trans"};
    warp_meet(~0u, names[trans], false, &x, [](Meeting *m) {
        const MatrixMove *first = (MatrixMove *)m->pay[0];
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < first->n; i++)
                for (int h = 0; h < 2; h++) {
                    int a, b;
                    matrix_place(l, h, first->trans, &a, &b);
                    uint16_t v = (uint16_t)(((MatrixMove *)m->pay[l])->r[i] >> 16 * h);
                    __builtin_memcpy(((MatrixMove *)m->pay[i * 8 + a])->row + 2 * b, &v, 2);
                }
    });
}

/* -------------------------------------------------------------------- mma.m16n8k16 */
struct Mma {
    float *d;
    const uint32_t *a;
    uint32_t b[2];
    bool f16;
};

static void mma_run(Meeting *m)
{
    float A[16][16], B[16][8], D[16][8];
    int type = ((Mma *)m->pay[0])->f16 ? WGMMA_F16 : WGMMA_BF16;
    for (int l = 0; l < 32; l++) {
        const Mma *x = (Mma *)m->pay[l];
        int g = l / 4, t = l % 4 * 2;
        for (int h = 0; h < 2; h++) {
            for (int r = 0; r < 4; r++)
                A[g + r % 2 * 8][t + h + r / 2 * 8] =
                    from_16((uint16_t)(x->a[r] >> 16 * h), type);
            for (int r = 0; r < 2; r++)
                B[t + h + r * 8][g] = from_16((uint16_t)(x->b[r] >> 16 * h), type);
        }
        for (int r = 0; r < 4; r++)
            D[g + r / 2 * 8][t + r % 2] = x->d[r];
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++) {
            float x = A[i][k];
            for (int j = 0; j < 8; j++)
                D[i][j] += x * B[k][j];
        }
    for (int l = 0; l < 32; l++) {
        Mma *x = (Mma *)m->pay[l];
        int g = l / 4, t = l % 4 * 2;
        for (int r = 0; r < 4; r++)
            x->d[r] = D[g + r / 2 * 8][t + r % 2];
    }
}

void mma(float *d, const uint32_t *a, uint32_t b0, uint32_t b1, bool f16)
{
    static const char *const names[] = {"mma_bf16_16816", "mma_f16_16816"};
    Mma x = {d, a, {b0, b1}, f16};
    warp_meet(~0u, names[f16], false, &x, mma_run);
}

/* ----------------------------------------------------------------------------- wgmma
 * A descriptor's swizzle field counts 0 none, 1 128, 2 64, 3 32 bytes. */
struct Descriptor {
    unsigned start, leading, stride;
    int swizzle;    /* as a tensor map counts */
    unsigned width; /* bytes of an atom's row */
};

static Descriptor descriptor(uint64_t bits)
{
    static const int mode[] = {0, 3, 2, 1};
    static const unsigned width[] = {16, 128, 64, 32};
    int code = (int)(bits >> 62);
    if (bits >> 49 & 7) die("wgmma: a descriptor with a base offset is not emulated");
    return {(unsigned)(bits & 0x3fff) << 4, (unsigned)(bits >> 16 & 0x3fff) << 4,
            (unsigned)(bits >> 32 & 0x3fff) << 4, mode[code], width[code]};
}

/* The address of 16 bytes of an operand. K-major: row, bytes 16 c of its k range. */
static unsigned k_major_at(const Descriptor *d, int row, int c)
{
    unsigned r = (unsigned)row, k = (unsigned)c;
    if (!d->swizzle) return d->start + r / 8 * d->stride + k * d->leading + r % 8 * 16;
    return swizzle(d->start + r / 8 * d->stride + r % 8 * d->width + k * 16, d->swizzle);
}

/* MN-major: k, the values 8 c .. 8 c + 7 along M or N. */
static unsigned mn_major_at(const Descriptor *d, int k, int c)
{
    unsigned kk = (unsigned)k, m = (unsigned)c, per = d->width / 16;
    if (!d->swizzle) return d->start + m * d->stride + kk / 8 * d->leading + kk % 8 * 16;
    return swizzle(d->start + m / per * d->leading + m % per * 16 + kk / 8 * d->stride +
                       kk % 8 * d->width,
                   d->swizzle);
}

/* Rows row0 .. row0 + n - 1 of an operand, out[k * step + row]. */
static void operand(float *out, int step, uint64_t bits, bool mn_major, int row0, int n,
                    int type)
{
    Descriptor d = descriptor(bits);
    if (mn_major) {
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < n / 8; c++) {
                const char *s = smem_ptr(mn_major_at(&d, k, row0 / 8 + c), 16);
                tsan_read(s, 16);
                uint16_t v[8];
                __builtin_memcpy(v, s, 16);
                for (int i = 0; i < 8; i++)
                    out[k * step + c * 8 + i] = from_16(v[i], type);
            }
        return;
    }
    for (int r = 0; r < n; r++)
        for (int c = 0; c < 2; c++) {
            const char *s = smem_ptr(k_major_at(&d, row0 + r, c), 16);
            tsan_read(s, 16);
            unsigned char b[16];
            __builtin_memcpy(b, s, 16);
            if (type == WGMMA_E4M3) {
                for (int i = 0; i < 16; i++)
                    out[(c * 16 + i) * step + r] = from_e4m3(b[i]);
            } else {
                for (int i = 0; i < 8; i++)
                    out[(c * 8 + i) * step + r] =
                        from_16((uint16_t)(b[2 * i] | b[2 * i + 1] << 8), type);
            }
        }
}

/* A from the registers of a warp, a[k][row]. The multiplication may read them until its wait.
 */
static void operand_regs(float (*out)[16], const WgmmaOp *o)
{
    for (int l = 0; l < 32; l++)
        for (int r = 0; r < 4; r++) {
            if (*(const volatile uint32_t *)&o->regs[l][r] != o->a[l][r])
                die("wgmma: registers of A changed before its wait");
            for (int h = 0; h < 2; h++)
                out[l % 4 * 2 + h + r / 2 * 8][l / 4 + r % 2 * 8] =
                    from_16((uint16_t)(o->a[l][r] >> 16 * h), o->type);
        }
}

static void wgmma_run(Warp *w, WgmmaOp *o)
{
    float A[32][16], B[32][256];
    int number = (int)(w - worker->warp), n = o->n, n_k = o->type == WGMMA_E4M3 ? 32 : 16;
    tsan_as(worker->companion[number], [&] {
        if (o->a_regs)
            operand_regs(A, o);
        else
            operand(&A[0][0], 16, o->da, o->ta, number % 4 * 16, 16, o->type);
        operand(&B[0][0], 256, o->db, o->tb, 0, n, o->type);
    });
    for (int i = 0; i < 16; i++) {
        float D[256];
        int l = i % 8 * 4, h = i / 8 * 2;
        for (int j = 0; j < n; j++)
            D[j] = o->scale_d ? o->d[l + j % 8 / 2][j / 8 * 4 + h + j % 2] : 0.0f;
        for (int k = 0; k < n_k; k++) {
            float x = A[k][i];
            for (int j = 0; j < n; j++)
                D[j] += x * B[k][j];
        }
        for (int j = 0; j < n; j++)
            o->d[l + j % 8 / 2][j / 8 * 4 + h + j % 2] = D[j];
    }
}

void wgmma_fence()
{
    need_cc(90, "wgmma_fence");
    warp_meet(~0u, "wgmma_fence", false, nullptr,
              [](Meeting *m) { m->warp->fenced = m->warp->fenced_regs = true; });
}

/* The four warps of a warpgroup must issue the same operations in the same order. */
static void wgmma_agree(Warp *w, const WgmmaForm *o)
{
    auto *h = &worker->history[(w - worker->warp) / 4][w->seq % 64];
    uint64_t form = (uint64_t)o->n << 8 | (uint64_t)o->type << 4 | (uint64_t)o->ta << 3 |
                    (uint64_t)o->tb << 2 | (uint64_t)o->scale_d << 1 | (uint64_t)o->a_regs;
    w->seq++;
    if (h->seq < w->seq) {
        h->a = o->da;
        h->b = o->db;
        h->form = form;
        h->seq = w->seq;
    } else if (h->seq == w->seq && (h->a != o->da || h->b != o->db || h->form != form)) {
        die("wgmma: the warps of a warpgroup issue different operations");
    }
}

struct WgmmaLane {
    WgmmaForm form;
    float *d;
    const uint32_t *a;
};

static void wgmma_issue(Meeting *m)
{
    const WgmmaLane *first = (WgmmaLane *)m->pay[0];
    Warp *w = m->warp;
    if (!w->fenced) die("wgmma without a wgmma_fence since the last wgmma_wait");
    if (first->a && !w->fenced_regs)
        die("wgmma of registers without a wgmma_fence since the last wgmma_commit");
    if (w->wgmma.n == MAX_WGMMA) die("wgmma: more than %d in flight", MAX_WGMMA);
    WgmmaOp *o = &w->wgmma.v[w->wgmma.n];
    *(WgmmaForm *)o = first->form;
    o->group = w->group;
    for (int l = 0; l < 32; l++) {
        const WgmmaLane *x = (WgmmaLane *)m->pay[l];
        if (x->form.da != o->da || x->form.db != o->db || x->form.scale_d != o->scale_d)
            die("wgmma: operands differ between lanes");
        o->d[l] = x->d;
        o->regs[l] = x->a;
        for (int r = 0; x->a && r < 4; r++)
            o->a[l][r] = x->a[r];
    }
    wgmma_agree(w, o);
    if (options.async == ASYNC_EAGER)
        wgmma_run(w, o);
    else
        w->wgmma.n++;
}

void wgmma(float *d, int n, int type, const uint32_t *a, uint64_t da, uint64_t db, int ta,
           int tb, int scale_d)
{
    static const char *const names[] = {"wgmma_bf16", "wgmma_f16", "wgmma_e4m3"};
    if (worker->n_thread % 128) die("wgmma: the block is not made of whole warpgroups");
    WgmmaLane x = {{da, db, n, type, ta, tb, scale_d != 0, a != nullptr}, d, a};
    warp_meet(~0u, names[type], false, &x, wgmma_issue);
}

void wgmma_commit()
{
    warp_meet(~0u, "wgmma_commit", false, nullptr, [](Meeting *m) {
        m->warp->group++;
        m->warp->fenced_regs = false;
    });
}

void wgmma_wait(int keep)
{
    warp_meet(~0u, "wgmma_wait", false, &keep, [](Meeting *m) {
        Warp *w = m->warp;
        int kept = 0, last = w->group - *(int *)m->pay[0];
        for (int i = 0; i < w->wgmma.n; i++) {
            WgmmaOp *o = &w->wgmma.v[i];
            if (o->group < last)
                wgmma_run(w, o);
            else
                w->wgmma.v[kept++] = *o;
        }
        w->wgmma.n = kept;
        w->fenced = false;
    });
    char *token = &worker->wgmma_token[worker->running->lin / 32];
    as_companion([=] { tsan_release(token); });
    tsan_acquire(token);
}
} // namespace emu
