// The Llama decoder (arXiv 2302.13971; grouped-query attention 2305.13245) over a paged KV cache.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "model/weights.h"
#include "model/work.h"
#include "runtime/kv_cache.h"

namespace smolvlm {

// Tokens that one sequence gets in a pass; they follow those that it holds.
struct Segment {
  Sequence* sequence = nullptr;
  const int* ids = nullptr;
  int count = 0;
  const float* images = nullptr;  // rows (text dim) for the image tokens among `ids`, in order
  int kept = 0;                   // of how many last positions the output is wanted
};

enum class Output { logits, hidden };

class TextTower {
 public:
  static constexpr int kRows = 512;     // tokens of a pass
  static constexpr int kSegments = 64;  // sequences of a pass

  TextTower(const Shape& shape, const Weights& weights, const Kernels& kernels, ThreadPool& threads, PagePool& pool);

  // One pass: at most kRows tokens and kSegments segments, whose sequences have been prepared. Appends to the caches, but
  // not to the lengths. out: for each wanted position its logits, or its hidden state after the last norm. False when `stop`
  // said so.
  bool forward(const std::vector<Segment>& segments, Output output, float* out, const std::function<bool()>& stop);
  size_t bytes() const { return arena_.bytes(); }

 private:
  struct Task {  // of attention: a block of positions of one segment, for one key head, over a range of its keys
    int segment, first_row, positions, kv_head, first_key, last_key, partial;  // partial: which of the parts, or -1
  };

  void plan(const std::vector<Segment>& segments);
  void embed(int row);
  void rope_and_append(int layer, int row, int kv_head);
  void attend(int layer, const Task& task, int thread);
  void merge_kv_splits(int row);
  template <class Make>
  void project(const Make& make, const Matrix& w, const Epilogue& to);

  const Shape& shape_;
  const Weights& weights_;
  const Kernels& kernels_;
  ThreadPool& threads_;
  PagePool& pool_;
  int dim_, head_dim_, padded_head_, group_;
  Arena arena_;
  Rows rows_, head_rows_, attended_rows_, inter_rows_;
  std::vector<Rows> own_rows_;  // for each thread, when a pass is so small that sharing costs more
  float *x_, *qkv_, *attended_, *scratch_, *cos_, *sin_, *parts_, *part_max_, *part_sum_;
  uint16_t* query_;  // (kv head, row, group, padded head)
  int max_parts_;

  // of the pass that runs
  const std::vector<Segment>* segments_ = nullptr;
  int count_ = 0, chunk_parts_ = 0;
  std::vector<int> row_segment_, row_position_, row_id_, row_parts_, row_first_part_, wanted_;
  std::vector<const float*> row_image_;
  std::vector<Task> tasks_;
  std::vector<std::vector<KvPage>> read_;  // of each thread, for the task at hand
  std::vector<std::vector<int>> visible_;
};

}  // namespace smolvlm
