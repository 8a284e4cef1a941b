// Memory that kernels read: aligned, zeroed, in large pages where the system has them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace smolvlm {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes, bool large_pages = true) : bytes_(bytes) {
    if (!bytes) return;
    data_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) {
      data_ = nullptr;
      throw std::bad_alloc();
    }
#ifdef MADV_HUGEPAGE
    if (large_pages && bytes >= kHuge) ::madvise(data_, bytes, MADV_HUGEPAGE);
#endif
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_) ::munmap(data_, bytes_);
  }

  template <class T = uint8_t>
  T* as(size_t offset_bytes = 0) const {
    return reinterpret_cast<T*>(static_cast<uint8_t*>(data_) + offset_bytes);
  }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kHuge = size_t(4) << 20;

  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Pieces that stay as long as the heap, side by side: a large page holds many small matrices, so that reading all of them for
// each token looks up few addresses.
class Heap {
 public:
  // Room for `count` zeros.
  template <class T>
  T* take(size_t count) {
    size_t bytes = (count * sizeof(T) + kApart - 1) / kApart * kApart;
    if (bytes > left_) {
      size_t size = std::max(kChunk, bytes);
      chunks_.emplace_back(size + kLarge);
      left_ = size;
      size_t beyond = reinterpret_cast<uintptr_t>(chunks_.back().as<uint8_t>()) % kLarge;
      next_ = chunks_.back().as<uint8_t>(beyond ? kLarge - beyond : 0);
    }
    uint8_t* piece = next_;
    next_ += bytes;
    left_ -= bytes;
    bytes_ += bytes;
    return reinterpret_cast<T*>(piece);
  }
  size_t bytes() const { return bytes_; }  // that were taken; real memory is in use for these alone

 private:
  static constexpr size_t kApart = 128, kLarge = size_t(2) << 20, kChunk = size_t(64) << 20;

  std::vector<Buffer> chunks_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0, bytes_ = 0;
};

// Hands out pieces of one buffer. Ask for everything with `plan`, then call `allocate`: nothing is allocated later.
class Arena {
 public:
  // Room for `count` values; `place` points to them after `allocate`.
  template <class T>
  void plan(T*& place, size_t count) {
    size_t at = used_;
    used_ += (count * sizeof(T) + 127) / 128 * 128;  // two cache lines: processors fetch them in pairs
    pieces_.push_back({reinterpret_cast<void**>(&place), at});
  }
  void allocate() {
    buffer_ = Buffer(used_);
    for (const Piece& piece : pieces_) *piece.place = buffer_.as<uint8_t>(piece.at);
  }
  size_t bytes() const { return used_; }

 private:
  struct Piece {
    void** place;
    size_t at;
  };

  std::vector<Piece> pieces_;
  size_t used_ = 0;
  Buffer buffer_;
};

}  // namespace smolvlm
