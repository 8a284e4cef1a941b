// What this machine lets the process use.
#pragma once

namespace smolvlm {

// Processors that the process may run on: its affinity mask, and no more than its cgroup's quota of processor time.
int usable_threads();

}  // namespace smolvlm
