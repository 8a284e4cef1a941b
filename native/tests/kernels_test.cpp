// Every kernel of every instruction set that can run here against plain loops in double precision. Needs no Python, so that a
// cross-built program can run in an emulator:  kernels_test [instruction set]...
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "simd/dispatch.h"
#include "quant/packing.h"
#include "runtime/kv_cache.h"

namespace smolvlm {
namespace {

// What weights (n, k) are once rounded for `format`.
Doubles rounded(Format format, bool grouped, const Floats& w, int n, int k) {
  Doubles out(w.size());
  int wide = (grouped ? group_of(format, k) : 1) * kBlock;
  for (int row = 0; row < n; row++) {
    for (int at = 0; at < k; at += wide) {
      float block[kMostGroup * kBlock] = {};
      int some = std::min(wide, k - at);
      size_t first = size_t(row) * k + at;
      std::memcpy(block, &w[first], some * sizeof(float));
      int8_t q[kMostGroup * kBlock];
      double scale = 0;
      if (format != Format::bf16) scale = half_to_float(format == Format::q8 ? quantize_q8(block, q, wide) : quantize_q4(block, q));
      for (int i = 0; i < some; i++)
        out[first + i] = format == Format::bf16 ? double(bf16_to_float(float_to_bf16(block[i]))) : q[i] * scale;
    }
  }
  return out;
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double silu(double x) { return x / (1 + std::exp(-x)); }

// Compares a row that became the next product's activations: rounded to bf16, or to 8 bits of the largest value
// of its block or group.
void compare_packed(Check& check, const Activations& next, int row, const Doubles& expected, const Doubles& error) {
  int wide = next.rows.group * kBlock;
  for (int i = 0; i < next.rows.width; i++) {
    double largest = 0;
    for (int j = i / wide * wide; j < (i / wide + 1) * wide && j < int(expected.size()); j++)
      largest = std::max(largest, std::fabs(expected[j]) + error[j]);
    double value = i < int(expected.size()) ? expected[i] : 0.0, slack = i < int(expected.size()) ? error[i] : 0.0;
    double step = next.rows.format == Format::bf16 ? (std::fabs(value) + slack) / 256 : largest / 254 * 1.0001;
    check.close(next.at(row, i), value, step + slack + 1e-30);
  }
}

struct Product {
  int m, n, k;
  Format format;
  EpilogueOp after;
  bool grouped;
};

// Product (m, k) x (n, k), in four calls that share out rows and units, as threads do. `wide`: bf16 rows for any weights.
void check_product(Check& check, const Kernels& kernels, const Product& job, bool wide) {
  auto [m, n, k, format, after, grouped] = job;
  bool pairs = after == EpilogueOp::swiglu;
  int results = pairs ? n / 2 : n, padded = pairs ? 2 * round_up(n / 2, kUnit) : n;
  Floats x = random_floats(size_t(m) * k, 1), w = random_floats(size_t(n) * k, 2, 0.1f), bias = random_floats(round_up(n, kUnit), 3);
  for (int i = 0; i < k; i++) x[i] *= i == k / 2 ? 1000.0f : 1.0f;  // an outlier
  if (k > kBlock) std::fill(w.begin(), w.begin() + kBlock, 0.0f);   // and a block of nothing
  Heap heap;
  Packed packed = make_matrix(heap, format, padded, k, grouped);
  Source all = {reinterpret_cast<const uint8_t*>(w.data()), DType::f32, n, k}, ups = all;
  if (pairs) all.rows = ups.rows = n / 2, ups.data += size_t(n / 2) * k * sizeof(float);
  fill_panels(packed, pairs ? std::vector<Source>{all, ups} : std::vector<Source>{all}, pairs, 0, packed.matrix.padded_n / kPanel);
  if (pairs) std::fill(bias.begin(), bias.end(), 0.0f);
  for (int i = n; i < round_up(n, kUnit); i++) bias[i] = 0;
  if (!pairs) packed.matrix.bias = bias.data();

  Format kept = format == Format::bf16 || wide ? Format::bf16 : Format::q8;
  Activations in(kept, m, k, grouped), next(kept, m, results, grouped);
  check.same(packed.matrix.group, grouped ? round_up(k, kBlock) / kBlock % 8 == 0 ? 8 : 4 : 1);
  check.same(grouped ? group_in(packed.matrix) : 1, packed.matrix.group);
  for (int row = 0; row < m; row++) kernels.quantize_row(&x[size_t(row) * k], k, in.rows, row);
  size_t stride = results + 3;
  Floats out(m * stride, kUntouched);
  std::vector<uint16_t> out_bf16(m * stride, float_to_bf16(kUntouched));
  if (after == EpilogueOp::add)
    for (int row = 0; row < m; row++) std::fill_n(&out[row * stride], n, 1.0f);
  Epilogue to = {after, out.data(), out_bf16.data(), stride, next.rows};
  int units = packed.matrix.padded_n / kUnit, half = units / 2 / to.units() * to.units(), middle = wide ? 0 : m / 3;
  for (auto [m0, m1] : {std::pair(0, middle), std::pair(middle, m)})
    for (auto [u0, u1] : {std::pair(0, half), std::pair(half, units)}) kernels.gemm(in.rows, packed.matrix, to, m0, m1, u0, u1);

  Doubles weights = rounded(format, grouped, w, n, k);
  for (int row = 0; row < m; row++) {
    Doubles sums(n), errors(n), read(k);
    for (int i = 0; i < k; i++) read[i] = in.at(row, i);
    for (int o = 0; o < n; o++) {
      double sum = bias[o], size = std::fabs(sum);
      for (int i = 0; i < k; i++) {
        double product = read[i] * weights[size_t(o) * k + i];
        sum += product, size += std::fabs(product);
      }
      // the rounding errors of a float32 sum grow with the root of its length; wide rows round the weights too
      sums[o] = sum, errors[o] = size * (wide ? 0x1p-8 : 0x1p-23 * (8 + std::sqrt(k))) + 1e-6;
    }
    if (after == EpilogueOp::gelu || pairs) {
      Doubles expected(results), error(results);
      for (int i = 0; i < results; i++) {
        double up = pairs ? sums[results + i] : 1, gate = pairs ? silu(sums[i]) : gelu(sums[i]);
        expected[i] = gate * up;
        error[i] = errors[i] * 1.2 * std::fabs(up) + (pairs ? std::fabs(gate) * errors[results + i] : 0) + 1e-6;  // slopes are below 1.2
      }
      compare_packed(check, next, row, expected, error);
      continue;
    }
    for (int i = 0; i < int(stride); i++) {
      float got = after == EpilogueOp::store_bf16 ? bf16_to_float(out_bf16[row * stride + i]) : out[row * stride + i];
      if (i >= n) check.same(got, after == EpilogueOp::store_bf16 ? bf16_to_float(float_to_bf16(kUntouched)) : kUntouched);
      else if (after == EpilogueOp::store) check.close(got, sums[i], errors[i]);
      else if (after == EpilogueOp::add) check.close(got, sums[i] + 1, errors[i] + std::fabs(sums[i]) * 0x1p-23);
      else check.close(got, sums[i], errors[i] + std::fabs(sums[i]) / 256);
    }
  }
}

bool check_products(const Kernels& kernels) {
  constexpr int kShapes[][3] = {{1, 32, 32}, {2, 33, 40}, {3, 50, 70}, {13, 96, 100}, {41, 66, 577}, {5, 34, 1536}};
  constexpr const char* kFormats[] = {"bf16", "q8", "q4"};
  constexpr const char* kAfter[] = {"store", "store_bf16", "add", "gelu", "swiglu"};
  bool right = true;
  for (int format = 0; format < 3; format++) {
    for (int after = 0; after < 5; after++) {
      Check check(kernels, std::string(kFormats[format]) + " " + kAfter[after]);
      for (auto [m, n, k] : kShapes)
        check_product(check, kernels, {m, n, k, Format(format), EpilogueOp(after), false}, kernels.wide_rows && m >= kernels.wide_rows);
      right &= check.finish();
    }
  }
  constexpr int kGrouped[][3] = {{1, 128, 128}, {3, 256, 384}, {13, 128, 768}, {41, 384, 97}, {7, 256, 2048}};
  for (int after = 0; after < 4; after++) {
    Check check(kernels, std::string("grouped q8 ") + kAfter[after]);
    for (auto [m, n, k] : kGrouped)
      check_product(check, kernels, {m, n, k, Format::q8, EpilogueOp(after), true}, kernels.wide_rows && m >= kernels.wide_rows);
    right &= check.finish();
  }
  return right;
}

// One head's rows over pages whose unused places hold what an earlier sequence left there. `parts`: each kKeys apart, put together.
// The cache keeps a token's key as bf16 or as integers with one scale: in double precision, what is attended to then.
void check_attention(Check& check, const Kernels& kernels, Format kept, int rows, int dim, int keys, int group, bool parts) {
  int padded = round_up(dim, kPanel), pages = (keys + kPage - 1) / kPage;
  auto random_rows = [&](int count, unsigned seed) {
    Floats values = random_floats(size_t(count) * dim, seed), out(size_t(count) * padded);
    for (int r = 0; r < count; r++) std::copy_n(&values[size_t(r) * dim], dim, &out[size_t(r) * padded]);
    return out;
  };
  Floats q_floats = random_rows(rows, 4), k = random_rows(keys, 5), v = random_rows(keys, 6), other(padded, 7.0f);
  std::vector<uint16_t> q(q_floats.size());
  std::transform(q_floats.begin(), q_floats.end(), q.begin(), float_to_bf16);
  PagePool pool({1, 1, padded, kept});
  std::vector<KvPage> read;
  for (int p = 0; p < pages; p++) {
    int page = pool.take();
    for (int slot = 0; slot < kPage; slot++) pool.write(page, 0, 0, slot, other.data(), other.data());
    for (int i = p * kPage; i < std::min(keys, (p + 1) * kPage); i++)
      pool.write(page, 0, 0, i % kPage, &k[size_t(i) * padded], &v[size_t(i) * padded]);
    read.push_back(pool.read(page, 0, 0));
  }
  auto kept_values = [&](const Floats& all, int row) {
    Doubles out(dim);
    double largest = 0;
    for (int i = 0; i < dim; i++) largest = std::max(largest, std::fabs(double(all[size_t(row) * padded + i])));
    for (int i = 0; i < dim; i++) {
      float x = all[size_t(row) * padded + i];
      out[i] = kept == Format::bf16 ? double(bf16_to_float(float_to_bf16(x))) : std::nearbyint(x / largest * 127) * largest / 127;
    }
    return out;
  };
  std::vector<int> visible(rows);
  for (int r = 0; r < rows; r++) visible[r] = std::max(1, keys - (rows - 1 - r) / group);
  Attention task;
  task.query = q.data(), task.rows = rows, task.dim = padded, task.page = kPage, task.kept = kept;
  task.pages = read.data(), task.visible = visible.data();
  task.scale = 1 / std::sqrt(float(dim));
  task.stride = size_t(group) * dim, task.group = group, task.out_dim = dim, task.partial = parts;
  int calls = parts ? (keys + kKeys - 1) / kKeys : 1;
  size_t size = size_t((rows + group - 1) / group) * task.stride;
  std::vector<Floats> out(calls, Floats(size)), max(calls, Floats(rows)), sum(calls, Floats(rows));
  for (int call = 0; call < calls; call++) {
    task.first = call * kKeys, task.last = parts ? std::min(keys, (call + 1) * kKeys) : keys;
    task.out = out[call].data(), task.max = max[call].data(), task.sum = sum[call].data();
    kernels.attend(task);
  }
  std::vector<Doubles> k_kept(keys), v_kept(keys);
  for (int j = 0; j < keys; j++) k_kept[j] = kept_values(k, j), v_kept[j] = kept_values(v, j);
  for (int r = 0; r < rows; r++) {
    Doubles expected(dim), size_of(dim), got(dim);
    double total = 0, weight_got = 0;
    for (int j = 0; j < visible[r]; j++) {
      double score = 0;
      for (int i = 0; i < dim; i++) score += double(bf16_to_float(q[r * padded + i])) * k_kept[j][i];
      double weight = std::exp(score / std::sqrt(double(dim)));
      total += weight;
      for (int i = 0; i < dim; i++) {
        double value = weight * v_kept[j][i];
        expected[i] += value, size_of[i] += std::fabs(value);
      }
    }
    for (int call = 0; call < calls; call++) {
      double factor = parts ? std::exp(double(max[call][r])) : 1;
      weight_got += parts ? factor * sum[call][r] : 1;
      for (int i = 0; i < dim; i++) got[i] += factor * out[call][r / group * task.stride + r % group * dim + i];
    }
    // weights are rounded to bf16, by half of 2^-8 at most, before they meet the values
    for (int i = 0; i < dim; i++) check.close(got[i] / weight_got, expected[i] / total, size_of[i] / total * 0x1p-8 + 1e-6);
  }
}

bool check_attentions(const Kernels& kernels) {
  Check whole(kernels, "attend"), parts(kernels, "attend in parts"), whole_q8(kernels, "attend q8"),
      parts_q8(kernels, "attend q8 in parts");
  constexpr int kCases[][4] = {{1, 16, 1, 1}, {10, 64, 300, 1}, {48, 72, 729, 1}, {7, 30, 33, 1}, {45, 64, 1000, 3}, {3, 80, 256, 3}};
  for (auto [rows, dim, keys, group] : kCases) {
    for (Format kept : {Format::bf16, Format::q8}) {
      check_attention(kept == Format::q8 ? whole_q8 : whole, kernels, kept, rows, dim, keys, group, false);
      // a row that sees nothing of a part has neither maximum nor sum there: such a part is the caller's to leave out
      if (keys % kKeys == 0 || keys % kKeys > rows)
        check_attention(kept == Format::q8 ? parts_q8 : parts, kernels, kept, rows, dim, keys, group, true);
    }
  }
  return whole.finish() & parts.finish() & whole_q8.finish() & parts_q8.finish();
}

// Numbers as integers of 8 bits with one scale, in double precision.
void quantize(Doubles& x) {
  double largest = 0;
  for (double v : x) largest = std::max(largest, std::fabs(v));
  for (double& v : x) v = largest > 0 ? std::nearbyint(v / largest * 127) * largest / 127 : 0;
}

// A head of a projection of `tokens` tokens and three heads, as bf16 and, where the kernels have that, as integers. `sink`: every
// query heeds one key above all, and each of the others too little to count if weights were rounded to 8 bits.
void check_head(Check& check, const Kernels& kernels, bool integers, int tokens, int dim, bool sink) {
  constexpr int kHeads = 3, kThis = 1;
  int padded = round_up(dim, kPanel), room = round_up(tokens, kKeys), stride = 3 * kHeads * dim;
  std::vector<uint16_t> projection(size_t(tokens) * stride);
  Floats random = random_floats(projection.size(), 11);
  for (int t = 0; sink && t < tokens; t++) {
    float *query = &random[size_t(t) * stride + kThis * dim], *key = query + kHeads * dim;
    std::fill_n(query, dim, 1.0f), std::fill_n(key, dim, t == tokens / 2 ? 6.3f / std::sqrt(float(dim)) : 0.0f);
    for (int i = 0; i < dim; i++) key[kHeads * dim + i] = t == tokens / 2 ? 0 : key[kHeads * dim + i] + 1;
  }
  std::transform(random.begin(), random.end(), projection.begin(), float_to_bf16);
  size_t values = size_t(room) * padded, bytes = values * (integers ? 1 : 2);
  std::vector<uint8_t> q(bytes), k(bytes), v(bytes);
  Floats q_scales(room), k_scales(room), v_scales(size_t(room) / kHeadPart * padded), out(size_t(tokens) * dim);
  std::vector<int32_t> neg_sums(room);
  Head head;
  head.from = projection.data() + kThis * dim, head.stride = stride, head.apart = kHeads * dim;
  head.tokens = tokens, head.dim = dim, head.padded = padded, head.page = kKeys;
  head.query = q.data(), head.keys = k.data(), head.values = v.data();
  head.query_scales = q_scales.data(), head.key_scales = k_scales.data(), head.value_scales = v_scales.data();
  head.query_neg_sums = neg_sums.data();
  for (int t = 0; t < tokens; t += kHeadPart)
    (integers ? kernels.pack_head_int8 : kernels.pack_head)(head, t, std::min(t + kHeadPart, tokens));
  std::vector<KvPage> pages;
  for (size_t at = 0; at < bytes; at += size_t(kKeys) * padded * 2) pages.push_back({k.data() + at, v.data() + at, nullptr, nullptr});
  std::vector<int> visible(kAttentionRows, tokens);
  float scale = 1 / std::sqrt(float(dim));
  for (int first = 0; first < tokens; first += kAttentionRows) {
    int rows = std::min(kAttentionRows, tokens - first);
    Attention task;
    task.query = reinterpret_cast<const uint16_t*>(q.data()) + size_t(first) * padded, task.rows = rows, task.dim = padded;
    task.page = kKeys, task.pages = pages.data(), task.visible = visible.data(), task.last = tokens, task.scale = scale;
    task.out = &out[size_t(first) * dim], task.stride = dim, task.out_dim = dim;
    if (integers) kernels.attend_int8(head, first, rows, scale, task.out, dim);
    else kernels.attend(task);
  }
  auto part = [&](int which, int token) {
    Doubles x(dim);
    for (int i = 0; i < dim; i++) x[i] = bf16_to_float(projection[size_t(token) * stride + (which * kHeads + kThis) * dim + i]);
    if (integers && which < 2) quantize(x);
    return x;
  };
  std::vector<Doubles> keys(tokens), of_values(tokens);
  for (int t = 0; t < tokens; t++) keys[t] = part(1, t), of_values[t] = part(2, t);
  for (int t = 0; integers && t < tokens; t += kHeadPart) {
    for (int i = 0; i < dim; i++) {
      Doubles column;
      for (int j = t; j < std::min(t + kHeadPart, tokens); j++) column.push_back(of_values[j][i]);
      quantize(column);
      for (size_t j = 0; j < column.size(); j++) of_values[t + j][i] = column[j];
    }
  }
  for (int t = 0; t < tokens; t += 7) {
    Doubles query = part(0, t), expected(dim), size_of(dim), weights(tokens);
    double total = 0, largest = -INFINITY;
    for (int j = 0; j < tokens; j++) {
      for (int i = 0; i < dim; i++) weights[j] += query[i] * keys[j][i] * scale;
      largest = std::max(largest, weights[j]);
    }
    for (int j = 0; j < tokens; j++) {
      total += weights[j] = std::exp(weights[j] - largest);
      for (int i = 0; i < dim; i++) expected[i] += weights[j] * of_values[j][i], size_of[i] += std::pow(of_values[j][i], 2);
    }
    // bf16 as in check_attention; integers: weights are off by up to 1/255 of the largest, some more and some less
    for (int i = 0; i < dim; i++) {
      double rounding = integers ? std::sqrt(size_of[i]) / 255 : std::sqrt(size_of[i]) * 0x1p-8;
      check.close(out[size_t(t) * dim + i], expected[i] / total, 2.5 * rounding / total + 1e-6);
    }
  }
}

bool check_heads(const Kernels& kernels) {
  Check heads(kernels, "head"), integer_heads(kernels, "head in integers");
  constexpr int kCases[][2] = {{16, 16}, {70, 64}, {256, 30}, {729, 72}, {1024, 64}};
  for (auto [tokens, dim] : kCases) {
    for (bool sink : {false, true}) {
      check_head(heads, kernels, false, tokens, dim, sink);
      if (kernels.attend_int8) check_head(integer_heads, kernels, true, tokens, dim, sink);
    }
  }
  return heads.finish() & (!kernels.attend_int8 || integer_heads.finish());
}

bool check_rows(const Kernels& kernels) {
  Check pack_q8(kernels, "quantize_row q8"), pack_bf16(kernels, "quantize_row bf16"), rms(kernels, "rms_norm"),
      layer(kernels, "layer_norm");
  Check narrowed(kernels, "to_bf16"), widened(kernels, "from_bf16"), rotated(kernels, "rotate");
  for (int n : {1, 2, 3, 4, 7, 16, 31, 32, 33, 64, 100, 577}) {
    Floats held = random_floats(n + 1, 7), weight = random_floats(n, 8), bias = random_floats(n, 9), out(n + 1, kUntouched);
    const float* x = held.data() + 1;  // at an odd place in memory
    held[1 + n / 2] = 1000;
    for (Format format : {Format::q8, Format::bf16}) {
      Activations packed(format, 2, n);
      kernels.quantize_row(x, n, packed.rows, 1);
      compare_packed(format == Format::q8 ? pack_q8 : pack_bf16, packed, 1, Doubles(x, x + n), Doubles(n, 1e-7));
      for (int b = 0; format == Format::q8 && b < int(packed.rows.row_blocks()); b++) {
        int sum = 0, block = int(packed.rows.row_blocks()) + b;
        for (int i = 0; i < kBlock; i++) sum += int8_t(packed.data[packed.rows.row_bytes() + b * kBlock + i]);
        pack_q8.same(packed.neg_sums[block], -sum);
      }
      pack_q8.same(packed.data[0], 0x55);  // row 0 is another's
    }
    double mean = 0, squares = 0, spread = 0;
    for (int i = 0; i < n; i++) mean += double(x[i]) / n, squares += double(x[i]) * x[i] / n;
    for (int i = 0; i < n; i++) spread += (x[i] - mean) * (x[i] - mean) / n;
    kernels.rms_norm(x, weight.data(), n, 1e-5f, out.data());
    for (int i = 0; i < n; i++) rms.close(out[i], x[i] / std::sqrt(squares + 1e-5) * weight[i], 2e-6 * std::fabs(x[i] * weight[i]) + 1e-9);
    rms.same(out[n], kUntouched);
    if (n > 1) {
      kernels.layer_norm(x, weight.data(), bias.data(), n, 1e-6f, out.data());
      // a mean of floats is off by some last places of the largest, here 1,000
      for (int i = 0; i < n; i++)
        layer.close(out[i], (x[i] - mean) / std::sqrt(spread + 1e-6) * weight[i] + bias[i],
                    1e-3 / std::sqrt(spread) + 4e-6 * (std::fabs(out[i]) + 1));
      layer.same(out[n], kUntouched);
    }
    std::vector<uint16_t> bf16(n + 1, 4321);
    kernels.to_bf16(x, n, bf16.data());
    kernels.from_bf16(bf16.data(), n, out.data());
    for (int i = 0; i < n; i++)
      narrowed.close(bf16_to_float(bf16[i]), x[i], std::fabs(x[i]) / 256), widened.same(out[i], bf16_to_float(bf16[i]));
    narrowed.same(bf16[n], 4321), widened.same(out[n], kUntouched);
    if (n % 2 == 0) {
      Floats turned(x, x + n), cosine(n / 2), sine(n / 2);
      for (int i = 0; i < n / 2; i++) cosine[i] = std::cos(float(i)), sine[i] = std::sin(float(i));
      kernels.rope(turned.data(), cosine.data(), sine.data(), n);
      for (int i = 0; i < n / 2; i++) {
        double a = x[i], b = x[i + n / 2], allowed = 0x1p-22 * (std::fabs(a) + std::fabs(b));
        rotated.close(turned[i], a * cosine[i] - b * sine[i], allowed);
        rotated.close(turned[i + n / 2], b * cosine[i] + a * sine[i], allowed);
      }
    }
  }
  bool right = true;
  for (const Check* check : {&pack_q8, &pack_bf16, &rms, &layer, &narrowed, &widened, &rotated}) right &= check->finish();
  return right;
}

}  // namespace
}  // namespace smolvlm

int main(int count, char** names) {
  using namespace smolvlm;
  std::printf("usable here:");
  for (const Kernels* kernels : usable_kernels()) std::printf(" %s", kernels->name);
  std::printf("\n");
  std::vector<const Kernels*> sets = count > 1 ? std::vector<const Kernels*>() : usable_kernels();
  bool right = true;
  try {
    for (int i = 1; i < count; i++) sets.push_back(&select_kernels(names[i]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  for (const Kernels* kernels : sets)
    right &= check_products(*kernels) & check_attentions(*kernels) & check_heads(*kernels) & check_rows(*kernels);
  std::printf("%s\n", right ? "every kernel is right" : "some kernels are WRONG");
  return right ? 0 : 1;
}
