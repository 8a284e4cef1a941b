"""ONNX Runtime on the vision tower and the connector, in float32 and with its dynamic int8 quantization.

Only they: its decoder needs a cache of its own for each model, and its prefill and decode are not what a reader compares.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import material
from smolvlm.formats.onnx_vision import write_vision_onnx

MODEL = "model.onnx"


def export_vision(folder: Path) -> Path:
    """The ONNX file of pixels -> image embeddings in float32, for one tile: a fixed shape suits these compilers best."""
    return material.for_peer(folder, "onnx-fp32", lambda out: write_vision_onnx(folder, out / MODEL)) / MODEL


def _quantize(source: Path, out: Path) -> None:
    """Weights to int8 once, activations to uint8 while it runs; the runtime's own advice for transformers."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        out,
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
        extra_options={"MatMulConstBOnly": True},
    )  # attention's two products stay as they are


def model_file(folder: Path, variant: str) -> Path:
    source = export_vision(folder)
    if variant == "fp32":
        return source
    return material.for_peer(folder, "onnx-int8", lambda out: _quantize(source, out / MODEL)) / MODEL


def prepare(folder: Path, variant: str) -> None:
    import onnx  # noqa: F401 - absent, it is named before minutes of work
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    model_file(folder, variant)


def make(folder: Path, variant: str, threads: int) -> OnnxRuntime:
    return OnnxRuntime(model_file(folder, variant), threads)


class OnnxRuntime:
    """An inference session on the CPU provider with all graph optimizations (its default)."""

    tasks = ("vision",)

    def __init__(self, model: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.about = f"onnxruntime {onnxruntime.__version__}, vision only"

    def vision(self, pixel_values: npt.NDArray[np.float32]) -> tuple[float, npt.NDArray[np.float32]]:
        """Seconds for (tiles, 3, side, side), one tile after another, and the first tile's embeddings."""
        started = time.perf_counter()
        embeds = [self.session.run(None, {"pixel_values": tile[None]})[0] for tile in pixel_values]
        return time.perf_counter() - started, np.asarray(embeds[0][0], np.float32)
