// The micro-kernels of AVX-512 with VNNI, with or without bf16 products (Cooper Lake, Zen 4 and later have them).
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "rows.h"

namespace smolvlm {
namespace {

#ifdef __AVX512BF16__
constexpr int kRowsBf16 = 12;
#else
constexpr int kRowsBf16 = 6;
#endif
constexpr int kRowsQ8 = 6;

// With Ahead, what lies `ahead` bytes further on is asked for as the weights are read.
template <int R, int P, bool Ahead = false>
inline void micro_bf16(const uint8_t* a, size_t lda, const uint8_t* w, size_t panel_bytes, int k, float* c, size_t ldc,
                       bool more, [[maybe_unused]] ptrdiff_t ahead = 0) {
  __m512 sum[R][P];
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) sum[r][p] = more ? _mm512_loadu_ps(c + r * ldc + p * kPanel) : _mm512_setzero_ps();
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
      for (int p = 0; p < P; p++)
        sum[r][p] = _mm512_fmadd_ps(second, odd[p], _mm512_fmadd_ps(first, even[p], sum[r][p]));
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
    for (int p = 0; p < P; p++)
      sum[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][p]), _mm512_mul_ps(scale[p], row_scale), sum[r][p]);
  }
}

// `fresh`: nobody has read these weights just before.
template <Format F, int R, int P>
inline void micro_quantised(const uint8_t* a, size_t lda, const float* a_scales, const int32_t* a_negsums, size_t lds,
                            const uint8_t* w, const uint16_t* scales, size_t panel_bytes, size_t panel_scales, int k, float* c,
                            size_t ldc, bool fresh) {
  constexpr int kShift = F == Format::q8 ? 7 : 3;  // the zero that the weights carry is 128 or 8
  constexpr size_t kBytes = F == Format::q8 ? kBlock * kPanel : kBlock * kPanel / 2;
  __m512 sum[R][P];
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) sum[r][p] = _mm512_setzero_ps();
  for (int b = 0; b < k / kBlock; b++) {
    __m512i dot[R][P];
    for (int r = 0; r < R; r++) {
      __m512i zero = _mm512_slli_epi32(_mm512_set1_epi32(a_negsums[r * lds + b]), kShift);
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

// The same of q8 where G blocks share a scale; a_zeros, lds / G apart, is kZero8 times the sum of their negsums.
template <int R, int P, int G>
inline void micro_grouped(const uint8_t* a, size_t lda, const float* a_scales, const int32_t* a_zeros, size_t lds, const uint8_t* w,
                          const uint16_t* scales, size_t panel_bytes, size_t panel_scales, int k, float* c, size_t ldc) {
  __m512 sum[R][P];
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) sum[r][p] = _mm512_setzero_ps();
  for (int b = 0; b < k / kBlock; b += G) {
    __m512i dot[R][P];
    for (int r = 0; r < R; r++)
      for (int p = 0; p < P; p++) dot[r][p] = _mm512_set1_epi32(a_zeros[r * (lds / G) + b / G]);
    for (int at = b; at < b + G; at++) add_block(a + at * kBlock, lda, w + size_t(at) * kBlock * kPanel, panel_bytes, dot);
    add_scaled(dot, a_scales + b, lds, scales + b * kPanel, panel_scales, sum);
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) _mm512_storeu_ps(c + r * ldc + p * kPanel, sum[r][p]);
}

// Four panels at a time, so that the sums of a few rows do not wait for one another.
template <int R>
inline void few_rows(const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int panels, int k, float* c, size_t ldc,
                     bool more, const uint8_t* next) {
  auto call = [&](auto many, int p) {
    const uint8_t* from = reinterpret_cast<const uint8_t*>(w + p * panel);
    auto each = [&](auto ahead) {
      micro_bf16<R, many.value, ahead.value>(reinterpret_cast<const uint8_t*>(a), lda * 2, from, panel * 2, k, c + p * kPanel, ldc,
                                             more, next - reinterpret_cast<const uint8_t*>(w));
    };
    if (next) each(std::true_type{});
    else each(std::false_type{});
  };
  constexpr int kMany = R <= 4 ? 4 : 2;
  int p = 0;
  for (; p + kMany <= panels; p += kMany) call(std::integral_constant<int, kMany>{}, p);
  for (; p < panels; p++) call(std::integral_constant<int, 1>{}, p);
}
#define SMOLVLM_FEW_ROWS

#define SMOLVLM_GROUPS

template <Format F, int R, int P>
inline void micro(const uint8_t* a, size_t lda, const float* a_scales, const int32_t* a_negsums, size_t lds, const uint8_t* w,
                  const uint16_t* scales, size_t panel_bytes, size_t panel_scales, int k, float* c, size_t ldc, bool more, bool fresh) {
  if constexpr (F == Format::bf16) micro_bf16<R, P>(a, lda, w, panel_bytes, k, c, ldc, more);
  else micro_quantised<F, R, P>(a, lda, a_scales, a_negsums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, fresh);
}

}  // namespace
}  // namespace smolvlm
