#include "thread_pool.h"

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

ThreadPool::ThreadPool(int threads) : size_(threads), left_(size_t(threads) * kApart), active_(threads) {}

void ThreadPool::start() {
  while (int(workers_.size()) + 1 < size_) {
    int thread = int(workers_.size()) + 1;
    workers_.emplace_back([this, thread, seen = published_.load()] { serve(thread, seen); });
  }
}

// The threads are not here, but what stands for them is and must not be destroyed: it is left behind, with a mutex and a
// condition that they may have held.
void ThreadPool::after_fork() {
  new (&workers_) std::vector<std::thread>;
  new (&mutex_) std::mutex;
  new (&wake_) std::condition_variable;
  unfinished_ = sleepers_ = 0;
  active_ = size_;
  for (std::atomic<int>& left : left_) left = 0;
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard lock(mutex_);
    leaving_ = true;
    published_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
  leaving_ = false;
}

bool ThreadPool::may_share() {
  int active = active_.load(std::memory_order_relaxed);
  if (active < size_ && Clock::now() >= load_.until) {
    active = std::min(size_, 2 * active);
    active_.store(active, std::memory_order_relaxed);
    sleepers_.store(1);  // those that were woken for nothing count no more: the next job wakes them
    load_.worked = load_.waited = {};
    load_.until = Clock::now() + load_.rest;  // the next ones return later, if these are of use
  }
  return active > 1;
}

void ThreadPool::online_softmax(Clock::duration worked, Clock::duration waited) {
  load_.worked += worked;
  load_.waited += waited;
  if (load_.worked < kWindow) return;
  double waiting = double(load_.waited.count()) / double(load_.worked.count());
  if (waiting > kMostWaiting) {
    active_.store(std::max(1, active_.load(std::memory_order_relaxed) / 2), std::memory_order_relaxed);
    load_.until = Clock::now() + load_.rest;
    load_.rest = std::min<Clock::duration>(2 * load_.rest, kLongestRest);
  } else if (waiting < kLittleWaiting) {
    load_.rest = kShortestRest;
  }
  load_.worked = load_.waited = {};
}

void ThreadPool::run(Job job) {
  Clock::time_point began = Clock::now();
  job_ = job;
  job_.number = published_.load(std::memory_order_relaxed) + 1;
  unfinished_.store(job.chunks, std::memory_order_relaxed);
  for (int thread = 0; thread < size_; thread++) {
    int first = thread ? end_of(thread - 1, job.chunks) : 0;
    left_[thread * kApart].store(end_of(thread, job.chunks) - first, std::memory_order_release);
  }
  published_.fetch_add(1);  // in one order with sleepers_: either a worker sees the new job, or this thread sees the sleeper
  if (sleepers_.load()) {
    {
      std::lock_guard lock(mutex_);
      sleepers_.store(0);
    }
    wake_.notify_all();
  }
  unsigned begun = 0;
  help(0, begun);
  Clock::time_point alone = Clock::now();
  for (int spins = 0; unfinished_.load(std::memory_order_acquire); spins++) {
    if (spins < kSpins) pause_briefly();
    else std::this_thread::yield();
  }
  Clock::time_point ended = Clock::now();
  online_softmax(ended - began, ended - alone);
}

void ThreadPool::serve(int thread, unsigned seen) {
  unsigned begun = 0;
  for (;;) {
    auto called = [&] {
      return published_.load(std::memory_order_acquire) != seen && (thread < active_.load(std::memory_order_relaxed) || leaving_);
    };
    for (int spins = 0; spins < kSpins && !called(); spins++) pause_briefly();  // the next product is seldom far
    if (!called()) {
      std::unique_lock lock(mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, called);
    }
    seen = published_.load(std::memory_order_acquire);
    if (leaving_) return;
    help(thread, begun);
  }
}

void ThreadPool::help(int thread, unsigned& begun) {
  for (int at = claim(thread); at >= 0; at = claim(thread)) {
    bool first_chunk = begun != job_.number;
    begun = job_.number;
    job_.call(job_.body, thread, first_chunk, at * job_.chunk, std::min((at + 1) * job_.chunk, job_.count));
    unfinished_.fetch_sub(1, std::memory_order_release);
  }
}

int ThreadPool::claim(int thread) {
  for (int k = 0; k < size_; k++) {
    int owner = thread + k < size_ ? thread + k : thread + k - size_;
    std::atomic<int>& left = left_[owner * kApart];
    for (int n = left.load(std::memory_order_relaxed); n > 0;)
      if (left.compare_exchange_weak(n, n - 1, std::memory_order_acquire, std::memory_order_relaxed)) return end_of(owner, job_.chunks) - n;
  }
  return -1;
}

}  // namespace smolvlm
