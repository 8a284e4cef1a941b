#include "vision.h"

#include <cmath>
#include <cstring>

#include "quant/number_formats.h"

namespace smolvlm {

std::vector<int> position_ids(int side) {
  std::vector<float> boundaries;  // 1/side, 2/side, ... below 1, each rounded once, as torch.arange computes them
  double step = 1.0 / side;
  int count = int(std::ceil((1.0 - step) / step));
  for (int i = 0; i < count; i++) boundaries.push_back(float(step + i * step));
  std::vector<int> bucket(side), ids(side * side);
  float one = 1.0f / float(side);
  for (int i = 0; i < side; i++) {
    float fraction = std::min(float(i) * one, 1.0f - 1e-6f);
    bucket[i] = int(std::upper_bound(boundaries.begin(), boundaries.end(), fraction) - boundaries.begin());
  }
  for (int y = 0; y < side; y++)
    for (int x = 0; x < side; x++) ids[y * side + x] = bucket[y] * side + bucket[x];
  return ids;
}

VisionTower::VisionTower(const Shape& shape, const Weights& weights, const Kernels& kernels, ThreadPool& threads)
    : shape_(shape), weights_(weights), kernels_(kernels), threads_(threads) {
  const VisionShape& v = shape.vision;
  Format format = weights.formats().vision;
  patches_ = v.patches();
  dim_ = v.dim;
  head_dim_ = v.head_dim();
  padded_head_ = round_up(head_dim_, kPanel);
  page_ = std::min(kKeys, round_up(patches_, kHeadPart));
  pages_ = (patches_ + page_ - 1) / page_;
  integers_ = format == Format::q8 && kernels.attend_int8;
  size_t tokens = size_t(v.heads) * pages_ * page_, value = integers_ ? 1 : 2;
  plan_rows(arena_, patch_rows_, format, patches_, 3 * v.patch * v.patch, kernels, true);
  plan_rows(arena_, rows_, format, patches_, dim_, kernels, true);
  plan_rows(arena_, inter_rows_, format, patches_, v.inter, kernels, true);
  plan_rows(arena_, folded_rows_, format, shape.image_tokens(), shape.folded_dim(), kernels, true);
  arena_.plan(x_, size_t(patches_) * dim_);
  arena_.plan(attended_, size_t(patches_) * dim_);
  arena_.plan(scratch_, size_t(threads.size()) * std::max({dim_, 3 * v.patch * v.patch, shape.folded_dim()}));
  arena_.plan(qkv_, size_t(patches_) * 3 * dim_);
  arena_.plan(query_, tokens * padded_head_ * value);
  arena_.plan(keys_, tokens * padded_head_ * value);
  arena_.plan(values_, tokens * padded_head_ * value);
  if (integers_) {
    arena_.plan(query_scales_, tokens);
    arena_.plan(key_scales_, tokens);
    arena_.plan(value_scales_, tokens / kHeadPart * padded_head_);
    arena_.plan(query_negsums_, tokens);
  }
  arena_.allocate();
  for (Rows* rows : {&patch_rows_, &rows_, &inter_rows_}) *rows = shaped_for(kernels, patches_, *rows);
  folded_rows_ = shaped_for(kernels, shape.image_tokens(), folded_rows_);
  positions_ = position_ids(v.side());
  visible_.assign(kAttentionRows, patches_);
  for (int i = 0; i < v.heads && !integers_; i++) {
    Head head = head_at(i);
    for (int page = 0; page < pages_; page++) {
      size_t at = size_t(page) * page_ * padded_head_ * value;
      kv_pages_.push_back({head.keys + at, head.values + at, nullptr, nullptr});
    }
  }
}

// Patches as rows in the order of the convolution's weights (channel, y, x), then their embedding and position.
void VisionTower::embed(const float* pixels) {
  const VisionShape& v = shape_.vision;
  int side = v.side(), patch = v.patch, inputs = 3 * patch * patch;
  threads_.parallel_for(patches_, 16, [&](int i, int) {
    thread_local std::vector<float> row;
    row.resize(inputs);
    for (int c = 0; c < 3; c++)
      for (int y = 0; y < patch; y++)
        std::memcpy(row.data() + (c * patch + y) * patch,
                    pixels + (size_t(c) * v.image + i / side * patch + y) * v.image + i % side * patch, patch * sizeof(float));
    kernels_.quantize_row(row.data(), inputs, patch_rows_, i);
    std::memcpy(x_ + size_t(i) * dim_, weights_.positions + size_t(positions_[i]) * dim_, dim_ * sizeof(float));
  });
  parallel_gemm(threads_, kernels_, patch_rows_, patches_, weights_.patch, {EpilogueOp::add, x_, nullptr, size_t(dim_), {}});
}

// One head of the rounded projections, and where attention reads it.
Head VisionTower::head_at(int head) const {
  size_t token = size_t(head) * pages_ * page_, at = token * padded_head_ * (integers_ ? 1 : 2);
  Head out;
  out.from = qkv_ + head * head_dim_, out.stride = 3 * size_t(dim_), out.apart = dim_;
  out.tokens = patches_, out.dim = head_dim_, out.padded = padded_head_, out.page = page_;
  out.query = query_ + at, out.keys = keys_ + at, out.values = values_ + at;
  if (integers_) {
    out.query_scales = query_scales_ + token, out.query_neg_sums = query_negsums_ + token;
    out.key_scales = key_scales_ + token, out.value_scales = value_scales_ + token / kHeadPart * padded_head_;
  }
  return out;
}

void VisionTower::attention(const VisionLayer& layer) {
  const VisionShape& v = shape_.vision;
  parallel_gemm(threads_, kernels_, rows_, patches_, layer.qkv, {EpilogueOp::store_bf16, nullptr, qkv_, 3 * size_t(dim_), {}});
  int parts = (patches_ + kHeadPart - 1) / kHeadPart;
  threads_.parallel_for(v.heads * parts, 1, [&](int i, int) {
    int first = i % parts * kHeadPart;
    (integers_ ? kernels_.pack_head_int8 : kernels_.pack_head)(head_at(i / parts), first, std::min(first + kHeadPart, patches_));
  });
  int blocks = (patches_ + kAttentionRows - 1) / kAttentionRows;
  threads_.parallel_for(v.heads * blocks, 1, [&](int i, int) {
    int head = i / blocks, first = i % blocks * kAttentionRows, rows = std::min(kAttentionRows, patches_ - first);
    float* out = attended_ + size_t(first) * dim_ + head * head_dim_;
    float scale = 1.0f / std::sqrt(float(head_dim_));
    if (integers_) return kernels_.attend_int8(head_at(head), first, rows, scale, out, dim_);
    Attention task;
    task.query = reinterpret_cast<const uint16_t*>(head_at(head).query) + size_t(first) * padded_head_;
    task.rows = rows;
    task.dim = padded_head_;
    task.page = page_;
    task.pages = kv_pages_.data() + head * pages_;
    task.visible = visible_.data();
    task.last = patches_;
    task.scale = scale;
    task.out = out;
    task.stride = dim_;
    task.out_dim = head_dim_;
    kernels_.attend(task);
  });
  threads_.parallel_for(patches_, 16, [&](int i, int) { kernels_.quantize_row(attended_ + size_t(i) * dim_, dim_, rows_, i); });
  parallel_gemm(threads_, kernels_, rows_, patches_, layer.out, {EpilogueOp::add, x_, nullptr, size_t(dim_), {}});
}

// An image token is a block of r x r patches side by side, the row varying slowest (arXiv 2504.05299).
void VisionTower::fold(int token, float* row) const {
  int r = shape_.scale_factor, across = shape_.folded_side(), side = shape_.vision.side();
  int y = token / across * r, x = token % across * r;
  for (int i = 0; i < r * r; i++) {
    const float* patch = x_ + size_t((y + i / r) * side + x + i % r) * dim_;
    kernels_.layer_norm(patch, weights_.post_weight, weights_.post_bias, dim_, shape_.vision.eps, row + i * dim_);
  }
}

bool VisionTower::encode(const float* pixels, float* out, const std::function<bool()>& stop) {
  const VisionShape& v = shape_.vision;
  auto scratch_of = [&](int thread) { return scratch_ + size_t(thread) * std::max({dim_, 3 * v.patch * v.patch, shape_.folded_dim()}); };
  auto normalize = [&](const float* weight, const float* bias) {
    threads_.parallel_for(patches_, 16, [&](int i, int thread) {
      kernels_.layer_norm(x_ + size_t(i) * dim_, weight, bias, dim_, v.eps, scratch_of(thread));
      kernels_.quantize_row(scratch_of(thread), dim_, rows_, i);
    });
  };
  embed(pixels);
  for (const VisionLayer& layer : weights_.vision) {
    if (stop()) return false;
    normalize(layer.norm1_weight, layer.norm1_bias);
    attention(layer);
    normalize(layer.norm2_weight, layer.norm2_bias);
    parallel_gemm(threads_, kernels_, rows_, patches_, layer.fc1, {EpilogueOp::gelu, nullptr, nullptr, 0, inter_rows_});
    parallel_gemm(threads_, kernels_, inter_rows_, patches_, layer.fc2, {EpilogueOp::add, x_, nullptr, size_t(dim_), {}});
  }
  threads_.parallel_for(shape_.image_tokens(), 1, [&](int i, int thread) {
    fold(i, scratch_of(thread));
    kernels_.quantize_row(scratch_of(thread), shape_.folded_dim(), folded_rows_, i);
  });
  parallel_gemm(threads_, kernels_, folded_rows_, shape_.image_tokens(), weights_.connector,
                {EpilogueOp::store, out, nullptr, size_t(shape_.text.dim), {}});
  return true;
}

}  // namespace smolvlm
