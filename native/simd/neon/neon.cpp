// NEON (every 64-bit ARM processor); compiled again with dot products (Cortex-A76, Apple M1 and later) and with bf16 and matrix
// products (Neoverse V1 and N2, Apple M2 and later).
#include "simd/neon/microkernel_quantized.h"

#include "simd/kernel_table.h"

namespace smolvlm {
namespace {

// Q quarters of a panel at a time: all four for few rows, which wait for memory; two for many, so that sums stay in registers.
template <Format F, int R, int Q>
inline void quarters_quantized(const MicroArgs& args) {
  const auto [a, lda, a_scales, a_neg_sums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, accumulate, fresh] = args;
  constexpr size_t kBytes = F == Format::q8 ? kBlock * kPanel : kBlock * kPanel / 2;
  float32x4_t sum[R][Q];
  for (int r = 0; r < R; r++)
    for (int q = 0; q < Q; q++) sum[r][q] = vdupq_n_f32(0);
  for (int b = 0; b < k / kBlock; b++) {
    int32x4_t dot[R][Q];
    const int8_t* x = reinterpret_cast<const int8_t*>(a) + b * kBlock;
#if defined(SMOLVLM_MATRIX)
    if constexpr (R > 1) block_of_pairs<F>(x, lda, a_neg_sums + b, lds, w + b * kBytes, dot);
    else
#endif
      block_of_rows<F>(x, lda, a_neg_sums + b, lds, w + b * kBytes, dot);
    for (int q = 0; q < Q; q++) {
      float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(scales + b * kPanel + q * kQuarter)));
      for (int r = 0; r < R; r++) sum[r][q] = vfmaq_f32(sum[r][q], vcvtq_f32_s32(dot[r][q]), vmulq_n_f32(scale, a_scales[r * lds + b]));
    }
  }
  for (int r = 0; r < R; r++)
    for (int q = 0; q < Q; q++) vst1q_f32(c + r * ldc + q * kQuarter, sum[r][q]);
}

struct Neon {
#if defined(SMOLVLM_MATRIX)
  static constexpr int kRowsBf16 = 6, kRowsQ8 = 6;
#elif defined(__ARM_FEATURE_DOTPROD)
  static constexpr int kRowsBf16 = 4, kRowsQ8 = 6;
#else
  static constexpr int kRowsBf16 = 4, kRowsQ8 = 4;
#endif

  template <Format F, int R, int P>
  static inline void microkernel(const MicroArgs& args) {
    for (int p = 0; p < P; p++) {
      MicroArgs one = args;
      one.w += p * args.panel_bytes;
      one.c += p * kPanel;
      if constexpr (F == Format::bf16) {
#if defined(SMOLVLM_MATRIX)
        if constexpr (R > 1) panel_bf16_matrix<R>(one.a, one.lda, one.w, one.k, one.c, one.ldc, one.accumulate);
        else
#endif
          panel_bf16<R>(one.a, one.lda, one.w, one.k, one.c, one.ldc, one.accumulate);
      } else {
        constexpr int kQuarters = R > 2 ? 2 : 4;
        for (int q = 0; q < 4; q += kQuarters) {
          MicroArgs some = one;
          some.w += q * 16;
          some.w_scales += p * args.panel_scales + q * kQuarter;
          some.c += q * kQuarter;
          quarters_quantized<F, R, kQuarters>(some);
        }
      }
    }
  }
};

}  // namespace
}  // namespace smolvlm

namespace smolvlm {
#if defined(SMOLVLM_MATRIX)
extern const Kernels kNeonBf16 = kernels_of<Neon>("neon_bf16");
#elif defined(__ARM_FEATURE_DOTPROD)
extern const Kernels kNeonDotprod = kernels_of<Neon>("neon_dotprod");
#else
extern const Kernels kNeon = kernels_of<Neon>("neon");
#endif
}  // namespace smolvlm
