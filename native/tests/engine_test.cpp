// The engine by itself, without Python: random schedules of sequences against plain lists of tokens, calls from several
// threads, cancelled calls. Built with a sanitizer it finds races and stray reads; see tests/engines/test_native_sanitizers.py.
//
//   engine_test SCHEDULES    (1000 where time does not matter; a failure prints its seed)
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "model/engine.h"

using namespace smolvlm;

namespace {

constexpr int kVocab = 96, kCapacity = 150, kImage = 95;

Shape small_shape() {
  Shape shape;
  shape.vision = {32, 48, 2, 2, 32, 8, 1e-6f};
  shape.text = {32, 80, 2, 4, 2, 16, kVocab, 2048, 1e-5f, 10000.0};
  shape.scale_factor = 2;
  shape.image_token = kImage;
  return shape;
}

[[noreturn]] void fail(unsigned seed, const char* what) {
  std::printf("FAILED: %s (seed %u)\n", what, seed);
  std::exit(1);
}

class Model {
 public:
  Model(Formats formats, int threads) : engine(small_shape(), formats, threads, "") {
    const Shape& s = engine.shape();
    auto fill = [&](const std::string& name, std::vector<std::pair<int, int>> shapes) {
      std::vector<std::vector<float>> data;
      std::vector<Source> sources;
      for (auto [rows, columns] : shapes) data.push_back(random(size_t(rows) * columns));
      for (size_t i = 0; i < shapes.size(); i++)
        sources.push_back({reinterpret_cast<const uint8_t*>(data[i].data()), DType::f32, shapes[i].first, shapes[i].second});
      engine.load([&](Weights& w, ThreadPool& threads) { w.set_matrix(name, sources, threads); });
    };
    const VisionShape& v = s.vision;
    const TextShape& t = s.text;
    fill("vision.patch", {{v.dim, 3 * v.patch * v.patch}});
    fill("connector", {{t.dim, s.folded_dim()}});
    fill("head", {{t.vocab, t.dim}});
    for (int i = 0; i < v.layers; i++) {
      std::string at = "vision." + std::to_string(i) + ".";
      fill(at + "qkv", {{v.dim, v.dim}, {v.dim, v.dim}, {v.dim, v.dim}});
      fill(at + "out", {{v.dim, v.dim}});
      fill(at + "fc1", {{v.inter, v.dim}});
      fill(at + "fc2", {{v.dim, v.inter}});
    }
    for (int i = 0; i < t.layers; i++) {
      std::string at = "text." + std::to_string(i) + ".";
      fill(at + "qkv", {{t.heads * t.head_dim, t.dim}, {t.kv_heads * t.head_dim, t.dim}, {t.kv_heads * t.head_dim, t.dim}});
      fill(at + "out", {{t.dim, t.heads * t.head_dim}});
      fill(at + "gate_up", {{t.inter, t.dim}, {t.inter, t.dim}});
      fill(at + "down", {{t.dim, t.inter}});
    }
    for (const std::string& name : engine.read([](const Weights& w) { return w.vectors(); })) {
      int size = engine.read([&](const Weights& w) { return w.vector_size(name); });
      std::vector<float> values = random(size);
      engine.load(
          [&](Weights& w, ThreadPool&) { w.set_vector(name, {reinterpret_cast<const uint8_t*>(values.data()), DType::f32, 1, size}); });
    }
    std::vector<float> table = random(size_t(t.vocab) * t.dim);
    engine.load([&](Weights& w, ThreadPool& threads) {
      w.set_embedding({reinterpret_cast<const uint8_t*>(table.data()), DType::f32, t.vocab, t.dim}, threads);
    });
    engine.finish();
  }

  std::vector<float> random(size_t count) {
    std::vector<float> values(count);
    std::normal_distribution<float> normal(0.0f, 0.3f);
    for (float& value : values) value = normal(generator);
    return values;
  }

  std::mt19937 generator{1};
  Engine engine;
};

// What the engine should know of a sequence: its tokens. The reference is a fresh sequence that reads them all at once.
std::vector<float> reference(Engine& engine, const std::vector<int>& ids) {
  std::vector<float> logits(kVocab);
  int fresh = engine.open(kCapacity);
  engine.prefill({{fresh, ids.data(), int(ids.size()), nullptr, 0, 1, logits.data()}}, Output::logits);
  engine.close(fresh);
  return logits;
}

void compare(unsigned seed, const float* ours, const std::vector<float>& expected) {
  for (int i = 0; i < kVocab; i++)
    if (!(std::fabs(ours[i] - expected[i]) < 2e-4f)) {
      std::printf("logit %d: %.6f, not %.6f\n", i, ours[i], expected[i]);
      fail(seed, "logits differ from a fresh sequence's");
    }
}

void schedule(Engine& engine, unsigned seed) {
  std::mt19937 rng(seed);
  auto below = [&](int n) { return int(rng() % unsigned(n)); };
  std::map<int, std::vector<int>> held;
  auto any = [&] { return std::next(held.begin(), below(int(held.size()))); };
  for (int step = 0; step < 24; step++) {
    int action = below(10);
    if (held.empty() || (action == 0 && held.size() < 6)) {
      held[engine.open(kCapacity)] = {};
    } else if (action <= 3) {
      auto& [handle, ids] = *any();
      int count = 1 + below(70);
      if (int(ids.size()) + count > kCapacity) continue;
      std::vector<int> more(count);
      for (int& id : more) id = below(kVocab - 1);
      std::vector<float> logits(kVocab);
      engine.prefill({{handle, more.data(), count, nullptr, 0, 1, logits.data()}}, Output::logits);
      ids.insert(ids.end(), more.begin(), more.end());
      if (below(4) == 0) compare(seed, logits.data(), reference(engine, ids));
    } else if (action <= 6) {
      std::vector<int> handles, ids;
      for (auto& [handle, tokens] : held)
        if (!tokens.empty() && tokens.size() < kCapacity && below(2)) handles.push_back(handle), ids.push_back(below(kVocab - 1));
      if (handles.empty()) continue;
      std::vector<float> logits(handles.size() * kVocab);
      engine.decode(handles.data(), ids.data(), int(handles.size()), logits.data());
      for (size_t i = 0; i < handles.size(); i++) held[handles[i]].push_back(ids[i]);
      size_t one = size_t(below(int(handles.size())));
      compare(seed, logits.data() + one * kVocab, reference(engine, held[handles[one]]));
    } else if (action == 7 && held.size() < 6) {
      auto [handle, ids] = *any();
      held[engine.fork(handle)] = ids;
    } else if (action == 8) {
      auto& [handle, ids] = *any();
      ids.resize(below(int(ids.size()) + 1));
      engine.rewind(handle, int(ids.size()));
    } else if (action == 9) {
      auto one = any();
      engine.close(one->first);
      held.erase(one);
    }
    for (auto& [handle, ids] : held)
      if (engine.length(handle) != int(ids.size())) fail(seed, "a length is wrong");
  }
  for (auto& [handle, ids] : held) engine.close(handle);
}

void threads_take_turns(Engine& engine) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; i++)
    threads.emplace_back([&engine, i] {
      for (unsigned round = 0; round < 3; round++) schedule(engine, 9000 + 10 * i + round);
    });
  for (std::thread& thread : threads) thread.join();
}

void cancelled_calls(Engine& engine) {
  std::atomic<bool> ended{false};
  std::thread canceller([&] {
    while (!ended) engine.cancel();
  });
  std::vector<int> ids(2000, 3);
  std::vector<float> logits(kVocab);
  int cancelled = 0, sequence = engine.open(2048);
  for (int i = 0; i < 5; i++) {
    try {
      engine.prefill({{sequence, ids.data(), int(ids.size()), nullptr, 0, 1, logits.data()}}, Output::logits);
      engine.rewind(sequence, 0);
    } catch (const Cancelled&) {
      cancelled++;
      if (engine.length(sequence) != 0) fail(0, "a cancelled call left tokens behind");
    }
  }
  ended = true;
  canceller.join();
  if (!cancelled) fail(0, "no call was cancelled");
  ids.resize(100);
  engine.prefill({{sequence, ids.data(), 100, nullptr, 0, 1, logits.data()}}, Output::logits);
  compare(0, logits.data(), reference(engine, ids));
  engine.close(sequence);
}

void pictures(Engine& engine) {
  const Shape& shape = engine.shape();
  std::vector<float> pixels(size_t(3) * shape.vision.image * shape.vision.image * 2, 0.25f);
  std::vector<float> out(size_t(2) * shape.image_tokens() * shape.text.dim);
  engine.encode(pixels.data(), 2, out.data());
  for (float value : out)
    if (!std::isfinite(value)) fail(0, "an embedding is not finite");
  std::vector<int> ids(1 + shape.image_tokens(), kImage);
  ids[0] = 1;
  std::vector<float> logits(kVocab);
  int sequence = engine.open(kCapacity);
  engine.prefill({{sequence, ids.data(), int(ids.size()), out.data(), shape.image_tokens(), 1, logits.data()}}, Output::logits);
  engine.close(sequence);
}

}  // namespace

int main(int argc, char** argv) {
  int schedules = argc > 1 ? std::atoi(argv[1]) : 100;
  for (Format format : {Format::bf16, Format::q8, Format::q4}) {
    for (int threads : {1, 3}) {
      Model model({format, format, format, threads == 1 ? Format::bf16 : Format::q8}, threads);  // the cache too
      pictures(model.engine);
      for (int i = 0; i < schedules / 6 + 1; i++) schedule(model.engine, unsigned(1 + i + 1000 * threads));
      threads_take_turns(model.engine);
      cancelled_calls(model.engine);
      if (model.engine.pages_in_use() != 0) fail(0, "pages were not given back");
    }
  }
  std::printf("%d schedules agree\n", (schedules / 6 + 1) * 6);
}
