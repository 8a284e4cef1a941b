// What the kernels work on. One packing of the weights serves every instruction set, so a quantized file does too.
#pragma once

#include <cstddef>
#include <cstdint>

namespace smolvlm {

enum class Format : uint8_t { bf16, q8, q4 };

constexpr int kPanel = 16;                           // outputs side by side in a packed matrix
constexpr int kUnit = 2 * kPanel;                    // outputs of one pass of a micro-kernel; just one block of the next product
constexpr int kBlock = 32;                           // inputs that share a scale
constexpr int kMostGroup = 8;                        // blocks that share one, at most, where a matrix and its rows are grouped
constexpr int kZeroPointQ8 = 128, kZeroPointQ4 = 8;  // what is added to a weight to store it unsigned

// This header is compiled for every instruction set; a function that the linker kept from one of them would be wrong for the
// others, so none is left to it.
#define SMOLVLM_INLINE [[gnu::always_inline]] inline

SMOLVLM_INLINE constexpr int round_up(int value, int step) { return (value + step - 1) / step * step; }
SMOLVLM_INLINE constexpr size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

// How many blocks share a scale where that is wanted: what so many inputs divide into.
SMOLVLM_INLINE constexpr int group_of(Format format, int inputs) {
  int blocks = round_up(inputs, kBlock) / kBlock;
  return format != Format::q8 ? 1 : blocks % kMostGroup == 0 ? kMostGroup : blocks % 4 == 0 ? 4 : 1;
}

// A weight matrix (outputs, inputs), padded with zeros to (padded_n, k), in panels of 16 outputs. A panel holds
//   bf16: for each pair of inputs      16 outputs x 2 values
//   q8:   for each group of 4 inputs   16 outputs x 4 values, unsigned, 128 being zero
//   q4:   for each block of 32 inputs  4 rows of 16 outputs x 4 bytes; byte i of row j holds the inputs 4j + i (low half)
//                                      and 16 + 4j + i (high half), 8 being zero
// and, quantized, 16 half-precision scales for each block of 32 inputs.
struct Matrix {
  Format format = Format::bf16;
  int n = 0, padded_n = 0, k = 0;  // outputs as the caller sees them; padded to kUnit; inputs, padded to kBlock
  const uint8_t* data = nullptr;
  const uint16_t* scales = nullptr;  // q8 and q4: padded_n / 16 x k / 32 x 16 float16
  int group = 1;                     // q8: the scales of so many blocks in a row are equal; k is a multiple of so many
  const float* bias = nullptr;       // padded_n, or none

  SMOLVLM_INLINE size_t panel_bytes() const { return panel_bytes(format, k); }
  SMOLVLM_INLINE size_t panel_scales() const { return size_t(k) / kBlock * kPanel; }
  SMOLVLM_INLINE static size_t panel_bytes(Format format, int k) {
    return size_t(k) * kPanel * (format == Format::bf16 ? 4 : format == Format::q8 ? 2 : 1) / 2;
  }
};

// Activations as a product reads them: rows of `width` inputs, a multiple of kBlock, the rest zero.
struct Rows {
  Format format = Format::bf16;  // q8 for q8 and q4 weights, unless the kernels want many rows as bf16
  int width = 0;
  uint8_t* data = nullptr;              // rows x width, bf16 or int8
  float* scales = nullptr;              // q8: rows x width / 32
  int32_t* neg_sums = nullptr;          // q8: rows x width / 32, minus the sum of the block's integers
  int group = 1;                        // q8: as in a matrix
  int32_t* zero_point_terms = nullptr;  // with groups: rows x groups, kZeroPointQ8 times the neg_sums of a group

  SMOLVLM_INLINE size_t row_bytes() const { return size_t(width) * (format == Format::bf16 ? 2 : 1); }
  SMOLVLM_INLINE size_t row_blocks() const { return size_t(width) / kBlock; }
};

// What becomes of a product's result.
enum class EpilogueOp : uint8_t {
  store,       // out[row][i] = result + bias
  store_bf16,  // the same, rounded
  add,         // out[row][i] += result + bias
  gelu,        // next[row][i] = gelu_tanh(result + bias)
  swiglu,      // panels come as gate, up, gate, up: next[row][i / 2] = silu(gate) * up
};

struct Epilogue {
  EpilogueOp after = EpilogueOp::store;
  float* out = nullptr;
  uint16_t* out_bf16 = nullptr;
  size_t stride = 0;  // of out, in elements
  Rows next;

  // Units of which a whole block, or group, of the next product's inputs comes out.
  SMOLVLM_INLINE int units() const {
    if (after == EpilogueOp::swiglu) return 2;
    return after == EpilogueOp::gelu && next.format == Format::q8 ? next.group : 1;
  }
};

constexpr int kPage = 64;  // tokens of a page of the KV cache

// Keys and values of one head, for the tokens of a page: keys as panels of 16 tokens (pairs of dims x 16 tokens x 2), values as
// panels of 16 dims (pairs of tokens x 16 dims x 2); as bf16, or as 8-bit integers with a scale a token.
struct KvPage {
  const uint8_t *keys = nullptr, *values = nullptr;
  const float *key_scales = nullptr, *value_scales = nullptr;  // q8: a value a token
};

// Rows of queries against the keys and values of one head, which lie in pages of `page` tokens.
struct Attention {
  const uint16_t* query = nullptr;  // rows x dim, bf16
  int rows = 0, dim = 0;            // dim: padded to 16
  int page = 0;                     // a multiple of 32, at most kKeys; q8: kPage
  Format kept = Format::bf16;       // of keys and values: bf16 or q8
  const KvPage* pages = nullptr;
  const int* visible = nullptr;  // for each row, how many keys it sees
  int first = 0, last = 0;       // the range of keys that this call covers; first is a multiple of `page`
  float scale = 1;
  // Row r's weighted sum, divided by its weight unless `partial`, goes to out + r / group * stride + r % group * out_dim:
  // the heads of a group share keys and lie side by side.
  float* out = nullptr;
  size_t stride = 0;
  int group = 1, out_dim = 0;
  bool partial = false;
  float* max = nullptr;  // rows: with `partial`, the largest score and the sum of the weights relative to it
  float* sum = nullptr;
};

constexpr int kHeadPart = 64;  // tokens whose parts of a head are packed together

// One head's part of a projection of queries, keys and values, and where attention over all its tokens reads them:
//   bf16      `attend` does, with keys and values in pages of `page` tokens
//   integers  `attend_int8` does. Queries with a scale and minus the sum for each token; keys with a scale a token, unsigned,
//             128 being zero, as panels of 16 tokens (groups of 4 dims x 16 tokens x 4); of every kHeadPart tokens the values, with
//             a scale a dim, as panels of 16 dims (groups of 4 tokens x 16 dims x 4).
struct Head {
  const uint16_t* from = nullptr;       // the first token's query; keys and values come `apart` and twice `apart` later
  size_t stride = 0, apart = 0;         // from token to token, and from queries to keys
  int tokens = 0, dim = 0, padded = 0;  // padded to 16
  int page = 0;                         // a multiple of kHeadPart, or all tokens
  uint8_t *query = nullptr, *keys = nullptr, *values = nullptr;  // tokens x padded each, with room for whole pages
  float *query_scales = nullptr, *key_scales = nullptr;
  float* value_scales = nullptr;  // every kHeadPart tokens, padded
  int32_t* query_neg_sums = nullptr;
};

constexpr int kKeys = 256;          // keys whose scores are held at a time
constexpr int kAttentionRows = 48;  // rows of one call at most
constexpr int kMaxHeadDim = 256;
constexpr int kMaxDepth = 16384;  // inputs of a matrix

// One instruction set's kernels. All are thread-safe and allocate nothing.
struct Kernels {
  const char* name = "";
  int wide_rows = 0;  // from so many rows on, activations are wanted as bf16 whatever the weights are; 0: never
  // rows [m0, m1) of `a` times units [u0, u1) of `w`, both multiples of to.units(). Quantized weights with bf16 rows only
  // where wide_rows is set and there are so many rows.
  void (*gemm)(const Rows& a, const Matrix& w, const Epilogue& to, int m0, int m1, int u0, int u1);
  void (*attend)(const Attention& task);
  // tokens [first, last), kHeadPart of them or the last, to where `attend` reads them
  void (*pack_head)(const Head& head, int first, int last);
  // The same to where `attend_int8` does; none where bf16 is as fast.
  void (*pack_head_int8)(const Head& head, int first, int last);
  // Rows [first, first + rows) of a head of integers, kAttentionRows at most, against all its tokens: `dim` values each, `stride`
  // apart.
  void (*attend_int8)(const Head& head, int first, int rows, float scale, float* out, size_t stride);
  // writes row `row` of `to` from `n` floats, zeros beyond
  void (*quantize_row)(const float* x, int n, const Rows& to, int row);
  void (*rms_norm)(const float* x, const float* weight, int n, float eps, float* out);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, int n, float eps, float* out);
  void (*to_bf16)(const float* x, int n, uint16_t* out);
  void (*from_bf16)(const uint16_t* x, int n, float* out);
  // x[i], x[i + n/2] rotated by the angle whose cosine and sine stand in cos[i], sin[i]
  void (*rope)(float* x, const float* cos, const float* sin, int n);
};

}  // namespace smolvlm
