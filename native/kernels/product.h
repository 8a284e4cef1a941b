// A product of activations and packed weights, around a micro-kernel that the including file defines as `micro`:
//
//   micro<Format, Rows, Panels>(a, lda, a_scales, a_negsums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, more, fresh)
//
// c (Rows x 16 Panels, float) = or, with `more`, += rows of a (lda bytes apart; their scales and sums lds apart) times panels.
#pragma once

#include "rows.h"

namespace smolvlm {
namespace {

constexpr int kWide = kMostGroup * kUnit;  // the most outputs that are finished together: see Epilogue::units

template <Format F, int R>
inline void micro_rows(const Rows& a, int row, const Matrix& w, int panel, float* c, bool fresh) {
  const uint8_t* rows = a.data + row * a.row_bytes();
  size_t block = row * a.row_blocks();
#ifdef SMOLVLM_GROUPS  // the including file multiplies faster where scales are fewer
  if constexpr (F == Format::q8) {
    if (w.group > 1 && w.group == a.group) {
      auto grouped = [&](auto group) {
        micro_grouped<R, 2, group.value>(rows, a.row_bytes(), a.scales + block, a.zeros + block / group.value, a.row_blocks(),
                                         w.data + panel * w.panel_bytes(), w.scales + panel * w.panel_scales(), w.panel_bytes(),
                                         w.panel_scales(), w.k, c, kWide);
      };
      if (w.group == 4) return grouped(std::integral_constant<int, 4>{});
      return grouped(std::integral_constant<int, kMostGroup>{});
    }
  }
#endif
  micro<F, R, 2>(rows, a.row_bytes(), F == Format::bf16 ? nullptr : a.scales + block,
                 F == Format::bf16 ? nullptr : a.negsums + block, a.row_blocks(), w.data + panel * w.panel_bytes(),
                 F == Format::bf16 ? nullptr : w.scales + panel * w.panel_scales(), w.panel_bytes(), w.panel_scales(), w.k, c,
                 kWide, false, fresh);
}

template <Format F, int R>
inline void micro_up_to(int rows, const Rows& a, int row, const Matrix& w, int panel, float* c, bool fresh) {
  if constexpr (R > 1) {
    if (rows < R) return micro_up_to<F, R - 1>(rows, a, row, w, panel, c, fresh);
  }
  micro_rows<F, R>(a, row, w, panel, c, fresh);
}

// Calls each(line, row) for the lines of `c`, kWide apart, that hold results of rows from `first` on.
template <class Each>
inline void by_line(float* c, int first, int rows, Each each) {
  for (int r = 0; r < rows; r++) each(c + r * kWide, size_t(first + r));
}

// What becomes of to.units() units of some rows, which lie side by side in `c`.
inline void finish(const Epilogue& to, const Matrix& w, int first, int rows, int unit, float* c) {
  int at = unit * kUnit, count = to.units() * kUnit, valid = w.n - at < kUnit ? w.n - at : kUnit;
  if (w.bias) {
    const float* bias = w.bias + at;
    by_line(c, first, rows, [=](float* line, size_t) {
#pragma omp simd
      for (int i = 0; i < count; i++) line[i] += bias[i];
    });
  }
  switch (to.after) {
    case After::store:
      if (valid > 0) by_line(c, first, rows, [&](float* line, size_t row) { std::memcpy(to.out + row * to.stride + at, line, valid * sizeof(float)); });
      break;
    case After::store_bf16:
      if (valid == kUnit) by_line(c, first, rows, [&](float* line, size_t row) { narrow_row(line, kUnit, to.out_bf16 + row * to.stride + at); });
      else by_line(c, first, rows, [&](float* line, size_t row) { to_bf16(line, valid, to.out_bf16 + row * to.stride + at); });
      break;
    case After::add:
      by_line(c, first, rows, [&](float* line, size_t row) {
        float* out = to.out + row * to.stride + at;
#pragma omp simd
        for (int i = 0; i < valid; i++) out[i] += line[i];
      });
      break;
    case After::gelu:
      by_line(c, first, rows, [&](float* line, size_t row) {
        gelu_line(line, count);
        pack_some(line, to.next, int(row), at);
      });
      break;
    case After::swiglu:
      by_line(c, first, rows, [&](float* line, size_t row) {
#pragma omp simd
        for (int i = 0; i < kPanel; i++) line[i] = silu(line[i]) * line[kPanel + i];
#pragma omp simd
        for (int i = 0; i < kPanel; i++) line[kPanel + i] = silu(line[kUnit + i]) * line[kUnit + kPanel + i];
        pack_some(line, to.next, int(row), at / 2);
      });
      break;
  }
}

template <Format F, int R>
void product_of(const Rows& a, const Matrix& w, const Epilogue& to, int m0, int m1, int u0, int u1) {
  int step = to.units();
  alignas(64) float c[R * kWide];
  for (int unit = u0; unit < u1; unit += step) {
    for (int row = m0; row < m1; row += R) {
      int rows = m1 - row < R ? m1 - row : R;
      for (int s = 0; s < step; s++) micro_up_to<F, R>(rows, a, row, w, 2 * (unit + s), c + s * kUnit, row == m0);
      finish(to, w, row, rows, unit, c);
    }
  }
}

// Small blocks of rows, or any where an instruction set has nothing else.
void narrow(const Rows& a, const Matrix& w, const Epilogue& to, int m0, int m1, int u0, int u1) {
  switch (w.format) {
    case Format::bf16: return product_of<Format::bf16, kRowsBf16>(a, w, to, m0, m1, u0, u1);
    case Format::q8: return product_of<Format::q8, kRowsQ8>(a, w, to, m0, m1, u0, u1);
    case Format::q4: return product_of<Format::q4, kRowsQ8>(a, w, to, m0, m1, u0, u1);
  }
}

}  // namespace
}  // namespace smolvlm
