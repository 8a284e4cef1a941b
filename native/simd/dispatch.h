// Which kernels this machine can run, and the pick among them.
#pragma once

#include <string>
#include <vector>

#include "simd/kernels.h"

namespace smolvlm {

// Every set of kernels in this build that the processor and the operating system allow, the best first.
std::vector<const Kernels*> usable_kernels();

// `wanted` by name, or the best when empty. "amx_emulated", for tests, has to be named. Throws std::invalid_argument with the
// names that would do.
const Kernels& select_kernels(const std::string& wanted);

}  // namespace smolvlm
