// One checkpoint that runs: sequences by handle, one call at a time.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/text.h"
#include "model/vision.h"
#include "runtime/forks.h"
#include "runtime/turns.h"

namespace smolvlm {

// Tokens to append to one sequence. The last `kept` positions give rows of output, which go to `out`.
struct Prompt {
  int sequence = 0;
  const int* ids = nullptr;
  int count = 0;
  const float* images = nullptr;  // rows (text dim) for the image tokens among `ids`, in order
  int image_rows = 0;
  int kept = 0;
  float* out = nullptr;
};

struct Cancelled {};  // thrown when a call was cancelled; the engine stays usable

// Any thread may call it: calls take turns, first come, first served. A call that fails or is cancelled changes no sequence.
// EpilogueOp fork() it goes on working in the child, with threads of its own, unless a call ran in that moment: then every call but
// `close` throws std::runtime_error there.
class Engine {
 public:
  // Throws std::invalid_argument for an instruction set that cannot run here or a shape that the kernels do not take.
  Engine(const Shape& shape, Formats formats, int threads, const std::string& instructions);

  const Shape& shape() const { return shape_; }
  std::string instructions() const { return kernels_.name; }
  int threads() const { return threads_.size(); }

  // `use(weights, threads)` fills the weights; `use(weights)` looks at them. Throws std::invalid_argument once they are final.
  template <class Use>
  auto load(Use use) {
    Turn turn(*this);
    need_loaded(false);
    threads_.start();
    return use(weights_, threads_);
  }
  template <class Use>
  auto read(Use use) {
    Turn turn(*this);
    return use(std::as_const(weights_));
  }
  void finish();  // after the last weight; before it nothing but `load` and `read` can be called

  void encode(const float* pixels, int tiles, float* out);
  int open(int capacity);
  int length(int sequence);
  int capacity(int sequence);
  // Appends the prompts, several in one pass. Throws std::invalid_argument for a sequence named twice, ids outside the
  // vocabulary, a count of image rows that disagrees, or too little room.
  void prefill(const std::vector<Prompt>& prompts, Output output);
  void decode(const int* sequences, const int* ids, int count, float* logits);
  int fork(int sequence);
  void rewind(int sequence, int length);
  void close(int sequence);

  void cancel() { cancelled_ = true; }  // ends the call that runs, at the next layer, and no other
  // Asked about ten times a second by each thread that waits or computes; true cancels its call.
  void on_wait(std::function<bool()> asked) { asked_ = std::move(asked); }
  size_t bytes();
  int pages_in_use();

 private:
  class Turn {  // the engine to itself, for as long as this lives
   public:
    explicit Turn(Engine& engine, bool closing = false);
    ~Turn() { engine_.turns_.give(); }
    Turn(const Turn&) = delete;

   private:
    Engine& engine_;
  };

  void need_loaded(bool wanted) const;
  Sequence& find(int sequence);
  void check(const Prompt& prompt);
  int add(Sequence&& sequence);
  std::function<bool()> stop_check();
  [[noreturn]] void stopped();
  void after_fork();
  void thread_ends();

  Shape shape_;
  const Kernels& kernels_;
  ThreadPool threads_;
  Weights weights_;
  PagePool pool_;
  std::unique_ptr<VisionTower> vision_;
  std::unique_ptr<TextTower> text_;
  std::map<int, Sequence> sequences_;
  int newest_ = 0;
  Turns turns_;
  std::atomic<bool> cancelled_{false};
  bool interrupted_fork_ = false;  // this process was forked while a call ran
  std::function<bool()> asked_;
  ForkHook hook_;  // last: it must go first
};

}  // namespace smolvlm
