// NEON (every 64-bit ARM processor); compiled again with dot products (Cortex-A76, Apple M1 and later) and with bf16 and matrix
// products (Neoverse V1 and N2, Apple M2 and later).
#include "neon_quantised.h"

namespace smolvlm {
namespace {

#if defined(SMOLVLM_MATRIX)
constexpr int kRowsBf16 = 6, kRowsQ8 = 6;
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr int kRowsBf16 = 4, kRowsQ8 = 6;
#else
constexpr int kRowsBf16 = 4, kRowsQ8 = 4;
#endif

// Q quarters of a panel at a time: all four for few rows, which wait for memory; two for many, so that sums stay in registers.
template <Format F, int R, int Q>
inline void part_quantised(const uint8_t* a, size_t lda, const float* a_scales, const int32_t* a_negsums, size_t lds,
                           const uint8_t* w, const uint16_t* scales, int k, float* c, size_t ldc) {
  constexpr size_t kBytes = F == Format::q8 ? kBlock * kPanel : kBlock * kPanel / 2;
  float32x4_t sum[R][Q];
  for (int r = 0; r < R; r++)
    for (int q = 0; q < Q; q++) sum[r][q] = vdupq_n_f32(0);
  for (int b = 0; b < k / kBlock; b++) {
    int32x4_t dot[R][Q];
    const int8_t* x = reinterpret_cast<const int8_t*>(a) + b * kBlock;
#if defined(SMOLVLM_MATRIX)
    if constexpr (R > 1) block_of_pairs<F>(x, lda, a_negsums + b, lds, w + b * kBytes, dot);
    else
#endif
      block_of_rows<F>(x, lda, a_negsums + b, lds, w + b * kBytes, dot);
    for (int q = 0; q < Q; q++) {
      float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(scales + b * kPanel + q * kQuarter)));
      for (int r = 0; r < R; r++)
        sum[r][q] = vfmaq_f32(sum[r][q], vcvtq_f32_s32(dot[r][q]), vmulq_n_f32(scale, a_scales[r * lds + b]));
    }
  }
  for (int r = 0; r < R; r++)
    for (int q = 0; q < Q; q++) vst1q_f32(c + r * ldc + q * kQuarter, sum[r][q]);
}

template <Format F, int R, int P>
inline void micro(const uint8_t* a, size_t lda, const float* a_scales, const int32_t* a_negsums, size_t lds, const uint8_t* w,
                  const uint16_t* scales, size_t panel_bytes, size_t panel_scales, int k, float* c, size_t ldc, bool more, bool) {
  for (int p = 0; p < P; p++, w += panel_bytes, c += kPanel) {
    if constexpr (F == Format::bf16) {
#if defined(SMOLVLM_MATRIX)
      if constexpr (R > 1) panel_bf16_matrix<R>(a, lda, w, k, c, ldc, more);
      else
#endif
        panel_bf16<R>(a, lda, w, k, c, ldc, more);
    } else {
      constexpr int kQuarters = R > 2 ? 2 : 4;
      for (int q = 0; q < 4; q += kQuarters)
        part_quantised<F, R, kQuarters>(a, lda, a_scales, a_negsums, lds, w + q * 16, scales + p * panel_scales + q * kQuarter, k,
                                        c + q * kQuarter, ldc);
    }
  }
}

}  // namespace
}  // namespace smolvlm

#include "attention.h"
#include "heads.h"
#include "product.h"

namespace smolvlm {
#if defined(SMOLVLM_MATRIX)
extern const Kernels kNeonBf16 = {"neon_bf16", 0, narrow, attend, pack_head, nullptr, nullptr,
        pack_row, rms_norm, layer_norm, to_bf16, from_bf16, rotate};
#elif defined(__ARM_FEATURE_DOTPROD)
extern const Kernels kNeonDotprod = {"neon_dotprod", 0, narrow, attend, pack_head, nullptr, nullptr,
        pack_row, rms_norm, layer_norm, to_bf16, from_bf16, rotate};
#else
extern const Kernels kNeon = {"neon", 0, narrow, attend, pack_head, nullptr, nullptr,
        pack_row, rms_norm, layer_norm, to_bf16, from_bf16, rotate};
#endif
}  // namespace smolvlm
