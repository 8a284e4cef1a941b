"""The hand-made set: complete, small, in nano's scope, and its answers true by its own pixels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm import SmolVLM
from smolvlm.config import preset, processor_preset
from smolvlm.errors import EvalError
from smolvlm.evals.handmade import handmade_suite
from smolvlm.evals.runner import evaluate
from smolvlm.media.video import sample_video
from smolvlm.synth.world import SMALL

FOLDER = Path(__file__).resolve().parents[2] / "src/smolvlm/evals/assets/handmade"
LINES = [json.loads(line) for line in (FOLDER / "metadata.jsonl").read_text().splitlines()]


def test_every_file_is_small_and_asked_about() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.suffix in (".jpg", ".png", ".mp4")}
    assert set(files) == {line["file"] for line in LINES}
    assert max(files.values()) <= 15_000
    assert Counter(Path(name).suffix for name in files) == {".jpg": 60, ".mp4": 8}
    assert "CC0" in (FOLDER / "LICENSES.md").read_text()


def test_answers_stay_in_nanos_scope() -> None:
    for line in LINES:
        task, answer = line["task"], line["answer"]
        if task == "colour":
            assert answer in SMALL.colours
        if task == "object":
            name = answer.split(" ")[-1]
            assert name in SMALL.objects or (name in SMALL.shapes and answer.split(" ")[1] in SMALL.colours)
        if task == "count":
            assert 1 <= int(answer) <= SMALL.max_count
        if task == "reading_word":
            assert len(answer) <= SMALL.max_letters
            assert answer.isupper()
        if task == "reading_number":
            assert len(answer) <= SMALL.max_digits


def test_a_large_shape_has_the_colour_that_is_said() -> None:
    rgb = {
        "red": (214, 30, 30),
        "orange": (250, 136, 20),
        "yellow": (248, 218, 40),
        "green": (30, 140, 60),
        "blue": (40, 80, 210),
        "purple": (112, 40, 160),
        "pink": (250, 150, 190),
        "brown": (112, 66, 34),
        "black": (16, 16, 18),
        "white": (248, 248, 246),
    }
    for line in LINES:
        if line["task"] != "colour" or "shape" not in line["file"]:
            continue
        pixels = np.asarray(Image.open(FOLDER / line["file"]).convert("RGB"), int)
        shares = {name: (np.abs(pixels - value).max(-1) < 30).mean() for name, value in rgb.items()}
        assert shares[line["answer"]] > 0.05, line
        assert max(shares, key=lambda name: shares[name]) == line["answer"], line


def test_clips_show_what_happens_when_it_is_said_to() -> None:
    config = processor_preset(preset("nano"))
    for line in LINES:
        if not line["file"].endswith(".mp4"):
            continue
        video = sample_video(FOLDER / line["file"], config)
        change = np.abs(np.diff(video.frames.astype(int), axis=0)).mean((1, 2, 3))
        if line["task"] == "when":
            seconds = int(video.timestamps_s[int(change.argmax()) + 1])
            assert line["answer"] == f"at 00:{seconds:02d}"
        elif line["answer"] == "nothing happens":
            assert change.max() < 1
        elif line["task"] == "motion":
            assert change.min() > 1, "it moves all the time"


def test_the_set_runs(model: SmolVLM) -> None:
    report = evaluate(model, handmade_suite(), items=1, max_new_tokens=3, options={"detail": "low"})
    assert [row.items for row in report.rows] == [1] * 12
    suite = handmade_suite()
    assert sum(suite.count(task, 1000) for task in suite.tasks) == len(LINES)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        '{"file": "a.jpg"}',
        '{"file": "a.jpg", "task": "colours", "question": "?", "answer": "red"}',
        '{"file": "../a.jpg", "task": "colour", "question": "?", "answer": "red"}',
        "[1, 2]",
        '{"file": 5, "task": "colour", "question": "?", "answer": "red"}',
    ],
)
def test_a_set_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(EvalError, match=r"metadata.jsonl, line 1: expected file, task, question and answer"):
        handmade_suite(tmp_path)
    with pytest.raises(EvalError, match="cannot be read"):
        handmade_suite(tmp_path / "none")
