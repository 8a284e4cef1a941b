// What an instruction set implements: the one interface between the drivers (gemm.h, attention.h) and the micro-kernels.
//
//   struct MyKernels {
//     static constexpr int kRowsBf16, kRowsQ8;              // rows of one call at most: as many as its registers hold sums for
//     template <Format F, int R, int P> static void microkernel(const MicroArgs& args);   // R rows x P panels of 16 outputs
//     // optional, each found by `requires`; without it the drivers use what every set has:
//     template <int R, int P, int G> static void microkernel_grouped(const MicroArgs& args);  // q8, G blocks share a scale
//     template <int R> static void few_rows(const Bf16Gemm& args, const uint8_t* next);   // weaves prefetching into the product
//     static void gemm_bf16(int rows, const Bf16Gemm& args);                              // many rows
//     static void online_softmax(const SoftmaxRow& row);
//   };
//
// docs/instruction-sets.md walks through a new one.
#pragma once

#include "simd/kernels.h"

namespace smolvlm {

// One call of a micro-kernel: c (rows x 16 panels, ldc apart) = or, with `accumulate`, += rows of `a` times panels of `w`.
struct MicroArgs {
  const uint8_t* a = nullptr;  // the first row; the others lda bytes apart
  size_t lda = 0;
  const float* a_scales = nullptr;      // quantized: one a block of 32 inputs, the rows' lds apart
  const int32_t* a_neg_sums = nullptr;  // the same for minus the sum of a block's integers; grouped: the zero-point terms, lds / G apart
  size_t lds = 0;
  const uint8_t* w = nullptr;  // the first panel; the others panel_bytes, their scales panel_scales apart
  const uint16_t* w_scales = nullptr;
  size_t panel_bytes = 0, panel_scales = 0;
  int k = 0;
  float* c = nullptr;
  size_t ldc = 0;
  bool accumulate = false;
  bool fresh = false;  // nobody has read these weights just before
};

// A small product of bf16 rows and panels, as attention computes them: strides in values.
struct Bf16Gemm {
  const uint16_t* a = nullptr;
  size_t lda = 0;
  const uint16_t* w = nullptr;  // `panels` of 16 outputs, `panel` apart
  size_t panel = 0;
  int panels = 0, k = 0;
  float* c = nullptr;
  size_t ldc = 0;
  bool accumulate = false;
};

// The micro-kernel's arguments for the panels of `g` from panel `p` on.
SMOLVLM_INLINE MicroArgs args_from(const Bf16Gemm& g, int p) {
  return {.a = reinterpret_cast<const uint8_t*>(g.a),
          .lda = g.lda * 2,
          .w = reinterpret_cast<const uint8_t*>(g.w + p * g.panel),
          .panel_bytes = g.panel * 2,
          .k = g.k,
          .c = g.c + p * kPanel,
          .ldc = g.ldc,
          .accumulate = g.accumulate};
}

// One row of scores on its way to weights, relative to the largest score so far (the online softmax of FlashAttention).
struct SoftmaxRow {
  float* scores = nullptr;
  int visible = 0, keys = 0;  // of `keys` scores, those from `visible` on get no weight
  float scale = 1;
  const float *key_scales = nullptr, *value_scales = nullptr;  // q8: a value a token
  uint16_t* weights = nullptr;                                 // bf16
  float *max = nullptr, *sum = nullptr;                        // so far
  float* out = nullptr;                                        // the weighted sum so far, `dim` values
  int dim = 0;
};

}  // namespace smolvlm
