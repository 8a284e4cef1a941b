// Attention of a few rows over pages of keys and values, with the softmax kept running (FlashAttention, arXiv 2205.14135).
#pragma once

#include <algorithm>

#include "gemm/microkernel.h"
#include "simd/rowwise.h"

namespace smolvlm {
namespace {

// g's R rows: two panels at a time.
template <class Isa, int R>
inline void bf16_rows(int rows, const Bf16Gemm& g) {
  if constexpr (R > 1) {
    if (rows < R) return bf16_rows<Isa, R - 1>(rows, g);
  }
  int p = 0;
  for (; p + 2 <= g.panels; p += 2) Isa::template microkernel<Format::bf16, R, 2>(args_from(g, p));
  if (p < g.panels) Isa::template microkernel<Format::bf16, R, 1>(args_from(g, p));
}

// The same product from row `row` on.
inline Bf16Gemm from_row(Bf16Gemm g, int row) {
  g.a += row * g.lda;
  g.c += row * g.ldc;
  return g;
}

// Any number of rows, by micro-kernels.
template <class Isa>
inline void gemm_bf16_rows(int rows, const Bf16Gemm& g) {
  for (int row = 0; row < rows; row += Isa::kRowsBf16) {
    int some = rows - row < Isa::kRowsBf16 ? rows - row : Isa::kRowsBf16;
    bf16_rows<Isa, Isa::kRowsBf16>(some, from_row(g, row));
  }
}

// Turns a row's scores into weights relative to its largest score so far, and scales what was summed before. With scales of
// the tokens (q8), scores become those of the keys that the integers stand for, and weights take the values' scales along.
inline void online_softmax(const SoftmaxRow& row) {
  auto [scores, visible, keys, scale, key_scales, value_scales, weights, max, sum, out, dim] = row;
  if (visible <= 0) {
    std::memset(weights, 0, keys * sizeof(uint16_t));
    return;
  }
  if (key_scales) {
#pragma omp simd
    for (int i = 0; i < visible; i++) scores[i] *= key_scales[i];
  }
  scale *= 1.44269504088896341f;  // to powers of two
  float largest = *max, before = largest;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < visible; i++) largest = scores[i] * scale > largest ? scores[i] * scale : largest;
  if (largest > before) {
    float shrink = before == -INFINITY ? 0.0f : exp2_approx(before - largest);
    *sum *= shrink;
#pragma omp simd
    for (int i = 0; i < dim; i++) out[i] *= shrink;
  }
  *max = largest;
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < visible; i++) {
    scores[i] = exp2_approx(scores[i] * scale - largest);
    total += scores[i];
  }
  *sum += total;
  for (int i = visible; i < keys; i++) scores[i] = 0;
  if (value_scales) {
#pragma omp simd
    for (int i = 0; i < visible; i++) scores[i] *= value_scales[i];
  }
  round_row_to_bf16(scores, keys, weights);
}

constexpr int kFewRows = 8;  // reading keys and values then takes longer than multiplying them

// Asks for memory that is read a little later.
inline void fetch(const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
}

// The product of at most R rows, which asks for as much memory at `next` as it reads itself.
template <class Isa, int R>
inline void gemm_few_rows(int rows, const Bf16Gemm& g, const uint8_t* next) {
  if constexpr (R > 1) {
    if (rows < R) return gemm_few_rows<Isa, R - 1>(rows, g, next);
  }
  if constexpr (requires { Isa::template few_rows<R>(g, next); }) {
    Isa::template few_rows<R>(g, next);
  } else {
    if (next) fetch(next, g.panel * g.panels * sizeof(uint16_t));
    bf16_rows<Isa, R>(R, g);
  }
}

// The integers of a page's keys or values as bf16, which holds them without an error; asks for as much at `next`.
inline const uint16_t* int8_to_bf16(const uint8_t* data, size_t values, uint16_t* buffer, const uint8_t* next) {
  const int8_t* from = reinterpret_cast<const int8_t*>(data);
  for (size_t at = 0; at < values; at += 64) {
    if (next) __builtin_prefetch(next + at);
#pragma omp simd
    for (int i = 0; i < 64; i++) buffer[at + i] = uint16_t(as_bits(float(from[at + i])) >> 16);
  }
  return buffer;
}

template <class Isa>
void attend(const Attention& task) {
  alignas(64) float scores[kAttentionRows * kKeys];
  alignas(64) uint16_t weights[kAttentionRows * kKeys];
  alignas(64) float out[kAttentionRows * kMaxHeadDim];
  alignas(64) uint16_t buffer[kPage * kMaxHeadDim];
  alignas(64) float key_scales[kKeys], value_scales[kKeys];
  float max[kAttentionRows], sum[kAttentionRows];
  bool scaled = task.kept != Format::bf16, few = task.rows <= kFewRows;
  int rows = task.rows, dim = task.dim;
  size_t key_panel = size_t(dim) * kPanel, value_panel = size_t(task.page) * kPanel, values = size_t(task.page) * dim;
  size_t bytes = values * (scaled ? 1 : 2);
  // Rows (lda apart) times the panels of keys or of values at `data`, while those at `next` are on their way.
  auto product = [&](Bf16Gemm g, const uint8_t* data, const uint8_t* next) {
    g.w = reinterpret_cast<const uint16_t*>(data);
    if (!few) next = nullptr;
    if (scaled) g.w = int8_to_bf16(data, values, buffer, next), next = nullptr;
    if (few) gemm_few_rows<Isa, kFewRows>(rows, g, next);
    else if constexpr (requires { Isa::gemm_bf16(rows, g); }) Isa::gemm_bf16(rows, g);
    else gemm_bf16_rows<Isa>(rows, g);
  };
  for (int r = 0; r < rows; r++) max[r] = -INFINITY, sum[r] = 0;
  std::memset(out, 0, sizeof(float) * rows * dim);
  // Memory is read in a known order, a chunk's keys and then its values: what comes two pages later is fetched meanwhile.
  auto later = [&](int start, int padded, int at, bool of_values) -> const uint8_t* {
    int next = at + 2 * task.page;
    bool values_next = of_values;
    if (next >= padded) next -= padded, start += of_values ? kKeys : 0, values_next = !of_values;
    if (next >= padded || start + next >= task.last) return nullptr;
    const KvPage& page = task.pages[(start + next) / task.page];
    if (scaled && !values_next) fetch(reinterpret_cast<const uint8_t*>(page.key_scales), 2 * task.page * sizeof(float));
    return values_next ? page.values : page.keys;
  };
  if (few)
    for (int at = task.first; at < std::min(task.first + 2 * task.page, task.last); at += task.page)
      fetch(task.pages[at / task.page].keys, bytes);
  for (int start = task.first; start < task.last; start += kKeys) {
    int keys = task.last - start < kKeys ? task.last - start : kKeys;
    int padded = round_up(keys, task.page);  // whole pages; what is not visible gets no weight
    for (int at = 0; at < padded; at += task.page) {
      const KvPage& page = task.pages[(start + at) / task.page];
      if (scaled) {
        std::memcpy(key_scales + at, page.key_scales, task.page * sizeof(float));
        std::memcpy(value_scales + at, page.value_scales, task.page * sizeof(float));
      }
      Bf16Gemm to_scores{task.query, size_t(dim), nullptr, key_panel, task.page / kPanel, dim, scores + at, kKeys, false};
      product(to_scores, page.keys, later(start, padded, at, false));
    }
    for (int r = 0; r < rows; r++) {
      int visible = task.visible[r] - start < keys ? task.visible[r] - start : keys;
      SoftmaxRow row{scores + r * kKeys,
                     visible,
                     padded,
                     task.scale,
                     scaled ? key_scales : nullptr,
                     scaled ? value_scales : nullptr,
                     weights + r * kKeys,
                     max + r,
                     sum + r,
                     out + r * dim,
                     dim};
      if constexpr (requires { Isa::online_softmax(row); }) Isa::online_softmax(row);
      else online_softmax(row);
    }
    for (int at = 0; at < padded; at += task.page) {
      Bf16Gemm to_out{weights + at, kKeys, nullptr, value_panel, dim / kPanel, task.page, out, size_t(dim), true};
      product(to_out, task.pages[(start + at) / task.page].values, later(start, padded, at, true));
    }
  }
  for (int r = 0; r < rows; r++) {
    float factor = task.partial ? 1.0f : 1.0f / sum[r];
    float* to = task.out + r / task.group * task.stride + r % task.group * task.out_dim;
#pragma omp simd
    for (int i = 0; i < task.out_dim; i++) to[i] = out[r * dim + i] * factor;
    if (task.partial) task.max[r] = max[r] * 0.693147180559945f, task.sum[r] = sum[r];  // back to powers of e
  }
}

}  // namespace
}  // namespace smolvlm
