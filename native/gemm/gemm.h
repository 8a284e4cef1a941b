// gemm: activations times packed weights, as blocks of rows and units of outputs around an instruction set's micro-kernel.
#pragma once

#include "gemm/microkernel.h"
#include "simd/rowwise.h"

namespace smolvlm {
namespace {

constexpr int kWide = kMostGroup * kUnit;  // the most outputs that are finished together: see Epilogue::units

template <class Isa, Format F, int R>
inline void microkernel_rows(const Rows& a, int row, const Matrix& w, int panel, float* c, bool fresh) {
  size_t block = row * a.row_blocks();
  MicroArgs args{.a = a.data + row * a.row_bytes(),
                 .lda = a.row_bytes(),
                 .lds = a.row_blocks(),
                 .w = w.data + panel * w.panel_bytes(),
                 .panel_bytes = w.panel_bytes(),
                 .panel_scales = w.panel_scales(),
                 .k = w.k,
                 .c = c,
                 .ldc = kWide,
                 .fresh = fresh};
  if constexpr (F != Format::bf16) {
    args.a_scales = a.scales + block;
    args.a_neg_sums = a.neg_sums + block;
    args.w_scales = w.scales + panel * w.panel_scales();
  }
  // Some sets multiply faster where scales are fewer.
  if constexpr (F == Format::q8 && requires { Isa::template microkernel_grouped<R, 2, 4>(args); }) {
    if (w.group > 1 && w.group == a.group) {
      args.a_neg_sums = a.zero_point_terms + block / w.group;
      if (w.group == 4) return Isa::template microkernel_grouped<R, 2, 4>(args);
      return Isa::template microkernel_grouped<R, 2, kMostGroup>(args);
    }
  }
  Isa::template microkernel<F, R, 2>(args);
}

template <class Isa, Format F, int R>
inline void microkernel_up_to(int rows, const Rows& a, int row, const Matrix& w, int panel, float* c, bool fresh) {
  if constexpr (R > 1) {
    if (rows < R) return microkernel_up_to<Isa, F, R - 1>(rows, a, row, w, panel, c, fresh);
  }
  microkernel_rows<Isa, F, R>(a, row, w, panel, c, fresh);
}

// Calls each(line, row) for the lines of `c`, kWide apart, that hold results of rows from `first` on.
template <class Each>
inline void by_line(float* c, int first, int rows, Each each) {
  for (int r = 0; r < rows; r++) each(c + r * kWide, size_t(first + r));
}

// What becomes of to.units() units of some rows, which lie side by side in `c`.
inline void apply_epilogue(const Epilogue& to, const Matrix& w, int first, int rows, int unit, float* c) {
  int at = unit * kUnit, count = to.units() * kUnit, valid = w.n - at < kUnit ? w.n - at : kUnit;
  if (w.bias) {
    const float* bias = w.bias + at;
    by_line(c, first, rows, [=](float* line, size_t) {
#pragma omp simd
      for (int i = 0; i < count; i++) line[i] += bias[i];
    });
  }
  switch (to.after) {
    case EpilogueOp::store:
      if (valid > 0)
        by_line(c, first, rows, [&](float* line, size_t row) { std::memcpy(to.out + row * to.stride + at, line, valid * sizeof(float)); });
      break;
    case EpilogueOp::store_bf16:
      if (valid == kUnit)
        by_line(c, first, rows, [&](float* line, size_t row) { round_row_to_bf16(line, kUnit, to.out_bf16 + row * to.stride + at); });
      else by_line(c, first, rows, [&](float* line, size_t row) { to_bf16(line, valid, to.out_bf16 + row * to.stride + at); });
      break;
    case EpilogueOp::add:
      by_line(c, first, rows, [&](float* line, size_t row) {
        float* out = to.out + row * to.stride + at;
#pragma omp simd
        for (int i = 0; i < valid; i++) out[i] += line[i];
      });
      break;
    case EpilogueOp::gelu:
      by_line(c, first, rows, [&](float* line, size_t row) {
        gelu_line(line, count);
        quantize_blocks(line, to.next, int(row), at);
      });
      break;
    case EpilogueOp::swiglu:
      by_line(c, first, rows, [&](float* line, size_t row) {
#pragma omp simd
        for (int i = 0; i < kPanel; i++) line[i] = silu(line[i]) * line[kPanel + i];
#pragma omp simd
        for (int i = 0; i < kPanel; i++) line[kPanel + i] = silu(line[kUnit + i]) * line[kUnit + kPanel + i];
        quantize_blocks(line, to.next, int(row), at / 2);
      });
      break;
  }
}

template <class Isa, Format F, int R>
void gemm_of(const Rows& a, const Matrix& w, const Epilogue& to, int m0, int m1, int u0, int u1) {
  int step = to.units();
  alignas(64) float c[R * kWide];
  for (int unit = u0; unit < u1; unit += step) {
    for (int row = m0; row < m1; row += R) {
      int rows = m1 - row < R ? m1 - row : R;
      for (int s = 0; s < step; s++) microkernel_up_to<Isa, F, R>(rows, a, row, w, 2 * (unit + s), c + s * kUnit, row == m0);
      apply_epilogue(to, w, row, rows, unit, c);
    }
  }
}

// By micro-kernels: small blocks of rows, or any where an instruction set has nothing else.
template <class Isa>
void gemm_microkernels(const Rows& a, const Matrix& w, const Epilogue& to, int m0, int m1, int u0, int u1) {
  switch (w.format) {
    case Format::bf16: return gemm_of<Isa, Format::bf16, Isa::kRowsBf16>(a, w, to, m0, m1, u0, u1);
    case Format::q8: return gemm_of<Isa, Format::q8, Isa::kRowsQ8>(a, w, to, m0, m1, u0, u1);
    case Format::q4: return gemm_of<Isa, Format::q4, Isa::kRowsQ8>(a, w, to, m0, m1, u0, u1);
  }
}

}  // namespace
}  // namespace smolvlm
