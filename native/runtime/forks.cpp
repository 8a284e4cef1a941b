#include "forks.h"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace smolvlm {

struct ForkHooks {
  std::mutex mutex;
  std::vector<ForkHook*> hooks;

  static ForkHooks& all() {  // never destroyed: a process may fork while it ends
    static ForkHooks* kept = [] {
      auto* made = new ForkHooks;
      ::pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); }, [] {
        for (ForkHook* hook : all().hooks) hook->in_child_();
        all().mutex.unlock();
      });
      return made;
    }();
    return *kept;
  }
};

ForkHook::ForkHook(std::function<void()> in_child) : in_child_(std::move(in_child)) {
  std::lock_guard lock(ForkHooks::all().mutex);
  ForkHooks::all().hooks.push_back(this);
}

ForkHook::~ForkHook() {
  std::lock_guard lock(ForkHooks::all().mutex);
  std::erase(ForkHooks::all().hooks, this);
}

}  // namespace smolvlm
