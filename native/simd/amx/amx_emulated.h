// The tile instructions as plain loops, after the pseudocode of Intel's manual (volume 2A, TDPBF16PS): for tests.
#pragma once

#include <cstdlib>

#include "simd/rowwise.h"

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps

namespace smolvlm {
namespace {

struct EmulatedTiles {
  bool configured = false;
  uint8_t rows[8];
  uint16_t bytes[8];
  alignas(64) uint8_t data[8][16][64];
};

thread_local EmulatedTiles emulated;

inline EmulatedTiles& configured_tiles() {
  if (!emulated.configured) std::abort();  // the processor would raise #UD
  return emulated;
}

inline void emulate_loadconfig(const void* config) {
  const uint8_t* from = static_cast<const uint8_t*>(config);
  for (int i = 0; i < 8; i++) std::memcpy(&emulated.bytes[i], from + 16 + 2 * i, 2), emulated.rows[i] = from[48 + i];
  emulated.configured = from[0] == 1;
}

inline void emulate_release() { emulated.configured = false; }

inline void emulate_zero(int t) { std::memset(configured_tiles().data[t], 0, sizeof emulated.data[t]); }

inline void emulate_loadd(int t, const void* base, size_t stride) {
  EmulatedTiles& tiles = configured_tiles();
  for (int r = 0; r < tiles.rows[t]; r++) std::memcpy(tiles.data[t][r], static_cast<const uint8_t*>(base) + r * stride, tiles.bytes[t]);
}

inline void emulate_stored(int t, void* base, size_t stride) {
  EmulatedTiles& tiles = configured_tiles();
  for (int r = 0; r < tiles.rows[t]; r++) std::memcpy(static_cast<uint8_t*>(base) + r * stride, tiles.data[t][r], tiles.bytes[t]);
}

inline void emulate_dpbf16ps(int c, int a, int b) {
  EmulatedTiles& tiles = configured_tiles();
  for (int m = 0; m < tiles.rows[c]; m++) {
    for (int k = 0; k < tiles.bytes[a] / 4; k++) {
      for (int n = 0; n < tiles.bytes[c] / 4; n++) {
        float sum;
        uint16_t x[2], y[2];
        std::memcpy(&sum, &tiles.data[c][m][4 * n], 4);
        std::memcpy(x, &tiles.data[a][m][4 * k], 4);
        std::memcpy(y, &tiles.data[b][k][4 * n], 4);
        sum += bf16_to_f32(x[0]) * bf16_to_f32(y[0]);
        sum += bf16_to_f32(x[1]) * bf16_to_f32(y[1]);
        std::memcpy(&tiles.data[c][m][4 * n], &sum, 4);
      }
    }
  }
}

}  // namespace
}  // namespace smolvlm

#define _tile_loadconfig emulate_loadconfig
#define _tile_release emulate_release
#define _tile_zero emulate_zero
#define _tile_loadd emulate_loadd
#define _tile_stored emulate_stored
#define _tile_dpbf16ps emulate_dpbf16ps
