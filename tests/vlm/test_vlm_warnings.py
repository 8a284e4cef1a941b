"""What media give cause to say reaches whoever asked: the answer, its JSON, the log once, the command line's stderr."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
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


def test_an_answer_carries_its_warnings(nano: SmolVLM, crowded: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "smolvlm"):
        answer = nano.ask(crowded, "What happens?", max_frames=8, max_new_tokens=4)
    assert len(answer.warnings) == 1
    assert answer.warnings[0].startswith(f"{crowded}: its frame rate varies")
    assert answer.to_dict()["warnings"] == list(answer.warnings)
    assert [record.getMessage() for record in caplog.records] == list(answer.warnings)
    quiet = nano.ask(crowded, "What happens?", max_frames=8, sampling="time", max_new_tokens=4)
    assert quiet.warnings == ()
    assert "warnings" not in quiet.to_dict()


def test_a_session_logs_them_once(nano: SmolVLM, crowded: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "smolvlm"), nano.session(crowded, max_frames=8, max_new_tokens=4) as session:
        answers = [session.ask("What happens?"), session.ask("Where?")]
    assert all(len(answer.warnings) == 1 for answer in answers)
    assert len(caplog.records) == 1


def test_one_picture_of_an_animation(nano: SmolVLM, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.webp", save_all=True, append_images=frames[1:])
    answer = nano.chat([{"role": "user", "content": [{"type": "image", "path": str(tmp_path / "two.webp")},
                                                     {"type": "text", "text": "Which color?"}]}], max_new_tokens=4)  # fmt: skip
    assert len(answer.warnings) == 1
    assert "only its first frame was read" in answer.warnings[0]


def test_the_command_line_says_it_on_stderr(crowded: Path) -> None:
    command = [sys.executable, "-m", "smolvlm", "ask", str(crowded), "What happens?", "--model", "nano", "--max-frames", "8",
               "--max-new-tokens", "4", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "its frame rate varies" in json.loads(done.stdout)["warnings"][0]
    assert done.stderr.count("its frame rate varies") == 1
    done = subprocess.run([*command, "--sampling", "time"], capture_output=True, text=True, timeout=120)
    assert "warnings" not in json.loads(done.stdout)
    assert "frame rate" not in done.stderr
