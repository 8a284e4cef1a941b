// From a projection of queries, keys and values to where attention over many tokens reads them, one head at a time.
#pragma once

#include <algorithm>

#include "rows.h"

namespace smolvlm {
namespace {

// A head's part of one token, `dim` bf16 values, as integers with one scale and zeros up to `padded`; minus their sum comes back.
inline int32_t quantise_part(const uint16_t* from, int dim, int padded, int8_t* out, float* scale) {
  alignas(64) float x[kMaxHeadDim];
  alignas(64) int32_t q[kMaxHeadDim];
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < dim; i++) {
    x[i] = widen(from[i]);
    largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  }
  float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
  *scale = largest > 1e-30f ? largest / 127.0f : 0.0f;
  int32_t total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < dim; i++) {
    q[i] = nearest(x[i] * inverse);
    total += q[i];
  }
#pragma omp simd
  for (int i = 0; i < dim; i++) out[i] = int8_t(q[i]);
  for (int i = dim; i < padded; i++) out[i] = 0;
  return -total;
}

void pack_head(const Head& head, int first, int last) {
  auto part = [&](int which, int token) { return head.from + which * head.apart + token * head.stride; };
  for (int which = 0; which < 3; which++)  // a token's row is long and little of it is this head's: nothing else foresees that
    for (int i = first; i < last; i++)
      for (int d = 0; d < head.dim; d += 32) __builtin_prefetch(part(which, i) + d);
  int value = head.integers ? 1 : 2;  // bytes
  for (int i = first; i < last; i++) {
    uint8_t* to = head.query + size_t(i) * head.padded * value;
    if (!head.integers) std::memcpy(to, part(0, i), head.dim * sizeof(uint16_t));
    else
      head.query_negsums[i] =
          quantise_part(part(0, i), head.dim, head.padded, reinterpret_cast<int8_t*>(to), head.query_scales + i);
  }
  for (int start = first; start < last; start += kPanel) {  // a panel of 16 keys, in steps of four bytes
    uint8_t* panel = head.keys + size_t(start) * head.padded * value;
    for (int i = 0; i < std::min(kPanel, last - start); i++) {
      alignas(64) int8_t integers[kMaxHeadDim];
      const uint8_t* from = reinterpret_cast<const uint8_t*>(part(1, start + i));
      if (head.integers) {
        quantise_part(part(1, start + i), head.dim, head.padded, integers, head.key_scales + start + i);
        for (int d = 0; d < head.padded; d++) integers[d] = int8_t(uint8_t(integers[d]) ^ 0x80);  // plus 128, unsigned
        from = reinterpret_cast<const uint8_t*>(integers);
      }
      for (int at = 0; at < (head.integers ? head.padded : head.dim * 2); at += 4) std::memcpy(panel + (at * kPanel + i * 4), from + at, 4);
    }
  }
  static const uint16_t kNone[kMaxHeadDim] = {};
  for (int i = first; i < last; i += 2) {  // pairs of values, in panels of 16 dims
    const uint16_t *a = part(2, i), *b = i + 1 < last ? part(2, i + 1) : kNone;
    uint16_t* page = head.values + size_t(i / head.page) * head.page * head.padded + i % head.page / 2 * 2 * kPanel;
    for (int d = 0; d < head.dim; d += kPanel) {
      uint16_t* to = page + size_t(d) * head.page;
      int some = std::min(kPanel, head.dim - d);
#pragma omp simd
      for (int o = 0; o < some; o++) {
        to[2 * o] = a[d + o];
        to[2 * o + 1] = b[d + o];
      }
    }
  }
}

}  // namespace
}  // namespace smolvlm
