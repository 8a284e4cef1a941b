"""`smolvlm index` and `smolvlm search` as they are typed."""

from __future__ import annotations

import json
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
