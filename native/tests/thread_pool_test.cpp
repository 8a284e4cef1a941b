// The thread pool by itself: every index once at any number of threads, and what a worker that stalls costs.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "runtime/thread_pool.h"

using namespace smolvlm;
using Clock = std::chrono::steady_clock;

namespace {

void check(bool right, const char* what) {
  if (right) return;
  std::printf("%s\n", what);
  std::exit(1);
}

// Many more threads than cores: some are always off.
void every_index_once(int threads, std::mt19937& random) {
  ThreadPool pool(threads);
  pool.start();
  for (int job = 0; job < 400; job++) {
    int count = int(random() % 700), chunk = 1 + int(random() % 40);
    std::vector<int> times(count), begun(threads);
    std::vector<long> sums(threads);
    pool.parallel_for(
        count, chunk,
        [&](int i, int thread) {
          check(begun[thread] == 1, "a thread worked that had not begun, or began twice");
          times[i]++;
          sums[thread] += i;
        },
        [&](int thread) { begun[thread]++; });
    long sum = 0;
    for (long part : sums) sum += part;
    check(sum == long(count) * (count - 1) / 2, "an index was left out");
    for (int each : times) check(each == 1, "an index came twice");
  }
}

// Every chunk that a worker takes costs 20 ms. A pool that went on sharing would do some 50 jobs in the second.
void a_stalled_worker() {
  ThreadPool pool(2);
  pool.start();
  std::atomic<int> stalled{0};
  int jobs = 0;
  for (Clock::time_point end = Clock::now() + std::chrono::seconds(1); Clock::now() < end; jobs++)
    pool.parallel_for(16, 1, [&](int, int thread) {
      if (thread == 0) return std::this_thread::sleep_for(std::chrono::microseconds(20));
      stalled++;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    });
  std::printf("%d jobs, %d of them beside a stalled worker\n", jobs, stalled.load());
  check(stalled <= 16, "a worker that stalls goes on getting work");
  bool helped = false;
  for (Clock::time_point end = Clock::now() + std::chrono::seconds(20); !helped && Clock::now() < end;)
    pool.parallel_for(16, 1, [&](int, int thread) {
      if (thread) helped = true;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    });
  check(helped, "a worker that no longer stalls gets no work");
}

}  // namespace

int main() {
  std::mt19937 random(7);
  for (int threads : {1, 2, 3, 4, 8, 16, 64}) every_index_once(threads, random);
  a_stalled_worker();
  std::puts("the thread pool holds");
}
