// The softmax of attention with AVX-512: `online_softmax` as attention.h describes it, sixteen keys at a time, in two passes over a row.
#pragma once

#include <immintrin.h>

#include "gemm/microkernel.h"
#include "simd/rowwise.h"

namespace smolvlm {
namespace {

// Sixteen floats to bf16.
inline void round_16_to_bf16(__m512 x, uint16_t* out) {
#ifdef __AVX512BF16__
  _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh(x));
#else
  __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  _mm256_storeu_si256((__m256i*)out, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
#endif
}

// Calls each(first key, the lanes that count) for every sixteen keys of a row.
template <class Each>
inline void by_sixteen(int visible, int keys, Each each) {
  int i = 0;
  for (; i + 16 <= visible; i += 16) each(i, __mmask16(0xffff));
  for (; i < keys; i += 16) each(i, __mmask16(visible > i ? (1 << (visible - i)) - 1 : 0));
}

// A row's largest score so far, in powers of two; what was summed relative to a smaller one is scaled.
inline float raise_max(float largest, float* max, float* sum, float* out, int dim) {
  if (largest > *max) {
    float shrink = *max == -INFINITY ? 0.0f : exp2_approx(*max - largest);
    *sum *= shrink;
    for (int i = 0; i < dim; i += 16) _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_loadu_ps(out + i), _mm512_set1_ps(shrink)));
    *max = largest;
  }
  return *max;
}

inline void online_softmax_avx512(const SoftmaxRow& row) {
  // Not structured bindings: older compilers of the Clang family cannot capture those.
  float *scores = row.scores, *max = row.max, *sum = row.sum, *out = row.out, scale = row.scale;
  const float *key_scales = row.key_scales, *value_scales = row.value_scales;
  uint16_t* weights = row.weights;
  int visible = row.visible, keys = row.keys, dim = row.dim;
  if (visible <= 0) {
    std::memset(weights, 0, keys * sizeof(uint16_t));
    return;
  }
  __m512 highest = _mm512_set1_ps(-INFINITY);
  by_sixteen(visible, keys, [&](int i, __mmask16 seen) {
    __m512 score = _mm512_loadu_ps(scores + i);
    if (key_scales) _mm512_storeu_ps(scores + i, score = _mm512_mul_ps(score, _mm512_loadu_ps(key_scales + i)));
    highest = _mm512_mask_max_ps(highest, seen, highest, score);
  });
  scale *= 1.44269504088896341f;  // to powers of two
  float base = raise_max(_mm512_reduce_max_ps(highest) * scale, max, sum, out, dim);
  __m512 total = _mm512_setzero_ps();
  by_sixteen(visible, keys, [&](int i, __mmask16 seen) {
    __m512 power = exp2_approx(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), _mm512_set1_ps(scale), _mm512_set1_ps(base)));
    power = _mm512_maskz_mov_ps(seen, power);
    total = _mm512_add_ps(total, power);
    if (value_scales) power = _mm512_mul_ps(power, _mm512_loadu_ps(value_scales + i));
    round_16_to_bf16(power, weights + i);
  });
  *sum += _mm512_reduce_add_ps(total);
}

}  // namespace
}  // namespace smolvlm
