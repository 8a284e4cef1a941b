#include "text.h"

#include <cmath>
#include <cstring>

namespace smolvlm {
namespace {

constexpr int kSmall = 2;  // rows that every thread prepares for itself: cheaper than a barrier

// Keys that one task of a lone token reads. Up to so many, a token gets the same bits decoded as in a prompt that is read at once.
constexpr int kSplitKeys = 8 * kPage;
int kv_splits_of(int keys) { return (keys + kSplitKeys - 1) / kSplitKeys; }

}  // namespace

TextTower::TextTower(const Shape& shape, const Weights& weights, const Kernels& kernels, ThreadPool& threads, PagePool& pool)
    : shape_(shape), weights_(weights), kernels_(kernels), threads_(threads), pool_(pool) {
  const TextShape& t = shape.text;
  Format format = weights.formats().text;
  dim_ = t.dim;
  head_dim_ = t.head_dim;
  padded_head_ = round_up(head_dim_, kPanel);
  group_ = t.group();
  int attended = t.heads * head_dim_;
  own_rows_.resize(threads.size());
  for (Rows& own : own_rows_) plan_rows(arena_, own, format, kSmall, dim_, kernels);
  plan_rows(arena_, rows_, format, kRows, dim_, kernels);
  plan_rows(arena_, head_rows_, weights.formats().head, kRows, dim_, kernels);
  plan_rows(arena_, attended_rows_, format, kRows, attended, kernels);
  plan_rows(arena_, inter_rows_, format, kRows, t.inter, kernels);
  arena_.plan(x_, size_t(kRows) * dim_);
  arena_.plan(qkv_, size_t(kRows) * t.qkv());
  arena_.plan(attended_, size_t(kRows) * attended);
  arena_.plan(scratch_, size_t(threads.size()) * dim_);
  arena_.plan(query_, size_t(t.kv_heads) * kRows * group_ * padded_head_);
  max_parts_ = kSegments * kv_splits_of(t.positions);
  size_t parts = size_t(max_parts_) * t.heads;
  arena_.plan(parts_, parts * head_dim_);
  arena_.plan(part_max_, parts);
  arena_.plan(part_sum_, parts);
  arena_.plan(cos_, size_t(t.positions) * (head_dim_ / 2));
  arena_.plan(sin_, size_t(t.positions) * (head_dim_ / 2));
  arena_.allocate();
  for (int i = 0; i < head_dim_ / 2; i++) {  // float32 angles, as in the reference
    float frequency = float(1.0 / std::pow(float(t.rope_theta), float(2 * i) / float(head_dim_)));
    for (int position = 0; position < t.positions; position++) {
      float angle = float(position) * frequency;
      cos_[size_t(position) * (head_dim_ / 2) + i] = float(std::cos(double(angle)));
      sin_[size_t(position) * (head_dim_ / 2) + i] = float(std::sin(double(angle)));
    }
  }
  int pages = (t.positions + kPage - 1) / kPage;
  read_.resize(threads.size());
  visible_.resize(threads.size());
  for (int i = 0; i < threads.size(); i++) {
    read_[i].resize(pages);
    visible_[i].resize(kAttentionRows);
  }
  for (auto* list : {&row_segment_, &row_position_, &row_id_, &row_parts_, &row_first_part_, &wanted_}) list->reserve(kRows);
  row_image_.reserve(kRows);
  tasks_.reserve(size_t(kRows + max_parts_) * t.kv_heads);
}

// Who is which row, and what attention has to do. A lone token's keys are cut into parts, so that all threads can help.
void TextTower::plan(const std::vector<Segment>& segments) {
  segments_ = &segments;
  for (auto* list : {&row_segment_, &row_position_, &row_id_, &row_parts_, &row_first_part_, &wanted_}) list->clear();
  row_image_.clear();
  tasks_.clear();
  int parts = 0, row = 0;
  for (size_t s = 0; s < segments.size(); s++) {
    const Segment& segment = segments[s];
    int start = segment.sequence->length(), image = 0, total = start + segment.count;
    int pieces = kv_splits_of(total);
    bool cut = segment.count == 1 && pieces > 1;
    for (int i = 0; i < segment.count; i++) {
      bool is_image = segment.ids[i] == shape_.image_token && segment.images;
      row_segment_.push_back(int(s));
      row_position_.push_back(start + i);
      row_id_.push_back(segment.ids[i]);
      row_image_.push_back(is_image ? segment.images + size_t(image++) * dim_ : nullptr);
      row_parts_.push_back(cut ? pieces : 0);
      row_first_part_.push_back(parts);
      if (i >= segment.count - segment.kept) wanted_.push_back(row + i);
    }
    int block = kAttentionRows / group_;
    for (int head = 0; head < shape_.text.kv_heads; head++) {
      if (cut) {
        for (int p = 0; p < pieces; p++)
          tasks_.push_back({int(s), row, 1, head, p * kSplitKeys, std::min((p + 1) * kSplitKeys, total), parts + p});
      } else {
        for (int i = 0; i < segment.count; i += block) {
          int positions = std::min(block, segment.count - i);
          tasks_.push_back({int(s), row + i, positions, head, 0, start + i + positions, -1});
        }
      }
    }
    if (cut) parts += pieces;
    row += segment.count;
  }
  count_ = row;
  // the longest first: whoever is free last then has little left
  std::stable_sort(tasks_.begin(), tasks_.end(), [](const Task& a, const Task& b) {
    return int64_t(a.last_key - a.first_key) * a.positions > int64_t(b.last_key - b.first_key) * b.positions;
  });
}

void TextTower::embed(int row) {
  float* x = x_ + size_t(row) * dim_;
  if (row_image_[row]) std::memcpy(x, row_image_[row], dim_ * sizeof(float));
  else kernels_.from_bf16(weights_.embedding + size_t(row_id_[row]) * dim_, dim_, x);
}

// Rotates a key head and the query heads that share it; the key and the value go to the cache.
void TextTower::rope_and_append(int layer, int row, int kv_head) {
  const TextShape& t = shape_.text;
  int position = row_position_[row], slot = position % kPage;
  int page = (*segments_)[row_segment_[row]].sequence->pages()[position / kPage];
  const float *cos = cos_ + size_t(position) * (head_dim_ / 2), *sin = sin_ + size_t(position) * (head_dim_ / 2);
  float* qkv = qkv_ + size_t(row) * t.qkv();
  float padded_key[kMaxHeadDim] = {}, padded_value[kMaxHeadDim] = {};
  for (int g = 0; g < group_; g++) {
    float* query = qkv + (kv_head * group_ + g) * head_dim_;
    kernels_.rope(query, cos, sin, head_dim_);
    kernels_.to_bf16(query, head_dim_, query_ + ((size_t(kv_head) * kRows + row) * group_ + g) * padded_head_);
  }
  float* key = qkv + (t.heads + kv_head) * head_dim_;
  kernels_.rope(key, cos, sin, head_dim_);
  const float* value = qkv + (t.heads + t.kv_heads + kv_head) * head_dim_;
  if (head_dim_ != padded_head_) {
    std::memcpy(padded_key, key, head_dim_ * sizeof(float));
    std::memcpy(padded_value, value, head_dim_ * sizeof(float));
    pool_.write(page, layer, kv_head, slot, padded_key, padded_value);
  } else {
    pool_.write(page, layer, kv_head, slot, key, value);
  }
}

void TextTower::attend(int layer, const Task& task, int thread) {
  const std::vector<int>& pages = (*segments_)[task.segment].sequence->pages();
  std::vector<KvPage>& read = read_[thread];
  for (int page = task.first_key / kPage; page * kPage < task.last_key; page++) read[page] = pool_.read(pages[page], layer, task.kv_head);
  int* visible = visible_[thread].data();
  for (int i = 0; i < task.positions * group_; i++) visible[i] = row_position_[task.first_row + i / group_] + 1;
  Attention a;
  a.query = query_ + (size_t(task.kv_head) * kRows + task.first_row) * group_ * padded_head_;
  a.rows = task.positions * group_;
  a.dim = padded_head_;
  a.page = kPage;
  a.kept = pool_.shape().kept;
  a.pages = read.data();
  a.visible = visible;
  a.first = task.first_key;
  a.last = task.last_key;
  a.scale = 1.0f / std::sqrt(float(head_dim_));
  a.group = group_;
  a.out_dim = head_dim_;
  int heads = shape_.text.heads, first_head = task.kv_head * group_;
  if (task.partial < 0) {
    a.out = attended_ + size_t(task.first_row) * heads * head_dim_ + first_head * head_dim_;
    a.stride = size_t(heads) * head_dim_;
  } else {
    size_t at = size_t(task.partial) * heads + first_head;
    a.partial = true;
    a.out = parts_ + at * head_dim_;
    a.max = part_max_ + at;
    a.sum = part_sum_ + at;
  }
  kernels_.attend(a);
}

// The parts of a row's attention, weighed against each other.
void TextTower::merge_kv_splits(int row) {
  int parts = row_parts_[row], heads = shape_.text.heads;
  for (int head = 0; head < heads && parts; head++) {
    size_t first = size_t(row_first_part_[row]) * heads + head;
    float largest = -INFINITY, sum = 0;
    for (int p = 0; p < parts; p++) largest = std::max(largest, part_max_[first + p * heads]);
    float* out = attended_ + (size_t(row) * heads + head) * head_dim_;
    std::memset(out, 0, head_dim_ * sizeof(float));
    for (int p = 0; p < parts; p++) {
      float weight = std::exp(part_max_[first + p * heads] - largest);
      sum += weight * part_sum_[first + p * heads];
      const float* part = parts_ + (first + p * heads) * head_dim_;
      for (int i = 0; i < head_dim_; i++) out[i] += weight * part[i];
    }
    for (int i = 0; i < head_dim_; i++) out[i] /= sum;
  }
}

// The rows of this pass, each made by `make(row, thread)`, times `w`. A thread makes few rows for itself; many are shared.
template <class Make>
void TextTower::project(const Make& make, const Matrix& w, const Epilogue& to) {
  auto pack = [&](const Rows& rows, int row, int thread) { kernels_.quantize_row(make(row, thread), dim_, rows, row); };
  if (count_ <= kSmall) {
    auto begin = [&](int thread) {
      for (int row = 0; row < count_; row++) pack(own_rows_[thread], row, thread);
    };
    parallel_gemm(threads_, kernels_, [&](int thread) -> const Rows& { return own_rows_[thread]; }, count_, w, to, begin);
    return;
  }
  const Rows rows = shaped_for(kernels_, count_, rows_);
  threads_.parallel_for(count_, 8, [&](int row, int thread) { pack(rows, row, thread); });
  parallel_gemm(threads_, kernels_, rows, count_, w, to);
}

bool TextTower::forward(const std::vector<Segment>& segments, Output output, float* out, const std::function<bool()>& stop) {
  const TextShape& t = shape_.text;
  plan(segments);
  int attended = t.heads * head_dim_, wanted = int(wanted_.size());
  const Rows attended_rows = shaped_for(kernels_, count_, attended_rows_), inter_rows = shaped_for(kernels_, count_, inter_rows_),
             head_rows = shaped_for(kernels_, wanted, head_rows_);
  auto normalized = [&](const float* weight) {
    return [&, weight](int row, int thread) {
      float* scratch = scratch_ + size_t(thread) * dim_;
      kernels_.rms_norm(x_ + size_t(row) * dim_, weight, dim_, t.eps, scratch);
      return static_cast<const float*>(scratch);
    };
  };
  threads_.parallel_for(count_, 8, [&](int row, int) { embed(row); });
  for (int layer = 0; layer < t.layers; layer++) {
    const TextLayer& w = weights_.text[layer];
    if (stop()) return false;
    project(normalized(w.norm1), w.qkv, {EpilogueOp::store, qkv_, nullptr, size_t(t.qkv()), {}});
    threads_.parallel_for(count_ * t.kv_heads, count_ > kSmall ? 16 : 1,
                          [&](int i, int) { rope_and_append(layer, i / t.kv_heads, i % t.kv_heads); });
    threads_.parallel_for(int(tasks_.size()), 1, [&](int i, int thread) { attend(layer, tasks_[i], thread); });
    threads_.parallel_for(count_, 1, [&](int row, int) {
      merge_kv_splits(row);
      kernels_.quantize_row(attended_ + size_t(row) * attended, attended, attended_rows, row);
    });
    parallel_gemm(threads_, kernels_, attended_rows, count_, w.out, {EpilogueOp::add, x_, nullptr, size_t(dim_), {}});
    project(normalized(w.norm2), w.gate_up, {EpilogueOp::swiglu, nullptr, nullptr, 0, inter_rows});
    parallel_gemm(threads_, kernels_, inter_rows, count_, w.down, {EpilogueOp::add, x_, nullptr, size_t(dim_), {}});
  }
  if (!wanted) return true;
  if (output == Output::hidden) {
    threads_.parallel_for(wanted, 8, [&](int i, int) {
      kernels_.rms_norm(x_ + size_t(wanted_[i]) * dim_, weights_.norm, dim_, t.eps, out + size_t(i) * dim_);
    });
    return true;
  }
  auto make = normalized(weights_.norm);
  threads_.parallel_for(wanted, 8, [&](int i, int thread) { kernels_.quantize_row(make(wanted_[i], thread), dim_, head_rows, i); });
  parallel_gemm(threads_, kernels_, head_rows, wanted, weights_.head, {EpilogueOp::store, out, nullptr, size_t(t.vocab), {}});
  return true;
}

}  // namespace smolvlm
