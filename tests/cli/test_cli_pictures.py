"""Pictures on the command line: what an animation is looked at as, what is said on stderr, questions that name a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers_pictures import drawn, encoded

NANO = ("--model", "nano", "--max-new-tokens", 4)


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    path = tmp_path / "moving.gif"
    frames = [Image.fromarray(np.roll(drawn(), 4 * i, axis=1)).quantize(32) for i in range(6)]
    path.write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=500))
    return path


def test_an_animation_is_a_video_unless_it_is_asked_as_an_image(run, moving) -> None:
    video = run("ask", moving, "What happens?", "--json", *NANO)
    assert (video.json["media"][0]["kind"], video.json["media"][0]["duration_s"]) == ("video", 3.0)
    assert "first frame" not in video.err
    image = run("ask", moving, "What happens?", "--json", "--as", "image", *NANO)
    assert image.json["media"][0]["kind"] == "image"
    assert "only its first frame was read" in image.json["warnings"][0]
    assert image.err.count("only its first frame was read") == 1
    assert "--as film" in run("ask", moving, "What?", "--as", "film", *NANO).err


def test_transparency_is_said_and_takes_a_background(run, tmp_path) -> None:
    path = tmp_path / "logo.png"
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 10:30, 3] = 255
    path.write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    assert "nothing of it can be told apart" in run("ask", path, "What?", *NANO).err
    assert "transparent" not in run("ask", path, "What?", "--background", "white", *NANO).err
    refused = run("ask", path, "What?", "--background", "mauve", *NANO)
    assert refused.code == 2
    assert "--background mauve" in refused.err


def test_max_pixels(run, tmp_path) -> None:
    large, drawing = tmp_path / "large.jpg", tmp_path / "large.png"
    Image.fromarray(drawn(400, 300)).save(large)
    Image.fromarray(drawn(400, 300)).save(drawing)
    assert "it was decoded at 1/2 of its size" in run("ask", large, "What?", "--max-pixels", 100_000, *NANO).err
    refused = run("ask", drawing, "What?", "--max-pixels", 100_000, *NANO)
    assert refused.code == 2
    assert "raise --max-pixels" in refused.err


def test_a_question_may_be_a_folders_name(run, tmp_path, monkeypatch) -> None:
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "a.png"
    photo.write_bytes(encoded(Image.fromarray(drawn()), "PNG"))
    monkeypatch.chdir(tmp_path)
    assert run("ask", photo, "photos", *NANO).code == 0
    assert run("ask", "photos", *NANO).code == 0
    for command in (("ask", photo, "photos/"), ("ask", photo, "a.png")):
        refused = run(*command, *NANO)
        assert refused.code == 2
        assert "is media, but the last argument is the prompt" in refused.err
