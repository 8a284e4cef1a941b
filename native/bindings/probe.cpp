// Single kernels for tests and for the roofline benchmark: the module `smolvlm.engines._native.probe`.
#include "bindings/probe.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cmath>
#include <cstring>

#include "quant/number_formats.h"
#include "simd/dispatch.h"
#include "quant/packing.h"
#include "model/work.h"
#include "runtime/kv_cache.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace smolvlm {
namespace {

using Floats = nb::ndarray<const float, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows2 = nb::ndarray<const float, nb::numpy, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Array = nb::ndarray<nb::numpy, float>;

Array make_array(std::vector<float> values, std::vector<size_t> shape) {
  auto* kept = new std::vector<float>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  return Array(kept->data(), shape.size(), shape.data(), owner);
}

struct HeldRows {
  Arena arena;
  Rows rows;
  HeldRows(const Kernels& kernels, Format weights, int count, int width) {
    plan_rows(arena, rows, weights, count, width, kernels);
    arena.allocate();
    rows = shaped_for(kernels, count, rows);
  }
  // what the integers or the rounded values stand for
  std::vector<float> values(int count, int width) const {
    std::vector<float> out(size_t(count) * width);
    for (int r = 0; r < count; r++) {
      for (int i = 0; i < width; i++) {
        const uint8_t* row = rows.data + r * rows.row_bytes();
        out[size_t(r) * width + i] = rows.format == Format::bf16
                                         ? bf16_to_float(reinterpret_cast<const uint16_t*>(row)[i])
                                         : float(reinterpret_cast<const int8_t*>(row)[i]) * rows.scales[r * rows.row_blocks() + i / kBlock];
      }
    }
    return out;
  }
};

EpilogueOp after_of(const std::string& name) {
  if (name == "store") return EpilogueOp::store;
  if (name == "store_bf16") return EpilogueOp::store_bf16;
  if (name == "add") return EpilogueOp::add;
  if (name == "gelu") return EpilogueOp::gelu;
  if (name == "swiglu") return EpilogueOp::swiglu;
  throw std::invalid_argument("after: " + name);
}

void need(bool fine, const char* what) {
  if (!fine) throw std::invalid_argument(what);
}

// The rows and columns of a matrix, within what the kernels take.
std::pair<int, int> size_of(const Rows2& x) {
  need(x.shape(0) >= 1 && x.shape(0) <= (1 << 24) && x.shape(1) >= 1 && x.shape(1) <= size_t(kMaxDepth), "a matrix is empty or too large");
  return {int(x.shape(0)), int(x.shape(1))};
}

Source source_of(const Rows2& w) { return {reinterpret_cast<const uint8_t*>(w.data()), DType::f32, int(w.shape(0)), int(w.shape(1))}; }

// x (m, k) times the rows of w (n, k), and what comes after. swiglu: w holds the gates above the ups, n/2 each.
Array product(const std::string& set, Format format, Rows2 x, Rows2 w, Floats bias, const std::string& after) {
  const Kernels& kernels = select_kernels(set);
  auto [m, k] = size_of(x);
  int n = size_of(w).first;
  EpilogueOp what = after_of(after);
  need(size_of(w).second == k && (!bias.size() || bias.size() == size_t(n)), "x, w and bias disagree");
  need(what != EpilogueOp::swiglu || n % 2 == 0, "gates and ups are not as many");
  bool pairs = what == EpilogueOp::swiglu;
  int results = pairs ? n / 2 : n;
  Heap heap;
  Packed packed = make_matrix(heap, format, pairs ? 2 * round_up(n / 2, kUnit) : n, k);
  std::vector<Source> sources = {source_of(w)};
  if (pairs) {
    sources = {source_of(w), source_of(w)};
    sources[0].rows = sources[1].rows = n / 2;
    sources[1].data += size_t(n / 2) * k * sizeof(float);
  }
  fill_panels(packed, sources, pairs, 0, packed.matrix.padded_n / kPanel);
  std::vector<float> padded_bias(packed.matrix.padded_n);
  if (bias.size()) {
    std::memcpy(padded_bias.data(), bias.data(), bias.size() * sizeof(float));
    packed.matrix.bias = padded_bias.data();
  }
  HeldRows in(kernels, format, m, k), next(kernels, format, m, results);
  for (int r = 0; r < m; r++) kernels.quantize_row(x.data() + size_t(r) * k, k, in.rows, r);
  std::vector<float> out(size_t(m) * results, what == EpilogueOp::add ? 1.0f : 0.0f);
  std::vector<uint16_t> out_bf16(size_t(m) * results);
  kernels.gemm(in.rows, packed.matrix, {what, out.data(), out_bf16.data(), size_t(results), next.rows}, 0, m, 0,
               packed.matrix.padded_n / kUnit);
  if (what == EpilogueOp::gelu || pairs) out = next.values(m, results);
  if (what == EpilogueOp::store_bf16)
    for (size_t i = 0; i < out.size(); i++) out[i] = bf16_to_float(out_bf16[i]);
  return make_array(std::move(out), {size_t(m), size_t(results)});
}

// query (rows, dim) rounded to bf16; key and value (keys, dim) as `kept` keeps them in the cache; visible (rows).
Array attend(const std::string& set, Format kept, Rows2 query, Rows2 key, Rows2 value, Ints visible, int group) {
  const Kernels& kernels = select_kernels(set);
  auto [rows, dim] = size_of(query);
  int count = size_of(key).first, padded = round_up(dim, kPanel);
  need(size_of(key).second == dim && size_of(value) == size_of(key) && visible.size() == size_t(rows),
       "query, key, value and visible disagree");
  need(dim <= kMaxHeadDim && group >= 1 && group <= kAttentionRows && rows % group == 0 && kept != Format::q4, "no such attention");
  for (int r = 0; r < rows; r++) need(visible.data()[r] >= 1 && visible.data()[r] <= count, "a row sees keys that are not there");
  int pages = (count + kPage - 1) / kPage;
  std::vector<uint16_t> q(size_t(rows) * padded);
  for (int r = 0; r < rows; r++) kernels.to_bf16(query.data() + size_t(r) * dim, dim, q.data() + size_t(r) * padded);
  PagePool pool({1, 1, padded, kept});
  std::vector<KvPage> read(pages);
  std::vector<float> padded_key(padded), padded_value(padded);
  for (int p = 0; p < pages; p++) {
    int page = pool.take();
    for (int i = p * kPage; i < std::min(count, (p + 1) * kPage); i++) {
      std::memcpy(padded_key.data(), key.data() + size_t(i) * dim, dim * sizeof(float));
      std::memcpy(padded_value.data(), value.data() + size_t(i) * dim, dim * sizeof(float));
      pool.write(page, 0, 0, i % kPage, padded_key.data(), padded_value.data());
    }
    read[p] = pool.read(page, 0, 0);
  }
  std::vector<float> out(size_t(rows) * dim);
  for (int first = 0; first < rows; first += kAttentionRows) {
    Attention task;
    task.query = q.data() + size_t(first) * padded;
    task.rows = std::min(kAttentionRows, rows - first);
    task.dim = padded;
    task.page = kPage;
    task.kept = kept;
    task.pages = read.data();
    task.visible = visible.data() + first;
    task.last = count;
    task.scale = 1.0f / std::sqrt(float(dim));
    task.out = out.data() + size_t(first) * dim;
    task.group = group;
    task.stride = size_t(group) * dim;
    task.out_dim = dim;
    kernels.attend(task);
  }
  return make_array(std::move(out), {size_t(rows), size_t(dim)});
}

// What a row of x is after packing for weights of this format.
Array pack(const std::string& set, Format format, Rows2 x) {
  const Kernels& kernels = select_kernels(set);
  auto [m, k] = size_of(x);
  HeldRows rows(kernels, format, m, k);
  for (int r = 0; r < m; r++) kernels.quantize_row(x.data() + size_t(r) * k, k, rows.rows, r);
  return make_array(rows.values(m, k), {size_t(m), size_t(k)});
}

// What a weight matrix is after packing.
Array quantized(Format format, Rows2 w) {
  auto [n, k] = size_of(w);
  std::vector<float> out(size_t(n) * k);
  for (int r = 0; r < n; r++) {
    for (int b = 0; b < k; b += kBlock) {
      float block[kBlock] = {};
      int some = std::min(kBlock, k - b);
      std::memcpy(block, w.data() + size_t(r) * k + b, some * sizeof(float));
      int8_t q[kBlock];
      float scale = format == Format::bf16 ? 1.0f : half_to_float(format == Format::q8 ? quantize_q8(block, q) : quantize_q4(block, q));
      for (int i = 0; i < some; i++)
        out[size_t(r) * k + b + i] = format == Format::bf16 ? bf16_to_float(float_to_bf16(block[i])) : float(q[i]) * scale;
    }
  }
  return make_array(std::move(out), {size_t(n), size_t(k)});
}

Array norm(const std::string& set, Rows2 x, Floats weight, Floats bias, float eps) {
  const Kernels& kernels = select_kernels(set);
  auto [m, n] = size_of(x);
  need(weight.size() == size_t(n) && (!bias.size() || bias.size() == size_t(n)), "x, weight and bias disagree");
  std::vector<float> out(size_t(m) * n);
  for (int r = 0; r < m; r++) {
    if (bias.size()) kernels.layer_norm(x.data() + size_t(r) * n, weight.data(), bias.data(), n, eps, out.data() + size_t(r) * n);
    else kernels.rms_norm(x.data() + size_t(r) * n, weight.data(), n, eps, out.data() + size_t(r) * n);
  }
  return make_array(std::move(out), {size_t(m), size_t(n)});
}

Array rope(const std::string& set, Rows2 x, Floats cos, Floats sin) {
  const Kernels& kernels = select_kernels(set);
  auto [m, n] = size_of(x);
  need(cos.size() >= size_t(n / 2) && sin.size() >= size_t(n / 2), "x, cos and sin disagree");
  std::vector<float> out(x.data(), x.data() + x.size());
  for (int r = 0; r < m; r++) kernels.rope(out.data() + size_t(r) * n, cos.data(), sin.data(), n);
  return make_array(std::move(out), {size_t(m), size_t(n)});
}

// Seconds of one product of m rows, the shortest of `repeats`, on `threads` threads; `copies` matrices take turns, so that
// small ones come from memory as they do between the layers of a model.
double time_product(const std::string& set, Format format, int m, int n, int k, int threads, int copies, int repeats) {
  const Kernels& kernels = select_kernels(set);
  for (int count : {m, n, copies, repeats}) need(count >= 1 && count <= (1 << 24), "a count is below 1 or too large");
  need(k >= 1 && k <= kMaxDepth && threads >= 1 && threads <= 1024, "k or threads are below 1 or too large");
  ThreadPool pool(threads);
  pool.start();
  Heap heap;
  std::vector<Packed> weights;
  for (int i = 0; i < copies; i++) {
    weights.push_back(make_matrix(heap, format, n, k));
    uint8_t* data = weights[i].data;
    size_t bytes = weights[i].matrix.panel_bytes() * (weights[i].matrix.padded_n / kPanel);
    for (size_t j = 0; j < bytes; j++) data[j] = uint8_t(j * 7);
    if (format == Format::bf16)
      for (size_t j = 1; j < bytes; j += 2) data[j] = 0x3c;
  }
  HeldRows in(kernels, format, m, k);
  std::vector<float> x(k, 0.5f), out(size_t(m) * n);
  for (int r = 0; r < m; r++) kernels.quantize_row(x.data(), k, in.rows, r);
  double best = 1e9;
  for (int r = 0; r < repeats; r++) {
    auto start = std::chrono::steady_clock::now();
    for (Packed& w : weights) parallel_gemm(pool, kernels, in.rows, m, w.matrix, {EpilogueOp::store, out.data(), nullptr, size_t(n), {}});
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / copies);
  }
  return best;
}

}  // namespace

void bind_probe(nb::module_& m, Format (*format_of)(const std::string&)) {
  m.doc() = "Single kernels, for tests and benchmarks.";
  m.def("product", [=](const std::string& set, const std::string& format, Rows2 x, Rows2 w, Floats bias, const std::string& after) {
    return product(set, format_of(format), x, w, bias, after);
  });
  m.def("attend", [=](const std::string& set, const std::string& kept, Rows2 query, Rows2 key, Rows2 value, Ints visible, int group) {
    return attend(set, format_of(kept), query, key, value, visible, group);
  });
  m.def("pack", [=](const std::string& set, const std::string& format, Rows2 x) { return pack(set, format_of(format), x); });
  m.def("quantised", [=](const std::string& format, Rows2 w) { return quantized(format_of(format), w); });
  m.def("norm", &norm);
  m.def("rotate", &rope);
  m.def("time_product", [=](const std::string& set, const std::string& format, int m, int n, int k, int threads, int copies, int repeats) {
    nb::gil_scoped_release unlocked;
    return time_product(set, format_of(format), m, n, k, threads, copies, repeats);
  });
}

}  // namespace smolvlm
