// Work on single rows, in plain loops that the compiler turns into vectors of whatever instruction set includes this.
// Everything lies in an unnamed namespace: the same code is compiled once for each instruction set, and must not be merged.
#pragma once

#include <cmath>
#include <cstring>

#include "types.h"

namespace smolvlm {
namespace {

inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float widen(uint16_t v) { return as_float(uint32_t(v) << 16); }

SMOLVLM_INLINE uint16_t narrow(float v) {  // finite values only: what a network computes with
  uint32_t bits = as_bits(v);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x to 2 ulp for -87 <= x <= 88, and as at these ends beyond them. The polynomial is Cephes's expf.
SMOLVLM_INLINE float exponential(float x) {
  x = x < 88.0f ? x : 88.0f;
  x = x > -87.0f ? x : -87.0f;
  float n = x * 1.44269504088896341f + 12582912.0f;  // rounds: 1.5 x 2^23
  uint32_t power = as_bits(n) << 23;
  n -= 12582912.0f;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return as_float(as_bits(p) + power);
}

SMOLVLM_INLINE float silu(float x) { return x / (1.0f + exponential(-x)); }

SMOLVLM_INLINE float gelu_tanh(float x) {  // 0.5 x (1 + tanh u) = x / (1 + e^(-2u))
  float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
  return x / (1.0f + exponential(-2.0f * u));
}

// One block of 32 floats as 8-bit integers with a scale.
inline void pack_block(const float* x, int8_t* out, float* scale, int32_t* negsum) {
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < kBlock; i++) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
  *scale = largest > 1e-30f ? largest / 127.0f : 0.0f;
  int32_t total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < kBlock; i++) {
    int32_t q = int32_t(as_bits(x[i] * inverse + 12582912.0f)) - 0x4b400000;  // rounds to the nearest, ties to even
    out[i] = int8_t(q);
    total += q;
  }
  *negsum = -total;
}

// A block of a row of `to` that starts at input `at`.
inline void pack_block_of(const float* x, const Rows& to, int row, int at) {
  if (to.format == Format::bf16) {
    uint16_t* out = reinterpret_cast<uint16_t*>(to.data + row * to.row_bytes()) + at;
#pragma omp simd
    for (int i = 0; i < kBlock; i++) out[i] = narrow(x[i]);
  } else {
    size_t block = row * to.row_blocks() + at / kBlock;
    pack_block(x, reinterpret_cast<int8_t*>(to.data + row * to.row_bytes()) + at, to.scales + block, to.negsums + block);
  }
}

void pack_row(const float* x, int n, const Rows& to, int row) {
  int at = 0;
  for (; at + kBlock <= n; at += kBlock) pack_block_of(x + at, to, row, at);
  for (; at < to.width; at += kBlock) {
    float rest[kBlock] = {};
    for (int i = 0; at + i < n; i++) rest[i] = x[at + i];
    pack_block_of(rest, to, row, at);
  }
}

void rms_norm(const float* x, const float* weight, int n, float eps, float* out) {
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int i = 0; i < n; i++) squares += x[i] * x[i];
  float factor = 1.0f / std::sqrt(squares / float(n) + eps);
#pragma omp simd
  for (int i = 0; i < n; i++) out[i] = x[i] * factor * weight[i];
}

void layer_norm(const float* x, const float* weight, const float* bias, int n, float eps, float* out) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; i++) sum += x[i];
  float mean = sum / float(n), squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
  float factor = 1.0f / std::sqrt(squares / float(n) + eps);
#pragma omp simd
  for (int i = 0; i < n; i++) out[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

void to_bf16(const float* x, int n, uint16_t* out) {
#pragma omp simd
  for (int i = 0; i < n; i++) out[i] = narrow(x[i]);
}

void from_bf16(const uint16_t* x, int n, float* out) {
#pragma omp simd
  for (int i = 0; i < n; i++) out[i] = widen(x[i]);
}

void rotate(float* x, const float* cos, const float* sin, int n) {
  int half = n / 2;
#pragma omp simd
  for (int i = 0; i < half; i++) {
    float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i] + a * sin[i];
  }
}

}  // namespace
}  // namespace smolvlm
