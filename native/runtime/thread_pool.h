// parallel_for over the threads of one engine. The calling thread drives: it takes chunks itself, and waits only for chunks that
// another thread has begun. A worker that the system has taken off its core holds up one chunk at most, and none if it has none.
// Where that happens so often that fewer threads are faster, fewer work for a while.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace smolvlm {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // the caller of parallel_for is one of them
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Starts the workers that are not there yet: all at first, and those that a fork left behind. Throws std::system_error where
  // the system has no more. Called before parallel_for, by the same thread.
  void start();
  void stop();        // ends them; no parallel_for may be under way
  void after_fork();  // in the child, by its only thread

  // `each(i, thread)` for i in [0, count), `chunk` at a time, thread in [0, size()); returns when all are done, and everything
  // that they wrote can be read. A thread calls `begin(thread)` before its first chunk: work that costs less than sharing it.
  // One call at a time, and none inside another; `begin` and `each` must not throw.
  // Each thread has a stretch of its own, so that what lies side by side in memory is read in one go, and helps with the others'
  // when it is done.
  template <class Each, class Begin>
  void parallel_for(int count, int chunk, const Each& each, const Begin& begin) {
    int chunks = (count + chunk - 1) / chunk;
    if (chunks <= 1 || workers_.empty() || !may_share()) {
      if (count > 0) begin(0);
      for (int i = 0; i < count; i++) each(i, 0);
      return;
    }
    struct Body {
      const Each* each;
      const Begin* begin;
    } body{&each, &begin};
    run({[](const void* pointer, int thread, bool first_chunk, int first, int last) {
           const Body& work = *static_cast<const Body*>(pointer);
           if (first_chunk) (*work.begin)(thread);
           for (int i = first; i < last; i++) (*work.each)(i, thread);
         },
         &body, count, chunk, chunks, 0});
  }

  template <class Each>
  void parallel_for(int count, int chunk, const Each& each) {
    parallel_for(count, chunk, each, [](int) {});
  }

 private:
  static constexpr int kApart = 32;  // from one stretch's counter to the next: 128 bytes, so that no two share a cache line

  struct Job {
    void (*call)(const void* body, int thread, bool first_chunk, int first, int last);
    const void* body;
    int count, chunk, chunks;
    unsigned number;
  };

  using Clock = std::chrono::steady_clock;

  // What the last calls cost: decides how many threads the next ones use. Of the calling thread alone.
  struct Load {
    Clock::duration worked{}, waited{};  // since the last verdict: of whole calls, and of these waiting for chunks of others
    Clock::duration rest{kShortestRest};
    Clock::time_point until{};  // how long fewer threads work
  };

  static constexpr std::chrono::milliseconds kWindow{10}, kShortestRest{10}, kLongestRest{160};
  // Half the threads would be as fast as all of them if they waited half of the time. Short of that: to switch costs something.
  static constexpr double kMostWaiting = 0.45, kLittleWaiting = 0.2;

  // Whether more than the calling thread works now; lets threads return whose rest is over.
  bool may_share();
  void online_softmax(Clock::duration worked, Clock::duration waited);
  void run(Job job);
  void serve(int thread, unsigned seen);
  // Takes chunks and does them until none is left. `begun` is the number of the job that this thread called `begin` for.
  void help(int thread, unsigned& begun);
  // The next chunk of the job at hand, -1 when there is none.
  int claim(int thread);
  // Where the stretch of a thread ends, in chunks.
  int end_of(int thread, int chunks) const { return int(int64_t(chunks) * (thread + 1) / size_); }

  const int size_;
  // How many chunks of each stretch are not taken. Whoever takes one by a compare-exchange knows that the job at hand is the one
  // it belongs to: `job_` changes only when every chunk that was taken is done. So a late worker needs no invitation.
  std::vector<std::atomic<int>> left_;
  std::vector<std::thread> workers_;
  Load load_;
  std::atomic<int> active_;  // threads that take chunks now, the caller among them
  Job job_{};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> leaving_{false};                 // set before published_ changes for the last time
  alignas(128) std::atomic<unsigned> published_{0};  // counts jobs: what idle workers watch
  alignas(128) std::atomic<int> unfinished_{0};      // chunks of the job at hand that are not done
  alignas(128) std::atomic<int> sleepers_{0};        // workers that wait for wake_
};

}  // namespace smolvlm
