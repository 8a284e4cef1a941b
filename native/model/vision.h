// The SigLIP encoder (arXiv 2303.15343), pixel shuffle and projection: pixels of one tile -> its image tokens.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "model/weights.h"
#include "model/work.h"

namespace smolvlm {

class VisionTower {
 public:
  VisionTower(const Shape& shape, const Weights& weights, const Kernels& kernels, ThreadPool& threads);

  // pixels (3, image, image), normalized -> out (image_tokens, text dim). `stop` is asked between layers, on one thread; true
  // ends the work, and false is returned.
  bool encode(const float* pixels, float* out, const std::function<bool()>& stop);
  size_t bytes() const { return arena_.bytes(); }

 private:
  void embed(const float* pixels);
  void attention(const VisionLayer& layer);
  Head head_at(int head) const;
  void fold(int token, float* row) const;

  const Shape& shape_;
  const Weights& weights_;
  const Kernels& kernels_;
  ThreadPool& threads_;
  int patches_, dim_, head_dim_, padded_head_, page_, pages_;
  Arena arena_;
  Rows patch_rows_, rows_, inter_rows_, folded_rows_;
  float *x_, *attended_, *scratch_, *folded_;  // scratch: a row for each thread
  bool integers_;                              // attention in 8 bits
  uint16_t* qkv_;
  uint8_t *query_, *keys_, *values_;
  float *query_scales_, *key_scales_, *value_scales_;
  int32_t* query_negsums_;
  std::vector<int> positions_, visible_;
  std::vector<KvPage> kv_pages_;
};

// Which learned position each patch takes, as the reference finds it: float32 fractions against float32 boundaries, which at
// 27 patches a side sends some to a neighbour's place (transformers, SmolVLMVisionEmbeddings).
std::vector<int> position_ids(int side);

}  // namespace smolvlm
