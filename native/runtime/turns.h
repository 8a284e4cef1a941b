// One at a time, in the order in which they came: a mutex alone lets a thread that returns at once pass those that wait.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace smolvlm {

class Turns {
 public:
  // Waits until it is the caller's turn. False, and no turn, once `give_up` says so; it is asked every tenth of a second.
  bool take(const std::function<bool()>& give_up);
  void give();

  bool taken() const { return taken_; }
  void after_fork();  // in the child: nobody has the turn, nobody waits

 private:
  void next();

  std::mutex mutex_;
  std::condition_variable moved_;
  uint64_t newest_ = 0, serving_ = 0;  // tickets; a free turn serves the ticket that comes next
  std::vector<uint64_t> left_;         // tickets whose holders gave up
  std::atomic<bool> taken_{false};
};

}  // namespace smolvlm
