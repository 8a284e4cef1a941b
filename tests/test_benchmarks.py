"""The comparison's arithmetic worked out by hand, its turns, and what it hands to the peers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `benchmarks` stands beside `tests`

from benchmarks import chart, kernels, material, report, rounds
from benchmarks.machine import ROOT

from smolvlm.checkpoint.layout import tensor_shapes
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import load_configs, preset
from smolvlm.formats.gguf import interleave_halves, write_gguf


def runs(*seconds: float, **same: Any) -> list[dict[str, Any]]:
    return [{"seconds": s, **same} for s in seconds]


def test_rates_and_ratios() -> None:
    """Of 0.5, 0.1 and 0.4 s the median is 0.4: 64 tokens are 160/s, against 64 in 1.6 s four times as many."""
    results = {
        "decode-256": {"smolvlm-q8": runs(0.5, 0.1, 0.4), "transformers-bf16": runs(1.6, 1.6, 1.6), "llama.cpp-q8": runs(0.8, 0.8, 0.8)}
    }
    (row,) = report.summarize({"decode-256": {"prompt_tokens": 256, "new_tokens": 64}}, results, {})
    assert row["figures"]["smolvlm-q8"] == pytest.approx(160)
    assert row["vs_transformers"]["smolvlm-q8"] == pytest.approx(4)
    assert row["vs_transformers"]["llama.cpp-q8"] == pytest.approx(2)
    assert row["vs_llama"] == {"smolvlm-q8": pytest.approx(2)}
    assert row["spread"]["smolvlm-q8"] == pytest.approx(1.0)


def test_less_is_better_for_times_and_memory() -> None:
    results = {"vision": {"smolvlm-bf16": runs(1.3), "transformers-bf16": runs(2.6)}}
    rows = report.summarize(
        {"vision": {"tiles": 13}}, results, {"others": {"smolvlm-bf16": 500_000_000, "transformers-bf16": 1_500_000_000}}
    )
    assert rows[0]["figures"] == {"smolvlm-bf16": pytest.approx(0.1), "transformers-bf16": pytest.approx(0.2)}
    assert rows[0]["vs_transformers"]["smolvlm-bf16"] == pytest.approx(2)
    assert rows[1]["figures"]["smolvlm-bf16"] == 500
    assert rows[1]["vs_transformers"]["smolvlm-bf16"] == pytest.approx(3)


def test_wrong_outputs_are_seen() -> None:
    """(3, 4) has length 5; (3, 3) differs from it by 1: a fifth."""
    results = {
        "prefill": {"transformers-fp32": runs(1.0, sample=[3.0, 4.0]), "smolvlm-q8": runs(1.0, sample=[3.0, 3.0])},
        "decode-256": {"transformers-fp32": runs(1.0, tokens=[1, 2, 3, 4]), "smolvlm-q8": runs(1.0, 1.0, tokens=[1, 2, 9, 4])},
    }
    asked = {"prefill": {"tokens": 1024}, "decode-256": {"prompt_tokens": 256, "new_tokens": 4}}
    prefill, decode = report.summarize(asked, results, {})
    assert prefill["difference"] == {"transformers-fp32": 0, "smolvlm-q8": pytest.approx(0.2)}
    assert decode["same_tokens"]["smolvlm-q8"] == "2/4"


class FakeWorker:
    """Answers at once and notes when it was asked."""

    def __init__(self, system: str, log: list[str], broken: bool = False) -> None:
        self.system, self.log, self.broken = system, log, broken

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.log.append(f"{self.system}{request['seed']}")
        return {"error": "no"} if self.broken else {"seconds": 1.0}


def test_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order changes; the first run is left out; a slow system runs once and a broken one stops nobody."""
    monkeypatch.setattr(rounds, "time", SimpleNamespace(sleep=lambda _: None))
    log: list[str] = []
    workers: Any = [FakeWorker("a", log), FakeWorker("b", log, broken=True), FakeWorker("c", log), FakeWorker("slow", log)]
    results = rounds.measure(workers, {"task": "video"}, 2, ["slow"], Console(quiet=True))
    assert {system: len(some) for system, some in results.items()} == {"a": 2, "c": 2, "slow": 1}
    assert log.count("slow1") == 1
    assert not {"slow0", "slow2"} & set(log)
    assert [entry for entry in log if entry[0] == "b"] == ["b0"]
    orders = [[entry[:-1] for entry in log if entry.endswith(str(i)) and entry[0] in "ac"] for i in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 2


def test_a_peer_that_is_not_installed_says_so(tiny_checkpoint: Path) -> None:
    code = "import sys; sys.modules['llama_cpp'] = None; from benchmarks.worker import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "llama.cpp-q8", str(tiny_checkpoint), "1", "--prepare"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    reply = json.loads(done.stdout)
    assert "not installed" in rounds.absent(reply)


def test_rotary_pairs_in_llama_cpp_order() -> None:
    """Turning neighbours of the reordered rows gives the official rotation of halves, reordered: scores are the same."""
    rng = np.random.default_rng(0)
    heads, dim, width = 3, 8, 5
    weight, x = rng.standard_normal((heads * dim, width), dtype=np.float32), rng.standard_normal(width)
    angles = rng.uniform(0, 6, dim // 2)

    def turned(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cos, sin = np.cos(angles), np.sin(angles)
        return first * cos - second * sin, second * cos + first * sin

    official = (weight @ x).reshape(heads, dim)
    low, high = turned(official[:, : dim // 2], official[:, dim // 2 :])
    theirs = (interleave_halves(weight, heads) @ x).reshape(heads, dim)
    even, odd = turned(theirs[:, 0::2], theirs[:, 1::2])
    np.testing.assert_allclose(even, low, atol=1e-12)
    np.testing.assert_allclose(odd, high, atol=1e-12)


@pytest.mark.slow
def test_gguf_holds_the_decoder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    write_gguf(tiny_checkpoint, tmp_path / "text.gguf")
    read = gguf.GGUFReader(tmp_path / "text.gguf")
    config, _ = load_configs(tiny_checkpoint)
    text = config.text
    names = [name for name in tensor_shapes(config) if "text_model" in name or name == "lm_head.weight"]
    found = {tensor.name: tensor for tensor in read.tensors}
    assert len(found) == len(names)
    assert read.fields["llama.attention.head_count_kv"].contents() == text.num_key_value_heads
    assert read.fields["llama.rope.freq_base"].contents() == pytest.approx(text.rope_theta)
    tokens = json.loads((tiny_checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert read.fields["tokenizer.ggml.tokens"].contents()[1000] in tokens
    ours = CheckpointReader(tiny_checkpoint).float32("model.text_model.layers.1.mlp.down_proj.weight")
    theirs = gguf.quants.dequantize(found["blk.1.ffn_down.weight"].data, gguf.GGMLQuantizationType.BF16)
    np.testing.assert_allclose(theirs, ours, rtol=2**-8)  # bfloat16 keeps eight bits


def test_files_for_a_peer_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "WORK", tmp_path)

    def broken(out: Path) -> None:
        (out / "half").write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        material.for_peer(tmp_path / "model", "x", broken)
    out = material.for_peer(tmp_path / "model", "x", lambda folder: (folder / "whole").touch())
    assert [path.name for path in out.iterdir()] == ["whole"]
    assert material.for_peer(tmp_path / "model", "x", broken) == out  # kept, not written again


def test_roofline_counts_every_weight_of_the_decoder() -> None:
    config = preset("256m")
    shapes = tensor_shapes(config)
    layer = sum(np.prod(shape) for name, shape in shapes.items() if "text_model.layers.0" in name and len(shape) == 2)
    decode = [product for product in kernels.products(config) if product.what.startswith("decode: ")]
    assert sum(product.n * product.k for product in decode) == layer + np.prod(shapes["lm_head.weight"])
    one = kernels.Product("", 1, 64, 32)
    assert one.flop == 4096
    assert one.bytes("q8") == 64 * 32 + 64 * 2 + 2 * 32 + 4 * 64  # values, half-precision scales, x, y


def test_chart_and_tables(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = report.summarize({"vision": {"tiles": 13}}, {"vision": {"smolvlm-q8": runs(1.3), "onnxruntime-int8": runs(2.0)}}, {})
    whole = {
        "rows": rows,
        "settings": {"size": "256m", "threads": 2, "rounds": 1, "quick": True},
        "machine": {"cpu": "x"},
        "load": {"smolvlm-q8": {}, "onnxruntime-int8": {}},
        "absent": {"openvino-int8": "openvino is not installed"},
    }
    assert chart.draw(whole, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    console = Console(width=120)
    with console.capture() as printed:
        for table in report.make_tables(whole):
            console.print(table)
    text = printed.get()
    assert "openvino is not installed" in text
    assert "QUICK" in text
