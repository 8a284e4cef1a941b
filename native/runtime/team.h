// Threads that work on one thing together: each runs the same function, shares out loops and meets the others at barriers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace smolvlm {

class Team {
 public:
  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  // Starts the threads that are not there yet: all at first, and those that a fork left behind. Throws std::system_error where
  // the system has no more. By the one who calls `run`, before it.
  void start();
  void stop();        // ends them; no run may be under way
  void after_fork();  // in the child, by its only thread

  // Runs `work(index)` on every thread, the caller being index 0, and returns when all are done. One run at a time: the
  // caller sees to that, and that they were started. `work` must not throw. Workers spin while a run lasts and for a moment after it, then sleep.
  void run(const std::function<void(int)>& work);

  // Inside a run. Everything written before is seen by all after; returns once every thread has come.
  void barrier();

  // Inside a run: `each(i)` for i in [0, count), `chunk` at a time; then a barrier. Each thread has a stretch of its own, so that
  // what lies side by side in memory is read in one go, and helps with the others' when it is done.
  template <class Each>
  void share(int count, int chunk, Each each) {
    int threads = size(), chunks = (count + chunk - 1) / chunk;
    if (threads == 1) {
      for (int i = 0; i < count; i++) each(i);
      return;
    }
    std::atomic<int>* taken = &taken_of(0, round_.load(std::memory_order_relaxed));
    for (int k = 0; k < threads; k++) {
      int owner = index_ + k < threads ? index_ + k : index_ + k - threads;
      int first = int(int64_t(chunks) * owner / threads), end = int(int64_t(chunks) * (owner + 1) / threads);
      std::atomic<int>& count_taken = taken[owner * kApart];
      while (first + count_taken.load(std::memory_order_relaxed) < end) {
        int at = first + count_taken.fetch_add(1, std::memory_order_relaxed);
        if (at >= end) break;
        for (int i = at * chunk; i < (at + 1) * chunk && i < count; i++) each(i);
      }
    }
    barrier();
  }

 private:
  static constexpr int kApart = 32;  // counters to a stretch's counter: 128 bytes

  void serve(int index, unsigned seen);
  // How many chunks of a thread's stretch are taken. Rounds use two sets by turns: nobody looks at the next round's, which its
  // thread sets to zero as it arrives at the barrier.
  std::atomic<int>& taken_of(int index, unsigned round) { return taken_[((round & 1) * size_t(size()) + index) * kApart]; }

  static thread_local int index_;
  const int size_;
  std::vector<std::atomic<int>> taken_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* work_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  alignas(128) std::atomic<unsigned> run_{0};  // counts runs, so that a worker knows a new one; changed under mutex_
  bool leaving_ = false;                       // set before run_ changes for the last time
  alignas(128) std::atomic<unsigned> round_{0};
  alignas(128) std::atomic<int> arrived_{0};
};

}  // namespace smolvlm
