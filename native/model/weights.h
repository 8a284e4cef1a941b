// The weights of one checkpoint, by the names of the engine's own parts ("text.3.qkv"), and what each part must be.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/config.h"
#include "quant/packing.h"
#include "runtime/thread_pool.h"

namespace smolvlm {

struct VisionLayer {
  const float *norm1_weight, *norm1_bias, *norm2_weight, *norm2_bias;
  Matrix qkv, out, fc1, fc2;
};

struct TextLayer {
  const float *norm1, *norm2;
  Matrix qkv, out, gate_up, down;
};

class Weights {
 public:
  Weights(const Shape& shape, Formats formats);

  // Quantizes or rounds the sources, on all threads. Throws std::invalid_argument for an unknown name, a wrong
  // shape, or a value that is not finite.
  void set_matrix(const std::string& name, const std::vector<Source>& sources, ThreadPool& threads);
  // Uses a matrix that was packed before, where it lies; the caller keeps the memory.
  void attach_matrix(const std::string& name, const uint8_t* data, size_t data_bytes, const uint8_t* scales, size_t scale_bytes);
  void set_vector(const std::string& name, const Source& source);  // norms, biases, positions
  void set_embedding(const Source& source, ThreadPool& threads);   // bf16, a row a token
  void attach_embedding(const uint8_t* data, size_t data_bytes);   // bf16 already; the caller keeps the memory

  struct Part {  // of a quantized checkpoint
    const uint8_t *data, *scales;
    size_t data_bytes, scale_bytes;
  };
  Part part(const std::string& name) const;  // a matrix that is set
  Part embedding_part() const;
  Part vector_part(const std::string& name) const;  // its floats, zeros up to a multiple of kUnit
  std::vector<std::string> matrices() const;
  std::vector<std::string> vectors() const;
  int vector_size(const std::string& name) const;

  // Resolves all names. Throws std::invalid_argument naming what is missing.
  void finish();
  bool finished() const { return finished_; }
  const Formats& formats() const { return formats_; }
  size_t bytes() const { return heap_.bytes(); }  // that are not mapped

  Matrix patch, connector, head;
  const float *positions = nullptr, *post_weight = nullptr, *post_bias = nullptr, *norm = nullptr;
  const uint16_t* embedding = nullptr;
  std::vector<VisionLayer> vision;
  std::vector<TextLayer> text;

 private:
  struct Slot {
    Format format;
    int n, k;
    bool interleaved = false;
    bool biased = false;   // its bias is the vector "<name>.bias"
    bool grouped = false;  // wanted so, where its format and depth allow it
    bool set = false;
    Packed packed;
  };
  struct VectorSlot {
    int size, padded;
    bool set = false;
    float* data = nullptr;
  };

  void matrix_slot(const std::string& name, Format format, int n, int k, bool biased, bool interleaved = false, bool grouped = false);
  void vector_slot(const std::string& name, int size);
  Matrix matrix(const std::string& name) const;
  const float* vector(const std::string& name) const;

  Shape shape_;
  Formats formats_;
  std::map<std::string, Slot> slots_;
  std::map<std::string, VectorSlot> vectors_;
  Heap heap_;
  bool finished_ = false;
};

}  // namespace smolvlm
