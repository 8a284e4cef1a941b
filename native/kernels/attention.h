// Attention of a few rows over pages of keys and values, with the softmax kept running (FlashAttention, arXiv 2205.14135).
#pragma once

#include <algorithm>

#include "rows.h"

namespace smolvlm {
namespace {

template <int R, int P>
inline void bf16_panels(const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int k, float* c, size_t ldc, bool more) {
  micro<Format::bf16, R, P>(reinterpret_cast<const uint8_t*>(a), lda * 2, nullptr, nullptr, 0,
                            reinterpret_cast<const uint8_t*>(w), nullptr, panel * 2, 0, k, c, ldc, more, false);
}

template <int R>
inline void bf16_rows(int rows, const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int panels, int k, float* c,
                      size_t ldc, bool more) {
  if constexpr (R > 1) {
    if (rows < R) return bf16_rows<R - 1>(rows, a, lda, w, panel, panels, k, c, ldc, more);
  }
  int p = 0;
  for (; p + 2 <= panels; p += 2) bf16_panels<R, 2>(a, lda, w + p * panel, panel, k, c + p * kPanel, ldc, more);
  if (p < panels) bf16_panels<R, 1>(a, lda, w + p * panel, panel, k, c + p * kPanel, ldc, more);
}

// c (rows x 16 panels) = or += a (rows x k) times `panels` panels that lie `panel` values apart
inline void narrow_product(int rows, const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int panels, int k, float* c,
                           size_t ldc, bool more) {
  for (int row = 0; row < rows; row += kRowsBf16) {
    int some = rows - row < kRowsBf16 ? rows - row : kRowsBf16;
    bf16_rows<kRowsBf16>(some, a + row * lda, lda, w, panel, panels, k, c + row * ldc, ldc, more);
  }
}

#ifdef SMOLVLM_WIDE_PRODUCT  // the including file has something better for many rows
void bf16_product(int rows, const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int panels, int k, float* c, size_t ldc,
                  bool more);
#else
inline void bf16_product(int rows, const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int panels, int k, float* c,
                         size_t ldc, bool more) {
  narrow_product(rows, a, lda, w, panel, panels, k, c, ldc, more);
}
#endif

// Turns a row's scores into weights relative to its largest score so far, and scales what was summed before. With scales of
// the tokens (q8), scores become those of the keys that the integers stand for, and weights take the values' scales along.
#ifndef SMOLVLM_WEIGH  // the including file may have its own
inline void weigh(float* scores, int visible, int keys, float scale, const float* key_scales, const float* value_scales,
                  uint16_t* weights, float* max, float* sum, float* out, int dim) {
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
    float shrink = before == -INFINITY ? 0.0f : power_of_two(before - largest);
    *sum *= shrink;
#pragma omp simd
    for (int i = 0; i < dim; i++) out[i] *= shrink;
  }
  *max = largest;
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < visible; i++) {
    scores[i] = power_of_two(scores[i] * scale - largest);
    total += scores[i];
  }
  *sum += total;
  for (int i = visible; i < keys; i++) scores[i] = 0;
  if (value_scales) {
#pragma omp simd
    for (int i = 0; i < visible; i++) scores[i] *= value_scales[i];
  }
  narrow_row(scores, keys, weights);
}
#endif

constexpr int kFewRows = 8;  // reading keys and values then takes longer than multiplying them

// Asks for memory that is read a little later.
inline void fetch(const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
}

#ifndef SMOLVLM_FEW_ROWS  // the including file may weave the fetching into the product
template <int R>
inline void few_rows(const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int panels, int k, float* c, size_t ldc,
                     bool more, const uint8_t* next) {
  if (next) fetch(next, panel * panels * sizeof(uint16_t));
  bf16_rows<R>(R, a, lda, w, panel, panels, k, c, ldc, more);
}
#endif

// The product of at most R rows, which asks for as much memory at `next` as it reads itself.
template <int R>
inline void few_product(int rows, const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int panels, int k, float* c,
                        size_t ldc, bool more, const uint8_t* next) {
  if constexpr (R > 1) {
    if (rows < R) return few_product<R - 1>(rows, a, lda, w, panel, panels, k, c, ldc, more, next);
  }
  few_rows<R>(a, lda, w, panel, panels, k, c, ldc, more, next);
}

// The integers of a page's keys or values as bf16, which holds them without an error; asks for as much at `next`.
inline const uint16_t* widen_integers(const uint8_t* data, size_t values, uint16_t* room, const uint8_t* next) {
  const int8_t* from = reinterpret_cast<const int8_t*>(data);
  for (size_t at = 0; at < values; at += 64) {
    if (next) __builtin_prefetch(next + at);
#pragma omp simd
    for (int i = 0; i < 64; i++) room[at + i] = uint16_t(as_bits(float(from[at + i])) >> 16);
  }
  return room;
}

void attend(const Attention& task) {
  alignas(64) float scores[kAttentionRows * kKeys];
  alignas(64) uint16_t weights[kAttentionRows * kKeys];
  alignas(64) float out[kAttentionRows * kMaxHeadDim];
  alignas(64) uint16_t room[kPage * kMaxHeadDim];
  alignas(64) float key_scales[kKeys], value_scales[kKeys];
  float max[kAttentionRows], sum[kAttentionRows];
  bool scaled = task.kept != Format::bf16, few = task.rows <= kFewRows;
  int rows = task.rows, dim = task.dim;
  size_t key_panel = size_t(dim) * kPanel, value_panel = size_t(task.page) * kPanel, values = size_t(task.page) * dim;
  size_t bytes = values * (scaled ? 1 : 2);
  // Rows (lda apart) times the panels of keys or of values at `data`, while those at `next` are on their way.
  auto product = [&](const uint16_t* a, size_t lda, const uint8_t* data, size_t panel, int panels, int k, float* c, size_t ldc,
                     bool more, const uint8_t* next) {
    const uint16_t* w = reinterpret_cast<const uint16_t*>(data);
    if (!few) next = nullptr;
    if (scaled) w = widen_integers(data, values, room, next), next = nullptr;
    if (few) few_product<kFewRows>(rows, a, lda, w, panel, panels, k, c, ldc, more, next);
    else bf16_product(rows, a, lda, w, panel, panels, k, c, ldc, more);
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
      product(task.query, dim, page.keys, key_panel, task.page / kPanel, dim, scores + at, kKeys, false,
              later(start, padded, at, false));
    }
    for (int r = 0; r < rows; r++) {
      int visible = task.visible[r] - start < keys ? task.visible[r] - start : keys;
      weigh(scores + r * kKeys, visible, padded, task.scale, scaled ? key_scales : nullptr, scaled ? value_scales : nullptr,
            weights + r * kKeys, max + r, sum + r, out + r * dim, dim);
    }
    for (int at = 0; at < padded; at += task.page) {
      product(weights + at, kKeys, task.pages[(start + at) / task.page].values, value_panel, dim / kPanel, task.page, out, dim, true,
              later(start, padded, at, true));
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
