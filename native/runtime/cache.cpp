#include "cache.h"

#include <algorithm>
#include <cstring>

namespace smolvlm {

int PagePool::take() {
  if (free_.empty()) {
    int first = int(users_.size());
    slabs_.emplace_back(kSlab * shape_.page_values() * sizeof(uint16_t), false);
    users_.resize(first + kSlab, 0);
    for (int i = kSlab - 1; i >= 0; i--) free_.push_back(first + i);
  }
  int page = free_.back();
  free_.pop_back();
  users_[page] = 1;
  most_in_use_ = std::max(most_in_use_, size_t(in_use()));
  return page;
}

void PagePool::drop(int page) {
  if (--users_[page] == 0) free_.push_back(page);
}

void PagePool::copy(int from, int to) {
  for (int layer = 0; layer < shape_.layers; layer++)
    for (int head = 0; head < shape_.kv_heads; head++)
      std::memcpy(at(to, layer, head), at(from, layer, head), 2 * shape_.head_values() * sizeof(uint16_t));
}

Sequence::Sequence(const Sequence& other)
    : pool_(other.pool_), capacity_(other.capacity_), length_(other.length_), pages_(other.pages_) {
  for (int page : pages_) pool_->share(page);
}

Sequence::~Sequence() {
  for (int page : pages_) pool_->drop(page);
}

void Sequence::prepare(int tokens) {
  size_t needed = size_t(length_ + tokens + kPage - 1) / kPage;
  pages_.reserve(needed);
  size_t first = size_t(length_) / kPage;
  if (first < pages_.size() && pool_->users(pages_[first]) > 1) {
    int own = pool_->take();
    pool_->copy(pages_[first], own);
    pool_->drop(pages_[first]);
    pages_[first] = own;
  }
  while (pages_.size() < needed) pages_.push_back(pool_->take());
}

void Sequence::rewind(int length) {
  length_ = length;
  size_t kept = size_t(length + kPage - 1) / kPage;
  while (pages_.size() > kept) {
    pool_->drop(pages_.back());
    pages_.pop_back();
  }
}

void write_key(uint16_t* keys, int slot, const uint16_t* key, int dim) {
  uint16_t* panel = keys + size_t(slot / kPanel) * dim * kPanel + slot % kPanel * 2;
  for (int pair = 0; pair < dim / 2; pair++) std::memcpy(panel + pair * 2 * kPanel, key + 2 * pair, 4);
}

void write_value(uint16_t* values, int slot, const uint16_t* value, int dim) {
  for (int panel = 0; panel < dim / kPanel; panel++) {
    uint16_t* to = values + size_t(panel) * kPage * kPanel + slot / 2 * 2 * kPanel + slot % 2;
    for (int i = 0; i < kPanel; i++) to[2 * i] = value[panel * kPanel + i];
  }
}

}  // namespace smolvlm
