#include "forks.h"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace smolvlm {

struct ForkHooks {
  struct End {
    bool armed = false;
    ~End() {
      if (!armed) return;
      std::lock_guard lock(all().mutex);
      for (ForkHook* hook : all().hooks) hook->at_end_();
    }
  };

  std::mutex mutex;
  std::vector<ForkHook*> hooks;

  static ForkHooks& all() {  // never destroyed: a process may fork while it ends
    static ForkHooks* kept = [] {
      auto* made = new ForkHooks;
      ::pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); },
                       [] {
                         for (ForkHook* hook : all().hooks) hook->in_child_();
                         all().mutex.unlock();
                         thread_local End end;
                         end.armed = true;
                       });
      return made;
    }();
    return *kept;
  }
};

ForkHook::ForkHook(std::function<void()> in_child, std::function<void()> at_end)
    : in_child_(std::move(in_child)), at_end_(std::move(at_end)) {
  std::lock_guard lock(ForkHooks::all().mutex);
  ForkHooks::all().hooks.push_back(this);
}

ForkHook::~ForkHook() {
  std::lock_guard lock(ForkHooks::all().mutex);
  std::erase(ForkHooks::all().hooks, this);
}

}  // namespace smolvlm
