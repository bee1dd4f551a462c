// sm90_widen.cuh - wgmma with F8_E4M3 and MXFP4 weights: the tile as the file has it lies in
// shared memory, and each thread widens its share to BF16, exactly, into the registers from
// which wgmma takes its M operand. Activations are BF16, so a weight's rounding is the file's
// and the CPU computes the same products.
//
// A group is an atom times 32 values of k: two wgmmas, eight registers. There are two sets of
// these: while the tensor cores multiply with one, the other is filled, and the wait before it
// is filled again leaves one group in flight.
//
//   F8_E4M3  products of the 128 k of a block (a stage) are summed apart, atom by atom, times
//            the scale of their block, then added: of these sums one set of registers is
//            enough.
//   MXFP4    weights times their scale are exact in BF16. A scale holds for 32 k: of the four
//   of
//            a row and stage each lane of four has one, and hands it to the others.
//
// Scales come straight from memory: those of MXFP4 a step ahead, those of F8_E4M3 are wanted at
// the end of an atom only. In neither do rows need any alignment.
//
// Shared memory a group: 8 (F8) loads of 2 bytes, or 2 (MXFP4) of 16 that four lanes share,
// without bank conflicts. In the machine code a group has some 75 (F8) or 60 instructions
// beside two wgmmas of N / 2 cycles each: at most 27 or 17 bytes of weights a cycle and SM,
// where memory brings 13; and with 96 or 128 rows less than half of what two warpgroups may
// issue. Has not run on hardware yet.
#ifndef KERNELS_CUDA_SM90_WIDEN_CUH
#define KERNELS_CUDA_SM90_WIDEN_CUH

#include "kernels/cuda/linear_widen.cuh"
#include "kernels/cuda/sm90_ring.cuh"

#if GPU_SM90A
enum { SM90_GROUPS = 4 }; // of 32 values of k in a stage

// Of which rows of weights a thread has the scales.
struct sm90_scale_rows {
    int64_t row; // its first row of the first atom; the other is 8 below
    int expert;
};

// Row `half` of atom j, and the matrix that it is of. Beyond the matrix: its last row.
template <class S>
GPU_DEV const struct linear_stack &sm90_scale_row(int64_t &row, const struct sm90_args &a,
                                                  const struct sm90_scale_rows &s, int j,
                                                  int half)
{
    bool gated = a.p.glu.kind != GLU_NONE;
    row = s.row + half * 8 + (gated ? 0 : j * SM90_ATOM);
    if (row > a.p.n - 1) row = a.p.n - 1;
    return gated && j % 2 ? a.p.w_up : a.p.w;
}

// F8_E4M3: the factors of the thread's two rows of atom j for the 128 k of a step.
template <class S>
GPU_DEV void sm90_block_scales(float (&factor)[2], const struct sm90_args &a,
                               const struct sm90_scale_rows &s, int j, int step)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row;
        const struct linear_stack &w = sm90_scale_row<S>(row, a, s, j, h);
        int64_t block = (w.scale_row + s.expert * w.scale_expert_row + row) / F8_SCALE_SIDE;
        const char *at = w.scale + s.expert * w.scale_expert_stride + block * w.scale_stride;
        factor[h] = ((const float *)at)[step];
    }
}

// MXFP4: the codes of the lane's group of a step, of each of its rows.
template <class S>
GPU_DEV void sm90_unit_scales(uint32_t (&code)[S::atoms][2], const struct sm90_args &a,
                              const struct sm90_scale_rows &s, int step)
{
    int64_t unit = step * (int64_t)SM90_GROUPS + threadIdx.x % 4;
    bool exists = unit < a.p.k / MXFP4_SCALE_COLS;
#pragma unroll
    for (int i = 0; i < S::atoms * 2; i++) {
        int64_t row;
        const struct linear_stack &w = sm90_scale_row<S>(row, a, s, i / 2, i % 2);
        const char *at = w.scale + s.expert * w.scale_expert_stride + row * w.scale_stride;
        code[i / 2][i % 2] = exists ? ((const uint8_t *)at)[unit] : 0;
    }
}

// The thread's weights of group g of an atom, a[k16] as wgmma takes them: value 2 (lane % 4)
// and the next of 8 k, of row lane / 4 of the warp's 16 and of the one 8 below, in 16 k two
// times. scale: MXFP4, of the two rows.
template <pm_dtype TYPE>
GPU_DEV void sm90_widen(uint32_t (&a)[2][4], const unsigned char *atom, int g,
                        const uint32_t (&scale)[2])
{
    int tid = (int)threadIdx.x % SM90_WARPGROUP, lane = tid % 32;
    int first = tid / 32 * 16 + lane / 4, at = lane % 4;
    uint32_t out[2][2][2], codes[2][2], odd = 0; // [half][k16]
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = first + h * 8;
        if constexpr (TYPE == PM_MXFP4) {
            uint4 raw = *(const uint4 *)(atom + row * SM90_PANEL + g * 16);
            uint32_t pick = (uint32_t)(at | (at + 4) << 4); // byte `at` of two words
            uint32_t low = __byte_perm(raw.x, raw.y, pick),
                     high = __byte_perm(raw.z, raw.w, pick), four[4];
            widen_e2m1(four, __byte_perm(low, high, 0x5410), scale[h]);
#pragma unroll
            for (int i = 0; i < 4; i++)
                out[h][i / 2][i % 2] = four[i];
        } else {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const unsigned char *from = atom + swizzle_128(row, (g * 2 + i) * 16 + at * 2);
                uint32_t low = *(const uint16_t *)from, high = *(const uint16_t *)(from + 8);
                codes[h][i] = low | high << 16;
                widen_e4m3_numbers(out[h][i], codes[h][i]);
                odd |= widen_e4m3_odd(codes[h][i]);
            }
        }
    }
    if (__builtin_expect(odd != 0, 0)) { // never with MXFP4
#pragma unroll
        for (int i = 0; i < 4; i++)
            widen_e4m3_mend(out[i / 2][i % 2], codes[i / 2][i % 2]);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) // [k16][8 k, half]
        a[i / 4][i % 4] = out[i % 2][i / 4][i / 2 % 2];
}

// sum += factor of the row * part.
template <int N>
GPU_DEV void sm90_add_block(float (&sum)[N / 2], float (&part)[N / 2], const float (&factor)[2])
{
    wgmma_wait<0>();
    wgmma_hold(part);
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        sum[i] = fmaf(factor[i / 2 % 2], part[i], sum[i]);
}

// What sm90_multiply is to BF16. `rows`: the scales of the thread's rows.
template <class S, int N>
GPU_DEV void sm90_multiply_widened(float (&sum)[S::atoms][N / 2], const struct sm90_args &a,
                                   const struct sm90_view &v, struct sm90_ring &ring, int group,
                                   const struct sm90_scale_rows &rows)
{
    constexpr bool BLOCKS = S::type == PM_F8_E4M3;
    int n_step = sm90_steps<S>(a), lane = (int)threadIdx.x % 32;
    uint32_t w[2][2][4], scale[2] = {0, 0}, code[S::atoms][2], next[S::atoms][2];
    float part[BLOCKS ? N / 2 : 1], factor[2];
#pragma unroll
    for (int i = 0; i < S::atoms * N / 2; i++)
        sum[i / (N / 2)][i % (N / 2)] = 0.0f;
    if constexpr (!BLOCKS) sm90_unit_scales<S>(next, a, rows, 0);
#pragma unroll 1
    for (int step = 0; step < n_step; step++) {
        const unsigned char *stage =
            v.w + ring.stage * S::w_stage + group * S::atoms * S::w_atom;
        uint64_t x_desc = wgmma_desc_k128(smem_u32(v.x + ring.stage * S::x_stage));
        if constexpr (!BLOCKS) {
#pragma unroll
            for (int i = 0; i < S::atoms * 2; i++)
                code[i / 2][i % 2] = widen_e8m0(next[i / 2][i % 2]);
            sm90_unit_scales<S>(next, a, rows, step + 1);
        }
        mbar_wait(&v.full[ring.stage], ring.parity);
        fence_proxy_async(); // rows of x came through the generic proxy
#pragma unroll
        for (int q = 0; q < S::atoms * SM90_GROUPS; q++) {
            int j = q / SM90_GROUPS, g = q % SM90_GROUPS;
            uint64_t x = x_desc + g / 2 * (S::x_panel * 2 / 16) + g % 2 * 4; // 64 bytes along k
            if constexpr (!BLOCKS) {
#pragma unroll
                for (int h = 0; h < 2; h++)
                    scale[h] = __shfl_sync(0xffffffffu, code[j][h], (lane & ~3) | g);
            }
            sm90_widen<S::type>(w[q % 2], stage + j * S::w_atom, g, scale);
            if constexpr (BLOCKS) {
                if (g == 0 && j > 0) sm90_add_block<N>(sum[j - 1], part, factor);
                if (g == 0) sm90_block_scales<S>(factor, a, rows, j, step);
            }
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < 2; i++) { // 32 bytes along k
                if constexpr (BLOCKS) {
                    wgmma_bf16(part, w[q % 2][i], x + i * 2, g > 0 || i > 0);
                } else {
                    wgmma_bf16(sum[j], w[q % 2][i], x + i * 2);
                }
            }
            wgmma_commit();
            wgmma_wait<1>(); // the other set of registers is free
        }
        // Nothing is left in flight between steps: the compiler gives up overlap altogether
        // where registers are filled around a loop while a wgmma of the turn before runs.
        if constexpr (BLOCKS) {
            sm90_add_block<N>(sum[S::atoms - 1], part, factor);
        } else {
            wgmma_wait<0>();
        }
        __syncwarp(); // all lanes have read the stage's weights
        if (lane == 0) mbar_arrive(&v.empty[ring.stage]);
        sm90_advance<S>(ring);
    }
#pragma unroll
    for (int j = 0; j < S::atoms; j++)
        wgmma_hold(sum[j]);
}
#endif

#endif
