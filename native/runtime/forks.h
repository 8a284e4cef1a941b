// What must happen in a child right after fork(): of all threads only the one that forked is there.
#pragma once

#include <functional>

namespace smolvlm {

// `in_child` runs in every child that is forked while this lives, before fork() returns there. `at_end` runs there when the thread
// that forked ends: where that was not Python's main thread, nothing ends the child but the end of its last thread, and no thread of
// ours may be that.
class ForkHook {
 public:
  ForkHook(std::function<void()> in_child, std::function<void()> at_end);
  ~ForkHook();
  ForkHook(const ForkHook&) = delete;
  ForkHook& operator=(const ForkHook&) = delete;

 private:
  friend struct ForkHooks;
  std::function<void()> in_child_, at_end_;
};

}  // namespace smolvlm
