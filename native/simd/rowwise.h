// Work on single rows, in plain loops that the compiler turns into vectors of whatever instruction set includes this.
// Everything lies in an unnamed namespace: the same code is compiled once for each instruction set, and must not be merged.
#pragma once

#include <cmath>
#include <cstring>

#include "simd/kernels.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

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

inline float bf16_to_f32(uint16_t v) { return as_float(uint32_t(v) << 16); }

SMOLVLM_INLINE uint16_t round_to_bf16(float v) {  // finite values only: what a network computes with
  uint32_t bits = as_bits(v);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// n floats, a multiple of 16, to bf16.
inline void round_row_to_bf16(const float* x, int n, uint16_t* out) {
#ifdef __AVX512BF16__
  for (int i = 0; i < n; i += 16) _mm256_storeu_si256((__m256i*)(out + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i)));
#else
#pragma omp simd
  for (int i = 0; i < n; i++) out[i] = round_to_bf16(x[i]);
#endif
}

// 2^x on [-0.5, 0.5]: the polynomial of degree 4 whose largest error is least, the highest power first.
constexpr float kPower[5] = {9.5701019467e-03f, 5.5917861586e-02f, 2.4024744838e-01f, 6.9312181458e-01f, 9.9999926144e-01f};

// 2^x to 3e-6 for -126 <= x <= 126, and as at -126 below: for what is rounded to bf16 or to 8 bits.
SMOLVLM_INLINE float exp2_approx(float x) {
  x = x > -126.0f ? x : -126.0f;
  float n = x + 12582912.0f;  // rounds: 1.5 x 2^23
  uint32_t power = as_bits(n) << 23;
  float r = x - (n - 12582912.0f);
  float p = kPower[0];
  p = p * r + kPower[1];
  p = p * r + kPower[2];
  p = p * r + kPower[3];
  p = p * r + kPower[4];
  return as_float(as_bits(p) + power);
}

// e^(-x), for activations: their results are rounded to bf16 or to 8 bits.
SMOLVLM_INLINE float exp_negative(float x) {
  float power = x * -1.44269504088896341f;
  return exp2_approx(power < 126.0f ? power : 126.0f);
}

SMOLVLM_INLINE float silu(float x) { return x / (1.0f + exp_negative(x)); }

SMOLVLM_INLINE float gelu_tanh(float x) {  // 0.5 x (1 + tanh u) = x / (1 + e^(-2u))
  float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
  return x / (1.0f + exp_negative(2.0f * u));
}

// To the nearest, ties to even, where |x| < 2^22.
SMOLVLM_INLINE int32_t round_nearest(float x) { return int32_t(as_bits(x + 12582912.0f)) - 0x4b400000; }

#ifdef __AVX512F__
#include "simd/avx512/rowwise.h"
#else
// x becomes gelu_tanh(x), `count` floats.
inline void gelu_line(float* x, int count) {
#pragma omp simd
  for (int i = 0; i < count; i++) x[i] = gelu_tanh(x[i]);
}

// N floats, some blocks, as 8-bit integers with one scale; a scale and a sum are written for each block.
template <int N>
inline void quantize_int8(const float* x, int8_t* out, float* scales, int32_t* neg_sums) {
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < N; i++) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
  float scale = largest > 1e-30f ? largest / 127.0f : 0.0f;
  alignas(64) int32_t q[N];  // a loop for each width of numbers: compilers make vectors of those
#pragma omp simd
  for (int i = 0; i < N; i++) q[i] = round_nearest(x[i] * inverse);
#pragma omp simd
  for (int i = 0; i < N; i++) out[i] = int8_t(q[i]);
  for (int block = 0; block < N / kBlock; block++) {
    int32_t total = 0;
#pragma omp simd reduction(+ : total)
    for (int i = block * kBlock; i < (block + 1) * kBlock; i++) total += q[i];
    scales[block] = scale;
    neg_sums[block] = -total;
  }
}
#endif

// The inputs of a row of `to` from `at` on: a block, or a group of blocks.
inline void quantize_blocks(const float* x, const Rows& to, int row, int at) {
  if (to.format == Format::bf16) return round_row_to_bf16(x, kBlock, reinterpret_cast<uint16_t*>(to.data + row * to.row_bytes()) + at);
  int8_t* out = reinterpret_cast<int8_t*>(to.data + row * to.row_bytes()) + at;
  size_t block = row * to.row_blocks() + at / kBlock;
  float* scales = to.scales + block;
  int32_t* neg_sums = to.neg_sums + block;
  if (to.group == 1) return quantize_int8<kBlock>(x, out, scales, neg_sums);
  if (to.group == 4) quantize_int8<4 * kBlock>(x, out, scales, neg_sums);
  else quantize_int8<kMostGroup * kBlock>(x, out, scales, neg_sums);
  int32_t sum = 0;
  for (int i = 0; i < to.group; i++) sum += neg_sums[i];
  to.zero_point_terms[block / to.group] = kZeroPointQ8 * sum;
}

void quantize_row(const float* x, int n, const Rows& to, int row) {
  int at = 0, step = to.format == Format::q8 ? to.group * kBlock : kBlock;
  for (; at + step <= n; at += step) quantize_blocks(x + at, to, row, at);
  for (; at < to.width; at += step) {
    float rest[kMostGroup * kBlock] = {};
    for (int i = 0; at + i < n; i++) rest[i] = x[at + i];
    quantize_blocks(rest, to, row, at);
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
  for (int i = 0; i < n; i++) out[i] = round_to_bf16(x[i]);
}

void from_bf16(const uint16_t* x, int n, float* out) {
#pragma omp simd
  for (int i = 0; i < n; i++) out[i] = bf16_to_f32(x[i]);
}

void rope(float* x, const float* cos, const float* sin, int n) {
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
