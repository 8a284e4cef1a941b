#pragma once

#include <string>

#include "simd/kernels.h"

namespace smolvlm {

// `wanted` by name, or when empty the best set whose products agree with the scalar ones on a few rows (a millisecond): a
// processor or a virtual machine that says it has instructions and computes something else is found before it answers.
// Throws std::invalid_argument as select_kernels does.
const Kernels& trusted_kernels(const std::string& wanted);

}  // namespace smolvlm
