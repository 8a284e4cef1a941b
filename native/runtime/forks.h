// What must happen in a child right after fork(): of all threads only the one that forked is there.
#pragma once

#include <functional>

namespace smolvlm {

// `in_child` runs in every child that is forked while this lives, before fork() returns there.
class ForkHook {
 public:
  explicit ForkHook(std::function<void()> in_child);
  ~ForkHook();
  ForkHook(const ForkHook&) = delete;
  ForkHook& operator=(const ForkHook&) = delete;

 private:
  friend struct ForkHooks;
  std::function<void()> in_child_;
};

}  // namespace smolvlm
