// What both towers need to run a layer: products on all threads, and activations in an arena.
#pragma once

#include <algorithm>

#include "simd/kernels.h"
#include "runtime/memory.h"
#include "runtime/thread_pool.h"

namespace smolvlm {

// Rows of activations in an arena, with room for either format where `kernels` may want bf16 beside quantized weights; grouped
// where that is wanted and can be.
inline void plan_rows(Arena& arena, Rows& rows, Format weights, int count, int width, const Kernels& kernels, bool grouped = false) {
  rows.format = weights == Format::bf16 ? Format::bf16 : Format::q8;
  rows.group = grouped ? group_of(weights, width) : 1;
  rows.width = round_up(width, kBlock);
  arena.plan(rows.data, count * rows.row_bytes() * (kernels.wide_rows ? 2 : 1));
  if (rows.format == Format::q8) {
    arena.plan(rows.scales, count * rows.row_blocks());
    arena.plan(rows.neg_sums, count * rows.row_blocks());
    if (rows.group > 1) arena.plan(rows.zero_point_terms, count * rows.row_blocks() / rows.group);
  }
}

// The same memory in the format that the kernels want for so many rows.
inline Rows shaped_for(const Kernels& kernels, int count, Rows rows) {
  if (kernels.wide_rows && count >= kernels.wide_rows) rows.format = Format::bf16;
  return rows;
}

// Every row of `rows_of(thread)` times `w`, on all threads. `begin(thread)` comes before a thread's first product. Results are the
// same whatever the number of threads: no sum is split.
template <class RowsOf, class Begin>
void parallel_gemm(ThreadPool& threads, const Kernels& kernels, const RowsOf& rows_of, int rows, const Matrix& w, const Epilogue& to,
                   const Begin& begin) {
  constexpr size_t kCacheBytes = 192 << 10;  // bytes of `a` that stay in a core's cache while weights pass by
  int units = w.padded_n / kUnit, step = to.units();
  int block = std::max(96, int(kCacheBytes / rows_of(0).row_bytes()) / 96 * 96);  // 96: a multiple of what any micro-kernel takes at a time
  int blocks = (rows + block - 1) / block;
  int some = blocks > 1 ? 8 : std::clamp(units / (threads.size() * 6), 1, 16);
  some = round_up(some, step);
  int pieces = (units + some - 1) / some;
  auto product = [&](int i, int thread) {
    int m0 = i / pieces * block, u0 = i % pieces * some;
    kernels.gemm(rows_of(thread), w, to, m0, std::min(m0 + block, rows), u0, std::min(u0 + some, units));
  };
  threads.parallel_for(blocks * pieces, 1, product, begin);
}

// The same for rows that all threads read.
inline void parallel_gemm(ThreadPool& threads, const Kernels& kernels, const Rows& a, int rows, const Matrix& w, const Epilogue& to) {
  parallel_gemm(threads, kernels, [&](int) -> const Rows& { return a; }, rows, w, to, [](int) {});
}

}  // namespace smolvlm
