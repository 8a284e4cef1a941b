"""`/image`, `/video`, `/system`, `/save` inside a real `smolvlm chat`: quoting, spaces, errors in one line, no file replaced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from helpers_cli import ROOT

MEDIA = ROOT / "examples" / "media" / "nano"


def chat(folder: Path, lines: list[str], *args: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-m", "smolvlm", "chat", "--model", "nano", *args],
        cwd=folder,
        timeout=200,
        input="\n".join([*lines, ""]).encode(),
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def test_media_are_added_and_the_conversation_is_saved(tmp_path: Path) -> None:
    shutil.copy(MEDIA / "sign.png", tmp_path / "my sign.png")
    shutil.copy(MEDIA / "clip.mp4", tmp_path / "clip.mp4")
    (tmp_path / "old.json").write_text("mine")
    code, said, err = chat(
        tmp_path,
        [
            "/image my sign.png",
            "What does the sign say?",
            "/image none.png",
            "/video 'my sign.png'",
            "/image clip.mp4",
            "/image",
            '/image "un',
            "/save old.json",
            "/save nowhere/x.json",
            "/save",
            "/save new talk.json",
            "/system Be brief.",
            "/dance",
        ],
    )
    assert (code, said) == (0, ["MILK"]), err
    errors = [line for line in err.splitlines() if line.startswith("smolvlm: error: ")]
    assert len(errors) == 8, err
    assert all(
        word in line
        for word, line in zip(
            (
                "none.png: no such file",
                "my sign.png",
                "clip.mp4 is a video; add it with /video",
                "needs the path",
                '"un',
                "old.json exists already",
                "nowhere/x.json: cannot be written",
                "needs the path",
            ),
            errors,
            strict=True,
        )
    )
    assert "/dance is no command" in err
    assert "Traceback" not in err
    assert (tmp_path / "old.json").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["clip.mp4", "my sign.png", "new talk.json", "old.json"]
    saved = json.loads((tmp_path / "new talk.json").read_text())
    assert saved["turns"] == [{"media": ["my sign.png"], "question": "What does the sign say?", "answer": "MILK"}]


def test_moving_pictures_and_ways_to_leave(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], duration=400)
    shutil.copy(MEDIA / "sign.png", tmp_path)
    code, said, err = chat(tmp_path, ["/video sign.png", "/image moving.webp", "/video moving.webp", "/Quit, thank you", "What?"])
    assert (code, said) == (0, []), err
    assert "error: sign.png is a picture; add it with /image." in err
    assert err.count("/video adds all of moving.webp.") == 1
    for leave in ("/exit now", "/EXIT", "/bye"):
        assert chat(tmp_path, [leave, "What?"])[:2] == (0, [])


def test_a_video_is_added_and_a_text_is_saved(tmp_path: Path) -> None:
    code, said, err = chat(tmp_path, [f"/video {MEDIA / 'clip.mp4'}", "What happens in this video?", "/save talk.txt"])
    assert (code, said) == (0, ["the butterfly falls"]), err
    text = (tmp_path / "talk.txt").read_text()
    assert text == f"[{MEDIA / 'clip.mp4'}]\nUser: What happens in this video?\nAssistant: the butterfly falls\n"
