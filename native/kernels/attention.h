// Attention of a few rows over pages of keys and values, with the softmax kept running (FlashAttention, arXiv 2205.14135).
#pragma once

#include "rows.h"

namespace smolvlm {
namespace {

template <int R, int P>
inline void bf16_panels(const uint16_t* a, size_t lda, const uint16_t* w, size_t panel, int k, float* c, size_t ldc, bool more) {
  micro<Format::bf16, R, P>(reinterpret_cast<const uint8_t*>(a), lda * 2, nullptr, nullptr, 0,
                            reinterpret_cast<const uint8_t*>(w), nullptr, panel * 2, 0, k, c, ldc, more);
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

// Turns a row's scores into weights relative to its largest score so far, and scales what was summed before.
inline void weigh(float* scores, int visible, int keys, float scale, uint16_t* weights, float* max, float* sum, float* out,
                  int dim) {
  if (visible <= 0) {
    std::memset(weights, 0, keys * sizeof(uint16_t));
    return;
  }
  float largest = *max / scale;
  float before = largest;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < visible; i++) largest = scores[i] > largest ? scores[i] : largest;
  if (largest > before) {
    float shrink = before == -INFINITY ? 0.0f : exponential((before - largest) * scale);
    *sum *= shrink;
#pragma omp simd
    for (int i = 0; i < dim; i++) out[i] *= shrink;
  }
  *max = largest * scale;
  for (int i = visible; i < keys; i++) scores[i] = -INFINITY;
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < keys; i++) {
    float weight = exponential((scores[i] - largest) * scale);
    weights[i] = narrow(weight);
    total += weight;
  }
  *sum += total;
}

constexpr int kFewRows = 8;  // reading keys and values then takes longer than multiplying them

// Asks for memory that is read a little later.
inline void fetch(const uint16_t* from, size_t values) {
  for (size_t i = 0; i < values; i += 32) __builtin_prefetch(from + i);
}

void attend(const Attention& task) {
  alignas(64) float scores[kAttentionRows * kKeys];
  alignas(64) uint16_t weights[kAttentionRows * kKeys];
  alignas(64) float out[kAttentionRows * kMaxHeadDim];
  float max[kAttentionRows], sum[kAttentionRows];
  int rows = task.rows, dim = task.dim;
  size_t key_panel = size_t(dim) * kPanel, value_panel = size_t(task.page) * kPanel;
  for (int r = 0; r < rows; r++) max[r] = -INFINITY, sum[r] = 0;
  std::memset(out, 0, sizeof(float) * rows * dim);
  for (int start = task.first; start < task.last; start += kKeys) {
    int keys = task.last - start < kKeys ? task.last - start : kKeys;
    int padded = round_up(keys, task.page);  // whole pages; what is not visible gets no weight
    for (int at = 0; at < padded; at += task.page) {
      if (rows <= kFewRows) fetch(task.values[(start + at) / task.page], value_panel * (dim / kPanel));
      bf16_product(rows, task.query, dim, task.keys[(start + at) / task.page], key_panel, task.page / kPanel, dim, scores + at,
                   kKeys, false);
    }
    for (int r = 0; r < rows; r++) {
      int visible = task.visible[r] - start < keys ? task.visible[r] - start : keys;
      weigh(scores + r * kKeys, visible, padded, task.scale, weights + r * kKeys, max + r, sum + r, out + r * dim, dim);
    }
    for (int at = 0; at < padded; at += task.page)
      bf16_product(rows, weights + at, kKeys, task.values[(start + at) / task.page], value_panel, dim / kPanel, task.page, out,
                   dim, true);
  }
  for (int r = 0; r < rows; r++) {
    float factor = task.partial ? 1.0f : 1.0f / sum[r];
    float* to = task.out + r / task.group * task.stride + r % task.group * task.out_dim;
#pragma omp simd
    for (int i = 0; i < task.out_dim; i++) to[i] = out[r * dim + i] * factor;
    if (task.partial) task.max[r] = max[r], task.sum[r] = sum[r];
  }
}

}  // namespace
}  // namespace smolvlm
