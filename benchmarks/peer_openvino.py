"""OpenVINO: the vision tower from ONNX in bfloat16 or int8 (by nncf), the decoder from llama.cpp's GGUF.

Its own pipeline for pictures refuses SmolVLM, and its GGUF reader knows Q8_0 and Q4_0 but no BF16. So `int8` is the int8
tower with the Q8_0 decoder, `bf16` the tower alone, and `q4` the Q4_0 decoder alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import material, peer_llama, peer_onnx

MODEL = "model.xml"
_CALIBRATION_TILES = 8  # random ones: what the ranges are does not change the speed
_DECODERS = {"int8": "q8", "q4": "q4"}


def _quantize(source: Path, out: Path) -> None:
    """Static int8, weights and activations, as nncf advises for transformers."""
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    shape = tuple(model.input(0).shape)
    rng = np.random.default_rng(0)
    tiles = [rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(_CALIBRATION_TILES)]
    quantized = nncf.quantize(model, nncf.Dataset(tiles), subset_size=_CALIBRATION_TILES, model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(quantized, out, compress_to_fp16=False)


def vision_file(folder: Path, variant: str) -> Path | None:
    if variant == "q4":
        return None
    source = peer_onnx.export_vision(folder)
    if variant == "bf16":
        return source
    return material.for_peer(folder, "openvino-int8", lambda out: _quantize(source, out / MODEL)) / MODEL


def decoder_file(folder: Path, variant: str) -> Path | None:
    return peer_llama.model_file(folder, _DECODERS[variant]) if variant in _DECODERS else None


def prepare(folder: Path, variant: str) -> None:
    import openvino  # noqa: F401 - absent, it is named before minutes of work

    if variant == "int8":
        import nncf  # noqa: F401
    if variant in _DECODERS:
        import openvino_genai  # noqa: F401
    vision_file(folder, variant)
    decoder_file(folder, variant)


def make(folder: Path, variant: str, threads: int) -> OpenVino:
    return OpenVino(vision_file(folder, variant), decoder_file(folder, variant), threads)


class OpenVino:
    """Compiled for the CPU with the latency hint: one request at a time has all threads."""

    def __init__(self, vision: Path | None, decoder: Path | None, threads: int) -> None:
        import openvino

        self.tasks: tuple[str, ...] = ()
        self.about = f"openvino {openvino.__version__.split('-')[0]}"
        if vision is not None:
            # bfloat16 between the int8 products too, where the machine multiplies bfloat16: the fastest that it has.
            settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
            core = openvino.Core()
            self.encoder = core.compile_model(core.read_model(vision), "CPU", settings).create_infer_request()
            self.about += f", vision {vision.parent.name}"
            self.tasks += ("vision",)
        if decoder is not None:
            import openvino_genai

            self.genai, self.tensor = openvino_genai, openvino.Tensor
            self.pipeline = openvino_genai.LLMPipeline(str(decoder), "CPU", INFERENCE_NUM_THREADS=threads)
            self.about += f", openvino-genai, decoder {decoder.parent.name}"
            self.tasks += ("prefill", "decode-256", "decode-2048")

    def vision(self, pixel_values: npt.NDArray[np.float32]) -> tuple[float, npt.NDArray[np.float32]]:
        """Seconds for (tiles, 3, side, side), one tile after another, and the first tile's embeddings."""
        started = time.perf_counter()
        embeds = [self.encoder.infer([tile[None]])[0].copy() for tile in pixel_values]
        return time.perf_counter() - started, np.asarray(embeds[0][0], np.float32)

    def prefill(self, input_ids: Sequence[int]) -> tuple[float, None]:
        """Seconds from token ids to the first new token; the pipeline keeps its logits to itself."""
        started = time.perf_counter()
        self._generate(input_ids, 1)
        return time.perf_counter() - started, None

    def decode(self, input_ids: Sequence[int], new_tokens: int) -> tuple[float, list[int]]:
        """Seconds for `new_tokens` steps after the first new token, by the pipeline's own clock, and the tokens."""
        result = self._generate(input_ids, new_tokens + 1)
        per_token_ms = result.perf_metrics.get_tpot().mean
        return per_token_ms * new_tokens / 1000, list(result.tokens[0][1:])

    def _generate(self, input_ids: Sequence[int], new_tokens: int) -> Any:
        ids = np.asarray([input_ids], np.int64)
        config = self.genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = new_tokens, True, False
        inputs = self.genai.TokenizedInputs(self.tensor(ids), self.tensor(np.ones_like(ids)))
        return self.pipeline.generate(inputs, config)
