#include "engine.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <set>
#include <stdexcept>

#include "model/check.h"
#include "runtime/machine.h"

namespace smolvlm {
namespace {

constexpr int kMostThreads = 1024;

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

const Shape& checked(const Shape& shape) {
  shape.check();
  return shape;
}

int checked(int threads) {
  if (threads < 0 || threads > kMostThreads) refuse("threads is " + std::to_string(threads) + ", not between 1 and 1024 or 0 for all");
  return threads ? threads : usable_threads();
}

void need_room(const Sequence& sequence, int tokens) {
  int held = sequence.length(), capacity = sequence.capacity();
  if (tokens > capacity - held)
    refuse("the sequence has room for " + std::to_string(capacity) + " tokens, holds " + std::to_string(held) + " and was given " +
           std::to_string(tokens) + " more; open it with a larger max_tokens");
}

// Puts back what a call began, unless it ends well.
template <class Back>
class Undo {
 public:
  explicit Undo(Back back) : back_(std::move(back)) {}
  ~Undo() {
    if (!done) back_();
  }
  bool done = false;

 private:
  Back back_;
};

}  // namespace

Engine::Engine(const Shape& shape, Formats formats, int threads, const std::string& instructions)
    : shape_(checked(shape)),
      kernels_(trusted_kernels(instructions)),
      threads_(checked(threads)),
      weights_(shape_, formats),
      pool_({shape.text.layers, shape.text.kv_heads, round_up(shape.text.head_dim, kPanel), formats.cache}),
      hook_([this] { after_fork(); }, [this] { thread_ends(); }) {
  if (formats.cache == Format::q4) refuse("the KV cache is kept as bf16 or q8, not as q4");
}

Engine::Turn::Turn(Engine& engine, bool closing) : engine_(engine) {
  if (!engine.turns_.take(engine.asked_)) throw Cancelled{};
  engine.cancelled_ = false;
  if (!engine.interrupted_fork_ || closing) return;
  engine.turns_.give();
  engine.stopped();
}

void Engine::after_fork() {
  interrupted_fork_ = interrupted_fork_ || turns_.taken();
  turns_.after_fork();
  threads_.after_fork();
}

void Engine::thread_ends() {
  if (!turns_.take(nullptr)) return;
  threads_.stop();
  turns_.give();
}

void Engine::stopped() {
  if (!interrupted_fork_) throw Cancelled{};
  throw std::runtime_error(
      "this process was forked while another thread was in a call of the engine, which cannot go on here: "
      "load the model again in the child, or fork before the threads start");
}

void Engine::need_loaded(bool wanted) const {
  if ((text_ != nullptr) == wanted) return;
  refuse(wanted ? "the engine has no weights yet: finish() comes first" : "the engine: its weights are final");
}

void Engine::finish() {
  Turn turn(*this);
  need_loaded(false);
  weights_.finish();
  auto vision = std::make_unique<VisionTower>(shape_, weights_, kernels_, threads_);
  text_ = std::make_unique<TextTower>(shape_, weights_, kernels_, threads_, pool_);
  vision_ = std::move(vision);
}

// Whether to stop, for the layers of one call to ask.
std::function<bool()> Engine::stop_check() {
  threads_.start();
  auto last = std::chrono::steady_clock::now();
  return [this, last]() mutable {
    if (cancelled_ || interrupted_fork_) return true;
    auto now = std::chrono::steady_clock::now();
    if (!asked_ || now - last < std::chrono::milliseconds(100)) return false;
    last = now;
    return asked_() || interrupted_fork_;  // a signal's handler may fork
  };
}

void Engine::encode(const float* pixels, int tiles, float* out) {
  Turn turn(*this);
  need_loaded(true);
  auto stop = stop_check();
  size_t tile = size_t(3) * shape_.vision.image * shape_.vision.image, row = size_t(shape_.image_tokens()) * shape_.text.dim;
  for (int i = 0; i < tiles; i++)
    if (!vision_->encode(pixels + i * tile, out + i * row, stop)) stopped();
}

int Engine::open(int capacity) {
  Turn turn(*this);
  need_loaded(true);
  if (capacity < 1 || capacity > shape_.text.positions)
    refuse("a sequence has room for 1 to " + std::to_string(shape_.text.positions) + " tokens, not for " + std::to_string(capacity));
  return add(Sequence(pool_, capacity));
}

int Engine::add(Sequence&& sequence) {
  do newest_ = newest_ == INT_MAX ? 1 : newest_ + 1;
  while (sequences_.count(newest_));
  sequences_.try_emplace(newest_, std::move(sequence));
  return newest_;
}

Sequence& Engine::find(int sequence) {
  auto found = sequences_.find(sequence);
  if (found == sequences_.end()) refuse("sequence " + std::to_string(sequence) + " is not open.");
  return found->second;
}

int Engine::length(int sequence) {
  Turn turn(*this);
  return find(sequence).length();
}

int Engine::capacity(int sequence) {
  Turn turn(*this);
  return find(sequence).capacity();
}

void Engine::check(const Prompt& prompt) {
  if (prompt.count < 1 || prompt.kept < 0 || prompt.kept > prompt.count)
    refuse("a prefill takes at least one token, and gives rows for no more than it takes");
  need_room(find(prompt.sequence), prompt.count);
  int wanted = 0;
  for (int i = 0; i < prompt.count; i++) {
    if (prompt.ids[i] < 0 || prompt.ids[i] >= shape_.text.vocab) refuse("a token id is outside the vocabulary");
    wanted += prompt.ids[i] == shape_.image_token;
  }
  if (wanted != prompt.image_rows) refuse("image tokens and rows of image embeddings disagree");
}

void Engine::prefill(const std::vector<Prompt>& prompts, Output output) {
  Turn turn(*this);
  need_loaded(true);
  struct Task {
    Prompt left;
    Sequence* sequence;
    int before, some = 0, kept = 0;
  };
  std::vector<Task> tasks;
  std::set<int> distinct;
  for (const Prompt& prompt : prompts) {
    if (!distinct.insert(prompt.sequence).second) refuse("a prefill takes the tokens of distinct sequences");
    check(prompt);
    Sequence& sequence = find(prompt.sequence);
    tasks.push_back({prompt, &sequence, sequence.length()});
    if (!prompt.image_rows) tasks.back().left.images = nullptr;
  }
  auto stop = stop_check();
  Undo undo([&] {
    for (Task& task : tasks) task.sequence->rewind(task.before);
  });
  size_t width = output == Output::logits ? shape_.text.vocab : shape_.text.dim;
  std::vector<float> rows;  // of a pass with several sequences
  for (;;) {
    std::vector<Segment> pass;
    std::vector<Task*> members;
    int room = TextTower::kRows, kept = 0;
    for (Task& task : tasks) {
      Prompt& left = task.left;
      if (!left.count) continue;
      if (!room || pass.size() == size_t(TextTower::kSegments)) break;
      task.some = std::min(room, left.count);
      task.kept = std::clamp(left.kept - (left.count - task.some), 0, task.some);
      room -= task.some;
      kept += task.kept;
      task.sequence->prepare(task.some);
      pass.push_back({task.sequence, left.ids, task.some, left.images, task.kept});
      members.push_back(&task);
    }
    if (pass.empty()) break;
    bool direct = pass.size() == 1;
    if (!direct) rows.resize(std::max(rows.size(), kept * width));
    if (!text_->forward(pass, output, direct ? members[0]->left.out : rows.data(), stop)) stopped();
    const float* from = rows.data();
    for (Task* task : members) {
      Prompt& left = task->left;
      size_t size = size_t(task->kept) * width;
      if (!direct) std::copy(from, from + size, left.out);
      from += size;
      left.out += size;
      task->sequence->advance(task->some);
      for (int i = 0; i < task->some && left.images; i++)
        if (left.ids[i] == shape_.image_token) left.images += shape_.text.dim;
      left.ids += task->some;
      left.count -= task->some;
      left.kept -= task->kept;
    }
  }
  undo.done = true;
}

void Engine::decode(const int* handles, const int* ids, int count, float* logits) {
  Turn turn(*this);
  need_loaded(true);
  std::set<int> distinct(handles, handles + std::max(count, 0));
  if (count < 1 || distinct.size() != size_t(count)) refuse("a decode takes one token for each of at least one distinct sequence");
  std::vector<Segment> all;
  for (int i = 0; i < count; i++) {
    Sequence& sequence = find(handles[i]);
    need_room(sequence, 1);
    if (ids[i] < 0 || ids[i] >= shape_.text.vocab) refuse("a token id is outside the vocabulary");
    all.push_back({&sequence, ids + i, 1, nullptr, 1});
  }
  auto stop = stop_check();
  int done = 0;
  Undo undo([&] {
    for (int i = 0; i < count; i++) all[i].sequence->rewind(all[i].sequence->length() - (i < done));
  });
  while (done < count) {
    int some = std::min(TextTower::kSegments, count - done);
    std::vector<Segment> pass(all.begin() + done, all.begin() + done + some);
    for (Segment& segment : pass) segment.sequence->prepare(1);
    if (!text_->forward(pass, Output::logits, logits + size_t(done) * shape_.text.vocab, stop)) stopped();
    for (Segment& segment : pass) segment.sequence->advance(1);
    done += some;
  }
  undo.done = true;
}

int Engine::fork(int handle) {
  Turn turn(*this);
  return add(Sequence(find(handle)));
}

void Engine::rewind(int handle, int length) {
  Turn turn(*this);
  Sequence& sequence = find(handle);
  if (length < 0 || length > sequence.length())
    refuse("cannot rewind to " + std::to_string(length) + " tokens; the sequence holds " + std::to_string(sequence.length()));
  sequence.rewind(length);
}

void Engine::close(int handle) {
  Turn turn(*this, true);
  if (!interrupted_fork_) sequences_.erase(handle);
}

size_t Engine::bytes() {
  Turn turn(*this);
  return weights_.bytes() + pool_.bytes() + (text_ ? vision_->bytes() + text_->bytes() : 0);
}

int Engine::pages_in_use() {
  Turn turn(*this);
  return pool_.in_use();
}

}  // namespace smolvlm
