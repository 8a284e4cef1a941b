"""`smolvlm index` and `smolvlm search` as they are typed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import smolvlm.vlm
from helpers_videos import Programme
from smolvlm import SmolVLM
from smolvlm.apps.library import Library
from smolvlm.apps.videos.tables import VIDEOS
from smolvlm.cli.main import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, nano: SmolVLM) -> Any:
    """(exit code, stdout, stderr) of a command line with `nano`, which is loaded already."""
    monkeypatch.setattr(smolvlm.vlm, "load", lambda *_, **__: nano)

    def call(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def library(programme: Programme, tmp_path: Path) -> Path:
    """A copy of the programme's library, closed."""
    programme.library.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(programme.library.path, tmp_path / "copy.db")
    return tmp_path / "copy.db"


def test_a_search_prints_moments_and_writes_a_playlist_once(run: Any, library: Path, tmp_path: Path) -> None:
    code, out, _ = run("search", library, "the cat falls", "--model", "nano", "-o", tmp_path / "x.xspf")
    assert code == 0
    assert "the cat falls" in out.splitlines()[0]
    assert "start-time=" in (tmp_path / "x.xspf").read_text()
    code, _, err = run("search", library, "the cat falls", "--model", "nano", "-o", tmp_path / "x.xspf")
    assert code == 2
    assert "pass --overwrite" in err


def test_nothing_matches_is_said_with_the_nearest_miss(run: Any, library: Path) -> None:
    code, out, err = run("search", library, "the hammer falls", "--model", "nano")
    assert (code, out) == (3, "")
    assert "nothing matches 'the hammer falls'; the nearest is" in err
    code, out, _ = run("search", library, "the hammer falls", "--model", "nano", "--json")
    assert code == 3
    assert json.loads(out)["hits"] == []
    assert json.loads(out)["nearest"]["caption"]


def test_a_file_is_indexed_first_and_known_afterwards(run: Any, programme: Programme, library: Path) -> None:
    args = ("--model", "nano", "--every", 1, "--library", library)
    code, out, _ = run("search", programme.path, "the cat falls", *args, "--json")
    assert code == 0
    assert json.loads(out)["hits"][0]["file"] == str(programme.path)
    code, out, _ = run("index", programme.path, *args)
    assert code == 0
    assert "known already" in out


def test_a_search_takes_the_index_that_is_there(run: Any, programme: Programme, library: Path) -> None:
    """Made with other settings than those of a search: nothing is indexed again."""
    with Library.open(library, [VIDEOS]) as opened:
        before = len(opened.rows("SELECT id FROM video_runs"))
    code, out, _ = run("search", programme.path, "the cat falls", "--model", "nano", "--library", library, "--json")
    assert (code, json.loads(out)["hits"][0]["file"]) == (0, str(programme.path))
    with Library.open(library, [VIDEOS]) as opened:
        assert len(opened.rows("SELECT id FROM video_runs")) == before


def test_index_writes_what_was_asked_beside_the_video_or_elsewhere(run: Any, programme: Programme, library: Path, tmp_path: Path) -> None:
    args = ("index", programme.path, "--model", "nano", "--every", 1, "--library", library, "--write", "vtt", "--out", tmp_path)
    assert run(*args)[0] == 0
    assert (tmp_path / f"{programme.path.stem}.vtt").read_text().startswith("WEBVTT")
    code, _, err = run(*args)
    assert code == 2
    assert "exists already; pass --overwrite" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("search", "x"), "say where and what"),
        (("search", "absent.mp4", "a dog"), "no such file or folder"),
        (("search", "LIBRARY", "a dog", "-o", "x.txt"), "name it .xspf or .m3u8"),
        (("search", "LIBRARY", ""), "query has 0 characters"),
        (("index", "absent"), "no such file or folder"),
        (("index", "VIDEO", "--every", "0"), "every 0"),
        (("index", "VIDEO", "--write", "docx"), "expected one of vtt"),
        (("index", "VIDEO", "--library", "FOLDER"), "is a folder, not a library"),
    ],
)
def test_bad_input_is_one_sentence(run: Any, programme: Programme, library: Path, args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    named = {"LIBRARY": library, "VIDEO": programme.path, "FOLDER": tmp_path}
    code, out, err = run(*(named.get(arg, arg) for arg in args), "--model", "nano")
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_second_run_is_refused_and_a_search_goes_on_with_what_there_is(run: Any, programme: Programme, library: Path) -> None:
    with Library.open(library, [VIDEOS]) as opened, opened.run_lock("videos"):
        code, _, err = run("index", programme.path, "--model", "nano", "--every", 1, "--library", library)
        assert code == 2
        assert "another run (videos) is writing to this library" in err
        code, _, err = run("search", programme.path, "the cat falls", "--model", "nano", "--every", 2, "--library", library)
        assert code == 3
        assert "another run is indexing" in err


def test_a_bad_file_in_a_folder_is_left_out(run: Any, programme: Programme, library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"nothing")
    shutil.copy(programme.path, folder / "good.mp4")
    code, out, err = run("index", folder, "--model", "nano", "--every", 1, "--library", library)
    assert code == 0
    assert "good.mp4" in out
    assert "left out" in err
    assert "broken.mp4" in err


@pytest.mark.parametrize("command", ["highlights", "search", "page"])
def test_the_video_itself_is_never_replaced(run: Any, programme: Programme, tmp_path: Path, command: str) -> None:
    source, link = tmp_path / ("a.xspf" if command == "search" else "a.html" if command == "page" else "a.mp4"), tmp_path / "link.mp4"
    shutil.copy(programme.path, source)
    link.symlink_to(source)
    before = source.read_bytes()
    library = ("--library", tmp_path / "l.db", "--model", "nano", "--overwrite")
    rest = {
        "search": ("the cat falls", "-o", source, *library),
        "highlights": ("-o", source, *library[2:]),
        "page": ("--page", source, *library[2:]),
    }
    for given in (source, link):
        code, _, err = run("highlights" if command == "page" else command, given, *rest[command])
        assert (code, "is the video itself" in err) == (2, True), err
    assert source.read_bytes() == before


def test_names_that_are_no_utf8_and_what_is_no_file(run: Any, programme: Programme, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff.mp4"))
    try:
        shutil.copy(programme.path, odd)
    except OSError:  # some file systems take UTF-8 only
        shutil.copy(programme.path, folder / "plain.mp4")
    args = ("--library", tmp_path / "l.db", "--model", "nano")
    assert run("index", folder, *args)[0] == 0
    assert run("search", folder, "the cat falls", *args, "-o", tmp_path / "x.xspf")[0] == 0
    os.mkfifo(tmp_path / "pipe.mp4")
    code, _, err = run("index", tmp_path / "pipe.mp4", *args)
    assert (code, "is not a regular file" in err) == (2, True)


def test_two_videos_are_not_written_under_one_name(run: Any, programme: Programme, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        shutil.copy(programme.path, tmp_path / name / "v.mp4")
    out = ("--write", "vtt", "--out", tmp_path, "--overwrite", "--library", tmp_path / "l.db", "--model", "nano")
    code, _, err = run("index", tmp_path / "x", tmp_path / "y", *out)
    assert (code, "would be written for" in err) == (2, True)


def test_a_video_that_is_gone_is_said_and_in_no_playlist(run: Any, programme: Programme, tmp_path: Path) -> None:
    source, library = tmp_path / "gone.mp4", tmp_path / "l.db"
    shutil.copy(programme.path, source)
    assert run("index", source, "--library", library, "--model", "nano", "--every", 1)[0] == 0
    source.unlink()
    code, out, err = run("search", library, "the cat falls", "--model", "nano", "-o", tmp_path / "x.xspf")
    assert (code, "is no longer there" in err, "the cat falls" in out) == (0, True, True)
    assert not (tmp_path / "x.xspf").exists()


@pytest.mark.parametrize(
    "flags", [("index", "--prompt", " "), ("index", "--prompt", "x" * 301), ("highlights", "--about", "", "--dry-run")]
)
def test_texts_that_say_nothing_or_too_much(run: Any, programme: Programme, tmp_path: Path, flags: tuple[str, ...]) -> None:
    command, *rest = flags
    library = () if command == "highlights" else ("--library", tmp_path / "l.db")
    code, _, err = run(command, programme.path, "--model", "nano", *rest, *library)
    assert (code, "expected 1 to 300" in err) == (2, True)
