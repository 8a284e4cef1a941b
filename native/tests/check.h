// What kernels_test compares with: a check that reports its worst error, random numbers, activations in memory of exact size.
#pragma once

#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "quant/number_formats.h"
#include "simd/kernels.h"

namespace smolvlm {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

constexpr float kUntouched = 12345.0f;  // stands where a kernel must not write

inline Floats random_floats(size_t count, unsigned seed, float scale = 1.0f) {
  std::mt19937 engine(seed);
  Floats out(count);
  for (float& x : out) {  // nearly normal, and the same with every standard library
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += float(engine() >> 8) * 0x1p-24f - 0.5f;
    x = sum * scale * 1.7f;
  }
  return out;
}

// The worst error of a kernel as a part of what is allowed, over all its cases.
class Check {
 public:
  Check(const Kernels& kernels, std::string what) : name_(kernels.name), what_(std::move(what)) {}
  void close(double got, double expected, double allowed) {
    double part = std::fabs(got - expected) / allowed;
    worst_ = part <= worst_ ? worst_ : part;  // keeps NaN
    compared_++;
  }
  void same(double got, double expected) { close(got, expected, got == expected ? 1 : 0); }
  bool finish() const {
    bool right = worst_ <= 1 && compared_ > 0;
    std::printf("%-13s %-18s %8ld values, worst error %6.3f of the allowed: %s\n", name_.c_str(), what_.c_str(), compared_, worst_,
                right ? "ok" : "WRONG");
    return right;
  }

 private:
  std::string name_, what_;
  double worst_ = 0;
  long compared_ = 0;
};

// Activations as kernels read them, in memory that ends where they end.
struct Activations {
  Rows rows;
  std::vector<uint8_t> data;
  Floats scales;
  std::vector<int32_t> neg_sums, zeros;

  Activations(Format format, int count, int width, bool grouped = false) {
    rows.format = format;
    rows.group = grouped ? group_of(format, width) : 1;
    rows.width = round_up(width, kBlock);
    data.resize(count * rows.row_bytes(), 0x55);
    scales.resize(count * rows.row_blocks(), kUntouched);
    neg_sums.resize(count * rows.row_blocks(), 99), zeros.resize(count * rows.row_blocks() / rows.group, 99);
    rows.data = data.data(), rows.scales = scales.data(), rows.neg_sums = neg_sums.data(), rows.zero_point_terms = zeros.data();
  }
  double at(int row, int i) const {
    if (rows.format == Format::bf16) return bf16_to_float(reinterpret_cast<const uint16_t*>(data.data() + row * rows.row_bytes())[i]);
    return double(int8_t(data[row * rows.row_bytes() + i])) * double(scales[row * rows.row_blocks() + i / kBlock]);
  }
};

}  // namespace smolvlm
