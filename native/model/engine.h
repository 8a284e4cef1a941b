// One checkpoint that runs: sequences by handle, one call at a time.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "model/text.h"
#include "model/vision.h"

namespace smolvlm {

struct Cancelled {};  // thrown when a call was cancelled; the engine stays usable

class Engine {
 public:
  // Throws std::invalid_argument for an instruction set that cannot run here or a shape that the kernels do not take.
  Engine(const Shape& shape, Formats formats, int threads, const std::string& instructions);

  int threads() { return team_.size(); }
  std::string instructions() { return kernels_.name; }
  const Shape& shape() const { return shape_; }

  // `use(weights, team)`, to fill them; `use(weights)`, to look at them.
  template <class Use>
  auto load(Use use) {
    std::lock_guard lock(mutex_);
    return use(weights_, team_);
  }
  template <class Use>
  auto read(Use use) {
    std::lock_guard lock(mutex_);
    return use(std::as_const(weights_));
  }
  void finish();  // after the last weight

  void encode(const float* pixels, int tiles, float* out);
  int open(int capacity);
  int length(int sequence);
  int capacity(int sequence);
  // Appends `count` ids; `logits` takes the last `keep` positions. Throws std::invalid_argument for ids outside the vocabulary,
  // a count of image rows that disagrees, or too little room.
  void prefill(int sequence, const int* ids, int count, const float* images, int image_rows, int keep, float* logits);
  void decode(const int* sequences, const int* ids, int count, float* logits);
  int fork(int sequence);
  void rewind(int sequence, int length);
  void close(int sequence);

  void cancel() { cancelled_ = true; }  // from any thread: ends the call that runs, at the next layer
  // Asked between layers by the calling thread; true cancels.
  void on_layer(std::function<bool()> asked) { asked_ = std::move(asked); }
  size_t bytes();
  int pages_in_use();

 private:
  Sequence& find(int sequence);
  std::function<bool()> stop_check();

  Shape shape_;
  const Kernels& kernels_;
  Team team_;
  Weights weights_;
  PagePool pool_;
  std::unique_ptr<VisionTower> vision_;
  std::unique_ptr<TextTower> text_;
  std::map<int, Sequence> sequences_;
  int next_ = 1;
  std::mutex mutex_;
  std::atomic<bool> cancelled_{false};
  std::function<bool()> asked_;
};

}  // namespace smolvlm
