// The table of an instruction set's kernels, made of its micro-kernels (gemm/microkernel.h says what it implements).
#pragma once

#include "attention/attention.h"
#include "attention/pack_head.h"
#include "gemm/gemm.h"

namespace smolvlm {
namespace {

template <class Isa>
constexpr Kernels kernels_of(const char* name) {
  Kernels table{};
  table.name = name;
  table.gemm = gemm_microkernels<Isa>;
  table.attend = attend<Isa>;
  table.pack_head = pack_head;
  table.quantize_row = quantize_row;
  table.rms_norm = rms_norm;
  table.layer_norm = layer_norm;
  table.to_bf16 = to_bf16;
  table.from_bf16 = from_bf16;
  table.rope = rope;
  return table;
}

constexpr Kernels with_int8_attention(Kernels table, decltype(Kernels::pack_head_int8) pack, decltype(Kernels::attend_int8) attend) {
  table.pack_head_int8 = pack;
  table.attend_int8 = attend;
  return table;
}

}  // namespace
}  // namespace smolvlm
