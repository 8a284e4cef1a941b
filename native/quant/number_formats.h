// Conversions between number formats, for code outside the kernels. (Inside, each instruction set has its own.)
#pragma once

#include <bit>
#include <cstdint>

namespace smolvlm {

inline float bf16_to_float(uint16_t v) { return std::bit_cast<float>(uint32_t(v) << 16); }

// To the nearest, ties to even. NaN stays NaN.
inline uint16_t float_to_bf16(float v) {
  uint32_t bits = std::bit_cast<uint32_t>(v);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t((bits >> 16) | 0x40);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float half_to_float(uint16_t v) {
  uint32_t sign = uint32_t(v & 0x8000) << 16, exponent = (v >> 10) & 31, fraction = v & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | fraction << 13);
  if (exponent == 0) {  // subnormal: fraction x 2^-24
    float value = float(fraction) * 0x1p-24f;
    return sign ? -value : value;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

// To the nearest, ties to even; beyond 65504 infinite.
inline uint16_t float_to_half(float v) {
  uint32_t bits = std::bit_cast<uint32_t>(v), sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (bits >= 0x477ff000) return uint16_t(sign | 0x7c00);
  if (bits < 0x38800000) {  // subnormal: let the float unit round at 2^-24
    float shifted = std::bit_cast<float>(bits) + 0.5f;
    return uint16_t(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  uint32_t rounded = bits + 0xfff + ((bits >> 13) & 1);
  return uint16_t(sign | ((rounded - 0x38000000) >> 13));
}

}  // namespace smolvlm
