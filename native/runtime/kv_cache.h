// The KV cache in pages of 64 tokens (PagedAttention, arXiv 2309.06180). Sequences that were forked share pages; the one that
// writes into a shared page gets a copy first.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "simd/kernels.h"
#include "runtime/memory.h"

namespace smolvlm {

struct CacheShape {
  int layers = 0, kv_heads = 0, dim = 0;  // dim: a head's, padded to a panel
  Format kept = Format::bf16;             // or q8: integers, with a float a token and head as scale

  size_t keys_bytes() const { return size_t(kPage) * dim * (kept == Format::bf16 ? 2 : 1); }  // and as many for values
  size_t scales_bytes() const { return kept == Format::bf16 ? 0 : kPage * sizeof(float); }    // of keys, and of values
  size_t head_bytes() const { return 2 * (keys_bytes() + scales_bytes()); }
  size_t page_bytes() const { return head_bytes() * kv_heads * layers; }
};

// Pages of keys and values, for all layers and heads. What a head of one layer reads lies side by side, page after page,
// so that it streams from memory; a slab takes real memory only where its pages are used. Not thread-safe: the engine's lock
// guards it.
class PagePool {
 public:
  explicit PagePool(CacheShape shape) : shape_(shape) {}

  int take();  // a page with one user, zeroed when new
  void share(int page) { users_[page]++; }
  void drop(int page);  // the last user's drop frees it
  int users(int page) const { return users_[page]; }
  void copy(int from, int to);
  // What the head of a layer has of a page: as attention reads it, and one token's key and value (dim floats) into `slot`.
  KvPage read(int page, int layer, int head) const;
  void write(int page, int layer, int head, int slot, const float* key, const float* value) const;
  const CacheShape& shape() const { return shape_; }
  int in_use() const { return int(users_.size() - free_.size()); }
  size_t bytes() const { return users_.empty() ? 0 : most_in_use_ * shape_.page_bytes(); }  // that were touched

 private:
  static constexpr int kSlab = 32;  // pages that are allocated together

  uint8_t* at(int page, int layer, int head) const {
    size_t place = (size_t(layer) * shape_.kv_heads + head) * kSlab + page % kSlab;
    return slabs_[page / kSlab].as<uint8_t>() + place * shape_.head_bytes();
  }

  CacheShape shape_;
  std::vector<Buffer> slabs_;
  std::vector<int> users_, free_;
  size_t most_in_use_ = 0;
};

// One sequence: which pages hold its tokens. Its room is promised at `open`, its pages are taken as it grows.
class Sequence {
 public:
  Sequence(PagePool& pool, int capacity) : pool_(&pool), capacity_(capacity) {}
  Sequence(const Sequence& other);  // a fork: shares all pages
  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();

  int length() const { return length_; }
  int capacity() const { return capacity_; }
  const std::vector<int>& pages() const { return pages_; }

  // Takes the pages for `tokens` more and makes those that will be written its own. Adds nothing to the length.
  void prepare(int tokens);
  void advance(int tokens) { length_ += tokens; }
  void rewind(int length);

 private:
  PagePool* pool_;
  int capacity_, length_ = 0;
  std::vector<int> pages_;
};

}  // namespace smolvlm
