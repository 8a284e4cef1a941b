// The micro-kernels of AVX-512 with VNNI, with or without bf16 products (Cooper Lake, Zen 4 and later have them).
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "gemm/microkernel.h"
#include "simd/avx512/online_softmax.h"
#include "simd/rowwise.h"

namespace smolvlm {
namespace {

// With Ahead, what lies `ahead` bytes further on is asked for as the weights are read.
template <int R, int P, bool Ahead = false>
inline void microkernel_bf16(const MicroArgs& args, [[maybe_unused]] ptrdiff_t ahead = 0) {
  const auto [a, lda, a_scales, a_neg_sums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, accumulate, fresh] = args;
  __m512 sum[R][P];
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) sum[r][p] = accumulate ? _mm512_loadu_ps(c + r * ldc + p * kPanel) : _mm512_setzero_ps();
  for (int i = 0; i < k; i += 2) {
    if constexpr (Ahead)
      for (int p = 0; p < P; p++)
        _mm_prefetch(reinterpret_cast<const char*>(w + p * panel_bytes + size_t(i) * 2 * kPanel + ahead), _MM_HINT_T0);
#ifdef __AVX512BF16__
    __m512bh weight[P];
    for (int p = 0; p < P; p++) weight[p] = (__m512bh)_mm512_loadu_si512(w + p * panel_bytes + size_t(i) * 2 * kPanel);
    for (int r = 0; r < R; r++) {
      int pair;
      std::memcpy(&pair, a + r * lda + i * 2, 4);
      __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
      for (int p = 0; p < P; p++) sum[r][p] = _mm512_dpbf16_ps(sum[r][p], weight[p], both);
    }
#else
    __m512 even[P], odd[P];
    for (int p = 0; p < P; p++) {
      __m512i both = _mm512_loadu_si512(w + p * panel_bytes + size_t(i) * 2 * kPanel);
      even[p] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
      odd[p] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000))));
    }
    for (int r = 0; r < R; r++) {
      uint32_t pair;
      std::memcpy(&pair, a + r * lda + i * 2, 4);
      __m512 first = _mm512_set1_ps(as_float(pair << 16)), second = _mm512_set1_ps(as_float(pair & 0xffff0000));
      for (int p = 0; p < P; p++) sum[r][p] = _mm512_fmadd_ps(second, odd[p], _mm512_fmadd_ps(first, even[p], sum[r][p]));
    }
#endif
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) _mm512_storeu_ps(c + r * ldc + p * kPanel, sum[r][p]);
}

constexpr int kAhead = 4;  // blocks

// Few rows wait for memory, and so do the first of many: asks early for what P panels hold kAhead blocks further on, or the P
// panels after them.
template <int P, size_t Bytes>
inline void fetch_ahead(const uint8_t* w, size_t panel_bytes, int b, int blocks) {
  int next = b + kAhead;
  if (next >= blocks) next -= blocks, w += P * panel_bytes;
  for (int p = 0; p < P; p++)
#pragma GCC unroll 16
    for (size_t line = 0; line < Bytes; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(w + p * panel_bytes + next * Bytes + line), _MM_HINT_T0);
}

// dot += four activations of each row times a panel's weights for them.
template <int R, int P>
SMOLVLM_INLINE void add_four(const uint8_t* x, size_t lda, const __m512i (&weight)[P], __m512i (&dot)[R][P]) {
  for (int r = 0; r < R; r++) {
    int four;
    std::memcpy(&four, x + r * lda, 4);
    __m512i activation = _mm512_set1_epi32(four);
    for (int p = 0; p < P; p++) dot[r][p] = _mm512_dpbusd_epi32(dot[r][p], weight[p], activation);
  }
}

// A block of q8.
template <int R, int P>
SMOLVLM_INLINE void add_block(const uint8_t* x, size_t lda, const uint8_t* panel, size_t panel_bytes, __m512i (&dot)[R][P]) {
#pragma GCC unroll 8
  for (int g = 0; g < 8; g++) {
    __m512i weight[P];
    for (int p = 0; p < P; p++) weight[p] = _mm512_loadu_si512(panel + p * panel_bytes + g * 64);
    add_four(x + g * 4, lda, weight, dot);
  }
}

// sum += the integers times the scales of their panel and of their row, lds apart.
template <int R, int P>
SMOLVLM_INLINE void add_scaled(const __m512i (&dot)[R][P], const float* a_scales, size_t lds, const uint16_t* scales, size_t panel_scales,
                               __m512 (&sum)[R][P]) {
  __m512 scale[P];
  for (int p = 0; p < P; p++) scale[p] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(scales + p * panel_scales)));
  for (int r = 0; r < R; r++) {
    __m512 row_scale = _mm512_set1_ps(a_scales[r * lds]);
    for (int p = 0; p < P; p++) sum[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][p]), _mm512_mul_ps(scale[p], row_scale), sum[r][p]);
  }
}

template <Format F, int R, int P>
inline void microkernel_quantized(const MicroArgs& args) {
  const auto [a, lda, a_scales, a_neg_sums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, accumulate, fresh] = args;
  constexpr int kShift = F == Format::q8 ? 7 : 3;  // the zero that the weights carry is 128 or 8
  constexpr size_t kBytes = F == Format::q8 ? kBlock * kPanel : kBlock * kPanel / 2;
  __m512 sum[R][P];
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) sum[r][p] = _mm512_setzero_ps();
  for (int b = 0; b < k / kBlock; b++) {
    __m512i dot[R][P];
    for (int r = 0; r < R; r++) {
      __m512i zero = _mm512_slli_epi32(_mm512_set1_epi32(a_neg_sums[r * lds + b]), kShift);
      for (int p = 0; p < P; p++) dot[r][p] = zero;
    }
    const uint8_t* x = a + b * kBlock;
    const uint8_t* panel = w + b * kBytes;
    if (R <= 2 || fresh) fetch_ahead<P, kBytes>(w, panel_bytes, b, k / kBlock);
    if constexpr (F == Format::q8) {
      add_block(x, lda, panel, panel_bytes, dot);
    } else {
      __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) {
        __m512i weight[P], high[P];
        for (int p = 0; p < P; p++) {
          __m512i both = _mm512_loadu_si512(panel + p * panel_bytes + g * 64);
          weight[p] = _mm512_and_si512(both, low);
          high[p] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        }
        add_four(x + g * 4, lda, weight, dot);
        add_four(x + 16 + g * 4, lda, high, dot);
      }
    }
    add_scaled(dot, a_scales + b, lds, scales + b * kPanel, panel_scales, sum);
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) _mm512_storeu_ps(c + r * ldc + p * kPanel, sum[r][p]);
}

// The same of q8 where G blocks share a scale; a_neg_sums then holds the zero-point terms.
template <int R, int P, int G>
inline void microkernel_grouped(const MicroArgs& args) {
  const auto [a, lda, a_scales, a_neg_sums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, accumulate, fresh] = args;
  __m512 sum[R][P];
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) sum[r][p] = _mm512_setzero_ps();
  for (int b = 0; b < k / kBlock; b += G) {
    __m512i dot[R][P];
    for (int r = 0; r < R; r++)
      for (int p = 0; p < P; p++) dot[r][p] = _mm512_set1_epi32(a_neg_sums[r * (lds / G) + b / G]);
    for (int at = b; at < b + G; at++) add_block(a + at * kBlock, lda, w + size_t(at) * kBlock * kPanel, panel_bytes, dot);
    add_scaled(dot, a_scales + b, lds, scales + b * kPanel, panel_scales, sum);
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) _mm512_storeu_ps(c + r * ldc + p * kPanel, sum[r][p]);
}

struct Avx512 {
#ifdef __AVX512BF16__
  static constexpr int kRowsBf16 = 12, kRowsQ8 = 6;
#else
  static constexpr int kRowsBf16 = 6, kRowsQ8 = 6;
#endif

  template <Format F, int R, int P>
  static inline void microkernel(const MicroArgs& args) {
    if constexpr (F == Format::bf16) microkernel_bf16<R, P>(args);
    else microkernel_quantized<F, R, P>(args);
  }

  template <int R, int P, int G>
  static inline void microkernel_grouped(const MicroArgs& args) {
    smolvlm::microkernel_grouped<R, P, G>(args);
  }

  // Four panels at a time, so that the sums of a few rows do not wait for one another.
  template <int R>
  static inline void few_rows(const Bf16Gemm& g, const uint8_t* next) {
    auto call = [&](auto many, int p) {
      MicroArgs args = args_from(g, p);
      if (next) microkernel_bf16<R, many.value, true>(args, next - reinterpret_cast<const uint8_t*>(g.w));
      else microkernel_bf16<R, many.value, false>(args);
    };
    constexpr int kMany = R <= 4 ? 4 : 2;
    int p = 0;
    for (; p + kMany <= g.panels; p += kMany) call(std::integral_constant<int, kMany>{}, p);
    for (; p < g.panels; p++) call(std::integral_constant<int, 1>{}, p);
  }

  static inline void online_softmax(const SoftmaxRow& row) { online_softmax_avx512(row); }
};

}  // namespace
}  // namespace smolvlm
