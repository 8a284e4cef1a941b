#include "quant/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/number_formats.h"

namespace smolvlm {
namespace {

template <class T>
T unaligned(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Integers for a scale, and the squared error they leave.
float round_to_q4(const float* w, float scale, int8_t* q) {
  float inverse = scale ? 1.0f / scale : 0.0f, error = 0;
  for (int i = 0; i < kBlock; i++) {
    float rounded = std::nearbyint(w[i] * inverse);
    rounded = std::min(std::max(rounded, -8.0f), 7.0f);
    float left = w[i] - rounded * scale;
    q[i] = int8_t(rounded);
    error += left * left;
  }
  return error;
}

// A block of output `o` of a panel, or all blocks of a group.
void put_blocks(const Packed& to, int panel, int o, int block, const float* w) {
  const Matrix& m = to.matrix;
  uint8_t* data = to.data + panel * m.panel_bytes();
  if (m.format == Format::bf16) {
    uint16_t* out = reinterpret_cast<uint16_t*>(data) + size_t(block) * kBlock * kPanel;
    for (int i = 0; i < kBlock; i++) out[(i / 2 * kPanel + o) * 2 + i % 2] = float_to_bf16(w[i]);
    return;
  }
  int8_t q[kMostGroup * kBlock];
  uint16_t scale;
  if (m.format == Format::q8) {
    scale = quantize_q8(w, q, m.group * kBlock);
    uint8_t* out = data + size_t(block) * kBlock * kPanel;
    for (int i = 0; i < m.group * kBlock; i++) out[(i / 4 * kPanel + o) * 4 + i % 4] = uint8_t(q[i] + kZeroPointQ8);
  } else {
    scale = quantize_q4(w, q);
    uint8_t* out = data + size_t(block) * kBlock * kPanel / 2;
    for (int i = 0; i < 16; i++) out[(i / 4 * kPanel + o) * 4 + i % 4] = uint8_t((q[i] + kZeroPointQ4) | (q[i + 16] + kZeroPointQ4) << 4);
  }
  for (int i = block; i < block + m.group; i++) to.scales[panel * m.panel_scales() + size_t(i) * kPanel + o] = scale;
}

}  // namespace

bool read_numbers(const Source& source, size_t first, int count, float* out) {
  float worst = 0;  // NaN and infinity times zero are NaN, which stays
  for (int i = 0; i < count; i++) {
    size_t at = first + i;
    switch (source.number) {
      case DType::f32: out[i] = unaligned<float>(source.data + 4 * at); break;
      case DType::f16: out[i] = half_to_float(unaligned<uint16_t>(source.data + 2 * at)); break;
      case DType::bf16: out[i] = bf16_to_float(unaligned<uint16_t>(source.data + 2 * at)); break;
      case DType::f64: out[i] = float(unaligned<double>(source.data + 8 * at)); break;
    }
    worst += out[i] * 0.0f;
  }
  return worst == 0.0f;
}

uint16_t quantize_q8(const float* w, int8_t* q, int count) {
  float largest = 0;
  for (int i = 0; i < count; i++) largest = std::max(largest, std::fabs(w[i]));
  uint16_t half = float_to_half(std::min(largest / 127.0f, 65504.0f));
  float scale = half_to_float(half), inverse = scale ? 1.0f / scale : 0.0f;
  for (int i = 0; i < count; i++) q[i] = int8_t(std::min(std::max(std::nearbyint(w[i] * inverse), -127.0f), 127.0f));
  return half;
}

uint16_t quantize_q4(const float* w, int8_t* q) {
  float largest = 0;  // with its sign: the grid reaches to -8 on one side and to 7 on the other
  for (int i = 0; i < kBlock; i++) largest = std::fabs(w[i]) > std::fabs(largest) ? w[i] : largest;
  float best = INFINITY;
  uint16_t chosen = 0;
  int8_t trial[kBlock];
  for (int step = 0; step <= 12; step++) {  // -8.6 .. -6.2: the best cut is seldom the largest weight itself
    uint16_t half = float_to_half(std::min(std::max(largest / (-8.6f + 0.2f * float(step)), -65504.0f), 65504.0f));
    float error = round_to_q4(w, half_to_float(half), trial);
    if (error < best) {
      best = error;
      chosen = half;
      std::memcpy(q, trial, kBlock);
    }
  }
  return chosen;
}

Packed make_matrix(Heap& heap, Format format, int n, int k, bool grouped) {
  Packed made;
  Matrix& m = made.matrix;
  m.format = format;
  m.n = n;
  m.padded_n = round_up(n, kUnit);
  m.k = round_up(k, kBlock);
  m.group = grouped ? group_of(format, k) : 1;
  m.data = made.data = heap.take<uint8_t>(m.panel_bytes() * (m.padded_n / kPanel));
  if (format != Format::bf16) m.scales = made.scales = heap.take<uint16_t>(m.panel_scales() * (m.padded_n / kPanel));
  return made;
}

int group_in(const Matrix& matrix) {
  int group = group_of(matrix.format, matrix.k);
  size_t count = group > 1 ? matrix.panel_scales() * (matrix.padded_n / kPanel) : 0;
  for (size_t i = 0; i < count; i += group * kPanel)
    for (int j = kPanel; j < group * kPanel; j += kPanel)
      if (std::memcmp(matrix.scales + i, matrix.scales + i + j, kPanel * sizeof(uint16_t)) != 0) return 1;
  return group;
}

bool fill_panels(Packed& to, const std::vector<Source>& sources, bool interleaved, int first, int last) {
  const Matrix& m = to.matrix;
  std::vector<float> row(m.k);
  bool finite = true;
  for (int panel = first; panel < last; panel++) {
    for (int o = 0; o < kPanel; o++) {
      size_t which = interleaved ? panel % 2 : 0;
      int at = interleaved ? panel / 2 * kPanel + o : panel * kPanel + o;
      while (!interleaved && which < sources.size() && at >= sources[which].rows) at -= sources[which++].rows;
      const Source* source = which < sources.size() ? &sources[which] : nullptr;  // none: an output that pads
      std::fill(row.begin(), row.end(), 0.0f);
      if (source && at < source->rows) finite &= read_numbers(*source, size_t(at) * source->columns, source->columns, row.data());
      for (int block = 0; block < m.k / kBlock; block += m.group) put_blocks(to, panel, o, block, row.data() + block * kBlock);
    }
  }
  return finite;
}

}  // namespace smolvlm
