// The KV cache in pages of 32 tokens (PagedAttention, arXiv 2309.06180). Sequences that were forked share pages; the one that
// writes into a shared page gets a copy first.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/types.h"
#include "runtime/memory.h"

namespace smolvlm {

constexpr int kPage = 32;  // tokens

struct CacheShape {
  int layers = 0, kv_heads = 0, dim = 0;  // dim: a head's, padded to a panel

  size_t head_values() const { return size_t(kPage) * dim; }  // of the keys, or of the values, of a page
  size_t page_values() const { return 2 * head_values() * kv_heads * layers; }
};

// Pages of bf16 keys and values, for all layers and heads. What a head of one layer reads lies side by side, page after page,
// so that it streams from memory; a slab takes real memory only where its pages are used. Not thread-safe: the engine's lock
// guards it.
class PagePool {
 public:
  explicit PagePool(CacheShape shape) : shape_(shape) {}

  int take();           // a page with one user, zeroed when new
  void share(int page) { users_[page]++; }
  void drop(int page);  // the last user's drop frees it
  int users(int page) const { return users_[page]; }
  void copy(int from, int to);
  uint16_t* keys(int page, int layer, int head) const { return at(page, layer, head); }
  uint16_t* values(int page, int layer, int head) const { return at(page, layer, head) + shape_.head_values(); }
  const CacheShape& shape() const { return shape_; }
  int in_use() const { return int(users_.size() - free_.size()); }
  size_t bytes() const { return users_.empty() ? 0 : most_in_use_ * shape_.page_values() * sizeof(uint16_t); }  // that were touched

 private:
  static constexpr int kSlab = 64;  // pages that are allocated together

  uint16_t* at(int page, int layer, int head) const {
    size_t place = (size_t(layer) * shape_.kv_heads + head) * kSlab + page % kSlab;
    return slabs_[page / kSlab].as<uint16_t>() + place * 2 * shape_.head_values();
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

// Writes one token's key and value (dim floats each) into its place in a page.
void write_key(uint16_t* keys, int slot, const uint16_t* key, int dim);
void write_value(uint16_t* values, int slot, const uint16_t* value, int dim);

}  // namespace smolvlm
