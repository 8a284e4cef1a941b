// The engine as Python holds it. Calls of the engine wait for each other, and the one that runs takes the interpreter's lock
// now and then to look for Ctrl-C: whoever waited for the engine with that lock held would wait for ever.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

#include "model/engine.h"

namespace smolvlm {

// The interpreter's lock, let go for as long as this lives.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  // A thread that asks for the lock of an interpreter that is ending is ended inside this destructor, and that aborts the process.
  ~Unlocked() {
    while (interpreter_ends()) {
      nanobind::set_leak_warnings(false);  // what this thread refers to stays: it waits here for the end
      ::pause();
    }
    PyEval_RestoreThread(state_);
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

  static bool interpreter_ends() {
#if PY_VERSION_HEX >= 0x030d0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
  }

 private:
  PyThreadState* state_;
};

class Door {
 public:
  Door(const Shape& shape, Formats formats, int threads, const std::string& instructions) : engine_(shape, formats, threads, instructions) {
    engine_.on_wait(interrupted);
  }
  Door(const Door&) = delete;

  // The only way to the engine: `use(engine)` runs without the interpreter's lock. It must not touch Python's objects.
  template <class Use>
  auto operator()(Use use) {
    try {
      Unlocked unlocked;
      return use(engine_);
    } catch (const Cancelled&) {
      if (PyErr_Occurred()) throw nanobind::python_error();
      throw std::runtime_error("the call was cancelled");
    }
  }

 private:
  // Ctrl-C, for a call that waits or computes in Python's main thread: what the handler raised waits in this thread's state.
  static bool interrupted() {
    if (Unlocked::interpreter_ends()) return true;
    nanobind::gil_scoped_acquire lock;
    return PyErr_CheckSignals() != 0;
  }

  Engine engine_;
};

}  // namespace smolvlm
