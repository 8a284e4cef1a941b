// A block of 32 quantized inputs on NEON: dot[row][quarter] = the integers' products, for Q x 4 outputs and R rows.
//
// x: the rows' integers, lda apart; neg_sums: minus their sums, lds apart; panel: the block's first group of the first output.
#pragma once

#include "simd/neon/microkernel_bf16.h"

namespace smolvlm {
namespace {

#if defined(SMOLVLM_MATRIX)
template <Format F, int R, int Q>
inline void block_of_pairs(const int8_t* x, size_t lda, const int32_t* neg_sums, size_t lds, const uint8_t* panel, int32x4_t (&dot)[R][Q]) {
  constexpr int kPairs = (R + 1) / 2;
  int32x4_t sum[kPairs][2 * Q];
  for (int p = 0; p < kPairs; p++) {
    int32x2_t rows = vset_lane_s32(neg_sums[second_of(p, R) * lds], vdup_n_s32(neg_sums[2 * p * lds]), 1);
    int32x4_t zero = vshlq_n_s32(vcombine_s32(rows, rows), F == Format::q8 ? 7 : 3);
    for (int i = 0; i < 2 * Q; i++) sum[p][i] = zero;
  }
  auto add = [&](int input, const uint8x16_t* group, const uint8x16_t* next) {  // eight inputs: two groups of four
    int8x16_t pair[kPairs];
    for (int p = 0; p < kPairs; p++) pair[p] = vcombine_s8(vld1_s8(x + 2 * p * lda + input), vld1_s8(x + second_of(p, R) * lda + input));
    for (int q = 0; q < Q; q++) {
      uint32x4_t first = vreinterpretq_u32_u8(group[q]), second = vreinterpretq_u32_u8(next[q]);
      uint8x16_t low = vreinterpretq_u8_u32(vzip1q_u32(first, second)), high = vreinterpretq_u8_u32(vzip2q_u32(first, second));
      for (int p = 0; p < kPairs; p++) {
        sum[p][2 * q] = vusmmlaq_s32(sum[p][2 * q], low, pair[p]);
        sum[p][2 * q + 1] = vusmmlaq_s32(sum[p][2 * q + 1], high, pair[p]);
      }
    }
  };
  for (int g = 0; g < (F == Format::q8 ? 8 : 4); g += 2) {
    uint8x16_t group[Q], next[Q], high[Q], next_high[Q];
    for (int q = 0; q < Q; q++) group[q] = vld1q_u8(panel + g * 64 + q * 16), next[q] = vld1q_u8(panel + (g + 1) * 64 + q * 16);
    if constexpr (F == Format::q4) {
      for (int q = 0; q < Q; q++) {
        high[q] = vshrq_n_u8(group[q], 4), next_high[q] = vshrq_n_u8(next[q], 4);
        group[q] = vandq_u8(group[q], vdupq_n_u8(15)), next[q] = vandq_u8(next[q], vdupq_n_u8(15));
      }
      add(16 + g * 4, high, next_high);
    }
    add(g * 4, group, next);
  }
  for (int r = 0; r < R; r++)
    for (int q = 0; q < Q; q++)
      dot[r][q] = r % 2 ? vuzp2q_s32(sum[r / 2][2 * q], sum[r / 2][2 * q + 1]) : vuzp1q_s32(sum[r / 2][2 * q], sum[r / 2][2 * q + 1]);
}
#endif

#if defined(__ARM_FEATURE_DOTPROD)
// 4 outputs += 4 inputs each x one group of four of a row
template <Format F, int L>
inline int32x4_t add_four(int32x4_t dot, uint8x16_t weight, int8x16_t x) {
#if defined(SMOLVLM_MATRIX)
  return vusdotq_laneq_s32(dot, weight, x, L);
#else
  if constexpr (F == Format::q8) weight = veorq_u8(weight, vdupq_n_u8(kZeroPointQ8));  // signed, without its zero
  return vdotq_laneq_s32(dot, vreinterpretq_s8_u8(weight), x, L);
#endif
}

template <Format F, int R, int Q>
inline void block_of_rows(const int8_t* x, size_t lda, [[maybe_unused]] const int32_t* neg_sums, [[maybe_unused]] size_t lds,
                          const uint8_t* panel, int32x4_t (&dot)[R][Q]) {
  for (int r = 0; r < R; r++) {
    int32x4_t zero = vdupq_n_s32(0);
#if defined(SMOLVLM_MATRIX)
    zero = vshlq_n_s32(vdupq_n_s32(neg_sums[r * lds]), F == Format::q8 ? 7 : 3);
#else
    if constexpr (F == Format::q4) zero = vshlq_n_s32(vdupq_n_s32(neg_sums[r * lds]), 3);
#endif
    for (int q = 0; q < Q; q++) dot[r][q] = zero;
  }
  int8x16_t first[R], second[R];
  for (int r = 0; r < R; r++) first[r] = vld1q_s8(x + r * lda), second[r] = vld1q_s8(x + r * lda + 16);
  each_lane([&](auto lane) {
    constexpr int kLane = decltype(lane)::value;
    for (int q = 0; q < Q; q++) {
      uint8x16_t low = vld1q_u8(panel + kLane * 64 + q * 16), high;
      if constexpr (F == Format::q8) high = vld1q_u8(panel + (4 + kLane) * 64 + q * 16);
      else high = vshrq_n_u8(low, 4), low = vandq_u8(low, vdupq_n_u8(15));
      for (int r = 0; r < R; r++) {
        dot[r][q] = add_four<F, kLane>(dot[r][q], low, first[r]);
        dot[r][q] = add_four<F, kLane>(dot[r][q], high, second[r]);
      }
    }
  });
}
#else
inline int8x16_t repeated(const int8_t* four) {
  int32_t all;
  std::memcpy(&all, four, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(all));
}

// Two products of bytes fit 16 bits: at most 2 x 128 x 127. Of 4-bit weights 8 do, so a whole block: at most 8 x 15 x 127.
template <Format F, int R, int Q>
inline void block_of_rows(const int8_t* x, size_t lda, [[maybe_unused]] const int32_t* neg_sums, [[maybe_unused]] size_t lds,
                          const uint8_t* panel, int32x4_t (&dot)[R][Q]) {
  int32x4_t wide[R][2 * Q];
  int16x8_t narrow_sums[R][2 * Q];
  for (int r = 0; r < R; r++)
    for (int i = 0; i < 2 * Q; i++) wide[r][i] = vdupq_n_s32(0), narrow_sums[r][i] = vdupq_n_s16(0);
  for (int g = 0; g < 4; g++) {
    int8x16_t low[Q], high[Q];
    for (int q = 0; q < Q; q++) {
      uint8x16_t both = vld1q_u8(panel + (F == Format::q8 ? 2 * g : g) * 64 + q * 16);
      if constexpr (F == Format::q8) {
        low[q] = vreinterpretq_s8_u8(veorq_u8(both, vdupq_n_u8(kZeroPointQ8)));
        high[q] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(panel + (2 * g + 1) * 64 + q * 16), vdupq_n_u8(kZeroPointQ8)));
      } else {
        low[q] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        high[q] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
      }
    }
    for (int r = 0; r < R; r++) {
      int8x16_t first = repeated(x + r * lda + (F == Format::q8 ? 8 * g : 4 * g));
      int8x16_t second = repeated(x + r * lda + (F == Format::q8 ? 8 * g + 4 : 16 + 4 * g));
      for (int q = 0; q < Q; q++) {
        if constexpr (F == Format::q8) {
          int16x8_t here = vmull_s8(vget_low_s8(low[q]), vget_low_s8(first)), there = vmull_high_s8(low[q], first);
          here = vmlal_s8(here, vget_low_s8(high[q]), vget_low_s8(second));
          there = vmlal_high_s8(there, high[q], second);
          wide[r][2 * q] = vpadalq_s16(wide[r][2 * q], here);
          wide[r][2 * q + 1] = vpadalq_s16(wide[r][2 * q + 1], there);
        } else {
          int16x8_t here = vmlal_s8(narrow_sums[r][2 * q], vget_low_s8(low[q]), vget_low_s8(first));
          int16x8_t there = vmlal_high_s8(narrow_sums[r][2 * q + 1], low[q], first);
          narrow_sums[r][2 * q] = vmlal_s8(here, vget_low_s8(high[q]), vget_low_s8(second));
          narrow_sums[r][2 * q + 1] = vmlal_high_s8(there, high[q], second);
        }
      }
    }
  }
  for (int r = 0; r < R; r++) {
    for (int q = 0; q < Q; q++) {
      if constexpr (F == Format::q8) {
        dot[r][q] = vpaddq_s32(wide[r][2 * q], wide[r][2 * q + 1]);
      } else {
        int32x4_t sums = vpaddq_s32(vpaddlq_s16(narrow_sums[r][2 * q]), vpaddlq_s16(narrow_sums[r][2 * q + 1]));
        dot[r][q] = vaddq_s32(sums, vshlq_n_s32(vdupq_n_s32(neg_sums[r * lds]), 3));
      }
    }
  }
}
#endif

}  // namespace
}  // namespace smolvlm
