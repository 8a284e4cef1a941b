#include "weights.h"

#include <atomic>
#include <cstring>
#include <stdexcept>

#include "quant/number_formats.h"

namespace smolvlm {
namespace {

[[noreturn]] void refuse(const std::string& name, const std::string& why) { throw std::invalid_argument(name + ": " + why); }

// Kernels read whole cache lines, and a mapped file puts a part wherever its header says.
void check_place(const std::string& name, const void* data) {
  if (reinterpret_cast<uintptr_t>(data) % 64) refuse(name, "does not lie at a multiple of 64 bytes");
}

bool all_finite_bf16(const uint8_t* data, size_t bytes) {
  unsigned found = 0;
  for (size_t i = 0; i + 1 < bytes; i += 2) {
    uint16_t value;
    std::memcpy(&value, data + i, 2);
    found |= (value & 0x7f80) == 0x7f80;
  }
  return !found;
}

std::string layer(const char* tower, int index, const char* part) { return std::string(tower) + "." + std::to_string(index) + "." + part; }

}  // namespace

Weights::Weights(const Shape& shape, Formats formats) : shape_(shape), formats_(formats) {
  const VisionShape& v = shape.vision;
  const TextShape& t = shape.text;
  // Grouped: massive activations are known of the text model only (docs/native.md).
  auto vision_slot = [&](const std::string& name, int n, int k, bool biased) {
    matrix_slot(name, formats.vision, n, k, biased, false, true);
  };
  vision_slot("vision.patch", v.dim, 3 * v.patch * v.patch, true);
  vector_slot("vision.positions", v.patches() * v.dim);
  for (int i = 0; i < v.layers; i++) {
    for (const char* part : {"norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}) vector_slot(layer("vision", i, part), v.dim);
    vision_slot(layer("vision", i, "qkv"), 3 * v.dim, v.dim, true);
    vision_slot(layer("vision", i, "out"), v.dim, v.dim, true);
    vision_slot(layer("vision", i, "fc1"), v.inter, v.dim, true);
    vision_slot(layer("vision", i, "fc2"), v.dim, v.inter, true);
  }
  vector_slot("vision.post.weight", v.dim);
  vector_slot("vision.post.bias", v.dim);
  vision_slot("connector", t.dim, shape.folded_dim(), false);
  for (int i = 0; i < t.layers; i++) {
    vector_slot(layer("text", i, "norm1"), t.dim);
    vector_slot(layer("text", i, "norm2"), t.dim);
    matrix_slot(layer("text", i, "qkv"), formats.text, t.qkv(), t.dim, false);
    matrix_slot(layer("text", i, "out"), formats.text, t.dim, t.heads * t.head_dim, false);
    matrix_slot(layer("text", i, "gate_up"), formats.text, 2 * round_up(t.inter, kUnit), t.dim, false, true);
    matrix_slot(layer("text", i, "down"), formats.text, t.dim, t.inter, false);
  }
  vector_slot("text.norm", t.dim);
  matrix_slot("head", formats.head, t.vocab, t.dim, false);
}

void Weights::matrix_slot(const std::string& name, Format format, int n, int k, bool biased, bool interleaved, bool grouped) {
  slots_[name] = Slot{format, n, k, interleaved, biased, grouped, false, {}};
  if (biased) vector_slot(name + ".bias", n);
}

void Weights::vector_slot(const std::string& name, int size) { vectors_[name] = VectorSlot{size, round_up(size, kUnit), false, {}}; }

void Weights::set_matrix(const std::string& name, const std::vector<Source>& sources, ThreadPool& threads) {
  auto found = slots_.find(name);
  if (found == slots_.end()) refuse(name, "this model has no such part");
  Slot& slot = found->second;
  int rows = 0;
  for (const Source& source : sources) {
    rows += slot.interleaved ? round_up(source.rows, kUnit) : source.rows;
    if (source.columns != slot.k) refuse(name, "a row has " + std::to_string(source.columns) + " values, not " + std::to_string(slot.k));
  }
  if (rows != slot.n || (slot.interleaved && (sources.size() != 2 || sources[0].rows != sources[1].rows)))
    refuse(name, "has " + std::to_string(rows) + " rows, not " + std::to_string(slot.n));
  slot.packed = make_matrix(heap_, slot.format, slot.n, slot.k, slot.grouped);
  std::atomic<bool> finite{true};
  int panels = slot.packed.matrix.padded_n / kPanel;
  threads.parallel_for(panels, 1, [&](int panel, int) {
    if (!fill_panels(slot.packed, sources, slot.interleaved, panel, panel + 1)) finite.store(false, std::memory_order_relaxed);
  });
  if (!finite) refuse(name, "holds values that are not finite");
  slot.set = true;
}

void Weights::attach_matrix(const std::string& name, const uint8_t* data, size_t data_bytes, const uint8_t* scales, size_t scale_bytes) {
  auto found = slots_.find(name);
  if (found == slots_.end()) refuse(name, "this model has no such part");
  Slot& slot = found->second;
  Matrix m;
  m.format = slot.format;
  m.n = slot.n;
  m.padded_n = round_up(slot.n, kUnit);
  m.k = round_up(slot.k, kBlock);
  int panels = m.padded_n / kPanel;
  size_t wanted_scales = m.format == Format::bf16 ? 0 : m.panel_scales() * panels * sizeof(uint16_t);
  if (data_bytes != m.panel_bytes() * panels || scale_bytes != wanted_scales) refuse(name, "has another size than this model's");
  check_place(name, data);
  if (scale_bytes) check_place(name, scales);
  for (size_t i = 0; i < scale_bytes; i += 2) {
    uint16_t scale;
    std::memcpy(&scale, scales + i, 2);
    if ((scale & 0x7c00) == 0x7c00) refuse(name, "holds values that are not finite");
  }
  if (m.format == Format::bf16 && !all_finite_bf16(data, data_bytes)) refuse(name, "holds values that are not finite");
  m.data = data;
  m.scales = scale_bytes ? reinterpret_cast<const uint16_t*>(scales) : nullptr;
  m.group = slot.grouped ? group_in(m) : 1;
  slot.packed = Packed{};
  slot.packed.matrix = m;
  slot.set = true;
}

void Weights::set_vector(const std::string& name, const Source& source) {
  auto found = vectors_.find(name);
  if (found == vectors_.end()) refuse(name, "this model has no such part");
  VectorSlot& slot = found->second;
  int given = source.rows * source.columns;
  if (given != slot.size) refuse(name, "has " + std::to_string(given) + " values, not " + std::to_string(slot.size));
  slot.data = heap_.take<float>(slot.padded);
  if (!read_numbers(source, 0, given, slot.data)) refuse(name, "holds values that are not finite");
  slot.set = true;
}

void Weights::set_embedding(const Source& source, ThreadPool& threads) {
  const TextShape& t = shape_.text;
  if (source.rows != t.vocab || source.columns != t.dim) refuse("embedding", "has another shape than this model's");
  uint16_t* made = heap_.take<uint16_t>(size_t(t.vocab) * t.dim);
  std::atomic<bool> finite{true};
  std::vector<std::vector<float>> rows(threads.size(), std::vector<float>(t.dim));
  threads.parallel_for(t.vocab, 256, [&](int token, int thread) {
    float* row = rows[thread].data();
    if (!read_numbers(source, size_t(token) * t.dim, t.dim, row)) finite.store(false, std::memory_order_relaxed);
    uint16_t* out = made + size_t(token) * t.dim;
    for (int i = 0; i < t.dim; i++) out[i] = float_to_bf16(row[i]);
  });
  if (!finite) refuse("embedding", "holds values that are not finite");
  embedding = made;
}

void Weights::attach_embedding(const uint8_t* data, size_t data_bytes) {
  const TextShape& t = shape_.text;
  if (data_bytes != size_t(t.vocab) * t.dim * sizeof(uint16_t)) refuse("embedding", "has another size than this model's");
  if (reinterpret_cast<uintptr_t>(data) % sizeof(uint16_t)) refuse("embedding", "lies at an odd place");
  if (!all_finite_bf16(data, data_bytes)) refuse("embedding", "holds values that are not finite");
  embedding = reinterpret_cast<const uint16_t*>(data);
}

Weights::Part Weights::embedding_part() const {
  if (!embedding) refuse("embedding", "is missing");
  return {reinterpret_cast<const uint8_t*>(embedding), nullptr, size_t(shape_.text.vocab) * shape_.text.dim * sizeof(uint16_t), 0};
}

Weights::Part Weights::vector_part(const std::string& name) const {
  const float* values = vector(name);
  return {reinterpret_cast<const uint8_t*>(values), nullptr, vectors_.at(name).padded * sizeof(float), 0};
}

Weights::Part Weights::part(const std::string& name) const {
  const Matrix m = matrix(name);
  size_t panels = m.padded_n / kPanel;
  return {m.data, reinterpret_cast<const uint8_t*>(m.scales), m.panel_bytes() * panels,
          m.scales ? m.panel_scales() * panels * sizeof(uint16_t) : 0};
}

std::vector<std::string> Weights::matrices() const {
  std::vector<std::string> names;
  for (const auto& [name, slot] : slots_) names.push_back(name);
  return names;
}

std::vector<std::string> Weights::vectors() const {
  std::vector<std::string> names;
  for (const auto& [name, slot] : vectors_) names.push_back(name);
  return names;
}

int Weights::vector_size(const std::string& name) const {
  auto found = vectors_.find(name);
  if (found == vectors_.end()) refuse(name, "this model has no such part");
  return found->second.size;
}

Matrix Weights::matrix(const std::string& name) const {
  auto found = slots_.find(name);
  if (found == slots_.end() || !found->second.set) refuse(name, "is missing");
  Matrix m = found->second.packed.matrix;
  if (found->second.biased) m.bias = vector(name + ".bias");
  return m;
}

const float* Weights::vector(const std::string& name) const {
  auto found = vectors_.find(name);
  if (found == vectors_.end() || !found->second.set) refuse(name, "is missing");
  return found->second.data;
}

void Weights::finish() {
  if (!embedding) refuse("embedding", "is missing");
  patch = matrix("vision.patch");
  positions = vector("vision.positions");
  vision.clear();
  for (int i = 0; i < shape_.vision.layers; i++) {
    auto v = [&](const char* part) { return vector(layer("vision", i, part)); };
    auto m = [&](const char* part) { return matrix(layer("vision", i, part)); };
    vision.push_back({v("norm1.weight"), v("norm1.bias"), v("norm2.weight"), v("norm2.bias"), m("qkv"), m("out"), m("fc1"), m("fc2")});
  }
  post_weight = vector("vision.post.weight");
  post_bias = vector("vision.post.bias");
  connector = matrix("connector");
  text.clear();
  for (int i = 0; i < shape_.text.layers; i++) {
    auto m = [&](const char* part) { return matrix(layer("text", i, part)); };
    text.push_back({vector(layer("text", i, "norm1")), vector(layer("text", i, "norm2")), m("qkv"), m("out"), m("gate_up"), m("down")});
  }
  norm = vector("text.norm");
  head = matrix("head");
  finished_ = true;
}

}  // namespace smolvlm
