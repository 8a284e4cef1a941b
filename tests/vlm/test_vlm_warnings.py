"""What media give cause to say reaches whoever asked: the answer, its JSON, the log once, the command line's stderr."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

import smolvlm
from helpers_media import crowded_clip
from smolvlm import SmolVLM


@pytest.fixture(scope="module")
def nano() -> SmolVLM:
    return smolvlm.load("nano")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowded_clip(tmp_path_factory.mktemp("warnings") / "crowded.mp4")


def _rate(sentences: Sequence[str]) -> list[str]:
    """Those about the frame rate: nano has a word of its own for pictures outside its world."""
    return [sentence for sentence in sentences if "frame rate" in sentence]


def test_an_answer_carries_its_warnings(nano: SmolVLM, crowded: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "smolvlm"):
        answer = nano.ask(crowded, "What happens?", max_frames=8, max_new_tokens=4)
    assert len(_rate(answer.warnings)) == 1
    assert _rate(answer.warnings)[0].startswith(f"{crowded}: its frame rate varies")
    assert answer.to_dict()["warnings"] == list(answer.warnings)
    assert _rate([record.getMessage() for record in caplog.records]) == _rate(answer.warnings)
    quiet = nano.ask(crowded, "What happens?", max_frames=8, sampling="time", max_new_tokens=4)
    assert _rate(quiet.warnings) == _rate(quiet.to_dict().get("warnings", [])) == []


def test_a_session_logs_them_once(nano: SmolVLM, crowded: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "smolvlm"), nano.session(crowded, max_frames=8, max_new_tokens=4) as session:
        answers = [session.ask("What happens?"), session.ask("Where?")]
    assert all(len(_rate(answer.warnings)) == 1 for answer in answers)
    assert len(_rate([record.getMessage() for record in caplog.records])) == 1


def test_one_picture_of_an_animation(nano: SmolVLM, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.webp", save_all=True, append_images=frames[1:])
    answer = nano.chat(
        [{"role": "user", "content": [{"type": "image", "path": str(tmp_path / "two.webp")}, {"type": "text", "text": "Which color?"}]}],
        max_new_tokens=4,
    )
    assert sum("only its first frame was read" in sentence for sentence in answer.warnings) == 1


def test_the_command_line_says_it_on_stderr(crowded: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "smolvlm",
        "ask",
        str(crowded),
        "What happens?",
        "--model",
        "nano",
        "--max-frames",
        "8",
        "--max-new-tokens",
        "4",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert len(_rate(json.loads(done.stdout)["warnings"])) == 1
    assert done.stderr.count("its frame rate varies") == 1
    done = subprocess.run([*command, "--sampling", "time"], capture_output=True, text=True, timeout=120)
    assert _rate(json.loads(done.stdout).get("warnings", [])) == []
    assert "frame rate" not in done.stderr
