// Attention over a head in integers, with AVX-512 VNNI: four products in a lane at a time, where bf16 has two.
//
// Queries and keys are integers of 8 bits with a scale a token, as SageAttention's (arXiv 2410.02367) are; values with a scale a
// dim. Weights relative to the largest become 0 to 255, and a fixed pattern is added before they are cut: many small ones would
// all vanish, or all count, if they were rounded alike. The sum is that of the integers.
#pragma once

#include "attention/pack_head.h"
#include "simd/avx512/online_softmax.h"

namespace smolvlm {
namespace {

// `dim` bf16 values, zero up to a multiple of 16, as integers with the scale that comes back.
inline float quantize_int8_part(const uint16_t* from, int dim, int8_t* out, int32_t* sum) {
  constexpr int kMost = kMaxHeadDim / kPanel;
  __m512 x[kMost], highest = _mm512_setzero_ps();
  int parts = (dim + kPanel - 1) / kPanel;
  for (int i = 0; i < parts; i++) {
    int left = dim - i * kPanel;
    __mmask16 there = left >= kPanel ? 0xffff : (1 << left) - 1;
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, from + i * kPanel));
    x[i] = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
    highest = _mm512_max_ps(highest, _mm512_abs_ps(x[i]));
  }
  float largest = _mm512_reduce_max_ps(highest);
  __m512 inverse = _mm512_set1_ps(largest > 1e-30f ? 127.0f / largest : 0.0f);
  __m512i total = _mm512_setzero_si512();
  for (int i = 0; i < parts; i++) {
    __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(x[i], inverse));
    total = _mm512_add_epi32(total, q);
    _mm_storeu_si128((__m128i*)(out + i * kPanel), _mm512_cvtepi32_epi8(q));
  }
  *sum = _mm512_reduce_add_epi32(total);
  return largest > 1e-30f ? largest / 127.0f : 0.0f;
}

// 16 dims of the values of tokens [first, last), at most kHeadPart: a scale a dim, and a panel of groups of 4 tokens x 16 dims x 4.
inline void quantize_values(const Head& head, int first, int last, int dim) {
  int left = head.dim - dim;
  __mmask16 there = left >= kPanel ? 0xffff : (1 << left) - 1;
  auto value = [&](int token) {
    if (token >= last) return _mm512_setzero_ps();
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, part_of(head, 2, token) + dim));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  };
  __m512 largest = _mm512_set1_ps(1e-30f);
  for (int i = first; i < last; i++) largest = _mm512_max_ps(largest, _mm512_abs_ps(value(i)));
  __m512 inverse = _mm512_div_ps(_mm512_set1_ps(127.0f), largest);
  _mm512_storeu_ps(head.value_scales + size_t(first / kHeadPart) * head.padded + dim, _mm512_div_ps(largest, _mm512_set1_ps(127.0f)));
  uint8_t* panel = head.values + size_t(first) * head.padded + size_t(dim) * kHeadPart;
  for (int i = first; i < first + kHeadPart; i += 4) {
    __m512i four = _mm512_setzero_si512();
    for (int j = 0; j < 4; j++) {
      __m512i q = _mm512_and_si512(_mm512_cvtps_epi32(_mm512_mul_ps(value(i + j), inverse)), _mm512_set1_epi32(255));
      four = _mm512_or_si512(four, _mm512_slli_epi32(q, 8 * j));
    }
    _mm512_storeu_si512(panel + (i - first) * kPanel, four);
  }
}

void pack_head_int8(const Head& head, int first, int last) {
  fetch_parts(head, first, last);
  alignas(64) int8_t key[kMaxHeadDim];
  int32_t sum;
  for (int i = first; i < last; i++) {
    int8_t* query = reinterpret_cast<int8_t*>(head.query) + size_t(i) * head.padded;
    head.query_scales[i] = quantize_int8_part(part_of(head, 0, i), head.dim, query, &sum);
    head.query_neg_sums[i] = -sum;
    head.key_scales[i] = quantize_int8_part(part_of(head, 1, i), head.dim, key, &sum);
    for (int d = 0; d < head.padded; d++) key[d] ^= int8_t(0x80);  // plus 128
    place_key(key, head.padded, head.keys + size_t(i / kPanel * kPanel) * head.padded, i % kPanel);
  }
  for (int d = 0; d < head.dim; d += kPanel) quantize_values(head, first, last, d);
}

constexpr int kRowsIntegers = 12;

// Sums of products of R rows of k bytes, lda apart, and P panels; `rows_signed`: it is the panels that are unsigned.
template <bool RowsSigned, int R, int P>
SMOLVLM_INLINE void dot_integers(const uint8_t* a, size_t lda, const uint8_t* w, size_t panel, int k, __v16si (&dot)[R][P]) {
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) dot[r][p] = __v16si{};  // not __m512i: GCC 12 would keep the sums in memory
  for (int i = 0; i < k; i += 4) {
    __m512i weight[P];
    for (int p = 0; p < P; p++) weight[p] = _mm512_loadu_si512(w + p * panel + size_t(i) * kPanel);
    for (int r = 0; r < R; r++) {
      int four;
      std::memcpy(&four, a + r * lda + i, 4);
      __m512i row = _mm512_set1_epi32(four);
      for (int p = 0; p < P; p++)
        dot[r][p] = (__v16si)(RowsSigned ? _mm512_dpbusd_epi32((__m512i)dot[r][p], weight[p], row)
                                         : _mm512_dpbusd_epi32((__m512i)dot[r][p], row, weight[p]));
    }
  }
}

// Scores of R queries and 16 P keys, without the queries' scales.
template <int R, int P>
inline void score_some(const uint8_t* query, const int32_t* neg_sums, int dim, const uint8_t* keys, const float* scales, float* scores) {
  __v16si dot[R][P];
  dot_integers<true>(query, dim, keys, size_t(dim) * kPanel, dim, dot);
  for (int r = 0; r < R; r++) {
    __v16si zero = (__v16si)_mm512_slli_epi32(_mm512_set1_epi32(neg_sums[r]), 7);
    for (int p = 0; p < P; p++)
      _mm512_storeu_ps(scores + r * kKeys + p * kPanel,
                       _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)(dot[r][p] + zero)), _mm512_loadu_ps(scales + p * kPanel)));
  }
}

// out (R x 16 P) += weights of kHeadPart tokens times their values.
template <int R, int P>
inline void gather_some(const uint8_t* weights, const uint8_t* values, const float* scales, float* out, int dim) {
  __v16si dot[R][P];
  dot_integers<false>(weights, kKeys, values, size_t(kHeadPart) * kPanel, kHeadPart, dot);
  for (int r = 0; r < R; r++) {
    for (int p = 0; p < P; p++) {
      float* to = out + size_t(r) * dim + p * kPanel;
      __m512 scale = _mm512_loadu_ps(scales + p * kPanel);
      _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)dot[r][p]), scale, _mm512_loadu_ps(to)));
    }
  }
}

// What a weight is cut down with: every 64 keys each sixty-fourth once, neighbours far apart.
struct Pattern {
  alignas(64) float at[kHeadPart];
  Pattern() {
    for (int i = 0; i < kHeadPart; i++) at[i] = float(i * 37 % kHeadPart * 2 + 1) / (2 * kHeadPart);
  }
};

// A row's scores to weights of 0 to 255, relative to its largest score so far; scales what was summed before. Keys beyond the
// visible ones up to a multiple of kHeadPart weigh nothing.
inline void online_softmax_u8(const float* scores, int visible, float scale, uint8_t* weights, float* max, float* sum, float* out,
                              int dim) {
  static const Pattern pattern;
  int keys = round_up(visible, kHeadPart);
  __m512 highest = _mm512_set1_ps(-INFINITY);
  by_sixteen(visible, keys,
             [&](int i, __mmask16 seen) { highest = _mm512_mask_max_ps(highest, seen, highest, _mm512_loadu_ps(scores + i)); });
  scale *= 1.44269504088896341f;  // to powers of two
  float largest = raise_max(_mm512_reduce_max_ps(highest) * scale, max, sum, out, dim);
  __m512 base = _mm512_set1_ps(largest - 7.99435343685886f);  // 255 is 2 to that
  __m512i total = _mm512_setzero_si512();
  by_sixteen(visible, keys, [&](int i, __mmask16 seen) {
    __m512 power = exp2_approx(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), _mm512_set1_ps(scale), base));
    __m512i weight = _mm512_maskz_cvttps_epi32(seen, _mm512_add_ps(power, _mm512_load_ps(pattern.at + i % kHeadPart)));
    total = _mm512_add_epi32(total, weight);
    _mm_storeu_si128((__m128i*)(weights + i), _mm512_cvtusepi32_epi8(weight));
  });
  *sum += float(_mm512_reduce_add_epi32(total));
}

// Calls each(number of rows, first row), kRowsIntegers at a time and then the rest; the number is a constant.
template <int R = kRowsIntegers - 1, class Each>
inline void by_rows(int rows, Each each, int first = 0) {
  for (; rows - first >= kRowsIntegers; first += kRowsIntegers) each(std::integral_constant<int, kRowsIntegers>{}, first);
  if (rows - first == R) return each(std::integral_constant<int, R>{}, first);
  if constexpr (R > 1) by_rows<R - 1>(rows, each, first);
}

void attend_int8(const Head& head, int first, int rows, float scale, float* out, size_t stride) {
  alignas(64) float scores[kAttentionRows * kKeys], sums[kAttentionRows * kMaxHeadDim];
  alignas(64) uint8_t weights[kAttentionRows * kKeys];
  float max[kAttentionRows], sum[kAttentionRows];
  int dim = head.padded;
  for (int r = 0; r < rows; r++) max[r] = -INFINITY, sum[r] = 0;
  std::memset(sums, 0, sizeof(float) * rows * dim);
  for (int start = 0; start < head.tokens; start += kKeys) {
    int visible = std::min(kKeys, head.tokens - start), keys = round_up(visible, kHeadPart);
    by_rows(rows, [&](auto some, int r) {
      const uint8_t* query = head.query + size_t(first + r) * dim;
      for (int i = 0; i < keys; i += 2 * kPanel)
        score_some<some.value, 2>(query, head.query_neg_sums + first + r, dim, head.keys + size_t(start + i) * dim,
                                  head.key_scales + start + i, scores + r * kKeys + i);
    });
    for (int r = 0; r < rows; r++)
      online_softmax_u8(scores + r * kKeys, visible, scale * head.query_scales[first + r], weights + r * kKeys, max + r, sum + r,
                        sums + size_t(r) * dim, dim);
    by_rows(rows, [&](auto some, int r) {
      for (int i = 0; i < keys; i += kHeadPart) {
        const float* scales = head.value_scales + size_t(start + i) / kHeadPart * dim;
        const uint8_t* values = head.values + size_t(start + i) * dim;
        int d = 0;
        for (; d + 2 * kPanel <= dim; d += 2 * kPanel)
          gather_some<some.value, 2>(weights + r * kKeys + i, values + size_t(d) * kHeadPart, scales + d, sums + size_t(r) * dim + d, dim);
        if (d < dim)
          gather_some<some.value, 1>(weights + r * kKeys + i, values + size_t(d) * kHeadPart, scales + d, sums + size_t(r) * dim + d, dim);
      }
    });
  }
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < head.dim; i++) out[r * stride + i] = sums[size_t(r) * dim + i] / sum[r];
}

}  // namespace
}  // namespace smolvlm
