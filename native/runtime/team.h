// Threads that work on one thing together: each runs the same function, shares out loops and meets the others at barriers.
#pragma once

#include <atomic>
#include <condition_variable>
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

  int size() const { return int(threads_.size()) + 1; }

  // Runs `work(index)` on every thread, the caller being index 0, and returns when all are done. One run at a time: the
  // caller sees to that. `work` must not throw. Workers spin while a run lasts and for a moment after it, then sleep.
  void run(const std::function<void(int)>& work);

  // Inside a run. Everything written before is seen by all after; returns once every thread has come.
  void barrier();

  // Inside a run: `each(i)` for i in [0, count) on whichever thread is free, `chunk` at a time; then a barrier.
  template <class Each>
  void share(int count, int chunk, Each each) {
    if (size() == 1) {
      for (int i = 0; i < count; i++) each(i);
      return;
    }
    for (;;) {
      int first = next_.fetch_add(chunk, std::memory_order_relaxed);
      if (first >= count) break;
      for (int i = first; i < first + chunk && i < count; i++) each(i);
    }
    barrier();
  }

 private:
  void serve(int index);

  std::vector<std::thread> threads_;
  const std::function<void(int)>* work_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  alignas(128) std::atomic<unsigned> run_{0};  // counts runs, so that a worker knows a new one; changed under mutex_
  bool leaving_ = false;                       // set before run_ changes for the last time
  alignas(128) std::atomic<unsigned> round_{0};
  alignas(128) std::atomic<int> arrived_{0};
  alignas(128) std::atomic<int> next_{0};
};

}  // namespace smolvlm
