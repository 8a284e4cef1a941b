// The shape of a model, as the official config.json gives it.
#pragma once

#include "simd/kernels.h"

namespace smolvlm {

struct VisionShape {
  int dim = 0, inter = 0, layers = 0, heads = 0, image = 0, patch = 0;
  float eps = 0;

  int head_dim() const { return dim / heads; }
  int side() const { return image / patch; }
  int patches() const { return side() * side(); }
};

struct TextShape {
  int dim = 0, inter = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0, positions = 0;
  float eps = 0;
  double rope_theta = 0;

  int group() const { return heads / kv_heads; }
  int qkv() const { return (heads + 2 * kv_heads) * head_dim; }
};

struct Shape {
  VisionShape vision;
  TextShape text;
  int scale_factor = 1, image_token = 0;

  int folded_side() const { return vision.side() / scale_factor; }
  int image_tokens() const { return folded_side() * folded_side(); }
  int folded_dim() const { return vision.dim * scale_factor * scale_factor; }

  void check() const;  // throws std::invalid_argument for what the kernels cannot run
};

// How the weights are kept: the encoder and the connector, the decoder's layers, the output layer. And the KV cache: bf16 or q8.
struct Formats {
  Format vision = Format::bf16, text = Format::q8, head = Format::q8, cache = Format::bf16;
};

}  // namespace smolvlm
