#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "simd/kernels.h"

namespace smolvlm {

void bind_probe(nanobind::module_& m, Format (*format_of)(const std::string&));

}  // namespace smolvlm
