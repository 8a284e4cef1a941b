// The Python module `smolvlm.engines._native`: arrays in, arrays out, the interpreter's lock let go in every long call.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <climits>

#include "bindings/door.h"
#include "simd/dispatch.h"
#include "bindings/probe.h"
#include "runtime/machine.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace smolvlm;

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::numpy, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::numpy, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// An array of another type or layout is refused: a converted copy would lose digits of ids, and swallow what is written to it.
const auto exact = nb::arg().noconvert();

Format format_of(const std::string& name) {
  if (name == "bf16") return Format::bf16;
  if (name == "q8") return Format::q8;
  if (name == "q4") return Format::q4;
  throw std::invalid_argument("weights as '" + name + "' are unknown; use bf16, q8 or q4");
}

template <class T>
T value_of(const nb::dict& from, const char* key) {
  T value;
  if (!from.contains(key) || !nb::try_cast<T>(from[key], value))
    throw std::invalid_argument("the shape: " + std::string(key) + " is missing, or no number of its range");
  return value;
}

Shape shape_of(const nb::dict& vision, const nb::dict& text) {
  auto v = [&](const char* key) { return value_of<int>(vision, key); };
  auto t = [&](const char* key) { return value_of<int>(text, key); };
  Shape shape;
  shape.vision = {v("hidden_size"),
                  v("intermediate_size"),
                  v("num_hidden_layers"),
                  v("num_attention_heads"),
                  v("image_size"),
                  v("patch_size"),
                  float(value_of<double>(vision, "layer_norm_eps"))};
  shape.text = {t("hidden_size"),
                t("intermediate_size"),
                t("num_hidden_layers"),
                t("num_attention_heads"),
                t("num_key_value_heads"),
                t("head_dim"),
                t("vocab_size"),
                t("max_position_embeddings"),
                float(value_of<double>(text, "rms_norm_eps")),
                value_of<double>(text, "rope_theta")};
  return shape;
}

Source source_of(const Bytes& data, const std::string& number, int rows, int columns) {
  Source source{data.data(), DType::f32, rows, columns};
  size_t bytes = 4;
  if (number == "F32") bytes = 4;
  else if (number == "F16") source.number = DType::f16, bytes = 2;
  else if (number == "BF16") source.number = DType::bf16, bytes = 2;
  else if (number == "F64") source.number = DType::f64, bytes = 8;
  else throw std::invalid_argument("numbers of type " + number + " are not read");
  if (rows < 0 || columns < 0 || data.size() != bytes * size_t(rows) * size_t(columns))
    throw std::invalid_argument("a tensor's bytes and its shape disagree");
  return source;
}

size_t need(size_t given, size_t wanted, const char* what) {
  if (given != wanted) throw std::invalid_argument(std::string(what) + " has another size than it should");
  return wanted;
}

int count_of(size_t size) {
  if (size > size_t(INT_MAX)) throw std::invalid_argument("an array has more entries than the engine counts");
  return int(size);
}

// What is checked before it is used must not change in between: another thread of Python may write to the array.
std::vector<int> copy_of(const Ids& ids) { return std::vector<int>(ids.data(), ids.data() + count_of(ids.size())); }

// Several prompts, whose ids, image rows and output rows lie one behind the other.
std::vector<Prompt> prompts_of(const std::vector<int>& sequences, const std::vector<int>& ids, const std::vector<int>& counts,
                               const Floats& images, const std::vector<int>& image_rows, const std::vector<int>& kept, Out& out,
                               size_t dim) {
  for (size_t given : {counts.size(), image_rows.size(), kept.size()}) need(given, sequences.size(), "a list");
  size_t id = 0, image = 0, row = 0;
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < sequences.size(); i++) {
    if (counts[i] < 0 || image_rows[i] < 0 || kept[i] < 0) throw std::invalid_argument("a count is below 0");
    prompts.push_back(
        {sequences[i], ids.data() + id, counts[i], images.data() + image * dim, image_rows[i], kept[i], out.data() + row * dim});
    id += counts[i];
    image += image_rows[i];
    row += kept[i];
  }
  need(ids.size(), id, "token_ids");
  need(images.size(), image * dim, "image_embeds");
  need(out.size(), row * dim, "the output");
  return prompts;
}

// A method of the engine as a method of Python.
template <class Result, class... Args>
auto method(Result (Engine::*of)(Args...)) {
  return [of](Door& self, Args... args) { return self([&](Engine& engine) { return (engine.*of)(args...); }); };
}

template <class Use>
auto weights_of(nb::handle self, Use use) {
  return nb::cast<Door&>(self)([&](Engine& engine) { return engine.read(use); });
}

nb::object bytes_view(const uint8_t* data, size_t size, nb::handle owner) {
  return nb::cast(nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(data, {size}, owner));
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Kernels and runtime of the native engine.";
  // In a forked child, what other threads referred to at that moment is never released; in no other process that is expected.
  static ForkHook child([] { nb::set_leak_warnings(false); }, [] {});
  m.def("usable_threads", &usable_threads);
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Kernels* kernels : usable_kernels()) names.emplace_back(kernels->name);
    return names;
  });

  nb::module_ probe = m.def_submodule("probe");
  bind_probe(probe, &format_of);

  nb::class_<Door>(m, "Engine")
      .def("__init__",
           [](Door* self, nb::dict vision, nb::dict text, int scale_factor, int image_token, const std::string& vision_format,
              const std::string& text_format, const std::string& head_format, const std::string& cache_format, int threads,
              const std::string& instructions) {
             Shape shape = shape_of(vision, text);
             shape.scale_factor = scale_factor;
             shape.image_token = image_token;
             Formats formats = {format_of(vision_format), format_of(text_format), format_of(head_format), format_of(cache_format)};
             new (self) Door(shape, formats, threads, instructions);
           })
      .def(
          "set_matrix",
          [](Door& self, const std::string& name, const std::vector<Bytes>& tensors, const std::vector<std::string>& numbers,
             const std::vector<int>& rows, const std::vector<int>& columns) {
            for (size_t given : {numbers.size(), rows.size(), columns.size()}) need(given, tensors.size(), "a list");
            std::vector<Source> sources;
            for (size_t i = 0; i < tensors.size(); i++) sources.push_back(source_of(tensors[i], numbers[i], rows[i], columns[i]));
            self([&](Engine& engine) { engine.load([&](Weights& w, ThreadPool& threads) { w.set_matrix(name, sources, threads); }); });
          },
          nb::arg(), exact, nb::arg(), nb::arg(), nb::arg())
      .def(
          "attach_matrix",
          [](Door& self, const std::string& name, Bytes data, Bytes scales) {
            self([&](Engine& engine) {
              engine.load([&](Weights& w, ThreadPool&) { w.attach_matrix(name, data.data(), data.size(), scales.data(), scales.size()); });
            });
          },
          nb::arg(), exact, exact, nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>())
      .def(
          "attach_embedding",
          [](Door& self, Bytes data) {
            self([&](Engine& engine) { engine.load([&](Weights& w, ThreadPool&) { w.attach_embedding(data.data(), data.size()); }); });
          },
          exact, nb::keep_alive<1, 2>())
      .def(
          "set_vector",
          [](Door& self, const std::string& name, Floats values) {
            Source source{reinterpret_cast<const uint8_t*>(values.data()), DType::f32, 1, count_of(values.size())};
            self([&](Engine& engine) { engine.load([&](Weights& w, ThreadPool&) { w.set_vector(name, source); }); });
          },
          nb::arg(), exact)
      .def(
          "set_embedding",
          [](Door& self, Bytes tensor, const std::string& number, int rows, int columns) {
            Source source = source_of(tensor, number, rows, columns);
            self([&](Engine& engine) { engine.load([&](Weights& w, ThreadPool& threads) { w.set_embedding(source, threads); }); });
          },
          exact, nb::arg(), nb::arg(), nb::arg())
      .def("matrix",
           [](nb::handle_t<Door> self, const std::string& name) {
             Weights::Part part = weights_of(self, [&](const Weights& w) { return w.part(name); });
             return nb::make_tuple(bytes_view(part.data, part.data_bytes, self), bytes_view(part.scales, part.scale_bytes, self));
           })
      .def("vector",
           [](nb::handle_t<Door> self, const std::string& name) {
             Weights::Part part = weights_of(self, [&](const Weights& w) { return w.vector_part(name); });
             return bytes_view(part.data, part.data_bytes, self);
           })
      .def("embedding",
           [](nb::handle_t<Door> self) {
             Weights::Part part = weights_of(self, [](const Weights& w) { return w.embedding_part(); });
             return bytes_view(part.data, part.data_bytes, self);
           })
      .def_prop_ro("matrices", [](nb::handle_t<Door> self) { return weights_of(self, [](const Weights& w) { return w.matrices(); }); })
      .def_prop_ro("vectors", [](nb::handle_t<Door> self) { return weights_of(self, [](const Weights& w) { return w.vectors(); }); })
      .def("finish", method(&Engine::finish))
      .def(
          "encode",
          [](Door& self, Floats pixels, Out out) {
            self([&](Engine& engine) {
              const Shape& shape = engine.shape();
              size_t tile = size_t(3) * shape.vision.image * shape.vision.image, tiles = pixels.size() / tile;
              need(pixels.size(), tiles * tile, "pixel_values");
              need(out.size(), tiles * shape.image_tokens() * shape.text.dim, "the output");
              engine.encode(pixels.data(), count_of(tiles), out.data());
            });
          },
          exact, exact)
      .def("open", method(&Engine::open))
      .def("length", method(&Engine::length))
      .def("capacity", method(&Engine::capacity))
      .def(
          "prefill",
          [](Door& self, int sequence, Ids given, Floats images, int keep, Out logits) {
            self([&](Engine& engine) {
              size_t dim = engine.shape().text.dim, rows = images.size() / dim;
              std::vector<int> ids = copy_of(given);
              need(images.size(), rows * dim, "image_embeds");
              need(logits.size(), size_t(std::max(keep, 0)) * engine.shape().text.vocab, "the output");
              engine.prefill({{sequence, ids.data(), int(ids.size()), images.data(), count_of(rows), keep, logits.data()}}, Output::logits);
            });
          },
          nb::arg(), exact, exact, nb::arg(), exact)
      .def(
          "hidden",
          [](Door& self, Ids sequences, Ids given, Ids counts, Floats images, Ids image_rows, Ids kept, Out out) {
            self([&](Engine& engine) {
              std::vector<int> ids = copy_of(given);
              auto prompts = prompts_of(copy_of(sequences), ids, copy_of(counts), images, copy_of(image_rows), copy_of(kept), out,
                                        engine.shape().text.dim);
              engine.prefill(prompts, Output::hidden);
            });
          },
          exact, exact, exact, exact, exact, exact, exact)
      .def(
          "decode",
          [](Door& self, Ids given_sequences, Ids given_ids, Out logits) {
            self([&](Engine& engine) {
              std::vector<int> sequences = copy_of(given_sequences), ids = copy_of(given_ids);
              need(ids.size(), sequences.size(), "token_ids");
              need(logits.size(), ids.size() * engine.shape().text.vocab, "the output");
              engine.decode(sequences.data(), ids.data(), int(ids.size()), logits.data());
            });
          },
          exact, exact, exact)
      .def("fork", method(&Engine::fork))
      .def("rewind", method(&Engine::rewind))
      .def("close", method(&Engine::close))
      .def("cancel", method(&Engine::cancel))
      .def_prop_ro("threads", [](Door& self) { return self([](Engine& engine) { return engine.threads(); }); })
      .def_prop_ro("instructions", [](Door& self) { return self([](Engine& engine) { return engine.instructions(); }); })
      .def_prop_ro("bytes", method(&Engine::bytes))
      .def_prop_ro("pages_in_use", method(&Engine::pages_in_use));
}
