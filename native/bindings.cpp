// The Python module `smolvlm.engines._native`: arrays in, arrays out, the interpreter's lock let go in every long call.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>

#include "door.h"
#include "kernels/select.h"
#include "probe.h"
#include "runtime/machine.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace smolvlm;

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::numpy, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::numpy, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Format format_of(const std::string& name) {
  if (name == "bf16") return Format::bf16;
  if (name == "q8") return Format::q8;
  if (name == "q4") return Format::q4;
  throw std::invalid_argument("weights as '" + name + "' are unknown; use bf16, q8 or q4");
}

Source source_of(const Bytes& data, const std::string& number, int rows, int columns) {
  Source source{data.data(), Number::f32, rows, columns};
  size_t bytes = 4;
  if (number == "F32") bytes = 4;
  else if (number == "F16") source.number = Number::f16, bytes = 2;
  else if (number == "BF16") source.number = Number::bf16, bytes = 2;
  else if (number == "F64") source.number = Number::f64, bytes = 8;
  else throw std::invalid_argument("numbers of type " + number + " are not read");
  if (rows < 0 || columns < 0 || data.size() != bytes * size_t(rows) * size_t(columns))
    throw std::invalid_argument("a tensor's bytes and its shape disagree");
  return source;
}

size_t need(size_t given, size_t wanted, const char* what) {
  if (given != wanted) throw std::invalid_argument(std::string(what) + " has another size than it should");
  return wanted;
}

// Ctrl-C, seen between layers without asking for the interpreter's lock more than ten times a second.
std::function<bool()> interrupted() {
  auto last = std::make_shared<std::chrono::steady_clock::time_point>(std::chrono::steady_clock::now());
  return [last] {
    auto now = std::chrono::steady_clock::now();
    if (now - *last < std::chrono::milliseconds(100)) return false;
    *last = now;
    if (Unlocked::interpreter_ends()) return true;
    nb::gil_scoped_acquire lock;
    return PyErr_CheckSignals() != 0;
  };
}

template <class Call>
auto call(Door& door, Call call) {
  try {
    return door(call);
  } catch (const Cancelled&) {
    if (PyErr_Occurred()) throw nb::python_error();
    throw std::runtime_error("cancelled");
  }
}

// A method of the engine as a method of Python.
template <class Result, class... Args>
auto method(Result (Engine::*of)(Args...)) {
  return [of](Door& self, Args... args) { return call(self, [&](Engine& engine) { return (engine.*of)(args...); }); };
}

template <class Use>
auto weights_of(nb::handle self, Use use) {
  return call(nb::cast<Door&>(self), [&](Engine& engine) { return engine.read(use); });
}

nb::object bytes_view(const uint8_t* data, size_t size, nb::handle owner) {
  return nb::cast(nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(data, {size}, owner));
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Kernels and runtime of the native engine.";
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
             auto integer = [](nb::dict& from, const char* key) { return nb::cast<int>(from[key]); };
             auto number = [](nb::dict& from, const char* key) { return nb::cast<double>(from[key]); };
             Shape shape;
             shape.vision = {integer(vision, "hidden_size"), integer(vision, "intermediate_size"), integer(vision, "num_hidden_layers"),
                             integer(vision, "num_attention_heads"), integer(vision, "image_size"), integer(vision, "patch_size"),
                             float(number(vision, "layer_norm_eps"))};
             shape.text = {integer(text, "hidden_size"), integer(text, "intermediate_size"), integer(text, "num_hidden_layers"),
                           integer(text, "num_attention_heads"), integer(text, "num_key_value_heads"), integer(text, "head_dim"),
                           integer(text, "vocab_size"), integer(text, "max_position_embeddings"),
                           float(number(text, "rms_norm_eps")), number(text, "rope_theta")};
             shape.scale_factor = scale_factor;
             shape.image_token = image_token;
             Formats formats = {format_of(vision_format), format_of(text_format), format_of(head_format), format_of(cache_format)};
             new (self) Door(shape, formats, threads, instructions);
             (*self)([](Engine& engine) { engine.on_layer(interrupted()); });
           })
      .def("set_matrix",
           [](Door& self, const std::string& name, const std::vector<Bytes>& tensors, const std::vector<std::string>& numbers,
              const std::vector<int>& rows, const std::vector<int>& columns) {
             std::vector<Source> sources;
             for (size_t i = 0; i < tensors.size(); i++)
               sources.push_back(source_of(tensors[i], numbers.at(i), rows.at(i), columns.at(i)));
             call(self, [&](Engine& engine) { engine.load([&](Weights& w, Team& team) { w.set_matrix(name, sources, team); }); });
           })
      .def("attach_matrix",
           [](Door& self, const std::string& name, Bytes data, Bytes scales) {
             call(self, [&](Engine& engine) {
               engine.load([&](Weights& w, Team&) { w.attach_matrix(name, data.data(), data.size(), scales.data(), scales.size()); });
             });
           },
           nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>())
      .def("attach_embedding",
           [](Door& self, Bytes data) {
             call(self, [&](Engine& engine) {
               engine.load([&](Weights& w, Team&) { w.attach_embedding(data.data(), data.size()); });
             });
           },
           nb::keep_alive<1, 2>())
      .def("set_vector",
           [](Door& self, const std::string& name, Floats values) {
             Source source{reinterpret_cast<const uint8_t*>(values.data()), Number::f32, 1, int(values.size())};
             call(self, [&](Engine& engine) { engine.load([&](Weights& w, Team&) { w.set_vector(name, source); }); });
           })
      .def("set_embedding",
           [](Door& self, Bytes tensor, const std::string& number, int rows, int columns) {
             Source source = source_of(tensor, number, rows, columns);
             call(self, [&](Engine& engine) { engine.load([&](Weights& w, Team& team) { w.set_embedding(source, team); }); });
           })
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
      .def("encode",
           [](Door& self, Floats pixels, Out out) {
             call(self, [&](Engine& engine) {
               const Shape& shape = engine.shape();
               size_t tile = size_t(3) * shape.vision.image * shape.vision.image, tiles = pixels.size() / tile;
               need(pixels.size(), tiles * tile, "pixel_values");
               need(out.size(), tiles * shape.image_tokens() * shape.text.dim, "the output");
               engine.encode(pixels.data(), int(tiles), out.data());
             });
           })
      .def("open", method(&Engine::open))
      .def("length", method(&Engine::length))
      .def("capacity", method(&Engine::capacity))
      .def("prefill",
           [](Door& self, int sequence, Ids ids, Floats images, int keep, Out logits) {
             call(self, [&](Engine& engine) {
               size_t dim = engine.shape().text.dim, rows = images.size() / dim;
               need(images.size(), rows * dim, "image_embeds");
               need(logits.size(), size_t(keep) * engine.shape().text.vocab, "the output");
               if (keep < 0 || size_t(keep) > ids.size()) throw std::invalid_argument("more logits are wanted than tokens given");
               engine.prefill(sequence, ids.data(), int(ids.size()), images.data(), int(rows), keep, logits.data());
             });
           })
      .def("decode",
           [](Door& self, Ids sequences, Ids ids, Out logits) {
             call(self, [&](Engine& engine) {
               need(ids.size(), sequences.size(), "token_ids");
               need(logits.size(), ids.size() * engine.shape().text.vocab, "the output");
               engine.decode(sequences.data(), ids.data(), int(ids.size()), logits.data());
             });
           })
      .def("fork", method(&Engine::fork))
      .def("rewind", method(&Engine::rewind))
      .def("close", method(&Engine::close))
      .def("cancel", method(&Engine::cancel))
      .def_prop_ro("threads", method(&Engine::threads))
      .def_prop_ro("instructions", method(&Engine::instructions))
      .def_prop_ro("bytes", method(&Engine::bytes))
      .def_prop_ro("pages_in_use", method(&Engine::pages_in_use));
}
