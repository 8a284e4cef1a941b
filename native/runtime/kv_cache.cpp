#include "runtime/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/number_formats.h"

namespace smolvlm {
namespace {

// Where dim `i` of the token in `slot` stands among a page's keys, and among its values (see KvPage).
size_t key_place(int slot, int i, int dim) {
  return size_t(slot / kPanel) * dim * kPanel + size_t(i / 2) * 2 * kPanel + slot % kPanel * 2 + i % 2;
}
size_t value_place(int slot, int i) {
  return size_t(i / kPanel) * kPage * kPanel + size_t(slot / 2) * 2 * kPanel + i % kPanel * 2 + slot % 2;
}

// One token's floats as 8-bit integers, each into place(i); the scale that takes them back.
template <class Place>
float write_integers(const float* x, int dim, uint8_t* to, Place place) {
  float largest = 0;
  for (int i = 0; i < dim; i++) largest = std::max(largest, std::fabs(x[i]));
  float scale = largest > 1e-30f ? largest / 127.0f : 0.0f, inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int i = 0; i < dim; i++) {
    float nearest = x[i] * inverse + 12582912.0f;  // 1.5 x 2^23: rounds to the nearest, ties to even
    to[place(i)] = uint8_t(int8_t(nearest - 12582912.0f));
  }
  return scale;
}

}  // namespace

KvPage PagePool::read(int page, int layer, int head) const {
  const uint8_t* keys = at(page, layer, head);
  const uint8_t* values = keys + shape_.keys_bytes();
  const float* scales = shape_.scales_bytes() ? reinterpret_cast<const float*>(values + shape_.keys_bytes()) : nullptr;
  return {keys, values, scales, scales ? scales + kPage : nullptr};
}

void PagePool::write(int page, int layer, int head, int slot, const float* key, const float* value) const {
  uint8_t* keys = at(page, layer, head);
  uint8_t* values = keys + shape_.keys_bytes();
  int dim = shape_.dim;
  if (shape_.kept == Format::bf16) {
    uint16_t* key_values = reinterpret_cast<uint16_t*>(keys);
    uint16_t* value_values = reinterpret_cast<uint16_t*>(values);
    for (int i = 0; i < dim; i++) key_values[key_place(slot, i, dim)] = float_to_bf16(key[i]);
    for (int i = 0; i < dim; i++) value_values[value_place(slot, i)] = float_to_bf16(value[i]);
    return;
  }
  float* scales = reinterpret_cast<float*>(values + shape_.keys_bytes());
  scales[slot] = write_integers(key, dim, keys, [&](int i) { return key_place(slot, i, dim); });
  scales[kPage + slot] = write_integers(value, dim, values, [&](int i) { return value_place(slot, i); });
}

int PagePool::take() {
  if (free_.empty()) {
    int first = int(users_.size());
    slabs_.emplace_back(kSlab * shape_.page_bytes(), false);
    users_.resize(first + kSlab, 0);
    free_.reserve(users_.size());  // giving a page back never fails
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
    for (int head = 0; head < shape_.kv_heads; head++) std::memcpy(at(to, layer, head), at(from, layer, head), shape_.head_bytes());
}

Sequence::Sequence(const Sequence& other) : pool_(other.pool_), capacity_(other.capacity_), length_(other.length_), pages_(other.pages_) {
  for (int page : pages_) pool_->share(page);
}

Sequence::Sequence(Sequence&& other) noexcept
    : pool_(other.pool_), capacity_(other.capacity_), length_(other.length_), pages_(std::move(other.pages_)) {
  other.pages_.clear();
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

}  // namespace smolvlm
