// From the tensors of a checkpoint to packed matrices.
#pragma once

#include <vector>

#include "simd/kernels.h"
#include "runtime/memory.h"

namespace smolvlm {

enum class DType : uint8_t { f32, f16, bf16, f64 };

// A tensor as it lies in the file: little-endian, row by row, of any alignment.
struct Source {
  const uint8_t* data = nullptr;
  DType number = DType::f32;
  int rows = 0, columns = 0;
};

// `count` numbers from number `first` on, as floats. False when one is not finite.
bool read_numbers(const Source& source, size_t first, int count, float* out);

struct Packed {
  Matrix matrix;
  uint8_t* data = nullptr;  // the matrix's own, to be filled
  uint16_t* scales = nullptr;
};

// A matrix of zeros of this shape in `heap`; grouped where that is wanted and can be.
Packed make_matrix(Heap& heap, Format format, int n, int k, bool grouped = false);
// The group that the scales of a matrix have, as make_matrix would choose it, or 1.
int group_in(const Matrix& matrix);

// Fills `to` with the rows of all sources, one source after the other; `interleaved` takes two sources, gate and up, panel by
// panel. Rows [first panel, last panel) of panels only, so that threads can share the work. False: a value was not finite.
bool fill_panels(Packed& to, const std::vector<Source>& sources, bool interleaved, int first, int last);

// One block of 32 weights, of q8 `count`: integers and the half-precision scale. `q` in [-127, 127], of q4 in [-8, 7].
uint16_t quantize_q8(const float* w, int8_t* q, int count = kBlock);
uint16_t quantize_q4(const float* w, int8_t* q);

}  // namespace smolvlm
