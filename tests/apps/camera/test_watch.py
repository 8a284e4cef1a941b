"""`smolvlm watch` from a file of a drawn room to the event's row, line, picture and clip; the reader; wrong rules."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

import smolvlm.vlm
from helpers_camera import film, room_clip
from smolvlm import SmolVLM
from smolvlm.apps.camera.address import address_of
from smolvlm.apps.camera.keeping import Keeper, check_lines
from smolvlm.apps.camera.reader import frames_of
from smolvlm.apps.camera.rules import Retention
from smolvlm.apps.camera.rules_file import read_rules
from smolvlm.apps.camera.tables import CAMERA
from smolvlm.apps.library import Library
from smolvlm.cli.main import main
from smolvlm.errors import RulesError, SourceError

RULES = """camera: hall
zones:
  left: [[0, 0], [0.02, 0], [0.02, 0.02], [0, 0.02]]
rules:
  - name: fall
    event: a person falls
    confirm: {question: "Does anybody fall?"}
    still: 2.5
"""


@pytest.fixture(scope="module")
def nano() -> SmolVLM:
    return smolvlm.load("nano")


@pytest.fixture
def watch(tmp_path: Path, nano: SmolVLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """(messages, stderr) of `smolvlm watch` with `nano`, which is loaded already."""
    monkeypatch.setattr(smolvlm.vlm, "load", lambda *_, **__: nano)

    def call(source: object, rules: str = RULES) -> tuple[list[dict[str, Any]], str]:
        (tmp_path / "rules.yaml").write_text(rules, encoding="utf-8")
        capsys.readouterr()
        files = ["--rules", str(tmp_path / "rules.yaml"), "--library", str(tmp_path / "library.db")]
        code = main(["watch", str(source), *files, "--model", "nano", "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        decoder, found = json.JSONDecoder(), []
        while out := out.lstrip():
            value, end = decoder.raw_decode(out)
            found.append(value)
            out = out[end:]
        return found, err

    return call


def test_a_fall_is_an_event_with_a_row_a_line_a_picture_and_a_clip(watch: Any, tmp_path: Path) -> None:
    sample = room_clip("a person falls")
    lines = tmp_path / "events.jsonl"
    messages, err = watch(film(tmp_path / "fall.mp4", sample), f"{RULES}jsonl: {lines}\n")
    assert "no medical or safety device" in err
    assert [each["type"] for each in messages] == ["new", "update"]
    new, update = messages
    assert new["id"] == update["id"]
    assert new["rule"] == "fall"
    assert new["alert_s"] - new["time_s"] >= 2.5, "it was looked at again before the alert"
    assert [json.loads(line) for line in lines.read_text().splitlines()] == messages
    with Library.open(tmp_path / "library.db", [CAMERA]) as library:
        (row,) = library.rows("SELECT * FROM camera_events")
    assert (row["id"], row["picture"], row["clip"]) == (new["id"], new["picture"], update["clip"])
    with av.open(new["picture"]) as picture, av.open(update["clip"]) as clip:
        height, width, _ = sample.frames[0].shape
        assert (picture.streams.video[0].width, picture.streams.video[0].height) == (width, height)
        times = [frame.time for frame in clip.decode(video=0)]
    assert len(times) > 12
    assert times == sorted(times)
    assert times[-1] > 4


@pytest.mark.parametrize("skip", [0, 1])
def test_bending_down_is_no_fall(watch: Any, tmp_path: Path, skip: int) -> None:
    assert watch(film(tmp_path / "bend.mp4", room_clip("a person bends down", skip)))[0] == []


@pytest.mark.parametrize(
    "more", ["    zone: left\n", "    schedule: {days: [mon], from: '00:00', to: '00:00'}\n"], ids=["zone", "schedule"]
)
def test_a_rule_is_asleep_outside_its_zone_and_its_schedule(watch: Any, tmp_path: Path, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_780_488_000.0)  # a Wednesday, everywhere on earth
    assert watch(film(tmp_path / "fall.mp4", room_clip("a person falls")), RULES + more)[0] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (RULES.replace("event:", "evnt:"), "line 6: rules[0].evnt is no key that is known here; did you mean event?"),
        (RULES + "    zone: lefft\n", "line 9: rules[0].zone names the zone 'lefft', which `zones` does not have; did you mean left?"),
        (RULES + "    threshold: 2\n", "line 9: rules[0].threshold is '2'; expected a number from 0 to 1."),
        (RULES + "    schedule: {from: 22:30}\n", "line 9: rules[0].schedule.from is '22:30' without quotes"),
        (RULES.replace("camera: hall\n", ""), "has no key camera"),
        (RULES + "  - [\n", "this is no YAML"),
    ],
)
def test_wrong_rules_say_the_line_the_key_and_the_nearest_key(tmp_path: Path, wrong: str, said: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(wrong, encoding="utf-8")
    with pytest.raises(RulesError) as caught:
        read_rules(path)
    assert said in str(caught.value)


def test_old_pictures_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with Library.open(tmp_path / "library.db", [CAMERA]) as library:
        maker = library.maker(app="camera", model="m", fingerprint="f")
        keeper = Keeper(library, maker.id, folder, Retention(days=1, bytes=1_500_000), None)
        for number in range(3):
            path = folder / f"{number}.jpg"
            path.write_bytes(bytes(1_000_000))
            with library.write() as rows:
                rows.execute(
                    "INSERT INTO camera_events VALUES (?, ?, 'c', 'r', 'e', 0, 0, 1, '[]', ?, NULL)", (str(number), maker.id, str(path))
                )
        (folder / "mine.jpg").write_bytes(bytes(5_000_000))
        keeper.prune()
        assert sorted(path.name for path in folder.iterdir()) == ["2.jpg", "mine.jpg"]
        assert [row[0] is None for row in library.rows("SELECT picture FROM camera_events ORDER BY id")] == [True, True, False]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(path: Path, port: int) -> subprocess.Popen[bytes]:
    command = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(path), "-c", "copy", "-f", "mpegts", "-listen", "1"]
    return subprocess.Popen([*command, f"http://127.0.0.1:{port}/live"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_stream_goes_on_after_its_server_was_killed_and_the_password_is_never_said(tmp_path: Path, port: int) -> None:
    path, notes = film(tmp_path / "room.mp4", room_clip("a person falls")), []
    server = _serve(path, port)
    stream: Iterator[Any] = frames_of(
        address_of(f"http://someone:hunter22@127.0.0.1:{port}/live"), 0.0, notes.append, silence_s=15, wait_s=0.3
    )
    try:
        times = [next(stream).time_s for _ in range(5)]
        server.kill()
        server.wait()
        server = _serve(path, port)
        times += [next(stream).time_s for _ in range(20)]
    finally:
        stream.close()  # type: ignore[attr-defined]
        server.kill()
        server.wait()
    assert times == sorted(times)
    assert notes
    assert not any("hunter22" in text or "someone" in text for text in notes), notes


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with Library.open(tmp_path / "library.db", [CAMERA]) as library, pytest.raises(SourceError, match="pass another --events"):
        Keeper(library, 1, tmp_path / "file" / "events", Retention(), None)


@pytest.mark.parametrize("content", [b"\x00\x01 a video", b"[1]\n", b"my notes\n"])
def test_events_are_added_to_no_file_of_somebody_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="nothing is added to it"):
        check_lines(path)
    path.write_text('{"type": "new"}\n')
    check_lines(path)
    check_lines(tmp_path / "absent")
