// Products of bf16 panels on NEON: in float32, by dot products of pairs, or by matrix products of two rows at a time.
#pragma once

#include <arm_neon.h>

#include "simd/rowwise.h"

// processors that multiply matrices of integers but not of bf16, or the other way round, take the dot products
#if defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define SMOLVLM_MATRIX 1
#endif

namespace smolvlm {
namespace {

constexpr int kQuarter = 4;  // outputs in a register; a panel is four

// An instruction's lane has to be known when it is compiled.
template <int N>
struct Lane {
  static constexpr int value = N;
};

template <class Step>
inline void each_lane(Step step) {
  step(Lane<0>{});
  step(Lane<1>{});
  step(Lane<2>{});
  step(Lane<3>{});
}

// Pairs of bf16 values, and the sum of 4 outputs += weight pairs x one pair of a row.
#if defined(SMOLVLM_MATRIX)
using Pairs = bfloat16x8_t;

inline Pairs pairs(uint16x8_t values) { return vreinterpretq_bf16_u16(values); }

template <int L>
inline float32x4_t add_pair(float32x4_t sum, Pairs weight, Pairs x) {
  return vbfdotq_laneq_f32(sum, weight, x, L);
}
#else
struct Pairs {
  float32x4_t even, odd;
};

inline Pairs pairs(uint16x8_t values) {
  uint32x4_t both = vreinterpretq_u32_u16(values);
  return {vreinterpretq_f32_u32(vshlq_n_u32(both, 16)), vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xffff0000)))};
}

template <int L>
inline float32x4_t add_pair(float32x4_t sum, Pairs weight, Pairs x) {
  return vfmaq_laneq_f32(vfmaq_laneq_f32(sum, weight.even, x.even, L), weight.odd, x.odd, L);
}
#endif

template <int R>
inline void panel_bf16(const uint8_t* a, size_t lda, const uint8_t* w, int k, float* c, size_t ldc, bool more) {
  float32x4_t sum[R][4];
  for (int r = 0; r < R; r++)
    for (int q = 0; q < 4; q++) sum[r][q] = more ? vld1q_f32(c + r * ldc + q * kQuarter) : vdupq_n_f32(0);
  for (int i = 0; i < k; i += 8) {  // k is a multiple of 16
    const uint16_t* weights = reinterpret_cast<const uint16_t*>(w) + size_t(i) * kPanel;
    Pairs x[R];
    for (int r = 0; r < R; r++) x[r] = pairs(vld1q_u16(reinterpret_cast<const uint16_t*>(a + r * lda) + i));
    each_lane([&](auto lane) {
      constexpr int kLane = decltype(lane)::value;
      for (int q = 0; q < 4; q++) {
        Pairs weight = pairs(vld1q_u16(weights + kLane * 2 * kPanel + q * 8));
        for (int r = 0; r < R; r++) sum[r][q] = add_pair<kLane>(sum[r][q], weight, x[r]);
      }
    });
  }
  for (int r = 0; r < R; r++)
    for (int q = 0; q < 4; q++) vst1q_f32(c + r * ldc + q * kQuarter, sum[r][q]);
}

#if defined(SMOLVLM_MATRIX)
// Matrix products take two rows at a time; a last odd row stands in for its neighbour too.
constexpr int second_of(int pair, int rows) { return 2 * pair + 1 < rows ? 2 * pair + 1 : 2 * pair; }

// Sums lie as (output, row), (output, next row), (next output, row), (next output, next row).
template <int R>
inline void panel_bf16_matrix(const uint8_t* a, size_t lda, const uint8_t* w, int k, float* c, size_t ldc, bool more) {
  constexpr int kPairs = (R + 1) / 2;
  float32x4_t sum[kPairs][8];
  for (int p = 0; p < kPairs; p++) {
    for (int q = 0; q < 4; q++) {
      float32x4_t first = more ? vld1q_f32(c + 2 * p * ldc + q * kQuarter) : vdupq_n_f32(0);
      float32x4_t second = more ? vld1q_f32(c + second_of(p, R) * ldc + q * kQuarter) : first;
      sum[p][2 * q] = vzip1q_f32(first, second);
      sum[p][2 * q + 1] = vzip2q_f32(first, second);
    }
  }
  for (int i = 0; i < k; i += 4) {
    bfloat16x8_t x[kPairs];
    for (int p = 0; p < kPairs; p++) {
      const uint16_t* first = reinterpret_cast<const uint16_t*>(a + 2 * p * lda) + i;
      const uint16_t* second = reinterpret_cast<const uint16_t*>(a + second_of(p, R) * lda) + i;
      x[p] = vreinterpretq_bf16_u16(vcombine_u16(vld1_u16(first), vld1_u16(second)));
    }
    const uint8_t* weights = w + size_t(i) * 2 * kPanel;
    for (int q = 0; q < 4; q++) {  // four inputs of an output side by side
      uint32x4_t even = vreinterpretq_u32_u8(vld1q_u8(weights + q * 16));
      uint32x4_t odd = vreinterpretq_u32_u8(vld1q_u8(weights + 4 * kPanel + q * 16));
      bfloat16x8_t low = vreinterpretq_bf16_u32(vzip1q_u32(even, odd)), high = vreinterpretq_bf16_u32(vzip2q_u32(even, odd));
      for (int p = 0; p < kPairs; p++) {
        sum[p][2 * q] = vbfmmlaq_f32(sum[p][2 * q], low, x[p]);
        sum[p][2 * q + 1] = vbfmmlaq_f32(sum[p][2 * q + 1], high, x[p]);
      }
    }
  }
  for (int p = 0; p < kPairs; p++) {
    for (int q = 0; q < 4; q++) {
      vst1q_f32(c + 2 * p * ldc + q * kQuarter, vuzp1q_f32(sum[p][2 * q], sum[p][2 * q + 1]));
      if (2 * p + 1 < R) vst1q_f32(c + (2 * p + 1) * ldc + q * kQuarter, vuzp2q_f32(sum[p][2 * q], sum[p][2 * q + 1]));
    }
  }
}
#endif

}  // namespace
}  // namespace smolvlm
