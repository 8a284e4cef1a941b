"""llama.cpp on the text decoder, through llama-cpp-python: BF16, Q8_0 and Q4_0, the latter two by its own quantizer.

Its AMX path crashed on the machine where this comparison began, so it is left out of the build:

    CMAKE_ARGS="-DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF -DGGML_NATIVE=ON" pip install llama-cpp-python

Text only: its vision part (mtmd) reads a second file of another layout and cuts every picture up in its own way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import material
from smolvlm.formats.gguf import write_gguf

MODEL = "text.gguf"
_ROOM = 4096  # tokens of the context: the longest task holds 2,048 and what follows
_PASS = 2048  # tokens given to one call; it cuts them into passes of 512, its default


def _quantize(source: Path, out: Path, variant: str) -> None:
    """As `llama-quantize` does it: Q4_0 keeps the output layer finer, by its own rules."""
    import llama_cpp

    kinds = {"q8": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = kinds[variant], False
    if llama_cpp.llama_model_quantize(bytes(source), bytes(out), params):
        raise RuntimeError(f"llama.cpp could not quantize {source.name} to {variant}; see its message above.")


def model_file(folder: Path, variant: str) -> Path:
    source = material.for_peer(folder, "gguf-bf16", lambda out: write_gguf(folder, out / MODEL)) / MODEL
    if variant == "bf16":
        return source
    return material.for_peer(folder, f"gguf-{variant}", lambda out: _quantize(source, out / MODEL, variant)) / MODEL


def prepare(folder: Path, variant: str) -> None:
    import gguf  # noqa: F401 - absent, it is named before anything is written
    import llama_cpp  # noqa: F401

    model_file(folder, variant)


def make(folder: Path, variant: str, threads: int) -> LlamaCpp:
    return LlamaCpp(model_file(folder, variant), threads)


class LlamaCpp:
    """The C interface itself (`llama_decode`), so that no Python of the binding is in the way."""

    tasks = ("prefill", "decode-256", "decode-2048")

    def __init__(self, model: Path, threads: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        self.llama = llama_cpp.Llama(str(model), n_ctx=_ROOM, n_batch=_PASS, n_threads=threads, n_threads_batch=threads, verbose=False)
        self.vocab_size = self.llama.n_vocab()
        self.about = f"llama-cpp-python {llama_cpp.__version__}, text only"

    def prefill(self, input_ids: Sequence[int]) -> tuple[float, npt.NDArray[np.float32]]:
        """Seconds from token ids to the last logits, and these."""
        self._forget()
        started = time.perf_counter()
        logits = self._step(input_ids)
        return time.perf_counter() - started, logits

    def decode(self, input_ids: Sequence[int], new_tokens: int) -> tuple[float, list[int]]:
        """Seconds for `new_tokens` greedy steps after the prompt (prefill not counted), and the tokens."""
        self._forget()
        token, tokens = int(self._step(input_ids).argmax()), []
        started = time.perf_counter()
        for _ in range(new_tokens):
            token = int(self._step([token]).argmax())
            tokens.append(token)
        return time.perf_counter() - started, tokens

    def _forget(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.llama.ctx), True)

    def _step(self, input_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append the tokens; the logits of the last one (no other's are computed), a view that the next step overwrites."""
        for first in range(0, len(input_ids), _PASS):
            ids = input_ids[first : first + _PASS]
            array = (self.api.llama_token * len(ids))(*ids)
            if code := self.api.llama_decode(self.llama.ctx, self.api.llama_batch_get_one(array, len(ids))):
                raise RuntimeError(f"llama_decode failed with code {code}")
        logits = self.api.llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(logits, shape=(self.vocab_size,))
