#include "machine.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace smolvlm {
namespace {

#if defined(__linux__)
int affinity() {
  for (int processors = 1024; processors <= 1 << 20; processors *= 4) {  // a mask too small for this kernel is refused
    cpu_set_t* set = CPU_ALLOC(processors);
    size_t bytes = CPU_ALLOC_SIZE(processors);
    int found = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (found > 0) return found;
  }
  return 0;
}

std::string first_line(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "r");
  if (!file) return "";
  char line[4096] = "";
  bool read = std::fgets(line, sizeof line, file) != nullptr;
  std::fclose(file);
  return read ? line : "";
}

// The smallest quota from the process's own group (cgroup v2) up to the root, in whole processors; 0: none.
int quota() {
  std::string own = first_line("/proc/self/cgroup"), path;
  if (own.rfind("0::", 0) == 0) path = own.substr(3, own.find_last_not_of("\n") - 2);
  int smallest = 0;
  auto consider = [&](long long limit, long long period) {
    if (limit <= 0 || period <= 0) return;
    int processors = int(std::max(1LL, (limit + period - 1) / period));
    smallest = smallest ? std::min(smallest, processors) : processors;
  };
  for (;;) {
    long long limit = 0, period = 0;
    if (std::sscanf(first_line("/sys/fs/cgroup" + path + "/cpu.max").c_str(), "%lld %lld", &limit, &period) == 2) consider(limit, period);
    if (path.empty()) break;
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
  long long limit = 0, period = 0;  // cgroup v1
  std::sscanf(first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").c_str(), "%lld", &limit);
  std::sscanf(first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us").c_str(), "%lld", &period);
  consider(limit, period);
  return smallest;
}
#else
int affinity() { return 0; }
int quota() { return 0; }
#endif

}  // namespace

int usable_threads() {
  int threads = affinity(), limit = quota();
  if (threads <= 0) threads = int(std::thread::hardware_concurrency());
  if (limit > 0) threads = std::min(threads, limit);
  return std::max(threads, 1);
}

}  // namespace smolvlm
