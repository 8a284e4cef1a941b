// AMX (Sapphire Rapids and later): tiles of 16 rows x 32 bf16 values, for passes of many rows. Few rows, as in decoding, are
// bound by memory and take the kernels of AVX-512.
//
// Quantized weights are widened to bf16, a unit at a time, before the tiles see them: integer tiles would have to give up
// their sums at every block of 32 inputs to be scaled, which costs more than it saves.
//
// Compiled a second time against an emulation of the tile instructions, so that this file is tested where no AMX is.
#include <cstdlib>

#include "simd/avx512/microkernel.h"

#ifdef SMOLVLM_EMULATE_AMX
#include "simd/amx/amx_emulated.h"
#endif

#include "simd/kernel_table.h"

namespace smolvlm {
namespace {

constexpr int kTile = 16;  // rows of a tile, and outputs
constexpr int kDeep = 32;  // bf16 values in a row of a tile
constexpr int kWideRows = 32;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};

  TileConfig() {
    for (int i = 0; i < 8; i++) bytes[i] = 64, rows[i] = kTile;
  }
};

// Tiles 0 to 3 are sums (rows x outputs), 4 and 5 rows, 6 and 7 weights.
class Tiles {
 public:
  Tiles() {
    static const TileConfig config;
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
};

// c (32 rows x 32 outputs) = rows x two panels
inline void block_32(const uint8_t* a, size_t lda, const uint8_t* w, size_t panel_bytes, int k, float* c, size_t ldc) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int i = 0; i < k; i += kDeep) {
    _tile_loadd(4, a + i * 2, lda);
    _tile_loadd(6, w + size_t(i) * 2 * kPanel, 64);
    _tile_loadd(7, w + panel_bytes + size_t(i) * 2 * kPanel, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + kTile * lda + i * 2, lda);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, ldc * sizeof(float));
  _tile_stored(1, c + kTile, ldc * sizeof(float));
  _tile_stored(2, c + kTile * ldc, ldc * sizeof(float));
  _tile_stored(3, c + kTile * ldc + kTile, ldc * sizeof(float));
}

// Two panels of quantized weights as bf16, in the same order of panels and pairs.
template <Format F>
void dequantize_panels(const Matrix& w, int panel, uint16_t* out) {
  for (int p = 0; p < 2; p++) {
    const uint8_t* data = w.data + (panel + p) * w.panel_bytes();
    const uint16_t* scales = w.scales + (panel + p) * w.panel_scales();
    uint16_t* to = out + size_t(p) * w.k * kPanel;
    for (int b = 0; b < w.k / kBlock; b++) {
      __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(scales + b * kPanel)));
      for (int g = 0; g < 8; g++) {  // a group: 4 inputs of 16 outputs
        __m512i bytes;
        int zero;
        if constexpr (F == Format::q8) {
          bytes = _mm512_loadu_si512(data + (size_t(b) * 8 + g) * 64);
          zero = kZeroPointQ8;
        } else {
          bytes = _mm512_loadu_si512(data + (size_t(b) * 4 + g % 4) * 64);
          bytes = _mm512_and_si512(g < 4 ? bytes : _mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
          zero = kZeroPointQ4;
        }
        __m512 value[4];
        for (int i = 0; i < 4; i++) {
          __m512i integer = _mm512_and_si512(_mm512_srli_epi32(bytes, 8 * i), _mm512_set1_epi32(255));
          value[i] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(integer, _mm512_set1_epi32(zero))), scale);
        }
        for (int pair = 0; pair < 2; pair++) {  // lane o: the two inputs of a pair side by side
          __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(value[2 * pair]));
          __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(value[2 * pair + 1]));
          _mm512_storeu_si512(to + (size_t(b) * 16 + g * 2 + pair) * 2 * kPanel, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
      }
    }
  }
}

// Room of a thread for two units of the deepest matrix.
struct DequantizedUnits {
  uint16_t* data = nullptr;

  void make() {
    if (!data) data = static_cast<uint16_t*>(std::aligned_alloc(64, size_t(2) * kUnit * kMaxDepth * sizeof(uint16_t)));
    if (!data) std::abort();  // 2 MB
  }
  ~DequantizedUnits() { std::free(data); }
};

void gemm_tiles(const Rows& a, const Matrix& w, const Epilogue& to, int m0, int m1, int u0, int u1) {
  Tiles tiles;
  int step = to.units();  // 1 or 2: the next rows are bf16 as these are
  alignas(64) float c[kWideRows * kWide];
  thread_local DequantizedUnits dequantized;
  if (w.format != Format::bf16) dequantized.make();
  for (int unit = u0; unit < u1; unit += step) {
    const uint8_t* panels[2];
    size_t panel_bytes = size_t(w.k) * kPanel * 2;
    for (int s = 0; s < step; s++) {
      int panel = 2 * (unit + s);
      uint16_t* buffer = dequantized.data + size_t(s) * kUnit * w.k;
      if (w.format == Format::bf16) panels[s] = w.data + panel * w.panel_bytes();
      else if (w.format == Format::q8) dequantize_panels<Format::q8>(w, panel, buffer);
      else dequantize_panels<Format::q4>(w, panel, buffer);
      if (w.format != Format::bf16) panels[s] = reinterpret_cast<const uint8_t*>(buffer);
    }
    for (int row = m0; row < m1; row += kWideRows) {
      const uint8_t* from = a.data + row * a.row_bytes();
      int rows = m1 - row < kWideRows ? m1 - row : kWideRows;
      for (int s = 0; s < step; s++) {
        if (rows == kWideRows) block_32(from, a.row_bytes(), panels[s], panel_bytes, w.k, c + s * kUnit, kWide);
        else
          gemm_bf16_rows<Avx512>(rows,
                                 {reinterpret_cast<const uint16_t*>(from), size_t(a.width), reinterpret_cast<const uint16_t*>(panels[s]),
                                  panel_bytes / 2, 2, w.k, c + s * kUnit, kWide, false});
      }
      apply_epilogue(to, w, row, rows, unit, c);
    }
  }
}

void gemm(const Rows& a, const Matrix& w, const Epilogue& to, int m0, int m1, int u0, int u1) {
  bool mixed = w.format != Format::bf16 && a.format == Format::bf16;
  if (mixed || (w.format == Format::bf16 && m1 - m0 >= kWideRows)) gemm_tiles(a, w, to, m0, m1, u0, u1);
  else gemm_microkernels<Avx512>(a, w, to, m0, m1, u0, u1);
}

struct Amx : Avx512 {
  // Whole tiles of rows; the rest by micro-kernels.
  static void gemm_bf16(int rows, const Bf16Gemm& g) {
    int done = 0;
    if (g.k % kDeep == 0 && g.panels % 2 == 0) {
      for (; done + kTile <= rows; done += kTile) {
        const uint16_t* from = g.a + done * g.lda;
        for (int p = 0; p < g.panels; p += 2) {
          float* to = g.c + done * g.ldc + p * kPanel;
          if (g.accumulate) {
            _tile_loadd(0, to, g.ldc * sizeof(float));
            _tile_loadd(1, to + kTile, g.ldc * sizeof(float));
          } else {
            _tile_zero(0);
            _tile_zero(1);
          }
          for (int i = 0; i < g.k; i += kDeep) {
            _tile_loadd(4, from + i, g.lda * sizeof(uint16_t));
            _tile_loadd(6, g.w + p * g.panel + size_t(i) * kPanel, 64);
            _tile_loadd(7, g.w + (p + 1) * g.panel + size_t(i) * kPanel, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
          }
          _tile_stored(0, to, g.ldc * sizeof(float));
          _tile_stored(1, to + kTile, g.ldc * sizeof(float));
        }
      }
    }
    if (done < rows) gemm_bf16_rows<Avx512>(rows - done, from_row(g, done));
  }
};

void attend_in_tiles(const Attention& task) {
  if (task.rows < kTile) return attend<Amx>(task);
  Tiles tiles;
  attend<Amx>(task);
}

constexpr Kernels table(const char* name) {
  Kernels made = kernels_of<Amx>(name);
  made.wide_rows = kWideRows;
  made.gemm = gemm;
  made.attend = attend_in_tiles;
  return made;
}

}  // namespace

#ifdef SMOLVLM_EMULATE_AMX
extern const Kernels kAmxEmulated = table("amx_emulated");
#else
extern const Kernels kAmx = table("amx");
#endif
}  // namespace smolvlm
