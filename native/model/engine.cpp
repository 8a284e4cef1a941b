#include "engine.h"

#include "model/check.h"
#include "runtime/machine.h"

namespace smolvlm {
namespace {

const Shape& checked(const Shape& shape) {
  shape.check();
  return shape;
}

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

}  // namespace

Engine::Engine(const Shape& shape, Formats formats, int threads, const std::string& instructions)
    : shape_(checked(shape)),
      kernels_(trusted_kernels(instructions)),
      team_(threads > 0 ? threads : usable_threads()),
      weights_(shape_, formats),
      pool_({shape.text.layers, shape.text.kv_heads, round_up(shape.text.head_dim, kPanel), formats.cache}) {}

void Engine::finish() {
  std::lock_guard lock(mutex_);
  weights_.finish();
  vision_ = std::make_unique<VisionTower>(shape_, weights_, kernels_, team_);
  text_ = std::make_unique<TextTower>(shape_, weights_, kernels_, team_, pool_);
}

std::function<bool()> Engine::stop_check() {
  cancelled_ = false;
  return [this] { return cancelled_.load() || (asked_ && asked_()); };
}

void Engine::encode(const float* pixels, int tiles, float* out) {
  std::lock_guard lock(mutex_);
  auto stop = stop_check();
  size_t tile = size_t(3) * shape_.vision.image * shape_.vision.image, row = size_t(shape_.image_tokens()) * shape_.text.dim;
  for (int i = 0; i < tiles; i++)
    if (!vision_->encode(pixels + i * tile, out + i * row, stop)) throw Cancelled{};
}

int Engine::open(int capacity) {
  std::lock_guard lock(mutex_);
  sequences_.try_emplace(next_, pool_, capacity);
  return next_++;
}

Sequence& Engine::find(int sequence) {
  auto found = sequences_.find(sequence);
  if (found == sequences_.end()) refuse("sequence " + std::to_string(sequence) + " is not open.");
  return found->second;
}

int Engine::length(int sequence) {
  std::lock_guard lock(mutex_);
  return find(sequence).length();
}

int Engine::capacity(int sequence) {
  std::lock_guard lock(mutex_);
  return find(sequence).capacity();
}

void Engine::prefill(int handle, const int* ids, int count, const float* images, int image_rows, int keep, float* logits) {
  std::lock_guard lock(mutex_);
  Sequence& sequence = find(handle);
  int before = sequence.length();
  if (before + count > sequence.capacity()) refuse("the sequence has no room for " + std::to_string(count) + " tokens more");
  int wanted = 0;
  for (int i = 0; i < count; i++) {
    if (ids[i] < 0 || ids[i] >= shape_.text.vocab) refuse("a token id is outside the vocabulary");
    wanted += images && ids[i] == shape_.image_token;
  }
  if (wanted != image_rows) refuse("image tokens and rows of image embeddings disagree");
  auto stop = stop_check();
  std::vector<Segment> pass(1);
  for (int done = 0; done < count;) {
    int some = std::min(TextTower::kRows, count - done), left = count - done - some;
    int kept = std::clamp(keep - left, 0, some);
    sequence.prepare(some);
    pass[0] = {&sequence, ids + done, some, images, kept};
    if (!text_->forward(pass, logits, stop)) {
      sequence.rewind(before);
      throw Cancelled{};
    }
    sequence.advance(some);
    for (int i = done; i < done + some && images; i++)
      if (ids[i] == shape_.image_token) images += shape_.text.dim;
    logits += size_t(kept) * shape_.text.vocab;
    done += some;
  }
}

void Engine::decode(const int* handles, const int* ids, int count, float* logits) {
  std::lock_guard lock(mutex_);
  std::vector<Segment> all;
  for (int i = 0; i < count; i++) {
    Sequence& sequence = find(handles[i]);
    if (sequence.length() + 1 > sequence.capacity()) refuse("a sequence has no room for one token more");
    if (ids[i] < 0 || ids[i] >= shape_.text.vocab) refuse("a token id is outside the vocabulary");
    all.push_back({&sequence, ids + i, 1, nullptr, 1});
  }
  auto stop = stop_check();
  for (int done = 0; done < count; done += TextTower::kSegments) {
    int some = std::min(TextTower::kSegments, count - done);
    std::vector<Segment> pass(all.begin() + done, all.begin() + done + some);
    for (Segment& segment : pass) segment.sequence->prepare(1);
    if (!text_->forward(pass, logits + size_t(done) * shape_.text.vocab, stop)) {
      for (int i = 0; i < done; i++) all[i].sequence->rewind(all[i].sequence->length() - 1);
      throw Cancelled{};
    }
    for (Segment& segment : pass) segment.sequence->advance(1);
  }
}

int Engine::fork(int handle) {
  std::lock_guard lock(mutex_);
  sequences_.try_emplace(next_, find(handle));
  return next_++;
}

void Engine::rewind(int handle, int length) {
  std::lock_guard lock(mutex_);
  find(handle).rewind(length);
}

void Engine::close(int handle) {
  std::lock_guard lock(mutex_);
  sequences_.erase(handle);
}

size_t Engine::bytes() {
  std::lock_guard lock(mutex_);
  return weights_.bytes() + pool_.bytes() + (vision_ ? vision_->bytes() + text_->bytes() : 0);
}

int Engine::pages_in_use() {
  std::lock_guard lock(mutex_);
  return pool_.in_use();
}

}  // namespace smolvlm
