// The reference: every kernel as a plain loop. It is what the others are tested against, and runs anywhere.
#include "simd/kernel_table.h"

namespace smolvlm {
namespace {

inline float half(uint16_t v) {
  uint32_t exponent = (v >> 10) & 31, fraction = v & 1023;
  float value = exponent ? as_float((exponent + 112) << 23 | fraction << 13) : float(fraction) * 0x1p-24f;
  return v & 0x8000 ? -value : value;
}

// Weight of output `o` of a panel at input `i`, without its scale.
template <Format F>
inline float weight(const uint8_t* panel, int o, int i) {
  if constexpr (F == Format::bf16) return bf16_to_f32(reinterpret_cast<const uint16_t*>(panel)[(i / 2 * kPanel + o) * 2 + i % 2]);
  if constexpr (F == Format::q8) return float(int(panel[(i / 4 * kPanel + o) * 4 + i % 4]) - kZeroPointQ8);
  int block = i / kBlock, in = i % kBlock, row = in % 16 / 4;
  uint8_t byte = panel[((block * 4 + row) * kPanel + o) * 4 + in % 4];
  return float((in < 16 ? byte & 15 : byte >> 4) - kZeroPointQ4);
}

struct Scalar {
  static constexpr int kRowsBf16 = 4, kRowsQ8 = 4;

  template <Format F, int R, int P>
  static inline void microkernel(const MicroArgs& args) {
    const auto [a, lda, a_scales, a_neg_sums, lds, w, scales, panel_bytes, panel_scales, k, c, ldc, accumulate, fresh] = args;
    for (int r = 0; r < R; r++) {
      for (int o = 0; o < P * kPanel; o++) {
        const uint8_t* panel = w + o / kPanel * panel_bytes;
        float total = accumulate ? c[r * ldc + o] : 0.0f;
        for (int i = 0; i < k; i++) {
          float x, y = weight<F>(panel, o % kPanel, i);
          if constexpr (F == Format::bf16) {
            x = bf16_to_f32(reinterpret_cast<const uint16_t*>(a + r * lda)[i]);
          } else {
            x = float(reinterpret_cast<const int8_t*>(a + r * lda)[i]) * a_scales[r * lds + i / kBlock];
            y *= half(scales[o / kPanel * panel_scales + i / kBlock * kPanel + o % kPanel]);
          }
          total += x * y;
        }
        c[r * ldc + o] = total;
      }
    }
  }
};

}  // namespace
}  // namespace smolvlm

namespace smolvlm {
extern const Kernels kScalar = kernels_of<Scalar>("scalar");
}  // namespace smolvlm
