#include "turns.h"

#include <chrono>
#include <new>

namespace smolvlm {

bool Turns::take(const std::function<bool()>& give_up) {
  std::unique_lock lock(mutex_);
  uint64_t mine = newest_++;
  auto served = [&] { return serving_ == mine; };
  while (!moved_.wait_for(lock, std::chrono::milliseconds(100), served)) {
    lock.unlock();
    bool leave = give_up && give_up();
    lock.lock();
    if (!leave) continue;
    if (served()) next();
    else left_.push_back(mine);
    return false;
  }
  taken_ = true;
  return true;
}

void Turns::give() {
  std::lock_guard lock(mutex_);
  taken_ = false;
  next();
}

void Turns::next() {
  serving_++;
  for (auto gone = left_.begin(); gone != left_.end();) {
    if (*gone != serving_) {
      gone++;
      continue;
    }
    left_.erase(gone);
    serving_++;
    gone = left_.begin();
  }
  moved_.notify_all();
}

void Turns::after_fork() {
  // Another thread may have held the mutex: it is made anew where it stands, and what the old one owned is left behind.
  new (&mutex_) std::mutex;
  new (&moved_) std::condition_variable;
  new (&left_) std::vector<uint64_t>;
  newest_ = serving_ = 0;
  taken_ = false;
}

}  // namespace smolvlm
