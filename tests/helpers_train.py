"""Small datasets and mixtures on disk for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = ("red", "green", "blue", "one", "two", "three", "left", "right")


def record(number: int, answer: str | None = None, **extra: Any) -> dict[str, Any]:
    """A picture with one question, in LLaVA's form."""
    answer = answer or f"It is {WORDS[number % len(WORDS)]}."
    return {
        "image": f"{number}.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": answer}],
        **extra,
    }


def text_record(answer: str = "Four.", turns: int = 1) -> dict[str, Any]:
    return {
        "conversations": [
            turn for n in range(turns) for turn in ({"from": "human", "value": f"Question {n}?"}, {"from": "gpt", "value": answer})
        ]
    }


def write_pictures(folder: Path, count: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def write_mixture(folder: Path, records: list[Any], *, modality: str = "image", strategy: str = "all") -> Path:
    """A mixture of one dataset in `folder`; the pictures lie beside it."""
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "data.jsonl", records)
    mixture = folder / "mix.yaml"
    mixture.write_text(
        f"datasets:\n  - name: data\n    json_path: data.jsonl\n    modality: {modality}\n    sampling_strategy: {strategy}\n",
        encoding="utf-8",
    )
    return mixture


def picture_mixture(folder: Path, count: int = 8) -> Path:
    """`count` pictures, one question each, and one text record for every two of them."""
    folder.mkdir()
    write_pictures(folder, count)
    records = [record(n) for n in range(count)] + [text_record(f"{WORDS[n]}, I say.") for n in range(count // 2)]
    return write_mixture(folder, records)
