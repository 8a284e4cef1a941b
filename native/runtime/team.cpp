#include "team.h"

#include <algorithm>
#include <new>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace smolvlm {
namespace {

constexpr int kSpins = 20'000;  // about a tenth of a millisecond; then somebody else has the processor, so offer ours

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

thread_local int Team::index_ = 0;

Team::Team(int threads) : size_(threads), taken_(size_t(2) * threads * kApart) {}

void Team::start() {
  while (int(threads_.size()) + 1 < size_) {
    int index = int(threads_.size()) + 1;
    threads_.emplace_back([this, index, seen = run_.load()] { serve(index, seen); });
  }
}

// The threads are not here, but what stands for them is and must not be destroyed: it is left behind, with a mutex and a
// condition that they may have held.
void Team::after_fork() {
  new (&threads_) std::vector<std::thread>;
  new (&mutex_) std::mutex;
  new (&wake_) std::condition_variable;
  run_ = round_ = 0;
  arrived_ = 0;
  for (std::atomic<int>& taken : taken_) taken = 0;
}

Team::~Team() { stop(); }

void Team::stop() {
  {
    std::lock_guard lock(mutex_);
    leaving_ = true;
    run_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  leaving_ = false;
}

void Team::run(const std::function<void(int)>& work) {
  if (threads_.empty()) return work(0);
  {
    std::lock_guard lock(mutex_);
    work_ = &work;
    run_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  work(0);
  barrier();  // nobody is inside `work` any more
}

void Team::serve(int index, unsigned seen) {
  index_ = index;
  for (;;) {
    auto called = [&] { return run_.load(std::memory_order_acquire) != seen; };
    for (int spins = 0; spins < kSpins && !called(); spins++) pause_briefly();  // the next token is seldom far
    if (!called()) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, called);
    }
    seen++;  // no run is missed: each waits for everybody
    if (leaving_) return;
    (*work_)(index);
    barrier();
  }
}

void Team::barrier() {
  if (threads_.empty()) return;
  unsigned round = round_.load(std::memory_order_relaxed);
  taken_of(index_, round + 1).store(0, std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == int(threads_.size())) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++) {
    if (spins < kSpins) pause_briefly();
    else std::this_thread::yield();
  }
}

}  // namespace smolvlm
