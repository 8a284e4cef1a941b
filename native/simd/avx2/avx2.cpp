// AVX2 with FMA and F16C (Haswell, 2013, and later); compiled again with AVX-VNNI (Alder Lake, Zen 5 and later).
#include <immintrin.h>

#include "simd/kernel_table.h"

namespace smolvlm {
namespace {

constexpr int kHalf = 8;  // outputs in a register; a panel is two

template <int R, int P>
inline void microkernel_bf16(const MicroArgs& args) {
  const auto [a, lda, a_scales, a_neg_sums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, accumulate, fresh] = args;
  // two passes at two panels, so that the sums stay in the sixteen registers
  for (int p = 0; p < P; p++) {
    __m256 sum[R][2];
    for (int r = 0; r < R; r++)
      for (int h = 0; h < 2; h++) sum[r][h] = accumulate ? _mm256_loadu_ps(c + r * ldc + p * kPanel + h * kHalf) : _mm256_setzero_ps();
    for (int i = 0; i < k; i += 2) {
      __m256 even[2], odd[2];
      for (int h = 0; h < 2; h++) {
        __m256i both = _mm256_loadu_si256((const __m256i*)(w + p * panel_bytes + size_t(i) * 2 * kPanel + h * 32));
        even[h] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
        odd[h] = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(int(0xffff0000))));
      }
      for (int r = 0; r < R; r++) {
        uint32_t pair;
        std::memcpy(&pair, a + r * lda + i * 2, 4);
        __m256 first = _mm256_set1_ps(as_float(pair << 16)), second = _mm256_set1_ps(as_float(pair & 0xffff0000));
        for (int h = 0; h < 2; h++) sum[r][h] = _mm256_fmadd_ps(second, odd[h], _mm256_fmadd_ps(first, even[h], sum[r][h]));
      }
    }
    for (int r = 0; r < R; r++)
      for (int h = 0; h < 2; h++) _mm256_storeu_ps(c + r * ldc + p * kPanel + h * kHalf, sum[r][h]);
  }
}

// dot += the products of 8 x 4 stored weights and 4 activations, the weights' zero still in it for AVX-VNNI
#ifdef __AVXVNNI__
inline __m256i dot_q8(__m256i dot, __m256i weight, __m256i, __m256i activation) { return _mm256_dpbusd_avx_epi32(dot, weight, activation); }
#else
// Products of unsigned bytes up to 255 would not fit 16 bits, so the sign moves to the activation: |w| <= 127.
inline __m256i dot_q8(__m256i dot, __m256i size, __m256i sign, __m256i activation) {
  __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(activation, sign));
  return _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif

template <int R>
inline void block_q8(const uint8_t* x, size_t lda, [[maybe_unused]] const int32_t* neg_sums, [[maybe_unused]] size_t lds,
                     const uint8_t* panel, __m256i (&dot)[R][2]) {
#ifdef __AVXVNNI__
  for (int r = 0; r < R; r++) dot[r][0] = dot[r][1] = _mm256_slli_epi32(_mm256_set1_epi32(neg_sums[r * lds]), 7);
#else
  for (int r = 0; r < R; r++) dot[r][0] = dot[r][1] = _mm256_setzero_si256();
#endif
  for (int g = 0; g < 8; g++) {
    __m256i weight[2], sign[2];
    for (int h = 0; h < 2; h++) {
      weight[h] = sign[h] = _mm256_loadu_si256((const __m256i*)(panel + g * 64 + h * 32));
#ifndef __AVXVNNI__
      sign[h] = _mm256_xor_si256(weight[h], _mm256_set1_epi8(char(0x80)));
      weight[h] = _mm256_abs_epi8(sign[h]);
#endif
    }
    for (int r = 0; r < R; r++) {
      int four;
      std::memcpy(&four, x + r * lda + g * 4, 4);
      for (int h = 0; h < 2; h++) dot[r][h] = dot_q8(dot[r][h], weight[h], sign[h], _mm256_set1_epi32(four));
    }
  }
}

template <int R>
inline void block_q4(const uint8_t* x, size_t lda, [[maybe_unused]] const int32_t* neg_sums, [[maybe_unused]] size_t lds,
                     const uint8_t* panel, __m256i (&dot)[R][2]) {
  __m256i low = _mm256_set1_epi8(15);
#ifdef __AVXVNNI__
  for (int r = 0; r < R; r++) dot[r][0] = dot[r][1] = _mm256_slli_epi32(_mm256_set1_epi32(neg_sums[r * lds]), 3);
#else
  for (int r = 0; r < R; r++) dot[r][0] = dot[r][1] = _mm256_setzero_si256();  // pairs of 16 bits: at most 8 x 2 x 15 x 127
#endif
  for (int g = 0; g < 4; g++) {
    __m256i both[2];
    for (int h = 0; h < 2; h++) both[h] = _mm256_loadu_si256((const __m256i*)(panel + g * 64 + h * 32));
    for (int r = 0; r < R; r++) {
      int first, second;
      std::memcpy(&first, x + r * lda + g * 4, 4);
      std::memcpy(&second, x + r * lda + 16 + g * 4, 4);
      for (int h = 0; h < 2; h++) {
        __m256i even = _mm256_and_si256(both[h], low), odd = _mm256_and_si256(_mm256_srli_epi16(both[h], 4), low);
#ifdef __AVXVNNI__
        dot[r][h] = _mm256_dpbusd_avx_epi32(dot[r][h], even, _mm256_set1_epi32(first));
        dot[r][h] = _mm256_dpbusd_avx_epi32(dot[r][h], odd, _mm256_set1_epi32(second));
#else
        dot[r][h] = _mm256_add_epi16(dot[r][h], _mm256_maddubs_epi16(even, _mm256_set1_epi32(first)));
        dot[r][h] = _mm256_add_epi16(dot[r][h], _mm256_maddubs_epi16(odd, _mm256_set1_epi32(second)));
#endif
      }
    }
  }
#ifndef __AVXVNNI__
  for (int r = 0; r < R; r++) {
    __m256i zero = _mm256_slli_epi32(_mm256_set1_epi32(neg_sums[r * lds]), 3);
    for (int h = 0; h < 2; h++) dot[r][h] = _mm256_add_epi32(zero, _mm256_madd_epi16(dot[r][h], _mm256_set1_epi16(1)));
  }
#endif
}

template <Format F, int R, int P>
inline void microkernel_quantized(const MicroArgs& args) {
  const auto [a, lda, a_scales, a_neg_sums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, accumulate, fresh] = args;
  constexpr size_t kBytes = F == Format::q8 ? kBlock * kPanel : kBlock * kPanel / 2;
  for (int p = 0; p < P; p++) {
    __m256 sum[R][2];
    for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    for (int b = 0; b < k / kBlock; b++) {
      __m256i dot[R][2];
      const uint8_t* panel = w + p * panel_bytes + b * kBytes;
      if constexpr (F == Format::q8) block_q8<R>(a + b * kBlock, lda, a_neg_sums + b, lds, panel, dot);
      else block_q4<R>(a + b * kBlock, lda, a_neg_sums + b, lds, panel, dot);
      __m256 scale[2];
      for (int h = 0; h < 2; h++)
        scale[h] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(scales + p * panel_scales + b * kPanel + h * kHalf)));
      for (int r = 0; r < R; r++) {
        __m256 row_scale = _mm256_set1_ps(a_scales[r * lds + b]);
        for (int h = 0; h < 2; h++)
          sum[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][h]), _mm256_mul_ps(scale[h], row_scale), sum[r][h]);
      }
    }
    for (int r = 0; r < R; r++)
      for (int h = 0; h < 2; h++) _mm256_storeu_ps(c + r * ldc + p * kPanel + h * kHalf, sum[r][h]);
  }
}

struct Avx2 {
  static constexpr int kRowsBf16 = 3, kRowsQ8 = 3;

  template <Format F, int R, int P>
  static inline void microkernel(const MicroArgs& args) {
    if constexpr (F == Format::bf16) microkernel_bf16<R, P>(args);
    else microkernel_quantized<F, R, P>(args);
  }
};

}  // namespace
}  // namespace smolvlm

namespace smolvlm {
#ifdef __AVXVNNI__
extern const Kernels kAvx2Vnni = kernels_of<Avx2>("avx2_vnni");
#else
extern const Kernels kAvx2 = kernels_of<Avx2>("avx2");
#endif
}  // namespace smolvlm
