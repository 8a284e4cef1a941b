#include "config.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace smolvlm {
namespace {

void need(bool fine, const std::string& what) {
  if (!fine) throw std::invalid_argument("the native engine cannot run this shape: " + what);
}

void between(const char* name, int value, int most) {
  need(value >= 1 && value <= most, std::string(name) + " is " + std::to_string(value) + ", not between 1 and " + std::to_string(most));
}

void positive(const char* name, double value) { need(std::isfinite(value) && value > 0, std::string(name) + " is not a positive number"); }

}  // namespace

// One number after the other first, so that no product of two of them is too large for an int.
void Shape::check() const {
  constexpr int kLayers = 1024, kSide = 16384, kPositions = 1 << 20, kVocab = 1 << 22;
  between("the encoder's hidden_size", vision.dim, kMaxDepth);
  between("the encoder's intermediate_size", vision.inter, kMaxDepth);
  between("the encoder's num_hidden_layers", vision.layers, kLayers);
  between("the encoder's num_attention_heads", vision.heads, vision.dim);
  between("image_size", vision.image, kSide);
  between("patch_size", vision.patch, vision.image);
  between("hidden_size", text.dim, kMaxDepth);
  between("intermediate_size", text.inter, kMaxDepth);
  between("num_hidden_layers", text.layers, kLayers);
  between("num_attention_heads", text.heads, kMaxDepth);
  between("num_key_value_heads", text.kv_heads, text.heads);
  between("head_dim", text.head_dim, kMaxHeadDim);
  between("vocab_size", text.vocab, kVocab);
  between("max_position_embeddings", text.positions, kPositions);
  between("scale_factor", scale_factor, vision.side());
  positive("layer_norm_eps", vision.eps);
  positive("rms_norm_eps", text.eps);
  positive("rope_theta", text.rope_theta);
  need(vision.dim % vision.heads == 0 && text.heads % text.kv_heads == 0, "heads do not divide what they share");
  need(vision.head_dim() <= kMaxHeadDim, "head_dim is above " + std::to_string(kMaxHeadDim));
  need(vision.head_dim() % 2 == 0 && text.head_dim % 2 == 0, "head_dim is odd");
  need(text.group() <= kAttentionRows, "more than " + std::to_string(kAttentionRows) + " query heads share a key head");
  need(vision.side() <= 256, "an image has more than 65536 patches");
  need(image_token >= 0 && image_token < text.vocab, "the image token is outside the vocabulary");
  int64_t patch = int64_t(3) * vision.patch * vision.patch, folded = int64_t(vision.dim) * scale_factor * scale_factor;
  need(text.heads * text.head_dim <= kMaxDepth && patch <= kMaxDepth && folded <= kMaxDepth,
       "a matrix has more than " + std::to_string(kMaxDepth) + " inputs");
}

}  // namespace smolvlm
