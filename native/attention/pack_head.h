// From a projection of queries, keys and values to where attention over many tokens reads them, one head at a time.
#pragma once

#include <algorithm>

#include "simd/rowwise.h"

namespace smolvlm {
namespace {

// A token's query (0), key (1) or value (2) in a head.
inline const uint16_t* part_of(const Head& head, int which, int token) { return head.from + which * head.apart + token * head.stride; }

// Asks for tokens [first, last): a token's row is long and little of it is this head's, which nothing else foresees.
inline void fetch_parts(const Head& head, int first, int last) {
  for (int which = 0; which < 3; which++)
    for (int i = first; i < last; i++)
      for (int d = 0; d < head.dim; d += 32) __builtin_prefetch(part_of(head, which, i) + d);
}

// Puts `bytes` of a token's key, four by four, into its panel of 16 keys.
inline void place_key(const void* from, int bytes, uint8_t* panel, int place) {
  for (int at = 0; at < bytes; at += 4) std::memcpy(panel + at * kPanel + place * 4, static_cast<const uint8_t*>(from) + at, 4);
}

void pack_head(const Head& head, int first, int last) {
  fetch_parts(head, first, last);
  uint16_t *query = reinterpret_cast<uint16_t*>(head.query), *values = reinterpret_cast<uint16_t*>(head.values);
  for (int i = first; i < last; i++) {
    std::memcpy(query + size_t(i) * head.padded, part_of(head, 0, i), head.dim * sizeof(uint16_t));
    uint8_t* panel = head.keys + size_t(i / kPanel * kPanel) * head.padded * sizeof(uint16_t);
    place_key(part_of(head, 1, i), head.dim * sizeof(uint16_t), panel, i % kPanel);
  }
  static const uint16_t kNone[kMaxHeadDim] = {};
  for (int i = first; i < last; i += 2) {  // pairs of values, in panels of 16 dims
    const uint16_t *a = part_of(head, 2, i), *b = i + 1 < last ? part_of(head, 2, i + 1) : kNone;
    uint16_t* page = values + size_t(i / head.page) * head.page * head.padded + i % head.page / 2 * 2 * kPanel;
    for (int d = 0; d < head.dim; d += kPanel) {
      uint16_t* to = page + size_t(d) * head.page;
      int some = std::min(kPanel, head.dim - d);
#pragma omp simd
      for (int o = 0; o < some; o++) {
        to[2 * o] = a[d + o];
        to[2 * o + 1] = b[d + o];
      }
    }
  }
}

}  // namespace
}  // namespace smolvlm
